"""Operation: ending on a signal, a full disk, links, a moved instance, a forgotten reader, looking without writing."""

from __future__ import annotations

import contextlib
import html
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import PASSWORD, enter
from flask import Flask
from flask.testing import FlaskClient
from helpers import ROOT, World, numbered, open_instance, process, python, until

from labeler import accounts
from labeler.annotation.decisions import Decision
from labeler.app import create_app
from labeler.demo import create as make_demo
from labeler.demo import reviews
from labeler.doctor import examine
from labeler.errors import StoreError, StoreFull
from labeler.files import write_private
from labeler.ingest.options import ImportOptions
from labeler.ingest.service import queue_import
from labeler.instance import Instance
from labeler.store import Store, database
from labeler.store.database import holders
from labeler.worker import Worker

# Ending

AT_EVERY_STEP = """
import signal, sys
from labeler.serving import end_signal

left = [0]

def step(frame, event, argument):
    if frame.f_code.co_name in ("<lambda>", "set"):
        return None
    frame.f_trace_opcodes = True
    left[0] -= 1
    if left[0] == 0:
        signal.raise_signal(signal.SIGTERM)
    return step

for steps in range(1, 40):
    left[0] = steps
    ended = end_signal()
    sys.settrace(step)
    ended.wait()
    sys.settrace(None)
print("ended each time")
"""


def test_signal_ends_whatever_it_interrupts() -> None:
    """FAULTS 59: SIGTERM that comes at any step of waiting for it ends the wait; no lock is taken that is held."""
    started = python(AT_EVERY_STEP)
    try:
        assert started.communicate(timeout=120)[0] == "ended each time\n"
    finally:
        started.kill()
        started.wait()


def apart(count: int, seed: int = 0) -> list[str]:
    """Reviews that are no near-duplicates of each other."""
    chance = random.Random(seed)
    letters = "가나다라마바사아자차카타파하"
    return [" ".join("".join(chance.choices(letters, k=3)) for _ in range(12)) for _ in range(count)]


@pytest.mark.slow
def test_worker_ends_on_a_signal_with_work_pending(tmp_path: Path) -> None:
    """FAULTS 59: `labeler worker` that is signalled at some moment of its work ends with status 0, time after time."""
    with open_instance(tmp_path / "instance", texts=apart(200, seed=9)) as instance:
        project = instance.store.projects.all()[0]
        for n in range(2):
            file = tmp_path / f"{n}.csv"
            file.write_text("text\n" + "\n".join(apart(1000, seed=n)), encoding="utf-8")
            queue_import(instance.store, project["id"], file, file.name, ImportOptions(text="text"), None)
    for n in range(4):
        with process(tmp_path, "worker") as started:
            assert started.stdout is not None
            assert started.stdout.readline().startswith("Working")
            time.sleep(0.15 * n)
            started.send_signal(signal.SIGTERM if n % 2 else signal.SIGINT)
            assert started.wait(150) == 0, (tmp_path / "server.log").read_text()


# A full disk, foreign files


