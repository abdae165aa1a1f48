"""Taking back: remove records, imports, projects and a person's data; rename and archive projects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from labeler.cli.base import cli, with_instance
from labeler.errors import InputError, NotFound

if TYPE_CHECKING:
    from labeler.instance import Instance
    from labeler.removal import Preview, Target

Command = TypeVar("Command", bound=Callable[..., Any])


@cli.group()
def remove() -> None:
    """Remove records, imports, projects or a person's data, after a look at what goes with them."""


def ways(command: Command) -> Command:
    dry = click.option("--dry-run", is_flag=True, help="Only show what would be removed")
    return dry(click.option("--yes", is_flag=True, help="Do not ask")(command))


@remove.command(name="record")
@click.argument("key")
@click.option("--project", required=True, metavar="NAME")
@ways
@with_instance
def remove_record(instance: Instance, key: str, project: str, dry_run: bool, yes: bool) -> None:
    """Remove the record with the id KEY."""
    from labeler.removal import RECORD, Target

    found = instance.store.projects.named(project)
    record = instance.store.records.by_key(found["id"], key)
    if record is None:
        raise NotFound(f"The project {project!r} has no record {key!r}")
    _remove(instance, Target(RECORD, found["id"], record.id), dry_run, yes)


@remove.command(name="import")
@click.argument("number", type=int)
@click.option("--project", required=True, metavar="NAME")
@ways
@with_instance
def remove_import(instance: Instance, number: int, project: str, dry_run: bool, yes: bool) -> None:
    """Take back the import NUMBER ('labeler imports' lists them): its records, and the labels it gave to others."""
    from labeler.removal import IMPORT, Target

    _remove(instance, Target(IMPORT, instance.store.projects.named(project)["id"], number), dry_run, yes)


@remove.command(name="project")
@click.argument("name")
@ways
@with_instance
def remove_project(instance: Instance, name: str, dry_run: bool, yes: bool) -> None:
    """Remove a project with everything in it."""
    from labeler.removal import PROJECT, Target

    _remove(instance, Target(PROJECT, instance.store.projects.named(name)["id"]), dry_run, yes)


@remove.command(name="person")
@click.argument("words")
@ways
@with_instance
def remove_person(instance: Instance, words: str, dry_run: bool, yes: bool) -> None:
    """Remove every record, in all projects, that holds WORDS: an e-mail address, a phone number, a customer's id."""
    from labeler.removal import person

    _remove(instance, person(words), dry_run, yes)


@cli.command()
@click.option("--project", required=True, metavar="NAME")
@with_instance
def imports(instance: Instance, project: str) -> None:
    """List the imports of a project with their numbers."""
    for row in instance.store.records.imports(instance.store.projects.named(project)["id"], 1000):
        click.echo(f"{row['id']}: {row['file']}, {row['state']}, {row['added']} added, {row['labels']} labels")


@cli.command()
@click.argument("name")
@click.argument("new")
@with_instance
def rename(instance: Instance, name: str, new: str) -> None:
    """Give the project NAME the name NEW."""
    from labeler import removal

    removal.rename(instance.store, instance.store.projects.named(name)["id"], new)
    click.echo(f"Renamed {name!r} to {new!r}.")


@cli.command()
@click.argument("name")
@click.option("--undo", is_flag=True, help="Bring it back")
@with_instance
def archive(instance: Instance, name: str, undo: bool) -> None:
    """Put a project aside: you can read and export it, but nothing in it changes."""
    from labeler import removal

    removal.archive(instance.store, instance.store.projects.named(name)["id"], not undo)
    click.echo(f"Brought {name!r} back." if undo else f"Archived {name!r}; 'labeler archive --undo' brings it back.")


def _remove(instance: Instance, target: Target, dry_run: bool, yes: bool) -> None:
    """Show what goes, ask, and remove it."""
    from labeler import removal

    found = removal.preview(instance.store, target)
    if target.kind == removal.PERSON and not found.records:
        _show_elsewhere(found, "No record holds these words")
        return
    for project_id, going in found.parts.items():
        click.echo(f"{instance.store.projects.get(project_id)['name']}:")
        for line in _lines(going):
            click.echo(f"  {line}")
    if found.given:
        click.echo(f"{found.given} labels that it gave to records of other imports are withdrawn.")
    _show_elsewhere(found, "")
    if dry_run:
        click.echo("Nothing was removed.")
        return
    if not yes and not click.confirm("Remove this? It cannot be undone", err=True):
        raise InputError("Nothing was removed")
    gone = removal.remove(instance, target, found.decisions)
    click.echo(f"Removed {gone.records} records and {gone.decisions} decisions.")
    click.echo("Not reached: backups, files exported earlier, and calls that were sent to a provider.")


def _show_elsewhere(found: Preview, first: str) -> None:
    if first:
        click.echo(f"{first}.")
    for where, n in found.elsewhere:
        click.echo(f"These words also appear in: {where} ({n})")


def _lines(going: Any) -> list[str]:
    counts = {
        "records": going.records,
        "decisions of people": going.decisions,
        "labels that came with the data": going.labels,
        "suggestions": going.suggestions,
        "answers of models": going.calls,
    }
    lines = [", ".join(f"{n} {what}" for what, n in counts.items() if n or what == "records")]
    if going.written:
        lines.append(f"{going.written} of them were written by a model after the others")
    if going.at_most:
        lines.append("At most: products, copies and exports of an import this large are not looked through one by one")
    if going.copies:
        lines.append(f"{going.copies} exact copies take their place, without a label")
    if going.products:
        lines.append(f"{going.products} products go or are made again; what was decided on their old text goes")
    lines += [f"WARNING: decided: {key}, {task}: {state}" for key, task, state in going.decided]
    if going.decisions > len(going.decided):
        lines.append(f"... and {going.decisions - len(going.decided)} more decisions")
    lines += [f"{name} has one of them open now" for name in going.held_by]
    lines += [f"export {id_} of {task} holds some; its files stay: {folder}" for id_, task, folder in going.exports]
    return lines
