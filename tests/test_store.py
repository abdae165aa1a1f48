"""The store: migrations, group commit, damage, full disks, backups. Every test works on a real file."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import stat
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import REVIEWS, SENTIMENT, World, migrations_before, python, until
from searching import search

from labeler.errors import (
    Conflict,
    InputError,
    NotFound,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreNewer,
    StoreReadOnly,
)
from labeler.ingest.clusters import sign_reviews
from labeler.ingest.upkeep import refresh_groups
from labeler.store import NewRecord, Store, database
from labeler.store import migrations as schema
from labeler.store.audit import audit


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labeler.db"


@pytest.fixture
def world(tmp_path):
    with_world = World(tmp_path)
    yield with_world
    with_world.store.close()


def dump(path: Path) -> list[str]:
    """Everything in a database, as text; in which order its parts were made does not matter."""
    connection = sqlite3.connect(path)
    try:
        return sorted(connection.iterdump())
    finally:
        connection.close()


def add_project(store: Store, name: str) -> int:
    return store.write(lambda tx: store.projects.create(tx, name, "ko", {}))


@pytest.fixture
def two_more(monkeypatch):
    """Pretend that this program knows two more migrations; the second can be told to fail."""
    failing = {"on": False}
    monkeypatch.setattr(schema, "migrations", migrations_before(schema.migrations, "m900"))

    @schema.migrations()
    def m900_first(db):
        db.execute("CREATE TABLE first (id INTEGER)")

    @schema.migrations()
    def m901_second(db):
        db.execute("CREATE TABLE second (id INTEGER)")
        if failing["on"]:
            raise RuntimeError("the power went")

    return failing


# Migrations


def test_empty_folder_gets_the_whole_schema(path):
    """A store opens where there is no file, and every migration has run."""
    with Store(path) as store:
        assert schema.migrate(store.db) == []
        assert store.check() == []
        assert store.projects.all() == []


def test_opening_again_changes_nothing(path):
    """A second start runs no migration and makes no copy."""
    with Store(path) as store:
        add_project(store, "a")
    before = dump(path)
    with Store(path):
        pass
    assert dump(path) == before
    assert [found.name for found in path.parent.glob("*.db")] == ["labeler.db"]


def test_a_database_of_an_early_m002_learns_ways_of_prompting(path, monkeypatch):
    """Databases made before suggestions named their way of prompting are brought up to date, with a copy beside."""
    known = schema.migrations
    monkeypatch.setattr(schema, "migrations", migrations_before(known, "m003"))
    Store(path).close()
    monkeypatch.setattr(schema, "migrations", known)
    with Store(path) as store:
        assert store.calibrations.get(1, "sentiment", "openai", "m", "a way") is None
        assert store.db.value("SELECT COUNT(way) FROM suggestions") == 0
    assert len(list(path.parent.glob("*before-m003_ways*"))) == 1


def test_a_database_whose_m002_knew_ways_keeps_its_calibrations(path):
    """Databases of the version in between have all of it already; nothing that was learned is lost."""
    with Store(path) as store:
        project = add_project(store, "shop")
        learned = {"used": True}
        store.write(lambda tx: store.calibrations.save(tx, project, "sentiment", "openai", "m", learned, "a way"))
    before = sqlite3.connect(path)
    before.execute("DELETE FROM _sqlite_migrations WHERE name = 'm003_ways'")
    before.commit()
    before.close()
    with Store(path) as store:
        assert store.calibrations.get(project, "sentiment", "openai", "m", "a way") == learned


_BEFORE_PRODUCTS = """
INSERT INTO projects (id, name, language, settings, created_at) VALUES (1, 'shop', 'ko', '{}', 0);
INSERT INTO records (id, project_id, key, text, language, grp, metadata, content_hash, kind, duplicate_of, cluster,
    created_at)
VALUES (1, 1, 'r1', '달고 맛있어요', 'ko', 'A', '{}', 'h1', 'review', NULL, 1, 0),
       (2, 1, 'r2', '달고 맛있어요', 'ko', 'B', '{}', 'h1', 'review', 1, 1, 0),
       (3, 1, 'r3', '달고 맛있어요!', 'ko', NULL, '{}', 'h3', 'review', NULL, 3, 0),
       (4, 1, 'group:A', '- 달고 맛있어요', 'ko', 'A', '{"reviews": 1}', 'h4', 'group', NULL, 4, 0),
       (5, 1, 'group:B', '', 'ko', 'B', '{"reviews": 0}', 'h5', 'group', NULL, 5, 0),
       (6, 1, 'group:C', '', 'ko', 'C', '{"reviews": 0}', 'h5', 'group', 5, 5, 0);
