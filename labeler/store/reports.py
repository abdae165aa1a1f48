"""What pages report of runs and money: read-only questions over the ledger that nothing else depends on."""

from __future__ import annotations

import time
from dataclasses import dataclass

from labeler.store.database import Database, Row


@dataclass(frozen=True, slots=True)
class Spending:
    """What the runs of a project cost, in US dollars: in all, and on this day (UTC). Unpriced calls count nothing."""

    total: float
    today: float


class Reports:
    def __init__(self, db: Database) -> None:
        self.db = db

    def spending(self, project_id: int) -> Spending:
        """Return what counts against the budgets of a project."""
        sql = """SELECT COALESCE(SUM(spent), 0) AS total,
                 COALESCE(SUM(CASE WHEN day = :day THEN spent ELSE 0 END), 0) AS today
                 FROM spending WHERE project_id = :p"""
        row = self.db.one(sql, {"p": project_id, "day": time.strftime("%Y-%m-%d", time.gmtime())})
        assert row is not None
        return Spending(float(row["total"]), float(row["today"]))

    def notes(self, run_id: int) -> list[Row]:
        """Return how the suggestions of a run were made: ``note`` and ``n``, most frequent first.

        It walks the run's items: a page asks once the run has ended, not every second.
        """
        sql = """SELECT COALESCE(s.note, '') AS note, COUNT(*) AS n
                 FROM run_items i JOIN runs r ON r.id = i.run_id
                 JOIN suggestions s ON s.record_id = i.record_id AND s.task = r.task AND s.run_id = i.run_id
                 WHERE i.run_id = :id GROUP BY 1 ORDER BY n DESC, 1"""
        return self.db.all(sql, {"id": run_id})

    def batches(self, run_id: int) -> list[Row]:
        """Return the batches that a run was sent in, oldest first."""
        sql = """SELECT id, state, remote_id, calls, message, created_at, polled_at, ended_at FROM batches
                 WHERE run_id = :id ORDER BY id"""
        return self.db.all(sql, {"id": run_id})
