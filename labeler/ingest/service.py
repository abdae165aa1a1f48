"""Imports: a file becomes records, slice by slice, with a report of every row that was refused.

A slice is one transaction. While people label it has as many rows as are stored in a thirtieth of a second, so that
they hardly wait. While nobody does it may have ten times as many, and the next slice is read while one is stored. A
killed import loses nothing: what an import did is counted in the transaction that does it, so that the next worker goes
on where this one ended, and a file that is imported again finds what is there by its key. Without an id column a
record's key is a hash of its content, so that the same file twice adds nothing.

A worker proves with a token that an import is its own, in each transaction, and says all the while that it lives: two
never import one file beside each other.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from labeler import strictjson
from labeler.errors import FileRefused, InputError, LabelerError, MissingExtra, PluginError, TooLarge
from labeler.ingest.clusters import Signing, sign_reviews
from labeler.ingest.labelled import Decisions, Labels
from labeler.ingest.options import ImportOptions
from labeler.ingest.reading import Readers, open_file, resolve
from labeler.ingest.rehearsal import Rehearsal, taken_key
from labeler.ingest.report import Report
from labeler.ingest.rows import Limits, Row, RowError, RowSource
from labeler.ingest.slices import Door, Incoming, Prepare
from labeler.ingest.upkeep import refresh_groups
from labeler.sentence import stored
from labeler.store import Store, Stored, Tx
from labeler.store.records import ADDED, KNOWN, OTHER_TEXT
from labeler.task import GROUP, Task

FEWEST_ROWS, MOST_ROWS = 20, 2000
"""Rows of a slice."""
BRIEF, LONG = 0.03, 0.3
"""The seconds that a slice should hold the store: while people label, whose decisions wait so long, and else."""
_GAP = 0.005
"""Seconds between two slices while nobody labels."""
_MOST_BYTES = 4 * 1024**2
"""So much of a file is read for a slice at most."""
_BEAT = 20.0
"""Seconds between two signs of life of an import."""
HOPELESS = (InputError, TooLarge, MissingExtra, PluginError)
"""What ends an import for good: tried again, it would end the same way."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """Rows of one transaction, what was refused between them, and how many rows were read from the file so far."""

    rows: list[Incoming]
    refused: Report
    read: int
    position: int
    """The bytes of the file that were read so far."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """An import that is ours: its number, the token that proves it, and the origin of its labels."""

    id: int
    token: str
    origin: str


def _slice_of(door: Door, items: Sequence[Row | RowError], read: int, source: RowSource) -> _Slice:
    refused = Report()
    return _Slice(door.take(items, refused), refused, read, source.position())


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
        self.labels, self.prepare = Labels(store, project_id, tasks, decisions), prepare
        self.readers, self.limits = readers, limits
        self._rows = FEWEST_ROWS
        self._brief, self._held = True, 0.0

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
            if ours is None:
                started = self._start(file_name, options, reviewer_id, source.size)
                ours = stack.enter_context(self._alive(*started, file_name))
            try:
                signing = stack.enter_context(Signing(self.store, self.project_id, stop, report.added))
                slices = self._slices(source, options, done)
                slice_: _Slice | None = next(slices)
                while slice_ is not None:
                    position, storing = slice_.position, self._store_slice(slice_, report, ours, reviewer_id)
                    try:
                        slice_ = self._ahead(slices, storing)
                    finally:
                        report = storing.result()
                    on_progress(position, source.size, report)
                    if stop():
                        return report
                    signing.came_in(report.added)
                    if self._brief:
                        signing.wait()
                signing.wait()
            except HOPELESS as error:
                # Too large, or torn in the middle: what went in before stays, and the report says where it ended.
                self._fail(ours, error)
                error.exit_status = 1 if report.added else error.exit_status
                raise
            report.notes = list(source.notes)
            ended = {"state": "finished", "position": source.size, "ended_at": time.time()}
            self._progress(ours, ended | {"notes": strictjson.dumps(list(map(stored, report.notes)))})
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
                raise InputError(
                    "No task %(name)r in this project; there are: %(names)s",
                    name=strange[0],
                    names=", ".join(self.tasks),
                )
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
        is_json = source.format in ("json", "jsonl")
        door = Door(self.project_id, self.tasks, options, self.prepare, is_json)
        rows = iter(source)
        read = sum(1 for _ in islice(rows, done))
        items: list[Row | RowError] | None = None
        # The last is empty: with it the whole file is read.
        while items is None or items:
            items = self._next(rows, source)
            read += len(items)
            yield _slice_of(door, items, max(read, done), source)

    def _ahead(self, slices: Iterator[_Slice], storing: Future[Report]) -> _Slice | None:
        """Read the next slice while one is stored; while people label, behind it: to compute makes storing slower."""
        if self._brief:
            wait([storing])
        free = time.perf_counter()
        ahead = next(slices, None)
        wait([storing])
        # The lock of SQLite has no queue: others must find it free, while people label half of the time.
        time.sleep(max(self._held - (time.perf_counter() - free), 0) if self._brief else _GAP)
        return ahead

    def _next(self, rows: Iterator[Row | RowError], source: RowSource) -> list[Row | RowError]:
        """Return the rows of the next slice: so many as are to be stored at once, unless they are long."""
        most = source.unpacked() + _MOST_BYTES
        items: list[Row | RowError] = []
        for item in rows:
            items.append(item)
            if len(items) >= self._rows or source.unpacked() > most:
                break
        return items

    def _store_slice(self, slice_: _Slice, report: Report, ours: _Claim, reviewer_id: int | None) -> Future[Report]:
        """Store a slice and how far the import is, in one transaction; the report with it comes when that is done."""
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
            self.labels.approve(tx, slice_.rows, stored, after, ours.origin, reviewer_id)
            progress = {**after.columns(report), "rows_read": slice_.read, "position": slice_.position}
            room.progress_import(tx, ours.id, progress, ours.token)
            self._brief = self.store.work.anybody(tx)
            self._held = time.perf_counter() - began
            self._pace(len(news), self._held, BRIEF if self._brief else LONG)
            return after

        return self.store.begin_write(work)

    def _pace(self, rows: int, seconds: float, wanted: float) -> None:
        """Let the next slice hold the store for about ``wanted`` seconds, with at most four times as many rows."""
        if rows:
            fit = int(rows * min(wanted / max(seconds, 1e-6), 4))
            self._rows = max(FEWEST_ROWS, min(fit, MOST_ROWS))

    def _count(self, row: Incoming, result: Stored, report: Report) -> None:
        """Say in the report what became of a row."""
        if result.outcome == OTHER_TEXT:
            report.refuse(row.number, None, taken_key(row.record.key, result.kind))
            return
        report.added += result.outcome == ADDED
        report.known += result.outcome == KNOWN
        report.duplicates += result.outcome == ADDED and result.duplicate_of is not None

    def _rehearse(self, path: Path, file_name: str, options: ImportOptions) -> None:
        """Read the whole file and store nothing. Raises :class:`FileRefused` if a row or a label would not go in."""
        rehearsal = Rehearsal(self.labels)
        with open_file(path, options, self.readers, self.limits, file_name) as source:
            for slice_ in self._slices(source, options):
                rehearsal.report.take(slice_.refused)
                for row in slice_.rows:
                    rehearsal.row(row)
        report = rehearsal.report
        count = report.refused + report.contradicting + report.left_out
        if count:
            number, _, reason = report.lines[0]
            raise FileRefused(
                "Nothing was imported: %(n)s row(s) would be refused. The first is row %(row)s: %(why)s",
                n=count,
                row=number,
                why=reason,
            )
