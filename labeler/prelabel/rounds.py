"""Flows of many records moved together, round by round: for local weights and for batch services of a provider.

In each round every flow says which calls it wants next; those that were answered before come from the ledger, the
others are begun in one transaction and handed back to be sent together, in whatever way.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from labeler.backends.base import BackendRequest
from labeler.prelabel.calls import Answered, Book, Call, Clerk, Halt, Wait
from labeler.prelabel.flows import Ask
from labeler.prelabel.suggest import Prepared, Started
from labeler.records import BackendFailure, Completion, Record
from labeler.store import Tx


@dataclass
class Item:
    """One record on its way: its flow, the calls of this round, and their answers so far."""

    prepared: Prepared
    flow: Started
    asks: Sequence[Ask] = ()
    answers: dict[int, Completion] = field(default_factory=dict)
    call_id: int | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Sending:
    """One call of a round that is to be sent."""

    item: Item
    place: int
    call: Call

    @property
    def ask(self) -> Ask:
        return self.item.asks[self.place]


class Rounds:
    """Moves the flows of some records. Used by one thread; ``clerk`` commits, ``stop`` ends it between rounds."""

    def __init__(self, book: Book, stop: threading.Event) -> None:
        self.book, self.stop = book, stop
        self.clerk = Clerk(book)
        self.items: list[Item] = []

    def start(self, records: Sequence[Record]) -> None:
        """Prepare records and step into their flows; one that needs no call ends at once."""
        suggester = self.book.suggester
        for prepared in suggester.prepare(records):
            item = Item(prepared, suggester.flow(prepared))
            self.items.append(item)
            self._step(item, None)
        self._sweep()

    def begin(self) -> list[Sending]:
        """Write down the calls of this round as sent and return those that have to be; the others are answered."""
        if self.stop.is_set() or self.book.halted.is_set():
            self.put_all_back()
            return []
        prints = [[item.flow.fingerprint(ask) for ask in item.asks] for item in self.items]
        found = self.clerk.write(lambda tx, counts: self._begin_all(tx, counts, prints))
        self._sweep()
        return found

    def _begin_all(self, tx: Tx, counts: Counter[str], prints: Sequence[Sequence[str]]) -> list[Sending]:
        found: list[Sending] = []
        for item, fingerprints in zip(self.items, prints, strict=True):
            record_id = item.prepared.record.id
            for place, (ask, fingerprint) in enumerate(zip(item.asks, fingerprints, strict=True)):
                if place in item.answers or item.ended:
                    continue
                begun = self.book.begin(tx, counts, record_id, ask, fingerprint)
                if isinstance(begun, Call):
                    found.append(Sending(item, place, begun))
                elif isinstance(begun, Answered):
                    item.answers[place], item.call_id = begun.completion, begun.id
                else:
                    self._hold(tx, item, begun)
        # A call of an item that waits was begun for nothing: it is given back unsent.
        for sending in found:
            if sending.item.ended:
                self.book.store.ledger.fail_call(tx, sending.call.id, self.book.token, "unsent", "Not sent")
        return [sending for sending in found if not sending.item.ended]

    def _hold(self, tx: Tx, item: Item, begun: Wait | Halt) -> None:
        item.ended = True
        if isinstance(begun, Halt):
            self.book.halted.set()
        elif begun.limited:
            self.book.hold_until = max(self.book.hold_until, time.time() + begun.seconds)
        seconds = begun.seconds if isinstance(begun, Wait) else 0.0
        self.book.put_back(tx, item.prepared.record.id, seconds, counts_as_try=False)

    def park(self, sendings: Sequence[Sending]) -> Sequence[Sending]:
        """Let go of the items of these calls: their answers come another day, and another flow finds them."""
        parked = {id(sending.item) for sending in sendings}
        self.items = [item for item in self.items if id(item) not in parked]
        return sendings

    def request(self, sending: Sending) -> BackendRequest:
        return self.book.suggester.request(sending.item.prepared, sending.ask)

    def take(self, sending: Sending, answer: Completion | BackendFailure) -> None:
        """Take in what came of a call; it is committed with the next transaction."""
        book, item, call = self.book, sending.item, sending.call
        if isinstance(answer, Completion):
            item.answers[sending.place], item.call_id = answer, call.id
            self.clerk.later(lambda tx, counts: book.answered(tx, counts, call, answer))
            return
        if item.ended:
            self.clerk.later(
                lambda tx, counts: book.store.ledger.fail_call(tx, call.id, book.token, answer.kind, answer.message)
            )
            return
        item.ended = True
        record_id = item.prepared.record.id
        self.clerk.later(lambda tx, counts: book.failed(tx, counts, record_id, call, answer))
        if answer.fatal:
            self.clerk.flush()
            book.pause(answer.message)

    def advance(self) -> None:
        """Hand the answers of the round to the flows; those that came to an end leave their suggestions."""
        for item in self.items:
            if not item.ended and len(item.answers) == len(item.asks):
                self._step(item, [item.answers[place] for place in range(len(item.asks))])
        self._sweep()
        self.clerk.flush()

    def _step(self, item: Item, completions: list[Completion] | None) -> None:
        asks = item.flow.step(completions)
        item.answers = {}
        if asks is not None:
            item.asks = asks
            return
        item.ended, outcomes = True, item.flow.outcomes
        assert outcomes is not None
        made, call_id = self.book.suggester.finish_all(item.prepared, outcomes), item.call_id
        self.clerk.later(lambda tx, counts: self.book.end_with(tx, counts, made, call_id))

    def put_all_back(self) -> None:
        """Give back what is under way; what was answered is kept and comes from the ledger next time."""
        ids = [item.prepared.record.id for item in self.items]
        self.items = []
        self.clerk.write(lambda tx, counts: self._back(tx, ids))

    def _back(self, tx: Tx, record_ids: Sequence[int]) -> None:
        for record_id in record_ids:
            self.book.put_back(tx, record_id, 0.0, counts_as_try=False)

    def _sweep(self) -> None:
        self.items = [item for item in self.items if not item.ended]

    @contextmanager
    def keeping_leases(self, sendings: Sequence[Sending]) -> Iterator[None]:
        """Renew the leases of items and calls while a batch is on its way: it may take longer than one call."""
        book, done = self.book, threading.Event()
        record_ids = [item.prepared.record.id for item in self.items]
        call_ids = [sending.call.id for sending in sendings]
        lease = book.pace.lease

        def renew() -> None:
            while not done.wait(lease / 3):
                book.store.write(
                    lambda tx: book.store.ledger.extend_leases(tx, book.run_id, book.token, record_ids, call_ids, lease)
                )

        keeper = threading.Thread(target=renew, name=f"labeler-run-{book.run_id}-leases", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()
