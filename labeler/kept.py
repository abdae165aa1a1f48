"""A small file that is asked for often, and may be changed at any time by another process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
# Within the finest step of a file system's clock (2 s on FAT), a second change may leave time and size as they were.
_UNSURE = 2_000_000_000


class KeptFile(Generic[T]):
    """What a file says, read again only when its time, size or place on the disk has changed.

    ``read`` gets the path, or None while there is no such file. What it raises is raised to the caller and not kept.
    What it returns is handed to every caller: nobody may change it.
    """

    def __init__(self, path: Path, read: Callable[[Path | None], T]) -> None:
        self.path, self.read = path, read
        self._kept: tuple[tuple[int, int, int] | None, T] | None = None

    def now(self) -> T:
        """Return what the file says now."""
        mark, sure = self._mark()
        kept = self._kept
        if kept is not None and kept[0] == mark:
            return kept[1]
        self._kept = None
        value = self.read(None if mark is None else self.path)
        if sure:
            # The mark is older than the value: a change in between is met at the next call.
            self._kept = (mark, value)
        return value

    def _mark(self) -> tuple[tuple[int, int, int] | None, bool]:
        """Return what changes with the file (None: there is none), and whether any change from now on would show."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None, True
        return (found.st_mtime_ns, found.st_size, found.st_ino), time.time_ns() - found.st_mtime_ns > _UNSURE
