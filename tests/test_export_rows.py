"""Which rows an export has: filters, caps, near-duplicates, contact data, and the splits that they go to."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_cli import Shell, shell
from test_export import (
    ALL_TRAIN,
    ANEW,
    PATIENT,
    SENTIMENT,
    World,
    _assert_undivided,
    _places,
    exported_keys,
    found,
    lines,
    table,
    world,
)
from test_web_access import approve_one
from test_web_pages import send

from labeler import Choices, Fields, Keywords, Label, Task, Text, strictjson
from labeler.errors import InputError, LabelerError, NotFound, SettingError
from labeler.export import ExportResult, Filters, Options, Selection, Shares
from labeler.export.contacts import Contact, contacts, kinds_in, masked
from labeler.export.filters import moment, repeated
from labeler.instance import Instance
from labeler.store import NewRecord, Store

__all__ = ["shell", "world"]
TASTE = Task("taste", Choices(Label("taste"), Label("price"), Label("box")))
DAY = 86_400.0


def kept(world: World, **asked: Any) -> list[str]:
    """The records that leave with some filters."""
    return exported_keys(world.export(shares=ALL_TRAIN, filters=Filters.read(**asked)))


def selected(world: World, shares: Shares = ALL_TRAIN, **asked: Any) -> ExportResult:
    return world.export(shares=shares, selection=Selection.read(**asked))


def of_splits(result: ExportResult) -> dict[str, str]:
    """What the manifest says of whole splits, by kind."""
    return {item["kind"]: item["message"] for item in result.manifest["warnings"] if not item["keys"]}


# Filters


@pytest.fixture
def reviewed(world: World) -> World:
    """Five labels that differ in all that a filter can ask for."""
    people = {
        name: world.store.write(lambda tx, name=name: world.store.people.create(tx, name, None, "reviewer"))
        for name in ("kim", "lee")
    }
    rows: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("a", "아주 맛있어요", {"how": "accepted", "reviewer_id": people["kim"], "agreement": 1.0}),
        ("b", "보통ㅋㅋㅋㅋㅋㅋ", {"how": "corrected", "reviewer_id": people["kim"], "agreement": 0.0}),
        ("c", "배송이 빨라요", {"how": "scratch", "reviewer_id": people["lee"], "agreement": 1.0, "blind": 1}),
        ("d", "so tasty", {"how": "scratch", "reviewer_id": people["lee"], "task_version": "2"}),
        ("e", "음", {"how": "imported", "value": "negative"}),
    )
    for n, (key, text, more) in enumerate(rows):
        record = world.record(key, text, metadata={"shop": "강남" if n < 2 else "부산", "stars": n})
        suggestion = world.suggest(record, "positive", score=0.6 + n / 10)
        world.annotate(record, **{"value": "positive", "suggestion_id": suggestion, "created_at": n * DAY} | more)
    return world


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ({}, "abcde"),
        ({"how": ["accepted", "imported"]}, "ae"),
        ({"language": "en"}, "d"),
        ({"reviewers": ["kim"]}, "ab"),
        ({"reviewers": ["kim", "lee"]}, "abcd"),
        ({"blind": True}, "c"),
        ({"versions": ["2"]}, "d"),
        ({"labels": ["negative"]}, "e"),
        ({"since": "1970-01-03"}, "cde"),
        ({"until": "1970-01-03"}, "abc"),
        ({"since": "1970-01-02T00:00:00", "until": "1970-01-02T09:00:00+09:00"}, ""),
        ({"min_agreement": 0.5}, "ac"),
        ({"min_agreement": 0.0}, "abc"),
        ({"min_score": 0.6}, "a"),
        ({"min_score": 0.7}, ""),
        ({"metadata": ["shop=강남"]}, "ab"),
        ({"metadata": ["shop=강남", "shop=부산", "stars=3"]}, "d"),
        ({"query": "맛있"}, "a"),
        ({"query": "SO tast"}, "d"),
        ({"shortest": 2}, "abcd"),
        ({"longest": 7}, "ace"),
        ({"repeated": 0.5}, "acde"),
        ({"repeated": 0.0}, "acde"),
        ({"reviewers": ["kim"], "min_agreement": 1.0}, "a"),
    ],
    ids=str,
)
def test_a_filter_keeps_what_it_asks_for(reviewed: World, asked: dict[str, Any], left: str) -> None:
    """Each filter alone, and two together; a row that has nothing to be judged by stays out."""
    if left:
        assert "".join(kept(reviewed, **asked)) == left
    else:
        with pytest.raises(InputError, match="fits the filters"):
            kept(reviewed, **asked)


def test_the_manifest_counts_what_each_filter_kept_out(reviewed: World) -> None:
    """A row counts for the first filter that it fails, so that the counts add up."""
    result = reviewed.export(
        filters=Filters(how=("scratch",), reviewers=("lee",), versions=("2",), labels=("positive",))
    )
    assert result.manifest["filtered"] == {"how": 3, "versions": 1}
    assert result.manifest["filters"]["reviewers"] == ["lee"]
    assert strictjson.loads((result.folder / "manifest.json").read_bytes()) == result.manifest


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"reviewers": ["kin"]}, "No approved label of this task is by 'kin'; there are: kim, lee"),
        ({"versions": ["9"]}, "No label was approved under version '9' of this task; there are: 1, 2"),
        ({"metadata": ["town=서울"]}, "No record of this task has 'town' in its metadata; there are: shop, stars"),
        ({"labels": ["great"]}, "counts as 'great'; there are: negative, neutral, positive"),
        ({"metadata": ["서울"]}, "Metadata is given as COLUMN=VALUE, not '서울'"),
        ({"since": "yesterday"}, "'yesterday' is no date; write it as in 2026-11-30"),
        ({"query": "!!"}, "The search '!!' has no word to look for"),
        ({"min_score": 1.5}, r"The filter min_score is 1\.5; it is from 0 to 1"),
        ({"how": ["guessed"]}, "No way of labeling 'guessed'"),
    ],
    ids=str,
)
def test_a_filter_that_nothing_can_pass_is_refused(reviewed: World, asked: dict[str, Any], said: str) -> None:
    """A name that no row has is a slip of the pen: an empty set would hide it."""
    with pytest.raises(InputError, match=said):
        kept(reviewed, **asked)


def test_suggestions_know_no_reviewer(reviewed: World) -> None:
    """They can be filtered by what is said of the record and its suggestion; caps and masks are of labels."""
    result = reviewed.export("suggestions", filters=Filters(query="맛있", min_score=0.5))
    assert [row["key"] for row in lines(result.files[0])] == ["a"]
    with pytest.raises(SettingError, match="Suggestions cannot be filtered by reviewers: nobody has approved them"):
        reviewed.export("suggestions", filters=Filters(reviewers=("kim",)))
    with pytest.raises(SettingError, match="Suggestions leave as they are"):
        reviewed.export("suggestions", selection=Selection(contacts="mask"))


def test_a_day_ends_where_the_next_one_begins() -> None:
    """A date is a day in UTC, unless it comes with a time and a zone."""
    assert moment("1970-01-02") == DAY == moment("1970-01-01", through=True)
    assert moment("1970-01-02T09:00:00+09:00") == DAY


@pytest.mark.parametrize(
    ("text", "share"), [("", 0.0), ("맛있어요", 0.0), ("ㅋㅋㅋ", 0.0), ("최고!!!!", 4 / 6), ("ㅋㅋㅋㅋ", 1.0)]
)
def test_repetition_begins_with_the_fourth_character(text: str, share: float) -> None:
    """Three of a kind are how people write; four are noise."""
    assert repeated(text) == pytest.approx(share)


# Caps and weights


def test_a_cap_lets_so_many_rows_of_a_label_train(world: World) -> None:
    """The others are listed; rows of validation and test are not capped."""
    for n in range(60):
        world.approve(f"r{n}", f"리뷰 {n}", "positive" if n % 6 else "negative")
    whole = world.export(shares=Shares(0.5, 0.25, 0.25))
    result = selected(world, Shares(0.5, 0.25, 0.25), caps=["positive=5"])
    labels, before = result.manifest["labels"], whole.manifest["labels"]
    assert labels["train"]["positive"] == 5 < before["train"]["positive"]
    assert labels["train"]["negative"] == before["train"]["negative"]
    assert (labels["validation"], labels["test"]) == (before["validation"], before["test"])
    assert len(found(result.manifest, "left_out")["capped"]) == before["train"]["positive"] - 5
    assert selected(world, caps=["4", "negative=2"]).manifest["labels"]["train"] == {"positive": 4, "negative": 2}


def test_what_left_under_a_cap_leaves_again(world: World) -> None:
    """More labels crowd out nothing that was exported before."""
    for n in range(30):
        world.approve(f"r{n}", f"리뷰 {n}")
    first = exported_keys(selected(world, caps=["8"]))
    assert sorted(first) != sorted(f"r{n}" for n in range(8)), "a hash chooses, not the order"
    for n in range(30, 90):
        world.approve(f"r{n}", f"리뷰 {n}")
    assert exported_keys(selected(world, caps=["8"])) == first


def test_a_row_with_several_labels_needs_room_for_each(world: World) -> None:
    """So a cap is never exceeded."""
    world.task = TASTE
    for n in range(9):
        world.approve(f"r{n}", f"리뷰 {n}", ["taste", "price"] if n % 3 else ["taste"])
    counts = selected(world, caps=["taste=5", "price=2"]).manifest["labels"]["train"]
    assert counts == {"taste": 5, "price": 2}


def test_weights_stand_in_the_records_and_in_the_table(world: World) -> None:
    """A row weighs as much as the heaviest of its labels, 1 without; without the option there is no such column."""
    world.task = TASTE
    world.approve("r1", "맛 값", ["taste", "price"], metadata={"weight": "2kg"})
    world.approve("r2", "맛", ["taste"])
    world.approve("r3", "상자", ["box"])
    rows = lines(selected(world, weights=["price=2.5", "taste=0.5"]).folder / "records.jsonl")
    assert [row["weight"] for row in rows] == [2.5, 0.5, 1.0]
    assert rows[0]["metadata"] == {"weight": "2kg"}
    csv = world.export("csv", world.folder / "csv", shares=ALL_TRAIN, selection=Selection(weights={"price": 2.5}))
    first = table(csv.folder / "train.csv")[0]
    assert (first["weight"], first["metadata.weight"]) == ("2.5", "2kg")
    plain = world.export("csv", world.folder / "plain", shares=ALL_TRAIN)
    assert table(plain.folder / "train.csv")[0]["weight"] == "2kg"


# Near-duplicates


@pytest.fixture
def clustered(world: World) -> World:
    """Six near-duplicates and a review that is like no other."""
    head = world.record("n0", "정말 맛있어요")
    world.annotate(head, "positive")
    for n in range(1, 6):
        world.approve(f"n{n}", "정말 맛있어요" + "!" * n)
        world.cluster(f"n{n}", head)
    world.approve("other", "다른 글")
    return world


@pytest.mark.parametrize(("asked", "rows"), [("keep", 6), ("2", 2), ("one", 1)])
def test_near_duplicates_are_kept_or_thinned(clustered: World, asked: str, rows: int) -> None:
    """At most so many of a cluster leave, the same at every export; the others are listed."""
    result = selected(clustered, near_duplicates=asked)
    left = exported_keys(result)
    assert len(left) == rows + 1 and left[-1] == "other"
    assert len(found(result.manifest, "left_out").get("thinned", ())) == 6 - rows
    clustered.approve("late", "정말 맛있어요~~")
    clustered.cluster("late", 1)
    assert set(left) <= set(exported_keys(selected(clustered, near_duplicates=asked)))


def test_a_contradiction_takes_its_cluster_with_it(clustered: World) -> None:
    """Which label is right is not guessed from how many there are."""
    clustered.approve("no", "정말 맛없어요", "negative")
    clustered.cluster("no", 1)
    result = selected(clustered, near_duplicates="one")
    assert exported_keys(result) == ["other"]
    assert len(found(result.manifest, "left_out")["near_contradicting"]) == 7


# Contact data


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("문의 010-1234-5678 로", "phone", "010-1234-5678"),
        ("01012345678로 전화", "phone", "01012345678"),
        ("０１０-１２３４-５６７８", "phone", "０１０-１２３４-５６７８"),
        ("매장 02-123-4567이에요", "phone", "02-123-4567"),
        ("+82 10-1234-5678", "phone", "+82 10-1234-5678"),
        ("call (415) 555-2671 now", "phone", "(415) 555-2671"),
        ("메일은abc.d+e@naver.co.kr으로", "email", "abc.d+e@naver.co.kr"),
        ("주민번호 900101-1234568", "resident", "900101-1234568"),
        ("9001011234568", "resident", "9001011234568"),
        ("아기 201015-3000000", "resident", "201015-3000000"),
        ("외국인 850505-5123456", "resident", "850505-5123456"),
        ("카드 4539 1488 0343 6467", "card", "4539 1488 0343 6467"),
        ("3782-822463-10005", "card", "3782-822463-10005"),
    ],
)
def test_contact_data_is_found_as_people_write_it(text: str, kind: str, words: str) -> None:
    """Korean words may follow without a space; offsets are in code points."""
    start = text.index(words)
    assert contacts(text) == [Contact(kind, start, start + len(words))]
    assert masked(text) == text[:start] + "*" * len(words) + text[start + len(words) :]


@pytest.mark.parametrize(
    "text",
    [
        "900101-1234567",  # the check digit is wrong
        "901301-1234568",  # no such month
        "2010153000000",  # born since October 2020, and no dash: any number of 13 digits might be one
        "4539 1488 0343 6468",  # the check of Luhn fails
        "1234 5678 9012 3452",  # passes it, and no network has such cards
        "8801062635757",  # a bar code
        "주문 20261130-0000123",
        "3,500원에 1588-1234 고객센터",
        "2026-11-30 12:30:45",
        "비율 0.123456789",
        "@추천 해요 a@b",
        "+100 점",
    ],
)
def test_other_numbers_are_no_contact_data(text: str) -> None:
    """Checksums and forms tell them apart."""
    assert contacts(text) == []


@PATIENT
@given(
    st.text(alphabet="0１9-–. +()@a가\n", max_size=60), st.sampled_from(["010-1234-5678", "a@b.kr", "9001011234568"])
)
@example("0000@+0", "010-1234-5678")
def test_a_mask_is_as_long_as_what_it_hides(around: str, words: str) -> None:
    """Every code point stays or becomes a mark, and a masked text has nothing left to mask."""
    text = f"{around} {words} {around}"
    hidden = masked(text)
    assert len(hidden) == len(text) and all(b in (a, "*") for a, b in zip(text, hidden, strict=True))
    assert words not in hidden


def personal(world: World) -> None:
    world.approve("a", "맛있어요 010-1234-5678", metadata={"mail": ["a@b.kr"], "n": 1})
    world.approve("b", "좋아요", metadata={"card": "4539 1488 0343 6467"})
    world.approve("c", "괜찮아요")


def test_contact_data_is_named_by_default(world: World) -> None:
    """It leaves as it is, with its kinds and the keys of its records in the manifest (A13)."""
    personal(world)
    result = world.export(shares=ALL_TRAIN)
    said = [(item["message"], item["keys"]) for item in result.manifest["warnings"] if item["kind"] == "contact"]
    assert said == [
        ("The record or its label has contact data (email)", ["a"]),
        ("The record or its label has contact data (phone)", ["a"]),
        ("The record or its label has contact data (card)", ["b"]),
    ]
    assert "010-1234-5678" in (result.folder / "train.jsonl").read_text(encoding="utf-8")


def test_masked_contact_data_is_in_no_file(world: World) -> None:
    """Neither in a prompt nor in the metadata; the text keeps its length."""
    personal(world)
    for format_name in ("openai", "csv"):
        result = world.export(
            format_name, world.folder / format_name, shares=ALL_TRAIN, selection=Selection(contacts="mask")
        )
        written = "".join(path.read_text(encoding="utf-8") for path in result.files)
        assert not [words for words in ("1234-5678", "a@b", "4539") if words in written]
        assert "맛있어요 *************" in written
    assert set(found(result.manifest, "warnings")) == {"contact_masked"}


def test_rows_with_contact_data_can_stay_out(world: World) -> None:
    personal(world)
    result = selected(world, contacts="drop")
    assert exported_keys(result) == ["c"]
    assert sorted({key for item in result.manifest["left_out"] for key in item["keys"]}) == ["a", "b"]


def test_keywords_stay_where_they_are_in_a_masked_text(world: World) -> None:
    """Offsets are true; a label that points at contact data, or has some itself, stays out and is listed."""
    world.task = Task("words", Fields((Label("good"), Keywords()), (Label("said"), Text())))
    text = "010-1234-5678 배송 맛"
    end = {"text": "맛", "start": 17, "end": 18}
    world.approve("ok", text, {"good": [end], "said": "맛이 좋다"})
    world.approve("points", text + "!", {"good": [{"text": "5678", "start": 9, "end": 13}], "said": "좋다"})
    world.approve("says", text + "?", {"good": [end], "said": "010-1234-5678로 연락"})
    result = selected(world, contacts="mask")
    (row,) = lines(result.folder / "records.jsonl")
    assert row["text"] == "************* 배송 맛"
    assert world.task.schema.parse(row["label"], row["text"])["good"] == [end]
    assert found(result.manifest, "left_out") == {"contact_label": ["points", "says"]}


# Splits


def dated(world: World, n: int, day: int, **more: Any) -> None:
    record = world.record(f"d{n:02}", f"리뷰 {n}", **more)
    world.annotate(record, "positive", created_at=day * DAY)


def test_the_newest_rows_are_the_test_set(world: World) -> None:
    """By date of approval: what trains is older than what validates, and that is older than what tests."""
    for n in range(20):
        dated(world, n, (n * 7) % 20)
    places = _places(selected(world, Shares(0.6, 0.2, 0.2), split_by="date"))
    order = [places[f"d{n:02}"] for n in sorted(range(20), key=lambda n: (n * 7) % 20)]
    assert order == ["train"] * 12 + ["validation"] * 4 + ["test"] * 4


def test_a_date_may_come_from_the_metadata(world: World) -> None:
    """As reviews have it; a record without a date is named, not guessed."""
    for n in range(10):
        world.approve(
            f"d{n}", f"리뷰 {n}", metadata={"on": f"2026년 {10 - n}월 1일" if n % 2 else f"2026-{10 - n:02}-01"}
        )
    places = _places(selected(world, Shares(0.8, 0.0, 0.2), split_by="date:on"))
    assert {key for key, split in places.items() if split == "test"} == {"d0", "d1"}
    world.approve("none", "날짜 없음", metadata={"on": "어제"})
    with pytest.raises(SettingError, match="The record 'none' has no date in 'on' that can be read: '어제'"):
        selected(world, Shares(0.8, 0.0, 0.2), split_by="date:on")


def test_a_product_is_as_new_as_its_newest_review(world: World) -> None:
    """It is not divided, and nothing newer than a test row of its trains."""
    for n in range(10):
        dated(world, n, n, group="p1" if n in (0, 9) else None)
    places = _places(selected(world, Shares(0.8, 0.0, 0.2), split_by="date"))
    assert {key for key, split in places.items() if split == "test"} == {"d00", "d09"}


def test_each_label_gets_its_share_of_each_split(world: World) -> None:
    """Stratified: 5 of 50 rows are negative, and each split has its part of them."""
    for n in range(50):
        world.approve(f"r{n}", f"리뷰 {n}", "negative" if n % 10 == 0 else "positive", group=f"p{n // 2}")
    labels = selected(world, Shares(0.6, 0.2, 0.2), split_by="label").manifest["labels"]
    assert {name: labels[name]["negative"] for name in labels} == {"train": 3, "validation": 1, "test": 1}
    assert {name: labels[name]["positive"] for name in labels} == {"train": 27, "validation": 9, "test": 9}


@pytest.mark.parametrize("split_by", ["date", "label"])
def test_other_rules_move_nothing_that_left(world: World, split_by: str) -> None:
    """New records find their place around the old ones, which stay, whichever rule asks."""
    for n in range(30):
        dated(world, n, n)
    before = _places(selected(world, Shares(0.6, 0.2, 0.2), split_by=split_by))
    for n in range(30, 60):
        dated(world, n, 90 - n)
    for rule in (split_by, "product", "label", "date"):
        after = _places(selected(world, Shares(0.6, 0.2, 0.2), split_by=rule))
        assert before.items() <= after.items() and len(after) == 60
        before = after


# The frozen test set


def frozen(world: World, name: str = "spring") -> dict[str, str]:
    """Export 40 records, freeze their test set, and return where they are."""
    for n in range(40):
        world.approve(f"r{n}", f"리뷰 {n}", group=f"p{n // 2}")
    return _places(world.export(shares=Shares(0.5, 0.2, 0.3), selection=Selection(freeze=name)))


def test_a_frozen_test_set_stays_out_of_training_for_good(world: World) -> None:
    """Whatever is split again: neither its records nor their products and near-duplicates train or validate."""
    places = frozen(world)
    held = {key for key, split in places.items() if split == "test"}
    test_product = f"p{int(min(held)[1:]) // 2}"
    world.approve("same product", "새 리뷰", group=test_product)
    near = world.store.records.by_key(world.project["id"], min(held))
    assert near is not None
    world.approve("near", "비슷한 리뷰")
    world.cluster("near", near.cluster or 0)
    again = world.export(shares=Shares(0.5, 0.2, 0.3), options=ANEW)
    now = _places(again)
    assert held | {"same product", "near"} <= {key for key, split in now.items() if split == "test"}
    trained = _places(world.export(shares=ALL_TRAIN, options=ANEW))
    assert not trained.keys() & (held | {"same product", "near"})
    assert len(trained) == 40 - len(held)


def test_the_memory_of_other_records_is_forgotten_and_said(world: World) -> None:
    """With --new-splits the manifest names what moved, from where to where."""
    places = frozen(world)
    again = world.export(shares=Shares(0.1, 0.6, 0.3), options=ANEW)
    now = _places(again)
    moved = {key for key in places if places[key] != now[key]}
    assert moved and {key for item in again.manifest["moved"] for key in item["keys"]} == moved
    assert "All records were split again: from train to validation" in [
        one["message"] for one in again.manifest["moved"]
    ]
    assert world.export(shares=Shares(0.1, 0.6, 0.3)).manifest["moved"] == []


def test_a_frozen_test_set_is_listed_and_can_be_thawed(world: World) -> None:
    """Its name is taken for good measure: a set that grew would compare nothing."""
    held = sum(split == "test" for split in frozen(world).values())
    (row,) = world.store.splits.frozen(world.project["id"])
    assert (row["name"], row["records"]) == ("spring", held)
    with pytest.raises(InputError, match="There is a frozen test set 'spring' already; choose another name"):
        world.export(shares=Shares(0.5, 0.2, 0.3), selection=Selection(freeze="spring"))
    with pytest.raises(InputError, match="There are no test rows to freeze"):
        world.export(shares=Shares(0.7, 0.3, 0.0), selection=Selection(freeze="autumn"))
    with pytest.raises(NotFound, match="There is no frozen test set 'autumn'"):
        world.store.write(lambda tx: world.store.splits.thaw(tx, world.project["id"], "autumn"))
    world.store.write(lambda tx: world.store.splits.thaw(tx, world.project["id"], "spring"))
    assert set(_places(world.export(shares=ALL_TRAIN, options=ANEW)).values()) == {"train"}


STEPS = st.one_of(
    st.tuples(st.just("import"), st.sampled_from([None, "p1", "p2", "p3"]), st.sets(st.integers(1, 4), max_size=2)),
    st.tuples(st.just("label"), st.integers(0, 30), st.sampled_from(["positive", "neutral", "negative"])),
    st.tuples(
        st.just("export"),
        st.sampled_from([(0.4, 0.3, 0.3), (0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5)]),
        st.tuples(
            st.booleans(), st.sampled_from(["product", "date", "label"]), st.booleans(), st.sampled_from([None, 1, 2])
        ),
    ),
)


@settings(PATIENT, max_examples=80)
@given(steps=st.lists(STEPS, min_size=10, max_size=60))
def test_nothing_is_ever_on_both_sides(steps: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Over random imports, unions, labels and exports, with frozen sets and splits made again: in no export a product
    or a cluster stands in two splits, nothing moves unless all is split again, and what is frozen only ever tests."""
    folder = tmp_path_factory.mktemp("rows")
    left: dict[str, str] = {}
    frozen: set[str] = set()
    with Store(folder / "labeler.db", synchronous="OFF") as store:
        id_ = store.write(lambda tx: store.projects.create(tx, "shop", "ko", {}))
        world = World(store, store.projects.get(id_), folder)
        records: list[int] = []
        alike: dict[int, int] = {}
        for number, (step, what, more) in enumerate(steps):
            if step == "import":
                add = partial(
                    store.records.add,
                    project_id=id_,
                    rows=[NewRecord(f"r{number}", f"글 {number}", what)],
                    tasks=["sentiment"],
                )
                records.append(store.write(add)[0].id)
                others = (alike[band] for band in more if band in alike)
                together = [store.records.get(one).cluster for one in (records[-1], *others)]
                store.write(partial(store.clusters.unite, project_id=id_, clusters=together))
                alike |= dict.fromkeys(more, records[-1])
            elif step == "label" and records:
                if store.annotations.current(records[what % len(records)], "sentiment") is None:
                    world.annotate(records[what % len(records)], more, created_at=float(number))
            elif step == "export":
                again, split_by, freeze, most = more
                selection = Selection(split_by=split_by, freeze=f"f{number}" * freeze, near_duplicates=most)
                options = Options(new_splits=again, keep_contradicting=True)
                try:
                    result = world.export(
                        folder=folder / str(number), shares=Shares(*what), options=options, selection=selection
                    )
                except InputError:
                    continue
                places = _places(result)
                moved = {key for item in result.manifest["moved"] for key in item["keys"]}
                assert moved == {key for key in places if left.get(key, places[key]) != places[key]}
                assert again or not moved
                assert not {key: places[key] for key in frozen & places.keys() if places[key] != "test"}
                left = (dict.fromkeys(frozen, "test") if again else left) | places
                frozen |= {key for key in places if freeze and places[key] == "test"}
                _assert_undivided(world, places)
                _assert_no_twin(world, places, frozen)


