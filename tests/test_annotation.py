"""The queue and the decisions of reviewers: who gets what, what is stored, who has to look again."""

from __future__ import annotations

import sqlite3
import threading
import time

import pytest
from helpers import REVIEWS, World, migrations_before, numbered

from labeler.annotation.decisions import Decision
from labeler.annotation.queue import is_blind
from labeler.errors import Conflict, InputError, LabelError, NotFound
from labeler.records import ParseFailure
from labeler.store import NewRecord, Store
from labeler.store import migrations as schema


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def lee(world):
    return world.people[1]


def others(world, text):
    """A second project with one record, on the same store."""
    project = world.store.write(lambda tx: world.store.projects.create(tx, "other", "ko", {}))
    (stored,) = world.store.write(
        lambda tx: world.store.records.add(tx, project, [NewRecord("k", text)], ["sentiment"])
    )
    return stored.id


# The order of the queue


def drain(queue, reviewer, limit=100):
    """Open records one after the other, keeping each on the desk."""
    have = []
    while len(have) < limit and (opened := queue.next(reviewer, have=have)):
        have.append(opened.record.id)
    return have


def test_oldest_comes_in_the_order_of_import(world):
    """The default order is the order in which records came in."""
    assert drain(world.queue(), world.kim) == world.records


def test_random_order_is_a_fixed_shuffle(world):
    """The order "random" is not the order of import, and is the same for everybody."""
    ids = drain(world.queue(order="random"), world.kim)
    assert ids != world.records
    assert sorted(ids) == world.records
    world.queue().leave(world.kim)
    assert drain(world.queue(order="random"), world.people[1]) == ids


def test_least_certain_comes_first_and_unscored_last(world):
    """The order "score" begins with the lowest score; what has none follows, oldest first."""
    for n, score in [(4, 0.9), (2, 0.1), (7, 0.5)]:
        world.suggest(world.records[n], score=score)
    expected = [world.records[n] for n in (2, 7, 4)]
    rest = [id_ for id_ in world.records if id_ not in expected]
    assert drain(world.queue(order="score"), world.kim) == expected + rest


def test_largest_disagreement_comes_first(world):
    """The order "disagreement" begins where backends differ most."""
    for n, much in [(4, 0.2), (2, 1.0), (7, 0.0)]:
        world.suggest(world.records[n], disagreement=much)
    assert drain(world.queue(order="disagreement"), world.kim, 3) == [world.records[n] for n in (2, 4, 7)]


def test_similar_follows_the_typed_text(world):
    """The order "similar" takes the nearest pending records in turn, and goes on with the oldest."""
    near = [world.records[n] for n in (9, 3, 5)]
    world.approve(near[1])
    queue = world.queue(nearest=lambda text: near)
    have = []
    for _ in range(3):
        have.append(queue.next(world.kim, "similar", have, "상자").record.id)
    assert have == [near[0], near[2], world.records[0]]


def test_an_order_says_where_it_has_nothing_to_go_by(world):
    """With what to do about it; once half of the pending records have it, nothing is said any more."""
    for order, what in (("score", "score"), ("disagreement", "second opinion")):
        assert f"No pending record has a {what} yet" in world.queue(order=order).lacks()
    assert "No text was typed" in world.queue().lacks("similar", " ")
    for n in range(6):
        more = {"score": 0.5, "disagreement": 1.0} if n else {}
        world.suggest(world.records[n], **more)
    assert "Fewer than half of the pending records have a score" in world.queue(order="score").lacks()
    assert "Fewer than half of the pending records have a second" in world.queue(order="disagreement").lacks()
    world.suggest(world.records[0], score=0.5, disagreement=0.0)
    for order in ("score", "disagreement", "oldest", "random"):
        assert world.queue().lacks(order) == ""
    assert world.queue().lacks("similar", "상자") == ""


@pytest.mark.parametrize(("order", "more"), [("score", {"disagreement": 1.0}), ("disagreement", {"score": 0.5})])
def test_an_order_says_what_suggestions_come_without(world, order, more):
    """Another run would change nothing then, so none is recommended."""
    for id_ in world.records:
        world.suggest(id_, **more)
    assert world.queue(order=order).lacks().startswith("The suggestions here have no")
    assert "run" not in world.queue(order=order).lacks()


def test_the_order_disagreement_says_that_none_differs(world):
    """Nothing is said of a queue that is done."""
    for id_ in world.records:
        world.suggest(id_, disagreement=0.0)
    assert world.queue().lacks("disagreement").startswith("No second opinion differs")
    for id_ in world.records:
        world.approve(id_)
    assert world.queue().lacks("disagreement") == world.queue().lacks("score") == ""


