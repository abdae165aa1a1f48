"""The numbers of a project: one page over all tasks, plots and tables as files, and a report to send on."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from flask.testing import FlaskClient
from test_cli import Shell
from test_numbers import shop as shop

from labeler import accounts
from labeler.evaluation.numbers import numbers_of
from labeler.evaluation.progress import progress_of
from labeler.instance import Instance

SVG = "{http://www.w3.org/2000/svg}"


class Read(HTMLParser):
    """What a file asks of others, or does by itself: addresses, scripts, handlers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.asks, self.said = set[str](), list[str](), ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.asks += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        self.asks += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.said += data


def rows_of(client: FlaskClient, path: str) -> list[list[str]]:
    answer = client.get(path)
    assert answer.mimetype == "text/csv"
    return list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"))))


# All tasks


def test_the_page_of_a_project_leads_to_each_of_its_tasks(instance: Instance, client: FlaskClient, shop: int) -> None:
    """What it says of a task is what the task's own page says."""
    text = client.get(f"/projects/{shop}/numbers").text
    assert client.get(f"/projects/{shop}").text.count(f'href="/projects/{shop}/numbers"') == 1
    for name in ("sentiment", "emotion"):
        part = text.split(f'href="/projects/{shop}/numbers/{name}"')[1].split("</article>")[0]
        said = re.sub(r"<[^>]+>", "", part)
        whole = numbers_of(instance.store, shop, instance.project_task(instance.store.projects.get(shop), name))
        side = whole.progress.blind
        assert side is not None
        assert f"n = {side.n}" in said
        assert f"{whole.progress.done} / {whole.progress.total}" in said
        assert "<svg" in part


def test_the_table_of_the_tasks_leaves_as_a_file(instance: Instance, client: FlaskClient, shop: int) -> None:
    """A row for each task, with how far it came and how far people agree."""
    _, *rows = rows_of(client, f"/projects/{shop}/numbers/tasks.csv")
    assert len(rows) == 2
    for row, name in zip(rows, ("sentiment", "emotion"), strict=True):
        one = progress_of(instance.store, shop, name)
        assert [int(n) for n in row[1:4]] == [one.states[state] for state in ("approved", "rejected", "pending")]
        assert one.assisted is not None
        assert float(row[8]) == pytest.approx(one.assisted.agreement.value, abs=1e-6)
        assert int(row[11]) == one.assisted.n


def test_agreement_is_that_of_each_model_together(instance: Instance, shop: int) -> None:
    """What is said of each model adds up to what is said of all."""
    one = progress_of(instance.store, shop, "sentiment")
    assert [model.name for model in one.models] == ["m"]
    assert one.assisted is not None and one.blind is not None
    assert one.models[0].n == one.assisted.n + one.blind.n == 19


# By person


def test_only_admins_see_others(
    instance: Instance, as_person: Callable[[str], FlaskClient], people: dict[str, int], shop: int
) -> None:
    """An admin sees everybody by name, a reviewer what they did themselves, on the page and in the file."""
    accounts.set_member(instance.store, shop, people["reviewer"], "reviewer", people["admin"])
    instance.change_project(shop, {"reviewers_may": ["numbers"]})
    path = f"/projects/{shop}/numbers/sentiment"
    assert [row[0] for row in rows_of(as_person("admin"), f"{path}/people.csv")[1:]] == ["admin"]
    assert rows_of(as_person("reviewer"), f"{path}/people.csv")[1:] == []
    assert "by:admin" in as_person("admin").get(path).text.replace("%3A", ":")
    assert "by:admin" not in as_person("reviewer").get(path).text.replace("%3A", ":")
    sql = "UPDATE annotations SET reviewer_id = :who WHERE id % 2"
    instance.store.write(lambda tx: tx.run(sql, {"who": people["reviewer"]}))
    assert [row[0] for row in rows_of(as_person("admin"), f"{path}/people.csv")[1:]] == ["admin", "reviewer"]
    assert [row[0] for row in rows_of(as_person("reviewer"), f"{path}/people.csv")[1:]] == ["reviewer"]


# Files


