"""The queue of one task: which record a reviewer gets next, and who holds it meanwhile."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from labeler import strictjson
from labeler.annotation.drawn import drawn
from labeler.errors import Conflict, InputError, NotFound
from labeler.records import Record
from labeler.sentence import Sentence
from labeler.store import Row, Store, Tx
from labeler.store.tags import GOLD, PERSON
from labeler.store.work import DISAGREEMENT, DISPUTED, OLDEST, ORDERS, PENDING, SCORE, SIMILAR
from labeler.task import Task

Nearest = Callable[[str], Sequence[int]]
"""Given a typed text, the ids of the project's pending records, most similar first; some may be decided by now."""
_AT_ONCE = 200
MOST_OF_IT = 0.5
"""A claim with this share of its time left is young."""
LONGEST_DRAFT = 100_000
"""Characters of a draft, as JSON."""


# Why an order brings the oldest after all, and what to do about it: nothing was made, made without it, or made of few.
_NOTHING, _WITHOUT, _FEW, _ALIKE = "nothing", "without", "few", "alike"
_LACKING = {
    SCORE: {
        _NOTHING: Sentence(
            "No pending record has a score yet, so the oldest come first; start a run to suggest all of them"
        ),
        _WITHOUT: Sentence(
            "The suggestions here have no score, so the oldest come first; choose a backend that scores labels"
        ),
        _FEW: Sentence("Fewer than half of the pending records have a score, and the others come last; start a run"),
    },
    DISAGREEMENT: {
        _NOTHING: Sentence(
            "No pending record has a second opinion yet, so the oldest come first; start a run to suggest all of them"
        ),
        _WITHOUT: Sentence(
            "The suggestions here have no second opinion, so the oldest come first; approve more, or suggest by a model"
        ),
        _FEW: Sentence(
            "Fewer than half of the pending records have a second opinion, and the others come last; start a run"
        ),
        _ALIKE: Sentence("No second opinion differs from its suggestion, so the oldest come first"),
    },
}
LIKE_LABEL = "label:"
"""What a typed text of the order "similar" begins with that names a label: like the records that were approved so."""
_UNTYPED = Sentence("No text was typed to look for, so the oldest come first")


