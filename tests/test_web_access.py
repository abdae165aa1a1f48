"""Who gets in, and to what: every route, sessions, sign-in, CSRF, hosts and headers."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSWORD, enter
from flask import Flask
from flask.testing import FlaskClient
from helpers import left_training
from werkzeug.test import TestResponse

from labeler import accounts
from labeler.annotation.acts import Asked
from labeler.annotation.decisions import Decision
from labeler.app import create_app
from labeler.evaluation import replay
from labeler.export import export_task
from labeler.ingest.options import ImportOptions
from labeler.ingest.service import queue_import
from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.store import Store

PEOPLE = ("anonymous", "stranger", "observer", "reviewer", "adjudicator", "project admin", "admin")
EVERYBODY = set(PEOPLE)
SIGNED_IN = EVERYBODY - {"anonymous"}
MEMBERS = {"observer", "reviewer", "adjudicator", "project admin", "admin"}
WORKERS = MEMBERS - {"observer"}
# Reviewers too, where the project gives them the right: see the test of rights.
NUMBERS = MEMBERS - {"reviewer"}
PROJECT_ADMINS = {"project admin", "admin"}
ADMINS = {"admin"}

# Every route of the page, and who may use it. A route that is not here fails the test: write down who it is for.
TABLE: dict[str, set[str]] = {
    "static": EVERYBODY,
    "signin.form": EVERYBODY,
    "signin.sign_in": EVERYBODY,
    "signin.link": EVERYBODY,
    "signin.enter_by_link": EVERYBODY,
    "signin.language": EVERYBODY,
    "company.begin": EVERYBODY,
    "company.back": EVERYBODY,
    "signin.sign_out": SIGNED_IN,
    "signin.account": SIGNED_IN,
    "signin.change_password": SIGNED_IN,
    "keys.page": SIGNED_IN,
    "keys.change": SIGNED_IN,
    "keys.preset": SIGNED_IN,
    "keys.advance": SIGNED_IN,
    "projects.index": SIGNED_IN,
    "projects.new": ADMINS,
    "projects.create": ADMINS,
    "projects.people": ADMINS,
    "audit.page": ADMINS,
    "audit.download": ADMINS,
    "projects.add_account": ADMINS,
    "projects.new_link": ADMINS,
    "projects.change_account": ADMINS,
    "projects.set_email": ADMINS,
    "projects.set_member": ADMINS,
    "projects.overview": MEMBERS,
    "numbers.tasks": NUMBERS,
    "numbers.tasks_file": NUMBERS,
    "numbers.report": NUMBERS,
    "numbers.page": NUMBERS,
    "numbers.picture": NUMBERS,
    "team.page": NUMBERS,
    "numbers.download": NUMBERS,
    "records.page": MEMBERS,
    "records.counts": MEMBERS,
    "records.keep": WORKERS,
    "records.forget": PROJECT_ADMINS,
    "records.look": PROJECT_ADMINS,
    "records.act": PROJECT_ADMINS,
    "records.show_act": MEMBERS,
    "records.act_progress": MEMBERS,
    "records.undo_act": PROJECT_ADMINS,
    "desk.page": MEMBERS,
    "desk.next_record": WORKERS,
    "desk.open_record": WORKERS,
    "desk.renew": WORKERS,
    "desk.decide": WORKERS,
    "desk.skip": WORKERS,
    "desk.undo": WORKERS,
    "desk.touch": WORKERS,
    "desk.leave": WORKERS,
    "desk.strip": MEMBERS,
    "desk.counts": MEMBERS,
    "desk.example": MEMBERS,
    "desk.moved": MEMBERS,
    "notes.page": MEMBERS,
    "notes.write": WORKERS,
    "notes.close": WORKERS,
    "compare.page": MEMBERS,
    "compare.rank": WORKERS,
    "compare.undo": WORKERS,
    "imports.form": PROJECT_ADMINS,
    "imports.upload": PROJECT_ADMINS,
    "imports.preview": PROJECT_ADMINS,
    "imports.start": PROJECT_ADMINS,
    "imports.show": PROJECT_ADMINS,
    "imports.progress": PROJECT_ADMINS,
    "imports.report": PROJECT_ADMINS,
    "runs.form": MEMBERS,
    "runs.start": PROJECT_ADMINS,
    "runs.show": MEMBERS,
    "runs.progress": MEMBERS,
    "runs.cancel": PROJECT_ADMINS,
    "runs.resume": PROJECT_ADMINS,
    "replays.form": NUMBERS,
    "replays.start": PROJECT_ADMINS,
    "replays.show": NUMBERS,
    "replays.progress": NUMBERS,
    "replays.cells": NUMBERS,
    "replays.again": PROJECT_ADMINS,
    "replays.use": PROJECT_ADMINS,
    "replays.search": PROJECT_ADMINS,
    "replays.augment": PROJECT_ADMINS,
    "replays.adopt": PROJECT_ADMINS,
    "training.form": PROJECT_ADMINS,
    "training.start": PROJECT_ADMINS,
    "training.show": PROJECT_ADMINS,
    "training.progress": PROJECT_ADMINS,
    "training.stop": PROJECT_ADMINS,
    "training.resume": PROJECT_ADMINS,
    "exports.form": PROJECT_ADMINS,
    "exports.show": PROJECT_ADMINS,
    "exports.check": PROJECT_ADMINS,
    "exports.make": PROJECT_ADMINS,
    "exports.download": PROJECT_ADMINS,
    "settings.project": PROJECT_ADMINS,
    "settings.save_project": PROJECT_ADMINS,
    "settings.task": PROJECT_ADMINS,
    "settings.save_task": PROJECT_ADMINS,
    "versions.compare": PROJECT_ADMINS,
    "removal.record": PROJECT_ADMINS,
    "removal.remove_record": PROJECT_ADMINS,
    "removal.import_": PROJECT_ADMINS,
    "removal.remove_import": PROJECT_ADMINS,
    "removal.project": PROJECT_ADMINS,
    "removal.remove_project": PROJECT_ADMINS,
    "removal.rename": PROJECT_ADMINS,
    "removal.archive": PROJECT_ADMINS,
    "removal.person": ADMINS,
    "removal.find_person": ADMINS,
    "settings.general": ADMINS,
    "settings.save_instance": ADMINS,
    "settings.test": ADMINS,
    "settings.trial": ADMINS,
}
UPLOAD = "0123456789abcdef" * 2 + ".csv"
FORMS = {
    "compare.rank": {"task": "sentiment", "record_id": "1", "request_key": "request-1", "ranked": '[["1"], ["2"]]'},
    "compare.undo": {"task": "sentiment", "ranking": "1"},
    "runs.start": {"task": "sentiment"},
    "exports.make": {"task": "sentiment", "format": "csv"},
    "exports.check": {"task": "sentiment", "format": "csv"},
    "replays.start": {"task": "sentiment", "backend": "nearest"},
    "replays.use": {"arm": "0"},
    "replays.search": {"task": "sentiment"},
    "replays.augment": {"task": "sentiment"},
    "replays.adopt": {"draft": "1"},
    "records.keep": {"name": "another", "address": "q=y"},
    "records.look": {"task": "sentiment", "kind": "reject", "scope": "all"},
    "records.act": {"task": "sentiment", "kind": "reject", "scope": "all", "q": "state:approved"},
    "signin.sign_in": {"name": "admin", "password": PASSWORD},
}


@pytest.fixture
def furnished(instance: Instance, store: Store, project: int, people: dict[str, int]) -> dict[str, Any]:
    """One of everything that an address can name, so that 404 never means "there is none"."""
    people["project admin"] = accounts.add_reviewer(store, "project admin", PASSWORD)
    accounts.set_member(store, project, people["project admin"], "admin", people["admin"])
    for role in ("adjudicator", "observer"):
        people[role] = accounts.add_reviewer(store, role, PASSWORD)
        accounts.set_member(store, project, people[role], role, people["admin"])
    folder = instance.folder / "uploads" / str(project)
    folder.mkdir(parents=True)
    (folder / UPLOAD).write_text("text\n좋아요\n", encoding="utf-8")
    (folder / f"{UPLOAD}.name").write_text("a.csv")
    import_id = queue_import(store, project, folder / UPLOAD, "a.csv", ImportOptions(), people["admin"])
    ids = runs.select(store, project, "sentiment", None, False)
    run_id = runs.start(store, project, "sentiment", ids, {"backend": "nearest"}, None, people["admin"])
    # One for each, so that everybody has something to undo.
    undoers = ("admin", "project admin", "adjudicator", "reviewer")
    annotation_ids = [approve_one(instance, project, people[name]) for name in undoers]
    found = store.projects.get(project)
    sentiment = instance.task_of(found, "sentiment")
    arms = replay.arms_of(instance, found, sentiment, {"backend": ["nearest"]})
    replay_id = replay.start(instance, found, sentiment, arms, None)
    replay.walk(instance, replay_id)
    export = export_task(
        store,
        found,
        instance.task_of(found, "sentiment"),
        "csv",
        instance.folder / "exports" / str(project) / "first",
        formats=instance.plugins.exporters,
    )
    left_training(instance.folder, project, "tuned", "org/model")
    acts = instance.acts(found, sentiment)
    act_id = acts.begin(Asked("approve"), people["admin"])
    acts.go_on(act_id)
    view_id = store.write(lambda tx: store.views.keep(tx, project, "mine", "q=x", people["project admin"]))
    return {
        "training_name": "tuned", "sheet": "labels", "plot": "days", "view_id": view_id, "act_id": act_id,
        "project_id": project, "task": "sentiment", "reviewer_id": people["stranger"], "upload": UPLOAD,
        "import_id": import_id, "run_id": run_id, "replay_id": replay_id, "export_id": export.id,
        "name": "manifest.json",
        "annotation_id": annotation_ids[0], "filename": "page.js", "record_id": 1, "suggestion_id": 1,
        "token": accounts.one_time_link(store, people["admin"]),
    }  # fmt: skip


def approve_one(instance: Instance, project_id: int, reviewer_id: int) -> int:
    project = instance.store.projects.get(project_id)
    task = instance.task_of(project, "sentiment")
    opened = instance.queue(project, task).next(reviewer_id)
    assert opened is not None
    decision = Decision(opened.record.id, "approve", f"request {reviewer_id}", opened.version, "positive")
    return instance.decisions(project, task).decide(reviewer_id, decision).annotation_id


def address(app: Flask, endpoint: str, values: dict[str, Any]) -> tuple[str, str]:
    """Return (method, path) of an endpoint, with the values its rule asks for."""
    rule = next(rule for rule in app.url_map.iter_rules() if rule.endpoint == endpoint)
    method = "POST" if "POST" in (rule.methods or ()) else "GET"
    needed = {name: values[name] for name in rule.arguments}
    with app.test_request_context():
        return method, app.url_for(endpoint, **needed)


def ask(client: FlaskClient, method: str, path: str, endpoint: str, token: str) -> TestResponse:
    if endpoint == "signin.enter_by_link":
        return client.post(path, data={"token": token})
    if method == "GET":
        return client.get(path, buffered=True)
    if endpoint.startswith("desk."):
        return client.post(path, json={})
    return client.post(path, data=FORMS.get(endpoint, {}))


@pytest.mark.parametrize("person", PEOPLE)
def test_every_route_lets_in_exactly_whom_the_table_says(
    instance: Instance, people: dict[str, int], furnished: dict[str, Any], person: str
) -> None:
    """FAULTS 32: A route is open to the people of its row and to nobody else, and a route without a row fails."""
    app = create_app(instance, {"WTF_CSRF_ENABLED": False})
    allowed = {}
    for endpoint in sorted(app.view_functions):
        client = app.test_client()
        if person != "anonymous":
            enter(client, app, people[person])
        method, path = address(app, endpoint, furnished)
        response = ask(client, method, path, endpoint, furnished["token"])
        to_sign_in = response.status_code == 302 and response.location.startswith("/sign-in")
        allowed[endpoint] = not to_sign_in and response.status_code not in (401, 403, 404)
        assert response.status_code < 500, (endpoint, response.text)
    assert allowed == {endpoint: person in audience for endpoint, audience in TABLE.items()}


RIGHTS = {
    "runs": {"runs.start", "replays.start", "replays.again"},
    "exports": {"exports.form", "exports.show", "exports.check", "exports.make", "exports.download"},
    "numbers": {
        "numbers.page", "numbers.download", "team.page", "replays.form", "replays.show", "replays.progress",
        "replays.cells",
    },
}  # fmt: skip


@pytest.mark.parametrize("right", RIGHTS)
@pytest.mark.parametrize("person", ["reviewer", "observer", "stranger"])
def test_a_project_gives_its_reviewers_one_right_at_a_time(
    instance: Instance, people: dict[str, int], furnished: dict[str, Any], project: int, person: str, right: str
) -> None:
    """Observers may start and export nothing all the same, and strangers stay strangers."""
    instance.change_project(project, {"reviewers_may": [right]})
    app = create_app(instance, {"WTF_CSRF_ENABLED": False})
    client = app.test_client()
    enter(client, app, people[person])
    opened = set()
    for endpoint in sorted(set().union(*RIGHTS.values())):
        method, path = address(app, endpoint, furnished)
        if ask(client, method, path, endpoint, furnished["token"]).status_code not in (401, 403, 404):
            opened.add(endpoint)
    assert opened == {"reviewer": RIGHTS[right], "observer": RIGHTS["numbers"], "stranger": set()}[person]


def test_a_project_does_not_exist_for_those_who_are_no_members(
    app: Flask, as_person: Callable[[str], FlaskClient], furnished: dict[str, Any]
) -> None:
    """Every page in a project answers a stranger with 404, as for a project that was never made."""
    client = as_person("stranger")
    for endpoint, audience in TABLE.items():
        method, path = address(app, endpoint, furnished)
        if method == "GET" and audience <= MEMBERS and path.startswith("/projects/1"):
            assert client.get(path).status_code == 404, endpoint
            assert client.get(path.replace("/projects/1", "/projects/999")).status_code == 404, endpoint


def test_the_things_of_one_project_cannot_be_reached_through_another(
    app: Flask, instance: Instance, client: FlaskClient, furnished: dict[str, Any], people: dict[str, int]
) -> None:
    """Runs, imports, exports and uploads by number belong to their project, even for an admin."""
    other = instance.create_project("다른 프로젝트", "ko", None, people["admin"])
    named = ("imports.preview", "imports.show", "imports.progress", "imports.report", "runs.show", "runs.progress")
    for endpoint in (*named, "exports.download", "desk.example", "training.show", "training.progress"):
        assert client.get(address(app, endpoint, furnished)[1], buffered=True).status_code == 200, endpoint
        path = address(app, endpoint, furnished | {"project_id": other})[1]
        assert client.get(path).status_code == 404, endpoint


def test_views_are_closed_unless_they_are_marked(app: Flask) -> None:
    """A view that says nothing about access needs a signed-in reviewer."""
    app.add_url_rule("/forgotten", "forgotten", lambda: "secret")
    response = app.test_client().get("/forgotten")
    assert response.status_code == 302
    assert "/sign-in?next=" in response.location


# Signing in


def token_of(client: FlaskClient, path: str = "/sign-in") -> str:
    """Return the CSRF token of a page."""
    found = re.search(r'name="csrf-token" content="([^"]+)"', client.get(path).text)
    assert found
    return html.unescape(found[1])


def sign_in(client: FlaskClient, name: str, password: str, **fields: str) -> TestResponse:
    return client.post("/sign-in", data={"csrf_token": token_of(client), "name": name, "password": password, **fields})


def test_no_account_exists_by_default(app: Flask, store: Store) -> None:
    """A new instance has no account, so no name and password open it."""
    assert store.people.count() == 0
    client = app.test_client()
    assert client.get("/").status_code == 302
    assert "일회용 로그인 주소" in client.get("/sign-in").text
    for name in ("admin", "labeler", "root"):
        assert sign_in(client, name, name).status_code == 401


def test_name_and_password_open_the_page_that_was_asked_for(app: Flask, people: dict[str, int]) -> None:
    """After signing in a person stands where they wanted to go."""
    client = app.test_client()
    answer = sign_in(client, "admin", PASSWORD, next="/people")
    assert (answer.status_code, answer.location) == (303, "/people")
    assert client.get("/people").status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "http:/x",
        "/a\nb",
        "people",
    ],
)
def test_signing_in_never_leads_to_another_site(app: Flask, people: dict[str, int], target: str) -> None:
    """Only a path of this site is followed after signing in."""
    assert sign_in(app.test_client(), "admin", PASSWORD, next=target).location == "/"


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(app: Flask, people: dict[str, int]) -> None:
    """The cookie is HttpOnly and SameSite, and its value is no readable name or password."""
    cookie = sign_in(app.test_client(), "admin", PASSWORD).headers["Set-Cookie"]
    assert re.match(r"labeler_[0-9a-f]{8}=", cookie)
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert PASSWORD not in cookie


def test_failed_sign_ins_are_throttled_for_right_passwords_too(app: Flask, people: dict[str, int]) -> None:
    """After five failures the name has to wait, and the answer says how long."""
    client = app.test_client()
    for _ in range(5):
        assert sign_in(client, "admin", "wrong").status_code == 401
    answer = sign_in(client, "admin", PASSWORD)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert client.get("/people").status_code == 302


def test_a_forged_cookie_opens_nothing(app: Flask, instance: Instance, people: dict[str, int]) -> None:
    """FAULTS 38: A session signed with another key is as good as none."""
    forger = create_app(instance, {"SECRET_KEY": "guessed"})
    client = app.test_client()
    with forger.test_request_context():
        serializer = forger.session_interface.get_signing_serializer(forger)  # type: ignore[attr-defined]
        forged = serializer.dumps({"reviewer": people["admin"], "epoch": 0})
    client.set_cookie(app.config["SESSION_COOKIE_NAME"], forged)
    assert client.get("/").status_code == 302


def test_a_new_password_ends_all_other_sessions(
    as_person: Callable[[str], FlaskClient], store: Store, people: dict[str, int]
) -> None:
    """A cookie from before the change of password, role or state is signed out."""
    old, new = as_person("admin"), as_person("admin")
    form = {"csrf_token": token_of(new, "/account"), "old": PASSWORD, "new": "other plain words"}
    assert new.post("/account", data=form | {"repeat": "different words"}).status_code == 400
    assert new.post("/account", data=form | {"repeat": "other plain words"}).status_code == 303
    assert new.get("/").status_code == 200
    assert old.get("/").status_code == 302
    reviewer = as_person("reviewer")
    accounts.change_account(store, people["reviewer"], people["admin"], disabled=True)
    assert reviewer.get("/").status_code == 302


def test_signing_out_ends_the_session_for_every_copy_of_its_cookie(
    as_person: Callable[[str], FlaskClient], app: Flask
) -> None:
    """Whoever copied the cookie is out too; another session of the same person goes on."""
    one, copy, other = as_person("reviewer"), app.test_client(), as_person("reviewer")
    name = app.config["SESSION_COOKIE_NAME"]
    cookie = one.get_cookie(name)
    assert cookie is not None
    copy.set_cookie(name, cookie.value)
    assert copy.get("/").status_code == 200
    assert one.post("/sign-out", data={"csrf_token": token_of(one, "/account")}).status_code == 303
    assert copy.get("/").status_code == 302
    assert other.get("/").status_code == 200


def test_who_came_by_a_link_sets_a_password_without_the_old_one(
    app: Flask, store: Store, people: dict[str, int]
) -> None:
    """A forgotten password is replaced by way of a link: the page asks for a new one, and that signs in."""
    client = app.test_client()
    form = {"token": accounts.one_time_link(store, people["reviewer"]), "csrf_token": token_of(client)}
    assert client.post("/welcome", data=form).location == "/account"
    page = client.get("/account").text
    assert 'name="new"' in page and 'name="old"' not in page
    new = {"csrf_token": token_of(client, "/account"), "new": "other plain words", "repeat": "other plain words"}
    assert client.post("/account", data=new).status_code == 303
    assert sign_in(app.test_client(), "reviewer", "other plain words").status_code == 303
    # It was the link that allowed it: from now on the old one is asked for.
    assert 'name="old"' in client.get("/account").text


def test_two_admins_who_close_each_other_at_once_leave_one(
    app: Flask, as_person: Callable[[str], FlaskClient], store: Store, people: dict[str, int]
) -> None:
    """Two requests at the same moment: one is done, the other refused, each time."""
    for role in range(4):
        second = accounts.add_reviewer(store, f"second {role}", None, accounts.ADMIN)
        pairs = [(people["admin"], second), (second, people["admin"])]
        clients, forms = [], []
        for me, _ in pairs:
            client = app.test_client()
            enter(client, app, me)
            clients.append(client)
            forms.append(
                {"csrf_token": token_of(client, "/people"), **({"disabled": "1"} if role % 2 else {"role": "reviewer"})}
            )
        together = threading.Barrier(2)
        answers: dict[int, int] = {}

        def send(
            n: int,
            together: Any = together,
            answers: Any = answers,
            pairs: Any = pairs,
            clients: Any = clients,
            forms: Any = forms,
        ) -> None:
            together.wait()
            answers[n] = clients[n].post(f"/people/{pairs[n][1]}", data=forms[n]).status_code

        threads = [threading.Thread(target=send, args=(n,)) for n in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # The later one is no admin any more, or not even signed in.
        assert sorted(answers.values())[0] in (302, 303) and sorted(answers.values()) != [303, 303], answers
        assert store.write(store.people.admins) == 1
        store.write(lambda tx, second=second: store.people.change(tx, second, role="reviewer"))  # type: ignore[misc]
        store.write(lambda tx: store.people.change(tx, people["admin"], role="admin", disabled=0))


def test_pages_lead_nobody_where_they_may_not_go(
    as_person: Callable[[str], FlaskClient], furnished: dict[str, Any], project: int
) -> None:
    """A reviewer sees that there are exports, and no link to what only admins open."""
    for who, links in (("reviewer", False), ("admin", True)):
        page = as_person(who).get(f"/projects/{project}").text
        assert (f"/projects/{project}/export" in page) == links
        assert (f"/projects/{project}/settings" in page) == links


def test_a_run_is_stopped_by_who_started_it_or_by_an_admin(
    as_person: Callable[[str], FlaskClient], store: Store, project: int, people: dict[str, int]
) -> None:
    """A member cancels their own run, not an admin's; who did it is on record."""
    reviewer = as_person("reviewer")
    for who, status in (("admin", 403), ("reviewer", 303)):
        ids = runs.select(store, project, "sentiment", None, True)
        run_id = runs.start(store, project, "sentiment", ids, {"backend": "nearest"}, None, people[who])
        form = {"csrf_token": token_of(reviewer, f"/projects/{project}/runs/{run_id}")}
        assert reviewer.post(f"/projects/{project}/runs/{run_id}/cancel", data=form).status_code == status
        assert reviewer.post(f"/projects/{project}/runs/{run_id}/resume", data=form).status_code == status
        assert (store.ledger.run(run_id)["state"] == "queued") and store.write(
            lambda tx, run_id=run_id: store.ledger.set_run(tx, run_id, "cancelled")  # type: ignore[misc]
        )
    kinds = [(row["kind"], row["who"]) for row in store.events.acts(None, 50)]
    assert ("run cancelled", "reviewer") in kinds and ("run resumed", "reviewer") in kinds
    assert ("run cancelled", "admin") not in kinds