INSERT INTO record_search (rowid, tokens) VALUES (4, '달고 고 맛있 있어 어요 요'), (5, ''), (6, '');
INSERT INTO work (record_id, task, project_id, shuffle, version) VALUES (5, 'usage', 1, 0, 3);
INSERT INTO embeddings (embedder, record_id, vector) VALUES ('e', 1, x'00'), ('e', 5, x'00');
INSERT INTO near_duplicates (project_id, band, record_id) VALUES (1, 77, 1);
INSERT INTO imports (project_id, file, settings, state, created_at) VALUES (1, 'r.csv', '{}', 'running', 0);
"""


def test_products_and_clusters_of_an_older_database_are_made_again(path, monkeypatch):
    """A database from before products were versioned keeps its rows, and what is derived from them becomes right."""
    known = schema.migrations
    monkeypatch.setattr(schema, "migrations", migrations_before(known, "m004"))
    Store(path).close()
    before = sqlite3.connect(path)
    before.executescript(_BEFORE_PRODUCTS)
    before.close()
    monkeypatch.setattr(schema, "migrations", known)
    with Store(path) as store:
        assert [row[0] for row in store.db.all("SELECT record_id FROM embeddings")] == [1]
        task = replace(SENTIMENT, name="usage", unit="group")
        assert (sign_reviews(store, 1), refresh_groups(store, 1, [task])) == (2, 0)
        products = store.db.all(
            "SELECT grp, text, duplicate_of, cluster = id AS own, metadata FROM records WHERE id > 3"
        )
        shown = '{"reviews":1,"shown":1}'
        assert [tuple(row) for row in products] == [
            ("A", "- 달고 맛있어요", None, 1, shown),
            ("B", "- 달고 맛있어요", None, 1, shown),
            ("C", "", None, 1, '{"reviews": 0}'),
        ]
        assert [row["cluster"] for row in store.db.all("SELECT cluster FROM records WHERE kind = 'review'")] == [
            1,
            1,
            1,
        ]
        assert (store.work.get(5, "usage")["version"], store.work.get(4, "usage")["version"]) == (4, 0)
        assert [row["grp"] for row in search(store, 1, "맛있어요")] == ["B", "A"]
        assert store.records.get_import(1, 1)["rows_read"] == 0
        assert store.check() == []
    assert len(list(path.parent.glob("*before-m004_products*"))) == 1


_BEFORE_UNLISTED = """
INSERT INTO projects (id, name, language, settings, created_at) VALUES (1, 'shop', 'ko', '{}', 0);
INSERT INTO records (id, project_id, key, text, language, metadata, content_hash, kind, cluster, created_at)
    VALUES (1, 1, 'a', '달아요', 'ko', '{}', 'h', 'review', 1, 0);
INSERT INTO runs (id, project_id, task, state, settings, total, done, spent, created_at)
    VALUES (1, 1, 'usage', 'finished', '{}', 1, 1, 0.75, 0), (2, 1, 'usage', 'finished', '{}', 0, 0, 0.125, 0);
INSERT INTO run_items (run_id, record_id, state) VALUES (1, 1, 'done');
INSERT INTO spending (project_id, day, spent) VALUES (1, '2026-01-01', 0.875);
INSERT INTO calls (id, fingerprint, project_id, run_id, record_id, task, backend, state, sends, answer, cost,
    created_at) VALUES (1, 'f', 1, 1, 1, 'usage', 'openai', 'answered', 2, '{}', 0.5, 0),
    (2, 'g', 1, 2, 1, 'usage', 'openai', 'answered', 1, '{}', 0.125, 0);
INSERT INTO suggestions (project_id, record_id, task, task_version, run_id, backend, value, flags, evidence, created_at)
    VALUES (1, 1, 'usage', '1', 1, 'openai', '""', '[]', '[]', 0);
