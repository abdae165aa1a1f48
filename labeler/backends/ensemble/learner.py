"""What backends have in common that learn from the approvals of a task: when they are fitted, and which fit answers.

A fit is made in the background, in one thread, as approvals come. It stands in the store, so that all processes answer
by the newest one.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from labeler.backends.base import Backend, BackendRequest
from labeler.labels import LabelSchema
from labeler.records import BackendFailure, Completion, Value
from labeler.retrieval.embedding import Embeddings
from labeler.retrieval.index import Entry, ExampleIndex

# Refitted after so many decisions, or where they are more than this share of what was learned from.
_REFIT, _GROWTH = 5, 10


class Stored(Protocol):
    """A fit: of how many examples, up to which decision, under which version of the task."""

    @property
    def id(self) -> str: ...
    @property
    def examples(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def task_version(self) -> str: ...


F = TypeVar("F", bound=Stored)


class Learner(Backend, Generic[F]):
    """Learns one project's task. ``lexical`` are the vectors of the built-in embedder, ``index`` has the project's own.

    ``columns`` are those of the metadata that models see, ``most`` is how many of the newest examples are learned from,
    ``stands_in`` the backend that answers meanwhile. Safe for several threads.
    """

    name = "ensemble"
    learns = True
    most: ClassVar[int] = 20_000
    stands_in: ClassVar[str] = "nearest"

    def __init__(self, index: ExampleIndex, lexical: Embeddings) -> None:
        self.index, self.lexical = index, lexical
        self.columns: tuple[str, ...] = ()
        self._fitted: F | None = None
        # What was learned where nothing can be stored.
        self._unstored: F | None = None
        self._lock = threading.Lock()

    @staticmethod
    @abstractmethod
    def supports(schema: LabelSchema) -> bool:
        """Whether values of this schema can be learned."""

    @property
    @abstractmethod
    def trusted(self) -> bool:
        """Whether enough is learned to stand beside the suggestions of others."""

    def answers_now(self) -> bool:
        return self.fitted is not None or self.starts()

    @abstractmethod
    def starts(self) -> bool:
        """Whether it can answer before there is a fit."""

    @abstractmethod
    def answered(
        self, requests: Sequence[BackendRequest], only: str = "", name: str = name
    ) -> Iterator[Completion | BackendFailure]:
        """Yield answers by all that was learned, or by ``only`` one member of it."""

    def moved_by(self, request: BackendRequest, value: Value, only: str = "") -> dict[str, list[tuple[str, float]]]:
        """Return which words moved it to a suggestion, by label: see :meth:`EnsembleBackend.moved_by`. Here none."""
        return {}

    @abstractmethod
    def _usable(self, fit: F) -> bool: ...

    @abstractmethod
    def _fit(self, seq: int, entries: Sequence[tuple[int, Entry]]) -> F | None: ...

    @abstractmethod
    def _packed(self, fit: F) -> tuple[str, dict[str, Any], bytes]: ...

    @abstractmethod
    def _unpacked(self, stored: Mapping[str, Any]) -> F | None: ...

    def complete(self, requests: Sequence[BackendRequest]) -> Iterator[Completion | BackendFailure]:
        yield from self.answered(requests)

    @property
    def fitted(self) -> F | None:
        """The newest fit of any process; None while there is none, or none from the columns that models see now."""
        fits, known = self.index.store.fits, self._fitted
        if fits.current(*self._place) != (None if known is None else known.id):
            found = fits.get(*self._place)
            # Where records were removed there is none any more: it had learned from them.
            self._fitted = known = None if found is None else self._unpacked(found)
        return next((fit for fit in (known, self._unstored) if fit is not None and self._usable(fit)), None)

    @property
    def learned(self) -> str:  # type: ignore[override]
        """Which fit answers now; empty before the first."""
        fitted = self.fitted
        return "" if fitted is None else fitted.id

    @property
    def _place(self) -> tuple[int, str, str]:
        return self.index.project_id, self.index.task.name, self.index.embeddings.embedder.id

    def stale(self) -> bool:
        """Whether so much was decided since the last fit (five decisions or a tenth) that it is worth another.

        Decisions, not examples: a correction changes what is learned and leaves their number as it is.
        """
        self.index.refresh()
        fitted = self.fitted
        if fitted is None or fitted.task_version != self.index.task.version:
            return True
        enough = max(_REFIT, fitted.examples // _GROWTH)
        project_id, task, _ = self._place
        return self.index.store.annotations.count_since(project_id, task, fitted.seq, enough) >= enough

    def examples(self) -> list[tuple[int, Entry]]:
        """Return position and entry of what is learned from: newest examples, oldest first, near-duplicates once."""
        return _once(self.index.entries())[-self.most :]

    def behind(self) -> bool:
        """Whether anything was decided since the last fit, or there is none."""
        fitted = self.fitted
        return fitted is None or fitted.task_version != self.index.task.version or fitted.seq != self.index.refresh()

    def fit(self) -> bool:
        """Fit on all approved examples and store that; False if there is nothing to go by."""
        from threadpoolctl import threadpool_limits

        if not self.supports(self.index.task.schema):
            return False
        with self._lock, threadpool_limits(1):
            seq = self.index.refresh()
            fit = self._fit(seq, self.examples())
            if fit is None:
                return False
            id_, head, numbers = self._packed(fit)
            store = self.index.store
            if store.db.read_only:
                self._unstored = replace(fit, id=id_)  # type: ignore[type-var]
                return True
            store.write(lambda tx: store.fits.save(tx, *self._place, id_, seq, head, numbers))
            # As other processes read it: rounded, so that all of them give the same answers.
            self._fitted = self._unpacked({"id": id_, "seq": seq, "head": head, "numbers": numbers})
            return True


def _once(entries: Sequence[tuple[int, Entry]]) -> list[tuple[int, Entry]]:
    """Return the examples, oldest first. Of near-duplicates the newest: none is left out beside its own copy."""
    ordered = sorted(entries, key=lambda pair: pair[1].annotation_id)
    newest = {pair[1].cluster or pair[1].content_hash: pair for pair in ordered}
    return sorted(newest.values(), key=lambda pair: pair[1].annotation_id)
