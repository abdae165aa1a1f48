"""The settings of a task in a project: each change is a new version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import flash, g, render_template, request

from labeler import prompts, strictjson
from labeler import settings as tables
from labeler.annotation.relabel import KEPT, NEW, RENAMED, Preview
from labeler.errors import LabelerError
from labeler.labels import Answers
from labeler.prompts import LANGUAGES
from labeler.prompts.styles import STYLES
from labeler.task import GROUP, RECORD, Task
from labeler.web import models
from labeler.web.access import admin_only, instance, project_task
from labeler.web.forms import go_on, text, texts, whole
from labeler.web.label_rows import labels_of, rows_of, typed_answers, typed_rows, was_looked_at
from labeler.web.setting_fields import (
    GROUPS,
    Form,
    Option,
    grouped,
    named_in,
    options_of,
    seen,
    typed,
    were_seen,
)
from labeler.web.settings import blueprint, page_language
from labeler.web.words import _, setting_of, word

_MOST = 2**31
_STAYING = (KEPT, NEW, RENAMED)


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
        styles=STYLES.values(),
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
        "joint": [(task.name, task.titled(page_language())) for task in others if task.unit == found.unit],
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
