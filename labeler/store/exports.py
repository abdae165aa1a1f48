"""Exports as versions: what each holds, who made it and where it went; none of it is changed later."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from labeler import strictjson
from labeler.errors import Conflict, InputError, NotFound
from labeler.store.database import Database, Row, Tx


class Exports:
    def __init__(self, db: Database) -> None:
        self.db = db

    def add(
        self,
        tx: Tx,
        project_id: int,
        task: str,
        format_: str,
        manifest: dict[str, Any],
        folder: str,
        reviewer_id: int | None,
        members: Iterable[tuple[int, str]],
        name: str = "",
    ) -> int:
        """Record an export that stands on disk; ``members`` are (annotation id, split).

        A ranking has its number with a minus sign in place of an annotation id.
        Raises :class:`Conflict` if another export of the project has the name.
        """
        self.check_name(project_id, name, tx)
        sql = """INSERT INTO exports (project_id, task, format, manifest, folder, reviewer_id, created_at, name)
                 VALUES (:p, :t, :f, :m, :folder, :r, :now, :name) RETURNING id"""
        params = {"p": project_id, "t": task, "f": format_, "m": strictjson.dumps(manifest), "folder": folder}
        id_ = int(tx.value(sql, params | {"r": reviewer_id, "now": time.time(), "name": name or None}))
        tx.many(
            "INSERT INTO export_annotations (export_id, annotation_id, split) VALUES (?, ?, ?)",
            ((id_, member, split) for member, split in members if member > 0),
        )
        tx.many(
            "INSERT INTO export_rankings (export_id, ranking_id, split) VALUES (?, ?, ?)",
            ((id_, -member, split) for member, split in members if member < 0),
        )
        return id_

    def get(self, project_id: int, export_id: int) -> dict[str, Any]:
        """Return an export. Raises :class:`NotFound`."""
        sql = """SELECT x.*, r.name AS reviewer FROM exports x LEFT JOIN reviewers r ON r.id = x.reviewer_id
                 WHERE x.project_id = :p AND x.id = :id"""
        row = self.db.one(sql, {"p": project_id, "id": export_id})
        if row is None:
            raise NotFound("There is no export number %(number)s in this project", number=export_id)
        return dict(row) | {"manifest": strictjson.loads(row["manifest"])}

    def check_name(self, project_id: int, name: str, tx: Tx | None = None) -> None:
        """Raise :class:`Conflict` if an export of the project has the name, :class:`InputError` for a mere number."""
        if name.isdigit():
            raise InputError("An export cannot be called %(name)s: numbers are given; add a letter", name=name)
        sql = "SELECT id FROM exports WHERE project_id = :p AND name = :name"
        taken = (tx or self.db).value(sql, {"p": project_id, "name": name}) if name else None
        if taken is not None:
            raise Conflict("Export %(number)s is called %(name)r already; choose another name", number=taken, name=name)

    def named(self, project_id: int, name: str) -> dict[str, Any]:
        """Return an export by its name or number. Raises :class:`NotFound`."""
        sql = "SELECT id FROM exports WHERE project_id = :p AND (name = :name OR CAST(id AS TEXT) = :name)"
        found = self.db.value(sql, {"p": project_id, "name": name.strip()})
        if found is None:
            raise NotFound("There is no export %(name)r in this project", name=name)
        return self.get(project_id, found)

    def of_record(self, record_id: int, task: str) -> list[Row]:
        """Return the exports that a record stands in: ``id``, ``name``, ``format``, ``split``, ``annotation_id``."""
        sql = """SELECT x.id, x.name, x.format, e.split, e.annotation_id FROM annotations a
                 JOIN export_annotations e ON e.annotation_id = a.id JOIN exports x ON x.id = e.export_id
                 WHERE a.record_id = :r AND a.task = :t ORDER BY x.id DESC"""
        return self.db.all(sql, {"r": record_id, "t": task})

    def outdated(self, export_id: int, limit: int) -> tuple[int, list[Row]]:
        """Return how many labels of an export hold no more, and ``key`` and ``state`` of the first of their records."""
        sql = """FROM export_annotations e JOIN annotations a ON a.id = e.annotation_id
                 JOIN records r ON r.id = a.record_id JOIN annotations n ON n.id = a.superseded_by
                 WHERE e.export_id = :e"""
        rows = self.db.all(f"SELECT r.key, n.state {sql} ORDER BY r.key LIMIT :limit", {"e": export_id, "limit": limit})
        count = self.db.value(f"SELECT COUNT(*) {sql}", {"e": export_id}) if len(rows) == limit else len(rows)
        return int(count), rows

    def differences(self, before: int, after: int, kind: str, limit: int) -> tuple[int, list[Row]]:
        """Return how many rows differ between two exports in one way of :data:`KINDS`, and the first of them by key.

        A row is what an export holds of a record and task, or of a person's ranking of it: ``key``, ``task``,
        ``old_split``, ``new_split``, ``old_value`` and ``new_value``, with None where one of the two does not have it.
        A value is JSON, or the answers of a ranking by the numbers of their suggestions: 7 > 9 = 8, and ✗ 7 = 9 where
        none is good.
        """
        sql, params = f"{_DIFFERENT} WHERE {_DIFFERENCES[kind]}", {"before": before, "after": after, "limit": limit}
        rows = self.db.all(f"{_SIDES} SELECT r.key, {_BOTH_SIDES} {sql} ORDER BY r.key LIMIT :limit", params)
        count = self.db.value(f"{_SIDES} SELECT COUNT(*) {sql}", params) if len(rows) == limit else len(rows)
        return int(count), rows

    def members(self, export_id: int, task: str) -> dict[int, str]:
        """Return the split of each annotation of a task that an export holds, and of each ranking, as :meth:`add` has
        them.
        """
        sql = """SELECT e.annotation_id AS id, e.split FROM export_annotations e
                 JOIN annotations a ON a.id = e.annotation_id WHERE e.export_id = :e AND a.task = :t
                 UNION ALL SELECT -ranking_id, split FROM export_rankings WHERE export_id = :e"""
        return {row["id"]: row["split"] for row in self.db.all(sql, {"e": export_id, "t": task})}

    def all(self, project_id: int, limit: int = 20) -> list[dict[str, Any]]:
        sql = """SELECT x.*, r.name AS reviewer FROM exports x LEFT JOIN reviewers r ON r.id = x.reviewer_id
                 WHERE x.project_id = :p ORDER BY x.id DESC LIMIT :limit"""
        rows = self.db.all(sql, {"p": project_id, "limit": limit})
        return [dict(row) | {"manifest": strictjson.loads(row["manifest"])} for row in rows]


_RANKED = """CASE k.none_good WHEN 1 THEN '✗ ' ELSE '' END || replace(replace(replace(replace(
             k.ranked, '[["', ''), '"]]', ''), '"],["', ' > '), '","', ' = ')"""
_OF = f"""SELECT a.record_id, a.task, -1 AS who, a.id, a.value, e.split FROM export_annotations e
          JOIN annotations a ON a.id = e.annotation_id WHERE e.export_id = :{{0}}
          UNION ALL SELECT k.record_id, k.task, COALESCE(k.reviewer_id, 0), -k.id, {_RANKED}, e.split
          FROM export_rankings e JOIN rankings k ON k.id = e.ranking_id WHERE e.export_id = :{{0}}"""
_SIDES = f"WITH old AS ({_OF.format('before')}), new AS ({_OF.format('after')})"
_BOTH_SIDES = """COALESCE(old.task, new.task) AS task, old.split AS old_split, new.split AS new_split,
                 old.value AS old_value, new.value AS new_value"""
_DIFFERENT = """FROM old FULL JOIN new ON new.record_id = old.record_id AND new.task = old.task AND new.who = old.who
                JOIN records r ON r.id = COALESCE(old.record_id, new.record_id)"""
ADDED, DROPPED, CHANGED, MOVED = "added", "dropped", "changed", "moved"
_DIFFERENCES = {
    ADDED: "old.id IS NULL",
    DROPPED: "new.id IS NULL",
    CHANGED: "old.id IS NOT NULL AND new.id IS NOT NULL AND old.value IS NOT new.value",
    MOVED: "old.split <> new.split",
}
KINDS = tuple(_DIFFERENCES)
"""In what rows of two exports differ; a row whose label and split are others is of two kinds."""
