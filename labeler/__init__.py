"""Labeler: data labeling with retrieval. This module exports what a plugin needs, and nothing slow."""

from labeler.backends.base import Backend, BackendFactory, BackendRequest
from labeler.errors import LabelerError, LabelError, SettingError
from labeler.hookspecs import hookimpl
from labeler.labels import (
    Choice,
    Choices,
    Date,
    Fields,
    Keywords,
    Label,
    LabelSchema,
    Number,
    Pairwise,
    Ranking,
    Rating,
    Spans,
    Text,
    most_voted,
)
from labeler.prompts import PromptStyle
from labeler.records import (
    BackendFailure,
    Completion,
    Example,
    Generation,
    Message,
    ParseFailure,
    Record,
    Value,
)
from labeler.sentence import Sentence
from labeler.settings import Setting
from labeler.task import Task, guideline_files

__version__ = "0.2.0"

__all__ = [
    "Backend",
    "BackendFactory",
    "BackendFailure",
    "BackendRequest",
    "Choice",
    "Choices",
    "Completion",
    "Date",
    "Example",
    "Fields",
    "Generation",
    "Keywords",
    "Label",
    "LabelError",
    "LabelSchema",
    "LabelerError",
    "Message",
    "Number",
    "Pairwise",
    "ParseFailure",
    "PromptStyle",
    "Ranking",
    "Rating",
    "Record",
    "Sentence",
    "Setting",
    "SettingError",
    "Spans",
    "Task",
    "Text",
    "Value",
    "__version__",
    "guideline_files",
    "hookimpl",
    "most_voted",
]
