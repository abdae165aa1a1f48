"""Drafts: what a person has changed on a record and not decided yet, so that another browser goes on with it.

A draft belongs to the version of the queue's row that it was made on. The database forgets it when that version is
over, by whatever decision or undo: see the migration that made it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from labeler import strictjson
from labeler.store.database import Database, Row, Tx


class Drafts:
    def __init__(self, db: Database) -> None:
        self.db = db

    def keep(
        self, tx: Tx, reviewer_id: int, record_id: int, task: str, version: int, task_version: str, value: Any
    ) -> None:
        """Keep a person's draft of a record, in the place of an earlier one."""
        sql = """INSERT INTO drafts (record_id, task, reviewer_id, version, task_version, value, at)
                 VALUES (:r, :t, :who, :version, :task_version, :value, :now)
                 ON CONFLICT (record_id, task, reviewer_id) DO UPDATE SET version = excluded.version,
                 task_version = excluded.task_version, value = excluded.value, at = excluded.at"""
        params = {"r": record_id, "t": task, "who": reviewer_id, "version": version, "task_version": task_version}
        tx.run(sql, params | {"value": strictjson.dumps(value), "now": time.time()})

    def forget(self, tx: Tx, reviewer_id: int, record_id: int, task: str) -> None:
        """Forget a person's draft of a record: they have said what they had to say, and its version goes on."""
        sql = "DELETE FROM drafts WHERE record_id = :r AND task = :t AND reviewer_id = :who"
        tx.run(sql, {"r": record_id, "t": task, "who": reviewer_id})

    def of(self, reviewer_id: int, task: str, record_ids: Sequence[int]) -> dict[int, Row]:
        """Return a person's drafts by record: ``version``, ``task_version``, and ``value`` as JSON."""
        sql = """SELECT record_id, version, task_version, value FROM drafts
                 WHERE record_id IN (SELECT value FROM json_each(:ids)) AND task = :t AND reviewer_id = :who"""
        rows = self.db.all(sql, {"ids": strictjson.dumps(list(record_ids)), "t": task, "who": reviewer_id})
        return {row["record_id"]: row for row in rows}
