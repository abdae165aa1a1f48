"""The queue of one task: which record a reviewer gets next, and who holds it meanwhile."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeler.errors import Conflict, NotFound
from labeler.records import Record
from labeler.store import Row, Store, Tx
from labeler.store.work import OLDEST, ORDERS, SIMILAR
from labeler.task import Task

Nearest = Callable[[str, int], list[int]]
"""Given a typed text and a number, the ids of the most similar records of the project, nearest first."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A record on a reviewer's desk. ``token`` proves the claim, ``version`` what the reviewer saw."""

    record: Record
    task: Task
    token: str
    version: int
    until: float
    blind: bool
    state: str
    suggestion_id: int | None
    annotation: Row | None = None
    held_by: str | None = None


def is_blind(project_id: int, task: str, record_id: int, share: float) -> bool:
    """Return whether a record is shown without its suggestion: fixed per record, spread evenly.

    Showing a suggestion shifts the label, so that agreement means something only beside the blind share.
    """
    digest = hashlib.blake2b(f"{project_id}/{task}/{record_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) / 2**32 < share


class Queue:
    """Opens records for reviewers. ``settings`` are the project's; ``nearest`` serves the order "similar"."""

    def __init__(
        self, store: Store, project_id: int, task: Task, settings: Mapping[str, Any], nearest: Nearest | None = None
    ) -> None:
        self.store, self.project_id, self.task, self.nearest = store, project_id, task, nearest
        self.lease = float(settings["claim_minutes"]) * 60
        self.blind_share = float(settings["blind_share"])
        self.order = str(settings["order"])

    def next(self, reviewer_id: int, order: str = "", have: Sequence[int] = (), similar_to: str = "") -> Opened | None:
        """Claim and return the next record, or None when nothing is left for this reviewer.

        ``have`` are the records already on the reviewer's desk (this one and the prefetched). A record that the
        reviewer holds but does not have (a page was reloaded) comes first.
        """
        name = order or self.order
        if name not in ORDERS:
            raise NotFound(f"No queue order {name!r}; there are: {', '.join(ORDERS)}")
        candidates: list[int] = []
        if name == SIMILAR and similar_to.strip() and self.nearest is not None:
            candidates = self.nearest(similar_to, 200)

        def work(tx: Tx) -> tuple[int, str] | None:
            record_id = self._pick(tx, reviewer_id, name, have, candidates)
            if record_id is None:
                return None
            token = secrets.token_hex(8)
            until = time.time() + self.lease
            self.store.work.claim(tx, self.project_id, record_id, self.task.name, reviewer_id, token, until)
            return record_id, token

        claimed = self.store.write(work)
        return self._opened(*claimed) if claimed else None

    def _pick(self, tx: Tx, reviewer_id: int, order: str, have: Sequence[int], candidates: list[int]) -> int | None:
        rooms = self.store.work
        task = self.task.name
        for row in rooms.held_by(self.project_id, task, reviewer_id, tx):
            state = rooms.get(row["record_id"], task, tx)
            if row["record_id"] not in have and state is not None and state["state"] == "pending":
                return int(row["record_id"])
        if candidates:
            others = [c for c in candidates if c not in have]
            free = rooms.pending(self.project_id, task, others, self.lease, tx, reviewer_id)
            if free:
                return free[0]
        by = OLDEST if order == SIMILAR else order
        for _ in range(2):
            found = rooms.front(
                self.project_id, task, by, 1, self.lease, tuple(have), tx, only_free=True, reviewer_id=reviewer_id
            )
            if found:
                return found[0]
            # Everything else is done: what was skipped comes back.
            if not rooms.forget_skips(tx, self.project_id, task, reviewer_id):
                return None
        return None

    def open(self, reviewer_id: int, record_id: int) -> Opened:
        """Open one record by its number, pending or decided. Somebody else's claim is shown, not taken."""
        self._check_mine(record_id)
        token = secrets.token_hex(8)

        def work(tx: Tx) -> str | None:
            holder = self.store.work.holder(tx, record_id, self.task.name, self.lease)
            if holder is not None and holder["reviewer_id"] != reviewer_id:
                return str(holder["name"])
            until = time.time() + self.lease
            self.store.work.claim(tx, self.project_id, record_id, self.task.name, reviewer_id, token, until)
            return None

        held_by = self.store.write(work)
        return self._opened(record_id, "" if held_by else token, held_by)

    def _check_mine(self, record_id: int) -> Row:
        """Return the queue's row of a record. Raises :class:`NotFound` for one of another project or task."""
        row = self.store.work.get(record_id, self.task.name)
        if row is None or row["project_id"] != self.project_id:
            raise NotFound(f"Record {record_id} is not in the queue of the task {self.task.name}")
        return row

    def _opened(self, record_id: int, token: str, held_by: str | None = None) -> Opened:
        row = self._check_mine(record_id)
        return Opened(
            record=self.store.records.get(record_id),
            task=self.task,
            token=token,
            version=row["version"],
            until=time.time() + self.lease,
            blind=row["state"] == "pending" and is_blind(self.project_id, self.task.name, record_id, self.blind_share),
            state=row["state"],
            suggestion_id=row["suggestion_id"],
            annotation=self.store.annotations.current(record_id, self.task.name),
            held_by=held_by,
        )

    def touch(self, record_id: int, token: str) -> None:
        """Say that a person works on the draft: it is then left alone by refreshes, and the claim starts anew."""
        until = time.time() + self.lease
        if not self.store.write(lambda tx: self.store.work.touch(tx, record_id, self.task.name, token, until)):
            raise Conflict("This record is no longer yours: its time ran out and somebody else has opened it")

    def skip(self, reviewer_id: int, record_id: int) -> None:
        """Put a record back; it stays pending and comes to this reviewer again after all others."""
        self._check_mine(record_id)

        def work(tx: Tx) -> None:
            holder = self.store.work.holder(tx, record_id, self.task.name, self.lease)
            if holder is not None and holder["reviewer_id"] == reviewer_id:
                self.store.work.release(tx, record_id, self.task.name)
            self.store.work.skip(tx, record_id, self.task.name, reviewer_id)
            self.store.events.add(
                tx,
                "skipped",
                reviewer_id=reviewer_id,
                project_id=self.project_id,
                task=self.task.name,
                record_id=record_id,
            )

        self.store.write(work)

    def leave(self, reviewer_id: int) -> None:
        """Put back everything a reviewer holds in this queue, as when the page is closed."""
        self.store.write(lambda tx: self.store.work.release_all(tx, self.project_id, self.task.name, reviewer_id))
