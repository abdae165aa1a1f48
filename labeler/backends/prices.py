"""What known models cost and hold: ``prices.json`` beside this file, and a file of the instance over it.

A price file maps model ids to what is known of them, every field optional: ``input``, ``output`` and
``cached_input`` in US dollars per million tokens, ``batch`` as the share of the price that a call in a batch costs,
``context`` in tokens, ``row`` as the most tokens of one row in fine-tuning, and ``shutdown`` as YYYY-MM-DD::

    {"my-model": {"context": 32768, "input": 0.2, "cached_input": 0.1, "output": 0.6, "batch": 0.5}}

Rows are those of OpenAI's guide to fine-tuning (August 2024) and, of gpt-4.1, of Azure's table of models (June 2025).
An unknown price stays unknown: a cost of None is shown as unknown and never counted as 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from labeler import strictjson
from labeler.errors import JsonError, SettingError
from labeler.sentence import N_, Sentence

_FIELDS = ("context", "row", "input", "cached_input", "output", "batch", "shutdown")
_WARN_FROM = 90
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}\Z")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model. Prices in US dollars per million tokens; ``context`` and ``row`` in tokens; None where not known.

    ``cached_input`` None means that the model has no lower price for cached tokens; ``batch`` is the share of the
    price that a call through the batch API costs. ``shutdown`` is the first day without the model. ``own`` says that
    this is from the file of the instance: what a person wrote there counts more than what a server says.
    """

    model_id: str
    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    context: int | None = None
    row: int | None = None
    shutdown: date | None = None
    batch: float | None = None
    own: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class ModelWarning:
    """A model that goes: ``days`` are left until ``shutdown``; 0 or less, and it is shut down already."""

    model_id: str
    shutdown: date
    days: int


def load_prices(override_path: Path | None = None) -> dict[str, ModelInfo]:
    """Return all known models by id; an entry of ``override_path`` adds a model or replaces it as a whole.

    Raises :class:`SettingError`, naming file, model and field, for a file that cannot be read as prices.
    """
    built_in = resources.files("labeler.backends").joinpath("prices.json").read_bytes()
    prices = _parse(built_in, "prices.json")
    if override_path is not None:
        try:
            data = override_path.read_bytes()
        except OSError as error:
            message = Sentence(
                "%(file)s: cannot be read (%(reason)s); create it or remove the setting",
                file=override_path,
                reason=error.strerror,
            )
            raise SettingError(message) from error
        own = _parse(data, str(override_path))
        prices |= {model_id: replace(info, own=True) for model_id, info in own.items()}
    return prices


def find_model(prices: Mapping[str, ModelInfo], model_id: str | None) -> ModelInfo | None:
    """Return what is known of a model: by its id, or for "name-YYYY-MM-DD" by its name. None if nothing is.

    Nothing else is guessed: "gpt-4o-audio" is not "gpt-4o".
    """
    if model_id is None:
        return None
    return prices.get(model_id) or prices.get(_DATED.sub("", model_id))


def known_context(info: ModelInfo | None, told: int | None) -> int | None:
    """Return how many tokens a model reads: as the instance's own file says, else its server, else ``prices.json``."""
    listed = None if info is None else info.context
    return listed if info is not None and info.own and listed else told or listed


def shutdown_warning(info: ModelInfo | None, today: date) -> ModelWarning | None:
    """Return a warning from 90 days before a model is shut down, and ever after; None before that, or if unknown."""
    if info is None or info.shutdown is None:
        return None
    days = (info.shutdown - today).days
    return ModelWarning(info.model_id, info.shutdown, days) if days <= _WARN_FROM else None


def cost(
    tokens_in: int | None,
    tokens_out: int | None,
    tokens_cached: int | None,
    info: ModelInfo | None,
    batch: bool = False,
) -> float | None:
    """Return the price of one call in US dollars, or None when the model, its price or a token count is unknown.

    ``tokens_cached`` are part of ``tokens_in``; None counts as none cached, which never makes the cost too low. For
    the same reason a call in a ``batch`` has its full price where the discount is not known.
    """
    if info is None or info.input is None or info.output is None or tokens_in is None or tokens_out is None:
        return None
    cached = min(tokens_cached or 0, tokens_in)
    cached_price = info.input if info.cached_input is None else info.cached_input
    full = ((tokens_in - cached) * info.input + cached * cached_price + tokens_out * info.output) / 1_000_000
    return full * info.batch if batch and info.batch is not None else full


def _parse(data: bytes, source: str) -> dict[str, ModelInfo]:
    try:
        models = strictjson.loads(data)
    except JsonError as error:
        raise SettingError("%(name)s: %(why)s", name=source, why=error) from error
    if not isinstance(models, dict):
        _refuse(source, N_("%(place)s must be an object that maps model ids to prices, not %(value)r"), models)
    return {model_id: _model(model_id, fields, f"{source}: {model_id}") for model_id, fields in models.items()}


def _model(model_id: str, fields: Any, source: str) -> ModelInfo:
    if not isinstance(fields, dict):
        _refuse(source, N_("%(place)s must be an object with %(names)s, not %(value)r"), fields)
    for name in fields:
        if name not in _FIELDS:
            raise SettingError(
                "%(place)s is not a field; use %(names)s", place=f"{source}.{name}", names=", ".join(_FIELDS)
            )
    return ModelInfo(
        model_id=model_id,
        input=_price(fields.get("input"), f"{source}.input"),
        output=_price(fields.get("output"), f"{source}.output"),
        cached_input=_price(fields.get("cached_input"), f"{source}.cached_input"),
        context=_tokens(fields.get("context"), f"{source}.context"),
        row=_tokens(fields.get("row"), f"{source}.row"),
        shutdown=None if fields.get("shutdown") is None else _date(fields["shutdown"], f"{source}.shutdown"),
        batch=_share(fields.get("batch"), f"{source}.batch"),
    )


def _tokens(value: Any, source: str) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        _refuse(source, N_("%(place)s must be a whole number of tokens above 0, not %(value)r"), value)
    return None if value is None else int(value)


def _share(value: Any, source: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        _refuse(source, N_("%(place)s must be a share of the price, above 0 and at most 1, not %(value)r"), value)
    return float(value)


def _price(value: Any, source: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        _refuse(
            source, N_("%(place)s must be a number of US dollars per million tokens, 0 or more, not %(value)r"), value
        )
    return float(value)


def _date(value: Any, source: str) -> date:
    try:
        return date.fromisoformat(value)
    except (ValueError, TypeError):
        _refuse(source, N_('%(place)s must be a date like "2027-01-31", not %(value)r'), value)


def _refuse(source: str, template: str, value: Any) -> NoReturn:
    raise SettingError(template, place=source, value=str(value)[:60], names=", ".join(_FIELDS))
