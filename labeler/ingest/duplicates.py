"""Near-duplicates: reviews that were copied with another space, emoticon or letter.

A text is folded to its letters and digits and cut into shingles of three characters. Two texts whose shingles have a
Jaccard similarity of at least :data:`THRESHOLD` are near-duplicates. To find such pairs without comparing all,
MinHash turns the shingles into 120 numbers, 24 bands of 5, and only texts that share a band are compared.

In a pair of similarity s a number is equal with probability s, a band with s^5, and no band at all with (1 - s^5)^24:
0.00007 for s = 0.8 (one pair in 14,000 is missed), and less than one in a billion for s = 0.9. The price is texts that
are compared for nothing: 53 % of the pairs of s = 0.5 share a band, 6 % for 0.3, 0.02 % for 0.1. Texts with the very
same shingles, which most copies have, are not compared at all: they share a *shape*.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, reduce
from typing import TYPE_CHECKING

from labeler.store import NewRecord

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Codes = npt.NDArray[np.uint64]

THRESHOLD = 0.8
"""Two texts of at least this similarity are near-duplicates."""
MIN_LENGTH = 5
"""A text with fewer letters and digits than this has no near-duplicates, only exact ones."""

_BANDS, _ROWS = 24, 5
_CHUNK = 4096
_KEPT = 8192
_VERSION = b"labeler 2"
"""Part of every key. If keys change, it must too, and a migration must have all reviews signed again."""
_LAUGHTER = re.compile("[ㅋㅎㅠㅜ]+")
_NOT_LETTERS = re.compile(r"[\W_]+")
_REPEATED = re.compile(r"(.)\1{2,}")


def signature(text: str) -> list[int]:
    """Return the 24 band keys of ``text`` as signed 32-bit integers, or [] if it is too short.

    Two texts are candidates if they share a key. The same text has the same keys in every process.
    """
    return list(_signature(text)[1])


def signed(new: NewRecord) -> NewRecord:
    """Return a record on its way in with the bands and the shape of its text, if it is not too short."""
    shape, bands = _signature(new.text)
    return replace(new, bands=bands, shape=shape)


def _signature(text: str) -> tuple[int | None, tuple[int, ...]]:
    """Return the shape, the same for texts of the same shingles and above all band keys, and the bands."""
    import numpy as np

    shingles = _shingles(text)
    if not len(shingles):
        return None, ()
    digest = hashlib.blake2b(shingles.astype("<u8").tobytes(), digest_size=8, salt=_VERSION).digest()
    shape = int.from_bytes(digest, "little") >> 2 | 1 << 62
    factors, offsets, mixers = _constants()
    mixed = _mixed(shingles)
    parts = (mixed[start : start + _CHUNK, None] * factors + offsets for start in range(0, len(mixed), _CHUNK))
    smallest = reduce(np.minimum, (numbers.min(axis=0) for numbers in parts))
    bands = (smallest.reshape(_BANDS, _ROWS) * mixers).sum(axis=1)
    return shape, tuple((bands >> np.uint64(32)).astype(np.uint32).view(np.int32).tolist())


def similarity(a: str, b: str) -> float:
    """Return the Jaccard similarity of two texts over their shingles, in [0, 1]; 0 if one is too short."""
    first, second = _kept_shingles(a), _kept_shingles(b)
    shorter, longer = sorted((first, second), key=len)
    if not len(shorter):
        return 0.0
    places = longer.searchsorted(shorter)
    shared = int((longer.take(places, mode="clip") == shorter).sum())
    return shared / (len(first) + len(second) - shared)


def near_duplicate(a: str, b: str) -> bool:
    return similarity(a, b) >= THRESHOLD


def _shingles(text: str) -> Codes:
    """Return the different shingles in order, each as one number: three code points of 21 bits."""
    import numpy as np

    folded = _fold(text)
    if len(folded) < MIN_LENGTH:
        return np.zeros(0, dtype=np.uint64)
    points = np.frombuffer(folded.encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    bits = np.uint64(21)
    codes = (points[:-2] << bits | points[1:-1]) << bits | points[2:]
    codes.sort()
    first = np.ones(len(codes), dtype=bool)
    np.not_equal(codes[1:], codes[:-1], out=first[1:])
    return codes[first]


# Texts of one template are compared with each other again and again.
_kept_shingles: Callable[[str], Codes] = lru_cache(_KEPT)(_shingles)


@lru_cache(1)
def _constants() -> tuple[Codes, Codes, Codes]:
    """Return factors and offsets of the 120 hash functions, and what mixes the numbers of a band: (24, 5)."""
    import numpy as np

    count = _BANDS * _ROWS
    seed = np.uint64(int.from_bytes(hashlib.blake2b(_VERSION, digest_size=8).digest(), "little"))
    numbers = _mixed(np.arange(3 * count, dtype=np.uint64) + seed)
    odd = np.uint64(1)
    factors, offsets, mixers = numbers[:count] | odd, numbers[count : 2 * count], numbers[2 * count :] | odd
    return factors, offsets, mixers.reshape(_BANDS, _ROWS)


def _mixed(numbers: Codes) -> Codes:
    """Spread 64-bit integers over all 64 bits: the finalizer of splitmix64. They wrap around by design."""
    import numpy as np

    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)


def _fold(text: str) -> str:
    """Keep letters and digits, folded, without ㅋㅋ and ㅠㅠ; a letter said three times or more stands twice."""
    # Before NFKC, which would make the syllable 큐 of ㅋㅠ.
    text = _LAUGHTER.sub("", text)
    letters = _NOT_LETTERS.sub("", unicodedata.normalize("NFKC", text).casefold())
    return _REPEATED.sub(r"\1\1", letters)
