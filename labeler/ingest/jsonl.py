"""JSON Lines and JSON arrays: one object is one row, read one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from labeler.errors import FileRefused, JsonError
from labeler.ingest.encoding import IN_RECORD, Encoding, decode_chunks, fault, utf8_size
from labeler.ingest.lines import split_lines
from labeler.ingest.rows import Row, RowError, RowSource
from labeler.ingest.stream import Stream, size_name
from labeler.sentence import N_, Sentence
from labeler.strictjson import loads

_PEEK_ROWS = 100
_PEEK_BYTES = 4 * 1024**2
_WHITE = " \t\r\n"
# Every row is parsed alone, so the line in what is said of it means nothing.
_OF_ROW = {
    "Not JSON at line %(line)s, column %(column)s: %(why)s": N_("Not JSON at column %(column)s: %(why)s"),
    "JSON nested deeper than %(n)s levels at line %(line)s": "JSON nested deeper than %(n)s levels",
}


def open_lines(stream: Stream, encoding: Encoding) -> RowSource:
    r"""Return the rows of a JSON Lines file. Lines end at ``\n`` alone, so U+2028 in a text does no harm."""
    limit = stream.limits.max_row_bytes
    chunks = decode_chunks(iter(stream.read, b""), encoding)
    lines = split_lines(chunks, encoding.name, limit, universal=False)
    return _source("jsonl", stream, encoding, _from_lines(lines))


def open_array(stream: Stream, encoding: Encoding) -> RowSource:
    """Return the rows of a JSON file that is one list of objects, without reading the whole list."""
    chunks = decode_chunks(iter(stream.read, b""), encoding)
    elements = _elements(chunks, stream.limits.max_row_bytes)
    return _source("json", stream, encoding, _from_elements(elements, encoding.name))


def _source(format_: str, stream: Stream, encoding: Encoding, rows: Iterator[Row | RowError]) -> RowSource:
    begun: list[Row | RowError] = []
    until = stream.unpacked + _PEEK_BYTES
    for row in rows:
        begun.append(row)
        if len(begun) == _PEEK_ROWS or stream.unpacked > until:
            break
    whole = [begun[0].values] if len(begun) == 1 and isinstance(begun[0], Row) else []
    if whole and _is_columns(whole[0]):
        # Only the end of the file says that it was the only one.
        begun += [row for row in [next(rows, None)] if row is not None]
        begun = list(_from_columns(whole[0])) if len(begun) == 1 else begun
    return RowSource(
        format=format_,
        columns=list(dict.fromkeys(name for row in begun if isinstance(row, Row) for name in row.values)),
        size=stream.size,
        rows=chain(begun, rows),
        position=stream.position,
        close_file=stream.close,
        unpacked=lambda: stream.unpacked,
        encoding=encoding.name,
        guessed=encoding.note is not None,
        notes=[encoding.note] if encoding.note else [],
    )


def _is_columns(values: dict[str, Any]) -> bool:
    """Tell whether an object holds columns, each by row number: what pandas writes unless told otherwise."""
    columns = list(values.values())
    if not columns or not all(isinstance(column, dict) and column for column in columns):
        return False
    return all(list(column) == list(columns[0]) for column in columns) and all(map(str.isdigit, columns[0]))


def _from_columns(values: dict[str, Any]) -> Iterator[Row]:
    for number, key in enumerate(next(iter(values.values())), 1):
        yield Row(number, {name: column[key] for name, column in values.items()})


def _from_lines(lines: Iterable[tuple[str | None, str | None]]) -> Iterator[Row | RowError]:
    for number, (text, wrong) in enumerate(lines, 1):
        if text is None or wrong:
            yield RowError(number, None, wrong or Sentence("the line is too long"))
        elif text.strip(_WHITE):
            yield _row(number, text)


def _row(number: int, text: str) -> Row | RowError:
    try:
        value = loads(text)
    except JsonError as error:
        found = error.sentence
        return RowError(number, None, Sentence(_OF_ROW.get(found.template, found.template), **found.values))
    if not isinstance(value, dict):
        kind = {
            list: Sentence("a list"),
            str: Sentence("a string"),
            bool: Sentence("true or false"),
            type(None): Sentence("null"),
        }.get(type(value), Sentence("a number"))
        return RowError(number, None, Sentence("not a JSON object but %(got)s", got=kind))
    return Row(number, value)


def _from_elements(elements: Iterable[tuple[str | None, str | None]], encoding: str) -> Iterator[Row | RowError]:
    for number, (text, wrong) in enumerate(elements, 1):
        if text is None or wrong:
            yield RowError(number, None, wrong or "")
            continue
        bad = fault(text, encoding, IN_RECORD) if "\x00" in text or not text.isascii() else None
        yield RowError(number, None, bad) if bad else _row(number, text)


# What ends a stretch outside of strings, a whole flat object (the usual record), and the inside of a string.
_MARK = re.compile(r'["\[\]{},]')
_FLAT = re.compile(r'\{(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+\}', re.DOTALL)
_INSIDE = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)


def _elements(chunks: Iterable[tuple[str, bool]], limit: int) -> Iterator[tuple[str | None, str | None]]:
    """Yield the elements of one JSON list as text, and (None, reason) for those that are not to be had.

    Brackets and strings are followed, nothing else is checked; so a wrong element ends where its brackets do,
    and the elements after it are read.
    """
    scanner = _Scanner(limit)
    for text, _ in chunks:
        yield from scanner.feed(text)
        if scanner.error:
            break
    yield from scanner.end()


class _Scanner:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[str] = []
        self._size = 0
        self._carry = ""
        self._depth = 0
        self._in_string = False
        self._state = "before"
        self._count = 0
        self.error: str | None = None

    def feed(self, text: str) -> Iterator[tuple[str | None, str | None]]:
        """Yield the elements that end in ``text``."""
        text, self._carry = self._carry + text, ""
        at = start = 0
        if self._state == "before":
            text = text.lstrip(_WHITE)
            if not text:
                return
            # open_array is only called for a file that begins with a bracket.
            self._state, at, start = "inside", 1, 1
        while self._state == "inside":
            if self._in_string:
                at = self._inside(text, at)
                if self._in_string:
                    break
            mark = _MARK.search(text, at)
            if mark is None:
                at = len(text)
                break
            at = mark.end()
            sign = mark.group()
            if sign == '"':
                self._in_string = True
            elif sign == "{" or sign == "[":
                flat = _FLAT.match(text, mark.start()) if sign == "{" else None
                if flat:
                    at = flat.end()
                else:
                    self._depth += 1
            elif self._depth:
                self._depth -= sign in "]}"
            elif sign != "}":
                yield from self._element(text[start : mark.start()], last=sign == "]")
                start = at
        if self._state == "inside":
            self._keep(text[start:at])
            self._carry = text[at:]
        elif text[start:].strip(_WHITE):
            self.error = Sentence("there is text behind the end of the list; it was not read")

    def end(self) -> Iterator[tuple[str | None, str | None]]:
        """Yield what is left at the end of the file: an element without an end, or what is wrong."""
        if self._state == "inside":
            self.error = Sentence("the list is not closed: the file is cut off, or a bracket or quote is missing here")
        if self.error:
            yield None, self.error

    def _inside(self, text: str, at: int) -> int:
        inside = _INSIDE.match(text, at)
        at = inside.end() if inside else at
        if text.startswith('"', at):
            self._in_string = False
            at += 1
        # Otherwise the string goes on in the next chunk; a backslash that ended this one is carried over to it.
        return at

    def _keep(self, text: str) -> None:
        self._size += utf8_size(text)
        if self._size > self._limit:
            self._parts.clear()
        else:
            self._parts.append(text)

    def _element(self, text: str, last: bool) -> Iterator[tuple[str | None, str | None]]:
        self._keep(text)
        too_large, element = self._size > self._limit, "".join(self._parts).strip(_WHITE)
        self._parts.clear()
        self._size = 0
        self._count += 1
        if last:
            self._state = "behind"
            if not element and not too_large and self._count == 1:
                return
        if too_large:
            yield None, Sentence("the record is longer than %(size)s", size=size_name(self._limit))
        elif not element:
            yield None, Sentence("Not JSON: a comma without a record")
        else:
            yield element, None


def refuse_single_object(name: str) -> FileRefused:
    """Return the error for a file that is one object, such as ``{"data": [...]}``."""
    return FileRefused(
        "%(name)s is one JSON object, not records; write the list of records itself: [{...}, "
        "{...}], or one object a line",
        name=name,
    )
