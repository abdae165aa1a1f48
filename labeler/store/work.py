"""The queue: one row per record and task, its order, and who holds a record now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from labeler.store.database import Database, Row, Tx
from labeler.store.records import GROUP, REVIEW, enqueue, kind_of

OLDEST, SCORE, DISAGREEMENT, RANDOM, SIMILAR = "oldest", "score", "disagreement", "random", "similar"
ORDERS = (OLDEST, SCORE, DISAGREEMENT, RANDOM, SIMILAR)

# Each order reads its own index from the front; a record without the number comes after those that have it.
_ORDERED = {
    OLDEST: ("", "record_id"),
    SCORE: ("AND score IS NOT NULL", "score, record_id"),
    DISAGREEMENT: ("AND disagreement IS NOT NULL", "disagreement DESC, record_id"),
    RANDOM: ("", "shuffle"),
}
_FREE = """NOT EXISTS (SELECT 1 FROM claims c WHERE c.record_id = w.record_id AND c.task = w.task
           AND c.until > :now AND c.until <= :latest)"""


_UNSKIPPED = """AND NOT EXISTS (SELECT 1 FROM skips s WHERE s.record_id = w.record_id AND s.task = w.task
                AND s.reviewer_id = :who)"""


class Work:
    def __init__(self, db: Database) -> None:
        self.db = db

    def get(self, record_id: int, task: str, tx: Tx | None = None) -> Row | None:
        sql = "SELECT * FROM work WHERE record_id = :r AND task = :t"
        return (tx or self.db).one(sql, {"r": record_id, "t": task})

    def counts(self, project_id: int, task: str) -> dict[str, int]:
        """Return how many records are pending, approved and rejected."""
        sql = "SELECT state, COUNT(*) AS n FROM work WHERE project_id = :p AND task = :t GROUP BY state"
        found = {"pending": 0, "approved": 0, "rejected": 0}
        found.update((row["state"], row["n"]) for row in self.db.all(sql, {"p": project_id, "t": task}))
        return found

    def states(self, project_id: int, record_ids: list[int]) -> dict[int, dict[str, str]]:
        """Return the state of records by record id and task; a task that does not label a record is left out."""
        found: dict[int, dict[str, str]] = {id_: {} for id_ in record_ids}
        if not found:
            return found
        marks = ",".join(str(int(id_)) for id_ in record_ids)
        sql = f"SELECT record_id, task, state FROM work WHERE project_id = :p AND record_id IN ({marks})"
        for row in self.db.all(sql, {"p": project_id}):
            found[row["record_id"]][row["task"]] = row["state"]
        return found

    def front(
        self,
        project_id: int,
        task: str,
        order: str,
        limit: int,
        lease: float,
        skip: tuple[int, ...] = (),
        tx: Tx | None = None,
        only_free: bool = True,
        reviewer_id: int | None = None,
    ) -> list[int]:
        """Return the next pending records that nobody holds, in the given order (not ``similar``).

        With ``reviewer_id`` the records that this reviewer skipped are left out.
        """
        found: list[int] = []
        orders = [order] if order in (OLDEST, RANDOM) else [order, OLDEST]
        now = time.time()
        for name in orders:
            where, by = _ORDERED[name]
            taken = (*skip, *found)
            marks = ",".join(str(int(id_)) for id_ in taken)
            sql = f"""SELECT w.record_id FROM work w WHERE w.project_id = :p AND w.task = :t AND w.state = 'pending'
                      {where} {f"AND w.record_id NOT IN ({marks})" if taken else ""}
                      {f"AND {_FREE}" if only_free else ""} {_UNSKIPPED if reviewer_id is not None else ""}
                      ORDER BY {by} LIMIT :limit"""
            # A clock that jumped ahead must not leave a claim standing for a day: none reaches further than a lease.
            params = {"p": project_id, "t": task, "now": now, "latest": now + 2 * lease, "limit": limit - len(found)}
            if reviewer_id is not None:
                params["who"] = reviewer_id
            if not only_free:
                del params["now"], params["latest"]
            found += [row["record_id"] for row in (tx or self.db).all(sql, params)]
            if len(found) >= limit:
                break
        return found

    def pending(
        self,
        project_id: int,
        task: str,
        record_ids: list[int],
        lease: float,
        tx: Tx | None = None,
        reviewer_id: int | None = None,
    ) -> list[int]:
        """Return those of ``record_ids`` that are pending and free, in the given order.

        With ``reviewer_id`` the records that this reviewer skipped are left out.
        """
        if not record_ids:
            return []
        now = time.time()
        marks = ",".join(str(int(id_)) for id_ in record_ids)
        sql = f"""SELECT w.record_id FROM work w WHERE w.record_id IN ({marks}) AND w.task = :t
                  AND w.project_id = :p AND w.state = 'pending' AND {_FREE}
                  {_UNSKIPPED if reviewer_id is not None else ""}"""
        params = {"p": project_id, "t": task, "now": now, "latest": now + 2 * lease}
        if reviewer_id is not None:
            params["who"] = reviewer_id
        free = {row["record_id"] for row in (tx or self.db).all(sql, params)}
        return [id_ for id_ in record_ids if id_ in free]

    def pending_pages(
        self, project_id: int, task: str, without_suggestion: bool, size: int = 1000
    ) -> Iterator[list[int]]:
        """Yield pages of pending record ids, for runs."""
        where = "AND suggestion_id IS NULL" if without_suggestion else ""
        sql = f"""SELECT record_id AS id FROM work WHERE project_id = :p AND task = :t AND state = 'pending' {where}
                  AND record_id > :after ORDER BY record_id LIMIT :size"""
        for rows in self.db.pages(sql, {"p": project_id, "t": task}, size):
            yield [row["id"] for row in rows]

    def enqueue_task(self, tx: Tx, project_id: int, task: str, unit: str, after: int, limit: int = 5000) -> int | None:
        """Queue the next ``limit`` records for a task that was switched on; return the last id, None when done."""
        kind = kind_of(unit)
        # The plus keeps SQLite from an index of the project, which it would have to sort for each slice.
        sql = """SELECT id FROM records WHERE +project_id = :p AND kind = :kind AND duplicate_of IS NULL AND id > :after
                 ORDER BY id LIMIT :limit"""
        ids = [row["id"] for row in tx.all(sql, {"p": project_id, "kind": kind, "after": after, "limit": limit})]
        enqueue(tx, project_id, ids, [task])
        return ids[-1] if len(ids) == limit else None

    def drop_other_unit(self, tx: Tx, project_id: int, task: str, unit: str) -> int:
        """Take pending records of the other unit out of a task's queue; decided ones stay. Return how many."""
        where = """project_id = :p AND task = :t AND state = 'pending' AND annotation_id IS NULL
                   AND EXISTS (SELECT 1 FROM records r WHERE r.id = work.record_id AND r.kind = :kind)"""
        params = {"p": project_id, "t": task, "kind": REVIEW if kind_of(unit) == GROUP else GROUP}
        if params["kind"] == GROUP:
            # If a product comes back its text may be another: no version of it is ever given twice.
            tx.run(
                f"""UPDATE records SET version = 1 + (SELECT MAX(w.version) FROM work w WHERE w.record_id = records.id)
                    WHERE id IN (SELECT record_id FROM work WHERE {where})""",
                params,
            )
        return tx.run(f"DELETE FROM work WHERE {where}", params)

    # Claims

    def claim(
        self, tx: Tx, project_id: int, record_id: int, task: str, reviewer_id: int, token: str, until: float
    ) -> None:
        """Give a record to a reviewer; an expired or foreign claim is taken over (the caller has checked)."""
        sql = """INSERT INTO claims (record_id, task, project_id, reviewer_id, token, until)
                 VALUES (:r, :t, :p, :who, :token, :until) ON CONFLICT (record_id, task) DO UPDATE SET
                 reviewer_id = excluded.reviewer_id, token = excluded.token, until = excluded.until, touched = 0"""
        params = {"r": record_id, "t": task, "p": project_id, "who": reviewer_id, "token": token, "until": until}
        tx.run(sql, params)

    def holder(self, tx: Tx | None, record_id: int, task: str, lease: float) -> Row | None:
        """Return the live claim of a record with its reviewer's name, or None."""
        now = time.time()
        sql = """SELECT c.*, r.name FROM claims c JOIN reviewers r ON r.id = c.reviewer_id
                 WHERE c.record_id = :r AND c.task = :t AND c.until > :now AND c.until <= :latest"""
        params = {"r": record_id, "t": task, "now": now, "latest": now + 2 * lease}
        return (tx or self.db).one(sql, params)

    def held_by(self, project_id: int, task: str, reviewer_id: int, tx: Tx | None = None) -> list[Row]:
        sql = """SELECT c.* FROM claims c WHERE c.reviewer_id = :who AND c.project_id = :p AND c.task = :t
                 AND c.until > :now ORDER BY c.until"""
        params = {"who": reviewer_id, "p": project_id, "t": task, "now": time.time()}
        return (tx or self.db).all(sql, params)

    def touch(self, tx: Tx, record_id: int, task: str, token: str, until: float) -> bool:
        """Mark a held record as worked on and prolong its claim; False if the claim is no longer this one."""
        sql = """UPDATE claims SET touched = 1, until = :until WHERE record_id = :r AND task = :t AND token = :token"""
        return tx.run(sql, {"r": record_id, "t": task, "token": token, "until": until}) > 0

    def release(self, tx: Tx, record_id: int, task: str) -> None:
        tx.run("DELETE FROM claims WHERE record_id = :r AND task = :t", {"r": record_id, "t": task})

    def release_all(self, tx: Tx, project_id: int, task: str, reviewer_id: int) -> None:
        sql = "DELETE FROM claims WHERE reviewer_id = :who AND project_id = :p AND task = :t"
        tx.run(sql, {"who": reviewer_id, "p": project_id, "t": task})

    def skip(self, tx: Tx, record_id: int, task: str, reviewer_id: int) -> None:
        """Let a record wait until this reviewer has seen all others; it stays pending."""
        sql = """INSERT INTO skips (record_id, task, reviewer_id, at) VALUES (:r, :t, :who, :now)
                 ON CONFLICT DO NOTHING"""
        tx.run(sql, {"r": record_id, "t": task, "who": reviewer_id, "now": time.time()})

    def forget_skips(self, tx: Tx, project_id: int, task: str, reviewer_id: int) -> int:
        """Bring a reviewer's skipped records back; return how many there were."""
        sql = """DELETE FROM skips WHERE task = :t AND reviewer_id = :who
                 AND record_id IN (SELECT id FROM records WHERE project_id = :p)"""
        return tx.run(sql, {"t": task, "who": reviewer_id, "p": project_id})

    # What decisions and suggestions change

    def decided(self, tx: Tx, record_id: int, task: str, state: str, annotation_id: int | None) -> int:
        """Set the state after a decision and return the new version number of the row."""
        sql = """UPDATE work SET state = :state, annotation_id = :a, version = version + 1
                 WHERE record_id = :r AND task = :t RETURNING version"""
        return int(tx.value(sql, {"state": state, "a": annotation_id, "r": record_id, "t": task}) or 0)

    def suggested(
        self, tx: Tx, record_id: int, task: str, suggestion_id: int, score: float | None, disagreement: float | None
    ) -> bool:
        """Point a pending row at its newest suggestion; a decided row, or a draft a person touched, is left alone."""
        sql = """UPDATE work SET suggestion_id = :s, score = :score, disagreement = :d
                 WHERE record_id = :r AND task = :t AND state = 'pending' AND NOT EXISTS (
                   SELECT 1 FROM claims c WHERE c.record_id = work.record_id AND c.task = work.task
                   AND c.touched = 1 AND c.until > :now)"""
        params = {"s": suggestion_id, "score": score, "d": disagreement, "r": record_id, "t": task, "now": time.time()}
        return tx.run(sql, params) > 0

    def pending_among(self, project_id: int, task: str, record_ids: Sequence[int]) -> set[int]:
        """Return those of ``record_ids`` that are pending for a task."""
        marks = ",".join(str(int(id_)) for id_ in record_ids) or "NULL"
        sql = f"""SELECT record_id FROM work WHERE record_id IN ({marks}) AND task = :t AND project_id = :p
                  AND state = 'pending'"""
        return {row["record_id"] for row in self.db.all(sql, {"t": task, "p": project_id})}

    def front_with_suggestion(self, project_id: int, task: str, record_ids: list[int]) -> list[Row]:
        """Return record id, suggestion id, backend, note and evidence of pending records whose draft nobody touched."""
        if not record_ids:
            return []
        marks = ",".join(str(int(id_)) for id_ in record_ids)
        sql = f"""SELECT w.record_id, s.id AS suggestion_id, s.backend, s.note, s.evidence
                  FROM work w
                  JOIN suggestions s ON s.id = w.suggestion_id
                  WHERE w.record_id IN ({marks}) AND w.task = :t AND w.project_id = :p AND w.state = 'pending'
                  AND NOT EXISTS (SELECT 1 FROM claims c WHERE c.record_id = w.record_id AND c.task = w.task
                                  AND c.touched = 1 AND c.until > :now)"""
        return self.db.all(sql, {"p": project_id, "t": task, "now": time.time()})
