"""Several people at the desk of one project: what each gets to see, and the adjudicator's side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from test_desk import Shop, open_shop

from labeler import accounts
from labeler.errors import LabelerError
from labeler.store import NewRecord

__all__ = ["open_shop"]


@pytest.fixture
def shop(open_shop: Callable[..., Shop]) -> Shop:
    """A project in which two people decide on each record; kim is its admin, lee and park are reviewers, choi is its
    adjudicator."""
    shop = open_shop(people_per_record=2)
    for name, role in (("park", "reviewer"), ("choi", "adjudicator")):
        id_ = accounts.add_reviewer(shop.instance.store, name, None)
        accounts.set_member(shop.instance.store, shop.project, id_, role, None)
        shop.people.append(id_)
    return shop


def disputed(shop: Shop) -> Any:
    """A record that lee calls positive and park negative, as choi opens it to settle it."""
    for who, value in ((1, "positive"), (2, "negative")):
        seat = shop.seat(who=who)
        seat.decide(seat.next(), value)
    return shop.seat(who=3).next(order="disputed")


def test_a_first_answer_is_saved_and_waits(shop: Shop) -> None:
    """For whoever gave it the record is done; for others it is not."""
    seat = shop.seat(who=1)
    first = seat.next()
    answer = seat.decide(first, "positive").json
    assert (answer["state"], answer["came_to"]) == ("approved", "pending")
    assert [row["label"] for row in answer["strip"]] == ["Positive"]
    assert seat.client.get(seat.path("counts")).json["done"] == 1
    other = shop.seat(who=2)
    assert other.client.get(other.path("counts")).json["done"] == 0
    opened = other.next()
    assert opened["record_id"] == first["record_id"]
    assert "lee" not in opened["html"] and "Answers of people" not in opened["html"]


def test_an_undone_answer_is_in_front_again_as_it_was(shop: Shop) -> None:
    seat = shop.seat(who=1)
    first = seat.next()
    seat.decide(first, "negative")
    back = seat.post("undo").json
    assert (back["record_id"], back["state"], back["undone"]) == (
        first["record_id"], "pending", {"value": "negative", "state": "approved"}
    )  # fmt: skip


def test_an_adjudicator_sees_the_answers_side_by_side_and_not_whose_they_are(shop: Shop) -> None:
    opened = disputed(shop)
    assert sorted(opened["ballots"]) == ["negative", "positive"]
    assert "Answers of people" in opened["html"]
    assert "lee" not in opened["html"] and "park" not in opened["html"]


def test_once_it_is_settled_it_says_who_said_what_and_why_it_is_so(shop: Shop) -> None:
    opened = disputed(shop)
    seat = shop.seat(who=3)
    assert seat.decide(opened, "negative", reason="늦은 배송은 불만이에요").status_code == 200
    html = shop.seat(who=1).open(opened["record_id"])["html"]
    assert all(name in html for name in ("lee", "park", "choi", "늦은 배송은 불만이에요"))


def test_nobody_else_settles(shop: Shop) -> None:
    opened = disputed(shop)
    seat = shop.seat(who=2)
    assert seat.post("next", order="disputed").status_code == 403
    again = seat.open(opened["record_id"])
    assert again["ballots"] == [] and "an adjudicator decides" in again["html"]
    shop.seat(who=3).post("leave")
    answer = seat.decide(seat.open(opened["record_id"]), "positive")
    assert (answer.status_code, answer.json["error"]) == (
        403, "Several people disagree on this record; an adjudicator decides"
    )  # fmt: skip


def test_the_queue_of_what_is_disputed_is_offered_to_those_who_settle(shop: Shop) -> None:
    """Only while there is something in it."""

    def offered(who: int) -> bool:
        return 'value="disputed"' in shop.seat(who=who).client.get(shop.seat().path()).text

    assert not offered(3)
    disputed(shop)
    assert offered(3) and offered(0) and not offered(1)


def test_a_reason_becomes_a_line_of_the_guidelines_if_asked(shop: Shop) -> None:
    """In the language of the page, and in a new version of the task."""
    opened = disputed(shop)
    shop.seat(who=3).decide(opened, "negative", reason="Late parcels\nare complaints.", guideline=True)
    project = shop.instance.store.projects.get(shop.project)
    task = shop.instance.task_of(project, "sentiment")
    assert task.guided("en").endswith("\n- Late parcels are complaints.")
    assert task.version.endswith(".1")


def test_a_reason_of_somebody_else_becomes_no_line_of_the_guidelines(shop: Shop) -> None:
    """And no decision comes of it."""
    seat = shop.seat(who=1)
    opened = seat.next()
    assert seat.decide(opened, "negative", reason="Mine.", guideline=True).status_code == 403
    project = shop.instance.store.projects.get(shop.project)
    assert not shop.instance.task_of(project, "sentiment").guided("en").endswith("Mine.")
    assert shop.instance.store.ballots.open_of(opened["record_id"], "sentiment") == []


def test_a_decision_is_saved_where_the_guidelines_cannot_be_changed(shop: Shop, monkeypatch: Any) -> None:
    """That is said, and the decision is not sent again."""

    def refuse(*_: Any) -> int:
        raise LabelerError("no")

    opened = disputed(shop)
    monkeypatch.setattr(shop.instance, "add_guideline", refuse)
    answer = shop.seat(who=3).decide(opened, "negative", reason="Late.", guideline=True)
    assert (answer.status_code, answer.json["state"]) == (200, "approved")
    assert answer.json["note"] == "Your decision is saved, but the guidelines were not changed: no"


def test_settings_of_now_settle_what_waits(shop: Shop) -> None:
    """Where one person is enough again, their answer stands at once."""
    seat = shop.seat(who=1)
    opened = seat.next()
    seat.decide(opened, "positive")
    shop.instance.change_project(shop.project, {"people_per_record": 1})
    assert shop.instance.store.work.counts(shop.project, "sentiment")["approved"] == 1


def test_only_the_shared_tasks_need_several_people(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop(people_per_record=2, shared_tasks=["usage"])
    shop.add(NewRecord("again", "다시 샀어요"), task="usage")
    for task, value, state in (("sentiment", "positive", "approved"), ("usage", {}, "pending")):
        seat = shop.seat(task)
        opened = seat.next()
        seat.decide(opened, value)
        assert shop.instance.store.work.get(opened["record_id"], task)["state"] == state


def test_an_observer_can_take_no_record(shop: Shop) -> None:
    id_ = accounts.add_reviewer(shop.instance.store, "han", None)
    accounts.set_member(shop.instance.store, shop.project, id_, "observer", None)
    shop.people.append(id_)
    answer = shop.seat(who=4).post("next")
    assert (answer.status_code, answer.json["error"]) == (
        403, "An observer of a project can look at everything and change nothing"
    )  # fmt: skip
