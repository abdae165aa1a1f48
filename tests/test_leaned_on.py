"""What Labeler leans on inside other packages though they do not promise it; and what it does where that is gone.

A test named ``test_..._leans_on_...`` fails when a package has changed, and its sentence says which module to mend.
"""

from __future__ import annotations

import importlib.metadata
import logging
import socket
import sys
import threading
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_openai import FakeOpenAI
from openai_calls import ask

import labeler.backends.local
from labeler.backends.openai import OpenAIBackend
from labeler.errors import BackendError
from labeler.records import BackendFailure, Completion, Generation
from labeler.waitress_loop import Ended, HttpServer

torch = pytest.importorskip("torch", reason="torch is not installed (labeler-rag[local])")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (labeler-rag[local])")

from test_backend_local import chatml_tokenizer, save_tiny  # noqa: E402
from tiny_models import small  # noqa: E402

from labeler.backends.local import attention  # noqa: E402
from labeler.backends.local.backend import TransformersBackend  # noqa: E402
from labeler.backends.local.chat import Chat, added_tokens  # noqa: E402
from labeler.backends.local.generating import generate  # noqa: E402
from labeler.backends.local.grammar import can_constrain  # noqa: E402
from labeler.backends.local.loading import LoadOptions, load  # noqa: E402
from labeler.backends.local.prefix import PrefixCache  # noqa: E402
from labeler.backends.local.scoring import score  # noqa: E402
from labeler.backends.local.trials import HEADS, TREES, slower  # noqa: E402

PROMPTS = [[*range(40, 90), 91], [*range(40, 90), 92, 93]]
ANSWERS = [[70, 71, 80], [70, 72, 81], [70, 72, 82, 83]]
VERSION = importlib.metadata.version("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = save_tiny(tmp_path_factory.mktemp("tiny"), chatml_tokenizer())
    return made


def answers(loaded: Any) -> tuple[list[str], list[list[float]]]:
    """Return what a model writes, and how it scores, with a cache across two calls."""
    cache = PrefixCache()
    written = [
        answer.text for _ in range(2) for answer in generate(loaded, PROMPTS, Generation(max_tokens=6), None, 2, cache)
    ]
    scored = [found.log_likelihoods.tolist() for found in score(loaded, PROMPTS, [ANSWERS] * 2, 2, cache)]
    return written, scored


# transformers: labeler/backends/local/attention.py


def test_attention_leans_on_layers_that_are_filled_by_hand() -> None:
    """A forward goes on from a DynamicCache whose layers were given keys and values, and leaves its own there."""
    model = small("llama").model
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        whole = model(input_ids=ids, use_cache=False).logits[:, -1]
        first = attention.cache_of(())
        model(input_ids=ids[:, :3], use_cache=True, **attention.given(model, first))
        layers = attention.layers_of(first)
        assert [keys.shape for keys, _ in layers] == [(1, 2, 3, 8)] * 4, "attention.layers_of: keys are elsewhere"
        goes_on = model(input_ids=ids[:, 3:], **attention.given(model, attention.cache_of(layers))).logits[:, -1]
    assert torch.allclose(whole, goes_on, atol=1e-4), "attention.cache_of: a layer that is filled by hand is not read"


def test_attention_leans_on_the_name_by_which_a_forward_takes_a_cache() -> None:
    """It is ``cache`` since transformers 5.24 and was ``past_key_values``; a third name needs a line in ``given``."""
    [name] = attention.given(small("llama").model, None)
    assert name in ("cache", "past_key_values")


def test_attention_leans_on_the_attention_that_a_configuration_names() -> None:
    """Of ``sdpa`` a mask is a truth for each pair of tokens; of ``eager`` it is what is added to the scores."""
    import numpy as np

    seen, places = np.tri(3, dtype=bool), np.arange(3)
    assert attention.masks(small("llama").model, seen, places, 0).dtype == torch.bool
    assert attention.masks(small("llama", attention="eager").model, seen, places, 0).dtype == torch.float32


def gone_layer(loaded: Any, patch: pytest.MonkeyPatch) -> None:
    left = {name: value for name, value in vars(transformers.cache_utils).items() if name != "DynamicLayer"}
    module = ModuleType("transformers.cache_utils")
    vars(module).update(left)
    patch.setitem(sys.modules, "transformers.cache_utils", module)
    patch.delitem(sys.modules, attention.__name__)
    patch.delattr(labeler.backends.local, "attention")


def gone_keyword(loaded: Any, patch: pytest.MonkeyPatch) -> None:
    class Other(type(loaded.model)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    patch.setattr(loaded.model, "__class__", Other)


def other_fields(loaded: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attention, "layers_of", lambda cache: tuple((layer.k, layer.v) for layer in cache.layers))


def unread_cache(loaded: Any, patch: pytest.MonkeyPatch) -> None:
    # As a library that copies the layers when a cache is made: what is put into it later is not seen.
    patch.setattr(attention, "cache_of", lambda layers: transformers.DynamicCache())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (gone_layer, f"a trial with transformers {VERSION} failed (ImportError: cannot import name 'DynamicLayer'"),
        (gone_keyword, "this model does not allow it (its forward takes no cache)"),
        (other_fields, f"a trial with transformers {VERSION} failed (AttributeError: 'DynamicLayer' object has no"),
        (unread_cache, ""),
    ],
)
def test_a_model_without_its_cache_gives_the_same_answers_and_says_that_it_is_slower(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: Any, reason: str
) -> None:
    """Whatever is gone, a run goes on by plain forwards; the log says so once for each way, with reason and remedy."""
    expected = answers(load(LoadOptions(str(folder), device="cpu")))
    loaded = load(LoadOptions(str(folder), device="cpu"))
    change(loaded, monkeypatch)
    with caplog.at_level(logging.WARNING, "labeler"):
        written, scored = answers(loaded)
    assert written == expected[0]
    for a, b in zip(scored, expected[1], strict=True):
        assert a == pytest.approx(b, abs=1e-3)
    assert [HEADS.said(loaded.model), TREES.said(loaded.model)] == slower(loaded.model)
    assert [record.message.partition(": ")[2] for record in caplog.records] == slower(loaded.model)
    assert all(reason in said for said in slower(loaded.model))


