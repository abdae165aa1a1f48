"""Records: what was imported, their exact and near duplicates, and imports. Products have a room of their own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from labeler import strictjson
from labeler.errors import Conflict, NotFound
from labeler.records import Record
from labeler.store.database import Database, Row, Tx
from labeler.store.search import index_texts
from labeler.text import content_hash, guess_language

REVIEW, GROUP = "review", "group"
ADDED, KNOWN, OTHER_TEXT = "added", "known", "other_text"
# Of a record "r" and a task's row "q" of the table queued.
OTHER_UNIT = "(q.unit = 'group') <> (r.kind = 'group')"
DEAD = 120.0
"""Seconds after which an import that nobody has touched belongs to nobody."""
_ORIGINAL = """SELECT id, cluster, duplicate_of FROM records WHERE project_id = :p AND content_hash = :hash
               AND kind = 'review' ORDER BY id LIMIT 1"""
Similar = Callable[[str, str], bool]
"""Says whether two texts, found by their signatures, really are near-duplicates."""


def unused(table: str) -> str:
    """Return SQL for the next number of a table: none is given twice, also when the newest rows were removed."""
    return f"""1 + MAX(COALESCE((SELECT MAX(id) FROM {table}), 0),
                       COALESCE((SELECT highest FROM used_numbers WHERE name = '{table}'), 0))"""


def kind_of(unit: str) -> str:
    """Return the kind of record that a task of this unit labels."""
    return GROUP if unit == "group" else REVIEW


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record on its way in.

    ``bands`` and ``shape`` are its near-duplicate signature (may be empty): texts that share a band are compared, texts
    of one shape are near-duplicates without a look.
    """

    key: str
    text: str
    group: str | None = None
    metadata: dict[str, Any] | None = None
    bands: Sequence[int] = ()
    kind: str = REVIEW
    shape: int | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a new record: ``outcome`` is "added", "known" (nothing new) or "other_text" (refused).

    ``kind`` is that of the record that stands under its key.
    """

    id: int
    outcome: str
    duplicate_of: int | None = None
    kind: str = REVIEW


class Records:
    def __init__(self, db: Database) -> None:
        self.db = db

    def get(self, record_id: int, tx: Tx | None = None) -> Record:
        row = (tx or self.db).one("SELECT * FROM records WHERE id = :id", {"id": record_id})
        if row is None:
            highest = self.db.value("SELECT highest FROM used_numbers WHERE name = 'records'")
            if 0 < record_id <= (highest or 0):
                # For the page as if its text had changed: nothing can be decided on it, whatever is forced.
                raise Conflict("This record was removed meanwhile", {"text_changed": True, "removed": True})
            raise NotFound(f"There is no record number {record_id}")
        return as_record(row)

    def many(self, record_ids: Sequence[int]) -> dict[int, Record]:
        """Return the records by id; unknown ids are left out."""
        found: dict[int, Record] = {}
        for start in range(0, len(record_ids), 500):
            slice_ = record_ids[start : start + 500]
            marks = ",".join("?" * len(slice_))
            for row in self.db.all(f"SELECT * FROM records WHERE id IN ({marks})", list(slice_)):
                found[row["id"]] = as_record(row)
        return found

    def by_key(self, project_id: int, key: str) -> Record | None:
        row = self.db.one("SELECT * FROM records WHERE project_id = :p AND key = :k", {"p": project_id, "k": key})
        return as_record(row) if row else None

    def counts(self, project_id: int) -> dict[str, int]:
        sql = """SELECT COUNT(*) AS records, COUNT(duplicate_of) AS duplicates,
                 COUNT(DISTINCT grp) AS groups FROM records WHERE project_id = :p AND kind = 'review'"""
        row = self.db.one(sql, {"p": project_id})
        return dict(row) if row else {}

    def near_duplicates(self, project_id: int) -> int:
        """Return how many records resemble an earlier one without being its exact copy."""
        sql = """SELECT COUNT(*) FROM records WHERE project_id = :p AND kind = 'review' AND duplicate_of IS NULL
                 AND cluster <> id"""
        return int(self.db.value(sql, {"p": project_id}))

    def pages(self, project_id: int, kind: str = REVIEW, size: int = 1000) -> Iterator[list[Record]]:
        """Yield the records that can be labelled (exact duplicates are not), oldest first, in pages."""
        # The plus keeps SQLite from an index of the project, which it would have to sort for each page.
        sql = """SELECT * FROM records WHERE +project_id = :p AND kind = :kind AND duplicate_of IS NULL
                 AND id > :after ORDER BY id LIMIT :size"""
        for rows in self.db.pages(sql, {"p": project_id, "kind": kind}, size):
            yield [as_record(row) for row in rows]

    def add(
        self,
        tx: Tx,
        project_id: int,
        rows: Sequence[NewRecord],
        tasks: Sequence[str],
        import_id: int | None = None,
        similar: Similar | None = None,
    ) -> list[Stored]:
        """Store a slice of records and queue them for ``tasks``; return what became of each, in order.

        ``similar(a, b)`` verifies a near-duplicate candidate found by its bands. An exact duplicate (equal
        content hash) is stored, linked, and not queued: its label is its original's. The products that the reviews
        belong to are marked: their texts are to be made again.
        """
        stored = [self._add_one(tx, project_id, new, import_id, similar) for new in rows]
        added = [(s, new) for s, new in zip(stored, rows, strict=True) if s.outcome == ADDED]
        index_texts(tx, [(s.id, new.text) for s, new in added])
        enqueue(tx, project_id, [s.id for s, _ in added if s.duplicate_of is None], tasks)
        groups = {new.group for _, new in added if new.group is not None and new.kind == REVIEW}
        mark_products(tx, project_id, sorted(groups))
        return stored

    def standing(self, project_id: int, key: str, tx: Tx | None = None) -> Row | None:
        """Return id, kind, text and duplicate_of of the record that has a key, or None."""
        sql = "SELECT id, kind, text, duplicate_of FROM records WHERE project_id = :p AND key = :k"
        return (tx or self.db).one(sql, {"p": project_id, "k": key})

    def original(self, project_id: int, key: str, digest: str) -> int | None:
        """Return the record that a row labels: the one with its key, or the first review of its content hash."""
        known = self.standing(project_id, key) or self.db.one(_ORIGINAL, {"p": project_id, "hash": digest})
        return None if known is None else int(known["duplicate_of"] or known["id"])

    def _add_one(
        self, tx: Tx, project_id: int, new: NewRecord, import_id: int | None, similar: Similar | None
    ) -> Stored:
        known = self.standing(project_id, new.key, tx)
        if known is not None:
            outcome = KNOWN if known["text"] == new.text else OTHER_TEXT
            return Stored(known["id"], outcome, known["duplicate_of"], known["kind"])
        original, digest = None, content_hash(new.text)
        if new.kind == REVIEW:
            original = tx.one(_ORIGINAL, {"p": project_id, "hash": digest})
        if original is not None:
            id_ = insert(tx, project_id, new, digest, import_id, original["id"], original["cluster"])
            return Stored(id_, ADDED, original["id"])
        cluster, first = None, False
        if similar is not None:
            clusters, first = _near_duplicates(tx, project_id, new, similar)
            cluster = _united(tx, project_id, clusters) if clusters else None
        id_ = insert(tx, project_id, new, digest, import_id, None, cluster)
        if first:
            _keep_signature(tx, project_id, id_, new)
        return Stored(id_, ADDED)

    # Clusters of near-duplicates

    def unsigned(self, project_id: int, limit: int = 500) -> list[Row]:
        """Return (id, text) of the next reviews whose near-duplicates are still to be looked for."""
        sql = """SELECT r.id, r.text FROM unsigned_reviews u JOIN records r ON r.id = u.record_id
                 WHERE u.project_id = :p ORDER BY u.record_id LIMIT :limit"""
        return self.db.all(sql, {"p": project_id, "limit": limit})

    def sign(self, tx: Tx, project_id: int, rows: Sequence[tuple[int, NewRecord]], similar: Similar) -> None:
        """Look for the near-duplicates of (id, review) that stand already and are not signed yet; keep the signatures.

        In any order, and beside reviews that come in: of each pair one is second.
        """
        for id_, new in rows:
            marked = "DELETE FROM unsigned_reviews WHERE project_id = :p AND record_id = :r"
            if tx.run(marked, {"p": project_id, "r": id_}):
                own = tx.value("SELECT cluster FROM records WHERE id = :r", {"r": id_})
                clusters, first = _near_duplicates(tx, project_id, new, similar)
                _united(tx, project_id, clusters | {own})
                if first:
                    _keep_signature(tx, project_id, id_, new)

    def united_since(self, project_id: int, seq: int) -> list[Row]:
        """Return (id, old, new) of the clusters that were united after ``seq``: ``old`` is now called ``new``."""
        sql = "SELECT id, old, new FROM united_clusters WHERE project_id = :p AND id > :seq ORDER BY id"
        return self.db.all(sql, {"p": project_id, "seq": seq})

    def clusters(self, project_id: int, size: int = 1000) -> Iterator[list[Row]]:
        """Yield id, text, duplicate_of and cluster of all reviews, oldest first, in pages."""
        sql = """SELECT id, text, duplicate_of, cluster FROM records WHERE +project_id = :p AND kind = 'review'
                 AND id > :after ORDER BY id LIMIT :size"""
        yield from self.db.pages(sql, {"p": project_id}, size)

    def forget_clusters(self, tx: Tx, project_id: int) -> None:
        """Let each review stand alone again, but for its exact copies, until :meth:`sign` has looked at it.

        What is known of unions stays: it may keep records from each other's prompts that could stand there, and that
        does no harm.
        """
        here = {"p": project_id}
        tx.run("DELETE FROM near_duplicates WHERE project_id = :p", here)
        tx.run(
            """UPDATE records SET cluster = COALESCE(duplicate_of, id) WHERE project_id = :p AND kind = 'review'
               AND cluster <> COALESCE(duplicate_of, id)""",
            here,
        )
        tx.run(
            """INSERT INTO unsigned_reviews (project_id, record_id) SELECT project_id, id FROM records
               WHERE project_id = :p AND kind = 'review' AND duplicate_of IS NULL ON CONFLICT DO NOTHING""",
            here,
        )

    # Imports

    def start_import(
        self, tx: Tx, project_id: int, file: str, settings: dict[str, Any], reviewer_id: int | None, size: int,
        state: str = "running",
    ) -> int:  # fmt: skip
        """Write down an import and return its number; ``queued`` waits for a worker, ``running`` is the caller's."""
        sql = """INSERT INTO imports (project_id, file, settings, state, size, reviewer_id, created_at, alive_at)
                 VALUES (:p, :file, :settings, :state, :size, :r, :now, :now) RETURNING id"""
        params = {"p": project_id, "file": file, "settings": strictjson.dumps(settings), "size": size, "state": state}
        return int(tx.value(sql, params | {"r": reviewer_id, "now": time.time()}))

    def progress_import(self, tx: Tx, import_id: int, columns: dict[str, Any], token: str | None = None) -> None:
        """Write how far an import is: any of state, position, added, known, duplicates, refused, labels, report...

        With ``token``, the one of its claim, only while the import is still the caller's. Raises :class:`Conflict` if
        another worker has taken it over.
        """
        columns = {**columns, "alive_at": time.time()}
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        mine = "" if token is None else " AND state = 'running' AND token = :mine"
        params = {**columns, "id": import_id} | ({} if token is None else {"mine": token})
        if not tx.run(f"UPDATE imports SET {assignments} WHERE id = :id{mine}", params) and token is not None:
            raise Conflict(f"Another worker has taken over import {import_id}; this one writes nothing more")

    def claim_import(self, tx: Tx) -> dict[str, Any] | None:
        """Take the oldest import that waits, or that a dead worker left (no sign of life for two minutes).

        ``token`` in what is returned proves the claim; whoever had the import before can write nothing more of it.
        """
        now = time.time()
        sql = """UPDATE imports SET state = 'running', alive_at = :now, token = :token WHERE id = (
                   SELECT id FROM imports WHERE state = 'queued' OR (state = 'running' AND alive_at < :dead)
                   ORDER BY id LIMIT 1) RETURNING *"""
        row = tx.one(sql, {"now": now, "dead": now - DEAD, "token": secrets.token_hex(8)})
        if row is None:
            return None
        return {**dict(row), **strictjson.loads(row["settings"])}

    def get_import(self, project_id: int, import_id: int, tx: Tx | None = None) -> Row:
        sql = "SELECT * FROM imports WHERE project_id = :p AND id = :id"
        row = (tx or self.db).one(sql, {"p": project_id, "id": import_id})
        if row is None:
            raise NotFound(f"There is no import number {import_id} in this project")
        return row

    def imports(self, project_id: int, limit: int = 20) -> list[Row]:
        sql = "SELECT * FROM imports WHERE project_id = :p ORDER BY id DESC LIMIT :limit"
        return self.db.all(sql, {"p": project_id, "limit": limit})


