"""How fast the free suggestion learns: ``python benchmarks/learning.py [--data FOLDER] [--sets NAME ...]``.

The last rows of a data set come in as a stream. Each is suggested from the approvals before it, as the desk would, and
then approved with its own label; what a worker fits in the background is fitted as often as it would be. Counted are
corrections: suggestions that are not the label, or none at all. Beside the default of a project without a model stand
the vote of the neighbours, which was the default of 0.1.0; the default frozen after 20 approvals; TF-IDF of character
n-grams with a linear support vector machine, fitted anew at every 25 approvals; and the commonest label so far.
``--e5`` adds the default on the vectors of e5, which needs the extra ``e5``.

Printed are corrections per 1,000 by window, and over the first 700 the ratio to the vote with a 95 % interval: the rows
are drawn anew 2,000 times, for all ways at once (paired bootstrap; Efron 1979). The last line is the mean of the sets.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from fit_lexical import held_out
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.svm import LinearSVC

from labeler.instance import Instance
from labeler.records import BackendFailure, Suggestion
from labeler.store import NewRecord
from labeler.task import Task

FROZEN, REFIT, COMPARED, DRAWS = 20, 25, 700, 2000
WINDOWS = ((0, 50), (50, 200), (200, 500), (500, 800))
VOTE, DEFAULT, DEFAULT_E5 = "vote", "default", "default, e5"
Label = str | tuple[str, ...]
Suggest = Callable[[int], Label | None]


@dataclass(frozen=True)
class Stream:
    """``fitted``: the lexical embedder was fitted on its labels, so that only the rows that were left out are taken."""

    name: str
    language: str
    task: str = "sentiment"
    fitted: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


STREAMS = (
    Stream("naver_shopping", "ko"),
    Stream("nsmc", "ko", fitted=True),
    Stream("kobest_sentineg", "ko"),
    Stream("en_pros_cons", "en", fitted=True),
    Stream("en_fine_food", "en"),
    Stream("en_mams_categories", "en", "categories"),
)


def read(folder: Path, stream: Stream, rows: int) -> tuple[list[str], list[Label]]:
    """Return texts and labels of the last rows of a data set."""
    with gzip.open(folder / f"{stream.name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    found = [row for row in found if not stream.fitted or held_out(row)][-rows:]
    labels = [row["label"] if "label" in row else tuple(sorted(row["labels"])) for row in found]
    return [row["text"] for row in found], labels


@contextmanager
def imported(
    stream: Stream, texts: Sequence[str], labels: Sequence[Label], embedder: str = "lexical"
) -> Iterator[tuple[Instance, dict[str, Any], Task, list[int]]]:
    """Open a project with the texts as pending records, and with the labels that there are where they are sets."""
    with tempfile.TemporaryDirectory() as name, Instance(Path(name)) as instance:
        project_id = instance.create_project("stream", stream.language, {"tasks": [stream.task], "embedder": embedder})
        if isinstance(labels[0], tuple):
            names = sorted({label for found in labels for label in found})
            instance.change_task(project_id, stream.task, {"labels": [{"name": name} for name in names]})
        store, project = instance.store, instance.store.projects.get(project_id)
        task = instance.project_task(project, stream.task)
        news = [NewRecord(f"r{n}", text) for n, text in enumerate(texts)]
        ids = [one.id for one in store.write(lambda tx: store.records.add(tx, project_id, news, [task.name]))]
        for _ in instance.chosen_embeddings(project).fill(project_id):
            pass
        yield instance, project, task, ids


def approve(instance: Instance, project: Mapping[str, Any], task: Task, decided: Sequence[tuple[int, Label]]) -> None:
    """Approve records (id, label) that are pending, and fit as often as a worker would."""
    decisions, store = instance.decisions(project, task), instance.store
    pending = store.work.pending_among(project["id"], task.name, [id_ for id_, _ in decided])
    rows = [(id_, list(label) if isinstance(label, tuple) else label) for id_, label in decided if id_ in pending]
    store.write(lambda tx: decisions.import_labels(tx, rows, "stream", None))
    ensemble = instance.ensemble(project, task)
    if ensemble.supports(task.schema) and ensemble.stale():
        ensemble.fit()


def label_of(made: Suggestion | BackendFailure) -> Label | None:
    value = made.value if isinstance(made, Suggestion) else None
    return tuple(sorted(map(str, value))) if isinstance(value, list) else value if value is None else str(value)


@contextmanager
def product(
    stream: Stream, texts: Sequence[str], labels: Sequence[Label], backend: str = "", embedder: str = "lexical",
    stop: int | None = None,
) -> Iterator[Suggest]:  # fmt: skip
    """Suggest as a project does whose first records were approved, at most ``stop`` of them."""
    with imported(stream, texts, labels, embedder) as (instance, project, task, ids):

        def suggest(n: int) -> Label | None:
            if n and (stop is None or n <= stop):
                approve(instance, project, task, [(ids[n - 1], labels[n - 1])])
            chosen = instance.suggester(project, task, {"backend": backend}) if backend else None
            suggester = chosen or instance.suggester_now(project, task)
            return label_of(suggester.now([instance.store.records.get(ids[n])], save=False)[0])

        yield suggest


def commonest(labels: Sequence[Label]) -> Suggest:
    return lambda n: Counter(labels[:n]).most_common(1)[0][0] if n else None


def tf_idf(texts: Sequence[str], labels: Sequence[Label]) -> Suggest:
    """Suggest by what one would write in an afternoon: fitted anew at every 25 approvals."""
    fitted: dict[str, Any] = {}

    def fit(n: int) -> None:
        vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)
        vectors = vectorizer.fit_transform(texts[:n])
        several = isinstance(labels[0], tuple)
        if several:
            binary = MultiLabelBinarizer()
            model = OneVsRestClassifier(LinearSVC()).fit(vectors, binary.fit_transform(labels[:n]))
            fitted.update(vectorizer=vectorizer, model=model, binary=binary)
        elif len(set(labels[:n])) > 1:
            fitted.update(vectorizer=vectorizer, model=LinearSVC().fit(vectors, list(labels[:n])))

    def suggest(n: int) -> Label | None:
        if n and (n % REFIT == 0 or n in (5, 10)):
            fit(n)
        if not fitted:
            return commonest(labels)(n)
        found = fitted["model"].predict(fitted["vectorizer"].transform([texts[n]]))
        return tuple(sorted(fitted["binary"].inverse_transform(found)[0])) if "binary" in fitted else str(found[0])

    return suggest


def corrections(suggest: Suggest, labels: Sequence[Label]) -> np.ndarray:
    """Return whether each suggestion has to be corrected: bool (rows,)."""
    return np.array([suggest(n) != label for n, label in enumerate(labels)])


def replay(stream: Stream, texts: Sequence[str], labels: Sequence[Label], e5: bool) -> dict[str, np.ndarray]:
    ways = {
        VOTE: product(stream, texts, labels, backend="nearest"),
        "frozen at 20": product(stream, texts, labels, stop=FROZEN),
        DEFAULT: product(stream, texts, labels),
    }
    if e5:
        ways[DEFAULT_E5] = product(stream, texts, labels, embedder="e5")
    found = {"commonest": corrections(commonest(labels), labels), "TF-IDF": corrections(tf_idf(texts, labels), labels)}
    for name, way in ways.items():
        with way as suggest:
            found[name] = corrections(suggest, labels)
    return found


def ratios(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return corrections over those of the vote, as measured and in each draw: float (1 + draws,)."""
    size = min(COMPARED, len(found[VOTE]))
    rng = np.random.default_rng(1)
    draws = np.vstack([np.arange(size), rng.integers(0, size, (DRAWS, size))])
    base = np.maximum(found[VOTE][draws].sum(axis=1), 1)
    return {name: wrong[draws].sum(axis=1) / base for name, wrong in found.items()}


