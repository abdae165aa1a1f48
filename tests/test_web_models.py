"""The model side of the pages: every setting as a field, tests of models, runs, prices, budgets and shutdowns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from fake_openai import FakeOpenAI, no_logprobs
from flask import Flask
from flask.testing import FlaskClient
from test_web_pages import HOSTILE, Page, approve_one_more, paused_run, send

from labeler import settings as tables
from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.prelabel.calibration import Calibration
from labeler.prompts.styles import STYLES
from labeler.records import RateLimits, Suggestion, made_in
from labeler.settings import Setting
from labeler.store import Store
from labeler.store.calibrations import Calibrations
from labeler.web import words
from labeler.web.setting_fields import GROUPS, RUN, TABLES, grouped
from labeler.worker import Worker

MODEL = "gpt-4o-mini"
CLOSED = "http://127.0.0.1:9/v1"
# Of these the page offers what is loaded: another choice than the last one of the list would change the test.
ONE_OF = {"tasks": "sentiment", "joint": "emotion", "embedder": "e5", "shared_tasks": "sentiment"}


class Fields(HTMLParser):
    """The fields of a page's forms, as a browser would send them: by name, the values in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.values: dict[str, list[str]] = {}
        self.choices: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._hidden = 0
        self._area: str | None = None
        self._select = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        name = found.get("name", "")
        self._hidden += tag == "template"
        if self._hidden:
            return
        if tag == "select":
            self._select = name
            self.choices[name] = []
        elif tag == "option" and self._select:
            value = found.get("value", "")
            self.choices[self._select].append(value)
            if "selected" in found or self._select not in self.values:
                self.values[self._select] = [value]
        elif tag == "textarea":
            self._area = name
            self.values.setdefault(name, []).append("")
        elif tag == "input" and name:
            self._input(name, found)

    def _input(self, name: str, found: dict[str, str]) -> None:
        taken = self.values.setdefault(name, [])
        if found.get("type") in ("checkbox", "radio"):
            self.choices.setdefault(name, []).append(found.get("value", "on"))
            if "checked" not in found:
                return
        taken.append(found.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag == "template"
        if tag == "textarea":
            self._area = None
        elif tag == "select":
            self._select = ""

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self.values[self._area][-1] += data


def page_of(table: str, project: int) -> str:
    return {
        "project": f"/projects/{project}/settings",
        "task": f"/projects/{project}/settings/sentiment",
        "instance": "/settings",
    }[table]


# Settings that are refused without another one.
NEEDED: dict[str, dict[str, Any]] = {"oidc_new_accounts": {"oidc_allowed": ["@example.com"]}}


def changed(setting: Setting, fields: Fields) -> tuple[dict[str, list[str]], Any]:
    """Return the fields with one setting changed by a person, and the value that must be stored then."""
    name = setting.name
    form = {key: list(values) for key, values in fields.values.items()}
    if setting.kind == "labels":
        form["label.title_ko"][0] = "바뀐 이름"
        return form, None
    if setting.kind == "map":
        form[f"{name}.ko"] = ["바뀐 글"]
        return form, {"ko": "바뀐 글"}
    if setting.kind == "bool":
        form[name] = ["0"] if setting.default else ["0", "1"]
        return form, not setting.default
    if setting.kind == "list":
        lines = [ONE_OF[name]] if name in ONE_OF else [*setting.choices[:2]] or ["첫째", "둘째"]
        boxes = name in ONE_OF or name.endswith("_columns") or bool(setting.choices)
        form[name] = ["", *lines] if boxes else ["\n".join(lines)]
        return form, lines
    chosen = ONE_OF.get(name) or next((c for c in reversed(fields.choices.get(name, [])) if c != setting.default), "")
    if not chosen:
        kinds = {"int": str(int((setting.low or 0) + 1)), "float": "0.5", "text": "http://127.0.0.1:9/v1"}
        chosen = kinds[setting.kind]
    form[name] = [chosen]
    return form, setting.read(chosen)


@pytest.mark.parametrize(
    ("table", "setting"),
    [pytest.param(table, s, id=f"{table}-{s.name}") for table, settings in TABLES.items() for s in settings],
)
def test_every_setting_is_a_field_on_its_page_and_is_saved(
    client: FlaskClient, instance: Instance, store: Store, project: int, table: str, setting: Setting
) -> None:
    """A setting of the three tables stands on its page by its name, and what is entered there is what is stored."""
    path = page_of(table, project)
    needed = NEEDED.get(setting.name, {})
    instance.change_settings(needed)
    fields = Fields(client.get(path).text)
    names = {setting.name, f"{setting.name}.ko", "label.name" if setting.kind == "labels" else setting.name}
    assert names & fields.values.keys()
    form, wanted = changed(setting, fields)
    assert send(client, path, **form | {"csrf_token": form["csrf_token"][0]}).status_code == 303
    stored = {
        "project": lambda: store.projects.get(project)["settings"],
        "task": lambda: store.projects.task_settings(project, "sentiment")[1],
        "instance": lambda: instance.settings,
    }[table]()
    # The tasks of the project were named when it was made.
    assert set(stored) - {"tasks", *needed} == {setting.name} - {"tasks"}
    if setting.kind == "labels":
        assert stored["labels"][0]["title"]["ko"] == "바뀐 이름"
    else:
        assert stored[setting.name] == wanted


@pytest.mark.parametrize("table", TABLES)
def test_a_page_sent_back_unchanged_changes_nothing(
    client: FlaskClient, instance: Instance, store: Store, project: int, table: str
) -> None:
    """What a browser sends of an untouched form is what stands there: no box, list or number turns into another."""
    given: dict[str, Any] = {"stop": ["\n", "###"], "persona": {"en": "A <tester>"}, "calibrate": False, "top_p": 0.25}
    instance.change_task(project, "sentiment", given)
    instance.change_project(project, {"refresh": False, "budget_day": 2.5})
    instance.change_settings({"requests_per_minute": 60, "openai_api_key": "sk-x"})

    def stored() -> list[Any]:
        return [
            store.projects.get(project)["settings"],
            store.projects.task_settings(project, "sentiment"),
            instance.settings,
        ]

    before = stored()
    path = page_of(table, project)
    form = Fields(client.get(path).text).values
    assert send(client, path, **form | {"csrf_token": form["csrf_token"][0]}).status_code == 303
    after = stored()
    after[0].pop("tasks", None)
    before[0].pop("tasks", None)
    assert after == before


def test_a_field_that_is_not_in_the_form_keeps_its_value(client: FlaskClient, store: Store, project: int) -> None:
    """A form with one field changes one setting."""
    path = page_of("project", project)
    assert send(client, path, refresh="0").status_code == 303
    assert send(client, path, blind_share="0.5").status_code == 303
    stored = store.projects.get(project)["settings"]
    assert (stored["refresh"], stored["blind_share"]) == (False, 0.5)


def test_a_setting_without_a_group_is_shown_all_the_same() -> None:
    """A new setting of the table appears by itself, in a group of its own at the end."""
    new = replace(tables.TASK[0], name="brand_new", kind="text")
    groups = grouped((*tables.TASK, new), GROUPS["task"])
    assert [setting.name for setting in groups[-1][1]] == ["brand_new"]
    assert [s.name for _, members in groups[:-1] for s in members] != []


def test_no_shipped_setting_is_without_group_title_and_help() -> None:
    """Every setting has its place, its title and its explanation in the catalogue."""
    for table, settings in TABLES.items():
        named = {name for group in GROUPS[table] for name in group.names}
        assert named == {setting.name for setting in settings}
        for setting in settings:
            assert setting.title
            assert setting.help


def test_choices_of_settings_have_words() -> None:
    """What a table allows is said in words; only the ways of prompting bring their own, in both languages."""
    for setting in (*tables.PROJECT, *tables.TASK):
        for choice in setting.choices:
            if setting.name == "style":
                assert {"ko", "en"} <= STYLES[choice].title.keys() & STYLES[choice].description.keys()
            else:
                assert f"{setting.name}.{choice}" in words.WORDS or choice in words.WORDS, (setting.name, choice)


def test_each_page_speaks_the_language_of_its_reader(client: FlaskClient, project: int) -> None:
    """Titles of settings are looked up for every request, not once for all readers."""
    path = page_of("task", project)
    assert "검수자와 모델이 같은" in client.get(path).text
    send(client, "/language", language="en")
    page = client.get(path).text
    assert "Reviewers and the model read the same guidelines" in page
    assert "검수자와 모델이 같은" not in page
    assert STYLES["self-consistency"].description["en"] in page
    assert "arXiv:2203.11171" in page


@pytest.mark.parametrize(
    ("name", "value"), [("top_p", "3"), ("samples", "1"), ("max_tries", "many"), ("cascade_score", "nan")]
)
def test_an_error_names_the_setting_and_marks_its_field(
    client: FlaskClient, store: Store, project: int, name: str, value: str
) -> None:
    """What cannot be saved is said by name, the field is marked and its group is open."""
    path = page_of("task", project)
    form = Fields(client.get(path).text).values | {name: [value]}
    answer = send(client, path, **form | {"csrf_token": form["csrf_token"][0]})
    assert answer.status_code == 400
    marked = [piece for piece in answer.text.split("<input ") if 'aria-invalid="true"' in piece.split(">")[0]]
    assert len(marked) == 1
    assert f'name="{name}"' in marked[0]
    assert f'value="{value}"' in marked[0]
    assert f"{name} " in Page(answer.text).said
    assert store.projects.task_settings(project, "sentiment") == (0, {})


def test_a_cascade_of_joint_tasks_is_refused_when_it_is_saved(client: FlaskClient, store: Store, project: int) -> None:
    """What every run would refuse is not stored."""
    answer = send(client, page_of("task", project), joint=["", "emotion"], mode="cascade")
    assert answer.status_code == 400
    assert "joint" in Page(answer.text).said
    assert store.projects.task_settings(project, "sentiment") == (0, {})


# Models


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as found:
        yield found


def test_a_test_says_what_the_model_can_and_keeps_it(
    client: FlaskClient, instance: Instance, store: Store, server: FakeOpenAI
) -> None:
    """The answer shows yes, no or unknown for each capability; the findings stand in the store and in the table."""
    server.behave(no_logprobs)
    instance.change_settings({"openai_base_url": server.base_url, "openai_model": MODEL})
    assert "아직 테스트하지 않아" in client.get("/settings").text
    said = Page(send(client, "/settings/test").text).said
    assert "JSON 스키마에 맞는 답변 예" in said
    assert "라벨 점수(로그 확률) 아니요" in said
    found = store.models.capabilities("openai", server.base_url, MODEL)
    assert found is not None
    assert (found["json_schema"], found["logprobs"]) == (True, False)
    assert "라벨 점수(로그 확률) 아니요" in Page(client.get("/settings").text).said


def test_a_test_that_fails_keeps_nothing(client: FlaskClient, instance: Instance, store: Store) -> None:
    """A server that cannot be reached is said, and nothing is recorded of its model."""
    instance.change_settings({"openai_base_url": CLOSED, "openai_model": MODEL})
    assert "127.0.0.1:9" in Page(send(client, "/settings/test").text).said
    assert store.models.all() == []


def test_only_models_that_the_settings_name_are_tested(client: FlaskClient, instance: Instance, store: Store) -> None:
    """A form cannot make the server fetch and load any model it likes, nor a backend that has none."""
    instance.change_settings({"transformers_model": "/nowhere/model"})
    refused = Page(send(client, "/settings/test", backend="transformers", model_id="evil/model").text).said
    assert "evil/model" in refused
    assert "/nowhere/model" in refused
    assert "다수결(무료) 백엔드는 테스트할 필요가" in send(client, "/settings/test", backend="nearest").text
    assert "먼저" in send(client, "/settings/test", backend="openai").text
    assert store.models.all() == []


def prices(instance: Instance, **models: dict[str, Any]) -> None:
    (instance.folder / "prices.json").write_text(json.dumps(models))


def day(days: int) -> str:
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def test_the_models_table_shows_what_is_known_and_says_what_is_not(
    client: FlaskClient, instance: Instance, store: Store, project: int
) -> None:
    """Context, prices and limits of the models that settings name; an unknown price is called unknown."""
    prices(instance, known={"context": 4096, "input": 0.5, "output": 2.0})
    instance.change_settings({"openai_base_url": CLOSED, "openai_model": "known", "transformers_model": "local/one"})
    instance.change_task(project, "sentiment", {"model_id": "stranger"})
    limits = RateLimits(requests=500, tokens=200_000)
    store.write(lambda tx: store.limits.learn(tx, f"{CLOSED} known", limits))
    send(client, "/language", language="en")
    said = Page(client.get("/settings").text).said
    assert "known OpenAI-compatible server this page 4,096 $0.5000 – $2.00 unknown" in said
    assert "500 requests 200,000 tokens" in said
    assert "stranger OpenAI-compatible server 과일 리뷰 · sentiment unknown unknown unknown unknown unknown" in said
    assert "local/one Model on this computer this page unknown no fee" in said


def test_hostile_findings_are_shown_as_text(
    client: FlaskClient, instance: Instance, store: Store, project: int
) -> None:
    """FAULTS 33: what a server or a person calls a model, a capability or a persona cannot run on the page."""
    instance.change_settings({"openai_base_url": CLOSED, "openai_model": HOSTILE})
    given = {"persona": {"ko": HOSTILE}, "answer_wording": {"en": HOSTILE}, "stop": [HOSTILE], "gguf_file": HOSTILE}
    instance.change_task(project, "sentiment", given)
    can = {HOSTILE: HOSTILE, "logprobs": HOSTILE}
    store.write(lambda tx: store.models.record(tx, "openai", CLOSED, HOSTILE, can))
    for path in ("/settings", page_of("task", project), f"/projects/{project}/runs?task=sentiment"):
        answer = client.get(path)
        page = Page(answer.text)
        assert page.active == [], path
        assert "<script>alert(1)</script>" in page.said
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")


def test_a_model_that_is_shut_down_soon_is_warned_of_where_it_is_chosen(
    client: FlaskClient, instance: Instance, store: Store, project: int
) -> None:
    """From 90 days before, the instance, the task, the form of runs and the run say until when the model answers."""
    instance.change_settings({"openai_base_url": CLOSED, "openai_model": "leaving"})
    send(client, "/language", language="en")
    ids = runs.select(store, project, "sentiment", None, True)
    settings = {"backend": "openai", "model_id": "leaving"}
    run_id = runs.start(store, project, "sentiment", ids, settings, None, None)
    paths = ["/settings", page_of("task", project), f"/projects/{project}/runs?task=sentiment"]
    paths.append(f"/projects/{project}/runs/{run_id}")
    for days, sentence in (
        (91, ""),
        (90, f"leaving will be shut down on {day(90)} (90 days left); choose another model"),
        (-1, f"leaving was shut down on {day(-1)}; choose another model"),
    ):
        prices(instance, leaving={"shutdown": day(days)})
        for path in paths:
            said = Page(client.get(path).text).said
            assert ("choose another model" in said) is bool(sentence), path
            assert sentence in said, path


# Runs


@pytest.mark.parametrize("setting", RUN, ids=lambda setting: setting.name)
def test_every_setting_of_a_run_lands_in_the_run(
    client: FlaskClient, instance: Instance, store: Store, project: int, setting: Setting
) -> None:
    """The form of runs has the setting by its name, empty as the task has it; what is entered is the run's own."""
    instance.change_settings({"openai_base_url": CLOSED, "openai_model": MODEL})
    path = f"/projects/{project}/runs"
    fields = Fields(client.get(f"{path}?task=sentiment").text)
    assert setting.name in fields.values
    form, wanted = changed(setting, fields)
    form = {name: values for name, values in form.items() if name != "csrf_token"}
    form |= {"backend": ["transformers" if setting.name == "top_k" else "openai"], "task": ["sentiment"]}
    if setting.name == "top_k":
        form["model_id"] = ["a/model"]
    answer = send(client, path, **form, action="start")
    assert answer.status_code == 303, Page(answer.text).said
    own = store.ledger.runs(project)[0]["settings"]
    assert own[setting.name] == wanted
    assert set(own) - {"backend", "model_id"} <= {setting.name}


def test_the_estimate_stands_before_the_start_with_all_its_numbers(
    client: FlaskClient, instance: Instance, store: Store, project: int
) -> None:
    """Records, calls, tokens, cost and time of a run; the time is unknown until a call of the model was made."""
    instance.change_settings({"openai_base_url": CLOSED, "openai_model": MODEL})
    send(client, "/language", language="en")
    form = {"task": "sentiment", "backend": "openai", "style": "self-consistency", "samples": "4"}
    answer = send(client, f"/projects/{project}/runs", **form, action="estimate")
    said = Page(answer.text).said
    assert "This run would label 5 records" in said
    assert "Calls, at most 20" in said
    assert "Time unknown" in said
    assert "about $0.00" in said
    assert answer.text.index('id="estimate"') < answer.text.index('value="start"')
    assert 'value="4"' in answer.text, "what was chosen for the estimate is still chosen for the start"
    assert store.ledger.runs(project) == []


def test_budgets_are_shown_with_what_is_spent_of_them(
    client: FlaskClient, instance: Instance, store: Store, project: int
) -> None:
    """The form of runs shows the budgets of project and day; without one it shows none."""
    path = f"/projects/{project}/runs?task=sentiment"
    send(client, "/language", language="en")
    store.write(lambda tx: store.ledger.spend(tx, project, 1.5))
    yesterday = {"p": project, "day": day(-1), "spent": 2.0}
    store.write(lambda tx: tx.run("INSERT INTO spending (project_id, day, spent) VALUES (:p, :day, :spent)", yesterday))
    assert "Budget of a day" not in Page(client.get(path).text).said
    instance.change_project(project, {"budget_project": 20, "budget_day": 4})
    said = Page(client.get(path).text).said
    assert "Budget of the project $3.50 / $20.00" in said
    assert "Budget of a day $1.50 / $4.00" in said
    assert "Spent so far: $3.50, of it today: $1.50" in Page(client.get(page_of("project", project)).text).said


def test_local_weights_are_an_admins_to_start(
    as_person: Callable[[str], FlaskClient], instance: Instance, store: Store, project: int
) -> None:
    """They cost no fee, but hold the machine for hours: who may start runs may only estimate such a one."""
    instance.change_project(project, {"reviewers_may": ["runs"]})
    instance.change_settings({"transformers_model": "some/model"})
    form = {"task": "sentiment", "backend": "transformers"}
    path = f"/projects/{project}/runs"
    assert send(as_person("reviewer"), path, **form, action="start").status_code == 403
    assert send(as_person("reviewer"), path, **form, action="estimate").status_code == 200
    assert store.ledger.runs(project) == []
    assert send(as_person("admin"), path, **form, action="start").status_code == 303


def test_a_run_says_how_its_suggestions_were_made(
    client: FlaskClient, instance: Instance, store: Store, project: int
) -> None:
    """Once it has ended, the page counts the steps that made the suggestions, in words."""
    run_id = paused_run(instance, project)
    notes = ("cascade: free", "cascade: free", "cascade: fixed", None, HOSTILE)

    def work(tx: Any) -> None:
        for record_id, note in enumerate(notes, 1):
            how = {"made": made_in(note), "run_id": run_id}
            made = Suggestion(record_id, "sentiment", "1", "openai", MODEL, "positive", None, **how)
            store.suggestions.add(tx, project, made)
        other = Suggestion(1, "sentiment", "1", "openai", MODEL, "positive", None, made=("joint",), run_id=run_id + 1)
        store.suggestions.add(tx, project, other)

    store.write(work)
    send(client, "/language", language="en")
    page = Page(client.get(f"/projects/{project}/runs/{run_id}").text)
    assert "cascade: the free backends agreed 2" in page.said
    assert "cascade: confirmed with fixed examples 1" in page.said
    assert "without a note 1" in page.said
    assert "asked together" not in page.said
    assert page.active == []


def test_a_run_says_whether_its_scores_are_calibrated(
    client: FlaskClient, instance: Instance, store: Store, project: int
) -> None:
    """Used or not, the page names the agreement before and after, and on how many records it was checked."""
    run_id = paused_run(instance, project)
    path = f"/projects/{project}/runs/{run_id}"
    send(client, "/language", language="en")
    assert "cross-validated" not in client.get(path).text
    (record_id, *_) = [row["record_id"] for row in store.db.all("SELECT record_id FROM run_items")]
    scores = {"positive": 0.9}
    made = Suggestion(record_id, "sentiment", "1", "openai", "m", "positive", None, scores=scores, run_id=run_id)
    store.write(lambda tx: store.suggestions.add(tx, project, made))
    fitted = Calibration("choice", trained_on=120, accuracy_before=0.56, accuracy_after=0.91, used=True)
    room = Calibrations(store.db)
    for used, sentence in ((True, "56% before, 91% after"), (False, "is not used")):
        row = replace(fitted, used=used).to_json()
        store.write(lambda tx, row=row: room.save(tx, project, "sentiment", "openai", "m", row))  # type: ignore[misc]
        said = Page(client.get(path).text).said
        assert sentence in said
        assert "120 records" in said
    store.write(lambda tx: room.save(tx, project, "sentiment", "openai", "m", {"kind": "nonsense"}))
    assert client.get(path).status_code == 200


def test_a_run_lists_its_batches(client: FlaskClient, instance: Instance, store: Store, project: int) -> None:
    """A run that travels in batches shows them with their state and what the provider said."""
    run_id = paused_run(instance, project)
    row = store.write(lambda tx: store.batches.create(tx, run_id, "s"))
    store.write(lambda tx: store.batches.sent(tx, row["id"], f"batch_{HOSTILE}"))
    store.write(lambda tx: store.batches.polled(tx, row["id"], HOSTILE))
    page = Page(client.get(f"/projects/{project}/runs/{run_id}").text)
    assert "배치" in page.said
    assert "보냄" in page.said
    assert page.said.count("<script>alert(1)</script>") == 2
    assert page.active == []


def test_a_paid_run_shows_its_settings_in_words(client: FlaskClient, instance: Instance, project: int) -> None:
    """A run that was started with settings of its own names them as the form does."""
    instance.change_settings({"openai_base_url": CLOSED, "openai_model": MODEL})
    form = {
        "task": "sentiment",
        "backend": "openai",
        "style": "plan-and-solve",
        "stop": "a\nb",
        "joint": ["", "emotion"],
    }
    shown = send(client, f"/projects/{project}/runs", **form, action="start").location
    said = Page(client.get(shown).text).said
    assert STYLES["plan-and-solve"].title["ko"] in said
    assert "stop a, b" in said
    assert "joint emotion" in said


def test_a_free_run_still_costs_nothing(
    client: FlaskClient, app: Flask, instance: Instance, project: int, people: dict[str, int]
) -> None:
    """The free backends need none of the settings of models."""
    for _ in range(2):
        approve_one_more(instance, project, people["admin"])
    form = {"task": "sentiment", "backend": "nearest", "limit": "1"}
    shown = send(client, f"/projects/{project}/runs", **form, action="start").location
    Worker(instance).run_until_idle()
    said = Page(client.get(shown).text).said
    assert "$0" in said
