"""The demonstration project: reviews of a grocery shop, written and labelled by hand for Labeler.

They are in the order in which they are shown. The first ten are such that their suggestions are right, or that the
desk marks them as doubtful, so that a newcomer sees what is meant; the others come as they come.

Some of them are approved for all seven tasks when the project is made; the labels of the others are the gold set of
the tests and are never loaded into a project.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from labeler import strictjson
from labeler.backends.ensemble.extract import extracted
from labeler.errors import InputError, not_written
from labeler.ingest.cells import read_label
from labeler.ingest.clusters import sign_reviews
from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.records import Record
from labeler.store import NewRecord, Tx

NAME = "장보기 리뷰(데모)"
_NAME_BEFORE = "장보기 리뷰 (demo)"
STARS = "별점"
"""The column of the metadata that holds the stars, as the sample's Korean file has it."""
ORIGIN = "demonstration"
_SAMPLES = {
    "ko": ("reviews-ko.csv", "", ("번호", "상품명", "별점", "리뷰내용", "감성")),
    "en": ("reviews-en.csv", "R", ("id", "product", "rating", "review", "sentiment")),
}
_SENTIMENTS = {"positive": "긍정", "neutral": "중립", "negative": "부정"}


def reviews() -> list[dict[str, Any]]:
    """Return all reviews: id, product, lang, rating, text, approved, and the gold labels by task.

    Fifteen have an ``edge``: what about them the guidelines of every task name, such as a text of emoji alone.
    """
    text = resources.files("labeler.demo").joinpath("reviews.jsonl").read_text(encoding="utf-8")
    return [strictjson.loads(line) for line in text.split("\n") if line]


def write_sample(folder: Path) -> list[Path]:
    """Write the reviews as a shop exports them, a CSV file a language, for Excel; return the files.

    A column holds the sentiment of those that are approved in the demonstration, which come first: somebody has begun.
    Raises :class:`InputError` for a file that is there, and writes none then; the :class:`LabelerError` of a full disk.
    """
    files = {language: folder / name for language, (name, *_) in _SAMPLES.items()}
    there = [str(path) for path in files.values() if path.exists()]
    if there:
        raise InputError(f"{' and '.join(there)} would be overwritten; name another folder, or move what is there")
    rows = sorted(reviews(), key=lambda row: not row["approved"])
    for language, path in files.items():
        _, mark, titles = _SAMPLES[language]
        said = [row for row in rows if row["lang"] == language]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8-sig", newline="") as stream:
                table = csv.writer(stream)
                table.writerow(titles)
                table.writerows((f"{mark}{number}", *_sample_row(row)) for number, row in enumerate(said, 1))
        except OSError as error:
            raise not_written(path, error) from error
    return list(files.values())


def _sample_row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    sentiment = row["labels"]["sentiment"] if row["approved"] else ""
    if row["lang"] == "ko":
        sentiment = _SENTIMENTS.get(sentiment, "")
    return row["product"], row["rating"], row["text"], sentiment


def gold(instance: Instance, project: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the canonical gold labels by review id and task, as the project's tasks have them."""
    tasks = instance.tasks_of(project)
    return {
        row["id"]: {name: read_label(task.schema, row["labels"][name], row["text"]) for name, task in tasks.items()}
        for row in reviews()
    }


def create(instance: Instance, reviewer_id: int) -> dict[str, Any]:
    """Make the demonstration project if it is not there, and return it; its labels are queued for the worker."""
    existing = [project for project in instance.store.projects.all() if project["name"] in (NAME, _NAME_BEFORE)]
    if existing:
        return existing[0]
    # A plugin of the folder may have a task that these reviews have no labels of.
    tasks = [name for name in instance.plugins.tasks if name in reviews()[0]["labels"]]
    project_id = instance.create_project(NAME, "ko", {"tasks": tasks}, reviewer_id)
    store, project = instance.store, instance.store.projects.get(project_id)
    rows = reviews()
    labels = gold(instance, project)
    rooms = {name: instance.decisions(project, task) for name, task in instance.tasks_of(project).items()}

    def work(tx: Tx) -> None:
        news = [NewRecord(r["id"], r["text"], r["product"], {STARS: r["rating"]}) for r in rows]
        stored = store.records.add(tx, project_id, news, tasks)
        for row, result in zip(rows, stored, strict=True):
            for name, room in rooms.items() if row["approved"] else ():
                record = Record(result.id, project_id, row["id"], row["text"])
                room.import_label(tx, record, labels[row["id"]][name], ORIGIN, reviewer_id)

    store.write(work)
    sign_reviews(store, project_id)
    # Texts and keywords are suggested as records are opened, where that helps.
    for name in (name for name in tasks if not extracted(instance.task_of(project, name).schema)):
        pending = runs.select(store, project_id, name, None, False)
        settings = {"backend": instance.default_backend(project, instance.task_of(project, name))}
        runs.start(store, project_id, name, pending, settings, reviewer_id=reviewer_id)
    return project