def as_record(row: Row) -> Record:
    return Record(
        id=row["id"],
        project_id=row["project_id"],
        key=row["key"],
        text=row["text"],
        language=row["language"],
        group=row["grp"],
        metadata=strictjson.loads(row["metadata"]),
        content_hash=row["content_hash"],
        cluster=row["cluster"],
    )


def insert(
    tx: Tx,
    project_id: int,
    new: NewRecord,
    digest: str,
    import_id: int | None = None,
    duplicate_of: int | None = None,
    cluster: int | None = None,
) -> int:
    """Store one record, without its search text, and return its number; ``digest`` is its content hash.

    Without ``cluster`` it is a cluster of its own.
    """
    sql = f"""INSERT INTO records (id, project_id, key, text, language, grp, metadata, content_hash, kind, duplicate_of,
             cluster, import_id, created_at) VALUES ({unused("records")}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             RETURNING id"""
    row = (
        project_id, new.key, new.text, guess_language(new.text), new.group, strictjson.dumps(new.metadata or {}),
        digest, new.kind, duplicate_of, cluster, import_id, time.time(),
    )  # fmt: skip
    id_ = int(tx.value(sql, row))
    if cluster is None:
        tx.run("UPDATE records SET cluster = id WHERE id = ?", (id_,))
    return id_


