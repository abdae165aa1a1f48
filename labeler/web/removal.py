"""Taking back: pages that show what goes with a record, an import, a project or a person's data, and remove it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, flash, g, render_template, request, url_for

from labeler import removal
from labeler.errors import Conflict, InputError
from labeler.removal import IMPORT, PROJECT, RECORD, Target
from labeler.sentence import Sentence
from labeler.web.access import admin_only, instance
from labeler.web.forms import go_on, text, whole
from labeler.web.words import _

_MOST = 2**53
blueprint = Blueprint("removal", __name__)


@blueprint.get("/projects/<int:project_id>/records/<int:record_id>/remove")
@admin_only
def record(project_id: int, record_id: int) -> Any:
    name = instance().store.records.get(record_id).key
    return _page(Target(RECORD, project_id, record_id), name, url_for("records.page", project_id=project_id))


@blueprint.post("/projects/<int:project_id>/records/<int:record_id>/remove")
@admin_only
def remove_record(project_id: int, record_id: int) -> Any:
    target = Target(RECORD, project_id, record_id)
    return _removed(target, url_for("records.page", project_id=project_id))


@blueprint.get("/projects/<int:project_id>/imports/<int:import_id>/remove")
@admin_only
def import_(project_id: int, import_id: int) -> Any:
    row = instance().store.records.get_import(project_id, import_id)
    back = url_for("imports.show", project_id=project_id, import_id=import_id)
    return _page(Target(IMPORT, project_id, import_id), row["file"], back)


@blueprint.post("/projects/<int:project_id>/imports/<int:import_id>/remove")
@admin_only
def remove_import(project_id: int, import_id: int) -> Any:
    return _removed(Target(IMPORT, project_id, import_id), url_for("imports.form", project_id=project_id))


@blueprint.get("/projects/<int:project_id>/remove")
@admin_only
def project(project_id: int) -> Any:
    return _project_page(project_id)


@blueprint.post("/projects/<int:project_id>/remove")
@admin_only
def remove_project(project_id: int) -> Any:
    if text("name") != g.project["name"]:
        return _project_page(project_id, Sentence("Type the name of the project to remove it")), 400
    return _removed(Target(PROJECT, project_id), url_for("projects.index"))


@blueprint.post("/projects/<int:project_id>/rename")
@admin_only
def rename(project_id: int) -> Any:
    removal.rename(instance().store, project_id, text("name"), g.person["id"])
    flash(_("Saved"))
    return go_on("settings.project", project_id=project_id)


@blueprint.post("/projects/<int:project_id>/archive")
@admin_only
def archive(project_id: int) -> Any:
    removal.archive(instance().store, project_id, bool(request.form.get("archived")), g.person["id"])
    flash(_("Saved"))
    return go_on("settings.project", project_id=project_id)


@blueprint.get("/person")
@admin_only
def person() -> Any:
    return render_template("person.html", words="", found=None, message="", projects={}, tasks={})


@blueprint.post("/person")
@admin_only
def find_person() -> Any:
    """Find a person's data, or, with ``seen``, erase what was found. By POST: the words stand in no address or log."""
    words, seen = text("words"), whole("seen", 0, _MOST)
    store = instance().store
    message, status = "", 200
    try:
        target = removal.person(words)
        if seen is not None:
            gone = removal.remove(instance(), target, seen, g.person["id"])
            flash(_("Removed: %(n)s records", n=gone.records))
        found = removal.preview(store, target)
    except (InputError, Conflict) as error:
        found, message, status = None, str(error), error.status
    projects = {one["id"]: one["name"] for one in store.projects.all()}
    return render_template(
        "person.html", words=words, found=found, message=message, projects=projects, tasks=instance().plugins.tasks
    ), status


def _project_page(project_id: int, message: str = "") -> str:
    back = url_for("settings.project", project_id=project_id)
    return _page(Target(PROJECT, project_id), g.project["name"], back, message)


def _page(target: Target, name: str, back: str, message: str = "") -> str:
    found = removal.preview(instance().store, target)
    (going,) = found.parts.values()
    return render_template(
        "remove.html",
        target=target,
        name=name,
        going=going,
        found=found,
        back=back,
        message=message,
        tasks=instance().tasks_of(g.project),
    )


def _removed(target: Target, then: str) -> Any:
    seen = whole("seen", 0, _MOST)
    if seen is None:
        raise InputError("Look first at what would be removed")
    gone = removal.remove(instance(), target, seen, g.person["id"])
    flash(_("Removed: %(n)s records", n=gone.records))
    return "", 303, {"Location": then}
