"""The backend ``openai``, against a real server on this machine (``fake_openai.py``)."""

from __future__ import annotations

import email.utils
import json
import logging
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai_calls
import pytest
from fake_openai import MODES, Answer, FakeOpenAI, completion, error, good
from openai_calls import KEY

from labeler.backends.base import Backend, BackendRequest
from labeler.backends.openai import OpenAIBackend, is_configured, openai_settings, strict_schema
from labeler.errors import SettingError
from labeler.labels import Text
from labeler.records import BackendFailure, Completion, Generation, Record

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["positive", "neutral", "negative"]}},
    "required": ["label"],
}

clean_environment, server = openai_calls.clean_environment, openai_calls.server


@pytest.fixture
def connect(server):
    backends = []

    def connect(base_url=None, api_key=KEY, model_id="gpt-4o-mini", **options):
        backends.append(OpenAIBackend(base_url or server.base_url, api_key, model_id, **options))
        return backends[-1]

    yield connect
    for backend in backends:
        backend.close()


@pytest.fixture
def backend(connect):
    return connect()


def request(text="배송이 빨라요", task="sentiment", schema=SCHEMA, generation=None, turns=()):
    record = Record(id=1, project_id=1, key="r1", text=text)
    messages = [{"role": "system", "content": "Label the review."}, *turns, {"role": "user", "content": text}]
    # Free text has no scores, so nothing is asked for them here.
    return BackendRequest(record, task, Text(), messages, schema, generation or Generation())


def ask(backend, **options):
    (result,) = backend.complete([request(**options)])
    return result


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- what is sent and what comes back


def test_backend_keeps_the_contract(backend):
    """The class is a Backend, and billed."""
    assert isinstance(backend, Backend)
    assert (backend.name, backend.billed, backend.model_id) == ("openai", True, "gpt-4o-mini")


def test_completion_carries_text_usage_and_model(backend):
    """Text, tokens, cached tokens, finish reason and the model that answered come back."""
    result = ask(backend)
    assert json.loads(result.text) == {"label": "positive"}
    assert (result.tokens_in, result.tokens_out, result.tokens_cached) == (5, 2, 2)
    assert (result.finish, result.model_id) == ("stop", "gpt-4o-mini")


def test_answers_come_in_the_order_of_the_requests(backend):
    """Each request has its answer at its place."""
    texts = [json.loads(result.text)["echo"] for result in backend.complete([request(t, schema={}) for t in "가나다"])]
    assert texts == ["가", "나", "다"]


def test_generation_settings_are_sent_and_none_is_left_out(backend, server):
    """A setting of None is not sent at all, so the server's own default holds."""
    ask(backend, generation=Generation(max_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=("\n",)))
    ask(backend, generation=Generation(max_tokens=None, temperature=None), schema={})
    first, second = (received.json for received in server.requests)
    assert {name: first[name] for name in ("max_tokens", "temperature", "top_p", "seed", "stop")} == {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["\n"],
    }
    assert set(second) == {"model", "messages"}


def test_schema_is_sent_strict_under_a_safe_name(backend, server):
    """The name of the schema holds only what OpenAI allows in it."""
    ask(backend, task="감정 v2")
    form = server.requests[0].json["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["name"] == "___v2"
    assert form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["additionalProperties"] is False


def test_strict_schema_drops_what_strict_mode_refuses():
    """Every object is closed, every property required, and unsupported keywords are gone, at every depth."""
    phrase = {"type": "string", "minLength": 1, "maxLength": 40, "pattern": "x", "description": "verbatim"}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "phrases": {"type": "array", "items": phrase, "uniqueItems": True, "maxItems": 5},
            "default": {"oneOf": [{"$ref": "#/$defs/part"}, {"type": "null"}]},
        },
        "required": ["phrases"],
        "$defs": {"part": {"type": "object", "properties": {"score": {"type": "integer", "minimum": 1}}}},
    }
    phrase_left = {"type": "string", "description": "verbatim"}
    assert strict_schema(schema) == {
        "type": "object",
        "properties": {
            "phrases": {"type": "array", "items": phrase_left},
            "default": {"anyOf": [{"$ref": "#/$defs/part"}, {"type": "null"}]},
        },
        "required": ["phrases", "default"],
        "additionalProperties": False,
        "$defs": {
            "part": {
                "type": "object",
                "properties": {"score": {"type": "integer"}},
                "required": ["score"],
                "additionalProperties": False,
            }
        },
    }
    assert schema["properties"]["phrases"]["maxItems"] == 5  # the caller's schema is not touched


