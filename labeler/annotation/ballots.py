"""Records that several people decide on: each alone, until most of them agree or an adjudicator settles it.

Everybody's own word is a ballot. A record with as many ballots as people are asked for is settled: what more than half
of them say becomes the decision in force; where there is no such thing the record is disputed, and waits for an
adjudicator. Until then its decision is nobody's: it is no example, is in no export, and nobody sees what others said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from labeler import strictjson
from labeler.annotation.drawn import drawn
from labeler.annotation.followed import compare
from labeler.errors import LabelError
from labeler.records import Value
from labeler.store import Row, Store, Tx
from labeler.store.annotations import APPROVED, REJECTED
from labeler.store.records import shuffle
from labeler.store.work import DISPUTED, PENDING
from labeler.task import Task

_MOST = 500


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many people decide on a record, and on which part of the records; the others need one person."""

    people: int = 1
    part: float = 1.0

    @classmethod
    def of(cls, settings: Mapping[str, Any], task: str) -> Overlap:
        """Return that of a task by the settings of its project."""
        shared = not settings["shared_tasks"] or task in settings["shared_tasks"]
        return cls(int(settings["people_per_record"]) if shared else 1, float(settings["shared_part"]))

    def needed(self, project_id: int, task: str, record_id: int) -> int:
        """Return how many people a record needs: always the same ones are shared, spread evenly."""
        shared = self.people > 1 and drawn(f"shared/{project_id}/{task}/{record_id}", self.part)
        return self.people if shared else 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What ballots come to: a decision, or nothing that most of them say (``state`` is disputed)."""

    state: str
    value: Value | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What one person said: ``value`` is None for a rejection, and where the labels of today cannot hold it."""

    reviewer: str
    state: str
    value: Value | None


def outcome(task: Task, ballots: Sequence[Row]) -> Outcome:
    """Return what more than half of the ballots say; see :meth:`labeler.labels.LabelSchema.majority`.

    Where some give no value, as they reject the record or the labels of today cannot hold theirs, the others must all
    say the same.
    """
    rejected = sum(ballot["state"] == REJECTED for ballot in ballots)
    if 2 * rejected > len(ballots):
        return Outcome(REJECTED)
    values = [value for ballot in ballots if (value := said(task, ballot)) is not None]
    settled = task.schema.majority(values) if 2 * len(values) > len(ballots) else None
    if settled is None or (len(values) < len(ballots) and any(value != settled for value in values)):
        return Outcome(DISPUTED)
    return Outcome(APPROVED, settled)


def said(task: Task, ballot: Row) -> Value | None:
    """Return the value of a ballot in the labels of today; None for a rejection, or where they cannot hold it."""
    if ballot["value"] is None:
        return None
    try:
        return task.read(strictjson.loads(ballot["value"]), ballot["task_version"])
    except LabelError:
        return None


class Ballots:
    """Settles the records of one task of a project."""

    def __init__(self, store: Store, project_id: int, task: Task, overlap: Overlap) -> None:
        self.store, self.project_id, self.task, self.overlap = store, project_id, task, overlap

    def shown(self, row: Row) -> Shown:
        """Return a ballot as people see it."""
        return Shown(str(row["reviewer"]), str(row["state"]), said(self.task, row))

    def on(self, record_id: int) -> list[Shown]:
        """Return the open ballots on a record for an adjudicator, in an order that tells nothing of who or when."""
        rows = self.store.ballots.open_of(record_id, self.task.name)
        return [self.shown(row) for row in sorted(rows, key=lambda row: shuffle(row["id"]))]

    def of(self, annotation: Row) -> list[Shown]:
        """Return the ballots that a decision settled, oldest first; none if it was one person's."""
        number = annotation["original_id"] or annotation["id"]
        return [self.shown(row) for row in self.store.ballots.settled_by(number)]

    def needed(self, record_id: int) -> int:
        return self.overlap.needed(self.project_id, self.task.name, record_id)

    def tidy(self) -> None:
        """Make records what their ballots come to by the labels and settings of now, after these were changed.

        A ballot that the labels cannot hold counts no more. A disputed record that needs more people is pending again.
        """
        place = (self.project_id, self.task.name)
        lost = [row["id"] for row in self.store.ballots.waiting(*place) if said(self.task, row) is None]
        if lost:
            self.store.write(lambda tx: self.store.ballots.end(tx, lost))
        due = [row["record_id"] for row in self.store.ballots.counted(*place) if self._is_due(row)]
        for start in range(0, len(due), _MOST):
            self.store.write(partial(self._settle_all, due[start : start + _MOST]))

    def _is_due(self, row: Row) -> bool:
        return bool((row["state"] == DISPUTED) != (row["n"] >= self.needed(row["record_id"])))

    def _settle_all(self, record_ids: Sequence[int], tx: Tx) -> None:
        for id_ in record_ids:
            row = self.store.work.get(id_, self.task.name, tx)
            if row is not None and row["state"] in (PENDING, DISPUTED):
                self.settle(tx, id_)

    def settle(self, tx: Tx, record_id: int) -> tuple[str, int]:
        """Settle a record that enough people voted on; return its state and version.

        The decision is that of no one person; the suggestion that it is compared with is the one that was seen last. A
        record that waits for others keeps its version: nothing that they see or have begun has changed.
        """
        ballots = self.store.ballots.open_of(record_id, self.task.name, tx)
        found = Outcome(PENDING)
        if ballots and len(ballots) >= self.needed(record_id):
            found = outcome(self.task, ballots)
        number = None
        if found.state in (APPROVED, REJECTED):
            number = self._decide(tx, record_id, found, ballots[-1])
        row = self.store.work.get(record_id, self.task.name, tx)
        if row is not None and row["state"] == found.state == PENDING:
            return PENDING, int(row["version"])
        return found.state, self.store.work.decided(tx, record_id, self.task.name, found.state, number)

    def _decide(self, tx: Tx, record_id: int, found: Outcome, last: Row) -> int:
        seen = (last["suggestion_id"], bool(last["blind"]))
        how, agreement = compare(self.store, tx, self.task, record_id, *seen, found.value)
        number = self.store.annotations.add(
            tx,
            {
                "project_id": self.project_id, "record_id": record_id, "task": self.task.name,
                "task_version": self.task.version, "state": found.state, "value": found.value, "how": how,
                "blind": last["blind"], "seconds": last["seconds"], "suggestion_id": last["suggestion_id"],
                "agreement": agreement, "served": last["served"],
            },
        )  # fmt: skip
        self.store.ballots.settle(tx, record_id, self.task.name, number)
        return number