def test_a_model_with_its_cache_says_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What works needs no words."""
    backend = TransformersBackend(LoadOptions(str(folder), device="cpu"))
    found = backend.check()
    assert (found["notes"], found["capabilities"]["cache"]) == ([], True)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_test_of_a_model_says_that_it_is_slower_and_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test goes well, since the model answers; beside it stands what is slow and which versions to install."""
    gone_layer(None, monkeypatch)
    found = TransformersBackend(LoadOptions(str(folder), device="cpu")).check()
    assert (found["ok"], found["capabilities"]["cache"]) == (True, False)
    assert [note.partition(",")[0] for note in found["notes"]] == [
        "Every prompt is read as a whole before its answer is written",
        "Labels are scored one by one",
    ]
    assert all("install the versions of constraints.txt" in note for note in found["notes"])


# Tokenizers: labeler/backends/local/chat.py


def test_chat_leans_on_the_tokens_that_a_tokenizer_says_were_added() -> None:
    """Each has its text and whether it is special: a review that spells one is told apart by that."""
    found = added_tokens(chatml_tokenizer())
    assert {str(token): token.special for token in found.values()} == {
        "<|im_start|>": True, "<|im_end|>": True, "<tool_call>": False
    }  # fmt: skip


def test_a_tokenizer_that_hides_its_control_tokens_is_refused() -> None:
    """Without them nobody could keep a review from speaking as somebody else, so the model is not used."""

    class Hiding:
        chat_template = "{{ messages }}"

    with pytest.raises(BackendError, match=f"transformers {VERSION} does not list the control tokens .* constraints"):
        Chat(Hiding())


# outlines-core: labeler/backends/local/grammar.py


def test_grammar_leans_on_automata_that_write_their_masks(folder: Path) -> None:
    """Index, Vocabulary, Guide and build_regex_from_schema make an automaton that can be followed."""
    assert can_constrain(load(LoadOptions(str(folder), device="cpu")))


def test_answers_are_free_where_automata_have_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An automaton is tried before it is used: an answer is never lost to one that no longer takes these calls."""
    outlines_core = pytest.importorskip("outlines_core", reason="outlines-core is not installed (labeler-rag[local])")

    class Guide:
        def __init__(self, index: Any) -> None:
            self.index = index

    monkeypatch.setattr(outlines_core, "Guide", Guide)
    loaded = load(LoadOptions(str(folder), device="cpu"))
    [answer] = generate(loaded, PROMPTS[:1], Generation(max_tokens=4), {"type": "boolean"}, 1)
    assert answer.made == ("unconstrained",)
    assert "Answers are not held to their JSON schema" in caplog.text


# The SDK of OpenAI: labeler/backends/openai/wire.py


def test_wire_leans_on_the_client_and_the_headers_of_the_sdk() -> None:
    """DefaultHttpxClient makes a client of httpx2, and the SDK shows the headers that it would send."""
    import httpx2
    import openai

    with openai.DefaultHttpxClient() as client:
        sdk = openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", http_client=client)
        assert isinstance(client, httpx2.Client)
        assert {**sdk.default_headers, **sdk.auth_headers}["Authorization"] == "Bearer k"


def test_an_sdk_that_has_changed_pauses_a_run_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, so nothing was paid; the sentence names the package, what is missing and what to install."""
    import openai

    monkeypatch.delattr(openai, "DefaultHttpxClient")
    with FakeOpenAI() as server:
        failure = ask(OpenAIBackend(server.base_url, "sk-test", "m"))
        assert isinstance(failure, BackendFailure)
        assert (failure.kind, failure.fatal, len(server.requests)) == ("setup", True, 0)
        assert "no attribute 'DefaultHttpxClient'" in failure.message
        assert failure.message.endswith("install the versions of constraints.txt")
        monkeypatch.undo()
        assert isinstance(ask(OpenAIBackend(server.base_url, "sk-test", "m")), Completion)


# waitress: labeler/waitress_loop.py


def hello(environ: Any, start: Any) -> list[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def served(caplog: pytest.LogCaptureFixture) -> tuple[bytes, str]:
    """Return what a server answers before it ends, and what its log says."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    server, ended = HttpServer(hello, bound, 2, 1000, lambda environ: 1000), Ended()
    thread = threading.Thread(target=server.serve_until, args=(ended,))
    thread.start()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{bound.getsockname()[1]}/", timeout=30) as answer:
            return bytes(answer.read()), caplog.text
    finally:
        ended.set()
        thread.join(30)
        assert not thread.is_alive()


def test_http_server_leans_on_a_loop_that_can_be_turned_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    """waitress.wasyncore.loop takes sockets and rounds, and the dispatcher of threads can be told to end."""
    assert served(caplog) == (b"hello", "")


def test_http_server_answers_where_the_loop_is_gone_and_says_what_is_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the gentle stop and long uploads are missing, and the log says so when the server starts."""
    import waitress.wasyncore

    loop = waitress.wasyncore.loop
    monkeypatch.setattr(waitress.wasyncore, "loop", lambda timeout, use_poll, map: loop(timeout, use_poll, map))
    body, said = served(caplog)
    assert body == b"hello"
    assert "no file above 1,000 bytes can be uploaded" in said
    assert "constraints.txt" in said
