"""What the ensemble learns from approved examples: its members, each with its opinion of records it has not seen.

Members are linear, so that one small product each answers. Ridge regression has its left-out answers in closed form
(Allen 1974, PRESS), for all labels at once and for several strengths at the cost of one: no fold is fitted twice, and
what cross-validation says picks the strength. Beside the vectors stand character n-grams, as a kernel where there are
more of them than texts, and as naive Bayes, which learns most from few texts (Ng and Jordan 2001).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler.backends.ensemble import pool
from labeler.backends.nearest import weight

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]
    Fit = tuple[Array, Array, Array]
    """Log odds of left-out examples (n, labels), weights (labels, d), and log odds where there are no features."""

VOTE, SEEDS, TAUGHT, VECTORS, JOINED = "vote", "seeds", "taught", "vectors", "joined"
NGRAMS, WORDS = "ngrams", "words"
NEIGHBOURS = 8
# Members are compared on so many of the newest examples, and the n-grams are learned from them alone: the work on these
# grows with the cube. With half as many, categories agreed less (0.64 instead of 0.68).
COMPARED = 2000
# A bucket of n-grams counts if so many texts have it, and the commonest of those.
_FEWEST, _MOST_BUCKETS = 2, 6144
_FOLDS = 5
# So many texts are compared with the others at a time.
_BLOCK = 250
_STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)
_KERNEL_STRENGTHS = (0.3, 1.0, 3.0)
_SCALES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)
_COUNTS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
_SEEDED = (0.25, 0.5, 1.0, 2.0)
_SMOOTH = 0.1
# What neighbours and descriptions count before there is enough to compare them on: nats, the share of descriptions at
# first, and after how many approvals it is half of that.
_FIRST_VOTE, _FIRST_SEEDS, _FIRST_SHARE, _FIRST_HALF = 4.0, 2.0, 0.5, 4
_MOST_LEVERAGE = 0.999
_LEAST_SCORE = 1e-3


@dataclass(frozen=True, slots=True)
class Data:
    """Approved examples, oldest first, near-duplicates once.

    ``blocks`` are dense features by member, float (n, d); ``grams`` are the n-grams of the newest, as
    (rows, buckets, counts) of :func:`labeler.retrieval.lexical.count_ngrams`; ``vectors`` are those that neighbours are
    found by. ``member`` is bool (n, labels). ``one``: each example has one label. ``agree``
    says how far two values agree, as lists of their labels' numbers. ``seeds`` are what the descriptions
    of the labels say, as weights and offset for the features of the block ``seeded``.
    """

    blocks: Mapping[str, Array]
    vectors: Array
    grams: tuple[Array, Array, Array]
    member: Array
    one: bool
    agree: Callable[[Sequence[int], Sequence[int]], float]
    seeds: tuple[Array, Array] | None = None
    seeded: str = TAUGHT


@dataclass(frozen=True, slots=True)
class Member:
    """Log odds of the labels by one kind of features: ``weights @ features + offset``, in nats.

    ``weights`` is float32 (labels, d), ``share`` what the member counts in the pool.
    """

    name: str
    weights: Array
    offset: Array
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Learned:
    """Members and how they are pooled; ``vocabulary`` and ``idf`` belong to the n-grams.

    Of sets, ``size_odds`` and ``rule`` tell how many labels are chosen (:func:`pool.size_of`), and ``ratio`` how far
    they agree for each part of what was expected.

    ``agreement`` says how far left-out answers agree with what was approved, in [0, 1], ``constant`` how far the
    commonest value does, ``error`` is the expected calibration error (Guo et al. 2017): all on ``compared`` examples.
    """

    members: Sequence[Member]
    vocabulary: Array
    idf: Array
    size_odds: Array
    rule: str = pool.EXPECTED
    ratio: float = 1.0
    compared: int = 0
    agreement: float = 0.0
    constant: float = 0.0
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class _Opinion:
    """A member while it is compared: its log odds of the compared examples, none of which it has seen."""

    name: str
    weights: Array
    offset: Array
    odds: Array
    loss: float


def learn(data: Data) -> Learned:
    """Learn from examples of at least two labels."""
    member = data.member[-COMPARED:]
    opinions, vocabulary, idf = _opinions(data)
    shares = pool.weights([opinion.odds for opinion in opinions], member, data.one)
    found = pool.chances(np.tensordot(shares, np.stack([opinion.odds for opinion in opinions]), 1), data.one)
    size_odds = np.zeros(0) if data.one else pool.size_odds(found, member.sum(axis=1))
    rules = {rule: judged(found, data, size_odds, rule) for rule in (pool.RULES[:1] if data.one else pool.RULES)}
    rule = max(rules, key=lambda name: float(rules[name][0].mean()))
    agreement, scores = rules[rule]
    ratio = 1.0 if data.one else float(agreement.mean() / max(scores.mean(), _LEAST_SCORE))
    members = [Member(o.name, o.weights, o.offset, float(share)) for o, share in zip(opinions, shares, strict=True)]
    return Learned(
        members, vocabulary, idf, size_odds, rule, ratio, len(member), float(agreement.mean()), _constant(data),
        calibration_error(np.minimum(ratio * scores, 1), agreement),
    )  # fmt: skip


def _opinions(data: Data) -> tuple[list[_Opinion], Array, Array]:
    """Return the members, and which n-grams count with their idf."""
    member, base = data.member[-COMPARED:], _base(data.member, data.one)
    vocabulary, idf, grams = _weighed(data.grams, len(member))
    opinions = [_vote(data, base)]
    if data.seeds is not None:
        weights, offset = data.seeds
        said = data.blocks[data.seeded] @ weights.T + offset
        opinions.append(_best(SEEDS, [(said, weights, offset)], data, base, _SEEDED))
    for name, features in data.blocks.items():
        opinions.append(_best(name, _ridge(features, data.member), data, base, _SCALES))
    compared = replace(data, member=member)
    if len(vocabulary):
        opinions.append(_best(NGRAMS, _kernel_ridge(grams, member), compared, base, _SCALES))
        opinions.append(_best(WORDS, _bayes(grams, member), compared, base, _COUNTS))
    return opinions, vocabulary, idf


def left_out(data: Data) -> Array:
    """Return the chances of the labels of the compared examples, float (compared, labels), as if none had been seen.

    The members' opinions are left out one by one. What each counts is learned without the examples that it pools.
    """
    member = data.member[-COMPARED:]
    opinions, _, _ = _opinions(data)
    odds = np.stack([opinion.odds for opinion in opinions])
    fold, pooled = np.arange(len(member)) % _FOLDS, np.zeros(member.shape)
    for n in range(_FOLDS):
        here = fold == n
        pooled[here] = np.tensordot(pool.weights(list(odds[:, ~here]), member[~here], data.one), odds[:, here], 1)
    return pool.chances(pooled, data.one)


def _constant(data: Data) -> float:
    """Return how far the commonest value agrees with all."""
    values, counts = np.unique(data.member[-COMPARED:], axis=0, return_counts=True)
    same = np.flatnonzero(values[counts.argmax()]).tolist()
    each = [data.agree(same, np.flatnonzero(value).tolist()) for value in values]
    return float(np.average(each, weights=counts))


def first(member: Array, seeds: tuple[Array, Array] | None, queue: Array, one: bool, least: int) -> Learned:
    """Return what can be said before enough is approved: by the descriptions of the labels, and by the neighbours.

    ``member`` is bool (n, labels), of the few that there are; ``queue`` are features of records, float (m, d), with
    which a set is no larger at first than it has to be.
    """
    labels = member.shape[1]
    base = np.log(member.sum(axis=0) + 1) if one else np.log((member.sum(axis=0) + 0.5) / (labels + len(member)))
    mean = member.mean(axis=0) if len(member) else np.zeros(labels)
    # Each approval takes something from what the descriptions count.
    share = 0.0 if seeds is None else _FIRST_SHARE / (1 + len(member) / _FIRST_HALF)
    members = [Member(VOTE, _FIRST_VOTE * _from_mean(mean), base - _FIRST_VOTE * mean, 1 - share)]
    odds = np.tile(base, (len(queue) or 1, 1))
    if seeds is not None:
        weights, offset = (_FIRST_SEEDS * part for part in seeds)
        members.append(Member(SEEDS, weights, base + offset, share))
        odds = base + share * (queue @ weights.T + offset)
    given = np.append(member.sum(axis=1), max(1, least))
    sizes = np.zeros(0) if one else pool.size_odds(pool.chances(odds, one), given)
    return Learned(members, np.zeros(0, dtype=int), np.zeros(0), sizes)


def seeds(labels: Array, queue: Array) -> tuple[Array, Array] | None:
    """Return weights and offset that score records by how near they are to the descriptions of the labels.

    Both are features, float (labels, d) and (m, d). The queue centres the scores: what all its records are near to
    tells nothing. None where they cannot be told apart.
    """
    weights = labels - labels.mean(axis=0)
    scores = queue @ weights.T
    spread = float((scores - scores.mean(axis=0)).std()) if len(scores) > 1 else 0.0
    return (weights / spread, -scores.mean(axis=0) / spread) if spread > 0 else None


def judged(found: Array, data: Data, size_odds: Array, rule: str) -> tuple[Array, Array]:
    """Return how far answers agree with the approved ones, in [0, 1] (n,), and their scores (n,).

    ``found`` are the chances of the labels of ``data``'s newest examples, float (n, labels).
    """
    member = data.member[-COMPARED:]
    if data.one:
        return member[np.arange(len(member)), found.argmax(axis=1)].astype(float), found.max(axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    agreement, scores = np.zeros(len(member)), np.zeros(len(member))
    for row, chance in enumerate(found):
        size, scores[row] = pool.size_of(chance, size_odds, 0, len(chance), rule)
        agreement[row] = data.agree(order[row, :size].tolist(), np.flatnonzero(member[row]).tolist())
    return agreement, scores


def calibration_error(scores: Array, agreement: Array, bins: int = 10) -> float:
    """Return the mean distance of score and agreement, weighted over bins of equal width."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    away = np.abs(np.bincount(place, agreement, bins) - np.bincount(place, scores, bins))
    return float(away[count > 0].sum() / len(scores))


