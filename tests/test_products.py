"""Products: one record for all reviews of a product, made from them, versioned, and never mixed up with reviews."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Points
from searching import search
from test_import import Shop, open_shop

from labeler.accounts import add_reviewer
from labeler.annotation.decisions import Decided, Decision
from labeler.annotation.queue import Opened
from labeler.errors import Conflict, InputError, LabelError, NotFound
from labeler.export import export_task
from labeler.ingest.options import ImportOptions
from labeler.ingest.upkeep import check_products, refresh_groups, repair_products
from labeler.instance import Instance
from labeler.records import Suggestion
from labeler.retrieval.embedding import Embeddings
from labeler.store import NewRecord, Store
from labeler.store.products import LONGEST
from labeler.worker import Worker

TASK = "usage"
LONG = "아주 긴 상품 이름 " * 30


class Market(Shop):
    """A shop whose task ``usage`` labels products, and a reviewer."""

    def __init__(self, folder: Path) -> None:
        shop = open_shop(folder, ["sentiment", TASK])
        super().__init__(shop.instance, shop.folder, shop.project)
        self.kim = add_reviewer(self.store, "kim", None)
        self.label_products()

    @property
    def store(self) -> Store:
        return self.instance.store

    def label_products(self, yes: bool = True) -> None:
        self.instance.change_task(self.id, TASK, {"unit": "group"} if yes else {})

    def reviews(self, *rows: tuple[str, str, str]) -> Any:
        """Import rows of id, product and text."""
        lines = "".join(f'"{id_}","{product}","{text}"\n' for id_, product, text in rows)
        return self.run(f"id,product,text\n{lines}", id="id", group="product", text="text")

    def texts(self) -> dict[str, str]:
        sql = "SELECT grp, text FROM records WHERE kind = 'group' ORDER BY id"
        return {row["grp"]: row["text"] for row in self.store.db.all(sql)}

    def product(self, group: str) -> Any:
        row = self.store.db.one("SELECT * FROM records WHERE kind = 'group' AND grp = ?", (group,))
        assert row is not None, group
        return self.store.records.get(row["id"])

    def queued(self) -> list[str | None]:
        """The products that wait for somebody, in order."""
        ids = self.store.work.front(self.id, TASK, "oldest", 100, only_free=False)
        return [record.group for record in self.store.records.many(ids).values()]

    def open(self, group: str) -> Opened:
        return self.queue().open(self.kim, self.product(group).id)

    def queue(self) -> Any:
        return self.instance.queue(self.project, self.task())

    def task(self) -> Any:
        return self.instance.task_of(self.project, TASK)

    def approve(self, opened: Opened, value: str = "구워서 먹어요", **more: Any) -> Decided:
        key = f"{opened.record.id}-{opened.version}-{len(more)}-approve"
        decision = Decision(opened.record.id, "approve", key, opened.version, value, **more)
        return self.instance.decisions(self.project, self.task()).decide(self.kim, decision)

    def undo(self) -> None:
        self.instance.decisions(self.project, self.task()).undo(self.kim)

    def upkeep(self) -> int:
        """What the background worker does."""
        return refresh_groups(self.store, self.id, self.instance.tasks_of(self.project).values())


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.instance.close()


# The text of a product


def test_review_that_two_products_have_is_in_the_text_of_both(market: Market) -> None:
    """Only copies within one product are left out; what another product has too still belongs to each of them."""
    market.reviews(
        ("1", "A", "맛있어요 정말"), ("2", "A", "배송이 빨라요"),
        ("3", "B", "맛있어요 정말"), ("4", "B", "배송이 빨라요"),
        ("5", "C", "배송이 빨라요"), ("6", "C", "향이 좋아요"), ("7", "C", "향이  좋아요"),
    )  # fmt: skip
    assert market.texts() == {
        "A": "- 맛있어요 정말\n- 배송이 빨라요",
        "B": "- 맛있어요 정말\n- 배송이 빨라요",
        "C": "- 배송이 빨라요\n- 향이 좋아요",
    }
    assert market.queued() == ["A", "B", "C"]
    assert market.product("C").metadata == {"reviews": 2, "shown": 2}


def test_product_without_reviews_of_its_own_words_grows_later(market: Market) -> None:
    """Products of nothing but copies are queued with their text, and take in what comes later."""
    market.reviews(("1", "A", "좋아요"), ("2", "B", "좋아요"), ("3", "C", "좋아요"))
    assert market.texts() == dict.fromkeys("ABC", "- 좋아요")
    market.reviews(("4", "B", "양이 많아요"), ("5", "C", "포장이 좋아요"))
    assert market.texts() == {"A": "- 좋아요", "B": "- 좋아요\n- 양이 많아요", "C": "- 좋아요\n- 포장이 좋아요"}
    assert market.queued() == ["A", "B", "C"]


def test_newest_reviews_that_fit_are_shown_whole(market: Market) -> None:
    """Where all reviews are too long together, the oldest are left out, and the record says how many it shows."""
    market.reviews(*((str(n), "A", f"{n} " + "가" * 30_000) for n in range(4)))
    text = market.texts()["A"]
    assert [line[2] for line in text.split("\n")] == ["1", "2", "3"]
    assert len(text) <= LONGEST
    assert market.product("A").metadata == {"reviews": 4, "shown": 3}
    market.reviews(("9", "A", "새 글"))
    assert market.texts()["A"].endswith("- 새 글")
    assert market.product("A").metadata == {"reviews": 5, "shown": 4}


def test_one_review_of_the_greatest_length_is_a_product(market: Market) -> None:
    """A product is never empty, even if its only review is as long as a text may be."""
    market.reviews(("1", "A", "가" * LONGEST))
    assert market.texts() == {"A": "- " + "가" * LONGEST}


def test_search_finds_the_new_text_only(market: Market) -> None:
    """The search index follows the text."""
    market.reviews(("1", "A", "달아요"))
    market.reviews(("2", "A", "아삭해요"))
    found = {row["id"] for row in search(market.store, market.id, "아삭해요")}
    assert market.product("A").id in found
    assert search(market.store, market.id, "달아요")[0]["grp"] == "A"


# Keys


def test_review_with_the_id_of_a_product_keeps_its_text(market: Market) -> None:
    """A review may be called group:P1; the product then has another key, and nothing ever writes over the review."""
    market.reviews(("group:P1", "P1", "- 맛있어요"))
    for n in range(3):
        market.reviews((str(n), "P1", f"글 {n}"))
        market.instance.change_project(market.id, {"refresh_ahead": n + 1})
    assert market.record("group:P1").text == "- 맛있어요"
    assert market.texts() == {"P1": "- - 맛있어요\n- 글 0\n- 글 1\n- 글 2"}
    assert market.product("P1").key == "group:P1 (2)"


def test_review_that_comes_later_with_the_id_of_a_product_is_refused(market: Market) -> None:
    """The product has the key already: the row is refused with one sentence, by a strict import too."""
    market.reviews(("1", "P1", "맛있어요"))
    report = market.reviews(("group:P1", "P1", "- 다른 글"), ("2", "P1", "달아요"))
    assert (report.added, report.refused) == (1, 1)
    assert report.lines[0][2] == (
        "the id 'group:P1' is that of a product, whose text is made from its reviews; import those instead"
    )
    with pytest.raises(InputError, match="is that of a product"):
        market.run("id,product,text\ngroup:P1,P1,- 다른 글\n", strict=True)
    assert market.texts() == {"P1": "- 맛있어요\n- 달아요"}


def test_long_names_that_begin_alike_are_two_products(market: Market) -> None:
    """A name too long for a key is told by a digest."""
    market.reviews(("1", LONG + "빨강", "달아요"), ("2", LONG + "파랑", "셔요"))
    assert market.texts() == {LONG + "빨강": "- 달아요", LONG + "파랑": "- 셔요"}
    keys = {market.product(LONG + color).key for color in ("빨강", "파랑")}
    assert len(keys) == 2
    assert max(map(len, keys)) <= 200


def test_export_of_products_comes_in_again(market: Market) -> None:
    """The product is known and takes its label; no review is made of it, and nothing changes."""
    market.reviews(("1", "P1", "맛있어요"), ("2", "P2", "달아요"))
    for group in ("P1", "P2"):
        market.approve(market.open(group))
    export_task(
        market.store, market.project, market.task(), "openai", market.folder / "out",
        formats=market.instance.plugins.exporters,
    )  # fmt: skip
    market.undo()
    records = market.folder / "out" / "records.jsonl"
    report = market.run(records, labels={TASK: "label"})
    assert (report.added, report.known, report.labels, report.refused) == (0, 2, 1, 0)
    assert market.texts() == {"P1": "- 맛있어요", "P2": "- 달아요"}
    assert set(market.approved(TASK)) == {"group:P1", "group:P2"}


def test_label_for_products_beside_a_review_is_named(market: Market) -> None:
    """A review cannot take the label of a task on products: the row goes in, and the report says why without it."""
    report = market.run("id,product,text,use\n1,A,달아요,구워요\n", labels={TASK: "use"})
    assert (report.added, report.labels) == (1, 0)
    assert report.lines == [
        (2, "use", "the label was left out: the task usage labels products, and this row is a review")
    ]


# While somebody reads


def test_text_that_changes_under_a_reviewer_is_never_approved(market: Market) -> None:
    """Whoever had the product open is told that its text has changed, and cannot force it; opened again, it goes."""
    market.reviews(("1", "A", "맛있어요"))
    opened = market.open("A")
    market.reviews(("2", "A", "상해서 왔어요. 환불해 주세요"))
    for more in ({}, {"force": True}):
        with pytest.raises(Conflict, match="The text of this record has changed since you opened it") as caught:
            market.approve(opened, **more)
    assert caught.value.current == {"state": "pending", "text_changed": True}
    again = market.open("A")
    assert again.record.text == "- 맛있어요\n- 상해서 왔어요. 환불해 주세요"
    assert market.approve(again).state == "approved"


def test_keywords_of_a_text_that_is_gone_are_told_that_the_text_changed(market: Market) -> None:
    """A phrase that stood in the text a person read is no mistake of theirs: they are told to read again."""
    market.instance.change_project(market.id, {"tasks": ["keywords"]})
    market.instance.change_task(market.id, "keywords", {"unit": "group"})
    market.reviews(("1", "A", "향이 좋아요 " + "가" * 60_000))
    Worker(market.instance).run_until_idle()
    task = market.instance.task_of(market.project, "keywords")
    opened = market.instance.queue(market.project, task).open(market.kim, market.product("A").id)
    market.reviews(("2", "A", "나" * 60_000))
    decisions = market.instance.decisions(market.project, task)
    for key, version, wrong in (("key-before", 0, Conflict), ("key-after-it", 1, LabelError)):
        decision = Decision(opened.record.id, "approve", key, opened.version + version, ["향이 좋아요"])
        with pytest.raises(wrong):
            decisions.decide(market.kim, decision)


def test_changed_text_drops_the_suggestion_of_the_old_one(market: Market) -> None:
    """Suggestion, score and disagreement go with the text they were made for."""
    market.reviews(("1", "A", "맛있어요"))
    id_ = market.product("A").id
    made = Suggestion(id_, TASK, "1", "nearest", None, "구워요", None, score=0.5)

    def suggest(tx: Any) -> None:
        market.store.work.suggested(tx, id_, TASK, market.store.suggestions.add(tx, market.id, made), 0.5, 0.1)

    market.store.write(suggest)
    market.reviews(("2", "A", "달아요"))
    row = market.store.work.get(id_, TASK)
    assert (row["suggestion_id"], row["score"], row["disagreement"], row["version"]) == (None, None, None, 1)


def test_labelled_product_keeps_its_text_until_the_label_is_taken_back(market: Market) -> None:
    """What was labelled stays what was labelled; after an undo the reviews that came meanwhile are taken in."""
    market.reviews(("1", "A", "맛있어요"))
    market.approve(market.open("A"))
    market.reviews(("2", "A", "달아요"))
    assert market.texts() == {"A": "- 맛있어요"}
    market.undo()
    market.upkeep()
    assert market.texts() == {"A": "- 맛있어요\n- 달아요"}
    assert market.queued() == ["A"]


def test_product_labelled_for_one_task_keeps_its_text_for_all(market: Market) -> None:
    """A decision of any task holds the text, rejected ones too; a task switched to products later gets it as it is."""
    market.reviews(("1", "A", "맛있어요"))
    opened = market.open("A")
    decision = Decision(opened.record.id, "reject", "reject-this-one", opened.version)
    market.instance.decisions(market.project, market.task()).decide(market.kim, decision)
    market.instance.change_task(market.id, "sentiment", {"unit": "group"})
    market.reviews(("2", "A", "달아요"))
    assert market.texts() == {"A": "- 맛있어요"}
    assert market.store.work.get(opened.record.id, "sentiment")["state"] == "pending"


def test_product_that_left_the_queue_comes_back_as_one_that_nobody_has_seen(market: Market) -> None:
    """Switched off and on, a task on products accepts nothing that was read before the text changed."""
    market.reviews(("1", "A", "맛있어요"))
    market.approve(market.open("A"))
    market.undo()
    opened = market.open("A")
    market.label_products(False)
    market.reviews(("2", "A", "달아요"))
    market.label_products()
    with pytest.raises(Conflict, match="The text of this record has changed"):
        market.approve(opened)
    assert market.open("A").record.text == "- 맛있어요\n- 달아요"


# What is renewed, and when


def test_kill_between_import_and_renewal_forgets_nothing(market: Market) -> None:
    """Reviews mark their product in their own transaction: whoever comes next makes the text."""
    row = NewRecord("1", "맛있어요", "A")
    market.store.write(lambda tx: market.store.records.add(tx, market.id, [row], []))
    assert market.texts() == {}
    with Instance(market.instance.folder) as other:
        tasks = other.tasks_of(market.project).values()
        assert refresh_groups(other.store, market.id, tasks) == 1
        assert refresh_groups(other.store, market.id, tasks) == 0
    assert market.texts() == {"A": "- 맛있어요"}
    assert market.queued() == ["A"]


def test_products_wait_for_a_task_that_labels_them(market: Market) -> None:
    """Without such a task nothing is made; once it is there every product is."""
    market.label_products(False)
    market.reviews(("1", "A", "맛있어요"), ("2", "B", "달아요"))
    assert market.texts() == {}
    market.label_products()
    assert market.queued() == ["A", "B"]


def test_settings_renew_no_product_without_a_new_review(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of settings looks at the marks only, however many products there are."""
    market.reviews(*((str(n), f"P{n}", f"글 {n}") for n in range(30)))
    renewed: list[str] = []
    derived = market.store.products.derived
    monkeypatch.setattr(
        market.store.products, "derived", lambda p, group, tx: renewed.append(group) or derived(p, group, tx)
    )
    market.instance.change_project(market.id, {"refresh_ahead": 3})
    market.label_products()
    assert renewed == []
    market.reviews(("x", "P7", "새 글"))
    assert renewed == ["P7"]


