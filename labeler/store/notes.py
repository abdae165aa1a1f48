"""Notes on records: threads of short notes between people, each about one record in one task.

A thread is open until somebody closes it, and waits for one person or, without one, for whoever adjudicates: that is
what its newest note says. So one row of each open thread is marked, and what waits for whom is read from an index.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from labeler import strictjson
from labeler.store.database import Database, Row, Tx
from labeler.store.records import unused

COUNTED = 1000
"""Open notes are counted up to here."""
# Those of records that have left the queue wait for nobody, until the records come back.
_QUEUED = "JOIN work w ON w.record_id = n.record_id AND w.task = n.task"
_NAMED = """n.id, n.thread, n.record_id, n.task, n.text, n.created_at, n.reviewer_id, n.to_id, r.name AS reviewer,
            t.name AS addressee"""
_PEOPLE = "LEFT JOIN reviewers r ON r.id = n.reviewer_id LEFT JOIN reviewers t ON t.id = n.to_id"


class Notes:
    def __init__(self, db: Database) -> None:
        self.db = db

    def add(
        self, tx: Tx, project_id: int, record_id: int, task: str, thread: int | None, reviewer_id: int,
        to: int | None, text: str, request_key: str,
    ) -> int:  # fmt: skip
        """Append a note and return its number. It begins a thread, or is the newest of ``thread``, which is open."""
        id_ = int(tx.value(f"SELECT {unused('notes')}"))
        tx.run("UPDATE notes SET open = 0 WHERE thread = :thread", {"thread": thread})
        tx.run(
            """INSERT INTO notes (id, thread, project_id, record_id, task, reviewer_id, to_id, text, open, request_key,
               created_at) VALUES (:id, :thread, :p, :r, :t, :who, :to, :text, 1, :key, :now)""",
            {
                "id": id_, "thread": thread or id_, "p": project_id, "r": record_id, "t": task, "who": reviewer_id,
                "to": to, "text": text, "key": request_key, "now": time.time(),
            },
        )  # fmt: skip
        return id_

    def by_request(self, tx: Tx, request_key: str) -> Row | None:
        return tx.one("SELECT * FROM notes WHERE request_key = :k", {"k": request_key})

    def first(self, tx: Tx, thread: int, record_id: int, task: str) -> Row | None:
        """Return the note that began a thread of a record; ``open`` says whether the thread is."""
        sql = """SELECT n.id, n.reviewer_id, n.to_id,
                 EXISTS (SELECT 1 FROM notes o WHERE o.thread = n.id AND o.open = 1) AS open
                 FROM notes n WHERE n.id = :thread AND n.thread = n.id AND n.record_id = :r AND n.task = :t"""
        return tx.one(sql, {"thread": thread, "r": record_id, "t": task})

    def close(self, tx: Tx, thread: int) -> None:
        tx.run("UPDATE notes SET open = 0 WHERE thread = :thread", {"thread": thread})

    def of_records(self, task: str, record_ids: Sequence[int]) -> list[Row]:
        """Return all notes of the open threads of records, by thread, oldest first, with the names of people."""
        sql = f"""SELECT {_NAMED} FROM notes n {_PEOPLE} WHERE n.thread IN (
                    SELECT o.thread FROM notes o WHERE o.task = :t AND o.open = 1
                    AND o.record_id IN (SELECT value FROM json_each(:ids)))
                  ORDER BY n.thread, n.id"""
        return self.db.all(sql, {"t": task, "ids": strictjson.dumps(list(record_ids))})

    def waiting(self, project_id: int, to: int | None) -> int:
        """Return how many open threads of a project wait for a person, or for whoever adjudicates; at most COUNTED."""
        sql = f"""SELECT COUNT(*) FROM (SELECT 1 FROM notes n {_QUEUED}
                    WHERE n.open = 1 AND {_waits(to)} AND n.project_id = :p LIMIT {COUNTED})"""
        return int(self.db.value(sql, {"p": project_id, "to": to}))

    def of_person(self, project_id: int, to: int | None, limit: int) -> list[Row]:
        """Return the newest note of each open thread that waits for a person, or for whoever adjudicates: see
        :meth:`of_project`."""
        return self._newest(f"AND {_waits(to)}", {"p": project_id, "to": to, "limit": limit})

    def of_project(self, project_id: int, limit: int) -> list[Row]:
        """Return the newest note of each open thread of a project, oldest first; ``review`` is the record's text."""
        return self._newest("", {"p": project_id, "limit": limit})

    def _newest(self, where: str, params: dict[str, int | None]) -> list[Row]:
        sql = f"""SELECT {_NAMED}, c.text AS review FROM notes n {_QUEUED} JOIN records c ON c.id = n.record_id
                  {_PEOPLE} WHERE n.open = 1 AND n.project_id = :p {where} ORDER BY n.id LIMIT :limit"""
        return self.db.all(sql, params)

    def askable(self, project_id: int, tx: Tx | None = None) -> dict[int, str]:
        """Return the names of the members of a project who can sign in and answer, by number, in their order."""
        sql = """SELECT r.id, r.name FROM members m JOIN reviewers r ON r.id = m.reviewer_id
                 WHERE m.project_id = :p AND m.role <> 'observer' AND r.disabled = 0 ORDER BY r.name"""
        return {row["id"]: row["name"] for row in (tx or self.db).all(sql, {"p": project_id})}

    def pass_on(self, tx: Tx, reviewer_id: int, project_id: int | None = None) -> None:
        """Let what waits for somebody who leaves wait for whoever adjudicates: in a project, or everywhere."""
        where = "AND project_id = :p" if project_id is not None else ""
        sql = f"UPDATE notes SET to_id = NULL WHERE open = 1 AND to_id = :who {where}"
        tx.run(sql, {"who": reviewer_id, "p": project_id})


def _waits(to: int | None) -> str:
    # As the index has it: SQLite and PostgreSQL look NULL up by IS NULL alone.
    return "n.to_id IS NULL" if to is None else "n.to_id = :to"
