"""Export: approved annotations as training data, split without leaks, checked, and described by a manifest."""

from labeler.export.files import recover
from labeler.export.filters import Filters
from labeler.export.formats import Context, ExportRow, Format, TrainingFormat, built_in
from labeler.export.job import Options
from labeler.export.selection import Selection
from labeler.export.service import ExportResult, export_task
from labeler.export.splits import Shares

__all__ = [
    "Context",
    "ExportResult",
    "ExportRow",
    "Filters",
    "Format",
    "Options",
    "Selection",
    "Shares",
    "TrainingFormat",
    "built_in",
    "export_task",
    "recover",
]