"""


def test_what_an_older_program_paid_twice_is_no_fault_of_the_books(path, monkeypatch):
    """Version 0.1.0 kept the last answer of a call alone: what the first one cost is noted, and the sums agree."""
    known = schema.migrations
    monkeypatch.setattr(schema, "migrations", migrations_before(known, "m008"))
    Store(path).close()
    before = sqlite3.connect(path)
    before.executescript(_BEFORE_UNLISTED)
    before.close()
    monkeypatch.setattr(schema, "migrations", known)
    with Store(path) as store:
        assert [row["unlisted"] for row in store.db.all("SELECT unlisted FROM runs ORDER BY id")] == [0.25, 0]
        assert audit(store) == []
        store.write(lambda tx: tx.run("UPDATE calls SET cost = 0.25 WHERE id = 1"))
        assert audit(store) == ["Run 1 counts $0.750000 as spent, its calls cost $0.500000"]


def test_newer_schema_is_refused_with_both_names(path):
    """A file of a newer program is left alone; the message names its migration and the newest that is known."""
    with Store(path) as store:
        store.write(
            lambda tx: tx.run(
                "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('labeler', 'm999_later', '')"
            )
        )
    before = dump(path)
    with pytest.raises(StoreNewer, match=r"m999_later.*m0\d\d_"):
        Store(path)
    assert dump(path) == before


def test_file_is_copied_before_it_is_migrated(path, two_more):
    """The copy beside the file is the database as it was, complete and sound."""
    known, schema.migrations = schema.migrations, migrations_before(schema.migrations, "m900")
    with Store(path) as store:
        add_project(store, "before")
    schema.migrations = known
    with Store(path) as store:
        add_project(store, "after")
    (backup,) = path.parent.glob("labeler.before-m900_first-*.db")
    assert any("'before'" in line for line in dump(backup))
    assert not any("'after'" in line for line in dump(backup))
    assert any("CREATE TABLE second" in line for line in dump(path))


def test_migration_that_fails_half_way_leaves_the_old_schema(path, two_more):
    """All pending migrations are one transaction: after a failure none of them stands, and a re-run finishes."""
    known, schema.migrations = schema.migrations, migrations_before(schema.migrations, "m900")
    with Store(path) as store:
        add_project(store, "kept")
    schema.migrations = known
    before = dump(path)
    two_more["on"] = True
    with pytest.raises(RuntimeError):
        Store(path)
    assert dump(path) == before
    two_more["on"] = False
    with Store(path) as store:
        assert [project["name"] for project in store.projects.all()] == ["kept"]
        assert schema.migrate(store.db) == []


@pytest.mark.slow
def test_processes_that_start_together_all_find_a_schema(path):
    """A server and a worker started at once on a new folder both open; nobody meets half a schema or a lock."""
    code = """
import sys, time
from labeler.store import Store
print("ready", flush=True); input()
with Store(sys.argv[1]) as store:
    print(len(store.projects.all()))
