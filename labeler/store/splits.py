"""The memory of splits: in which one each record left first, so that a test record stays out of training for good."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from labeler.store.database import Database, Row, Tx

_MOST_VARIABLES = 500


class Splits:
    def __init__(self, db: Database) -> None:
        self.db = db

    def newest(self, project_id: int, tx: Tx | None = None) -> int:
        """Return the number of the newest memory of a project, 0 without one: it tells whether another has come."""
        sql = "SELECT MAX(id) FROM splits WHERE project_id = :p"
        return int((tx or self.db).value(sql, {"p": project_id}) or 0)

    def remembered(self, project_id: int) -> list[Row]:
        """Return ``id``, ``key``, ``split``, ``cluster``, ``grp`` and ``content_hash`` of the records that left."""
        sql = """SELECT r.id, r.key, s.split, r.cluster, r.grp, r.content_hash FROM splits s
                 JOIN records r ON r.id = s.record_id WHERE s.project_id = :p"""
        return self.db.all(sql, {"p": project_id})

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

    def remember(self, tx: Tx, project_id: int, splits: Mapping[int, str], seen: int, anew: bool = False) -> bool:
        """Remember the splits of records; what is remembered stays. With ``anew`` all there was is forgotten first.

        False, and nothing done, if another export has remembered some since ``seen``.
        """
        if self.newest(project_id, tx) != seen:
            return False
        if anew:
            tx.run("DELETE FROM splits WHERE project_id = :p", {"p": project_id})
        sql = """INSERT INTO splits (project_id, record_id, split) SELECT :p, id, :split FROM records WHERE id = :r
                 ON CONFLICT DO NOTHING"""
        tx.many(sql, [{"p": project_id, "r": id_, "split": split} for id_, split in splits.items()])
        return True
