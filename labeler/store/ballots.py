"""Ballots: what each of several people says of one record, before it is settled. Kept for good, like decisions.

A ballot counts while ``ended_at`` is empty: a newer one of the same person, an undo, another text or labels that went
end it. Open ones wait for others; ``settled_id`` is the annotation that settled the record.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from labeler import strictjson
from labeler.store.database import Database, Row, Tx
from labeler.store.records import unused

OPEN = "ended_at IS NULL AND settled_id IS NULL"
SAID = "b.settled_id = COALESCE(a.original_id, a.id) AND b.ended_at IS NULL AND b.gold = 0"
"""Whether a ballot ``b`` was settled by a decision ``a``."""
NAMES = f"""(SELECT GROUP_CONCAT(z.name, ', ') FROM ballots b JOIN reviewers z ON z.id = b.reviewer_id WHERE {SAID})"""
"""Who decided together on what the decision ``a`` settled; None where it was one person."""
_NOW = """LEFT JOIN annotations a ON a.id = b.settled_id"""
# Nobody has voted or decided on the record since.
_LAST = """(b.settled_id IS NULL OR b.gold = 1 OR (a.superseded_by IS NULL AND a.reviewer_id IS NULL AND NOT EXISTS (
             SELECT 1 FROM ballots n WHERE n.settled_id = b.settled_id AND n.gold = 0 AND n.id > b.id)))"""


class Ballots:
    def __init__(self, db: Database) -> None:
        self.db = db

    def add(self, tx: Tx, row: dict[str, Any]) -> int:
        """Append a ballot in the place of the person's open one and return its number."""
        before = self.own(row["record_id"], row["task"], row["reviewer_id"], tx)
        if before is not None:
            self.end(tx, [before["id"]])
        sql = f"""INSERT INTO ballots (id, project_id, record_id, task, task_version, state, value, how, blind,
                 reviewer_id, seconds, suggestion_id, agreement, request_key, served, gold, settled_id, after_id,
                 created_at)
                 VALUES ({unused("ballots")}, :project_id, :record_id, :task, :task_version, :state, :value, :how,
                 :blind, :reviewer_id, :seconds, :suggestion_id, :agreement, :request_key, :served, :gold,
                 :settled_id,
                 COALESCE((SELECT MAX(id) FROM annotations), 0), :now) RETURNING id"""
        value = None if row["value"] is None else strictjson.dumps(row["value"])
        more = {"gold": 0, "settled_id": None} | row
        return int(tx.value(sql, more | {"value": value, "now": time.time()}))

    def by_request(self, tx: Tx, request_key: str) -> Row | None:
        """Return the ballot that came with a request, or that its undo ended."""
        return tx.one("SELECT * FROM ballots WHERE request_key = :k OR ended_by = :k", {"k": request_key})

    def open_of(self, record_id: int, task: str, tx: Tx | None = None) -> list[Row]:
        """Return the open ballots on a record with their people's names, oldest first."""
        sql = f"""SELECT b.*, r.name AS reviewer FROM ballots b JOIN reviewers r ON r.id = b.reviewer_id
                  WHERE b.record_id = :r AND b.task = :t AND {OPEN} ORDER BY b.id"""
        return (tx or self.db).all(sql, {"r": record_id, "t": task})

    def settled_by(self, annotation_id: int, tx: Tx | None = None) -> list[Row]:
        """Return the ballots that a decision settled, oldest first; one that an undo brought back by its original."""
        sql = """SELECT b.*, r.name AS reviewer FROM ballots b JOIN reviewers r ON r.id = b.reviewer_id
                 WHERE b.settled_id = :id AND b.ended_at IS NULL AND b.gold = 0 ORDER BY b.id"""
        return (tx or self.db).all(sql, {"id": annotation_id})

    def voted(self, tx: Tx, task: str, record_ids: Sequence[int]) -> set[int]:
        """Return those of some records that have open ballots."""
        sql = f"""SELECT DISTINCT record_id FROM ballots WHERE task = :t AND {OPEN}
                  AND record_id IN (SELECT value FROM json_each(:ids))"""
        rows = tx.all(sql, {"t": task, "ids": strictjson.dumps(list(record_ids))})
        return {row["record_id"] for row in rows}

    def own(self, record_id: int, task: str, reviewer_id: int, tx: Tx | None = None) -> Row | None:
        """Return a person's open ballot on a record."""
        sql = f"SELECT * FROM ballots WHERE record_id = :r AND task = :t AND reviewer_id = :who AND {OPEN}"
        return (tx or self.db).one(sql, {"r": record_id, "t": task, "who": reviewer_id})

    def count_own(self, project_id: int, task: str, reviewer_id: int) -> int:
        """Return on how many records of a task a person waits for others."""
        sql = f"""SELECT COUNT(*) FROM ballots b JOIN work w ON w.record_id = b.record_id AND w.task = b.task
                  WHERE b.reviewer_id = :who AND b.project_id = :p AND b.task = :t AND w.state = 'pending' AND {OPEN}"""
        return int(self.db.value(sql, {"who": reviewer_id, "p": project_id, "t": task}))

    def count_waiting(self, project_id: int, task: str) -> int:
        """Return how many records of a task somebody has voted on that wait for others."""
        sql = f"""SELECT COUNT(DISTINCT b.record_id) FROM ballots b
                  JOIN work w ON w.record_id = b.record_id AND w.task = b.task
                  WHERE b.project_id = :p AND b.task = :t AND w.state = 'pending' AND {OPEN}"""
        return int(self.db.value(sql, {"p": project_id, "t": task}))

    def last_of(
        self, project_id: int, task: str, reviewer_id: int, limit: int, tx: Tx | None = None, only_last: bool = False
    ) -> list[Row]:
        """Return a person's last ballots that count, newest first, with the record's text.

        With ``only_last`` those alone that can be taken back: nobody has voted or decided on the record since.
        """
        sql = f"""SELECT b.*, r.text, r.key FROM ballots b JOIN records r ON r.id = b.record_id {_NOW}
                  WHERE b.reviewer_id = :who AND b.project_id = :p AND b.task = :t AND b.ended_at IS NULL
                  {f"AND {_LAST}" if only_last else ""} ORDER BY b.id DESC LIMIT :limit"""
        params = {"who": reviewer_id, "p": project_id, "t": task, "limit": limit}
        return (tx or self.db).all(sql, params)

    def newest(self, project_id: int, task: str, most: int) -> list[Row]:
        """Return ``record_id``, ``reviewer_id``, ``state``, ``value``, ``task_version`` and ``gold`` of the newest.

        ``now`` and ``now_version`` are of the label that was approved for their record, None where there is none.
        """
        sql = """SELECT b.record_id, b.reviewer_id, b.state, b.value, b.task_version, b.gold, a.value AS now,
                 a.task_version AS now_version FROM (
                   SELECT * FROM ballots WHERE project_id = :p AND task = :t AND ended_at IS NULL
                   ORDER BY id DESC LIMIT :most) AS b
                 JOIN work w ON w.record_id = b.record_id AND w.task = b.task
                 LEFT JOIN annotations a ON a.id = w.annotation_id AND a.state = 'approved' ORDER BY b.id DESC"""
        return self.db.all(sql, {"p": project_id, "t": task, "most": most})

    def settle(self, tx: Tx, record_id: int, task: str, annotation_id: int) -> None:
        """Let a decision settle the open ballots on a record."""
        sql = f"UPDATE ballots SET settled_id = :a WHERE record_id = :r AND task = :t AND {OPEN}"
        tx.run(sql, {"a": annotation_id, "r": record_id, "t": task})

    def reopen(self, tx: Tx, annotation_id: int) -> int:
        """Let the ballots that a decision settled wait again; return how many there are."""
        sql = "UPDATE ballots SET settled_id = NULL WHERE settled_id = :a AND ended_at IS NULL AND gold = 0"
        return tx.run(sql, {"a": annotation_id})

    def end(self, tx: Tx, ids: Sequence[int], by: str | None = None) -> None:
        """Let ballots count no more; ``by`` is the key of the request that asked for it."""
        among = "SELECT value FROM json_each(:ids)"
        params = {"now": time.time(), "by": by, "ids": strictjson.dumps(list(ids))}
        sql = "UPDATE ballots SET ended_at = :now, ended_by = :by WHERE ended_at IS NULL"
        tx.run(f"{sql} AND id IN ({among})", params)
        # A product kept the text that people spoke of; reviews that came since are taken in now.
        tx.run(
            f"""INSERT INTO stale_products (project_id, grp) SELECT r.project_id, r.grp FROM ballots b
                JOIN records r ON r.id = b.record_id AND r.kind = 'group' WHERE b.id IN ({among})
                ON CONFLICT DO NOTHING""",
            params,
        )

    def waiting(self, project_id: int, task: str, tx: Tx | None = None) -> list[Row]:
        """Return ``id``, ``value`` and ``task_version`` of the open approvals of a task."""
        sql = f"""SELECT id, value, task_version FROM ballots
                  WHERE project_id = :p AND task = :t AND value IS NOT NULL AND {OPEN}"""
        return (tx or self.db).all(sql, {"p": project_id, "t": task})

    def counted(self, project_id: int, task: str, tx: Tx | None = None) -> list[Row]:
        """Return ``record_id``, ``n`` and the queue's ``state`` of the records with open ballots, or that are
        disputed, in their order."""
        sql = f"""SELECT record_id, SUM(n) AS n, MAX(state) AS state FROM (
                    SELECT b.record_id, 1 AS n, w.state FROM ballots b
                    JOIN work w ON w.record_id = b.record_id AND w.task = b.task
                    WHERE b.project_id = :p AND b.task = :t AND {OPEN}
                    UNION ALL SELECT record_id, 0, state FROM work
                    WHERE project_id = :p AND task = :t AND state = 'disputed')
                  GROUP BY record_id ORDER BY record_id"""
        return (tx or self.db).all(sql, {"p": project_id, "t": task})
