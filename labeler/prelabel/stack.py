"""The stack: what a model says of a record, pooled with the free suggestion as far as approved records bear it out.

The model is one more member of the ensemble's pool: its opinion, in log odds, is added to that of the free suggestion,
each with a weight of its own, and with a bias for each label that takes away what a small model prefers whatever the
text says (:mod:`labeler.prelabel.calibration` has the sources). All of it is one small convex fit, drawn towards the
better of the two alone.

What has to be beaten in cross-validation is the free suggestion, which costs nothing. The stack is used if it tells
better by more than one standard error and agrees no less, the model alone if it agrees better than that by as much.

A written answer has no scores. It counts as a vote, with the confidence that its kind earned on the approved records.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler import strictjson
from labeler.backends.ensemble import pool
from labeler.backends.ensemble.backend import decided
from labeler.labels import LabelSchema
from labeler.records import Value

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

MODEL, FREE, TOGETHER = "model", "free", "together"
LEAST = 30
"""With fewer readable answers nothing is pooled: cross-validation could not check it."""
# Chances are taken for no less, and those of the free suggestion for no more: none is certain.
_FLOOR = 1e-4
_FOLDS, _REPEATS = 5, 5
# How firmly the two weights are drawn to the better member alone, in nats, and the standard deviation of a bias.
_FIRM, _BIAS_SPREAD = 5.0, 0.5
# A weight of the model, in standard deviations of its opinion, that is as good as none.
_NO_WEIGHT = 0.05
# Opinions that move less than this say the same of every text.
_NO_SPREAD = 1e-6
_SURE, _NO_DIFFERENCE = 1.96, 1e-9


def wilson(mean: float, n: int) -> tuple[float, float]:
    """Return where a mean of ``n`` numbers in [0, 1] lies with 95 %: for shares Wilson 1927, for others too wide."""
    middle, spread = mean + _SURE**2 / (2 * n), _SURE * math.sqrt(mean * (1 - mean) / n + _SURE**2 / (4 * n * n))
    return max(0.0, (middle - spread) / (1 + _SURE**2 / n)), min(1.0, (middle + spread) / (1 + _SURE**2 / n))


@dataclass(frozen=True, slots=True)
class Case:
    """An approved record: what was approved, what the model said of it, and what the free suggestion says unseen.

    ``value`` is None where the model's answer could not be read; ``scores`` are None where it only wrote one. ``free``
    are chances by label, of the labels that the free suggestion knows.
    """

    record_id: int
    gold: Value
    value: Value | None
    scores: Mapping[str, float] | None
    free_value: Value | None
    free: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Stack:
    """What came of a trial: whose suggestions are used, and the pool ``model * m + free * f + bias``, in nats.

    ``m`` are the logarithms of the model's scores, ``f`` the log odds of the free chances; a label that the free
    suggestion does not know has the chance ``rare``. ``trust`` is None where the model gave scores; else what a vote
    is worth: the chance of a label that it names, and of one of a set that it does not. ``size_odds`` and ``rule``:
    see :func:`pool.size_of`. ``judged`` has for each record how far model, free suggestion and both together agree
    with what was approved, in [0, 1]; both together on records that they were not fitted on.
    """

    use: str
    judged: Sequence[tuple[int, float, float, float]]
    labels: tuple[str, ...] = ()
    model: float = 0.0
    free: float = 1.0
    bias: tuple[float, ...] = ()
    trust: tuple[float, float] | None = None
    rare: float = _FLOOR
    size_odds: tuple[float, ...] = ()
    rule: str = pool.EXPECTED

    @property
    def means(self) -> tuple[float, float, float]:
        """How far model, free suggestion and both together agree on average."""
        model, free, both = (sum(row[place] for row in self.judged) / len(self.judged) for place in (1, 2, 3))
        return model, free, both

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the agreement of both together: Wilson's, which for sets is rather too wide."""
        return wilson(self.means[2], len(self.judged))

    @property
    def digest(self) -> str:
        """A name of how answers are pooled: of another pool it is another."""
        told = [self.use, self.labels, self.model, self.free, self.bias, self.trust]
        return hashlib.sha256(strictjson.dumps(told).encode()).hexdigest()[:16]

    def pooled(
        self, schema: LabelSchema, value: Value, scores: Mapping[str, float] | None, free: Mapping[str, float]
    ) -> tuple[Value, float] | None:
        """Return the value that an answer and the free chances come to, and its score; None if they cannot be pooled.

        A model that gave scores in its trial and gives none now cannot, nor can labels that were changed meanwhile.
        """
        if self.labels != schema.names or (self.trust is None and not scores):
            return None
        one = schema.one_of_labels
        said = _said(self.labels, value, scores, self.trust, one)
        odds = self.model * said + self.free * _free(self.labels, free, self.rare, one) + np.array(self.bias)
        chances = pool.doubted(pool.chances(odds, one), one)
        found, score = decided(schema, self.labels, chances, np.array(self.size_odds), self.rule)
        return None if found is None else (found, min(score, pool.MOST))

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Stack:
        """Read what :meth:`to_json` wrote."""
        lists = {name: tuple(raw[name]) for name in ("labels", "bias", "size_odds")}
        trust = raw["trust"] and (raw["trust"][0], raw["trust"][1])
        return cls(**{**raw, **lists, "judged": [tuple(row) for row in raw["judged"]], "trust": trust})