@pytest.mark.parametrize(
    ("mode", "text", "finish"),
    [
        ("empty", "", "stop"),
        ("refusal", "I can't help with that.", "refusal"),
        ("length", '{"label": ', "length"),
        ("fences", 'Sure!\n```json\n{"label": "positive"}\n```', "stop"),
    ],
)
def test_odd_answers_are_still_completions(backend, server, mode, text, finish):
    """What a model answered goes to the parser as it came, with the reason it ended."""
    server.behave(MODES[mode])
    result = ask(backend)
    assert isinstance(result, Completion)
    assert (result.text, result.finish) == (text, finish)


def test_long_answer_is_returned_whole(backend, server):
    """An answer of 2 MB is no failure; the parser judges it."""
    server.behave(lambda body, n: Answer(200, completion("x" * 2_000_000, body)))
    assert len(ask(backend).text) == 2_000_000


def test_endless_answer_is_cut_off(backend, server):
    """Beyond 10 MB nothing is read, and the call is not repeated."""
    server.behave(lambda body, n: Answer(200, completion("x" * 11_000_000, body)))
    result = ask(backend)
    assert (result.kind, result.retryable) == ("request", False)
    assert "10 MB" in result.message


def test_usage_that_is_missing_or_odd_is_none(backend, server):
    """Unknown token counts are None, never 0."""
    server.behave(lambda body, n: Answer(200, completion("ok", body) | {"usage": {"prompt_tokens": "7"}}))
    result = ask(backend)
    assert (result.tokens_in, result.tokens_out, result.tokens_cached) == (None, None, None)


def test_text_that_no_database_takes_is_mended(backend, server):
    """Half an emoji and NUL, which JSON can carry, become the replacement character."""
    body = '{"choices":[{"message":{"content":"a\\ud83db\\u0000c"},"finish_reason":"length"}]}'
    server.behave(lambda _, n: Answer(200, body))
    assert ask(backend).text == "a\ufffdb\ufffdc"


def test_content_in_parts_is_joined(backend, server):
    """Some servers send the content as a list of parts."""
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    server.behave(lambda body, n: Answer(200, {"choices": [{"message": {"content": parts}}]}))
    assert ask(backend).text == "ab"


# --- failures


@pytest.mark.parametrize(
    ("behaviour", "kind", "fatal", "retryable"),
    [
        (MODES["rate_limit"], "rate_limit", False, True),
        (MODES["quota"], "quota", True, False),
        (lambda body, n: Answer(402, {"error": {"message": "Insufficient Balance"}}), "quota", True, False),
        (MODES["unauthorized"], "auth", True, False),
        (lambda body, n: error(403, "Country not supported."), "auth", True, False),
        (MODES["no_model"], "model", True, False),
        (lambda body, n: error(400, "No such model.", "model_not_found"), "model", True, False),
        (MODES["server_error"], "server", False, True),
        (MODES["bad_gateway"], "server", False, True),
        (lambda body, n: error(408, "Slow."), "server", False, True),
        (lambda body, n: error(409, "Lock."), "server", False, True),
        (lambda body, n: error(400, "Invalid 'messages'.", "invalid_value", "messages"), "request", False, False),
        (lambda body, n: error(400, "Too long.", "context_length_exceeded"), "too_long", False, True),
        (lambda body, n: Answer(422, {"detail": [{"loc": ["body"], "msg": "bad"}]}), "request", False, False),
        (lambda body, n: Answer(302, "", {"Location": "http://127.0.0.1:9/x"}), "setup", True, False),
        (lambda body, n: Answer(200, {"error": {"message": "busy", "code": 429}}), "rate_limit", False, True),
        (lambda body, n: Answer(200, {"error": "overloaded"}), "server", False, True),
        (lambda body, n: Answer(200, "<html>Log in</html>"), "server", False, True),
        (lambda body, n: Answer(200, "[" * 100_000), "server", False, True),
        (lambda body, n: Answer(200, b"\xff\xfe"), "server", False, True),
        (lambda body, n: Answer(200, "null"), "server", False, True),
        (MODES["malformed"], "server", False, True),
        (MODES["no_choices"], "server", False, True),
        (MODES["reset"], "connection", False, True),
    ],
)
def test_failure_says_its_kind_after_one_request(backend, server, behaviour, kind, fatal, retryable):
    """Each way to fail has its kind, one sentence, and costs one request."""
    server.behave(behaviour)
    result = ask(backend)
    assert isinstance(result, BackendFailure)
    assert (result.kind, result.fatal, result.retryable) == (kind, fatal, retryable)
    assert result.message.endswith(".")
    assert "\n" not in result.message
    assert len(server.requests) == 1


