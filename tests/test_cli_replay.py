"""The command ``labeler replay``: what it measures, what it would take, and how a task is set to the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI
from test_cli import Shell
from test_replay import BAD, GOOD

from labeler.evaluation import replay

TASK = ("--project", "shop", "--task", "sentiment")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project whose labels came with the file, one after the other."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LABELER_INSTANCE"):
        monkeypatch.delenv(name, raising=False)
    made = Shell(tmp_path)
    lines = [
        json.dumps({"text": f"{(GOOD, BAD)[n % 2][n // 2 % 6]} {n}번", "label": ("positive", "negative")[n % 2]})
        for n in range(40)
    ]
    (tmp_path / "labelled.jsonl").write_text("\n".join(lines), encoding="utf-8")
    made.ok("import", str(tmp_path / "labelled.jsonl"), "--project", "shop", "--label", "sentiment=label")
    return made


def test_every_arm_is_told_with_its_numbers_and_one_sentence_says_which_to_take(shell: Any) -> None:
    """Without any option the free backends are compared, the task as it is set first."""
    shown = shell.ok("replay", *TASK)
    assert "Replay 1: sentiment, 40 records, 95 % intervals in brackets." in shown
    assert "Arm 1: ensemble (as set now)" in shown and "Arm 2: nearest" in shown
    assert shown.count("corrections per 1,000") == 2 and "Agreement to arm 1:" in shown
    assert shown.splitlines()[-1].startswith("Arm ") and "None costs less." in shown
    assert shell.ok("replay", *TASK, "--show", "1") == shown


def test_a_task_is_set_to_an_arm_by_its_number(shell: Any) -> None:
    """The number is that of the table; the next replay has it as the first."""
    shell.ok("replay", *TASK, "--sample", "20")
    assert "sentiment is set to arm 2 of replay 1: nearest." in shell.ok("replay", *TASK, "--show", "1", "--use", "2")
    assert "Arm 1: nearest (as set now)" in shell.ok("replay", *TASK, "--sample", "20")
    assert "has 2 arms, and none with the number 3" in shell.fails("replay", *TASK, "--show", "1", "--use", "3")
    assert "--use ARM belongs to --show N" in shell.fails("replay", *TASK, "--use", "1")


def test_a_dry_run_calls_and_stores_nothing(shell: Any) -> None:
    """It says for every combination how many calls that would be."""
    shown = shell.ok(
        "replay", *TASK, "--backend", "openai", "--model", "a", "--model", "b", "--k", "2", "--k", "4", "--dry-run"
    )
    assert shown.count("40 records with openai") == 4 and "k 4" in shown
    assert "There is no replay number 1" in shell.fails("replay", *TASK, "--show", "1")


def test_a_server_that_was_faster_is_waited_for(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker may take the replay up before the command does: the table comes all the same."""
    walk, calls = replay.walk, list[int]()

    def by_a_server(instance: Any, replay_id: int, **how: Any) -> bool:
        calls.append(replay_id)
        if len(calls) == 2:
            assert walk(instance, replay_id)
        return False

    monkeypatch.setattr(replay, "walk", by_a_server)
    assert "40 records, 95 % intervals" in shell.ok("replay", *TASK)
    assert len(calls) == 2


def test_what_stops_one_arm_stops_no_other(shell: Any) -> None:
    """The table comes all the same, and the last line says how to go on."""
    with FakeOpenAI() as server:
        shell.ok("settings", f"openai_base_url={server.base_url}", "openai_model=gpt-4o-mini")
        models = ("--backend", "openai", "--model", "gpt-4o-mini", "--model", "gpt-4o")
        done = shell("replay", *TASK, *models, "--sample", "8", "--budget", "0.00001")
    assert done.exit_code == 1 and "labeler runs --resume" in done.stderr
    assert "Arm 1:" in done.stdout and "Arm 2:" in done.stdout
    assert done.stderr.count("The budget of $0.00001 is reached") >= 2


def test_settings_are_checked_by_their_table(shell: Any) -> None:
    """In the same words as everywhere."""
    assert "k is 'many'" in shell.fails("replay", *TASK, "--k", "many")
    assert "No backend 'magic'" in shell.fails("replay", *TASK, "--backend", "magic")
    assert "nothing to replay" in shell.fails("replay", "--project", "shop", "--task", "usage")
