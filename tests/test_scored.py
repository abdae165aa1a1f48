"""What a task's numbers say beyond counts: what scores are worth, what is learned, who disagrees, and by whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import World
from test_replay import Lab

from labeler.annotation.query import parse
from labeler.annotation.table import RecordTable
from labeler.evaluation import replay
from labeler.evaluation.learning import learning_of
from labeler.evaluation.measures import Answers, weights, weights_of
from labeler.evaluation.numbers import Numbers, numbers_of
from labeler.evaluation.results import Results
from labeler.evaluation.scored import LEAST
from labeler.store import NewRecord


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, [f"review {n}" for n in range(120)])
    yield made
    made.store.close()


def numbers(world: World, **more: object) -> Numbers:
    return numbers_of(world.store, world.project_id, world.task, **more)  # type: ignore[arg-type]


def judged(world: World, record: int, score: float, right: bool, blind: bool = False, **more: object) -> None:
    """Suggest with a score, and decide that it is right or wrong."""
    shown = world.suggest(record, "positive", score=score, **more)
    world.approve(record, "positive" if right else "negative", suggestion_id=shown, blind=blind)


# What scores are worth


def test_each_tenth_says_how_often_its_suggestions_were_accepted(world: World) -> None:
    """Of twenty with 0.91 to 0.99 eighteen are right, of twenty with 0.5 five: their shares, with intervals."""
    for n, record in enumerate(world.records[:40]):
        high = n < 20
        judged(world, record, 0.91 + n / 250 if high else 0.5, n % 10 > 0 if high else n % 4 == 0)
    [one] = numbers(world).scored
    assert (one.name, one.n, one.blind) == ("m", (40, 0), None)
    assert one.assisted is not None
    assert [(each.tenth, each.n, each.accepted.value) for each in one.assisted.tenths] == [(5, 20, 0.25), (9, 20, 0.9)]
    low, high = one.assisted.tenths[0].accepted, one.assisted.tenths[1].accepted
    assert low.low < 0.25 < low.high < high.low < 0.9 < high.high


def test_the_error_of_a_curve_is_the_expected_calibration_error(world: World) -> None:
    """It is what a replay would say of the same answers, and its interval is nearly that of single records."""
    rows = [(record, (n % 13) / 13, n % 3 > 0) for n, record in enumerate(world.records[:90])]
    for row in rows:
        judged(world, *row)
    curve = numbers(world).scored[0].assisted
    truths = ["positive" if right else "negative" for _, _, right in rows]
    answers = Answers(world.task.schema, truths, ["positive"] * 90, [score for _, score, _ in rows])
    error = answers.calibration_error(weights(90))
    assert curve is not None and error is not None
    assert curve.error.value == pytest.approx(float(error[0]))
    assert (curve.error.low, curve.error.high) == pytest.approx(tuple(np.quantile(error[1:], [0.025, 0.975])), abs=0.03)


def test_records_that_are_alike_are_drawn_together() -> None:
    """A draw has as many records as there are, whatever kinds they are of, each as often as it occurs."""
    drawn = weights_of(np.array([10, 30, 60]))
    assert drawn[0].tolist() == [10, 30, 60]
    assert set(drawn.sum(axis=1)) == {100}
    assert drawn[1:].mean(axis=0) == pytest.approx([10, 30, 60], abs=1)


def test_models_and_blind_decisions_have_curves_of_their_own(world: World) -> None:
    """Scores of two models are never mixed, and too few decisions draw no curve."""
    for n, record in enumerate(world.records[:LEAST]):
        judged(world, record, 0.8, True, backend="openai")
        judged(world, world.records[LEAST + n], 0.8, False, blind=True, backend="nearest")
    for record in world.records[2 * LEAST : 2 * LEAST + LEAST - 1]:
        judged(world, record, 0.8, True, backend="nearest")
    by = {one.backend: one for one in numbers(world).scored}
    assert by["openai"].assisted is not None and by["openai"].blind is None
    assert by["nearest"].n == (LEAST - 1, LEAST)
    assert by["nearest"].assisted is None
    assert by["nearest"].blind is not None
    assert [each.accepted.value for each in by["nearest"].blind.tenths] == [0.0]


# Conflicts


def test_a_conflict_is_a_record_on_which_two_disagree(world: World) -> None:
    """Pending with another opinion, approved against it, and decided blind otherwise: each as the query finds it."""
    pending, accepted, corrected, blind = world.records[:4]
    for record in (pending, accepted, corrected):
        world.suggest(record, "positive", disagreement=1.0)
    shown = {one: world.store.work.get(one, "sentiment")["suggestion_id"] for one in (accepted, corrected)}
    world.approve(accepted, "positive", suggestion_id=shown[accepted])
    world.approve(corrected, "negative", suggestion_id=shown[corrected])
    judged(world, blind, 0.5, False, blind=True)
    found = {one.kind: one for one in numbers(world).conflicts}
    assert {kind: one.n for kind, one in found.items()} == {"doubted": 1, "accepted": 1, "blind": 1}
    for kind, record in (("doubted", pending), ("accepted", accepted), ("blind", blind)):
        table = RecordTable(world.store, world.project_id, world.task, parse(found[kind].query))
        assert [one for part in table.ids() for one in part] == [record]


def test_pending_conflicts_are_counted_up_to_a_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are looked at are not counted, and the number says so."""
    for record in world.records[:9]:
        world.suggest(record, "positive", disagreement=1.0)
    for most, found in ((9, (9, True)), (8, (8, False))):
        monkeypatch.setattr("labeler.evaluation.numbers.NEAR", most)
        assert [(one.n, one.whole) for one in numbers(world).conflicts[:1]] == [found]


