"""Export: approved annotations as training data, split without leaks, checked, and described by a manifest."""

from labeler.export import formats, preference
from labeler.export.files import recover
from labeler.export.filters import Filters
from labeler.export.formats import Context, ExportRow, Format, TrainingFormat
from labeler.export.job import Calls, Options
from labeler.export.preference import Preference, PreferenceFormat
from labeler.export.preflight import Preflight
from labeler.export.selection import Selection
from labeler.export.service import ExportResult, check_task, export_again, export_task
from labeler.export.splits import Shares

__all__ = [
    "Calls",
    "Context",
    "ExportResult",
    "ExportRow",
    "Filters",
    "Format",
    "Options",
    "Preference",
    "PreferenceFormat",
    "Preflight",
    "Selection",
    "Shares",
    "TrainingFormat",
    "built_in",
    "check_task",
    "export_again",
    "export_task",
    "recover",
]


def built_in() -> dict[str, Format]:
    """Return the formats of Labeler itself, by name."""
    return formats.built_in() | preference.built_in()
