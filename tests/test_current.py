"""When a suggestion is current: whatever the order of the queue, blind or not, paid or free, for runs and refreshes."""

from __future__ import annotations

import random
import re

import pytest
from fake_openai import error, good
from helpers import Points, numbered
from test_desk import Seat, Shop, open_shop, shop  # noqa: F401
from test_runs import approve, lab, suggester  # noqa: F401

from labeler.ingest.clusters import sign_reviews
from labeler.labels import Answers
from labeler.prelabel import runs
from labeler.prelabel.current import CURRENT, OLDER, OTHER, kind_of, standing
from labeler.prelabel.refresh import at_opening, refresh_front
from labeler.store import NewRecord
from labeler.text import count_tokens
from labeler.worker import Worker

LABELS = ("positive", "neutral", "negative")


def topics(count: int, seed: int = 3) -> dict[str, str]:
    """Reviews of topics, each of which decides the label: what was approved of a topic tells the rest of it."""
    chance = random.Random(seed)
    label = {n: chance.choice(LABELS) for n in range(count)}
    words = {n: "".join(chance.choice("가나다라마바사아자차카타파하") for _ in range(6)) for n in range(count)}
    return {f"{words[n]} {words[n]} 이야기 {chance.randrange(10**6)}": label[n] for n in range(count) for _ in range(8)}


def label_all(shop: Shop, seat: Seat, gold: dict[str, str], count: int, order: str) -> list[tuple[str, float]]:  # noqa: F811
    """Decide ``count`` records by their gold labels; return how each suggestion stood at opening, and its agreement."""
    found = []
    for _ in range(count):
        opened = seat.next(order=order)
        record = shop.instance.store.records.get(opened["record_id"])
        suggestion = shop.instance.store.suggestions.get(opened["suggestion_id"] or 0)
        stood = "none" if suggestion is None else standing(suggester_of(shop, now=True), record, suggestion)
        seat.decide(opened, gold[record.text])
        row = shop.instance.store.annotations.current(record.id, "sentiment")
        found.append((stood, row["agreement"]))
        Worker(shop.instance).run_until_idle()
    return found


def test_free_suggestions_are_fresh_in_any_order_and_after_the_backend_changed(open_shop):  # noqa: F811
    """With the worker beside it, a record opened in random order has the suggestion of now, from the ensemble too."""
    gold = topics(20)
    fruit = open_shop(tuple(gold))
    seat = fruit.seat()
    label_all(fruit, seat, gold, 12, "random")
    free = suggester_of(fruit, backend="nearest")
    ids = list(runs.select(fruit.instance.store, fruit.project, "sentiment", None, True))
    runs.start(fruit.instance.store, fruit.project, "sentiment", ids, {"backend": "nearest"})
    Worker(fruit.instance).run_until_idle()
    late = label_all(fruit, seat, gold, 60, "random")
    assert free.backend.name == "nearest" and suggester_of(fruit).backend.name == "ensemble"
    assert {stood for stood, _ in late} == {CURRENT}
    assert sum(agreement for _, agreement in late[-40:]) >= 32


def suggester_of(shop: Shop, now: bool = False, **settings):  # noqa: F811
    project = shop.instance.store.projects.get(shop.project)
    task = shop.instance.project_task(project, "sentiment")
    return shop.instance.suggester_now(project, task) if now else shop.instance.suggester(project, task, settings)


