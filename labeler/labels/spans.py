"""Keywords: phrases that stand verbatim in the text. Spans: labelled stretches of it. Offsets are code points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labeler.errors import LabelError
from labeler.labels.base import (
    MANY,
    NO_LABEL,
    PHRASES,
    Label,
    LabelSchema,
    Vote,
    describe_type,
    held_by_most,
    known_label,
    overlap_f1,
    several,
    unique_labels,
)
from labeler.records import Value


class Keywords(LabelSchema):
    """Phrases of the text. Canonical value: a list of {"text", "start", "end"}, in the order of the text.

    A backend answers with plain strings; :meth:`parse` finds them in the text, each at its first free place.
    Offsets count code points, ``end`` is exclusive, and no two keywords overlap.

    >>> from labeler import Keywords
    >>> Keywords().parse(["아삭"], "사과가 아삭해요")
    [{'text': '아삭', 'start': 4, 'end': 6}]
    >>> Keywords().parse(["바삭"], "사과가 아삭해요")
    Traceback (most recent call last):
    labeler.errors.LabelError: The keyword '바삭' is not in the text word for word
    """

    kind = "keywords"
    marks = True
    widget = "keywords"
    cuts = PHRASES
    neighbours = MANY

    def __init__(self, maximum: int = 10, longest: int = 60) -> None:
        self.maximum, self.longest = maximum, longest

    def json_schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": self.maximum}

    def parse(self, raw: object, text: str | None = None) -> list[dict[str, Any]]:
        if not isinstance(raw, (list, tuple)):
            raise LabelError("Expected a list of keywords, got %(got)s", "type", got=describe_type(raw))
        if len(raw) > self.maximum:
            raise LabelError("At most %(n)s keywords may be given, got %(got)s", "count", n=self.maximum, got=len(raw))
        taken: list[tuple[int, int]] = []
        found: list[dict[str, Any]] = []
        for item in raw:
            keyword = self._place(item, text, taken)
            taken.append((keyword["start"], keyword["end"]))
            found.append(keyword)
        return sorted(found, key=lambda keyword: keyword["start"])

    def _place(self, item: object, text: str | None, taken: Sequence[tuple[int, int]]) -> dict[str, Any]:
        words = item.get("text") if isinstance(item, dict) else item
        if isinstance(words, str) and len(words) > self.longest:
            raise LabelError(
                "The keyword %(name)r… is longer than %(n)s characters", "length", name=words[:40], n=self.longest
            )
        if isinstance(item, dict):
            return checked_span(item, text, taken, {"text", "start", "end"})
        if not isinstance(item, str):
            raise LabelError("Expected a keyword as text, got %(got)s", "type", got=describe_type(item))
        if not item.strip():
            raise LabelError("A keyword is empty", "empty")
        if text is None:
            raise LabelError("The keyword %(name)r cannot be placed without its text", "text", name=item)
        start = text.find(item)
        while start >= 0 and any(start < e and s < start + len(item) for s, e in taken):
            start = text.find(item, start + 1)
        if start < 0:
            again = any(text[s:e] == item or item in text[s:e] for s, e in taken)
            if again or item in text:
                kind = "overlap" if item in text else "not_verbatim"
                raise LabelError("The keyword %(name)r overlaps another keyword", kind, name=item[:80])
            raise LabelError("The keyword %(name)r is not in the text word for word", "not_verbatim", name=item[:80])
        return {"text": item, "start": start, "end": start + len(item)}

    def answer(self, value: Value) -> list[str]:
        return [keyword["text"] for keyword in value]

    def strata(self, value: Value) -> tuple[str, ...]:
        return ("keywords",) if value else (NO_LABEL,)

    def agreement(self, a: Value, b: Value) -> float:
        """Soft span F1 over the offsets."""
        return overlap_f1([(k["start"], k["end"]) for k in a], [(k["start"], k["end"]) for k in b])

    def majority(self, values: Sequence[Value]) -> Value | None:
        """The keywords that more than half of the lists hold, each at the same place."""
        return held_by_most(self, values)

    def render(self, value: Value, language: str) -> str:
        return ", ".join(keyword["text"] for keyword in value)

    def empty(self) -> Value:
        return []

    def read_cell(self, cell: object) -> object:
        """Phrases with ``;`` or ``|`` between; of labelled ones the label is nothing to a keyword."""
        if isinstance(cell, str):
            return several(cell)
        if not isinstance(cell, list):
            return cell
        return [{key: item[key] for key in item if key != "label"} if isinstance(item, dict) else item for item in cell]

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"maximum": self.maximum}


class Spans(LabelSchema):
    """Labelled stretches of the text. Canonical value: a list of {"label", "text", "start", "end"} by start.

    Stretches of different labels may overlap; two of one label may not.

    >>> from labeler import Label, Spans
    >>> names = Spans(Label("variety"), Label("place"))
    >>> names.parse([{"label": "variety", "text": "Fuji"}], "These Fuji apples")
    [{'label': 'variety', 'text': 'Fuji', 'start': 6, 'end': 10}]
    """

    kind = "spans"
    marks = True
    widget = "spans"
    neighbours = MANY

    def __init__(self, *labels: Label) -> None:
        self.labels, self.retired = unique_labels(labels)
        self._names = {label.name: n for n, label in enumerate(self.labels)}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def json_schema(self) -> dict[str, Any]:
        properties = {
            "label": {"type": "string", "enum": list(self._names)},
            "text": {"type": "string", "minLength": 1},
        }
        item = {
            "type": "object", "properties": properties, "required": ["label", "text"], "additionalProperties": False,
        }  # fmt: skip
        return {"type": "array", "items": item}

    def parse(self, raw: object, text: str | None = None) -> list[dict[str, Any]]:
        if not isinstance(raw, (list, tuple)):
            raise LabelError("Expected a list of spans, got %(got)s", "type", got=describe_type(raw))
        found: list[dict[str, Any]] = []
        taken: dict[str, list[tuple[int, int]]] = {}
        for item in raw:
            if not isinstance(item, dict):
                raise LabelError("Expected a span with label and text, got %(got)s", "type", got=describe_type(item))
            label = known_label(item.get("label"), self._names)
            mine = taken.setdefault(label, [])
            bare = {key: value for key, value in item.items() if key != "label"}
            span = self._place(bare, text, mine)
            mine.append((span["start"], span["end"]))
            found.append({"label": label, **span})
        return sorted(found, key=lambda span: (span["start"], span["end"], self._names[span["label"]]))

    def _place(self, item: dict[str, Any], text: str | None, taken: Sequence[tuple[int, int]]) -> dict[str, Any]:
        if "start" in item or "end" in item:
            return checked_span(item, text, taken, {"text", "start", "end"})
        if set(item) != {"text"}:
            raise LabelError(
                "A span has the keys %(names)s, got %(got)s",
                "type",
                names=["label", "text"],
                got=sorted(["label", *map(str, item)]),
            )
        return Keywords(longest=10_000)._place(item["text"], text, taken)

    def answer(self, value: Value) -> list[dict[str, str]]:
        return [{"label": span["label"], "text": span["text"]} for span in value]

    def strata(self, value: Value) -> tuple[str, ...]:
        return tuple(sorted({span["label"] for span in value}, key=lambda n: self._names.get(n, 0))) or (NO_LABEL,)

    def agreement(self, a: Value, b: Value) -> float:
        """Span F1: label and both offsets must be equal."""
        left = {(s["label"], s["start"], s["end"]) for s in a}
        right = {(s["label"], s["start"], s["end"]) for s in b}
        if not left and not right:
            return 1.0
        return 2 * len(left & right) / (len(left) + len(right))

    def majority(self, values: Sequence[Value]) -> Value | None:
        """The stretches that more than half of the lists hold, each with the same label."""
        return held_by_most(self, values)

    def render(self, value: Value, language: str) -> str:
        return ", ".join(f"{span['text']} [{self.label(span['label']).titled(language)}]" for span in value)

    def empty(self) -> Value:
        return []

    def extract(self, votes: Sequence[Vote], text: str) -> Value | None:
        """The neighbours' labelled phrases that stand in the text too, each at its first free place."""
        support: dict[tuple[str, str], float] = {}
        for value, weight in votes:
            for span in value:
                if span["text"] in text:
                    pair = (span["label"], span["text"])
                    support[pair] = support.get(pair, 0.0) + weight
        found: Value = []
        for label, phrase in sorted(support, key=lambda pair: (-support[pair], pair)):
            try:
                found = self.parse([*self.answer(found), {"label": label, "text": phrase}], text)
            except LabelError:
                continue
        return found

    def color(self, value: Value) -> str:
        first = next(iter(value), None) if isinstance(value, list) else None
        name = first.get("label") if isinstance(first, dict) else None
        return self.label(name).color if isinstance(name, str) else ""

    def with_labels(self, labels: Sequence[Label]) -> Spans:
        return Spans(*labels)


