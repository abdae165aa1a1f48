"""Acts on many records at once. An act is done in slices, each in one transaction with how far it came.

So whoever dies in the middle, another goes on behind the last slice, and two that go on at the same time do no record
twice. Which decisions an act made stands with it, as ranges of their numbers: it is undone by them, as a whole.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from labeler import strictjson
from labeler.store.database import Database, Row, Tx

DOING, DONE, UNDOING, UNDONE = "doing", "done", "undoing", "undone"
ONGOING = (DOING, UNDOING)
ORIGIN = "act:"
"""What the origin of a decision begins with that an act made; its number follows."""


class Acts:
    def __init__(self, db: Database) -> None:
        self.db = db

    def add(self, tx: Tx, row: Mapping[str, Any]) -> int:
        """Note what is to be done from the record ``edge`` down; ``ids`` are chosen records, None for all found."""
        sql = """INSERT INTO acts (project_id, task, kind, value, query, ids, moved, reviewer_id, state, edge,
                 created_at) VALUES (:project_id, :task, :kind, :value, :query, :ids, :moved, :reviewer_id, 'doing',
                 :edge, :now) RETURNING id"""
        ids = None if row["ids"] is None else strictjson.dumps(list(row["ids"]))
        return int(tx.value(sql, {**row, "ids": ids, "now": time.time()}))

    def get(self, act_id: int, tx: Tx | None = None) -> Row | None:
        sql = (
            "SELECT a.*, r.name AS reviewer FROM acts a LEFT JOIN reviewers r ON r.id = a.reviewer_id WHERE a.id = :id"
        )
        return (tx or self.db).one(sql, {"id": act_id})

    def of(self, project_id: int, limit: int = 20) -> list[Row]:
        """Return the newest acts of a project."""
        sql = """SELECT a.*, r.name AS reviewer FROM acts a LEFT JOIN reviewers r ON r.id = a.reviewer_id
                 WHERE a.project_id = :p ORDER BY a.id DESC LIMIT :limit"""
        return self.db.all(sql, {"p": project_id, "limit": limit})

    def open(self) -> list[Row]:
        """Return the acts that are not finished."""
        return self.db.all("SELECT * FROM acts WHERE state IN ('doing', 'undoing') ORDER BY id")

    def came_to(
        self, tx: Tx, act: Row, edge: int, looked: int, left_out: Mapping[str, int], changed: int, made: Sequence[int]
    ) -> None:
        """Note a slice: down to which record, how many were looked at, left out and changed, and which decisions it
        made."""
        left, ranges = Counter(strictjson.loads(act["left_out"])), strictjson.loads(act["made"])
        left.update(left_out)
        if made:
            ranges.append([made[0], made[-1]])
        tx.run(
            """UPDATE acts SET edge = :edge, looked = looked + :looked, changed = changed + :changed, left_out = :left,
               made = :made WHERE id = :id""",
            {
                "id": act["id"], "edge": edge, "looked": looked, "changed": changed, "left": strictjson.dumps(left),
                "made": strictjson.dumps(ranges),
            },
        )  # fmt: skip

    def set(self, tx: Tx, act_id: int, state: str, made: Sequence[Sequence[int]] | None = None) -> None:
        """Set the state of an act, and the ranges of decisions that are still to be undone."""
        ended = time.time() if state in (DONE, UNDONE) else None
        tx.run(
            """UPDATE acts SET state = :state, ended_at = :ended, made = COALESCE(:made, made) WHERE id = :id""",
            {"id": act_id, "state": state, "ended": ended, "made": None if made is None else strictjson.dumps(made)},
        )
