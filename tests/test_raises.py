"""A docstring says what its function refuses: the error that the body raises, or in words that it "is refused"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from helpers import ROOT

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, ast.Module]:
    """Return the modules of ``labeler`` without its pages and commands, whose errors a person meets."""
    paths = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "labeler").rglob("*.py"))}
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
        if not name.startswith(("labeler/cli/", "labeler/web/"))
    }


@cache
def classes() -> dict[str, ast.ClassDef]:
    return {node.name: node for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


@cache
def makers() -> dict[str, str]:
    """Return what functions return, by name: some make the error that is raised."""
    nodes = [node for tree in modules().values() for node in tree.body]
    return {node.name: ast.unparse(node.returns) for node in nodes if isinstance(node, Function) and node.returns}


def line(name: str) -> list[str]:
    """Return a class and those above it, by name."""
    above = classes()[name].bases if name in classes() else []
    return [name, *(one for base in above if isinstance(base, ast.Name) for one in line(base.id))]


def public(node: ast.AST, owner: str = "") -> Iterator[tuple[Function, str]]:
    """Yield each public function and method with its docstring; one without has that of the class above."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public(child, child.name)
        elif isinstance(child, Function) and not child.name.startswith("_"):
            same = [one for name in line(owner) if name in classes() for one in classes()[name].body]
            named = [one for one in [child, *same] if isinstance(one, Function) and one.name == child.name]
            yield child, next(filter(None, map(ast.get_docstring, named)), "")


def raised(node: ast.AST) -> Iterator[str]:
    """Yield the errors of Labeler that a body raises itself, not what functions inside of it do."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call) and isinstance(child.exc.func, ast.Name):
            name = makers().get(child.exc.func.id, child.exc.func.id)
            if "LabelerError" in line(name):
                yield name
        if not isinstance(child, (Function, ast.Lambda, ast.ClassDef)):
            yield from raised(child)


def silent() -> Iterator[str]:
    """Yield each function whose docstring leaves out an error: its place, its name, and the error."""
    for path, tree in modules().items():
        for node, said in public(tree):
            for name in sorted(set(raised(node))):
                if not re.search(rf"\b({'|'.join(line(name)[:-1])}|refuse[sd]?)\b", said):
                    yield f"{path}:{node.lineno} {node.name}: {name}"


def test_docstrings_name_what_is_refused() -> None:
    """By the class of the error or one above it, or in words."""
    assert list(silent()) == []
