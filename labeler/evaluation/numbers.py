"""The numbers of a task: how far it came, and how people changed what was suggested.

What needs to read labels looks at the newest so many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, partial
from itertools import accumulate, takewhile
from statistics import median

from labeler.annotation.query import LONGEST, quoted
from labeler.annotation.table import read
from labeler.evaluation.learning import Learning, learning_of
from labeler.evaluation.progress import Progress, Side, progress_of, side_of
from labeler.evaluation.scored import Scored, scored_of
from labeler.labels import NO_LABEL
from labeler.records import Value
from labeler.store import Row, Store
from labeler.store.annotations import ACCEPTED, CORRECTED, REJECTED
from labeler.store.numbers import Numbers as Room
from labeler.task import Task

MOST = 5000
"""So many records, and so many decisions, are looked at for what is not counted; the newest."""
OF_EACH = 1000
"""So many decisions of each person; the newest."""
NEAR = 1000
"""So many near-duplicates are looked at, the newest; and so many pending conflicts are counted."""
_GROUPS = 5
_Pair = tuple[tuple[str, ...], tuple[str, ...]]
# Days since 1970 begin on a Thursday.
_THURSDAY, _SECONDS = 3, 86_400


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of a label that was suggested: ``suggested`` so often, ``removed`` by people, and ``added``."""

    name: str
    suggested: int
    removed: int
    added: int

    @property
    def changed(self) -> int:
        return self.removed + self.added


