"""Labels that are renamed, merged, retired or removed: nothing is voided in silence, and all can be taken back."""

from __future__ import annotations

import json
import random
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from helpers import numbered
from test_web_pages import send, token_of

from labeler import Choice, Choices, Fields, Label, Spans, Task, Text
from labeler.annotation import relabel
from labeler.annotation.decisions import Decision
from labeler.cli import cli
from labeler.doctor import examine
from labeler.errors import Conflict, InputError, LabelError, SettingError, Unanswered
from labeler.export import Options, Shares, export_task
from labeler.export.files import MANIFEST
from labeler.instance import Instance
from labeler.labels import Answers, Lineage, Moves
from labeler.prelabel import runs
from labeler.records import Suggestion
from labeler.store import NewRecord

A, B, C = ("a", "b", "c")
TASKS = {
    "one": Task("one", Choice(Label("a"), Label("b"), Label("c"))),
    "several": Task("several", Choices(Label("a"), Label("b"), Label("c"), Label("none"), exclusive="none")),
    "marked": Task("marked", Spans(Label("a"), Label("b"), Label("c"))),
    "words": Task("words", Text(), guidelines={"en": "Write."}),
}


def plain(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, **more} for name in names]


class Desk:
    """One project with a task of each kind and a reviewer; short words for what people do there."""

    def __init__(self, folder: Path, count: int = 12, name: str = "one") -> None:
        self.folder, self.name = folder, name
        self.instance = Instance(folder / "instance")
        self.store = self.instance.store
        self.store.db._synchronous = "OFF"
        self.instance.plugins.tasks.update(TASKS)
        self.id = self.instance.create_project("shop", "en", {"tasks": list(TASKS), "blind_share": 0})
        self.kim = self.store.write(lambda tx: self.store.people.create(tx, "kim", None, "reviewer"))
        self.ids = self.add(count)

    def add(self, count: int) -> list[int]:
        before = self.store.db.value("SELECT COUNT(*) FROM records")
        news = [NewRecord(f"r{n}", text) for n, text in enumerate(numbered(before + count)) if n >= before]
        return [r.id for r in self.store.write(lambda tx: self.store.records.add(tx, self.id, news, list(TASKS)))]

    @property
    def project(self) -> dict[str, Any]:
        return self.store.projects.get(self.id)

    @property
    def task(self) -> Task:
        return self.instance.project_task(self.project, self.name)

    def value(self, *labels: str) -> Any:
        if isinstance(self.task.schema, Choice):
            return labels[0]
        if isinstance(self.task.schema, Choices):
            return list(labels)
        return [{"label": one, "text": "x", "start": n, "end": n + 1} for n, one in enumerate(labels)]

    def decide(self, record_id: int, *labels: str, action: str = "approve", task_version: str = "", **more: Any) -> Any:
        version = self.store.work.get(record_id, self.name)["version"]
        value = None
        if action == "approve":
            text = self.store.records.get(record_id).text
            value = self.value(*labels)
            if self.name == "marked":
                value = [span | {"text": text[span["start"] : span["end"]]} for span in value]
        decision = Decision(record_id, action, secrets.token_hex(8), version, value, task_version=task_version, **more)
        return self.instance.decisions(self.project, self.task).decide(self.kim, decision)

    def change(self, labels: Any = None, back_to: int | None = None, **said: Any) -> int:
        """Change the labels; without ``labels`` what is said of them changes those of now."""
        given = self.instance.task_settings_raw(self.project, self.name) | (
            {} if labels is None else {"labels": labels}
        )
        return self.instance.change_task(self.id, self.name, given, answers=Answers(**said), back_to=back_to)

    def restore(self, version: int, **said: Any) -> int:
        changes = self.instance.task_changes(self.id, self.name)
        settings, renamed = changes.restored(version)
        given = self.instance.task_settings_raw(self.project, self.name) | settings
        answers = Answers(renamed={**renamed, **said.pop("renamed", {})}, **said)
        return self.instance.change_task(self.id, self.name, given, answers=answers, back_to=version)

    def labels(self) -> dict[int, Any]:
        """What is approved, by record: the labels of each value as the desk and the export read it."""
        found = {}
        for page in self.store.annotations.approved_pages(self.id, self.name):
            for row in page:
                value = self.task.read(json.loads(row["value"]), row["task_version"])
                found[row["record_id"]] = tuple(sorted(self.task.schema.past.strata(value)))
        return found

    def states(self) -> dict[int, str]:
        rows = self.store.db.all("SELECT record_id, state FROM work WHERE task = :t", {"t": self.name})
        return {row["record_id"]: row["state"] for row in rows}

    def version(self) -> int:
        return self.store.projects.task_settings(self.id, self.name)[0]

    def exported(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        folder = self.folder / "out" / secrets.token_hex(4)
        export_task(
            self.store, self.project, self.task, "openai", folder, formats=self.instance.plugins.exporters,
            shares=Shares(1.0, 0.0, 0.0), options=Options(keep_contradicting=True),
        )  # fmt: skip
        lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return manifest, [json.loads(line) for line in lines]

    def suggest(self, record_id: int, value: Any, **more: Any) -> int:
        made = Suggestion(record_id, self.name, self.task.version, "openai", "m", value, None, evidence=[], **more)

        def work(tx: Any) -> int:
            id_ = self.store.suggestions.add(tx, self.id, made)
            self.store.work.suggested(tx, record_id, self.name, id_, 0.5, None)
            return id_

        return self.store.write(work)

    def close(self) -> None:
        self.instance.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path, name="several")
    yield opened
    opened.close()


