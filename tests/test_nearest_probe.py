"""The two free backends: ``nearest`` votes and extracts, ``probe`` is fitted on the approved vectors."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from helpers import SENTIMENT, Points, World
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from labeler import (
    BackendRequest,
    Choice,
    Choices,
    Completion,
    Example,
    Fields,
    Keywords,
    Label,
    Rating,
    Record,
    Spans,
    Task,
    Text,
)
from labeler.backends.base import Backend
from labeler.backends.nearest import NearestBackend, noun_phrases, weight
from labeler.backends.probe import ProbeBackend
from labeler.records import BackendFailure, ParseFailure
from labeler.retrieval.lexical import LexicalEmbedder

LEXICAL = LexicalEmbedder()
NEAREST = NearestBackend(LEXICAL.embed)
POLARITY = Task("polarity", Fields((Label("good"), Text(maximum=60)), (Label("bad"), Text(maximum=60))))
PHRASES = Task("phrases", Keywords(maximum=5))
TAGGED = Task("tagged", Spans(Label("food"), Label("shop")))


def example(value, similarity=0.9, text="x", n=1):
    return Example(n, n, text, value, similarity)


def ask(task, text, examples, backend=NEAREST, vector=None):
    """The parsed answer, and the completion (or failure) it came in."""
    record = Record(1, 1, "r", text)
    request = BackendRequest(record, task.name, task.schema, examples=examples, vector=vector)
    (answer,) = backend.complete([request])
    if isinstance(answer, BackendFailure):
        return None, answer
    return task.parse_completion(answer.text, record), answer


# Nearest: the vote


def test_backends_keep_the_contract(tmp_path):
    """Both are free, and answer one result for each request, in order."""
    world = World(tmp_path)
    for backend in (NEAREST, ProbeBackend(world.index())):
        assert isinstance(backend, Backend) and not backend.billed
    texts = ["a", "b", "c"]
    requests = [
        BackendRequest(Record(n, 1, "r", text), "sentiment", SENTIMENT.schema, examples=[example("positive")])
        for n, text in enumerate(texts)
    ]
    assert len(list(NEAREST.complete(requests))) == 3
    world.store.close()


def test_close_neighbours_outvote_many_far_ones():
    """Votes weigh by similarity: two near ones say more than five far ones."""
    far = [example("negative", 0.3) for _ in range(5)]
    value, answer = ask(SENTIMENT, "좋아요", [example("positive", 0.9), example("positive", 0.8), *far])
    assert value == "positive" and answer.note == "vote" and 0.9 < answer.score <= 1


def test_score_is_the_share_of_the_weight():
    """Neighbours that disagree give a low score, never a made-up one."""
    _, answer = ask(SENTIMENT, "음", [example("positive", 0.8), example("negative", 0.8)])
    assert answer.score == pytest.approx(0.5)


def test_without_examples_there_is_no_answer():
    """Before the first approval the backend says that there is nothing to go by."""
    for task in (SENTIMENT, PHRASES, POLARITY):
        _, failure = ask(task, "좋아요", [])
        assert failure.kind == "no_examples" and "approve" in failure.message


def test_set_of_labels_and_scale_vote_too():
    """Choices take what half of the weight holds; a rating lies on its scale."""
    topics = Task("topics", Choices(Label("taste"), Label("price")))
    value, _ = ask(topics, "x", [example(["taste", "price"]), example(["taste"]), example([])])
    assert value == ["taste"]
    stars = Task("stars", Rating(1, 5))
    value, _ = ask(stars, "x", [example(5), example(4), example(5)])
    assert value in (4, 5)


def test_dissimilar_neighbours_still_weigh_a_little():
    """A weight is never zero or negative, so that a vote always has a winner."""
    assert weight(-0.5) > 0 and weight(0.9) > weight(0.5) > weight(0.0)


# Nearest: extraction


@pytest.mark.slow
def test_noun_phrases_are_whole_words():
    """Particles and endings stay with their noun, as the guidelines ask; laughter behind a word does not."""
    pytest.importorskip("kiwipiepy")
    found = noun_phrases("유통기한은 남았는데 기름 쩐내도 나고 배송ㅋㅋ 최악")
    assert {"유통기한은", "기름 쩐내도"} <= set(found)
    assert not any("ㅋ" in phrase for phrase in found)


@pytest.mark.slow
def test_keywords_shared_with_neighbours_come_first():
    """Phrases that neighbours marked and that stand in the text are taken, verbatim, with their places."""
    text = "배송이 빠르고 사과가 아삭해요"
    neighbours = [
        example([{"text": "사과", "start": 0, "end": 2}, {"text": "포장", "start": 4, "end": 6}]),
        example([{"text": "배송이 빠르고", "start": 0, "end": 7}]),
    ]
    value, answer = ask(PHRASES, text, neighbours)
    assert answer.note == "extraction" and answer.score is None
    assert {"배송이 빠르고", "사과"} & {keyword["text"] for keyword in value}
    assert all(text[k["start"] : k["end"]] == k["text"] for k in value)


def test_spans_shared_with_neighbours_keep_their_label():
    """A labelled phrase of a neighbour that stands in the text is labelled alike."""
    value, _ = ask(TAGGED, "쿠팡에서 산 사과", [example([{"label": "food", "text": "사과", "start": 0, "end": 2}])])
    assert value == [{"label": "food", "text": "사과", "start": 7, "end": 9}]


def test_side_that_most_neighbours_leave_empty_stays_empty():
    """Where most of the neighbours have nothing bad to say, nothing is called bad."""
    text = "정말 맛있어요. 또 살게요."
    value, _ = ask(
        POLARITY, text, [example({"good": "맛있음"}), example({"good": "달콤함"}), example({"bad": "비쌈"}, 0.2)]
    )
    assert set(value) == {"good"}
    assert value["good"] in text
    value, _ = ask(POLARITY, text, [example({}), example({})])
    assert value == {}


WORDS = st.text(alphabet="가나다 사과배송abc.!?\n,👍é", min_size=1, max_size=80).filter(str.strip)
PHRASE = st.text(alphabet="가나다사과배송abc", min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(text=WORDS, phrases=st.lists(st.lists(PHRASE, max_size=4, unique=True), min_size=1, max_size=4))
def test_extracted_keywords_always_stand_in_the_text(text, phrases):
    """For any text and any neighbours: every keyword is what the text says at its place, and the answer parses."""
    text = text.strip()
    neighbours = [
        example([{"text": p, "start": 10 * n, "end": 10 * n + len(p)} for n, p in enumerate(one)]) for one in phrases
    ]
    value, _ = ask(PHRASES, text, neighbours)
    assert not isinstance(value, ParseFailure)
    assert all(text[k["start"] : k["end"]] == k["text"] for k in value)


@settings(max_examples=80, deadline=None)
@given(text=WORDS, said=st.lists(st.tuples(st.text(max_size=20), st.floats(0, 1)), min_size=1, max_size=5))
def test_extracted_sentence_always_stands_in_the_text(text, said):
    """For any text and any neighbours: a summary is a piece of the text, or empty; nothing is written."""
    text = text.strip()
    task = Task("summary", Text(maximum=40))
    value, _ = ask(task, text, [example(words.strip(), similarity) for words, similarity in said])
    assert not isinstance(value, ParseFailure)
    assert value in text


@settings(max_examples=60, deadline=None)
@given(text=WORDS, labels=st.lists(st.tuples(st.sampled_from(["food", "shop"]), PHRASE), min_size=1, max_size=6))
def test_extracted_spans_always_stand_in_the_text(text, labels):
    """For any text and any neighbours: every span is what the text says at its place."""
    text = text.strip()
    neighbours = [example([{"label": label, "text": p, "start": 0, "end": len(p)}]) for label, p in labels]
    value, _ = ask(TAGGED, text, neighbours)
    assert not isinstance(value, ParseFailure)
    assert all(text[s["start"] : s["end"]] == s["text"] for s in value)


# Probe


def heaps(folder, per_label=12, noise=25.0, labels=("positive", "neutral", "negative"), seed=1):
    """A world whose labels lie in three directions, with noise."""
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


def probe_answer(world, probe, record_id):
    record = world.store.records.get(record_id)
    vector = world.embedder.embed([record.text])[0]
    return ask(world.task, record.text, [], probe, vector)


def test_probe_learns_what_can_be_learned(tmp_path):
    """On labels that lie apart the probe is far better than always saying the most frequent one."""
    world, truth = heaps(tmp_path)
    probe = ProbeBackend(world.index())
    right = sum(probe_answer(world, probe, id_)[0] == label for id_, label in truth.items())
    majority = len(truth) / 3
    assert right >= 0.9 * len(truth) > 2 * majority
    world.store.close()


def test_probe_answers_with_probabilities(tmp_path):
    """The scores of all labels sum to one, and the score is that of the answer."""
    world, truth = heaps(tmp_path)
    probe = ProbeBackend(world.index())
    value, answer = probe_answer(world, probe, next(iter(truth)))
    assert isinstance(answer, Completion) and answer.note == "probe"
    assert sum(answer.scores.values()) == pytest.approx(1.0)
    assert answer.score == max(answer.scores.values()) == answer.scores[value]
    world.store.close()


def test_probe_of_two_labels_agrees_with_itself(tmp_path):
    """Two labels are the special case of the library; the answer is still the likelier one, near its examples."""
    world, truth = heaps(tmp_path, labels=("positive", "negative"))
    probe = ProbeBackend(world.index())
    right = sum(probe_answer(world, probe, id_)[0] == label for id_, label in truth.items())
    assert right >= 0.9 * len(truth)
    world.store.close()


def test_probe_is_ready_when_every_label_has_five(tmp_path):
    """Before every label of the schema has five approvals the probe is not the default."""
    world, _ = heaps(tmp_path, per_label=4)
    probe = ProbeBackend(world.index())
    assert not probe.ready()
    pending = [id_ for id_ in world.records if world.state(id_) == "pending"]
    for id_, label in zip(pending, ("positive", "neutral"), strict=False):
        world.approve(id_, label)
    assert not probe.ready()
    world.approve(pending[2], "negative")
    assert probe.ready()
    world.reject(pending[2])
    assert not probe.ready()
    world.store.close()


def test_probe_needs_two_labels(tmp_path):
    """With nothing, or with one label only, the probe says that it cannot answer."""
    world = World(tmp_path, ["(1 0)", "(0 1)", "(1 1)"], embedder=Points())
    probe = ProbeBackend(world.index())
    assert not probe.fit()
    for id_ in world.records[:2]:
        world.approve(id_, "positive")
    assert not probe.fit()
    assert probe_answer(world, probe, world.records[2])[1].kind == "no_examples"
    world.store.close()


def test_probe_says_when_it_needs_another_fit(tmp_path):
    """Five new decisions make a fit stale, be they approvals or corrections; one or two do not."""
    world, _ = heaps(tmp_path)
    probe = ProbeBackend(world.index())
    assert probe.stale()
    probe.fit()
    assert not probe.stale()
    approved = list(world.approved())
    for id_ in approved[:4]:
        world.approve(id_, "neutral")
    assert not probe.stale()
    world.approve(approved[4], "neutral")
    assert probe.stale()
    probe.fit()
    assert not probe.stale() and probe.fitted.examples == len(approved)
    world.store.close()


def test_a_fit_keeps_to_one_thread(tmp_path, monkeypatch):
    """More of them wait for each other, and spend ten times the CPU on it."""
    world, _ = heaps(tmp_path)
    found = []

    def fit(*_):
        found.extend(pool["num_threads"] for pool in threadpool_info())
        return None

    monkeypatch.setattr("labeler.backends.probe._fit_choice", fit)
    ProbeBackend(world.index()).fit()
    assert found and set(found) == {1}
    world.store.close()


def test_refit_follows_corrections(tmp_path):
    """After the labels of two heaps were swapped and the probe fitted again, it answers the other way round."""
    world, truth = heaps(tmp_path, labels=("positive", "negative"))
    probe = ProbeBackend(world.index())
    probe.fit()
    swap = {"positive": "negative", "negative": "positive"}
    for id_, (_, value) in world.approved().items():
        world.approve(id_, swap[value])
    probe.fit()
    right = sum(probe_answer(world, probe, id_)[0] == swap[label] for id_, label in truth.items())
    assert right >= 0.9 * len(truth)
    world.store.close()


def test_probe_never_answers_a_label_that_is_gone(tmp_path):
    """A label that was taken out of the task is not suggested, though old examples still carry it."""
    world, truth = heaps(tmp_path)
    probe = ProbeBackend(world.index())
    probe.fit()
    task = Task("sentiment", Choice(Label("positive"), Label("negative")))
    gone = next(id_ for id_, label in truth.items() if label == "neutral")
    record = world.store.records.get(gone)
    value, _ = ask(task, record.text, [], probe, world.embedder.embed([record.text])[0])
    assert value in ("positive", "negative")
    world.store.close()


def test_probe_of_a_set_decides_each_label_alone(tmp_path):
    """For Choices the probe answers a set, in the order of the schema, within its bounds."""
    task = Task("topics", Choices(Label("east"), Label("north"), Label("none"), minimum=1, exclusive="none"))
    chance = random.Random(2)
    world = World(tmp_path, [], task=task, embedder=Points())
    points = [(chance.uniform(-1, 1), chance.uniform(-1, 1)) for _ in range(160)]
    world.records = world.add([f"({x:.4f} {y:.4f}) {n}" for n, (x, y) in enumerate(points)])

    def truth(x, y):
        names = [name for name, on in (("east", x > 0.2), ("north", y > 0.2)) if on]
        return names or ["none"]

    for id_, point in zip(world.records[:120], points[:120], strict=True):
        world.approve(id_, truth(*point))
    probe = ProbeBackend(world.index())
    values = [probe_answer(world, probe, id_)[0] for id_ in world.records[120:]]
    assert not any(isinstance(value, ParseFailure) for value in values)
    right = sum(value == truth(*point) for value, point in zip(values, points[120:], strict=True))
    assert right >= 0.7 * len(values)
    assert not probe.ready()
    world.store.close()


def test_probe_refuses_what_it_cannot_label(tmp_path):
    """For anything but choices the probe stops the run at once, with a clear reason."""
    world = World(tmp_path, task=PHRASES)
    _, failure = ask(PHRASES, "x", [], ProbeBackend(world.index()), np.zeros(256))
    assert failure.kind == "setup" and failure.fatal
    assert not ProbeBackend(world.index()).fit()
    world.store.close()


def test_record_without_a_vector_waits(tmp_path):
    """A record that was not embedded yet gets a reason instead of a guess."""
    world, truth = heaps(tmp_path)
    probe = ProbeBackend(world.index())
    assert ask(world.task, "x", [], probe, None)[1].kind == "no_vector"
    assert json.loads(probe_answer(world, probe, next(iter(truth)))[1].text)
    world.store.close()
