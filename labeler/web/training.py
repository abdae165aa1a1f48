"""Training: begin one from an export, watch how its loss falls and what it answers, stop it and let it go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flask import Blueprint, flash, g, render_template, request, url_for

from labeler.errors import Conflict, InputError, LabelerError, MissingExtra, NotFound
from labeler.export.splits import TEST
from labeler.extras import require
from labeler.training import folders, plans
from labeler.training.elsewhere import TRAINERS, printed
from labeler.training.folders import FINISHED, QUEUED, RUNNING, Training
from labeler.training.methods import CLASSIFIER, METHODS, OBJECTIVES
from labeler.training.sets import READ_BY_CLASSIFIERS, read_set
from labeler.web.access import admin_only, instance
from labeler.web.forms import decimal, go_on, text, whole
from labeler.web.words import _

# The drawing of a loss, in its own units.
_WIDE, _HIGH, _EDGE = 640.0, 240.0, 8.0
blueprint = Blueprint("training", __name__)


@blueprint.get("/projects/<int:project_id>/training")
@admin_only
def form(project_id: int) -> Any:
    return _page(project_id, {"export": request.args.get("export", "")})


@blueprint.post("/projects/<int:project_id>/training")
@admin_only
def start(project_id: int) -> Any:
    """Plan a training and begin it in a process of its own, which goes on when the server starts again."""
    try:
        method = text("method", 40)
        require(METHODS[method].extra if method in METHODS else "train")
        _refuse_another()
        number = whole("export", 1, 2**31)
        if number is None:
            raise InputError("Choose an export to train on; make one first if there is none")
        export = instance().store.exports.get(project_id, number)
        plan, _data = plans.plan_of(
            instance().located(export["folder"]),
            text("base", 300),
            method,
            text("objective", 40) or None,
            given={
                "steps": whole("steps", 1, 10_000_000),
                "epochs": decimal("epochs", 0.001, 1000),
                "rate": decimal("rate", 1e-9, 10),
            },
            export_id=number,
            project_id=project_id,
        )
        if method == CLASSIFIER:
            plans.task_of(instance(), plan)
        name = text("name", 63) or folders.free_name(instance().folder, f"{export['task']}-{plan['method']}")
        made = folders.begin(instance().folder, name, plan)
    except (InputError, MissingExtra) as error:
        return _page(project_id, request.form, str(error)), error.status
    _begin(made)
    return go_on("training.show", project_id=project_id, training_name=name)


def _refuse_another() -> None:
    """Raise :class:`Conflict` while one is under way: two at once take each other's memory, and both fail."""
    for training in folders.trainings(instance().folder):
        if training.state in (RUNNING, QUEUED):
            raise Conflict("The training %(name)s is under way; wait for its end, or stop it first", name=training.name)


def _begin(training: Training) -> None:
    detail = {"training": training.name, "base": training.plan.get("base"), "method": training.plan.get("method")}
    store, project_id, who = instance().store, g.project["id"], g.person["id"]
    store.write(
        lambda tx: store.events.add(tx, "training begun", project_id=project_id, reviewer_id=who, detail=detail)
    )
    folders.start(instance().folder, training)


def _page(project_id: int, given: Mapping[str, Any], message: str = "") -> str:
    exports = [one for one in instance().store.exports.all(project_id, 100) if one["format"] in READ_BY_CLASSIFIERS]
    return render_template(
        "trainings.html",
        tasks=instance().tasks_of(g.project),
        exports=[one for one in exports if instance().located(one["folder"]).is_dir()],
        formats=READ_BY_CLASSIFIERS,
        methods=METHODS,
        objectives=OBJECTIVES,
        given=given,
        default_model=instance().settings.get("transformers_model") or "",
        trainings=[_row(training) for training in folders.trainings(instance().folder, project_id)],
        lacking=_lacking(),
        message=message,
    )


def _lacking() -> str:
    """Return what has to be installed first; empty where nothing has."""
    try:
        require("train")
    except MissingExtra as error:
        return str(error)
    return ""


def _row(training: Training) -> dict[str, Any]:
    plan, log = training.plan, training.log()
    step = max((line.get("step", 0) for line in log), default=0)
    losses = {name: _last(log, name) for name in ("loss", "eval_loss")}
    return {"name": training.name, "state": training.state, "plan": plan, "step": step, **losses}