def small_disk(folder: Path, size: str = "400k") -> Iterator[Path]:
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KB."""
    yield from small_disk(tmp_path / "disk")


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)


def test_backup_to_a_full_disk_names_that_disk(disk: Path, store: Store, project: int) -> None:
    """FAULTS 5: what is full is where the backup goes, not where the database is; nothing half stays."""
    fill(disk)
    with pytest.raises(StoreFull, match=str(disk / "b.db")):
        store.backup(disk / "b.db")
    assert [path.name for path in disk.iterdir()] == ["filler"]


def test_settings_on_a_full_disk_are_refused_with_507(disk: Path, people: dict[str, int], app: Flask) -> None:
    """FAULTS 5: a file of settings that does not fit is said with 507, and what stood there stands."""
    fill(disk)
    with pytest.raises(StoreFull, match=str(disk)):
        write_private(disk / "settings.json", "x" * 5000)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.add_url_rule("/fill", "fill", lambda: write_private(disk / "other", "x" * 5000))
    app.add_url_rule("/write", "write", lambda: (disk / "third").write_bytes(b"x" * 9000))
    client = app.test_client()
    enter(client, app, people["admin"])
    assert client.get("/fill").status_code == 507
    assert client.get("/write").status_code == 507


def test_backup_leaves_the_file_of_somebody_else_alone(store: Store, tmp_path: Path) -> None:
    """A file that happens to be called like the backup with .tmp behind it is not ours."""
    (tmp_path / "b.db.tmp").write_text("mine")
    store.backup(tmp_path / "b.db")
    assert (tmp_path / "b.db.tmp").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.glob("b.db*")) == ["b.db", "b.db.tmp"]


def csrf(client: FlaskClient, path: str = "/") -> str:
    found = re.search(r'name="csrf-token" content="([^"]+)"', client.get(path).text)
    assert found
    return html.unescape(found[1])


def upload(client: FlaskClient, project: int, name: str = "a.csv") -> Any:
    from io import BytesIO

    form = {"csrf_token": csrf(client), "file": (BytesIO("text\n좋아요\n".encode()), name)}
    return client.post(f"/projects/{project}/import", data=form)


@pytest.mark.parametrize("linked", ["uploads", "uploads/1"])
def test_upload_does_not_follow_a_link(
    client: FlaskClient, app: Flask, instance: Instance, project: int, tmp_path: Path, linked: str
) -> None:
    """FAULTS 37: a folder of uploads that leads elsewhere is refused by name, and nothing is written there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (instance.folder / linked).parent.mkdir(exist_ok=True)
    (instance.folder / linked).symlink_to(elsewhere)
    answer = upload(client, project)
    assert answer.status_code == 500
    assert "uploads" in answer.text
    assert not list(elsewhere.rglob("*"))


@pytest.mark.parametrize("name", ["a\x00.csv", "\ud800.csv", "a\x00.csv.gz"])
def test_upload_with_a_name_that_cannot_be_stored_leaves_nothing(
    client: FlaskClient, instance: Instance, project: int, name: str
) -> None:
    """FAULTS 37: a name with NUL is refused before the file is written."""
    with contextlib.suppress(UnicodeEncodeError):
        assert upload(client, project, name).status_code == 400
    assert not list((instance.folder / "uploads").rglob("*.*"))


def test_moved_instance_keeps_its_exports_and_its_queued_imports(tmp_path: Path) -> None:
    """Files that the page made are found where the instance is now, though whole paths are stored."""
    with Instance(tmp_path / "a") as instance:
        person = accounts.add_reviewer(instance.store, "admin", PASSWORD, accounts.ADMIN)
        make_demo(instance, person)
        client = signed_in(instance, person)
        form = {"csrf_token": csrf(client), "task": "sentiment", "format": "csv"}
        assert client.post("/projects/1/export", data=form).status_code == 303
        address = upload(client, 1).location
        form = {"csrf_token": csrf(client), "text": "text", "header": "1"}
        assert client.post(address, data=form).status_code == 303
    shutil.move(tmp_path / "a", tmp_path / "b")
    with Instance(tmp_path / "b") as instance:
        client = signed_in(instance, 1)
        assert client.get("/projects/1/exports/1/train.csv", buffered=True).status_code == 200
        count = instance.store.records.counts(1)["records"]
        Worker(instance).run_until_idle()
        assert instance.store.records.counts(1)["records"] == count + 1
        assert all(finding.good for finding in examine(tmp_path / "b", deep=True) if "export" in finding.text)


def signed_in(instance: Instance, person: int) -> FlaskClient:
    app = create_app(instance, {"TESTING": True})
    client = app.test_client()
    enter(client, app, person)
    return client


# A forgotten reader


