"""Views: queries of the table of records that people keep under a name, for everybody in the project."""

from __future__ import annotations

import time

from labeler.errors import InputError
from labeler.store.database import Database, Row, Tx


class Views:
    def __init__(self, db: Database) -> None:
        self.db = db

    def of(self, project_id: int) -> list[Row]:
        """Return the views of a project by name, with the name of whoever keeps them."""
        sql = """SELECT w.*, r.name AS reviewer FROM views w LEFT JOIN reviewers r ON r.id = w.reviewer_id
                 WHERE w.project_id = :p ORDER BY w.name"""
        return self.db.all(sql, {"p": project_id})

    def keep(self, tx: Tx, project_id: int, name: str, address: str, reviewer_id: int) -> int:
        """Keep a query string under a name: a new one, or one of one's own. Raises :class:`InputError` for a name that
        somebody has taken."""
        sql = """INSERT INTO views (project_id, name, address, reviewer_id, created_at)
                 VALUES (:p, :name, :address, :who, :now) ON CONFLICT (project_id, name)
                 DO UPDATE SET address = excluded.address WHERE reviewer_id = excluded.reviewer_id RETURNING id"""
        params = {"p": project_id, "name": name, "address": address, "who": reviewer_id, "now": time.time()}
        found = tx.value(sql, params)
        if found is None:
            raise InputError("There is already a view called %(name)s, of another person", name=name)
        return int(found)

    def remove(self, tx: Tx, view_id: int) -> None:
        tx.run("DELETE FROM views WHERE id = :id", {"id": view_id})
