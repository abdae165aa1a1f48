"""Rating: an integer on an ordered scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labeler.errors import LabelError, SettingError
from labeler.labels.base import Label, LabelSchema, Vote, describe_type
from labeler.records import Value

# A longer scale is a number, not a list of labels: scoring every point would cost more than generating one.
_MOST_CANDIDATES = 20


class Rating(LabelSchema):
    """An integer from ``low`` to ``high``. ``points`` may name the ends or every point of the scale."""

    kind = "rating"
    widget = "rating"

    def __init__(self, low: int = 1, high: int = 5, points: Mapping[int, Label] | None = None) -> None:
        if not low < high:
            raise SettingError(f"A scale from {low} to {high} has no points between its ends")
        self.low, self.high = low, high
        self.points = dict(points or {})

    def json_schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def parse(self, raw: object, text: str | None = None) -> int:
        # bool is an int in Python, and true is not a rating.
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise LabelError(f"Expected a whole number, got {describe_type(raw)}", "type")
        if not self.low <= raw <= self.high:
            raise LabelError(f"{raw} is not on the scale from {self.low} to {self.high}", "range")
        return raw

    def strata(self, value: Value) -> tuple[str, ...]:
        return (str(value),)

    def agreement(self, a: Value, b: Value) -> float:
        """Interval: one minus the squared distance, as Krippendorff's alpha weighs it, over the squared scale."""
        return float(1.0 - ((a - b) / (self.high - self.low)) ** 2)

    def vote(self, votes: Sequence[Vote]) -> tuple[int, float] | None:
        """The weighted median; the score is the share of the weight within one point of it."""
        usable = sorted((v, w) for v, w in votes if self.low <= v <= self.high and w > 0)
        total = sum(weight for _, weight in usable)
        if total <= 0:
            return None
        reached = 0.0
        median = usable[-1][0]
        for value, weight in usable:
            reached += weight
            if reached * 2 >= total:
                median = value
                break
        near = sum(weight for value, weight in usable if abs(value - median) <= 1)
        return median, near / total

    def candidates(self) -> dict[str, Value]:
        points = range(self.low, self.high + 1)
        return {str(value): value for value in points} if len(points) <= _MOST_CANDIDATES else {}

    def decide(self, scores: Mapping[str, float], size: float | None = None) -> int | None:
        """The point with the highest score; ties go to the lower one."""
        known = {name: value for name, value in self.candidates().items() if name in scores}
        return known[max(known, key=scores.__getitem__)] if known else None

    def render(self, value: Value, language: str) -> str:
        point = self.points.get(value)
        return f"{value} ({point.titled(language)})" if point else str(value)

    def describe(self, language: str) -> str:
        return "\n".join(
            f"- {n}: {p.titled(language)}" + (f". {p.defined(language)}" if p.definition else "")
            for n, p in sorted(self.points.items())
        )

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"low": self.low, "high": self.high}
