"""Measures a workbook before the library that loads it: a few kilobytes of it can ask for all of the memory.

The library holds a sheet as one rectangle from its first to its last cell and copies a shared text into every
cell that shows it, and when memory runs out the whole process is aborted. So a workbook whose second cell is
XFD1048576 must never reach it. Nothing that the archive says about its own sizes is believed.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from typing import IO
from xml.parsers import expat

from labeler.errors import FileRefused, TooLarge
from labeler.ingest.rows import Limits
from labeler.ingest.stream import CHUNK, size_name

MAX_TEXT = 512 * 1024**2
_RATIO_COUNTS_FROM = 16 * 1024**2
_CELLS = re.compile(rb"sheetData|[<:]si>")
_REFERENCE = re.compile(r"([A-Za-z]{1,3})(\d{1,7})")


def check_workbook(file: IO[bytes], name: str, limits: Limits) -> None:
    """Raise :class:`TooLarge` for a workbook beyond the limits, :class:`FileRefused` for a damaged one."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        if len({member.filename.lower() for member in members}) != len(members):
            raise FileRefused("%(name)s is damaged: two of its parts have one name", name=name)
        left = limits.max_bytes
        strings = array("I")
        for reading in (_SharedStrings(strings), _Sheet(strings, limits)):
            left = limits.max_bytes
            for member in members:
                left -= _read_part(file, member, reading, left, limits, name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise FileRefused(
            "%(name)s is damaged: its packed data cannot be read; copy the file again", name=name
        ) from error


class _Part:
    """Follows the XML of one part of a workbook, whatever its name. Parts with ``other_root`` are passed over."""

    other_root = ""
    forbidden = ""

    def begin(self) -> None:
        """Called before the first bytes of a part."""
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._first
        self._parser.CharacterDataHandler = self.text
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._is_xml = self._wanted = True
        self._tail = b""

    def feed(self, data: bytes, final: bool) -> None:
        """Called with the bytes of the part, and at last with ``final``."""
        if not self._wanted:
            return
        if self._is_xml:
            try:
                self._parser.Parse(data, final)
            except expat.ExpatError:
                self._is_xml = False
        if not self._is_xml:
            # Pictures are no XML, and some drawings are bad XML. What the library may take for a sheet must be good.
            if _CELLS.search(self._tail + data):
                raise zipfile.BadZipFile("XML that is not well-formed")
            self._tail = data[-16:]

    def finish(self) -> None:
        """Called behind the last bytes of a part."""

    def element(self, tag: str, attributes: dict[str, str]) -> None:
        raise NotImplementedError

    def text(self, text: str) -> None:
        raise NotImplementedError

    def _doctype(self, *_: object) -> None:
        raise zipfile.BadZipFile("a document type in a workbook")

    def _first(self, tag: str, attributes: dict[str, str]) -> None:
        if tag.rpartition(":")[2] == self.other_root:
            self._wanted = False
            self._parser.StartElementHandler = None
            self._parser.CharacterDataHandler = None
        else:
            self._parser.StartElementHandler = self._next

    def _next(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        if tag == self.forbidden:
            raise zipfile.BadZipFile("shared texts and cells in one part")
        self.element(tag, attributes)


class _SharedStrings(_Part):
    """Notes the length of every shared text."""

    other_root = "worksheet"
    forbidden = "sheetData"

    def __init__(self, lengths: array[int]) -> None:
        self._lengths = lengths

    def element(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "si":
            self._lengths.append(0)

    def text(self, text: str) -> None:
        if self._lengths:
            self._lengths[-1] += len(text)


class _Sheet(_Part):
    """Notes the rectangle of the cells of each sheet, and the length of the shared texts that they show."""

    other_root = "sst"
    forbidden = "si"

    def __init__(self, lengths: array[int], limits: Limits) -> None:
        self._lengths = lengths
        self._limits = limits

    def begin(self) -> None:
        super().begin()
        self._row = self._column = self._last_row = self._last_column = self._shown = 0
        self._shared = self._in_value = False
        self._index = ""

    def element(self, tag: str, attributes: dict[str, str]) -> None:
        self._end_value()
        if tag == "c":
            place = _REFERENCE.fullmatch(attributes.get("r", ""))
            self._column = _column_number(place[1]) if place else self._column + 1
            self._row = int(place[2]) if place else self._row
            self._shared = attributes.get("t") == "s"
        elif tag == "row":
            number = attributes.get("r", "")
            self._row = int(number) if number.isdecimal() else self._row + 1
            self._column = 0
        elif tag in ("v", "is", "f"):
            self._last_row = max(self._last_row, self._row)
            self._last_column = max(self._last_column, self._column)
            if self._last_row * self._last_column > self._limits.max_cells:
                raise TooLarge(
                    "A sheet spans %(rows)s rows and %(columns)s columns, more than %(n)s cells; delete cells "
                    "far from the table, or save it as CSV UTF-8",
                    rows=f"{self._last_row:,}",
                    columns=f"{self._last_column:,}",
                    n=f"{self._limits.max_cells:,}",
                )
            self._in_value = tag == "v" and self._shared

    def text(self, text: str) -> None:
        if self._in_value:
            self._index += text

    def finish(self) -> None:
        self._end_value()

    def _end_value(self) -> None:
        if not self._in_value:
            return
        index = self._index.strip()
        self._in_value, self._index = False, ""
        if index.isdecimal() and len(index) < 10 and int(index) < len(self._lengths):
            self._shown += self._lengths[int(index)]
            if self._shown > MAX_TEXT:
                raise TooLarge(
                    "A sheet shows more than %(size)s of text; save it as CSV UTF-8", size=size_name(MAX_TEXT)
                )


def _column_number(letters: str) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - 64
    return number


def _read_part(file: IO[bytes], member: zipfile.ZipInfo, part: _Part, left: int, limits: Limits, name: str) -> int:
    """Feed one part and return how many bytes it unpacked to."""
    size = 0
    part.begin()
    for data in _unpacked(file, member):
        size += len(data)
        if size > min(left, max(_RATIO_COUNTS_FROM, limits.max_ratio * member.compress_size)):
            raise TooLarge(
                "%(name)s unpacks to more than %(size)s or %(n)s times its size; save it as CSV UTF-8",
                name=name,
                size=size_name(limits.max_bytes),
                n=limits.max_ratio,
            )
        part.feed(data, False)
    if size:
        part.feed(b"", True)
    part.finish()
    return size


def _unpacked(file: IO[bytes], member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield all that a member unpacks to: ``ZipFile.open`` stops at the size that the archive admits to."""
    if member.flag_bits & 1:
        raise zipfile.BadZipFile("encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile("an unusual compression")
    file.seek(member.header_offset)
    local = file.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("no local header")
    file.seek(int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little"), 1)
    packed = member.compress_size
    unpack = zlib.decompressobj(-15)
    while packed > 0 and (data := file.read(min(CHUNK, packed))):
        packed -= len(data)
        if member.compress_type == zipfile.ZIP_STORED:
            yield data
            continue
        while data:
            yield unpack.decompress(data, CHUNK)
            data = unpack.unconsumed_tail
    if member.compress_type == zipfile.ZIP_DEFLATED:
        yield unpack.flush()
