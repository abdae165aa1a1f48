"""Fits: what a free backend learned from the approvals of a task, for every process to answer by."""

from __future__ import annotations

import time
from typing import Any

from labeler import strictjson
from labeler.store.database import Database, Tx


class Fits:
    """One row per project, task and embedder: the newest fit, its ``numbers`` as a float32 BLOB."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def current(self, project_id: int, task: str, embedder: str) -> str | None:
        """Return the id of the newest fit; None if there is none."""
        sql = f"SELECT id FROM fits WHERE {_HERE}"
        found: str | None = self.db.value(sql, {"p": project_id, "t": task, "e": embedder})
        return found

    def get(self, project_id: int, task: str, embedder: str) -> dict[str, Any] | None:
        """Return ``id``, ``seq``, ``head`` (a dict) and ``numbers`` of the newest fit."""
        sql = f"SELECT id, seq, head, numbers FROM fits WHERE {_HERE}"
        row = self.db.one(sql, {"p": project_id, "t": task, "e": embedder})
        return None if row is None else dict(row) | {"head": strictjson.loads(row["head"])}

    def save(
        self, tx: Tx, project_id: int, task: str, embedder: str, id_: str, seq: int, head: dict[str, Any],
        numbers: bytes,
    ) -> None:  # fmt: skip
        """Store a fit in place of the one before, unless that has seen more decisions: another worker was faster."""
        sql = """INSERT INTO fits (project_id, task, embedder, id, seq, head, numbers, made_at)
                 VALUES (:p, :t, :e, :id, :seq, :head, :numbers, :now)
                 ON CONFLICT (project_id, task, embedder) DO UPDATE SET id = excluded.id, seq = excluded.seq,
                 head = excluded.head, numbers = excluded.numbers, made_at = excluded.made_at
                 WHERE excluded.seq >= fits.seq"""
        row = {"id": id_, "seq": seq, "head": strictjson.dumps(head), "numbers": numbers, "now": time.time()}
        tx.run(sql, {"p": project_id, "t": task, "e": embedder} | row)


_HERE = "project_id = :p AND task = :t AND embedder = :e"
