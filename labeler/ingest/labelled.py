"""The labels that come with rows: which are taken, and what is said of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from labeler import strictjson
from labeler.errors import LabelError
from labeler.ingest.report import Report, left_out
from labeler.ingest.slices import Incoming
from labeler.records import Value
from labeler.sentence import N_, Sentence
from labeler.store import Store, Stored, Tx
from labeler.store.annotations import APPROVED
from labeler.store.records import ADDED, OTHER_TEXT, kind_of
from labeler.task import GROUP, Task
from labeler.text import one_line


class Decisions(Protocol):
    """What stores labels: a floor above this room."""

    def import_labels(
        self, tx: Tx, labels: Sequence[tuple[int, Value]], origin: str, reviewer_id: int | None
    ) -> list[int]:
        """Approve labels that came with the data, of pending records; return their annotations."""

    def standing(self, record_id: int, tx: Tx | None = None) -> tuple[str, Value | None] | None:
        """Return state and value of the decision in force."""


@dataclass(frozen=True, slots=True)
class _Owner:
    """The record that a label goes to. ``of_copy``: it came with an exact copy of this record."""

    id: int
    key: str
    text: str
    kind: str
    of_copy: bool


class Labels:
    """Labels of rows for the tasks of a project; ``decisions`` maps each task to what stores its labels."""

    def __init__(
        self, store: Store, project_id: int, tasks: Mapping[str, Task], decisions: Mapping[str, Decisions]
    ) -> None:
        self.store, self.project_id, self.tasks, self.decisions = store, project_id, tasks, decisions

    def approve(
        self, tx: Tx, rows: Sequence[Incoming], stored: Sequence[Stored], report: Report, origin: str,
        reviewer_id: int | None,
    ) -> None:  # fmt: skip
        """Approve the labels of a slice, all of a task together, and say in the report what became of each.

        An exact copy is not in the queue: its label is that of its original.
        """
        labelled = [
            (row, result)
            for row, result in zip(rows, stored, strict=True)
            if row.labels and result.outcome != OTHER_TEXT
        ]
        if not labelled:
            return
        ids = list({result.duplicate_of or result.id for _, result in labelled})
        new = {result.id: row.record for row, result in zip(rows, stored, strict=True) if result.outcome == ADDED}
        owners = new | self.store.records.many([id_ for id_ in ids if id_ not in new], tx)
        tasks = list(dict.fromkeys(task for row, _ in labelled for task in row.labels))
        voted = {task: self.store.ballots.voted(tx, task, ids) for task in tasks}
        pending = {t: self.store.work.pending_among(self.project_id, t, ids, tx) - voted[t] for t in tasks}
        taken: dict[str, dict[int, Value]] = {task: {} for task in tasks}
        for row, result in labelled:
            known = owners[result.duplicate_of or result.id]
            owner = _Owner(
                result.duplicate_of or result.id, known.key, known.text, result.kind, result.duplicate_of is not None
            )
            for task in row.labels:
                self._take(tx, task, row, owner, pending[task], voted[task], taken[task], report)
        for task, labels in taken.items():
            self.decisions[task].import_labels(tx, list(labels.items()), origin, reviewer_id)

    def _take(
        self, tx: Tx, task: str, row: Incoming, owner: _Owner, pending: set[int], voted: set[int],
        taken: dict[int, Value], report: Report,
    ) -> None:  # fmt: skip
        """Put a label among those that are ``taken`` if its record is pending; say in the report what became of it."""
        column, value = row.labels[task]
        equal = owner.key if owner.of_copy else None
        if kind_of(self.tasks[task].unit) != owner.kind:
            report.say("left_out", row.number, column, other_unit(self.tasks[task]))
            return
        try:
            value = self._placed(task, value, row.record.text, owner.text)
        except LabelError as error:
            report.say("left_out", row.number, column, left_out(error))
            return
        if owner.id in taken:
            self.compare(task, value, (APPROVED, taken[owner.id]), equal, row.number, column, report)
        elif owner.id in pending:
            taken[owner.id] = value
            report.labels += 1
            if equal is not None:
                report.say(
                    "given",
                    row.number,
                    column,
                    Sentence("the label went to the equal record %(id)r, which had none", id=equal),
                )
        elif owner.id in voted:
            report.say("left_out", row.number, column, left_out(Sentence("several people are deciding on this record")))
        elif (stands := self.decisions[task].standing(owner.id, tx)) is not None:
            self.compare(task, value, stands, equal, row.number, column, report)
        else:
            report.say(
                "left_out", row.number, column, left_out(Sentence("the queue of %(task)s lacks this record", task=task))
            )

    def _placed(self, task: str, value: Value, text: str, owner: str) -> Value:
        """Return a label of a text as that of the record it goes to. Raises :class:`LabelError` if it is none there."""
        schema = self.tasks[task].schema
        return value if text == owner else schema.parse(schema.answer(value), owner)

    def compare(
        self, task: str, value: Value, stands: tuple[str, Value | None], equal: str | None, number: int, column: str,
        report: Report,
    ) -> None:  # fmt: skip
        """Say whether a label is the one that stands."""
        state, known = stands
        if state != APPROVED:
            reason = N_("the record was rejected") if equal is None else N_("the equal record %(id)r was rejected")
            why = Sentence(reason, id=equal)
        elif known == value:
            report.agreed += 1
            return
        else:
            shown = one_line(strictjson.dumps(self.tasks[task].schema.answer(known)), 60)
            reason = (
                N_("the record has another, %(value)s")
                if equal is None
                else N_("the equal record %(id)r has another, %(value)s")
            )
            why = Sentence(reason, id=equal, value=shown)
        report.say("contradicting", number, column, left_out(why))


def other_unit(task: Task) -> Sentence:
    """Say that a label is of another unit than its task."""
    if task.unit == GROUP:
        return left_out(Sentence("the task %(task)s labels products, and this row is a review", task=task.name))
    return left_out(Sentence("the task %(task)s labels reviews, and this row is a product", task=task.name))
