"""Processes that are killed with -9 at random moments: nothing acknowledged is lost, nothing answered is paid again."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import threading
import time

import pytest
from fake_openai import Answer, FakeOpenAI, completion
from helpers import World, kill, numbered, open_instance, python, until

from labeler.annotation.decisions import Decision
from labeler.errors import StoreError
from labeler.prelabel import runs
from labeler.store import Store
from labeler.worker import Worker


def slow(delay):
    return lambda request, n: Answer(200, completion('{"sentiment": "neutral"}', request), delay=delay)


def check_whole(store):
    """What holds for every store at every time, whoever was killed."""
    assert store.check() == []
    in_force = store.db.all(
        """SELECT record_id, COUNT(*) AS n FROM annotations WHERE superseded_by IS NULL AND state <> 'withdrawn'
           GROUP BY record_id HAVING n > 1"""
    )
    assert [dict(row) for row in in_force] == []
    torn = store.db.all(
        """SELECT w.record_id FROM work w LEFT JOIN annotations a ON a.id = w.annotation_id
           WHERE (w.state = 'pending') <> (w.annotation_id IS NULL) OR a.superseded_by IS NOT NULL
           OR (a.id IS NOT NULL AND a.state <> w.state)"""
    )
    assert [dict(row) for row in torn] == []
    events = store.db.value("SELECT COUNT(*) FROM events WHERE annotation_id IS NOT NULL")
    assert events == store.db.value("SELECT COUNT(*) FROM annotations")


# FAULTS 1: the server and the store

ZYGOTE = """
import os, sys
from pathlib import Path
from labeler.app import create_app
from labeler.instance import Instance
from labeler.serving import Serving, run_server
folder = Path(sys.argv[1])
with Instance(folder) as instance:
    create_app(instance)
print("warm", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        print("pid", os.getpid(), flush=True)
        run_server(Instance(folder), Serving("127.0.0.1", 0, no_worker=True))
        os._exit(0)
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""
"""Loads everything once and forks a fresh server for each line, so that forty starts take seconds."""


def signed_in(instance, reviewer_id):
    """Headers of a browser that is signed in: a session cookie and the CSRF token that belongs to it."""
    from flask import session
    from flask_wtf.csrf import generate_csrf

    from labeler.app import create_app

    app = create_app(instance)
    with app.test_request_context():
        session["reviewer"], session["epoch"] = reviewer_id, instance.store.people.get(reviewer_id)["epoch"]
        token = generate_csrf()
        cookie = app.session_interface.get_signing_serializer(app).dumps(dict(session))
    cookie = f"{app.config['SESSION_COOKIE_NAME']}={cookie}"
    return {"Cookie": cookie, "X-CSRFToken": token, "Content-Type": "application/json"}


class Clients:
    """Eight browsers that approve record after record, and send a decision again until it is acknowledged."""

    def __init__(self, path, headers, record_ids):
        self.path, self.headers = path, headers
        self.left, self.port = list(reversed(record_ids)), 0
        self.acknowledged: dict[int, int] = {}
        self.unexpected: list[str] = []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(8)]

    def work(self):
        while not self.over.is_set() and self.left:
            record = self.left.pop()
            while not self.over.is_set():
                try:
                    status, answer = self.send(record)
                except (OSError, http.client.HTTPException, ValueError):
                    time.sleep(0.005)
                    continue
                if status == 200:
                    self.acknowledged[record] = answer["annotation_id"]
                else:
                    self.unexpected.append(f"{status} {answer}")
                break

    def send(self, record):
        body = {
            "record_id": record, "action": "approve", "value": "positive", "version": 0,
            "request_key": f"client-{record:08d}",
        }  # fmt: skip
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            connection.request("POST", self.path, json.dumps(body), self.headers)
            with connection.getresponse() as response:
                return response.status, json.loads(response.read())


