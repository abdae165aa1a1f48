"""The ``ensemble`` backend: the vote of the neighbours, small models on vectors and on n-grams, pooled.

It is fitted in the background, in one thread, as approvals come; an answer is a few small products. What was fitted
stands in the store, so that all processes answer by the newest fit. Before there is enough to compare members on, the
descriptions of the labels and the neighbours answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from labeler.backends import columns
from labeler.backends.base import Backend, BackendRequest
from labeler.backends.ensemble import pool
from labeler.backends.ensemble.fit import Fit, packed, unpacked
from labeler.backends.ensemble.learn import (
    COMPARED,
    JOINED,
    NGRAMS,
    SEEDS,
    TAUGHT,
    VECTORS,
    VOTE,
    WORDS,
    Data,
    Learned,
    first,
    learn,
    left_out,
    seeds,
    weighed,
)
from labeler.backends.ensemble.learner import Learner
from labeler.backends.ensemble.words import without
from labeler.backends.nearest import votes_of
from labeler.labels import LabelSchema
from labeler.prompts import answer_text
from labeler.records import BackendFailure, Completion, Value
from labeler.retrieval.embedding import Embeddings
from labeler.retrieval.index import Entry, ExampleIndex
from labeler.retrieval.lexical import LexicalEmbedder, count_ngrams
from labeler.sentence import Sentence
from labeler.store.work import OLDEST

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

MIN_EXAMPLES = 8
"""With fewer approved examples members are not compared."""
_PER_LABEL = 2
_QUEUE = 300
# The directions that the lexical embedder was taught are a small part of its vectors.
_TAUGHT_SCALE = 3.0


@dataclass(frozen=True, slots=True)
class _Read:
    """Which n-grams of a text the fit knows, int (n,), what they weigh, float (n,), and the text's lexical vector.

    That is empty where the project's own vectors are lexical.
    """

    place: Array
    values: Array
    lexical: Array


class EnsembleBackend(Learner[Fit]):
    """Learns one project's task with labels."""

    def __init__(self, index: ExampleIndex, lexical: Embeddings, language: str) -> None:
        super().__init__(index, lexical)
        self.language = language
        self._described: tuple[tuple[str, ...], Array] | None = None

    @staticmethod
    def supports(schema: LabelSchema) -> bool:
        # What is known of a text as a whole does not tell one of its sides from the other.
        return (schema.one_of_labels or schema.set_of_labels) and not schema.sides

    @property
    def measured(self) -> Learned | None:
        """What cross-validation says of the fit; None where too little is approved for it."""
        fitted = self.fitted
        return fitted.learned if fitted is not None and fitted.learned.compared else None

    @property
    def trusted(self) -> bool:
        return self.measured is not None

    def _usable(self, fit: Fit) -> bool:
        # One that learned labels which are not offered any more would spread their records over the others.
        return fit.columns == self.columns and set(fit.labels) <= set(self.index.task.schema.names)

    @property
    def _is_lexical(self) -> bool:
        return self.index.embeddings.embedder.id == LexicalEmbedder.id

    # Fits

    def starts(self) -> bool:
        """Whether there is a first fit by now, which is made at once where that keeps nobody waiting."""
        index = self.index
        if index.store.db.read_only or not index.embeddings.embedder.fast or not index.ready():
            return False
        index.refresh()
        return len(index) < MIN_EXAMPLES and self.fit()

    def _packed(self, fit: Fit) -> tuple[str, dict[str, Any], bytes]:
        return packed(fit)

    def _unpacked(self, stored: Mapping[str, Any]) -> Fit | None:
        return unpacked(stored)

    def left_out(self) -> LeftOut | None:
        """Return what the ensemble says of the newest examples, each as if it had not seen it.

        None where there is too little to compare members on.
        """
        from threadpoolctl import threadpool_limits

        schema = self.index.task.schema
        with self._lock, threadpool_limits(1):
            labels, entries, member, enough = self._known(self.examples())
            if not enough:
                return None
            numbers = self._numbers(entries)
            data = self._data(entries, labels, member, numbers, self._seeds(labels, numbers)[0])
            found = left_out(data)
        fitted, size_odds = self.fitted, pool.size_odds(found, data.member[-COMPARED:].sum(axis=1))
        rule = pool.EXPECTED if fitted is None else fitted.learned.rule
        values = [decided(schema, labels, chances, size_odds, rule)[0] for chances in found]
        newest = [entry for _, entry in entries[-COMPARED:]]
        one = schema.one_of_labels
        golds = [e.strata[0] if one else [name for name in schema.names if name in e.strata] for e in newest]
        return LeftOut([entry.record_id for entry in newest], golds, labels, found, values, rule, len(entries))

    def _known(
        self, entries: Sequence[tuple[int, Entry]]
    ) -> tuple[list[str], Sequence[tuple[int, Entry]], Array, bool]:
        """Return the labels that are known by now, the examples of them, which has which, and if these are enough."""
        schema = self.index.task.schema
        names = [label.name for label in schema.leaves]
        one = schema.one_of_labels
        member = np.array([[name in entry.strata for name in names] for _, entry in entries], dtype=bool)
        member = member.reshape(len(entries), len(names))
        kept = np.flatnonzero(member.sum(axis=0) >= _PER_LABEL)
        rows = np.flatnonzero(member[:, kept].any(axis=1)) if one else np.arange(len(entries))
        enough = len(rows) >= MIN_EXAMPLES and len(kept) >= _fewest(schema)
        if not enough:
            kept, rows = np.arange(len(names)), np.arange(len(entries))
        labels, entries = [names[n] for n in kept.tolist()], [entries[n] for n in rows.tolist()]
        return labels, entries, member[rows][:, kept], enough

    def _numbers(self, entries: Sequence[tuple[int, Entry]]) -> list[dict[str, Any]]:
        if not self.columns:
            return []
        stored = self.index.store.records.metadata([entry.record_id for _, entry in entries])
        return columns.learn(self.columns, list(stored.values()))

    def _fit(self, seq: int, entries: Sequence[tuple[int, Entry]]) -> Fit | None:
        schema = self.index.task.schema
        labels, entries, member, enough = self._known(entries)
        one = schema.one_of_labels
        numbers = self._numbers(entries) if enough else []
        seeded, queue = self._seeds(labels, numbers)
        block = self._seeded
        if enough:
            learned = learn(self._data(entries, labels, member, numbers, seeded))
        elif seeded is None and not entries:
            return None
        else:
            learned = first(member, seeded, queue, one, schema.sizes[0])
        return Fit(
            "", tuple(labels), learned, len(entries), seq, self.index.task.version, self.columns, tuple(numbers), block
        )

    @property
    def _seeded(self) -> str:
        return TAUGHT if self._is_lexical else JOINED

    def _seeds(
        self, labels: Sequence[str], numbers: Sequence[Mapping[str, Any]]
    ) -> tuple[tuple[Array, Array] | None, Array]:
        """Return what the descriptions of labels say, and the features of the first records that it is centred by."""
        store, task = self.index.store, self.index.task
        ids = store.work.front(self.index.project_id, task.name, OLDEST, _QUEUE, only_free=False)
        waiting = list(store.records.texts(ids).items())
        found = [task.schema.label(name) for name in labels]
        texts = tuple(f"{label.titled(self.language)}. {label.defined(self.language)}" for label in found)
        own, none = self.index.embeddings, [dict[str, Any]()]
        if self._described is None or self._described[0] != texts:
            self._described = texts, own.embedder.embed(texts)
        described, queue = (
            self._blocks(lexical, vectors, none * len(vectors), numbers)[self._seeded]
            for lexical, vectors in (
                (self.lexical.embedder.embed(texts), self._described[1]),
                (self.lexical.vectors(waiting), own.vectors(waiting)),
            )
        )
        return seeds(described, queue), queue

    def _data(
        self, entries: Sequence[tuple[int, Entry]], labels: Sequence[str], member: Array,
        numbers: Sequence[Mapping[str, Any]], seeded: tuple[Array, Array] | None,
    ) -> Data:  # fmt: skip
        store, schema = self.index.store, self.index.task.schema
        ids = [entry.record_id for _, entry in entries]
        vectors = self.index.vectors([position for position, _ in entries])
        # One that is removed at this moment has no text any more; what was learned of it is removed too.
        newest = store.records.texts(ids if not self._is_lexical else ids[-COMPARED:])
        lexical = vectors if self._is_lexical else self.lexical.vectors([(id_, newest.get(id_, "")) for id_ in ids])
        stored = store.records.metadata(ids) if numbers else {}
        blocks = self._blocks(lexical, vectors, [stored.get(id_, {}) for id_ in ids], numbers)
        grams = count_ngrams([newest.get(id_, "") for id_ in ids[-COMPARED:]])

        def agree(a: Sequence[int], b: Sequence[int]) -> float:
            return schema.agreement([labels[n] for n in a], [labels[n] for n in b])

        return Data(blocks, vectors, grams, member, schema.one_of_labels, agree, seeded, self._seeded)

    def _blocks(
        self, lexical: Array, vectors: Array, metadata: Sequence[Mapping[str, Any]],
        numbers: Sequence[Mapping[str, Any]],
    ) -> dict[str, Array]:  # fmt: skip
        """Return the dense features of records, float (n, d) by member: each with the columns that models see."""
        beside = [columns.numbers(numbers, metadata)] if numbers else []
        taught = _TAUGHT_SCALE * lexical[:, LexicalEmbedder.taught]
        blocks = {TAUGHT: np.hstack([taught, *beside]), VECTORS: np.hstack([vectors, *beside])}
        return blocks if self._is_lexical else {**blocks, JOINED: np.hstack([taught, vectors, *beside])}

    # Answers

    def answered(
        self, requests: Sequence[BackendRequest], only: str = "", name: str = Learner.name
    ) -> Iterator[Completion | BackendFailure]:
        """Yield answers by all members, or by ``only`` one of them. Their texts are read together."""
        fitted = self.fitted
        if fitted is None and requests and self.supports(requests[0].schema) and self.fit():
            fitted = self.fitted
        read = self._read(fitted, [request.record.text for request in requests]) if fitted is not None else []
        for n, request in enumerate(requests):
            if not self.supports(request.schema):
                reason = Sentence("The %(name)s labels choices only, not %(kind)s", name=name, kind=request.schema.kind)
                yield BackendFailure("setup", reason, fatal=True)
            elif fitted is None or (only and only not in fitted.members):
                reason = Sentence(
                    "The %(name)s needs at least %(count)s approved examples, of two labels or more",
                    name=name,
                    count=MIN_EXAMPLES,
                )
                yield BackendFailure("no_examples", reason, fatal=True)
            elif request.vector is None:
                yield BackendFailure("no_vector", Sentence("The record has no vector yet"))
            else:
                yield self._answer(fitted, request, read[n : n + 1], only, name)

    def _answer(
        self, fitted: Fit, request: BackendRequest, read: Sequence[_Read], only: str, name: str
    ) -> Completion | BackendFailure:
        schema: Any = request.schema
        own = _row(request.vector)
        odds, one = self._odds(fitted, request, only, own, read)[0], schema.one_of_labels
        found = pool.doubted(pool.chances(odds, one), one)
        scores, learned = dict(zip(fitted.labels, found.tolist(), strict=True)), fitted.learned
        value, score = decided(schema, fitted.labels, found, learned.size_odds, learned.rule)
        score *= 1.0 if one else learned.ratio
        if value is None:
            return BackendFailure(
                "no_answer", Sentence("The %(name)s was fitted on labels that the task no longer has", name=name)
            )
        text = answer_text(request.task, schema, value)
        how = SEEDS if not fitted.learned.compared else name
        return Completion(text, score=min(score, pool.MOST), scores=scores, made=(how,), fit=fitted.id)

    def moved_by(self, request: BackendRequest, value: Value, only: str = "") -> dict[str, list[tuple[str, float]]]:
        """Return for each label of a suggested value what each word of the record does for it, in nats, most first.

        That is what its log odds would lose without the word: those of a choice against the runner-up, those of a set's
        label against its absence. Of ``only`` one member, or of all but the neighbours' vote, whose evidence are the
        neighbours, and models on vectors that are too slow to be made for each word. Empty without a fit.
        """
        fitted, one = self.fitted, request.schema.one_of_labels
        if fitted is None or request.vector is None or (only and only not in fitted.members):
            return {}
        left_out = without(request.record.text)
        texts = [request.record.text, *(text for _, text in left_out)]
        odds = self._odds(fitted, request, only, self._without(request, texts[1:]), self._read(fitted, texts))
        found: dict[str, list[tuple[str, float]]] = {}
        for name in [value] if one else value:
            if name not in fitted.labels:
                continue
            place = fitted.labels.index(name)
            margin = odds[:, place]
            others = [n for n in range(len(fitted.labels)) if n != place]
            if one and others:
                margin = margin - odds[:, max(others, key=lambda n: float(odds[0, n]))]
            effects = (margin[0] - margin[1:]).tolist()
            pairs = [(word, effect) for (word, _), effect in zip(left_out, effects, strict=True)]
            found[name] = sorted(pairs, key=lambda pair: -pair[1])
        return found

    def _without(self, request: BackendRequest, texts: Sequence[str]) -> Array:
        """Return the vector of a record, and those of ``texts``: its own where others would take too long."""
        own, embedder = _row(request.vector), self.index.embeddings.embedder
        return np.vstack([own, embedder.embed(texts) if embedder.fast else np.repeat(own, len(texts), axis=0)])

    def _odds(self, fitted: Fit, request: BackendRequest, only: str, own: Array, read: Sequence[_Read]) -> Array:
        """Return the log odds of the labels, if the record had each of the texts that were read: (texts, labels).

        ``own`` are the vectors of the texts, float32 (texts, d).
        """
        lexical = own if self._is_lexical else np.stack([one.lexical for one in read])
        blocks = self._blocks(lexical, own, [request.record.metadata] * len(read), fitted.numbers)
        blocks |= {SEEDS: blocks[fitted.seeded], VOTE: self._shares(fitted, request)[None]}
        odds: Array = np.zeros((len(read), len(fitted.labels)))
        for member in fitted.learned.members if not only else [fitted.members[only]]:
            if member.name == WORDS:
                said = np.stack([member.weights[:, one.place].sum(axis=1) for one in read])
            elif member.name == NGRAMS:
                said = np.stack([member.weights[:, one.place] @ one.values for one in read])
            else:
                said = blocks[member.name] @ member.weights.T
            odds = odds + (1.0 if only else member.share) * (said + member.offset)
        return odds

    def _read(self, fitted: Fit, texts: Sequence[str]) -> list[_Read]:
        """Read texts once for all members."""
        vocabulary, lexical = fitted.learned.vocabulary, cast(LexicalEmbedder, self.lexical.embedder)
        counted = rows, buckets, counts = count_ngrams(texts)
        vectors = np.zeros((len(texts), 0)) if self._is_lexical else lexical.of_ngrams(counted, len(texts))
        if not len(vocabulary):
            return [_Read(vocabulary, np.zeros(0), vector) for vector in vectors]
        place = np.minimum(np.searchsorted(vocabulary, buckets), len(vocabulary) - 1)
        known = vocabulary[place] == buckets
        rows, place = rows[known], place[known]
        values = weighed(counts[known], fitted.learned.idf[place])
        ends = pairwise(np.searchsorted(rows, np.arange(len(texts) + 1)).tolist())
        return [
            _Read(place[a:b], values[a:b] / (float(np.linalg.norm(values[a:b])) or 1.0), vector)
            for (a, b), vector in zip(ends, vectors, strict=True)
        ]

    def _shares(self, fitted: Fit, request: BackendRequest) -> Array:
        """Return each label's share of the neighbours' votes, and a one behind them where there are none."""
        votes, shares = votes_of(request), np.zeros(len(fitted.labels) + 1)
        shares[-1] = not votes
        total = sum(weight for _, weight in votes)
        for value, weight in votes:
            for name in request.schema.strata(value):
                if name in fitted.labels:
                    shares[fitted.labels.index(name)] += weight / total
        return shares


