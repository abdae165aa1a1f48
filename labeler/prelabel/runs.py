"""Runs: one batch of suggestions with one set of settings; started, watched, cancelled and resumed here."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from labeler.backends.prices import ModelInfo, cost
from labeler.errors import Conflict, InputError
from labeler.prelabel.calls import CallPolicy
from labeler.prelabel.suggest import Suggester
from labeler.prelabel.trial import Trial
from labeler.prompts import system_hash
from labeler.prompts.styles import SELF_CONSISTENCY, STYLES
from labeler.sentence import Sentence
from labeler.settings import AGAIN, CASCADE
from labeler.store import Store, Tx
from labeler.store.ledger import CANCELLED, OPEN, PAUSED, QUEUED
from labeler.store.suggestions import Kind

_SLICE = 500
# Tokens of an answer of which nothing is known, and of the thoughts before it.
_UNKNOWN_ANSWER, _REASONING = 60, 150
_USUAL = CallPolicy()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take, before anyone pays.

    ``calls`` is how many are made at most, one record with another. ``cost`` in US dollars, None when the price is
    unknown; ``seconds`` None where no call of this model was made yet. ``measured`` is how many earlier calls the
    lengths and times of answers were taken from. ``trial`` is how many of the items are approved records, asked first.
    ``asked`` is how the model was trained to be asked, which holds over the settings of the task; ``changed`` says that
    guidelines or labels are not those of then.
    """

    items: int
    calls: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    seconds: float | None
    measured: int
    model_id: str | None
    backend: str
    trial: int = 0
    asked: Mapping[str, Any] = field(default_factory=dict)
    changed: bool = False


def select(
    store: Store, project_id: int, task: str, limit: int | None, again: bool, kind: Kind | None = None
) -> Iterator[int]:
    """Yield the pending records a run would take: all of them with ``again``, else those that it would not repeat.

    What is repeated is a suggestion of ``kind``, whatever others a record has; without a kind, any suggestion.
    """
    if again or kind is None:
        pages = store.work.pending_pages(project_id, task, not again)
    else:
        pages = store.suggestions.pending_pages(project_id, task, kind)
    return islice((id_ for page in pages for id_ in page), limit)


def left_out(store: Store, project_id: int, task: str, kind: Kind) -> int:
    """Return how many pending records :func:`select` leaves out without ``again``: they have such a suggestion."""
    return store.suggestions.count_pending(project_id, task, kind)


def start(
    store: Store,
    project_id: int,
    task: str,
    record_ids: Iterable[int],
    settings: Mapping[str, Any],
    budget: float | None = None,
    reviewer_id: int | None = None,
    trial: Trial | None = None,
) -> int:
    """Create a run over records and return its number; workers pick it up once all its items stand.

    Until then it stands paused, and nobody can move or end it; it can be cancelled, and then it is filled no further.
    If this process dies, it can be cancelled or resumed with the records that it has. With ``again`` among the
    ``settings`` it asks anew for answers of earlier runs that could not be read. The records of a ``trial`` are asked
    about before all others, unless they are more than these. Raises :class:`InputError` where nothing is left to do.
    """
    ids = iter(record_ids)
    first = list(islice(ids, _SLICE))
    if not first:
        raise InputError("Nothing to do: every pending record has such a suggestion already (see the option --again)")
    ledger, kind = store.ledger, trial.kind if trial is not None and _is_worth_it(trial, len(first)) else None

    def create(tx: Tx) -> int:
        kept, again = {n: value for n, value in settings.items() if n != AGAIN}, bool(settings.get(AGAIN))
        run_id = ledger.create_run(tx, project_id, task, kept, budget, reviewer_id, True, again, kind)
        if trial is not None and kind is not None:
            ledger.add_items(tx, run_id, trial.record_ids, trial=True)
        ledger.add_items(tx, run_id, first)
        return run_id

    run_id = store.write(create)

    def add(tx: Tx, part: list[int]) -> bool:
        filling = ledger.still_filling(tx, run_id)
        if filling:
            ledger.add_items(tx, run_id, part)
        return filling

    while part := list(islice(ids, _SLICE)):
        if not store.write(lambda tx, part=part: add(tx, part)):  # type: ignore[misc]
            return run_id
    store.write(lambda tx: ledger.still_filling(tx, run_id) and ledger.set_run(tx, run_id, QUEUED))
    return run_id


