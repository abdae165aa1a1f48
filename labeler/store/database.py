"""Connections, transactions and the one writer: everything about *how* the store talks to SQLite.

Readers have a connection per thread and never wait (WAL). All writes of a process go through one writer
thread, which takes whatever waits in its queue, runs each piece in a savepoint inside one ``BEGIN IMMEDIATE``
and commits once for all of them (group commit): a caller returns when its piece is durable. Writers of other
processes are met by SQLite's own lock; a deferred transaction, which can fail after its first read, is never used.
"""

from __future__ import annotations

import contextlib
import queue
import random
import re
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from labeler.errors import (
    Conflict,
    InputError,
    LabelerError,
    NotFound,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreReadOnly,
    not_written,
)
from labeler.memory import give_back

T = TypeVar("T")
Params = Mapping[str, Any] | Sequence[Any]
Row = sqlite3.Row
_BATCH = 128
# SQLite takes 32,766 values by one statement.
_MOST_VALUES = 32_000
_LOCK_PATIENCE = 60.0
# In bytes: what a -wal that has grown for a while is cut back to; what a reader holds back in it that is worth a word.
_WAL_SIZE, HELD_BACK = 16 * 1024 * 1024, 64 * 1024 * 1024
# After so many changed rows the thread for it moves the -wal into the file; if it cannot keep up, the writer does at so
# many pages. How long the -wal is must not be read from the -shm: a process that closes that file loses all its locks.
_MOVED_AT, _LONGEST = 1000, 4000
# In KiB, the pages that a connection keeps. Each thread reads by one of its own, and the system keeps what all of them
# read; the one that writes changes pages all over the indexes. After so many seconds without work it lets go of them.
_CACHE, _WRITER_CACHE, _AT_REST = 2048, 65536, 2.0
MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "davfs",
    "sshfs", "s3fs", "rclone", "gcsfuse", "davfs2",
}  # fmt: skip
_OF_SQLITE = (UnicodeDecodeError, OverflowError, sqlite3.DatabaseError)
_TORN = ("malformed", "not a database", "disk I/O", "decode to UTF-8", "unsupported file format")


def taking(page: Sequence[Row], names: Sequence[str]) -> Callable[[Row], tuple[Any, ...]]:
    """Return what takes several columns out of the rows of one statement: quicker than to ask each row by name."""
    places = {name: place for place, name in enumerate(page[0].keys())} if page else {}
    return itemgetter(*(places[name] for name in names)) if page else tuple


class Tx:
    """An open transaction (or a reader's connection): named parameters in, rows out."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def all(self, sql: str, params: Params = ()) -> list[Row]:
        return self.connection.execute(sql, params).fetchall()

    def one(self, sql: str, params: Params = ()) -> Row | None:
        row: Row | None = self.connection.execute(sql, params).fetchone()
        return row

    def value(self, sql: str, params: Params = ()) -> Any:
        row = self.connection.execute(sql, params).fetchone()
        return row[0] if row else None

    def run(self, sql: str, params: Params = ()) -> int:
        """Execute a statement and return the number of rows it changed."""
        return self.connection.execute(sql, params).rowcount

    def many(self, sql: str, rows: Iterable[Params]) -> int:
        """Execute a statement for each of the rows and return how many it changed.

        Slow where other threads compute: see :meth:`insert`.
        """
        return max(self.connection.executemany(sql, rows).rowcount, 0)

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]], conflict: str = "") -> int:
        """Insert rows by as few statements as can be and return how many went in; ``columns`` are names with commas.

        The first column of no row is None. A statement gives the interpreter to another thread while it runs, and waits
        up to 5 ms until it has it back: with one for each row, a slice holds the store sixty times as long while
        somebody computes.
        """
        names = columns.split(", ")
        most, added = _MOST_VALUES // len(names), 0
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            # Filled up to a power of two, so that few statements are made, and each once: that takes longer than a run.
            size = min(1 << (len(part) - 1).bit_length(), most)
            values = [value for row in part for value in row] + [None] * ((size - len(part)) * len(names))
            added += self.run(_insertion(table, columns, len(names), size, conflict), values)
        return added


@lru_cache(256)
def _insertion(table: str, columns: str, width: int, size: int, conflict: str) -> str:
    rows = ", ".join([f"({', '.join('?' * width)})"] * size)
    return f"""INSERT INTO {table} ({columns}) SELECT * FROM (VALUES {rows}) AS rows WHERE column1 IS NOT NULL
               {conflict}"""


class _Connection(sqlite3.Connection):
    """Unlike its base it can be weakly referenced.

    ``busy`` is held while a thread reads: to close a connection under a running statement can crash the process.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.busy = threading.Lock()


