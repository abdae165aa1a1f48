"""How far reviewers agree with each other on the records that several of them labeled.

Each coefficient is one minus the disagreement that was seen over the one that chance would show: 1 where all agree, 0
where they agree no more than chance. They differ in what they take for chance. Cohen's kappa (1960) has each of two
reviewers keep their own labels. Fleiss' kappa (1971) draws from the labels of all, and each record counts the same.
Krippendorff's alpha (2011) draws from the labels of all, without putting one back, and each label counts the same.

How far two labels are apart is what the kind of label says (``LabelSchema.disagreement``), so each coefficient is
weighted where labels are apart by degrees, after Cohen (1968), Gwet (2014) and Krippendorff. Records that one reviewer
labeled say nothing of agreement, and are in none of the numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler import strictjson
from labeler.evaluation.measures import SEED, Measure, cohen, measured, weights
from labeler.labels import LabelSchema
from labeler.prelabel.stack import wilson
from labeler.records import Value
from labeler.sentence import N_, Sentence

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

MOST = 300
"""Where there are more different values, as of texts, chance is taken from so many labels that are drawn."""
FEW = N_("Fewer than 2 records were labeled by two reviewers")
FEW_OF_BOTH = N_("Fewer than 2 records were labeled by both")
ALIKE = N_("All labels are the same, so nothing tells agreement from chance")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its interval, or ``why`` there is none."""

    measure: Measure | None = None
    why: Sentence | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """How far two reviewers agree on the ``n`` records that both labeled."""

    first: Hashable
    second: Hashable
    n: int
    agreement: Figure
    kappa: Figure