class ProbeBackend(Backend):
    """The ensemble's model on the project's vectors, alone: ridge regression, which agrees with logistic regression."""

    name = "probe"
    learns = True

    def __init__(self, ensemble: Learner[Any]) -> None:
        self.ensemble = ensemble

    @property
    def learned(self) -> str:  # type: ignore[override]
        return self.ensemble.learned

    @property
    def fitted(self) -> Fit | None:
        """The ensemble's fit, if it has the model: before there is enough to learn it from, it has not."""
        fitted = self.ensemble.fitted
        return fitted if isinstance(fitted, Fit) and VECTORS in fitted.members else None

    def answers_now(self) -> bool:
        return self.fitted is not None

    def complete(self, requests: Sequence[BackendRequest]) -> Iterator[Completion | BackendFailure]:
        yield from self.ensemble.answered(requests, VECTORS, self.name)

    def moved_by(self, request: BackendRequest, value: Value) -> dict[str, list[tuple[str, float]]]:
        """Return what the ensemble's :meth:`EnsembleBackend.moved_by` returns, of this model alone."""
        return self.ensemble.moved_by(request, value, VECTORS)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What the ensemble says of n examples that it has not seen: ``chances`` of the ``labels`` it knows, (n, labels).

    ``golds`` are the approved values, ``values`` its answers, by ``rule``; ``learned_from`` counts all examples.
    """

    record_ids: Sequence[int]
    golds: Sequence[Value]
    labels: Sequence[str]
    chances: Array
    values: Sequence[Value | None]
    rule: str
    learned_from: int


def decided(
    schema: LabelSchema, labels: Sequence[str], chances: Array, size_odds: Array, rule: str
) -> tuple[Value | None, float]:
    """Return the value that the chances of the labels speak for, (labels,), and its score; see :func:`pool.size_of`."""
    size, score = None, float(chances.max())
    if schema.set_of_labels:
        least, bound = schema.sizes
        most = len(chances) if bound is None else min(bound, len(chances))
        size, score = pool.size_of(chances, size_odds, min(least, most), most, rule)
    return schema.decide(dict(zip(labels, chances.tolist(), strict=True)), size), score


def _row(vector: Array | None) -> Array:
    """Return a vector as the only row of a float32 matrix."""
    return np.asarray(vector, dtype=np.float32)[None]


def _fewest(schema: LabelSchema) -> int:
    """Return how many labels have to be known to answer by them alone: as many as a set has at least."""
    return max(2, schema.sizes[0])
