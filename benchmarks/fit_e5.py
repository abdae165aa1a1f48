"""Find the centre of the vectors of e5: ``python benchmarks/fit_e5.py DATA_FOLDER [OUTPUT.npz]``.

The vectors of any two texts by e5 have a cosine of 0.75 and more, since all have one large part in common. Without it
neighbours are told apart by what they say (Mu and Viswanath 2018, "All-but-the-top"). Half of the texts are Korean,
half English, from the same rows of the same sets as :mod:`fit_lexical` takes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from fit_lexical import held_out, read

from labeler.retrieval.e5 import E5Embedder

SETS = {"nsmc": 600, "kote": 600, "en_pros_cons": 1200}
SEED = 20261130


def main() -> None:
    parser = argparse.ArgumentParser(description="Find the centre of the vectors of e5.")
    parser.add_argument("data", type=Path)
    default = Path(__file__).parent.parent / "labeler" / "retrieval" / "e5.npz"
    parser.add_argument("output", type=Path, nargs="?", default=default)
    arguments = parser.parse_args()
    random, embedder, total = np.random.default_rng(SEED), E5Embedder(), np.zeros(E5Embedder.dim)
    for name, count in SETS.items():
        texts = [row["text"] for row in read(arguments.data, name) if not held_out(row)]
        chosen = [texts[n] for n in random.choice(len(texts), count, replace=False)]
        total += embedder.raw(chosen).astype(float).sum(axis=0)
    centre = (total / sum(SETS.values())).astype(np.float32)
    np.savez(arguments.output, centre=centre)
    print(f"{arguments.output}: length {np.linalg.norm(centre):.3f}")


if __name__ == "__main__":
    main()
