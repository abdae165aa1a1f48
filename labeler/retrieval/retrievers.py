"""Which k approved examples a record's prompt shows.

``balanced`` is the default: the nearest examples of each label in turn. Plain nearest neighbours mislead on
negation, where the nearest texts carry the opposite label; one of each kind lets the model see the difference.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from labeler.retrieval.index import Entry, ExampleIndex, Hit, Query


class Retriever(Protocol):
    """Chooses examples. ``retrieve`` returns at most ``k`` hits, most useful first."""

    def retrieve(self, index: ExampleIndex, query: Query, k: int) -> list[Hit]: ...


RetrieverFactory = Callable[[Mapping[str, Any]], Retriever]


@dataclass
class Cap:
    """At most a share of the k examples from one reviewer or one product; 1.0 is no limit, one is always allowed."""

    k: int
    share_reviewer: float = 1.0
    share_group: float = 1.0
    taken: list[Hit] = field(default_factory=list)

    def take(self, hit: Hit) -> bool:
        """Take the hit unless it was taken or a share is used up; return whether it was taken."""
        if len(self.taken) >= self.k or any(hit.position == other.position for other in self.taken):
            return False
        entries = [other.entry for other in self.taken]
        if not self._fits(entries, hit.entry.reviewer_id, self.share_reviewer, lambda entry: entry.reviewer_id):
            return False
        if not self._fits(entries, hit.entry.group, self.share_group, lambda entry: entry.group):
            return False
        self.taken.append(hit)
        return True

    def _fits(self, entries: Sequence[Entry], key: Any, share: float, of: Callable[[Entry], Any]) -> bool:
        if key is None or share >= 1:
            return True
        same = sum(1 for entry in entries if of(entry) == key)
        return same < max(1, int(self.k * share))

    def take_all(self, hits: Iterable[Hit]) -> list[Hit]:
        for hit in hits:
            if len(self.taken) >= self.k:
                break
            self.take(hit)
        return self.taken


_OF_SEVERAL = 0.5
"""The largest share of the examples from one reviewer, where several label and nothing is set."""
_WIDEST = 4096


class _Capped:
    """Base: reads the shares from the project's settings."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        # 0 is a share too: one example each.
        share = settings.get("max_share_reviewer")
        self.share_reviewer = None if share is None else float(share)
        self.share_group = float(settings.get("max_share_group", 1.0))

    def cap(self, k: int, index: ExampleIndex) -> Cap:
        several = _OF_SEVERAL if len(index.people) > 1 else 1.0
        return Cap(k, several if self.share_reviewer is None else self.share_reviewer, self.share_group)

    def nearest(self, index: ExampleIndex, query: Query, k: int, pool: int, stratum: str | None = None) -> list[Hit]:
        """Return at least ``pool`` nearest hits, more where one reviewer or one product fills them: k may be taken.

        The search ends somewhere: where nearly all examples are of one, a few less than k are shown.
        """
        while True:
            hits = index.search(query, pool, stratum=stratum)
            if len(hits) < pool or pool >= _WIDEST or len(self.cap(k, index).take_all(hits)) == k:
                return hits
            pool *= 8


class Similar(_Capped):
    """The k nearest examples."""

    def retrieve(self, index: ExampleIndex, query: Query, k: int) -> list[Hit]:
        hits = self.nearest(index, query, k, k)
        return self.cap(k, index).take_all(hits)


