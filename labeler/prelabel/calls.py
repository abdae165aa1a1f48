"""Every call of a run through the ledger: asked for, counted, answered, failed; and the items they belong to.

A :class:`Clerk` belongs to one thread. What it has to commit after an answer rides with its next transaction, which
is usually the beginning of the next call: one commit for the end of one call and the start of another. Whoever is
about to wait or to stop calls :meth:`Clerk.flush` first, so that nothing answered is ever left lying.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from labeler import strictjson
from labeler.backends.prices import ModelInfo, cost
from labeler.errors import InputError
from labeler.prelabel.flows import Ask
from labeler.prelabel.suggest import Suggester
from labeler.records import BackendFailure, Completion, RateLimits, Suggestion
from labeler.store import Store, Tx
from labeler.store.ledger import FINISHED, OPEN, PAUSED, RUNNING
from labeler.store.limits import SetLimits, worth_learning
from labeler.text import count_tokens

T = TypeVar("T")
_LONGEST_WAIT = 120.0
EXPECTED_ANSWER = 60


@dataclass(frozen=True, slots=True)
class Pace:
    """How a run is moved. ``lease`` must outlast a call; ``base_delay`` is the first back-off. All in seconds."""

    concurrency: int = 16
    max_tries: int = 6
    lease: float = 90.0
    base_delay: float = 0.5
    limits: SetLimits = SetLimits()


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is ours to send."""

    id: int
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that was answered before and is not sent again."""

    id: int
    completion: Completion


@dataclass(frozen=True, slots=True)
class Wait:
    """A call that may not be sent for ``seconds``: a rate limit, or another worker has it in flight."""

    seconds: float
    limited: bool


@dataclass(frozen=True, slots=True)
class Halt:
    """Nothing more of this run may be started; ``reason`` is for people where a budget is reached."""

    reason: str


Begun = Call | Answered | Wait | Halt


class Book:
    """What all threads that move one run share: the run, its prices, its leases, what is known of the server."""

    def __init__(
        self,
        store: Store,
        run_id: int,
        suggester: Suggester,
        pace: Pace,
        info: ModelInfo | None,
        batch: bool = False,
    ) -> None:
        self.store, self.run_id, self.suggester, self.pace, self.info = store, run_id, suggester, pace, info
        self.batch = batch
        self.token = self.fresh_token()
        self.halted = threading.Event()
        self.hold_until = 0.0
        backend = suggester.backend
        self.address = getattr(backend, "base_url", None) or backend.name
        # Local weights have no limits, and those of calls are not those of batches.
        free = batch or getattr(backend, "local", False) or not backend.billed
        by_model = "" if pace.limits != SetLimits() else f" {backend.model_id}"
        # Limits that a person set hold for the server, those that it tells hold for one of its models.
        self.server = None if free else f"{self.address}{by_model}"
        known = store.limits.known(self.server) if self.server else None
        self._counts_tokens = pace.limits.tokens is not None or (known is not None and known["tokens"] is not None)
        self._learned: RateLimits | None = None

    @staticmethod
    def fresh_token() -> str:
        return secrets.token_hex(8)

    def check_price(self) -> None:
        """Raise :class:`InputError` if a budget is to be kept and the price is unknown."""
        budgets = self.store.ledger.budgets(self.run_id)
        if budgets and cost(1, 1, 0, self.info) is None:
            kept = next(b for b in (budgets.run, budgets.project, budgets.day) if b is not None)
            raise InputError(
                f"The price of {self.suggester.backend.model_id} is unknown, so no budget (${kept:g}) can be kept; "
                "add the model to prices.json in the instance folder and resume, or start a run without a budget"
            )

    def pause(self, message: str) -> None:
        self.halted.set()
        self.store.write(lambda tx: self.store.ledger.set_run(tx, self.run_id, PAUSED, message, OPEN))

    def settle(self) -> None:
        """Say how a run stands that nobody moves any more: finished, or paused by a budget."""
        ledger = self.store.ledger
        if ledger.run(self.run_id)["state"] != RUNNING:
            return
        if ledger.next_due(self.run_id) is None:
            self.store.write(lambda tx: ledger.set_run(tx, self.run_id, FINISHED, None, OPEN))
        elif self.suggester.backend.billed and (reason := ledger.halted(self.run_id)) is not None:
            self.pause(reason)

    # Parts of transactions

    def begin(self, tx: Tx, counts: Counter[str], record_id: int, ask: Ask, fingerprint: str) -> Begun:
        """Write down that a call is about to be sent, if it may be."""
        store, backend = self.store, self.suggester.backend
        reason = store.ledger.halted(self.run_id, tx)
        if reason is not None:
            return Halt(reason)
        tokens = 0
        if self.server is not None:
            if self._counts_tokens:
                tokens = EXPECTED_ANSWER + sum(count_tokens(m["content"]) for m in ask.messages)
            seconds = store.limits.reserve(tx, self.server, tokens, self.pace.limits)
            if seconds > 0:
                return Wait(seconds, limited=True)
        row = store.ledger.begin_call(
            tx,
            {
                "fingerprint": fingerprint, "project_id": self.suggester.project_id, "run_id": self.run_id,
                "record_id": record_id, "task": self.suggester.task.name, "backend": backend.name,
                "model_id": backend.model_id,
            },
            self.token,
            self.pace.lease,
        )  # fmt: skip
        if row is None:
            # Another worker has this very call in flight: its answer will be in the ledger.
            return Wait(1.0, limited=False)
        if row["state"] == "answered":
            # What comes back in a batch was paid by this run, and is no second use.
            counts["reused"] += int(not (self.batch and row["run_id"] == self.run_id))
            return Answered(row["id"], _completion_of(row))
        counts["calls"] += 1
        counts["repeats"] += int(row["repeat"])
        return Call(row["id"], tokens)

    def answered(self, tx: Tx, counts: Counter[str], call: Call, answer: Completion) -> None:
        """Commit an answer and what it cost."""
        price = cost(answer.tokens_in, answer.tokens_out, answer.tokens_cached, self.info, batch=self.batch)
        row: dict[str, Any] = {
            "answer": answer.text, "finish": answer.finish, "score": answer.score, "scores": answer.scores,
            "note": answer.note, "answered_by": answer.model_id, "cost": price, "tokens_in": answer.tokens_in,
            "tokens_out": answer.tokens_out, "tokens_cached": answer.tokens_cached,
        }  # fmt: skip
        fresh = self.store.ledger.answer_call(tx, call.id, self.token, row)
        if self.batch and not fresh:
            # The same file, read by another worker: it was paid once. A call that was sent twice was paid twice.
            return
        counts["tokens_in"] += answer.tokens_in or 0
        counts["tokens_out"] += answer.tokens_out or 0
        counts["tokens_cached"] += answer.tokens_cached or 0
        counts["spent"] += price or 0.0  # type: ignore[assignment]
        counts["unpriced"] += int(price is None)
        self._learn(tx, answer.limits)
        if call.tokens and self.server is not None and answer.tokens_in is not None:
            real = answer.tokens_in + (answer.tokens_out or 0)
            self.store.limits.correct(tx, self.server, real - call.tokens)

    def failed(self, tx: Tx, counts: Counter[str], record_id: int, call: Call, failure: BackendFailure) -> None:
        """Commit that a call brought nothing: its item waits for another try, or ends."""
        ledger = self.store.ledger
        ledger.fail_call(tx, call.id, self.token, failure.kind, failure.message)
        self._learn(tx, failure.limits)
        tries = ledger.tries(self.run_id, record_id, tx)
        delay = backoff(tries, self.pace.base_delay, failure.retry_after)
        if failure.kind == "rate_limit":
            # The limit is the account's, not the record's: hold everybody back, in every process.
            self.hold_until = max(self.hold_until, time.time() + delay)
            if self.server is not None:
                self.store.limits.hold(tx, self.server, delay)
        if failure.fatal:
            self.put_back(tx, record_id, 0.0, failure, counts_as_try=False)
        elif failure.retryable and tries < self.pace.max_tries:
            self.put_back(tx, record_id, delay, failure)
        else:
            self.end(tx, counts, record_id, "failed", failure.kind, failure.message)

    def end_with(self, tx: Tx, counts: Counter[str], suggestions: Sequence[Suggestion], call_id: int | None) -> None:
        """End an item with its suggestions, the first of which is that of the run's own task, if it is still ours."""
        failure = suggestions[0].failure
        kind, message = (f"parse: {failure.kind}", failure.message) if failure else (None, None)
        if self.end(tx, counts, suggestions[0].record_id, "done", kind, message):
            for suggestion in suggestions:
                self.suggester.save(tx, replace(suggestion, run_id=self.run_id, call_id=call_id))

    def end(
        self, tx: Tx, counts: Counter[str], record_id: int, state: str, kind: str | None, message: str | None
    ) -> bool:
        """End an item if it is still ours (the fence); return whether it was."""
        if not self.store.ledger.finish_item(tx, self.run_id, record_id, self.token, state, kind, message):
            return False
        counts["failed" if state == "failed" else "done"] += 1
        counts["parse_failures"] += int(state != "failed" and kind is not None)
        return True

    def put_back(
        self, tx: Tx, record_id: int, delay: float, failure: BackendFailure | None = None, counts_as_try: bool = True
    ) -> None:
        kind, message = (failure.kind, failure.message) if failure else (None, None)
        self.store.ledger.put_back(tx, self.run_id, record_id, self.token, delay, kind, message, counts_as_try)

    def _learn(self, tx: Tx, said: RateLimits | None) -> None:
        if said is None or self.server is None or not worth_learning(said, self._learned):
            return
        self.store.limits.learn(tx, self.server, said)
        self._learned = said
        self._counts_tokens = self._counts_tokens or said.tokens is not None


