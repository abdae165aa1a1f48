"""Several people decide on a record: each alone, until most of them agree or an adjudicator settles it."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from helpers import World, keys

from labeler import accounts
from labeler.annotation.acts import Acts, Asked
from labeler.annotation.ballots import Ballots, Overlap, outcome
from labeler.annotation.decisions import Decision, Decisions
from labeler.annotation.query import parse
from labeler.annotation.table import RecordTable
from labeler.errors import Conflict, Forbidden, InputError, NotFound
from labeler.export import Filters, built_in, export_task
from labeler.store.audit import audit
from labeler.store.table import Table

PEOPLE = ("kim", "lee", "park", "choi")


class Team(World):
    """A world in which ``people`` decide on each record of the ``part``; choi adjudicates."""

    def __init__(self, folder, people=2, part=1.0, **more):
        super().__init__(folder, people=PEOPLE, **more)
        self.kim, self.lee, self.park, self.choi = self.people
        self.share(people, part)

    def share(self, people, part=1.0):
        overlap = Overlap(people, part)
        place = (self.store, self.project_id, self.task)
        self.decisions = Decisions(*place, overlap=overlap)
        self.adjudicators = Decisions(*place, overlap=overlap, adjudicates=True)
        self.ballots = Ballots(*place, overlap)

    def adjudicate(self, record_id, value="positive", action="approve", **more):
        more = {"request_key": next(keys), "version": self.version(record_id)} | more
        return self.adjudicators.decide(self.choi, Decision(record_id, action, value=value, **more))

    def faults(self):
        return [*self.store.work.faults(), *self.store.counts.faults(), *audit(self.store)]


@pytest.fixture
def team(tmp_path):
    return Team(tmp_path)


def said(rows):
    return [(row["reviewer"], json.loads(row["value"] or "null")) for row in rows]


def test_a_record_waits_until_as_many_people_as_needed_have_decided(team):
    """The first one's word is no decision yet: nothing is approved."""
    record = team.records[0]
    first = team.approve(record, "positive", team.kim)
    assert (first.state, first.came_to, team.state(record), team.value(record)) == (
        "approved", "pending", "pending", None
    )  # fmt: skip
    second = team.approve(record, "positive", team.lee)
    assert (second.came_to, team.state(record), team.value(record)) == ("approved", "approved", "positive")
    assert list(team.approved()) == [record]


def test_what_two_of_three_say_is_the_decision(tmp_path):
    team = Team(tmp_path, people=3)
    record = team.records[0]
    for who, value in ((team.kim, "positive"), (team.lee, "negative"), (team.park, "negative")):
        team.approve(record, value, who)
    assert (team.state(record), team.value(record)) == ("approved", "negative")


def test_a_decision_that_ballots_came_to_is_nobodys_and_says_whose_ballots_they_are(team):
    record = team.records[0]
    for who in (team.kim, team.lee):
        team.approve(record, "positive", who)
    row = team.store.annotations.current(record, "sentiment")
    assert row["reviewer"] is None
    assert said(team.store.ballots.settled_by(row["id"])) == [("kim", "positive"), ("lee", "positive")]


def test_whoever_decided_together_is_named_together(team):
    """In the table of records, as evidence, and in the history of the record."""
    record = team.records[0]
    for who in (team.kim, team.lee):
        team.approve(record, "positive", who)
    number = team.store.annotations.current(record, "sentiment")["id"]
    (row,) = Table(team.store.db, team.project_id, "sentiment").rows([record])
    (past,) = team.store.annotations.history(record, "sentiment")
    assert {row["reviewer"], past["reviewer"], team.store.annotations.examples([number])[number]["reviewer"]} == {
        "kim, lee"
    }


def test_people_who_disagree_leave_the_record_to_an_adjudicator(team):
    """It is not in the queue of others, and nobody but an adjudicator decides on it."""
    record = team.records[0]
    team.approve(record, "positive", team.kim)
    team.approve(record, "negative", team.lee)
    assert (team.state(record), team.value(record)) == ("disputed", None)
    assert team.queue().next(team.park).record.id != record
    with pytest.raises(Forbidden, match="an adjudicator decides"):
        team.approve(record, "positive", team.park)
    assert team.adjudicate(record, "negative").state == "approved"
    assert team.value(record) == "negative"
    assert team.faults() == []


