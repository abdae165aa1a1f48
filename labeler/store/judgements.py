"""Judgements: what a model that judges says of two answers to a record, as asked in an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from labeler import strictjson
from labeler.errors import Conflict
from labeler.store.database import Database, Row, Tx

PEOPLE = -1
"""In place of an arm: the pairs that people have decided on."""


class Judgements:
    def __init__(self, db: Database) -> None:
        self.db = db

    def judge(self, replay_id: int) -> dict[str, Any] | None:
        """Return the judge of a replay: ``backend``, ``model_id``, and ``runs`` by arm; None if there is none."""
        raw = self.db.value("SELECT judge FROM replays WHERE id = :id", {"id": replay_id})
        return None if raw is None else dict(strictjson.loads(raw))

    def name(self, tx: Tx, replay_id: int, judge: Mapping[str, Any]) -> dict[str, int]:
        """Note who judges a replay, and return its runs by arm."""
        raw = tx.value("SELECT judge FROM replays WHERE id = :id", {"id": replay_id})
        told = {"runs": {}, **({} if raw is None else strictjson.loads(raw)), **judge}
        tx.run("UPDATE replays SET judge = :judge WHERE id = :id", {"judge": strictjson.dumps(told), "id": replay_id})
        return dict(told["runs"])

    def ask(
        self, tx: Tx, replay_id: int, judge: Mapping[str, Any], arm: int, run_id: int,
        pairs: Iterable[tuple[int, str, str]],
    ) -> None:  # fmt: skip
        """Keep the pairs (record, first, second) that a run judges for an arm. Raises :class:`Conflict` for a second
        run of one."""
        runs = self.name(tx, replay_id, judge)
        if str(arm) in runs:
            raise Conflict("Replay %(number)s is judged already", number=replay_id)
        self.name(tx, replay_id, {**judge, "runs": {**runs, str(arm): run_id}})
        rows = [(replay_id, arm, *pair) for pair in pairs]
        tx.insert("judgements", "replay_id, arm, record_id, first, second", rows)

    def of(self, replay_id: int, arm: int) -> list[Row]:
        """Return the pairs of an arm: ``verdict`` is 1 where the first is better, 0 where the second is, 0.5 for a tie.

        It is None where no answer came, or none that could be read: then there is a ``failure``.
        """
        sql = "SELECT * FROM judgements WHERE replay_id = :id AND arm = :arm ORDER BY record_id"
        return self.db.all(sql, {"id": replay_id, "arm": arm})

    def say(self, tx: Tx, replay_id: int, arm: int, record_id: int, verdict: float | None, failure: str | None) -> None:
        sql = """UPDATE judgements SET verdict = :verdict, failure = :failure
                 WHERE replay_id = :id AND arm = :arm AND record_id = :record"""
        place = {"id": replay_id, "arm": arm, "record": record_id}
        tx.run(sql, {"verdict": verdict, "failure": failure} | place)
