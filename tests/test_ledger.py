"""The ledger: leases, fences, calls that are paid once, and the life of a run."""

from __future__ import annotations

import sqlite3
import time

import pytest
from helpers import World, numbered

from labeler.errors import Conflict, InputError, NotFound
from labeler.prelabel import runs
from labeler.sentence import recalled
from labeler.store import Store

ANSWER = {
    "answer": '{"sentiment": "positive"}', "finish": "stop", "score": None, "tokens_in": 100, "tokens_out": 5,
    "tokens_cached": None, "cost": 0.001,
}  # fmt: skip


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, numbered(20))
    yield made
    made.store.close()


@pytest.fixture
def ledger(world):
    return world.store.ledger


@pytest.fixture
def run_id(world):
    return runs.start(world.store, world.project_id, "sentiment", world.records, {"k": 2}, budget=0.01)


def claim(world, run_id, token="a", limit=5, lease=60.0):
    return world.store.write(lambda tx: world.store.ledger.claim_items(tx, run_id, token, limit, lease))


def begin(world, fingerprint="f", token="a", lease=60.0, record=1):
    call = {
        "fingerprint": fingerprint, "project_id": 1, "run_id": None, "record_id": record, "task": "sentiment",
        "backend": "openai", "model_id": "m",
    }  # fmt: skip
    return world.store.write(lambda tx: world.store.ledger.begin_call(tx, call, token, lease))


def answer(world, call, token="a"):
    return world.store.write(lambda tx: world.store.ledger.answer_call(tx, call["id"], token, ANSWER))


def fail(world, call, kind, token="a"):
    world.store.write(lambda tx: world.store.ledger.fail_call(tx, call["id"], token, kind, "it failed"))


def spend(world, run_id, amount):
    world.store.write(lambda tx: world.store.ledger.count(tx, run_id, spent=amount))


# Items


def test_item_is_leased_to_one_worker(world, ledger, run_id):
    """I3: two workers never hold one item, and all items are handed out in order."""
    first, second = claim(world, run_id, "a", 12), claim(world, run_id, "b", 12)
    assert first + second == world.records
    assert claim(world, run_id, "c") == []
    assert ledger.item_counts(run_id) == {"leased": 20}


def test_lease_that_ran_out_is_handed_on_and_fenced(world, ledger, run_id):
    """After its lease an item goes to another worker; the first can no longer end it."""
    (id_,) = claim(world, run_id, "slow", 1, lease=0.05)
    time.sleep(0.1)
    assert claim(world, run_id, "quick", 1) == [id_]

    def finish(token):
        return world.store.write(lambda tx: ledger.finish_item(tx, run_id, id_, token, "done"))

    assert (finish("slow"), finish("quick"), finish("quick")) == (False, True, False)
    assert ledger.tries(run_id, id_) == 2


def test_lease_of_a_clock_that_was_set_back_is_not_believed(world, run_id):
    """FAULTS 11: an item that claims to be leased until tomorrow is due now."""
    (id_,) = claim(world, run_id, "a", 1)
    world.store.write(lambda tx: tx.run("UPDATE run_items SET lease_until = lease_until + 86400"))
    assert id_ in claim(world, run_id, "b", 20)


def test_item_that_was_put_back_waits(world, ledger, run_id):
    """An item that is to be tried later is not due before, and counts its tries."""
    (id_,) = claim(world, run_id, "a", 1)
    world.store.write(lambda tx: ledger.put_back(tx, run_id, id_, "a", 0.2, "server", "it failed"))
    assert id_ not in claim(world, run_id, "a", 20)
    assert ledger.next_due(run_id) == pytest.approx(time.time() + 0.2, abs=0.1)
    time.sleep(0.25)
    assert claim(world, run_id, "a", 20) == [id_]
    world.store.write(lambda tx: ledger.put_back(tx, run_id, id_, "a", 0.0, None, None, count_try=False))
    assert ledger.tries(run_id, id_) == 1


def test_nothing_is_claimed_beyond_the_budget(world, ledger, run_id):
    """FAULTS 29: once what was spent reaches the budget no item is handed out; a larger budget goes on."""
    assert len(claim(world, run_id)) == 5
    spend(world, run_id, 0.01)
    assert claim(world, run_id) == []
    world.store.write(lambda tx: ledger.set_budget(tx, run_id, 0.02))
    assert len(claim(world, run_id)) == 5