"""
    processes = [python(code, str(path), stdin=-1) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["0\n"] * 4


# Group commit


def test_failing_piece_leaves_the_others(world):
    """Pieces that wait together are committed together, but a failure undoes only its own piece."""
    store = world.store
    gate = threading.Event()
    outcomes = {}

    def create(name: str, fail: bool) -> None:
        def work(tx):
            store.projects.create(tx, name, "ko", {})
            if fail:
                raise ValueError(name)

        try:
            store.write(work)
            outcomes[name] = "stored"
        except ValueError as error:
            outcomes[name] = f"failed {error}"

    first = threading.Thread(target=lambda: store.write(lambda tx: gate.wait(5)))
    first.start()
    threads = [threading.Thread(target=create, args=(f"p{n}", n % 3 == 0)) for n in range(9)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in [first, *threads]:
        thread.join()
    expected = {f"p{n}": f"failed p{n}" if n % 3 == 0 else "stored" for n in range(9)}
    assert outcomes == expected
    assert {p["name"] for p in store.projects.all()} - {"reviews"} == {n for n, o in expected.items() if o == "stored"}


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO nowhere VALUES (1)",
        "INSERT INTO members (project_id, reviewer_id, role) VALUES (999, 999, 'x')",
        "INSERT INTO projects (name) VALUES ('incomplete')",
    ],
)
def test_refused_statement_is_an_error_of_ours_and_only_its_own(world, sql):
    """What SQLite refuses for its content reaches its caller as an error of ours; its neighbours are stored."""
    store = world.store
    gate = threading.Event()
    first = threading.Thread(target=lambda: store.write(lambda tx: gate.wait(5)))
    neighbour = threading.Thread(target=lambda: add_project(store, "neighbour"))
    first.start()
    neighbour.start()
    threading.Timer(0.05, gate.set).start()
    with pytest.raises((StoreError, Conflict)):
        store.write(lambda tx: tx.run(sql))
    first.join()
    neighbour.join()
    assert store.projects.named("neighbour")


def test_many_threads_write_and_read_their_own_results(world):
    """Each caller gets the result of its own piece, and finds it committed when its call returns."""
    store = world.store
    wrong = []

    def worker(n: int) -> None:
        for m in range(15):
            id_ = add_project(store, f"{n}-{m}")
            if store.projects.get(id_)["name"] != f"{n}-{m}":
                wrong.append((n, m))

    threads = [threading.Thread(target=worker, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(store.projects.all()) == 12 * 15 + 1


def test_rows_that_go_in_together_are_stored_as_they_came(world):
    """By one statement, in their order: numbers, nothing, quotes, line ends, what is outside the first plane, NUL."""
    texts = ["사과", 'a "quoted" \\ one', "two\r\nlines\u2028more\x85", "👩‍👧 \ud7ff", "", "nul\x00inside", "\\u0000"]
    rows = [(n, text, None if n % 2 else 0.1 + n) for n, text in enumerate(texts)]

    def work(tx):
        tx.run("CREATE TEMP TABLE things (id INTEGER PRIMARY KEY, text TEXT, score REAL)")
        return [
            (tx.insert("things", "id, text, score", part), tx.insert("things", "id, text, score", part, conflict))
            for part in (rows[:5], rows[5:], [])
        ] + [tuple(row) for row in tx.all("SELECT id, text, score FROM things ORDER BY id")]

    conflict = "ON CONFLICT DO NOTHING"
    assert world.store.write(work) == [(5, 0), (2, 0), (0, 0), *rows]


def test_result_comes_only_after_the_commit(world):
    """While the transaction is open no caller has its answer: an answer means that it is durable."""
    store = world.store
    inside, gate, answered = threading.Event(), threading.Event(), threading.Event()

    def slow(tx):
        store.projects.create(tx, "slow", "ko", {})
        inside.set()
        gate.wait(5)

    def caller():
        store.write(slow)
        answered.set()

    thread = threading.Thread(target=caller)
    thread.start()
    inside.wait(5)
    assert not answered.wait(0.05)
    assert "slow" not in {project["name"] for project in store.projects.all()}
    gate.set()
    thread.join()
    assert "slow" in {project["name"] for project in store.projects.all()}


def test_two_stores_on_one_file_write_at_once(world):
    """FAULTS 18: Writers of two processes wait for each other instead of failing with a locked database."""
    with Store(world.store.path, synchronous="OFF") as other:
        errors = []

        def write(store, prefix):
            try:
                for n in range(60):
                    add_project(store, f"{prefix}{n}")
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=(s, p)) for s, p in [(world.store, "a"), (other, "b")]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(other.projects.all()) == 121


def test_closed_store_says_so(world):
    """After close() neither reads nor writes go anywhere, and what waited was written."""
    add_project(world.store, "last")
    world.store.close()
    with pytest.raises(StoreError, match="closed"):
        add_project(world.store, "too late")
    with pytest.raises(StoreError, match="closed"):
        world.store.projects.all()
    with Store(world.store.path) as again:
        assert again.projects.named("last")


# Damage


def filled(path: Path) -> None:
    with Store(path, synchronous="OFF") as store:
        project_id = add_project(store, "precious")
        texts = [NewRecord(f"k{n}", f"{REVIEWS[n % len(REVIEWS)]} {n}") for n in range(300)]
        store.write(lambda tx: store.records.add(tx, project_id, texts, ["sentiment"]))


def test_damaged_header_is_refused(path):
    """A file whose header is garbage is called damaged, and is not touched."""
    filled(path)
    data = path.read_bytes()
    path.write_bytes(os.urandom(16) + data[16:])
    torn = path.read_bytes()
    with pytest.raises(StoreDamaged, match="doctor"):
        Store(path)
    assert path.read_bytes() == torn


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.001, 0.3, 0.9, 0.999])
def test_truncated_file_is_refused_and_never_starts_empty(path, share):
    """However much of the file is gone, it is called damaged; an empty one too."""
    filled(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StoreDamaged):
        Store(path)


def test_missing_file_beside_its_log_is_refused(path):
    """Where the database is gone and its -wal still stands, nothing new is started over it."""
    filled(path)
    path.rename(path.with_name("moved"))
    path.with_name(path.name + "-wal").write_bytes(b"x" * 5000)
    with pytest.raises(StoreDamaged, match="-wal"):
        Store(path)
    assert not path.exists()


@pytest.mark.parametrize("seed", range(12))
def test_random_bytes_are_never_taken_for_an_empty_store(path, seed):
    """Random damage anywhere is refused, found by the check, or harmless: never an empty store without a word."""
    filled(path)
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    region = 100 if seed % 2 else len(data)
    for _ in range(20 if seed % 2 else 3000):
        data[chance.randrange(region)] = chance.randrange(256)
    path.write_bytes(data)
    try:
        with Store(path) as store:
            sound = store.check() == []
            count = store.db.value("SELECT COUNT(*) FROM records")
    except StoreError as error:
        assert str(path) in str(error)
    else:
        assert not sound or count == 300


def test_damage_met_while_reading_names_the_file_and_the_remedy(path):
    """A torn page in the middle raises StoreDamaged at the read that meets it."""
    filled(path)
    data = bytearray(path.read_bytes())
    data[8192:] = os.urandom(len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(StoreDamaged, match="backup"), Store(path) as store:
        store.db.all("SELECT * FROM records")


# Read-only, full disk, backup


def test_read_only_store_reads_and_refuses_to_write(world):
    """With read_only nothing can be changed, and everything can be read."""
    with Store(world.store.path, read_only=True) as store:
        assert store.projects.named("reviews")
        with pytest.raises(StoreReadOnly, match="nothing was changed"):
            add_project(store, "no")


def test_read_only_needs_a_file(path):
    """A read-only start on nothing says so and makes nothing."""
    with pytest.raises(StoreReadOnly, match="no database"):
        Store(path, read_only=True)
    assert not path.exists()


def test_read_only_store_refuses_to_migrate(path, two_more):
    """A file that needs a migration cannot be opened read-only; the message names the migration."""
    known, schema.migrations = schema.migrations, migrations_before(schema.migrations, "m900")
    with Store(path):
        pass
    schema.migrations = known
    with pytest.raises(StoreReadOnly, match="m900_first"):
        Store(path, read_only=True)


@pytest.fixture
def without_rights():
    """A folder that this process may not write to, even when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="labeler-test-"))
    yield folder
    if os.geteuid() != os.getuid():
        os.seteuid(os.getuid())
    folder.chmod(stat.S_IRWXU)
    shutil.rmtree(folder)