# How values are read through the versions since


def test_a_label_reads_through_every_version_since() -> None:
    """Renamed, then merged: whoever was labelled first reads as the last; who came between takes only the rest."""
    lineage = Lineage({2: Moves(renamed={"a": "x"}), 4: Moves(merged={"x": "b"}), 5: Moves(reopened=("b",))}, "1")
    assert [lineage.now("a", version) for version in ("1", "1.1", "1.2", "1.4")] == [None, None, "a", "a"]
    assert [lineage.now("x", version) for version in ("1.2", "1.3", "1.5")] == [None, None, "x"]
    before = Lineage({2: Moves(renamed={"a": "x"}), 4: Moves(merged={"x": "b"})}, "1")
    assert (before.now("a", "1"), before.now("x", "1.3"), before.now("c", "1")) == ("b", "b", "c")


def test_going_back_reads_old_values_as_they_were() -> None:
    """A version that restores an earlier one takes back the moves between for older values, and not for later ones."""
    lineage = Lineage({3: Moves(merged={"a": "b"}), 4: Moves(back_to=2), 6: Moves(renamed={"a": "z"})}, "1")
    assert [lineage.now("a", version) for version in ("1", "1.2", "1.4", "1.5", "1.6")] == ["z", "z", "z", "z", "a"]
    assert lineage.now("b", "1.3") == "b"


def test_two_labels_can_swap_their_names() -> None:
    """What is said of labels is said of all at once."""
    lineage = Lineage({1: Moves(renamed={"a": "b", "b": "a"})}, "1")
    assert (lineage.now("a", "1"), lineage.now("b", "1")) == ("b", "a")


def test_the_versions_of_a_plugin_may_have_dots() -> None:
    """Only what a project changed is counted; the plugin's own version is none of its own."""
    lineage = Lineage({1: Moves(renamed={"a": "b"})}, "0.1.2")
    assert (lineage.now("a", "0.1.2"), lineage.now("a", "0.1.2.1")) == ("b", "a")


# What is asked, and what is stored


def test_a_label_that_approvals_have_is_not_removed_unasked(desk: Desk) -> None:
    """One sentence says which labels and how many approvals; nothing is stored before it is answered."""
    for id_ in desk.ids[:3]:
        desk.decide(id_, "a")
    with pytest.raises(Unanswered, match=r"3 approvals have labels that would be gone: a \(3\)") as refused:
        desk.change(plain("b", "c"))
    assert "--merge" in refused.value.remedy
    assert desk.version() == 0 and set(desk.labels().values()) == {("a",)}


def test_a_label_that_nobody_has_just_goes(desk: Desk) -> None:
    """Where no approval has it there is nothing to ask."""
    desk.decide(desk.ids[0], "a")
    desk.change(plain("a", "b"))
    assert [label.name for label in desk.task.schema.labels] == ["a", "b"]


def test_a_preview_counts_approvals_blind_ones_and_suggestions(desk: Desk) -> None:
    """For each label: how many have it, how many of them blind, for how many it is suggested, and how many then."""
    desk.decide(desk.ids[0], "a")
    desk.decide(desk.ids[1], "a", blind=True)
    desk.decide(desk.ids[2], "b")
    desk.suggest(desk.ids[3], "a")
    before = desk.store.db.value("SELECT COUNT(*) FROM annotations")
    preview = desk.instance.task_changes(desk.id, "one").preview({}, Answers(merged={"a": "b"}))
    assert [(f.name, f.what, f.to, f.approved, f.blind, f.suggested, f.then) for f in preview.fates] == [
        ("a", "merged", "b", 2, 1, 1, 0), ("b", "kept", "", 1, 0, 0, 3), ("c", "kept", "", 0, 0, 0, 0)
    ]  # fmt: skip
    assert desk.version() == 0 and desk.store.db.value("SELECT COUNT(*) FROM annotations") == before


def test_a_rename_migrates_and_rewrites_nothing(desk: Desk) -> None:
    """All approvals have the new name everywhere, and the rows still say what was decided, by whom and when."""
    desk.decide(desk.ids[0], "a")
    desk.decide(desk.ids[1], "b")
    rows = [tuple(row) for row in desk.store.db.all("SELECT * FROM annotations ORDER BY id")]
    assert desk.change(renamed={"a": "fine"}) == 1
    assert desk.labels() == {desk.ids[0]: ("fine",), desk.ids[1]: ("b",)}
    assert [tuple(row) for row in desk.store.db.all("SELECT * FROM annotations ORDER BY id")] == rows
    assert desk.instance.index(desk.project, desk.task).counts() == {"fine": 1, "b": 1}


