"""Every screen in a real browser: nothing keeps people from using it, and the desk fits the window it is shown in."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from browsers import CHROMIUM, opened_browser, session_cookie
from screens import BY_PRODUCT, PRODUCT, READY, TASKS, Place, Screen, all_screens, place

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"),
    # Playwright leaves its pipes and event loop to the interpreter's end.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
for module in ("playwright.sync_api", "axe_playwright_python"):
    pytest.importorskip(module, reason=f"{module} is not installed: pip install '.[dev]'")

PHONE, *WIDE = WINDOWS = (
    {"width": 375, "height": 812},
    {"width": 1280, "height": 800},
    {"width": 1440, "height": 900},
    {"width": 1920, "height": 1080},
    {"width": 2560, "height": 1440},
)
ALL = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# What another scheme or a small window can change: colours, and what has lost its words, its room or its keyboard.
# The rest is looked for once.
OF_LOOKS = ["color-contrast", "link-in-text-block", "target-size", "scrollable-region-focusable"]
OF_LOOKS += ["button-name", "link-name", "label", "select-name", "aria-input-field-name", "page-has-heading-one"]
# As high as the page: what the buttons at the bottom of a phone cover can be scrolled to, which axe-core does not know.
LOOKS = (("light", WIDE[0], ALL), ("dark", PHONE | {"height": 3000}, OF_LOOKS))
# Of rows that differ in nothing but their words, the first two are enough.
AXE = """(runOnly) => {
    const seen = new Map(), exclude = [];
    for (const row of document.querySelectorAll("tr, li, label")) {
        const like = row.outerHTML.replace(/>[^<]*\\S[^<]*</g, ">_<")
            .replace(/ (?!class|type|style|data-color|data-state)([\\w-]+)="[^"]+"/g, " $1");
        seen.set(like, (seen.get(like) || 0) + 1);
        if (seen.get(like) > 2) exclude.push(row);
    }
    const options = {runOnly, resultTypes: ["violations"], preload: false};
    return axe.run({include: [document], exclude}, options).then(({violations}) => violations.map(
        ({id, impact, nodes}) => `${impact}: ${id}: ${nodes.slice(0, 3).map(
            (node) => `${node.target.join(" ")} (${node.failureSummary.split("\\n").pop().trim()})`).join("; ")}`));
}"""
# The lines of a text as they are broken, of its first thousand characters.
LINES = """() => {
    const text = document.querySelector(".work > .record-text"), lines = [];
    const walker = document.createTreeWalker(text, NodeFilter.SHOW_TEXT), range = document.createRange();
    let top = -Infinity, seen = 0;
    while (walker.nextNode() && seen < 1000) {
        const {data} = walker.currentNode;
        for (let n = 0; n < data.length && seen < 1000; n += 1, seen += 1) {
            range.setStart(walker.currentNode, n);
            range.setEnd(walker.currentNode, n + 1);
            const box = range.getBoundingClientRect();
            if (box.width && box.top > top + box.height / 2) lines.push("");
            if (box.width) top = box.top;
            lines[lines.length - 1] += data[n];
        }
    }
    return lines;
}"""
BOXES = """() => {
    const box = (element) => {
        const {top, right, bottom, left, width} = element.getBoundingClientRect();
        return {top, right, bottom, left, width};
    };
    const find = (selector) => box(document.querySelector(selector));
    const range = document.createRange(), text = document.querySelector(".work > .record-text");
    range.selectNodeContents(text);
    const page = document.documentElement;
    return {
        pane: box(text), text: box(range), form: find(".form"), side: find(".side"), actions: find(".work > .actions"),
        buttons: [...document.querySelectorAll(".work > .actions button")].map((one) => box(one).top),
        hidden: document.querySelector(".form").scrollHeight - document.querySelector(".form").clientHeight,
        scrolls: page.scrollHeight > page.clientHeight, sideways: page.scrollWidth > page.clientWidth,
    };
}"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("screens") / "instance") as furnished:
        yield furnished


@pytest.fixture(scope="module")
def pages(here: Place) -> Iterator[dict[bool, Any]]:
    """A page of somebody who is signed in, and one of somebody who is not; any script error fails the tests."""
    script = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    errors: list[str] = []
    with opened_browser() as browser:
        found = {}
        for signed_in in (True, False):
            context = browser.new_context(viewport=WIDE[0], locale="ko-KR", reduced_motion="reduce")
            context.add_init_script(script)
            if signed_in:
                context.add_cookies([session_cookie(here.app, here.admin, "ko") | {"url": here.address}])
            found[signed_in] = page = context.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
        yield found
    assert errors == []


@pytest.fixture
def page(pages: dict[bool, Any]) -> Any:
    pages[True].emulate_media(color_scheme="light")
    return pages[True]


def faults(page: Any, screen: Screen) -> Iterator[str]:
    """Yield what axe-core finds, and whether the page scrolls sideways, light on a desk and dark on a phone."""
    for scheme, window, rules in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(window)
        found = page.evaluate(AXE, rules)
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            found.append("it scrolls sideways")
        yield from (f"{screen.name}, {scheme}, {window['width']}: {fault}" for fault in found)


