"""Settings: of a project, of one of its tasks (each change a new version), and of the instance."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import Blueprint, current_app, flash, g, render_template, request
from flask_babel import get_locale

from labeler import accounts, prompts, strictjson
from labeler import settings as tables
from labeler.annotation.relabel import KEPT, NEW, RENAMED, Preview
from labeler.backends.base import Backend, made_by
from labeler.backends.openai import OpenAIBackend, openai_settings
from labeler.errors import Forbidden, InputError, LabelerError, MissingExtra, NotFound, SettingError
from labeler.extras import AUTO, extra_of_embedder
from labeler.labels import Answers
from labeler.plugins import find
from labeler.prompts import LANGUAGES
from labeler.prompts.styles import WAYS
from labeler.store import Store
from labeler.task import GROUP, RECORD, Task
from labeler.web import models
from labeler.web.access import admin_only, instance, project_task
from labeler.web.forms import go_on, text, texts, whole
from labeler.web.label_rows import labels_of, rows_of, typed_answers, typed_rows, was_looked_at
from labeler.web.setting_fields import (
    GROUPS,
    Form,
    Group,
    Option,
    changed,
    grouped,
    named_in,
    options_of,
    seen,
    typed,
    were_seen,
)
from labeler.web.trials import Trial, Trials
from labeler.web.words import _, setting_of, word

blueprint = Blueprint("settings", __name__)
_SECRET = "openai_api_key"
_TEST_SECONDS = 30.0
_MOST = 2**31
_STAYING = (KEPT, NEW, RENAMED)


# The project


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
        other = changes.get("embedding_model") not in (None, "", g.project["settings"].get("embedding_model"))
        if other and g.person["role"] != accounts.ADMIN:
            raise Forbidden(
                "Only an admin of the instance may name an embedding model: the server fetches and loads it"
            )
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
            **{setting: [(name, name) for name in columns] for setting in tables.COLUMNS},
            "embedder": [
                (AUTO, setting_of("embedder", AUTO)),
                *((name, _named(name, extra)) for name, extra in _embedders().items()),
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
    title = task.titled(_language())
    return f"{title} ({_('per product')})" if task.unit == GROUP else title


def _named(name: str, extra: str | None) -> str:
    return name if extra is None else " – ".join((name, _("needs %(command)s", command=MissingExtra.remedy(extra))))


# A task of the project


@blueprint.get("/projects/<int:project_id>/settings/<task>")
@admin_only
def task(project_id: int, task: str) -> Any:
    """Show the settings of a task; with ``restore`` filled in with the guidelines and labels of that version."""
    found, back_to = project_task(task), request.args.get("restore", type=int)
    values = instance().task_settings(g.project, task)
    if back_to is None or back_to < 0:
        return _task_page(found, values, rows_of(found.schema))
    changes = instance().task_changes(project_id, task)
    restored, renamed = changes.restored(back_to)
    values = values | restored
    given = instance().task_settings_raw(g.project, task) | restored
    preview = changes.preview(given, Answers(renamed), back_to)
    schema = instance().plugins.task(task).overridden(back_to or 1, restored).schema
    return _task_page(found, values, rows_of(schema, renamed), preview=preview, back_to=back_to)


@blueprint.post("/projects/<int:project_id>/settings/<task>")
@admin_only
def save_task(project_id: int, task: str) -> Any:
    found = project_task(task)
    before = instance().task_settings_raw(g.project, task)
    rows, back_to = typed_rows(), whole("back_to", 0, _MOST)
    given = before | typed(tables.TASK)
    try:
        given |= {"guidelines": _changed_guidelines(task), "labels": _changed_labels(task, rows)}
        as_seen = were_seen()
        merged = tables.changed_settings("task", given)
        if as_seen is not None:
            merged = tables.merged_settings("task", before, given, as_seen)
        answers = typed_answers(rows)
        preview = instance().task_changes(project_id, task).preview(merged, answers, back_to)
        if preview.open or not was_looked_at(preview):
            return _task_page(found, given, rows, preview=preview, back_to=back_to), 409 if preview.open else 200
        if merged == before and not answers.names and back_to is None:
            flash(_("Nothing was changed."))
        else:
            version = instance().change_task(project_id, task, given, g.person["id"], as_seen, answers, back_to)
            flash(_("Saved as version %(version)s", version=version))
    except LabelerError as error:
        if error.status >= 500:
            raise
        return _task_page(found, given, rows, str(error), back_to=back_to), error.status
    return go_on("settings.task", project_id=project_id, task=task)


def _as_sent(found: Task) -> dict[str, Any]:
    """Return the settings of a task as its form sends them where nobody changes anything."""
    labels = _changed_labels(found.name, rows_of(found.schema))
    return instance().task_settings_raw(g.project, found.name) | {"labels": labels}


def _changed_guidelines(name: str) -> dict[str, str] | None:
    """Return the guidelines that differ from the plugin's own; None if none does."""
    own = instance().plugins.task(name).guidelines
    typed = {language: text(f"guidelines.{language}", 50_000) for language in LANGUAGES}
    found = {language: words for language, words in typed.items() if words and words != own.get(language, "").strip()}
    return found or None


