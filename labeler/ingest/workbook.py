"""Excel workbooks (.xlsx). Unlike the other formats a sheet is loaded whole; its size is checked before that."""

from __future__ import annotations

import datetime
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any

from labeler.errors import Doubt, FileRefused
from labeler.ingest.columns import could_name, guess_columns
from labeler.ingest.encoding import utf8_size
from labeler.ingest.headers import HEAD, find_header, names_again, numbered, ragged
from labeler.ingest.rows import Row, RowError, RowSource
from labeler.ingest.stream import Stream, size_name
from labeler.ingest.workbook_guard import check_workbook
from labeler.sentence import Sentence

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook


def open_workbook(stream: Stream, *, sheet: str | None, header: bool, header_row: str | None) -> RowSource:
    """Return the rows of one sheet: the named one, or else the one that can be seen and holds reviews.

    Cells are str, int, float, bool or None (empty, also ``#N/A``); dates and times are ISO strings, formulas
    the value that Excel saw last. Cells merged downwards all have the value. Rows without any value are passed over.
    """
    file = stream.seekable()
    check_workbook(file, stream.name, stream.limits)
    book = _load(file, stream.name)

    def table(name: str) -> _Table:
        return _Table(_load_sheet(book, name, stream.name), stream, header, header_row)

    chosen, others = _choose(book, sheet, table)
    found = table(chosen)
    if others:
        found.notes.append(
            Sentence("The sheet %(sheet)r was read; there are also: %(names)s", sheet=chosen, names=", ".join(others))
        )
    return RowSource(
        format="xlsx",
        columns=found.columns,
        size=stream.size,
        rows=found.rows(),
        position=found.position,
        close_file=stream.close,
        notes=found.notes,
        header=found.header,
        sheet=chosen if others else None,
    )