def test_blind_records_are_compared_with_suggestions_as_fresh_as_assisted_ones(open_shop):  # noqa: F811
    """Without any run, a blind record has a suggestion of now behind it, hidden, and so has an assisted one."""
    gold = topics(12)
    fruit = open_shop(tuple(gold), blind_share=0.5)
    seat = fruit.seat()
    label_all(fruit, seat, gold, 3, "random")
    seen = {True: 0, False: 0}
    for _ in range(40):
        opened = seat.next(order="random")
        text = fruit.instance.store.records.get(opened["record_id"]).text
        assert opened["suggestion_id"] is not None
        made = fruit.instance.store.suggestions.get(opened["suggestion_id"])
        assert made.seq == fruit.instance.store.annotations.latest_seq(fruit.project, "sentiment")
        assert (opened["suggested"] is None) is opened["blind"]
        seen[opened["blind"]] += 1
        seat.decide(opened, gold[text])
    assert min(seen.values()) > 5
    page = seat.client.get(f"/projects/{fruit.project}").get_data(as_text=True)
    assert re.search(r"Agreement, blind <small>[^<]*ensemble", page, re.I)


def test_opening_again_and_again_makes_no_new_suggestion_after_a_label_was_retired(open_shop):  # noqa: F811
    """Examples of a retired label neither vote nor fill the places of others, and nothing is made anew by opening."""
    fruit = open_shop()
    seat = fruit.seat()
    ids = fruit.add(*(NewRecord(f"n{n}", f"사과가 아삭하고 달아요 {n}") for n in range(14)))
    for id_ in ids[:6]:
        seat.decide(seat.open(id_), "neutral")
    for id_ in ids[6:12]:
        seat.decide(seat.open(id_), "positive")
    labels = [{"name": name, "title": {"ko": name, "en": name}} for name in ("positive", "negative")]
    fruit.instance.change_task(fruit.project, "sentiment", {"labels": labels}, answers=Answers(retired=("neutral",)))
    again = [seat.open(ids[13])["suggestion_id"] for _ in range(4)]
    assert len(set(again)) == 1
    made = fruit.instance.store.suggestions.get(again[0])
    assert made.value == "positive" and len(made.evidence) == 6
    index = suggester_of(fruit).index
    assert index.counts() == {"positive": 6} and len(index) == 6


@pytest.mark.parametrize("name", ["ensemble", "probe"])
def test_a_refit_renews_what_has_the_same_neighbours(lab, name):  # noqa: F811
    """A backend that learned more answers anew, also where the neighbours that are shown are the same."""
    for n, id_ in enumerate(lab.ids[:10]):
        approve(lab, id_, "negative" if n % 2 else "positive")
    task = lab.instance.project_task(lab.project, "sentiment")
    lab.instance.ensemble(lab.project, task).fit()
    first = suggester(lab, backend=name)
    record = lab.store.records.get(lab.ids[11])
    stored = at_opening(first, first, [(record, None)])[0].suggestion
    assert standing(first, record, stored) == CURRENT
    assert at_opening(first, first, [(record, stored)])[0].suggestion.id == stored.id
    approve(lab, lab.ids[10], "neutral")
    lab.instance.ensemble(lab.project, task).fit()
    again = suggester(lab, backend=name)
    assert standing(again, record, stored) == OLDER
    renewed = at_opening(again, again, [(record, stored)])[0].suggestion
    assert renewed.id != stored.id and renewed.fit == lab.instance.ensemble(lab.project, task).learned


def test_a_suggestion_is_of_another_kind_after_any_setting_that_decides_answers(lab):  # noqa: F811
    """Model, way of prompting, generation, guidelines: what is changed there makes another answer."""
    approve(lab, lab.ids[0])
    lab.move(lab.start(lab.ids[1:2], k=2))
    (made,) = lab.suggestions(lab.ids[1])
    record = lab.store.records.get(lab.ids[1])
    own = {"backend": "openai", "k": 2}
    assert standing(suggester(lab, **own), record, made) == CURRENT
    for other in ({"k": 3}, {"model_id": "gpt-4.1"}, {"style": "zero-shot"}, {"temperature": 0.5}, {"mode": "cascade"}):
        assert standing(suggester(lab, **own | other), record, made) == OTHER, other
    lab.instance.change_task(lab.project["id"], "sentiment", {"guidelines": {"en": "Judge the price alone."}})
    assert standing(suggester(lab, **own), record, made) == OTHER


