"""What the background has to follow: how far the decisions of each task were taken up, by whichever worker.

A decision raises ``newest`` of its task in its own transaction; a worker takes a task whose ``followed`` lags behind,
for as long as its lease, and moves ``followed`` up when it is done. So any number of workers, in any processes, share
what is to be done and forget nothing. What keeps failing waits longer each time, with the reason for the page.
"""

from __future__ import annotations

import time

from labeler.sentence import Sentence
from labeler.store.database import Database, Row, Tx

VECTORS, DERIVED, WRITTEN = ":vectors", ":derived", ":written"
"""The places of a project's vectors, of what is derived from its reviews and of what models wrote, beside its tasks."""
LEASE = 60.0
_FIRST_WAIT, _LONGEST_WAIT = 5.0, 600.0
_LONGEST = 500


class Upkeep:
    def __init__(self, db: Database) -> None:
        self.db = db

    def ask(self, tx: Tx, project_id: int, task: str) -> None:
        """Have a task looked at again though nothing was decided since, unless nothing was decided ever."""
        sql = "UPDATE upkeep SET followed = newest - 1 WHERE project_id = :p AND place = :place AND followed = newest"
        tx.run(sql, {"p": project_id, "place": task})

    def standing(self, project_id: int, place: str) -> tuple[bool, bool]:
        """Return whether a place may be taken now, and whether it failed when it was last tried."""
        sql = f"""SELECT {_FREE} AS free, trouble IS NOT NULL AS troubled FROM upkeep
                  WHERE project_id = :p AND place = :place"""
        row = self.db.one(sql, {"p": project_id, "place": place} | _now())
        return (True, False) if row is None else (bool(row["free"]), bool(row["troubled"]))

    def due(self) -> list[tuple[int, str]]:
        """Return (project id, task) of what lags behind and nobody works on, those that waited longest first."""
        sql = f"SELECT project_id, place FROM upkeep WHERE followed < newest AND {_FREE} ORDER BY until"
        return [(row["project_id"], row["place"]) for row in self.db.all(sql, _now())]

    def begin(self, tx: Tx, project_id: int, place: str) -> None:
        """Have a place that is new begin behind the newest decision there is."""
        sql = """INSERT INTO upkeep (project_id, place, followed)
                 VALUES (:p, :place, COALESCE((SELECT MAX(id) FROM annotations), 0)) ON CONFLICT DO NOTHING"""
        tx.run(sql, {"p": project_id, "place": place})

    def followed(self, project_id: int, place: str) -> int:
        """Return the last decision that a place was taken up to, 0 for one that never was."""
        return self._kept("followed", project_id, place)

    def tries(self, project_id: int, place: str) -> int:
        """Return how often a place failed in a row."""
        return self._kept("tries", project_id, place)

    def _kept(self, column: str, project_id: int, place: str) -> int:
        sql = f"SELECT {column} FROM upkeep WHERE project_id = :p AND place = :place"
        return int(self.db.value(sql, {"p": project_id, "place": place}) or 0)

    def is_due(self, project_id: int, task: str) -> bool:
        """Whether a task lags behind, be it that somebody works on it."""
        sql = "SELECT 1 FROM upkeep WHERE project_id = :p AND place = :place AND followed < newest"
        return self.db.value(sql, {"p": project_id, "place": task}) is not None

    def take(self, tx: Tx, project_id: int, place: str, token: str) -> int | None:
        """Take a place for :data:`LEASE` seconds and return its newest decision; None if somebody works on it."""
        sql = f"""INSERT INTO upkeep (project_id, place, token, until) VALUES (:p, :place, :token, :now + {LEASE})
                  ON CONFLICT (project_id, place) DO UPDATE SET token = excluded.token, until = excluded.until
                  WHERE {_FREE} RETURNING newest"""
        newest: int | None = tx.value(sql, {"p": project_id, "place": place, "token": token} | _now())
        return newest

    def done(self, tx: Tx, project_id: int, place: str, token: str, followed: int) -> None:
        """Give a place back: everything up to the decision ``followed`` was taken up."""
        sql = """UPDATE upkeep SET followed = :followed, until = 0, tries = 0, trouble = NULL
                 WHERE project_id = :p AND place = :place AND token = :token"""
        tx.run(sql, {"p": project_id, "place": place, "token": token, "followed": followed})

    def failed(self, tx: Tx, project_id: int, place: str, token: str, message: str) -> None:
        """Let a place wait before it is tried again, twice as long each time, and keep why for the project's page."""
        where = {"p": project_id, "place": place, "token": token}
        here = "project_id = :p AND place = :place AND token = :token"
        tries = tx.value(f"UPDATE upkeep SET tries = tries + 1 WHERE {here} RETURNING tries", where)
        until = time.time() + min(_FIRST_WAIT * 2 ** min(int(tries or 1) - 1, 10), _LONGEST_WAIT)
        sql = f"UPDATE upkeep SET until = :until, trouble = :message WHERE {here}"
        # What a plugin says in it may be as long as it likes.
        kept = Sentence(message)
        kept = kept.mapped(lambda text: text[:_LONGEST]) if kept.values else Sentence(kept[:_LONGEST])
        tx.run(sql, where | {"until": until, "message": kept})

    def troubles(self, project_id: int) -> list[Row]:
        """Return ``place`` and ``trouble`` of what failed when it was last tried."""
        sql = "SELECT place, trouble FROM upkeep WHERE project_id = :p AND trouble IS NOT NULL ORDER BY place"
        return self.db.all(sql, {"p": project_id})


def note_decision(tx: Tx, project_id: int, task: str, annotation_id: int) -> None:
    """Note the newest decision of a task, in the transaction that stores it."""
    sql = """INSERT INTO upkeep (project_id, place, newest) VALUES (:p, :place, :id)
             ON CONFLICT (project_id, place) DO UPDATE SET newest = excluded.newest"""
    tx.run(sql, {"p": project_id, "place": task, "id": annotation_id})


# A clock that is set back must not make anything wait for a day.
_FREE = "(upkeep.until <= :now OR upkeep.until > :latest)"


def _now() -> dict[str, float]:
    now = time.time()
    return {"now": now, "latest": now + 2 * _LONGEST_WAIT}
