"""What a server takes: found out with one call, learned from refusals, recorded; and settings that a person chose."""

from __future__ import annotations

import openai_calls
import pytest
from fake_openai import MODES, Answer, Limiter, completion, error
from openai_calls import ask

from labeler.backends.batches import CallFailed
from labeler.backends.openai import Capabilities, probe
from labeler.backends.openai.limits import rate_limits
from labeler.errors import SettingError
from labeler.records import BackendFailure, Completion, Generation, RateLimits

EVERYTHING = Generation(max_tokens=9, temperature=0.1, top_k=5, top_p=0.2, seed=3, stop=("x",))

clean_environment, server, backend = openai_calls.clean_environment, openai_calls.server, openai_calls.backend


def test_probe_finds_everything_out_with_one_call(backend, server):
    """A server that takes all is known after one call; what could not be seen stays unknown."""
    assert probe(backend) == Capabilities(
        json_schema=True,
        logprobs=True,
        top_logprobs=20,
        temperature=True,
        top_p=True,
        top_k=True,
        seed=True,
        stop=True,
        max_tokens_name="max_tokens",
        usage=True,
        thinks=False,
    )
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("no_schema", {"json_schema": False, "json_object": True}),
        ("no_format", {"json_schema": False, "json_object": False}),
        ("no_top_k", {"top_k": False, "json_schema": True, "seed": True}),
        ("no_seed", {"seed": False}),
        ("no_temperature", {"temperature": False}),
        ("no_logprobs", {"logprobs": False, "top_logprobs": None}),
        ("forbidden_logprobs", {"logprobs": False}),
        ("silent_logprobs", {"logprobs": False}),
        ("few_logprobs", {"logprobs": True, "top_logprobs": 5}),
        ("reasoning", {"temperature": False, "max_tokens_name": "max_completion_tokens"}),
        ("fences", {"json_schema": False}),
        ("length", {"json_schema": None, "temperature": True}),
        ("empty", {"json_schema": None, "logprobs": None}),
    ],
)
def test_probe_knows_what_was_refused_or_ignored(backend, server, mode, expected):
    """A refusal, an answer that ignores the schema, or none that could show anything."""
    server.behave(MODES[mode])
    found = probe(backend)
    assert {name: getattr(found, name) for name in expected} == expected
    assert backend.capabilities == found


def test_probe_of_a_server_that_fails_says_how(backend, server):
    """The failure is that of a call; nothing is learned."""
    server.behave(MODES["unauthorized"])
    with pytest.raises(CallFailed, match="key") as caught:
        probe(backend)
    assert caught.value.failure.kind == "auth"
    assert backend.capabilities == Capabilities()


def test_probe_that_is_refused_as_a_whole_asks_plainly(backend, server):
    """Two settings that do not go together are no reason to call the server broken: it stays unknown."""

    def refuse(body, n):
        return error(400, "temperature and top_p cannot both be given.") if "top_p" in body else None

    server.behave(refuse)
    assert probe(backend) == Capabilities()
    assert backend.check()["ok"]


def test_check_shows_what_was_found(backend, server):
    """The test button gets the capabilities as JSON, beside what it had."""
    server.behave(MODES["no_top_k"])
    found = backend.check()
    assert found["ok"]
    assert found["capabilities"]["top_k"] is False
    assert Capabilities.from_json(found["capabilities"]) == backend.capabilities


@pytest.mark.parametrize("raw", [[], {"colour": True}, {"seed": 1}, {"top_logprobs": True}, {"max_tokens_name": "x"}])
def test_recorded_capabilities_that_are_wrong_are_refused(raw):
    """What cannot have been written by us is named, not believed."""
    with pytest.raises(SettingError):
        Capabilities.from_json(raw)


# --- settings of the generation


def test_all_settings_are_sent(backend, server):
    """Those of other servers (top_k), too."""
    assert isinstance(ask(backend, generation=EVERYTHING), Completion)
    sent = server.requests[0].json
    assert {name: sent[name] for name in ("max_tokens", "temperature", "top_k", "top_p", "seed", "stop")} == {
        "max_tokens": 9,
        "temperature": 0.1,
        "top_k": 5,
        "top_p": 0.2,
        "seed": 3,
        "stop": ["x"],
    }


