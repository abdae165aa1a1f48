"""The commands of the how-to pages, run in order on three reviews, say what the pages say."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from test_tutorial import page, shell, steps, transcript

REVIEWS = "text\n사과가 달아요\n배송이 늦었어요\n그저 그래요\n"


Run = Callable[[str], str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return what runs a command beside an instance with the project ``shop``, and returns what it says."""
    (tmp_path / "reviews.csv").write_text(REVIEWS, encoding="utf-8")
    environment = shell(tmp_path)

    def run(command: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=tmp_path, env=environment, encoding="utf-8", timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return re.sub(r"[\d,]+ bytes", "SIZE bytes", done.stdout)

    run("labeler import reviews.csv --project shop")
    return run


@pytest.mark.parametrize("name", ["labels.md", "backup.md"])
def test_the_commands_of_a_how_to_say_what_it_says(run: Run, tmp_path: Path, name: str) -> None:
    """A JSON block is the file that the page names before it; sizes differ from day to day."""
    for file, content in re.findall(r"In `(\S+\.json)`:\n\n```json\n(.*?)```", page(name), re.DOTALL):
        (tmp_path / file).write_text(content, encoding="utf-8")
    wanted = steps(page(name))
    assert wanted
    assert transcript([(command, run(command)) for command, _ in wanted]) == transcript(wanted)


def test_a_task_with_guidelines_in_its_file_joins_a_project(run: Run, tmp_path: Path) -> None:
    """The plugin of the page, with the guidelines that the page writes into it, is loaded and can be chosen."""
    plugin, guidelines = re.findall(r"```python\n(.*?)```", page("plugins.md"), re.DOTALL)[:2]
    last = plugin.rstrip().split("\n")[-1]
    (tmp_path / "instance" / "plugins").mkdir(mode=0o700)
    file = tmp_path / "instance" / "plugins" / "delivery.py"
    file.write_text(plugin.replace(last, textwrap.indent(guidelines, "    ")), encoding="utf-8")
    assert "delivery" in run("labeler plugins")
    ((command, said),) = steps(page("plugins.md"))
    assert run(command) == said
    assert "delivery_complaint: 0 approved, 0 rejected, 3 pending" in run("labeler projects")
