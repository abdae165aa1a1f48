"""Export a task: approved annotations, checked, split and written so that a reader never meets half of it.

Two passes over the store. The first sees every approved annotation once and keeps a few numbers per row: what must be
left out, what is linked to what. The second writes, one row at a time. That only approved labels leave is no check that
could be forgotten: rows come from :meth:`Annotations.approved_pages` alone.

Files of an export stand in one folder, under names fixed here. Each is written as ``<name>.tmp`` and synced; then the
old files step aside as ``<name>.old.tmp``, the new ones take their names, and ``manifest.json``, which describes them
with sha256, comes last. So where a manifest stands, every file it names is the one it describes. A failure puts
the old files back at once; after a kill between two renames there is no manifest, and :func:`recover`, with which every
export begins, puts them back.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

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
from labeler.export.files import FILE_NAME, MANIFEST, RECORDS, SUGGESTIONS, Exchange, writing
from labeler.export.formats import Context, ExportRow, Format, Suggestions, TrainingFormat, record_line
from labeler.export.splits import SPLITS, Components, Linked, Places, Shares
from labeler.ingest.clusters import sign_reviews
from labeler.prompts import LANGUAGES, PromptStyle
from labeler.prompts.styles import ZERO_SHOT
from labeler.records import Record, Value
from labeler.sentence import N_, Sentence
from labeler.store import Row, Store
from labeler.store.annotations import ACCEPTED, CORRECTED, IMPORTED, SCRATCH
from labeler.store.records import as_parts
from labeler.store.suggestions import as_suggestion
from labeler.task import Task
from labeler.text import content_hash, guess_language

HOWS = (ACCEPTED, CORRECTED, SCRATCH, IMPORTED)
_MOST_KEYS = 1000
_MOST_COLUMNS = 200
# As models spell what steers them: <|eot_id|>, <end_of_turn>, [INST], </s>.
_CONTROL = re.compile(
    r"<\|[^\s<>]{1,40}?\|>|</?(?:start|end)_of_\w{1,20}>|\[/?INST\]|<</?SYS>>|</?[su]>|<(?:bos|eos|pad)>"
)

_REASONS = {
    "empty_text": Sentence("The record has no text"),
    "empty_answer": Sentence("The annotation has no value"),
    "not_in_schema": Sentence("The label schema of the task no longer allows the value; label these records again"),
    "too_long": Sentence("Text and answer together are longer than the limit"),
    "contradicting": Sentence("Equal texts carry different labels; decide these records again"),
    "duplicate": Sentence("Equal texts with equal labels occur more than once"),
    "near_contradicting": Sentence("Near-duplicates carry different labels; look at these records again"),
    "control_tokens": Sentence(
        "The text holds control tokens of language models, which a trainer may take for real ones"
    ),
    "between_splits": Sentence(
        "Products or near-duplicates that came later tie these records to records of another split;"
        " they stay out, so that no held-out record has a twin in the training set"
    ),
    "no_share": Sentence(
        "Earlier exports put these records, or what belongs to them, into a split that has no share"
        " now; give it a share, or split all records again"
    ),
    "changed": Sentence("Somebody decided these records again while the export ran; export again to have them"),
}


@dataclass(frozen=True, slots=True)
class Filters:
    """Which approved annotations leave: those made as ``how`` says, in a language, since a time (seconds since 1970).

    Empty or None means all.
    """

    how: tuple[str, ...] = ()
    language: str | None = None
    since: float | None = None

    def __post_init__(self) -> None:
        strange = [name for name in self.how if name not in HOWS]
        if strange:
            raise SettingError(
                "No way of labeling %(name)r; there are: %(names)s", name=strange[0], names=", ".join(HOWS)
            )
        if self.language is not None and self.language not in LANGUAGES:
            raise SettingError(
                "No records in %(language)r; there are: %(names)s", language=self.language, names=", ".join(LANGUAGES)
            )

    def match(self, how: str | None, language: str, created_at: float) -> bool:
        return (
            (not self.how or how in self.how)
            and (self.language is None or language == self.language)
            and (self.since is None or created_at >= self.since)
        )

    def to_json(self) -> dict[str, Any]:
        since = None if self.since is None else _iso(datetime.fromtimestamp(self.since, UTC))
        return {"how": list(self.how), "language": self.language, "since": since}


@dataclass(frozen=True, slots=True)
class Options:
    """How an export is written.

    ``language`` is that of the prompts and of rendered labels (None: the project's), ``longest`` the most characters of
    text and answer together. ``persona`` and ``wording`` are those of the task's settings, by language, as served, and
    ``columns`` those of the metadata that the model sees.
    ``keep_contradicting`` exports exact copies with different labels too. ``formula_safe`` and ``bom`` concern CSV
    only. ``reasoning`` adds the steps of each suggestion to the format ``suggestions``; no other format ever holds
    them. ``new_splits`` forgets in which splits records left before.
    """

    language: str | None = None
    longest: int = 32_000
    persona: Mapping[str, str] = field(default_factory=dict)
    wording: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    keep_contradicting: bool = False
    formula_safe: bool = True
    bom: bool = False
    reasoning: bool = False
    new_splits: bool = False

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise SettingError("The longest row is %(longest)s characters; it must be at least 1", longest=self.longest)


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
    job = _Job(
        store, project, whole, Path(folder), shares or Shares(), filters or Filters(), options or Options(), task
    )
    if isinstance(chosen, Suggestions):
        return _export_suggestions(job, chosen, reviewer_id)
    if not isinstance(chosen, TrainingFormat) or not FILE_NAME.fullmatch(f"train{chosen.suffix}"):
        raise PluginError(
            "The export format %(name)r is no TrainingFormat with a suffix such as '.jsonl'",
            name=format_name,
        )
    plan = _plan(job, chosen)
    with writing(job.folder, job.owner(chosen)) as exchange:
        while not _remembered(job, plan):
            plan = _plan(job, chosen)
        members = _write_rows(job, chosen, plan, exchange)
        exchange.commit(_manifest(job, chosen, exchange) | plan.report(job.shares, members))
        return _record(job, exchange, reviewer_id, members)


@dataclass(frozen=True, slots=True)
class _Job:
    store: Store
    project: Mapping[str, Any]
    task: Task
    folder: Path
    shares: Shares
    filters: Filters
    options: Options
    offered: Task

    @property
    def style(self) -> PromptStyle:
        language = self.options.language or self.project["language"]
        persona, wording = (words.get(language, "") for words in (self.options.persona, self.options.wording))
        return PromptStyle(ZERO_SHOT, language, persona=persona, wording=wording, columns=self.options.columns)

    def owner(self, chosen: Format) -> dict[str, str]:
        return {"project": self.project["name"], "task": self.task.name, "format": chosen.name}

    def approved(self) -> Iterator[Row]:
        for rows in self.store.annotations.approved_pages(self.project["id"], self.task.name, unit=self.task.unit):
            for row in rows:
                if self.filters.match(row["how"], row["language"], row["created_at"]):
                    yield row


# The first pass: what leaves, and where to


class _Seen(NamedTuple):
    """All that is kept of a row between the passes."""

    annotation_id: int
    record: Linked
    hash: bytes
    answer: bytes
    counts_as: tuple[str, ...]
    cluster: int | None

    @property
    def key(self) -> str:
        return self.record.key


class _Findings:
    """Rows by the reason why they are named in the manifest: how many, and the keys of the first thousand."""

    def __init__(self) -> None:
        self._keys: dict[str, list[str]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, key: str) -> None:
        self._counts[kind] += 1
        if self._counts[kind] <= _MOST_KEYS:
            self._keys.setdefault(kind, []).append(key)

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {"kind": kind, "message": _REASONS[kind], "count": self._counts[kind], "keys": keys}
            for kind, keys in self._keys.items()
        ]

    def __str__(self) -> str:
        counted = (Sentence("%(why)s (%(n)s)", why=_REASONS[kind], n=f"{n:,}") for kind, n in self._counts.items())
        return Sentence.joined(counted)


_SHARE_EMPTY = N_(
    "%(split)s has no rows, and no file was written for it: there are too few rows, products and near-duplicates that "
    "belong together are too large, or earlier exports had other shares"
)
_SHARE_MISSED = N_(
    "%(split)s has %(share)s of the rows, not %(wanted)s: there are too few rows, products and near-duplicates that "
    "belong together are too large, or earlier exports had other shares"
)


@dataclass
class _Plan:
    """The split of each row that leaves, by annotation id and by record, and what the second pass adds up.

    ``seen`` is the newest memory of splits that it knows of.
    """

    seen: int
    splits: dict[int, str] = field(default_factory=dict)
    records: dict[int, str] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    left_out: _Findings = field(default_factory=_Findings)
    warnings: _Findings = field(default_factory=_Findings)
    versions: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=dict)

    def report(self, shares: Shares, members: Sequence[tuple[int, str]]) -> dict[str, Any]:
        """Return the part of the manifest that speaks of rows."""
        counts = Counter(split for _, split in members)
        warnings = self.warnings.to_json()
        for name in shares.used():
            share = counts[name] / max(len(members), 1)
            if not counts[name] or abs(share - shares.as_dict()[name]) > 0.1:
                message = Sentence(
                    _SHARE_MISSED if counts[name] else _SHARE_EMPTY,
                    split=name,
                    share=f"{share:.0%}",
                    wanted=f"{shares.as_dict()[name]:.0%}",
                )
                about = {"message": message, "said": message.parts()}
                warnings.append({"kind": "share_missed", **about, "count": counts[name], "keys": []})
        return {
            "task_versions": dict(sorted(self.versions.items())),
            "shares": shares.as_dict(),
            "counts": {name: counts[name] for name in shares.used()} | {"all": len(members)},
            "labels": {name: dict(self.labels.get(name, Counter()).most_common()) for name in shares.used()},
            "left_out": self.left_out.to_json(),
            "warnings": warnings,
        }


def _remembered(job: _Job, plan: _Plan) -> bool:
    """Remember the splits before anything is written: what may have left never leaves in another split.

    False if another export has remembered some meanwhile, which this plan knows nothing of.
    """
    splits, project_id, anew = job.store.splits, job.project["id"], job.options.new_splits
    try:
        return job.store.write(lambda tx: splits.remember(tx, project_id, plan.records, plan.seen, anew))
    except (StoreFull, StoreReadOnly):
        # As with the record of the export itself: what is complete on disk stands.
        return True


def _plan(job: _Job, chosen: TrainingFormat) -> _Plan:
    """Check every approved row and give it a split. Raises :class:`InputError` if no row is left."""
    plan, columns = _Plan(seen=job.store.splits.newest(job.project["id"])), set[str]()
    seen: list[_Seen] = []
    known: set[bytes] = set()
    repeated: set[bytes] = set()
    for row in job.approved():
        checked = _checked(job, row, plan.left_out)
        if checked is None:
            continue
        if chosen.complete:
            columns.update(strictjson.loads(row["metadata"]))
        elif _CONTROL.search(row["text"]):
            plan.warnings.add("control_tokens", row["key"])
        answer, counts_as = checked
        digest = bytes.fromhex(content_hash(row["text"]))
        (repeated if digest in known else known).add(digest)
        said = hashlib.sha256(answer.encode("utf-8")).digest()[:16]
        record = _linked(row["record_id"], row["key"], row["cluster"], row["grp"], digest)
        seen.append(_Seen(row["id"], record, digest, said, counts_as, row["cluster"]))
    rows = list(_without_contradictions(seen, repeated, plan, job.options.keep_contradicting))
    _warn_of_near_contradictions(rows, repeated, plan)
    _give_places(job, rows, plan)
    if not plan.splits:
        found = str(plan.left_out)
        raise InputError(
            N_("Nothing to export: every approved annotation of %(task)r is left out. %(why)s")
            if found
            else N_("Nothing to export: no annotation of %(task)r is approved; approve some records first")
            if job.filters == Filters()
            else N_("Nothing to export: no annotation of %(task)r is approved and fits the filters"),
            task=job.task.name,
            why=found,
        )
    if len(columns) > _MOST_COLUMNS:
        raise InputError(
            "The metadata has %(n)s different names, too many for the columns of a table (at most "
            "%(most)s); choose a JSONL format",
            n=len(columns),
            most=_MOST_COLUMNS,
        )
    plan.columns = sorted(columns)
    return plan


def _linked(id_: int, key: str, cluster: int | None, group: str | None, digest: bytes) -> Linked:
    return Linked(id_, key, tuple(link for link in (cluster, group, digest) if link is not None))


def _give_places(job: _Job, rows: Sequence[_Seen], plan: _Plan) -> None:
    """Give each row its split, by all records of the project and by what left before."""
    splits, project_id = job.store.splits, job.project["id"]
    components = Components((row["cluster"], row["grp"]) for row in splits.ties(project_id))
    for one in rows:
        components.join(one.record.links)
    remembered = [
        (_linked(row["id"], row["key"], row["cluster"], row["grp"], bytes.fromhex(row["content_hash"])), row["split"])
        for row in ([] if job.options.new_splits else splits.remembered(project_id))
    ]
    places = Places(job.shares, components, remembered)
    heads = splits.heads([one.cluster for one in rows if one.cluster is not None and one.cluster != one.record.id])
    for one in rows:
        place = places.of(one.record, heads.get(one.cluster or 0, one.key))
        if place in SPLITS:
            plan.splits[one.annotation_id] = plan.records[one.record.id] = place
        else:
            plan.left_out.add(place, one.key)


def _warn_of_near_contradictions(rows: Sequence[_Seen], copies: Collection[bytes], plan: _Plan) -> None:
    """Name near-duplicates whose labels count differently; free texts that are put in other words do not.

    Exact ``copies`` have been judged already.
    """
    clusters: dict[int, set[tuple[str, ...]]] = {}
    for one in rows:
        if one.cluster is not None:
            clusters.setdefault(one.cluster, set()).add(one.counts_as)
    for one in rows:
        if one.cluster is not None and len(clusters[one.cluster]) > 1 and one.hash not in copies:
            plan.warnings.add("near_contradicting", one.key)


def _checked(job: _Job, row: Row, left_out: _Findings) -> tuple[str, tuple[str, ...]] | None:
    """Return what a model should answer for a row, and what that counts as; None if it is left out, with why."""
    if not row["text"].strip():
        left_out.add("empty_text", row["key"])
        return None
    raw = None if row["value"] is None else strictjson.loads(row["value"])
    if raw is None or (raw in ("", [], {}) and job.task.schema.empty() is None):
        left_out.add("empty_answer", row["key"])
        return None
    try:
        value = job.task.read(raw, row["task_version"], row["text"])
        answer, counts_as = job.task.answer(value), tuple(sorted(job.task.schema.strata(value)))
    except LabelError:
        left_out.add("not_in_schema", row["key"])
        return None
    if len(row["text"]) + len(answer) > job.options.longest:
        left_out.add("too_long", row["key"])
        return None
    return answer, counts_as


def _without_contradictions(seen: Sequence[_Seen], repeated: set[bytes], plan: _Plan, keep: bool) -> Iterator[_Seen]:
    """Yield the rows that leave, and name those whose text stands more than once."""
    copies: dict[bytes, dict[str, _Seen]] = {}
    for one in seen:
        if one.hash in repeated:
            # One record twice: it was decided again between two pages, and the later annotation is in force.
            copies.setdefault(one.hash, {})[one.key] = one
    for one in seen:
        same = copies.get(one.hash, {one.key: one})
        if same[one.key] is not one:
            continue
        contradicting = len({other.answer for other in same.values()}) > 1
        if contradicting and not keep:
            plan.left_out.add("contradicting", one.key)
            continue
        if len(same) > 1:
            plan.warnings.add("contradicting" if contradicting else "duplicate", one.key)
        yield one


# The second pass: rows into files


def _write_rows(job: _Job, chosen: TrainingFormat, plan: _Plan, exchange: Exchange) -> list[tuple[int, str]]:
    """Write the planned rows in the order of their annotations; return (annotation id, split) of each."""
    context = Context(job.task, job.style, job.options.formula_safe, job.options.bom, plan.columns)
    # Only splits with rows get a file: readers of data sets refuse one without.
    filled = set(plan.splits.values())
    files = {name: exchange.create(f"{name}{chosen.suffix}") for name in job.shares.used() if name in filled}
    records = None if chosen.complete else exchange.create(RECORDS)
    for file in files.values():
        file.write(chosen.head(context), rows=0)
    members: list[tuple[int, str]] = []
    for stored in job.approved():
        split = plan.splits.pop(stored["id"], None)
        if split is None:
            # Left out, or approved since the first pass: that waits for the next export.
            continue
        row = _export_row(job, stored, split)
        files[split].write(chosen.row(row, context))
        if records:
            records.write(record_line(row))
        members.append((row.annotation_id, split))
        plan.versions[stored["task_version"]] += 1
        plan.labels.setdefault(split, Counter()).update(job.task.schema.strata(row.value))
    for changed in _examples(job.store, plan.splits).values():
        plan.left_out.add("changed", changed["key"])
    if not members:
        raise InputError("Nothing to export: every record was decided again while the export ran; export again")
    about = chosen.about({name: file.name for name, file in files.items()}, context)
    if about is not None:
        exchange.create(about[0]).write(about[1], rows=0)
    exchange.finish()
    return members


def _export_row(job: _Job, stored: Row, split: str) -> ExportRow:
    text = stored["text"]
    value = job.task.read(strictjson.loads(stored["value"]), stored["task_version"], text)
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
    return ExportRow(stored["id"], record, value, _portable(job.task, value, text), split)


def _portable(task: Task, value: Value, text: str) -> Any:
    """Return the answer for ``value`` if it re-imports to ``value``, else ``value`` itself, which always does."""
    answer = task.schema.answer(value)
    if answer == value:
        return value
    try:
        return answer if task.schema.parse(answer, text) == value else value
    except LabelError:
        return value


def _manifest(job: _Job, chosen: Format, exchange: Exchange) -> dict[str, Any]:
    return {
        "labeler": labeler.__version__,
        **job.owner(chosen),
        "generated_at": _iso(datetime.now(UTC)),
        "task_version": job.task.version,
        "schema": job.offered.schema.to_json(),
        "retired": [label.name for label in job.offered.schema.retired],
        "filters": job.filters.to_json(),
        "options": asdict(job.options) | {"language": job.style.language, "columns": list(job.options.columns)},
        "files": exchange.entries(),
    }


def _record(
    job: _Job, exchange: Exchange, reviewer_id: int | None, members: Sequence[tuple[int, str]] = ()
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


def _export_suggestions(job: _Job, chosen: Suggestions, reviewer_id: int | None) -> ExportResult:
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


def _suggestion_pages(job: _Job) -> Iterator[list[Row]]:
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


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
