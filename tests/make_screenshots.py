"""Take a picture of every screen, in both languages, light and dark, at three widths: `make screenshots`.

The desk of every task is taken at five widths, with a short and a long review. The pictures are to be looked at: what
a test can measure is in test_screens.py, from the same list of screens.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from browsers import opened_browser, session_cookie
from screens import BY_PRODUCT, PRODUCT, TASKS, Place, Screen, all_screens, place
from test_screens import WIDE, WINDOWS

TARGET = Path(__file__).parent.parent / "build" / "screenshots"
LANGUAGES = ("ko", "en")
SCHEMES = ("light", "dark")
WIDTHS = (375, 1280, 1920)


def main() -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder, place(Path(folder) / "instance") as here, opened_browser() as browser:
        taken = sum(1 for language in LANGUAGES for _ in pictures(browser, here, language))
    print(f"{taken} pictures in {TARGET.relative_to(Path.cwd())}")


def pictures(browser: Any, here: Place, language: str) -> Iterator[Path]:
    pages = {}
    for signed_in in (True, False):
        context = browser.new_context(locale={"ko": "ko-KR", "en": "en-US"}[language], reduced_motion="reduce")
        if signed_in:
            context.add_cookies([session_cookie(here.app, here.admin, language) | {"url": here.address}])
        pages[signed_in] = context.new_page()
    for screen in desks(here):
        yield from looks(pages[True], here, screen, language, SCHEMES[:1], [window["width"] for window in WINDOWS])
    for screen in all_screens(here):
        yield from looks(pages[screen.signed_in], here, screen, language, SCHEMES, WIDTHS)
    for page in pages.values():
        page.context.close()


def desks(here: Place) -> list[Screen]:
    keys = {task: (PRODUCT,) if task == BY_PRODUCT else ("short", "long") for task in TASKS}
    return [Screen(f"five.{task}.{n}", here.desk(task, key)) for task in TASKS for n, key in enumerate(keys[task])]


def looks(page: Any, here: Place, screen: Screen, language: str, schemes: Any, widths: Any) -> Iterator[Path]:
    """Open a screen once, and take it in every scheme and width."""
    heights = {window["width"]: window["height"] for window in WINDOWS}
    page.set_viewport_size(WIDE[0])
    screen.open(page, here)
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        for width in widths:
            page.set_viewport_size({"width": width, "height": heights[width]})
            path = TARGET / language / scheme / str(width) / f"{screen.name}.png"
            page.screenshot(path=path, full_page="/label/" not in screen.path)
            yield path


if __name__ == "__main__":
    main()
