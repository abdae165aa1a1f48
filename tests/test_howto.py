"""The commands of the how-to pages, run in order on three reviews, say what the pages say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from test_tutorial import page, shell, steps, transcript

REVIEWS = "text\n사과가 달아요\n배송이 늦었어요\n그저 그래요\n"


@pytest.mark.parametrize("name", ["labels.md", "backup.md"])
def test_the_commands_of_a_how_to_say_what_it_says(tmp_path: Path, name: str) -> None:
    """A JSON block is the file that the page names before it; sizes differ from day to day."""
    (tmp_path / "reviews.csv").write_text(REVIEWS, encoding="utf-8")
    environment, told = shell(tmp_path), []

    def run(command: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=tmp_path, env=environment, encoding="utf-8", timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stdout
        return re.sub(r"[\d,]+ bytes", "SIZE bytes", done.stdout)

    run("labeler import reviews.csv --project shop")
    for file, content in re.findall(r"In `(\S+\.json)`:\n\n```json\n(.*?)```", page(name), re.DOTALL):
        (tmp_path / file).write_text(content, encoding="utf-8")
    wanted = steps(page(name))
    told = [(command, run(command)) for command, _ in wanted]
    assert transcript(told) == transcript(wanted)
    assert told
