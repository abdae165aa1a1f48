"""Settings of the instance, of a project and of its tasks, by the names of :mod:`labeler.settings`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labeler import settings as tables
from labeler import strictjson
from labeler.cli.base import clean, cli, with_instance
from labeler.cli.labels import Said, lines, ways
from labeler.cli.run_options import unescaped
from labeler.errors import InputError, JsonError, NotFound, SettingError
from labeler.settings import Setting, lease

if TYPE_CHECKING:
    from labeler.instance import Instance

_SHORT = 100
_ENVIRONMENT = {
    "openai_api_key": "OPENAI_API_KEY",
    "openai_base_url": "OPENAI_BASE_URL",
    "oidc_client_secret": "LABELER_OIDC_CLIENT_SECRET",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where settings stand: what they are of, their table, those that were changed, and how more are changed.

    ``change`` stores changes (None resets a setting) and returns what to say of it. ``holds`` is what holds here where
    nothing is set, of settings whose table can only say where it comes from.
    """

    of: str
    table: Sequence[Setting]
    stored: Mapping[str, Any]
    change: Callable[[dict[str, Any]], str]
    holds: Mapping[str, Any] = field(default_factory=dict)

    def setting(self, name: str) -> Setting:
        known = {setting.name: setting for setting in self.table}
        if name not in known:
            raise SettingError(f"No {self.of.split()[0]} setting {name!r}; there are: {', '.join(known)}")
        return known[name]

    def unset(self, setting: Setting) -> str:
        """Return what holds where nothing is set, as text."""
        return str(self.holds.get(setting.name, setting.unset))

    def shown(self, setting: Setting) -> str:
        """Return a value as text, a key only as set; one that nobody set as what holds, if that is no value."""
        value = self.value(setting)
        if value == setting.default and setting.empty:
            return f"({self.unset(setting)})"
        return "(set)" if setting.secret and value else strictjson.dumps(value)

    def value(self, setting: Setting) -> Any:
        return self.stored.get(setting.name, setting.default)


@cli.command()
@click.argument("words", nargs=-1, metavar="[NAME | NAME=VALUE]...")
@click.option("--project", metavar="NAME", help="The settings of this project [those of the instance]")
@click.option("--task", "task_name", metavar="TASK", help="With --project: those of this task")
@ways
@with_instance
def settings(
    instance: Instance, words: tuple[str, ...], project: str | None, task_name: str | None, **said: Any
) -> None:
    """List all settings, show the named ones, or change them.

    NAME= resets a setting. Write a list as JSON or separated by commas, a map and labels as JSON. NAME=@FILE reads JSON
    from a file. A key is never shown. Of a label that goes and that approvals have, say what becomes of it: --rename,
    --merge, --retire or --reopen, each as often as needed.
    """
    labels = Said.read(**said)
    if labels and task_name is None:
        raise InputError("What becomes of labels is said of a task; give --project and --task")
    place = _place(instance, project, task_name, labels)
    typed = [word.partition("=") for word in words]
    named = _known(place, typed)
    changes = {name: clean(name, _typed(place.setting(name), raw)) for name, mark, raw in typed if mark}
    if changes or labels:
        click.echo(_changed(place, changes))
        place = _place(instance, project, task_name, labels)
    if words or labels:
        for setting in named:
            click.echo(f"{setting.name} = {place.shown(setting)}")
        return
    click.echo(f"The settings of the {place.of}; * marks those that were changed:")
    for setting in place.table:
        _list(place, setting)
    if not project:
        _overruled()


def _known(place: Place, typed: Sequence[tuple[str, str, str]]) -> list[Setting]:
    """Return the settings that are named, each once. Raises :class:`SettingError` for one that does not exist."""
    known = {setting.name for setting in place.table}
    first = typed[0][0] if typed else ""
    if len(typed) > 1 and first in known and not typed[0][1] and typed[1][0] not in known:
        # The value itself is not repeated: it may be a key.
        raise SettingError(f"{first} and its value are one word: {first}=VALUE")
    return [place.setting(name) for name in dict.fromkeys(name for name, _, _ in typed)]


def _list(place: Place, setting: Setting) -> None:
    value = place.shown(setting)
    value = value if len(value) <= _SHORT else value[:_SHORT] + "…"
    click.echo(f"{'*' if setting.name in place.stored else ' '} {setting.name} = {value}")
    click.echo(f"      {setting.meaning} (default: {place.unset(setting)})")


def _overruled() -> None:
    for name, variable in _ENVIRONMENT.items():
        if os.environ.get(variable, "").strip():
            click.echo(f"Note: {variable} of the environment wins over {name}.", err=True)


