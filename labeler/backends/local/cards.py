"""The card of a model that was trained here: which base it belongs to, and how it must be asked.

A training leaves ``labeler.json`` in its folder once it is whole: ``adapters/NAME`` of the instance for an adapter,
``models/NAME`` for weights. So a task names a training as its model, and nothing else has to be remembered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labeler import strictjson
from labeler.backends.base import FOLDER
from labeler.errors import JsonError, SettingError
from labeler.sentence import Sentence

CARD, ADAPTERS, MODELS, REWARD, CLASSIFY = "labeler.json", "adapters", "models", "reward", "classify"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
UNKNOWN: Mapping[str, Any] = {"style": "zero-shot"}
"""How a model is asked whose training set does not say it: as rows of a training set were before they said it."""
_SETTINGS = {
    "style": "style", "k": "k", "examples": "k", "retriever": "retriever", "persona": "persona",
    "wording": "answer_wording", "answer_wording": "answer_wording", "prompt_guidelines": "prompt_guidelines",
    "answer_form": "answer_form", "label_names": "label_names", "joint": "joint",
}  # fmt: skip
"""The settings of a task by the names that a training set has for them."""


@dataclass(frozen=True, slots=True)
class Card:
    """``base`` is the hub id or folder that an adapter belongs to, ``objective`` what the training was for."""

    folder: Path
    base: str
    method: str
    objective: str
    asked: Mapping[str, Any]

    @property
    def adapter(self) -> bool:
        return self.method != "full"


def card_in(folder: Path) -> Card | None:
    """Return the card in a folder; None where there is none. Raises :class:`SettingError` for one that is damaged."""
    path = folder.expanduser() / CARD
    if not path.is_file():
        return None
    try:
        said = strictjson.loads(path.read_bytes())
        asked = said["asked"]
        found = Card(path.parent, str(said["base"]), str(said["method"]), str(said["objective"]), dict(asked))
    except (OSError, JsonError, KeyError, TypeError, ValueError) as error:
        raise SettingError(
            "The card %(file)s cannot be read (%(reason)s); train again, or take another model",
            file=path,
            reason=error,
        ) from error
    return found


def trained(instance: Path, model_id: str) -> Card | None:
    """Return the card of the training of that name; None if there is no such training.

    Raises :class:`SettingError` for one that is not at its end, and for what reads no prompt: a reward model, and a
    classifier.
    """
    if not NAME.fullmatch(model_id):
        return None
    folders = [instance / room / model_id for room in (ADAPTERS, MODELS)]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        return None
    card = card_in(folder)
    if card is None:
        raise SettingError("The training %(name)s is not finished; resume it, or choose another model", name=model_id)
    if card.objective == REWARD:
        raise SettingError(
            "The training %(name)s made a reward model, which judges answers and writes none; choose another model",
            name=model_id,
        )
    if card.objective == CLASSIFY:
        raise SettingError(
            "The training %(name)s made a classifier, which reads no prompt; set the backend to classifier",
            name=model_id,
        )
    return card


def chosen(settings: Mapping[str, Any]) -> Card | None:
    """Return the card that the settings of a task lead to: of a training by name, or in the folder of the adapter.

    Raises :class:`SettingError` as :func:`trained`.
    """
    model_id, adapter = settings.get("model_id") or settings.get("transformers_model"), settings.get("adapter")
    folder = settings.get(FOLDER)
    card = trained(Path(folder), model_id) if folder and model_id else None
    if card is None and adapter:
        own = card_in(Path(adapter))
        # Another base than its own is a person's choice.
        card = own and replace(own, base=settings.get("model_id") or own.base)
    return card


def asked_sentence(asked: Mapping[str, Any], changed: bool = False) -> Sentence:
    """Return what people should know of how a model is asked that was trained here.

    ``changed`` says that guidelines or labels are not those that it was trained with.
    """
    short = {name: value for name, value in asked.items() if isinstance(value, (str, int, bool)) and value != ""}
    said = ", ".join(f"{name} {value}" for name, value in short.items() if "sha256" not in name)
    sentences = [Sentence("It is asked as it was trained, whatever the settings of the task say (%(how)s).", how=said)]
    if changed:
        sentences.append(
            Sentence("Guidelines or labels were changed since it was trained; judge it again, or train it again.")
        )
    return Sentence.joined(sentences, " ")


def settings_of(asked: Mapping[str, Any], language: str) -> dict[str, Any]:
    """Return the settings of a task that a model was trained with; a text without a language is of ``language``."""
    found: dict[str, Any] = {}
    for name, value in asked.items():
        setting = _SETTINGS.get(name)
        if setting is not None:
            words = setting in ("persona", "answer_wording")
            found[setting] = {language: value} if words and value and isinstance(value, str) else value
    return found