def test_the_queue_of_adjudicators_has_what_is_disputed_alone(team):
    record = team.records[3]
    team.approve(record, "positive", team.kim)
    team.reject(record, team.lee)
    queue = team.queue()
    opened = queue.next(team.choi, "disputed")
    assert (opened.record.id, opened.disputed) == (record, True)
    assert queue.next(team.choi, "disputed", [record]) is None
    queue.skip(team.choi, record)
    assert queue.next(team.choi, "disputed").record.id == record


def test_nobody_gets_a_record_that_they_have_decided_on(team):
    """In no order, and not by the name of a page that still held it."""
    for order in ("oldest", "random"):
        first = team.queue(order=order).next(team.kim, page="kim's")
        team.approve(first.record.id, "positive", team.kim)
        later = {one.record.id for one in team.queue(order=order).next_few(5, team.kim, page="kim's")}
        assert first.record.id not in later
        team.queue().leave(team.kim)
    near = team.queue(nearest=lambda text: team.records)
    assert near.next(team.kim, "similar", similar_to="상자").record.id not in (team.records[0], first.record.id)
    assert team.queue().next(team.lee).record.id == team.records[0]


def test_a_record_on_somebodys_desk_is_no_others(team):
    """One after another they decide on it, so that nobody overwrites anybody."""
    mine = team.queue().next(team.kim)
    assert team.queue().next(team.lee).record.id != mine.record.id


def test_whoever_opens_what_they_decided_sees_their_own_word_and_may_change_it(team):
    """A changed word counts once; until the record is settled nobody sees another's."""
    record = team.records[0]
    team.approve(record, "positive", team.kim)
    opened = team.queue().open(team.kim, record)
    assert (opened.state, json.loads(opened.annotation["value"])) == ("approved", "positive")
    assert team.queue().look(team.lee, record).annotation is None
    team.approve(record, "negative", team.kim)
    assert (team.state(record), said(team.store.ballots.open_of(record, "sentiment"))) == (
        "pending", [("kim", "negative")]
    )  # fmt: skip


def test_a_conflict_does_not_tell_what_another_said(team):
    """It comes where people disagree meanwhile; what they said is an adjudicator's to see."""
    record = team.records[0]
    before = team.version(record)
    team.approve(record, "positive", team.kim)
    team.approve(record, "negative", team.lee)
    with pytest.raises(Conflict) as raised:
        team.approve(record, "negative", team.park, version=before)
    assert "value" not in raised.value.current and "reviewer" not in raised.value.current


def test_an_answer_of_somebody_else_leaves_what_others_have_begun(team):
    """A page that was opened before it decides all the same, and a draft stays; one's own ends with the answer."""
    record, queue = team.records[0], team.queue()
    before = team.version(record)
    for who in (team.kim, team.lee):
        queue.touch(who, record, f"page of {who}", before, {"value": "neutral"})
        queue.leave(who)
    team.approve(record, "positive", team.kim, version=before)
    drafts = team.store.drafts
    assert [len(drafts.of(who, "sentiment", [record])) for who in (team.kim, team.lee)] == [0, 1]
    assert team.approve(record, "positive", team.lee, version=before).came_to == "approved"
    assert drafts.of(team.lee, "sentiment", [record]) == {}


def test_a_decision_sent_twice_is_one_ballot(team):
    record = team.records[0]
    key = next(keys)
    for repeated in (False, True):
        decided = team.approve(record, "positive", team.kim, request_key=key, version=0)
        assert (decided.repeated, decided.state, decided.came_to) == (repeated, "approved", "pending")
    with pytest.raises(InputError, match="another decision"):
        team.approve(team.records[1], "positive", team.kim, request_key=key)


