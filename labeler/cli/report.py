"""The report of a project: its numbers as one file to send on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labeler.cli.base import cli, with_readable_instance
from labeler.errors import InputError

if TYPE_CHECKING:
    from labeler.instance import Instance


@cli.command()
@click.argument("project")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The file to write")
@click.option("--language", type=click.Choice(["ko", "en"]), help="Of the report [that of the project]")
@with_readable_instance
def report(instance: Instance, project: str, output: Path, language: str | None) -> None:
    """Write the numbers of all tasks of PROJECT as one HTML file, which needs no server and names nobody."""
    from labeler.app import create_app
    from labeler.web.numbers import report_of

    found = instance.store.projects.named(project)
    if output.exists():
        raise InputError(f"{output} exists already; give another name, or remove it")
    # Whoever asks for a page says its language so.
    with create_app(instance).test_request_context(headers={"Accept-Language": language or found["language"]}):
        text = report_of(instance, found)
    output.write_text(text, encoding="utf-8")
    click.echo(f"Wrote {output} ({output.stat().st_size:,} bytes).")
