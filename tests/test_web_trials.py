"""The test of a local model: in a thread, one at a time, while the page asks how it stands."""

from __future__ import annotations

import re
import threading

import pytest
from conftest import enter
from helpers import until
from test_web_pages import Page, send

from labeler import accounts
from labeler.app import create_app
from labeler.errors import Conflict, SettingError
from labeler.instance import Instance
from labeler.sentence import Sentence
from labeler.web.trials import Trials

ANSWERED = {"ok": True, "model": "tiny", "ms": 5, "message": "tiny answered in 5 ms.", "capabilities": {"scored": True}}


@pytest.fixture
def gate():
    """Opened at the end, so that no thread waits for ever."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def trials(app):
    return app.extensions.setdefault("labeler_trials", Trials())


def slow(gate, result=ANSWERED):
    """The work of a model that is loading until the gate opens."""

    def work():
        gate.wait(30)
        return result

    return work


def polled(client, said):
    """Ask as the page does, until the answer no longer asks for more; return it."""

    def ended():
        here = re.search(r'hx-get="([^"]+)"', said)
        answer = client.get(here[1]).text
        return answer if "hx-get" not in answer else None

    return until(ended)


def test_test_goes_on_beside_whoever_started_it(trials, gate):
    """It is there at once, without a result; later it has what the model answered."""
    trial = trials.start("tiny", slow(gate))
    assert (trial.found, trials.going_on(), trials.get(trial.number)) == (None, trial, trial)
    gate.set()
    assert trial.ended.wait(30)
    assert (trial.found, trials.going_on()) == (ANSWERED, None)


def test_one_model_at_a_time(trials, gate):
    """A second click joins the test that goes on; another model has to wait until it has ended."""
    first = trials.start("tiny", slow(gate))
    assert trials.start("tiny", slow(gate)) is first
    with pytest.raises(Conflict, match="tiny is being tested; wait until that has ended"):
        trials.start("other", slow(gate))
    gate.set()
    assert first.ended.wait(30)
    second = trials.start("other", slow(gate))
    assert second.number == first.number + 1
    assert trials.get(first.number) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SettingError("There is no model folder /x"), "There is no model folder /x"),
        (RuntimeError("secret"), "Something went wrong inside Labeler; the log says what"),
    ],
)
def test_test_that_fails_says_why(trials, error, said):
    """An error of ours is its sentence; any other stands in the log alone."""

    def work():
        raise error

    trial = trials.start("tiny", work)
    assert trial.ended.wait(30)
    assert trial.found == {"ok": False, "message": said}


def test_page_asks_until_the_model_has_answered(client, trials, gate):
    """The page that is opened meanwhile goes on asking; the answer is the last thing it asks for."""
    trials.start("tiny", slow(gate))
    page = client.get("/settings").text
    assert "tiny 모델을 불러와" in page
    gate.set()
    assert "tiny 모델이 5ms 만에 답변했어요" in Page(polled(client, page)).said
    assert "tiny 모델을 불러와" not in client.get("/settings").text


def test_page_says_what_makes_a_model_slow(client, instance, trials, gate):
    """Beside the answer stand the notes of the test, in the language of the page."""
    instance.change_settings({"transformers_model": "tiny"})
    why = Sentence("in a trial the quicker way changed the answer")
    note = Sentence("Labels are scored one by one, which is slower: %(why)s.", why=why)
    trials.start("tiny", slow(gate, ANSWERED | {"notes": [note]}))
    page = client.get("/settings").text
    gate.set()
    assert "빠른 방식에서 답변이 달라졌어요" in Page(polled(client, page)).said


PLUGIN = """
from labeler import Backend, BackendFactory, hookimpl

class Quiet(Backend):
    name, model_id, billed, base_url = "quiet", "quiet-1", True, "http://quiet"

    def __init__(self, settings):
        self.capabilities = settings.get("capabilities")

    def complete(self, requests):
        raise NotImplementedError

    def check(self):
        return {"ok": True, "model": "quiet-1", "ms": 3, "message": "quiet-1 answered in 3 ms.",
            "capabilities": {"seed": True}}

class Factory(BackendFactory):
    name = "quiet"
    shared = True

    def address(self, settings):
        return "http://quiet"

    def create(self, settings):
        return Quiet(settings)

@hookimpl
def register_backends():
    return [Factory()]
"""


def test_the_backend_of_a_plugin_is_tested_from_the_page(tmp_path):
    """It has a button where the backends are listed; what its own check says stands below, and runs go by it."""
    (tmp_path / "own" / "plugins").mkdir(parents=True)
    (tmp_path / "own" / "plugins" / "quiet.py").write_text(PLUGIN)
    with Instance(tmp_path / "own") as own:
        app = create_app(own, {"TESTING": True})
        client = app.test_client()
        enter(client, app, accounts.add_reviewer(own.store, "lead", "a few plain words", accounts.ADMIN))
        assert "quiet 테스트" in Page(client.get("/settings").text).said
        said = Page(polled(client, send(client, "/settings/test", backend="quiet").text)).said
        assert "quiet-1 모델이 3ms 만에 답변했어요" in said
        project = own.store.projects.get(own.create_project("shop"))
        made = own.backend(project, own.project_task(project, "sentiment"), "quiet", {"model_id": "quiet-1"})
        assert made.capabilities == {"seed": True}


def test_local_model_that_is_not_there_is_said_by_the_page_that_asks(client, instance):
    """The button answers at once, and what is wrong with the model comes with the next questions."""
    pytest.importorskip("transformers")
    instance.change_settings({"transformers_model": "/nowhere/model"})
    started = send(client, "/settings/test", backend="transformers").text
    assert "/nowhere/model" in started
    said = Page(polled(client, started)).said
    assert "모델 폴더가 없어요: /nowhere/model" in said
    assert instance.store.models.all() == []


def test_another_model_is_refused_while_one_loads(client, instance, trials, gate):
    """The page says which one is being tested."""
    instance.change_settings({"transformers_model": "other/model"})
    trials.start("tiny", slow(gate))
    assert "tiny" in Page(send(client, "/settings/test", backend="transformers").text).said


@pytest.mark.parametrize("number", ["7", "", "x", "-1"])
def test_test_of_an_earlier_process_is_gone(client, number):
    """A page that was left open asks for a number that nobody knows; it is told to start again, and stops asking."""
    answer = client.get(f"/settings/test?number={number}").text
    assert "다시 시작" in Page(answer).said
    assert "hx-get" not in answer