def test_skipped_record_does_not_come_back_at_once_in_any_order(world):
    """A skip counts in the order "similar" too."""
    near = [world.records[9], world.records[3]]
    queue = world.queue(nearest=lambda text: near)
    first = queue.next(world.kim, "similar", similar_to="상자").record.id
    queue.skip(world.kim, first)
    assert queue.next(world.kim, "similar", similar_to="상자").record.id == near[1]


def test_unknown_order_lists_those_there_are(world):
    """An order that does not exist is refused by name."""
    with pytest.raises(NotFound, match=r"newest.*oldest"):
        world.queue().next(world.kim, "newest")


# Claims


def test_two_reviewers_never_get_the_same_record(world, lee):
    """What one reviewer holds is not offered to another."""
    queue = world.queue()
    mine, theirs = drain(queue, world.kim, 4), drain(queue, lee, 4)
    assert not set(mine) & set(theirs)


def test_thirty_two_clients_get_every_record_exactly_once(tmp_path):
    """FAULTS 13: 32 reviewers claiming at once from 1,000 records share them out without a gap or a double."""
    names = [f"r{n}" for n in range(32)]
    world = World(tmp_path, numbered(1000), people=names)
    queue = world.queue()
    got: list[int] = []
    lock = threading.Lock()

    def work(reviewer):
        while (opened := queue.next(reviewer)) is not None:
            with lock:
                got.append(opened.record.id)
            world.reject(opened.record.id, reviewer)

    threads = [threading.Thread(target=work, args=(person,)) for person in world.people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == world.records
    world.store.close()


def test_reloaded_page_gets_its_record_again(world):
    """A record that the page holds and no longer has on the desk comes first."""
    first = world.queue().next(world.kim, page="this tab")
    again = world.queue().next(world.kim, page="this tab")
    assert again.record.id == first.record.id


def test_expired_claim_goes_to_the_next_reviewer(world, lee):
    """After its time a record is offered to others."""
    queue = world.queue(claim_minutes=0.01)
    first = queue.next(world.kim).record.id
    assert queue.next(lee).record.id != first
    queue.leave(lee)
    time.sleep(0.65)
    assert queue.next(lee).record.id == first


def test_claim_from_a_clock_that_ran_ahead_holds_nobody_up(world, lee):
    """FAULTS 11: a claim that reaches further than a lease can is not believed."""
    queue = world.queue()
    first = queue.next(world.kim).record.id
    world.store.write(lambda tx: tx.run("UPDATE claims SET until = until + 86400"))
    assert queue.next(lee).record.id == first


def test_touch_prolongs_a_claim_until_somebody_else_has_it(world, lee):
    """Working on a draft starts the claim anew; whoever lost it is told."""
    queue = world.queue(claim_minutes=0.01)
    opened = queue.next(world.kim)
    time.sleep(0.4)
    queue.touch(world.kim, opened.record.id, opened.token)
    time.sleep(0.4)
    assert queue.next(lee).record.id != opened.record.id
    time.sleep(0.5)
    queue.leave(lee)
    assert queue.next(lee).record.id == opened.record.id
    with pytest.raises(Conflict, match="no longer yours"):
        queue.touch(world.kim, opened.record.id, opened.token)


def test_foreign_claim_is_shown_and_not_taken(world, lee):
    """Opening by number what another holds says who holds it, and gives no token."""
    queue = world.queue()
    mine = queue.next(world.kim)
    theirs = queue.open(lee, mine.record.id)
    assert (theirs.held_by, theirs.token) == ("kim", "")
    queue.touch(world.kim, mine.record.id, mine.token)


def test_record_of_another_project_cannot_be_opened_or_held(world):
    """A number of another project is unknown here, and asking for it claims nothing there."""
    foreign = others(world, "남의 리뷰")
    with pytest.raises(NotFound):
        world.queue().open(world.kim, foreign)
    with pytest.raises(NotFound):
        world.queue().skip(world.kim, foreign)
    assert world.store.db.value("SELECT COUNT(*) FROM claims") == 0
    with pytest.raises(NotFound):
        world.decisions.decide(world.kim, Decision(foreign, "approve", "k" * 8, 0, "positive"))
    assert world.store.annotations.history(foreign, "sentiment") == []


def test_skipped_record_stays_pending_and_comes_back_last(world):
    """A skip lets all others go first, for this reviewer only."""
    queue = world.queue()
    first = queue.next(world.kim).record.id
    queue.skip(world.kim, first)
    assert world.state(first) == "pending"
    assert queue.next(world.people[1]).record.id == first
    queue.leave(world.people[1])
    seen = []
    while (id_ := queue.next(world.kim).record.id) != first:
        seen.append(id_)
        world.approve(id_)
    assert seen == world.records[1:]


def test_empty_queue_says_none(tmp_path):
    """Nothing left is None, also right after a skip of the last one was taken up."""
    world = World(tmp_path, REVIEWS[:1])
    queue = world.queue()
    world.approve(queue.next(world.kim).record.id)
    assert queue.next(world.kim) is None
    world.store.close()


def test_claims_end_with_the_decision_and_the_page(world, lee):
    """Deciding frees the record, leaving frees all of them."""
    queue = world.queue()
    ids = drain(queue, world.kim, 3)
    world.approve(ids[0])
    queue.leave(world.kim)
    assert world.store.db.value("SELECT COUNT(*) FROM claims") == 0
    assert drain(queue, lee, 2) == ids[1:]


# The blind share


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.5, 1.0])
def test_blind_share_is_near_its_number(share):
    """About as many records as asked for are shown without a suggestion."""
    blind = sum(is_blind(1, "sentiment", id_, share) for id_ in range(1, 20_001)) / 20_000
    assert blind == pytest.approx(share, abs=0.01)


