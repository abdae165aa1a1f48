"""How fast an export is: ``python benchmarks/export_rate.py [ROWS ...]``.

Exports ROWS approved annotations (20,000 unless told) in plain formats, and beside it writes the very same
dicts, already built, with orjson: the floor below which no export can go. What lies between is the work: two reads of
the database, checks, prompts, splits, sha256, ``records.jsonl``, and the entry in the store.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from labeler import Choice, Label, Task
from labeler.export import Shares, built_in, export_task
from labeler.store import NewRecord, Store

GUIDELINES = "리뷰 전체의 감정을 고르세요. 장점과 단점이 함께 있으면 마지막 인상을 따릅니다.\n" * 10
TASK = Task(
    "sentiment",
    Choice(
        Label("positive", {"ko": "긍정"}, {"ko": "만족했다"}),
        Label("neutral", {"ko": "중립"}, {"ko": "어느 쪽도 아니다"}),
        Label("negative", {"ko": "부정"}, {"ko": "불만이다"}),
    ),
    title={"ko": "감성"},
    guidelines={"ko": GUIDELINES},
)
SYLLABLES = "가나다라마바사아자차카타파하거너더러머버서어저처"
# As many words as reviews have: from a few words, all reviews would be near-duplicates.
WORDS = [a + b + c for a in SYLLABLES for b in SYLLABLES[:12] for c in SYLLABLES[:12]]


def fill(store: Store, rows: int) -> dict[str, Any]:
    rng = random.Random(1)
    project = store.write(lambda tx: store.projects.create(tx, "benchmark", "ko", {}))
    for start in range(0, rows, 2000):
        numbers = range(start, min(start + 2000, rows))
        new = [
            NewRecord(f"r{n}", f"{n} " + " ".join(rng.choices(WORDS, k=20)), f"p{n // 8}", {"stars": n % 5})
            for n in numbers
        ]
        values = [rng.choice(TASK.schema.labels).name for _ in numbers]

        def add(tx: Any, new: list[NewRecord] = new, values: list[str] = values) -> None:
            stored = store.records.add(tx, project, new, [TASK.name])
            for one, value in zip(stored, values, strict=True):
                row = {"project_id": project, "record_id": one.id, "task": TASK.name, "task_version": "1"}
                store.annotations.add(tx, row | {"state": "approved", "value": value})

        store.write(add)
    return store.projects.get(project)


def write_plain(dicts: list[Any], path: Path) -> float:
    """Return the CPU seconds of writing dicts that are already built, as orjson does it."""
    start = time.process_time()
    with path.open("wb") as stream:
        for one in dicts:
            stream.write(orjson.dumps(one) + b"\n")
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="*", type=int, default=[20_000])
    for rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as name, Store(Path(name) / "labeler.db") as store:
            project = fill(store, rows)
            # The first export of a project also looks for near-duplicates, once.
            run(store, project, "csv", Path(name) / "first")
            for format_name in ("csv", "openai", "trl"):
                measure(store, project, format_name, rows, Path(name))


def measure(store: Store, project: dict[str, Any], format_name: str, rows: int, folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = []
    for number in range(2):
        wall, cpu = time.perf_counter(), time.process_time()
        result = run(store, project, format_name, folder / f"{format_name}{number}")
        taken.append((time.perf_counter() - wall, time.process_time() - cpu))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    wall, cpu = min(taken)
    rate = f"{rows / wall:,.0f} rows/s, {cpu / rows * 1e6:.0f} us CPU a row"
    print(f"{rows:,} rows, {format_name}: {rate}, +{grown:.0f} MiB")
    if format_name != "csv":
        lines = (result.folder / "train.jsonl").read_bytes().splitlines()
        plain = write_plain([orjson.loads(line) for line in lines], folder / "plain.jsonl")
        print(f"  raw orjson lines: {plain / rows * 1e6:.1f} us CPU a row; ratio {cpu / plain:.1f}")


def run(store: Store, project: dict[str, Any], format_name: str, folder: Path) -> Any:
    return export_task(store, project, TASK, format_name, folder, formats=built_in(), shares=Shares(1, 0, 0))


if __name__ == "__main__":
    main()
