"""The formats of an export, and what one of your own derives from."""

from labeler.export.formats.base import (
    Context,
    ExportRow,
    Format,
    TrainingFormat,
    json_line,
    plain,
    record_line,
    yaml,
)
from labeler.export.formats.chat import TRL, Alpaca, Axolotl, LlamaFactory, Messages, OpenAI, ShareGPT
from labeler.export.formats.conll import TOKENS, Conll
from labeler.export.formats.dataset import Dataset
from labeler.export.formats.suggestions import Suggestions
from labeler.export.formats.tables import BOM, Csv, csv_line
from labeler.export.formats.text import TEMPLATES, PlainText

__all__ = [
    "BOM",
    "TEMPLATES",
    "TOKENS",
    "Context",
    "ExportRow",
    "Format",
    "Suggestions",
    "TrainingFormat",
    "built_in",
    "csv_line",
    "json_line",
    "plain",
    "record_line",
    "yaml",
]


def built_in() -> dict[str, Format]:
    """Return the formats of Labeler itself, by name."""
    chat = (OpenAI(), Messages(), TRL(), Alpaca(), ShareGPT(), LlamaFactory(), Axolotl(), PlainText())
    return {format_.name: format_ for format_ in (*chat, Csv(), Dataset(), Conll(), Suggestions())}
