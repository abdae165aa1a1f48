"""Many texts as one array of code points: what is asked of each letter is asked of all of them at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Points = npt.NDArray[np.uint32]
    Numbers = npt.NDArray[np.int64]
    Flags = npt.NDArray[np.bool_]

_ALL = 0x110000


def points_of(texts: Sequence[str]) -> tuple[Points, Numbers]:
    """Return the code points of texts one behind the other, uint32, and where each text ends, int64 (n,)."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return points, np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))


def texts_of(points: Points, ends: Numbers) -> list[str]:
    """Return the texts that :func:`points_of` took apart."""
    joined, places = points.tobytes().decode("utf-32-le", "surrogatepass"), ends.tolist()
    return [joined[start:end] for start, end in zip([0, *places], places, strict=False)]


def of_words() -> Flags:
    """Return for each code point whether it is part of a word, as ``\\w`` of a regular expression says."""
    return matching(r"\w")


@lru_cache(4)
def matching(pattern: str) -> Flags:
    """Return for each code point whether a pattern for one character matches it."""
    every = np.arange(_ALL, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    table = np.zeros(_ALL, dtype=bool)
    for run in re.finditer(f"(?:{pattern})+", every):
        table[run.start() : run.end()] = True
    return table
