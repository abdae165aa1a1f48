"""What pages count is kept by whoever changes it, and no page does more work for a larger project."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSWORD, enter
from flask import Flask
from helpers import REVIEWS, World, left_training, migrations_before
from test_web_access import address

from labeler import accounts, removal
from labeler.annotation.acts import Asked
from labeler.annotation.decisions import Decision
from labeler.app import create_app
from labeler.export import export_task
from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.removal import IMPORT, PROJECT, RECORD, Target, remove
from labeler.store import NewRecord, Store
from labeler.store import migrations as schema
from labeler.worker import Worker


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with_world = World(tmp_path, [NewRecord(f"r{n}", text, f"g{n % 3}") for n, text in enumerate(REVIEWS)])
    yield with_world
    with_world.store.close()


def test_counts_follow_decisions_and_what_takes_them_back(world: World) -> None:
    """Approving, correcting, undoing and rejecting move states, how decisions came to be, and agreement."""
    store, (first, second, third, *_) = world.store, world.records
    for record in (first, second, third):
        world.suggest(record, "positive")

    def accept(record: int, value: str, **more: Any) -> None:
        suggestion = store.work.get(record, "sentiment")["suggestion_id"]
        world.approve(record, value, suggestion_id=suggestion, **more)

    accept(first, "positive")
    accept(second, "negative", blind=True)
    assert store.work.counts(world.project_id, "sentiment") == {
        "pending": 10,
        "disputed": 0,
        "approved": 2,
        "rejected": 0,
    }
    assert store.annotations.how_counts(world.project_id, "sentiment") == {"accepted": 1, "scratch": 1}
    rows = store.annotations.agreement(world.project_id, "sentiment", "1")
    assert {(row["blind"], row["n"], row["agreement"]) for row in rows} == {(0, 1, 1.0), (1, 1, 0.0)}
    world.decisions.undo(world.kim, "undo-it-again", "page")
    assert [row["blind"] for row in store.annotations.agreement(world.project_id, "sentiment", "1")] == [0]
    world.reject(third)
    world.approve(first, "neutral")
    assert store.work.counts(world.project_id, "sentiment") == {
        "pending": 10,
        "disputed": 0,
        "approved": 1,
        "rejected": 1,
    }
    assert store.counts.faults() == []


def test_counts_follow_records_that_come_and_go(instance: Instance, people: dict[str, int]) -> None:
    """Copies, near-duplicates, products, vectors, runs and units, a record, an import and a project that is removed."""
    store = instance.store
    id_ = instance.create_project("shop", "en", {"tasks": ["sentiment", "summary_polarity"]}, people["admin"])
    texts = ["the apples were sweet and crisp", "the apples were sweet and crisp", "the apples were sweet and crisp!!",
             "late", "so so", "fine", "bad"]  # fmt: skip
    rows = [NewRecord(f"r{n}", text, group=f"P{n % 2}") for n, text in enumerate(texts)]
    number = store.write(lambda tx: store.records.start_import(tx, id_, "f.csv", {"path": ""}, None, 0, "done"))
    store.write(lambda tx: store.records.add(tx, id_, rows, ["sentiment"], number))
    instance.change_task(id_, "summary_polarity", {"unit": "group"})
    Worker(instance).run_until_idle()
    assert store.records.counts(id_) == {"records": 7, "duplicates": 1, "groups": 2}
    assert store.records.near_duplicates(id_) == 1
    assert store.work.counts_by_task(id_) == {
        "sentiment": {"pending": 6, "disputed": 0, "approved": 0, "rejected": 0},
        "summary_polarity": {"pending": 2, "disputed": 0, "approved": 0, "rejected": 0},
    }
    project = store.projects.get(id_)
    decisions, ids = instance.decisions(project, instance.project_task(project, "sentiment")), [1, 4, 5]
    for record in ids:
        decisions.decide(people["admin"], Decision(record, "approve", f"key-{record:05}", 0, "positive"))
    run_id = runs.start(store, id_, "sentiment", [6, 7], {"backend": "nearest"})
    Worker(instance).run_until_idle()
    assert store.ledger.item_counts(run_id) == {"done": 2}
    assert sum(n for _, n in store.suggestions.made_in_run(run_id, "sentiment")) == 2
    done, all_ = store.vectors.progress(instance.chosen_embeddings(project).embedder.id, id_)
    assert done == all_ == 9
    assert store.counts.faults() == []
    instance.change_task(id_, "summary_polarity", {"unit": "record"})
    assert store.work.counts(id_, "summary_polarity")["pending"] == 6
    for target in (Target(RECORD, id_, 1), Target(IMPORT, id_, number), Target(PROJECT, id_)):
        remove(instance, target, 10)
        assert store.counts.faults() == []
    assert store.db.value("SELECT COUNT(*) FROM counts") == 0


def test_counts_of_an_older_database_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database from before counts were kept is counted once, when it is opened."""
    known = schema.migrations
    monkeypatch.setattr(schema, "migrations", migrations_before(known, "m017"))
    Store(tmp_path / "labeler.db").close()
    before = sqlite3.connect(tmp_path / "labeler.db")
    before.executescript(
        """INSERT INTO projects (id, name, language, settings, created_at) VALUES (1, 'shop', 'ko', '{}', 0);
        INSERT INTO records (id, project_id, key, text, language, grp, metadata, content_hash, kind, cluster,
            created_at) VALUES (1, 1, 'a', '달아요', 'ko', 'g', '{}', 'h', 'review', 1, 0),
                   (2, 1, 'b', '써요', 'ko', 'g', '{}', 'i', 'review', 1, 0);
        INSERT INTO work (record_id, task, project_id, shuffle, state) VALUES (1, 'usage', 1, 1, 'approved'),
            (2, 'usage', 1, 2, 'pending');"""
    )
    before.close()
    monkeypatch.setattr(schema, "migrations", known)
    with Store(tmp_path / "labeler.db") as store:
        assert store.records.counts(1) == {"records": 2, "duplicates": 0, "groups": 1}
        assert store.records.near_duplicates(1) == 1
        assert store.work.counts(1, "usage") == {"pending": 1, "disputed": 0, "approved": 1, "rejected": 0}
        assert store.counts.faults() == []


