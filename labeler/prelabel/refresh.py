"""Refreshes: suggestions that are not current any more are made again before a person decides by them.

At opening, where the record stands in the queue does not matter: a free suggestion is made again, blind or not, and a
paid one is marked. After an approval the same is done ahead of the reviewers, near the front of the queue and for what
nobody has touched; a few records of a paid backend whose examples changed go into a small run of their own, so that
its cost stands in the ledger like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labeler.prelabel import runs
from labeler.prelabel.current import CURRENT, OLDER, OTHER, standing
from labeler.prelabel.meant import FREE
from labeler.prelabel.suggest import Suggester
from labeler.records import BackendFailure, Record, Suggestion
from labeler.store.ledger import PAUSED

BILLED_AHEAD = 3
_MOST_COUNTED = 10_000
REFRESH = "refresh"
"""The purpose that the settings of such a run name."""


@dataclass(frozen=True, slots=True)
class AtOpening:
    """The suggestion of a record that is being opened, or why there is none.

    ``standing`` is OLDER or OTHER for a paid one that is shown all the same; a free one is always current. ``since``
    is how many decisions were made since, as far as that is known.
    """

    suggestion: Suggestion | None
    failure: BackendFailure | None = None
    standing: str = CURRENT
    since: int = 0


def at_opening(
    own: Suggester | None, free: Suggester, opened: Sequence[tuple[Record, Suggestion | None]]
) -> list[AtOpening]:
    """Return the suggestions to open pending records with, in order; those that cost nothing are made again together.

    ``opened`` has the stored suggestion beside each record. ``own`` is what the task's suggestions are made with, None
    if it cannot be set up now; ``free`` answers at once.
    """
    kept = [_kept(own, free, record, stored) for record, stored in opened]
    made = iter(free.now([record for (record, _), found in zip(opened, kept, strict=True) if found is None]))
    return [_made(next(made)) if found is None else found for found in kept]


def _made(found: Suggestion | BackendFailure) -> AtOpening:
    return AtOpening(None, found) if isinstance(found, BackendFailure) else AtOpening(found)


def _kept(own: Suggester | None, free: Suggester, record: Record, stored: Suggestion | None) -> AtOpening | None:
    """Return a suggestion that there is and that was paid for or is current."""
    paid = stored if stored is not None and _is_paid(stored) else None
    if paid is None and own is not None and own.backend.billed:
        # One that came while somebody worked on the draft is not pointed at.
        paid = own.store.suggestions.newest_billed(record.id, own.task.name)
    if paid is not None:
        return AtOpening(paid, standing=_of_paid(own, free, record, paid), since=_since(free, paid))
    return AtOpening(stored) if stored is not None and standing(free, record, stored) == CURRENT else None


def _is_paid(stored: Suggestion) -> bool:
    """Whether a suggestion was paid for, as far as can be told: one of an older program does not always say it."""
    return stored.billed or (not stored.kind and stored.backend not in FREE)


def _of_paid(own: Suggester | None, free: Suggester, record: Record, paid: Suggestion) -> str:
    if own is not None and own.backend.billed:
        return standing(own, record, paid)
    # A run of its own made it, in a task whose suggestions are free: only what it was made from can be older.
    if paid.task_version != free.task.version or paid.text_hash not in ("", record.content_hash):
        return OTHER
    return OLDER if paid.seq != free.index.refresh() else CURRENT


def _since(suggester: Suggester, paid: Suggestion) -> int:
    if paid.seq is None:
        return 0
    place = suggester.project_id, suggester.task.name
    return suggester.store.annotations.count_since(*place, paid.seq, _MOST_COUNTED)


def refresh_front(suggester: Suggester, order: str, ahead: int, budget: float | None = None) -> int:
    """Make what is not current among the next ``ahead`` records again; return how many were made or queued.

    Those of a billed backend become a small run with the task's ``budget``. Local weights are left alone: an approval
    must not load a model into the process that serves the page.
    """
    store = suggester.store
    if suggester.backend.local:
        return 0
    place = (suggester.project_id, suggester.task.name)
    ids = store.work.front(*place, order, ahead, only_free=False, scored_by=suggester.backend.name)
    found = store.suggestions.untouched(*place, ids)
    records = store.records.many([suggestion.record_id for suggestion in found])
    if suggester.backend.billed:
        return _queue_run(suggester, records, found, budget)
    free = [s for s in found if not s.billed and standing(suggester, records[s.record_id], s) != CURRENT]
    made = [s for s in suggester.now([records[s.record_id] for s in free]) if isinstance(s, Suggestion)]
    return len(made)


def _queue_run(
    suggester: Suggester, records: dict[int, Record], found: Sequence[Suggestion], budget: float | None
) -> int:
    store, task = suggester.store, suggester.task.name
    if store.ledger.spent_up(suggester.project_id) is not None:
        return 0
    mine = [s for s in found if s.billed and s.backend == suggester.backend.name][:BILLED_AHEAD]
    stale = [s.record_id for s in mine if standing(suggester, records[s.record_id], s) in (OLDER, OTHER)]
    if not stale:
        return 0
    settings = {"purpose": REFRESH, "backend": suggester.backend.name, "model_id": suggester.backend.model_id}
    unfinished = store.ledger.unfinished(suggester.project_id, task, REFRESH)
    # One for a model that answers no more stays as it is: what it asked for would be old again at once.
    before = next((run for run in unfinished if run["settings"] == settings), None)
    if before is None:
        runs.start(store, suggester.project_id, task, stale, settings, budget)
        return len(stale)
    left = store.ledger.left(before["id"])
    if before["state"] != PAUSED or (left is not None and left <= 0):
        return 0
    # What made it pause (a key, a budget of yesterday) may be mended by now; a second run beside it would say no more.
    runs.extend(store, before["id"], stale)
    return len(stale)
