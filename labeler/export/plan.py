"""The first pass of an export: what leaves, into which split, and what is named in the manifest.

It sees every approved annotation once and keeps a few numbers per row: what must be left out, what is linked to what.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from labeler import strictjson
from labeler.errors import (
    InputError,
    LabelError,
    StoreFull,
    StoreReadOnly,
)
from labeler.export.formats import TrainingFormat
from labeler.export.job import Filters, Job
from labeler.export.splits import SPLITS, Components, Linked, Places, Shares
from labeler.sentence import N_, Sentence
from labeler.store import Row
from labeler.text import content_hash

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
    "no_suggestion": Sentence("No suggestion was there to compare the decision with"),
    "unread_suggestion": Sentence("The suggestion could not be read, so it is no answer"),
    "suggestion_not_in_schema": Sentence("The label schema of the task no longer allows what was suggested"),
    "as_suggested": Sentence("The label is what was suggested, so there is no worse answer"),
    "same_form": Sentence("Label and suggestion differ in form alone"),
    "no_order": Sentence("The ranking puts no answer above another that differs from it"),
    "ranked_rejected": Sentence("The answers were ranked, but the record is rejected"),
    "changed": Sentence("Somebody decided these records again while the export ran; export again to have them"),
}


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


class Findings:
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
class Plan:
    """The split of each row that leaves, by annotation id and by record, and what the second pass adds up.

    A ranking has its number with a minus sign in place of an annotation id. ``seen`` is the newest memory of splits
    that the plan knows of.
    """

    seen: int
    splits: dict[int, str] = field(default_factory=dict)
    records: dict[int, str] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    left_out: Findings = field(default_factory=Findings)
    warnings: Findings = field(default_factory=Findings)
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


def remembered(job: Job, plan: Plan) -> bool:
    """Remember the splits before anything is written: what may have left never leaves in another split.

    False if another export has remembered some meanwhile, which this plan knows nothing of.
    """
    splits, project_id, anew = job.store.splits, job.project["id"], job.options.new_splits
    try:
        return job.store.write(lambda tx: splits.remember(tx, project_id, plan.records, plan.seen, anew))
    except (StoreFull, StoreReadOnly):
        # As with the record of the export itself: what is complete on disk stands.
        return True


class Source(Protocol):
    """Where rows come from, if not from all approvals: some of these, and records that leave without an approval."""

    def approved(self, left_out: Findings) -> Iterator[Row]: ...

    def unapproved(self, left_out: Findings) -> Iterator[Row]: ...


def plan_of(job: Job, chosen: TrainingFormat, source: Source | None = None) -> Plan:
    """Check every row and give it a split. Raises :class:`InputError` if no row is left."""
    plan, columns = Plan(seen=job.store.splits.newest(job.project["id"])), set[str]()
    seen: list[_Seen] = []
    known: set[bytes] = set()
    repeated: set[bytes] = set()
    for row in job.approved() if source is None else source.approved(plan.left_out):
        checked = _checked(job, row, plan.left_out)
        if checked is None:
            continue
        if chosen.complete:
            columns.update(strictjson.loads(row["metadata"]))
        elif _CONTROL.search(row["text"]):
            plan.warnings.add("control_tokens", row["key"])
        one = _seen(row, *checked)
        (repeated if one.hash in known else known).add(one.hash)
        seen.append(one)
    rows = list(_without_contradictions(seen, repeated, plan, job.options.keep_contradicting))
    _warn_of_near_contradictions(rows, repeated, plan)
    for row in () if source is None else source.unapproved(plan.left_out):
        if _CONTROL.search(row["text"]):
            plan.warnings.add("control_tokens", row["key"])
        rows.append(_seen(row))
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


def _seen(row: Row, answer: str = "", counts_as: tuple[str, ...] = ()) -> _Seen:
    digest = bytes.fromhex(content_hash(row["text"]))
    said = hashlib.sha256(answer.encode("utf-8")).digest()[:16]
    record = _linked(row["record_id"], row["key"], row["cluster"], row["grp"], digest)
    return _Seen(row["id"], record, digest, said, counts_as, row["cluster"])


def _linked(id_: int, key: str, cluster: int | None, group: str | None, digest: bytes) -> Linked:
    return Linked(id_, key, tuple(link for link in (cluster, group, digest) if link is not None))


def _give_places(job: Job, rows: Sequence[_Seen], plan: Plan) -> None:
    """Give each row its split, by all records of the project and by what left before."""
    splits, project_id = job.store.splits, job.project["id"]
    components = Components((row["cluster"], row["grp"]) for row in splits.ties(project_id))
    for one in rows:
        components.join(one.record.links)
    earlier = [
        (_linked(row["id"], row["key"], row["cluster"], row["grp"], bytes.fromhex(row["content_hash"])), row["split"])
        for row in ([] if job.options.new_splits else splits.remembered(project_id))
    ]
    places = Places(job.shares, components, earlier)
    heads = splits.heads([one.cluster for one in rows if one.cluster is not None and one.cluster != one.record.id])
    for one in rows:
        place = places.of(one.record, heads.get(one.cluster or 0, one.key))
        if place in SPLITS:
            plan.splits[one.annotation_id] = plan.records[one.record.id] = place
        else:
            plan.left_out.add(place, one.key)


def _warn_of_near_contradictions(rows: Sequence[_Seen], copies: Collection[bytes], plan: Plan) -> None:
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


def _checked(job: Job, row: Row, left_out: Findings) -> tuple[str, tuple[str, ...]] | None:
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


def _without_contradictions(seen: Sequence[_Seen], repeated: set[bytes], plan: Plan, keep: bool) -> Iterator[_Seen]:
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
