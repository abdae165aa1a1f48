"""Plugins: what a good one adds, how a bad one is disabled, and that hooks and documents say the same."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import labeler_plugins
import pytest
from fake_openai import FakeOpenAI
from flask import Blueprint
from flask_babel import force_locale
from helpers import serving

import labeler
from labeler import Record, built_in, hookspecs
from labeler.app import create_app
from labeler.errors import NotFound, PluginError
from labeler.ingest.options import ImportOptions
from labeler.ingest.report import Report
from labeler.ingest.service import queue_import
from labeler.instance import Instance
from labeler.plugins import Plugins, load_plugins
from labeler.prelabel import runs
from labeler.sentence import recalled
from labeler.web import words
from labeler.worker import Worker

ROOT = Path(__file__).parent.parent
TASKS = ["sentiment", "emotion", "keywords", "categories", "summary_polarity", "summary_category", "usage"]
HOOKS = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, "labeler_spec")}
HEAD = "from labeler import Choice, Label, Record, Task, hookimpl\n"
SPAM = (
    HEAD
    + """
@hookimpl
def register_tasks():
    return [Task("spam", Choice(Label("spam"), Label("ham")))]
"""
)

# One plugin that uses every hook there is.
EVERYTHING = """
import csv
from pathlib import Path

import click
from flask import Blueprint

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo

from labeler import BackendFactory, Choice, Label, Record, Sentence, Setting, Task, hookimpl
from labeler.export import TrainingFormat
from labeler.ingest.rows import Row, RowSource
from labeler.prelabel.executor import LocalExecutor
from labeler.retrieval.lexical import LexicalEmbedder
from labeler.retrieval.retrievers import Nothing

approved = []


class Parrot(BackendFactory):
    name = "parrot"

    def create(self, settings):
        raise NotImplementedError


class Loud(TrainingFormat):
    name = "loud"
    suffix = ".txt"
    description = "In capitals"

    def row(self, row, context):
        return row.text.upper()


def read_colons(path, options):
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [Row(n, dict(zip(("id", "text"), line.split("::"), strict=True))) for n, line in enumerate(lines, 1)]
    return RowSource("colons", ["id", "text"], path.stat().st_size, iter(rows), lambda: 0, lambda: None)


@hookimpl
def register_tasks():
    return [Task("spam", Choice(Label("spam"), Label("ham")))]


@hookimpl
def register_widgets():
    folder = Path(__file__).parent / "dial"
    folder.mkdir(exist_ok=True)
    for name in ("dial.html", "dial.js"):
        (folder / name).write_text("")
    return [("dial", folder)]


@hookimpl
def register_translations():
    folder = Path(__file__).parent / "said"
    (folder / "ko" / "LC_MESSAGES").mkdir(parents=True, exist_ok=True)
    texts = Catalog(locale="ko")
    texts.add("%(word)r is advertising", "광고예요: %(word)r")
    texts.add("Projects", "남의 말")
    with (folder / "ko" / "LC_MESSAGES" / "everything.mo").open("wb") as file:
        write_mo(file, texts)
    return [("everything", folder)]


@hookimpl
def register_backends():
    return [Parrot()]


@hookimpl
def register_embedders():
    return [("twin", lambda settings: LexicalEmbedder())]


@hookimpl
def register_retrievers():
    return [("blind", Nothing)]


@hookimpl
def register_importers():
    return [(".colons", read_colons)]


@hookimpl
def register_exporters():
    return [Loud()]


@hookimpl
def register_executors():
    return [("mine", LocalExecutor)]


@hookimpl
def register_settings():
    return [Setting("everything_key", "text", secret=True)]


@hookimpl
def prepare_record(record):
    if "광고" in record.text:
        return "it is an advertisement"
    if "협찬" in record.text:
        return Sentence("%(word)r is advertising", word="협찬")
    if record.text.startswith("  ") or "010-" in record.text:
        return Record(0, record.project_id, record.key, record.text.replace("010-1234-5678", "[전화]"), group="익명")
    return None


