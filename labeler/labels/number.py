"""Number: a number with bounds, step and unit. Date: a day of the calendar."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import date
from fractions import Fraction
from typing import Any

from labeler.errors import LabelError, SettingError
from labeler.labels.base import EMPTY, NO_LABEL, LabelSchema, Vote, describe_type, most_voted, or_left_out, single
from labeler.labels.rating import median
from labeler.records import Value

# Whole numbers from here on are not the same in every program that reads JSON (RFC 8259, section 6).
_MOST = 2**53
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
# Year, month, day, in this order: any other would have to be guessed. A time of midnight is what spreadsheets add.
_DAY = re.compile(r"(\d{4})\s*[-./년]\s*(\d{1,2})\s*[-./월]\s*(\d{1,2})\s*[.일]?(?:[ T]00:00(?::00)?)?")


class Number(LabelSchema):
    """A number from ``minimum`` to ``maximum``, in steps of ``step``, counted from ``minimum`` or 0.

    Canonical value: a whole number where it is one, else a float. ``unit`` stands beside it for people and in the
    prompt, and is no part of the value.

    >>> from labeler import Number
    >>> weight = Number(minimum=0, step=50, unit="g")
    >>> weight.parse(weight.read_cell("1,200 g"))
    1200
    >>> weight.parse(1210)
    Traceback (most recent call last):
    labeler.errors.LabelError: 1210 is not a multiple of the step 50
    """

    kind = "number"
    bare = True
    widget = "number"

    def __init__(
        self,
        minimum: float | None = None,
        maximum: float | None = None,
        step: float | None = None,
        unit: str = "",
        optional: bool = False,
    ) -> None:
        if minimum is not None and maximum is not None and not minimum < maximum:
            raise SettingError(f"There are no numbers from {minimum} to {maximum}")
        if step is not None and not step > 0:
            raise SettingError(f"The step of a number is {step}; it must be above 0")
        self.minimum, self.maximum, self.step, self.unit, self.optional = minimum, maximum, step, unit, optional

    def json_schema(self) -> dict[str, Any]:
        whole = self.step is not None and float(self.step).is_integer() and float(self.minimum or 0).is_integer()
        found: dict[str, Any] = {"type": "integer" if whole else "number"}
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        return or_left_out(self, found | {name: bound for name, bound in bounds.items() if bound is not None})

    def parse(self, raw: object, text: str | None = None) -> Value:
        if self.is_left_out(raw):
            return EMPTY
        # bool is an int in Python, and true is no number.
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            raise LabelError("Expected a number, got %(got)s", "type", got=describe_type(raw))
        # A whole number may be too long for any float.
        if not (-_MOST < raw < _MOST):
            raise LabelError("%(value)s is too large a number", "range", value=str(raw)[:40])
        value = int(raw) if float(raw).is_integer() else raw
        if self.minimum is not None and value < self.minimum:
            raise LabelError(
                "%(value)s is less than %(low)s, the least there may be", "range", value=value, low=self.minimum
            )
        if self.maximum is not None and value > self.maximum:
            raise LabelError(
                "%(value)s is more than %(high)s, the most there may be", "range", value=value, high=self.maximum
            )
        if self.step is not None and not self._is_step(value, self.step):
            raise LabelError("%(value)s is not a multiple of the step %(step)s", "range", value=value, step=self.step)
        return value

    def _is_step(self, value: float, step: float) -> bool:
        """In fractions, as people write steps: 0.3 is three steps of 0.1, though no multiple of it in binary."""
        return (Fraction(str(value)) - Fraction(str(self.minimum or 0))) % Fraction(str(step)) == 0

    def strata(self, value: Value) -> tuple[str, ...]:
        return (NO_LABEL if value == EMPTY else "number",)

    def agreement(self, a: Value, b: Value) -> float:
        """Equal or not: less than a step apart."""
        if EMPTY in (a, b):
            return float(a == b)
        return float(a == b or (self.step is not None and abs(a - b) < self.step))

    def disagreement(self, a: Value, b: Value) -> float:
        """Interval: the squared distance. Equal or not where it may be left out: nothing lies at no number."""
        return super().disagreement(a, b) if self.optional else float(a - b) ** 2

    def distance(self, a: Value, b: Value) -> float | None:
        return None if EMPTY in (a, b) else float(abs(a - b))

    def vote(self, votes: Sequence[Vote]) -> tuple[Value, float] | None:
        """The weighted median: a number that somebody gave, not a mean that nobody did; its score is their share."""
        return median(votes, self._fits, lambda a, b: bool(self.agreement(a, b)))

    def _fits(self, value: Value) -> bool:
        try:
            return bool(self.parse(value) == value)
        except LabelError:
            return False

    def render(self, value: Value, language: str) -> str:
        return f"{value} {self.unit}".rstrip() if value != EMPTY else ""

    def describe(self, language: str) -> str:
        korean = language == "ko"
        said = ["숫자" if korean else "a number"]
        if self.minimum is not None:
            said.append(f"{self.minimum} 이상" if korean else f"at least {self.minimum}")
        if self.maximum is not None:
            said.append(f"{self.maximum} 이하" if korean else f"at most {self.maximum}")
        if self.step is not None:
            said.append(f"{self.step} 간격" if korean else f"in steps of {self.step}")
        if self.unit:
            said.append(
                f"단위 {self.unit} (답변에는 숫자만)" if korean else f"in {self.unit} (answer the number alone)"
            )
        return "\n".join(["- " + ", ".join(said), *self.left_out_line(language)])

    def read_cell(self, cell: object) -> object:
        """A number as tables write it: 1,200 and 1200 and 1,200 g, where the unit is the schema's own."""
        cell = single(cell)
        if not isinstance(cell, str):
            return cell
        plain = unicodedata.normalize("NFKC", cell)
        unit = unicodedata.normalize("NFKC", self.unit)
        number = plain.removesuffix(unit).strip() if unit else plain
        if not _NUMBER.fullmatch(number):
            return cell
        found = float(number.replace(",", ""))
        return int(found) if found.is_integer() else found

    def to_json(self) -> dict[str, Any]:
        bounds = {"minimum": self.minimum, "maximum": self.maximum, "step": self.step, "unit": self.unit}
        return super().to_json() | bounds


