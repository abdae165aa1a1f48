"""ROUGE-L (Lin 2004): how much of two texts stands in the same order, by their longest common subsequence.

Over the morphemes of Korean where kiwipiepy is installed, because endings change with politeness; else over words. The
tokenizer of the package rouge-score keeps Latin letters and digits only, so of Korean nothing would be left.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

from labeler.labels import LabelSchema
from labeler.records import Value
from labeler.sentence import N_

MORPHEMES, WORDS = N_("morphemes"), N_("words")
# Kiwi calls marks so; foreign words and numbers are called SL, SN, SH.
_MARKS = ("SF", "SP", "SS", "SSO", "SSC", "SE", "SO", "SW", "SB")


def unit() -> str:
    """Return what is compared here: :data:`MORPHEMES` or :data:`WORDS`."""
    return MORPHEMES if importlib.util.find_spec("kiwipiepy") is not None else WORDS


@lru_cache(maxsize=20_000)
def tokens(text: str) -> tuple[str, ...]:
    """Return the morphemes of a text, or its words, without marks and in small letters."""
    if unit() == WORDS:
        return tuple(re.findall(r"\w+", text.casefold()))
    return tuple(token.form.casefold() for token in _kiwi().tokenize(text) if token.tag not in _MARKS)


@cache
def _kiwi() -> Any:
    # A model of a hundred megabytes: read where a text is cut for the first time.
    from kiwipiepy import Kiwi

    return Kiwi()


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """Return the F1 of the longest common subsequence of two lists of tokens, in [0, 1]; 1 for two empty ones."""
    return 2 * common(a, b) / (len(a) + len(b)) if a or b else 1.0


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how long the longest common subsequence is, a row of its table at once as bits (Hyyrö 2004)."""
    where: dict[str, int] = {}
    for n, token in enumerate(a):
        where[token] = where.get(token, 0) | 1 << n
    whole = row = (1 << len(a)) - 1
    for token in b:
        same = row & where.get(token, 0)
        row = (row + same | row - same) & whole
    return len(a) - row.bit_count()


def agreement(
    schema: LabelSchema, a: Value | None, b: Value | None, alike: Callable[[str, str], float] | None = None
) -> float | None:
    """Return the mean likeness of the texts in two values; None where neither holds a text. Nothing said counts 0.

    ``alike`` compares two texts, by ROUGE-L unless another is given.
    """
    alike = alike or _alike
    parts = {name: part for name, part in schema.split().items() if part.free_text}
    left, right = ({} if value is None else schema.spread(value) for value in (a, b))
    pairs = [(left.get(name), right.get(name)) for name in parts if left.get(name) or right.get(name)]
    found = [alike(one, other) if one and other else 0.0 for one, other in pairs]
    if found:
        return sum(found) / len(found)
    return (1.0 if a is not None and b is not None else 0.0) if parts else None


def _alike(a: str, b: str) -> float:
    return rouge_l(tokens(a), tokens(b))
