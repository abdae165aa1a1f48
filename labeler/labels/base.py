"""What every label schema can do: the heart from which prompt, parser, form, statistics and export derive."""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from labeler.errors import LabelError, SettingError
from labeler.records import Value
from labeler.sentence import N_, Sentence

Vote = tuple[Value, float]
"""A value and the weight (at least 0) that speaks for it."""
EMPTY = ""
"""The canonical value of a schema that is ``optional``, where nothing was given."""
NO_LABEL = "∅"
"""The stratum of an empty value."""
WHOLE = ""
"""The name of the only part of a schema that has no parts."""
MANY = 24
"""How many neighbours are seen where phrases are extracted rather than voted on."""
CLAUSES, PHRASES = "clauses", "phrases"
"""The pieces of a text that a value may be made of: see :attr:`LabelSchema.cuts`."""

# No red and no green: on the desks of a product they say bad and good.
_COLORS = ("#1565c0", "#b26a00", "#6a1b9a", "#00838f", "#757575", "#a0298f", "#546e7a", "#3949ab", "#827717", "#0288d1")


@dataclass(frozen=True, slots=True)
class Label:
    """One value of a label schema.

    ``name`` is what is stored and exported; ``title`` and ``definition`` map a language ("ko", "en") to text
    for people and prompts. In a tree, ``parent`` is the name of the category above. A ``retired`` label is offered to
    nobody any more; records that have it keep it.

    >>> from labeler import Label
    >>> taste = Label("taste", {"ko": "맛", "en": "Taste"}, {"en": "How it tastes."})
    >>> taste.titled("ko"), taste.titled("fr"), taste.defined("ko")
    ('맛', 'taste', 'How it tastes.')
    """

    name: str
    title: Mapping[str, str] = field(default_factory=dict)
    definition: Mapping[str, str] = field(default_factory=dict)
    color: str = ""
    parent: str | None = None
    retired: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise SettingError("A label needs a name: %(value)s", value=str(self.name)[:80])
        for key in ("title", "definition"):
            if not maps_texts(getattr(self, key)):
                raise SettingError("The %(key)s of label %(name)r must map languages to texts", key=key, name=self.name)
        if not isinstance(self.color, str) or not isinstance(self.parent, str | None):
            raise SettingError("The color and the parent of label %(name)r must be texts", name=self.name)

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
            raise SettingError("A label needs a name: %(value)s", value=str(raw)[:80])
        color, parent, retired = raw.get("color") or "", raw.get("parent") or None, raw.get("retired") is True
        return cls(raw["name"].strip(), raw.get("title", {}), raw.get("definition", {}), color, parent, retired)


def maps_texts(given: object) -> bool:
    """Return whether something maps languages to texts, as titles, definitions and guidelines do."""
    return isinstance(given, Mapping) and all(isinstance(part, str) for pair in given.items() for part in pair)


