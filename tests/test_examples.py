"""The example plugins work, keep the contract, and are what ``labeler plugin new`` begins with."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from labeler import Choices, Generation, Message, PromptStyle, Record, Task, built_in
from labeler.app import create_app
from labeler.backends.base import BackendRequest
from labeler.cli import cli
from labeler.conformance import plugin_file
from labeler.errors import InputError
from labeler.instance import Instance
from labeler.labels import Choice, Label
from labeler.plugins import Plugins, load_plugins
from labeler.scaffold import EXAMPLES
from labeler.testing import checks_of

FOLDER = Path(__file__).parent.parent / "examples" / "plugins"
FILES = sorted(path.name for path in FOLDER.glob("[!_]*.py"))
CHECKS = [(file, check) for file in FILES for check in checks_of(FOLDER / file)]


@pytest.mark.parametrize(("file", "check"), CHECKS, ids=[f"{file}-{check}" for file, check in CHECKS])
def test_example_keeps_the_contract(file: str, check: Any) -> None:
    """Everything that ``labeler plugin check`` tries passes for every example."""
    check()


def test_examples_can_be_loaded_together() -> None:
    """No two of them register one name, and none the name of a thing that is built in."""
    plugins = load_plugins(built_in, files=[FOLDER / file for file in FILES], entry_points=False)
    assert plugins.disabled == []


def load(name: str) -> Plugins:
    return load_plugins(built_in, files=[FOLDER / f"{name}.py"], entry_points=False)


# What each one does


def test_phone_numbers_are_masked() -> None:
    """A number is replaced, other digits stay, and a review that is nothing else is refused."""
    plugins = load("phones")

    def prepared(text: str) -> str:
        made = plugins.prepare("shop", [Record(0, 0, "r", text)])[0]
        return made if isinstance(made, str) else made.text

    assert prepared("문의는 010-1234-5678로 주세요, 1234개 샀어요") == "문의는 [전화번호]로 주세요, 1234개 샀어요"
    assert prepared("01012345678") == "it is nothing but a phone number"


def test_fasttext_has_labels_and_text_on_one_line() -> None:
    """Each label is a word of its own before the text, whatever line ends the text has."""
    from labeler.export import Context, ExportRow

    made: Any = load("fasttext").exporters["fasttext"]
    task = Task("parts", Choices(Label("taste"), Label("very good")))
    row = ExportRow(1, Record(1, 1, "r", "맛있고\n싸요"), ["taste", "very good"], None, "train")
    assert made.row(row, Context(task, PromptStyle())) == "__label__taste __label__very_good 맛있고 싸요\n"


class Heard(BaseHTTPRequestHandler):
    """A server of a few lines: it keeps what it is sent, and answers what it was given."""

    got: list[tuple[str, dict[str, str], Any]]
    answers: list[tuple[Any, ...]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
        status, answer, *headers = self.answers.pop(0) if self.answers else (200, {})
        sent = json.dumps(answer).encode()
        self.send_response(status)
        for header in [("Content-Length", str(len(sent))), *headers]:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Heard]]]:
    kept = type("Kept", (Heard,), {"got": [], "answers": []})
    running = HTTPServer(("127.0.0.1", 0), kept)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", kept
    running.shutdown()
    running.server_close()
    thread.join()


def test_webhook_sends_what_was_approved(server: Any) -> None:
    """The server gets project, task, key, text and value; one that refuses is a failure, to be told again."""
    address, heard = server
    plugins = load("webhook")
    plugins.given = lambda: {"webhook_url": address}
    (listener,) = plugins.listeners()
    said = {"project": "shop", "task": "sentiment", "record": Record(1, 1, "r1", "맛있어요"), "value": "positive"}
    heard.answers.append((503, {}))
    assert "503" in (plugins.told(listener, said, 10) or "")
    assert plugins.told(listener, said, 10) is None
    body = {"project": "shop", "task": "sentiment", "key": "r1", "text": "맛있어요", "value": "positive"}
    assert [sent for _, _, sent in heard.got] == [body, body]


def request() -> BackendRequest:
    messages = [Message(role="system", content="Choose."), Message(role="user", content="맛있어요")]
    schema = Choice(Label("good"), Label("bad"))
    return BackendRequest(
        Record(1, 1, "r1", "맛있어요"), "tone", schema, messages, {"type": "object"}, Generation(max_tokens=50)
    )


def test_ollama_is_asked_in_its_own_words(server: Any) -> None:
    """The messages, the JSON schema as format, and the settings by their names there; tokens are counted."""
    address, heard = server
    backend = load("ollama").backends["ollama"].create({"model_id": "exaone3.5", "ollama_base_url": address})
    counted = {"prompt_eval_count": 40, "eval_count": 7, "done_reason": "stop"}
    heard.answers += [(200, {"message": {"content": '{"tone": "good"}'}, **counted}), (500, {}), (404, {})]
    answer, busy, missing = backend.complete([request()] * 3)
    path, _, body = heard.got[0]
    assert (path, body["model"], body["format"]) == ("/api/chat", "exaone3.5", {"type": "object"})
    assert body["options"] == {"num_predict": 50, "temperature": 0.0}
    assert (answer.text, answer.tokens_in, answer.tokens_out, answer.finish) == ('{"tone": "good"}', 40, 7, "stop")
    assert (busy.retryable, missing.retryable) == (True, False)
    backend.close()


def test_claude_is_asked_in_its_own_words(server: Any) -> None:
    """The system message stands apart; a key that is refused ends the run, a rate limit is waited for."""
    address, heard = server
    settings = {"model_id": "claude-x", "claude_base_url": address, "claude_api_key": "sk-ant-1"}
    backend = load("claude").backends["claude"].create(settings)
    usage = {"input_tokens": 40, "output_tokens": 7}
    found = {"content": [{"type": "text", "text": '{"tone": "good"}'}], "usage": usage, "stop_reason": "end_turn"}
    limits = [(429, {}), (429, {}, ("retry-after", "30")), (429, {}, ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"))]
    heard.answers += [(200, found), (401, {}), *limits]
    answer, refused, limited, *later = backend.complete([request()] * 5)
    path, headers, body = heard.got[0]
    assert (path, headers["x-api-key"], body["system"]) == ("/v1/messages", "sk-ant-1", "Choose.")
    assert body["messages"] == [{"role": "user", "content": "맛있어요"}]
    assert (answer.text, answer.tokens_in, answer.tokens_out, answer.finish) == ('{"tone": "good"}', 40, 7, "stop")
    assert (refused.fatal, limited.kind, limited.retry_after) == (True, "rate_limit", 5.0)
    assert [one.retry_after for one in later] == [30.0, 5.0]
    backend.close()


def test_page_of_the_example_is_closed_to_strangers(tmp_path: Path) -> None:
    """A plugin's page needs a sign-in, as every page."""
    with Instance(tmp_path) as instance:
        instance.plugins = load("hello")
        assert create_app(instance).test_client().get("/hello").status_code in (302, 303)


