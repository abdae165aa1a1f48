"""Exports are versions: named, compared, and made again byte for byte, whatever was decided since."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_export_asked import ALL_TRAIN, Shop, rows

from labeler.annotation.comparing import Comparing
from labeler.errors import Conflict, InputError, NotFound
from labeler.export import ExportResult, Options, Shares, export_again, export_task
from labeler.instance import Instance
from labeler.labels import Answers
from labeler.records import ParseFailure, Suggestion
from labeler.store.exports import KINDS


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Instance(tmp_path / "instance") as instance:
        yield Shop(instance)


def export(shop: Shop, folder: Path, name: str = "", format_name: str = "trl", **more: Any) -> ExportResult:
    task, shares = shop.task(), more.pop("shares", ALL_TRAIN)
    return export_task(
        shop.store, shop.project, task, format_name, folder, formats=shop.instance.plugins.exporters, shares=shares,
        options=Options(**more), calls=shop.instance.calls(shop.project, task), name=name,
    )  # fmt: skip


def again(shop: Shop, name: str, folder: Path) -> tuple[ExportResult, list[str]]:
    made = shop.store.exports.named(shop.project_id, name)
    task = shop.instance.task_at(shop.project, made["task"], made["manifest"]["task_version"])
    calls = shop.instance.calls(shop.project, task, made["manifest"].get("asked"))
    formats = shop.instance.plugins.exporters
    return export_again(shop.store, shop.project, task, made, folder, formats=formats, calls=calls)


def decide(shop: Shop, key: str, value: Any, state: str = "approved") -> int:
    """Decide a record again; what stood is superseded."""
    record = shop.store.records.by_key(shop.project_id, key)
    assert record is not None
    before = shop.store.db.value(
        "SELECT id FROM annotations WHERE record_id = ? AND superseded_by IS NULL", [record.id]
    )
    return shop.approve(key, "", value, state=state, supersedes=before)


def test_an_export_is_found_by_its_name_or_its_number(shop: Shop, tmp_path: Path) -> None:
    made = export(shop, tmp_path / "a", "first cut")
    assert shop.store.exports.named(shop.project_id, "first cut")["id"] == made.id
    assert shop.store.exports.named(shop.project_id, str(made.id))["name"] == "first cut"
    assert made.manifest["name"] == "first cut"
    with pytest.raises(NotFound, match="no export 'second'"):
        shop.store.exports.named(shop.project_id, "second")


def test_a_name_is_given_once(shop: Shop, tmp_path: Path) -> None:
    """A second export of the name is refused before anything is written; a mere number is no name."""
    export(shop, tmp_path / "a", "first")
    with pytest.raises(Conflict, match="is called 'first' already"):
        export(shop, tmp_path / "b", "first")
    with pytest.raises(InputError, match="add a letter"):
        export(shop, tmp_path / "b", "12")
    assert not (tmp_path / "b").exists()


def test_two_exports_are_compared_row_by_row(shop: Shop, tmp_path: Path) -> None:
    """What was added, dropped, changed and moved, with the keys; the same export has no differences."""
    first = export(shop, tmp_path / "a", shares=Shares(0.5, 0.25, 0.25))
    decide(shop, "k1", "neutral")
    decide(shop, "k2", None, "rejected")
    shop.approve("k9", "새로 산 상품이에요", "neutral")
    second = export(shop, tmp_path / "b", new_splits=True)
    assert first.id is not None and second.id is not None
    between = {kind: shop.store.exports.differences(first.id, second.id, kind, 100) for kind in KINDS}
    held = {row["id"] for row in rows(first, "records.jsonl") if row["split"] != "train"}
    assert {kind: [row["key"] for row in found] for kind, (_, found) in between.items()} == {
        "added": ["k9"], "dropped": ["k2"], "changed": ["k1"], "moved": sorted(held - {"k2"})
    }  # fmt: skip
    assert all(count == len(found) for count, found in between.values())
    assert shop.store.exports.differences(first.id, second.id, "moved", 1)[0] == len(held - {"k2"})
    assert [shop.store.exports.differences(first.id, first.id, kind, 9) for kind in KINDS] == [(0, [])] * 4


@pytest.mark.parametrize(
    "how", [{}, {"examples": 3}, {"examples": 2, "earlier": True, "names": "ko"}, {"answers": "plain"}]
)
def test_an_export_is_made_again_byte_for_byte(shop: Shop, tmp_path: Path, how: dict[str, Any]) -> None:
    """After other decisions, other guidelines, other labels' titles and more records; the manifest too."""
    for n in range(12):
        shop.approve(f"m{n}", f"{n}번 써 보고 적어요 {n}", "positive" if n % 2 else "negative")
    made = export(shop, tmp_path / "a", "kept", shares=Shares(0.6, 0.2, 0.2), **how)
    decide(shop, "k1", "neutral")
    decide(shop, "k3", None, "rejected")
    shop.approve("k9", "새로 산 상품이에요", "neutral")
    shop.set(guidelines={"ko": "이제는 다르게 판단합니다."}, persona={"ko": "당신은 다른 사람입니다."}, k=1)
    result, differ = again(shop, "kept", tmp_path / "b")
    assert differ == []
    assert {path.name for path in result.files} == {path.name for path in made.files}
    for path in made.files:
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes(), path.name