def interval(drawn: np.ndarray) -> str:
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return f"{drawn[0]:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description="Corrections per 1,000 decisions as approvals come in.")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LABELER_DATA", "data")))
    parser.add_argument("--sets", nargs="+", default=[stream.name for stream in STREAMS])
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--e5", action="store_true")
    arguments = parser.parse_args()
    of_all: dict[str, list[np.ndarray]] = {}
    for stream in (stream for stream in STREAMS if stream.name in arguments.sets):
        texts, labels = read(arguments.data, stream, arguments.rows)
        found = replay(stream, texts, labels, arguments.e5)
        drawn = ratios(found)
        windows = [(first, min(last, len(labels))) for first, last in WINDOWS if first < len(labels)]
        columns = " | ".join(f"{a} to {b}" for a, b in windows)
        print(f"\n{stream.name}, {len(labels)} rows\n| way | {columns} | all | to the vote |")
        print("|---|" + "--:|" * (len(windows) + 2))
        for name, wrong in found.items():
            cells = [f"{1000 * wrong[a:b].mean():.0f}" for a, b in windows]
            print(f"| {name} | {' | '.join(cells)} | {1000 * wrong.mean():.0f} | {interval(drawn[name])} |", flush=True)
            if stream.task == "sentiment" and stream.name != "en_fine_food":
                of_all.setdefault(name, []).append(drawn[name])
    if of_all:
        print("\nmean of the sentiment sets: " + "; ".join(
            f"{name} {interval(np.mean(each, axis=0))}" for name, each in of_all.items()))  # fmt: skip


if __name__ == "__main__":
    main()
