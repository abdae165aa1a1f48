"""What known models cost and hold: ``prices.json`` beside this file, and a file of the instance over it.

A price file maps model ids to ``input``, ``output`` and (optional) ``cached_input``, in US dollars per million
tokens, and to ``context`` in tokens and ``shutdown`` as YYYY-MM-DD, both optional::

    {"my-model": {"context": 32768, "input": 0.2, "cached_input": 0.1, "output": 0.6}}

An unknown price stays unknown: a cost of None is shown as unknown and never counted as 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from labeler import strictjson
from labeler.errors import JsonError, SettingError

_FIELDS = ("context", "input", "cached_input", "output", "shutdown")
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}\Z")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model. Prices in US dollars per million tokens; ``context`` in tokens; None where not known.

    ``cached_input`` None means that the model has no lower price for cached tokens.
    """

    model_id: str
    input: float
    output: float
    cached_input: float | None = None
    context: int | None = None
    shutdown: date | None = None


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
            message = f"{override_path}: cannot be read ({error.strerror}); create it or remove the setting"
            raise SettingError(message) from error
        prices |= _parse(data, str(override_path))
    return prices


def find_model(prices: Mapping[str, ModelInfo], model_id: str | None) -> ModelInfo | None:
    """Return what is known of a model: by its id, or for "name-YYYY-MM-DD" by its name. None if nothing is.

    Nothing else is guessed: "gpt-4o-audio" is not "gpt-4o".
    """
    if model_id is None:
        return None
    return prices.get(model_id) or prices.get(_DATED.sub("", model_id))


def cost(
    tokens_in: int | None, tokens_out: int | None, tokens_cached: int | None, info: ModelInfo | None
) -> float | None:
    """Return the price of one call in US dollars, or None when the model or a token count is unknown.

    ``tokens_cached`` are part of ``tokens_in``; None counts as none cached, which never makes the cost too low.
    """
    if info is None or tokens_in is None or tokens_out is None:
        return None
    cached = min(tokens_cached or 0, tokens_in)
    cached_price = info.input if info.cached_input is None else info.cached_input
    return ((tokens_in - cached) * info.input + cached * cached_price + tokens_out * info.output) / 1_000_000


def _parse(data: bytes, source: str) -> dict[str, ModelInfo]:
    try:
        models = strictjson.loads(data)
    except JsonError as error:
        raise SettingError(f"{source}: {error}") from error
    if not isinstance(models, dict):
        _refuse(source, "must be an object that maps model ids to prices", models)
    return {model_id: _model(model_id, fields, f"{source}: {model_id}") for model_id, fields in models.items()}


def _model(model_id: str, fields: Any, source: str) -> ModelInfo:
    if not isinstance(fields, dict):
        _refuse(source, f"must be an object with {', '.join(_FIELDS)}", fields)
    for name in fields:
        if name not in _FIELDS:
            raise SettingError(f"{source}.{name} is not a field; use {', '.join(_FIELDS)}")
    context = fields.get("context")
    if context is not None and (not isinstance(context, int) or isinstance(context, bool) or context < 1):
        _refuse(f"{source}.context", "must be a whole number of tokens above 0", context)
    return ModelInfo(
        model_id=model_id,
        input=_price(fields.get("input"), f"{source}.input"),
        output=_price(fields.get("output"), f"{source}.output"),
        cached_input=None
        if fields.get("cached_input") is None
        else _price(fields["cached_input"], f"{source}.cached_input"),
        context=context,
        shutdown=None if fields.get("shutdown") is None else _date(fields["shutdown"], f"{source}.shutdown"),
    )


def _price(value: Any, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        _refuse(source, "must be a number of US dollars per million tokens, 0 or more", value)
    return float(value)


def _date(value: Any, source: str) -> date:
    try:
        return date.fromisoformat(value)
    except (ValueError, TypeError):
        _refuse(source, 'must be a date like "2027-01-31"', value)


def _refuse(source: str, rule: str, value: Any) -> NoReturn:
    raise SettingError(f"{source} {rule}, not {str(value)[:60]!r}")
