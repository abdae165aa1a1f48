"""Rating: an integer on an ordered scale."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labeler.errors import LabelError, SettingError
from labeler.labels.base import (
    EMPTY,
    NO_LABEL,
    Label,
    LabelSchema,
    Vote,
    describe_type,
    or_left_out,
    single,
    whole_number,
)
from labeler.records import Value

# A longer scale is a number, not a list of labels: scoring every point would cost more than generating one.
_MOST_CANDIDATES = 20
_STARS = re.compile("(★*)(☆*)")


class Rating(LabelSchema):
    """An integer from ``low`` to ``high``. ``points`` may name the ends or every point of the scale.

    With ``optional`` it may be left out, and then has no closed list, as an optional :class:`Choice` has none.

    >>> from labeler import Rating
    >>> stars = Rating(1, 5)
    >>> stars.parse(stars.read_cell("★★★★☆"))
    4
    >>> stars.agreement(1, 5), stars.agreement(4, 5)
    (0.0, 0.9375)
    """

    kind = "rating"
    bare = True
    widget = "rating"

    def __init__(
        self, low: int = 1, high: int = 5, points: Mapping[int, Label] | None = None, optional: bool = False
    ) -> None:
        if not low < high:
            raise SettingError(f"A scale from {low} to {high} has no points between its ends")
        self.low, self.high, self.optional = low, high, optional
        self.points = dict(points or {})

    def json_schema(self) -> dict[str, Any]:
        return or_left_out(self, {"type": "integer", "minimum": self.low, "maximum": self.high})

    def parse(self, raw: object, text: str | None = None) -> Value:
        if self.is_left_out(raw):
            return EMPTY
        # bool is an int in Python, and true is not a rating.
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise LabelError("Expected a whole number, got %(got)s", "type", got=describe_type(raw))
        if not self.low <= raw <= self.high:
            raise LabelError(
                "%(value)s is not on the scale from %(low)s to %(high)s",
                "range",
                value=raw,
                low=self.low,
                high=self.high,
            )
        return raw

    def strata(self, value: Value) -> tuple[str, ...]:
        return (NO_LABEL if value == EMPTY else str(value),)

    def agreement(self, a: Value, b: Value) -> float:
        """Interval: one minus the squared distance, as Krippendorff's alpha weighs it, over the squared scale."""
        if EMPTY in (a, b):
            return float(a == b)
        return float(1.0 - ((a - b) / (self.high - self.low)) ** 2)

    def vote(self, votes: Sequence[Vote]) -> tuple[Value, float] | None:
        """The weighted median; the score is the share of the weight within one point of it."""
        return median(votes, lambda value: self.low <= value <= self.high, lambda a, b: abs(a - b) <= 1)

    def candidates(self) -> dict[str, Value]:
        points = () if self.optional else range(self.low, self.high + 1)
        return {str(value): value for value in points} if len(points) <= _MOST_CANDIDATES else {}

    def decide(self, scores: Mapping[str, float], size: float | None = None) -> int | None:
        """The point with the highest score; ties go to the lower one."""
        known = {name: value for name, value in self.candidates().items() if name in scores}
        return known[max(known, key=scores.__getitem__)] if known else None

    def render(self, value: Value, language: str) -> str:
        point = self.points.get(value)
        return f"{value} ({point.titled(language)})" if point else str(value)

    def describe(self, language: str) -> str:
        lines = [
            f"- {n}: {p.titled(language)}" + (f". {p.defined(language)}" if p.definition else "")
            for n, p in sorted(self.points.items())
        ]
        return "\n".join([*lines, *self.left_out_line(language)])

    def read_cell(self, cell: object) -> object:
        """A rating as it is written in tables: 4, 4.0, 4점, 4/5 and ★★★★☆ on a scale up to 5."""
        cell = single(cell)
        if isinstance(cell, float) and cell.is_integer():
            return int(cell)
        if not isinstance(cell, str):
            return cell
        plain = unicodedata.normalize("NFKC", cell).strip()
        stars = _STARS.fullmatch(plain)
        if stars and len(plain) == self.high:
            return len(stars[1])
        number = whole_number(re.sub(rf"\s*(?:점|/\s*{self.high})?$", "", plain, count=1))
        return int(number) if number else cell

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"low": self.low, "high": self.high}


def median(
    votes: Sequence[Vote], known: Callable[[Value], bool], near: Callable[[Value, Value], bool]
) -> tuple[Value, float] | None:
    """Return the weighted median of the ``known`` values and the share of the weight that is ``near`` it.

    It is always one of the values: the lower one where half of the weight lies on either side. Where more than half of
    all weight left the value out, so does the median. None if no weight is left.
    """
    left_out = sum(weight for value, weight in votes if value == EMPTY)
    usable = sorted((value, weight) for value, weight in votes if value != EMPTY and weight > 0 and known(value))
    given = sum(weight for _, weight in usable)
    if left_out > given:
        return EMPTY, left_out / (left_out + given)
    if given <= 0:
        return None
    reached = 0.0
    found = usable[-1][0]
    for value, weight in usable:
        reached += weight
        if reached * 2 >= given:
            found = value
            break
    return found, sum(weight for value, weight in usable if near(value, found)) / (given + left_out)
