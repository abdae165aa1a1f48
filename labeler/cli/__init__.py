"""The command ``labeler``. Slow things load inside the commands, so that ``labeler --help`` answers at once.

::

    base.py         the group of all commands, the instance they work on, errors as one line
    serve.py        serve, demo, worker
    data.py         import
    records.py      records
    exports.py      export, frozen, exports list, compare, again
    runs.py         prelabel; run_options.py makes its options from the table of a task's settings
    calibration.py  calibrate
    replay.py       replay, ready
    evaluate.py     evaluate
    improve.py      improve
    augment.py      augment
    train.py        train
    settings.py     settings of the instance, a project, a task
    models.py       backends, models
    words.py        what is said of models and calibrations
    people.py       user
    removal.py      remove, imports, rename, archive
    plugin.py       plugins, plugin new, plugin check
    report.py       report
    care.py         projects, tasks, backup, doctor
"""

from __future__ import annotations

import sys
from itertools import chain, pairwise

import click

from labeler.cli import (
    augment,
    calibration,
    care,
    data,
    evaluate,
    exports,
    improve,
    models,
    people,
    plugin,
    records,
    removal,
    replay,
    report,
    runs,
    serve,
    settings,
    train,
)
from labeler.cli.base import cli, instance_folder

# Each room adds its commands to the group when it is imported.
__all__ = [
    "augment", "calibration", "care", "cli", "data", "evaluate", "exports", "improve", "main", "models", "people",
    "plugin", "records", "removal", "replay", "report", "runs", "serve", "settings", "train",
]  # fmt: skip


def main() -> None:
    """Entry point. Commands of plugins are added only when they may be needed, to keep all others fast."""
    known = set(cli.commands)
    words = sys.argv[1:]
    named = next((word for word in words if not word.startswith("-")), None)
    if named not in known and "--version" not in words:
        _add_plugin_commands(words)
    cli()


def _add_plugin_commands(words: list[str]) -> None:
    from importlib import metadata

    # click has not read the options yet, and the plugins of the instance are wanted.
    after = (following for word, following in pairwise(words) if word == "--instance")
    joined = (word.partition("=")[2] for word in words if word.startswith("--instance="))
    own = instance_folder(next(chain(after, joined), None)) / "plugins"
    if not metadata.entry_points(group="labeler") and not any(own.glob("*.py")):
        return
    from labeler import built_in
    from labeler.plugins import load_plugins

    plugins = load_plugins(built_in, own)
    plugins.commands(cli)
    for disabled in plugins.disabled:
        click.echo(f"Plugin {disabled.name} is disabled: {disabled.said}", err=True)
