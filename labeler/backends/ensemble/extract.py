"""What is learned of approved texts and keywords: which pieces of a text they are, and whether to suggest any at all.

Ridge regression tells for each piece how far it would agree with the part as a reviewer writes it; a piece goes to one
part only. Strength and threshold are those with which records that were left out agree best by the task's own measure.
Where these agree no better than a blank form, or cost more corrections in characters, nothing is suggested.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler.backends.ensemble.pieces import Embed, Pieces, Span, clauses, runs
from labeler.labels import CLAUSES, PHRASES, WHOLE, LabelSchema
from labeler.records import Value
from labeler.text import edit_distance

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]
    Choose = Callable[[str, Sequence[Span], Array], dict[str, Value]]

_FOLDS = 8
_STRENGTHS = (0.1, 0.3, 1.0, 3.0)
# How many standard errors the mean gain has to be above 0: 5 % by chance, shared by the twenty ways that are compared.
_SURE = 2.8
_TEXT_LEASTS, _PHRASE_LEASTS = (0.0, 0.05, 0.1, 0.2, 0.3), (0.15, 0.2, 0.25, 0.3, 0.4)
# A piece under a part that was left empty is as bad as one is good that agrees so far.
_TOO_MUCH = 0.3


@dataclass(frozen=True, slots=True)
class Model:
    """How far a piece agrees with each part: ``weights @ features + offset``; pieces above ``least`` are suggested,
    of keywords at most as many as an approved record has.

    ``kind`` is that of the parts' schema. ``weights`` is float32 (parts, d). ``agreement`` is that of left-out records
    and ``blank`` that of an empty form, ``typed`` and ``typed_blank`` are the characters to correct in each: means of
    ``compared`` records. One that is not ``used`` suggests nothing.
    """

    kind: str
    parts: tuple[str, ...]
    weights: Array
    offset: Array
    most: int
    least: float = 0.0
    used: bool = False
    compared: int = 0
    agreement: float = 0.0
    blank: float = 0.0
    typed: float = 0.0
    typed_blank: float = 0.0


@dataclass(frozen=True, slots=True)
class _Case:
    """An approved record: its pieces, how far each agrees with each part (pieces, parts), and the approved value."""

    text: str
    pieces: Pieces
    aims: Array
    value: Mapping[str, Value]


def extracted(schema: LabelSchema) -> bool:
    """Whether values of this schema are cut out of the text, all parts of them."""
    return all(part.cuts for part in schema.split().values())


def learn(schema: LabelSchema, approved: Sequence[tuple[str, Value]], embed: Embed) -> list[Model]:
    """Learn from texts with their canonical values, near-duplicates once: one model for each kind of parts."""
    kinds: dict[str, dict[str, LabelSchema]] = {}
    for name, part in schema.split().items():
        kinds.setdefault(part.kind, {})[name] = part
    full = [(text, schema.spread(value)) for text, value in approved]
    return [_learned(kind, parts, full, embed) for kind, parts in kinds.items()]


def cut_out(schema: LabelSchema, models: Sequence[Model], text: str, embed: Embed) -> dict[str, Value]:
    """Return what the models that are used cut out of a text, by part; parts of which nothing is said are missing."""
    found: dict[str, Value] = {}
    for model in models:
        if model.used:
            parts = {name: part for name, part in schema.split().items() if name in model.parts}
            pieces = _cut(parts)(text, embed)
            scores = pieces.features @ model.weights.T + model.offset
            found |= _chooser(parts, model.most)(text, pieces.spans, scores - model.least)
    return found


def _cut(parts: Mapping[str, LabelSchema]) -> Callable[[str, Embed], Pieces]:
    return runs if _are_phrases(parts) else clauses


def _learned(
    kind: str, parts: Mapping[str, LabelSchema], approved: Sequence[tuple[str, Mapping[str, Value]]],
    embed: Embed,
) -> Model:  # fmt: skip
    cases = []
    for text, value in approved:
        pieces = _cut(parts)(text, embed)
        aims = [_aims(part, text, pieces.spans, value[name]) for name, part in parts.items()]
        cases.append(_Case(text, pieces, np.stack(aims, axis=1), {name: value[name] for name in parts}))
    most = max((len(v) for c in cases for v in c.value.values()), default=0) if _are_phrases(parts) else 0
    best = _Compared(parts, cases, most).best() if len(cases) >= _FOLDS else None
    strength, least, told = best if best is not None else (_STRENGTHS[0], 0.0, {})
    weights, offset = next(_ridge(_sums(cases), [strength]))
    return Model(kind, tuple(parts), weights, offset, most, least, best is not None, len(cases), **told)


def _aims(part: LabelSchema, text: str, spans: Sequence[Span], value: Value) -> Array:
    """Return how far each piece agrees with one part of an approved value: float (pieces,)."""
    if part.cuts == CLAUSES:
        return np.array([part.agreement(text[a:b], value) if value else -_TOO_MUCH for a, b in spans], dtype="f4")
    wanted = [(keyword["start"], keyword["end"]) for keyword in value]
    return np.array([max((_overlap(span, one) for one in wanted), default=0.0) ** 2 for span in spans], dtype="f4")


def _overlap(a: Span, b: Span) -> float:
    return 2 * max(0, min(a[1], b[1]) - max(a[0], b[0])) / (a[1] - a[0] + b[1] - b[0])


class _Compared:
    """Strengths and thresholds compared on records that were left out, an eighth of them at a time."""

    def __init__(self, parts: Mapping[str, LabelSchema], cases: Sequence[_Case], most: int) -> None:
        self.parts, self.cases, self.most = parts, cases, most
        self._known: dict[tuple[int, str], tuple[float, int]] = {}
        self.blank = np.array([self._judged(n, {}) for n in range(len(cases))])

    def best(self) -> tuple[float, float, dict[str, float]] | None:
        """Return strength, threshold and what they reach; None where nothing is surely better than a blank form."""
        found = []
        for strength, scores in zip(_STRENGTHS, self._left_out(), strict=True):
            for least in _leasts(self.parts):
                reached = self._reached(scores, least)
                gained = reached[:, 0] - self.blank[:, 0]
                surely = gained.mean() - _SURE * gained.std() / len(gained) ** 0.5
                agreement, typed = reached.mean(axis=0)
                blank, typed_blank = self.blank.mean(axis=0)
                if surely > 0 and typed <= typed_blank:
                    told = {"agreement": agreement, "blank": blank, "typed": typed, "typed_blank": typed_blank}
                    found.append((strength, least, {name: float(number) for name, number in told.items()}))
        return max(found, key=lambda one: one[2]["agreement"], default=None)

    def _reached(self, scores: Sequence[Array], least: float) -> Array:
        choose = _chooser(self.parts, self.most)
        answers = (choose(c.text, c.pieces.spans, s - least) for c, s in zip(self.cases, scores, strict=True))
        return np.array([self._judged(n, answer) for n, answer in enumerate(answers)])

    def _judged(self, n: int, answer: Mapping[str, Value]) -> tuple[float, int]:
        """Return how far an answer agrees with what was approved, and how many characters are to be corrected."""
        key = (n, repr(answer))
        if key not in self._known:
            self._known[key] = judged(self.parts, answer, self.cases[n].value)
        return self._known[key]

    def _left_out(self) -> list[list[Array]]:
        """Return the scores of each record's pieces by each strength, as a fit that has not seen it says them."""
        folds = [self.cases[n::_FOLDS] for n in range(_FOLDS)]
        sums = [_sums(fold) for fold in folds]
        totals = [sum(parts) for parts in zip(*sums, strict=True)]
        found: list[list[Array]] = [[] for _ in _STRENGTHS]
        places: list[int] = []
        for n, fold in enumerate(folds):
            places += range(n, len(self.cases), _FOLDS)
            rest = [whole - mine for whole, mine in zip(totals, sums[n], strict=True)]
            for scores, (weights, offset) in zip(found, _ridge(rest, _STRENGTHS), strict=True):
                scores += [case.pieces.features @ weights.T + offset for case in fold]
        order = sorted(range(len(places)), key=places.__getitem__)
        return [[scores[n] for n in order] for scores in found]


