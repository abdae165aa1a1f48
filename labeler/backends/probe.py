"""The ``probe`` backend: logistic regression on the stored vectors, refitted as approvals come.

For choice schemas only. It needs no key and no GPU, gives probabilities, and beat the vote of the neighbours
almost everywhere it was tried. scikit-learn takes seconds to load, so that fitting belongs in the background;
answering is one small matrix product.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labeler.backends.base import BackendRequest
from labeler.labels import Choice, Choices, LabelSchema
from labeler.prompts import answer_text
from labeler.records import BackendFailure, Completion
from labeler.retrieval.index import ExampleIndex

if TYPE_CHECKING:
    import numpy as np

MIN_APPROVALS = 5
"""Every label needs this many approvals before the probe is the default backend."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Weights (labels, d), bias (labels,), how many examples they were fitted on, and after how many decisions."""

    labels: tuple[str, ...]
    weights: np.ndarray
    bias: np.ndarray
    examples: int
    decisions: int


class ProbeBackend:
    """Logistic regression per project and task; multinomial for Choice, one against the rest for Choices."""

    name = "probe"
    model_id: str | None = None
    billed = False

    def __init__(self, index: ExampleIndex) -> None:
        self.index = index
        self.fitted: Fitted | None = None
        self._lock = threading.Lock()

    @staticmethod
    def supports(schema: LabelSchema) -> bool:
        return isinstance(schema, (Choice, Choices))

    def ready(self) -> bool:
        """Whether every label of a Choice has enough approvals to make the probe the default."""
        schema = self.index.task.schema
        if not isinstance(schema, Choice):
            return False
        counts = self.index.counts()
        return all(counts.get(label.name, 0) >= MIN_APPROVALS for label in schema.labels)

    def stale(self) -> bool:
        """Whether so much was decided since the last fit (five decisions or a twentieth) that it is worth another.

        Decisions, not examples: a correction changes what is learned and leaves their number as it is.
        """
        self.index.refresh()
        if self.fitted is None:
            return len(self.index) >= 2 * MIN_APPROVALS
        return self.index.decisions - self.fitted.decisions >= max(5, self.fitted.examples // 20)

    def fit(self) -> bool:
        """Fit on all approved examples; False if there are too few of them or only one label."""
        import numpy as np

        schema = self.index.task.schema
        if not isinstance(schema, (Choice, Choices)):
            return False
        with self._lock:
            self.index.refresh()
            decisions = self.index.decisions
            entries = self.index.entries()
            if len(entries) < 2:
                return False
            vectors = self.index.vectors([position for position, _ in entries])
            if isinstance(schema, Choice):
                fitted = _fit_choice(vectors, [entry.strata[0] for _, entry in entries])
            else:
                names = [label.name for label in schema.leaves]
                member = np.array([[name in entry.strata for name in names] for _, entry in entries])
                fitted = _fit_choices(vectors, names, member)
            if fitted is None:
                return False
            labels, weights, bias = fitted
            self.fitted = Fitted(tuple(labels), weights, bias, len(entries), decisions)
            return True

    def complete(self, requests: Sequence[BackendRequest]) -> Iterator[Completion | BackendFailure]:
        for request in requests:
            yield self._answer(request)

    def _answer(self, request: BackendRequest) -> Completion | BackendFailure:
        import numpy as np

        if not self.supports(request.schema):
            return BackendFailure("setup", f"The probe labels choices only, not {request.schema.kind}", fatal=True)
        if self.fitted is None and not self.fit():
            return BackendFailure("no_examples", "The probe needs approved examples of at least two labels", fatal=True)
        fitted = self.fitted
        if fitted is None or request.vector is None:
            return BackendFailure("no_vector", "The record has no vector yet")
        logits = fitted.weights @ np.asarray(request.vector, dtype=np.float64) + fitted.bias
        if isinstance(request.schema, Choices):
            return _answer_choices(request, request.schema, fitted.labels, 1 / (1 + np.exp(-logits)))
        odds = np.exp(logits - logits.max())
        scores = dict(zip(fitted.labels, (odds / odds.sum()).tolist(), strict=True))
        allowed = {label.name for label in request.schema.labels}
        best = max((name for name in scores if name in allowed), key=scores.__getitem__, default=None)
        if best is None:
            return BackendFailure("no_answer", "The probe was fitted on labels that the task no longer has")
        return Completion(
            answer_text(request.task, request.schema, best), score=scores[best], scores=scores, note="probe"
        )


def _answer_choices(request: BackendRequest, schema: Choices, labels: Sequence[str], chances: np.ndarray) -> Completion:
    scores = dict(zip(labels, chances.tolist(), strict=True))
    order = {label.name: n for n, label in enumerate(schema.leaves)}
    ranked = sorted((name for name in scores if name in order), key=lambda name: -scores[name])
    chosen = [name for name in ranked if scores[name] >= 0.5]
    if len(chosen) < max(schema.minimum, 0):
        chosen = ranked[: schema.minimum]
    if schema.maximum is not None:
        chosen = chosen[: schema.maximum]
    if schema.exclusive in chosen and len(chosen) > 1:
        only = chosen[0] == schema.exclusive
        chosen = [schema.exclusive] if only else [name for name in chosen if name != schema.exclusive]
    certain = [max(score, 1 - score) for score in scores.values()]
    value = sorted(chosen, key=order.__getitem__)
    score = sum(certain) / len(certain) if certain else None
    return Completion(answer_text(request.task, schema, value), score=score, scores=scores, note="probe")


def _fit_choice(vectors: np.ndarray, labels: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    import numpy as np

    names = sorted(set(labels))
    if len(names) < 2:
        return None
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=8.0, class_weight="balanced", max_iter=300)
    model.fit(vectors, [names.index(label) for label in labels])
    weights, bias = model.coef_, model.intercept_
    if len(names) == 2:
        # scikit-learn keeps one row for two classes; two symmetric rows make every case alike.
        weights = np.vstack([-weights / 2, weights / 2])
        bias = np.concatenate([-bias / 2, bias / 2])
    return names, weights, bias


def _fit_choices(
    vectors: np.ndarray, names: Sequence[str], member: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    kept, weights, bias = [], [], []
    for column, name in enumerate(names):
        held = member[:, column]
        if not MIN_APPROVALS <= held.sum() <= len(held) - 1:
            continue
        model = LogisticRegression(C=8.0, max_iter=200).fit(vectors, held)
        kept.append(name)
        weights.append(model.coef_[0])
        bias.append(model.intercept_[0])
    return (kept, np.array(weights), np.array(bias)) if kept else None
