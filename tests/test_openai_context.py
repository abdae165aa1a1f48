"""How many tokens a model of a server reads: from its list of models, from a refusal, and whose word counts most."""

from __future__ import annotations

import threading
from pathlib import Path

import openai_calls
import pytest
from fake_openai import error, reading
from helpers import numbered, open_instance
from test_cli import Shell
from test_web_pages import send

from labeler.backends.base import BackendRequest
from labeler.backends.openai import Capabilities, OpenAIBackend, context, probe
from labeler.backends.prices import find_model, known_context, load_prices
from labeler.errors import SettingError
from labeler.instance import Instance
from labeler.labels import Choice, Label
from labeler.prelabel import runs
from labeler.prelabel.calls import CallPolicy
from labeler.prelabel.executor import LocalExecutor
from labeler.prelabel.tokens import Size
from labeler.records import Record

VLLM = {"id": "m", "object": "model", "owned_by": "vllm", "root": "m", "max_model_len": 8192}
LLAMA_CPP = {"id": "/models/m.gguf", "owned_by": "llamacpp", "meta": {"n_vocab": 32000, "n_ctx_train": 131072}}
SLOT = {"default_generation_settings": {"n_ctx": 4096, "params": {}}, "total_slots": 4}


clean_environment, server = openai_calls.clean_environment, openai_calls.server


@pytest.fixture
def backend(server):
    backend = OpenAIBackend(server.base_url, "sk-test", "m")
    yield backend
    backend.close()


@pytest.fixture
def shell(tmp_path):
    Instance(tmp_path / "instance").close()
    return Shell(tmp_path)


def ask(backend):
    record = Record(id=1, project_id=1, key="r1", text="맛있어요")
    schema = Choice(Label("good"), Label("bad"))
    messages = [{"role": "user", "content": record.text}]
    (result,) = backend.complete([BackendRequest(record, "t", schema, messages)])
    return result


# From the list of models


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        (VLLM, 8192),
        ({"id": "m", "context_window": 131072, "max_completion_tokens": 32768}, 131072),  # Groq
        ({"id": "m", "context_length": 65536, "top_provider": {"context_length": 32768}}, 32768),  # OpenRouter
        ({"id": "m", "max_context_length": 32768}, 32768),  # Mistral
        ({"id": "m", "owned_by": "llamacpp", "meta": {"n_ctx": 4096, "n_ctx_train": 131072}}, 4096),
        ({"id": "m", "object": "model", "owned_by": "library"}, None),  # Ollama, OpenAI
        ({"id": "m", "max_model_len": "8192"}, None),
        ({"id": "m", "max_model_len": 0}, None),
        ({"id": "m", "meta": {"n_ctx_train": 131072}}, None),
        ({"id": "m", "meta": 5, "top_provider": []}, None),
    ],
)
def test_context_is_read_from_the_list_of_models(backend, server, model, tokens):
    """Each server has its own name for it; what the model was trained with is not what the server reads."""
    server.models = [{"id": "other", "max_model_len": 99}, model]
    assert probe(backend).context == tokens
    assert backend.context == tokens
    assert len(server.requests) == 1


def test_only_model_of_a_server_counts_under_any_name(backend, server):
    """A server of one model answers to any name; of several models none is guessed."""
    server.models = [{**VLLM, "id": "another name"}]
    assert probe(backend).context == 8192
    server.models = [{**VLLM, "id": "another name"}, {**VLLM, "id": "a third"}]
    assert probe(backend).context is None


def test_slot_of_llama_cpp_is_asked_for(backend, server):
    """Builds that list no context say it at /props, above the address; a server that does not say it has none."""
    server.models = [LLAMA_CPP]
    assert probe(backend).context is None
    server.props = SLOT
    assert probe(backend).context == 4096


@pytest.mark.parametrize("body", [None, [], {}, {"data": None}, {"data": [1, None]}, {"data": {"id": "m"}}, "x"])
def test_list_that_cannot_be_read_says_nothing(body):
    """A server without the list, or with one of another form, is as good a server."""
    assert context.listed(body, "m") is None
    assert not context.is_llama_cpp(body)
    assert context.of_props(body) == (None, None)


def test_recorded_context_is_read_back_and_a_strange_one_refused():
    """What the test found is stored with the rest of what the model takes."""
    assert Capabilities.from_json(Capabilities(context=8192).to_json()).context == 8192
    for wrong in (0, -1, True, "8192", 1.5):
        with pytest.raises(SettingError, match="test the connection again"):
            Capabilities.from_json({"context": wrong})


# Whose word counts


def test_own_file_counts_more_than_the_server_and_the_server_more_than_the_known_prices(tmp_path):
    """A person's prices.json, then what the server said, then the prices that come with Labeler."""
    path = tmp_path / "prices.json"
    path.write_text('{"gpt-4o": {"context": 500}, "gpt-4o-mini": {"input": 1}}')
    shipped, own = load_prices(), load_prices(path)
    assert known_context(find_model(shipped, "gpt-4o"), None) == 128_000
    assert known_context(find_model(shipped, "gpt-4o"), 8192) == 8192
    assert known_context(find_model(own, "gpt-4o"), 8192) == 500
    assert known_context(find_model(own, "gpt-4o-mini"), 8192) == 8192
    assert known_context(None, 8192) == 8192
    assert known_context(None, None) is None


