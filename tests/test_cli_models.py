"""The command line on the side of models: every setting by its name, the options of a run, tests, calibrations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import fake_openai
import pytest
from fake_openai import MODES, Answer, FakeOpenAI, completion, last_user
from local_models import smollm2_folder
from test_cli import KEY, Shell

from labeler import settings as tables
from labeler import strictjson
from labeler.cli.run_options import SETTINGS, option_of
from labeler.instance import Instance
from labeler.prelabel import calibration, runs
from labeler.prelabel.batch_executor import BatchExecutor
from labeler.settings import Setting
from labeler.store.calibrations import Calibrations

TASK = ("--project", "shop", "--task", "sentiment")
MODEL = "fake-model"


@pytest.fixture(autouse=True)
def no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LABELER_INSTANCE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.import_reviews()
    return shell


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(mode="vote") as server:
        yield server


@pytest.fixture
def served(shell: Shell, server: FakeOpenAI) -> Shell:
    """An instance whose tasks are suggested by the server."""
    shell.ok("settings", f"openai_base_url={server.base_url}", f"openai_model={MODEL}")
    return shell


@dataclass(frozen=True)
class Lasting:
    """An instance and its server for many cases of one test; what one leaves behind must not matter to another."""

    shell: Shell
    server: FakeOpenAI


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lasting]:
    shell = Shell(tmp_path_factory.mktemp("lasting"))
    shell.import_reviews()
    with FakeOpenAI(mode="vote") as server:
        shell.ok("settings", f"openai_base_url={server.base_url}", f"openai_model={MODEL}")
        yield Lasting(shell, server)


# What settings may be given. A setting that is not named here gets a value of its kind, so that new ones are tested.
_VALUES: dict[str, Any] = {
    "backend": "openai",
    "retriever": "mmr",
    "executor": "openai-batch",
    "unit": "record",
    "joint": ["emotion", "usage"],
    "labels": [{"name": name} for name in ("positive", "neutral", "negative")]
    + [{"name": "q", "title": {"ko": "상함"}}],
    "tasks": ["sentiment", "usage"],
    "embedder": "e5",
    "openai_base_url": "http://127.0.0.1:9/v1",
    "oidc_issuer": "https://login.example.com",
    "reviewers_may": ["runs", "numbers"],
    "shared_tasks": ["sentiment", "usage"],
}
# Settings that are refused without another one.
_NEEDED = {"oidc_new_accounts": ("oidc_allowed", "@example.com")}


def value_of(setting: Setting) -> Any:
    """Return a value that a setting may have, other than its default."""
    if setting.name in _VALUES:
        return _VALUES[setting.name]
    if setting.kind == "bool":
        return not setting.default
    if setting.kind == "int":
        return int(setting.low or 0) + 1
    if setting.kind == "float":
        return ((setting.low or 0.0) + min(setting.high or 1.0, 1.0)) / 2
    if setting.kind == "list":
        return ["first", "둘째"]
    if setting.kind == "map":
        return {"ko": "꼼꼼한 검토자", "en": "a careful reviewer"}
    return setting.choices[-1] if setting.choices else "something"


def typed(value: Any) -> str:
    return value if isinstance(value, str) else strictjson.dumps(value)


# Settings

PLACES = {"instance": (), "project": ("--project", "shop"), "task": TASK}
CASES = [
    (place, setting)
    for place, table in (("instance", tables.INSTANCE), ("project", tables.PROJECT), ("task", tables.TASK))
    for setting in table
]


def case_name(part: Any) -> str:
    return part.name if isinstance(part, Setting) else str(part)


@pytest.mark.parametrize(("place", "setting"), CASES, ids=case_name)
def test_every_setting_can_be_set_and_read_back(lasting: Lasting, place: str, setting: Setting) -> None:
    """NAME=VALUE is stored under the name of the table, NAME shows it, and NAME= brings the default back."""
    shell, where, value = lasting.shell, PLACES[place], value_of(setting)
    needed, given = _NEEDED.get(setting.name, ("", ""))
    if needed:
        shell.ok("settings", *where, f"{needed}={typed([given])}")
    before = stored(shell, place).get(setting.name)
    try:
        said = shell.ok("settings", *where, f"{setting.name}={typed(value)}")
        assert said.startswith("Saved as version " if place == "task" else "Saved.")
        shown = "(set)" if setting.secret else strictjson.dumps(value)
        assert shell.ok("settings", *where, setting.name) == f"{setting.name} = {shown}\n"
        assert stored(shell, place)[setting.name] == value
        assert f"\n* {setting.name} = " in shell.ok("settings", *where)
        if setting.name != "tasks":
            shell.ok("settings", *where, f"{setting.name}=")
            assert setting.name not in stored(shell, place)
    finally:
        shell.ok("settings", *where, f"{setting.name}={'' if before is None else typed(before)}")
        if needed:
            shell.ok("settings", *where, f"{needed}=")


def stored(shell: Shell, place: str) -> dict[str, Any]:
    """Return the settings that differ from the defaults, as they are stored."""
    with Instance(shell.instance) as instance:
        if place == "instance":
            return instance.settings
        project = instance.store.projects.named("shop")
        if place == "project":
            return dict(project["settings"])
        return instance.task_settings_raw(project, "sentiment")


@pytest.mark.parametrize("place", PLACES)
def test_settings_lists_each_with_value_default_and_help(shell: Shell, place: str) -> None:
    """Without a name every setting is listed, and nothing is marked as changed but what was."""
    if place == "task":
        shell.ok("settings", *TASK, "k=3")
    lines = shell.ok("settings", *PLACES[place]).splitlines()
    changed = {"instance": [], "project": ["tasks"], "task": ["k"]}[place]
    table = {"instance": tables.INSTANCE, "project": tables.PROJECT, "task": tables.TASK}[place]
    assert len(lines) == 1 + 2 * len(table)
    for n, setting in enumerate(table):
        value, help_ = lines[1 + 2 * n : 3 + 2 * n]
        assert value.startswith(f"{'*' if setting.name in changed else ' '} {setting.name} = ")
        assert help_.startswith(f"      {setting.meaning} (default: ")
        assert "null" not in help_


def test_changing_a_task_says_the_version_and_changing_nothing_makes_none(shell: Shell) -> None:
    """Each change of a task is a new version; the same values again are not."""
    assert shell.ok("settings", *TASK, "k=3", "seed=7") == "Saved as version 1 of sentiment.\nk = 3\nseed = 7\n"
    assert shell.ok("settings", *TASK, "k=4").startswith("Saved as version 2 of sentiment.\n")
    assert shell.ok("settings", *TASK, "k=4").startswith("Nothing was changed.\n")
    assert shell.ok("settings", *TASK, "seed=").startswith("Saved as version 3 of sentiment.\n")
    assert stored(shell, "task") == {"k": 4}


def test_lists_may_be_separated_by_commas(shell: Shell) -> None:
    r"""A list is JSON or texts with commas between them; \n in a stop text is a line break, as on the page."""
    shell.ok("settings", *TASK, "joint=emotion, usage", r"stop=###,\n\n", 'pinned=["1,5","2"]')
    assert stored(shell, "task") == {"joint": ["emotion", "usage"], "stop": ["###", "\n\n"], "pinned": ["1,5", "2"]}


def test_maps_and_labels_may_stand_in_a_file(shell: Shell) -> None:
    """NAME=@FILE reads the JSON of a file."""
    labels = [{"name": "fresh", "definition": {"ko": "신선하다"}}, {"name": "stale"}]
    (shell.folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    (shell.folder / "guidelines.json").write_text('{"ko": "신선한지 고르세요."}', encoding="utf-8")
    files = (f"labels=@{shell.folder}/labels.json", f"guidelines=@{shell.folder}/guidelines.json")
    gone = [f"--reopen={name}" for name in ("positive", "neutral", "negative")]
    assert "Saved as version 1" in shell.ok("settings", *TASK, *files, *gone)
    assert stored(shell, "task") == {"labels": labels, "guidelines": {"ko": "신선한지 고르세요."}}


def test_texts_are_stored_as_a_form_has_them(shell: Shell) -> None:
    """Texts are in NFC and without outer white space, so that a value is the same from the page and from here."""
    shell.ok("settings", *TASK, 'persona={"ko": " \u1100\u1161\u11a8 "}', 'stop=[" \\n"]')
    assert stored(shell, "task") == {"persona": {"ko": "각"}, "stop": [" \n"]}


def test_project_settings_reach_the_queues(shell: Shell) -> None:
    """A task that is added to a project on the command line has its queue at once."""
    shell.ok("settings", "--project", "shop", "tasks=sentiment")
    assert "usage" not in shell.ok("projects")
    shell.ok("settings", "--project", "shop", "tasks=sentiment,usage")
    assert "  usage: 0 approved, 0 rejected, 7 pending" in shell.ok("projects")


def test_a_key_of_the_environment_is_said_to_win(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list says where the environment overrules a setting, without the key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    result = shell("settings")
    assert "Note: OPENAI_API_KEY of the environment wins over openai_api_key." in result.stderr
    assert KEY not in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*TASK, "colour=red"], "No task setting 'colour'; there are: guidelines, labels"),
        ([*TASK, "k=65"], "k is 65; it must lie between 0 and 64"),
        ([*TASK, "k=few"], "k is 'few'; a number is needed"),
        ([*TASK, "calibrate=perhaps"], "calibrate is 'perhaps'; it must be of the kind bool"),
        ([*TASK, "style=poem"], "style is 'poem'; allowed are: few-shot"),
        ([*TASK, "unit=basket"], "unit is 'basket'; allowed are: record, group"),
        ([*TASK, "backend=gpt"], "No backend 'gpt'; loaded: classifier, ensemble, nearest, openai"),
        ([*TASK, "retriever=bm25"], "No retriever 'bm25'"),
        ([*TASK, "executor=cloud"], "No executor 'cloud'"),
        ([*TASK, "joint=mood"], "joint: No task 'mood'"),
        ([*TASK, "joint=usage", "mode=cascade"], "A cascade asks for one task at a time"),
        ([*TASK, "persona=a chef"], "persona cannot be read: Not JSON"),
        ([*TASK, 'persona={"fr": "un chef"}'], "persona must map languages (ko, en) to texts"),
        ([*TASK, 'guidelines={"ko": 5}'], "guidelines must map languages (ko, en) to texts"),
        ([*TASK, "guidelines=@nowhere.json"], "guidelines cannot be read in nowhere.json: No such file"),
        ([*TASK, "labels={}"], "labels must be a JSON list such as"),
        ([*TASK, 'labels=[{"title": {}}]'], "labels: A label needs a name"),
        ([*TASK, "model_id=a\udcffb"], "The model_id contains a lone surrogate"),
        ([*TASK, 'persona={"ko": "a\\u0000b"}'], "The persona contains a NUL character"),
        ([*TASK, "stop=[1]"], "stop is '[1]'; it must be of the kind list"),
        (["--project", "shop", "tasks="], "tasks needs at least one task"),
        (["--project", "shop", "tasks=mood"], "tasks: No task 'mood'"),
        (["--project", "shop", "embedder=word2vec"], "No embedder 'word2vec'"),
        (["--project", "shop", "k=3"], "No project setting 'k'; there are: tasks, embedder"),
        (["--project", "nowhere"], "No project 'nowhere'; there are: shop"),
        (["--project", "shop", "--task", "mood"], "No task 'mood'"),
        (["--task", "sentiment"], "--task needs --project"),
    ],
)
def test_bad_settings_are_one_line_that_names_the_setting(shell: Shell, words: list[str], said: str) -> None:
    """What cannot be is refused with its name and what is allowed, and nothing is stored."""
    before = stored(shell, "project")
    assert said in shell.fails("settings", *words)
    assert (stored(shell, "project"), stored(shell, "task")) == (before, {})


def test_a_key_that_was_typed_in_two_words_is_not_repeated(shell: Shell) -> None:
    """``settings openai_api_key sk-...`` is refused without showing what followed."""
    result = shell("settings", "openai_api_key", KEY)
    assert result.exit_code == 1
    assert "openai_api_key and its value are one word" in result.stderr
    assert KEY not in result.output


# The options of a run


@pytest.mark.parametrize("name", sorted(set(SETTINGS) - {"budget"}))
def test_every_option_of_a_run_is_kept_in_its_settings(
    lasting: Lasting, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Each setting of a task that makes sense for one run is an option of prelabel, by its name with dashes."""
    monkeypatch.setattr(BatchExecutor, "poll_seconds", 0.0)
    setting, option = SETTINGS[name], option_of(SETTINGS[name])
    value = value_of(setting)
    if setting.kind == "bool":
        words = [option if value else f"--no-{option[2:]}"]
    elif setting.kind == "list":
        words = [word for text in value for word in (option, text)]
    elif setting.kind == "map":
        words, value = [option, value["ko"]], {"ko": value["ko"]}
    else:
        words = [option, str(value)]
    said = lasting.shell.ok("prelabel", *TASK, *words, "--limit", "1", "--again")
    with lasting.shell.store() as store:
        run = store.ledger.runs(1, 1)[0]
    assert f"Run {run['id']} finished: 1 suggestions" in said
    assert run["settings"] == {"backend": "openai", "model_id": MODEL} | {name: value}


