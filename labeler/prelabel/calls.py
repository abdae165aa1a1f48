"""Every call of a run through the ledger: asked for, counted, answered, failed; and the items they belong to.

A :class:`RunWriter` belongs to one thread. What it has to commit after an answer rides with its next transaction, which
is usually the beginning of the next call: one commit for the end of one call and the start of another. Whoever is
about to wait or to stop calls :meth:`RunWriter.flush` first, so that nothing answered is ever left lying.
"""

from __future__ import annotations

import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from labeler import strictjson
from labeler.backends.prices import ModelInfo, cost
from labeler.prelabel.flows import Ask
from labeler.prelabel.suggest import Suggester
from labeler.prelabel.tokens import Refused, Size
from labeler.records import AWAY, TOO_LONG, BackendFailure, Completion, RateLimits, Suggestion, made_column, made_in
from labeler.sentence import N_, Sentence, recalled, stored
from labeler.settings import ON_APPROVED, REPLAY
from labeler.store import Row, Store, Tx
from labeler.store.batches import BATCHED
from labeler.store.ledger import DECIDED, OPEN, PAUSED, RUNNING
from labeler.store.limits import SetLimits, worth_learning

T = TypeVar("T")
_LONGEST_WAIT = 120.0
# While another worker has the same call in flight, and while a batch has it: that wakes the item when it ends.
_BUSY_WAIT, _BATCH_WAIT = 1.0, 600.0
EXPECTED_ANSWER = 60
_HELD = N_("Held by the server's rate limit until %(time)s (UTC)")
# What a run tells of a model that was tested before.
_LEARNED = ("context", "usage", "thinks")
# A run whose first records end all alike is stopped: the others would, too.
_BRAKE = 20
# How much longer than thought a prompt is that was refused for its length.
_LONGER = 1.25


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How a run is moved. ``lease`` must outlast a call; ``base_delay`` is the first back-off. All in seconds."""

    concurrency: int = 16
    max_tries: int = 6
    lease: float = 90.0
    base_delay: float = 0.5
    limits: SetLimits = SetLimits()


@dataclass(frozen=True, slots=True)
class Claim:
    """An item that is leased to us: its record, the token that says so, and whether it belongs to the run's trial."""

    record_id: int
    token: str
    trial: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A call that a flow wants. With ``anew`` an answer that an earlier run paid for will not do."""

    ask: Ask
    fingerprint: str
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is ours to send, for the item of ``claim``; ``tokens`` is what was reserved for it.

    ``size`` is the length of its prompt, ``repeat`` says that it may have been billed before.
    """

    id: int
    claim: Claim
    tokens: int = 0
    size: Size | None = None
    repeat: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that was answered, and by which run it was paid; ``fresh`` if it came just now, not from the ledger."""

    id: int
    completion: Completion
    run_id: int | None
    fresh: bool = False


HALT, LIMIT, BUSY, LOST = "halt", "limit", "busy", "lost"


@dataclass(frozen=True, slots=True)
class Held:
    """Why the next call of an item is not sent now, and after how many ``seconds`` it may be.

    ``kind``: HALT (a budget is reached, or the run was moved), LIMIT (a rate limit), BUSY and BATCHED (another has the
    same call in flight, in a batch), DECIDED (people were faster), LOST (the item is another's by now), TOO_LONG (this
    very prompt was refused for its length, and was not made any shorter).
    """

    kind: str
    seconds: float = 0.0
    message: str | None = None


class RunContext:
    """What all threads that move one run share: the run, its prices, its leases, what is known of the server.

    ``closed`` says that no call may be sent for now, whatever the store says; what is answered is finished.
    """

    def __init__(
        self,
        store: Store,
        run_id: int,
        suggester: Suggester,
        policy: CallPolicy,
        info: ModelInfo | None,
        batch: bool = False,
    ) -> None:
        self.store, self.run_id, self.suggester, self.policy, self.info = store, run_id, suggester, policy, info
        self.batch = batch
        self.closed = False
        self.hold_until = 0.0
        run = store.ledger.run(run_id)
        self.again = bool(run["again"])
        purpose = run["settings"].get("purpose")
        self.only_pending = purpose not in ON_APPROVED
        # What its prompts show was chosen when the run was made, from what was approved at another time.
        self.as_shown = purpose == REPLAY
        self._waits_for: str | None = None
        self._went_on = False
        backend = suggester.backend
        self.address = backend.base_url or backend.name
        # Local weights have no limits, and those of calls are not those of batches.
        free = batch or backend.local or not backend.billed
        by_model = "" if policy.limits != SetLimits() else f" {backend.model_id}"
        # Limits that a person set hold for the server, those that it tells hold for one of its models.
        self.server = None if free else f"{self.address}{by_model}"
        known = store.limits.known(self.server) if self.server else None
        self._counts_tokens = policy.limits.tokens is not None or (known is not None and known["tokens"] is not None)
        self._learned: RateLimits | None = None

    @staticmethod
    def fresh_token() -> str:
        return secrets.token_hex(8)

    def check_price(self) -> None:
        """Pause the run if a budget is to be kept and the price is unknown."""
        budgets = self.store.ledger.budgets(self.run_id)
        if budgets and cost(1, 1, 0, self.info) is None:
            kept = next(b for b in (budgets.run, budgets.project, budgets.day) if b is not None)
            self.pause(
                Sentence(
                    "The price of %(model)s is unknown, so no budget (%(amount)s) can be kept; add the model to "
                    "prices.json in the instance folder and resume, or start a run without a budget",
                    model=self.suggester.backend.model_id,
                    amount=f"${kept:g}",
                )
            )

    def start(self) -> bool:
        """Say that the run is being moved; return False if it is not open: then only what is paid is finished."""
        ledger = self.store.ledger
        # A run that waits is looked at every second: that it goes on running need not be written each time.
        if ledger.run(self.run_id)["state"] == RUNNING:
            return True
        return self.store.write(lambda tx: ledger.set_run(tx, self.run_id, RUNNING, None, OPEN))

    def pause(self, message: str) -> None:
        self.store.write(lambda tx: self.store.ledger.set_run(tx, self.run_id, PAUSED, message, OPEN))

    def settle(self) -> str:
        """Say how a run stands that this executor has nothing more to do for; return its state."""
        self._keep_learned()
        ledger, billed = self.store.ledger, self.suggester.backend.billed
        run = ledger.run(self.run_id)
        # Read first: a run that waits is looked at every second, and nothing of it need be written each time.
        waits = ledger.next_due(self.run_id, billed=billed) is not None or bool(self.store.batches.open(self.run_id))
        message = self._waiting()
        # A limit that holds no more is over for a run that has not gone on yet, too.
        over = self._went_on or getattr(recalled(run["message"]), "template", "") == _HELD
        if waits and run["state"] == RUNNING and run["message"] != (message and stored(message)) and (message or over):
            self.store.write(lambda tx: ledger.say(tx, self.run_id, message))
        if waits or run["state"] not in (*OPEN, PAUSED):
            return str(run["state"])
        return self.store.write(lambda tx: ledger.settle(tx, self.run_id, billed))

    def _waiting(self) -> str | None:
        """Return what the run waits for, as a sentence; None where it is not known, or it waits for nothing."""
        if not self.held_back:
            return self._waits_for
        until = time.strftime("%H:%M:%S", time.gmtime(self.hold_until))
        return Sentence(_HELD, time=until)

    def _keep_learned(self) -> None:
        """Write down what a tested model was found to be by this run: its server may have been started anew."""
        backend, models = self.suggester.backend, self.store.models
        now = backend.capabilities
        if now is None or self.store.db.read_only:
            return
        place = (backend.name, backend.base_url or "", backend.model_id or "")
        found = {name: value for name in _LEARNED if (value := getattr(now, name, None)) is not None}
        known = models.capabilities(*place)
        if known is not None and {**known, **found} != known:
            self.store.write(lambda tx: models.learn(tx, *place, found))

    # Items

    def due(self) -> float | None:
        """Return when there is something to claim again (seconds since the epoch); None if nothing is left that may be.

        While a rate limit holds the run back, that is what the ledger may have an answer for.
        """
        ledger, lease, billed = self.store.ledger, self.policy.lease, self.suggester.backend.billed
        first = ledger.next_due(self.run_id, None, lease, billed, self.closed)
        if first is None or not self.held_back:
            return first
        answered = ledger.next_due(self.run_id, None, lease, billed, True)
        return max(first, self.hold_until) if answered is None else min(answered, max(first, self.hold_until))

    @property
    def held_back(self) -> bool:
        """Whether a rate limit holds everybody back now: met by this process, or by another."""
        if self.server is not None:
            self.hold_until = max(self.hold_until, self.store.limits.held_until(self.server))
        return self.hold_until > time.time()

    def claim(self, limit: int) -> list[Claim]:
        """Lease items that are due; decided ones end here, so there may be fewer, and more to come."""
        token, lease, billed = self.fresh_token(), self.policy.lease, self.suggester.backend.billed
        only_answered, ledger = self.closed or self.held_back, self.store.ledger

        def work(tx: Tx) -> list[Claim]:
            trial = ledger.in_trial(tx, self.run_id)
            ids = ledger.claim_items(tx, self.run_id, token, limit, lease, billed, only_answered, self.only_pending)
            return [Claim(id_, token, trial) for id_ in ids]

        return self.store.write(work)

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Give back items that were not stepped on: no try, and what the ledger has for them is still to be seen."""
        if claims:
            self.store.write(lambda tx: self.put_all_back(tx, claims))

    def put_all_back(self, tx: Tx, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self.put_back(tx, claim, looked=False)

    # Parts of transactions

    def begin(
        self,
        tx: Tx,
        counts: Counter[str],
        claim: Claim,
        questions: Sequence[Question],
        shown: str | None = None,
        patience: float = 0.0,
    ) -> list[Call | Answered] | Held:
        """Return the answers to some questions of one item, and the calls that have to be sent for the others.

        The ledger is asked first: what is answered needs no budget, no rate limit and no pending record. If one of the
        others may not be sent now, none is begun, and the item is put back or ended, in this very transaction; but for
        a rate limit of at most ``patience`` seconds it stays ours. ``shown`` says what the prompts show.
        """
        rows = [self.store.ledger.call(tx, question.fingerprint) for question in questions]
        missing = [(q, row) for q, row in zip(questions, rows, strict=True) if not self._will_do(q, row)]
        sizes = [self.suggester.tokens.size(question.ask.messages) for question, _ in missing]
        tokens = [self._tokens(size) for size in sizes]
        if missing:
            held = self._held(tx, claim, [row for _, row in missing if row is not None], tokens, shown)
            if held is not None:
                self._let_go(tx, counts, claim, held, patience)
                return held
        self._waits_for, self._went_on = None, True
        begun = iter(
            [
                self._begin_one(tx, counts, claim, q, row, n, size)
                for (q, row), n, size in zip(missing, tokens, sizes, strict=True)
            ]
        )
        return [
            Answered(row["id"], _completion_of(row), row["run_id"]) if row and self._will_do(q, row) else next(begun)
            for q, row in zip(questions, rows, strict=True)
        ]

    def _will_do(self, question: Question, row: Row | None) -> bool:
        """Whether the ledger has the answer. One of this run, or of a newer one, is not asked for anew."""
        if row is None or row["state"] != "answered":
            return False
        return not question.anew or (row["run_id"] is not None and row["run_id"] >= self.run_id)

    def _held(self, tx: Tx, claim: Claim, rows: Sequence[Row], tokens: Sequence[int], shown: str | None) -> Held | None:
        """Return why calls may not be sent now; else None, and then their rate is reserved and the lease renewed."""
        ledger, lease = self.store.ledger, self.policy.lease
        if self.only_pending and ledger.is_decided(tx, self.run_id, claim.record_id):
            return Held(DECIDED)
        if self.closed or ledger.halted(self.run_id, tx) is not None:
            return Held(HALT)
        refused = next((row for row in rows if self._was_too_long(row)), None)
        if refused is not None:
            return Held(TOO_LONG, message=recalled(refused["error"]))
        flying = next((row for row in rows if ledger.in_flight(row, lease)), None)
        if flying is not None:
            return self._flying(tx, flying)
        if not ledger.keep_item(tx, self.run_id, claim.record_id, claim.token, lease, shown):
            return Held(LOST)
        if self.server is not None:
            seconds = self.store.limits.reserve(tx, self.server, sum(tokens), self.policy.limits, len(tokens))
            if seconds > 0:
                return Held(LIMIT, seconds)
        return None

    def _was_too_long(self, row: Row) -> bool:
        return (row["state"], row["error_kind"], row["run_id"]) == ("failed", TOO_LONG, self.run_id)

    def _flying(self, tx: Tx, row: Row) -> Held:
        """Another worker has this very call on its way: its answer will be in the ledger."""
        batch = self.store.batches.comes_back(tx, row["id"]) if row["state"] == BATCHED else None
        if batch is None:
            return Held(BUSY, _BUSY_WAIT)
        # The batch makes the item due when it ends.
        message = Sentence(
            "Its records are in a batch of run %(number)s; it continues when the batch is back", number=batch["run_id"]
        )
        return Held(BATCHED, _BATCH_WAIT, message)

    def _let_go(self, tx: Tx, counts: Counter[str], claim: Claim, held: Held, patience: float) -> None:
        if held.kind == DECIDED:
            self.end(tx, counts, claim, "done", DECIDED, None)
        elif held.kind == TOO_LONG:
            self.end(tx, counts, claim, "failed", TOO_LONG, held.message)
        elif held.kind == BATCHED:
            self._waits_for = held.message
            self.put_back(tx, claim, held.seconds, BackendFailure(BATCHED, held.message or ""), counts_as_try=False)
        elif held.kind in (HALT, BUSY) or (held.kind == LIMIT and held.seconds > patience):
            if held.kind == LIMIT:
                self.hold_until = max(self.hold_until, time.time() + held.seconds)
            self.put_back(tx, claim, held.seconds)

    def _tokens(self, size: Size) -> int:
        if self.server is None or not self._counts_tokens:
            return 0
        return EXPECTED_ANSWER + self.suggester.tokens.of(size)

    def _begin_one(
        self,
        tx: Tx,
        counts: Counter[str],
        claim: Claim,
        question: Question,
        before: Row | None,
        tokens: int,
        size: Size,
    ) -> Call:
        backend = self.suggester.backend
        call = {
            "fingerprint": question.fingerprint, "project_id": self.suggester.project_id, "run_id": self.run_id,
            "record_id": claim.record_id, "task": self.suggester.task.name, "backend": backend.name,
            "model_id": backend.model_id, "tokens_thought": self.suggester.tokens.of(size),
        }  # fmt: skip
        anew = before is not None and before["state"] == "answered"
        row = self.store.ledger.begin_call(tx, call, claim.token, self.policy.lease, anew)
        assert row is not None
        counts["calls"] += 1
        counts["repeats"] += int(row["repeat"])
        return Call(row["id"], claim, tokens, size, bool(row["repeat"]))

    def answered(self, tx: Tx, counts: Counter[str], call: Call, answer: Completion) -> None:
        """Commit an answer and what it cost."""
        price = cost(answer.tokens_in, answer.tokens_out, answer.tokens_cached, self.info, batch=self.batch)
        if price is None and self.info is not None and (price := self._thought(tx, call, answer)) is not None:
            counts["estimated"] += 1
        row: dict[str, Any] = {
            "answer": answer.text, "finish": answer.finish, "score": answer.score, "scores": answer.scores,
            "note": made_column(answer.made), "answered_by": answer.model_id, "cost": price,
            "tokens_in": answer.tokens_in, "tokens_out": answer.tokens_out, "tokens_cached": answer.tokens_cached,
        }  # fmt: skip
        self.store.ledger.answer_call(tx, call.id, call.claim.token, row, self.run_id)
        counts["tokens_in"] += answer.tokens_in or 0
        counts["tokens_out"] += answer.tokens_out or 0
        counts["tokens_cached"] += answer.tokens_cached or 0
        counts["spent"] += price or 0.0  # type: ignore[assignment]
        counts["unpriced"] += int(price is None)
        self._learn(tx, answer.limits)
        if call.size is not None and answer.tokens_in is not None:
            self.suggester.tokens.learn(tx, call.size, answer.tokens_in)
        if call.tokens and self.server is not None and answer.tokens_in is not None:
            real = answer.tokens_in + (answer.tokens_out or 0)
            self.store.limits.correct(tx, self.server, real - call.tokens)

    def _thought(self, tx: Tx, call: Call, answer: Completion) -> float | None:
        """Return what a call is thought to cost whose server does not count; None where the price is not known.

        A budget must hold there too: what is not counted would never add up to it.
        """
        tokens_in = answer.tokens_in
        tokens_in = self.store.ledger.tokens_thought(tx, call.id) if tokens_in is None else tokens_in
        tokens_out = answer.tokens_out
        tokens_out = self.suggester.tokens.text(answer.text) if tokens_out is None else tokens_out
        return cost(tokens_in, tokens_out, answer.tokens_cached, self.info, batch=self.batch)

    def failed(self, tx: Tx, counts: Counter[str], call: Call, failure: BackendFailure) -> None:
        """Commit that a call brought nothing: its item waits for a try, or ends; a fatal failure pauses the run."""
        ledger, claim = self.store.ledger, call.claim
        if failure.kind == AWAY:
            self._away(tx, counts, call, failure)
            return
        tries = ledger.tries(self.run_id, claim.record_id, tx)
        refused = self._learn_length(tx, call, failure, tries) if failure.kind == TOO_LONG else None
        ours = ledger.fail_call(tx, call.id, claim.token, failure.kind, failure.message, refused)
        self._learn(tx, failure.limits)
        delay = backoff(tries, self.policy.base_delay, failure.retry_after)
        if failure.kind == "rate_limit":
            # The limit is the account's, not the record's: hold everybody back, in every process.
            self.hold_until = max(self.hold_until, time.time() + delay)
            if self.server is not None:
                self.store.limits.hold(tx, self.server, delay)
        if failure.fatal:
            self.put_back(tx, claim, 0.0, failure)
            ledger.set_run(tx, self.run_id, PAUSED, failure.message, OPEN)
        elif not ours:
            # Somebody else answered it meanwhile.
            self.put_back(tx, claim, looked=False)
        elif failure.retryable and tries < self.policy.max_tries and self._is_worth_it(failure):
            # A shorter prompt can be asked about at once.
            self.put_back(tx, claim, 0.0 if failure.kind == TOO_LONG else delay, failure, counts_as_try=True)
        else:
            self.end(tx, counts, claim, "failed", failure.kind, failure.message)

    def _away(self, tx: Tx, counts: Counter[str], call: Call, failure: BackendFailure) -> None:
        """Undo a call that reached no server, and let the run wait: no record has had a try, and none fails for it."""
        ledger, claim = self.store.ledger, call.claim
        ledger.unsend_call(tx, call.id, claim.token, call.repeat)
        counts["calls"] -= 1
        counts["repeats"] -= int(call.repeat)
        self.put_back(tx, claim, 0.0, failure)
        ledger.wait_for_server(
            tx,
            self.run_id,
            Sentence("%(why)s The run continues by itself when the server answers.", why=failure.message),
        )

    def _learn_length(self, tx: Tx, call: Call, failure: BackendFailure, tries: int) -> Refused | None:
        """Take in how long a refused prompt is, and return it.

        Where the server names no number, it is longer than thought, with each try by as much again.
        """
        if call.size is None:
            return None
        tokens = self.suggester.tokens
        counted = failure.tokens or round(tokens.of(call.size) * _LONGER ** max(tries, 1))
        tokens.learn(tx, call.size, counted)
        return Refused(*call.size, counted)

    def _is_worth_it(self, failure: BackendFailure) -> bool:
        """Whether another try may end otherwise: a prompt is made shorter only for a length that is known."""
        return failure.kind != TOO_LONG or self.suggester.reads is not None

    def end_with(
        self,
        tx: Tx,
        counts: Counter[str],
        claim: Claim,
        suggestions: Sequence[Suggestion],
        call_id: int | None,
        reused: int = 0,
    ) -> None:
        """End an item with its suggestions, the first of which is that of the run's own task, if it is still ours.

        ``reused`` is how many of the answers behind them the ledger had. Of a trial record no suggestion comes: what
        the model said of it is kept with the item, where no desk, statistic or export looks.
        """
        own = suggestions[0]
        kind, message = (f"parse: {own.failure.kind}", own.failure.message) if own.failure else (None, None)
        if self.end(tx, counts, claim, "done", kind, message):
            counts["reused"] += reused
            if claim.trial:
                self.store.ledger.keep_said(tx, self.run_id, claim.record_id, own.value, own.scores)
                return
            for suggestion in suggestions:
                self.suggester.save(tx, replace(suggestion, run_id=self.run_id, call_id=call_id))

    def end(
        self, tx: Tx, counts: Counter[str], claim: Claim, state: str, kind: str | None, message: str | None
    ) -> bool:
        """End an item if it is still ours (the fence); return whether it was."""
        ledger = self.store.ledger
        if not ledger.finish_item(tx, self.run_id, claim.record_id, claim.token, state, kind, message):
            return False
        counts["failed" if state == "failed" else "done"] += 1
        if state != "failed" and kind is not None:
            counts[DECIDED if kind == DECIDED else "parse_failures"] += 1
        if (
            kind not in (None, DECIDED)
            and self.suggester.backend.billed
            and ledger.ended_alike(self.run_id, _BRAKE, tx)
        ):
            said = Sentence(
                "The first %(n)s records all ended the same way, without a label; fix the cause, then "
                "resume the run: %(why)s",
                n=_BRAKE,
                why=message or kind,
            )
            ledger.set_run(tx, self.run_id, PAUSED, said, OPEN)
        return True

    def put_back(
        self,
        tx: Tx,
        claim: Claim,
        delay: float = 0.0,
        failure: BackendFailure | None = None,
        counts_as_try: bool = False,
        looked: bool = True,
    ) -> None:
        """Let an item wait. ``looked`` says that its flow has seen every answer that the ledger has for it."""
        kind, message = (failure.kind, failure.message) if failure else (None, None)
        self.store.ledger.put_back(
            tx, self.run_id, claim.record_id, claim.token, delay, kind, message, counts_as_try, looked
        )

    def _learn(self, tx: Tx, said: RateLimits | None) -> None:
        if said is None or self.server is None or not worth_learning(said, self._learned):
            return
        self.store.limits.learn(tx, self.server, said)
        self._learned = said
        self._counts_tokens = self._counts_tokens or said.tokens is not None


Work = Callable[[Tx, "Counter[str]"], None]


@dataclass
class RunWriter:
    """Writes for one thread. Works that are to be committed soon ride with the next transaction."""

    context: RunContext
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

        result = self.context.store.write(together)
        del self._later[: len(works)]
        return result

    def _count(self, tx: Tx, counts: Counter[str]) -> None:
        found = {name: n for name, n in counts.items() if n}
        if found:
            self.context.store.ledger.count(tx, self.context.run_id, **found)
        if counts["spent"]:
            self.context.store.ledger.spend(tx, self.context.suggester.project_id, counts["spent"])


def backoff(tries: int, base: float, retry_after: float | None) -> float:
    """Return how long to wait before try ``tries + 1``: exponential with full jitter, never less than asked."""
    wait = min(_LONGEST_WAIT, base * 2 ** max(tries - 1, 0)) * random.uniform(0.5, 1.0)
    if retry_after is not None:
        wait = max(wait, min(retry_after, 3600.0) * random.uniform(1.0, 1.1))
    return float(wait)


def _completion_of(call: Row) -> Completion:
    return Completion(
        text=call["answer"] or "",
        tokens_in=call["tokens_in"],
        tokens_out=call["tokens_out"],
        tokens_cached=call["tokens_cached"],
        finish=call["finish"],
        score=call["score"],
        scores=strictjson.loads(call["scores"]) if call["scores"] else None,
        made=made_in(call["note"]),
        model_id=call["answered_by"] or call["model_id"],
    )
