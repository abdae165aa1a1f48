"""Opens a file of reviews: finds its format and encoding, and hands it to the reader of that format."""

from __future__ import annotations

import re
from pathlib import Path

from labeler.errors import FileRefused, JsonError
from labeler.ingest.encoding import decode_chunks, detect_encoding, named_encoding
from labeler.ingest.jsonl import open_array, open_lines, refuse_single_object
from labeler.ingest.parquet import open_parquet
from labeler.ingest.rows import Limits, Row, RowError, RowSource
from labeler.ingest.stream import GZIP, Stream
from labeler.ingest.tables import open_table
from labeler.ingest.workbook import archive_kind, open_workbook
from labeler.sentence import Sentence
from labeler.strictjson import loads

__all__ = ["Limits", "Row", "RowError", "RowSource", "open_rows"]

_HEAD = 1024 * 1024
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_GZIP_FILE = Sentence("a gzip file")
_MAGIC = (
    (b"PAR1", "parquet"),
    (b"PK\x03\x04", "zip"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Sentence("an old Excel workbook (.xls), or a workbook with a password")),
    (GZIP, _GZIP_FILE),
    (b"%PDF", Sentence("a PDF")),
    (b"\x89PNG", Sentence("a picture (PNG)")),
    (b"\xff\xd8\xff", Sentence("a picture (JPEG)")),
    (b"SQLite format 3", Sentence("an SQLite database")),
    (b"{\\rtf", Sentence("an RTF document")),
)
_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|table|head|meta|\?xml)", re.IGNORECASE)
_SAVE_AS = Sentence("open it in Excel or a like program and save it as .xlsx or as CSV UTF-8")
_REMEDIES: dict[str, Sentence] = {
    _GZIP_FILE: Sentence("give it a name that ends in .gz"),
    "a zip archive": Sentence("unpack it first"),
    "a damaged zip archive": Sentence("copy the file again"),
}


def open_rows(
    path: Path,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    header: bool = True,
    header_row: str | None = None,
    name: str | None = None,
    limits: Limits = Limits(),  # noqa: B008
) -> RowSource:
    """Open a CSV, TSV, JSON Lines, JSON, xlsx or Parquet file, also with .gz behind its name.

    The suffix says what a file is, and for .txt and unknown suffixes its content does. ``encoding`` and
    ``delimiter`` (one character, ``tab`` or ``none``) replace what would be detected, ``sheet`` names the sheet
    of a workbook, ``header=False`` says that a table has no row of names, and ``header_row`` which row they are ("5",
    or "1-2"); each is ignored by formats without it. ``name`` is what messages call the file.

    Rows are read while they are iterated, in flat memory but for a workbook's sheet. Raises
    :class:`FileRefused` for a file that cannot be read at all, :class:`Doubt` where a person has to say how,
    :class:`TooLarge` beyond ``limits`` (also while
    iterating), :class:`MissingExtra` for Parquet without pyarrow. Anything wrong with one row is a
    :class:`RowError` among the rows.
    """
    stream = Stream(path, limits, name or path.name)
    try:
        return _open(stream, path, encoding, delimiter, sheet, header, header_row)
    except BaseException:
        stream.close()
        raise


def _open(
    stream: Stream,
    path: Path,
    encoding: str | None,
    delimiter: str | None,
    sheet: str | None,
    header: bool,
    header_row: str | None,
) -> RowSource:
    head = stream.head(_HEAD)
    if not head:
        raise FileRefused("The file is empty")
    named = _SUFFIXES.get(_suffix(path))
    binary = _binary_format(stream, head, named)
    if binary == "parquet":
        return open_parquet(stream)
    if binary == "xlsx":
        return open_workbook(stream, sheet=sheet, header=header, header_row=header_row)
    complete = len(head) < _HEAD
    found = named_encoding(encoding, head) if encoding is not None else detect_encoding(head, complete)
    text = "".join(text for text, _ in decode_chunks([head], found)).lstrip()
    if not text and complete:
        raise FileRefused("The file is empty")
    match _text_format(text, complete, named, stream.name):
        case "json":
            return open_array(stream, found)
        case "jsonl":
            return open_lines(stream, found)
        case _:
            return open_table(
                stream, found, delimiter=delimiter, header=header, header_row=header_row, tab_first=named == "tsv"
            )


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".gz" else suffix


def _binary_format(stream: Stream, head: bytes, named: str | None) -> str | None:
    """Return ``xlsx`` or ``parquet``, or None for text. Raises :class:`FileRefused` if it is not what its name says."""
    kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if kind == "zip":
        kind = archive_kind(stream.seekable())
    if kind is None and _HTML.match(head):
        kind = Sentence("a web page (HTML or XML); shops often give it the name .xls")
    if kind in ("xlsx", "parquet"):
        if named not in (None, kind):
            what = Sentence("an Excel workbook") if kind == "xlsx" else Sentence("a Parquet file")
            raise FileRefused(
                "%(name)s is not %(kind)s but %(got)s; let its name end in .%(end)s",
                name=stream.name,
                kind=named,
                got=what,
                end=kind,
            )
        return kind
    if kind is not None:
        remedy = _REMEDIES.get(kind, _SAVE_AS)
        if kind == _GZIP_FILE and stream.packed:
            remedy = Sentence("it was packed twice; unpack it once")
        raise FileRefused(
            "%(name)s cannot be read, because it is %(got)s: %(why)s", name=stream.name, got=kind, why=remedy
        )
    if named in ("xlsx", "parquet"):
        what = Sentence("an Excel workbook") if named == "xlsx" else Sentence("a Parquet file")
        raise FileRefused(
            "%(name)s is not %(what)s but looks like text; give it the name of its format, like .csv",
            name=stream.name,
            what=what,
        )
    return None


def _text_format(text: str, complete: bool, named: str | None, name: str) -> str:
    """Return ``json`` (one list), ``jsonl`` or ``table`` for a file that begins with ``text``."""
    if named in ("csv", "tsv"):
        if _is_object(text, complete) or re.match(r"\[\s*\{\s*\"", text):
            raise FileRefused(
                "%(name)s is not %(kind)s but JSON; give it a name that ends in .json or .jsonl", name=name, kind=named
            )
        return "table"
    if text.startswith("[") and (named is not None or re.match(r"\[\s*[\]{]", text)):
        return "json"
    if (
        text.startswith("{")
        and not _is_object(text, complete)
        and (named == "json" or text[1:].lstrip(" ")[:1] in "\r\n")
    ):
        raise refuse_single_object(name)
    if text.startswith("{"):
        if complete and named == "json" and _holds_records(text):
            raise refuse_single_object(name)
        return "jsonl"
    if named == "json":
        raise FileRefused(
            "%(name)s is not JSON: it begins with %(text)r, not with a list or an object", name=name, text=text[:20]
        )
    return named or "table"


def _is_object(text: str, complete: bool) -> bool:
    """Tell whether the first line is a whole JSON object, or is too long to tell and begins like one."""
    line, end, _ = text.partition("\n")
    if not end and not complete:
        return re.match(r'\{\s*"', line) is not None
    try:
        return isinstance(loads(line), dict)
    except JsonError:
        return False


def _holds_records(text: str) -> bool:
    if "\n" in text.rstrip():
        return False
    inside = [loads(text)]
    while inside:
        for each in inside.pop().values():
            if isinstance(each, list) and each and isinstance(each[0], dict):
                return True
            inside += [each] if isinstance(each, dict) else []
    return False