def test_a_change_is_one_version_and_one_event(desk: Desk) -> None:
    """However many labels and records it moves."""
    for n, id_ in enumerate(desk.ids[:9]):
        desk.decide(id_, "abc"[n % 3])
    before = len(desk.store.events.last(desk.id))
    assert desk.change(renamed={"a": "x"}, reopened=("b",), retired=("c",), labels=plain("a", "b", "c", "d")) == 1
    events = desk.store.events.last(desk.id)
    assert len(events) == before + 1 and events[0]["kind"] == "labels changed"
    detail = json.loads(events[0]["detail"])
    assert (detail["renamed"], detail["reopened"], detail["retired"]) == ({"a": "x"}, ["b"], ["c"])
    assert (detail["version"], detail["reopened_records"]) == (1, 3)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"merged": {"a": "nothing"}}, "'a' cannot become 'nothing'; there are: b, c"),
        ({"renamed": {"x": "y"}}, "'x' cannot become 'y'; there are: a, b, c"),
        ({"retired": ("x",)}, "There is no label 'x'; there are: a, b, c"),
        ({"retired": ("a", "b", "c")}, "A label schema needs at least one label"),
        ({"renamed": {"a": "b"}}, "The label 'b' appears twice in the label schema"),
    ],
)
def test_what_cannot_be_said_of_a_label_is_refused(desk: Desk, said: dict[str, Any], why: str) -> None:
    """With the labels that there are; nothing is stored."""
    desk.decide(desk.ids[0], "a")
    with pytest.raises(SettingError) as refused:
        desk.change(**said)
    assert str(refused.value) == why and desk.version() == 0


def test_two_things_said_of_one_label_are_refused() -> None:
    """It cannot be merged and retired at once."""
    with pytest.raises(SettingError, match="answered for twice"):
        Answers(merged={"a": "b"}, retired=("a",))


def test_a_task_without_labels_of_its_own_has_none_to_change(desk: Desk) -> None:
    """Parts and texts are the plugin's; guidelines can be restored all the same."""
    desk.name = "words"
    with pytest.raises(SettingError, match="has no labels to change"):
        desk.change(retired=("a",))
    desk.instance.change_task(desk.id, "words", {"guidelines": {"en": "Write more."}})
    desk.restore(0)
    assert desk.task.guidelines == {"en": "Write."} and desk.version() == 2
    assert Fields((Label("part"), Text())).names == ()


