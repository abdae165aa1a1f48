"""The commands of the how-to pages, run in order on three reviews, say what the pages say."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from test_readme import Terminal
from test_tutorial import page, parts, transcript

REVIEWS = "text\n사과가 달아요\n배송이 늦었어요\n그저 그래요\n"


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A terminal beside an instance with the project ``shop``."""
    opened = Terminal(tmp_path)
    (opened.folder / "reviews.csv").write_text(REVIEWS, encoding="utf-8")
    opened.run("labeler import reviews.csv --project shop", interrupted=False)
    return opened


def said(terminal: Terminal, command: str) -> str:
    return re.sub(r"[\d,]+ bytes", "SIZE bytes", terminal.run(command, interrupted=False))


@pytest.mark.parametrize("name", ["labels.md", "backup.md"])
def test_the_commands_of_a_how_to_say_what_it_says(terminal: Terminal, name: str) -> None:
    """A JSON block is the file that the page names before it; sizes differ from day to day."""
    for file, content in re.findall(r"In `(\S+\.json)`:\n\n```json\n(.*?)```", page(name), re.DOTALL):
        (terminal.folder / file).write_text(content, encoding="utf-8")
    wanted = parts(page(name))
    assert wanted
    assert transcript([(command, said(terminal, command)) for command, _ in wanted]) == transcript(wanted)


def test_a_task_with_guidelines_in_its_file_joins_a_project(terminal: Terminal) -> None:
    """The plugin of the page, with the guidelines that the page writes into it, is loaded and can be chosen."""
    blocks = re.findall(r"```python\n(.*?)```", page("plugins.md"), re.DOTALL)
    plugin = next(block for block in blocks if block.startswith('"""Sentiment'))
    guidelines = next(block for block in blocks if block.startswith("guidelines ="))
    last = "\n".join(plugin.rstrip().split("\n")[-2:])
    plugins = terminal.folder / "instance" / "plugins"
    plugins.mkdir(mode=0o700)
    file = plugins / "delivery.py"
    file.write_text(plugin.replace(last, textwrap.indent(guidelines, "    ")), encoding="utf-8")
    assert "delivery" in said(terminal, "labeler plugins")
    command, shown = next(part for part in parts(page("plugins.md")) if part[0].startswith("labeler settings"))
    assert said(terminal, command) == shown
    assert "delivery_complaint: 0 approved, 0 rejected, 3 pending" in said(terminal, "labeler projects")


def test_a_plugin_is_begun_and_checked_as_the_page_says(terminal: Terminal) -> None:
    """What `labeler plugin new` and `check` print is on the page."""
    for command, shown in parts(page("plugins.md"))[:2]:
        assert command.startswith("labeler plugin ")
        assert said(terminal, command) == shown
