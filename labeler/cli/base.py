"""What all commands share: the group they belong to, the instance they work on, and how errors are said."""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from labeler.errors import InputError, LabelerError
from labeler.text import clean_text

Command = TypeVar("Command", bound=Callable[..., Any])


class Cli(click.Group):
    """Turns every error of ours into one line and its exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LabelerError as error:
            advice = f". {error.advice}" if error.advice else ""
            click.echo(f"Error: {str(error).removesuffix('.') if advice else error}{advice}", err=True)
            ctx.exit(error.exit_status)
        except OSError as error:
            if error.errno == errno.EPIPE:
                # Whoever read our output has gone; click knows how to end then.
                raise
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except UnicodeEncodeError:
            # Bytes of the command line that are no UTF-8 come as lone surrogates, which no store holds. What was to be
            # encoded stays out of the message: it may hold a key.
            click.echo("Error: A word of the command is not UTF-8; type it again", err=True)
            ctx.exit(1)


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="labeler")
def cli() -> None:
    """Label customer reviews with retrieval: every approved label makes the next suggestion better."""


def instance_option(command: Command) -> Command:
    option = click.option(
        "--instance", "folder", metavar="FOLDER", envvar="LABELER_INSTANCE", help="The instance folder [./instance]"
    )
    return option(command)


def with_instance(command: Command) -> Command:
    """Open the instance for a command and close it afterwards, whatever happens. Typed texts come in NFC."""

    @wraps(command)
    def run(folder: str | None, **options: Any) -> Any:
        from labeler.instance import Instance, instance_folder

        with Instance(instance_folder(folder)) as instance:
            return command(instance=instance, **{name: _composed(value) for name, value in options.items()})

    return instance_option(run)  # type: ignore[return-value]


def _composed(value: Any) -> Any:
    # A name that a Mac's file manager hands to the terminal is decomposed, and would be another one.
    if isinstance(value, tuple):
        return tuple(map(_composed, value))
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def task_options(command: Command) -> Command:
    """Give a command the options --project and --task, both needed."""
    task = click.option("--task", "task_name", required=True, metavar="TASK")
    return click.option("--project", required=True, metavar="NAME")(task(command))


def clean(name: str, value: Any) -> Any:
    """Return a typed or parsed value with its texts as any form has them: NFC, without outer white space.

    What ends an answer (``stop``) keeps its white space. Raises :class:`TextError` for what no store holds.
    """
    if isinstance(value, str):
        text = clean_text(value, name)
        return value if name == "stop" else text
    if isinstance(value, (list, tuple)):
        return [clean(name, item) for item in value]
    return {key: clean(name, item) for key, item in value.items()} if isinstance(value, dict) else value


def pairs(values: tuple[str, ...], what: str) -> dict[str, str]:
    """Read options of the form NAME=VALUE."""
    found = {}
    for value in values:
        name, mark, rest = value.partition("=")
        if not mark or not name or not rest:
            raise InputError(f"{what} is given as NAME=VALUE, not {value!r}")
        found[name] = rest
    return found