class Date(LabelSchema):
    """A day. Canonical value: "2026-05-01" (ISO 8601).

    >>> from labeler import Date
    >>> Date().parse(Date().read_cell("2026년 5월 1일"))
    '2026-05-01'
    """

    kind = "date"
    bare = True
    widget = "date"

    def __init__(self, optional: bool = False) -> None:
        self.optional = optional

    def json_schema(self) -> dict[str, Any]:
        return or_left_out(self, {"type": "string", "format": "date"})

    def parse(self, raw: object, text: str | None = None) -> str:
        if self.is_left_out(raw):
            return EMPTY
        if not isinstance(raw, str):
            raise LabelError("Expected a date as text, got %(got)s", "type", got=describe_type(raw))
        try:
            # The calendar takes other ways of writing too, such as "20260501" and "2026-W18-5".
            return date.fromisoformat(raw if _ISO.fullmatch(raw) else "").isoformat()
        except ValueError as error:
            raise LabelError("%(value)r is no day; write it as in 2026-05-01", "range", value=raw[:40]) from error

    def strata(self, value: Value) -> tuple[str, ...]:
        """The year."""
        return (value[:4] or NO_LABEL,)

    def agreement(self, a: Value, b: Value) -> float:
        return float(a == b)

    def disagreement(self, a: Value, b: Value) -> float:
        """Interval: the squared days between. Equal or not where it may be left out: no day is far from none."""
        return super().disagreement(a, b) if self.optional else float(self.distance(a, b) or 0) ** 2

    def distance(self, a: Value, b: Value) -> float | None:
        """Days."""
        if EMPTY in (a, b):
            return None
        return float(abs((date.fromisoformat(a) - date.fromisoformat(b)).days))

    def vote(self, votes: Sequence[Vote]) -> tuple[str, float] | None:
        """The day with the largest summed weight: none between two days was said by anybody."""
        return most_voted([(day, weight) for day, weight in votes if day or self.optional])

    def render(self, value: Value, language: str) -> str:
        return str(value)

    def describe(self, language: str) -> str:
        said = "- 날짜: YYYY-MM-DD" if language == "ko" else "- a date: YYYY-MM-DD"
        return "\n".join([said, *self.left_out_line(language)])

    def read_cell(self, cell: object) -> object:
        """A day by year, month and day: 2026-05-01, 2026.5.1., 2026년 5월 1일."""
        cell = single(cell)
        found = _DAY.fullmatch(unicodedata.normalize("NFKC", cell).strip()) if isinstance(cell, str) else None
        return "-".join(part.zfill(2) for part in found.groups()) if found else cell