@dataclass(frozen=True, slots=True)
class OfLabel:
    """How far reviewers agree on whether a record has one label, which was given ``n`` times."""

    n: int
    alpha: Figure


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far reviewers agree on the ``n`` records that two or more of them labeled.

    ``agreement`` is that of the kind of label, of two reviewers of a record on average: not corrected for chance.
    ``pairs`` are those with a record in common, ``labels`` go from the most frequent to the rarest.
    """

    n: int
    agreement: Figure
    alpha: Figure
    fleiss: Figure
    pairs: list[Pair] = field(default_factory=list)
    labels: Mapping[str, OfLabel] = field(default_factory=dict)


def agreement_of(schema: LabelSchema, answers: Mapping[Any, Mapping[Any, Value]]) -> Agreement:
    """Return how far reviewers agree; ``answers`` are canonical values by record and reviewer.

    Intervals hold with 95 %: the records are drawn again 1,000 times, and all numbers share the draws.
    """
    from threadpoolctl import threadpool_limits

    several = [given for given in answers.values() if len(given) > 1]
    if len(several) < 2:
        none = Figure(why=Sentence(FEW))
        return Agreement(len(several), none, none, none)
    # Many small products: handing them out to threads takes longer than they do.
    with threadpool_limits(1):
        table = _Table(schema, several)
        return Agreement(table.n, table.agreement(), table.alpha(), table.fleiss(), table.pairs(), table.labels())


def by_part(schema: LabelSchema, answers: Mapping[Any, Mapping[Any, Value]]) -> dict[str, dict[Any, dict[Any, Value]]]:
    """Return the answers of each part of a schema (``LabelSchema.split``), in the shape that ``answers`` have."""
    found: dict[str, dict[Any, dict[Any, Value]]] = {name: {} for name in schema.split()}
    for record, given in answers.items():
        for reviewer, value in given.items():
            for name, part in schema.spread(value).items():
                if part is not None:
                    found[name].setdefault(record, {})[reviewer] = part
    return found


class _Table:
    """The labels of ``n`` records by ``k`` reviewers, as numbers of ``values``: int (n, k), -1 where one gave none."""

    def __init__(self, schema: LabelSchema, several: list[Mapping[Any, Value]]) -> None:
        self.schema, self.n = schema, len(several)
        people = {person: n for n, person in enumerate(dict.fromkeys(one for given in several for one in given))}
        self.people, known = list(people), dict[str, int]()
        self.values: list[Value] = []
        self.codes = np.full((self.n, len(people)), -1)
        for row, given in enumerate(several):
            for person, value in given.items():
                key = strictjson.dumps(value, sort_keys=True)
                if key not in known:
                    known[key] = len(known)
                    self.values.append(value)
                self.codes[row, people[person]] = known[key]
        self.given = np.asarray((self.codes >= 0).sum(axis=1), dtype=np.float32)
        self.drawn = weights(self.n)

    # What was seen

    @cached_property
    def met(self) -> list[tuple[int, int, Array]]:
        """The pairs of reviewers with records in common, as columns, and the rows of these records."""
        found = [(a, b, self._rows(a, b)) for a, b in combinations(range(len(self.people)), 2)]
        return [one for one in found if len(one[2])]

    def _rows(self, a: int, b: int) -> Array:
        return np.flatnonzero((self.codes[:, a] >= 0) & (self.codes[:, b] >= 0))

    def _seen(self, apart: Callable[[Value, Value], float]) -> list[Array]:
        """Return how far the labels of each pair of reviewers are apart, record by record; each two values once."""
        lows, highs = (
            np.concatenate([pick(self.codes[rows, a], self.codes[rows, b]) for a, b, rows in self.met])
            for pick in (np.minimum, np.maximum)
        )
        codes, where = np.unique(np.stack([lows, highs], axis=1), axis=0, return_inverse=True)
        found = np.array([apart(self.values[a], self.values[b]) for a, b in codes.tolist()])[where.reshape(-1)]
        return np.split(found, np.cumsum([len(rows) for _, _, rows in self.met])[:-1])

    def _of_records(self, seen: list[Array]) -> Array:
        """Return the mean over the pairs of reviewers of each record: float32 (n,)."""
        found = np.zeros(self.n)
        for (_, _, rows), one in zip(self.met, seen, strict=True):
            found[rows] += one
        return np.asarray(found / (self.given * (self.given - 1) / 2), dtype=np.float32)

    @cached_property
    def unlike(self) -> list[Array]:
        return self._seen(lambda a, b: 1.0 - self.schema.agreement(a, b))

    @cached_property
    def apart(self) -> list[Array]:
        """What alpha and kappa weigh by, as a share of the most that two labels are apart."""
        return [one / self.most for one in self._seen(self.schema.disagreement)]

    # What chance would show

    @cached_property
    def exact(self) -> bool:
        return len(self.values) <= MOST

    @cached_property
    def chosen(self) -> tuple[Array, Array]:
        """The labels that chance draws from, as rows and columns of the table."""
        rows, columns = np.nonzero(self.codes >= 0)
        if self.exact:
            return rows, columns
        some = np.sort(np.random.default_rng(SEED).choice(len(rows), MOST, replace=False))
        return rows[some], columns[some]

    @cached_property
    def matrix(self) -> Array:
        """How far the different values among :attr:`chosen` are apart: float (k, k)."""
        codes = np.unique(self.codes[self.chosen])
        found = np.zeros((len(codes), len(codes)))
        for a, b in combinations(range(len(codes)), 2):
            found[a, b] = found[b, a] = self.schema.disagreement(self.values[codes[a]], self.values[codes[b]])
        return found

    @cached_property
    def most(self) -> float:
        return float(self.matrix.max()) or 1.0

    def _by_chance(self, each: Array, put_back: bool) -> Array:
        """Return how far two labels are apart that are drawn from those of all; ``each`` label counts so much: (n,)."""
        rows, columns = self.chosen
        codes, where = np.unique(self.codes[rows, columns], return_inverse=True)
        counts = np.zeros((self.n, len(codes)), dtype=np.float32)
        np.add.at(counts, (rows, where), each[rows])
        share = (self.drawn @ counts).astype(float)
        total = share.sum(axis=1)
        others = total if put_back else total - 1
        return np.asarray(((share @ (self.matrix / self.most)) * share).sum(axis=1) / np.maximum(total * others, 1e-9))

    @cached_property
    def chance(self) -> Array:
        """That of alpha: float (1 + draws,)."""
        return self._by_chance(np.ones(self.n), put_back=False)

    # Numbers

    def agreement(self) -> Figure:
        seen = self._mean(self._of_records(self.unlike), np.ones(self.n, dtype=np.float32))
        return _figure(seen, np.ones(len(self.drawn)), self.n)

    def alpha(self) -> Figure:
        seen = self._mean(self._of_records(self.apart), self.given)
        return _figure(seen, self.chance, self.n)

    def fleiss(self) -> Figure:
        """Records may have different numbers of labels, as Gwet (2014) has it; those of a record count as one."""
        seen = self._mean(self._of_records(self.apart), np.ones(self.n, dtype=np.float32))
        return _figure(seen, self._by_chance(1 / self.given, put_back=True), self.n)

    def _mean(self, of_records: Array, counts: Array) -> Array:
        return np.asarray(self.drawn @ (of_records * counts) / (self.drawn @ counts))

    def pairs(self) -> list[Pair]:
        found = zip(self.met, self.unlike, self.apart, strict=True)
        return [self._pair(a, b, rows, unlike, apart) for (a, b, rows), unlike, apart in found]

    def _pair(self, a: int, b: int, rows: Array, unlike: Array, apart: Array) -> Pair:
        names = self.people[a], self.people[b]
        if len(rows) < 2:
            none = Figure(why=Sentence(FEW_OF_BOTH))
            return Pair(*names, len(rows), none, none)
        drawn = self.drawn[:, rows]
        times = drawn.sum(axis=1)
        # What has none of their records says nothing of them.
        some, times = np.minimum(times, 1), np.maximum(times, 1)
        seen, chance = drawn @ apart.astype(np.float32) / times, self.chance * some
        # Of two reviewers alone too few labels would be chosen; where hardly two are the same, those of all will do.
        if self.exact:
            seen, chance = cohen(drawn, self.codes[rows, a], self.codes[rows, b], self.matrix / self.most)
        agreement = _figure(drawn @ unlike.astype(np.float32) / times, some, len(rows))
        return Pair(*names, len(rows), agreement, _figure(seen, chance, len(rows)))

    def labels(self) -> dict[str, OfLabel]:
        """One label against all others: alpha, where two labels are alike if both have it or neither."""
        strata = [set(self.schema.strata(value)) for value in self.values]
        names = sorted(set().union(*strata))
        member = np.array([[name in one for name in names] for one in strata], dtype=np.float32)
        # The last row is for those who gave none.
        member = np.vstack([member, np.zeros_like(member[:1])])
        yes = np.sum([member[codes].astype(np.uint8) for codes in self.codes.T], axis=0, dtype=np.float32)
        given = self.given[:, None]
        n, has = self.drawn @ given, self.drawn @ yes
        seen = 2 * (self.drawn @ (yes * (given - yes) / (given - 1))) / n
        chance = 2 * has * (n - has) / (n * (n - 1))
        counts = Counter(dict(zip(names, yes.sum(axis=0).astype(int).tolist(), strict=True)))
        where = {name: column for column, name in enumerate(names)}
        return {
            name: OfLabel(times, _figure(seen[:, where[name]], chance[:, where[name]], self.n))
            for name, times in counts.most_common()
        }


def _figure(seen: Array, chance: Array, n: int) -> Figure:
    """Return one minus ``seen`` over ``chance``, each (1 + draws,): disagreement on ``n`` records."""
    if chance[0] <= 0:
        return Figure(why=Sentence(ALIKE))
    # A draw of labels that are all the same says nothing, as a sample of such labels would.
    told = chance > 0
    found = measured(1 - seen[told] / chance[told])
    if not seen.any():
        # No draw disagrees either, but so few records would not show that some do.
        found = replace(found, low=max(-1.0, 1 - wilson(0.0, n)[1] / float(chance[0])))
    return Figure(found)
