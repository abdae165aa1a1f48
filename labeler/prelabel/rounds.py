"""Flows of records on their way, and of many records moved together, round by round.

In each round every flow says which calls it wants next; those that were answered before come from the ledger, the
others are begun in one transaction and handed back to be sent together, in whatever way: that is for local weights and
for batch services of a provider. Threads move one :class:`Item` each.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from labeler import strictjson
from labeler.backends.base import BackendRequest
from labeler.prelabel.calls import Answered, Call, Claim, Held, Question, RunContext, RunWriter
from labeler.prelabel.flows import PARSER_FAILED, Ask
from labeler.prelabel.suggest import Prepared, Started, Suggester
from labeler.records import BackendFailure, Completion, Example, ParseFailure, Suggestion
from labeler.retrieval.index import Entry, Hit
from labeler.store import Tx

# Beside the names of tasks: what the first prompt of a cascade shows.
_FIXED = ""


@dataclass
class Item:
    """One record on its way: its flow, the calls of this round, and the answers so far.

    A run that asks again starts the flow anew when it came to no label by answers that earlier runs had paid for:
    then exactly those answers that could not be read (``anew``) are asked for once more.
    """

    claim: Claim
    prepared: Prepared
    flow: Started
    shown: str
    asks: Sequence[Ask] = ()
    fingerprints: Sequence[str] = ()
    answers: dict[int, Answered] = field(default_factory=dict)
    used: dict[str, Answered] = field(default_factory=dict)
    anew: set[str] = field(default_factory=set)
    ended: bool = False

    @property
    def missing(self) -> list[int]:
        """The places of the calls of this round that have no answer yet."""
        return [place for place in range(len(self.asks)) if place not in self.answers]

    def question(self, place: int) -> Question:
        fingerprint = self.fingerprints[place]
        return Question(self.asks[place], fingerprint, fingerprint in self.anew)

    def take(self, place: int, answer: Answered) -> None:
        self.answers[place] = self.used[self.fingerprints[place]] = answer

    def move(self, context: RunContext) -> list[Suggestion] | None:
        """Hand the answers of this round to the flow; return the suggestions it came to, None while it wants calls."""
        completions = [self.answers[n].completion for n in range(len(self.asks))] if self.asks else None
        asks = self.flow.step(completions)
        while asks is None and self._asks_again(context):
            self.flow, self.used = context.suggester.flow(self.prepared), {}
            asks = self.flow.step()
        self.asks, self.answers = asks or (), {}
        self.fingerprints = [self.flow.fingerprint(ask) for ask in self.asks]
        if asks is not None:
            return None
        assert self.flow.outcomes is not None
        return context.suggester.finish_all(self.prepared, self.flow.outcomes, alone=self.claim.trial)

    def _asks_again(self, context: RunContext) -> bool:
        outcomes = (self.flow.outcomes or {}).values()
        # A parser that fails is no fault of the answer.
        failures = [outcome.value for outcome in outcomes if isinstance(outcome.value, ParseFailure)]
        if not context.again or all(failure.kind == PARSER_FAILED for failure in failures):
            return False
        unread = {id(completion) for completion in self.flow.case.unread}
        old = {
            fingerprint
            for fingerprint, answer in self.used.items()
            if id(answer.completion) in unread and (answer.run_id is None or answer.run_id < context.run_id)
        }
        found = not old <= self.anew
        self.anew |= old
        return found

    def end(self, context: RunContext, writer: RunWriter, made: Sequence[Suggestion]) -> None:
        """Let the item end with its suggestions, with the writer's next transaction."""
        self.ended = True
        call_id = list(self.used.values())[-1].id if self.used else None
        # What comes back in a batch was paid by this run just now, and is no second use.
        own = context.run_id if context.batch else None
        reused = sum(not answer.fresh and answer.run_id != own for answer in self.used.values())
        writer.later(lambda tx, counts: context.end_with(tx, counts, self.claim, made, call_id, reused))


def items_of(context: RunContext, claims: Sequence[Claim]) -> list[Item]:
    """Prepare claimed records; those that cannot be prepared are given back, and the error is raised.

    A record with a call that was answered, or may have been billed, is asked about as it was then: were its prompt
    made from what was approved since, the answer that is paid for would be that to another question.
    """
    suggester, ids = context.suggester, [claim.record_id for claim in claims]
    try:
        records = suggester.store.records.many(ids)
        shown = {} if suggester.chosen else suggester.store.ledger.shown(context.run_id, ids, context.as_shown)
        found = {p.record.id: p for p in suggester.prepare([records[id_] for id_ in ids])}
        found |= {id_: _as_shown(suggester, found[id_], strictjson.loads(text)) for id_, text in shown.items()}
        pairs = [(claim, found[claim.record_id]) for claim in claims]
        return [Item(claim, p, suggester.flow(p), shown_text(suggester, p)) for claim, p in pairs]
    except Exception:
        context.give_back(claims)
        raise


def shown_text(suggester: Suggester, prepared: Prepared) -> str:
    """Return what the prompts of a record show: the examples of each task, by annotation and similarity."""
    found = {name: p.examples for name, p in {suggester.task.name: prepared, **prepared.joint}.items()}
    found |= {_FIXED: prepared.fixed} if prepared.fixed else {}
    return strictjson.dumps(
        {name: [[e.annotation_id, e.record_id, e.similarity] for e in shown] for name, shown in found.items()}
    )


