"""The executor openai-batch: files of calls, half the price, and nothing lost or paid twice on the way."""

from __future__ import annotations

import threading
import time

import pytest
from fake_openai import MODES, Answer, BatchPlan, FakeOpenAI, completion, good
from helpers import numbered, open_instance, until

from labeler.annotation.decisions import Decision
from labeler.backends.batches import CallFailed
from labeler.backends.prices import cost
from labeler.prelabel import batch_executor, runs
from labeler.prelabel.batch_executor import BatchExecutor
from labeler.prelabel.calls import EXPECTED_ANSWER, CallPolicy
from labeler.prelabel.rounds import Rounds
from labeler.records import BackendFailure
from labeler.sentence import recalled
from labeler.store.audit import audit
from labeler.worker import Worker

COUNT = 12


@pytest.fixture(autouse=True)
def batches_end_at_once(monkeypatch):
    monkeypatch.setattr(BatchExecutor, "poll_seconds", 0.0)


class Lab:
    """An instance, a server with batches, and runs that go by them."""

    def __init__(self, folder):
        self.server = FakeOpenAI()
        self.server.__enter__()
        self.instance = open_instance(folder, self.server.base_url, numbered(COUNT))
        self.store, self.ledger = self.instance.store, self.instance.store.ledger
        self.project = self.store.projects.all()[0]
        self.ids = list(runs.select(self.store, self.project["id"], "sentiment", None, True))

    def start(self, budget=None, ids=None, **settings):
        settings = {"backend": "openai", "k": 0, "executor": "openai-batch"} | settings
        return runs.start(self.store, self.project["id"], "sentiment", ids or self.ids, settings, budget)

    def step(self, run_id):
        return Worker(self.instance).move_run(run_id)

    def through(self, run_id, steps=20):
        for _ in range(steps):
            state = self.step(run_id)
            if state != "running":
                return state
        return state

    def mend(self, run_id):
        """After the first batch of a run: let the provider work as usual, and end the wait of the calls that failed."""
        self.server.batch_plan = BatchPlan()
        self.step(run_id)
        self.store.write(lambda tx: tx.run("UPDATE run_items SET not_before = 0"))

    def values(self):
        return [s.value for id_ in self.ids for s in self.store.suggestions.of_record(id_, "sentiment")]

    def client(self):
        task = self.instance.project_task(self.project, "sentiment")
        return self.instance.suggester(self.project, task, {"backend": "openai"}).backend.batches

    def approve(self, *record_ids):
        decisions = self.instance.decisions(self.project, self.instance.project_task(self.project, "sentiment"))
        for id_ in record_ids:
            record = self.store.records.get(id_)
            self.store.write(lambda tx, record=record: decisions.import_label(tx, record, "negative", "test", None))

    def close(self):
        self.instance.close()
        self.server.__exit__()


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path / "instance")
    yield made
    made.close()


