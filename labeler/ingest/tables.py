"""CSV and TSV: rows as the csv module reads them, with errors that name lines and a way back after a lost quote."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from labeler.errors import FileRefused
from labeler.ingest.columns import is_known
from labeler.ingest.dialect import NONE, Dialect, double_quotes, find_dialect
from labeler.ingest.encoding import Encoding, decode_chunks
from labeler.ingest.headers import HEAD, Header, find_header, looks_like_data, names_again, numbered, ragged
from labeler.ingest.lines import Line, split_lines
from labeler.ingest.rows import Row, RowError, RowSource
from labeler.ingest.stream import Stream, size_name
from labeler.sentence import Sentence

_SAMPLE = 1024 * 1024
_HEAD_SIZE = 4 * 1024**2
# Rows with a lost quote are read again from their second line. A file made to do so at every line is given up.
_READ_AGAIN = 64 * 1024**2
_ROW_LINES = 10_000


def open_table(
    stream: Stream, encoding: Encoding, *, delimiter: str | None, header: bool, header_row: str | None, tab_first: bool
) -> RowSource:
    """Return the rows of a CSV or TSV file; cells are str, also those that look like numbers or formulas.

    Only one row and one chunk are in memory. Lines of white space, and rows of nothing but empty cells, are passed
    over, and so are the column names where they stand again. A row that is ragged, holds bytes that cannot be decoded,
    NUL or a broken quote, or is larger than the limits becomes a :class:`RowError`, and the rows after it are read.
    Raises :class:`FileRefused` for an empty file.
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
    head = list(_head(rows))
    if not head:
        raise FileRefused("The file is empty")
    found = _header(head, header, header_row)
    columns, begun = found.names, head[found.rows :]
    notes = [*([encoding.note] if encoding.note else []), *found.notes]
    if header and len(columns) == 1 and not is_known(columns[0]):
        notes.append(
            Sentence("The first line was taken as the name of the only column: %(name)r", name=columns[0][:40])
        )
    return RowSource(
        format="tsv" if dialect.delimiter == "\t" else "csv",
        columns=columns,
        size=stream.size,
        rows=_named_rows(begun, rows, columns, header, notes),
        position=stream.position,
        close_file=stream.close,
        unpacked=lambda: stream.unpacked,
        encoding=encoding.name,
        delimiter=None if dialect.delimiter == NONE else dialect.delimiter,
        guessed=encoding.note is not None,
        notes=notes,
        header=found.shown,
    )


def _sample(stream: Stream, encoding: Encoding) -> tuple[str, bool]:
    head = stream.head(_SAMPLE)
    text = "".join(text for text, _ in decode_chunks([head], encoding))
    return text, len(head) < _SAMPLE


def _excel_hint(sample: str) -> tuple[int, str | None]:
    r"""Return the length of a first line like ``sep=;``, which Excel understands, and its delimiter."""
    hint = re.match(r'("?)sep=(.)\1(?:\r\n|\r|\n)', sample, re.IGNORECASE)
    return (hint.end(), hint[2]) if hint else (0, None)


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
            self.fault = fault if len(self._row) == 1 else Sentence("%(why)s (line %(n)s)", why=fault, n=self.number)
        if text is None:
            raise _TooLong
        self._size += len(text)
        if not again:
            self._all += len(text)
        if self._size > self._limit or len(self._row) > _ROW_LINES:
            size = f"{_ROW_LINES:,} lines" if len(self._row) > _ROW_LINES else size_name(self._limit)
            self.fault = Sentence(
                "the row is longer than %(size)s; a quote is opened in it and perhaps never closed", size=size
            )
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
                "The quotes in %(name)s are broken on too many lines (now at line %(n)s); check the "
                "delimiter and the quotes",
                name=self._name,
                n=self.number,
            )


Cells = tuple[int, list[str]]