def test_options_change_what_is_sent(served: Shell, server: FakeOpenAI) -> None:
    """What is given for one run wins over what is set for the task."""
    served.ok("settings", *TASK, "temperature=0.1", "k=4")
    options = ("--temperature", "0.9", "--k", "1", "--persona", "깐깐한 과일 장수", "--stop", r"\n\n", "--seed", "5")
    served.ok("prelabel", *TASK, "--limit", "1", *options)
    sent = server.requests[-1].json
    assert (sent["temperature"], sent["stop"], sent["seed"]) == (0.9, ["\n\n"], 5)
    assert [turn["role"] for turn in sent["messages"]].count("assistant") == 1
    assert "깐깐한 과일 장수" in sent["messages"][0]["content"]


def test_an_empty_option_says_nothing_and_an_empty_list_clears(served: Shell, server: FakeOpenAI) -> None:
    """``--seed ""`` leaves the task's setting, ``--joint ""`` asks for this task alone."""
    served.ok("settings", *TASK, "joint=emotion", "seed=5")
    served.ok("prelabel", *TASK, "--limit", "1", "--joint", "", "--seed", "")
    assert server.requests[-1].json["seed"] == 5
    with served.store() as store:
        run = store.ledger.run(1)
        assert run["settings"] == {"joint": [], "backend": "openai", "model_id": MODEL}
        assert [s.task for id_ in runs.select(store, 1, "emotion", None, True) for s in
                store.suggestions.of_record(id_, "emotion")] == []  # fmt: skip


