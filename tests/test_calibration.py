"""Calibration: a model's scores are corrected from approved labels, and only where that helps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import World, numbered

from labeler import Choice, Choices, Keywords, Label, LabelSchema, Rating
from labeler.errors import InputError
from labeler.prelabel.calibration import CHOICE, SET, Calibration, Pair, _folds, _read, fit, load, refit
from labeler.records import Suggestion
from labeler.store.calibrations import Calibrations

SENTIMENT = Choice(Label("positive"), Label("neutral"), Label("negative"))
TOPICS = Choices(*(Label(name) for name in ("taste", "price", "delivery", "packaging", "service", "none")))
STARS = Rating(1, 5)


def shares(nats: np.ndarray) -> np.ndarray:
    odds = np.exp(nats - nats.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def scorer(schema: LabelSchema, n: int, bias: Sequence[float] = (0.0,), seed: int = 1, rate: float = 0.3) -> list[Pair]:
    """``n`` records as a model scores them that sees the right labels dimly and adds ``bias`` to each, in nats."""
    random = np.random.default_rng(seed)
    names = list(schema.candidates())
    if isinstance(schema, Choices):
        gold = random.random((n, len(names))) < rate
        values: list[Any] = [[name for name, one in zip(names, row, strict=True) if one] for row in gold]
    else:
        drawn = random.integers(len(names), size=n)
        gold = np.eye(len(names), dtype=bool)[drawn]
        values = [schema.candidates()[names[one]] for one in drawn]
    rows = shares(random.normal(size=gold.shape) + 2.5 * gold + np.array(bias)).tolist()
    return [(dict(zip(names, row, strict=True)), value) for row, value in zip(rows, values, strict=True)]


def agreement(schema: LabelSchema, calibration: Calibration, pairs: Sequence[Pair], size: float | None = None) -> float:
    return float(np.mean([schema.agreement(calibration.decide(schema, scores, size), gold) for scores, gold in pairs]))


# What it corrects


@pytest.mark.parametrize("schema, bias", [(SENTIMENT, (0, 4, 0)), (STARS, (0, 0, 0, 4, 4))], ids=["choice", "rating"])
def test_a_model_that_prefers_a_label_is_lifted(schema, bias):
    """A bias that a model has for a label is learned from approvals, and taken off records never seen before."""
    fresh = scorer(schema, 500, bias, seed=2)
    fitted = fit(schema, scorer(schema, 200, bias))
    assert fitted.used
    assert fitted.accuracy_after > fitted.accuracy_before + 0.05
    plain = agreement(schema, Calibration(CHOICE), fresh)
    assert agreement(schema, fitted, fresh) > plain + 0.05
    preferred, others = (
        [fitted.bias[name] for name, nats in zip(schema.candidates(), bias, strict=True) if bool(nats) is liked]
        for liked in (True, False)
    )
    assert max(preferred) < min(others) - 2


def test_what_cross_validation_promises_is_what_new_records_show():
    """The two figures that stand beside a calibration are those of records it was not fitted on."""
    bias, fresh = (0, 4, 0), scorer(SENTIMENT, 3000, (0, 4, 0), seed=2)
    fitted = fit(SENTIMENT, scorer(SENTIMENT, 400, bias))
    assert fitted.accuracy_before == pytest.approx(agreement(SENTIMENT, Calibration(CHOICE), fresh), abs=0.06)
    assert fitted.accuracy_after == pytest.approx(agreement(SENTIMENT, fitted, fresh), abs=0.06)


def test_a_model_without_preference_is_left_alone():
    """Where no calibration beats the plain scores they stay, and the figures say how it went."""
    pairs = scorer(SENTIMENT, 200)
    fitted = fit(SENTIMENT, pairs)
    assert not fitted.used
    assert (fitted.trained_on, fitted.bias, fitted.temperature) == (200, {}, 1.0)
    assert 0.7 < fitted.accuracy_after <= fitted.accuracy_before + 0.02
    assert all(fitted.decide(SENTIMENT, scores) == SENTIMENT.decide(scores) for scores, _ in pairs)


@pytest.mark.parametrize("schema", [SENTIMENT, STARS], ids=["choice", "rating"])
def test_chance_seldom_looks_like_a_preference(schema):
    """One standard error is passed by chance about one time in six, and next to nothing is lost then."""
    fresh, losses = scorer(schema, 500, seed=100), []
    plain = agreement(schema, Calibration(CHOICE), fresh)
    for seed in range(10):
        fitted = fit(schema, scorer(schema, 100, seed=seed))
        if fitted.used:
            losses.append(plain - agreement(schema, fitted, fresh))
    assert len(losses) <= 4
    assert max(losses, default=0.0) < 0.03


@pytest.mark.parametrize("n", range(60, 80, 4))
def test_a_gain_of_one_record_is_no_gain(n):
    """One record more or less is within one standard error, however many there are."""
    sure = [({name: 0.98 if name == gold else 0.01 for name in scores}, gold) for scores, gold in scorer(SENTIMENT, n)]
    near = [({"positive": 0.45, "neutral": 0.02, "negative": 0.53}, "negative")] * 40
    wrong = [({"positive": 0.5, "neutral": 0.02, "negative": 0.48}, "negative")] * 2
    one = fit(SENTIMENT, [*sure, *near, *wrong[:1]])
    assert one.accuracy_after > one.accuracy_before
    assert not one.used
    assert fit(SENTIMENT, [*sure, *near, *wrong]).used


def test_a_record_does_not_vouch_for_itself():
    """A label that was approved once is lifted for no record but its own, and that one does not count."""
    schema = Choice(*(Label(name) for n in range(20) for name in (f"once {n}", f"never {n}")), Label("a"), Label("b"))
    sure = [({"a": 0.9, "b": 0.1}, "a"), ({"a": 0.1, "b": 0.9}, "b")] * 20
    once = [({f"once {n}": 0.48, f"never {n}": 0.52}, f"once {n}") for n in range(20)]
    fitted = fit(schema, sure + once)
    assert not fitted.used
    assert fitted.accuracy_after == fitted.accuracy_before == pytest.approx(40 / 60, abs=1e-6)


def test_the_simpler_calibration_wins_a_tie():
    """A temperature is fitted on top of the biases only where it adds more than chance does."""
    fits = [fit(SENTIMENT, scorer(SENTIMENT, 100, (0, 4, 0), seed=seed)) for seed in range(8)]
    assert all(fitted.used for fitted in fits)
    assert sum(fitted.temperature == 1.0 for fitted in fits) >= 7


def test_sets_get_a_threshold_for_each_label():
    """A set of labels is decided without being told its size, and better than by the mean size."""
    bias, fresh = (0, 2, -2, 1, 0, -1), scorer(TOPICS, 500, (0, 2, -2, 1, 0, -1), seed=2)
    pairs = scorer(TOPICS, 300, bias)
    fitted = fit(TOPICS, pairs)
    size = float(np.mean([len(gold) for _, gold in pairs]))
    assert fitted.used and fitted.kind == SET
    assert agreement(TOPICS, fitted, fresh) > agreement(TOPICS, Calibration(SET), fresh, size) + 0.1
    assert all(fitted.decide(TOPICS, scores) == TOPICS.decide(fitted.apply(scores)) for scores, _ in fresh)


def test_sets_are_as_large_as_those_approved():
    """The thresholds let through as many labels as reviewers approve, also where labels are rare and hard to tell."""
    pairs = scorer(TOPICS, 300, (1, 0, 0, 0, 0, -2), rate=0.15)
    fitted = fit(TOPICS, pairs)
    assert fitted.used
    chosen = sum(len(fitted.decide(TOPICS, scores)) for scores, _ in pairs)
    assert chosen == sum(len(gold) for _, gold in pairs)


def test_a_label_that_was_never_approved_keeps_its_place():
    """Nothing is learned from nothing: such a label gets no bias."""
    pairs = [pair for pair in scorer(SENTIMENT, 200, (0, 0, 3)) if pair[1] != "neutral"]
    fitted = fit(SENTIMENT, pairs)
    assert fitted.used
    assert set(fitted.bias) == {"positive", "negative"}


# How scores are corrected


def test_a_bias_moves_a_choice():
    """The corrected scores of a choice are shares: softmax(log score / temperature + bias)."""
    calibration = Calibration(CHOICE, {"positive": np.log(4.0)}, temperature=0.5, used=True)
    assert calibration.apply({"positive": 0.2, "negative": 0.4}) == pytest.approx({"positive": 0.5, "negative": 0.5})
    assert sum(calibration.apply({"positive": 0.2, "neutral": 0.1, "negative": 0.9}).values()) == pytest.approx(1.0)


def test_a_set_has_one_half_at_its_threshold():
    """Each label of a set stands by itself: 0.5 at its threshold, more above, less below."""
    calibration = Calibration(SET, {"price": 1.0}, temperature=2.0, threshold=float(np.log(0.1)))
    corrected = calibration.apply({"taste": 0.1, "price": 0.1 * np.exp(-2.0), "delivery": 0.11, "service": 0.09})
    assert corrected["taste"] == pytest.approx(0.5) == corrected["price"]
    assert corrected["delivery"] > 0.5 > corrected["service"]
    alone = {"taste": 0.1}
    assert calibration.apply(alone)["taste"] == corrected["taste"]


@pytest.mark.parametrize("temperature", [0.05, 0.7, 3.0, 20.0])
def test_a_temperature_changes_no_choice(temperature):
    """A temperature makes scores sharper or flatter; their order stays."""
    calibration = Calibration(CHOICE, temperature=temperature, used=True)
    for scores, _ in scorer(SENTIMENT, 50):
        assert SENTIMENT.decide(calibration.apply(scores)) == SENTIMENT.decide(scores)
    sharp, flat = calibration.apply({"a": 0.6, "b": 0.4})["a"], 0.6
    assert (sharp > flat) == (temperature < 1)


@pytest.mark.parametrize("kind", [CHOICE, SET])
def test_a_score_of_nothing_is_no_accident(kind):
    """A score of 0 has no logarithm; it is taken for a very small one, at any temperature."""
    corrected = Calibration(kind, {"b": 2.0}, temperature=0.01).apply({"a": 1.0, "b": 0.0, "c": 0.0})
    assert all(0.0 <= score <= 1.0 for score in corrected.values())
    assert corrected["a"] > corrected["b"]
    assert Calibration(kind).apply({}) == {}


def test_a_label_that_is_new_has_no_bias():
    """Labels that came after the calibration, or were renamed, are scored as they are."""
    calibration = Calibration(CHOICE, {"positive": 1.0, "gone": 5.0}, used=True)
    corrected = calibration.apply({"brand new": 0.5, "negative": 0.5})
    assert corrected == pytest.approx({"brand new": 0.5, "negative": 0.5})


def test_a_calibration_that_did_not_win_changes_nothing():
    """Plain scores are decided on as ever: the best label, or as many labels as sets have on average."""
    choice = Calibration(CHOICE, {"negative": 9.0})
    assert choice.decide(SENTIMENT, {"positive": 0.6, "negative": 0.4}) == "positive"
    assert replace(choice, used=True).decide(SENTIMENT, {"positive": 0.6, "negative": 0.4}) == "negative"
    assert Calibration(SET).decide(TOPICS, {"taste": 0.4, "price": 0.3, "delivery": 0.2}, 1.8) == ["taste", "price"]


# What it learns from


def test_too_few_records_teach_nothing():
    """Twenty-nine records are too few, thirty are enough."""
    pairs = scorer(SENTIMENT, 30, (0, 4, 0))
    assert fit(SENTIMENT, pairs[:29]) is None
    assert fit(SENTIMENT, pairs).trained_on == 30


@pytest.mark.parametrize("rare", [0, 4])
def test_one_label_teaches_nothing(rare):
    """Two labels need five approvals each; where all but a few records have one label there is nothing to learn."""
    pairs = scorer(SENTIMENT, 600)
    many = [pair for pair in pairs if pair[1] == "positive"][:100]
    few = [pair for pair in pairs if pair[1] == "negative"]
    assert fit(SENTIMENT, many + few[:rare]) is None
    assert fit(SENTIMENT, many + few[:5]) is not None


def test_values_that_the_schema_refuses_now_are_left_out():
    """Labels are renamed and removed: what was approved under other labels, or not scored, teaches nothing."""
    good = scorer(SENTIMENT, 100, (0, 4, 0))
    removed = [({"positive": 0.5, "mixed": 0.5}, "mixed")] * 50
    unscored = [({"positive": 0.9, "neutral": 0.1}, "negative")] * 50
    assert fit(SENTIMENT, [*good, *removed, *unscored]) == fit(SENTIMENT, good)


def test_scores_that_lack_a_label_are_used_as_they_are():
    """A label that was added later has no score in older suggestions; it is not taken for a bad score."""
    older = [({name: s for name, s in scores.items() if name != "neutral"}, gold) for scores, gold in
             scorer(SENTIMENT, 300, (0, 0, 4)) if gold != "neutral"]  # fmt: skip
    newer = scorer(SENTIMENT, 60, (0, 0, 4), seed=3)
    fitted = fit(SENTIMENT, older + newer)
    assert fitted.used
    assert fitted.bias["negative"] < fitted.bias["positive"] - 2
    assert fitted.bias["negative"] < fitted.bias["neutral"] - 2


def test_a_schema_without_a_closed_list_has_no_calibration():
    """Keywords have no candidates to score."""
    assert fit(Keywords(), [({"a": 0.5}, [])] * 100) is None


def test_opposite_scores_are_not_turned_around():
    """A model that scores the right label lowest is nearly ignored; its scores are never read backwards."""
    pairs = []
    for n, (scores, gold) in enumerate(scorer(SENTIMENT, 300)):
        upside = {name: 1 / score for name, score in scores.items()}
        total = sum(upside.values())
        pairs.append(({name: one / total for name, one in upside.items()}, "positive" if n % 2 else gold))
    fitted = fit(SENTIMENT, pairs)
    assert fitted.used
    assert fitted.temperature > 0
    assert SENTIMENT.decide(fitted.apply(dict.fromkeys(("positive", "neutral", "negative"), 1 / 3))) == "positive"


def test_near_duplicates_stay_in_one_fold():
    """Copies of a record never stand on both sides, and each label is spread over all folds."""
    singles = scorer(SENTIMENT, 100)
    pairs = [pair for pair in singles for _ in range(3)]
    data = _read(SENTIMENT, pairs, [7 * (n // 3) for n in range(300)])
    folds = _folds(data, np.random.default_rng(0))
    assert all(len(set(folds[start : start + 3])) == 1 for start in range(0, 300, 3))
    for label in SENTIMENT.candidates():
        held = np.bincount(folds[np.array([gold == label for _, gold in pairs])], minlength=5) / 3
        assert held.max() - held.min() <= 1


def test_near_duplicates_count_once():
    """Forty copies of a handful of records are a handful of records; and they prove no gain."""
    few = scorer(SENTIMENT, 8, (0, 4, 0)) * 10
    assert fit(SENTIMENT, few) is not None
    assert fit(SENTIMENT, few, [n % 8 for n in range(80)]) is None


def test_a_cluster_is_right_or_wrong_together():
    """A gain on twenty copies of one record is one piece of evidence, not twenty."""
    sure = [({name: 0.98 if name == gold else 0.01 for name in scores}, gold) for scores, gold in scorer(SENTIMENT, 60)]
    near = [({"positive": 0.45, "neutral": 0.02, "negative": 0.53}, "negative")] * 40
    copies = [({"positive": 0.5, "neutral": 0.02, "negative": 0.48}, "negative")] * 20
    pairs = [*sure, *near, *copies]
    assert fit(SENTIMENT, pairs).used
    assert not fit(SENTIMENT, pairs, [*range(100), *[100] * 20]).used


@pytest.mark.parametrize("schema", [SENTIMENT, TOPICS, STARS], ids=["choice", "set", "rating"])
def test_the_same_pairs_give_the_same_calibration(schema):
    """Nothing is left to chance but the folds, and those have a seed."""
    pairs = scorer(schema, 60, [1, 0, 0] if schema is SENTIMENT else [0.0])
    assert fit(schema, pairs, seed=3) == fit(schema, pairs, seed=3)


# What is stored


@pytest.mark.parametrize("schema", [SENTIMENT, TOPICS], ids=["choice", "set"])
def test_a_calibration_survives_json(schema):
    """What is read back is equal to what was fitted."""
    fitted = fit(schema, scorer(schema, 100, [3, *[0] * (len(schema.candidates()) - 1)]))
    assert fitted.used
    assert Calibration.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


@pytest.mark.parametrize(
    "broken", [None, [], {}, {"kind": "other"}, {"temperature": 0}, {"bias": [1]}, {"bias": {"a": "x"}}], ids=str
)
def test_a_stored_calibration_that_cannot_be_read_says_what_to_do(broken):
    """A row of another version is refused with the remedy."""
    raw = Calibration(CHOICE).to_json() | broken if broken else broken
    with pytest.raises(InputError, match="fit it again"):
        Calibration.from_json(raw)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


def scored(
    world: World, record_id: int, scores: Any, backend: str = "local", model_id: str | None = "m", task: str = "",
    prompt_digest: str = "",
) -> None:  # fmt: skip
    """Store a suggestion of a backend with scores, as a run would."""
    value = "neutral" if scores is None else SENTIMENT.decide(scores)
    suggestion = Suggestion(
        record_id, task or "sentiment", "1", backend, model_id, value, None, scores=scores, prompt_digest=prompt_digest
    )
    world.store.write(lambda tx: world.store.suggestions.add(tx, world.project_id, suggestion))


def pairs_of(world: World, backend: str = "local", model_id: str | None = "m", **more: Any) -> list[tuple[Any, ...]]:
    """(record id, scores, value) of each stored pair."""
    rows = Calibrations(world.store.db).pairs(world.project_id, "sentiment", backend, model_id, **more)
    return [(row["record_id"], json.loads(row["scores"]), json.loads(row["value"])) for row in rows]


def test_pairs_join_scores_with_what_was_approved(world):
    """Newest approval first; it does not matter whether the scores came before it or after."""
    first, second, third = world.records[:3]
    scored(world, first, {"positive": 0.9})
    world.approve(first, "negative")
    world.approve(second, "positive")
    scored(world, second, {"positive": 0.8})
    scored(world, third, {"positive": 0.7})
    assert pairs_of(world) == [(second, {"positive": 0.8}, "positive"), (first, {"positive": 0.9}, "negative")]
    assert pairs_of(world, limit=1) == [(second, {"positive": 0.8}, "positive")]


def test_only_the_decision_in_force_is_learned_from(world):
    """A correction counts in place of what it superseded; what was rejected or undone does not count."""
    corrected, rejected, restored, undone = world.records[:4]
    for record_id in (corrected, rejected, restored, undone):
        scored(world, record_id, {"positive": 0.9})
        world.approve(record_id, "positive")
    world.decisions.undo(world.kim)
    world.approve(restored, "neutral")
    world.decisions.undo(world.kim)
    world.approve(corrected, "negative")
    world.reject(rejected)
    assert {row[0]: row[2] for row in pairs_of(world)} == {corrected: "negative", restored: "positive"}


def test_a_record_gives_the_newest_scores_of_that_model_alone(world):
    """Other models, other tasks, older suggestions and those without scores are passed over."""
    record_id = world.records[0]
    world.approve(record_id, "positive")
    scored(world, record_id, {"positive": 0.1})
    scored(world, record_id, {"positive": 0.2})
    scored(world, record_id, None)
    scored(world, record_id, {"positive": 0.3}, model_id="other")
    scored(world, record_id, {"positive": 0.35}, task="other")
    scored(world, record_id, {"positive": 0.4}, backend="elsewhere")
    scored(world, record_id, {"positive": 0.5}, backend="nameless", model_id=None)
    assert pairs_of(world) == [(record_id, {"positive": 0.2}, "positive")]
    assert pairs_of(world, "nameless", None) == [(record_id, {"positive": 0.5}, "positive")]
    assert pairs_of(world, "local", None) == []


def test_scores_of_another_way_of_prompting_are_not_mixed_in(world):
    """Without examples a model may lean to one label, with them to another: each style learns from its own scores."""
    record_id = world.records[0]
    world.approve(record_id, "positive")
    scored(world, record_id, {"positive": 0.2}, prompt_digest="zero-shot")
    scored(world, record_id, {"positive": 0.7}, prompt_digest="few-shot")
    assert pairs_of(world, prompt_digest="zero-shot") == [(record_id, {"positive": 0.2}, "positive")]
    assert pairs_of(world) == []


def test_near_duplicates_share_the_cluster_of_a_pair(world):
    """Folds are made by cluster: a copy with another letter has that of its original."""
    twins = world.add(["아주 맛있어요", "아주 맛있어용"], together=True)
    for record_id in (*twins, world.records[0]):
        world.approve(record_id)
        scored(world, record_id, {"positive": 0.9})
    rows = Calibrations(world.store.db).pairs(world.project_id, "sentiment", "local", "m")
    assert {row["record_id"]: row["cluster"] for row in rows} == {
        twins[0]: twins[0], twins[1]: twins[0], world.records[0]: world.records[0]
    }  # fmt: skip


def approve_biased(world: World, n: int = 60) -> None:
    """Approve records that a model with a preference for "neutral" scored."""
    for record_id, (scores, gold) in zip(world.add(numbered(n)), scorer(SENTIMENT, n, (0, 4, 0)), strict=True):
        scored(world, record_id, scores)
        world.approve(record_id, gold)


def test_refit_learns_from_the_store_and_remembers(world):
    """What is fitted stands in the store under its model, for the next suggestion."""
    place = (world.store, world.project_id, "sentiment")
    assert load(*place, "local", "m") is None
    approve_biased(world)
    fitted = refit(*place, SENTIMENT, "local", "m")
    assert fitted.used and fitted.trained_on == 60
    assert load(*place, "local", "m") == fitted
    assert load(*place, "local", "other") is None
    assert refit(*place, SENTIMENT, "local", "m") == fitted


def test_refit_counts_near_duplicates_once(world):
    """Sixty copies of a few reviews are too few to learn from."""
    copies = [id_ for n in range(6) for id_ in world.add([f"그저 그래요 {n} {m}" for m in range(10)], together=True)]
    for record_id, (scores, gold) in zip(copies, scorer(SENTIMENT, 60, (0, 4, 0)), strict=True):
        scored(world, record_id, scores)
        world.approve(record_id, gold)
    assert len(pairs_of(world)) == 60
    assert refit(world.store, world.project_id, "sentiment", SENTIMENT, "local", "m") is None


def test_a_calibration_without_approvals_is_forgotten(world):
    """Where what it was learned from is gone, the plain scores stand again."""
    approve_biased(world)
    place = (world.store, world.project_id, "sentiment")
    assert refit(*place, SENTIMENT, "local", "m").used
    renamed = Choice(Label("good"), Label("bad"))
    assert refit(*place, renamed, "local", "m") is None
    assert load(*place, "local", "m") is None


def test_a_model_without_a_name_has_a_place_of_its_own(world):
    """A backend that has no model id is stored like any other, and saved again in place of the one before."""
    room, place = Calibrations(world.store.db), (world.project_id, "sentiment", "local")
    world.store.write(lambda tx: room.save(tx, *place, None, {"n": 1}))
    world.store.write(lambda tx: room.save(tx, *place, None, {"n": 2}))
    world.store.write(lambda tx: room.save(tx, *place, "m", {"n": 3}))
    assert room.get(*place, None) == {"n": 2}
    world.store.write(lambda tx: room.remove(tx, *place, None))
    assert (room.get(*place, None), room.get(*place, "m")) == (None, {"n": 3})