def _is_worth_it(trial: Trial, records: int) -> bool:
    """Whether a trial asks about no more records than the run itself."""
    return len(trial.record_ids) <= records


def extend(store: Store, run_id: int, record_ids: Iterable[int]) -> None:
    """Queue a paused run again with more records: what is waiting in it is tried with them."""
    ids = list(record_ids)

    def work(tx: Any) -> None:
        if store.ledger.set_run(tx, run_id, QUEUED, None, (PAUSED,)):
            store.ledger.add_items(tx, run_id, ids)

    store.write(work)


def cancel(store: Store, run_id: int, by: int | None = None) -> None:
    """Stop a run; calls in flight finish and are kept, and it can be resumed. ``by`` is who does it, None a command."""

    def work(tx: Tx) -> None:
        if not store.ledger.set_run(tx, run_id, CANCELLED, Sentence("cancelled"), (*OPEN, PAUSED)):
            raise Conflict("Run %(number)s has already ended", number=run_id)
        _event(store, tx, "run cancelled", run_id, by, {})

    store.write(work)


def _event(store: Store, tx: Tx, kind: str, run_id: int, by: int | None, detail: Mapping[str, Any]) -> None:
    run = store.ledger.run(run_id, tx)
    store.events.add(
        tx, kind, project_id=run["project_id"], reviewer_id=by, task=run["task"], detail={"run": run_id, **detail}
    )


def resume(store: Store, run_id: int, budget: float | None = None, by: int | None = None) -> None:
    """Queue a paused or cancelled run again; what was answered is not asked again. ``by``: see :func:`cancel`."""

    def work(tx: Tx) -> None:
        run = store.ledger.run(run_id, tx)
        if run["state"] not in (PAUSED, CANCELLED):
            raise Conflict("Run %(number)s is not paused", number=run_id)
        if run["done"] + run["failed"] >= run["total"]:
            raise Conflict("Run %(number)s has already ended", number=run_id)
        if run["filling_until"] is not None and run["filling_until"] > time.time():
            raise Conflict("The records of run %(number)s are still being gathered; wait, or cancel it", number=run_id)
        store.ledger.set_run(tx, run_id, QUEUED)
        if budget is not None:
            store.ledger.set_budget(tx, run_id, budget)
        _event(store, tx, "run resumed", run_id, by, {} if budget is None else {"budget": budget})

    store.write(work)


def select_approved(
    store: Store, project_id: int, task: str, limit: int | None, unit: str | None = None
) -> Iterator[int]:
    """Yield the records of a task's ``unit`` whose label is approved, oldest first: what a calibration learns from.

    What a model wrote is left out: a calibration counts how often labels are.
    """
    pages = store.annotations.approved_pages(project_id, task, unit=unit)
    return islice((row["record_id"] for page in pages for row in page if not row["written"]), limit)


