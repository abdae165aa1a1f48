"""The ensemble: what its members learn from approvals, how they are pooled, and which fit answers."""

from __future__ import annotations

import itertools
import json
import random
import threading
from dataclasses import replace

import numpy as np
import pytest
from helpers import REVIEWS, Points, World, open_instance, python
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix
from test_nearest import ask
from test_products import market  # noqa: F401
from threadpoolctl import threadpool_info

from labeler import Choice, Choices, Completion, Keywords, Label, Task
from labeler.annotation.decisions import Decision
from labeler.backends.base import Backend
from labeler.backends.ensemble import learn as learning
from labeler.backends.ensemble import pool
from labeler.backends.ensemble.backend import MIN_EXAMPLES, EnsembleBackend, ProbeBackend
from labeler.backends.ensemble.fit import packed, unpacked
from labeler.records import Example, ParseFailure
from labeler.retrieval.lexical import count_ngrams
from labeler.store import NewRecord, Store

TOPICS = Task("topics", Choices(Label("east"), Label("north"), Label("none"), minimum=1, exclusive="none"))
KINDS = ("positive", "neutral", "negative")
ODDS = st.floats(-8, 8, width=32)


# The pool


@settings(max_examples=60, deadline=None)
@given(odds=arrays(np.float64, (5, 4), elements=ODDS))
def test_chances_of_a_choice_sum_to_one(odds):
    """Those of a set are each a chance of its own; all lie in [0, 1], and keep the order of the odds."""
    one, each = pool.chances(odds, True), pool.chances(odds, False)
    assert one.sum(axis=1) == pytest.approx(np.ones(5))
    for found in (one, each):
        assert (found >= 0).all() and (found <= 1).all()
        assert (np.take_along_axis(found, odds.argmax(axis=1)[:, None], 1)[:, 0] == found.max(axis=1)).all()
    assert pool.chances(np.zeros(3), False) == pytest.approx([0.5, 0.5, 0.5])


