"""Runs against a real server that misbehaves: what is paid, what is kept, and what a person gets to see."""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
import time

import pytest
from fake_openai import MODES, Answer, FakeOpenAI, completion, error, good
from helpers import numbered, open_instance, until

from labeler.errors import Conflict
from labeler.prelabel import runs
from labeler.prelabel.calls import CallPolicy, backoff
from labeler.prelabel.executor import LocalExecutor
from labeler.prelabel.refresh import refresh_front
from labeler.sentence import recalled
from labeler.settings import CALIBRATE, overrides
from labeler.store import NewRecord
from labeler.store.audit import audit
from labeler.store.limits import SetLimits
from labeler.worker import Worker

KEY = "sk-planted-0123456789abcdef"


class Lab:
    """An instance whose backend is a fake server, and the runs on it."""

    def __init__(self, folder, count=12):
        self.server = FakeOpenAI()
        self.server.__enter__()
        self.instance = open_instance(folder, self.server.base_url, numbered(count), timeout_seconds=20.0)
        self.store, self.ledger = self.instance.store, self.instance.store.ledger
        self.project = self.store.projects.all()[0]
        self.kim = self.store.write(lambda tx: self.store.people.create(tx, "kim", None, "reviewer"))
        self.ids = list(runs.select(self.store, self.project["id"], "sentiment", None, True))

    def close(self):
        self.instance.close()
        self.server.__exit__()

    @property
    def asked(self):
        return len(self.server.requests)

    def start(self, ids=None, budget=None, **settings):
        ids = ids or self.ids
        # No more threads than records: an idle one waits a moment for work that may come back.
        settings = {"backend": "openai", "k": 0, "concurrency": min(4, len(ids))} | settings
        return runs.start(self.store, self.project["id"], "sentiment", ids, settings, budget)

    def executor(self, run_id, stop=None, **policy):
        run = self.ledger.run(run_id)
        suggester = self.instance.suggester(
            self.project, self.instance.project_task(self.project, "sentiment"), overrides(run["settings"])
        )
        policy = CallPolicy(**{"concurrency": run["settings"].get("concurrency", 4), "base_delay": 0.02} | policy)
        info = self.instance.price_of(suggester.backend)
        return LocalExecutor(self.store, run_id, suggester, policy, info, stop or threading.Event())

    def move(self, run_id, **policy):
        state = self.executor(run_id, **policy).run()
        self.check(run_id)
        return state

    def check(self, run_id):
        """What holds for every run at every time: the sums agree with the rows."""
        run, counts = self.ledger.run(run_id), self.ledger.item_counts(run_id)
        assert sum(counts.values()) == run["total"]
        assert (counts.get("done", 0), counts.get("failed", 0)) == (run["done"], run["failed"])
        assert audit(self.store) == []

    def calls(self):
        return self.store.db.all("SELECT * FROM calls ORDER BY id")

    def suggestions(self, record_id):
        return self.store.suggestions.of_record(record_id, "sentiment")


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path / "instance")
    yield made
    made.close()


def first(count, behaviour):
    """Misbehave for the first ``count`` requests, then be good."""
    return lambda request, n: behaviour(request, n) if n <= count else good(request, n)


# The plain course of things


def test_run_makes_one_call_and_one_suggestion_for_each_record(lab):
    """A run ends as finished, with a suggestion on every record, and its numbers are those of the rows."""
    run_id = lab.start()
    assert lab.move(run_id) == "finished"
    run, calls = lab.ledger.run(run_id), lab.calls()
    assert (run["done"], run["calls"], run["repeats"], run["reused"], run["failed"]) == (12, 12, 0, 0, 0)
    assert lab.asked == len(calls) == 12
    assert run["spent"] == pytest.approx(sum(call["cost"] for call in calls)) and run["spent"] > 0
    assert run["tokens_in"] == sum(call["tokens_in"] for call in calls) > 0
    for id_ in lab.ids:
        (suggestion,) = lab.suggestions(id_)
        assert (suggestion.value, suggestion.run_id, suggestion.backend) == ("positive", run_id, "openai")
        assert lab.store.work.get(id_, "sentiment")["suggestion_id"] == suggestion.id


def test_nothing_is_paid_twice(lab):
    """I2: a second run with the same settings asks nothing and suggests all the same."""
    lab.move(lab.start())
    again = lab.start()
    assert lab.move(again) == "finished"
    run = lab.ledger.run(again)
    assert (lab.asked, run["calls"], run["reused"], run["done"], run["spent"]) == (12, 0, 12, 12, 0)


@pytest.mark.parametrize("change", [{"model_id": "gpt-4o"}, {"temperature": 0.7}, {"max_tokens": 77}, {"seed": 3}])
def test_changed_question_is_asked_again(lab, change):
    """The cache key holds what decides an answer: model, temperature, length, seed."""
    lab.move(lab.start(lab.ids[:3]))
    lab.move(lab.start(lab.ids[:3], **change))
    assert lab.asked == 6


def test_changed_guidelines_are_asked_again(lab):
    """New wording is a new question."""
    lab.move(lab.start(lab.ids[:3]))
    lab.instance.change_task(lab.project["id"], "sentiment", {"guidelines": {"en": "Only joy is positive."}})
    lab.move(lab.start(lab.ids[:3]))
    assert lab.asked == 6
    versions = [suggestion.task_version for suggestion in lab.suggestions(lab.ids[0])]
    assert versions[0] != versions[1]


def test_other_server_is_asked_again(lab, monkeypatch):
    """A model of the same name at another address is another model, also where the environment names the address."""
    lab.move(lab.start(lab.ids[:3]))
    with FakeOpenAI() as other:
        monkeypatch.setenv("OPENAI_BASE_URL", other.base_url)
        lab.move(lab.start(lab.ids[:3]))
        assert len(other.requests) == 3
    assert lab.asked == 3


