"""Products under imports, settings, decisions and kills, in any order: whatever happens, the invariants hold.

Two stores stand on one file, as two processes have it, and whatever is done is done by one of them. A kill between two
steps is a step that is not done: an import whose products were not renewed, a setting whose queues were not filled.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import replace
from itertools import combinations, count
from pathlib import Path
from typing import Any

import numpy as np
from helpers import SENTIMENT, Points
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from labeler.annotation.decisions import Decision, Decisions
from labeler.errors import Conflict, NotFound
from labeler.ingest.clusters import check_clusters, sign_reviews
from labeler.ingest.duplicates import near_duplicate
from labeler.ingest.upkeep import check_products, refresh_groups
from labeler.retrieval.embedding import Embeddings
from labeler.store import NewRecord, Store, Stored

REVIEWS = replace(SENTIMENT, name="sentiment")
PRODUCTS = replace(SENTIMENT, name="usage", unit="group")
BASE = "배송이 정말 빠르고 포장도 꼼꼼해서 좋았어요 맛도 기대보다 훨씬 담백하고 아이들이 잘 먹네요"
TEXTS = [
    "좋아요", "좋아요 ", "(1 0) 달아요", "(0 1) 셔요", "- 좋아요", BASE, BASE + "!!", BASE.replace("배송이 정말 ", ""),
    BASE.replace("배송이 정말 ", "").replace("네요", "어요"), BASE.replace("배송이 정말 ", "").replace("네요", "어"),
    BASE + " 다음에 또", "전혀 다른 이야기를 하는 글입니다",
]  # fmt: skip
GROUPS = ["A", "A", "B", "긴 이름 " * 60]
KEYS = [f"r{n}" for n in range(30)] + ["group:A", "group:B", "group:A (2)"]
ROW = st.tuples(st.sampled_from(KEYS), st.sampled_from(GROUPS), st.sampled_from(TEXTS))
ROWS = st.lists(ROW, min_size=1, max_size=5)
STORE = st.integers(0, 1)
ACTIONS = [
    "import", "import", "import", "import, killed", "import, failed", "open", "open", "open", "approve", "force",
    "force", "reject", "undo", "undo", "unit", "unit, killed", "restart", "vectors", "vectors", "upkeep", "upkeep",
]  # fmt: skip


class Products(RuleBasedStateMachine):
    """``kept`` holds the texts that labels were given to, ``opened`` what people have on their desks."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="labeler-products-"))
        self.stores = [self._store(), self._store()]
        self.project = self.store(0).write(lambda tx: self.store(0).projects.create(tx, "shop", "ko", {}))
        self.kim = self.store(0).write(lambda tx: self.store(0).people.create(tx, "kim", None, "reviewer"))
        self.fillers = [Embeddings(store, Points()) for store in self.stores]
        self.products = True
        self.reviews: dict[int, str] = {}
        self.opened: list[tuple[int, int, str]] = []
        self.kept: dict[int, str] = {}
        self.keys = (f"request-{n:08d}" for n in count())

    def teardown(self) -> None:
        for store in getattr(self, "stores", []):
            store.close()
        shutil.rmtree(getattr(self, "folder", "nothing"), ignore_errors=True)

    def _store(self) -> Store:
        return Store(self.folder / "labeler.db", synchronous="OFF")

    def store(self, which: int) -> Store:
        return self.stores[which]

    @property
    def tasks(self) -> list[Any]:
        return [REVIEWS, PRODUCTS if self.products else replace(PRODUCTS, unit="record")]

    @rule(which=STORE, action=st.sampled_from(ACTIONS), rows=ROWS, n=st.integers(0, 3))
    def step(self, which: int, action: str, rows: list[tuple[str, str, str]], n: int) -> None:
        """One process does one thing. A single rule: Hypothesis switches rules off, and each of these is needed."""
        store = self.store(which)
        if action.startswith("import"):
            self._import(store, rows, action)
        elif action == "open":
            self._open(store, n)
        elif action in ("approve", "force", "reject") and self.opened:
            self._decide(store, *self.opened.pop(n % len(self.opened)), action)
        elif action == "undo":
            self._undo(store)
        elif action.startswith("unit"):
            # The process may be killed between the change and the queues.
            self.products = not self.products
            if action == "unit":
                self._fill_queues(store)
        elif action == "restart":
            store.close()
            self.stores[which] = self._store()
            self.fillers[which] = Embeddings(self.stores[which], Points())
        elif action == "vectors":
            list(self.fillers[which].fill(self.project))
            done, all_ = store.vectors.progress("points", self.project)
            assert done == all_
        elif action == "upkeep":
            self._upkeep(store)

    def _import(self, store: Store, rows: list[tuple[str, str, str]], action: str) -> None:
        """A slice comes in and products are renewed; or the process is killed in between, or the slice fails."""
        news = [NewRecord(key, text, group) for key, group, text in rows]
        names = [task.name for task in self.tasks if task.unit == "record"]

        def work(tx: Any) -> list[Stored]:
            stored = store.records.add(tx, self.project, news, names)
            if action == "import, failed":
                raise InterruptedError
            return stored

        with contextlib.suppress(InterruptedError):
            stored = store.write(work)
            self.reviews |= {one.id: new.text for one, new in zip(stored, news, strict=True) if one.outcome == "added"}
        if action == "import":
            sign_reviews(store, self.project)
            refresh_groups(store, self.project, self.tasks)

    def _open(self, store: Store, n: int) -> None:
        rows = store.db.all(
            """SELECT w.record_id, w.version, r.text FROM work w JOIN records r ON r.id = w.record_id
               WHERE w.task = 'usage' ORDER BY r.kind, r.id"""
        )
        if rows:
            self.opened.append(tuple(rows[n % len(rows)]))

    def _decide(self, store: Store, record: int, version: int, text: str, action: str) -> None:
        """What was opened is decided, or refused since it changed; in no case is another text decided on."""
        name, value = ("reject", None) if action == "reject" else ("approve", "positive")
        decision = Decision(record, name, next(self.keys), version, value, force=action == "force")
        try:
            Decisions(store, self.project, PRODUCTS).decide(self.kim, decision)
        except (Conflict, NotFound):
            return
        assert store.records.get(record).text == text
        self.kept[record] = text

    def _undo(self, store: Store) -> None:
        with contextlib.suppress(NotFound):
            back = Decisions(store, self.project, PRODUCTS).undo(self.kim)
            if back.state == "pending":
                del self.kept[back.record_id]

    def _fill_queues(self, store: Store) -> None:
        for task in self.tasks:
            place = (self.project, task.name, task.unit)
            unit, through = store.work.queued_through(*place[:2]) or ("", 0)
            if unit != task.unit:
                store.write(lambda tx, place=place: store.work.requeue(tx, *place))
                through = 0
            slice_ = store.work.queue_slice(*place, through, store.work.newest_record())
            store.write(lambda tx, place=place, slice_=slice_: store.work.queue_through(tx, *place, *slice_))
        refresh_groups(store, self.project, self.tasks)

    # What holds at any time

    def records(self, kind: str) -> dict[int, Any]:
        return {row["id"]: row for row in self.store(0).db.all("SELECT * FROM records WHERE kind = ?", (kind,))}

    @invariant()
    def no_text_of_a_review_or_a_label_changes(self) -> None:
        if hasattr(self, "reviews"):
            assert {id_: row["text"] for id_, row in self.records("review").items()} == self.reviews
            texts = {id_: row["text"] for id_, row in self.records("group").items()} | self.reviews
            assert {id_: texts[id_] for id_ in self.kept} == self.kept

    @invariant()
    def what_is_counted_is_there(self) -> None:
        if hasattr(self, "project"):
            assert self.store(0).counts.faults() == []

    @invariant()
    def no_product_is_empty_or_stands_twice(self) -> None:
        if hasattr(self, "project"):
            rows = self.records("group").values()
            assert all(row["text"] and row["duplicate_of"] is None and row["cluster"] == row["id"] for row in rows)
            assert len({row["grp"] for row in rows}) == len(rows)

    @invariant()
    def vectors_are_those_of_the_texts(self) -> None:
        if hasattr(self, "project"):
            sql = "SELECT r.text, e.vector FROM embeddings e JOIN records r ON r.id = e.record_id"
            rows = self.store(0).db.all(sql)
            if rows:
                found = np.frombuffer(b"".join(row["vector"] for row in rows), dtype="<f4").reshape(-1, 2)
                np.testing.assert_allclose(found, Points().embed([row["text"] for row in rows]))

    @invariant()
    def clusters_are_the_components_of_all_similar_pairs(self) -> None:
        if hasattr(self, "reviews"):
            names = {id_: id_ for id_ in self.reviews}
            hashes = {id_: row["content_hash"] for id_, row in self.records("review").items()}
            # Of those that nobody has looked at yet nothing is known.
            unseen = {hashes[row["id"]] for row in self.store(0).clusters.unsigned(self.project, 1000)}
            for a, b in combinations(names, 2):
                seen = not {hashes[a], hashes[b]} & unseen
                alike = hashes[a] == hashes[b] or (seen and near_duplicate(self.reviews[a], self.reviews[b]))
                if alike and names[a] != names[b]:
                    old, new = sorted((names[a], names[b]))[::-1]
                    names = {id_: new if name == old else name for id_, name in names.items()}
            assert {id_: row["cluster"] for id_, row in self.records("review").items()} == names

    # What holds once the background worker has had its turn

    def _upkeep(self, store: Store) -> None:
        sign_reviews(store, self.project)
        """Nothing is forgotten: every product has a record whose text is that of its reviews, and waits for a label."""
        self._fill_queues(store)
        assert check_products(store, self.project) == []
        assert check_clusters(store, self.project) == []
        if not self.products:
            return
        products = self.records("group")
        assert {row["grp"] for row in products.values()} == {row["grp"] for row in self.records("review").values()}
        for id_, row in products.items():
            if id_ not in self.kept:
                derived = store.products.derived(self.project, row["grp"])
                assert derived is not None
                assert row["text"] == derived.text == self._derived(row["grp"])
        queued = {row["record_id"]: row["state"] for row in store.db.all("SELECT * FROM work WHERE task = 'usage'")}
        assert set(products) <= set(queued)
        assert {id_ for id_ in products if queued[id_] != "pending"} == set(self.kept) & set(products)
        assert all(state != "pending" for id_, state in queued.items() if id_ not in products)

    def _derived(self, group: str) -> str:
        lines: dict[str, str] = {}
        for row in self.records("review").values():
            if row["grp"] == group:
                lines.setdefault(row["content_hash"], f"- {row['text']}")
        return "\n".join(lines.values())


TestProducts = Products.TestCase
TestProducts.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