def fit(schema: LabelSchema, cases: Sequence[Case], rule: str, learned_from: int, seed: int = 0) -> Stack:
    """Fit the stack on approved records, each of a near-duplicate cluster of its own, and say whose answers to use.

    ``learned_from`` is how many examples the free suggestion knows. The same cases and seed give the same stack.
    """
    data = _Data.of(schema, cases, rule, learned_from)
    model, free = (np.array([_agreement(schema, v, c.gold) for v, c in zip(values, cases, strict=True)])
                   for values in ([c.value for c in cases], [c.free_value for c in cases]))  # fmt: skip
    if len(data.read) < LEAST:
        return Stack(MODEL if _better(model, free) else FREE, _judged(cases, model, free, np.maximum(model, free)))
    both, gain = np.zeros(len(cases)), np.zeros(len(data.read))
    for part in _folds(data, np.random.default_rng(seed)):
        agreement, won = data.tested(part)
        both[data.read[part]] += agreement / _REPEATS
        gain[part] += won / _REPEATS
    stack = data.stack(np.ones(len(data.read), dtype=bool))
    helps = _better(gain, np.zeros(len(gain))) and both.mean() >= free.mean() and data.weight(stack) > _NO_WEIGHT
    use = TOGETHER if helps else FREE
    use = MODEL if _better(model, both if helps else free) else use
    return replace(stack, use=use, judged=_judged(cases, model, free, both))


def _better(a: Array, b: Array) -> bool:
    """Whether ``a`` is larger than ``b`` by more than one standard error of their paired difference."""
    gain = a - b
    return float(gain.mean()) > float(np.std(gain, ddof=1)) / math.sqrt(len(gain)) + _NO_DIFFERENCE


def _judged(cases: Sequence[Case], *agreements: Array) -> list[tuple[int, float, float, float]]:
    rows = zip(cases, *(agreement.tolist() for agreement in agreements), strict=True)
    return [(case.record_id, round(a, 6), round(b, 6), round(c, 6)) for case, a, b, c in rows]