def test_prompt_shows_what_was_approved_a_moment_ago(lab):
    """An approval counts for the next call; the record's own label never does."""
    decisions = lab.instance.decisions(lab.project, lab.instance.project_task(lab.project, "sentiment"))
    record = lab.store.records.get(lab.ids[0])

    def approve(tx):
        decisions.import_label(tx, record, "negative", "test", lab.kim)

    lab.store.write(approve)
    # A calibration is the one run that asks about approved records, too.
    settings = {"purpose": CALIBRATE, "backend": "openai", "k": 4, "concurrency": 2}
    run_id = runs.start(lab.store, lab.project["id"], "sentiment", lab.ids[:2], settings)
    assert Worker(lab.instance).move_run(run_id) == "finished"
    shown = {json.dumps(r.json["messages"][-1])[-60:]: json.dumps(r.json["messages"]) for r in lab.server.requests}
    other = next(text for text in shown.values() if "(1)" in text)
    assert '"role": "assistant"' in other and "negative" in other
    own = next(text for last, text in shown.items() if "(0)" in last)
    assert '"role": "assistant"' not in own
    evidence = lab.suggestions(lab.ids[1])[0].evidence
    assert [item.record_id for item in evidence] == [lab.ids[0]]


def test_second_opinion_of_a_free_backend_stands_beside(lab):
    """Where neighbours exist, their vote stands beside the suggestion, and the disagreement is on record."""
    decisions = lab.instance.decisions(lab.project, lab.instance.project_task(lab.project, "sentiment"))
    record = lab.store.records.get(lab.ids[0])
    lab.store.write(lambda tx: decisions.import_label(tx, record, "negative", "test", lab.kim))
    lab.move(lab.start(lab.ids[1:3]))
    (suggestion,) = lab.suggestions(lab.ids[1])
    assert (suggestion.value, suggestion.second.backend, suggestion.second.value) == ("positive", "nearest", "negative")
    assert lab.store.work.get(lab.ids[1], "sentiment")["disagreement"] == 1.0


@pytest.mark.parametrize(
    ("backend", "approved"),
    [("openai", 2), ("ensemble", 2), ("openai", 9), ("ensemble", 9), ("nearest", 9), ("probe", 9)],
)
def test_a_run_leaves_a_second_opinion_on_every_record(lab, backend, approved):
    """From another backend than its own, fitted before the run, which nobody asked for; so "disagreement" has an order.

    Before eight approvals only the neighbours have an opinion, and none beside their own suggestion.
    """
    task = lab.instance.project_task(lab.project, "sentiment")
    decisions = lab.instance.decisions(lab.project, task)
    labels = [(id_, ("positive", "negative")[n % 2]) for n, id_ in enumerate(lab.ids[:approved])]
    lab.store.write(lambda tx: decisions.import_labels(tx, labels, "test", lab.kim))
    assert not lab.instance.ensemble(lab.project, task).learned
    rest = lab.ids[approved:]
    run_id = lab.start(rest, backend=backend)
    assert Worker(lab.instance).move_run(run_id) == "finished"
    for id_ in rest:
        (suggestion,) = lab.suggestions(id_)
        assert suggestion.backend == backend and suggestion.second.backend not in ("", backend)
        assert lab.store.work.get(id_, "sentiment")["disagreement"] is not None
    assert "pending record" not in lab.instance.queue(lab.project, task).lacks("disagreement")


def test_estimate_calls_nothing(lab):
    """Before a run its size and cost are known without asking anybody."""
    suggester = lab.executor(lab.start()).suggester
    seen = runs.estimate(suggester, lab.ids, lab.instance.price_of(suggester.backend))
    assert (seen.items, seen.backend, seen.model_id, lab.asked) == (12, "openai", "gpt-4o-mini", 0)
    assert seen.cost > 0 and seen.tokens_in > 12 * 50
    assert runs.estimate(suggester, lab.ids, None).cost is None


