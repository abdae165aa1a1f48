"""When a suggestion is current: the one rule, for the desk, refreshes, runs and the overview.

A suggestion is current if it was made by what answers now (the backend, model, settings and prompt: its
*kind*), under the task's present version, for the record's text as it is, by what was learned by now (its *fit*), and
from the examples that would be shown now. One that only its fit or its examples make old is *older*; any other is of
*another* kind. A free suggestion that is not current is made again wherever it is met, as that costs nothing. A paid
one is kept, marked, and renewed near the front of the queue within the budget: an approval changes the examples of
nearly every record, and must not buy them all again.
"""

from __future__ import annotations

from labeler.prelabel.fitting import FEWER
from labeler.prelabel.flows import FIXED_AGREED, FREE_AGREED
from labeler.prelabel.suggest import Suggester
from labeler.records import Record, Suggestion
from labeler.store.suggestions import Kind

CURRENT, OLDER, OTHER = "current", "older", "other"

# An approval does not make them older.
_NOT_RETRIEVED = {FREE_AGREED, FIXED_AGREED}


def standing(suggester: Suggester, record: Record, suggestion: Suggestion) -> str:
    """Return whether a suggestion is :data:`CURRENT`, :data:`OLDER` or of another kind than ``suggester`` makes."""
    if not _of_kind(suggester, suggestion) or suggestion.text_hash not in ("", record.content_hash):
        return OTHER
    if suggestion.fit != suggester.learned(suggestion.model_id, suggestion.scores):
        return OLDER
    # Nothing was decided since, which is the common case: no need to search.
    if suggestion.seq is not None and suggestion.seq == suggester.index.refresh():
        near = suggester.index.excludes(record, [evidence.record_id for evidence in suggestion.evidence])
        return OLDER if near else CURRENT
    return CURRENT if _same_examples(suggester, record, suggestion) else OLDER


def kind_of(suggester: Suggester) -> Kind:
    """Return what tells the suggestions of ``suggester`` in the store, so that a run leaves out what it would repeat.

    For a free backend those are the current ones as far as it shows without a search: nothing was decided since.
    """
    if suggester.backend.billed:
        return Kind(
            suggester.kind,
            suggester.task.version,
            suggester.backend.name,
            suggester.backend.model_id,
            suggester.prompt_digest,
        )
    fit, seq = suggester.learned(None, None), suggester.index.refresh()
    return Kind(suggester.kind, suggester.task.version, fit=fit, seq=seq)


def _of_kind(suggester: Suggester, suggestion: Suggestion) -> bool:
    if suggestion.task_version != suggester.task.version:
        return False
    if not suggestion.kind and suggestion.billed:
        # Made by a program that did not write it down: what it wrote must do. A cascade may have asked no model.
        model_id = suggester.backend.model_id
        asked = model_id if suggestion.call_id is None else suggester.store.suggestions.model_asked(suggestion)
        return (suggestion.backend, asked, suggestion.prompt_digest) == (
            suggester.backend.name,
            model_id,
            suggester.prompt_digest,
        )
    return suggestion.kind == suggester.kind


def _same_examples(suggester: Suggester, record: Record, suggestion: Suggestion) -> bool:
    if not _NOT_RETRIEVED.isdisjoint(suggestion.made):
        return True
    before = [evidence.annotation_id for evidence in suggestion.evidence]
    now = suggester.shown_now(record, suggestion.value)
    if FEWER in suggestion.flags:
        # The process that made it may have known that the model reads less.
        now = now[: len(before)]
    return before == now
