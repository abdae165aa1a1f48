"""A label kind of one's own, as docs/plugins.md prints it: one class, one folder, and the whole way of a record."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import CHROMIUM, opened_browser, served, session_cookie
from fake_openai import Answer, FakeOpenAI, completion
from helpers import ROOT, until
from test_desk_browser import Desk

import labeler
from labeler import accounts
from labeler.annotation.decisions import Decision
from labeler.app import create_app
from labeler.export import export_task
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance
from labeler.labels import KINDS
from labeler.plugins import load_plugins
from labeler.prelabel import runs
from labeler.worker import Worker

TASK = """

@hookimpl
def register_tasks():
    from labeler import Task

    return [Task("size", Amount(), {"en": "Size"}, {"en": "How much is it?"})]
"""
ROWS = [("a", "사과 500 g 왔어요", "500 g"), ("b", "사과 500 g 이에요", ""), ("c", "사과 500 g 맞아요", "half a pound")]


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8").split("## A label schema of your own")[1]
    return re.findall(rf"```{language}\n(.*?)```", text.split("\n## ")[0], re.DOTALL)


def written(folder: Path) -> Path:
    """Write the plugin of the page into an instance; return the folder of its widget."""
    widget = folder / "plugins" / "amount"
    widget.mkdir(parents=True)
    (widget.parent / "amount.py").write_text("".join(blocks("python")) + TASK, encoding="utf-8")
    (widget / "amount.html").write_text("".join(blocks(r"html\+jinja")), encoding="utf-8")
    (widget / "amount.js").write_text("".join(blocks("js")), encoding="utf-8")
    return widget


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    folder = tmp_path / "instance"
    written(folder)
    with Instance(folder) as opened:
        assert opened.plugins.disabled == []
        yield opened


@pytest.fixture
def project(instance: Instance, tmp_path: Path) -> Any:
    """A project of the task with three records, of which the first came with a label."""
    found = instance.store.projects.get(instance.create_project("shop", "en", {"tasks": ["size"], "blind_share": 0.0}))
    file = tmp_path / "reviews.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("id", "text", "size"), *ROWS])
    report = instance.importer(found).run(file, ImportOptions(text="text", id="id", labels={"size": "size"}))
    assert (report.added, report.labels) == (3, 1)
    assert [line[:2] for line in report.lines] == [(4, "size")]
    return found


def record(instance: Instance, project: Any, key: str) -> Any:
    return instance.store.records.by_key(project["id"], key)


def test_its_cells_are_imported_and_its_neighbours_suggest(instance: Instance, project: Any) -> None:
    """What the schema cannot read is left out with the row; what it can is what similar records are suggested."""
    task = instance.task_of(project, "size")
    (suggestion,) = instance.free_suggester(project, task, None).now([record(instance, project, "b")])
    assert (suggestion.value, suggestion.backend, suggestion.score) == ({"number": 500, "unit": "g"}, "nearest", 1.0)


@pytest.mark.parametrize(
    ("said", "value"), [({"number": 2, "unit": "ml"}, {"number": 2, "unit": "ml"}), ({"number": 2, "unit": "l"}, None)]
)
def test_its_answers_are_read_by_its_own_parser(instance: Instance, project: Any, said: Any, value: Any) -> None:
    """A model is asked by the kind's JSON schema; an answer that it refuses is a failure that a person sees."""
    content = json.dumps({"size": said})
    with FakeOpenAI() as server:
        server.behave(lambda request, _: Answer(200, completion(content, request)))
        instance.change_settings({"openai_base_url": server.base_url, "openai_model": "gpt-4o-mini"})
        ids = [record(instance, project, "b").id]
        run_id = runs.start(instance.store, project["id"], "size", ids, {"backend": "openai"})
        until(lambda: Worker(instance).move_run(run_id) == "finished")
        sent = server.requests[0].json["response_format"]["json_schema"]["schema"]
        assert sent["properties"]["size"]["properties"]["unit"] == {"type": "string", "enum": ["g", "ml"]}
    (found,) = instance.store.suggestions.of_record(ids[0], "size")
    assert found.value == value and (found.failure is None) == (value is not None)


def test_its_agreement_is_what_decisions_are_compared_by(instance: Instance, project: Any) -> None:
    task, b = instance.task_of(project, "size"), record(instance, project, "b")
    (suggestion,) = instance.free_suggester(project, task, None).now([b])
    kim = accounts.add_reviewer(instance.store, "kim", None)
    version = instance.store.work.get(b.id, "size")["version"]
    value = {"number": 500, "unit": "ml"}
    instance.decisions(project, task).decide(kim, Decision(b.id, "approve", "a-request", version, value, suggestion.id))
    row = instance.store.annotations.current(b.id, "size")
    assert (row["how"], row["agreement"]) == ("corrected", 0.0)


def test_its_exports_are_imported_again_as_they_were(instance: Instance, project: Any, tmp_path: Path) -> None:
    """Beside each value stands what it is in words, by the kind's own ``render``."""
    task = instance.task_of(project, "size")
    made = export_task(instance.store, project, task, "csv", tmp_path / "made", formats=instance.plugins.exporters)
    file = Path(made.folder) / "train.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (json.loads(row["value"]), row["rendered"]) == ({"number": 500, "unit": "g"}, "500 g")
    again = instance.store.projects.get(instance.create_project("again", "en", {"tasks": ["size"]}))
    instance.importer(again).run(file, ImportOptions(text="text", id="key", labels={"size": "value"}))
    kept = instance.store.annotations.current(record(instance, again, "a").id, "size")
    assert json.loads(kept["value"]) == {"number": 500, "unit": "g"}