def test_approvals_make_a_paid_suggestion_older_only_where_its_examples_change(lab):  # noqa: F811
    """An approval elsewhere leaves a suggestion current; one that would stand in its prompt makes it older."""
    store, project = lab.store, lab.project["id"]
    news = [
        NewRecord(f"p{n}", f"({x} {y}) point {n}") for n, (x, y) in enumerate([(1, 0), (1, 0.1), (0, 1), (1, 0.01)])
    ]
    lab.instance.plugins.embedders["points"] = lambda settings: Points()
    lab.instance.change_project(project, {"embedder": "points"})
    lab.project = store.projects.get(project)
    ids = [one.id for one in store.write(lambda tx: store.records.add(tx, project, news, ["sentiment"]))]
    approve(lab, ids[1])
    own = {"backend": "openai", "k": 1, "retriever": "similar"}
    lab.move(lab.start([ids[0]], **own))
    (made,) = lab.suggestions(ids[0])
    approve(lab, ids[2])
    record = store.records.get(ids[0])
    assert standing(suggester(lab, **own), record, made) == CURRENT
    approve(lab, ids[3])
    assert standing(suggester(lab, **own), record, made) == OLDER


def counting(request, n):
    """Answer as a server does that counts the tokens of a prompt as they are guessed."""
    answer = good(request, n)
    answer.body["usage"]["prompt_tokens"] = sum(count_tokens(turn["content"]) for turn in request["messages"])
    return answer


def test_a_shortened_prompt_is_not_older_for_what_never_fitted(lab):  # noqa: F811
    """Evidence is compared after fitting: without any approval, refreshes find nothing to do."""
    for id_ in lab.ids[:6]:
        approve(lab, id_)
    lab.instance.folder.joinpath("prices.json").write_text(
        '{"gpt-4o-mini": {"input": 0.1, "output": 0.1, "context": 1130}}'
    )
    own = {"backend": "openai", "k": 6, "max_tokens": 100}
    lab.server.behave(counting)
    lab.move(lab.start(lab.ids[6:], **own))
    flags = [lab.suggestions(id_)[0].flags for id_ in lab.ids[6:]]
    assert all("fewer examples" in one for one in flags), flags
    assert [refresh_front(suggester(lab, **own), "oldest", 20) for _ in range(3)] == [0, 0, 0]
    # A process that knows of no bound sees the same.
    lab.instance.folder.joinpath("prices.json").unlink()
    assert refresh_front(suggester(lab, **own), "oldest", 20) == 0


def test_paid_suggestions_are_kept_and_marked_when_opened(shop):  # noqa: F811
    """A paid suggestion from before later decisions stays on the desk, says so, and nothing free replaces it."""
    ids = shop.add(*(NewRecord(f"n{n}", text) for n, text in enumerate(numbered(4))))
    seat = shop.seat()
    seat.decide(seat.open(ids[0]), "positive")
    seq = shop.instance.store.annotations.latest_seq(shop.project, "sentiment")
    paid = shop.suggest(ids[1], "negative", billed=True, seq=seq, kind="bought")
    before = seat.open(ids[1])
    assert before["suggestion_id"] == paid and "made before" not in before["html"]
    seat.decide(seat.open(ids[2]), "positive")
    opened = seat.open(ids[1])
    assert opened["suggestion_id"] == paid and "made before the last 1 decisions" in opened["html"]


def test_a_model_run_takes_what_has_only_a_free_suggestion_and_says_what_it_leaves_out(lab):  # noqa: F811
    """Records that somebody opened and skipped have a stand-in; a run of the model takes them all the same, once."""
    for id_ in lab.ids[:3]:
        approve(lab, id_)
    free = suggester(lab, backend="nearest")
    for id_ in lab.ids[3:8]:
        at_opening(None, free, [(lab.store.records.get(id_), None)])[0]
    own = suggester(lab, backend="openai", k=0)
    place = lab.store, lab.project["id"], "sentiment"
    chosen = list(runs.select(*place, None, False, kind_of(own)))
    assert chosen == lab.ids[3:] and runs.left_out(*place, kind_of(own)) == 0
    lab.move(lab.start(chosen[:4]))
    assert list(runs.select(*place, None, False, kind_of(own))) == lab.ids[7:]
    assert runs.left_out(*place, kind_of(own)) == 4
    # What people open meanwhile changes nothing of that.
    at_opening(own, free, [(lab.store.records.get(lab.ids[3]), None)])[0]
    assert list(runs.select(*place, None, False, kind_of(own))) == lab.ids[7:]