def test_forgotten_reader_is_named_and_the_wal_shrinks_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS 60: who reads an old state for long is named by the log and by doctor; after that the -wal is cut back."""
    from labeler import doctor, worker

    for module in (worker, doctor):
        monkeypatch.setattr(module, "HELD_BACK", 200_000)
    monkeypatch.setattr(database, "_WAL_SIZE", 100_000)
    instance = open_instance(tmp_path / "instance")
    path, store = instance.store.path, instance.store
    wal = path.with_name("labeler.db-wal")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM records").fetchone()
    for n in range(300):
        store.write(lambda tx, n=n: store.events.add(tx, "filler", detail={"text": str(n) * 2000}))  # type: ignore[misc]
    grown = wal.stat().st_size
    assert grown > 400_000
    with caplog.at_level("WARNING"):
        background = Worker(instance)
        background._checkpoint()
        background._checkpoint_at = 0
        background._checkpoint()
    assert caplog.text.count("labeler.db-wal grows") == 1
    assert f"({os.getpid()})" in caplog.text
    bad = [finding.text for finding in examine(instance.folder) if not finding.good]
    assert any("labeler.db-wal grows" in text and "End the one that is forgotten" in text for text in bad)
    reader.close()
    assert store.checkpoint() == 0
    store.write(lambda tx: store.events.add(tx, "filler"))
    assert wal.stat().st_size <= 100_000 < grown
    assert not [finding for finding in examine(instance.folder) if "grows" in finding.text]
    instance.close()


def test_only_processes_that_have_the_database_open_are_named(tmp_path: Path) -> None:
    """The list of who has a file open holds this process while it has, and not after."""
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    assert any(name.endswith(f"({os.getpid()})") for name in holders(path))
    connection.close()
    assert holders(path) == []


# Looking without writing


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """The demonstration in a folder that cannot be written: for root that takes a file system of its own."""
    folder = tmp_path / "frozen"
    with contextlib.ExitStack() as stack:
        if os.getuid() == 0:
            stack.enter_context(contextlib.contextmanager(small_disk)(folder, "60m"))
        with Instance(folder) as instance:
            make_demo(instance, accounts.add_reviewer(instance.store, "kim", PASSWORD, accounts.ADMIN))
        if os.getuid() == 0:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        else:
            folder.chmod(0o555)
            (folder / "labeler.db").chmod(0o444)
            stack.callback(folder.chmod, 0o755)
        yield folder


def labeler(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from labeler.cli import main; main()", *words],
        capture_output=True, text=True, timeout=120, cwd=ROOT,
    )  # fmt: skip


def test_commands_that_look_work_on_a_folder_that_cannot_be_written(frozen: Path, tmp_path: Path) -> None:
    """FAULTS 6: projects, export and backup only read; import is refused with the path."""
    out = tmp_path / "out"
    out.mkdir()
    where = ("--instance", str(frozen))
    listed = labeler("projects", *where)
    assert (listed.returncode, f"{len(reviews())} records" in listed.stdout) == (0, True), listed.stderr
    words = ("--task", "sentiment", "--format", "csv", "--out", str(out / "set"), *where)
    project = listed.stdout.partition(":")[0]
    made = labeler("export", "--project", project, *words)
    assert made.returncode == 0, made.stderr
    assert (out / "set" / "train.csv").stat().st_size > 0
    assert labeler("backup", str(out / "b.db"), *where).returncode == 0
    (out / "a.csv").write_text("text\nx\n")
    refused = labeler("import", str(out / "a.csv"), "--project", project, *where)
    assert (refused.returncode, str(frozen) in refused.stderr) == (1, True)


def test_people_sign_in_and_look_where_nothing_can_be_written(tmp_path: Path) -> None:
    """FAULTS 6: --read-only lets people sign in by password, and every page that only shows something shows it."""
    folder = tmp_path / "instance"
    with Instance(folder) as instance:
        make_demo(instance, accounts.add_reviewer(instance.store, "kim", PASSWORD, accounts.ADMIN))
    (folder / "secret_key").unlink(missing_ok=True)
    with Instance(folder, read_only=True) as instance:
        app = create_app(instance, {"TESTING": True})
        client = app.test_client()
        form = {"csrf_token": csrf(client, "/sign-in"), "name": "kim"}
        assert client.post("/sign-in", data=form | {"password": "wrong"}).status_code == 401
        assert client.post("/sign-in", data=form | {"password": PASSWORD}).status_code == 303
        for rule in app.url_map.iter_rules():
            if "GET" in (rule.methods or ()) and not rule.arguments - {"project_id", "task"}:
                values: dict[str, Any] = {"project_id": 1, "task": "sentiment"}
                with app.test_request_context():
                    address = app.url_for(rule.endpoint, **{name: values[name] for name in rule.arguments})
                assert client.get(address).status_code < 500, address
        token = csrf(client)
        assert client.post("/language", data={"csrf_token": token, "language": "en"}).status_code == 303
        answer = client.post("/people/accounts", data={"csrf_token": token, "name": "x", "role": "admin"})
        assert answer.status_code == 503
        assert client.post("/sign-out", data={"csrf_token": token}).status_code == 303
        assert client.get("/people").status_code == 302
        token = csrf(client, "/sign-in")
        for _ in range(5):
            client.post("/sign-in", data=form | {"csrf_token": token, "password": "wrong"})
        assert client.post("/sign-in", data=form | {"csrf_token": token, "password": PASSWORD}).status_code == 429
    assert not (folder / "secret_key").exists()


# A network file system

MOUNTED = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:40 / {at} rw,relatime shared:20 - {kind} server:/export rw,vers=4.2
41 22 0:41 / {at}/local rw,relatime - xfs /dev/vdb rw
"""


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_database_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """FAULTS 12: nothing is made there; the sentence says why, and what to do. A local disk below it is fine."""
    share = tmp_path / "team share"
    (share / "local").mkdir(parents=True)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTED.format(at=str(share).replace(" ", "\\040"), kind=kind))
    monkeypatch.setattr(database, "MOUNTS", mounts)
    with pytest.raises(StoreError, match=rf"network file system \({kind}\).*local disk"):
        Instance(share / "instance")
    assert not list(share.rglob("*.db*"))
    Instance(share / "local" / "instance").close()
    Instance(tmp_path / "instance").close()