# The desk


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)")


@pytest.fixture
def desk(instance: Instance, project: Any) -> Iterator[Desk]:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
    kim = accounts.add_reviewer(instance.store, "kim", None, accounts.ADMIN)
    app = create_app(instance)
    with opened_browser() as browser, served(app) as address:
        context = browser.new_context(locale="en-US")
        context.add_cookies([session_cookie(app, kim) | {"url": address}])
        yield Desk(instance, project["id"], [kim], context.new_page(), address, "size")


@pytest.mark.browser
@needs_browser
def test_its_form_takes_suggestions_digits_and_approvals(desk: Desk) -> None:
    """The neighbours' amount stands in the form and beside it in words; a digit goes on with it, Enter approves."""
    desk.go("size")
    assert desk.page.input_value("[data-form] input") == "500" and desk.state() == "suggested"
    assert "500 g" in desk.page.inner_text("[data-slot=side]")
    desk.press("Digit0")
    assert desk.state() == "corrected"
    first = desk.decide("Enter")
    assert desk.value(first) == {"number": 5000, "unit": "g"}
    desk.until(lambda: "5000 g" in desk.page.inner_text("[data-strip]"))


@pytest.mark.browser
@needs_browser
def test_a_form_that_fails_says_so(desk: Desk, instance: Instance) -> None:
    """A script with an error is no dead desk: the page says what is wrong."""
    (instance.folder / "plugins" / "amount" / "amount.js").write_text(
        "export function mount() { throw Error('ouch'); }"
    )
    desk.page.goto(f"{desk.address}/projects/{desk.project}/label/size")
    desk.until(lambda: "The form of this task does not work: ouch" in desk.page.inner_text("[data-banners]"))


def test_its_script_changes_the_address_of_all_scripts(instance: Instance) -> None:
    """Browsers keep scripts for good, so another script of a plugin has another address, as ours have."""
    app = create_app(instance)
    with app.test_client().get(f"{app.static_url_path}/desk/widgets/amount.js") as served_:
        assert served_.status_code == 200 and "immutable" in served_.headers["Cache-Control"]
    with (instance.folder / "plugins" / "amount" / "amount.js").open("a") as script:
        script.write("\n")
    assert create_app(instance).static_url_path != app.static_url_path


@pytest.mark.parametrize("name", ["amount.html", "amount.js"])
def test_a_widget_without_its_files_is_named(tmp_path: Path, name: str) -> None:
    (written(tmp_path) / name).unlink()
    (disabled,) = load_plugins(labeler.built_in, tmp_path / "plugins", entry_points=False).disabled  # type: ignore[attr-defined]
    assert disabled.reason == f"the widget 'amount' has no {name} in {tmp_path}/plugins/amount"


def test_a_task_without_its_widget_is_named(tmp_path: Path) -> None:
    """A task that nobody could label is refused when the program starts, not when a reviewer opens the desk."""
    (written(tmp_path).parent / "amount.py").write_text(
        ("".join(blocks("python")) + TASK).replace("@hookimpl\ndef register_widgets", "def widgets")
    )
    (disabled,) = load_plugins(labeler.built_in, tmp_path / "plugins", entry_points=False).disabled  # type: ignore[attr-defined]
    assert disabled.reason == "the task 'size' has the widget 'amount', which no plugin before it registers"


def test_a_template_that_others_can_write_is_not_rendered(tmp_path: Path) -> None:
    """Templates are programs: as with the plugin itself, whoever can write them could run anything."""
    (written(tmp_path) / "amount.html").chmod(0o666)
    (disabled,) = load_plugins(labeler.built_in, tmp_path / "plugins", entry_points=False).disabled  # type: ignore[attr-defined]
    assert disabled.reason.startswith("others can write ") and disabled.reason.endswith("chmod go-w "
                                       f"{tmp_path}/plugins/amount/amount.html")  # fmt: skip


# Where kinds are known


def test_no_module_but_their_own_asks_for_a_kind() -> None:
    """Outside of labels/ no code asks whether a schema is of a kind: what differs is an attribute or method of it."""
    names = {kind.__name__ for kind in KINDS}
    asked = []
    for path in (ROOT / "labeler").rglob("*.py"):
        if path.parent.name == "labels":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
                asked += [(path, n.id) for n in ast.walk(node.args[1]) if isinstance(n, ast.Name) and n.id in names]
            if isinstance(node, ast.Compare) and "schema.kind" in ast.unparse(node):
                asked.append((path, ast.unparse(node)))
    assert asked == []


def test_no_page_or_script_names_a_kind() -> None:
    """Templates and scripts of the desk leave kinds to their widgets."""
    pages = list((ROOT / "templates").glob("*.html"))
    scripts = list((ROOT / "static" / "desk").glob("*.js"))
    asks = re.compile(r"schema\.(?:kind|widget) ?(?:===?|in )|\.kind\b.*schema")
    assert [path.name for path in (*pages, *scripts) if asks.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_each_kind_has_its_templates_and_its_script(kind: Any) -> None:
    folder = ROOT / "templates" / "labels"
    for part in ("", ".value", ".keys"):
        assert (folder / f"{kind.widget}{part}.html").is_file()
    assert (ROOT / "static" / "desk" / "widgets" / f"{kind.widget}.js").is_file()
