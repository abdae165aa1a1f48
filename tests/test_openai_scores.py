"""Scores of labels from the log probabilities of an answer: the arithmetic, and the whole way to a completion."""

from __future__ import annotations

import json
import math

import openai_calls
import pytest
from fake_openai import MODES, Answer, completion
from openai_calls import FEELINGS, ask

from labeler.backends.base import GENERATED, SCORED
from labeler.backends.openai import Capabilities, OpenAIBackend
from labeler.backends.openai.scores import can_score, label_scores
from labeler.labels import Choice, Choices, Label, Rating, Text
from labeler.records import BackendFailure, Completion

clean_environment, server, backend = openai_calls.clean_environment, openai_calls.server, openai_calls.backend


def token(data, probability=1.0, *others):
    """One token as a server lists it; ``others`` are (data, probability)."""
    found = {"token": data.decode("utf-8", "replace"), "bytes": list(data), "logprob": math.log(probability)}
    return found | {"top_logprobs": [found, *(token(*other) for other in others)]}


def scored(tokens, candidates, task="t", text=None):
    written = b"".join(bytes(one["bytes"]) for one in tokens)
    return label_scores(tokens, written.decode() if text is None else text, task, candidates)


def names(*labels):
    return {label: label for label in labels}


def test_alternatives_at_the_first_telling_token_are_the_scores():
    """Where the first tokens of the labels differ, their probabilities are the scores."""
    tokens = [token(b'{"t":"'), token(b"pos", 0.6, (b"neg", 0.3), (b"neu", 0.1)), token(b'itive"}')]
    scores, chosen = scored(tokens, names(*FEELINGS))
    assert chosen == "positive"
    assert scores == pytest.approx({"positive": 0.6, "negative": 0.3, "neutral": 0.1})


def test_common_beginnings_are_followed_along_the_answer():
    """ "ne" may become two labels: probabilities are multiplied along the answer until it fits one."""
    tokens = [token(b'{"t":"'), token(b"ne", 0.5, (b"pos", 0.4)), token(b"gat", 0.8, (b"ut", 0.2)), token(b'ive"}')]
    scores, chosen = scored(tokens, names(*FEELINGS))
    assert chosen == "negative"
    assert scores == pytest.approx({"positive": 0.4, "negative": 0.4, "neutral": 0.1})


def test_what_cannot_be_told_apart_is_left_out():
    """An alternative that fits two labels, or none, counts for nobody; the sum stays below 1."""
    tokens = [token(b'{"t":"'), token(b"pos", 0.5, (b"ne", 0.3), (b"bad", 0.1)), token(b'itive"}')]
    scores, _ = scored(tokens, names(*FEELINGS))
    assert scores == pytest.approx({"positive": 0.5})


def test_tokens_that_cut_a_syllable_are_compared_as_bytes():
    """Korean labels, split in the middle of a syllable."""
    yes, no = "긍정".encode(), "부정".encode()
    tokens = [token(b'{"t":"'), token(yes[:2], 0.7, (no[:1], 0.2)), token(yes[2:5]), token(yes[5:] + b'"}')]
    scores, chosen = scored(tokens, names("긍정", "부정"))
    assert chosen == "긍정"
    assert scores == pytest.approx({"긍정": 0.7, "부정": 0.2})


def test_escaped_spelling_of_a_label_is_the_label():
    r"""A server that answers \uAE0D for 긍 means the same label."""
    text = json.dumps({"t": "긍정"})
    tokens = [token(text.encode()[:8], 0.9), token(text.encode()[8:])]
    assert scored(tokens, names("긍정", "부정"))[1] == "긍정"


def test_number_ends_where_no_digit_follows():
    """1 is the beginning of 10, so the token after it decides."""
    tokens = [token(b'{"t": '), token(b"1", 0.8, (b"2", 0.2)), token(b"}", 0.9, (b"0", 0.1))]
    scores, chosen = scored(tokens, {str(n): n for n in (1, 2, 10)})
    assert chosen == "1"
    assert scores == pytest.approx({"1": 0.72, "10": 0.08, "2": 0.2})


def test_label_that_begins_another_label_ends_with_its_quotation_mark():
    """ "good" and "goodish": the mark after "good" tells them apart."""
    tokens = [token(b'{"t":"'), token(b"good", 0.9), token(b'"}', 0.75, (b"ish", 0.25))]
    scores, _ = scored(tokens, names("good", "goodish"))
    assert scores == pytest.approx({"good": 0.675, "goodish": 0.225})


def test_token_that_holds_the_colon_and_the_value():
    """Of a token that begins before the value, alternatives with the same beginning count."""
    tokens = [token(b'{"t'), token(b'":"pos', 0.6, (b'":"neg', 0.3), (b'":', 0.1)), token(b'itive"}')]
    scores, _ = scored(tokens, names(*FEELINGS))
    assert scores == pytest.approx({"positive": 0.6, "negative": 0.3})


def test_same_words_outside_the_value_do_not_count():
    """A key or a text that looks like the task is not its value; reasoning before the answer is not the answer."""
    thought = token(b'maybe {"t":"negative"}? ')
    tokens = [thought, token(b'{"why":"\\"t\\":1","t":"'), token(b"pos", 0.5, (b"neg", 0.5)), token(b'itive"}')]
    scores, chosen = scored(tokens, names(*FEELINGS), text='{"why":"\\"t\\":1","t":"positive"}')
    assert chosen == "positive"
    assert scores == pytest.approx({"positive": 0.5, "negative": 0.5})


