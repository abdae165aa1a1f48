"""Replays: measure settings on what is approved, see what each costs, open the mistakes, and choose.

And prompt search: let a model draft guidelines, see what each changes and gains, and adopt one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, flash, g, render_template, request, url_for

from labeler import accounts
from labeler import settings as tables
from labeler.annotation.queue import LIKE_LABEL
from labeler.augment import asking
from labeler.errors import Forbidden, InputError, NotFound
from labeler.evaluation import apart, rouge
from labeler.evaluation import drafts as material
from labeler.evaluation import replay as service
from labeler.evaluation import search as searching
from labeler.evaluation.readiness import LEAST, readiness
from labeler.evaluation.replay import Arm
from labeler.evaluation.results import Report, Results
from labeler.evaluation.verdict import verdict
from labeler.export.splits import TEST
from labeler.prelabel.runs import Estimate
from labeler.store.ledger import FINISHED, OPEN
from labeler.task import Task
from labeler.web.access import admin_only, allowed, instance, project_task
from labeler.web.forms import decimal, go_on, text, texts, whole
from labeler.web.task_settings import task_options
from labeler.web.versions import differences
from labeler.web.words import _, setting_of, word

_MOST, _MOST_TEXTS = 100_000, 200
_CELLS = 200
# A plot in the units of its drawing.
_WIDE, _HIGH, _EDGE = 480, 220, 34
_SETTINGS = {setting.name: setting for setting in tables.TASK}
blueprint = Blueprint("replays", __name__)


@blueprint.get("/projects/<int:project_id>/replays")
@allowed(tables.NUMBERS)
def form(project_id: int) -> Any:
    name = request.args.get("task") or next(iter(instance().tasks_of(g.project)), None)
    if name is None:
        raise NotFound("This project has no task; add one in its settings")
    return _page(project_id, project_task(name), _asked())


@blueprint.post("/projects/<int:project_id>/replays")
@allowed(tables.RUNS)
def start(project_id: int) -> Any:
    """Estimate a replay, or start it, as the button says."""
    task = project_task(text("task"))
    try:
        arms, sample, budget = _arms(task), whole("sample", 1, _MOST), decimal("budget", 0, 1e6)
        held_out = TEST if text("held_out") else None
        if text("action") != "start":
            return _page(project_id, task, _typed(), _estimates(task, arms, sample, held_out))
        id_ = service.start(instance(), g.project, task, arms, sample, budget, g.person["id"], held_out)
    except (InputError, NotFound) as error:
        return _page(project_id, task, _typed(), message=str(error)), error.status
    instance().wake()
    return go_on("replays.show", project_id=project_id, replay_id=id_)


def _arms(task: Task) -> list[Arm]:
    """Return the arms that were asked for, if this person may have them: what costs money is an admin's to start."""
    grid = {name: [_SETTINGS[name].read(value) for value in values] for name, values in _typed().items()
            if name in tables.REPLAY_GRID and values}  # fmt: skip
    arms = service.arms_of(instance(), g.project, task, grid)
    if g.role != accounts.ADMIN and any(arm.suggester.backend.billed for arm in arms):
        raise Forbidden("Only an admin may start a replay that costs money; choose free backends")
    return arms


def _typed() -> dict[str, Any]:
    """Return the form as it was typed; models and numbers of examples are separated by commas or lines."""
    found: dict[str, Any] = {name: texts(name) for name in tables.REPLAY_GRID}
    for name in ("model_id", "k"):
        found[name] = [part.strip() for part in text(name).replace("\n", ",").split(",") if part.strip()]
    return found | {name: request.form.get(name, "") for name in ("sample", "budget", "held_out")}


def _asked() -> dict[str, Any]:
    """Return the form as an address asks for it: other pages link here with settings to compare."""
    return {name: request.args.getlist(name) for name in tables.REPLAY_GRID} | {
        "sample": str(tables.REPLAY_SAMPLE),
        "budget": "",
        "held_out": request.args.get("held_out", ""),
    }


def _estimates(task: Task, arms: Sequence[Arm], sample: int | None, held_out: str | None) -> list[tuple[str, Estimate]]:
    found = service.estimates(instance(), g.project, task, arms, sample, held_out)
    return [(named(arm.settings), estimate) for arm, estimate in zip(arms, found, strict=True)]


