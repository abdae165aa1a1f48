"""CSV and TSV: rows as the csv module reads them, with errors that name lines and a way back after a lost quote."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from labeler.errors import FileRefused
from labeler.ingest.dialect import NONE, Dialect, find_dialect
from labeler.ingest.encoding import Encoding, decode_chunks
from labeler.ingest.headers import column_names, numbered, ragged, refuse_title
from labeler.ingest.lines import Line, split_lines
from labeler.ingest.rows import Row, RowError, RowSource
from labeler.ingest.stream import Stream, size_name

_SAMPLE = 1024 * 1024
# Rows with a lost quote are read again from their second line. A file made to do so at every line is given up.
_READ_AGAIN = 64 * 1024**2
_ROW_LINES = 10_000


def open_table(
    stream: Stream, encoding: Encoding, *, delimiter: str | None, header: bool, tab_first: bool
) -> RowSource:
    """Return the rows of a CSV or TSV file; cells are str, also those that look like numbers or formulas.

    Only one row and one chunk are in memory. Lines of white space, and rows of nothing but empty cells, are
    passed over. A row that is ragged, holds bytes that cannot be decoded, NUL or a broken quote, or is larger
    than the limits becomes a :class:`RowError`, and the rows after it are read.
    """
    sample, complete = _sample(stream, encoding)
    skip, hint = _excel_hint(sample)
    dialect = find_dialect(
        sample[skip:], complete, delimiter=hint if delimiter is None else delimiter, tab_first=tab_first, header=header
    )
    limit = stream.limits.max_row_bytes
    # The csv module has one limit for the process, in characters; it is only ever raised here.
    csv.field_size_limit(max(limit + 1, csv.field_size_limit()))
    chunks = decode_chunks(iter(stream.read, b""), encoding)
    feed = _Feed(split_lines(chunks, encoding.name, limit, universal=True), limit, stream.name)
    if skip:
        feed.pass_over()
    rows = _rows(feed, dialect)
    columns, rows = _columns(rows, header)
    notes = [encoding.note] if encoding.note else []
    if header and len(columns) == 1 and dialect.delimiter == NONE:
        notes.append(
            f"The first line was taken as the name of the only column: {columns[0][:40]!r}. "
            "If it is a record, use --no-header"
        )
    return RowSource(
        format="tsv" if dialect.delimiter == "\t" else "csv",
        columns=columns,
        size=stream.size,
        rows=_named_rows(rows, columns, header),
        position=stream.position,
        close_file=stream.close,
        encoding=encoding.name,
        delimiter=None if dialect.delimiter == NONE else dialect.delimiter,
        guessed=encoding.note is not None,
        notes=notes,
    )


def _sample(stream: Stream, encoding: Encoding) -> tuple[str, bool]:
    head = stream.head(_SAMPLE)
    text = "".join(text for text, _ in decode_chunks([head], encoding))
    return text, len(head) < _SAMPLE


def _excel_hint(sample: str) -> tuple[int, str | None]:
    r"""Return the length of a first line like ``sep=;``, which Excel understands, and its delimiter."""
    line, end, _ = sample[:8].partition("\n")
    if end and len(line.rstrip("\r")) == 5 and line.lower().startswith("sep="):
        return len(line) + 1, line[4]
    return 0, None


class _TooLong(Exception):
    pass


class _Feed:
    """Hands physical lines to the csv module, and can take back those behind the first line of a row."""

    def __init__(self, lines: Iterator[Line], limit: int, name: str) -> None:
        self._lines = lines
        self._again: deque[Line] = deque()
        self._row: list[Line] = []
        self._limit = limit
        self._name = name
        self._size = self._all = self._read_again = 0
        self.number = 0
        self.fault: str | None = None

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        again = bool(self._again)
        line = self._again.popleft() if again else next(self._lines)
        text, fault = line
        self.number += 1
        self._row.append(line)
        if fault is not None and self.fault is None:
            self.fault = fault if len(self._row) == 1 else f"{fault} (line {self.number})"
        if text is None:
            raise _TooLong
        self._size += len(text)
        if not again:
            self._all += len(text)
        if self._size > self._limit or len(self._row) > _ROW_LINES:
            size = f"{_ROW_LINES:,} lines" if len(self._row) > _ROW_LINES else size_name(self._limit)
            self.fault = f"the row is longer than {size}; a quote is opened in it and perhaps never closed"
            raise _TooLong
        return text

    def start_row(self) -> int:
        """Forget the row before and return the number of the line that comes next."""
        self._size = 0
        self._row.clear()
        self.fault = None
        return self.number + 1

    def pass_over(self) -> None:
        """Skip one line."""
        self.start_row()
        next(self)

    def back_to_second_line(self) -> None:
        """Give the lines of this row out again, all but the first."""
        self._again.extendleft(reversed(self._row[1:]))
        self.number -= len(self._row) - 1
        self._read_again += self._size
        if self._read_again > _READ_AGAIN + 8 * self._all:
            raise FileRefused(
                f"The quotes in {self._name} are broken on too many lines (now at line {self.number}); "
                "check the delimiter and the quotes"
            )


Cells = tuple[int, list[str]]


def _rows(feed: _Feed, dialect: Dialect) -> Iterator[Cells | RowError]:
    """Yield (line, cells) for every row that is not blank."""
    reader = csv.reader(
        feed,
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_MINIMAL if dialect.quotes else csv.QUOTE_NONE,
        skipinitialspace=dialect.spaces,
        strict=True,
    )
    while True:
        start = feed.start_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _TooLong:
            yield RowError(start, None, feed.fault or "the row is too long")
            feed.back_to_second_line()
        except csv.Error as error:
            yield RowError(start, None, _quote_error(str(error), start, feed.number))
            feed.back_to_second_line()
        else:
            if feed.fault is not None:
                yield RowError(start, None, feed.fault)
            elif any(cells) and not (len(cells) == 1 and cells[0].isspace()):
                yield start, cells


def _quote_error(message: str, start: int, now: int) -> str:
    if "unexpected end" in message:
        return "a quote is opened in this row and never closed"
    if "expected after" not in message:
        return message
    if now > start:
        return f"a quote is opened in this row and not closed before the next quote, on line {now}"
    return "a quote inside a quoted cell is not doubled"


def _columns(rows: Iterator[Cells | RowError], header: bool) -> tuple[list[str], Iterator[Cells | RowError]]:
    first = next(rows, None)
    if first is None:
        raise FileRefused("The file is empty")
    if isinstance(first, RowError):
        if header:
            raise FileRefused(f"The header (line {first.number}) cannot be read: {first.reason}")
        return _columns_without_header([first], rows)
    if header:
        names = column_names(first[1])
        second = list(islice(rows, 1))
        if len(names) > 1 and second and not isinstance(second[0], RowError):
            refuse_title(first[1], second[0][1])
        return names, chain(second, rows)
    return _columns_without_header([first], rows)


def _columns_without_header(
    begun: list[Cells | RowError], rows: Iterator[Cells | RowError]
) -> tuple[list[str], Iterator[Cells | RowError]]:
    while isinstance(begun[-1], RowError):
        row = next(rows, None)
        if row is None:
            return [], iter(begun)
        begun.append(row)
    width = len(begun[-1][1])
    return [numbered(place) for place in range(1, width + 1)], chain(begun, rows)


def _named_rows(rows: Iterable[Cells | RowError], columns: list[str], header: bool) -> Iterator[Row | RowError]:
    width = len(columns)
    for row in rows:
        if isinstance(row, RowError):
            yield row
            continue
        number, cells = row
        if len(cells) == width:
            yield Row(number, dict(zip(columns, cells, strict=True)))
        else:
            yield RowError(number, None, ragged(len(cells), width, header))
