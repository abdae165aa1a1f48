"""The texts that want a translation, found in the code and the templates.

``python tests/catalogue.py`` brings the Korean catalogue up to date: texts that are new stand in it without a
translation, those that are gone leave it, and what pages read is compiled.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "labeler"
WRITTEN = PACKAGE / "translations/ko/LC_MESSAGES/messages.po"
COMPILED = WRITTEN.with_suffix(".mo")
# What is read in a terminal is English: commands, what authors of plugins are told before a page is there, and what is
# said in Python.
ENGLISH = ("cli", "conformance.py", "door.py", "scaffold.py", "sklearn.py", "testing.py")


def modules() -> list[Path]:
    """Return the modules whose sentences a page may show."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in ENGLISH]


def marks() -> set[str]:
    """Return the names of what makes a sentence: the functions, and every class that derives from LabelerError."""
    found = {"_", "N_", "Sentence", "LabelerError"}
    classes = re.compile(r"^ *class (\w+)\((\w+)", re.MULTILINE)
    pairs = {pair for path in PACKAGE.rglob("*.py") for pair in classes.findall(path.read_text(encoding="utf-8"))}
    while more := {name for name, base in pairs if base in found} - found:
        found |= more
    return found - {"MissingExtra"}


def calls(path: Path, names: set[str]) -> Iterator[tuple[ast.Call, ast.expr]]:
    """Yield each call of a module that makes a sentence, with the expression of its template."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args:
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if called in names:
                yield node, node.args[0]


def texts() -> set[str]:
    """Return every text that a page or a prompt may show, as the catalogue has it."""
    found: set[str] = set()
    for _, _, message, _, _ in extract_from_dir(str(ROOT / "templates"), [("**.html", "jinja2")]):
        found |= {message} if isinstance(message, str) else set(message)
    names = marks()
    return found | {
        str(template.value)
        for path in modules()
        for _, template in calls(path, names)
        if isinstance(template, ast.Constant) and isinstance(template.value, str) and template.value
    }


def catalogue() -> Catalog:
    with WRITTEN.open("rb") as stream:
        return read_po(stream, locale="ko")


def main() -> None:
    found, wanted = catalogue(), texts()
    for message in [message for message in found if message.id and message.id not in wanted]:
        found.delete(message.id)
        print(f"Gone: {message.id}")
    for text in sorted(wanted):
        if text not in found:
            found.add(text)
            print(f"New: {text}")
    with WRITTEN.open("wb") as stream:
        write_po(stream, found, width=0, sort_output=True, no_location=True)
    with COMPILED.open("wb") as stream:
        write_mo(stream, found)


if __name__ == "__main__":
    main()
