"""Runs: ask for suggestions, see first what that would cost, then watch, cancel and resume."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Blueprint, flash, g, render_template, request, url_for

from labeler import accounts, strictjson
from labeler import settings as tables
from labeler.augment.sifting import DROPPED
from labeler.backends.local.cards import asked_sentence
from labeler.errors import Forbidden, InputError, LabelerError, NotFound
from labeler.prelabel import calibration, trial
from labeler.prelabel import runs as service
from labeler.prelabel.calibration import Calibration
from labeler.prelabel.current import kind_of
from labeler.prelabel.runs import Estimate
from labeler.prelabel.suggest import Suggester
from labeler.prelabel.trial import Trial
from labeler.store.ledger import CANCELLED, OPEN, PAUSED, UNDER_WAY
from labeler.task import Task
from labeler.web import models
from labeler.web.access import allowed, instance, project_task
from labeler.web.forms import decimal, go_on, text, whole
from labeler.web.setting_fields import RUN, RUN_GROUPS, Form, grouped, named_in, typed
from labeler.web.show import number
from labeler.web.task_settings import task_hints, task_options
from labeler.web.words import _, setting_of

MAX_RECORDS = 10_000_000
_SHORT = 20
_OWN = ("backend", "limit", "budget", "again")
_SETTINGS = {setting.name: setting for setting in tables.TASK}
blueprint = Blueprint("runs", __name__)


@blueprint.get("/projects/<int:project_id>/runs")
def form(project_id: int) -> Any:
    name = request.args.get("task") or next(iter(instance().tasks_of(g.project)), None)
    if name is None:
        raise NotFound("This project has no task; add one in its settings")
    return _page(project_id, project_task(name))


@blueprint.post("/projects/<int:project_id>/runs")
@allowed(tables.RUNS)
def start(project_id: int) -> Any:
    """Estimate a run, or start it, as the button says."""
    task = project_task(text("task"))
    try:
        given = _given()
        settings = _overrides_typed(task)
        suggester = _made(task, settings, text("action") == "start")
        if text("action") != "start":
            return _page(project_id, task, _typed(), _estimate(suggester, given, settings), _left_out(suggester, given))
        known = _left_out(suggester, given)
        run_id = service.start(
            instance().store,
            project_id,
            task.name,
            _chosen(suggester, given),
            # What would be decided anew each time is written down, so that a resumed run stays what it was.
            settings
            | {
                "backend": suggester.backend.name,
                "model_id": suggester.backend.model_id or "",
                "again": given["again"],
            },
            given["budget"],
            g.person["id"],
            _trial(suggester),
        )
    except (InputError, NotFound) as error:
        return _page(project_id, task, _typed(), message=str(error)), error.status
    instance().wake()
    if known:
        left = _('Left out: %(n)s records that already have such a suggestion. "Again" includes them.', n=number(known))
        flash(left)
    return go_on("runs.show", project_id=project_id, run_id=run_id)


def _given() -> dict[str, Any]:
    """Return what a run has beside the settings of its task."""
    return {
        "limit": whole("limit", 1, MAX_RECORDS),
        "budget": decimal("budget", 0, 1e6),
        "again": bool(request.form.get("again")),
    }


def _overrides_typed(task: Task) -> dict[str, Any]:
    """Return the settings that this run has other than its task, each checked. Raises :class:`SettingError`."""
    raw: dict[str, Any] = {"backend": text("backend", 80) or None, **typed(RUN)}
    set_ = instance().task_settings(g.project, task.name)
    # Boxes are ticked as the task has them; lines that are left empty say nothing.
    kept = {name: value for name, value in raw.items() if value not in (None, "") and (value or name == "joint")}
    checked = {name: _SETTINGS[name].read(value) for name, value in kept.items()}
    return {name: value for name, value in checked.items() if name != "joint" or value != set_["joint"]}


def _typed() -> dict[str, Any]:
    """Return the form as it was typed, to be shown again beside what is wrong with it."""
    given: dict[str, Any] = {name: request.form.get(name, "") for name in _OWN}
    for setting in RUN:
        lines = [line for line in request.form.getlist(setting.name) if line]
        given[setting.name] = lines if setting.kind == "list" else request.form.get(setting.name, "")
    return given


def _estimate(suggester: Suggester, given: Mapping[str, Any], settings: Mapping[str, Any]) -> Estimate:
    ids = _chosen(suggester, given)
    chosen = instance().task_settings(g.project, suggester.task.name) | dict(settings)
    info, batch = instance().price_of(suggester.backend), chosen["executor"] == tables.BATCH_EXECUTOR
    return service.estimate(suggester, ids, info, instance().policy(chosen), batch, trial=_trial(suggester))


def _trial(suggester: Suggester) -> Trial | None:
    return trial.chosen(suggester, instance().ensemble(g.project, suggester.task))


def _chosen(suggester: Suggester, given: Mapping[str, Any]) -> Iterator[int]:
    place = suggester.store, suggester.project_id, suggester.task.name
    return service.select(*place, given["limit"], given["again"], kind_of(suggester))


def _left_out(suggester: Suggester, given: Mapping[str, Any]) -> int:
    if given["again"]:
        return 0
    return service.left_out(suggester.store, suggester.project_id, suggester.task.name, kind_of(suggester))


def _made(task: Task, settings: Mapping[str, Any], start: bool) -> Suggester:
    """Return the suggester of a run that is started or only estimated, if this person may have it.

    What costs money is an admin's to start; local weights cost no fee, but they hold the machine for hours. The right
    is looked at before anything is made. What is only estimated is not kept, and takes the place of nothing in use.
    """
    if start and g.role != accounts.ADMIN and instance().spends(g.project, task, settings):
        raise Forbidden("Only an admin may start a run that costs money; choose a free backend")
    return instance().suggester(g.project, task, settings, keep=start)


def _page(
    project_id: int,
    task: Task,
    given: dict[str, Any] | None = None,
    estimate: Estimate | None = None,
    left_out: int = 0,
    message: str = "",
) -> str:
    settings = instance().task_settings(g.project, task.name)
    given = given or {}
    default = settings["backend"] or _default_backend(task)
    backend = given.get("backend") or default
    return render_template(
        "runs.html",
        task=task,
        tasks=instance().tasks_of(g.project),
        counts=instance().store.work.counts(project_id, task.name),
        runs=instance().store.ledger.runs(project_id, 50, task.name),
        settings=settings,
        default_backend=default,
        groups=grouped(RUN, RUN_GROUPS),
        form=_form(task, settings, given, message),
        given=given,
        estimate=estimate,
        asked=asked_sentence(estimate.asked, estimate.changed) if estimate is not None and estimate.asked else None,
        left_out=left_out,
        budgets=_budgets(g.project),
        ending=models.ending(
            instance().prices, models.chosen_model(instance(), settings | {"model_id": given.get("model_id")
                or settings["model_id"]}, backend)
        ) if models.has_fees(instance(), backend) else None,
        message=message,
    )  # fmt: skip


def _form(task: Task, settings: Mapping[str, Any], given: Mapping[str, Any], message: str) -> Form:
    """Return the fields of a run: empty ones mean what the task's settings say, and say what that is."""
    empty = {
        setting.name: _("As set: %(name)s", name=setting_of(setting.name, _plain(settings[setting.name])))
        if settings[setting.name] not in (None, "") else _("As set for the task")
        for setting in RUN
    }  # fmt: skip
    as_set = {name: value for name, value in settings.items() if value not in (None, "", [])}
    return Form(
        {"joint": settings["joint"], **given},
        options=task_options(task, g.project),
        empty=empty,
        hints=task_hints(task) | as_set,
        wrong=named_in(message),
        inherits=True,
    )


