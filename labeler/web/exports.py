"""Exports: make a training set from approved labels, and fetch its files again."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from flask import Blueprint, g, render_template, request, send_from_directory

from labeler.errors import Conflict, InputError, NotFound
from labeler.export import Filters, Options, Preflight, Selection, Shares, check_task, export_task
from labeler.export.files import MANIFEST
from labeler.export.filters import HOWS
from labeler.export.formats import TEMPLATES, TOKENS
from labeler.export.selection import CONTACTS, SPLIT_BY
from labeler.prompts import LANGUAGES, NAMES
from labeler.prompts.forms import ANSWERS, GUIDELINES
from labeler.settings import EXPORTS
from labeler.store.exports import KINDS
from labeler.task import Task
from labeler.training.sets import READ_BY_CLASSIFIERS
from labeler.web.access import allowed, instance, project_task
from labeler.web.forms import decimal, go_on, text, texts, whole

_LONGEST = 1_000_000
_THINNED = ("keep", "one", "2", "3", "5", "10")
_TYPES = {
    ".jsonl": "application/x-ndjson", ".json": "application/json", ".csv": "text/csv", ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet", ".yaml": "application/yaml",
}  # fmt: skip
_MOST_SHOWN = 100
# A project of so many records is checked at every change of the form; a larger one takes a press.
_AT_ONCE = 2_000
blueprint = Blueprint("exports", __name__)


@blueprint.get("/projects/<int:project_id>/export")
@allowed(EXPORTS)
def form(project_id: int) -> Any:
    return _page(project_id, {"task": request.args.get("task", "")})


@blueprint.post("/projects/<int:project_id>/export")
@allowed(EXPORTS)
def make(project_id: int) -> Any:
    task, format_ = project_task(text("task")), text("format", 80)
    # The name is ours; nothing of the data goes into it.
    folder = _folder(project_id) / f"{time.strftime('%Y%m%d-%H%M%S')}-{task.name}-{secrets.token_hex(4)}"
    try:
        wanted, called = _wanted(task), text("name", 80)
        export_task(
            instance().store, g.project, task, format_, folder, reviewer_id=g.person["id"], name=called, **wanted
        )
    except (Conflict, InputError) as error:
        return _page(project_id, request.form, str(error)), error.status
    return go_on("exports.form", project_id=project_id, task=task.name)


@blueprint.post("/projects/<int:project_id>/export/check")
@allowed(EXPORTS)
def check(project_id: int) -> Any:
    """Say what a trainer would make of what the form asks for: as a part of the page, or as the whole of it."""
    task, message, found = project_task(text("task")), "", None
    try:
        found = check_task(instance().store, g.project, task, text("format", 80), **_wanted(task))
    except InputError as error:
        message = str(error)
    if "HX-Request" in request.headers:
        return render_template("_preflight.html", found=found, refusal=message)
    return _page(project_id, request.form, message, found)


def _wanted(task: Task) -> dict[str, Any]:
    """Return what the form asks for. Raises :class:`SettingError`."""
    return {
        "formats": instance().plugins.exporters,
        "shares": _shares(),
        "filters": _filters(),
        "selection": _selection(),
        "calls": instance().calls(g.project, task),
        "options": Options(
            examples=int(decimal("examples", 0, 64) or 0),
            guidelines=text("prompt_guidelines") or None,
            answers=text("answer_form") or None,
            names=text("label_names") or None,
            joint=tuple(texts("joint")),
            keep_contradicting=bool(request.form.get("keep_contradicting")),
            formula_safe=not request.form.get("raw"),
            new_splits=bool(request.form.get("new_splits")),
            earlier=bool(request.form.get("earlier")),
            bom=bool(request.form.get("bom")),
            reasoning=bool(request.form.get("reasoning")),
            template=text("template", 500),
            tokens=text("tokens", 20),
            keep_same_form=bool(request.form.get("keep_same_form")),
            failures=bool(request.form.get("failures")),
        ),
    }


def _shares() -> Shares:
    """Return the shares from the form's percentages."""
    given = [decimal(name, 0, 100) for name in ("train", "validation", "test")]
    if all(share is None for share in given):
        return Shares()
    return Shares(*(round((share or 0.0) / 100, 6) for share in given))