@hookimpl
def label_approved(project, task, record, value):
    approved.append((project, task, record.text, value))


@hookimpl
def register_commands(cli):
    @cli.command()
    def hello():
        click.echo("안녕하세요")


@hookimpl
def register_blueprints():
    page = Blueprint("extra", __name__)
    page.add_url_rule("/extra", view_func=lambda: "extra page", endpoint="page")
    return [page]
"""


def a_record(text: str = "맛있어요") -> Record:
    return Record(1, 1, "r1", text)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Plugins]:
    """Write drop-in plugins and load them beside the built-in ones."""

    def load(patience: float = 10.0, **sources: str) -> Plugins:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        return load_plugins(built_in, tmp_path, entry_points=False, patience=patience)

    return load


def reason(plugins: Plugins, name: str) -> str:
    """Return why the only disabled plugin is disabled, after checking that it is ``name`` and the rest works."""
    assert [disabled.name for disabled in plugins.disabled] == [f"instance/plugins/{name}.py"]
    assert set(TASKS) <= set(plugins.tasks)
    assert {"openai", "nearest", "ensemble", "probe"} <= set(plugins.backends)
    return plugins.disabled[0].reason


# What there is without anybody's plugin


def test_the_seven_tasks_come_from_the_folder_plugins(load: Callable[..., Plugins]) -> None:
    """Every built-in task is registered by a file of plugins/ through the public hook."""
    plugins = load()
    assert list(plugins.tasks) == TASKS
    assert {plugins.owners[("tasks", name)] for name in TASKS} == {f"labeler_plugins.{name}" for name in TASKS}


def test_built_ins_enter_by_the_same_door(load: Callable[..., Plugins]) -> None:
    """Backends, embedders, retrievers, formats and the executor are registered by hooks too, and none is disabled."""
    plugins = load()
    assert set(plugins.backends) == {"openai", "transformers", "classifier", "nearest", "ensemble", "probe"}
    assert set(plugins.embedders) == {"lexical", "e5", "sentence-transformers"}
    assert set(plugins.retrievers) == {"balanced", "similar", "mmr", "diverse", "fixed", "random", "none"}
    assert {"openai", "trl", "alpaca", "csv", "suggestions"} <= set(plugins.exporters)
    assert set(plugins.executors) == {"local", "openai-batch"}
    assert plugins.disabled == []


def test_shipped_plugins_import_only_what_labeler_exports() -> None:
    """The files of plugins/ show that the names exported by ``labeler`` are enough for a task."""
    for path in (ROOT / "plugins").glob("*.py"):
        imported = re.findall(r"^(?:from|import) (\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(imported) <= {"labeler"}, path.name


def test_two_managers_share_nothing(load: Callable[..., Plugins], tmp_path: Path) -> None:
    """Each app has a manager of its own: what one loads the other does not see."""
    one = load(spam=SPAM)
    other = load_plugins(built_in, tmp_path / "nowhere", entry_points=False)
    assert "spam" in one.tasks
    assert "spam" not in other.tasks


def test_unknown_task_lists_those_there_are(load: Callable[..., Plugins]) -> None:
    """A name that nobody registered is answered with the names there are."""
    with pytest.raises(NotFound, match="No task 'sentimnt'; loaded: categories, emotion"):
        load().task("sentimnt")


# Drop-in files and entry points


def test_drop_in_file_adds_a_task_to_an_instance(tmp_path: Path) -> None:
    """A file in instance/plugins/ adds a task that new projects have, without touching anything else."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "spam.py").write_text(SPAM)
    with Instance(tmp_path) as instance:
        project = instance.store.projects.get(instance.create_project("shop"))
        assert list(instance.tasks_of(project)) == [*TASKS, "spam"]


