"""Acts on many records at once: what they would do, what they do, and that they are undone as a whole."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from helpers import SENTIMENT, World

from labeler.annotation import acts as acting
from labeler.annotation.acts import Acts, Asked
from labeler.annotation.queue import is_blind
from labeler.annotation.relabel import TaskSettings
from labeler.errors import Conflict, InputError, LabelError, NotFound
from labeler.labels import Answers
from labeler.store.audit import audit
from labeler.worker import Worker


@pytest.fixture
def world(tmp_path):
    """Thirty records: all but five with a suggestion, ten decided by hand."""
    made = World(tmp_path, [f"귤 {n}번" for n in range(30)])
    for n, id_ in enumerate(made.records):
        if n % 6:
            suggestion = made.suggest(id_, ("positive", "negative")[n % 2], score=n / 30)
            if n < 10:
                made.approve(id_, "neutral", suggestion_id=suggestion)
    made.reject(made.records[0])
    yield made
    assert audit(made.store) == []
    assert made.store.counts.faults() == []
    made.store.close()


def acts_of(world, share=0.0, task=SENTIMENT):
    return Acts(world.store, world.project_id, task, share)


def values(world):
    return {id_: value for id_, (_, value) in world.approved().items()}


def done(acts, asked):
    id_ = acts.begin(asked, 1)
    assert acts.go_on(id_) == "done"
    return id_


def test_pending_suggestions_are_approved_and_nothing_else(world):
    """What people decided stays, and a record without a suggestion stays pending."""
    before = values(world)
    acts = acts_of(world)
    asked = Asked("approve")
    seen = acts.preview(asked)
    id_ = done(acts, asked)
    after = values(world)
    assert {key: after[key] for key in before} == before
    new = {key: value for key, value in after.items() if key not in before}
    assert len(new) == seen.changing == 17 and Counter(new.values()) == seen.after
    assert seen.left_out == {"decided": 9, "unsuggested": 4}
    assert all(world.state(world.records[n]) == "pending" for n in (6, 12, 18, 24))
    act = world.store.acts.get(id_)
    assert (act["looked"], act["changed"], json.loads(act["left_out"])) == (30, 17, dict(seen.left_out))
    rows = world.store.annotations.now([row["id"] for row in acts.sample(id_, 100)])
    assert {row["how"] for row in rows} == {"bulk"} and {row["origin"] for row in rows} == {f"act:{id_}"}


@pytest.mark.parametrize(
    "asked", [Asked("approve"), Asked("label", value="negative"), Asked("reject"), Asked("reopen")]
)
def test_an_act_is_undone_as_a_whole(world, asked, monkeypatch):
    """All states and labels are again what they were, whatever the act was; the log has both."""
    monkeypatch.setattr(acting, "_SLICE", 4)
    states = {id_: (world.state(id_), world.value(id_)) for id_ in world.records}
    acts = acts_of(world)
    id_ = done(acts, asked)
    changed = {key for key in world.records if (world.state(key), world.value(key)) != states[key]}
    assert len(changed) == world.store.acts.get(id_)["changed"] > 5
    acts.undo(id_, 1)
    assert acts.go_on(id_) == "undone"
    assert {key: (world.state(key), world.value(key)) for key in world.records} == states
    with pytest.raises(Conflict, match="Only an act that is done"):
        acts.undo(id_, 1)


def test_what_was_decided_since_stays_when_an_act_is_undone(world):
    acts = acts_of(world)
    id_ = done(acts, Asked("label", value="negative"))
    world.approve(world.records[3], "positive")
    acts.undo(id_, 1)
    acts.go_on(id_)
    assert world.value(world.records[3]) == "positive" and world.value(world.records[4]) == "neutral"


def test_what_was_decided_since_a_record_was_put_back_stays(world):
    """Of two that an act put back to pending, the one on which nobody has decided has its decision again."""
    acts, (first, second) = acts_of(world), [id_ for id_ in world.records if world.state(id_) == "approved"][:2]
    id_ = done(acts, Asked("reopen", ids=(first, second)))
    world.approve(first, "negative")
    acts.undo(id_, 1)
    assert acts.go_on(id_) == "undone"
    assert (world.value(first), world.value(second)) == ("negative", "neutral")
    assert world.store.work.faults() == []


def test_only_what_a_query_finds_or_was_chosen_is_changed(world):
    acts = acts_of(world)
    done(acts, Asked("label", "suggested:negative state:pending score>0.5", "neutral"))
    changed = [n for n, id_ in enumerate(world.records) if n >= 10 and world.value(id_) == "neutral"]
    assert changed == [n for n in range(10, 30) if n % 6 and n % 2 and n / 30 > 0.5]
    chosen = (world.records[12], world.records[14], world.records[2])
    done(acts, Asked("reject", "state:pending", ids=chosen))
    # The last one was chosen, and is not found by the query any more.
    assert [world.state(id_) for id_ in chosen] == ["rejected", "rejected", "approved"]


def test_records_on_a_desk_and_blind_ones_are_left_out(world):
    """A record that a person works on is not decided behind their back, nor one whose suggestion nobody is to see."""
    record = world.records[13]
    opened = world.queue().open(world.kim, record, "page")
    world.queue().touch(world.kim, record, opened.token, opened.version)
    blind = {id_ for id_ in world.records if is_blind(world.project_id, "sentiment", id_, 0.3)}
    acts = acts_of(world, 0.3)
    id_ = done(acts, Asked("approve"))
    assert world.state(record) == "pending"
    left = json.loads(world.store.acts.get(id_)["left_out"])
    assert left["held"] == 1 and left["blind"] == sum(world.state(one) == "pending" for one in blind)


def test_an_act_goes_on_behind_its_last_slice(world, monkeypatch):
    """Whoever died in the middle left whole slices; two that go on at the same time decide on no record twice."""
    monkeypatch.setattr(acting, "_SLICE", 5)
    acts, other = acts_of(world), acts_of(world)
    id_ = acts.begin(Asked("label", value="positive"), None)
    assert acts.go_on(id_, seconds=0) == "doing"
    act = world.store.acts.get(id_)
    assert act["looked"] == 5
    other._do_slice(act)
    acts._do_slice(act)
    assert world.store.acts.get(id_)["looked"] == 10
    assert other.go_on(id_) == "done"
    assert set(values(world).values()) == {"positive"} and len(values(world)) == 30
    assert len(world.store.db.all("SELECT id FROM annotations WHERE origin = ?", [f"act:{id_}"])) == 30


def test_an_act_is_not_undone_after_its_labels_changed(world):
    acts = acts_of(world)
    id_ = done(acts, Asked("label", value="positive"))
    labels = [{"name": "good"}, {"name": "neutral"}, {"name": "negative"}]
    TaskSettings(world.store, world.project_id, SENTIMENT).save(
        {"labels": labels}, answers=Answers({"positive": "good"})
    )
    with pytest.raises(Conflict, match="The labels of this task were changed since"):
        acts.undo(id_, 1)


def test_an_act_whose_label_went_ends_with_what_is_done(world, monkeypatch):
    """The query names a label that was renamed half way: the act ends, and nobody tries it for ever."""
    monkeypatch.setattr(acting, "_SLICE", 3)
    id_ = acts_of(world).begin(Asked("reject", "suggested:negative"), None)
    assert acts_of(world).go_on(id_, seconds=0) == "doing"
    labels = [{"name": "positive"}, {"name": "neutral"}, {"name": "bad"}]
    TaskSettings(world.store, world.project_id, SENTIMENT).save(
        {"labels": labels}, answers=Answers({"negative": "bad"})
    )
    place = (world.project_id, "sentiment")
    version, settings = world.store.projects.task_settings(*place)
    task = SENTIMENT.overridden(version, settings, world.store.projects.label_moves(*place))
    assert acts_of(world, task=task).go_on(id_) == "done"
    assert world.store.acts.get(id_)["changed"] == 3


def test_an_act_of_a_task_that_is_gone_holds_nothing_up(instance, store, project, monkeypatch):
    """The worker goes on with everything else, and says once what is wrong."""
    found = store.projects.get(project)
    id_ = instance.acts(found, instance.task_of(found, "sentiment")).begin(Asked("reject"), None)
    store.write(lambda tx: tx.run("UPDATE acts SET task = 'gone'"))
    worker = Worker(instance)
    worker.run_until_idle()
    assert store.acts.get(id_)["state"] == "doing" and list(worker._logged) == [(project, f":act {id_}")]


def test_what_cannot_be_done_is_refused_before_anything_is_stored(world):
    acts = acts_of(world)
    for asked, error in (
        (Asked("forget"), InputError), (Asked("label"), InputError), (Asked("label", value="great"), LabelError),
        (Asked("reject", ids=()), InputError), (Asked("reject", "lable:x"), InputError),
    ):  # fmt: skip
        with pytest.raises(error):
            acts.begin(asked, None)
    with pytest.raises(NotFound):
        acts.undo(99, None)
    assert world.store.acts.of(world.project_id) == []


def test_bulk_decisions_count_in_no_agreement_and_are_not_undone_at_the_desk(world):
    """They were not looked at one by one: no number of agreement moves, and undo takes back what a person decided."""
    before = world.store.annotations.agreement(world.project_id, "sentiment", "1")
    acts = acts_of(world)
    id_ = acts.begin(Asked("approve"), world.kim)
    acts.go_on(id_)
    assert world.store.annotations.agreement(world.project_id, "sentiment", "1") == before
    assert world.decisions.undo(world.kim).record_id == world.records[0]


def test_a_sample_is_spread_over_what_was_changed_and_says_what_stands_now(world):
    acts = acts_of(world)
    id_ = done(acts, Asked("label", value="negative"))
    rows = acts.sample(id_, 6)
    assert len({row["record_id"] for row in rows}) == 6 and rows == acts.sample(id_, 6)
    world.approve(rows[2]["record_id"], "positive")
    assert [row["value_now"] for row in acts.sample(id_, 6)][2] == '"positive"'
    assert acts.sample(id_, 6)[2]["reviewer_now"] == "kim"


def test_texts_that_a_model_wrote_are_not_approved_unread(world):
    """They are left out of approvals and labels given at once, and found by what they are."""

    def write(tx):
        tx.run("INSERT INTO written (run_id, after_id, model_id, text, record_id) VALUES (1, 1, 'm', NULL, ?)",
               [world.records[13]])  # fmt: skip

    world.store.write(write)
    done(acts_of(world), Asked("approve"))
    id_ = done(acts_of(world), Asked("label", "is:written", "negative"))
    assert world.state(world.records[13]) == "pending"
    assert json.loads(world.store.acts.get(id_)["left_out"]) == {"written": 1}
