"""Records: what was imported, their exact and near duplicates, groups, and imports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from labeler import strictjson
from labeler.errors import NotFound
from labeler.records import Record
from labeler.store.database import Database, Row, Tx
from labeler.store.search import index_texts, replace_text
from labeler.text import content_hash, guess_language

REVIEW, GROUP = "review", "group"


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record on its way in. ``bands`` are its near-duplicate signature (may be empty)."""

    key: str
    text: str
    group: str | None = None
    metadata: dict[str, Any] | None = None
    bands: Sequence[int] = ()
    kind: str = REVIEW


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a new record: ``outcome`` is "added", "known" (nothing new) or "other_text" (refused)."""

    id: int
    outcome: str
    duplicate_of: int | None = None


class Records:
    def __init__(self, db: Database) -> None:
        self.db = db

    def get(self, record_id: int) -> Record:
        row = self.db.one("SELECT * FROM records WHERE id = :id", {"id": record_id})
        if row is None:
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
        sql = """SELECT * FROM records WHERE project_id = :p AND kind = :kind AND duplicate_of IS NULL
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
        similar: Callable[[str, str], bool] | None = None,
    ) -> list[Stored]:
        """Store a slice of records and queue them for ``tasks``; return what became of each, in order.

        ``similar(a, b)`` verifies a near-duplicate candidate found by its bands. An exact duplicate (equal
        content hash) is stored, linked, and not queued: its label is its original's.
        """
        stored: list[Stored] = []
        texts: list[tuple[int, str]] = []
        for new in rows:
            result = self._add_one(tx, project_id, new, import_id, similar)
            stored.append(result)
            if result.outcome == "added":
                texts.append((result.id, new.text))
        index_texts(tx, texts)
        queued = [s.id for s in stored if s.outcome == "added" and s.duplicate_of is None]
        enqueue(tx, project_id, queued, tasks)
        return stored

    def _add_one(
        self,
        tx: Tx,
        project_id: int,
        new: NewRecord,
        import_id: int | None,
        similar: Callable[[str, str], bool] | None,
    ) -> Stored:
        known = tx.one("SELECT id, text FROM records WHERE project_id = ? AND key = ?", (project_id, new.key))
        if known is not None:
            return Stored(known["id"], "known" if known["text"] == new.text else "other_text")
        digest = content_hash(new.text)
        original = tx.one(
            "SELECT id, cluster FROM records WHERE project_id = ? AND content_hash = ? AND kind = ? LIMIT 1",
            (project_id, digest, new.kind),
        )
        cluster = original["cluster"] if original else None
        if original is None and similar is not None and new.bands:
            cluster = _near_duplicate(tx, project_id, new, similar)
        sql = """INSERT INTO records (project_id, key, text, language, grp, metadata, content_hash, kind,
                 duplicate_of, cluster, import_id, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                 RETURNING id"""
        id_ = tx.value(
            sql,
            (
                project_id, new.key, new.text, guess_language(new.text), new.group,
                strictjson.dumps(new.metadata or {}), digest, new.kind, original["id"] if original else None, cluster,
                import_id, time.time(),
            ),
        )  # fmt: skip
        if cluster is None:
            tx.run("UPDATE records SET cluster = id WHERE id = ?", (id_,))
        if original is None and new.bands:
            tx.many(
                "INSERT INTO near_duplicates (project_id, band, record_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [(project_id, band, id_) for band in new.bands],
            )
        return Stored(id_, "added", original["id"] if original else None)

    def set_group_text(self, tx: Tx, record_id: int, old: str, new: str) -> None:
        """Replace the text of a group's record that nobody has labelled yet."""
        sql = "UPDATE records SET text = :text, content_hash = :hash WHERE id = :id"
        tx.run(sql, {"text": new, "hash": content_hash(new), "id": record_id})
        replace_text(tx, record_id, old, new)
        tx.run("DELETE FROM embeddings WHERE record_id = :id", {"id": record_id})

    def groups(self, project_id: int) -> list[str]:
        sql = """SELECT grp FROM records WHERE project_id = :p AND grp IS NOT NULL AND kind = 'review'
                 GROUP BY grp ORDER BY MIN(id)"""
        return [row["grp"] for row in self.db.all(sql, {"p": project_id})]

    def of_group(self, project_id: int, group: str) -> list[Record]:
        sql = """SELECT * FROM records WHERE project_id = :p AND grp = :g AND kind = 'review'
                 AND duplicate_of IS NULL ORDER BY id"""
        return [as_record(row) for row in self.db.all(sql, {"p": project_id, "g": group})]

    # Imports

    def start_import(
        self, tx: Tx, project_id: int, file: str, settings: dict[str, Any], reviewer_id: int | None, size: int
    ) -> int:
        sql = """INSERT INTO imports (project_id, file, settings, state, size, reviewer_id, created_at)
                 VALUES (:p, :file, :settings, 'running', :size, :r, :now) RETURNING id"""
        params = {"p": project_id, "file": file, "settings": strictjson.dumps(settings), "size": size}
        return int(tx.value(sql, params | {"r": reviewer_id, "now": time.time()}))

    def progress_import(self, tx: Tx, import_id: int, columns: dict[str, Any]) -> None:
        """Write how far an import is: any of state, position, added, known, duplicates, refused, labels, report..."""
        columns = {**columns, "alive_at": time.time()}
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        tx.run(f"UPDATE imports SET {assignments} WHERE id = :id", {**columns, "id": import_id})

    def claim_import(self, tx: Tx) -> dict[str, Any] | None:
        """Take the oldest import that waits, or that a dead worker left (no progress for two minutes)."""
        now = time.time()
        sql = """UPDATE imports SET state = 'running', alive_at = :now WHERE id = (SELECT id FROM imports
                 WHERE state = 'queued' OR (state = 'running' AND alive_at < :dead) ORDER BY id LIMIT 1)
                 RETURNING *"""
        row = tx.one(sql, {"now": now, "dead": now - 120})
        if row is None:
            return None
        return {**dict(row), **strictjson.loads(row["settings"])}

    def get_import(self, project_id: int, import_id: int) -> Row:
        sql = "SELECT * FROM imports WHERE project_id = :p AND id = :id"
        row = self.db.one(sql, {"p": project_id, "id": import_id})
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


def enqueue(tx: Tx, project_id: int, record_ids: Sequence[int], tasks: Sequence[str]) -> None:
    """Queue records for tasks; those already there stay as they are."""
    sql = """INSERT INTO work (record_id, task, project_id, shuffle) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"""
    tx.many(sql, [(id_, task, project_id, shuffle(id_)) for id_ in record_ids for task in tasks])


def shuffle(record_id: int) -> int:
    """Return a fixed pseudo-random place of a record in the random queue order (a 31-bit mix of its id)."""
    mixed = (record_id * 0x9E3779B1) & 0xFFFFFFFF
    mixed ^= mixed >> 15
    return (mixed * 0x85EBCA77 & 0xFFFFFFFF) >> 1


def _near_duplicate(tx: Tx, project_id: int, new: NewRecord, similar: Callable[[str, str], bool]) -> int | None:
    marks = ",".join("?" * len(new.bands))
    rows = tx.all(
        f"""SELECT DISTINCT r.id, r.text, r.cluster FROM near_duplicates n JOIN records r ON r.id = n.record_id
            WHERE n.project_id = ? AND n.band IN ({marks}) ORDER BY r.id LIMIT 20""",
        (project_id, *new.bands),
    )
    return next((row["cluster"] for row in rows if similar(row["text"], new.text)), None)
