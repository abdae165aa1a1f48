"""Exports as versions: what changed from one to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from labeler.store import Row, Store

ADDED, DROPPED, CHANGED, MOVED = "added", "dropped", "changed", "moved"
KINDS = (ADDED, DROPPED, CHANGED, MOVED)
_MOST = 1_000


@dataclass
class Comparison:
    """How many rows were added, dropped, changed or moved, and the first thousand of each kind.

    A row is what an export holds of a record and task; one whose label and split are others counts as both.
    """

    counts: Counter[str] = field(default_factory=Counter)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {kind: {"count": self.counts[kind], "rows": self.rows.get(kind, [])} for kind in KINDS}


def compare(store: Store, before: int, after: int) -> Comparison:
    """Return what changed from one export, by its number, to another."""
    found = Comparison()
    for row in store.exports.differences(before, after):
        for kind in _kinds(row):
            found.counts[kind] += 1
            rows = found.rows.setdefault(kind, [])
            if len(rows) < _MOST:
                rows.append(dict(row))
    return found


def _kinds(row: Row) -> Iterator[str]:
    if row["old_split"] is None:
        yield ADDED
    elif row["new_split"] is None:
        yield DROPPED
    else:
        if row["old_value"] != row["new_value"]:
            yield CHANGED
        if row["old_split"] != row["new_split"]:
            yield MOVED
