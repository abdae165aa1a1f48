"""What a replay came to: each arm with its numbers, what it costs, and which one to choose.

Everything is computed from the rows of the replay. As long as a run goes on, only records count that every arm has
ended with; what a finished run has no answer for is a record without a suggestion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler.evaluation.apart import LEVEL, p_value
from labeler.evaluation.measures import DRAWS, Answers, Measure, measured, weights
from labeler.evaluation.replay import PARSE, truth
from labeler.instance import Instance
from labeler.labels import LabelSchema
from labeler.records import Value
from labeler.settings import DRAFT, REPLAY_WITHIN
from labeler.store import Row
from labeler.store.ledger import FINISHED
from labeler.store.replays import WALKED, Draft, Said
from labeler.task import Task

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

_POINTS, _POINT = 6, 20
_MOST_TIMES = 10
NOTHING = ""
"""In a table of labels: no suggestion."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a learning curve: the agreement of ``n`` records that had ``known`` examples on average."""

    known: float
    n: int
    agreement: Measure


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What one arm came to.

    ``against`` is its agreement minus that of the first arm (where drafts of guidelines are judged, with an interval
    for all of them together), ``behind`` how much less it agrees than the best; on a test set ``behind`` and its ``p``
    hold for all arms together. ``changed`` is the share of records where it says something else than the first;
    ``unread`` answers could not be parsed. ``cost`` is in US dollars for 1,000 records, ``tokens`` and ``seconds`` are
    those of a record; each is None where it is not known. ``blind`` and ``assisted`` are the agreement on records
    decided without and with a suggestion in sight, ``anchored`` the second minus the first.
    """

    number: int
    settings: Mapping[str, Any]
    run: Mapping[str, Any] | None
    billed: bool
    numbers: Mapping[str, Measure] = field(default_factory=dict)
    against: Measure | None = None
    behind: Measure | None = None
    changed: float = 0.0
    silent: int = 0
    unread: int = 0
    p: float | None = None
    cost: float | None = 0.0
    tokens: float | None = 0.0
    seconds: float | None = 0.0
    blind: Measure | None = None
    assisted: Measure | None = None
    anchored: Measure | None = None
    curve: Sequence[Point] = ()

    @property
    def ended(self) -> bool:
        return self.run is None or self.run["state"] == FINISHED

    @property
    def told_apart(self) -> bool:
        """Whether it is shown to agree less than the best: by the interval and by the test."""
        return self.behind is not None and self.behind.low > 0 and self.p is not None and self.p < LEVEL


@dataclass(frozen=True, slots=True)
class Report:
    """A replay with its arms; ``n`` records count of ``total``, and ``walked`` were walked through. ``known`` is how
    many examples there were at most. ``best`` agrees best, ``cheapest`` is the arm that costs least of those that are a
    little worse at most, with 95 %.
    """

    replay: Mapping[str, Any]
    arms: Sequence[ArmResult]
    n: int
    total: int
    walked: int
    known: int = 0
    best: int = 0
    cheapest: int = 0

    @property
    def walking(self) -> bool:
        """Whether somebody walks through it, or is going to."""
        return bool(self.replay["state"] != WALKED and self.replay["message"] is None)

    @property
    def ended(self) -> bool:
        return bool(self.replay["state"] == WALKED and all(arm.ended for arm in self.arms))


@dataclass(frozen=True, slots=True)
class Cell:
    """One record of a table of labels: what is approved, what an arm said, and what the record is."""

    record_id: int
    key: str
    text: str
    truth: Value
    said: Value | None
    failure: str | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """A draft of guidelines with the arm that judges it: that of the draft ``same_as``, where both are equal."""

    draft: Draft
    arm: ArmResult | None
    same_as: int | None
    ended: bool

    @property
    def gain(self) -> Measure | None:
        """How much better it agrees than the guidelines as they are, once every arm has ended."""
        return self.arm.against if self.arm is not None and self.ended else None

    @property
    def kept(self) -> bool:
        """Whether it can be adopted: the whole interval of its gain lies above zero."""
        return self.gain is not None and self.gain.low > 0


class Results:
    """Reads one replay. ``within`` is how much worse than the best an arm may be to be chosen for what it costs."""

    def __init__(self, instance: Instance, replay_id: int, within: float = REPLAY_WITHIN) -> None:
        self.instance, self.within = instance, within
        self.replays = instance.store.replays
        self.replay = self.replays.get(replay_id)
        project = instance.store.projects.get(self.replay["project_id"])
        self.task: Task = instance.project_task(project, self.replay["task"])
        self.arms = self.replays.arms(replay_id)
        self.rows = self.replays.items(replay_id)
        self.runs = [instance.store.ledger.run(arm["run_id"]) if arm["run_id"] else None for arm in self.arms]
        self.said = [self.replays.said(replay_id, arm["arm"]) for arm in self.arms]
        self.items = self._counting()
        self.drafts = self.replays.drafts(replay_id)
        self.drafting = instance.store.ledger.run(self.replay["drafts_run"]) if self.replay["drafts_run"] else None
        # The more drafts are tried, the likelier one of them looks better by luck: all that were judged so far count,
        # so that whoever searches again and again finds no gain in that. A part of the approvals that confirms the
        # best one alone would need more of them for the same certainty, up to nine drafts.
        # On a test set each arm is compared with the one that looks best.
        held_out = self.replay["held_out"] is not None
        others = len(self.arms) - 1 if held_out else 1
        self.together = max(1, self.replays.judged(self.replay) if self.drafts else others)

    @property
    def draws(self) -> int:
        """How often the records are drawn: an interval that is to hold for many has ends that few draws reach."""
        return DRAWS * min(self.together, _MOST_TIMES)

    @property
    def schema(self) -> LabelSchema:
        return self.task.schema

    def _counting(self) -> list[tuple[Row, Value]]:
        """Return the records that count so far, each with what is approved: none before all are walked through."""
        if self.replay["state"] != WALKED:
            return []
        pairs = zip(self.runs, self.said, strict=True)
        open_ = [said for run, said in pairs if run is not None and run["state"] != FINISHED]
        rows = [row for row in self.rows if all(row["record_id"] in said for said in open_)]
        return [(row, value) for row in rows if (value := truth(self.task, row)) is not None]

    def report(self) -> Report:
        walked = sum(row["known"] is not None for row in self.rows)
        known = max((row["known"] or 0 for row in self.rows), default=0)
        if not self.items:
            plain = [self._plain(n) for n in range(len(self.arms))]
            return Report(self.replay, plain, 0, len(self.rows), walked, known)
        drawn = weights(len(self.items), self.draws)
        answers = [self.answers(n) for n in range(len(self.arms))]
        agreement = [drawn @ one.agreement / len(self.items) for one in answers]
        best = max(range(len(self.arms)), key=lambda n: (float(agreement[n][0]), -n))
        arms = [self._result(n, answers, agreement, best, drawn) for n in range(len(self.arms))]
        good = [
            arm for arm in arms if arm.number == best or (arm.behind is not None and arm.behind.high <= self.within)
        ]
        cheapest = min(
            good, key=lambda arm: (float("inf") if arm.cost is None else arm.cost, -arm.numbers["agreement"].value)
        )
        return Report(self.replay, arms, len(self.items), len(self.rows), walked, known, best, cheapest.number)

    def answers(self, arm: int) -> Answers:
        found = [self._said(arm, row) for row, _ in self.items]
        return Answers(
            self.schema, [value for _, value in self.items], [one.value for one in found], [one.score for one in found]
        )

    def _said(self, arm: int, row: Row) -> Said:
        return self.said[arm].get(row["record_id"]) or Said(row["record_id"], failure="none")

    def _plain(self, n: int) -> ArmResult:
        arm, run = self.arms[n], self.runs[n]
        return ArmResult(n, arm["settings"], run, run is not None)

    def _result(
        self, n: int, answers: Sequence[Answers], agreement: Sequence[Array], best: int, drawn: Array
    ) -> ArmResult:
        own, first, run = answers[n], answers[0], self.runs[n]
        differ = [a != b for a, b in zip(own.said, first.said, strict=True)]
        return ArmResult(
            n, self.arms[n]["settings"], run, run is not None,
            numbers=own.all(drawn),
            against=measured(agreement[n] - agreement[0], self.together) if n else None,
            behind=measured(agreement[best] - agreement[n], self.together) if n != best else None,
            p=self._p(answers[best], own) if n != best else None,
            changed=sum(differ) / len(differ),
            silent=sum(value is None for value in own.said),
            unread=len(self.unread(n)),
            cost=_cost(run) if run else 0.0,
            tokens=_each(run, run["tokens_in"] + run["tokens_out"]) if run else 0.0,
            seconds=_each(run, run["seconds"]) if run else (self.arms[n]["seconds"] or 0.0) / len(self.rows),
            # What is learned from a train split does not grow on the way.
            curve=() if self.replay["held_out"] else self._curve(own),
            **self._sides(own),
        )  # fmt: skip

    def _p(self, best: Answers, own: Answers) -> float | None:
        """Return the p of a difference on a test set; Bonferroni, as its interval."""
        if self.replay["held_out"] is None:
            return None
        return min(1.0, self.together * p_value(self.schema, best.agreement, own.agreement))

    def _sides(self, own: Answers) -> dict[str, Measure]:
        """Return the agreement on records that were decided blind, on the others, and the difference."""
        blind = np.array([bool(row["blind"]) for row, _ in self.items])
        found: dict[str, Array] = {}
        for seed, (name, rows) in enumerate((("blind", blind), ("assisted", ~blind))):
            if (n := int(rows.sum())) > 1:
                found[name] = weights(n, seed=seed) @ own.agreement[rows] / n
        if len(found) < 2:
            return {}
        return {name: measured(one) for name, one in (*found.items(), ("anchored", found["assisted"] - found["blind"]))}

    def _curve(self, own: Answers) -> list[Point]:
        """Return the agreement over time, in stretches of as many records each."""
        found = []
        for part in stretches(len(self.items)):
            known = float(np.mean([self.items[n][0]["known"] or 0 for n in part.tolist()]))
            drawn = weights(len(part)) @ own.agreement[part] / len(part)
            found.append(Point(known, len(part), measured(drawn)))
        return found

    # Drafts of guidelines

    def judged(self, report: Report) -> list[Judged]:
        """Return the drafts that are judged here, each with what came of it."""
        arms = {arm.settings[DRAFT]: arm for arm in report.arms if DRAFT in arm.settings}
        firsts: dict[str, int] = {}
        found = []
        for draft in self.drafts:
            first = draft.number if draft.guidelines is None else firsts.setdefault(draft.guidelines, draft.number)
            found.append(Judged(draft, arms.get(first), first if first != draft.number else None, report.ended))
        return found

    # The table of labels

    def confusion(self, arm: int) -> Counter[tuple[str, str]]:
        """Return how often each label was approved where the arm said each: of choices, one label by another."""
        if not self.schema.one_of_labels:
            return Counter()
        pairs = ((value, self._said(arm, row).value) for row, value in self.items)
        return Counter((value, NOTHING if said is None else said) for value, said in pairs)

    def unread(self, arm: int) -> list[Cell]:
        """Return the records where the answer of an arm could not be parsed."""
        return [cell for cell in self.cells(arm) if (cell.failure or "").startswith(PARSE)]

    def cells(self, arm: int, true: str | None = None, said: str | None = None, than: int | None = None) -> list[Cell]:
        """Return the records of one cell of :meth:`confusion`; without one those where the arm is wrong.

        ``than`` returns those where it says something else than that arm.
        """
        found = []
        for row, value in self.items:
            one = self._said(arm, row)
            if true is not None:
                fits = (value, NOTHING if one.value is None else one.value) == (true, said)
            else:
                fits = one.value != (value if than is None else self._said(than, row).value)
            if fits:
                found.append(Cell(row["record_id"], row["key"], row["text"], value, one.value, one.failure, one.score))
        return found

    def said_by(self, arm: int) -> dict[int, Value | None]:
        """Return what an arm said, by record."""
        return {row["record_id"]: self._said(arm, row).value for row, _ in self.items}

    def used_by(self) -> str:
        """Return who set the task to an arm; empty for a command, or where nobody did."""
        who = self.replay["used_by"]
        person = None if who is None else self.instance.store.people.get(who)
        return "" if person is None else str(person["name"])


def stretches(n: int) -> list[Array]:
    """Return the places of ``n`` records that followed each other in the stretches of a learning curve."""
    return np.array_split(np.arange(n), max(1, min(_POINTS, n // _POINT)))


def _cost(run: Mapping[str, Any]) -> float | None:
    """Return what 1,000 records cost; None where that is not known."""
    found = None if run["unpriced"] else _each(run, run["spent"])
    return None if found is None else 1000 * found


def _each(run: Mapping[str, Any], total: float) -> float | None:
    """Return what a record took of what the calls of a run took, those records too whose answers were there before.

    None where all were.
    """
    ended, asked = run["done"] + run["failed"], run["calls"] + run["reused"]
    if not run["calls"]:
        return 0.0 if not asked else None
    return float(total / run["calls"] * asked / max(ended, 1))
