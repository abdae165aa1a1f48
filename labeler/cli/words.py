"""What is said of models, calibrations and spans of time, in the same words by every command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from labeler.backends.prices import shutdown_warning

if TYPE_CHECKING:
    from labeler.backends.prices import ModelInfo
    from labeler.prelabel.calibration import Calibration


def described(info: ModelInfo | None) -> str:
    """Return what is known of a model: context, prices in US dollars per million tokens, the day it goes."""
    if info is None:
        return "neither context nor prices; add them to prices.json in the instance folder"
    said = ["context unknown" if info.context is None else f"context {info.context:,} tokens"]
    if info.input is None or info.output is None:
        said.append("price unknown")
    else:
        cached = "" if info.cached_input is None else f", ${info.cached_input:g} in from the cache"
        said.append(f"${info.input:g} in{cached}, ${info.output:g} out per million tokens")
    if info.batch is not None:
        said.append(f"{info.batch:.0%} of that in batches")
    if info.shutdown is not None:
        said.append(f"to be shut down on {info.shutdown}")
    return "; ".join(said)


def ending(info: ModelInfo | None) -> str:
    """Return a sentence where a model is about to be shut down, or was; an empty text where it is not."""
    warning = shutdown_warning(info, datetime.now(UTC).date())
    if warning is None:
        return ""
    if warning.days <= 0:
        return f"{warning.model_id} was shut down on {warning.shutdown}; choose another model"
    return f"{warning.model_id} is shut down on {warning.shutdown}, in {warning.days} days; choose another in time"


def can(capabilities: Mapping[str, Any]) -> str:
    """Return what a model can, in one line: "json_schema yes, seed no, context 8192"."""
    return ", ".join(
        f"{name} {('yes' if value else 'no') if isinstance(value, bool) else value}"
        for name, value in sorted(capabilities.items())
    )


def learned(fitted: Calibration | None) -> str:
    """Return what a calibration was learned from, how well it does and whether it is used, in one sentence."""
    from labeler.prelabel.calibration import MIN_PER_LABEL, MIN_RECORDS

    if fitted is None:
        return (
            f"too little to learn from; {MIN_RECORDS} approved records with scores are needed, "
            f"and {MIN_PER_LABEL} of each of two labels."
        )
    used = "it is used" if fitted.used else "that is no clear gain, so it is not used"
    return (
        f"learned from {fitted.trained_on} approved records; agreement {fitted.accuracy_before:.3f} without and "
        f"{fitted.accuracy_after:.3f} with the calibration, on records it was not fitted on; {used}."
    )


def duration(seconds: float) -> str:
    """Return a span of time for people: "4 s", "3 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def day(seconds: float) -> str:
    """Return the day (UTC) of a time in seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
