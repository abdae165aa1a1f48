"""Decisions: to approve, correct, reject and undo. Each is one transaction, safe to send twice."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeler import strictjson
from labeler.annotation.ballots import Ballots, Overlap
from labeler.annotation.followed import compare
from labeler.errors import Conflict, Forbidden, InputError, LabelError, NotFound
from labeler.records import Record, Value
from labeler.sentence import Sentence
from labeler.store import Row, Store, Tx
from labeler.store.annotations import APPROVED, IMPORTED, REJECTED, SCRATCH, WITHDRAWN
from labeler.store.tags import GOLD
from labeler.store.work import DISPUTED, PENDING
from labeler.task import Task
from labeler.text import clean_text

MAX_SECONDS = 3600.0
UNDO = "undo"
"""The origin of what an undo brought back, and of the row that says that a record is pending again."""
_REMOVED = Sentence(
    "A label of this decision was removed from the task meanwhile; open the record again and choose another"
)
# What an undo brings back is as it was when it was made, and says when that was.
_KEPT = (
    "task_version", "state", "how", "blind", "reviewer_id", "seconds", "suggestion_id", "agreement", "reason",
    "created_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """A reviewer's decision as it comes in.

    ``request_key`` makes it safe to send twice; ``version`` is what the reviewer saw, ``force`` overwrites
    knowingly what another decided meanwhile. ``value`` is raw: it goes through the label schema. ``seconds`` is
    the time the record was in front of the reviewer. ``task_version`` is that of the page on which it was decided,
    empty for the one of now: labels that were renamed or merged since become what they are now. ``reason`` says why it
    is so, where an adjudicator settles what people disagree on.
    """

    record_id: int
    action: str
    request_key: str
    version: int
    value: Any = None
    suggestion_id: int | None = None
    blind: bool = False
    seconds: float | None = None
    force: bool = False
    task_version: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of a decision. ``repeated`` says that it had been stored before.

    Of a ballot ``annotation_id`` is its own number, and ``came_to`` the state of the record after it: pending while it
    waits for others. ``took_back`` is the decision or ballot that an undo took back.
    """

    annotation_id: int
    record_id: int
    state: str
    how: str
    version: int
    value: Value | None
    repeated: bool = False
    came_to: str = ""
    took_back: Row | None = None