@dataclass(frozen=True, slots=True)
class _Data:
    """The cases that could be read, as arrays of n records by c labels; ``read`` (n,) are their places among all."""

    schema: LabelSchema
    cases: Sequence[Case]
    read: Array
    gold: Array
    free: Array
    scored: bool
    one: bool
    rule: str
    rare: float

    @classmethod
    def of(cls, schema: LabelSchema, cases: Sequence[Case], rule: str, learned_from: int) -> _Data:
        read = np.array([n for n, case in enumerate(cases) if case.value is not None], dtype=int)
        found, names, one = [cases[n] for n in read], schema.names, schema.one_of_labels
        # What the ensemble starts from for a label that was never approved.
        rare = 0.5 / (learned_from + 1)
        gold = np.array([[name in _names(case.gold) for name in names] for case in found], dtype=bool)
        free = np.array([_free(names, case.free, rare, one) for case in found])
        return cls(schema, found, read, gold, free, all(case.scores for case in found), one, rule, rare)

    def said(self, trust: tuple[float, float] | None) -> Array:
        names = self.schema.names
        return np.array([_said(names, case.value, None if trust else case.scores, trust, self.one)
                         for case in self.cases])  # fmt: skip

    def trust(self, rows: Array) -> tuple[float, float] | None:
        """Return what votes are worth on these records, by Laplace's rule; None where the model gives scores.

        Votes that are right less often than by chance say nothing: they are ignored, never turned around.
        """
        if self.scored:
            return None
        named = np.array([[name in _names(case.value) for name in self.schema.names] for case in self.cases])[rows]
        gold = self.gold[rows]
        hit, miss = ((gold[part].sum() + 1) / (part.sum() + 2) for part in (named, ~named))
        return max(float(hit), 1 / gold.shape[1] if self.one else float(miss)), float(miss)

    def tested(self, part: Array) -> tuple[Array, Array]:
        """Return how far a stack fitted on the others agrees on ``part``, and how much less it loses than the free one.

        The losses are logarithmic, in nats.
        """
        rest = np.ones(len(self.cases), dtype=bool)
        rest[part] = False
        stack, gold = self.stack(rest), self.gold[part]
        said = self.said(stack.trust)[part]
        odds = stack.model * said + stack.free * self.free[part] + np.array(stack.bias)
        won = pool.losses(self.free[part], gold, self.one) - pool.losses(odds, gold, self.one)
        chances, sizes = pool.chances(odds, self.one), np.array(stack.size_odds)
        values = [decided(self.schema, stack.labels, row, sizes, self.rule)[0] for row in chances]
        golds = [self.cases[n].gold for n in part]
        return np.array([_agreement(self.schema, v, g) for v, g in zip(values, golds, strict=True)]), won

    def weight(self, stack: Stack) -> float:
        """Return the weight of the model in standard deviations of its opinion."""
        return stack.model * _spread(self.said(stack.trust))[1]

    def stack(self, rows: Array) -> Stack:
        """Return the stack that these records speak for, by log loss, drawn towards the better member alone."""
        from scipy.optimize import minimize

        trust = self.trust(rows)
        said, free, gold, one = self.said(trust)[rows], self.free[rows], self.gold[rows], self.one
        mean, spread = _spread(said)
        scale = spread if spread > _NO_SPREAD else 1.0
        unit = (said - mean) / scale
        alone = pool.loss(said, gold, one) < pool.loss(free, gold, one)
        start = np.concatenate([[spread, 0.0], mean] if alone else [[0.0, 1.0], np.zeros(len(mean))])
        firm = np.array([2 * _FIRM] * 2 + [_BIAS_SPREAD**-2] * len(mean))

        def aim(at: Array) -> tuple[float, Array]:
            odds, away = at[0] * unit + at[1] * free + at[2:], at - start
            off = pool.chances(odds, one) - gold
            slope = np.concatenate([[(off * unit).sum(), (off * free).sum()], off.sum(axis=0)])
            return pool.loss(odds, gold, one) + float(firm @ away**2) / 2, slope + firm * away

        # A member that says the opposite is ignored, never turned around.
        bounds = [(0, None)] * 2 + [(None, None)] * len(mean)
        at = minimize(aim, start, jac=True, method="L-BFGS-B", bounds=bounds).x
        model = at[0] / scale
        bias = at[2:] - model * mean
        found = pool.chances(model * said + at[1] * free + bias, one)
        sizes = () if one else tuple(pool.size_odds(found, gold.sum(axis=1)).tolist())
        return Stack(
            TOGETHER, (), tuple(self.schema.names), float(model), float(at[1]), tuple(bias.tolist()), trust, self.rare,
            sizes, self.rule,
        )  # fmt: skip


def _folds(data: _Data, random: np.random.Generator) -> list[Array]:
    """Return the records of each fold of each repeat; the labels are spread evenly over the folds."""
    strata, found = np.array([data.schema.strata(case.gold)[0] for case in data.cases]), []
    for _ in range(_REPEATS):
        order = random.permutation(len(strata))
        order = order[np.argsort(strata[order], kind="stable")]
        found += [order[n::_FOLDS] for n in range(_FOLDS)]
    return found


def _spread(said: Array) -> tuple[Array, float]:
    """Return the mean opinion of each label, and how far opinions are away from it: what a text moves."""
    mean = said.mean(axis=0)
    return mean, float((said - mean).std())


def _said(
    labels: Sequence[str], value: Value | None, scores: Mapping[str, float] | None, trust: tuple[float, float] | None,
    one: bool,
) -> Array:  # fmt: skip
    """Return the opinion of a model on each label, in nats: of its scores, or of its vote."""
    if trust is None:
        given = scores or {}
        found = np.log(np.clip([given.get(name, 0.0) for name in labels], _FLOOR, 1.0))
        return np.asarray(found - found.mean() if one else found)
    hit, miss = trust
    named = np.array([name in _names(value) for name in labels])
    if one:
        return np.where(named, math.log(hit), math.log((1 - hit) / max(len(labels) - 1, 1)))
    return np.where(named, math.log(hit / (1 - hit)), math.log(miss / (1 - miss)))


def _free(labels: Sequence[str], chances: Mapping[str, float], rare: float, one: bool) -> Array:
    found = np.clip([chances.get(name, rare) for name in labels], _FLOOR, pool.MOST)
    return np.asarray(np.log(found) if one else np.log(found / (1 - found)))


def _names(value: Value | None) -> Sequence[str]:
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _agreement(schema: LabelSchema, value: Value | None, gold: Value) -> float:
    return 0.0 if value is None else schema.agreement(value, gold)
