"""The compare screen in a real browser: by keys alone, with the Hangul input method on, and by touch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browsers import CHROMIUM, opened_browser, served, session_cookie

from labeler import accounts
from labeler.app import create_app
from labeler.instance import Instance
from labeler.records import Suggestion
from labeler.store import NewRecord

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
TEXTS = ("사과가 아삭하고 달아요", "그냥 그래요", "포장이 터져서 왔네요 ㅠㅠ")
VALUES = ("positive", "neutral", "negative")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as opened:
        yield opened


@dataclass
class Screen:
    """The compare page of a task, and the store behind it."""

    instance: Instance
    page: Any

    @property
    def record(self) -> int:
        return int(self.page.get_attribute("[name=record_id]", "value"))

    def places(self) -> list[str]:
        return list(self.page.locator("[data-place]").all_inner_texts())

    def press(self, *codes: str) -> None:
        for code in codes:
            self.page.keyboard.press(code)

    def leads_on(self, *codes: str) -> int:
        """Press keys that lead to another record; return the one before, once the next page takes keys."""
        before = self.record
        self.press(*codes)
        self.page.wait_for_selector(f"#compare[data-ready]:not(:has([name=record_id][value='{before}']))")
        return before

    def card(self, value: str) -> str:
        """Return the key of the answer that says a value."""
        said = self.page.locator(".answer .said").all_inner_texts()
        return f"Digit{said.index(value) + 1}"

    def ranked(self) -> list[list[list[str]]]:
        """Return the rankings that count, as values, oldest first."""
        store = self.instance.store
        rows = store.db.all("SELECT ranked FROM rankings WHERE withdrawn_at IS NULL ORDER BY id")
        values = {str(row["id"]): row["value"] for row in store.db.all("SELECT id, value FROM suggestions")}
        return [
            [sorted(json.loads(values[name]) for name in tier) for tier in json.loads(row["ranked"])] for row in rows
        ]


@pytest.fixture
def screen(browser: Any, tmp_path: Path) -> Iterator[Screen]:
    """Three records with three answers each, in English; any script error fails the test."""
    with Instance(tmp_path / "instance") as instance:
        store = instance.store
        kim = accounts.add_reviewer(store, "kim", None)
        project = instance.create_project("fruit", "en", {"tasks": ["sentiment"], "blind_share": 0.0}, kim)
        rows = [NewRecord(f"r{n}", text, group="사과") for n, text in enumerate(TEXTS)]
        records = store.write(lambda tx: store.records.add(tx, project, rows, ["sentiment"]))
        made = [
            Suggestion(record.id, "sentiment", "1", "openai", value, value, None, kind=value)
            for record in records
            for value in VALUES
        ]
        store.write(lambda tx: [store.suggestions.add(tx, project, one) for one in made])
        app = create_app(instance)
        with served(app) as address:
            context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US", has_touch=True)
            context.add_cookies([session_cookie(app, kim) | {"url": address}])
            page = context.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(f"{address}/projects/{project}/compare?task=sentiment")
            page.wait_for_selector("#compare[data-ready]")
            yield Screen(instance, page)
            context.close()
        assert errors == []


def test_answers_are_ranked_by_keys_with_a_tie(screen: Screen) -> None:
    """The number of the best one, = for the next as good, Enter: what has no place comes last."""
    best, also = screen.card("Negative"), screen.card("Neutral")
    screen.press(best, "Equal", also)
    assert sorted(screen.places()) == ["", "1", "1"]
    screen.leads_on("Enter")
    assert screen.ranked() == [[["negative", "neutral"], ["positive"]]]


def test_a_whole_order_takes_a_number_for_each(screen: Screen) -> None:
    screen.press(screen.card("Neutral"), screen.card("Positive"), screen.card("Negative"))
    screen.leads_on("Enter")
    assert screen.ranked() == [[["neutral"], ["positive"], ["negative"]]]


@pytest.mark.parametrize("key", ["Digit0", "Numpad0", "KeyN"])
def test_none_is_good_takes_one_key(screen: Screen, key: str) -> None:
    screen.leads_on(key)
    assert screen.ranked() == [[["negative", "neutral", "positive"]]]
    assert screen.instance.store.db.value("SELECT none_good FROM rankings") == 1


def test_undo_takes_back_the_last_number_and_then_the_last_ranking(screen: Screen) -> None:
    """Enter without a number keeps nothing and says so; Space skips."""
    screen.press("Enter")
    assert screen.page.inner_text("[data-status]") == "Press a number first"
    screen.press("Digit2", "Digit1", "Backspace")
    assert screen.places() == ["", "1", ""]
    screen.press("Escape")
    assert screen.places() == ["", "", ""]
    skipped = screen.leads_on("Space")
    kept = screen.leads_on("Digit1", "Enter")
    assert kept != skipped and len(screen.ranked()) == 1
    screen.leads_on("Backspace")
    assert screen.record == kept and screen.ranked() == []


@pytest.mark.parametrize("composing", [True, False])
def test_keys_work_with_the_hangul_input_method_on(screen: Screen, composing: bool) -> None:
    """event.key is a jamo, keyCode 229, isComposing true or not: only the place of the key counts."""
    before = screen.record
    for code, key in (("Digit2", "2"), ("Equal", "="), ("Digit1", "1"), ("Enter", "Process")):
        screen.page.evaluate(
            """([code, key, isComposing]) => document.body.dispatchEvent(new KeyboardEvent(
                "keydown", {code, key, isComposing, keyCode: 229, bubbles: true, cancelable: true}))""",
            [code, key, composing],
        )
    screen.page.wait_for_selector(f"#compare[data-ready]:not(:has([name=record_id][value='{before}']))")
    assert [len(tier) for tier in screen.ranked()[0]] == [2, 1]


def test_a_held_key_saves_once(screen: Screen) -> None:
    """Auto-repeat neither ranks nor saves the record that comes next."""
    screen.press("Digit1")
    before = screen.record
    screen.page.keyboard.down("Enter")
    screen.page.wait_for_selector(f"#compare[data-ready]:not(:has([name=record_id][value='{before}']))")
    for _ in range(3):
        screen.page.keyboard.down("Enter")
    screen.page.keyboard.up("Enter")
    assert len(screen.ranked()) == 1


def test_a_phone_ranks_by_touch(screen: Screen) -> None:
    """Cards and buttons are as wide as the window, and a second tap takes a place back."""
    screen.page.set_viewport_size({"width": 375, "height": 812})
    assert screen.page.evaluate("document.documentElement.scrollWidth") <= 375
    cards = screen.page.locator(".answer")
    for n in (0, 1, 0):
        cards.nth(n).tap()
    assert screen.places() == ["", "1", ""]
    screen.page.locator('[data-do="tie"]').tap()
    cards.nth(2).tap()
    assert screen.places() == ["", "1", "1"]
    before = screen.record
    screen.page.locator('[data-do="approve"]').tap()
    screen.page.wait_for_selector(f"#compare[data-ready]:not(:has([name=record_id][value='{before}']))")
    assert [len(tier) for tier in screen.ranked()[0]] == [2, 1]


def test_when_nothing_is_left_it_says_where_more_comes_from(screen: Screen) -> None:
    """The last ranking can still be taken back there."""
    for _ in TEXTS:
        last = screen.leads_on("Digit1", "Enter")
    assert "two suggestions for it differ" in screen.page.inner_text(".done")
    screen.press("Backspace")
    screen.page.wait_for_selector(f"[name=record_id][value='{last}']", state="attached")
    assert len(screen.ranked()) == 2