def test_blind_records_stay_blind(world):
    """Whether a record is blind depends on nothing but itself, and a larger share only adds to it."""
    small = {id_ for id_ in range(5000) if is_blind(1, "t", id_, 0.05)}
    assert small == {id_ for id_ in range(5000) if is_blind(1, "t", id_, 0.05)}
    assert small < {id_ for id_ in range(5000) if is_blind(1, "t", id_, 0.1)}
    assert world.queue(blind_share=1.0).next(world.kim).blind
    assert not world.queue(blind_share=0.0).next(world.kim).blind


# Decisions


def test_approving_the_suggestion_is_accepted(world):
    """An approval that equals the suggestion says so, with agreement 1."""
    id_ = world.records[0]
    decided = world.approve(id_, "positive", suggestion_id=world.suggest(id_, "positive"), seconds=4.5)
    row = world.store.annotations.get(decided.annotation_id)
    assert (decided.how, decided.state, row["agreement"], row["seconds"], row["blind"]) == (
        "accepted", "approved", 1.0, 4.5, 0,
    )  # fmt: skip
    assert world.state(id_) == "approved"


def test_changing_the_suggestion_is_corrected(world):
    """An approval of another value than suggested is a correction."""
    id_ = world.records[0]
    decided = world.approve(id_, "negative", suggestion_id=world.suggest(id_, "positive"))
    assert (decided.how, world.value(id_)) == ("corrected", "negative")
    assert world.store.annotations.get(decided.annotation_id)["agreement"] == 0.0


@pytest.mark.parametrize("failure", [None, ParseFailure("empty", "The answer is empty", "")])
def test_deciding_without_a_readable_suggestion_is_from_scratch(world, failure):
    """Without a suggestion, or with one that could not be read, the label is the reviewer's own."""
    id_ = world.records[0]
    suggestion = world.suggest(id_, failure=failure) if failure else None
    assert world.approve(id_, "neutral", suggestion_id=suggestion).how == "scratch"


def test_blind_decision_is_from_scratch_and_still_compared(world):
    """What was decided without seeing the suggestion is compared with it all the same, apart from the others."""
    a, b = world.records[:2]
    world.approve(a, "positive", suggestion_id=world.suggest(a, "positive"), blind=True)
    world.approve(b, "positive", suggestion_id=world.suggest(b, "negative"))
    rows = world.store.annotations.agreement(world.project_id, "sentiment", "1")
    assert [(row["blind"], row["n"], row["agreement"]) for row in rows] == [(0, 1, 0.0), (1, 1, 1.0)]
    assert world.store.annotations.how_counts(world.project_id, "sentiment") == {"scratch": 1, "corrected": 1}


def test_suggestion_of_another_record_is_refused(world):
    """A decision names the suggestion it was made beside; one that never stood there is a mistake of the caller."""
    foreign = world.suggest(world.records[1])
    for suggestion in (foreign, 4711):
        with pytest.raises(InputError, match=str(suggestion)):
            world.approve(world.records[0], suggestion_id=suggestion)
    assert world.state(world.records[0]) == "pending"


def test_value_must_fit_the_schema(world):
    """A value that the label schema refuses is never stored, however near it is."""
    for value in ("Positive", "positiv", None, ["positive"], 1):
        with pytest.raises(LabelError):
            world.approve(world.records[0], value)
    assert world.store.annotations.history(world.records[0], "sentiment") == []


@pytest.mark.parametrize(
    "wrong", [{"action": "like"}, {"request_key": "short"}, {"request_key": "x" * 101}, {"record_id": 4711}]
)
def test_decision_that_makes_no_sense_is_refused(world, wrong):
    """An unknown action, a bad request key or an unknown record stores nothing."""
    fields = {"record_id": world.records[0], "action": "approve", "request_key": "k" * 10, "version": 0}
    with pytest.raises((InputError, NotFound)):
        world.decisions.decide(world.kim, Decision(**fields | wrong, value="positive"))
    assert world.store.work.counts(world.project_id, "sentiment")["pending"] == len(REVIEWS)


