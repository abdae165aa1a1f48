"""Which order of the queue pays: ``python benchmarks/orders.py [--data FOLDER] [--sets NAME ...] [--seeds N ...]``.

A pool of records is labeled in each order, after the same 20 in the order of the import. As on the desk, a suggestion
is made anew when its record is opened, and the ensemble is fitted as often as a worker would. All records are suggested
by a run after those 20; later the front of the queue is, after each decision. ``anew`` stands for the same order if all
pending records are suggested again with each fit.

Printed at 50, 100, 200 and 400 approvals, as means of the sets: corrections so far; how many of 100 suggestions are
right on records that are kept apart; how many are wrong in the rest of the pool, which stays wrong if one stops and
takes them; both together, which an order lowers that teaches the ensemble more; and how much was read. Below the oldest
first are differences to it. Each has a 95 % interval: sets, and seeds within them, are drawn anew 2,000 times (Efron
1979).

``similar`` takes what is nearest to the text that was corrected last, as somebody would who looks for more of it.
``value`` is what one decision may save: how doubtful a record is, times how much doubt is near it, over the time that
it takes to read; every fifth is the oldest, so that none waits for ever. ``density`` is the same without the time and
the oldest.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from learning import STREAMS, Label, Stream, approve, imported, interval, label_of, read
from scipy.sparse import csr_matrix

from labeler.backends.ensemble import pool
from labeler.backends.ensemble.backend import EnsembleBackend
from labeler.backends.ensemble.learn import NEIGHBOURS, NGRAMS, SEEDS, VOTE, WORDS
from labeler.backends.nearest import weight
from labeler.retrieval.lexical import BUCKETS, count_ngrams

FIRST, AHEAD, DRAWS, CHECKED = 20, 20, 2000, 20
STOPS = (50, 100, 200, 400)
SETS = ("naver_shopping", "nsmc", "kobest_sentineg", "en_pros_cons", "en_fine_food")
MEASURES = (
    "corrections so far", "right of 100 kept apart", "wrong left in the pool", "corrections and wrong left",
    "thousand characters read",
)  # fmt: skip
_POWER, _FAIR = 4, 5
# What a decision takes beside the reading, in characters: two seconds at twelve a second.
_OTHERWISE = 24


@dataclass
class Pool:
    """What an order may go by: of each record its text's length, vector, doubt and disagreement, NaN if unknown."""

    lengths: np.ndarray
    alike: np.ndarray
    pending: np.ndarray
    doubt: np.ndarray
    disagreement: np.ndarray
    corrected: int | None = None
    decided: int = 0

    def first(self, key: np.ndarray) -> np.ndarray:
        """Return the pending records, largest key first; those without one last, oldest first."""
        waiting = np.flatnonzero(self.pending)
        return waiting[np.argsort(-np.nan_to_num(key[waiting], nan=-np.inf), kind="stable")]


def oldest(waiting: Pool) -> np.ndarray:
    return np.flatnonzero(waiting.pending)


def score(waiting: Pool) -> np.ndarray:
    return waiting.first(waiting.doubt)


def disagreement(waiting: Pool) -> np.ndarray:
    return waiting.first(waiting.disagreement)


def similar(waiting: Pool) -> np.ndarray:
    return oldest(waiting) if waiting.corrected is None else waiting.first(waiting.alike[waiting.corrected])


def _saved(waiting: Pool) -> np.ndarray:
    """Return how doubtful each record is, times how much doubt is near it."""
    near = np.clip(waiting.alike, 0, None) ** _POWER @ (waiting.doubt * waiting.pending)
    saved: np.ndarray = waiting.doubt * near
    return saved


def density(waiting: Pool) -> np.ndarray:
    return waiting.first(_saved(waiting))


def value(waiting: Pool) -> np.ndarray:
    if waiting.decided % _FAIR == 0:
        return oldest(waiting)
    return waiting.first(_saved(waiting) / (_OTHERWISE + waiting.lengths))


Order = Callable[[Pool], np.ndarray]
ORDERS: Mapping[str, tuple[Order, bool]] = {
    "oldest": (oldest, False),
    "score": (score, False),
    "score, anew": (score, True),
    "disagreement": (disagreement, False),
    "similar": (similar, False),
    "density": (density, True),
    "value": (value, True),
}