Work = Callable[[Tx, "Counter[str]"], None]


@dataclass
class Clerk:
    """Writes for one thread. Works that are to be committed soon ride with the next transaction."""

    book: Book
    _later: list[Work] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        return bool(self._later)

    def later(self, work: Work) -> None:
        """Commit ``work`` with the next transaction."""
        self._later.append(work)

    def flush(self) -> None:
        if self._later:
            self.write(lambda tx, counts: None)

    def write(self, work: Callable[[Tx, Counter[str]], T]) -> T:
        """Commit what waits, then ``work``, in one transaction. If it fails, what waited still waits."""
        works = tuple(self._later)

        def together(tx: Tx) -> T:
            counts: Counter[str] = Counter()
            for waiting in works:
                waiting(tx, counts)
            if counts["spent"]:
                # Counted first: whether ``work`` may begin a call depends on what was spent.
                self._count(tx, counts)
                counts = Counter()
            result = work(tx, counts)
            self._count(tx, counts)
            return result

        result = self.book.store.write(together)
        del self._later[: len(works)]
        return result

    def _count(self, tx: Tx, counts: Counter[str]) -> None:
        found = {name: n for name, n in counts.items() if n}
        if found:
            self.book.store.ledger.count(tx, self.book.run_id, **found)
        if counts["spent"]:
            self.book.store.ledger.spend(tx, self.book.suggester.project_id, counts["spent"])


def backoff(tries: int, base: float, retry_after: float | None) -> float:
    """Return how long to wait before try ``tries + 1``: exponential with full jitter, never less than asked."""
    wait = min(_LONGEST_WAIT, base * 2 ** max(tries - 1, 0)) * random.uniform(0.5, 1.0)
    if retry_after is not None:
        wait = max(wait, min(retry_after, 3600.0) * random.uniform(1.0, 1.1))
    return float(wait)


def _completion_of(call: dict[str, Any]) -> Completion:
    return Completion(
        text=call["answer"] or "",
        tokens_in=call["tokens_in"],
        tokens_out=call["tokens_out"],
        tokens_cached=call["tokens_cached"],
        finish=call["finish"],
        score=call["score"],
        scores=strictjson.loads(call["scores"]) if call["scores"] else None,
        note=call["note"],
        model_id=call["answered_by"] or call["model_id"],
    )