def _base(member: Array, one: bool) -> Array:
    """Return the log odds of each label before anything is known of a record."""
    held = member.sum(axis=0) + 0.5
    base: Array = np.log(held) if one else np.log(held) - np.log(len(member) + 1 - held)
    return base


def _best(name: str, fits: Iterable[Fit], data: Data, base: Array, scales: Sequence[float]) -> _Opinion:
    """Return the best of several fits, as an opinion that starts from the base odds."""
    member, found = data.member[-COMPARED:], list[_Opinion]()
    for left_out, weights, offset in fits:
        for scale in scales:
            odds = base + scale * left_out[-COMPARED:]
            found.append(
                _Opinion(name, scale * weights, base + scale * offset, odds, pool.loss(odds, member, data.one))
            )
    return min(found, key=lambda opinion: opinion.loss)


def _ridge(features: Array, member: Array) -> Iterator[Fit]:
    middle, mean = features.mean(axis=0), member.mean(axis=0)
    centred, aim = features - middle, member - mean
    spread, axes = np.linalg.eigh(centred.T @ centred)
    turned = centred @ axes
    along = turned.T @ aim
    for strength in _STRENGTHS:
        shrunk = 1 / (np.maximum(spread, 0) + strength)
        weights = (axes * shrunk) @ along
        leverage = (turned**2 * shrunk).sum(axis=1) + 1 / len(features)
        rest = (aim - centred @ weights) / (1 - np.minimum(leverage, _MOST_LEVERAGE))[:, None]
        yield aim - rest, weights.T, -middle @ weights


