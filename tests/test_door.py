"""The door: each mistake of a plugin's author is answered by one sentence, and by the line where it is."""

from __future__ import annotations

import html
import io
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from labeler import Record, accounts, built_in
from labeler.app import create_app
from labeler.cli import cli
from labeler.errors import FileRefused
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance
from labeler.plugins import Disabled, Plugins, load_plugins

HEAD = """from labeler import BackendFactory, Choice, Label, Record, Setting, Task, hookimpl
from labeler.export import TrainingFormat
"""
LABELS = "Choice(Label('spam'), Label('ham'))"


def loaded(folder: Path, body: str, name: str = "mine") -> Plugins:
    (folder / f"{name}.py").write_text(HEAD + body, encoding="utf-8")
    return load_plugins(built_in, folder, entry_points=False)


def only(plugins: Plugins) -> Disabled:
    assert len(plugins.disabled) == 1
    return plugins.disabled[0]


def tasks(*written: str) -> str:
    return f"@hookimpl\ndef register_tasks():\n    return [{', '.join(written)}]\n"


# Each mistake with its sentence and its line; the two lines of HEAD come first.
MISTAKES = {
    "title that is a text": (
        tasks(f"Task('spam', {LABELS}, 'Spam')"),
        'The title of the task \'spam\' must map languages to texts: {"en": "..."} (mine.py, line 5)',
    ),
    "guidelines that are a text": (
        tasks(f"Task('spam', {LABELS}, guidelines='Choose.')"),
        'The guidelines of the task \'spam\' must map languages to texts: {"en": "..."} (mine.py, line 5)',
    ),
    "title of a label that is a text": (
        tasks("Task('spam', Choice(Label('spam', 'Spam'), Label('ham')))"),
        "The title of label 'spam' must map languages to texts (mine.py, line 5)",
    ),
    "labels that are texts": (
        tasks("Task('spam', Choice('spam', 'ham'))"),
        "A label must be made by Label, like Label('good'), and this is 'spam' (mine.py, line 5)",
    ),
    "schema that is a list": (
        tasks("Task('spam', ['spam', 'ham'])"),
        "The task 'spam' needs a label schema like Choice(...), not ['spam', 'ham'] (mine.py, line 5)",
    ),
    "version that is a number": (
        tasks(f"Task('spam', {LABELS}, version=2)"),
        "The task 'spam' needs a text as version, a number as k, and a Generation (mine.py, line 5)",
    ),
    "name that no task can have": (
        tasks(f"Task('Spam!', {LABELS})"),
        "The task name 'Spam!' must be lower-case letters, digits and _, at most 40 (mine.py, line 5)",
    ),
    "class instead of a task": (
        tasks("Task"),
        "register_tasks must return Task objects, not the class Task (mine.py, line 3)",
    ),
    "hook that is not marked": (
        f"def register_tasks():\n    return [Task('spam', {LABELS})]\n",
        "register_tasks has no @hookimpl above it, so it would never be called (mine.py, line 3)",
    ),
    "hook whose name is misspelled": (
        "@hookimpl\ndef register_task():\n    return []\n",
        "unknown hook 'register_task'; did you mean register_tasks? (mine.py, line 3)",
    ),
    "hook with an argument that it does not have": (
        "@hookimpl\ndef label_approved(label):\n    ...\n",
        "label_approved takes 'label'; label_approved is called with project, task, record, value, settings "
        "(mine.py, line 3)",
    ),
    "wrapper": (
        "@hookimpl(wrapper=True)\ndef prepare_record(record):\n    return (yield)\n",
        "prepare_record is a wrapper; Labeler calls the hooks one by one, so write a plain function (mine.py, line 3)",
    ),
    "no hook at all": (
        f"TASK = Task('spam', {LABELS})\n",
        "it has no hook; write @hookimpl above a function such as register_tasks",
    ),
    "hook that returns nothing": (
        f"@hookimpl\ndef register_tasks():\n    Task('spam', {LABELS})\n",
        "register_tasks must return a list, not NoneType (mine.py, line 3)",
    ),
    "backend that cannot be made": (
        "class Mine:\n    name = 'mine'\n@hookimpl\ndef register_backends():\n    return [Mine()]\n",
        "the backend 'mine' must be made by an object that derives from BackendFactory (mine.py, line 5)",
    ),
    "options of a backend that are one text": (
        "class Mine(BackendFactory):\n    name, options = 'mine', 'model_id'\n    def create(self, settings): ...\n"
        "@hookimpl\ndef register_backends():\n    return [Mine()]\n",
        "options of the backend 'mine' must be a tuple of names, like ('model_id',) (mine.py, line 6)",
    ),
    "class instead of a backend": (
        "class Mine:\n    name = 'mine'\n    def create(self, settings): ...\n"
        "@hookimpl\ndef register_backends():\n    return [Mine]\n",
        "register_backends must return objects, and Mine is a class; write Mine() (mine.py, line 6)",
    ),
    "embedder without a name": (
        "@hookimpl\ndef register_embedders():\n    return ['mine']\n",
        "register_embedders must return pairs of a name and a function, not mine (mine.py, line 3)",
    ),
    "suffix without a dot": (
        "@hookimpl\ndef register_importers():\n    return [('sav', print)]\n",
        "the suffix 'sav' must begin with a dot, like '.sav' (mine.py, line 3)",
    ),
    "format that derives from nothing": (
        "class Mine:\n    name = 'mine'\n@hookimpl\ndef register_exporters():\n    return [Mine()]\n",
        "the export format 'mine' must derive from TrainingFormat (mine.py, line 5)",
    ),
    "format without a suffix": (
        "class Mine(TrainingFormat):\n    name = 'mine'\n    def row(self, row, context): ...\n"
        "@hookimpl\ndef register_exporters():\n    return [Mine()]\n",
        "the export format 'mine' needs a suffix that begins with a dot, like '.jsonl' (mine.py, line 6)",
    ),
    "setting of a kind that there is not": (
        "@hookimpl\ndef register_settings():\n    return [Setting('mine_key', 'password')]\n",
        "the setting 'mine_key' has the kind 'password'; there are: int, float, bool, text, choice (mine.py, line 3)",
    ),
    "setting that Labeler has": (
        "@hookimpl\ndef register_settings():\n    return [Setting('openai_api_key', 'text')]\n",
        "Labeler has a setting 'openai_api_key' of its own; begin the name with that of the plugin (mine.py, line 3)",
    ),
    "setting called as a field of the form": (
        "@hookimpl\ndef register_settings():\n    return [Setting('seen', 'text')]\n",
        "Labeler has a setting 'seen' of its own; begin the name with that of the plugin (mine.py, line 3)",
    ),
    "bound that is a text": (
        "@hookimpl\ndef register_settings():\n    return [Setting('mine_size', 'int', None, '1')]\n",
        "the bounds of the setting 'mine_size' must be numbers (mine.py, line 3)",
    ),
    "choices that are one text": (
        "@hookimpl\ndef register_settings():\n    return [Setting('mine_way', 'choice', 'a', choices='abc')]\n",
        "the choices of the setting 'mine_way' must be texts, and only the kind 'choice' has some (mine.py, line 3)",
    ),
    "default of another type": (
        "@hookimpl\ndef register_settings():\n    return [Setting('mine_size', 'int', '5')]\n",
        "the default of the setting 'mine_size' is '5'; write 5 (mine.py, line 3)",
    ),
    "default that does not fit": (
        "@hookimpl\ndef register_settings():\n    return [Setting('mine_size', 'int', 0, 1, 9)]\n",
        "the default of the setting 'mine_size' does not fit: mine_size is 0; it must lie between 1 and 9 "
        "(mine.py, line 3)",
    ),
    "name with a space": (
        "@hookimpl\ndef register_retrievers():\n    return [('my best', print)]\n",
        "the name 'my best' must be letters, digits, _, - and dots (mine.py, line 3)",
    ),
    "fault deep inside": (
        "def helper():\n    return {}['key']\n@hookimpl\ndef register_tasks():\n    return helper()\n",
        "KeyError: 'key' (mine.py, line 4)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_has_its_sentence_and_its_line(tmp_path: Path, mistake: str) -> None:
    """The plugin is disabled, everything else works, and its author reads what to change and where."""
    body, said = MISTAKES[mistake]
    plugins = loaded(tmp_path, body)
    assert only(plugins).said == said
    assert "sentiment" in plugins.tasks


def test_syntax_error_has_its_line(tmp_path: Path) -> None:
    """A file that is not Python is disabled with the line that is wrong."""
    assert only(loaded(tmp_path, "x = 1\ndef (\n")).where == "mine.py, line 4"


def test_syntax_error_of_another_file_is_nobodys_fault(tmp_path: Path) -> None:
    """A plugin is blamed for what was raised in its own code only."""
    plugins = loaded(tmp_path, tasks(f"Task('spam', {LABELS})"))
    with pytest.raises(SyntaxError) as caught:
        compile("x = [", "elsewhere.py", "exec")
    assert plugins.blamed(caught.value) is None


def test_name_of_a_hook_may_be_given_apart(tmp_path: Path) -> None:
    """``specname`` is honoured: the function is called for the hook that it names."""
    body = f"@hookimpl(specname='register_tasks')\ndef my_tasks():\n    return [Task('spam', {LABELS})]\n"
    plugins = loaded(tmp_path, body)
    assert plugins.disabled == []
    assert "spam" in plugins.tasks


def test_hooks_come_in_the_order_that_they_ask_for(tmp_path: Path) -> None:
    """Plugins are asked in the order of loading, those with ``tryfirst`` before and those with ``trylast`` after."""
    for name, mark in {"a": "(trylast=True)", "b": "", "c": "", "d": "(tryfirst=True)"}.items():
        adds = f"@hookimpl{mark}\ndef prepare_record(record):\n    return Record(0, 0, 'r', record.text + '{name}')\n"
        (tmp_path / f"{name}.py").write_text(HEAD + adds, encoding="utf-8")
    prepared = load_plugins(built_in, tmp_path, entry_points=False).prepare("shop", [Record(0, 0, "r", "")])[0]
    assert isinstance(prepared, Record)
    assert prepared.text == "dbca"


def test_what_a_plugin_imports_is_not_its_own(tmp_path: Path) -> None:
    """A function with the name of a hook that was imported from elsewhere is not taken for a mistake."""
    body = "from labeler.hookspecs import prepare_record\n" + tasks(f"Task('spam', {LABELS})")
    assert loaded(tmp_path, body).disabled == []


# What fails later


@pytest.fixture
def instance(tmp_path: Path) -> Any:
    (tmp_path / "plugins").mkdir()
    with Instance(tmp_path) as opened:
        yield opened


def add(instance: Instance, body: str) -> None:
    (instance.folder / "plugins" / "mine.py").write_text(HEAD + body, encoding="utf-8")


def client(instance: Instance, role: str = "admin", project: int | None = None) -> Any:
    person = instance.store.people.get(accounts.add_reviewer(instance.store, "kim", None, role))
    assert person is not None
    if project is not None:
        instance.store.write(lambda tx: instance.store.projects.add_member(tx, project, person["id"], "reviewer"))
    found = create_app(instance).test_client()
    with found.session_transaction() as session:
        session["reviewer"], session["epoch"], session["language"] = person["id"], person["epoch"], "en"
    return found


FRAGILE = """
broken = []

class Fragile(Task):
    def titled(self, language):
        if broken:
            raise KeyError("not today")
        return "Fragile"

@hookimpl
def register_tasks():
    return [Fragile("fragile", Choice(Label("a"), Label("b")))]
"""


def broken(instance: Instance) -> None:
    instance.plugins.manager.get_plugin("instance/plugins/mine.py").broken.append(True)


def test_task_that_fails_costs_its_own_card(instance: Instance, caplog: pytest.LogCaptureFixture) -> None:
    """The overview shows all other tasks; the card of the broken one says which plugin failed, and where."""
    add(instance, FRAGILE)
    project = instance.create_project("shop", "ko", {"tasks": ["fragile", "sentiment"]})
    broken(instance)
    answer = client(instance).get(f"/projects/{project}")
    page = answer.get_data(as_text=True)
    assert answer.status_code == 200
    assert "The plugin instance/plugins/mine.py failed: KeyError" in page
    assert "mine.py, line 9" in page
    assert page.count("<article>") == 2


def test_page_of_a_broken_task_names_its_plugin(instance: Instance, caplog: pytest.LogCaptureFixture) -> None:
    """A page that a plugin breaks is no riddle: it says which plugin, why, and where; the log has the trace."""
    add(instance, FRAGILE)
    project = instance.create_project("shop", "ko", {"tasks": ["fragile"]})
    broken(instance)
    with caplog.at_level(logging.ERROR):
        answer = client(instance).get(f"/projects/{project}/settings/fragile")
    assert answer.status_code == 500
    assert "The plugin instance/plugins/mine.py failed: KeyError" in answer.get_data(as_text=True)
    assert "Traceback" in caplog.text


def test_reviewers_are_not_told_what_an_error_of_a_plugin_holds(instance: Instance) -> None:
    """It may hold an address with a key: a reviewer reads which plugin failed and where, an admin also what it says."""
    add(instance, FRAGILE)
    project = instance.create_project("shop", "ko", {"tasks": ["fragile"]})
    broken(instance)
    browser = client(instance, "reviewer", project)
    page = browser.get(f"/projects/{project}").get_data(as_text=True)
    assert "The plugin instance/plugins/mine.py failed: mine.py, line 9" in page
    assert "not today" not in page


def test_disabled_plugin_shows_its_trace_to_the_admin(instance: Instance) -> None:
    """The settings page has the reason and the line, and the whole trace behind a fold."""
    add(instance, "1 / 0\n")
    page = client(instance).get("/settings").get_data(as_text=True)
    assert "ZeroDivisionError: division by zero (mine.py, line 3)" in page
    assert "Traceback (most recent call last)" in page


# Readers

READER = """
from labeler.ingest.rows import Row, RowSource

def read(path, options):
    rows = [Row(1, {"id": "a", "text": path.name.split(".", 1)[1] + " " + NAME})]
    return RowSource("mine", ["id", "text"], 1, iter(rows), lambda: 0, lambda: None)
"""


def test_reader_of_the_longest_suffix_reads(instance: Instance) -> None:
    """Of two suffixes that fit a name the longer one counts."""
    hook = "@hookimpl\ndef register_importers():\n    return [(SUFFIX, read)]\n"
    add(instance, READER + "NAME, SUFFIX = 'short', '.log'\n" + hook)
    other = HEAD + READER + "NAME, SUFFIX = 'long', '.shop.log'\n" + hook
    (instance.folder / "plugins" / "other.py").write_text(other, encoding="utf-8")
    project = instance.store.projects.get(instance.create_project("shop"))
    file = instance.folder / "march.shop.log"
    file.write_text("x")
    instance.importer(project).run(file, ImportOptions(text="text", id="id"))
    record = instance.store.records.by_key(project["id"], "a")
    assert record is not None
    assert record.text == "shop.log long"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [1]", "march.log cannot be read: its plugin returned list, not a RowSource"),
        ("return {}['rows']", "march.log cannot be read: KeyError: 'rows'"),
    ],
)
def test_reader_that_fails_refuses_the_file(instance: Instance, body: str, said: str) -> None:
    """A file whose reader raises, or returns something else, is refused with its name."""
    add(
        instance,
        f"def read(path, options):\n    {body}\n@hookimpl\ndef register_importers():\n    return [('.log', read)]\n",
    )
    project = instance.store.projects.get(instance.create_project("shop"))
    file = instance.folder / "march.log"
    file.write_text("x")
    with pytest.raises(FileRefused) as refused:
        instance.importer(project).run(file, ImportOptions(text="text", id="id"))
    assert str(refused.value) == said


