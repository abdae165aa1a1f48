"""Export a task: approved annotations, checked, split and written so that a reader never meets half of it.

Two passes over the store. The first sees every approved annotation once and keeps a few numbers per row: what must be
left out, what is linked to what. The second writes, one row at a time. That only approved labels leave is no check that
could be forgotten: rows come from :meth:`Annotations.approved_pages` alone. Only preference sets
(:mod:`labeler.export.preference`) have wrong answers too, marked as such, from rejections and rankings.

Files of an export stand in one folder, under names fixed here. Each is written as ``<name>.tmp`` and synced; then the
old files step aside as ``<name>.old.tmp``, the new ones take their names, and ``manifest.json``, which describes them
with sha256, comes last. So where a manifest stands, every file it names is the one it describes. A failure puts
the old files back at once; after a kill between two renames there is no manifest, and :func:`recover`, with which every
export begins, puts them back.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import labeler
from labeler import strictjson
from labeler.errors import (
    InputError,
    LabelError,
    PluginError,
    SettingError,
    StoreError,
    StoreFull,
    StoreReadOnly,
)
from labeler.export.asked import Asked
from labeler.export.files import FILE_NAME, MANIFEST, RECORDS, SUGGESTIONS, Exchange, writing
from labeler.export.formats import Context, ExportRow, Format, Suggestions, TrainingFormat, record_line
from labeler.export.job import Filters, Job, Options, iso
from labeler.export.plan import Plan, plan_of, remembered
from labeler.export.preference import PreferenceFormat, Preferences
from labeler.export.splits import Shares
from labeler.ingest.clusters import sign_reviews
from labeler.records import Record, Value
from labeler.sentence import N_
from labeler.store import Row, Store
from labeler.store.records import as_parts
from labeler.store.suggestions import as_suggestion
from labeler.task import Task
from labeler.text import guess_language


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What stands on disk. ``id`` is the export's number in the store, or None with ``unrecorded`` saying why."""

    manifest: dict[str, Any]
    folder: Path
    files: tuple[Path, ...]
    id: int | None = None
    unrecorded: str | None = None


def export_task(
    store: Store,
    project: Mapping[str, Any],
    task: Task,
    format_name: str,
    folder: Path,
    *,
    formats: Mapping[str, Format],
    shares: Shares | None = None,
    filters: Filters | None = None,
    reviewer_id: int | None = None,
    options: Options | None = None,
) -> ExportResult:
    """Write the approved annotations of ``task`` (or its suggestions, in the format of that name) into ``folder``.

    An earlier export of the same project, task and format there is replaced. Raises :class:`InputError` if there is
    nothing to export or the folder holds something else, :class:`Conflict` if another export is writing there,
    :class:`StoreFull` or another :class:`StoreError` if it cannot be written; then the folder is as it was. Raises
    :class:`SettingError` for a format that is not there, and :class:`PluginError` for one that is no format.
    """
    # Near-duplicates of what has just come in belong on one side of a split. An export needs no store to write to.
    with contextlib.suppress(StoreError, OSError):
        sign_reviews(store, project["id"], lambda: store.read_only)
    chosen = formats.get(format_name)
    if chosen is None:
        raise SettingError(
            "No export format %(name)r; there are: %(names)s",
            name=format_name,
            names=", ".join(sorted(formats)),
        )
    # Rows, and the prompts beside them, know retired labels as any other.
    whole = replace(task, schema=task.schema.past)
    job = Job(store, project, whole, Path(folder), shares or Shares(), filters or Filters(), options or Options(), task)
    if isinstance(chosen, Suggestions):
        return _export_suggestions(job, chosen, reviewer_id)
    if not isinstance(chosen, TrainingFormat) or not FILE_NAME.fullmatch(f"train{chosen.suffix}"):
        raise PluginError(
            "The export format %(name)r is no TrainingFormat with a suffix such as '.jsonl'",
            name=format_name,
        )
    prefer = Preferences(job, chosen) if isinstance(chosen, PreferenceFormat) else None
    plan = plan_of(job, chosen, prefer)
    with writing(job.folder, job.owner(chosen)) as exchange:
        while not remembered(job, plan):
            plan = plan_of(job, chosen, prefer)
        members = _write_rows(job, chosen, plan, exchange, prefer)
        report = plan.report(job.shares, members)
        if prefer is not None:
            report |= prefer.report(exchange.entries(), job.shares.used())
        exchange.commit(_manifest(job, chosen, exchange) | report)
        return _record(job, exchange, reviewer_id, members)


def _write_rows(
    job: Job, chosen: TrainingFormat, plan: Plan, exchange: Exchange, prefer: Preferences | None = None
) -> list[tuple[int, str]]:
    """Write the planned rows in the order of their annotations; return (annotation id, split) of each."""
    context = Context(job.task, job.style, job.options.formula_safe, job.options.bom, plan.columns)
    # Only splits with rows get a file: readers of data sets refuse one without.
    filled = set(plan.splits.values())
    files = {name: exchange.create(f"{name}{chosen.suffix}") for name in job.shares.used() if name in filled}
    records = None if chosen.complete else exchange.create(RECORDS)
    for file in files.values():
        file.write(chosen.head(context), rows=0)
    members: list[tuple[int, str]] = []
    asked = Asked(job)
    for page in job.approved_pages() if prefer is None else prefer.pages():
        # What is not planned was left out, or approved since the first pass: that waits for the next export.
        planned = [(stored, plan.splits.pop(stored["id"])) for stored in page if stored["id"] in plan.splits]
        rows: Iterable[ExportRow] = [_export_row(job, stored, split) for stored, split in planned]
        plan.versions.update(stored["task_version"] for stored, _ in planned)
        if prefer is not None:
            rows = prefer.rows([stored for stored, _ in planned], list(rows), asked)
        elif chosen.asks:
            rows = asked.rows(list(rows))
        for row in rows:
            files[row.split].write(chosen.row(row, context), chosen.lines(row))
            if records:
                records.write(record_line(row))
            members.append((row.annotation_id, row.split))
            if row.value is not None:
                plan.labels.setdefault(row.split, Counter()).update(job.task.schema.strata(row.value))
    for changed in _examples(job.store, plan.splits).values():
        plan.left_out.add("changed", changed["key"])
    if not members:
        raise InputError("Nothing to export: every record was decided again while the export ran; export again")
    about = chosen.about({name: file.name for name, file in files.items()}, context)
    if about is not None:
        exchange.create(about[0]).write(about[1], rows=0)
    exchange.finish()
    return members