def test_setting_that_nobody_chose_is_dropped_quietly(backend, server):
    """The default temperature is no wish of a person."""
    server.behave(MODES["no_temperature"])
    assert isinstance(ask(backend), Completion)
    assert "temperature" not in backend.generation_settings


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p", "seed", "stop"])
def test_setting_that_a_person_chose_is_not_dropped(backend, server, name):
    """The failure names the model and the setting; the next call is not even sent."""
    server.behave(lambda body, n: error(400, f"Unrecognized argument: {name}") if name in body else None)
    assert name in backend.generation_settings
    chosen = Generation(9, 0.1, 5, 0.2, 3, ("x",), explicit=frozenset({name, "max_tokens"}))
    for _ in range(2):
        result = ask(backend, generation=chosen)
        assert isinstance(result, BackendFailure)
        assert (result.kind, result.fatal) == ("setup", True)
        assert result.message == f"The model m refuses the setting {name}; clear it in the settings of the task."
    assert len(server.requests) == 1
    assert name not in backend.generation_settings


def test_renamed_setting_is_not_refused(backend, server):
    """max_tokens under its other name is what the person chose."""
    server.behave(MODES["reasoning"])
    generation = Generation(max_tokens=9, temperature=None, explicit=frozenset({"max_tokens"}))
    assert isinstance(ask(backend, generation=generation), Completion)
    assert server.requests[-1].json["max_completion_tokens"] == 9


# --- rate limits


def test_limits_come_with_answers_and_refusals(backend, server):
    """Both a completion and a 429 say what the server's limits are."""
    server.limiter = Limiter(requests=1, tokens=6000)
    first, second = ask(backend), ask(backend)
    assert isinstance(first, Completion)
    assert (first.limits.requests, first.limits.remaining_requests) == (1, 0)
    assert first.limits.tokens == 6000
    assert 50 < first.limits.reset_requests <= 60
    assert second.kind == "rate_limit"
    assert second.limits.requests == 1
    assert 50 < second.retry_after <= 60


def test_answer_without_such_headers_has_no_limits(backend):
    """Absent is None."""
    assert ask(backend).limits is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0),
        ("1.5s", 1.5),
        ("20ms", 0.02),
        ("1h2m3s", 3723.0),
        ("59", 59.0),
        ("0", 0.0),
        ("2000-01-01T00:00:00Z", 0.0),
        ("soon", None),
        ("", None),
        ("-3", None),
        ("nan", None),
        ("2000-01-01", None),
    ],
)
def test_times_of_reset(text, seconds):
    """As OpenAI spells them, in plain seconds, as a date; or nothing."""
    found = rate_limits([(b"X-RateLimit-Reset-Requests", text.encode())])
    assert (found and found.reset_requests) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-tokens": "9"}, RateLimits(60, remaining_tokens=9)),
        ({"anthropic-ratelimit-tokens-limit": "80000"}, RateLimits(tokens=80000)),
        ({"RateLimit-Limit": "100", "RateLimit-Remaining": "3"}, RateLimits(remaining_requests=3)),
        ({"x-ratelimit-limit-requests": "many"}, None),
    ],
)
def test_names_of_other_servers(headers, expected):
    """OpenAI's, Anthropic's and the general names; a limit per unknown window is not taken."""
    assert rate_limits([(name.encode(), value.encode()) for name, value in headers.items()]) == expected


# --- cached tokens


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 4}}, 4),
        ({"prompt_tokens_details": None}, None),
        ({"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 6}, 3),
        ({"cached_tokens": 2}, 2),
        ({}, None),
    ],
)
def test_cached_tokens_in_the_words_of_each_server(backend, server, usage, cached):
    """OpenAI and vLLM, DeepSeek, Moonshot; unknown is None."""
    numbers = {"prompt_tokens": 9, "completion_tokens": 2}
    server.behave(lambda body, n: Answer(200, completion("{}", body) | {"usage": numbers | usage}))
    assert ask(backend).tokens_cached == cached
