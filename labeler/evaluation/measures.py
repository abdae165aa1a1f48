"""How well suggestions were, each number with an interval: the records are drawn anew many times.

The percentile bootstrap of Efron 1979. All arms and all numbers share the draws, so that differences are paired. Macro
F1 is the mean over the labels that were approved, kappa that of Cohen 1960, and the expected calibration error that of
Naeini et al. 2015 with ten bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler.evaluation import rouge
from labeler.labels import LabelSchema, safe_agreement
from labeler.records import Value

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

DRAWS, SEED = 1000, 1
BINS = 10
_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Measure:
    """A number as measured, and where it lies with 95 %."""

    value: float
    low: float
    high: float


def weights(n: int, draws: int = DRAWS, seed: int = SEED) -> Array:
    """Return how often each of ``n`` records was drawn: float32 (1 + draws, n), the first row once each."""
    drawn, source = np.ones((1 + draws, n), dtype=np.float32), np.random.default_rng(seed)
    for row in drawn[1:]:
        # Counted draw by draw: a multinomial of all at once takes four times as long.
        row[:] = np.bincount(source.integers(n, size=n), minlength=n)
    return drawn


def weights_of(counts: Array, draws: int = DRAWS, seed: int = SEED) -> Array:
    """Return how often records of each kind were drawn, of which there are ``counts``: float (1 + draws, kinds).

    What :func:`weights` gives, added up for records that are alike: a draw takes as long for few as for many.
    """
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=draws)
    return np.vstack([counts, drawn]).astype(float)


def tenths(scores: Array) -> Array:
    """Return the tenth of each score in [0, 1], from 0 to 9."""
    return np.asarray(np.minimum((scores * BINS).astype(int), BINS - 1))


def expected_error(drawn: Array, scores: Array, hits: Array) -> Array:
    """Return how far scores are from what they promise, by tenths: float (1 + draws,)."""
    gaps = (tenths(scores)[:, None] == np.arange(BINS)) * (scores - hits)[:, None]
    return np.asarray(np.abs(drawn @ gaps).sum(axis=1) / np.maximum(drawn.sum(axis=1), 1))


def measured(drawn: Array, together: int = 1) -> Measure:
    """Return the first of some numbers (1 + draws,) with the interval that the others give.

    It holds with 95 %; of so many that are looked at ``together``, all hold with 95 % (Bonferroni).
    """
    low, high = np.quantile(drawn[1:], [_TAIL / together, 1 - _TAIL / together])
    # A calibration error is larger in nearly every draw than it was measured.
    value = float(drawn[0])
    return Measure(value, min(float(low), value), max(float(high), value))


def cohen(drawn: Array, first: Array, second: Array, apart: Array) -> tuple[Array, Array]:
    """Return how far two are apart, and how far they would be by chance: each float (1 + draws,).

    Each gave a label to every record, as a number below k: int (n,). ``apart`` says how far two labels are apart:
    float (k, k). Chance has each keep their own labels (Cohen 1960; 1968 where labels are apart by degrees).
    """
    n = np.maximum(drawn.sum(axis=1), 1)
    one_hot = np.eye(len(apart), dtype=drawn.dtype)
    a, b = (drawn @ one_hot[codes] for codes in (first, second))
    return drawn @ apart[first, second].astype(drawn.dtype) / n, np.asarray(((a @ apart) * b).sum(axis=1) / n**2)


@dataclass(frozen=True)
class Answers:
    """What one arm said of ``n`` records beside what is approved; None where it said nothing, or has no score."""

    schema: LabelSchema
    truths: Sequence[Value]
    said: Sequence[Value | None]
    scores: Sequence[float | None]

    @cached_property
    def agreement(self) -> Array:
        """How far each agrees, by the task's own measure: float (n,)."""
        pairs = zip(self.said, self.truths, strict=True)
        return np.array([0.0 if a is None else safe_agreement(self.schema, a, b) or 0.0 for a, b in pairs])

    @cached_property
    def wrong(self) -> Array:
        """Which of them a person has to correct: float (n,)."""
        return np.array([float(a != b) for a, b in zip(self.said, self.truths, strict=True)])

    def macro_f1(self, drawn: Array) -> Array | None:
        """Return the mean F1 of the labels that were approved: float (1 + draws,); None without a list of labels."""
        if not self.schema.candidates():
            return None
        true, said = (
            [set(() if v is None else self.schema.strata(v)) for v in one] for one in (self.truths, self.said)
        )
        names = sorted(set().union(*true))
        member, chosen = (np.array([[name in one for name in names] for one in rows], float) for rows in (true, said))
        hits, all_true, all_said = (drawn @ counts for counts in (member * chosen, member, chosen))
        # A label that was not drawn says nothing of itself.
        there = all_true > 0
        f1 = np.where(there, 2 * hits / np.maximum(all_true + all_said, 1), 0.0)
        return np.asarray(f1.sum(axis=1) / np.maximum(there.sum(axis=1), 1))

    def kappa(self, drawn: Array) -> Array | None:
        """Return the agreement beyond chance: float (1 + draws,); None where labels are not chosen one by one."""
        if not self.schema.one_of_labels:
            return None
        names, codes = np.unique([str(value) for value in (*self.truths, *self.said)], return_inverse=True)
        true, said = np.split(codes, 2)
        seen, by_chance = cohen(drawn, true, said, 1 - np.eye(len(names)))
        return np.asarray((by_chance - seen) / np.maximum(by_chance, 1e-9))

    def rouge_l(self, drawn: Array) -> Array | None:
        """Return the mean ROUGE-L of texts: float (1 + draws,); None where labels hold no text."""
        found = [rouge.agreement(self.schema, a, b) for a, b in zip(self.said, self.truths, strict=True)]
        known = np.array([one for one in found if one is not None])
        return np.asarray(drawn @ known / drawn.sum(axis=1)) if len(known) else None

    def distance(self, drawn: Array) -> Array | None:
        """Return how far off suggestions are on average, in the labels' own unit; None where labels have none."""
        pairs = zip(self.said, self.truths, strict=True)
        far = [None if said is None else self.schema.distance(said, truth) for said, truth in pairs]
        known = np.array([one is not None for one in far], float)
        if not known.any():
            return None
        return np.asarray(drawn @ np.array([one or 0.0 for one in far]) / np.maximum(drawn @ known, 1))

    def calibration_error(self, drawn: Array) -> Array | None:
        """Return how far scores are from agreement, by tenths: float (1 + draws,); None where there are no scores."""
        scored = np.array([score is not None for score in self.scores])
        if not scored.any():
            return None
        scores = np.array([score for score in self.scores if score is not None])
        return expected_error(drawn[:, scored], scores, self.agreement[scored])

    def all(self, drawn: Array) -> Mapping[str, Measure]:
        """Return every number that this schema has, by name."""
        n = drawn.sum(axis=1)
        found = {
            "agreement": drawn @ self.agreement / n,
            "corrections": 1000 * (drawn @ self.wrong) / n,
            "macro_f1": self.macro_f1(drawn),
            "kappa": self.kappa(drawn),
            "rouge_l": self.rouge_l(drawn),
            "distance": self.distance(drawn),
            "ece": self.calibration_error(drawn),
        }
        return {name: measured(one) for name, one in found.items() if one is not None}
