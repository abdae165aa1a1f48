"""The whole job in a real browser, on the demonstration project: what a newcomer does in the first five minutes.

One server process, one Chromium, one story told in order. Set LABELER_SCREENSHOT to a folder to keep the picture of
the README, which is of a demonstration as it is made.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browsers import CHROMIUM, opened_browser

from labeler import demo
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance
from labeler.serving import first_account
from labeler.worker import Worker

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    # Playwright leaves its pipes and event loop to the interpreter's end.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
# A press is taken only once a record could be seen.
READY = "#desk[data-ready]:not(.is-waiting)"
# Two records that resemble only each other: what is decided for the first must reach the second.
FIRST = "양말이 포근포근 보들보들 발목까지 폭 감싸 주는데 고무줄은 헐렁헐렁해서 자꾸 내려가요"
LATER = "양말이 포근포근 보들보들하긴 한데 고무줄은 헐렁헐렁, 걸으면 자꾸 내려가요 흑흑"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demonstration instance with two records more, and suggestions by the neighbours for sentiment."""
    folder = tmp_path_factory.mktemp("demo")
    extra = folder / "extra.jsonl"
    extra.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in (("first", FIRST), ("later", LATER))))
    with Instance(folder / "instance") as instance:
        project = demo.create(instance, first_account(instance.store, "demo"))
        instance.change_task(project["id"], "sentiment", {"backend": "nearest"})
        instance.importer(project).run(extra, ImportOptions())
        Worker(instance).run_until_idle()
    return folder / "instance"


@pytest.fixture(scope="module")
def link(folder: Path) -> Iterator[str]:
    with demonstration(folder) as link:
        yield link


@contextmanager
def demonstration(folder: Path) -> Iterator[str]:
    """Serve a demonstration; the one-time sign-in address that ``labeler demo`` prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "labeler", "demo", "--instance", str(folder), "--port", "0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found
    yield found.group()
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0, "Ctrl-C ends the demonstration cleanly"
    process.stdout.close()


@pytest.fixture(scope="module")
def page(link: str) -> Iterator[Any]:
    with opened_browser() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="ko-KR", accept_downloads=True)
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if "Content Security Policy" in m.text else None)
        yield page
        assert problems == []


def key_of(page: Any) -> str:
    return str(page.locator("[data-slot=meta] .key").inner_text())


def ime_key(page: Any, code: str, jamo: str) -> None:
    """Press a key as Chromium reports it while the Hangul input method is on: a jamo, composing, key code 229."""
    page.evaluate(
        """([code, key]) => {
          const options = {code, key, keyCode: 229, which: 229, isComposing: true, bubbles: true, cancelable: true};
          const target = document.activeElement;
          for (const type of ["keydown", "keyup"]) target.dispatchEvent(new KeyboardEvent(type, options));
        }""",
        [code, jamo],
    )


def until(page: Any, expression: str, arg: Any = None, seconds: float = 15.0) -> None:
    """Wait until a JavaScript expression holds. Playwright's own wait uses eval, which the page's CSP forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, f"never true: {expression}"
        page.wait_for_timeout(20)


HERE = "key => document.querySelector('[data-slot=meta] .key')?.innerText === key"
ELSEWHERE = """key => !document.querySelector('#desk.is-waiting')
  && document.querySelector('[data-slot=meta] .key')?.innerText !== key"""


def wait_for_other(page: Any, key: str) -> None:
    until(page, ELSEWHERE, key)
    page.wait_for_selector(READY)


def open_record(page: Any, base: str, folder: Path, key: str) -> None:
    with Instance(folder) as instance:
        record = instance.store.records.by_key(1, key)
    assert record is not None
    page.goto(f"{base}/projects/1/label/sentiment?record={record.id}")
    until(page, HERE, key)
    page.wait_for_selector(READY)


def chosen(page: Any) -> str | None:
    value = page.evaluate("document.querySelector('[data-form] input[type=radio]:checked')?.value ?? null")
    return None if value is None else str(value)


