"""Imports: a file becomes records, slice by slice, with a report of every row that was refused.

A slice of at most 500 rows is one transaction, so that people can label meanwhile and a killed import loses
nothing: what an import did is counted in the transaction that does it, so that the next worker goes on where this one
ended, and a file that is imported again finds what is there by its key. Without an id column a record's key is a hash
of its content, so that the same file twice adds nothing.

A worker proves with a token that an import is its own, in each transaction, and says all the while that it lives: two
never import one file beside each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from labeler.ingest.duplicates import near_duplicate, signed
from labeler.ingest.options import ImportOptions
from labeler.ingest.readers import Limits, Row, RowError, RowSource, open_rows
from labeler.ingest.upkeep import refresh_groups, sign_reviews
from labeler.labels import Choices, Keywords, LabelSchema
from labeler.records import Record, Value
from labeler.store import NewRecord, Store, Stored, Tx
from labeler.store.records import ADDED, KNOWN, OTHER_TEXT, kind_of
from labeler.task import GROUP, Task
from labeler.text import clean_text

SLICE = 500
MAX_REPORT = 5000
MAX_TEXT = 100_000
_BEAT = 20.0
"""Seconds between two signs of life of an import."""
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

    def take(self, other: Report) -> None:
        """Add the refused rows of another report."""
        self.refused_count += other.refused_count
        self.refused += other.refused[: MAX_REPORT - len(self.refused)]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Report:
        """Return the report of an import as the store keeps it: what was done before it is taken up again."""
        refused = [(number, column, reason) for number, column, reason in strictjson.loads(row["report"])]
        return cls(row["added"], row["known"], row["duplicates"], row["labels"], row["refused"], refused)

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


@dataclass(frozen=True, slots=True)
class _Slice:
    """Rows of one transaction, what was refused between them, and how many rows were read from the file so far."""

    rows: list[_Ready]
    refused: Report
    read: int


@dataclass(frozen=True, slots=True)
class _Claim:
    """An import that is ours: its number, the token that proves it, and the origin of its labels."""

    id: int
    token: str
    origin: str


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
    return store.write(
        lambda tx: store.records.start_import(tx, project_id, file_name, settings, reviewer_id, size, state="queued")
    )


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
        token: str = "",
        on_progress: Callable[[int, int, Report], None] = lambda position, size, report: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Report:
        """Import and return the report. ``on_progress`` gets (bytes read, bytes in all, report) after each slice.

        ``import_id`` and ``token`` are those of a claimed import, which goes on behind the rows that it has done.

        Raises one of :data:`HOPELESS`, with everything left as it was if the file or a column is unusable, or if
        ``options.strict`` is set and any row is refused; and :class:`Conflict` if another worker has taken it over.
        """
        file_name = file_name or path.name
        with contextlib.ExitStack() as stack:
            ours, report, done = None, Report(), 0
            if import_id is not None:
                ours = stack.enter_context(self._alive(import_id, token, file_name))
                before = self.store.records.get_import(self.project_id, import_id)
                report, done = Report.of(dict(before)), before["rows_read"]
            options = self._checked(path, options, ours, rehearse=done == 0)
            source = stack.enter_context(_open(path, options, self.readers, self.limits))
            self._json = source.format in ("json", "jsonl")
            if ours is None:
                started = self._start(file_name, options, reviewer_id, source.size)
                ours = stack.enter_context(self._alive(*started, file_name))
            try:
                for slice_ in self._slices(source, options, done):
                    report = self._store_slice(slice_, report, ours, reviewer_id, source.position())
                    on_progress(source.position(), source.size, report)
                    if stop():
                        return report
            except HOPELESS as error:
                # Too large, or torn in the middle: what went in before stays, and the report says where it ended.
                self._fail(ours, error)
                raise
            report.notes = list(source.notes)
            self._progress(ours, {"state": "finished", "position": source.size, "ended_at": time.time()})
        sign_reviews(self.store, self.project_id, stop)
        refresh_groups(self.store, self.project_id, self.tasks.values(), stop)
        return report

    def _checked(self, path: Path, options: ImportOptions, ours: _Claim | None, rehearse: bool) -> ImportOptions:
        """Return the options with every guess made, checked before anything is stored; see :meth:`run`."""
        try:
            strange = [name for name in options.labels if name not in self.tasks]
            if strange:
                raise InputError(f"No task {strange[0]!r} in this project; there are: {', '.join(self.tasks)}")
            options = resolve(path, options, self.readers)
            if options.strict and rehearse:
                self._rehearse(path, options)
        except HOPELESS as error:
            if ours is not None:
                self._fail(ours, error)
            raise
        return options

    def _start(self, file_name: str, options: ImportOptions, reviewer_id: int | None, size: int) -> tuple[int, str]:
        """Write down an import of this process, and return its number and token; no other could read its file."""
        settings, token, room = {"path": "", "options": options.to_json()}, secrets.token_hex(8), self.store.records

        def work(tx: Tx) -> int:
            id_ = room.start_import(tx, self.project_id, file_name, settings, reviewer_id, size)
            room.progress_import(tx, id_, {"token": token})
            return id_

        return self.store.write(work), token

    @contextlib.contextmanager
    def _alive(self, import_id: int, token: str, file_name: str) -> Iterator[_Claim]:
        """Say that an import lives as long as this process works on it, however long a file takes to be read."""
        ours, ended = _Claim(import_id, token, f"import {import_id}: {file_name}"), threading.Event()

        def beat() -> None:
            while not ended.wait(_BEAT):
                # Where it was lost, or the disk is full, the next slice says so.
                with contextlib.suppress(LabelerError):
                    self._progress(ours, {})

        beating = threading.Thread(target=beat, name=f"labeler-import-{import_id}", daemon=True)
        beating.start()
        try:
            yield ours
        finally:
            ended.set()
            beating.join()

    def _fail(self, ours: _Claim, error: LabelerError) -> None:
        self._progress(ours, {"state": "failed", "message": str(error), "ended_at": time.time()})

    def _progress(self, ours: _Claim, columns: dict[str, Any]) -> None:
        self.store.write(lambda tx: self.store.records.progress_import(tx, ours.id, columns, ours.token))

    def _slices(self, source: RowSource, options: ImportOptions, done: int = 0) -> Iterator[_Slice]:
        """Yield the rows behind the first ``done`` ones, in slices."""
        ready: list[_Ready] = []
        refused = Report()
        read = 0
        for read, item in enumerate(source, 1):
            if read <= done:
                continue
            if isinstance(item, RowError):
                refused.refuse(item.number, item.column, item.reason)
            else:
                row = self._ready(item, options, refused)
                if row is not None:
                    ready.append(row)
            if (read - done) % SLICE == 0:
                yield _Slice(ready, refused, read)
                ready, refused = [], Report()
        yield _Slice(ready, refused, max(read, done))

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
        return signed(NewRecord(key, text, group, metadata))

    def _store_slice(
        self, slice_: _Slice, report: Report, ours: _Claim, reviewer_id: int | None, position: int
    ) -> Report:
        """Store a slice and how far the import is, in one transaction; return the report with it."""
        names = [name for name, task in self.tasks.items() if task.unit != GROUP]
        room = self.store.records

        def work(tx: Tx) -> Report:
            after = replace(report, refused=list(report.refused))
            after.take(slice_.refused)
            news = [row.new for row in slice_.rows]
            stored = room.add(tx, self.project_id, news, names, ours.id, near_duplicate)
            for row, result in zip(slice_.rows, stored, strict=True):
                self._count(tx, row, result, after, ours, reviewer_id)
            progress = {**after.columns(), "rows_read": slice_.read, "position": position}
            room.progress_import(tx, ours.id, progress, ours.token)
            return after

        return self.store.write(work)

    def _count(
        self, tx: Tx, row: _Ready, result: Stored, report: Report, ours: _Claim, reviewer_id: int | None
    ) -> None:
        """Say in the report what became of a row, and store its labels."""
        if result.outcome == OTHER_TEXT:
            report.refuse(row.number, None, _taken(row.new.key, result.kind))
            return
        report.added += result.outcome == ADDED
        report.known += result.outcome == KNOWN
        report.duplicates += result.outcome == ADDED and result.duplicate_of is not None
        record = Record(result.id, self.project_id, row.new.key, row.new.text)
        for task, value in row.labels.items():
            if kind_of(self.tasks[task].unit) != result.kind:
                report.refuse(row.number, None, _other_unit(self.tasks[task]))
            elif self.store_label[task](tx, record, value, ours.origin, reviewer_id) is not None:
                report.labels += 1

    def _rehearse(self, path: Path, options: ImportOptions) -> None:
        """Read the whole file without storing anything. Raises :class:`InputError` if any row would be refused."""
        report = Report()
        seen: dict[str, str] = {}
        with _open(path, options, self.readers, self.limits) as source:
            self._json = source.format in ("json", "jsonl")
            for slice_ in self._slices(source, options):
                report.take(slice_.refused)
                for row in slice_.rows:
                    self._rehearse_row(row, seen, report)
        if report.refused_count:
            shown = "; ".join(f"row {n}: {reason}" for n, _, reason in report.refused[:5])
            raise InputError(
                f"Nothing was imported: {report.refused_count} row(s) would be refused (--strict). {shown}"
            )

    def _rehearse_row(self, row: _Ready, seen: dict[str, str], report: Report) -> None:
        known = self.store.records.standing(self.project_id, row.new.key)
        kind = known["kind"] if known is not None else row.new.kind
        digest = hashlib.blake2b(row.new.text.encode(), digest_size=8).hexdigest()
        other = seen.setdefault(row.new.key, digest) != digest
        if other or (known is not None and known["text"] != row.new.text):
            report.refuse(row.number, None, _taken(row.new.key, kind))
        for task in row.labels:
            if kind_of(self.tasks[task].unit) != kind:
                report.refuse(row.number, None, _other_unit(self.tasks[task]))


def _taken(key: str, kind: str) -> str:
    if kind == GROUP:
        return f"the id {key!r} is that of a product, whose text is made from its reviews; import those instead"
    return f"the id {key!r} is taken by another text; change one of them"


def _other_unit(task: Task) -> str:
    labelled, given = ("products", "a review") if task.unit == GROUP else ("reviews", "a product")
    return f"the label was left out: the task {task.name} labels {labelled}, and this row is {given}"


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