def test_of_two_who_change_labels_at_once_the_second_looks_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said of labels holds for those that were looked at."""
    real = relabel.TaskSettings._plan

    def meanwhile(self: Any, *arguments: Any) -> Any:
        plan = real(self, *arguments)
        monkeypatch.setattr(relabel.TaskSettings, "_plan", real)
        desk.instance.change_task(desk.id, "one", {"labels": plain("a", "b", "c", "d")})
        return plan

    monkeypatch.setattr(relabel.TaskSettings, "_plan", meanwhile)
    with pytest.raises(Conflict, match="Somebody else changed the labels"):
        desk.change(merged={"a": "b"})
    assert desk.version() == 1 and desk.task.schema.names == ("a", "b", "c", "d")


# What each answer does


def test_a_retired_label_stays_where_it_is_and_is_offered_nobody(desk: Desk) -> None:
    """It is counted and exported, the manifest says so; no one can choose it, and it is no example for a model."""
    desk.decide(desk.ids[0], "a")
    desk.decide(desk.ids[1], "b")
    desk.change(retired=("a",))
    with pytest.raises(LabelError, match="was removed from the task meanwhile"):
        desk.decide(desk.ids[2], "a")
    assert desk.task.schema.json_schema()["enum"] == ["b", "c"] and "a" not in desk.task.schema.describe("en")
    assert desk.store.work.counts(desk.id, "one")["approved"] == 2
    assert desk.instance.index(desk.project, desk.task).counts() == {"b": 1}
    manifest, lines = desk.exported()
    assert (manifest["retired"], manifest["labels"]) == (["a"], {"train": {"a": 1, "b": 1}})
    assert manifest["left_out"] == []
    # Who trains on it sees the label among those of the prompt.
    assert all("- a" in line["messages"][0]["content"] for line in lines)
    desk.change(plain("a", "b", "c"))
    desk.decide(desk.ids[2], "a")
    assert desk.instance.index(desk.project, desk.task).counts() == {"a": 2, "b": 1}


def test_records_of_a_reopened_label_come_back_to_the_queue(desk: Desk) -> None:
    """They are pending, the history says what stood, and the next reviewer gets them."""
    for id_ in desk.ids:
        desk.decide(id_, "a" if id_ == desk.ids[4] else "b")
    desk.change(reopened=("a",))
    assert desk.states()[desk.ids[4]] == "pending"
    assert desk.instance.queue(desk.project, desk.task).next(desk.kim).record.id == desk.ids[4]
    history = desk.store.annotations.history(desk.ids[4], "one")
    assert [(row["state"], row["origin"]) for row in history] == [("withdrawn", "labels 1"), ("approved", None)]
    assert desk.store.work.faults() == []


def test_labels_that_cannot_stand_together_after_a_merge_are_looked_at_again(many: Desk) -> None:
    """One that stands alone takes in another: records that have more go back to pending, as the preview said."""
    many.decide(many.ids[0], "a", "b")
    many.decide(many.ids[1], "b")
    preview = many.instance.task_changes(many.id, "several").preview({}, Answers(merged={"b": "none"}))
    assert (preview.reopening, preview.clashing) == (1, 1)
    many.change(merged={"b": "none"})
    assert many.labels() == {many.ids[1]: ("none",)} and many.states()[many.ids[0]] == "pending"


def test_a_label_that_stands_alone_does_so_under_its_new_name(many: Desk) -> None:
    """And two labels of one record that become one are one."""
    many.decide(many.ids[0], "a", "b")
    many.change(renamed={"none": "nothing"}, merged={"b": "a"})
    assert many.labels()[many.ids[0]] == ("a",)
    with pytest.raises(LabelError, match="cannot be chosen together"):
        many.decide(many.ids[1], "a", "nothing")


def test_a_heading_whose_labels_are_retired_is_no_label() -> None:
    """Nobody chooses it, and what was given under it is read as before."""
    tree = Choices(Label("x"), Label("top"), Label("top/one", parent="top", retired=True))
    assert tree.names == ("x",) and tree.past.parse(["top/one"]) == ["top/one"]
    assert tree.past.render(["top/one"], "en") == "top > top/one"
    with pytest.raises(LabelError, match="heading"):
        tree.parse(["top"])


def test_everything_of_a_heading_can_be_retired_at_once(many: Desk) -> None:
    """Its subcategories lose the heading that is gone, and their records keep them."""
    many.change([*plain("top"), *plain("top/one", parent="top"), *plain("x")])
    many.decide(many.ids[0], "top/one")
    many.change(plain("x"), retired=("top/one",))
    assert many.labels() == {many.ids[0]: ("top/one",)}


def test_a_heading_with_a_new_name_keeps_what_is_under_it(many: Desk) -> None:
    """Labels below it follow, and values, which never hold a heading, stay."""
    many.change([*plain("top"), *plain("top/one", parent="top"), *plain("x")])
    many.decide(many.ids[0], "top/one")
    many.change(renamed={"top": "head"})
    assert many.task.schema.label("top/one").parent == "head" and many.labels() == {many.ids[0]: ("top/one",)}


def test_the_desk_shows_a_retired_label_where_it_stands(desk: Desk) -> None:
    """With a word that it is retired; the form, which cannot offer it, is empty."""
    from labeler.app import create_app
    from labeler.web.desk_view import DeskView

    desk.decide(desk.ids[0], "a")
    desk.change(retired=("a",))
    opened = desk.instance.queue(desk.project, desk.task).open(desk.kim, desk.ids[0])
    with create_app(desk.instance, {"TESTING": True}).test_request_context("/"):
        shown = DeskView(desk.instance, desk.project, desk.task, "en").payload(opened)
    status = shown["html"].split('data-slot="status"')[1].split('data-slot="side"')[0]
    assert ">a</span>" in status and "사용 중지한 라벨" in status and shown["decided"] is None


# Suggestions, runs, and what was learned


def test_suggestions_follow_a_rename_and_those_of_a_removed_label_are_not_offered(desk: Desk) -> None:
    """Accepting a suggestion under its new name is accepting it."""
    from labeler.web.desk_view import DeskView

    desk.decide(desk.ids[3], "a")
    ids = [desk.suggest(id_, value, billed=True) for id_, value in zip(desk.ids, "ab", strict=False)]
    desk.change(renamed={"a": "x"}, reopened=("b",))
    view = DeskView(desk.instance, desk.project, desk.task, "en")
    queue = desk.instance.queue(desk.project, desk.task)
    opened = [queue.open(desk.kim, id_) for id_ in desk.ids[:2]]
    shown = [view._suggestion(one, made, False, {})[1] for one, made in zip(opened, view._found(opened), strict=True)]
    assert [one.value for one in shown] == ["x", None] and shown[1].hint == "older"
    assert desk.decide(desk.ids[0], "x", suggestion_id=ids[0]).how == "accepted"


def test_an_open_run_pauses_where_it_would_ask_for_labels_that_are_gone(desk: Desk) -> None:
    """With a sentence; another label beside the others does not stop it."""
    run = runs.start(desk.store, desk.id, "one", desk.ids, {"backend": "nearest"})
    desk.change(plain("a", "b", "c", "d"))
    assert desk.store.ledger.run(run)["state"] == "queued"
    desk.change(retired=("a",))
    found = desk.store.ledger.run(run)
    assert found["state"] == "paused" and "labels of the task were changed" in found["message"]


def test_an_ensemble_that_learned_other_labels_does_not_answer(desk: Desk) -> None:
    """It would spread the records of a renamed label over the others; it learns anew from all of them."""
    for n, id_ in enumerate(desk.ids):
        desk.decide(id_, "ab"[n % 2])
    ensemble = desk.instance.ensemble(desk.project, desk.task)
    assert ensemble.fit() and {"a", "b"} <= set(ensemble.fitted.labels)
    desk.change(renamed={"a": "x"})
    ensemble = desk.instance.ensemble(desk.project, desk.task)
    assert ensemble.fitted is None and ensemble.stale()
    assert ensemble.fit() and "a" not in ensemble.fitted.labels and {"b", "x"} <= set(ensemble.fitted.labels)


# Decisions on their way


def test_a_decision_of_an_older_page_counts_under_the_new_name(desk: Desk) -> None:
    """It says which version it was made under: what was renamed or merged since is stored as that."""
    older = desk.task.version
    desk.change(renamed={"a": "x"}, merged={"b": "c"})
    decided = [desk.decide(id_, label, task_version=older) for id_, label in zip(desk.ids, "ab", strict=False)]
    assert [one.value for one in decided] == ["x", "c"]
    rows = desk.store.db.all("SELECT value, task_version FROM annotations ORDER BY id")
    assert [tuple(row) for row in rows] == [('"x"', "1.1"), ('"c"', "1.1")]


@pytest.mark.parametrize("said", [{"reopened": ("a",)}, {"retired": ("a",)}])
def test_a_decision_of_an_older_page_for_a_removed_label_is_refused(desk: Desk, said: dict[str, Any]) -> None:
    """With one sentence that says what to do; nothing is stored."""
    older = desk.task.version
    desk.change(**said)
    with pytest.raises(LabelError, match="open the record again and choose another"):
        desk.decide(desk.ids[0], "a", task_version=older)
    assert desk.states()[desk.ids[0]] == "pending"


def test_a_decision_that_was_read_before_and_comes_after_a_change_looks_again(desk: Desk) -> None:
    """The labels it was read by are not those of now."""
    decisions = desk.instance.decisions(desk.project, desk.task)
    desk.change(reopened=("a",))
    with pytest.raises(Conflict, match="this very moment"):
        decisions.decide(desk.kim, Decision(desk.ids[0], "approve", "0123456789", 0, "a"))


def test_an_undo_does_not_bring_a_removed_label_back(desk: Desk) -> None:
    """A correction of a label that is gone since is taken back to pending; one of a renamed label to its new name."""
    for id_ in desk.ids[:2]:
        desk.decide(id_, "a" if id_ == desk.ids[0] else "b")
        desk.decide(id_, "c")
    desk.change(reopened=("a",), renamed={"b": "x"})
    decisions = desk.instance.decisions(desk.project, desk.task)
    decisions.undo(desk.kim)
    assert desk.labels() == {desk.ids[0]: ("c",), desk.ids[1]: ("x",)}
    decisions.undo(desk.kim)
    decisions.undo(desk.kim)
    assert desk.labels() == {} and desk.store.work.faults() == []


# Undone as a whole


@pytest.mark.parametrize("name", ["one", "several", "marked"])
def test_a_change_is_undone_as_a_whole(tmp_path: Path, name: str) -> None:
    """Labels, values and states are what they were, exactly, whatever was said of the labels."""
    desk = Desk(tmp_path, name=name)
    for n, id_ in enumerate(desk.ids[:9]):
        desk.decide(id_, "abc"[n % 3])
    desk.decide(desk.ids[9], action="reject")
    before = desk.labels(), desk.states(), desk.task.schema.to_json()
    desk.change(renamed={"a": "x"}, merged={"b": "c"})
    desk.change(reopened=("c",))
    assert Counter(desk.states().values())["pending"] == 8
    preview = desk.instance.task_changes(desk.id, name).preview(
        desk.instance.task_changes(desk.id, name).restored(0)[0], Answers(renamed={"x": "a"}), 0
    )
    assert (preview.returning, preview.decided) == (6, ())
    desk.restore(0)
    assert (desk.labels(), desk.states(), desk.task.schema.to_json()) == before
    rows = desk.store.db.all("SELECT DISTINCT reviewer_id FROM annotations WHERE state = 'approved'")
    assert [row["reviewer_id"] for row in rows] == [desk.kim] and desk.store.work.faults() == []
    desk.close()


def test_what_was_decided_since_stays_and_is_named(desk: Desk) -> None:
    """Going back brings back what nobody touched since; the others keep the newer decision."""
    for id_ in desk.ids[:3]:
        desk.decide(id_, "a")
    desk.change(reopened=("a",))
    desk.decide(desk.ids[0], "b")
    changes = desk.instance.task_changes(desk.id, "one")
    assert changes.preview(changes.restored(0)[0], Answers(), 0).decided == ("r0",)
    desk.restore(0)
    assert desk.labels() == {desk.ids[0]: ("b",), desk.ids[1]: ("a",), desk.ids[2]: ("a",)}


def test_labels_given_since_are_asked_about_when_going_back(desk: Desk) -> None:
    """A label that the older version does not have is a label that goes."""
    desk.change(plain("a", "b", "c", "d"))
    desk.decide(desk.ids[0], "d")
    with pytest.raises(Unanswered, match=r"d \(1\)"):
        desk.restore(0)
    desk.restore(0, merged={"d": "a"})
    assert desk.labels() == {desk.ids[0]: ("a",)}


def test_a_step_back_can_be_taken_back(desk: Desk) -> None:
    """Restoring is a version as any other."""
    desk.decide(desk.ids[0], "a")
    desk.change(merged={"a": "b"})
    desk.restore(0)
    assert desk.labels() == {desk.ids[0]: ("a",)}
    desk.restore(1)
    assert desk.labels() == {desk.ids[0]: ("b",)} and desk.version() == 3


# Many records, and processes that die


def test_many_records_follow_in_slices_and_a_killed_process_is_finished_by_another(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version stands at once; the doctor says that records still follow, and whoever comes next goes on."""
    for id_ in desk.ids[:10]:
        desk.decide(id_, "a")
    monkeypatch.setattr(relabel, "_SLICE", 3)
    real, left = relabel._Followers.apply, iter(range(2))

    def dies(*arguments: Any) -> None:
        next(left)
        real(*arguments)

    monkeypatch.setattr(relabel._Followers, "apply", dies)
    with pytest.raises((StopIteration, RuntimeError)):
        desk.change(reopened=("a",))
    monkeypatch.setattr(relabel._Followers, "apply", real)
    assert desk.version() == 1 and Counter(desk.states().values())["approved"] == 4
    assert desk.store.projects.unfinished(desk.id, "one")["version"] == 1
    desk.instance.fill_queues(desk.id)
    assert desk.store.projects.unfinished(desk.id, "one") is None
    assert Counter(desk.states().values()) == {"pending": 12} and desk.store.work.faults() == []