def test_file_system_of_a_real_folder_is_told(tmp_path: Path, disk: Path) -> None:
    """The system's own list of mounts is read as it is."""
    assert database.file_system(disk / "x.db") == "tmpfs"


# Many people at once


@pytest.mark.slow
def test_eight_people_label_while_a_file_comes_in(tmp_path: Path) -> None:
    """FAULTS 17: eight people decide on their records while 2,000 rows are imported; every decision is taken."""
    with open_instance(tmp_path / "instance", texts=numbered(160)) as instance:
        store, project = instance.store, instance.store.projects.all()[0]
        task = instance.task_of(project, "sentiment")
        ids = [row["record_id"] for row in store.db.all("SELECT record_id FROM work ORDER BY record_id")]
        names = (f"person {n}" for n in range(8))
        people = [store.write(lambda tx, name=name: store.people.create(tx, name, None, "reviewer")) for name in names]  # type: ignore[misc]
        file = tmp_path / "many.csv"
        file.write_text("text\n" + "\n".join(apart(2000)), encoding="utf-8")
        import_id = queue_import(store, project["id"], file, file.name, ImportOptions(text="text"), None)
        decided: list[int] = []

        def work(n: int) -> None:
            for record in ids[n::8]:
                decision = Decision(record, "approve", f"person-{n}-{record:06d}", 0, "positive")
                decided.append(instance.decisions(project, task).decide(people[n], decision).annotation_id)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        worker = Worker(instance)
        worker.start()
        until(lambda: store.records.get_import(project["id"], import_id)["state"] != "queued", 60)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: store.records.get_import(project["id"], import_id)["state"] == "finished", 240)
        worker.stop()
        assert len(set(decided)) == 160
        assert store.work.counts(project["id"], "sentiment")["approved"] == 160
        assert store.records.counts(project["id"])["records"] == 2160


# A soak in miniature


@pytest.mark.slow
def test_restarts_of_workers_leak_nothing(tmp_path: Path) -> None:
    """FAULTS 60: over forty workers and 2,000 decisions memory, handles and the -wal stay flat; all is whole."""
    world = World(tmp_path / "instance", apart(40))
    world.store.close()
    (tmp_path / "instance").chmod(0o700)
    with Instance(tmp_path / "instance") as instance:
        store, project = instance.store, instance.store.projects.all()[0]
        decisions = instance.decisions(project, instance.task_of(project, "sentiment"))
        process, chance = psutil.Process(), random.Random(60)
        seen: list[tuple[int, int, int]] = []
        for n in range(40):
            worker = Worker(instance)
            worker.start()
            for m in range(50):
                record, value = chance.choice(world.records), chance.choice(["positive", "negative"])
                decision = Decision(record, "approve", f"soak-{n:04d}-{m:04d}", 0, value, force=True)
                decisions.decide(world.kim, decision)
            worker.stop()
            assert not any(thread.is_alive() for thread in worker._threads)
            wal = store.path.with_name("labeler.db-wal").stat().st_size
            seen.append((process.memory_info().rss, process.num_fds(), wal))
        early, late = seen[10], seen[-1]
        assert late[0] - early[0] < 40 * 1024 * 1024
        assert late[1] <= early[1] + 6
        assert max(wal for _, _, wal in seen) <= database._WAL_SIZE
        assert store.db.value("SELECT COUNT(*) FROM annotations") == 2000
    assert [finding.text for finding in examine(tmp_path / "instance") if not finding.good] == []