def test_a_free_run_takes_what_is_not_current(lab):  # noqa: F811
    """After another approval a free run makes all again; without one it has nothing to do."""
    approve(lab, lab.ids[0])
    place = lab.store, lab.project["id"], "sentiment"

    def pending():
        return list(runs.select(*place, None, False, kind_of(suggester(lab, backend="nearest"))))

    lab.move(lab.start(pending(), backend="nearest"))
    assert pending() == []
    approve(lab, lab.ids[1])
    assert pending() == lab.ids[2:]


def test_a_suggestion_for_an_earlier_text_is_not_pointed_at(lab):  # noqa: F811
    """An answer that comes after the text of a record has changed is kept, and the queue does not show it."""
    approve(lab, lab.ids[0])
    free = suggester(lab, backend="nearest")
    late = free.now([lab.store.records.get(lab.ids[1])], save=False)[0]
    old = lab.store.records.get(lab.ids[1])
    lab.store.write(
        lambda tx: tx.run(
            "UPDATE records SET text = 'quite another text', content_hash = 'another' WHERE id = ?", (old.id,)
        )
    )
    lab.store.write(lambda tx: free.save(tx, late))
    assert lab.store.work.get(old.id, "sentiment")["suggestion_id"] is None
    assert standing(free, lab.store.records.get(old.id), late) == OTHER


def test_agreement_counts_first_decisions_under_the_present_labels_by_model(shop):  # noqa: F811
    """A correction does not wipe out what was accepted first, and another version of the task starts anew."""
    store = shop.instance.store
    ids = shop.add(*(NewRecord(f"n{n}", text) for n, text in enumerate(numbered(6))))
    kim, lee = shop.seat(), shop.seat(who=1)
    for id_ in ids[:3]:
        shop.suggest(id_, "positive", billed=True)
        kim.decide(kim.open(id_), "positive")
    lee.decide(lee.open(ids[0]), "negative")
    shop.suggest(ids[3], "positive", billed=True)
    kim.decide(kim.open(ids[3]), "negative")
    kim.post("undo")
    (row,) = store.annotations.agreement(shop.project, "sentiment", "2")
    assert (row["backend"], row["model_id"], row["n"], row["agreement"]) == ("openai", "tiny-model", 3, 1.0)
    assert store.annotations.agreement(shop.project, "sentiment", "1") == []


def test_agreement_leaves_out_records_that_were_chosen_for_being_doubtful(shop):  # noqa: F811
    """What the order by score brings is harder than the rest; what comes by age, or was opened by number, counts."""
    store = shop.instance.store
    ids = shop.add(*(NewRecord(f"n{n}", text) for n, text in enumerate(numbered(4))))
    seat = shop.seat()
    for n, id_ in enumerate(ids):
        shop.suggest(id_, "positive", billed=True, score=0.1 * n)
    doubtful = seat.next(order="score", page="one")
    again = seat.post("open", record_id=doubtful["record_id"], page="one").json
    seat.decide(again, "negative")
    assert store.annotations.agreement(shop.project, "sentiment", "2") == []
    seat.decide(seat.open(ids[3]), "positive")
    (row,) = store.annotations.agreement(shop.project, "sentiment", "2")
    assert (row["n"], row["agreement"]) == (1, 1.0)


