"""The executor ``openai-batch``: the calls of a run travel in files, for half the price, and come back within a day.

Nothing waits here: each time the worker moves the run, answers that have come are committed to the ledger, and items
that are free are stepped on: what the ledger answers is finished, and the calls that are left go into the next file.
So a flow of several calls takes as many batches, and a process that dies leaves nothing that another cannot go on
with: the batch is known by its id, or found again at the provider by its tag.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from labeler import strictjson
from labeler.backends.base import BackendRequest
from labeler.backends.batches import ENDED, BatchingBackend, CallFailed
from labeler.backends.prices import ModelInfo, cost
from labeler.errors import LabelerError
from labeler.prelabel.calls import EXPECTED_ANSWER, Call, CallPolicy, Claim, RunContext, RunWriter
from labeler.prelabel.rounds import Rounds, Sending, repeating
from labeler.prelabel.suggest import Suggester
from labeler.records import AWAY, BackendFailure, Completion, Record
from labeler.sentence import Sentence
from labeler.store import Row, Store, Tx
from labeler.store.batches import FILLING
from labeler.store.ledger import CANCELLED

# OpenAI takes 50,000 calls and 200 MB a file; smaller files end sooner.
MAX_CALLS = 20_000
MAX_BYTES = 100 * 1024 * 1024
POLL_SECONDS = 30.0
# A process that fills or sends a file says much more often that it lives.
_ABANDONED = 300.0
# The provider ends a batch within 24 hours; one that goes on after that is cancelled, then given up.
_TOO_LATE, _GIVEN_UP = 25 * 3600.0, 26 * 3600.0
# How far the provider's clock may be behind ours.
_CLOCKS = 24 * 3600.0
_SLICE = 200
# As an answer: what a line of a batch has instead of one.
_FAILED = 500
_COMMIT = 500


class BatchExecutor:
    """Moves a run one step: takes in what came back, sends what is to be sent. Never waits for the provider."""

    poll_seconds = POLL_SECONDS

    def __init__(
        self,
        store: Store,
        run_id: int,
        suggester: Suggester,
        policy: CallPolicy,
        info: ModelInfo | None,
        stop: threading.Event,
    ) -> None:
        self.store, self.run_id, self.suggester, self.policy, self.stop = store, run_id, suggester, policy, stop
        self.context = RunContext(store, run_id, suggester, policy, info, batch=True)
        self.backend: BatchingBackend = suggester.backend  # type: ignore[assignment]

    def run(self) -> str:
        """Return the state of the run after this step; "running" while a batch is on its way.

        Of a run that is paused or cancelled, what its batches bring is still taken in and finished.
        """
        try:
            moving = self.context.start()
            self._collect()
            if moving:
                self.context.check_price()
            self._send()
        except CallFailed as error:
            if not error.failure.retryable:
                self.context.pause(error.failure.message)
        except LabelerError as error:
            self.context.pause(str(error))
        return self.context.settle()

    # What came back

    def _collect(self) -> None:
        cancelled = self.store.ledger.run(self.run_id)["state"] == CANCELLED
        for batch in self.store.batches.open(self.run_id):
            try:
                if batch["state"] == FILLING:
                    self._recover(batch)
                # A clock that was set back must not keep a batch from being asked after for a day.
                elif abs(time.time() - (batch["polled_at"] or 0.0)) >= self.poll_seconds:
                    # Noted first: a provider that does not answer is not asked again every second.
                    self.store.write(
                        lambda tx, batch=batch: self.store.batches.polled(tx, batch["id"], batch["message"])  # type: ignore[misc]
                    )
                    self._poll(batch, cancelled)
            except CallFailed as error:
                # The other batches are asked after all the same.
                if not error.failure.retryable:
                    self.context.pause(error.failure.message)
                if time.time() - batch["created_at"] > _GIVEN_UP:
                    self._end(batch, error.failure.message, "expired")

    def _recover(self, batch: Row) -> None:
        """Go on with a batch whose process died before it wrote down the provider's id, if that ever got one."""
        if abs(time.time() - batch["alive_at"]) < _ABANDONED:
            return
        since = batch["created_at"] - _CLOCKS
        tags = ((remote, (remote.get("metadata") or {}).get("labeler")) for remote in self.backend.batches.since(since))
        found = next((remote for remote, tag in tags if tag == batch["tag"]), None)
        if found is None:
            self.store.write(lambda tx: self.store.batches.end(tx, batch, Sentence("never sent"), "unsent"))
        else:
            self.store.write(lambda tx: self.store.batches.sent(tx, batch["id"], str(found["id"])))

    def _poll(self, batch: Row, cancelled: bool) -> None:
        client, age = self.backend.batches, time.time() - batch["created_at"]
        found = client.batch(batch["remote_id"])
        # One that has ended, or is about to, cannot be cancelled: it is answered and paid.
        if (cancelled or age > _TOO_LATE) and found.get("status") in ("validating", "in_progress"):
            found = client.cancel_batch(batch["remote_id"])
        status = str(found.get("status"))
        self.store.write(lambda tx: self.store.batches.polled(tx, batch["id"], _standing(found)))
        if status not in ENDED:
            if age > _GIVEN_UP:
                self._end(
                    batch,
                    Sentence("The provider has not ended the batch %(name)s in a day", name=batch["remote_id"]),
                    "expired",
                )
            return
        for name in ("output_file_id", "error_file_id"):
            if found.get(name):
                self._take_in(batch, client.file(str(found[name])))
        said = _errors(found)
        # A file that the provider refused as a whole was no try for any record.
        self._end(batch, said or status, status if status != "completed" else "unanswered", tried=status != "failed")
        if status == "failed":
            self.context.pause(
                Sentence("The provider refused the batch: %(why)s", why=said or Sentence("no reason was given"))
            )

    def _end(self, batch: Row, message: str, kind: str, tried: bool = True) -> None:
        """End a batch. An item with a call in it that brought nothing has had a try; the others have not."""
        writer = RunWriter(self.context)
        failure = BackendFailure(kind, Sentence("Not answered in the batch: %(why)s", why=message), retryable=True)
        silent = self.store.batches.waiting(batch["id"]) if tried else {}
        for n, (call_id, record_id) in enumerate(silent.items(), 1):
            self._later(writer, batch, Call(call_id, Claim(record_id, batch["tag"])), failure)
            if n % _COMMIT == 0:
                writer.flush()
        writer.write(lambda tx, counts: self.store.batches.end(tx, batch, message, kind))

    def _take_in(self, batch: Row, content: bytes) -> None:
        """Commit the answers of a file; each is taken once, however often the file is read."""
        waiting = self.store.batches.waiting(batch["id"])
        answers = ((call_id, line) for call_id, line in _lines(content) if call_id in waiting)
        writer = RunWriter(self.context)
        for n, (call_id, line) in enumerate(answers, 1):
            # Whoever began the batch may be dead: its calls and items are held by its tag.
            call = Call(call_id, Claim(waiting[call_id], batch["tag"]))
            self._later(writer, batch, call, self._read(call.claim.record_id, line))
            if n % _COMMIT == 0:
                writer.flush()
        writer.flush()

    def _later(self, writer: RunWriter, batch: Row, call: Call, answer: Completion | BackendFailure) -> None:
        """Let the writer commit what came of a call in a batch, unless another process did."""

        def work(tx: Tx, counts: Any) -> None:
            if not self.store.batches.take(tx, batch["id"], call.id):
                return
            if isinstance(answer, Completion):
                self.context.answered(tx, counts, call, answer)
            else:
                # Worth another try in the next batch, until the item's tries are used up.
                self.context.failed(tx, counts, call, answer)

        writer.later(work)

    def _read(self, record_id: int, line: Mapping[str, Any]) -> Completion | BackendFailure:
        response = line.get("response")
        if not isinstance(response, dict):
            error = line.get("error")
            if not isinstance(error, dict):
                return BackendFailure(
                    "server",
                    Sentence("Not answered in the batch: %(why)s", why=Sentence("no reason given")),
                    retryable=True,
                )
            # What is no fault of the call may be one of all calls: no credit, no such model.
            response = {"status_code": _FAILED, "body": {"error": error}}
        task = self.suggester.task
        request = BackendRequest(
            Record(record_id, self.suggester.project_id, "", ""), task.name, task.schema,
            json_schema=self.suggester.asked.json_schema(), generation=self.suggester.generation,
        )  # fmt: skip
        status = response.get("status_code")
        found = self.backend.read(response.get("body"), request, status if isinstance(status, int) else 200)
        # A provider that answered with a file is there: a call that reached no model in it has had a try.
        return replace(found, kind="server") if isinstance(found, BackendFailure) and found.kind == AWAY else found

    # What is to be sent

    def _send(self) -> None:
        """Step on every item that is free; send the calls that this leaves, in as few files as the limits allow."""
        bounded = bool(self.store.ledger.budgets(self.run_id))
        if bounded and self.store.batches.open(self.run_id):
            # What is on its way may use up the budget: one batch at a time. What is answered is finished meanwhile.
            self.context.closed = True
        while not self.stop.is_set() and self._one_file() and not bounded:
            pass

    def _one_file(self) -> bool:
        """Fill and send one file; False when nothing was left to send."""
        file = _File(self)
        try:
            while not file.full() and not self.stop.is_set():
                due = self.context.due()
                if due is None or due > time.time():
                    break
                file.add(self.context.claim(file.room()))
            return file.send()
        except LabelerError:
            file.drop()
            raise
        finally:
            file.close()


