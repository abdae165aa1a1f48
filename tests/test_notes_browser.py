"""Notes, drafts and blind records at the desk, in a real browser."""

from __future__ import annotations

from typing import Any

import pytest
from browsers import session_cookie
from test_desk_browser import Desk, browser, desk, hangul, pytestmark  # noqa: F401

from labeler.annotation.notes import Notes
from labeler.app import create_app


def noted(desk: Desk, record_id: int, text: str, by: int = 1, **more: Any) -> int:  # noqa: F811
    """Let somebody else have written a note on a record."""
    project = desk.instance.store.projects.get(desk.project)
    room = Notes(desk.instance.store, desk.project, desk.instance.task_of(project, desk.task))
    return room.write(desk.people[by], record_id, text, f"request {text}", **more)


def notes(desk: Desk) -> list[Any]:  # noqa: F811
    """What is kept: (record, to, text), oldest first."""
    rows = desk.instance.store.db.all("SELECT * FROM notes ORDER BY id")
    return [(row["record_id"], row["to_id"], row["text"]) for row in rows]


def shown(desk: Desk) -> str:  # noqa: F811
    return str(desk.page.inner_text("[data-slot=notes]")).strip()


def places(desk: Desk) -> list[Any]:  # noqa: F811
    """Where the text, the form and the buttons stand."""
    return list(desk.page.evaluate(
        """['[data-slot=text]', '[data-form]', '[data-do=approve]'].map((one) => {
            const { x, y, width, height } = document.querySelector(one).getBoundingClientRect();
            return [x, y, width, height];
        })"""
    ))  # fmt: skip


def elsewhere(desk: Desk, who: int) -> Desk:  # noqa: F811
    """Another browser, in which one of the people is signed in."""
    page = desk.page.context.browser.new_page(locale="en-US")
    page.context.add_cookies([session_cookie(create_app(desk.instance), desk.people[who]) | {"url": desk.address}])
    return Desk(desk.instance, desk.project, desk.people, page, desk.address)


# Writing


def test_f_flags_the_record_in_front_and_enter_sends_it(desk: Desk) -> None:  # noqa: F811
    """The record stays, its draft too, and the note stands under its text."""
    desk.go("tone").settle()
    record = desk.record
    desk.press("Digit2", "KeyF")
    assert desk.page.input_value("[data-noting] textarea") == ""
    desk.page.keyboard.insert_text("비꼬는 말 같아요")
    desk.press("Enter")
    desk.until(lambda: "비꼬는 말 같아요" in shown(desk))
    assert notes(desk) == [(record, None, "비꼬는 말 같아요")]
    assert desk.record == record and desk.chosen() == ["bad"] and not desk.page.is_visible("dialog")
    assert desk.value(desk.decide("Enter")) == "bad" and shown(desk) == ""


def test_a_question_goes_to_a_colleague_who_answers_it_by_keyboard(desk: Desk) -> None:  # noqa: F811
    """The colleague's counter says that it waits, one key of the list opens it, and the answer comes back."""
    desk.go("tone").settle()
    record = desk.record
    desk.press("KeyF")
    desk.page.select_option("[data-noting] select", label="lee")
    desk.page.fill("[data-noting] textarea", "긍정 맞죠?")
    desk.press("Enter")
    desk.until(lambda: "→ lee" in shown(desk))
    lee = elsewhere(desk, 1)
    lee.go("tone").page.click("text=Questions: 1")
    lee.page.wait_for_selector("table.records")
    lee.press("Enter")
    lee.ready()
    assert lee.record == record and "긍정 맞죠?" in shown(lee)
    lee.page.focus("[data-note=answer]")
    lee.press("Tab", "Shift+Tab", "Enter")
    lee.page.keyboard.insert_text("네, 긍정이에요")
    lee.press("Enter")
    lee.until(lambda: "네, 긍정이에요" in shown(lee))
    assert not lee.page.is_visible("[data-waiting]")
    desk.page.reload()
    desk.ready()
    assert desk.page.inner_text("[data-waiting]") == "Questions: 1" and "네, 긍정이에요" in shown(desk)
    desk.page.click("[data-note=close]")
    desk.until(lambda: shown(desk) == "" and not desk.page.is_visible("[data-waiting]"))
    lee.page.context.close()


@pytest.mark.parametrize("code", ["Enter", "Escape"])
def test_a_key_of_the_input_method_neither_sends_a_note_nor_leaves_it(desk: Desk, code: str) -> None:  # noqa: F811
    """Enter and Escape end a syllable that is being composed; Shift+Enter is a new line."""
    desk.go("tone").settle()
    desk.press("KeyF")
    desk.page.keyboard.insert_text("애매해")
    prevented = desk.page.evaluate(
        """(code) => !document.querySelector("[data-noting] textarea").dispatchEvent(new KeyboardEvent("keydown",
            {code, key: "Process", keyCode: 229, isComposing: true, bubbles: true, cancelable: true}))""",
        code,
    )
    assert prevented is (code == "Escape")
    desk.press("Shift+Enter")
    assert desk.page.input_value("[data-noting] textarea") == "애매해\n"
    assert desk.page.is_visible("[data-dialog=note]") and notes(desk) == []


def test_the_hangul_input_method_does_not_hide_the_key(desk: Desk) -> None:  # noqa: F811
    desk.go("tone").settle()
    hangul(desk, "KeyF", "ㄹ")
    assert desk.page.is_visible("[data-dialog=note]")


