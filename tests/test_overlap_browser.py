"""Several people at the desk, in a real browser: what waits, and what is settled by keyboard."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_desk_browser import Desk, browser, desk, pytestmark  # noqa: F401

from labeler import accounts
from labeler.annotation.decisions import Decision


@pytest.fixture
def shared(desk: Desk) -> Desk:  # noqa: F811
    """A desk at which two people decide on each record; kim, who sits there, is an admin of the project."""
    desk.instance.change_project(desk.project, {"people_per_record": 2})
    desk.people.append(accounts.add_reviewer(desk.instance.store, "park", None))
    return desk


def answer(desk: Desk, record_id: int, who: int, value: Any) -> None:  # noqa: F811
    project, row = desk.instance.store.projects.get(desk.project), desk.instance.store.work.get(record_id, "tone")
    assert row is not None
    decision = Decision(record_id, "approve", f"answer of {who} to {record_id}", row["version"], value)
    desk.instance.decisions(project, desk.instance.task_of(project, "tone")).decide(desk.people[who], decision)


def test_an_answer_waits_for_others_and_backspace_takes_it_back(shared: Desk) -> None:
    """The counter counts it as done for the person; the record comes again at once when it is taken back."""
    shared.go("tone").settle()
    record = shared.decide("Digit2", "Enter")
    store = shared.instance.store
    shared.until(lambda: len(store.ballots.open_of(record, "tone")) == 1)
    assert store.work.get(record, "tone")["state"] == "pending"
    shared.until(lambda: shared.page.inner_text("[data-count=done]") == "1")
    shared.settle()
    shared.press("Backspace")
    shared.until(lambda: shared.record == record)
    assert shared.chosen() == ["bad"] and store.ballots.open_of(record, "tone") == []


def test_a_dispute_is_settled_by_keys_with_a_reason(shared: Desk) -> None:
    """V lays one answer after another into the form; the reason stays with the decision."""
    store = shared.instance.store
    record = store.records.by_key(shared.project, "r0").id
    answer(shared, record, 1, "good")
    answer(shared, record, 2, "mixed")
    shared.go("tone", "?order=disputed")
    assert shared.record == record
    said = []
    for _ in range(3):
        shared.press("KeyV")
        said.append(shared.chosen()[0])
    assert sorted(said[:2]) == ["good", "mixed"] and said[2] == said[0]
    assert "lee" not in shared.page.inner_text(".ballots")
    shared.page.fill("[data-reason]", "값은 좋지만 양이 적대요")
    shared.press("Control+Enter")
    shared.page.wait_for_selector("[data-done]:not([hidden])")
    row = store.annotations.current(record, "tone")
    assert (json.loads(row["value"]), row["reason"], row["reviewer"]) == (said[0], "값은 좋지만 양이 적대요", "kim")
    shared.go("tone", f"?record={record}")
    assert "lee" in shared.page.inner_text(".ballots")
