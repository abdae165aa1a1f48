"""Events (every act, append-only) and exports (which annotations went where)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from labeler import strictjson
from labeler.store.database import Database, Row, Tx


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are looked for: of a person, a project, a kind, in a time (seconds since 1970); with ``labels``
    what was done to single records too."""

    person: int | None = None
    project: int | None = None
    kind: str | None = None
    since: float | None = None
    until: float | None = None
    labels: bool = False


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

    def acts(self, before: int | None, limit: int, wanted: Wanted | None = None) -> list[Row]:
        """Return what people did, newest first: sign-ins, accounts, settings, runs, exports, and labels if asked.

        ``before`` is the number after which the next page goes on.
        """
        wanted = wanted or Wanted()
        conditions = {
            "e.reviewer_id = :person": wanted.person,
            "e.project_id = :project": wanted.project,
            "e.kind = :kind": wanted.kind,
            "e.at >= :since": wanted.since,
            "e.at < :until": wanted.until,
            "e.record_id IS NULL": None if wanted.labels else True,
        }
        where = "".join(f" AND {condition}" for condition, value in conditions.items() if value is not None)
        sql = f"""SELECT e.id, e.at, e.kind, e.task, e.record_id, e.detail, r.name AS who, p.name AS project,
                  a.name AS account, k.key FROM events e LEFT JOIN reviewers r ON r.id = e.reviewer_id
                  LEFT JOIN projects p ON p.id = e.project_id LEFT JOIN records k ON k.id = e.record_id
                  LEFT JOIN reviewers a ON a.id = json_extract(e.detail, '$.account')
                  WHERE e.id < :before{where} ORDER BY e.id DESC LIMIT :limit"""
        return self.db.all(sql, asdict(wanted) | {"before": before or 2**62, "limit": limit})

    def of_record(self, record_id: int) -> list[Row]:
        return self.db.all("SELECT * FROM events WHERE record_id = :r ORDER BY id", {"r": record_id})