# Units


def test_units_never_mix(market: Market) -> None:
    """Reviews are no examples for products, nor the other way round, in index and export, however often it changes."""
    market.label_products(False)
    market.reviews(("a0", "A", "구워 먹어요"), ("b0", "B", "생으로 먹어요"))
    reviews = {market.record(key).id for key in ("a0", "b0")}
    for id_ in reviews:
        market.approve(market.queue().open(market.kim, id_))

    def examples() -> set[int]:
        return {entry.record_id for _, entry in market.instance.index(market.project, market.task()).entries()}

    def exported() -> set[str]:
        pages = market.store.annotations.approved_pages(market.id, TASK, unit=market.task().unit)
        return {row["key"] for page in pages for row in page}

    assert (examples(), exported()) == (reviews, {"a0", "b0"})
    market.label_products()
    assert (examples(), exported()) == (set(), set())
    with pytest.raises(InputError, match="Nothing to export"):
        export_task(
            market.store, market.project, market.task(), "openai", market.folder / "out",
            formats=market.instance.plugins.exporters,
        )  # fmt: skip
    market.approve(market.open("A"))
    assert (examples(), exported()) == ({market.product("A").id}, {"group:A"})
    market.label_products(False)
    assert (examples(), exported()) == (reviews, {"a0", "b0"})


