"""Files and batches, reading answers that came in a file, and the ways to a server: Azure, a proxy, compression."""

from __future__ import annotations

import gzip
import json

import openai_calls
import pytest
from fake_openai import MODES, Answer, BatchPlan, completion, error
from openai_calls import KEY, ask, request

from labeler.backends.batches import CallFailed
from labeler.backends.openai import OpenAIBackend
from labeler.errors import SettingError
from labeler.records import BackendFailure, Completion, Generation

clean_environment, server, backend = openai_calls.clean_environment, openai_calls.server, openai_calls.backend


def calls(backend, count=3):
    body = backend.body(request())
    lines = [
        {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(count)
    ]
    return "\n".join(json.dumps(line) for line in lines).encode()


def lines_of(backend, file_id):
    return {line["custom_id"]: line for line in map(json.loads, backend.batches.file(file_id).splitlines())}


def test_batch_goes_from_file_to_answers(backend, server):
    """Upload, create, look, fetch: each answer is read as that of a single call, with its scores."""
    file_id = backend.batches.upload(calls(backend))
    made = backend.batches.create_batch(file_id, {"run": "7"})
    assert made["metadata"] == {"run": "7"}
    batch = backend.batches.batch(made["id"])
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 3)
    answers = lines_of(backend, batch["output_file_id"])
    assert set(answers) == {"c0", "c1", "c2"}
    response = answers["c1"]["response"]
    result = backend.read(response["body"], request(), response["status_code"])
    assert (result.text, result.score) == ('{"t": "positive"}', pytest.approx(0.7))
    assert result.tokens_in


def test_file_arrives_byte_for_byte(backend, server):
    """What is uploaded is what is stored, and what is fetched."""
    data = ('{"한글": "\u2028 \\r"}\r\n--boundary\n' * 3).encode()
    assert backend.batches.file(backend.batches.upload(data)) == data


def test_batch_that_takes_time_can_be_found_and_cancelled(backend, server):
    """Until it ends it is in progress; a cancelled one keeps what was answered."""
    server.batch_plan = BatchPlan(delay=3600, done=1)
    id_ = backend.batches.create_batch(backend.batches.upload(calls(backend)))["id"]
    assert backend.batches.batch(id_)["status"] == "in_progress"
    assert [batch["id"] for batch in backend.batches.batches()] == [id_]
    backend.batches.cancel_batch(id_)
    batch = backend.batches.batch(id_)
    assert batch["status"] == "cancelled"
    assert set(lines_of(backend, batch["output_file_id"])) == {"c0"}
    assert set(lines_of(backend, batch["error_file_id"])) == {"c1", "c2"}


def test_expired_batch_and_failed_lines_have_an_error_file(backend, server):
    """Half done: answers in one file, errors in the other."""
    server.batch_plan = BatchPlan(fail_every=2, status="expired", done=2)
    id_ = backend.batches.create_batch(backend.batches.upload(calls(backend)))["id"]
    batch = backend.batches.batch(id_)
    assert batch["status"] == "expired"
    assert set(lines_of(backend, batch["output_file_id"])) == {"c0"}
    errors = lines_of(backend, batch["error_file_id"])
    assert errors["c2"]["error"]["code"] == "batch_expired"
    response = errors["c1"]["response"]
    failure = backend.read(response["body"], request(), response["status_code"])
    assert (failure.kind, failure.retryable) == ("server", True)


def test_file_that_is_no_list_of_calls_fails_the_batch(backend, server):
    """The server says which line is wrong."""
    id_ = backend.batches.create_batch(backend.batches.upload(b'{"custom_id": "a"}'))["id"]
    batch = backend.batches.batch(id_)
    assert (batch["status"], batch["errors"]["data"][0]["line"]) == ("failed", 1)


def test_file_that_is_too_long_is_not_read(backend, server):
    """A bound holds for files, too."""
    file_id = backend.batches.upload(b"x" * 5000)
    with pytest.raises(CallFailed, match="longer"):
        backend.batches.file(file_id, limit=4999)


@pytest.mark.parametrize("id_", ["../v1/models", "a/b", "a?b", "", "키"])
def test_odd_id_never_becomes_a_path(backend, server, id_):
    """An id from a damaged row asks for nothing else."""
    with pytest.raises(CallFailed):
        backend.batches.file(id_)