def test_the_budget_of_the_task_holds_unless_one_is_given(served: Shell) -> None:
    """--budget stands in the run beside its settings; without it that of the task does."""
    (served.instance / "prices.json").write_text(json.dumps({MODEL: {"input": 0.1, "output": 0.1}}))
    served.ok("settings", *TASK, "budget=2")
    served.ok("prelabel", *TASK, "--limit", "1")
    served.ok("prelabel", *TASK, "--limit", "1", "--again", "--budget", "0.5")
    with served.store() as store:
        assert [store.ledger.run(n)["budget"] for n in (1, 2)] == [2.0, 0.5]
        assert "budget" not in store.ledger.run(2)["settings"]


def test_a_resumed_run_stays_what_it_was(served: Shell, server: FakeOpenAI) -> None:
    """The options of a paused run hold when a worker goes on with it, whatever the task says by then."""
    server.behave(MODES["quota"])
    assert "The run is paused" in served.fails("prelabel", *TASK, "--limit", "1", "--temperature", "0.9", "--k", "1")
    served.ok("settings", *TASK, "temperature=0.2", "k=0")
    server.behave(MODES["vote"])
    before = len(server.requests)
    with served.store() as store:
        runs.resume(store, 1)
    served.ok("worker", "--once")
    # What comes after it may be a refresh: the suggestion is not made as the task says by now.
    sent = server.requests[before].json
    assert sent["temperature"] == 0.9
    assert [turn["role"] for turn in sent["messages"]].count("assistant") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--k", "65"], "k is 65; it must lie between 0 and 64"),
        (["--k", "few"], "k is 'few'; a number is needed"),
        (["--seed", "-1"], "seed is -1; it must lie between 0 and 2147483648"),
        (["--budget", "nan"], "budget is nan"),
        (["--concurrency", "0"], "concurrency is 0"),
        (["--mode", "fast"], "mode is 'fast'; allowed are: direct, cascade"),
        (["--persona", "a\udcffb"], "The persona contains a lone surrogate"),
        (["--executor", "cloud"], "No executor 'cloud'; loaded: local, openai-batch"),
        (["--joint", "mood"], "No task 'mood'"),
        (["--joint", "usage", "--mode", "cascade"], "A cascade asks for one task at a time"),
        (["--backend", "nearest", "--temperature", "0.5"], "The backend nearest has no setting temperature"),
        (["--backend", "probe", "--seed", "1", "--top-p", "0.5"], "The backend probe has no setting seed, top_p"),
    ],
)
def test_a_bad_option_is_one_line_and_starts_no_run(shell: Shell, words: list[str], said: str) -> None:
    """A value that cannot be, or that the backend does not have, is refused before anything is begun."""
    assert said in shell.fails("prelabel", *TASK, *words)
    with shell.store() as store:
        assert store.ledger.runs(1) == []


