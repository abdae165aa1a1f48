"""Events (every act, append-only) and exports (which annotations went where)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from labeler import strictjson
from labeler.errors import NotFound
from labeler.store.database import Database, Row, Tx


class Events:
    def __init__(self, db: Database) -> None:
        self.db = db

    def add(self, tx: Tx, kind: str, *, detail: dict[str, Any] | None = None, **where: Any) -> None:
        """Append one event. ``where``: any of project_id, reviewer_id, task, record_id, annotation_id."""
        sql = """INSERT INTO events (at, kind, project_id, reviewer_id, task, record_id, annotation_id, detail)
                 VALUES (:at, :kind, :project_id, :reviewer_id, :task, :record_id, :annotation_id, :detail)"""
        names = ("project_id", "reviewer_id", "task", "record_id", "annotation_id")
        params = {name: where.get(name) for name in names}
        tx.run(sql, params | {"at": time.time(), "kind": kind, "detail": strictjson.dumps(detail or {})})

    def add_many(
        self, tx: Tx, kind: str, where: Mapping[str, Any], detail: dict[str, Any], decided: Sequence[tuple[int, int]]
    ) -> None:
        """Append an event for each of the decisions, (record, annotation), that have all else alike."""
        columns = ", ".join((*where, "at", "kind", "detail", "record_id", "annotation_id"))
        same = (*where.values(), time.time(), kind, strictjson.dumps(detail))
        tx.insert("events", columns, [(*same, *one) for one in decided])

    def last(self, project_id: int, limit: int = 50) -> list[Row]:
        sql = "SELECT * FROM events WHERE project_id = :p ORDER BY id DESC LIMIT :limit"
        return self.db.all(sql, {"p": project_id, "limit": limit})

    def acts(self, before: int | None, limit: int) -> list[Row]:
        """Return what people did beside labeling, newest first: sign-ins, accounts, settings, runs, exports.

        ``before`` is the number after which the next page goes on.
        """
        sql = """SELECT e.id, e.at, e.kind, e.task, e.detail, r.name AS who, p.name AS project, a.name AS account
                 FROM events e LEFT JOIN reviewers r ON r.id = e.reviewer_id
                 LEFT JOIN projects p ON p.id = e.project_id
                 LEFT JOIN reviewers a ON a.id = json_extract(e.detail, '$.account')
                 WHERE e.record_id IS NULL AND e.id < :before ORDER BY e.id DESC LIMIT :limit"""
        return self.db.all(sql, {"before": before or 2**62, "limit": limit})

    def of_record(self, record_id: int) -> list[Row]:
        return self.db.all("SELECT * FROM events WHERE record_id = :r ORDER BY id", {"r": record_id})


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
        members: Sequence[tuple[int, str]],
    ) -> int:
        """Record an export that stands on disk; ``members`` are (annotation id, split).

        A ranking has its number with a minus sign in place of an annotation id.
        """
        sql = """INSERT INTO exports (project_id, task, format, manifest, folder, reviewer_id, created_at)
                 VALUES (:p, :t, :f, :m, :folder, :r, :now) RETURNING id"""
        params = {"p": project_id, "t": task, "f": format_, "m": strictjson.dumps(manifest), "folder": folder}
        id_ = int(tx.value(sql, params | {"r": reviewer_id, "now": time.time()}))
        tx.many(
            "INSERT INTO export_annotations (export_id, annotation_id, split) VALUES (?, ?, ?)",
            [(id_, member, split) for member, split in members if member > 0],
        )
        tx.many(
            "INSERT INTO export_rankings (export_id, ranking_id, split) VALUES (?, ?, ?)",
            [(id_, -member, split) for member, split in members if member < 0],
        )
        return id_

    def get(self, project_id: int, export_id: int) -> dict[str, Any]:
        """Return an export. Raises :class:`NotFound`."""
        sql = "SELECT * FROM exports WHERE project_id = :p AND id = :id"
        row = self.db.one(sql, {"p": project_id, "id": export_id})
        if row is None:
            raise NotFound("There is no export number %(number)s in this project", number=export_id)
        return dict(row) | {"manifest": strictjson.loads(row["manifest"])}

    def all(self, project_id: int, limit: int = 20) -> list[dict[str, Any]]:
        sql = "SELECT * FROM exports WHERE project_id = :p ORDER BY id DESC LIMIT :limit"
        rows = self.db.all(sql, {"p": project_id, "limit": limit})
        return [dict(row) | {"manifest": strictjson.loads(row["manifest"])} for row in rows]