# A plugin of one's own


@pytest.mark.parametrize("kind", sorted(EXAMPLES))
def test_new_plugin_passes_its_own_test_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """``labeler plugin new`` writes a folder whose test passes at once, under the name that was given."""
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(cli, ["plugin", "new", "my_thing", "--kind", kind])
    assert made.exit_code == 0, made.output
    files = ["my_thing" if kind == "label" else "my_thing.py", "pyproject.toml", "test_my_thing.py"]
    assert sorted(path.name for path in (tmp_path / "my_thing").iterdir()) == files
    checked = CliRunner().invoke(cli, ["plugin", "check", "my_thing"])
    assert checked.exit_code == 0, checked.output
    assert "BAD" not in checked.output
    file = plugin_file(tmp_path / "my_thing")
    plugins = load_plugins(built_in, files=[file], entry_points=False)
    registered = [name for (what, name), owner in plugins.owners.items() if owner == str(file) and what != "widgets"]
    assert registered == ({"hooks": [], "importer": [".my_thing"]}.get(kind, ["my_thing"]))


@pytest.mark.slow
def test_test_of_a_new_plugin_runs_by_itself(tmp_path: Path) -> None:
    """The test that is written beside the plugin passes in a process of its own, without this suite's settings."""
    command = [sys.executable, "-c", "from labeler.cli import main; main()", "plugin", "new", "tone"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=tmp_path / "tone", capture_output=True, encoding="utf-8", timeout=300)
    assert ran.returncode == 0, ran.stdout
    assert "6 passed" in ran.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My Thing", "must be lower-case letters"),
        ("../up", "must be lower-case"),
        ("there", "is there already"),
        ("json", "Python has a module 'json' already"),
        ("labeler", "Python has a module 'labeler' already"),
    ],
)
def test_name_that_no_plugin_can_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    """Nothing is written over, and nothing outside of the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    made = CliRunner().invoke(cli, ["plugin", "new", name])
    assert made.exit_code == 1
    assert said in made.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


# What the check finds

BROKEN = {
    "prompt that is no list": (
        "class Odd(Task):\n    def build_prompt(self, record, examples, style):\n        return 'Choose.'\n",
        "build_prompt must return a list of messages",
    ),
    "prompt that is never the same": (
        "import random\nclass Odd(Task):\n    def build_prompt(self, record, examples, style):\n"
        "        return [{'role': 'user', 'content': str(random.random())}]\n",
        "build_prompt must give the same prompt",
    ),
    "parser that guesses": (
        "class Odd(Task):\n    def parse_completion(self, completion, record):\n        return 'maybe'\n",
        "is read as 'maybe'",
    ),
    "parser that raises": (
        "class Odd(Task):\n    def parse_completion(self, completion, record):\n        return completion[0]\n",
        "is read as",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_check_finds_what_a_task_does_wrong(tmp_path: Path, fault: str) -> None:
    """Each fault is said in a sentence, and the command fails."""
    body, said = BROKEN[fault]
    (tmp_path / "odd.py").write_text(
        f"from labeler import Choice, Label, Task, hookimpl\n{body}"
        "@hookimpl\ndef register_tasks():\n    return [Odd('odd', Choice(Label('a'), Label('b')))]\n"
    )
    checked = CliRunner().invoke(cli, ["plugin", "check", str(tmp_path / "odd.py")])
    assert checked.exit_code == 1
    assert said in checked.output


def test_check_reads_recorded_answers(tmp_path: Path) -> None:
    """Answers that models really gave lie beside the plugin, and each has to be read as its author says."""
    (tmp_path / "delivery.py").write_text((FOLDER / "delivery.py").read_text(encoding="utf-8"), encoding="utf-8")
    rows = [
        {"task": "delivery", "text": "늦었어요", "completion": '{"delivery": "complaint"}', "value": "complaint"},
        {"task": "delivery", "text": "늦었어요", "completion": "I think it is a complaint.", "value": None},
    ]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    checked = CliRunner().invoke(cli, ["plugin", "check", str(tmp_path / "delivery.py")])
    assert "ok   task delivery: reads the answers of answers.jsonl (2 answers)" in checked.output
    answers.write_text(json.dumps(rows[0] | {"value": "no_complaint"}))
    checked = CliRunner().invoke(cli, ["plugin", "check", str(tmp_path / "delivery.py")])
    assert "is read as 'complaint', not as 'no_complaint'" in checked.output


def test_check_shows_why_a_plugin_does_not_load(tmp_path: Path) -> None:
    """The sentence, the line, and the trace."""
    (tmp_path / "odd.py").write_text("1 / 0\n")
    checked = CliRunner().invoke(cli, ["plugin", "check", str(tmp_path / "odd.py")])
    assert checked.exit_code == 1
    assert "ZeroDivisionError: division by zero (odd.py, line 1)" in checked.output
    assert "Traceback" in checked.output


def test_check_says_what_it_needs(tmp_path: Path) -> None:
    """A folder without a plugin, and one whose plugin is missing."""
    with pytest.raises(InputError, match="is no plugin: give"):
        checks_of(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project.entry-points.labeler]\nodd = "odd"\n')
    with pytest.raises(InputError, match=r"names the plugin odd, and there is no .*odd\.py"):
        checks_of(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project.entry-points.labeler]\nodd = "odd:plugin"\n')
    with pytest.raises(InputError, match="names odd:plugin; only a plugin that is a module can be checked"):
        checks_of(tmp_path)
    (tmp_path / "pyproject.toml").write_text("odd = [")
    with pytest.raises(InputError, match=r"pyproject\.toml cannot be read: "):
        checks_of(tmp_path)


PAGE = (FOLDER.parent.parent / "docs" / "plugins.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ["first.py", "amount.py", "amount/amount.html", "amount/amount.js"])
def test_printed_examples_are_the_ones_that_run(file: str) -> None:
    """What docs/plugins.md prints is the example, character for character."""
    assert (FOLDER / file).read_text(encoding="utf-8").strip() in PAGE


@pytest.mark.parametrize("file", FILES)
def test_every_example_is_in_the_document(file: str) -> None:
    """The page leads to each example."""
    assert f"](../examples/plugins/{file})" in PAGE
