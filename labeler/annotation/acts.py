"""One act on many records: approve what is suggested, give a label, reject, or put back to pending.

It is looked at first, with numbers; it is done in slices, by whoever asked for it and then by the background; and it is
undone as a whole, but for records on which somebody decided since. Its decisions say that they are such (``bulk``), and
count in no agreement: nobody looked at these records one by one. Left out are records that somebody works on, and for
approvals those whose suggestion says nothing, and those that people decide blind.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from labeler import strictjson
from labeler.annotation.ballots import Overlap
from labeler.annotation.query import Query, parse
from labeler.annotation.queue import is_blind
from labeler.annotation.table import RecordTable, read
from labeler.errors import Conflict, InputError, LabelError, NotFound
from labeler.records import Value
from labeler.sentence import N_
from labeler.store import Row, Store, Tx
from labeler.store.acts import DOING, DONE, ORIGIN, UNDOING, UNDONE
from labeler.store.annotations import APPROVED, REJECTED
from labeler.store.table import Place
from labeler.store.tags import PERSON
from labeler.store.work import DISPUTED
from labeler.task import Task
from labeler.text import checked_name

APPROVE, LABEL, REJECT, REOPEN = "approve", "label", "reject", "reopen"
TAG, UNTAG = TAGGING = ("tag", "untag")
KINDS = (APPROVE, LABEL, REJECT, REOPEN, *TAGGING)
"""What can be done with records. TAGGING decides nothing: the value is a tag."""
SAME, BLIND, UNSUGGESTED, UNFIT, DECIDED, HELD, PENDING, WRITTEN, SHARED = (
    "same", "blind", "unsuggested", "unfit", "decided", "held", "pending", "written", "shared"
)  # fmt: skip
"""Why a record is left out: it is so already, is to be decided blind, has no suggestion to approve, cannot have the
label, is decided (only pending suggestions are approved), is on somebody's desk, is pending already, was written by a
model, is for several people to decide on."""
MOST_CHOSEN = 5000
LONGEST_TAG = 40
SAMPLE, LOOKED_AT = 20, 20_000
_NO_TAG = N_("A tag has 1 to %(most)s printable characters, and no quotes")
_SLICE = 500
_TOP = 2**62


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be done with which records: all that ``query`` finds, or those of ``ids`` among them."""

    kind: str
    query: str = ""
    value: Value | None = None
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What an act would do: records found and changed, why others are left out, and labels in force before and after.

    ``overwritten`` are decisions of people that it would supersede. Unless ``whole``, more records are found than were
    looked at.
    """

    found: int = 0
    changing: int = 0
    overwritten: int = 0
    whole: bool = True
    left_out: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)


class Acts:
    """Acts on the records of one task of a project. ``blind_share`` and ``overlap`` are the project's."""

    def __init__(
        self, store: Store, project_id: int, task: Task, blind_share: float, overlap: Overlap | None = None
    ) -> None:
        self.store, self.project_id, self.task, self.blind_share = store, project_id, task, blind_share
        self.overlap = overlap or Overlap()

    def preview(self, asked: Asked) -> Preview:
        """Return what an act would do; nothing is stored. Raises :class:`InputError` for one that cannot be done."""
        self._check(asked)
        found = changing = overwritten = 0
        left, before, after = Counter[str](), Counter[str](), Counter[str]()
        whole = True
        for rows in self._rows(self._table(asked), asked.ids, None):
            if found >= LOOKED_AT:
                whole = False
                break
            found += len(rows)
            if asked.kind in TAGGING:
                same = len(self._tagged(asked, rows))
                changing += len(rows) - same
                left[SAME] += same
                continue
            for row in rows:
                state, value, why = self._fate(row, asked)
                if why:
                    left[why] += 1
                    continue
                changing += 1
                overwritten += row["state"] != "pending"
                before.update(self._names(row["state"], read(self.task, row["value"], row["task_version"])))
                after.update(self._names(state, value))
        return Preview(found, changing, overwritten, whole, +left, before, after)

    def begin(self, asked: Asked, reviewer_id: int | None) -> int:
        """Note an act and return its number; :meth:`go_on` does it. Raises :class:`InputError` as :meth:`preview`."""
        self._check(asked)
        row = {
            "project_id": self.project_id, "task": self.task.name, "kind": asked.kind, "query": asked.query,
            "value": None if asked.value is None else strictjson.dumps(asked.value), "ids": asked.ids,
            "reviewer_id": reviewer_id, "edge": _TOP,
        }  # fmt: skip

        def work(tx: Tx) -> int:
            id_ = self.store.acts.add(tx, row | {"moved": self._moved(tx)})
            self._event(tx, "act begun", reviewer_id, id_, {"act": asked.kind, "query": asked.query})
            return id_

        return self.store.write(work)

    def undo(self, act_id: int, reviewer_id: int | None) -> None:
        """Begin to undo an act. Raises :class:`Conflict` where it is not done, or labels were changed since."""

        def work(tx: Tx) -> None:
            act = self._act(act_id, tx)
            if act["state"] != DONE:
                raise Conflict("Only an act that is done can be undone")
            if self._moved(tx) != act["moved"] and act["kind"] not in TAGGING:
                raise Conflict("The labels of this task were changed since; undo that change first")
            self.store.acts.set(tx, act_id, UNDOING)
            self._event(tx, "act undone", reviewer_id, act_id, {"act": act["kind"], "query": act["query"]})

        self.store.write(work)

    def go_on(self, act_id: int, seconds: float = float("inf")) -> str:
        """Do the next slices of an act, for some seconds; return its state."""
        deadline = time.monotonic() + seconds
        while True:
            act = self._act(act_id)
            if act["state"] == DOING:
                self._do_slice(act)
            elif act["state"] == UNDOING:
                self._undo_slice(act)
            else:
                return str(act["state"])
            if time.monotonic() > deadline:
                return str(self._act(act_id)["state"])

    def sample(self, act_id: int, size: int = SAMPLE) -> list[Row]:
        """Return some of the records that an act changed, for a person to look at: the same ones each time, spread over
        all of them; see :meth:`labeler.store.annotations.Annotations.now`."""
        ranges = strictjson.loads(self._act(act_id)["made"])
        total = sum(last - first + 1 for first, last in ranges)
        wanted = {n * total // min(size, total) for n in range(min(size, total))}
        ids, place = [], 0
        for first, last in ranges:
            ids += [first + n - place for n in sorted(wanted) if place <= n <= place + last - first]
            place += last - first + 1
        return self.store.annotations.now(ids)

    def _check(self, asked: Asked) -> None:
        if asked.kind not in KINDS:
            raise InputError("There is no act %(name)r; there are: %(names)s", name=asked.kind, names=", ".join(KINDS))
        if asked.ids is not None and not 0 < len(asked.ids) <= MOST_CHOSEN:
            raise InputError("Choose from 1 to %(n)s records, or all that are found", n=f"{MOST_CHOSEN:,}")
        if asked.kind == LABEL:
            if asked.value is None:
                raise InputError("Choose the label to give")
            self.task.schema.parse(asked.value, None)
        if asked.kind in TAGGING:
            self._check_tag(asked)
        self._table(asked)

    def _check_tag(self, asked: Asked) -> None:
        name = checked_name(str(asked.value or ""), _NO_TAG, LONGEST_TAG)
        if name != asked.value or '"' in name:
            raise InputError(_NO_TAG, most=LONGEST_TAG)
        if asked.kind == TAG and name.startswith(PERSON):
            people = [row["name"] for row in self.store.projects.members(self.project_id)]
            if name.removeprefix(PERSON) not in people:
                raise InputError(
                    "The project has no member %(name)r; there are: %(names)s", name=name.removeprefix(PERSON),
                    names=", ".join(people),
                )  # fmt: skip

    def _tagged(self, asked: Asked, rows: Sequence[Row]) -> set[int]:
        """Return those of the records that are as a tagging act would have them."""
        having = self.store.tags.having(str(asked.value), [row["id"] for row in rows])
        return having if asked.kind == TAG else {row["id"] for row in rows} - having

    def _table(self, asked: Asked) -> RecordTable:
        query: Query = parse(asked.query)
        return RecordTable(self.store, self.project_id, self.task, query, [self.task.name])

    def _rows(self, table: RecordTable, ids: Sequence[int] | None, edge: Place | None) -> Iterator[list[Row]]:
        """Yield the records of an act from a place on, newest first; what was chosen must still be what is found."""
        chosen = None if ids is None else set(ids)
        for found in table.ids(edge=edge):
            kept = found if chosen is None else [id_ for id_ in found if id_ in chosen]
            for start in range(0, len(kept), _SLICE):
                yield table.table.rows(kept[start : start + _SLICE])

    def _fate(self, row: Row, asked: Asked) -> tuple[str, Value | None, str]:
        """Return the state and value that a record gets, or why it is left out."""
        state, kind = row["state"], asked.kind
        if state == DISPUTED or (state == "pending" and self._is_shared(row["id"])):
            return state, None, PENDING if kind == REOPEN and state == "pending" else SHARED
        if kind == REOPEN:
            return "pending", None, "" if state != "pending" else PENDING
        if kind == REJECT:
            return REJECTED, None, "" if state != REJECTED else SAME
        if row["written"]:
            # What a model wrote counts only once a person has read it.
            return state, None, WRITTEN
        if kind == LABEL:
            return self._labelled(row, asked.value)
        if state != "pending":
            return state, None, DECIDED
        if is_blind(self.project_id, self.task.name, row["id"], self.blind_share):
            return state, None, BLIND
        value = read(self.task, row["suggested"], row["suggested_version"])
        # What is empty may only not have been meant: that takes a look at the record.
        if value is None or value == self.task.schema.empty():
            return state, None, UNSUGGESTED
        return self._labelled(row, value)

    def _is_shared(self, record_id: int) -> bool:
        return self.overlap.needed(self.project_id, self.task.name, record_id) > 1

    def _labelled(self, row: Row, value: Value | None) -> tuple[str, Value | None, str]:
        try:
            given = self.task.schema.parse(value, row["text"])
        except LabelError:
            return row["state"], None, UNFIT
        same = row["state"] == APPROVED and read(self.task, row["value"], row["task_version"]) == given
        return APPROVED, given, SAME if same else ""

    def _names(self, state: str, value: Value | None) -> tuple[str, ...]:
        """Return what a decision counts as: its labels, or its state where it has none."""
        if state != APPROVED or value is None:
            return (f"({state})",)
        return tuple(self.task.schema.strata(value))

    def _do_slice(self, act: Row) -> None:
        asked = Asked(
            act["kind"], act["query"], None if act["value"] is None else strictjson.loads(act["value"]),
            None if act["ids"] is None else tuple(strictjson.loads(act["ids"])),
        )  # fmt: skip
        edge = None if act["edge"] == _TOP else Place(act["edge"], act["edge"])
        try:
            rows = next(self._rows(self._table(asked), asked.ids, edge), [])
        except InputError:
            # A label that the query names is gone since: what is done stays, and nothing asks for it again and again.
            self.store.write(lambda tx: self._finish(tx, self._act(act["id"], tx)))
            return
        left, given = Counter[str](), []
        for row in () if asked.kind in TAGGING else rows:
            state, value, why = self._fate(row, asked)
            if why:
                left[why] += 1
            else:
                suggestion = row["shown"] if asked.kind == APPROVE else None
                given.append((row["id"], state, None if value is None else strictjson.dumps(value), suggestion))

        def work(tx: Tx) -> None:
            now = self._act(act["id"], tx)
            if (now["state"], now["edge"]) != (DOING, act["edge"]):
                # Another went on meanwhile.
                return
            if self._moved(tx) != act["moved"] and asked.kind not in TAGGING:
                # What it was to give may not be a label any more: what is done stays, and can be undone.
                self.store.acts.set(tx, act["id"], DONE)
                return
            if not rows:
                self._finish(tx, now)
                return
            ids = [row["id"] for row in rows]
            if asked.kind in TAGGING:
                change = self.store.tags.put if asked.kind == TAG else self.store.tags.take_off
                changed, made = len(change(tx, self.project_id, str(asked.value), ids, act["id"])), list[int]()
                left[SAME] += len(rows) - changed
            else:
                made = self._give(tx, act, asked, rows, given)
                changed = len(made)
                left[HELD] += len(given) - changed
            self.store.acts.came_to(tx, now, ids[-1], len(rows), +left, changed, made)

        self.store.write(work)

    def _give(self, tx: Tx, act: Row, asked: Asked, rows: Sequence[Row], given: Sequence[Any]) -> list[int]:
        origin, place = f"{ORIGIN}{act['id']}", (self.project_id, self.task.name)
        annotations, version, who = self.store.annotations, self.task.version, act["reviewer_id"]
        if asked.kind != REOPEN:
            # Records that were decided while the slice was read stay as they are.
            standing = {row["id"]: row["annotation_id"] for row in rows}
            now = self.store.work.pointing(tx, self.task.name, list(standing))
            given = [one for one in given if now.get(one[0], 0) == standing[one[0]]]
            return annotations.give(tx, *place, given, version, origin, who)
        ids = {row["id"]: row["annotation_id"] for row in rows}
        return annotations.withdraw(tx, *place, [ids[one[0]] for one in given], version, origin, who)

    def _finish(self, tx: Tx, act: Row) -> None:
        self.store.acts.set(tx, act["id"], DONE)
        self._event(tx, "act done", act["reviewer_id"], act["id"], {"act": act["kind"], "query": act["query"]})

    def _undo_slice(self, act: Row) -> None:
        ranges = strictjson.loads(act["made"])

        def work(tx: Tx) -> None:
            now = self._act(act["id"], tx)
            if now["state"] != UNDOING or now["made"] != act["made"]:
                return
            if not ranges:
                self.store.tags.undo(tx, self.project_id, act["id"])
                self.store.acts.set(tx, act["id"], UNDONE)
                return
            first, last = ranges[-1]
            self.store.annotations.take_back(tx, self.project_id, self.task.name, first, last, f"{ORIGIN}{act['id']}")
            self.store.acts.set(tx, act["id"], UNDOING, ranges[:-1])

        self.store.write(work)

    def _act(self, act_id: int, tx: Tx | None = None) -> Row:
        act = self.store.acts.get(act_id, tx)
        if act is None or act["project_id"] != self.project_id:
            raise NotFound("There is no act number %(number)s", number=act_id)
        return act

    def _moved(self, tx: Tx) -> int:
        return self.store.projects.moved_last(tx, self.project_id, self.task.name)

    def _event(self, tx: Tx, kind: str, reviewer_id: int | None, act_id: int, detail: dict[str, Any]) -> None:
        self.store.events.add(
            tx, kind, project_id=self.project_id, task=self.task.name, reviewer_id=reviewer_id,
            detail=detail | {"number": act_id},
        )  # fmt: skip
