"""Clusters of near-duplicates: the connected components of all similar pairs, in any order, in every process."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import World

from labeler.ingest import clusters as clusters_of_ingest
from labeler.ingest.clusters import candidates, check_clusters, repair_clusters, sign_reviews
from labeler.ingest.duplicates import Signatures, near_duplicate, signatures, similarity
from labeler.retrieval.retrievers import BUILT_IN
from labeler.store import NewRecord, Store

# Neither end is near the other; the middle is near both.
ONE = "배송이 정말 빠르고 포장도 꼼꼼해서 좋았어요 맛도 기대보다 훨씬 담백하고 아이들이 잘 먹네요"
MIDDLE = ONE.replace("배송이 정말 ", "")
OTHER = MIDDLE.replace("잘 먹네요", "잘 먹어요")


@pytest.fixture
def world(tmp_path: Path) -> Any:
    made = World(tmp_path, [])
    yield made
    made.store.close()


def add(world: World, texts: Sequence[str], store: Store | None = None) -> list[int]:
    """Import texts as an import does, and look for their near-duplicates."""
    room = store or world.store
    size = room.db.value("SELECT COALESCE(MAX(id), 0) FROM records")
    news = [NewRecord(f"r{size + n}", text) for n, text in enumerate(texts)]
    stored = room.write(lambda tx: room.records.add(tx, world.project_id, news, [world.task.name]))
    sign_reviews(room, world.project_id)
    return [one.id for one in stored]


def clusters(world: World) -> dict[int, int]:
    return {row["id"]: row["cluster"] for page in world.store.clusters.all(world.project_id) for row in page}


def components(texts: dict[int, str]) -> dict[int, int]:
    """All pairs compared: what the clusters should be."""
    names = {id_: id_ for id_ in texts}
    for a, b in combinations(texts, 2):
        if names[a] != names[b] and (near_duplicate(texts[a], texts[b]) or texts[a] == texts[b]):
            old, new = max(names[a], names[b]), min(names[a], names[b])
            names = {id_: new if name == old else name for id_, name in names.items()}
    return names


def stored_texts(world: World) -> dict[int, str]:
    return {row["id"]: row["text"] for page in world.store.clusters.all(world.project_id) for row in page}


def templated(count: int, seed: int) -> list[str]:
    """Reviews of few templates with some words changed, as shops send them: many pairs close to the threshold."""
    chance = random.Random(seed)
    words = [
        "사과",
        "배",
        "포도",
        "귤",
        "감자",
        "고구마",
        "당근",
        "양파",
        "마늘",
        "우유",
        "치즈",
        "김치",
        "두부",
        "라면",
        "만두",
        "식빵",
    ]
    templates = [[chance.choice(words) for _ in range(12)] for _ in range(4)]
    made = []
    for _ in range(count):
        text = list(chance.choice(templates))
        for _ in range(chance.randint(0, 2)):
            text[chance.randrange(12)] = chance.choice(words)
        made.append(" ".join(text))
    return made


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the list of all pairs that are compared from now on."""
    compared: list[tuple[str, str]] = []

    def similar(a: str, b: str) -> bool:
        compared.append((a, b))
        return near_duplicate(a, b)

    monkeypatch.setattr(clusters_of_ingest, "near_duplicate", similar)
    return compared


def test_texts_of_the_bridge_are_what_they_should_be() -> None:
    """The ends are near the middle only."""
    assert similarity(ONE, MIDDLE) >= 0.8 <= similarity(MIDDLE, OTHER)
    assert similarity(ONE, OTHER) < 0.8


@pytest.mark.parametrize("order", list(permutations((ONE, OTHER, MIDDLE))))
def test_text_near_two_clusters_unites_them(world: World, order: Sequence[str]) -> None:
    """In whatever order three linked texts come, they end up in one cluster that is named by the first."""
    ids = [add(world, [text])[0] for text in order]
    assert clusters(world) == dict.fromkeys(ids, ids[0])


def test_union_moves_all_members_and_their_copies(world: World) -> None:
    """Near and exact copies on either side go along, and so do those that come later."""
    ids = add(world, [ONE, OTHER, OTHER, OTHER + "!!", ONE + " ^^"])
    assert len(set(clusters(world).values())) == 2
    ids += add(world, [MIDDLE, OTHER, ONE + "ㅋㅋ"])
    assert clusters(world) == dict.fromkeys(ids, ids[0])


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_the_components_of_all_similar_pairs(world: World, seed: int) -> None:
    """Templated texts in random order and slices: no similar pair stands apart, and nothing else is joined."""
    chance = random.Random(seed)
    texts = templated(150, seed)
    while texts:
        size = chance.randint(1, 40)
        add(world, texts[:size])
        texts = texts[size:]
    assert clusters(world) == components(stored_texts(world))
    assert check_clusters(world.store, world.project_id) == []


