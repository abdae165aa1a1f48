"""docs/troubleshooting.md quotes what the program says, in English and in Korean, so that a search finds it."""

from __future__ import annotations

import re

import pytest
from babel.messages.pofile import read_po
from helpers import ROOT
from test_sentences import HOLE, PACKAGE, texts

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^### `(.+)`\n\n(?:> (.+)\n\n)?(.+)", PAGE, re.MULTILINE)
OURS = [(sentence, korean) for sentence, korean, first in SECTIONS if not first.startswith("Said by ")]


def holed(text: str) -> str:
    # Remedies of servers end with what the server said, in brackets.
    return re.sub(rf" ?\({HOLE}\)\.$", ".", re.sub(r"%\(\w+\)s", HOLE, text))


@pytest.fixture(scope="module")
def said() -> set[str]:
    """What the program says, from where it is said and not from the list of what can be translated."""
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "sentences.py"]
    return {text for path in paths for text in texts(path)}


def test_every_quoted_sentence_is_said(said: set[str]) -> None:
    """Word by word; what is filled in stands as …, and some have parts that are said elsewhere."""
    assert len(OURS) > 35
    parts = [text for text in said if len(text) > 40]
    assert [one for one, _ in OURS if one not in said and not any(part in one for part in parts)] == []


def test_every_sentence_of_a_page_is_quoted_in_korean_too() -> None:
    """Under the English sentence stands what the Korean page says, and nothing where there is no such sentence."""
    with (ROOT / "labeler/translations/ko/LC_MESSAGES/messages.po").open("rb") as file:
        known = {holed(str(one.id)): holed(str(one.string)) for one in read_po(file)}
    # A sum has its sign in the sentence only in the code.
    wrong = [sentence for sentence, korean in OURS if known.get(sentence.replace("$…", HOLE), "") != korean]
    assert wrong == []
