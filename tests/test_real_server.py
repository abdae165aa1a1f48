"""A server that others wrote: llama.cpp with a tiny model. What the fake server only plays is true here.

The answers of so small a model are not judged, only that they are read, scored and counted, and that nothing is lost.
"""

from __future__ import annotations

import threading

import pytest
from helpers import numbered, open_instance, until
from llama_server import llama_server

from labeler.backends.openai.wire import NotConnected, NotReached, Wire
from labeler.prelabel import runs
from labeler.sentence import recalled
from labeler.store import NewRecord
from labeler.store.audit import audit
from labeler.worker import Worker

LABELS = {"positive", "neutral", "negative"}


@pytest.fixture(scope="module")
def server():
    with llama_server() as server:
        yield server


class Desk:
    """An instance whose backend is the server, and runs on it."""

    def __init__(self, folder, server, count=3):
        # Patient: two cores may be busy with other things.
        settings = {"openai_model": "smollm2", "timeout_seconds": 300.0, "openai_api_key": "x"}
        self.instance = open_instance(folder / "instance", server.base_url, numbered(count), **settings)
        self.store, self.ledger = self.instance.store, self.instance.store.ledger
        self.project = self.store.projects.all()[0]
        self.ids = list(runs.select(self.store, self.project["id"], "sentiment", None, True))

    def start(self, ids=None, task="sentiment", **settings):
        settings = {"backend": "openai", "k": 0} | settings
        return runs.start(self.store, self.project["id"], task, ids or self.ids, settings)

    def run(self, ids=None, task="sentiment", **settings):
        run_id = self.start(ids, task, **settings)
        assert Worker(self.instance).see_through(run_id) == "finished"
        assert audit(self.store) == []
        return self.ledger.run(run_id)

    def newest(self, record_id, task="sentiment"):
        return max(self.store.suggestions.of_record(record_id, task), key=lambda suggestion: suggestion.id)


@pytest.fixture
def desk(tmp_path, server):
    made = Desk(tmp_path, server)
    yield made
    made.instance.close()


def test_what_the_server_can_is_found_out(desk):
    """One call and its lists tell: a schema, log probabilities, how much it reads, and one slot."""
    backend = desk.instance.suggester(
        desk.project, desk.instance.project_task(desk.project, "sentiment"), {"backend": "openai"}
    ).backend
    found = backend.check()
    assert found["ok"]
    known = found["capabilities"]
    assert (known["json_schema"], known["logprobs"], known["usage"]) == (True, True, True)
    assert (known["context"], known["slots"]) == (4096, 1)


def test_sentiment_is_scored_and_generated(desk):
    """Each answer is a label; with log probabilities each label has a score, and what was counted is the server's."""
    run = desk.run(desk.ids[:2])
    assert (run["done"], run["parse_failures"], run["calls"], run["repeats"]) == (2, 0, 2, 0)
    assert run["tokens_in"] > 100 and run["estimated"] == 0
    for id_ in desk.ids[:2]:
        suggestion = desk.newest(id_)
        assert suggestion.value in LABELS and suggestion.scores and 0 < suggestion.score <= 1
    assert desk.run(desk.ids[:1], answering="generated")["parse_failures"] == 0
    assert desk.newest(desk.ids[0]).value in LABELS and desk.newest(desk.ids[0]).scores is None


def test_keywords_are_read_or_shown_to_a_person(desk):
    """A list that stands in the text is a value; what does not is shown as it came, and never mended."""
    project_id = desk.instance.create_project("words", "en", {"tasks": ["keywords"]})
    news = [NewRecord("r1", "The apples were fresh and sweet")]
    (stored,) = desk.store.write(lambda tx: desk.store.records.add(tx, project_id, news, ["keywords"]))
    run_id = runs.start(
        desk.store, project_id, "keywords", [stored.id], {"backend": "openai", "k": 0, "max_tokens": 64}
    )
    assert Worker(desk.instance).see_through(run_id) == "finished"
    suggestion = desk.newest(stored.id, "keywords")
    if suggestion.failure is None:
        assert all(part["text"] in "The apples were fresh and sweet" for part in suggestion.value)
    else:
        assert suggestion.failure.raw


def test_estimates_of_korean_are_the_server_s_after_the_first_answers(desk):
    """SmolLM2 spells Hangul in bytes: what no table of scripts knows is learned from what it counts."""
    desk.run(desk.ids[:3])
    task = desk.instance.project_task(desk.project, "sentiment")
    suggester = desk.instance.suggester(desk.project, task, {"backend": "openai", "k": 0})
    rows = desk.store.db.all("SELECT record_id, tokens_in FROM calls WHERE state = 'answered'")
    for row in rows:
        (prepared,) = suggester.prepare([desk.store.records.get(row["record_id"])])
        asks = suggester.flow(prepared).step()
        assert suggester.tokens.prompt(asks[0].messages) == pytest.approx(row["tokens_in"], rel=0.15)


def count_broken(monkeypatch):
    """Note each request whose connection broke: one that may have been answered, and was not refused."""
    broken, post = [], Wire.post

    def noted(self, path, data):
        try:
            return post(self, path, data)
        except NotReached:
            raise
        except NotConnected:
            broken.append(path)
            raise

    monkeypatch.setattr(Wire, "post", noted)
    return broken


def test_run_outlives_a_kill_of_its_server(tmp_path, monkeypatch):
    """The server is killed in the middle of a run and comes back: every record has its label, and none fails."""
    broken = count_broken(monkeypatch)
    with llama_server() as server:
        desk = Desk(tmp_path, server, 5)
        run_id = desk.start(concurrency=1)
        worker = Worker(desk.instance)
        moving = threading.Thread(target=worker.see_through, args=(run_id,))
        moving.start()
        until(lambda: desk.ledger.run(run_id)["done"] >= 1, 300)
        server.kill()
        until(lambda: desk.ledger.run(run_id)["state"] == "paused", 60)
        assert "continues by itself" in recalled(desk.ledger.run(run_id)["message"])
        server.start()
        moving.join(300)
        run = desk.ledger.run(run_id)
        assert (run["state"], run["done"], run["failed"]) == ("finished", 5, 0)
        # What was on its way when the server died may have been answered: that alone is repeated. It is one call, or
        # two: a process that dies takes connections for some moments after it has closed the first.
        assert len(broken) <= 2
        assert (run["repeats"], run["calls"]) == (len(broken), 5 + len(broken))
        desk.instance.close()


def test_context_of_a_thousand_tokens_is_kept_to(tmp_path):
    """A long review is cut to what the server reads, as its first refusal says, and the answer has its room."""
    with llama_server(1024) as server:
        desk = Desk(tmp_path, server, 1)
        long = "The apples were fresh and sweet, and they came in time. " * 120
        news = [NewRecord("long", long)]
        (stored,) = desk.store.write(lambda tx: desk.store.records.add(tx, desk.project["id"], news, ["sentiment"]))
        run = desk.run([stored.id])
        assert (run["done"], run["failed"], run["parse_failures"]) == (1, 0, 0)
        suggestion = desk.newest(stored.id)
        assert suggestion.value in LABELS and "cut" in suggestion.flags
        assert 500 < run["tokens_in"] < 1024
        desk.instance.close()
