"""The second pass of an export: the rows of a plan, one after the other, with all that a format writes of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from labeler import strictjson
from labeler.errors import LabelError
from labeler.export.asked import Asked, beside, joint_tasks
from labeler.export.filters import people_of
from labeler.export.formats import ExportRow
from labeler.export.job import Job
from labeler.export.plan import Plan
from labeler.export.preference import Preferences
from labeler.export.splits import TRAIN
from labeler.export.values import reading
from labeler.records import Record, Value
from labeler.store import Row
from labeler.store.database import taking
from labeler.store.records import as_parts
from labeler.store.written import Origin
from labeler.task import Task

_COLUMNS = (
    "id", "value", "task_version", "record_id", "key", "text", "grp", "cluster", "metadata", "parts", "language",
    "how", "reviewer", "created_at", "agreement", "blind", "people", "people_agreement",
)  # fmt: skip
_KEPT = 4096


def planned_rows(job: Job, plan: Plan, asked: Asked | None, prefer: Preferences | None = None) -> Iterator[ExportRow]:
    """Yield the rows of a plan; what is not planned was left out, or approved since: that waits for the next export."""
    others, read = joint_tasks(job), Reader(job)
    for page in job.approved_pages() if prefer is None else prefer.pages():
        splits = plan.waiting.take([stored["id"] for stored in page])
        planned = [stored for stored, split in zip(page, splits, strict=True) if split is not None]
        plan.versions.update(stored["task_version"] for stored in planned)
        rows = read.rows(planned, filter(None, splits))
        if prefer is not None and asked is not None:
            yield from prefer.rows(planned, list(rows), asked)
        else:
            yield from rows if asked is None else asked.rows(rows, beside(job, planned, others))


def trained_on(job: Job, plan: Plan) -> Collection[int]:
    """Return the annotations that prompts may show as examples: of the train split alone."""
    if not job.options.examples:
        return ()
    own = plan.splits.only(TRAIN)
    return {*own, *(other for id_ in own for other in plan.beside.get(id_, ()))}


class Reader:
    """Makes rows of what is stored; what comes again and again is read once."""

    def __init__(self, job: Job) -> None:
        self._job, self._value, self._project = job, reading(job.task), job.project["id"]
        self._metadata = lru_cache(_KEPT)(strictjson.loads)

    def rows(self, page: Sequence[Row], splits: Iterable[str]) -> Iterator[ExportRow]:
        """Yield the rows of annotations that one statement gave, without prompt and answer."""
        origins = self._job.store.written.origins([row["record_id"] for row in page if row["written"]])
        # One after the other: rows that stay alive together are what the garbage collector looks through.
        yield from map(partial(self._row, origins), map(taking(page, _COLUMNS), page), splits)

    def _row(self, origins: Mapping[int, Origin], stored: tuple[Any, ...], split: str) -> ExportRow:
        job, selection = self._job, self._job.selection
        (id_, given, version, record_id, key, text, group, cluster, metadata, parts, language,
         how, reviewer, moment, agreement, blind, people, people_agreement) = stored  # fmt: skip
        value = self._value(given, version, text)
        text = selection.text(text)
        about = selection.metadata(dict(self._metadata(metadata)))
        record = Record(
            record_id, self._project, key, text, language, group, about, cluster=cluster, parts=as_parts(parts)
        )
        provenance = {
            # A ranking is no annotation.
            "annotation_ids": [id_] if id_ > 0 else [],
            "how": how,
            "reviewers": people_of(reviewer, people),
            "approved_at": _at(int(moment)),
            "agreement": agreement,
            "blind": bool(blind),
            "task_version": version,
        }
        if people_agreement is not None:
            provenance["people_agreement"] = people_agreement
        if record_id in origins:
            provenance["written"] = origins[record_id].to_json()
        weight = selection.weight(() if value is None else job.task.schema.strata(value)) if selection.weights else None
        label = None if value is None else _portable(job.task, value, text)
        return ExportRow(id_, record, value, label, split, provenance=provenance, weight=weight)


@lru_cache(_KEPT)
def _at(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def _portable(task: Task, value: Value, text: str) -> Any:
    """Return the answer for ``value`` if it re-imports to ``value``, else ``value`` itself, which always does."""
    answer = task.schema.answer(value)
    if answer == value:
        return value
    try:
        return answer if task.schema.parse(answer, text) == value else value
    except LabelError:
        return value