def test_drop_in_plugin_reads_its_guidelines_beside_it(load: Callable[..., Plugins], tmp_path: Path) -> None:
    """guideline_files(__file__, ...) works in a drop-in file as it does in plugins/."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "spam.v1.ko.md").write_text("광고인지 고르세요.", encoding="utf-8")
    source = SPAM.replace('Label("ham"))', 'Label("ham")), {}, guideline_files(__file__, "spam.v1")')
    plugins = load(spam=source.replace("hookimpl\n", "guideline_files, hookimpl\n", 1))
    assert plugins.task("spam").guided("ko") == "광고인지 고르세요."


def test_drop_in_plugin_may_define_dataclasses(load: Callable[..., Plugins]) -> None:
    """Dataclasses with postponed annotations look up their module by name, and find it."""
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n" + SPAM
    plugins = load(spam=source + "\n\n@dataclass\nclass Rule:\n    word: str\n")
    assert plugins.disabled == []
    assert "spam" in plugins.tasks


def test_installed_entry_point_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with an entry point of the group ``labeler`` is a plugin under the entry point's name."""
    install(monkeypatch, spam_package=SPAM)
    plugins = load_plugins(built_in)
    assert plugins.owners[("tasks", "spam")] == "spam_package"


def install(monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    """Pretend that packages with these entry points are installed; a trailing underscore is dropped from a name."""
    points = []
    for name, source in sources.items():
        module = ModuleType(f"pretended_{name}")
        exec(source, module.__dict__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        points.append(metadata.EntryPoint(name.rstrip("_"), module.__name__, "labeler"))
    monkeypatch.setattr("labeler.plugins.metadata.entry_points", lambda group: points if group == "labeler" else [])


# Faults: 57


def test_plugin_that_raises_at_import_is_disabled_by_name(load: Callable[..., Plugins]) -> None:
    """An exception while a plugin loads disables that plugin, with its type, message and trace."""
    plugins = load(broken="1 / 0")
    assert reason(plugins, "broken") == "ZeroDivisionError: division by zero"
    assert "broken.py" in plugins.disabled[0].trace


def test_plugin_with_a_syntax_error_is_disabled_by_name(load: Callable[..., Plugins]) -> None:
    """A file that is not Python is named with the line that is wrong."""
    assert "SyntaxError" in reason(load(broken="def ("), "broken")


def test_plugin_that_raises_in_a_hook_is_disabled_by_name(load: Callable[..., Plugins]) -> None:
    """An exception in register_tasks disables the plugin."""
    source = HEAD + "@hookimpl\ndef register_tasks():\n    raise OSError('no such disk')\n"
    assert reason(load(broken=source), "broken") == "OSError: no such disk"


@pytest.mark.parametrize("where", ["import", "hook"])
def test_plugin_that_hangs_is_given_up_on(load: Callable[..., Plugins], where: str) -> None:
    """A plugin has a limited time to load and to register; the others load all the same."""
    hang = "import threading\nthreading.Event().wait(5)\n"
    body = "@hookimpl\ndef register_tasks():\n" + "".join(f"    {line}\n" for line in hang.splitlines())
    started = time.monotonic()
    plugins = load(patience=0.3, broken=hang if where == "import" else HEAD + body, spam=SPAM)
    assert reason(plugins, "broken") == "it did not come back within 0.3 seconds"
    assert "spam" in plugins.tasks
    assert time.monotonic() - started < 5


def test_plugin_that_comes_back_late_registers_nothing(load: Callable[..., Plugins]) -> None:
    """A plugin that was given up on stays out, even when its import ends later."""
    late = "import time\ntime.sleep(0.4)\n" + SPAM + "\n\n@hookimpl\ndef prepare_record(record):\n    return 'no'\n"
    before = set(threading.enumerate())
    plugins = load(patience=0.1, late=late)
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert "spam" not in plugins.tasks
    assert plugins.prepare("shop", [a_record()])[0] == a_record()


@pytest.mark.parametrize(
    ("hook", "returned", "said"),
    [
        ("register_tasks", "None", "register_tasks must return a list, not NoneType"),
        ("register_tasks", "['spam']", "register_tasks must return Task objects, not str"),
        ("register_tasks", "[('spam', 1)]", "register_tasks must return Task objects, not tuple"),
        ("register_backends", "[object()]", "register_backends returned something without a name"),
        ("register_retrievers", "{'mine': 1}", "register_retrievers must return a list, not dict"),
        ("register_embedders", "[(3, 4)]", "register_embedders must return pairs of a name and a function, not (3, 4)"),
        ("register_widgets", "[('Dial', 1)]", "the widget 'Dial' must be named in lower-case letters"),
        ("register_widgets", "[('choice', 1)]", "the widget 'choice' is already registered by labeler"),
        (
            "register_translations",
            "[('mine', '/tmp')]",
            "must return pairs of a name and a folder",
        ),
        (
            "register_translations",
            "[('mine', __import__('pathlib').Path('/nowhere'))]",
            "the folder nowhere has no ko/LC_MESSAGES/mine.mo; make it with pybabel compile",
        ),
        (
            "register_translations",
            "[('messages', __import__('pathlib').Path('/nowhere'))]",
            "Labeler has a catalogue 'messages' of its own; call yours as the plugin is called",
        ),
        ("register_widgets", "[('dial', __import__('pathlib').Path('/nowhere'))]", "has no dial.html in /nowhere"),
    ],
)
def test_plugin_that_registers_a_wrong_type_is_disabled(
    load: Callable[..., Plugins], hook: str, returned: str, said: str
) -> None:
    """What a hook returns is checked at the door, and the message names the hook."""
    assert said in reason(load(broken=HEAD + f"@hookimpl\ndef {hook}():\n    return {returned}\n"), "broken")


def test_plugin_that_prints_loads(load: Callable[..., Plugins], capfd: pytest.CaptureFixture[str]) -> None:
    """Printing is no fault."""
    plugins = load(chatty="print('hello from the plugin')\n" + SPAM)
    assert plugins.disabled == []
    assert "hello from the plugin" in capfd.readouterr().out


@pytest.mark.parametrize("exit_", ["import sys; sys.exit(3)", "raise SystemExit", "exit('bye')"])
def test_plugin_that_exits_is_disabled(load: Callable[..., Plugins], exit_: str) -> None:
    """sys.exit() in a plugin does not end Labeler."""
    assert "it raised SystemExit" in reason(load(broken=exit_), "broken")


def test_second_task_of_one_name_disables_its_plugin(load: Callable[..., Plugins]) -> None:
    """Two tasks of one name: the first stays, the second plugin is disabled, and the message names the first."""
    plugins = load(mine=SPAM.replace('"spam", Choice', '"sentiment", Choice'))
    assert reason(plugins, "mine") == "the task 'sentiment' is already registered by labeler_plugins.sentiment"
    assert plugins.task("sentiment").titled("ko") == "긍정·부정"


def test_disabled_plugin_leaves_nothing_behind(load: Callable[..., Plugins]) -> None:
    """A plugin is taken in as a whole or not at all: neither its other tasks nor its other hooks stay."""
    source = HEAD + (
        "@hookimpl\ndef register_tasks():\n"
        "    return [Task(name, Choice(Label('a'), Label('b'))) for name in ('spam', 'sentiment')]\n"
        "@hookimpl\ndef prepare_record(record):\n    return 'refused'\n"
    )
    plugins = load(mine=source)
    assert "spam" not in plugins.tasks
    assert plugins.prepare("shop", [a_record()])[0] == a_record()


def test_second_entry_point_of_one_name_is_disabled_and_the_first_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages whose entry points have one name: the first keeps all its hooks."""
    first = HEAD + "@hookimpl\ndef prepare_record(record):\n    return 'refused by the first'\n"
    install(monkeypatch, door=first, door_=SPAM)
    plugins = load_plugins(built_in)
    assert [disabled.name for disabled in plugins.disabled] == ["door"]
    assert plugins.prepare("shop", [a_record()])[0] == "refused by the first"
    assert "spam" not in plugins.tasks


def test_plugin_that_registers_one_name_twice_is_disabled(load: Callable[..., Plugins]) -> None:
    """One plugin cannot register two tasks of one name either."""
    source = SPAM.replace("return [", "return 2 * [")
    assert reason(load(broken=source), "broken") == "it registers the task 'spam' twice"


def test_misspelled_hook_disables_the_plugin(load: Callable[..., Plugins]) -> None:
    """pluggy would ignore a misspelled hook for ever; Labeler names it."""
    said = reason(load(broken=SPAM.replace("register_tasks", "register_task")), "broken")
    assert "unknown hook 'register_task'" in said


def test_hook_with_a_strange_argument_disables_the_plugin(load: Callable[..., Plugins]) -> None:
    """An argument that a hook does not have is named."""
    said = reason(load(broken=HEAD + "@hookimpl\ndef prepare_record(review):\n    return None\n"), "broken")
    assert "review" in said


def test_plugin_for_another_api_version_is_disabled(load: Callable[..., Plugins]) -> None:
    """LABELER_API of another version is refused with both numbers; the present one is welcome."""
    plugins = load(old="LABELER_API = 1\n" + SPAM, new="LABELER_API = 2\n" + SPAM)
    assert reason(plugins, "old") == "it was made for plugin API 1; this Labeler has 2"
    assert plugins.owners[("tasks", "spam")] == "instance/plugins/new.py"


# Hooks that are called later


def test_prepare_record_changes_and_refuses_records(tmp_path: Path) -> None:
    """At import a plugin may clean a record or refuse it; the report has the row and the plugin's words."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "everything.py").write_text(EVERYTHING, encoding="utf-8")
    file = tmp_path / "reviews.csv"
    file.write_text("id,text\n1,맛있어요\n2,광고입니다\n3,문의 010-1234-5678\n", encoding="utf-8")
    with Instance(tmp_path) as instance:
        project = instance.store.projects.get(instance.create_project("shop"))
        report = instance.importer(project).run(file, ImportOptions())
        assert report.lines == [(3, None, "it is an advertisement")]
        third = instance.store.records.by_key(project["id"], "3")
        assert third is not None
        assert (third.text, third.group) == ("문의 [전화]", "익명")
        assert instance.store.records.counts(project["id"])["records"] == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("1 / 0", "the plugin instance/plugins/door.py failed on it: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit()", "the plugin instance/plugins/door.py failed on it: it raised SystemExit"),
        ("return 7", "the plugin instance/plugins/door.py made it a int, not a Record"),
    ],
)
def test_record_is_refused_where_prepare_record_fails(load: Callable[..., Plugins], body: str, said: str) -> None:
    """What a plugin was to clean does not slip in when the plugin fails: the record is refused and the plugin named."""
    plugins = load(door=HEAD + f"@hookimpl\ndef prepare_record(record):\n    {body}\n")
    assert plugins.prepare("shop", [a_record()])[0] == said


