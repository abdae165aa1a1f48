"""What several reviewers of a record say together: what most of them gave, or what their habits make likely.

The likely label is that of Dawid and Skene (1979): how often each reviewer takes one label for another is found
together with the labels, by expectation and maximization, with no label known beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler.labels import LabelSchema
from labeler.records import Value
from labeler.sentence import N_, Sentence

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

LEAST = 20
"""So many answers a reviewer has for each label, on average, before habits are found.

Of simulated reviewers with so many, the likely label is right nearly as often as that of the majority where all are
good (at most 0.7 points less), and 1.5 to 7 points more often where some guess. With a third, it loses up to 2 points.
"""
NOT_ONE = N_("The values of this task are not one label of a list")
TOO_FEW = N_("Records of three reviewers or more need %(least)s labels in all, and have %(n)s")
_CLOSE, _ROUNDS = 1e-6, 1000


def agreed(schema: LabelSchema, answers: Mapping[Any, Mapping[Any, Value]]) -> dict[Any, Value | None]:
    """Return by record what more than half of its reviewers gave; None where there is no such value.

    What counts as the same is up to the kind of label: see ``LabelSchema.majority``.
    """
    return {record: schema.majority(list(given.values())) for record, given in answers.items()}


@dataclass(frozen=True)
class Likely:
    """How likely each of ``labels`` is: ``chances`` by record, float (n, k).

    ``errors`` say how often a reviewer gives each label where one is right: float (k, k), a row for the right one.
    ``shares`` are how frequent the labels are: float (k,).
    """

    labels: list[Value]
    chances: Mapping[Any, Array]
    errors: Mapping[Any, Array]
    shares: Array
    rounds: int

    def label(self, record: Any, least: float = 0.5) -> Value | None:
        """Return the likeliest label of a record if its chance is above ``least``."""
        best = int(self.chances[record].argmax())
        return self.labels[best] if self.chances[record][best] > least else None

    def accuracy(self, reviewer: Any) -> float:
        """Return the share of records on which a reviewer gives the right label."""
        return float(self.errors[reviewer].diagonal() @ self.shares)


def why_not(schema: LabelSchema, answers: Mapping[Any, Mapping[Any, Value]]) -> Sentence | None:
    """Return why :func:`likely` says nothing reliable of these answers; None where it does.

    Records of three are what tells habits from labels: of two who disagree either may be right.
    """
    if not schema.one_of_labels:
        return Sentence(NOT_ONE)
    several = [given for given in answers.values() if len(given) > 2]
    people, labels = {one for given in several for one in given}, {one for given in several for one in given.values()}
    n, least = sum(map(len, several)), LEAST * max(len(people), 3) * max(len(labels), 2)
    return Sentence(TOO_FEW, least=least, n=n) if n < least else None


def likely(answers: Mapping[Any, Mapping[Any, Value]], imagined: float = 1.0) -> Likely:
    """Return what is likely, of labels by record and reviewer: one label a value, and at least one of them.

    So many ``imagined`` answers, spread over all labels alike, are added to those that each reviewer gave where a label
    is right: few answers show no habits.
    """
    from scipy.sparse import csr_matrix

    triples = [(record, person, value) for record, given in answers.items() for person, value in given.items()]
    (records, rows), (people, who), (labels, what) = (_numbered(column) for column in zip(*triples, strict=True))
    k = len(labels)
    places = (rows, who * k + what)
    given = csr_matrix((np.ones(len(rows)), places), shape=(len(records), len(people) * k))
    chances, errors, shares, rounds = dawid_skene(given, k, imagined)
    return Likely(
        labels, dict(zip(records, chances, strict=True)), dict(zip(people, errors, strict=True)), shares, rounds
    )


def _numbered(column: tuple[Any, ...]) -> tuple[list[Any], Array]:
    numbers = {one: n for n, one in enumerate(dict.fromkeys(column))}
    return list(numbers), np.array([numbers[one] for one in column])


def dawid_skene(given: Any, k: int, imagined: float) -> tuple[Array, Array, Array, int]:
    """Return chances (n, k), errors (people, k, k), shares (k,) and the rounds that it took.

    ``given`` counts answers: a sparse matrix (n, people * k), with the labels of one reviewer next to each other.
    """
    votes = np.asarray(given @ np.tile(np.eye(k), (given.shape[1] // k, 1)))
    chances, rounds, moved = votes / votes.sum(axis=1, keepdims=True), 0, 1.0
    while moved > _CLOSE and rounds < _ROUNDS:
        shares = chances.mean(axis=0)
        # By reviewer, by the right label, by the label given.
        errors = np.asarray(given.T @ chances).reshape(-1, k, k).transpose(0, 2, 1) + imagined / k
        errors /= np.maximum(errors.sum(axis=2, keepdims=True), 1e-300)
        logs = np.log(np.maximum(errors, 1e-300)).transpose(0, 2, 1).reshape(-1, k)
        chance = np.log(np.maximum(shares, 1e-300)) + given @ logs
        chance = np.exp(chance - chance.max(axis=1, keepdims=True))
        chance /= chance.sum(axis=1, keepdims=True)
        moved, chances, rounds = float(np.abs(chance - chances).max()), chance, rounds + 1
    return chances, errors, shares, rounds