def _kernel_ridge(grams: Any, member: Array) -> Iterator[Fit]:
    from scipy.linalg import lapack

    size, aim = len(member), (member - member.mean(axis=0)).astype(np.float32)
    kernel = _alike(grams)
    rows = kernel.mean(axis=0)
    kernel += rows.mean() - rows - rows[:, None]
    middle = np.asarray(grams.mean(axis=0)).ravel()
    for strength in _KERNEL_STRENGTHS:
        shifted = kernel.copy(order="F")
        shifted[np.diag_indices(size)] += strength
        lower, _ = lapack.spotrf(shifted, lower=1, overwrite_a=1)
        root, _ = lapack.strtri(lower, lower=1, overwrite_c=1)
        dual = root.T @ (root @ aim)
        # The diagonal of the inverse, which is all that is needed of it.
        leverage = 1 + 1 / size - strength * np.einsum("ij,ij->j", root, root)
        rest = strength * dual / (1 - np.minimum(leverage, _MOST_LEVERAGE))[:, None]
        weights = np.asarray(grams.T @ (dual - dual.mean(axis=0)))
        yield aim - rest, weights.T, -middle @ weights


def _alike(grams: Any) -> Array:
    """Return the cosines of all pairs of texts: float32 (n, n) in the order of LAPACK.

    It is twice as fast as in double precision, and exact to the sixth digit. Each pair is multiplied once.
    """
    grams = grams.astype(np.float32)
    found = np.empty((grams.shape[0],) * 2, dtype=np.float32, order="F")
    for start in range(0, len(found), _BLOCK):
        end = start + _BLOCK
        below = (grams[start:] @ grams[start:end].T).toarray()
        found[start:, start:end] = below
        found[start:end, start:] = below.T
    return found