def estimate(
    suggester: Suggester,
    record_ids: Iterable[int],
    info: ModelInfo | None,
    policy: CallPolicy = _USUAL,
    batch: bool = False,
    sample: int = 40,
    trial: Trial | None = None,
) -> Estimate:
    """Estimate tokens, cost and time of a run from the prompts of its first records, without any call.

    The first call of each record is built as it would be sent; calls that follow it (a check, a sample, the next
    step of a cascade) are taken to be as long. Tokens of prompts are counted as earlier answers of the model taught.
    The length of answers and the time of a call come from earlier calls of the same model in the same task, where
    there are any. ``batch`` says that the calls go through a batch service: at its price, and within a day.
    The records of a ``trial`` come first.
    """
    ids = list(record_ids)
    tried = trial.record_ids if trial is not None and _is_worth_it(trial, len(ids)) else ()
    ids = [*tried, *ids]
    backend = suggester.backend
    if not backend.billed or not ids:
        return Estimate(len(ids), 0, 0, 0, 0.0, None, 0, backend.model_id, backend.name)
    past = suggester.store.ledger.past_calls(suggester.task.name, backend.name, backend.model_id)
    first = _first_calls(suggester, ids[:sample])
    each_out = _answer_length(suggester, first.answers) if past["tokens_out"] is None else past["tokens_out"]
    # How often the calls of the sample are made in the whole run.
    times = len(ids) / max(len(first.prompts), 1) * _rounds(suggester)
    calls = _samples(suggester) * round(times * sum(1 for tokens in first.prompts if tokens))
    tokens_in, tokens_out = round(times * sum(first.prompts)), round(calls * each_out)
    seconds = _seconds(suggester, past["seconds"], calls, tokens_in, policy, batch)
    return Estimate(
        len(ids), calls, tokens_in, tokens_out, cost(tokens_in, tokens_out, 0, info, batch=batch), seconds,
        int(past["n"]), backend.model_id, backend.name, len(tried), backend.asked,
        backend.asked.get("system_sha256", first.head) != first.head,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _FirstCalls:
    """What the first call of some records is made of, in tokens: each prompt, and the answer of each example in it.

    A cascade may need no call for a record: its prompt has 0 tokens. ``head`` is the hash of the system message.
    """

    prompts: list[int]
    answers: list[int]
    head: str


def _first_calls(suggester: Suggester, ids: list[int]) -> _FirstCalls:
    records = suggester.store.records.many(ids)
    prompts: list[int] = []
    answers: list[int] = []
    head = ""
    for prepared in suggester.prepare(list(records.values())):
        asks = suggester.flow(prepared).step()
        head = head or (system_hash(asks[0].messages) if asks else "")
        prompts.append(sum(suggester.tokens.prompt(ask.messages) for ask in asks or ()))
        answers += [suggester.tokens.text(suggester.task.answer(example.value)) for example in prepared.examples]
    return _FirstCalls(prompts, answers, head)


def _answer_length(suggester: Suggester, known: list[int]) -> float:
    """Return how long an answer of a model will be that was not asked before: as ``known`` ones, and its thoughts."""
    answer = sum(known) / len(known) if known else _UNKNOWN_ANSWER
    return answer + (_REASONING if STYLES[suggester.style.name].reasons else 0)


def _rounds(suggester: Suggester) -> int:
    """How many calls, one after the other, a record takes at most."""
    if suggester.mode == CASCADE:
        return 2
    return max(STYLES[suggester.style.name].calls, 1)


def _samples(suggester: Suggester) -> int:
    """How many answers are asked for at once, each in a call of its own."""
    return suggester.style.samples if suggester.style.name == SELF_CONSISTENCY else 1


def _seconds(
    suggester: Suggester, each: float | None, calls: int, tokens: int, policy: CallPolicy, batch: bool
) -> float | None:
    """Return how long the calls of a run take; ``each`` is how long one of this model took, None if not known."""
    backend = suggester.backend
    if backend.local:
        # A batch of local weights answers together: how long each took is what whole runs took.
        ledger, task = suggester.store.ledger, suggester.task.name
        each = ledger.past_pace(suggester.project_id, task, backend.name, backend.model_id)
        return None if each is None else each * calls
    return None if batch or each is None else _paced(each, calls, tokens, policy)


def _paced(each: float, calls: int, tokens: int, policy: CallPolicy) -> float:
    """Return how long ``calls`` take by this policy: as fast as the server answers, or as its limits let them."""
    least = [calls * each / policy.concurrency]
    if policy.limits.requests:
        least.append(60 * calls / policy.limits.requests)
    if policy.limits.tokens:
        least.append(60 * tokens / policy.limits.tokens)
    return max(least)
