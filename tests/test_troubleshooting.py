"""docs/troubleshooting.md quotes what the program says, so that a search finds it."""

from __future__ import annotations

import re

import pytest
from helpers import ROOT
from test_sentences import PACKAGE, texts

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^### `(.+)`\n\n(?:> .+\n\n)?(.+)", PAGE, re.MULTILINE)
OURS = [sentence for sentence, first in SECTIONS if not first.startswith("Said by ")]


@pytest.fixture(scope="module")
def said() -> set[str]:
    """What the program says, from where it is said and not from the list of what can be translated."""
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "sentences.py"]
    return {text for path in paths for text in texts(path)}


def test_every_quoted_sentence_is_said(said: set[str]) -> None:
    """Word by word; what is filled in stands as …, and some have parts that are said elsewhere."""
    assert len(OURS) > 35
    parts = [text for text in said if len(text) > 40]
    assert [one for one in OURS if one not in said and not any(part in one for part in parts)] == []
