"""Annotations: append-only decisions. A newer one supersedes; nothing is overwritten or deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from labeler import strictjson
from labeler.store.ballots import NAMES, OPEN, SAID
from labeler.store.counts import AGREEMENT, EXACT, HOW, Counts
from labeler.store.database import Database, Row, Tx
from labeler.store.records import OTHER_UNIT, kind_of, unused
from labeler.store.upkeep import note_decision
from labeler.store.work import UNTOUCHED

APPROVED, REJECTED, WITHDRAWN = "approved", "rejected", "withdrawn"
ACCEPTED, CORRECTED, SCRATCH, IMPORTED, BULK = "accepted", "corrected", "scratch", "imported", "bulk"
"""How a decision came about. BULK is one of many made at once: nobody looked at this record for it."""


class Annotations:
    def __init__(self, db: Database) -> None:
        self.db = db

    def add(self, tx: Tx, row: dict[str, Any]) -> int:
        """Append one annotation and mark the one it supersedes; return its id (the sequence number).

        One that an undo brings back is a new row with ``original_id`` and ``created_at`` of the decision that it
        stands for: the log goes on, while people find the decision where and when it was made.
        """
        sql = f"""INSERT INTO annotations (id, project_id, record_id, task, task_version, state, value, how, blind,
                 reviewer_id, seconds, suggestion_id, agreement, supersedes, origin, request_key, original_id,
                 served, reason, created_at)
                 VALUES ({unused("annotations")}, :project_id, :record_id, :task, :task_version, :state, :value, :how,
                 :blind,
                 :reviewer_id, :seconds, :suggestion_id, :agreement, :supersedes, :origin, :request_key, :original_id,
                 :served, :reason, :created_at) RETURNING id"""
        value = None if row.get("value") is None else strictjson.dumps(row["value"])
        defaults = {
            "how": SCRATCH, "blind": 0, "reviewer_id": None, "seconds": None, "suggestion_id": None, "agreement": None,
            "supersedes": None, "origin": None, "request_key": None, "original_id": None,
            "served": "", "reason": None, "created_at": time.time(),
        }  # fmt: skip
        id_ = int(tx.value(sql, {**defaults, **row, "value": value}))
        note_decision(tx, row["project_id"], row["task"], id_)
        if row.get("supersedes"):
            tx.run(
                "UPDATE annotations SET superseded_by = :new WHERE id = :old", {"new": id_, "old": row["supersedes"]}
            )
        if row["state"] == WITHDRAWN:
            # A product kept the text that was labelled; reviews that came since are taken in now.
            tx.run(
                """INSERT INTO stale_products (project_id, grp) SELECT project_id, grp FROM records
                   WHERE id = :r AND kind = 'group' ON CONFLICT DO NOTHING""",
                {"r": row["record_id"]},
            )
        return id_

    def add_many(self, tx: Tx, same: Mapping[str, Any], values: Sequence[tuple[int, Any]]) -> list[int]:
        """Append first decisions on records, (record, value), that have all else the ``same``; return their ids."""
        first, now = int(tx.value(f"SELECT {unused('annotations')}")), time.time()
        ids = list(range(first, first + len(values)))
        columns = ", ".join(("id", "record_id", "value", *same, "blind", "served", "created_at"))
        tx.insert(
            "annotations",
            columns,
            [
                (id_, record_id, strictjson.dumps(value), *same.values(), 0, "", now)
                for id_, (record_id, value) in zip(ids, values, strict=True)
            ],
        )
        note_decision(tx, same["project_id"], same["task"], ids[-1])
        return ids

    def current(self, record_id: int, task: str, tx: Tx | None = None) -> Row | None:
        """Return the annotation in force, with its reviewer's name; None if there is none or it was withdrawn."""
        sql = """SELECT a.*, r.name AS reviewer FROM annotations a LEFT JOIN reviewers r ON r.id = a.reviewer_id
                 WHERE a.record_id = :r AND a.task = :t AND a.superseded_by IS NULL AND a.state <> 'withdrawn'
                 ORDER BY a.id DESC LIMIT 1"""
        return (tx or self.db).one(sql, {"r": record_id, "t": task})

    def by_request(self, tx: Tx, request_key: str) -> Row | None:
        return tx.one("SELECT * FROM annotations WHERE request_key = :k", {"k": request_key})

    def was_told(self, tx: Tx, record_id: int, task: str, reviewer_id: int) -> bool:
        """Whether a person has decided on a record blind, and so was told its suggestion afterwards."""
        where = "record_id = :r AND task = :t AND reviewer_id = :who AND blind = 1 AND suggestion_id IS NOT NULL"
        sql = f"SELECT 1 FROM annotations WHERE {where} UNION ALL SELECT 1 FROM ballots WHERE {where} LIMIT 1"
        return tx.value(sql, {"r": record_id, "t": task, "who": reviewer_id}) is not None

    def get(self, annotation_id: int, tx: Tx | None = None) -> Row | None:
        return (tx or self.db).one("SELECT * FROM annotations WHERE id = :id", {"id": annotation_id})

    def history(self, record_id: int, task: str) -> list[Row]:
        sql = f"""SELECT a.*, COALESCE(r.name, {NAMES}) AS reviewer FROM annotations a
                  LEFT JOIN reviewers r ON r.id = a.reviewer_id
                  WHERE a.record_id = :r AND a.task = :t ORDER BY a.id DESC"""
        return self.db.all(sql, {"r": record_id, "t": task})

    def last_of(self, project_id: int, task: str, reviewer_id: int, limit: int = 10, tx: Tx | None = None) -> list[Row]:
        """Return a reviewer's last decisions still in force, newest first, with the record's text.

        One that was superseded and came back by an undo stands where it was made. One on a record of the other unit,
        made before the task was switched, is left out: taken back, its record would be pending in a queue it is not of.
        """
        sql = f"""SELECT a.*, r.text, r.key FROM annotations a JOIN records r ON r.id = a.record_id
                 WHERE a.reviewer_id = :who AND a.project_id = :p AND a.task = :t AND a.superseded_by IS NULL
                 AND a.state <> 'withdrawn' AND a.how <> 'imported' AND a.how <> 'bulk'
                 AND NOT EXISTS (SELECT 1 FROM queued q WHERE q.project_id = :p AND q.task = :t AND {OTHER_UNIT})
                 ORDER BY COALESCE(a.original_id, a.id) DESC LIMIT :limit"""
        params = {"who": reviewer_id, "p": project_id, "t": task, "limit": limit}
        return (tx or self.db).all(sql, params)

    def latest_seq(self, project_id: int, task: str, tx: Tx | None = None) -> int:
        sql = "SELECT MAX(id) FROM annotations WHERE project_id = :p AND task = :t"
        return (tx or self.db).value(sql, {"p": project_id, "t": task}) or 0

    def newest(self) -> int:
        """Return the number of the last decision of all projects, 0 if there is none."""
        return int(self.db.value("SELECT MAX(id) FROM annotations") or 0)

    def approvals(self, project_id: int, after: int, through: int, limit: int) -> list[Row]:
        """Return what people approved in a project, oldest first, ``value`` as JSON: neither imports nor undos."""
        sql = """SELECT id, record_id, task, value FROM annotations WHERE id > :after AND id <= :through
                 AND project_id = :p AND state = 'approved' AND how <> 'imported' AND original_id IS NULL
                 ORDER BY id LIMIT :limit"""
        return self.db.all(sql, {"p": project_id, "after": after, "through": through, "limit": limit})

    def removals(self, project_id: int) -> int:
        """Return how often records of a project were removed: what was made from its log before is out of date."""
        return int(self.db.value("SELECT removals FROM projects WHERE id = :p", {"p": project_id}) or 0)

    def news(self, project_id: int, task: str, united_seq: int) -> tuple[int, int, bool]:
        """Return the number of the last decision, the removals, and whether clusters were united after a number."""
        sql = """SELECT (SELECT MAX(id) FROM annotations WHERE project_id = :p AND task = :t),
                 (SELECT removals FROM projects WHERE id = :p),
                 EXISTS (SELECT 1 FROM united_clusters WHERE project_id = :p AND id > :u)"""
        latest, removals, united = self.db.one(sql, {"p": project_id, "t": task, "u": united_seq}) or (0, 0, 0)
        return latest or 0, removals or 0, bool(united)

    def count_since(self, project_id: int, task: str, seq: int, limit: int) -> int:
        """Return how many decisions there are after ``seq``, counted up to ``limit``."""
        sql = """SELECT COUNT(*) FROM (SELECT 1 FROM annotations WHERE project_id = :p AND task = :t AND id > :seq
                 LIMIT :limit) AS newer"""
        return int(self.db.value(sql, {"p": project_id, "t": task, "seq": seq, "limit": limit}))

    def since(self, project_id: int, task: str, seq: int, limit: int = 5000) -> list[Row]:
        """Return the next decisions after ``seq``, oldest first, with what retrieval needs of their records."""
        sql = """SELECT a.id, a.record_id, a.state, a.value, a.task_version, a.reviewer_id, r.content_hash, r.cluster,
                 r.grp, r.kind, w.record_id IS NOT NULL AS written
                 FROM annotations a JOIN records r ON r.id = a.record_id
                 LEFT JOIN written w ON w.record_id = a.record_id
                 WHERE a.project_id = :p AND a.task = :t AND a.id > :seq ORDER BY a.id LIMIT :limit"""
        return self.db.all(sql, {"p": project_id, "t": task, "seq": seq, "limit": limit})

    def approved_pages(
        self, project_id: int, task: str, size: int = 1000, unit: str | None = None
    ) -> Iterator[list[Row]]:
        """Yield approved annotations in force with their records, by annotation id, in pages.

        ``unit`` is the one that the task has now: what was approved while it had another is left out. None yields all.
        ``agreement`` is that with the suggestion, ``score`` that of a suggestion which was accepted. Of a record that
        several people decided on, ``people`` are their names as JSON, and ``people_agreement`` says which share of them
        gave the label that was approved; None of others.
        """
        yield from self._standing_pages(APPROVED, project_id, task, size, unit)

    def brief_pages(self, project_id: int, task: str, size: int = 1000, unit: str | None = None) -> Iterator[list[Row]]:
        """Yield what :meth:`approved_pages` does without how a label came to be, which takes half as long."""
        yield from self._standing_pages(APPROVED, project_id, task, size, unit, _BRIEF)

    def rejected_pages(
        self, project_id: int, task: str, size: int = 1000, unit: str | None = None
    ) -> Iterator[list[Row]]:
        """Yield the rejections in force, as :meth:`approved_pages` yields approvals; their value is None."""
        yield from self._standing_pages(REJECTED, project_id, task, size, unit)

    def _standing_pages(
        self, state: str, project_id: int, task: str, size: int, unit: str | None, columns: str | None = None
    ) -> Iterator[list[Row]]:
        sql = f"""SELECT {columns or _WITH_RECORD}
                 WHERE a.project_id = :p AND a.task = :t AND a.state = :state AND a.superseded_by IS NULL
                 AND (:kind IS NULL OR r.kind = :kind) AND a.id > :after ORDER BY a.id LIMIT :size"""
        kind = None if unit is None else kind_of(unit)
        yield from self.db.pages(sql, {"p": project_id, "t": task, "kind": kind, "state": state}, size)

    def exported_pages(self, export_id: int, task: str, state: str = APPROVED, size: int = 1000) -> Iterator[list[Row]]:
        """Yield what an export holds of a task as :meth:`approved_pages` did, whether it is in force now or not.

        With ``state`` rejected it is what :meth:`rejected_pages` gave.
        """
        sql = f"""SELECT {_WITH_RECORD} JOIN export_annotations e ON e.annotation_id = a.id
                  WHERE e.export_id = :e AND a.task = :t AND a.state = :state AND a.id > :after
                  ORDER BY a.id LIMIT :size"""
        yield from self.db.pages(sql, {"e": export_id, "t": task, "state": state}, size)

    def exported_among(self, export_id: int, task: str, record_ids: Sequence[int]) -> dict[int, Row]:
        """Return what an export holds of a task on some records, as :meth:`approved_among` does."""
        sql = """SELECT a.id, a.record_id, a.value, a.task_version FROM export_annotations e
                 JOIN annotations a ON a.id = e.annotation_id WHERE e.export_id = :e AND a.task = :t
                 AND a.record_id IN (SELECT value FROM json_each(:ids))"""
        rows = self.db.all(sql, {"e": export_id, "t": task, "ids": strictjson.dumps(list(record_ids))})
        return {row["record_id"]: row for row in rows}

    def approved_among(self, project_id: int, task: str, record_ids: Sequence[int]) -> dict[int, Row]:
        """Return ``id``, ``value`` and ``task_version`` of the approvals in force on some records, by record id."""
        sql = f"""SELECT id, record_id, value, task_version FROM annotations
                  WHERE {_GIVEN} AND record_id IN (SELECT value FROM json_each(:ids))"""
        rows = self.db.all(sql, {"p": project_id, "t": task, "ids": strictjson.dumps(list(record_ids))})
        return {row["record_id"]: row for row in rows}

    # What a change of labels has to know, whatever the unit of a record is.

    def given(self, project_id: int, task: str) -> list[Row]:
        """Return the values of the approvals in force, each once for a version of the task.

        With ``n``, how many have it, and ``blind``, how many of these were decided without a suggestion.
        """
        sql = f"""SELECT value, task_version, COUNT(*) AS n, SUM(blind) AS blind FROM annotations WHERE {_GIVEN}
                  GROUP BY value, task_version ORDER BY MIN(id)"""
        return self.db.all(sql, {"p": project_id, "t": task})

    def given_pages(self, project_id: int, task: str, size: int = 5000) -> Iterator[list[Row]]:
        """Yield ``id``, ``record_id``, ``value`` and ``task_version`` of the approvals in force, in pages by id."""
        sql = f"""SELECT id, record_id, value, task_version FROM annotations WHERE {_GIVEN} AND id > :after
                  ORDER BY id LIMIT :size"""
        yield from self.db.pages(sql, {"p": project_id, "t": task}, size)

    def put_back(self, project_id: int, task: str, origins: Sequence[str]) -> list[Row]:
        """Return what was withdrawn for one of ``origins``, the last time for each record.

        ``value`` and ``task_version`` are of what stood before, ``key`` is the record's, and ``state`` what the queue
        says of it now; disputed also where somebody has voted on it since.
        """
        among = "IN (SELECT value FROM json_each(:origins))"
        sql = f"""SELECT a.id, r.key, CASE WHEN w.state <> 'pending' OR {_UNTOUCHED_SINCE} THEN w.state
                  ELSE 'disputed' END AS state, o.value, o.task_version FROM annotations a
                  JOIN records r ON r.id = a.record_id JOIN annotations o ON o.id = a.supersedes
                  JOIN work w ON w.record_id = a.record_id AND w.task = a.task
                  WHERE a.project_id = :p AND a.task = :t AND a.state = 'withdrawn' AND a.origin {among}
                  AND a.superseded_by IS NULL AND a.id = (
                    SELECT MAX(b.id) FROM annotations b WHERE b.record_id = a.record_id AND b.task = a.task
                    AND b.state = 'withdrawn' AND b.origin {among} AND b.superseded_by IS NULL)
                  ORDER BY a.id"""
        return self.db.all(sql, {"p": project_id, "t": task, "origins": strictjson.dumps(list(origins))})

    def withdraw(
        self, tx: Tx, project_id: int, task: str, ids: Sequence[int], version: str, origin: str, reviewer_id: int | None
    ) -> list[int]:
        """Put the records of decisions back to pending, as far as they are in force; what stood is kept.

        Return the numbers of the withdrawals.
        """
        sql = f"""INSERT INTO annotations (id, project_id, record_id, task, task_version, state, how, reviewer_id,
                  supersedes, origin, created_at)
                  SELECT :first + ROW_NUMBER() OVER (ORDER BY a.id) - 1, a.project_id, a.record_id, a.task, :version,
                  'withdrawn', 'scratch', :who, a.id, :origin, :now FROM annotations a
                  WHERE a.id {_AMONG} AND a.state <> 'withdrawn' AND a.superseded_by IS NULL"""
        more = {"version": version, "who": reviewer_id, "now": time.time()}
        first = self._follow(tx, sql, project_id, task, ids, origin, more)
        return self._since(tx, project_id, task, first)

    def bring_back(self, tx: Tx, project_id: int, task: str, ids: Sequence[int], origin: str) -> None:
        """Let what was withdrawn stand again, as it was, where nobody has decided or voted on its record since."""
        sql = f"""INSERT INTO annotations (id, project_id, record_id, task, task_version, state, value, how, blind,
                  reviewer_id, seconds, suggestion_id, agreement, reason, supersedes, original_id, origin, created_at)
                  SELECT :first + ROW_NUMBER() OVER (ORDER BY a.id) - 1, o.project_id, o.record_id, o.task,
                  o.task_version, o.state, o.value, o.how, o.blind, o.reviewer_id, o.seconds, o.suggestion_id,
                  o.agreement, o.reason, a.id, COALESCE(o.original_id, o.id), :origin, o.created_at
                  FROM annotations a JOIN annotations o ON o.id = a.supersedes
                  JOIN work w ON w.record_id = a.record_id AND w.task = a.task AND {_UNTOUCHED_SINCE}
                  WHERE a.id {_AMONG} AND a.superseded_by IS NULL"""
        self._follow(tx, sql, project_id, task, ids, origin, {})

    def give(
        self,
        tx: Tx,
        project_id: int,
        task: str,
        decided: Sequence[tuple[int, str, str | None, int | None]],
        version: str,
        origin: str,
        reviewer_id: int | None,
    ) -> list[int]:
        """Decide on many records at once and return the numbers of the decisions, in the order of the records.

        Each is (record, state, value as JSON, suggestion). What is in force is superseded; a record that a person works
        on now, or that left the queue, is passed over.
        """
        rows = "SELECT value AS v FROM json_each(:ids)"
        sql = f"""INSERT INTO annotations (id, project_id, record_id, task, task_version, state, value, how,
                  reviewer_id, suggestion_id, supersedes, origin, created_at)
                  SELECT :first + ROW_NUMBER() OVER (ORDER BY w.record_id) - 1, w.project_id, w.record_id, w.task,
                  :version, d.v ->> 1, d.v ->> 2, 'bulk', :who, d.v ->> 3, w.annotation_id, :origin, :now
                  FROM ({rows}) AS d JOIN work w ON w.record_id = d.v ->> 0 AND w.task = :t AND {UNTOUCHED}"""
        now = time.time()
        more = {"version": version, "who": reviewer_id, "now": now, "t": task}
        first = self._follow(tx, sql, project_id, task, decided, origin, more)
        return self._since(tx, project_id, task, first)

    def take_back(self, tx: Tx, project_id: int, task: str, first: int, last: int, origin: str) -> list[int]:
        """Let what stood before the decisions from ``first`` to ``last`` stand again, where they are in force.

        They are those whose origin is ``origin``; a record without an earlier decision is pending again. Of those that
        put a record back to pending, nobody has decided or voted on it since.
        """
        sql = f"""INSERT INTO annotations (id, project_id, record_id, task, task_version, state, value, how, blind,
                  reviewer_id, seconds, suggestion_id, agreement, reason, supersedes, original_id, origin, created_at)
                  SELECT :first + ROW_NUMBER() OVER (ORDER BY a.id) - 1, a.project_id, a.record_id, a.task,
                  COALESCE(o.task_version, a.task_version), COALESCE(o.state, 'withdrawn'), o.value,
                  COALESCE(o.how, 'scratch'), COALESCE(o.blind, 0), IIF(o.id IS NULL, a.reviewer_id, o.reviewer_id),
                  o.seconds, o.suggestion_id, o.agreement, o.reason, a.id, COALESCE(o.original_id, o.id), 'undo',
                  COALESCE(o.created_at, :now)
                  FROM annotations a JOIN work w ON w.record_id = a.record_id AND w.task = a.task
                  LEFT JOIN annotations o ON o.id = a.supersedes AND o.state <> 'withdrawn'
                  WHERE a.id {_AMONG} AND a.project_id = :p AND a.task = :t AND a.origin = :origin
                  AND a.superseded_by IS NULL AND (a.state <> 'withdrawn' OR {_UNTOUCHED_SINCE})"""
        more = {"p": project_id, "t": task, "now": time.time()}
        new = self._follow(tx, sql, project_id, task, range(first, last + 1), origin, more)
        return self._since(tx, project_id, task, new)

    def now(self, ids: Sequence[int]) -> list[Row]:
        """Return annotations in the order of ``ids`` with their records, and what stands on these now.

        ``state_now``, ``value_now``, ``version_now`` and ``reviewer_now`` are of the decision in force, None for a
        pending record.
        """
        sql = f"""SELECT a.*, r.key, r.text, n.id AS id_now, n.state AS state_now, n.value AS value_now,
                  n.task_version AS version_now, p.name AS reviewer_now
                  FROM annotations a JOIN records r ON r.id = a.record_id
                  JOIN work w ON w.record_id = a.record_id AND w.task = a.task
                  LEFT JOIN annotations n ON n.id = w.annotation_id LEFT JOIN reviewers p ON p.id = n.reviewer_id
                  WHERE a.id {_AMONG} ORDER BY a.id"""
        return self.db.all(sql, {"ids": strictjson.dumps(list(ids))})

    def _since(self, tx: Tx, project_id: int, task: str, first: int) -> list[int]:
        sql = "SELECT id FROM annotations WHERE project_id = :p AND task = :t AND id >= :first ORDER BY id"
        return [row["id"] for row in tx.all(sql, {"p": project_id, "t": task, "first": first})]

    def _follow(
        self, tx: Tx, sql: str, project_id: int, task: str, ids: Sequence[Any], origin: str, more: dict[str, Any]
    ) -> int:
        """Append rows by ``sql``, from the number ``first`` on, and let the queue and what they supersede say so.

        Return ``first``.
        """
        first = int(tx.value(f"SELECT {unused('annotations')}"))
        place = {"p": project_id, "t": task, "first": first}
        if not tx.run(sql, {"first": first, "ids": strictjson.dumps(list(ids)), "origin": origin, **more}):
            return first
        new = "SELECT b.{} FROM annotations b WHERE b.project_id = :p AND b.task = :t AND b.id >= :first"
        tx.run(
            f"""UPDATE annotations SET superseded_by = ({new.format("id")} AND b.supersedes = annotations.id)
                WHERE id IN ({new.format("supersedes")})""",
            place,
        )
        tx.run(
            f"""UPDATE work SET version = version + 1, (state, annotation_id) = (
                  SELECT CASE b.state WHEN 'withdrawn' THEN 'pending' ELSE b.state END,
                  CASE b.state WHEN 'withdrawn' THEN NULL ELSE b.id END FROM annotations b
                  WHERE b.record_id = work.record_id AND b.task = work.task AND b.id >= :first)
                WHERE task = :t AND record_id IN ({new.format("record_id")})""",
            place,
        )
        # A product kept the text that was labelled; reviews that came since are taken in now.
        tx.run(
            f"""INSERT INTO stale_products (project_id, grp) SELECT project_id, grp FROM records
                WHERE kind = 'group' AND id IN ({new.format("record_id")} AND b.state = 'withdrawn')
                ON CONFLICT DO NOTHING""",
            place,
        )
        note_decision(tx, project_id, task, self.latest_seq(project_id, task, tx))
        return first

    def examples(self, annotation_ids: Sequence[int]) -> dict[int, Row]:
        """Return text, value, reviewer and time of annotations, by id."""
        if not annotation_ids:
            return {}
        # One statement for any number, which is prepared once.
        sql = f"""SELECT a.id, a.record_id, a.value, a.state, a.superseded_by, a.created_at, a.task_version, r.text,
                  r.metadata, r.parts, r.key, COALESCE(p.name, {NAMES}) AS reviewer, a.how, a.origin
                  FROM annotations a JOIN records r ON r.id = a.record_id
                  LEFT JOIN reviewers p ON p.id = a.reviewer_id WHERE a.id {_AMONG}"""
        return {row["id"]: row for row in self.db.all(sql, {"ids": strictjson.dumps(list(annotation_ids))})}

    def agreement(self, project_id: int, task: str, task_version: str) -> list[dict[str, Any]]:
        """Return how far reviewers agree with the suggestions of each model: ``n``, means ``agreement`` and ``exact``.

        One row for each ``backend``, ``model_id`` and ``blind``; the models of the last decisions first, then those of
        the most. What counts is the first decision on a record, as a correction of it says nothing about the suggestion
        that was seen, made under this version of the task, as other labels are another question. One that was undone
        does not count, nor one on a record that was served for being doubtful or similar: those say nothing about the
        others.
        """
        counts = Counts(self.db)
        exact = counts.of(EXACT, project_id, task)
        found = list[dict[str, Any]]()
        for row in counts.totals(AGREEMENT, project_id, task):
            version, backend, model_id, blind = strictjson.loads(row["name"])
            if version == task_version:
                means = {"agreement": row["total"] / row["n"], "exact": exact.get(row["name"], 0) / row["n"]}
                found.append({"backend": backend, "model_id": model_id, "blind": blind, "n": row["n"], **means})
        last = self._last_models(project_id, task) if found else []

        def place(row: Mapping[str, Any]) -> tuple[int, int]:
            model = row["backend"], row["model_id"]
            return last.index(model) if model in last else len(last), -row["n"]

        return sorted(found, key=place)

    def _last_models(self, project_id: int, task: str) -> list[tuple[str, str | None]]:
        """Return the (backend, model id) whose suggestions were decided on last, newest first."""
        sql = """SELECT s.backend, s.model_id FROM (SELECT id, suggestion_id FROM annotations
                   WHERE project_id = :p AND task = :t ORDER BY id DESC LIMIT 100) AS a
                 JOIN suggestions s ON s.id = a.suggestion_id ORDER BY a.id DESC"""
        rows = self.db.all(sql, {"p": project_id, "t": task})
        return list(dict.fromkeys((row["backend"], row["model_id"]) for row in rows))

    def how_counts(self, project_id: int, task: str) -> dict[str, int]:
        """Return how the decisions in force came to be."""
        return Counts(self.db).of(HOW, project_id, task)