def test_a_full_band_hides_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many other texts share a band, the one that is similar is found: beside it, and signed before it."""

    def all_in_one_band(texts: Sequence[str]) -> Signatures:
        signed = signatures(texts)
        signed.bands[:, 0] = 0
        return signed

    compared = counted(monkeypatch)
    monkeypatch.setattr(clusters_of_ingest, "signatures", all_in_one_band)
    near = "이것은 어디에나 있는 인사말입니다 안녕하세요"
    others = [f"{n * 7919} 다른 글 {n}" for n in range(60)]
    add(world, [near, *others, near + " 요"])
    add(world, [near + " 네"])
    found = clusters(world)
    assert found[62] == found[63] == 1
    assert [found[n] for n in range(2, 62)] == list(range(2, 62))
    assert len(compared) < 60


def test_few_that_share_a_band_are_all_compared() -> None:
    """One band in common is enough among few, in whatever bands they differ."""
    bands = np.arange(10 * 24, dtype=np.int32).reshape(10, 24)
    bands[[1, 4, 7, 9], 5] = -1
    found = candidates(bands, 5).T.tolist()
    assert sorted(map(tuple, found)) == list(combinations((1, 4, 7, 9), 2))
    assert candidates(bands, 6).size == 0


def test_a_crowd_is_compared_with_its_neighbours() -> None:
    """Of many in one band each is compared with a few: those that go on alike, not those that share nothing else."""

    def pairs(count: int) -> np.ndarray[Any, Any]:
        bands = np.arange(count * 24, dtype=np.int32).reshape(count, 24)
        bands[:, :2] = 7
        bands[:, 2] = np.arange(count) // 2
        return candidates(bands, 0)

    one, two = pairs(1000), pairs(2000)
    assert 15 * 1000 < one.shape[1] < 16 * 1000 and two.shape[1] - one.shape[1] == 16 * 1000
    assert {(2 * n, 2 * n + 1) for n in range(500)} <= set(map(tuple, one.T.tolist()))
    alone = np.arange(100 * 24, dtype=np.int32).reshape(100, 24)
    alone[:, 0] = 7
    assert candidates(alone, 0).size == 0


def test_reviews_of_one_template_take_few_comparisons(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of reviews that share most of their words each is compared with some, not with all, and a copy is found."""
    compared, chance = counted(monkeypatch), random.Random(4)
    letters = [chr(0xAC00 + 28 * n) for n in range(300)]
    fixed = ["".join(chance.choices(letters, k=8)) for _ in range(14)]

    def review() -> str:
        blanks = ["".join(chance.choices(letters, k=6)) for _ in range(3)]
        return " ".join([*fixed[:4], blanks[0], *fixed[4:9], blanks[1], *fixed[9:], blanks[2]])

    texts = [review() for _ in range(900)]
    assert similarity(texts[0], texts[1]) > 0.6
    ids = add(world, [*texts[:300], texts[0] + " 또 살게요"])
    first = len(compared)
    add(world, texts[300:])
    # All pairs would be eight times as many as among the first.
    assert len(compared) - first < 4 * first < 4 * 0.6 * 301 * 300 / 2
    assert {id_ for id_, cluster in clusters(world).items() if cluster != id_} == {ids[-1]}


def test_copies_of_one_shape_are_not_compared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual copies, with other marks and spaces, cost no comparison, however many there are."""
    compared: list[tuple[str, str]] = []
    monkeypatch.setattr(clusters_of_ingest, "near_duplicate", lambda *pair: compared.append(pair))
    add(world, [ONE + "!" * n for n in range(100)])
    add(world, [ONE + "?" * n for n in range(1, 100)])
    assert compared == []
    assert set(clusters(world).values()) == {1}


def test_one_that_is_similar_is_enough_of_a_cluster(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred copies of a review, each with another word, take a comparison each and not one a pair."""
    compared = counted(monkeypatch)
    add(world, [f"{ONE} {n:02d}" for n in range(100)])
    add(world, [f"{ONE} {n}" for n in range(100, 200)])
    assert set(clusters(world).values()) == {1}
    assert len(compared) < 300


# Beside other processes