class Bulk:
    """The ensemble's suggestions for many records at once, as the product makes them one by one, only faster.

    ``rows`` of the texts are approved, one label each. :meth:`check` compares with the product's own.
    """

    def __init__(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        rows, buckets, counts = count_ngrams(texts)
        self.counts = csr_matrix((1 + np.log(counts), (rows, buckets)), shape=(len(texts), BUCKETS))
        self.vectors = vectors

    def suggest(
        self, ensemble: EnsembleBackend, labels: Sequence[Label], approved: Sequence[int], rows: Sequence[int]
    ) -> tuple[list[Label], np.ndarray, np.ndarray]:
        """Return labels, scores, and whether the vote of the neighbours says another label, each (rows,)."""
        fitted, rows = ensemble.fitted, np.asarray(rows)
        assert fitted is not None
        names, learned = list(fitted.labels), fitted.learned
        blocks = ensemble._blocks(self.vectors[rows], self.vectors[rows], [{}] * len(rows), ())
        shares, said = self._votes(names, labels, np.asarray(approved), rows)
        blocks |= {SEEDS: blocks[fitted.seeded], VOTE: shares}
        grams = self.counts[rows][:, learned.vocabulary].multiply(learned.idf).tocsr()
        lengths = np.sqrt(np.asarray(grams.multiply(grams).sum(axis=1)).ravel())
        odds = np.zeros((len(rows), len(names)))
        for member in learned.members:
            if member.name == NGRAMS:
                one = (grams @ member.weights.T) / np.where(lengths > 0, lengths, 1)[:, None]
            else:
                one = (grams > 0) @ member.weights.T if member.name == WORDS else blocks[member.name] @ member.weights.T
            odds += member.share * (one + member.offset)
        found = pool.chances(odds, True)
        best = found.argmax(axis=1)
        return [names[n] for n in best], np.minimum(found.max(axis=1), pool.MOST), best != said

    def _votes(
        self, names: Sequence[str], labels: Sequence[Label], approved: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of labels among the eight nearest approved, and the place of the winner of each."""
        alike = self.vectors[rows] @ self.vectors[approved].T
        near = np.argsort(-alike, axis=1, kind="stable")[:, :NEIGHBOURS]
        weights = np.vectorize(weight)(np.take_along_axis(alike, near, axis=1))
        held = np.array([[labels[n] == name for name in names] for n in approved])[near]
        shares = (held * weights[:, :, None]).sum(axis=1) / weights.sum(axis=1)[:, None]
        return np.hstack([shares, np.zeros((len(rows), 1))]), shares.argmax(axis=1)


@dataclass
class Desk:
    """Labels a pool in one order, by the product's own ensemble."""

    stream: Stream
    texts: Sequence[str]
    labels: Sequence[Label]
    size: int
    order: Order
    anew: bool
    found: dict[int, list[float]] = field(default_factory=dict)

    def run(self) -> dict[int, list[float]]:
        with imported(self.stream, self.texts, self.labels) as self.opened:
            instance, project, task, self.ids = self.opened
            instance.store.db._synchronous = "OFF"
            vectors = instance.embeddings(project).vectors(list(zip(self.ids, self.texts, strict=True)))
            self.bulk, self.ensemble = Bulk(self.texts, vectors), instance.ensemble(project, task)
            own = vectors[: self.size]
            lengths, unknown = np.array([len(text) for text in self.texts[: self.size]]), np.full(self.size, np.nan)
            self.pool = Pool(lengths, own @ own.T, np.ones(self.size, dtype=bool), unknown, unknown.copy())
            np.fill_diagonal(self.pool.alike, 0)
            self.approved: list[int] = []
            self._label()
        return self.found

    def _label(self) -> None:
        waiting, wrong, read_ = self.pool, 0, 0
        self._approve(range(FIRST))
        self._look(oldest(waiting))
        fit = self.ensemble.learned
        for n in range(FIRST, max(stop for stop in STOPS if stop < self.size)):
            waiting.decided = n
            record = int(self.order(waiting)[0])
            missed = self._suggest([record])[0][0] != self.labels[record]
            waiting.corrected = record if missed else waiting.corrected
            wrong, read_ = wrong + missed, read_ + len(self.texts[record])
            self._approve([record])
            if not self.anew:
                self._look(self.order(waiting)[:AHEAD])
            elif self.ensemble.learned != fit:
                self._look(oldest(waiting))
            fit = self.ensemble.learned
            if n + 1 in STOPS:
                self._check()
                self.found[n + 1] = [float(wrong), *self._judged(), read_ / 1000]

    def _approve(self, rows: Sequence[int]) -> None:
        instance, project, task, _ = self.opened
        approve(instance, project, task, [(self.ids[n], self.labels[n]) for n in rows])
        self.approved += rows
        self.pool.pending[list(rows)] = False

    def _suggest(self, rows: Sequence[int]) -> tuple[list[Label], np.ndarray, np.ndarray]:
        return self.bulk.suggest(self.ensemble, self.labels, self.approved, rows)

    def _look(self, rows: Sequence[int]) -> None:
        """Make the suggestions of pending records again, as a run does or a refresh."""
        _, scores, differ = self._suggest(rows)
        self.pool.doubt[rows], self.pool.disagreement[rows] = 1 - scores, differ

    def _judged(self) -> tuple[float, float]:
        """Return the accuracy on what is kept apart, and how many suggestions in the rest of the pool are wrong."""
        apart, rest = range(self.size, len(self.texts)), oldest(self.pool)
        right = [said == self.labels[n] for n, said in zip(apart, self._suggest(apart)[0], strict=True)]
        left = [said != self.labels[n] for n, said in zip(rest, self._suggest(rest)[0], strict=True)]
        return float(np.mean(right)), float(np.sum(left))

    def _check(self) -> None:
        """Stop where the product itself would say something else."""
        instance, project, task, _ = self.opened
        rows = list(range(self.size, self.size + CHECKED))
        made = instance.suggester_now(project, task).now(
            [instance.store.records.get(self.ids[n]) for n in rows], save=False
        )
        labels, scores, differ = self._suggest(rows)
        assert [label_of(one) for one in made] == labels
        assert np.allclose([one.score for one in made], scores, atol=1e-3)
        assert [one.second.value != one.value for one in made] == differ.tolist()


def drawn(found: Mapping[str, Mapping[str, np.ndarray]], name: str, stop: int, measure: int) -> np.ndarray:
    """Return the mean of a measure, less that of the oldest first, as measured and in each draw: float (1 + draws,).

    ``found`` has by set and order the measures, float (seeds, stops, measures), NaN where a set is too small.
    """
    each = [of[name][:, stop, measure] - (name != "oldest") * of["oldest"][:, stop, measure] for of in found.values()]
    each = [values for values in each if not np.isnan(values).any()]
    rng = np.random.default_rng(1)
    means = [np.mean([values.mean() for values in each])]
    for _ in range(DRAWS):
        sets = rng.integers(0, len(each), len(each))
        means.append(np.mean([each[n][rng.integers(0, len(each[n]), len(each[n]))].mean() for n in sets]))
    return np.array(means)


def show(found: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str]) -> None:
    for measure, said in enumerate(MEASURES):
        print(f"\n{said}\n| order | {' | '.join(map(str, STOPS))} |\n|---|{'--:|' * len(STOPS)}")
        for name in names:
            cells = [interval(drawn(found, name, n, measure)) for n in range(len(STOPS))]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def measures(run: Mapping[Any, Sequence[float]]) -> list[list[float]]:
    """Return the measures of a run at each stop, (stops, measures); NaN where the pool was too small."""
    by_stop = {int(stop): values for stop, values in run.items()}
    none = [float("nan")] * 4
    rows = [by_stop.get(stop, none) for stop in STOPS]
    return [[wrong, 100 * right, left, wrong + left, read_] for wrong, right, left, read_ in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description="What each order of the queue saves.")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LABELER_DATA", "data")))
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--orders", nargs="+", default=list(ORDERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--rows", type=int, default=600, help="records in the pool")
    parser.add_argument("--apart", type=int, default=200, help="records kept apart")
    parser.add_argument("--keep", type=Path, help="a file that keeps what was measured, to go on later")
    arguments = parser.parse_args()
    kept = json.loads(arguments.keep.read_text()) if arguments.keep and arguments.keep.exists() else {}
    for seed in arguments.seeds:
        for stream in (stream for stream in STREAMS if stream.name in arguments.sets):
            texts, labels = read(arguments.data, stream, 10**6)
            chosen = np.random.default_rng(seed).permutation(len(texts))[: arguments.rows + arguments.apart]
            size = min(arguments.rows, len(chosen) - min(arguments.apart, len(chosen) // 4))
            texts, labels = [texts[n] for n in chosen], [labels[n] for n in chosen]
            for name in arguments.orders:
                key = f"{stream.name}/{name}/{seed}"
                if key not in kept:
                    order, anew = ORDERS[name]
                    kept[key] = Desk(stream, texts, labels, size, order, anew).run()
                    print(key, kept[key], flush=True)
                    if arguments.keep:
                        arguments.keep.write_text(json.dumps(kept))
    runs = {set_: {name: [measures(kept[f"{set_}/{name}/{seed}"]) for seed in arguments.seeds]
                   for name in arguments.orders} for set_ in arguments.sets}  # fmt: skip
    show({set_: {name: np.array(each) for name, each in of.items()} for set_, of in runs.items()}, arguments.orders)


if __name__ == "__main__":
    main()