def test_index_has_the_vector_of_the_text_that_was_approved(market: Market) -> None:
    """A product that was approved, taken back, renewed and approved again stands at the place of its new text."""
    embeddings = Embeddings(market.store, Points())
    market.instance.chosen_embeddings = lambda project: embeddings  # type: ignore[method-assign]
    market.reviews(("1", "A", "글"))
    index = market.instance.index(market.project, market.task())
    market.approve(market.open("A"))
    index.refresh()
    market.undo()
    index.refresh()
    market.reviews(("2", "A", "(0 1)"))
    market.approve(market.open("A"), "삶아요")
    ((position, entry),) = index.entries()
    assert index.vectors([position]).tolist() == [[0.0, 1.0]]
    assert entry.record_id == market.product("A").id


# Vectors


class Waiting(Points):
    """An embedder that waits until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = threading.Event(), threading.Event()

    def embed(self, texts: Any) -> np.ndarray:
        self.asked.set()
        assert self.go.wait(20)
        return super().embed(texts)


def vector(market: Market, group: str) -> list[float] | None:
    id_ = market.product(group).id
    found = market.store.vectors.get("points", [id_]).get(id_)
    return None if found is None else np.frombuffer(found, dtype="<f4").tolist()


def test_vector_of_a_text_that_changed_meanwhile_is_not_stored(market: Market) -> None:
    """What an embedder brings for an old text is dropped, and the next filling makes the vector of the new one."""
    market.reviews(("1", "A", "글"))
    embedder = Waiting()
    embeddings = Embeddings(market.store, embedder)
    filling = threading.Thread(target=lambda: list(embeddings.fill(market.id)))
    filling.start()
    assert embedder.asked.wait(20)
    market.reviews(("2", "A", "(0 1)"))
    embedder.go.set()
    filling.join()
    assert vector(market, "A") is None
    list(embeddings.fill(market.id))
    assert vector(market, "A") == [0.0, 1.0]


def test_filling_notices_a_vector_that_another_process_dropped(market: Market) -> None:
    """Where everything was there, a changed product is made again, and nothing else is read."""
    market.reviews(*((str(n), f"P{n % 5}", f"({n} 1)") for n in range(30)))
    embedder = Points()
    embeddings = Embeddings(market.store, embedder)
    list(embeddings.fill(market.id))
    list(embeddings.fill(market.id))
    made = embedder.made
    with Instance(market.instance.folder) as other:
        news = NewRecord("new", "(0 7)", "P3")
        other.store.write(lambda tx: other.store.records.add(tx, market.id, [news], []))
        refresh_groups(other.store, market.id, other.tasks_of(market.project).values())
    assert embeddings.missing(market.id, 10) == 2
    assert list(embeddings.fill(market.id)) == [1, 2]
    assert embedder.made == made + 2
    assert market.store.vectors.progress("points", market.id) == (36, 36)
    assert list(embeddings.fill(market.id)) == []


def test_filling_reads_no_record_again_where_nothing_is_missing(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle round begins behind the newest record of the instance, whichever project it is of."""
    market.reviews(("1", "A", "(1 0)"))
    other = market.instance.create_project("other", "ko", {"tasks": ["sentiment"]})
    news = [NewRecord(str(n), f"({n} 1)") for n in range(9)]
    market.store.write(lambda tx: market.store.records.add(tx, other, news, []))
    embeddings = Embeddings(market.store, Points())
    list(embeddings.fill(market.id))
    begun: list[int] = []
    missing = market.store.vectors.missing
    monkeypatch.setattr(
        market.store.vectors, "missing", lambda e, p, after, n: begun.append(after) or missing(e, p, after, n)
    )
    assert list(embeddings.fill(market.id)) == []
    assert begun == [market.store.vectors.newest_record()]


