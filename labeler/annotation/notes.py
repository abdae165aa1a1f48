"""Notes: a flag for whoever adjudicates, or a question to a colleague, that stays with its record until it is closed.

Both are one thing: a thread of notes that waits for somebody. An answer lets it wait for whoever began it, and what
they add for the other side again. It decides nothing: the record stays in everybody's queue.
"""

from __future__ import annotations

from typing import Any

from labeler.accounts import ADMIN
from labeler.errors import Conflict, InputError, NotFound
from labeler.store import Row, Store, Tx
from labeler.task import Task
from labeler.text import clean_text, is_blank

LONGEST = 1000
"""Characters of a note."""


class Notes:
    """Keeps the notes on the records of one task of a project."""

    def __init__(self, store: Store, project_id: int, task: Task) -> None:
        self.store, self.project_id, self.task = store, project_id, task

    def write(
        self, reviewer_id: int, record_id: int, text: str, request_key: str, to: int | None = None,
        thread: int | None = None,
    ) -> int:  # fmt: skip
        """Keep a note and return its number, once it is durable; safe to send twice with one ``request_key``.

        ``to`` is the member who is asked, None for whoever adjudicates. With ``thread``, the number of the note that
        began it, it is an answer, and whom it is for is known. Raises :class:`InputError` for an empty or too long
        text or somebody who cannot be asked, :class:`NotFound` for a record that is not in the queue, and
        :class:`Conflict` if the thread was closed meanwhile.
        """
        text = clean_text(text, "note")
        if is_blank(text) or len(text) > LONGEST:
            raise InputError("A note has 1 to %(most)s characters", most=LONGEST)
        if not 8 <= len(request_key) <= 100:
            raise InputError("A note needs a request_key of 8 to 100 characters, new for each note")

        def work(tx: Tx) -> int:
            before = self.store.notes.by_request(tx, request_key)
            if before is not None:
                return self._again(before, reviewer_id, record_id)
            self._check_queued(tx, record_id)
            if thread is None:
                self._check_askable(tx, reviewer_id, to)
                asked = to
            else:
                asked = self._other_side(tx, self._open(tx, record_id, thread), reviewer_id)
            place = self.project_id, record_id, self.task.name
            id_ = self.store.notes.add(tx, *place, thread, reviewer_id, asked, text, request_key)
            self._event(tx, "noted", reviewer_id, record_id, {"note": id_, "to": asked})
            return id_

        return self.store.write(work)

    def close(self, reviewer_id: int, record_id: int, thread: int, adjudicates: bool = False) -> None:
        """Close a thread: whoever began it may, whom it was written to, and who adjudicates. Safe to send twice.

        Raises :class:`InputError` for anybody else, and :class:`NotFound`.
        """

        def work(tx: Tx) -> None:
            first = self._first(tx, record_id, thread)
            if not (adjudicates or reviewer_id in (first["reviewer_id"], first["to_id"])):
                raise InputError("A note is closed by who wrote it, who was asked, or an admin of the project")
            if first["open"]:
                self.store.notes.close(tx, thread)
                self._event(tx, "note closed", reviewer_id, record_id, {"note": thread})

        self.store.write(work)

    def _again(self, before: Row, reviewer_id: int, record_id: int) -> int:
        same = (before["reviewer_id"], before["record_id"], before["task"]) == (reviewer_id, record_id, self.task.name)
        if not same:
            raise InputError("This request_key was used for another note; make a new one for each")
        return int(before["id"])

    def _check_queued(self, tx: Tx, record_id: int) -> None:
        if not self.store.work.is_in(tx, record_id, self.project_id, self.task.name):
            # Perhaps it was removed; that is said.
            self.store.records.get(record_id)
            raise NotFound(
                "Record %(number)s is not in the queue of the task %(task)s", number=record_id, task=self.task.name
            )

    def _check_askable(self, tx: Tx, reviewer_id: int, to: int | None) -> None:
        if to is not None and (to == reviewer_id or to not in self.store.notes.askable(self.project_id, tx)):
            raise InputError("Only another member of the project can be asked; choose somebody else")

    def _first(self, tx: Tx, record_id: int, thread: int) -> Row:
        found = self.store.notes.first(tx, thread, record_id, self.task.name)
        if found is None or not self.store.work.is_in(tx, record_id, self.project_id, self.task.name):
            raise NotFound("There is no note number %(number)s on this record", number=thread)
        return found

    def _open(self, tx: Tx, record_id: int, thread: int) -> Row:
        first = self._first(tx, record_id, thread)
        if not first["open"]:
            raise Conflict("This note was closed meanwhile; write a new one")
        return first

    def _other_side(self, tx: Tx, first: Row, reviewer_id: int) -> int | None:
        """Return for whom an answer is; None, whoever adjudicates, where they can read no answer any more."""
        other = first["reviewer_id"] if reviewer_id != first["reviewer_id"] else first["to_id"]
        person = None if other is None else self.store.people.get(other, tx)
        if person is None or person["disabled"]:
            return None
        member = self.store.projects.member_role(self.project_id, person["id"], tx) is not None
        return int(person["id"]) if member or person["role"] == ADMIN else None

    def _event(self, tx: Tx, kind: str, reviewer_id: int, record_id: int, detail: dict[str, Any]) -> None:
        where = {"project_id": self.project_id, "task": self.task.name, "record_id": record_id}
        self.store.events.add(tx, kind, reviewer_id=reviewer_id, detail=detail, **where)