def judged(
    parts: Mapping[str, LabelSchema], answer: Mapping[str, Value], value: Mapping[str, Value]
) -> tuple[float, int]:
    """Return how far two values agree by the task's own measure, and the characters that have to be corrected."""
    if set(parts) == {WHOLE}:
        names = [WHOLE]
    else:
        names = [name for name, part in parts.items() if name in answer or not part.says_nothing(value[name])]
    agreements = [_agreement(parts[name], answer.get(name, parts[name].empty()), value[name]) for name in names]
    typed = sum(corrections(parts[name], answer.get(name), value[name]) for name in names)
    return (sum(agreements) / len(names) if names else 1.0), typed


def _agreement(schema: LabelSchema, given: Value | None, value: Value) -> float:
    # A part that may not be empty has no value of a blank form.
    return 0.0 if given is None else schema.agreement(given, value)


def corrections(schema: LabelSchema, given: Value | None, value: Value) -> int:
    """Return how many characters have to be typed, deleted or replaced to make one value of another."""
    before, after = ("" if one is None else schema.render(one, "") for one in (given, value))
    return edit_distance(before, after)


def _sums(cases: Sequence[_Case]) -> tuple[Array, Array, Array, Array, Any]:
    """Return what ridge regression needs of some records, to be added up; each record counts once in all."""
    width, parts = cases[0].pieces.features.shape[1] if cases else 0, cases[0].aims.shape[1] if cases else 0
    square, along = np.zeros((width, width)), np.zeros((width, parts))
    features, aims, count = np.zeros(width), np.zeros(parts), 0.0
    for case in cases:
        size = len(case.pieces.spans)
        if size:
            each = case.pieces.features
            square += each.T @ each / size
            along += each.T @ case.aims / size
            features += each.mean(axis=0)
            aims += case.aims.mean(axis=0)
            count += 1.0
    return square, along, features, aims, count


