"""The runs of the ledger: their states, their budgets and what they spent; see :mod:`labeler.store.ledger`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from labeler import strictjson
from labeler.errors import NotFound
from labeler.sentence import Sentence
from labeler.store.counts import ITEMS, REASONS, Counts
from labeler.store.database import Database, Tx

QUEUED, RUNNING, PAUSED, CANCELLED, FINISHED = "queued", "running", "paused", "cancelled", "finished"
OPEN = (QUEUED, RUNNING)
FILLING = Sentence(
    "Its records are being gathered; if that was interrupted, resume the run with those it has, or cancel it"
)
FILL_LEASE = 60.0
"""After how many seconds without a new record a run that is being filled counts as given up by its maker."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """The most that may be spent, in US dollars: by a run, by its project, by the project in one day (UTC)."""

    run: float | None = None
    project: float | None = None
    day: float | None = None

    def __bool__(self) -> bool:
        return (self.run, self.project, self.day) != (None, None, None)


class Runs:
    def __init__(self, db: Database) -> None:
        self.db = db

    def create_run(
        self,
        tx: Tx,
        project_id: int,
        task: str,
        settings: dict[str, Any],
        budget: float | None,
        reviewer_id: int | None,
        filling: bool = False,
        again: bool = False,
        trial_kind: str | None = None,
    ) -> int:
        """Create a run. With ``filling`` it stands paused until it is queued: nobody moves or ends it before.

        ``again`` says that it asks anew for answers of earlier runs that could not be read. ``trial_kind`` is what
        answers in it, if that is compared with the free answers first, on the trial items.
        """
        sql = """INSERT INTO runs (project_id, task, state, message, settings, budget, reviewer_id, created_at,
                 filling_until, again, trial, trial_kind)
                 VALUES (:p, :t, :state, :message, :settings, :budget, :r, :now, :until, :again,
                 CASE WHEN :kind IS NOT NULL THEN '' END, :kind) RETURNING id"""
        params = {"p": project_id, "t": task, "settings": strictjson.dumps(settings), "budget": budget, "again": again}
        params["kind"] = trial_kind
        now = time.time()
        standing = (PAUSED, FILLING, now + FILL_LEASE) if filling else (QUEUED, None, None)
        params |= dict(zip(("state", "message", "until"), standing, strict=True))
        return int(tx.value(sql, params | {"r": reviewer_id, "now": now}))

    def still_filling(self, tx: Tx, run_id: int) -> bool:
        """Renew the right to fill a run; False once it was cancelled, or resumed with what it had."""
        sql = "UPDATE runs SET filling_until = :until WHERE id = :id AND state = 'paused' AND filling_until IS NOT NULL"
        return tx.run(sql, {"until": time.time() + FILL_LEASE, "id": run_id}) > 0

    def add_items(self, tx: Tx, run_id: int, record_ids: Sequence[int], trial: bool = False) -> None:
        """Add records to a run, each once; those of which the ledger has an answer in this task are marked."""
        tx.many(
            """INSERT INTO run_items (run_id, record_id, answers) VALUES (?, ?, CASE WHEN EXISTS (
                 SELECT 1 FROM calls c WHERE c.record_id = ? AND c.state = 'answered'
                 AND c.task = (SELECT task FROM runs WHERE id = ?)) THEN 2 ELSE 0 END) ON CONFLICT DO NOTHING""",
            [(run_id, id_, id_, run_id) for id_ in record_ids],
        )
        if trial:
            sql = "INSERT INTO trial_items (run_id, record_id) VALUES (?, ?)"
            tx.many(sql, [(run_id, id_) for id_ in record_ids])
        total = sum(Counts(self.db).of(ITEMS, run_id, tx=tx).values())
        tx.run("UPDATE runs SET total = :total WHERE id = :id", {"total": total, "id": run_id})

    def run(self, run_id: int, tx: Tx | None = None) -> dict[str, Any]:
        """Return a run. Raises :class:`NotFound`."""
        row = (tx or self.db).one("SELECT * FROM runs WHERE id = :id", {"id": run_id})
        if row is None:
            raise NotFound("There is no run number %(number)s", number=run_id)
        return dict(row) | {"settings": strictjson.loads(row["settings"])}

    def budgets(self, run_id: int, tx: Tx | None = None) -> Budgets:
        """Return the budgets that hold for a run."""
        return self._standing(run_id, tx)[2]

    def halted(self, run_id: int, tx: Tx | None = None) -> str | None:
        """Return why no call of a run may be sent, or None: asked before every call, in its transaction.

        The reason is a sentence for people where a budget is reached, and the run's state where it was moved.
        """
        state, spent, budgets, project_id = self._standing(run_id, tx)
        return state if state not in OPEN else self._reached(spent, budgets, project_id, tx)

    def _reached(self, spent: float, budgets: Budgets, project_id: int, tx: Tx | None) -> str | None:
        if budgets.run is not None and spent >= budgets.run:
            return Sentence("The budget of %(amount)s is reached; raise it and resume", amount=_dollars(budgets.run))
        if budgets.project is not None or budgets.day is not None:
            return self._spent_up(project_id, budgets, tx or self.db)
        return None

    def _standing(self, run_id: int, tx: Tx | None) -> tuple[str, float, Budgets, int]:
        sql = """SELECT r.state, r.budget, r.spent, r.project_id, p.settings FROM runs r
                 JOIN projects p ON p.id = r.project_id WHERE r.id = :id"""
        row = (tx or self.db).one(sql, {"id": run_id})
        if row is None:
            raise NotFound("There is no run number %(number)s", number=run_id)
        # Parsed only where there is something to find: this is asked before every call.
        settings = strictjson.loads(row["settings"]) if '"budget_' in row["settings"] else {}
        budgets = Budgets(row["budget"], settings.get("budget_project"), settings.get("budget_day"))
        return row["state"], row["spent"], budgets, row["project_id"]

    def spent_up(self, project_id: int) -> str | None:
        """Return that a budget of the project is reached, as a sentence for people; None while there is some left."""
        settings = strictjson.loads(self.db.value("SELECT settings FROM projects WHERE id = :p", {"p": project_id}))
        budgets = Budgets(None, settings.get("budget_project"), settings.get("budget_day"))
        return self._spent_up(project_id, budgets, self.db)

    def _spent_up(self, project_id: int, budgets: Budgets, db: Tx | Database) -> str | None:
        total, today = self._spent(project_id, db)
        if budgets.project is not None and total >= budgets.project:
            most = _dollars(budgets.project)
            return Sentence(
                "The project's budget of %(amount)s is reached; raise it in the settings and resume", amount=most
            )
        if budgets.day is not None and today >= budgets.day:
            most = _dollars(budgets.day)
            return Sentence(
                "The project's budget of %(amount)s a day is reached; resume tomorrow (UTC), or raise it", amount=most
            )
        return None

    def _spent(self, project_id: int, db: Tx | Database) -> tuple[float, float]:
        sql = """SELECT COALESCE(SUM(spent), 0) AS total,
                 COALESCE(SUM(CASE WHEN day = :day THEN spent ELSE 0 END), 0) AS today
                 FROM spending WHERE project_id = :p"""
        row = db.one(sql, {"p": project_id, "day": _today()})
        assert row is not None
        return row["total"], row["today"]

    def left(self, run_id: int) -> float | None:
        """Return how many US dollars a run may still cost, by the smallest of its budgets; None without one."""
        _, spent, budgets, project_id = self._standing(run_id, None)
        total, today = self._spent(project_id, self.db)
        pairs = ((budgets.run, spent), (budgets.project, total), (budgets.day, today))
        left = [budget - used for budget, used in pairs if budget is not None]
        return min(left) if left else None

    def spent(self, project_id: int) -> tuple[float, float]:
        """Return what a project has cost, in US dollars: ever, and today (UTC)."""
        return self._spent(project_id, self.db)

    def spend(self, tx: Tx, project_id: int, amount: float) -> None:
        """Count what was paid against the budgets of the project."""
        tx.run(
            """INSERT INTO spending (project_id, day, spent) VALUES (:p, :day, :amount)
               ON CONFLICT (project_id, day) DO UPDATE SET spent = spending.spent + excluded.spent""",
            {"p": project_id, "day": _today(), "amount": amount},
        )

    def runs(self, project_id: int, limit: int = 20, task: str | None = None) -> list[dict[str, Any]]:
        """Return the newest runs of a project, or of one of its tasks, newest first."""
        where = "AND task = :t" if task is not None else ""
        sql = f"SELECT * FROM runs WHERE project_id = :p {where} ORDER BY id DESC LIMIT :limit"
        rows = self.db.all(sql, {"p": project_id, "limit": limit} | ({"t": task} if task is not None else {}))
        return [dict(row) | {"settings": strictjson.loads(row["settings"])} for row in rows]

    def wait_for_server(self, tx: Tx, run_id: int, message: str) -> None:
        """Pause an open run until its server can be reached again."""
        if self.set_run(tx, run_id, PAUSED, message, OPEN):
            tx.run("UPDATE runs SET away_since = :now WHERE id = :id", {"now": time.time(), "id": run_id})

    def waiting_for_server(self) -> list[int]:
        """Return the runs that go on by themselves once their server can be reached again."""
        rows = self.db.all("SELECT id FROM runs WHERE state = 'paused' AND away_since IS NOT NULL ORDER BY id")
        return [row["id"] for row in rows]

    def go_on(self, tx: Tx, run_id: int) -> bool:
        """Queue a run again whose server is back; False for one that somebody has moved meanwhile."""
        waits = tx.value("SELECT away_since FROM runs WHERE id = :id AND state = 'paused'", {"id": run_id})
        return waits is not None and self.set_run(tx, run_id, QUEUED)

    def unfinished(self, project_id: int, task: str, purpose: str) -> Iterator[dict[str, Any]]:
        """Yield the runs of a task for a purpose that are open or paused, newest first."""
        sql = """SELECT * FROM runs WHERE project_id = :p AND task = :t AND state IN ('queued', 'running', 'paused')
                 ORDER BY id DESC"""
        for row in self.db.all(sql, {"p": project_id, "t": task}):
            settings = strictjson.loads(row["settings"])
            if settings.get("purpose") == purpose:
                yield dict(row) | {"settings": settings}

    def open_of(self, project_id: int, tx: Tx, task: str | None = None) -> list[int]:
        """Return the open runs of a project, or of one of its tasks."""
        sql = """SELECT id FROM runs WHERE project_id = :p AND state IN ('queued', 'running')
                 AND (:t IS NULL OR task = :t)"""
        return [row["id"] for row in tx.all(sql, {"p": project_id, "t": task})]

    def open_runs(self) -> list[int]:
        return [
            row["id"] for row in self.db.all("SELECT id FROM runs WHERE state IN ('queued', 'running') ORDER BY id")
        ]

    def set_run(
        self, tx: Tx, run_id: int, state: str, message: str | None = None, only_from: Sequence[str] = ()
    ) -> bool:
        """Move a run to a state; with ``only_from`` only if it is in one of those. Returns whether it moved.

        ``seconds`` of the run grows by the time that it was running, which ``moving_since`` begins.
        """
        marks = ",".join(f"'{name}'" for name in only_from)
        where = f"AND state IN ({marks})" if only_from else ""
        ended = ":now" if state in (CANCELLED, FINISHED) else "NULL"
        started, moving = ("COALESCE(started_at, :now)", ":now") if state == RUNNING else ("started_at", "NULL")
        sql = f"""UPDATE runs SET ended_at = {ended}, started_at = {started}, filling_until = NULL,
                  away_since = NULL,
                  seconds = seconds + CASE WHEN moving_since < :now THEN :now - moving_since ELSE 0 END,
                  moving_since = {moving}, state = :state, message = :message WHERE id = :id {where}"""
        return tx.run(sql, {"state": state, "message": message, "id": run_id, "now": time.time()}) > 0

    def say(self, tx: Tx, run_id: int, message: str | None) -> None:
        """Say on a running run what it waits for."""
        sql = "UPDATE runs SET message = :message WHERE id = :id AND state = 'running'"
        tx.run(sql, {"message": message, "id": run_id})

    def settle(self, tx: Tx, run_id: int, billed: bool) -> str:
        """Finish a run of which nothing is left, pause one that its budgets stop; return its state.

        All in one transaction: an item that another process puts back, or a cancel, comes before it or after it.
        """
        row = tx.one("SELECT state, filling_until FROM runs WHERE id = :id", {"id": run_id})
        state = str(row["state"]) if row is not None else FINISHED
        if row is None or row["filling_until"] is not None or state not in (*OPEN, PAUSED):
            return state
        sql = "SELECT 1 FROM run_items WHERE run_id = :id AND state = :state LIMIT 1"
        waiting, leased, batched = (
            tx.value(sql, {"id": run_id, "state": name}) is not None for name in ("waiting", "leased", "batched")
        )
        if not (waiting or leased or batched):
            self.set_run(tx, run_id, FINISHED)
            return FINISHED
        reason = self.halted(run_id, tx) if billed and state in OPEN and not batched else None
        if reason is not None:
            self.set_run(tx, run_id, PAUSED, reason)
            return PAUSED
        return state

    def set_budget(self, tx: Tx, run_id: int, budget: float | None) -> None:
        tx.run("UPDATE runs SET budget = :budget WHERE id = :id", {"budget": budget, "id": run_id})

    def item_counts(self, run_id: int) -> dict[str, int]:
        return Counts(self.db).of(ITEMS, run_id)

    def failures(self, run_id: int, limit: int = 20) -> list[dict[str, Any]]:
        """Return failed items by reason, most frequent first: kind, the message of the first record, how many."""
        sql = """SELECT error FROM run_items WHERE run_id = :id AND error_kind = :kind AND state IN ('failed', 'done')
                 ORDER BY record_id LIMIT 1"""
        counts = Counts(self.db).of(REASONS, run_id)
        return [
            {"kind": kind, "message": self.db.value(sql, {"id": run_id, "kind": kind}), "n": counts[kind]}
            for kind in sorted(counts, key=lambda kind: (-counts[kind], kind))[:limit]
        ]

    def project_cost(self, project_id: int) -> dict[str, Any]:
        sql = """SELECT COALESCE(SUM(spent), 0) AS spent, COALESCE(SUM(unpriced), 0) AS unpriced,
                 COALESCE(SUM(calls), 0) AS calls, COALESCE(SUM(tokens_in), 0) AS tokens_in,
                 COALESCE(SUM(tokens_out), 0) AS tokens_out FROM runs WHERE project_id = :p"""
        row = self.db.one(sql, {"p": project_id})
        return dict(row) if row else {}


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def _dollars(amount: float) -> str:
    # Not as 1e-05: a budget may be a fraction of a cent.
    return "$" + f"{amount:.6f}".rstrip("0").rstrip(".")
