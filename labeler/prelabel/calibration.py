"""Calibration: learn from approved labels how a model's scores of the labels are off, and correct them if that helps.

Small models prefer some label words whatever the text says. One bias per label and a temperature, fitted by maximum
likelihood with an L2 penalty, take that preference away: vector scaling (Guo et al. 2017, "On Calibration of Modern
Neural Networks") with few parameters, which is contextual calibration (Zhao et al. 2021) with approved records in the
place of empty texts. For sets of labels each label has a threshold on its own (Platt 1999).

A model without such a preference only loses by it. So each form competes with the plain scores in cross-validation,
and a calibration is used only where it agrees better with the reviewers by more than one standard error.

What it learns from is what was approved, and reviewers who see a suggestion tend to keep it. That favours the plain
scores: where a calibration wins, it wins in spite of it.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from labeler import strictjson
from labeler.errors import InputError, LabelError
from labeler.labels import LabelSchema
from labeler.records import Value
from labeler.store import Store

CHOICE, SET = "choice", "set"
MIN_RECORDS = 30
"""Fewer approved records than this, near-duplicates counted once, teach nothing that cross-validation could check."""
MIN_PER_LABEL = 5
"""At least two labels need this many approvals: one for each fold."""

Pair = tuple[Mapping[str, float], Value]
"""The scores that a model gave to a record's labels, and the value that was approved for it."""

_FLOOR = 1e-12
_FOLDS, _MOST_REPEATS, _ENOUGH_DECISIONS = 5, 5, 1000
# Standard deviations of the penalty, in nats: the biases of small models are of the order of one, and length-normalised
# log-likelihoods can be so flat that they need a temperature of 0.1.
_BIAS_SPREAD, _SLOPE_SPREAD = 3.0, 5.0
_LEAST_SLOPE, _STEPS, _PRECISION = 0.05, 30, 1e-5
_NO_DIFFERENCE = 1e-9


