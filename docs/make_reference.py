"""Write docs/reference.md from the code: every command with its options, every setting with its default, extras.

It also writes the Korean lines of docs/troubleshooting.md from the catalogue. Tests hold both pages against what this
returns. Run it after a change: ``make reference``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from babel.messages.pofile import read_po

from labeler import settings
from labeler.cli import cli
from labeler.extras import EXTRAS
from labeler.settings import Setting

PAGE = Path(__file__).parent / "reference.md"
MESSAGES = Path(__file__).parent / "troubleshooting.md"
_CATALOGUE = Path(settings.__file__).parent / "translations" / "ko" / "LC_MESSAGES" / "messages.po"
_HOLE = "…"
_HEAD = """# Reference

Made from the code by `make reference`; do not edit it by hand.

Every command takes `--instance FOLDER` (or the variable `LABELER_INSTANCE`; without both, `./instance`) and `--help`.
Exit status: 0 for done, 1 for refused or failed with one sentence on standard error, 2 for a wrong option or argument.
`labeler demo`, `serve`, `import` and `user add` create an instance if there is none; all other commands say so.

## Commands
"""
_SETTINGS = """## Settings

`labeler settings` lists and changes them; the pages use the same names. The default applies if you set nothing.
"""
_EXTRAS = """## Extras

Install an extra with `pip install -c constraints.txt ".[NAME]"` in the folder of the sources. `labeler doctor` names
the missing ones. Labeler itself takes {base} MB of disk; the sizes below come on top, and are those of Linux on x86_64.

| extra | adds | download, disk | works on |
|---|---|---|---|
"""
# Measured by what pip fetches, and by the files of the packages once installed.
_BASE = 430
_SIZES = {
    "e5": ("91 MB, 100 MB", "Linux (x86_64, arm64), macOS (arm64)"),
    "parquet": ("55 MB, 180 MB", "Linux, macOS, Windows"),
    "kiwi": ("100 MB, 150 MB", "Linux, macOS, Windows"),
    "oidc": ("6 MB, 22 MB", "Linux, macOS, Windows"),
    "sklearn": ("10 MB, 60 MB", "Linux, macOS, Windows"),
    "local": (
        "1.2 GB on disk with PyTorch for the CPU, several GB more with CUDA; and the weights",
        "where PyTorch is",
    ),
    "train": ("what `local` has, and 280 MB", "where PyTorch is"),
}
_EVERYWHERE = ("--instance", "--help")


def page() -> str:
    """Return the whole page."""
    tables = (
        ("Of the instance", "labeler settings NAME=VALUE", settings.INSTANCE),
        ("Of a project", "labeler settings --project PROJECT NAME=VALUE", settings.PROJECT),
        ("Of a task in a project", "labeler settings --project PROJECT --task TASK NAME=VALUE", settings.TASK),
    )
    parts = [_HEAD, *_commands("labeler", cli), _SETTINGS]
    parts += [f"### {title}\n\n`{command}`\n\n{_settings(table)}" for title, command, table in tables]
    parts.append(_extras())
    return "\n".join(parts).rstrip() + "\n"


def with_korean(text: str) -> str:
    """Return the page of messages with what a Korean page says under each that it knows."""
    with _CATALOGUE.open("rb") as file:
        known = {_holed(str(one.id)): _holed(str(one.string)) for one in read_po(file)}

    def under(found: re.Match[str]) -> str:
        korean = known.get(found[1].removesuffix("."), known.get(found[1]))
        return f"### `{found[1]}`\n" + (f"\n> {korean}\n" if korean else "")

    return re.sub(r"^### `(.+)`\n(?:\n> .+\n)?", under, text, flags=re.MULTILINE)


def _holed(text: str) -> str:
    return re.sub(r"%\(\w+\)[rs]", _HOLE, text)


def _extras() -> str:
    rows = (f"| `{one.name}` | {one.gives} | {' | '.join(_SIZES[one.name])} |\n" for one in EXTRAS.values())
    return _EXTRAS.format(base=_BASE) + "".join(rows)


def _commands(above: str, group: click.Group) -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(f"{above} {name}", command)
        else:
            yield _command(f"{above} {name}", command)


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    arguments = [one.make_metavar(context) for one in command.params if isinstance(one, click.Argument)]
    options = [one for one in command.params if isinstance(one, click.Option) and one.opts[0] not in _EVERYWHERE]
    said = " ".join((command.help or "").split())
    rows = "".join(_option(context, one) for one in options)
    table = f"\n| option | meaning |\n|---|---|\n{rows}" if rows else ""
    return f"### `{' '.join([name, *arguments])}`\n\n{said}\n{table}"


def _option(context: click.Context, option: click.Option) -> str:
    names = "`, `".join([*option.opts, *option.secondary_opts])
    number = isinstance(option.type, (click.IntRange, click.FloatRange)) and not option.metavar
    takes = "" if option.is_flag else " N" if number else f" {option.make_metavar(context)}"
    default = f"[{option.default}]" if option.show_default and option.default is not None else ""
    said = [option.help or "", default, "(needed)" if option.required else ""]
    return f"| `{names}{_cell(takes)}` | {_cell(' '.join(part for part in said if part))} |\n"


def _settings(table: Sequence[Setting]) -> str:
    rows = "".join(f"| `{one.name}` | {_cell(one.meaning)} | {_allowed(one)} | {_cell(one.unset)} |\n" for one in table)
    return f"| setting | meaning | kind | default |\n|---|---|---|---|\n{rows}"


def _allowed(setting: Setting) -> str:
    if setting.choices:
        return ", ".join(setting.choices)
    if setting.low is not None:
        return f"{setting.kind}, {setting.low:,} to {setting.high:,.10g}"
    return setting.kind


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    MESSAGES.write_text(with_korean(MESSAGES.read_text(encoding="utf-8")), encoding="utf-8")
