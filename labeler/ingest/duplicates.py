"""Near-duplicates: reviews that were copied with another space, emoticon or letter.

A text is folded to its letters and digits and cut into shingles of three characters. MinHash turns them into
60 numbers, 10 bands of 6, and texts that share a band are candidates; :func:`similarity` then decides. With
these numbers a pair of Jaccard similarity 0.8 shares a band with probability 0.95, of 0.9 with 0.999, of 0.5
with 0.15, of 0.3 with 0.01.
"""

from __future__ import annotations

import hashlib
import re
import struct
import unicodedata

THRESHOLD = 0.8
"""Two texts of at least this similarity are near-duplicates."""
MIN_LENGTH = 5
"""A text with fewer letters and digits than this has no near-duplicates, only exact ones."""

_SHINGLE = 3
_BANDS, _ROWS = 10, 6
_SEED = 20240229
_LAUGHTER = re.compile("[ㅋㅎㅠㅜ]+")
_NOT_LETTERS = re.compile(r"[\W_]+")
_REPEATED = re.compile(r"(.)\1{2,}")


def signature(text: str) -> list[int]:
    """Return the 10 band keys of ``text`` as signed 64-bit integers, or [] if it is too short.

    Two texts are candidates if they share a key. The same text has the same keys in every process; a key holds
    the number of its band and the version of the hash, so other versions of rensa share no keys by accident.
    """
    shingles = _shingles(text)
    if not shingles:
        return []
    # Compiled, and of no use before the first import of a file.
    from rensa import RMinHash

    sketch = RMinHash(_BANDS * _ROWS, _SEED)
    sketch.update(shingles)
    digest = sketch.digest()
    salt = b"labeler%d" % RMinHash.ALGORITHM_VERSION
    keys = []
    for band in range(_BANDS):
        packed = struct.pack(f"<B{_ROWS}I", band, *digest[band * _ROWS : (band + 1) * _ROWS])
        keys.append(int.from_bytes(hashlib.blake2b(packed, digest_size=8, salt=salt).digest(), "little", signed=True))
    return keys


def similarity(a: str, b: str) -> float:
    """Return the Jaccard similarity of two texts over their shingles, in [0, 1]; 0 if one is too short."""
    first, second = _shingles(a), _shingles(b)
    if not first or not second:
        return 0.0
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def _shingles(text: str) -> set[str]:
    folded = _fold(text)
    if len(folded) < MIN_LENGTH:
        return set()
    return {folded[start : start + _SHINGLE] for start in range(len(folded) - _SHINGLE + 1)}


def _fold(text: str) -> str:
    """Keep letters and digits, folded, without ㅋㅋ and ㅠㅠ; a letter said three times or more stands twice."""
    # Before NFKC, which would make the syllable 큐 of ㅋㅠ.
    text = _LAUGHTER.sub("", text)
    letters = _NOT_LETTERS.sub("", unicodedata.normalize("NFKC", text).casefold())
    return _REPEATED.sub(r"\1\1", letters)
