"""Ranking: an order of items. Agreement is Kendall's tau (Kendall 1938)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from labeler.errors import LabelError, SettingError
from labeler.labels.base import (
    EMPTY,
    NO_LABEL,
    Label,
    LabelSchema,
    Vote,
    describe_type,
    known_label,
    or_left_out,
    several,
    unique_labels,
)
from labeler.records import Value

_ABOVE = re.compile(r"\s*>\s*")


class Ranking(LabelSchema):
    """All items in an order without ties. Canonical value: a list of their names, the first one first.

    The items are the schema's own and cannot be changed on the page: an order of other items says nothing of these.

    >>> from labeler import Label, Ranking
    >>> reasons = Ranking(Label("taste"), Label("price"), Label("size"))
    >>> reasons.parse(["price", "taste", "size"])
    ['price', 'taste', 'size']
    >>> reasons.agreement(["price", "taste", "size"], ["size", "taste", "price"])
    0.0
    """

    kind = "ranking"
    widget = "ranking"

    def __init__(self, *items: Label, optional: bool = False) -> None:
        self.labels, _ = unique_labels(items)
        if len(items) < 2 or len(self.labels) < len(items):
            raise SettingError("A ranking needs at least two items, none of them retired")
        self.optional = optional
        self._names = {label.name: n for n, label in enumerate(self.labels)}

    def json_schema(self) -> dict[str, Any]:
        n, item = len(self._names), {"type": "string", "enum": list(self._names)}
        return or_left_out(self, {"type": "array", "items": item, "minItems": n, "maxItems": n, "uniqueItems": True})

    def parse(self, raw: object, text: str | None = None) -> Value:
        if self.is_left_out(raw):
            return EMPTY
        if not isinstance(raw, (list, tuple)):
            raise LabelError("Expected a list of items in order, got %(got)s", "type", got=describe_type(raw))
        found = [known_label(item, self._names) for item in raw]
        missing = next((name for name in self._names if name not in found), None)
        if missing is not None:
            raise LabelError("%(item)r is missing in the order", "count", item=missing)
        if len(found) > len(self._names):
            twice = next(name for n, name in enumerate(found) if name in found[:n])
            raise LabelError("%(item)r stands in the order twice", "count", item=twice)
        return found

    def strata(self, value: Value) -> tuple[str, ...]:
        """What stands first."""
        return (value[0] if value else NO_LABEL,)

    def agreement(self, a: Value, b: Value) -> float:
        """The share of the pairs of items that stand in the same order in both: (tau + 1) / 2."""
        if EMPTY in (a, b):
            return float(a == b)
        place = {name: n for n, name in enumerate(b)}
        pairs = list(combinations(a, 2))
        return sum(place[before] < place[after] for before, after in pairs) / len(pairs)

    def vote(self, votes: Sequence[Vote]) -> tuple[Value, float] | None:
        """The order that agrees best with all others by their weight; its score is their mean tau, at least 0.

        One of those that were given: what summed places make (Borda) may be an order that nobody gave.
        """
        usable = [(value, weight) for value, weight in votes if weight > 0 and self._fits(value)]
        total = sum(weight for _, weight in usable)
        if total <= 0:
            return None

        def agreed(order: Value) -> float:
            return sum(weight * self.agreement(order, other) for other, weight in usable) / total

        best = max((value for value, _ in usable), key=agreed)
        return best, agreed(best) if best == EMPTY else max(0.0, 2 * agreed(best) - 1)

    def _fits(self, value: Value) -> bool:
        return (value == EMPTY and self.optional) or (isinstance(value, list) and sorted(value) == sorted(self._names))

    def render(self, value: Value, language: str) -> str:
        return " > ".join(self.label(name).titled(language) for name in value)

    def color(self, value: Value) -> str:
        return self.label(value[0]).color if isinstance(value, list) and value else ""

    def read_cell(self, cell: object) -> object:
        """Names or titles with ``>``, ``;`` or ``|`` between."""
        if isinstance(cell, str) and cell:
            whole = _ABOVE.split(cell)
            cell = whole if len(whole) > 1 else several(cell)
        return [self.name_in(item) for item in cell] if isinstance(cell, list) else cell