# Pages


def shop(folder: Path, size: int) -> Instance:
    """A project in which everything that grows has grown: records, decisions, suggestions, a run, events, an export."""
    instance = Instance(folder)
    store = instance.store
    store.db._synchronous = "OFF"
    admin = accounts.add_reviewer(store, "admin", PASSWORD, accounts.ADMIN)
    id_ = instance.create_project("shop", "ko", {"tasks": ["sentiment", "usage"]}, admin)
    rows = [NewRecord(f"r{n}", f"{REVIEWS[n % 12]} 배송 {n}", f"g{n // 5}") for n in range(size)]
    number = store.write(lambda tx: store.records.start_import(tx, id_, "f.csv", {"path": ""}, None, 0, "done"))
    store.write(lambda tx: store.records.add(tx, id_, rows, ["sentiment", "usage"], number))
    project = store.projects.get(id_)
    task = instance.project_task(project, "sentiment")
    run_id = runs.start(store, id_, "sentiment", range(1, size, 2), {"backend": "nearest"})
    world_of_suggestions(store, id_, run_id, range(1, size, 2))
    decisions = instance.decisions(project, task)
    for record in range(1, size, 3):
        row = store.work.get(record, "sentiment")
        given = Decision(record, "approve", f"key-{record:05}", row["version"], "positive",
                         suggestion_id=row["suggestion_id"])  # fmt: skip
        decisions.decide(admin, given)
    export_task(store, project, task, "trl", folder / "exports" / "1" / "e", formats=instance.plugins.exporters)
    left_training(folder, id_, "tuned", "org/model")
    return instance


