"""What the numbers of a task are made from: counts that are kept, and of values the newest so many."""

from __future__ import annotations

from labeler.store.counts import DAYS
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

    def approved(self, project_id: int, task: str, most: int) -> list[Row]:
        """Return ``value``, ``task_version`` and ``n`` of the labels of the ``most`` newest records approved."""
        return self._values("approved", "JOIN annotations v ON v.id = w.annotation_id", project_id, task, most)

    def suggested(self, project_id: int, task: str, most: int) -> list[Row]:
        """Return ``value``, ``task_version`` and ``n`` of what the ``most`` newest pending records are suggested.

        ``value`` is None for those that have no suggestion, or one that could not be read.
        """
        return self._values("pending", "LEFT JOIN suggestions v ON v.id = w.suggestion_id", project_id, task, most)

    def _values(self, state: str, joined: str, project_id: int, task: str, most: int) -> list[Row]:
        sql = f"""SELECT v.value, v.task_version, COUNT(*) AS n FROM (
                    SELECT suggestion_id, annotation_id FROM work
                    WHERE project_id = :p AND task = :t AND state = :state ORDER BY record_id DESC LIMIT :most
                  ) AS w {joined} GROUP BY v.value, v.task_version"""
        return self.db.all(sql, {"p": project_id, "t": task, "state": state, "most": most})

    def first_decisions(self, project_id: int, task: str, most: int) -> list[Row]:
        """Return those of the ``most`` newest decisions that tell how good suggestions are, newest first.

        Those that :meth:`labeler.store.annotations.Annotations.agreement` counts, of all versions of the task; each
        with ``value``, ``suggested``, ``task_version``, ``blind``, ``agreement`` and ``created_at``.
        """
        sql = """SELECT a.value, s.value AS suggested, a.task_version, a.blind, a.agreement, a.created_at FROM (
                   SELECT * FROM annotations WHERE project_id = :p AND task = :t AND agreement IS NOT NULL
                   AND supersedes IS NULL AND origin IS NULL ORDER BY id DESC LIMIT :most
                 ) AS a JOIN suggestions s ON s.id = a.suggestion_id LEFT JOIN annotations u ON u.id = a.superseded_by
                 WHERE a.state = 'approved' AND s.task_version = a.task_version AND COALESCE(u.origin, '') <> 'undo'
                 AND a.served NOT IN ('score', 'disagreement', 'similar') ORDER BY a.id DESC"""
        return self.db.all(sql, {"p": project_id, "t": task, "most": most})

    def spent(self, project_id: int, task: str) -> tuple[float, int]:
        """Return US dollars that the runs of a task cost, and how many of their calls have no known price."""
        sql = """SELECT COALESCE(SUM(spent), 0) AS spent, COALESCE(SUM(unpriced), 0) AS unpriced FROM runs
                 WHERE project_id = :p AND task = :t"""
        row = self.db.all(sql, {"p": project_id, "t": task})[0]
        return float(row["spent"]), int(row["unpriced"])
