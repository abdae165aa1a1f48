"""Plugins: which are loaded, a new one, and whether one keeps what it has to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labeler import scaffold
from labeler.cli.base import cli, with_readable_instance
from labeler.errors import InputError

if TYPE_CHECKING:
    from labeler.instance import Instance

KINDS = ("task", "label", "backend", "embedder", "retriever", "importer", "exporter", "hooks")


@cli.command()
@with_readable_instance
def plugins(instance: Instance) -> None:
    """List the plugins, and those that were disabled, with the reason."""
    for name in instance.plugins.loaded:
        click.echo(name)
    for disabled in instance.plugins.disabled:
        click.echo(f"{disabled.name}: disabled: {disabled.said}", err=True)


@cli.group()
def plugin() -> None:
    """Begin a plugin of your own, or check one."""


@plugin.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), default="task", show_default=True, help="What the plugin adds")
def new(name: str, kind: str) -> None:
    """Write the folder NAME with a plugin that works, its texts in Korean and English, and a test that passes."""
    for path in scaffold.write(name, kind, Path.cwd()):
        click.echo(f"Wrote {path}")
    click.echo(f"Next: labeler plugin check {name}")


@plugin.command()
@click.argument("path", type=click.Path(path_type=Path))
def check(path: Path) -> None:
    """Try whether the plugin at PATH keeps what it has to: a .py file, or a folder with a pyproject.toml."""
    from labeler.conformance import checks_of

    broken = 0
    for one in checks_of(path):
        try:
            note = one()
        except Exception as error:
            broken += 1
            click.echo(
                f"BAD  {one}: {error if isinstance(error, AssertionError) else f'{type(error).__name__}: {error}'}"
            )
        else:
            click.echo(f"ok   {one}" + (f" ({note})" if note else ""))
    if broken:
        raise InputError(f"{broken} of the checks failed; see the lines marked BAD")