def test_rejected_record_has_no_label(world):
    """A rejection is final and carries no value."""
    world.reject(world.records[0])
    assert world.state(world.records[0]) == "rejected"
    assert world.approved() == {}


def test_second_decision_on_an_old_view_is_a_conflict(world, lee):
    """FAULTS 14: whoever decides on what another has decided meanwhile learns what stands now; nothing is changed."""
    id_ = world.records[0]
    seen = world.version(id_)
    world.approve(id_, "positive", version=seen)
    with pytest.raises(Conflict) as conflict:
        world.approve(id_, "negative", who=lee, version=seen)
    assert conflict.value.current["value"] == "positive"
    assert conflict.value.current["reviewer"] == "kim"
    assert conflict.value.current["state"] == "approved"
    assert conflict.value.current["version"] == world.version(id_)
    assert world.value(id_) == "positive"


def test_overwriting_knowingly_keeps_both_in_the_history(world, lee):
    """FAULTS 14: with force, or with the new version, the second decision stands and the first stays on record."""
    id_ = world.records[0]
    world.approve(id_, "positive", version=0)
    world.approve(id_, "negative", who=lee, version=0, force=True)
    assert world.value(id_) == "negative"
    history = world.store.annotations.history(id_, "sentiment")
    assert [(row["reviewer"], row["superseded_by"] is None) for row in history] == [("lee", True), ("kim", False)]
    assert history[0]["supersedes"] == history[1]["id"]


def test_whoever_lost_the_record_is_fenced_off(world, lee):
    """FAULTS 15: after a claim ran out and another opened the record, the late decision is a conflict."""
    queue = world.queue(claim_minutes=0.01)
    mine = queue.next(world.kim)
    time.sleep(0.65)
    theirs = world.queue().next(lee)
    assert theirs.record.id == mine.record.id
    with pytest.raises(Conflict, match="lee has opened it") as conflict:
        world.approve(mine.record.id, version=mine.version)
    assert conflict.value.current["held_by"] == "lee"
    world.approve(mine.record.id, "negative", who=lee, version=theirs.version)
    assert world.value(mine.record.id) == "negative"


def test_late_decision_counts_while_nobody_else_has_the_record(world):
    """A claim that ran out costs nothing as long as the record is where it was."""
    mine = world.queue(claim_minutes=0.01).next(world.kim)
    time.sleep(0.65)
    assert world.approve(mine.record.id, version=mine.version).state == "approved"


def test_same_request_twice_is_one_annotation(world):
    """FAULTS 16: a double click or a retry gets the first answer again, and stores nothing."""
    id_ = world.records[0]
    first = world.approve(id_, "positive", request_key="same-key-1", version=0)
    again = world.approve(id_, "positive", request_key="same-key-1", version=0)
    assert again.repeated and not first.repeated
    assert (again.annotation_id, again.version, again.value) == (first.annotation_id, first.version, first.value)
    assert len(world.store.annotations.history(id_, "sentiment")) == 1


