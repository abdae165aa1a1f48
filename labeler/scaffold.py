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
    "backend": ("first.py", "first"),
    "embedder": ("letters.py", "letters"),
    "retriever": ("newest.py", "newest"),
    "importer": ("colons.py", "colons"),
    "exporter": ("conll.py", "conll"),
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
py-modules = ["{name}"]
"""
_TEST = '''"""The plugin keeps what every plugin has to."""

from pathlib import Path

import pytest
from labeler.testing import checks_of


@pytest.mark.parametrize("check", checks_of(Path(__file__).parent / "{name}.py"), ids=str)
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
    files = {
        f"{name}.py": source(kind, name),
        f"test_{name}.py": _TEST.format(name=name),
        "pyproject.toml": _PYPROJECT.format(name=name, dashed=name.replace("_", "-")),
    }
    place.mkdir(parents=True)
    for file, text in files.items():
        (place / file).write_text(text, encoding="utf-8")
    return [place / file for file in files]


def source(kind: str, name: str) -> str:
    """Return the example of a kind, with ``name`` in place of its own, in classes too."""
    file, own = EXAMPLES[kind]
    text = (resources.files("labeler_examples") / file).read_text(encoding="utf-8")
    titled = "".join(part.capitalize() for part in name.split("_"))
    text = re.sub(rf"\b{own.capitalize()}(?=[A-Z]|\b)", titled, text)
    # The suffix of an export format is that of its files, whatever it is called.
    before = r"\"\.?" if kind == "importer" else r"\""
    return re.sub(rf"({before}){own}(?=[\"-])", rf"\g<1>{name}", text)
