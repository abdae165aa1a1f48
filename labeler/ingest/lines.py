"""From text to physical lines, whatever ends them, with a limit on the length of one."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from labeler.ingest.encoding import fault, utf8_size
from labeler.ingest.stream import size_name
from labeler.sentence import Sentence

Line = tuple[str | None, str | None]
"""A line with its end, or None for one that is too long to hold; and what is wrong with it, or None."""


def split_lines(chunks: Iterable[tuple[str, bool]], encoding: str, limit: int, *, universal: bool) -> Iterator[Line]:
    r"""Yield the lines of ``chunks``, as :func:`~labeler.ingest.encoding.decode_chunks` gives them.

    ``universal``: a line ends at ``\n``, ``\r\n`` or ``\r`` (CSV), else at ``\n`` alone (JSON Lines). Never at
    U+2028 or the other characters of ``str.splitlines``. A line of more than ``limit`` bytes is dropped while
    it is read and yielded as None.
    """
    tail = _Tail(limit)
    for text, suspicious in chunks:
        first_end = _first_end(text, universal, after_return=tail.ends_with_return)
        if first_end < 0:
            tail.add(text, suspicious)
            continue
        tail.add(text[:first_end], suspicious)
        yield tail.line(encoding)
        lines = list(io.StringIO(text[first_end:], newline="" if universal else "\n"))
        # The last line goes on in the next chunk, and so may a \r that is the first half of \r\n.
        if lines and (lines[-1][-1] != "\n"):
            tail.add(lines.pop(), suspicious)
        for line in lines:
            if len(line) * 3 > limit and utf8_size(line) > limit:
                yield None, _too_long(limit)
            else:
                yield line, fault(line, encoding) if suspicious else None
    if tail.size:
        yield tail.line(encoding)


def _first_end(text: str, universal: bool, after_return: bool) -> int:
    """Return the offset behind the first line end of ``text``, 0 if the line before it has ended, or -1."""
    if universal and after_return:
        return 1 if text[0] == "\n" else 0
    newline = text.find("\n")
    if universal:
        back = text.find("\r", 0, newline if newline >= 0 else len(text))
        if back >= 0:
            if back == len(text) - 1:
                return -1
            return back + (2 if text[back + 1] == "\n" else 1)
    return newline + 1 if newline >= 0 else -1


def _too_long(limit: int) -> str:
    return Sentence("the line is longer than %(size)s", size=size_name(limit))


class _Tail:
    """The part of a line that was read so far."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._clear()

    def _clear(self) -> None:
        self._parts: list[str] = []
        self._suspicious = False
        self.size = 0
        self.ends_with_return = False

    def add(self, text: str, suspicious: bool) -> None:
        if not text:
            return
        self.size += utf8_size(text)
        self.ends_with_return = text[-1] == "\r"
        self._suspicious |= suspicious
        if self.size > self._limit:
            self._parts.clear()
        else:
            self._parts.append(text)

    def line(self, encoding: str) -> Line:
        too_long, suspicious, line = self.size > self._limit, self._suspicious, "".join(self._parts)
        self._clear()
        if too_long:
            return None, _too_long(self._limit)
        return line, fault(line, encoding) if suspicious else None
