"""Serving: the page, the demonstration, the background worker."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import cli, instance_folder, instance_option, opened, with_instance

if TYPE_CHECKING:
    from labeler.instance import Instance

PORT = 8765


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535))
@click.option("--public-url", metavar="URL", help="The address that your team opens, such as https://label.example.com")
@click.option("--trusted-proxy", multiple=True, metavar="ADDRESS",
              help="A proxy that passes on client addresses [with --public-url: one on this machine]")  # fmt: skip
@click.option("--threads", default=8, show_default=True, type=click.IntRange(1, 256))
@click.option("--no-worker", is_flag=True, help="Do no background work in this process (see: labeler worker)")
@click.option("--read-only", is_flag=True, help="Change nothing: look and export only")
@click.option("--reload-plugins", is_flag=True, help="For development: start again when a plugin changes")
@instance_option
def serve(folder: str | None, read_only: bool, **options: Any) -> None:
    """Serve the page and the background worker."""
    from labeler.serving import Serving, run_server

    with opened(folder, make=not read_only, read_only=read_only) as instance:
        changed = run_server(instance, Serving(**options))
    if changed:
        # A process of its own: modules that were imported cannot be taken back.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535))
@click.option("--sample", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Only write two CSV files of sample reviews there, to try an import")  # fmt: skip
@instance_option
def demo(folder: str | None, host: str, port: int, sample: Path | None) -> None:
    """Serve a demonstration project: reviews of a grocery shop, some of them approved; no key needed.

    It is in the folder "demo" of the usual instance folder, unless --instance names another.
    """
    from labeler import demo as demonstration
    from labeler.serving import Serving, first_account, refuse_strangers, run_server

    if sample is not None:
        _say_what_next(demonstration.write_sample(sample))
        return
    with opened(folder or str(instance_folder() / "demo"), make=True) as instance:
        # The account that it makes has no password, and is no reason to let strangers knock.
        people = instance.store.people
        refuse_strangers(host, people.count() > 0 and people.without_password() is None)
        person = first_account(instance.store, "demo")
        project = demonstration.create(instance, person)
        path = f"/projects/{project['id']}"
        run_server(instance, Serving(host, port, person=person, path=path, next_free=True))


def _say_what_next(written: list[Path]) -> None:
    for path in written:
        click.echo(f"Wrote {path}")
    korean, english = (f"labeler import {shlex.quote(str(path))} --project" for path in written)
    click.echo(f"Next: {korean} shop --label sentiment=감성")
    click.echo(f"In English: {english} shop-en --new --language en --label sentiment=sentiment")


@cli.command()
@click.option("--once", is_flag=True, help="Do the waiting work, then stop")
@with_instance
def worker(instance: Instance, once: bool) -> None:
    """Do the background work of an instance in a process of its own."""
    from labeler.serving import end_signal
    from labeler.worker import Worker

    background = Worker(instance)
    if once:
        background.run_until_idle()
        return
    ended = end_signal()
    background.start()
    click.echo("Working in the background; Ctrl-C ends it cleanly.")
    ended.wait()
    background.stop()