def mark_products(tx: Tx, project_id: int, groups: Sequence[str]) -> None:
    """Note that the texts of products are to be made again from their reviews."""
    sql = "INSERT INTO stale_products (project_id, grp) VALUES (?, ?) ON CONFLICT DO NOTHING"
    tx.many(sql, [(project_id, group) for group in groups])


def enqueue(tx: Tx, project_id: int, record_ids: Sequence[int], tasks: Sequence[str]) -> None:
    """Queue records for tasks; those already there stay as they are.

    A record that comes back begins with a version that nobody has seen, if its text has changed meanwhile. A task that
    labels the other unit by now gets none: whoever queues may have read its settings a long import ago.
    """
    sql = f"""INSERT INTO work (record_id, task, project_id, shuffle, version, text_version)
              SELECT r.id, ?, ?, ?, r.version, r.version FROM records r WHERE r.id = ?
              AND NOT EXISTS (SELECT 1 FROM queued q WHERE q.project_id = r.project_id AND q.task = ?
                              AND {OTHER_UNIT}) ON CONFLICT DO NOTHING"""
    tx.many(sql, [(task, project_id, shuffle(id_), id_, task) for id_ in record_ids for task in tasks])


def shuffle(record_id: int) -> int:
    """Return a fixed pseudo-random place of a record in the random queue order (a 31-bit mix of its id)."""
    mixed = (record_id * 0x9E3779B1) & 0xFFFFFFFF
    mixed ^= mixed >> 15
    return (mixed * 0x85EBCA77 & 0xFFFFFFFF) >> 1