def _assert_no_twin(world: World, places: dict[str, str], frozen: set[str]) -> None:
    """No record that trains or validates shares a product or a cluster with a frozen one."""

    def links(key: str) -> set[Any]:
        record = world.store.records.by_key(world.project["id"], key)
        assert record is not None
        return {record.cluster, record.group} - {None}

    held = {link for key in frozen for link in links(key)}
    assert not [key for key, place in places.items() if place != "test" and links(key) & held]


# Warnings about splits


def test_a_split_of_a_few_rows_is_named(world: World) -> None:
    """A test set of one row passes no silence (A10)."""
    for n in range(60):
        world.approve(f"r{n}", f"리뷰 {n}")
    few = selected(world, Shares(0.9, 0.05, 0.05))
    assert "rows only; results on fewer than 10 say little" in of_splits(few)["few_rows"]
    assert "few_rows" not in of_splits(world.export(shares=Shares(0.4, 0.3, 0.3), options=ANEW))


def test_a_split_that_lacks_a_label_is_named(world: World) -> None:
    """Of many labels the first eight; the manifest counts all of them for each split."""
    world.task = Task("topic", Choices(*(Label(f"t{n}") for n in range(10))))
    rare = world.record("rare", "드문 글")
    world.annotate(rare, [f"t{n}" for n in range(10)])
    world.store.write(lambda tx: world.store.splits.remember(tx, world.project["id"], [(rare, "train")], 0))
    for n in range(60):
        world.approve(f"r{n}", f"리뷰 {n}", ["t0"])
    said = of_splits(world.export(shares=Shares(0.5, 0.0, 0.5)))["label_absent"]
    assert said == "test lacks labels that the training set has: t1, t2, t3, t4, t5, t6, t7, t8 ..."


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"caps": ["positive=many"]}, "'positive=many' is not read; write LABEL=NUMBER"),
        ({"caps": ["positive=0"]}, "The cap of 'positive' is 0; it is at least 1"),
        (
            {"caps": ["great=3"]},
            "No approved label of this task counts as 'great'; there are: negative, neutral, positive",
        ),
        ({"weights": ["2"]}, "A weight is of a label: write LABEL=2"),
        ({"weights": ["positive=nan"]}, "The weight of 'positive' is nan; it is above 0"),
        ({"near_duplicates": "some"}, "Near-duplicates: keep, one or a number for each cluster, not 'some'"),
        ({"near_duplicates": "0"}, "At least one row of a cluster of near-duplicates leaves, not 0"),
        ({"contacts": "hide"}, "'hide' is none of keep, mask, drop"),
        ({"split_by": "length"}, "'length' is none of product, date, label"),
        ({"split_by": "label:on"}, "A column of dates goes with a split by date alone"),
        ({"freeze": "\u200b"}, "A frozen test set needs a name of 1 to 80 printable characters"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(world: World, asked: dict[str, Any], said: str) -> None:
    """With one sentence that says what to write instead, and nothing written."""
    world.approve("r1", "맛있어요")
    with pytest.raises(LabelerError, match=said):
        selected(world, **asked)
    assert not world.folder.exists()


def test_a_dictionary_of_lists_is_searched_through() -> None:
    """Metadata may be nested."""
    assert kinds_in({"a": [{"b": "x 010-1234-5678"}], "c": 1, "d": None}) == {"phone"}


def test_labels_are_those_of_today(world: World, tmp_path: Path) -> None:
    """A label that the schema offers and nobody gave can be capped."""
    world.approve("r1", "맛있어요")
    assert exported_keys(selected(world, caps=["neutral=1"])) == ["r1"]
    assert SENTIMENT.schema.labels


# The page and the command


def test_the_page_asks_for_rows(client: FlaskClient, instance: Instance, project: int, people: dict[str, int]) -> None:
    """What the form says is what the manifest says; the frozen test set is listed with its size."""
    approve_one(instance, project, people["admin"])
    path = f"/projects/{project}/export"
    form = {
        "task": "sentiment", "format": "openai", "train": "0", "validation": "0", "test": "100", "reviewer": "admin",
        "labels": "positive, negative", "since": "2020-01-01", "shortest": "2", "repeated": "0.5", "contacts": "mask",
        "near_duplicates": "one", "caps": "positive=5, 9", "weights": "positive=2.5", "split_by": "date",
        "freeze": "봄 세트", "keep_contradicting": "1",
    }  # fmt: skip
    assert send(client, path, **form).status_code == 303
    manifest = instance.store.exports.all(project)[0]["manifest"]
    asked, chosen = manifest["filters"], manifest["selection"]
    assert (asked["reviewers"], asked["labels"]) == (["admin"], ["positive", "negative"])
    assert (asked["since"], asked["shortest"], asked["repeated"]) == ("2020-01-01T00:00:00Z", 2, 0.5)
    assert chosen == {
        "caps": {"positive": 5, "": 9}, "weights": {"positive": 2.5}, "near_duplicates": 1, "contacts": "mask",
        "split_by": "date", "date_column": "", "freeze": "봄 세트",
    }  # fmt: skip
    assert manifest["options"]["keep_contradicting"] is True
    assert "봄 세트 <b>1</b>" in client.get(path).text


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("labels", "great", "이 태스크에 승인된 적 없는 라벨이에요"),
        ("since", "yesterday", "2026-11-30처럼"),
        ("metadata", "서울", "열=값"),
        ("caps", "many", "라벨=숫자"),
        ("min_score", "2", "min_score"),
        ("freeze", "x", "고정할 테스트 행이 없어요"),
    ],
)
def test_the_page_keeps_what_was_typed_wrong(
    client: FlaskClient, instance: Instance, project: int, people: dict[str, int], field: str, value: str, said: str
) -> None:
    """The sentence is on top, in the language of the page, and the group of the field is open."""
    approve_one(instance, project, people["admin"])
    form = {"task": "sentiment", "format": "openai", "train": "100", "validation": "0", "test": "0", field: value}
    page = send(client, f"/projects/{project}/export", **form)
    assert page.status_code == 400 and said in page.text
    group = re.search(rf'<details open>(?:(?!</details>).)*name="{field}"[^>]*value="{value}"', page.text, re.DOTALL)
    assert group and instance.store.exports.all(project) == []


