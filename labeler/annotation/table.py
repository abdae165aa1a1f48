"""The records that a query finds, a page at a time, and what can be counted of them.

A page looks through as many records as it takes to fill it, in slices that grow. Where few records fit, it ends after
some time with what was found and says from where to go on: no page waits for a search through a million.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from labeler import strictjson
from labeler.annotation.query import Query
from labeler.errors import InputError, LabelError
from labeler.records import Value
from labeler.store import Row, Store
from labeler.store.search import finder, folded, search_queries
from labeler.store.table import NEWEST, OF_TASK, OLDEST, ORDERS, Place, Table, Term, finds_few, states_of
from labeler.task import Task

_SLICE, _LARGEST = 500, 16_000
# So many slices are looked through for single letters without the index.
_FRONT = 3
PATIENCE = 0.25
"""Seconds after which a page is what was found so far."""


class Page(NamedTuple):
    """Records in their order. ``last`` is where the search stopped; ``more`` says whether there may be any beyond.

    ``full`` says that it stopped since the page is full, and not since it took too long.
    """

    rows: list[Row]
    first: Place | None
    last: Place | None
    more: bool
    full: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """How many records a query finds, and of how many each value is. ``whole`` says that none was left uncounted."""

    total: int = 0
    whole: bool = True
    of: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class RecordTable:
    """The records of a project that a query finds. Raises :class:`InputError` for a query that does not fit the task.

    ``task`` is the one that the query is about; None for all of the project, where it may ask for nothing of a task.
    """

    def __init__(
        self, store: Store, project_id: int, task: Task | None, query: Query, tasks: Sequence[str] = ()
    ) -> None:
        self.store, self.project_id, self.task = store, project_id, task
        self.query = query.of(task, tasks)
        self.table = Table(store.db, project_id, None if task is None else task.name)
        self._states = states_of(self.query.terms)
        self._tests = [test for term in self.query.terms if (test := self._test(term)) is not None]
        self._read: dict[tuple[str, str], frozenset[str]] = {}

    def page(
        self, size: int, order: str = NEWEST, edge: Place | None = None, back: bool = False, patience: float = PATIENCE
    ) -> Page:
        """Return up to ``size`` records after ``edge``, or with ``back`` those just before it."""
        self._check_order(order)
        named = self._named() if edge is None and order == NEWEST else None
        found: list[Place] = [] if named is None else [Place(named, named)]
        deadline, reached, ended = time.monotonic() + patience, edge, True
        for places, fitting in self._slices(order, edge, back, size + 1):
            found += [place for place in places if place.record_id in fitting and place.record_id != named]
            reached, ended = places[-1], False
            if len(found) > size or time.monotonic() > deadline:
                break
            ended = True
        more, full = len(found) > size or not ended, len(found) > size
        found = found[:size]
        # The record that was named by its key stands out of order: nothing goes on from there.
        ordered = [place for place in found if place.record_id != named]
        last = (ordered[-1] if ordered else edge) if full else reached
        if back:
            found, last, ordered = found[::-1], edge, ordered[::-1]
        rows = self.table.rows([place.record_id for place in found])
        return Page(rows, ordered[0] if ordered else None, last, more, full)

    def ids(self, order: str = NEWEST, edge: Place | None = None) -> Iterator[list[int]]:
        """Yield the ids of all records that are found, from a place on, in slices."""
        self._check_order(order)
        for places, fitting in self._slices(order, edge, False, _SLICE):
            found = [place.record_id for place in places if place.record_id in fitting]
            if found:
                yield found

    def count(self, most: int | None = None, patience: float | None = None) -> Counted:
        """Count the records that are found and, in a task, their states, labels, reviewers and so on.

        It ends at ``most`` records, or after ``patience`` seconds.
        """
        of: dict[str, Counter[str]] = {}
        total, whole = 0, True
        deadline = None if patience is None else time.monotonic() + patience
        for _, fitting in self._slices(NEWEST, None, False, min(most or _SLICE, _SLICE), counting=True):
            for row in fitting.values():
                total += 1
                self._count(row, of)
            if (most is not None and total >= most) or (deadline is not None and time.monotonic() > deadline):
                whole = False
                break
        return Counted(total, whole, {name: dict(counts.most_common()) for name, counts in of.items()})

    def _count(self, row: Row, of: dict[str, Counter[str]]) -> None:
        if self.task is None:
            return
        for name in ("state", "how", "by"):
            if row[name] is not None:
                of.setdefault(name, Counter())[row[name]] += 1
        noted = {"flagged": {row["flagged"]} - {"no"}, "asked": set(strictjson.loads(row["asked"]))}
        for name, values in noted.items():
            if values:
                of.setdefault(name, Counter()).update(values)
        for name, version in (("label", row["task_version"]), ("suggested", row["suggested_version"])):
            raw = row["value" if name == "label" else name]
            if found := self._strata(raw, version):
                of.setdefault(name, Counter()).update(found)

    def _slices(
        self, order: str, edge: Place | None, back: bool, size: int, counting: bool = False
    ) -> Iterator[tuple[list[Place], dict[int, Row]]]:
        """Yield the places of an order in slices, the first of ``size``, with the rows of those that are found."""
        if not self._states:
            return
        longer, query, named = self._indexed() if order in (NEWEST, OLDEST) else (None, None, None)
        rounds = 0
        while True:
            found = longer if rounds < _FRONT else query
            places = self.table.walk(order, self._states, edge, size, back, found, named)
            if not places:
                return
            rows = self.table.matching([place.record_id for place in places], self.query.terms, counting)
            yield places, {row["id"]: row for row in rows if all(test(row) for test in self._tests)}
            if len(places) < size:
                return
            edge, size, rounds = places[-1], min(2 * size, _LARGEST), rounds + 1

    def _indexed(self) -> tuple[str | None, str | None, Term | None]:
        """Return what the full-text index is asked for at first and after some slices, or a term that names records."""
        named = next((term for term in self.query.terms if finds_few(term)), None)
        words = self.query.words
        return (None, None, named) if named is not None or not words else (*search_queries(words), None)

    def _named(self) -> int | None:
        """Return the record that has the query as its key."""
        if not self.query.text or (self.task is not None and self.query.terms != self._words()):
            return None
        return self.table.named(self.query.text)

    def _words(self) -> tuple[Term, ...]:
        return tuple(term for term in self.query.terms if term.name == "word" and not term.negated)

    def _test(self, term: Term) -> Any:
        if term.name == "word":
            tests = [finder(value) or _phrase(value) for value in term.values]
            tests += [_phrase(value) for value in term.values if len(value.split()) > 1]
            return lambda row: all(test(row["text"]) for test in tests) is not term.negated
        if term.name in ("label", "suggested"):
            wanted = set(term.values)
            raw, version = ("value", "task_version") if term.name == "label" else ("suggested", "suggested_version")
            return lambda row: bool(wanted & self._strata(row[raw], row[version])) is not term.negated
        return None

    def _strata(self, raw: str | None, version: str | None) -> frozenset[str]:
        """Return what a stored value counts as today; nothing for none, and for one that today's labels cannot hold."""
        if raw is None or version is None or self.task is None:
            return frozenset()
        known = self._read.get((raw, version))
        if known is None:
            value = read(self.task, raw, version)
            known = frozenset() if value is None else frozenset(self.task.schema.strata(value))
            # Values of a few labels come again and again, texts never.
            if len(self._read) < 5000:
                self._read[raw, version] = known
        return known

    def _check_order(self, order: str) -> None:
        if order not in ORDERS:
            raise InputError("There is no order %(name)r; there are: %(names)s", name=order, names=", ".join(ORDERS))
        if order in OF_TASK and self.task is None:
            raise InputError("The order %(name)s is about one task; say which with task:NAME", name=order)


def _phrase(value: str) -> Callable[[str], bool]:
    """Return what tells whether words stand in a text as they were typed, whatever blanks are between them."""
    wanted = " ".join(folded(value).split())
    return lambda text: wanted in " ".join(folded(text).split())


def read(task: Task, raw: str | None, version: str | None) -> Value | None:
    """Return a stored value in the labels of today; None where there is none, or they cannot hold it."""
    if raw is None or version is None:
        return None
    try:
        return task.read(strictjson.loads(raw), version)
    except LabelError:
        return None
