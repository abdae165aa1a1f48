"""The local executor: moves the calls of a run with threads of this process.

Each item is leased, its call is written down as sent, then sent, then its answer and its suggestion are committed
together. Whatever dies in between is picked up after its lease by any worker. What failed in passing waits, with
jitter and at least as long as the server asked; what would fail for every record pauses the run after the first.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from labeler.backends.prices import ModelInfo
from labeler.errors import LabelerError
from labeler.prelabel.calls import Answered, Book, Call, Clerk, Halt, Pace, Wait
from labeler.prelabel.flows import Ask
from labeler.prelabel.rounds import Rounds
from labeler.prelabel.suggest import Prepared, Started, Suggester
from labeler.records import BackendFailure, Suggestion
from labeler.store import Store, Tx
from labeler.store.ledger import OPEN, RUNNING

_FREE_SLICE = 32
# How many batches of a local model are leased and prepared together: sorted by length they waste little on padding.
_BATCHES = 4
# A shorter wait is slept through; for a longer one the item goes back.
_SHORT_WAIT = 5.0


class LocalExecutor:
    """Moves one run until it is finished, paused, cancelled, or ``stop`` is set. ``info`` prices the calls."""

    def __init__(
        self, store: Store, run_id: int, suggester: Suggester, pace: Pace, info: ModelInfo | None, stop: threading.Event
    ) -> None:
        self.store, self.run_id, self.suggester = store, run_id, suggester
        self.pace, self.stop = pace, stop
        self.book = Book(store, run_id, suggester, pace, info)
        # Items that are leased and prepared, with the end of their lease.
        self._items: deque[tuple[Prepared, float]] = deque()
        self._fed = False
        self._ended = 0
        self._lock = threading.Lock()
        self._ready, self._room = threading.Condition(self._lock), threading.Condition(self._lock)

    def run(self) -> str:
        """Return the state the run is in when this executor has nothing more to do for it."""
        ledger = self.store.ledger
        if not self.store.write(lambda tx: ledger.set_run(tx, self.run_id, RUNNING, None, OPEN)):
            return str(ledger.run(self.run_id)["state"])
        backend = self.suggester.backend
        try:
            if not backend.billed:
                self._free_slices()
            else:
                self.book.check_price()
                batch = getattr(backend, "batch", 1)
                if batch > 1 or getattr(backend, "local", False):
                    self._in_rounds(batch)
                else:
                    self._with_threads()
        except LabelerError as error:
            self.book.pause(str(error))
        self.book.settle()
        return str(ledger.run(self.run_id)["state"])

    def _stopped(self) -> bool:
        return self.stop.is_set() or self.book.halted.is_set()

    def _over(self) -> bool:
        """Whether nothing new may be started: the run was moved, or a budget is reached."""
        if not self._stopped():
            ledger = self.store.ledger
            if self.suggester.backend.billed:
                over = ledger.halted(self.run_id) is not None
            else:
                over = ledger.run(self.run_id)["state"] not in OPEN
            if over:
                self.book.halted.set()
        return self._stopped()

    def _claim(self, limit: int) -> list[int]:
        book, lease = self.book, self.pace.lease
        return self.store.write(lambda tx: self.store.ledger.claim_items(tx, self.run_id, book.token, limit, lease))

    def _put_all_back(self, tx: Tx, record_ids: Sequence[int]) -> None:
        for record_id in record_ids:
            # Leased but never started: it was no try.
            self.book.put_back(tx, record_id, 0.0, counts_as_try=False)

    def _wait(self, ended: int = 0) -> bool:
        """Sleep until an item may be due or another has ended; False when none is left or none may be started."""
        due = self.store.ledger.next_due(self.run_id)
        if due is None or self._over():
            return False
        with self._lock:
            if self._ended == ended:
                self._room.wait(min(max(due - time.time(), 0.02), 0.25))
        return True

    # Free backends: in slices, in this thread

    def _free_slices(self) -> None:
        clerk = Clerk(self.book)
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
                self.book.pause(fatal.message)
                return
            clerk.write(lambda tx, counts, ids=ids, results=results: self._save_free(tx, counts, ids, results))  # type: ignore[misc]

    def _hopeless(self, failure: BackendFailure) -> bool:
        """Whether every other record would fail alike: nothing is approved yet, or the backend says so."""
        return failure.fatal or (failure.kind == "no_examples" and not len(self.suggester.index))

    def _save_free(
        self, tx: Tx, counts: Counter[str], ids: Sequence[int], results: Sequence[Suggestion | BackendFailure]
    ) -> None:
        for record_id, result in zip(ids, results, strict=True):
            if isinstance(result, BackendFailure):
                self.book.end(tx, counts, record_id, "failed", result.kind, result.message)
            else:
                self.book.end_with(tx, counts, [result], None)

    # Local weights: many records in rounds, in this thread

    def _in_rounds(self, batch: int) -> None:
        ready = getattr(self.suggester.backend, "ready", None)
        if ready is not None:
            # Before anything is claimed: what every record would fail for pauses the run here.
            ready()
        rounds = Rounds(self.book, self.stop)
        try:
            while not self._over():
                ids = self._claim(batch * _BATCHES)
                if not ids:
                    if not self._wait():
                        return
                    continue
                records = self.store.records.many(ids)
                rounds.start([records[id_] for id_ in ids])
                while rounds.items:
                    self._round(rounds)
        finally:
            # What was answered is kept, whatever happened.
            rounds.put_all_back()

    def _round(self, rounds: Rounds) -> None:
        sendings = rounds.begin()
        with rounds.keeping_leases(sendings):
            requests = [rounds.request(sending) for sending in sendings]
            for sending, answer in zip(sendings, self.suggester.backend.complete(requests), strict=True):
                rounds.take(sending, answer)
        rounds.advance()

    # Servers: threads that send, and one that leases and prepares ahead while calls are on their way

    def _with_threads(self) -> None:
        failures: list[BaseException] = []

        def guarded(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                self.book.halted.set()

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
        # Not many: what is leased and not started would wait for nothing elsewhere.
        ahead = self.pace.concurrency
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
        clerk = Clerk(self.book)
        try:
            while not self._stopped():
                if self._held_back(clerk):
                    continue
                item = self._take(clerk)
                if item is None:
                    return
                if self.book.hold_until > time.time():
                    # The limit came while this thread waited for its item.
                    self._items.appendleft(item)
                    continue
                if self._stopped():
                    self._items.append(item)
                    return
                self._one(clerk, item[0])
                with self._lock:
                    self._ended += 1
                    self._room.notify()
        finally:
            clerk.flush()

    def _take(self, clerk: Clerk) -> tuple[Prepared, float] | None:
        """Return the next item with the end of its lease; None when no more will come."""
        while True:
            with self._lock:
                while self._items:
                    item = self._items.popleft()
                    self._room.notify()
                    if time.time() < item[1]:
                        return item
                    # It waited too long, held back by a rate limit: whoever claims it again prepares it again.
                if self._fed or self._stopped():
                    return None
                if not clerk.waits:
                    self._ready.wait(0.25)
            # Nothing to begin: what waits to be committed waits no longer.
            clerk.flush()

    def _held_back(self, clerk: Clerk) -> bool:
        """Wait a little if a rate limit holds everybody back, and say so; a cancel is still heard meanwhile."""
        delay = self.book.hold_until - time.time()
        if delay > 0:
            clerk.flush()
            self.stop.wait(min(delay, 0.25))
            self._over()
        return delay > 0

    def _return_unstarted(self) -> None:
        ids = [prepared.record.id for prepared, _ in self._items]
        self._items.clear()
        if ids:
            self.store.write(lambda tx: self._put_all_back(tx, ids))

    def _one(self, clerk: Clerk, prepared: Prepared) -> None:
        """Drive the flow of one item; it ends with its suggestions, or waits for another try."""
        flow = self.suggester.flow(prepared)
        asks = flow.step()
        call_id: int | None = None
        while asks is not None:
            completions = []
            for ask in asks:
                answer = self._ask(clerk, flow, prepared, ask)
                if answer is None:
                    return
                completions.append(answer.completion)
                call_id = answer.id
            asks = flow.step(completions)
        assert flow.outcomes is not None
        made = self.suggester.finish_all(prepared, flow.outcomes)
        clerk.later(lambda tx, counts: self.book.end_with(tx, counts, made, call_id))

    def _ask(self, clerk: Clerk, flow: Started, prepared: Prepared, ask: Ask) -> Answered | None:
        """Return the answer to one call, from the ledger if it was paid before; None if the item has to wait.

        A fresh answer is committed with the clerk's next transaction.
        """
        record_id = prepared.record.id
        if self._stopped():
            clerk.write(lambda tx, counts: self.book.put_back(tx, record_id, 0.0, counts_as_try=False))
            return None
        fingerprint = flow.fingerprint(ask)
        begun = clerk.write(lambda tx, counts: self.book.begin(tx, counts, record_id, ask, fingerprint))
        while isinstance(begun, Wait) and begun.limited and begun.seconds <= _SHORT_WAIT and not self._stopped():
            self.stop.wait(begun.seconds)
            begun = clerk.write(lambda tx, counts: self.book.begin(tx, counts, record_id, ask, fingerprint))
        if isinstance(begun, Answered):
            return begun
        if not isinstance(begun, Call):
            delay = begun.seconds if isinstance(begun, Wait) else 0.0
            if isinstance(begun, Halt):
                self.book.halted.set()
            elif begun.limited:
                self.book.hold_until = max(self.book.hold_until, time.time() + delay)
            clerk.write(lambda tx, counts: self.book.put_back(tx, record_id, delay, counts_as_try=False))
            return None
        call = begun
        answer = next(iter(self.suggester.backend.complete([self.suggester.request(prepared, ask)])))
        if isinstance(answer, BackendFailure):
            self._failed(clerk, record_id, call, answer)
            return None
        clerk.later(lambda tx, counts: self.book.answered(tx, counts, call, answer))
        return Answered(call.id, answer)

    def _failed(self, clerk: Clerk, record_id: int, call: Call, failure: BackendFailure) -> None:
        clerk.write(lambda tx, counts: self.book.failed(tx, counts, record_id, call, failure))
        if failure.fatal:
            self.book.pause(failure.message)
