"""Column names: which row holds them, what stands above it, and names made up when a table has none.

Titles, the name of the shop and the time of the export often stand above the table, and names in two rows. What is
plain is read and noted; what is not is asked (:class:`~labeler.errors.Doubt`), since a header that is taken for a
review, or a review that is taken for the header, is found by nobody later.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_high
from typing import Any

from labeler.errors import Doubt, FileRefused
from labeler.ingest.columns import could_name, is_known
from labeler.sentence import N_, Sentence

# A number, a date or a time alone in a cell: no column is called that.
_DATA = re.compile(r"[-+]?[\d.,:/ -]*\d[\d.,:/ -]*%?|\d{4}-\d\d-\d\d[T ].*")
_PROSE = 8
_TITLES = 15
HEAD = 100
"""How many rows are looked at to find the header."""

Line = tuple[int, Sequence[Any]]
"""The number of a row, as a person sees it, and its cells."""


@dataclass(frozen=True, slots=True)
class Header:
    """``rows`` of the head are the header and what stands above it; ``notes`` say what was not plain about it."""

    names: list[str]
    rows: int
    notes: list[str]
    shown: str | None = None
    """Which row it is, where it is not the first: "5", or "1-2"."""


def find_header(head: Sequence[Line], wanted: str | None = None) -> Header:
    """Return the header of a table that begins with ``head``, at least one row, none of them empty.

    ``wanted`` is what a person said: "5", or "1-2" for names in two rows. Raises :class:`Doubt` where it is not plain,
    and :class:`FileRefused` for a name that stands twice.
    """
    if wanted is not None:
        return _given(head, wanted)
    at = _first_wide(head)
    below = head[at + 1 :]
    if _data_cell(head[at]) is not None and not any(map(is_known, _texts(head[at]))):
        _ask_for_data(head, at)
    if at and not any(map(could_name, _texts(head[at]))):
        raise Doubt(
            "Row %(n)s may hold the column names: %(cells)s. It may also be the first review",
            [{"header_row": str(head[at][0])}, {"header": False}],
            n=head[at][0],
            cells=_listed(head[at]),
        )
    if at and _complete(head[at], head[at - 1], below):
        return _made(head, at - 1, at)
    if len(head) > at + 2 and _complete(head[at], head[at + 1], head[at + 2 :]):
        return _made(head, at, at + 1)
    if not at:
        _ask_if_review(head)
    return _made(head, at, at)


def column_names(cells: Sequence[Any]) -> list[str]:
    """Return the names in a header row, NFC and without outer white space; an empty one becomes "column N".

    Raises :class:`FileRefused` for a name that stands twice.
    """
    names = [_text(cell) or numbered(place) for place, cell in enumerate(cells, 1)]
    places: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if name in places:
            raise FileRefused(
                "The column name %(name)r appears twice in the header (columns %(a)s and %(b)s); rename one of them",
                name=name[:80],
                a=places[name],
                b=place,
            )
        places[name] = place
    return names


def looks_like_data(text: str) -> bool:
    """Tell whether a cell holds nothing but a number, a date or a time."""
    return _DATA.fullmatch(text.strip()) is not None


def numbered(place: int) -> str:
    """Return the name of a column that has none; ``place`` counts from 1."""
    return f"column {place}"


def names_again(times: int) -> str:
    return Sentence("The column names are repeated in the middle, %(n)s time(s); these rows were skipped", n=times)


def ragged(cells: int, columns: int, header: bool) -> str:
    """Say that a row does not have as many cells as the header, or as the first row where there is no header."""
    if header:
        one, more = N_("row has 1 cell, header has %(columns)s"), N_("row has %(n)s cells, header has %(columns)s")
    else:
        one = N_("row has 1 cell, the first row has %(columns)s")
        more = N_("row has %(n)s cells, the first row has %(columns)s")
    return Sentence(one if cells == 1 else more, n=cells, columns=columns)


def _given(head: Sequence[Line], wanted: str) -> Header:
    asked = re.fullmatch(r"([1-9]\d{0,6})(?:-([1-9]\d{0,6}))?", wanted)
    if asked is None:
        raise FileRefused(
            "%(row)r is not a row of column names; write a number such as 5, or 1-2 for two rows", row=wanted
        )
    numbers = [number for number, _ in head]
    first, last = int(asked[1]), int(asked[2] or asked[1])
    if first not in numbers or last not in numbers or last < first:
        raise FileRefused(
            "Row %(row)s cannot hold the column names: it is empty or not among the first rows", row=wanted
        )
    return _made(head, numbers.index(first), numbers.index(last))


def _made(head: Sequence[Line], first: int, last: int) -> Header:
    number, end = head[first][0], head[last][0]
    shown = f"{number}-{end}" if last > first else str(number)
    notes: list[str] = []
    if first:
        notes.append(Sentence("Everything above the column names (row %(row)s) was skipped", row=shown))
    if last > first:
        notes.append(Sentence("The column names of the rows %(a)s and %(b)s were joined", a=number, b=end))
    cells = _joined([cells for _, cells in head[first : last + 1]])
    return Header(column_names(cells), last + 1, notes, shown if last else None)


def _joined(rows: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Return one row of names: of each column the lowest, with those above where two would be the same."""
    if len(rows) == 1:
        return rows[0]
    width = max(map(len, rows))
    levels = [[_text(row[place]) if place < len(row) else "" for place in range(width)] for row in rows]
    names = [next((level[place] for level in reversed(levels) if level[place]), "") for place in range(width)]
    often = Counter(names)
    for level in levels[:-1]:
        # A merged cell stands above several columns and in the first of them only.
        for place in range(1, width):
            level[place] = level[place] or level[place - 1]
    return [
        name if often[name] == 1 else " ".join(dict.fromkeys(level[place] for level in levels if level[place]))
        for place, name in enumerate(names)
    ]


