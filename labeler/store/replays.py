"""Replays: approvals that are predicted again as it stood before them, by several settings, and what was said.

A replay may judge drafts of guidelines that a model is asked for first, in a run of its own: it is walked through once
that run has finished.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeler import strictjson
from labeler.errors import NotFound
from labeler.records import ParseFailure
from labeler.store.database import Database, Row, Tx
from labeler.store.ledger_runs import FINISHED
from labeler.store.records import REAL, kind_of
from labeler.store.suggestions import failure_column, failure_in

WAITING, WALKED = "waiting", "walked"
"""A replay waits until somebody has walked through its approvals; the runs of its models come after that."""
_LEASE = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """What one arm of a replay said of one record: a value, or why there is none."""

    record_id: int
    value: Any = None
    failure: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft of guidelines: asked for with the approvals ``shown``, as an answer on one record among them.

    It has ``guidelines``, or a ``failure`` that says why there are none, or neither as long as no answer came.
    """

    number: int
    record_id: int
    shown: Sequence[int]
    guidelines: str | None = None
    failure: ParseFailure | None = None


class Replays:
    def __init__(self, db: Database) -> None:
        self.db = db

    def create(
        self, tx: Tx, project_id: int, task: str, task_version: str, arms: Sequence[Mapping[str, Any]],
        items: Sequence[tuple[int, int, int]], budget: float | None, reviewer_id: int | None,
        held_out: str | None = None,
    ) -> int:  # fmt: skip
        """Store a replay of ``arms`` (settings) over ``items``: (record, its approval, the last decision before it).

        ``held_out`` names the test set that they are, if they are one.
        """
        sql = """INSERT INTO replays (project_id, task, task_version, state, budget, reviewer_id, created_at, held_out)
                 VALUES (:p, :t, :version, :state, :budget, :who, :now, :held_out) RETURNING id"""
        params = {"p": project_id, "t": task, "version": task_version, "state": WAITING, "budget": budget}
        id_ = int(tx.value(sql, params | {"who": reviewer_id, "now": time.time(), "held_out": held_out}))
        rows = [(id_, n, strictjson.dumps(dict(settings))) for n, settings in enumerate(arms)]
        tx.insert("replay_arms", "replay_id, arm, settings", rows)
        tx.insert("replay_items", "replay_id, record_id, annotation_id, seq", [(id_, *item) for item in items])
        return id_

    def get(self, replay_id: int) -> dict[str, Any]:
        """Return a replay with its settings. Raises :class:`NotFound`."""
        row = self.db.one("SELECT * FROM replays WHERE id = :id", {"id": replay_id})
        if row is None:
            raise NotFound("There is no replay number %(number)s", number=replay_id)
        return dict(row)

    def of_task(self, project_id: int, task: str, limit: int = 20, every: bool = True) -> list[Row]:
        """Return the newest replays of a task, with how many records and arms each has.

        Without ``every`` only those that compare settings over time: neither drafts, nor on a test set.
        """
        sql = """SELECT r.*, p.name AS reviewer,
                 (SELECT COUNT(*) FROM replay_items i WHERE i.replay_id = r.id) AS items,
                 (SELECT COUNT(*) FROM replay_arms a WHERE a.replay_id = r.id) AS arms
                 FROM replays r LEFT JOIN reviewers p ON p.id = r.reviewer_id
                 WHERE r.project_id = :p AND r.task = :t AND (:every OR (r.drafts_run IS NULL AND r.held_out IS NULL))
                 ORDER BY r.id DESC LIMIT :limit"""
        return self.db.all(sql, {"p": project_id, "t": task, "limit": limit, "every": every})

    def arms(self, replay_id: int) -> list[dict[str, Any]]:
        """Return ``settings`` and ``run_id`` of each arm, the one that is compared with first.

        ``seconds`` is what one that asks no model took to answer; None of others, and before the walk.
        """
        sql = "SELECT arm, settings, run_id, seconds FROM replay_arms WHERE replay_id = :id ORDER BY arm"
        rows = self.db.all(sql, {"id": replay_id})
        return [dict(row) | {"settings": strictjson.loads(row["settings"])} for row in rows]

    def items(self, replay_id: int) -> list[Row]:
        """Return the records of a replay in the order they were first decided on, with what is approved now.

        ``known`` is how many examples there were before; None until the replay was walked through.
        """
        sql = """SELECT i.record_id, i.annotation_id, i.seq, i.known, a.value, a.task_version, a.blind, a.how, r.text,
                 r.key FROM replay_items i JOIN annotations a ON a.id = i.annotation_id
                 JOIN records r ON r.id = i.record_id WHERE i.replay_id = :id ORDER BY i.seq, i.record_id"""
        return self.db.all(sql, {"id": replay_id})

    def said(self, replay_id: int, arm: int) -> dict[int, Said]:
        """Return what an arm said, by record."""
        sql = "SELECT record_id, value, failure, score FROM replayed WHERE replay_id = :id AND arm = :arm"
        return {
            row["record_id"]: Said(
                row["record_id"], None if row["value"] is None else strictjson.loads(row["value"]), row["failure"],
                row["score"],
            )
            for row in self.db.all(sql, {"id": replay_id, "arm": arm})
        }  # fmt: skip

    def last_curve(self, project_id: int, task: str) -> Row | None:
        """Return ``id`` and ``created_at`` of the newest replay over time whose first arm has ended, with its
        ``settings``."""
        sql = f"""SELECT r.id, r.created_at, a.settings FROM replays r
                  JOIN replay_arms a ON a.replay_id = r.id AND a.arm = 0 LEFT JOIN runs u ON u.id = a.run_id
                  WHERE r.project_id = :p AND r.task = :t AND r.state = '{WALKED}' AND r.drafts_run IS NULL
                  AND r.held_out IS NULL AND (a.run_id IS NULL OR u.state = '{FINISHED}')
                  ORDER BY r.id DESC LIMIT 1"""
        return self.db.one(sql, {"p": project_id, "t": task})

    def newest_items(self, replay_id: int, most: int) -> list[Row]:
        """Return the ``most`` newest records of a replay, oldest first, with ``said`` of its first arm (as JSON)."""
        sql = """SELECT i.known, a.value, a.task_version, r.text, d.value AS said FROM (
                   SELECT * FROM replay_items WHERE replay_id = :id ORDER BY seq DESC, record_id DESC LIMIT :most
                 ) AS i JOIN annotations a ON a.id = i.annotation_id JOIN records r ON r.id = i.record_id
                 LEFT JOIN replayed d ON d.replay_id = i.replay_id AND d.arm = 0 AND d.record_id = i.record_id
                 ORDER BY i.seq, i.record_id"""
        return self.db.all(sql, {"id": replay_id, "most": most})

    # The walk: by one process at a time, from the beginning where that of another came to no end

    def waiting(self) -> list[int]:
        """Return the replays that wait, whose drafts are there, and that nobody is walking through."""
        sql = f"SELECT id FROM replays WHERE message IS NULL AND {_FREE} ORDER BY id"
        return [row["id"] for row in self.db.all(sql, _now())]

    def claim(self, tx: Tx, replay_id: int, token: str) -> bool:
        """Take a replay that waits, for a minute; False if another is walking through it."""
        sql = f"""UPDATE replays SET token = :token, until = :now + {_LEASE}, message = NULL
                  WHERE id = :id AND {_FREE}"""
        return tx.run(sql, {"id": replay_id, "token": token} | _now()) > 0

    def keep(self, tx: Tx, replay_id: int, token: str) -> bool:
        """Renew the claim on a replay; False if it was lost."""
        sql = f"UPDATE replays SET until = :now + {_LEASE} WHERE id = :id AND token = :token AND state = '{WAITING}'"
        return tx.run(sql, {"id": replay_id, "token": token, "now": time.time()}) > 0

    def let_go(self, tx: Tx, replay_id: int, token: str, message: str | None = None) -> None:
        """Give a claim back; with a ``message`` nobody takes it up again by himself."""
        sql = "UPDATE replays SET token = NULL, until = 0, message = :message WHERE id = :id AND token = :token"
        tx.run(sql, {"id": replay_id, "token": token, "message": message})

    def known(self, tx: Tx, replay_id: int, known: Sequence[tuple[int, int]]) -> None:
        """Note how many examples there were before records: (record, how many)."""
        sql = "UPDATE replay_items SET known = ? WHERE replay_id = ? AND record_id = ?"
        tx.many(sql, [(n, replay_id, record_id) for record_id, n in known])

    def say(self, tx: Tx, replay_id: int, arm: int, said: Sequence[Said]) -> None:
        """Store what an arm said, in place of what it may have said before."""
        sql = """INSERT INTO replayed (replay_id, arm, record_id, value, failure, score)
                 SELECT ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM records WHERE id = ?)
                 ON CONFLICT (replay_id, arm, record_id) DO UPDATE SET value = excluded.value,
                 failure = excluded.failure, score = excluded.score"""
        rows = [
            (one.record_id, None if one.value is None else strictjson.dumps(one.value), one.failure, one.score)
            for one in said
        ]
        tx.many(sql, [(replay_id, arm, *row, row[0]) for row in rows])

    def walked(
        self, tx: Tx, replay_id: int, token: str, runs: Mapping[int, int], seconds: Mapping[int, float] | None = None
    ) -> bool:
        """Say that a replay was walked through; False if the claim was lost.

        ``runs`` make what an arm says, ``seconds`` were taken by one that has said it.
        """
        sql = f"UPDATE replays SET state = '{WALKED}', token = NULL WHERE id = :id AND token = :token"
        if not tx.run(sql, {"id": replay_id, "token": token}):
            return False
        sql = "UPDATE replay_arms SET run_id = ? WHERE replay_id = ? AND arm = ?"
        tx.many(sql, [(run_id, replay_id, arm) for arm, run_id in runs.items()])
        sql = "UPDATE replay_arms SET seconds = ? WHERE replay_id = ? AND arm = ?"
        tx.many(sql, [(taken, replay_id, arm) for arm, taken in (seconds or {}).items()])
        return True

    def use(self, tx: Tx, replay_id: int, arm: int, reviewer_id: int | None) -> None:
        """Note that a task was set to what an arm has, when and by whom."""
        sql = "UPDATE replays SET used_arm = :arm, used_at = :now, used_by = :who WHERE id = :id"
        tx.run(sql, {"arm": arm, "now": time.time(), "who": reviewer_id, "id": replay_id})

    # Drafts of guidelines: asked for before the walk, each judged by an arm of its own

    def ask_drafts(self, tx: Tx, replay_id: int, run_id: int, guidelines: str, drafts: Sequence[Draft]) -> None:
        """Let a replay wait for the drafts of a run, whose items are their records; ``guidelines`` are to be edited."""
        sql = "UPDATE replays SET drafts_run = :run, guidelines = :guidelines WHERE id = :id"
        tx.run(sql, {"run": run_id, "guidelines": guidelines, "id": replay_id})
        rows = [(replay_id, one.number, one.record_id, strictjson.dumps(list(one.shown))) for one in drafts]
        tx.insert("replay_drafts", "replay_id, draft, record_id, shown", rows)

    def drafted(self, tx: Tx, replay_id: int, record_id: int, said: str | ParseFailure) -> None:
        """Store what came of the draft that was asked for on a record."""
        failed = isinstance(said, ParseFailure)
        sql = """UPDATE replay_drafts SET guidelines = :guidelines, failure = :failure
                 WHERE replay_id = :id AND record_id = :record"""
        failure = failure_column(said) if isinstance(said, ParseFailure) else None
        params = {"guidelines": None if failed else said, "failure": failure, "id": replay_id, "record": record_id}
        tx.run(sql, params)

    def drafts(self, replay_id: int) -> list[Draft]:
        """Return the drafts of a replay by number; none of one that compares settings."""
        sql = "SELECT * FROM replay_drafts WHERE replay_id = :id ORDER BY draft"
        return [
            Draft(
                row["draft"], row["record_id"], strictjson.loads(row["shown"]), row["guidelines"],
                failure_in(row["failure"]),
            )
            for row in self.db.all(sql, {"id": replay_id})
        ]  # fmt: skip

    def add_arms(self, tx: Tx, replay_id: int, arms: Sequence[Mapping[str, Any]]) -> None:
        """Add arms behind the first, where they are not there yet: a walk may begin again."""
        sql = "INSERT INTO replay_arms (replay_id, arm, settings) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        tx.many(sql, [(replay_id, n, strictjson.dumps(dict(settings))) for n, settings in enumerate(arms, 1)])

    def judged(self, replay: Mapping[str, Any]) -> int:
        """Return how many drafts were judged against the guidelines of a replay: by it, and by those before it."""
        sql = """SELECT COUNT(*) FROM replay_arms a JOIN replays r ON r.id = a.replay_id
                 WHERE r.project_id = :p AND r.task = :t AND r.task_version = :version AND r.drafts_run IS NOT NULL
                 AND a.arm > 0 AND r.id <= :id"""
        params = {"p": replay["project_id"], "t": replay["task"], "version": replay["task_version"]}
        return int(self.db.value(sql, params | {"id": replay["id"]}))

    def corrections(self, project_id: int, task: str, unit: str, limit: int) -> list[Row]:
        """Return the newest approvals in force that are not what a model had suggested, with what it was.

        Of records that a task of this ``unit`` labels; ``cluster`` and ``content_hash`` as for :meth:`log`.
        """
        sql = f"""{_CORRECTIONS} WHERE a.project_id = :p AND a.task = :t AND r.kind = :kind AND a.state = 'approved'
                  AND {REAL}
                  AND a.superseded_by IS NULL AND s.billed = 1 AND s.value <> a.value ORDER BY a.id DESC LIMIT :limit"""
        return self.db.all(sql, {"p": project_id, "t": task, "kind": kind_of(unit), "limit": limit})

    def corrected(self, annotation_ids: Sequence[int]) -> dict[int, Row]:
        """Return what :meth:`corrections` says of some of them, by annotation."""
        marks = ",".join(str(int(id_)) for id_ in annotation_ids) or "NULL"
        return {row["id"]: row for row in self.db.all(f"{_CORRECTIONS} WHERE a.id IN ({marks})")}

    # What there is to replay

    def log(self, project_id: int, task: str, unit: str) -> Iterator[Row]:
        """Yield all decisions on records that a task of this ``unit`` labels, oldest first; no model wrote the records.

        ``approved`` is 1 for one in force that approves; near-duplicates share ``cluster``, copies ``content_hash``.
        """
        sql = f"""SELECT a.id, a.record_id, r.cluster, r.content_hash,
                 a.state = 'approved' AND a.superseded_by IS NULL AS approved
                 FROM annotations a JOIN records r ON r.id = a.record_id
                 WHERE a.project_id = :p AND a.task = :t AND r.kind = :kind AND {REAL} AND a.id > :after
                 ORDER BY a.id LIMIT :size"""
        for page in self.db.pages(sql, {"p": project_id, "t": task, "kind": kind_of(unit)}, 1000):
            yield from page


_FREE = f"""state = '{WAITING}' AND (until <= :now OR until > :latest) AND (drafts_run IS NULL
    OR EXISTS (SELECT 1 FROM runs d WHERE d.id = drafts_run AND d.state = '{FINISHED}'))"""


_CORRECTIONS = """SELECT a.id, a.record_id, a.value, a.task_version, s.value AS suggested,
    s.task_version AS suggested_version, r.text, r.key, r.cluster, r.content_hash
    FROM annotations a JOIN suggestions s ON s.id = a.suggestion_id JOIN records r ON r.id = a.record_id"""


def _now() -> dict[str, float]:
    now = time.time()
    return {"now": now, "latest": now + 2 * _LEASE}
