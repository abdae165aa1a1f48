"""The pages of replays: what they show is what was measured, and who may start what."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import enter
from flask.testing import FlaskClient
from test_replay import Lab, saying
from test_web_pages import Page

from labeler import accounts
from labeler.app import create_app
from labeler.evaluation.results import Results
from labeler.worker import Worker


@pytest.fixture
def lab(tmp_path: Any) -> Iterator[Lab]:
    made = Lab(tmp_path / "instance")
    made.stream(24)
    yield made
    made.close()


@pytest.fixture
def as_(lab: Lab) -> Callable[[str], FlaskClient]:
    """Return a signed-in client: an admin, or a reviewer of the project."""
    app = create_app(lab.instance, {"TESTING": True, "WTF_CSRF_ENABLED": False})
    people = {
        "admin": accounts.add_reviewer(lab.store, "admin", "a few plain words", accounts.ADMIN),
        "reviewer": accounts.add_reviewer(lab.store, "reviewer", "a few plain words"),
    }
    accounts.set_member(lab.store, lab.id, people["reviewer"], "reviewer", people["admin"])

    def sign_in(name: str) -> FlaskClient:
        client = app.test_client()
        client.environ_base["HTTP_ACCEPT_LANGUAGE"] = "en"
        enter(client, app, people[name])
        return client

    return sign_in


def started(client: FlaskClient, lab: Lab, **form: Any) -> str:
    """Start a replay by the form, let the worker do its part, and return the address of its page."""
    answer = client.post(f"/projects/{lab.id}/replays", data={"task": "sentiment", "action": "start", **form})
    assert answer.status_code == 303, answer.text
    Worker(lab.instance).run_until_idle()
    return str(answer.location)


def test_the_page_shows_the_numbers_of_the_rows(lab: Lab, as_: Any) -> None:
    """Agreement, corrections, cost and the table of labels are those that the report computes."""
    client = as_("admin")
    address = started(client, lab, backend=["openai", "nearest"])
    page, report = Page(client.get(address).text), Results(lab.instance, 1).report()
    assert report.ended
    for arm in report.arms:
        one = arm.numbers["agreement"]
        assert f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]" in page.said
    assert f"{report.n} records" in page.said
    table = Results(lab.instance, 1).confusion(report.best)
    cells = re.findall(
        rf'records\?arm={report.best}&amp;approved=(\w+)&amp;said=(\w*)">(\d+)<', client.get(address).text
    )
    assert {(approved, said): int(n) for approved, said, n in cells} == dict(table)


def test_a_cell_opens_its_records(lab: Lab, as_: Any) -> None:
    """Each with what is approved, what was suggested, and the way to the desk."""
    lab.instance.change_project(lab.id, {"reviewers_may": ["numbers"]})
    client = as_("reviewer")
    lab.server.behave(lambda request, n: saying(request, "neutral"))
    address = started(as_("admin"), lab, backend=["openai"])
    shown = client.get(f"{address}/records?arm=0&approved=positive&said=neutral").text
    assert "12 records approved as Positive · suggested: Neutral" in Page(shown).said
    assert len(re.findall(r"label/sentiment\?record=\d+", shown)) == 12
    assert client.get(f"{address}/records?arm=9").status_code == 404


def test_a_replay_that_goes_on_is_looked_at_again(lab: Lab, as_: Any) -> None:
    """The page asks for its part every two seconds, until there is nothing more to come."""
    client = as_("admin")
    answer = client.post(f"/projects/{lab.id}/replays", data={"task": "sentiment", "action": "start"})
    waiting = client.get(f"{answer.location}/progress").text
    assert 'hx-trigger="every 2s"' in waiting and "0 of 24 records prepared" in Page(waiting).said
    Worker(lab.instance).run_until_idle()
    assert "hx-trigger" not in client.get(f"{answer.location}/progress").text


def test_a_replay_that_stopped_is_not_asked_for_again_and_again(lab: Lab, as_: Any) -> None:
    """Its run is paused: the page shows how far each came, and does not ask the server every few seconds."""
    client = as_("admin")
    address = started(client, lab, backend=["openai"], budget="0.00001")
    page = client.get(address).text
    assert "hx-trigger" not in page and "Paused" in Page(page).said


def test_a_replay_is_started_again_over_the_approvals_of_now(lab: Lab, as_: Any) -> None:
    """The same settings and as many records; the one before stays."""
    client = as_("admin")
    address = started(client, lab, backend=["nearest"], sample="10")
    again = client.post(f"{address}/again").location
    Worker(lab.instance).run_until_idle()
    assert again != address and "10 records" in Page(client.get(again).text).said
    assert [arm["settings"] for arm in lab.store.replays.arms(2)] == [
        arm["settings"] for arm in lab.store.replays.arms(1)
    ]


def test_only_an_admin_starts_what_costs_and_sets_the_task(lab: Lab, as_: Any) -> None:
    """A reviewer who may start runs and see numbers compares the free backends, and looks."""
    lab.instance.change_project(lab.id, {"reviewers_may": ["runs", "numbers"]})
    client, form = as_("reviewer"), {"task": "sentiment", "action": "start"}
    assert client.post(f"/projects/{lab.id}/replays", data={**form, "backend": "openai"}).status_code == 403
    assert client.post(f"/projects/{lab.id}/replays", data={**form, "action": "estimate"}).status_code == 403
    lab.instance.change_task(lab.id, "sentiment", {"backend": "nearest"})
    address = started(client, lab, backend=["nearest", "ensemble"])
    assert client.post(f"{address}/use", data={"arm": "1"}).status_code == 403
    assert client.get(address).status_code == 200


def test_using_an_arm_sets_the_task_and_keeps_the_evidence(lab: Lab, as_: Any) -> None:
    """The task has the arm's settings, all others stay, and the replay says who did it."""
    client = as_("admin")
    lab.instance.change_task(lab.id, "sentiment", {"concurrency": 3})
    address = started(client, lab, backend=["nearest"])
    assert client.post(f"{address}/use", data={"arm": "1"}).status_code == 303
    settings = lab.instance.task_settings_raw(lab.project, "sentiment")
    assert settings["backend"] == "nearest" and settings["concurrency"] == 3
    assert re.search(
        r'The task was set to "Vote of the nearest examples.*" · .* · admin', Page(client.get(address).text).said
    )
    assert client.post(f"{address}/use", data={"arm": "7"}).status_code == 400