@pytest.mark.parametrize("state", ["paused", "cancelled", "finished"])
def test_nothing_is_claimed_from_a_run_that_stands(world, ledger, run_id, state):
    """A run that is paused, cancelled or finished hands out nothing."""
    world.store.write(lambda tx: ledger.set_run(tx, run_id, state))
    assert claim(world, run_id) == []


# Calls


def test_call_is_on_record_before_it_is_sent(world):
    """The row says "sent" at once; another worker that meets the same question waits for it."""
    call = begin(world)
    assert (call["state"], call["sends"], call["repeat"]) == ("sent", 1, False)
    assert begin(world, token="b") is None
    assert begin(world, token="a") is None


def test_answered_call_is_never_sent_again(world, ledger):
    """I2: after the answer is committed everybody gets it from the ledger, in any run."""
    call = begin(world)
    answer(world, call)
    again = begin(world, token="b")
    assert (again["state"], again["answer"], again["sends"]) == ("answered", ANSWER["answer"], 1)
    assert ledger.answered("f")["cost"] == 0.001
    assert ledger.answered("g") is None


def test_lost_call_is_repeated_after_its_lease_and_counted(world):
    """A worker that died with a call in flight leaves it to the next one; that may be paid twice, and says so."""
    begin(world, lease=0.05)
    time.sleep(0.1)
    again = begin(world, token="b")
    assert (again["state"], again["sends"], again["repeat"]) == ("sent", 2, True)


@pytest.mark.parametrize(
    ("kind", "repeat"),
    [("timeout", True), ("connection", True), ("rate_limit", False), ("server", False), ("auth", False)],
)
def test_failed_call_is_a_repeat_only_where_it_may_have_been_billed(world, kind, repeat):
    """A refusal costs nothing; an answer that did not arrive may have cost something."""
    fail(world, begin(world), kind)
    assert begin(world, token="b")["repeat"] is repeat


def test_answer_after_the_lease_is_kept_once(world, ledger):
    """A late answer was paid for: it is stored, unless the other one was there first."""
    late = begin(world, lease=0.05)
    time.sleep(0.1)
    other = begin(world, token="b")
    assert answer(world, late, "a")
    assert ledger.answered("f")
    assert not answer(world, other, "b")
    assert begin(world, token="c")["state"] == "answered"


def test_late_failure_does_not_undo_an_answer(world, ledger):
    """Whoever lost its call cannot mark it as failed any more."""
    late = begin(world, lease=0.05)
    time.sleep(0.1)
    answer(world, begin(world, token="b"), "b")
    fail(world, late, "timeout", "a")
    assert ledger.answered("f")["error_kind"] is None


# Runs


def test_run_is_queued_only_when_all_its_items_stand(world, ledger, run_id):
    """A worker never sees half a run."""
    run = ledger.run(run_id)
    assert (run["state"], run["total"], run["settings"], run["budget"]) == ("queued", 20, {"k": 2}, 0.01)
    assert ledger.open_runs() == [run_id]


def test_run_over_nothing_is_refused(world):
    """A run without records says why it would be empty."""
    with pytest.raises(InputError, match="--again"):
        runs.start(world.store, world.project_id, "sentiment", [], {})


def test_selection_leaves_out_what_has_a_suggestion_or_a_decision(world):
    """A run takes pending records without a suggestion; with again also those that have one; never decided ones."""
    world.suggest(world.records[0])
    world.approve(world.records[1])
    chosen = list(runs.select(world.store, world.project_id, "sentiment", None, False))
    assert chosen == world.records[2:]
    again = list(runs.select(world.store, world.project_id, "sentiment", None, True))
    assert again == [world.records[0], *world.records[2:]]
    assert list(runs.select(world.store, world.project_id, "sentiment", 3, False)) == world.records[2:5]


def test_cancel_and_resume(world, ledger, run_id):
    """A cancelled run can be taken up again, with another budget; a finished one can be neither."""
    runs.cancel(world.store, run_id)
    assert ledger.run(run_id)["state"] == "cancelled" and ledger.open_runs() == []
    with pytest.raises(Conflict):
        runs.cancel(world.store, run_id)
    runs.resume(world.store, run_id, budget=5.0)
    assert (ledger.run(run_id)["state"], ledger.run(run_id)["budget"]) == ("queued", 5.0)
    with pytest.raises(Conflict):
        runs.resume(world.store, run_id)
    world.store.write(lambda tx: ledger.set_run(tx, run_id, "finished"))
    for act in (runs.cancel, runs.resume):
        with pytest.raises(Conflict):
            act(world.store, run_id)


