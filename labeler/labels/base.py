"""What every label schema can do: the heart from which prompt, parser, form, statistics and export derive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from labeler.errors import LabelError, SettingError
from labeler.records import Value

Vote = tuple[Value, float]
"""A value and the weight (at least 0) that speaks for it."""

# No red and no green: on the desks of a product they say bad and good.
_COLORS = ("#1565c0", "#b26a00", "#6a1b9a", "#00838f", "#757575", "#a0298f", "#546e7a", "#3949ab", "#827717", "#0288d1")


@dataclass(frozen=True, slots=True)
class Label:
    """One value of a label schema.

    ``name`` is what is stored and exported; ``title`` and ``definition`` map a language ("ko", "en") to text
    for people and prompts. In a tree, ``parent`` is the name of the category above. A ``retired`` label is offered to
    nobody any more; records that have it keep it.
    """

    name: str
    title: Mapping[str, str] = field(default_factory=dict)
    definition: Mapping[str, str] = field(default_factory=dict)
    color: str = ""
    parent: str | None = None
    retired: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise SettingError(f"A label needs a name: {str(self.name)[:80]}")
        for key in ("title", "definition"):
            if not maps_texts(getattr(self, key)):
                raise SettingError(f"The {key} of label {self.name!r} must map languages to texts")
        if not isinstance(self.color, str) or not isinstance(self.parent, str | None):
            raise SettingError(f"The color and the parent of label {self.name!r} must be texts")

    def titled(self, language: str) -> str:
        """Return the title in ``language``, else the name."""
        return self.title.get(language) or self.name

    def defined(self, language: str) -> str:
        """Return the definition in ``language``, else in any language, else an empty text."""
        return self.definition.get(language) or next(iter(self.definition.values()), "")

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name}
        for key in ("title", "definition"):
            if getattr(self, key):
                found[key] = dict(getattr(self, key))
        if self.color:
            found["color"] = self.color
        if self.parent:
            found["parent"] = self.parent
        if self.retired:
            found["retired"] = True
        return found

    @classmethod
    def from_json(cls, raw: Any) -> Label:
        """Read what :meth:`to_json` wrote. Raises :class:`SettingError` naming the label."""
        if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
            raise SettingError(f"A label needs a name: {str(raw)[:80]}")
        color, parent, retired = raw.get("color") or "", raw.get("parent") or None, raw.get("retired") is True
        return cls(raw["name"].strip(), raw.get("title", {}), raw.get("definition", {}), color, parent, retired)


def maps_texts(given: object) -> bool:
    """Return whether something maps languages to texts, as titles, definitions and guidelines do."""
    return isinstance(given, Mapping) and all(isinstance(part, str) for pair in given.items() for part in pair)


class LabelSchema(ABC):
    """Describes the value that a task gives to a record; everything else derives from it.

    Canonical values are plain JSON values: what ``parse`` returns is equal to itself after a round trip
    through JSON, and ``parse(parse(x)) == parse(x)``.
    """

    kind: ClassVar[str]
    widget: ClassVar[str]
    labels: tuple[Label, ...] = ()
    retired: tuple[Label, ...] = ()
    """Labels that are not offered any more, and that records may still have: see :attr:`past`."""

    @abstractmethod
    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the value: what a backend must answer."""

    @abstractmethod
    def parse(self, raw: object, text: str | None = None) -> Value:
        """Return the canonical value, or raise :class:`LabelError` that says what is wrong.

        ``text`` is the record's text, for schemas whose values point into it. Nothing is ever guessed:
        no case folding, no nearest label, no translation.
        """

    @abstractmethod
    def strata(self, value: Value) -> tuple[str, ...]:
        """Return what the value counts as, for balance, statistics and splits; at least one name."""

    @abstractmethod
    def agreement(self, a: Value, b: Value) -> float:
        """Return how far two canonical values agree, in [0, 1]; symmetric, 1.0 for equal ones."""

    @abstractmethod
    def render(self, value: Value, language: str) -> str:
        """Return the value as one text for people, in ``language``."""

    def answer(self, value: Value) -> Any:
        """Return the value as a backend is asked to give it: ``parse(answer(value), text) == value``."""
        return value

    def vote(self, votes: Sequence[Vote]) -> tuple[Value, float] | None:
        """Return the weighted winner and its share of the weight in [0, 1]; None if this schema cannot vote."""
        return None

    def candidates(self) -> dict[str, Value]:
        """Return the values that a backend can score one by one, by name; empty if the schema has no closed list.

        Where the value is a set of labels, each candidate is a set of one.
        """
        return {}

    def decide(self, scores: Mapping[str, float], size: float | None = None) -> Value | None:
        """Return the value that the scores of :meth:`candidates` speak for; None if there is none.

        ``scores`` are numbers in [0, 1]. For sets of labels ``size`` is how many to choose; None chooses every
        label with a score of at least 0.5.
        """
        return None

    def describe(self, language: str) -> str:
        """Return the labels and their definitions for a prompt, one a line; empty if there are none."""
        lines = []
        for label in self.labels:
            title = label.titled(language)
            shown = label.name if title == label.name else f"{label.name} ({title})"
            definition = label.defined(language)
            lines.append(f"- {shown}: {definition}" if definition else f"- {shown}")
        return "\n".join(lines)

    def empty(self) -> Value | None:
        """Return the value that a form without a suggestion starts with, or None for "nothing chosen"."""
        return None

    def says_nothing(self, value: Value | None) -> bool:
        """Return whether a canonical value is the empty one: there is nothing of this in the record."""
        return value is not None and value == self.empty()

    def with_labels(self, labels: Sequence[Label]) -> LabelSchema:
        """Return a copy with other labels. Raises :class:`SettingError` for schemas that have none."""
        raise SettingError(f"A {self.kind} schema has no labels to change")

    def to_json(self) -> dict[str, Any]:
        """Return a description of the schema for manifests and the JSON API."""
        found: dict[str, Any] = {"kind": self.kind}
        if self.labels:
            found["labels"] = [label.to_json() for label in (*self.labels, *self.retired)]
        return found

    def label(self, name: str) -> Label:
        """Return the label called ``name``, or a bare one, so that old values can still be shown."""
        return self._by_name.get(name) or Label(name)

    @cached_property
    def _by_name(self) -> dict[str, Label]:
        return {label.name: label for label in (*self.labels, *self.retired)}

    # What becomes of stored values when labels are changed

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the labels that a value can hold; empty for schemas whose labels cannot be changed."""
        try:
            return tuple(label.name for label in self.with_labels(self.labels).labels)
        except SettingError:
            return ()

    @cached_property
    def past(self) -> LabelSchema:
        """The schema by which stored values are read: with the retired labels among the others."""
        if not self.retired:
            return self
        return self.with_labels([replace(label, retired=False) for label in (*self.labels, *self.retired)])

    def moved(self, value: Value, now: Callable[[str], str | None]) -> Value | None:
        """Return a value with each of its labels as ``now`` calls it; None if it calls one of them None.

        A label is a text, an entry of a list, or what an object calls "label". What comes out still has to be parsed:
        two labels that became one may not stand together.
        """
        if isinstance(value, str):
            return now(value)
        if isinstance(value, list):
            parts = [self.moved(part, now) for part in value]
            return None if None in parts else [part for n, part in enumerate(parts) if part not in parts[:n]]
        if isinstance(value, dict) and isinstance(value.get("label"), str):
            label = now(value["label"])
            return None if label is None else {**value, "label": label}
        return value


def unique_labels(labels: Sequence[Label]) -> tuple[tuple[Label, ...], tuple[Label, ...]]:
    """Check and colour labels; return those that are offered and those that are retired.

    Raises :class:`SettingError` if none is offered, or two have one name.
    """
    for label in labels:
        if not isinstance(label, Label):
            raise SettingError(f"A label must be made by Label, like Label('good'), and this is {str(label)[:60]!r}")
    if all(label.retired for label in labels):
        raise SettingError("A label schema needs at least one label")
    names: set[str] = set()
    coloured = []
    for position, label in enumerate(labels):
        if label.name in names:
            raise SettingError(f"The label {label.name!r} appears twice in the label schema")
        names.add(label.name)
        coloured.append(replace(label, color=label.color or _COLORS[position % len(_COLORS)]))
    offered, retired = ([one for one in coloured if one.retired is out] for out in (False, True))
    return tuple(offered), tuple(retired)


def known_label(raw: object, names: Mapping[str, Any] | Sequence[str]) -> str:
    """Return ``raw`` if it is exactly one of ``names``; else raise with the reason a person needs."""
    if not isinstance(raw, str):
        raise LabelError(f"Expected the name of a label, got {describe_type(raw)}", "type")
    if raw in names:
        return raw
    folded = [name for name in names if name.casefold() == raw.strip().casefold()]
    if folded:
        raise LabelError(f"{raw[:80]!r} is not the label {folded[0]!r}: it differs in case or white space", "case")
    listed = ", ".join(list(names)[:12]) + (", …" if len(names) > 12 else "")
    raise LabelError(f"{raw[:80]!r} is not one of the labels: {listed}", "unknown_label")


def weigh(votes: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Sum the weights by name."""
    total: dict[str, float] = defaultdict(float)
    for name, weight in votes:
        total[name] += weight
    return dict(total)


def describe_type(raw: object) -> str:
    """Name a JSON value's type for an error message, with a glimpse of the value."""
    if raw is None:
        return "null"
    kind = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return f"{kind.get(type(raw), type(raw).__name__)} ({str(raw)[:40]})"


def overlap_f1(a: Sequence[tuple[int, int]], b: Sequence[tuple[int, int]]) -> float:
    """Return the soft F1 of two sets of character ranges: each range counts by its best overlap.

    After the soft-cardinality matching used for opinion expressions (Johansson and Moschitti 2010): the
    precision of a is the mean covered share of its ranges, recall the same for b.
    """
    if not a or not b:
        return float(not a and not b)
    precision = sum(_best_cover(span, b) for span in a) / len(a)
    recall = sum(_best_cover(span, a) for span in b) / len(b)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _best_cover(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> float:
    start, end = span
    best = max((min(end, e) - max(start, s) for s, e in others), default=0)
    return max(best, 0) / max(end - start, 1)


def safe_agreement(schema: LabelSchema, suggested: Value, value: Value) -> float | None:
    """Return the agreement, or None where the suggestion was made under another kind of schema."""
    try:
        return schema.agreement(suggested, value)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
