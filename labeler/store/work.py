"""The queue: one row per record and task, its order, and who holds a record now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labeler import strictjson
from labeler.store.ballots import OPEN
from labeler.store.counts import WORK, Counts
from labeler.store.database import Database, Row, Tx
from labeler.store.records import GROUP, REVIEW, enqueue, kind_of
from labeler.store.tags import ASSIGNED, GOLD

OLDEST, SCORE, DISAGREEMENT, RANDOM, SIMILAR = "oldest", "score", "disagreement", "random", "similar"
ORDERS = (OLDEST, SCORE, DISAGREEMENT, RANDOM, SIMILAR)
PENDING, DISPUTED = "pending", "disputed"
"""States of a record that is not decided. Of a disputed one several people said different things: an adjudicator
decides, whose queue is the order of that name."""
_ANSWERING = "answering"
_NONE = {"pending": 0, "disputed": 0, "approved": 0, "rejected": 0}
# Each order reads its own index from the front; a record without the number comes after those that have it.
_ORDERED = {
    OLDEST: ("", "w.record_id"),
    # Scores of different backends are never compared: one backend's records come after another's.
    SCORE: ("AND w.score IS NOT NULL", "w.scored_by, w.score, w.record_id"),
    _ANSWERING: ("AND w.score IS NOT NULL AND w.scored_by = :backend", "w.score, w.record_id"),
    DISAGREEMENT: ("AND w.disagreement IS NOT NULL", "w.disagreement DESC, w.record_id"),
    RANDOM: ("", "w.shuffle"),
    DISPUTED: ("", "w.record_id"),
}
# A clock that jumped ahead must not leave a claim standing for a day: none reaches further than it was given for. That
# goes by the claim's own lease, so that a shorter one in the settings frees nothing that is held.
_LIVE = "c.until > :now AND c.until <= :now + 2 * c.lease"
_FREE = f"NOT EXISTS (SELECT 1 FROM claims c WHERE c.record_id = w.record_id AND c.task = w.task AND {_LIVE})"
UNTOUCHED = f"""NOT EXISTS (SELECT 1 FROM claims c WHERE c.record_id = w.record_id AND c.task = w.task
                 AND c.touched = 1 AND {_LIVE})"""
_UNSKIPPED = """NOT EXISTS (SELECT 1 FROM skips s WHERE s.record_id = w.record_id AND s.task = w.task
                AND s.reviewer_id = :who)"""
# Nobody gets what they have said something of: it waits for others.
_UNVOTED = f"""NOT EXISTS (SELECT 1 FROM ballots b WHERE b.record_id = w.record_id AND b.task = w.task
               AND b.reviewer_id = :who AND {OPEN})"""
# What is given to others does not come to the person whose tag is ``mine``.
_UNGIVEN = f"""(NOT EXISTS (SELECT 1 FROM tags o WHERE o.record_id = w.record_id AND {ASSIGNED})
                OR EXISTS (SELECT 1 FROM tags o WHERE o.record_id = w.record_id AND o.name = :mine
                           AND o.off_by IS NULL))"""
_THEIRS = f"{_UNSKIPPED} AND (w.state = 'disputed' OR {_UNVOTED})"
# What the queue should say of a record, by the annotations: the one in force decides, without one it is pending.
_IN_FORCE = """LEFT JOIN annotations a ON a.record_id = w.record_id AND a.task = w.task
               AND a.superseded_by IS NULL AND a.state <> 'withdrawn'"""
_RIGHT = f"""COALESCE(a.state, CASE WHEN w.state = 'disputed' AND EXISTS (SELECT 1 FROM ballots b
             WHERE b.record_id = w.record_id AND b.task = w.task AND {OPEN}) THEN 'disputed' ELSE 'pending' END)"""
_UNTRUE = f"""FROM work w {_IN_FORCE} WHERE w.state <> {_RIGHT}
              OR COALESCE(w.annotation_id, 0) <> COALESCE(a.id, 0)"""
_UNQUEUED = """FROM annotations a WHERE a.superseded_by IS NULL AND a.state <> 'withdrawn'
               AND NOT EXISTS (SELECT 1 FROM work w WHERE w.record_id = a.record_id AND w.task = a.task)"""
_OUTDATED = """FROM annotations a WHERE a.superseded_by IS NULL AND a.state <> 'withdrawn'
               AND EXISTS (SELECT 1 FROM annotations b WHERE b.record_id = a.record_id AND b.task = a.task
                           AND b.superseded_by IS NULL AND b.state <> 'withdrawn' AND b.id > a.id)"""
_NOBODYS = """FROM claims
              WHERE NOT EXISTS (SELECT 1 FROM reviewers r WHERE r.id = claims.reviewer_id AND r.disabled = 0)
              OR NOT EXISTS (SELECT 1 FROM work w WHERE w.record_id = claims.record_id AND w.task = claims.task)"""


COUNTED = 1000
"""What an order goes by is counted up to here: enough to go on with."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What an order can go by, of pending records, each at most COUNTED.

    ``known`` have what the order sorts by, ``apart`` says whether that sets any of them before another, ``suggested``
    are those of the oldest that have a suggestion.
    """

    pending: int
    known: int
    apart: bool
    suggested: int


class Work:
    def __init__(self, db: Database) -> None:
        self.db = db

    def get(self, record_id: int, task: str, tx: Tx | None = None) -> Row | None:
        sql = "SELECT * FROM work WHERE record_id = :r AND task = :t"
        return (tx or self.db).one(sql, {"r": record_id, "t": task})

    def counts(self, project_id: int, task: str) -> dict[str, int]:
        """Return how many records are pending, disputed, approved and rejected."""
        return _NONE | Counts(self.db).of(WORK, project_id, task)

    def counts_by_task(self, project_id: int) -> dict[str, dict[str, int]]:
        """Return the same for all tasks of a project that have records."""
        return {task: _NONE | counts for task, counts in Counts(self.db).by_task(WORK, project_id).items()}

    def states(self, project_id: int, record_ids: list[int]) -> dict[int, dict[str, str]]:
        """Return the state of records by record id and task; a task that does not label a record is left out."""
        found: dict[int, dict[str, str]] = {id_: {} for id_ in record_ids}
        if not found:
            return found
        marks = ",".join(str(int(id_)) for id_ in record_ids)
        # The plus keeps SQLite from an index of the project, which it would walk from end to end.
        sql = f"SELECT record_id, task, state FROM work WHERE +project_id = :p AND record_id IN ({marks})"
        for row in self.db.all(sql, {"p": project_id}):
            found[row["record_id"]][row["task"]] = row["state"]
        return found

    def front(
        self,
        project_id: int,
        task: str,
        order: str,
        limit: int,
        skip: tuple[int, ...] = (),
        tx: Tx | None = None,
        only_free: bool = True,
        reviewer_id: int | None = None,
        scored_by: str | None = None,
        tag: str = "",
        mine: str = "",
    ) -> list[int]:
        """Return the next pending records that nobody holds (``only_free``), in the given order (not ``similar``).

        The order DISPUTED has disputed records alone. The order by score begins with what the backend ``scored_by``
        scored; then come those of the others, one backend after the other. With ``reviewer_id`` the records that this
        reviewer skipped, or has voted on, are left out. With ``tag`` only the records that have it are looked at; with
        the tag of a person, ``mine``, none that is given to others.
        """
        found: list[int] = []
        rows = "tags g CROSS JOIN work w ON w.record_id = g.record_id" if tag else "work w"
        of_tag = "AND g.project_id = :p AND g.name = :tag AND g.off_by IS NULL" if tag else ""
        orders = [order] if order in (OLDEST, RANDOM, DISPUTED) else [order, OLDEST]
        state = DISPUTED if order == DISPUTED else PENDING
        if order == SCORE and scored_by is not None:
            orders.insert(0, _ANSWERING)
        for name in orders:
            where, by = _ORDERED[name]
            if tag and by == "w.record_id":
                # As the tags are stored: nothing is sorted.
                by = "g.record_id"
            taken = (*skip, *found)
            marks = ",".join(str(int(id_)) for id_ in taken)
            sql = f"""SELECT w.record_id FROM {rows} WHERE w.project_id = :p AND w.task = :t AND w.state = '{state}'
                      {of_tag} {f"AND {_UNGIVEN}" if mine else ""} {where}
                      {f"AND w.record_id NOT IN ({marks})" if taken else ""}
                      {f"AND {_FREE}" if only_free else ""} {f"AND {_THEIRS}" if reviewer_id is not None else ""}
                      ORDER BY {by} LIMIT :limit"""
            params = {"p": project_id, "t": task, "limit": limit - len(found), "now": time.time(), "who": reviewer_id}
            params |= {"tag": tag, "mine": mine}
            found += [row["record_id"] for row in (tx or self.db).all(sql, params | {"backend": scored_by})]
            if len(found) >= limit:
                break
        return found

    def gold(self, tx: Tx, project_id: int, task: str, skip: Sequence[int], reviewer_id: int) -> int | None:
        """Return an approved record with the tag GOLD that nobody holds, and that a reviewer has not decided on yet."""
        sql = f"""SELECT w.record_id FROM tags g CROSS JOIN work w ON w.record_id = g.record_id
                  WHERE g.project_id = :p AND g.name = '{GOLD}' AND g.off_by IS NULL AND w.task = :t
                  AND w.state = 'approved' AND {_FREE} AND {_UNSKIPPED}
                  AND w.record_id NOT IN (SELECT value FROM json_each(:skip))
                  AND NOT EXISTS (SELECT 1 FROM ballots b WHERE b.record_id = w.record_id AND b.task = w.task
                    AND b.reviewer_id = :who AND b.ended_at IS NULL)
                  AND NOT EXISTS (SELECT 1 FROM annotations a WHERE a.record_id = w.record_id AND a.task = w.task
                    AND a.reviewer_id = :who)
                  ORDER BY w.shuffle LIMIT 1"""
        params = {"p": project_id, "t": task, "who": reviewer_id, "now": time.time()}
        found: int | None = tx.value(sql, params | {"skip": strictjson.dumps(list(skip))})
        return found

    def ground(self, project_id: int, task: str, order: str) -> Ground:
        """Return what the order SCORE or DISAGREEMENT can go by; few rows are read, however many wait."""
        where, by = _ORDERED[order]
        params = {"p": project_id, "t": task, "most": COUNTED}
        rows = "FROM work w WHERE project_id = :p AND task = :t AND state = 'pending'"
        known = self.db.value(f"SELECT COUNT(*) FROM (SELECT 1 {rows} {where} LIMIT :most)", params)
        most = self.db.value(f"SELECT w.{order} {rows} {where} ORDER BY {by} LIMIT 1", params)
        first = f"SELECT suggestion_id {rows} ORDER BY w.record_id LIMIT :most"
        suggested = self.db.value(f"SELECT COUNT(suggestion_id) FROM ({first})", params)
        pending = min(self.counts(project_id, task)["pending"], COUNTED)
        return Ground(pending, int(known), order != DISAGREEMENT or bool(most), int(suggested))

    def pending(
        self,
        project_id: int,
        task: str,
        record_ids: Sequence[int],
        tx: Tx | None = None,
        reviewer_id: int | None = None,
        only_free: bool = True,
        state: str = PENDING,
        mine: str = "",
    ) -> list[int]:
        """Return those of ``record_ids`` that are pending (or in another ``state``) and free, in the given order.

        With ``reviewer_id`` the records that this reviewer skipped, or has voted on, are left out; with the tag of a
        person, ``mine``, those that are given to others.
        """
        if not record_ids:
            return []
        marks = ",".join(str(int(id_)) for id_ in record_ids)
        sql = f"""SELECT w.record_id FROM work w WHERE w.record_id IN ({marks}) AND w.task = :t
                  AND w.project_id = :p AND w.state = :state {f"AND {_FREE}" if only_free else ""}
                  {f"AND {_THEIRS}" if reviewer_id is not None else ""} {f"AND {_UNGIVEN}" if mine else ""}"""
        params = {"p": project_id, "t": task, "now": time.time(), "who": reviewer_id, "state": state, "mine": mine}
        free = {row["record_id"] for row in (tx or self.db).all(sql, params)}
        return [id_ for id_ in record_ids if id_ in free]

    def all_pending(self, project_id: int, task: str, after: int = 0) -> list[int]:
        """Return the ids of all pending records of a task, or of those after one."""
        sql = """SELECT record_id FROM work WHERE project_id = :p AND task = :t AND state = 'pending'
                 AND record_id > :after"""
        return [row["record_id"] for row in self.db.all(sql, {"p": project_id, "t": task, "after": after})]

    def pending_pages(
        self, project_id: int, task: str, without_suggestion: bool, size: int = 1000
    ) -> Iterator[list[int]]:
        """Yield pages of pending record ids, for runs."""
        where = "AND suggestion_id IS NULL" if without_suggestion else ""
        sql = f"""SELECT record_id AS id FROM work WHERE project_id = :p AND task = :t AND state = 'pending' {where}
                  AND record_id > :after ORDER BY record_id LIMIT :size"""
        for rows in self.db.pages(sql, {"p": project_id, "t": task}, size):
            yield [row["id"] for row in rows]

    # Which records are queued for a task. Whoever adds a record queues it; what was there before is queued later.

    def queued_through(self, project_id: int, task: str) -> tuple[str, int] | None:
        """Return (unit, record id): all records up to that one are queued for the task; None if it was never begun."""
        row = self.db.one("SELECT unit, through FROM queued WHERE project_id = :p AND task = :t",
                          {"p": project_id, "t": task})  # fmt: skip
        return (row["unit"], row["through"]) if row else None

    def requeue(self, tx: Tx, project_id: int, task: str, unit: str) -> int:
        """Begin to queue a task for its unit: records of the other one go, decided ones stay. Return how many.

        :meth:`queue_slice` goes on from here, in this process or, after a kill, in another.
        """
        sql = """INSERT INTO queued (project_id, task, unit, through) VALUES (:p, :t, :unit, 0)
                 ON CONFLICT (project_id, task) DO UPDATE SET unit = excluded.unit, through = 0"""
        tx.run(sql, {"p": project_id, "t": task, "unit": unit})
        where = """project_id = :p AND task = :t AND state IN ('pending', 'disputed') AND annotation_id IS NULL
                   AND EXISTS (SELECT 1 FROM records r WHERE r.id = work.record_id AND r.kind = :kind)"""
        params = {"p": project_id, "t": task, "kind": REVIEW if kind_of(unit) == GROUP else GROUP}
        if params["kind"] == GROUP:
            # If a product comes back its text may be another: no version of it is ever given twice.
            tx.run(
                f"""UPDATE records SET version = 1 + (SELECT MAX(w.version) FROM work w WHERE w.record_id = records.id)
                    WHERE id IN (SELECT record_id FROM work WHERE {where})""",
                params,
            )
        tx.run(
            f"""UPDATE ballots SET ended_at = :now WHERE project_id = :p AND task = :t AND {OPEN}
                AND record_id IN (SELECT record_id FROM work WHERE {where})""",
            params | {"now": time.time()},
        )
        return tx.run(f"DELETE FROM work WHERE {where}", params)

    def newest_record(self) -> int:
        return int(self.db.value("SELECT MAX(id) FROM records") or 0)

    def queue_slice(
        self, project_id: int, task: str, unit: str, after: int, newest: int, limit: int = 5000
    ) -> tuple[list[int], int]:
        """Return the records after ``after`` that are missing in the queue of a task, and how far was looked.

        What a model wrote for another task is none of them. At most ``limit``; it looks no further than ``newest``.
        :meth:`queue_through` stores both.
        """
        sql = """SELECT r.id FROM records r WHERE r.id > :after AND r.id <= :newest AND r.project_id = :p
                 AND r.kind = :kind AND r.duplicate_of IS NULL
                 AND NOT EXISTS (SELECT 1 FROM work w WHERE w.record_id = r.id AND w.task = :t)
                 AND NOT EXISTS (SELECT 1 FROM written v JOIN writings g ON g.run_id = v.run_id
                   AND g.record_id = v.after_id WHERE v.record_id = r.id AND g.task <> :t)
                 ORDER BY r.id LIMIT :limit"""
        params = {"p": project_id, "t": task, "kind": kind_of(unit), "limit": limit}
        ids = [row["id"] for row in self.db.all(sql, params | {"after": after, "newest": newest})]
        return ids, ids[-1] if len(ids) == limit else newest

    def queue_through(self, tx: Tx, project_id: int, task: str, unit: str, ids: list[int], through: int) -> bool:
        """Queue a slice and note how far all is queued; False, and nothing done, if the unit was changed meanwhile."""
        sql = """UPDATE queued SET through = MAX(through, :through)
                 WHERE project_id = :p AND task = :t AND unit = :unit"""
        if not tx.run(sql, {"p": project_id, "t": task, "unit": unit, "through": through}):
            return False
        enqueue(tx, project_id, ids, [task])
        return True

    # Claims

    def claim(
        self,
        tx: Tx,
        project_id: int,
        record_id: int,
        task: str,
        reviewer_id: int,
        token: str,
        lease: float,
        served: str = "",
    ) -> None:
        """Give a record to a reviewer's page for ``lease`` seconds; the caller has checked that nobody else holds it.

        ``token`` is the page's own: a page knows its records by it, and two pages of one person share none. ``served``
        is the order that brought the record; a page that opens its own again keeps it.
        """
        sql = """INSERT INTO claims (record_id, task, project_id, reviewer_id, token, until, lease, served)
                 VALUES (:r, :t, :p, :who, :token, :until, :lease, :served) ON CONFLICT (record_id, task) DO UPDATE SET
                 served = CASE WHEN claims.token = excluded.token AND excluded.served = '' THEN claims.served
                   ELSE excluded.served END,
                 reviewer_id = excluded.reviewer_id, token = excluded.token, until = excluded.until,
                 lease = excluded.lease, touched = 0"""
        params = {"r": record_id, "t": task, "p": project_id, "who": reviewer_id, "token": token, "lease": lease}
        tx.run(sql, params | {"until": time.time() + lease, "served": served})

    def served(self, tx: Tx | None, record_id: int, task: str, reviewer_id: int) -> str:
        """Return the order that brought a record to a reviewer; empty if it was opened by its number."""
        sql = "SELECT served FROM claims WHERE record_id = :r AND task = :t AND reviewer_id = :who"
        return str((tx or self.db).value(sql, {"r": record_id, "t": task, "who": reviewer_id}) or "")

    def anybody(self, tx: Tx) -> bool:
        """Whether somebody labels now, in any project: a record lies open on a desk."""
        return tx.value(f"SELECT 1 FROM claims c WHERE {_LIVE} LIMIT 1", {"now": time.time()}) is not None

    def holder(self, tx: Tx | None, record_id: int, task: str) -> Row | None:
        """Return the live claim of a record with its reviewer's name, or None."""
        sql = f"""SELECT c.*, r.name FROM claims c JOIN reviewers r ON r.id = c.reviewer_id
                  WHERE c.record_id = :r AND c.task = :t AND {_LIVE}"""
        return (tx or self.db).one(sql, {"r": record_id, "t": task, "now": time.time()})

    def held_by(
        self, tx: Tx, project_id: int, task: str, reviewer_id: int, token: str, state: str = PENDING
    ) -> list[int]:
        """Return the pending records (or of another ``state``) that one page of a reviewer holds, first claimed first.

        What the reviewer has voted on is none of them.
        """
        sql = f"""SELECT c.record_id FROM claims c JOIN work w ON w.record_id = c.record_id AND w.task = c.task
                  WHERE c.reviewer_id = :who AND c.project_id = :p AND c.task = :t AND c.token = :token
                  AND w.state = :state AND (w.state = 'disputed' OR {_UNVOTED}) AND {_LIVE}
                  ORDER BY c.until, c.record_id"""
        params = {"who": reviewer_id, "p": project_id, "t": task, "token": token, "now": time.time(), "state": state}
        return [row["record_id"] for row in tx.all(sql, params)]

    def touch(self, tx: Tx, record_id: int, task: str) -> float:
        """Mark a held record as worked on; its claim starts anew, for as long as it was given. Return those seconds."""
        sql = """UPDATE claims SET touched = 1, until = :now + lease WHERE record_id = :r AND task = :t
                 RETURNING lease"""
        return float(tx.value(sql, {"r": record_id, "t": task, "now": time.time()}))

    def is_in(self, tx: Tx, record_id: int, project_id: int, task: str) -> bool:
        """Whether a record is in the queue of a project's task."""
        row = self.get(record_id, task, tx)
        return row is not None and row["project_id"] == project_id

    def release(self, tx: Tx, record_id: int, task: str, reviewer_id: int | None = None, token: str = "") -> None:
        """End the claim on a record: whoever's, or only that of a reviewer, or only that of a reviewer's page."""
        mine = "AND reviewer_id = :who" if reviewer_id is not None else ""
        sql = f"DELETE FROM claims WHERE record_id = :r AND task = :t {mine} {'AND token = :token' if token else ''}"
        tx.run(sql, {"r": record_id, "t": task, "who": reviewer_id, "token": token})

    def release_all(self, tx: Tx, reviewer_id: int, project_id: int | None = None, task: str | None = None) -> None:
        """End all claims of a reviewer: in one task, in a project, or everywhere."""
        sql = f"""DELETE FROM claims WHERE reviewer_id = :who {"AND project_id = :p" if project_id is not None else ""}
                  {"AND task = :t" if task is not None else ""}"""
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

    def pointing(self, tx: Tx, task: str, record_ids: Sequence[int]) -> dict[int, int | None]:
        """Return the decision in force of records that are in the queue, None for a pending one."""
        sql = """SELECT record_id, annotation_id FROM work WHERE task = :t
                 AND record_id IN (SELECT value FROM json_each(:ids))"""
        rows = tx.all(sql, {"t": task, "ids": strictjson.dumps(list(record_ids))})
        return {row["record_id"]: row["annotation_id"] for row in rows}

    def approved(self, tx: Tx, task: str, decided: Sequence[tuple[int, int]]) -> None:
        """Set records to approved by their annotations: (record, annotation)."""
        tx.run(
            """UPDATE work SET state = 'approved', annotation_id = d.annotation, version = version + 1
               FROM (SELECT json_extract(value, '$[0]') AS record, json_extract(value, '$[1]') AS annotation
                     FROM json_each(:rows)) AS d WHERE work.record_id = d.record AND work.task = :t""",
            {"t": task, "rows": strictjson.dumps(decided)},
        )

    def suggested(
        self,
        tx: Tx,
        record_id: int,
        task: str,
        suggestion_id: int,
        score: float | None,
        disagreement: float | None,
        text_hash: str = "",
    ) -> bool:
        """Point a pending row at its newest suggestion; a decided row, or a draft a person touched, is left alone.

        So is a record whose text has changed since ``text_hash``, from which the suggestion was made. The row says
        which backend gave the score: the order by score compares none with another backend's.
        """
        sql = f"""UPDATE work AS w SET suggestion_id = :s, score = :score, disagreement = :d,
                  scored_by = (SELECT backend FROM suggestions WHERE id = :s)
                  WHERE record_id = :r AND task = :t AND state = 'pending' AND {UNTOUCHED}
                  AND EXISTS (SELECT 1 FROM records r WHERE r.id = w.record_id AND :hash IN ('', r.content_hash))"""
        params = {"s": suggestion_id, "score": score, "d": disagreement, "r": record_id, "t": task}
        return tx.run(sql, params | {"now": time.time(), "hash": text_hash}) > 0

    def pending_among(self, project_id: int, task: str, record_ids: Sequence[int], tx: Tx | None = None) -> set[int]:
        """Return those of ``record_ids`` that are pending for a task."""
        marks = ",".join(str(int(id_)) for id_ in record_ids) or "NULL"
        sql = f"""SELECT record_id FROM work WHERE record_id IN ({marks}) AND task = :t AND project_id = :p
                  AND state = 'pending'"""
        return {row["record_id"] for row in (tx or self.db).all(sql, {"t": task, "p": project_id})}

    # What must be true of the queue, for the doctor

    def faults(self, limit: int = 100) -> list[str]:
        """Return sentences on rows of the queue that the annotations, accounts and records do not bear out.

        At most ``limit`` of each kind; :meth:`repair` mends them.
        """
        rows = self.db.all(
            f"""SELECT w.record_id, w.task, w.state, {_RIGHT} AS right, a.id {_UNTRUE}
                ORDER BY w.record_id, w.task LIMIT :limit""", {"limit": limit}
        )  # fmt: skip
        found = [
            f"Record {row['record_id']}, {row['task']}: the queue says {row['state']}, but it is {row['right']}"
            + (f" by annotation {row['id']}" if row["id"] else "")
            for row in rows
        ]
        found += [
            f"Record {row['record_id']}, {row['task']}: annotation {row['id']} stands, but no row of the queue"
            for row in self.db.all(f"SELECT a.id, a.record_id, a.task {_UNQUEUED} LIMIT :limit", {"limit": limit})
        ]
        found += [
            f"Record {row['record_id']}, {row['task']}: it is held by nobody who could decide on it"
            for row in self.db.all(f"SELECT record_id, task {_NOBODYS} LIMIT :limit", {"limit": limit})
        ]
        return found + [
            f"Record {row['record_id']}, {row['task']}: annotation {row['id']} stands beside a newer one"
            for row in self.db.all(f"SELECT a.id, a.record_id, a.task {_OUTDATED} LIMIT :limit", {"limit": limit})
        ]

    def repair(self, tx: Tx) -> int:
        """Make the queue what the annotations say, and end claims of nobody; return how many rows were changed.

        A repaired row gets a new version: whoever has it open looks again before a decision of theirs counts.
        """
        older = tx.run(
            f"""UPDATE annotations SET superseded_by = (SELECT MAX(b.id) FROM annotations b
                WHERE b.record_id = annotations.record_id AND b.task = annotations.task AND b.superseded_by IS NULL
                AND b.state <> 'withdrawn') WHERE id IN (SELECT a.id {_OUTDATED})"""
        )
        for row in tx.all(f"SELECT a.project_id, a.record_id, a.task {_UNQUEUED}"):
            enqueue(tx, row["project_id"], [row["record_id"]], [row["task"]])
        wrong = tx.all(f"SELECT w.record_id, w.task, {_RIGHT} AS state, a.id {_UNTRUE}")
        for row in wrong:
            self.decided(tx, row["record_id"], row["task"], row["state"], row["id"])
        return older + len(wrong) + tx.run(f"DELETE {_NOBODYS}")