def test_reviews_that_another_process_signs_meanwhile_are_compared_too(world: World) -> None:
    """Between looking and writing another process brings the bridge: both ends and it are one cluster in the end."""
    for n, text in enumerate((ONE, OTHER)):
        new = NewRecord(f"e{n}", text)
        world.store.write(lambda tx, new=new: world.store.records.add(tx, world.project_id, [new], []))
    with Store(world.store.path) as elsewhere:
        asked = iter([lambda: None, lambda: add(world, [MIDDLE], elsewhere)])

        def stop() -> bool:
            next(asked, lambda: None)()
            return False

        sign_reviews(world.store, world.project_id, stop)
    assert clusters(world) == {1: 1, 2: 1, 3: 1}
    assert check_clusters(world.store, world.project_id) == []


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_reviews_that_a_removed_one_linked_are_compared_anew(world: World, gone: int) -> None:
    """Between looking and writing the one goes that two others were compared with: they still find each other."""
    for n in range(3):
        new = NewRecord(f"e{n}", f"{ONE} {n}번째")
        world.store.write(lambda tx, new=new: world.store.records.add(tx, world.project_id, [new], []))
    remove = world.store.removal.remove
    asked = iter([lambda: None, lambda: world.store.write(lambda tx: remove(tx, world.project_id, [gone]))])

    def stop() -> bool:
        next(asked, lambda: None)()
        return False

    sign_reviews(world.store, world.project_id, stop)
    left = sorted({1, 2, 3} - {gone})
    assert clusters(world) == dict.fromkeys(left, left[0])


def test_removed_review_leaves_no_signature(world: World) -> None:
    """Nothing of it stays to be compared with; what stood beside it in the same block does."""
    ids = add(world, [ONE, OTHER, "전혀 다른 이야기를 하는 글입니다"])
    world.store.write(lambda tx: world.store.removal.remove(tx, world.project_id, ids[:1]))
    rows = world.store.db.all("SELECT ids, shapes, bands FROM signatures")
    kept = [id_ for row in rows for id_ in np.frombuffer(row["ids"], dtype=np.int64).tolist()]
    assert kept == ids[1:]
    assert sum(len(row["bands"]) for row in rows) == 2 * 96
    (copy,) = add(world, [OTHER + "!"])
    assert clusters(world)[copy] == ids[1]


def test_many_small_imports_make_few_blocks(world: World) -> None:
    """Signatures that come one by one stand together: all blocks are read for each import."""
    for n in range(20):
        add(world, [f"{n}번째 리뷰는 다른 말을 해요 {n * 7919}"])
    assert world.store.db.value("SELECT COUNT(*) FROM signatures") == 1
    assert world.store.clusters.size(world.project_id) == 20


# The index of examples


@pytest.mark.parametrize("retriever", ["similar", "random", "diverse", "fixed"])
def test_near_duplicate_of_a_union_is_no_example_in_any_process(world: World, retriever: str) -> None:
    """An index that is open while another process unites two clusters excludes the whole of it at the next search."""
    one, other, *_ = add(world, [ONE, OTHER, "전혀 다른 이야기를 하는 글입니다 오해하지 마세요"])
    for id_ in clusters(world):
        world.approve(id_)
    index = world.index()
    query = world.query(one)
    retrieve = BUILT_IN[retriever]({"per_reviewer": 100}).retrieve
    assert other in {hit.entry.record_id for hit in retrieve(index, query, 8)}
    with Store(world.store.path) as elsewhere:
        add(world, [MIDDLE], elsewhere)
    for asked in (query, world.query(one)):
        assert {hit.entry.record_id for hit in retrieve(index, asked, 8)} == {3}
        assert {hit.entry.record_id for hit in retrieve(world.index(), asked, 8)} == {3}


# Databases of before, and repairs


def test_reviews_of_an_older_database_are_looked_at_again(tmp_path: Path) -> None:
    """After the migration missed pairs are found, beside new reviews, and also if the work is interrupted."""
    world = World(tmp_path, [])
    texts = [ONE, OTHER, *templated(60, 3)]
    news = [NewRecord(f"k{n}", text) for n, text in enumerate(texts)]
    world.store.write(lambda tx: world.store.records.add(tx, world.project_id, news, []))
    world.store.write(lambda tx: world.store.clusters.forget(tx, world.project_id))
    stops = iter([False, False])
    sign_reviews(world.store, world.project_id, lambda: next(stops, True))
    add(world, [MIDDLE])
    sign_reviews(world.store, world.project_id)
    assert sign_reviews(world.store, world.project_id) == 0
    assert clusters(world) == components(stored_texts(world))
    world.store.close()


def test_wrong_clusters_are_found_and_mended(world: World) -> None:
    """A union that is missing and one that should not be are both named, and both mended."""
    ids = add(world, [ONE, MIDDLE, OTHER, "전혀 다른 이야기를 하는 글입니다", "또 하나의 전혀 다른 글이에요 정말로"])
    world.store.write(lambda tx: tx.run("UPDATE records SET cluster = id WHERE id = ?", (ids[2],)))
    world.store.write(lambda tx: tx.run("UPDATE records SET cluster = ? WHERE id = ?", (ids[3], ids[4])))
    assert check_clusters(world.store, world.project_id) == [ids[2], ids[4]]
    assert repair_clusters(world.store, world.project_id) == 2
    assert check_clusters(world.store, world.project_id) == []
    assert clusters(world) == components(stored_texts(world))