class Decisions:
    """Stores the decisions on one task of a project. ``lease`` is how long a claim lasts, in seconds.

    Where several people decide on a record (``overlap``) each of their decisions is a ballot; only whoever
    ``adjudicates`` decides where they disagree, and changes what they agreed on.

    Each method checks and writes in one transaction, and stores nothing if a check fails. What a reviewer saw is known
    by the version of the queue's row, which grows with every decision and undo: only ``force`` goes past it.
    """

    def __init__(
        self,
        store: Store,
        project_id: int,
        task: Task,
        lease: float = 600.0,
        overlap: Overlap | None = None,
        adjudicates: bool = False,
    ) -> None:
        self.store, self.project_id, self.task, self.lease = store, project_id, task, lease
        self.ballots = Ballots(store, project_id, task, overlap or Overlap())
        self.adjudicates = adjudicates

    def decide(self, reviewer_id: int, decision: Decision) -> Decided:
        """Store a decision and return what became of it, once it is durable.

        Raises :class:`LabelError` for a value the schema refuses, :class:`NotFound`, and :class:`Conflict` if
        somebody else decided since the reviewer saw the record, or holds it now; ``current`` says what stands. Nobody
        decides on a text that they have not seen: where it has changed since, ``force`` does not help either.

        Safe against two who decide at once (the later one looks again), against a claim that ran out, and against
        being sent twice: the second answer is the first one's.
        """
        if decision.action not in ("approve", "reject"):
            raise InputError(f"No decision {decision.action!r}; there are: approve, reject")
        if not 8 <= len(decision.request_key) <= 100:
            raise InputError("A decision needs a request_key of 8 to 100 characters, new for each decision")
        record = self.store.records.get(decision.record_id)
        if record.project_id != self.project_id:
            raise NotFound("There is no record number %(number)s in this project", number=decision.record_id)
        try:
            value = self._read(decision, record.text) if decision.action == "approve" else None
        except LabelError:
            # What fitted the text that was read need not fit another: that the text has changed is what is wrong then.
            _check_text(self.store.work.get(decision.record_id, self.task.name), decision)
            raise
        return self.store.write(lambda tx: self._store(tx, reviewer_id, decision, value))

    def _read(self, decision: Decision, text: str) -> Value:
        """Return the value of a decision in the labels of today. Raises :class:`LabelError` for one that is not."""
        value = self.task.carried(decision.value, decision.task_version or self.task.version)
        try:
            if value is not None:
                return self.task.schema.parse(value, text)
            self.task.schema.parse(decision.value, text)
        except LabelError as error:
            if value is not None and not self._retired(value, text):
                raise
            raise LabelError(_REMOVED, error.kind, name=error.item) from error
        raise LabelError(_REMOVED, "removed")

    def _retired(self, value: Value, text: str) -> bool:
        past = self.task.schema.past
        try:
            return past is not self.task.schema and past.parse(value, text) is not None
        except LabelError:
            return False

    def _store(self, tx: Tx, reviewer_id: int, decision: Decision, value: Value | None) -> Decided:
        before = self._known(tx, decision.request_key)
        if before is not None:
            return self._again(tx, before, reviewer_id, decision)
        row = self.store.work.get(decision.record_id, self.task.name, tx)
        if row is None:
            # Perhaps it was removed this very moment.
            self.store.records.get(decision.record_id)
            raise NotFound(
                "Record %(number)s is not in the queue of the task %(task)s",
                number=decision.record_id,
                task=self.task.name,
            )
        _check_text(row, decision)
        current = self.store.annotations.current(decision.record_id, self.task.name, tx)
        if self.store.projects.moved_last(tx, self.project_id, self.task.name) > self.task.lineage.newest():
            raise Conflict("The labels of this task were changed this very moment; open the record again")
        if not decision.force:
            self._check_first(tx, row, current, reviewer_id, decision)
        state = APPROVED if decision.action == "approve" else REJECTED
        place = (decision.record_id, self.task.name)
        how, agreement = compare(
            self.store, tx, self.task, decision.record_id, decision.suggestion_id, decision.blind, value
        )
        told = decision.blind and self.store.annotations.was_told(tx, *place, reviewer_id)
        if told:
            # Who was told the suggestion after a blind decision has seen it. That they agree measures nothing.
            agreement = None
        given = {
            "project_id": self.project_id, "record_id": decision.record_id, "task": self.task.name,
            "task_version": self.task.version, "state": state, "value": value,
            "blind": int(decision.blind and not told), "reviewer_id": reviewer_id,
            "suggestion_id": decision.suggestion_id,
            "seconds": None if decision.seconds is None else min(max(decision.seconds, 0.0), MAX_SECONDS),
            "agreement": agreement, "request_key": decision.request_key,
            "served": self.store.work.served(tx, *place, reviewer_id),
        }  # fmt: skip
        if given["served"] == GOLD and current is not None:
            return self._answer_known(tx, given | {"how": how}, row, current)
        if row["state"] == PENDING and self.ballots.needed(decision.record_id) > 1:
            return self._vote(tx, given | {"how": how})
        self._check_settled(tx, row, current)
        reason = clean_text(decision.reason, "reason")
        more = {"how": how, "supersedes": current["id"] if current else None, "reason": reason or None}
        annotation_id = self.store.annotations.add(tx, given | more)
        if row["state"] == DISPUTED:
            self.store.ballots.settle(tx, *place, annotation_id)
        version = self.store.work.decided(tx, *place, state, annotation_id)
        self.store.work.release(tx, *place)
        self._event(tx, state, reviewer_id, decision.record_id, annotation_id, {"how": how, "forced": decision.force})
        return Decided(annotation_id, decision.record_id, state, how, version, value)

    def _vote(self, tx: Tx, given: dict[str, Any]) -> Decided:
        """Store a ballot, and settle the record if it is the last one that was needed."""
        number = self.store.ballots.add(tx, given)
        return self._voted(tx, given, number, *self.ballots.settle(tx, given["record_id"]))

    def _answer_known(self, tx: Tx, given: dict[str, Any], row: Row, current: Row) -> Decided:
        """Store what a person says of a record that is known: nothing of its decision changes."""
        more = {"gold": 1, "settled_id": current["original_id"] or current["id"]}
        return self._voted(tx, given, self.store.ballots.add(tx, given | more), row["state"], row["version"])

    def _voted(self, tx: Tx, given: dict[str, Any], number: int, came_to: str, version: int) -> Decided:
        """End what the person had begun on a record, and say what became of their ballot."""
        place = (given["record_id"], self.task.name)
        self.store.work.release(tx, *place)
        self.store.drafts.forget(tx, given["reviewer_id"], *place)
        detail = {"ballot": number, "said": given["state"], "came_to": came_to}
        self._event(tx, "voted", given["reviewer_id"], given["record_id"], None, detail)
        return Decided(
            number, given["record_id"], given["state"], given["how"], version, given["value"], came_to=came_to
        )

    def _check_settled(self, tx: Tx, row: Row, current: Row | None) -> None:
        """Raise :class:`Forbidden` for one person's word on what several people say, unless it is an adjudicator's."""
        if self.adjudicates:
            return
        if row["state"] == DISPUTED:
            raise Forbidden("Several people disagree on this record; an adjudicator decides")
        if current is not None and self.store.ballots.settled_by(current["original_id"] or current["id"], tx):
            raise Forbidden("Several people decided on this record; only an adjudicator can change it")

    def _known(self, tx: Tx, request_key: str) -> Row | None:
        """Return the annotation or the ballot that came with a request before."""
        return self.store.annotations.by_request(tx, request_key) or self.store.ballots.by_request(tx, request_key)

    def _again(self, tx: Tx, before: Row, reviewer_id: int, decision: Decision) -> Decided:
        same = before["record_id"] == decision.record_id and before["reviewer_id"] == reviewer_id
        undo = before["ended_by"] == decision.request_key if _is_ballot(before) else before["origin"] == UNDO
        if not same or before["task"] != self.task.name or undo:
            raise InputError("This request_key was used for another decision; make a new one for each")
        row = self.store.work.get(decision.record_id, self.task.name, tx)
        value = strictjson.loads(before["value"]) if before["value"] is not None else None
        version = row["version"] if row else 0
        came_to = row["state"] if row and _is_ballot(before) else ""
        return Decided(before["id"], before["record_id"], before["state"], before["how"], version, value, True, came_to)

    def _check_first(self, tx: Tx, row: Row, current: Row | None, reviewer_id: int, decision: Decision) -> None:
        """Fencing: whoever saw an older version, or lost the record to another, must look again."""
        if row["version"] != decision.version:
            stands: dict[str, Any] = {"version": row["version"], "state": row["state"]}
            who = "Somebody"
            if current is not None:
                who = current["reviewer"] or ("An import" if current["how"] == IMPORTED else "Several people")
                value = self._stored(current)
                stands |= {"value": value, "reviewer": who, "at": current["created_at"]}
            raise Conflict("%(who)s decided on this record after you opened it", stands, who=who)
        holder = self.store.work.holder(tx, decision.record_id, self.task.name)
        if holder is not None and holder["reviewer_id"] != reviewer_id:
            raise Conflict(
                "Your time with this record ran out, and %(name)s has opened it",
                {"version": row["version"], "state": row["state"], "held_by": holder["name"]},
                name=holder["name"],
            )

    def undo(self, reviewer_id: int, request_key: str | None = None, page: str = "") -> Decided:
        """Take back the reviewer's last decision: what stood before it stands again. Nothing is deleted.

        The last one is the newest by the time it was made of those that still stand: one that somebody else has
        overwritten is left to them, and one that came back by another's undo stands where it was. So undo after undo
        walks back through one's own decisions, each once.

        Safe against others: what is taken back is chosen and superseded in one transaction, the version grows, and
        whoever has the record open (as its holder too) looks again before deciding on it. With ``page`` the record is
        claimed for that page at once, unless somebody else holds it. With a ``request_key`` it is safe to send twice.

        A ballot is taken back while nobody has voted or decided on its record since; a record that it settled waits
        again.
        """

        def work(tx: Tx) -> Decided:
            before = self._known(tx, request_key) if request_key else None
            if before is not None:
                return self._undone(tx, before, reviewer_id, request_key)
            last = next(iter(self._last(reviewer_id, 1, tx, only_last=True)), None)
            if last is None:
                raise NotFound("There is no decision of yours to undo in this task")
            take = self._take_ballot if _is_ballot(last) else self._take_back
            taken = take(tx, last, reviewer_id, request_key)
            if page and self.store.work.holder(tx, taken.record_id, self.task.name) is None:
                self.store.work.claim(
                    tx, self.project_id, taken.record_id, self.task.name, reviewer_id, page, self.lease,
                    last["served"],
                )  # fmt: skip
            return taken

        return self.store.write(work)

    def _last(self, reviewer_id: int, limit: int, tx: Tx | None = None, only_last: bool = False) -> list[Row]:
        """Return a reviewer's last decisions and ballots, newest first; see :meth:`Ballots.last_of`."""
        place = (self.project_id, self.task.name, reviewer_id, limit, tx)
        rows = [*self.store.annotations.last_of(*place), *self.store.ballots.last_of(*place, only_last=only_last)]
        return sorted(rows, key=_place_of, reverse=True)[:limit]

    def _undone(self, tx: Tx, before: Row, reviewer_id: int, request_key: str | None) -> Decided:
        """Return what an undo that was sent before came to."""
        row = self.store.work.get(before["record_id"], self.task.name, tx)
        version, now = (row["version"], row["state"]) if row else (0, PENDING)
        if _is_ballot(before):
            taken = before if before["ended_by"] == request_key else None
            state, value, how = now, None, SCRATCH
        else:
            taken = self.store.annotations.get(before["supersedes"], tx) if before["origin"] == UNDO else None
            withdrawn = DISPUTED if now == DISPUTED else PENDING
            state = withdrawn if before["state"] == WITHDRAWN else before["state"]
            value = strictjson.loads(before["value"]) if before["value"] is not None else None
            how = before["how"]
        if taken is None or taken["reviewer_id"] != reviewer_id or before["task"] != self.task.name:
            raise InputError("This request_key was used for something else; make a new one for each undo")
        return Decided(before["id"], before["record_id"], state, how, version, value, True, took_back=taken)

    def _take_ballot(self, tx: Tx, last: Row, reviewer_id: int, request_key: str | None) -> Decided:
        record_id = last["record_id"]
        self.store.ballots.end(tx, [last["id"]], by=request_key)
        if last["gold"]:
            row = self.store.work.get(record_id, self.task.name, tx)
            state, version = PENDING, row["version"] if row else 0
        else:
            if last["settled_id"] is not None:
                self._withdraw(tx, last["settled_id"], reviewer_id)
            state, version = self.ballots.settle(tx, record_id)
        self._event(tx, "undone", reviewer_id, record_id, None, {"ballot": last["id"]})
        return Decided(last["id"], record_id, state, SCRATCH, version, None, took_back=last)

    def _withdraw(self, tx: Tx, annotation_id: int, reviewer_id: int) -> None:
        """Let a decision that ballots came to stand no more; they wait again."""
        settled = self.store.annotations.get(annotation_id, tx)
        assert settled is not None
        same = {name: settled[name] for name in ("project_id", "record_id", "task", "task_version")}
        self.store.annotations.add(
            tx, same | {"state": WITHDRAWN, "reviewer_id": reviewer_id, "supersedes": annotation_id, "origin": UNDO}
        )
        self.store.ballots.reopen(tx, annotation_id)

    def _take_back(self, tx: Tx, last: Row, reviewer_id: int, request_key: str | None) -> Decided:
        earlier = self._stood_before(tx, last)
        row: dict[str, Any] = {
            "project_id": self.project_id, "record_id": last["record_id"], "task": self.task.name,
            "task_version": last["task_version"], "state": WITHDRAWN, "value": None, "how": SCRATCH,
            "reviewer_id": reviewer_id, "supersedes": last["id"], "origin": UNDO, "request_key": request_key,
        }  # fmt: skip
        if earlier is not None:
            row |= {name: earlier[name] for name in _KEPT} | {"original_id": earlier["original_id"] or earlier["id"]}
            row["value"] = strictjson.loads(earlier["value"]) if earlier["value"] is not None else None
        annotation_id = self.store.annotations.add(tx, row)
        state, place = row["state"], (last["record_id"], self.task.name)
        if state == WITHDRAWN:
            # What several people said of it counts again, and may be disputed again.
            self.store.ballots.reopen(tx, last["original_id"] or last["id"])
            state, version = self.ballots.settle(tx, last["record_id"])
        else:
            version = self.store.work.decided(tx, *place, state, annotation_id)
        self._event(tx, "undone", reviewer_id, last["record_id"], annotation_id, {"took_back": last["id"]})
        return Decided(annotation_id, last["record_id"], state, row["how"], version, row["value"], took_back=last)

    def _stood_before(self, tx: Tx, row: Row) -> Row | None:
        """Return what stood when the decision of ``row`` was made; None if the record was pending.

        A row that an undo brought back stands for its original: taking it back must not bring back what was undone.
        """
        original = self.store.annotations.get(row["original_id"], tx) if row["original_id"] else row
        number = original["supersedes"] if original is not None else None
        earlier = self.store.annotations.get(number, tx) if number is not None else None
        if earlier is None or earlier["state"] not in (APPROVED, REJECTED):
            return None
        # A label that was removed since, with its records put back to pending, does not come back by an undo.
        return earlier if earlier["value"] is None or self._readable(earlier) else None

    def _readable(self, row: Row) -> bool:
        try:
            self.task.read(strictjson.loads(row["value"]), row["task_version"])
        except LabelError:
            return False
        return True

    def _stored(self, row: Row) -> Value | None:
        """Return the value of a stored decision in the labels of today; as it was given where they cannot hold it."""
        value = None if row["value"] is None else strictjson.loads(row["value"])
        carried = self.task.carried(value, row["task_version"])
        return value if carried is None else carried

    def import_label(self, tx: Tx, record: Record, value: Value, origin: str, reviewer_id: int | None) -> int | None:
        """Approve a label that came with the data; None if somebody decided or voted. ``value`` is canonical."""
        row = self.store.work.get(record.id, self.task.name, tx)
        if row is None or row["state"] != PENDING or self.store.ballots.voted(tx, self.task.name, [record.id]):
            return None
        return self.import_labels(tx, [(record.id, value)], origin, reviewer_id)[0]

    def import_labels(
        self, tx: Tx, labels: Sequence[tuple[int, Value]], origin: str, reviewer_id: int | None
    ) -> list[int]:
        """Approve canonical labels that came with the data; each record is pending and named once. Return their ids."""
        if not labels:
            return []
        same = {
            "project_id": self.project_id, "task": self.task.name, "task_version": self.task.version,
            "state": APPROVED, "how": IMPORTED, "reviewer_id": reviewer_id, "origin": origin,
        }  # fmt: skip
        ids = self.store.annotations.add_many(tx, same, labels)
        decided = [(record_id, id_) for (record_id, _), id_ in zip(labels, ids, strict=True)]
        self.store.work.approved(tx, self.task.name, decided)
        where = {"project_id": self.project_id, "reviewer_id": reviewer_id, "task": self.task.name}
        self.store.events.add_many(tx, "imported", where, {"origin": origin}, decided)
        return ids

    def standing(self, record_id: int, tx: Tx | None = None) -> tuple[str, Value | None] | None:
        """Return state and value of the decision in force on a record, or None if it is pending."""
        row = self.store.annotations.current(record_id, self.task.name, tx)
        return None if row is None else (row["state"], self._stored(row))

    def _event(
        self,
        tx: Tx,
        kind: str,
        reviewer_id: int | None,
        record_id: int,
        annotation_id: int | None,
        detail: Mapping[str, Any],
    ) -> None:
        self.store.events.add(
            tx,
            kind,
            reviewer_id=reviewer_id,
            annotation_id=annotation_id,
            detail=dict(detail),
            project_id=self.project_id,
            task=self.task.name,
            record_id=record_id,
        )

    def strip(self, reviewer_id: int, limit: int = 10) -> list[dict[str, Any]]:
        """Return a reviewer's last decisions, newest first, for the strip on the page."""
        rows = self._last(reviewer_id, limit)
        return [
            {
                "record_id": row["record_id"], "text": row["text"], "state": row["state"], "how": row["how"],
                "value": self._stored(row), "blind": bool(row["blind"]), "suggestion_id": row["suggestion_id"],
                "ago": max(0.0, time.time() - row["created_at"]),
            }
            for row in rows
        ]  # fmt: skip


def _is_ballot(row: Row) -> bool:
    return "settled_id" in set(row.keys())


def _place_of(row: Row) -> tuple[int, int]:
    """Return where a decision or ballot stands among both. Clocks jump: numbers tell."""
    return (row["after_id"], row["id"]) if _is_ballot(row) else (row["original_id"] or row["id"], 0)


def _check_text(row: Row | None, decision: Decision) -> None:
    if row is not None and row["text_version"] > decision.version:
        raise Conflict(
            "The text of this record has changed since you opened it; open it again and read it",
            {"state": row["state"], "text_changed": True},
        )