class Balanced(_Capped):
    """The nearest example of each label in turn, labels with the nearest example first."""

    def retrieve(self, index: ExampleIndex, query: Query, k: int) -> list[Hit]:
        if k <= 0:
            return []
        lanes: dict[str, list[Hit]] = {}
        for hit in index.search(query, max(8 * k, 64)):
            for name in hit.entry.strata:
                lanes.setdefault(name, []).append(hit)
        counts = index.counts()
        quota = -(-k // max(len(counts), 1))
        if len(counts) <= k:
            for name, count in counts.items():
                if len(lanes.get(name, ())) < min(quota, count):
                    lanes[name] = self.nearest(index, query, quota, quota, name)
        cap = self.cap(k, index)
        queues = sorted((lane for lane in lanes.values() if lane), key=lambda lane: -lane[0].similarity)
        while len(cap.taken) < k and queues:
            for lane in queues:
                while lane and not cap.take(lane.pop(0)):
                    if len(cap.taken) >= k:
                        break
            queues = [lane for lane in queues if lane]
        if len(cap.taken) < k:
            # The caps refused too many: farther examples fill up.
            cap.take_all(self.nearest(index, query, k, 8 * k))
        return sorted(cap.taken, key=lambda hit: -hit.similarity)


class Mmr(_Capped):
    """Maximal marginal relevance (Carbonell and Goldstein 1998): near the record, far from each other."""

    weight = 0.6

    def retrieve(self, index: ExampleIndex, query: Query, k: int) -> list[Hit]:
        candidates = self.nearest(index, query, k, max(5 * k, 20))
        vectors = index.vectors([hit.position for hit in candidates])
        redundancy = [0.0] * len(candidates)
        cap, left = self.cap(k, index), set(range(len(candidates)))
        while left and len(cap.taken) < k:
            best = max(left, key=lambda n: self.weight * candidates[n].similarity - (1 - self.weight) * redundancy[n])
            left.discard(best)
            if cap.take(candidates[best]):
                for n in left:
                    redundancy[n] = max(redundancy[n], float(vectors[n] @ vectors[best]))
        return cap.taken


class Diverse(_Capped):
    """The representative of each of k clusters of all examples, after Auto-CoT (Zhang et al. 2022)."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._made: tuple[int, int, list[int]] = (-1, 0, [])

    def retrieve(self, index: ExampleIndex, query: Query, k: int) -> list[Hit]:
        if k <= 0:
            return []
        representatives = self._representatives(index, k)
        entries, query = dict(index.entries()), index.current(query)
        positions = [position for position in representatives if position in entries]
        similarities = index.vectors(positions) @ np.asarray(query.vector, dtype=np.float32)
        hits = [
            Hit(position, entries[position], float(similarity))
            for position, similarity in zip(positions, similarities, strict=True)
            if not query.excludes(entries[position])
        ]
        return self.cap(k, index).take_all(sorted(hits, key=lambda hit: -hit.similarity))

    def _representatives(self, index: ExampleIndex, k: int) -> list[int]:
        """The clusters are made again only when the examples grew by a tenth."""
        size, made_k, positions = self._made
        if made_k == k and size <= len(index) <= size * 1.1 + 1 and size > 0:
            return positions
        import faiss

        alive = [position for position, _ in index.entries()]
        if len(alive) <= k:
            return alive
        vectors = index.vectors(alive)
        kmeans = faiss.Kmeans(vectors.shape[1], k, niter=15, seed=1, min_points_per_centroid=1, spherical=True)
        kmeans.train(vectors, init_centroids=_seeds(vectors, k))
        nearest = np.argmax(kmeans.centroids @ vectors.T, axis=1)
        positions = list(dict.fromkeys(alive[n] for n in nearest.tolist()))
        self._made = (len(alive), k, positions)
        return positions


def _seeds(vectors: np.ndarray, k: int) -> np.ndarray:
    """First centroids after k-means++ (Arthur and Vassilvitskii 2007): drawn at random alone, they miss whole heaps."""
    chance = np.random.default_rng(1)
    chosen = [int(chance.integers(len(vectors)))]
    distance = 1 - vectors @ vectors[chosen[0]]
    while len(chosen) < k:
        weights = np.maximum(distance, 0) + 1e-9
        chosen.append(int(chance.choice(len(vectors), p=weights / weights.sum())))
        distance = np.minimum(distance, 1 - vectors @ vectors[chosen[-1]])
    return vectors[chosen]


class Fixed(Diverse):
    """The same examples for every record, in the same order, so that the head of the prompt is cached.

    Those that the project pinned (setting ``pinned_ids``: record ids), in that order; where none is pinned, the
    representatives of the clusters.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.pinned = [int(id_) for id_ in settings.get("pinned_ids") or ()]

    def retrieve(self, index: ExampleIndex, query: Query, k: int) -> list[Hit]:
        if not self.pinned:
            return sorted(super().retrieve(index, query, k), key=lambda hit: hit.position)
        places = {entry.record_id: (position, entry) for position, entry in index.entries()}
        query = index.current(query)
        chosen = [places[id_] for id_ in self.pinned if id_ in places and not query.excludes(places[id_][1])]
        vectors = index.vectors([position for position, _ in chosen])
        similarities = vectors @ np.asarray(query.vector, dtype=np.float32)
        return [Hit(p, e, float(s)) for (p, e), s in zip(chosen, similarities, strict=True)][:k]


class Random(_Capped):
    """k examples drawn at random, the same ones for the same record: the baseline that retrieval must beat."""

    def retrieve(self, index: ExampleIndex, query: Query, k: int) -> list[Hit]:
        places, query = index.entries(), index.current(query)
        entries = [(position, entry) for position, entry in places if not query.excludes(entry)]
        random.Random(query.record_id).shuffle(entries)
        drawn = self.cap(k, index).take_all(Hit(position, entry, 0.0) for position, entry in entries)
        similarities = index.vectors([hit.position for hit in drawn]) @ np.asarray(query.vector, dtype=np.float32)
        return [replace(hit, similarity=float(s)) for hit, s in zip(drawn, similarities, strict=True)]


class Nothing:
    """No examples: zero-shot."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        pass

    def retrieve(self, index: ExampleIndex, query: Query, k: int) -> list[Hit]:
        return []


BUILT_IN: dict[str, RetrieverFactory] = {
    "balanced": Balanced,
    "similar": Similar,
    "mmr": Mmr,
    "diverse": Diverse,
    "fixed": Fixed,
    "random": Random,
    "none": Nothing,
}