def _export_row(job: Job, stored: Row, split: str) -> ExportRow:
    text, given = stored["text"], stored["value"]
    value = None if given is None else job.task.read(strictjson.loads(given), stored["task_version"], text)
    record = Record(
        id=stored["record_id"],
        project_id=job.project["id"],
        key=stored["key"],
        text=text,
        language=stored["language"],
        group=stored["grp"],
        metadata=strictjson.loads(stored["metadata"]),
        cluster=stored["cluster"],
        parts=as_parts(stored["parts"]),
    )
    label = None if value is None else _portable(job.task, value, text)
    return ExportRow(stored["id"], record, value, label, split)


def _portable(task: Task, value: Value, text: str) -> Any:
    """Return the answer for ``value`` if it re-imports to ``value``, else ``value`` itself, which always does."""
    answer = task.schema.answer(value)
    if answer == value:
        return value
    try:
        return answer if task.schema.parse(answer, text) == value else value
    except LabelError:
        return value


def _manifest(job: Job, chosen: Format, exchange: Exchange) -> dict[str, Any]:
    return {
        "labeler": labeler.__version__,
        **job.owner(chosen),
        "generated_at": iso(datetime.now(UTC)),
        "task_version": job.task.version,
        "schema": job.offered.schema.to_json(),
        "retired": [label.name for label in job.offered.schema.retired],
        "filters": job.filters.to_json(),
        "options": asdict(job.options) | {"language": job.style.language, "columns": list(job.options.columns)},
        "files": exchange.entries(),
    }


def _record(
    job: Job, exchange: Exchange, reviewer_id: int | None, members: Sequence[tuple[int, str]] = ()
) -> ExportResult:
    """Note in the store what stands on disk now.

    A store that cannot be written (its disk is full, or it is open read-only) does not undo an export that is complete.
    """
    manifest, project_id, task = exchange.manifest, job.project["id"], job.task.name
    folder = str(job.folder)

    def note(tx: Any) -> int:
        id_ = job.store.exports.add(tx, project_id, task, manifest["format"], manifest, folder, reviewer_id, members)
        detail = {"export": id_, "format": manifest["format"], "folder": folder, "rows": manifest["counts"]["all"]}
        job.store.events.add(tx, "exported", project_id=project_id, reviewer_id=reviewer_id, task=task, detail=detail)
        return id_

    files = tuple(job.folder / name for name in (*manifest["files"], MANIFEST))
    try:
        return ExportResult(manifest, job.folder, files, job.store.write(note))
    except (StoreFull, StoreReadOnly) as error:
        return ExportResult(manifest, job.folder, files, None, str(error))


# Suggestions


def _export_suggestions(job: Job, chosen: Suggestions, reviewer_id: int | None) -> ExportResult:
    if job.filters.how:
        raise SettingError("Suggestions have no way of labeling to filter by: nobody has approved them")
    pages = _suggestion_pages(job)
    first = next(pages, None)
    if first is None:
        raise InputError(
            N_("Nothing to export: %(task)r has no suggestions; make some first")
            if job.filters == Filters()
            else N_("Nothing to export: %(task)r has no suggestions that fit the filters"),
            task=job.task.name,
        )
    counts: Counter[str] = Counter(all=0, parse_failures=0)
    backends: Counter[str] = Counter()
    with writing(job.folder, job.owner(chosen)) as exchange:
        file = exchange.create(f"{SUGGESTIONS}{chosen.suffix}")
        for rows in chain([first], pages):
            suggestions = [as_suggestion(row) for row in rows]
            examples = _examples(job.store, {e.annotation_id for s in suggestions for e in s.evidence})
            for row, suggestion in zip(rows, suggestions, strict=True):
                file.write(chosen.suggestion(suggestion, row["key"], row["text"], examples, job.options.reasoning))
                counts.update(all=1, parse_failures=int(suggestion.failure is not None))
                backends[suggestion.backend] += 1
        exchange.finish()
        report = {"counts": dict(counts), "backends": dict(backends.most_common()), "left_out": [], "warnings": []}
        exchange.commit(_manifest(job, chosen, exchange) | report)
        return _record(job, exchange, reviewer_id)


def _suggestion_pages(job: Job) -> Iterator[list[Row]]:
    for page in job.store.suggestions.newest_pages(job.project["id"], job.task.name, unit=job.task.unit):
        rows = [r for r in page if job.filters.match(None, guess_language(r["text"]), r["created_at"])]
        if rows:
            yield rows


def _examples(store: Store, annotation_ids: Collection[int]) -> dict[int, Row]:
    """Return annotations with the keys of their records, by annotation id."""
    ids = sorted(annotation_ids)
    found: dict[int, Row] = {}
    for start in range(0, len(ids), 500):
        found.update(store.annotations.examples(ids[start : start + 500]))
    return found
