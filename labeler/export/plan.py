"""The first pass of an export: what leaves, into which split, and what is named in the manifest.

It sees every approved annotation once and keeps a few numbers per row: what must be left out, what is linked to what.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from labeler import strictjson
from labeler.asked import asked
from labeler.errors import (
    InputError,
    LabelError,
    StoreFull,
    StoreReadOnly,
)
from labeler.export.asked import NOTHING, Beside, beside, has_controls, joint_tasks
from labeler.export.contacts import kinds_in, may_have
from labeler.export.filters import Filters, Sieve
from labeler.export.findings import Findings, finding
from labeler.export.formats import TrainingFormat
from labeler.export.job import Job
from labeler.export.selection import BY_DATE, BY_LABEL, BY_NAME, DROP, MASK, crowded_out, fixed_place
from labeler.export.splits import (
    ROWS,
    SPLITS,
    TEST,
    TRAIN,
    Components,
    Link,
    Linked,
    Places,
    Shares,
    by_date,
    by_label,
    split_of,
)
from labeler.records import Record, Value
from labeler.sentence import N_, Sentence
from labeler.store import Row, Store
from labeler.store.written import Origin
from labeler.task import Task

FEW = 10
"""Fewer rows than this in a split are worth a warning."""
_MOST_COLUMNS = 200
T = TypeVar("T")


class _Seen(NamedTuple):
    """All that is kept of a row between the passes; ``date`` is 0 unless splits are by date.

    ``written`` says that a model wrote the text.
    """

    annotation_id: int
    record: Linked
    hash: bytes
    answer: bytes
    counts_as: tuple[str, ...]
    cluster: int | None
    date: float
    written: bool

    @property
    def key(self) -> str:
        return self.record.key


_SHARE_EMPTY = N_(
    "%(split)s has no rows, and no file was written for it: there are too few rows, products and near-duplicates that "
    "belong together are too large, or earlier exports had other shares"
)
_SHARE_MISSED = N_(
    "%(split)s has %(share)s of the rows, not %(wanted)s: there are too few rows, products and near-duplicates that "
    "belong together are too large, or earlier exports had other shares"
)


@dataclass
class Plan:
    """The split of each row that leaves, by annotation id and by record, and what the second pass adds up.

    A ranking has its number with a minus sign in place of an annotation id. ``seen`` is the newest memory of splits
    that it knows of. ``beside`` are the annotations of other tasks that stand
    in the answer of a row, and ``asked`` says how the prompts are put. ``filtered`` counts the rows that each filter
    kept out, ``moved`` names those that left in another split before, and ``written`` those that a model wrote.
    """

    seen: int
    splits: dict[int, str] = field(default_factory=dict)
    records: dict[int, str] = field(default_factory=dict)
    beside: dict[int, tuple[int, ...]] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    left_out: Findings = field(default_factory=Findings)
    warnings: Findings = field(default_factory=Findings)
    moved: Findings = field(default_factory=Findings)
    written: Findings = field(default_factory=Findings)
    filtered: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def frozen(self) -> list[int]:
        """The records that a frozen test set would hold."""
        return [id_ for id_, split in self.records.items() if split == TEST]

    def report(self, shares: Shares, members: Sequence[tuple[int, str]]) -> dict[str, Any]:
        """Return the part of the manifest that speaks of rows."""
        counts = Counter(split for _, split in members)
        return {
            "task_versions": dict(sorted(self.versions.items())),
            "shares": shares.as_dict(),
            "counts": {name: counts[name] for name in shares.used()} | {"all": len(members)},
            "labels": {name: dict(self.labels.get(name, Counter()).most_common()) for name in shares.used()},
            "filtered": dict(self.filtered),
            "left_out": self.left_out.to_json(),
            "moved": self.moved.to_json(),
            "written": self.written.to_json(),
            "warnings": [*self.warnings.to_json(), *self._about_splits(shares, counts)],
        }

    def _about_splits(self, shares: Shares, counts: Counter[str]) -> Iterator[dict[str, Any]]:
        # What a model wrote stands in train alone, and is no part of what was split.
        split = counts - Counter({TRAIN: self.written.total})
        for name in shares.used():
            n, share, wanted = counts[name], split[name] / max(split.total(), 1), shares.as_dict()[name]
            if not n or abs(share - wanted) > 0.1:
                said = _SHARE_MISSED if n else _SHARE_EMPTY
                yield finding(
                    "share_missed", Sentence(said, split=name, share=f"{share:.0%}", wanted=f"{wanted:.0%}"), n
                )
            if 0 < n < FEW:
                said = N_("%(split)s has %(n)s rows only; results on fewer than %(few)s say little")
                yield finding("few_rows", Sentence(said, split=name, n=n, few=FEW), n)
            lacking = sorted(self.labels.get(TRAIN, Counter()).keys() - self.labels.get(name, Counter()).keys())
            # Few rows lack labels as a rule: one sentence is enough.
            if n >= FEW and lacking:
                said = N_("%(split)s lacks labels that the training set has: %(names)s")
                yield finding(
                    "label_absent",
                    Sentence(said, split=name, names=", ".join(lacking[:8]) + " ..." * (len(lacking) > 8)),
                    n,
                )


def remembered(job: Job, plan: Plan) -> bool:
    """Remember the splits before anything is written: what may have left never leaves in another split.

    False if another export has remembered some meanwhile, which this plan knows nothing of. Raises
    :class:`InputError` if the test set is to be frozen and there is none, or one of that name.
    """
    splits, project_id, again = job.store.splits, job.project["id"], job.options.new_splits
    freeze, test = job.selection.freeze, plan.frozen
    if freeze and not test:
        raise InputError("There are no test rows to freeze; give the test set a share")

    def note(tx: Any) -> bool:
        if not splits.remember(tx, project_id, plan.records, plan.seen, again):
            return False
        if freeze:
            splits.freeze(tx, project_id, freeze, test)
        return True

    try:
        return bool(job.store.write(note))
    except (StoreFull, StoreReadOnly):
        if freeze:
            raise
        # As with the record of the export itself: what is complete on disk stands.
        return True


class Source(Protocol):
    """Where rows come from, if not from all approvals: some of these, and records that leave without an approval."""

    def approved(self, sieve: Sieve, left_out: Findings) -> Iterator[Row]: ...

    def unapproved(self, left_out: Findings) -> Iterator[Row]: ...


def plan_of(job: Job, chosen: TrainingFormat, source: Source | None = None) -> Plan:
    """Check every row and give it a split.

    Raises :class:`InputError` if no row is left, or for a name that is asked for and that no row has.
    """
    plan = Plan(seen=job.store.splits.newest(job.project["id"]))
    seen = _all_seen(job, chosen, plan, source)
    real = [one for one in seen if not one.written]
    rows = _without_contradictions(real, plan, job.options.keep_contradicting)
    rows += _unlike(real, (one for one in seen if one.written), plan)
    for row in () if source is None else source.unapproved(plan.left_out):
        if _without_contacts(job, row, None, "", plan):
            _warn_of_controls(row, plan)
            rows.append(_seen(job, row))
    _give_places(job, rows, plan)
    if not plan.splits:
        named = str(plan.left_out)
        raise InputError(
            N_("Nothing to export: every approved annotation of %(task)r is left out. %(why)s")
            if named
            else N_("Nothing to export: no annotation of %(task)r is approved; approve some records first")
            if job.filters == Filters()
            else N_("Nothing to export: no annotation of %(task)r is approved and fits the filters"),
            task=job.task.name,
            why=named,
        )
    if len(plan.columns) > _MOST_COLUMNS:
        raise InputError(
            "The metadata has %(n)s different names, too many for the columns of a table (at most "
            "%(most)s); choose a JSONL format",
            n=len(plan.columns),
            most=_MOST_COLUMNS,
        )
    return plan


def plan_again(job: Job, chosen: TrainingFormat) -> Plan:
    """Return the plan of an export that is made again: its rows, each in the split that it left in.

    Raises :class:`InputError` if none of its records is there any more.
    """
    assert job.again is not None
    plan, columns = Plan(seen=0, splits=job.store.exports.members(job.again, job.task.name)), set[str]()
    if not plan.splits:
        raise InputError("The records of this export were all removed, so nothing is left to make it of")
    for row, found in _with_beside(job, Sieve(job.filters), joint_tasks(job)):
        plan.beside[row["id"]] = tuple(id_ for id_, _ in found.others.values())
        if chosen.complete:
            columns.update(strictjson.loads(row["metadata"]))
        if row["written"]:
            plan.written.add("written", row["key"], model="")
    plan.columns = sorted(columns)
    return plan


def _with_beside(job: Job, sieve: Sieve, others: Mapping[str, Task]) -> Iterator[tuple[Row, Beside]]:
    for page in job.approved_pages(sieve):
        found = beside(job, page, others)
        yield from ((row, found.get(row["id"], NOTHING)) for row in page)


def _all_seen(job: Job, chosen: TrainingFormat, plan: Plan, source: Source | None) -> list[_Seen]:
    """Return what is kept of the rows that pass the filters and can be learned from."""
    sieve, columns, seen = Sieve(job.filters), set[str](), list[_Seen]()
    labels = {label.name for label in job.task.schema.labels}
    task = asked(job.task, job.style) if chosen.asks else job.task
    rows = _with_beside(job, sieve, joint_tasks(job))
    if source is not None:
        rows = ((row, NOTHING) for row in source.approved(sieve, plan.left_out))
    for row, found in rows:
        checked = _checked(job, row, task, found, plan.left_out)
        if checked is None:
            continue
        value, answer = checked
        counts_as = tuple(sorted(job.task.schema.strata(value)))
        labels.update(counts_as)
        if not sieve.passes_as(counts_as) or not _without_contacts(job, row, value, answer, plan):
            continue
        if chosen.complete:
            columns.update(strictjson.loads(row["metadata"]))
        else:
            _warn_of_controls(row, plan)
        if found.others:
            plan.beside[row["id"]] = tuple(id_ for id_, _ in found.others.values())
        seen.append(_seen(job, row, answer, counts_as))
    sieve.check(labels)
    _check_labels(job, labels)
    plan.filtered, plan.columns = sieve.kept_out, sorted(columns)
    return seen


def _seen(job: Job, row: Row, answer: str = "", counts_as: tuple[str, ...] = ()) -> _Seen:
    digest = bytes.fromhex(row["content_hash"])
    said = hashlib.sha256(answer.encode("utf-8")).digest()[:16]
    record = _linked(row["record_id"], row["key"], row["cluster"], row["grp"], digest)
    return _Seen(
        row["id"], record, digest, said, counts_as, row["cluster"], _date(job, row), bool(row["written"])
    )  # fmt: skip


def _warn_of_controls(row: Row, plan: Plan) -> None:
    if has_controls(row["text"]):
        plan.warnings.add("control_tokens", row["key"])


def _check_labels(job: Job, labels: set[str]) -> None:
    strange = sorted(job.selection.labels - labels)
    if labels and strange:
        raise InputError(
            "No approved label of this task counts as %(name)r; there are: %(names)s",
            name=strange[0],
            names=", ".join(sorted(labels)[:20]),
        )


def _date(job: Job, row: Row) -> float:
    if job.selection.split_by != BY_DATE:
        return 0.0
    metadata = strictjson.loads(row["metadata"]) if job.selection.date_column else {}
    return job.selection.dated(row["key"], row["created_at"], metadata)


def _linked_row(row: Row) -> Linked:
    return _linked(row["id"], row["key"], row["cluster"], row["grp"], bytes.fromhex(row["content_hash"]))


def _linked_record(record: Record) -> Linked:
    return _linked(record.id, record.key, record.cluster, record.group, bytes.fromhex(record.content_hash))


def _linked(id_: int, key: str, cluster: int | None, group: str | None, digest: bytes) -> Linked:
    return Linked(id_, key, tuple(link for link in (cluster, group, digest) if link is not None))


def _give_places(job: Job, rows: Sequence[_Seen], plan: Plan) -> None:
    """Give each row its split, by all records of the project and by what left before, if there is room for it.

    What a model wrote comes behind all others, and is train or stays out.
    """
    stored, project_id = job.store.splits.remembered(job.project["id"]), job.project["id"]
    earlier = [row for row in stored if row["frozen"] or not job.options.new_splits]
    real, written = ([one for one in rows if one.written is which] for which in (False, True))
    origins = job.store.written.origins([one.record.id for one in written])
    sources = _sources(job.store, origins)
    all_ = [*(one.record for one in rows), *sources.values()]
    places = _places(job.store, project_id, all_, job.shares, earlier)
    draw = _draw(job, real, places)
    placed: list[tuple[_Seen, str]] = []
    for one in real:
        place = places.of(one.record, partial(draw, one))
        if place in SPLITS:
            placed.append((one, place))
        else:
            plan.left_out.add(place, one.key)
    for one in written:
        after = [sources[id_] for id_ in origins[one.record.id].sources if id_ in sources]
        if {places.of(record, lambda: TRAIN) for record in (*after, one.record)} == {TRAIN}:
            placed.append((one, TRAIN))
        else:
            # What was written after a record repeats it in part: it would tell what is tested.
            plan.left_out.add("written_held_out", one.key)
    before = {row["id"]: row["split"] for row in stored}
    for one, place in _with_room(job, placed, before, plan.left_out):
        plan.splits[one.annotation_id] = plan.records[one.record.id] = place
        if before.get(one.record.id, place) != place:
            plan.moved.add("moved", one.key, before=before[one.record.id], split=place)
        if one.written:
            plan.written.add("written", one.key, model=origins[one.record.id].model_id)
            # From now on they are train: what was written after them is.
            for source in origins[one.record.id].sources:
                plan.records.setdefault(source, TRAIN)


def _places(
    store: Store, project_id: int, records: Iterable[Linked], shares: Shares, earlier: Iterable[Row]
) -> Places:  # fmt: skip
    """Return the places of records, by all that ties those of a project together and by what left ``earlier``."""
    components = Components((row["cluster"], row["grp"]) for row in store.splits.ties(project_id))
    for one in records:
        components.join(one.links)
    return Places(shares, components, [(_linked_row(row), row["split"]) for row in earlier])


def trained_places(store: Store, project_id: int, record_ids: Sequence[int]) -> set[int]:
    """Return those of some records that exports of usual shares train on: by what left before, else by their names.

    Records that are tied to two splits are none of them.
    """
    found = list(store.records.many(record_ids).values())
    linked = [_linked_record(record) for record in found]
    places = _places(store, project_id, linked, Shares(), store.splits.remembered(project_id))
    draw = _by_name(store, places, Shares(), [(one, record.cluster) for one, record in zip(linked, found, strict=True)])
    pairs = [(one, record.cluster) for one, record in zip(linked, found, strict=True)]
    return {one.id for one, cluster in pairs if places.of(one, partial(draw, one, cluster)) == TRAIN}


def _sources(store: Store, origins: Mapping[int, Origin]) -> dict[int, Linked]:
    """Return the records that texts were written after, by number."""
    ids = sorted({source for origin in origins.values() for source in origin.sources})
    return {id_: _linked_record(record) for id_, record in store.records.many(ids).items()}


def _unlike(real: Iterable[_Seen], written: Iterable[_Seen], plan: Plan) -> Iterator[_Seen]:
    """Yield the rows that a model wrote, without those whose text a customer wrote as well, or nearly."""
    known = {link for one in real for link in (one.hash, one.cluster) if link is not None}
    for one in written:
        if known.isdisjoint((one.hash, one.cluster)):
            yield one
        else:
            plan.left_out.add("written_copy", one.key)


def _draw(job: Job, rows: Sequence[_Seen], places: Places) -> Callable[[_Seen], str]:
    """Return what gives the split of a row whose component no earlier export has placed."""
    if job.selection.split_by == BY_NAME:
        by_name = _by_name(job.store, places, job.shares, [(one.record, one.cluster) for one in rows])
        return lambda one: by_name(one.record, one.cluster)
    free: dict[Link, list[_Seen]] = {}
    placed: dict[str, Counter[str]] = {name: Counter() for name in job.shares.used()}
    for one in rows:
        split = places.before(one.record)
        if split is None:
            free.setdefault(places.component(one.record), []).append(one)
        elif split in placed:
            placed[split].update((*one.counts_as, ROWS))
    drawn = (by_label if job.selection.split_by == BY_LABEL else by_date)(free, placed, job.shares)
    return lambda one: drawn[places.component(one.record)]


def _by_name(
    store: Store, places: Places, shares: Shares, rows: Iterable[tuple[Linked, int | None]]
) -> Callable[[Linked, int | None], str]:
    """Return what gives a record, with its cluster, the split that the name of its component is laid on."""
    heads = store.splits.heads([cluster for one, cluster in rows if cluster is not None and cluster != one.id])
    return lambda one, cluster: split_of(places.name(one, heads.get(cluster or 0, one.key)), shares)


def _with_room(
    job: Job, placed: Sequence[tuple[_Seen, str]], before: Collection[int], left_out: Findings
) -> list[tuple[_Seen, str]]:
    """Return the rows without those that are too many of a cluster, or in train of a label, and name these.

    What left before comes first, then a fixed order of the keys: what left once is not crowded out by what came later.
    What a model wrote comes last.
    """
    selection = job.selection
    if selection.near_duplicates is None and not selection.caps:
        return list(placed)
    in_order = sorted(placed, key=lambda row: (row[0].written, row[0].record.id not in before, fixed_place(row[0].key)))
    out: set[int] = set()

    def leave_out(kind: str, rows: Iterable[tuple[_Seen, str]]) -> None:
        for one, _ in rows:
            out.add(one.annotation_id)
            left_out.add(kind, one.key)

    if selection.near_duplicates is not None:
        most = float(selection.near_duplicates)
        leave_out("thinned", crowded_out(in_order, _copies, lambda _: most))
    in_train = [row for row in in_order if row[1] == TRAIN and row[0].annotation_id not in out]
    leave_out("capped", crowded_out(in_train, _labels, selection.room))
    return [row for row in placed if row[0].annotation_id not in out]


def _copies(row: tuple[_Seen, str]) -> tuple[Link, ...]:
    return tuple(link for link in (row[0].cluster, row[0].hash) if link is not None)


def _labels(row: tuple[_Seen, str]) -> tuple[str, ...]:
    return row[0].counts_as


def _checked(job: Job, row: Row, task: Task, more: Beside, left_out: Findings) -> tuple[Value, str] | None:
    """Return the value of a row and what a model should answer; None if it is left out, with why."""
    if not row["text"].strip():
        left_out.add("empty_text", row["key"])
        return None
    raw = None if row["value"] is None else strictjson.loads(row["value"])
    if raw is None or (raw in ("", [], {}) and job.task.schema.empty() is None):
        left_out.add("empty_answer", row["key"])
        return None
    try:
        value = job.task.read(raw, row["task_version"], row["text"])
    except LabelError:
        left_out.add("not_in_schema", row["key"])
        return None
    try:
        answer = task.answer(value)
    except LabelError:
        left_out.add("no_plain_answer", row["key"])
        return None
    if more.why:
        left_out.add(more.why, row["key"])
        return None
    if len(row["text"]) + len(answer) > job.options.longest:
        left_out.add("too_long", row["key"])
        return None
    return value, answer


def _without_contacts(job: Job, row: Row, value: Value | None, answer: str, plan: Plan) -> bool:
    """Tell whether a row leaves with the contact data that it has, and name it."""
    text, asked = row["text"], job.selection.contacts
    if not any(map(may_have, (text, answer, row["metadata"]))):
        return True
    kinds = kinds_in([text, answer, strictjson.loads(row["metadata"])])
    if not kinds:
        return True
    if asked == MASK and value is not None and not _same_when_masked(job, text, value, answer):
        plan.left_out.add("contact_label", row["key"])
        return False
    for kind in sorted(kinds):
        where = plan.left_out if asked == DROP else plan.warnings
        where.add("contact_masked" if asked == MASK else "contact", row["key"], contact=kind)
    return asked != DROP


def _same_when_masked(job: Job, text: str, value: Value, answer: str) -> bool:
    """Tell whether a label is the same on the masked text: it neither has contact data nor points at it."""
    try:
        return not kinds_in(answer) and bool(job.task.schema.parse(value, job.selection.text(text)) == value)
    except LabelError:
        return False


def _without_contradictions(seen: Sequence[_Seen], plan: Plan, keep: bool) -> list[_Seen]:
    """Return the rows that leave, and name those whose text, or one close to it, stands more than once.

    Near-duplicates contradict each other if their labels count differently; free texts that are put in other words do
    not.
    """
    copies: dict[bytes, dict[str, _Seen]] = {hash_: {} for hash_ in _more_than_once(one.hash for one in seen)}
    for one in seen:
        if one.hash in copies:
            # One record twice: it was decided again between two pages, and the later annotation is in force.
            copies[one.hash][one.key] = one
    standing = [one for one in seen if copies.get(one.hash, {one.key: one})[one.key] is one]
    near: dict[int | None, tuple[set[bytes], set[tuple[str, ...]]]] = {
        cluster: (set(), set()) for cluster in _more_than_once(one.cluster for one in standing) if cluster is not None
    }
    for one in standing:
        if one.cluster in near:
            texts, labels = near[one.cluster]
            texts.add(one.hash)
            labels.add(one.counts_as)
    leaving: list[_Seen] = []
    for one in standing:
        same = copies.get(one.hash, {one.key: one}).values()
        differ = len({other.answer for other in same}) > 1
        texts, labels = near.get(one.cluster, (set(), set()))
        kinds = ["contradicting"] if differ else ["duplicate"] if len(same) > 1 else []
        kinds += ["near_contradicting"] if len(texts) > 1 and len(labels) > 1 else []
        contradicting = [kind for kind in kinds if kind != "duplicate"]
        if contradicting and not keep:
            plan.left_out.add(contradicting[0], one.key)
            continue
        for kind in kinds:
            plan.warnings.add(kind, one.key)
        leaving.append(one)
    return leaving


def _more_than_once(values: Iterable[T]) -> set[T]:
    seen, again = set[T](), set[T]()
    for value in values:
        (again if value in seen else seen).add(value)
    return again
