"""Gives each row of an export its split, by the rules of :mod:`labeler.export.splits`.

Nearly all components are plain: no two splits meet in them, so all of their rows go to one split, and that is found for
all components at once. Where splits meet, or where what has no product hangs together by several clusters, the rows go
one after the other, in the order in which they were approved. What a model wrote comes last: it is train or stays out.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np

from labeler.export.seen import NONE, Codes, Flags, Ints, Lookup, Seen, components
from labeler.export.selection import BY_LABEL, BY_NAME
from labeler.export.splits import (
    BETWEEN,
    ROWS,
    SPLITS,
    TRAIN,
    UNSHARED,
    Components,
    Link,
    Linked,
    Places,
    Shares,
    by_date,
    by_label,
    split_of,
)
from labeler.store import Store
from labeler.store.splits import Splits

HELD_OUT = "written_held_out"
STATES = (*SPLITS, BETWEEN, UNSHARED, HELD_OUT)
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
    def of(cls, splits: Splits, project_id: int) -> Memory:
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
    """The rows of an export on the way to their splits: ``rows`` are their places in ``seen``.

    The last of them are what a model wrote: ``sources`` are the records that each of those was written after. Behind
    ``seen`` stand the other records that left or were written after, and then the ties between clusters and products.
    """

    def __init__(
        self,
        splits: Splits,
        project_id: int,
        seen: Seen,
        rows: Ints,
        memory: Memory,
        shares: Shares,
        split_by: str = BY_NAME,
        sources: Sequence[Sequence[int]] = (),
    ) -> None:
        self._splits, self._shares, self._by, self._sources = splits, shares, split_by, sources
        self.seen, self.rows, self._real = seen, rows, rows[: len(rows) - len(sources)]
        self.records = np.array(seen.records, dtype=np.int64)[rows]
        written_after = np.array([*chain.from_iterable(sources)], dtype=np.int64)
        others = self._link_others(np.union1d(memory.records, written_after))
        self._ties = [(row["cluster"], row["grp"]) for row in splits.ties(project_id)]
        for cluster, product in self._ties:
            seen.link(cluster, product, "")
        self._names, self._strata = seen.names(), seen.strata()
        self._heads: dict[int, str] = {}
        columns = seen.clusters, seen.products, seen.texts
        # The record at each place: 0 for a tie, and for a row that does not leave.
        self._ids = np.zeros(len(columns[0]), dtype=np.int64)
        self._ids[rows], self._ids[len(seen) : len(seen) + len(others)] = self.records, others
        leaving = (self._ids > 0) | (np.arange(len(self._ids)) >= len(seen))
        self._clusters, self._products, texts = (np.where(leaving, column, NONE) for column in columns)
        self._component = components((self._clusters, self._products, texts), len(leaving))
        self._known = memory.of_records(self._ids)

    def _link_others(self, records: Ints) -> array[int]:
        """Link the records that are no rows, and return them."""
        found = array("q")
        for row in self._splits.linked(np.setdiff1d(records, self.records).tolist()):
            self.seen.link(row["cluster"], row["grp"], row["content_hash"])
            found.append(row["id"])
        return found

    def states(self) -> Codes:
        """Return what becomes of each row, by its place in :data:`STATES`."""
        split, places = self._of_components()
        states = split[self._component[self.rows]].astype(np.int8)
        for n in np.flatnonzero(self._one_by_one[self._component[self._real]]).tolist():
            row = self.row(n)
            states[n] = STATES.index(places.of(row.record, partial(self._draw, row, places)))
        lookup = Lookup(self._ids)
        for n, sources in enumerate(self._sources, len(self._real)):
            found = lookup.places(np.array([*sources, self.records[n]], dtype=np.int64))
            states[n] = self._of_written(found[found >= 0].tolist(), split, places)
        return states

    def _of_components(self) -> tuple[Ints, Places]:
        """Return the split or state of each component, and what places the rows that have to go one by one."""
        low, high = np.full(len(self._known), len(SPLITS)), np.full(len(self._known), _FREE)
        left = self._known != _FREE
        np.minimum.at(low, self._component[left], self._known[left])
        np.maximum.at(high, self._component[left], self._known[left])
        self._one_by_one = (high != _FREE) & (low < high)
        split, mine = high, high[self._component[self._real]]
        free = self._real[mine == _FREE]
        drawn = self._named(free) if self._by == BY_NAME else {}
        places = self._places()
        if len(free) and self._by != BY_NAME:
            drawn = self._drawn(mine, places)
        for component, name in drawn.items():
            split[component] = SPLITS.index(name)
        # What a model wrote, and what it was written after, is train where nothing else places it.
        split[split == _FREE] = SPLITS.index(TRAIN)
        split[~np.isin(split, [SPLITS.index(name) for name in self._shares.used()])] = STATES.index(UNSHARED)
        return split, places

    def _of_written(self, found: Sequence[int], split: Ints, places: Places) -> int:
        """Return the state of a row that a model wrote, from the places of what it was written after and its own."""
        met = {
            places.of(self._linked(place), lambda: TRAIN) if self._one_by_one[component] else STATES[split[component]]
            for place, component in zip(found, self._component[found].tolist(), strict=True)
        }
        # It repeats those in part: it would tell what is tested.
        return STATES.index(TRAIN if met == {TRAIN} else HELD_OUT)

    def is_written(self, n: int) -> bool:
        """Whether a model wrote row number ``n``."""
        return n >= len(self._real)

    def row(self, n: int) -> PlacedRow:
        """Return row number ``n`` of those that are placed."""
        place = int(self.rows[n])
        counts_as = self._strata[self.seen.counts_as(place)]
        cluster = int(self._clusters[place]) or None
        copies = tuple(link for link in (cluster, self.seen.hash(place)) if link is not None)
        return PlacedRow(place, self._linked(place), counts_as, cluster, self.seen.dates[place], copies)

    def _linked(self, place: int) -> Linked:
        key = self.seen.keys[place] if place < len(self.seen) else ""
        return self.seen.linked(place, int(self._ids[place]), key, self._names)

    def _named(self, free: Ints) -> dict[int, str]:
        """Return the splits of free components by their names: of a product, or of the first record of a cluster."""
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
        return {component: split_of(name, self._shares) for component, name in named.items()}

    def _heads_of(self, places: Ints) -> dict[int, str]:
        clusters = self._clusters[places]
        return self._splits.heads(clusters[(clusters != self._ids[places]) & (clusters != NONE)].tolist())

    def _drawn(self, split: Ints, places: Places) -> dict[int, str]:
        """Return the splits of free components by the dates or labels of all rows that no model wrote."""
        members: dict[int, list[PlacedRow]] = {}
        placed: dict[str, Counter[str]] = {name: Counter() for name in self._shares.used()}
        for n, (place, code) in enumerate(zip(self._real.tolist(), split.tolist(), strict=True)):
            row, component = self.row(n), int(self._component[place])
            name = places.before(row.record) if self._one_by_one[component] else SPLITS[code]
            if code == _FREE:
                members.setdefault(component, []).append(row)
            elif name in placed:
                placed[name].update((*row.counts_as, ROWS))
        by = by_label if self._by == BY_LABEL else by_date
        return {int(component): name for component, name in by(members, placed, self._shares).items()}  # type: ignore

    def _places(self) -> Places:
        """Return what places the rows of components in which splits or names meet."""
        mine = self._one_by_one[self._component]
        ties = zip(self._ties, mine[len(mine) - len(self._ties) :], strict=True)
        components = Components(tie for tie, is_mine in ties if is_mine)
        records = [
            (self._linked(place), self._known[place]) for place in np.flatnonzero(mine & (self._ids > 0)).tolist()
        ]
        for record, _ in records:
            components.join(record.links)
        return Places(self._shares, components, [(one, SPLITS[code]) for one, code in records if code != _FREE])

    def _draw(self, row: PlacedRow, places: Places) -> str:
        return split_of(places.name(row.record, self._heads.get(row.cluster or 0, row.key)), self._shares)


def trained_places(store: Store, project_id: int, record_ids: Sequence[int]) -> set[int]:
    """Return those of some records that exports of usual shares train on: by what left before, else by their names.

    Records that are tied to two splits are none of them.
    """
    seen = Seen()
    for record in store.records.many(record_ids).values():
        seen.add(0, record.id, record.key)
        seen.link(record.cluster, record.group, record.content_hash)
    memory = Memory.of(store.splits, project_id)
    placing = Placing(store.splits, project_id, seen, np.arange(len(seen)), memory, Shares())
    return set(placing.records[placing.states() == STATES.index(TRAIN)].tolist())
