"""The desk in a real browser: approving nothing, presses that do not count, the address, and what is said of saving."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from test_desk_browser import ASKS, TASKS, TEXTS, Desk, Held, browser, desk, pytestmark  # noqa: F401

from labeler.annotation.decisions import Decision, Decisions

EMPTY: dict[str, Any] = {"moods": [], "words": [], "parts": [], "memo": "", "points": {}}


def says(desk: Desk) -> str:  # noqa: F811
    """What the button that approves says now."""
    return str(desk.page.evaluate(
        """[...document.querySelectorAll('[data-do=approve] > span')]
           .filter((span) => getComputedStyle(span).visibility === 'visible').map((span) => span.innerText).join('|')"""
    ))  # fmt: skip


def complaint(desk: Desk) -> str:  # noqa: F811
    return str(desk.page.inner_text("[data-complaint]"))


def take_back(desk: Desk) -> None:  # noqa: F811
    """Leave nothing of the labels that are suggested."""
    desk.page.evaluate("document.querySelectorAll('.pick input:checked').forEach((input) => input.click())")


def of(desk: Desk, key: str) -> int:  # noqa: F811
    record = desk.instance.store.records.by_key(desk.project, key)
    assert record is not None
    return record.id


# Approving nothing


@pytest.mark.parametrize("task", EMPTY)
def test_an_empty_form_is_approved_by_shift_enter_alone(desk: Desk, task: str) -> None:  # noqa: F811
    """The button shows the key, Enter says it, and both hold whether nothing was suggested or it was not followed."""
    if task == "words":
        desk.suggest("r0", [], "words")
    desk.go(task).settle()
    if task == "moods":
        take_back(desk)
    before = desk.record
    assert says(desk).split() == ["Approve", "as", "empty", "⇧", "↵"]
    desk.press("Enter")
    assert "⇧ ↵ approves it" in complaint(desk) and desk.record == before
    assert desk.decide("Shift+Enter") == before
    assert desk.value(before) == EMPTY[task]


@pytest.mark.parametrize("composing", [True, False])
def test_shift_enter_goes_by_its_place_on_the_keyboard(desk: Desk, composing: bool) -> None:  # noqa: F811
    """It works with the Hangul input method on."""
    desk.go("words").settle()
    before = desk.record
    desk.page.evaluate(
        """(isComposing) => document.body.dispatchEvent(new KeyboardEvent("keydown", {code: "Enter", key: "Process",
            keyCode: 229, shiftKey: true, isComposing, bubbles: true, cancelable: true}))""",
        composing,
    )
    assert desk.value(before) == []


def test_from_within_an_empty_field_too(desk: Desk) -> None:  # noqa: F811
    """Ctrl+Enter says the key, Shift+Enter approves; once something is typed it is a new line again."""
    desk.go("memo").press("KeyE", "Control+Enter")
    assert "⇧ ↵ approves it" in complaint(desk)
    first = desk.decide("Shift+Enter")
    desk.settle()
    second = desk.record
    desk.press("KeyE")
    desk.page.keyboard.type("a")
    desk.press("Shift+Enter")
    desk.page.keyboard.type("b")
    assert desk.page.input_value("textarea") == "a\nb" and desk.record == second
    assert says(desk).startswith("Approve")
    desk.go("words").press("KeyE", "Enter")
    assert "⇧ ↵ approves it" in complaint(desk)
    third = desk.decide("Shift+Enter")
    assert desk.value(third) == []
    desk.task = "memo"
    assert desk.value(first) == ""


def test_the_button_asks_before_it_approves_nothing(desk: Desk) -> None:  # noqa: F811
    """Without a keyboard it takes two presses; a double tap is one, and what is given meanwhile calls it off."""
    desk.page.set_viewport_size({"width": 375, "height": 700})
    desk.go("moods").settle()
    take_back(desk)
    before = desk.record
    desk.page.dblclick("[data-do=approve]")
    assert says(desk).startswith("Press again") and "press the button again" in complaint(desk)
    desk.page.click(".pick >> nth=0")
    assert says(desk) == "Approve" and complaint(desk) == ""
    desk.page.click(".pick >> nth=0")
    desk.page.click("[data-do=approve]")
    assert says(desk).startswith("Press again") and desk.record == before

    def approved() -> bool:
        if desk.record == before:
            desk.page.click("[data-do=approve]")
        return desk.record != before

    desk.until(approved)
    assert desk.value(before) == []


def test_nothing_approved_while_the_server_was_down_still_arrives(desk: Desk) -> None:  # noqa: F811
    """It was meant when it was pressed: the next page sends it without asking again."""
    desk.go("words").settle()
    desk.page.route("**/api/decide", lambda route: route.abort())
    record = desk.decide("Shift+Enter")
    desk.page.on("dialog", lambda dialog: dialog.accept())
    desk.page.unroute("**/api/decide")
    desk.page.reload()
    assert desk.value(record) == []


# Presses that do not count


def test_a_press_that_comes_too_early_is_told_so(desk: Desk) -> None:  # noqa: F811
    """It was meant for the record before: nothing happens to this one, and the page says that."""
    desk.go("tone").press("Digit1")
    desk.settle()
    desk.page.evaluate(
        """() => ["Enter", "KeyX"].forEach((code) =>
            document.body.dispatchEvent(new KeyboardEvent("keydown", {code, bubbles: true, cancelable: true})))"""
    )
    assert "did not count" in desk.page.inner_text("[data-swallowed]")
    assert "only just come" in desk.page.inner_text("[data-swallowed]")


def test_a_press_while_the_next_record_is_awaited_is_told_so(desk: Desk) -> None:  # noqa: F811
    held = Held(desk, "next", first=1)
    desk.go("tone").press("Digit1", "Enter")
    assert desk.page.locator("#desk.is-waiting").count() == 1
    desk.press("Digit3")
    assert "not here yet" in desk.page.inner_text("[data-swallowed]")
    held.let_go()
    desk.ready()
    assert "mixed" not in desk.chosen()


# The address, and where the links lead


def test_the_address_follows_the_record_and_back_leads_to_the_search(desk: Desk) -> None:  # noqa: F811
    """A reload shows the record in front; however many were decided, one step back is where the person came from."""
    desk.page.goto(f"{desk.address}/projects/{desk.project}/records?q=아삭")
    desk.page.click(".chip >> text=tone")
    desk.ready()
    assert desk.text == TEXTS[0]
    for _ in range(2):
        desk.decide("Digit1", "Enter")
    third = desk.record
    assert f"record={third}" in desk.page.url
    desk.page.reload()
    desk.ready()
    assert desk.record == third
    desk.page.go_back()
    assert "/records?q=" in desk.page.url


def test_a_reload_keeps_a_record_that_is_decided_or_was_skipped(desk: Desk) -> None:  # noqa: F811
    """A decided one shows its decision and can be corrected; a skipped one is open as before."""
    decided = desk.go("tone").decide("Digit1", "Enter")
    skipped = desk.decide("Space")
    desk.current(decided)
    desk.go("tone", f"?record={decided}")
    desk.page.reload()
    desk.ready()
    assert desk.record == decided and (desk.state(), desk.chosen()) == ("decided", ["good"])
    desk.decide("Digit2", "Enter")
    desk.until(lambda: desk.value(decided) == "bad")
    desk.go("tone", f"?record={skipped}")
    desk.page.reload()
    desk.ready()
    assert desk.record == skipped and desk.page.get_attribute("#desk", "data-state") == "pending"


def test_a_reload_takes_no_record_from_who_opened_it_meanwhile(desk: Desk) -> None:  # noqa: F811
    """It is shown, with who has it; their claim stays."""
    desk.go("tone")
    record, address = desk.record, desk.page.url
    desk.page.goto("about:blank")
    claims = "SELECT COUNT(*) FROM claims"
    desk.until(lambda: desk.instance.store.db.value(claims) == 0)
    project = desk.instance.store.projects.get(desk.project)
    task = desk.instance.task_of(project, "tone")
    assert desk.instance.queue(project, task).open(desk.people[1], record, "other page").token
    desk.page.goto(address)
    desk.ready()
    assert desk.record == record and "lee has it open" in desk.page.inner_text("[data-slot=meta]")
    holder = desk.instance.store.write(lambda tx: desk.instance.store.work.holder(tx, record, "tone"))
    assert holder is not None and holder["name"] == "lee"


def test_the_other_language_shows_the_same_record(desk: Desk) -> None:  # noqa: F811
    desk.go("tone", f"?record={of(desk, 'r4')}")
    desk.page.click("header button[name=language]")
    desk.page.wait_for_selector("html[lang=ko]")
    desk.ready()
    assert desk.text == TEXTS[4]


def test_the_desk_names_its_project_and_leads_to_it(desk: Desk) -> None:  # noqa: F811
    desk.go("tone").page.click(".desk-bar a >> text=fruit")
    desk.page.wait_for_selector(".tabs")
    assert desk.page.url.endswith(f"/projects/{desk.project}")


def test_an_empty_project_says_what_to_do_next(desk: Desk) -> None:  # noqa: F811
    """Not that everything is decided."""
    project = desk.instance.create_project("new", "en", {"tasks": TASKS}, desk.people[0])
    desk.page.goto(f"{desk.address}/projects/{project}/label/tone")
    desk.page.wait_for_selector("#desk.is-done")
    said = desk.page.inner_text("[data-done]")
    assert "No records yet" in said and "decided" not in said
    desk.page.click("[data-done] a")
    desk.until(lambda: desk.page.url.endswith(f"/projects/{project}/import"))


# Whether it is saved


def test_the_sign_says_saving_and_saved(desk: Desk) -> None:  # noqa: F811
    held = Held(desk, "decide")
    desk.go("tone")
    assert desk.page.inner_text("[data-sign]") == "All saved"
    record = desk.decide("Digit1", "Enter")
    desk.page.wait_for_selector("[data-sign][data-state=saving]")
    assert desk.page.inner_text("[data-sign]") == "Saving"
    held.let_go()
    desk.page.wait_for_selector("[data-sign][data-state=saved]")
    assert desk.value(record) == "good"


def test_being_offline_is_said_once(desk: Desk) -> None:  # noqa: F811
    """Nothing gets through, whatever was asked: the sign says it, no banner does, and it goes when an answer comes."""
    desk.go("tone").settle()
    desk.page.route("**/api/**", lambda route: route.abort())
    decided = [desk.decide("Digit1", "Enter")]
    desk.page.wait_for_selector("[data-sign][data-state=offline]")
    while desk.page.locator("#desk.is-waiting").count() == 0:
        desk.ready()
        decided.append(desk.record)
        desk.press("Digit1", "Enter")
    desk.until(lambda: f"{len(decided)} not saved yet" in desk.page.inner_text("[data-sign]"))
    assert desk.page.inner_text("body").lower().count("offline") == 1
    assert desk.page.locator(".banner").count() == 0
    desk.page.unroute("**/api/**")
    desk.page.wait_for_selector("[data-sign][data-state=saved]")
    desk.ready()
    assert {desk.value(record) for record in decided} == {"good"} and desk.record not in decided


# Colours


def test_a_suggested_label_is_framed_as_a_suggestion_whatever_its_colour(desk: Desk) -> None:  # noqa: F811
    """A dashed red frame around "negative" would look like an error."""
    desk.suggest("r0", "bad", "tone")
    desk.go("tone")
    frame = """(red) => {
        const pick = document.querySelector('.pick:has(input:checked)');
        if (red) pick.style.setProperty('--label', '#ff0000');
        const style = getComputedStyle(pick);
        return [style.borderTopStyle, style.borderTopColor, style.backgroundColor];
    }"""
    assert desk.page.evaluate(frame, False) == desk.page.evaluate(frame, True)
    assert desk.page.evaluate(frame, True)[0] == "dashed"


@pytest.mark.parametrize("code", ["Enter", "NumpadEnter"])
def test_enter_that_ends_a_syllable_does_not_change_the_order(desk: Desk, code: str) -> None:  # noqa: F811
    """Safari says by keyCode alone that the press belongs to the input method."""
    desk.go("tone", "?order=similar&similar=사과")
    left_alone = desk.page.evaluate(
        """(code) => document.querySelector("[name=similar_to]").dispatchEvent(new KeyboardEvent(
            "keydown", {code, key: "Enter", keyCode: 229, bubbles: true, cancelable: true}))""",
        code,
    )
    assert not left_alone


# What comes late leaves the hands alone


@pytest.fixture
def index_is_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> threading.Event:  # noqa: F811
    """Until this is set, the server is still reading its examples."""
    read = threading.Event()
    index = desk.instance.index(desk.instance.store.projects.get(desk.project), desk.instance.plugins.task("note"))
    monkeypatch.setattr(type(index), "ready", lambda self: read.is_set())
    return read


def test_a_suggestion_that_comes_late_leaves_the_cursor_in_the_field(
    desk: Desk,  # noqa: F811
    index_is_read: threading.Event,
) -> None:
    """Who went into the field to type types: no letter becomes a command."""
    desk.go("moods").decide("Digit1", "Enter")
    desk.press("Slash")
    before = desk.record
    index_is_read.set()
    desk.until(lambda: desk.state() == "suggested")
    desk.ready()
    desk.page.keyboard.type("x g")
    assert desk.page.input_value(".filter input") == "x g" and desk.record == before


def test_a_suggestion_waits_while_words_are_typed_that_are_no_value_yet(
    desk: Desk,  # noqa: F811
    index_is_read: threading.Event,
) -> None:
    """The word that is looked for stays in the filter; the suggestion comes once the filter is left."""
    desk.go("moods")
    desk.decide("Digit1", "Enter")
    desk.press("Slash")
    desk.page.keyboard.type("mood")
    with desk.page.expect_response("**/api/renew"):
        index_is_read.set()
    with desk.page.expect_response("**/api/renew"):
        desk.tick()
    assert desk.page.input_value(".filter input") == "mood" and desk.state() == ""
    desk.press("Escape")
    desk.until(lambda: desk.state() == "suggested")


def test_a_record_that_comes_leaves_the_cursor_in_the_field_of_the_order(desk: Desk) -> None:  # noqa: F811
    """While the next record is awaited a text to look for is typed: it goes on where it was begun."""
    held = Held(desk, "next", first=1)
    desk.go("tone", "?order=similar&similar=사과").press("Digit1", "Enter")
    desk.page.fill("[name=similar_to]", "")
    desk.page.keyboard.type("x")
    held.let_go()
    desk.ready()
    before = desk.record
    desk.page.keyboard.type(" x x")
    assert desk.page.input_value("[name=similar_to]") == "x x x" and desk.record == before
    assert desk.instance.store.annotations.current(before, "tone") is None


# Nothing that was typed or decided is lost


def test_what_undo_brought_back_outlives_a_reload(desk: Desk) -> None:  # noqa: F811
    """It was typed once, and stands nowhere else."""
    desk.go("note").press("KeyE")
    desk.page.keyboard.insert_text("오래 쓴 글")
    record = desk.decide("Control+Enter")
    desk.current(record)
    desk.settle()
    desk.press("Backspace")
    desk.until(lambda: desk.record == record)
    desk.page.reload()
    desk.ready()
    assert desk.record == record and desk.page.input_value("textarea") == "오래 쓴 글"


def test_undo_of_a_decision_that_is_refused_leaves_the_one_before(desk: Desk) -> None:  # noqa: F811
    """It is pressed while the decision is on its way, and somebody else was first: the page asks, and that is all."""
    first = desk.go("tone").decide("Digit1", "Enter")
    desk.current(first)
    held = Held(desk, "decide")
    desk.by_other(desk.record, "bad")
    second = desk.decide("Digit1", "Enter")
    desk.settle()
    desk.press("Backspace")
    held.let_go()
    desk.page.wait_for_selector(ASKS)
    desk.press("KeyK")
    desk.ready()
    assert (desk.value(first), desk.value(second)) == ("good", "bad") and desk.record not in (first, second)


def test_decisions_that_wait_their_turn_go_out_when_the_page_closes(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server is slow, three decisions are made, and the tab is closed: all three are stored, each once."""
    stored, slow = Decisions.decide, threading.Event()

    def decide(self: Decisions, reviewer_id: int, decision: Decision) -> Any:
        slow.wait(20)
        return stored(self, reviewer_id, decision)

    monkeypatch.setattr(Decisions, "decide", decide)
    other = Desk(desk.instance, desk.project, desk.people, desk.page.context.new_page(), desk.address)
    other.go("tone").settle()
    decided = [other.decide("Digit1", "Enter") for _ in range(3)]
    other.page.close()
    slow.set()
    assert [desk.value(record) for record in decided] == ["good"] * 3
    assert {len(desk.instance.store.annotations.history(record, "tone")) for record in decided} == {1}