class LabelSchema(ABC):
    """Describes the value that a task gives to a record; everything else derives from it.

    Canonical values are plain JSON values: what ``parse`` returns is equal to itself after a round trip
    through JSON, and ``parse(parse(x)) == parse(x)``. No other module asks for a kind: what it needs to know of one
    is an attribute or a method here, whose default suits a kind that nobody has thought of yet.
    """

    kind: ClassVar[str]
    widget: ClassVar[str]
    """The name of its form: of a template and a script, see docs/plugins.md."""
    labels: tuple[Label, ...] = ()
    retired: tuple[Label, ...] = ()
    """Labels that are not offered any more, and that records may still have: see :attr:`past`."""
    optional: bool = False
    """Whether the value may be left out (:data:`EMPTY`), for kinds that have no empty value of their own."""
    one_of_labels: bool = False
    """Whether each value is the name of one label of a closed list: classifiers, confusion, kappa."""
    set_of_labels: bool = False
    """Whether each value is a list of names of a closed list: classifiers."""
    cuts: str = ""
    """Of which pieces of the text a value is made, so that it can be learned what to cut out; empty for none."""
    bare: ClassVar[bool] = False
    """Whether an answer may be a bare text instead of JSON."""
    marks: ClassVar[bool] = False
    """Whether a value is a list of stretches of the text, each with ``start`` and ``end``."""
    free_text: bool = False
    """Whether a value is a text: brackets in a cell are part of it."""
    sides: tuple[str, ...] = ()
    """The parts of a record that stand side by side at the desk, by their titles."""
    neighbours: int = 8
    """How many neighbours the free backends see."""

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

    def disagreement(self, a: Value, b: Value) -> float:
        """Return how far two canonical values are from agreeing: at least 0, symmetric, 0 for equal ones.

        Krippendorff's alpha and the kappas weigh by it. Only the ratio of two such numbers counts, so any unit will do.
        """
        return 1.0 - self.agreement(a, b)

    @abstractmethod
    def render(self, value: Value, language: str) -> str:
        """Return the value as one text for people, in ``language``."""

    def answer(self, value: Value) -> Any:
        """Return the value as a backend is asked to give it: ``parse(answer(value), text) == value``."""
        return value

    def vote(self, votes: Sequence[Vote]) -> tuple[Value, float] | None:
        """Return the weighted winner and its share of the weight in [0, 1]; None if this schema cannot vote."""
        return None

    def majority(self, values: Sequence[Value]) -> Value | None:
        """Return what more than half of some canonical values say; None where there is no such value."""
        found = most_voted([(value, 1.0) for value in values])
        return found[0] if found and found[1] > 0.5 else None

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

    def chosen(self, value: Value) -> tuple[str, ...]:
        """Return the names of the :meth:`candidates` that a value is or holds."""
        known = self.candidates()
        return tuple(name for name in self.strata(value) if name in known)

    def beside(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return the scores that stand beside the choices of the form, by label; empty where the form has no place."""
        return {}

    def extract(self, votes: Sequence[Vote], text: str) -> Value | None:
        """Return what neighbours say of a text: their vote, or what of theirs stands in the text too; None for nothing.

        The values that speak are canonical, and so is what comes out.
        """
        voted = self.vote(votes)
        return None if voted is None else voted[0]

    def distance(self, a: Value, b: Value) -> float | None:
        """Return how far apart two canonical values are, in their own unit; None where there is no such number."""
        return None

    def color(self, value: Value) -> str:
        """Return the colour of the (first) label of a value, of today's or older labels; empty if there is none."""
        return ""

    def read_cell(self, cell: object) -> object:
        """Return what a cell of a file says in the form that :meth:`parse` takes, by the habits of tables.

        ``cell`` is a text without white space around, or what JSON or a spreadsheet holds. What is not a habit is
        returned as it is, for :meth:`parse` to refuse.
        """
        return cell

    def plain(self, value: Value) -> str | None:
        """Return a value as a bare text that :meth:`read_cell` and :meth:`parse` read back; None if it has none."""
        answer = self.answer(value)
        text = "; ".join(answer) if isinstance(answer, list) else str(answer)
        try:
            same = bool(text) and self.parse(self.read_cell(text)) == value
        except LabelError:
            same = False
        return text if same else None

    @property
    def reads_blank(self) -> bool:
        """Whether an empty text is to be parsed as a value, rather than taken for a missing one."""
        return self.empty() == EMPTY

    def split(self) -> Mapping[str, LabelSchema]:
        """Return the parts with a schema of their own, by name; a schema without parts is its own, :data:`WHOLE`."""
        return {WHOLE: self}

    def spread(self, value: Value) -> dict[str, Value]:
        """Return a value by the parts of :meth:`split`, the empty ones filled in."""
        return {WHOLE: value}

    def together(self, parts: Mapping[str, Value]) -> Value | None:
        """Return the value of some parts of :meth:`split`; None where one is missing that may not be."""
        return parts.get(WHOLE, self.empty())

    @property
    def widgets(self) -> tuple[str, ...]:
        """The names of all widgets that the form needs."""
        return (self.widget,)

    def describe(self, language: str) -> str:
        """Return the labels and their definitions for a prompt, one a line; empty if there are none."""
        lines = []
        for label in self.labels:
            title = label.titled(language)
            shown = label.name if title == label.name else f"{label.name} ({title})"
            definition = label.defined(language)
            lines.append(f"- {shown}: {definition}" if definition else f"- {shown}")
        return "\n".join([*lines, *self.left_out_line(language)])

    def left_out_line(self, language: str) -> list[str]:
        """Return the line of :meth:`describe` that says how to leave an ``optional`` value out."""
        said = '- "": 본문에 없음' if language == "ko" else '- "": nothing of this in the text'
        return [said] if self.optional else []

    def empty(self) -> Value | None:
        """Return the value that says "nothing of this in the record", or None where there is no such value."""
        return EMPTY if self.optional else None

    def is_left_out(self, raw: object) -> bool:
        """Return whether ``raw`` says that an ``optional`` value was left out."""
        return self.optional and (raw is None or raw == EMPTY)

    def says_nothing(self, value: Value | None) -> bool:
        """Return whether a canonical value is the empty one: there is nothing of this in the record."""
        return value is not None and value == self.empty()

    def with_labels(self, labels: Sequence[Label]) -> LabelSchema:
        """Return a copy with other labels. Raises :class:`SettingError` for schemas that have none."""
        raise SettingError("A %(kind)s schema has no labels to change", kind=self.kind)

    def relabelled(self, labels: Sequence[Label], renamed: Callable[[str], str]) -> LabelSchema:
        """Return :meth:`with_labels` for labels that are called by other names now, as ``renamed`` says."""
        return self.with_labels(labels)

    @property
    def sizes(self) -> tuple[int, int | None]:
        """How many labels a value has at least and at most; None for no bound."""
        return 1, 1

    @property
    def leaves(self) -> tuple[Label, ...]:
        """The labels that can be chosen, in order."""
        return self.labels

    def to_json(self) -> dict[str, Any]:
        """Return a description of the schema for manifests and the JSON API."""
        found: dict[str, Any] = {"kind": self.kind}
        if self.labels:
            found["labels"] = [label.to_json() for label in (*self.labels, *self.retired)]
        return found | ({"optional": True} if self.optional else {})

    def label(self, name: str) -> Label:
        """Return the label called ``name``, or a bare one, so that old values can still be shown."""
        return self._by_name.get(name) or Label(name)

    def name_in(self, cell: object) -> object:
        """Return the name of a label for its exact title, and for a number as a spreadsheet writes it."""
        if isinstance(cell, int | float) and not isinstance(cell, bool):
            cell = str(cell)
        if not isinstance(cell, str) or cell in self._in_cells:
            return self._in_cells[cell] if isinstance(cell, str) else cell
        return self._in_cells.get(whole_number(cell) or "", cell)

    @cached_property
    def _in_cells(self) -> dict[str, str]:
        """The names of the labels by what a cell may call them."""
        names = {title: label.name for label in self.labels for title in label.title.values()}
        names |= {label.name: label.name for label in self.labels}
        return {unicodedata.normalize("NFC", known): name for known, name in names.items()}

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
            raise SettingError("The label %(name)r appears twice in the label schema", name=label.name)
        names.add(label.name)
        coloured.append(replace(label, color=label.color or _COLORS[position % len(_COLORS)]))
    offered, retired = ([one for one in coloured if one.retired is out] for out in (False, True))
    return tuple(offered), tuple(retired)


def known_label(raw: object, names: Mapping[str, Any] | Sequence[str]) -> str:
    """Return ``raw`` if it is exactly one of ``names``; else raise with the reason a person needs.

    Raises :class:`LabelError`.
    """
    if not isinstance(raw, str):
        raise LabelError("Expected the name of a label, got %(got)s", "type", got=describe_type(raw))
    if raw in names:
        return raw
    folded = [name for name in names if name.casefold() == raw.strip().casefold()]
    if folded:
        raise LabelError(
            "%(name)r is not the label %(label)r: it differs in case or white space",
            "case",
            name=raw[:80],
            label=folded[0],
        )
    listed = ", ".join(list(names)[:12]) + (", …" if len(names) > 12 else "")
    raise LabelError("%(name)r is not one of the labels: %(labels)s", "unknown_label", name=raw[:80], labels=listed)


_WHOLE_NUMBER = re.compile(r"(-?\d{1,9})(?:\.0+)?")


def whole_number(cell: str) -> str | None:
    """Return the digits of a whole number as spreadsheets write it: 4 and 4.0; None for any other text."""
    found = _WHOLE_NUMBER.fullmatch(cell)
    return found[1] if found else None


def single(cell: object) -> object:
    """Return the only entry of a list of one; anything else as it is."""
    return cell[0] if isinstance(cell, list) and len(cell) == 1 else cell


_SEPARATORS = re.compile(r"\s*[;|]\s*")


def several(cell: str) -> list[str]:
    """Return what a cell lists with ``;`` or ``|`` between."""
    return [part for part in _SEPARATORS.split(cell) if part]


def or_left_out(schema: LabelSchema, json_schema: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a value that may be left out where ``schema`` is optional."""
    return {"anyOf": [json_schema, {"type": "string", "enum": [EMPTY]}]} if schema.optional else json_schema


def most_voted(votes: Sequence[Vote]) -> Vote | None:
    """Return the value with the largest summed weight, of equal ones the first, and its share; None without weight."""
    total = sum(weight for _, weight in votes)
    if total <= 0:
        return None

    def weight_of(value: Value) -> float:
        return sum(weight for other, weight in votes if other == value)

    best = max((value for value, _ in votes), key=weight_of)
    return best, weight_of(best) / total


def held_by_most(schema: LabelSchema, values: Sequence[Value]) -> Value | None:
    """Return the list of what more than half of some lists hold, by which kinds of such lists have their majority.

    None where nothing is left though not most of the lists are empty, as that would say what few of them say, and where
    the schema refuses what is left.
    """
    parts = [part for value in values for part in value]
    found = [part for n, part in enumerate(parts) if part not in parts[:n] and parts.count(part) > len(values) / 2]
    if not found and sum(not value for value in values) <= len(values) / 2:
        return None
    try:
        return schema.parse(found)
    except LabelError:
        return None


def weigh(votes: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Sum the weights by name."""
    total: dict[str, float] = defaultdict(float)
    for name, weight in votes:
        total[name] += weight
    return dict(total)


def describe_type(raw: object) -> Sentence:
    """Name a JSON value's type for an error message, with a glimpse of the value."""
    if raw is None:
        return Sentence("null")
    number = N_("a number (%(value)s)")
    kinds = {
        bool: N_("a boolean (%(value)s)"), int: number, float: number, str: N_("a text (%(value)s)"),
        list: N_("a list (%(value)s)"), dict: N_("an object (%(value)s)"),
    }  # fmt: skip
    return Sentence(kinds.get(type(raw), f"{type(raw).__name__} (%(value)s)"), value=str(raw)[:40])


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
