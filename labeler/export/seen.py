"""What an export keeps of its rows between the two passes: columns of numbers, some hundred bytes a row.

A row has a *place*: how many rows were seen before it. What is done with all rows is done column by column.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from labeler.export.splits import SPLITS, Link, Linked

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]

NONE = 0
"""In a column of numbers: no product, no cluster."""
HASH = 16
"""Bytes of a content hash, and of the hash of an answer."""
_TOGETHER = 1000


class Texts:
    """Many short texts without a NUL, in little more than their letters."""

    def __init__(self) -> None:
        self._joined: list[str] = []
        self._last: list[str] = []
        self._open: tuple[int, list[str]] = (-1, [])

    def append(self, text: str) -> None:
        self._last.append(text)
        if len(self._last) == _TOGETHER:
            self._joined.append("\0".join(self._last))
            self._last = []

    def __getitem__(self, place: int) -> str:
        page, n = divmod(place, _TOGETHER)
        if page == len(self._joined):
            return self._last[n]
        if self._open[0] != page:
            self._open = page, self._joined[page].split("\0")
        return self._open[1][n]


class Links:
    """What ties records to each other: their near-duplicate cluster, their product, their very text."""

    def __init__(self) -> None:
        self._clusters, self._products, self._hashes = array("q"), array("q"), bytearray()
        self._names: dict[str, int] = {}

    def link(self, cluster: int | None, product: str | None, digest: str) -> None:
        """Add a record; ``digest`` is its content hash, empty for something that has no text."""
        self._clusters.append(cluster or NONE)
        self._products.append(NONE if product is None else self._names.setdefault(product, len(self._names) + 1))
        self._hashes += bytes.fromhex(digest) or bytes(HASH)

    @property
    def clusters(self) -> Ints:
        return np.array(self._clusters, dtype=np.int64)

    @property
    def products(self) -> Ints:
        return np.array(self._products, dtype=np.int64)

    @property
    def texts(self) -> Ints:
        """One number for each different text; 0 is none."""
        halves = np.frombuffer(bytes(self._hashes), dtype=np.int64).reshape(-1, 2)
        none = np.zeros((1, 2), dtype=np.int64)
        return numbered(np.concatenate([none, halves]))[1:]

    def names(self) -> list[str]:
        """Return the names of the products; the first is that of number 1."""
        return list(self._names)

    def linked(self, n: int, id_: int, key: str, names: Sequence[str]) -> Linked:
        """Return the record that was added as number ``n``; ``names`` are :meth:`names`."""
        product, digest = self._products[n], self.hash(n)
        links: tuple[Link | None, ...] = self._clusters[n] or None, names[product - 1] if product else None, digest
        return Linked(id_, key, tuple(link for link in links if link is not None))

    def hash(self, n: int) -> bytes:
        return bytes(self._hashes[n * HASH : (n + 1) * HASH])


class Seen(Links):
    """The rows of an export that can leave, by place."""

    def __init__(self) -> None:
        super().__init__()
        self.ids, self.records, self.dates, self._counts = array("q"), array("q"), array("d"), array("q")
        self.keys, self._answers, self._written = Texts(), bytearray(), bytearray()
        self._strata: dict[tuple[str, ...], int] = {}

    def add(
        self,
        id_: int,
        record: int,
        key: str,
        written: bool = False,
        date: float = 0.0,
        answer: bytes = bytes(HASH),
        counts_as: tuple[str, ...] = (),
    ) -> None:
        """Add a row, and :meth:`link` it next.

        ``written`` says that a model wrote its text; ``answer`` is the hash of what one should say.
        """
        self.ids.append(id_)
        self.records.append(record)
        self.dates.append(date)
        self.keys.append(key)
        self._written.append(written)
        self._answers += answer
        self._counts.append(self._strata.setdefault(counts_as, len(self._strata)))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def written(self) -> Flags:
        """Whether a model wrote the text of each row."""
        return np.array(self._written, dtype=bool)

    @property
    def counts(self) -> Ints:
        """What each row counts as: its number in :meth:`strata`."""
        return np.array(self._counts, dtype=np.int64)

    def strata(self) -> list[tuple[str, ...]]:
        return list(self._strata)

    def counts_as(self, place: int) -> int:
        """Return the number of what a row counts as."""
        return self._counts[place]

    def answer(self, place: int) -> bytes:
        return bytes(self._answers[place * HASH : (place + 1) * HASH])


class Placed:
    """Numbers of annotations or records with the split of each: nine bytes for one."""

    def __init__(self, pairs: Iterable[tuple[int, str]] = ()) -> None:
        self._ids, self._codes = array("q"), bytearray()
        for id_, split in pairs:
            self.add(id_, split)

    @classmethod
    def of(cls, ids: Ints, codes: Codes) -> Placed:
        """``codes`` are places in :data:`SPLITS`."""
        made = cls()
        made._ids.frombytes(ids.tobytes())
        made._codes += codes.tobytes()
        return made

    def add(self, id_: int, split: str) -> None:
        self._ids.append(id_)
        self._codes.append(SPLITS.index(split))

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return zip(self._ids, map(SPLITS.__getitem__, self._codes), strict=True)

    @property
    def ids(self) -> Ints:
        return np.array(self._ids, dtype=np.int64)

    @property
    def codes(self) -> Codes:
        return np.array(self._codes, dtype=np.int8)

    def only(self, split: str) -> list[int]:
        """Return the numbers in one split."""
        found: list[int] = self.ids[self.codes == SPLITS.index(split)].tolist()
        return found

    def counts(self) -> dict[str, int]:
        """Return how many numbers each split has."""
        return {split: self._codes.count(code) for code, split in enumerate(SPLITS)}


class Lookup:
    """Finds numbers among others: ``ids`` int64 (n,)."""

    def __init__(self, ids: Ints) -> None:
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]

    def places(self, wanted: Ints) -> Ints:
        """Return where each of ``wanted`` stands, -1 for nowhere."""
        if not len(self._sorted):
            return np.full(len(wanted), -1, dtype=np.int64)
        near = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return np.where(self._sorted[near] == wanted, self._order[near], -1)


class Waiting:
    """The annotations of a plan that are still to be written: each is taken once."""

    def __init__(self, placed: Placed) -> None:
        self._ids, self._codes = placed.ids, placed.codes
        self._lookup, self._left = Lookup(self._ids), np.ones(len(placed), dtype=bool)

    def take(self, ids: Sequence[int]) -> list[str | None]:
        """Return the split of each annotation, None where it has none or was taken."""
        places = self._lookup.places(np.array(ids, dtype=np.int64))
        there = places >= 0
        there[there] = self._left[places[there]]
        codes = np.full(len(ids), len(SPLITS), dtype=np.int8)
        codes[there] = self._codes[places[there]]
        self._left[places[there]] = False
        return [*map((*SPLITS, None).__getitem__, codes.tolist())]

    def left(self) -> list[int]:
        """Return the annotations that nobody took."""
        found: list[int] = self._ids[self._left].tolist()
        return found


def numbered(rows: npt.NDArray[Any]) -> Ints:
    """Return one number for each different row of an array (n, k); the first row has 0."""
    order = np.lexsort(rows.T)
    other = np.ones(len(rows), dtype=bool)
    other[1:] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    codes = np.empty(len(rows), dtype=np.int64)
    codes[order] = np.cumsum(other) - 1
    codes -= codes[0]
    codes %= int(other.sum())
    return codes


def several(codes: Ints) -> Flags:
    """Return which numbers, none below 0, stand more than once; :data:`NONE` does not count."""
    _, which, counts = np.unique(codes, return_inverse=True, return_counts=True)
    found: Flags = (counts[which] > 1) & (codes != NONE)
    return found


def last_of_each(numbers: Ints) -> Ints:
    """Return where each different number stands last, in order."""
    _, from_behind = np.unique(numbers[::-1], return_index=True)
    return np.sort(len(numbers) - 1 - from_behind)


def components(columns: Iterable[Ints], size: int) -> Ints:
    """Return the component of each of ``size`` records: the smallest number among those that it is linked to.

    Two records are linked by a column where both have the same number other than :data:`NONE`. Each root takes the
    smallest root beside it for its parent, and every record then looks up its root, until nothing changes.
    """
    ends = [_pairs(column) for column in columns]
    first, second = (np.concatenate([pair[side] for pair in ends]) for side in (0, 1))
    roots = np.arange(size)
    while True:
        low = np.minimum(roots[first], roots[second])
        hooked = roots.copy()
        np.minimum.at(hooked, roots[first], low)
        np.minimum.at(hooked, roots[second], low)
        while not np.array_equal(above := hooked[hooked], hooked):
            hooked = above
        if np.array_equal(hooked, roots):
            return roots
        roots = hooked


def _pairs(column: Ints) -> tuple[Ints, Ints]:
    """Return those that have a number in common: each with the next one."""
    order = np.argsort(column, kind="stable")
    same = (column[order[1:]] == column[order[:-1]]) & (column[order[1:]] != NONE)
    return order[:-1][same], order[1:][same]