def _near_duplicates(tx: Tx, project_id: int, new: NewRecord, similar: Similar) -> tuple[set[int], bool]:
    """Return the clusters of a text's near-duplicates, and whether it is the first of its shape.

    What has the shape of an earlier text has its near-duplicates too, so that one of them is compared for all. Of a
    cluster one member that is similar is enough; else all that share a band are compared, however many they are.
    """
    if new.shape is not None:
        sql = """SELECT r.cluster FROM near_duplicates n JOIN records r ON r.id = n.record_id
                 WHERE n.project_id = ? AND n.band = ? ORDER BY r.id LIMIT 1"""
        cluster = tx.value(sql, (project_id, new.shape))
        if cluster is not None:
            return {cluster}, False
    marks = ",".join("?" * len(new.bands))
    sql = f"""SELECT id, text, cluster FROM records WHERE id IN (
              SELECT record_id FROM near_duplicates WHERE project_id = ? AND band IN ({marks}))"""
    found: set[int] = set()
    for row in tx.all(sql, (project_id, *new.bands)) if new.bands else ():
        if row["cluster"] not in found and similar(row["text"], new.text):
            found.add(row["cluster"])
    return found, True


def _keep_signature(tx: Tx, project_id: int, record_id: int, new: NewRecord) -> None:
    keys = [*new.bands, *(() if new.shape is None else (new.shape,))]
    sql = "INSERT INTO near_duplicates (project_id, band, record_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    tx.many(sql, [(project_id, key, record_id) for key in keys])


def _united(tx: Tx, project_id: int, clusters: set[int]) -> int:
    """Make one cluster of several; return the smallest, which names it. Indexes read the unions from their log."""
    smallest, *others = sorted(clusters)
    for other in others:
        names = {"p": project_id, "new": smallest, "old": other}
        # In two steps, so that an index finds the members; most records are clusters of their own.
        tx.run("UPDATE records SET cluster = :new WHERE cluster = :old AND cluster <> id", names)
        tx.run("UPDATE records SET cluster = :new WHERE id = :old", names)
        tx.run("INSERT INTO united_clusters (project_id, old, new) VALUES (:p, :old, :new)", names)
    return smallest