def _plain(value: Any) -> str:
    """Return a setting's value as one text."""
    if isinstance(value, bool):
        return str(_("Yes") if value else _("No"))
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return value if isinstance(value, str) else strictjson.dumps(value)


def _budgets(project: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Return the budgets that hold for the project: setting, amount, and what is spent of it."""
    settings = instance().project_settings(project)
    total, today = instance().store.ledger.spent(project["id"])
    rows = (("budget_project", total), ("budget_day", today))
    return [(name, settings[name], spent) for name, spent in rows if settings[name] is not None]


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
    _own_run(project_id, run_id)
    service.cancel(instance().store, run_id, g.person["id"])
    flash(_("The run is cancelled. What was answered is kept."))
    return go_on("runs.show", project_id=project_id, run_id=run_id)


@blueprint.post("/projects/<int:project_id>/runs/<int:run_id>/resume")
def resume(project_id: int, run_id: int) -> Any:
    run = _own_run(project_id, run_id)
    _made(project_task(run["task"]), tables.overrides(run["settings"]), True)
    service.resume(instance().store, run_id, decimal("budget", 0, 1e6), g.person["id"])
    instance().wake()
    return go_on("runs.show", project_id=project_id, run_id=run_id)


def _own_run(project_id: int, run_id: int) -> dict[str, Any]:
    """Return a run that this person may cancel or resume: their own, or any for an admin."""
    run = _run(project_id, run_id)
    if not _may_move(run):
        raise Forbidden("Only who started the run or an admin may do this")
    return run


def _may_move(run: Mapping[str, Any]) -> bool:
    return bool(g.role == accounts.ADMIN or run["reviewer_id"] == g.person["id"])


def _run(project_id: int, run_id: int) -> dict[str, Any]:
    """Return a run of this project; those of others do not exist here."""
    run = instance().store.ledger.run(run_id)
    if run["project_id"] != project_id:
        raise NotFound("There is no run number %(number)s", number=run_id)
    return run


def _progress(project_id: int, run_id: int) -> dict[str, Any]:
    run = _run(project_id, run_id)
    ended = run["done"] + run["failed"]
    task = instance().plugins.tasks.get(run["task"])
    running, store = run["state"] in OPEN, instance().store
    written = store.written.of_run(run_id) if run["settings"].get("purpose") == tables.WRITE else None
    found = trial.of_run(run)
    return {
        "run": run,
        "trial": None if found is None else trial.sentence(found),
        "in_trial": run["trial"] == UNDER_WAY,
        "trials": store.ledger.trials(run_id),
        "settings": {name: _plain(value) for name, value in tables.overrides(run["settings"]).items()},
        "made": [] if running else store.suggestions.made_in_run(run_id, run["task"]),
        "batches": store.batches.of_run(run_id),
        "written": written,
        "outcomes": {} if written is None else store.written.outcomes(run_id),
        "dropped": DROPPED,
        "calibration": None if running else _calibration(run),
        "ending": models.ending(instance().prices, run["settings"].get("model_id"))
        if models.has_fees(instance(), run["settings"].get("backend") or "") else None,
        "task_title": task.title if task else {},
        "running": running,
        "can_cancel": _may_move(run) and run["state"] in (*OPEN, PAUSED),
        "can_resume": _may_move(run) and run["state"] in (PAUSED, CANCELLED) and ended < run["total"],
        "items": instance().store.ledger.item_counts(run_id),
        "ended": ended,
        "left": _time_left(run, ended),
        "failures": instance().store.ledger.failures(run_id),
        "here": url_for("runs.progress", project_id=project_id, run_id=run_id),
    }  # fmt: skip


def _calibration(run: Mapping[str, Any]) -> Calibration | None:
    """Return the calibration of what the run scored, used or not; None if none was ever fitted."""
    store = instance().store
    made = (row for row in store.calibrations.scored_in(run["id"]) if row["task"] == run["task"])
    try:
        found = (
            calibration.load(
                store, run["project_id"], run["task"], row["backend"], row["model_id"], row["prompt_digest"]
            )
            for row in made
        )
        return next((one for one in found if one is not None), None)
    except InputError:
        # One that cannot be read corrects nothing, and the page of a run is not the place to fail for it.
        return None


def _time_left(run: dict[str, Any], ended: int) -> float | None:
    """Return the seconds a running run still needs at its pace so far, once that says anything.

    What people decided first took no time, and no more does the time in which the run stood still.
    """
    made = ended - run["decided"]
    if run["state"] not in OPEN or made < _SHORT:
        return None
    seconds = run["seconds"] + (max(time.time() - run["moving_since"], 0.0) if run["moving_since"] else 0.0)
    return float(seconds / made * (run["total"] - ended))
