"""Imports: a file becomes records, slice by slice, with a report of every row that was refused.

A slice of at most 500 rows is one transaction, so that people can label meanwhile and a killed import loses
nothing: run again, it finds what is there by its key and goes on. Without an id column a record's key is a hash
of its content, so that the same file twice adds nothing.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from labeler import strictjson
from labeler.errors import (
    FileRefused,
    InputError,
    JsonError,
    LabelerError,
    LabelError,
    MissingExtra,
    PluginError,
    TextError,
    TooLarge,
)
from labeler.ingest.columns import guess_columns
from labeler.ingest.duplicates import THRESHOLD, signature, similarity
from labeler.ingest.options import ImportOptions
from labeler.ingest.readers import Limits, Row, RowError, RowSource, open_rows
from labeler.labels import Choices, Keywords, LabelSchema
from labeler.records import Record, Value
from labeler.store import NewRecord, Store, Tx
from labeler.task import GROUP, Task
from labeler.text import clean_text

SLICE = 500
MAX_REPORT = 5000
MAX_TEXT = 100_000
HOPELESS = (InputError, TooLarge, MissingExtra, PluginError)
"""What ends an import for good: tried again, it would end the same way."""
_SEPARATORS = re.compile(r"\s*[;|]\s*")

Readers = Mapping[str, Callable[[Path, ImportOptions], RowSource]]
"""Readers of other file formats, by suffix (".sav"): what plugins register."""
Prepare = Callable[[Record], "Record | str"]
StoreLabel = Callable[[Tx, Record, Value, str, "int | None"], "int | None"]
"""Approves a label that came with the data, inside the transaction of its record; None if it was already decided."""
Refused = tuple[int, "str | None", str]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a file looks like, and how its columns would be used; ``problems`` are sentences about its first rows."""

    format: str
    encoding: str | None
    encoding_sure: bool
    delimiter: str | None
    columns: Sequence[str]
    text: str | None
    id: str | None
    group: str | None
    rows: Sequence[Mapping[str, Any]]
    problems: Sequence[str]


