"""What the numbers of a task are made from: counts that are kept, and of values the newest so many."""

from __future__ import annotations

from typing import Any

from labeler import strictjson
from labeler.store.counts import AGREEMENT, DAYS, Counts
from labeler.store.database import Database, Row


class Numbers:
    def __init__(self, db: Database) -> None:
        self.db = db

    def days(self, project_id: int, task: str, first: str) -> list[tuple[str, str, int]]:
        """Return (day, how, n) of the decisions in force from a day on (UTC, as in 2026-11-30)."""
        sql = """SELECT name, n FROM counts WHERE what = :what AND id = :p AND task = :t AND name >= :first AND n > 0
                 ORDER BY name"""
        rows = self.db.all(sql, {"what": DAYS, "p": project_id, "t": task, "first": first})
        return [(*row["name"].split(" ", 1), row["n"]) for row in rows]

    def sides(self, project_id: int, task: str) -> list[dict[str, Any]]:
        """Return ``backend``, ``model_id``, ``blind``, ``n`` and ``total`` of all first decisions on suggestions.

        One row for each of the first three: ``n`` decisions, whose agreements have the sum ``total``, of all versions.
        """
        found: dict[tuple[str, str | None, bool], dict[str, Any]] = {}
        for row in Counts(self.db).totals(AGREEMENT, project_id, task):
            _, backend, model_id, blind = strictjson.loads(row["name"])
            side = {"backend": backend, "model_id": model_id, "blind": bool(blind), "n": 0, "total": 0.0}
            one = found.setdefault((backend, model_id, bool(blind)), side)
            one["n"] += row["n"]
            one["total"] += row["total"]
        return list(found.values())

    def approved(self, project_id: int, task: str, most: int) -> list[Row]:
        """Return ``value``, ``task_version`` and ``n`` of the labels of the ``most`` newest records approved.

        And of these, how many were approved as suggested though a second opinion differs (``doubted``), and how many
        blind and otherwise than suggested (``blind``).
        """
        sql = """SELECT a.value, a.task_version, COUNT(*) AS n,
                 SUM(a.how = 'accepted' AND COALESCE(w.disagreement, 0) > 0) AS doubted,
                 SUM(a.blind = 1 AND COALESCE(a.agreement, 1) < 1) AS blind FROM (
                   SELECT annotation_id, disagreement FROM work WHERE project_id = :p AND task = :t
                   AND state = 'approved' ORDER BY record_id DESC LIMIT :most
                 ) AS w JOIN annotations a ON a.id = w.annotation_id GROUP BY a.value, a.task_version"""
        return self.db.all(sql, {"p": project_id, "t": task, "most": most})

    def suggested(self, project_id: int, task: str, most: int) -> list[Row]:
        """Return ``value``, ``task_version`` and ``n`` of what the ``most`` newest pending records are suggested.

        ``value`` is None for those that have no suggestion, or one that could not be read.
        """
        sql = """SELECT s.value, s.task_version, COUNT(*) AS n FROM (
                   SELECT suggestion_id FROM work WHERE project_id = :p AND task = :t AND state = 'pending'
                   ORDER BY record_id DESC LIMIT :most
                 ) AS w LEFT JOIN suggestions s ON s.id = w.suggestion_id GROUP BY s.value, s.task_version"""
        return self.db.all(sql, {"p": project_id, "t": task, "most": most})

    def first_decisions(self, project_id: int, task: str, most: int) -> list[Row]:
        """Return those of the ``most`` newest decisions that tell how good suggestions are, in no order.

        Those that :meth:`labeler.store.annotations.Annotations.agreement` counts, of all versions of the task; each
        with ``value``, ``suggested``, ``task_version``, ``blind``, ``agreement``, ``created_at``, ``reviewer_id``, and
        ``score``, ``backend`` and ``model_id`` of the suggestion.
        """
        sql = """SELECT a.value, s.value AS suggested, a.task_version, a.blind, a.agreement, a.created_at,
                 a.reviewer_id, s.score, s.backend, s.model_id FROM (
                   SELECT id, value, task_version, blind, agreement, created_at, reviewer_id, suggestion_id,
                   superseded_by, state, served FROM annotations
                   WHERE project_id = :p AND task = :t AND agreement IS NOT NULL AND supersedes IS NULL
                   AND origin IS NULL ORDER BY id DESC LIMIT :most
                 ) AS a JOIN suggestions s ON s.id = a.suggestion_id LEFT JOIN annotations u ON u.id = a.superseded_by
                 WHERE a.state = 'approved' AND s.task_version = a.task_version AND COALESCE(u.origin, '') <> 'undo'
                 AND a.served NOT IN ('score', 'disagreement', 'similar')"""
        return self.db.all(sql, {"p": project_id, "t": task, "most": most})

    def decisions_of(self, project_id: int, task: str, reviewer_id: int, most: int) -> list[Row]:
        """Return ``state``, ``how`` and ``seconds`` of the ``most`` newest decisions in force that a person made."""
        sql = """SELECT state, how, seconds FROM annotations WHERE reviewer_id = :who AND project_id = :p AND task = :t
                 AND superseded_by IS NULL AND state <> 'withdrawn' AND how <> 'imported' AND how <> 'bulk'
                 ORDER BY COALESCE(original_id, id) DESC LIMIT :most"""
        return self.db.all(sql, {"who": reviewer_id, "p": project_id, "t": task, "most": most})

    def doubted(self, project_id: int, task: str, most: int) -> int:
        """Return how many pending records have a second opinion that differs, counted up to ``most``."""
        sql = """SELECT COUNT(*) FROM (SELECT 1 FROM work WHERE project_id = :p AND task = :t AND state = 'pending'
                 AND disagreement > 0 LIMIT :most) AS w"""
        return int(self.db.value(sql, {"p": project_id, "t": task, "most": most}))

    def alike(self, project_id: int, task: str, most: int) -> list[Row]:
        """Return ``cluster``, ``key``, ``value`` and ``task_version`` of approved records that are alike.

        They are in the clusters of the ``most`` newest near-duplicates, the newest cluster first.
        """
        sql = """WITH near AS MATERIALIZED (
                   SELECT cluster, id FROM records WHERE project_id = :p AND cluster <> id
                   ORDER BY cluster DESC LIMIT :most)
                 SELECT m.cluster, r.key, a.value, a.task_version
                 FROM (SELECT cluster, id FROM near UNION SELECT cluster, cluster FROM near) AS m
                 JOIN work w ON w.record_id = m.id AND w.task = :t AND w.state = 'approved'
                 JOIN annotations a ON a.id = w.annotation_id JOIN records r ON r.id = m.id
                 ORDER BY m.cluster DESC, m.id"""
        return self.db.all(sql, {"p": project_id, "t": task, "most": most})

    def spent(self, project_id: int, task: str) -> tuple[float, int]:
        """Return US dollars that the runs of a task cost, and how many of their calls have no known price."""
        sql = """SELECT COALESCE(SUM(spent), 0) AS spent, COALESCE(SUM(unpriced), 0) AS unpriced FROM runs
                 WHERE project_id = :p AND task = :t"""
        row = self.db.all(sql, {"p": project_id, "t": task})[0]
        return float(row["spent"]), int(row["unpriced"])
