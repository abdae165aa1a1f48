"""Plots as geometry: what templates/_plots.html draws as SVG. Kinds differ in shape, not in color alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labeler.evaluation.measures import Measure

WIDE, HIGH, EDGE = 400, 200, 40
_FROM, _TO = EDGE + 16, WIDE - 24
Point = tuple[float, Measure]
"""Where a point stands from left to right, in [0, 1], and its height with the interval."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot with what a screen reader hears of it and the titles of its kinds; _plots.html has its ``shape``."""

    shape: str
    plot: dict[str, Any]
    title: str
    description: str
    kinds: Sequence[str]


def columns(series: Sequence[Sequence[float]], ticks: Sequence[str]) -> dict[str, Any]:
    """Return columns that stand on each other, one for each tick; ``series`` is from the bottom up."""
    most = max((sum(parts) for parts in zip(*series, strict=True)), default=0) or 1
    step = (WIDE - EDGE - 8) / max(len(ticks), 1)
    bars = []
    for n in range(len(ticks)):
        base = float(HIGH - EDGE)
        for kind, values in enumerate(series):
            if tall := (HIGH - EDGE - 12) * values[n] / most:
                base -= tall
                x = EDGE + n * step + 2
                bars.append(
                    {"kind": kind, "x": f"{x:.1f}", "y": f"{base:.1f}", "w": f"{step - 4:.1f}", "h": f"{tall:.1f}"}
                )
    return _frame() | {"bars": bars, "most": most, "first": ticks[0], "last": ticks[-1]}


def lines(
    series: Sequence[Sequence[Point]], first: str, last: str, most: str = "100%", top: float = 1.0, even: bool = False
) -> dict[str, Any]:
    """Return lines of heights in [0, ``top``] with their intervals; ``first`` and ``last`` stand below both ends.

    ``most`` is what stands at the top. ``even`` adds the line on which height and place are the same share.
    """
    # Side by side, that their intervals do not hide each other.
    found = [
        {"kind": kind, "points": [_point(place, one, top, 5 * kind) for place, one in points]}
        for kind, points in enumerate(series)
    ]
    line = f"M{_FROM} {_at(0.0)}L{_TO} {_at(1.0)}" if even else ""
    return _frame() | {"lines": found, "first": first, "last": last, "most": most, "even": line}


def _point(place: float, one: Measure, top: float, aside: int) -> dict[str, str]:
    heights = {name: _at(min(share / top, 1.0)) for name, share in (("y", one.value), ("top", one.high))}
    return {"x": f"{_FROM + (_TO - _FROM) * place + aside:.1f}", **heights, "end": _at(min(one.low / top, 1.0))}


def _at(share: float) -> str:
    return f"{HIGH - EDGE - (HIGH - EDGE - 12) * share:.1f}"


def _frame() -> dict[str, Any]:
    return {"wide": WIDE, "high": HIGH, "edge": EDGE, "top": 12, "bottom": HIGH - EDGE}