def test_upload_page_takes_what_plugins_read(instance: Instance) -> None:
    """The form offers the plugin's suffix, and a file of it is previewed with the plugin's reader."""
    add(
        instance,
        READER + "NAME = 'read'\n@hookimpl\ndef register_importers():\n    return [('.colons', read)]\n",
    )
    project = instance.create_project("shop")
    browser = client(instance)
    page = browser.get(f"/projects/{project}/import").get_data(as_text=True)
    assert ".colons" in page.split('accept="')[1].split('"')[0].split(",")
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token
    sent = {"csrf_token": token[1], "file": (io.BytesIO(b"x"), "march.colons")}
    answer = browser.post(f"/projects/{project}/import", data=sent, follow_redirects=True)
    assert answer.status_code == 200
    assert "colons read" in answer.get_data(as_text=True)


# Settings of a plugin

CLAUDE = Path(__file__).parent.parent / "examples" / "plugins" / "claude.py"


def test_settings_of_a_plugin_are_on_the_page(instance: Instance) -> None:
    """They are shown with their titles in the page's language, saved, and checked as all others."""
    (instance.folder / "plugins" / "claude.py").write_text(CLAUDE.read_text(encoding="utf-8"), encoding="utf-8")
    browser = client(instance)
    page = browser.get("/settings").get_data(as_text=True)
    assert "Address of Claude" in page
    assert re.search('name="claude_api_key" type="password" value=""', page)
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token
    sent = {"csrf_token": token[1], "claude_api_key": "sk-ant-1", "claude_base_url": "http://127.0.0.1:9"}
    assert browser.post("/settings", data=sent).status_code == 303
    assert instance.settings == {"claude_api_key": "sk-ant-1", "claude_base_url": "http://127.0.0.1:9"}
    page = browser.get("/settings").get_data(as_text=True)
    assert "sk-ant-1" not in page
    browser.post("/settings", data={"csrf_token": token[1], "forget": "claude_api_key"})
    assert "claude_api_key" not in instance.settings


