"""The memory of splits: in which one each record left first, so that a test record stays out of training for good."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from labeler import strictjson
from labeler.errors import InputError, NotFound
from labeler.store.database import Database, Row, Tx

_MOST_VARIABLES, _AT_ONCE = 500, 5000


class Splits:
    def __init__(self, db: Database) -> None:
        self.db = db

    def newest(self, project_id: int, tx: Tx | None = None) -> int:
        """Return the number of the newest memory of a project, 0 without one: it tells whether another has come."""
        sql = "SELECT MAX(id) FROM splits WHERE project_id = :p"
        return int((tx or self.db).value(sql, {"p": project_id}) or 0)

    def remembered(self, project_id: int) -> list[Row]:
        """Return the records that left, with their split.

        ``id``, ``key``, ``split``, ``cluster``, ``grp`` and ``content_hash``; ``frozen`` if a frozen test set has it.
        """
        sql = """SELECT r.id, r.key, s.split, r.cluster, r.grp, r.content_hash,
                 EXISTS (SELECT 1 FROM frozen f WHERE f.record_id = s.record_id) AS frozen FROM splits s
                 JOIN records r ON r.id = s.record_id WHERE s.project_id = :p"""
        return self.db.all(sql, {"p": project_id})

    def pages(self, project_id: int, size: int = 5000) -> Iterator[list[Row]]:
        """Yield ``record_id`` and ``split`` of the records that left, in pages."""
        sql = """SELECT id, record_id, split FROM splits WHERE project_id = :p AND id > :after
                 ORDER BY id LIMIT :size"""
        yield from self.db.pages(sql, {"p": project_id}, size)

    def frozen_of(self, project_id: int) -> list[Row]:
        """Return ``record_id`` of each record that a frozen test set has."""
        return self.db.all("SELECT DISTINCT record_id FROM frozen WHERE project_id = :p", {"p": project_id})

    def linked(self, record_ids: Sequence[int]) -> Iterator[Row]:
        """Yield ``id``, ``cluster``, ``grp`` and ``content_hash`` of records."""
        sql = """SELECT id, cluster, grp, content_hash FROM records
                 WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id"""
        for start in range(0, len(record_ids), _AT_ONCE):
            yield from self.db.all(sql, {"ids": strictjson.dumps(record_ids[start : start + _AT_ONCE])})

    def ties(self, project_id: int) -> list[Row]:
        """Return (``cluster``, ``grp``) of near-duplicates that belong to products: each ties the two together."""
        sql = """SELECT DISTINCT r.cluster, r.grp FROM records r
                 WHERE r.project_id = :p AND r.duplicate_of IS NULL AND r.grp IS NOT NULL AND (r.cluster <> r.id
                   OR EXISTS (SELECT 1 FROM records o WHERE o.cluster = r.id AND o.cluster <> o.id))"""
        return self.db.all(sql, {"p": project_id})

    def heads(self, clusters: Iterable[int]) -> dict[int, str]:
        """Return the key of the record that names each cluster."""
        ids, found = sorted(set(clusters)), dict[int, str]()
        for start in range(0, len(ids), _MOST_VARIABLES):
            part = ids[start : start + _MOST_VARIABLES]
            marks = ",".join("?" * len(part))
            rows = self.db.all(f"SELECT id, key FROM records WHERE id IN ({marks})", part)
            found.update((row["id"], row["key"]) for row in rows)
        return found

    def remember(
        self, tx: Tx, project_id: int, splits: Iterable[tuple[int, str]], seen: int, anew: bool = False
    ) -> bool:
        """Remember the splits of records, as (record id, split); what is remembered stays.

        With ``anew`` all there was is forgotten first, but for frozen test sets.

        False, and nothing done, if another export has remembered some since ``seen``.
        """
        if self.newest(project_id, tx) != seen:
            return False
        if anew:
            frozen = "SELECT record_id FROM frozen WHERE project_id = :p"
            tx.run(f"DELETE FROM splits WHERE project_id = :p AND record_id NOT IN ({frozen})", {"p": project_id})
        sql = """INSERT INTO splits (project_id, record_id, split) SELECT :p, id, :split FROM records WHERE id = :r
                 ON CONFLICT DO NOTHING"""
        tx.many(sql, ({"p": project_id, "r": id_, "split": split} for id_, split in splits))
        return True

    def freeze(self, tx: Tx, project_id: int, name: str, record_ids: Iterable[int]) -> None:
        """Keep test records out of every other split for good, under a name.

        Raises :class:`InputError` if there is a frozen test set of that name: one that changed would compare nothing.
        """
        if tx.value("SELECT 1 FROM frozen WHERE project_id = :p AND name = :n LIMIT 1", {"p": project_id, "n": name}):
            raise InputError("There is a frozen test set %(name)r already; choose another name", name=name)
        # What was removed meanwhile has no split to hold.
        sql = """INSERT INTO frozen (project_id, name, record_id, at) SELECT :p, :n, record_id, :now FROM splits
                 WHERE record_id = :r AND split = 'test'"""
        tx.many(sql, [{"p": project_id, "n": name, "r": id_, "now": time.time()} for id_ in record_ids])

    def thaw(self, tx: Tx, project_id: int, name: str) -> None:
        """Let the records of a frozen test set be split again. Raises :class:`NotFound`."""
        if not tx.run("DELETE FROM frozen WHERE project_id = :p AND name = :n", {"p": project_id, "n": name}):
            raise NotFound("There is no frozen test set %(name)r in this project", name=name)

    def frozen_records(self, project_id: int, name: str) -> set[int]:
        """Return the records of a frozen test set. Raises :class:`NotFound`."""
        sql = "SELECT record_id FROM frozen WHERE project_id = :p AND name = :n"
        found = {row["record_id"] for row in self.db.all(sql, {"p": project_id, "n": name})}
        if not found:
            raise NotFound("There is no frozen test set %(name)r in this project", name=name)
        return found

    def frozen(self, project_id: int) -> list[Row]:
        """Return ``name``, ``records`` (how many) and ``at`` of the frozen test sets, the first first."""
        sql = """SELECT name, COUNT(*) AS records, MIN(at) AS at FROM frozen WHERE project_id = :p
                 GROUP BY name ORDER BY MIN(at), name"""
        return self.db.all(sql, {"p": project_id})
