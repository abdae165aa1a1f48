"""Excel workbooks (.xlsx). Unlike the other formats a sheet is loaded whole; its size is checked before that."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from labeler.errors import FileRefused
from labeler.ingest.encoding import utf8_size
from labeler.ingest.headers import column_names, numbered, ragged, refuse_title
from labeler.ingest.rows import Row, RowError, RowSource
from labeler.ingest.stream import Stream, size_name
from labeler.ingest.workbook_guard import check_workbook

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook


def open_workbook(stream: Stream, *, sheet: str | None, header: bool) -> RowSource:
    """Return the rows of one sheet: the named one, or else the first that can be seen.

    Cells are str, int, float, bool or None (empty, also ``#N/A``); dates and times are ISO strings, formulas
    the value that Excel saw last. Rows without any value are passed over.
    """
    file = stream.seekable()
    check_workbook(file, stream.name, stream.limits)
    book = _load(file, stream.name)
    chosen, notes = _choose(book, sheet)
    table = _Table(_load_sheet(book, chosen, stream.name), stream, header)
    return RowSource(
        format="xlsx",
        columns=table.columns,
        size=stream.size,
        rows=table.rows(),
        position=table.position,
        close_file=stream.close,
        notes=notes,
    )


def archive_kind(file: IO[bytes]) -> str:
    """Say in words what a zip archive holds; an Excel workbook is ``xlsx``."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError):
        return "a damaged zip archive"
    kinds = {
        "xl/workbook.xml": "xlsx",
        "xl/workbook.bin": "a binary Excel workbook (.xlsb)",
        "word/document.xml": "a Word document",
        "ppt/presentation.xml": "a PowerPoint presentation",
        "content.xml": "an OpenDocument file",
    }
    return next((kind for name, kind in kinds.items() if name in names), "a zip archive")


def _load(file: IO[bytes], name: str) -> CalamineWorkbook:
    from python_calamine import CalamineError, CalamineWorkbook

    file.seek(0)
    try:
        return CalamineWorkbook.from_filelike(file)
    except (CalamineError, OSError, ValueError) as error:
        raise FileRefused(f"{name} is damaged or no workbook: {error}") from error


def _load_sheet(book: CalamineWorkbook, sheet: str, name: str) -> CalamineSheet:
    from python_calamine import CalamineError

    try:
        return book.get_sheet_by_name(sheet)
    except (CalamineError, OSError, ValueError) as error:
        raise FileRefused(f"The sheet {sheet!r} of {name} is damaged: {error}") from error


def _choose(book: CalamineWorkbook, sheet: str | None) -> tuple[str, list[str]]:
    from python_calamine import SheetTypeEnum, SheetVisibleEnum

    names = [each.name for each in book.sheets_metadata if each.typ == SheetTypeEnum.WorkSheet]
    if sheet is not None:
        if sheet not in names:
            raise FileRefused(f"There is no sheet {sheet!r}; the workbook has: {', '.join(names)}")
        return sheet, []
    seen = [each.name for each in book.sheets_metadata if each.visible == SheetVisibleEnum.Visible]
    chosen = next((name for name in seen if name in names), None)
    if chosen is None:
        raise FileRefused("The workbook has no sheet with cells that can be seen")
    others = [name for name in names if name != chosen]
    return chosen, [f"The sheet {chosen!r} was read; there are also: {', '.join(others)}"] if others else []


class _Table:
    """The rows of a sheet under its header: the first row that has a value."""

    def __init__(self, sheet: CalamineSheet, stream: Stream, header: bool) -> None:
        self._header = header
        self._limit = stream.limits.max_row_bytes
        self._size = stream.size
        self._height = 1 + (sheet.end[0] if sheet.end else 0)
        self._done = 0
        self._rows: Iterator[tuple[int, list[Any]] | RowError] = self._filled(sheet)
        first = next(self._rows, None)
        if first is None:
            raise FileRefused(f"The sheet {sheet.name!r} is empty")
        if isinstance(first, RowError):
            raise FileRefused(f"Row {first.number} of the sheet {sheet.name!r} cannot be read: {first.reason}")
        if header:
            self.columns = column_names(["" if cell is None else str(cell) for cell in first[1]])
            self._refuse_title(first[1])
        else:
            self._rows = chain([first], self._rows)
            self.columns = [numbered(place) for place in range(1, sheet.width + 1)]

    def position(self) -> int:
        """Return the share of the file that the rows so far are, in bytes."""
        return self._size * self._done // max(1, self._height)

    def rows(self) -> Iterator[Row | RowError]:
        """Yield what is under the header."""
        width = len(self.columns)
        for row in self._rows:
            if isinstance(row, RowError):
                yield row
                continue
            number, cells = row
            if len(cells) > width:
                yield RowError(number, None, ragged(len(cells), width, self._header))
                continue
            values = dict.fromkeys(self.columns) | dict(zip(self.columns, cells, strict=False))
            yield self._too_long(number, values) or Row(number, values)

    def _filled(self, sheet: CalamineSheet) -> Iterator[tuple[int, list[Any]] | RowError]:
        """Yield (sheet row, cells up to the last one with a value) for every row that has one."""
        rows = iter(sheet.iter_rows())
        while self._done < self._height:
            self._done += 1
            try:
                cells = [_plain(cell) for cell in next(rows)]
            except StopIteration:
                return
            except (ValueError, OverflowError) as error:
                # A time beyond what Python can say, in a damaged or handmade file.
                yield RowError(self._done, None, f"a value cannot be read: {error}")
                continue
            while cells and cells[-1] is None:
                cells.pop()
            if cells:
                yield self._done, cells

    def _refuse_title(self, header: list[Any]) -> None:
        second = next(self._rows, None)
        if second is None:
            return
        if not isinstance(second, RowError):
            refuse_title(header, second[1])
        self._rows = chain([second], self._rows)

    def _too_long(self, number: int, values: dict[str, Any]) -> RowError | None:
        for name, value in values.items():
            if isinstance(value, str) and len(value) * 3 > self._limit and utf8_size(value) > self._limit:
                return RowError(number, name, f"the cell is longer than {size_name(self._limit)}")
        return None


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
