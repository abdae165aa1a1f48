"""What one decision costs the server: ``python benchmarks/desk.py [--sizes 1000 20000 200000] [--decisions 240]``.

``labeler serve`` with its worker, in a process of its own, and eight reviewers who ask for records and approve them
over HTTP as the page does, each with a second of thought between. The CPU is that of the server's whole process tree,
from the first request until the worker has nothing left to do; what it idles meanwhile is included. Next to it, in the
same run and with the same clients, the least Flask program that does this: one table, one row claimed, one decision
stored durably. The first ratio is to that program, the second that of the largest project to the smallest: flat is 1.

2,000 records (or half of them) are approved before. Every vector is there: drawn at random, as those of e5 take tens of
milliseconds a record, which is work for each record and not for a decision. The suggestions come from the free
backends. ``idle`` is the CPU of a second in which nobody does anything.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import LABELS, approve, cpu, fill, signed_in, started, store_vectors, unit_vectors
from flask import Flask, jsonify, request

from labeler import accounts
from labeler.ingest.clusters import sign_reviews
from labeler.instance import Instance

PEOPLE, THOUGHT, APPROVED = 8, 1.0, 2000
QUIET, STILL = 0.1, 3.0
"""A server whose CPU stays under this share of a core for so many seconds has nothing left to do."""


def make(folder: Path, size: int) -> tuple[str, list[dict[str, str]]]:
    """Make an instance with one project of ``size`` records; return the path of its desk and who is signed in."""
    with Instance(folder) as instance:
        store = instance.store
        project = instance.create_project("shop", "ko", {"tasks": ["sentiment"]})
        ids = fill(store, project, size)
        approve(store, project, ids[-min(APPROVED, size // 2) :], lambda id_: LABELS[id_ % 3])
        sign_reviews(store, project)
        embeddings = instance.chosen_embeddings(store.projects.get(project))
        store_vectors(store, embeddings.embedder.id, ids, unit_vectors(len(ids), embeddings.embedder.dim))
        # Nothing is left to make; that is noted.
        list(embeddings.fill(project))
        names = [f"person{n}" for n in range(PEOPLE)]
        people = [accounts.add_reviewer(store, name, "a few plain words", accounts.ADMIN) for name in names]
        return f"/projects/{project}/label/sentiment/api/", [signed_in(instance, person) for person in people]


def rest(pid: int) -> float:
    """Wait until a server is quiet; return the CPU milliseconds of a second that it idles."""
    while True:
        before = cpu(pid)
        time.sleep(STILL)
        idle = (cpu(pid) - before) / STILL
        if idle < 1000 * QUIET:
            return idle


def label(port: int, path: str, headers: dict[str, str], count: int, took: list[float]) -> None:
    """Ask for records and approve them as one reviewer's page does.

    It fetches several records when fewer than two lie ready, and with a decision it renews the next one.
    """
    chance, connection = random.Random(headers["Cookie"]), http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    page, have = f"page{time.time_ns()}", list[dict[str, Any]]()

    def post(name: str, body: Mapping[str, object]) -> dict[str, Any]:
        connection.request("POST", path + name, json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status in (200, 204), (answer.status, content[:300])
        return json.loads(content) if content else {}

    def fetch(count: int) -> None:
        found = post("next", {"have": [one["record_id"] for one in have], "page": page, "count": count})
        have.extend([found, *found.pop("more", [])])

    fetch(1)
    for n in range(count):
        if len(have) < 3:
            fetch(5)
        time.sleep(chance.uniform(0, 2 * THOUGHT))
        record = have.pop(0)
        body = {"action": "approve", "request_key": f"{page}-{n:06}", "value": LABELS[n % 3],
                **{name: record[name] for name in ("record_id", "version", "suggestion_id")}}  # fmt: skip
        began = time.perf_counter()
        then = {"record_id": have[0]["record_id"], "suggestion_id": have[0]["suggestion_id"], "page": page}
        answer = post("decide", body | {"then": then})["then"]
        took.append(time.perf_counter() - began)
        have[:1] = [] if answer is None else have[:1] if answer.get("same") else [answer]


def measure(pid: int, port: int, path: str, people: list[dict[str, str]], decisions: int) -> tuple[float, float, float]:
    """Return CPU milliseconds a decision, the median milliseconds that one takes, and CPU milliseconds an idle second.

    What the reviewers do first (each opens three records) warms the server up and is not counted.
    """
    for counted in (2 * PEOPLE, decisions):
        idle = rest(pid)
        took: list[float] = []
        before, share = cpu(pid), counted // PEOPLE
        threads = [threading.Thread(target=label, args=(port, path, one, share, took)) for one in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rest(pid)
    return (cpu(pid) - before) / len(took), 1000 * statistics.median(took), idle


def bare() -> None:
    """Serve the least program that hands out records and stores decisions."""
    from waitress import create_server

    app = Flask(__name__)
    folder = tempfile.TemporaryDirectory()
    db = sqlite3.connect(Path(folder.name) / "bare.db", check_same_thread=False, isolation_level=None)
    db.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        "CREATE TABLE records (id INTEGER PRIMARY KEY, text TEXT, page TEXT, label TEXT);"
        "CREATE INDEX free ON records (id) WHERE page IS NULL"
    )
    db.executemany("INSERT INTO records (text) VALUES (?)", [(f"review {n}",) for n in range(20_000)])
    lock = threading.Lock()

    def claimed(page: str) -> dict[str, Any]:
        free = "SELECT MIN(id) FROM records WHERE page IS NULL"
        sql = f"UPDATE records SET page = ? WHERE id = ({free}) RETURNING id, text"
        with lock:
            id_, text = db.execute(sql, [page]).fetchone()
        return {"record_id": id_, "text": text, "version": 0, "suggestion_id": None}

    @app.post("/next")
    def next_record():  # type: ignore[no-untyped-def]
        first, *more = [claimed(request.get_json()["page"]) for _ in range(request.get_json()["count"])]
        return jsonify(first | {"more": more})

    @app.post("/decide")
    def decide():  # type: ignore[no-untyped-def]
        body = request.get_json()
        with lock:
            db.execute("UPDATE records SET label = ? WHERE id = ?", [body["value"], body["record_id"]])
            sql = "SELECT id, text FROM records WHERE id = ?"
            id_, text = db.execute(sql, [body["then"]["record_id"]]).fetchone()
        then = {"record_id": id_, "text": text, "version": 0, "suggestion_id": None}
        return jsonify(record_id=body["record_id"], then=then)

    server = create_server(app, host="127.0.0.1", port=0, threads=8)
    print(f"http://127.0.0.1:{server.effective_port}", flush=True)
    server.run()


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU of one decision, by the size of the project.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 20_000, 200_000])
    parser.add_argument("--decisions", type=int, default=240)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        return bare()
    anyone = [{"Cookie": str(n), "Content-Type": "application/json"} for n in range(PEOPLE)]
    with started(__file__, "--bare") as (pid, port):
        least, wall, _ = measure(pid, int(port), "/", anyone, arguments.decisions)
    print(f"bare Flask: {least:.2f} ms CPU a decision ({wall:.1f} ms to store one)", flush=True)
    found = {}
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as name:
            path, people = make(Path(name) / "instance", size)
            with started("-m", "labeler", "serve", "--port", "0", "--instance", f"{name}/instance") as (pid, port):
                found[size], wall, idle = measure(pid, int(port), path, people, arguments.decisions)
        print(f"{size:,} records: {found[size]:.2f} ms CPU a decision ({wall:.1f} ms to store one), {idle:.1f} ms an "
              f"idle second; {found[size] / least:.1f} times the bare program", flush=True)  # fmt: skip
    print(f"ratio of the largest to the smallest: {found[max(found)] / found[min(found)]:.2f}")


if __name__ == "__main__":
    main()
