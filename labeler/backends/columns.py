"""Columns of the metadata as numbers, for a backend that learns: amounts are scaled, a few short values counted singly.

What is learned of a column is plain JSON: ``{"name", "mean", "deviation"}``, or ``{"name", "values"}``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Metadata = Mapping[str, Any]
_MOST_VALUES = 16
_LONGEST_VALUE, _LONGEST_NUMBER = 40, 20
# A value that stands once says nothing of others.
_FEWEST = 2
_FARTHEST = 3.0


def learn(columns: Sequence[str], rows: Sequence[Metadata]) -> list[dict[str, Any]]:
    """Return what the rows tell of each column; nothing of one in which no two of them are alike or comparable."""
    found = [_learned(name, [row[name] for row in rows if row.get(name) not in (None, "")]) for name in columns]
    return [column for column in found if column is not None]


def _learned(name: str, values: Sequence[Any]) -> dict[str, Any] | None:
    amounts = [amount for value in values if (amount := _number(value)) is not None]
    if values and len(amounts) == len(values):
        mean = math.fsum(amounts) / len(amounts)
        deviation = math.sqrt(math.fsum((amount - mean) ** 2 for amount in amounts) / len(amounts))
        return {"name": name, "mean": mean, "deviation": deviation} if deviation > 0 else None
    counts = Counter(text for value in values if len(text := str(value)) <= _LONGEST_VALUE)
    common = sorted((text for text, n in counts.items() if n >= _FEWEST), key=lambda text: (-counts[text], text))
    return {"name": name, "values": common[:_MOST_VALUES]} if common else None


def numbers(learned: Sequence[Mapping[str, Any]], rows: Sequence[Metadata]) -> np.ndarray:
    """Return float32 (rows, d): a scaled amount, or a one for the row's value; zeros where it is missing or new."""
    blocks = [np.zeros((len(rows), 0), dtype=np.float32)]
    for column in learned:
        values = [row.get(column["name"]) for row in rows]
        known = column.get("values")
        if known is None:
            found = [[_scaled(value, column)] for value in values]
        else:
            found = [[float(str(value) == one) for one in known] for value in values]
        # No rows have columns too.
        blocks.append(np.array(found, dtype="f4").reshape(len(rows), 1 if known is None else len(known)))
    return np.hstack(blocks)


def _scaled(value: Any, column: Mapping[str, Any]) -> float:
    amount = _number(value)
    if amount is None:
        return 0.0
    scaled: float = (amount - column["mean"]) / column["deviation"]
    return max(-_FARTHEST, min(_FARTHEST, scaled))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or len(str(value)) > _LONGEST_NUMBER:
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
