"""What every test would do again with the same outcome is done once per process: tables, templates, routes, plugins.

Processes that tests start take the real road, and so do tests of the road itself: of the migrations, of passwords.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from pytest import MonkeyPatch
from werkzeug.routing import Rule
from werkzeug.security import generate_password_hash

from labeler import accounts, store
from labeler.store import Store, check_new
from labeler.store import migrations as schema
from labeler.store.database import Database, check_local


def make_quick(patch: MonkeyPatch, folder: Path) -> None:
    """Change the parts of Labeler, Flask and Werkzeug that repeat themselves; ``folder`` is for files that are kept."""
    # Python takes a file of one size and second for the same: a plugin that a test writes anew would be the one before.
    patch.setattr(sys, "dont_write_bytecode", True)
    patch.setattr(store, "migrate", _copied_tables(folder))
    # Nobody cuts the power of this process, and the system keeps what was written.
    patch.setitem(Store.__init__.__kwdefaults__, "synchronous", "OFF")
    patch.setattr(accounts, "generate_password_hash", _cheap_hash)
    patch.setitem(Flask.jinja_options, "bytecode_cache", _Compiled())
    patch.setattr(metadata, "entry_points", _entry_points(metadata.entry_points))
    patch.setattr(Rule, "_compile_builder", _routes(Rule._compile_builder))


def _copied_tables(folder: Path) -> Callable[[Database], list[str]]:
    """Return a :func:`migrate` that makes a fresh database by copying one that went through all migrations."""
    known, migrate, made = schema.migrations, schema.migrate, folder / "made.db"
    Store(made).close()
    content = made.read_bytes()

    def copied(database: Database) -> list[str]:
        path = database.path
        # What fails, or where a test has migrations of its own, takes the real road.
        if not database.read_only and schema.migrations is known and not path.exists():
            with contextlib.suppress(OSError):
                check_local(path)
                check_new(path)
                _write_whole(path, content)
                return []
        return migrate(database)

    return copied


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that is never seen half, and is the first's where two write it at once."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{id(content)}.part")
    try:
        part.write_bytes(content)
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)


def _cheap_hash(password: str, method: str) -> str:
    """A password hash of the same kind that costs nothing: the real one takes a tenth of a second, on purpose."""
    return generate_password_hash(password, method=f"{method}:128:1:1")


class _Compiled(BytecodeCache):
    """Templates are compiled once for all apps. Jinja compares the source of each with what was compiled."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self.kept:
            bucket.bytecode_from_string(self.kept[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.kept[bucket.key] = bucket.bytecode_to_string()


def _entry_points(real: Callable[..., Any]) -> Callable[..., Any]:
    """What is installed is looked up once, for one ``sys.path``."""
    kept = cache(lambda path, **given: real(**given))
    return lambda **given: kept(tuple(sys.path), **given)


def _routes(real: Callable[..., Any]) -> Callable[..., Any]:
    """The functions that make the addresses of routes, which Werkzeug compiles for each app."""
    kept: dict[tuple[Any, ...] | None, Any] = {}

    def remembered(rule: Any, append_unknown: bool = True) -> Any:
        # What a function is made of where no value has a default.
        key = None if rule.defaults else (*rule._trace, append_unknown)
        if key not in kept or key is None:
            kept[key] = real(rule, append_unknown)
        return kept[key]

    return remembered