def _changed_labels(name: str, rows: list[dict[str, str]]) -> list[dict[str, Any]] | None:
    """Return the labels as JSON if they differ from the plugin's own; None if they do not."""
    schema = instance().plugins.task(name).schema
    if not schema.names:
        return None
    own = [label.to_json() for label in schema.labels]
    changed = schema.with_labels(labels_of(rows))
    found = [label.to_json() for label in (*changed.labels, *changed.retired)]
    return None if found == own else found


def _task_page(
    found: Task,
    values: dict[str, Any],
    rows: list[dict[str, str]],
    message: str = "",
    preview: Preview | None = None,
    back_to: int | None = None,
) -> str:
    own = instance().plugins.task(found.name)
    guidelines = {**own.guidelines, **(values.get("guidelines") or {})}
    if request.method == "POST":
        guidelines = {language: request.form.get(f"guidelines.{language}", "") for language in LANGUAGES}
    versions = instance().store.projects.task_versions(g.project["id"], found.name)
    form = Form(
        {**values, "guidelines": guidelines},
        options=task_options(found, g.project),
        empty={
            "backend": _("Automatic: a server if set up, else a free one"),
            "retriever": _("Automatic: balanced for prompts, similar for free backends"),
            "unit": _("As the task has it"),
        },
        hints=task_hints(own),
        wrong=named_in(message),
        seen=seen(_as_sent(found)),
    )
    return render_template(
        "settings_task.html",
        task=found,
        own=own,
        tasks=instance().tasks_of(g.project),
        groups=grouped(tables.TASK, GROUPS["task"]),
        form=form,
        languages=LANGUAGES,
        ways=WAYS.values(),
        rows=rows,
        editable=bool(own.schema.names),
        preview=preview,
        mergeable=[fate.to or fate.name for fate in preview.fates if fate.what in _STAYING] if preview else [],
        answerable=texts("gone.name"),
        back_to=back_to,
        newest=versions[0]["version"] if versions else 0,
        ending=models.ending(instance().prices, models.chosen_model(instance(), values)),
        versions=[dict(row) | {"changed": sorted(strictjson.loads(row["settings"]))} for row in versions],
        message=message,
    )


def task_options(found: Task, project: Mapping[str, Any]) -> dict[str, list[Option]]:
    """Return the choices of a task's settings, in words: those of the table, those of plugins, and other tasks."""
    plugins = instance().plugins
    others = [task for task in instance().tasks_of(project).values() if task.name != found.name]
    chosen = {setting.name: options_of(setting) for setting in tables.TASK if setting.choices}
    return chosen | {
        "unit": [(unit, word(unit)) for unit in (RECORD, GROUP)],
        "backend": [(name, word(name)) for name in sorted(plugins.backends)],
        "retriever": [(name, setting_of("retriever", name)) for name in plugins.retrievers],
        "executor": [(name, setting_of("executor", name)) for name in plugins.executors],
        # One call can only ask about one text.
        "joint": [(task.name, task.titled(_language())) for task in others if task.unit == found.unit],
    }


def task_hints(own: Task) -> dict[str, Any]:
    """Return what stands in the empty boxes of a task's settings: what holds if nothing is entered."""
    hints: dict[str, Any] = {setting.name: setting.default for setting in tables.TASK}
    return hints | {
        "k": own.k,
        "model_id": _("As set for the instance"),
        "persona": {language: prompts.filled("persona.v1", language) for language in LANGUAGES},
        "answer_wording": {language: prompts.filled("wording.v2", language) for language in LANGUAGES},
    }


def _language() -> str:
    locale = get_locale()
    return locale.language if locale else "ko"


# The instance


@blueprint.get("/settings")
@admin_only
def general() -> Any:
    return _instance_page(instance().in_force)


@blueprint.post("/settings")
@admin_only
def save_instance() -> Any:
    """Store the settings of the instance: the connection to a server, the local model, limits.

    Any http or https address is taken, private ones too: a server of one's own on this machine or in this network is
    what the setting is for. That is why only admins of the instance may set it.
    """
    given: dict[str, Any] = {}
    try:
        given = typed(tuple(instance().table.values()))
        changes = _with_secrets(changed(instance().table, given))
        # The backend itself says what is wrong with an address or a key.
        OpenAIBackend(changes.get("openai_base_url"), changes.get(_SECRET), changes.get("openai_model") or "any")
        instance().change_settings(changes, g.person["id"])
    except InputError as error:
        return _instance_page(instance().in_force | given, str(error)), error.status
    flash(_("Saved"))
    return go_on("settings.general")