def test_labels_wait_for_an_import_to_end(desk: Desk) -> None:
    """It reads its labels by those that it began with."""
    desk.store.write(
        lambda tx: tx.run(
            """INSERT INTO imports (project_id, file, settings, state, created_at, alive_at)
               VALUES (:p, 'a.csv', '{}', 'running', :now, :now)""", {"p": desk.id, "now": time.time()}
        )
    )  # fmt: skip
    with pytest.raises(Conflict):
        desk.change(retired=("a",))
    assert desk.version() == 0


# Everything agrees afterwards


@pytest.mark.parametrize("name", ["one", "several", "marked"])
def test_counts_queue_evidence_doctor_and_export_agree_after_every_change(tmp_path: Path, name: str) -> None:
    """Random changes of labels with decisions between them, held against a plain model of what each record has."""
    desk, dice = Desk(tmp_path, count=36, name=name), random.Random(name)
    model: dict[int, set[str]] = {}
    for step in range(12):
        offered = [one for one in desk.task.schema.names if one != "none"]
        for id_ in dice.sample([id_ for id_ in desk.ids if id_ not in model], 3):
            chosen = dice.sample(offered, 1 if name == "one" else dice.randint(1, min(2, len(offered))))
            desk.decide(id_, *chosen)
            model[id_] = set(chosen)
        before = {id_: set(has) for id_, has in model.items()}
        old, other = dice.sample(offered, 2)
        kind = dice.choice(["rename", "merge", "retire", "reopen", "add"] if len(offered) > 3 else ["rename", "add"])
        if kind == "rename":
            desk.change(renamed={old: f"n{step}"})
            model = {id_: {f"n{step}" if one == old else one for one in has} for id_, has in model.items()}
        elif kind == "merge":
            desk.change(merged={old: other})
            model = {id_: {other if one == old else one for one in has} for id_, has in model.items()}
        elif kind == "retire":
            desk.change(retired=(old,))
        elif kind == "reopen":
            desk.change(reopened=(old,))
            model = {id_: has for id_, has in model.items() if old not in has}
        else:
            labels = [label.to_json() for label in (*desk.task.schema.labels, *desk.task.schema.retired)]
            desk.change([*labels, {"name": f"n{step}"}])
        agree(desk, model)
        if dice.random() < 0.4:
            desk.restore(desk.version() - 1)
            model = before
            agree(desk, model)
    desk.close()