def give_up_rights(folder: Path) -> None:
    folder.chmod(0o555)
    if os.getuid() == 0:
        os.seteuid(65534)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs Unix permissions")
def test_writer_at_rest_lets_go_of_its_pages(path, monkeypatch):
    """After much was written the pages are given back once nothing comes for a while; writing goes on after it."""
    given = threading.Event()
    monkeypatch.setattr(database, "_AT_REST", 0.05)
    monkeypatch.setattr(database, "give_back", given.set)
    with Store(path) as store:
        project = store.write(lambda tx: store.projects.create(tx, "shop", "ko", {}))
        assert not given.wait(0.2)
        rows = [NewRecord(f"r{n}", f"리뷰 {n}") for n in range(1500)]
        store.write(lambda tx: store.records.add(tx, project, rows, ["sentiment"]))
        assert given.wait(10)
        store.write(lambda tx: store.records.add(tx, project, [NewRecord("last", "끝")], ["sentiment"]))
        assert store.records.counts(project)["records"] == 1501


def test_folder_without_write_permission_is_refused_by_path(without_rights):
    """A store in a folder that cannot be written is refused with its path, and opens read-only."""
    path = without_rights / "labeler.db"
    filled(path)
    path.chmod(0o444)
    give_up_rights(without_rights)
    with pytest.raises(StoreReadOnly, match=str(path)):
        Store(path)
    with Store(path, read_only=True) as store:
        assert store.projects.named("precious")


