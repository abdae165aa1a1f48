"""What all commands share: the group they belong to, the instance they work on, and how errors are said."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from labeler import __version__
from labeler.errors import InputError, LabelerError
from labeler.text import clean_text

if TYPE_CHECKING:
    from labeler.instance import Instance

DEFAULT_FOLDER = "instance"
Command = TypeVar("Command", bound=Callable[..., Any])


class Cli(click.Group):
    """Turns every error of ours into one line and its exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        # What is written holds reviews, and hashes of passwords: it is its owner's alone.
        before = os.umask(0o077)
        try:
            return super().invoke(ctx)
        except LabelerError as error:
            remedy = f". {error.remedy}" if error.remedy else ""
            click.echo(f"Error: {str(error).removesuffix('.') if remedy else error}{remedy}", err=True)
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
        finally:
            os.umask(before)


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Label customer reviews with retrieval: every approved label makes the next suggestion better."""


def instance_folder(given: str | None = None) -> Path:
    """Return the folder of ``--instance``, else of LABELER_INSTANCE, else ./instance."""
    return Path(given or os.environ.get("LABELER_INSTANCE") or DEFAULT_FOLDER).expanduser().absolute()


def instance_option(command: Command) -> Command:
    option = click.option(
        "--instance", "folder", metavar="FOLDER", envvar="LABELER_INSTANCE", help="The instance folder [./instance]"
    )
    return option(command)


def with_instance(command: Command) -> Command:
    """Open the instance for a command and close it afterwards, whatever happens. There must be one.

    Typed texts come in NFC.
    """
    return _opening(command, make=False)


def with_new_instance(command: Command) -> Command:
    """As :func:`with_instance`, for the commands that make an instance where there is none."""
    return _opening(command, make=True)


def _opening(command: Command, make: bool, looks: bool = False) -> Command:
    @wraps(command)
    def run(folder: str | None, **options: Any) -> Any:
        typed = {name: _composed(value) for name, value in options.items()}
        with opened(folder, make=make, looks=looks) as instance:
            return command(instance=instance, **typed)

    return instance_option(run)  # type: ignore[return-value]


def with_readable_instance(command: Command) -> Command:
    """As :func:`with_instance`, for a command that only looks: what cannot be written is opened read-only."""
    return _opening(command, make=False, looks=True)


def opened(folder: str | None, *, make: bool, read_only: bool = False, looks: bool = False) -> Instance:
    """Return the open instance of ``--instance``; say so if it was made.

    ``looks`` opens it read-only where it cannot be written.
    """
    from labeler.files import DATABASE
    from labeler.instance import Instance

    where = instance_folder(folder)
    new = not (where / DATABASE).exists()
    if looks:
        read_only = not all(os.access(path, os.W_OK) for path in (where, where / DATABASE) if path.exists())
    instance = Instance(where, read_only=read_only, make=make)
    if new:
        click.echo(f"Made a new instance at {where}.", err=True)
    return instance


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
