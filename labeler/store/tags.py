"""Tags: short names that people give to records, many at once. One that begins with "@" gives a record to a person.

A tag that was taken off stays as a row that says which act did it, so that the act can be undone.
"""

from __future__ import annotations

from collections.abc import Sequence

from labeler import strictjson
from labeler.store.database import Database, Tx

GOLD = "gold"
"""The tag of records whose decision is known to be right: they are mixed into the queue to see how people do."""
PERSON = "@"
# What begins with "@"; "A" comes after it.
ASSIGNED = "name >= '@' AND name < 'A' AND off_by IS NULL"
_AMONG = "IN (SELECT value FROM json_each(:ids))"


class Tags:
    def __init__(self, db: Database) -> None:
        self.db = db

    def put(self, tx: Tx, project_id: int, name: str, record_ids: Sequence[int], act_id: int) -> list[int]:
        """Tag records; return those that did not have the tag."""
        sql = """INSERT INTO tags (project_id, name, record_id, act_id)
                 SELECT :p, :name, value, :act FROM json_each(:ids) WHERE true
                 ON CONFLICT (project_id, name, record_id) DO UPDATE SET act_id = :act, off_by = NULL
                 WHERE off_by IS NOT NULL RETURNING record_id"""
        params = {"p": project_id, "name": name, "act": act_id, "ids": strictjson.dumps(list(record_ids))}
        return [row["record_id"] for row in tx.all(sql, params)]

    def take_off(self, tx: Tx, project_id: int, name: str, record_ids: Sequence[int], act_id: int) -> list[int]:
        """Take a tag off records; return those that had it."""
        sql = f"""UPDATE tags SET off_by = :act WHERE project_id = :p AND name = :name AND record_id {_AMONG}
                  AND off_by IS NULL RETURNING record_id"""
        params = {"p": project_id, "name": name, "act": act_id, "ids": strictjson.dumps(list(record_ids))}
        return [row["record_id"] for row in tx.all(sql, params)]

    def undo(self, tx: Tx, project_id: int, act_id: int) -> None:
        """Undo what an act tagged or took off, where nobody has changed it since."""
        params = {"p": project_id, "act": act_id}
        tx.run("DELETE FROM tags WHERE project_id = :p AND act_id = :act AND off_by IS NULL", params)
        tx.run("UPDATE tags SET off_by = NULL WHERE project_id = :p AND off_by = :act", params)

    def names(self, project_id: int) -> list[str]:
        """Return the tags that records of a project have or had, in their order: each costs one step into the index."""
        after = "SELECT MIN(name) FROM tags WHERE project_id = :p"
        sql = f"""WITH RECURSIVE found (name) AS ({after} UNION ALL
                  SELECT ({after} AND name > found.name) FROM found WHERE found.name IS NOT NULL)
                  SELECT name FROM found WHERE name IS NOT NULL"""
        return [row["name"] for row in self.db.all(sql, {"p": project_id})]

    def of(self, record_ids: Sequence[int]) -> dict[int, list[str]]:
        """Return the tags of records, by record."""
        sql = f"SELECT record_id, name FROM tags WHERE record_id {_AMONG} AND off_by IS NULL ORDER BY name"
        found: dict[int, list[str]] = {}
        for row in self.db.all(sql, {"ids": strictjson.dumps(list(record_ids))}):
            found.setdefault(row["record_id"], []).append(row["name"])
        return found

    def having(self, name: str, record_ids: Sequence[int]) -> set[int]:
        """Return those of some records that have a tag."""
        sql = f"SELECT record_id FROM tags WHERE record_id {_AMONG} AND name = :name AND off_by IS NULL"
        rows = self.db.all(sql, {"ids": strictjson.dumps(list(record_ids)), "name": name})
        return {row["record_id"] for row in rows}

    def is_anything_given(self, tx: Tx, project_id: int) -> bool:
        """Whether a record of a project is given to a person."""
        return (
            tx.value(f"SELECT 1 FROM tags WHERE project_id = :p AND {ASSIGNED} LIMIT 1", {"p": project_id}) is not None
        )