@dataclass(frozen=True, slots=True)
class Opened:
    """A record on a reviewer's desk. ``token`` is that of the page that holds it, empty if another person does.

    ``version`` is what the reviewer saw: it is read with the claim, and everything else after it, so that a decision
    on what came in between is a conflict and never overwrites it. ``lease`` is how many seconds the claim lasts.
    """

    record: Record
    task: Task
    token: str
    version: int
    lease: float
    blind: bool
    state: str
    suggestion_id: int | None
    annotation: Row | None = None
    held_by: str | None = None
    disputed: bool = False


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a page asks for. ``ranked`` are records by their likeness; with ``tag`` only records that have it come."""

    reviewer_id: int
    token: str
    order: str
    ranked: Sequence[int]
    scored_by: str | None
    tag: str

    @property
    def state(self) -> str:
        return DISPUTED if self.order == DISPUTED else PENDING


def is_blind(project_id: int, task: str, record_id: int, share: float) -> bool:
    """Return whether a record is shown without its suggestion: fixed per record, spread evenly.

    Showing a suggestion shifts the label, so that agreement means something only beside the blind share.
    """
    return drawn(f"{project_id}/{task}/{record_id}", share)


class Queue:
    """Opens records for reviewers. ``settings`` are the project's.

    ``nearest`` serves the order "similar", ``scored_by`` names the backend whose scores the order "score" goes by.

    Each method checks and writes in one transaction. A record has one holder: a page of a reviewer, known by the token
    that the page made up, so that two pages of one person get different records, and a page that was loaded again gets
    back what it held. Claims say whose turn it is; what keeps a decision from overwriting another unseen is the version
    (:class:`labeler.annotation.decisions.Decisions`). So a claim that ends too early costs somebody a second look, and
    never a decision.
    """

    def __init__(
        self,
        store: Store,
        project_id: int,
        task: Task,
        settings: Mapping[str, Any],
        nearest: Nearest | None = None,
        scored_by: Callable[[], str] | None = None,
    ) -> None:
        self.store, self.project_id, self.task = store, project_id, task
        self.nearest, self.scored_by = nearest, scored_by
        self.lease = float(settings["claim_minutes"]) * 60
        self.blind_share = float(settings["blind_share"])
        self.order = str(settings["order"])
        self.gold_share = float(settings["gold_share"])

    def next(
        self, reviewer_id: int, order: str = "", have: Sequence[int] = (), similar_to: str = "", page: str = ""
    ) -> Opened | None:
        """Claim and return the next record, or None when nothing is left for this page; see :meth:`next_few`."""
        return next(iter(self.next_few(1, reviewer_id, order, have, similar_to, page)), None)

    def next_few(
        self,
        count: int,
        reviewer_id: int,
        order: str = "",
        have: Sequence[int] = (),
        similar_to: str = "",
        page: str = "",
        tag: str = "",
    ) -> list[Opened]:
        """Claim and return the next records, at most ``count`` and none when nothing is left for this page.

        ``have`` are the records already on the page's desk (this one and the prefetched). A record that ``page`` holds
        but does not have (it was loaded again) comes first. What the reviewer skipped comes back when there is nothing
        else, here on the desk either: the page asks again once those are decided. What was given to the reviewer
        comes first, and what was given to others not at all. With ``tag`` only records that have it come.

        Safe against two people, pages or processes that ask at once: the records are chosen and claimed in one
        transaction. Raises :class:`NotFound` for an order that there is not.
        """
        name = order or self.order
        if name not in (*ORDERS, DISPUTED):
            raise NotFound("No queue order %(name)r; there are: %(names)s", name=name, names=", ".join(ORDERS))
        ranked: Sequence[int] = ()
        if name == SIMILAR and similar_to.strip() and self.nearest is not None:
            ranked = self.nearest(similar_to)
        scored_by = self.scored_by() if name == SCORE and self.scored_by is not None else None
        asked = _Asked(reviewer_id, page or secrets.token_hex(8), name, ranked, scored_by, tag)

        def work(tx: Tx) -> list[tuple[Row, bool]]:
            rows: list[tuple[Row, bool]] = []
            there = list(have)
            while len(rows) < count:
                picked = self._pick(tx, asked, there)
                if picked is None:
                    break
                record_id, served = picked
                there.append(record_id)
                rows.append((self._claimed(tx, record_id, reviewer_id, asked.token, served), served == GOLD))
            return rows

        rows = self.store.write(work)
        records = self.store.records.many([row["record_id"] for row, _ in rows])
        return [self._opened(row, asked.token, record=records.get(row["record_id"]), gold=gold) for row, gold in rows]

    def lacks(self, order: str = "", similar_to: str = "") -> str:
        """Return in a sentence what an order has too little of to go by, and what to do; empty if it has enough."""
        name = order or self.order
        if name == SIMILAR:
            return "" if similar_to.strip() else _UNTYPED
        if name not in (SCORE, DISAGREEMENT):
            return ""
        found = self.store.work.ground(*self._place, name)
        if 2 * found.known >= found.pending:
            return "" if found.apart or not found.pending else _LACKING[name][_ALIKE]
        if 2 * found.known < found.suggested:
            return _LACKING[name][_WITHOUT]
        return _LACKING[name][_FEW if found.known else _NOTHING]

    @property
    def _place(self) -> tuple[int, str]:
        return self.project_id, self.task.name

    def _pick(self, tx: Tx, asked: _Asked, have: Sequence[int]) -> tuple[int, str] | None:
        """Return the record that comes next, and what it is served for: the order, or as one that is known (GOLD)."""
        rooms, who = self.store.work, asked.reviewer_id
        for record_id in rooms.held_by(tx, *self._place, who, asked.token, asked.state):
            if record_id not in have:
                return record_id, asked.order
        if self.gold_share and asked.state == PENDING and not asked.tag and random.random() < self.gold_share:
            known = rooms.gold(tx, *self._place, have, who)
            if known is not None:
                return known, GOLD
        for _ in range(2):
            found = self._free(tx, asked, have)
            if found is not None:
                return found, asked.order
            # What lies undecided on this desk comes before what was skipped.
            if rooms.pending(*self._place, have, tx, who, only_free=False, state=asked.state):
                return None
            if not rooms.forget_skips(tx, *self._place, who):
                return None
        return None

    def _free(self, tx: Tx, asked: _Asked, have: Sequence[int]) -> int | None:
        """Return the first record in the order asked for that is free for the reviewer."""
        rooms, who = self.store.work, asked.reviewer_id
        mine = self._given(tx, who)
        for start in range(0, len(asked.ranked), _AT_ONCE):
            near = [id_ for id_ in asked.ranked[start : start + _AT_ONCE] if id_ not in have]
            if asked.tag:
                tagged = self.store.tags.having(asked.tag, near)
                near = [id_ for id_ in near if id_ in tagged]
            free = rooms.pending(*self._place, near, tx, who, mine=mine)
            if free:
                return free[0]
        by = OLDEST if asked.order == SIMILAR else asked.order
        for tag in [asked.tag] if asked.tag or not mine else [mine, ""]:
            found = rooms.front(
                *self._place, by, 1, tuple(have), tx, reviewer_id=who, scored_by=asked.scored_by, tag=tag, mine=mine
            )
            if found:
                return found[0]
        return None

    def _given(self, tx: Tx, reviewer_id: int) -> str:
        """Return the tag of what is given to a reviewer; empty where nothing is given to anybody."""
        if not self.store.tags.is_anything_given(tx, self.project_id):
            return ""
        person = self.store.people.get(reviewer_id, tx)
        return f"{PERSON}{person['name'] if person else ''}"

    def _claimed(self, tx: Tx, record_id: int, reviewer_id: int, token: str, served: str = "") -> Row:
        """Claim a record, ``served`` in an order, and return its row of the queue as it is in this transaction."""
        self.store.work.claim(tx, self.project_id, record_id, self.task.name, reviewer_id, token, self.lease, served)
        return self._row(tx, record_id)

    def open(self, reviewer_id: int, record_id: int, page: str = "") -> Opened:
        """Open one record by its number, pending or decided. Somebody else's claim is shown, not taken.

        What waits for others, after this reviewer has voted on it, is shown as they decided it.

        A claim of another page of the same person moves to this one. Safe against somebody who claims or decides
        meanwhile: who holds it, the claim and the version are of one transaction.
        """
        token = page or secrets.token_hex(8)

        def work(tx: Tx) -> tuple[Row, str | None]:
            row = self._row(tx, record_id)
            holder = self.store.work.holder(tx, record_id, self.task.name)
            if holder is not None and holder["reviewer_id"] != reviewer_id:
                return row, str(holder["name"])
            return self._claimed(tx, record_id, reviewer_id, token), None

        row, held_by = self.store.write(work)
        own = self.store.ballots.own(record_id, self.task.name, reviewer_id) if row["state"] == PENDING else None
        gold = self._is_known(None, reviewer_id, record_id)
        return self._opened(row, "" if held_by else token, held_by, own=own, gold=gold)

    def renew(self, reviewer_id: int, record_id: int, page: str) -> Opened | None:
        """Open a record once more that lies ready on a page; None if the page does not hold it any more.

        Safe against a decision or a skip on its way: they end the claim, and what comes after them claims nothing. A
        claim that has most of its time left is not written anew: a page asks with each decision.
        """

        def holds(tx: Tx | None) -> float | None:
            holder = self.store.work.holder(tx, record_id, self.task.name)
            mine = holder is not None and (holder["reviewer_id"], holder["token"]) == (reviewer_id, page)
            return float(holder["until"]) - time.time() if holder is not None and mine else None

        def work(tx: Tx) -> Row | None:
            return None if holds(tx) is None else self._claimed(tx, record_id, reviewer_id, page)

        row, left = self._row(None, record_id), holds(None)
        gold = self._is_known(None, reviewer_id, record_id)
        if left is not None and left < MOST_OF_IT * self.lease:
            claimed, left = self.store.write(work), self.lease
            if claimed is None:
                return None
            row = claimed
        if left is None or not (gold or row["state"] in (PENDING, DISPUTED)):
            return None
        return replace(self._opened(row, page, gold=gold), lease=left)

    def look(self, reviewer_id: int, record_id: int) -> Opened:
        """Return a record as it stands in the queue for a reviewer, and take it from nobody."""
        return self._opened(self._row(None, record_id), "", gold=self._is_known(None, reviewer_id, record_id))

    def _is_known(self, tx: Tx | None, reviewer_id: int, record_id: int) -> bool:
        """Whether a reviewer has a record on their desk to see how they do."""
        return self.store.work.served(tx, record_id, self.task.name, reviewer_id) == GOLD

    def _row(self, tx: Tx | None, record_id: int) -> Row:
        """Return the queue's row of a record. Raises :class:`NotFound` for one of another project or task."""
        row = self.store.work.get(record_id, self.task.name, tx)
        if row is None or row["project_id"] != self.project_id:
            # Perhaps it was removed; that is said.
            self.store.records.get(record_id)
            raise NotFound(
                "Record %(number)s is not in the queue of the task %(task)s",
                number=record_id,
                task=self.task.name,
            )
        return row

    def _opened(
        self, row: Row, token: str, held_by: str | None = None, record: Record | None = None, own: Row | None = None,
        gold: bool = False,
    ) -> Opened:  # fmt: skip
        """Return an opened record: as the reviewer's ``own`` ballot says, or as one that nobody has decided on."""
        record_id, state = row["record_id"], PENDING if gold else row["state"]
        decided = own or (None if gold else self.store.annotations.current(record_id, self.task.name))
        return Opened(
            # One that is gone meanwhile is looked for once more, to say so.
            record=record or self.store.records.get(record_id),
            task=self.task,
            token=token,
            version=row["version"],
            lease=self.lease,
            blind=state == PENDING and own is None and self._is_blind(record_id),
            state=state if own is None else own["state"],
            suggestion_id=row["suggestion_id"],
            annotation=decided,
            held_by=held_by,
            disputed=state == DISPUTED,
        )

    def _is_blind(self, record_id: int) -> bool:
        """Whether a record measures suggestions. What a model wrote for a label is no measure of them."""
        chosen = is_blind(self.project_id, self.task.name, record_id, self.blind_share)
        return chosen and not self.store.written.is_written(record_id)

    def touch(
        self, reviewer_id: int, record_id: int, token: str, version: int | None = None,
        draft: Mapping[str, Any] | None = None,
    ) -> float:  # fmt: skip
        """Say that a person works on the draft: refreshes leave it alone, and the claim starts anew.

        Return for how many seconds. A claim that ran out, or was given back by whoever took it then, is made again.
        What ``draft`` has as its ``value`` is kept for the person, as it is: no label yet. Raises :class:`Conflict` if
        somebody else holds the record, or decided on it since ``version``: the claim of whoever came later is never
        prolonged or taken. Raises :class:`InputError` for a draft that is too long.
        """
        if draft is not None and len(strictjson.dumps(draft)) > LONGEST_DRAFT:
            raise InputError("A draft of more than %(n)s characters stays in the browser", n=LONGEST_DRAFT)

        def work(tx: Tx) -> float:
            row = self._row(tx, record_id)
            holder = self.store.work.holder(tx, record_id, self.task.name)
            if holder is not None and holder["reviewer_id"] != reviewer_id:
                raise Conflict(
                    "This record is no longer yours: its time ran out, and %(name)s has opened it",
                    {"held_by": holder["name"]},
                    name=holder["name"],
                )
            if version is not None and row["version"] != version:
                raise Conflict("This record is no longer yours: it was decided after you opened it")
            if holder is None:
                self._claimed(tx, record_id, reviewer_id, token)
            if draft is not None:
                kept = row["version"], self.task.version, draft["value"]
                self.store.drafts.keep(tx, reviewer_id, record_id, self.task.name, *kept)
            return self.store.work.touch(tx, record_id, self.task.name)

        return self.store.write(work)

    def skip(self, reviewer_id: int, record_id: int) -> None:
        """Put a record back; it stays pending and comes to this reviewer again after all others.

        Safe to send twice, and against somebody who holds or decided it meanwhile: their claim stays, and a record
        that is decided is not put anywhere.
        """

        def work(tx: Tx) -> None:
            row = self._row(tx, record_id)
            gold = self._is_known(tx, reviewer_id, record_id)
            self.store.work.release(tx, record_id, self.task.name, reviewer_id)
            if not (gold or row["state"] in (PENDING, DISPUTED)):
                return
            self.store.work.skip(tx, record_id, self.task.name, reviewer_id)
            self.store.events.add(
                tx,
                "skipped",
                reviewer_id=reviewer_id,
                project_id=self.project_id,
                task=self.task.name,
                record_id=record_id,
            )

        self.store.write(work)

    def leave(self, reviewer_id: int, held: Mapping[int, str] | None = None) -> None:
        """Put back what one page holds (``held``: its token by record), or everything of a reviewer in this queue.

        A claim that is no longer the page's own stays: another page of the same person, or another person, has it.
        """

        def work(tx: Tx) -> None:
            if held is None:
                self.store.work.release_all(tx, reviewer_id, *self._place)
            for record_id, token in (held or {}).items():
                if token and self.store.work.is_in(tx, record_id, *self._place):
                    self.store.work.release(tx, record_id, self.task.name, reviewer_id, token)

        self.store.write(work)