# Values as they are typed


def _typed(setting: Setting, raw: str) -> Any:
    """Return the value of a typed text, checked; None resets. Raises :class:`SettingError` naming the setting."""
    if raw == "":
        return None
    if setting.kind == "list":
        return setting.read(_list_of(setting.name, raw))
    if setting.kind == "map":
        return setting.read(_json(setting.name, raw))
    if setting.kind == "labels":
        labels = _json(setting.name, raw)
        if not isinstance(labels, list) or not labels:
            raise SettingError(f'{setting.name} must be a JSON list such as [{{"name": "fresh"}}, {{"name": "stale"}}]')
        return labels
    return setting.read(raw)


def _list_of(name: str, raw: str) -> Any:
    if raw.lstrip().startswith("["):
        return _json(name, raw)
    return [unescaped(name, text.strip()) for text in raw.split(",") if text.strip()]


def _json(name: str, raw: str) -> Any:
    source = f" in {raw[1:]}" if raw.startswith("@") else ""
    try:
        return strictjson.loads(Path(raw[1:]).read_bytes() if source else raw)
    except JsonError as error:
        raise SettingError(f"{name} cannot be read{source}: {error}") from None
    except OSError as error:
        raise SettingError(f"{name} cannot be read{source}: {error.strerror}") from None


# Where they are stored


def _place(instance: Instance, project: str | None, task_name: str | None, labels: Said) -> Place:
    if project is None:
        if task_name is not None:
            raise InputError("--task needs --project: a task has settings in each project")
        return Place(
            "instance", tuple(instance.table.values()), instance.settings,
            lambda changes: _change_instance(instance, changes),
            {"lease_seconds": f"{lease(instance.settings | {'lease_seconds': None}):g}"},
        )  # fmt: skip
    found = instance.store.projects.named(project)
    if task_name is None:
        of = f"project {project}"
        return Place(of, tables.PROJECT, found["settings"], lambda changes: _change_project(instance, found, changes))
    own = instance.project_task(found, task_name)
    stored = instance.task_settings_raw(found, task_name)
    return Place(
        f"task {task_name} in {project}", tables.TASK, stored,
        lambda changes: _change_task(instance, found, task_name, changes, labels), {"k": own.k},
    )  # fmt: skip


def _changed(place: Place, changes: dict[str, Any]) -> str:
    """Store changes and return what to say. Raises with a sentence that names the setting."""
    try:
        return place.change(changes)
    except (InputError, NotFound) as error:
        if any(name in str(error) for name in changes):
            raise
        raise SettingError("%(name)s: %(why)s", name=", ".join(changes), why=error) from error


def _change_instance(instance: Instance, changes: dict[str, Any]) -> str:
    instance.change_settings(changes)
    return "Saved."


def _change_project(instance: Instance, project: Mapping[str, Any], changes: dict[str, Any]) -> str:
    if "tasks" in changes and not changes["tasks"]:
        raise SettingError("tasks needs at least one task")
    instance.change_project(int(project["id"]), changes)
    if "order" in changes:
        _say_what_lacks(instance, int(project["id"]))
    there = instance.store.records.columns(int(project["id"]))
    strange = [name for setting in tables.COLUMNS for name in changes.get(setting) or () if name not in there]
    if not strange:
        return "Saved."
    known = ", ".join(there) or "none"
    return f"Saved. No column {strange[0]!r} was found in the records that were looked at; there are: {known}."


def _say_what_lacks(instance: Instance, project_id: int) -> None:
    """Say of each task what its order has too little of to go by."""
    project = instance.store.projects.get(project_id)
    for name, task in instance.tasks_of(project).items():
        lacks = instance.queue(project, task).lacks()
        if lacks:
            click.echo(f"Note: {name}: {lacks}.", err=True)


def _change_task(
    instance: Instance, project: Mapping[str, Any], name: str, changes: dict[str, Any], labels: Said
) -> str:
    id_, before = int(project["id"]), instance.task_settings_raw(project, name)
    task = instance.task_changes(id_, name)
    restored, answers = labels.of(task)
    given = before | restored | changes
    if tables.changed_settings("task", given) == before and not labels:
        return "Nothing was changed."
    preview = task.preview(given, answers, labels.restore)
    if preview.matters:
        click.echo("\n".join(lines(preview)))
    if labels.dry_run:
        return "Nothing was stored."
    version = instance.change_task(id_, name, given, seen=before, answers=answers, back_to=labels.restore)
    return f"Saved as version {version} of {name}."
