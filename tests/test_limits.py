"""Rate limits and budgets: shared by all processes, checked before every call."""

from __future__ import annotations

import pytest

from labeler.records import RateLimits
from labeler.store import Store
from labeler.store import ledger_runs as ledger_module
from labeler.store import limits as limits_module
from labeler.store.ledger import Budgets
from labeler.store.limits import SetLimits, worth_learning

NOTHING_SET = SetLimits()
SERVER = "http://127.0.0.1:1/v1 tiny"


class Clock:
    """The time that the buckets see."""

    now = 1_800_000_000.0

    def time(self):
        return self.now

    def strftime(self, form, moment):
        import time

        return time.strftime(form, moment)

    def gmtime(self):
        import time

        return time.gmtime(self.now)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(limits_module, "time", clock)
    monkeypatch.setattr(ledger_module, "time", clock)
    return clock


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "labeler.db") as opened:
        yield opened


def reserve(store, tokens=0, given=NOTHING_SET):
    return store.write(lambda tx: store.limits.reserve(tx, SERVER, tokens, given))


def learn(store, **said):
    store.write(lambda tx: store.limits.learn(tx, SERVER, RateLimits(**said)))


def sent_in(store, clock, seconds, given, tokens=0):
    """How many calls go out in some seconds, each sent as soon as it may be."""
    end, count = clock.now + seconds, 0
    while True:
        wait = reserve(store, tokens, given)
        if wait == 0:
            count += 1
        elif clock.now + wait > end:
            return count
        else:
            clock.now += wait


def test_server_of_which_nothing_is_known_holds_nobody_back(store, clock):
    """No limit is guessed, and nothing is written for it."""
    assert [reserve(store, 10_000) for _ in range(50)] == [0.0] * 50
    assert store.limits.known(SERVER) is None


def test_requests_a_minute_are_kept(store, clock):
    """In five minutes at 60 a minute go out 300, and the burst at the start is a sixth of a minute's."""
    assert sent_in(store, clock, 300, SetLimits(requests=60)) == pytest.approx(310, abs=1)


def test_tokens_a_minute_are_kept(store, clock):
    """Large prompts are held back by their tokens where the requests would do."""
    assert sent_in(store, clock, 300, SetLimits(requests=6000, tokens=6000), tokens=100) == pytest.approx(310, abs=2)


def test_two_processes_share_one_limit(tmp_path, clock):
    """The buckets lie in the database: whoever sends takes from the same one."""
    given = SetLimits(requests=60)
    with Store(tmp_path / "labeler.db") as one, Store(tmp_path / "labeler.db") as other:
        sent = [reserve(one, 0, given) == 0 for _ in range(8)] + [reserve(other, 0, given) == 0 for _ in range(8)]
    assert sum(sent) == 10


def test_call_larger_than_the_bucket_goes_when_it_is_full(store, clock):
    """A prompt of 5,000 tokens at 6,000 a minute waits for a full bucket, not for ever."""
    given = SetLimits(tokens=6000)
    assert reserve(store, 5000, given) == 0.0
    assert 0 < reserve(store, 5000, given) <= 60
    clock.now += 60
    assert reserve(store, 5000, given) == 0.0


def test_limits_are_learned_from_headers(store, clock):
    """What a server says of its limits holds from then on."""
    learn(store, requests=60, tokens=10_000, remaining_requests=3, remaining_tokens=9000)
    assert [reserve(store) for _ in range(3)] == [0.0] * 3
    assert reserve(store) == pytest.approx(1.0, abs=0.1)


def test_nothing_left_holds_until_the_reset(store, clock):
    """A server that says 0 remain, full again in 20 s, is not asked before."""
    learn(store, requests=600, remaining_requests=0, reset_requests=20.0)
    assert reserve(store) == pytest.approx(20.0)
    clock.now += 20.1
    assert reserve(store) == 0.0


def test_refusal_holds_back_every_process(store, clock):
    """After a 429 nobody sends for as long as the server said, and a longer hold is never shortened."""
    store.write(lambda tx: store.limits.hold(tx, SERVER, 30.0))
    store.write(lambda tx: store.limits.hold(tx, SERVER, 5.0))
    assert reserve(store) == pytest.approx(30.0)


def test_clock_set_back_holds_nobody_for_a_day(store, clock):
    """A hold that seems to end in a day is one of another time: it is passed over, and nothing is refilled."""
    store.write(lambda tx: store.limits.hold(tx, SERVER, 30.0))
    clock.now -= 86_400
    assert reserve(store, 0, SetLimits(requests=60)) == 0.0


def test_real_tokens_correct_the_estimate(store, clock):
    """An answer that took more tokens than was thought leaves fewer for the next."""
    given = SetLimits(tokens=6000)
    assert reserve(store, 100, given) == 0.0
    store.write(lambda tx: store.limits.correct(tx, SERVER, 900))
    assert reserve(store, 100, given) > 0


@pytest.mark.parametrize(
    ("said", "before", "worth"),
    [
        (RateLimits(requests=100, remaining_requests=90), None, True),
        (RateLimits(requests=100, remaining_requests=90), RateLimits(requests=100), False),
        (RateLimits(requests=100, remaining_requests=9), RateLimits(requests=100), True),
        (RateLimits(requests=200, remaining_requests=190), RateLimits(requests=100), True),
    ],
)
def test_headers_are_written_only_where_they_say_something_new(said, before, worth):
    """Another limit, or little left, is worth a write; plenty left is not."""
    assert worth_learning(said, before) is worth


# Budgets


@pytest.fixture
def run(store):
    def make(budget=None, **settings):
        def work(tx):
            project = store.projects.create(tx, f"shop {budget} {settings}", "ko", settings)
            id_ = store.ledger.create_run(tx, project, "sentiment", {}, budget, None)
            return project, id_

        return store.write(work)

    return make


def spend(store, project, amount):
    store.write(lambda tx: store.ledger.spend(tx, project, amount))


def test_run_without_a_budget_is_never_halted(store, run):
    """No budget is no limit."""
    project, id_ = run()
    spend(store, project, 1000.0)
    assert not store.ledger.budgets(id_) and store.ledger.halted(id_) is None


def test_budget_of_the_project_halts_all_its_runs(store, run):
    """What all runs of a project cost together counts, whatever the day."""
    project, id_ = run(budget_project=2.0)
    spend(store, project, 1.5)
    assert store.ledger.halted(id_) is None
    spend(store, project, 0.5)
    assert "project's budget of $2 is reached" in store.ledger.halted(id_)
    assert store.write(lambda tx: store.ledger.claim_items(tx, id_, "t", 5, 60.0)) == []


def test_budget_of_a_day_halts_until_the_next_one(store, run, clock):
    """What was spent today counts today; tomorrow the run may go on."""
    project, id_ = run(budget_day=1.0)
    spend(store, project, 1.0)
    assert "$1 a day is reached" in store.ledger.halted(id_)
    clock.now += 86_400
    assert store.ledger.halted(id_) is None


def test_budgets_of_run_project_and_day_are_told_apart(store, run):
    """Each has its own limit, and the smallest that is reached says its name."""
    _, id_ = run(0.5, budget_project=5.0, budget_day=1.0)
    assert store.ledger.budgets(id_) == Budgets(0.5, 5.0, 1.0)
