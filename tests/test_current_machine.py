"""Whatever people and workers do, in any order and process: nothing stale is shown, and a paid one says so."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from helpers import Points
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from labeler.instance import Instance
from labeler.labels import Answers
from labeler.prelabel.current import CURRENT, standing
from labeler.prelabel.refresh import at_opening
from labeler.store import NewRecord
from labeler.worker import Worker

LABELS = ("positive", "neutral", "negative")
LESS = "negative"
ANSWERS = {
    "retired": Answers(retired=(LESS,)),
    "reopened": Answers(reopened=(LESS,)),
    "merged": Answers(merged={LESS: "neutral"}),
}
PLACES = ("(1 0)", "(1 0.2)", "(0 1)", "(0.2 1)", "(-1 0)", "(-1 0.2)")
sides = st.integers(0, 1)
records = st.integers(0, 3 * len(PLACES) - 1)


class Desk(RuleBasedStateMachine):
    """Two open instances of one folder, as two processes; each may label, open, work in the background and restart."""

    @initialize(probe=st.booleans())
    def start(self, probe):
        self.folder = tempfile.TemporaryDirectory()
        self.sides = [self.opened(), self.opened()]
        first = self.sides[0]
        self.project = first.create_project("points", "en", {"tasks": ["sentiment"], "embedder": "points"})
        news = [NewRecord(f"r{n}", f"{place} {n}") for n, place in enumerate(PLACES * 3)]
        stored = first.store.write(lambda tx: first.store.records.add(tx, self.project, news, ["sentiment"]))
        self.ids = [one.id for one in stored]
        self.labels = LABELS
        self.approved: dict[int, str] = {}
        self.paid: dict[int, int] = {}
        if probe:
            self.change_task(0, "probe", False, "retired")
            self.approve_most(0, 6)
            self.work_in_the_background(0)

    def opened(self):
        instance = Instance(Path(self.folder.name))
        instance.store.db._synchronous = "OFF"
        instance.plugins.embedders["points"] = lambda settings: Points()
        return instance

    def place(self, side):
        instance = self.sides[side]
        project = instance.store.projects.get(self.project)
        return instance, project, instance.project_task(project, "sentiment")

    @rule(side=sides, n=records, label=st.sampled_from(LABELS))
    def approve(self, side, n, label):
        instance, project, task = self.place(side)
        if label not in self.labels:
            return
        decisions = instance.decisions(project, task)
        record = instance.store.records.get(self.ids[n])
        if instance.store.write(lambda tx: decisions.import_label(tx, record, label, "test", None)) is not None:
            self.approved[record.id] = label

    @rule(side=sides, first=st.integers(0, len(PLACES)))
    def approve_most(self, side, first):
        """Enough for the probe to be fitted (again)."""
        for n in range(first, len(self.ids)):
            self.approve(side, n, self.labels[n % len(self.labels)])

    @rule(side=sides, n=records)
    def withdraw(self, side, n):
        instance, _, _ = self.place(side)
        store = instance.store
        current = store.annotations.current(self.ids[n], "sentiment")
        if current is None:
            return
        row = {
            "project_id": self.project, "record_id": self.ids[n], "task": "sentiment", "task_version": "1",
            "state": "withdrawn", "supersedes": current["id"], "origin": "undo",
        }  # fmt: skip

        def work(tx):
            store.annotations.add(tx, row)
            store.work.decided(tx, self.ids[n], "sentiment", "pending", None)

        store.write(work)
        del self.approved[self.ids[n]]

    @rule(
        side=sides, backend=st.sampled_from(["", "nearest", "probe"]), fewer=st.booleans(),
        answer=st.sampled_from(sorted(ANSWERS)),
    )  # fmt: skip
    def change_task(self, side, backend, fewer, answer):
        """Another backend, or one label less: the task has a new version, and approvals follow what is said of it."""
        had = LESS in self.labels or LESS in self.approved.values()
        self.labels = LABELS[:2] if fewer else LABELS
        labels = [{"name": name, "title": {"en": name, "ko": name}} for name in self.labels]
        answers = ANSWERS[answer] if fewer and had else None
        self.sides[side].change_task(self.project, "sentiment", {"backend": backend, "labels": labels}, answers=answers)
        if answers is not None:
            fate = {"retired": LESS, "merged": "neutral", "reopened": None}[answer]
            then = {id_: fate if label == LESS else label for id_, label in self.approved.items()}
            self.approved = {id_: label for id_, label in then.items() if label is not None}

    @rule(side=sides)
    def work_in_the_background(self, side):
        Worker(self.sides[side]).run_until_idle()

    @rule(side=sides)
    def restart(self, side):
        self.sides[side].close()
        self.sides[side] = self.opened()

    @rule(side=sides, n=records, label=st.sampled_from(LABELS))
    def buy(self, side, n, label):
        """A paid suggestion arrives, as a run of its own brings it."""
        instance, project, task = self.place(side)
        made = instance.suggester(project, task, {"backend": "nearest"}).now(
            [instance.store.records.get(self.ids[n])], save=False
        )[0]
        if getattr(made, "value", None) is None:
            return
        bought = replace(made, value=label, backend="openai", billed=True, kind="bought")
        store = instance.store

        def save(tx):
            id_ = store.suggestions.add(tx, self.project, bought)
            store.work.suggested(tx, self.ids[n], "sentiment", id_, None, None)
            return id_

        self.paid[self.ids[n]] = store.write(save)

    @rule(side=sides, n=records)
    def open(self, side, n):
        instance, project, task = self.place(side)
        row = instance.store.work.get(self.ids[n], "sentiment")
        if row["state"] != "pending":
            return
        record = instance.store.records.get(self.ids[n])
        stored = instance.store.suggestions.get(row["suggestion_id"]) if row["suggestion_id"] else None
        own = instance.suggester(project, task)
        (found,) = at_opening(own, instance.free_suggester(project, task, own), [(record, stored)])
        if found.suggestion is None:
            assert found.failure.kind in ("no_examples", "no_answer"), found.failure
        elif found.suggestion.billed:
            assert found.suggestion.id == self.paid[record.id]
            newest = instance.store.annotations.latest_seq(self.project, "sentiment")
            unchanged = (found.suggestion.seq, found.suggestion.task_version) == (newest, task.version)
            assert (found.standing == CURRENT) is unchanged
        else:
            self.is_current_everywhere(side, record, found.suggestion)

    def is_current_everywhere(self, side, record, suggestion):
        """Another process, which knows only what the store says, finds it current as well, and would say the same."""
        instance, project, task = self.place(1 - side)
        free = instance.suggester_now(project, task)
        assert standing(free, record, suggestion) == CURRENT
        again = free.now([record], save=False)[0]
        assert (again.value, again.fit) == (suggestion.value, suggestion.fit)
        assert [e.annotation_id for e in again.evidence] == [e.annotation_id for e in suggestion.evidence]

    @precondition(lambda self: hasattr(self, "sides"))
    @rule(side=sides)
    def the_index_equals_the_approved_labels(self, side):
        instance, project, task = self.place(side)
        held = {entry.annotation_id: entry.strata for _, entry in instance.index(project, task).entries()}
        pages = instance.store.annotations.approved_pages(self.project, "sentiment")
        stands = {row["record_id"]: row["id"] for page in pages for row in page}
        assert stands.keys() == self.approved.keys()
        assert held == {stands[id_]: (label,) for id_, label in self.approved.items() if label in self.labels}

    def teardown(self):
        for instance in getattr(self, "sides", ()):
            instance.close()
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestDesk = Desk.TestCase
TestDesk.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
