"""Compare the embedders: ``python benchmarks/embedders.py DATA_FOLDER [--texts 700] [--fast]``.

For each set of reviews: how often a vote of the 8 nearest neighbours, weighted by cosine similarity, gives the gold
label (leave one out: a text and its exact duplicates never vote for it), beside the share of the most frequent label.
Of nsmc and en_pros_cons only the rows are used that the lexical embedder was not fitted on
(``fit_lexical.held_out``). All embedders see the same ``--texts`` texts of a set, drawn with a fixed seed; fewer
texts mean farther neighbours, so numbers of two sizes do not compare. Two standard errors of 700 texts are 0.03.
Milliseconds a text: a whole set in one call, and (alone) one call a text, as a page waits for it.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fit_lexical import held_out, read

from labeler.retrieval.base import Embedder
from labeler.retrieval.e5 import E5Embedder
from labeler.retrieval.lexical import LexicalEmbedder
from labeler.text import content_hash

SETS = ("naver_shopping", "kobest_sentineg", "nsmc", "en_pros_cons")
FITTED = ("nsmc", "en_pros_cons")
K = 8


def sample(folder: Path, name: str, size: int) -> list[dict[str, Any]]:
    rows = [row for row in read(folder, name) if name not in FITTED or held_out(row)]
    chosen = np.random.default_rng(0).permutation(len(rows))[:size]
    return [rows[i] for i in sorted(chosen)]


def agreement(vectors: np.ndarray, texts: Sequence[str], labels: Sequence[str]) -> float:
    """Return the share of rows whose label wins the vote of their K nearest rows."""
    similarity = vectors @ vectors.T
    hashes = np.array([content_hash(text) for text in texts])
    similarity[hashes[:, None] == hashes] = -np.inf
    hits = 0
    for i, row in enumerate(similarity):
        votes: Counter[str] = Counter()
        for j in np.argsort(-row, kind="stable")[:K]:
            votes[labels[j]] += max(float(row[j]), 0.0)
        hits += votes.most_common(1)[0][0] == labels[i]
    return hits / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the embedders.")
    parser.add_argument("data", type=Path, metavar="DATA_FOLDER")
    parser.add_argument("--texts", type=int, default=700, help="texts a set (default: 700)")
    parser.add_argument("--fast", action="store_true", help="only the embedders that may run while a page waits")
    arguments = parser.parse_args()
    sets = {name: sample(arguments.data, name, arguments.texts) for name in SETS}
    embedders: list[Embedder] = [LexicalEmbedder()]
    if E5Embedder.available() and not arguments.fast:
        embedders.append(E5Embedder())

    print("| embedder | ms a text | alone |", " | ".join(f"{name} ({len(rows)})" for name, rows in sets.items()), "|")
    print("|---|--:|--:|" + "--:|" * len(sets))
    majority = [max(Counter(row["label"] for row in rows).values()) / len(rows) for rows in sets.values()]
    print("| most frequent label | | |", " | ".join(f"{share:.3f}" for share in majority), "|")
    for embedder in embedders:
        embedder.embed(["warm up"])
        seconds, cells = 0.0, []
        for rows in sets.values():
            texts = [row["text"] for row in rows]
            started = time.perf_counter()
            vectors = embedder.embed(texts)
            seconds += time.perf_counter() - started
            cells.append(f"{agreement(vectors, texts, [row['label'] for row in rows]):.3f}")
        milliseconds = 1000 * seconds / sum(map(len, sets.values()))
        some = [row["text"] for rows in sets.values() for row in rows[:25]]
        started = time.perf_counter()
        for text in some:
            embedder.embed([text])
        alone = 1000 * (time.perf_counter() - started) / len(some)
        print(f"| {embedder.id} | {milliseconds:.2f} | {alone:.2f} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
