"""Suggestions: what backends proposed, with their evidence. Kept for good; the queue points at the newest."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from labeler import strictjson
from labeler.records import Evidence, ParseFailure, SecondOpinion, Step, Suggestion
from labeler.store.database import Database, Row, Tx
from labeler.store.records import kind_of


class Suggestions:
    def __init__(self, db: Database) -> None:
        self.db = db

    def add(self, tx: Tx, project_id: int, suggestion: Suggestion) -> int:
        sql = """INSERT INTO suggestions (project_id, record_id, task, task_version, run_id, call_id, backend, model_id,
                 value, failure, score, note, second, flags, scores, steps, way, evidence, created_at)
                 VALUES (:project_id, :record_id, :task, :task_version, :run_id, :call_id, :backend, :model_id, :value,
                 :failure, :score, :note, :second, :flags, :scores, :steps, :way, :evidence, :now) RETURNING id"""
        s = suggestion
        params: dict[str, Any] = {
            "project_id": project_id, "record_id": s.record_id, "task": s.task, "task_version": s.task_version,
            "run_id": s.run_id, "call_id": s.call_id, "backend": s.backend, "model_id": s.model_id,
            "value": None if s.failure else strictjson.dumps(s.value),
            "failure": strictjson.dumps([s.failure.kind, s.failure.message, s.failure.raw]) if s.failure else None,
            "score": s.score, "note": s.note,
            "second": strictjson.dumps([s.second.backend, s.second.value, s.second.score]) if s.second else None,
            "flags": strictjson.dumps(list(s.flags)),
            "scores": strictjson.dumps(_rounded(s.scores)) if s.scores else None,
            "steps": strictjson.dumps([[step.name, step.text] for step in s.steps]) if s.steps else None,
            "way": s.way or None,
            "evidence": strictjson.dumps([[e.annotation_id, e.record_id, round(e.similarity, 6)] for e in s.evidence]),
            "now": time.time(),
        }  # fmt: skip
        return int(tx.value(sql, params))

    def get(self, suggestion_id: int, tx: Tx | None = None) -> Suggestion | None:
        row = (tx or self.db).one("SELECT * FROM suggestions WHERE id = :id", {"id": suggestion_id})
        return as_suggestion(row) if row else None

    def of_record(self, record_id: int, task: str) -> list[Suggestion]:
        """Return all suggestions ever made for a record, newest first."""
        sql = "SELECT * FROM suggestions WHERE record_id = :r AND task = :t ORDER BY id DESC"
        return [as_suggestion(row) for row in self.db.all(sql, {"r": record_id, "t": task})]

    def notes_of_run(self, run_id: int) -> list[Row]:
        """Return how the suggestions of a run were made: ``note`` and ``n``, most frequent first.

        It walks the run's items: a page asks once the run has ended, not every second.
        """
        sql = """SELECT COALESCE(s.note, '') AS note, COUNT(*) AS n
                 FROM run_items i JOIN runs r ON r.id = i.run_id
                 JOIN suggestions s ON s.record_id = i.record_id AND s.task = r.task AND s.run_id = i.run_id
                 WHERE i.run_id = :id GROUP BY 1 ORDER BY n DESC, 1"""
        return self.db.all(sql, {"id": run_id})

    def newest_pages(self, project_id: int, task: str, size: int = 500, unit: str | None = None) -> Iterator[list[Row]]:
        """Yield the newest suggestion of each record of a task, with key and text, in pages by suggestion id.

        With ``unit`` only those of records that a task of this unit labels.
        """
        sql = """SELECT s.*, r.key, r.text FROM suggestions s JOIN records r ON r.id = s.record_id
                 WHERE s.project_id = :p AND s.task = :t AND s.id > :after
                 AND s.id = (SELECT MAX(x.id) FROM suggestions x WHERE x.record_id = s.record_id AND x.task = s.task)
                 AND (:kind IS NULL OR r.kind = :kind) ORDER BY s.id LIMIT :size"""
        kind = None if unit is None else kind_of(unit)
        yield from self.db.pages(sql, {"p": project_id, "t": task, "kind": kind}, size)


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    """Return scores with six significant digits: small ones keep theirs, since a calibration reads their logarithm."""
    return {name: float(f"{score:.6g}") for name, score in scores.items()}


def as_suggestion(row: Row) -> Suggestion:
    second = strictjson.loads(row["second"]) if row["second"] else None
    failure = strictjson.loads(row["failure"]) if row["failure"] else None
    return Suggestion(
        id=row["id"], record_id=row["record_id"], task=row["task"], task_version=row["task_version"],
        backend=row["backend"], model_id=row["model_id"],
        value=strictjson.loads(row["value"]) if row["value"] is not None else None,
        failure=ParseFailure(*failure) if failure else None, score=row["score"], note=row["note"],
        evidence=tuple(Evidence(*item) for item in strictjson.loads(row["evidence"])),
        second=SecondOpinion(*second) if second else None, flags=tuple(strictjson.loads(row["flags"])),
        scores=strictjson.loads(row["scores"]) if row["scores"] else None,
        steps=tuple(Step(*step) for step in strictjson.loads(row["steps"])) if row["steps"] else (),
        way=row["way"] or "", run_id=row["run_id"], call_id=row["call_id"], created_at=row["created_at"],
    )  # fmt: skip
