"""A classifier of scikit-learn that learns as a project does: texts are imported, approved, indexed, and answered.

:class:`LabelerClassifier` has its own instance in a temporary folder, so that what is measured with the tools of
scikit-learn (cross-validation, a grid of settings, a pipeline) is what a project would have suggested.
"""

from __future__ import annotations

import tempfile
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from labeler import strictjson
from labeler.backends.base import Backend, BackendRequest
from labeler.backends.nearest import VOTE, votes_of
from labeler.errors import BackendError, InputError, MissingExtra
from labeler.files import DATABASE
from labeler.ingest.options import ImportOptions
from labeler.ingest.report import Report
from labeler.instance import Instance
from labeler.labels import Choice, Choices, Label, LabelSchema
from labeler.plugins import find
from labeler.records import BackendFailure, Completion, ParseFailure, Record, Value
from labeler.retrieval.index import Query
from labeler.retrieval.retrievers import Retriever
from labeler.task import Task

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, column_or_1d
except ImportError as missing:
    raise MissingExtra("scikit-learn", "sklearn") from missing

Array = np.ndarray[Any, Any]

_TASK = "labels"
_SETS = "multilabel-indicator"
_AT_ONCE = 256
"""So many texts are answered together: their n-grams are counted at once."""


class InputRefused(InputError, ValueError):
    """Texts or labels that cannot be learned from; scikit-learn expects a ``ValueError``."""


class LabelerClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Learns labels of texts from examples, through the same code as a project.

    ``task`` is a :class:`~labeler.task.Task` with one label or a set of labels, or the name of one that is loaded: its
    titles and definitions take part in the answers. Without one, the labels are what ``y`` has. ``backend`` is a
    free one: "ensemble", "probe" or "nearest". ``k`` is how many examples vote (None: as many as in a project), and
    ``retriever`` chooses them ("similar", "balanced", "mmr", ...; None: the nearest). ``embedder`` and ``language``
    are those of a project. Equal texts count once, with the first of their labels; near-duplicates count once too.

    ``fit`` takes texts and one label for each (n,), or a 0/1 indicator (n, labels), whose columns are the labels of
    the task in its order. ``classes_`` are the labels (or the columns, where there is no task).

    >>> from labeler.sklearn import LabelerClassifier
    >>> texts = ["fresh and sweet", "sweet and crisp", "late and broken", "broken box, came late"] * 4
    >>> texts = [f"{text}, order {n}" for n, text in enumerate(texts)]
    >>> model = LabelerClassifier(embedder="lexical").fit(texts, ["good", "good", "bad", "bad"] * 4)
    >>> model.predict(["so sweet and fresh", "it came broken"]).tolist()
    ['good', 'bad']
    """

    def __init__(
        self,
        task: Task | str | None = None,
        backend: str = "ensemble",
        k: int | None = None,
        retriever: str | None = None,
        embedder: str = "auto",
        language: str = "ko",
    ) -> None:
        self.task = task
        self.backend = backend
        self.k = k
        self.retriever = retriever
        self.embedder = embedder
        self.language = language

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Iterable[str], y: Any) -> LabelerClassifier:
        """Learn from texts and their labels. Raises :class:`InputRefused` for what is none, or is no label of the task.

        Raises :class:`InputError` for a backend that costs something, and :class:`NotFound` for a name that is not
        there.
        """
        if y is None:
            raise InputRefused("This %(name)s requires y to be passed, but the target y is None", name="classifier")
        texts = _texts(X)
        learned = _Learned(self)
        task, values, classes = _read(self._named(learned), y)
        check_consistent_length(texts, values)
        learned.learn(task, texts, values)
        self._replace(learned)
        self.classes_, self.task_ = classes, task
        return self

    def predict(self, X: Iterable[str]) -> Any:
        """Return a label for each text (n,), or a 0/1 indicator (n, labels).

        Raises :class:`BackendError` where the backend has no answer to a text.
        """
        answers = self._answers(X)
        if self.task_.schema.one_of_labels:
            place = {name: n for n, name in enumerate(_names(self.task_.schema, self.classes_))}
            return self.classes_[[place[value] for value, _ in answers]]
        names = self.task_.schema.names
        return np.array([[int(name in value) for name in names] for value, _ in answers]).reshape(-1, len(names))

    def predict_proba(self, X: Iterable[str]) -> Array:
        """Return the chance of each label for each text, float (n, labels).

        Those of one label sum to 1, those of a set do not. Of ``nearest`` they are the shares of the votes. Raises as
        :meth:`predict` does, also for a backend without scores.
        """
        self._checked()
        names = _names(self.task_.schema, self.classes_)
        rows = [[scores.get(name, 0.0) for name in names] for scores in self._scores(X)]
        found: Array = np.array(rows, dtype=float).reshape(-1, len(names))
        if self.task_.schema.one_of_labels:
            found /= found.sum(axis=1, keepdims=True)
        return found

    def _scores(self, X: Iterable[str]) -> Iterator[Mapping[str, float]]:
        for _, scores in self._answers(X):
            if not scores:
                raise BackendError("The backend %(name)s gives labels no scores; use predict", name=self.backend)
            yield scores

    def _named(self, learned: _Learned) -> Task | None:
        """Return the task that was given. Raises :class:`InputRefused` for one without labels to choose."""
        task = learned.instance.plugins.task(self.task) if isinstance(self.task, str) else self.task
        if task is not None and not _chooses(task.schema):
            raise InputRefused("The task %(task)s has no labels to choose from; name one that has", task=task.name)
        return task

    def _checked(self) -> None:
        check_is_fitted(self, "classes_")

    def _answers(self, X: Iterable[str]) -> Iterator[tuple[Value, Mapping[str, float] | None]]:
        self._checked()
        return self._opened().answers(_texts(X))

    # What was learned stands in a temporary folder; in a pickle it is the database itself.

    def _replace(self, learned: _Learned) -> None:
        if (before := self.__dict__.get("_learned")) is not None:
            before.close()
        self._learned: _Learned | None = learned
        self._database: bytes | None = None

    def _opened(self) -> _Learned:
        if self._learned is None:
            assert self._database is not None
            self._learned = _Learned(self, self._database)
            self._learned.use(self.task_)
        return self._learned

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        learned = state.get("_learned")
        if learned is None:
            return state
        return {**state, "_learned": None, "_database": learned.content()}


class _Learned:
    """An instance in a temporary folder with one project, whose only task was learned from the texts of ``fit``."""

    def __init__(self, estimator: LabelerClassifier, database: bytes | None = None) -> None:
        self.estimator = weakref.proxy(estimator)
        self.folder = tempfile.TemporaryDirectory(prefix="labeler-")
        path = Path(self.folder.name)
        if database is not None:
            (path / DATABASE).write_bytes(database)
        self.instance = Instance(path)
        self.close = weakref.finalize(self, _close, self.instance, self.folder)

    def learn(self, task: Task, texts: Sequence[str], values: Sequence[Value]) -> None:
        """Import and approve the texts, make their vectors, and fit what is to be fitted."""
        chosen = {"tasks": [task.name], "embedder": self.estimator.embedder}
        self.instance.plugins.tasks[task.name] = task
        self.instance.create_project("scikit-learn", self.estimator.language, chosen)
        self.use(task)
        report = self.instance.importer(self.project).run(
            self._written(task, texts, values), ImportOptions("text", "id", "", {task.name: "label"})
        )
        _refuse(report)
        for _ in self.instance.chosen_embeddings(self.project).fill(self.project["id"]):
            pass
        if self.backend.learns:
            self.instance.ensemble(self.project, self.task).fit()

    def _written(self, task: Task, texts: Sequence[str], values: Sequence[Value]) -> Path:
        path = Path(self.folder.name) / "learned.jsonl"
        with path.open("w", encoding="utf-8") as stream:
            for n, (text, value) in enumerate(zip(texts, values, strict=True), 1):
                stream.write(strictjson.dumps({"id": str(n), "text": text, "label": task.schema.answer(value)}) + "\n")
        return path

    def use(self, task: Task) -> None:
        """Answer for a task that was learned. Raises :class:`InputError` for a backend that costs something."""
        instance, given = self.instance, self.estimator
        instance.plugins.tasks[task.name] = task
        (self.project,) = instance.store.projects.all()
        self.task = instance.project_task(self.project, task.name)
        factory = find(instance.plugins.backends, given.backend, "backend")
        if factory.spends:
            raise InputError(
                "The backend %(name)s costs something or loads weights, and each fit would ask it again; use a free "
                "one here, and labeler replay to compare others",
                name=given.backend,
            )
        self.retriever: Retriever = find(instance.plugins.retrievers, given.retriever or "similar", "retriever")({})

    @property
    def backend(self) -> Backend:
        return self.instance.backend(self.project, self.task, self.estimator.backend)

    def answers(self, texts: Sequence[str]) -> Iterator[tuple[Value, Mapping[str, float] | None]]:
        """Yield value and chances of the labels for each text, None for those of a backend that gives none.

        Raises :class:`BackendError` for a text without an answer.
        """
        backend, schema = self.backend, self.task.schema
        for start in range(0, len(texts), _AT_ONCE):
            requests = self._requests(texts[start : start + _AT_ONCE])
            for n, (request, found) in enumerate(zip(requests, backend.complete(requests), strict=True), start + 1):
                if isinstance(found, BackendFailure):
                    raise BackendError("Text %(n)s has no answer: %(why)s", n=n, why=found.message)
                yield self._value(request, found), _shares(schema, request) if VOTE in found.made else found.scores

    def _value(self, request: BackendRequest, found: Completion) -> Value:
        value = self.task.parse_completion(found.text, request.record)
        if isinstance(value, ParseFailure):
            raise BackendError(
                "The answer of %(name)s cannot be read: %(why)s", name=self.backend.name, why=value.message
            )
        return value

    def _requests(self, texts: Sequence[str]) -> list[BackendRequest]:
        index, project_id = self.instance.index(self.project, self.task), int(self.project["id"])
        k = self.task.schema.neighbours if self.estimator.k is None else self.estimator.k
        found = []
        for text, vector in zip(texts, index.embeddings.embedder.embed(texts), strict=True):
            # A text that was learned is no stranger here: it may vote for itself, as in any classifier.
            hits = self.retriever.retrieve(index, Query(vector), k)
            record = Record(0, project_id, "", text, self.estimator.language)
            request = BackendRequest(
                record, self.task.name, self.task.schema, examples=index.examples(hits), vector=vector
            )
            found.append(request)
        return found

    def content(self) -> bytes:
        """Return the database as it is now."""
        with tempfile.TemporaryDirectory(prefix="labeler-") as folder:
            copy = Path(folder) / DATABASE
            self.instance.store.backup(copy)
            return copy.read_bytes()


def _close(instance: Instance, folder: tempfile.TemporaryDirectory[str]) -> None:
    instance.close()
    folder.cleanup()


def _refuse(report: Report) -> None:
    """Raise :class:`InputRefused` for the first text that was not taken."""
    if report.refused or report.left_out:
        number, _, reason = report.lines[0]
        raise InputRefused("Text %(n)s cannot be learned from: %(why)s", n=number, why=reason)


def _chooses(schema: LabelSchema) -> bool:
    return (schema.one_of_labels or schema.set_of_labels) and not schema.sides


def _texts(X: Iterable[str]) -> list[str]:
    """Return the texts. Raises :class:`InputRefused` for anything but texts, one after the other."""
    if isinstance(X, str):
        raise InputRefused("X is one text; give a list of texts")
    texts = list(X)
    strange = next((one for one in texts if not isinstance(one, str)), None)
    if strange is not None:
        raise InputRefused(
            "X must be a list of texts, and has a %(kind)s; of a table give one column", kind=type(strange).__name__
        )
    if not texts:
        raise InputRefused("X has no text, and at least 1 is required")
    return [str(text) for text in texts]


def _read(task: Task | None, y: Any) -> tuple[Task, list[Value], Array]:
    """Return the task with the labels that are learned, the value of each text, and ``classes_``."""
    with warnings.catch_warnings():
        # A number that is none is refused by the next step, with its own sentence.
        warnings.simplefilter("ignore", RuntimeWarning)
        check_classification_targets(y)
    return _of_sets(task, y) if type_of_target(y) == _SETS else _of_one(task, y)


def _of_one(task: Task | None, y: Any) -> tuple[Task, list[Value], Array]:
    classes, places = np.unique(column_or_1d(y, warn=True), return_inverse=True)
    names = [str(one) for one in classes.tolist()]
    if task is None:
        task = Task(_TASK, Choice(*map(Label, names)))
    else:
        _check_kind(task, task.schema.one_of_labels, "one label each")
        strange = next((name for name in names if name not in task.schema.names), None)
        if strange is not None:
            _refuse_label(task, strange)
        task = replace(task, schema=_only(task.schema, names))
    return task, [names[n] for n in places.tolist()], classes


def _of_sets(task: Task | None, y: Any) -> tuple[Task, list[Value], Array]:
    rows = check_array(y, accept_sparse=True, dtype=None)
    rows = np.asarray(rows.todense() if hasattr(rows, "todense") else rows).astype(bool)
    if task is None:
        task = Task(_TASK, Choices(*(Label(str(n)) for n in range(rows.shape[1]))))
        classes = np.arange(rows.shape[1])
    else:
        _check_kind(task, task.schema.set_of_labels, "sets of labels")
        classes = np.array(task.schema.names, dtype=object)
    names = task.schema.names
    if rows.shape[1] != len(names):
        raise InputRefused(
            "The indicator has %(n)s columns, and the task %(task)s has %(count)s labels; its columns are, in order: "
            "%(names)s",
            n=rows.shape[1],
            task=task.name,
            count=len(names),
            names=", ".join(names),
        )
    return task, [[name for name, held in zip(names, row, strict=True) if held] for row in rows], classes


def _check_kind(task: Task, fits: bool, what: str) -> None:
    if not fits:
        raise InputRefused("y has %(what)s, and the task %(task)s takes other values", what=what, task=task.name)


def _refuse_label(task: Task, name: str) -> None:
    raise InputRefused(
        "%(name)r is no label of the task %(task)s; there are: %(names)s",
        name=name,
        task=task.name,
        names=", ".join(task.schema.names),
    )


def _only(schema: Any, names: Sequence[str]) -> LabelSchema:
    """Return a schema with these labels alone: what ``y`` never had is no answer."""
    found: LabelSchema = schema.with_labels([label for label in schema.labels if label.name in names])
    return found


def _names(schema: LabelSchema, classes: Array) -> list[str]:
    """Return the names of the labels in the order of ``classes_``."""
    return [str(one) for one in classes.tolist()] if schema.one_of_labels else list(schema.names)


def _shares(schema: LabelSchema, request: BackendRequest) -> dict[str, float]:
    """Return each label's share of the neighbours' votes."""
    votes = votes_of(request)
    total = sum(weight for _, weight in votes)
    shares: dict[str, float] = dict.fromkeys(schema.names, 0.0)
    for value, weight in votes:
        for name in schema.strata(value):
            if name in shares:
                shares[name] += weight / total
    return shares
