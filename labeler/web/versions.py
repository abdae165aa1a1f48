"""The versions of a task's guidelines and labels, two of them side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

from flask import Blueprint, g, render_template, request

from labeler.errors import NotFound
from labeler.labels import Label
from labeler.prompts import LANGUAGES
from labeler.task import Task
from labeler.web.access import admin_only, instance, project_task
from labeler.web.words import _, setting_title, word

blueprint = Blueprint("versions", __name__)
ADDED, REMOVED, SAME, SKIPPED = "added", "removed", "same", "skipped"
_AROUND = 2

Line = tuple[str, str]
"""Whether a line was added, removed or is the same, and the line."""


@blueprint.get("/projects/<int:project_id>/settings/<task>/versions")
@admin_only
def compare(project_id: int, task: str) -> Any:
    """Show what differs between two versions of a task: ``old`` and ``new``, by default the last change."""
    found, own, store = project_task(task), instance().plugins.task(task), instance().store
    rows = store.projects.task_versions(project_id, task)
    newest = rows[0]["version"] if rows else 0
    new = request.args.get("new", newest, int)
    old = request.args.get("old", max(new - 1, 0), int)
    numbers = range(newest, -1, -1)
    if new not in numbers or old not in numbers:
        raise NotFound(
            "There is no version %(number)s of the settings of %(task)s",
            number=old if old not in numbers else new,
            task=task,
        )
    before, after = (_at(own, project_id, number) for number in (old, new))
    return render_template(
        "versions.html",
        task=found,
        tasks=instance().tasks_of(g.project),
        names={number: f"{own.version}.{number}" if number else own.version for number in numbers},
        who={row["version"]: row["reviewer"] or "" for row in rows},
        old=old,
        new=new,
        newest=newest,
        parts=list(_parts(before, after)),
    )


def _at(own: Task, project_id: int, version: int) -> Task:
    settings = instance().store.projects.task_settings_at(project_id, own.name, version)
    asked = {name: settings.get(name) for name in ("guidelines", "labels")}
    return own.overridden(version, asked)


def _parts(before: Task, after: Task) -> Iterator[tuple[str, list[Line]]]:
    for language in LANGUAGES:
        texts = [task.guidelines.get(language, "").splitlines() for task in (before, after)]
        if any(texts):
            yield f"{setting_title('guidelines')}: {word(language)}", differences(*texts)
    if after.schema.names or before.schema.names:
        yield setting_title("labels"), differences(*(_label_lines(task) for task in (before, after)))


def _label_lines(task: Task) -> list[str]:
    return [_line(label) for label in (*task.schema.labels, *task.schema.retired)]


def _line(label: Label) -> str:
    """Return a label as one line: what can be changed of it, but its color."""
    parts = [label.name, *(text for text in (*label.title.values(), *label.definition.values()) if text)]
    parts += [_("Parent: %(name)s", name=label.parent)] if label.parent else []
    parts += [_("Retired")] if label.retired else []
    return " · ".join(parts)


def differences(before: Sequence[str], after: Sequence[str]) -> list[Line]:
    """Return the lines that differ, with a few around them; empty where nothing does."""
    found: list[Line] = []
    for group in SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(_AROUND):
        found += [(SKIPPED, "")] if found else []
        for kind, a, b, c, d in group:
            if kind == "equal":
                found += [(SAME, line) for line in before[a:b]]
                continue
            found += [(REMOVED, line) for line in before[a:b]]
            found += [(ADDED, line) for line in after[c:d]]
    return found if any(kind in (ADDED, REMOVED) for kind, _line in found) else []