def test_the_command_asks_for_rows(shell: Shell) -> None:
    """Each option is in the manifest, what was kept out is printed, and frozen test sets can be listed and thawed."""
    shell.import_reviews()
    command = ("export", "--project", "shop", "--task", "sentiment", "--format", "csv", "--split", "0,0,1")
    asked = ("--how", "imported", "--min-length", "1", "--max-repeated", "0.9", "--contacts", "drop", "--cap", "5",
             "--near-duplicates", "2", "--weight", "positive=2", "--split-by", "label")  # fmt: skip
    out = shell.folder / "out"
    made = shell(*command, "--out", out, *asked, "--query", "맛", "--freeze", "봄")
    assert made.exit_code == 0, made.stderr
    manifest = strictjson.loads((out / "manifest.json").read_bytes())
    assert manifest["filters"]["how"] == ["imported"] and manifest["selection"]["near_duplicates"] == 2
    assert f"Filtered: {manifest['filtered']['query']} by query" in made.stderr
    assert "Froze the test set as '봄'" in made.stderr
    rows = manifest["counts"]["all"]
    assert re.fullmatch(rf"봄: {rows} records, since \d{{4}}-\d\d-\d\d\n", shell.ok("frozen", "--project", "shop"))
    assert "choose another name" in shell.fails(*command, "--out", shell.folder / "again", "--freeze", "봄")
    assert shell.ok("frozen", "--project", "shop", "--thaw", "봄") == ""
    assert "no frozen test set '봄'" in shell.fails("frozen", "--project", "shop", "--thaw", "봄")
