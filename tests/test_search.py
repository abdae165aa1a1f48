"""Search in record texts: substrings of words, at any length, in Korean and English."""

from __future__ import annotations

import importlib
import re
import unicodedata
from unittest import mock

import pytest
from helpers import World
from hypothesis import given, settings
from hypothesis import strategies as st
from searching import search

from labeler.store import NewRecord
from labeler.store.search import folded, forget_texts, index_pictures, replace_text, search_query, search_tokens

TEXTS = [
    "사과가 아삭하고 배송이 빨라요",
    "풋사과는 시어서 별로예요 ㅠㅠ",
    "iPhone15 케이스인데 마감이 좋아요",
    "The Apple was rotten, 배송도 늦었어요",
    "가 나 다 라",
    "snake_case_name 이라고 적혀 있어요",
    "가격대비 최고! 강추합니다~~",
    "ab bc 라고 인쇄됨",
    "ÉCLAIR 에클레어 Straße",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("search"), TEXTS)
    yield made
    made.store.close()


def found(world, words, **more):
    return {row["text"] for row in search(world.store, world.project_id, words, **more)}


@pytest.mark.parametrize(
    ("words", "places"),
    [
        ("사과", {0, 1}),
        ("배송", {0, 3}),
        ("과가", {0}),
        ("과", {0, 1}),
        ("ㅠ", {1}),
        ("가", {0, 4, 6}),
        ("격대비", {6}),
        ("phone1", {2}),
        ("15", {2}),
        ("5", {2}),
        ("apple", {3}),
        ("APPLE", {3}),
        ("ｒｏｔｔｅｎ", {3}),
        ("straSSe", {8}),
        ("éclair", {8}),
    ],
)
def test_word_is_found_inside_words(world, words, places):
    """Two characters, one, a part of a word, any case and width: what the text contains is found."""
    assert found(world, words) == {TEXTS[n] for n in places}


@pytest.mark.parametrize(
    ("words", "places"),
    [
        ("배송 사과", {0}),
        ("apple 배송", {3}),
        ("배송, rotten!", {3}),
        ("사과 rotten", set()),
        ("가 다", {4, 6}),
    ],
)
def test_all_words_must_occur_in_any_order(world, words, places):
    """Several words mean all of them, wherever they stand."""
    assert found(world, words) == {TEXTS[n] for n in places}


@pytest.mark.parametrize(
    "words", ["", "   ", "!!!", "😀", "없는말", "사과사과", "z", "abc", 'a" OR "b', "NEAR(", "*", "-사과x"]
)
def test_what_does_not_occur_is_not_found(world, words):
    """Nothing matches nothing: no error, no syntax of the search engine, no match across two words."""
    assert found(world, words) == set()


@pytest.mark.parametrize("words", ["snake_case", "snakecase", "case_name", "_name"])
def test_underscore_is_no_boundary(world, words):
    """An underscore inside a word is ignored on both sides."""
    assert found(world, words) == {TEXTS[5]}


def test_decomposed_words_are_found(world):
    """Words typed in NFD, as some systems do, find text stored in NFC."""
    assert found(world, unicodedata.normalize("NFD", "사과")) == {TEXTS[0], TEXTS[1]}


def test_pages_reach_every_match_once(tmp_path):
    """Newest first; the last id of one page opens the next, and a short page is the last."""
    world = World(tmp_path, [f"사과 {n}번" if n % 3 else f"배 {n}번" for n in range(50)])
    seen, before = [], None
    while True:
        page = search(world.store, world.project_id, "사과", limit=7, before=before)
        seen += [row["id"] for row in page]
        if len(page) < 7:
            break
        before = page[-1]["id"]
    assert seen == [id_ for n, id_ in reversed(list(enumerate(world.records))) if n % 3]
    world.store.close()


