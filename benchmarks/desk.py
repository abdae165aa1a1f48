"""What one decision costs the server: ``python benchmarks/desk.py [--sizes 1000 200000] [--decisions 300]``.

:meth:`Queue.next` and :meth:`Decisions.decide`, one after the other as one reviewer does, in a project of each size,
durable (``synchronous=FULL``). CPU is that of the process, the writer thread included. The ratio is that of the largest
size to the smallest: flat is 1.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from common import LABELS, SENTIMENT, fill

from labeler.annotation.decisions import Decision, Decisions
from labeler.annotation.queue import Queue
from labeler.settings import read_settings
from labeler.store import Store

ORDERS = ("oldest", "random")


def make(folder: Path, size: int) -> tuple[Store, int, int]:
    path = folder / f"{size}.db"
    with Store(path, synchronous="OFF") as store:
        project_id = store.write(lambda tx: store.projects.create(tx, "reviews", "ko", {}))
        reviewer = store.write(lambda tx: store.people.create(tx, "kim", None, "reviewer"))
        fill(store, project_id, size)
    return Store(path), project_id, reviewer


def per_decision(store: Store, project_id: int, reviewer: int, order: str, decisions: int) -> tuple[float, float]:
    """Return CPU and wall milliseconds of opening and approving one record."""
    queue = Queue(store, project_id, SENTIMENT, read_settings("project", {"order": order}))
    room = Decisions(store, project_id, SENTIMENT)
    wall, cpu = time.perf_counter(), time.process_time()
    for n in range(decisions):
        opened = queue.next(reviewer)
        assert opened is not None
        decision = Decision(opened.record.id, "approve", f"{order}-{wall}-{n:06}", opened.version, LABELS[n % 3])
        room.decide(reviewer, decision)
    return 1000 * (time.process_time() - cpu) / decisions, 1000 * (time.perf_counter() - wall) / decisions


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU of one decision, by the size of the project.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 200_000])
    parser.add_argument("--decisions", type=int, default=80)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        worlds = {size: make(Path(name), size) for size in arguments.sizes}
        for order in ORDERS:
            found = {size: [per_decision(*worlds[size], order, arguments.decisions) for _ in range(arguments.repeat)]
                     for size in arguments.sizes}  # fmt: skip
            medians = {size: statistics.median(cpu for cpu, _ in rounds) for size, rounds in found.items()}
            for size, rounds in found.items():
                wall = statistics.median(wall for _, wall in rounds)
                print(f"{order}, {size:,} records: {medians[size]:.2f} ms CPU a decision ({wall:.2f} ms wall)")
            print(f"  ratio {medians[max(worlds)] / medians[min(worlds)]:.2f}")
        for store, _, _ in worlds.values():
            store.close()


if __name__ == "__main__":
    main()