class _OfThread:
    """Holds a thread's connection, and closes it when the thread ends.

    A connection refers to itself by way of its cache of statements: left alone it would keep its files open until the
    garbage collector comes by.
    """

    def __init__(self, connection: _Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class Database:
    """One SQLite file. ``synchronous`` is FULL, so that what was acknowledged survives a power cut too."""

    _here: ClassVar[weakref.WeakSet[Database]] = weakref.WeakSet()

    def __init__(self, path: Path, *, read_only: bool = False, synchronous: str = "FULL") -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._synchronous = synchronous
        self._local = threading.local()
        self._readers: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._queue: queue.SimpleQueue[tuple[Callable[[Tx], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._mover = threading.Thread(target=self._move_loop, name="labeler-checkpoint", daemon=True)
        self._long = threading.Event()
        self._start = threading.Lock()
        self._closed = False
        Database._here.add(self)

    @property
    def shared(self) -> bool:
        """Whether this process may have the same file open by another one of these.

        Then nobody here may open the file past SQLite: to close it again gives away the locks that the process holds
        on it (POSIX), and the next process that ends its work takes the -wal away under this one.
        """
        path = self.path.resolve()
        return any(one is not self and not one._closed and one.path.resolve() == path for one in tuple(self._here))

    def connect(self) -> _Connection:
        """Open a connection set up as every connection of Labeler is. Raises :class:`StoreError`."""
        with mapped_errors(self.path):
            connection = self._connected("ro") if self.read_only else self._connected("rwc")
            if self.read_only and not self._readable(connection):
                connection.close()
                connection = self._connected("ro&immutable=1")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA cache_size = -{_CACHE}")
            if not self.read_only:
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
                # What is deleted is overwritten: a removed text must not be read from the free pages of the file.
                connection.execute("PRAGMA secure_delete = ON")
                connection.execute(f"PRAGMA journal_size_limit = {_WAL_SIZE}")
            return connection

    def _connected(self, mode: str) -> _Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        # check_same_thread=False only lets close() close the readers of other threads.
        connection: _Connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0, factory=_Connection
        )
        connection.row_factory = sqlite3.Row
        return connection

    def _readable(self, connection: sqlite3.Connection) -> bool:
        """Whether a database in WAL mode can be read as it is: it cannot where no -shm may be made beside it."""
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            return True
        except sqlite3.OperationalError as error:
            wal = self.path.with_name(self.path.name + "-wal")
            # Without a -wal the file is complete; with one, leaving it unread would hide the newest rows.
            if not _no_rights(str(error)) or (wal.exists() and wal.stat().st_size):
                raise
            return False

    def _reader(self) -> _Connection:
        """The calling thread's read connection. It sees what was committed when each statement starts."""
        if self._closed:
            raise StoreError("The store is closed")
        held: _OfThread | None = getattr(self._local, "held", None)
        if held is None:
            connection = self.connect()
            connection.execute("PRAGMA query_only = ON")
            self._readers.add(connection)
            held = self._local.held = _OfThread(connection)
        return held.connection

    # A page reads dozens of times: here every layer would be felt.

    def all(self, sql: str, params: Params = ()) -> list[Row]:
        """Return all rows. Raises what :func:`mapped_errors` makes of an error of SQLite: a :class:`LabelerError`."""
        reader = self._reader()
        try:
            with reader.busy:
                return reader.execute(sql, params).fetchall()
        except _OF_SQLITE as error:
            raise _ours(self.path, error) from error

    def one(self, sql: str, params: Params = ()) -> Row | None:
        """Return the first row, or None. Raises as :meth:`all` does, a :class:`LabelerError`."""
        reader = self._reader()
        try:
            with reader.busy:
                row: Row | None = reader.execute(sql, params).fetchone()
                return row
        except _OF_SQLITE as error:
            raise _ours(self.path, error) from error

    def value(self, sql: str, params: Params = ()) -> Any:
        row = self.one(sql, params)
        return row[0] if row else None

    def pages(self, sql: str, params: Mapping[str, Any], size: int = 1000) -> Iterator[list[Row]]:
        """Yield the rows of ``sql`` in pages of ``size``; it must say ``id > :after ORDER BY id LIMIT :size``.

        It begins after 0, or after what ``params`` says.
        """
        after = params.get("after", 0)
        while True:
            rows = self.all(sql, {**params, "after": after, "size": size})
            if rows:
                yield rows
            if len(rows) < size:
                return
            after = rows[-1]["id"]

    def write(self, work: Callable[[Tx], T]) -> T:
        """Run ``work`` in a transaction of the writer thread and return its result once that is durable.

        If ``work`` raises, nothing of it stays and the exception is raised here. It must not call ``write``.
        """
        return self.begin_write(work).result()

    def begin_write(self, work: Callable[[Tx], T]) -> Future[T]:
        """Hand ``work`` to the writer thread, as :meth:`write` does, and return at once.

        Raises :class:`StoreReadOnly`, or :class:`StoreError` where the store is closed.
        """
        if self.read_only:
            raise StoreReadOnly("The store %(path)s is open read-only; nothing was changed", path=self.path)
        future: Future[T] = Future()
        with self._start:
            if self._closed:
                raise StoreError("The store is closed")
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_loop, name="labeler-writer", daemon=True)
                self._writer.start()
                self._mover.start()
            self._queue.put((work, future))
        return future

    def backup(self, target: Path) -> None:
        """Copy the database to ``target`` with VACUUM INTO: consistent, complete, without its -wal beside it.

        Raises :class:`InputError` for a place that is taken or not there, and the :class:`LabelerError` of a full disk.
        """
        target = Path(target)
        if target.exists():
            raise InputError(f"{target} exists already; a backup never overwrites. Choose another name")
        if not target.parent.is_dir():
            raise InputError(f"There is no folder {target.parent}")
        # A name that nobody else's file has.
        partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.tmp")
        connection = self.connect()
        try:
            with mapped_errors(target):
                connection.execute("VACUUM INTO ?", [str(partial)])
            partial.replace(target)
        except OSError as error:
            raise not_written(target, error) from error
        finally:
            connection.close()
            partial.unlink(missing_ok=True)

    def empty_wal(self) -> None:
        """Write the -wal into the file and empty it, as far as no reader is in the middle of it."""
        connection = self.connect()
        try:
            with mapped_errors(self.path):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.close()

    def checkpoint(self) -> int:
        """Move what stands in the -wal into the database; return how many bytes could not be, because of a reader.

        Nobody waits for it. SQLite does the same by itself at every thousandth page, but tells nobody that it cannot.
        """
        connection = self.connect()
        try:
            with mapped_errors(self.path):
                _, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                size: int = connection.execute("PRAGMA page_size").fetchone()[0]
                return max(0, int(pages) - int(moved)) * size
        finally:
            connection.close()

    def close(self) -> None:
        """Finish the writes that wait, then close every connection."""
        with self._start:
            if self._closed:
                return
            self._closed = True
            if self._writer is not None:
                self._queue.put(None)
        if self._writer is not None:
            self._writer.join()
            self._long.set()
            self._mover.join()
        for connection in list(self._readers):
            with connection.busy:
                connection.close()

    def _write_loop(self) -> None:
        connection: sqlite3.Connection | None = None
        moved = shrunk = 0
        while True:
            changed = connection.total_changes if connection is not None else 0
            try:
                item = self._queue.get(timeout=_AT_REST if changed - shrunk >= _MOVED_AT else None)
            except queue.Empty:
                assert connection is not None
                connection.execute("PRAGMA shrink_memory")
                give_back()
                shrunk = changed
                continue
            batch = []
            while item is not None:
                batch.append(item)
                if len(batch) >= _BATCH or self._queue.empty():
                    break
                item = self._queue.get()
            if batch:
                try:
                    connection = connection or self._writing()
                    self._write_batch(connection, batch)
                except BaseException as error:  # the writer outlives every failure; the callers get it
                    if connection is not None and connection.in_transaction:
                        # Not even the rollback went through: nothing could begin on this connection any more.
                        connection.close()
                        connection, moved, shrunk = None, 0, 0
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                if connection is not None and connection.total_changes - moved >= _MOVED_AT:
                    moved = connection.total_changes
                    self._long.set()
            if item is None:
                if connection is not None:
                    connection.close()
                return

    def _writing(self) -> sqlite3.Connection:
        """The writer's connection. It waits for other processes by itself: see :func:`patiently`."""
        connection = self.connect()
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LONGEST}")
        connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE}")
        return connection

    def _move_loop(self) -> None:
        while True:
            self._long.wait()
            if self._closed:
                return
            self._long.clear()
            # A disk that is full, or torn, is told to whoever writes or reads.
            with contextlib.suppress(StoreError):
                self.checkpoint()

    def _write_batch(
        self, connection: sqlite3.Connection, batch: Sequence[tuple[Callable[[Tx], Any], Future[Any]]]
    ) -> None:
        results: list[tuple[Future[Any], Any, BaseException | None]] = []
        tx = Tx(connection)
        try:
            with mapped_errors(self.path):
                patiently(connection, "BEGIN IMMEDIATE")
                for work, future in batch:
                    connection.execute("SAVEPOINT piece")
                    try:
                        with mapped_errors(self.path):
                            result = work(tx)
                    except BaseException as error:
                        # Disk full and I/O errors end the whole transaction: every caller must hear of it.
                        if isinstance(error.__cause__, sqlite3.OperationalError) and not _of_the_piece(error.__cause__):
                            raise
                        connection.execute("ROLLBACK TO piece")
                        results.append((future, None, error))
                    else:
                        results.append((future, result, None))
                    connection.execute("RELEASE piece")
                connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        for future, result, failure in results:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)