def test_refused_resume_leaves_the_budget_alone(world, ledger, run_id):
    """A budget that comes with a resume that is not possible is not stored."""
    with pytest.raises(Conflict):
        runs.resume(world.store, run_id, budget=999.0)
    assert ledger.run(run_id)["budget"] == 0.01


def test_state_moves_only_from_where_it_is_expected(world, ledger, run_id):
    """A worker that wants to pause a run which was cancelled meanwhile changes nothing."""
    runs.cancel(world.store, run_id)
    moved = world.store.write(lambda tx: ledger.set_run(tx, run_id, "paused", "late", ("queued", "running")))
    assert not moved and recalled(ledger.run(run_id)["message"]) == "cancelled"


def test_failures_are_summed_up_by_reason(world, ledger, run_id):
    """The most frequent reason comes first, with an example message."""
    for n, id_ in enumerate(claim(world, run_id, "a", 6)):
        kind = "timeout" if n < 4 else "request"
        world.store.write(
            lambda tx, id_=id_, kind=kind: ledger.finish_item(tx, run_id, id_, "a", "failed", kind, f"{kind}!")
        )
    assert [(row["kind"], recalled(row["message"]), row["n"]) for row in ledger.failures(run_id)] == [
        ("timeout", "timeout!", 4), ("request", "request!", 2),
    ]  # fmt: skip
    assert ledger.item_counts(run_id) == {"failed": 6, "waiting": 14}


def test_costs_of_a_project_are_summed(world, ledger, run_id):
    """The page's number is the sum of its runs."""
    spend(world, run_id, 0.25)
    other = runs.start(world.store, world.project_id, "sentiment", world.records[:2], {})
    spend(world, other, 0.5)
    assert ledger.project_cost(world.project_id)["spent"] == pytest.approx(0.75)
    assert [run["id"] for run in ledger.runs(world.project_id)] == [other, run_id]
    assert ledger.runs(world.project_id, task="emotion") == []
    with pytest.raises(NotFound):
        ledger.run(999)


# Cost, order, and what stands in an old database


def test_claim_costs_the_same_however_much_is_done(world, ledger, run_id):
    """Items that have ended are never walked over: not by a claim, and not by the question what is due."""

    def steps(tx):
        """Thousands of steps of SQLite's machine: the same on a busy machine."""
        count = []
        tx.connection.set_progress_handler(lambda: count.append(1) and 0, 1000)
        assert len(ledger.claim_items(tx, run_id, "t", 8, 60.0)) == 8
        ledger.next_due(run_id, tx)
        tx.connection.set_progress_handler(None, 0)
        return len(count)

    def work(tx):
        few = steps(tx)
        tx.run("PRAGMA defer_foreign_keys = ON")
        done = [(run_id, -n) for n in range(1, 180_001)]
        tx.many("INSERT INTO run_items (run_id, record_id, state) VALUES (?, ?, 'done')", done)
        many = steps(tx)
        tx.run("DELETE FROM run_items WHERE record_id < 0")
        return few, many

    few, many = world.store.write(work)
    assert many <= few + 1 <= 5


def test_paid_answers_are_claimed_first_and_over_budget_alone(world, ledger, run_id):
    """An item whose answer is there comes first; once the budget is reached it is the only one, and once."""
    last = world.records[-1]
    call = {
        "fingerprint": "f", "project_id": 1, "run_id": run_id, "record_id": last, "task": "sentiment",
        "backend": "openai", "model_id": "m",
    }  # fmt: skip
    begun = world.store.write(lambda tx: ledger.begin_call(tx, call, "z", 60.0))
    world.store.write(lambda tx: ledger.answer_call(tx, begun["id"], "z", ANSWER, run_id))
    spend(world, run_id, 0.01)
    assert ledger.next_due(run_id) == 0
    assert claim(world, run_id) == [last]
    assert ledger.next_due(run_id, billed=True) > time.time()
    world.store.write(lambda tx: ledger.put_back(tx, run_id, last, "a", 0.0, None, None))
    assert (claim(world, run_id), ledger.next_due(run_id)) == ([], None)
    world.store.write(lambda tx: ledger.set_budget(tx, run_id, None))
    assert last in claim(world, run_id, limit=20)


