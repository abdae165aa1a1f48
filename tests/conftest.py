"""Fixtures of all tests: an instance in a temporary folder, an app on it, and people who sign in."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

# Two test processes whose torch and BLAS each take all cores wait for each other: four times as long. It must be set
# before any of them is loaded; processes that tests start have it too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import quick
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import settings

from labeler import accounts
from labeler.app import create_app
from labeler.instance import Instance
from labeler.store import NewRecord, Store

PASSWORD = "a few plain words"
# A property is tried for each kind of label, with so many values of each; how long one takes tells of the machine.
settings.register_profile("labeler", settings.default, max_examples=40, deadline=None)
settings.load_profile("labeler")


@pytest.fixture(autouse=True)
def no_key_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the server of whoever runs the tests."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LABELER_OIDC_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def vectors_at_once() -> Iterator[None]:
    """A project that names no embedder compares letters: e5, its default, takes tens of milliseconds a text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("labeler.extras.best_embedder", lambda: "lexical")
        yield


@pytest.fixture(autouse=True, scope="session")
def quick_steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quick.make_quick(patch, tmp_path_factory.mktemp("quick"))
        yield


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    """An open instance in a folder of its own, without any account."""
    with Instance(tmp_path / "instance") as opened:
        yield opened


@pytest.fixture
def store(instance: Instance) -> Store:
    return instance.store


@pytest.fixture
def app(instance: Instance) -> Flask:
    return create_app(instance, {"TESTING": True})


@pytest.fixture
def people(store: Store) -> dict[str, int]:
    """The numbers of three accounts: an admin, a reviewer, and one who is no member of anything."""
    return {
        "admin": accounts.add_reviewer(store, "admin", PASSWORD, accounts.ADMIN),
        "reviewer": accounts.add_reviewer(store, "reviewer", PASSWORD),
        "stranger": accounts.add_reviewer(store, "stranger", PASSWORD),
    }


@pytest.fixture
def project(instance: Instance, people: dict[str, int]) -> int:
    """A project of all tasks with five records, where the reviewer is a member."""
    project_id = instance.create_project("과일 리뷰", "ko", None, people["admin"])
    accounts.set_member(instance.store, project_id, people["reviewer"], "reviewer", people["admin"])
    reviews = ("사과가 아주 달고 맛있어요", "배송이 너무 늦었어요", "그저 그래요", "포장이 꼼꼼해요", "다시는 안 사요")
    rows = [NewRecord(f"r{n}", review, group=f"g{n % 2}") for n, review in enumerate(reviews)]
    instance.store.write(lambda tx: instance.store.records.add(tx, project_id, rows, []))
    instance.fill_queues(project_id)
    return project_id


@pytest.fixture
def as_person(app: Flask, people: dict[str, int]) -> Callable[[str], FlaskClient]:
    """Return a signed-in client for "admin", "reviewer" or "stranger"; for "anonymous" one that is not."""

    def sign_in(name: str) -> FlaskClient:
        client = app.test_client()
        if name != "anonymous":
            enter(client, app, people[name])
        return client

    return sign_in


@pytest.fixture
def client(as_person: Callable[[str], FlaskClient]) -> FlaskClient:
    """A client who is signed in as the admin."""
    return as_person("admin")


def enter(client: FlaskClient, app: Flask, reviewer_id: int) -> None:
    """Give the client the session that a sign-in would give it; other tests sign in for real."""
    person = app.extensions["labeler"].store.people.get(reviewer_id)
    with client.session_transaction() as session:
        session["reviewer"], session["epoch"] = person["id"], person["epoch"]
        session["secret"] = secrets.token_hex(8)


# Files whose tests take minutes together: begun last, one of them would keep one process busy while the other is done.
LONG = (
    "test_screens", "test_desk_browser", "test_backend_local", "test_local_scoring", "test_cli", "test_faults_models",
    "test_labels", "test_local_rows", "test_desk", "test_real_server", "test_browser_demo", "test_runs",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the long files first."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
