"""The options of a run, made from the table of a task's settings: a new setting is an option by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from labeler.cli.base import Command, clean
from labeler.settings import TASK, Setting

NOT_OF_A_RUN = frozenset({"guidelines", "labels", "unit", "pinned"})
"""What a task asks, and of what: the same for all of its runs."""
SETTINGS = {setting.name: setting for setting in TASK if setting.name not in NOT_OF_A_RUN}
_OPTIONS = {"model_id": "--model"}
METAVARS = {
    "backend": "NAME", "retriever": "NAME", "executor": "NAME", "model_id": "ID", "joint": "TASK", "gguf_file": "FILE",
    "adapter": "FOLDER",
}  # fmt: skip
_KINDS = {"int": "N", "float": "X"}


def run_options(*names: str) -> Callable[[Command], Command]:
    """Give a command one option for each of these settings, or for all of a run."""
    chosen = [SETTINGS[name] for name in names or SETTINGS]

    def decorate(command: Command) -> Command:
        for setting in reversed(chosen):
            command = _option(setting)(command)
        return command

    return decorate


def option_of(setting: Setting) -> str:
    """Return how an option is called: as its setting, with dashes."""
    return _OPTIONS.get(setting.name) or "--" + setting.name.replace("_", "-")


def _option(setting: Setting) -> Any:
    name = option_of(setting)
    if setting.kind == "bool":
        return click.option(f"{name}/--no-{name[2:]}", setting.name, default=None, help=setting.meaning)
    # Read as texts: what is wrong with a value is said by its setting, in the same words everywhere.
    several = setting.kind == "list"
    metavar = "|".join(setting.choices) or METAVARS.get(setting.name) or _KINDS.get(setting.kind, "TEXT")
    how = {"list": "; can be given several times", "map": " [for the project's language]"}.get(setting.kind, "")
    return click.option(name, setting.name, multiple=several, metavar=metavar, help=setting.meaning + how)


def read_options(given: Mapping[str, Any], language: str) -> dict[str, Any]:
    """Return the settings that were given, each checked by its table; an empty text says nothing.

    A list of nothing but an empty text (``--joint ""``) is an empty list. Raises :class:`SettingError`.
    """
    found: dict[str, Any] = {}
    for name, raw in given.items():
        setting = SETTINGS[name]
        if raw in (None, "", ()):
            continue
        if setting.kind == "list":
            raw = [unescaped(name, text) for text in raw if text]
        elif setting.kind == "map":
            raw = {language: raw}
        found[name] = setting.read(clean(name, raw))
    return found


def unescaped(name: str, text: str) -> str:
    r"""Return a text of a list as it is meant: what ends an answer may be a line break, typed as ``\n``."""
    return text.replace("\\n", "\n") if name == "stop" else text
