"""The built-in embedder: hashed character n-grams and one fixed projection, numpy alone.

A text is folded as :func:`labeler.text.content_hash` folds it, so exact duplicates get one vector. Its character
n-grams (1 to 4, word boundaries included) are hashed into buckets (feature hashing: Weinberger et al. 2009), counted
with sublinear tf and idf, and projected to 256 dimensions by the table in ``lexical.npz``. The table is fitted once by
``benchmarks/fit_lexical.py``: mostly latent semantic analysis (Deerwester et al. 1990), a random part for n-grams the
fit never saw, and 18 directions learned from the open sentiment and emotion labels of three data sets. Neighbours
therefore agree in what they say and, deliberately, more than by chance of wording in whether they like it.

What it cannot do: understand a paraphrase without common characters, relate Korean to English, or see negation that
is far from what it negates.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

# Any change of the hashing, the folding or lexical.npz changes vectors: raise it, or old and new vectors get mixed.
VERSION = 1
BUCKET_BITS = 15
BUCKETS = 1 << BUCKET_BITS
DIM = 256

_LONGEST = 4
_BATCH = 256  # texts hashed at once: bounds memory, and is plenty to hide numpy's overhead a call
_SPACE = re.compile(r"\s+")


def fold(text: str) -> str:
    """Return ``text`` in NFKC, casefolded, white space collapsed, with one space at both ends; ``""`` if blank."""
    folded = _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return f" {folded} " if folded else ""


def count_ngrams(texts: Sequence[str]) -> tuple[Array, Array, Array]:
    """Return ``(rows, buckets, counts)``, int64 arrays of one length: how often each n-gram bucket is in each text.

    Sorted by row, then by bucket. Depends on nothing but the code points: not on byte order, hash seed or batch.
    """
    folded = [fold(text) for text in texts]
    # surrogatepass: a lone surrogate is no valid text, but an embedder takes any.
    points = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    row = np.repeat(np.arange(len(folded)), [len(text) for text in folded])
    keys = []
    rolling = np.zeros(len(points), dtype=np.uint64)
    for n in range(1, min(_LONGEST, len(points)) + 1):
        # Arrays of uint64 wrap around silently, which is the arithmetic that a rolling hash wants.
        rolling = rolling[: len(points) - n + 1] * np.uint64(0x100000001B3) + points[n - 1 :] + np.uint64(1)
        first, last = row[: len(rolling)], row[n - 1 :]
        inside = first == last
        if n == 1:
            inside &= points != ord(" ")
        salt = np.uint64(n * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        bucket = (_mix(rolling[inside] + salt) >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)
        keys.append(first[inside] * BUCKETS + bucket)
    unique, counts = np.unique(np.concatenate(keys or [np.zeros(0, dtype=np.int64)]), return_counts=True)
    return unique // BUCKETS, unique % BUCKETS, counts


def _mix(keys: Array) -> Array:
    # MurmurHash3's finaliser (Austin Appleby, public domain): without it the high bits hardly depend on short n-grams.
    keys = (keys ^ (keys >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    keys = (keys ^ (keys >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    mixed: Array = keys ^ (keys >> np.uint64(33))
    return mixed


class LexicalEmbedder:
    """Embeds any text in well under a millisecond, without a model, a download or a second process.

    The table is read at the first text. Safe to share between threads.
    """

    id = f"lexical-{VERSION}"
    dim = DIM
    fast = True
    taught = slice(238, DIM)
    """The columns that were learned from open labels of liking and feeling; a few approvals say most by them."""

    def __init__(self) -> None:
        self._table: tuple[Array, Array] | None = None
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Array:
        """Return float32 (len(texts), 256), rows of length 1; a blank text gives a zero row."""
        batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        made = [self.of_ngrams(count_ngrams(batch), len(batch)) for batch in batches]
        return np.vstack(made) if made else np.zeros((0, DIM), dtype=np.float32)

    def of_ngrams(self, counted: tuple[Array, Array, Array], texts: int) -> Array:
        """Return the vectors of texts by their n-grams, as :func:`count_ngrams` gives them."""
        vectors = np.zeros((texts, DIM), dtype=np.float32)
        projection, scale = self._load()
        rows, buckets, counts = counted
        # scale holds the idf of the bucket times the step of its int8 row.
        weights = ((1.0 + np.log(counts)) * scale[buckets]).astype(np.float32)
        ends = np.searchsorted(rows, np.arange(texts + 1)).tolist()
        for i, (a, b) in enumerate(pairwise(ends)):
            # One product a text, so that a vector does not depend on what else is in the batch.
            vectors[i] = weights[a:b] @ projection[buckets[a:b]].astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1)

    def _load(self) -> tuple[Array, Array]:
        with self._lock:
            if self._table is None:
                file = resources.files("labeler.retrieval").joinpath("lexical.npz")
                with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                    self._table = arrays["projection"], arrays["scale"]
            return self._table