def _first_wide(head: Sequence[Line]) -> int:
    """Return the first row that is about as wide as the table; those above it are titles."""
    typical = median_high([len(_filled(cells)) for _, cells in head[1:]] or [1])
    for place, line in enumerate(head[:_TITLES]):
        known = sum(map(is_known, _texts(line)))
        if known > 1 and len(_filled(line[1])) >= typical and _data_cell(line) is None:
            return place
        if known > 1 or len(_filled(line[1])) >= typical:
            break
    for place, (_, cells) in enumerate(head):
        filled = _filled(cells)
        # A table whose first column has no name, as pandas writes it, begins with an empty cell.
        title = len(filled) < 0.5 * typical or (len(filled) == 1 < typical and filled[0] == 0)
        if not title or typical == 1:
            # One name alone above a wide table is a title even where a column could be called so.
            return place
    return 0


def _complete(row: Line, other: Line, below: Sequence[Line]) -> bool:
    """Tell whether ``other`` holds the names that the header has gaps for, as cells merged over two rows leave them."""
    used = {place for _, cells in below for place in _filled(cells)}
    gaps = used - set(_filled(row[1]))
    return (
        len(gaps) > 0
        and gaps <= set(_filled(other[1]))
        and _data_cell(other) is None
        and any(map(could_name, _texts(other)))
    )


def _ask_for_data(head: Sequence[Line], at: int) -> None:
    number, cell = head[at][0], _data_cell(head[at])
    if at:
        raise Doubt(
            "No row of column names was found above row %(n)s, which looks like data: it has the cell "
            "%(cell)r. Name the columns, or say that the file has no names",
            [{"header": False}, {"header_row": str(head[at - 1][0])}],
            n=number,
            cell=cell,
        )
    raise Doubt(
        "The first row looks like data, not like column names: it has the cell %(cell)r. Are there no column names?",
        [{"header": False}, {"header_row": str(number)}],
        cell=cell,
    )


def _ask_if_review(head: Sequence[Line]) -> None:
    """Raise :class:`Doubt` if the first row looks like the rows below it and has no name that is known."""
    number, cells = head[0]
    if any(map(could_name, _texts(head[0]))):
        return
    for place in _filled(cells):
        under = [_text(row[place]) for _, row in head[1:] if place < len(row)]
        name = _text(cells[place])
        often = Counter(under)
        again = len(often) > 1 and len(under) > 2 * len(often) and name in often
        prose = _is_prose(name) and len(under) > 0 and sum(map(_is_prose, under)) >= 0.5 * len(under)
        if again or prose:
            raise Doubt(
                "The first row may hold the column names or already a review: %(cells)s",
                [{"header_row": str(number)}, {"header": False}],
                cells=_listed(head[0]),
            )


def _is_prose(text: str) -> bool:
    return len(text) >= _PROSE and " " in text and not text.endswith("?")


def _data_cell(line: Line) -> str | None:
    return next((text[:40] for text in _texts(line) if looks_like_data(text)), None)


def _filled(cells: Sequence[Any]) -> list[int]:
    return [place for place, cell in enumerate(cells) if cell is not None and cell != ""]


def _texts(line: Line) -> list[str]:
    return [_text(line[1][place]) for place in _filled(line[1])]


def _text(cell: Any) -> str:
    return "" if cell is None else unicodedata.normalize("NFC", str(cell)).strip()


def _listed(line: Line) -> str:
    return ", ".join(repr(text[:30]) for text in _texts(line)[:5])
