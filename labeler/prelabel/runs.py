"""Runs: one batch of suggestions with one set of settings; started, watched, cancelled and resumed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from labeler.backends.prices import ModelInfo, cost
from labeler.errors import Conflict, InputError
from labeler.prelabel.suggest import Suggester
from labeler.store import Store
from labeler.store.ledger import CANCELLED, OPEN, PAUSED, QUEUED

_SLICE = 500


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take, before anyone pays. ``cost`` in US dollars, None when the price is unknown."""

    items: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    model_id: str | None
    backend: str


def select(store: Store, project_id: int, task: str, limit: int | None, again: bool) -> Iterator[int]:
    """Yield the pending records a run would take: those without a suggestion, or all of them with ``again``."""
    ids = (id_ for page in store.work.pending_pages(project_id, task, not again) for id_ in page)
    return islice(ids, limit)


def start(
    store: Store,
    project_id: int,
    task: str,
    record_ids: Iterable[int],
    settings: Mapping[str, Any],
    budget: float | None = None,
    reviewer_id: int | None = None,
) -> int:
    """Create a run over records and return its number; workers pick it up once all its items stand."""
    ids = iter(record_ids)
    first = list(islice(ids, _SLICE))
    if not first:
        raise InputError("Nothing to do: every pending record has a suggestion already (see the option --again)")
    run_id = store.write(lambda tx: store.ledger.create_run(tx, project_id, task, dict(settings), budget, reviewer_id))
    store.write(lambda tx: store.ledger.set_run(tx, run_id, PAUSED, "being filled"))
    slice_ = first
    while slice_:
        store.write(lambda tx, part=tuple(slice_): store.ledger.add_items(tx, run_id, part))  # type: ignore[misc]
        slice_ = list(islice(ids, _SLICE))
    store.write(lambda tx: store.ledger.set_run(tx, run_id, QUEUED))
    return run_id


def cancel(store: Store, run_id: int) -> None:
    """Stop a run; calls in flight finish and are kept, and it can be resumed."""
    if not store.write(lambda tx: store.ledger.set_run(tx, run_id, CANCELLED, "cancelled", (*OPEN, PAUSED))):
        raise Conflict(f"Run {run_id} has already ended")


def resume(store: Store, run_id: int, budget: float | None = None) -> None:
    """Queue a paused or cancelled run again; what was answered is not asked again."""

    def work(tx: Any) -> bool:
        moved = store.ledger.set_run(tx, run_id, QUEUED, None, (PAUSED, CANCELLED))
        if moved and budget is not None:
            store.ledger.set_budget(tx, run_id, budget)
        return moved

    if not store.write(work):
        raise Conflict(f"Run {run_id} is not paused")


def estimate(suggester: Suggester, record_ids: Iterable[int], info: ModelInfo | None, sample: int = 40) -> Estimate:
    """Estimate tokens and cost of a run from the prompts of its first records, without any call.

    Tokens are estimated at 1.6 characters each for Korean and 4 for Latin script, which is on the safe side for
    the tokenizers in use.
    """
    ids = list(record_ids)
    backend = suggester.backend
    if not backend.billed or not ids:
        return Estimate(len(ids), 0, 0, 0.0, backend.model_id, backend.name)
    records = suggester.store.records.many(ids[:sample])
    prepared = suggester.prepare(list(records.values()))
    tokens_in = [sum(count_tokens(m["content"]) + 4 for m in p.messages) for p in prepared]
    answers = [count_tokens(suggester.task.answer(example.value)) for p in prepared for example in p.examples] or [60]
    total_in = round(sum(tokens_in) / len(tokens_in) * len(ids))
    total_out = round(sum(answers) / len(answers) * len(ids))
    return Estimate(len(ids), total_in, total_out, cost(total_in, total_out, 0, info), backend.model_id, backend.name)


def count_tokens(text: str) -> int:
    """Return an estimate of the tokens of ``text``, without a tokenizer."""
    wide = sum(1 for c in text if c > "\u2e7f")
    return round(wide / 1.6 + (len(text) - wide) / 4) + 1
