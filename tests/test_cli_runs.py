"""The command ``labeler runs``: what stands, and the same cancelling and resuming as the buttons of the page."""

from __future__ import annotations

import pytest
from fake_openai import MODES, FakeOpenAI
from test_cli import Shell

from labeler.prelabel import runs

TASK = ("--project", "shop", "--task", "sentiment")


@pytest.fixture(autouse=True)
def no_settings_of_ours(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LABELER_INSTANCE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shell(tmp_path):
    shell = Shell(tmp_path)
    shell.import_reviews()
    return shell


@pytest.fixture
def server():
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
def stopped(shell, server):
    """A run that the server stopped: it knows no such model, and answers again from then on."""
    shell.ok("settings", f"openai_base_url={server.base_url}", "openai_model=my-model")
    server.behave(MODES["no_model"])
    assert "The run is paused: No model 'my-model'" in shell.fails("prelabel", *TASK)
    server.behave(MODES["good"])
    server.requests.clear()
    return shell


def test_list_says_where_every_run_stands_and_why(stopped):
    """One line for a run, the newest first; other projects are left out where one is named."""
    stopped.ok("prelabel", *TASK, "--backend", "nearest", "--limit", "1")
    newest, oldest = stopped.ok("runs").splitlines()
    assert newest == "Run 2, sentiment in shop: finished, 1 of 1 records, cost $0.0000"
    assert oldest.startswith("Run 1, sentiment in shop: paused, 0 of 2 records, cost $0.0000 (No model 'my-model' at ")
    assert stopped.ok("runs", "--project", "shop").splitlines() == [newest, oldest]
    assert "No project 'other'" in stopped.fails("runs", "--project", "other")


def test_resumed_run_ends_what_was_left(stopped, server):
    """It moves in the foreground, as a new run does, and says what came of it."""
    shown = stopped.ok("runs", "--resume", "1")
    assert "Run 1 finished: 2 suggestions" in shown
    assert len(server.requests) == 2
    assert "Run 1 has already ended" in stopped.fails("runs", "--resume", "1")


def test_resumed_run_has_another_budget(stopped):
    """A budget that was reached is raised with the same command; it is checked as everywhere."""
    with stopped.store() as store:
        store.write(lambda tx: store.ledger.set_budget(tx, 1, 0.0))
    (stopped.instance / "prices.json").write_text('{"my-model": {"input": 1, "output": 1}}')
    assert "The budget of $0 is reached; raise it and resume" in stopped.fails("runs", "--resume", "1")
    assert "budget is -1" in stopped.fails("runs", "--resume", "1", "--budget", "-1")
    assert "Run 1 finished: 2" in stopped.ok("runs", "--resume", "1", "--budget", "5")


def test_run_that_could_not_be_made_now_is_not_moved(stopped):
    """What every call would fail for is said at once, and the run stays as it was."""
    with stopped.store() as store:
        store.write(lambda tx: tx.run("UPDATE runs SET settings = json_set(settings, '$.backend', 'gone')", {}))
    assert "No backend 'gone'" in stopped.fails("runs", "--resume", "1")
    assert "paused" in stopped.ok("runs")


def test_cancelled_run_can_be_resumed(stopped):
    """Cancelling keeps what was answered, as the button does; what has ended cannot be cancelled."""
    assert stopped.ok("runs", "--cancel", "1") == "Run 1 is cancelled. What was answered is kept.\n"
    assert "Run 1, sentiment in shop: cancelled, 0 of 2 records" in stopped.ok("runs")
    assert "Run 1 has already ended" in stopped.fails("runs", "--cancel", "1")
    assert "Run 1 finished: 2" in stopped.ok("runs", "--resume", "1")
    assert "Run 1 has already ended" in stopped.fails("runs", "--cancel", "1")


def test_run_that_is_moving_is_not_resumed(stopped):
    """A run that waits for a worker is none that somebody stopped."""
    with stopped.store() as store:
        runs.resume(store, 1)
    assert "Run 1 is not paused" in stopped.fails("runs", "--resume", "1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resume", "7"], "There is no run number 7"),
        (["--cancel", "7"], "There is no run number 7"),
        (["--resume", "1", "--cancel", "1"], "Give one of --resume, --cancel and --project"),
        (["--cancel", "1", "--budget", "5"], "--budget belongs to --resume N"),
    ],
)
def test_errors_are_one_line(shell, words, said):
    """A number without a run, and options that do not go together."""
    assert said in shell.fails("runs", *words)


def test_the_command_says_what_a_chosen_order_lacks(shell):
    """Of each task, with what to do; after a run with scores nothing is left to say."""
    said = shell("settings", "--project", "shop", "order=score")
    assert said.exit_code == 0 and "Note: sentiment: No pending record has a score yet" in said.stderr
    shell.ok("prelabel", *TASK)
    assert "Note: sentiment" not in shell("settings", "--project", "shop", "order=score").stderr
