"""What the pages show and do: hostile text, secrets, languages, and the work of each screen."""

from __future__ import annotations

import gettext
import html
import io
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from babel.messages.mofile import read_mo
from catalogue import COMPILED, catalogue, texts
from conftest import PASSWORD
from flask import Flask
from flask.testing import FlaskClient
from helpers import left_training
from screens import acted
from test_web_access import FORMS, address, approve_one, token_of

import labeler
from labeler import accounts
from labeler.evaluation import replay
from labeler.export import export_task
from labeler.ingest.options import ImportOptions
from labeler.ingest.service import queue_import
from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.sentence import Sentence
from labeler.store import NewRecord, Store
from labeler.worker import Worker

HOSTILE = '<script>alert(1)</script>"\'><img src=x onerror=alert(2)>{{7*191}}</textarea><a href="javascript:alert(3)">'
KEY = "sk-planted-5f2c9a7741"
ROOT = Path(labeler.__file__).parent.parent
VOID = {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr", "rect", "path", "circle"}


class Page(HTMLParser):
    """A parsed page: its words as people read them, and everything in it that could run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.active: list[str] = []
        self.fields: dict[str, str] = {}
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in VOID:
            self._inside.append(tag)
        if tag in ("style", "iframe", "object", "embed", "base"):
            self.active.append(f"<{tag}>")
        if tag == "script" and not (found.get("src") or "").startswith("/static/"):
            self.active.append("inline script")
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.active.append(f"{tag}.{name}")
            if name in ("href", "src", "action", "formaction") and not re.match(r"/(?!/)|#", value or "/"):
                self.active.append(f"{tag}.{name}={value}")
        self.words += [value or "" for name, value in attrs if name in ("value", "title", "placeholder", "aria-label")]

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def said(self) -> str:
        return " ".join("".join(f" {word}" for word in self.words).split())


def send(client: FlaskClient, path: str, **fields: Any) -> Any:
    """POST a form with the token of the page."""
    return client.post(path, data={"csrf_token": token_of(client, "/account"), **fields})


def every_page(app: Flask, values: dict[str, Any]) -> Iterator[str]:
    """Yield the address of every page that can be asked for with GET."""
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()) and rule.endpoint not in ("static", "exports.download", "imports.report"):
            yield address(app, rule.endpoint, values)[1]
    yield f"/projects/{values['project_id']}/records?q=alert"
    yield f"/projects/{values['project_id']}/label/sentiment?record={values['record_id']}"
    yield f"/welcome?token={values['task']}"
    yield "/nothing"


@pytest.fixture
def hostile(instance: Instance, store: Store, people: dict[str, int]) -> dict[str, Any]:
    """A project in which everything that people can name has a hostile name."""
    name = HOSTILE[:80]
    project_id = instance.create_project(name, "ko", None, people["admin"])
    other = accounts.add_reviewer(store, HOSTILE[:60], PASSWORD)
    accounts.set_member(store, project_id, other, "reviewer", people["admin"])
    rows = [NewRecord(f"{HOSTILE}{n}", f"{HOSTILE} {n}", HOSTILE, {HOSTILE: HOSTILE}) for n in range(3)]
    store.write(lambda tx: store.records.add(tx, project_id, rows, ["sentiment"]))
    label = {"title": {"ko": HOSTILE, "en": HOSTILE}, "definition": {"ko": HOSTILE}, "color": "#112233"}
    labels = [{"name": "positive", **label}, {"name": HOSTILE, **label}]
    instance.change_task(
        project_id, "sentiment", {"labels": labels, "guidelines": {"ko": HOSTILE}, "model_id": HOSTILE}
    )
    annotation_id = approve_one(instance, project_id, people["admin"])
    upload = "0123456789abcdef" * 2 + ".csv"
    folder = instance.folder / "uploads" / str(project_id)
    folder.mkdir(parents=True)
    quoted = HOSTILE.replace('"', '""')
    (folder / upload).write_text(f'text,"{quoted}"\n"{quoted}",a\n"","b"\n', encoding="utf-8")
    (folder / f"{upload}.name").write_text(HOSTILE, encoding="utf-8")
    (folder / "second.csv").write_bytes((folder / upload).read_bytes())
    import_id = queue_import(store, project_id, folder / "second.csv", HOSTILE, ImportOptions(), people["admin"])
    Worker(instance).run_until_idle()
    ids = runs.select(store, project_id, "sentiment", None, True)
    run_id = runs.start(store, project_id, "sentiment", ids, {"backend": "nearest", "model_id": HOSTILE}, None, other)
    store.write(lambda tx: store.ledger.set_run(tx, run_id, "paused", HOSTILE))
    project = store.projects.get(project_id)
    sentiment = instance.task_of(project, "sentiment")
    arms = replay.arms_of(instance, project, sentiment, {"backend": ["nearest"]})
    replay_id = replay.start(instance, project, sentiment, arms, None, None, other)
    replay.walk(instance, replay_id)
    export = export_task(
        store,
        project,
        sentiment,
        "openai",
        instance.folder / "exports" / str(project_id) / "first",
        formats=instance.plugins.exporters,
    )
    left_training(instance.folder, project_id, "tuned", HOSTILE)
    return {
        "training_name": "tuned", "sheet": "labels", "plot": "days",
        "project_id": project_id, "task": "sentiment", "reviewer_id": other, "upload": upload, "import_id": import_id,
        "run_id": run_id, "export_id": export.id, "name": "manifest.json", "annotation_id": annotation_id,
        "record_id": 1, "suggestion_id": 1, "replay_id": replay_id,
        "act_id": acted(instance, project, "state:approved", other),
    }  # fmt: skip


@pytest.mark.parametrize("language", ["ko", "en"])
def test_hostile_text_is_shown_as_text_on_every_page(
    app: Flask, client: FlaskClient, hostile: dict[str, Any], language: str
) -> None:
    """Whatever people or files are called, no page gets a script, a handler, a style or a template from it."""
    send(client, "/language", language=language)
    seen = ""
    for path in every_page(app, hostile):
        answer = client.get(path)
        if answer.mimetype != "text/html":
            continue
        page = Page(answer.text)
        # A file that people take along brings its style.
        styles = ["<style>"] if "Content-Disposition" in answer.headers else []
        assert page.active == styles, path
        assert "1337" not in re.findall(r"\b1337\b", answer.text), path
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        seen += page.said
    for piece in ("<script>alert(1)</script>", "onerror=alert(2)", "{{7*191}}", "javascript:alert(3)"):
        assert seen.count(piece) > 10


def test_hostile_form_input_comes_back_as_text(client: FlaskClient, project: int) -> None:
    """A form that is shown again with what was typed escapes it too."""
    answers = [
        send(client, "/projects/new", name=HOSTILE * 2, language="ko", tasks="sentiment"),
        send(client, "/people/accounts", name=HOSTILE * 2, role=HOSTILE),
        send(client, "/sign-in", name=HOSTILE, password=HOSTILE),
        send(client, f"/projects/{project}/runs", task="sentiment", k=HOSTILE[:40], backend=HOSTILE[:80]),
        send(client, f"/projects/{project}/export", task="sentiment", format=HOSTILE[:80], language=HOSTILE),
        send(client, f"/projects/{project}/settings", tasks=HOSTILE, embedder=HOSTILE, order=HOSTILE),
        send(client, f"/projects/{project}/settings/sentiment", **{"guidelines.ko": HOSTILE, "k": "x" + HOSTILE}),
        send(client, "/settings", openai_base_url=HOSTILE, openai_model=HOSTILE),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500, answer.request.path
        assert Page(answer.text).active == [], answer.request.path


def test_the_key_is_never_shown_or_logged(
    app: Flask,
    instance: Instance,
    client: FlaskClient,
    hostile: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stored API key appears in no page, no answer to a test, no database and no log."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    caplog.set_level(logging.DEBUG)
    closed = "http://127.0.0.1:9/v1"
    assert send(client, "/settings", openai_base_url=closed, openai_api_key=KEY, openai_model="m").status_code == 303
    assert instance.settings["openai_api_key"] == KEY
    pages = [client.get(path).text for path in every_page(app, hostile)]
    pages.append(send(client, "/settings/test").text)
    pages.append(send(client, "/settings", openai_base_url="ftp://x", openai_api_key=KEY, openai_model="m").text)
    pages.append(send(client, f"/projects/{hostile['project_id']}/runs", task="sentiment", backend="openai").text)
    assert "설정됨" in client.get("/settings").text
    assert not [page for page in pages if KEY in page]
    assert KEY not in caplog.text
    assert KEY.encode() not in instance.store.path.read_bytes()
    assert (instance.folder / "settings.json").stat().st_mode & 0o077 == 0


def test_a_saved_key_stays_until_it_is_replaced_or_forgotten(client: FlaskClient, instance: Instance) -> None:
    """An empty key field changes nothing; the box that says so removes the key."""
    send(client, "/settings", openai_api_key=KEY, openai_model="m")
    send(client, "/settings", openai_model="other")
    assert instance.settings["openai_api_key"] == KEY
    send(client, "/settings", openai_model="other", forget="openai_api_key")
    assert "openai_api_key" not in instance.settings


@pytest.mark.parametrize("url", ["ftp://x", "file:///etc/passwd", "javascript:alert(1)", "http://user:pw@x/v1", "x"])
def test_a_base_url_must_be_http(client: FlaskClient, instance: Instance, url: str) -> None:
    """FAULTS 36: Only http and https addresses without a password are stored."""
    assert send(client, "/settings", openai_base_url=url).status_code == 400
    assert instance.settings == {}


# Languages


def test_every_text_of_the_pages_has_a_korean_translation() -> None:
    """The catalogue holds what templates and views mark, translated, and nothing that is gone."""
    known = {message.id: message.string for message in catalogue() if message.id}
    wanted = texts()
    assert len(wanted) > 1500
    assert sorted(wanted - known.keys()) == []
    assert sorted(known.keys() - wanted) == []
    assert [text for text, korean in known.items() if not korean] == []


def test_translations_keep_what_is_filled_in() -> None:
    """A translation has the same %(names)s and {names} as its text, each of them, and no other % that would break."""
    for message in catalogue():
        if message.id:
            holes = re.compile(r"%\((\w+)\)([rs])|(\{\w+\})")
            named = {name: "x" for name, *_ in holes.findall(message.id) if name}
            assert sorted(set(holes.findall(message.string))) == sorted(set(holes.findall(message.id))), message.id
            assert not named or message.string % named


def test_the_compiled_catalogue_says_what_the_written_one_says() -> None:
    """messages.mo holds the texts of messages.po and no others, and gettext finds each; the bytes are Babel's own."""
    data = COMPILED.read_bytes()
    written = {message.id: message.string for message in catalogue() if message.id}
    assert {message.id: message.string for message in read_mo(io.BytesIO(data)) if message.id} == written
    found = gettext.GNUTranslations(io.BytesIO(data))
    assert [text for text, korean in written.items() if found.gettext(text) != korean] == []


def test_pages_speak_korean_and_english(client: FlaskClient, app: Flask, store: Store, people: dict[str, int]) -> None:
    """Korean is the default, a browser may ask for English, and a choice is kept with the account."""
    assert "프로젝트" in client.get("/").text
    assert 'lang="en"' in app.test_client().get("/sign-in", headers={"Accept-Language": "en-US,en"}).text
    assert send(client, "/language", language="en", next="/people").location == "/people"
    assert "New project" in client.get("/projects/new").text
    person = store.people.get(people["admin"])
    assert person is not None
    assert person["language"] == "en"
    assert send(client, "/language", language="xx").status_code == 400


def test_errors_of_the_services_are_said_in_korean(client: FlaskClient, instance: Instance) -> None:
    """A sentence that a service raises is translated with what it names."""
    instance.create_project("딸기", "ko", {"tasks": ["sentiment"]})
    answer = send(client, "/projects/new", name="딸기", language="ko", tasks="sentiment")
    assert answer.status_code == 400
    assert "같은 이름의 프로젝트가 이미 있어요: " in answer.text


# Projects


def test_an_admin_without_projects_is_told_the_first_step(client: FlaskClient) -> None:
    """The empty list leads to a new project."""
    text = client.get("/").text
    assert "프로젝트로 시작하세요" in text
    assert 'href="/projects/new"' in text


def test_a_project_is_made_with_tasks_and_a_file(client: FlaskClient, store: Store) -> None:
    """One form makes the project and goes on to the preview of the file."""
    file = (io.BytesIO("리뷰,상품\n사과가 달아요,사과\n".encode("cp949")), "리뷰.csv")
    form = {"name": "새 과일", "language": "ko", "tasks": ["sentiment", "keywords"], "file": file}
    answer = send(client, "/projects/new", **form)
    assert re.fullmatch(r"/projects/\d+/import/\w+\.csv/preview", answer.location)
    project = store.projects.named("새 과일")
    assert project["settings"]["tasks"] == ["sentiment", "keywords"]
    page = Page(client.get(answer.location).text).said
    assert "리뷰.csv" in page
    assert "cp949" in page
    assert "사과가 달아요" in page


def test_reviewers_see_their_projects_and_admins_all(as_person: Any, instance: Instance, project: int) -> None:
    """The list shows what a person is a member of, or everything to an admin."""
    instance.create_project("비밀 프로젝트", "ko", {"tasks": ["sentiment"]})
    assert "비밀 프로젝트" in as_person("admin").get("/").text
    text = as_person("reviewer").get("/").text
    assert "과일 리뷰" in text
    assert "비밀 프로젝트" not in text
    assert "과일 리뷰" not in as_person("stranger").get("/").text


def test_the_overview_counts_what_was_decided(
    client: FlaskClient, instance: Instance, project: int, people: dict[str, int]
) -> None:
    """Progress, ways of labeling and duplicates stand on the overview, and each task leads to its desk."""
    approve_one(instance, project, people["admin"])
    page = Page(client.get(f"/projects/{project}").text).said
    assert "승인 1" in page
    assert "대기 4" in page
    assert "직접 라벨링 1" in page
    assert f'href="/projects/{project}/label/sentiment"' in client.get(f"/projects/{project}").text


def test_search_finds_parts_of_korean_words_and_marks_them(client: FlaskClient, project: int) -> None:
    """Two syllables inside a word are found, marked, and lead to the desk at that record."""
    text = client.get(f"/projects/{project}/records?q=배송").text
    assert "<mark>배송</mark>이 너무 늦었어요" in text
    assert f"/projects/{project}/label/sentiment?record=2" in text
    assert "사과가" not in text
    assert "이 검색식에 맞는 레코드가 없어요" in client.get(f"/projects/{project}/records?q=자동차").text


def test_search_goes_on_where_the_page_ended(client: FlaskClient, store: Store, project: int) -> None:
    """Fifty records a page, newest first, without a gap or a repeat."""
    rows = [NewRecord(f"n{n}", f"당도 높은 귤 {n}번") for n in range(120)]
    store.write(lambda tx: store.records.add(tx, project, rows, ["sentiment"]))
    path, seen = f"/projects/{project}/records?q=당도", []
    while path:
        text = client.get(path).text
        seen += [int(n) for n in re.findall(r"귤 (\d+)번", text)]
        more = re.search(r'href="([^"]*after=\d+)"', text)
        path = more[1].replace("&amp;", "&") if more else ""
    assert seen == list(range(119, -1, -1))


def through(client: FlaskClient, path: str, way: str) -> tuple[list[list[int]], str]:
    """Follow the links ``after`` or ``before``; return the numbers of the reviews on each page, and the last path."""
    seen = []
    while True:
        text = client.get(path).text
        seen.append([int(n) for n in re.findall(r"귤 (\d+)번", text)])
        more = re.search(rf'href="([^"]*{way}=\d+)"', text)
        if not more:
            return seen, path
        path = html.unescape(more[1])


@pytest.mark.parametrize("query", ["", "q=당도"])
def test_all_records_are_listed_newest_first_there_and_back(
    client: FlaskClient, store: Store, project: int, query: str
) -> None:
    """With or without a word: older pages to the end, newer ones back to the top, each record once each way."""
    rows = [NewRecord(f"n{n}", f"당도 높은 귤 {n}번") for n in range(120)]
    store.write(lambda tx: store.records.add(tx, project, rows, ["sentiment"]))
    seen, last = through(client, f"/projects/{project}/records?{query}", "after")
    assert [len(page) for page in seen] == [50, 50, 20]
    assert [n for page in seen for n in page] == list(range(119, -1, -1))
    back, top = through(client, last, "before")
    assert back == [seen[2], seen[1], seen[0]]
    store.write(lambda tx: store.records.add(tx, project, [NewRecord("new", "당도 낮은 귤 999번")], []))
    assert through(client, top, "before")[0][-1][:2] == [999, 119]


def test_a_rejected_record_is_shown_as_rejected_in_the_list_and_on_the_overview(
    client: FlaskClient, project: int
) -> None:
    path = f"/projects/{project}/label/sentiment/api/decide"
    decision = {"record_id": 2, "action": "reject", "request_key": "a-key-of-mine", "version": 0}
    assert client.post(path, json=decision, headers={"X-CSRFToken": token_of(client, "/account")}).status_code == 200
    text = client.get(f"/projects/{project}/records").text
    assert re.search(r'class="chip rejected" href="[^"]*record=2" title="제외" aria-label="[^"]*: 제외"', text)
    assert "제외 1" in Page(client.get(f"/projects/{project}").text).said


def test_the_list_says_how_each_task_stands(client: FlaskClient, store: Store, project: int) -> None:
    """Each record has a chip a task with its state, which leads to the desk; a page beyond the end says so."""
    path = f"/projects/{project}/label/sentiment/api/decide"
    decision = {"record_id": 2, "action": "approve", "request_key": "a-key-of-mine", "version": 0, "value": "positive"}
    token = {"X-CSRFToken": token_of(client, "/account")}
    assert client.post(path, json=decision, headers=token).status_code == 200
    text = client.get(f"/projects/{project}/records").text
    assert re.search(rf'class="chip approved" href="/projects/{project}/label/sentiment\?record=2"', text)
    assert re.search(rf'class="chip pending" href="/projects/{project}/label/emotion\?record=2"', text)
    beyond = client.get(f"/projects/{project}/records?after=1").text
    assert "더 오래된 레코드가 없어요" in beyond and "다음 페이지</a>" not in beyond
    for wrong in ("before=x", "after=0", f"before={'9' * 30}", "after=nan~3", "sort=best", "column=secret"):
        assert client.get(f"/projects/{project}/records?{wrong}").status_code == 404


def test_invisible_characters_of_a_review_are_seen(client: FlaskClient, store: Store, project: int) -> None:
    """A bidirectional override in a text is shown by its name."""
    row = NewRecord("odd", "숨은 \u202e글자")
    store.write(lambda tx: store.records.add(tx, project, [row], ["sentiment"]))
    assert "U+202E" in client.get(f"/projects/{project}/records?q=숨은").text


# People


def test_a_new_account_gets_a_link_that_is_shown_once(
    client: FlaskClient, app: Flask, store: Store, project: int
) -> None:
    """The link stands on the page that answers the form, works, and stands on no page after it."""
    answer = send(client, "/people/accounts", name="김새내", role="reviewer", project=project)
    link = re.search(r'value="http://localhost(/welcome\?token=[\w-]+)"', answer.text)
    assert link
    token = link[1].split("=")[1]
    assert token not in client.get("/people").text
    newcomer = app.test_client()
    form = {"token": token, "csrf_token": token_of(newcomer)}
    assert newcomer.post("/welcome", data=form).location == "/account"
    assert newcomer.get(f"/projects/{project}").status_code == 200
    assert [row["name"] for row in store.projects.members(project)] == ["admin", "reviewer", "김새내"]


def test_admins_cannot_shut_themselves_out(client: FlaskClient, store: Store, people: dict[str, int]) -> None:
    """Nobody closes or degrades their own account; another's can be closed and opened."""
    assert send(client, f"/people/{people['admin']}", role="reviewer").status_code == 400
    assert send(client, f"/people/{people['admin']}", disabled="1").status_code == 400
    assert send(client, f"/people/{people['stranger']}", disabled="1").status_code == 303
    assert [row["disabled"] for row in store.people.all() if row["name"] == "stranger"] == [1]


def test_members_are_added_and_removed(client: FlaskClient, store: Store, project: int, people: dict[str, int]) -> None:
    """A role makes an account a member, an empty one removes it."""
    form = {"project": project, "reviewer": people["stranger"]}
    assert send(client, "/people/members", **form, role="admin").status_code == 303
    assert store.projects.member_role(project, people["stranger"]) == "admin"
    assert send(client, "/people/members", **form, role="").status_code == 303
    assert store.projects.member_role(project, people["stranger"]) is None
    assert send(client, "/people/members", **form, role="emperor").status_code == 400


# Import


def upload(client: FlaskClient, project: int, content: bytes, name: str = "리뷰.csv") -> str:
    answer = send(client, f"/projects/{project}/import", file=(io.BytesIO(content), name))
    assert answer.status_code == 303
    return str(answer.location)


def test_a_file_is_looked_at_mapped_imported_and_reported(
    client: FlaskClient, instance: Instance, store: Store, project: int
) -> None:
    """The whole way of a file: preview, mapping, progress, report by row, and the report as a table."""
    rows = ["번호,후기,상품,판정", "a1,단맛이 좋아요,귤,긍정", "a2,,귤,", "a3,=무른 것이 많아요,귤,최고"]
    preview = upload(client, project, "\n".join(rows).encode("cp949"))
    assert '<option value="후기" selected>' in client.get(preview).text
    form = {"text": "후기", "id": "번호", "group": "상품", "label.sentiment": "판정", "header": "1"}
    shown = send(client, preview, **form).location
    assert 'hx-trigger="every 1s"' in client.get(shown).text
    Worker(instance).run_until_idle()
    page = client.get(shown + "/progress").text
    assert "hx-trigger" not in page
    assert "본문이 비어 있어요" in page
    assert "라벨이 빠졌어요" in page
    record = store.records.by_key(project, "a1")
    assert record is not None
    assert (record.group, record.text) == ("귤", "단맛이 좋아요")
    assert store.work.counts(project, "sentiment")["approved"] == 1
    report = client.get(shown + "/report.csv")
    assert report.headers["Content-Disposition"].startswith("attachment")
    assert report.text.lstrip("\ufeff").splitlines()[0] == "row,column,reason"
    assert not list((instance.folder / "uploads").rglob("*.*"))


def test_a_choice_is_named_by_its_own_field(client: FlaskClient, project: int) -> None:
    """A queue is "random" in other words than examples are; an empty field names no model that may be gone."""
    orders = client.get(f"/projects/{project}/settings").text
    assert '<option value="random">무작위 순</option>' in orders
    retrievers = client.get(f"/projects/{project}/settings/sentiment").text
    assert re.search('<option value="random"[^>]*>무작위</option>', retrievers)
    field = re.search(r'<input name="openai_model"[^>]*>', client.get("/settings").text)
    assert field and 'placeholder=""' in field[0]


def test_a_file_is_read_again_in_another_way(client: FlaskClient, project: int) -> None:
    """Encoding and delimiter can be overridden before anything is imported."""
    preview = upload(client, project, "본문;점수\n좋아요;5\n".encode("utf-16"))
    assert "좋아요" in client.get(preview).text
    offered = dict(re.findall(r'<option value="(tab|none)">([^<]+)</option>', client.get(preview).text))
    assert offered == {"tab": "탭", "none": "없음: 열 하나"}
    page = Page(client.get(preview + "?delimiter=tab").text).said
    assert "본문;점수" in page
    broken = client.get(preview + "?encoding=nonsense")
    assert broken.status_code == 200
    assert "nonsense" in broken.text


def test_a_file_that_can_be_read_in_several_ways_is_asked_about(
    client: FlaskClient, project: int, store: Store
) -> None:
    """Each reading is shown with its rows; no option of the command line and no name of ours is in the question."""
    texts = ["배송이 빠르고 좋아요", "생각보다 양이 적어요", "다음에 또 살게요 굿"]
    preview = upload(client, project, "\n".join(texts).encode())
    page = client.get(preview).text
    said = Page(page).said
    assert "어느 것이 맞나요" in said
    assert "--" not in said
    assert said.count(texts[2]) == 2
    links = [html.unescape(link) for link in re.findall(r'href="([^"]+/preview\?[^"]+)"', page)]
    assert len(links) == 2
    chosen = next(link for link in links if "header=0" in link)
    assert '<option value="column 1" selected>' in client.get(chosen).text
    assert store.records.imports(project) == []


def test_delimiters_that_fit_alike_are_shown_with_their_rows(client: FlaskClient, project: int) -> None:
    """Each reading names its delimiter and leads to the form that is filled in that way."""
    page = client.get(upload(client, project, "id;text,rating\n1;맛있어요,5\n2;별로예요,1\n".encode())).text
    said = Page(page).said
    assert "구분자가 분명하지 않아요" in said and "구분자: ," in said and "구분자: ;" in said
    links = [html.unescape(link) for link in re.findall(r'href="([^"]+/preview\?[^"]+)"', page)]
    chosen = next(link for link in links if link.replace("%3B", ";").endswith("delimiter=;"))
    assert '<option value="text,rating"' in client.get(chosen).text


def test_columns_that_could_both_be_the_review_are_left_to_a_person(client: FlaskClient, project: int) -> None:
    """None of them is chosen beforehand."""
    rows = "".join(f"아주 길고 좋은 이야기 하나 {n},아주 길고 나쁜 이야기 하나 {n}\n" for n in range(5))
    page = client.get(upload(client, project, f"장점,단점\n{rows}".encode())).text
    assert "리뷰일 수 있는 열이 여러 개" in page
    assert '<option value="장점" selected>' not in page


def test_labels_that_a_file_seems_to_hold_are_asked_about(client: FlaskClient, project: int, store: Store) -> None:
    """The browser lets nobody import before a column is chosen, or none; none keeps the cells as metadata."""
    preview = upload(client, project, "text,결과\n맛있어요,긍정\n맛없어요,부정\n".encode())
    page = client.get(preview).text
    assert "라벨이 들어 있는 것 같아요" in page
    assert '<select name="label.sentiment" required><option value="">' in page
    send(client, preview, text="text", **{"label.sentiment": " "})
    options = json.loads(store.records.imports(project)[0]["settings"])["options"]
    assert (options["text"], options["labels"]) == ("text", {})


def test_a_refused_file_is_named_as_the_person_calls_it(client: FlaskClient, project: int) -> None:
    """Not by the name that it has with us, and in the language of the page."""
    page = Page(client.get(upload(client, project, b"%PDF-1.7", "후기.csv")).text).said
    assert "파일을 읽을 수 없어요: 후기.csv. 파일 종류: PDF 문서" in page


def test_an_import_needs_a_text_column(client: FlaskClient, project: int, store: Store) -> None:
    """Without a text column nothing is queued, and the page says so."""
    preview = upload(client, project, "text\n좋아요\n".encode())
    answer = send(client, preview, text="")
    assert answer.status_code == 400
    assert "리뷰 본문이 든 열을 선택해 주세요" in answer.text
    assert store.records.imports(project) == []


def test_a_second_click_imports_nothing_twice(client: FlaskClient, project: int, store: Store) -> None:
    """An upload goes into one import; the same form sent again finds it gone."""
    preview = upload(client, project, "text\n좋아요\n".encode())
    assert send(client, preview, text="text").status_code == 303
    assert send(client, preview, text="text").status_code == 404
    assert len(store.records.imports(project)) == 1


def test_an_id_column_can_be_declined(client: FlaskClient, instance: Instance, store: Store, project: int) -> None:
    """Where the page says that there is no id, the guess is not used all the same."""
    preview = upload(client, project, "id,text\n1,정말 좋아요\n".encode())
    send(client, preview, text="text", id="", group="")
    Worker(instance).run_until_idle()
    assert store.records.by_key(project, "1") is None
    assert store.records.counts(project)["records"] == 6


# Runs


def test_a_run_is_estimated_started_and_watched(
    client: FlaskClient, instance: Instance, store: Store, project: int, people: dict[str, int]
) -> None:
    """An estimate starts nothing; a start leads to a page that polls until the run has ended."""
    for _ in range(3):
        approve_one_more(instance, project, people["admin"])
    path = f"/projects/{project}/runs"
    form = {"task": "sentiment", "backend": "nearest", "limit": "2"}
    estimate = send(client, path, **form, action="estimate")
    assert "비용이 들지 않아요" in estimate.text
    assert store.ledger.runs(project) == []
    shown = send(client, path, **form, action="start").location
    assert 'hx-trigger="every 1s"' in client.get(shown).text
    Worker(instance).run_until_idle()
    page = client.get(shown + "/progress").text
    assert "hx-trigger" not in page
    assert "완료" in page
    run = store.ledger.runs(project)[0]
    assert (run["done"] + run["failed"], run["total"]) == (2, 2)
    assert run["settings"]["backend"] == "nearest"


def approve_one_more(instance: Instance, project_id: int, reviewer_id: int) -> None:
    from labeler.annotation.decisions import Decision

    project = instance.store.projects.get(project_id)
    task = instance.task_of(project, "sentiment")
    opened = instance.queue(project, task).next(reviewer_id)
    assert opened is not None
    key = f"request {opened.record.id}"
    decision = Decision(opened.record.id, "approve", key, opened.version, "positive")
    instance.decisions(project, task).decide(reviewer_id, decision)


def test_an_unknown_price_is_said_before_and_after(client: FlaskClient, instance: Instance, project: int) -> None:
    """A model without a price costs "unknown", never nothing."""
    instance.change_settings({"openai_base_url": "http://127.0.0.1:9/v1", "openai_model": "our-own-7b"})
    form = {"task": "sentiment", "backend": "openai", "action": "estimate"}
    assert "비용을 알 수 없어요" in send(client, f"/projects/{project}/runs", **form).text
    run_id = paused_run(instance, project, unpriced=2, calls=2)
    page = Page(client.get(f"/projects/{project}/runs/{run_id}").text).said
    assert "알 수 없음" in page
    assert "가격을 모르는 호출 2건" in page


def paused_run(instance: Instance, project: int, **counted: float) -> int:
    store = instance.store
    ids = runs.select(store, project, "sentiment", None, True)
    run_id = runs.start(store, project, "sentiment", ids, {"backend": "openai", "model_id": "m"}, 1.0, None)
    message = Sentence("The budget of %(amount)s is reached; raise it and resume", amount="$1")
    store.write(lambda tx: store.ledger.count(tx, run_id, **counted) if counted else None)
    store.write(lambda tx: store.ledger.set_run(tx, run_id, "paused", message))
    return run_id


def test_the_time_that_is_left_goes_by_what_took_time(
    client: FlaskClient, instance: Instance, store: Store, project: int
) -> None:
    """Records that people decided first, and the hours in which the run stood still, make no run look fast or slow."""
    run_id = paused_run(instance, project)
    row = {"id": run_id, "seconds": 3600.0, "now": time.time(), "long_ago": time.time() - 1e6}
    store.write(
        lambda tx: tx.run(
            """UPDATE runs SET state = 'running', created_at = :long_ago, started_at = :long_ago, seconds = :seconds,
               moving_since = :now, total = 80, done = 60, decided = 40 WHERE id = :id""",
            row,
        )
    )
    send(client, "/language", language="en")
    assert "about 60 min left" in Page(client.get(f"/projects/{project}/runs/{run_id}").text).said


def test_a_paused_run_says_why_and_goes_on_with_a_new_budget(
    client: FlaskClient, instance: Instance, store: Store, project: int
) -> None:
    """A reached budget is explained, and a higher one resumes the run; a cancelled run can be resumed as well."""
    run_id = paused_run(instance, project, calls=3, spent=1.0)
    path = f"/projects/{project}/runs/{run_id}"
    assert "예산을 다 썼어요($1)" in client.get(path).text
    assert send(client, f"{path}/resume", budget="5").status_code == 303
    run = store.ledger.run(run_id)
    assert (run["state"], run["budget"]) == ("queued", 5.0)
    assert send(client, f"{path}/cancel").status_code == 303
    assert store.ledger.run(run_id)["state"] == "cancelled"
    assert send(client, f"{path}/cancel").status_code == 409


def test_money_is_spent_by_admins_only(as_person: Any, instance: Instance, store: Store, project: int) -> None:
    """A reviewer who may start runs starts a free one and estimates a paid one, but starts or resumes no paid one."""
    instance.change_project(project, {"reviewers_may": ["runs"]})
    instance.change_settings({"openai_base_url": "http://127.0.0.1:9/v1", "openai_model": "m"})
    reviewer = as_person("reviewer")
    path = f"/projects/{project}/runs"
    assert send(reviewer, path, task="sentiment", backend="openai", action="start").status_code == 403
    assert send(reviewer, path, task="sentiment", backend="openai", action="estimate").status_code == 200
    assert store.ledger.runs(project) == []
    run_id = paused_run(instance, project)
    assert send(reviewer, f"{path}/{run_id}/resume", budget="9").status_code == 403
    assert send(reviewer, path, task="keywords", backend="nearest", action="start").status_code == 303


# Export and settings


def test_an_export_is_made_listed_and_fetched(
    client: FlaskClient, instance: Instance, project: int, people: dict[str, int]
) -> None:
    """The form writes a training set into the instance's folder, and its files can be fetched one by one."""
    path = f"/projects/{project}/export"
    nothing = send(client, path, **FORMS["exports.make"])
    assert nothing.status_code == 400
    assert "내보낼 것이 없어요" in nothing.text
    approve_one(instance, project, people["admin"])
    form = {"task": "sentiment", "format": "openai", "train": "100", "validation": "0", "test": "0"}
    assert send(client, path, **form).status_code == 303
    text = client.get(path).text
    links = re.findall(r'href="(/projects/\d+/exports/\d+/[\w.]+)"', text)
    assert [link.rsplit("/", 1)[1] for link in links] == ["train.jsonl", "records.jsonl", "manifest.json"]
    row = json.loads(client.get(links[0], buffered=True).text)
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert send(client, path, **form | {"train": "50"}).status_code == 400
    assert "채팅 템플릿이 필요해요" in send(client, path, **form | {"format": "text"}).text
    assert send(client, path, **form | {"format": "text", "template": "chatml"}).status_code == 303
    assert "본문 일부를 표시하는" in send(client, path, **form | {"format": "conll", "tokens": "characters"}).text


def test_only_an_admin_shares_records_out_anew(
    as_person: Callable[[str], FlaskClient], instance: Instance, project: int, people: dict[str, int]
) -> None:
    """A held-out record stays held out until an admin asks; prompts have the persona."""
    path, store = f"/projects/{project}/export", instance.store
    instance.change_task(project, "sentiment", {"persona": {"ko": "너는 점원이다."}})
    annotation = store.annotations.get(approve_one(instance, project, people["admin"]))
    assert annotation is not None
    store.write(lambda tx: store.splits.remember(tx, project, [(annotation["record_id"], "test")], 0))
    shares = {"train": "100", "validation": "0", "test": "0"}
    form = {"task": "sentiment", "format": "openai", "new_splits": "1"} | shares
    reviewer = as_person("reviewer")
    assert reviewer.post(path, data=form | {"csrf_token": token_of(reviewer, "/account")}).status_code == 403
    assert "new_splits" in as_person("admin").get(path).text
    assert send(as_person("admin"), path, **form).status_code == 303
    assert [row["split"] for row in store.splits.remembered(project)] == ["train"]
    folder = Path(store.exports.all(project)[0]["folder"])
    assert "너는 점원이다." in (folder / "train.jsonl").read_text(encoding="utf-8")


def task_form(client: FlaskClient, path: str) -> dict[str, Any]:
    """Return the fields of a task's form as a browser would send them back unchanged."""
    text = re.sub(r"(?s)<template.*?</template>", "", client.get(path).text)
    form: dict[str, Any] = {}
    for column in ("name", "title_ko", "title_en", "color", "parent"):
        tags = [tag for tag in re.findall(r"<input[^>]*>", text) if f'name="label.{column}"' in tag]
        form[f"label.{column}"] = [re.search(r'value="([^"]*)"', tag)[1] for tag in tags]  # type: ignore[index]
    for name, value in re.findall(r'<textarea name="([\w.]+)"[^>]*>(.*?)</textarea>', text, re.DOTALL):
        form.setdefault(name, []).append(_unescaped(value))
    for name in ("k", "max_tokens", "temperature", "concurrency"):
        found = re.search(rf'name="{name}"[^>]*value="([^"]*)"', text)
        form[name] = found[1] if found else ""
    return form


def _unescaped(text: str) -> str:
    import html

    return html.unescape(text)


def test_saving_a_task_unchanged_makes_no_version(client: FlaskClient, store: Store, project: int) -> None:
    """A form that is sent back as it came changes nothing, for every task."""
    for task in ("sentiment", "emotion", "categories", "keywords", "summary_polarity", "usage"):
        path = f"/projects/{project}/settings/{task}"
        assert send(client, path, **task_form(client, path)).status_code == 303
        assert "바뀐 내용이 없어요" in client.get(path).text
        assert store.projects.task_settings(project, task) == (0, {})


def test_a_changed_task_is_a_new_version(client: FlaskClient, instance: Instance, store: Store, project: int) -> None:
    """Guidelines, labels and numbers are stored as one version, which the task then carries in its name."""
    path = f"/projects/{project}/settings/sentiment"
    form = task_form(client, path)
    form["label.name"].append("mixed")
    form["label.title_ko"].append("복합")
    for column in ("title_en", "definition_ko", "definition_en", "parent"):
        form[f"label.{column}"].append("")
    form["label.color"].append("#123456")
    form |= {"guidelines.ko": "짧게 판단하세요.", "k": "4", "retriever": "similar", "pinned": "r1\nr2\n"}
    assert send(client, path, **form).status_code == 303
    version, settings_ = store.projects.task_settings(project, "sentiment")
    assert version == 1
    assert settings_["guidelines"] == {"ko": "짧게 판단하세요."}
    assert (settings_["k"], settings_["retriever"], settings_["pinned"]) == (4, "similar", ["r1", "r2"])
    task = instance.task_of(store.projects.get(project), "sentiment")
    assert task.version == "2.1"
    assert [label.name for label in task.schema.labels] == ["positive", "neutral", "negative", "mixed"]
    assert "v2.1" in client.get(path).text
    assert send(client, path, **task_form(client, path) | {"guidelines.ko": "짧게 판단하세요."}).status_code == 303


def test_bad_labels_are_refused_and_shown_again(client: FlaskClient, store: Store, project: int) -> None:
    """Two labels of one name, or a color that is none, keep the old version, and nothing typed is lost."""
    path = f"/projects/{project}/settings/sentiment"
    for column, value in (("name", "positive"), ("color", "red;x")):
        form = task_form(client, path)
        form[f"label.{column}"][1] = value
        form["guidelines.ko"] = "방금 적은 글"
        answer = send(client, path, **form)
        assert answer.status_code == 400
        assert "방금 적은 글" in answer.text
    assert store.projects.task_settings(project, "sentiment") == (0, {})


def test_project_settings_are_checked_and_saved(client: FlaskClient, store: Store, project: int) -> None:
    """Settings within their bounds are stored, others are refused with the bounds named."""
    path = f"/projects/{project}/settings"
    form = {"tasks": ["sentiment", "usage"], "embedder": "lexical", "blind_share": "0.2", "order": "random"}
    assert send(client, path, **form, refresh="0").status_code == 303
    stored = store.projects.get(project)["settings"]
    wanted = {"tasks": ["sentiment", "usage"], "embedder": "lexical", "blind_share": 0.2, "order": "random"}
    assert stored == {**wanted, "refresh": False}
    refused = send(client, path, **form | {"blind_share": "2"})
    assert refused.status_code == 400
    assert "0~1 사이의 값을" in refused.text
    assert send(client, path, **form | {"tasks": [""]}).status_code == 400
    assert send(client, path, **form | {"embedder": "nothing"}).status_code in (400, 404)


def test_columns_are_chosen_on_the_settings_page(client: FlaskClient, store: Store, project: int) -> None:
    """Each column stands there with values and three boxes; what is ticked is stored, also a name full of marks."""
    path, name = f"/projects/{project}/settings", f'별점 "{HOSTILE}"'
    assert "아직 열이 있는 레코드가 없어요" in client.get(path).text
    new = [NewRecord("k", "글", metadata={name: 4, "가게": HOSTILE})]
    store.write(lambda tx: store.records.add(tx, project, new, []))
    page = client.get(path)
    assert not Page(page.text).active and page.text.count('value="가게"') == 3 and " checked" not in boxes(page.text)
    chosen = {"hidden_columns": ["", name], "blind_columns": [""], "sent_columns": ["", name, "가게"]}
    assert send(client, path, **chosen).status_code == 303
    stored = store.projects.get(project)["settings"]
    assert stored["hidden_columns"] == [name] and stored["sent_columns"] == [name, "가게"]
    page = client.get(path)
    assert boxes(page.text).count(" checked") == 3 and "검수자에게는 숨긴 열이에요" in page.text
    refused = send(client, path, **chosen | {"blind_columns": ["", name]})
    assert refused.status_code == 400 and "숨긴 열은 어느 레코드에도 보이지 않으니" in refused.text
    assert send(client, path, **dict.fromkeys(chosen, "")).status_code == 303
    assert not {"hidden_columns", "sent_columns"} & set(store.projects.get(project)["settings"])


def boxes(page: str) -> str:
    """The table of columns of a settings page."""
    return page.split('<table class="who-sees">')[1].split("</table>")[0]


def test_times_name_their_zone(client: FlaskClient, store: Store, project: int) -> None:
    """The server writes a moment in UTC and says so, for readers without the page's script."""
    store.write(lambda tx: tx.run("UPDATE reviewers SET created_at = 1800000000.5"))
    expected = '<time datetime="2027-01-15T08:00:00Z">2027-01-15 08:00 UTC</time>'
    assert expected in client.get("/people").text


def test_the_settings_page_names_plugins_that_were_disabled(tmp_path: Path) -> None:
    """A broken drop-in plugin is named with its reason, escaped."""
    from conftest import enter

    from labeler.app import create_app

    folder = tmp_path / "other"
    (folder / "plugins").mkdir(parents=True)
    (folder / "plugins" / "broken.py").write_text("raise ValueError('<b>boom</b>')")
    with Instance(folder) as instance:
        app = create_app(instance)
        client = app.test_client()
        enter(client, app, accounts.add_reviewer(instance.store, "admin", None, accounts.ADMIN))
        page = client.get("/settings")
    assert "broken.py" in page.text
    assert "&lt;b&gt;boom" in page.text
