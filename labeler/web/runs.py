"""Runs: ask for suggestions, see first what that would cost, then watch, cancel and resume."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, flash, g, render_template, request, url_for
from flask_babel import gettext as _

from labeler import accounts
from labeler.errors import Forbidden, InputError, LabelerError, NotFound
from labeler.prelabel import runs as service
from labeler.prelabel.runs import Estimate
from labeler.prelabel.suggest import Suggester
from labeler.prompts.styles import STYLES
from labeler.store.ledger import CANCELLED, OPEN, PAUSED
from labeler.task import Task
from labeler.web.access import instance, project_task
from labeler.web.forms import decimal, go_on, text, whole

MAX_RECORDS = 10_000_000
_SHORT = 20
blueprint = Blueprint("runs", __name__)


@blueprint.get("/projects/<int:project_id>/runs")
def form(project_id: int) -> Any:
    name = request.args.get("task") or next(iter(instance().tasks_of(g.project)), None)
    if name is None:
        raise NotFound("This project has no task; add one in its settings")
    return _page(project_id, project_task(name))


@blueprint.post("/projects/<int:project_id>/runs")
def start(project_id: int) -> Any:
    """Estimate a run, or start it, as the button says."""
    task = project_task(text("task"))
    try:
        given = _given()
        settings = {name: given[name] for name in ("backend", "model_id", "k", "retriever", "style") if given[name]}
        if given["k"] == 0:
            settings["k"] = 0
        suggester = instance().suggester(g.project, task, settings)
        if text("action") != "start":
            return _page(project_id, task, given, _estimate(suggester, given))
        _check_spending(suggester)
        run_id = service.start(
            instance().store,
            project_id,
            task.name,
            service.select(instance().store, project_id, task.name, given["limit"], given["again"]),
            # What would be decided anew each time is written down, so that a resumed run stays what it was.
            settings | {"backend": suggester.backend.name, "model_id": suggester.backend.model_id or ""},
            given["budget"],
            g.person["id"],
        )
    except (InputError, NotFound) as error:
        return _page(project_id, task, _typed(), message=str(error)), error.status
    instance().wake()
    return go_on("runs.show", project_id=project_id, run_id=run_id)


def _given() -> dict[str, Any]:
    return {
        "backend": text("backend", 80),
        "model_id": text("model_id", 200),
        "k": whole("k", 0, 64),
        "retriever": text("retriever", 80),
        "style": text("style", 80),
        "limit": whole("limit", 1, MAX_RECORDS),
        "budget": decimal("budget", 0, 1e6),
        "again": bool(request.form.get("again")),
    }


def _typed() -> dict[str, Any]:
    """Return the form as it was typed, to be shown again beside what is wrong with it."""
    names = ("backend", "model_id", "k", "retriever", "style", "limit", "budget", "again")
    return {name: request.form.get(name, "") for name in names}


def _estimate(suggester: Suggester, given: dict[str, Any]) -> Estimate:
    store, task = suggester.store, suggester.task.name
    ids = service.select(store, suggester.project_id, task, given["limit"], given["again"])
    return service.estimate(suggester, ids, instance().price_of(suggester.backend.model_id))


def _check_spending(suggester: Suggester) -> None:
    if suggester.backend.billed and g.role != accounts.ADMIN:
        raise Forbidden("Only an admin may start a run that costs money; choose a free backend")


def _page(
    project_id: int,
    task: Task,
    given: dict[str, Any] | None = None,
    estimate: Estimate | None = None,
    message: str = "",
) -> str:
    plugins = instance().plugins
    settings = instance().task_settings(g.project, task.name)
    return render_template(
        "runs.html",
        task=task,
        tasks=instance().tasks_of(g.project),
        counts=instance().store.work.counts(project_id, task.name),
        runs=instance().store.ledger.runs(project_id, 50, task.name),
        settings=settings,
        default_backend=settings["backend"] or _default_backend(task),
        backends=sorted(plugins.backends),
        retrievers=list(plugins.retrievers),
        styles=STYLES,
        given=given or {},
        estimate=estimate,
        message=message,
    )


def _default_backend(task: Task) -> str:
    try:
        return instance().default_backend(g.project, task)
    except LabelerError:
        return ""


@blueprint.get("/projects/<int:project_id>/runs/<int:run_id>")
def show(project_id: int, run_id: int) -> Any:
    return render_template("run.html", **_progress(project_id, run_id))


@blueprint.get("/projects/<int:project_id>/runs/<int:run_id>/progress")
def progress(project_id: int, run_id: int) -> Any:
    """The part of the page that is asked for again every second while the run goes on."""
    return render_template("_run_progress.html", **_progress(project_id, run_id))


@blueprint.post("/projects/<int:project_id>/runs/<int:run_id>/cancel")
def cancel(project_id: int, run_id: int) -> Any:
    _run(project_id, run_id)
    service.cancel(instance().store, run_id)
    flash(_("The run is cancelled. What was answered is kept."))
    return go_on("runs.show", project_id=project_id, run_id=run_id)


@blueprint.post("/projects/<int:project_id>/runs/<int:run_id>/resume")
def resume(project_id: int, run_id: int) -> Any:
    run = _run(project_id, run_id)
    _check_spending(instance().suggester(g.project, project_task(run["task"]), _overrides(run)))
    service.resume(instance().store, run_id, decimal("budget", 0, 1e6))
    instance().wake()
    return go_on("runs.show", project_id=project_id, run_id=run_id)


def _overrides(run: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run["settings"].items() if name != "purpose"}


def _run(project_id: int, run_id: int) -> dict[str, Any]:
    """Return a run of this project; those of others do not exist here."""
    run = instance().store.ledger.run(run_id)
    if run["project_id"] != project_id:
        raise NotFound(f"There is no run number {run_id}")
    return run


def _progress(project_id: int, run_id: int) -> dict[str, Any]:
    run = _run(project_id, run_id)
    ended = run["done"] + run["failed"]
    task = instance().plugins.tasks.get(run["task"])
    return {
        "run": run,
        "task_title": task.title if task else {},
        "running": run["state"] in OPEN,
        "can_cancel": run["state"] in (*OPEN, PAUSED),
        "can_resume": run["state"] in (PAUSED, CANCELLED) and ended < run["total"],
        "items": instance().store.ledger.item_counts(run_id),
        "ended": ended,
        "left": _time_left(run, ended),
        "failures": instance().store.ledger.failures(run_id),
        "here": url_for("runs.progress", project_id=project_id, run_id=run_id),
    }


def _time_left(run: dict[str, Any], ended: int) -> float | None:
    """Return the seconds a running run still needs at its pace so far, once that says anything."""
    if run["state"] not in OPEN or not run["started_at"] or ended < _SHORT:
        return None
    return float((time.time() - run["started_at"]) / ended * (run["total"] - ended))
