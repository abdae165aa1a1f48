"""What every reader hands over: rows, errors about rows, and the limits that all of them keep."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a file may hold once it is unpacked; beyond that it is a bomb, not reviews.

    ``max_ratio`` is bytes after unpacking for each packed byte; ``max_cells`` bounds the rectangle that a
    workbook's sheet spans, because that rectangle is held in memory.
    """

    max_bytes: int = 2 * 1024**3
    max_row_bytes: int = 10 * 1024**2
    max_ratio: int = 200
    max_cells: int = 20_000_000


class Row(NamedTuple):
    """One row. ``number`` is what a person sees: the line it starts on, the sheet row, or the place in a list."""

    number: int
    values: dict[str, Any]


class RowError(NamedTuple):
    """One row that was not read, and why. ``column`` is None when the whole row is meant."""

    number: int
    column: str | None
    reason: str


def composed(value: Any) -> Any:
    """Return a value in NFC, names and all, however deep: a file from a Mac writes Hangul in its letters."""
    if isinstance(value, str):
        return value if value.isascii() else unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        return {composed(name): composed(inner) for name, inner in value.items()}
    return type(value)(map(composed, value)) if isinstance(value, list) else value


def _are_composed(values: dict[str, Any]) -> bool:
    """Tell whether a row is plain texts in NFC. What stands within a text in NFC is in NFC, too."""
    try:
        return unicodedata.is_normalized("NFC", "".join([*values, *values.values()]))
    except TypeError:
        return False


@dataclass
class RowSource:
    """An open file: iterate it once for its rows, in NFC; it closes itself at the end, or as a context manager.

    ``columns`` are the names known before the first row (for JSON: those of the first rows). ``encoding`` and
    ``delimiter`` are None where a format has none. ``notes`` are sentences a person should see; the rows may add some
    at their end. ``guessed`` is true if one of them says that the encoding is only a guess. Raises
    :class:`~labeler.errors.TooLarge` while it is iterated if the file unpacks to more than its limits.
    """

    format: str
    columns: Sequence[str]
    size: int
    rows: Iterator[Row | RowError]
    position: Callable[[], int]
    """Bytes of the file on disk that were consumed so far, for a progress bar."""
    close_file: Callable[[], None]
    unpacked: Callable[[], int] = lambda: 0
    """Bytes that were unpacked so far, where the rows are read from a stream."""
    encoding: str | None = None
    delimiter: str | None = None
    guessed: bool = False
    notes: list[str] = field(default_factory=list)
    header: str | None = None
    """Which row holds the column names, where it is not the first: "5", or "1-2" for two joined rows."""
    sheet: str | None = None
    shape: str | None = None
    """The tool whose export it is, if :mod:`labeler.ingest.shapes` knows it."""

    def __iter__(self) -> Iterator[Row | RowError]:
        try:
            for row in self.rows:
                if isinstance(row, Row) and not _are_composed(row.values):
                    row = Row(row.number, composed(row.values))
                yield row
        finally:
            self.close()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self.close_file()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
