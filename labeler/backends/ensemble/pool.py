"""How the members' opinions become one: a weighted sum of log odds, and for sets of labels, how many to choose.

Log odds are float (records, labels), in nats. Of a choice their softmax is the chance of each label; of a set each
label has a chance of its own, by the logistic function. The weights minimise the log loss on records that the members
have not seen, drawn towards equal ones: a logarithmic opinion pool (Genest and Zidek 1986), calibrated as it is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

LIKELIEST, EXPECTED = "likeliest", "expected"
RULES = (LIKELIEST, EXPECTED)
MOST = 0.99
"""No answer is certain, and none is shown as if it were."""
# How firmly the weights are drawn to equal ones, in nats: about what a dozen records can say against it.
_FIRM = 5.0
# How often each number of labels counts as seen beside what was seen.
_UNSEEN = 0.2
_LEAST = 1e-6


def chances(odds: Array, one: bool) -> Array:
    """Return the chance of each label, in [0, 1]; for a choice those of a record sum to 1."""
    found: Array = np.exp(odds - odds.max(axis=-1, keepdims=True)) if one else 1 / (1 + np.exp(-np.clip(odds, -30, 30)))
    return found / found.sum(axis=-1, keepdims=True) if one else found


def doubted(found: Array, one: bool) -> Array:
    """Return the chances of one record with none above MOST; of a choice the others share what is taken away."""
    doubted: Array = np.minimum(found, MOST)
    best = int(found.argmax())
    if one and len(found) > 1 and found[best] > MOST:
        others = np.delete(found, best) + _LEAST
        doubted[np.arange(len(found)) != best] = (1 - MOST) * others / others.sum()
    return doubted


def loss(odds: Array, member: Array, one: bool) -> float:
    """Return the sum of the log losses, in nats; ``member`` is bool (records, labels)."""
    return float(losses(odds, member, one).sum())


def losses(odds: Array, member: Array, one: bool) -> Array:
    """Return the log loss of each record, in nats (records,)."""
    if one:
        top = odds.max(axis=1)
        return np.asarray(top + np.log(np.exp(odds - top[:, None]).sum(axis=1)) - odds[member])
    return np.asarray(np.logaddexp(0, np.where(member, -odds, odds)).sum(axis=1))


def weights(opinions: Sequence[Array], member: Array, one: bool) -> Array:
    """Return what each opinion counts, float (opinions,), none below 0."""
    from scipy.optimize import minimize

    stacked = np.stack(opinions)
    equal = np.full(len(opinions), 1 / len(opinions))

    def aim(found: Array) -> tuple[float, Array]:
        odds = np.tensordot(found, stacked, 1)
        slope = np.tensordot(stacked, chances(odds, one) - member, 2)
        away = found - equal
        return loss(odds, member, one) + _FIRM * float(away @ away), slope + 2 * _FIRM * away

    result = minimize(aim, equal, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(equal))
    return np.asarray(result.x)


def sizes(found: Array) -> Array:
    """Return how likely each number of labels is, float (..., labels + 1), if each had its chance on its own."""
    sums = np.zeros((*found.shape[:-1], found.shape[-1] + 1))
    sums[..., 0] = 1.0
    for label in range(found.shape[-1]):
        chance = found[..., label, None]
        without = sums * (1 - chance)
        without[..., 1:] += sums[..., :-1] * chance
        sums = without
    return sums


def size_odds(found: Array, given: Array) -> Array:
    """Return by how much each number of labels is likelier than single chances make it, in nats (labels + 1,).

    Reviewers give two labels or three; labels that are each unlikely would mostly give none. ``given`` is how many
    labels approved values have, int (n,).
    """
    seen = np.bincount(given, minlength=found.shape[1] + 1) + _UNSEEN
    expected = sizes(found).mean(axis=0) + _LEAST
    odds: Array = np.log(seen / seen.sum()) - np.log(expected / expected.sum())
    return odds


def size_of(found: Array, odds: Array, least: int, most: int, rule: str) -> tuple[int, float]:
    """Return how many of the likeliest labels a record gets, from ``least`` to ``most``, and how far they will agree.

    By the rule LIKELIEST it is the likeliest set of all, with its chance. By EXPECTED it is as many as are expected,
    none only where that is likelier than any, with the expected F1 as the ratio of what is expected of its parts (Lewis
    1995). The first is more often exactly right where labels are clear, the second takes in rare labels.
    """
    likely = sizes(found) * np.exp(odds)
    total = likely.sum()
    ranked = np.clip(np.sort(found)[::-1], _LEAST, 1 - _LEAST)
    if rule == LIKELIEST:
        held = np.concatenate([[0.0], np.cumsum(np.log(ranked))])
        left = np.concatenate([np.cumsum(np.log1p(-ranked)[::-1])[::-1], [0.0]])
        each = np.exp(held + left + odds)
        size = least + int(np.argmax(each[least : most + 1]))
        return size, float(each[size] / total)
    if least == 0 and likely[0] > 0.5 * total:
        return 0, float(likely[0] / total)
    size = int(np.clip(round(float(likely @ np.arange(len(likely)) / total)), max(1, least), most))
    return size, 2 * float(ranked[:size].sum()) / (size + float(found.sum()))
