"""Importing a file: upload it, look at it, say which column is what, and watch it go in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, g, render_template, request, url_for

from labeler import strictjson
from labeler.errors import Doubt, InputError
from labeler.export.formats import csv_line
from labeler.ingest.options import ImportOptions
from labeler.ingest.reading import Reading
from labeler.ingest.reading import preview as look_at
from labeler.ingest.report import Report
from labeler.ingest.service import queue_import
from labeler.sentence import Sentence
from labeler.web import uploads
from labeler.web.access import admin_only, instance, takes_upload
from labeler.web.forms import go_on, text
from labeler.web.words import translated

ENCODINGS = ("utf-8", "cp949", "utf-16", "cp1252", "shift_jis")
DELIMITERS = (",", "tab", ";", "|", "none")
MAX_COLUMNS_SHOWN = 30
_SHOWN_LINES = 200
_SHOWN_ROWS = 8
blueprint = Blueprint("imports", __name__)


@blueprint.get("/projects/<int:project_id>/import")
@admin_only
def form(project_id: int) -> Any:
    imports = instance().store.records.imports(project_id)
    return render_template("import.html", imports=imports, kinds=uploads.kinds())


@blueprint.post("/projects/<int:project_id>/import")
@admin_only
@takes_upload
def upload(project_id: int) -> Any:
    file = uploads.chosen_file()
    if file is None:
        raise InputError("Choose a file first")
    return go_on("imports.preview", project_id=project_id, upload=uploads.keep(project_id, file))


@blueprint.get("/projects/<int:project_id>/import/<upload>/preview")
@admin_only
def preview(project_id: int, upload: str) -> Any:
    return _preview_page(project_id, upload, _how_to_read(request.args))


@blueprint.post("/projects/<int:project_id>/import/<upload>/preview")
@admin_only
def start(project_id: int, upload: str) -> Any:
    path, file_name = uploads.find(project_id, upload)
    tasks = instance().tasks_of(g.project)
    options = _how_to_read(request.form) | {
        "text": text("text") or None,
        "id": text("id"),
        "group": text("group"),
        "labels": {name: column for name in tasks if (column := text(f"label.{name}"))},
        "strict": bool(request.form.get("strict")),
    }
    if not options["text"]:
        return _preview_page(project_id, upload, options, Sentence("Choose the column that holds the review text")), 400
    chosen = ImportOptions(**options)
    try:
        _look(path, chosen, file_name).resolve(chosen)
    except InputError as error:
        return _preview_page(project_id, upload, options, str(error)), 400
    uploads.take(path)
    import_id = queue_import(instance().store, project_id, path, file_name, chosen, g.person["id"])
    instance().wake()
    return go_on("imports.show", project_id=project_id, import_id=import_id)


def _how_to_read(given: Any) -> dict[str, Any]:
    """Return the options that decide how the file itself is read, from an address or a form."""
    names = ("encoding", "delimiter", "sheet", "header_row")
    read: dict[str, Any] = {name: (given.get(name) or "").strip()[:40] or None for name in names}
    return read | {"header": given.get("header", "1") != "0"}


def _look(path: Path, options: ImportOptions, name: str) -> Reading:
    return look_at(path, options, instance().plugins.importers, name)


def _preview_page(project_id: int, upload: str, options: dict[str, Any], message: str = "") -> str:
    path, file_name = uploads.find(project_id, upload)
    seen, readings, tasks = None, [], instance().tasks_of(g.project)
    try:
        seen = _look(path, ImportOptions(**options), file_name)
    except Doubt as doubt:
        message = str(doubt)
        readings = [_reading(project_id, upload, options | dict(choice), choice) for choice in doubt.choices]
    except InputError as error:
        message = message or str(error)
    return render_template(
        "import_preview.html",
        upload=upload,
        file_name=file_name,
        size=path.stat().st_size,
        seen=seen,
        readings=readings,
        options=options,
        rows_shown=_SHOWN_ROWS,
        columns_shown=MAX_COLUMNS_SHOWN,
        message=message,
        tasks=tasks,
        likely=seen.labels(tasks.values()) if seen else {},
        encodings=ENCODINGS,
        delimiters=DELIMITERS,
    )


def _reading(project_id: int, upload: str, options: dict[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return one way to read a file that can be read in several: its first rows, and where it is chosen."""
    path, file_name = uploads.find(project_id, upload)
    how = {name: options[name] for name in ("encoding", "delimiter", "sheet", "header_row") if options[name]}
    here = url_for("imports.preview", project_id=project_id, upload=upload, header=int(options["header"]), **how)
    try:
        seen = _look(path, ImportOptions(**options), file_name)
    except InputError as error:
        return {"choice": choice, "here": here, "seen": None, "message": str(error)}
    return {"choice": choice, "here": here, "seen": seen, "message": ""}


@blueprint.get("/projects/<int:project_id>/imports/<int:import_id>")
@admin_only
def show(project_id: int, import_id: int) -> Any:
    return render_template("import_show.html", **_progress(project_id, import_id))


@blueprint.get("/projects/<int:project_id>/imports/<int:import_id>/progress")
@admin_only
def progress(project_id: int, import_id: int) -> Any:
    """The part of the page that is asked for again every second while the import runs."""
    return render_template("_import_progress.html", **_progress(project_id, import_id))


@blueprint.get("/projects/<int:project_id>/imports/<int:import_id>/report.csv")
@admin_only
def report(project_id: int, import_id: int) -> Any:
    """What was not simply taken, as a table for spreadsheets; cells cannot become formulas."""
    lines = [csv_line(["row", "column", "reason"], True)]
    lines += [
        csv_line([str(n), column or "", translated(reason)], True)
        for n, column, reason in Report.of(dict(instance().store.records.get_import(project_id, import_id))).lines
    ]
    response = Response("\ufeff" + "".join(lines), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="import-{import_id}-report.csv"'
    return response


def _progress(project_id: int, import_id: int) -> dict[str, Any]:
    row = instance().store.records.get_import(project_id, import_id)
    found = Report.of(dict(row))
    return {
        "row": row,
        "running": row["state"] in ("queued", "running"),
        "options": strictjson.loads(row["settings"]).get("options", {}),
        "report": found,
        "lines": found.lines[:_SHOWN_LINES],
        "here": url_for("imports.progress", project_id=project_id, import_id=import_id),
    }
