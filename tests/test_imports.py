"""What may import what, and where: read from the source, so that every module is seen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import labeler

ROOT = Path(next(iter(labeler.__path__)))


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield the name of every module of the package, and its tree."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.AST) -> list[str]:
    """Return what an import statement names: "labeler.store", and "labeler.store.Row" for a name from there."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def test_nothing_but_the_registration_imports_the_backend_of_one_provider() -> None:
    """Pages, commands and executors go by what a backend says of itself: ``built_in`` alone knows it by name."""
    package = "labeler.backends.openai"
    found = {
        module
        for module, tree in modules()
        for node in ast.walk(tree)
        if any(name == package or name.startswith(f"{package}.") for name in imported(node))
    }
    assert {module for module in found if not module.startswith(package)} == {"labeler.built_in"}