def test_two_workers_share_a_run(lab):
    """I3: two processes' worth of executors on one run ask each question once."""
    lab.server.behave(lambda request, n: Answer(200, completion('{"sentiment": "neutral"}', request), delay=0.03))
    run_id = lab.start()
    second = open_instance(lab.instance.folder)
    other = Lab.__new__(Lab)
    other.__dict__.update(lab.__dict__, instance=second, store=second.store, ledger=second.store.ledger)
    threads = [threading.Thread(target=one.executor(run_id).run) for one in (lab, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    second.close()
    lab.check(run_id)
    assert (lab.ledger.run(run_id)["state"], lab.asked, lab.ledger.run(run_id)["repeats"]) == ("finished", 12, 0)


# FAULTS 29 and 30: money


def test_budget_holds_up_to_the_calls_in_flight(lab):
    """FAULTS 29: the sum of costs is at most the budget and the calls in flight; then the run waits for a person."""
    lab.move(lab.start(lab.ids[:1]))
    one = lab.calls()[0]["cost"]
    run_id = lab.start(lab.ids[1:], budget=3 * one, concurrency=2)
    assert lab.move(run_id) == "paused"
    run = lab.ledger.run(run_id)
    dearest = max(call["cost"] for call in lab.calls())
    assert 3 * one <= run["spent"] <= 3 * one + 2 * dearest
    assert "budget" in recalled(run["message"])
    runs.resume(lab.store, run_id, budget=1.0)
    assert lab.move(run_id) == "finished"
    assert (lab.asked, lab.ledger.run(run_id)["repeats"]) == (12, 0)


def test_budget_holds_for_corrections_too(lab):
    """An answer that cannot be read is not asked about again once the budget is spent."""
    lab.server.behave(lambda request, n: Answer(200, completion("no idea", request)))
    run_id = lab.start(budget=1e-9, concurrency=1)
    assert lab.move(run_id) == "paused"
    assert lab.asked == 1


def test_price_that_is_unknown_stays_unknown(lab):
    """FAULTS 30: without a price the cost is unknown, never nothing; every such call is counted."""
    run_id = lab.start(model_id="house-model")
    lab.move(run_id)
    run = lab.ledger.run(run_id)
    assert (run["calls"], run["unpriced"], run["spent"]) == (12, 12, 0)
    assert {call["cost"] for call in lab.calls()} == {None}
    assert lab.ledger.project_cost(lab.project["id"])["unpriced"] == 12


def test_budget_without_a_price_is_refused_before_any_call(lab):
    """A budget that nobody could keep stops the run at once, and says how to go on."""
    run_id = lab.start(model_id="house-model", budget=5.0)
    assert lab.move(run_id) == "paused"
    assert lab.asked == 0
    assert "prices.json" in recalled(lab.ledger.run(run_id)["message"])
    (lab.instance.folder / "prices.json").write_text('{"house-model": {"input": 1, "output": 2}}')
    runs.resume(lab.store, run_id)
    assert lab.move(run_id) == "finished"


def test_price_of_cached_tokens_counts(lab):
    """The cost of a call is that of its tokens, the cached ones at their own price."""
    lab.move(lab.start(lab.ids[:1]))
    call, info = lab.calls()[0], lab.instance.model_info("gpt-4o-mini")
    fresh = call["tokens_in"] - call["tokens_cached"]
    expected = fresh * info.input + call["tokens_cached"] * info.cached_input + call["tokens_out"] * info.output
    assert call["cost"] == pytest.approx(expected / 1e6)


# FAULTS 21 and 22: a server in trouble


@pytest.mark.slow
def test_retry_after_is_honoured_by_everybody(lab):
    """After a 429 with Retry-After nobody asks again before that time, and nothing is lost or paid twice."""
    times = []

    def behave(request, n):
        times.append(time.monotonic())
        return error(429, "Slow down.", retry_after="1") if n <= 2 else good(request, n)

    lab.server.behave(behave)
    run_id = lab.start(concurrency=2)
    assert lab.move(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert times[2] - times[0] >= 1.0
    assert (lab.asked, run["calls"], run["repeats"], run["done"]) == (14, 14, 0, 12)


@pytest.mark.parametrize("mode", ["server_error", "bad_gateway", "malformed", "no_choices"])
def test_passing_failure_is_tried_again(lab, mode):
    """A server that fails five times is asked five times more; the run ends as if nothing had been."""
    lab.server.behave(first(5, MODES[mode]))
    run_id = lab.start()
    assert lab.move(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert (lab.asked, run["calls"], run["done"], run["failed"]) == (17, 17, 12, 0)


@pytest.mark.parametrize(("mode", "seconds"), [("reset", 20.0), ("hang", 0.4), ("trickle", 0.4)])
def test_call_without_an_answer_is_an_honest_repeat(lab, mode, seconds):
    """FAULTS 21, 22: each lost call costs one more, no three; as it may have been billed, it is counted as a repeat."""
    lab.instance.change_settings({"timeout_seconds": seconds})
    lab.server.behave(first(3, MODES[mode]))
    run_id = lab.start()
    assert lab.move(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert (lab.asked, run["calls"], run["repeats"], run["done"]) == (15, 15, 3, 12)


def test_server_that_never_recovers_is_left_alone_in_the_end(lab):
    """Tries are bounded: after the last one the record is failed, with the reason, and the run ends."""
    lab.server.behave(MODES["server_error"])
    run_id = lab.start(lab.ids[:4])
    assert lab.move(run_id, max_tries=3) == "finished"
    run = lab.ledger.run(run_id)
    assert (lab.asked, run["failed"], run["done"]) == (12, 4, 0)
    (reason,) = lab.ledger.failures(run_id)
    assert (reason["kind"], reason["n"]) == ("server", 4)
    assert lab.store.work.counts(lab.project["id"], "sentiment")["pending"] == 12


def test_back_off_grows_has_jitter_and_an_end():
    """Waits double, differ, stay below two minutes, and are never shorter than the server asked."""
    waits = [[backoff(tries, 0.5, None) for _ in range(50)] for tries in range(1, 20)]
    assert all(len(set(some)) > 40 for some in waits)
    assert all(max(some) <= 120 for some in waits)
    assert max(waits[0]) <= 0.5 < min(waits[3])
    assert all(7 <= backoff(1, 0.5, 7.0) <= 7.8 for _ in range(50))
    assert backoff(1, 0.5, 1e9) <= 3600 * 1.1


def test_refused_prompt_fails_alone(lab):
    """A prompt that the server refuses for its content fails with its reason; the others go on."""

    def behave(request, n):
        refused = "(3)" in request["messages"][-1]["content"]
        return error(400, "This prompt is not allowed by our policy.") if refused else good(request, n)

    lab.server.behave(behave)
    run_id = lab.start()
    assert lab.move(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert (run["done"], run["failed"], lab.asked) == (11, 1, 12)
    assert lab.ledger.failures(run_id)[0]["kind"] == "request"


# FAULTS 23: what would fail for every record


@pytest.mark.parametrize("mode", ["unauthorized", "quota", "no_model"])
def test_hopeless_run_pauses_after_the_first_call(lab, mode):
    """A bad key, an empty account or an unknown model pause the run with one message; nothing is marked as failed."""
    lab.server.behave(MODES[mode])
    run_id = lab.start(concurrency=3)
    assert lab.move(run_id) == "paused"
    run = lab.ledger.run(run_id)
    assert lab.asked <= 3
    assert (run["failed"], run["done"]) == (0, 0)
    assert "HTTP 4" in recalled(run["message"])
    assert Worker(lab.instance)._runs(False) is False
    lab.server.behave(good)
    runs.resume(lab.store, run_id)
    assert lab.move(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert (run["done"], run["repeats"], recalled(run["message"])) == (12, 0, None)


def test_run_that_cannot_be_set_up_is_paused_with_the_reason(lab):
    """A backend, retriever or task that does not exist pauses the run instead of stopping the worker."""
    for wrong in ({"backend": "oracle"}, {"retriever": "psychic"}):
        run_id = lab.start(**wrong)
        assert Worker(lab.instance).move_run(run_id) == "paused"
        assert next(iter(wrong.values())) in recalled(lab.ledger.run(run_id)["message"])
    assert lab.asked == 0


def test_key_is_nowhere_in_the_store(lab, tmp_path):
    """FAULTS 45: not in the messages of failures, not in calls, not in settings of runs."""
    lab.instance.change_settings({"openai_api_key": KEY})

    def behave(request, n):
        return error(401, f"Incorrect API key provided: {KEY}.", "invalid_api_key") if n < 2 else good(request, n)

    lab.server.behave(behave)
    run_id = lab.start(concurrency=1)
    assert lab.move(run_id) == "paused"
    runs.resume(lab.store, run_id)
    lab.move(run_id)
    assert lab.server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    connection = sqlite3.connect(lab.store.path)
    assert KEY not in "\n".join(connection.iterdump())
    connection.close()


# FAULTS 24: answers that are no label

WRONG = {
    "empty": ("", "empty"),
    "prose": ("I think it is positive.", "not_json"),
    "two objects": ('{"sentiment": "positive"} {"sentiment": "negative"}', "not_json"),
    "bare label": ('"positive"', "shape"),
    "other key": ('{"label": "positive"}', "shape"),
    "more keys": ('{"sentiment": "positive", "why": "x"}', "shape"),
    "unknown label": ('{"sentiment": "ambivalent"}', "unknown_label"),
    "other case": ('{"sentiment": "Positive"}', "case"),
    "other language": ('{"sentiment": "긍정"}', "unknown_label"),
    "list": ('{"sentiment": ["positive"]}', "type"),
    "null": ('{"sentiment": null}', "type"),
    "duplicate key": ('{"sentiment": "positive", "sentiment": "negative"}', "not_json"),
    "one megabyte": ("x" * 1_000_000, "too_long"),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_unreadable_answer_is_asked_about_once_and_then_shown_to_a_person(lab, name):
    """The second question names the error; after that the raw answer goes to the reviewer, and never a label."""
    raw, kind = WRONG[name]
    lab.server.behave(lambda request, n: Answer(200, completion(raw, request)))
    id_ = lab.ids[0]
    run_id = lab.start([id_])
    assert lab.move(run_id) == "finished"
    (suggestion,) = lab.suggestions(id_)
    assert (suggestion.value, suggestion.failure.kind, suggestion.failure.raw) == (None, kind, raw)
    run = lab.ledger.run(run_id)
    assert (lab.asked, run["done"], run["parse_failures"], run["failed"]) == (2, 1, 1, 0)
    again = lab.server.requests[1].json["messages"]
    assert suggestion.failure.message in again[-1]["content"]
    row = lab.store.work.get(id_, "sentiment")
    assert (row["state"], row["suggestion_id"]) == ("pending", suggestion.id)
    assert lab.store.annotations.history(id_, "sentiment") == []
    assert lab.ledger.failures(run_id)[0]["kind"] == f"parse: {kind}"


def test_answer_that_was_mended_is_a_suggestion(lab):
    """A second answer that can be read is taken, and both calls are paid and kept."""
    lab.server.behave(first(1, lambda request, n: Answer(200, completion("positive!", request))))
    run_id = lab.start(lab.ids[:1])
    lab.move(run_id)
    run = lab.ledger.run(run_id)
    assert lab.suggestions(lab.ids[0])[0].value == "positive"
    assert (run["calls"], run["parse_failures"], [call["state"] for call in lab.calls()]) == (2, 0, ["answered"] * 2)


def test_answer_in_fences_is_read(lab):
    """A code block around the whole answer is no reason to ask again; prose around it is."""
    lab.server.behave(lambda request, n: Answer(200, completion('```json\n{"sentiment": "neutral"}\n```', request)))
    lab.move(lab.start(lab.ids[:1]))
    assert (lab.asked, lab.suggestions(lab.ids[0])[0].value) == (1, "neutral")
    lab.server.behave(MODES["fences"])
    lab.move(lab.start(lab.ids[1:2]))
    assert (lab.asked, lab.suggestions(lab.ids[1])[0].failure.kind) == (3, "not_json")


def test_answer_that_was_cut_off_is_never_a_label(lab):
    """A whole object with finish reason "length" is not trusted either."""
    lab.server.behave(lambda request, n: Answer(200, completion('{"sentiment": "positive"}', request, "length")))
    lab.move(lab.start(lab.ids[:1]))
    (suggestion,) = lab.suggestions(lab.ids[0])
    assert (suggestion.value, suggestion.failure.kind, lab.asked) == (None, "truncated", 1)


def test_refusal_goes_to_a_person_at_once(lab):
    """A model that refuses is not asked again."""
    lab.server.behave(MODES["refusal"])
    lab.move(lab.start(lab.ids[:1]))
    (suggestion,) = lab.suggestions(lab.ids[0])
    assert (suggestion.failure.kind, lab.asked) == ("refusal", 1)
    assert "can't help" in suggestion.failure.raw


def test_unreadable_answers_are_not_paid_twice_either(lab):
    """I2 holds for parse failures: the same run again finds both answers in the ledger."""
    lab.server.behave(lambda request, n: Answer(200, completion("nonsense", request)))
    lab.move(lab.start(lab.ids[:3]))
    lab.move(lab.start(lab.ids[:3]))
    assert lab.asked == 6


# FAULTS 20: cancel, stop


def slow_answers(lab, delay=0.1):
    lab.server.behave(lambda request, n: Answer(200, completion('{"sentiment": "neutral"}', request), delay=delay))


def test_cancel_stops_within_a_second_and_keeps_what_was_paid(tmp_path):
    """FAULTS 20: with 32 calls in flight a cancel ends the run; every answer is kept, and going on repeats none."""
    lab = Lab(tmp_path / "instance", 120)
    slow_answers(lab)
    run_id = lab.start(concurrency=32)
    thread = threading.Thread(target=lambda: lab.move(run_id))
    thread.start()
    until(lambda: lab.asked >= 40)
    runs.cancel(lab.store, run_id)
    start = time.monotonic()
    thread.join()
    assert time.monotonic() - start < 1.0
    asked = lab.asked
    run, counts = lab.ledger.run(run_id), lab.ledger.item_counts(run_id)
    assert run["state"] == "cancelled" and run["done"] == asked < 120
    assert counts == {"done": asked, "waiting": 120 - asked}
    assert sum(call["state"] == "answered" for call in lab.calls()) == asked
    runs.resume(lab.store, run_id)
    assert lab.move(run_id) == "finished"
    assert (lab.asked, lab.ledger.run(run_id)["repeats"]) == (120, 0)
    lab.close()


def test_cancel_is_heard_while_a_rate_limit_holds_the_run_back(lab):
    """FAULTS 20: a run that waits for a limit of half a minute still ends at once, and asks nothing more."""
    lab.server.behave(lambda request, n: error(429, "Slow down.", retry_after="30"))
    run_id = lab.start(concurrency=3)
    thread = threading.Thread(target=lambda: lab.move(run_id))
    thread.start()
    until(lambda: lab.asked >= 1)
    time.sleep(0.3)
    asked = lab.asked
    runs.cancel(lab.store, run_id)
    start = time.monotonic()
    thread.join()
    assert time.monotonic() - start < 1.0
    assert lab.asked == asked <= 3
    assert lab.ledger.item_counts(run_id) == {"waiting": 12}


def test_worker_that_is_asked_to_stop_finishes_what_is_in_flight(lab):
    """FAULTS 59: a stop starts nothing new, commits what is in flight, and leaves the rest to the next worker."""
    slow_answers(lab)
    run_id, stop = lab.start(concurrency=3), threading.Event()
    executor = lab.executor(run_id, stop)
    thread = threading.Thread(target=executor.run)
    thread.start()
    until(lambda: lab.asked >= 4)
    stop.set()
    thread.join()
    assert lab.ledger.run(run_id)["state"] == "running"
    counts = lab.ledger.item_counts(run_id)
    assert counts == {"done": lab.asked, "waiting": 12 - lab.asked}
    assert lab.move(run_id) == "finished"
    assert (lab.asked, lab.ledger.run(run_id)["repeats"]) == (12, 0)


def test_record_decided_meanwhile_keeps_its_decision(lab):
    """A person who is faster than the model wins; the late suggestion is kept beside."""
    slow_answers(lab, 0.3)
    decisions = lab.instance.decisions(lab.project, lab.instance.project_task(lab.project, "sentiment"))
    run_id = lab.start(lab.ids[:1])
    thread = threading.Thread(target=lambda: lab.move(run_id))
    thread.start()
    until(lambda: lab.asked == 1)
    record = lab.store.records.get(lab.ids[0])
    lab.store.write(lambda tx: decisions.import_label(tx, record, "negative", "test", lab.kim))
    thread.join()
    assert lab.store.work.get(lab.ids[0], "sentiment")["suggestion_id"] is None
    assert len(lab.suggestions(lab.ids[0])) == 1


def test_lease_outlasts_a_call(lab):
    """A worker's lease is longer than the time-out of its calls, or another would send them again."""

    def lease(**settings):
        lab.instance.change_settings({"timeout_seconds": None, "lease_seconds": None} | settings)
        return lab.instance.policy({"concurrency": 1, "max_tries": 1}).lease

    assert lease() > 60
    assert lease(timeout_seconds=600) > 600
    assert lease(timeout_seconds=600, lease_seconds=3) == 3


# Free backends and refreshes


def approve(lab, record_id, value="negative"):
    decisions = lab.instance.decisions(lab.project, lab.instance.project_task(lab.project, "sentiment"))
    record = lab.store.records.get(record_id)
    return lab.store.write(lambda tx: decisions.import_label(tx, record, value, "test", lab.kim))


def suggester(lab, **settings):
    return lab.instance.suggester(lab.project, lab.instance.project_task(lab.project, "sentiment"), settings)


def test_free_run_costs_nothing_and_asks_nobody(lab):
    """The backend ``nearest`` moves through the same runs, without calls; without examples it says so."""
    run_id = lab.start(lab.ids[1:], backend="nearest")
    assert lab.move(run_id) == "paused"
    assert "approve" in recalled(lab.ledger.run(run_id)["message"])
    approve(lab, lab.ids[0])
    runs.resume(lab.store, run_id)
    assert Worker(lab.instance).move_run(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert (run["done"], run["calls"], run["spent"], run["unpriced"], lab.asked) == (11, 0, 0, 0, 0)
    (suggestion,) = lab.suggestions(lab.ids[5])
    assert (suggestion.value, suggestion.made, suggestion.evidence[0].record_id) == ("negative", ("vote",), lab.ids[0])


@pytest.mark.parametrize("name", ["ensemble", "probe"])
def test_what_learns_is_fitted_before_its_run(lab, name):
    """A run with ``ensemble`` or ``probe`` learns first, from what is approved at its start."""
    for n, id_ in enumerate(lab.ids[:8]):
        approve(lab, id_, "negative" if n % 2 else "positive")
    run_id = lab.start(lab.ids[8:], backend=name)
    assert Worker(lab.instance).move_run(run_id) == "finished"
    assert {lab.suggestions(id_)[0].value for id_ in lab.ids[8:]} <= {"negative", "positive"}
    assert all(0 < lab.suggestions(id_)[0].score < 1 for id_ in lab.ids[8:])


def test_approval_refreshes_what_comes_next(lab):
    """After an approval the free suggestions at the front that would differ are made again; others are left."""
    approve(lab, lab.ids[0], "positive")
    lab.move(lab.start(lab.ids[1:], backend="nearest"))
    before = {id_: lab.suggestions(id_)[0].id for id_ in lab.ids[1:]}
    approve(lab, lab.ids[1], "negative")
    assert refresh_front(suggester(lab, backend="nearest"), "oldest", 5) == 5
    changed = [id_ for id_ in lab.ids[2:] if lab.store.work.get(id_, "sentiment")["suggestion_id"] != before[id_]]
    assert changed == lab.ids[2:7]
    assert refresh_front(suggester(lab, backend="nearest"), "oldest", 5) == 0


def test_refresh_leaves_a_touched_draft_alone(lab):
    """The suggestion under the hands of a reviewer is not exchanged."""
    approve(lab, lab.ids[0], "positive")
    lab.move(lab.start(lab.ids[1:], backend="nearest"))
    queue = lab.instance.queue(lab.project, lab.instance.project_task(lab.project, "sentiment"))
    opened = queue.next(lab.kim)
    queue.touch(lab.kim, opened.record.id, opened.token)
    approve(lab, lab.ids[5], "negative")
    refresh_front(suggester(lab, backend="nearest"), "oldest", 20)
    row = lab.store.work.get(opened.record.id, "sentiment")
    assert row["suggestion_id"] == opened.suggestion_id
    assert lab.store.work.get(lab.ids[2], "sentiment")["suggestion_id"] != lab.suggestions(lab.ids[2])[-1].id


def test_billed_refresh_is_small_and_stands_in_the_ledger(lab):
    """A paid backend makes at most three suggestions again, as a run of its own, and one such run at a time."""
    approve(lab, lab.ids[0], "positive")
    lab.move(lab.start(lab.ids[1:], k=2))
    approve(lab, lab.ids[1], "negative")
    paid = suggester(lab, backend="openai", k=2)
    assert refresh_front(paid, "oldest", 20) == 3
    assert refresh_front(paid, "oldest", 20) == 0
    (run_id,) = lab.ledger.open_runs()
    assert (lab.ledger.run(run_id)["total"], lab.ledger.run(run_id)["settings"]["purpose"]) == (3, "refresh")
    assert Worker(lab.instance).move_run(run_id) == "finished"


def test_upkeep_refits_and_refreshes_after_decisions(lab):
    """The worker hears of decisions, makes missing vectors, fits the ensemble and refreshes the front."""
    worker = Worker(lab.instance)
    for n, id_ in enumerate(lab.ids[:10]):
        approve(lab, id_, ("negative", "positive")[n % 2])
    worker.run_until_idle()
    task = lab.instance.project_task(lab.project, "sentiment")
    assert lab.instance.ensemble(lab.project, task).fitted.examples == 10
    assert lab.store.vectors.progress("lexical-1", lab.project["id"]) == (12, 12)


@pytest.mark.slow
def test_two_hundred_records_through_a_bad_day(tmp_path, request):
    """FAULTS 21: with every kind of failure mixed in, all is done and the bill is successes and honest repeats."""
    lab = Lab(tmp_path / "instance", 200)
    request.addfinalizer(lab.close)
    lab.instance.change_settings({"timeout_seconds": 1.5})
    modes = itertools.cycle(["good", "good", "reset", "good", "server_error", "good", "good", "rate", "hang", "good"])
    lock = threading.Lock()
    billed = []

    def behave(asked, n):
        with lock:
            mode = next(modes)
        if mode in ("good", "reset", "hang"):
            billed.append(n)
        if mode == "rate":
            return error(429, "Slow down.", **{"retry-after-ms": "20"})
        return MODES[mode](asked, n)

    lab.server.behave(behave)
    run_id = lab.start(concurrency=16)
    assert lab.move(run_id, max_tries=20) == "finished"
    run = lab.ledger.run(run_id)
    assert (run["done"], run["failed"]) == (200, 0)
    # On a busy machine a call may time out before it is on the wire: it is counted as a possible repeat all the same.
    never_arrived = run["calls"] - lab.asked
    assert 0 <= never_arrived <= run["repeats"]
    assert len(billed) <= 200 + run["repeats"] <= len(billed) + never_arrived


def test_records_of_one_text_in_two_projects_are_asked_once(lab):
    """I2 holds across projects: the same question is the same question."""
    lab.move(lab.start(lab.ids[:1]))
    other = lab.instance.create_project("again", "en", {"tasks": ["sentiment"]})
    news = [NewRecord("same", lab.store.records.get(lab.ids[0]).text)]
    (stored,) = lab.store.write(lambda tx: lab.store.records.add(tx, other, news, ["sentiment"]))
    run_id = runs.start(lab.store, other, "sentiment", [stored.id], {"backend": "openai", "k": 0, "concurrency": 1})
    assert Worker(lab.instance).move_run(run_id) == "finished"
    assert (lab.asked, lab.ledger.run(run_id)["reused"]) == (1, 1)


# The ledger is asked first


def test_answers_in_the_ledger_need_no_budget(lab):
    """Once the budget of the project is reached, a run over what is answered already ends all the same, for nothing."""
    lab.move(lab.start(lab.ids[:5]))
    lab.instance.change_project(lab.project["id"], {"budget_project": 1e-9})
    run_id = lab.start(lab.ids[:7])
    assert lab.move(run_id) == "paused"
    run = lab.ledger.run(run_id)
    assert (run["done"], run["reused"], run["spent"], lab.asked) == (5, 5, 0, 5)
    assert "project's budget" in recalled(run["message"])
    again = lab.start(lab.ids[:5])
    assert lab.move(again) == "finished"


def test_answers_in_the_ledger_use_no_rate_limit(lab):
    """Only a call that is ours to send takes from the limit: what is reused is there at once."""
    lab.move(lab.start())
    lab.instance.change_settings({"requests_per_minute": 1})
    suggested = suggester(lab, backend="openai", k=0)
    policy = lab.instance.policy(lab.instance.task_settings(lab.project, "sentiment"))
    run_id = lab.start()
    executor = LocalExecutor(lab.store, run_id, suggested, policy, None, threading.Event())
    assert executor.run() == "finished"
    assert lab.ledger.run(run_id)["reused"] == 12
    assert lab.store.db.all("SELECT * FROM rate_limits") == []


def test_answers_in_the_ledger_are_finished_while_a_limit_holds(lab):
    """A server that refuses for half a minute holds back what it is to be asked, not what it has answered."""
    lab.move(lab.start(lab.ids[6:]))
    lab.server.behave(lambda request, n: error(429, "Slow down.", retry_after="30"))
    run_id = lab.start()
    assert lab.executor(run_id).run() == "running"
    assert lab.ledger.run(run_id)["done"] == 6
    asked, written, write = lab.asked, [], lab.store.db.write
    lab.store.db.write = lambda work: written.append(work) or write(work)
    assert [lab.executor(run_id).run() for _ in range(10)] == ["running"] * 10
    lab.store.db.write = write
    assert (written, lab.asked) == ([], asked)


def test_call_that_another_has_in_flight_takes_no_rate_limit(lab):
    """Two runs over the same records ask once, and reserve once."""
    slow_answers(lab, 0.3)
    first, second = lab.start(lab.ids[:1]), lab.start(lab.ids[:1])
    threads = [
        threading.Thread(target=lab.executor(id_, limits=SetLimits(requests=600)).run) for id_ in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lab.asked == 1
    assert lab.store.db.value("SELECT free_requests FROM rate_limits") == pytest.approx(99, abs=0.01)


def test_answer_that_came_before_a_fatal_failure_is_finished(lab):
    """A run that pauses for a refused key keeps nothing that is paid waiting for the key to be mended."""
    lab.server.behave(
        lambda request, n: Answer(200, completion("?", request)) if n == 1 else MODES["unauthorized"](request, n)
    )
    run_id = lab.start(lab.ids[:2], concurrency=1)
    assert lab.move(run_id) == "paused"
    # The answer that cannot be read wants a second call, which may not be sent: nobody goes round with it.
    assert lab.ledger.to_finish() == [] and lab.asked == 2
    runs.resume(lab.store, run_id)
    lab.server.behave(good)
    assert lab.move(run_id) == "finished"
    assert (lab.asked, lab.ledger.run(run_id)["done"]) == (4, 2)


def test_item_over_budget_is_looked_at_once_for_each_answer(lab):
    """An item whose next call may not be sent is not claimed again and again."""
    lab.server.behave(lambda request, n: Answer(200, completion("no idea", request)))
    run_id = lab.start(lab.ids[:3], budget=1e-9, concurrency=1)
    assert lab.move(run_id) == "paused"
    assert lab.ledger.next_due(run_id) is None
    claims = lab.store.write(lambda tx: lab.ledger.claim_items(tx, run_id, "t", 5, 60.0))
    assert claims == []
    runs.resume(lab.store, run_id, 1.0)
    lab.server.behave(good)
    assert lab.move(run_id) == "finished"
    assert (lab.asked, lab.ledger.run(run_id)["done"]) == (4, 3)


def test_free_run_ends_though_the_budget_is_reached(lab):
    """A backend that costs nothing is not held back by what others have cost."""
    approve(lab, lab.ids[0])
    lab.instance.change_project(lab.project["id"], {"budget_day": 0.0})
    assert lab.move(lab.start(lab.ids[1:], backend="nearest")) == "finished"


def test_spent_is_the_sum_of_the_calls_when_both_answers_of_a_call_arrive(lab):
    """A call that was sent twice and answered twice was paid twice, and both stand in the books."""
    run_id = lab.start(lab.ids[:1])
    late = threading.Event()

    def behave(request, n):
        if n == 1:
            # The first worker loses its leases while it waits for its answer.
            lab.store.write(lambda tx: tx.run("UPDATE run_items SET lease_until = 0"))
            lab.store.write(lambda tx: tx.run("UPDATE calls SET lease_until = 0"))
            late.set()
            return Answer(200, completion('{"sentiment": "neutral"}', request), delay=0.6)
        return good(request, n)

    lab.server.behave(behave)
    first = threading.Thread(target=lab.executor(run_id).run)
    first.start()
    assert late.wait(20)
    assert lab.executor(run_id).run() == "finished"
    first.join()
    run = lab.ledger.run(run_id)
    assert (lab.asked, run["calls"], run["repeats"], run["done"]) == (2, 2, 1, 1)
    assert run["spent"] == pytest.approx(lab.store.db.value("SELECT SUM(cost) FROM calls WHERE run_id = ?", [run_id]))
    assert len(lab.suggestions(lab.ids[0])) == 1
    assert audit(lab.store) == []


# Asked again


def rubbish(request, n):
    return Answer(200, completion("<|im_start|>assistant", request))


def test_again_asks_anew_for_what_could_not_be_read(lab):
    """A server that answered rubbish and was mended is asked again, once for each record; the rubbish stays."""
    lab.server.behave(rubbish)
    lab.move(lab.start(lab.ids[:3]))
    lab.server.behave(good)
    before = {call["id"]: call["answer"] for call in lab.calls()}
    run_id = lab.start(lab.ids[:3], again=True)
    assert lab.move(run_id) == "finished"
    run = lab.ledger.run(run_id)
    # One call each: the second question, which named the error of the first answer, is not needed any more.
    assert (lab.asked, run["calls"], run["repeats"], run["parse_failures"]) == (9, 3, 3, 0)
    assert [lab.suggestions(id_)[0].value for id_ in lab.ids[:3]] == ["positive"] * 3
    assert {call["id"]: call["answer"] for call in lab.calls() if call["id"] in before} == before
    old = lab.suggestions(lab.ids[0])[1]
    assert lab.store.db.value("SELECT answer FROM calls WHERE id = ?", [old.call_id]) == "<|im_start|>assistant"
    assert audit(lab.store) == []


def test_what_was_read_is_not_asked_again(lab):
    """Such a run pays for unreadable answers alone, and the good ones that it paid for serve the next."""
    lab.server.behave(lambda request, n: rubbish(request, n) if "(1)" in json.dumps(request) else good(request, n))
    lab.move(lab.start(lab.ids[:3]))
    lab.server.behave(good)
    lab.move(lab.start(lab.ids[:3], again=True))
    assert lab.asked == 4 + 1
    third = lab.start(lab.ids[:3], again=True)
    lab.move(third)
    assert (lab.asked, lab.ledger.run(third)["reused"]) == (5, 3)
    lab.move(lab.start(lab.ids[:3]))
    assert lab.asked == 5


def test_run_that_asks_again_does_so_once(lab):
    """Resumed in the middle, or tried again after a failure, it does not pay a third time for rubbish of its own."""
    lab.server.behave(rubbish)
    lab.move(lab.start(lab.ids[:2]))
    run_id = lab.start(lab.ids[:2], again=True, budget=1e-9, concurrency=1)
    assert lab.move(run_id) == "paused"
    assert lab.asked == 5
    runs.resume(lab.store, run_id, 1.0)
    assert lab.move(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert (lab.asked, run["calls"], run["repeats"], run["parse_failures"]) == (8, 4, 4, 2)


def test_again_pays_for_the_calls_of_a_flow_that_need_it(lab):
    """Where the points of a review could be read and the answer could not, the answer alone is asked for anew."""

    def behave(request, n):
        points = "points" in json.dumps(request.get("response_format", {}))
        return Answer(200, completion('{"points": ["it is fresh"]}', request)) if points else rubbish(request, n)

    lab.server.behave(behave)
    lab.move(lab.start(lab.ids[:1], style="least-to-most"))
    assert (lab.asked, lab.suggestions(lab.ids[0])[0].value) == (3, None)
    lab.server.behave(good)
    run_id = lab.start(lab.ids[:1], style="least-to-most", again=True)
    assert lab.move(run_id) == "finished"
    assert (lab.asked, lab.suggestions(lab.ids[0])[0].value) == (4, "positive")
    assert lab.ledger.run(run_id)["reused"] == 1


def test_run_keeps_to_itself_that_it_asks_again(lab):
    """What a run says of itself is no setting of its task."""
    run_id = lab.start(lab.ids[:1], again=True, purpose="refresh")
    assert Worker(lab.instance).move_run(run_id) == "finished"
    assert overrides({"again": True, "purpose": "refresh", "k": 2}) == {"k": 2}


# What people decide meanwhile


def test_records_that_people_decide_are_not_paid_for(lab):
    """Runs and reviewers go by age alike: what is decided when its turn comes is left out, and counted."""
    run_id = lab.start()
    for id_ in lab.ids[:8]:
        approve(lab, id_)
    assert lab.move(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert (lab.asked, run["done"], run["decided"], run["calls"]) == (4, 12, 8, 4)
    assert lab.ledger.failures(run_id) == []


def test_record_is_looked_at_again_right_before_it_is_paid_for(lab):
    """Decided while it waited in this process for its turn: not asked either."""
    lab.server.behave(lambda request, n: (approve(lab, lab.ids[1]) and None) or good(request, n))
    run_id = lab.start(lab.ids[:2], concurrency=1)
    assert lab.move(run_id) == "finished"
    assert (lab.asked, lab.ledger.run(run_id)["decided"]) == (1, 1)


def test_free_run_leaves_out_what_people_decided(lab):
    """A free suggestion for a decided record helps nobody either."""
    run_id = lab.start(lab.ids[1:], backend="nearest")
    approve(lab, lab.ids[0])
    approve(lab, lab.ids[1])
    assert lab.move(run_id) == "finished"
    assert (lab.ledger.run(run_id)["decided"], lab.suggestions(lab.ids[1])) == (1, [])


def test_answer_that_is_paid_stands_beside_a_decision(lab):
    """Decided after the call was sent and before it was looked at: the suggestion is made, and changes nothing."""
    run_id = lab.start(lab.ids[:1])
    lab.server.behave(lambda request, n: (approve(lab, lab.ids[0]) and None) or good(request, n))
    assert lab.move(run_id) == "finished"
    assert (len(lab.suggestions(lab.ids[0])), lab.ledger.run(run_id)["decided"]) == (1, 0)


# Leases, filling, settling, pace


def test_flow_of_several_calls_keeps_its_item(lab):
    """Each call renews the lease: a flow that takes longer than one lease is no second try."""
    slow_answers(lab, 0.5)
    run_id = lab.start(lab.ids[:1], style="self-consistency", samples=5)
    executor = lab.executor(run_id, lease=1.0)
    other = lab.executor(run_id, lease=1.0)
    threads = [threading.Thread(target=one.run) for one in (executor, other)]
    for thread in threads:
        thread.start()
    until(lambda: lab.asked == 5)
    assert lab.ledger.tries(run_id, lab.ids[0]) == 1
    for thread in threads:
        thread.join()
    assert (lab.asked, lab.ledger.run(run_id)["repeats"], lab.ledger.run(run_id)["state"]) == (5, 0, "finished")


def test_run_cannot_be_moved_or_ended_while_it_is_filled(lab):
    """A worker that looks in between finds nothing to move, and a person cannot resume half a run."""
    seen = []

    def look():
        (run,) = lab.ledger.runs(lab.project["id"])
        Worker(lab.instance)._runs(False)
        lab.store.write(lambda tx: lab.ledger.settle(tx, run["id"], True))
        seen.append(lab.ledger.run(run["id"]))
        with pytest.raises(Conflict, match="still being gathered"):
            runs.resume(lab.store, run["id"])

    def slowly():
        for n, id_ in enumerate(lab.ids * 100):
            if n == 700:
                look()
            yield id_

    run_id = runs.start(lab.store, lab.project["id"], "sentiment", slowly(), {"backend": "openai", "k": 0})
    (run,) = seen
    assert (run["state"], run["total"], lab.asked) == ("paused", 12, 0)
    assert "being gathered" in recalled(run["message"])
    assert lab.ledger.run(run_id)["state"] == "queued" and recalled(lab.ledger.run(run_id)["message"]) is None


def test_run_that_is_cancelled_while_it_is_filled_stays_cancelled(lab):
    """It is filled no further, and can be resumed with what it has."""

    def slowly():
        for n, id_ in enumerate([*lab.ids[:6], *[lab.ids[0]] * 1000, *lab.ids]):
            if n == 600:
                runs.cancel(lab.store, lab.ledger.runs(lab.project["id"])[0]["id"])
            yield id_

    run_id = runs.start(lab.store, lab.project["id"], "sentiment", slowly(), {"backend": "openai", "k": 0})
    run = lab.ledger.run(run_id)
    assert (run["state"], run["total"]) == ("cancelled", 6)
    runs.resume(lab.store, run_id)
    assert Worker(lab.instance).move_run(run_id) == "finished"


def test_run_whose_maker_died_can_be_resumed_with_what_it_has(lab):
    """A process killed while it filled a run leaves one that says so; its lease over, people may go on with it."""

    def dies():
        yield from lab.ids[:6] * 100
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.start(lab.store, lab.project["id"], "sentiment", dies(), {"backend": "openai", "k": 0})
    (run,) = lab.ledger.runs(lab.project["id"])
    assert (run["state"], run["total"]) == ("paused", 6) and "resume the run with those it has" in recalled(
        run["message"]
    )
    lab.store.write(lambda tx: tx.run("UPDATE runs SET filling_until = 1"))
    runs.resume(lab.store, run["id"])
    assert Worker(lab.instance).move_run(run["id"]) == "finished"


def test_time_that_a_run_stood_still_is_not_its_pace(lab):
    """Pause a run for half a day: it took no longer for that."""
    run_id = lab.start()
    for state, seconds in (("running", 60), ("paused", 43_200), ("running", 60), ("finished", 0)):
        lab.store.write(lambda tx, state=state: lab.ledger.set_run(tx, run_id, state))
        lab.store.write(
            lambda tx, seconds=seconds: tx.run(
                "UPDATE runs SET moving_since = moving_since - :s, started_at = started_at - :s", {"s": seconds}
            )
        )
    lab.store.write(lambda tx: lab.ledger.count(tx, run_id, calls=12))
    policy = lab.ledger.past_pace(lab.project["id"], "sentiment", "openai", None)
    assert policy == pytest.approx(10, abs=0.5)