@pytest.mark.parametrize("reason", ["budget", "key"])
def test_refreshes_that_cannot_go_on_leave_one_run(lab, reason):  # noqa: F811
    """A project that is out of money, or whose key is refused, gets no new paused run with each approval."""
    approve(lab, lab.ids[0])
    lab.move(lab.start(lab.ids[1:], k=2))
    if reason == "budget":
        lab.instance.change_project(lab.project["id"], {"budget_project": 1e-9})
    else:
        lab.server.behave(lambda request, n: error(401, "Incorrect API key provided."))
    for id_ in lab.ids[1:6]:
        approve(lab, id_)
        refresh_front(suggester(lab, backend="openai", k=2), "oldest", 20)
        for run_id in lab.ledger.open_runs():
            Worker(lab.instance).move_run(run_id)
    found = [run for run in lab.ledger.runs(lab.project["id"]) if run["settings"].get("purpose") == "refresh"]
    assert len(found) == (0 if reason == "budget" else 1)


def test_a_paused_refresh_goes_on_with_the_next_approval_once_its_reason_is_gone(lab):  # noqa: F811
    """The key is accepted again: the run that was paused takes in what is stale now and finishes."""
    approve(lab, lab.ids[0])
    lab.move(lab.start(lab.ids[1:], k=2))
    lab.server.behave(lambda request, n: error(401, "Incorrect API key provided."))
    approve(lab, lab.ids[1])
    refresh_front(suggester(lab, backend="openai", k=2), "oldest", 20)
    (run_id,) = lab.ledger.open_runs()
    assert Worker(lab.instance).move_run(run_id) == "paused"
    lab.server.behave(good)
    approve(lab, lab.ids[2])
    assert refresh_front(suggester(lab, backend="openai", k=2), "oldest", 20) > 0
    assert lab.ledger.open_runs() == [run_id]
    assert Worker(lab.instance).move_run(run_id) == "finished"


def test_a_refresh_that_used_up_its_own_budget_takes_in_no_more_records(lab):  # noqa: F811
    """It stays paused as it is: what would only wait in it is not counted as queued."""
    approve(lab, lab.ids[0])
    lab.move(lab.start(lab.ids[1:], k=2))
    own = suggester(lab, backend="openai", k=2)
    approve(lab, lab.ids[1])
    assert refresh_front(own, "oldest", 20, budget=0.0) > 0
    (run_id,) = lab.ledger.open_runs()
    assert Worker(lab.instance).move_run(run_id) == "paused"
    total = lab.ledger.run(run_id)["total"]
    approve(lab, lab.ids[2])
    assert refresh_front(own, "oldest", 20, budget=0.0) == 0
    run = lab.ledger.run(run_id)
    assert (run["state"], run["total"], lab.ledger.open_runs()) == ("paused", total, [])


def test_a_paused_refresh_of_a_model_that_answers_no_more_is_left_alone(lab):  # noqa: F811
    """The task has another model since: the next refresh asks that one, and nothing is paid to the one before."""
    approve(lab, lab.ids[0])
    lab.move(lab.start(lab.ids[1:], k=2))
    lab.server.behave(lambda request, n: error(401, "Incorrect API key provided."))
    approve(lab, lab.ids[1])
    refresh_front(suggester(lab, backend="openai", k=2), "oldest", 20)
    (old,) = lab.ledger.open_runs()
    assert Worker(lab.instance).move_run(old) == "paused"
    lab.server.behave(good)
    approve(lab, lab.ids[2])
    assert refresh_front(suggester(lab, backend="openai", k=2, model_id="gpt-4o"), "oldest", 20) > 0
    (new,) = lab.ledger.open_runs()
    assert lab.ledger.run(new)["settings"]["model_id"] == "gpt-4o" and lab.ledger.run(old)["state"] == "paused"


