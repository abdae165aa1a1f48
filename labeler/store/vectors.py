"""Embeddings: one float32 vector per record and embedder, always that of the record's text as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labeler import strictjson
from labeler.store.counts import RECORDS, VECTORS, Counts
from labeler.store.database import Database, Row, Tx


class Vectors:
    def __init__(self, db: Database) -> None:
        self.db = db

    def get(self, embedder: str, record_ids: Sequence[int]) -> dict[int, bytes]:
        """Return the stored vectors (float32, little-endian) by record id."""
        found: dict[int, bytes] = {}
        for start in range(0, len(record_ids), 500):
            slice_ = record_ids[start : start + 500]
            marks = ",".join("?" * len(slice_))
            sql = f"SELECT record_id, vector FROM embeddings WHERE embedder = ? AND record_id IN ({marks})"
            found.update((row["record_id"], row["vector"]) for row in self.db.all(sql, [embedder, *slice_]))
        return found

    def add(self, tx: Tx, embedder: str, vectors: Sequence[tuple[int, str, bytes]]) -> bool:
        """Store vectors, each with the text that it was made from; return whether all of these texts still stand.

        A vector of a text that has changed meanwhile is left out: it is to be made again.
        """
        if not vectors:
            return True
        ids = strictjson.dumps([id_ for id_, _, _ in vectors])
        now = dict(
            map(tuple, tx.all("SELECT id, text FROM records WHERE id IN (SELECT value FROM json_each(?))", [ids]))
        )
        standing = [(id_, vector) for id_, text, vector in vectors if now.get(id_) == text]
        # Cut out of one blob: JSON, which brings the rows to one statement, has none.
        params = {
            "e": embedder, "ids": strictjson.dumps([id_ for id_, _ in standing]), "width": len(vectors[0][2]),
            "vectors": b"".join(vector for _, vector in standing),
        }  # fmt: skip
        tx.run(
            """INSERT INTO embeddings (embedder, record_id, vector)
               SELECT :e, value, substr(:vectors, key * :width + 1, :width) FROM json_each(:ids) WHERE true
               ON CONFLICT (embedder, record_id) DO UPDATE SET vector = excluded.vector""",
            params,
        )
        gone = "DELETE FROM dropped_vectors WHERE embedder = :e AND record_id IN (SELECT value FROM json_each(:ids))"
        tx.run(gone, params)
        return len(standing) == len(vectors)

    def through(self, embedder: str, project_id: int) -> int:
        """Return the record id up to which every record of a project had its vector; 0 where nobody has looked yet.

        Those whose text has changed since are :meth:`dropped`.
        """
        sql = "SELECT record_id FROM vectors_through WHERE project_id = :p AND embedder = :e"
        return self.db.value(sql, {"p": project_id, "e": embedder}) or 0

    def mark_through(self, tx: Tx, embedder: str, project_id: int, record_id: int) -> None:
        sql = """INSERT INTO vectors_through (project_id, embedder, record_id) VALUES (:p, :e, :r)
                 ON CONFLICT (project_id, embedder) DO UPDATE SET record_id = MAX(record_id, excluded.record_id)"""
        tx.run(sql, {"p": project_id, "e": embedder, "r": record_id})

    def missing(self, embedder: str, project_id: int, after: int, limit: int = 256) -> list[Row]:
        """Return (id, text) of the next records after id ``after`` that have no vector yet."""
        # The plus keeps SQLite from an index of the project, which it would have to sort for each page.
        sql = """SELECT r.id, r.text FROM records r WHERE +r.project_id = :p AND r.id > :after
                 AND NOT EXISTS (SELECT 1 FROM embeddings e WHERE e.embedder = :e AND e.record_id = r.id)
                 ORDER BY r.id LIMIT :limit"""
        return self.db.all(sql, {"p": project_id, "after": after, "e": embedder, "limit": limit})

    def dropped(self, embedder: str, project_id: int, limit: int = 256) -> list[Row]:
        """Return (id, text) of records whose vector was dropped since their text changed, by any process."""
        # In this order: SQLite would go through all records of the project to look for the few that are marked.
        sql = """SELECT r.id, r.text FROM dropped_vectors d CROSS JOIN records r ON r.id = d.record_id
                 WHERE d.embedder = :e AND r.project_id = :p ORDER BY d.record_id LIMIT :limit"""
        return self.db.all(sql, {"e": embedder, "p": project_id, "limit": limit})

    def newest_record(self) -> int:
        """Return the highest id that a record of any project has, 0 if there is none."""
        return self.db.value("SELECT MAX(id) FROM records") or 0

    def pages(self, embedder: str, project_id: int, size: int = 5000, after: int = 0) -> Iterator[list[Row]]:
        """Yield (id, vector) of the records of a project after id ``after`` that have a vector, in pages."""
        # In the order of the embeddings' own key: by that of the records, each page would sort all that follow it.
        sql = """SELECT e.record_id AS id, e.vector FROM embeddings e JOIN records r ON r.id = e.record_id
                 WHERE e.embedder = :e AND r.project_id = :p AND e.record_id > :after
                 ORDER BY e.record_id LIMIT :size"""
        yield from self.db.pages(sql, {"e": embedder, "p": project_id, "after": after}, size)

    def progress(self, embedder: str, project_id: int) -> tuple[int, int]:
        """Return (records with a vector, records) of a project."""
        counts = Counts(self.db)
        records = counts.of(RECORDS, project_id)
        return counts.of(VECTORS, project_id).get(embedder, 0), records.get("review", 0) + records.get("group", 0)