def test_run_goes_by_what_the_test_of_the_backend_recorded(tmp_path, server):
    """Once tested, the context of the model at this address holds for every run, in every process."""
    instance = open_instance(tmp_path, server.base_url, numbered(1), openai_model="m")
    project, store = instance.store.projects.all()[0], instance.store
    task = instance.project_task(project, "sentiment")
    store.write(lambda tx: store.models.record(tx, "openai", server.base_url, "m", {"context": 8192}))
    assert instance.suggester(project, task).backend.context == 8192
    (tmp_path / "prices.json").write_text('{"m": {"context": 500}}')
    assert instance.suggester(project, task).backend.context == 500, "what the admin wrote comes first"
    instance.close()


# From refusals


@pytest.mark.parametrize(
    ("said", "more", "tokens"),
    [
        ("This model's maximum context length is 4096 tokens. However, you requested 4200 tokens", {}, 4096),
        ("the request exceeds the available context size", {"n_prompt_tokens": 5000, "n_ctx": 4096}, 4096),
        ("Please reduce the length of the messages or completion.", {}, None),
        ("The review says: 4096 tokens", {}, None),
    ],
)
def test_refusal_that_names_the_context_is_understood(backend, server, said, more, tokens):
    """Every server words it in its own way; one that names no number teaches nothing."""
    server.behave(lambda body, n: _refusal(said, more))
    failure = ask(backend)
    kind = "request" if said.startswith("The review") else "too_long"
    assert (failure.kind, failure.retryable, backend.context) == (kind, kind == "too_long", tokens)


def wordings():
    """As servers of all kinds word it: what the model reads, how long the prompt is, and the sentence."""
    lines = (Path(__file__).parent / "too_long.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(("reads", "asked", "said"), wordings())
def test_every_wording_of_too_long_is_understood(reads, asked, said):
    """What the model reads and how long the prompt is are found where they are named, never one for the other."""
    found = context.refused_for(said, {})
    if reads == "no":
        assert found is None, "it speaks of something else"
    else:
        assert tuple("-" if tokens is None else str(tokens) for tokens in found) == (reads, asked)


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_words_count_whatever_the_status(backend, server, status):
    """Gateways answer 500 to what their server refused with 400."""
    server.behave(
        lambda body, n: error(status, "request (1300 tokens) exceeds the available context size (1024 tokens)")
    )
    failure = ask(backend)
    assert (failure.kind, failure.tokens, backend.context) == ("too_long", 1300, 1024)


def _refusal(said, more):
    answer = error(400, said)
    answer.body["error"] |= more
    return answer


def test_run_learns_the_context_from_its_first_refusal(tmp_path, server):
    """Records that were too long are asked about once more, with a shorter text; none fails."""
    texts = [*numbered(6), *(f"{text} " * 100 for text in numbered(4))]
    instance = open_instance(tmp_path, server.base_url, texts, openai_model="tiny")
    store, project = instance.store, instance.store.projects.all()[0]
    server.behave(reading(1200, answer=60))
    ids = list(runs.select(store, project["id"], "sentiment", None, True))
    settings = {"backend": "openai", "k": 0, "max_tokens": 60}
    run_id = runs.start(store, project["id"], "sentiment", ids, settings)
    suggester = instance.suggester(project, instance.project_task(project, "sentiment"), settings)
    policy = CallPolicy(concurrency=4, base_delay=0.01)
    state = LocalExecutor(store, run_id, suggester, policy, None, threading.Event()).run()
    run = store.ledger.run(run_id)
    assert (state, run["done"], run["failed"]) == ("finished", 10, 0)
    assert suggester.backend.context == 1200
    made = [store.suggestions.of_record(id_, "sentiment")[-1].flags for id_ in ids]
    assert made == [()] * 6 + [("cut",)] * 4
    # Once for each record, and once more for those that were on their way when the first was refused.
    assert 11 <= len(server.requests) <= 14
    instance.close()


def test_record_that_is_denser_than_others_is_refused_once(tmp_path, server):
    """A hundred answers taught another count: its second prompt is shorter all the same, and later runs begin there."""
    instance = open_instance(tmp_path, server.base_url, [f"{text} " * 100 for text in numbered(3)], openai_model="tiny")
    store, project = instance.store, instance.store.projects.all()[0]
    server.behave(reading(1400, answer=60))
    ids = list(runs.select(store, project["id"], "sentiment", None, True))
    task = instance.project_task(project, "sentiment")
    for temperature, asked in ((0.0, 6), (0.5, 3)):
        settings = {"backend": "openai", "k": 0, "max_tokens": 60, "temperature": temperature}
        suggester = instance.suggester(project, task, settings)
        for _ in range(100):
            store.write(lambda tx, tokens=suggester.tokens: tokens.learn(tx, Size(300.0, 20.0), 100))
        run_id = runs.start(store, project["id"], "sentiment", ids, settings)
        before = len(server.requests)
        assert (
            LocalExecutor(store, run_id, suggester, CallPolicy(base_delay=0.01), None, threading.Event()).run()
            == "finished"
        )
        assert (store.ledger.run(run_id)["done"], len(server.requests) - before) == (3, asked)
    instance.close()


# What people see


def test_command_keeps_and_shows_what_the_server_said(shell, server):
    """The test of a backend says the context at once, and the list of models has it from then on."""
    server.models = [VLLM]
    shell.ok("settings", f"openai_base_url={server.base_url}", "openai_model=m")
    said = shell.ok("backends", "--test", "openai")
    assert "context 8192" in said
    assert "Known: context 8,192 tokens; price unknown" in said
    assert "context 8192" in shell.ok("models")


def test_settings_page_shows_what_the_server_said(client, instance, server):
    """The table of models has the context of a model that no price list knows."""
    server.models = [VLLM]
    instance.change_settings({"openai_base_url": server.base_url, "openai_model": "m"})
    send(client, "/settings/test", backend="openai")
    assert '<td class="num">8,192</td>' in client.get("/settings").get_data(as_text=True)