def test_page_is_full_although_candidates_were_refused(tmp_path):
    """Texts where the letters meet only across two words do not thin out the page."""
    texts = [f"abc {n}" if n < 5 else f"ab bc {n}" for n in range(60)]
    world = World(tmp_path, texts)
    page = search(world.store, world.project_id, "abc", limit=5)
    assert [row["text"] for row in page] == [f"abc {n}" for n in reversed(range(5))]
    world.store.close()


def test_other_projects_are_not_searched(tmp_path):
    """A search stays within its project."""
    world = World(tmp_path, TEXTS)
    other = world.store.write(lambda tx: world.store.projects.create(tx, "other", "ko", {}))
    world.store.write(lambda tx: world.store.records.add(tx, other, [NewRecord("k", "사과 다른 곳")], []))
    assert len(search(world.store, world.project_id, "사과")) == 2
    assert len(search(world.store, other, "사과")) == 1
    world.store.close()


def test_changed_text_is_found_by_its_new_words_only(tmp_path):
    """A text that was replaced is no longer found by what it used to say."""
    world = World(tmp_path, TEXTS)
    record = world.store.records.get(world.records[0])

    def work(tx):
        tx.run("UPDATE records SET text = :t WHERE id = :id", {"t": "바나나 한 송이", "id": record.id})
        replace_text(tx, record.id, record.text, "바나나 한 송이")

    world.store.write(work)
    assert len(search(world.store, world.project_id, "바나나")) == 1
    assert found(world, "아삭") == set()
    world.store.close()


TEXT = st.text(alphabet="가나다라과사 abAB_-,ㅠ1", min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXT.filter(str.strip), min_size=1, max_size=6, unique=True), words=TEXT)
def test_search_finds_exactly_what_contains_the_words(tmp_path_factory, texts, words):
    """The index answers as reading every text would, for any texts and words."""
    world = World(tmp_path_factory.mktemp("any"), [])
    news = [NewRecord(f"k{n}", text) for n, text in enumerate(texts)]
    world.store.write(lambda tx: world.store.records.add(tx, world.project_id, news, []))
    parts = [part.replace("_", "") for part in re.findall(r"\w+", folded(words))]
    parts = [part for part in parts if part]

    def contains(text):
        here = folded(text).replace("_", "")
        return bool(parts) and all(part in here for part in parts)

    assert found(world, words) == {text for text in texts if contains(text)}
    with mock.patch("labeler.annotation.table._FRONT", 0):
        assert found(world, words) == {text for text in texts if contains(text)}
    world.store.close()


def test_a_letter_in_few_of_many_texts_is_found(tmp_path):
    """What stands beyond the texts that are looked through for a letter is found as well, both ways."""
    world = World(tmp_path, [f"귤 {n}번{' 흠' if n in (2, 700) else ''}" for n in range(1500)])
    for words, numbers in (("흠", [700, 2]), ("귤 흠", [700, 2]), ("없", [])):
        rows = search(world.store, world.project_id, words)
        assert [int(row["key"][1:]) for row in rows] == numbers
    (row,) = search(world.store, world.project_id, "흠", after=world.records[3])
    assert row["id"] == world.records[700]
    world.store.close()


# Pictures

THUMB, BROWN_THUMB, HEART, RED_HEART = "👍", "👍🏽", "❤", "❤\ufe0f"
FAMILY, LARGER_FAMILY = "👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧\u200d👦"
PICTURED = [
    f"맛있어요 {THUMB}",
    f"배송 최고{BROWN_THUMB}{BROWN_THUMB}",
    f"우리 {FAMILY} 모두 좋아해요",
    f"{LARGER_FAMILY} 다 먹어요",
    f"사랑해요 {RED_HEART}",
    f"별로 {HEART} 아님",
    "한국 🇰🇷 배송",
    "미국 🇺🇸 배송",
    "★★★☆☆ 보통",
    "👏👏 그림 없이 u1f44d 라고 적음",
]


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("pictures"), PICTURED)
    yield made
    made.store.close()


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (THUMB, {0, 1}),
        (BROWN_THUMB, {1}),
        (BROWN_THUMB * 2, {1}),
        (THUMB * 2, set()),
        (FAMILY, {2, 3}),
        (LARGER_FAMILY, {3}),
        ("👧", {2, 3}),
        (HEART, {4, 5}),
        (RED_HEART, {4, 5}),
        ("🇰🇷", {6}),
        ("🇺🇸 배송", {7}),
        ("★★★", {8}),
        ("★★★★", set()),
        (f"배송 {THUMB}", {1}),
        ("👏", {9}),
        ("u1f44d", {9}),
        ("😀", set()),
        ("\u200d", set()),
    ],
)
def test_picture_is_found_whole(pictured, words, places):
    """Emoji and stars are found alone, beside words, in a family and in any skin; one that is asked for with a skin, or
    as a family, is found as that alone, and a heart whichever way the keyboard spells it."""
    assert found(pictured, words) == {PICTURED[n] for n in places}


