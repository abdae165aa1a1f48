"""The ``nearest`` backend: no language model, no key, no download. Neighbours vote.

Where the label schema can vote, the neighbours' approved labels vote, weighted by similarity; labelled phrases
of theirs that stand in the text too are labelled alike. Of texts and keywords they say nothing. Neighbours' agreement
is not confidence: they fail on negation, where the nearest text carries the opposite label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from labeler.backends.base import Backend, BackendRequest
from labeler.labels import Vote
from labeler.prompts import answer_text, sent_values
from labeler.records import BackendFailure, Completion
from labeler.sentence import Sentence

EXTRACTION, VOTE = "extraction", "vote"
_WEIGHT_POWER = 4
# How much more a neighbour says that is equal in all columns which the model sees than one that is so in none.
_ALIKE = 8.0


class NearestBackend(Backend):
    """Answers from ``request.examples``, the nearest approved examples."""

    name = "nearest"

    def complete(self, requests: Sequence[BackendRequest]) -> Iterator[Completion | BackendFailure]:
        for request in requests:
            yield self._answer(request)

    def _answer(self, request: BackendRequest) -> Completion | BackendFailure:
        votes = votes_of(request)
        if not votes:
            return BackendFailure(
                "no_examples", Sentence("There is no approved example yet; approve a few records first")
            )
        voted = request.schema.vote(votes)
        if voted is not None:
            value, score = voted
            return Completion(answer_text(request.task, request.schema, value), score=score, made=(VOTE,))
        value = request.schema.extract(votes, request.record.text)
        if value is None:
            return BackendFailure("no_answer", Sentence("The nearest examples do not help with this record"))
        return Completion(answer_text(request.task, request.schema, value), made=(EXTRACTION,))


def votes_of(request: BackendRequest) -> list[Vote]:
    """Return what the nearest approved examples say, each with its weight."""
    own = sent_values(request.record.metadata, request.columns)
    return [
        (example.value, weight(example.similarity) * _likeness(own, sent_values(example.metadata, request.columns)))
        for example in request.examples
    ]


def weight(similarity: float) -> float:
    """Return the weight of a neighbour's vote: a power of the cosine, so that close ones count for more."""
    return float(max(similarity, 0.0) ** _WEIGHT_POWER) + 1e-9


def _likeness(own: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return by what a vote is multiplied for the columns in which both records say the same."""
    same = sum(other.get(name) == value for name, value in own.items())
    return _ALIKE ** (same / len(own)) if own else 1.0