@pytest.mark.parametrize("mode", ["hang", "trickle"])
def test_timeout_costs_one_call(connect, server, mode):
    """A server that never answers, or drips, is left in time; the request is sent once."""
    server.behave(MODES[mode])
    start = time.monotonic()
    result = ask(connect(timeout=0.3))
    assert (result.kind, result.retryable, result.fatal) == ("timeout", True, False)
    assert "0.3 s" in result.message
    assert time.monotonic() - start < 1
    assert len(server.requests) == 1


def test_refused_connection_names_the_address(connect):
    """Nothing listens there: the message says where."""
    port = free_port()
    result = ask(connect(f"http://127.0.0.1:{port}/v1"))
    assert (result.kind, result.retryable) == ("away", True)
    assert f"http://127.0.0.1:{port}/v1" in result.message


def test_unknown_path_points_at_base_url(connect, server):
    """A base_url without /v1 is a fault of the settings, not of the record."""
    result = ask(connect(server.base_url.removesuffix("/v1") + "/wrong/v1/x/chat"))
    assert isinstance(result, Completion)  # the fake answers any path that ends well
    server.behave(lambda body, n: Answer(404, {"detail": "Not Found"}))
    result = ask(connect())
    assert (result.kind, result.fatal) == ("model", True)
    assert server.base_url in result.message


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "Mon, 01 Jan 2024 00:00:00 GMT"}, 0.0),
        ({"Retry-After": "1e999"}, 86_400.0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(backend, server, headers, expected):
    """Seconds, milliseconds and nonsense: a number of seconds within a day, or None."""
    server.behave(lambda body, n: Answer(429, {"error": {"message": "slow down"}}, headers))
    assert ask(backend).retry_after == expected


def test_retry_after_as_a_date(backend, server):
    """The date form of the header counts from now, for a 503 as for a 429."""
    when = email.utils.formatdate(time.time() + 30, usegmt=True)
    server.behave(lambda body, n: Answer(503, {"error": {"message": "down"}}, {"Retry-After": when}))
    result = ask(backend)
    assert result.kind == "server"
    assert 27 < result.retry_after <= 30


def test_prompt_that_json_cannot_carry_is_refused(backend, server):
    """A lone surrogate fails this one call, without a request."""
    result = ask(backend, text="\ud83d")
    assert (result.kind, result.retryable, result.fatal) == ("request", False, False)
    assert server.requests == []


def test_without_key_and_address_nothing_is_sent():
    """The failure says which setting is missing."""
    result = ask(OpenAIBackend(None, None, "gpt-4o-mini"))
    assert (result.kind, result.fatal) == ("setup", True)
    assert "OPENAI_API_KEY" in result.message


# --- servers that take less


def test_reasoning_model_is_asked_without_what_it_refuses(backend, server):
    """max_tokens is renamed and temperature dropped; the second call needs no refusal to know."""
    server.behave(MODES["reasoning"])
    assert isinstance(ask(backend), Completion)
    assert len(server.requests) == 3
    assert isinstance(ask(backend), Completion)
    assert len(server.requests) == 4
    body = server.requests[-1].json
    assert body["max_completion_tokens"] == 1024
    assert not {"max_tokens", "temperature"} & set(body)


@pytest.mark.parametrize(
    "refusal",
    [
        lambda name: error(400, f"Unrecognized request argument supplied: {name}"),
        lambda name: Answer(400, {"message": f'"{name}" is not supported by this server'}),
        lambda name: Answer(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra"}]}),
    ],
)
@pytest.mark.parametrize("name", ["top_p", "seed", "stop", "temperature"])
def test_unsupported_parameter_is_dropped_in_any_wording(backend, server, name, refusal):
    """Servers word it differently; the parameter named is left out, the others stay."""
    server.behave(lambda body, n: refusal(name) if name in body else None)
    settings = Generation(max_tokens=9, temperature=0.1, top_p=0.2, seed=3, stop=("x",))
    assert isinstance(ask(backend, generation=settings), Completion)
    assert set(server.requests[0].json) - set(server.requests[1].json) == {name}


def test_refused_value_is_not_dropped(backend, server):
    """max_tokens that is too large is a mistake to mend, not a parameter to leave out: the run says to what."""
    message = "max_tokens is too large: 1024. This model supports at most 512 completion tokens."
    server.behave(lambda body, n: error(400, message, "invalid_value", "max_tokens"))
    result = ask(backend)
    assert (result.kind, result.fatal) == ("setup", True)
    assert "lower max_tokens to 512" in result.message
    assert len(server.requests) == 1


def test_schema_falls_back_and_is_remembered(backend, server):
    """json_schema, then json_object; the next call starts where the first one ended."""
    server.behave(MODES["no_schema"])
    assert isinstance(ask(backend), Completion)
    assert isinstance(ask(backend), Completion)
    kinds = [received.json["response_format"]["type"] for received in server.requests]
    assert kinds == ["json_schema", "json_object", "json_object"]


def test_format_falls_back_to_none(backend, server):
    """A server that takes no response_format at all is asked without one."""
    server.behave(MODES["no_format"])
    assert isinstance(ask(backend), Completion)
    assert isinstance(ask(backend), Completion)
    assert ["response_format" in received.json for received in server.requests] == [True, True, False, False]


def test_schema_of_one_task_does_not_take_it_from_another(backend, server):
    """A refused schema says nothing about the schema of the next task."""

    def refuse(body, n):
        name = body["response_format"].get("json_schema", {}).get("name")
        message = "Invalid schema for response_format 'odd': In context=(), object schema missing properties."
        return error(400, message, param="response_format") if name == "odd" else None

    server.behave(refuse)
    ask(backend, task="odd")
    ask(backend, task="sentiment")
    kinds = [received.json["response_format"]["type"] for received in server.requests]
    assert kinds == ["json_schema", "json_object", "json_schema"]


def test_fixed_format_does_not_fall_back(connect, server):
    """Who asks for a schema explicitly is told that the server has none."""
    server.behave(MODES["no_schema"])
    result = ask(connect(structured="json_schema"))
    assert (result.kind, result.fatal) == ("setup", True)
    assert "auto" in result.message
    assert len(server.requests) == 1


@pytest.mark.parametrize(("structured", "expected"), [("json_object", {"type": "json_object"}), ("none", None)])
def test_fixed_format_is_sent(connect, server, structured, expected):
    """The setting chooses where to start."""
    ask(connect(structured=structured))
    assert server.requests[0].json.get("response_format") == expected


def test_threads_share_one_backend(connect, server):
    """64 calls at once on one instance: each in its own connection, each answered, though they all learn at once."""
    backend = connect()
    gate = threading.Barrier(64)

    def slow_reasoning(body, n):
        answer = MODES["reasoning"](body, n) or good(body, n)
        answer.delay = 0.2
        return answer

    def one(number):
        gate.wait()
        return ask(backend, text=f"r{number}", schema={})

    server.behave(slow_reasoning)
    start = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        results = list(pool.map(one, range(64)))
    assert [json.loads(result.text)["echo"] for result in results] == [f"r{number}" for number in range(64)]
    # 64 calls of at most three rounds of 0.2 s: one after the other they would take 13 s and more.
    assert time.monotonic() - start < 6
    assert len(server.requests) <= 3 * 64


# --- secrets


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 422, 429, 500])
@pytest.mark.parametrize(
    "shown", [KEY, f"Bearer {KEY}", f"{KEY[:8]}*********{KEY[-4:]}", f"***{KEY[-8:]}", "sk-other-99"]
)
def test_key_is_in_no_failure(backend, server, status, shown, caplog):
    """A server that echoes the key, whole or shortened, does not get it into a message, a repr or the log."""
    caplog.set_level(logging.DEBUG)
    server.behave(lambda body, n: error(status, f"Key {shown}, is wrong", "x", shown))
    result = ask(backend)
    assert isinstance(result, BackendFailure)
    for text in (repr(result), repr(backend), caplog.text):
        for secret in (KEY, KEY[:8], KEY[-8:], "sk-other-99"):
            assert secret not in text


