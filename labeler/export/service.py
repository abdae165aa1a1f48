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
import subprocess
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import labeler
from labeler.backends.prices import ModelInfo
from labeler.errors import (
    InputError,
    PluginError,
    SettingError,
    StoreError,
    StoreFull,
    StoreReadOnly,
)
from labeler.export.asked import Asked
from labeler.export.files import FILE_NAME, MANIFEST, RECORDS, SUGGESTIONS, Exchange, writing
from labeler.export.filters import Filters, Sieve, iso
from labeler.export.formats import Context, Format, Suggestions, TrainingFormat, record_line
from labeler.export.job import Calls, Job, Options
from labeler.export.plan import Plan, plan_again, plan_of, remembered
from labeler.export.preference import PreferenceFormat, Preferences
from labeler.export.preflight import Preflight, Ruler, preflight
from labeler.export.rows import planned_rows, trained_on
from labeler.export.seen import Placed
from labeler.export.selection import Selection
from labeler.export.splits import Shares
from labeler.ingest.clusters import sign_reviews
from labeler.ingest.duplicates import THRESHOLD
from labeler.sentence import N_
from labeler.store import Row, Store
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
    selection: Selection | None = None,
    calls: Calls | None = None,
    name: str = "",
) -> ExportResult:
    """Write the approved annotations of ``task`` (or its suggestions, in the format of that name) into ``folder``.

    An earlier export of the same project, task and format there is replaced. ``name`` is one that no other export of
    the project has; ``calls`` say how the task is asked.

    Raises :class:`InputError` if there is nothing to export or the folder holds something else, :class:`Conflict` if
    another export is writing there or has the name, :class:`StoreFull` or another :class:`StoreError` if it cannot be
    written; then the folder is as it was. Raises :class:`SettingError` for a format that is not there, and
    :class:`PluginError` for one that is no format.
    """
    store.exports.check_name(project["id"], name)
    job, chosen = _job(store, project, task, format_name, folder, formats, shares, filters, options, selection, calls)
    job = replace(job, name=name)
    if isinstance(chosen, Suggestions):
        return _export_suggestions(job, chosen, reviewer_id)
    context = chosen.prepared(job.context())
    prefer = Preferences(job, chosen) if isinstance(chosen, PreferenceFormat) else None
    plan = plan_of(job, chosen, prefer)
    with writing(job.folder, job.owner(chosen)) as exchange:
        while not remembered(job, plan):
            plan = plan_of(job, chosen, prefer)
        members = _write_rows(job, chosen, plan, exchange, _filled(context, plan), prefer)
        report = plan.report(job.shares, members)
        if prefer is not None:
            report |= prefer.report(exchange.entries(), job.shares.used())
        exchange.commit(_manifest(job, chosen, exchange) | report | ({"asked": plan.asked} if plan.asked else {}))
        return _record(job, exchange, reviewer_id, members)


def check_task(
    store: Store,
    project: Mapping[str, Any],
    task: Task,
    format_name: str,
    *,
    formats: Mapping[str, Format],
    shares: Shares | None = None,
    filters: Filters | None = None,
    options: Options | None = None,
    selection: Selection | None = None,
    calls: Calls | None = None,
    model: Path | str | None = None,
    prices: Mapping[str, ModelInfo] = MappingProxyType({}),
) -> Preflight:
    """Say what a trainer would make of an export, and write nothing: see :mod:`labeler.export.preflight`.

    ``model`` is a folder or hub id whose tokenizer, chat template and context are used, or a model that OpenAI tunes
    and that ``prices`` know. Raises as :func:`export_task` does, and :class:`InputError` for a model without a
    tokenizer, and for one of OpenAI whose rows are not known, or whose format is another.
    """
    job, chosen = _job(store, project, task, format_name, Path(), formats, shares, filters, options, selection, calls)
    if isinstance(chosen, Suggestions):
        raise InputError("Suggestions are for analysis, and no trainer reads them; choose another format")
    return preflight(job, chosen, Ruler(model, prices))


