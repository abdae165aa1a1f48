"""Splits: which rows train, validate and test. Closed under products and near-duplicates, and remembered.

Records that are linked (reviews of one product, near-duplicates of one cluster) form one *component*, found in all
records of the project, whether they are labelled or not. A component has a name of its own: its product, or the key of
the first of its near-duplicates. Its place is a hash of that name, laid along the shares: the same in every export,
format and task, on every machine. If asked, components that have no place yet are laid along the shares by date instead
(the newest are held out), or so that each label gets its share of each split.

A place that left is remembered by record, and the memory wins over the hash: reviews that come in, clusters that unite
and other shares move nothing. Where components of different places become one, what was held out most stands (test
before validation before train): records of the other places that share a product or cluster with it stay out of every
export, as do new ones that would tie two places together. So no record is ever in two splits, and no test row has a
twin in the training set.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

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
                raise SettingError(
                    "The share of %(name)s is %(share)r; it must be a number from 0 to 1", name=name, share=share
                )
        if not math.isclose(sum(self.as_dict().values()), 1.0, abs_tol=1e-6):
            raise SettingError(
                "The shares %(a)s, %(b)s and %(c)s add up to %(sum)s; they must add up to 1",
                a=self.train,
                b=self.validation,
                c=self.test,
                sum=f"{sum(self.as_dict().values()):g}",
            )

    @classmethod
    def of(cls, shares: Mapping[str, float]) -> Shares:
        """Return the shares by name; a name left out has the share 0. Raises :class:`SettingError`."""
        strange = [name for name in shares if name not in SPLITS]
        if strange:
            raise SettingError("No split %(name)r; there are: %(names)s", name=strange[0], names=", ".join(SPLITS))
        return cls(**{name: shares.get(name, 0.0) for name in SPLITS})

    def as_dict(self) -> dict[str, float]:
        return {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}

    def used(self) -> list[str]:
        """Return the splits with a share above 0, in order."""
        return [name for name, share in self.as_dict().items() if share > 0]


Link = Hashable
"""What records share: a cluster is a number, a product a text, a hash of equal texts bytes."""
BETWEEN, UNSHARED = "between_splits", "no_share"
"""Why a record has no place: it is tied to two splits, or to one that has no share now."""
_HELD_OUT_FIRST = (TEST, VALIDATION, TRAIN)


@dataclass(frozen=True, slots=True)
class Linked:
    """A record with its key and what links it to others."""

    id: int
    key: str
    links: tuple[Link, ...]


class Components:
    """Union-find over links: those that any record shares are one component."""

    def __init__(self, ties: Iterable[Sequence[Link]] = ()) -> None:
        self._parent: dict[Link, Link] = {}
        self._product: dict[Link, str] = {}
        for tie in ties:
            self.join(tie)

    def join(self, links: Sequence[Link]) -> None:
        for link in links:
            self._parent.setdefault(link, link)
            if isinstance(link, str):
                self._product.setdefault(link, link)
            first, other = self.root(links[0]), self.root(link)
            if first != other:
                self._parent[other] = first
                names = [self._product[root] for root in (first, other) if root in self._product]
                self._product |= {first: min(names)} if names else {}

    def root(self, link: Link) -> Link:
        while self._parent[link] != link:
            # Halving the path keeps every later walk short.
            self._parent[link] = link = self._parent[self._parent[link]]
        return link

    def product(self, link: Link) -> str | None:
        """Return the first product, by name, of a link's component; None if it has none."""
        return self._product.get(self.root(link))


class Member(Protocol):
    """A row of a component: its key, what its label counts as, and its day in seconds since 1970."""

    @property
    def key(self) -> str: ...
    @property
    def counts_as(self) -> tuple[str, ...]: ...
    @property
    def date(self) -> float: ...


ROWS = ""
"""What every row counts as, next to its labels."""
Counted = Mapping[str, Counter[str]]