def test_a_plugins_sentence_is_said_by_its_own_catalogue(tmp_path: Path) -> None:
    """In the report of an import, in the reader's language; what Labeler says itself no plugin says otherwise."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "everything.py").write_text(EVERYTHING, encoding="utf-8")
    (tmp_path / "reviews.csv").write_text("id,text\n1,협찬 받은 후기예요\n2,달고 맛있어요\n", encoding="utf-8")
    with Instance(tmp_path) as instance:
        assert instance.plugins.disabled == []
        project = instance.create_project("shop")
        import_id = queue_import(
            instance.store, project, tmp_path / "reviews.csv", "reviews.csv", ImportOptions(), None
        )
        Worker(instance).run_until_idle()
        app = create_app(instance)
        report = Report.of(instance.store.records.get_import(project, import_id))
        assert [str(reason) for _, _, reason in report.lines] == ["'협찬' is advertising"]
        with app.test_request_context(), force_locale("ko"):
            assert [words.translated(reason) for _, _, reason in report.lines] == ["광고예요: '협찬'"]
            assert words.translated("Projects") == "프로젝트"


def test_prepare_record_that_hangs_stops_the_import(load: Callable[..., Plugins]) -> None:
    """A hook that does not come back is not waited for row by row: the import ends and names the plugin."""
    source = "import threading\n" + HEAD + "@hookimpl\ndef prepare_record(record):\n    threading.Event().wait(5)\n"
    with pytest.raises(PluginError, match=r"instance/plugins/door\.py hangs in prepare_record"):
        load(patience=0.2, door=source).prepare("shop", [a_record()])[0]


def test_hooks_may_leave_arguments_out(load: Callable[..., Plugins]) -> None:
    """A hook names only the arguments it wants."""
    plugins = load(door=HEAD + "@hookimpl\ndef prepare_record():\n    return 'closed'\n")
    assert plugins.prepare("shop", [a_record()])[0] == "closed"


def test_commands_reach_the_command_line(tmp_path: Path) -> None:
    """A plugin's command runs like a built-in one, with the instance from the option or from the environment."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "everything.py").write_text(EVERYTHING, encoding="utf-8")
    found = shell("hello", LABELER_INSTANCE=str(tmp_path))
    assert (found.returncode, found.stdout) == (0, "안녕하세요\n")
    (tmp_path / "plugins" / "broken.py").write_text(
        HEAD + "@hookimpl\ndef register_commands(cli):\n    raise OSError('broken')\n"
    )
    found = shell("hello", LABELER_INSTANCE=str(tmp_path))
    assert (found.returncode, found.stdout) == (0, "안녕하세요\n")
    assert found.stderr == "Plugin instance/plugins/broken.py is disabled: OSError: broken (broken.py, line 4)\n"


