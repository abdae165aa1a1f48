"""The beginning of a plugin: an example that works, under a name of its own, with what a package and a test need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from labeler.errors import InputError

EXAMPLES: Mapping[str, tuple[str, str]] = {
    "task": ("delivery.py", "delivery"),
    "label": ("amount.py", "amount"),
    "backend": ("first.py", "first"),
    "embedder": ("letters.py", "letters"),
    "retriever": ("newest.py", "newest"),
    "importer": ("colons.py", "colons"),
    "exporter": ("fasttext.py", "fasttext"),
    "hooks": ("phones.py", "phones"),
}
"""The example that a plugin of each kind begins with, and the name in it that the plugin's takes the place of."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_PYPROJECT = """[build-system]
requires = ["setuptools>=78.1.1"]
build-backend = "setuptools.build_meta"

[project]
name = "labeler-{dashed}"
version = "0.1.0"
dependencies = ["labeler-rag"]

# Labeler finds what is installed by this.
[project.entry-points.labeler]
{name} = "{name}"

[tool.setuptools]
{holds}
"""
_MODULE = 'py-modules = ["{name}"]'
_PACKAGE = 'packages = ["{name}"]\npackage-data = {{ {name} = ["*.html", "*.js"] }}'
_TEST = '''"""The plugin keeps what every plugin has to."""

from pathlib import Path

import pytest
from labeler.testing import checks_of


@pytest.mark.parametrize("check", checks_of(Path(__file__).parent), ids=str)
def test_contract(check):
    check()
'''


def write(name: str, kind: str, folder: Path) -> list[Path]:
    """Write a plugin of a kind into the new folder ``name`` and return its files.

    Raises :class:`InputError` for a name that no plugin can have, or a folder or module that is there already.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"The name {name[:40]!r} must be lower-case letters, digits and _, and begin with a letter")
    place = folder / name
    if place.exists():
        raise InputError(f"{place} is there already; choose another name")
    if find_spec(name) is not None:
        # Beside its test the plugin's file would stand in the way of the module.
        raise InputError(f"Python has a module {name!r} already; choose another name")
    widget = _widget(kind, name)
    # A form and a script travel with a package, not with a single file.
    files = {f"{name}/__init__.py": source(kind, name), **widget} if widget else {f"{name}.py": source(kind, name)}
    holds = (_PACKAGE if widget else _MODULE).format(name=name)
    files[f"test_{name}.py"] = _TEST
    files["pyproject.toml"] = _PYPROJECT.format(name=name, dashed=name.replace("_", "-"), holds=holds)
    for file, text in files.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(text, encoding="utf-8")
    return [place / file for file in files]


def _widget(kind: str, name: str) -> dict[str, str]:
    """Return the form and the script of a label schema of one's own, by file; nothing for other kinds."""
    own = EXAMPLES[kind][1]
    folder = resources.files("labeler_examples") / own
    if not folder.is_dir():
        return {}
    return {f"{name}/{name}{end}": (folder / f"{own}{end}").read_text(encoding="utf-8") for end in (".html", ".js")}


def source(kind: str, name: str) -> str:
    """Return the example of a kind, with ``name`` in place of its own, in classes too."""
    file, own = EXAMPLES[kind]
    text = (resources.files("labeler_examples") / file).read_text(encoding="utf-8")
    titled = "".join(part.capitalize() for part in name.split("_"))
    text = re.sub(rf"\b{own.capitalize()}(?=[A-Z]|\b)", titled, text)
    # The suffix of an export format is that of its files, whatever it is called.
    before = r"\"\.?" if kind == "importer" else r"\""
    text = re.sub(rf"({before}){own}(?=[\"-])", rf"\g<1>{name}", text)
    return text.replace(f'.parent / "{name}"', ".parent")
