"""The numbers of a task: how far people came and when they will be done, and how they changed what was suggested.

What is counted of all records is kept by the database. What needs to read labels looks at the newest so many.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np

from labeler.annotation.table import read
from labeler.evaluation.measures import Measure, weights
from labeler.labels import NO_LABEL
from labeler.prelabel.stack import wilson
from labeler.records import Value
from labeler.store import Row, Store
from labeler.store.annotations import ACCEPTED, BULK, CORRECTED, IMPORTED, SCRATCH
from labeler.task import Task

MOST = 5000
"""So many records, and so many decisions, are looked at for what is not counted; the newest."""
WINDOW = 14
"""Days that the pace is taken from: those before today, which is not over."""
WORKED = 3
"""On so many of them somebody must have worked before a day is forecast."""
PEOPLE = (ACCEPTED, CORRECTED, SCRATCH)
_FAR = 3650
_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Day:
    """Decisions in force that were made on a day (UTC), by how they came to be."""

    day: date
    people: int = 0
    bulk: int = 0
    imported: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """The days on which all is decided, if people go on as they did; ``last`` is None where it may never be."""

    day: date
    first: date
    last: date | None


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
class Side:
    """How far decisions agree with suggestions, of ``n``."""

    n: int
    agreement: Measure


@dataclass(frozen=True, slots=True)
class Week:
    """The agreement of the decisions of a week that begins on ``day``, a Monday (UTC)."""

    day: date
    assisted: Side | None = None
    blind: Side | None = None


@dataclass(frozen=True, slots=True)
class Numbers:
    """All numbers of a task, as of ``days[-1]``. Labels are those of today.

    ``approved`` and ``suggested`` count the labels of the newest :data:`MOST` records approved and pending;
    ``compared`` first decisions on suggestions, of the newest :data:`MOST`, are behind ``weeks``, ``confusion``
    (suggested, decided: where each value is one label) and ``changes``. ``cost`` is in US dollars; ``unpriced`` calls
    are not in it.
    """

    states: Mapping[str, int]
    days: Sequence[Day]
    pace: float | None
    forecast: Forecast | None
    approved: Mapping[str, int]
    suggested: Mapping[str, int]
    compared: int
    weeks: Sequence[Week]
    assisted: Side | None
    blind: Side | None
    gap: Measure | None
    confusion: Mapping[tuple[str, str], int]
    changes: Sequence[Changes]
    corrected: int
    cost: float
    unpriced: int

    def cost_of(self, n: int) -> float | None:
        """Return what one of ``n`` costs; None where there are none."""
        return self.cost / n if n else None


def numbers_of(store: Store, project_id: int, task: Task, today: date | None = None, most: int = MOST) -> Numbers:
    """Return the numbers of a task; ``today`` is a day in UTC."""
    today = today or datetime.now(UTC).date()
    rooms, name = store.numbers, task.name
    states = store.work.counts(project_id, name)
    days = _days(rooms.days(project_id, name, (today - timedelta(WINDOW)).isoformat()), today)
    pace, forecast = _forecast(states["pending"], days)
    first = rooms.first_decisions(project_id, name, most)
    pairs = list(_pairs(task, first))
    assisted, blind = (_side([row for row in first if bool(row["blind"]) is shown]) for shown in (False, True))
    spent, unpriced = rooms.spent(project_id, name)
    return Numbers(
        states, days, pace, forecast,
        approved=_labels(task, rooms.approved(project_id, name, most)),
        suggested=_labels(task, rooms.suggested(project_id, name, most)),
        compared=len(first), weeks=_weeks(first), assisted=assisted, blind=blind, gap=_gap(assisted, blind),
        confusion=_confusion(task, pairs), changes=_changes(pairs),
        corrected=store.annotations.how_counts(project_id, name).get(CORRECTED, 0),
        cost=spent, unpriced=unpriced,
    )  # fmt: skip


def _days(rows: Iterable[tuple[str, str, int]], today: date) -> list[Day]:
    found = {today - timedelta(n): Counter[str]() for n in range(WINDOW, -1, -1)}
    kinds = dict.fromkeys(PEOPLE, "people") | {BULK: "bulk", IMPORTED: "imported"}
    for day, how, n in rows:
        # A clock that went wrong may have dated one later than today.
        if (on := date.fromisoformat(day)) in found and how in kinds:
            found[on][kinds[how]] += n
    return [Day(day, **counts) for day, counts in found.items()]


def _forecast(pending: int, days: Sequence[Day]) -> tuple[float | None, Forecast | None]:
    """Return the decisions of people a day, and when all is done: the days are drawn again for the interval.

    The days before the first that somebody worked on do not count: the work had not begun.
    """
    made = np.array([day.people for day in days[:-1]], dtype=float)
    worked = np.flatnonzero(made)
    if not len(worked):
        return None, None
    made = made[worked[0] :]
    pace = float(made.mean())
    if len(worked) < WORKED or not pending:
        return pace, None
    slow, fast = np.quantile(weights(len(made))[1:] @ made / len(made), [_TAIL, 1 - _TAIL])
    today = days[-1].day
    day, first, last = (_after(today, pending, float(speed)) for speed in (pace, max(fast, pace), min(slow, pace)))
    return pace, None if day is None or first is None else Forecast(day, first, last)


def _after(today: date, pending: int, pace: float) -> date | None:
    """Return the day after so many decisions; None where that is years away."""
    return today + timedelta(math.ceil(pending / pace)) if pending <= pace * _FAR else None


def _labels(task: Task, rows: Iterable[Row]) -> Counter[str]:
    found = Counter[str]()
    for row in rows:
        for name in _strata(task, row["value"], row["task_version"]):
            found[name] += row["n"]
    return found


def _strata(task: Task, raw: str | None, version: str | None) -> tuple[str, ...]:
    value: Value | None = read(task, raw, version)
    return () if value is None else tuple(dict.fromkeys(task.schema.strata(value)))


def _pairs(task: Task, rows: Iterable[Row]) -> Iterable[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield what was suggested and what was decided, as labels of today; those that these cannot hold are left out."""
    known: dict[tuple[str, str], tuple[str, ...]] = {}
    for row in rows:
        sides = [(row[column], row["task_version"]) for column in ("suggested", "value")]
        for side in sides:
            if side not in known:
                known[side] = _strata(task, *side)
        suggested, decided = known[sides[0]], known[sides[1]]
        if suggested and decided:
            yield suggested, decided


