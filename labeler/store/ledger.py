"""The ledger: runs, their items, and every call that costs something.

A run has one *item* per record: a row of work with a lease, tries and a time before which it is not tried again.
A *call* is one question to a billed backend, unique by its fingerprint: before it is sent its row says so (and
that is committed), and its answer is committed as soon as it is there. A worker that dies in between leaves a row
that says "sent": after its lease another worker sends it again, counted as a repeat. An answered fingerprint is
never sent again. Every lease carries a token (a fence): whoever lost the lease can no longer write its result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeler import strictjson
from labeler.errors import NotFound
from labeler.store.database import Database, Row, Tx

QUEUED, RUNNING, PAUSED, CANCELLED, FINISHED = "queued", "running", "paused", "cancelled", "finished"
OPEN = (QUEUED, RUNNING)


@dataclass(frozen=True, slots=True)
class Budgets:
    """The most that may be spent, in US dollars: by a run, by its project, by the project in one day (UTC)."""

    run: float | None = None
    project: float | None = None
    day: float | None = None

    def __bool__(self) -> bool:
        return (self.run, self.project, self.day) != (None, None, None)


class Ledger:
    def __init__(self, db: Database) -> None:
        self.db = db

    # Runs

    def create_run(
        self,
        tx: Tx,
        project_id: int,
        task: str,
        settings: dict[str, Any],
        budget: float | None,
        reviewer_id: int | None,
    ) -> int:
        sql = """INSERT INTO runs (project_id, task, state, settings, budget, reviewer_id, created_at)
                 VALUES (:p, :t, 'queued', :settings, :budget, :r, :now) RETURNING id"""
        params = {"p": project_id, "t": task, "settings": strictjson.dumps(settings), "budget": budget}
        return int(tx.value(sql, params | {"r": reviewer_id, "now": time.time()}))

    def add_items(self, tx: Tx, run_id: int, record_ids: Sequence[int]) -> None:
        tx.many(
            "INSERT INTO run_items (run_id, record_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(run_id, id_) for id_ in record_ids],
        )
        tx.run(
            "UPDATE runs SET total = (SELECT COUNT(*) FROM run_items WHERE run_id = :id) WHERE id = :id", {"id": run_id}
        )

    def run(self, run_id: int, tx: Tx | None = None) -> dict[str, Any]:
        row = (tx or self.db).one("SELECT * FROM runs WHERE id = :id", {"id": run_id})
        if row is None:
            raise NotFound(f"There is no run number {run_id}")
        return dict(row) | {"settings": strictjson.loads(row["settings"])}

    def budgets(self, run_id: int, tx: Tx | None = None) -> Budgets:
        """Return the budgets that hold for a run."""
        return self._standing(run_id, tx)[2]

    def halted(self, run_id: int, tx: Tx | None = None) -> str | None:
        """Return why nothing new of a run may be started, or None: asked before every call, in its transaction.

        The reason is a sentence for people where a budget is reached, and the run's state where it was moved.
        """
        state, spent, budgets, project_id = self._standing(run_id, tx)
        if state not in OPEN:
            return state
        if budgets.run is not None and spent >= budgets.run:
            return f"The budget of ${_dollars(budgets.run)} is reached; raise it and resume"
        if budgets.project is not None or budgets.day is not None:
            return self._spent_up(project_id, budgets, tx or self.db)
        return None

    def _standing(self, run_id: int, tx: Tx | None) -> tuple[str, float, Budgets, int]:
        sql = """SELECT r.state, r.budget, r.spent, r.project_id, p.settings FROM runs r
                 JOIN projects p ON p.id = r.project_id WHERE r.id = :id"""
        row = (tx or self.db).one(sql, {"id": run_id})
        if row is None:
            raise NotFound(f"There is no run number {run_id}")
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
            return f"The project's budget of ${most} is reached; raise it in the settings and resume"
        if budgets.day is not None and today >= budgets.day:
            most = _dollars(budgets.day)
            return f"The project's budget of ${most} a day is reached; resume tomorrow (UTC), or raise it"
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

    def unfinished(self, project_id: int, task: str, purpose: str) -> Iterator[dict[str, Any]]:
        """Yield the runs of a task for a purpose that are open or paused, newest first."""
        sql = """SELECT * FROM runs WHERE project_id = :p AND task = :t AND state IN ('queued', 'running', 'paused')
                 ORDER BY id DESC"""
        for row in self.db.all(sql, {"p": project_id, "t": task}):
            settings = strictjson.loads(row["settings"])
            if settings.get("purpose") == purpose:
                yield dict(row) | {"settings": settings}

    def open_runs(self) -> list[int]:
        return [
            row["id"] for row in self.db.all("SELECT id FROM runs WHERE state IN ('queued', 'running') ORDER BY id")
        ]

    def set_run(
        self, tx: Tx, run_id: int, state: str, message: str | None = None, only_from: Sequence[str] = ()
    ) -> bool:
        """Move a run to a state; with ``only_from`` only if it is in one of those. Returns whether it moved."""
        marks = ",".join(f"'{name}'" for name in only_from)
        where = f"AND state IN ({marks})" if only_from else ""
        ended = "ended_at = :now," if state in (CANCELLED, FINISHED) else "ended_at = NULL,"
        started = "started_at = COALESCE(started_at, :now)," if state == RUNNING else ""
        sql = f"UPDATE runs SET {ended} {started} state = :state, message = :message WHERE id = :id {where}"
        params = {"state": state, "message": message, "id": run_id, "now": time.time()}
        return tx.run(sql, {k: v for k, v in params.items() if k != "now" or ":now" in sql}) > 0

    def set_budget(self, tx: Tx, run_id: int, budget: float | None) -> None:
        tx.run("UPDATE runs SET budget = :budget WHERE id = :id", {"budget": budget, "id": run_id})

    def item_counts(self, run_id: int) -> dict[str, int]:
        sql = "SELECT state, COUNT(*) AS n FROM run_items WHERE run_id = :id GROUP BY state"
        return {row["state"]: row["n"] for row in self.db.all(sql, {"id": run_id})}

    def failures(self, run_id: int, limit: int = 20) -> list[Row]:
        """Return failed items by reason, most frequent first: kind, an example message, how many."""
        sql = """SELECT error_kind AS kind, MIN(error) AS message, COUNT(*) AS n FROM run_items
                 WHERE run_id = :id AND error_kind IS NOT NULL AND state IN ('failed', 'done')
                 GROUP BY error_kind ORDER BY n DESC LIMIT :limit"""
        return self.db.all(sql, {"id": run_id, "limit": limit})

    def project_cost(self, project_id: int) -> dict[str, Any]:
        sql = """SELECT COALESCE(SUM(spent), 0) AS spent, COALESCE(SUM(unpriced), 0) AS unpriced,
                 COALESCE(SUM(calls), 0) AS calls, COALESCE(SUM(tokens_in), 0) AS tokens_in,
                 COALESCE(SUM(tokens_out), 0) AS tokens_out FROM runs WHERE project_id = :p"""
        row = self.db.one(sql, {"p": project_id})
        return dict(row) if row else {}

    # Items

    def claim_items(self, tx: Tx, run_id: int, token: str, limit: int, lease: float) -> list[int]:
        """Lease up to ``limit`` items that are due; none once the budget is reached or the run stopped."""
        if self.halted(run_id, tx) is not None:
            return []
        now = time.time()
        # A lease never reaches further ahead than its length: a clock set back cannot hold an item for a day.
        sql = """UPDATE run_items SET state = 'leased', token = :token, lease_until = :until, tries = tries + 1
                 WHERE run_id = :id AND record_id IN (
                   SELECT record_id FROM run_items WHERE run_id = :id AND (
                     (state = 'waiting' AND not_before <= :now)
                     OR (state = 'leased' AND (lease_until < :now OR lease_until > :latest)))
                   ORDER BY record_id LIMIT :limit) RETURNING record_id"""
        params = {"token": token, "until": now + lease, "id": run_id, "now": now, "limit": limit}
        return sorted(row["record_id"] for row in tx.all(sql, params | {"latest": now + 2 * lease}))

    def extend_leases(
        self, tx: Tx, run_id: int, token: str, record_ids: Sequence[int], call_ids: Sequence[int], lease: float
    ) -> None:
        """Keep items and calls that are ours for another ``lease`` seconds: a batch of local weights takes a while."""
        until = time.time() + lease
        tx.many(
            "UPDATE run_items SET lease_until = ? WHERE run_id = ? AND record_id = ? AND token = ?",
            [(until, run_id, id_, token) for id_ in record_ids],
        )
        tx.many(
            "UPDATE calls SET lease_until = ? WHERE id = ? AND token = ? AND state = 'sent'",
            [(until, id_, token) for id_ in call_ids],
        )

    def next_due(self, run_id: int) -> float | None:
        """Return when the next item becomes due (seconds since the epoch), or None if none is left."""
        sql = """SELECT MIN(CASE state WHEN 'waiting' THEN not_before ELSE lease_until END) FROM run_items
                 WHERE run_id = :id AND state IN ('waiting', 'leased')"""
        due: float | None = self.db.value(sql, {"id": run_id})
        return due

    def finish_item(
        self,
        tx: Tx,
        run_id: int,
        record_id: int,
        token: str,
        state: str,
        kind: str | None = None,
        error: str | None = None,
    ) -> bool:
        """End an item as done or failed; False if another worker holds it now (the fence)."""
        sql = """UPDATE run_items SET state = :state, error_kind = :kind, error = :error, token = NULL
                 WHERE run_id = :id AND record_id = :r AND token = :token"""
        params = {"state": state, "kind": kind, "error": error, "id": run_id, "r": record_id, "token": token}
        return tx.run(sql, params) > 0

    def put_back(
        self, tx: Tx, run_id: int, record_id: int, token: str, delay: float, kind: str | None, error: str | None,
        count_try: bool = True,
    ) -> None:  # fmt: skip
        """Let an item wait ``delay`` seconds before its next try."""
        sql = """UPDATE run_items SET state = 'waiting', not_before = :due, error_kind = :kind, error = :error,
                 token = NULL, tries = tries - :back WHERE run_id = :id AND record_id = :r AND token = :token"""
        params = {"due": time.time() + delay, "kind": kind, "error": error, "id": run_id, "r": record_id}
        tx.run(sql, params | {"token": token, "back": 0 if count_try else 1})

    def tries(self, run_id: int, record_id: int, tx: Tx | None = None) -> int:
        sql = "SELECT tries FROM run_items WHERE run_id = :id AND record_id = :r"
        return int((tx or self.db).value(sql, {"id": run_id, "r": record_id}) or 0)

    def count(self, tx: Tx, run_id: int, **increments: float) -> None:
        """Add to a run's counters: done, parse_failures, failed, calls, repeats, reused, tokens, spent, unpriced."""
        assignments = ", ".join(f"{name} = {name} + :{name}" for name in increments)
        tx.run(f"UPDATE runs SET {assignments} WHERE id = :id", {**increments, "id": run_id})

    # Calls

    def begin_call(self, tx: Tx, call: dict[str, Any], token: str, lease: float) -> dict[str, Any] | None:
        """Note that a call is about to be sent, and return its row; None if another worker has it in flight.

        The row's state is "answered" if it need not be sent at all; else it is now ours until the lease ends.
        ``repeat`` in it says that it was sent before and may have been billed: its sender died or got no answer.
        """
        now = time.time()
        params = {**call, "token": token, "until": now + lease, "now": now, "latest": now + 2 * lease}
        # Nearly always it is new, and then one statement is all.
        fresh = tx.one(
            """INSERT INTO calls (fingerprint, project_id, run_id, record_id, task, backend, model_id, state, token,
               lease_until, created_at) VALUES (:fingerprint, :project_id, :run_id, :record_id, :task, :backend,
               :model_id, 'sent', :token, :until, :now) ON CONFLICT (fingerprint) DO NOTHING
               RETURNING id, state, sends""",
            params,
        )
        if fresh is not None:
            return dict(fresh) | {"repeat": False}
        before = tx.one("SELECT * FROM calls WHERE fingerprint = :fingerprint", {"fingerprint": call["fingerprint"]})
        assert before is not None
        if before["state"] == "answered":
            return dict(before) | {"repeat": False}
        sql = """UPDATE calls SET state = 'sent', sends = sends + 1, token = :token, lease_until = :until,
                 run_id = :run_id
                 WHERE fingerprint = :fingerprint AND (state = 'failed' OR (state = 'sent' AND
                   (lease_until < :now OR lease_until > :latest))) RETURNING *"""
        row = tx.one(sql, params)
        if row is None:
            return None
        lost = before["state"] == "sent" or before["error_kind"] in ("timeout", "connection")
        return dict(row) | {"repeat": lost}

    def past_calls(self, task: str, backend: str, model_id: str | None, last: int = 100) -> dict[str, Any]:
        """Return mean ``tokens_out`` and ``seconds`` of the last answered calls of a model in a task, and their ``n``.

        Both are None where there are none.
        """
        model = "model_id IS NULL" if model_id is None else "model_id = :model"
        sql = f"""SELECT COUNT(*) AS n, AVG(tokens_out) AS tokens_out, AVG(answered_at - created_at) AS seconds FROM (
                   SELECT tokens_out, answered_at, created_at FROM calls WHERE task = :t AND backend = :backend
                   AND {model} AND state = 'answered' AND sends = 1
                   ORDER BY id DESC LIMIT :last) AS recent"""
        row = self.db.one(sql, {"t": task, "backend": backend, "model": model_id, "last": last})
        assert row is not None
        return dict(row)

    def past_pace(self, project_id: int, task: str, backend: str, model_id: str | None) -> float | None:
        """Return the seconds a call of the last finished run of a model took, all in all; None if there was none."""
        for run in self.runs(project_id, 50, task):
            same = run["settings"].get("backend") == backend and run["settings"].get("model_id", "") == (model_id or "")
            if same and run["state"] == FINISHED and run["calls"] and run["started_at"] is not None:
                return float(run["ended_at"] - run["started_at"]) / int(run["calls"])
        return None

    def answered(self, fingerprint: str) -> Row | None:
        sql = "SELECT * FROM calls WHERE fingerprint = :f AND state = 'answered'"
        return self.db.one(sql, {"f": fingerprint})

    def answer_call(self, tx: Tx, call_id: int, token: str, answer: dict[str, Any]) -> bool:
        """Store the answer of a call that is ours; an answer that came after the lease is kept all the same, once."""
        scores: Mapping[str, float] | None = answer.get("scores")
        sql = """UPDATE calls SET state = 'answered', answer = :answer, finish = :finish, score = :score,
                 scores = :scores, note = :note, answered_by = :answered_by, tokens_in = :tokens_in,
                 tokens_out = :tokens_out, tokens_cached = :tokens_cached, cost = :cost,
                 error_kind = NULL, error = NULL, answered_at = :now, token = NULL
                 WHERE id = :id AND (token = :token OR state <> 'answered')"""
        stored = {"note": None, "answered_by": None, **answer, "scores": strictjson.dumps(scores) if scores else None}
        return tx.run(sql, {**stored, "id": call_id, "token": token, "now": time.time()}) > 0

    def fail_call(self, tx: Tx, call_id: int, token: str, kind: str, error: str) -> None:
        sql = """UPDATE calls SET state = 'failed', error_kind = :kind, error = :error, token = NULL
                 WHERE id = :id AND token = :token"""
        tx.run(sql, {"kind": kind, "error": error, "id": call_id, "token": token})


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def _dollars(amount: float) -> str:
    # Not as 1e-05: a budget may be a fraction of a cent.
    return f"{amount:.6f}".rstrip("0").rstrip(".")