def test_settings_of_a_plugin_are_set_by_command(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """``labeler settings`` lists them with their meaning, and never shows a secret."""
    (instance.folder / "plugins" / "claude.py").write_text(CLAUDE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setenv("LABELER_INSTANCE", str(instance.folder))
    assert CliRunner().invoke(cli, ["settings", "claude_api_key=sk-ant-1"]).output.startswith("Saved.")
    shown = CliRunner().invoke(cli, ["settings"]).output
    assert "* claude_api_key = (set)\n      Key of Claude (default: none)" in shown


def test_settings_of_a_plugin_that_is_gone_wait_for_it(instance: Instance) -> None:
    """What is saved meanwhile leaves them in the file, and they come back with the plugin."""
    file = instance.folder / "plugins" / "claude.py"
    file.write_text(CLAUDE.read_text(encoding="utf-8"), encoding="utf-8")
    instance.change_settings({"claude_api_key": "sk-ant-1"})
    file.unlink()
    with Instance(instance.folder) as again:
        assert client(again).get("/settings").status_code == 200
        again.change_settings({"timeout_seconds": 5})
        assert again.settings == {"claude_api_key": "sk-ant-1", "timeout_seconds": 5.0}


def test_defaults_of_a_plugin_hold_until_they_are_changed(instance: Instance) -> None:
    """The page shows them, saving the page does not change them, and hooks and backends get them."""
    add(
        instance,
        "@hookimpl\ndef register_settings():\n"
        "    return [Setting('mine_on', 'bool', True), Setting('mine_most', 'int', 5)]\n"
        "@hookimpl\ndef prepare_record(record, settings):\n"
        "    return f\"{settings['mine_on']} {settings['mine_most']}\"\n",
    )
    browser = client(instance)
    page = browser.get("/settings").get_data(as_text=True)
    assert re.search('name="mine_on" value="1" checked', page) and re.search('name="mine_most".*value="5"', page)
    token, seen = (re.search(rf'name="{name}" value="([^"]*)"', page) for name in ("csrf_token", "seen"))
    assert token and seen
    sent = {"csrf_token": token[1], "seen": html.unescape(seen[1]), "mine_on": ["0", "1"], "mine_most": "5"}
    assert browser.post("/settings", data=sent | {"timeout_seconds": "7"}).status_code == 303
    assert instance.settings == {"timeout_seconds": 7.0}
    assert instance.plugins.prepare("shop", [Record(0, 0, "r", "")])[0] == "True 5"
    browser.post("/settings", data=sent | {"mine_on": "0", "timeout_seconds": "7"})
    assert instance.plugins.prepare("shop", [Record(0, 0, "r", "")])[0] == "False 5"


def test_hook_gets_the_project_and_the_settings(instance: Instance) -> None:
    """A hook that names them as arguments has them."""
    add(
        instance,
        "@hookimpl\ndef register_settings():\n    return [Setting('mine_word', 'text', 'x')]\n"
        "@hookimpl\ndef prepare_record(record, project, settings):\n"
        "    return f\"{project} {settings.get('mine_word')}\"\n",
    )
    instance.change_settings({"mine_word": "spam"})
    assert instance.plugins.prepare("shop", [Record(0, 0, "r", "")])[0] == "shop spam"