def test_run_by_batch_ends_like_any_other(lab):
    """One file goes out, its answers come back in any order, and every record has its suggestion."""
    run_id = lab.start()
    assert lab.step(run_id) == "running"
    assert len(lab.server.batches) == 1 and lab.values() == []
    assert lab.ledger.item_counts(run_id) == {"batched": COUNT}
    assert lab.through(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert lab.values() == ["positive"] * COUNT
    assert (run["done"], run["calls"], run["repeats"], run["reused"]) == (COUNT, COUNT, 0, 0)
    assert len(lab.server.requests) == COUNT


def test_batch_costs_half(lab):
    """The ledger counts the share of the price that the provider asks for calls in a batch."""
    direct = lab.start(ids=lab.ids[:1], executor="local")
    assert lab.step(direct) == "finished"
    batched = lab.start(ids=lab.ids[1:2])
    assert lab.through(batched) == "finished"
    one, other = lab.ledger.run(direct), lab.ledger.run(batched)
    assert one["tokens_in"] == other["tokens_in"]
    assert other["spent"] == pytest.approx(one["spent"] / 2) and other["spent"] > 0


def test_step_never_waits_for_the_provider(lab):
    """While a batch is on its way a step returns at once, asks how it stands, and sends nothing again."""
    lab.server.batch_plan = BatchPlan(delay=3600)
    run_id = lab.start()
    assert [lab.step(run_id) for _ in range(4)] == ["running"] * 4
    assert len(lab.server.batches) == 1
    (batch,) = lab.store.batches.of_run(run_id)
    assert batch["state"] == "sent" and "in_progress" in recalled(batch["message"])


def test_another_process_goes_on_with_a_batch(lab, tmp_path):
    """Whoever sent the batch may be dead: its id is in the store, and nothing is sent again."""
    run_id = lab.start()
    lab.step(run_id)
    lab.instance.close()
    lab.instance = open_instance(tmp_path / "instance", lab.server.base_url)
    lab.store, lab.ledger = lab.instance.store, lab.instance.store.ledger
    assert lab.through(run_id) == "finished"
    assert len(lab.server.batches) == 1 and len(lab.server.requests) == COUNT
    assert lab.values() == ["positive"] * COUNT


def test_batch_whose_id_was_never_written_is_found_by_its_tag(lab, monkeypatch):
    """Death between the provider's answer and the commit of its id: the batch is found again and not sent twice."""
    run_id = lab.start()
    with monkeypatch.context() as patch:
        patch.setattr(lab.store.batches, "sent", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lab.step(run_id)
    (batch,) = lab.store.batches.of_run(run_id)
    assert batch["state"] == "filling" and batch["remote_id"] is None
    assert lab.step(run_id) == "running" and len(lab.server.batches) == 1
    monkeypatch.setattr(batch_executor, "_ABANDONED", 0.0)
    assert lab.through(run_id) == "finished"
    assert len(lab.server.batches) == 1 and len(lab.server.requests) == COUNT


def test_batch_that_never_reached_the_provider_is_sent_anew(lab, monkeypatch):
    """Death before the provider took the file: the calls are free again, and go out once."""
    run_id = lab.start()
    client = type(lab.client())
    with monkeypatch.context() as patch:
        patch.setattr(client, "upload", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lab.step(run_id)
    monkeypatch.setattr(batch_executor, "_ABANDONED", 0.0)
    assert lab.through(run_id) == "finished"
    assert len(lab.server.requests) == COUNT and lab.values() == ["positive"] * COUNT


def test_same_file_read_twice_is_counted_once(lab):
    """Two workers read the same answers: each is committed and priced once."""
    run_id = lab.start()
    lab.step(run_id)
    (batch,) = lab.store.batches.open(run_id)
    suggester = lab.instance.suggester(
        lab.project, lab.instance.project_task(lab.project, "sentiment"), lab.ledger.run(run_id)["settings"]
    )
    info = lab.instance.price_of(suggester.backend)
    for _ in range(2):
        executor = BatchExecutor(lab.store, run_id, suggester, CallPolicy(), info, threading.Event())
        executor.store.batches.polled = lambda *_: None
        executor._poll(batch, False)
    assert lab.through(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert run["spent"] == pytest.approx(lab.store.db.value("SELECT SUM(cost) FROM calls"))
    assert run["tokens_in"] == lab.store.db.value("SELECT SUM(tokens_in) FROM calls")


def test_calls_that_failed_go_into_the_next_batch(lab):
    """A line that the provider could not answer is asked again in a file of its own."""
    lab.server.batch_plan = BatchPlan(fail_every=4)
    run_id = lab.start()
    lab.step(run_id)
    lab.mend(run_id)
    assert lab.through(run_id) == "finished"
    assert lab.values() == ["positive"] * COUNT
    assert len(lab.server.batches) == 2 and lab.ledger.run(run_id)["calls"] == COUNT + 3


def test_expired_batch_keeps_what_it_answered(lab):
    """What came back before the day was over is kept and paid; the rest goes out again."""
    lab.server.batch_plan = BatchPlan(status="expired", done=5)
    run_id = lab.start()
    lab.step(run_id)
    lab.mend(run_id)
    assert lab.through(run_id) == "finished"
    assert lab.values() == ["positive"] * COUNT
    assert len(lab.server.requests) == COUNT


def test_unreadable_answer_is_asked_once_more_in_a_second_batch(lab):
    """The correction of an answer is a call of its own, and travels in the next file."""
    lab.server.behave(lambda request, n: Answer(200, completion("what?", request)) if n <= COUNT else good(request, n))
    run_id = lab.start()
    assert lab.through(run_id) == "finished"
    assert len(lab.server.batches) == 2 and lab.ledger.run(run_id)["calls"] == 2 * COUNT
    assert lab.values() == ["positive"] * COUNT


def test_refused_batch_pauses_the_run_with_its_reason(lab):
    """A file that the provider does not take is not sent again and again."""
    lab.server.batch_plan = BatchPlan(status="failed")
    run_id = lab.start()
    assert lab.through(run_id) == "paused"
    assert "refused the batch" in recalled(lab.ledger.run(run_id)["message"])
    assert len(lab.server.batches) == 1 and lab.server.requests == []


def test_cancelled_run_cancels_its_batch_and_keeps_what_was_paid(lab):
    """After a cancel the provider is told, and what it had answered becomes suggestions: it is paid."""
    lab.server.batch_plan = BatchPlan(delay=0.0, status="cancelled", done=4)
    run_id = lab.start()
    lab.step(run_id)
    runs.cancel(lab.store, run_id)
    worker = Worker(lab.instance)
    for _ in range(4):
        worker._runs(False)
    assert lab.store.batches.open_runs() == []
    assert lab.store.db.value("SELECT COUNT(*) FROM calls WHERE state = 'answered'") == 4
    assert lab.ledger.run(run_id)["state"] == "cancelled" and lab.values() == ["positive"] * 4


def test_budget_bounds_a_file_before_it_is_sent(lab):
    """Thousands of calls in one file would pass any budget at once: the file ends where it would be used up."""
    first = lab.start(ids=lab.ids[:1])
    assert lab.through(first) == "finished"
    info = lab.instance.model_info("gpt-4o-mini")
    # What a call is thought to cost beforehand: more than this server's short answers do.
    thought = cost(lab.ledger.run(first)["tokens_in"], EXPECTED_ANSWER, 0, info, batch=True)
    run_id = lab.start(ids=lab.ids[1:], budget=4 * thought)
    lab.step(run_id)
    (batch,) = lab.store.batches.of_run(run_id)
    assert 1 <= batch["calls"] <= 8 < COUNT - 1


def test_provider_that_is_down_is_not_asked_again_at_once(lab, monkeypatch):
    """A file that could not be sent waits before it is made again, and so does a question how a batch stands."""
    monkeypatch.setattr(BatchExecutor, "poll_seconds", 60.0)
    run_id = lab.start()
    lab.server.__exit__()
    assert [lab.step(run_id) for _ in range(3)] == ["running"] * 3
    assert len(lab.store.batches.of_run(run_id)) == 1
    assert lab.ledger.run(run_id)["calls"] == COUNT
    assert lab.ledger.item_counts(run_id) == {"waiting": COUNT}
    lab.server = FakeOpenAI()
    lab.server.__enter__()


def test_backend_without_batches_says_so(lab):
    """The executor needs the openai backend; another one pauses the run with one sentence."""
    run_id = lab.start(backend="nearest")
    assert lab.step(run_id) == "paused"
    assert "has no batches" in recalled(lab.ledger.run(run_id)["message"])


# What is paid is finished


def dear(request, n):
    """A good answer that costs a hundred times what was thought beforehand."""
    answer = good(request, n)
    answer.body["usage"]["prompt_tokens"] *= 100
    return answer


def test_answers_that_cost_more_than_the_budget_become_suggestions(lab):
    """A file that turns out dearer than thought uses up the budget; every answer in it is paid, and is finished."""
    lab.server.behave(dear)
    run_id = lab.start(budget=0.0002)
    assert lab.through(run_id) == "paused"
    run, (batch,) = lab.ledger.run(run_id), lab.store.batches.of_run(run_id)
    assert run["spent"] > 0.0002 and "budget" in recalled(run["message"])
    assert 0 < batch["calls"] < COUNT
    assert (run["done"], len(lab.values())) == (batch["calls"], batch["calls"])
    assert lab.ledger.item_counts(run_id) == {"done": batch["calls"], "waiting": COUNT - batch["calls"]}
    runs.resume(lab.store, run_id, 1.0)
    assert lab.through(run_id) == "finished"
    assert (len(lab.server.requests), lab.ledger.run(run_id)["repeats"]) == (COUNT, 0)


def test_answers_of_a_batch_are_finished_after_a_cancel_and_a_death(lab, monkeypatch):
    """The process dies between the answers and the suggestions, and the run is cancelled: another one finishes them."""
    run_id = lab.start()
    lab.step(run_id)
    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "start", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lab.step(run_id)
    assert lab.values() == [] and lab.store.batches.open_runs() == []
    runs.cancel(lab.store, run_id)
    lab.store.write(lambda tx: tx.run("UPDATE run_items SET lease_until = 0 WHERE state = 'leased'"))
    worker = Worker(lab.instance)
    worker._runs(False)
    assert lab.values() == ["positive"] * COUNT
    assert (lab.ledger.run(run_id)["state"], lab.ledger.to_finish()) == ("cancelled", [])


def test_run_that_nothing_is_left_of_is_finished_though_its_budget_paused_it(lab):
    """A run whose last answers come back after it was paused ends as finished: there is nothing to resume."""
    lab.server.batch_plan = BatchPlan(delay=3600)
    run_id = lab.start()
    lab.step(run_id)
    lab.store.write(lambda tx: lab.ledger.set_run(tx, run_id, "paused", "The key was refused"))
    lab.server._plans["batch_1"] = BatchPlan()
    for _ in range(3):
        Worker(lab.instance)._runs(False)
    assert lab.values() == ["positive"] * COUNT
    assert lab.ledger.run(run_id)["state"] == "finished"


def test_cancel_that_comes_after_the_batch_has_ended_keeps_its_answers(lab):
    """A batch that has ended cannot be cancelled any more: its answers are taken in."""
    run_id = lab.start()
    lab.step(run_id)
    lab.server._moved("batch_1")
    runs.cancel(lab.store, run_id)
    Worker(lab.instance)._runs(False)
    assert lab.values() == ["positive"] * COUNT


def test_what_is_approved_meanwhile_makes_no_answer_worthless(lab):
    """A batch is away for hours and people go on: its answers are those to the prompts that were sent."""
    lab.server.batch_plan = BatchPlan(delay=3600)
    lab.approve(lab.ids[0])
    run_id = lab.start(ids=lab.ids[2:], k=4)
    lab.step(run_id)
    lab.approve(lab.ids[1])
    lab.server._plans["batch_1"] = BatchPlan()
    assert lab.through(run_id) == "finished"
    assert len(lab.server.requests) == COUNT - 2
    (suggestion,) = lab.store.suggestions.of_record(lab.ids[2], "sentiment")
    assert [evidence.record_id for evidence in suggestion.evidence] == [lab.ids[0]]


def test_records_that_people_decided_go_into_no_file(lab):
    """Decided before the file is filled: not asked. Decided while it is away: the answer stands beside the decision."""
    lab.server.batch_plan = BatchPlan(delay=3600)
    lab.approve(lab.ids[0], lab.ids[1])
    run_id = lab.start()
    lab.step(run_id)
    lab.approve(lab.ids[2])
    lab.server._plans["batch_1"] = BatchPlan()
    assert lab.through(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert (run["done"], run["decided"], run["calls"]) == (COUNT, 2, COUNT - 2)
    assert len(lab.values()) == COUNT - 2
    assert lab.store.work.get(lab.ids[2], "sentiment")["suggestion_id"] is None


# Lines that never come back


def test_line_that_never_comes_back_fails_its_record_after_its_tries(lab):
    """A call in a batch has had a try: a provider that leaves it out is not asked for ever."""
    lab.server.batch_plan = BatchPlan(lost=1)
    run_id = lab.start(ids=lab.ids[:3], max_tries=3)
    for _ in range(30):
        lab.store.write(lambda tx: tx.run("UPDATE run_items SET not_before = 0 WHERE state = 'waiting'"))
        if lab.step(run_id) != "running":
            break
    run = lab.ledger.run(run_id)
    assert (run["state"], run["done"], run["failed"]) == ("finished", 2, 1)
    assert len(lab.server.batches) == 3
    assert [row["kind"] for row in lab.ledger.failures(run_id)] == ["unanswered"]


def test_answered_line_uses_up_no_try(lab):
    """What was answered, and what was never sent, has its try given back: a later failure has all of them."""
    answered_twice = lambda request, n: Answer(200, completion("what?", request)) if n <= 1 else good(request, n)  # noqa: E731
    lab.server.behave(answered_twice)
    run_id = lab.start(ids=lab.ids[:1])
    lab.step(run_id)
    lab.step(run_id)
    assert lab.ledger.tries(run_id, lab.ids[0]) == 1


def test_line_that_fails_for_every_record_pauses_the_run(lab):
    """A refused key in the lines of a file is no reason to send the same file again and again."""
    lab.server.behave(MODES["unauthorized"])
    run_id = lab.start()
    assert lab.through(run_id) == "paused"
    assert len(lab.server.batches) == 1 and "key" in recalled(lab.ledger.run(run_id)["message"])


def test_line_that_stands_twice_is_paid_once(lab):
    """A provider that repeats itself is read once."""
    lab.server.batch_plan = BatchPlan(twice=True)
    run_id = lab.start()
    assert lab.through(run_id) == "finished"
    assert lab.ledger.run(run_id)["spent"] == pytest.approx(lab.store.db.value("SELECT SUM(cost) FROM calls"))
    assert audit(lab.store) == []


# Other runs, other processes, other batches


def test_run_over_records_in_a_batch_waits_quietly(lab):
    """It says what it waits for, writes next to nothing meanwhile, takes no rate limit, and goes on after the batch."""
    lab.server.batch_plan = BatchPlan(delay=3600)
    first = lab.start()
    lab.step(first)
    lab.instance.change_settings({"requests_per_minute": 60})
    second = lab.start(executor="local")
    worker, written = Worker(lab.instance), []
    assert worker.move_run(second) == "running"
    assert f"run {first}" in recalled(lab.ledger.run(second)["message"])
    write = lab.store.db.write
    lab.store.db.write = lambda work: written.append(work) or write(work)
    assert [worker.move_run(second) for _ in range(20)] == ["running"] * 20
    lab.store.db.write = write
    assert written == []
    assert lab.store.db.all("SELECT * FROM rate_limits") == []
    lab.server._plans["batch_1"] = BatchPlan()
    assert lab.through(first) == "finished"
    assert worker.move_run(second) == "finished"
    run = lab.ledger.run(second)
    assert (run["reused"], run["calls"], recalled(run["message"]), len(lab.server.requests)) == (COUNT, 0, None, COUNT)


def test_a_run_that_goes_on_says_no_more_that_it_waits(lab):
    """Once its first calls are sent, the sentence on the batch of another run is gone, though more is to come."""
    lab.server.batch_plan = BatchPlan(delay=3600)
    first = lab.start(ids=lab.ids[:2])
    lab.step(first)
    second = lab.start(executor="openai-batch", ids=lab.ids[:2])
    lab.step(second)
    assert f"run {first}" in recalled(lab.ledger.run(second)["message"])
    lab.store.write(lambda tx: lab.ledger.add_items(tx, second, lab.ids[2:]))
    lab.server._plans["batch_1"] = BatchPlan()
    lab.step(first)
    assert lab.step(second) == "running"
    assert recalled(lab.ledger.run(second)["message"]) is None


def test_cascade_finds_its_answers_though_other_records_were_pinned_meanwhile(lab):
    """What its first prompt showed when it was sent is kept: the paid answer is read, and nothing is sent anew."""
    task = lab.instance.project_task(lab.project, "sentiment")
    decisions = lab.instance.decisions(lab.project, task)
    kim = lab.store.write(lambda tx: lab.store.people.create(tx, "kim", None, "reviewer"))
    for n, id_ in enumerate(lab.ids[:4]):
        decisions.decide(kim, Decision(id_, "approve", f"request-{n}", 0, value="positive"))
    keys = [lab.store.records.get(id_).key for id_ in lab.ids]
    task_settings = {"backend": "openai", "mode": "cascade", "k": 1, "executor": "openai-batch"}
    lab.instance.change_task(lab.project["id"], "sentiment", task_settings | {"pinned": keys[:1]})
    run_id = lab.start(ids=lab.ids[4:], mode="cascade", k=1)
    lab.step(run_id)
    lab.instance.change_task(lab.project["id"], "sentiment", task_settings | {"pinned": keys[1:2]})
    assert lab.through(run_id) == "finished"
    made = {one.made for id_ in lab.ids[4:] for one in lab.store.suggestions.of_record(id_, "sentiment")}
    assert (len(lab.server.requests), made) == (COUNT - 4, {("cascade: fixed",)})


def test_batch_is_found_behind_hundreds_of_others(lab, monkeypatch):
    """The provider lists a hundred at a time; the list is read back to when the batch was made."""
    run_id = lab.start()
    with monkeypatch.context() as patch:
        patch.setattr(lab.store.batches, "sent", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lab.step(run_id)
    for _ in range(250):
        lab.server._new_batch({"input_file_id": "file-1", "metadata": {"labeler": "of somebody else"}})
    monkeypatch.setattr(batch_executor, "_ABANDONED", 0.0)
    assert lab.through(run_id) == "finished"
    (batch,) = lab.store.batches.of_run(run_id)
    assert batch["remote_id"] == "batch_1"


def test_list_of_batches_is_not_read_further_back_than_needed(lab):
    """Batches that are days older than ours cannot be ours, and the pages before them are not asked for."""
    client = lab.client()
    file_id = client.upload(b"{}")
    for n in range(250):
        batch = lab.server._new_batch({"input_file_id": file_id})
        lab.server.batches[batch["id"]]["created_at"] -= (250 - n) * 1000
    made = time.time() - 3000
    assert len(list(client.since(made))) == 100
    assert len(list(client.since(0))) == 250


def test_batch_that_takes_long_to_upload_is_sent_once(lab, monkeypatch, tmp_path):
    """A process that uploads says that it lives; another one does not take its batch for abandoned."""
    monkeypatch.setattr(batch_executor, "_ABANDONED", 0.5)
    run_id = lab.start()
    client, uploading, go_on = type(lab.client()), threading.Event(), threading.Event()
    upload = client.upload

    def slow(self, content):
        uploading.set()
        assert go_on.wait(20)
        return upload(self, content)

    monkeypatch.setattr(client, "upload", slow)
    sender = threading.Thread(target=lambda: lab.step(run_id))
    sender.start()
    assert uploading.wait(20)
    (batch,) = lab.store.batches.of_run(run_id)
    other = open_instance(tmp_path / "instance", lab.server.base_url)
    until(
        lambda: (
            Worker(other).move_run(run_id) and lab.store.batches.of_run(run_id)[0]["alive_at"] > batch["alive_at"] + 0.5
        )
    )
    go_on.set()
    sender.join()
    assert lab.through(run_id) == "finished"
    other.close()
    assert len(lab.server.batches) == 1 and len(lab.server.requests) == COUNT


def test_batch_that_was_given_up_while_it_was_made_is_cancelled(lab, monkeypatch):
    """A process that stood still for too long finds its batch given up: what it made at the provider is called off."""
    lab.server.batch_plan = BatchPlan(delay=3600)
    run_id = lab.start(budget=1.0)
    client = type(lab.client())
    create = client.create_batch

    def late(self, file_id, metadata):
        made = create(self, file_id, metadata)
        (batch,) = lab.store.batches.of_run(run_id)
        lab.store.write(lambda tx: lab.store.batches.end(tx, batch, "never sent", "unsent"))
        return made

    with monkeypatch.context() as patch:
        patch.setattr(client, "create_batch", late)
        lab.step(run_id)
    assert lab.server.batches["batch_1"]["status"] in ("cancelling", "cancelled")
    lab.server.batch_plan = BatchPlan()
    assert lab.through(run_id) == "finished"
    assert len(lab.server.requests) == COUNT


def test_run_of_another_executor_is_not_finished_over_a_batch(lab):
    """Whatever moves a run: while some of its items are in a batch it has not ended."""
    lab.server.batch_plan = BatchPlan(delay=3600)
    run_id = lab.start()
    lab.step(run_id)
    assert lab.store.write(lambda tx: lab.ledger.settle(tx, run_id, True)) == "running"


def test_batch_whose_making_got_no_answer_is_found_and_not_made_twice(lab, monkeypatch):
    """The provider makes the batch and its answer is lost on the way: it is looked for by its tag, and paid once."""
    run_id = lab.start()
    client = type(lab.client())
    create = client.create_batch

    def lost(self, file_id, metadata):
        create(self, file_id, metadata)
        raise CallFailed(BackendFailure("timeout", "No answer in time", retryable=True))

    with monkeypatch.context() as patch:
        patch.setattr(client, "create_batch", lost)
        assert lab.step(run_id) == "running"
    monkeypatch.setattr(batch_executor, "_ABANDONED", 0.0)
    assert lab.through(run_id) == "finished"
    assert len(lab.server.batches) == 1 and len(lab.server.requests) == COUNT
