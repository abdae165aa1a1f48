"""The backend ``classifier``: a small encoder that was fine-tuned for one task, with its card beside the weights.

It reads the text alone, no prompt and no examples, and gives every label a chance. :mod:`labeler.training.classifier`
trains such models; here they are read and asked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from labeler import strictjson
from labeler.backends.base import Backend, BackendRequest
from labeler.backends.ensemble import pool
from labeler.backends.ensemble.backend import decided
from labeler.backends.local.backend import BY_SCORE, unexpected
from labeler.backends.local.cards import CARD
from labeler.backends.local.generating import STOP
from labeler.backends.local.loading import LoadOptions, load_encoder, weights_on_disk
from labeler.backends.local.memory import BatchSize, free_memory, in_batches
from labeler.errors import BackendError, JsonError, LabelerError, SettingError
from labeler.labels import LabelSchema
from labeler.prompts import answer_text
from labeler.records import BackendFailure, Completion
from labeler.sentence import Sentence

Array = np.ndarray[Any, Any]

METHOD = "classifier"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Card:
    """How a trained classifier is to be read: the part of its card (``labeler.json``) that is not like any other's.

    ``kind`` is that of the task, ``labels`` are those that its outputs stand for, in order, ``longest`` is how many
    tokens of a text it reads. The outputs are divided by ``temperature``. Of sets, ``size_odds`` and ``rule`` tell how
    many labels are chosen (:func:`labeler.backends.ensemble.pool.size_of`). ``weights`` are what the labels weighed
    where rare ones weighed more, ``epochs`` how often the rows were learned from, and ``measured`` what came of it on
    rows that it did not learn from.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    longest: int
    temperature: float = 1.0
    size_odds: tuple[float, ...] = ()
    rule: str = pool.EXPECTED
    weights: Sequence[float] | None = None
    epochs: int = 0
    measured: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def chances(self, outputs: Array, one: bool) -> Array:
        """Return the chances of the labels from outputs of the model, float (..., labels)."""
        return pool.chances(outputs / self.temperature, one)

    def refusal(self, schema: LabelSchema) -> Sentence | None:
        """Return why the labels of a task are not those that it was trained on; None where they are."""
        labels = schema.kind, set(schema.names)
        if labels == (self.kind, set(self.labels)):
            return None
        return Sentence(
            "The classifier %(name)s was trained on the labels %(trained)s, and the task has %(labels)s; "
            "train it again",
            name=self.name,
            trained=", ".join(self.labels),
            labels=", ".join(schema.names) or schema.kind,
        )


def read_card(folder: Path) -> Card:
    """Return the card of a model. Raises :class:`SettingError` for a folder without one, or of another kind."""
    try:
        found = strictjson.loads((folder / CARD).read_bytes())
    except (OSError, JsonError) as error:
        raise SettingError(
            "The folder %(folder)s holds no trained classifier: %(reason)s", folder=folder, reason=error
        ) from error
    if not isinstance(found, dict) or found.get("method") != METHOD:
        raise SettingError("The model in %(folder)s is no classifier; choose another backend for it", folder=folder)
    try:
        own = found[METHOD]
        return Card(**{**own, "labels": tuple(own["labels"]), "size_odds": tuple(own["size_odds"])})
    except (TypeError, KeyError) as error:
        raise SettingError(
            "The card of the classifier in %(folder)s cannot be read; train it again", folder=folder
        ) from error


def located(models: Path, model_id: str) -> Path:
    """Return the folder of a classifier by its name or its folder. Raises :class:`SettingError` where there is none."""
    named = model_id.strip()
    for folder in (models / named, Path(named).expanduser()):
        if (folder / CARD).is_file():
            return folder
    known = [path.parent.name for path in sorted(models.glob(f"*/{CARD}")) if _is_classifier(path.parent)]
    raise SettingError(
        "There is no classifier %(name)r; there are: %(names)s", name=named, names=", ".join(known) or "none yet"
    )


def _is_classifier(folder: Path) -> bool:
    try:
        return bool(read_card(folder))
    except SettingError:
        return False


