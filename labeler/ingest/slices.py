"""A slice of rows becomes records: what is the same for every row is done for all of them at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from labeler import strictjson
from labeler.errors import InputError, LabelError, TextError
from labeler.ingest.cells import is_totals, names_of, or_error, read_label, text_of_parts, texts_of, value_at, without
from labeler.ingest.options import ImportOptions
from labeler.ingest.report import Report, left_out
from labeler.ingest.rows import Row, RowError
from labeler.records import Part, Record, Value
from labeler.store import NewRecord
from labeler.store.records import Ready, ready
from labeler.task import Task
from labeler.text import clean_text

T = TypeVar("T")
Prepare = Callable[[Sequence[Record]], "list[Record | str]"]


class Incoming(NamedTuple):
    """A row that may go in, with the canonical labels that came with it."""

    number: int
    record: Ready
    labels: Mapping[str, tuple[str, Value]]
    """The column and the value, by task."""


class Door:
    """Takes rows in as records, for tasks and with options that are resolved; ``prepare`` may change or refuse each.

    ``is_json`` says that the rows come from JSON, where an empty text is one.
    """

    def __init__(
        self, project_id: int, tasks: Mapping[str, Task], options: ImportOptions, prepare: Prepare | None, is_json: bool
    ) -> None:
        self.project_id, self.tasks, self.options, self.prepare = project_id, tasks, options, prepare
        self.is_json = is_json
        named = (options.text, options.id, options.group, *options.labels.values(), *options.parts.values())
        self._used = {name for name in named if name}

    def take(self, items: Sequence[Row | RowError], report: Report) -> list[Incoming]:
        """Return the rows as records with their labels; what is refused goes into the report, in the order of rows."""
        options, values = self.options, [item.values for item in items if isinstance(item, Row)]
        texts = iter(self._texts(values))
        groups, ids = (self._names(column, values) for column in (options.group, options.id))
        read: list[NewRecord | TextError | InputError | RowError] = []
        for item in items:
            if isinstance(item, RowError):
                read.append(item)
                continue
            # Of every column one, whatever becomes of the row.
            text, group, key = next(texts), next(groups), next(ids)
            try:
                if is_totals(item.values, options.text or ""):
                    raise InputError("The row holds totals, not a review")
                read.append(self._record(item.values, *_good(text), _good(group), key))
            except (TextError, InputError) as error:
                read.append(error)
        return self._taken(items, self._prepared(read) if self.prepare else read, report)

    def _taken(
        self, items: Sequence[Row | RowError], read: Sequence[NewRecord | Exception | RowError], report: Report
    ) -> list[Incoming]:
        """Return what is taken of the rows, and report the rest, in the order of rows."""
        taken = []
        for item, new in zip(items, read, strict=True):
            if isinstance(new, RowError):
                report.refuse(new.number, new.column, new.reason)
            elif isinstance(new, NewRecord) and isinstance(item, Row):
                taken.append((item.number, new, self._labels(item, new.text, report)))
            else:
                report.refuse(item.number, self.options.text if isinstance(new, TextError) else None, str(new))
        records = ready([new for _, new, _ in taken])
        return [Incoming(number, one, labels) for (number, _, labels), one in zip(taken, records, strict=True)]

    def _prepared(self, read: Sequence[Any]) -> list[Any]:
        """Let plugins change or refuse the records among what was read."""
        assert self.prepare is not None
        new = [one for one in read if isinstance(one, NewRecord)]
        before = [
            Record(0, self.project_id, one.key, one.text, group=one.group, metadata=one.metadata or {}) for one in new
        ]
        after = iter(zip(new, self.prepare(before), strict=True))
        return [_cleaned(*next(after)) if isinstance(one, NewRecord) else one for one in read]

    def _names(self, column: str | None, rows: Sequence[Mapping[str, Any]]) -> Any:
        cells = [value_at(row, column) for row in rows] if column else []
        return iter(names_of(cells, column) if column else [None] * len(rows))

    def _texts(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Sequence[Part]] | InputError]:
        """Return the text of each row, with its named parts, or what is wrong with it."""
        if not self.options.parts:
            found = texts_of([value_at(row, self.options.text or "") for row in rows])
            return [text if isinstance(text, InputError) else (text, ()) for text in found]
        columns = self.options.parts.items()
        return [or_error(text_of_parts, {name: value_at(row, at) for name, at in columns}) for row in rows]

    def _record(
        self, values: Mapping[str, Any], text: str, parts: Sequence[Part], group: str | None, key: Any
    ) -> NewRecord:
        metadata = without(values, self._used)
        if isinstance(inner := metadata.get("metadata"), dict):
            # What was metadata where the file comes from is metadata here, beside the other columns.
            metadata.pop("metadata")
            metadata |= {f"metadata.{name}" if name in metadata else name: value for name, value in inner.items()}
        key = _good(key)
        if self.options.id and key is None:
            raise InputError("The id in column %(column)r is empty", column=self.options.id)
        if key is None:
            content = strictjson.dumps([text, group, metadata], sort_keys=True, default=str)
            key = "h-" + hashlib.sha256(content.encode()).hexdigest()[:20]
        if len(key) > 200:
            raise InputError("The id %(id)r… is longer than 200 characters", id=key[:40])
        if not _are_plain(metadata):
            # Whatever it may be, it is stored as JSON: what that does not hold is refused here.
            metadata = strictjson.loads(strictjson.dumps(metadata, default=str))
        return NewRecord(key, text, group, metadata, parts=parts)

    def _labels(self, row: Row, text: str, report: Report) -> dict[str, tuple[str, Value]]:
        labels: dict[str, tuple[str, Value]] = {}
        for task, column in self.options.labels.items():
            raw = value_at(row.values, column)
            # An empty cell of a table is no label; an empty text in JSON is one, where the schema has it.
            if raw is None or (raw == "" and not (self.is_json and self.tasks[task].schema.reads_blank)):
                continue
            try:
                labels[task] = column, read_label(self.tasks[task].schema, raw, text)
            except LabelError as error:
                # The review itself is fine: it goes in, without this label.
                report.say("left_out", row.number, column, left_out(error))
        return labels


def _cleaned(new: NewRecord, record: Record | str) -> NewRecord | InputError:
    """Return a record as a plugin made it, or why it is refused."""
    if isinstance(record, str):
        return InputError(record)
    # Where a plugin cleaned the text, nobody knows any more where its parts are.
    parts = new.parts if record.text == new.text else ()
    try:
        return NewRecord(new.key, clean_text(record.text), record.group, dict(record.metadata), parts=parts)
    except TextError as error:
        return error


def _good(cell: T | InputError) -> T:
    """Return what was read from a cell. Raises what was wrong with it."""
    if isinstance(cell, InputError):
        raise cell
    return cell


def _are_plain(metadata: Mapping[str, Any]) -> bool:
    """Tell whether all values are texts that JSON writes as they are."""
    try:
        return "".join(metadata.values()).isprintable()
    except TypeError:
        return False
