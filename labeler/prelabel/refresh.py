"""Targeted refresh: after an approval, the suggestions a person will see next are made again if they would change.

Only what is near the front of the queue and what nobody has touched. With a free backend the suggestion is made
again at once; with a billed one only a few records whose examples changed go into a small run of their own, so that
its cost stands in the ledger like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from labeler import strictjson
from labeler.prelabel import runs
from labeler.prelabel.suggest import EVIDENCE, Suggester
from labeler.prompts import shown
from labeler.records import Record, Suggestion
from labeler.store import Row, Store

BILLED_AHEAD = 3
# Steps of a cascade that no retrieved example took part in: an approval does not make them stale.
_NOT_RETRIEVED = ("cascade: free", "cascade: fixed")
REFRESH = "refresh"
"""The purpose that the settings of such a run name."""


def refresh_front(suggester: Suggester, order: str, ahead: int, budget: float | None = None) -> int:
    """Make the stale suggestions among the next ``ahead`` records again; return how many were made or queued.

    Those of a billed backend become a small run with the task's ``budget``. Local weights are left alone: an approval
    must not load a model into the process that serves the page.
    """
    store = suggester.store
    if getattr(suggester.backend, "local", False):
        return 0
    place = (suggester.project_id, suggester.task.name)
    ids = store.work.front(*place, order, ahead, only_free=False, scored_by=suggester.backend.name)
    rows = store.work.front_with_suggestion(suggester.project_id, suggester.task.name, ids)
    if suggester.backend.billed:
        return _queue_run(suggester, rows, budget)
    records = store.records.many([row["record_id"] for row in rows])
    fresh = suggester.now([records[row["record_id"]] for row in rows], save=False)
    before = {row["record_id"]: row["suggestion_id"] for row in rows}
    changed = [s for s in fresh if isinstance(s, Suggestion) and _differs(store, before[s.record_id], s)]
    if changed:
        store.write(lambda tx: [suggester.save(tx, suggestion) for suggestion in changed])
    return len(changed)


def renewed(suggester: Suggester, record: Record, suggestion: Suggestion) -> Suggestion | None:
    """Return the suggestion made again if a free backend made it and its neighbours changed since; else None.

    For a record that is just being opened: an approval then counts at once, wherever in the queue the record stood.
    """
    if suggester.backend.billed or suggestion.backend != suggester.backend.name:
        return None
    if suggester.same_neighbours(record, suggestion):
        return None
    made = suggester.now([record])[0]
    return made if isinstance(made, Suggestion) else None


def _differs(store: Store, suggestion_id: int, new: Suggestion) -> bool:
    old = store.suggestions.get(suggestion_id)
    if old is None:
        return True
    ids = [evidence.annotation_id for evidence in old.evidence]
    return (
        old.value != new.value
        or old.backend != new.backend
        or ids != [evidence.annotation_id for evidence in new.evidence]
    )


def _queue_run(suggester: Suggester, rows: Sequence[Row], budget: float | None) -> int:
    store = suggester.store
    mine = [row for row in rows if row["backend"] == suggester.backend.name][:BILLED_AHEAD]
    if not mine or any(
        store.ledger.run(id_)["settings"].get("purpose") == REFRESH
        and store.ledger.run(id_)["task"] == suggester.task.name
        for id_ in store.ledger.open_runs()
    ):
        return 0
    records = store.records.many([row["record_id"] for row in mine])
    prepared = suggester.prepare([records[row["record_id"]] for row in mine])
    stale = []
    for row, p in zip(mine, prepared, strict=True):
        if (row["note"] or "").startswith(_NOT_RETRIEVED):
            continue
        old = [item[0] for item in strictjson.loads(row["evidence"])]
        now = [example.annotation_id for example in shown(p.examples, suggester.style)]
        if old != now[:EVIDENCE]:
            stale.append(row["record_id"])
    if stale:
        settings = {"purpose": REFRESH, "backend": suggester.backend.name, "model_id": suggester.backend.model_id}
        runs.start(store, suggester.project_id, suggester.task.name, stale, settings, budget)
    return len(stale)