# What a run would take


def test_dry_run_knows_the_time_once_a_call_was_made(served: Shell) -> None:
    """The time is unknown until a call of the model was made in the task; then it and the length are measured."""
    assert "2 records with openai fake-model\nAbout 2 calls, " in (shown := served.ok("prelabel", *TASK, "--dry-run"))
    assert "; cost unknown; time unknown until a call was made. Nothing was called." in shown
    served.ok("prelabel", *TASK, "--limit", "1")
    shown = served.ok("prelabel", *TASK, "--dry-run", "--again")
    assert re.search(r"; time about \d+ s\. Nothing was called\.\n", shown)
    assert "those of the last 1 calls of this model" in shown


def test_dry_run_counts_the_calls_of_the_way_of_prompting(served: Shell) -> None:
    """Self-consistency takes as many calls as samples for each record."""
    words = ("--style", "self-consistency", "--samples", "3", "--temperature", "0.7", "--dry-run")
    assert "About 6 calls, " in served.ok("prelabel", *TASK, *words)


def test_dry_run_keeps_the_limits_that_were_set(served: Shell) -> None:
    """With two requests a minute two calls take a minute, however fast the server is."""
    served.ok("prelabel", *TASK, "--limit", "1")
    served.ok("settings", "requests_per_minute=2")
    assert "time about 60 s" in served.ok("prelabel", *TASK, "--again", "--dry-run")