def _bayes(grams: Any, member: Array) -> Iterator[Fit]:
    """Naive Bayes on which n-grams there are, as log odds of each label against the others."""
    there = grams.copy()
    there.data = np.ones_like(there.data)
    fold = np.arange(len(member)) % _FOLDS
    left_out = np.zeros(member.shape)
    for n in range(_FOLDS):
        here = fold == n
        left_out[here] = there[here] @ _evidence(there[~here], member[~here]).T
    yield left_out, _evidence(there, member), np.zeros(member.shape[1])


def _evidence(there: Any, member: Array) -> Array:
    held = np.asarray((there.T @ member).T)
    others = np.asarray(there.sum(axis=0)).ravel() - held
    total = member.sum(axis=0)[:, None]
    likely = (held + _SMOOTH) / (total + 2 * _SMOOTH)
    odds: Array = np.log(likely / ((others + _SMOOTH) / (len(member) - total + 2 * _SMOOTH)))
    return odds


def _vote(data: Data, base: Array) -> _Opinion:
    """The vote of the nearest among the compared examples, as :class:`NearestBackend` counts it."""
    vectors, member = data.vectors[-COMPARED:], data.member[-COMPARED:]
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -np.inf)
    count = min(NEIGHBOURS, len(vectors) - 1)
    near = np.argpartition(-alike, count - 1, axis=1)[:, :count]
    counts = np.vectorize(weight)(np.take_along_axis(alike, near, axis=1))
    shares = (member[near] * counts[:, :, None]).sum(axis=1) / counts.sum(axis=1)[:, None]
    mean = member.mean(axis=0)
    return _best(VOTE, [(shares - mean, _from_mean(mean), -mean)], data, base, _SHARES)


def _from_mean(mean: Array) -> Array:
    """Return the weights of the labels' shares, and of there being no votes: then it is as if they said the mean."""
    return np.hstack([np.eye(len(mean)), mean[:, None]])


def _weighed(grams: tuple[Array, Array, Array], size: int) -> tuple[Array, Array, Any]:
    """Return the buckets that count, their idf, and the texts by them: sparse (n, buckets), rows of length 1."""
    from scipy.sparse import csr_matrix

    rows, buckets, counts = grams
    held = np.bincount(buckets)
    kept = np.flatnonzero(held >= _FEWEST)
    kept = np.sort(kept[np.argsort(-held[kept], kind="stable")[:_MOST_BUCKETS]])
    idf = np.log((1 + size) / (1 + held[kept])) + 1
    place = np.searchsorted(kept, buckets)
    inside = np.isin(buckets, kept)
    rows, place = rows[inside], place[inside]
    values = weighed(counts[inside], idf[place])
    lengths = np.sqrt(np.bincount(rows, values**2, minlength=size))
    values = values / np.where(lengths > 0, lengths, 1)[rows]
    return kept, idf, csr_matrix((values, (rows, place)), shape=(size, len(kept)))


def weighed(counts: Array, idf: Array) -> Array:
    """Return what n-grams weigh that a text has ``counts`` times."""
    weights: Array = (1 + np.log(counts)) * idf
    return weights
