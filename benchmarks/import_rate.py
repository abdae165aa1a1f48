"""How fast a file comes in: ``python benchmarks/import_rate.py [--rows 20000] [--repeat 3]``.

A CSV file of reviews with id and product through :class:`Importer`, with one task: parsing, NFC, content hash, MinHash
and near-duplicate search, full-text index, queue and report, 500 rows a transaction. Beside it, in turn, the very
rows (already parsed) by a raw ``executemany`` into one table of the same columns, also 500 rows a transaction.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from common import slices, texts

from labeler.ingest.options import ImportOptions
from labeler.instance import Instance


def through_labeler(folder: Path, file: Path) -> float:
    with Instance(folder) as instance:
        project = instance.store.projects.get(instance.create_project("shop", "ko", {"tasks": ["sentiment"]}))
        started = time.perf_counter()
        report = instance.importer(project).run(file, ImportOptions())
        seconds = time.perf_counter() - started
        assert report.refused == 0
        return report.added / seconds


def raw(folder: Path, rows: list[tuple[str, str, str, str]]) -> float:
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE records (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, grp TEXT, text TEXT, hash TEXT)"
    )
    started = time.perf_counter()
    for part in slices(rows, 500):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO records (key, grp, text, hash) VALUES (?, ?, ?, ?)", part)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    return len(rows) / seconds


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
    a, b = statistics.median(ours), statistics.median(plain)
    print(f"{arguments.rows} rows: import {a:,.0f} rows/s; raw executemany {b:,.0f} rows/s; ratio {b / a:.1f}")


if __name__ == "__main__":
    main()