def test_full_disk_is_told_and_passes(world):
    """FAULTS 5: A write that finds no space raises StoreFull and leaves nothing half; reads and later writes go on."""
    store = world.store

    def limit(pages: int) -> None:
        store.write(lambda tx: tx.one(f"PRAGMA max_page_count = {pages}"))

    limit(store.db.value("PRAGMA page_count") + 3)
    before = store.records.counts(world.project_id)
    bulk = [NewRecord(f"big{n}", "가" * 3000 + str(n)) for n in range(50)]
    with pytest.raises(StoreFull, match="disk"):
        store.write(lambda tx: store.records.add(tx, world.project_id, bulk, ["sentiment"]))
    assert store.records.counts(world.project_id) == before
    assert search(store, world.project_id, "사과")
    assert store.check() == []
    limit(1_000_000)
    store.write(lambda tx: store.records.add(tx, world.project_id, bulk, ["sentiment"]))
    assert store.records.counts(world.project_id)["records"] == before["records"] + 50


def test_full_disk_is_told_to_every_caller_of_the_batch(world):
    """Pieces that share a transaction with the one that found no space are not acknowledged either."""
    store = world.store
    store.write(lambda tx: tx.one(f"PRAGMA max_page_count = {store.db.value('PRAGMA page_count') + 2}"))
    gate = threading.Event()
    outcomes = []

    def write(n: int) -> None:
        try:
            new = [NewRecord(f"big{n}", "나" * 20000 + str(n))]
            store.write(lambda tx: store.records.add(tx, world.project_id, new, []))
            outcomes.append((n, "stored"))
        except StoreFull:
            outcomes.append((n, "full"))

    def hold() -> None:
        with contextlib.suppress(StoreFull):
            store.write(lambda tx: gate.wait(5))

    first = threading.Thread(target=hold)
    first.start()
    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in [first, *threads]:
        thread.join()
    for n, outcome in outcomes:
        assert (store.records.by_key(world.project_id, f"big{n}") is not None) == (outcome == "stored")
    assert "full" in {outcome for _, outcome in outcomes}


def test_backup_is_equal_and_complete(world, tmp_path):
    """A backup taken while another thread writes is sound and holds everything committed before it began."""
    store = world.store
    world.approve(world.records[0])
    stop = threading.Event()

    def write():
        n = 0
        while not stop.is_set():
            add_project(store, f"meanwhile {n}")
            n += 1

    thread = threading.Thread(target=write)
    thread.start()
    store.backup(tmp_path / "copy.db")
    stop.set()
    thread.join()
    with Store(tmp_path / "copy.db") as copy:
        assert copy.check() == []
        assert copy.annotations.current(world.records[0], "sentiment")["state"] == "approved"
    store.backup(tmp_path / "quiet.db")
    assert dump(tmp_path / "quiet.db") == dump(store.path)
    assert not list(tmp_path.glob("*.tmp"))


def test_backup_never_overwrites(world, tmp_path):
    """A name that is taken, or a folder that is not there, is refused."""
    (tmp_path / "taken.db").write_bytes(b"mine")
    with pytest.raises(InputError, match="never overwrites"):
        world.store.backup(tmp_path / "taken.db")
    with pytest.raises(InputError, match="no folder"):
        world.store.backup(tmp_path / "nowhere" / "copy.db")
    assert (tmp_path / "taken.db").read_bytes() == b"mine"


# Records


def test_same_key_and_text_is_known_and_another_text_is_refused(world):
    """Importing a record twice changes nothing; a changed text under the same key is not taken over silently."""
    again, changed, fresh = world.store.write(
        lambda tx: world.store.records.add(
            tx,
            world.project_id,
            [NewRecord("r0", REVIEWS[0]), NewRecord("r1", "바뀐 글"), NewRecord("new", "새 글")],
            ["sentiment"],
        )
    )
    assert (again.outcome, again.id) == ("known", world.records[0])
    assert changed.outcome == "other_text"
    assert world.store.records.get(world.records[1]).text == REVIEWS[1]
    assert fresh.outcome == "added"


