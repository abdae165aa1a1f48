"""Calibrations: how the label scores of one model are corrected in one task, and the pairs that are learned from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from labeler import strictjson
from labeler.store.counts import SCORED, Counts
from labeler.store.database import Database, Row, Tx
from labeler.store.records import REAL, kind_of


class Calibrations:
    """One row per project, task, backend, model id and digest of the prompt (the column ``way``); what is not known of
    them is empty.
    """

    def __init__(self, db: Database) -> None:
        self.db = db

    def pairs(
        self, project_id: int, task: str, backend: str, model_id: str | None, prompt_digest: str = "",
        limit: int = 2000, unit: str | None = None,
    ) -> list[Row]:  # fmt: skip
        """Return what a model's scores said and what was approved, newest approval first.

        One row per record: ``scores`` and ``value`` (both JSON), ``record_id`` and ``cluster`` (near-duplicates share
        it). The scores are those of the newest suggestion with scores by that backend, model and prompt; the value is
        the approval in force. It does not matter which of the two came first: a record is never among its own examples.
        With ``unit`` only records that a task of this unit labels.
        """
        # The subquery walks suggestions_record from its end: one or two rows a record.
        sql = f"""SELECT a.id, a.record_id, a.value, a.task_version, r.cluster, s.scores
                  FROM annotations a JOIN records r ON r.id = a.record_id
                  JOIN suggestions s ON s.id = (
                      SELECT x.id FROM suggestions x WHERE {_SCORED} ORDER BY x.id DESC LIMIT 1)
                  WHERE {_APPROVED} AND {REAL} AND (:kind IS NULL OR r.kind = :kind) ORDER BY a.id DESC LIMIT :limit"""
        kind = None if unit is None else kind_of(unit)
        return self.db.all(
            sql, _place(project_id, task, backend, model_id, prompt_digest) | {"limit": limit, "kind": kind}
        )

    def count_pairs(
        self,
        project_id: int,
        task: str,
        backend: str,
        model_id: str | None,
        prompt_digest: str = "",
        unit: str | None = None,
    ) -> int:
        """Return how many pairs there are, without a limit."""
        sql = f"""SELECT COUNT(*) FROM annotations a JOIN records r ON r.id = a.record_id
                  WHERE {_APPROVED} AND {REAL} AND (:kind IS NULL OR r.kind = :kind)
                  AND EXISTS (SELECT 1 FROM suggestions x WHERE {_SCORED})"""
        kind = None if unit is None else kind_of(unit)
        return int(self.db.value(sql, _place(project_id, task, backend, model_id, prompt_digest) | {"kind": kind}))

    def get(
        self, project_id: int, task: str, backend: str, model_id: str | None, prompt_digest: str = ""
    ) -> dict[str, Any] | None:
        """Return what :meth:`save` stored; None if there is nothing."""
        sql = f"SELECT fitted FROM calibrations WHERE {_HERE}"
        fitted = self.db.value(sql, _place(project_id, task, backend, model_id, prompt_digest))
        return None if fitted is None else dict(strictjson.loads(fitted))

    def save(
        self, tx: Tx, project_id: int, task: str, backend: str, model_id: str | None, fitted: Mapping[str, Any],
        prompt_digest: str = "",
    ) -> None:  # fmt: skip
        """Store a calibration in place of the one before."""
        sql = """INSERT INTO calibrations (project_id, task, backend, model_id, way, fitted, made_at)
                 VALUES (:p, :t, :backend, :model, :way, :fitted, :now)
                 ON CONFLICT (project_id, task, backend, model_id, way)
                 DO UPDATE SET fitted = excluded.fitted, made_at = excluded.made_at"""
        row = {"fitted": strictjson.dumps(dict(fitted)), "now": time.time()}
        tx.run(sql, _place(project_id, task, backend, model_id, prompt_digest) | row)

    def of_task(self, project_id: int, task: str) -> list[dict[str, Any]]:
        """Return the calibrations of a task: ``backend``, ``model_id``, ``prompt_digest``, ``fitted``, ``made_at``."""
        sql = """SELECT backend, model_id, way AS prompt_digest, fitted, made_at FROM calibrations
                 WHERE project_id = :p AND task = :t ORDER BY backend, model_id, made_at"""
        rows = self.db.all(sql, {"p": project_id, "t": task})
        return [dict(row) | {"fitted": strictjson.loads(row["fitted"])} for row in rows]

    def scored_in(self, run_id: int) -> list[dict[str, Any]]:
        """Return ``task``, ``backend``, ``model_id`` and ``prompt_digest`` of what a run suggested with scores."""
        return [
            {"task": task, **dict(zip(("backend", "model_id", "prompt_digest"), strictjson.loads(name), strict=True))}
            for task, names in Counts(self.db).by_task(SCORED, run_id).items()
            for name in names
        ]

    def remove(
        self, tx: Tx, project_id: int, task: str, backend: str, model_id: str | None, prompt_digest: str = ""
    ) -> None:
        """Forget a calibration: nothing that was approved speaks for it any more."""
        tx.run(f"DELETE FROM calibrations WHERE {_HERE}", _place(project_id, task, backend, model_id, prompt_digest))


_APPROVED = "a.project_id = :p AND a.task = :t AND a.state = 'approved' AND a.superseded_by IS NULL"
_SCORED = """x.record_id = a.record_id AND x.task = :t AND x.backend = :backend AND x.scores IS NOT NULL
    AND COALESCE(x.model_id, '') = :model AND COALESCE(x.way, '') = :way"""
_HERE = "project_id = :p AND task = :t AND backend = :backend AND model_id = :model AND way = :way"


def _place(project_id: int, task: str, backend: str, model_id: str | None, prompt_digest: str) -> dict[str, Any]:
    return {"p": project_id, "t": task, "backend": backend, "model": model_id or "", "way": prompt_digest}