def _with_secrets(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes: a secret is never sent back to the page, so an empty field means that it stays."""
    secrets = _secrets()
    changes = {name: value for name, value in given.items() if name not in secrets or value}
    return changes | {name: None for name in texts("forget") if name in secrets}


def _secrets() -> list[str]:
    return [setting.name for setting in instance().table.values() if setting.secret]


@blueprint.post("/settings/test")
@admin_only
def test() -> Any:
    """Make one tiny call with the stored settings, say how it went, and keep what the model can.

    ``backend`` "transformers" loads the local model and asks it, in a thread: the page asks :func:`trial` how that
    stands. ``model_id`` names another than the instance's.
    """
    return _shown(lambda: _tested(text("backend", 80) or models.OPENAI, text("model_id", 500)))


@blueprint.get("/settings/test")
@admin_only
def trial() -> Any:
    """How the test of a local model stands, by its ``number``; the page asks every second while it goes on."""
    return _shown(lambda: _trial(request.args.get("number", 0, int)))


def _shown(look: Callable[[], Mapping[str, Any] | Trial]) -> str:
    try:
        found = look()
    except LabelerError as error:
        found = {"ok": False, "message": str(error)}
    return render_template("_test_result.html", found=found, going_on=found if isinstance(found, Trial) else None)


def _trials() -> Trials:
    return current_app.extensions.setdefault("labeler_trials", Trials())  # type: ignore[no-any-return]


def _trial(number: int) -> Mapping[str, Any] | Trial:
    """Return what the test of a local model came to, or the test itself while it goes on."""
    trial = _trials().get(number)
    if trial is None:
        raise NotFound("There is no such test any more; start it again")
    return trial if trial.found is None else trial.found


def _tested(backend: str, model_id: str) -> Mapping[str, Any] | Trial:
    if backend not in models.MODELS_OF:
        raise SettingError("The backend %(backend)s needs no test", backend=backend)
    settings = instance().in_force
    model_id = model_id or settings.get(models.MODELS_OF[backend]) or ""
    if not model_id:
        raise SettingError(_("Enter a model and save first."))
    named = [row.model_id for row in models.model_rows(instance()) if row.backend == backend]
    if model_id not in named:
        # Else the button would fetch and load whatever a form names.
        raise SettingError("No model %(name)r; the settings name: %(names)s", name=model_id, names=", ".join(named))
    base_url = (models.address_of(instance()) if backend == models.OPENAI else None) or ""
    work = partial(_checked, instance().store, _made(backend, model_id, settings), (backend, base_url, model_id))
    return work() if backend == models.OPENAI else _trials().start(model_id, work)


def _checked(store: Store, made: Backend, place: tuple[str, str, str]) -> Mapping[str, Any]:
    """Test a backend and close it; keep what its model can under ``place`` (backend, address, model id)."""
    try:
        found = made.check()
    finally:
        made.close()
    if found is None:
        raise SettingError("The backend %(backend)s needs no test", backend=place[0])
    if found["ok"] and found.get("capabilities"):
        store.write(lambda tx: store.models.record(tx, *place, found["capabilities"]))
    return found


def _made(backend: str, model_id: str, settings: Mapping[str, Any]) -> Backend:
    """Return a backend of its own for a test, with less patience than a run has."""
    if backend == models.OPENAI:
        key, base_url = openai_settings(settings)
        return OpenAIBackend(base_url, key, model_id, timeout=min(_TEST_SECONDS, _timeout(settings)))
    return made_by(find(instance().plugins.backends, backend, "backend"), {**settings, "model_id": model_id})


def _timeout(settings: Mapping[str, Any]) -> float:
    return float(settings.get("timeout_seconds") or 60.0)


def _instance_page(values: Mapping[str, Any], message: str = "") -> str:
    # A secret goes nowhere: not even the one that was just typed comes back.
    shown = _without_secrets(values)
    known = {name for name in _secrets() if instance().settings.get(name)}
    secret_hints = {
        name: _("Set; enter another one to replace it") if name in known else _("Not set") for name in _secrets()
    }
    hints = {
        "openai_base_url": "https://api.openai.com/v1",
        "transformers_model": "meta-llama/Llama-3.1-8B-Instruct",
        "timeout_seconds": 60,
        "lease_seconds": tables.lease(instance().settings | {"lease_seconds": None}),
        **secret_hints,
        **dict.fromkeys(("requests_per_minute", "tokens_per_minute"), _("Learned from the server")),
    }
    return render_template(
        "settings.html",
        going_on=_trials().going_on(),
        groups=grouped(tuple(instance().table.values()), (*GROUPS["instance"], _plugins())),
        form=Form(shown, hints=hints, wrong=named_in(message), seen=seen(_without_secrets(_own(instance().settings)))),
        known_secrets=known,
        overruled=[name for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL") if os.environ.get(name, "").strip()],
        local_installed=all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
        rows=models.model_rows(instance()),
        plugins=instance().plugins,
        embedders=_embedders(),
        remedy=MissingExtra.remedy,
        message=message,
    )


def _plugins() -> Group:
    return Group(_("Plugins"), tuple(instance().plugins.settings), _("What plugins need that are installed here."))


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those of plugins that are gone: these wait in the file."""
    known = instance().table
    return {name: value for name, value in values.items() if name in known}


def _without_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    secrets = _secrets()
    return {name: value for name, value in values.items() if name not in secrets}


def _embedders() -> dict[str, str | None]:
    """Return the embedders by name, with the extra that must be installed first, or None if they can be used."""
    return {name: extra_of_embedder(name) for name in instance().plugins.embedders}
