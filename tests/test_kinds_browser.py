"""Numbers, dates, orders and what may be left out, at the desk: with one hand, also with a Hangul input method on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import CHROMIUM, opened_browser, served, session_cookie
from test_desk_browser import Desk, hangul

from labeler import accounts
from labeler.app import create_app
from labeler.export import export_task
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance
from labeler.store import NewRecord

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"),
]
pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")

PLUGIN = """
from labeler import Choice, Date, Fields, Label, LabelError, Number, Ranking, Rating, Task, Text, hookimpl

class Calm(Text):
    def parse(self, raw, text=None):
        if "!" in str(raw):
            raise LabelError("Leave out the %(name)s", "calm", name="exclamation mark")
        return super().parse(raw, text)

@hookimpl
def register_tasks():
    items = [Label(name, {"en": name.title()}) for name in ("taste", "price", "service")]
    stars = Rating(1, 5, optional=True)
    return [
        Task("weight", Number(0, 100, 0.5, "kg")),
        Task("change", Number()),
        Task("paid", Number(0, None, 0.1, "원", optional=True)),
        Task("bought", Date()),
        Task("order", Ranking(*items)),
        Task("stars", Fields((Label("taste"), stars), (Label("delivery"), stars))),
        Task("mood", Choice(Label("good"), Label("bad"), optional=True)),
        Task("reply", Fields((Label("tone"), Choice(Label("a"), Label("b"))), (Label("words"), Calm()))),
    ]