class Places:
    """Gives each record its split, by what earlier exports remember, else by what is drawn for its component.

    ``remembered`` are records with the split that they left in.
    """

    def __init__(self, shares: Shares, components: Components, remembered: Iterable[tuple[Linked, str]]) -> None:
        self._shares, self._components = shares, components
        self._known: dict[int, str] = {}
        self._owner: dict[Link, str] = {}
        self._held: dict[Link, str] = {}
        for record, split in sorted(remembered, key=lambda one: (_HELD_OUT_FIRST.index(one[1]), one[0].id)):
            self._known[record.id] = split
            components.join(record.links)
            if self._owners(record) <= {split}:
                self._claim(record, split)
        for link, split in self._owner.items():
            # In the order of the memory: what was held out most comes first.
            self._held.setdefault(components.root(link), split)

    def before(self, record: Linked) -> str | None:
        """Return the split that a record has from earlier exports, or why it has none; None if it is still free."""
        owners = self._owners(record)
        split = self._known.get(record.id)
        if split is None and len(owners) < 2:
            split = next(iter(owners), None) or self._held.get(self.component(record))
            if split is None:
                return None
        return BETWEEN if split is None or not owners <= {split} else split

    def component(self, record: Linked) -> Link:
        """Return what names the component of a record within this export."""
        return self._components.root(record.links[0])

    def name(self, record: Linked, name: str) -> str:
        """Return the name of a record's component; ``name`` is that of one without a product."""
        return self._components.product(self.component(record)) or name

    def of(self, record: Linked, draw: Callable[[], str]) -> str:
        """Return the split of a record, or why it has none; ``draw`` gives it where its component is free."""
        split = self.before(record) or draw()
        if split == BETWEEN:
            return BETWEEN
        if split not in self._shares.used():
            return UNSHARED
        self._claim(record, split)
        return split

    def _owners(self, record: Linked) -> set[str]:
        return {self._owner[link] for link in record.links if link in self._owner}

    def _claim(self, record: Linked, split: str) -> None:
        self._owner.update(dict.fromkeys(record.links, split))


def split_of(name: str, shares: Shares) -> str:
    """Return the split of a component: a point in [0, 1) from its name, laid along the shares."""
    names, ends = _laid(shares)
    return names[bisect(ends, _point(name))]


@lru_cache(64)
def _laid(shares: Shares) -> tuple[list[str], list[float]]:
    """Return the splits with a share, and where each but the last ends.

    The last one takes the rest: 0.7 + 0.2 + 0.1 is a little less than 1.
    """
    names = shares.used()
    return names, list(accumulate(shares.as_dict()[name] for name in names[:-1]))


def _point(name: str) -> float:
    """Return a fixed point in [0, 1) for a name."""
    digest = hashlib.sha256(b"labeler split 1\n" + name.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def by_date(free: Mapping[Link, Sequence[Member]], placed: Counted, shares: Shares) -> dict[Link, str]:
    """Return the splits of free components: the newest are the test set, then comes validation, then train.

    ``placed`` are the rows that each split has already: they count towards its share.
    """
    have = {name: counts[ROWS] for name, counts in placed.items()}
    total = sum(map(len, free.values())) + sum(have.values())
    drawn: dict[Link, str] = {}
    waiting = sorted(free, key=lambda link: (max(one.date for one in free[link]), _place(free[link])))
    for name in [name for name in _HELD_OUT_FIRST[:-1] if name in shares.used()]:
        room = shares.as_dict()[name] * total - have.get(name, 0)
        # One that would overfill it by more than it lacks ends it: no older one may jump the queue.
        while waiting and len(free[waiting[-1]]) / 2 <= room:
            room -= len(free[waiting[-1]])
            drawn[waiting.pop()] = name
    # Without a share of train, what is left over belongs to the first split that there is.
    return drawn | dict.fromkeys(waiting, shares.used()[0])


def by_label(free: Mapping[Link, Sequence[Member]], placed: Counted, shares: Shares) -> dict[Link, str]:
    """Return the splits of free components so that each label has its share in each split, rarest labels first.

    Iterative stratification (Sechidis et al. 2011) over whole components. ``placed`` says how many rows count as what
    in each split already.
    """
    labels = {link: Counter(label for one in rows for label in (*one.counts_as, ROWS)) for link, rows in free.items()}
    total, with_label = Counter[str](), dict[str, list[Link]]()
    for link, counts in labels.items():
        total.update(counts)
        for label in counts:
            with_label.setdefault(label, []).append(link)
    wanted = sum(placed.values(), total)
    room = {
        name: {label: shares.as_dict()[name] * n - placed.get(name, Counter())[label] for label, n in wanted.items()}
        for name in shares.used()
    }
    drawn: dict[Link, str] = {}
    for label in sorted(total, key=lambda one: (total[one], one)):
        for link in sorted(with_label[label], key=lambda one: (-labels[one][label], _place(free[one]))):
            if link not in drawn:
                drawn[link] = name = max(room, key=lambda split: (room[split][label], room[split][ROWS]))
                for other, n in labels[link].items():
                    room[name][other] -= n
    return drawn


def _place(rows: Sequence[Member]) -> float:
    """Return where a component stands among its like: a fixed point in [0, 1)."""
    return _point(min(one.key for one in rows))