def export_again(
    store: Store,
    project: Mapping[str, Any],
    task: Task,
    export: Mapping[str, Any],
    folder: Path,
    *,
    formats: Mapping[str, Format],
    calls: Calls,
) -> tuple[ExportResult, list[str]]:
    """Make an export again from its manifest; return it and the names of the files that came out otherwise.

    ``task`` and ``calls`` are as they were then. Where every file is the same, byte for byte, so is the manifest.
    Raises as :func:`export_task` does, and :class:`InputError` for one that was made before manifests said enough.
    """
    manifest = export["manifest"]
    if "columns" not in manifest or "selection" not in manifest:
        raise InputError("The manifest of this export does not say enough to make it again; make a new one")
    said: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in manifest["options"].items()
    }
    options, selection = Options(**said), Selection(**manifest["selection"])
    job, chosen = _job(store, project, task, export["format"], folder, formats, None, None, options, selection, calls)
    if isinstance(chosen, Suggestions):
        raise InputError("Suggestions cannot be made again: they change with every run; export them once more")
    job = replace(job, shares=Shares.of(manifest["shares"]), again=export["id"])
    context, plan = chosen.prepared(job.context()), plan_again(job, chosen)
    prefer = Preferences(job, chosen) if isinstance(chosen, PreferenceFormat) else None
    with writing(job.folder, job.owner(chosen)) as exchange:
        _write_rows(job, chosen, plan, exchange, _filled(context, plan), prefer)
        made, before = exchange.entries(), manifest["files"]
        differ = sorted(name for name in {*made, *before} if made.get(name) != before.get(name))
        exchange.commit(manifest | {"files": made, "again": export["id"]} if differ else manifest)
        files = tuple(job.folder / name for name in (*made, MANIFEST))
        return ExportResult(exchange.manifest, job.folder, files), differ


def _job(
    store: Store,
    project: Mapping[str, Any],
    task: Task,
    format_name: str,
    folder: Path,
    formats: Mapping[str, Format],
    shares: Shares | None,
    filters: Filters | None,
    options: Options | None,
    selection: Selection | None,
    calls: Calls | None,
) -> tuple[Job, TrainingFormat | Suggestions]:
    # Near-duplicates of what has just come in belong on one side of a split. An export needs no store to write to.
    with contextlib.suppress(StoreError, OSError):
        sign_reviews(store, project["id"], lambda: store.read_only)
    chosen = formats.get(format_name)
    if chosen is None:
        raise SettingError(
            "No export format %(name)r; there are: %(names)s", name=format_name, names=", ".join(sorted(formats))
        )
    asked = options or Options()
    if not isinstance(chosen, TrainingFormat | Suggestions) or not FILE_NAME.fullmatch(f"train{chosen.suffix}"):
        raise PluginError(
            "The export format %(name)r is no TrainingFormat with a suffix such as '.jsonl'", name=format_name
        )
    if isinstance(chosen, TrainingFormat) and not chosen.asks:
        asked = replace(asked, examples=0, reasoning=False, joint=())
    if isinstance(chosen, PreferenceFormat):
        asked = replace(asked, reasoning=False, joint=())
    # Rows, and the prompts beside them, know retired labels as any other.
    whole = replace(task, schema=task.schema.past)
    return Job(
        store,
        project,
        whole,
        Path(folder),
        shares or Shares(),
        filters or Filters(),
        asked,
        task,
        selection or Selection(),
        calls or Calls(),
    ), chosen


def _filled(context: Context, plan: Plan) -> Context:
    """Return what a format is told of an export whose rows are known."""
    return replace(context, columns=plan.columns, written=plan.written.total)