@dataclass(frozen=True, slots=True)
class Week:
    """The agreement of the decisions of a week that begins on ``day``, a Monday (UTC)."""

    day: date
    assisted: Side | None = None
    blind: Side | None = None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Records on which two that judged them disagree: ``n``, which ``query`` finds.

    Not ``whole`` are those that were counted no further.
    """

    kind: str
    n: int
    query: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Person:
    """The newest :data:`OF_EACH` decisions in force that a person made by hand. ``seconds`` is their median; ``blind``
    tells of the first decisions of the task that were made without a suggestion in sight."""

    name: str
    decisions: int
    accepted: int
    corrected: int
    rejected: int
    seconds: float | None
    blind: Side | None

    @property
    def corrections(self) -> float | None:
        """The share of corrections among the approvals with a suggestion in sight."""
        assisted = self.accepted + self.corrected
        return self.corrected / assisted if assisted else None


@dataclass(frozen=True, slots=True)
class Numbers:
    """All numbers of a task. Labels are those of today.

    ``approved`` and ``suggested`` count the labels of the newest :data:`MOST` records approved and pending;
    ``compared`` first decisions on suggestions, of the newest :data:`MOST`, are behind ``weeks``, ``confusion``
    (suggested, decided: where each value is one label), ``changes`` and ``scored``. ``alike`` are near-duplicates with
    different labels, a query for each of the newest of ``alike_total`` clusters.
    """

    progress: Progress
    approved: Mapping[str, int]
    suggested: Mapping[str, int]
    compared: int
    weeks: Sequence[Week]
    confusion: Mapping[tuple[str, str], int]
    changes: Sequence[Changes]
    scored: Sequence[Scored]
    learning: Learning | None
    conflicts: Sequence[Disagreement]
    alike: Sequence[Disagreement]
    alike_total: int
    people: Sequence[Person]


def numbers_of(
    store: Store, project_id: int, task: Task, today: date | None = None, most: int = MOST,
    people: Iterable[Row] = (),
) -> Numbers:  # fmt: skip
    """Return the numbers of a task; ``today`` is a day in UTC, and ``people`` are the accounts to tell of by name."""
    rooms, name = store.numbers, task.name
    first = rooms.first_decisions(project_id, name, most)
    pairs = Counter(_pairs(task, first))
    approved = rooms.approved(project_id, name, most)
    alike = _alike(task, rooms.alike(project_id, name, NEAR))
    return Numbers(
        progress_of(store, project_id, name, today),
        approved=_labels(task, approved), suggested=_labels(task, rooms.suggested(project_id, name, most)),
        compared=len(first), weeks=_weeks(first), confusion=_confusion(task, pairs), changes=_changes(pairs),
        scored=scored_of(first), learning=learning_of(store, project_id, task),
        conflicts=_conflicts(rooms.doubted(project_id, name, NEAR + 1), approved),
        alike=[_by_keys(keys) for keys in alike[:_GROUPS]], alike_total=len(alike),
        people=[one for row in people if (one := _person(rooms, project_id, name, row, first)) is not None],
    )  # fmt: skip


def _conflicts(pending: int, approved: Sequence[Row]) -> list[Disagreement]:
    accepted, blind = (sum(row[name] for row in approved) for name in ("doubted", "blind"))
    return [
        Disagreement("doubted", min(pending, NEAR), "state:pending is:doubted", pending <= NEAR),
        Disagreement("accepted", accepted, "state:approved how:accepted is:doubted"),
        Disagreement("blind", blind, "state:approved is:blind agreement<1"),
    ]


def _alike(task: Task, rows: Iterable[Row]) -> list[list[str]]:
    """Return the keys of near-duplicates whose labels count differently, by cluster, the newest first.

    Free texts that are put in other words do not contradict each other, as in an export.
    """
    strata = cache(partial(_strata, task))
    clusters: dict[int, list[Row]] = {}
    for row in rows:
        clusters.setdefault(row["cluster"], []).append(row)
    return [
        [row["key"] for row in own]
        for own in clusters.values()
        if len({strata(row["value"], row["task_version"]) for row in own}) > 1
    ]


def _by_keys(keys: Sequence[str]) -> Disagreement:
    """Return the records that have some keys, as many as a query can name."""
    named = [quoted(key) for key in keys]
    fitting = list(takewhile(lambda query: len(query) < LONGEST - 4, accumulate(named, "{},{}".format)))
    return Disagreement("alike", len(fitting), f"key:{fitting[-1] if fitting else ''}", len(fitting) == len(keys))


def _person(rooms: Room, project_id: int, task: str, person: Row, first: Iterable[Row]) -> Person | None:
    rows = rooms.decisions_of(project_id, task, person["id"], OF_EACH)
    if not rows:
        return None
    accepted, corrected = (sum(row["how"] == how for row in rows) for how in (ACCEPTED, CORRECTED))
    rejected = sum(row["state"] == REJECTED for row in rows)
    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    blind = [row["agreement"] for row in first if row["blind"] and row["reviewer_id"] == person["id"]]
    middle = median(seconds) if seconds else None
    return Person(person["name"], len(rows), accepted, corrected, rejected, middle, side_of(len(blind), sum(blind)))


def _labels(task: Task, rows: Iterable[Row]) -> Counter[str]:
    found = Counter[str]()
    for row in rows:
        for name in _strata(task, row["value"], row["task_version"]):
            found[name] += row["n"]
    return found


def _strata(task: Task, raw: str | None, version: str | None) -> tuple[str, ...]:
    value: Value | None = read(task, raw, version)
    return () if value is None else tuple(dict.fromkeys(task.schema.strata(value)))


def _pairs(task: Task, rows: Iterable[Row]) -> Iterable[_Pair]:
    """Yield what was suggested and what was decided, as labels of today; those that these cannot hold are left out."""
    strata = cache(partial(_strata, task))
    for row in rows:
        version = row["task_version"]
        suggested, decided = strata(row["suggested"], version), strata(row["value"], version)
        if suggested and decided:
            yield suggested, decided


def _confusion(task: Task, pairs: Mapping[_Pair, int]) -> dict[tuple[str, str], int]:
    if not task.schema.one_of_labels:
        return {}
    return {(suggested[0], decided[0]): n for (suggested, decided), n in pairs.items()}


def _changes(pairs: Mapping[_Pair, int]) -> list[Changes]:
    """Return the labels that people changed, most changed first."""
    seen, removed, added = Counter[str](), Counter[str](), Counter[str]()
    for (suggested, decided), n in pairs.items():
        for counts, names in (
            (seen, {*suggested}),
            (removed, {*suggested} - {*decided}),
            (added, {*decided} - {*suggested}),
        ):
            counts.update(dict.fromkeys(names, n))
    found = [Changes(name, seen[name], removed[name], added[name]) for name in {**removed, **added}]
    return sorted(found, key=lambda one: (-one.changed, one.name))


def _weeks(rows: Sequence[Row]) -> list[Week]:
    """Return the weeks in which somebody decided on a suggestion, oldest first."""
    found: dict[int, tuple[list[float], list[float]]] = {}
    for row in rows:
        week = (int(row["created_at"] // _SECONDS) + _THURSDAY) // 7
        found.setdefault(week, ([], []))[row["blind"]].append(row["agreement"])
    return [Week(_monday(week), *(side_of(len(one), sum(one)) for one in found[week])) for week in sorted(found)]


def _monday(week: int) -> date:
    return date(1970, 1, 1) + timedelta(7 * week - _THURSDAY)


def labels_in_order(task: Task, *counts: Mapping[str, int]) -> list[str]:
    """Return the labels of a task and whatever else was counted, in the order of the schema, empty last."""
    known = [label.name for label in task.schema.labels]
    others = sorted({name for one in counts for name in one if name not in known and name != NO_LABEL})
    return [*known, *others, *([NO_LABEL] if any(NO_LABEL in one for one in counts) else [])]