def test_tables_and_joint_answers_are_made_again_too(shop: Shop, tmp_path: Path) -> None:
    emotions = [label.name for label in shop.task("emotion").schema.labels[:2]]
    shop.approve("k1", "", emotions[:1], "emotion")
    made = [
        export(shop, tmp_path / "csv", "table", "csv"),
        export(shop, tmp_path / "joint", "joint", joint=("emotion",)),
    ]
    shop.approve("k1", "", emotions[1:], "emotion")
    decide(shop, "k1", "neutral")
    for one in made:
        result, differ = again(shop, one.manifest["name"], tmp_path / f"{one.folder.name}-again")
        assert differ == [] and len(result.files) == len(one.files)


def suggest(shop: Shop, key: str, value: Any, failure: ParseFailure | None = None, kind: str = "") -> int:
    record = shop.store.records.by_key(shop.project_id, key)
    assert record is not None
    version = shop.task().version
    made = Suggestion(record.id, "sentiment", version, "nearest", None, value, failure, kind=kind)
    return shop.store.write(lambda tx: shop.store.suggestions.add(tx, shop.project_id, made))


def judge(shop: Shop, key: str, suggested: Any, value: Any, **more: Any) -> None:
    """Let a person decide on a new record that something was suggested for."""
    shop.record(key, f"{key}번 써 보고 적어요 {key}")
    how = "accepted" if suggested == value else "corrected"
    shop.approve(key, "", value, **{"how": how, "suggestion_id": suggest(shop, key, suggested)} | more)


def rank(shop: Shop, key: str, order: list[str], who: str = "kim", none_good: bool = False) -> int:
    """Let a person put the answers of two models in order, best first; return the number of the ranking."""
    store, record = shop.store, shop.store.records.by_key(shop.project_id, key)
    row = store.people.named(who)
    person = row["id"] if row else store.write(lambda tx: store.people.create(tx, who, None, "reviewer"))
    assert record is not None
    room = Comparing(store, shop.project_id, shop.task(), {"blind_share": 0.0})
    made = [str(suggest(shop, key, value, kind=value)) for value in order]
    tiers = [made] if none_good else [[name] for name in made]
    return room.rank(person, record.id, tiers, os.urandom(8).hex(), none_good=none_good)


def preferences(shop: Shop) -> None:
    """Corrections, an accepted suggestion, a blind decision, a rejection, an unreadable answer, and rankings."""
    for n in range(12):
        judge(shop, f"m{n}", "negative", "positive" if n % 2 else "neutral")
    judge(shop, "same", "positive", "positive")
    judge(shop, "blind", "negative", "neutral", blind=1, suggestion_id=None, how="scratch")
    judge(shop, "gone", "negative", None, state="rejected", how="scratch")
    shop.record("raw", "읽을 수 없는 답이 온 후기")
    unread = suggest(shop, "raw", None, ParseFailure("not_json", "Not JSON", "Negative, I think"))
    shop.approve("raw", "", "positive", how="corrected", suggestion_id=unread)
    for key in ("first", "second", "none"):
        shop.record(key, f"{key} 후기를 남겨요")
        rank(shop, key, ["positive", "neutral"], none_good=key == "none")