@pytest.mark.parametrize("plot", ["days", "weeks"])
def test_a_plot_leaves_as_a_picture_that_needs_nothing(client: FlaskClient, shop: int, plot: str) -> None:
    """It is well-formed, has its colors, title and legend in it, and asks for nothing."""
    answer = client.get(f"/projects/{shop}/numbers/sentiment/{plot}.svg")
    assert answer.mimetype == "image/svg+xml"
    assert "attachment" in answer.headers["Content-Disposition"]
    root = ElementTree.fromstring(answer.text)
    assert root.tag == f"{SVG}svg"
    assert "var(" not in answer.text and "url(" not in answer.text and "href" not in answer.text
    assert len([one for one in root.iter(f"{SVG}title") if one.text]) == 1
    assert len(list(root.iter(f"{SVG}text"))) > 4
    assert ".arm-0" in (root.findtext(f"{SVG}style") or "")


def test_there_is_no_picture_of_what_is_not_drawn(client: FlaskClient, shop: int) -> None:
    """No replay was made: there is no learning curve, and the page says how to get one."""
    assert client.get(f"/projects/{shop}/numbers/sentiment/learning.svg").status_code == 404
    text = client.get(f"/projects/{shop}/numbers/sentiment").text
    assert f"/projects/{shop}/replays?task=sentiment" in text
    assert "/learning.svg" not in text


# The report


def test_the_report_needs_nothing_and_does_nothing(client: FlaskClient, shop: int) -> None:
    """No script, no address, no handler: it looks the same wherever it is opened."""
    answer = client.get(f"/projects/{shop}/numbers/report.html")
    assert (answer.mimetype, "attachment" in answer.headers["Content-Disposition"]) == ("text/html", True)
    read = Read(answer.text)
    assert read.asks == []
    assert not {"script", "link", "img", "iframe", "form"} & read.tags
    assert {"svg", "table", "style"} <= read.tags
    assert "url(" not in answer.text and "@import" not in answer.text


def test_the_report_says_what_it_is_about(instance: Instance, client: FlaskClient, shop: int) -> None:
    """Project, day, versions of guidelines and labels, models, and the figures of the pages; nobody's name."""
    instance.change_task(shop, "sentiment", {"guidelines": {"en": "Is the customer happy?"}})
    said = Read(client.get(f"/projects/{shop}/numbers/report.html").text).said
    task = instance.project_task(instance.store.projects.get(shop), "sentiment")
    one = progress_of(instance.store, shop, "sentiment")
    assert one.gap is not None and one.assisted is not None
    for part in ("shop", "UTC", task.version, "m fake", f"n = {one.assisted.n}", f"{100 * one.gap.value:+.1f}"):
        assert part in re.sub(r"\s+", " ", said), part
    assert "admin" not in said


def test_identities_within_the_report_are_used_once(client: FlaskClient, shop: int) -> None:
    """The plots of several tasks stand in one file: what describes one describes no other."""
    text = client.get(f"/projects/{shop}/numbers/report.html").text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 4
    assert {one for pair in re.findall(r'aria-labelledby="([^"]+)"', text) for one in pair.split()} <= set(ids)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project with one labeled review."""
    monkeypatch.delenv("LABELER_INSTANCE", raising=False)
    made = Shell(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "달아요", "label": "positive"}\n', encoding="utf-8")
    made.ok("import", str(tmp_path / "a.jsonl"), "--project", "가게", "--label", "sentiment=label")
    return made


def test_a_command_writes_the_report_and_never_over_a_file(shell: Any, tmp_path: Path) -> None:
    """In the language of the project, or in the one that was asked for."""
    shell.ok("report", "가게", "--output", str(tmp_path / "ko.html"))
    shell.ok("report", "가게", "--output", str(tmp_path / "en.html"), "--language", "en")
    korean, english = ((tmp_path / name).read_text(encoding="utf-8") for name in ("ko.html", "en.html"))
    assert '<html lang="ko">' in korean and "읽는 방법" in korean and "가게" in korean
    assert '<html lang="en">' in english and "How to read it" in english
    assert "exists already" in shell.fails("report", "가게", "--output", str(tmp_path / "ko.html"))
    assert (tmp_path / "ko.html").read_text(encoding="utf-8") == korean
