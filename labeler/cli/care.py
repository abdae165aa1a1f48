"""Looking after an instance: what is in it, a backup of it, and whether it is sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labeler.cli.base import cli, instance_folder, instance_option, with_readable_instance
from labeler.errors import InputError
from labeler.text import one_line

if TYPE_CHECKING:
    from labeler.instance import Instance


@cli.command()
@with_readable_instance
def projects(instance: Instance) -> None:
    """List the projects, with progress by task."""
    for project in instance.store.projects.all():
        counts = instance.store.records.counts(project["id"])
        archived = "" if project["archived_at"] is None else " (archived)"
        click.echo(f"{one_line(project['name'])}{archived}: {counts['records']} records")
        for name in instance.tasks_of(project):
            work = instance.store.work.counts(project["id"], name)
            click.echo(f"  {name}: {work['approved']} approved, {work['rejected']} rejected, {work['pending']} pending")


@cli.command()
@with_readable_instance
def tasks(instance: Instance) -> None:
    """List the tasks that plugins registered."""
    for name, task in instance.plugins.tasks.items():
        owner = instance.plugins.owners[("tasks", name)]
        click.echo(f"{name} {task.version} ({task.schema.kind}): {task.titled('en')} / {task.titled('ko')}  [{owner}]")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@with_readable_instance
def backup(instance: Instance, file: Path) -> None:
    """Write a consistent copy of the database to FILE while people keep working."""
    instance.store.backup(file)
    click.echo(f"Wrote {file} ({file.stat().st_size:,} bytes).")


@cli.command()
@click.option("--deep", is_flag=True, help="Check all data, and name the rows that contradict each other")
@click.option("--repair", is_flag=True, help="Check all data, and rebuild what is derived: counts, queue, indexes")
@instance_option
def doctor(folder: str | None, deep: bool, repair: bool) -> None:
    """Check the instance and say what is wrong and what to do."""
    from labeler.doctor import examine

    findings = examine(instance_folder(folder), deep, repair)
    for finding in findings:
        click.echo(f"{'ok  ' if finding.good else 'BAD '} {finding.text}")
    if not all(finding.good for finding in findings):
        hint = "" if repair else "; 'labeler doctor --repair' makes again what can be derived"
        raise InputError(f"Something needs attention; see the lines marked BAD{hint}")
