"""Exports as versions: list them, compare two, make one again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labeler.cli.base import cli, with_readable_instance
from labeler.text import one_line

if TYPE_CHECKING:
    from labeler.instance import Instance

_SHOWN = 20


@cli.group()
def exports() -> None:
    """List the exports of a project, compare two, or make one again."""


_project = click.option("--project", required=True, metavar="NAME")


@exports.command(name="list")
@_project
@with_readable_instance
def list_(instance: Instance, project: str) -> None:
    """List the exports of a project, newest first."""
    found = instance.store.projects.named(project)
    for made in instance.store.exports.all(found["id"], 1000):
        manifest = made["manifest"]
        counts = ", ".join(f"{n} {split}" for split, n in manifest["counts"].items() if split != "all")
        name = f" {made['name']}" if made["name"] else ""
        click.echo(
            f"{made['id']}{name}: {made['task']}, {made['format']}, {manifest['generated_at']}: {counts} "
            f"[{one_line(made['folder'])}]"
        )


@exports.command()
@click.argument("before")
@click.argument("after")
@_project
@with_readable_instance
def compare(instance: Instance, before: str, after: str, project: str) -> None:
    """Say what changed from the export BEFORE to AFTER, by name or number: added, dropped, changed, moved.

    The exit status is 1 if they differ.
    """
    from labeler.store.exports import ADDED, DROPPED, KINDS

    found = instance.store.projects.named(project)
    old, new = (instance.store.exports.named(found["id"], name)["id"] for name in (before, after))
    differ = 0
    for kind in KINDS:
        count, rows = instance.store.exports.differences(old, new, kind, _SHOWN)
        differ += count
        click.echo(f"{kind}: {count}")
        for row in rows:
            was, now = (f"{row[f'{side}_value']} ({row[f'{side}_split']})" for side in ("old", "new"))
            said = now if kind == ADDED else was if kind == DROPPED else f"{was} -> {now}"
            click.echo(f"  {one_line(row['key'])}: {one_line(said)}")
        if count > len(rows):
            click.echo(f"  ... and {count - len(rows)} more")
    click.get_current_context().exit(1 if differ else 0)


@exports.command()
@click.argument("name")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER")
@_project
@with_readable_instance
def again(instance: Instance, name: str, out: Path, project: str) -> None:
    """Make the export NAME (or its number) again, byte for byte, whatever was decided since.

    The exit status is 1 if a file comes out otherwise: its records were removed, or a plugin has changed.
    """
    from labeler.export import export_again

    found = instance.store.projects.named(project)
    made = instance.store.exports.named(found["id"], name)
    task = instance.task_at(found, made["task"], made["manifest"]["task_version"])
    calls = instance.calls(found, task, made["manifest"].get("asked"))
    formats = instance.plugins.exporters
    result, differ = export_again(instance.store, found, task, made, out, formats=formats, calls=calls)
    for path in result.files:
        click.echo(str(path))
    if differ:
        click.echo(f"Not as they were: {', '.join(differ)}", err=True)
    else:
        click.echo("Every file is the same, byte for byte.")
    click.get_current_context().exit(1 if differ else 0)
