"""What scores are worth: how often suggestions with a score of each tenth were accepted as they were.

Each model on its own, since scores of different models are never compared; with the suggestion in sight and blind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from labeler.evaluation.measures import BINS, Measure, expected_error, measured, tenths, weights_of
from labeler.prelabel.stack import wilson
from labeler.store import Row

LEAST = 30
"""Fewer first decisions on suggestions with a score draw no curve."""
Pair = tuple[float, float]
"""The score of a suggestion, and how far the decision agrees with it."""
# As store/counts.py has it of suggestions that were taken as they were.
_EXACT = 0.999999


@dataclass(frozen=True, slots=True)
class Tenth:
    """The suggestions with a score from ``tenth`` / 10 on: how many, their mean score, and how many were right."""

    tenth: int
    n: int
    score: float
    accepted: Measure


@dataclass(frozen=True, slots=True)
class Curve:
    """The tenths that have any suggestions, lowest first. ``error`` is the expected calibration error."""

    n: int
    tenths: Sequence[Tenth]
    error: Measure


@dataclass(frozen=True, slots=True)
class Scored:
    """The curves of a model, each None where there are too few decisions.

    ``n`` is how many there are on suggestions with a score: assisted, blind.
    """

    backend: str
    model_id: str | None
    n: tuple[int, int]
    assisted: Curve | None
    blind: Curve | None

    @property
    def name(self) -> str:
        return self.model_id or self.backend


def scored_of(rows: Iterable[Row]) -> list[Scored]:
    """Return the models whose suggestions have scores and were decided on, that of the most decisions first.

    ``rows`` are those of :meth:`labeler.store.numbers.Numbers.first_decisions`.
    """
    found: dict[tuple[str, str | None], tuple[list[Pair], list[Pair]]] = {}
    for row in rows:
        if (score := row["score"]) is not None:
            model = (row["backend"], row["model_id"])
            if model not in found:
                found[model] = ([], [])
            found[model][row["blind"]].append((score, row["agreement"]))
    models = [Scored(*model, (len(a), len(b)), curve_of(a), curve_of(b)) for model, (a, b) in found.items()]
    return sorted(models, key=lambda one: (-sum(one.n), one.name))


def curve_of(pairs: Sequence[Pair]) -> Curve | None:
    """Return the curve of first decisions; None of fewer than :data:`LEAST`."""
    if len(pairs) < LEAST:
        return None
    scores, agreements = np.array(pairs, dtype=float).T
    scores, hits = np.clip(scores, 0.0, 1.0), agreements >= _EXACT
    # Records of one tenth that came out alike are drawn together: their scores are nearly the same.
    kinds = 2 * tenths(scores) + hits
    counts, sums = np.bincount(kinds, minlength=2 * BINS), np.bincount(kinds, weights=scores, minlength=2 * BINS)
    there = counts > 0
    means = sums[there] / counts[there]
    error = expected_error(weights_of(counts[there]), means, np.flatnonzero(there) % 2)
    return Curve(len(pairs), _tenths(counts, sums), measured(error))


def _tenths(counts: np.ndarray, sums: np.ndarray) -> list[Tenth]:
    found = []
    for tenth, (wrong, right) in enumerate(counts.reshape(BINS, 2).tolist()):
        if n := wrong + right:
            score = float(sums[2 * tenth : 2 * tenth + 2].sum() / n)
            found.append(Tenth(tenth, n, score, Measure(right / n, *wilson(right / n, n))))
    return found