class _File:
    """One file of calls that is being filled: its lines, and its row in the store once there is a line."""

    def __init__(self, executor: BatchExecutor) -> None:
        self.executor, self.store, self.context = executor, executor.store, executor.context
        self.lines: list[bytes] = []
        self.size = 0
        self.batch: Row | None = None
        # Another process took this one for dead, and the batch is not ours any more.
        self.lost = False
        # The provider was asked for the batch, and nobody knows what it did.
        self.unknown = False
        self._living = ExitStack()
        # US dollars: what may still be spent, and what the calls in this file are thought to cost.
        self.left = self.store.ledger.left(executor.run_id)
        self.thought = 0.0

    def full(self) -> bool:
        used_up = self.left is not None and self.left <= 0 and bool(self.lines)
        return len(self.lines) >= MAX_CALLS or self.size >= MAX_BYTES or used_up or self.lost

    def room(self) -> int:
        """How many items to step on next: with a budget no more than it will bear, as far as the prices tell."""
        if self.left is None:
            return _SLICE
        each = self.thought / len(self.lines) if self.lines else None
        return 1 if not each else max(1, min(_SLICE, int(self.left / each)))

    def add(self, claims: Sequence[Claim]) -> None:
        """Step on the flows of some records; those that want a call sent wait in this file."""
        rounds = Rounds(self.context, self.executor.stop)
        try:
            rounds.start(claims)
            while rounds.items:
                self._write(rounds, rounds.begin())
                rounds.advance()
        finally:
            rounds.put_all_back()

    def _write(self, rounds: Rounds, sendings: Sequence[Sending]) -> None:
        """Put calls that were begun into the file, or give them back."""
        if not sendings:
            return
        try:
            lines = [_line(self.executor.backend, sending, self._request(sending)) for sending in sendings]
            self.lost = not self._store(sendings)
        except Exception:
            self.store.write(lambda tx: rounds.unsend(tx, sendings))
            raise
        if self.lost:
            self.store.write(lambda tx: rounds.unsend(tx, sendings))
            rounds.put_all_back()
            return
        rounds.park(sendings)
        if self.left is not None:
            price = sum(self._price(sending) for sending in sendings)
            self.thought += price
            self.left -= price
        self.lines += lines
        self.size += sum(len(line) for line in lines)

    def _store(self, sendings: Sequence[Sending]) -> bool:
        """Write down that calls are in this batch; False if it was given up meanwhile."""
        batch = self.batch

        def work(tx: Tx) -> Row | None:
            row = batch or self.store.batches.create(tx, self.executor.run_id, str(self.context.address))
            items = {sending.item.claim.record_id for sending in sendings}
            added = self.store.batches.add(tx, row, [sending.call.id for sending in sendings], sorted(items))
            return row if added else None

        row = self.store.write(work)
        if row is None:
            return False
        self.batch = row
        if batch is None:
            self._living.enter_context(repeating(self._live, max(_ABANDONED / 5, 0.05), "labeler-batch"))
        return True

    def _live(self) -> None:
        batch = self.batch
        if batch is not None:
            self.store.write(lambda tx: self.store.batches.alive(tx, batch["id"]))

    def close(self) -> None:
        """End what says that this process still fills and sends the file."""
        self._living.close()

    def _request(self, sending: Sending) -> BackendRequest:
        return self.executor.suggester.request(sending.item.prepared, sending.ask)

    def _price(self, sending: Sending) -> float:
        tokens = self.executor.suggester.tokens.prompt(sending.ask.messages)
        return cost(tokens, EXPECTED_ANSWER, 0, self.context.info, batch=True) or 0.0

    def send(self) -> bool:
        """Hand the file to the provider; False where there is none, or where the batch is not ours any more."""
        batch = self.batch
        if batch is None or self.lost:
            return False
        client = self.executor.backend.batches
        file_id = client.upload(b"".join(self.lines))
        if not self.store.write(lambda tx: self.store.batches.alive(tx, batch["id"])):
            return False
        try:
            remote = client.create_batch(file_id, {"labeler": batch["tag"]})
        except CallFailed as error:
            self.unknown = error.failure.retryable and error.failure.kind != "rate_limit"
            raise
        if not self.store.write(lambda tx: self.store.batches.sent(tx, batch["id"], str(remote["id"]))):
            # Another process took this one for dead, and the calls are on their way again: they are not paid twice.
            client.cancel_batch(str(remote["id"]))
        return True

    def drop(self) -> None:
        """Give up a file that could not be sent: its calls are free again.

        One that the provider has is left alone, and so is one that it may have, since its answer never came: the batch
        is looked for by its tag, as after a death.
        """
        batch, delay = self.batch, self.executor.poll_seconds
        if batch is not None and not self.unknown:
            self.store.write(
                lambda tx: self.store.batches.end(tx, batch, Sentence("could not be sent"), "unsent", delay)
            )


def _line(backend: BatchingBackend, sending: Sending, request: BackendRequest) -> bytes:
    body = backend.body(request)
    line = {"custom_id": str(sending.call.id), "method": "POST", "url": "/v1/chat/completions", "body": body}
    return (strictjson.dumps(line) + "\n").encode()


def _lines(content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of the call and the line of each answer; a line that cannot be read answers nothing."""
    for raw in content.split(b"\n"):
        try:
            line = json.loads(raw)
            yield int(line["custom_id"]), line
        except (ValueError, TypeError, KeyError, RecursionError):
            continue


def _standing(found: Mapping[str, Any]) -> str:
    counts = found.get("request_counts")
    status = str(found.get("status"))[:40]
    if not isinstance(counts, dict):
        return status
    done, total = counts.get("completed", 0), counts.get("total", 0)
    return Sentence("%(why)s, %(n)s of %(total)s answered", why=status, n=done, total=total)


def _errors(found: Mapping[str, Any]) -> str:
    errors = found.get("errors")
    rows = errors.get("data") if isinstance(errors, dict) else None
    said = [str(row.get("message")) for row in rows or () if isinstance(row, dict)]
    return "; ".join(said[:3])[:300]
