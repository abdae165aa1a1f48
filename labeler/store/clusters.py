"""Clusters of near-duplicates: which reviews are still to be looked at, the signatures of the others, and unions.

A signature is written once and found again by reading all of a project, 112 bytes a review: so that a million of them
cost an import nothing but their bytes. They stand in blocks, in the order in which they were written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from labeler import strictjson
from labeler.errors import Conflict
from labeler.store.database import Database, Row, Tx

_SMALL = 512
_MOST_VARIABLES = 500


@dataclass(frozen=True, slots=True)
class Block:
    """Signatures of n reviews: ``ids`` and ``shapes`` are int64 (n,), ``bands`` the same number of bytes for each."""

    ids: bytes
    shapes: bytes
    bands: bytes

    def __len__(self) -> int:
        return len(self.ids) // 8

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> Block:
        """Return one block of several."""
        return cls(*(b"".join(parts) for parts in zip(*((b.ids, b.shapes, b.bands) for b in blocks), strict=True)))

    def without(self, ids: set[int]) -> Block:
        stay = [n for n, id_ in enumerate(memoryview(self.ids).cast("q")) if id_ not in ids]
        return Block(*(_kept(part, len(self), stay) for part in (self.ids, self.shapes, self.bands)))


class Clusters:
    def __init__(self, db: Database) -> None:
        self.db = db

    def all(self, project_id: int, size: int = 1000) -> Iterator[list[Row]]:
        """Yield id, text, duplicate_of and cluster of all reviews, oldest first, in pages."""
        sql = """SELECT id, text, duplicate_of, cluster FROM records WHERE +project_id = :p AND kind = 'review'
                 AND id > :after ORDER BY id LIMIT :size"""
        yield from self.db.pages(sql, {"p": project_id}, size)

    def unsigned(self, project_id: int, limit: int) -> list[Row]:
        """Return (id, text, cluster) of the next reviews whose near-duplicates are still to be looked for."""
        sql = """SELECT r.id, r.text, r.cluster FROM unsigned_reviews u JOIN records r ON r.id = u.record_id
                 WHERE u.project_id = :p ORDER BY u.record_id LIMIT :limit"""
        return self.db.all(sql, {"p": project_id, "limit": limit})

    def size(self, project_id: int) -> int:
        """Return about how many reviews of a project have a signature."""
        sql = "SELECT SUM(length(ids)) FROM signatures WHERE project_id = :p"
        return int(self.db.value(sql, {"p": project_id}) or 0) // 8

    def newest(self, project_id: int, tx: Tx | None = None) -> int:
        """Return the number of the newest block, 0 without one."""
        sql = "SELECT MAX(seq) FROM signatures WHERE project_id = :p"
        return int((tx or self.db).value(sql, {"p": project_id}) or 0)

    def blocks(self, project_id: int, through: int) -> Iterator[Block]:
        """Yield the signatures that stand in the blocks through number ``through``."""
        seq = 0
        sql = """SELECT seq, ids, shapes, bands FROM signatures WHERE project_id = :p AND seq > :after
                 AND seq <= :through ORDER BY seq LIMIT 1"""
        while row := self.db.one(sql, {"p": project_id, "after": seq, "through": through}):
            seq = row["seq"]
            yield Block(row["ids"], row["shapes"], row["bands"])

    def found(self, ids: Sequence[int]) -> dict[int, tuple[str, int]]:
        """Return text and cluster of the reviews that there still are."""
        rows: dict[int, tuple[str, int]] = {}
        for start in range(0, len(ids), _MOST_VARIABLES):
            part = ids[start : start + _MOST_VARIABLES]
            marks = ",".join("?" * len(part))
            for row in self.db.all(f"SELECT id, text, cluster FROM records WHERE id IN ({marks})", part):
                rows[row["id"]] = row["text"], row["cluster"]
        return rows

    def sign(
        self, tx: Tx, project_id: int, ids: Sequence[int], block: Block, pairs: Iterable[tuple[int, int]], seen: int
    ) -> int:
        """Write that the near-duplicates of reviews were looked for among all up to block ``seen``.

        ``block`` holds the signatures of those that others are to be compared with, ``pairs`` are near-duplicates: of
        each pair one is among the ``ids``. Returns the newest block. Raises :class:`Conflict`, and changes nothing, if
        signatures came or went meanwhile, or one of the ``ids``.
        """
        newest = self.newest(project_id, tx)
        if newest != seen:
            raise Conflict("Reviews were signed or removed meanwhile")
        marked = "DELETE FROM unsigned_reviews WHERE project_id = ? AND record_id IN (SELECT value FROM json_each(?))"
        if tx.run(marked, (project_id, strictjson.dumps(list(ids)))) < len(ids):
            # Others may have been left out of a comparison because they are like the one that is gone.
            raise Conflict("Reviews were signed or removed meanwhile")
        for a, b in pairs:
            sql = "SELECT DISTINCT cluster FROM records WHERE id IN (?, ?)"
            self.unite(tx, project_id, [row["cluster"] for row in tx.all(sql, (a, b))])
        if not len(block):
            return newest
        # Few and large blocks are read quickly: small ones become one.
        small = "SELECT ids, shapes, bands FROM signatures WHERE seq = ? AND length(ids) < ?"
        last = tx.one(small, (newest, 8 * _SMALL))
        if last is not None:
            block = Block.of([Block(*last), block])
            tx.run("DELETE FROM signatures WHERE seq = ?", (newest,))
        return _add(tx, project_id, block)

    def united_since(self, project_id: int, seq: int) -> list[Row]:
        """Return (id, old, new) of the clusters that were united after ``seq``: ``old`` is now called ``new``."""
        sql = "SELECT id, old, new FROM united_clusters WHERE project_id = :p AND id > :seq ORDER BY id"
        return self.db.all(sql, {"p": project_id, "seq": seq})

    def forget(self, tx: Tx, project_id: int) -> None:
        """Let each review stand alone again, but for its exact copies, until :meth:`sign` has looked at it.

        What is known of unions stays: it may keep records from each other's prompts that could stand there, and that
        does no harm.
        """
        here = {"p": project_id}
        tx.run("DELETE FROM signatures WHERE project_id = :p", here)
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

    def unite(self, tx: Tx, project_id: int, clusters: Iterable[int]) -> None:
        """Make one cluster of several; the smallest names it. Indexes read the unions from their log."""
        smallest, *others = sorted(set(clusters)) or [0]
        for other in others:
            names = {"p": project_id, "new": smallest, "old": other}
            # In two steps, so that an index finds the members; most records are clusters of their own.
            tx.run("UPDATE records SET cluster = :new WHERE cluster = :old AND cluster <> id", names)
            tx.run("UPDATE records SET cluster = :new WHERE id = :old", names)
            tx.run("INSERT INTO united_clusters (project_id, old, new) VALUES (:p, :old, :new)", names)


def drop(tx: Tx, project_id: int, ids: set[int]) -> None:
    """Take signatures out of their blocks."""
    for row in tx.all("SELECT seq, ids FROM signatures WHERE project_id = ?", (project_id,)):
        if not ids.isdisjoint(memoryview(row["ids"]).cast("q")):
            whole = tx.one("SELECT ids, shapes, bands FROM signatures WHERE seq = ?", (row["seq"],))
            assert whole is not None
            left = Block(*whole).without(ids)
            # Under a new number: whoever looks for near-duplicates just now must look again.
            tx.run("DELETE FROM signatures WHERE seq = ?", (row["seq"],))
            _add(tx, project_id, left)


def _add(tx: Tx, project_id: int, block: Block) -> int:
    sql = "INSERT INTO signatures (project_id, ids, shapes, bands) VALUES (?, ?, ?, ?) RETURNING seq"
    return int(tx.value(sql, (project_id, block.ids, block.shapes, block.bands)))


def _kept(part: bytes, count: int, stay: Sequence[int]) -> bytes:
    width = len(part) // max(count, 1)
    return b"".join(part[n * width : (n + 1) * width] for n in stay)
