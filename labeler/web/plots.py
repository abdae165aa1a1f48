"""Plots as geometry: what templates/_plots.html draws as SVG. Kinds differ in shape, not in color alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labeler.evaluation.measures import Measure

WIDE, HIGH, EDGE = 400, 200, 40


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


def lines(series: Sequence[Sequence[Measure | None]], ticks: Sequence[str]) -> dict[str, Any]:
    """Return lines of shares in [0, 1] with their intervals, a point for each tick; None where there is none."""
    step = (WIDE - EDGE - 40) / max(len(ticks) - 1, 1)
    found = []
    for kind, values in enumerate(series):
        # Side by side, that their intervals do not hide each other.
        points = [
            {
                "x": f"{EDGE + 16 + n * step + 5 * kind:.1f}",
                "y": _at(one.value),
                "top": _at(one.high),
                "end": _at(one.low),
            }
            for n, one in enumerate(values)
            if one is not None
        ]
        found.append({"kind": kind, "points": points})
    return _frame() | {"lines": found, "first": ticks[0], "last": ticks[-1]}


def _at(share: float) -> str:
    return f"{HIGH - EDGE - (HIGH - EDGE - 12) * share:.1f}"


def _frame() -> dict[str, Any]:
    return {"wide": WIDE, "high": HIGH, "edge": EDGE, "top": 12, "bottom": HIGH - EDGE}