def agree(desk: Desk, model: dict[int, set[str]]) -> None:
    """Hold counts, queue, evidence, doctor and export against what each record has."""
    offered = set(desk.task.schema.names)
    assert {id_: set(labels) for id_, labels in desk.labels().items()} == model
    counts = desk.store.work.counts(desk.id, desk.name)
    assert (counts["approved"], counts["pending"]) == (len(model), len(desk.ids) - len(model))
    assert set(desk.store.work.all_pending(desk.id, desk.name)) == set(desk.ids) - set(model)
    index = desk.instance.index(desk.project, desk.task)
    examples = {entry.record_id: set(entry.strata) for _, entry in index.entries()}
    assert examples == {id_: has for id_, has in model.items() if has <= offered}
    assert desk.store.work.faults() == [] and relabel.unknown(desk.store, desk.id, desk.task) == {}
    assert desk.store.projects.unfinished(desk.id, desk.name) is None
    if model:
        manifest, lines = desk.exported()
        assert len(lines) == len(model) and manifest["left_out"] == []
        assert manifest["labels"]["train"] == dict(Counter(one for has in model.values() for one in has))


PLUGIN = """from labeler import Choice, Label, Task, hookimpl

@hookimpl
def register_tasks():
    return [Task("kind", Choice({labels}))]
"""


def test_the_doctor_names_labels_that_a_plugin_dropped_and_is_content_once_it_is_said_what_they_are(
    tmp_path: Path,
) -> None:
    """A newer plugin without a label voids nothing in silence; the remedy that the doctor names works."""
    plugin = tmp_path / "instance" / "plugins" / "kind.py"
    plugin.parent.mkdir(parents=True)
    plugin.parent.parent.chmod(0o700)
    plugin.write_text(PLUGIN.format(labels="Label('a'), Label('b')"))
    desk = Desk(tmp_path, name="kind")
    desk.instance.change_project(desk.id, {"tasks": ["kind"]})
    for id_ in desk.ids[:2]:
        desk.decide(id_, "a")
    desk.change(renamed={"b": "x"})
    desk.close()
    assert [finding.text for finding in examine(desk.folder / "instance", deep=True) if not finding.good] == []
    plugin.write_text(PLUGIN.format(labels="Label('b'), Label('c')"))
    with Instance(tmp_path / "instance") as instance:
        instance.store.write(lambda tx: tx.run("UPDATE task_settings SET settings = '{}', moves = NULL"))
    faults = [finding.text for finding in examine(tmp_path / "instance", deep=True) if not finding.good]
    assert len(faults) == 1 and "2 approvals have the label 'a'" in faults[0] and "--merge a=LABEL" in faults[0]
    with Instance(tmp_path / "instance") as instance:
        instance.change_task(1, "kind", {}, answers=Answers(merged={"a": "c"}))
    assert [finding.text for finding in examine(tmp_path / "instance", deep=True) if not finding.good] == []


