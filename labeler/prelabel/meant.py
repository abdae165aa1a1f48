"""Whether an empty answer (no keyword, no category, an empty summary) is one that its model clearly meant.

That there is nothing of this in a text is an answer like any other, where it was given. What is only left over, because
no label reached its threshold or something went wrong on the way, is none: approved in passing, it would teach that
there is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from labeler import strictjson
from labeler.backends.nearest import NearestBackend, weight
from labeler.labels import LabelSchema
from labeler.prelabel.fitting import CUT
from labeler.records import Suggestion, Value
from labeler.store import Store

# What these say is what is left of the votes and scores; they write nothing themselves.
FREE = (NearestBackend.name, "ensemble", "probe")


def clearly_meant(store: Store, schema: LabelSchema, suggestion: Suggestion) -> bool:
    """Return whether the value of a suggestion was clearly meant; any but the empty one was.

    An empty one was if a model wrote it that read the whole text and gave no answer that could not be read; of several
    samples, more than half. Where labels were scored or neighbours voted, it was if most of the examples are empty too.
    """
    if not schema.says_nothing(suggestion.value):
        return True
    if suggestion.scores or suggestion.backend in FREE:
        rows = store.annotations.examples([item.annotation_id for item in suggestion.evidence])
        found = [(rows.get(item.annotation_id), item.similarity) for item in suggestion.evidence]
        votes = [(strictjson.loads(row["value"]), s) for row, s in found if row is not None and row["value"]]
        return not left_over(schema, suggestion.value, votes)
    names = [step.name for step in suggestion.steps]
    if any(name.startswith("sample ") for name in names):
        # How far all samples agree with the empty one: each that is empty wholly, any other not at all.
        return suggestion.score is not None and suggestion.score > 0.5
    return "unreadable" not in names and CUT not in suggestion.flags


def left_over(schema: LabelSchema, value: Value | None, examples: Iterable[tuple[Value, float]]) -> bool:
    """Return whether an empty value is only what is left where nothing reached its threshold.

    ``examples`` are values with their similarity: empty is their answer if more than half of their weight is empty.
    """
    if not schema.says_nothing(value):
        return False
    weights = [(schema.says_nothing(other), weight(similarity)) for other, similarity in examples]
    return 2 * sum(w for empty, w in weights if empty) <= sum(w for _, w in weights)
