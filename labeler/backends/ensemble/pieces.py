"""The pieces of a text that a free suggestion may cut out of it, and the numbers they are judged by.

A summary is made of clauses, keywords are runs of words within a sentence. Both are verbatim: nothing is written.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler.retrieval.lexical import LexicalEmbedder
from labeler.text import split_sentences

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

Embed = Callable[[Sequence[str]], "Array"]
Span = tuple[int, int]

# Of a longer text only the beginning is cut up: a page waits for it.
_MOST_CHARACTERS, _MOST_CLAUSES, _MOST_WORDS = 3000, 60, 150
_LONGEST_RUN = 5
_SHORTEST_CLAUSE = 4
_LOOSE = ",;: \t\n\u00a0\u3000"
# After what a clause ends: Korean endings that connect, and marks; before what it ends: English conjunctions.
_CLAUSE_END = re.compile(
    r"(?:[가-힣](?:고|며|는데|은데|한데|인데|지만|서|니까|더니|라|면서|는지)|[,;:])(?=\s)"
    r"|\s(?=(?:but|and|though|because|so|while)\s)"
)
_WORD = re.compile(r"\S+")
# What stands around a word and is not part of it: marks, and laughter that is written behind it.
_BEFORE = "\"'([“‘"
_BEHIND = re.compile("[^\\w%)]+$|(?<=[^\u3131-\u318e])[\u3131-\u318e]+$")
# The first directions of the lexical vectors say most; those that were taught say whether something is liked.
_NEAR, _FAR = 64, 32
_TAUGHT, _TAUGHT_OF_WORDS, _SHAPE = 3.0, 2.0, 0.5


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces of one text as (start, end), and what is known of each: float32 (pieces, d)."""

    spans: list[Span]
    features: Array


def clauses_of(text: str) -> list[Span]:
    """Return the clauses of a text, in order, each within a sentence."""
    found: list[Span] = []
    for start, end in split_sentences(text):
        for match in _CLAUSE_END.finditer(text, start, end):
            if match.end() - start >= _SHORTEST_CLAUSE and end - match.end() >= _SHORTEST_CLAUSE:
                found.append(_bare(text, start, match.end()))
                start = match.end()
        found.append(_bare(text, start, end))
    return [(start, end) for start, end in found if start < end][:_MOST_CLAUSES]


def _bare(text: str, start: int, end: int) -> Span:
    kept = text[start:end].rstrip(_LOOSE).rstrip()
    return end - len(text[start:end].lstrip()), start + len(kept)


def words_of(text: str) -> list[Span]:
    """Return the words of a text without the marks around them."""
    found = []
    for match in _WORD.finditer(text):
        word = match.group()
        while (shorter := _BEHIND.sub("", word)) != word:
            word = shorter
        bare = word.lstrip(_BEFORE)
        if bare:
            found.append((match.start() + len(word) - len(bare), match.start() + len(word)))
    return found[:_MOST_WORDS]


def clauses(text: str, embed: Embed) -> Pieces:
    """Return the clauses of a text: what they say, and whether they, their sentence and the whole are liked."""
    text = text[:_MOST_CHARACTERS]
    spans, sentences = clauses_of(text), split_sentences(text)
    starts = [start for start, _ in sentences]
    own = [bisect_right(starts, start) - 1 for start, _ in spans]
    vectors = embed([text, *(text[a:b] for a, b in sentences), *(text[a:b] for a, b in spans)])
    taught, size = _TAUGHT * vectors[:, LexicalEmbedder.taught], max(len(text), 1)
    first = 1 + len(sentences)
    whole = np.tile(vectors[0, LexicalEmbedder.taught], (len(spans), 1))
    shape = [
        ((b - a) / 30, ((b - a) / 30) ** 2, a / size, b / size, (b - a) / size, a == 0, b == size, 1 / len(spans))
        for a, b in spans
    ]
    beside = _SHAPE * np.array(shape, dtype="f4").reshape(len(spans), 8)
    around = taught[1 + np.array(own, dtype=int)]
    return Pieces(spans, np.hstack([vectors[first:], taught[first:], whole, around, beside]).astype("f4"))


def runs(text: str, embed: Embed) -> Pieces:
    """Return the runs of up to five words within a sentence: their words, those around them, and where they end."""
    text = text[:_MOST_CHARACTERS]
    words = words_of(text)
    starts = [start for start, _ in split_sentences(text)]
    sentence = [bisect_right(starts, start) for start, _ in words]
    begins = np.array([True, *(a != b for a, b in pairwise(sentence))][: len(words)], dtype=bool)
    pairs = [
        (i, j) for i in range(len(words)) for j in range(i, min(i + _LONGEST_RUN, len(words)))
        if sentence[i] == sentence[j]
    ]  # fmt: skip
    i, j = np.array(pairs, dtype=int).reshape(len(pairs), 2).T
    # One row of zeros behind the words stands for what is beyond a sentence.
    vectors = np.vstack([embed([text[a:b] for a, b in words]), np.zeros((1, LexicalEmbedder.dim), dtype="f4")])
    sums = np.vstack([np.zeros((1, LexicalEmbedder.dim), dtype="f4"), np.cumsum(vectors, axis=0)])
    mean = (sums[j + 1] - sums[i]) / (j - i + 1)[:, None]
    last = np.append(begins[1:], True)[: len(words)]
    before, behind = np.where(begins[i], -1, i - 1), np.where(last[j], -1, j + 1)
    blocks = [
        mean[:, :_NEAR], _TAUGHT_OF_WORDS * mean[:, LexicalEmbedder.taught], vectors[j, :_NEAR],
        0.5 * vectors[i, :_NEAR], 0.5 * vectors[before, :_FAR], 0.5 * vectors[behind, :_NEAR],
        _SHAPE * _shapes(text, words, i, j, begins, last),
    ]  # fmt: skip
    return Pieces([(words[a][0], words[b][1]) for a, b in pairs], np.hstack(blocks).astype("f4"))


def _shapes(text: str, words: Sequence[Span], i: Array, j: Array, begins: Array, last: Array) -> Array:
    """Return how long runs are, and how they lie to clauses and sentences: float (runs, 15)."""
    found = clauses_of(text)
    opening, closing = {start for start, _ in found}, {end for _, end in found}
    opens = np.array([bool(opening.intersection(range(a - 2, a + 1))) for a, _ in words], dtype=float)
    closes = np.array([bool(closing.intersection(range(b, b + 5))) for _, b in words], dtype=float)
    crossed = np.append(0.0, np.cumsum(closes))
    edges = np.array(words, dtype=float).reshape(len(words), 2)
    length = (edges[j, 1] - edges[i, 0]) / 20
    size = np.eye(_LONGEST_RUN)[j - i]
    numbers = [
        length, length**2, closes[j], opens[i], closes[j] * opens[i], crossed[j] - crossed[i], last[j], begins[i],
        i / max(len(words), 1), np.full(len(i), len(words) / 20),
    ]  # fmt: skip
    return np.hstack([size, np.stack(numbers, axis=1)])
