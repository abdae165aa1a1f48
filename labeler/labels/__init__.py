"""Label schemas: each describes the value a task gives to a record, and everything else derives from it."""

from labeler.labels.base import (
    CLAUSES,
    EMPTY,
    NO_LABEL,
    PHRASES,
    WHOLE,
    Label,
    LabelSchema,
    Vote,
    most_voted,
    safe_agreement,
)
from labeler.labels.choice import Choice, Choices, Pairwise
from labeler.labels.fields import Fields
from labeler.labels.moves import Answers, Lineage, Moves
from labeler.labels.number import Date, Number
from labeler.labels.ranking import Ranking
from labeler.labels.rating import Rating
from labeler.labels.spans import Keywords, Spans
from labeler.labels.text import Text, chrf

KINDS: tuple[type[LabelSchema], ...] = (
    Choice,
    Choices,
    Pairwise,
    Rating,
    Number,
    Date,
    Ranking,
    Keywords,
    Spans,
    Text,
    Fields,
)

__all__ = [
    "CLAUSES",
    "EMPTY",
    "KINDS",
    "NO_LABEL",
    "PHRASES",
    "WHOLE",
    "Answers",
    "Choice",
    "Choices",
    "Date",
    "Fields",
    "Keywords",
    "Label",
    "LabelSchema",
    "Lineage",
    "Moves",
    "Number",
    "Pairwise",
    "Ranking",
    "Rating",
    "Spans",
    "Text",
    "Vote",
    "chrf",
    "most_voted",
    "safe_agreement",
]
