"""The demonstration project: 260 reviews of a grocery shop, written and labelled by hand for Labeler.

Sixty of them are approved for all seven tasks when the project is made; the labels of the others are the gold set
of the tests and are never loaded into a project.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from labeler import strictjson
from labeler.ingest.cells import read_label
from labeler.ingest.duplicates import near_duplicate, signed
from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.records import Record
from labeler.store import NewRecord, Tx

NAME = "장보기 리뷰 (demo)"
ORIGIN = "demonstration"


def reviews() -> list[dict[str, Any]]:
    """Return all reviews: id, product, lang, rating, text, approved, and the gold labels by task."""
    text = resources.files("labeler.demo").joinpath("reviews.jsonl").read_text(encoding="utf-8")
    return [strictjson.loads(line) for line in text.split("\n") if line]


def gold(instance: Instance, project: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the canonical gold labels by review id and task, as the project's tasks have them."""
    tasks = instance.tasks_of(project)
    return {
        row["id"]: {name: read_label(task.schema, row["labels"][name], row["text"]) for name, task in tasks.items()}
        for row in reviews()
    }


def create(instance: Instance, reviewer_id: int) -> dict[str, Any]:
    """Make the demonstration project if it is not there, and return it. Suggestions are queued for the worker."""
    existing = [project for project in instance.store.projects.all() if project["name"] == NAME]
    if existing:
        return existing[0]
    tasks = list(instance.plugins.tasks)
    project_id = instance.create_project(NAME, "ko", {"tasks": tasks}, reviewer_id)
    store, project = instance.store, instance.store.projects.get(project_id)
    rows = reviews()
    labels = gold(instance, project)
    rooms = {name: instance.decisions(project, task) for name, task in instance.tasks_of(project).items()}

    def work(tx: Tx) -> None:
        news = [signed(NewRecord(r["id"], r["text"], r["product"], {"rating": r["rating"]})) for r in rows]
        stored = store.records.add(tx, project_id, news, tasks, similar=near_duplicate)
        for row, result in zip(rows, stored, strict=True):
            for name, room in rooms.items() if row["approved"] else ():
                record = Record(result.id, project_id, row["id"], row["text"])
                room.import_label(tx, record, labels[row["id"]][name], ORIGIN, reviewer_id)

    store.write(work)
    for name in tasks:
        pending = runs.select(store, project_id, name, None, False)
        settings = {"backend": instance.default_backend(project, instance.task_of(project, name))}
        runs.start(store, project_id, name, pending, settings, reviewer_id=reviewer_id)
    return project