def test_same_request_from_many_threads_is_one_annotation(world):
    """FAULTS 16: sent eight times at once, a decision is stored once and everybody gets its number."""
    id_ = world.records[0]
    got = []
    threads = [
        threading.Thread(
            target=lambda: got.append(world.approve(id_, request_key="same-key-2", version=0).annotation_id)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8 and len(set(got)) == 1
    assert len(world.store.annotations.history(id_, "sentiment")) == 1


def test_request_key_belongs_to_one_decision(world, lee):
    """A key used for another record or by another person is refused, not answered with a foreign decision."""
    world.approve(world.records[0], request_key="same-key-3")
    with pytest.raises(InputError, match="request_key"):
        world.approve(world.records[1], request_key="same-key-3")
    with pytest.raises(InputError, match="request_key"):
        world.approve(world.records[0], who=lee, request_key="same-key-3")


# Undo


def test_undo_of_a_first_decision_makes_the_record_pending(world):
    """What nobody had decided before is open again; the history still tells it all."""
    id_ = world.records[0]
    world.approve(id_)
    undone = world.decisions.undo(world.kim)
    assert (undone.record_id, undone.state, world.state(id_)) == (id_, "pending", "pending")
    assert world.store.annotations.current(id_, "sentiment") is None
    assert [row["state"] for row in world.store.annotations.history(id_, "sentiment")] == ["withdrawn", "approved"]
    assert [row["kind"] for row in world.store.events.of_record(id_)] == ["approved", "undone"]


def test_undo_brings_back_what_stood_before(world, lee):
    """Another reviewer's label that was overwritten stands again, under that reviewer's name."""
    id_ = world.records[0]
    world.approve(id_, "positive")
    world.reject(id_, who=lee)
    world.decisions.undo(lee)
    row = world.store.annotations.current(id_, "sentiment")
    assert (row["state"], world.value(id_), row["reviewer"], row["origin"]) == ("approved", "positive", "kim", "undo")
    assert world.state(id_) == "approved"


def test_undo_twice_takes_back_two_decisions(world):
    """The second undo goes on where the first ended; it never brings back what was just undone."""
    id_ = world.records[0]
    for value in ("positive", "negative", "neutral"):
        world.approve(id_, value)
    assert world.decisions.undo(world.kim).value == "negative"
    assert world.decisions.undo(world.kim).value == "positive"
    assert world.decisions.undo(world.kim).state == "pending"
    with pytest.raises(NotFound, match="no decision of yours"):
        world.decisions.undo(world.kim)


def test_undo_of_a_restored_label_does_not_bring_back_the_other_reviewers(world, lee):
    """After lee took a correction back, kim's undo takes back kim's own label and not again lee's."""
    id_ = world.records[0]
    world.approve(id_, "positive")
    world.approve(id_, "negative", who=lee)
    world.decisions.undo(lee)
    assert world.decisions.undo(world.kim).state == "pending"


def test_undo_goes_record_by_record_backwards(world):
    """Each undo takes back the latest decision still in force, and leaves other people's alone."""
    a, b, c = world.records[:3]
    world.approve(a)
    world.approve(b, who=world.people[1])
    world.approve(c)
    assert [world.decisions.undo(world.kim).record_id for _ in range(2)] == [c, a]
    assert world.state(b) == "approved"


def test_version_grows_with_every_change(world, lee):
    """Decision and undo each make older views stale."""
    id_ = world.records[0]
    versions = [world.version(id_)]
    world.approve(id_)
    versions.append(world.version(id_))
    world.decisions.undo(world.kim)
    versions.append(world.version(id_))
    assert versions == sorted(set(versions))
    with pytest.raises(Conflict):
        world.approve(id_, who=lee, version=versions[1])


def test_history_is_append_only(world, lee):
    """No decision, correction, rejection or undo changes the content of an earlier row."""
    id_ = world.records[0]
    known: dict[int, tuple] = {}
    steps = [
        lambda: world.approve(id_, "positive"),
        lambda: world.approve(id_, "negative", who=lee),
        lambda: world.decisions.undo(lee),
        lambda: world.reject(id_),
        lambda: world.decisions.undo(world.kim),
        lambda: world.approve(id_, "neutral"),
    ]
    for step in steps:
        step()
        rows = world.store.annotations.history(id_, "sentiment")
        columns = rows[0].keys()
        now = {row["id"]: tuple(row[name] for name in columns if name != "superseded_by") for row in rows}
        assert all(now[number] == row for number, row in known.items())
        assert len(now) == len(known) + 1
        known = now
    in_force = [row for row in rows if row["superseded_by"] is None and row["state"] != "withdrawn"]
    assert len(in_force) == 1


def test_imported_label_never_overwrites_a_decision(world):
    """A label that comes with the data is approved where nothing was decided, and nowhere else."""
    a, b = world.records[:2]
    world.approve(a, "negative")

    def work(tx):
        return [
            world.decisions.import_label(tx, world.store.records.get(id_), "positive", "file.csv", None)
            for id_ in (a, b)
        ]

    first, second = world.store.write(work)
    assert first is None and second is not None
    assert (world.value(a), world.value(b)) == ("negative", "positive")
    with pytest.raises(NotFound):
        world.decisions.undo(world.people[1])


def test_strip_shows_the_last_decisions_in_force(world):
    """The strip lists a reviewer's own decisions, newest first, without what was undone."""
    for id_ in world.records[:3]:
        world.approve(id_)
    world.decisions.undo(world.kim)
    assert [item["record_id"] for item in world.decisions.strip(world.kim)] == world.records[1::-1]


def test_decision_is_durable_when_it_returns(world):
    """A second process that opens the file sees the decision at once."""
    world.approve(world.records[0])
    with Store(world.store.path) as other:
        assert other.annotations.current(world.records[0], "sentiment")["state"] == "approved"


# What suggestions may not change


def test_touched_draft_keeps_its_suggestion(world):
    """A new suggestion is stored, but not put under the hands of somebody who works on the draft."""
    id_ = world.records[0]
    old = world.suggest(id_, "positive")
    opened = world.queue().next(world.kim)
    world.queue().touch(world.kim, id_, opened.token)
    world.suggest(id_, "negative")
    assert world.store.work.get(id_, "sentiment")["suggestion_id"] == old
    world.queue().leave(world.kim)
    new = world.suggest(id_, "negative")
    assert world.store.work.get(id_, "sentiment")["suggestion_id"] == new


def test_decided_record_keeps_its_suggestion(world):
    """A suggestion that comes after the decision changes nothing about it."""
    id_ = world.records[0]
    world.approve(id_, "positive")
    world.suggest(id_, "negative", score=0.1)
    row = world.store.work.get(id_, "sentiment")
    assert (row["state"], row["suggestion_id"], row["score"]) == ("approved", None, None)
    assert world.value(id_) == "positive"


# Undo goes by when a decision was made


def test_undo_takes_back_the_decision_that_was_made_last(world, lee):
    """What another's undo brings back stands where and when it was made: kim's last decision is still the second."""
    first, second = world.records[:2]
    world.approve(first, "positive")
    made_at = world.store.annotations.current(first, "sentiment")["created_at"]
    world.approve(second, "neutral")
    world.approve(first, "negative", who=lee)
    world.decisions.undo(lee)
    assert [item["record_id"] for item in world.decisions.strip(world.kim)] == [second, first]
    assert world.store.annotations.current(first, "sentiment")["created_at"] == made_at
    assert world.decisions.undo(world.kim).record_id == second
    assert world.decisions.undo(world.kim).record_id == first


def test_undo_after_a_correction_of_ones_own_takes_back_each_decision_once(world):
    """X, Y, X corrected: the correction goes first, then Y, then X."""
    first, second = world.records[:2]
    world.approve(first, "positive")
    world.approve(second, "neutral")
    world.approve(first, "negative")
    undone = [world.decisions.undo(world.kim) for _ in range(3)]
    assert [one.record_id for one in undone] == [first, second, first]
    assert [world.state(id_) for id_ in (first, second)] == ["pending", "pending"]


def test_undo_leaves_what_somebody_else_has_overwritten(world, lee):
    """A decision that was superseded is not kim's to take back any more; undo goes on to the one before it."""
    first, second = world.records[:2]
    world.approve(first)
    world.approve(second)
    world.approve(second, "negative", who=lee)
    assert world.decisions.undo(world.kim).record_id == first
    assert world.value(second) == "negative"
    with pytest.raises(NotFound):
        world.decisions.undo(world.kim)


def test_undo_under_somebody_who_has_the_record_open_makes_them_look_again(world, lee):
    """The holder keeps the record, and a decision on what was undone meanwhile is a conflict."""
    id_ = world.records[0]
    world.approve(id_)
    seen = world.queue().open(lee, id_)
    assert world.decisions.undo(world.kim, page="kim's").state == "pending"
    assert world.queue().open(world.kim, id_).held_by == "lee"
    with pytest.raises(Conflict):
        world.approve(id_, "negative", who=lee, version=seen.version)


def test_undone_record_goes_to_nobody_else(world, lee):
    """The page that takes a decision back holds its record in the same moment, though it is the oldest of all."""
    world.approve(world.records[0])
    world.decisions.undo(world.kim, page="kim's")
    assert world.queue().next(lee).record.id == world.records[1]
    assert world.queue().next(world.kim, page="kim's").record.id == world.records[0]


def test_undo_that_is_sent_twice_takes_back_one_decision(world, lee):
    """An answer got lost: the second one is the first, and a key of somebody else's undo is refused."""
    for id_ in world.records[:2]:
        world.approve(id_)
    first = world.decisions.undo(world.kim, "undo-key-1")
    again = world.decisions.undo(world.kim, "undo-key-1")
    assert again.repeated and (again.annotation_id, again.record_id) == (first.annotation_id, first.record_id)
    assert world.state(world.records[0]) == "approved"
    with pytest.raises(InputError, match="request_key"):
        world.decisions.undo(lee, "undo-key-1")
    with pytest.raises(InputError, match="request_key"):
        world.approve(world.records[1], request_key="undo-key-1")


def test_strip_and_undo_do_not_walk_through_imported_labels(world, monkeypatch):
    """A reviewer's last decisions are read from an index of their own, in order: nobody else's are looked at."""
    asked = []
    monkeypatch.setattr(world.store.db, "all", lambda sql, params: asked.append((sql, params)) or [])
    world.decisions.strip(world.kim)
    monkeypatch.undo()
    plans = [
        " ".join(row["detail"] for row in world.store.db.all(f"EXPLAIN QUERY PLAN {sql}", params))
        for sql, params in asked
    ]
    assert [index for index in ("annotations_standing", "ballots_reviewer") if index in " ".join(plans)] == [
        "annotations_standing", "ballots_reviewer"
    ]  # fmt: skip
    assert "TEMP B-TREE" not in " ".join(plans)


# Claims of pages


def test_a_claim_is_written_anew_once_half_of_it_is_over(world):
    """Each decision renews the record that lies ready: a young claim stays as it is, an old one begins again."""
    queue, store = world.queue(), world.store
    opened = queue.next(world.kim, page="kims-page")
    until = "SELECT until FROM claims WHERE record_id = ?"
    begun = store.db.value(until, [opened.record.id])
    young = queue.renew(world.kim, opened.record.id, "kims-page")
    assert store.db.value(until, [opened.record.id]) == begun and young.lease <= queue.lease
    store.write(lambda tx: tx.run("UPDATE claims SET until = until - ?", [0.6 * queue.lease]))
    old = queue.renew(world.kim, opened.record.id, "kims-page")
    assert store.db.value(until, [opened.record.id]) >= begun and old.lease == queue.lease
    assert queue.renew(world.kim, opened.record.id, "another-page") is None


def test_two_pages_of_one_person_get_different_records(world):
    """Each page has its own records, and a decision on one page is no conflict on the other."""
    queue = world.queue()
    one, two = (queue.next(world.kim, page=page) for page in ("one", "two"))
    assert one.record.id != two.record.id
    assert queue.next(world.kim, page="two").record.id == two.record.id
    for opened in (one, two):
        assert world.approve(opened.record.id, version=opened.version).state == "approved"


def test_closing_a_page_puts_back_its_own_records_only(world, lee):
    """What the other page of the same person holds stays there."""
    queue = world.queue()
    one, two = (queue.next(world.kim, page=page) for page in ("one", "two"))
    queue.leave(world.kim, {one.record.id: "one", two.record.id: "one"})
    assert [queue.next(lee, page="lee's", have=have).record.id for have in ([], [one.record.id])] == [
        one.record.id, world.records[2],
    ]  # fmt: skip


def test_a_shorter_lease_frees_nothing_that_is_held(world, lee):
    """A claim lasts as long as it was given for, whatever the settings say since; touched, it lasts so long again."""
    mine = world.queue(claim_minutes=60).next(world.kim, page="kim's")
    shorter = world.queue(claim_minutes=1)
    assert shorter.next(lee, page="lee's").record.id != mine.record.id
    assert shorter.touch(world.kim, mine.record.id, "kim's", mine.version) == 3600
    assert shorter.open(lee, mine.record.id).held_by == "kim"


def test_touch_takes_up_a_claim_that_was_taken_and_given_back(world, lee):
    """kim still works on the record, and lee has closed the page: nobody need hear of it."""
    queue = world.queue()
    mine = queue.next(world.kim, page="kim's")
    world.store.write(lambda tx: tx.run("UPDATE claims SET until = 0"))
    theirs = queue.next(lee, page="lee's")
    assert theirs.record.id == mine.record.id
    with pytest.raises(Conflict, match="lee has opened it"):
        queue.touch(world.kim, mine.record.id, "kim's", mine.version)
    queue.leave(lee, {theirs.record.id: "lee's"})
    queue.touch(world.kim, mine.record.id, "kim's", mine.version)
    assert queue.open(lee, mine.record.id).held_by == "kim"


def test_touch_does_not_take_up_a_record_that_was_decided(world, lee):
    """A draft on a record that lee has decided meanwhile: kim is told at the first change, not at the end."""
    queue = world.queue()
    mine = queue.next(world.kim, page="kim's")
    world.approve(mine.record.id, who=lee, force=True)
    with pytest.raises(Conflict, match="decided after you opened it"):
        queue.touch(world.kim, mine.record.id, "kim's", mine.version)


def test_renewing_claims_nothing_that_was_decided_or_skipped_meanwhile(world):
    """A record that lies ready is asked for once more; the decision on it came first, and left it free."""
    queue = world.queue()
    one, two = (queue.next(world.kim, page="one", have=have) for have in ([], world.records[:1]))
    assert queue.renew(world.kim, two.record.id, "one").record.id == two.record.id
    world.approve(one.record.id)
    queue.skip(world.kim, two.record.id)
    assert [queue.renew(world.kim, opened.record.id, "one") for opened in (one, two)] == [None, None]
    assert world.store.db.value("SELECT COUNT(*) FROM claims") == 0


def test_skipped_records_wait_until_the_last_ones_on_the_desk_are_decided(world):
    """Three lie undecided on the desk and nothing else is left: what was skipped comes after them, not before."""
    queue = world.queue()
    skipped = queue.next(world.kim, page="one").record.id
    queue.skip(world.kim, skipped)
    for id_ in world.records[4:]:
        world.approve(id_)
    have = [queue.next(world.kim, page="one", have=world.records[1:n]).record.id for n in (1, 2, 3)]
    assert queue.next(world.kim, page="one", have=have) is None
    for id_ in have:
        world.approve(id_)
    assert queue.next(world.kim, page="one").record.id == skipped


def test_scores_of_different_backends_are_never_compared(world):
    """The order "score" begins with the backend that answers now, then takes one of the others after the other."""
    for n, backend, score in [(4, "probe", 0.75), (2, "openai", 0.999), (7, "nearest", 1.0), (5, "openai", 0.2)]:
        world.suggest(world.records[n], backend=backend, score=score)
    queue = world.queue(order="score", scored_by=lambda: "openai")
    assert drain(queue, world.kim, 5) == [world.records[n] for n in (5, 2, 7, 4, 0)]


# What the doctor looks at


def test_the_queue_is_made_again_from_the_annotations(world, lee):
    """States, pointers and claims that nothing bears out are named and mended; versions grow with it."""
    a, b, c, d = world.records[:4]
    for id_ in (a, b, c):
        world.approve(id_)
    world.queue().open(lee, d)
    version = world.version(a)
    assert world.store.work.faults() == []

    def damage(tx):
        tx.run("UPDATE work SET state = 'pending' WHERE record_id = :r", {"r": a})
        tx.run("DELETE FROM work WHERE record_id = :r", {"r": b})
        tx.run("UPDATE work SET annotation_id = 4711 WHERE record_id = :r", {"r": c})
        tx.run("UPDATE reviewers SET disabled = 1 WHERE id = :who", {"who": lee})

    world.store.write(damage)
    assert len(world.store.work.faults()) == 4
    world.store.write(world.store.work.repair)
    assert world.store.work.faults() == []
    assert [world.state(id_) for id_ in (a, b, c, d)] == ["approved"] * 3 + ["pending"]
    assert world.version(a) > version


# Databases from before


def test_what_was_undone_and_held_before_the_upgrade_counts_as_it_should(tmp_path, monkeypatch):
    """Restored rows get the number and time of their decision, also through two undos; claims and scores stay true."""
    known = schema.migrations
    monkeypatch.setattr(schema, "migrations", migrations_before(known, "m006_queue"))
    store = Store(tmp_path / "labeler.db", synchronous="OFF")
    # As the program of then wrote it.
    sql = "INSERT INTO projects (name, language, settings, created_at) VALUES ('reviews', 'ko', '{}', 0)"
    store.write(lambda tx: tx.run(sql))
    kim, lee = (
        store.write(lambda tx, name=name: store.people.create(tx, name, None, "reviewer")) for name in ("kim", "lee")
    )
    rows = [
        # id, record, reviewer, state, supersedes, superseded_by, origin: kim and lee correct each other, and undo.
        (1, 1, kim, "approved", None, 3, None),
        (2, 2, kim, "approved", None, None, None),
        (3, 1, lee, "approved", 1, 4, None),
        (4, 1, kim, "approved", 3, 5, "undo"),
        (5, 1, lee, "rejected", 4, 6, None),
        (6, 1, kim, "approved", 5, None, "undo"),
        (7, 3, lee, "approved", None, 8, None),
        (8, 3, lee, "withdrawn", 7, None, "undo"),
    ]
    store.close()
    connection = sqlite3.connect(tmp_path / "labeler.db")
    connection.executemany(
        """INSERT INTO records (id, project_id, key, text, language, metadata, content_hash, kind, cluster, created_at)
           VALUES (?, 1, ?, ?, 'ko', '{}', '', 'review', ?, 0)""",
        [(n, f"r{n}", REVIEWS[n - 1], n) for n in (1, 2, 3)],
    )
    connection.executemany(
        "INSERT INTO work (record_id, task, project_id, shuffle) VALUES (?, 'sentiment', 1, 0)", [(1,), (2,), (3,)]
    )
    connection.executemany(
        """INSERT INTO annotations (id, record_id, reviewer_id, state, origin, project_id, task, task_version, value,
           how, created_at) VALUES (?, ?, ?, ?, ?, 1, 'sentiment', '1', '"positive"', 'scratch', 0)""",
        [(*row[:4], row[6]) for row in rows],
    )
    connection.executemany(
        "UPDATE annotations SET supersedes = ?, superseded_by = ?, created_at = 1000 + id WHERE id = ?",
        [(row[4], row[5], row[0]) for row in rows],
    )
    connection.execute("UPDATE projects SET settings = '{\"claim_minutes\": 60}'")
    connection.execute("INSERT INTO claims VALUES (3, 'sentiment', 1, 1, 'token', ?, 0)", [time.time() + 3500])
    connection.execute(
        """INSERT INTO suggestions (id, project_id, record_id, task, task_version, backend, flags, evidence, created_at)
           VALUES (1, 1, 3, 'sentiment', '1', 'probe', '[]', '[]', 0)"""
    )
    connection.execute("UPDATE work SET suggestion_id = 1, score = 0.5 WHERE record_id = 3")
    connection.commit()
    connection.close()
    monkeypatch.setattr(schema, "migrations", known)
    with Store(tmp_path / "labeler.db") as store:
        found = {row["id"]: row for row in store.db.all("SELECT * FROM annotations")}
        assert {id_: row["original_id"] for id_, row in found.items() if row["original_id"]} == {4: 1, 6: 1}
        assert found[6]["created_at"] == 1001
        strip = store.annotations.last_of(1, "sentiment", kim)
        assert [row["record_id"] for row in strip] == [2, 1]
        assert store.work.holder(None, 3, "sentiment")["lease"] == 3600
        assert store.work.get(3, "sentiment")["scored_by"] == "probe"