def _ridge(sums: Sequence[Any], strengths: Sequence[float]) -> Iterator[tuple[Array, Array]]:
    """Return weights (parts, d) and offset (parts,) of ridge regression by each strength."""
    square, along, features, aims, count = sums
    middle, mean = features / max(count, 1.0), aims / max(count, 1.0)
    spread, axes = np.linalg.eigh(square - count * np.outer(middle, middle))
    turned = axes.T @ (along - count * np.outer(middle, mean))
    for strength in strengths:
        weights = axes @ (turned / (np.maximum(spread, 0) + strength)[:, None])
        yield weights.T.astype("f4"), (mean - middle @ weights).astype("f4")


def _leasts(parts: Mapping[str, LabelSchema]) -> Sequence[float]:
    return _PHRASE_LEASTS if _are_phrases(parts) else _TEXT_LEASTS


def _chooser(parts: Mapping[str, LabelSchema], most: int) -> Choose:
    """Return what makes values by part of the pieces of a text and their scores (pieces, parts), if above 0."""
    return partial(_phrases, parts, most) if _are_phrases(parts) else partial(_sentences, parts)


def _are_phrases(parts: Mapping[str, LabelSchema]) -> bool:
    return any(part.cuts == PHRASES for part in parts.values())


def _sentences(parts: Mapping[str, Any], text: str, spans: Sequence[Span], scores: Array) -> dict[str, Value]:
    """Return the best clauses of each part, as many as its schema takes; none stands under two parts."""
    names, taken = list(parts), set[int]()
    chosen: dict[str, list[Span]] = {}
    for place in (-scores).argsort(axis=None, kind="stable").tolist():
        n, part = divmod(place, len(names))
        if scores[n, part] <= 0:
            break
        schema, mine = parts[names[part]], chosen.get(names[part], [])
        length = sum(b - a + 1 for a, b in [*mine, spans[n]]) - 1
        if n not in taken and len(mine) < schema.sentences and length <= schema.maximum:
            taken.add(n)
            chosen[names[part]] = [*mine, spans[n]]
    found = {name: " ".join(text[a:b] for a, b in sorted(mine)) for name, mine in chosen.items()}
    return {name: words for name, words in found.items() if len(words) >= parts[name].minimum}


def _phrases(parts: Mapping[str, Any], most: int, text: str, spans: Sequence[Span], scores: Array) -> dict[str, Value]:
    """Return for each part the runs that do not overlap and have the highest sum of scores."""
    found = {}
    for n, (name, schema) in enumerate(parts.items()):
        best = _apart(spans, scores[:, n].tolist(), schema.longest)
        ranked = sorted(best, reverse=True)[: min(most, schema.maximum)]
        value = [{"text": text[a:b], "start": a, "end": b} for a, b in sorted(span for _, span in ranked)]
        if value:
            found[name] = value
    return found


def _apart(spans: Sequence[Span], scores: Sequence[float], longest: int) -> list[tuple[float, Span]]:
    """Return the spans with a score above 0 that do not overlap and whose scores sum highest (Kleinberg 2005, 6.1)."""
    good = sorted((b, a, score) for (a, b), score in zip(spans, scores, strict=True) if score > 0 and b - a <= longest)
    ends: list[int] = [-1]
    best: list[tuple[float, tuple[Any, ...] | None]] = [(0.0, None)]
    for end, start, score in good:
        before = bisect_right(ends, start) - 1
        with_it = (best[before][0] + score, ((score, (start, end)), best[before][1]))
        ends.append(end)
        best.append(max(best[-1], with_it, key=lambda one: one[0]))
    chain, found = best[-1][1], []
    while chain is not None:
        found.append(chain[0])
        chain = chain[1]
    return found
