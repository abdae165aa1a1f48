"""Queue, claims, decisions and undo against a plain model: any order, two processes, clocks that jump, kills."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from helpers import SENTIMENT, World
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from labeler.annotation import queue
from labeler.annotation.decisions import Decided, Decision, Decisions
from labeler.annotation.queue import Opened, Queue
from labeler.errors import Conflict, NotFound
from labeler.settings import read_settings
from labeler.store import Store, annotations, journal, work

RECORDS, PEOPLE, PAGES = 4, 2, 2
TASK = SENTIMENT.name
START = 1_800_000_000.0
MINUTES = (1.0, 10.0, 60.0)
JUMPS = (1.0, 40.0, 599.0, 3601.0, 86400.0, -100.0, -86400.0)


@dataclass(frozen=True)
class Made:
    """A decision as the model knows it: who made it, what, and what stood before."""

    number: int
    who: int
    state: str
    value: str | None
    before: Made | None


@dataclass
class Held:
    """A claim as the model knows it."""

    who: int
    page: str
    until: float
    lease: float


class Clock:
    now = START

    def time(self) -> float:
        return self.now


class Killed(Exception):
    """Takes the place of a process that is killed: nothing of its transaction stays."""


pages = st.integers(0, PEOPLE * PAGES - 1)
processes = st.integers(0, 1)
values = st.sampled_from(["positive", "negative", None])


class Desks(RuleBasedStateMachine):
    """Two people with two pages each, served by two processes on one file.

    ``standing``, ``version``, ``held`` and ``skipped`` are the model; ``desk`` is what each page has seen: record and
    version. Numbers of people and records are those of the store.
    """

    empty: Path

    def __init__(self) -> None:
        super().__init__()
        clock.now = START
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(self.empty, self.folder / "labeler.db")
        self.stores = [self.opened(), self.opened()]
        self.people, self.records = list(range(1, PEOPLE + 1)), list(range(1, RECORDS + 1))
        self.standing: dict[int, Made | None] = dict.fromkeys(self.records)
        self.version = dict.fromkeys(self.records, 0)
        self.held: dict[int, Held] = {}
        self.skipped: set[tuple[int, int]] = set()
        self.desk: list[dict[int, int]] = [{} for _ in range(PEOPLE * PAGES)]
        self.acts = self.keys = 0
        self.minutes = 10.0
        self.sent: tuple[int, Decision, Decided] | None = None
        self.undone: tuple[int, str, Decided] | None = None

    def opened(self) -> Store:
        return Store(self.folder / "labeler.db", synchronous="OFF")

    def teardown(self) -> None:
        self.drain()
        assert self.stores[0].work.faults() == []
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)

    # Words for both sides

    def queue(self, process: int) -> Queue:
        return Queue(self.stores[process], 1, SENTIMENT, read_settings("project", {"claim_minutes": self.minutes}))

    def decisions(self, process: int) -> Decisions:
        return Decisions(self.stores[process], 1, SENTIMENT, self.minutes * 60)

    def who(self, page: int) -> int:
        return self.people[page // PAGES]

    def name(self, page: int) -> str:
        return f"page {page}"

    def key(self) -> str:
        self.keys += 1
        return f"request-{self.keys:04d}"

    def pending(self, record: int) -> bool:
        return self.standing[record] is None

    def holder(self, record: int) -> Held | None:
        held = self.held.get(record)
        return held if held and clock.now < held.until <= clock.now + 2 * held.lease else None

    def foreign(self, record: int, who: int) -> bool:
        holder = self.holder(record)
        return holder is not None and holder.who != who

    def claim(self, record: int, page: int) -> None:
        lease = self.minutes * 60
        self.held[record] = Held(self.who(page), self.name(page), clock.now + lease, lease)

    def shown(self, page: int, opened: Opened, token: bool = True) -> None:
        record = opened.record.id
        assert opened.version == self.version[record]
        assert (opened.state == "pending") == self.pending(record)
        assert opened.token == (self.name(page) if token else "")
        self.desk[page][record] = opened.version

    def expected_next(self, page: int) -> int | None:
        who, have = self.who(page), self.desk[page]
        mine = [r for r in self.records if (h := self.holder(r)) and h.page == self.name(page) and self.pending(r)]
        for record in sorted(mine, key=lambda r: (self.held[r].until, r)):
            if record not in have:
                return record
        free = [r for r in self.records if self.pending(r) and r not in have and self.holder(r) is None]
        fresh = [r for r in free if (r, who) not in self.skipped]
        if fresh:
            return fresh[0]
        if any(self.pending(r) and (r, who) not in self.skipped for r in have):
            return None
        self.skipped = {(r, other) for r, other in self.skipped if other != who}
        return free[0] if free else None

    # What people and machines do

    @rule(page=pages, process=processes)
    def next(self, page: int, process: int) -> None:
        expected = self.expected_next(page)
        opened = self.queue(process).next(self.who(page), have=list(self.desk[page]), page=self.name(page))
        assert (opened.record.id if opened else None) == expected
        if opened is not None:
            self.claim(opened.record.id, page)
            self.shown(page, opened)

    @rule(page=pages, process=processes, record=st.integers(1, RECORDS))
    def open(self, page: int, process: int, record: int) -> None:
        opened = self.queue(process).open(self.who(page), record, self.name(page))
        foreign = self.foreign(record, self.who(page))
        assert (opened.held_by is not None) == foreign
        if not foreign:
            self.claim(record, page)
        self.shown(page, opened, token=not foreign)

    @precondition(lambda self: any(self.desk))
    @rule(data=st.data(), process=processes, value=values, force=st.booleans())
    def decide(self, data: Any, process: int, value: str | None, force: bool) -> None:
        self.send(*self.on_a_desk(data), process, value, force)

    @rule(page=pages, process=processes, value=values)
    def label(self, page: int, process: int, value: str | None) -> None:
        """What people do most: take the next record and decide on it."""
        before = set(self.desk[page])
        self.next(page, process)
        for record in set(self.desk[page]) - before:
            self.send(page, record, process, value, False)

    @rule(page=pages, process=processes, record=st.integers(1, RECORDS), value=values)
    def correct(self, page: int, process: int, record: int, value: str | None) -> None:
        """Open a record by its number and decide on it, whoever has decided before."""
        self.open(page, process, record)
        self.send(page, record, process, value, False)

    def send(self, page: int, record: int, process: int, value: str | None, force: bool) -> None:
        decision = self.decision(page, record, value, force)
        try:
            decided = self.decisions(process).decide(self.who(page), decision)
        except Conflict:
            assert not force
            assert self.version[record] != decision.version or self.foreign(record, self.who(page))
            return
        assert force or not (self.version[record] != decision.version or self.foreign(record, self.who(page)))
        self.acts += 1
        before = self.standing[record]
        made = Made(decided.annotation_id, self.who(page), "approved" if value else "rejected", value, before)
        self.change(record, made)
        self.held.pop(record, None)
        self.desk[page].pop(record)
        self.sent = (self.who(page), decision, decided)
        assert (decided.version, decided.repeated) == (self.version[record], False)

    @rule(page=pages, process=processes)
    def undo(self, page: int, process: int) -> None:
        who, key = self.who(page), self.key()
        mine = self.mine(who)
        try:
            decided = self.decisions(process).undo(who, key, self.name(page))
        except NotFound:
            assert not mine
            return
        _, record = max(mine)
        assert decided.record_id == record
        self.acts += 1
        taken = self.standing[record]
        self.change(record, taken.before)
        if self.holder(record) is None:
            self.claim(record, page)
        self.undone = (who, key, decided)
        self.open(page, process, record)

    @rule(process=processes)
    def send_again(self, process: int) -> None:
        """Answers got lost: what is sent again is answered as before, and takes nothing more back."""
        if self.sent is not None:
            who, decision, first = self.sent
            again = self.decisions(process).decide(who, decision)
            assert (again.annotation_id, again.how, again.repeated) == (first.annotation_id, first.how, True)
        if self.undone is not None:
            who, key, first = self.undone
            again = self.decisions(process).undo(who, key)
            assert (again.annotation_id, again.state, again.repeated) == (first.annotation_id, first.state, True)

    @precondition(lambda self: any(self.desk))
    @rule(data=st.data(), process=processes)
    def skip(self, data: Any, process: int) -> None:
        page, record = self.on_a_desk(data)
        self.queue(process).skip(self.who(page), record)
        if record in self.held and self.held[record].who == self.who(page):
            del self.held[record]
        if self.pending(record):
            self.skipped.add((record, self.who(page)))
        self.desk[page].pop(record)

    @precondition(lambda self: any(self.desk))
    @rule(data=st.data(), process=processes)
    def touch(self, data: Any, process: int) -> None:
        page, record = self.on_a_desk(data)
        seen = self.desk[page][record]
        lost = self.foreign(record, self.who(page)) or seen != self.version[record]
        try:
            lease = self.queue(process).touch(self.who(page), record, self.name(page), seen)
        except Conflict:
            assert lost
            return
        assert not lost
        if self.holder(record) is None:
            self.claim(record, page)
        held = self.held[record]
        assert lease == held.lease
        held.until = clock.now + lease

    @precondition(lambda self: any(self.desk))
    @rule(data=st.data(), process=processes)
    def renew(self, data: Any, process: int) -> None:
        """A page asks with each decision; a claim that has most of its time left stays as it is."""
        page, record = self.on_a_desk(data)
        opened = self.queue(process).renew(self.who(page), record, self.name(page))
        holder = self.holder(record)
        mine = holder is not None and (holder.who, holder.page) == (self.who(page), self.name(page))
        assert (opened is not None) == (mine and self.pending(record))
        if mine and self.held[record].until - clock.now < queue.MOST_OF_IT * self.minutes * 60:
            self.claim(record, page)
        if opened is not None:
            assert opened.lease == self.held[record].until - clock.now
            self.shown(page, opened)

    @rule(page=pages, process=processes)
    def leave(self, page: int, process: int) -> None:
        self.queue(process).leave(self.who(page), dict.fromkeys(self.desk[page], self.name(page)))
        for record in self.desk[page]:
            if record in self.held and self.held[record].page == self.name(page):
                del self.held[record]
        self.desk[page] = {}

    @rule(page=pages, seconds=st.sampled_from(JUMPS), minutes=st.sampled_from(MINUTES), what=st.integers(0, 2))
    def trouble(self, page: int, seconds: float, minutes: float, what: int) -> None:
        """The clock jumps, an admin changes the lease, or a page is loaded again and its last word got lost."""
        if what == 0:
            clock.now += seconds
        elif what == 1:
            self.minutes = minutes
        else:
            self.desk[page] = {}

    @precondition(lambda self: any(self.desk))
    @rule(data=st.data(), process=processes, how=st.sampled_from(["decide", "undo", "skip"]))
    def kill(self, data: Any, process: int, how: str) -> None:
        """The process dies before it commits, and starts again: nothing happened."""
        page, record = self.on_a_desk(data)
        store, who = self.stores[process], self.who(page)
        # The event is the last that each of them writes.
        with mock.patch.object(store.events, "add", side_effect=Killed), contextlib.suppress(Killed, NotFound):
            if how == "decide":
                self.decisions(process).decide(who, self.decision(page, record, "neutral", True))
            elif how == "undo":
                self.decisions(process).undo(who, self.key(), self.name(page))
            elif self.pending(record):
                self.queue(process).skip(who, record)
        store.close()
        self.stores[process] = self.opened()

    def on_a_desk(self, data: Any) -> tuple[int, int]:
        return data.draw(st.sampled_from([(page, record) for page, desk in enumerate(self.desk) for record in desk]))

    def decision(self, page: int, record: int, value: str | None, force: bool) -> Decision:
        action = "approve" if value else "reject"
        return Decision(record, action, self.key(), self.desk[page][record], value, force=force)

    def change(self, record: int, made: Made | None) -> None:
        self.standing[record] = made
        self.version[record] += 1

    # What holds after each of it

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        """States, versions, values and holders are the model's, and each act that was acknowledged is on record."""
        rows = self.stores[0].db.all(
            """SELECT w.record_id, w.state, w.version, w.annotation_id, a.id, a.reviewer_id, a.value FROM work w
               LEFT JOIN annotations a ON a.record_id = w.record_id AND a.superseded_by IS NULL
               AND a.state <> 'withdrawn' ORDER BY w.record_id"""
        )
        assert [row["record_id"] for row in rows] == self.records
        for row, made in zip(rows, self.standing.values(), strict=True):
            assert (row["state"], row["version"]) == (made.state if made else "pending", self.version[row["record_id"]])
            assert row["annotation_id"] == row["id"]
            value = f'"{made.value}"' if made and made.value else None
            assert (row["reviewer_id"], row["value"]) == (made.who if made else None, value)
            found, held = self.stores[1].work.holder(None, row["record_id"], TASK), self.holder(row["record_id"])
            assert (found and (found["reviewer_id"], found["token"])) == (held and (held.who, held.page))
        assert self.stores[1].db.value("SELECT COUNT(*) FROM annotations") == self.acts

    @invariant()
    def strips_are_in_order(self) -> None:
        for who in self.people:
            strip = self.decisions(0).strip(who)
            assert [row["record_id"] for row in strip] == [record for _, record in sorted(self.mine(who), reverse=True)]

    def mine(self, who: int) -> list[tuple[int, int]]:
        return [(made.number, record) for record, made in self.standing.items() if made and made.who == who]

    def drain(self) -> None:
        """Every record that is pending and that nobody else holds is reached, what was skipped after all others."""
        self.desk[0] = {}
        who = self.who(0)
        wanted = {r for r in self.records if self.pending(r) and not self.foreign(r, who)}
        wanted -= {r for r in wanted if (h := self.holder(r)) and h.page != self.name(0)}
        late = {r for r in wanted if (r, who) in self.skipped and self.holder(r) is None}
        seen = []
        while opened := self.queue(1).next(who, page=self.name(0)):
            seen.append(opened.record.id)
            self.decisions(0).decide(who, Decision(seen[-1], "reject", self.key(), opened.version))
        assert set(seen) == wanted and len(seen) == len(wanted)
        assert set(seen[len(seen) - len(late) :]) == late


clock = Clock()


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A database with records and people, made once; its clock is ours."""
    world = World(tmp_path, [f"리뷰 {n}" for n in range(RECORDS)], people=[f"p{n}" for n in range(PEOPLE)])
    world.store.backup(tmp_path / "empty.db")
    world.store.close()
    for module in (queue, work, annotations, journal):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=clock.time))
    yield tmp_path / "empty.db"


def test_queue_and_decisions_do_what_the_model_does(empty: Path) -> None:
    """Whatever people do in whatever order, no decision is lost, no record has two owners, and undo walks back."""
    machine = type("Machine", (Desks,), {"empty": empty})
    suppressed = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=suppressed),
    )
