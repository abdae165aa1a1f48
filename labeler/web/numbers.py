"""Numbers as pages of plots and tables, each table and plot as a file too: of a task, of a project, as a report.

They name nobody but to an admin, and people to themselves.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, g, render_template, url_for
from flask_babel import get_locale

from labeler import __version__, accounts
from labeler.errors import NotFound
from labeler.evaluation.numbers import MOST, OF_EACH, numbers_of
from labeler.evaluation.progress import progress_of
from labeler.evaluation.scored import LEAST
from labeler.instance import Instance
from labeler.settings import NUMBERS
from labeler.store import Row
from labeler.task import Task
from labeler.web.access import allowed, instance, project_task
from labeler.web.replays import named
from labeler.web.sheets import SHEETS, TITLES, days_drawing, days_sheet, drawings_of, sheets_of, tasks_sheet

blueprint = Blueprint("numbers", __name__, url_prefix="/projects/<int:project_id>/numbers")


@blueprint.get("")
@allowed(NUMBERS)
def tasks(project_id: int) -> Any:
    """Show how far every task of the project came."""
    found = [(task, progress_of(instance().store, project_id, task.name)) for task in _tasks()]
    drawn = {task.name: (days_drawing(one), days_sheet(one)) for task, one in found if one.recent}
    return render_template("numbers_tasks.html", found=found, drawn=drawn, titles=TITLES, records=None)


@blueprint.get("/tasks.csv")
@allowed(NUMBERS)
def tasks_file(project_id: int) -> Any:
    """Hand out the table of the project's tasks."""
    store, language = instance().store, _language()
    rows = [(task.titled(language), progress_of(store, project_id, task.name)) for task in _tasks()]
    return _file(tasks_sheet(rows).csv(), "text/csv", f"numbers-{project_id}.csv")


@blueprint.get("/report.html")
@allowed(NUMBERS)
def report(project_id: int) -> Any:
    """Hand out the numbers of all tasks as one file to send on."""
    day = datetime.now(UTC).date().isoformat()
    return _file(report_of(instance(), g.project), "text/html", f"report-{project_id}-{day}.html")


@blueprint.get("/<task>")
@allowed(NUMBERS)
def page(project_id: int, task: str) -> Any:
    """Show the numbers of a task."""
    found = project_task(task)
    return render_template(
        "numbers.html",
        task=found,
        shown=_shown(instance(), project_id, found, _people()),
        **_told(),
        records=lambda query: url_for("records.page", project_id=project_id, task=found.name, q=query),
    )


@blueprint.get("/<task>/<sheet>.csv")
@allowed(NUMBERS)
def download(project_id: int, task: str, sheet: str) -> Any:
    """Hand out a table of the page for spreadsheets; cells cannot become formulas."""
    found = project_task(task)
    if sheet not in SHEETS:
        raise NotFound("There is no such page")
    numbers = numbers_of(instance().store, project_id, found, most=MOST, people=_people())
    return _file(SHEETS[sheet](found, numbers).csv(), "text/csv", f"numbers-{project_id}-{sheet}.csv")


@blueprint.get("/<task>/<plot>.svg")
@allowed(NUMBERS)
def picture(project_id: int, task: str, plot: str) -> Any:
    """Hand out a plot of the page, with its legend."""
    drawing = drawings_of(numbers_of(instance().store, project_id, project_task(task), most=MOST)).get(plot)
    if drawing is None:
        raise NotFound("There is no such page")
    made = render_template("plot.html", name=plot, drawing=drawing)
    return _file(made, "image/svg+xml", f"numbers-{project_id}-{plot}.svg")


def report_of(opened: Instance, project: Mapping[str, Any]) -> str:
    """Return the report of a project: one HTML file that needs nothing, and names nobody. It asks for an app."""
    found = opened.tasks_of(project).values()
    return render_template(
        "report.html",
        project=project,
        shown=[_shown(opened, project["id"], task) | _versions(opened, project["id"], task) for task in found],
        records=None,
        **_told(),
        at=time.time(),
        version=__version__,
        counts=opened.store.records.counts(project["id"]),
    )


def _shown(opened: Instance, project_id: int, task: Task, people: Sequence[Row] = ()) -> dict[str, Any]:
    """Return what a page, or a report, shows of a task."""
    numbers = numbers_of(opened.store, project_id, task, most=MOST, people=people)
    sheets = sheets_of(task, numbers)
    return {
        "task": task,
        "numbers": numbers,
        "sheets": sheets,
        "drawn": drawings_of(numbers),
        "label_most": max([1, *numbers.approved.values(), *numbers.suggested.values()]),
        "confusion_most": max([1, *numbers.confusion.values()]),
        "learned": None if numbers.learning is None else named(numbers.learning.settings),
        "unused": [name.raw for name, *counts in sheets["labels"].rows if not any(cell.raw for cell in counts)],
    }


def _told() -> dict[str, Any]:
    """Return what the tables and sentences of a page, or a report, have in common."""
    return {"titles": TITLES, "most": MOST, "of_each": OF_EACH, "least": LEAST}


def _versions(opened: Instance, project_id: int, task: Task) -> dict[str, Any]:
    """Return when the guidelines and the labels of a task became what they are; None as the plugin has them."""
    versions = opened.store.projects.task_versions(project_id, task.name)
    return {"since": versions[0]["created_at"] if versions else None}


def _tasks() -> Sequence[Task]:
    return list(instance().tasks_of(g.project).values())


def _people() -> list[Row]:
    """Return the accounts whose numbers the person may see: all for an admin, for others their own."""
    return instance().store.people.all() if g.role == accounts.ADMIN else [g.person]


def _language() -> str:
    locale = get_locale()
    return locale.language if locale else "ko"


def _file(content: str, type_: str, name: str) -> Response:
    response = Response(content, mimetype=type_)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