def test_near_duplicates_with_different_labels_are_named(world: World) -> None:
    """A group of which two labels were approved; one with equal labels, and one with one approval, are none."""
    groups = [world.add([f"{word} {n}" for n in range(3)], together=True) for word in ("one", "two", "three")]
    for group, labels in zip(groups, (("positive", "negative"), ("neutral", "neutral"), ("positive",)), strict=True):
        for record, label in zip(group, labels, strict=False):
            world.approve(record, label)
    found = numbers(world)
    assert (found.alike_total, [(one.n, one.whole) for one in found.alike]) == (1, [(2, True)])
    table = RecordTable(world.store, world.project_id, world.task, parse(found.alike[0].query))
    assert sorted(one for part in table.ids() for one in part) == groups[0][:2]


def test_a_query_names_as_many_near_duplicates_as_it_can_hold(world: World) -> None:
    """Keys that are too long for one query are left out, and the number says so."""
    group = world.add([NewRecord(f"{n}{'x' * 199}", f"words {n}") for n in range(4)], together=True)
    for n, record in enumerate(group):
        world.approve(record, "positive" if n else "negative")
    [one] = numbers(world).alike
    assert (one.n, one.whole) == (2, False)
    table = RecordTable(world.store, world.project_id, world.task, parse(one.query))
    assert table.count().total == 2


# By person


def test_what_a_person_decided_is_told_to_whoever_may_know(world: World) -> None:
    """Decisions by hand, corrections, rejections, the median of seconds, and agreement where they saw nothing."""
    kim, lee = world.people
    for n, record in enumerate(world.records[:6]):
        shown = world.suggest(record, "positive")
        value = "negative" if n == 0 else "positive"
        world.approve(record, value, kim, suggestion_id=shown, seconds=float(n + 1))
    for n, record in enumerate(world.records[6:10]):
        shown = world.suggest(record, "positive")
        world.approve(record, "negative" if n == 0 else "positive", lee, suggestion_id=shown, blind=True)
    world.reject(world.records[10], lee)
    accounts = [row for row in world.store.people.all() if row["id"] in (kim, lee)]
    first, second = numbers(world, people=accounts).people
    assert (first.name, first.decisions, first.corrected, first.rejected, first.seconds) == ("kim", 6, 1, 0, 3.5)
    assert first.corrections == pytest.approx(1 / 6)
    assert first.blind is None
    assert (second.name, second.decisions, second.rejected, second.corrections) == ("lee", 5, 1, None)
    assert second.blind is not None
    assert (second.blind.n, second.blind.agreement.value) == (4, 0.75)
    assert numbers(world).people == []


def test_a_persons_decisions_are_read_from_an_index_of_their_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither imports nor what they decided at once for many records is passed by on the way to the newest."""
    asked: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(world.store.db, "all", lambda sql, params: asked.append((sql, params)) or [])
    world.store.numbers.decisions_of(world.project_id, "sentiment", world.kim, 5)
    monkeypatch.undo()
    [(sql, params)] = asked
    plan = " ".join(row["detail"] for row in world.store.db.all(f"EXPLAIN QUERY PLAN {sql}", params))
    assert "annotations_standing" in plan and "TEMP B-TREE" not in plan


# The learning curve


def test_the_learning_curve_is_that_of_the_newest_replay(tmp_path: Path) -> None:
    """Corrections per 1,000 by how many examples there were: the replay's own mistakes, stretch by stretch."""
    lab = Lab(tmp_path)
    lab.instance.change_task(lab.id, "sentiment", {"backend": "nearest"})
    lab.stream(50)
    assert learning_of(lab.store, lab.id, lab.task) is None
    number = lab.replayed(backend=["nearest"])
    found, report = learning_of(lab.store, lab.id, lab.task), Results(lab.instance, number).report()
    assert found is not None
    assert (found.replay_id, found.n, len(found.stretches)) == (number, report.n, 2)
    whole = sum(one.corrections.value * one.n for one in found.stretches) / found.n
    assert whole == pytest.approx(report.arms[0].numbers["corrections"].value)
    assert [one.known for one in found.stretches] == [point.known for point in report.arms[0].curve]
    assert all(one.corrections.low <= one.corrections.value <= one.corrections.high for one in found.stretches)
    lab.close()


def test_a_replay_that_goes_on_is_no_learning_curve_yet(tmp_path: Path) -> None:
    """Its first arm asks a model that has not answered: the curve is that of an earlier one, or there is none."""
    lab = Lab(tmp_path)
    lab.stream(24)
    arms = replay.arms_of(lab.instance, lab.project, lab.task, {"backend": ["nearest"]})
    number = replay.start(lab.instance, lab.project, lab.task, arms, None)
    replay.walk(lab.instance, number)
    assert lab.store.replays.arms(number)[0]["run_id"]
    assert learning_of(lab.store, lab.id, lab.task) is None
    lab.close()