def test_paid_answer_of_a_cancelled_run_waits_for_a_worker(world, ledger, run_id):
    """A run that was cancelled with a paid answer is named to the workers until a flow has looked at it."""
    first = world.records[0]
    call = {
        "fingerprint": "f", "project_id": 1, "run_id": run_id, "record_id": first, "task": "sentiment",
        "backend": "openai", "model_id": "m",
    }  # fmt: skip
    begun = world.store.write(lambda tx: ledger.begin_call(tx, call, "z", 60.0))
    runs.cancel(world.store, run_id)
    assert ledger.to_finish() == []
    world.store.write(lambda tx: ledger.answer_call(tx, begun["id"], "z", ANSWER, run_id))
    assert ledger.to_finish() == [run_id]
    assert claim(world, run_id) == [first]
    world.store.write(lambda tx: ledger.finish_item(tx, run_id, first, "a", "done"))
    assert ledger.to_finish() == []


def test_answer_that_is_asked_for_anew_steps_aside(world, ledger):
    """The row of the earlier answer stays as it was, under another fingerprint; the newest answers from then on."""
    first = begin(world)
    answer(world, first)
    call = {
        "fingerprint": "f", "project_id": 1, "run_id": None, "record_id": 1, "task": "sentiment", "backend": "openai",
        "model_id": "m",
    }  # fmt: skip
    second = world.store.write(lambda tx: ledger.begin_call(tx, call, "b", 60.0, anew=True))
    assert (second["id"] != first["id"], second["repeat"]) == (True, True)
    rows = {row["id"]: row["state"] for row in world.store.db.all("SELECT * FROM calls")}
    assert rows == {first["id"]: "answered", second["id"]: "sent"}
    answer(world, second, "b")
    assert ledger.answered("f")["id"] == second["id"]


def test_item_of_a_clock_that_was_set_back_is_due(world, ledger, run_id):
    """FAULTS 11: an item that was put back until tomorrow, by the clock of before, waits no day."""
    world.store.write(lambda tx: tx.run("UPDATE run_items SET not_before = :t", {"t": time.time() + 86_400}))
    assert ledger.next_due(run_id) == 0
    assert len(claim(world, run_id, limit=20)) == 20


def test_migration_marks_what_was_paid_and_never_finished(tmp_path):
    """A run that its budget paused with answers in the ledger is finished by the first worker after an upgrade."""
    world = World(tmp_path, numbered(3))
    run_id = runs.start(world.store, world.project_id, "sentiment", world.records, {})
    world.store.write(lambda tx: world.store.ledger.set_run(tx, run_id, "running"))
    world.store.write(
        lambda tx: tx.run(
            """INSERT INTO calls (fingerprint, project_id, run_id, record_id, task, backend, state, created_at)
               VALUES ('f', 1, :run, :record, 'sentiment', 'openai', 'answered', 1)""",
            {"run": run_id, "record": world.records[0]},
        )
    )
    world.store.write(lambda tx: world.store.ledger.set_run(tx, run_id, "paused", "The budget"))
    world.store.close()
    connection = sqlite3.connect(tmp_path / "labeler.db")
    dropped = {
        "run_items": ("answers", "shown"), "batches": ("alive_at",), "batch_calls": ("taken",),
        "runs": ("again", "decided", "seconds", "moving_since", "filling_until"),
    }  # fmt: skip
    for statement in (
        *(f"DROP INDEX {name}" for name in ("run_items_answers", "run_items_leased", "calls_record")),
        *(f"ALTER TABLE {table} DROP COLUMN {name}" for table, names in dropped.items() for name in names),
        "DELETE FROM _sqlite_migrations WHERE name = 'm005_ledger'",
    ):
        connection.execute(statement)
    connection.commit()
    connection.close()
    with Store(tmp_path / "labeler.db") as store:
        assert store.ledger.to_finish() == [run_id]
        assert store.write(lambda tx: store.ledger.claim_items(tx, run_id, "t", 5, 60.0)) == [world.records[0]]