def test_suggestions_of_before_count_for_the_model_that_made_them(lab):  # noqa: F811
    """A database of version 0.1.0 does not say the kinds: a run of another model leaves none of its records out."""
    lab.move(lab.start(lab.ids[:4], model_id="gpt-4o-mini"))
    lab.store.write(lambda tx: tx.run("UPDATE suggestions SET kind = NULL, fit = NULL, seq = NULL, text_hash = NULL"))
    record, (made,) = lab.store.records.get(lab.ids[0]), lab.suggestions(lab.ids[0])
    for model_id, stands, left in (("gpt-4o-mini", CURRENT, 4), ("gpt-4o", OTHER, 0)):
        asked = suggester(lab, backend="openai", k=0, model_id=model_id)
        assert (standing(asked, record, made) == OTHER) is (stands == OTHER)
        assert runs.left_out(lab.store, lab.project["id"], "sentiment", kind_of(asked)) == left


def test_tasks_that_ask_for_each_other_are_paid_once(lab):  # noqa: F811
    """A run of one of them leaves nothing to do for a run of the other."""
    place, store = lab.project["id"], lab.store
    lab.instance.change_project(place, {"tasks": ["sentiment", "emotion"]})
    lab.project = store.projects.get(place)
    for name, other in (("sentiment", "emotion"), ("emotion", "sentiment")):
        lab.instance.change_task(place, name, {"backend": "openai", "k": 0, "joint": [other]})
    runs.start(store, place, "sentiment", lab.ids, {"backend": "openai"})
    Worker(lab.instance).run_until_idle()
    emotion = lab.instance.suggester(lab.project, lab.instance.project_task(lab.project, "emotion"))
    assert list(runs.select(store, place, "emotion", None, False, kind_of(emotion))) == []


def test_a_run_asks_nothing_about_records_of_a_unit_that_its_task_labels_no_more(lab):  # noqa: F811
    """The task labels products since the run was started: no review of it is paid for."""
    run_id = lab.start()
    lab.instance.change_task(lab.project["id"], "sentiment", {"unit": "group"})
    assert Worker(lab.instance).move_run(run_id) == "finished"
    assert lab.asked == 0 and lab.ledger.run(run_id)["decided"] == len(lab.ids)


def test_a_decision_that_is_made_again_counts_by_the_order_that_brought_the_record(open_shop):  # noqa: F811
    """Undo opens the record once more; it was served for its score all the same, and tells nothing of the others."""
    fruit = open_shop(blind_share=0.0)
    seat = fruit.seat()
    (id_,) = fruit.add(NewRecord("doubtful", "사과가 아삭한지 모르겠어요"))
    fruit.suggest(id_, "positive", score=0.5)
    opened = seat.next(order="score", page="page-one")
    assert opened["record_id"] == id_
    seat.decide(opened, "positive")
    again = seat.post("undo", request_key="undo-it-once", page="page-one").json
    seat.decide(again, "positive")
    assert fruit.instance.store.annotations.agreement(fruit.project, "sentiment", again["task_version"]) == []


def test_an_example_that_turned_out_to_be_a_near_duplicate_is_shown_no_more(lab):  # noqa: F811
    """A review that comes later may unite two clusters: what stands in one of them is no example for the other."""
    between = "".join(chr(0xAC00 + 28 * n) for n in range(40))

    def add(text):
        new, place = NewRecord(text, text), lab.project["id"]
        added = lab.store.write(lambda tx: lab.store.records.add(tx, place, [new], ["sentiment"]))
        sign_reviews(lab.store, place)
        return added[0].id

    ids = [add(between + "여덟글자를더썼다"), add("네글자를" + between)]
    approve(lab, ids[0])
    free = suggester(lab, backend="nearest")
    made = at_opening(free, free, [(lab.store.records.get(ids[1]), None)])[0].suggestion
    assert [evidence.record_id for evidence in made.evidence] == [ids[0]]
    add(between)
    record = lab.store.records.get(ids[1])
    assert record.cluster == lab.store.records.get(ids[0]).cluster
    assert standing(free, record, made) == OLDER
    assert at_opening(free, free, [(record, made)])[0].suggestion is None
