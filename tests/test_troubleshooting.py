"""docs/troubleshooting.md quotes what the program says, so that a search finds it."""

from __future__ import annotations

import ast
import re

import pytest
from catalogue import PACKAGE
from helpers import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^### `(.+)`\n\n(?:> .+\n\n)?(.+)", PAGE, re.MULTILINE)
OURS = [sentence for sentence, first in SECTIONS if not first.startswith("Said by ")]


@pytest.fixture(scope="module")
def said() -> set[str]:
    """What the program says, with … for what is filled in."""
    nodes = (node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {text for node in nodes if (text := with_holes(node))}


def with_holes(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return (
        re.sub(r"%\(\w+\)[rs]", "…", node.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        else ""
    )


def test_every_quoted_sentence_is_said(said: set[str]) -> None:
    """Word by word; what is filled in stands as …, and some have parts that are said elsewhere."""
    assert len(OURS) > 35
    parts = [text for text in said if len(text) > 40]
    assert [one for one in OURS if one not in said and not any(part in one for part in parts)] == []