@dataclass(frozen=True, slots=True)
class Calibration:
    """A correction of scores: each label's is ``(log score - threshold) / temperature + bias``, in nats.

    ``kind`` "choice" turns them into shares that sum to 1, and the threshold plays no part; "set" turns each into a
    number of its own by the logistic function, which is 0.5 at the label's threshold. A label without a bias has 0.

    ``trained_on`` counts records. ``accuracy_before`` and ``accuracy_after`` are the mean agreement with what was
    approved, in [0, 1], of the plain scores and of the best calibration, on records that it was not fitted on and with
    near-duplicates counted once. Where ``used`` is False the plain scores stay, and no bias is kept. ``pairs`` is how
    many records were scored and approved by then, more than it was fitted on where there are very many.
    """

    kind: str
    bias: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    threshold: float = 0.0
    trained_on: int = 0
    accuracy_before: float = 0.0
    accuracy_after: float = 0.0
    used: bool = False
    pairs: int = 0

    def apply(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return the corrected scores, in [0, 1]; for a choice they sum to 1. A score of 0 counts as 1e-12."""
        bias, temperature, threshold = self.bias, self.temperature, self.threshold
        nats = {
            name: (math.log(max(_FLOOR, score)) - threshold) / temperature + bias.get(name, 0.0)
            for name, score in scores.items()
        }
        if self.kind == SET:
            return {name: _logistic(value) for name, value in nats.items()}
        top = max(nats.values(), default=0.0)
        odds = {name: math.exp(value - top) for name, value in nats.items()}
        total = sum(odds.values())
        return {name: value / total for name, value in odds.items()}

    def decide(self, schema: LabelSchema, scores: Mapping[str, float], size: float | None = None) -> Value | None:
        """Return the value that the corrected scores speak for, or the plain ones where it is not ``used``.

        ``size`` is how many labels a set has on average. The plain scores need it; the corrected ones have thresholds.
        """
        return schema.decide(self.apply(scores)) if self.used else schema.decide(scores, size)

    @property
    def digest(self) -> str:
        """A name of what is corrected and how: of another calibration it is another."""
        return hashlib.sha256(strictjson.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "bias": dict(self.bias), "temperature": self.temperature, "threshold": self.threshold,
            "trained_on": self.trained_on, "accuracy_before": self.accuracy_before,
            "accuracy_after": self.accuracy_after, "used": self.used, "pairs": self.pairs,
        }  # fmt: skip

    @classmethod
    def from_json(cls, raw: Any) -> Calibration:
        """Read what :meth:`to_json` wrote. Raises :class:`InputError` that says what to do."""
        try:
            read = cls(
                kind=raw["kind"], bias={str(name): float(value) for name, value in raw["bias"].items()},
                temperature=float(raw["temperature"]), threshold=float(raw["threshold"]),
                trained_on=int(raw["trained_on"]), accuracy_before=float(raw["accuracy_before"]),
                accuracy_after=float(raw["accuracy_after"]), used=bool(raw["used"]),
                pairs=int(raw.get("pairs", raw["trained_on"])),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                "A stored calibration cannot be read (%(reason)s); fit it again", reason=repr(error)
            ) from error
        if read.kind not in (CHOICE, SET) or not read.temperature > 0:
            raise InputError(
                "A stored calibration has the kind %(kind)r and the temperature %(value)s; fit it again",
                kind=read.kind,
                value=read.temperature,
            )
        return read


def refit(
    store: Store, project_id: int, task: str, schema: LabelSchema, backend: str, model_id: str | None,
    prompt_digest: str = "", unit: str | None = None, carried: Callable[[Value, str], Value | None] | None = None,
) -> Calibration | None:  # fmt: skip
    """Fit the calibration of one model and style of prompts on what is approved now, store it and return it.

    ``carried`` says what a value that was approved under an earlier version of the task is now
    (:meth:`labeler.task.Task.carried`).

    Scores of different ways are not mixed: without examples a model may lean to one label, with them to another.

    None where too little is approved, or the schema has no closed list of labels; an older one is forgotten then.
    For models that learn nothing from approvals but by their prompts: one that was trained on the approved records
    themselves gives them scores that look better than they are, and keeps its plain scores.
    """
    room = store.calibrations
    place = (project_id, task, backend, model_id)
    rows = room.pairs(*place, prompt_digest, unit=unit)
    read = carried or (lambda value, version: value)
    values = [read(strictjson.loads(row["value"]), row["task_version"]) for row in rows]
    pairs = [(strictjson.loads(row["scores"]), value) for row, value in zip(rows, values, strict=True)]
    fitted = fit(schema, pairs, [row["cluster"] or row["record_id"] for row in rows])
    if fitted is None:
        store.write(lambda tx: room.remove(tx, *place, prompt_digest))
        return None
    fitted = replace(fitted, pairs=room.count_pairs(*place, prompt_digest, unit))
    store.write(lambda tx: room.save(tx, *place, fitted.to_json(), prompt_digest))
    return fitted


def load(
    store: Store, project_id: int, task: str, backend: str, model_id: str | None, prompt_digest: str = ""
) -> Calibration | None:
    """Return the calibration that :func:`refit` stored; None if there is none."""
    raw = store.calibrations.get(project_id, task, backend, model_id, prompt_digest)
    return None if raw is None else Calibration.from_json(raw)


def fit(
    schema: LabelSchema, pairs: Sequence[Pair], groups: Sequence[int] | None = None, seed: int = 0
) -> Calibration | None:
    """Fit a calibration and say whether it helps; None if there is too little to learn from.

    Too little is fewer than :data:`MIN_RECORDS` records, or fewer than two labels with :data:`MIN_PER_LABEL`
    approvals. ``groups`` names the near-duplicate cluster of each pair: pairs of one cluster stay in one fold and
    count as one record. Pairs whose value the schema refuses now, or whose approved labels were not scored, are left
    out. The same pairs and seed give the same calibration.
    """
    data = _read(schema, pairs, groups)
    if data is None:
        return None
    forms = _SET_FORMS if data.kind == SET else _CHOICE_FORMS
    agreement = _cross_validated(schema, data, forms, seed)
    best = max(forms, key=lambda form: float(agreement[form].mean()))
    # The simplest that is as good as the best, as far as one standard error can tell (Breiman et al. 1984).
    good = [
        form
        for form in forms
        if not _better(agreement[best], agreement[form]) and _better(agreement[form], agreement[_PLAIN])
    ]
    form = good[0] if good else _PLAIN
    return replace(
        _fitted(data, form),
        trained_on=len(data.pairs),
        accuracy_before=_short(agreement[_PLAIN].mean()),
        accuracy_after=_short(agreement[form if good else best].mean()),
        used=bool(good),
    )


@dataclass(frozen=True, slots=True)
class _Form:
    """Which parameters are fitted. Both forms of a set have a threshold: without one nothing is chosen."""

    slope: bool
    bias: bool


_PLAIN = _Form(slope=False, bias=False)
# A temperature alone changes no choice, so it cannot agree better than the plain scores: it is not even tried.
_CHOICE_FORMS = (_Form(slope=False, bias=True), _Form(slope=True, bias=True))
_SET_FORMS = (_Form(slope=True, bias=False), _Form(slope=True, bias=True))


@dataclass(frozen=True, slots=True)
class _Data:
    """Pairs as arrays of n records by c labels: ``logs`` of the scores, which are ``scored``, which are ``gold``.

    ``groups`` (n,) numbers the clusters; ``strata`` (n,) holds the rarest stratum of each gold value.
    """

    kind: str
    names: tuple[str, ...]
    pairs: Sequence[Pair]
    groups: np.ndarray
    strata: np.ndarray
    logs: np.ndarray
    scored: np.ndarray
    gold: np.ndarray

    def part(self, rows: np.ndarray) -> _Data:
        return replace(
            self, pairs=[self.pairs[n] for n in rows.nonzero()[0].tolist()], groups=self.groups[rows],
            strata=self.strata[rows], logs=self.logs[rows], scored=self.scored[rows], gold=self.gold[rows],
        )  # fmt: skip


def _read(schema: LabelSchema, pairs: Sequence[Pair], groups: Sequence[int] | None) -> _Data | None:
    """Return the usable pairs; None if they are too few, or there is no closed list of labels."""
    candidates = schema.candidates()
    if not candidates:
        return None
    many = any(isinstance(one, list) for one in candidates.values())
    name_of = {} if many else {value: name for name, value in candidates.items()}
    usable: list[tuple[Pair, set[Any], int]] = []
    for n, (scores, raw) in enumerate(pairs):
        try:
            value = schema.parse(raw)
        except LabelError:
            continue
        chosen = set(value) if many else {name_of.get(value)}
        if chosen <= scores.keys() and not scores.keys().isdisjoint(candidates):
            usable.append(((scores, value), chosen, n if groups is None else groups[n]))
    counts = Counter(name for (_, value), _, _ in usable for name in schema.strata(value))
    distinct, clusters = np.unique([group for _, _, group in usable], return_inverse=True)
    if len(distinct) < MIN_RECORDS or sum(count >= MIN_PER_LABEL for count in counts.values()) < 2:
        return None
    names = tuple(candidates)
    logs = np.log([[max(_FLOOR, scores.get(name, 1.0)) for name in names] for (scores, _), _, _ in usable])
    return _Data(
        kind=SET if many else CHOICE,
        names=names,
        pairs=[pair for pair, _, _ in usable],
        groups=clusters,
        strata=np.array([min(schema.strata(value), key=lambda name: counts[name]) for (_, value), _, _ in usable]),
        logs=logs,
        scored=np.array([[name in scores for name in names] for (scores, _), _, _ in usable]),
        gold=np.array([[name in chosen for name in names] for _, chosen, _ in usable]),
    )


def _cross_validated(schema: LabelSchema, data: _Data, forms: Sequence[_Form], seed: int) -> dict[_Form, np.ndarray]:
    """Return the agreement under each form of the records that it was not fitted on, the mean of some repeats.

    One number for each cluster, in order: near-duplicates are right or wrong together.
    """
    # Many records need few repeats: it is the chance of the folds that they even out.
    repeats = min(_MOST_REPEATS, max(1, _ENOUGH_DECISIONS // len(data.pairs)))
    random = np.random.default_rng(seed)
    found = {form: np.zeros(len(data.pairs)) for form in (_PLAIN, *forms)}
    for _ in range(repeats):
        folds = _folds(data, random)
        for fold in range(_FOLDS):
            train = data.part(folds != fold)
            size = float(train.gold.sum(axis=1).mean())
            for form, agreement in found.items():
                calibration = replace(_fitted(train, form), used=form != _PLAIN)
                for n in (folds == fold).nonzero()[0].tolist():
                    scores, gold = data.pairs[n]
                    decided = calibration.decide(schema, scores, size)
                    agreement[n] += 0.0 if decided is None else schema.agreement(decided, gold) / repeats
    sizes = np.bincount(data.groups)
    return {form: np.bincount(data.groups, weights=agreement) / sizes for form, agreement in found.items()}


def _folds(data: _Data, random: np.random.Generator) -> np.ndarray:
    """Return the fold (n,) of each record: clusters whole, and each stratum spread over all folds."""
    _, first = np.unique(data.groups, return_index=True)
    order = random.permutation(len(first))
    order = order[np.argsort(data.strata[first[order]], kind="stable")]
    of_group = np.empty(len(first), dtype=int)
    of_group[order] = np.arange(len(first)) % _FOLDS
    return np.asarray(of_group[data.groups])


def _better(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether ``a`` agrees better than ``b`` by more than one standard error of their paired difference."""
    gain = a - b
    return float(gain.mean()) > float(np.std(gain, ddof=1)) / math.sqrt(len(gain)) + _NO_DIFFERENCE


def _fitted(data: _Data, form: _Form) -> Calibration:
    """Return the calibration of one form, fitted on all of ``data``; it does not say yet whether it helps."""
    if form == _PLAIN:
        return Calibration(data.kind)
    # A label that was never approved keeps its place: nothing is known of it.
    bias = np.logical_and(data.gold.any(axis=0), form.bias)
    free = np.concatenate([[form.slope, data.kind == SET], bias])
    slope, biases = _maximum_likelihood(data, free)
    if slope < _LEAST_SLOPE:
        # Scores that say the opposite: they are nearly ignored, never turned around.
        free[0] = False
        slope, biases = _maximum_likelihood(data, free, _LEAST_SLOPE)
    named = {name: _short(value) for name, value, given in zip(data.names, biases, bias, strict=True) if given}
    threshold = _cut(data, slope * data.logs + np.array(biases)) / slope if data.kind == SET else 0.0
    return Calibration(data.kind, named, _short(1 / slope), _short(threshold))


def _cut(data: _Data, values: np.ndarray) -> float:
    """Return what splits the values (n, c) so that as many lie above it as labels were approved, over all records.

    Labels whose chance is above one half would be too few: where labels are rare, most sets would be empty. To match
    the mean size of the sets is the calibration of the threshold in Read et al. 2011, "Classifier chains".
    """
    falling = -np.sort(-values[data.scored])
    wanted = min(max(int(data.gold.sum()), 1), len(falling) - 1)
    return float(falling[wanted - 1 : wanted + 1].mean())


def _maximum_likelihood(data: _Data, free: np.ndarray, slope: float = 1.0) -> tuple[float, list[float]]:
    """Return the slope (one over the temperature) and the bias of each label (c,).

    Minimises the negative log-likelihood with an L2 penalty by Newton's method with halved steps; the loss is convex.
    The parameters are slope, shift (of a set) and biases; only the ``free`` ones (2 + c,) leave ``slope`` and zeros.
    """
    start = np.zeros(len(free))
    start[0] = slope
    weight = np.full(len(free), _BIAS_SPREAD**-2)
    weight[:2] = _SLOPE_SPREAD**-2
    at, loss = start, _loss(data, start)
    for _ in range(_STEPS):
        gradient, curvature = _derivatives(data, at)
        gradient += weight * (at - start)
        step = np.zeros(len(free))
        step[free] = np.linalg.solve((curvature + np.diag(weight))[np.ix_(free, free)], gradient[free])
        promised = float(gradient @ step)
        if promised < _PRECISION * len(data.pairs):
            break
        for _ in range(_STEPS):
            there = at - step
            lower = _loss(data, there) + float(weight @ (there - start) ** 2) / 2
            if lower < loss - promised / 10:
                break
            step, promised = step / 2, promised / 2
        at, loss = there, lower
    return float(at[0]), [float(value) for value in at[2:]]


def _values(data: _Data, at: np.ndarray) -> np.ndarray:
    """Return slope * log score + shift + bias (n, c); labels without a score are out of the question."""
    return np.where(data.scored, at[0] * data.logs + at[1] + at[2:], -1e9)


def _loss(data: _Data, at: np.ndarray) -> float:
    """Return the negative log-likelihood of what was approved: of one label, or of each label's yes or no."""
    values = _values(data, at)
    if data.kind == SET:
        return float(np.logaddexp(0.0, values).sum() - values[data.gold].sum())
    top = values.max(axis=1, keepdims=True)
    return float((top[:, 0] + np.log(np.exp(values - top).sum(axis=1))).sum() - values[data.gold].sum())


def _derivatives(data: _Data, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return gradient (2 + c,) and Hessian (2 + c, 2 + c) of :func:`_loss`, in the order of its parameters."""
    values, logs = _values(data, at), data.logs
    # The chances of the labels of a choice sum to 1, so that a shift of all of them moves nothing.
    shifted = np.zeros(logs.shape[1])
    if data.kind == SET:
        chance = np.exp(-np.logaddexp(0.0, -values))
        spread = chance * (1 - chance)
        moved, shifted = spread * logs, spread.sum(axis=0)
        within = np.diag(shifted)
    else:
        odds = np.exp(values - values.max(axis=1, keepdims=True))
        chance = odds / odds.sum(axis=1, keepdims=True)
        moved = chance * (logs - (chance * logs).sum(axis=1, keepdims=True))
        within = np.diag(chance.sum(axis=0)) - chance.T @ chance
    off = chance - data.gold
    gradient = np.concatenate([[(off * logs).sum(), off.sum()], off.sum(axis=0)])
    curvature = np.empty((len(at), len(at)))
    curvature[2:, 2:] = within
    curvature[0, 2:] = curvature[2:, 0] = moved.sum(axis=0)
    curvature[1, 2:] = curvature[2:, 1] = shifted
    curvature[0, 0], curvature[1, 1] = (moved * logs).sum(), shifted.sum()
    curvature[0, 1] = curvature[1, 0] = moved.sum() if data.kind == SET else 0.0
    return gradient, curvature


def _logistic(value: float) -> float:
    # Beyond 700 the exponential of a number is too large for a float.
    return 1 / (1 + math.exp(min(-value, 700.0)))


def _short(value: float) -> float:
    return float(f"{value:.6g}")
