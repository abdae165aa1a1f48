"""What the benchmarks share: reviews to measure with, and a quick way to fill a store."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flask import session
from flask_wtf.csrf import generate_csrf

from labeler import Choice, Label, Task
from labeler.app import create_app
from labeler.demo import reviews
from labeler.instance import Instance
from labeler.store import NewRecord, Store

LABELS = ("positive", "neutral", "negative")
SENTIMENT = Task("sentiment", Choice(*map(Label, LABELS)), {"ko": "감성", "en": "Sentiment"})


def texts(count: int, seed: int = 1) -> list[str]:
    """Return reviews of 8 to 30 words drawn from the demonstration's: alike in length and words, no two the same."""
    rng = random.Random(seed)
    words = " ".join(row["text"] for row in reviews() if row["lang"] == "ko").split()
    return [f"{' '.join(rng.choices(words, k=rng.randint(8, 30)))} {n}" for n in range(count)]


def slices(items: Sequence[Any], size: int = 1000) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def fill(store: Store, project_id: int, count: int, task: str = SENTIMENT.name) -> list[int]:
    """Store and queue ``count`` records, without looking for near-duplicates; return their ids."""
    ids: list[int] = []
    for part in slices([NewRecord(f"r{n}", text, f"g{n % 500}") for n, text in enumerate(texts(count))]):
        ids += [s.id for s in store.write(lambda tx, part=part: store.records.add(tx, project_id, part, [task]))]
    return ids


def approve(
    store: Store, project_id: int, ids: Sequence[int], labels: Callable[[int], str], task: str = SENTIMENT.name
) -> None:
    """Approve records as an import would, in slices."""

    def work(tx: Any, part: Sequence[int]) -> None:
        for id_ in part:
            row = {"project_id": project_id, "record_id": id_, "task": task, "task_version": "1", "state": "approved",
                   "value": labels(id_), "how": "imported"}  # fmt: skip
            store.work.decided(tx, id_, task, "approved", store.annotations.add(tx, row))

    for part in slices(ids):
        store.write(lambda tx, part=part: work(tx, part))


def unit_vectors(count: int, dim: int, seed: int = 1) -> np.ndarray:
    """Return float32 (count, dim) of length 1, in loose clusters, as texts are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((64, dim), dtype=np.float32)
    rows = centres[rng.integers(0, 64, count)] + 1.5 * rng.standard_normal((count, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def store_vectors(store: Store, embedder: str, ids: Sequence[int], vectors: np.ndarray) -> None:
    def work(tx: Any, part: Sequence[tuple[int, bytes]]) -> None:
        texts = store.records.many([id_ for id_, _ in part])
        store.vectors.add(tx, embedder, [(id_, texts[id_].text, vector) for id_, vector in part])

    pairs = [(id_, vector.astype("<f4").tobytes()) for id_, vector in zip(ids, vectors, strict=True)]
    for part in slices(pairs):
        store.write(lambda tx, part=part: work(tx, part))


def signed_in(instance: Instance, reviewer_id: int) -> dict[str, str]:
    """Return the headers of a browser that is signed in."""
    app = create_app(instance)
    with app.test_request_context():
        session["reviewer"], session["epoch"] = reviewer_id, instance.store.people.get(reviewer_id)["epoch"]
        token = generate_csrf()
        cookie = app.session_interface.get_signing_serializer(app).dumps(dict(session))
    name = app.config["SESSION_COOKIE_NAME"]
    return {"Cookie": f"{name}={cookie}", "X-CSRFToken": token, "Content-Type": "application/json"}


@contextlib.contextmanager
def started(*words: str, ready: str = r"https?://127\.0\.0\.1:(\d+)") -> Iterator[tuple[int, str]]:
    """Run Python with these words; yields the number of the process and what ``ready`` finds in its output."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = next(match[1] for line in process.stdout if (match := re.search(ready, line)))
        yield process.pid, found
    finally:
        process.terminate()
        process.communicate()


def tree(pid: int) -> list[int]:
    """Return a process and all that it started."""
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    return [pid, *(one for child in children for one in tree(child))]


def cpu(pid: int) -> float:
    """Return the CPU milliseconds that a tree of processes has taken."""
    paths = (path for one in tree(pid) for path in Path(f"/proc/{one}/task").glob("*/schedstat"))
    return sum(int(path.read_text().split()[0]) for path in paths) / 1e6


def memory(pid: int) -> float:
    """Return the MiB of a tree of processes: the pages that they share with others by their share (PSS)."""
    found = (Path(f"/proc/{one}/smaps_rollup").read_text() for one in tree(pid))
    return sum(int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) for text in found) / 1024  # type: ignore[index]
