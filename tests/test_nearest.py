"""The free backend ``nearest``: neighbours vote, and lend labelled phrases."""

from __future__ import annotations

import pytest
from helpers import SENTIMENT
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler import (
    BackendRequest,
    Choices,
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
from labeler.backends.nearest import NearestBackend, weight
from labeler.records import BackendFailure, ParseFailure

NEAREST = NearestBackend()
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


def test_nearest_keeps_the_contract():
    """It is free, and answers one result for each request, in order."""
    assert isinstance(NEAREST, Backend) and not NEAREST.billed
    requests = [
        BackendRequest(Record(n, 1, "r", text), "sentiment", SENTIMENT.schema, examples=[example(value)])
        for n, (text, value) in enumerate([("a", "positive"), ("b", "negative"), ("c", "positive")])
    ]
    found = [SENTIMENT.parse_completion(answer.text, requests[0].record) for answer in NEAREST.complete(requests)]
    assert found == ["positive", "negative", "positive"]


def test_close_neighbours_outvote_many_far_ones():
    """Votes weigh by similarity: two near ones say more than five far ones."""
    far = [example("negative", 0.3) for _ in range(5)]
    value, answer = ask(SENTIMENT, "좋아요", [example("positive", 0.9), example("positive", 0.8), *far])
    assert value == "positive" and answer.made == ("vote",) and 0.9 < answer.score <= 1


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


@pytest.mark.parametrize("task", [PHRASES, POLARITY, Task("summary", Text(maximum=40))])
def test_neighbours_say_nothing_of_a_text(task):
    """Keywords and texts are the ensemble's: what stands in other reviews does not stand in this one."""
    value, failure = ask(task, "정말 맛있어요", [example({"good": "맛있음"} if task is POLARITY else "")])
    assert value is None and failure.kind == "no_answer"


def test_spans_shared_with_neighbours_keep_their_label():
    """A labelled phrase of a neighbour that stands in the text is labelled alike."""
    value, _ = ask(TAGGED, "쿠팡에서 산 사과", [example([{"label": "food", "text": "사과", "start": 0, "end": 2}])])
    assert value == [{"label": "food", "text": "사과", "start": 7, "end": 9}]


def test_parts_that_can_vote_do_beside_those_that_cannot():
    """A choice among the parts is voted on; the text beside it stays empty."""
    task = Task("both", Fields((Label("mood"), SENTIMENT.schema), (Label("why"), Text(maximum=40))))
    value, _ = ask(task, "정말 맛있어요", [example({"mood": "positive", "why": "맛있다."})])
    assert value == {"mood": "positive"}


WORDS = st.text(alphabet="가나다 사과배송abc.!?\n,👍é", min_size=1, max_size=80).filter(str.strip)
PHRASE = st.text(alphabet="가나다사과배송abc", min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(text=WORDS, labels=st.lists(st.tuples(st.sampled_from(["food", "shop"]), PHRASE), min_size=1, max_size=6))
def test_extracted_spans_always_stand_in_the_text(text, labels):
    """For any text and any neighbours: every span is what the text says at its place."""
    text = text.strip()
    neighbours = [example([{"label": label, "text": p, "start": 0, "end": len(p)}]) for label, p in labels]
    value, _ = ask(TAGGED, text, neighbours)
    assert not isinstance(value, ParseFailure)
    assert all(text[s["start"] : s["end"]] == s["text"] for s in value)
