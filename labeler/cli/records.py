"""``labeler records``: what a query finds, on the screen or as lines for other programs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from labeler import strictjson
from labeler.cli.base import cli, with_readable_instance

if TYPE_CHECKING:
    from labeler.annotation.table import RecordTable
    from labeler.instance import Instance
    from labeler.store import Row
    from labeler.task import Task

TEXT, CSV, JSONL = "text", "csv", "jsonl"
_OF_TASK = ("state", "label", "suggested", "score", "agreement", "by", "how", "decided", "flagged", "asked")
_WIDTH = 60


@cli.command(name="records")
@click.option("--project", required=True, metavar="NAME")
@click.option(
    "--task", "task_name", metavar="TASK", help="The task that the query is about; task:TASK in it says it too"
)
@click.option("--query", default="", metavar="QUERY", help="Words and fields, such as 'state:pending score<0.6 배송'")
@click.option(
    "--sort", default="newest", show_default=True, help="The order",
    type=click.Choice(["newest", "oldest", "lowest", "highest", "decided"]),
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N records")
@click.option("--format", "form", type=click.Choice([TEXT, CSV, JSONL]), default=TEXT, show_default=True)
@click.option("--count", is_flag=True, help="Only count them: all, and by state, label, suggestion and person")
@with_readable_instance
def records_(
    instance: Instance, project: str, task_name: str | None, query: str, sort: str, limit: int | None, form: str,
    count: bool,
) -> None:  # fmt: skip
    """List the records of a project that a query finds."""
    from labeler.annotation.query import parse
    from labeler.annotation.table import RecordTable

    found, asked = instance.store.projects.named(project), parse(query)
    name = asked.task or task_name
    task = None if name is None else instance.project_task(found, name)
    table = RecordTable(instance.store, int(found["id"]), task, asked, list(instance.tasks_of(found)))
    if count:
        _count(table)
        return
    rows = itertools.islice(_rows(table, sort), limit)
    for line in {TEXT: _texts, CSV: _csv, JSONL: _jsonl}[form](rows, task):
        click.echo(line, nl=False)


def _rows(table: RecordTable, order: str) -> Iterator[Row]:
    for ids in table.ids(order):
        yield from table.table.rows(ids)


def _count(table: RecordTable) -> None:
    counted = table.count()
    click.echo(f"{counted.total:,} records")
    for name, counts in counted.of.items():
        click.echo(f"{name}: {', '.join(f'{value} {n:,}' for value, n in counts.items())}")


def _said(row: Row, task: Task | None) -> dict[str, Any]:
    """Return what is said of a record, in the labels of today."""
    from labeler.annotation.table import read

    found: dict[str, Any] = {"key": row["key"], "text": row["text"], "product": row["grp"]}
    if task is not None:
        found |= {
            "state": row["state"],
            "label": read(task, row["value"], row["task_version"]),
            "suggested": read(task, row["suggested"], row["suggested_version"]),
            "score": row["score"],
            "agreement": row["agreement"],
            "by": row["reviewer"],
            "how": row["how"],
            "decided": _day(row["decided_at"]),
            "flagged": row["flagged"] == "yes",
            "asked": strictjson.loads(row["asked"]),
        }
    return found


def _day(at: float | None) -> str | None:
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _texts(rows: Iterator[Row], task: Task | None) -> Iterator[str]:
    for row in rows:
        said = _said(row, task)
        text = " ".join(said["text"].split())
        words = [said["key"], text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"]
        if task is not None:
            label = said["suggested"] if said["label"] is None else said["label"]
            shown = "–" if label is None else task.schema.past.render(label, "en")
            score = "" if said["score"] is None else f" {said['score']:.2f}"
            words += [said["state"], f"{shown}{score}", said["by"] or ""]
        yield "  ".join(words).rstrip() + "\n"


def _csv(rows: Iterator[Row], task: Task | None) -> Iterator[str]:
    from labeler.export.formats import plain
    from labeler.export.formats.tables import csv_line

    yield csv_line(["key", "text", "product", *(_OF_TASK if task else ())], True)
    for row in rows:
        yield csv_line(["" if one is None else plain(one) for one in _said(row, task).values()], True)


def _jsonl(rows: Iterator[Row], task: Task | None) -> Iterator[str]:
    for row in rows:
        yield strictjson.dumps(_said(row, task) | {"metadata": strictjson.loads(row["metadata"])}) + "\n"
