"""Embeddings: one float32 vector per record and embedder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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

    def add(self, tx: Tx, embedder: str, vectors: Sequence[tuple[int, bytes]]) -> None:
        sql = "INSERT INTO embeddings (embedder, record_id, vector) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        tx.many(sql, [(embedder, id_, vector) for id_, vector in vectors])

    def missing(self, embedder: str, project_id: int, after: int, limit: int = 256) -> list[Row]:
        """Return (id, text) of the next records after id ``after`` that have no vector yet."""
        sql = """SELECT r.id, r.text FROM records r WHERE r.project_id = :p AND r.id > :after
                 AND NOT EXISTS (SELECT 1 FROM embeddings e WHERE e.embedder = :e AND e.record_id = r.id)
                 ORDER BY r.id LIMIT :limit"""
        return self.db.all(sql, {"p": project_id, "after": after, "e": embedder, "limit": limit})

    def pages(self, embedder: str, project_id: int, size: int = 5000, after: int = 0) -> Iterator[list[Row]]:
        """Yield (id, vector) of the records of a project after id ``after`` that have a vector, in pages."""
        # In the order of the embeddings' own key: by that of the records, each page would sort all that follow it.
        sql = """SELECT e.record_id AS id, e.vector FROM embeddings e JOIN records r ON r.id = e.record_id
                 WHERE e.embedder = :e AND r.project_id = :p AND e.record_id > :after
                 ORDER BY e.record_id LIMIT :size"""
        yield from self.db.pages(sql, {"e": embedder, "p": project_id, "after": after}, size)

    def progress(self, embedder: str, project_id: int) -> tuple[int, int]:
        """Return (records with a vector, records) of a project."""
        sql = """SELECT COUNT(e.record_id) AS done, COUNT(*) AS total FROM records r
                 LEFT JOIN embeddings e ON e.embedder = :e AND e.record_id = r.id WHERE r.project_id = :p"""
        row = self.db.one(sql, {"e": embedder, "p": project_id})
        return (row["done"], row["total"]) if row else (0, 0)