@pytest.mark.parametrize("format_name", ["dpo", "kto", "llamafactory-dpo"])
@pytest.mark.parametrize("how", [{}, {"examples": 2, "failures": True, "keep_same_form": True}])
def test_a_preference_set_is_made_again_byte_for_byte(
    shop: Shop, tmp_path: Path, format_name: str, how: dict[str, Any]
) -> None:
    """After other decisions, rejections and rankings, newer suggestions, and labels that are called otherwise."""
    preferences(shop)
    made = export(shop, tmp_path / "a", "kept", format_name, shares=Shares(0.6, 0.2, 0.2), **how)
    decide(shop, "m1", "neutral")
    decide(shop, "m2", None, "rejected")
    decide(shop, "gone", "positive")
    suggest(shop, "blind", "positive")
    suggest(shop, "same", "neutral")
    rank(shop, "first", ["neutral", "positive"])
    taken_back = rank(shop, "second", ["neutral", "positive"], "lee")
    shop.store.write(lambda tx: shop.store.rankings.withdraw(tx, taken_back))
    first = shop.store.rankings.last_of(shop.project_id, "sentiment", 1)
    assert first is not None
    shop.store.write(lambda tx: shop.store.rankings.withdraw(tx, first["id"]))
    record = shop.store.records.by_key(shop.project_id, "second")
    assert record is not None
    shop.store.write(lambda tx: shop.store.work.decided(tx, record.id, "sentiment", "rejected", 1))
    judge(shop, "late", "negative", "positive")
    settings = {"labels": [{"name": "good"}, {"name": "neutral"}, {"name": "bad"}], "k": 1}
    renamed = Answers(renamed={"positive": "good", "negative": "bad"})
    shop.instance.change_task(shop.project_id, "sentiment", settings, answers=renamed)
    result, differ = again(shop, "kept", tmp_path / "b")
    assert differ == []
    assert {path.name for path in result.files} == {path.name for path in made.files}
    for path in made.files:
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(made.manifest["sources"]) == (5 if format_name == "kto" else 3)


def test_a_ranking_whose_record_is_gone_is_missing_and_named(shop: Shop, tmp_path: Path) -> None:
    """With all its records an export is gone, too."""
    preferences(shop)
    export(shop, tmp_path / "a", "kept", "dpo")
    record = shop.store.records.by_key(shop.project_id, "first")
    assert record is not None
    shop.store.write(lambda tx: shop.store.removal.remove(tx, shop.project_id, [record.id]))
    assert again(shop, "kept", tmp_path / "b")[1] == ["records.jsonl", "train.jsonl"]
    ids = [row["id"] for row in shop.store.db.all("SELECT id FROM records")]
    shop.store.write(lambda tx: shop.store.removal.remove(tx, shop.project_id, ids))
    with pytest.raises(InputError, match="were all removed"):
        again(shop, "kept", tmp_path / "c")


def test_suggestions_are_not_made_again(shop: Shop, tmp_path: Path) -> None:
    suggest(shop, "k1", "positive")
    export(shop, tmp_path / "a", "kept", "suggestions")
    with pytest.raises(InputError, match="change with every run"):
        again(shop, "kept", tmp_path / "b")


def test_files_that_come_out_otherwise_are_named(shop: Shop, tmp_path: Path) -> None:
    """A record that was removed cannot come back; its files differ, and the manifest says that they were made again."""
    export(shop, tmp_path / "a", "kept")
    shop.store.write(lambda tx: tx.run("UPDATE records SET text = '다른 글' WHERE key = 'k1'"))
    result, differ = again(shop, "kept", tmp_path / "b")
    assert differ == ["records.jsonl", "train.jsonl"]
    assert result.manifest["again"] == shop.store.exports.named(shop.project_id, "kept")["id"]


def test_what_was_decided_since_is_known_of_each_export(shop: Shop, tmp_path: Path) -> None:
    """A withdrawn label shows in which exports it stands, and an export which of its labels hold no more."""
    made = export(shop, tmp_path / "a", "kept")
    record = shop.store.records.by_key(shop.project_id, "k1")
    assert made.id is not None and record is not None
    decide(shop, "k1", None, "rejected")
    assert [(row["name"], row["split"]) for row in shop.store.exports.of_record(record.id, "sentiment")] == [
        ("kept", "train")
    ]
    count, outdated = shop.store.exports.outdated(made.id, 10)
    assert (count, [(row["key"], row["state"]) for row in outdated]) == (1, [("k1", "rejected")])
