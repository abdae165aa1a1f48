"""What the tests of the backend ``openai`` share: fixtures, and a call that can have scores.

A module takes a fixture by its name: ``server = openai_calls.server``.
"""

from __future__ import annotations

import pytest
from fake_openai import FakeOpenAI

from labeler.backends.base import BackendRequest
from labeler.backends.openai import OpenAIBackend
from labeler.labels import Choice, Label
from labeler.records import Generation, Record

KEY = "sk-planted-0123456789abcdefXYZ"
FEELINGS = ("positive", "neutral", "negative")
_PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No key, server or proxy of the person who runs the tests."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", *_PROXIES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
def backend(server):
    """The backend of that server, for a model that nothing is known of."""
    backend = OpenAIBackend(server.base_url, KEY, "m")
    yield backend
    backend.close()


def request(schema=None, answering="auto", generation=None):
    """Return what asks for the label of one review under the name "t"; by default one of three feelings."""
    schema = schema or Choice(*[Label(name) for name in FEELINGS])
    properties = {"t": schema.json_schema()}
    messages = [{"role": "user", "content": "배송이 빨라요"}]
    record = Record(1, 1, "r1", "배송이 빨라요")
    json_schema = {"type": "object", "properties": properties, "required": ["t"]}
    return BackendRequest(record, "t", schema, messages, json_schema, generation or Generation(), answering=answering)


def ask(backend, *arguments, **options):
    """Send that request and return the answer, or the failure."""
    (result,) = backend.complete([request(*arguments, **options)])
    return result