def _no_rights(text: str) -> bool:
    return "readonly" in text or "unable to open" in text


def _of_the_piece(error: sqlite3.OperationalError) -> bool:
    """Whether a failure is the statement's own fault (no such column, too many variables), not the disk's."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def patiently(connection: sqlite3.Connection, sql: str) -> None:
    """Execute a statement that needs the lock of the file, waiting for other processes as long as is decent."""
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            connection.execute(sql)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            # SQLite's own busy handler sleeps longer each time, up to 100 ms, and misses the gaps between the
            # transactions of a process that is busy writing.
            time.sleep(random.uniform(0.001, 0.01))


@contextlib.contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, with a remedy. Each is a :class:`LabelerError`."""
    try:
        yield
    except _OF_SQLITE as error:
        raise _ours(path, error) from error


def _ours(path: Path, error: Exception) -> LabelerError:
    if isinstance(error, UnicodeDecodeError):
        # Torn text: in a row, or in the very message that says what is torn.
        return _damaged(path, str(error))
    if isinstance(error, OverflowError):
        # An id of twenty digits in an address: SQLite's integers end at 2**63.
        return NotFound("There is nothing with a number so large")
    text = str(error)
    if "FOREIGN KEY" in text:
        # A suggestion for a record, a run in a project: what it belongs to has just been removed.
        return Conflict("What this belongs to was removed meanwhile; look again")
    if "full" in text:
        return StoreFull("The disk of %(path)s is full; free some space and try again. Nothing was lost", path=path)
    if _no_rights(text):
        return StoreReadOnly(
            "%(path)s cannot be opened for writing (%(reason)s); check the folder's permissions", path=path, reason=text
        )
    if any(word in text for word in _TORN):
        return _damaged(path, text)
    return StoreError("The store %(path)s refused: %(reason)s", path=path, reason=text)


