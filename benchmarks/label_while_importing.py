"""How long a decision takes while a large file comes in.

Run it as ``python benchmarks/label_while_importing.py [--rows N] [--standing N]``.

``labeler serve`` with its worker in a process of its own; eight people label over HTTP, one decision after another with
half a second of thought between, from before the import of a CSV file of so many reviews to its end. Printed are the
decisions made, the median, p99 and worst time of one, answers that were no 200, and the rows a second of the import.
``--standing`` is how many records are there before.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from common import fill, signed_in, texts

from labeler import accounts
from labeler.ingest.clusters import sign_reviews
from labeler.ingest.options import ImportOptions
from labeler.ingest.service import queue_import
from labeler.instance import Instance

PEOPLE, THOUGHT = 8, 0.5


def label(port: int, path: str, headers: dict[str, str], ids: list[int], over: threading.Event,
          took: list[float], other: list[int]) -> None:  # fmt: skip
    chance = random.Random(ids[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def post(name: str, body: dict[str, object]) -> http.client.HTTPResponse:
        connection.request("POST", path + name, json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
        return answer

    for record in ids:
        post("open", {"record_id": record, "page": f"page-{ids[0]}"})
        if over.wait(chance.uniform(0, 2 * THOUGHT)):
            break
        body = {"record_id": record, "action": "approve", "value": "positive", "version": 0,
                "request_key": f"person-{record:08d}"}  # fmt: skip
        began = time.perf_counter()
        answer = post("decide", body)
        took.append(time.perf_counter() - began)
        if answer.status != 200:
            other.append(answer.status)
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="The time of a decision while a large file is imported.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--standing", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, file = Path(name) / "instance", Path(name) / "reviews.csv"
        with Instance(folder) as instance:
            store = instance.store
            project = instance.create_project("shop", "ko", {"tasks": ["sentiment"]})
            ids = fill(store, project, arguments.standing)
            sign_reviews(store, project)
            kim = accounts.add_reviewer(store, "kim", "a few plain words", accounts.ADMIN)
            headers = signed_in(instance, kim)
            file.write_text("review\n" + "\n".join(texts(arguments.rows, seed=2)), encoding="utf-8")
            import_id = queue_import(store, project, file, file.name, ImportOptions(text="review"), kim)
        command = [sys.executable, "-c", "from labeler.cli import main; main()", "serve", "--port", "0"]
        server = subprocess.Popen([*command, "--instance", str(folder)], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        found = re.search(r":(\d+)", server.stdout.readline())
        assert found
        path = f"/projects/{project}/label/sentiment/api/"
        over, took, other = threading.Event(), [], []
        people = [
            threading.Thread(target=label, args=(int(found[1]), path, headers, ids[n::PEOPLE], over, took, other))
            for n in range(PEOPLE)
        ]
        for person in people:
            person.start()
        began = time.perf_counter()
        with Instance(folder, read_only=True) as instance:
            while (row := instance.store.records.get_import(project, import_id))["state"] in ("queued", "running"):
                time.sleep(0.5)
        seconds = time.perf_counter() - began
        over.set()
        for person in people:
            person.join()
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(120)
        took.sort()
        print(f"{row['added']:,} rows in {seconds:,.0f} s ({row['added'] / seconds:,.0f} a second), {row['state']}")
        print(
            f"{len(took):,} decisions: median {statistics.median(took) * 1000:.0f} ms, "
            f"p99 {took[int(len(took) * 0.99)] * 1000:.0f} ms, worst {took[-1] * 1000:.0f} ms; "
            f"answers other than 200: {len(other)}"
        )


if __name__ == "__main__":
    main()
