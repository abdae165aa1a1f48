"""Stored values, read for an export: those of closed lists are the same few again and again, and are read once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from labeler import strictjson
from labeler.errors import LabelError
from labeler.export.contacts import may_have
from labeler.records import Value
from labeler.task import Task

_MOST = 10_000
T = TypeVar("T")


class Read(NamedTuple):
    """A value, what it counts as, and what a model should answer, with the hash of that (16 bytes).

    ``contacts`` tells whether the answer may have contact data. ``why`` is the kind of finding that keeps the row out,
    if one does.
    """

    value: Value = None
    counts_as: tuple[str, ...] = ()
    answer: str = ""
    hash: bytes = b""
    contacts: bool = False
    why: str = ""


NO_TEXT = Read(why="empty_text")


def checked(task: Task, asked: Task) -> Callable[[str | None, str, str], Read]:
    """Return what reads a stored value, of a version of the task and a text, and says whether it may leave.

    ``asked`` is the task as models are asked for it.
    """

    def read(stored: str | None, version: str, text: str) -> Read:
        raw = None if stored is None else strictjson.loads(stored)
        if raw is None or (raw in ("", [], {}) and task.schema.empty() is None):
            return Read(why="empty_answer")
        try:
            value = task.read(raw, version, text)
        except LabelError:
            return Read(why="not_in_schema")
        try:
            answer = asked.answer(value)
        except LabelError:
            return Read(why="no_plain_answer")
        said = hashlib.sha256(answer.encode("utf-8")).digest()[:16]
        return Read(value, tuple(sorted(task.schema.strata(value))), answer, said, may_have(answer))

    return _once(task, read)


def reading(task: Task) -> Callable[[str | None, str, str], Value | None]:
    """Return what reads a stored value, None for none. It raises :class:`LabelError`."""

    def read(stored: str | None, version: str, text: str) -> Value | None:
        return None if stored is None else task.read(strictjson.loads(stored), version, text)

    return _once(task, read)


def _once(task: Task, read: Callable[[str | None, str, str], T]) -> Callable[[str | None, str, str], T]:
    """Return ``read`` so that it reads a value of a closed list once: it is the same whatever the text is."""
    if not (task.schema.one_of_labels or task.schema.set_of_labels):
        return read
    known: dict[tuple[str | None, str], T] = {}

    def found(stored: str | None, version: str, text: str) -> T:
        if (stored, version) not in known:
            if len(known) >= _MOST:
                known.clear()
            known[stored, version] = read(stored, version, text)
        return known[stored, version]

    return found
