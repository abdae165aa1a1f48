"""What models, their servers and their weights do wrong, through whole runs: FAULTS 21 to 31 for both kinds of backend.

Calls to a server go to a real one that misbehaves (tests/fake_openai.py), local weights are those of a real tiny model
(tests/local_models.py). What one room alone shows stands in its own tests; docs/faults.md lists where.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import threading
import time
import unicodedata
from dataclasses import replace

import pytest
from conftest import enter
from fake_openai import Answer, completion, error, good
from helpers import until
from local_models import smollm2_folder
from test_flows import case_of, example
from test_runs import Lab

from labeler import accounts
from labeler.app import create_app
from labeler.backends.base import GENERATED
from labeler.labels import Keywords
from labeler.prelabel import flows, runs
from labeler.prelabel.fitting import CUT, FEWER, MARK, boundary, fit_case, fit_joint, flags_of, room
from labeler.prompts.styles import STYLES
from labeler.records import Completion, Generation, ParseFailure
from labeler.store import NewRecord
from labeler.task import Task
from labeler.worker import Worker

WORDS = "The apples were sweet and the box was dry. "


@pytest.fixture(autouse=True)
def no_key_of_ours(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path / "instance")
    yield made
    made.close()


def add(lab, *texts, task="sentiment", similar=None):
    """Import reviews and return their ids."""
    start = lab.store.db.value("SELECT COUNT(*) FROM records")
    news = [NewRecord(f"x{start + n}", text) for n, text in enumerate(texts)]
    project_id = lab.project["id"]
    stored = lab.store.write(lambda tx: lab.store.records.add(tx, project_id, news, [task], similar=similar))
    return [one.id for one in stored]


def approve(lab, record_id, value, task="sentiment"):
    lab.project = lab.store.projects.get(lab.project["id"])
    decisions = lab.instance.decisions(lab.project, lab.instance.project_task(lab.project, task))
    record = lab.store.records.get(record_id)
    lab.store.write(lambda tx: decisions.import_label(tx, record, value, "test", lab.kim))


def move(lab, run_id):
    """Move a run as the worker of ``labeler serve`` does; return its state."""
    state = Worker(lab.instance).move_run(run_id)
    lab.check(run_id)
    return state


def newest(lab, record_id, task="sentiment"):
    return lab.store.suggestions.of_record(record_id, task)[0]


def page_of(lab, path):
    """Return a page as an admin gets it: its text, of which every word is there."""
    app = create_app(lab.instance, {"TESTING": True})
    admin = accounts.add_reviewer(lab.store, f"admin{time.monotonic_ns()}", "a few plain words", accounts.ADMIN)
    client = app.test_client()
    enter(client, app, admin)
    answer = client.get(path, headers={"Accept-Language": "en"})
    assert answer.status_code == 200
    return answer.get_data(as_text=True)


# FAULTS 25: prompts that are made to fit


def letters(messages):
    """A tokenizer whose tokens are characters."""
    return sum(len(message["content"]) for message in messages)


def first_prompt(case):
    return next(flows.flow_for(case))[0].messages


def examples(count, length=300):
    return [example(n, f"{n} " + "x" * length) for n in range(count)]


def long_case(text, style="few-shot", shown=(), **more):
    case = case_of(style, examples=shown, **more)
    return replace(case, record=replace(case.record, text=text))


def test_prompt_that_is_short_by_its_bytes_is_not_even_counted():
    """Most records of most models fit by far: nothing is spent on them, and the case is the one that came."""
    case = case_of(examples=examples(3))
    assert fit_case(case, lambda messages: pytest.fail("counted"), 20_000) is case


@pytest.mark.parametrize("style", STYLES)
def test_examples_go_from_the_least_useful_on(style):
    """As many as fit are shown, the most useful ones; one more would be too many, with the words of every style."""
    case = case_of(style, examples=examples(8))
    bare = letters(first_prompt(replace(case, examples=[])))
    most = len(first_prompt(case)) // 2
    for limit in range(bare + 50, letters(first_prompt(case)), 400):
        fitted = fit_case(case, letters, limit)
        kept = len(fitted.examples)
        assert list(fitted.examples) == list(case.examples[:kept])
        assert fitted.record == case.record
        assert letters(first_prompt(fitted)) <= limit
        if kept < most - 1:
            assert letters(first_prompt(replace(case, examples=case.examples[: kept + 1]))) > limit - 16
        assert flags_of(case, fitted) == ((FEWER,) if case.examples[kept:] and style != "zero-shot" else ())


def test_text_is_cut_only_where_no_example_is_left():
    """The beginning of a long review stays, whole sentences of it, with a mark that a reader sees."""
    case = long_case(WORDS * 200, shown=examples(4))
    bare = letters(first_prompt(long_case("")))
    fitted = fit_case(case, letters, bare + 1000)
    text = fitted.record.text.removesuffix(MARK)
    assert (len(fitted.examples), flags_of(case, fitted)) == (0, (CUT, FEWER))
    assert text != fitted.record.text
    assert case.record.text.startswith(text)
    assert text.endswith("dry.")
    assert 700 < len(text) <= 1000
    assert letters(first_prompt(fitted)) <= bare + 1000


def test_same_record_is_cut_alike_whatever_its_fence():
    """The random word of the fence decides nothing, so that a record that is asked again has the same fingerprint."""

    def heavy(messages):
        # A tokenizer that takes digits one by one and letters in pairs: fences differ in tokens.
        return sum(sum(2 if c.isdigit() else 1 for c in message["content"]) for message in messages)

    case = long_case(WORDS * 200, shown=examples(4))
    cuts = {
        fit_case(replace(case, style=case.style.fenced([])), heavy, limit).record.text
        for limit in (1500,)
        for _ in range(20)
    }
    assert len(cuts) == 1


FAMILY, FLAG, SYLLABLE = "👨‍👩‍👧‍👦", "🇰🇷", unicodedata.normalize("NFD", "닭")


@pytest.mark.parametrize("whole", [FAMILY, FLAG, SYLLABLE, "e\u0301", "👍🏽", "가"])
def test_no_character_is_taken_apart(whole):
    """Emoji of many parts, flags, skin tones, marks and jamo are cut before or after, for every place of the cut."""
    text = "".join(f"{n}{whole}" for n in range(10)) * 3
    starts = {0, len(text)}
    at = 0
    for n in [*range(10)] * 3:
        at += len(str(n))
        starts.add(at)
        at += len(whole)
        starts.add(at)
    assert {boundary(text, end) for end in range(1, len(text) + 1)} <= starts
    case = long_case(text * 20)
    cut = fit_case(case, letters, letters(first_prompt(long_case(""))) + 200).record.text.removesuffix(MARK)
    assert len(cut) in {start + n * len(text) for n in range(20) for start in starts}


def test_endless_character_is_cut_all_the_same():
    """A letter with a million marks has no border: the cut stays where it is, without a search through all of it."""
    text = "a" + "\u0301" * 1_000_000
    assert boundary(text, 500_000) == 500_000
    fitted = fit_case(long_case(text), letters, 3000)
    assert fitted.record.text.endswith(MARK)


def test_long_text_is_counted_a_few_times_and_never_whole():
    """A review of a million characters costs some dozen counts of what could fit."""
    counted = []

    def count(messages):
        counted.append(letters(messages))
        return letters(messages)

    fitted = fit_case(long_case("사과가 달아요. " * 120_000, shown=examples(64)), count, 3000)
    assert fitted.record.text.endswith(f"달아요.{MARK}")
    assert len(counted) <= 30
    assert max(counted[1:]) <= 3000 * 16 + 2000


@pytest.mark.parametrize("limit", [-5, 0, 40, 400])
def test_what_cannot_be_made_to_fit_stays_as_it_is(limit):
    """Where the guidelines alone are too long, the backend says how long the prompt is; nothing is labelled from air."""
    case = long_case(WORDS * 50, shown=examples(2))
    assert fit_case(case, letters, limit) == case


def test_answer_to_a_cut_text_is_read_against_the_whole_review():
    """Places in the beginning are places in the review, and the mark is no phrase that a customer wrote."""
    task = Task("keywords", Keywords(maximum=3), {"en": "Keywords"}, {"en": "Find them."})
    case = case_of(task=task)
    case = replace(case, record=replace(case.record, text="Sweet apples. " + "On and on. " * 300 + "Rotten pears."))
    fitted = fit_case(case, letters, letters(first_prompt(replace(case, record=replace(case.record, text="")))) + 200)
    assert "Rotten" not in fitted.record.text
    found = fitted.parse(fitted.record, Completion('{"keywords": ["Sweet apples"]}'))
    assert found == case.parse(case.record, Completion('{"keywords": ["Sweet apples"]}'))
    assert not isinstance(found, ParseFailure)
    refused = fitted.parse(fitted.record, Completion(json.dumps({"keywords": [MARK.strip()]})))
    assert isinstance(refused, ParseFailure)


def test_tasks_of_one_call_lose_their_examples_together():
    """A joint prompt fits as a whole, and every task of it shows as many examples as the others."""
    tasks = [Task(name, case_of().task.schema, {"en": name}, {"en": "Choose."}) for name in ("mood", "tone")]
    cases = {task.name: case_of(task=task, examples=examples(6)) for task in tasks}
    limit = letters(next(flows.joint(cases))[0].messages) - 700
    fitted = fit_joint(cases, letters, limit)
    assert [len(case.examples) for case in fitted.values()] == [3, 3]
    assert letters(next(flows.joint(fitted))[0].messages) <= limit


def test_room_is_left_for_the_answer_and_for_what_quotes_it():
    """A generated answer may be asked about once more; a scored one takes no more than its longest label."""
    case = case_of(generation=Generation(max_tokens=500))
    assert room(8000, [case], scores=True) == 8000 - len('{"mood": "good"}')
    assert room(8000, [case], scores=False) == 8000 - 500 - 900
    assert room(8000, [replace(case, answering=GENERATED)], scores=True) == room(8000, [case], scores=False)
    assert room(8000, [case, case], scores=True) == 8000 - 1000 - 8000 // 6
    assert room(2048, [case_of("chain-of-thought", generation=Generation(max_tokens=500))], scores=True) < 1500


# FAULTS 25 through a run, for a server


def narrow(context):
    """A server whose model reads so many tokens, and refuses what is longer as such servers do."""

    def behave(request, n):
        # Twice as many as there are words: what its tokenizer makes of English.
        tokens = 2 * sum(len(message["content"].split()) for message in request["messages"])
        if tokens + request.get("max_tokens", 0) > context:
            said = f"This model's maximum context length is {context} tokens. However, you requested {tokens} tokens."
            return error(400, said, "context_length_exceeded")
        return good(request, n)

    return behave


def price(lab, **models):
    (lab.instance.folder / "prices.json").write_text(json.dumps({name.replace("_", "-"): m for name, m in models.items()}))


def test_run_shows_a_server_what_its_model_can_read(lab):
    """FAULTS 25: long examples are left out and a long review is cut; the suggestion says so, and nothing fails."""
    price(lab, house_model={"context": 2000, "input": 1, "output": 2})
    lab.server.behave(narrow(2000))
    shown = add(lab, *[f"Example {n}. " + WORDS * 20 for n in range(6)])
    for id_ in shown:
        approve(lab, id_, "neutral")
    asked = [*add(lab, "Short and sweet.", WORDS * 400), lab.ids[0]]
    settings = {"model_id": "house-model", "max_tokens": 100, "k": 6, "retriever": "similar"}
    run_id = lab.start(asked, **settings)
    assert lab.move(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert (run["done"], run["failed"], run["parse_failures"], lab.asked) == (3, 0, 0, 3)
    short, long = newest(lab, asked[0]), newest(lab, asked[1])
    assert short.flags == (FEWER,)
    assert 0 < len(short.evidence) < 6
    assert (long.flags, len(long.evidence)) == ((CUT, FEWER), 0)
    prompts = [request.json["messages"] for request in lab.server.requests]
    (cut,) = [prompt[-1]["content"] for prompt in prompts if MARK in prompt[-1]["content"]]
    assert f"dry.{MARK}\n</review-" in cut
    again = lab.start(asked, **settings)
    lab.move(again)
    assert (lab.asked, lab.ledger.run(again)["reused"]) == (3, 3)


def test_prompt_that_the_server_still_finds_too_long_fails_with_a_remedy(lab):
    """FAULTS 25: where nobody knows the model's context, its refusal is one clear sentence about this record."""
    lab.server.behave(narrow(2000))
    (long,) = add(lab, WORDS * 400)
    run_id = lab.start([lab.ids[0], long], model_id="house-model", max_tokens=100)
    assert lab.move(run_id) == "finished"
    assert lab.ledger.item_counts(run_id) == {"done": 1, "failed": 1}
    (failure,) = lab.ledger.failures(run_id)
    assert failure["kind"] == "request"
    assert "show fewer examples" in failure["message"]
