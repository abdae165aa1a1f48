"""Counts that pages show, moved by each row that comes, goes or changes, in the same transaction: no page counts rows.

Triggers do it, whoever writes the row; only records and their places in queues, which come in by the thousand, are
counted by those who add them. The view ``counted`` says what the counts should be, for the doctor.
"""

from __future__ import annotations

from labeler.store.database import Database, Row, Tx

RECORDS, VECTORS = "records", "vectors"
"""Of a project: reviews ("review"), records of products ("group"), exact copies ("duplicate"), near-duplicates
("near") and products ("product"); vectors by embedder."""
WORK, HOW, DAYS = "work", "how", "days"
"""Of a project's task: records by state, decisions in force by how they came to be, and by day (UTC) and how."""
AGREEMENT, EXACT = "agreement", "exact"
"""Of a project's task: first decisions on suggestions by version, backend, model id and blind, as JSON; and those of
them that took a suggestion as it was."""
ITEMS, REASONS, NOTES, SCORED = "items", "reasons", "notes", "scored"
"""Of a run: items by state and by reason of failure; by task too: suggestions by note, and those with label scores by
backend, model id and digest of the prompt, as JSON."""
GOING = "going"
"""What goes with a part of a project: with the records of an import (its number), with those that none brought
("review"), with products ("group"). Records ("record"), exact copies among them ("copy"), decisions in force of people
("decision") and labels ("label"), suggestions ("suggestion") and calls ("call"); and labels in force that the import
gave to records of others ("given")."""
# Agreements are added up in another order.
_WRONG = """SELECT what, id, task, name, SUM(kept) AS kept, SUM(counted) AS counted FROM (
      SELECT what, id, task, name, n AS kept, 0 AS counted, total FROM counts
      UNION ALL SELECT what, id, task, name, 0, n, -total FROM counted) AS both
    GROUP BY what, id, task, name HAVING SUM(kept) <> SUM(counted) OR ABS(SUM(total)) > 1e-6
    ORDER BY what, id, task, name"""


def count(tx: Tx, what: str, id_: int, name: str, n: int, task: str = "") -> None:
    """Count ``n`` rows more that came in."""
    sql = """INSERT INTO counts (what, id, task, name, n) VALUES (:what, :id, :t, :name, :n)
             ON CONFLICT (what, id, task, name) DO UPDATE SET n = n + excluded.n"""
    if n:
        tx.run(sql, {"what": what, "id": id_, "t": task, "name": name, "n": n})


class Counts:
    def __init__(self, db: Database) -> None:
        self.db = db

    def of(self, what: str, id_: int, task: str = "", tx: Tx | None = None) -> dict[str, int]:
        """Return the counts of one kind by name; what is not there counts as 0."""
        sql = "SELECT name, n FROM counts WHERE what = :what AND id = :id AND task = :t AND n > 0"
        rows = (tx or self.db).all(sql, {"what": what, "id": id_, "t": task})
        return {row["name"]: row["n"] for row in rows}

    def by_task(self, what: str, id_: int, tx: Tx | None = None) -> dict[str, dict[str, int]]:
        """Return the counts of one kind by task and name."""
        found: dict[str, dict[str, int]] = {}
        sql = "SELECT task, name, n FROM counts WHERE what = :what AND id = :id AND n > 0"
        for row in (tx or self.db).all(sql, {"what": what, "id": id_}):
            found.setdefault(row["task"], {})[row["name"]] = row["n"]
        return found

    def totals(self, what: str, id_: int, task: str) -> list[Row]:
        """Return ``name``, ``n`` and ``total`` of the counts of one kind."""
        sql = "SELECT name, n, total FROM counts WHERE what = :what AND id = :id AND task = :t AND n > 0"
        return self.db.all(sql, {"what": what, "id": id_, "t": task})

    def faults(self, limit: int = 100) -> list[str]:
        """Return sentences on counts that the rows do not bear out, at most ``limit``; :meth:`repair` mends them."""
        return [
            f"The count of {row['what']} of {row['id']}, {row['task'] or 'all tasks'}, {row['name'] or 'no name'} says "
            f"{row['kept']:,}, and there are {row['counted']:,}"
            for row in self.db.all(f"{_WRONG} LIMIT :limit", {"limit": limit})
        ]

    def repair(self, tx: Tx) -> int:
        """Count everything again; return how many counts were wrong."""
        wrong = len(tx.all(_WRONG))
        tx.run("DELETE FROM counts")
        tx.run("INSERT INTO counts SELECT * FROM counted")
        return wrong
