"""The second pass of an export: the rows of a plan, one after the other, with all that a format writes of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any

from labeler import strictjson
from labeler.errors import LabelError
from labeler.export.asked import Asked, beside, joint_tasks
from labeler.export.formats import ExportRow
from labeler.export.job import Job
from labeler.export.plan import Plan
from labeler.export.preference import Preferences
from labeler.export.splits import TRAIN
from labeler.records import Record, Value
from labeler.store import Row
from labeler.store.records import as_parts
from labeler.store.written import Origin
from labeler.task import Task


def planned_rows(job: Job, plan: Plan, asked: Asked | None, prefer: Preferences | None = None) -> Iterator[ExportRow]:
    """Yield the rows of a plan; what is not planned was left out, or approved since: that waits for the next export."""
    others = joint_tasks(job)
    for page in job.approved_pages() if prefer is None else prefer.pages():
        splits = {stored["id"]: split for stored in page if (split := plan.splits.pop(stored["id"], None))}
        planned = [stored for stored in page if stored["id"] in splits]
        plan.versions.update(stored["task_version"] for stored in planned)
        origins = job.store.written.origins([stored["record_id"] for stored in planned if stored["written"]])
        rows = [_export_row(job, stored, splits[stored["id"]], origins.get(stored["record_id"])) for stored in planned]
        if prefer is not None and asked is not None:
            yield from prefer.rows(planned, rows, asked)
        else:
            yield from rows if asked is None else asked.rows(rows, beside(job, planned, others))


def trained_on(job: Job, plan: Plan) -> Collection[int]:
    """Return the annotations that prompts may show as examples: of the train split alone."""
    if not job.options.examples:
        return ()
    own = [id_ for id_, split in plan.splits.items() if split == TRAIN]
    return {*own, *(other for id_ in own for other in plan.beside.get(id_, ()))}


def _export_row(job: Job, stored: Row, split: str, origin: Origin | None = None) -> ExportRow:
    given = stored["value"]
    value = None if given is None else job.task.read(strictjson.loads(given), stored["task_version"], stored["text"])
    text = job.selection.text(stored["text"])
    record = Record(
        id=stored["record_id"],
        project_id=job.project["id"],
        key=stored["key"],
        text=text,
        language=stored["language"],
        group=stored["grp"],
        metadata=job.selection.metadata(strictjson.loads(stored["metadata"])),
        cluster=stored["cluster"],
        parts=as_parts(stored["parts"]),
    )
    provenance = {
        # A ranking is no annotation.
        "annotation_ids": [stored["id"]] if stored["id"] > 0 else [],
        "how": stored["how"],
        "reviewers": [stored["reviewer"]] if stored["reviewer"] else [],
        "approved_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stored["created_at"])),
        "agreement": stored["agreement"],
        "blind": bool(stored["blind"]),
        "task_version": stored["task_version"],
        **({} if origin is None else {"written": origin.to_json()}),
    }
    weight = job.selection.weight(() if value is None else job.task.schema.strata(value))
    label = None if value is None else _portable(job.task, value, text)
    return ExportRow(stored["id"], record, value, label, split, provenance=provenance, weight=weight)


def _portable(task: Task, value: Value, text: str) -> Any:
    """Return the answer for ``value`` if it re-imports to ``value``, else ``value`` itself, which always does."""
    answer = task.schema.answer(value)
    if answer == value:
        return value
    try:
        return answer if task.schema.parse(answer, text) == value else value
    except LabelError:
        return value
