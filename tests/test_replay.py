"""Replay: approvals are suggested again as it stood before them, and every number is one of rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fake_openai import Answer, FakeOpenAI, completion
from helpers import open_instance

from labeler import removal
from labeler.annotation.decisions import Decision
from labeler.errors import Conflict, InputError
from labeler.evaluation import replay
from labeler.evaluation.measures import Answers, weights
from labeler.evaluation.past import Past
from labeler.evaluation.results import Results
from labeler.labels import Choice, Choices, Label
from labeler.sentence import recalled
from labeler.store import NewRecord
from labeler.worker import Worker

GOOD = ("아주 달고 맛있어요", "포장이 꼼꼼해요", "배송이 빨라요", "아이가 좋아해요", "또 살게요", "신선하고 좋아요")
BAD = (
    "너무 시고 맛없어요",
    "포장이 엉망이에요",
    "배송이 늦었어요",
    "아이가 싫어해요",
    "다시는 안 사요",
    "상해서 버렸어요",
)


class Lab:
    """An instance with records that were approved one after the other, and a server that answers."""

    def __init__(self, folder: Any) -> None:
        self.server = FakeOpenAI()
        self.server.__enter__()
        self.instance = open_instance(folder, self.server.base_url, [])
        self.store = self.instance.store
        self.project = self.store.projects.all()[0]
        self.id = int(self.project["id"])
        self.kim = self.store.write(lambda tx: self.store.people.create(tx, "kim", None, "reviewer"))

    def close(self) -> None:
        self.instance.close()
        self.server.__exit__()

    @property
    def task(self) -> Any:
        return self.instance.project_task(self.project, "sentiment")

    def add(self, *texts: str) -> list[int]:
        first = self.store.work.newest_record()
        news = [NewRecord(f"r{first + n}", text) for n, text in enumerate(texts)]
        stored = self.store.write(lambda tx: self.store.records.add(tx, self.id, news, ["sentiment"]))
        Worker(self.instance).run_until_idle()
        return [one.id for one in stored]

    def approve(self, record_id: int, value: str) -> None:
        decisions = self.instance.decisions(self.project, self.task)
        self.store.write(lambda tx: decisions.import_labels(tx, [(record_id, value)], "test", None))

    def stream(self, count: int = 24) -> list[int]:
        """Approve records of two kinds in turn, one after the other."""
        pairs = [
            (f"{(GOOD, BAD)[n % 2][n // 2 % 6]} {n}번 상품", ("positive", "negative")[n % 2]) for n in range(count)
        ]
        ids = self.add(*(text for text, _ in pairs))
        for id_, (_, value) in zip(ids, pairs, strict=True):
            self.approve(id_, value)
        return ids

    def start(self, sample: int | None = None, budget: float | None = None, **grid: Any) -> int:
        arms = replay.arms_of(self.instance, self.project, self.task, grid)
        return replay.start(self.instance, self.project, self.task, arms, sample, budget, self.kim)

    def replayed(self, sample: int | None = None, **grid: Any) -> int:
        id_ = self.start(sample, **grid)
        Worker(self.instance).run_until_idle()
        return id_


@pytest.fixture
def lab(tmp_path: Any) -> Iterator[Lab]:
    made = Lab(tmp_path / "instance")
    yield made
    made.close()


# What it must not see


def test_a_record_is_suggested_from_the_approvals_before_it_alone(lab: Lab) -> None:
    """Its vote is that of an index which never held more than what was approved by then."""
    ids = lab.stream(12)
    id_ = lab.replayed(backend=["nearest"])
    known = {row["record_id"]: row["known"] for row in lab.store.replays.items(id_)}
    assert [known[record_id] for record_id in ids] == list(range(12))
    said = lab.store.replays.said(id_, len(lab.store.replays.arms(id_)) - 1)
    assert said[ids[0]].failure == "no_examples"
    # With one example there is one vote, whatever the text.
    assert said[ids[1]].value == "positive"


def test_a_later_approval_does_not_help(lab: Lab) -> None:
    """The very text, approved afterwards under another number, changes nothing that is said of the first."""
    ids = lab.stream(12)
    before = lab.store.replays.said(lab.replayed(backend=["nearest"]), 1)
    for text in ("또 살게요 4번 상품이라 좋아요", "배송이 늦었어요 5번 상품이라서"):
        lab.approve(lab.add(text)[0], "positive")
    after = lab.store.replays.said(lab.replayed(backend=["nearest"]), 1)
    assert {id_: after[id_] for id_ in ids} == before


def test_a_near_duplicate_that_was_approved_before_takes_a_record_out(lab: Lab) -> None:
    """An ensemble that had learned of its copy would know the answer."""
    lab.stream(12)
    text = "사과가 정말 달고 아삭해서 온 가족이 맛있게 먹었어요 다음에도 꼭 다시 살게요"
    first, second, third = lab.add(text, text + "!", text + " 추천")
    lab.approve(second, "positive")
    lab.approve(first, "positive")
    lab.approve(third, "positive")
    assert len({lab.store.records.get(id_).cluster for id_ in (first, second, third)}) == 1
    chosen = [record_id for record_id, _, _ in replay.chosen(lab.instance, lab.project, lab.task, None)]
    assert second in chosen and first not in chosen and third not in chosen


def test_a_correction_is_measured_by_its_newest_value_as_it_stood_before_the_first(lab: Lab) -> None:
    """Somebody who corrects a label later must not have the record learn from its own first approval."""
    ids = lab.stream(12)
    decisions = lab.instance.decisions(lab.project, lab.task)
    row = lab.store.work.get(ids[3], "sentiment")
    decisions.decide(lab.kim, Decision(ids[3], "approve", "request-0001", row["version"], "neutral"))
    (item,) = [one for one in replay.chosen(lab.instance, lab.project, lab.task, None) if one[0] == ids[3]]
    history = lab.store.annotations.history(ids[3], "sentiment")
    assert item == (ids[3], history[0]["id"], history[-1]["id"] - 1)
    rows = lab.store.replays.items(lab.replayed(backend=["nearest"]))
    assert next(row["value"] for row in rows if row["record_id"] == ids[3]) == '"neutral"'


def test_the_fit_of_today_answers_nothing_in_a_replay(lab: Lab) -> None:
    """An ensemble that was fitted on all approvals has seen the answers: there, each is fitted on what was before."""
    ids = lab.stream(24)
    ensemble = lab.instance.ensemble(lab.project, lab.task)
    assert ensemble.fit() and ensemble.fitted.examples == 24
    with Past(lab.instance) as past:
        past.go_to(lab.store.annotations.history(ids[12], "sentiment")[0]["id"] - 1)
        then = past.ensemble(lab.project, lab.task)
        assert then.fitted is None
        past.learn(lab.project, lab.task)
        assert then.fitted is not None and then.fitted.examples == 12
    # What is fitted there is no fit of the project.
    assert lab.instance.ensemble(lab.project, lab.task).fitted.examples == 24


def test_prompts_show_what_was_approved_before_and_nothing_else(lab: Lab) -> None:
    """Of a model every prompt is made as it was then, although it is asked today."""
    ids = lab.stream(12)
    texts = {id_: lab.store.records.get(id_).text for id_ in ids}
    lab.instance.change_task(lab.id, "sentiment", {"retriever": "similar", "k": 4})
    lab.replayed(backend=["openai"])
    asked = Counter[int]()
    for request in lab.server.requests:
        turns = [turn["content"] for turn in request.json["messages"] if turn["role"] == "user"]
        (own,) = [id_ for id_, text in texts.items() if text in turns[-1]]
        shown = [id_ for id_, text in texts.items() if any(text in turn for turn in turns[:-1])]
        assert all(ids.index(id_) < ids.index(own) for id_ in shown)
        assert len(shown) == min(4, ids.index(own))
        asked[own] += 1
    assert asked.keys() == set(ids)


# What it leaves alone


def test_no_queue_desk_or_statistic_sees_a_replay(lab: Lab) -> None:
    """Its answers are no suggestions: nothing is shown, counted, or learned from."""
    lab.stream(12)
    before = [dict(row) for row in lab.store.db.all("SELECT * FROM work ORDER BY record_id")]
    lab.replayed(backend=["openai", "nearest"])
    assert [dict(row) for row in lab.store.db.all("SELECT * FROM work ORDER BY record_id")] == before
    assert lab.store.db.value("SELECT COUNT(*) FROM suggestions") == 0
    assert lab.store.db.value("SELECT COUNT(*) FROM calibrations") == 0


def test_what_was_paid_once_is_not_paid_again(lab: Lab) -> None:
    """A second replay of the same prompts comes from the ledger, and still knows what a record costs."""
    lab.stream(12)
    first = Results(lab.instance, lab.replayed(backend=["openai"])).report()
    asked = len(lab.server.requests)
    second = Results(lab.instance, lab.replayed(backend=["openai"])).report()
    assert len(lab.server.requests) == asked > 0
    arms = [next(arm for arm in report.arms if arm.billed) for report in (first, second)]
    assert arms[0].numbers == arms[1].numbers
    assert arms[0].cost > 0 and arms[1].run["reused"] == 12 and arms[1].run["spent"] == 0


def test_a_budget_holds_for_each_model(lab: Lab) -> None:
    """Its run pauses as any other, and the report counts what every arm has ended with."""
    lab.stream(12)
    id_ = lab.start(budget=0.00001, backend=["openai"])
    Worker(lab.instance).run_until_idle()
    report = Results(lab.instance, id_).report()
    run = next(arm.run for arm in report.arms if arm.run)
    assert run["state"] == "paused" and "budget" in recalled(run["message"])
    assert not report.ended and report.n == run["done"] < 12


def test_a_walk_that_was_stopped_is_gone_through_again(lab: Lab) -> None:
    """Whoever takes it up comes to the same: nothing is there twice, nothing is missing."""
    lab.stream(60)
    id_ = lab.start(backend=["nearest"])
    steps: list[int] = []
    assert not replay.walk(lab.instance, id_, lambda: bool(steps) or steps.append(1) is not None)
    assert lab.store.replays.waiting() == [id_]
    assert replay.walk(lab.instance, id_)
    assert lab.store.replays.waiting() == []
    assert len(lab.store.replays.said(id_, 1)) == 60
    assert not replay.walk(lab.instance, id_)


def test_a_run_of_a_replay_waits_where_its_task_was_changed(lab: Lab) -> None:
    """Half of its answers would be to other guidelines: it pauses with the reason, and nothing is asked."""
    lab.stream(12)
    id_ = lab.start(backend=["openai"])
    assert replay.walk(lab.instance, id_)
    lab.instance.change_task(lab.id, "sentiment", {"guidelines": {"en": "Choose by the last sentence alone."}})
    Worker(lab.instance).run_until_idle()
    run = lab.store.ledger.run(lab.store.replays.arms(id_)[0]["run_id"])
    assert run["state"] == "paused" and "start the replay again" in recalled(run["message"])
    assert not lab.server.requests


def test_an_arm_is_used_as_it_was_measured(lab: Lab) -> None:
    """What the task had then comes with it, and what was by default is so again, whatever was changed meanwhile."""
    lab.stream(12)
    lab.instance.change_task(lab.id, "sentiment", {"retriever": "similar", "concurrency": 3})
    id_ = lab.replayed(backend=["nearest"])
    lab.instance.change_task(lab.id, "sentiment", {"retriever": "mmr", "k": 2, "concurrency": 5})
    replay.use(lab.instance, id_, 0)
    settings = lab.instance.task_settings(lab.project, "sentiment")
    assert (settings["retriever"], settings["k"], settings["concurrency"]) == ("similar", None, 5)


def test_a_task_that_changes_under_a_replay_ends_it_with_a_reason(lab: Lab) -> None:
    """Other labels are another question; the reason is kept, and no worker tries it for ever."""
    lab.stream(12)
    id_ = lab.start(backend=["nearest"])
    lab.instance.change_task(lab.id, "sentiment", {"k": 3})
    with pytest.raises(Conflict, match="was changed since"):
        replay.walk(lab.instance, id_)
    assert "start the replay again" in recalled(lab.store.replays.get(id_)["message"])
    assert lab.store.replays.waiting() == []


# Which arms there are


def test_the_task_as_it_is_set_stands_first_and_no_kind_twice(lab: Lab) -> None:
    """Settings that come to the same answer are one arm: a free backend knows no k."""
    lab.stream(12)
    arms = replay.arms_of(lab.instance, lab.project, lab.task, {"backend": ["nearest", "openai"], "k": [2, 4]})
    named = [(arm.settings["backend"], arm.settings.get("k")) for arm in arms]
    assert named == [("openai", None), ("nearest", 2), ("openai", 2), ("openai", 4)]
    with pytest.raises(InputError, match="a replay has at most 24"):
        replay.arms_of(lab.instance, lab.project, lab.task, {"k": list(range(1, 30))})


def test_the_newest_approvals_are_replayed(lab: Lab) -> None:
    """They had the most examples: that is how good it is by now."""
    ids = lab.stream(12)
    assert [one[0] for one in replay.chosen(lab.instance, lab.project, lab.task, 5)] == ids[-5:]
    other = lab.store.projects.get(lab.instance.create_project("empty"))
    with pytest.raises(InputError, match="nothing to replay"):
        replay.start(lab.instance, other, lab.task, [], 5)


# What is said of it


def test_every_number_is_one_of_the_rows(lab: Lab) -> None:
    """Agreement, corrections, changes and cells, counted by hand."""
    ids = lab.stream(24)
    results = Results(lab.instance, lab.replayed(backend=["openai", "nearest"]))
    report = results.report()
    assert report.ended and report.n == report.total == len(ids)
    truths = {row["record_id"]: json.loads(row["value"]) for row in lab.store.replays.items(report.replay["id"])}
    for arm in report.arms:
        rows = lab.store.db.all(
            "SELECT record_id, value FROM replayed WHERE replay_id = ? AND arm = ?", (report.replay["id"], arm.number)
        )
        said = {row["record_id"]: row["value"] and json.loads(row["value"]) for row in rows}
        right = sum(said[id_] == truths[id_] for id_ in ids)
        assert arm.numbers["agreement"].value == pytest.approx(right / 24)
        assert arm.numbers["corrections"].value == pytest.approx(1000 * (24 - right) / 24)
        table = results.confusion(arm.number)
        assert sum(table.values()) == 24
        for (true, label), n in table.items():
            cells = results.cells(arm.number, true, label)
            assert len(cells) == n and all(cell.truth == true and (cell.said or "") == label for cell in cells)
        assert len(results.cells(arm.number)) == 24 - right
        first = {id_: one.value for id_, one in lab.store.replays.said(report.replay["id"], 0).items()}
        assert arm.changed == pytest.approx(sum(said[id_] != first[id_] for id_ in ids) / 24)
        assert sum(point.n for point in arm.curve) == 24


def test_the_cheapest_arm_that_is_not_shown_to_be_worse_is_named(lab: Lab) -> None:
    """A model that says what the free suggestion says costs more; one that is always right is worth it."""
    lab.stream(60)
    right = {lab.store.records.get(row["record_id"]).text: json.loads(row["value"]) for row in
             lab.store.db.all("SELECT record_id, value FROM annotations")}  # fmt: skip

    def answer(request: Any, n: int) -> Any:
        last = request["messages"][-1]["content"]
        label = next(value for text, value in right.items() if text in last)
        return saying(request, label)

    lab.server.behave(answer)
    report = Results(lab.instance, lab.replayed(backend=["openai", "nearest"])).report()
    model = next(arm for arm in report.arms if arm.billed)
    assert model.numbers["agreement"].value == 1.0
    assert report.best == model.number
    free = next(arm for arm in report.arms if not arm.billed)
    close = free.behind is not None and free.behind.high <= 0.05
    assert report.cheapest == (free.number if close else model.number)


def saying(request: Any, label: str) -> Answer:
    """Answer a request for a label with this one."""
    name = next(iter(request["response_format"]["json_schema"]["schema"]["properties"]))
    return Answer(body=completion(json.dumps({name: label}), request))


def test_blind_and_assisted_agreement_stand_side_by_side(lab: Lab) -> None:
    """Who saw a suggestion leans towards it; the gap is said with its interval."""
    ids = lab.stream(24)
    lab.store.write(
        lambda tx: tx.run(f"UPDATE annotations SET blind = 1 WHERE record_id IN ({', '.join(map(str, ids[12:]))})")
    )
    report = Results(lab.instance, lab.replayed(backend=["nearest"])).report()
    arm = report.arms[-1]
    said = lab.store.replays.said(report.replay["id"], arm.number)
    right = {id_: said[id_].value == ("positive", "negative")[n % 2] for n, id_ in enumerate(ids)}
    assert arm.blind.value == pytest.approx(sum(right[id_] for id_ in ids[12:]) / 12)
    assert arm.assisted.value == pytest.approx(sum(right[id_] for id_ in ids[:12]) / 12)
    assert arm.anchored.value == pytest.approx(arm.assisted.value - arm.blind.value)


def test_records_that_are_removed_leave_a_replay(lab: Lab) -> None:
    """What was said of them goes, too, and a walk in progress goes on without them."""
    ids = lab.stream(12)
    done, waiting = lab.replayed(backend=["nearest"]), lab.start(backend=["nearest"])
    target = removal.Target(removal.RECORD, lab.id, ids[5])
    removal.remove(lab.instance, target, removal.preview(lab.store, target).decisions)
    assert Results(lab.instance, done).report().n == 11
    assert ids[5] not in lab.store.replays.said(done, 0)
    Worker(lab.instance).run_until_idle()
    assert Results(lab.instance, waiting).report().n == 11


# Measures


LABELS = Choice(*(Label(name) for name in ("a", "b", "c")))


def test_measures_are_those_of_scikit_learn() -> None:
    """Macro F1 and kappa of the records as they are, and of those that a draw repeats."""
    metrics = pytest.importorskip("sklearn.metrics")
    chance = np.random.default_rng(3)
    true, said = (chance.choice(["a", "b", "c"], size=80, p=[0.6, 0.3, 0.1]).tolist() for _ in range(2))
    said = [t if chance.random() < 0.6 else s for t, s in zip(true, said, strict=True)]
    answers, drawn = Answers(LABELS, true, said, [None] * 80), weights(80, 5)
    for n, row in enumerate(drawn):
        times = row.astype(int)
        t, s = (np.repeat(one, times) for one in (true, said))
        assert answers.kappa(drawn)[n] == pytest.approx(metrics.cohen_kappa_score(t, s), abs=1e-5)
        f1 = metrics.f1_score(t, s, labels=sorted(set(t)), average="macro", zero_division=0)
        assert answers.macro_f1(drawn)[n] == pytest.approx(f1, abs=1e-5)


def test_an_interval_holds_what_it_is_about() -> None:
    """Of samples of a known share of right answers, about 95 % have it within their interval."""
    chance = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        said = ["a" if right else "b" for right in chance.random(100) < 0.8]
        found = Answers(LABELS, ["a"] * 100, said, [None] * 100).all(weights(100, 400))["agreement"]
        inside += found.low <= 0.8 <= found.high
    assert 0.9 <= inside / 200 <= 0.99


def test_sets_count_by_their_own_measure() -> None:
    """Half of a set agrees partly, and has to be corrected."""
    schema = Choices(*(Label(name) for name in ("a", "b", "c")))
    found = Answers(schema, [["a"], ["a", "b"]], [["a"], ["a"]], [1.0, 0.5]).all(weights(2))
    assert found["agreement"].value == pytest.approx((1 + schema.agreement(["a"], ["a", "b"])) / 2)
    assert found["corrections"].value == 500
    assert "kappa" not in found and 0 < found["macro_f1"].value < 1