def test_an_undo_takes_back_a_ballot(team):
    """Sent twice it takes back one; the record comes again to whoever took it back."""
    record = team.records[0]
    team.approve(record, "positive", team.kim)
    key = next(keys)
    for _ in range(2):
        taken = team.decisions.undo(team.kim, key)
        assert (taken.record_id, taken.state, json.loads(taken.took_back["value"])) == (record, "pending", "positive")
    assert team.store.ballots.open_of(record, "sentiment") == []
    assert team.queue().next(team.kim).record.id == record


def test_whoever_settled_a_record_may_take_that_back_and_the_others_wait_again(team):
    record = team.records[0]
    team.approve(record, "positive", team.kim)
    team.approve(record, "positive", team.lee)
    team.decisions.undo(team.lee)
    assert (team.state(record), team.value(record)) == ("pending", None)
    assert said(team.store.ballots.open_of(record, "sentiment")) == [("kim", "positive")]
    team.approve(record, "negative", team.lee)
    assert team.state(record) == "disputed"
    assert team.faults() == []


def test_what_was_settled_since_is_left_to_those_who_settled_it(team):
    record = team.records[0]
    team.approve(record, "positive", team.kim)
    team.approve(record, "positive", team.lee)
    with pytest.raises(NotFound):
        team.decisions.undo(team.kim)


def test_an_adjudicator_who_takes_back_leaves_the_record_disputed(team):
    record = team.records[0]
    team.approve(record, "positive", team.kim)
    team.approve(record, "negative", team.lee)
    team.adjudicate(record)
    assert team.adjudicators.undo(team.choi).state == "disputed"
    assert team.state(record) == "disputed"
    assert len(team.store.ballots.open_of(record, "sentiment")) == 2
    assert team.faults() == []


def test_what_several_people_agreed_on_is_changed_by_an_adjudicator_alone(team):
    record = team.records[0]
    for who in (team.kim, team.lee):
        team.approve(record, "positive", who)
    with pytest.raises(Forbidden, match="only an adjudicator"):
        team.approve(record, "negative", team.kim)
    team.adjudicate(record, "negative")
    assert team.value(record) == "negative"
    with pytest.raises(NotFound):
        team.decisions.undo(team.lee)
    team.adjudicators.undo(team.choi)
    assert team.value(record) == "positive"


def test_only_the_shared_part_needs_several_people(tmp_path):
    """The same records each time, about as many as asked for; a larger part keeps them."""
    few, more = Overlap(2, 0.3), Overlap(2, 0.6)
    shared = [id_ for id_ in range(1000) if few.needed(1, "sentiment", id_) == 2]
    assert 250 < len(shared) < 350
    assert all(more.needed(1, "sentiment", id_) == 2 for id_ in shared)
    team = Team(tmp_path, part=0.3)
    for record in team.records:
        team.approve(record, "positive", team.kim)
        alone = Overlap(2, 0.3).needed(team.project_id, "sentiment", record) == 1
        assert team.state(record) == ("approved" if alone else "pending")


def test_with_fewer_people_needed_what_waits_is_settled(team):
    record, other = team.records[:2]
    team.approve(record, "positive", team.kim)
    team.approve(other, "positive", team.kim)
    team.approve(other, "negative", team.lee)
    team.share(1)
    team.ballots.tidy()
    assert (team.state(record), team.value(record)) == ("approved", "positive")
    assert team.state(other) == "disputed"


def test_with_more_people_needed_what_is_disputed_goes_on(team):
    """What was settled stays settled."""
    record, done = team.records[:2]
    for who, value in ((team.kim, "positive"), (team.lee, "negative")):
        team.approve(record, value, who)
        team.approve(done, "positive", who)
    team.share(3)
    team.ballots.tidy()
    assert (team.state(record), team.state(done)) == ("pending", "approved")
    team.approve(record, "negative", team.park)
    assert team.value(record) == "negative"