def test_what_was_done_is_shown_to_admins(
    client: FlaskClient, store: Store, instance: Instance, people: dict[str, int]
) -> None:
    """The page names who, what and whom, newest first; a key is never on it."""
    instance.change_settings(
        {"openai_base_url": "http://127.0.0.1:9/v1", "openai_api_key": "sk-secret"}, people["admin"]
    )
    accounts.one_time_link(store, people["reviewer"], people["admin"])
    page = client.get("/people/acts").text
    assert page.index("일회용 로그인 링크") < page.index("http://127.0.0.1:9/v1")
    assert "sk-secret" not in page and page.count("<tr>") > 4
    store.write(lambda tx: [store.events.add(tx, "signed in", reviewer_id=people["admin"]) for _ in range(60)])
    assert "before=" in client.get("/people/acts").text
    assert client.get("/people/acts?before=0").status_code == 404


def test_a_one_time_link_opens_once(app: Flask, store: Store, people: dict[str, int]) -> None:
    """Looking at a link does not use it up, its button does, and the second use is refused."""
    token = accounts.one_time_link(store, people["admin"])
    first, second = app.test_client(), app.test_client()
    assert token in first.get(f"/welcome?token={token}").text
    form = {"token": token}
    answer = first.post("/welcome", data=form | {"csrf_token": token_of(first)})
    assert answer.status_code == 303
    assert first.get("/people").status_code == 200
    again = second.post("/welcome", data=form | {"csrf_token": token_of(second)})
    assert again.status_code == 401
    assert second.get("/people").status_code == 302


