"""The documents hold together: every link between them leads somewhere, and the index leads to each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import ROOT

PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# The page of the package index: it stands there alone.
NOT_LED_TO = {"README.md", "package.md"}


def links(page: Path) -> list[tuple[str, str]]:
    """Return the local links of a page, each as (path, anchor)."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text)
    return [(path, anchor) for path, anchor in found if "://" not in path]


def anchors(page: Path) -> set[str]:
    """Return what headings are called in links, as GitHub makes it."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_local_link_leads_somewhere(page: Path) -> None:
    """To a file that is there, and in it to a heading of that name."""
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_the_index_leads_to_every_page() -> None:
    """No page of docs/ can only be found by its name."""
    led_to = {path for path, _ in links(ROOT / "docs" / "README.md")}
    assert {page.name for page in PAGES if page.parent.name == "docs"} - led_to == NOT_LED_TO