def test_a_replay_can_be_estimated_before_anything_is_paid(lab: Lab, as_: Any) -> None:
    """One line for each combination; nothing is asked and nothing is stored."""
    form = {"task": "sentiment", "action": "estimate", "backend": "openai", "k": "2, 4", "sample": "10"}
    page = Page(as_("admin").post(f"/projects/{lab.id}/replays", data=form).text).said
    assert "2 examples" in page and "4 examples" in page and "$" in page
    assert not lab.server.requests and not lab.store.replays.of_task(lab.id, "sentiment")


@pytest.mark.parametrize(("field", "value"), [("k", "many"), ("k", "-1"), ("sample", "0")])
def test_what_cannot_be_read_is_said_beside_the_form(lab: Lab, as_: Any, field: str, value: str) -> None:
    """What was typed stays."""
    answer = as_("admin").post(
        f"/projects/{lab.id}/replays", data={"task": "sentiment", "action": "start", field: value}
    )
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert value[:40] in answer.text


def test_the_run_of_an_arm_says_what_it_is_of(lab: Lab, as_: Any) -> None:
    """Its page is that of any run, with the way back."""
    client = as_("admin")
    address = started(client, lab, backend=["openai"])
    run_id = lab.store.replays.arms(1)[0]["run_id"]
    assert f'href="{address}"' in client.get(f"/projects/{lab.id}/runs/{run_id}").text