def _filters() -> Filters:
    return Filters.read(
        how=texts("how"),
        language=text("language") or None,
        reviewers=_several("reviewer"),
        blind=bool(request.form.get("blind")),
        without_written=bool(request.form.get("without_written")),
        since=text("since", 40),
        until=text("until", 40),
        versions=_several("versions"),
        labels=_several("labels"),
        min_agreement=decimal("min_agreement", 0, 1),
        min_score=decimal("min_score", 0, 1),
        min_people_agreement=decimal("min_people_agreement", 0, 1),
        metadata=_several("metadata"),
        query=text("query", 200),
        shortest=whole("shortest", 1, _LONGEST),
        longest=whole("longest", 1, _LONGEST),
        repeated=decimal("repeated", 0, 1),
    )


def _selection() -> Selection:
    column = text("date_column", 200)
    return Selection.read(
        caps=_several("caps"),
        weights=_several("weights"),
        near_duplicates=text("near_duplicates", 10),
        contacts=text("contacts", 10),
        split_by=f"{text('split_by', 10)}:{column}" if column else text("split_by", 10),
        freeze=text("freeze", 80),
    )


def _several(name: str) -> list[str]:
    """Return the values of a field that takes several, separated by commas."""
    return [part.strip() for part in text(name).split(",") if part.strip()]


def _page(project_id: int, given: Any, message: str = "", found: Preflight | None = None) -> str:
    made = instance().store.exports.all(project_id, 50)
    return render_template(
        "exports.html",
        tasks=instance().tasks_of(g.project),
        formats=instance().plugins.exporters,
        hows=HOWS,
        contacts=CONTACTS,
        split_by=SPLIT_BY,
        thinned=_THINNED,
        people=[person["name"] for person in instance().store.people.all()],
        frozen=instance().store.splits.frozen(project_id),
        languages=LANGUAGES,
        choices={"prompt_guidelines": GUIDELINES, "answer_form": ANSWERS, "label_names": NAMES},
        chosen_joint=given.getlist("joint") if hasattr(given, "getlist") else [],
        templates=TEMPLATES,
        tokens=TOKENS,
        given=given,
        chosen_how=given.getlist("how") if hasattr(given, "getlist") else [],
        exports=[export | {"names": _names(export), "here": _is_here(export)} for export in made],
        message=message,
        found=found,
        trainable=READ_BY_CLASSIFIERS,
        at_once=instance().store.records.counts(project_id)["records"] <= _AT_ONCE,
    )


@blueprint.get("/projects/<int:project_id>/exports/<int:export_id>")
@allowed(EXPORTS)
def show(project_id: int, export_id: int) -> Any:
    """What an export holds, what was decided since, and how it differs from another one of its task."""
    exports = instance().store.exports
    export = exports.get(project_id, export_id)
    others = [one for one in exports.all(project_id, 200) if one["task"] == export["task"] and one["id"] != export_id]
    earlier = next((one for one in others if one["id"] < export_id), None)
    given = request.args.get("with", "")
    other = exports.get(project_id, int(given)) if given.isascii() and given.isdigit() and len(given) < 18 else earlier
    if other is not None and (other["task"] != export["task"] or other["id"] == export_id):
        raise InputError("Only exports of one task can be compared; choose another")
    between = (
        None
        if other is None
        else {kind: exports.differences(other["id"], export_id, kind, _MOST_SHOWN) for kind in KINDS}
    )
    return render_template(
        "export.html",
        export=export,
        task=instance().tasks_of(g.project).get(export["task"]),
        others=others,
        other=other,
        between=between,
        outdated=exports.outdated(export_id, _MOST_SHOWN),
    )


@blueprint.get("/projects/<int:project_id>/exports/<int:export_id>/<name>")
@allowed(EXPORTS)
def download(project_id: int, export_id: int, name: str) -> Any:
    """Send one file of an export: only what its manifest names, and only from where the page puts exports."""
    export = instance().store.exports.get(project_id, export_id)
    folder = instance().located(export["folder"])
    if name not in _names(export) or not _is_here(export) or (folder / name).is_symlink():
        raise NotFound("There is no such file in this export")
    return send_from_directory(
        folder,
        name,
        as_attachment=True,
        mimetype=_TYPES.get(Path(name).suffix, "application/octet-stream"),
        download_name=f"{export['task']}-{export['format']}-{export_id}-{name}",
        max_age=0,
    )


def _names(export: dict[str, Any]) -> list[str]:
    return [*export["manifest"].get("files", {}), MANIFEST]


def _is_here(export: dict[str, Any]) -> bool:
    """Whether the page made this export; one that the command line wrote elsewhere is not served."""
    folder = instance().located(export["folder"])
    return folder.parent == _folder(export["project_id"]) and (folder / MANIFEST).is_file()


def _folder(project_id: int) -> Path:
    return instance().folder / "exports" / str(int(project_id))