def test_nothing_to_say_is_no_change(desk: Desk) -> None:
    """Other settings are saved as before: no moves, no question."""
    desk.decide(desk.ids[0], "a")
    desk.instance.change_task(desk.id, "one", {"k": 4})
    assert desk.store.projects.label_moves(desk.id, "one") == {}
    with pytest.raises(InputError):
        desk.instance.task_changes(desk.id, "one").preview({"k": 4000})


# On the page


@pytest.fixture
def page(client: FlaskClient, project: int, instance: Instance, people: dict[str, int]) -> Page:
    return Page(client, instance, project, people["admin"])


class Page:
    """The settings of the task sentiment, as an admin's browser sends them."""

    def __init__(self, client: FlaskClient, instance: Instance, project: int, admin: int) -> None:
        self.client, self.instance, self.project, self.admin = client, instance, project, admin
        self.path = f"/projects/{project}/settings/sentiment"

    def approve(self, *labels: str) -> None:
        found = self.instance.store.projects.get(self.project)
        decisions = self.instance.decisions(found, self.instance.project_task(found, "sentiment"))
        for record_id, label in enumerate(labels, 1):
            version = self.instance.store.work.get(record_id, "sentiment")["version"]
            decisions.decide(self.admin, Decision(record_id, "approve", secrets.token_hex(8), version, label))

    def form(self, path: str = "") -> dict[str, Any]:
        """The fields of the page as they are, but the guidelines."""
        return fields(self.client.get(path or self.path).text)

    def save(self, form: dict[str, Any]) -> Any:
        return send(self.client, self.path, **form)

    @property
    def labels(self) -> tuple[str, ...]:
        found = self.instance.store.projects.get(self.project)
        return self.instance.project_task(found, "sentiment").schema.names

    @property
    def version(self) -> int:
        return self.instance.store.projects.task_settings(self.project, "sentiment")[0]

    def counts(self) -> dict[str, int]:
        found = self.instance.store.projects.get(self.project)
        return self.instance.index(found, self.instance.project_task(found, "sentiment")).counts()


def fields(text: str) -> dict[str, Any]:
    """Return what a browser would send of the form on a page with the label table, row by row."""
    soup = Form()
    soup.feed(re.sub(r"(?s)<template.*?</template>", "", text))
    return soup.found


