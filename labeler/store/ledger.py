"""The ledger: runs, their items, and every call that costs something.

A run has one *item* per record: a row of work with a lease, tries and a time before which it is not tried again.
A *call* is one question to a billed backend, unique by its fingerprint: before it is sent its row says so (and
that is committed), and its answer is committed as soon as it is there. A worker that dies in between leaves a row
that says "sent": after its lease another worker sends it again, counted as a repeat. An answered fingerprint is
never sent again, unless a run was told to ask again and the answer could not be read: then the row of that answer
steps aside, with what it cost, and a new one takes its fingerprint. Every lease carries a token (a fence): whoever
lost the lease can no longer write its result.

What is paid is always finished: an item says in ``answers`` whether the ledger may have an answer for it that no flow
has looked at yet, and such an item may be claimed whatever the budget says and whatever state its run is in.
What a run spent is the sum of the costs of the calls with its number.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeler import strictjson
from labeler.errors import NotFound
from labeler.store.database import Database, Row, Tx

QUEUED, RUNNING, PAUSED, CANCELLED, FINISHED = "queued", "running", "paused", "cancelled", "finished"
OPEN = (QUEUED, RUNNING)
ERASED = "erased"
"""The state of a call whose record was removed: its text is gone, its cost stays."""
DECIDED = "decided"
"""The kind of an item that ended without a suggestion, because people decided on its record first."""
FILLING = "Its records are being gathered; if that was interrupted, resume the run with those it has, or cancel it"
FILL_LEASE = 60.0
"""After how many seconds without a new record a run that is being filled counts as given up by its maker."""
# What ``answers`` of an item says: no answer, one that this run paid for, or perhaps one that another run paid for.
_OWN, _KNOWN = 1, 2
# No item waits longer than this: one that seems to was put back by a clock that went ahead.
_LONGEST_WAIT = 7200.0
_MOST_DECIDED = 2000
# A call that failed so may have been billed.
LOST = ("timeout", "connection")


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
        filling: bool = False,
        again: bool = False,
    ) -> int:
        """Create a run. With ``filling`` it stands paused until it is queued: nobody moves or ends it before.

        ``again`` says that it asks anew for answers of earlier runs that could not be read.
        """
        sql = """INSERT INTO runs (project_id, task, state, message, settings, budget, reviewer_id, created_at,
                 filling_until, again)
                 VALUES (:p, :t, :state, :message, :settings, :budget, :r, :now, :until, :again) RETURNING id"""
        params = {"p": project_id, "t": task, "settings": strictjson.dumps(settings), "budget": budget, "again": again}
        now = time.time()
        standing = (PAUSED, FILLING, now + FILL_LEASE) if filling else (QUEUED, None, None)
        params |= dict(zip(("state", "message", "until"), standing, strict=True))
        return int(tx.value(sql, params | {"r": reviewer_id, "now": now}))

    def still_filling(self, tx: Tx, run_id: int) -> bool:
        """Renew the right to fill a run; False once it was cancelled, or resumed with what it had."""
        sql = "UPDATE runs SET filling_until = :until WHERE id = :id AND state = 'paused' AND filling_until IS NOT NULL"
        return tx.run(sql, {"until": time.time() + FILL_LEASE, "id": run_id}) > 0

    def add_items(self, tx: Tx, run_id: int, record_ids: Sequence[int]) -> None:
        """Add records to a run, each once; those of which the ledger has an answer in this task are marked."""
        tx.many(
            """INSERT INTO run_items (run_id, record_id, answers) VALUES (?, ?, CASE WHEN EXISTS (
                 SELECT 1 FROM calls c WHERE c.record_id = ? AND c.state = 'answered'
                 AND c.task = (SELECT task FROM runs WHERE id = ?)) THEN 2 ELSE 0 END) ON CONFLICT DO NOTHING""",
            [(run_id, id_, id_, run_id) for id_ in record_ids],
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
        """Return why no call of a run may be sent, or None: asked before every call, in its transaction.

        The reason is a sentence for people where a budget is reached, and the run's state where it was moved.
        """
        state, spent, budgets, project_id = self._standing(run_id, tx)
        return state if state not in OPEN else self._reached(spent, budgets, project_id, tx)

    def _reached(self, spent: float, budgets: Budgets, project_id: int, tx: Tx | None) -> str | None:
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

    def open_of(self, project_id: int, tx: Tx) -> list[int]:
        """Return the open runs of a project."""
        sql = "SELECT id FROM runs WHERE project_id = :p AND state IN ('queued', 'running')"
        return [row["id"] for row in tx.all(sql, {"p": project_id})]

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
        sql = "SELECT state, COUNT(*) AS n FROM run_items WHERE run_id = :id GROUP BY state"
        return {row["state"]: row["n"] for row in self.db.all(sql, {"id": run_id})}

    def failures(self, run_id: int, limit: int = 20) -> list[Row]:
        """Return failed items by reason, most frequent first: kind, an example message, how many."""
        sql = """SELECT error_kind AS kind, MIN(error) AS message, COUNT(*) AS n FROM run_items
                 WHERE run_id = :id AND error_kind <> 'decided' AND state IN ('failed', 'done')
                 GROUP BY error_kind ORDER BY n DESC LIMIT :limit"""
        return self.db.all(sql, {"id": run_id, "limit": limit})

    def project_cost(self, project_id: int) -> dict[str, Any]:
        sql = """SELECT COALESCE(SUM(spent), 0) AS spent, COALESCE(SUM(unpriced), 0) AS unpriced,
                 COALESCE(SUM(calls), 0) AS calls, COALESCE(SUM(tokens_in), 0) AS tokens_in,
                 COALESCE(SUM(tokens_out), 0) AS tokens_out FROM runs WHERE project_id = :p"""
        row = self.db.one(sql, {"p": project_id})
        return dict(row) if row else {}

    # Items

    def claim_items(
        self,
        tx: Tx,
        run_id: int,
        token: str,
        limit: int,
        lease: float,
        billed: bool = True,
        only_answered: bool = False,
        only_pending: bool = True,
    ) -> list[int]:
        """Lease up to ``limit`` items that are due and return their records, in order.

        Items whose answer this run has paid for come first. Over its budget (with ``billed``), or with
        ``only_answered``, a run hands out only those that the ledger may have an answer for; paused or cancelled, only
        those that it paid for itself. With ``only_pending`` an item whose record people decided ends here as
        :data:`DECIDED`, unless its answer is paid already.
        """
        levels = self._levels(run_id, tx, billed, only_answered)
        now = time.time()
        # A lease never reaches further ahead than its length: a clock set back cannot hold an item for a day.
        params = {"id": run_id, "now": now, "latest": now + 2 * lease, "far": now + _LONGEST_WAIT}
        found: set[int] = set()
        ended = 0
        while len(found) < limit and ended < _MOST_DECIDED:
            paid, others = self._due(tx, params, levels, limit, found)
            decided = self._decided(tx, run_id, others) if only_pending else set()
            self._end_decided(tx, run_id, decided)
            new = [id_ for id_ in (*paid, *others) if id_ not in decided]
            found.update(new[: limit - len(found)])
            ended += len(decided)
            if not decided:
                break
        marks = ",".join(str(id_) for id_ in found) or "NULL"
        sql = f"""UPDATE run_items SET state = 'leased', token = :token, lease_until = :until, tries = tries + 1
                  WHERE run_id = :id AND record_id IN ({marks}) RETURNING record_id"""
        return sorted(row["record_id"] for row in tx.all(sql, {"token": token, "until": now + lease, "id": run_id}))

    def _levels(self, run_id: int, tx: Tx | None, billed: bool, only_answered: bool) -> tuple[int, ...] | None:
        """Return which ``answers`` an item must have to be claimed now; None where all items may be."""
        state, spent, budgets, project_id = self._standing(run_id, tx)
        if state not in OPEN:
            return (_OWN,)
        over = billed and self._reached(spent, budgets, project_id, tx) is not None
        return (_OWN, _KNOWN) if over or only_answered else None

    def _due(
        self, tx: Tx, params: dict[str, Any], levels: tuple[int, ...] | None, limit: int, found: set[int]
    ) -> tuple[list[int], list[int]]:
        """Return items that are due: those with a paid answer, and the others; each query walks the front of an index.

        Items that have ended are never walked over, however many there are.
        """

        def read(where: str, order: str = "record_id", **more: Any) -> list[int]:
            sql = f"SELECT record_id FROM run_items WHERE run_id = :id AND {where} ORDER BY {order} LIMIT :limit"
            named = {name: value for name, value in {**params, **more, "limit": limit}.items() if f":{name}" in sql}
            return [row["record_id"] for row in tx.all(sql, named) if row["record_id"] not in found]

        lapsed = "state = 'leased' AND (lease_until < :now OR lease_until > :latest)"
        due = f"((state = 'waiting' AND (not_before <= :now OR not_before > :far)) OR ({lapsed}))"
        marked = f"answers > 0 AND answers = :level AND {due}"
        paid = read(marked, level=_OWN)
        if levels is not None:
            return paid, [id_ for level in levels if level != _OWN for id_ in read(marked, level=level)]
        # Each in the order of its index: by record, all items of the run would be walked.
        others = read("state = 'leased' AND lease_until < :now", "lease_until")
        others += read("state = 'leased' AND lease_until > :latest", "lease_until")
        others += read("state = 'waiting' AND not_before <= :now", "not_before, record_id")
        others += read("state = 'waiting' AND not_before > :far", "not_before") if len(others) < limit else []
        known = set(paid)
        return paid, [id_ for id_ in others if id_ not in known]

    def _decided(self, tx: Tx, run_id: int, record_ids: Sequence[int]) -> set[int]:
        """Return the records that are pending no more: decided, or of a unit that the task does not label now."""
        marks = ",".join(str(int(id_)) for id_ in record_ids) or "NULL"
        sql = f"""SELECT w.record_id FROM work w WHERE w.record_id IN ({marks}) AND w.state = 'pending'
                  AND w.task = (SELECT task FROM runs WHERE id = :id)"""
        return {*record_ids} - {row["record_id"] for row in tx.all(sql, {"id": run_id})}

    def _end_decided(self, tx: Tx, run_id: int, record_ids: set[int]) -> None:
        if not record_ids:
            return
        marks = ",".join(str(id_) for id_ in record_ids)
        sql = f"""UPDATE run_items SET state = 'done', error_kind = 'decided', error = NULL, token = NULL, answers = 0,
                  shown = NULL WHERE run_id = :id AND record_id IN ({marks})"""
        tx.run(sql, {"id": run_id})
        self.count(tx, run_id, done=len(record_ids), decided=len(record_ids))

    def is_decided(self, tx: Tx, run_id: int, record_id: int) -> bool:
        """Whether people have decided on a record for the task of a run."""
        return bool(self._decided(tx, run_id, [record_id]))

    def keep_item(self, tx: Tx, run_id: int, record_id: int, token: str, lease: float, shown: str | None) -> bool:
        """Renew the lease of an item whose flow goes on, and note what its prompts show; False if it is not ours."""
        sql = """UPDATE run_items SET lease_until = :until, shown = :shown
                 WHERE run_id = :id AND record_id = :r AND token = :token AND state = 'leased'"""
        params = {"until": time.time() + lease, "shown": shown, "id": run_id, "r": record_id, "token": token}
        return tx.run(sql, params) > 0

    def shown(self, run_id: int, record_ids: Sequence[int]) -> dict[int, str]:
        """Return what prompts showed, by record, for items with a call that was answered or may have been billed."""
        marks = ",".join(str(int(id_)) for id_ in record_ids) or "NULL"
        sql = f"""SELECT i.record_id, i.shown FROM run_items i WHERE i.run_id = :id AND i.record_id IN ({marks})
                  AND i.shown IS NOT NULL AND EXISTS (
                    SELECT 1 FROM calls c WHERE c.record_id = i.record_id AND c.run_id = i.run_id
                    AND (c.state <> 'failed' OR c.error_kind IN ('timeout', 'connection')))"""
        return {row["record_id"]: row["shown"] for row in self.db.all(sql, {"id": run_id})}

    def to_finish(self) -> list[int]:
        """Return the runs that were paused or cancelled with answers that are paid and that no flow has looked at."""
        sql = """SELECT DISTINCT i.run_id FROM run_items i JOIN runs r ON r.id = i.run_id
                 WHERE i.answers > 0 AND i.answers = 1 AND r.state IN ('paused', 'cancelled')
                 AND ((i.state = 'waiting' AND i.not_before <= :now) OR (i.state = 'leased' AND i.lease_until < :now))
                 ORDER BY i.run_id"""
        return [row["run_id"] for row in self.db.all(sql, {"now": time.time()})]

    def extend_leases(
        self, tx: Tx, run_id: int, items: Sequence[tuple[int, str]], calls: Sequence[tuple[int, str]], lease: float
    ) -> None:
        """Keep what is ours for another ``lease`` seconds: items by record and token, calls by number and token."""
        until = time.time() + lease
        tx.many(
            "UPDATE run_items SET lease_until = ? WHERE run_id = ? AND record_id = ? AND token = ?",
            [(until, run_id, id_, token) for id_, token in items],
        )
        tx.many(
            "UPDATE calls SET lease_until = ? WHERE id = ? AND token = ? AND state = 'sent'",
            [(until, id_, token) for id_, token in calls],
        )

    def next_due(
        self,
        run_id: int,
        tx: Tx | None = None,
        lease: float = _LONGEST_WAIT,
        billed: bool = True,
        only_answered: bool = False,
    ) -> float | None:
        """Return when the next item that may be claimed becomes due (seconds since the epoch); None if there is none.

        What may be claimed is as in :meth:`claim_items`.
        """
        levels, db, now = self._levels(run_id, tx, billed, only_answered), tx or self.db, time.time()
        params = {"id": run_id, "far": now + _LONGEST_WAIT, "latest": now + 2 * lease}
        if levels is None:
            sql = """SELECT (SELECT MIN(not_before) FROM run_items WHERE run_id = :id AND state = 'waiting') AS waiting,
                     (SELECT MIN(lease_until) FROM run_items WHERE run_id = :id AND state = 'leased') AS first,
                     (SELECT MAX(lease_until) FROM run_items WHERE run_id = :id AND state = 'leased') AS last"""
            row = db.one(sql, {"id": run_id})
            assert row is not None
            waiting = row["waiting"] if row["waiting"] is None or row["waiting"] <= params["far"] else 0.0
            leased = row["first"] if row["last"] is None or row["last"] <= params["latest"] else 0.0
            return min((due for due in (waiting, leased) if due is not None), default=None)
        marks = ",".join(str(level) for level in levels)
        sql = f"""SELECT MIN(CASE WHEN state = 'waiting' AND not_before <= :far THEN not_before
                             WHEN state = 'leased' AND lease_until <= :latest THEN lease_until ELSE 0 END)
                  FROM run_items WHERE run_id = :id AND answers > 0 AND answers IN ({marks})
                  AND state IN ('waiting', 'leased')"""
        due: float | None = db.value(sql, params)
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
        sql = """UPDATE run_items SET state = :state, error_kind = :kind, error = :error, token = NULL, answers = 0,
                 shown = NULL WHERE run_id = :id AND record_id = :r AND token = :token"""
        params = {"state": state, "kind": kind, "error": error, "id": run_id, "r": record_id, "token": token}
        return tx.run(sql, params) > 0

    def put_back(
        self, tx: Tx, run_id: int, record_id: int, token: str, delay: float, kind: str | None, error: str | None,
        count_try: bool = True, looked: bool = True,
    ) -> None:  # fmt: skip
        """Let an item wait ``delay`` seconds before its next try.

        ``looked`` says that its flow has seen every answer there is: until there is a new one, the item may only be
        claimed where its next call may be sent.
        """
        sql = """UPDATE run_items SET state = 'waiting', not_before = :due, error_kind = :kind, error = :error,
                 token = NULL, tries = tries - :back, answers = CASE WHEN :looked THEN 0 ELSE answers END
                 WHERE run_id = :id AND record_id = :r AND token = :token"""
        params = {"due": time.time() + delay, "kind": kind, "error": error, "id": run_id, "r": record_id}
        tx.run(sql, params | {"token": token, "back": 0 if count_try else 1, "looked": looked})

    def tries(self, run_id: int, record_id: int, tx: Tx | None = None) -> int:
        sql = "SELECT tries FROM run_items WHERE run_id = :id AND record_id = :r"
        return int((tx or self.db).value(sql, {"id": run_id, "r": record_id}) or 0)

    def count(self, tx: Tx, run_id: int, **increments: float) -> None:
        """Add to a run's counters: done, decided, parse_failures, failed, calls, repeats, reused, tokens, spent, ..."""
        assignments = ", ".join(f"{name} = {name} + :{name}" for name in increments)
        tx.run(f"UPDATE runs SET {assignments} WHERE id = :id", {**increments, "id": run_id})

    # Calls

    def call(self, tx: Tx, fingerprint: str) -> Row | None:
        """Return the call with a fingerprint, whatever state it is in; None if it was never begun."""
        return tx.one("SELECT * FROM calls WHERE fingerprint = :f", {"f": fingerprint})

    def in_flight(self, call: Row, lease: float) -> bool:
        """Whether somebody has a call on its way now: sent with a lease that holds, or in a batch."""
        now = time.time()
        sent = call["state"] == "sent" and now <= call["lease_until"] <= now + 2 * lease
        return bool(sent or call["state"] == "batched")

    def begin_call(
        self, tx: Tx, call: dict[str, Any], token: str, lease: float, anew: bool = False
    ) -> dict[str, Any] | None:
        """Note that a call is about to be sent, and return its row; None if another worker has it in flight.

        The row's state is "answered" if it need not be sent at all; else it is now ours until the lease ends.
        ``repeat`` in it says that it was sent before and may have been billed: its sender died or got no answer, or,
        with ``anew``, its answer is to be asked for once more.
        """
        if anew:
            # The answer stays, with its cost, beside the row that takes its place.
            tx.run(
                "UPDATE calls SET fingerprint = fingerprint || '/' || id WHERE fingerprint = :f AND state = 'answered'",
                {"f": call["fingerprint"]},
            )
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
            return dict(fresh) | {"repeat": anew}
        before = self.call(tx, call["fingerprint"])
        assert before is not None
        if before["state"] == "answered":
            return dict(before) | {"repeat": False}
        # The row belongs to whoever sends it: its answer is that run's to pay and to finish.
        sql = """UPDATE calls SET state = 'sent', sends = sends + 1, token = :token, lease_until = :until,
                 run_id = :run_id, record_id = :record_id, project_id = :project_id, task = :task
                 WHERE fingerprint = :fingerprint AND (state = 'failed' OR (state = 'sent' AND
                   (lease_until < :now OR lease_until > :latest))) RETURNING *"""
        row = tx.one(sql, params)
        if row is None:
            return None
        return dict(row) | {"repeat": before["state"] == "sent" or before["error_kind"] in LOST}

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
        """Return the seconds a call of the last finished run of a model took, all in all; None if there was none.

        Only the time in which the run was running counts, not that in which it stood paused or cancelled.
        """
        for run in self.runs(project_id, 50, task):
            same = run["settings"].get("backend") == backend and run["settings"].get("model_id", "") == (model_id or "")
            if same and run["state"] == FINISHED and run["calls"] and run["seconds"]:
                return float(run["seconds"]) / int(run["calls"])
        return None

    def answered(self, fingerprint: str) -> Row | None:
        sql = "SELECT * FROM calls WHERE fingerprint = :f AND state = 'answered'"
        return self.db.one(sql, {"f": fingerprint})

    def answer_call(self, tx: Tx, call_id: int, token: str, answer: dict[str, Any], run_id: int | None = None) -> bool:
        """Store the answer of a call, paid by ``run_id``, and mark the item it is for; return whether it was the first.

        An answer that came after the lease is kept all the same. One that came second was paid, too: it stands in a
        row of its own, so that the costs of a run's calls add up to what it spent.
        """
        scores: Mapping[str, float] | None = answer.get("scores")
        stored = {"note": None, "answered_by": None, **answer, "scores": strictjson.dumps(scores) if scores else None}
        params = {**stored, "id": call_id, "now": time.time(), "run": run_id}
        sql = """UPDATE calls SET state = 'answered', answer = :answer, finish = :finish, score = :score,
                 scores = :scores, note = :note, answered_by = :answered_by, tokens_in = :tokens_in,
                 tokens_out = :tokens_out, tokens_cached = :tokens_cached, cost = :cost,
                 error_kind = NULL, error = NULL, answered_at = :now, token = NULL, run_id = COALESCE(:run, run_id)
                 WHERE id = :id AND (token = :token OR state <> 'answered') AND state <> 'erased'
                 RETURNING run_id, record_id"""
        row = tx.one(sql, params | {"token": token})
        if row is None:
            self._keep_second(tx, params)
            return False
        tx.run(
            """UPDATE run_items SET answers = 1 WHERE run_id = :run AND record_id = :record
               AND state IN ('waiting', 'leased', 'batched')""",
            {"run": row["run_id"], "record": row["record_id"]},
        )
        return True

    def _keep_second(self, tx: Tx, params: dict[str, Any]) -> None:
        sql = """INSERT INTO calls (fingerprint, project_id, run_id, record_id, task, backend, model_id, state, sends,
                   answer, finish, score, scores, note, answered_by, tokens_in, tokens_out, tokens_cached, cost,
                   created_at, answered_at)
                 SELECT fingerprint || :mark, project_id, COALESCE(:run, run_id), record_id, task, backend, model_id,
                   :state, 0, :answer, :finish, :score, :scores, :note, :answered_by, :tokens_in, :tokens_out,
                   :tokens_cached, :cost, created_at, :now FROM calls WHERE id = :id"""
        erased = tx.value("SELECT state FROM calls WHERE id = :id", params) == ERASED
        params = params | {"state": ERASED if erased else "answered"}
        # Of a record that was removed while it was asked about only the cost is kept.
        params |= {"answer": None, "scores": None, "note": None} if erased else {}
        tx.run(sql, params | {"mark": f"/{secrets.token_hex(8)}"})

    def fail_call(self, tx: Tx, call_id: int, token: str, kind: str, error: str) -> bool:
        """Note that a call of ours brought nothing; False if it is no longer ours, or was answered meanwhile."""
        sql = """UPDATE calls SET state = 'failed', error_kind = :kind, error = :error, token = NULL
                 WHERE id = :id AND token = :token"""
        return tx.run(sql, {"kind": kind, "error": error, "id": call_id, "token": token}) > 0


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def _dollars(amount: float) -> str:
    # Not as 1e-05: a budget may be a fraction of a cent.
    return f"{amount:.6f}".rstrip("0").rstrip(".")
