"""The local executor: moves the calls of a run with threads of this process.

Each item is leased, its call is written down as sent, then sent, then its answer and its suggestion are committed
together. Whatever dies in between is picked up after its lease by any worker. What failed in passing waits, with
jitter and at least as long as the server asked; what would fail for every record pauses the run after the first.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from labeler.backends.prices import ModelInfo, cost
from labeler.errors import InputError, LabelerError
from labeler.prelabel.suggest import PARSER_FAILED, Prepared, Suggester, fingerprint_of
from labeler.prompts import correction
from labeler.records import BackendFailure, Completion, Message, ParseFailure, Suggestion
from labeler.store import Row, Store, Tx
from labeler.store.ledger import FINISHED, OPEN, PAUSED, RUNNING

_LONGEST_WAIT = 120.0
_FREE_SLICE = 32
# Asked once more these would end the same way.
_FINAL = ("refusal", PARSER_FAILED)


@dataclass(frozen=True, slots=True)
class Pace:
    """How a run is moved. ``lease`` must outlast a call; ``base_delay`` is the first back-off. All in seconds."""

    concurrency: int = 16
    max_tries: int = 6
    lease: float = 90.0
    base_delay: float = 0.5


def backoff(tries: int, base: float, retry_after: float | None) -> float:
    """Return how long to wait before try ``tries + 1``: exponential with full jitter, never less than asked."""
    wait = min(_LONGEST_WAIT, base * 2 ** max(tries - 1, 0)) * random.uniform(0.5, 1.0)
    if retry_after is not None:
        wait = max(wait, min(retry_after, 3600.0) * random.uniform(1.0, 1.1))
    return float(wait)


class LocalExecutor:
    """Moves one run until it is finished, paused, cancelled, or ``stop`` is set. ``info`` prices the calls."""

    def __init__(
        self, store: Store, run_id: int, suggester: Suggester, pace: Pace, info: ModelInfo | None, stop: threading.Event
    ) -> None:
        self.store, self.run_id, self.suggester = store, run_id, suggester
        self.pace, self.info, self.stop = pace, info, stop
        self._token = secrets.token_hex(8)
        # Items that are leased and prepared, with the end of their lease.
        self._items: deque[tuple[Prepared, float]] = deque()
        self._fed = False
        self._ended = 0
        self._lock = threading.Lock()
        self._ready, self._room = threading.Condition(self._lock), threading.Condition(self._lock)
        self._halted = threading.Event()
        self._hold_until = 0.0

    def run(self) -> str:
        """Return the state the run is in when this executor has nothing more to do for it."""
        ledger = self.store.ledger
        if not self.store.write(lambda tx: ledger.set_run(tx, self.run_id, RUNNING, None, OPEN)):
            return str(ledger.run(self.run_id)["state"])
        try:
            if self.suggester.backend.billed:
                self._check_price()
                self._with_threads()
            else:
                self._free_slices()
        except LabelerError as error:
            self._pause(str(error))
        self._settle()
        return str(ledger.run(self.run_id)["state"])

    def _check_price(self) -> None:
        budget = self.store.ledger.run(self.run_id)["budget"]
        if budget is not None and self.info is None:
            raise InputError(
                f"The price of {self.suggester.backend.model_id} is unknown, so no budget (${budget:g}) can be kept; "
                "add the model to prices.json in the instance folder and resume, or start a run without a budget"
            )

    def _settle(self) -> None:
        run = self.store.ledger.run(self.run_id)
        if run["state"] != RUNNING:
            return
        if self.store.ledger.next_due(self.run_id) is None:
            self.store.write(lambda tx: self.store.ledger.set_run(tx, self.run_id, FINISHED, None, OPEN))
        elif _spent_up(run):
            self._pause(f"The budget of ${run['budget']:g} is reached; raise it and resume")

    def _pause(self, message: str) -> None:
        self._halted.set()
        self.store.write(lambda tx: self.store.ledger.set_run(tx, self.run_id, PAUSED, message, OPEN))

    def _over(self) -> bool:
        """Whether nothing new may be started: asked before every item, so that a cancel counts within a call."""
        if self.stop.is_set() or self._halted.is_set():
            return True
        run = self.store.ledger.standing(self.run_id)
        # What is leased already is not started either once the budget is reached.
        if run["state"] not in OPEN or (self.suggester.backend.billed and _spent_up(run)):
            self._halted.set()
        return self._halted.is_set()

    # Free backends: in slices, in this thread

    def _free_slices(self) -> None:
        while not self._over():
            ids = self._claim(_FREE_SLICE)
            if not ids:
                if not self._wait():
                    return
                continue
            records = self.store.records.many(ids)
            results = self.suggester.now([records[id_] for id_ in ids], save=False)
            fatal = next((r for r in results if isinstance(r, BackendFailure) and self._hopeless(r)), None)
            if fatal is not None:
                self.store.write(lambda tx, ids=ids: self._put_all_back(tx, ids))  # type: ignore[misc]
                self._pause(fatal.message)
                return
            self.store.write(lambda tx, ids=ids, results=results: self._save_free(tx, ids, results))  # type: ignore[misc]

    def _hopeless(self, failure: BackendFailure) -> bool:
        """Whether every other record would fail alike: nothing is approved yet, or the backend says so."""
        return failure.fatal or (failure.kind == "no_examples" and not len(self.suggester.index))

    def _save_free(self, tx: Tx, ids: Sequence[int], results: Sequence[Suggestion | BackendFailure]) -> None:
        for record_id, result in zip(ids, results, strict=True):
            if isinstance(result, BackendFailure):
                self._end(tx, record_id, "failed", result.kind, result.message)
            else:
                self._end_with(tx, replace(result, run_id=self.run_id))

    # Billed backends: threads that send, and one that leases and prepares ahead while calls are on their way

    def _with_threads(self) -> None:
        failures: list[BaseException] = []

        def guarded(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                self._halted.set()

        works = [self._feed, *[self._send] * self.pace.concurrency]
        threads = [
            threading.Thread(target=guarded, args=(work,), name=f"labeler-run-{self.run_id}-{n}", daemon=True)
            for n, work in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._return_unstarted()
        if failures:
            raise failures[0]

    def _feed(self) -> None:
        # Few: what is leased and not started would wait for nothing elsewhere.
        ahead = max(1, self.pace.concurrency // 2)
        try:
            while not self._over():
                with self._lock:
                    if len(self._items) >= ahead:
                        self._room.wait(0.25)
                        continue
                    ended = self._ended
                leased_until = time.time() + self.pace.lease
                ids = self._claim(max(1, ahead // 2))
                if not ids:
                    if not self._wait(ended):
                        return
                    continue
                records = self.store.records.many(ids)
                prepared = self.suggester.prepare([records[id_] for id_ in ids])
                with self._lock:
                    self._items.extend((item, leased_until) for item in prepared)
                    self._ready.notify(len(prepared))
        finally:
            with self._lock:
                self._fed = True
                self._ready.notify_all()

    def _send(self) -> None:
        while not (self._halted.is_set() or self.stop.is_set()):
            if self._held_back():
                continue
            item = self._take()
            if item is None:
                return
            if self._over():
                self._items.append(item)
                return
            if self._hold_until > time.time():
                # The limit came while this thread waited for its item.
                self._items.appendleft(item)
                continue
            self._one(item[0])
            with self._lock:
                self._ended += 1
                self._room.notify()

    def _claim(self, limit: int) -> list[int]:
        lease = self.pace.lease
        return self.store.write(lambda tx: self.store.ledger.claim_items(tx, self.run_id, self._token, limit, lease))

    def _take(self) -> tuple[Prepared, float] | None:
        """Return the next item with the end of its lease; None when no more will come."""
        with self._lock:
            while True:
                while self._items:
                    item = self._items.popleft()
                    self._room.notify()
                    if time.time() < item[1]:
                        return item
                    # It waited too long, held back by a rate limit: whoever claims it again prepares it again.
                if self._fed or self._halted.is_set() or self.stop.is_set():
                    return None
                self._ready.wait(0.25)

    def _wait(self, ended: int = 0) -> bool:
        """Sleep until an item may be due or another has ended; False when none is left or none may be started."""
        due = self.store.ledger.next_due(self.run_id)
        run = self.store.ledger.run(self.run_id)
        if due is None or _spent_up(run):
            return False
        with self._lock:
            if self._ended == ended:
                self._room.wait(min(max(due - time.time(), 0.02), 0.25))
        return True

    def _held_back(self) -> bool:
        """Wait a little if a rate limit holds everybody back, and say so; a cancel is still heard meanwhile."""
        delay = self._hold_until - time.time()
        if delay > 0:
            self.stop.wait(min(delay, 0.25))
        return delay > 0

    def _return_unstarted(self) -> None:
        ids = [prepared.record.id for prepared, _ in self._items]
        self._items.clear()
        if ids:
            self.store.write(lambda tx: self._put_all_back(tx, ids))

    def _put_all_back(self, tx: Tx, record_ids: Sequence[int]) -> None:
        for record_id in record_ids:
            # Leased but never started: it was no try.
            self.store.ledger.put_back(tx, self.run_id, record_id, self._token, 0.0, None, None, False)

    def _put_back(self, tx: Tx, record_id: int, delay: float, failure: BackendFailure | None = None) -> None:
        kind, message = (failure.kind, failure.message) if failure else (None, None)
        counts = failure is not None and not failure.fatal
        self.store.ledger.put_back(tx, self.run_id, record_id, self._token, delay, kind, message, counts)

    def _one(self, prepared: Prepared) -> None:
        completion, call = self._ask(prepared, prepared.messages, prepared.fingerprint)
        if completion is None or call is None:
            return
        value = self.suggester.parse(prepared.record, completion)
        if isinstance(value, ParseFailure) and value.kind not in _FINAL:
            self._keep(call, completion)
            if self._over():
                # The answer is kept; whoever goes on with the run finds it in the ledger.
                self.store.write(lambda tx: self._put_back(tx, prepared.record.id, 0.0))
                return
            # Asked once more with the error named; after that a person decides.
            again = correction(prepared.messages, value.raw, value.message, self.suggester.style.language)
            fingerprint = fingerprint_of({"after": prepared.fingerprint, "answer": value.raw, "error": value.message})
            completion, call = self._ask(prepared, again, fingerprint)
            if completion is None or call is None:
                return
        self._finish(prepared, call, completion)

    def _finish(self, prepared: Prepared, call: dict[str, Any], completion: Completion) -> None:
        """Commit an answer and the suggestion made of it together; whatever fails, the answer is committed."""
        try:
            made = self.suggester.finish(prepared, completion)
        except BaseException:
            self._keep(call, completion)
            raise
        suggestion = replace(made, run_id=self.run_id, call_id=call["id"])

        def work(tx: Tx) -> None:
            self._answered(tx, call, completion)
            self._end_with(tx, suggestion)

        self.store.write(work)

    def _keep(self, call: dict[str, Any], completion: Completion) -> None:
        self.store.write(lambda tx: self._answered(tx, call, completion))

    def _ask(
        self, prepared: Prepared, messages: Sequence[Message], fingerprint: str
    ) -> tuple[Completion, dict[str, Any]] | tuple[None, None]:
        """Return the answer to one call, from the ledger if it was paid before; None if the item has to wait.

        A fresh answer is not committed yet: the caller does that.
        """
        ledger, record_id = self.store.ledger, prepared.record.id
        call = self.store.write(lambda tx: self._begin(tx, record_id, fingerprint))
        if call is None:
            # Another worker has this very call in flight: its answer will be in the ledger.
            self.store.write(
                lambda tx: ledger.put_back(tx, self.run_id, record_id, self._token, 1.0, None, None, False)
            )
            return None, None
        if call["state"] == "answered":
            return _completion_of(call), call
        answer = next(iter(self.suggester.backend.complete([self.suggester.request(prepared, messages)])))
        if isinstance(answer, BackendFailure):
            self._failed(record_id, call, answer)
            return None, None
        return answer, call

    def _begin(self, tx: Tx, record_id: int, fingerprint: str) -> dict[str, Any] | None:
        backend = self.suggester.backend
        row = self.store.ledger.begin_call(
            tx,
            {
                "fingerprint": fingerprint, "project_id": self.suggester.project_id, "run_id": self.run_id,
                "record_id": record_id, "task": self.suggester.task.name, "backend": backend.name,
                "model_id": backend.model_id,
            },
            self._token,
            self.pace.lease,
        )  # fmt: skip
        if row is not None and row["state"] == "answered":
            self.store.ledger.count(tx, self.run_id, reused=1)
        elif row is not None:
            self.store.ledger.count(tx, self.run_id, calls=1, repeats=int(row["repeat"]))
        return row

    def _answered(self, tx: Tx, call: dict[str, Any], answer: Completion) -> None:
        if call["state"] == "answered":
            return
        price = cost(answer.tokens_in, answer.tokens_out, answer.tokens_cached, self.info)
        row: dict[str, Any] = {
            "answer": answer.text, "finish": answer.finish, "score": answer.score, "tokens_in": answer.tokens_in,
            "tokens_out": answer.tokens_out, "tokens_cached": answer.tokens_cached, "cost": price,
        }  # fmt: skip
        self.store.ledger.answer_call(tx, call["id"], self._token, row)
        self.store.ledger.count(
            tx,
            self.run_id,
            tokens_in=answer.tokens_in or 0,
            tokens_out=answer.tokens_out or 0,
            tokens_cached=answer.tokens_cached or 0,
            spent=price or 0.0,
            unpriced=int(price is None),
        )

    def _failed(self, record_id: int, call: dict[str, Any], failure: BackendFailure) -> None:
        tries = self.store.ledger.tries(self.run_id, record_id)
        again = failure.retryable and tries < self.pace.max_tries
        delay = backoff(tries, self.pace.base_delay, failure.retry_after)
        if failure.kind == "rate_limit":
            # The limit is the account's, not the record's: hold everybody back.
            self._hold_until = max(self._hold_until, time.time() + delay)

        def work(tx: Tx) -> None:
            self.store.ledger.fail_call(tx, call["id"], self._token, failure.kind, failure.message)
            if failure.fatal or again:
                self._put_back(tx, record_id, 0.0 if failure.fatal else delay, failure)
            else:
                self._end(tx, record_id, "failed", failure.kind, failure.message)

        self.store.write(work)
        if failure.fatal:
            self._pause(failure.message)

    def _end_with(self, tx: Tx, suggestion: Suggestion) -> None:
        failure = suggestion.failure
        kind, message = (f"parse: {failure.kind}", failure.message) if failure else (None, None)
        if self._end(tx, suggestion.record_id, "done", kind, message):
            self.suggester.save(tx, suggestion)

    def _end(self, tx: Tx, record_id: int, state: str, kind: str | None, message: str | None) -> bool:
        """End an item if it is still ours (the fence); return whether it was."""
        ledger = self.store.ledger
        if not ledger.finish_item(tx, self.run_id, record_id, self._token, state, kind, message):
            return False
        if state == "failed":
            ledger.count(tx, self.run_id, failed=1)
        else:
            ledger.count(tx, self.run_id, done=1, parse_failures=int(kind is not None))
        return True


def _spent_up(run: Mapping[str, Any] | Row) -> bool:
    return run["budget"] is not None and run["spent"] >= run["budget"]


def _completion_of(call: dict[str, Any]) -> Completion:
    return Completion(
        text=call["answer"] or "",
        tokens_in=call["tokens_in"],
        tokens_out=call["tokens_out"],
        tokens_cached=call["tokens_cached"],
        finish=call["finish"],
        score=call["score"],
        model_id=call["model_id"],
    )