@pytest.mark.slow
def test_killed_server_loses_no_acknowledged_annotation(tmp_path):
    """FAULTS 1: the server is killed some forty times while eight clients submit; all they were told is there."""
    folder = tmp_path / "instance"
    with open_instance(folder, texts=numbered(6000)) as instance:
        store = instance.store
        project = store.projects.all()[0]["id"]
        kim = store.write(lambda tx: store.people.create(tx, "kim", "a password hash", "admin"))
        ids = list(runs.select(store, project, "sentiment", None, True))
        headers = signed_in(instance, kim)
    clients = Clients(f"/projects/{project}/label/sentiment/api/decide", headers, ids)
    zygote = python(ZYGOTE, str(folder), stdin=-1, stderr=-3)
    chance, kills, deadline = random.Random(1), 0, time.monotonic() + 12
    try:
        assert zygote.stdout.readline() == "warm\n"
        for thread in clients.threads:
            thread.start()
        while kills < 40 and (time.monotonic() < deadline or kills < 8):
            zygote.stdin.write("\n")
            zygote.stdin.flush()
            pid = int(zygote.stdout.readline().split()[1])
            clients.port = int(re.search(r":(\d+)$", zygote.stdout.readline().strip()).group(1))
            # Each fifth time while it starts, else while it answers, however long that takes on a busy machine.
            told = len(clients.acknowledged)
            if kills % 5:
                until(lambda told=told: len(clients.acknowledged) >= told + 3, 60)
            time.sleep(chance.uniform(0.0, 0.3))
            os.kill(pid, signal.SIGKILL)
            assert zygote.stdout.readline() == "ended\n"
            kills += 1
        clients.over.set()
        for thread in clients.threads:
            thread.join()
    finally:
        clients.over.set()
        zygote.stdin.close()
        kill(zygote)
    assert clients.unexpected == []
    assert len(clients.acknowledged) > 2 * kills
    with Store(folder / "labeler.db") as store:
        check_whole(store)
        for record, annotation in clients.acknowledged.items():
            row = store.annotations.get(annotation)
            assert (row["record_id"], row["request_key"]) == (record, f"client-{record:08d}")
        assert store.db.value("SELECT COUNT(*) FROM annotations") <= len(clients.acknowledged) + 8


WRITERS = """
import json, os, random, select, signal, sys, threading, time
from helpers import SENTIMENT
from labeler.annotation.decisions import Decision, Decisions
from labeler.store import Store

path, rounds, records = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])

def decide(store, number, out):
    decisions, chance, n = Decisions(store, 1, SENTIMENT), random.Random(number), 0
    while True:
        n += 1
        value = chance.choice(["positive", "neutral", "negative"])
        key = f"key-{number:06d}-{n:06d}"
        decision = Decision(chance.choice(records), "approve", key, 0, value, force=True)
        os.write(out, f"{decisions.decide(1, decision).annotation_id} {key}\\n".encode())

def child(number, out):
    store = Store(path)
    threads = [threading.Thread(target=decide, args=(store, number * 4 + n, out)) for n in range(4)]
    for thread in threads:
        thread.start()
    threads[0].join()

chance, began = random.Random(2), time.monotonic()
for number in range(rounds):
    if number >= 60 and time.monotonic() - began > 12:
        # A busy machine: fewer moments, in the same time.
        break
    back, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(back)
        child(number, out)
        os._exit(1)
    os.close(out)
    if number % 4:
        # Most die while they write, the others while they open.
        select.select([back], [], [], 5)
    time.sleep(chance.uniform(0.0, 0.04))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(back) as stream:
        sys.stdout.write(stream.read())
print("all killed")
"""


@pytest.mark.slow
def test_killed_writers_lose_no_acknowledged_annotation(tmp_path):
    """FAULTS 1, I1: a process of four writers is killed at 200 random moments; every number it gave out is there."""
    world = World(tmp_path, numbered(30), synchronous="FULL")
    world.store.close()
    process = python(WRITERS, str(world.store.path), "200", json.dumps(world.records))
    *lines, last = process.communicate()[0].splitlines()
    assert last == "all killed"
    whole = [line.split() for line in lines if len(line.split()) == 2]
    assert len(whole) > 40
    with Store(world.store.path) as store:
        check_whole(store)
        stored = {row["id"]: row["request_key"] for row in store.db.all("SELECT id, request_key FROM annotations")}
        assert all(stored[int(number)] == key for number, key in whole)


def test_decision_that_fails_at_any_step_leaves_nothing(tmp_path):
    """FAULTS 4: interrupted at every point in turn, a decision is stored whole or not at all, until it passes."""
    world = World(tmp_path)
    record, left = world.records[0], [10**9]

    def step():
        left[0] -= 1
        return left[0] == 0

    world.store.write(lambda tx: tx.connection.set_progress_handler(step, 5))
    for allowed in range(1, 5000):
        left[0] = allowed
        try:
            world.decisions.decide(world.kim, Decision(record, "approve", "one-request", 0, "positive"))
        except StoreError:
            assert world.state(record) == "pending"
            assert world.store.db.value("SELECT COUNT(*) FROM annotations") == 0
            assert world.store.db.value("SELECT COUNT(*) FROM events") == 0
        else:
            break
    assert 20 < allowed < 4999
    assert world.value(record) == "positive"
    check_whole(world.store)
    world.store.close()