def _last(log: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return next((line[name] for line in reversed(log) if name in line), None)


@blueprint.get("/projects/<int:project_id>/training/<training_name>")
@admin_only
def show(project_id: int, training_name: str) -> Any:
    training = _own(project_id, training_name)
    return render_template("training.html", commands=_commands(training), **_progress(project_id, training))


@blueprint.get("/projects/<int:project_id>/training/<training_name>/progress")
@admin_only
def progress(project_id: int, training_name: str) -> Any:
    """The part of the page that is asked for again every few seconds while the training goes on."""
    return render_template("_training_progress.html", **_progress(project_id, _own(project_id, training_name)))


@blueprint.post("/projects/<int:project_id>/training/<training_name>/stop")
@admin_only
def stop(project_id: int, training_name: str) -> Any:
    _own(project_id, training_name).ask_to_stop()
    flash(_("It stops after this step, and can go on from there."))
    return go_on("training.show", project_id=project_id, training_name=training_name)


@blueprint.post("/projects/<int:project_id>/training/<training_name>/resume")
@admin_only
def resume(project_id: int, training_name: str) -> Any:
    training = _own(project_id, training_name)
    if training.state == FINISHED:
        raise Conflict("The training %(name)s is finished; begin another one", name=training_name)
    _refuse_another()
    _begin(training)
    return go_on("training.show", project_id=project_id, training_name=training_name)


def _own(project_id: int, name: str) -> Training:
    """Return a training of this project; those of others do not exist here."""
    found = folders.named(instance().folder, name)
    if found.plan.get("project_id") != project_id:
        raise NotFound("There is no training called %(name)r", name=name)
    return found


def _progress(project_id: int, training: Training) -> dict[str, Any]:
    log, plan, state = training.log(), training.plan, training.state
    steps = [line.get("step", 0) for line in log]
    total, step = plan.get("total"), max(steps, default=0)
    seconds = log[-1]["seconds"] if log else None
    samples = training.samples()
    last = max((one.get("step", 0) for one in samples), default=0)
    return {
        "name": training.name,
        "plan": plan,
        "card": training.card,
        "measured": training.card.get(CLASSIFIER, {}).get("measured", {}).get(TEST),
        "state": state,
        "running": state in (RUNNING, QUEUED),
        "stopping": training.stopping,
        "said": training.message,
        "step": step,
        "seconds": seconds,
        "left": seconds / step * (total - step) if seconds and step and total and state == RUNNING else None,
        "curve": curve(log),
        "losses": {one: _last(log, one) for one in ("loss", "eval_loss")},
        "samples": [one for one in samples if one.get("step") == last],
        "first": [one for one in samples if one.get("step") == 0],
        "here": url_for("training.progress", project_id=project_id, training_name=training.name),
    }


def curve(log: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the losses of a log as points of a drawing; None while there are fewer than two of one kind."""
    lines = {name: [(line["step"], line[name]) for line in log if name in line] for name in ("loss", "eval_loss")}
    every = [point for points in lines.values() for point in points]
    if max(map(len, lines.values())) < 2:
        return None
    last, low, high = max(step for step, _loss in every), min(y for _step, y in every), max(y for _step, y in every)
    tall = (high - low) or 1.0

    def place(step: float, loss: float) -> str:
        x = _EDGE + (_WIDE - 2 * _EDGE) * step / max(last, 1)
        y = _EDGE + (_HIGH - 2 * _EDGE) * (high - loss) / tall
        return f"{x:.1f},{y:.1f}"

    drawn = {name: " ".join(place(*point) for point in points) for name, points in lines.items()}
    return {"wide": int(_WIDE), "high": int(_HIGH), "low": low, "most": high, "last": last, **drawn}


def _commands(training: Training) -> dict[str, str]:
    """Return the command of each other trainer that can do the same, once the rows were counted."""
    found: dict[str, str] = {}
    plan = training.plan
    if "numbers" not in plan:
        return found
    for trainer in TRAINERS:
        try:
            data = read_set(Path(plan["export"]["folder"]), check=False)
            found[trainer] = printed(trainer, plan, data, training.name)
        except LabelerError:
            continue
    return found