def test_commands_of_plugins_stand_in_the_help(tmp_path: Path) -> None:
    """``labeler --help`` lists them beside its own."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "everything.py").write_text(EVERYTHING, encoding="utf-8")
    assert re.search("^  hello$", shell("--help", LABELER_INSTANCE=str(tmp_path)).stdout, re.MULTILINE)
    assert "hello" not in shell("--help", LABELER_INSTANCE=str(tmp_path / "nowhere")).stdout


def test_labels_of_a_plugin_that_is_gone_wait_for_it(tmp_path: Path) -> None:
    """Settings are saved as before while it is away, and its task is there again with it."""
    (tmp_path / "plugins").mkdir()
    file = tmp_path / "plugins" / "spam.py"
    file.write_text(SPAM)
    with Instance(tmp_path) as instance:
        id_ = instance.create_project("shop", "ko", {"tasks": ["sentiment", "spam"]})
    file.rename(tmp_path / "spam.away")
    with Instance(tmp_path) as instance:
        instance.change_project(id_, {"tasks": ["spam", "sentiment", "emotion"], "blind_share": 0.1})
        assert list(instance.tasks_of(instance.store.projects.get(id_))) == ["sentiment", "emotion"]
        with pytest.raises(NotFound, match="No task 'ham'"):
            instance.change_project(id_, {"tasks": ["spam", "ham"]})
    (tmp_path / "spam.away").rename(file)
    with Instance(tmp_path) as instance:
        assert list(instance.tasks_of(instance.store.projects.get(id_))) == ["spam", "sentiment", "emotion"]


@pytest.mark.slow
def test_server_starts_again_when_a_plugin_changes(tmp_path: Path) -> None:
    """``serve --reload-plugins``: what is written into the folder of plugins works without a hand on the server."""
    folder = tmp_path / "instance" / "plugins"
    (folder / "dial").mkdir(parents=True)
    with serving(tmp_path, "serve", "--reload-plugins", "--no-worker") as server:
        assert server.process.stdout is not None
        for file in (folder / "dial" / "dial.html", folder / "broken.py"):
            file.write_text("1 / 0\n")
            lines = [server.process.stdout.readline() for _ in range(2)]
            assert lines[0] == "Plugins have changed; starting again.\n"
            assert lines[1].startswith("Labeler is ready.")
        assert "broken.py is disabled: ZeroDivisionError" in server.log.read_text()
        assert server.end()[0] == 0


def test_commands_are_found_in_the_instance_that_is_named(tmp_path: Path) -> None:
    """--instance is respected although the option is read only after the commands are known."""
    (tmp_path / "plugins").mkdir()
    source = EVERYTHING.replace("    def hello():", "    @click.option('--instance')\n    def hello(instance):")
    (tmp_path / "plugins" / "everything.py").write_text(source, encoding="utf-8")
    assert shell("hello", "--instance", str(tmp_path)).stdout == "안녕하세요\n"
    assert shell("hello", f"--instance={tmp_path}").stdout == "안녕하세요\n"


def shell(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from labeler.cli import main; main()", *words],
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


def test_blueprint_of_a_plugin_is_closed_to_strangers(tmp_path: Path) -> None:
    """A plugin's page is served, and denied to everybody who is not signed in."""
    from labeler.app import create_app

    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "everything.py").write_text(EVERYTHING, encoding="utf-8")
    with Instance(tmp_path) as instance:
        app = create_app(instance)
        assert "/extra" in [rule.rule for rule in app.url_map.iter_rules()]
        answer = app.test_client().get("/extra")
        assert answer.status_code in (302, 303, 401)
        assert b"extra page" not in answer.data


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("['page']", "register_blueprints must return a list of Blueprint objects"),
        ("[Blueprint('desk', __name__)]", "there is already a blueprint 'desk'"),
    ],
)
def test_bad_blueprint_disables_only_its_plugin(load: Callable[..., Plugins], returned: str, said: str) -> None:
    """A plugin whose blueprint cannot be had is disabled by name; the page starts without it."""
    source = HEAD + f"from flask import Blueprint\n@hookimpl\ndef register_blueprints():\n    return {returned}\n"
    plugins = load(broken=source)
    assert plugins.blueprints(taken=("desk",)) == []
    assert reason(plugins, "broken") == said


