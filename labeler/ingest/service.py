"""Imports: a file becomes records, slice by slice, with a report of every row that was refused.

A slice is one transaction. While people label it has as many rows as are stored in a thirtieth of a second, so that
they hardly wait, and ten times as many while nobody does. A killed import loses nothing: what an import did is counted
in the transaction that does it, so that the next worker goes on where this one ended, and a file that is imported again
finds what is there by its key. Without an id column a record's key is a hash of its content, so that the same file
twice adds nothing.

A worker proves with a token that an import is its own, in each transaction, and says all the while that it lives: two
never import one file beside each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from labeler import strictjson
from labeler.errors import (
    FileRefused,
    InputError,
    LabelerError,
    LabelError,
    MissingExtra,
    PluginError,
    TextError,
    TooLarge,
)
from labeler.ingest.cells import is_totals, name_of, read_label, text_of, value_at, without
from labeler.ingest.clusters import sign_reviews
from labeler.ingest.options import ImportOptions
from labeler.ingest.reading import Readers, open_file, resolve
from labeler.ingest.rows import Limits, Row, RowError, RowSource
from labeler.ingest.upkeep import refresh_groups
from labeler.records import Record, Value
from labeler.store import NewRecord, Store, Stored, Tx
from labeler.store.annotations import APPROVED
from labeler.store.records import ADDED, KNOWN, OTHER_TEXT, Ready, kind_of, ready
from labeler.task import GROUP, Task
from labeler.text import clean_text, one_line

FEWEST_ROWS, MOST_ROWS = 20, 2000
"""Rows of a slice."""
BRIEF, LONG = 0.03, 0.3
"""The seconds that a slice should hold the store: while people label, whose decisions wait so long, and else."""
MAX_REPORT = 5000
_UNSIGNED = 20_000
"""So many reviews of a file come in, or an eighth of it, before their near-duplicates are looked for."""
_BEAT = 20.0
"""Seconds between two signs of life of an import."""
HOPELESS = (InputError, TooLarge, MissingExtra, PluginError)
"""What ends an import for good: tried again, it would end the same way."""

Prepare = Callable[[Record], "Record | str"]
Line = tuple[int, "str | None", str]
"""What became of a row, or of the label in a column of it: row number, column, and one sentence."""


class Decisions(Protocol):
    """What stores labels: a floor above this room."""

    def import_labels(
        self, tx: Tx, labels: Sequence[tuple[int, Value]], origin: str, reviewer_id: int | None
    ) -> list[int]:
        """Approve labels that came with the data, of pending records; return their annotations."""

    def standing(self, record_id: int, tx: Tx | None = None) -> tuple[str, Value | None] | None:
        """Return state and value of the decision in force."""


@dataclass
class Report:
    """What an import did, in numbers that are stored with it, and in lines.

    Each row counts once, as ``added``, ``known`` or ``refused``; of those added, ``duplicates`` are exact copies. Each
    label counts once, as one of ``labels`` (approved; ``given`` of them to the equal record that had none), ``agreed``
    (the same stands already), ``contradicting``, or ``left_out``. What was not simply taken has a line; at most 5,000
    are kept.
    """

    added: int = 0
    known: int = 0
    duplicates: int = 0
    refused: int = 0
    labels: int = 0
    given: int = 0
    agreed: int = 0
    contradicting: int = 0
    left_out: int = 0
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def said(self) -> int:
        """How many lines there are, kept or not."""
        return self.refused + self.given + self.contradicting + self.left_out

    def say(self, what: str, number: int, column: str | None, reason: str) -> None:
        """Count a row or a label under ``what`` and write a line."""
        setattr(self, what, getattr(self, what) + 1)
        if len(self.lines) < MAX_REPORT:
            self.lines.append((number, column, reason))

    def refuse(self, number: int, column: str | None, reason: str) -> None:
        self.say("refused", number, column, reason)

    def take(self, other: Report) -> None:
        """Add what another report counts."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lines += other.lines[: MAX_REPORT - len(self.lines)]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Report:
        """Return the report of an import as the store keeps it: what was done before it is taken up again."""
        lines = [(number, column, reason) for number, column, reason in strictjson.loads(row["report"])]
        return cls(**{name: row[name] for name in _COUNTS}, lines=lines, notes=strictjson.loads(row["notes"]))

    def columns(self, before: Report) -> dict[str, Any]:
        """Return the numbers as the store keeps them, and the lines if there are more than ``before``."""
        numbers = {name: getattr(self, name) for name in _COUNTS}
        if len(self.lines) == len(before.lines):
            return numbers
        return numbers | {"report": strictjson.dumps(sorted(self.lines, key=lambda line: line[0]))}


_COUNTS = ("added", "known", "duplicates", "refused", "labels", "given", "agreed", "contradicting", "left_out")


