"""Choice: exactly one of the labels. Choices: a set of labels, flat or a tree of two levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labeler.errors import LabelError, SettingError
from labeler.labels.base import (
    EMPTY,
    NO_LABEL,
    Label,
    LabelSchema,
    Vote,
    describe_type,
    held_by_most,
    known_label,
    or_left_out,
    several,
    single,
    unique_labels,
    weigh,
)
from labeler.records import Value

_LEAST_SHARE = 0.2


class Choice(LabelSchema):
    """One of the labels. Canonical value: the name of the label.

    With ``optional`` the label may be left out. Such a schema has no closed list: models write its values and
    neighbours vote, but nothing scores the labels, as no score would stand for none of them.

    >>> from labeler import Choice, Label
    >>> mood = Choice(Label("good"), Label("bad"))
    >>> mood.parse("good")
    'good'
    >>> mood.parse("Good")
    Traceback (most recent call last):
    labeler.errors.LabelError: 'Good' is not the label 'good': it differs in case or white space
    >>> mood.vote([("good", 2.0), ("bad", 1.0), ("good", 1.0)])
    ('good', 0.75)
    """

    kind = "choice"
    bare = True
    widget = "choice"

    def __init__(self, *labels: Label, optional: bool = False) -> None:
        self.labels, self.retired = unique_labels(labels)
        self.optional, self.one_of_labels = optional, not optional
        self._names = {label.name: label for label in self.labels}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def json_schema(self) -> dict[str, Any]:
        return or_left_out(self, {"type": "string", "enum": list(self._names)})

    def parse(self, raw: object, text: str | None = None) -> str:
        return EMPTY if self.is_left_out(raw) else known_label(raw, self._names)

    def strata(self, value: Value) -> tuple[str, ...]:
        return (value or NO_LABEL,)

    def agreement(self, a: Value, b: Value) -> float:
        """Nominal: equal or not."""
        return float(a == b)

    def vote(self, votes: Sequence[Vote]) -> tuple[str, float] | None:
        """The label with the largest summed weight; ties go to the one named first in the schema."""
        known = [*self._names, EMPTY] if self.optional else [*self._names]
        weights = weigh([(value, weight) for value, weight in votes if value in known])
        total = sum(weights.values())
        if total <= 0:
            return None
        best = max(known, key=lambda name: weights.get(name, 0.0))
        return best, weights[best] / total

    def candidates(self) -> dict[str, Value]:
        return {} if self.optional else {name: name for name in self._names}

    def decide(self, scores: Mapping[str, float], size: float | None = None) -> str | None:
        """The label with the highest score; ties go to the one named first in the schema."""
        known = [name for name in self._names if name in scores]
        return max(known, key=scores.__getitem__) if known else None

    def beside(self, scores: Mapping[str, float]) -> dict[str, float]:
        return {name: scores[name] for name in self._names if name in scores}

    def render(self, value: Value, language: str) -> str:
        return self.label(value).titled(language) if value != EMPTY else ""

    def color(self, value: Value) -> str:
        return self.label(value).color if isinstance(value, str) and value != EMPTY else ""

    def read_cell(self, cell: object) -> object:
        """A name or a title."""
        return self.name_in(single(cell))

    def with_labels(self, labels: Sequence[Label]) -> Choice:
        return Choice(*labels, optional=self.optional)


class Pairwise(Choice):
    """Which of two parts of the record is the better one, or a tie. Canonical value: the title of the part, or "tie".

    ``first`` and ``second`` are called as the two parts of the record that stand side by side at the desk.

    >>> from labeler import Label, Pairwise
    >>> Pairwise(Label("answer A"), Label("answer B")).names
    ('answer A', 'answer B', 'tie')
    """

    kind = "pairwise"

    def __init__(self, first: Label, second: Label, tie: Label | None = None) -> None:
        super().__init__(first, second, tie or Label("tie", {"ko": "비슷함", "en": "Tie"}))
        if len(self.labels) < 3:
            raise SettingError("Two texts are compared by three labels, none of them retired")
        self.sides = (first.name, second.name)

    def with_labels(self, labels: Sequence[Label]) -> Choice:
        """The titles and definitions may be others; what is compared may not. Raises :class:`SettingError`."""
        by_name = {label.name: label for label in labels if not label.retired}
        if len(labels) != len(self.labels) or by_name.keys() != self._names.keys():
            raise SettingError(
                "A comparison has the labels %(names)s; only their titles may be changed", names=", ".join(self._names)
            )
        return Pairwise(*(by_name[name] for name in self._names))


class Choices(LabelSchema):
    """A set of labels. Canonical value: a list of names in the order of the schema.

    In a tree a label with ``parent`` is a subcategory; only the leaves are values, and a parent is a
    heading. ``minimum`` and ``maximum`` bound how many. ``exclusive`` names a label that stands alone ("none").

    >>> from labeler import Choices, Label
    >>> topics = Choices(Label("food"), Label("taste", parent="food"), Label("price"))
    >>> topics.parse(["price", "taste"])
    ['taste', 'price']
    >>> topics.parse(["food"])
    Traceback (most recent call last):
    labeler.errors.LabelError: 'food' is a heading; choose one of its subcategories
    >>> topics.agreement(["taste"], []), topics.agreement(["taste"], ["taste"])
    (0.0, 1.0)
    """

    kind = "choices"
    bare = True
    widget = "choices"
    set_of_labels = True

    def __init__(
        self, *labels: Label, minimum: int = 0, maximum: int | None = None, exclusive: str | None = None
    ) -> None:
        self.labels, self.retired = unique_labels(labels)
        known = (*self.labels, *self.retired)
        names = {label.name for label in known}
        self.parents: dict[str, Label] = {}
        # A heading stays one when all of its subcategories are retired: it is no label to choose.
        for label in known:
            if label.parent is not None:
                if label.parent not in names:
                    raise SettingError(
                        "The label %(name)r has an unknown parent %(parent)r", name=label.name, parent=label.parent
                    )
                self.parents[label.parent] = self.label(label.parent)
        self._leaves = {label.name: n for n, label in enumerate(self.labels) if label.name not in self.parents}
        if not self._leaves:
            raise SettingError("A label schema needs at least one label")
        for label in known:
            if label.name in self.parents and label.parent is not None:
                raise SettingError("The label %(name)r makes a third level; a tree has two", name=label.name)
        if exclusive is not None and exclusive not in self._leaves:
            raise SettingError("The exclusive label %(name)r is not in the label schema", name=exclusive)
        if maximum is not None and maximum < max(minimum, 1):
            raise SettingError(f"At most {maximum} labels and at least {minimum} cannot both hold")
        self.minimum, self.maximum, self.exclusive = minimum, maximum, exclusive

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._leaves)

    @property
    def sizes(self) -> tuple[int, int | None]:
        return self.minimum, self.maximum

    @property
    def leaves(self) -> tuple[Label, ...]:
        """The labels that can be chosen, in order."""
        return tuple(label for label in self.labels if label.name in self._leaves)

    def groups(self) -> list[tuple[Label | None, list[Label]]]:
        """Return the leaves under their parents, for forms: (None, ...) holds those without one."""
        found: dict[str | None, list[Label]] = {}
        for label in self.leaves:
            found.setdefault(label.parent, []).append(label)
        return [(self.parents[name] if name else None, labels) for name, labels in found.items()]

    def json_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "array", "items": {"type": "string", "enum": list(self._leaves)}}
        if self.minimum:
            schema["minItems"] = self.minimum
        if self.maximum is not None:
            schema["maxItems"] = self.maximum
        return schema | {"uniqueItems": True}

    def parse(self, raw: object, text: str | None = None) -> list[str]:
        if not isinstance(raw, (list, tuple)):
            raise LabelError("Expected a list of labels, got %(got)s", "type", got=describe_type(raw))
        chosen: set[str] = set()
        for item in raw:
            if isinstance(item, str) and item in self.parents:
                raise LabelError("%(name)r is a heading; choose one of its subcategories", "heading", name=item)
            chosen.add(known_label(item, self._leaves))
        if len(chosen) < self.minimum:
            raise LabelError(
                "At least %(n)s label(s) must be chosen, got %(got)s", "count", n=self.minimum, got=len(chosen)
            )
        if self.maximum is not None and len(chosen) > self.maximum:
            raise LabelError(
                "At most %(n)s label(s) may be chosen, got %(got)s", "count", n=self.maximum, got=len(chosen)
            )
        if self.exclusive in chosen and len(chosen) > 1:
            raise LabelError("%(name)r cannot be chosen together with other labels", "exclusive", name=self.exclusive)
        return sorted(chosen, key=self._leaves.__getitem__)

    def strata(self, value: Value) -> tuple[str, ...]:
        return tuple(value) or (NO_LABEL,)

    def agreement(self, a: Value, b: Value) -> float:
        """MASI (Passonneau 2006): Jaccard, times 1, 2/3, 1/3 or 0 for equal, nested, crossing or disjoint sets."""
        left, right = set(a), set(b)
        if left == right:
            return 1.0
        shared = left & right
        if not shared:
            return 0.0
        monotonicity = 2 / 3 if left <= right or right <= left else 1 / 3
        return monotonicity * len(shared) / len(left | right)

    def vote(self, votes: Sequence[Vote]) -> tuple[list[str], float] | None:
        """As many labels as the values have on average, heaviest first, that a fifth of the weight holds.

        Sets that overlap little (29 categories, 44 emotions) seldom give a label half of the weight: a majority
        for each label would leave them empty. Where too few remain, the heaviest fill up to ``minimum``. The
        score is the mean share of the weight that holds a label chosen, or that holds no label where none is:
        that many others were not voted for makes no set likelier.
        """
        total = sum(weight for _, weight in votes)
        if total <= 0:
            return None
        weights = weigh([(name, w) for value, w in votes if w > 0 for name in value if name in self._leaves])
        ranked = sorted(weights, key=lambda name: (-weights[name], self._leaves[name]))
        size = round(sum(weights.values()) / total)
        chosen = [name for name in ranked[:size] if weights[name] >= _LEAST_SHARE * total]
        if self.exclusive in chosen:
            chosen = [self.exclusive] if ranked[0] == self.exclusive else [n for n in chosen if n != self.exclusive]
        if len(chosen) < self.minimum:
            chosen = [name for name in ranked if name != self.exclusive or self.minimum == 1][: self.minimum]
        if self.maximum is not None:
            chosen = chosen[: self.maximum]
        if len(chosen) < self.minimum:
            return None
        shares = [min(weights[name] / total, 1.0) for name in chosen]
        none = sum(weight for value, weight in votes if not value) / total
        return sorted(chosen, key=self._leaves.__getitem__), sum(shares) / len(shares) if shares else none

    def majority(self, values: Sequence[Value]) -> Value | None:
        """The labels that more than half of the sets hold."""
        return held_by_most(self, values)

    def candidates(self) -> dict[str, Value]:
        return {name: [name] for name in self._leaves}

    def decide(self, scores: Mapping[str, float], size: float | None = None) -> list[str] | None:
        """The labels with the highest scores, ``size`` of them (rounded) or all from 0.5 on, within the bounds."""
        ranked = sorted((name for name in self._leaves if name in scores), key=lambda name: -scores[name])
        if not ranked:
            return None
        count = sum(scores[name] >= 0.5 for name in ranked) if size is None else round(size)
        count = max(count, self.minimum)
        chosen = ranked[: count if self.maximum is None else min(count, self.maximum)]
        if self.exclusive in chosen and len(chosen) > 1:
            alone = chosen[0] == self.exclusive and self.minimum <= 1
            others = [name for name in ranked if name != self.exclusive]
            chosen = chosen[:1] if alone else others[: len(chosen)]
        return sorted(chosen, key=self._leaves.__getitem__)

    def render(self, value: Value, language: str) -> str:
        return ", ".join(self._titled(name, language) for name in value)

    def _titled(self, name: str, language: str) -> str:
        label = self.label(name)
        above = self.label(label.parent).titled(language) + " > " if label.parent else ""
        return above + label.titled(language)

    def describe(self, language: str) -> str:
        if not self.parents:
            return super().describe(language)
        lines = []
        for parent, labels in self.groups():
            if parent is not None:
                lines.append(f"[{parent.titled(language)}]")
            for label in labels:
                definition = label.defined(language)
                lines.append(f"- {label.name}: {label.titled(language)}" + (f". {definition}" if definition else ""))
        return "\n".join(lines)

    def empty(self) -> Value | None:
        return [] if self.minimum == 0 else None

    def color(self, value: Value) -> str:
        first = next(iter(value), None) if isinstance(value, list) else None
        return self.label(first).color if isinstance(first, str) else ""

    def read_cell(self, cell: object) -> object:
        """Names or titles, with ``;`` or ``|`` between."""
        found = several(cell) if isinstance(cell, str) else cell
        return [self.name_in(item) for item in (found if isinstance(found, list) else [found])]

    def with_labels(self, labels: Sequence[Label]) -> Choices:
        return self.relabelled(labels, lambda name: name)

    def relabelled(self, labels: Sequence[Label], renamed: Callable[[str], str]) -> Choices:
        alone = None if self.exclusive is None else renamed(self.exclusive)
        alone = alone if any(label.name == alone and not label.retired for label in labels) else None
        return Choices(*labels, minimum=self.minimum, maximum=self.maximum, exclusive=alone)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"minimum": self.minimum, "maximum": self.maximum, "exclusive": self.exclusive}
