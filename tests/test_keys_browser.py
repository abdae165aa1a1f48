"""How many keys a decision takes at the desk: the table of the README, counted in a real browser with real keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import CHROMIUM, opened_browser, served, session_cookie
from test_desk_browser import Desk

from labeler import Label, accounts
from labeler.app import create_app
from labeler.instance import Instance
from labeler.store import NewRecord
from labeler.web.widgets import in_reach

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"),
]
pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")

TEXT = "사과가 아삭하고 달아요. 포장이 꼼꼼했어요. 배송은 하루 늦었네요."
PLUGIN = """
from labeler import Label, Ranking, Rating, Task, hookimpl

@hookimpl
def register_tasks():
    items = [Label(name) for name in ("taste", "price", "service", "packaging")]
    return [Task("rating", Rating(1, 5)), Task("ranking", Ranking(*items))]
"""
GOOD, BAD = "포장이 꼼꼼했어요.", "배송은 하루 늦었네요."
PHRASE, PACKED = {"text": "사과가", "start": 0, "end": 3}, {"text": "포장이 꼼꼼했어요", "start": 14, "end": 23}
SUGGESTED = {
    "sentiment": "positive",
    "rating": 4,
    "emotion": ["기쁨"],
    "categories": ["taste/texture"],
    "keywords": [PHRASE],
    "summary_polarity": {"good": GOOD},
    "summary_category": {"taste": GOOD},
    "usage": GOOD,
    "ranking": ["taste", "price", "service", "packaging"],
}
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
TABLE = {
    task: (int(accept), int(correct))
    for task, accept, correct in re.findall(r"^\| `(\w+)`[^|]*\| (\d) \| (\d)[^|]*\|", README, re.MULTILINE)
}
"""Keys to accept and to correct, by task: a summary's without what is typed."""


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
        kim = accounts.add_reviewer(instance.store, "kim", None)
        project = instance.create_project("fruit", "ko", {"tasks": list(SUGGESTED), "blind_share": 0.0}, kim)
        rows = [NewRecord("r0", TEXT), NewRecord("r1", "다시 주문할게요")]
        instance.store.write(lambda tx: instance.store.records.add(tx, project, rows, list(SUGGESTED)))
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


def suggested(desk: Desk, task: str) -> Desk:
    desk.suggest("r0", SUGGESTED[task], task)
    return desk.go(task)


def test_the_table_names_every_task() -> None:
    assert TABLE.keys() == SUGGESTED.keys()


@pytest.mark.parametrize("task", SUGGESTED)
def test_a_suggestion_is_accepted_with_as_many_keys_as_the_table_says(desk: Desk, task: str) -> None:
    keys = ["Enter"]
    assert len(keys) == TABLE[task][0]
    assert desk.value(suggested(desk, task).decide(*keys)) == SUGGESTED[task]


@pytest.mark.parametrize(
    ("task", "keys", "value"),
    [
        ("sentiment", ["Shift+Digit3"], "negative"),
        ("rating", ["Shift+Digit2"], 2),
        ("ranking", ["Digit4", "Digit2", "Digit1", "Enter"], ["packaging", "price", "taste", "service"]),
        ("keywords", ["Digit4", "Shift+ArrowRight", "Enter"], [PHRASE, PACKED]),
    ],
)  # fmt: skip
def test_a_correction_takes_as_many_keys_as_the_table_says(desk: Desk, task: str, keys: list[str], value: Any) -> None:
    """An order takes one for each item; a phrase of two words takes two, and Enter approves all of them."""
    most = TABLE[task][1] + (task == "keywords")
    assert len(keys) <= most
    assert desk.value(suggested(desk, task).decide(*keys)) == value


def keys_of(desk: Desk, picks: str) -> list[str]:
    """Return the presses that the keys drawn on some labels stand for."""
    names = desk.page.locator(f"{picks} kbd").all_inner_texts()
    return [
        ("Shift+" if name[0] == "⇧" else "") + ("Digit" if name[-1].isdigit() else "Key") + name[-1] for name in names
    ]


def test_every_emotion_is_one_key_away_and_two_are_approved(desk: Desk) -> None:
    """All 44 have a key of their own, which is drawn on the label; with the input method on it is the same place."""
    suggested(desk, "emotion")
    keys = keys_of(desk, ".pick")
    assert len(set(keys)) == 44 and TABLE["emotion"][1] == len(["a key", "Enter"])
    labels = desk.page.eval_on_selector_all(".pick input", "(inputs) => inputs.map((input) => input.value)")
    for label, key in zip(labels, keys, strict=True):
        before = label in desk.chosen()
        desk.press(key)
        assert (label in desk.chosen()) != before
    desk.press("Delete")
    assert desk.chosen() == []
    letter = next(key for key in keys if "Key" in key)
    desk.page.evaluate(
        """(code) => document.body.dispatchEvent(new KeyboardEvent("keydown", {code, key: "Process", keyCode: 229,
            isComposing: true, shiftKey: true, bubbles: true, cancelable: true}))""",
        letter.removeprefix("Shift+"),
    )
    assert desk.chosen() == [labels[keys.index(letter)]]