@dataclass(frozen=True, slots=True)
class _Incoming:
    """A row that may go in, with the canonical labels that came with it."""

    number: int
    record: Ready
    labels: Mapping[str, tuple[str, Value]]
    """The column and the value, by task."""


@dataclass(frozen=True, slots=True)
class _Owner:
    """The record that a label goes to. ``of_copy``: it came with an exact copy of this record."""

    id: int
    key: str
    text: str
    kind: str
    of_copy: bool


@dataclass(frozen=True, slots=True)
class _Slice:
    """Rows of one transaction, what was refused between them, and how many rows were read from the file so far."""

    rows: list[_Incoming]
    refused: Report
    read: int


@dataclass(frozen=True, slots=True)
class _Claim:
    """An import that is ours: its number, the token that proves it, and the origin of its labels."""

    id: int
    token: str
    origin: str


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

    ``decisions`` maps each task to what stores its labels; ``prepare`` is the plugins' door: it changes or refuses a
    record.
    """

    def __init__(
        self,
        store: Store,
        project_id: int,
        tasks: Mapping[str, Task],
        decisions: Mapping[str, Decisions],
        prepare: Prepare | None = None,
        readers: Readers | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.store, self.project_id, self.tasks = store, project_id, tasks
        self.decisions, self.prepare = decisions, prepare
        self.readers, self.limits = readers, limits
        self._json = False
        self._rows = FEWEST_ROWS

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
            options = self._checked(path, file_name, options, ours, rehearse=done == 0)
            source = stack.enter_context(open_file(path, options, self.readers, self.limits, file_name))
            self._json = source.format in ("json", "jsonl")
            if ours is None:
                started = self._start(file_name, options, reviewer_id, source.size)
                ours = stack.enter_context(self._alive(*started, file_name))
            try:
                signed = report.added
                for slice_ in self._slices(source, options, done):
                    report = self._store_slice(slice_, report, ours, reviewer_id, source.position())
                    on_progress(source.position(), source.size, report)
                    if stop():
                        return report
                    if report.added - signed >= max(_UNSIGNED, report.added // 8):
                        sign_reviews(self.store, self.project_id, stop)
                        signed = report.added
            except HOPELESS as error:
                # Too large, or torn in the middle: what went in before stays, and the report says where it ended.
                self._fail(ours, error)
                error.exit_status = 1 if report.added else error.exit_status
                raise
            report.notes = list(source.notes)
            ended = {"state": "finished", "position": source.size, "ended_at": time.time()}
            self._progress(ours, ended | {"notes": strictjson.dumps(report.notes)})
        sign_reviews(self.store, self.project_id, stop)
        refresh_groups(self.store, self.project_id, self.tasks.values(), stop)
        return report

    def _checked(
        self, path: Path, file_name: str, options: ImportOptions, ours: _Claim | None, rehearse: bool
    ) -> ImportOptions:
        """Return the options with every guess made, checked before anything is stored; see :meth:`run`."""
        try:
            strange = [name for name in options.labels if name not in self.tasks]
            if strange:
                raise InputError(f"No task {strange[0]!r} in this project; there are: {', '.join(self.tasks)}")
            options = resolve(path, options, self.readers, file_name)
            if options.strict and rehearse:
                self._rehearse(path, file_name, options)
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
        ready: list[_Incoming] = []
        refused = Report()
        read, begun = 0, done
        for read, item in enumerate(source, 1):
            if read <= done:
                continue
            if isinstance(item, RowError):
                refused.refuse(item.number, item.column, item.reason)
            else:
                row = self._incoming(item, options, refused)
                if row is not None:
                    ready.append(row)
            if read - begun >= self._rows:
                yield _Slice(ready, refused, read)
                ready, refused, begun = [], Report(), read
        yield _Slice(ready, refused, max(read, done))

    def _incoming(self, row: Row, options: ImportOptions, report: Report) -> _Incoming | None:
        """Return the row as a record with its labels; what is wrong goes into the report."""
        try:
            if is_totals(row.values, options.text or ""):
                raise InputError("The row holds totals, not a review")
            new = self._new_record(row, options)
        except (TextError, InputError) as error:
            column = options.text if isinstance(error, TextError) else None
            report.refuse(row.number, column, str(error))
            return None
        labels: dict[str, tuple[str, Value]] = {}
        for task, column in options.labels.items():
            raw = value_at(row.values, column)
            # An empty cell of a table is no label; an empty text in JSON is one, where the schema has it.
            if raw is None or (raw == "" and not (self._json and self.tasks[task].schema.kind == "text")):
                continue
            try:
                labels[task] = column, read_label(self.tasks[task].schema, raw, new.text)
            except LabelError as error:
                # The review itself is fine: it goes in, without this label.
                report.say("left_out", row.number, column, f"the label was left out: {error}")
        return _Incoming(row.number, ready([new])[0], labels)

    def _new_record(self, row: Row, options: ImportOptions) -> NewRecord:
        text = text_of(value_at(row.values, options.text or ""))
        group = name_of(value_at(row.values, options.group), options.group) if options.group else None
        used = {options.text, options.id, options.group, *options.labels.values()}
        metadata = without(row.values, {name for name in used if name})
        if isinstance(inner := metadata.get("metadata"), dict):
            # What was metadata where the file comes from is metadata here, beside the other columns.
            metadata.pop("metadata")
            metadata |= {f"metadata.{name}" if name in metadata else name: value for name, value in inner.items()}
        key = name_of(value_at(row.values, options.id), options.id) if options.id else None
        if options.id and key is None:
            raise InputError(f"The id in column {options.id!r} is empty")
        if key is None:
            content = strictjson.dumps([text, group, metadata], sort_keys=True, default=str)
            key = "h-" + hashlib.sha256(content.encode()).hexdigest()[:20]
        if len(key) > 200:
            raise InputError(f"The id {key[:40]!r}… is longer than 200 characters")
        if not all(isinstance(value, str) and value.isprintable() for value in metadata.values()):
            # Whatever it may be, it is stored as JSON: what that does not hold is refused here.
            metadata = strictjson.loads(strictjson.dumps(metadata, default=str))
        if self.prepare is not None:
            record = self.prepare(Record(0, self.project_id, key, text, group=group, metadata=metadata))
            if isinstance(record, str):
                raise InputError(record)
            text, group, metadata = clean_text(record.text), record.group, dict(record.metadata)
        return NewRecord(key, text, group, metadata)

    def _store_slice(
        self, slice_: _Slice, report: Report, ours: _Claim, reviewer_id: int | None, position: int
    ) -> Report:
        """Store a slice and how far the import is, in one transaction; return the report with it."""
        names = [name for name, task in self.tasks.items() if task.unit != GROUP]
        room = self.store.records

        def work(tx: Tx) -> Report:
            began = time.perf_counter()
            after = replace(report, lines=list(report.lines))
            after.take(slice_.refused)
            news = [row.record for row in slice_.rows]
            stored = room.add_ready(tx, self.project_id, news, names, ours.id)
            for row, result in zip(slice_.rows, stored, strict=True):
                self._count(row, result, after)
            self._label(tx, slice_.rows, stored, after, ours, reviewer_id)
            progress = {**after.columns(report), "rows_read": slice_.read, "position": position}
            room.progress_import(tx, ours.id, progress, ours.token)
            self._pace(len(news), time.perf_counter() - began, BRIEF if self.store.work.anybody(tx) else LONG)
            return after

        return self.store.write(work)

    def _pace(self, rows: int, seconds: float, wanted: float) -> None:
        """Let the next slice hold the store for about ``wanted`` seconds, with at most four times as many rows."""
        if rows:
            fit = int(rows * min(wanted / max(seconds, 1e-6), 4))
            self._rows = max(FEWEST_ROWS, min(fit, MOST_ROWS))

    def _count(self, row: _Incoming, result: Stored, report: Report) -> None:
        """Say in the report what became of a row."""
        if result.outcome == OTHER_TEXT:
            report.refuse(row.number, None, _taken(row.record.key, result.kind))
            return
        report.added += result.outcome == ADDED
        report.known += result.outcome == KNOWN
        report.duplicates += result.outcome == ADDED and result.duplicate_of is not None

    def _label(
        self, tx: Tx, rows: Sequence[_Incoming], stored: Sequence[Stored], report: Report, ours: _Claim,
        reviewer_id: int | None,
    ) -> None:  # fmt: skip
        """Approve the labels of a slice, all of a task together, and say in the report what became of each.

        An exact copy is not in the queue: its label is that of its original.
        """
        labelled = [
            (row, result)
            for row, result in zip(rows, stored, strict=True)
            if row.labels and result.outcome != OTHER_TEXT
        ]
        if not labelled:
            return
        ids = list({result.duplicate_of or result.id for _, result in labelled})
        new = {result.id: row.record for row, result in zip(rows, stored, strict=True) if result.outcome == ADDED}
        owners = new | self.store.records.many([id_ for id_ in ids if id_ not in new], tx)
        tasks = list(dict.fromkeys(task for row, _ in labelled for task in row.labels))
        pending = {task: self.store.work.pending_among(self.project_id, task, ids, tx) for task in tasks}
        taken: dict[str, dict[int, Value]] = {task: {} for task in tasks}
        for row, result in labelled:
            known = owners[result.duplicate_of or result.id]
            owner = _Owner(
                result.duplicate_of or result.id, known.key, known.text, result.kind, result.duplicate_of is not None
            )
            for task in row.labels:
                self._take(tx, task, row, owner, pending[task], taken[task], report)
        for task, labels in taken.items():
            self.decisions[task].import_labels(tx, list(labels.items()), ours.origin, reviewer_id)

    def _take(
        self, tx: Tx, task: str, row: _Incoming, owner: _Owner, pending: set[int], taken: dict[int, Value],
        report: Report,
    ) -> None:  # fmt: skip
        """Put a label among those that are ``taken`` if its record is pending; say in the report what became of it."""
        column, value = row.labels[task]
        equal = owner.key if owner.of_copy else None
        if kind_of(self.tasks[task].unit) != owner.kind:
            report.say("left_out", row.number, column, _other_unit(self.tasks[task]))
            return
        try:
            value = self._placed(task, value, row.record.text, owner.text)
        except LabelError as error:
            report.say("left_out", row.number, column, f"the label was left out: {error}")
            return
        if owner.id in taken:
            self._compare(task, value, (APPROVED, taken[owner.id]), equal, row.number, column, report)
        elif owner.id in pending:
            taken[owner.id] = value
            report.labels += 1
            if equal is not None:
                report.say("given", row.number, column, f"the label went to the equal record {equal!r}, which had none")
        elif (stands := self.decisions[task].standing(owner.id, tx)) is not None:
            self._compare(task, value, stands, equal, row.number, column, report)
        else:
            report.say("left_out", row.number, column, f"the label was left out: the queue of {task} lacks this record")

    def _placed(self, task: str, value: Value, text: str, owner: str) -> Value:
        """Return a label of a text as that of the record it goes to. Raises :class:`LabelError` if it is none there."""
        schema = self.tasks[task].schema
        return value if text == owner else schema.parse(schema.answer(value), owner)

    def _compare(
        self, task: str, value: Value, stands: tuple[str, Value | None], equal: str | None, number: int, column: str,
        report: Report,
    ) -> None:  # fmt: skip
        """Say whether a label is the one that stands."""
        state, known = stands
        record = "the record" if equal is None else f"the equal record {equal!r}"
        if state != APPROVED:
            reason = f"the label was left out: {record} was rejected"
        elif known == value:
            report.agreed += 1
            return
        else:
            shown = one_line(strictjson.dumps(self.tasks[task].schema.answer(known)), 60)
            reason = f"the label was left out: {record} has another, {shown}"
        report.say("contradicting", number, column, reason)

    def _rehearse(self, path: Path, file_name: str, options: ImportOptions) -> None:
        """Read the whole file and store nothing. Raises :class:`FileRefused` if a row or a label would not go in."""
        report = Report()
        texts: dict[str, str] = {}
        labels: dict[tuple[int | str, str], Value] = {}
        with open_file(path, options, self.readers, self.limits, file_name) as source:
            self._json = source.format in ("json", "jsonl")
            for slice_ in self._slices(source, options):
                report.take(slice_.refused)
                for row in slice_.rows:
                    self._rehearse_row(row, texts, labels, report)
        count = report.refused + report.contradicting + report.left_out
        if count:
            number, _, reason = report.lines[0]
            raise FileRefused(
                f"Nothing was imported: {count} row(s) would be refused. The first is row {number}: {reason}"
            )

    def _rehearse_row(
        self, row: _Incoming, texts: dict[str, str], labels: dict[tuple[int | str, str], Value], report: Report
    ) -> None:
        new, digest = row.record, row.record.digest
        known = self.store.records.standing(self.project_id, new.key)
        kind = known["kind"] if known is not None else new.kind
        exact = hashlib.blake2b(new.text.encode(), digest_size=8).hexdigest()
        other = texts.setdefault(new.key, exact) != exact
        if other or (known is not None and known["text"] != new.text):
            report.refuse(row.number, None, _taken(new.key, kind))
        original = self.store.records.original(self.project_id, new.key, digest)
        for task, (column, value) in row.labels.items():
            stands = self.decisions[task].standing(original) if original is not None else None
            if kind_of(self.tasks[task].unit) != kind:
                report.say("left_out", row.number, column, _other_unit(self.tasks[task]))
            elif stands is not None:
                self._compare(task, value, stands, None, row.number, column, report)
            else:
                first = labels.setdefault((original or digest, task), value)
                self._compare(task, value, (APPROVED, first), None, row.number, column, report)


def _taken(key: str, kind: str) -> str:
    if kind == GROUP:
        return f"the id {key!r} is that of a product, whose text is made from its reviews; import those instead"
    return f"the id {key!r} is taken by another text; change one of them"


def _other_unit(task: Task) -> str:
    labelled, given = ("products", "a review") if task.unit == GROUP else ("reviews", "a product")
    return f"the label was left out: the task {task.name} labels {labelled}, and this row is {given}"
