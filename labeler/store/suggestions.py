"""Suggestions: what backends proposed, with their evidence. Kept for good; the queue points at the newest."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeler import strictjson
from labeler.records import Evidence, ParseFailure, SecondOpinion, Step, Suggestion, made_column, made_in
from labeler.sentence import recalled, stored
from labeler.store.counts import NOTES, Counts
from labeler.store.database import Database, Row, Tx
from labeler.store.records import kind_of
from labeler.store.work import UNTOUCHED


@dataclass(frozen=True, slots=True)
class Kind:
    """What suggestions of one kind have in common, as far as rows tell (:mod:`labeler.prelabel.current` has the rule).

    ``backend``, ``model_id`` and ``prompt_digest`` (the column ``way``) tell paid ones that were made before kinds were
    written down. With ``seq`` only those count that were made by ``fit``, after which nothing was decided.
    """

    digest: str
    task_version: str
    backend: str = ""
    model_id: str | None = None
    prompt_digest: str = ""
    fit: str = ""
    seq: int | None = None


class Suggestions:
    def __init__(self, db: Database) -> None:
        self.db = db

    def add(self, tx: Tx, project_id: int, suggestion: Suggestion) -> int:
        sql = """INSERT INTO suggestions (project_id, record_id, task, task_version, run_id, call_id, backend, model_id,
                 value, failure, score, note, second, flags, scores, steps, way, kind, fit, seq, text_hash,
                 billed, columns, evidence, created_at)
                 VALUES (:project_id, :record_id, :task, :task_version, :run_id, :call_id, :backend, :model_id, :value,
                 :failure, :score, :note, :second, :flags, :scores, :steps, :way, :kind, :fit, :seq, :text_hash,
                 :billed, :columns, :evidence, :now) RETURNING id"""
        s = suggestion
        params: dict[str, Any] = {
            "project_id": project_id, "record_id": s.record_id, "task": s.task, "task_version": s.task_version,
            "run_id": s.run_id, "call_id": s.call_id, "backend": s.backend, "model_id": s.model_id,
            "value": None if s.failure else strictjson.dumps(s.value),
            "failure": failure_column(s.failure) if s.failure else None,
            "score": s.score, "note": made_column(s.made),
            "second": strictjson.dumps([s.second.backend, s.second.value, s.second.score]) if s.second else None,
            "flags": strictjson.dumps(list(s.flags)),
            "scores": strictjson.dumps(_rounded(s.scores)) if s.scores else None,
            "steps": strictjson.dumps([[step.name, step.text] for step in s.steps]) if s.steps else None,
            "way": s.prompt_digest or None, "kind": s.kind or None, "fit": s.fit or None, "seq": s.seq,
            "text_hash": s.text_hash or None, "billed": int(s.billed),
            "columns": strictjson.dumps(list(s.columns)) if s.columns else None,
            "evidence": strictjson.dumps([[e.annotation_id, e.record_id, round(e.similarity, 6)] for e in s.evidence]),
            "now": time.time(),
        }  # fmt: skip
        id_ = int(tx.value(sql, params))
        if params["value"] is not None:
            tx.run(_COMPARABLE, params)
        return id_

    def get(self, suggestion_id: int, tx: Tx | None = None) -> Suggestion | None:
        row = (tx or self.db).one("SELECT * FROM suggestions WHERE id = :id", {"id": suggestion_id})
        return as_suggestion(row) if row else None

    def model_asked(self, suggestion: Suggestion) -> str | None:
        """Return the id by which the model of a paid suggestion was asked for; it may have answered by a longer one."""
        found: str | None = self.db.value("SELECT model_id FROM calls WHERE id = :id", {"id": suggestion.call_id})
        return found

    def newest_billed(self, record_id: int, task: str) -> Suggestion | None:
        """Return the newest paid suggestion for a record and its text of now, whether the queue points at it or not."""
        sql = f"""SELECT s.* FROM suggestions s JOIN records r ON r.id = s.record_id
                  WHERE s.record_id = :r AND s.task = :t AND s.billed = 1 AND {_SAME_TEXT} ORDER BY s.id DESC LIMIT 1"""
        row = self.db.one(sql, {"r": record_id, "t": task})
        return as_suggestion(row) if row else None

    def untouched(self, project_id: int, task: str, record_ids: Sequence[int]) -> list[Suggestion]:
        """Return what the queue points at for those of ``record_ids`` that are pending with no draft of a person."""
        marks = ",".join(str(int(id_)) for id_ in record_ids) or "NULL"
        sql = f"""SELECT s.* FROM work w JOIN suggestions s ON s.id = w.suggestion_id
                  WHERE w.record_id IN ({marks}) AND w.task = :t AND w.project_id = :p AND w.state = 'pending'
                  AND {UNTOUCHED}"""
        place = {id_: n for n, id_ in enumerate(record_ids)}
        rows = self.db.all(sql, {"p": project_id, "t": task, "now": time.time()})
        return [as_suggestion(row) for row in sorted(rows, key=lambda row: place[row["record_id"]])]

    def pending_pages(self, project_id: int, task: str, kind: Kind, size: int = 1000) -> Iterator[list[int]]:
        """Yield pages of pending records that no suggestion of a kind was made for."""
        sql = f"""SELECT w.record_id AS id FROM work w JOIN records r ON r.id = w.record_id
                  WHERE {_PENDING} AND NOT EXISTS (SELECT 1 FROM suggestions s WHERE {_OF_KIND})
                  AND w.record_id > :after ORDER BY w.record_id LIMIT :size"""
        for rows in self.db.pages(sql, _params(project_id, task, kind), size):
            yield [row["id"] for row in rows]

    def count_pending(self, project_id: int, task: str, kind: Kind) -> int:
        """Return for how many pending records a suggestion of a kind was made."""
        sql = f"""SELECT COUNT(*) FROM work w JOIN records r ON r.id = w.record_id
                  WHERE {_PENDING} AND EXISTS (SELECT 1 FROM suggestions s WHERE {_OF_KIND})"""
        return int(self.db.value(sql, _params(project_id, task, kind)))

    def waiting(self, project_id: int, task: str) -> list[Row]:
        """Return the values that pending records are suggested, each once for a version of the task, and how many."""
        sql = f"""SELECT s.value, s.task_version, COUNT(*) AS n FROM work w JOIN suggestions s ON s.id = w.suggestion_id
                  WHERE {_PENDING} AND s.value IS NOT NULL GROUP BY s.value, s.task_version"""
        return self.db.all(sql, {"p": project_id, "t": task})

    def misplaced(self, limit: int = 100) -> list[Row]:
        """Return ``record_id`` and ``task`` of pending records that are pointed at a suggestion that is not theirs now.

        It was made for another record, task or text, or does not exist.
        """
        return self.db.all(f"SELECT w.record_id, w.task {_MISPLACED} LIMIT :limit", {"limit": limit})

    def put_right(self, tx: Tx) -> int:
        """Take away what :meth:`misplaced` finds; return how many there were. It is made anew when it is needed."""
        rows = tx.all(f"SELECT w.record_id, w.task {_MISPLACED}")
        tx.many(
            """UPDATE work SET suggestion_id = NULL, score = NULL, scored_by = NULL, disagreement = NULL
               WHERE record_id = ? AND task = ?""",
            [(row["record_id"], row["task"]) for row in rows],
        )
        return len(rows)

    def of_record(self, record_id: int, task: str) -> list[Suggestion]:
        """Return all suggestions ever made for a record, newest first."""
        sql = "SELECT * FROM suggestions WHERE record_id = :r AND task = :t ORDER BY id DESC"
        return [as_suggestion(row) for row in self.db.all(sql, {"r": record_id, "t": task})]

    def steps(self, annotation_ids: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
        """Return (name, text) of the steps before each suggestion that was accepted as it was, by annotation id."""
        sql = """SELECT a.id, s.steps FROM annotations a JOIN suggestions s ON s.id = a.suggestion_id
                 WHERE a.id IN (SELECT value FROM json_each(:ids)) AND a.how = 'accepted' AND s.steps IS NOT NULL"""
        rows = self.db.all(sql, {"ids": strictjson.dumps(list(annotation_ids))})
        return {row["id"]: [(name, text) for name, text in strictjson.loads(row["steps"])] for row in rows}

    def many(self, suggestion_ids: Sequence[int]) -> dict[int, Suggestion]:
        """Return suggestions by id."""
        sql = "SELECT * FROM suggestions WHERE id IN (SELECT value FROM json_each(:ids))"
        rows = self.db.all(sql, {"ids": strictjson.dumps(list(suggestion_ids))})
        return {row["id"]: as_suggestion(row) for row in rows}

    def decided_on(self, annotation_ids: Sequence[int]) -> dict[int, Suggestion]:
        """Return the suggestions that decisions can be compared with, by annotation.

        That is the one that was shown, or that stood for the record when it was decided blind.
        """
        sql = f"""SELECT a.id AS annotation_id, s.* FROM annotations a JOIN records r ON r.id = a.record_id
                  JOIN suggestions s ON s.id = COALESCE(a.suggestion_id, CASE WHEN a.blind = 1 THEN (
                    SELECT MAX(s.id) FROM suggestions s WHERE s.record_id = a.record_id AND s.task = a.task
                    AND s.created_at <= a.created_at AND {_SAME_TEXT}) END)
                  WHERE a.id IN (SELECT value FROM json_each(:ids))"""
        rows = self.db.all(sql, {"ids": strictjson.dumps(list(annotation_ids))})
        return {row["annotation_id"]: as_suggestion(row) for row in rows}

    def made_in_run(self, run_id: int, task: str) -> list[tuple[tuple[str, ...], int]]:
        """Return how the suggestions of a run for a task were made, and how many, most frequent first."""
        counts = Counts(self.db).of(NOTES, run_id, task)
        return [(made_in(kept), n) for kept, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

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


# People can compare the answers of two kinds that differ, and samples of one; see the room of rankings.
_COMPARABLE = """INSERT INTO comparable (project_id, task, record_id) SELECT :project_id, :task, :record_id
    WHERE :steps LIKE '%"sample 2"%' OR EXISTS (SELECT 1 FROM suggestions s WHERE s.record_id = :record_id
      AND s.task = :task AND s.value <> :value AND COALESCE(s.kind, s.backend) <> COALESCE(:kind, :backend))
    ON CONFLICT DO NOTHING"""
_SAME_TEXT = "COALESCE(s.text_hash, r.content_hash) = r.content_hash"
_MISPLACED = f"""FROM work w JOIN records r ON r.id = w.record_id LEFT JOIN suggestions s ON s.id = w.suggestion_id
    WHERE w.state = 'pending' AND w.suggestion_id IS NOT NULL
    AND (s.id IS NULL OR s.record_id <> w.record_id OR s.task <> w.task OR NOT ({_SAME_TEXT}))"""
_PENDING = "w.project_id = :p AND w.task = :t AND w.state = 'pending'"
_OF_KIND = f"""s.record_id = w.record_id AND s.task = w.task AND s.task_version = :version AND {_SAME_TEXT}
    AND (s.kind = :kind OR (s.kind IS NULL AND s.billed = 1 AND s.backend = :backend AND COALESCE(s.way, '') = :way
      AND COALESCE((SELECT COALESCE(c.model_id, '') FROM calls c WHERE c.id = s.call_id), :model) = :model))
    AND (:seq IS NULL OR (s.seq = :seq AND COALESCE(s.fit, '') = :fit))"""


def _params(project_id: int, task: str, kind: Kind) -> dict[str, Any]:
    return {
        "p": project_id, "t": task, "kind": kind.digest, "version": kind.task_version, "backend": kind.backend,
        "model": kind.model_id or "", "way": kind.prompt_digest, "fit": kind.fit, "seq": kind.seq,
    }  # fmt: skip


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    """Return scores with six significant digits: small ones keep theirs, since a calibration reads their logarithm."""
    return {name: float(f"{score:.6g}") for name, score in scores.items()}


def failure_column(failure: ParseFailure) -> str:
    """Return a failure as a column holds it."""
    return strictjson.dumps([failure.kind, stored(failure.message), failure.raw])


def failure_in(kept: str | None) -> ParseFailure | None:
    """Return the failure that a column holds."""
    if kept is None:
        return None
    kind, message, raw = strictjson.loads(kept)
    return ParseFailure(kind, recalled(message), raw)


def as_suggestion(row: Row) -> Suggestion:
    second = strictjson.loads(row["second"]) if row["second"] else None
    return Suggestion(
        id=row["id"], record_id=row["record_id"], task=row["task"], task_version=row["task_version"],
        backend=row["backend"], model_id=row["model_id"],
        value=strictjson.loads(row["value"]) if row["value"] is not None else None,
        failure=failure_in(row["failure"]), score=row["score"], made=made_in(row["note"]),
        evidence=tuple(Evidence(*item) for item in strictjson.loads(row["evidence"])),
        second=SecondOpinion(*second) if second else None, flags=tuple(strictjson.loads(row["flags"])),
        scores=strictjson.loads(row["scores"]) if row["scores"] else None,
        steps=tuple(Step(*step) for step in strictjson.loads(row["steps"])) if row["steps"] else (),
        prompt_digest=row["way"] or "", kind=row["kind"] or "", fit=row["fit"] or "", seq=row["seq"],
        text_hash=row["text_hash"] or "", billed=bool(row["billed"]),
        columns=tuple(strictjson.loads(row["columns"])) if row["columns"] else (),
        run_id=row["run_id"], call_id=row["call_id"],
        created_at=row["created_at"],
    )  # fmt: skip