def test_ballots_whose_label_went_count_no_more(team):
    """Their people are asked again."""
    record = team.records[0]
    team.approve(record, "positive", team.kim)
    row = team.store.ballots.open_of(record, "sentiment")[0]
    team.store.write(lambda tx: tx.run("UPDATE ballots SET value = '\"gone\"' WHERE id = :i", {"i": row["id"]}))
    team.ballots.tidy()
    assert team.store.ballots.open_of(record, "sentiment") == []
    assert team.queue().next(team.kim).record.id == record


def test_a_rejection_is_a_word_like_any_other(tmp_path):
    team = Team(tmp_path, people=3)
    record = team.records[0]
    team.reject(record, team.kim)
    team.approve(record, "positive", team.lee)
    team.reject(record, team.park)
    assert team.state(record) == "rejected"


def test_a_suggestion_that_several_people_took_was_accepted(team):
    """So agreement with suggestions is counted once for the record, as for one person."""
    record = team.records[0]
    suggestion = team.suggest(record, "positive", score=0.9)
    for who in (team.kim, team.lee):
        team.approve(record, "positive", who, suggestion_id=suggestion)
    row = team.store.annotations.current(record, "sentiment")
    assert (row["how"], row["agreement"], row["suggestion_id"]) == ("accepted", 1.0, suggestion)
    assert team.store.annotations.agreement(team.project_id, "sentiment", "1")[0]["n"] == 1


def test_acts_on_many_records_leave_to_people_what_several_decide_on(team):
    """What is settled already is a decision like any other."""
    waits, done, record = team.records[:3]
    team.approve(waits, "positive", team.kim)
    for who in (team.kim, team.lee):
        team.approve(done, "positive", who)
        team.approve(record, ("positive", "negative")[who == team.lee], who)
    acts = Acts(team.store, team.project_id, team.task, 0.0, Overlap(2))
    seen = acts.preview(Asked("label", value="neutral"))
    assert (seen.changing, seen.left_out) == (1, Counter(shared=len(team.records) - 1))
    acts.go_on(acts.begin(Asked("label", value="neutral"), team.choi))
    assert (team.state(waits), team.value(done), team.state(record)) == ("pending", "neutral", "disputed")
    acts.go_on(acts.begin(Asked("reopen"), team.choi))
    assert (team.state(done), team.state(record)) == ("pending", "disputed")
    assert team.faults() == []


def test_an_undone_act_leaves_what_people_said_since(team):
    """Records that it had put back to pending, and on which somebody has voted, go on as they are."""
    voted, untouched = team.records[:2]
    for record in (voted, untouched):
        for who in (team.kim, team.lee):
            team.approve(record, "positive", who)
    acts = Acts(team.store, team.project_id, team.task, 0.0, Overlap(2))
    id_ = acts.begin(Asked("reopen", ids=(voted, untouched)), team.choi)
    acts.go_on(id_)
    team.approve(voted, "negative", team.park)
    acts.undo(id_, team.choi)
    assert acts.go_on(id_) == "undone"
    assert (team.state(voted), team.state(untouched), team.value(untouched)) == ("pending", "approved", "positive")
    assert said(team.store.ballots.open_of(voted, "sentiment")) == [("park", "negative")]
    assert team.faults() == []


def test_an_undone_act_brings_back_whose_decision_it_was_and_why(team):
    """Nobody's where several people agreed, and with the reason of whoever settled a dispute."""
    agreed, settled = team.records[:2]
    for who, value in ((team.kim, "positive"), (team.lee, "negative")):
        team.approve(agreed, "positive", who)
        team.approve(settled, value, who)
    team.adjudicate(settled, "negative", reason="늦은 배송")
    acts = Acts(team.store, team.project_id, team.task, 0.0, Overlap(2))
    id_ = acts.begin(Asked("reject", ids=(agreed, settled)), team.park)
    acts.go_on(id_)
    acts.undo(id_, team.park)
    acts.go_on(id_)
    rows = [team.store.annotations.current(record, "sentiment") for record in (agreed, settled)]
    assert [(row["state"], row["reviewer"], row["reason"]) for row in rows] == [
        ("approved", None, None), ("approved", "choi", "늦은 배송")
    ]  # fmt: skip
    assert [one.reviewer for one in team.ballots.of(rows[0])] == ["kim", "lee"]