"""
TASKS = ["weight", "change", "paid", "bought", "order", "stars", "mood", "reply"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as opened:
        yield opened


@pytest.fixture
def desk(browser: Any, tmp_path: Path) -> Iterator[Desk]:
    folder = tmp_path / "instance"
    (folder / "plugins").mkdir(parents=True)
    (folder / "plugins" / "kinds.py").write_text(PLUGIN, encoding="utf-8")
    with Instance(folder) as instance:
        assert instance.plugins.disabled == []
        kim = accounts.add_reviewer(instance.store, "kim", None)
        project = instance.create_project("fruit", "en", {"tasks": TASKS, "blind_share": 0.0}, kim)
        rows = [NewRecord(f"r{n}", f"사과 {n} 상자") for n in range(4)]
        instance.store.write(lambda tx: instance.store.records.add(tx, project, rows, TASKS))
        app = create_app(instance)
        with served(app) as address:
            context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
            context.add_cookies([session_cookie(app, kim) | {"url": address}])
            page = context.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            yield Desk(instance, project, [kim], page, address)
            context.close()
        assert errors == []


def shown(desk: Desk) -> str:
    return str(desk.page.input_value("[data-form] input"))


def complaint(desk: Desk) -> str:
    return str(desk.page.inner_text("[data-complaint]"))


def test_a_number_is_typed_without_going_into_the_field(desk: Desk) -> None:
    """The first digit takes the place of the suggestion, the next ones go on; the arrows go by the step."""
    desk.suggest("r0", 12, "weight")
    desk.go("weight")
    assert (shown(desk), desk.state()) == ("12", "suggested")
    desk.press("Digit7", "Period", "Numpad5")
    assert (shown(desk), desk.state()) == ("7.5", "corrected")
    assert desk.page.inner_text("[data-hint]") == "suggested: 12 kg"
    desk.press("ArrowUp", "ArrowUp", "ArrowDown")
    assert desk.value(desk.decide("Enter")) == 8
    desk.until(lambda: "8 kg" in desk.page.inner_text("[data-strip]"))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["Digit7", "Period", "Digit2"], "a multiple of 0.5"), (["Digit1", "Digit0", "Digit1"], "The most is 100"),
        (["Minus", "Digit1"], "The least is 0"), (["Delete"], "Type a number first"), (["Minus"], "not a number"),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_stays_and_says_why(desk: Desk, keys: list[str], said: str) -> None:
    desk.suggest("r0", 12, "weight")
    before = desk.go("weight").record
    desk.press(*keys)
    desk.settle()
    desk.press("Enter")
    assert said in complaint(desk) and desk.record == before


def test_a_number_in_the_field_is_approved_with_enter(desk: Desk) -> None:
    """The field takes what is typed, also a sign; E goes into it, and Enter in it approves."""
    desk.blank("change").press("KeyE")
    desk.page.keyboard.type("-3")
    assert desk.value(desk.decide("Enter")) == -3


@pytest.mark.parametrize("code", ["ArrowUp", "ArrowDown", "Minus", "Period", "Delete", "Digit7"])
def test_a_press_from_before_a_number_could_be_seen_does_not_change_it(desk: Desk, code: str) -> None:
    """An arrow that is still held when the next record comes was meant for the one before."""
    for key in ("r0", "r1"):
        desk.suggest(key, 12, "weight")
    desk.go("weight").settle()
    desk.page.evaluate(
        """(code) => [["Enter", false], [code, false], ["ArrowUp", true]].forEach(([code, repeat]) =>
            document.body.dispatchEvent(new KeyboardEvent("keydown", {code, repeat, bubbles: true})))""",
        code,
    )
    assert (shown(desk), desk.state()) == ("12", "suggested")
    assert "did not count" in desk.page.inner_text("[data-swallowed]")


def test_a_date_is_eight_digits(desk: Desk) -> None:
    """With the input method on, too; the arrows go on by days, over the end of a month."""
    desk.blank("bought")
    for digit in "20240228":
        hangul(desk, f"Digit{digit}", "Process", composing=False)
    assert shown(desk) == "2024-02-28"
    desk.press("ArrowUp", "ArrowUp")
    assert desk.value(desk.decide("Enter")) == "2024-03-01"
    before = desk.record
    desk.settle()
    desk.press(*(f"Digit{digit}" for digit in "20230229"))
    desk.settle()
    desk.press("Enter")
    assert complaint(desk) == "This is no day of the calendar" and desk.record == before


def test_a_ninth_digit_of_a_date_changes_nothing(desk: Desk) -> None:
    desk.blank("bought").press(*(f"Digit{digit}" for digit in "202402281"))
    assert shown(desk) == "2024-02-28"


def test_a_large_number_is_a_multiple_of_a_small_step(desk: Desk) -> None:
    """The page counts steps in binary, where 1556438.7 is not quite a multiple of 0.1."""
    desk.blank("paid").press(*(f"Digit{digit}" for digit in "1556438"), "Period", "Digit7")
    assert desk.value(desk.decide("Enter")) == 1556438.7


def test_a_suggestion_to_leave_a_number_out_is_called_empty(desk: Desk) -> None:
    """A unit alone is no number."""
    desk.suggest("r0", "", "paid")
    desk.go("paid").press("Digit3")
    assert desk.page.inner_text("[data-hint]") == "suggested: empty"


def test_an_order_takes_a_key_less_than_it_has_items(desk: Desk) -> None:
    """Over a suggested order the first key begins a new one; the last item takes the place that is left."""
    desk.suggest("r0", ["taste", "price", "service"], "order")
    desk.go("order")
    assert desk.page.inner_text("[data-hint]") == "Taste > Price > Service"
    hangul(desk, "Digit3", "Process", composing=False)
    desk.settle()
    desk.press("Enter")
    assert complaint(desk) == "Put all of them in order first"
    desk.press("Digit1")
    assert "Service > Taste > Price" in desk.page.inner_text("[data-hint]") and desk.state() == "corrected"
    assert desk.value(desk.decide("Enter")) == ["service", "taste", "price"]


def test_a_click_takes_an_item_out_again(desk: Desk) -> None:
    desk.blank("order")
    desk.page.click("text=Price")
    desk.page.click("text=Price")
    desk.page.click("text=Taste")
    desk.page.click("text=Price")
    assert desk.value(desk.decide("Enter")) == ["taste", "price", "service"]


def test_a_digit_goes_on_to_the_next_part(desk: Desk) -> None:
    """One key for each part; the next record begins with the first part again."""
    first = desk.blank("stars").decide("Digit3", "Digit4", "Enter")
    assert desk.value(first) == {"taste": 3, "delivery": 4}
    assert desk.page.locator(".part.active").get_attribute("data-part") == "taste"
    assert desk.value(desk.decide("Digit5", "Enter"))["taste"] == 5


def test_digits_go_to_the_part_that_the_mouse_was_in(desk: Desk) -> None:
    """A click gives the keys back, and the part stays in hand."""
    desk.blank("stars").page.click("[data-part=delivery] .pick >> text=2")
    assert desk.value(desk.decide("Digit4", "Enter")) == {"delivery": 4}


def test_a_rating_that_is_not_given_is_left_out(desk: Desk) -> None:
    desk.blank("stars").press("Digit3", "Digit4", "Shift+Tab", "Delete")
    assert desk.value(desk.decide("Enter")) == {"delivery": 4}


def wrong(desk: Desk) -> list[str | None]:
    """Return the parts that are marked as wrong."""
    return [part.get_attribute("data-part") for part in desk.page.query_selector_all(".part[aria-invalid=true]")]


def in_hand(desk: Desk) -> str:
    """Return the part that the focus is in."""
    return str(desk.page.evaluate("document.activeElement.closest('.part')?.dataset.part ?? ''"))


def test_a_part_that_is_missing_is_marked_and_in_hand(desk: Desk) -> None:
    """Nothing is sent; the keys go where something is to be done, and the mark goes with the first of them."""
    before = desk.blank("reply").record
    desk.settle()
    desk.page.fill("[data-part=words] textarea", "Thank you")
    desk.press("Control+Enter")
    assert (wrong(desk), in_hand(desk), desk.record) == (["tone"], "tone", before)
    assert complaint(desk).startswith("tone: ")
    desk.press("Digit2")
    assert wrong(desk) == [] and complaint(desk) == ""


def test_a_part_that_the_server_refused_is_marked_where_it_is_opened_again(desk: Desk) -> None:
    """The schema of a plugin refuses what the page knows nothing of; also after the page was loaded again."""
    before = desk.blank("reply").record
    desk.settle()
    desk.press("Digit1")
    desk.page.fill("[data-part=words] textarea", "Thank you!")
    desk.press("Control+Enter")
    desk.page.wait_for_selector("text=Leave out the exclamation mark")
    assert desk.record != before
    desk.page.reload()
    desk.page.click("text=Open it again")
    desk.until(lambda: wrong(desk) == ["words"])
    assert (desk.record, in_hand(desk)) == (before, "words")
    assert complaint(desk) == "words: Leave out the exclamation mark"
    desk.settle()
    desk.page.keyboard.press("Backspace")
    assert wrong(desk) == []
    desk.press("Control+Enter")
    desk.until(lambda: desk.record != before)
    desk.until(lambda: desk.page.get_attribute("[data-sign]", "data-state") == "saved")
    assert desk.value(before) == {"tone": "a", "words": "Thank you"}


def test_a_choice_that_is_left_out_is_approved_knowingly(desk: Desk) -> None:
    """As with other empty values, Enter alone is not enough."""
    before = desk.blank("mood").record
    desk.settle()
    desk.press("Enter")
    assert "This is empty" in complaint(desk) and desk.record == before
    desk.press("Digit1")
    assert desk.chosen() == ["good"]
    desk.press("Delete")
    assert desk.chosen() == []
    assert desk.value(desk.decide("Shift+Enter")) == ""
    desk.until(lambda: desk.page.get_attribute("[data-sign]", "data-state") == "saved")
    desk.go("mood")
    assert desk.record != before


def test_their_keys_stand_in_the_help(desk: Desk) -> None:
    desk.go("order").press("Shift+Slash")
    assert "Put an item in the next place" in desk.page.inner_text("[data-dialog=keys]")


@pytest.mark.parametrize(
    ("task", "value"),
    [("weight", 2.5), ("change", -3), ("bought", "2024-02-29"), ("order", ["price", "service", "taste"])],
)
def test_an_export_brings_it_into_the_next_project(desk: Desk, tmp_path: Path, task: str, value: Any) -> None:
    """A table holds each as it is read again."""
    desk.suggest("r0", value, task)
    record = desk.go(task).decide("Enter")
    assert desk.value(record) == value
    project = desk.instance.store.projects.get(desk.project)
    made = export_task(
        desk.instance.store, project, desk.instance.task_of(project, task), "csv", tmp_path / "made",
        formats=desk.instance.plugins.exporters,
    )  # fmt: skip
    file = Path(made.folder) / "train.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 1
    again = desk.instance.store.projects.get(desk.instance.create_project("again", "en", {"tasks": [task]}))
    desk.instance.importer(again).run(file, ImportOptions(text="text", id="key", labels={task: "value"}))
    found = desk.instance.store.records.by_key(again["id"], "r0")
    assert found is not None
    assert json.loads(desk.instance.store.annotations.current(found.id, task)["value"]) == value
