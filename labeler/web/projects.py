"""Projects: the list, a new one, the overview of one, its records, and the people who work on it."""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, flash, g, render_template, url_for
from flask_babel import get_locale

from labeler import accounts
from labeler.backends.ensemble.backend import EnsembleBackend
from labeler.backends.ensemble.learn import Learned
from labeler.errors import InputError, NotFound
from labeler.oidc import Registration
from labeler.store.annotations import ACCEPTED, BULK, CORRECTED, IMPORTED, SCRATCH
from labeler.task import GROUP, Task
from labeler.web import uploads
from labeler.web.access import admin_only, instance, takes_upload
from labeler.web.errors import plugin_failure
from labeler.web.forms import go_on, text, texts, whole
from labeler.web.notes import waiting
from labeler.web.words import _

log = logging.getLogger("labeler.web")
PAGE = 50
_MAX_ID = 2**62
blueprint = Blueprint("projects", __name__)


@blueprint.get("/")
def index() -> Any:
    store = instance().store
    admin = g.person["role"] == accounts.ADMIN
    found = store.projects.all() if admin else store.projects.of_member(g.person["id"])
    return render_template("projects.html", projects=[_summary(project) for project in found])


def _summary(project: dict[str, Any]) -> dict[str, Any]:
    tasks = instance().tasks_of(project)
    counts = instance().store.work.counts_by_task(project["id"])
    states = ("pending", "disputed", "approved", "rejected")
    total = {state: sum(counts[name][state] for name in tasks if name in counts) for state in states}
    return {
        "project": project,
        "tasks": tasks,
        "counts": total,
        "records": instance().store.records.counts(project["id"])["records"],
    }


@blueprint.get("/projects/new")
@admin_only
def new() -> Any:
    return _new_page()


@blueprint.post("/projects/new")
@admin_only
@takes_upload
def create() -> Any:
    name, language, tasks = text("name"), text("language"), texts("tasks")
    try:
        file = uploads.chosen_file()
        if not tasks:
            raise InputError("Choose at least one task")
        project_id = instance().create_project(name, language, {"tasks": tasks}, g.person["id"])
    except (InputError, NotFound) as error:
        return _new_page({"name": name, "language": language, "tasks": tasks}, str(error)), error.status
    if file is None:
        return go_on("projects.overview", project_id=project_id)
    return go_on("imports.preview", project_id=project_id, upload=uploads.keep(project_id, file))


def _new_page(form: dict[str, Any] | None = None, message: str = "") -> str:
    loaded = instance().plugins.tasks
    empty = {"name": "", "language": "ko", "tasks": list(loaded)}
    return render_template(
        "project_new.html", loaded=loaded, form=form or empty, message=message, kinds=uploads.kinds()
    )


@blueprint.get("/projects/<int:project_id>")
def overview(project_id: int) -> Any:
    store = instance().store
    tasks = instance().tasks_of(g.project)
    return render_template(
        "project.html",
        tasks=[_card(project_id, task) for task in tasks.values()],
        records=store.records.counts(project_id) | {"near": store.records.near_duplicates(project_id)},
        cost=store.ledger.project_cost(project_id),
        vectors=store.vectors.progress(instance().chosen_embeddings(g.project).embedder.id, project_id),
        imports=store.records.imports(project_id, 5),
        exports=store.exports.all(project_id, 5),
        runs=store.ledger.runs(project_id, 5),
        troubles=store.upkeep.troubles(project_id),
        waiting=sum(waiting(project_id).values()),
    )


def _card(project_id: int, task: Task) -> dict[str, Any]:
    """Return what the overview says of one task; what fails in a task of a plugin costs its own card alone."""
    try:
        return _standing(project_id, task) | {"title": task.titled(str(get_locale()))}
    except Exception as error:
        sentence = plugin_failure(error)
        if sentence is None:
            raise
        log.exception("The task %s failed on the overview", task.name)
        return {"task": task, "title": task.name, "failed": sentence}