def base_of(link: str) -> str:
    return link.split("/welcome")[0]


def test_the_whole_job(page: Any, link: str, folder: Path, tmp_path: Path) -> None:
    """Sign in, label ten by keyboard with the IME on, correct, undo, see a later suggestion change, export, check."""
    base = base_of(link)
    page.goto(link)
    page.wait_for_url(lambda url: "/welcome" not in url)
    page.goto(f"{base}/projects/1/label/sentiment")
    page.wait_for_selector("[data-form] input[type=radio]")
    page.wait_for_selector(READY)

    decided: list[tuple[str, str]] = []
    while len(decided) < 10:
        key = key_of(page)
        if chosen(page) is None or len(decided) == 3:
            # A blind record, and one that is corrected whatever was suggested.
            ime_key(page, "Digit3", "ㅁ")
        value = chosen(page)
        assert value is not None
        ime_key(page, "Enter", "Enter")
        wait_for_other(page, key)
        decided.append((key, value))
    assert len({key for key, _ in decided}) == 10, "ten different records"
    assert decided[3][1] == "negative"

    last = decided.pop()
    here = key_of(page)
    ime_key(page, "Backspace", "Backspace")
    until(page, HERE, last[0])
    assert here != last[0], "undo brings the last record back"

    open_record(page, base, folder, "later")
    before = chosen(page)
    assert before is not None
    other = next(value for value in ("negative", "neutral", "positive") if value != before)
    open_record(page, base, folder, "first")
    ime_key(page, f"Digit{('positive', 'neutral', 'negative').index(other) + 1}", "ㅂ")
    assert chosen(page) == other
    ime_key(page, "Enter", "Enter")
    wait_for_other(page, "first")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        open_record(page, base, folder, "later")
        if chosen(page) == other:
            break
        page.wait_for_timeout(500)
    assert chosen(page) == other, "the approval of the first record is the suggestion of the one like it"
    assert FIRST[:20] in page.locator(".evidence").inner_text(), "and stands in its evidence"

    check_export(page, base, folder, [*decided, ("first", other)], last[0])


def check_export(page: Any, base: str, folder: Path, decided: list[tuple[str, str]], undone: str) -> None:
    page.goto(f"{base}/projects/1/export")
    page.select_option("[name=task]", "sentiment")
    page.check("[name=format][value=openai]", force=True)
    page.get_by_role("button", name=re.compile("^(내보내기|Export)$")).click()
    page.wait_for_selector("text=train.jsonl")
    files = list((folder / "exports").rglob("records.jsonl"))
    assert len(files) == 1
    rows = [json.loads(line) for line in files[0].read_text(encoding="utf-8").split("\n") if line]
    labels = {row["id"]: row["label"] for row in rows}
    assert {key: labels.get(key) for key, _ in decided} == dict(decided)
    assert undone not in labels, "what was undone does not leave"
    assert len(rows) == 60 + len(decided)
    train = [json.loads(line) for line in (files[0].parent / "train.jsonl").read_text("utf-8").split("\n") if line]
    assert train and all([m["role"] for m in row["messages"]] == ["system", "user", "assistant"] for row in train)


def test_first_page_of_the_demonstration_shows_a_right_suggestion(page: Any, tmp_path: Path) -> None:
    """What a newcomer sees first, and the README shows: a suggestion as the gold label has it, and its evidence."""
    with Instance(tmp_path) as instance:
        demo.create(instance, first_account(instance.store, "demo"))
        Worker(instance).run_until_idle()
    gold = {row["id"]: row["labels"]["sentiment"] for row in demo.reviews()}
    with demonstration(tmp_path) as link:
        page.goto(link)
        page.goto(f"{base_of(link)}/projects/1/label/sentiment")
        page.wait_for_selector(READY)
        assert chosen(page) == gold[key_of(page)]
        assert page.locator(".evidence").inner_text()
        target = os.environ.get("LABELER_SCREENSHOT")
        if target:
            page.screenshot(path=str(Path(target) / "desk.png"))
