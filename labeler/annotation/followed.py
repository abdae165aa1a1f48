"""How far a decision follows the suggestion that people saw: what agreement is counted from."""

from __future__ import annotations

from labeler.errors import InputError
from labeler.labels import safe_agreement
from labeler.records import Value
from labeler.store import Store, Tx
from labeler.store.annotations import ACCEPTED, CORRECTED, SCRATCH
from labeler.task import Task


def compare(
    store: Store, tx: Tx, task: Task, record_id: int, suggestion_id: int | None, blind: bool, value: Value | None
) -> tuple[str, float | None]:
    """Return how a decision came about, and its agreement with the suggestion (0 to 1), None where there is none.

    ``value`` is None for a rejection. Raises :class:`InputError` for the suggestion of another record.
    """
    if suggestion_id is None:
        return SCRATCH, None
    suggestion = store.suggestions.get(suggestion_id, tx)
    if suggestion is None or (suggestion.record_id, suggestion.task) != (record_id, task.name):
        raise InputError(
            "Suggestion %(number)s was not made for record %(record)s", number=suggestion_id, record=record_id
        )
    if suggestion.failure is not None or suggestion.value is None:
        return SCRATCH, None
    suggested = task.carried(suggestion.value, suggestion.task_version)
    agreement = None if value is None else safe_agreement(task.schema, suggested, value)
    if store.written.is_written(record_id, tx):
        # It was let in because the free suggestion says what was asked for: that they agree measures nothing.
        agreement = None
    if blind or value is None:
        return SCRATCH, agreement
    return (ACCEPTED if suggested == value else CORRECTED), agreement
