"""How near a run comes to its ideal rate: ``python benchmarks/prelabel.py [--records 500] [--latency 0.2]``.

A run of the backend ``openai`` over pending records, with 200 approved examples and the balanced retriever, against a
fake server in a process of its own that takes ``--latency`` seconds for each answer. The ideal rate is concurrency /
latency. CPU is that of this process, all threads. The same requests are then sent by the client alone, by as many
threads, with nothing before or after: what remains is ours.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from common import LABELS, approve, fill

from labeler.backends.openai import OpenAIBackend
from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.prelabel.suggest import Suggester
from labeler.worker import Worker

ROOT = Path(__file__).parent.parent
APPROVED = 200


def through_labeler(folder: Path, base_url: str, records: int, concurrency: int) -> tuple[float, float, list]:
    """Return items a second, CPU milliseconds an item, and the requests it made."""
    with Instance(folder) as instance:
        instance.change_settings({"openai_base_url": base_url, "openai_model": "gpt-4o-mini"})
        project_id = instance.create_project("shop", "ko", {"tasks": ["sentiment"]})
        project = instance.store.projects.get(project_id)
        ids = fill(instance.store, project_id, APPROVED + records)
        approve(instance.store, project_id, ids[:APPROVED], lambda id_: LABELS[id_ % 3])
        # As after an import: the background has made the vectors, the index and the connection stand.
        Worker(instance).run_until_idle()
        task = instance.project_task(project, "sentiment")
        suggester = instance.suggester(project, task, {"backend": "openai"})
        next(iter(suggester.backend.complete(requests_for(suggester, [instance.store.records.get(ids[0])]))))
        run_id = runs.start(instance.store, project_id, "sentiment", ids[APPROVED:],
                            {"backend": "openai", "concurrency": concurrency})  # fmt: skip
        worker = Worker(instance)
        started, cpu = time.perf_counter(), time.process_time()
        state = worker.move_run(run_id)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        run = instance.store.ledger.run(run_id)
        assert (state, run["done"], run["calls"], run["failed"]) == ("finished", records, records, 0), run
        found = list(instance.store.records.many(ids[APPROVED:]).values())
        return records / seconds, 1000 * cpu / records, requests_for(suggester, found)


def requests_for(suggester: Suggester, records: list) -> list:
    """Return the first request of each record, as a run makes it."""
    return [
        suggester.request(prepared, ask)
        for prepared in suggester.prepare(records)
        for ask in suggester.flow(prepared).step() or ()
    ]


def alone(base_url: str, requests: list, concurrency: int) -> tuple[float, float]:
    """Send the same requests by the client alone."""
    with closing(OpenAIBackend(base_url, None, "gpt-4o-mini")) as backend, ThreadPoolExecutor(concurrency) as pool:
        list(backend.complete(requests[:1]))
        started, cpu = time.perf_counter(), time.process_time()
        list(pool.map(lambda request: next(iter(backend.complete([request]))), requests))
        return len(requests) / (time.perf_counter() - started), 1000 * (time.process_time() - cpu) / len(requests)


def main() -> None:
    parser = argparse.ArgumentParser(description="The rate of a run beside the ideal one.")
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "tests.fake_openai", "--latency", str(arguments.latency), "--mode", "vote",
               "--with-parent"]  # fmt: skip
    ideal = arguments.concurrency / arguments.latency
    ours, plain = [], []
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        base_url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        for _ in range(arguments.repeat):
            with tempfile.TemporaryDirectory() as name:
                rate, cpu, requests = through_labeler(Path(name), base_url, arguments.records, arguments.concurrency)
            ours.append((rate, cpu))
            plain.append(alone(base_url, requests, arguments.concurrency))
        server.kill()
    rate, cpu = (statistics.median(column) for column in zip(*ours, strict=True))
    rate_alone, cpu_alone = (statistics.median(column) for column in zip(*plain, strict=True))
    print(f"{arguments.records} records, {arguments.latency:g} s latency, concurrency {arguments.concurrency}:")
    print(f"  run {rate:.1f}/s; ideal {ideal:.1f}/s; ratio {rate / ideal:.2f} (client alone {rate_alone / ideal:.2f})")
    print(f"  CPU {cpu:.2f} ms an item; client alone {cpu_alone:.2f} ms; ours {cpu - cpu_alone:.2f} ms")
    assert threading.active_count() < 50


if __name__ == "__main__":
    main()