def test_what_was_typed_is_still_there_when_the_dialog_is_opened_again(desk: Desk) -> None:  # noqa: F811
    """On the same record; on another one the dialog is empty. Nothing empty is sent."""
    desk.go("tone").settle()
    desk.press("KeyF")
    desk.page.keyboard.insert_text("잠깐만")
    desk.press("Escape", "KeyF")
    assert desk.page.input_value("[data-noting] textarea") == "잠깐만"
    desk.press("Escape")
    desk.decide("Digit1", "Enter")
    desk.settle()
    desk.press("KeyF", "Enter")
    assert desk.page.input_value("[data-noting] textarea") == "" and desk.page.is_visible("[data-dialog=note]")
    assert notes(desk) == []


def test_a_record_without_notes_keeps_its_measures(desk: Desk) -> None:  # noqa: F811
    desk.go("tone").settle()
    before = places(desk)
    record = desk.record
    noted(desk, record, "왜요?")
    desk.page.reload()
    desk.ready()
    assert "왜요?" in shown(desk)
    text, _, approve = places(desk)
    assert (text, approve) == (before[0], before[2])
    desk.page.evaluate("document.querySelector('[data-slot=notes]').innerHTML = ''")
    assert places(desk) == before


# Without the server


def test_a_note_that_was_written_offline_arrives_later(desk: Desk) -> None:  # noqa: F811
    """The sign says that it is not saved; decisions go on, undo takes back a decision, and the next page sends it."""
    desk.go("tone").settle()
    record = desk.record
    desk.page.route("**/api/{note,decide}", lambda route: route.abort())
    desk.press("KeyF")
    desk.page.keyboard.insert_text("모르겠어요")
    desk.press("Enter")
    desk.until(lambda: "1 not saved yet" in desk.page.inner_text("[data-sign]"))
    assert desk.decide("Digit1", "Enter") == record
    desk.settle()
    desk.press("Backspace")
    desk.until(lambda: desk.record == record)
    desk.page.unroute("**/api/{note,decide}")
    desk.page.reload()
    desk.until(lambda: "모르겠어요" in shown(desk))
    assert notes(desk) == [(record, None, "모르겠어요")]


def test_a_note_that_is_refused_is_not_lost(desk: Desk) -> None:  # noqa: F811
    """Its thread was closed meanwhile: the words stand in a banner, and go into a new note by one press."""
    first = desk.go("tone").record
    desk.settle()
    noted(desk, first, "긍정이죠?", to=desk.people[0])
    desk.page.reload()
    desk.ready()
    desk.page.click("[data-note=answer]")
    desk.page.keyboard.insert_text("네")
    desk.instance.store.write(lambda tx: desk.instance.store.notes.close(tx, 1))
    desk.press("Enter")
    desk.page.wait_for_selector(".banner >> text=closed meanwhile")
    desk.decide("Digit1", "Enter")
    desk.page.click("text=Write it again")
    desk.page.wait_for_selector("[data-dialog=note]")
    assert desk.record == first and desk.page.input_value("[data-noting] textarea") == "네"
    desk.press("Enter")
    desk.until(lambda: len(notes(desk)) == 2)
    assert desk.page.locator(".banner").count() == 0


# Drafts


def test_another_browser_goes_on_with_a_draft(desk: Desk) -> None:  # noqa: F811
    """What was typed half is there, and what is typed there is there again; decided, nothing of it is left."""
    desk.go("note").press("KeyE")
    record = desk.record
    with desk.page.expect_response("**/api/touch"):
        desk.page.keyboard.insert_text("반쯤 쓴")
    other = elsewhere(desk, 0)
    other.go("note", f"?record={record}")
    assert other.page.input_value("textarea >> nth=0") == "반쯤 쓴" and other.state() == "yours"
    other.press("KeyE", "End")
    with other.page.expect_response("**/api/touch"):
        other.page.keyboard.insert_text(" 글")
    desk.page.reload()
    desk.ready()
    assert desk.record == record and desk.page.input_value("textarea >> nth=0") == "반쯤 쓴 글"
    assert desk.value(desk.decide("Control+Enter")) == "반쯤 쓴 글"
    assert desk.instance.store.db.all("SELECT * FROM drafts") == []
    other.page.context.close()


def test_a_draft_costs_no_request_for_each_key(desk: Desk) -> None:  # noqa: F811
    desk.go("note").press("KeyE")
    sent: list[str] = []
    desk.page.on("request", lambda request: sent.append(request.url) if request.url.endswith("/touch") else None)
    with desk.page.expect_response("**/api/touch"):
        desk.page.keyboard.type("twenty characters it", delay=5)
    assert len(sent) == 1


# Blind


def test_a_blind_record_does_not_announce_itself_and_the_strip_tells_afterwards(desk: Desk) -> None:  # noqa: F811
    """Nothing moves when it is told, and no key is needed."""
    desk.instance.change_project(desk.project, {"blind_share": 1.0})
    desk.suggest("r0", "good", "tone", score=0.83)
    desk.go("tone").settle()
    assert desk.chosen() == [] and desk.state() == ""
    said = desk.page.inner_text("#desk").lower()
    assert "blind" not in said and "no suggestion" not in said and "tiny-model" not in said
    before = places(desk)
    record = desk.decide("Digit2", "Enter")
    desk.until(lambda: "Suggestion: Good 0.83" in desk.page.inner_text("[data-strip]"))
    assert desk.value(record) == "bad" and places(desk)[1:] == before[1:]
    assert "Suggestion: Good 0.83" in desk.page.inner_text("[data-live]")