def test_no_screen_keeps_anybody_out(here: Place, pages: dict[bool, Any]) -> None:
    """WCAG 2.2 AA, as far as axe-core can tell, on every screen: light and wide, dark and on a phone."""
    found = []
    for screen in all_screens(here):
        page = pages[screen.signed_in]
        page.set_viewport_size(WIDE[0])
        page.emulate_media(color_scheme="light")
        screen.open(page, here)
        found += faults(page, screen)
    assert found == []


# The desk in every window


def columns(line: str) -> int:
    """How many letters a line holds, a Hangul syllable counted as two: it is drawn twice as wide as a Latin letter."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line.strip())


def shown(page: Any, here: Place, task: str, key: str) -> None:
    page.goto(here.address + here.desk(task, key))
    page.wait_for_selector(READY)


@pytest.fixture(scope="module")
def measured(here: Place, pages: dict[bool, Any]) -> list[tuple[str, str, int, Any]]:
    """Where the parts of the desk stand: (task, key of the record, width of the window, their boxes)."""
    found = []
    seen = [(task, key) for task in TASKS for key in ((PRODUCT,) if task == BY_PRODUCT else ("short", "long"))]
    for task, key in [*seen, ("sentiment", "suspicious"), ("keywords", "doubtful"), ("keywords", "approved")]:
        shown(pages[True], here, task, key)
        for window in WINDOWS:
            pages[True].set_viewport_size(window)
            found.append((task, key, window["width"], pages[True].evaluate(BOXES)))
    return found


@pytest.fixture
def wide(measured: list[tuple[str, str, int, Any]]) -> list[tuple[str, str, int, Any]]:
    return [one for one in measured if one[2] > PHONE["width"]]


@pytest.mark.parametrize("key", ["long", "english"])
def test_a_line_is_neither_short_nor_long(here: Place, page: Any, key: str) -> None:
    """The longest line of a long review has 45 to 80 letters in every wide window, Korean or English."""
    shown(page, here, "sentiment", key)
    for window in WIDE:
        page.set_viewport_size(window)
        lines = page.evaluate(LINES)
        assert len(lines) > 5
        assert 45 <= max(map(columns, lines)) <= 80, window


def test_on_a_phone_the_text_takes_the_screen(measured: list[tuple[str, str, int, Any]]) -> None:
    """At 375 pixels little is left beside a long text, nothing scrolls sideways, and the buttons are in sight."""
    for task, key, width, found in measured:
        if width == PHONE["width"]:
            assert found["text"]["width"] > 0.9 * width or key != "long", task
            assert not found["sideways"], (task, key)
            assert found["actions"]["bottom"] <= PHONE["height"], (task, key)


def test_nothing_of_the_desk_is_out_of_sight(wide: list[tuple[str, str, int, Any]]) -> None:
    """In a wide window a long text scrolls in its place, not the page, and the form is whole above the buttons."""
    for task, key, width, found in wide:
        place = (task, key, width)
        assert not found["scrolls"] and not found["sideways"], place
        assert found["hidden"] == 0, place
        assert found["form"]["bottom"] <= found["actions"]["top"], place
        assert key != "long" or found["text"]["bottom"] > found["pane"]["bottom"], place


def test_the_labels_stand_in_one_place_near_the_text(wide: list[tuple[str, str, int, Any]]) -> None:
    """At one height in all records of a task, and never more than eight lines and a word below a text of one line."""
    for task in TASKS:
        for window in WIDE:
            found = [one for name, _, width, one in wide if (name, width) == (task, window["width"])]
            assert len({one["form"]["top"] for one in found}) == 1, (task, window)
    gaps = [found["form"]["top"] - found["text"]["bottom"] for _, key, _, found in wide if key == "short"]
    assert len(gaps) == (len(TASKS) - 1) * len(WIDE)
    assert 0 < min(gaps) <= max(gaps) < 360


def test_the_buttons_stay_where_they_are(wide: list[tuple[str, str, int, Any]]) -> None:
    """Approve and its neighbours stand at one height in all tasks, whatever the record."""
    for window in WIDE:
        tops = {top for _, _, width, found in wide if width == window["width"] for top in found["buttons"]}
        assert len(tops) == 1, window


def test_the_evidence_stands_beside_the_text(wide: list[tuple[str, str, int, Any]]) -> None:
    """However wide the window, evidence begins where the text ends, and the desk is in the middle."""
    for task, key, width, found in wide:
        assert 0 < found["side"]["left"] - found["pane"]["right"] < 48, (task, key, width)
        assert abs(found["pane"]["left"] - (width - found["side"]["right"])) < 1, (task, key, width)


# The state of a thing is told without its colour too


def test_a_chip_says_the_state_of_its_record(here: Place, page: Any) -> None:
    """Search results name the state of every task beside its title, and show a mark where there is a decision."""
    page.goto(f"{here.address}/projects/{here.values['project_id']}/records?q=주문")
    chip = page.locator(".chip.approved").first
    assert chip.get_attribute("aria-label") == "긍정·부정: 승인"
    assert "✓" in chip.evaluate("(link) => getComputedStyle(link, '::before').content")
