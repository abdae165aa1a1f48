"""The calls of the ledger: sent, answered, failed; see :mod:`labeler.store.ledger`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from labeler import strictjson
from labeler.store.database import Row, Tx
from labeler.store.ledger_items import Items
from labeler.store.ledger_runs import FINISHED

# A call that failed so may have been billed.
LOST = ("timeout", "connection")
ERASED = "erased"
"""The state of a call whose record was removed: its text is gone, its cost stays."""


class Calls(Items):
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
        call = {"tokens_thought": None} | call
        params = {**call, "token": token, "until": now + lease, "now": now, "latest": now + 2 * lease}
        # Nearly always it is new, and then one statement is all.
        fresh = tx.one(
            """INSERT INTO calls (fingerprint, project_id, run_id, record_id, task, backend, model_id, state, token,
               lease_until, created_at, tokens_thought) VALUES (:fingerprint, :project_id, :run_id, :record_id, :task,
               :backend, :model_id, 'sent', :token, :until, :now, :tokens_thought) ON CONFLICT (fingerprint) DO NOTHING
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
                 run_id = :run_id, record_id = :record_id, project_id = :project_id, task = :task,
                 tokens_thought = :tokens_thought
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
            # The records of such a run are written on for as long as a text takes, not a label.
            same = same and run["settings"].get("purpose") not in ("draft", "write")
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

    def tokens_thought(self, tx: Tx, call_id: int) -> int | None:
        """Return how many tokens the prompt of a call was thought to have when it was begun."""
        found: int | None = tx.value("SELECT tokens_thought FROM calls WHERE id = :id", {"id": call_id})
        return found

    def unsend_call(self, tx: Tx, call_id: int, token: str, repeat: bool) -> None:
        """Note that a call of ours never left: it counts as not sent. A ``repeat`` may have been billed before."""
        sql = """UPDATE calls SET state = 'failed', error_kind = :kind, error = 'Not sent', token = NULL,
                 sends = sends - 1 WHERE id = :id AND token = :token"""
        tx.run(sql, {"kind": LOST[-1] if repeat else "unsent", "id": call_id, "token": token})

    def fail_call(
        self, tx: Tx, call_id: int, token: str, kind: str, error: str, refused: Sequence[float] | None = None
    ) -> bool:
        """Note that a call of ours brought nothing; False if it is no longer ours, or was answered meanwhile.

        ``refused`` is of a prompt that was refused for its length: the guessed tokens of its ASCII characters, those of
        the others, and how many tokens the server counted.
        """
        sql = """UPDATE calls SET state = 'failed', error_kind = :kind, error = :error, token = NULL, refused = :refused
                 WHERE id = :id AND token = :token"""
        numbers = None if refused is None else strictjson.dumps(list(refused))
        params = {"kind": kind, "error": error, "refused": numbers, "id": call_id, "token": token}
        return tx.run(sql, params) > 0

    def refused(
        self, backend: str, model_id: str | None, record_ids: Sequence[int]
    ) -> dict[int, tuple[float, float, int]]:
        """Return the numbers of the newest prompt that a model refused for its length, by record."""
        marks = ",".join(str(int(id_)) for id_ in record_ids) or "NULL"
        sql = f"""SELECT record_id, refused FROM calls WHERE record_id IN ({marks}) AND refused IS NOT NULL
                  AND backend = :backend AND model_id IS :model ORDER BY id"""
        rows = self.db.all(sql, {"backend": backend, "model": model_id})
        return {row["record_id"]: tuple(strictjson.loads(row["refused"])) for row in rows}