def test_pictures_of_what_was_stored_before_are_found_after_the_upkeep(tmp_path, monkeypatch):
    """Records that an earlier program stored are indexed slice by slice; killed in between, it goes on from there."""
    with monkeypatch.context() as earlier:
        earlier.setattr(importlib.import_module("labeler.store.search"), "_picture_tokens", lambda text: [])
        world = World(tmp_path, [f"좋아요 {THUMB} {n}" for n in range(5)])
    store = world.store
    # As the migration leaves it.
    sql = "INSERT INTO unsearched_pictures (through, newest) SELECT 0, MAX(id) FROM records"
    store.write(lambda tx: tx.run(sql))
    world.add([f"새 리뷰 {THUMB}"])
    assert found(world, THUMB) == {f"새 리뷰 {THUMB}"}
    assert store.write(lambda tx: index_pictures(tx, 2))
    assert found(world, THUMB) == {f"새 리뷰 {THUMB}", f"좋아요 {THUMB} 0", f"좋아요 {THUMB} 1"}
    # One that was indexed, and one that was not yet, can be taken out whole.
    leaving = [(id_, f"좋아요 {THUMB} {n}") for n, id_ in enumerate(world.records) if n in (0, 4)]
    store.write(lambda tx: forget_texts(tx, leaving))
    while store.index_pictures():
        pass
    assert found(world, THUMB) == {f"새 리뷰 {THUMB}", *(f"좋아요 {THUMB} {n}" for n in (1, 2, 3))}
    assert found(world, "좋아요") == {f"좋아요 {THUMB} {n}" for n in (1, 2, 3)}
    assert not store.index_pictures() and store.check() == []
    store.close()


# Keys


def test_record_is_found_by_its_key(tmp_path):
    """A key that is typed whole brings its record first, and once, before the texts that hold the key."""
    texts = [NewRecord("ko-fruit-1", "사과"), NewRecord("x", "ko-fruit-1 과 같은 상품"), NewRecord("ko-fruit-12", "배")]
    world = World(tmp_path, texts)
    pages = [search(world.store, world.project_id, " ko-fruit-1 ", limit=1)]
    pages.append(search(world.store, world.project_id, "ko-fruit-1", limit=5))
    assert [[row["key"] for row in page] for page in pages] == [["ko-fruit-1"], ["ko-fruit-1", "x"]]
    assert [row["key"] for row in search(world.store, world.project_id, "사과", limit=5)] == ["ko-fruit-1"]
    world.store.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("가나a1_ .\n\u0301ﬁ①ß👍❤", max_size=20), max_size=8))
def test_tokens_of_a_text_do_not_depend_on_the_others(texts):
    """What the index holds of a text is the same alone and among others, empty ones too."""
    assert search_tokens(texts) == [search_tokens([text])[0] for text in texts]


def test_tokens_are_overlapping_pairs():
    """What the index holds can be read: pairs of a word, its last character alone, and code points of pictures."""
    assert search_tokens(["사과가 A", "A👍👍"]) == ["사과 과가 가 a", "a u1f44d"]
    assert search_query("사과가 a") == '"사과 과가" AND "a"*'
    assert search_query("!") is None
