"""The scripts of the desk: which imports which, and that the page asks for all of them at once."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from flask.testing import FlaskClient

DESK = Path(__file__).parents[1] / "static" / "desk"
IMPORT = re.compile(r'^(?:import|export)\b[^"]*?from "\./(\w+)\.js";$', re.MULTILINE)
IMPORTS = {path.stem: set(IMPORT.findall(path.read_text(encoding="utf-8"))) for path in DESK.glob("*.js")}
# What the desk is made of: each gets what it speaks to, and makes none of the others.
PARTS = ("commands", "decisions", "notes", "supply", "front", "trouble", "outbox", "form")


def test_no_scripts_import_each_other_in_a_circle() -> None:
    assert list(TopologicalSorter(IMPORTS).static_order())[-1] == "main"


def test_the_page_asks_for_every_script_at_once(client: FlaskClient, project: int) -> None:
    """What main.js imports, through others too, is named in the page: no script waits for another to be read."""
    page = client.get(f"/projects/{project}/label/sentiment").text
    asked = re.findall(r'rel="modulepreload" href="[^"]*/desk/(\w+)\.js"', page)
    assert sorted(asked) == sorted(set(IMPORTS) - {"main"})


@pytest.mark.parametrize("part", PARTS)
def test_main_puts_the_parts_together_and_no_part_does(part: str) -> None:
    """Nothing imports main.js, and only main.js makes a part."""
    made = re.compile(rf"\bnew {part.title()}\(")
    makers = [path.stem for path in DESK.rglob("*.js") if made.search(path.read_text(encoding="utf-8"))]
    assert makers == ["main"] and not any("main" in names for names in IMPORTS.values())