def test_writer_survives_a_rollback_that_fails(tmp_path):
    """Where not even taking back works, the writer opens the file anew instead of refusing everything from then on."""
    world = World(tmp_path)

    def work(tx):
        tx.connection.set_progress_handler(lambda: 1, 1)
        world.store.projects.create(tx, "never", "ko", {})

    with pytest.raises(StoreError, match="interrupted"):
        world.store.write(work)
    assert world.state(world.records[0]) == "pending"
    world.approve(world.records[0])
    check_whole(world.store)
    world.store.close()


# FAULTS 2 and 3: the worker

WORKER = "import sys; from labeler.cli import main; sys.argv = ['labeler', *sys.argv[1:]]; main()"


@pytest.mark.slow
def test_killed_worker_repeats_at_most_what_was_in_flight(tmp_path):
    """FAULTS 2: `labeler worker` dies with eight calls in flight; another goes on by itself after the lease."""
    folder, count, in_flight = tmp_path / "instance", 40, 8
    with FakeOpenAI() as server:
        server.behave(slow(0.25))
        instance = open_instance(folder, server.base_url, numbered(count), lease_seconds=2.0)
        store, project = instance.store, instance.store.projects.all()[0]
        ids = runs.select(store, project["id"], "sentiment", None, True)
        settings = {"backend": "openai", "k": 0, "concurrency": in_flight}
        run_id = runs.start(store, project["id"], "sentiment", ids, settings)
        process = python(WORKER, "worker", "--instance", str(folder))
        until(lambda: len(server.requests) >= 13, 30)
        kill(process)
        asked, answered = len(server.requests), store.db.value("SELECT COUNT(*) FROM calls WHERE state = 'answered'")
        sent = store.db.value("SELECT COUNT(*) FROM calls WHERE state = 'sent'")
        assert 0 < sent <= in_flight and answered < asked
        server.behave(slow(0.01))
        assert Worker(instance).move_run(run_id) == "finished"
        run = store.ledger.run(run_id)
        repeats = len(server.requests) - count
        # A call that was written down and not sent yet when the worker died counts too: it may have been billed.
        assert repeats <= run["repeats"] <= in_flight
        assert (run["done"], run["failed"], run["calls"]) == (count, 0, count + run["repeats"])
        assert store.db.value("SELECT COUNT(*) FROM calls WHERE state = 'answered'") == count
        assert store.db.value("SELECT COUNT(*) FROM suggestions") == count
        check_whole(store)
        instance.close()


FAIL_POINT = """
import os, sys
from pathlib import Path
from labeler.instance import Instance
from labeler.prelabel import calls, executor
from labeler.worker import Worker

class DiesBeforeTheCommit(calls.RunContext):
    answers = 0

    def answered(self, *arguments):
        super().answered(*arguments)
        DiesBeforeTheCommit.answers += 1
        if DiesBeforeTheCommit.answers == 5:
            os._exit(9)

executor.RunContext = DiesBeforeTheCommit
Worker(Instance(Path(sys.argv[1]))).move_run(int(sys.argv[2]))
"""


@pytest.mark.slow
def test_death_between_answer_and_commit_is_one_repeat_and_says_so(tmp_path):
    """FAULTS 3: the process ends with an answer in its hand; that call, and only that one, is paid again."""
    folder = tmp_path / "instance"
    with FakeOpenAI() as server:
        instance = open_instance(folder, server.base_url, lease_seconds=1.0)
        store, project = instance.store, instance.store.projects.all()[0]
        ids = runs.select(store, project["id"], "sentiment", None, True)
        settings = {"backend": "openai", "k": 0, "concurrency": 1}
        run_id = runs.start(store, project["id"], "sentiment", ids, settings)
        process = python(FAIL_POINT, str(folder), str(run_id))
        assert process.wait(30) == 9
        process.stdout.close()
        assert (len(server.requests), store.ledger.run(run_id)["done"]) == (5, 4)
        assert Worker(instance).move_run(run_id) == "finished"
        run = store.ledger.run(run_id)
        assert len(server.requests) == 13
        assert (run["calls"], run["repeats"], run["done"]) == (13, 1, 12)
        calls = store.db.all("SELECT sends FROM calls ORDER BY sends DESC")
        assert [call["sends"] for call in calls] == [2] + [1] * 11
        instance.close()