def test_exact_duplicate_is_linked_and_not_queued(world):
    """A text that differs only in case, width or space is stored beside its original, and nobody labels it twice."""
    (id_,) = world.add(["THE  apples were ｆresh and sweet"])
    assert world.store.work.get(id_, "sentiment") is None
    assert world.store.records.counts(world.project_id)["duplicates"] == 1
    assert world.store.records.get(id_).cluster == world.store.records.get(world.records[5]).cluster


def test_near_duplicates_share_a_cluster(world):
    """Records whose texts are alike belong to the first one's cluster, but are all queued."""
    ids = world.add(["같은 말을 하는 리뷰 하나", "같은 말을 하는 리뷰 하나!"])
    sign_reviews(world.store, world.project_id)
    clusters = {world.store.records.get(id_).cluster for id_ in ids}
    assert clusters == {ids[0]}
    assert all(world.state(id_) == "pending" for id_ in ids)
    assert world.store.records.near_duplicates(world.project_id) == 1


def test_unknown_things_are_named(world):
    """Every look-up by number that finds nothing says which number."""
    for look in (world.store.records.get, world.store.projects.get, world.store.ledger.run):
        with pytest.raises(NotFound, match="4711"):
            look(4711)
    with pytest.raises(NotFound, match="reviews"):
        world.store.projects.named("no such")


def test_task_settings_are_versioned(world):
    """Each change is a new version; the newest is in force and the older ones stay."""
    projects = world.store.projects
    for k in (3, 5):
        world.store.write(lambda tx, k=k: projects.set_task_settings(tx, world.project_id, "sentiment", {"k": k}, None))
    assert projects.task_settings(world.project_id, "sentiment") == (2, {"k": 5})
    assert [row["version"] for row in projects.task_versions(world.project_id, "sentiment")] == [2, 1]


def test_no_file_of_an_open_database_is_opened_beside_sqlite(tmp_path):
    """To close one ends the locks that SQLite holds on it for this process: another process could write at once."""
    opened = []

    def audit(event, arguments):
        if event == "open" and str(arguments[0]).startswith(str(tmp_path)):
            opened.append(arguments[0])

    with Store(tmp_path / "labeler.db") as store:
        sys.addaudithook(audit)
        for n in range(3):
            store.write(lambda tx, n=n: store.events.add(tx, "filler", detail={"n": n}))
        assert store.db.value("SELECT COUNT(*) FROM events") == 3
        store.checkpoint()
        assert opened == []


OTHER = """if True:
    import sys
    from labeler.store import Store

    for name in ("theirs", "more"):
        store = Store(sys.argv[1])
        store.write(lambda tx: store.projects.create(tx, name, "ko", {}))
        store.projects.all()
        store.close()
"""


def test_a_second_store_of_a_process_takes_no_lock_from_the_first(tmp_path):
    """As a replay in a server makes one: other processes come and go meanwhile, and nobody's rows are lost."""
    with contextlib.closing(Store(tmp_path / "labeler.db")) as store:
        store.write(lambda tx: store.projects.create(tx, "early", "ko", {}))
        assert len(store.projects.all()) == 1
        Store(store.path, read_only=True).close()
        with python(OTHER, str(store.path)) as other:
            assert other.wait(60) == 0
        store.write(lambda tx: store.projects.create(tx, "later", "ko", {}))
        assert [project["name"] for project in store.projects.all()] == ["early", "later", "more", "theirs"]


def test_the_wal_is_moved_into_the_file_by_nobody_who_writes(tmp_path, monkeypatch):
    """A commit never waits for pages of earlier ones to be written all over the file: another thread does that."""
    monkeypatch.setattr("labeler.store.database._MOVED_AT", 20)
    monkeypatch.setattr("labeler.store.database._LONGEST", 10_000)
    path = tmp_path / "labeler.db"
    with Store(path) as store:
        before = path.stat().st_size
        for n in range(60):
            store.write(lambda tx, n=n: store.events.add(tx, "filler", detail={"text": str(n) * 4000}))
        until(lambda: path.stat().st_size > before + 30 * 4096)
    assert not store.db._mover.is_alive()
