"""Text: free text within length bounds. Agreement is chrF (Popović 2015)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from labeler.errors import LabelError, TextError
from labeler.labels.base import CLAUSES, MANY, NO_LABEL, LabelSchema, describe_type, single
from labeler.records import Value
from labeler.text import clean_text


class Text(LabelSchema):
    """A text of ``minimum`` to ``maximum`` code points. Canonical value: the cleaned text.

    ``minimum=0`` allows the empty text, which says "nothing of this in the record". ``sentences`` is how many
    clauses of the record the extraction of the ``ensemble`` takes.

    >>> from labeler import Text
    >>> summary = Text(maximum=30)
    >>> summary.parse("  crisp and sweet  ")
    'crisp and sweet'
    >>> summary.agreement("crisp", "crisp"), summary.agreement("crisp", "old")
    (1.0, 0.0)
    """

    kind = "text"
    bare = True
    widget = "text"
    cuts = CLAUSES
    free_text = True
    neighbours = MANY

    def __init__(self, minimum: int = 0, maximum: int = 400, sentences: int = 1) -> None:
        self.minimum, self.maximum, self.sentences = minimum, maximum, sentences

    def json_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string", "maxLength": self.maximum}
        return schema | ({"minLength": self.minimum} if self.minimum else {})

    def parse(self, raw: object, text: str | None = None) -> str:
        if not isinstance(raw, str):
            raise LabelError("Expected a text, got %(got)s", "type", got=describe_type(raw))
        try:
            value = clean_text(raw, "label")
        except TextError as error:
            raise LabelError(str(error), "text") from error
        if len(value) < self.minimum:
            raise LabelError(
                "The text has %(n)s characters; at least %(least)s are needed",
                "length",
                n=len(value),
                least=self.minimum,
            )
        if len(value) > self.maximum:
            raise LabelError(
                "The text has %(n)s characters; at most %(most)s are allowed", "length", n=len(value), most=self.maximum
            )
        return value

    def strata(self, value: Value) -> tuple[str, ...]:
        return ("text",) if value else (NO_LABEL,)

    def agreement(self, a: Value, b: Value) -> float:
        """chrF of character n-grams 1 to 6 with equal weight on both sides, so that it is symmetric."""
        return chrf(a, b)

    def render(self, value: Value, language: str) -> str:
        return str(value)

    def empty(self) -> Value | None:
        return "" if self.minimum == 0 else None

    @property
    def reads_blank(self) -> bool:
        """An empty text is one, too short or not."""
        return True

    def read_cell(self, cell: object) -> object:
        return single(cell)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"minimum": self.minimum, "maximum": self.maximum}


def chrf(a: str, b: str, longest: int = 6) -> float:
    """Return the symmetric chrF (beta 1) of two texts in [0, 1], over n-grams of their characters without spaces.

    Orders that neither text reaches are left out, as in the reference implementation.
    """
    left, right = "".join(a.split()), "".join(b.split())
    if left == right:
        return 1.0
    scores = []
    for n in range(1, longest + 1):
        ours = Counter(left[i : i + n] for i in range(len(left) - n + 1))
        theirs = Counter(right[i : i + n] for i in range(len(right) - n + 1))
        size = ours.total() + theirs.total()
        if size:
            scores.append(2 * (ours & theirs).total() / size)
    return sum(scores) / len(scores) if scores else 0.0