def checked_span(
    item: dict[str, Any], text: str | None, taken: Sequence[tuple[int, int]], keys: set[str]
) -> dict[str, Any]:
    """Return a span given with offsets, if the text really stands there. Raises :class:`LabelError`."""
    if set(item) != keys:
        raise LabelError(
            "A span has the keys %(names)s, got %(got)s", "type", names=sorted(keys), got=sorted(map(str, item))
        )
    start, end, words = item["start"], item["end"], item["text"]
    if type(start) is not int or type(end) is not int or not isinstance(words, str):
        raise LabelError("A span needs whole numbers as start and end, and its text", "type")
    if not words.strip():
        raise LabelError("A span is empty", "empty")
    if not 0 <= start < end or end - start != len(words):
        raise LabelError(
            "A span from %(start)s to %(end)s cannot hold a text of %(n)s characters",
            "range",
            start=start,
            end=end,
            n=len(words),
        )
    if text is not None and text[start:end] != words:
        raise LabelError(
            "The text from %(start)s to %(end)s is %(a)r, not %(b)r",
            "offset",
            start=start,
            end=end,
            a=text[start:end][:40],
            b=words[:40],
        )
    if any(start < e and s < end for s, e in taken):
        raise LabelError("%(name)r overlaps another one", "overlap", name=words[:40])
    return {"text": words, "start": start, "end": end}
