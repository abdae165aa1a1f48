"""Exports: make a training set from approved labels, and fetch its files again."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from flask import Blueprint, g, render_template, request, send_from_directory

from labeler.errors import InputError, NotFound
from labeler.export import Filters, Options, Shares, export_task
from labeler.export.files import MANIFEST
from labeler.export.job import HOWS
from labeler.prompts import LANGUAGES
from labeler.web.access import admin_only, instance, project_task
from labeler.web.forms import decimal, go_on, text, texts

_TYPES = {".jsonl": "application/x-ndjson", ".json": "application/json", ".csv": "text/csv"}
blueprint = Blueprint("exports", __name__)


@blueprint.get("/projects/<int:project_id>/export")
@admin_only
def form(project_id: int) -> Any:
    return _page(project_id, {"task": request.args.get("task", "")})


@blueprint.post("/projects/<int:project_id>/export")
@admin_only
def make(project_id: int) -> Any:
    task, format_ = project_task(text("task")), text("format", 80)
    persona, wording = instance().prompt_words(g.project, task)
    try:
        export_task(
            instance().store,
            g.project,
            task,
            format_,
            # The name is ours; nothing of the data goes into it.
            _folder(project_id) / f"{time.strftime('%Y%m%d-%H%M%S')}-{task.name}-{secrets.token_hex(4)}",
            formats=instance().plugins.exporters,
            shares=_shares(),
            filters=Filters(how=tuple(texts("how")), language=text("language") or None),
            reviewer_id=g.person["id"],
            options=Options(
                persona=persona,
                wording=wording,
                columns=instance().sent_columns(g.project, task),
                new_splits=bool(request.form.get("new_splits")),
                formula_safe=not request.form.get("raw"),
                bom=bool(request.form.get("bom")),
                reasoning=bool(request.form.get("reasoning")),
                keep_same_form=bool(request.form.get("keep_same_form")),
                failures=bool(request.form.get("failures")),
            ),
        )
    except InputError as error:
        return _page(project_id, request.form, str(error)), error.status
    return go_on("exports.form", project_id=project_id, task=task.name)


def _shares() -> Shares:
    """Return the shares from the form's percentages."""
    given = [decimal(name, 0, 100) for name in ("train", "validation", "test")]
    if all(share is None for share in given):
        return Shares()
    return Shares(*(round((share or 0.0) / 100, 6) for share in given))


def _page(project_id: int, given: Any, message: str = "") -> str:
    made = instance().store.exports.all(project_id, 50)
    return render_template(
        "exports.html",
        tasks=instance().tasks_of(g.project),
        formats=instance().plugins.exporters,
        hows=HOWS,
        languages=LANGUAGES,
        given=given,
        chosen_how=given.getlist("how") if hasattr(given, "getlist") else [],
        exports=[export | {"names": _names(export), "here": _is_here(export)} for export in made],
        message=message,
    )


@blueprint.get("/projects/<int:project_id>/exports/<int:export_id>/<name>")
@admin_only
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