@dataclass
class _Loaded:
    """A model with the card that it was read with; ``weights`` tells it from what lies in its folder later."""

    model: Any
    tokenizer: Any
    card: Card
    weights: str


class ClassifierBackend(Backend):
    """Answers with a fine-tuned encoder. Loaded at the first request; one thread at a time reads texts.

    Its runs go through the ledger like those of other local weights: they cost no fee, but take the processor long
    enough that a killed one should lose nothing. It has learned from the approvals themselves, so these cannot tell
    what it is worth: it has no trial and no calibration but that on the rows it did not learn from.
    """

    name = METHOD
    billed = True
    local = True
    learns = True
    prompted = False
    generation_settings = frozenset()

    def __init__(
        self, folder: Path, model_id: str, schema: Callable[[], LabelSchema], device: str = "auto", batch_size: int = 32
    ) -> None:
        self.folder, self.model_id, self.device, self.batch = folder, model_id, device, batch_size
        self._schema, self._size = schema, BatchSize(batch_size)
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def weights(self) -> str:  # type: ignore[override]
        return weights_on_disk(LoadOptions(str(self.folder)))

    def ready(self) -> None:
        """Load the weights if they are not. Raises :class:`LabelerError`, also where the task has other labels."""
        refusal = read_card(self.folder).refusal(self._schema())
        if refusal is not None:
            raise SettingError(refusal)
        with self._lock:
            try:
                self._ready()
            except LabelerError:
                raise
            except Exception as error:
                log.exception("The classifier %s could not be loaded", self.model_id)
                raise BackendError(unexpected(error).message) from error

    def complete(self, requests: Sequence[BackendRequest]) -> Iterator[Completion | BackendFailure]:
        with self._lock:
            yield from self._complete(requests)

    def close(self) -> None:
        """Free the weights; the next request loads them again."""
        with self._lock:
            self._loaded = None
            free_memory()

    def _ready(self) -> _Loaded:
        weights = self.weights
        if self._loaded is None or self._loaded.weights != weights:
            self.before_loading()
            self._loaded, card = None, read_card(self.folder)
            model, tokenizer = load_encoder(str(self.folder), self.device)
            self._loaded = _Loaded(model.eval().requires_grad_(False), tokenizer, card, weights)
        return self._loaded

    def _complete(self, requests: Sequence[BackendRequest]) -> list[Completion | BackendFailure]:
        try:
            loaded = self._ready()
            refusal = next((why for one in requests if (why := loaded.card.refusal(one.schema))), None)
            if refusal is not None:
                return [BackendFailure("setup", refusal, fatal=True)] * len(requests)
            texts = [request.record.text for request in requests]
            found = in_batches(texts, self._size, lambda part: read(loaded.model, loaded.tokenizer, part, loaded.card))
        except LabelerError as error:
            return [BackendFailure("setup", str(error), fatal=True)] * len(requests)
        except Exception as error:
            log.exception("Unexpected error of the backend classifier")
            return [unexpected(error)] * len(requests)
        return [self._answer(loaded.card, request, *one) for request, one in zip(requests, found, strict=True)]

    def _answer(self, card: Card, request: BackendRequest, outputs: Array, tokens: int) -> Completion | BackendFailure:
        schema: Any = request.schema
        one = schema.one_of_labels
        chances = pool.doubted(card.chances(outputs, one), one)
        value, score = decided(schema, card.labels, chances, np.array(card.size_odds), card.rule)
        return Completion(
            answer_text(request.task, schema, value),
            tokens_in=tokens,
            tokens_out=0,
            finish=STOP,
            score=min(score, pool.MOST),
            scores=dict(zip(card.labels, chances.tolist(), strict=True)),
            made=(BY_SCORE,),
            model_id=self.model_id,
        )


def read(model: Any, tokenizer: Any, texts: Sequence[str], card: Card) -> list[tuple[Array, int]]:
    """Return for each text the outputs of the model, float (labels,), and how many tokens were read."""
    import torch

    fed = tokenizer(list(texts), truncation=True, max_length=card.longest, padding=True, return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**fed.to(model.device)).logits.double().cpu().numpy()
    return list(zip(outputs, fed["attention_mask"].sum(dim=1).tolist(), strict=True))
