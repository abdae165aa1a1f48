"""The settings of a project. Those of a task and of the instance stand in modules of their own."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, flash, g, render_template
from flask_babel import get_locale

from labeler import settings as tables
from labeler.errors import InputError, LabelerError, MissingExtra
from labeler.extras import AUTO, extra_of_embedder
from labeler.task import GROUP, Task
from labeler.web.access import admin_only, instance
from labeler.web.forms import go_on
from labeler.web.setting_fields import (
    GROUPS,
    Form,
    changed,
    grouped,
    named_in,
    seen,
    typed,
)
from labeler.web.words import _, setting_of

blueprint = Blueprint("settings", __name__)


@blueprint.get("/projects/<int:project_id>/settings")
@admin_only
def project(project_id: int) -> Any:
    return _project_page(instance().project_settings(g.project))


@blueprint.post("/projects/<int:project_id>/settings")
@admin_only
def save_project(project_id: int) -> Any:
    given = typed(tables.PROJECT)
    try:
        if "tasks" in given and not given["tasks"]:
            raise InputError("Choose at least one task")
        changes = changed("project", given)
        instance().change_project(project_id, changes, g.person["id"])
    except LabelerError as error:
        if error.status >= 500:
            raise
        return _project_page(instance().project_settings(g.project) | given, str(error)), error.status
    flash(_("Saved"))
    return go_on("settings.project", project_id=project_id)


def _project_page(values: dict[str, Any], message: str = "") -> str:
    loaded = instance().plugins.tasks
    columns = instance().store.records.columns(g.project["id"])
    # What was chosen by a command, or stands in few records alone, stays chosen.
    columns |= {name: [] for setting in tables.COLUMNS for name in values[setting] if name not in columns}
    form = Form(
        values,
        options={
            "tasks": [(name, _titled(task)) for name, task in loaded.items()],
            "shared_tasks": [(name, _titled(loaded[name])) for name in values["tasks"] if name in loaded],
            **{setting: [(name, name) for name in columns] for setting in tables.COLUMNS},
            "embedder": [
                (AUTO, setting_of("embedder", AUTO)),
                *((name, _named(name, extra)) for name, extra in embedders_there().items()),
            ],
        },
        hints={setting.name: setting.default for setting in tables.PROJECT}
        | {"max_share_reviewer": _("0.5 if several reviewers label, otherwise 1")},
        wrong=named_in(message),
        seen=seen(g.project["settings"]),
    )
    return render_template(
        "settings_project.html",
        groups=grouped(tables.PROJECT, GROUPS["project"]),
        form=form,
        spent=dict(zip(("total", "today"), instance().store.ledger.spent(g.project["id"]), strict=True)),
        tasks=instance().tasks_of(g.project),
        columns=columns,
        message=message,
    )


def _titled(task: Task) -> str:
    title = task.titled(page_language())
    return f"{title} ({_('per product')})" if task.unit == GROUP else title


def _named(name: str, extra: str | None) -> str:
    return name if extra is None else " – ".join((name, _("needs %(command)s", command=MissingExtra.command(extra))))


def page_language() -> str:
    locale = get_locale()
    return locale.language if locale else "ko"


def embedders_there() -> dict[str, str | None]:
    """Return the embedders by name, with the extra that must be installed first, or None if they can be used."""
    return {name: extra_of_embedder(name) for name in instance().plugins.embedders}