def _as_shown(suggester: Suggester, prepared: Prepared, shown: Mapping[str, Sequence[Sequence[float]]]) -> Prepared:
    """Return a prepared record with the examples, and the joint tasks, that its prompts showed before."""
    joint = {
        name: _as_shown(suggester.joint[name], prepared.joint.get(name, prepared), {name: rows})
        for name, rows in shown.items()
        if name in suggester.joint
    }
    examples, fixed = (_examples(suggester, shown.get(name, ())) for name in (suggester.task.name, _FIXED))
    return replace(prepared, examples=examples, joint=joint, fixed=fixed)


def _examples(suggester: Suggester, rows: Sequence[Sequence[float]]) -> list[Example]:
    hits = [Hit(-1, Entry(int(id_), int(record_id), (), None, "", None, None), near) for id_, record_id, near in rows]
    return suggester.index.examples(hits)


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
    """Moves the flows of some records. Used by one thread; ``writer`` commits, ``stop`` ends it between rounds."""

    def __init__(self, context: RunContext, stop: threading.Event) -> None:
        self.context, self.stop = context, stop
        self.writer = RunWriter(context)
        self.items: list[Item] = []
        self.sendings: list[Sending] = []

    def start(self, claims: Sequence[Claim]) -> None:
        """Prepare records and step into their flows; one that needs no call ends at once."""
        self.items += items_of(self.context, claims)
        for item in self.items:
            self._step(item)
        self._sweep()

    def begin(self) -> list[Sending]:
        """Write down the calls of this round as sent and return those that have to be; the others are answered."""
        if self.stop.is_set():
            self.put_all_back()
            return []
        self.sendings = self.writer.write(self._begin_all)
        self._sweep()
        return self.sendings

    def _begin_all(self, tx: Tx, counts: Counter[str]) -> list[Sending]:
        found: list[Sending] = []
        for item in self.items:
            places = item.missing
            questions = [item.question(place) for place in places]
            begun = self.context.begin(tx, counts, item.claim, questions, item.shown)
            if isinstance(begun, Held):
                item.ended = True
                continue
            for place, one in zip(places, begun, strict=True):
                if isinstance(one, Call):
                    found.append(Sending(item, place, one))
                else:
                    item.take(place, one)
        return found

    def park(self, sendings: Sequence[Sending]) -> None:
        """Let go of the items of these calls: their answers come another day, and another flow finds them."""
        parked = {id(sending.item) for sending in sendings}
        self.items = [item for item in self.items if id(item) not in parked]
        self.sendings = []

    def unsend(self, tx: Tx, sendings: Sequence[Sending]) -> None:
        """Give back calls that were begun and never sent."""
        for sending in sendings:
            call = sending.call
            self.context.store.ledger.fail_call(tx, call.id, call.claim.token, "unsent", "Not sent")

    def request(self, sending: Sending) -> BackendRequest:
        return self.context.suggester.request(sending.item.prepared, sending.ask)

    def take(self, sending: Sending, answer: Completion | BackendFailure) -> None:
        """Take in what came of a call; it is committed with the next transaction."""
        context, item, call = self.context, sending.item, sending.call
        if isinstance(answer, Completion):
            item.take(sending.place, Answered(call.id, answer, context.run_id, fresh=True))
            self.writer.later(lambda tx, counts: context.answered(tx, counts, call, answer))
            return
        item.ended = True
        self.writer.later(lambda tx, counts: context.failed(tx, counts, call, answer))
        if answer.fatal:
            self.writer.flush()

    def advance(self) -> None:
        """Hand the answers of the round to the flows; those that came to an end leave their suggestions."""
        self.sendings = []
        for item in self.items:
            if not item.ended and not item.missing:
                self._step(item)
        self._sweep()
        self.writer.flush()

    def _step(self, item: Item) -> None:
        made = item.move(self.context)
        if made is not None:
            item.end(self.context, self.writer, made)

    def put_all_back(self) -> None:
        """Give back what is under way; what was answered is kept and comes from the ledger next time."""
        claims = [item.claim for item in self.items]
        self.items = []
        if claims or self.writer.waits:
            self.writer.write(lambda tx, counts: self.context.put_all_back(tx, claims))

    def _sweep(self) -> None:
        self.items = [item for item in self.items if not item.ended]

    @contextmanager
    def keeping_leases(self) -> Iterator[None]:
        """Renew the leases of items and of calls that are on their way, as long as this goes on."""
        with repeating(self._renew, self.context.policy.lease / 3, f"labeler-run-{self.context.run_id}-leases"):
            yield

    def _renew(self) -> None:
        context, lease = self.context, self.context.policy.lease
        items, sendings = list(self.items), list(self.sendings)
        calls = [(sending.call.id, sending.call.claim.token) for sending in sendings]
        claims = [(item.claim.record_id, item.claim.token) for item in items]
        if claims:
            context.store.write(lambda tx: context.store.ledger.extend_leases(tx, context.run_id, claims, calls, lease))


@contextmanager
def repeating(work: Callable[[], None], seconds: float, name: str) -> Iterator[None]:
    """Do ``work`` every ``seconds`` in a thread of its own, until the block ends."""
    done = threading.Event()

    def loop() -> None:
        while not done.wait(seconds):
            work()

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