def test_who_comes_by_link_without_a_password_is_asked_for_one(app: Flask, store: Store) -> None:
    """An account without a password is led to set one, and may do so later."""
    id_ = accounts.add_reviewer(store, "new", None, accounts.ADMIN)
    client = app.test_client()
    form = {"token": accounts.one_time_link(store, id_), "csrf_token": token_of(client)}
    answer = client.post("/welcome", data=form)
    assert answer.location == "/account"
    assert "나중에" in client.get("/account").text
    assert client.get("/").status_code == 200


def test_signing_out_ends_the_session(client: FlaskClient) -> None:
    """After signing out the cookie opens nothing."""
    assert client.post("/sign-out", data={"csrf_token": token_of(client, "/")}).status_code == 303
    assert client.get("/").status_code == 302


# Other sites


def test_a_form_without_its_token_is_refused(client: FlaskClient, store: Store) -> None:
    """FAULTS 42: A POST without the CSRF token changes nothing, with any cookie."""
    answer = client.post("/people/accounts", data={"name": "intruder", "role": "admin"})
    assert answer.status_code == 403
    assert store.people.named("intruder") is None


def test_a_request_from_another_origin_is_refused(client: FlaskClient) -> None:
    """The right token does not help a page of another site, nor one without an origin (a sandboxed frame)."""
    form = {"csrf_token": token_of(client, "/"), "language": "en"}
    for origin in ("https://evil.example", "http://localhost:1", "null"):
        assert client.post("/language", data=form, headers={"Origin": origin}).status_code == 403
    assert client.post("/language", data=form, headers={"Origin": "http://localhost"}).status_code == 303


