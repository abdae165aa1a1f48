"""Gives each row of an export its split, by the rules of :mod:`labeler.export.splits`.

Nearly all components are plain: no two splits meet in them, so all of their rows go to one split, and that is found for
all components at once. Where splits meet, or where what has no product hangs together by several clusters, the rows go
one after the other, in the order in which they were approved.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from labeler.export.job import Job
from labeler.export.seen import NONE, Codes, Flags, Ints, Lookup, Seen, components
from labeler.export.selection import BY_LABEL, BY_NAME
from labeler.export.splits import (
    BETWEEN,
    ROWS,
    SPLITS,
    UNSHARED,
    Components,
    Link,
    Linked,
    Places,
    by_date,
    by_label,
    split_of,
)

STATES = (*SPLITS, BETWEEN, UNSHARED)
"""What becomes of a row: its split, or why it has none."""
_FREE = -1


class PlacedRow(NamedTuple):
    """A row, for rules that look at one after the other; ``copies`` are what it shares with copies of its text."""

    place: int
    record: Linked
    counts_as: tuple[str, ...]
    cluster: int | None
    date: float
    copies: tuple[Link, ...]

    @property
    def key(self) -> str:
        return self.record.key


@dataclass(frozen=True, slots=True)
class Memory:
    """The records that left, with their splits by their places in :data:`SPLITS`, and which of them are frozen."""

    records: Ints
    codes: Codes
    frozen: Flags

    @classmethod
    def of(cls, job: Job) -> Memory:
        splits, project_id = job.store.splits, job.project["id"]
        records, codes = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int8)]
        for page in splits.pages(project_id):
            records.append(np.array([row["record_id"] for row in page], dtype=np.int64))
            codes.append(np.array([SPLITS.index(row["split"]) for row in page], dtype=np.int8))
        all_, frozen = np.concatenate(records), [row["record_id"] for row in splits.frozen_of(project_id)]
        return cls(all_, np.concatenate(codes), np.isin(all_, np.array(frozen, dtype=np.int64)))

    def of_records(self, records: Ints) -> Codes:
        """Return the split of each record, -1 for one that has not left."""
        places = Lookup(self.records).places(records)
        return np.where(places < 0, _FREE, self.codes[places]) if len(self.codes) else np.full(len(records), _FREE)

    def that_holds(self, new_splits: bool) -> Memory:
        """Return what no export may change: all of it, or the frozen test sets if all is to be split again."""
        stays = self.frozen if new_splits else np.ones(len(self.records), dtype=bool)
        return Memory(self.records[stays], self.codes[stays], self.frozen[stays])


class Placing:
    """The rows of an export on the way to their splits: ``rows`` are their places in ``seen``."""

    def __init__(self, job: Job, seen: Seen, rows: Ints, memory: Memory) -> None:
        self.job, self.seen, self.rows = job, seen, rows
        self.records = np.array(seen.records, dtype=np.int64)[rows]
        self._others = _others(job, memory, self.records)
        self._ties = [(row["cluster"], row["grp"]) for row in job.store.splits.ties(job.project["id"])]
        for record in self._others:
            seen.link(record.cluster, record.product, record.digest)
        for cluster, product in self._ties:
            seen.link(cluster, product, "")
        self._names, self._strata = seen.names(), seen.strata()
        self._heads: dict[int, str] = {}
        columns = seen.clusters, seen.products, seen.texts
        leaving = np.ones(len(columns[0]), dtype=bool)
        leaving[: len(seen)] = False
        leaving[rows] = True
        self._clusters, self._products, _ = (np.where(leaving, column, NONE) for column in columns)
        self._component = components((np.where(leaving, column, NONE) for column in columns), len(leaving))
        self._known = np.full(len(leaving), _FREE, dtype=np.int8)
        self._known[rows] = memory.of_records(self.records)
        self._known[len(seen) : len(seen) + len(self._others)] = [record.code for record in self._others]

    def states(self) -> Codes:
        """Return what becomes of each row, by its place in :data:`STATES`."""
        low, high = np.full(len(self._known), len(SPLITS)), np.full(len(self._known), _FREE)
        left = self._known != _FREE
        np.minimum.at(low, self._component[left], self._known[left])
        np.maximum.at(high, self._component[left], self._known[left])
        self._one_by_one = (high != _FREE) & (low < high)
        split, mine = high, self._component[self.rows]
        free = self.rows[split[mine] == _FREE]
        if len(free) and self.job.selection.split_by == BY_NAME:
            for component, name in self._named(free).items():
                split[component] = SPLITS.index(split_of(name, self.job.shares))
        places = self._places()
        if len(free) and self.job.selection.split_by != BY_NAME:
            for component, name in self._drawn(free, split[mine], places).items():
                split[component] = SPLITS.index(name)
        states = split[mine].astype(np.int8)
        states[~np.isin(states, [SPLITS.index(name) for name in self.job.shares.used()])] = STATES.index(UNSHARED)
        for n in np.flatnonzero(self._one_by_one[mine]).tolist():
            row = self.row(n)
            states[n] = STATES.index(places.of(row.record, partial(self._draw, row, places)))
        return states

    def row(self, n: int) -> PlacedRow:
        """Return row number ``n`` of those that are placed."""
        place = int(self.rows[n])
        record = self.seen.linked(place, int(self.records[n]), self.seen.keys[place], self._names)
        counts_as = self._strata[self.seen.counts_as(place)]
        cluster = int(self._clusters[place]) or None
        copies = tuple(link for link in (cluster, self.seen.hash(place)) if link is not None)
        return PlacedRow(place, record, counts_as, cluster, self.seen.dates[place], copies)

    def _named(self, free: Ints) -> dict[int, str]:
        """Return the name of each free component: its first product, or the first record of its cluster."""
        order = sorted(self._names)
        rank = {name: n for n, name in enumerate(order)}
        ranks = np.array([0, *(rank[name] for name in self._names)])
        first = np.full(len(self._component), len(order))
        has = self._products != NONE
        np.minimum.at(first, self._component[has], ranks[self._products[has]])
        mine = self._component[free]
        named = {int(one): order[first[one]] for one in np.unique(mine[first[mine] < len(order)])}
        single = free[first[mine] == len(order)]
        self._heads = self._heads_of(single)
        for place, component in zip(single.tolist(), self._component[single].tolist(), strict=True):
            name = self._heads.get(int(self._clusters[place]), self.seen.keys[place])
            if named.setdefault(component, name) != name:
                self._one_by_one[component] = True
        return named

    def _heads_of(self, places: Ints) -> dict[int, str]:
        clusters, records = self._clusters[places], np.array(self.seen.records, dtype=np.int64)[places]
        return self.job.store.splits.heads(clusters[(clusters != records) & (clusters != NONE)].tolist())

    def _drawn(self, free: Ints, split: Ints, places: Places) -> dict[int, str]:
        """Return the splits of free components by the dates or labels of all rows."""
        members: dict[int, list[PlacedRow]] = {}
        placed: dict[str, Counter[str]] = {name: Counter() for name in self.job.shares.used()}
        for n, (place, code) in enumerate(zip(self.rows.tolist(), split.tolist(), strict=True)):
            row, component = self.row(n), int(self._component[place])
            name = places.before(row.record) if self._one_by_one[component] else SPLITS[code]
            if code == _FREE:
                members.setdefault(component, []).append(row)
            elif name in placed:
                placed[name].update((*row.counts_as, ROWS))
        by = by_label if self.job.selection.split_by == BY_LABEL else by_date
        return {int(component): name for component, name in by(members, placed, self.job.shares).items()}  # type: ignore

    def _places(self) -> Places:
        """Return what places the rows of components in which splits or names meet."""
        mine = self._one_by_one[self._component]
        after = len(self.seen) + len(self._others)
        components = Components(tie for tie, is_mine in zip(self._ties, mine[after:], strict=True) if is_mine)
        rows = [(n, self.row(n)) for n in np.flatnonzero(mine[self.rows]).tolist()]
        for _, row in rows:
            components.join(row.record.links)
        earlier = [(row.record, int(self._known[row.place])) for _, row in rows]
        for n, record in enumerate(self._others, len(self.seen)):
            if mine[n]:
                earlier.append((self.seen.linked(n, record.id, "", self._names), record.code))
        return Places(
            self.job.shares, components, [(record, SPLITS[code]) for record, code in earlier if code != _FREE]
        )

    def _draw(self, row: PlacedRow, places: Places) -> str:
        return split_of(places.name(row.record, self._heads.get(row.cluster or 0, row.key)), self.job.shares)


class _Other(NamedTuple):
    """A record that left before and is no row of this export."""

    id: int
    cluster: int | None
    product: str | None
    digest: str
    code: int


def _others(job: Job, memory: Memory, records: Ints) -> list[_Other]:
    absent = ~np.isin(memory.records, records)
    codes = dict(zip(memory.records[absent].tolist(), memory.codes[absent].tolist(), strict=True))
    return [
        _Other(row["id"], row["cluster"], row["grp"], row["content_hash"], codes[row["id"]])
        for row in job.store.splits.linked(list(codes))
    ]
