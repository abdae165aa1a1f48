"""What a search costs: ``python benchmarks/retrieval.py [--examples 20000] [--large 200000] [--queries 300]``.

Top-8 over approved examples through :meth:`ExampleIndex.search`, beside a raw ``faiss.IndexFlatIP.search`` of the same
vectors, query by query in turn; then what a suggestion really needs: the balanced retriever, and with it the texts and
labels of the hits. The vectors are synthetic, 256 dimensions as the lexical embedder's. Last, what it costs the index
to take in one more approval when it holds 2,000 and ``--large`` examples (64 dimensions, to keep the file small).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
from common import LABELS, SENTIMENT, approve, fill, store_vectors, unit_vectors

from labeler.retrieval.embedding import Embeddings
from labeler.retrieval.index import ExampleIndex, Query
from labeler.retrieval.retrievers import BUILT_IN
from labeler.store import Store

K = 8


class Synthetic:
    """An embedder whose vectors are all in the store already."""

    fast = True

    def __init__(self, dim: int) -> None:
        self.dim, self.id = dim, f"synthetic-{dim}"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        raise NotImplementedError


def make(folder: Path, count: int, spare: int, dim: int) -> tuple[ExampleIndex, np.ndarray, list[int]]:
    """Return an index of ``count`` examples, all vectors, and the ids of ``spare`` records that are still pending."""
    store = Store(folder / f"{count}-{dim}.db", synchronous="OFF")
    project_id = store.write(lambda tx: store.projects.create(tx, "reviews", "ko", {}))
    ids = fill(store, project_id, count + spare)
    vectors = unit_vectors(count + spare, dim)
    store_vectors(store, f"synthetic-{dim}", ids, vectors)
    approve(store, project_id, ids[:count], lambda id_: LABELS[id_ % 3])
    return ExampleIndex(store, project_id, SENTIMENT, Embeddings(store, Synthetic(dim))), vectors, ids[count:]


def milliseconds(works: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """Return the median time of each work, done in turn so that all meet the same machine."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for n in range(rounds):
        for name, work in works.items():
            started = time.perf_counter()
            work(n)
            took[name].append(time.perf_counter() - started)
    return {name: 1000 * statistics.median(times) for name, times in took.items()}


def searching(folder: Path, count: int, rounds: int) -> None:
    index, vectors, pending = make(folder, count, rounds, 256)
    raw = faiss.IndexFlatIP(256)
    raw.add(vectors[:count])
    queries = [Query(vector, id_) for id_, vector in zip(pending, vectors[count:], strict=True)]
    started = time.perf_counter()
    index.refresh()
    built = time.perf_counter() - started
    same = [[hit.position for hit in index.search(query, K)] for query in queries[:20]]
    assert same == [raw.search(query.vector[None], K)[1][0].tolist() for query in queries[:20]]
    balanced, similar = BUILT_IN["balanced"]({}), BUILT_IN["similar"]({})
    took = milliseconds(
        {
            "raw": lambda n: raw.search(queries[n].vector[None], K),
            "search": lambda n: index.search(queries[n], K),
            "similar": lambda n: index.examples(similar.retrieve(index, queries[n], K)),
            "balanced": lambda n: balanced.retrieve(index, queries[n], K),
            "full": lambda n: index.examples(balanced.retrieve(index, queries[n], K)),
        },
        rounds,
    )
    print(f"{count:,} examples, built from the store in {built:.2f} s; top {K}, medians of {rounds} queries:")
    print(f"  raw IndexFlatIP {took['raw']:.3f} ms; ExampleIndex.search {took['search']:.3f} ms", end="")
    print(f"; ratio {took['search'] / took['raw']:.2f}")
    for name, what in (("similar", "similar with texts"), ("balanced", "balanced"), ("full", "balanced with texts")):
        print(f"  {what} {took[name]:.3f} ms; ratio {took[name] / took['raw']:.2f}")
    index.store.close()


def adding(folder: Path, count: int, rounds: int) -> float:
    index, _, pending = make(folder, count, rounds, 64)
    index.refresh()
    store, took = index.store, []
    for id_ in pending:
        approve(store, index.project_id, [id_], lambda id_: LABELS[id_ % 3])
        started = time.perf_counter()
        index.refresh()
        took.append(time.perf_counter() - started)
    assert len(index) == count + rounds
    store.close()
    return 1000 * statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a search costs, beside raw FAISS.")
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--large", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        searching(Path(name), arguments.examples, arguments.queries)
        small, large = (adding(Path(name), count, 200) for count in (2000, arguments.large))
        print(
            f"Taking in one approval: {small:.3f} ms at 2,000 examples; {large:.3f} ms at {arguments.large:,}", end=""
        )
        print(f"; ratio {large / small:.2f}")


if __name__ == "__main__":
    main()
