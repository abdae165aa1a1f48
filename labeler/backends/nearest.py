"""The ``nearest`` backend: no language model, no key, no download. Neighbours vote; texts are extracted.

Where the label schema can vote, the neighbours' approved labels vote, weighted by similarity. Keywords and texts
are extracted: always verbatim from the record, never written. Neighbours' agreement is not confidence: they fail
on negation, where the nearest text carries the opposite label.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from labeler.backends.base import BackendRequest
from labeler.errors import LabelError
from labeler.labels import Fields, Keywords, LabelSchema, Spans, Text
from labeler.labels.base import Vote
from labeler.prompts import answer_text, sent_values
from labeler.records import BackendFailure, Completion, Value
from labeler.text import split_sentences

if TYPE_CHECKING:
    import numpy as np

Embed = Callable[[Sequence[str]], "np.ndarray"]
EXTRACTION, VOTE = "extraction", "vote"
_WEIGHT_POWER = 4
# How much more a neighbour says that is equal in all columns which the model sees than one that is so in none.
_ALIKE = 8.0
# Letters of Korean that stand alone are laughter or tears behind a word.
_WORD = re.compile("(?:(?![\u3131-\u318e])\\w)+")


class NearestBackend:
    """Answers from ``request.examples``, the nearest approved examples. ``embed`` makes vectors of sentences."""

    name = "nearest"
    model_id: str | None = None
    billed = False

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._vector = lru_cache(maxsize=4096)(self._one_vector)

    def complete(self, requests: Sequence[BackendRequest]) -> Iterator[Completion | BackendFailure]:
        for request in requests:
            yield self._answer(request)

    def _answer(self, request: BackendRequest) -> Completion | BackendFailure:
        votes = votes_of(request)
        if not votes:
            return BackendFailure("no_examples", "There is no approved example yet; approve a few records first")
        voted = request.schema.vote(votes)
        if voted is not None:
            value, score = voted
            return Completion(answer_text(request.task, request.schema, value), score=score, note=VOTE)
        value = self._extract(request.schema, votes, request.record.text)
        if value is None:
            return BackendFailure("no_answer", "The nearest examples do not help with this record")
        return Completion(answer_text(request.task, request.schema, value), note=EXTRACTION)

    def _extract(self, schema: LabelSchema, votes: Sequence[tuple[Value, float]], text: str) -> Value | None:
        if isinstance(schema, Fields):
            parts: dict[str, Any] = {}
            for name, part in schema.parts.items():
                inner = [(schema.full(value)[name], w) for value, w in votes]
                parts[name] = self._extract(part, [(v, w) for v, w in inner if v is not None], text)
            return schema.parse({name: value for name, value in parts.items() if value is not None}, text)
        voted = schema.vote(votes)
        if voted is not None:
            return voted[0]
        if isinstance(schema, Keywords):
            return self._keywords(schema, votes, text)
        if isinstance(schema, Spans):
            return shared_spans(schema, votes, text)
        if isinstance(schema, Text):
            return self._sentence(schema, votes, text)
        return schema.empty()

    def _keywords(self, schema: Keywords, votes: Sequence[tuple[Value, float]], text: str) -> Value:
        """Keywords that neighbours share with the text, best supported first, then its noun phrases."""
        support: dict[str, float] = {}
        sizes = 0.0
        for value, w in votes:
            sizes += w * len(value)
            for keyword in value:
                if keyword["text"] in text:
                    support[keyword["text"]] = support.get(keyword["text"], 0.0) + w
        total = sum(w for _, w in votes)
        wanted = max(1, min(schema.maximum, round(sizes / total))) if total else schema.maximum
        # A longer phrase says more than a short one with the same support.
        ranked = sorted(support, key=lambda phrase: (-support[phrase] * len(phrase) ** 0.5, phrase))
        return place_phrases(schema, [*ranked, *noun_phrases(text)], text, wanted)

    def _sentence(self, schema: Text, votes: Sequence[tuple[Value, float]], text: str) -> Value:
        """The sentences nearest to the centroid of what neighbours say here; empty if most of them say nothing."""
        import numpy as np

        said = [(value, w) for value, w in votes if value]
        total = sum(w for _, w in votes)
        if not said or (schema.empty() == "" and 2 * sum(w for _, w in said) < total):
            return schema.empty()
        sentences = [text[start:end] for start, end in split_sentences(text)] or [text]
        centroid = np.sum([self._vector(value) * w for value, w in said], axis=0)
        similarities = self._embed(sentences) @ centroid
        best = sorted(np.argsort(-similarities)[: schema.sentences].tolist())
        chosen = " ".join(sentences[n] for n in best)
        return chosen[: schema.maximum].rstrip()

    def _one_vector(self, text: str) -> np.ndarray:
        vector: np.ndarray = self._embed([text])[0]
        return vector


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


def place_phrases(schema: Keywords, phrases: Sequence[str], text: str, wanted: int) -> Value:
    """Return the canonical value of the first ``wanted`` phrases that can stand together in the text."""
    value: Value = []
    for phrase in phrases:
        if len(value) >= wanted:
            break
        try:
            value = schema.parse([*value, phrase], text)
        except LabelError:
            continue
    return value


def shared_spans(schema: Spans, votes: Sequence[tuple[Value, float]], text: str) -> Value:
    """Return the neighbours' labelled phrases that stand in the text too."""
    support: dict[tuple[str, str], float] = {}
    for value, w in votes:
        for span in value:
            if span["text"] in text:
                pair = (span["label"], span["text"])
                support[pair] = support.get(pair, 0.0) + w
    found: Value = []
    for label, phrase in sorted(support, key=lambda pair: (-support[pair], pair)):
        try:
            found = schema.parse([*schema.answer(found), {"label": label, "text": phrase}], text)
        except LabelError:
            continue
    return found


@lru_cache(maxsize=1)
def _kiwi() -> Any:
    try:
        from kiwipiepy import Kiwi
    except ImportError:
        return None
    return Kiwi()


def noun_phrases(text: str) -> list[str]:
    """Return the noun phrases of a Korean text, longest first; empty without the package kiwipiepy.

    Verbatim and in whole words: particles and endings stay, as reviewers leave them.
    """
    kiwi = _kiwi()
    if kiwi is None or not re.search("[가-힣]", text):
        return []
    phrases: list[tuple[int, int]] = []
    for token in kiwi.tokenize(text):
        noun = token.tag in ("NNG", "NNP", "SL", "XSN")
        start, end = token.start, token.start + token.len
        if noun and phrases and 0 <= start - phrases[-1][1] <= 1 and end - phrases[-1][0] <= 20:
            phrases[-1] = (phrases[-1][0], end)
        elif noun and token.tag != "XSN":
            phrases.append((start, end))
    words = [match.span() for match in _WORD.finditer(text)]
    found = dict.fromkeys(
        text[next((a for a, b in words if a <= start < b), start) : next((b for a, b in words if a < end <= b), end)]
        for start, end in phrases
        if end - start >= 2
    )
    return sorted(found, key=lambda phrase: -len(phrase))
