"""What an instance does not let happen to itself: lost databases, weak keys, foreign plugins, addresses of clouds."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import enter
from flask.testing import FlaskClient
from helpers import World, kill, migrations_before, python, until
from test_web_access import token_of

from labeler import accounts
from labeler.app import create_app
from labeler.backends.base import Backend, BackendFactory
from labeler.backends.openai import OpenAIBackend
from labeler.doctor import examine
from labeler.errors import LabelerError, MissingExtra, NotFound, SettingError
from labeler.extras import EXTRAS, check_embedder
from labeler.instance import Instance
from labeler.retrieval.retrievers import Similar
from labeler.store import Store, migrations


def bad(folder: Path) -> list[str]:
    return [finding.text for finding in examine(folder) if not finding.good]


# A database whose newest rows are gone

_WRITE_ON = """
import sys, time
from pathlib import Path
from labeler.accounts import add_reviewer
from labeler.instance import Instance
instance = Instance(Path(sys.argv[1]))
for n in range(20):
    add_reviewer(instance.store, f"person {n}", None)
print("written", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_doctor_names_a_wal_that_somebody_took_away(tmp_path: Path, harm: str) -> None:
    """After a kill the newest rows are in the -wal: where it is gone or cut off, the database opens and lacks them."""
    folder = tmp_path / "instance"
    process = python(_WRITE_ON, str(folder))
    assert process.stdout is not None and process.stdout.readline() == "written\n"
    kill(process)
    wal = folder / "labeler.db-wal"
    assert not any("-wal" in text for text in bad(shutil.copytree(folder, tmp_path / "sound")))
    if harm == "removed":
        wal.unlink()
    else:
        os.truncate(wal, wal.stat().st_size // 2)
    assert ["labeler.db-wal" in text and "newest rows" in text for text in bad(folder)] == [True]


def test_doctor_names_a_database_that_is_older_than_its_index(world: World, tmp_path: Path) -> None:
    """The index counts decisions that the database does not know: an older copy was put in its place."""
    folder = tmp_path / "instance"
    with Instance(folder) as instance:
        project = instance.store.projects.get(instance.create_project("shop", "en", {"tasks": ["sentiment"]}))
        task = instance.project_task(project, "sentiment")
        index = instance.index(project, task)
        index.refresh()
        index.seq = 7
        index.save()
        index.seq = 0
        assert instance.index(project, task).ahead() == 7
        kept = index.path
        assert kept is not None
        data = kept.read_bytes()
    kept.write_bytes(data)
    assert "The database lacks the newest 7 decisions of shop, sentiment" in " ".join(bad(folder))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# Keys and small files


@pytest.mark.parametrize("content", [b"", b"k", b"\n", bytes(range(128, 192))])
def test_a_key_that_is_damaged_or_guessed_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    """An empty, short or binary secret_key signs nothing: the start and doctor name the file and the remedy."""
    with Instance(tmp_path / "instance") as instance:
        assert len(instance.secret_key) >= 32
    (tmp_path / "instance" / "secret_key").write_bytes(content)
    with Instance(tmp_path / "instance") as instance, pytest.raises(LabelerError, match=r"secret_key .*delete it"):
        create_app(instance)
    assert "secret_key" in " ".join(bad(tmp_path / "instance"))


@pytest.mark.parametrize("name", ["settings.json", "prices.json"])
def test_a_file_of_the_instance_that_breaks_while_serving_is_the_servers_fault(
    client: FlaskClient, instance: Instance, project: int, name: str
) -> None:
    """The page says 500 and names the file, not 400 as if the asker had erred."""
    assert client.get(f"/projects/{project}/runs?task=sentiment").status_code == 200
    (instance.folder / name).write_text("{nope")
    page = client.get("/settings")
    assert page.status_code == 500
    assert name in page.text


# Plugins that somebody else could have written


@pytest.mark.parametrize("open_", ["file", "plugins", "instance"])
def test_a_plugin_that_others_can_write_is_disabled_by_name(tmp_path: Path, open_: str) -> None:
    """Whoever can write the file or a folder on its way could run anything as the server."""
    folder = tmp_path / "instance"
    file = folder / "plugins" / "mine.py"
    file.parent.mkdir(parents=True)
    file.write_text("from labeler import hookimpl\n@hookimpl\ndef register_tasks():\n    return []\n")
    for place in (folder, file.parent, file):
        place.chmod(0o755 if place.is_dir() else 0o644)
    with Instance(folder) as instance:
        assert instance.plugins.disabled == []
    place = {"file": file, "plugins": file.parent, "instance": folder}[open_]
    place.chmod(0o777)
    with Instance(folder) as instance:
        [disabled] = instance.plugins.disabled
    assert disabled.name == "instance/plugins/mine.py"
    assert f"chmod go-w {place}" in disabled.reason
    assert any("mine.py is disabled" in text for text in bad(folder))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives a file away")
def test_a_plugin_of_another_user_is_disabled(tmp_path: Path) -> None:
    """Root in somebody's folder does not run what lies in it."""
    file = tmp_path / "instance" / "plugins" / "theirs.py"
    file.parent.mkdir(parents=True)
    file.write_text("raise SystemExit('it ran')")
    os.chown(file, 12345, 12345)
    with Instance(tmp_path / "instance") as instance:
        assert "belongs to another user" in instance.plugins.disabled[0].reason


# Addresses where clouds give keys away


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest", "http://[fe80::1]/v1", "http://2852039166/v1", "http://0xa9fea9fe/v1",
        "http://[::ffff:169.254.169.254]/v1", "http://100.100.100.200/v1", "http://[fd00:ec2::254]/v1",
    ],
)  # fmt: skip
def test_addresses_of_the_cloud_are_no_model_server(instance: Instance, url: str) -> None:
    """Link-local and metadata addresses are refused however they are written; private ones are meant."""
    with pytest.raises(SettingError, match="no model server"):
        instance.change_settings({"openai_base_url": url})
    for private in ("http://10.0.0.5:8000/v1", "http://192.168.0.9/v1", "http://127.0.0.1:11434/v1"):
        instance.change_settings({"openai_base_url": private})


