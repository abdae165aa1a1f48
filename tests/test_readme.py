"""What the README says is what happens: its transcripts run here as they stand, letter by letter with their output."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from labeler import demo
from labeler.cli import cli
from labeler.instance import Instance
from labeler.serving import first_account
from labeler.worker import Worker

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
FOLDER = "/home/kim/labeler"
"""Where the person of the README stands."""
PROGRESS = re.compile(r"(Importing|Run \d+)\n")
"""What stands for a progress bar where nobody looks at a terminal."""


def block_with(command: str) -> str:
    return next(block for block in BLOCKS if f"$ {command}" in block)


def steps(block: str) -> list[tuple[str, str]]:
    """Return the commands of a transcript, each with the output below it."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


class Terminal:
    """Runs commands one after the other in one folder, with ``labeler`` on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "labeler"
        self.folder.mkdir()
        program = folder / "bin" / "labeler"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m labeler "$@"\n')
        program.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LABELER_", "OPENAI_"))}
        self.environment = kept | {"PATH": f"{program.parent}{os.pathsep}{kept['PATH']}"}

    def run(self, command: str, interrupted: bool) -> str:
        """Return what a command shows; one that is ``interrupted`` gets Ctrl-C when it has said that it is ready."""
        # Another server may have the port of the README.
        serves = command in ("labeler serve", "labeler demo")
        words = f"exec {command} --port 0" if serves else command
        with subprocess.Popen(
            words, shell=True, cwd=self.folder, env=self.environment, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            shown = ""
            if serves:
                while "is ready" not in shown:
                    line = process.stdout.readline()
                    assert line, shown
                    shown += line
                process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
        assert process.returncode == 0, shown + rest
        return self.as_written(shown + ("^C" if interrupted else "") + rest)

    def as_written(self, shown: str) -> str:
        shown = re.sub(r"token=[\w-]+", "token=...", shown.replace(str(self.folder), FOLDER))
        return PROGRESS.sub("", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8765", shown))


@pytest.mark.slow
def test_transcript_runs_letter_by_letter(tmp_path: Path) -> None:
    """Every command of the README's transcript, in order in an empty folder, shows what stands below it."""
    terminal = Terminal(tmp_path)
    written = steps(block_with("labeler demo --sample"))
    assert [command.split()[1] for command, _ in written] == ["demo", "import", "prelabel", "serve", "export"]
    shown = [(command, terminal.run(command, "^C" in output)) for command, output in written]
    assert shown == written


@pytest.mark.slow
def test_demonstration_says_what_the_readme_shows(tmp_path: Path) -> None:
    """`make demo` says that it installs, and then what `labeler demo` says."""
    ((_, output),) = steps(block_with("make demo"))
    installs, ready = output.splitlines(keepends=True)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(VENV)", ".venv")
    assert f'@echo "{installs.rstrip()}"' in makefile
    assert ready in Terminal(tmp_path).run("labeler demo", interrupted=False)


def test_every_command_of_the_readme_has_its_options() -> None:
    """Each `labeler` line of the README is one that the command line takes."""
    lines = [command for block in BLOCKS for command, _ in steps(block) if command.startswith("labeler ")]
    assert len(lines) > 10
    for line in lines:
        words, command = shlex.split(line, comments=True)[1:], cli
        while isinstance(command, click.Group):
            command, words = command.commands[words[0]], words[1:]
        assert command.make_context(command.name, words), line


@pytest.mark.slow
def test_quality_of_the_demonstration_is_what_the_readme_says(tmp_path: Path) -> None:
    """The share of sentiments that its first suggestions name as the gold labels do, and of the commonest label."""
    said = re.search(r"the sentiment for (\d+) %.*\n\(one label for all would be right for (\d+) %\)", README)
    assert said is not None
    with Instance(tmp_path) as instance:
        project = demo.create(instance, first_account(instance.store, "demo"))
        Worker(instance).run_until_idle()
        gold = [row["labels"]["sentiment"] for row in demo.reviews() if not row["approved"]]
        keys = [row["id"] for row in demo.reviews() if not row["approved"]]
        records = [instance.store.records.by_key(project["id"], key) for key in keys]
        numbers = [instance.store.work.get(record.id, "sentiment")["suggestion_id"] for record in records if record]
        suggested = [instance.store.suggestions.get(number) for number in numbers]
    right = [a.value == b for a, b in zip(suggested, gold, strict=True)]
    assert sum(right[:10]) >= 8
    assert all(right[n] or (suggested[n].score or 0) < 0.5 for n in range(10)), "what is wrong is marked as doubtful"
    # Versions of the libraries that fit differ in a few.
    assert 100 * sum(right) / len(right) == pytest.approx(int(said[1]), abs=3)
    assert 100 * gold.count("positive") / len(gold) == pytest.approx(int(said[2]), abs=1)


def test_a_task_of_ones_own_comes_in_as_the_readme_says(tmp_path: Path) -> None:
    """A file like the one shown, under another name and with its guidelines beside it, becomes a task of a project."""
    shown = re.search(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert shown is not None
    assert shown[1] == (ROOT / "plugins" / "sentiment.py").read_text(encoding="utf-8")
    prompts = tmp_path / "plugins" / "prompts"
    prompts.mkdir(parents=True)
    (tmp_path / "plugins" / "mood.py").write_text(shown[1].replace('"sentiment', '"mood'), encoding="utf-8")
    for language in ("ko", "en"):
        for name in ("mood.v2", "mood-short.v1"):
            (prompts / f"{name}.{language}.md").write_text("Name the mood.", encoding="utf-8")
    command = re.search(r"`labeler (settings --project shop tasks=sentiment,NAME)`", README)
    assert command is not None
    with Instance(tmp_path) as instance:
        assert not instance.plugins.disabled
        project_id = instance.create_project("shop", settings={"tasks": ["sentiment"]})
    words = [*command[1].replace("NAME", "mood").split(), "--instance", str(tmp_path)]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    with Instance(tmp_path) as instance:
        assert list(instance.tasks_of(instance.store.projects.get(project_id))) == ["sentiment", "mood"]