_WITH_RECORD = f"""a.id, a.value, a.state, a.how, a.blind, a.suggestion_id, a.task_version, a.created_at, a.origin,
    a.agreement,
    (SELECT s.score FROM suggestions s WHERE s.id = a.suggestion_id AND a.how = 'accepted') AS score,
    r.id AS record_id, r.key, r.text, r.content_hash, r.grp, r.cluster, r.metadata, r.parts, r.language,
    p.name AS reviewer, w.record_id IS NOT NULL AS written,
    (SELECT json_group_array(z.name) FROM ballots b JOIN reviewers z ON z.id = b.reviewer_id WHERE {SAID}) AS people,
    (SELECT AVG(b.state = a.state AND b.value IS a.value) FROM ballots b WHERE {SAID}) AS people_agreement
    FROM annotations a JOIN records r ON r.id = a.record_id LEFT JOIN written w ON w.record_id = r.id
    LEFT JOIN reviewers p ON p.id = a.reviewer_id"""
_BRIEF = """a.id, a.value, a.task_version, a.created_at, r.id AS record_id, r.key, r.text, r.content_hash, r.grp,
    r.cluster, r.metadata, w.record_id IS NOT NULL AS written
    FROM annotations a JOIN records r ON r.id = a.record_id LEFT JOIN written w ON w.record_id = r.id"""
# Of a record that was put back to pending, in the queue as "w".
_UNTOUCHED_SINCE = f"""(w.state = 'pending' AND NOT EXISTS (
    SELECT 1 FROM ballots b WHERE b.record_id = w.record_id AND b.task = w.task AND {OPEN}))"""
_AMONG = "IN (SELECT value FROM json_each(:ids))"
_GIVEN = "project_id = :p AND task = :t AND state = 'approved' AND superseded_by IS NULL"