def test_a_name_is_looked_up_again_when_it_is_asked(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to the cloud's address gets no call, whatever it meant when it was entered."""
    answers = iter(["10.0.0.5", "169.254.169.254"])
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, *more, **named: [(2, 1, 6, "", (next(answers), port or 0))]
    )
    instance.change_settings({"openai_base_url": "http://models.example/v1"})
    found = OpenAIBackend("http://models.example/v1", "sk-key", "m").check()
    assert not found["ok"]
    assert "no model server" in found["message"]


def test_a_key_goes_to_no_other_server(instance: Instance) -> None:
    """A new address asks for its key again; another path of the same server does not."""
    instance.change_settings({"openai_base_url": "http://127.0.0.1:1/v1", "openai_api_key": "sk-one"})
    instance.change_settings({"openai_base_url": "http://127.0.0.1:1/openai/v1"})
    for other in ("http://127.0.0.1:2/v1", "https://127.0.0.1:1/v1", None):
        with pytest.raises(SettingError, match="not its own"):
            instance.change_settings({"openai_base_url": other})
    assert instance.settings["openai_base_url"] == "http://127.0.0.1:1/openai/v1"
    instance.change_settings({"openai_base_url": "http://127.0.0.1:2/v1", "openai_api_key": "sk-two"})
    instance.change_settings({"openai_base_url": None, "openai_api_key": None})
    rows = [row["detail"] for row in instance.store.events.acts(None, 50) if row["kind"].startswith("instance")]
    assert len(rows) == 4 and "sk-" not in " ".join(rows) and "127.0.0.1:2" in rows[1]


PICKY = """
from labeler import BackendFactory, Setting, SettingError, hookimpl

class Picky(BackendFactory):
    name = "picky"

    def check(self, changes):
        if len(changes.get("picky_key", "abc")) < 2:
            raise SettingError("no key is that short")

    def check_change(self, before, after, changes):
        if before.get("picky_server", after["picky_server"]) != after["picky_server"] and "picky_key" not in changes:
            raise SettingError("the key is that of %(server)s", server=before["picky_server"])

    def create(self, settings):
        raise NotImplementedError

@hookimpl
def register_backends():
    return [Picky()]

@hookimpl
def register_settings():
    return [Setting("picky_key", "text", secret=True), Setting("picky_server", "text")]
"""


