"""Parquet files, a batch of rows at a time; needs the extra ``parquet`` (pyarrow)."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from labeler.errors import FileRefused, MissingExtra, TooLarge
from labeler.ingest.rows import Row, RowError, RowSource
from labeler.ingest.stream import Stream, size_name
from labeler.sentence import Sentence

_BATCH = 1024


def open_parquet(stream: Stream) -> RowSource:
    """Return the rows of a Parquet file: plain JSON-like values, dates as ISO strings, NaN as None.

    Raises :class:`MissingExtra` without pyarrow, and :class:`FileRefused` for a file that cannot be read. Texts stay in
    their dictionary, as they are in the file, so a long text that a million rows share is in memory once; as soon as
    all of them together are more than the limits, :class:`TooLarge` is raised.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("pyarrow", "parquet") from None
    file = stream.seekable()
    try:
        texts = [field.name for field in pq.read_schema(file) if _is_text(pa, field.type)]
        file.seek(0)
        parquet = pq.ParquetFile(file, read_dictionary=texts, pre_buffer=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileRefused(
            "%(name)s is damaged or no Parquet file: %(reason)s", name=stream.name, reason=error
        ) from error
    reader = _Reader(parquet, stream)

    def close() -> None:
        parquet.close()
        stream.close()

    return RowSource(
        format="parquet",
        columns=reader.columns,
        size=stream.size,
        rows=reader.rows(),
        position=reader.position,
        close_file=close,
    )


class _Reader:
    def __init__(self, parquet: Any, stream: Stream) -> None:
        self._parquet = parquet
        self._stream = stream
        self._done = self._bytes = 0
        self._height: int = parquet.metadata.num_rows
        self.columns: list[str] = parquet.schema_arrow.names
        for name in self.columns:
            if self.columns.count(name) > 1:
                raise FileRefused(
                    "The column name %(name)r appears twice in %(file)s; rename one of them",
                    name=name[:80],
                    file=stream.name,
                )
        groups = parquet.metadata.num_row_groups
        self._check_size(sum(parquet.metadata.row_group(group).total_byte_size for group in range(groups)))

    def position(self) -> int:
        """Return the share of the file that the rows so far are, in bytes."""
        return self._stream.size * self._done // max(1, self._height)

    def rows(self) -> Iterator[Row | RowError]:
        """Yield every row of every row group."""
        import pyarrow as pa

        try:
            for batch in self._parquet.iter_batches(batch_size=_BATCH, use_threads=False):
                for cells in zip(*(_cells(pa, column) for column in batch.columns), strict=True):
                    self._done += 1
                    yield self._row(cells)
        except (pa.ArrowException, OSError, IndexError) as error:
            raise FileRefused(
                "%(name)s is damaged: row %(n)s cannot be read (%(reason)s)",
                name=self._stream.name,
                n=self._done + 1,
                reason=error,
            ) from error

    def _row(self, cells: tuple[Any, ...]) -> Row | RowError:
        size = 0
        for name, cell in zip(self.columns, cells, strict=True):
            if isinstance(cell, _Unreadable):
                return RowError(self._done, name, cell.reason)
            size += len(cell) if isinstance(cell, str) else 8
        if size > self._stream.limits.max_row_bytes:
            return RowError(
                self._done,
                None,
                Sentence("the row is longer than %(size)s", size=size_name(self._stream.limits.max_row_bytes)),
            )
        self._bytes += size
        self._check_size(self._bytes)
        return Row(self._done, dict(zip(self.columns, cells, strict=True)))

    def _check_size(self, size: int) -> None:
        if size > self._stream.limits.max_bytes:
            raise TooLarge(
                "%(name)s unpacks to more than %(size)s; split it into smaller files",
                name=self._stream.name,
                size=size_name(self._stream.limits.max_bytes),
            )


class _Unreadable:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def _is_text(pa: Any, kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def _cells(pa: Any, column: Any) -> Iterator[Any]:
    """Yield the cells of a column as plain values; a text that many rows share is one object."""
    if pa.types.is_dictionary(column.type):
        indices = column.indices.to_pylist()
        # Each batch carries the dictionary of its whole row group, of which it shows only some texts.
        texts = {index: _cell(column.dictionary[index]) for index in set(indices) if index is not None}
        for index in indices:
            yield None if index is None else texts[index]
        return
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    for value in column:
        yield _cell(value)


def _cell(value: Any) -> Any:
    try:
        return _plain(value.as_py())
    except UnicodeDecodeError:
        return _Unreadable(Sentence("the text is not UTF-8"))
    except (ValueError, OverflowError) as error:
        return _Unreadable(Sentence("the value cannot be read: %(reason)s", reason=error))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta | Decimal):
        return str(value)
    return value
