"""The ``ensemble`` of a task whose values are texts or keywords: it cuts pieces out of the text, where that helps.

Whether it helps, cross-validation on the approved records tells: see :mod:`labeler.backends.ensemble.extract`.
Otherwise the form stays blank, and says that a language model would help.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from labeler import strictjson
from labeler.backends.base import BackendRequest
from labeler.backends.ensemble.extract import Model, cut_out, extracted, learn
from labeler.backends.ensemble.learner import Learner
from labeler.backends.nearest import EXTRACTION
from labeler.labels import LabelSchema
from labeler.prompts import answer_text
from labeler.records import BackendFailure, Completion
from labeler.retrieval.index import Entry, Hit
from labeler.sentence import Sentence

FEWEST = 20
"""With fewer approved examples nobody can tell whether a suggestion would help."""
BLANK, PREPARING = "blank", "preparing"
"""Kinds of failures: a blank form is as good; or what answers is still being made, so that the page asks again."""
_FORMAT = "extraction 1"
_SHAPES = ("weights", "offset")


@dataclass(frozen=True, slots=True)
class ExtractionFit:
    """What was learned, of how many examples, up to which decision, under which version."""

    id: str
    models: tuple[Model, ...]
    examples: int
    seq: int
    task_version: str


class ExtractingBackend(Learner[ExtractionFit]):
    """Learns which pieces of a text reviewers approve, of one project's task."""

    # A fit of so many takes two seconds of one core and 60 MiB meanwhile.
    most = 400
    # Nobody: neighbours say nothing about a text of its own.
    stands_in = "ensemble"

    @staticmethod
    def supports(schema: LabelSchema) -> bool:
        return extracted(schema)

    @property
    def trusted(self) -> bool:
        fitted = self.fitted
        return fitted is not None and any(model.used for model in fitted.models)

    def starts(self) -> bool:
        return not self._enough()

    def _enough(self) -> bool:
        self.index.refresh()
        return len(self.index) >= FEWEST

    def _usable(self, fit: ExtractionFit) -> bool:
        return {name for model in fit.models for name in model.parts} == self.index.task.schema.split().keys()

    def _fit(self, seq: int, entries: Sequence[tuple[int, Entry]]) -> ExtractionFit | None:
        # Of many near-duplicates few examples are left; they too get a fit, or all would wait for one.
        examples = self.index.examples([Hit(position, entry, 1.0) for position, entry in entries])
        if not self._enough() or not examples:
            return None
        task, embed = self.index.task, self.lexical.embedder.embed
        models = learn(task.schema, [(example.text, example.value) for example in examples], embed)
        return ExtractionFit("", tuple(models), len(examples), seq, task.version)

    def _packed(self, fit: ExtractionFit) -> tuple[str, dict[str, Any], bytes]:
        plain = [{name: kept for name, kept in asdict(m).items() if name not in _SHAPES} for m in fit.models]
        shapes = [list(model.weights.shape) for model in fit.models]
        head = {"format": _FORMAT, "models": plain, "shapes": shapes, "examples": fit.examples,
                "task_version": fit.task_version}  # fmt: skip
        numbers = b"".join(part.astype("<f4").tobytes() for m in fit.models for part in (m.weights, m.offset))
        return hashlib.sha256(strictjson.dumps([plain, shapes]).encode() + numbers).hexdigest()[:16], head, numbers

    def _unpacked(self, stored: Mapping[str, Any]) -> ExtractionFit | None:
        head, place, models = stored["head"], 0, list[Model]()
        if head.get("format") != _FORMAT:
            return None
        for plain, shape in zip(head["models"], head["shapes"], strict=True):
            weights = np.frombuffer(stored["numbers"], "<f4", math.prod(shape), place).reshape(shape)
            offset = np.frombuffer(stored["numbers"], "<f4", shape[0], place + weights.nbytes)
            place += weights.nbytes + offset.nbytes
            models.append(Model(**plain | {"parts": tuple(plain["parts"])}, weights=weights, offset=offset))
        return ExtractionFit(stored["id"], tuple(models), head["examples"], stored["seq"], head["task_version"])

    def answered(
        self, requests: Sequence[BackendRequest], only: str = "", name: str = Learner.name
    ) -> Iterator[Completion | BackendFailure]:
        for request in requests:
            yield self._answer(request, only, name)

    def _answer(self, request: BackendRequest, only: str, name: str) -> Completion | BackendFailure:
        if only:
            return BackendFailure(
                "setup",
                Sentence("The %(name)s labels choices only, not %(kind)s", name=name, kind=request.schema.kind),
                fatal=True,
            )
        fitted = self._ready()
        if fitted is None and not self._enough():
            reason = Sentence("The free suggestion of a text needs at least %(count)s approved examples", count=FEWEST)
            return BackendFailure("no_examples", reason, fatal=True)
        if fitted is None:
            return BackendFailure(PREPARING, Sentence("The free suggestion of a text is being learned"))
        if not any(model.used for model in fitted.models):
            reason = Sentence(
                "What can be cut out of the text helps less than a blank form; a language model would help"
            )
            return BackendFailure(BLANK, reason, fatal=True)
        value = request.schema.together(cut_out(request.schema, fitted.models, request.record.text, self._embed))
        if value is None:
            return BackendFailure("no_answer", Sentence("No piece of the text is like what was approved"))
        return Completion(answer_text(request.task, request.schema, value), made=(EXTRACTION,), fit=fitted.id)

    def _embed(self, texts: Sequence[str]) -> Any:
        return self.lexical.embedder.embed(texts)

    def _ready(self) -> ExtractionFit | None:
        """Return the fit that answers; where nothing can be stored no worker makes one."""
        if self.fitted is None and self.index.store.db.read_only:
            self.fit()
        return self.fitted