def test_a_page_with_a_refused_decision_asks_before_it_is_left(desk: Desk) -> None:  # noqa: F811
    """Only this tab knows of it, and brings it again when the page is only loaded again."""
    desk.go("tone").settle()
    body = json.dumps({"error": "'good' is no label"})
    desk.page.route("**/api/decide", lambda r: r.fulfill(status=400, body=body, content_type="application/json"))
    desk.decide("Digit1", "Enter")
    desk.page.wait_for_selector("text=Open it again")
    asked = []

    def leave(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.accept()

    desk.page.on("dialog", leave)
    desk.page.reload()
    desk.page.wait_for_selector("text=Open it again")
    assert asked == ["beforeunload"]


def test_records_come_again_after_signing_in_elsewhere(desk: Desk) -> None:  # noqa: F811
    """Signed out while it waits for a record, the page goes on by itself once the person is back."""
    desk.go("tone").settle()
    cookies = desk.page.context.cookies()
    epoch = "UPDATE reviewers SET epoch = epoch + :by WHERE id = :id"
    desk.instance.store.write(lambda tx: tx.run(epoch, {"by": 1, "id": desk.people[0]}))
    desk.page.select_option("select[name=order]", "random")
    link = desk.page.wait_for_selector("[data-banner=unsent] a")
    with desk.page.expect_response("**/api/next") as answer:
        desk.tick()
    assert answer.value.status == 401 and link.is_visible()
    desk.instance.store.write(lambda tx: tx.run(epoch, {"by": -1, "id": desk.people[0]}))
    desk.page.context.add_cookies(cookies)
    desk.ready()
    assert desk.page.locator(".banner").count() == 0
