"""Near-duplicates: reviews that were copied with another space, emoticon or letter.

A text is folded to its letters and digits and cut into shingles of three characters. Two texts whose shingles have a
Jaccard similarity of at least :data:`THRESHOLD` are near-duplicates. To find such pairs without comparing all,
MinHash turns the shingles into 120 numbers, 24 bands of 5, and only texts that share a band are compared.

In a pair of similarity s a number is equal with probability s, a band with s^5, and no band at all with (1 - s^5)^24:
0.00007 for s = 0.8 (one pair in 14,000 is missed), and less than one in a billion for s = 0.9. The price is texts that
are compared for nothing: 53 % of the pairs of s = 0.5 share a band, 6 % for 0.3, 0.02 % for 0.1. Texts with the very
same shingles, which most copies have, are not compared at all: they share a *shape*.

MinHash is that of Broder (1997), bands are those of Indyk and Motwani (1998).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from labeler.codepoints import of_words, points_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from labeler.codepoints import Points

    Codes = npt.NDArray[np.uint64]
    Numbers = npt.NDArray[np.uint32]

THRESHOLD = 0.8
"""Two texts of at least this similarity are near-duplicates."""
MIN_LENGTH = 5
"""A text with fewer letters and digits than this has no near-duplicates, only exact ones."""

BANDS, _ROWS = 24, 5
_TEXTS, _AT_ONCE = 1000, 128
_LONG = 2048
_KEPT = 1 << 15
_VERSION = b"labeler 3"
"""Part of every key. If keys change, it must too, and a migration must have all reviews signed again."""
_LAUGHTER = re.compile("[ㅋㅎㅠㅜ]+")
_NOT_LETTERS = re.compile(r"[\W_]+")
_REPEATED = re.compile(r"(.)\1{2,}")


class Signatures(NamedTuple):
    """Of n texts: ``shapes``, int64 (n,), one number for texts of the same shingles, and ``bands``, int32 (n, 24).

    Two texts are candidates if one of their bands is the same, column by column. A text that is too short to have
    near-duplicates has the shape 0. The same text has the same signature in every process.
    """

    shapes: npt.NDArray[np.int64]
    bands: npt.NDArray[np.int32]


def signatures(texts: Sequence[str]) -> Signatures:
    """Return the signatures of texts."""
    parts = [_signatures(texts[start : start + _TEXTS]) for start in range(0, len(texts) or 1, _TEXTS)]
    return Signatures(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _signatures(texts: Sequence[str]) -> Signatures:
    signed = Signatures(np.zeros(len(texts), dtype=np.int64), np.zeros((len(texts), BANDS), dtype=np.int32))
    points, owner = _folded(texts)
    # A hash of 40 bits for each shingle, behind the number of its text: sorted as one number, which is quickest.
    inside = owner[:-2] == owner[2:]
    inside &= np.bincount(owner, minlength=len(texts))[owner[:-2]] >= MIN_LENGTH
    if not inside.any():
        return signed
    owner = owner[:-2][inside].astype(np.uint64)
    keys = owner << np.uint64(40) | _mixed(_coded(points)[inside]) >> np.uint64(24)
    keys.sort()
    keys = keys[_first_of_each(keys)]
    starts = np.flatnonzero(_first_of_each(keys >> np.uint64(40)))
    long = (keys[starts] >> np.uint64(40)).astype(np.int64)
    hashes = keys & np.uint64((1 << 40) - 1)
    sums = np.add.reduceat(_mixed(hashes), starts)
    signed.shapes[long] = (_mixed(sums) >> np.uint64(2) | np.uint64(1 << 62)).astype(np.int64)
    mixers = _constants()[2]
    smallest = _smallest((hashes >> np.uint64(8)).astype(np.uint32), starts).reshape(-1, BANDS, _ROWS)
    bands = (smallest * mixers).sum(axis=2, dtype=np.uint64) >> np.uint64(32)
    signed.bands[long] = bands.astype(np.uint32).view(np.int32)
    return signed


def _smallest(hashes: Numbers, starts: npt.NDArray[np.int64]) -> Numbers:
    """Return the MinHash of each text, uint32 (texts, 120); ``hashes`` of a text begin at its number in ``starts``."""
    # A long text goes in pieces, as if they were texts. Those of about one length stay in the cache together.
    sizes = np.diff(starts, append=len(hashes))
    counts = -(-sizes // _LONG)
    firsts = np.cumsum(counts) - counts
    pieces = np.repeat(starts, counts) + _LONG * (np.arange(counts.sum()) - np.repeat(firsts, counts))
    each = np.minimum(_LONG, np.repeat(starts + sizes, counts) - pieces)
    order = np.argsort(each, kind="stable")
    smallest = np.empty((len(pieces), BANDS * _ROWS), dtype=np.uint32)
    for first in range(0, len(pieces), _AT_ONCE):
        some = order[first : first + _AT_ONCE]
        smallest[some] = _smallest_of(hashes, pieces[some], each[some])
    return np.minimum.reduceat(smallest, firsts)


def _smallest_of(hashes: Numbers, starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> Numbers:
    """Return the MinHash of texts of about one length: of each the first shingle, then the second, to the last."""
    factors, offsets, _ = _constants()
    smallest = np.full((len(starts), len(factors)), np.iinfo(np.uint32).max, dtype=np.uint32)
    numbers = np.empty_like(smallest)
    for n in range(int(sizes.max())):
        # A text that has ended says its last one again: that changes nothing.
        np.multiply(hashes[starts + np.minimum(n, sizes - 1)][:, None], factors, out=numbers)
        numbers += offsets
        np.minimum(smallest, numbers, out=smallest)
    return smallest


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
    """Tell whether two texts are near-duplicates; where their lengths differ too much, without a comparison."""
    sizes = len(_kept_shingles(a)), len(_kept_shingles(b))
    return min(sizes) >= THRESHOLD * max(sizes) and similarity(a, b) >= THRESHOLD


def _shingles(text: str) -> Codes:
    """Return the different shingles in order, each as one number."""
    folded = _fold(text)
    if len(folded) < MIN_LENGTH:
        return np.zeros(0, dtype=np.uint64)
    codes = _coded(points_of([folded])[0])
    codes.sort()
    return codes[_first_of_each(codes)]


def _coded(points: Points) -> Codes:
    """Return each three code points that follow one another as one number, of 21 bits each."""
    bits, points = np.uint64(21), points.astype(np.uint64)
    return (points[:-2] << bits | points[1:-1]) << bits | points[2:]


def _first_of_each(ordered: Codes) -> npt.NDArray[np.bool_]:
    """Return where another number begins, in numbers that are in order."""
    first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first


# Texts of one template are compared with each other again and again.
_kept_shingles: Callable[[str], Codes] = lru_cache(_KEPT)(_shingles)


@lru_cache(1)
def _constants() -> tuple[Numbers, Numbers, Codes]:
    """Return factors and offsets of the 120 hash functions, and what mixes the numbers of a band: (24, 5)."""
    count = BANDS * _ROWS
    seed = np.uint64(int.from_bytes(hashlib.blake2b(_VERSION, digest_size=8).digest(), "little"))
    numbers = _mixed(np.arange(3 * count, dtype=np.uint64) + seed)
    factors, offsets = ((numbers[: 2 * count] >> np.uint64(32)).astype(np.uint32)).reshape(2, count)
    return factors | np.uint32(1), offsets, (numbers[2 * count :] | np.uint64(1)).reshape(BANDS, _ROWS)


def _mixed(numbers: Codes) -> Codes:
    """Spread 64-bit integers over all 64 bits: the finalizer of splitmix64. They wrap around by design."""
    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)


def _fold(text: str) -> str:
    """Keep letters and digits, folded, without ㅋㅋ and ㅠㅠ; a letter said three times or more stands twice."""
    return _REPEATED.sub(r"\1\1", _NOT_LETTERS.sub("", _spoken(text)))


def _folded(texts: Sequence[str]) -> tuple[Points, npt.NDArray[np.int64]]:
    """Return what :func:`_fold` makes of many texts, and for each letter the number of the text that it belongs to."""
    points, ends = points_of([_spoken(text) for text in texts])
    kept = of_words()[points] & (points != ord("_"))
    points, owner = points[kept], np.repeat(np.arange(len(texts)), np.diff(ends, prepend=0))[kept]
    once = np.ones(len(points), dtype=bool)
    once[2:] = (points[2:] != points[1:-1]) | (points[2:] != points[:-2]) | (owner[2:] != owner[:-2])
    return points[once], owner[once]


def _spoken(text: str) -> str:
    # Before NFKC, which would make the syllable 큐 of ㅋㅠ.
    return unicodedata.normalize("NFKC", _LAUGHTER.sub("", text)).casefold()
