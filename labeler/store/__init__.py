"""The store: everything Labeler knows, in one SQLite file. The only place where SQL is written.

A read is a method of one of the rooms below. A change is a function of an open transaction, which a service puts
together and hands to :meth:`Store.write`: what must happen at once happens at once, and returns when it is durable.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from labeler.store.acts import Acts
from labeler.store.annotations import Annotations
from labeler.store.ballots import Ballots
from labeler.store.batches import Batches
from labeler.store.calibrations import Calibrations
from labeler.store.clusters import Block, Clusters
from labeler.store.counts import Counts
from labeler.store.database import Database, Row, Tx
from labeler.store.drafts import Drafts
from labeler.store.exports import Exports
from labeler.store.fits import Fits
from labeler.store.journal import Events
from labeler.store.judgements import Judgements
from labeler.store.ledger import Ledger
from labeler.store.limits import Limits
from labeler.store.migrations import check_new, lost_rows, migrate
from labeler.store.models import Models
from labeler.store.notes import Notes
from labeler.store.numbers import Numbers
from labeler.store.people import People
from labeler.store.products import Products
from labeler.store.projects import Projects
from labeler.store.rankings import Rankings
from labeler.store.records import NewRecord, Records, Stored
from labeler.store.removal import Removal
from labeler.store.replays import Replays
from labeler.store.search import index_pictures, index_texts, lacks_pictures, tidy, unsearchable
from labeler.store.splits import Splits
from labeler.store.suggestions import Suggestions
from labeler.store.tags import Tags
from labeler.store.upkeep import Upkeep
from labeler.store.vectors import Vectors
from labeler.store.views import Views
from labeler.store.work import Work
from labeler.store.written import Written

__all__ = ["Block", "NewRecord", "Row", "Store", "Stored", "Tx", "check_new", "lost_rows"]
T = TypeVar("T")


class Store:
    """Open (and migrate) the database at ``path``. Raises :class:`labeler.errors.StoreError`."""

    def __init__(self, path: Path | str, *, read_only: bool = False, synchronous: str = "FULL") -> None:
        path = Path(path)
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.db = Database(path, read_only=read_only, synchronous=synchronous)
        migrate(self.db)
        self.projects = Projects(self.db)
        self.people = People(self.db)
        self.counts = Counts(self.db)
        self.records = Records(self.db)
        self.clusters = Clusters(self.db)
        self.products = Products(self.db)
        self.vectors = Vectors(self.db)
        self.work = Work(self.db)
        self.upkeep = Upkeep(self.db)
        self.fits = Fits(self.db)
        self.annotations = Annotations(self.db)
        self.ballots = Ballots(self.db)
        self.numbers = Numbers(self.db)
        self.suggestions = Suggestions(self.db)
        self.rankings = Rankings(self.db)
        self.notes = Notes(self.db)
        self.drafts = Drafts(self.db)
        self.ledger = Ledger(self.db)
        self.batches = Batches(self.db)
        self.limits = Limits(self.db)
        self.models = Models(self.db)
        self.calibrations = Calibrations(self.db)
        self.events = Events(self.db)
        self.exports = Exports(self.db)
        self.splits = Splits(self.db)
        self.replays = Replays(self.db)
        self.views = Views(self.db)
        self.acts = Acts(self.db)
        self.tags = Tags(self.db)
        self.written = Written(self.db)
        self.judgements = Judgements(self.db)
        self.removal = Removal(self.db)

    @property
    def path(self) -> Path:
        return self.db.path

    @property
    def read_only(self) -> bool:
        return self.db.read_only

    def write(self, work: Callable[[Tx], T]) -> T:
        """Run ``work`` in one transaction; return its result once it is durable, or raise and change nothing."""
        return self.db.write(work)

    def begin_write(self, work: Callable[[Tx], T]) -> Future[T]:
        """Begin to write and return at once; the result of what is returned is that of :meth:`write`."""
        return self.db.begin_write(work)

    def backup(self, target: Path) -> None:
        """Write a consistent copy of the database to ``target`` while others go on writing."""
        self.db.backup(target)

    def checkpoint(self) -> int:
        """Move what stands in the -wal into the database; return how many bytes could not be, because of a reader."""
        return self.db.checkpoint()

    def unsearchable(self) -> int:
        """Return how many records a search cannot find, up to 100."""
        return len(unsearchable(self.db))

    def make_searchable(self) -> None:
        """Index the records that a search cannot find."""
        while self.index_pictures():
            pass
        while rows := unsearchable(self.db, 1000):
            self.write(lambda tx, rows=rows: index_texts(tx, [(row["id"], row["text"]) for row in rows]))  # type: ignore[misc]

    def index_pictures(self) -> bool:
        """Index emoji of some records that were stored before a search knew them; return whether there were any."""
        if not lacks_pictures(self.db):
            return False
        self.write(index_pictures)
        return True

    def wipe(self, deep: bool = False) -> None:
        """Let no removed text stand in the files: empty the -wal, and with ``deep`` tidy the search index."""
        if deep:
            self.write(tidy)
        self.db.empty_wal()

    def check(self) -> list[str]:
        """Return what SQLite finds wrong with the file; empty when it is sound."""
        rows: list[Any] = [row[0] for row in self.db.all("PRAGMA integrity_check(20)")]
        return [] if rows == ["ok"] else [str(row) for row in rows]

    def close(self) -> None:
        self.db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
