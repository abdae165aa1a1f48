"""Splits: which rows train, validate and test. Fixed by record keys, and closed under duplicates and products.

Rows that are linked (near-duplicates of one cluster, reviews of one group, exact copies) form one *component*, and a
component never crosses a border, so that no test row has a twin in the training set. Its place is a hash of its
smallest record key: the same in every export, format and task, on every machine.

The place of a row can change only if its component or the shares do: a new row with a smaller key joins it, a new row
joins two components into one, the row that held two parts together or had the smallest key is no longer exported.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from labeler.errors import SettingError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)


@dataclass(frozen=True, slots=True)
class Shares:
    """How much of the rows each split should get; a split with the share 0 does not exist."""

    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        for name, share in self.as_dict().items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise SettingError(f"The share of {name} is {share!r}; it must be a number from 0 to 1")
        if not math.isclose(sum(self.as_dict().values()), 1.0, abs_tol=1e-6):
            raise SettingError(
                f"The shares {self.train}, {self.validation} and {self.test} add up to "
                f"{sum(self.as_dict().values()):g}; they must add up to 1"
            )

    @classmethod
    def of(cls, shares: Mapping[str, float]) -> Shares:
        """Return the shares by name; a name left out has the share 0. Raises :class:`SettingError`."""
        strange = [name for name in shares if name not in SPLITS]
        if strange:
            raise SettingError(f"No split {strange[0]!r}; there are: {', '.join(SPLITS)}")
        return cls(**{name: shares.get(name, 0.0) for name in SPLITS})

    def as_dict(self) -> dict[str, float]:
        return {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}

    def used(self) -> list[str]:
        """Return the splits with a share above 0, in order."""
        return [name for name, share in self.as_dict().items() if share > 0]


class Components:
    """Union-find over rows. Per row it holds its key and two numbers, and one entry per different link."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._smallest: list[str] = []
        self._first: dict[Hashable, int] = {}

    def add(self, key: str, links: Iterable[Hashable]) -> int:
        """Add a row; rows that share a link, directly or through others, are one component. Return its number."""
        number = len(self._parent)
        self._parent.append(number)
        self._smallest.append(key)
        for link in links:
            self._join(number, self._first.setdefault(link, number))
        return number

    def key(self, number: int) -> str:
        """Return the smallest record key of the row's component."""
        return self._smallest[self._root(number)]

    def _root(self, number: int) -> int:
        while self._parent[number] != number:
            # Halving the path keeps every later walk short.
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def _join(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        if a == b:
            return
        # The older root stays the root, so that a component which grows row by row remains flat.
        old, new = min(a, b), max(a, b)
        self._parent[new] = old
        self._smallest[old] = min(self._smallest[old], self._smallest[new])


def split_of(component_key: str, shares: Shares) -> str:
    """Return the split of a component: a point in [0, 1) from its key, laid along the shares."""
    digest = hashlib.sha256(b"labeler split 1\n" + component_key.encode("utf-8")).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    reached = 0.0
    used = shares.used()
    for name in used[:-1]:
        reached += shares.as_dict()[name]
        if point < reached:
            return name
    # The last split takes the rest: 0.7 + 0.2 + 0.1 is a little less than 1.
    return used[-1]
