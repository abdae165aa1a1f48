"""How far people came with a task, when they will be done, how far they agree with suggestions, and what it cost.

All of it is counted by the database as it happens, so it takes as long in a large project as in a small one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from labeler.evaluation.measures import Measure, weights
from labeler.prelabel.stack import wilson
from labeler.store import Store
from labeler.store.annotations import ACCEPTED, BULK, CORRECTED, IMPORTED, SCRATCH

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
class Side:
    """How far decisions agree with suggestions, of ``n``."""

    n: int
    agreement: Measure


@dataclass(frozen=True, slots=True)
class ModelSides:
    """How far first decisions agree with the suggestions of a model, with them in sight and blind."""

    backend: str
    model_id: str | None
    assisted: Side | None
    blind: Side | None

    @property
    def name(self) -> str:
        return self.model_id or self.backend

    @property
    def n(self) -> int:
        return sum(side.n for side in (self.assisted, self.blind) if side)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task came, as of ``days[-1]``.

    ``assisted`` and ``blind`` are the agreement of all first decisions on suggestions, ``gap`` the first minus the
    second, and ``models`` tells it of each model, that of the most decisions first. ``cost`` is in US dollars;
    ``unpriced`` calls are not in it.
    """

    states: Mapping[str, int]
    days: Sequence[Day]
    pace: float | None
    forecast: Forecast | None
    assisted: Side | None
    blind: Side | None
    gap: Measure | None
    models: Sequence[ModelSides]
    corrected: int
    cost: float
    unpriced: int

    @property
    def total(self) -> int:
        return sum(self.states.values())

    @property
    def done(self) -> int:
        return self.states["approved"] + self.states["rejected"]

    @property
    def recent(self) -> bool:
        """Whether anything was decided in the days."""
        return any(day.people or day.bulk or day.imported for day in self.days)

    def cost_of(self, n: int) -> float | None:
        """Return what one of ``n`` costs; None where there are none."""
        return self.cost / n if n else None


def progress_of(store: Store, project_id: int, task: str, today: date | None = None) -> Progress:
    """Return how far a task came; ``today`` is a day in UTC."""
    today = today or datetime.now(UTC).date()
    rooms = store.numbers
    states = store.work.counts(project_id, task)
    days = _days(rooms.days(project_id, task, (today - timedelta(WINDOW)).isoformat()), today)
    pace, forecast = _forecast(states["pending"], days)
    rows = rooms.sides(project_id, task)
    assisted, blind = (_pooled(rows, shown) for shown in (False, True))
    spent, unpriced = rooms.spent(project_id, task)
    corrected = store.annotations.how_counts(project_id, task).get(CORRECTED, 0)
    return Progress(
        states, days, pace, forecast, assisted, blind, _gap(assisted, blind), _models(rows), corrected, spent, unpriced
    )


def side_of(n: int, total: float) -> Side | None:
    """Return the mean of ``n`` agreements that have a sum, with the interval of Wilson; None where there are none."""
    if not n:
        return None
    mean = min(total / n, 1.0)
    return Side(n, Measure(mean, *wilson(mean, n)))


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


def _pooled(rows: Iterable[Mapping[str, Any]], blind: bool) -> Side | None:
    of = [row for row in rows if row["blind"] is blind]
    return side_of(sum(row["n"] for row in of), sum(row["total"] for row in of))


def _models(rows: Sequence[Mapping[str, Any]]) -> list[ModelSides]:
    found: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["backend"], row["model_id"]), []).append(row)
    models = [ModelSides(*model, _pooled(own, False), _pooled(own, True)) for model, own in found.items()]
    return sorted(models, key=lambda one: (-one.n, one.name))


def _gap(assisted: Side | None, blind: Side | None) -> Measure | None:
    """Return how much more people agree with a suggestion that they see (the interval of Newcombe 1998, method 10)."""
    if assisted is None or blind is None:
        return None
    a, b = assisted.agreement, blind.agreement
    gap = a.value - b.value
    low = gap - math.hypot(a.value - a.low, b.high - b.value)
    return Measure(gap, low, gap + math.hypot(a.high - a.value, b.value - b.low))
