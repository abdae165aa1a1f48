"""The documents are easy to read: short sentences, and everyday words instead of bookish ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md")]
LONGEST = 35
BOOKISH = {
    "anew": "again", "mend": "fix, repair", "mends": "fixes", "mended": "fixed", "beside": "next to, in addition to",
    "stands": "is", "stand": "are", "stood": "was", "somebody": "you, the reviewer, a person", "one's": "your",
    "goes in": "is imported", "went in": "was imported", "comes out": "results",
    "(?<=[,;] )else": "otherwise, then",
}  # fmt: skip
"""Each with what to write instead."""


def prose(page: Path) -> Iterator[str]:
    """Yield each paragraph, item of a list and row of a table, without headings, code and what is quoted."""
    text = re.sub(r"```.*?```|<!--.*?-->", "\n", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"(``?)[^`]+\1", "CODE", re.sub(r"^(#|> ).*$", "\n", text, flags=re.MULTILINE))
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return (" ".join(part.split()) for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-|]|\d+\.) ?)", text))


def sentences(text: str) -> list[str]:
    """Return the sentences of a paragraph; each ends with a full stop, a question mark or an exclamation mark."""
    return re.split(r"(?<=[.!?])[”\")*]*\s+(?=[“\"(*\[]*[A-Z가-힣])", text)


def at(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=at)
def test_no_sentence_is_longer_than_a_breath(page: Path) -> None:
    """Outside of code and tables, a sentence has at most 35 words."""
    found = [one for part in prose(page) if not part.startswith("|") for one in sentences(part)]
    assert len(found) > 5, "the page is read"
    assert [one for one in found if len(one.split()) > LONGEST] == []


@pytest.mark.parametrize("page", PAGES, ids=at)
def test_bookish_words_do_not_come_back(page: Path) -> None:
    """Words that read like a translation; tables are read, too."""
    words = re.compile(rf"\b(?:{'|'.join(BOOKISH)})\b", re.IGNORECASE)
    assert [(found[0], part) for part in prose(page) for found in words.finditer(part)] == []