# What the doctor asks


def test_wrong_products_are_found_and_made_again(market: Market) -> None:
    """A product without a record, one with a wrong text, and a mark without reviews are named and mended."""
    market.reviews(("1", "A", "맛있어요"), ("2", "B", "달아요"), ("3", "C", "셔요"))
    assert check_products(market.store, market.id) == []

    def damage(tx: Any) -> None:
        tx.run("UPDATE records SET text = 'x' WHERE kind = 'group' AND grp = 'A'")
        tx.run("DELETE FROM work WHERE record_id = ?", (market.product("B").id,))
        tx.run("DELETE FROM records WHERE kind = 'group' AND grp = 'B'")
        market.store.products.mark(tx, market.id, ["nothing"])

    market.store.write(damage)
    assert check_products(market.store, market.id) == [
        "The product 'A': its text is not that of its reviews",
        "The product 'B': it has reviews and no record",
        "The product 'nothing' is to be renewed and has no reviews",
    ]
    assert repair_products(market.store, market.id, market.instance.tasks_of(market.project).values()) == 3
    assert check_products(market.store, market.id) == []
    assert market.texts() == {"A": "- 맛있어요", "C": "- 셔요", "B": "- 달아요"}


def test_an_import_that_began_before_its_task_labelled_products_queues_no_review(
    market: Market, tmp_path: Path
) -> None:
    """A long import knows the settings of its start: what it brings goes by those of now."""
    market.label_products(False)
    importer = market.instance.importer(market.store.projects.get(market.id))
    market.label_products()
    path = tmp_path / "late.csv"
    path.write_text('id,product,text\na,P,"맛있어요"\n', encoding="utf-8")
    importer.run(path, ImportOptions(id="id", group="product", text="text"))
    Worker(market.instance).run_until_idle()
    sql = "SELECT r.kind FROM work w JOIN records r ON r.id = w.record_id WHERE w.task = :t"
    assert [row["kind"] for row in market.store.db.all(sql, {"t": TASK})] == ["group"]


def test_undo_leaves_decisions_of_the_other_unit_alone(market: Market) -> None:
    """A task that labels products now gets no review back into its queue."""
    market.label_products(False)
    market.reviews(("a", "P", "맛있어요"))
    project = market.store.projects.get(market.id)
    decisions = market.instance.decisions(project, market.instance.project_task(project, TASK))
    record = market.store.records.by_key(market.id, "a")
    assert record is not None
    version = market.store.work.get(record.id, TASK)["version"]  # type: ignore[index]
    decisions.decide(market.kim, Decision(record.id, "reject", "request-of-a", version))
    market.label_products()
    with pytest.raises(NotFound):
        decisions.undo(market.kim)
    market.label_products(False)
    assert decisions.undo(market.kim).record_id == record.id