@pytest.mark.parametrize(
    ("method", "state", "said"),
    [
        ("def build_prompt(self, record, examples, style)", "paused", "The task odd cannot build a prompt: KeyError"),
        ("def parse_completion(self, completion, record)", "finished", "The parser of the task odd failed: KeyError"),
    ],
)
def test_task_that_raises_while_it_works_is_named(tmp_path: Path, method: str, state: str, said: str) -> None:
    """A prompt that cannot be built pauses the run; a parser that fails leaves the paid answer to a person, once."""
    (tmp_path / "plugins").mkdir()
    source = (
        f"{HEAD}class Odd(Task):\n    {method}:\n        raise KeyError('odd')\n"
        "@hookimpl\ndef register_tasks():\n    return [Odd('odd', Choice(Label('a'), Label('b')))]\n"
    )
    (tmp_path / "plugins" / "odd.py").write_text(source)
    with Instance(tmp_path) as instance, FakeOpenAI() as server:
        instance.change_settings({"openai_base_url": server.base_url, "openai_model": "gpt-4o-mini"})
        project_id = instance.create_project("shop", "ko", {"tasks": ["odd"]})
        file = tmp_path / "reviews.csv"
        file.write_text("id,text\n1,맛있어요\n", encoding="utf-8")
        instance.importer(instance.store.projects.get(project_id)).run(file, ImportOptions())
        run_id = runs.start(instance.store, project_id, "odd", [1], {"backend": "openai"})
        assert Worker(instance).move_run(run_id) == state
        run = instance.store.ledger.run(run_id)
        failures = [recalled(row["message"]) for row in instance.store.ledger.failures(run_id)]
        assert said in " ".join([recalled(run["message"]) or "", *failures])
        assert len(server.requests) == run["calls"] == (0 if state == "paused" else 1)