def test_missing_batch_and_missing_server_are_told(backend, server):
    """404 is no missing model here, and a refused connection may be tried again."""
    with pytest.raises(CallFailed, match="does not have") as caught:
        backend.batches.batch("batch_9")
    assert caught.value.failure.fatal
    gone = OpenAIBackend("http://127.0.0.1:1/v1", KEY, "m")
    with pytest.raises(CallFailed) as caught:
        gone.batches.batch("batch_1")
    gone.close()
    assert (caught.value.failure.kind, caught.value.failure.retryable) == ("away", True)


def test_key_does_not_come_back_in_what_a_batch_says(backend, server):
    """What a server says of a batch is shown to people; the answers in its files are data, and stay as they came."""
    server.batches["batch_1"] = {"id": "batch_1", "status": "failed", "errors": {"data": [{"message": f"Key {KEY}?"}]}}
    server._plans["batch_1"] = BatchPlan()
    assert backend.batches.batch("batch_1")["errors"]["data"][0]["message"] == "Key [key]?"
    server.files["file-1"] = f"your key is {KEY}".encode()
    assert backend.batches.file("file-1") == f"your key is {KEY}".encode()


# --- bodies and answers without a wire


def test_body_has_the_form_that_the_server_takes(backend, server):
    """What a single call has taught holds for the body of a batch."""
    server.behave(MODES["reasoning"])
    assert "max_tokens" in backend.body(request())
    result = ask(backend)
    assert isinstance(result, Completion)
    body = backend.body(request())
    assert body == server.requests[-1].json
    assert "max_tokens" not in body


def test_body_is_refused_where_the_call_would_be(backend, server):
    """A setting that a person chose and the model refuses: no batch is made of it."""
    server.behave(MODES["no_seed"])
    chosen = request(generation=Generation(seed=1, explicit=frozenset({"seed"})))
    list(backend.complete([chosen]))
    with pytest.raises(SettingError, match="refuses the setting seed"):
        backend.body(chosen)


def test_refusal_in_a_file_is_learned_and_worth_another_try(backend):
    """Every line of a batch may be refused for one parameter: the next batch goes without it."""
    refusal = error(400, "Unrecognized request argument supplied: temperature").body
    for _ in range(2):
        failure = backend.read(refusal, request(), 400)
        assert (failure.kind, failure.retryable) == ("request", True)
    assert "temperature" not in backend.body(request())


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (error(429, "slow").body, 429, "rate_limit"),
        (error(400, "too long", "context_length_exceeded").body, 400, "too_long"),
        ({"error": {"message": "busy", "code": 503}}, 200, "server"),
        ({}, 200, "server"),
        (None, 500, "server"),
    ],
)
def test_errors_in_a_file_are_failures(backend, body, status, kind):
    """As on the wire: a kind and a sentence."""
    failure = backend.read(body, request(), status)
    assert isinstance(failure, BackendFailure)
    assert failure.kind == kind


# --- the way to the server


def test_azure_address_and_key(server, monkeypatch):
    """The version stays in the query, the key goes into api-key; a proxy of the environment is used."""
    monkeypatch.setenv("HTTP_PROXY", server.base_url.removesuffix("/v1"))
    url = "http://shop.openai.azure.com/openai/deployments/X?api-version=2024-10-21"
    backend = OpenAIBackend(url, KEY, "X")
    result = ask(backend)
    backend.close()
    assert isinstance(result, Completion)
    received = server.requests[0]
    assert received.path == (
        "http://shop.openai.azure.com/openai/deployments/X/chat/completions?api-version=2024-10-21"
    )
    assert received.headers["api-key"] == KEY
    assert "authorization" not in received.headers
    assert received.headers["host"] == "shop.openai.azure.com"


def test_organisation_and_project_of_the_environment_are_sent(server, monkeypatch):
    """As the SDK reads them; what it says of the machine is not sent."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    backend = OpenAIBackend(server.base_url, KEY, "m")
    list(backend.complete([request()]))
    backend.close()
    headers = server.requests[0].headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")
    assert not [name for name in headers if "stainless" in name]


def test_compressed_answer_is_read_within_the_bound(backend, server):
    """A server may compress although it was asked not to; a bomb stays one line of a failure."""
    answer = json.dumps(completion('{"t":"positive"}', {})).encode()
    server.behave(lambda body, n: Answer(200, gzip.compress(answer), {"Content-Encoding": "gzip"}))
    result = ask(backend)
    assert result.text == '{"t":"positive"}'
    server.behave(lambda body, n: Answer(200, gzip.compress(b" " * 50_000_000), {"Content-Encoding": "gzip"}))
    result = ask(backend)
    assert (result.kind, "10 MB" in result.message) == ("request", True)
