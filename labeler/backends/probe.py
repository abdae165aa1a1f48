"""The ``probe`` backend: logistic regression on the stored vectors, refitted as approvals come.

For choice schemas only. It needs no key and no GPU, gives probabilities, and beat the vote of the neighbours
almost everywhere it was tried. Columns of the metadata that models may see are learned beside the vectors.
scikit-learn takes seconds to load, so that fitting belongs in the background; answering is one small matrix product.
A fit runs in one thread: the products are so small that two threads spend their time waiting for each other, ten times
as much as one needs.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labeler import strictjson
from labeler.backends import columns
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
    """Weights float32 (labels, d), bias (labels,), of how many examples, up to which decision, under which labels.

    ``columns`` are those of the metadata that were there to learn from, ``learned`` what they tell: the last weights.
    """

    labels: tuple[str, ...]
    weights: np.ndarray
    bias: np.ndarray
    examples: int
    seq: int
    task_version: str
    id: str
    columns: tuple[str, ...] = ()
    learned: tuple[Mapping[str, Any], ...] = ()


class ProbeBackend:
    """Logistic regression per project and task; multinomial for Choice, one against the rest for Choices.

    What was fitted stands in the store: whichever process fitted it, all answer by the newest fit.
    """

    name = "probe"
    model_id: str | None = None
    billed = False

    def __init__(self, index: ExampleIndex) -> None:
        self.index = index
        self.columns: tuple[str, ...] = ()
        self._fitted: Fitted | None = None
        self._lock = threading.Lock()

    @staticmethod
    def supports(schema: LabelSchema) -> bool:
        return isinstance(schema, (Choice, Choices))

    def ready(self) -> bool:
        """Whether every label of a Choice has enough approvals to make the probe the default.

        Where counting them would keep the caller waiting, whether there is a fit must do.
        """
        schema = self.index.task.schema
        if not isinstance(schema, Choice):
            return False
        if not self.index.ready():
            return self.fitted is not None
        counts = self.index.counts()
        return all(counts.get(label.name, 0) >= MIN_APPROVALS for label in schema.labels)

    @property
    def fitted(self) -> Fitted | None:
        """The newest fit of any process; None while there is none, or none from the columns that models see now."""
        fits, place = self.index.store.fits, self._place
        known = self._fitted
        newest = fits.current(*place)
        if newest is not None and (known is None or known.id != newest):
            found = fits.get(*place)
            self._fitted = known if found is None else _read(found)
        fitted = self._fitted
        return fitted if fitted is not None and fitted.columns == self.columns else None

    @property
    def learned(self) -> str:
        """Which fit answers now; empty before the first."""
        fitted = self.fitted
        return "" if fitted is None else fitted.id

    @property
    def _place(self) -> tuple[int, str, str]:
        return self.index.project_id, self.index.task.name, self.index.embeddings.embedder.id

    def stale(self) -> bool:
        """Whether so much was decided since the last fit (five decisions or a twentieth) that it is worth another.

        Decisions, not examples: a correction changes what is learned and leaves their number as it is.
        """
        self.index.refresh()
        fitted = self.fitted
        if fitted is None:
            return len(self.index) >= 2 * MIN_APPROVALS
        if fitted.task_version != self.index.task.version:
            return True
        enough = max(5, fitted.examples // 20)
        project_id, task, _ = self._place
        return self.index.store.annotations.count_since(project_id, task, fitted.seq, enough) >= enough

    def fit(self) -> bool:
        """Fit on all approved examples and store that; False if there are too few of them or only one label."""
        import numpy as np
        from threadpoolctl import threadpool_limits

        schema, store = self.index.task.schema, self.index.store
        if not isinstance(schema, (Choice, Choices)):
            return False
        with self._lock:
            seq = self.index.refresh()
            entries = self.index.entries()
            if len(entries) < 2:
                return False
            vectors = self.index.vectors([position for position, _ in entries])
            # The columns as they are now: who changes them meanwhile has it fitted again.
            sent, learned = self.columns, list[dict[str, Any]]()
            if sent:
                stored = store.records.metadata([entry.record_id for _, entry in entries])
                rows = [stored.get(entry.record_id, {}) for _, entry in entries]
                learned = columns.learn(sent, rows)
                vectors = np.hstack([vectors, columns.numbers(learned, rows)])
            with threadpool_limits(1):
                if isinstance(schema, Choice):
                    found = _fit_choice(vectors, [entry.strata[0] for _, entry in entries])
                else:
                    names = [label.name for label in schema.leaves]
                    member = np.array([[name in entry.strata for name in names] for _, entry in entries])
                    found = _fit_choices(vectors, names, member)
            if found is None:
                return False
            labels, weights, bias = found
            numbers = np.column_stack([weights, bias]).astype("<f4").tobytes()
            head = {"labels": labels, "examples": len(entries), "task_version": self.index.task.version}
            head |= {"columns": list(sent), "learned": learned} if sent else {}
            # The same examples give the same fit: workers that fit side by side make no suggestion stale.
            same = [labels, list(sent), learned] if sent else labels
            digest = hashlib.sha256(strictjson.dumps(same).encode() + numbers).hexdigest()[:16]
            self._fitted = _read({"id": digest, "seq": seq, "head": head, "numbers": numbers})
            if not store.db.read_only:
                store.write(lambda tx: store.fits.save(tx, *self._place, digest, seq, head, numbers))
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
        vector = np.asarray(request.vector, dtype=np.float64)
        if fitted.learned:
            vector = np.concatenate([vector, columns.numbers(fitted.learned, [request.record.metadata])[0]])
        logits = fitted.weights @ vector + fitted.bias
        if isinstance(request.schema, Choices):
            return _answer_choices(request, request.schema, fitted, 1 / (1 + np.exp(-logits)))
        odds = np.exp(logits - logits.max())
        scores = dict(zip(fitted.labels, (odds / odds.sum()).tolist(), strict=True))
        allowed = {label.name for label in request.schema.labels}
        best = max((name for name in scores if name in allowed), key=scores.__getitem__, default=None)
        if best is None:
            return BackendFailure("no_answer", "The probe was fitted on labels that the task no longer has")
        text = answer_text(request.task, request.schema, best)
        return Completion(text, score=scores[best], scores=scores, note="probe", fit=fitted.id)


def _read(stored: Mapping[str, Any]) -> Fitted:
    import numpy as np

    head = stored["head"]
    rows = np.frombuffer(stored["numbers"], dtype="<f4").reshape(len(head["labels"]), -1)
    return Fitted(
        tuple(head["labels"]), rows[:, :-1], rows[:, -1], head["examples"], stored["seq"], head["task_version"],
        stored["id"], tuple(head.get("columns", ())), tuple(head.get("learned", ())),
    )  # fmt: skip


def _answer_choices(request: BackendRequest, schema: Choices, fitted: Fitted, chances: np.ndarray) -> Completion:
    scores = dict(zip(fitted.labels, chances.tolist(), strict=True))
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
    text = answer_text(request.task, schema, value)
    return Completion(text, score=score, scores=scores, note="probe", fit=fitted.id)


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
