"""The reference is made from the code: no command, option or setting is missing, and none is there that is gone."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import click
import pytest

from labeler import settings
from labeler.cli import cli
from labeler.extras import EXTRAS

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says(reference: ModuleType) -> None:
    """After a change of an option or a setting: ``make reference``."""
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == reference.page()


def test_messages_are_quoted_in_korean_as_the_pages_say_them(reference: ModuleType) -> None:
    """After a change of a translation: ``make reference``."""
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    assert page == reference.with_korean(page)
    assert len(re.findall("^> .*[가-힣]", page, re.MULTILINE)) > 25


def options(group: click.Group) -> set[str]:
    found = set()
    for command in group.commands.values():
        found |= options(command) if isinstance(command, click.Group) else {o for p in command.params for o in p.opts}
    return found


def test_no_command_option_setting_or_extra_is_missing(reference: ModuleType) -> None:
    """Each is named on the page, and every setting says what holds where nothing is set."""
    page = reference.page()
    tables = (*settings.INSTANCE, *settings.PROJECT, *settings.TASK)
    named = [*cli.commands, *(name for name in options(cli) if name.startswith("--")), *(one.name for one in tables)]
    named += [f"| `{name}` | {extra.gives} |" for name, extra in EXTRAS.items()]
    assert [name for name in named if name not in page] == []
    assert not any(one.unset in ("null", "") for one in tables)
