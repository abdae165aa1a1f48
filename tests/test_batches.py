"""The executor openai-batch: files of calls, half the price, and nothing lost or paid twice on the way."""

from __future__ import annotations

import threading

import pytest
from fake_openai import Answer, BatchPlan, FakeOpenAI, completion, good
from helpers import numbered, open_instance

from labeler.backends.prices import cost
from labeler.prelabel import batch_executor, runs
from labeler.prelabel.batch_executor import BatchExecutor
from labeler.prelabel.calls import EXPECTED_ANSWER, Pace
from labeler.worker import Worker

COUNT = 12


@pytest.fixture(autouse=True)
def no_key_of_ours(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
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
    assert batch["state"] == "sent" and "in_progress" in batch["message"]


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
    client = type(lab.instance.suggester(lab.project, lab.instance.project_task(lab.project, "sentiment"),
                                         {"backend": "openai"}).backend.batches)  # fmt: skip
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
        executor = BatchExecutor(lab.store, run_id, suggester, Pace(), info, threading.Event())
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
    assert "refused the batch" in lab.ledger.run(run_id)["message"]
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
    assert "has no batches" in lab.ledger.run(run_id)["message"]
