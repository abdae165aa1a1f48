"""The plugin contract: hooks that register things once, while an app is being made. Objects do the work.

A plugin is a Python file (or an installed package with an entry point of the group ``labeler``) whose
functions are marked with :data:`hookimpl`. Every ``register_*`` hook returns a list; two things of one name
disable the plugin that came second, by name. See docs/plugins.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    import click
    from flask import Blueprint

    from labeler.backends.base import BackendFactory
    from labeler.records import Record
    from labeler.settings import Setting
    from labeler.task import Task

API_VERSION = 2
"""A plugin may set ``LABELER_API = 2``; one made for another version is disabled with a clear line."""

hookspec = pluggy.HookspecMarker("labeler")
hookimpl = pluggy.HookimplMarker("labeler")


@hookspec
def register_tasks() -> list[Task]:
    """Return the tasks this plugin adds.

    Example: ``return [Task("spam", Choice(Label("spam"), Label("ham")))]``.
    """
    raise NotImplementedError


@hookspec
def register_widgets() -> list[tuple[str, Path]]:
    """Return (name, folder) pairs: the forms of your own label schemas, whose ``widget`` is the name.

    The folder has ``NAME.html`` and ``NAME.js``; it may have ``NAME.value.html`` and ``NAME.keys.html``.
    """
    raise NotImplementedError


@hookspec
def register_translations() -> list[tuple[str, Path]]:
    """Return (name, folder) pairs: the catalogues that your own sentences are translated by.

    A sentence is that of an error or a :class:`labeler.Sentence`. The folder has ``ko/LC_MESSAGES/NAME.mo``.
    """
    raise NotImplementedError


@hookspec
def register_backends() -> list[BackendFactory]:
    """Return factories of backends: objects with a ``name`` and ``create(settings) -> Backend``."""
    raise NotImplementedError


@hookspec
def register_embedders() -> list[tuple[str, Any]]:
    """Return (name, factory) pairs; ``factory(settings)`` returns an Embedder and may raise MissingExtra."""
    raise NotImplementedError


@hookspec
def register_retrievers() -> list[tuple[str, Any]]:
    """Return (name, factory) pairs; ``factory(settings)`` returns a Retriever."""
    raise NotImplementedError


@hookspec
def register_importers() -> list[tuple[str, Any]]:
    """Return (file suffix, reader) pairs for other file formats, such as ``(".sav", open_sav)``.

    ``reader(path, options)`` returns a :class:`labeler.ingest.rows.RowSource`.
    """
    raise NotImplementedError


@hookspec
def register_exporters() -> list[Any]:
    """Return export formats: objects derived from :class:`labeler.export.TrainingFormat`."""
    raise NotImplementedError


@hookspec
def register_executors() -> list[tuple[str, Any]]:
    """Return (name, executor) pairs; an executor moves the calls of a run, as the built-in "local" does."""
    raise NotImplementedError


@hookspec
def register_settings() -> list[Setting]:
    """Return settings of the instance that this plugin needs, such as an address or a key.

    They are on the settings page and in ``labeler settings``. A backend gets them in ``create(settings)``, and a hook
    that takes ``settings`` has those of the instance in it.
    """
    raise NotImplementedError


@hookspec
def prepare_record(record: Record, project: str, settings: Mapping[str, Any]) -> Record | str | None:
    """Clean or drop a record at the door, before it is stored.

    Return a changed Record, a text that says why the record is refused, or None to leave it as it is. A hook that
    fails refuses the record, so that what it was to clean does not slip in; one that hangs ends the import.
    """
    raise NotImplementedError


@hookspec
def label_approved(project: str, task: str, record: Record, value: Any, settings: Mapping[str, Any]) -> None:
    """Called after a person approved an annotation: in the background, in order.

    What raises is tried again, later each time, before what was approved after it; after eight tries it is passed over.
    """
    raise NotImplementedError


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to the command line."""
    raise NotImplementedError


@hookspec
def register_blueprints() -> list[Blueprint]:
    """Return Flask blueprints; their routes are denied to everybody who is not signed in, like all others."""
    raise NotImplementedError
