"""Runs against an adversarial server and batch service, in two processes that die at any commit: a state machine.

Nothing waits here: a server is an object, a process is a store of its own on the same file, and what a process would
wait for is made due. While a call is on its way the other process, or a person, may act: that is how runs interleave.
After every step the books balance; when everything is moved until nothing is left, every paid answer has become a
suggestion or a parse failure, or belongs to a record that people decided first.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import SENTIMENT, World, numbered
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from labeler.annotation.decisions import Decisions
from labeler.backends import base
from labeler.backends.batches import CallFailed
from labeler.backends.prices import ModelInfo
from labeler.errors import Conflict
from labeler.prelabel import batch_executor, calls, executor, runs
from labeler.prelabel.batch_executor import BatchExecutor
from labeler.prelabel.calls import CallPolicy
from labeler.prelabel.executor import LocalExecutor
from labeler.prelabel.suggest import Suggester
from labeler.records import BackendFailure, Completion
from labeler.retrieval.embedding import Embeddings
from labeler.retrieval.index import ExampleIndex
from labeler.retrieval.lexical import LexicalEmbedder
from labeler.retrieval.retrievers import Similar
from labeler.store import Store
from labeler.store.audit import audit

RECORDS, MOST_DECIDED, PRICE = 5, 2, ModelInfo("m", input=1.0, output=1.0)
THREADS, ROUNDS, BATCH = "threads", "rounds", "batch"
ONE_CALL = 0.001
ANSWERS = ("good", "garbage", "cut", "dear", "server", "timeout", "rate", "refused", "key")
INTERFERENCE = ("", "", "", "decide", "cancel", "lapse", "other", "lapse and other")


class Killed(BaseException):
    """The process died: nothing it would have written since is there."""


@dataclass
class Provider:
    """What the server and its batch service do next, and what they saw. Shared by all processes."""

    plan: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    fates: list[str] = field(default_factory=list)
    down: bool = False
    # What it answers where nothing is planned.
    mood: str = "good"
    # US dollars: what it wants for all that it ever answered.
    billed: float = 0.0

    def answer(self, kind: str) -> Completion | BackendFailure:
        """Return an answer that is being written, and charge for it."""
        made = completion(kind)
        if isinstance(made, Completion):
            self.billed += ((made.tokens_in or 0) + (made.tokens_out or 0)) / 1e6
        return made

    def next(self) -> tuple[str, str]:
        return self.plan.pop(0) if self.plan else ("", self.mood)


def completion(kind: str) -> Completion | BackendFailure:
    text = {"garbage": "<|im_start|>", "cut": '{"sentiment": '}.get(kind, '{"sentiment": "positive"}')
    tokens = 9000 if kind == "dear" else 900
    failures = {
        "server": BackendFailure("server", "It failed", retryable=True),
        "timeout": BackendFailure("timeout", "No answer", retryable=True),
        "rate": BackendFailure("rate_limit", "Slow down", retryable=True, retry_after=0.0),
        "refused": BackendFailure("request", "Not this prompt"),
        "key": BackendFailure("auth", "Not this key", fatal=True),
    }
    if kind in failures:
        return failures[kind]
    return Completion(text, tokens, 100, 0, "length" if kind == "cut" else "stop", model_id="m")


class Backend(base.Backend):
    """A billed backend, and its batch service, of one process that moves one run."""

    name, model_id, billed, base_url = "fake", "m", True, "http://fake/v1"

    def __init__(self, machine: Machine, process: Process, run_id: int, batch: int) -> None:
        self.machine, self.process, self.run_id, self.batch = machine, process, run_id, batch
        self.provider = machine.provider
        self.batches = self

    def complete(self, requests: Sequence[Any]) -> Iterator[Completion | BackendFailure]:
        self.machine.check_sent(self.run_id, [request.record.id for request in requests])
        for _ in requests:
            interference, answer = self.provider.next()
            self.machine.interfere(interference, self.run_id, self.process)
            yield self.provider.answer(answer)

    # The batch service

    def body(self, request: Any) -> dict[str, Any]:
        return {"record": request.record.id}

    def read(self, body: Any, request: Any, status: int) -> Completion | BackendFailure:
        return completion(str(body))

    def upload(self, content: bytes) -> str:
        self._answer()
        self.machine.interfere(self.provider.next()[0], self.run_id, self.process)
        name = f"file-{len(self.provider.files)}"
        self.provider.files[name] = content
        return name

    def create_batch(self, file_id: str, metadata: dict[str, str]) -> dict[str, Any]:
        self._answer()
        lines = [json.loads(line) for line in self.provider.files[file_id].splitlines()]
        id_ = f"batch-{len(self.provider.batches)}"
        made = {"id": id_, "status": "in_progress", "metadata": metadata, "lines": lines, "created_at": time.time()}
        self.provider.batches[id_] = made
        return made

    def batch_(self, id_: str) -> dict[str, Any]:
        self._answer()
        batch = self.provider.batches[id_]
        if batch["status"] == "in_progress" and self.provider.fates:
            self._end(batch, self.provider.fates.pop(0))
        return batch

    def cancel_batch(self, id_: str) -> dict[str, Any]:
        self._answer()
        batch = self.provider.batches[id_]
        if batch["status"] == "in_progress":
            self._end(batch, "cancelled")
        return batch

    def since(self, moment: float) -> list[dict[str, Any]]:
        self._answer()
        return list(reversed(self.provider.batches.values()))

    def file(self, file_id: str) -> bytes:
        self._answer()
        return self.provider.files[file_id]

    def _answer(self) -> None:
        if self.provider.down:
            raise CallFailed(BackendFailure("connection", "No connection", retryable=True))

    def _end(self, batch: dict[str, Any], fate: str) -> None:
        batch["status"] = fate if fate in ("expired", "cancelled", "failed") else "completed"
        if fate == "failed":
            return
        out = []
        for n, line in enumerate(batch["lines"]):
            answer = {"broken": "server", "dear": "dear", "garbage": "garbage"}.get(fate, "good")
            self.provider.answer(answer)
            if fate in ("lost", "expired", "cancelled") and n % 2 == 0:
                continue
            found = {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": answer}}
            out += [json.dumps(found).encode()] * (2 if fate == "twice" else 1)
        name = f"file-{len(self.provider.files)}"
        self.provider.files[name] = b"\n".join(reversed(out))
        batch["output_file_id"] = name


class _Client:
    """The methods of a batch client, whose ``batch`` is a number on the backend."""

    def __init__(self, backend: Backend) -> None:
        self.upload, self.create_batch, self.file = backend.upload, backend.create_batch, backend.file
        self.batch, self.cancel_batch, self.since = backend.batch_, backend.cancel_batch, backend.since


class Process:
    """A store of its own on the one file, which can die at its next commits: just before one, or just after."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path, synchronous="OFF")
        self.dies_in: int | None = None
        self.after = False
        self.dead = False
        self._write = self.store.db.write
        self.store.db.write = self.write  # type: ignore[method-assign]

    def write(self, work: Any) -> Any:
        if self.dead:
            raise Killed
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dead = True
                if self.after:
                    self._write(work)
                raise Killed
        return self._write(work)


