"""How fast an export is: ``python benchmarks/export_rate.py [ROWS]``.

Exports ROWS approved annotations (20,000 unless told) in the openai format, and beside it writes the very same dicts,
already built, with plain ``json.dumps``: the floor below which no export can go. What lies between is the work: two
reads of the database, checks, content hashes, prompts, splits, sha256, ``records.jsonl``, and the entry in the store.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

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
WORDS = [
    "맛있어요",
    "배송이",
    "빨라요",
    "포장이",
    "별로",
    "다시",
    "살게요",
    "가격이",
    "좋네요",
    "조금",
    "짜요",
    "아이가",
    "좋아해요",
    "양이",
    "적어요",
]


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
    start = time.perf_counter()
    with path.open("w", encoding="utf-8") as stream:
        for one in dicts:
            stream.write(json.dumps(one, ensure_ascii=False) + "\n")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="?", type=int, default=20_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Store(folder / "labeler.db") as store:
            project = fill(store, rows)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            seconds = []
            for number in range(3):
                start = time.perf_counter()
                result = export_task(
                    store, project, TASK, "openai", folder / str(number), formats=built_in(), shares=Shares(1, 0, 0)
                )
                seconds.append(time.perf_counter() - start)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        size = sum(path.stat().st_size for path in result.files) / 2**20
        dicts = [json.loads(line) for line in (result.folder / "train.jsonl").read_text("utf-8").split("\n") if line]
        plain = min(write_plain(dicts, folder / "plain.jsonl") for _ in range(3))
    best = min(seconds)
    print(f"export openai: {rows / best:>9,.0f} rows/s  ({best:.2f} s, {size:.1f} MiB, peak memory +{grown:.0f} MiB)")
    print(f"json.dumps:    {rows / plain:>9,.0f} rows/s  ({plain:.2f} s)")
    print(f"ratio:         {best / plain:>9.1f}")


if __name__ == "__main__":
    main()
