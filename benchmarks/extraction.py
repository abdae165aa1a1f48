"""What free suggestions of texts and keywords are worth: ``python benchmarks/extraction.py [--data FOLDER]``.

The demonstration's reviews, products left out a tenth at a time: all reviews of a product are suggested from the
approved ones of other products, through the product's own code. A second pass approves the gold labels of all reviews
of other products, as a project has them that has gone on. English reviews of the data folder follow, in ten folds:
``keywords`` are the aspects of ``en_product_reviews``, ``usage`` is the buyer's headline in ``en_fine_food``.

Printed are agreement (the task's own measure), the characters that have to be corrected (edit distance), and the share
of records with a suggestion, with 95 % intervals from 2,000 draws of the records. Beside the suggestion stand a blank
form and the best of the trivial ways: the first sentence or the whole text under one part or under all, every clause or
chunk of words as a keyword, the commonest answer.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from labeler.backends.ensemble.extract import corrections
from labeler.backends.ensemble.pieces import clauses_of, words_of
from labeler.demo import reviews
from labeler.errors import LabelError
from labeler.ingest.cells import read_label
from labeler.instance import Instance
from labeler.labels import Choices, Fields, Keywords, LabelSchema
from labeler.records import Suggestion
from labeler.store import NewRecord
from labeler.text import split_sentences

TASKS = ("keywords", "usage", "summary_polarity", "summary_category", "categories")
DRAWS = 2000
FOLDS = 10
Way = Callable[[str], Any]


@dataclass(frozen=True)
class Row:
    """A text with its label; ``group`` is left out together, ``approved`` rows are learned from."""

    text: str
    label: Any
    group: str
    approved: bool = True


def demonstration(task: str, everything: bool) -> list[Row]:
    products = sorted({r["product"] for r in reviews()})
    fold = {product: str(n % FOLDS) for n, product in enumerate(products)}
    return [Row(r["text"], r["labels"][task], fold[r["product"]], everything or r["approved"]) for r in reviews()]


def english(folder: Path, name: str) -> list[Row]:
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    if name == "en_fine_food":
        return [Row(row["text"], row["summary"][:300], str(n % FOLDS)) for n, row in enumerate(found)]
    short = [row for row in found if len(row["text"]) < 1500]
    return [Row(row["text"], apart(row["text"], row["keywords"]), str(n % FOLDS)) for n, row in enumerate(short)]


def apart(text: str, words: Sequence[str]) -> list[str]:
    """Return the keywords that stand in the text and do not overlap, the longer ones first, at most ten."""
    kept: list[str] = []
    for word in sorted(dict.fromkeys(words), key=lambda word: -len(word)):
        try:
            Keywords().parse([*kept, word], text)
        except LabelError:
            continue
        kept.append(word)
    return kept


def suggested(task_name: str, language: str, rows: Sequence[Row]) -> Iterator[tuple[LabelSchema, Row, Any, Any]]:
    """Yield schema, row, suggested value (None for a blank form) and canonical label, group after group."""
    for group in sorted({row.group for row in rows}):
        with tempfile.TemporaryDirectory() as name, Instance(Path(name)) as instance:
            id_ = instance.create_project("cut", language, {"tasks": [task_name]})
            store, project = instance.store, instance.store.projects.get(id_)
            task = instance.project_task(project, task_name)
            texts = {str(n): row for n, row in enumerate(rows)}
            news = [NewRecord(key, row.text, row.group) for key, row in texts.items()]
            stored = store.write(lambda tx: store.records.add(tx, id_, news, [task.name]))  # noqa: B023
            ids = {key: one.id for key, one in zip(texts, stored, strict=True)}
            labels = {key: canonical(task.schema, row) for key, row in texts.items()}
            known = [(ids[key], labels[key]) for key, row in texts.items() if row.approved and row.group != group]
            decisions = instance.decisions(project, task)
            store.write(lambda tx: decisions.import_labels(tx, known, "benchmark", None))  # noqa: B023
            for _ in instance.chosen_embeddings(project).fill(id_):
                pass
            instance.ensemble(project, task).fit()
            suggester = instance.suggester_now(project, task)
            for key, row in texts.items():
                if row.group == group:
                    (made,) = suggester.now([store.records.get(ids[key])], save=False)
                    yield task.schema, row, made.value if isinstance(made, Suggestion) else None, labels[key]


def canonical(schema: LabelSchema, row: Row) -> Any:
    return read_label(schema, row.label, row.text)


def trivial(schema: LabelSchema, labels: Sequence[Any]) -> dict[str, Way]:
    """Return ways of answering that anybody could write in a minute; the commonest answer knows all labels."""
    commonest = Counter(json.dumps(label, ensure_ascii=False) for label in labels).most_common(1)[0][0]
    found: dict[str, Way] = {"commonest answer": lambda _: json.loads(commonest)}
    if isinstance(schema, Keywords):
        found["each clause"] = lambda text: keywords(schema, text, clauses_of(text))
        for size in (2, 3, 4):
            found[f"each {size} words"] = lambda text, size=size: keywords(schema, text, chunks(text, size))
        del found["commonest answer"]
    elif not isinstance(schema, Choices):
        held = Counter(name for label in labels for name in schema.strata(label) if name in schema.split())
        first = held.most_common(1)[0][0] if held else ""
        for what, cut in (("first sentence", first_sentence), ("whole text", str)):
            found[what] = lambda text, cut=cut: filled(schema, cut(text), [first])
            if isinstance(schema, Fields):
                found[f"{what}, all parts"] = lambda text, cut=cut: filled(schema, cut(text), list(schema.parts))
    return found


def first_sentence(text: str) -> str:
    return next((text[a:b] for a, b in split_sentences(text)), text)


def filled(schema: Any, words: str, names: Sequence[str]) -> Any:
    if not isinstance(schema, Fields):
        return words[: schema.maximum].strip()
    return {name: words[: schema.parts[name].maximum].strip() for name in names}


def chunks(text: str, size: int) -> list[tuple[int, int]]:
    words = words_of(text)
    return [(words[n][0], words[min(n + size, len(words)) - 1][1]) for n in range(0, len(words), size)]


def keywords(schema: Keywords, text: str, spans: Sequence[tuple[int, int]]) -> Any:
    short = [(a, b) for a, b in spans if b - a <= schema.longest][: schema.maximum]
    return [{"text": text[a:b], "start": a, "end": b} for a, b in short]


def judged(schema: LabelSchema, given: Any, label: Any) -> tuple[float, int]:
    """Return agreement, and the characters to correct; a blank form is the empty value."""
    value = schema.empty() if given is None else given
    agreement = 0.0 if value is None else schema.agreement(value, label)
    if not isinstance(schema, Fields):
        return agreement, corrections(schema, value, label)
    both = schema.spread(value), schema.spread(label)
    return agreement, sum(corrections(part, both[0][name], both[1][name]) for name, part in schema.parts.items())


def interval(numbers: Sequence[float], digits: int) -> str:
    all_ = np.array(numbers, dtype=float)
    drawn = all_[np.random.default_rng(1).integers(0, len(all_), (DRAWS, len(all_)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{all_.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def report(title: str, task: str, language: str, rows: Sequence[Row]) -> None:
    found = list(suggested(task, language, rows))
    schema, labels = found[0][0], [label for _, _, _, label in found]
    ways: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for name, way in trivial(schema, labels).items():
        ways[name] = [judged(schema, way(row.text), label) for _, row, _, label in found]
    best = max(ways, key=lambda name: np.mean([agreement for agreement, _ in ways[name]]))
    shown: Mapping[str, Sequence[tuple[float, int]]] = {
        "suggested": [judged(schema, value, label) for _, _, value, label in found],
        "blank": [judged(schema, None, label) for _, _, _, label in found],
        best: ways[best],
    }
    given = np.mean([value is not None and not schema.says_nothing(value) for _, _, value, _ in found])
    for name, numbers in shown.items():
        agreement, typed = ([one[n] for one in numbers] for n in (0, 1))
        share = f"{given:.2f}" if name == "suggested" else ""
        cells = [title, task, name, interval(agreement, 3), interval(typed, 1), share]
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Agreement and corrections of texts and keywords that are cut out.")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LABELER_DATA", "data")))
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    arguments = parser.parse_args()
    print("| set | task | way | agreement | characters to correct | suggested |\n|---|---|---|--:|--:|--:|")
    for task in arguments.tasks:
        report("demonstration, 60 approved", task, "ko", demonstration(task, False))
        report("demonstration, all", task, "ko", demonstration(task, True))
    if (arguments.data / "en_fine_food.jsonl.gz").exists():
        report("en_product_reviews", "keywords", "en", english(arguments.data, "en_product_reviews"))
        report("en_fine_food", "usage", "en", english(arguments.data, "en_fine_food"))


if __name__ == "__main__":
    main()