_template: list[Path] = []


def template() -> Path:
    """A database with a project and a few records, made once."""
    if not _template:
        folder = Path(tempfile.mkdtemp(prefix="labeler-machine-"))
        world = World(folder, numbered(RECORDS))
        world.store.db.all("PRAGMA wal_checkpoint(TRUNCATE)")
        world.store.close()
        _template.append(folder / "labeler.db")
    return _template[0]


class Machine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="labeler-machine-"))
        self.path = self.folder / "labeler.db"
        shutil.copy(template(), self.path)
        self.provider = Provider()
        self.god = Store(self.path, synchronous="OFF")
        self.processes = [Process(self.path), Process(self.path)]
        self.kinds: dict[int, str] = {}
        self.depth = 0
        self.faults: list[str] = []
        (self.kim,) = [row["id"] for row in self.god.db.all("SELECT id FROM reviewers ORDER BY id LIMIT 1")]
        self.records = [row["id"] for row in self.god.db.all("SELECT id FROM records ORDER BY id")]

    def teardown(self) -> None:
        if hasattr(self, "god"):
            try:
                self.finish_everything()
            finally:
                for process in self.processes:
                    process.store.close()
                self.god.close()
                shutil.rmtree(self.folder, ignore_errors=True)

    # What people and workers do

    @rule(
        kind=st.sampled_from([THREADS, ROUNDS, BATCH]),
        size=st.integers(1, RECORDS),
        budget=st.sampled_from([None, None, 0.5, 2.5]),
        again=st.booleans(),
        mood=st.sampled_from(["", "garbage", "good"]),
    )
    def start(self, kind: str, size: int, budget: float | None, again: bool, mood: str) -> None:
        chosen = self.records[:size]
        budget = None if budget is None else budget * ONE_CALL
        run_id = runs.start(self.god, 1, "sentiment", chosen, {"again": again}, budget)
        self.kinds[run_id] = kind
        if mood:
            self.work_on_all(mood, [], False)

    @precondition(lambda self: self.kinds)
    @rule(
        data=st.data(),
        who=st.integers(0, 1),
        plan=st.lists(st.tuples(st.sampled_from(INTERFERENCE), st.sampled_from(ANSWERS)), max_size=6),
        dies_in=st.one_of(st.none(), st.integers(0, 12)),
        after=st.booleans(),
        down=st.sampled_from([False, False, False, True]),
        mood=st.sampled_from(["good", "good", "garbage", "dear"]),
    )
    def move(self, data: Any, who: int, plan: Any, dies_in: int | None, after: bool, down: bool, mood: str) -> None:
        if self.processes[who].dead:
            self.restart(who)
        self.provider.plan, self.provider.down, self.provider.mood = list(plan), down, mood
        self.processes[who].dies_in, self.processes[who].after = dies_in, after
        self.make_due()
        self.move_run(self.processes[who], data.draw(st.sampled_from(sorted(self.kinds))))
        self.processes[who].dies_in = None
        self.provider.plan, self.provider.down, self.provider.mood = [], False, "good"
        assert not self.faults, self.faults

    @precondition(lambda self: self.kinds)
    @rule(
        mood=st.sampled_from(["good", "garbage", "garbage", "dear", "timeout"]),
        interference=st.lists(st.sampled_from(INTERFERENCE), max_size=4),
        twice=st.booleans(),
    )
    def work_on_all(self, mood: str, interference: list[str], twice: bool) -> None:
        """Both processes move whatever is open, one after the other; a batch that is on its way comes back."""
        for who in range(2):
            if self.processes[who].dead:
                self.restart(who)
            for run_id in sorted(self.kinds):
                self.provider.plan, self.provider.mood = [(one, mood) for one in interference], mood
                self.provider.fates.append("twice" if twice else mood)
                self.make_due()
                self.move_run(self.processes[who], run_id)
        self.provider.plan, self.provider.mood = [], "good"
        assert not self.faults, self.faults

    @rule(
        fate=st.sampled_from(["good", "lost", "twice", "broken", "dear", "garbage", "expired", "cancelled", "failed"])
    )
    def batch_will_end(self, fate: str) -> None:
        self.provider.fates.append(fate)

    @rule(n=st.integers(0, RECORDS - 1))
    def decide(self, n: int) -> None:
        if self.god.work.counts(1, "sentiment")["approved"] >= MOST_DECIDED:
            # Of records that nobody decided there must be some left to ask about.
            return
        record = self.god.records.get(self.records[n])
        decisions = Decisions(self.god, 1, SENTIMENT)
        self.god.write(lambda tx: decisions.import_label(tx, record, "positive", "test", self.kim))

    @precondition(lambda self: self.kinds)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        self.try_to(lambda: runs.cancel(self.god, data.draw(st.sampled_from(sorted(self.kinds)))))

    @precondition(lambda self: self.kinds)
    @rule(data=st.data(), budget=st.sampled_from([None, 0.5, 3.5, 1000.0]))
    def resume(self, data: Any, budget: float | None) -> None:
        budget = None if budget is None else budget * ONE_CALL
        self.try_to(lambda: runs.resume(self.god, data.draw(st.sampled_from(sorted(self.kinds))), budget))

    @rule(amount=st.sampled_from([None, 1.5, 1000.0]))
    def change_budget_of_the_project(self, amount: float | None) -> None:
        given = json.dumps({} if amount is None else {"budget_project": amount * ONE_CALL})
        self.god.write(lambda tx: tx.run("UPDATE projects SET settings = :s", {"s": given}))

    @rule(who=st.integers(0, 1))
    def restart(self, who: int) -> None:
        """A process ends and starts again; what it held is free, as if its leases had run out."""
        self.processes[who].store.close()
        self.processes[who] = Process(self.path)
        self.lapse()

    # What holds at every time

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "god"):
            assert [said for said in audit(self.god) if "counts" in said] == []
            assert self.god.counts.faults() == []
            sends = self.god.db.value("SELECT COALESCE(SUM(sends), 0) FROM calls")
            assert sends == self.god.db.value("SELECT COALESCE(SUM(calls), 0) FROM runs")
            assert self.god.db.value("SELECT COALESCE(SUM(spent), 0) FROM runs") <= self.provider.billed + 1e-9

    def check_sent(self, run_id: int, record_ids: Sequence[int]) -> None:
        """Right after calls were begun, before anybody else acts: they were ours to send."""
        run = self.god.ledger.run(run_id)
        reason = self.god.ledger.halted(run_id)
        if record_ids and reason is not None:
            self.faults.append(f"sent though {reason}")
        for id_ in record_ids:
            if self.god.work.get(id_, "sentiment")["state"] != "pending":
                self.faults.append(f"record {id_} was decided before its call began")
            sql = "SELECT * FROM calls WHERE record_id = :r AND run_id = :run AND state = 'sent'"
            row = self.god.db.one(sql, {"r": id_, "run": run_id})
            if row is None:
                self.faults.append(f"record {id_} was asked about without a word in the ledger")
                continue
            older = f"{row['fingerprint']}/%"
            sql = "SELECT COUNT(*) FROM calls WHERE fingerprint LIKE :f AND sends > 0 AND state = 'answered'"
            if self.god.db.value(sql, {"f": older}) and not run["again"]:
                self.faults.append(f"record {id_} was asked about again")
            item = self.god.db.one("SELECT * FROM run_items WHERE run_id = ? AND record_id = ?", [run_id, id_])
            if item["state"] != "leased" or item["token"] != row["token"]:
                self.faults.append(f"record {id_} has two owners")

    # How it is done

    def try_to(self, act: Any) -> None:
        with contextlib.suppress(Conflict):
            act()

    def lapse(self) -> None:
        self.god.write(lambda tx: tx.run("UPDATE run_items SET lease_until = 0 WHERE state = 'leased'"))
        self.god.write(lambda tx: tx.run("UPDATE calls SET lease_until = 0 WHERE state = 'sent'"))
        self.god.write(lambda tx: tx.run("UPDATE batches SET alive_at = 0"))

    def make_due(self) -> None:
        self.god.write(lambda tx: tx.run("UPDATE run_items SET not_before = 0 WHERE state = 'waiting'"))
        self.god.write(lambda tx: tx.run("UPDATE rate_limits SET held_until = 0"))

    def interfere(self, how: str, run_id: int, process: Process) -> None:
        """Something happens while a call of a run is on its way."""
        if how == "decide":
            self.decide(run_id % RECORDS)
        elif how == "cancel":
            self.try_to(lambda: runs.cancel(self.god, run_id))
        if "lapse" in how:
            self.lapse()
        if "other" in how and self.depth < 2:
            others = [other for other in self.processes if other is not process]
            self.move_run(others[0], run_id)

    def move_run(self, process: Process, run_id: int) -> None:
        if process.dead:
            return
        kind = self.kinds[run_id]
        self.depth += 1
        try:
            index = ExampleIndex(process.store, 1, SENTIMENT, Embeddings(process.store, LexicalEmbedder()))
            backend = Backend(self, process, run_id, 4 if kind == ROUNDS else 1)
            backend.batches = _Client(backend)  # type: ignore[assignment]
            # Every other run asks the same questions.
            identity = {"fake": run_id % 2}
            suggester = Suggester(process.store, 1, SENTIMENT, index, backend, Similar({}), 2, identity=identity)
            policy = CallPolicy(concurrency=1, max_tries=3, base_delay=0.0)
            make = BatchExecutor if kind == BATCH else LocalExecutor
            make(process.store, run_id, suggester, policy, PRICE, threading.Event()).run()
        except Killed:
            pass
        finally:
            self.depth -= 1

    def finish_everything(self) -> None:
        """Mend the server, restart what died, lift the budgets, and move all there is until nothing is left."""
        for who in range(2):
            self.restart(who)
        ledger = self.god.ledger
        # Whatever budgets say and whatever stands paused or cancelled: what is paid is finished.
        self.move_what_is_left()
        marked = "SELECT record_id FROM run_items WHERE answers = 1 AND state IN ('waiting', 'leased', 'batched')"
        assert self.god.db.all(marked) == []
        self.change_budget_of_the_project(None)
        for _ in range(5):
            for run_id in sorted(self.kinds):
                self.try_to(lambda run_id=run_id: runs.resume(self.god, run_id, 1000.0))  # type: ignore[misc]
            self.move_what_is_left()
        assert not self.faults, self.faults
        ended = {
            r["state"]
            for r in map(ledger.run, self.kinds)
            if r["state"] != "cancelled" or r["done"] + r["failed"] < r["total"]
        }
        assert ended <= {"finished"}, [(dict(ledger.run(run_id)), ledger.item_counts(run_id)) for run_id in self.kinds]
        assert audit(self.god) == []
        self.books_balance()

    def move_what_is_left(self) -> None:
        """Do what a worker does, until it finds nothing more; batches come back."""
        ledger, batches = self.god.ledger, self.god.batches
        for _ in range(60):
            left = {*ledger.open_runs(), *batches.open_runs(), *ledger.to_finish()}
            for run_id in sorted(left):
                self.provider.fates = ["good"] * len(self.provider.batches)
                self.make_due()
                self.move_run(self.processes[run_id % 2], run_id)
            if not left:
                return
        raise AssertionError(f"Never idle: {[dict(ledger.run(run_id)) for run_id in left]}")


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr(executor, "_SHORT_WAIT", 0.0)
    monkeypatch.setattr(calls, "_BUSY_WAIT", 30.0)
    monkeypatch.setattr(BatchExecutor, "poll_seconds", 0.0)
    monkeypatch.setattr(batch_executor, "_ABANDONED", 60.0)


def test_books_balance_whatever_happens(no_waiting):
    """Random runs, answers, decisions, cancels and deaths: nothing is paid twice, lost, or paid without need."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40, stateful_step_count=20, deadline=None,
            suppress_health_check=list(HealthCheck), database=None,
        ),
    )  # fmt: skip