def test_key_in_an_html_page_is_hidden_and_an_answer_is_data(backend, server):
    """The key is hidden in plain error pages and where the server names its model; an answer stays as it came."""
    server.behave(lambda body, n: Answer(500, f"<pre>Authorization: Bearer {KEY}</pre>"))
    assert KEY not in ask(backend).message
    server.behave(lambda body, n: Answer(200, completion(f"your key is {KEY}", body) | {"model": KEY}))
    answer = ask(backend)
    assert answer.text == f"your key is {KEY}" and KEY not in answer.model_id


@pytest.mark.parametrize("key", ["test", "x", "1", "key", "positive", "my-dummy-key", "EMPTY"])
def test_dummy_key_alters_no_answer_and_no_refusal(connect, server, key):
    """Servers of one's own want any key: what it is made of may stand in every answer and in every sentence."""
    text = f'{{"t": "I bought it as a {key} for 1 test, positive x"}}'
    server.behave(lambda body, n: Answer(200, completion(text, body)))
    backend = connect(api_key=key)
    assert ask(backend).text == text
    server.behave(lambda body, n: error(400, "This model's maximum context length is 4096 tokens."))
    assert "maximum context length is 4096 tokens" in ask(backend).message
    assert backend.context == 4096


def test_key_in_the_wrong_field_is_hidden(connect, server):
    """A key pasted into the field of the model id is not shown back."""
    server.behave(MODES["no_model"])
    assert KEY not in repr(ask(connect(model_id=KEY)))