def named(settings: Mapping[str, Any], of: Results | None = None) -> str:
    """Return the settings of an arm in words; of a search, which guidelines it has."""
    if of is not None and of.drafts:
        return _("Draft %(n)s", n=settings[tables.DRAFT]) if tables.DRAFT in settings else _("Guidelines as they were")
    # Without what a list of backends says of each beside its name.
    plain = [str(word(settings["backend"])).split(":")[0], settings.get("model_id") or ""]
    more = [setting_of(name, settings[name]) for name in ("retriever", "style") if settings.get(name)]
    more += [_("%(n)s examples", n=settings["k"])] if settings.get("k") is not None else []
    return " · ".join([" ".join(part for part in plain if part), *(str(one) for one in more)])


def _page(
    project_id: int, task: Task, given: Mapping[str, Any], estimates: Sequence[tuple[str, Estimate]] = (),
    message: str = "", search: Mapping[str, Any] | None = None, augment: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    return render_template(
        "replays.html",
        task=task,
        tasks=instance().tasks_of(g.project),
        replays=instance().store.replays.of_task(project_id, task.name),
        counts=instance().store.work.counts(project_id, task.name),
        # Whether an export has split records at all: how many are in which would be counted for every look.
        split=instance().store.splits.newest(project_id) > 0,
        options=task_options(task, g.project),
        given=given,
        estimates=estimates,
        # Right after a start the examples are still being read: no page waits for that.
        ready=readiness(instance(), g.project, task) if instance().index(g.project, task).ready() else None,
        least=LEAST,
        like=LIKE_LABEL,
        message=message,
        search={"drafts": str(tables.SEARCH_DRAFTS), "sample": str(tables.REPLAY_SAMPLE), **(search or {})},
        augment=(augment or {}) if asking.supports(task) else None,
        most_drafts=tables.MOST_DRAFTS,
        most_judged=tables.MOST_JUDGED,
    )


@blueprint.post("/projects/<int:project_id>/replays/search")
@admin_only
def search(project_id: int) -> Any:
    """Estimate a search for better guidelines, or start it, as the button says. It asks a model, so only admins may."""
    task = project_task(text("task"))
    typed: dict[str, Any] = {name: request.form.get(name, "") for name in ("drafts", "sample", "budget")}
    try:
        count = whole("drafts", 1, tables.MOST_DRAFTS) or tables.SEARCH_DRAFTS
        sample = whole("sample", 1, tables.MOST_JUDGED) or tables.REPLAY_SAMPLE
        budget = decimal("budget", 0, 1e6)
        plan = searching.plan(instance(), g.project, task, count, sample)
        if text("action") != "start":
            names, found = (_("Drafts"), _("Judging")), searching.estimates(instance(), g.project, plan)
            typed["estimates"] = list(zip(names, found, strict=True))
            return _page(project_id, task, _asked(), search=typed)
        id_ = searching.start(instance(), g.project, task, plan, budget, g.person["id"])
    except (InputError, NotFound) as error:
        return _page(project_id, task, _asked(), search=typed | {"message": str(error)}), error.status
    instance().wake()
    return go_on("replays.show", project_id=project_id, replay_id=id_)


@blueprint.post("/projects/<int:project_id>/replays/augment")
@admin_only
def augment(project_id: int) -> Any:
    """Estimate a run that has reviews of rare labels written, or start it, as the button says."""
    task = project_task(text("task"))
    typed: dict[str, Any] = {name: request.form.get(name, "") for name in ("count", "budget", "backend", "model_id")}
    typed["labels"] = texts("label")
    try:
        count, budget = whole("count", 1, _MOST_TEXTS) or 2 * asking.EACH, decimal("budget", 0, 1e6)
        settings = {name: _SETTINGS[name].read(typed[name]) for name in ("backend", "model_id") if typed[name]}
        plan = asking.plan(instance(), g.project, task, typed["labels"], count, settings)
        if text("action") != "start":
            typed["estimates"] = [(_("Texts"), asking.estimate(instance(), g.project, plan))]
            return _page(project_id, task, _asked(), augment=typed)
        run_id = asking.start(instance(), g.project, task, plan, budget, g.person["id"], settings)
    except (InputError, NotFound) as error:
        return _page(project_id, task, _asked(), augment=typed | {"message": str(error)}), error.status
    instance().wake()
    return go_on("runs.show", project_id=project_id, run_id=run_id)


@blueprint.get("/projects/<int:project_id>/replays/<int:replay_id>")
@allowed(tables.NUMBERS)
def show(project_id: int, replay_id: int) -> Any:
    return render_template("replay.html", **_shown(project_id, replay_id))


@blueprint.get("/projects/<int:project_id>/replays/<int:replay_id>/progress")
@allowed(tables.NUMBERS)
def progress(project_id: int, replay_id: int) -> Any:
    """The part of the page that is asked for again every two seconds while the replay goes on."""
    return render_template("_replay.html", **_shown(project_id, replay_id))


@blueprint.get("/projects/<int:project_id>/replays/<int:replay_id>/records")
@allowed(tables.NUMBERS)
def cells(project_id: int, replay_id: int) -> Any:
    """The records of one cell of the table of labels, or all that an arm got wrong, or could not be read, or where it
    says something else than another.
    """
    results = _results(project_id, replay_id)
    arm, than = _arm_of(results, "arm") or 0, _arm_of(results, "than")
    approved, said = request.args.get("approved"), request.args.get("said", "")
    unread = request.args.get("unread") == "1"
    found = results.unread(arm) if unread else results.cells(arm, approved, said, than)
    own = results.arms[arm]
    return render_template(
        "replay_records.html",
        results=results,
        name=named(own["settings"], results),
        approved=approved,
        said=said,
        other=None if than is None else named(results.arms[than]["settings"], results),
        unread=unread,
        cells=found[:_CELLS],
        total=len(found),
        schema=results.schema,
        task=results.task,
        others={} if than is None else results.said_by(than),
    )


def _arm_of(results: Results, name: str) -> int | None:
    """Return the number of an arm that an address names; None where it names none."""
    given = request.args.get(name)
    if given is None:
        return None
    if not given.isdecimal() or int(given) >= len(results.arms):
        raise NotFound("There is no such page")
    return int(given)


@blueprint.post("/projects/<int:project_id>/replays/<int:replay_id>/use")
@admin_only
def use(project_id: int, replay_id: int) -> Any:
    """Set the task to what an arm has."""
    _results(project_id, replay_id)
    arm = whole("arm", 0, service.MOST_ARMS)
    if arm is None:
        raise InputError("Choose one of the settings")
    service.use(instance(), replay_id, arm, g.person["id"])
    flash(_("The task has these settings now."))
    return go_on("replays.show", project_id=project_id, replay_id=replay_id)


@blueprint.post("/projects/<int:project_id>/replays/<int:replay_id>/adopt")
@admin_only
def adopt(project_id: int, replay_id: int) -> Any:
    """Make a draft that gained the next version of the guidelines."""
    _results(project_id, replay_id)
    number = whole("draft", 1, tables.MOST_DRAFTS)
    if number is None:
        raise InputError("Choose one of the settings")
    version = searching.adopt(instance(), replay_id, number, g.person["id"])
    flash(_("Saved as version %(version)s", version=version))
    return go_on("replays.show", project_id=project_id, replay_id=replay_id)


@blueprint.post("/projects/<int:project_id>/replays/<int:replay_id>/again")
@allowed(tables.RUNS)
def again(project_id: int, replay_id: int) -> Any:
    """Start a replay of the same settings over the approvals of now."""
    results = _results(project_id, replay_id)
    if results.drafts:
        raise InputError("A search is started from its own form: drafts are made from the corrections of now")
    grid = [arm["settings"] for arm in results.arms]
    spends = any(instance().spends(g.project, results.task, settings) for settings in grid)
    if spends and g.role != accounts.ADMIN:
        raise Forbidden("Only an admin may start a replay that costs money; choose free backends")
    arms = [service.arm_of(instance(), g.project, results.task, settings) for settings in grid]
    budget, held_out, who = results.replay["budget"], results.replay["held_out"], g.person["id"]
    id_ = service.start(instance(), g.project, results.task, arms, len(results.rows), budget, who, held_out)
    instance().wake()
    return go_on("replays.show", project_id=project_id, replay_id=id_)


def _results(project_id: int, replay_id: int) -> Results:
    """Return a replay of this project; those of others do not exist here."""
    if instance().store.replays.get(replay_id)["project_id"] != project_id:
        raise NotFound("There is no replay number %(number)s", number=replay_id)
    return Results(instance(), replay_id)


def _shown(project_id: int, replay_id: int) -> dict[str, Any]:
    results = _results(project_id, replay_id)
    report, names = results.report(), [label.name for label in results.schema.labels]
    measured = bool(report.n)
    arms = [named(arm.settings, results) for arm in report.arms]
    ended = measured and report.ended and results.replay["held_out"]
    return {
        "replay": results.replay,
        "report": report,
        "task": results.task,
        "schema": results.schema,
        "names": arms,
        "verdict": verdict(report, arms) if ended else None,
        "shown_p": apart.shown_p,
        "test": apart.test_of(results.schema),
        "unit": rouge.unit(),
        "tables": [results.confusion(arm.number) for arm in report.arms] if measured else [],
        "labels": names,
        # Drafts differ in words, not in what they cost.
        "frontier": _frontier(report) if measured and report.ended and not results.drafts else None,
        "curves": _curves(report) if measured else None,
        "within": tables.REPLAY_WITHIN,
        "person_used": results.used_by(),
        "walking": report.walking,
        "going": _is_going(results, report),
        "drafting": results.drafting,
        "drafts": _drafts(results, report),
        "together": results.together,
        "draws": results.draws,
        "here": url_for("replays.progress", project_id=project_id, replay_id=replay_id),
    }


def _is_going(results: Results, report: Report) -> bool:
    """Whether there is more to come without anybody's doing."""
    if results.drafting is not None and results.drafting["state"] != FINISHED:
        return results.drafting["state"] in OPEN
    return report.walking or any(arm.run and arm.run["state"] in OPEN for arm in report.arms)


def _drafts(results: Results, report: Report) -> list[dict[str, Any]]:
    """Return each draft with what it changes, what it was made from, and what came of it."""
    before = (results.replay["guidelines"] or "").splitlines()
    rows = instance().store.replays.corrected([id_ for draft in results.drafts for id_ in draft.shown])
    known = {one.annotation_id: one for one in material.corrections(results.task, rows.values())}
    return [
        {
            "judged": one,
            "lines": differences(before, one.draft.guidelines.splitlines()) if one.draft.guidelines else [],
            "shown": [known[id_] for id_ in one.draft.shown if id_ in known],
        }
        for one in results.judged(report)
    ]


# Drawings


def _frontier(report: Report) -> dict[str, Any] | None:
    """Return where each arm stands by what it costs and how far it agrees; None where no two cost differently."""
    known = [arm for arm in report.arms if arm.cost is not None]
    most = max((arm.cost or 0.0 for arm in known), default=0.0)
    if not most:
        return None
    low, high = _bounds([one for arm in known for one in (arm.numbers["agreement"].low, arm.numbers["agreement"].high)])
    points = []
    for arm in known:
        agreement, x = arm.numbers["agreement"], _EDGE + (_WIDE - 2 * _EDGE) * (arm.cost or 0.0) / most
        y, top, bottom = (_place(one, low, high) for one in (agreement.value, agreement.high, agreement.low))
        points.append({"arm": arm.number, "x": round(x), "y": y, "top": top, "bottom": bottom})
    return {"points": points, "low": low, "high": high, "most": most, "wide": _WIDE, "tall": _HIGH, "edge": _EDGE}


def _curves(report: Report) -> dict[str, Any] | None:
    """Return the lines of agreement by examples known, one for each arm; None where there is one point only."""
    lines = [arm.curve for arm in report.arms]
    if not lines or len(lines[0]) < 2:
        return None
    low, high = _bounds([point.agreement.value for line in lines for point in line])
    first, last = lines[0][0].known, lines[0][-1].known
    found = []
    for arm, line in zip(report.arms, lines, strict=True):
        xs = [round(_EDGE + (_WIDE - 2 * _EDGE) * (p.known - first) / max(last - first, 1e-9)) for p in line]
        points = list(zip(xs, [_place(p.agreement.value, low, high) for p in line], strict=True))
        found.append({"arm": arm.number, "points": points})
    size = {"wide": _WIDE, "tall": _HIGH, "edge": _EDGE}
    return {"lines": found, "low": low, "high": high, "first": round(first), "last": round(last)} | size


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """Return tenths between which all values lie."""
    low, high = int(min(values) * 10) / 10, -int(-max(values) * 10 // 1) / 10
    return max(low, 0.0), min(max(high, low + 0.1), 1.0)


def _place(value: float, low: float, high: float) -> int:
    return round(_HIGH - _EDGE - (_HIGH - 2 * _EDGE) * (value - low) / max(high - low, 1e-9))
