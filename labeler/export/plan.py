"""The first pass of an export: what leaves, into which split, and what is named in the manifest.

It sees every approved annotation once and keeps a few numbers per row: what must be left out, what is linked to what.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any, Protocol

import numpy as np

from labeler import strictjson
from labeler.asked import asked
from labeler.errors import (
    InputError,
    LabelError,
    StoreFull,
    StoreReadOnly,
)
from labeler.export.asked import NOTHING, Beside, beside, has_controls, joint_tasks
from labeler.export.contacts import kinds_in, may_have, which_may_have
from labeler.export.filters import Filters, Sieve
from labeler.export.findings import Findings, finding
from labeler.export.formats import TrainingFormat
from labeler.export.job import Job
from labeler.export.placing import STATES, Memory, PlacedRow, Placing
from labeler.export.seen import NONE, Codes, Flags, Ints, Placed, Seen, Waiting, last_of_each, several
from labeler.export.selection import BY_DATE, DROP, MASK, crowded_out, fixed_place
from labeler.export.splits import SPLITS, TEST, TRAIN, Shares
from labeler.export.values import NO_TEXT, checked
from labeler.records import Value
from labeler.sentence import N_, Sentence
from labeler.store import Row
from labeler.store.database import taking

_COLUMNS = (
    "id", "value", "task_version", "record_id", "key", "text", "content_hash", "grp", "cluster", "metadata", "written",
)  # fmt: skip
_PAGE, _KEPT = 1000, 4096
FEW = 10
"""Fewer rows than this in a split are worth a warning."""
_MOST_COLUMNS = 200
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
    """The split of each row that leaves, by annotation id, and what the second pass adds up.

    A ranking has its number with a minus sign in place of an annotation id. ``seen`` is the newest memory of splits
    that it knows of, ``fresh`` are the records that it takes up, and ``tested`` those that a frozen test set would
    hold. ``beside`` are the annotations of other tasks that stand in the answer of a row, and ``asked`` says how the
    prompts are put. ``filtered`` counts the rows that each filter kept out, ``moved`` names those that left in another
    split before, and ``written`` those that a model wrote. ``counted`` are the rows that stand in files, by their split
    and by what they count as.
    """

    seen: int
    splits: Placed = field(default_factory=Placed)
    fresh: Placed = field(default_factory=Placed)
    tested: list[int] = field(default_factory=list)
    beside: dict[int, tuple[int, ...]] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    left_out: Findings = field(default_factory=Findings)
    warnings: Findings = field(default_factory=Findings)
    moved: Findings = field(default_factory=Findings)
    written: Findings = field(default_factory=Findings)
    filtered: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    counted: Counter[tuple[str, tuple[str, ...]]] = field(default_factory=Counter)
    asked: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def waiting(self) -> Waiting:
        """The rows that are still to be written."""
        return Waiting(self.splits)

    @property
    def labels(self) -> dict[str, Counter[str]]:
        """How many of the rows in files count as what, by split."""
        found: dict[str, Counter[str]] = {}
        for (split, counts_as), n in self.counted.items():
            for label in counts_as:
                found.setdefault(split, Counter())[label] += n
        return found

    def report(self, shares: Shares, members: Placed) -> dict[str, Any]:
        """Return the part of the manifest that speaks of rows."""
        counts, labels = Counter(members.counts()), self.labels
        return {
            "task_versions": dict(sorted(self.versions.items())),
            "shares": shares.as_dict(),
            "counts": {name: counts[name] for name in shares.used()} | {"all": len(members)},
            "labels": {name: dict(labels.get(name, Counter()).most_common()) for name in shares.used()},
            "filtered": dict(self.filtered),
            "left_out": self.left_out.to_json(),
            "moved": self.moved.to_json(),
            "written": self.written.to_json(),
            "warnings": [*self.warnings.to_json(), *self._about_splits(shares, counts)],
        }

    def _about_splits(self, shares: Shares, counts: Counter[str]) -> Iterator[dict[str, Any]]:
        labels = self.labels
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
            lacking = sorted(labels.get(TRAIN, Counter()).keys() - labels.get(name, Counter()).keys())
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
    freeze, test = job.selection.freeze, plan.tested
    if freeze and not test:
        raise InputError("There are no test rows to freeze; give the test set a share")

    def note(tx: Any) -> bool:
        if not splits.remember(tx, project_id, plan.fresh, plan.seen, again):
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
    # One record twice: it was decided again between two pages, and the later annotation is in force.
    standing = last_of_each(np.array(seen.records, dtype=np.int64))
    wrote = seen.written[standing]
    rows = _without_contradictions(seen, standing[~wrote], plan, job.options.keep_contradicting)
    unlike = _unlike(seen, standing[~wrote], standing[wrote], plan)
    first = len(seen)
    for row in () if source is None else source.unapproved(plan.left_out):
        if _without_contacts(job, row, None, "", plan):
            _warn_of_controls(row["text"], row["key"], plan)
            seen.add(row["id"], row["record_id"], row["key"], bool(row["written"]), _date(job, row))
            seen.link(row["cluster"], row["grp"], row["content_hash"])
    _give_places(job, seen, np.concatenate([rows, unlike, np.arange(first, len(seen))]), plan)
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
    members = job.store.exports.members(job.again, job.task.name)
    plan, columns = Plan(seen=0, splits=Placed(members.items())), set[str]()
    if not members:
        raise InputError("The records of this export were all removed, so nothing is left to make it of")
    for page, found in _pages(job, Sieve(job.filters), None, plan.left_out):
        for id_, more in found.items():
            plan.beside[id_] = tuple(other for other, _ in more.others.values())
        if chosen.complete:
            columns.update(*(strictjson.loads(row["metadata"]) for row in page))
        for row in page:
            if row["written"]:
                plan.written.add("written", row["key"], model="")
    plan.columns = sorted(columns)
    return plan


def _pages(
    job: Job, sieve: Sieve, source: Source | None, left_out: Findings
) -> Iterator[tuple[Sequence[Row], Mapping[int, Beside]]]:
    """Yield rows in pages, and what their answers have beside their labels, by annotation id."""
    if source is not None:
        rows = source.approved(sieve, left_out)
        while page := list(islice(rows, _PAGE)):
            yield page, {}
        return
    others = joint_tasks(job)
    for page in job.approved_pages(sieve, brief=True):
        yield page, beside(job, page, others)


def _all_seen(job: Job, chosen: TrainingFormat, plan: Plan, source: Source | None) -> Seen:
    """Return what is kept of the rows that pass the filters and can be learned from."""
    sieve, columns, seen = Sieve(job.filters), set[str](), Seen()
    labels = {label.name for label in job.task.schema.labels}
    read_value = checked(job.task, asked(job.task, job.style) if chosen.asks else job.task)
    names = lru_cache(_KEPT)(strictjson.loads)
    for page, found in _pages(job, sieve, source, plan.left_out):
        taken = [*map(taking(page, _COLUMNS), page)]
        unsure = set(which_may_have([f"{row[5]}\0{row[9]}" for row in taken]))
        for n, (id_, stored, version, record, key, text, digest, product, cluster, metadata, written) in enumerate(
            taken
        ):
            more = found.get(id_, NOTHING)
            read = read_value(stored, version, text) if text and not text.isspace() else NO_TEXT
            if why := read.why or more.why or _too_long(job, text, read.answer):
                plan.left_out.add(why, key)
                continue
            if not sieve.passes_as(read.counts_as):
                continue
            if (n in unsure or read.contacts) and not _without_contacts(job, page[n], read.value, read.answer, plan):
                continue
            if chosen.complete:
                columns.update(names(metadata))
            else:
                _warn_of_controls(text, key, plan)
            if more.others:
                plan.beside[id_] = tuple(other for other, _ in more.others.values())
            seen.add(id_, record, key, written, _date(job, page[n]), read.hash, read.counts_as)
            seen.link(cluster, product, digest)
    labels.update(*seen.strata())
    sieve.check(labels)
    _check_labels(job, labels)
    plan.filtered, plan.columns = sieve.kept_out, sorted(columns)
    return seen


def _too_long(job: Job, text: str, answer: str) -> str:
    return "too_long" if len(text) + len(answer) > job.options.longest else ""


def _warn_of_controls(text: str, key: str, plan: Plan) -> None:
    if has_controls(text):
        plan.warnings.add("control_tokens", key)


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


def _give_places(job: Job, seen: Seen, rows: Ints, plan: Plan) -> None:
    """Give each row its split, by all records of the project and by what left before, if there is room for it.

    What a model wrote comes behind all others, and what it was written after is train from now on.
    """
    splits, project_id = job.store.splits, job.project["id"]
    rows = rows[np.argsort(seen.written[rows], kind="stable")]
    wrote = [seen.records[place] for place in rows[seen.written[rows]].tolist()]
    origins = job.store.written.origins(wrote)
    memory, sources = Memory.of(splits, project_id), [origins[id_].sources for id_ in wrote]
    holds = memory.that_holds(job.options.new_splits)
    placing = Placing(splits, project_id, seen, rows, holds, job.shares, job.selection.split_by, sources)
    states, before = placing.states(), memory.of_records(placing.records)
    stays = _staying(job, placing, states, before, plan)
    fresh = stays if job.options.new_splits else stays & (before < 0)
    plan.splits = Placed.of(np.array(seen.ids, dtype=np.int64)[rows][stays], states[stays])
    plan.fresh = Placed.of(placing.records[fresh], states[fresh])
    # A record that several people ranked has several rows.
    plan.tested = np.unique(placing.records[stays & (states == SPLITS.index(TEST))]).tolist()
    for n, id_ in enumerate(wrote, len(rows) - len(wrote)):
        if stays[n]:
            plan.written.add("written", seen.keys[rows[n]], model=origins[id_].model_id)
            for source in origins[id_].sources:
                plan.fresh.add(source, TRAIN)


def _staying(job: Job, placing: Placing, states: Codes, before: Codes, plan: Plan) -> Flags:
    """Return which rows leave; name the others, and those that left in another split before."""
    keys, rows = placing.seen.keys, placing.rows
    for n in np.flatnonzero(states >= len(SPLITS)).tolist():
        plan.left_out.add(STATES[states[n]], keys[rows[n]])
    stays: Flags = states < len(SPLITS)
    stays[_too_many(job, placing, states, before, plan.left_out)] = False
    for n in np.flatnonzero(stays & (before >= 0) & (before != states)).tolist():
        plan.moved.add("moved", keys[rows[n]], before=SPLITS[before[n]], split=SPLITS[states[n]])
    return stays


def _too_many(job: Job, placing: Placing, states: Codes, before: Codes, left_out: Findings) -> list[int]:
    """Return the rows that are too many of a cluster, or in train of a label, by their numbers, and name them.

    What left before comes first, then a fixed order of the keys: what left once is not crowded out by what came later.
    What a model wrote comes last.
    """
    selection = job.selection
    if selection.near_duplicates is None and not selection.caps:
        return []
    rows = [(placing.row(n), n) for n in np.flatnonzero(states < len(SPLITS)).tolist()]
    in_order = sorted(rows, key=lambda row: (placing.is_written(row[1]), before[row[1]] < 0, fixed_place(row[0].key)))
    out: dict[int, None] = {}

    def leave_out(kind: str, some: Iterable[tuple[PlacedRow, int]]) -> None:
        for row, n in some:
            out[n] = None
            left_out.add(kind, row.key)

    if selection.near_duplicates is not None:
        most = float(selection.near_duplicates)
        leave_out("thinned", crowded_out(in_order, lambda row: row[0].copies, lambda _: most))
    in_train = [row for row in in_order if states[row[1]] == SPLITS.index(TRAIN) and row[1] not in out]
    leave_out("capped", crowded_out(in_train, lambda row: row[0].counts_as, selection.room))
    return list(out)


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


def _unlike(seen: Seen, real: Ints, written: Ints, plan: Plan) -> Ints:
    """Return the rows that a model wrote, without those whose text a customer wrote as well, or nearly."""
    copies = np.zeros(len(written), dtype=bool)
    for links in (seen.texts, seen.clusters):
        copies |= np.isin(links[written], links[real]) & (links[written] != NONE)
    for place in written[copies].tolist():
        plan.left_out.add("written_copy", seen.keys[place])
    return written[~copies]


def _without_contradictions(seen: Seen, standing: Ints, plan: Plan, keep: bool) -> Ints:
    """Return the rows that leave, and name those whose text, or one close to it, stands more than once.

    Near-duplicates contradict each other if their labels count differently; free texts that are put in other words do
    not.
    """
    texts, clusters, counts = seen.texts[standing], seen.clusters[standing], seen.counts[standing]
    copies, near = several(texts), several(clusters)
    answers: dict[int, set[bytes]] = {}
    among: dict[int, tuple[set[int], set[int]]] = {}
    looked_at = np.flatnonzero(copies | near).tolist()
    for n in looked_at:
        answers.setdefault(texts[n], set()).add(seen.answer(standing[n]))
        if near[n]:
            both = among.setdefault(clusters[n], (set(), set()))
            both[0].add(texts[n])
            both[1].add(counts[n])
    leaving = np.ones(len(standing), dtype=bool)
    for n in looked_at:
        kinds = [] if not copies[n] else ["contradicting"] if len(answers[texts[n]]) > 1 else ["duplicate"]
        if near[n] and all(len(one) > 1 for one in among[clusters[n]]):
            kinds.append("near_contradicting")
        contradicting = [kind for kind in kinds if kind != "duplicate"]
        key = seen.keys[standing[n]]
        if contradicting and not keep:
            plan.left_out.add(contradicting[0], key)
            leaving[n] = False
            continue
        for kind in kinds:
            plan.warnings.add(kind, key)
    return standing[leaving]