# Every hook


def test_every_hook_is_used_by_a_test_plugin(load: Callable[..., Plugins]) -> None:
    """The plugin of these tests uses every hook of the contract, and everything it registers is there."""
    plugins = load(everything=EVERYTHING)
    assert set(re.findall(r"@hookimpl\ndef (\w+)", EVERYTHING)) == set(HOOKS)
    assert plugins.disabled == []
    kinds = {"tasks": "spam", "backends": "parrot", "embedders": "twin", "retrievers": "blind", "exporters": "loud"}
    more = {"importers": ".colons", "executors": "mine", "widgets": "dial", "settings": "everything_key"}
    for kind, name in {**kinds, **more}.items():
        assert name in getattr(plugins, kind)
    assert [blueprint.name for blueprint in plugins.blueprints()] == ["extra"]


def test_reader_of_a_plugin_reads_its_suffix(tmp_path: Path) -> None:
    """A file whose suffix a plugin registered is read by the plugin."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "everything.py").write_text(EVERYTHING, encoding="utf-8")
    file = tmp_path / "reviews.colons"
    file.write_text("a::달콤하고 맛있어요\nb::너무 짜요\n", encoding="utf-8")
    with Instance(tmp_path) as instance:
        project = instance.store.projects.get(instance.create_project("shop"))
        report = instance.importer(project).run(file, ImportOptions(text="text", id="id"))
        assert report.added == 2
        assert instance.store.records.by_key(project["id"], "b").text == "너무 짜요"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_every_hook_is_documented_with_its_exact_signature(name: str) -> None:
    """docs/plugins.md has a heading for each hook that is its signature, and the first sentence of its docstring."""
    signature = f"{name}{inspect.signature(HOOKS[name])}".replace("'", "")
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    assert f"### `{signature}`\n" in text
    first = (inspect.getdoc(HOOKS[name]) or "").split("\n")[0]
    assert first in text.split(f"### `{signature}`\n")[1].split("###")[0]


def test_documented_hooks_are_the_hooks() -> None:
    """docs/plugins.md documents no hook that does not exist."""
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### `(\w+)\(", text, re.MULTILINE)) == sorted(HOOKS)


@pytest.mark.parametrize("page", ["README.md", "docs/plugins.md"])
def test_printed_plugin_is_the_one_that_ships(page: str) -> None:
    """The sentiment plugin on the page is plugins/sentiment.py, character for character."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    printed = [block for block in blocks if block.startswith('"""Sentiment')]
    assert printed == [(ROOT / "plugins" / "sentiment.py").read_text(encoding="utf-8")]