@pytest.mark.parametrize(
    "text",
    [
        '{"t":"posit',
        '{"u":"positive"}',
        '{"t":"great"}',
        '["positive"]',
        '{"t":"positive","t":"neutral"}',
        "positive",
        "",
    ],
)
def test_answer_without_one_label_has_no_scores(text):
    """Cut off, another key, no label, twice the key, not an object: None, never a guess."""
    assert scored([token(text.encode())] if text else [], names(*FEELINGS)) is None


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        [1],
        [{"token": '{"t":"positive"}'}],
        [{"token": '{"t":"positive"}', "logprob": float("nan")}],
        [{"token": '{"t":"positive"}', "logprob": "-1"}],
        [{"token": "x", "bytes": [300], "logprob": -1}],
        [{"token": "\ud83d", "bytes": None, "logprob": -1}],
    ],
)
def test_tokens_that_cannot_be_read_give_no_scores(content):
    """A server's odd list of tokens is no error, and no score."""
    assert label_scores(content, '{"t":"positive"}', "t", names(*FEELINGS)) is None


def test_true_is_not_one():
    """JSON's true is no point of a scale."""
    assert scored([token(b'{"t":true}')], {"1": 1, "2": 2}) is None


def test_sets_and_free_text_have_no_scores():
    """One label out of a closed list has scores; a set, a long scale and a text have none."""
    labels = [Label(name) for name in FEELINGS]
    assert can_score(Choice(*labels))
    assert can_score(Rating(1, 5))
    assert not any(can_score(schema) for schema in (Choices(*labels), Rating(0, 100), Text(), None))


# --- the whole way


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        (Choice(*[Label(name) for name in ("긍정", "부정", "중립")]), "긍정"),
        (Choice(*[Label(name) for name in ("new", "newer")]), "new"),
    ],
)
def test_completion_carries_the_scores_of_all_labels(backend, server, schema, name):
    """The fake gives its answer 0.7 and shares the rest; that comes back, whatever the tokens are."""
    result = ask(backend, schema)
    others = len(schema.candidates()) - 1
    expected = dict.fromkeys(schema.candidates(), 0.3 / others) | {name: 0.7}
    assert result.scores == pytest.approx(expected)
    assert result.score == pytest.approx(0.7)
    assert (server.requests[0].json["logprobs"], server.requests[0].json["top_logprobs"]) == (True, 20)


def test_point_of_a_scale_has_a_score(backend):
    """The schema that is sent names no points, so the fake knows no others: all probability is on one."""
    assert ask(backend, Rating(0, 5)).scores == {"0": 1.0}


def test_generated_answers_and_free_text_ask_for_no_scores(backend, server):
    """Nothing is asked for that would not be used."""
    for result in (ask(backend, answering=GENERATED), ask(backend, Text())):
        assert (result.score, result.scores) == (None, None)
    assert not any({"logprobs", "top_logprobs"} & set(received.json) for received in server.requests)


@pytest.mark.parametrize("mode", ["no_logprobs", "forbidden_logprobs", "silent_logprobs"])
def test_server_without_log_probabilities_is_asked_without(backend, server, mode):
    """Refused with 400 or 403, or ignored in silence: the answer comes without scores, and it is remembered."""
    server.behave(MODES[mode])
    assert isinstance(ask(backend), Completion)
    assert backend.capabilities.logprobs is False
    before = len(server.requests)
    result = ask(backend)
    assert (result.score, result.scores) == (None, None)
    assert "logprobs" not in server.requests[-1].json
    assert len(server.requests) == before + 1


def test_server_that_gives_fewer_alternatives_is_asked_for_five(backend, server):
    """A refused 20 becomes 5, and the scores are there."""
    server.behave(MODES["few_logprobs"])
    assert ask(backend).scores
    assert [received.json["top_logprobs"] for received in server.requests] == [20, 5]
    assert (backend.capabilities.logprobs, backend.capabilities.top_logprobs) == (True, 5)


@pytest.mark.parametrize("mode", ["no_logprobs", "forbidden_logprobs", "silent_logprobs"])
def test_scores_that_were_asked_for_are_not_left_out(backend, server, mode):
    """Who wants scores is told that the model gives none; every further call would fail alike, unsent."""
    server.behave(MODES[mode])
    for _ in range(2):
        result = ask(backend, answering=SCORED)
        assert isinstance(result, BackendFailure)
        assert (result.kind, result.fatal) == ("setup", True)
        assert "log probabilities" in result.message
        assert result.message.values == {"model": backend.model_id}
    assert len(server.requests) == 1


def test_scores_of_a_set_are_refused(backend, server):
    """A set of labels has no scores here, and says so before anything is sent."""
    result = ask(backend, Choices(*[Label(name) for name in FEELINGS]), answering=SCORED)
    assert (result.kind, result.fatal) == ("setup", True)
    assert server.requests == []


def test_answer_outside_the_schema_has_no_scores(backend, server):
    """The parser says what is wrong with such an answer; the scores say nothing."""
    server.behave(lambda body, n: Answer(200, completion('{"t":"great"}', body)))
    result = ask(backend)
    assert (result.text, result.score, result.scores) == ('{"t":"great"}', None, None)


def test_recorded_capabilities_are_where_asking_begins(server):
    """What is known from an earlier day costs no refusal today."""
    server.behave(MODES["few_logprobs"])
    known = Capabilities(logprobs=True, top_logprobs=5, temperature=False)
    backend = OpenAIBackend(server.base_url, None, "m", capabilities=known)
    assert ask(backend).scores
    backend.close()
    assert len(server.requests) == 1
    assert server.requests[0].json["top_logprobs"] == 5
    assert "temperature" not in server.requests[0].json
