"""The local executor: moves the calls of a run with threads of this process.

Each item is leased, its call is written down as sent, then sent, then its answer and its suggestion are committed
together. Whatever dies in between is picked up after its lease by any worker. What failed in passing waits, with
jitter and at least as long as the server asked; what would fail for every record pauses the run after the first. A
run of which nothing is due for a while is left alone, still running: other runs may move, and what it waits for may
be one of them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from labeler.backends.prices import ModelInfo
from labeler.errors import LabelerError
from labeler.prelabel.calls import LIMIT, Answered, Call, CallPolicy, Claim, Held, RunContext, RunWriter
from labeler.prelabel.rounds import Item, Rounds, items_of
from labeler.prelabel.suggest import Suggester
from labeler.prelabel.throttle import Throttle
from labeler.records import BackendFailure, Suggestion
from labeler.store import Store, Tx

_FREE_SLICE = 32
# How many batches of a local model are leased and prepared together: sorted by length they waste little on padding.
_BATCHES = 4
# A shorter wait is slept through; for a longer one the item goes back, and a run of which nothing is due is left.
_SHORT_WAIT = 5.0
_LOOK = 0.25
# Failures that say that a server has more calls than it can answer.
_OVERLOADED = ("timeout", "rate_limit")


class LocalExecutor:
    """Moves one run until it is finished, paused, cancelled, waits for long, or ``stop`` is set. ``info`` prices calls.

    A run that is paused or cancelled is moved only to finish what is answered already.
    """

    def __init__(
        self,
        store: Store,
        run_id: int,
        suggester: Suggester,
        policy: CallPolicy,
        info: ModelInfo | None,
        stop: threading.Event,
    ) -> None:
        self.store, self.run_id, self.suggester = store, run_id, suggester
        self.policy, self.stop = policy, stop
        self.context = RunContext(store, run_id, suggester, policy, info)
        self._items: deque[Item] = deque()
        # Items that are leased by this executor and have not ended: prepared, or in the hands of a thread.
        self._under_way = 0
        self._fed = False
        self._throttle = Throttle(policy.concurrency, suggester.backend.slots)
        self._sending = 0
        self._broken = threading.Event()
        self._lock = threading.Lock()
        self._ready, self._room = threading.Condition(self._lock), threading.Condition(self._lock)

    def run(self) -> str:
        """Return the state the run is in when this executor has nothing more to do for it for a while."""
        backend = self.suggester.backend
        try:
            moving = self.context.start()
            if self._is_due():
                if not backend.billed:
                    self._free_slices()
                else:
                    self._billed(moving)
        except LabelerError as error:
            self.context.pause(str(error))
        return self.context.settle()

    def _billed(self, moving: bool) -> None:
        if moving:
            self.context.check_price()
        batch = self.suggester.backend.batch
        if batch > 1 or self.suggester.backend.local:
            self._in_rounds(batch, moving)
        else:
            self._with_threads()

    def _stopped(self) -> bool:
        return self.stop.is_set() or self._broken.is_set()

    def _is_due(self) -> bool:
        """Whether something may be claimed soon."""
        due = self.context.due()
        return due is not None and due <= time.time() + _SHORT_WAIT

    def _claim(self, limit: int) -> list[Claim] | None:
        """Lease items; none after a short wait where none is due yet, None where none will be for a while."""
        with self._lock:
            busy = self._under_way > 0
        due, now = self.context.due(), time.time()
        if due is not None and due <= now:
            return self.context.claim(limit)
        if not busy and (due is None or due > now + _SHORT_WAIT):
            return None
        with self._lock:
            # An item that ends may be one that waits again.
            if self._under_way or not busy:
                self._room.wait(_LOOK if due is None else min(max(due - now, 0.02), _LOOK))
        return []

    # Free backends: in slices, in this thread

    def _free_slices(self) -> None:
        writer = RunWriter(self.context)
        while not self._stopped() and (claims := self._claim(_FREE_SLICE)) is not None:
            if not claims:
                continue
            records = self.store.records.many([claim.record_id for claim in claims])
            results = self.suggester.now([records[claim.record_id] for claim in claims], save=False)
            fatal = next((r for r in results if isinstance(r, BackendFailure) and self._hopeless(r)), None)
            if fatal is not None:
                self.context.give_back(claims)
                self.context.pause(fatal.message)
                return
            made = list(zip(claims, results, strict=True))
            writer.write(lambda tx, counts, made=made: self._save_free(tx, counts, made))  # type: ignore[misc]

    def _hopeless(self, failure: BackendFailure) -> bool:
        """Whether every other record would fail alike: nothing is approved yet, or the backend says so."""
        return failure.fatal or (failure.kind == "no_examples" and not len(self.suggester.index))

    def _save_free(
        self, tx: Tx, counts: Counter[str], made: Sequence[tuple[Claim, Suggestion | BackendFailure]]
    ) -> None:
        for claim, result in made:
            if isinstance(result, BackendFailure):
                self.context.end(tx, counts, claim, "failed", result.kind, result.message)
            else:
                self.context.end_with(tx, counts, claim, [result], None)

    # Local weights: many records in rounds, in this thread

    def _in_rounds(self, batch: int, moving: bool) -> None:
        if moving:
            # Before anything is claimed: what every record would fail for pauses the run here.
            self.suggester.backend.ready()
        rounds = Rounds(self.context, self.stop)
        with rounds.keeping_leases():
            try:
                while not self._stopped() and (claims := self._claim(batch * _BATCHES)) is not None:
                    rounds.start(claims)
                    while rounds.items:
                        self._round(rounds)
            finally:
                # What was answered is kept, whatever happened.
                rounds.put_all_back()

    def _round(self, rounds: Rounds) -> None:
        sendings = rounds.begin()
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
                self._broken.set()

        works = [self._feed, *[self._send] * self.policy.concurrency]
        threads = [
            threading.Thread(target=guarded, args=(work,), name=f"labeler-run-{self.run_id}-{n}", daemon=True)
            for n, work in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left = [item.claim for item in self._items]
        self._items.clear()
        try:
            self.context.give_back(left)
        finally:
            if failures:
                raise failures[0]

    def _feed(self) -> None:
        # Not many: what is leased and not started would wait for nothing elsewhere.
        ahead = self.policy.concurrency
        try:
            while not self._stopped():
                with self._lock:
                    if len(self._items) >= ahead:
                        self._room.wait(_LOOK)
                        continue
                claims = self._claim(max(1, ahead // 2))
                if claims is None:
                    return
                items = items_of(self.context, claims)
                with self._lock:
                    self._items.extend(items)
                    self._under_way += len(items)
                    self._ready.notify(len(items))
        finally:
            with self._lock:
                self._fed = True
                self._ready.notify_all()

    def _send(self) -> None:
        writer = RunWriter(self.context)
        try:
            while (item := self._take(writer)) is not None:
                try:
                    self._one(writer, item)
                finally:
                    with self._lock:
                        self._under_way -= 1
                        self._sending -= 1
                        self._room.notify()
                        # The throttle may have let in another one as well.
                        self._ready.notify(2)
        finally:
            writer.flush()

    def _take(self, writer: RunWriter) -> Item | None:
        """Return the next item; None when no more will come."""
        while True:
            with self._lock:
                if self._stopped() or (self._fed and not self._items):
                    return None
                if self._items and self._sending < self._throttle.limit:
                    self._sending += 1
                    self._room.notify()
                    return self._items.popleft()
                if not writer.waits:
                    self._ready.wait(_LOOK)
            # Nothing to begin: what waits to be committed waits no longer.
            writer.flush()

    def _one(self, writer: RunWriter, item: Item) -> None:
        """Drive the flow of one item; it ends with its suggestions, or waits for another try."""
        try:
            while (made := item.move(self.context)) is None:
                for place in item.missing:
                    if not self._ask(writer, item, place):
                        return
        except Exception:
            writer.later(lambda tx, counts: self.context.put_back(tx, item.claim, looked=False))
            raise
        item.end(self.context, writer, made)

    def _ask(self, writer: RunWriter, item: Item, place: int) -> bool:
        """Get the answer to one call, from the ledger if it was paid before; False if the item was let go.

        A fresh answer is committed with the writer's next transaction.
        """
        if self._stopped():
            writer.write(lambda tx, counts: self.context.put_back(tx, item.claim, looked=False))
            return False
        begun = self._begun(writer, item, place)
        if isinstance(begun, Answered):
            item.take(place, begun)
        if not isinstance(begun, Call):
            return isinstance(begun, Answered)
        began = time.monotonic()
        answer = next(iter(self.suggester.backend.complete([self.suggester.request(item.prepared, item.asks[place])])))
        if isinstance(answer, BackendFailure):
            if answer.kind in _OVERLOADED:
                self._throttle.overloaded(began)
            writer.write(lambda tx, counts: self.context.failed(tx, counts, begun, answer))
            return False
        self._throttle.answered()
        writer.later(lambda tx, counts: self.context.answered(tx, counts, begun, answer))
        item.take(place, Answered(begun.id, answer, self.run_id, fresh=True))
        return True

    def _begun(self, writer: RunWriter, item: Item, place: int) -> Call | Answered | Held:
        """Begin a call; a short wait for the rate limit is slept through, with the item in hand."""
        question, until = item.question(place), time.monotonic() + _SHORT_WAIT
        while True:
            patience = 0.0 if self._stopped() else until - time.monotonic()
            begun = writer.write(
                lambda tx, counts, wait=patience: self.context.begin(  # type: ignore[misc]
                    tx, counts, item.claim, [question], item.shown, wait
                )
            )
            if not isinstance(begun, Held):
                return begun[0]
            if begun.kind != LIMIT or begun.seconds > patience:
                return begun
            self._sleep(begun.seconds)

    def _sleep(self, seconds: float) -> None:
        """Wait for the rate limit; a stop, a cancel or a budget that is reached ends it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.stop.wait(min(left, _LOOK)) and not self._stopped():
            if self.store.ledger.halted(self.run_id) is not None:
                return