def _write_rows(
    job: Job,
    chosen: TrainingFormat,
    plan: Plan,
    exchange: Exchange,
    context: Context,
    prefer: Preferences | None = None,
) -> Placed:
    """Write the planned rows in the order of their annotations; return (annotation id, split) of each."""
    # Only splits with rows get a file: readers of data sets refuse one without.
    filled = {split for split, count in plan.splits.counts().items() if count}
    files = {
        name: exchange.create(f"{name}{chosen.suffix}", chosen.file) for name in job.shares.used() if name in filled
    }
    records = None if chosen.complete else exchange.create(RECORDS)
    for file in files.values():
        file.write(chosen.head(context), rows=0)
    members = Placed()
    with Asked(job, trained_on(job, plan)) as asked:
        for row in planned_rows(job, plan, asked if chosen.asks else None, prefer):
            files[row.split].write(chosen.row(row, context), chosen.lines(row))
            for kind in chosen.warnings(row, context):
                plan.warnings.add(kind, row.record.key)
            if records:
                records.write(record_line(row))
            members.add(row.annotation_id, row.split)
            for id_, _ in row.others.values():
                members.add(id_, row.split)
            if row.value is not None:
                plan.counted[row.split, job.task.schema.strata(row.value)] += 1
        if chosen.asks:
            plan.asked = asked.described()
    for changed in _examples(job.store, plan.waiting.left()).values():
        plan.left_out.add("changed", changed["key"])
    if not len(members):
        raise InputError("Nothing to export: every record was decided again while the export ran; export again")
    for file in files.values():
        file.finish()
    for about, text in chosen.about(files, context).items():
        exchange.create(about).write(text, rows=0)
    exchange.finish()
    return members


@cache
def _commit() -> str | None:
    """Return the commit of a checkout of Labeler that runs; None for an installed package."""
    root = Path(labeler.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _manifest(job: Job, chosen: Format, exchange: Exchange) -> dict[str, Any]:
    return {
        "labeler": labeler.__version__,
        "commit": _commit(),
        **job.owner(chosen),
        "name": job.name,
        "generated_at": iso(datetime.now(UTC)),
        "task_version": job.task.version,
        "schema": job.offered.schema.to_json(),
        "retired": [label.name for label in job.offered.schema.retired],
        "filters": job.filters.to_json(),
        "selection": job.selection.to_json(),
        "options": asdict(job.options) | {"language": job.style.language, "joint": list(job.options.joint)},
        "columns": list(job.calls.columns),
        "thresholds": {"near_duplicate": THRESHOLD},
        "files": exchange.entries(),
    }


def _record(
    job: Job, exchange: Exchange, reviewer_id: int | None, members: Iterable[tuple[int, str]] = ()
) -> ExportResult:
    """Note in the store what stands on disk now.

    A store that cannot be written (its disk is full, or it is open read-only) does not undo an export that is complete.
    """
    manifest, project_id, task = exchange.manifest, job.project["id"], job.task.name
    folder = str(job.folder)

    def note(tx: Any) -> int:
        id_ = job.store.exports.add(
            tx, project_id, task, manifest["format"], manifest, folder, reviewer_id, members, job.name
        )
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
    job.filters.check_for_suggestions()
    if job.selection != Selection():
        raise SettingError(
            "Suggestions leave as they are: caps, weights, near-duplicates, contact data and splits are of labels alone"
        )
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
            origins = job.store.written.origins([s.record_id for s in suggestions])
            for row, one in zip(rows, suggestions, strict=True):
                origin = origins.get(one.record_id)
                file.write(chosen.suggestion(one, row["key"], row["text"], examples, job.options.reasoning, origin))
                counts.update(all=1, parse_failures=int(one.failure is not None))
                backends[one.backend] += 1
        exchange.finish()
        report = {"counts": dict(counts), "backends": dict(backends.most_common()), "left_out": [], "warnings": []}
        exchange.commit(_manifest(job, chosen, exchange) | report)
        return _record(job, exchange, reviewer_id)


def _suggestion_pages(job: Job) -> Iterator[list[Row]]:
    sieve = Sieve(job.filters)
    for page in job.store.suggestions.newest_pages(job.project["id"], job.task.name, unit=job.task.unit):
        rows = [r for r in page if sieve.passes({**dict(r), "language": guess_language(r["text"])})]
        if rows:
            yield rows


def _examples(store: Store, annotation_ids: Collection[int]) -> dict[int, Row]:
    """Return annotations with the keys of their records, by annotation id."""
    ids = sorted(annotation_ids)
    found: dict[int, Row] = {}
    for start in range(0, len(ids), 500):
        found.update(store.annotations.examples(ids[start : start + 500]))
    return found
