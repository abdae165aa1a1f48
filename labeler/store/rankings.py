"""Rankings: in which order a person put the answers of several models to one record. Kept for good, like decisions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from labeler import strictjson
from labeler.store.database import Database, Row, Tx
from labeler.store.records import kind_of

Tiers = list[list[str]]
"""Answers from best to worst; those of one tier are equally good. See :class:`labeler.annotation.comparing.Answer`."""


class Rankings:
    def __init__(self, db: Database) -> None:
        self.db = db

    def add(self, tx: Tx, row: dict[str, Any]) -> int:
        """Append a ranking and return its number; ``ranked`` are its :data:`Tiers`."""
        sql = """INSERT INTO rankings (project_id, record_id, task, task_version, reviewer_id, ranked, none_good,
                 seconds, request_key, created_at)
                 VALUES (:project_id, :record_id, :task, :task_version, :reviewer_id, :ranked, :none_good, :seconds,
                 :request_key, :now) RETURNING id"""
        return int(tx.value(sql, {**row, "ranked": strictjson.dumps(row["ranked"]), "now": time.time()}))

    def by_request(self, tx: Tx, request_key: str) -> Row | None:
        return tx.one("SELECT * FROM rankings WHERE request_key = :k", {"k": request_key})

    def last_of(self, project_id: int, task: str, reviewer_id: int, tx: Tx | None = None) -> Row | None:
        """Return the newest ranking of a person that was not taken back."""
        sql = """SELECT * FROM rankings WHERE reviewer_id = :who AND project_id = :p AND task = :t
                 AND withdrawn_at IS NULL ORDER BY id DESC LIMIT 1"""
        return (tx or self.db).one(sql, {"who": reviewer_id, "p": project_id, "t": task})

    def withdraw(self, tx: Tx, ranking_id: int) -> None:
        tx.run("UPDATE rankings SET withdrawn_at = :now WHERE id = :id", {"now": time.time(), "id": ranking_id})

    def count(self, project_id: int, task: str, reviewer_id: int) -> int:
        """Return how many records of a task a person has ranked."""
        sql = """SELECT COUNT(DISTINCT record_id) FROM rankings
                 WHERE reviewer_id = :who AND project_id = :p AND task = :t AND withdrawn_at IS NULL"""
        return int(self.db.value(sql, {"who": reviewer_id, "p": project_id, "t": task}))

    def unranked(self, project_id: int, task: str, unit: str, reviewer_id: int, after: int, size: int) -> list[Row]:
        """Return records after a number that may have several answers and that a person has not ranked, with ``state``.

        Rejected ones have no good answer to look for.
        """
        sql = """SELECT w.record_id, w.state FROM comparable c
                 JOIN work w ON w.record_id = c.record_id AND w.task = c.task
                 JOIN records r ON r.id = c.record_id
                 WHERE c.project_id = :p AND c.task = :t AND c.record_id > :after AND w.state <> 'rejected'
                 AND r.kind = :kind
                 AND NOT EXISTS (SELECT 1 FROM rankings k WHERE k.record_id = c.record_id AND k.task = c.task
                                 AND k.reviewer_id = :who AND k.withdrawn_at IS NULL)
                 ORDER BY c.record_id LIMIT :size"""
        params = {"p": project_id, "t": task, "after": after, "kind": kind_of(unit), "who": reviewer_id, "size": size}
        return self.db.all(sql, params)

    def pages(self, project_id: int, task: str, size: int = 1000, unit: str | None = None) -> Iterator[list[Row]]:
        """Yield the newest ranking of each person for each record, with the record as approvals have it, in pages.

        ``id`` is the number of the ranking with a minus sign, so that it is none of an annotation. ``state`` is that of
        the record in the queue, and ``value`` None: nobody has approved an answer here.
        """
        sql = f"""SELECT {_WITH_RECORD}
                  WHERE k.project_id = :p AND k.task = :t AND k.withdrawn_at IS NULL
                  AND NOT EXISTS (SELECT 1 FROM rankings n WHERE n.record_id = k.record_id AND n.task = k.task
                                  AND n.reviewer_id IS k.reviewer_id AND n.withdrawn_at IS NULL AND n.id > k.id)
                  AND (:kind IS NULL OR r.kind = :kind) AND k.id > -:after ORDER BY k.id LIMIT :size"""
        kind = None if unit is None else kind_of(unit)
        yield from self.db.pages(sql, {"p": project_id, "t": task, "kind": kind}, size)

    def exported_pages(self, export_id: int, size: int = 1000) -> Iterator[list[Row]]:
        """Yield the rankings that an export holds as :meth:`pages` did, whatever came of them since."""
        sql = f"""SELECT {_WITH_RECORD} JOIN export_rankings e ON e.ranking_id = k.id
                  WHERE e.export_id = :e AND k.id > -:after ORDER BY k.id LIMIT :size"""
        yield from self.db.pages(sql, {"e": export_id}, size)


_WITH_RECORD = """-k.id AS id, NULL AS value, 'ranking' AS how, 0 AS blind, k.task_version, k.created_at,
    NULL AS origin, NULL AS suggestion_id, NULL AS agreement, NULL AS score, k.ranked, k.none_good, w.state,
    r.id AS record_id, r.key, r.text, r.content_hash, r.grp, r.cluster, r.metadata, r.parts, r.language,
    p.name AS reviewer, v.record_id IS NOT NULL AS written, '[]' AS people, NULL AS people_agreement
    FROM rankings k JOIN records r ON r.id = k.record_id
    LEFT JOIN work w ON w.record_id = k.record_id AND w.task = k.task
    LEFT JOIN reviewers p ON p.id = k.reviewer_id LEFT JOIN written v ON v.record_id = k.record_id"""