@settings(max_examples=60, deadline=None)
@given(odds=arrays(np.float64, (5, 3), elements=ODDS), right=st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_loss_is_the_log_of_the_chance_of_what_was_approved(odds, right):
    """In nats, summed over records, for choices and for sets alike."""
    member = np.eye(3, dtype=bool)[right]
    one, each = pool.chances(odds, True), pool.chances(odds, False)
    assert pool.loss(odds, member, True) == pytest.approx(-np.log(one[member]).sum(), abs=1e-6)
    assert pool.loss(odds, member, False) == pytest.approx(-np.log(np.where(member, each, 1 - each)).sum(), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    opinions=st.lists(arrays(np.float64, (9, 3), elements=ODDS), min_size=1, max_size=4),
    right=st.lists(st.integers(0, 2), min_size=9, max_size=9), one=st.booleans(),
)  # fmt: skip
def test_no_opinion_counts_less_than_nothing(opinions, right, one):
    """And the weights that were found are better than equal ones, or as good."""
    member = np.eye(3, dtype=bool)[right]
    found = pool.weights(opinions, member, one)
    assert found.shape == (len(opinions),) and (found >= 0).all() and np.isfinite(found).all()

    def loss(shares):
        return pool.loss(np.tensordot(shares, np.stack(opinions), 1), member, one)

    assert loss(found) <= loss(np.full(len(opinions), 1 / len(opinions))) + 1e-6


def test_the_opinion_that_is_right_counts_and_noise_hardly():
    """A member that says what was approved outweighs one that says anything, and one that says the opposite."""
    chance = np.random.default_rng(1)
    member = np.eye(3, dtype=bool)[chance.integers(0, 3, 200)]
    knows = 2.0 * member + chance.normal(0, 0.5, member.shape)
    noise = chance.normal(0, 2, member.shape)
    right, random_, wrong = pool.weights([knows, noise, -knows], member, True)
    assert right > 1 and random_ < 0.1 * right and wrong == pytest.approx(0, abs=1e-6)


def test_few_records_say_little_against_equal_weights():
    """The weights stay near equal ones until enough records speak against that."""
    member = np.eye(2, dtype=bool)[[0, 1]]
    found = pool.weights([0.5 * member, np.zeros((2, 2))], member, True)
    assert found == pytest.approx([0.5, 0.5], abs=0.1)


@settings(max_examples=60, deadline=None)
@given(found=arrays(np.float64, (4,), elements=st.floats(0, 1)))
def test_sizes_are_those_of_all_sets(found):
    """How likely each number of labels is equals the sum over every set of that size."""
    said = np.zeros(5)
    for chosen in itertools.product([False, True], repeat=4):
        said[sum(chosen)] += np.prod(np.where(chosen, found, 1 - found))
    assert pool.sizes(found) == pytest.approx(said)
    assert pool.sizes(np.stack([found, found]))[1] == pytest.approx(said)


@settings(max_examples=60, deadline=None)
@given(
    found=arrays(np.float64, (4,), elements=st.floats(0.01, 0.99)),
    odds=arrays(np.float64, (5,), elements=st.floats(-3, 3)), bounds=st.tuples(st.integers(0, 4), st.integers(0, 4)),
)  # fmt: skip
def test_size_of_is_the_size_of_the_likeliest_set(found, odds, bounds):
    """Of all sets within the bounds, each as likely as its labels and its size make it."""
    least, most = min(bounds), max(bounds)
    said = {
        chosen: np.prod(np.where(chosen, found, 1 - found)) * np.exp(odds[sum(chosen)])
        for chosen in itertools.product([False, True], repeat=4)
    }
    best = max(chance for chosen, chance in said.items() if least <= sum(chosen) <= most)
    size, score = pool.size_of(found, odds, least, most, pool.LIKELIEST)
    likeliest = max(chance for chosen, chance in said.items() if sum(chosen) == size)
    assert least <= size <= most and likeliest == pytest.approx(best)
    assert score == pytest.approx(best / sum(said.values()))


@settings(max_examples=60, deadline=None)
@given(
    found=arrays(np.float64, (4,), elements=st.floats(0.01, 0.99)),
    odds=arrays(np.float64, (5,), elements=st.floats(-3, 3)), bounds=st.tuples(st.integers(0, 4), st.integers(1, 4)),
)  # fmt: skip
def test_size_of_is_the_size_that_is_expected(found, odds, bounds):
    """The mean over all sets, rounded and within the bounds; none only where that is likelier than all others."""
    least, most = min(bounds), max(bounds)
    said = np.zeros(5)
    for chosen in itertools.product([False, True], repeat=4):
        said[sum(chosen)] += np.prod(np.where(chosen, found, 1 - found)) * np.exp(odds[sum(chosen)])
    said /= said.sum()
    size, score = pool.size_of(found, odds, least, most, pool.EXPECTED)
    if least == 0 and said[0] > 0.5:
        assert (size, score) == (0, pytest.approx(said[0]))
        return
    assert max(1, least) <= size <= most and abs(size - np.clip(said @ np.arange(5), max(1, least), most)) <= 0.5 + 1e-9
    assert score == pytest.approx(2 * np.sort(found)[::-1][:size].sum() / (size + found.sum()))


@pytest.mark.parametrize("rule", pool.RULES)
def test_size_odds_make_sizes_as_common_as_approved_ones(rule):
    """Where each label is unlikely and reviewers still give two, two are chosen."""
    found = np.tile([0.4, 0.3, 0.2, 0.1], (50, 1))
    assert pool.size_of(found[0], np.zeros(5), 0, 4, rule)[0] < 2
    assert pool.size_of(found[0], pool.size_odds(found, np.full(50, 2)), 0, 4, rule)[0] == 2


@settings(max_examples=60, deadline=None)
@given(odds=arrays(np.float64, (4,), elements=ODDS))
def test_no_label_is_certain(odds):
    """What is taken from the likeliest goes to the others, which stay behind it."""
    found = pool.doubted(pool.chances(odds, True), True)
    assert found.sum() == pytest.approx(1.0) and found.max() <= pool.MOST + 1e-12
    assert found[odds.argmax()] == found.max()
    assert pool.doubted(pool.chances(odds, False), False).max() <= pool.MOST


# What members learn


def left_out(features, member, strength):
    """Ridge regression answers of each example by a fit on all others."""
    found = np.zeros(member.shape)
    for n in range(len(features)):
        rest = np.arange(len(features)) != n
        middle, mean = features[rest].mean(axis=0), member[rest].mean(axis=0)
        centred = features[rest] - middle
        weights = np.linalg.solve(
            centred.T @ centred + strength * np.eye(features.shape[1]), centred.T @ (member[rest] - mean)
        )
        found[n] = mean + (features[n] - middle) @ weights
    return found


def ngrams_of(texts):
    grams = learning._weighed(count_ngrams(texts), len(texts))[2]
    return grams, grams.toarray()


@pytest.mark.parametrize("way", ["dense", "kernel"])
def test_left_out_answers_of_ridge_are_those_of_really_leaving_out(way):
    """For each strength at once, and without fitting anything twice. Kernel and features give the same weights."""
    chance = np.random.default_rng(3)
    member = np.eye(3, dtype=bool)[chance.integers(0, 3, 14)]
    grams, features = ngrams_of([f"{REVIEWS[n % 12]} {n}" for n in range(14)])
    if way == "dense":
        features = chance.normal(0, 1, (14, 5))
    fits = learning._ridge(features, member) if way == "dense" else learning._kernel_ridge(grams, member)
    mean = member.mean(axis=0)
    strengths = learning._STRENGTHS if way == "dense" else learning._KERNEL_STRENGTHS
    for strength, (said, weights, offset) in zip(strengths, fits, strict=True):
        assert said + mean == pytest.approx(left_out(features, member, strength), abs=1e-6)
        centred = features - features.mean(axis=0)
        exact = np.linalg.solve(centred.T @ centred + strength * np.eye(features.shape[1]), centred.T @ (member - mean))
        assert weights == pytest.approx(exact.T, abs=1e-6)
        assert offset == pytest.approx(-features.mean(axis=0) @ exact, abs=1e-6)


def test_naive_bayes_asks_of_each_text_those_outside_its_fold():
    """A left-out answer does not change with the label of the example itself."""
    chance = np.random.default_rng(4)
    member = np.eye(2, dtype=bool)[chance.integers(0, 2, 12)]
    grams = csr_matrix((chance.random((12, 6)) < 0.5).astype(float))
    ((before, _, _),) = learning._bayes(grams, member)
    member[3] = ~member[3]
    ((after, _, _),) = learning._bayes(grams, member)
    assert after[3] == pytest.approx(before[3])
    assert not np.allclose(after[4], before[4])


def test_calibration_error_is_the_distance_of_score_and_share():
    """By hand: 0.9 twice, right once (0.4 away), and 0.3 once, wrong: (2 * 0.4 + 0.3) / 3."""
    scores, right = np.array([0.9, 0.9, 0.3]), np.array([True, False, False])
    assert learning.calibration_error(scores, right) == pytest.approx((0.8 + 0.3) / 3)
    assert learning.calibration_error(np.ones(4), np.ones(4, dtype=bool)) == 0


def test_descriptions_that_cannot_be_told_apart_say_nothing():
    """The same for all labels, or no records to compare with."""
    queue = np.random.default_rng(5).normal(0, 1, (9, 3))
    assert learning.seeds(np.ones((2, 3)), queue) is None
    assert learning.seeds(np.eye(3), queue[:0]) is None and learning.seeds(np.eye(3), queue[:1]) is None
    weights, offset = learning.seeds(np.eye(3), queue)
    said = queue @ weights.T + offset
    assert said.mean(axis=0) == pytest.approx(np.zeros(3)) and said.std() == pytest.approx(1)


# From approvals to answers


def heaps(folder, per_label=12, noise=25.0, labels=KINDS, seed=1):
    """A world whose labels lie in three directions, with noise; half is approved, the truth of the rest comes too."""
    chance = random.Random(seed)
    centres = {label: 120 * n for n, label in enumerate(labels)}
    world = World(folder, [], embedder=Points())
    texts, truth = [], []
    for n in range(per_label * len(labels) * 2):
        label = labels[n % len(labels)]
        angle = np.radians(centres[label] + chance.gauss(0, noise))
        texts.append(f"({np.cos(angle):.5f} {np.sin(angle):.5f}) {n}")
        truth.append(label)
    world.records = world.add(texts)
    half = len(texts) // 2
    for id_, label in zip(world.records[:half], truth[:half], strict=True):
        world.approve(id_, label)
    return world, dict(zip(world.records[half:], truth[half:], strict=True))


def answer(world, backend, record_id, task=None):
    """The value that is suggested, and the completion it came in."""
    record, query = world.store.records.get(record_id), world.query(record_id)
    index = backend.index if isinstance(backend, EnsembleBackend) else backend.ensemble.index
    examples = index.examples(index.search(query, 8))
    return ask(task or world.task, record.text, examples, backend, query.vector)


def share_right(world, backend, truth):
    return sum(answer(world, backend, id_)[0] == label for id_, label in truth.items()) / len(truth)


def backends(world):
    ensemble = world.ensemble()
    return ensemble, ProbeBackend(ensemble)


def fitted_at(world, approvals):
    """An ensemble that is fitted after some approvals of all in turn."""
    for id_, label in approvals:
        world.approve(id_, label)
    ensemble = world.ensemble()
    assert ensemble.fit()
    return ensemble


def turns(world, count, labels=KINDS):
    return [(id_, labels[n % len(labels)]) for n, id_ in enumerate(world.records[:count])]


def test_ensemble_and_probe_keep_the_contract(tmp_path):
    """Both are free backends, and refuse what is no choice at once, with a clear reason."""
    world = World(tmp_path)
    for backend in backends(world):
        assert isinstance(backend, Backend) and not backend.billed
        phrases = Task("phrases", Keywords(maximum=5))
        _, failure = ask(phrases, "x", [], backend, np.zeros(256))
        assert failure.kind == "setup" and failure.fatal and failure.message.startswith(f"The {backend.name} labels")
    assert not World(_sub(tmp_path), task=Task("phrases", Keywords(maximum=5))).ensemble().fit()
    world.store.close()


def _sub(folder, name="other"):
    (folder / name).mkdir()
    return folder / name


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("labels", [KINDS, KINDS[:2]])
def test_what_can_be_learned_is_learned(tmp_path, which, labels):
    """On labels that lie apart ensemble and probe are far better than always saying the most frequent one."""
    world, truth = heaps(tmp_path, labels=labels)
    assert share_right(world, backends(world)[which], truth) >= 0.9
    world.store.close()


@pytest.mark.parametrize("which", [0, 1])
def test_answers_come_with_the_chances_of_all_labels(tmp_path, which):
    """They sum to one, the score is that of the answer, and note and fit say what made it."""
    world, truth = heaps(tmp_path)
    backend = backends(world)[which]
    value, found = answer(world, backend, next(iter(truth)))
    assert isinstance(found, Completion) and found.made == (backend.name,) and found.fit == backend.learned != ""
    assert sum(found.scores.values()) == pytest.approx(1.0) and found.scores[value] == max(found.scores.values())
    assert found.score == min(found.scores[value], pool.MOST)
    world.store.close()


def test_no_score_is_a_certain_one(tmp_path):
    """Where all that was approved agrees, the score is 0.99 and not 1.00, of choices and of sets."""
    world, truth = heaps(tmp_path, per_label=40, noise=0.1)
    scores = [answer(world, world.ensemble(), id_)[1].score for id_ in list(truth)[:6]]
    assert max(scores) == pool.MOST
    task = Task("topics", Choices(Label("a"), Label("b")))
    sets = World(_sub(tmp_path), [f"text {n}" for n in range(40)], task=task)
    ensemble = fitted_at(sets, [(id_, ["a"]) for id_ in sets.records[:39]])
    assert answer(sets, ensemble, sets.records[39])[1].score <= pool.MOST
    world.store.close()
    sets.store.close()


def test_a_record_without_a_vector_waits(tmp_path):
    """A record that was not embedded yet gets a reason instead of a guess."""
    world, _ = heaps(tmp_path)
    for backend in backends(world):
        assert ask(world.task, "x", [], backend, None)[1].kind == "no_vector"
    world.store.close()


# The first records


def test_before_eight_approvals_the_descriptions_of_the_labels_answer(tmp_path):
    """From nothing at all on; the note says so, and after eight it says it no more."""
    world = World(tmp_path)
    ensemble = world.ensemble()
    for n in range(MIN_EXAMPLES):
        assert ensemble.fit() and not ensemble.fitted.learned.compared
        assert answer(world, ensemble, world.records[-1])[1].made == ("seeds",)
        world.approve(world.records[n], KINDS[n % 2])
    assert ensemble.fit() and ensemble.fitted.learned.compared == MIN_EXAMPLES
    assert answer(world, ensemble, world.records[-1])[1].made == ("ensemble",)
    world.store.close()


def test_a_description_finds_what_it_describes(tmp_path):
    """Before the first approval a record that says what a label is about gets that label."""
    task = Task("topic", Choice(Label("fruit", {"ko": "사과와 배"}), Label("parcel", {"ko": "배송 상자"})))
    world = World(tmp_path, ["사과와 배가 왔어요", "배송 상자가 늦어요", *REVIEWS], task=task)
    ensemble = world.ensemble()
    assert [answer(world, ensemble, id_)[0] for id_ in world.records[:2]] == ["fruit", "parcel"]
    world.store.close()


def test_neighbours_count_from_the_first_approval_on(tmp_path):
    """The record that is most like an approved one follows it, against the descriptions."""
    world = World(tmp_path, ["(1 0) a", "(1 0.1) b", "(0 1) c", "(0.1 1) d"], embedder=Points())
    ensemble = fitted_at(world, [(world.records[0], "negative"), (world.records[2], "positive")])
    assert [answer(world, ensemble, world.records[n])[0] for n in (1, 3)] == ["negative", "positive"]
    world.store.close()


def test_a_first_fit_is_made_while_a_page_waits_only_if_it_is_small(tmp_path):
    """Also right after a start, when no example was read yet."""
    world = World(tmp_path)
    assert world.ensemble().starts()
    for id_, label in turns(world, MIN_EXAMPLES):
        world.approve(id_, label)
    world.store.write(lambda tx: tx.run("DELETE FROM fits"))
    fresh = world.ensemble()
    assert not fresh.starts() and fresh.fitted is None
    world.store.close()


def test_a_slow_embedder_keeps_no_page_waiting(tmp_path):
    """With one that needs long for the descriptions the first fit is left to the worker."""
    slow = Points()
    slow.fast = False
    world = World(tmp_path, embedder=slow)
    assert not world.ensemble().starts()
    world.store.close()


def test_the_probe_has_nothing_to_say_before_there_is_enough(tmp_path):
    """It says why, and at the desk the neighbours stand in."""
    world = World(tmp_path)
    probe = backends(world)[1]
    assert answer(world, probe, world.records[0])[1].kind == "no_examples"
    assert probe.fitted is None and not probe.answers_now()
    world.store.close()
    with open_instance(_sub(tmp_path)) as instance:
        instance.change_task(1, "sentiment", {"backend": "probe"})
        project = instance.store.projects.get(1)
        assert instance.suggester_now(project, instance.project_task(project, "sentiment")).backend.name == "nearest"


def test_the_ensemble_is_a_second_opinion_once_it_compared_its_members(tmp_path):
    """Beside its own suggestions stand the neighbours; what goes by descriptions alone is no opinion."""
    with open_instance(tmp_path) as instance:
        project = instance.store.projects.get(1)
        task = instance.project_task(project, "sentiment")
        decisions = instance.decisions(project, task)
        assert instance.ensemble(project, task).fit()
        own = instance.suggester(project, task)
        assert own.backend.name == "ensemble" and [backend.name for backend in own.second] == ["nearest"]
        for n, record in enumerate(next(iter(instance.store.records.pages(1)))[:MIN_EXAMPLES]):
            instance.store.write(
                lambda tx, record=record, n=n: decisions.import_label(tx, record, KINDS[n % 2], "test", None)
            )
        assert instance.ensemble(project, task).fit()
        beside = instance.suggester(project, task, {"backend": "nearest"}).second
        assert [backend.name for backend in beside] == ["ensemble", "nearest"]


# What is learned from


def test_a_label_that_was_approved_once_takes_no_part(tmp_path):
    """It is not suggested until it was approved twice; then it takes part."""
    world = World(tmp_path, [f"{text} {n}" for n, text in enumerate(REVIEWS * 2)])
    ensemble = fitted_at(world, [*turns(world, 12, KINDS[:2]), (world.records[12], "negative")])
    assert ensemble.fitted.labels == ("positive", "neutral") and ensemble.fitted.examples == 12
    assert {answer(world, ensemble, id_)[0] for id_ in world.records[13:]} <= {"positive", "neutral"}
    world.approve(world.records[13], "negative")
    assert ensemble.fit() and ensemble.fitted.labels == KINDS and ensemble.fitted.examples == 14
    world.store.close()


def test_one_label_alone_is_not_compared_with_anything(tmp_path):
    """With a hundred approvals of one label its note still says that too little is approved."""
    world = World(tmp_path, [f"text {n}" for n in range(101)])
    ensemble = fitted_at(world, [(id_, "neutral") for id_ in world.records[:100]])
    value, found = answer(world, ensemble, world.records[100])
    assert (value, found.made) == ("neutral", ("seeds",))
    world.store.close()


def test_near_duplicates_are_learned_from_once(tmp_path):
    """Of a cluster the newest approval counts, so that none is left out beside its own copy."""
    world = World(tmp_path, [])
    copies = world.add([f"the same thing, number {n}" for n in range(10)], together=True)
    others = world.add(REVIEWS)
    ensemble = fitted_at(world, [(id_, "neutral") for id_ in copies])
    assert ensemble.fitted.examples == 1 and not ensemble.fitted.learned.compared
    world.records = others
    ensemble = fitted_at(world, turns(world, 10, KINDS[::2]))
    assert ensemble.fitted.examples == 10 and ensemble.fitted.labels == ("positive", "negative")
    world.store.close()


def test_a_rejected_record_is_not_learned_from(tmp_path):
    world, _ = heaps(tmp_path)
    ensemble = world.ensemble()
    assert ensemble.fit() and ensemble.fitted.examples == 36
    world.reject(next(iter(world.approved())))
    assert ensemble.fit() and ensemble.fitted.examples == 35
    world.store.close()


def test_a_fit_keeps_to_one_thread(tmp_path, monkeypatch):
    """More of them wait for each other, and spend ten times the CPU on it."""
    world, _ = heaps(tmp_path)
    found = []

    def learn(data):
        found.extend(each["num_threads"] for each in threadpool_info())
        return learning.learn(data)

    monkeypatch.setattr("labeler.backends.ensemble.backend.learn", learn)
    assert world.ensemble().fit()
    assert found and set(found) == {1}
    world.store.close()


@pytest.mark.parametrize("which", [0, 1])
def test_a_refit_follows_corrections(tmp_path, which):
    """After the labels of two heaps were swapped and all was fitted again, the answers are the other way round."""
    world, truth = heaps(tmp_path, labels=("positive", "negative"))
    ensemble = world.ensemble()
    backend = (ensemble, ProbeBackend(ensemble))[which]
    ensemble.fit()
    swap = {"positive": "negative", "negative": "positive"}
    for id_, (_, value) in world.approved().items():
        world.approve(id_, swap[value])
    ensemble.fit()
    assert share_right(world, backend, {id_: swap[label] for id_, label in truth.items()}) >= 0.9
    world.store.close()


def test_a_fit_is_stale_after_five_decisions_or_a_tenth(tmp_path):
    """Be they approvals or corrections; fewer do not ask for another."""
    world, _ = heaps(tmp_path)
    ensemble = world.ensemble()
    assert ensemble.stale()
    ensemble.fit()
    assert not ensemble.stale()
    approved = list(world.approved())
    for id_ in approved[:4]:
        world.approve(id_, "neutral")
    assert not ensemble.stale()
    world.approve(approved[4], "neutral")
    assert ensemble.stale()
    ensemble.fit()
    assert not ensemble.stale() and ensemble.fitted.examples == len(approved)
    ensemble._fitted = replace(ensemble.fitted, examples=60)
    for id_ in approved[:5]:
        world.approve(id_, "positive")
    assert not ensemble.stale()
    world.approve(approved[5], "positive")
    assert ensemble.stale()
    world.store.close()


# Sets of labels


def directions(folder, task=TOPICS, count=160, learned=120):
    """A world of points whose topics are where they lie; the truth of those that are not approved comes too."""
    chance = random.Random(2)
    world = World(folder, [], task=task, embedder=Points())
    points = [(chance.uniform(-1, 1), chance.uniform(-1, 1)) for _ in range(count)]
    world.records = world.add([f"({x:.4f} {y:.4f}) {n}" for n, (x, y) in enumerate(points)])

    def truth(x, y):
        return [name for name, on in (("east", x > 0.2), ("north", y > 0.2)) if on] or ["none"]

    for id_, point in zip(world.records[:learned], points[:learned], strict=True):
        world.approve(id_, truth(*point))
    return world, {id_: truth(*point) for id_, point in zip(world.records[learned:], points[learned:], strict=True)}


@pytest.mark.parametrize("which", [0, 1])
def test_sets_are_in_the_order_of_the_schema_and_within_its_bounds(tmp_path, which):
    """At least one label, and the exclusive one alone; most of them are exactly right."""
    world, truth = directions(tmp_path)
    backend = backends(world)[which]
    values = [answer(world, backend, id_)[0] for id_ in truth]
    assert all(value in (["east"], ["north"], ["east", "north"], ["none"]) for value in values)
    assert sum(value == right for value, right in zip(values, truth.values(), strict=True)) >= 0.7 * len(values)
    world.store.close()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sets_are_as_large_as_approved_ones_mostly_are(tmp_path, size):
    """Also where nothing tells which labels they are, so that each of them alone is unlikely."""
    names = "abcdefgh"
    chance = random.Random(size)
    world = World(tmp_path, [f"text {n}" for n in range(70)], task=Task("t", Choices(*map(Label, names))))
    approvals = [(id_, sorted(chance.sample(names, size))) for id_ in world.records[:60]]
    ensemble = fitted_at(world, approvals)
    sizes = [len(answer(world, ensemble, id_)[0]) for id_ in world.records[60:]]
    assert sum(found == size for found in sizes) >= 8
    world.store.close()


def test_a_task_of_which_all_sets_are_empty_suggests_the_empty_set(tmp_path):
    """There is nothing to compare members on, but it is seen how large sets are."""
    world = World(tmp_path, [f"text {n}" for n in range(31)], task=Task("t", Choices(Label("a"), Label("b"))))
    ensemble = fitted_at(world, [(id_, []) for id_ in world.records[:30]])
    assert answer(world, ensemble, world.records[30])[0] == []
    world.store.close()


def test_a_set_that_needs_more_labels_than_are_known_is_still_a_valid_one(tmp_path):
    """Labels that were approved once take part while without them no set would be large enough."""
    task = Task("t", Choices(*map(Label, "abcdefghijk"), minimum=3, maximum=4))
    world = World(tmp_path, [f"text {n}" for n in range(12)], task=task)
    values = [["a", "b", other] for other in "cdefghijk"]
    ensemble = fitted_at(world, list(zip(world.records[:9], values, strict=True)))
    value, _ = answer(world, ensemble, world.records[9])
    assert not isinstance(value, ParseFailure) and len(value) >= 3
    for id_ in world.records[9:11]:
        world.approve(id_, ["a", "b", "c"])
    assert ensemble.fit() and ensemble.fitted.labels == ("a", "b", "c")
    assert answer(world, ensemble, world.records[11])[0] == ["a", "b", "c"]
    world.store.close()


# Which fit answers


def test_the_same_examples_give_the_same_fit(tmp_path):
    """So no suggestion is another by chance, whichever process fitted."""
    world, truth = heaps(tmp_path)
    one, two = world.ensemble(), world.ensemble()
    assert one.fit() and two.fit()
    assert one.learned == two.learned != ""
    id_ = next(iter(truth))
    assert answer(world, one, id_)[1].scores == answer(world, two, id_)[1].scores
    world.approve(id_, truth[id_])
    assert two.fit() and two.learned != packed(one._fitted)[0]
    world.store.close()


def test_every_process_answers_by_the_newest_fit(tmp_path):
    """One that fitted nothing itself gives the very answers of the one that did; so does one with an older fit."""
    world, truth = heaps(tmp_path)
    one, two = world.ensemble(), world.ensemble()
    one.fit()
    assert two.learned == one.learned
    for id_, label in list(truth.items())[:10]:
        world.approve(id_, label)
    two.fit()
    assert one.learned == two.learned
    asked = list(truth)[10:]
    assert [answer(world, one, id_)[1].scores for id_ in asked] == [answer(world, two, id_)[1].scores for id_ in asked]
    world.store.close()


def test_a_fit_that_saw_less_does_not_take_the_place_of_one_that_saw_more(tmp_path):
    """A worker that was slow leaves what another has stored since."""
    world, truth = heaps(tmp_path)
    slow, fast = world.ensemble(), world.ensemble()
    seq, entries = slow.index.refresh(), slow.index.entries()
    older = slow._fit(seq, entries)
    id_ = next(iter(truth))
    world.approve(id_, truth[id_])
    fast.fit()
    newest = fast.learned
    name, head, numbers = packed(older)
    world.store.write(lambda tx: world.store.fits.save(tx, *slow._place, name, seq, head, numbers))
    assert fast.learned == slow.learned == newest != name
    world.store.close()


@pytest.mark.parametrize("make", [heaps, directions])
def test_a_fit_is_stored_and_read_unchanged(tmp_path, make):
    """But for rounding; what was read and is stored again has the same name and the same numbers."""
    world, _ = make(tmp_path)
    ensemble = world.ensemble()
    fit = ensemble._fit(ensemble.index.refresh(), ensemble.index.entries())
    name, head, numbers = packed(fit)
    read = unpacked({"id": name, "seq": fit.seq, "head": json.loads(json.dumps(head)), "numbers": numbers})
    assert (read.labels, read.examples, read.seq, read.columns) == (fit.labels, fit.examples, fit.seq, fit.columns)
    for one, other in zip(fit.learned.members, read.learned.members, strict=True):
        assert (one.name, one.share) == (other.name, other.share)
        assert other.weights == pytest.approx(one.weights, rel=2e-3, abs=1e-6)
        assert other.offset == pytest.approx(one.offset, rel=1e-5, abs=1e-6)
    assert read.learned.vocabulary.tolist() == fit.learned.vocabulary.tolist()
    assert packed(read)[0] == name and packed(read)[2] == numbers
    world.store.close()


def test_a_fit_of_an_older_program_is_made_again(tmp_path):
    """What its numbers mean is not known: it is as if there were none."""
    world, truth = heaps(tmp_path)
    ensemble = world.ensemble()
    head = {"labels": ["positive", "negative"], "examples": 12}
    seq = ensemble.index.refresh()
    world.store.write(lambda tx: world.store.fits.save(tx, *ensemble._place, "old", seq, head, b"\0" * 64))
    assert ensemble.fitted is None and ensemble.learned == "" and ensemble.stale()
    assert answer(world, ensemble, next(iter(truth)))[1].fit not in ("", "old")
    assert world.ensemble().learned == ensemble.learned != ""
    world.store.close()


def test_a_label_that_is_gone_is_not_suggested(tmp_path):
    """A fit that learned it does not answer any more; without it all is learned anew."""
    world, truth = heaps(tmp_path)
    ensemble = world.ensemble()
    ensemble.fit()
    world.task = Task("sentiment", Choice(Label("positive"), Label("negative")), version="2")
    ensemble.index.use(world.task)
    assert ensemble.fitted is None and ensemble.stale()
    gone = [id_ for id_, label in truth.items() if label == "neutral"]
    assert {answer(world, ensemble, id_)[0] for id_ in gone} <= {"positive", "negative"}
    assert ensemble.fitted.labels == ("positive", "negative") and ensemble.fitted.examples == 24
    world.store.close()


def test_what_was_learned_of_removed_records_is_forgotten_in_every_process(tmp_path):
    """Where the store has no fit any more, the one in memory answers no more either."""
    world, _ = heaps(tmp_path)
    one, two = world.ensemble(), world.ensemble()
    one.fit()
    assert two.learned
    world.store.write(lambda tx: tx.run("DELETE FROM fits"))
    assert [each.fitted for each in (one, two)] == [None, None] and one.stale() and two.stale()
    world.store.close()


def test_a_store_that_is_only_read_is_answered_from_memory(tmp_path):
    """By a stored fit if there is one that fits; else by one that is made and not stored."""
    world, truth = heaps(tmp_path)
    world.ensemble().fit()
    kept = world.ensemble().learned
    id_ = next(iter(truth))
    store, world.store = world.store, Store(tmp_path / "labeler.db", read_only=True)
    assert answer(world, world.ensemble(), id_)[1].fit == kept
    other = world.ensemble()
    other.columns = ("rating",)
    assert not other.starts()
    assert answer(world, other, id_)[1].made == ("ensemble",) and other.fitted.columns == ("rating",)
    assert store.fits.current(*other._place) == kept
    world.store.close()
    store.close()


def test_columns_are_learned_from_also_when_nothing_waits(tmp_path):
    """A project whose queue is empty is fitted all the same, and what comes later is answered by it."""
    news = [NewRecord(f"k{n}", f"({n % 5} 1) {n}", metadata={"rating": n % 2}) for n in range(24)]
    for embedder in (None, Points()):
        world = World(_sub(tmp_path, "points" if embedder else "lexical"), news, embedder=embedder)
        for n, id_ in enumerate(world.records):
            world.approve(id_, KINDS[n % 2])
        ensemble = world.ensemble()
        ensemble.columns = ("rating",)
        assert ensemble.fit() and ensemble.fitted.numbers[0]["name"] == "rating"
        (late,) = world.add(["(1 1) another"])
        assert answer(world, ensemble, late)[1].made == ("ensemble",)
        world.store.close()


def test_a_set_has_a_score_also_where_nothing_waited_at_the_first_fit(tmp_path):
    """Three approvals of three records, and then a fourth record."""
    world = World(tmp_path, REVIEWS[:3], task=TOPICS)
    ensemble = fitted_at(world, [(id_, ["east"]) for id_ in world.records])
    (late,) = world.add(REVIEWS[3:4])
    value, found = answer(world, ensemble, late)
    assert value == ["east"] and 0 < found.score <= pool.MOST
    world.store.close()


@pytest.mark.parametrize("texts", [
    ["!" * n for n in range(1, 21)],
    ["글" * n for n in range(1, 21)],
    [f"(1 0){' .' * n}" for n in range(20)],
], ids=["signs", "letters", "points"])  # fmt: skip
@pytest.mark.parametrize("embedder", [None, Points()], ids=["lexical", "points"])
def test_texts_of_which_nothing_can_be_learned_are_no_error(tmp_path, texts, embedder):
    """All of them alike, without words, or without a direction: the likelier label is suggested."""
    world = World(tmp_path, texts, embedder=embedder)
    ensemble = fitted_at(world, [(id_, KINDS[n % 3 == 0]) for n, id_ in enumerate(world.records[:18])])
    value, found = answer(world, ensemble, world.records[19])
    assert value in KINDS and 0 < found.score <= pool.MOST
    world.store.close()


def test_many_labels_with_few_examples_are_no_error(tmp_path):
    """Of 44 labels those that were approved twice are suggested, and before eight such approvals all can be."""
    names = [f"l{n:02}" for n in range(44)]
    world = World(
        tmp_path, [f"text {n} of {names[n % 44]}" for n in range(132)], task=Task("t", Choice(*map(Label, names)))
    )
    ensemble = fitted_at(world, list(zip(world.records[:44], names, strict=True)))
    assert len(ensemble.fitted.labels) == 44 and answer(world, ensemble, world.records[-1])[1].made == ("seeds",)
    for id_, name in zip(world.records[44:54], names, strict=False):
        world.approve(id_, name)
    assert ensemble.fit() and len(ensemble.fitted.labels) == 10
    assert answer(world, ensemble, world.records[88])[0] in names[:10]
    world.store.close()


def test_answers_go_on_while_a_fit_is_made(tmp_path):
    """Every answer is of one fit or of the other, and none fails."""
    world, truth = heaps(tmp_path)
    ensemble = world.ensemble()
    ensemble.fit()
    fits, ids, found = {ensemble.learned}, list(truth), []
    done = threading.Event()

    def asking():
        while not done.is_set():
            found.extend(answer(world, ensemble, id_)[1] for id_ in ids[-3:])

    thread = threading.Thread(target=asking)
    thread.start()
    for id_ in ids[:4]:
        world.approve(id_, truth[id_])
        ensemble.fit()
        fits.add(ensemble.learned)
    done.set()
    thread.join()
    assert found and all(isinstance(each, Completion) for each in found)
    assert {each.fit for each in found} <= fits and len(fits) == 5
    world.store.close()


def test_examples_speak_through_their_votes(tmp_path):
    """The neighbours that stand as evidence count in the answer."""
    world, truth = heaps(tmp_path)
    ensemble, id_ = world.ensemble(), next(iter(truth))
    ensemble.fit()
    record, vector = world.store.records.get(id_), world.query(id_).vector
    said = []
    for value in ("positive", "negative"):
        votes = [Example(1, 1, "x", value, 0.9)]
        said.append(ask(world.task, record.text, votes, ensemble, vector)[1].scores["negative"])
    assert said[0] < said[1]
    world.store.close()


@pytest.mark.parametrize("approvals", [6, 12], ids=["first", "compared"])
def test_where_nobody_votes_it_is_as_if_all_examples_did(tmp_path, approvals):
    """A record that has only its own copies for neighbours is not kept from the commonest label."""
    world = World(tmp_path)
    ensemble = fitted_at(world, turns(world, approvals, ("positive", "positive", "neutral")))
    assert bool(ensemble.fitted.learned.compared) is (approvals == 12)
    votes = [Example(n, n, "x", value, 0.9) for n, value in enumerate(("positive", "positive", "neutral"))]
    vector = world.query(world.records[0]).vector
    said = [ask(world.task, REVIEWS[0], each, ensemble, vector)[1].scores for each in ([], votes)]
    assert said[0] == pytest.approx(said[1], abs=1e-5)
    world.store.close()


def test_scikit_learn_is_not_needed(tmp_path):
    """A fit and an answer load scipy alone: the other takes seconds to load."""
    code = """
import sys
from pathlib import Path
from helpers import World
world = World(Path(sys.argv[1]))
for n, id_ in enumerate(world.records[:10]):
    world.approve(id_, ("positive", "negative")[n % 2])
assert world.ensemble().fit()
print([name for name in sys.modules if name.split(".")[0] == "sklearn"])
"""
    process = python(code, str(tmp_path))
    assert process.communicate(timeout=60)[0].strip() == "[]" and process.returncode == 0


def test_reviews_and_products_are_learned_from_apart(market):  # noqa: F811
    """After the unit of a task was changed nothing that was approved of the other one counts, and no fit of it."""
    market.label_products(False)
    market.instance.change_project(market.id, {"tasks": ["sentiment"]})
    market.reviews(*((f"r{n}", f"P{n}", f"{REVIEWS[n % 12]} ({n})") for n in range(20)))

    def approved(count):
        queue, task = market.instance.queue(market.project, market_task()), market_task()
        for n in range(count):
            opened = queue.next(market.kim)
            decision = Decision(opened.record.id, "approve", f"key-of-{opened.record.id}", opened.version, KINDS[n % 2])
            market.instance.decisions(market.project, task).decide(market.kim, decision)

    def market_task():
        return market.instance.project_task(market.project, "sentiment")

    def ensemble():
        return market.instance.ensemble(market.project, market_task())

    approved(MIN_EXAMPLES)
    assert ensemble().fit() and ensemble().fitted.learned.compared == MIN_EXAMPLES
    market.instance.change_task(market.id, "sentiment", {"unit": "group"})
    assert ensemble().stale() and ensemble().fit()
    assert ensemble().fitted.examples == 0 and not ensemble().fitted.learned.compared
    approved(MIN_EXAMPLES)
    assert ensemble().stale() and ensemble().fit() and ensemble().fitted.learned.compared == MIN_EXAMPLES