def _standing(project_id: int, task: Task) -> dict[str, Any]:
    store = instance().store
    how = store.annotations.how_counts(project_id, task.name)
    return {
        "task": task,
        "group": task.unit == GROUP,
        "counts": store.work.counts(project_id, task.name),
        "how": {name: how.get(name, 0) for name in (ACCEPTED, CORRECTED, SCRATCH, IMPORTED, BULK)},
        "agreement": _agreement(project_id, task),
        "learned": _learned(task),
        "several": instance().ballots(g.project, task).overlap.people > 1,
    }


def _learned(task: Task) -> Learned | None:
    """Return what cross-validation says of the free suggestion; None where too little is approved for it."""
    ensemble = instance().ensemble(g.project, task)
    return ensemble.measured if isinstance(ensemble, EnsembleBackend) else None


def _agreement(project_id: int, task: Task) -> list[dict[str, Any]]:
    """Return the agreement with each model's suggestions, blind and assisted, the one decided on last first."""
    found: dict[tuple[str, str | None], dict[bool, Any]] = {}
    for row in instance().store.annotations.agreement(project_id, task.name, task.version):
        found.setdefault((row["backend"], row["model_id"]), {})[bool(row["blind"])] = row
    return [{"name": model or backend, "rows": rows} for (backend, model), rows in found.items()]


# People: accounts of the instance, and who is a member of what


@blueprint.get("/people")
@admin_only
def people() -> Any:
    return _people_page()


@blueprint.post("/people/accounts")
@admin_only
def add_account() -> Any:
    """Add an account without a password, and show its one-time link: now, and never again."""
    store = instance().store
    name, role, project_id = text("name"), text("role"), whole("project", 1, _MAX_ID)
    email = text("email", 254)
    try:
        if email:
            # Before there is an account that would be without it.
            accounts.checked_email(email)
        if project_id is not None:
            store.projects.get(project_id)
        id_ = accounts.add_reviewer(store, name, None, role, g.person["id"])
        if project_id is not None:
            accounts.set_member(store, project_id, id_, accounts.REVIEWER, g.person["id"])
        if email:
            accounts.set_email(store, id_, email, g.person["id"])
    except InputError as error:
        return _people_page(message=str(error)), error.status
    return _people_page(link=_link_for(id_), link_name=name)


@blueprint.post("/people/<int:reviewer_id>/link")
@admin_only
def new_link(reviewer_id: int) -> Any:
    person = instance().store.people.get(reviewer_id)
    if person is None:
        raise NotFound("There is no account number %(number)s", number=reviewer_id)
    return _people_page(link=_link_for(reviewer_id), link_name=person["name"])


@blueprint.post("/people/<int:reviewer_id>")
@admin_only
def change_account(reviewer_id: int) -> Any:
    disabled = text("disabled")
    accounts.change_account(
        instance().store,
        reviewer_id,
        g.person["id"],
        role=text("role") or None,
        disabled=None if not disabled else disabled == "1",
    )
    flash(_("Saved"))
    return go_on("projects.people")


@blueprint.post("/people/<int:reviewer_id>/email")
@admin_only
def set_email(reviewer_id: int) -> Any:
    try:
        accounts.set_email(instance().store, reviewer_id, text("email", 254) or None, g.person["id"])
    except InputError as error:
        return _people_page(message=str(error)), error.status
    flash(_("Saved"))
    return go_on("projects.people")


@blueprint.post("/people/members")
@admin_only
def set_member() -> Any:
    """Give an account a role in a project; the role "" takes it out."""
    project_id, reviewer_id = whole("project", 1, _MAX_ID), whole("reviewer", 1, _MAX_ID)
    if project_id is None or reviewer_id is None:
        raise InputError("Choose a project and a person")
    accounts.set_member(instance().store, project_id, reviewer_id, text("role") or None, g.person["id"])
    flash(_("Saved"))
    return go_on("projects.people")


def _link_for(reviewer_id: int) -> str:
    token = accounts.one_time_link(instance().store, reviewer_id, g.person["id"])
    return url_for("signin.link", token=token, _external=True)


def _people_page(**shown: Any) -> str:
    store = instance().store
    projects = store.projects.all()
    return render_template(
        "people.html",
        people=store.people.all(),
        projects=projects,
        members={project["id"]: store.projects.members(project["id"]) for project in projects},
        roles=accounts.ROLES,
        member_roles=accounts.MEMBER_ROLES,
        company=Registration.of(instance().settings) is not None,
        **shown,
    )
