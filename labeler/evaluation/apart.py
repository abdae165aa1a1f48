"""Whether two arms can be told apart on the same records."""

from __future__ import annotations

from typing import Any

import numpy as np

from labeler.evaluation.measures import SEED, Measure
from labeler.labels import LabelSchema
from labeler.sentence import N_

Array = np.ndarray[Any, Any]

MCNEMAR, PERMUTATION = N_("McNemar's test, exact"), N_("a permutation test of the differences")
LEVEL = 0.05
_FLIPS, _AT_ONCE = 10_000, 1_000


def test_of(schema: LabelSchema) -> str:
    """Return the paired test that fits a schema: exact where one label is right or wrong."""
    return MCNEMAR if schema.one_of_labels else PERMUTATION


def p_value(schema: LabelSchema, a: Array, b: Array) -> float:
    """Return the two-sided p of the agreement of two arms with the same records, each float (n,)."""
    if test_of(schema) == MCNEMAR:
        return mcnemar(int((a > b).sum()), int((a < b).sum()))
    return permutation(a - b)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact p of McNemar 1947: of the records that only one is right on, each has half by chance."""
    from scipy.special import bdtr

    n = only_a + only_b
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), n, 0.5))) if n else 1.0


def permutation(differences: Array) -> float:
    """Return the p of paired differences (n,): how often their mean is as far from 0 where signs are drawn.

    After Fisher 1935, with 10,000 draws; the one that was measured counts as a draw (Phipson and Smyth 2010).
    """

    d = differences[differences != 0]
    if not len(d):
        return 1.0
    source, far = np.random.default_rng(SEED), 1
    # Sums that are equal but for rounding are as far.
    least = abs(float(d.sum())) * (1 - 1e-9)
    for _ in range(_FLIPS // _AT_ONCE):
        signs = source.integers(0, 2, size=(_AT_ONCE, len(d)), dtype=np.int8) * 2 - 1
        far += int((np.abs(signs @ d) >= least).sum())
    return far / (1 + _FLIPS)


def shown(one: Measure) -> str:
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def shown_p(p: float | None) -> str:
    """Return a p as people read it; four digits, and below that how small it is at most."""
    return "–" if p is None else f"{p:.4f}" if p >= 0.0001 else "< 0.0001"
