"""Column names: from a header row, or made up when a table has none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from labeler.errors import FileRefused

# A number, a date or a time alone in a cell: no column is called that.
_DATA = re.compile(r"[-+]?[\d.,:/ -]*\d[\d.,:/ -]*%?|\d{4}-\d\d-\d\d[T ].*")


def column_names(cells: Sequence[str]) -> list[str]:
    """Return the names in a header row, NFC and without outer white space; an empty one becomes "column N".

    Raises :class:`FileRefused` for a name that stands twice, and for a row that looks like data.
    """
    names = [unicodedata.normalize("NFC", cell).strip() or numbered(place) for place, cell in enumerate(cells, 1)]
    for name in names:
        if _DATA.fullmatch(name):
            raise FileRefused(
                f"The first row looks like data, not like column names: it has the cell {name[:40]!r}. "
                "If the file has no header, use --no-header"
            )
    places: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if name in places:
            raise FileRefused(
                f"The column name {name[:80]!r} stands twice in the header (columns {places[name]} and {place}); "
                "rename one of them"
            )
        places[name] = place
    return names


def refuse_title(header: Sequence[object], row: Sequence[object]) -> None:
    """Raise :class:`FileRefused` if the first row is the title of the table and not its header."""
    filled = sum(1 for cell in row if cell is not None and cell != "")
    if header and header[0] and not any(header[1:]) and filled > 1:
        raise FileRefused(
            f"The first row has one cell, but the row after it has {filled}; "
            "remove what stands above the column names, or give every column a name"
        )


def numbered(place: int) -> str:
    """Return the name of a column that has none; ``place`` counts from 1."""
    return f"column {place}"


def ragged(cells: int, columns: int, header: bool) -> str:
    """Say that a row does not have as many cells as the header, or as the first row where there is no header."""
    plural = "" if cells == 1 else "s"
    return f"row has {cells} cell{plural}, {'header' if header else 'the first row'} has {columns}"