class Form(HTMLParser):
    """Collects the fields of the form that has the label table."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Any] = {}
        self.select = self.area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        name = said.get("name") or ""
        if tag == "input" and (name.startswith("label.") or name in ("seen", "back_to", "looked", "gone.name")):
            self.found.setdefault(name, []).append(said.get("value") or "")
        elif tag == "select" and name in ("label.state", "gone.answer"):
            self.select = name
            self.found.setdefault(name, []).append("")
        elif tag == "option" and self.select and "selected" in said:
            self.found[self.select][-1] = said.get("value") or ""
        elif tag == "textarea" and (name.startswith("label.") or name.startswith("guidelines.")):
            self.area = name
            self.found.setdefault(name, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self.select = "" if tag == "select" else self.select
        self.area = "" if tag == "textarea" else self.area

    def handle_data(self, data: str) -> None:
        if self.area:
            self.found[self.area][-1] += data


def drop(form: dict[str, Any], label: str) -> dict[str, Any]:
    """Take a row out of the table, as its button does."""
    place = form["label.name"].index(label)
    for name, values in form.items():
        if name.startswith("label."):
            values.pop(place)
    return form


def test_the_page_asks_before_it_saves(page: Page) -> None:
    """Counts per label, a choice for the label that goes, nothing stored; what was typed elsewhere is still there."""
    page.approve("positive", "positive", "negative")
    answer = page.save(drop(page.form(), "positive") | {"guidelines.en": "Typed just now."})
    assert answer.status_code == 409 and page.version == 0
    assert "라벨이 어떻게 바뀌는지 확인하세요" in answer.text and "Typed just now." in answer.text
    form = fields(answer.text)
    assert (form["gone.name"], form["gone.answer"], form["looked"]) == (["positive"], [""], ["", "positive"])
    row = re.search(r'(?s)<th scope="row">positive.*?</tr>', answer.text)
    assert row and re.findall(r'class="num">(\d+)', row[0]) == ["2", "0", "0", "0"]
    saved = page.save(form | {"gone.answer": ["merge:neutral"]})
    assert saved.status_code == 303 and page.version == 1 and page.labels == ("neutral", "negative")
    assert page.counts() == {"neutral": 2, "negative": 1}


@pytest.mark.parametrize(
    ("answer", "counts", "state"),
    [("retire", {"negative": 1}, "approved"), ("reopen", {"negative": 1}, "pending")],
)
def test_the_page_retires_and_reopens(page: Page, answer: str, counts: dict[str, int], state: str) -> None:
    """A retired label stays in the table, out of use; a reopened one is gone, and its records are pending."""
    page.approve("positive", "negative")
    form = fields(page.save(drop(page.form(), "positive")).text)
    assert page.save(form | {"gone.answer": [answer]}).status_code == 303
    assert page.counts() == counts and page.instance.store.work.get(1, "sentiment")["state"] == state
    states = dict(zip(page.form()["label.name"], page.form()["label.state"], strict=True))
    assert states.get("positive") == ("retired" if answer == "retire" else None)


def test_a_new_name_in_the_same_row_is_a_rename(page: Page) -> None:
    """It is shown first, then saved; the approvals have the new name."""
    page.approve("positive", "negative")
    form = page.form()
    form["label.name"][0] = "glad"
    shown = page.save(form)
    assert shown.status_code == 200 and page.version == 0 and "새 이름:" in shown.text
    assert page.save(fields(shown.text)).status_code == 303
    assert page.labels == ("glad", "neutral", "negative") and page.counts() == {"glad": 1, "negative": 1}


def test_what_harms_no_label_is_saved_at_once(page: Page) -> None:
    """Another title, another label: there is nothing to ask."""
    page.approve("positive")
    form = page.form()
    form["label.title_ko"][0] = "아주 좋음"
    assert page.save(form).status_code == 303 and page.version == 1


def test_an_older_page_is_told_what_its_decision_became(page: Page) -> None:
    """The desk sends the version that it was opened with, and says under which label the decision was saved."""
    desk = f"/projects/{page.project}/label/sentiment"
    token = {"X-CSRFToken": token_of(page.client, desk)}
    opened = page.client.post(f"{desk}/api/next", json={}, headers=token).json
    page.instance.change_task(page.project, "sentiment", {}, answers=Answers(renamed={"positive": "glad"}))
    body = {name: opened[name] for name in ("record_id", "version", "task_version")}
    body |= {"action": "approve", "value": "positive", "request_key": secrets.token_hex(8)}
    answer = page.client.post(f"{desk}/api/decide", json=body, headers=token).json
    assert answer["note"] == "그사이 이 태스크의 라벨이 바뀌어서 이렇게 저장했어요: 긍정"
    assert page.counts() == {"glad": 1}


def test_two_versions_are_compared_line_by_line(page: Page) -> None:
    """Each line has a sign and a word for who does not see it; what is the same in both is not repeated."""
    page.save(page.form() | {"guidelines.en": "First line.\nSecond line."})
    form = page.form()
    form["label.name"][1] = "so-so"
    form |= {"guidelines.en": "First line.\nThird line."}
    page.save(fields(page.save(form).text))
    text = page.client.get(f"{page.path}/versions?old=1&new=2").text
    lines = re.findall(r"(?s)<li class=.*?</li>", text)
    said = [re.sub(r"\s+", " ", re.sub("<[^>]+>", "", line)).strip() for line in lines]
    assert said[:3] == ["First line.", "−삭제됨: Second line.", "+추가: Third line."]
    changed = [line for line in said[3:] if line[0] in "−+"]
    assert [line.split(" ·")[0] for line in changed] == ["−삭제됨: neutral", "+추가: so-so"]
    assert page.client.get(f"{page.path}/versions?old=1&new=9").status_code == 404
    assert page.client.get(f"{page.path}/versions?old=2&new=2").text.count("두 버전이 같아요") >= 2


def test_a_version_is_restored_through_the_same_preview(page: Page) -> None:
    """The form comes filled in with the older guidelines and labels; saving it undoes what was done to labels since."""
    page.approve("positive", "negative")
    form = page.form()
    form["label.name"][0] = "glad"
    page.save(fields(page.save(form).text) | {"guidelines.en": "Changed."})
    page.save(fields(page.save(drop(page.form(), "negative")).text) | {"gone.answer": ["reopen"]})
    assert page.version == 2 and page.counts() == {"glad": 1}
    shown = page.client.get(f"{page.path}?restore=0").text
    form = fields(shown)
    assert page.version == 2 and "라벨을 되찾는 레코드: 1" in shown and form["guidelines.en"] != ["Changed."]
    assert (form["back_to"], form["label.was"]) == (["0"], ["glad", "neutral", "negative"])
    assert page.save(form).status_code == 303
    assert page.version == 3 and page.counts() == {"positive": 1, "negative": 1}
    assert page.client.get(f"{page.path}?restore=99").status_code == 404


# By command


def test_the_command_asks_with_one_sentence_and_takes_the_answer(desk: Desk) -> None:
    """Counts per label, the options that answer, nothing stored; with an answer it is one version; it can be undone."""
    desk.name = "sentiment"
    desk.instance.change_project(desk.id, {"tasks": ["sentiment"]})
    for n, id_ in enumerate(desk.ids[:3]):
        desk.decide(id_, "positive" if n else "negative")
    folder = str(desk.instance.folder)
    desk.close()

    def run(*words: str) -> Result:
        line = ["settings", "--project", "shop", "--task", "sentiment", *words, "--instance", folder]
        return CliRunner().invoke(cli, line)

    asked = run('labels=[{"name": "neutral"}, {"name": "negative"}]')
    assert asked.exit_code == 1 and "positive: ?. 2 approved, 0 suggested; then 0 approved" in asked.output
    assert "2 approvals have labels that would be gone: positive (2)" in asked.output
    assert "--retire LABEL" in asked.output
    dry = run("--merge", "positive=neutral", "--dry-run")
    assert "positive: becomes neutral. 2 approved" in dry.output and "Nothing was stored." in dry.output
    assert "Saved as version 1" in run("--merge", "positive=neutral").output
    restored = run("--restore", "0")
    assert "Saved as version 2" in restored.output
    assert "positive: is new. 0 approved, 0 suggested; then 2" in restored.output
    assert "write OLD=NEW" in run("--rename", "positive").output
    refused = CliRunner().invoke(cli, ["settings", "--retire", "x", "--instance", folder])
    assert refused.exit_code == 1 and "give --project and --task" in refused.output