def test_labels_that_come_back_leave_what_people_said_since(team):
    """An undone change of labels brings back the approvals of records on which nobody has voted."""
    project = team.store.projects.get(team.project_id)
    voted, untouched = team.records[:2]
    for record in (voted, untouched):
        for who in (team.kim, team.lee):
            team.approve(record, "negative", who)
    ids = [team.store.annotations.current(one, "sentiment")["id"] for one in (voted, untouched)]
    place, store = (project["id"], "sentiment"), team.store
    store.write(lambda tx: store.annotations.withdraw(tx, *place, ids, "1", "labels 1", team.choi))
    team.approve(voted, "positive", team.park)
    back = store.annotations.put_back(*place, ["labels 1"])
    assert {row["key"]: row["state"] for row in back} == {"r0": "disputed", "r1": "pending"}
    store.write(lambda tx: store.annotations.bring_back(tx, *place, [row["id"] for row in back], "labels 2"))
    assert (team.state(voted), team.state(untouched)) == ("pending", "approved")
    assert team.faults() == []


def test_a_query_finds_what_a_person_decided_with_others(team):
    """It stands to everybody's name who voted, once it is settled."""
    record, waits = team.records[:2]
    for who in (team.kim, team.lee):
        team.approve(record, "positive", who)
    team.approve(waits, "positive", team.kim)
    for name, found in (("kim", [record]), ("lee", [record]), ("park", [])):
        table = RecordTable(team.store, team.project_id, team.task, parse(f"by:{name}"), [team.task.name])
        assert [row["id"] for row in table.page(10).rows] == found


def test_removing_a_record_removes_what_people_said_of_it(team):
    record = team.records[0]
    team.approve(record, "positive", team.kim)
    team.store.write(lambda tx: team.store.removal.remove(tx, team.project_id, [record]))
    assert team.store.db.value("SELECT COUNT(*) FROM ballots") == 0


def test_a_removal_says_how_many_answers_go_with_it(team):
    """Those that wait for others are decisions of people too, however they are counted."""
    record = team.records[0]
    for who in (team.kim, team.lee):
        team.approve(record, "positive", who)
    team.approve(team.records[1], "positive", team.kim)
    removal = team.store.removal
    assert removal.going(team.project_id, team.records).decisions == 2
    assert removal.going_counted(team.project_id).decisions == 2


def test_the_doctor_finds_a_record_that_nobody_disputes(team):
    record = team.records[0]
    team.store.write(lambda tx: team.store.work.decided(tx, record, "sentiment", "disputed", None))
    assert "the queue says disputed, but it is pending" in team.store.work.faults()[0]
    team.store.write(team.store.work.repair)
    assert team.faults() == []


@pytest.mark.parametrize("seed", range(6))
def test_whatever_people_do_the_queue_says_what_their_words_come_to(tmp_path, seed):
    """Of votes, changes of mind, undos, adjudications and settings in any order."""
    chance, team = random.Random(seed), Team(tmp_path, people=2)
    people = 2
    for _ in range(120):
        who, record = chance.choice(team.people[:3]), chance.choice(team.records[:6])
        value = chance.choice(("positive", "negative"))
        act = chance.random()
        try:
            if act < 0.6:
                team.approve(record, value, who)
            elif act < 0.75:
                team.decisions.undo(who)
            elif act < 0.85:
                team.adjudicate(record, value)
            elif act < 0.9:
                team.adjudicators.undo(team.choi)
            elif act < 0.95:
                team.reject(record, who)
            else:
                people = chance.choice((1, 2, 3))
                team.share(people)
                team.ballots.tidy()
        except (Forbidden, NotFound):
            pass
        assert team.faults() == []
        for id_ in team.records[:6]:
            rows = team.store.ballots.open_of(id_, "sentiment")
            state = team.state(id_)
            if state == "pending":
                assert len(rows) < people
            elif state == "disputed":
                assert len(rows) >= people
                assert outcome(team.task, rows).state == "disputed"
            else:
                assert rows == []