def test_dry_run_of_batches_has_their_price(served: Shell) -> None:
    """Calls in a batch cost the share that the price list says, and come within a day."""
    (served.instance / "prices.json").write_text(json.dumps({MODEL: {"input": 1000, "output": 1000, "batch": 0.5}}))
    full = served.ok("prelabel", *TASK, "--dry-run")
    half = served.ok("prelabel", *TASK, "--dry-run", "--executor", "openai-batch")
    costs = [float(found[1]) for shown in (full, half) if (found := re.search(r"cost \$([\d.]+);", shown))]
    assert costs[1] == pytest.approx(costs[0] / 2, abs=1e-4)
    assert "time within a day" in half


@pytest.mark.parametrize("words", [["--dry-run"], ["--limit", "1"]])
def test_a_model_that_goes_is_named_before_a_run(served: Shell, words: list[str]) -> None:
    """The date on which a model was or is shut down stands in a note."""
    (served.instance / "prices.json").write_text(json.dumps({MODEL: {"shutdown": "2020-01-31"}}))
    result = served("prelabel", *TASK, *words)
    assert "Note: fake-model was shut down on 2020-01-31; choose another model\n" in result.stderr


# Backends and models


def test_backends_says_what_each_needs(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend is ready, or its line says what to set or install."""
    lines = dict(line.split(": ", 1) for line in shell.ok("backends").splitlines())
    assert list(lines) == ["openai", "transformers", "classifier", "nearest", "probe", "ensemble"]
    assert lines["openai"].startswith("set OPENAI_API_KEY or OPENAI_BASE_URL")
    assert lines["nearest"].startswith("ready, and free")
    shell.ok("settings", f"openai_api_key={KEY}")
    assert "openai: ready; name a model: openai_model" in shell.ok("backends")
    shell.ok("settings", "openai_model=gpt-4o-mini")
    assert "openai: ready; openai_model is gpt-4o-mini" in shell.ok("backends")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    lines = dict(line.split(": ", 1) for line in shell.ok("backends").splitlines())
    assert lines["transformers"].startswith("install torch, transformers, accelerate: pip install 'labeler-rag[local]'")
    assert lines["nearest"].startswith("ready, and free")


def test_a_test_of_a_server_is_kept_and_shown(served: Shell, server: FakeOpenAI) -> None:
    """--test makes one call, says how long it took and what the model takes, and keeps that for the runs to come."""
    server.behave(MODES["no_seed"])
    served.ok("settings", f"openai_api_key={KEY}")
    (served.instance / "prices.json").write_text(json.dumps({MODEL: {"context": 8192, "input": 0.2, "output": 0.6}}))
    result = served("backends", "--test", "openai")
    assert result.exit_code == 0, result.output
    assert re.search(r"^fake-model answered in \d+ ms\.\nIt can: .*\bseed no\b", result.stdout)
    assert "Known: context 8,192 tokens; $0.2 in, $0.6 out per million tokens\n" in result.stdout
    assert KEY not in result.output
    with served.store() as store:
        assert store.models.capabilities("openai", server.base_url, MODEL)["seed"] is False  # type: ignore[index]
    assert "has no setting seed" in served.fails("prelabel", *TASK, "--seed", "5")


def test_a_test_names_its_model_or_takes_that_of_a_task(served: Shell, server: FakeOpenAI) -> None:
    """--model wins over the task's model id, and that over the instance's."""
    served.ok("settings", *TASK, "model_id=of-the-task")
    assert served.ok("backends", "--test", "openai").startswith("fake-model answered")
    assert served.ok("backends", "--test", "openai", *TASK).startswith("of-the-task answered")
    assert served.ok("backends", "--test", "openai", *TASK, "--model", "named").startswith("named answered")
    with served.store() as store:
        assert [row["model_id"] for row in store.models.all()] == [MODEL, "named", "of-the-task"]


def test_limits_that_a_server_told_are_shown(served: Shell, server: FakeOpenAI) -> None:
    """What a server said of its limits stands beside what is known of its model; limits that were set win."""
    with served.store() as store:
        said = fake_limits(60, 9000)
        store.write(lambda tx: store.limits.learn(tx, f"{server.base_url} {MODEL}", said))
    shown = served.ok("backends", "--test", "openai")
    assert "Limits: 60 requests a minute (as the server said), 9,000 tokens a minute (as the server said)" in shown
    served.ok("settings", "requests_per_minute=30")
    assert "Limits: 30 requests a minute (as set)" in served.ok("backends", "--test", "openai")


def fake_limits(requests: int, tokens: int) -> Any:
    from labeler.records import RateLimits

    return RateLimits(requests=requests, tokens=tokens)


def test_a_test_that_fails_is_one_line_and_keeps_nothing(served: Shell, server: FakeOpenAI) -> None:
    """A server that refuses is named with the reason, and the exit status is 1."""
    server.behave(MODES["quota"])
    assert "quota" in served.fails("backends", "--test", "openai")
    with served.store() as store:
        assert store.models.all() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--test", "gpt"], "No backend 'gpt'; loaded: classifier, ensemble, nearest, openai"),
        (["--test", "nearest"], "The backend nearest needs no test"),
        (["--test", "openai"], "needs a model id"),
        (["--test", "transformers"], "needs a model id"),
        (["--test", "openai", "--project", "shop"], "--project and --task are given together"),
        (["--test", "openai", "--project", "shop", "--task", "mood"], "No task 'mood'"),
        (["--model", "gpt-4o"], "--model, --project and --task say what --test NAME is to test"),
    ],
)
def test_what_cannot_be_tested_is_one_line(shell: Shell, words: list[str], said: str) -> None:
    """A test without what it needs says what that is."""
    assert said in shell.fails("backends", *words)


@pytest.mark.slow
def test_local_weights_are_tested(shell: Shell) -> None:
    """--test transformers loads the weights and keeps what they can; they cost no fee."""
    folder = smollm2_folder()
    shown = shell.ok("backends", "--test", "transformers", "--model", str(folder))
    assert "Known: local weights cost no fee" in shown
    with shell.store() as store:
        found = store.models.capabilities("transformers", "", str(folder))
    assert found is not None
    assert found["scored"] is True
    assert f"transformers {folder}, tested 20" in shell.ok("models")


def test_models_lists_prices_tests_and_calibrations(served: Shell, server: FakeOpenAI) -> None:
    """Every model that is known has its line: what it costs and holds, what a test found, how its scores are off."""
    (served.instance / "prices.json").write_text(
        '{"old": {"shutdown": "2020-01-31"}, "new": {"context": 9000, "input": 1, "cached_input": 0.1, "output": 2,'
        ' "batch": 0.5}}'
    )
    served.ok("backends", "--test", "openai")
    fitted = calibration.Calibration("choice", {}, 1.0, 0.0, 64, 0.5, 0.75, True)
    with served.store() as store:
        place = (1, "sentiment", "openai", MODEL)
        store.write(lambda tx: Calibrations(store.db).save(tx, *place, fitted.to_json()))
    shown = served.ok("models")
    assert "gpt-4o-mini: context 128,000 tokens; $0.15 in, $0.075 in from the cache, $0.6 out per million" in shown
    assert "new: context 9,000 tokens; $1 in, $0.1 in from the cache, $2 out per million tokens; 50% of that" in shown
    assert "old: context unknown; price unknown; to be shut down on 2020-01-31\n  Note: old was shut down on" in shown
    assert re.search(rf"openai fake-model at {server.base_url}, tested \d{{4}}-\d\d-\d\d:\n  json_schema yes", shown)
    assert re.search(
        r"openai fake-model, calibrated for sentiment in shop on \d{4}-\d\d-\d\d:\n  learned from 64 approved records; "
        r"agreement 0\.500 without and 0\.750 with the calibration, .*; it is used\.\n",
        shown,
    )


# Calibration


def leaning(request: dict[str, Any], n: int) -> Answer:
    """Always say positive, but of reviews that are not with far less certainty: what a calibration mends."""
    properties = request.get("response_format", {}).get("json_schema", {}).get("schema", {}).get("properties", {})
    fake_openai.CHOSEN = 0.55 if "싱거워" in last_user(request) else 0.95
    return Answer(200, completion(json.dumps(dict.fromkeys(properties, "positive")), request))


@pytest.fixture
def judged(tmp_path: Path, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """An instance with 60 approved records, half of them negative, and 3 pending, and a server that leans."""
    monkeypatch.setattr(fake_openai, "CHOSEN", fake_openai.CHOSEN)
    random, rows = Random(7), ["id,리뷰,감성"]
    for n in range(60):
        # No two alike: near-duplicates count as one record.
        words = " ".join("".join(random.choices("가나다라마바사아자차카타파하", k=3)) for _ in range(6))
        rows.append(f"{n},{words} {'싱거워요' if n % 2 else '달아요'},{'부정' if n % 2 else '긍정'}")
    rows += ["p1,배가 달아요,", "p2,감이 싱거워요,", "p3,귤이 달아요,"]
    file = tmp_path / "reviews.csv"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    shell = Shell(tmp_path)
    shell.ok("import", file, "--project", "shop", "--task", "sentiment", "--label", "sentiment=감성")
    shell.ok("settings", f"openai_base_url={server.base_url}", f"openai_model={MODEL}")
    server.behave(leaning)
    return shell


def test_calibrate_scores_what_is_approved_and_says_what_it_learned(judged: Shell, server: FakeOpenAI) -> None:
    """Approved records are scored once, the sentence says what came of it, and runs use it from then on."""
    before = judged.ok("projects")
    shown = judged.ok("calibrate", *TASK)
    assert "Run 1 finished: 60 suggestions" in shown
    said = re.search(
        r"sentiment with openai fake-model: learned from (\d+) approved records; agreement ([\d.]+) without and "
        r"([\d.]+) with the calibration, on records it was not fitted on; it is used\.\n",
        shown,
    )
    assert said
    assert int(said[1]) == 60
    assert float(said[3]) > float(said[2])
    with judged.store() as store:
        assert store.ledger.run(1)["settings"]["purpose"] == "calibrate"
        (row,) = store.calibrations.of_task(1, "sentiment")
        fitted = calibration.load(store, 1, "sentiment", "openai", MODEL, row["prompt_digest"])
        assert fitted is not None
        assert fitted.used
        assert [row["suggestion_id"] for row in store.db.all("SELECT suggestion_id FROM work")] == [None] * 63
    assert judged.ok("projects") == before
    sent = len(server.requests)
    assert "Run" not in judged.ok("calibrate", *TASK)
    assert len(server.requests) == sent
    judged.ok("prelabel", *TASK)
    with judged.store() as store:
        made = {
            row["key"]: json.loads(row["value"])
            for page in store.suggestions.newest_pages(1, "sentiment")
            for row in page
            if row["key"].startswith("p")
        }
    assert made == {"p1": "positive", "p2": "negative", "p3": "positive"}


def test_calibrate_scores_no_more_than_the_limit(judged: Shell, server: FakeOpenAI) -> None:
    """--limit N scores N more records each time; too few of them teach nothing, and that is said."""
    shown = judged.ok("calibrate", *TASK, "--limit", "10")
    assert len(server.requests) == 10
    assert "sentiment with openai fake-model: too little to learn from; 30 approved records" in shown
    judged.ok("calibrate", *TASK, "--limit", "15")
    assert len(server.requests) == 25


def test_calibrate_learns_under_the_name_that_the_server_answers_by(judged: Shell, server: FakeOpenAI) -> None:
    """A server that answers under a dated name is scored once, and calibrated under that name."""

    def dated(request: dict[str, Any], n: int) -> Answer:
        answer = leaning(request, n)
        answer.body["model"] = "fake-model-2024-07-18"
        return answer

    server.behave(dated)
    assert "sentiment with openai fake-model-2024-07-18: learned from 60" in judged.ok("calibrate", *TASK)
    assert "Run" not in judged.ok("calibrate", *TASK)


def test_calibrate_says_that_the_setting_is_off(judged: Shell) -> None:
    """A calibration that no run will use is not passed over in silence."""
    judged.ok("settings", *TASK, "calibrate=off")
    assert "the setting calibrate of sentiment is off" in judged("calibrate", *TASK).stderr


def test_calibrate_without_scores_says_so(judged: Shell, server: FakeOpenAI) -> None:
    """A server without log probabilities gives nothing to calibrate."""
    server.behave(MODES["no_logprobs"])
    assert "openai fake-model gave no scores of the labels of sentiment" in judged.fails("calibrate", *TASK)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "sentiment", "--backend", "nearest"], "The backend nearest learns from the approved labels"),
        (["--task", "keywords", "--backend", "openai"], "keywords has no closed list of labels"),
        (["--task", "emotion", "--backend", "openai"], "No label of emotion is approved yet"),
        (["--task", "mood"], "No task 'mood'"),
        (["--task", "sentiment", "--backend", "gpt"], "No backend 'gpt'"),
        (["--task", "sentiment", "--backend", "openai", "--budget", "-1"], "budget is -1; it must lie between"),
    ],
)
def test_calibrate_errors_are_one_line_and_start_no_run(served: Shell, words: list[str], said: str) -> None:
    """What cannot be calibrated is said before anything is called."""
    assert said in served.fails("calibrate", "--project", "shop", *words)
    with served.store() as store:
        assert store.ledger.runs(1) == []


# Export


def test_export_of_suggestions_holds_the_reasoning_only_if_asked_for(shell: Shell) -> None:
    """--reasoning adds the steps of each suggestion; without it none leaves the house."""
    shell.ok("prelabel", *TASK)
    words = ("export", *TASK, "--format", "suggestions")
    rows = {}
    for name, more in (("plain", ()), ("full", ("--reasoning",))):
        shell.ok(*words, "--out", shell.folder / name, *more)
        text = "".join(path.read_text("utf-8") for path in (shell.folder / name).glob("suggestions*.jsonl"))
        rows[name] = [json.loads(line) for line in text.splitlines()]
    assert len(rows["plain"]) == len(rows["full"]) == 2
    assert not any("steps" in row for row in rows["plain"])
    assert all("steps" in row for row in rows["full"])