@dataclass
class Report:
    """What an import did. ``refused`` holds (row number, column, reason), at most 5,000 of ``refused_count``."""

    added: int = 0
    known: int = 0
    duplicates: int = 0
    labels: int = 0
    refused_count: int = 0
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, number: int, column: str | None, reason: str) -> None:
        self.refused_count += 1
        if len(self.refused) < MAX_REPORT:
            self.refused.append((number, column, reason))

    def columns(self) -> dict[str, Any]:
        """Return the numbers as the store keeps them."""
        return {
            "added": self.added, "known": self.known, "duplicates": self.duplicates, "labels": self.labels,
            "refused": self.refused_count, "report": strictjson.dumps(sorted(self.refused, key=lambda row: row[0])),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Ready:
    """A row that may go in, with the canonical labels that came with it."""

    number: int
    new: NewRecord
    labels: Mapping[str, Value]


def preview(path: Path, options: ImportOptions, readers: Readers | None = None, rows: int = 8) -> Preview:
    """Look at the head of a file without importing anything. Raises :class:`FileRefused`."""
    with _open(path, options, readers) as source:
        head = list(islice(source, 200))
        good = [item.values for item in head if isinstance(item, Row)]
        problems = [*source.notes, *(f"{e.number}: {e.reason}" for e in head if isinstance(e, RowError))]
        columns = list(source.columns)
        guess = guess_columns(columns, good)
        return Preview(
            source.format, source.encoding, not source.guessed, source.delimiter, columns,
            options.text or guess.text,
            guess.id if options.id is None else options.id or None,
            guess.group if options.group is None else options.group or None,
            good[:rows], problems[:20],
        )  # fmt: skip


def resolve(path: Path, options: ImportOptions, readers: Readers | None = None) -> ImportOptions:
    """Return the options with every guess made. Raises :class:`FileRefused` that names a column that is missing."""
    seen = preview(path, options, readers)
    chosen = replace(options, text=seen.text, id=seen.id, group=seen.group)
    if chosen.text is None:
        raise FileRefused(
            f"Which column holds the review? There are: {', '.join(map(repr, seen.columns))}; name it with --text"
        )
    for name in (chosen.text, chosen.id, chosen.group, *options.labels.values()):
        if name is not None and name not in seen.columns:
            raise FileRefused(f"There is no column {name!r}; there are: {', '.join(map(repr, seen.columns))}")
    return chosen


def queue_import(
    store: Store, project_id: int, path: Path, file_name: str, options: ImportOptions, reviewer_id: int | None
) -> int:
    """Write down an import for the background worker and return its number."""
    settings = {"path": str(path), "options": options.to_json()}
    size = path.stat().st_size

    def work(tx: Tx) -> int:
        id_ = store.records.start_import(tx, project_id, file_name, settings, reviewer_id, size)
        store.records.progress_import(tx, id_, {"state": "queued"})
        return id_

    return store.write(work)


class Importer:
    """Imports one file into a project.

    ``store_label`` maps each task to what approves a label that came with the data (a floor above this room);
    ``prepare`` is the plugins' door: it changes or refuses a record.
    """

    def __init__(
        self,
        store: Store,
        project_id: int,
        tasks: Mapping[str, Task],
        store_label: Mapping[str, StoreLabel],
        prepare: Prepare | None = None,
        readers: Readers | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.store, self.project_id, self.tasks = store, project_id, tasks
        self.store_label, self.prepare = store_label, prepare
        self.readers, self.limits = readers, limits
        self._json = False

    def run(
        self,
        path: Path,
        options: ImportOptions,
        *,
        file_name: str | None = None,
        reviewer_id: int | None = None,
        import_id: int | None = None,
        on_progress: Callable[[int, int, Report], None] = lambda position, size, report: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Report:
        """Import and return the report. ``on_progress`` gets (bytes read, bytes in all, report) after each slice.

        Raises one of :data:`HOPELESS`, with everything left as it was if the file or a column is unusable, or if
        ``options.strict`` is set and any row is refused.
        """
        file_name = file_name or path.name
        options = self._checked(path, options, import_id)
        report = Report()
        with _open(path, options, self.readers, self.limits) as source:
            self._json = source.format in ("json", "jsonl")
            if import_id is None:
                import_id = self._start(file_name, options, reviewer_id, source.size)
            origin = f"import {import_id}: {file_name}"
            try:
                for slice_ in self._slices(source, options, report):
                    self._store_slice(slice_, report, origin, reviewer_id, import_id)
                    self._progress(import_id, {**report.columns(), "state": "running", "position": source.position()})
                    on_progress(source.position(), source.size, report)
                    if stop():
                        return report
            except HOPELESS as error:
                # Too large, or torn in the middle: what went in before stays, and the report says where it ended.
                self._fail(import_id, error, report)
                raise
            report.notes = list(source.notes)
            ended = {"state": "finished", "position": source.size, "ended_at": time.time()}
            self._progress(import_id, {**report.columns(), **ended})
        refresh_groups(self.store, self.project_id, list(self.tasks.values()))
        return report

    def _checked(self, path: Path, options: ImportOptions, import_id: int | None) -> ImportOptions:
        """Return the options with every guess made, checked before anything is stored; see :meth:`run`."""
        try:
            strange = [name for name in options.labels if name not in self.tasks]
            if strange:
                raise InputError(f"No task {strange[0]!r} in this project; there are: {', '.join(self.tasks)}")
            options = resolve(path, options, self.readers)
            if options.strict:
                self._rehearse(path, options)
        except HOPELESS as error:
            if import_id is not None:
                self._fail(import_id, error)
            raise
        return options

    def _start(self, file_name: str, options: ImportOptions, reviewer_id: int | None, size: int) -> int:
        """Write down an import of this process, and return its number; no other could read its file."""
        settings = {"path": "", "options": options.to_json()}
        return self.store.write(
            lambda tx: self.store.records.start_import(tx, self.project_id, file_name, settings, reviewer_id, size)
        )

    def _fail(self, import_id: int, error: LabelerError, report: Report | None = None) -> None:
        done = {} if report is None else report.columns()
        self._progress(import_id, {**done, "state": "failed", "message": str(error), "ended_at": time.time()})

    def _progress(self, import_id: int, columns: dict[str, Any]) -> None:
        self.store.write(lambda tx: self.store.records.progress_import(tx, import_id, columns))

    def _slices(self, source: RowSource, options: ImportOptions, report: Report) -> Iterator[list[_Ready]]:
        ready: list[_Ready] = []
        read = 0
        for item in source:
            read += 1
            if isinstance(item, RowError):
                report.refuse(item.number, item.column, item.reason)
            else:
                row = self._ready(item, options, report)
                if row is not None:
                    ready.append(row)
            if read >= SLICE:
                yield ready
                ready, read = [], 0
        yield ready

    def _ready(self, row: Row, options: ImportOptions, report: Report) -> _Ready | None:
        """Return the row as a record with its labels; what is wrong goes into the report."""
        try:
            new = self._new_record(row, options)
        except (TextError, InputError) as error:
            column = options.text if isinstance(error, TextError) else None
            report.refuse(row.number, column, str(error))
            return None
        labels: dict[str, Value] = {}
        for task, column in options.labels.items():
            raw = row.values.get(column)
            # An empty cell of a table is no label; an empty text in JSON is one, where the schema has it.
            if raw is None or (raw == "" and not (self._json and self.tasks[task].schema.kind == "text")):
                continue
            try:
                labels[task] = read_label(self.tasks[task].schema, raw, new.text)
            except LabelError as error:
                # The review itself is fine: it goes in, without this label.
                report.refuse(row.number, column, f"the label was left out: {error}")
        return _Ready(row.number, new, labels)

    def _new_record(self, row: Row, options: ImportOptions) -> NewRecord:
        raw = row.values.get(options.text or "")
        text = clean_text("" if raw is None else str(raw))
        if not text:
            raise TextError("The text is empty")
        if len(text) > MAX_TEXT:
            raise TextError(f"The text has {len(text):,} characters; at most {MAX_TEXT:,} are taken")
        group = _cell(row.values.get(options.group)) if options.group else None
        used = {options.text, options.id, options.group, *options.labels.values()}
        metadata = {name: value for name, value in row.values.items() if name not in used and value not in (None, "")}
        if isinstance(metadata.get("metadata"), dict):
            # The shape that exports write: what was metadata before is metadata again, and the split is not.
            metadata = metadata["metadata"]
        key = _cell(row.values.get(options.id)) if options.id else None
        if options.id and key is None:
            raise InputError(f"The id in column {options.id!r} is empty")
        if key is None:
            content = strictjson.dumps([text, group, metadata], sort_keys=True, default=str)
            key = "h-" + hashlib.sha256(content.encode()).hexdigest()[:20]
        if len(key) > 200:
            raise InputError(f"The id {key[:40]!r}… is longer than 200 characters")
        metadata = strictjson.loads(strictjson.dumps(metadata, default=str))
        if self.prepare is not None:
            record = self.prepare(Record(0, self.project_id, key, text, group=group, metadata=metadata))
            if isinstance(record, str):
                raise InputError(record)
            text, group, metadata = clean_text(record.text), record.group, dict(record.metadata)
        return NewRecord(key, text, group, metadata, signature(text))

    def _store_slice(
        self, rows: Sequence[_Ready], report: Report, origin: str, reviewer_id: int | None, import_id: int
    ) -> None:
        if not rows:
            return
        names = [name for name, task in self.tasks.items() if task.unit != GROUP]

        def work(tx: Tx) -> tuple[list[Any], int]:
            stored = self.store.records.add(
                tx, self.project_id, [row.new for row in rows], names, import_id, near_duplicate
            )
            labels = 0
            for row, result in zip(rows, stored, strict=True):
                if result.outcome == "other_text":
                    continue
                for task, value in row.labels.items():
                    record = Record(result.id, self.project_id, row.new.key, row.new.text)
                    if self.store_label[task](tx, record, value, origin, reviewer_id) is not None:
                        labels += 1
            return stored, labels

        stored, labels = self.store.write(work)
        report.labels += labels
        for row, result in zip(rows, stored, strict=True):
            if result.outcome == "added":
                report.added += 1
                report.duplicates += int(result.duplicate_of is not None)
            elif result.outcome == "known":
                report.known += 1
            else:
                report.refuse(row.number, None, f"the id {row.new.key!r} is taken by another text; change one of them")

    def _rehearse(self, path: Path, options: ImportOptions) -> None:
        """Read the whole file without storing anything. Raises :class:`InputError` if any row would be refused."""
        report = Report()
        seen: dict[str, str] = {}
        with _open(path, options, self.readers, self.limits) as source:
            self._json = source.format in ("json", "jsonl")
            for slice_ in self._slices(source, options, report):
                for row in slice_:
                    known = self.store.records.by_key(self.project_id, row.new.key)
                    digest = hashlib.blake2b(row.new.text.encode(), digest_size=8).hexdigest()
                    other = seen.setdefault(row.new.key, digest) != digest
                    if other or (known is not None and known.text != row.new.text):
                        report.refuse(row.number, options.id, f"the id {row.new.key!r} is taken by another text")
        if report.refused_count:
            shown = "; ".join(f"row {n}: {reason}" for n, _, reason in report.refused[:5])
            raise InputError(
                f"Nothing was imported: {report.refused_count} row(s) would be refused (--strict). {shown}"
            )


def _open(
    path: Path, options: ImportOptions, readers: Readers | None = None, limits: Limits | None = None
) -> RowSource:
    if not path.is_file():
        raise FileRefused(f"There is no file {path}")
    reader = (readers or {}).get(path.suffix.lower())
    if reader is not None:
        return reader(path, options)
    return open_rows(
        path,
        encoding=options.encoding,
        delimiter=options.delimiter,
        sheet=options.sheet,
        header=options.header,
        **({"limits": limits} if limits is not None else {}),
    )


def _cell(value: Any) -> str | None:
    """Return an id or group cell as clean text; None if it is empty."""
    if value is None or isinstance(value, (list, dict)):
        return None
    return clean_text(str(value), "id or group") or None


def near_duplicate(a: str, b: str) -> bool:
    return similarity(a, b) >= THRESHOLD


def read_label(schema: LabelSchema, raw: object, text: str) -> Value:
    """Return the canonical value of a label that came in a column. Raises :class:`LabelError`.

    A cell may hold the value as JSON, the name of a label or its exact title in a language of the schema, and for
    sets and keywords several of them with ``;`` or ``|`` between them.
    """
    names = {title: label.name for label in schema.labels for title in label.title.values()}
    names |= {label.name: label.name for label in schema.labels}
    if isinstance(raw, str):
        stripped = raw.strip()
        if stripped[:1] in ("[", "{") and schema.kind not in ("text", "choice"):
            try:
                raw = strictjson.loads(stripped)
            except JsonError as error:
                raise LabelError(f"{stripped[:40]!r} is not JSON: {error}", "not_json") from error
        elif isinstance(schema, (Choices, Keywords)):
            raw = [part for part in _SEPARATORS.split(stripped) if part]
        elif schema.kind == "rating" and re.fullmatch(r"-?\d{1,9}", stripped):
            raw = int(stripped)
        else:
            raw = stripped
    if isinstance(schema, Choices) and isinstance(raw, list):
        raw = [names.get(item, item) if isinstance(item, str) else item for item in raw]
    elif schema.kind == "choice" and isinstance(raw, str):
        raw = names.get(raw, raw)
    return schema.parse(raw, text)


def refresh_groups(store: Store, project_id: int, tasks: Iterable[Task]) -> int:
    """Make or renew the record of each group (all reviews of one product) for the tasks that label groups.

    A group's record whose text changed is renewed while nobody has labelled it; after that it stays what was
    labelled. Returns how many records were made.
    """
    names = [task.name for task in tasks if task.unit == GROUP]
    made = 0
    for group in store.records.groups(project_id) if names else []:
        members = store.records.of_group(project_id, group)
        text = "\n".join(f"- {record.text}" for record in members)[:MAX_TEXT]
        key = f"group:{group}"[:200]
        known = store.records.by_key(project_id, key)
        if known is None:
            new = NewRecord(key, text, group, {"reviews": len(members)}, kind=GROUP)
            store.write(lambda tx, new=new: store.records.add(tx, project_id, [new], names))  # type: ignore[misc]
            made += 1
        elif known.text != text and not any(store.annotations.history(known.id, name) for name in names):
            store.write(
                lambda tx, known=known, text=text: store.records.set_group_text(tx, known.id, known.text, text)  # type: ignore[misc]
            )
    return made