# Tags: to send, to give, to know


def tag(team, name, records, kind="tag"):
    acts = Acts(team.store, team.project_id, team.task, 0.0)
    id_ = acts.begin(Asked(kind, value=name, ids=tuple(records)), team.choi)
    acts.go_on(id_)
    return acts, id_


def test_an_act_tags_records_and_is_undone_as_a_whole(team):
    """Those that had the tag before keep it; nothing is decided."""
    store = team.store
    tag(team, "urgent", team.records[:2])
    acts, id_ = tag(team, "urgent", team.records[:5])
    row = store.acts.get(id_)
    assert (row["changed"], json.loads(row["left_out"])) == (3, {"same": 2})
    assert store.tags.having("urgent", team.records) == set(team.records[:5])
    assert store.tags.names(team.project_id) == ["urgent"]
    acts.undo(id_, team.choi)
    acts.go_on(id_)
    assert store.tags.having("urgent", team.records) == set(team.records[:2])
    acts, id_ = tag(team, "urgent", team.records[:1], "untag")
    assert store.tags.having("urgent", team.records) == {team.records[1]}
    acts.undo(id_, team.choi)
    acts.go_on(id_)
    assert store.tags.having("urgent", team.records) == set(team.records[:2])
    assert {team.state(id_) for id_ in team.records} == {"pending"}


def test_a_query_finds_tagged_records(team):
    tag(team, "다시 보기", team.records[1:3])
    for query, found in (('tag:"다시 보기"', [2, 1]), ('태그:"다시 보기" state:pending', [2, 1]), ("tag:gold", [])):
        table = RecordTable(team.store, team.project_id, team.task, parse(query), [team.task.name])
        assert [row["id"] for row in table.page(10).rows] == [team.records[n] for n in found]


@pytest.mark.parametrize("name", ["", " a", "a\nb", 'a"b', "x" * 41, "@nobody"])
def test_a_tag_that_nobody_could_read_or_have_is_refused(team, name):
    with pytest.raises(InputError):
        tag(team, name, team.records[:1])


def test_a_desk_with_a_tag_brings_the_records_that_have_it(team):
    tag(team, "urgent", [team.records[4], team.records[2]])
    queue, came = team.queue(), []
    while (opened := next(iter(queue.next_few(1, team.kim, have=came, tag="urgent")), None)) is not None:
        came.append(opened.record.id)
    assert came == [team.records[2], team.records[4]]
    queue.leave(team.kim)
    near = team.queue(nearest=lambda text: team.records)
    assert [one.record.id for one in near.next_few(5, team.kim, "similar", similar_to="상자", tag="urgent")] == came


def test_the_tags_of_a_project_are_named_in_their_order(team):
    for name in ("나중", "gold", "가을"):
        tag(team, name, team.records[:2])
    assert team.store.tags.names(team.project_id) == ["gold", "가을", "나중"]
    assert team.store.tags.names(team.project_id + 1) == []


def test_what_is_given_to_a_person_comes_to_them_first_and_to_nobody_else(team):
    """In every order; who has nothing of their own goes on with what is given to nobody."""
    given = team.records[3:5]
    for person in ("kim", "lee"):
        accounts.set_member(team.store, team.project_id, team.people[PEOPLE.index(person)], "reviewer", None)
    tag(team, "@kim", given)
    near = team.queue(nearest=lambda text: given)
    assert near.next(team.lee, "similar", similar_to="상자").record.id == team.records[0]
    near.leave(team.lee)
    for order in ("oldest", "random"):
        queue = team.queue(order=order)
        assert {one.record.id for one in queue.next_few(2, team.kim)} == set(given)
        queue.leave(team.kim)
        assert not {one.record.id for one in queue.next_few(len(team.records), team.lee)} & set(given)
        queue.leave(team.lee)


def known(tmp_path):
    """A team of single decisions in which every record that comes is a known one, as long as there are any."""
    team = Team(tmp_path, people=1)
    for record in team.records[:2]:
        team.approve(record, "positive", team.choi)
    tag(team, "gold", team.records[:2])
    return team, team.queue(gold_share=0.5)