def test_json_must_say_that_it_is_json(client: FlaskClient, project: int) -> None:
    """JSON sent as text/plain, as a form of another site could, is refused with 400 in JSON."""
    headers = {"X-CSRFToken": token_of(client, "/")}
    path = f"/projects/{project}/label/sentiment/api/next"
    answer = client.post(path, data="{}", content_type="text/plain", headers=headers)
    assert answer.status_code == 400
    assert answer.is_json
    assert client.post(path, json={}, headers=headers).status_code == 200


def test_changes_are_never_made_by_get(app: Flask) -> None:
    """No route takes both GET and POST under one view, and signing out is no link."""
    for rule in app.url_map.iter_rules():
        assert not {"GET", "POST"} <= (rule.methods or set()), rule.endpoint
    assert app.test_client().get("/sign-out").status_code == 405


def test_the_server_answers_to_its_own_names_only(app: Flask) -> None:
    """A foreign host name (DNS rebinding) gets 400."""
    client = app.test_client()
    assert client.get("/sign-in", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/sign-in", headers={"Host": "127.0.0.1:8000"}).status_code == 200


def test_every_answer_carries_the_security_headers(app: Flask, client: FlaskClient, project: int) -> None:
    """Pages, errors, redirects and static files forbid inline code, frames and guessing of types."""
    paths = ("/", "/nothing", f"/projects/{project}", f"{app.static_url_path}/page.js", "/sign-out", "/projects/999")
    for answer in [client.get(path, buffered=True) for path in paths] + [app.test_client().get("/")]:
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "same-origin"


def test_error_pages_do_not_repeat_what_was_sent(client: FlaskClient) -> None:
    """FAULTS 35: What stands in a bad address does not come back."""
    for path in ("/<script>alert(7)</script>", "/%3Cscript%3Ealert(7)%3C/script%3E", "/projects/1?x=alert(7)"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "alert(7)" not in answer.text


def test_an_unexpected_error_shows_no_trace(app: Flask, people: dict[str, int]) -> None:
    """The browser gets a sentence, the log gets the trace."""

    def explode(*_: object) -> None:
        raise RuntimeError("the inner secret")

    app.config["TESTING"] = False
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.add_url_rule("/explode", "explode", explode)
    client = app.test_client()
    enter(client, app, people["admin"])
    answer = client.get("/explode")
    assert answer.status_code == 500
    assert "inner secret" not in answer.text
    assert "Traceback" not in answer.text


# Files


@pytest.mark.parametrize("name", ["..%2f..%2flabeler.db", "%2e%2e", "..", "secret_key", "train.csv%00", "C:%5Cx"])
def test_only_the_files_of_an_export_are_served(client: FlaskClient, furnished: dict[str, Any], name: str) -> None:
    """No name leads out of the folder of an export, and nothing but its own files is sent."""
    path = f"/projects/{furnished['project_id']}/exports/{furnished['export_id']}/{name}"
    assert client.get(path).status_code == 404


def test_a_file_of_an_export_is_a_download(client: FlaskClient, furnished: dict[str, Any]) -> None:
    """FAULTS 34: An exported file is saved, never shown in the page's origin."""
    answer = client.get(
        f"/projects/{furnished['project_id']}/exports/{furnished['export_id']}/train.csv", buffered=True
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.mimetype == "text/csv"


def test_an_export_elsewhere_is_listed_but_not_served(
    client: FlaskClient, instance: Instance, furnished: dict[str, Any], tmp_path: Path
) -> None:
    """What the command line wrote to a folder of its own cannot be fetched through the page."""
    project = instance.store.projects.get(furnished["project_id"])
    task = instance.task_of(project, "sentiment")
    made = export_task(instance.store, project, task, "csv", tmp_path / "out", formats=instance.plugins.exporters)
    path = f"/projects/{project['id']}/exports/{made.id}/manifest.json"
    assert client.get(path).status_code == 404
    assert "명령줄에서" in client.get(f"/projects/{project['id']}/export").text


@pytest.mark.parametrize("name", ["..%2f" + UPLOAD, "..", "x.csv", UPLOAD.replace(".csv", ".exe"), UPLOAD + "%00"])
def test_only_uploads_under_our_own_names_are_opened(client: FlaskClient, furnished: dict[str, Any], name: str) -> None:
    """The name of an upload in the address is one that the server made, or there is none."""
    path = f"/projects/{furnished['project_id']}/import/{name}/preview"
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("name", ["evil.html", "evil.svg", "../../x", "a.csv.exe", "a", ".csv/..", "con"])
def test_an_upload_that_is_no_table_is_refused(
    client: FlaskClient, instance: Instance, project: int, name: str
) -> None:
    """Only the kinds of files that the import reads are stored at all."""
    form = {"csrf_token": token_of(client, "/"), "file": (BytesIO(b"text\nx\n"), name)}
    assert client.post(f"/projects/{project}/import", data=form).status_code == 400
    assert not list((instance.folder / "uploads").rglob("*.*"))


def test_the_name_of_an_upload_never_becomes_a_path(client: FlaskClient, instance: Instance, project: int) -> None:
    """A file called ../../x.csv lies in the uploads folder under a name of ours."""
    form = {"csrf_token": token_of(client, "/"), "file": (BytesIO("text\n좋아요\n".encode()), "../../<b>x.csv")}
    answer = client.post(f"/projects/{project}/import", data=form)
    assert re.fullmatch(rf"/projects/{project}/import/[0-9a-f]{{32}}\.csv/preview", answer.location)
    stored = list(instance.folder.rglob("*.csv"))
    assert [path.parent for path in stored] == [instance.folder / "uploads" / str(project)]
    assert "&lt;b&gt;x.csv" in client.get(answer.location).text


def test_an_upload_beyond_the_limit_is_refused_and_one_beyond_the_page_limit_is_not(
    instance: Instance, people: dict[str, int], project: int
) -> None:
    """Uploads have a limit of their own, far above that of other requests; both answer 413."""
    limits = {"LABELER_MAX_UPLOAD": 300_000, "MAX_CONTENT_LENGTH": 100_000}
    app = create_app(instance, limits | {"WTF_CSRF_ENABLED": False})
    client = app.test_client()
    enter(client, app, people["admin"])

    def send(path: str, size: int) -> int:
        return client.post(path, data={"file": (BytesIO(b"text\n" + b"x" * size), "a.csv")}).status_code

    assert send(f"/projects/{project}/import", 200_000) == 303
    assert send(f"/projects/{project}/import", 400_000) == 413
    assert send("/language", 200_000) == 413