def _damaged(path: Path, text: str) -> StoreDamaged:
    return StoreDamaged(
        "%(path)s is damaged (%(reason)s); run 'labeler doctor', then restore the newest backup", path=path, reason=text
    )


def check_local(path: Path) -> None:
    """Raise :class:`StoreError` for a database on a network file system, where the system tells (Linux)."""
    kind = file_system(path)
    if kind.removeprefix("fuse.") in _NETWORK:
        raise StoreError(
            "%(path)s lies on a network file system (%(kind)s), where the locks of SQLite do not hold "
            "and data is lost; put the instance folder on a local disk, and only backups there",
            path=path,
            kind=kind,
        )


def file_system(path: Path) -> str:
    """Return the kind of the file system that a path lies on, such as ext4; empty where the system does not tell."""
    found, longest = "", -1
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    real = path.absolute().parent.resolve()
    for line in lines:
        before, _, after = line.partition(" - ")
        # Spaces of a name stand as \040; the newest of two mounts at one place is the one that is seen.
        place = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4]))
        if real.is_relative_to(place) and len(place.parts) >= longest:
            found, longest = after.split(" ")[0], len(place.parts)
    return found


def held_back(path: Path, size: int) -> str:
    """Return the sentence about a -wal that grows because somebody reads an old state of the database for long."""
    names = ", ".join(holders(path)) or "a process of another user"
    return (
        f"{path.name}-wal grows: {size:,} bytes of it wait for somebody who began to read and has not ended; these "
        f"have the database open: {names}. End the one that is forgotten"
    )


def holders(path: Path) -> list[str]:
    """Name the processes that have the database open, where the system tells (Linux): ``sqlite3 (4711)``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(handle.is_symlink() and handle.readlink() == path for handle in (process / "fd").iterdir()):
                found.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
        except OSError:
            # It has ended, or belongs to somebody else.
            continue
    return found