def test_sentiment_plugin_fits_on_one_screen() -> None:
    """The sentiment plugin stays at about 25 lines: the first thing people read must stay small."""
    assert len((ROOT / "plugins" / "sentiment.py").read_text(encoding="utf-8").splitlines()) <= 25


def test_exported_names_exist() -> None:
    """Everything in ``labeler.__all__`` can be imported by a plugin."""
    assert [name for name in labeler.__all__ if not hasattr(labeler, name)] == []


def test_plugin_folder_holds_nothing_but_tasks() -> None:
    """plugins/ is packaged as labeler_plugins, and each of its modules is a plugin with a task of its name."""
    names = [path.stem for path in Path(next(iter(labeler_plugins.__path__))).glob("*.py") if path.stem != "__init__"]
    assert sorted(names) == sorted(TASKS)


def test_blueprint_hook_is_typed() -> None:
    """The contract's types can be resolved by tools."""
    from typing import get_type_hints

    import click

    from labeler.backends.base import BackendFactory
    from labeler.task import Task

    names: dict[str, Any] = {
        "Setting": labeler.Setting,
        "Record": Record,
        "click": click,
        "Blueprint": Blueprint,
        "BackendFactory": BackendFactory,
        "Task": Task,
        "Path": Path,
    }
    for spec in HOOKS.values():
        assert "return" in get_type_hints(spec, vars(hookspecs) | names)
