"""The items of the ledger: the records of runs, with leases, tries and waits; see :mod:`labeler.store.ledger`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from labeler import strictjson
from labeler.records import Value
from labeler.store.database import Database, Tx
from labeler.store.ledger_runs import OPEN, Runs

DECIDED = "decided"
"""The kind of an item that ended without a suggestion, because people decided on its record first."""
UNDER_WAY = ""
"""What ``trial`` of a run says while its trial items are asked, and nobody has said yet what came of them."""
# What ``answers`` of an item says: no answer, one that this run paid for, or perhaps one that another run paid for.
_OWN, _KNOWN = 1, 2
# No item waits longer than this: one that seems to was put back by a clock that went ahead.
_LONGEST_WAIT = 7200.0
_MOST_DECIDED = 2000
# In this order: a trial has a few items, its run perhaps a million others.
_OF_TRIAL = """(SELECT i.* FROM trial_items t CROSS JOIN run_items i
    WHERE t.run_id = :id AND i.run_id = t.run_id AND i.record_id = t.record_id) AS items"""
_OF_KIND = "r.project_id = :p AND r.task = :t AND r.trial_kind = :kind"
Scores = Mapping[str, float]


class Items(Runs):
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

        While a trial is under way, those are its items alone: approved records, which are not left out for that.
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

        items = self._items(tx, params["id"])

        def read(where: str, order: str = "record_id", **more: Any) -> list[int]:
            sql = f"SELECT record_id FROM {items} WHERE run_id = :id AND {where} ORDER BY {order} LIMIT :limit"
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
        """Return the records that are pending no more: decided, or of a unit that the task does not label now.

        Those of a trial were approved before, and are none of them.
        """
        marks = ",".join(str(int(id_)) for id_ in record_ids) or "NULL"
        sql = f"""SELECT w.record_id FROM work w WHERE w.record_id IN ({marks}) AND w.state = 'pending'
                  AND w.task = (SELECT task FROM runs WHERE id = :id)
                  UNION SELECT record_id FROM trial_items WHERE run_id = :id AND record_id IN ({marks})"""
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

    def show(self, tx: Tx, run_id: int, shown: Sequence[tuple[int, str]]) -> None:
        """Say what the prompts of items are to show: (record, text)."""
        sql = "UPDATE run_items SET shown = ? WHERE run_id = ? AND record_id = ?"
        tx.many(sql, [(text, run_id, record_id) for record_id, text in shown])

    def shown(self, run_id: int, record_ids: Sequence[int], always: bool = False) -> dict[int, str]:
        """Return what prompts showed, by record, for items with a call that was answered or may have been billed.

        With ``always`` for items that were not asked about yet, too.
        """
        marks = ",".join(str(int(id_)) for id_ in record_ids) or "NULL"
        sql = f"""SELECT i.record_id, i.shown FROM run_items i WHERE i.run_id = :id AND i.record_id IN ({marks})
                  AND i.shown IS NOT NULL AND (:always OR EXISTS (
                    SELECT 1 FROM calls c WHERE c.record_id = i.record_id AND c.run_id = i.run_id
                    AND (c.state <> 'failed' OR c.error_kind IN ('timeout', 'connection'))))"""
        rows = self.db.all(sql, {"id": run_id, "always": always})
        return {row["record_id"]: row["shown"] for row in rows}

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
        items = self._items(db, run_id)
        if levels is None:
            here = f"FROM {items} WHERE run_id = :id AND state"
            sql = f"""SELECT (SELECT MIN(not_before) {here} = 'waiting') AS waiting,
                     (SELECT MIN(lease_until) {here} = 'leased') AS first,
                     (SELECT MAX(lease_until) {here} = 'leased') AS last"""
            row = db.one(sql, {"id": run_id})
            assert row is not None
            waiting = row["waiting"] if row["waiting"] is None or row["waiting"] <= params["far"] else 0.0
            leased = row["first"] if row["last"] is None or row["last"] <= params["latest"] else 0.0
            return min((due for due in (waiting, leased) if due is not None), default=None)
        marks = ",".join(str(level) for level in levels)
        sql = f"""SELECT MIN(CASE WHEN state = 'waiting' AND not_before <= :far THEN not_before
                             WHEN state = 'leased' AND lease_until <= :latest THEN lease_until ELSE 0 END)
                  FROM {items} WHERE run_id = :id AND answers > 0 AND answers IN ({marks})
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

    # The trial of a run: approved records that are asked first, by which its model is compared with the free answers.

    def in_trial(self, db: Tx | Database, run_id: int) -> bool:
        """Whether a run asks the records of its trial now, and no others."""
        found: str | None = db.value("SELECT trial FROM runs WHERE id = :id", {"id": run_id})
        return found == UNDER_WAY

    def _items(self, db: Tx | Database, run_id: int) -> str:
        """Return which items of a run (``:id``) may be claimed now, for a query to read from."""
        return _OF_TRIAL if self.in_trial(db, run_id) else "run_items"

    def trial_over(self, run_id: int) -> bool:
        """Whether all records of a trial were asked, and nobody has said yet what came of it."""
        sql = f"""SELECT 1 FROM {_OF_TRIAL} WHERE state IN ('waiting', 'leased', 'batched') LIMIT 1"""
        return self.in_trial(self.db, run_id) and self.db.value(sql, {"id": run_id}) is None

    def trials(self, run_id: int) -> int:
        """Return how many records of a run were answered for its trial: they have no suggestion of it."""
        sql = f"SELECT COUNT(*) FROM {_OF_TRIAL} WHERE state = 'done' AND error_kind IS NULL"
        return int(self.db.value(sql, {"id": run_id}))

    def keep_said(self, tx: Tx, run_id: int, record_id: int, value: Value | None, scores: Scores | None) -> None:
        """Keep what the model said of a trial record: its value (None: it could not be read) and its label scores."""
        sql = "UPDATE trial_items SET said = :said WHERE run_id = :id AND record_id = :r"
        tx.run(sql, {"said": strictjson.dumps([value, scores]), "id": run_id, "r": record_id})

    def said(self, project_id: int, task: str, kind: str) -> dict[int, tuple[Value | None, Scores | None]]:
        """Return what one kind of model and prompt said in the trials of all its runs: value and scores by record."""
        sql = f"""SELECT t.record_id, t.said FROM runs r JOIN trial_items t ON t.run_id = r.id
                  WHERE {_OF_KIND} AND t.said IS NOT NULL ORDER BY r.id"""
        rows = self.db.all(sql, {"p": project_id, "t": task, "kind": kind})
        return {row["record_id"]: tuple(strictjson.loads(row["said"])) for row in rows}

    def end_trial(self, tx: Tx, run_id: int, found: Mapping[str, Any]) -> bool:
        """Store what came of a trial, and let the run go on to the rest; False where another worker was faster."""
        sql = "UPDATE runs SET trial = :found WHERE id = :id AND trial = :open"
        return tx.run(sql, {"found": strictjson.dumps(found), "id": run_id, "open": UNDER_WAY}) > 0

    def last_trial(self, project_id: int, task: str, kind: str) -> dict[str, Any] | None:
        """Return what came of the newest trial of a kind; None before there is one."""
        sql = f"SELECT r.trial FROM runs r WHERE {_OF_KIND} AND r.trial <> '' ORDER BY r.id DESC LIMIT 1"
        found = self.db.value(sql, {"p": project_id, "t": task, "kind": kind})
        return None if found is None else dict(strictjson.loads(found))

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

    def ended_alike(self, run_id: int, least: int, tx: Tx) -> bool:
        """Whether at least so many items of a run have ended, all for one reason, and none with a label.

        Answers that cannot be read count as one reason.
        """
        row = tx.one("SELECT done - parse_failures - decided AS good FROM runs WHERE id = :id", {"id": run_id})
        if row is None or row["good"] > 0:
            return False
        sql = """SELECT CASE WHEN error_kind LIKE 'parse: %' THEN 'parse' ELSE error_kind END AS kind, COUNT(*) AS n
                 FROM run_items WHERE run_id = :id AND state IN ('done', 'failed')
                 AND COALESCE(error_kind, '') <> 'decided' GROUP BY 1"""
        kinds = tx.all(sql, {"id": run_id})
        return len(kinds) == 1 and kinds[0]["kind"] is not None and kinds[0]["n"] >= least

    def tries(self, run_id: int, record_id: int, tx: Tx | None = None) -> int:
        sql = "SELECT tries FROM run_items WHERE run_id = :id AND record_id = :r"
        return int((tx or self.db).value(sql, {"id": run_id, "r": record_id}) or 0)

    def count(self, tx: Tx, run_id: int, **increments: float) -> None:
        """Add to a run's counters: done, decided, parse_failures, failed, calls, repeats, reused, tokens, spent, ..."""
        assignments = ", ".join(f"{name} = {name} + :{name}" for name in increments)
        tx.run(f"UPDATE runs SET {assignments} WHERE id = :id", {**increments, "id": run_id})