def test_known_records_come_as_if_nobody_had_decided_on_them(tmp_path, monkeypatch):
    """What a person says of one changes nothing, and is kept to compare with what is known."""
    monkeypatch.setattr("labeler.annotation.queue.random.random", lambda: 0.0)
    team, queue = known(tmp_path)
    opened = queue.next(team.kim, page="kim's")
    record = opened.record.id
    assert record in team.records[:2]
    assert (opened.state, opened.annotation) == ("pending", None)
    for seen in (queue.renew(team.kim, record, "kim's"), queue.look(team.kim, record)):
        assert (seen.state, seen.annotation) == ("pending", None)
    assert queue.look(team.lee, record).state == "approved"
    decided = team.approve(record, "negative", team.kim)
    assert (decided.state, team.value(record)) == ("approved", "positive")
    assert team.faults() == []
    other = queue.next(team.kim, have=[record])
    assert other.record.id in set(team.records[:2]) - {record}
    team.approve(other.record.id, "positive", team.kim)
    # There is no third one.
    assert queue.next(team.kim).record.id == team.records[2]
    rows = [(row["reviewer_id"], json.loads(row["value"])) for row in team.store.ballots.newest(1, "sentiment", 10)]
    assert rows == [(team.kim, "positive"), (team.kim, "negative")]


def test_what_was_said_of_a_known_record_is_taken_back_like_any_other(tmp_path, monkeypatch):
    """It comes again as it came, and whoever opens the record by its number sees its decision."""
    monkeypatch.setattr("labeler.annotation.queue.random.random", lambda: 0.0)
    team, queue = known(tmp_path)
    record = queue.next(team.kim, page="kim's").record.id
    team.approve(record, "negative", team.kim)
    taken = team.decisions.undo(team.kim, page="kim's")
    assert (taken.record_id, taken.state) == (record, "pending")
    opened = queue.open(team.kim, record, "kim's")
    assert (opened.state, opened.annotation) == ("pending", None)
    team.approve(record, "positive", team.kim)
    assert team.store.ballots.settled_by(team.store.annotations.current(record, "sentiment")["id"]) == []
    assert queue.open(team.lee, record).state == "approved"


def test_nobody_is_tested_on_what_they_decided_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr("labeler.annotation.queue.random.random", lambda: 0.0)
    team, queue = known(tmp_path)
    assert queue.next(team.choi).record.id == team.records[2]


def test_an_export_says_who_decided_together_and_how_far_they_agreed(tmp_path):
    """A record of one person says it by that person alone; the least agreement keeps others out."""
    team = Team(tmp_path, people=3)
    answers = (["positive"] * 3, ["negative", "negative", "positive"], ["positive", "negative", "neutral"])
    for record, values in zip(team.records, answers, strict=False):
        for who, value in zip(team.people, values, strict=False):
            team.approve(record, value, who)
    team.adjudicate(team.records[2], "neutral")
    team.share(1)
    team.approve(team.records[3], "positive", team.kim)

    def exported(**filters):
        project, folder = team.store.projects.get(team.project_id), tmp_path / f"export{len(filters)}{next(keys)}"
        export_task(team.store, project, team.task, "openai", folder, formats=built_in(), filters=Filters(**filters))
        rows = map(json.loads, (folder / "records.jsonl").read_text(encoding="utf-8").splitlines())
        return {row["id"]: (row["provenance"]["reviewers"], row["provenance"].get("people_agreement")) for row in rows}

    assert exported() == {
        "r0": (["kim", "lee", "park"], 1.0),
        "r1": (["kim", "lee", "park"], pytest.approx(2 / 3)),
        "r2": (["kim", "lee", "park", "choi"], pytest.approx(1 / 3)),
        "r3": (["kim"], None),
    }
    assert set(exported(min_people_agreement=0.6)) == {"r0", "r1"}
    assert set(exported(reviewers=("lee",))) == {"r0", "r1", "r2"}
