"""Batches: calls that travel to a provider in a file and come back within a day.

While a call is in a batch its state, and that of its item, is "batched": no lease runs out, and nobody sends it
again. What ends that is the batch: its answers, or the word that there are none. ``tag`` finds a batch at the
provider whose id was never written down, because the process that started it died.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from labeler.store.database import Database, Row, Tx

FILLING, SENT, ENDED = "filling", "sent", "ended"
BATCHED = "batched"


class Batches:
    def __init__(self, db: Database) -> None:
        self.db = db

    def create(self, tx: Tx, run_id: int, server: str) -> Row:
        """Begin a batch that is filled by this process; return its row."""
        sql = """INSERT INTO batches (run_id, state, server, tag, created_at, alive_at)
                 VALUES (:run, 'filling', :server, :tag, :now, :now) RETURNING *"""
        params = {"run": run_id, "server": server, "tag": secrets.token_hex(8), "now": time.time()}
        row = tx.one(sql, params)
        assert row is not None
        return row

    def add(self, tx: Tx, batch: Row, call_ids: Sequence[int], record_ids: Sequence[int]) -> bool:
        """Put calls that were begun, and their items, into a batch; False if it was given up: then nothing is."""
        if not self.alive(tx, batch["id"]):
            return False
        tx.many("INSERT INTO batch_calls (batch_id, call_id) VALUES (?, ?)", [(batch["id"], id_) for id_ in call_ids])
        tx.many(
            "UPDATE calls SET state = 'batched', token = ?, lease_until = NULL WHERE id = ?",
            [(batch["tag"], id_) for id_ in call_ids],
        )
        tx.many(
            """UPDATE run_items SET state = 'batched', token = ?, lease_until = NULL
               WHERE run_id = ? AND record_id = ?""",
            [(batch["tag"], batch["run_id"], id_) for id_ in record_ids],
        )
        tx.run("UPDATE batches SET calls = calls + :n WHERE id = :id", {"n": len(call_ids), "id": batch["id"]})
        return True

    def alive(self, tx: Tx, batch_id: int) -> bool:
        """Say that a batch is still being filled or sent; False if another process has given it up."""
        sql = "UPDATE batches SET alive_at = :now WHERE id = :id AND state = 'filling'"
        return tx.run(sql, {"now": time.time(), "id": batch_id}) > 0

    def sent(self, tx: Tx, batch_id: int, remote_id: str) -> bool:
        """Write down the provider's id; False if the batch was given up meanwhile: its calls are free already."""
        sql = "UPDATE batches SET state = 'sent', remote_id = :remote WHERE id = :id AND state = 'filling'"
        return tx.run(sql, {"remote": remote_id, "id": batch_id}) > 0

    def polled(self, tx: Tx, batch_id: int, message: str | None) -> None:
        """Note when and how the provider said that it stands."""
        tx.run(
            "UPDATE batches SET polled_at = :now, message = :message WHERE id = :id",
            {"now": time.time(), "message": message, "id": batch_id},
        )

    def open(self, run_id: int) -> list[Row]:
        sql = "SELECT * FROM batches WHERE run_id = :run AND state IN ('filling', 'sent') ORDER BY id"
        return self.db.all(sql, {"run": run_id})

    def of_run(self, run_id: int) -> list[Row]:
        return self.db.all("SELECT * FROM batches WHERE run_id = :run ORDER BY id", {"run": run_id})

    def open_runs(self) -> list[int]:
        """Return the runs with a batch on its way, whatever state they are in themselves."""
        rows = self.db.all("SELECT DISTINCT run_id FROM batches WHERE state IN ('filling', 'sent') ORDER BY run_id")
        return [row["run_id"] for row in rows]

    def waiting(self, batch_id: int) -> dict[int, int]:
        """Return the calls of a batch whose answers were not taken in yet, with their records."""
        sql = """SELECT c.id, c.record_id FROM batch_calls b JOIN calls c ON c.id = b.call_id
                 WHERE b.batch_id = :id AND b.taken = 0"""
        return {row["id"]: row["record_id"] for row in self.db.all(sql, {"id": batch_id})}

    def take(self, tx: Tx, batch_id: int, call_id: int) -> bool:
        """Note that an answer of a batch is taken in; False if it was before, as when two processes read a file."""
        sql = "UPDATE batch_calls SET taken = 1 WHERE batch_id = :id AND call_id = :call AND taken = 0"
        return tx.run(sql, {"id": batch_id, "call": call_id}) > 0

    def comes_back(self, tx: Tx, call_id: int) -> Row | None:
        """Return the open batch that holds a call, or None."""
        sql = """SELECT b.* FROM batch_calls bc JOIN batches b ON b.id = bc.batch_id
                 WHERE bc.call_id = :call AND b.state <> 'ended' ORDER BY b.id DESC LIMIT 1"""
        return tx.one(sql, {"call": call_id})

    def end(self, tx: Tx, batch: Row, message: str | None, kind: str, delay: float = 0.0) -> bool:
        """End a batch that still stands as ``batch`` says; return False if another process was first.

        Its calls without an answer have failed (``kind``), and its items may go on after ``delay`` seconds. Those that
        are still in it have had no try: they were answered, or never sent. Items of other runs that wait for a call in
        it are due.
        """
        now = time.time()
        ended = tx.run(
            "UPDATE batches SET state = 'ended', ended_at = :now, message = :message WHERE id = :id AND state = :seen",
            {"now": now, "message": message, "id": batch["id"], "seen": batch["state"]},
        )
        if not ended:
            return False
        tx.run(
            """UPDATE calls SET state = 'failed', error_kind = :kind, error = :message, token = NULL
               WHERE id IN (SELECT call_id FROM batch_calls WHERE batch_id = :id)
               AND state = 'batched' AND token = :tag""",
            {"kind": kind, "message": message or "", "id": batch["id"], "tag": batch["tag"]},
        )
        tx.run(
            """UPDATE run_items SET state = 'waiting', not_before = :due, token = NULL, tries = tries - 1
               WHERE run_id = :run AND state = 'batched' AND token = :tag""",
            {"due": now + delay, "run": batch["run_id"], "tag": batch["tag"]},
        )
        tx.run(
            """UPDATE run_items SET not_before = :now WHERE state = 'waiting' AND error_kind = 'batched'
               AND run_id IN (SELECT id FROM runs WHERE state IN ('queued', 'running'))
               AND record_id IN (SELECT c.record_id FROM batch_calls b JOIN calls c ON c.id = b.call_id
                                 WHERE b.batch_id = :id)""",
            {"now": now, "id": batch["id"]},
        )
        return True