def archive_kind(file: IO[bytes]) -> str:
    """Say in words what a zip archive holds; an Excel workbook is ``xlsx``."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError):
        return Sentence("a damaged zip archive")
    kinds = {
        "xl/workbook.xml": "xlsx",
        "xl/workbook.bin": Sentence("a binary Excel workbook (.xlsb)"),
        "word/document.xml": Sentence("a Word document"),
        "ppt/presentation.xml": Sentence("a PowerPoint presentation"),
        "content.xml": Sentence("an OpenDocument file"),
    }
    return next((kind for name, kind in kinds.items() if name in names), Sentence("a zip archive"))


def _load(file: IO[bytes], name: str) -> CalamineWorkbook:
    from python_calamine import CalamineError, CalamineWorkbook

    file.seek(0)
    try:
        return CalamineWorkbook.from_filelike(file)
    except (CalamineError, OSError, ValueError) as error:
        raise FileRefused("%(name)s is damaged or no workbook: %(reason)s", name=name, reason=error) from error


def _load_sheet(book: CalamineWorkbook, sheet: str, name: str) -> CalamineSheet:
    from python_calamine import CalamineError

    try:
        return book.get_sheet_by_name(sheet)
    except (CalamineError, OSError, ValueError) as error:
        raise FileRefused(
            "The sheet %(sheet)r of %(name)s is damaged: %(reason)s", sheet=sheet, name=name, reason=error
        ) from error


def _choose(book: CalamineWorkbook, sheet: str | None, table: Callable[[str], _Table]) -> tuple[str, list[str]]:
    """Return the name of the sheet to read, and those of the others if nobody named it.

    Raises :class:`Doubt` where several look like reviews.
    """
    from python_calamine import SheetTypeEnum, SheetVisibleEnum

    names = [each.name for each in book.sheets_metadata if each.typ == SheetTypeEnum.WorkSheet]
    if sheet is not None:
        wanted = unicodedata.normalize("NFC", sheet)
        found = next((name for name in names if unicodedata.normalize("NFC", name) == wanted), None)
        if found is None:
            raise FileRefused(
                "There is no sheet %(sheet)r; the workbook has: %(names)s", sheet=sheet, names=", ".join(names)
            )
        return found, []
    seen = {each.name for each in book.sheets_metadata if each.visible == SheetVisibleEnum.Visible}
    candidates = [name for name in names if name in seen]
    if not candidates:
        raise FileRefused("The workbook has no sheet with cells that can be seen")
    if len(candidates) > 1:
        ranks = {name: _rank(table, name) for name in candidates}
        candidates = [name for name in candidates if ranks[name] == max(ranks.values())]
        if len(candidates) > 1 and max(ranks.values()) >= _REVIEWS:
            raise Doubt(
                "Several sheets of the workbook look like reviews: %(names)s. Import them one by one",
                [{"sheet": name} for name in candidates],
                names=", ".join(map(repr, candidates)),
            )
    return candidates[0], [name for name in names if name != candidates[0]]


_REVIEWS = 2


def _rank(table: Callable[[str], _Table], name: str) -> int:
    """Say how much a sheet looks like reviews: 0 for a notice, 1 for a table, 2 for texts, 3 for texts so named."""
    try:
        found = table(name)
    except Doubt:
        return 1
    except FileRefused:
        return 0
    head = [row.values for row in islice(found.rows(), HEAD) if isinstance(row, Row)]
    text = guess_columns(found.columns, head).text if head else None
    # One column of sentences is a notice, unless it says that it holds reviews.
    if len(found.columns) < 2 and not (text and could_name(text)):
        return 0
    return 1 if text is None else _REVIEWS + could_name(text)


class _Table:
    """The rows of a sheet under its header."""

    def __init__(self, sheet: CalamineSheet, stream: Stream, header: bool, header_row: str | None) -> None:
        self._has_header = header
        self._limit = stream.limits.max_row_bytes
        self._size = stream.size
        self._height = 1 + (sheet.end[0] if sheet.end else 0)
        self._done = 0
        self.notes: list[str] = []
        self.header: str | None = None
        rows = self._filled(sheet)
        head = list(islice(rows, HEAD))
        if not head:
            raise FileRefused("The sheet %(sheet)r is empty", sheet=sheet.name)
        good = [row for row in head if not isinstance(row, RowError)]
        if header and (not good or isinstance(head[0], RowError)):
            first = next(row for row in head if isinstance(row, RowError))
            raise FileRefused(
                "Row %(n)s of the sheet %(sheet)r cannot be read: %(why)s",
                n=first.number,
                sheet=sheet.name,
                why=first.reason,
            )
        if header:
            found = find_header(good, header_row)
            self.columns, self.header = found.names, found.shown
            self.notes += found.notes
            head = head[head.index(good[found.rows - 1]) + 1 :]
        else:
            self.columns = [numbered(place) for place in range(1, sheet.width + 1)]
        self._rows = chain(head, rows)

    def position(self) -> int:
        """Return the share of the file that the rows so far are, in bytes."""
        return self._size * self._done // max(1, self._height)

    def rows(self) -> Iterator[Row | RowError]:
        """Yield what is under the header."""
        width, again = len(self.columns), 0
        for row in self._rows:
            if isinstance(row, RowError):
                yield row
                continue
            number, cells = row
            if len(cells) > width:
                yield RowError(number, None, ragged(len(cells), width, self._has_header))
                continue
            if [unicodedata.normalize("NFC", str(cell)).strip() for cell in cells] == self.columns:
                again += 1
                continue
            values = dict.fromkeys(self.columns) | dict(zip(self.columns, cells, strict=False))
            yield self._too_long(number, values) or Row(number, values)
        if again:
            self.notes.append(names_again(again))

    def _filled(self, sheet: CalamineSheet) -> Iterator[tuple[int, list[Any]] | RowError]:
        """Yield (sheet row, cells up to the last one with a value) for every row that has one."""
        rows, merged = iter(sheet.iter_rows()), _Merged(sheet)
        while self._done < self._height:
            self._done += 1
            try:
                cells = [_plain(cell) for cell in next(rows)]
            except StopIteration:
                return
            except (ValueError, OverflowError) as error:
                # A time beyond what Python can say, in a damaged or handmade file.
                yield RowError(self._done, None, Sentence("a value cannot be read: %(reason)s", reason=error))
                continue
            while cells and cells[-1] is None:
                cells.pop()
            if cells:
                yield self._done, merged.fill(self._done - 1, cells)

    def _too_long(self, number: int, values: dict[str, Any]) -> RowError | None:
        for name, value in values.items():
            if isinstance(value, str) and len(value) * 3 > self._limit and utf8_size(value) > self._limit:
                return RowError(number, name, Sentence("the cell is longer than %(size)s", size=size_name(self._limit)))
        return None


class _Merged:
    """Cells merged downwards: the value stands in the first of them, and counts for each."""

    def __init__(self, sheet: CalamineSheet) -> None:
        ranges = [each for each in sheet.merged_cell_ranges or () if each[1][0] > each[0][0]]
        self._coming = sorted(ranges, reverse=True)
        self._open: list[tuple[int, int, Any]] = []

    def fill(self, row: int, cells: list[Any]) -> list[Any]:
        """Return the cells of a row, counted from 0, with the values of the merged cells that reach into it."""
        self._open = [each for each in self._open if each[0] >= row]
        for _, place, value in self._open:
            cells += [None] * (place + 1 - len(cells))
            if cells[place] is None:
                cells[place] = value
        while self._coming and self._coming[-1][0][0] <= row:
            (first, place), (last, _) = self._coming.pop()
            if first == row and place < len(cells) and cells[place] is not None:
                self._open.append((last, place, cells[place]))
        return cells


def _plain(cell: Any) -> Any:
    if isinstance(cell, str):
        return cell or None
    if isinstance(cell, float):
        # Excel has no integers; calamine hands out 1.0 for 1.
        return int(cell) if cell.is_integer() and abs(cell) < 2**53 else cell
    if isinstance(cell, datetime.timedelta):
        return str(cell)
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    return cell