def world_of_suggestions(store: Store, project_id: int, run_id: int, ids: range) -> None:
    """Give records suggestions of a run that has ended, every fifth without an answer."""
    from labeler.records import Suggestion

    def work(tx: Any) -> None:
        for id_ in ids:
            made = Suggestion(id_, "sentiment", "1", "nearest", None, "positive", None, made=("vote",), run_id=run_id)
            store.work.suggested(tx, id_, "sentiment", store.suggestions.add(tx, project_id, made), None, None)
        tx.run("UPDATE run_items SET state = 'failed', error_kind = 'empty' WHERE record_id % 5 = 0")
        tx.run("UPDATE run_items SET state = 'done' WHERE record_id % 5 > 0")
        tx.run("UPDATE runs SET state = 'finished', done = total")

    store.write(work)


def steps_of(instance: Instance) -> dict[str, int]:
    """Return how many times twenty steps of its machine SQLite takes for each page."""
    taken = [0]

    def step() -> int:
        taken[0] += 1
        return 0

    project = instance.store.projects.get(1)
    # A page starts the reading of the examples in a thread and looks up to a bound until that has ended.
    instance.index(project, instance.project_task(project, "sentiment")).refresh()
    app = create_app(instance, {"TESTING": True})
    client, found = app.test_client(), {}
    enter(client, app, 1)
    paths = paths_of(app, instance)
    # The connection of this thread, which asks for the pages.
    instance.store.db._local.held.connection.set_progress_handler(step, 20)
    for name, path in paths.items():
        for _ in range(2):
            taken[0] = 0
            with client.get(path) as answer:
                assert answer.status_code in (200, 204, 303), path
        found[name] = taken[0]
    return found


def paths_of(app: Flask, instance: Instance) -> dict[str, str]:
    """Return the path of every page whose work could grow; the preview of an import reads a part of its file."""
    annotation = instance.store.db.value("SELECT MAX(id) FROM annotations")
    acts = instance.acts(project := instance.store.projects.get(1), instance.project_task(project, "sentiment"))
    values = {"training_name": "tuned", "act_id": acts.begin(Asked("reopen", "key:none"), None),
              "project_id": 1, "task": "sentiment", "record_id": 2, "import_id": 1, "run_id": 1, "export_id": 1,
              "annotation_id": annotation, "name": "manifest.json", "replay_id": 1, "sheet": "days", "plot": "days",
              "suggestion_id": instance.store.db.value("SELECT MAX(id) FROM suggestions")}  # fmt: skip
    # A replay is as large as its sample, and an export is compared whole when somebody asks for it.
    left_out = {
        "exports.show",
        "static",
        "signin.link",
        "imports.preview",
        "replays.show",
        "replays.progress",
        "replays.cells",
    }
    found = {
        rule.endpoint: address(app, rule.endpoint, values)[1]
        for rule in app.url_map.iter_rules()
        if "GET" in (rule.methods or ()) and rule.endpoint not in left_out
    }
    records = found["records.page"]
    return found | {
        "older": f"{records}?after=200", "newer": f"{records}?before=100", "search": f"{records}?q=배송",
        "letter": f"{records}?q=요", "table": f"{records}?task=sentiment",
        "scores": f"{records}?task=sentiment&sort=lowest",
        "older matches": f"{records}?q=배송&after=200",
    }  # fmt: skip


def test_no_page_does_more_work_for_a_larger_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project five times as large takes the database as many steps, page by page."""
    monkeypatch.setattr(removal, "_FEW", 100)
    # Records are counted up to here.
    monkeypatch.setattr("labeler.web.records.COUNTED", 40)
    # Labels, near-duplicates and the decisions of a person are read up to here.
    monkeypatch.setattr("labeler.web.numbers.MOST", 40)
    monkeypatch.setattr("labeler.evaluation.numbers.NEAR", 40)
    monkeypatch.setattr("labeler.evaluation.numbers.OF_EACH", 40)
    with shop(tmp_path / "small", 300) as instance:
        small = steps_of(instance)
    with shop(tmp_path / "large", 1500) as instance:
        large = steps_of(instance)
    assert sum(small.values()) > 1000
    assert {name: (small[name], n) for name, n in large.items() if n > 1.3 * small[name] + 5} == {}
