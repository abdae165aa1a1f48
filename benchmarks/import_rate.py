"""How fast a file comes in: ``python benchmarks/import_rate.py [--rows 20000] [--repeat 3]``.

A CSV file of reviews with id and product through :class:`Importer`, with one task: parsing, NFC, content hash, MinHash
and near-duplicate search, full-text index, queue and report. Beside it, in turn, the very rows (already parsed) by a
raw ``executemany`` into one table of the same columns, 500 rows a transaction. Printed are rows a second by the clock,
and the CPU of a row, which other programs change less. At last the most memory that the process had.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import resource
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from common import slices, texts

from labeler.ingest.options import ImportOptions
from labeler.instance import Instance


def through_labeler(folder: Path, file: Path) -> tuple[float, float]:
    with Instance(folder) as instance:
        project = instance.store.projects.get(instance.create_project("shop", "ko", {"tasks": ["sentiment"]}))
        started, cpu = time.perf_counter(), time.process_time()
        report = instance.importer(project).run(file, ImportOptions())
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        assert report.refused == 0
        return report.added / seconds, cpu / report.added * 1e6


def raw(folder: Path, rows: list[tuple[str, str, str, str]]) -> tuple[float, float]:
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE records (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, grp TEXT, text TEXT, hash TEXT)"
    )
    started, cpu = time.perf_counter(), time.process_time()
    for part in slices(rows, 500):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO records (key, grp, text, hash) VALUES (?, ?, ?, ?)", part)
        connection.execute("COMMIT")
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    connection.close()
    return len(rows) / seconds, cpu / len(rows) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Rows a second of an import, beside raw inserts.")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    rows = [
        (f"r{n}", f"상품 {n % 500}", text, hashlib.sha256(text.encode()).hexdigest())
        for n, text in enumerate(texts(arguments.rows))
    ]
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "reviews.csv"
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "상품", "리뷰"])
            writer.writerows(row[:3] for row in rows)
        for n in range(arguments.repeat):
            folder = Path(name) / str(n)
            ours.append(through_labeler(folder, file))
            plain.append(raw(folder, rows))
    (a, cpu), (b, least) = (map(statistics.median, zip(*found, strict=True)) for found in (ours, plain))
    print(f"{arguments.rows} rows: import {a:,.0f} rows/s; raw executemany {b:,.0f} rows/s; ratio {b / a:.1f}")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"CPU of a row {cpu:.0f} us, raw {least:.1f} us: ratio {cpu / least:.1f}; at most {most:.0f} MiB of memory")


if __name__ == "__main__":
    main()