def test_key_goes_to_the_server_and_only_there(backend, server):
    """The key is sent as a bearer token; a redirect is not followed with it."""
    with FakeOpenAI() as other:
        server.behave(lambda body, n: Answer(307, "", {"Location": other.base_url + "/chat/completions"}))
        assert ask(backend).kind == "setup"
        assert other.requests == []
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


# --- settings


def test_environment_beats_the_settings_of_the_instance(monkeypatch):
    """OPENAI_API_KEY and OPENAI_BASE_URL win, each on its own; empty counts as not set."""
    instance = {"openai_api_key": "sk-instance", "openai_base_url": "http://127.0.0.1:1/v1/"}
    assert openai_settings(instance) == ("sk-instance", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    assert openai_settings(instance) == ("sk-env", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.org/v1")
    assert openai_settings(instance) == ("sk-instance", "https://example.org/v1")
    assert "sk-instance" not in repr(openai_settings(instance))


def test_is_configured_with_either():
    """A key or an address is enough; without both there is no backend."""
    assert not is_configured({})
    assert not is_configured({"openai_api_key": "", "openai_base_url": None})
    assert is_configured({"openai_api_key": "sk-x"})
    assert is_configured({"openai_base_url": "http://127.0.0.1:8000/v1"})


def test_sdk_does_not_read_its_own_environment(connect, server, monkeypatch):
    """What the instance was given holds, even if the environment says otherwise by then."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    ask(connect())
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_local_server_needs_no_key(connect, server):
    """With an address alone, a key is made up."""
    assert isinstance(ask(connect(api_key=None)), Completion)
    assert server.requests[0].headers["authorization"] == "Bearer no-key"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/v1",
        "file:///etc/passwd",
        "127.0.0.1:8000",
        "http://",
        "http://u:hidden@x/v1",
        "http://x/?hidden=1",
        "https://x.openai.azure.com/?api-version=2024-10-21&hidden=1",
        "https://x.openai.azure.com/?api-version=",
        "http://x:99999/v1",
        "http://x/a b",
    ],
)
def test_bad_address_is_a_setting_error(url):
    """Only http and https addresses, without a password; the message does not repeat it."""
    with pytest.raises(SettingError, match="openai_base_url") as caught:
        OpenAIBackend(url, KEY, "m")
    assert "hidden" not in str(caught.value)
    with pytest.raises(SettingError):
        openai_settings({"openai_base_url": url})


@pytest.mark.parametrize(
    "options", [{"structured": "xml"}, {"timeout": 0}, {"timeout": float("nan")}, {"model_id": " "}]
)
def test_bad_settings_are_refused(options):
    """A setting that cannot work fails where it is set, not at the first call."""
    with pytest.raises(SettingError):
        OpenAIBackend(**{"base_url": None, "api_key": KEY, "model_id": "m", **options})


@pytest.mark.parametrize("key", ["sk-a b", "sk-a\nb", "sk-키"])
def test_broken_key_is_refused_without_showing_it(key):
    """A key with a space or a line end inside cannot be sent; the message does not contain it."""
    with pytest.raises(SettingError) as caught:
        OpenAIBackend(None, key, "m")
    assert key not in str(caught.value)


def test_check_says_whether_it_works(connect, server):
    """The test button makes one tiny call and gets a short answer either way."""
    good = connect().check()
    assert (good["ok"], good["model"]) == (True, "gpt-4o-mini")
    assert good["ms"] >= 0
    server.behave(MODES["unauthorized"])
    bad = connect().check()
    assert bad["ok"] is False
    assert "key" in bad["message"]
    assert len(server.requests) == 2


def test_module_is_imported_without_the_sdk():
    """openai and httpx2 are loaded at the first call, not at the start of a command."""
    code = "import sys, labeler.backends.openai; print({'openai', 'httpx2', 'pydantic'} & set(sys.modules))"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- the fake server, where other tests rely on it


def test_fake_server_votes_by_the_examples(backend, server):
    """In vote mode the answer is what most example turns say, in their shape."""
    server.behave(MODES["vote"])
    labels = ["negative", "positive", "negative", "neutral"]
    turns = [
        turn
        for label in labels
        for turn in ({"role": "user", "content": "…"}, {"role": "assistant", "content": json.dumps({"label": label})})
    ]
    assert json.loads(ask(backend, turns=turns).text) == {"label": "negative"}
    assert json.loads(ask(backend, turns=turns[:4]).text) == {"label": "positive"}  # a tie goes to the later
    assert json.loads(ask(backend).text) == {"label": "positive"}  # no examples: the first of the schema


def test_fake_server_as_a_process_logs_each_request(connect, tmp_path):
    """As a process it prints its port, writes one line a request before it answers, and ends with its parent."""
    log = tmp_path / "requests.jsonl"
    command = [sys.executable, "-m", "tests.fake_openai", "--mode", "rate_limit", "--every", "2", "--with-parent"]
    root = Path(__file__).parent.parent
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--log", str(log)], cwd=root, **pipes) as process:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        backend = connect(url)
        first, second = backend.complete([request("a"), request("b")])
        with urllib.request.urlopen(url + "/models") as models:
            assert json.load(models)["object"] == "list"
        process.stdin.close()
        process.wait(5)
    assert isinstance(first, Completion)
    assert second.kind == "rate_limit"
    assert [json.loads(line)["user"] for line in log.read_text().splitlines()] == ["a", "b"]