def test_every_category_is_two_keys_away(desk: Desk) -> None:
    suggested(desk, "categories")
    groups = desk.page.locator(".group").count()
    assert TABLE["categories"][1] == 3
    for n, key in enumerate(keys_of(desk, ".heading")[:groups]):
        inputs = desk.page.locator(f".group >> nth={n} >> input")
        before = len(desk.chosen())
        desk.press(*([key] if inputs.count() == 1 else [key, f"Digit{inputs.count()}"]))
        assert abs(len(desk.chosen()) - before) == 1


@pytest.mark.parametrize(
    ("task", "key"), [("summary_polarity", "Digit2"), ("summary_category", "Digit9"), ("usage", "KeyE")]
)
def test_a_summary_takes_two_keys_and_what_is_typed(desk: Desk, task: str, key: str) -> None:
    """A digit goes into any part, Ctrl+Enter approves from within it."""
    suggested(desk, task)
    assert TABLE[task][1] == 2
    desk.press(key)
    desk.page.keyboard.insert_text(" 늦어요")
    value = desk.value(desk.decide("Control+Enter"))
    assert any(said.endswith("늦어요") for said in ([value] if isinstance(value, str) else value.values()))


# Sentences


def test_a_sentence_of_the_review_is_put_into_a_part(desk: Desk) -> None:
    """The arrows take it in hand, the digit of the part puts it there, Escape lets it go."""
    suggested(desk, "summary_polarity").press("ArrowUp", "Digit2", "Escape")
    assert desk.page.locator(".record-text .cursor").count() == 0
    assert desk.value(desk.decide("Enter")) == {"good": GOOD, "bad": BAD}


def test_a_sentence_of_the_review_is_added_to_a_text(desk: Desk) -> None:
    suggested(desk, "usage").press("ArrowDown", "ArrowDown", "ArrowDown", "KeyA")
    assert desk.value(desk.decide("Enter")) == f"{GOOD} {BAD}"


def test_shift_and_a_digit_empties_a_part_and_puts_it_back(desk: Desk) -> None:
    suggested(desk, "summary_polarity").press("Shift+Digit1")
    assert desk.page.input_value("textarea >> nth=0") == ""
    desk.press("Shift+Digit1")
    assert desk.page.input_value("textarea >> nth=0") == GOOD


def test_a_sentence_moves_between_parts(desk: Desk) -> None:
    """Alt and an arrow take the sentence at the cursor along; the others stay."""
    desk.suggest("r0", {"good": f"{GOOD} {BAD}"}, "summary_polarity")
    desk.go("summary_polarity").press("Digit1", "End", "Alt+ArrowDown")
    assert desk.value(desk.decide("Control+Enter")) == {"good": GOOD, "bad": BAD}


# Phrases


def marked(desk: Desk) -> list[str]:
    return list(desk.page.locator(".phrases button:not(.gone) .title").all_inner_texts())


def test_the_keys_of_phrases_are_drawn_in_the_text_and_stay(desk: Desk) -> None:
    """Taking one out or marking another moves no number."""
    suggested(desk, "keywords")
    drawn = "(all) => all.map((one) => [one.dataset.key, one.textContent])"
    before = desk.page.eval_on_selector_all("[data-slot=text] [data-key]", drawn)
    assert before[:2] == [["1", "사과가"], ["2", "아삭하고"]]
    desk.press("Digit1", "Digit3")
    assert marked(desk) == ["달아요"]
    assert desk.page.eval_on_selector_all("[data-slot=text] [data-key]", drawn) == before


def test_the_word_cursor_goes_by_sentences_and_to_the_ends(desk: Desk) -> None:
    desk.blank("keywords").press("ArrowDown", "ArrowDown", "KeyA", "End", "KeyA", "Home", "Shift+ArrowRight", "KeyA")
    assert marked(desk) == ["사과가 아삭하고", "포장이", "늦었네요"]


# The order of many labels


def test_the_most_used_labels_have_the_digits_and_stand_first_in_their_colour() -> None:
    """A few approvals more or less change nothing."""
    labels = [Label(f"m{n}", color="#2e7d32" if n % 2 else "#c62828") for n in range(12)]
    first, second = in_reach(labels, {"m11": 40, "m10": 9, "m8": 8})
    assert [label.name for label, _ in first][:3] == ["m8", "m10", "m0"] and first[0][1] == 1
    assert second[0] == (labels[11], 0)
    assert in_reach(labels, {"m11": 40, "m10": 8, "m8": 9}) == [first, second]


def test_labels_that_the_digits_suffice_for_keep_their_order() -> None:
    labels = [Label(name) for name in "abc"]
    assert in_reach(labels, {"c": 9}) == [[(label, n) for n, label in enumerate(labels)]]


def test_labels_are_found_by_their_initial_consonants(desk: Desk) -> None:
    """Also where the input method makes one letter of two: ㅄ leads to 불신."""
    desk.blank("emotion").press("Slash")
    for typed in ("ㅎㅂ", "ㅄ"):
        desk.page.keyboard.insert_text(typed)
        desk.press("Enter")
    assert sorted(desk.chosen()) == ["의심/불신", "행복"]
