"""Plugins hear of approvals in the background: in order, once, and again after they failed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labeler import accounts, telling
from labeler.annotation.decisions import Decision
from labeler.instance import Instance
from labeler.sentence import recalled
from labeler.store import NewRecord
from labeler.store import upkeep as waits
from labeler.worker import Worker

LISTENER = """
from labeler import hookimpl

heard, troubles = [], []

@hookimpl
def label_approved(project, task, record, value):
    if troubles:
        raise ValueError(troubles.pop())
    heard.append((project, task, record.key, value))
"""


class Shop:
    """An instance with one project of six records and a plugin that listens; nobody works in the background."""

    def __init__(self, folder: Path, **plugins: str) -> None:
        (folder / "plugins").mkdir()
        for name, source in {"ear": LISTENER, **plugins}.items():
            (folder / "plugins" / f"{name}.py").write_text(source, encoding="utf-8")
        self.instance = Instance(folder)
        self.person = accounts.add_reviewer(self.instance.store, "kim", None)
        self.project = self.instance.create_project("shop", "ko", {"tasks": ["sentiment"]})
        store = self.instance.store
        new = [NewRecord(f"r{n}", f"달고 맛있어요 {n}") for n in range(6)]
        self.records = [
            one.id for one in store.write(lambda tx: store.records.add(tx, self.project, new, ["sentiment"]))
        ]

    @property
    def plugin(self) -> Any:
        return self.instance.plugins.manager.get_plugin("instance/plugins/ear.py")

    @property
    def troubles(self) -> list[tuple[str, str]]:
        return [(row["place"], recalled(row["trouble"])) for row in self.instance.store.upkeep.troubles(self.project)]

    @property
    def heard(self) -> list[str]:
        return [key for _, _, key, _ in self.plugin.heard]

    def decide(self, n: int, value: str | None = "positive") -> None:
        project = self.instance.store.projects.get(self.project)
        decisions = self.instance.decisions(project, self.instance.task_of(project, "sentiment"))
        action = "reject" if value is None else "approve"
        decisions.decide(
            self.person,
            Decision(self.records[n], action, secrets.token_hex(8), 0, value),
        )

    def tell(self) -> bool:
        return telling.tell(self.instance, lambda: False)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    # What failed is tried again at once.
    monkeypatch.setattr(waits, "_FIRST_WAIT", 0.0)
    shop = Shop(tmp_path)
    yield shop
    shop.instance.close()


def test_plugin_hears_every_approval_once_and_in_order(shop: Shop) -> None:
    """It gets project, task, record and value; what was rejected is no approval."""
    for n in (2, 0, 1):
        shop.decide(n)
    shop.decide(3, None)
    assert shop.tell()
    assert not shop.tell()
    assert shop.plugin.heard == [("shop", "sentiment", key, "positive") for key in ("r2", "r0", "r1")]


def test_imported_labels_are_not_told(shop: Shop) -> None:
    """A file of labels is no decision of a person on the page."""
    store = shop.instance.store
    same = {
        "project_id": shop.project, "task": "sentiment", "task_version": "2", "state": "approved", "how": "imported",
    }  # fmt: skip
    store.write(lambda tx: store.annotations.add_many(tx, same, [(shop.records[4], "positive")]))
    shop.tell()
    assert shop.heard == []


def test_what_was_approved_before_the_plugin_came_is_not_told(shop: Shop) -> None:
    """A new plugin begins with what is approved from then on."""
    shop.decide(0)
    Worker(shop.instance)
    shop.decide(1)
    shop.tell()
    assert shop.heard == ["r1"]


def test_plugin_that_fails_hears_it_again_before_what_came_after(shop: Shop) -> None:
    """The order holds: nothing is passed on until the first has been heard."""
    shop.plugin.troubles.append("the server is away")
    for n in range(3):
        shop.decide(n)
    assert not shop.tell()
    assert shop.heard == []
    assert (
        recalled(shop.instance.store.upkeep.troubles(shop.project)[0]["trouble"])
        == "ValueError: the server is away (ear.py, line 9)"
    )
    shop.tell()
    assert shop.heard == ["r0", "r1", "r2"]
    assert shop.troubles == []


def test_what_keeps_failing_is_passed_over_in_the_end(shop: Shop) -> None:
    """After eight tries the next approval has its turn, and the log says which one was not heard."""
    shop.plugin.troubles.extend(["no"] * telling.TRIES)
    shop.decide(0)
    shop.decide(1)
    for _ in range(telling.TRIES):
        assert shop.heard == []
        shop.tell()
    assert shop.heard == ["r1"]


def test_each_plugin_goes_on_where_it_stopped_after_a_restart(shop: Shop) -> None:
    """How far it has heard is stored: neither twice nor left out."""
    shop.decide(0)
    shop.tell()
    shop.decide(1)
    folder = shop.instance.folder
    shop.instance.close()
    shop.instance = Instance(folder)
    Worker(shop.instance)
    shop.tell()
    assert shop.heard == ["r1"]


def test_plugin_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up on after its time, as any other failure."""
    monkeypatch.setattr(telling, "_PATIENCE", 0.1)
    slow = LISTENER.replace("    if troubles", "    import threading; threading.Event().wait(5)\n    if troubles")
    shop = Shop(tmp_path, slow=slow)
    shop.decide(0)
    shop.tell()
    assert shop.heard == ["r0"]
    assert [place for place, _ in shop.troubles] == [":told:instance/plugins/slow.py"]
    shop.instance.close()


def test_worker_tells_while_the_page_answers(shop: Shop) -> None:
    """The thread of the worker tells; a decision itself calls no plugin."""
    shop.decide(0)
    assert shop.heard == []
    Worker(shop.instance).run_until_idle()
    # The worker is new here: it begins behind what was approved.
    assert shop.heard == []
    shop.decide(1)
    Worker(shop.instance).run_until_idle()
    assert shop.heard == ["r1"]


def test_stop_leaves_no_plugin_waiting(shop: Shop) -> None:
    """A worker that stops while it tells gives the place back: the next one goes on at once, where it ended."""
    shop.decide(0)
    shop.decide(1)
    asked = iter([False, True])
    assert telling.tell(shop.instance, lambda: next(asked, True))
    assert shop.heard == ["r0"]
    assert shop.tell()
    assert shop.heard == ["r0", "r1"]