def _rows(feed: _Feed, dialect: Dialect) -> Iterator[Cells | RowError]:
    """Yield (line, cells) for every row that is not blank."""
    reader = csv.reader(
        map(double_quotes, feed) if dialect.backslash else feed,
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
            yield RowError(start, None, feed.fault or Sentence("the row is too long"))
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
        return Sentence("a quote is opened in this row and never closed")
    if "expected after" not in message:
        return message
    if now > start:
        return Sentence("a quote is opened in this row and not closed before the next quote, on line %(n)s", n=now)
    return Sentence("a quote inside a quoted cell is not doubled")


def _head(rows: Iterator[Cells | RowError]) -> Iterator[Cells | RowError]:
    """Yield the rows among which the header stands."""
    size = 0
    for count, row in enumerate(rows, 1):
        yield row
        size += 0 if isinstance(row, RowError) else sum(map(len, row[1]))
        if count == HEAD or size > _HEAD_SIZE:
            return


def _header(head: Sequence[Cells | RowError], header: bool, wanted: str | None) -> Header:
    good = [row for row in head if not isinstance(row, RowError)]
    if not header or not good:
        first = head[0]
        if header and isinstance(first, RowError):
            raise FileRefused("The header (line %(n)s) cannot be read: %(why)s", n=first.number, why=first.reason)
        return Header([numbered(place) for place in range(1, 1 + len(good[0][1] if good else ()))], 0, [])
    found = find_header(good, wanted)
    last = head.index(good[found.rows - 1])
    wrong = next((row for row in head[:last] if isinstance(row, RowError)), None)
    if wrong is not None:
        raise FileRefused("The header (line %(n)s) cannot be read: %(why)s", n=wrong.number, why=wrong.reason)
    return found


def _named_rows(
    begun: Sequence[Cells | RowError], rows: Iterable[Cells | RowError], columns: list[str], header: bool,
    notes: list[str],
) -> Iterator[Row | RowError]:  # fmt: skip
    width, again, padded = len(columns), 0, 0
    numeric = _numeric_if_short([row[1] for row in begun if not isinstance(row, RowError)], width)
    for row in chain(begun, rows):
        if isinstance(row, RowError):
            yield row
            continue
        number, cells = row
        while len(cells) > width and not cells[-1].strip():
            cells.pop()
        if (
            header
            and cells[0].strip().lstrip("\ufeff") == columns[0]
            and [cell.strip().lstrip("\ufeff") for cell in cells] == columns
        ):
            again += 1
        elif len(cells) == width:
            yield Row(number, dict(zip(columns, cells, strict=True)))
        elif len(cells) < width and _fits(cells, numeric):
            padded += 1
            yield Row(number, dict.fromkeys(columns) | dict(zip(columns, cells, strict=False)))
        else:
            yield RowError(number, None, ragged(len(cells), width, header))
    if again:
        notes.append(names_again(again))
    if padded:
        notes.append(Sentence("%(n)s row(s) end before the last column; missing cells count as empty", n=padded))


def _numeric_if_short(rows: Sequence[Sequence[str]], width: int) -> set[int]:
    """Return the columns of numbers if the writer of a file leaves out empty cells at the end of a row.

    A row can also be short because a line break in its text cut it in two. Then one half is too long or does not fit,
    there is no telling which of the short rows are whole, and none is taken.
    """
    rows = [row for row in rows if len(row) <= width or any(row[width:])]
    full, short = [row for row in rows if len(row) == width], [row for row in rows if len(row) < width]
    numeric = {
        place
        for place in range(width)
        if (filled := [row[place] for row in full if row[place]]) and all(map(looks_like_data, filled))
    }
    whole = short and len(full) + len(short) == len(rows) and all(_fits(row, numeric) for row in short)
    return numeric if whole else set()


def _fits(cells: Sequence[str], numeric: set[int]) -> bool:
    """Tell whether the cells of a short row stand in their columns: numbers where the full rows have numbers."""
    told = [looks_like_data(cells[place]) for place in numeric if place < len(cells) and cells[place]]
    return len(told) > 0 and all(told)
