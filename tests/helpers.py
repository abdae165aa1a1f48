"""What the tests of the store, the queue, retrieval and runs share: a small world, and processes that can be killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlite_utils import Database as SqliteUtils
from sqlite_utils.migrations import Migrations

from labeler import Choice, Label, Task
from labeler.annotation.decisions import Decided, Decision, Decisions
from labeler.annotation.queue import Queue
from labeler.backends.ensemble.backend import EnsembleBackend
from labeler.instance import Instance
from labeler.records import Evidence, ParseFailure, Suggestion
from labeler.retrieval.embedding import Embeddings
from labeler.retrieval.index import ExampleIndex, Query
from labeler.retrieval.lexical import LexicalEmbedder
from labeler.settings import read_settings
from labeler.store import NewRecord, Store
from labeler.training import folders

ROOT = Path(__file__).parent.parent
SENTIMENT = Task(
    "sentiment",
    Choice(Label("positive", {"ko": "긍정"}), Label("neutral", {"ko": "중립"}), Label("negative", {"ko": "부정"})),
    title={"ko": "감성", "en": "Sentiment"},
    guidelines={"ko": "감정을 고르세요.", "en": "Choose the feeling."},
)
REVIEWS = [
    "사과가 아삭하고 달아서 아이들이 좋아해요",
    "배송이 늦고 상자가 찢어져 왔어요",
    "가격은 보통이고 맛도 보통이에요",
    "포장이 꼼꼼해서 하나도 안 깨졌네요",
    "고기에서 냄새가 나서 다 버렸습니다",
    "The apples were fresh and sweet",
    "Late delivery, and half of it was broken",
    "양이 적어서 아쉽지만 맛은 좋아요",
    "재구매 의사 있습니다 정말 맛있어요",
    "유통기한이 하루 남은 걸 보내셨네요",
    "그냥 그래요 특별한 건 없어요",
    "Nothing special, does what it should",
]
keys = (f"request-{n:08d}" for n in itertools.count())


def migrations_before(known: Migrations, name: str) -> Migrations:
    """Return the migrations of an earlier program, which knew none from ``name`` on."""
    earlier = Migrations(known.name)
    for step in known.pending(SqliteUtils(memory=True)):
        if step.name < name:
            earlier(name=step.name)(step.fn)
    return earlier


class World:
    """A real store in a folder, with one project, reviewers and records, and short words for what people do."""

    def __init__(
        self,
        folder: Path,
        texts: Sequence[str | NewRecord] = REVIEWS,
        task: Task = SENTIMENT,
        embedder: Any = None,
        people: Sequence[str] = ("kim", "lee"),
        synchronous: str = "OFF",
    ) -> None:
        self.folder, self.task = folder, task
        self.store = Store(folder / "labeler.db", synchronous=synchronous)
        self.embedder = embedder or LexicalEmbedder()
        self.project_id = self.store.write(lambda tx: self.store.projects.create(tx, "reviews", "ko", {}))
        self.people = [
            self.store.write(lambda tx, name=name: self.store.people.create(tx, name, None, "reviewer"))
            for name in people
        ]
        self.kim = self.people[0]
        self.records = self.add(texts)
        self.decisions = Decisions(self.store, self.project_id, task)

    def add(self, texts: Sequence[str | NewRecord], together: bool = False) -> list[int]:
        """Import texts (or whole records) and return their ids; ``together`` as near-duplicates of each other."""
        size = self.store.db.value("SELECT COUNT(*) FROM records")
        news = [
            text if isinstance(text, NewRecord) else NewRecord(f"r{size + n}", text) for n, text in enumerate(texts)
        ]
        stored = self.store.write(lambda tx: self.store.records.add(tx, self.project_id, news, [self.task.name]))
        ids = [one.id for one in stored]
        if together:
            self.store.write(lambda tx: self.store.clusters.unite(tx, self.project_id, ids))
        return ids

    def version(self, record_id: int) -> int:
        return int(self.store.work.get(record_id, self.task.name)["version"])

    def state(self, record_id: int) -> str:
        return str(self.store.work.get(record_id, self.task.name)["state"])

    def decide(self, record_id: int, action: str = "approve", value: Any = None, who: int = 0, **more: Any) -> Decided:
        more = {"request_key": next(keys), "version": self.version(record_id)} | more
        return self.decisions.decide(who or self.kim, Decision(record_id, action, value=value, **more))

    def approve(self, record_id: int, value: Any = "positive", who: int = 0, **more: Any) -> Decided:
        return self.decide(record_id, "approve", value, who, **more)

    def reject(self, record_id: int, who: int = 0, **more: Any) -> Decided:
        return self.decide(record_id, "reject", None, who, **more)

    def value(self, record_id: int) -> Any:
        """The label in force, or None."""
        row = self.store.annotations.current(record_id, self.task.name)
        return None if row is None or row["value"] is None else json.loads(row["value"])

    def suggest(self, record_id: int, value: Any = "positive", failure: ParseFailure | None = None, **more: Any) -> int:
        """Store a suggestion as a backend would; return its id."""
        suggestion = Suggestion(
            record_id, self.task.name, "1", more.pop("backend", "fake"), "m", None if failure else value, failure,
            evidence=[Evidence(1, 1, 0.5)], score=more.pop("score", None),
        )  # fmt: skip

        def work(tx: Any) -> int:
            id_ = self.store.suggestions.add(tx, self.project_id, suggestion)
            self.store.work.suggested(tx, record_id, self.task.name, id_, suggestion.score, more.get("disagreement"))
            return id_

        return self.store.write(work)

    def queue(self, nearest: Any = None, scored_by: Any = None, **settings: Any) -> Queue:
        return Queue(self.store, self.project_id, self.task, read_settings("project", settings), nearest, scored_by)

    def index(self, folder: Path | None = None, embedder: Any = None) -> ExampleIndex:
        """A fresh index, as another process (or this one after a restart) would open it."""
        embeddings = Embeddings(self.store, embedder or self.embedder)
        return ExampleIndex(self.store, self.project_id, self.task, embeddings, folder)

    def ensemble(self, index: ExampleIndex | None = None) -> EnsembleBackend:
        """An ensemble of this process or, with a fresh index, of another."""
        return EnsembleBackend(index or self.index(), Embeddings(self.store, LexicalEmbedder()), "ko")

    def query(self, record_id: int) -> Query:
        record = self.store.records.get(record_id)
        return Query.of(record, self.embedder.embed([record.text])[0])

    def approved(self) -> dict[int, tuple[int, Any]]:
        """What the store says is approved: {record id: (annotation id, value)}."""
        pages = self.store.annotations.approved_pages(self.project_id, self.task.name)
        return {row["record_id"]: (row["id"], json.loads(row["value"])) for page in pages for row in page}


class Points:
    """An embedder whose vectors are written in the texts: "(3 4)" lies at (0.6, 0.8)."""

    fast = True

    def __init__(self, dim: int = 2, id_: str = "points") -> None:
        self.dim, self.id, self.made = dim, id_, 0

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.made += len(texts)
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            found = re.search(r"\(([-\d. e]+)\)", text)
            numbers = [float(part) for part in found.group(1).split()] if found else []
            row[: len(numbers)] = numbers
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(lengths > 0, lengths, 1)


def open_instance(
    folder: Path, base_url: str = "", texts: Sequence[str] = REVIEWS, durable: bool = False, **settings: Any
) -> Instance:
    """An instance with one English project of records, whose backend ``openai`` talks to ``base_url``."""
    instance = Instance(folder)
    if not durable:
        # These tests end processes, not the power: the system keeps what was written.
        instance.store.db._synchronous = "OFF"
    if base_url:
        instance.change_settings({"openai_base_url": base_url, "openai_model": "gpt-4o-mini"} | settings)
    if not instance.store.projects.all():
        project_id = instance.create_project("reviews", "en", {"tasks": ["sentiment"]})
        news = [NewRecord(f"r{n}", text) for n, text in enumerate(texts)]
        instance.store.write(lambda tx: instance.store.records.add(tx, project_id, news, ["sentiment"]))
    return instance


def numbered(count: int) -> list[str]:
    """``count`` different reviews."""
    return [f"{REVIEWS[n % len(REVIEWS)]} ({n})" for n in range(count)]


def python(code: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    """Start a Python process of its own that runs ``code``; its output comes through a pipe."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT, **more
    )


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process as a power cut would: no handler runs."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until ``condition()`` is true and return what it said."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"Not true within {seconds:g} s: {condition}")