def test_the_backend_of_a_plugin_refuses_settings_before_they_are_stored(tmp_path: Path) -> None:
    """A plugin with a key of its own can keep it from going to another server, as the backend openai does."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "picky.py").write_text(PICKY)
    with Instance(tmp_path) as instance:
        instance.change_settings({"picky_key": "abc", "picky_server": "one"})
        with pytest.raises(SettingError, match="the key is that of one"):
            instance.change_settings({"picky_server": "two"})
        with pytest.raises(SettingError, match="no key is that short"):
            instance.change_settings({"picky_key": "a"})
        assert (instance.settings["picky_server"], instance.settings["picky_key"]) == ("one", "abc")


# Backends: who may have them made, and how many stay


class Weights(Backend):
    """A stand-in for local weights: it says when it is made, loaded and closed."""

    name, model_id, billed, local = "weights", "m", True, True
    made: list[Weights]

    def __init__(self) -> None:
        self.closed, self.before_loading = 0, lambda: None
        Weights.made.append(self)

    def complete(self, requests: Any) -> Any:
        self.before_loading()
        return iter(())

    def close(self) -> None:
        self.closed += 1


class WeightsFactory(BackendFactory):
    name, shared = "weights", True

    def create(self, settings: Any) -> Any:
        return Weights()


@pytest.fixture
def weights(instance: Instance) -> None:
    Weights.made = []
    instance.plugins.backends["weights"] = WeightsFactory()


def test_a_reviewer_ends_nothing_that_a_run_has_loaded(
    instance: Instance, as_person: Callable[[str], FlaskClient], project: int, weights: None
) -> None:
    """To start is refused before anything is made; to estimate, however often, frees no weights and keeps nothing."""
    instance.change_project(project, {"reviewers_may": ["runs"]})
    found = instance.store.projects.get(project)
    running = instance.backend(found, instance.project_task(found, "sentiment"), "weights", {"model_id": "in use"})
    reviewer = as_person("reviewer")
    path = f"/projects/{project}/runs"
    form = {"csrf_token": token_of(reviewer, path), "task": "sentiment", "backend": "weights"}
    assert reviewer.post(path, data=form | {"action": "start"}).status_code == 403
    assert Weights.made == [running]
    for n in range(20):
        for backend in ("weights", "nearest"):
            given = form | {"action": "estimate", "model_id": f"model {n}", "backend": backend}
            assert reviewer.post(path, data=given).status_code == 200
    assert running.closed == 0  # type: ignore[attr-defined]
    assert len(instance._suggesters._backends) < 10


def test_other_weights_are_freed_when_weights_load_and_not_before(
    instance: Instance, project: int, weights: None
) -> None:
    """To make a backend (a page, an estimate) ends nothing that a run has loaded."""
    found = instance.store.projects.get(project)
    task = instance.project_task(found, "sentiment")
    one, two = (instance.backend(found, task, "weights", {"model_id": name}) for name in ("a", "b"))
    assert one is instance.backend(found, task, "weights", {"model_id": "a"})
    assert (one.closed, two.closed) == (0, 0)  # type: ignore[attr-defined]
    list(two.complete([]))
    assert (one.closed, two.closed) == (1, 0)  # type: ignore[attr-defined]


def test_backends_that_forms_name_do_not_pile_up(instance: Instance, project: int, weights: None) -> None:
    """Those used last are kept; of weights that are forgotten the memory is freed."""
    found = instance.store.projects.get(project)
    task = instance.project_task(found, "sentiment")
    for n in range(40):
        instance.backend(found, task, "weights", {"model_id": f"model {n}"})
    assert len(instance._suggesters._backends) <= 16
    until(lambda: sum(made.closed for made in Weights.made) >= 24)


def test_an_embedding_model_is_named_by_admins_of_the_instance(
    app: Any, store: Store, project: int, people: dict[str, int]
) -> None:
    """The server fetches and loads it: the admin of one project sees what it is, and may not say another."""
    own = accounts.add_reviewer(store, "project admin", None)
    accounts.set_member(store, project, own, "admin", people["admin"])
    for who, status in ((own, 403), (people["admin"], 303)):
        client = app.test_client()
        enter(client, app, who)
        path = f"/projects/{project}/settings"
        form = {"csrf_token": token_of(client, path), "embedding_model": "somebody/pickle"}
        assert ('maxlength="500" placeholder="" spellcheck="false" disabled' in client.get(path).text) is (who == own)
        answer = client.post(path, data=form)
        assert answer.status_code == status
    assert store.projects.get(project)["settings"]["embedding_model"] == "somebody/pickle"


def test_an_embedder_whose_package_is_absent_is_refused(instance: Instance, project: int, monkeypatch: Any) -> None:
    """By the page and the command alike, with the extra that brings it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="sentence-transformers"):
        instance.change_project(project, {"embedder": "sentence-transformers"})
    check_embedder("lexical")
    assert all(extra.missing() == list(extra.packages) for extra in EXTRAS.values())


