"""Fields: named parts, each a label schema of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labeler.errors import LabelError, SettingError
from labeler.labels.base import NO_LABEL, Label, LabelSchema, Vote, describe_type
from labeler.records import Value


class Fields(LabelSchema):
    """Named parts. Canonical value: {part: value}, in the order of the schema, without parts that are empty.

    Each part is a :class:`Label` (its name, titles and definition) with its schema. A part may be
    left out if its schema has an empty value.

    >>> from labeler import Fields, Label, Rating, Text
    >>> parts = Fields((Label("stars"), Rating(1, 5)), (Label("note"), Text()))
    >>> parts.parse({"stars": 5, "note": ""})
    {'stars': 5}
    >>> print(parts.render({"stars": 5, "note": "crisp"}, "en"))
    stars: 5
    note: crisp
    """

    kind = "fields"
    widget = "fields"

    def __init__(self, *parts: tuple[Label, LabelSchema]) -> None:
        pairs = list(parts)
        self.parts = {label.name: schema for label, schema in pairs}
        self.labels = tuple(label for label, _ in pairs)
        if not pairs or len(self.parts) != len(pairs):
            raise SettingError("A Fields schema needs parts with different names")
        if any(isinstance(schema, Fields) for schema in self.parts.values()):
            raise SettingError("A part of Fields cannot be Fields again")
        self.sides = next((schema.sides for schema in self.parts.values() if schema.sides), ())
        self.neighbours = max(schema.neighbours for schema in self.parts.values())

    @property
    def widgets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([self.widget, *(schema.widget for schema in self.parts.values())]))

    def split(self) -> Mapping[str, LabelSchema]:
        return self.parts

    def spread(self, value: Value) -> dict[str, Any]:
        return {name: value.get(name, schema.empty()) for name, schema in self.parts.items()}

    def together(self, parts: Mapping[str, Value]) -> Value | None:
        missing = [name for name, part in self.parts.items() if name not in parts and part.empty() is None]
        return None if missing else {name: parts[name] for name in self.parts if name in parts}

    def json_schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {name: schema.json_schema() for name, schema in self.parts.items()},
            "required": list(self.parts),
            "additionalProperties": False,
        }

    def parse(self, raw: object, text: str | None = None) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise LabelError(
                "Expected an object with %(names)s, got %(got)s",
                "type",
                names=", ".join(self.parts),
                got=describe_type(raw),
            )
        strange = [str(key) for key in raw if key not in self.parts]
        if strange:
            raise LabelError(
                "%(name)r is not one of the parts: %(names)s",
                "unknown_part",
                name=strange[0][:80],
                names=", ".join(self.parts),
            )
        found: dict[str, Any] = {}
        for name, schema in self.parts.items():
            value = raw.get(name)
            if value is None:
                if schema.empty() is None:
                    raise LabelError("The part %(name)r is missing", "missing_part", name=name)
                continue
            try:
                value = schema.parse(value, text)
            except LabelError as error:
                raise LabelError("%(name)s: %(why)s", error.kind, name=name, why=error) from error
            if value != schema.empty():
                found[name] = value
        return found

    def answer(self, value: Value) -> dict[str, Any]:
        return {
            name: None if part is None else self.parts[name].answer(part) for name, part in self.spread(value).items()
        }

    def strata(self, value: Value) -> tuple[str, ...]:
        return tuple(name for name in self.parts if name in value) or (NO_LABEL,)

    def agreement(self, a: Value, b: Value) -> float:
        """The mean over the parts that either value has; a part that only one has counts by its empty value."""
        names = [name for name in self.parts if name in a or name in b]
        if not names:
            return 1.0
        full_a, full_b = self.spread(a), self.spread(b)
        return sum(self._part_agreement(name, full_a[name], full_b[name]) for name in names) / len(names)

    def _part_agreement(self, name: str, a: Value, b: Value) -> float:
        if a is None or b is None:
            return 0.0
        return self.parts[name].agreement(a, b)

    def vote(self, votes: Sequence[Vote]) -> tuple[dict[str, Any], float] | None:
        """Each part votes alone; None as soon as one part cannot vote."""
        value: dict[str, Any] = {}
        scores = []
        for name, schema in self.parts.items():
            result = schema.vote([(self.spread(v)[name], w) for v, w in votes if self.spread(v)[name] is not None])
            if result is None:
                return None
            if result[0] != schema.empty():
                value[name] = result[0]
            scores.append(result[1])
        return value, sum(scores) / len(scores)

    def majority(self, values: Sequence[Value]) -> dict[str, Any] | None:
        """Each part has its own; None as soon as one part has none, or is missing in one of the values."""
        found: dict[str, Any] = {}
        for name, schema in self.parts.items():
            given = [self.spread(value)[name] for value in values]
            part = None if None in given else schema.majority(given)
            if part is None:
                return None
            if part != schema.empty():
                found[name] = part
        return found

    def extract(self, votes: Sequence[Vote], text: str) -> Value | None:
        """What each part extracts; parts of which the neighbours say nothing are left out."""
        found: dict[str, Any] = {}
        for name, part in self.parts.items():
            inner = [(self.spread(value)[name], weight) for value, weight in votes]
            value = part.extract([(v, w) for v, w in inner if v is not None], text)
            if value is not None:
                found[name] = value
        return self.parse(found, text) if found else None

    def color(self, value: Value) -> str:
        first = next(iter(value), None) if isinstance(value, dict) else None
        return self.label(first).color if isinstance(first, str) else ""

    def render(self, value: Value, language: str) -> str:
        return "\n".join(
            f"{self.label(name).titled(language)}: {self.parts[name].render(part, language)}"
            for name, part in value.items()
            if name in self.parts
        )

    def describe(self, language: str) -> str:
        lines = super().describe(language).split("\n")
        inner = [(label.name, self.parts[label.name].describe(language)) for label in self.labels]
        return "\n".join(lines + [f"{name}:\n{text}" for name, text in inner if text])

    def empty(self) -> Value | None:
        return {} if all(schema.empty() is not None for schema in self.parts.values()) else None

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"parts": {name: schema.to_json() for name, schema in self.parts.items()}}