class Server:
    """A ``labeler`` process that serves; ``ready`` is the line that says so."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None
        self.process, self.log = process, log
        self.ready = process.stdout.readline()
        address = re.search(r"https?://[^/\s]+", self.ready)
        self.address = address[0] if address else ""

    def get(self, path: str) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.address + path, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def end(self, number: int = signal.SIGTERM, patience: float = 120) -> tuple[int, str]:
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=patience)
        return self.process.returncode, rest


def left_training(instance: Path, project_id: int, name: str, said: str, whole: bool = True) -> None:
    """Leave a training as it is on disk after 60 steps: finished, or killed before its end."""
    numbers = {"rate": 2e-4, "epochs": 3.0, "steps": 0, "batch": 8, "rows_at_once": 1, "rank": 16, "alpha": 32,
               "dropout": 0.05, "tokens": 0, "warmup": 0.03, "seed": 42}  # fmt: skip
    export = instance / "exports" / str(project_id) / "trained on"
    export.mkdir(parents=True, exist_ok=True)
    (export / "train.jsonl").write_text('{"messages": []}\n', encoding="utf-8")
    files = {"train.jsonl": {"rows": 1, "bytes": 17, "sha256": ""}}
    (export / "manifest.json").write_text(json.dumps({"labeler": "0", "format": "openai", "files": files}))
    plan = {"base": said, "method": "lora", "objective": "sft", "project_id": project_id, "task": "sentiment",
            "export": {"id": 1, "folder": str(export), "sha256": ""}, "numbers": numbers, "max_length": 812,
            "left_out": {"train": [], "validation": []}, "total": 80, "parameters": 134515008,
            "validation": {"rows": 54, "of": 182}}  # fmt: skip
    training = folders.begin(instance, name, plan)
    for step in range(1, 61):
        loss = {"loss": round(2.4 / step**0.5 + 0.1 * (step % 3), 4)}
        training.report("log.jsonl", {"step": step, "seconds": 4.5 * step, **loss})
        if step % 10 == 0:
            training.report("log.jsonl", {"step": step, "seconds": 4.5 * step, "eval_loss": 2.2 / step**0.4})
    for step in (0, 60):
        answered = said if step else "The review is about"
        training.report("samples.jsonl", {"step": step, "asked": said, "expected": said, "answered": answered})
    if whole:
        card = {"base": said, "method": "lora", "objective": "sft", "asked": {"style": "zero-shot"},
                "parameters": {"all": 134515008, "trained": 4884480}}  # fmt: skip
        (training.folder / "labeler.json").write_text(json.dumps(card), encoding="utf-8")


@contextlib.contextmanager
def process(folder: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with (folder / "server.log").open("w") as log:
        started = subprocess.Popen(
            [sys.executable, "-c", "from labeler.cli import main; main()", *words],
            stdout=subprocess.PIPE, stderr=log, encoding="utf-8",
            env=os.environ | {"LABELER_INSTANCE": str(folder / "instance")} | environment,
        )  # fmt: skip
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()
            started.communicate()


@contextlib.contextmanager
def serving(folder: Path, *words: str, **environment: str) -> Iterator[Server]:
    port = () if "--port" in words else ("--port", "0")
    with process(folder, *(words or ("serve",)), *port, **environment) as started:
        server = Server(started, folder / "server.log")
        assert server.address, server.log.read_text()
        yield server