# Claims and undo


def test_leave_gives_back_nothing_of_another_project(world: World) -> None:
    """A claim is given back where it was taken, even by whoever knows its token."""
    opened = world.queue().next(world.kim, page="page-one")
    assert opened is not None
    elsewhere = world.queue()
    elsewhere.project_id = world.project_id + 1
    elsewhere.leave(world.kim, {opened.record.id: "page-one"})
    assert world.store.work.holder(None, opened.record.id, "sentiment") is not None
    world.queue().leave(world.kim, {opened.record.id: "page-one"})
    assert world.store.work.holder(None, opened.record.id, "sentiment") is None


def test_an_undo_without_a_key_is_refused(as_person: Callable[[str], FlaskClient], project: int) -> None:
    """Sent twice it would take back two decisions; with one key both are one undo."""
    reviewer = as_person("reviewer")
    page = f"/projects/{project}/label/sentiment"
    token = token_of(reviewer, page)

    def post(name: str, **body: Any) -> Any:
        return reviewer.post(f"{page}/api/{name}", json=body, headers={"X-CSRFToken": token})

    for n in range(2):
        opened = post("next", page="page-one").json
        decided = post(
            "decide", record_id=opened["record_id"], action="approve", value="positive", version=opened["version"],
            request_key=f"decision {n}",
        )  # fmt: skip
        assert decided.status_code == 200
    assert post("undo", page="page-one").status_code == 400
    assert [post("undo", page="page-one", request_key="undo one").json["record_id"] for _ in range(2)] == [2, 2]
    assert len(post("undo", page="page-one", request_key="undo one").json["strip"]) == 1


# Roles


def test_members_of_a_role_without_rights_become_reviewers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of before has adjudicators, who could do what reviewers can: that is what they are now."""
    known = migrations.migrations
    monkeypatch.setattr(migrations, "migrations", migrations_before(known, "m013"))
    with Store(tmp_path / "labeler.db") as store:
        project = store.write(lambda tx: store.projects.create(tx, "p", "ko", {}))
        person = store.write(lambda tx: store.people.create(tx, "kim", None, "reviewer"))
        store.write(lambda tx: store.projects.add_member(tx, project, person, "adjudicator"))
    monkeypatch.setattr(migrations, "migrations", known)
    with Store(tmp_path / "labeler.db") as store:
        assert store.projects.member_role(project, person) == "reviewer"


def test_a_project_name_is_one_that_people_can_tell_apart(instance: Instance) -> None:
    """No line breaks or escapes for a terminal, no blank ones, none that looks like one there is."""
    instance.create_project("shop one")
    for name in ("x\x1b[31mred", "a\nb", "\u3164", "  ", "Shop One", "shop  one", "ｓｈｏｐ one", "sh\u043ep one"):
        with pytest.raises(LabelerError):
            instance.create_project(name)
    assert instance.create_project("가게 ❤️ 2")
    with pytest.raises(NotFound):
        instance.store.projects.named("Shop One")


def test_half_of_the_examples_are_of_one_person_where_several_label(tmp_path: Path) -> None:
    """Without a setting nobody fills a prompt alone; where only one labels, they may."""
    world = World(tmp_path, texts=[f"review {n}" for n in range(24)])
    for record_id in world.records[1:16]:
        world.approve(record_id)
    assert len(Similar({}).retrieve(world.index(), world.query(world.records[0]), 8)) == 8
    for record_id in world.records[16:]:
        world.approve(record_id, who=world.people[1])
    hits = Similar({}).retrieve(world.index(), world.query(world.records[0]), 8)
    counts = [sum(hit.entry.reviewer_id == who for hit in hits) for who in world.people[:2]]
    assert counts == [4, 4]