def _confusion(task: Task, pairs: Iterable[tuple[tuple[str, ...], tuple[str, ...]]]) -> Counter[tuple[str, str]]:
    if not task.schema.one_of_labels:
        return Counter()
    return Counter((suggested[0], decided[0]) for suggested, decided in pairs)


def _changes(pairs: Iterable[tuple[tuple[str, ...], tuple[str, ...]]]) -> list[Changes]:
    """Return the labels that people changed, most changed first."""
    seen, removed, added = Counter[str](), Counter[str](), Counter[str]()
    for suggested, decided in pairs:
        seen.update(suggested)
        removed.update(set(suggested) - set(decided))
        added.update(set(decided) - set(suggested))
    found = [Changes(name, seen[name], removed[name], added[name]) for name in {**removed, **added}]
    return sorted(found, key=lambda one: (-one.changed, one.name))


def _side(rows: Sequence[Row]) -> Side | None:
    if not rows:
        return None
    mean = sum(row["agreement"] for row in rows) / len(rows)
    return Side(len(rows), Measure(mean, *wilson(mean, len(rows))))


def _gap(assisted: Side | None, blind: Side | None) -> Measure | None:
    """Return how much more people agree with a suggestion that they see (the interval of Newcombe 1998, method 10)."""
    if assisted is None or blind is None:
        return None
    a, b = assisted.agreement, blind.agreement
    gap = a.value - b.value
    low = gap - math.hypot(a.value - a.low, b.high - b.value)
    return Measure(gap, low, gap + math.hypot(a.high - a.value, b.value - b.low))


def _weeks(rows: Sequence[Row]) -> list[Week]:
    """Return the weeks in which somebody decided on a suggestion, oldest first."""
    found: dict[date, tuple[list[Row], list[Row]]] = {}
    for row in rows:
        day = datetime.fromtimestamp(row["created_at"], UTC).date()
        found.setdefault(day - timedelta(day.weekday()), ([], []))[bool(row["blind"])].append(row)
    return [Week(day, *map(_side, found[day])) for day in sorted(found)]


def labels_in_order(task: Task, *counts: Mapping[str, int]) -> list[str]:
    """Return the labels of a task and whatever else was counted, in the order of the schema, empty last."""
    known = [label.name for label in task.schema.labels]
    others = sorted({name for one in counts for name in one if name not in known and name != NO_LABEL})
    return [*known, *others, *([NO_LABEL] if any(NO_LABEL in one for one in counts) else [])]
