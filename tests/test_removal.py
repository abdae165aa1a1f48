"""Taking back: what goes with a record, an import, a project or a person's data, what stays, and that all is sound."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.testing import FlaskClient
from searching import search
from test_web_access import enter, token_of

from labeler import accounts, removal, strictjson
from labeler.annotation.decisions import Decision
from labeler.cli import cli
from labeler.doctor import examine
from labeler.errors import Conflict, InputError, NotFound
from labeler.export import built_in, export_task
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.records import ParseFailure, Suggestion
from labeler.removal import IMPORT, PROJECT, RECORD, Target, person
from labeler.sentence import Sentence
from labeler.worker import Worker

FIRST = [
    ("r1", "사과가 아삭하고 달아서 아이들이 좋아해요", "사과", {"mail": "kim@example.com"}),
    ("r2", "배송이 늦고 상자가 찢어져 왔어요 kim@example.com", "사과", {}),
    ("r3", "가격은 보통이고 맛도 보통이에요", "배", {}),
    ("r4", "포장이 꼼꼼해서 하나도 안 깨졌네요", "배", {"phone": "010-1234-5678"}),
    ("r5", "고기에서 냄새가 나서 다 버렸습니다", None, {}),
    ("r6", "사과가 아삭하고 달아서 아이들이 좋아해요!!", None, {}),
    ("r7", "고기에서 냄새가 나서 다 버렸습니다", "배", {}),
]
SECOND = [
    ("s1", "유통기한이 하루 남은 걸 보내셨네요", "사과", {}),
    ("s2", "사과가 아삭하고 달아서 아이들이 좋아해요~", None, {}),
    ("s3", "가격은 보통이고 맛도 보통이에요", "감", {}),
]


class Shop:
    """A project with two imports, people, decisions, and a task on products beside one on reviews."""

    def __init__(self, instance: Instance) -> None:
        self.instance, self.store = instance, instance.store
        self.kim = accounts.add_reviewer(self.store, "kim", None, accounts.ADMIN)
        self.lee = accounts.add_reviewer(self.store, "lee", None)
        self.id = instance.create_project("shop", "ko", {"tasks": ["sentiment", "keywords", "summary_polarity"]})
        instance.change_task(self.id, "summary_polarity", {"unit": "group"})
        self.first, self.second = self.bring("first.jsonl", FIRST), self.bring("second.jsonl", SECOND)

    @property
    def project(self) -> dict[str, Any]:
        return self.store.projects.get(self.id)

    def bring(self, name: str, rows: list[tuple[str, str, str | None, dict[str, Any]]], **options: Any) -> int:
        path = self.instance.folder / name
        lines = [strictjson.dumps({"id": k, "text": t, "group": g, **more}) for k, t, g, more in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        chosen = ImportOptions(text="text", id="id", group="group", **options)
        self.instance.importer(self.project).run(path, chosen)
        return int(self.store.records.imports(self.id)[0]["id"])

    def record(self, key: str) -> int:
        found = self.store.records.by_key(self.id, key)
        assert found is not None, key
        return found.id

    @property
    def keys(self) -> set[str]:
        return {row["key"] for row in self.store.db.all("SELECT key FROM records WHERE kind = 'review'")}

    def decide(self, key: str, value: Any = "positive", task: str = "sentiment", **more: Any) -> None:
        record, name = self.record(key), f"request {key} {task} {random.random()}"
        row = self.store.work.get(record, task)
        assert row is not None
        decision = Decision(record, "approve", name, row["version"], value, **more)
        self.decisions(task).decide(self.kim, decision)

    def decisions(self, task: str = "sentiment") -> Any:
        return self.instance.decisions(self.project, self.task(task))

    def task(self, name: str) -> Any:
        return self.instance.task_of(self.project, name)

    def remove(self, target: Target, seen: int | None = None) -> removal.Preview:
        seen = removal.preview(self.store, target).decisions if seen is None else seen
        return removal.remove(self.instance, target, seen, self.kim)

    def assert_sound(self) -> None:
        """The deep look of the doctor finds nothing, nor does SQLite among the references."""
        assert [finding.text for finding in examine(self.instance.folder, deep=True) if not finding.good] == []
        assert self.store.db.all("PRAGMA foreign_key_check") == []


@pytest.fixture
def shop(instance: Instance) -> Shop:
    return Shop(instance)


def test_a_removed_record_leaves_nothing_behind(shop: Shop) -> None:
    """With a record goes all that hangs on it; an event says so, without its text."""
    shop.decide("r1")
    shop.decide("r3", "neutral")
    record = shop.record("r1")
    ids = runs.select(shop.store, shop.id, "sentiment", None, False)
    runs.start(shop.store, shop.id, "sentiment", [*ids, record], {"backend": "nearest"}, None, shop.kim)
    Worker(shop.instance).run_until_idle()
    shop.instance.notes(shop.project, shop.task("sentiment")).write(shop.kim, record, "맞나요?", "request one")
    room = shop.instance.queue(shop.project, shop.task("keywords"))
    room.touch(shop.kim, record, room.open(shop.kim, record, "page").token, draft={"value": []})
    gone = shop.remove(Target(RECORD, shop.id, record))
    assert (gone.records, gone.decisions) == (1, 1)
    tables = ("work", "annotations", "suggestions", "embeddings", "claims", "skips", "run_items", "splits", "notes")
    for table in (*tables, "drafts"):
        assert shop.store.db.value(f"SELECT COUNT(*) FROM {table} WHERE record_id = ?", [record]) == 0, table
    assert "r1" not in {row["key"] for row in search(shop.store, shop.id, "사과가")}
    event = shop.store.events.last(shop.id)[0]
    assert event["kind"] == "record removed" and event["reviewer_id"] == shop.kim
    assert strictjson.loads(event["detail"]) == {"number": record, "records": 1, "decisions": 1, "labels": 0}
    shop.assert_sound()


def test_the_preview_names_what_goes_and_what_is_out_of_reach(shop: Shop, tmp_path: Path) -> None:
    """Decisions by key, copies, products, who has it open, and the exports whose files hold it."""
    shop.decide("r5", "negative")
    task = shop.task("sentiment")
    export_task(shop.store, shop.project, task, "csv", tmp_path / "out", formats=built_in())
    found = removal.preview(shop.store, Target(RECORD, shop.id, shop.record("r5")))
    (going,) = found.parts.values()
    assert going.decided == [("r5", "sentiment", "approved")] and going.copies == 1
    assert going.held_by == []
    assert going.exports == [(1, "sentiment", str(tmp_path / "out"))]
    shop.instance.queue(shop.project, shop.task("sentiment")).open(shop.lee, shop.record("r4"), "page")
    (going,) = removal.preview(shop.store, Target(RECORD, shop.id, shop.record("r4"))).parts.values()
    assert going.held_by == ["lee"] and going.decisions == 0
    assert {"r4", "r5"} <= shop.keys


def test_a_note_that_repeats_a_persons_words_is_named(shop: Shop) -> None:
    """It is on a record of others, and stays."""
    room = shop.instance.notes(shop.project, shop.task("sentiment"))
    room.write(shop.kim, shop.record("r3"), "kim@example.com 고객이 쓴 글인가요?", "request one")
    assert ("notes on other records", 1) in removal.preview(shop.store, person("kim@example.com")).elsewhere


def test_an_exact_copy_takes_the_place_of_its_original(shop: Shop) -> None:
    """The first copy is queued, without a label, and has its near-duplicates again."""
    copy = shop.record("r7")
    assert shop.store.work.get(copy, "sentiment") is None
    shop.decide("r5", "negative")
    shop.remove(Target(RECORD, shop.id, shop.record("r5")))
    assert shop.store.work.get(copy, "sentiment")["state"] == "pending"  # type: ignore[index]
    shop.assert_sound()


def test_near_duplicates_of_what_is_gone_find_each_other_again(shop: Shop) -> None:
    """The record that named a cluster goes, and the others are one cluster still; no index shows one for the other."""
    shop.decide("r6")
    index = shop.instance.index(shop.project, shop.task("sentiment"))
    assert len(index.entries()) == 1
    shop.remove(Target(RECORD, shop.id, shop.record("r1")))
    clusters = {key: shop.store.records.get(shop.record(key)).cluster for key in ("r6", "s2")}
    assert clusters == {"r6": shop.record("r6"), "s2": shop.record("r6")}
    assert index.excludes(shop.store.records.get(shop.record("s2")), [shop.record("r6")])
    shop.assert_sound()


def test_a_product_is_made_again_without_the_removed_review(shop: Shop) -> None:
    """Its text loses the review, and with it what was decided on the old text; one without reviews goes."""
    product = shop.record("group:사과")
    shop.decide("group:사과", {"good": "달다", "bad": ""}, "summary_polarity")
    found = removal.preview(shop.store, Target(RECORD, shop.id, shop.record("r2")))
    assert found.decisions == 1
    shop.remove(Target(RECORD, shop.id, shop.record("r2")))
    text = shop.store.records.get(product).text
    assert "찢어져" not in text and "아삭하고" in text
    assert shop.store.work.get(product, "summary_polarity")["state"] == "pending"  # type: ignore[index]
    shop.remove(Target(RECORD, shop.id, shop.record("s3")))
    assert shop.store.records.by_key(shop.id, "group:감") is None
    shop.assert_sound()


def test_an_import_is_taken_back_with_the_labels_it_gave_to_others(shop: Shop) -> None:
    """Its records go, what others added stays, and a label that it brought for a known record is withdrawn."""
    shop.decide("s1", "negative")
    rows = [("r3", FIRST[2][1], "배", {"감성": "긍정"}), ("t1", "새로 온 리뷰", None, {"감성": "부정"})]
    third = shop.bring("third.jsonl", rows, labels={"sentiment": "감성"})
    assert shop.store.work.get(shop.record("r3"), "sentiment")["state"] == "approved"  # type: ignore[index]
    found = removal.preview(shop.store, Target(IMPORT, shop.id, third))
    assert (found.records, found.decisions, found.given) == (1, 0, 1)
    shop.remove(Target(IMPORT, shop.id, third))
    assert shop.store.work.get(shop.record("r3"), "sentiment")["state"] == "pending"  # type: ignore[index]
    with pytest.raises(InputError, match="was removed before"):
        removal.preview(shop.store, Target(IMPORT, shop.id, third))
    before = shop.keys
    shop.remove(Target(IMPORT, shop.id, shop.second))
    assert shop.keys == before - {"s1", "s2", "s3"}
    assert shop.store.records.get_import(shop.id, shop.second)["state"] == "removed"
    shop.assert_sound()


def test_what_was_taken_back_can_be_imported_again(shop: Shop) -> None:
    """The same file goes in again, as new: no number of before comes back."""
    old = {shop.record(key) for key in ("s1", "s2", "s3")}
    shop.remove(Target(IMPORT, shop.id, shop.second))
    shop.bring("second.jsonl", SECOND)
    new = {shop.record(key) for key in ("s1", "s2", "s3")}
    assert min(new) > max(old)
    shop.assert_sound()


def test_a_decision_that_comes_between_look_and_removal_is_not_lost(shop: Shop) -> None:
    """Whoever removes saw fewer decisions than there are now: nothing is removed."""
    target = Target(IMPORT, shop.id, shop.second)
    seen = removal.preview(shop.store, target).decisions
    shop.decide("s1")
    with pytest.raises(Conflict, match="1 more records were decided meanwhile"):
        shop.remove(target, seen)
    assert "s1" in shop.keys


def test_who_has_the_record_open_is_told(shop: Shop) -> None:
    """A decision, forced or not, on a record that was removed meanwhile is refused with the reason, and kept open."""
    record = shop.record("r4")
    shop.remove(Target(RECORD, shop.id, record))
    for force in (False, True):
        with pytest.raises(Conflict, match="was removed meanwhile") as caught:
            shop.decisions().decide(shop.lee, Decision(record, "approve", "request 1", 0, "positive", force=force))
        assert caught.value.current["text_changed"]
    with pytest.raises(Conflict, match="was removed"):
        shop.instance.queue(shop.project, shop.task("sentiment")).open(shop.lee, record, "page")
    with pytest.raises(NotFound):
        shop.store.records.get(10_000)


def test_a_suggestion_for_what_was_removed_is_a_conflict(shop: Shop) -> None:
    """Whoever prepared something for a record that went meanwhile is told so, and nothing is stored."""
    record = shop.store.records.get(shop.record("r4"))
    shop.remove(Target(RECORD, shop.id, record.id))
    suggestion = Suggestion(record.id, "sentiment", "1", "nearest", None, "positive", None)
    with pytest.raises(Conflict, match="removed meanwhile"):
        shop.store.write(lambda tx: shop.store.suggestions.add(tx, shop.id, suggestion))


def test_nothing_is_removed_under_a_run_or_an_import_at_work(shop: Shop) -> None:
    """A record that a run asks about now, and an import that goes on, stand; what only waits in a run goes with it."""
    ids = list(runs.select(shop.store, shop.id, "sentiment", None, False))
    run = runs.start(shop.store, shop.id, "sentiment", ids, {"backend": "nearest"}, None, shop.kim)
    (leased,) = shop.store.write(lambda tx: shop.store.ledger.claim_items(tx, run, "token", 1, 60.0))
    with pytest.raises(Conflict, match=f"Run {run} is asking about these records now"):
        shop.remove(Target(RECORD, shop.id, leased))
    waiting = next(id_ for id_ in ids if id_ != leased)
    shop.remove(Target(RECORD, shop.id, waiting))
    assert shop.store.ledger.run(run)["total"] == len(ids) - 1
    shop.store.write(lambda tx: tx.run("UPDATE imports SET state = 'running' WHERE id = ?", [shop.second]))
    with pytest.raises(Conflict, match=f"Import {shop.second} is still going on"):
        shop.remove(Target(IMPORT, shop.id, shop.second))
    with pytest.raises(Conflict, match="still going on"):
        shop.remove(Target(PROJECT, shop.id))
    # Nobody has given a sign of life for minutes: a killed command left it.
    shop.store.write(lambda tx: tx.run("UPDATE imports SET alive_at = alive_at - 300 WHERE id = ?", [shop.second]))
    shop.store.write(lambda tx: tx.run("UPDATE run_items SET lease_until = 0"))
    shop.remove(Target(IMPORT, shop.id, shop.second))
    assert "s1" not in shop.keys


def test_an_answer_that_comes_late_keeps_its_cost_alone(shop: Shop) -> None:
    """The text of calls goes with the record and the cost stays; a late answer adds its cost, and no text."""
    record, ledger = shop.record("r5"), shop.store.ledger
    run = runs.start(shop.store, shop.id, "sentiment", [record], {"backend": "nearest"}, None, shop.kim)
    call = {"fingerprint": "f", "project_id": shop.id, "run_id": run, "record_id": record, "task": "sentiment",
            "backend": "openai", "model_id": "m"}  # fmt: skip
    answer = {"answer": "a secret", "finish": "stop", "score": None, "tokens_in": 1, "tokens_out": 1,
              "tokens_cached": 0, "cost": 0.5}  # fmt: skip
    begun = shop.store.write(lambda tx: ledger.begin_call(tx, call, "t", 60.0))
    shop.remove(Target(RECORD, shop.id, record))
    assert not shop.store.write(lambda tx: ledger.answer_call(tx, begun["id"], "t", answer, run))
    rows = [tuple(row) for row in shop.store.db.all("SELECT state, answer, cost FROM calls ORDER BY id")]
    assert rows == [("erased", None, None), ("erased", None, 0.5)]


def test_an_index_of_another_process_forgets_removed_examples(shop: Shop) -> None:
    """An example that was removed stands in no prompt, also where an index had read it, and the file is made anew."""
    shop.decide("r5", "negative")
    shop.decide("r3", "neutral")
    with Instance(shop.instance.folder) as other:
        index = other.index(shop.project, shop.task("sentiment"))
        assert len(index.entries()) == 2
        index.save()
        shop.remove(Target(RECORD, shop.id, shop.record("r5")))
        assert [entry.record_id for _, entry in index.entries()] == [shop.record("r3")]
        index.save()
    with Instance(shop.instance.folder) as again:
        entries = again.index(shop.project, shop.task("sentiment")).entries()
        assert [entry.record_id for _, entry in entries] == [shop.record("r3")]


def test_a_project_goes_with_all_there_is(shop: Shop) -> None:
    """No row of any table but the events names it, other projects stand, and its number is never given again."""
    shop.decide("r1")
    ids = runs.select(shop.store, shop.id, "sentiment", None, False)
    runs.start(shop.store, shop.id, "sentiment", ids, {"backend": "nearest"}, None, shop.kim)
    Worker(shop.instance).run_until_idle()
    shop.remove(Target(PROJECT, shop.id))
    tables = shop.store.db.all(
        """SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
           WHERE m.type = 'table' AND c.name = 'project_id' AND m.name <> 'events'"""
    )
    assert len(tables) > 10
    for row in tables:
        assert shop.store.db.value(f"SELECT COUNT(*) FROM {row['name']}") == 0, row["name"]
    for table in ("records", "work", "run_items", "projects", "record_search_docsize", "embeddings"):
        assert shop.store.db.value(f"SELECT COUNT(*) FROM {table}") == 0, table
    assert shop.store.events.last(shop.id)[0]["kind"] == "project removed"
    assert shop.instance.create_project("shop") > shop.id
    Worker(shop.instance).run_until_idle()
    shop.assert_sound()


def test_a_persons_data_is_found_everywhere_and_gone_from_the_files(shop: Shop) -> None:
    """Text, metadata and answers of models in all projects; not a byte of it stands in the database afterwards."""
    other = shop.instance.create_project("other", "en", {"tasks": ["sentiment"]})
    path = shop.instance.folder / "other.csv"
    path.write_text("text\nWrite to KIM@example.com\nNothing\n", encoding="utf-8")
    shop.instance.importer(shop.store.projects.get(other)).run(path, ImportOptions(text="text"))
    path.unlink()
    for name in ("first.jsonl", "second.jsonl"):
        (shop.instance.folder / name).unlink()
    shop.decide("r2", "negative")
    target = person("Kim@Example.com")
    found = removal.preview(shop.store, target)
    assert {id_: part.records for id_, part in found.parts.items()} == {shop.id: 2, other: 1}
    shop.remove(target)
    assert not removal.preview(shop.store, target).parts and not removal.preview(shop.store, target).elsewhere
    assert shop.keys >= {"r3", "r4", "s1"} and not shop.keys & {"r1", "r2"}
    files = b"".join(path.read_bytes() for path in shop.instance.folder.rglob("*") if path.is_file())
    assert b"kim@example.com" not in files.lower()
    shop.assert_sound()


@pytest.mark.parametrize("words", ["%", "_" * 5, "010-1234-5678", "없는 사람"])
def test_words_are_meant_literally(shop: Shop, words: str) -> None:
    """No character of a query is a wildcard, and one alone finds nothing by mistake."""
    if len(words) < 2:
        with pytest.raises(InputError, match="2 to 200 characters"):
            person(words)
    else:
        found = removal.preview(shop.store, person(words)).records
        assert found == (1 if words.startswith("010") else 0)


def test_other_places_of_a_persons_words_are_named(shop: Shop) -> None:
    """What no removal reaches, such as guidelines, is said."""
    shop.instance.change_task(shop.id, "sentiment", {"guidelines": {"ko": "kim@example.com에 물어보세요"}})
    found = removal.preview(shop.store, person("kim@example.com"))
    assert found.elsewhere == [("guidelines and settings of tasks", 1)]


def test_words_are_found_in_a_sentence_that_is_kept_within_json(shop: Shop) -> None:
    """Why an answer could not be read names what it said, quotes and all."""
    failure = ParseFailure("shape", Sentence("Expected a text, got %(got)s", got='Kim "the \\ buyer"'), "")
    one = Suggestion(shop.record("r1"), "sentiment", "1", "nearest", None, None, failure=failure)
    shop.store.write(lambda tx: shop.store.suggestions.add(tx, shop.id, one))
    found = removal.preview(shop.store, person('kim "the \\ buyer'))
    assert found.elsewhere == [("suggestions for other records", 1)]


def test_what_is_kept_of_a_project_and_a_large_import_says_what_goes(
    shop: Shop, page: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A project's numbers are those that a look at each record finds; of an import nothing goes beyond them."""
    shop.decide("s1", "negative")
    shop.decide("r1")
    product = shop.store.db.value("SELECT key FROM records WHERE kind = 'group' AND grp = '배'")
    shop.decide(product, {"good": "달다", "bad": ""}, "summary_polarity")
    third = shop.bring("third.jsonl", [("r3", FIRST[2][1], "배", {"감성": "긍정"}), ("t1", FIRST[4][1], None, {})],
                       labels={"sentiment": "감성"})  # fmt: skip
    ids = runs.select(shop.store, shop.id, "sentiment", None, False)
    runs.start(shop.store, shop.id, "sentiment", ids, {"backend": "nearest"}, None, shop.kim)
    Worker(shop.instance).run_until_idle()
    export_task(shop.store, shop.project, shop.task("sentiment"), "csv", tmp_path / "out", formats=built_in())
    room = shop.store.removal
    every = [row["id"] for row in shop.store.db.all("SELECT id FROM records WHERE project_id = ?", [shop.id])]
    (project,) = removal.preview(shop.store, Target(PROJECT, shop.id)).parts.values()
    assert project == room.going(shop.id, every) and project.suggestions and project.products and project.labels
    small = {number: removal.preview(shop.store, Target(IMPORT, shop.id, number)) for number in range(1, third + 1)}
    monkeypatch.setattr(removal, "_FEW", 0)
    for number, exact in small.items():
        large = removal.preview(shop.store, Target(IMPORT, shop.id, number))
        (most,), (going,) = large.parts.values(), exact.parts.values()
        assert (most.records, large.given) == (going.records, exact.given) and most.at_most
        for name in ("decisions", "labels", "suggestions", "calls", "products", "copies"):
            assert getattr(most, name) >= getattr(going, name), (number, name)
        assert set(most.exports) >= set(going.exports) and set(most.decided) <= set(going.decided)
        assert "최댓값" in page.get(f"/projects/{shop.id}/imports/{number}/remove").text
    assert small[third].given == 1
    said = command(shop, "remove", "import", str(third), "--project", "shop", "--dry-run").stdout
    assert "At most: products, copies and exports" in said
    gone = shop.remove(Target(IMPORT, shop.id, shop.second))
    assert gone.parts == small[shop.second].parts
    with pytest.raises(Conflict, match="1 more records were decided"):
        seen = removal.preview(shop.store, Target(IMPORT, shop.id, shop.first)).decisions
        shop.decide("r2")
        shop.remove(Target(IMPORT, shop.id, shop.first), seen)
    shop.assert_sound()


@pytest.mark.parametrize("seed", range(6))
def test_any_removal_leaves_a_sound_instance(shop: Shop, seed: int) -> None:
    """Whatever is decided, exported and removed, in whatever order, the doctor finds nothing afterwards."""
    rng = random.Random(seed)
    for step in range(12):
        keys = sorted(shop.keys)
        act = rng.choice(["decide", "remove", "import", "suggest"])
        if act == "decide" and keys:
            key = rng.choice(keys)
            if shop.store.work.get(shop.record(key), "sentiment"):
                shop.decide(key, rng.choice(["positive", "negative"]))
        elif act == "remove" and keys:
            shop.remove(Target(RECORD, shop.id, shop.record(rng.choice(keys))))
        elif act == "import":
            shop.bring(f"more{step}.jsonl", rng.sample(FIRST + SECOND, 4))
        elif act == "suggest":
            Worker(shop.instance).run_until_idle()
    shop.assert_sound()


def test_a_project_is_renamed_and_archived(shop: Shop, tmp_path: Path) -> None:
    """A taken name is refused; an archived project is exported, and neither imported into nor suggested for."""
    shop.instance.create_project("taken")
    with pytest.raises(InputError, match="already a project called 'taken'"):
        removal.rename(shop.store, shop.id, "taken")
    removal.rename(shop.store, shop.id, " 과일 가게 ", shop.kim)
    assert shop.project["name"] == "과일 가게"
    shop.decide("r1")
    ids = runs.select(shop.store, shop.id, "sentiment", None, False)
    run = runs.start(shop.store, shop.id, "sentiment", ids, {"backend": "nearest"}, None, shop.kim)
    removal.archive(shop.store, shop.id, True)
    assert shop.store.ledger.run(run)["state"] == "paused"
    with pytest.raises(Conflict, match="'과일 가게' is archived; bring it back first"):
        shop.instance.importer(shop.project)
    export_task(shop.store, shop.project, shop.task("sentiment"), "csv", tmp_path / "out", formats=built_in())
    removal.archive(shop.store, shop.id, False)
    assert shop.instance.importer(shop.project)


# By command


def command(shop: Shop, *words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, [*words, "--instance", str(shop.instance.folder)], input=stdin)


def test_a_dry_run_shows_and_removes_nothing(shop: Shop) -> None:
    """What was decided is listed by key before anything goes."""
    shop.decide("s1", "negative")
    shown = command(shop, "remove", "import", str(shop.second), "--project", "shop", "--dry-run")
    assert shown.exit_code == 0
    assert "3 records, 1 decisions of people" in shown.stdout
    assert "WARNING: decided: s1, sentiment: approved" in shown.stdout
    assert shown.stdout.endswith("Nothing was removed.\n") and "s1" in shop.keys


def test_a_removal_asks_first(shop: Shop) -> None:
    """Without --yes the answer no, or none, removes nothing."""
    for stdin, code in (("n\n", 1), ("", 1), ("y\n", 0)):
        said = command(shop, "remove", "record", "r4", "--project", "shop", stdin=stdin)
        assert said.exit_code == code, said.output
        assert ("r4" in shop.keys) == bool(code)
    assert "Removed 1 records and 0 decisions." in said.stdout and "Not reached: backups" in said.stdout
    missing = command(shop, "remove", "record", "r4", "--project", "shop", "--yes")
    assert missing.exit_code == 1 and "Error: The project 'shop' has no record 'r4'" in missing.stderr


def test_commands_remove_a_person_and_a_project_and_name_what_there_is(shop: Shop) -> None:
    """imports lists numbers; person looks through all projects; projects says what is archived."""
    assert (
        f"{shop.first}: first.jsonl, finished, 7 added, 0 labels"
        in command(shop, "imports", "--project", "shop").stdout
    )
    assert "Removed 2 records" in command(shop, "remove", "person", "kim@example.com", "--yes").stdout
    assert "No record holds these words." in command(shop, "remove", "person", "kim@example.com", "--yes").stdout
    assert command(shop, "rename", "shop", "가게").exit_code == 0
    assert command(shop, "archive", "가게").exit_code == 0
    assert "가게 (archived): " in command(shop, "projects").stdout
    refused = command(shop, "prelabel", "--project", "가게", "--task", "sentiment")
    assert refused.exit_code == 1 and "is archived; bring it back first" in refused.stderr
    assert command(shop, "archive", "가게", "--undo").exit_code == 0
    assert command(shop, "remove", "project", "가게", "--yes").exit_code == 0
    assert command(shop, "projects").stdout == ""


# On the page


@pytest.fixture
def page(app: Flask, shop: Shop) -> FlaskClient:
    client = app.test_client()
    enter(client, app, shop.kim)
    return client


def post(client: FlaskClient, path: str, **fields: Any) -> Any:
    return client.post(path, data={"csrf_token": token_of(client, "/account"), **fields})


def test_the_page_shows_what_goes_and_removes_it(page: FlaskClient, shop: Shop) -> None:
    """From the search to the record and away; a form that says nothing of what was seen removes nothing."""
    path = f"/projects/{shop.id}/records/{shop.record('r4')}/remove"
    assert path in page.get(f"/projects/{shop.id}/records?q=꼼꼼해서").text
    assert "r4" in page.get(path).text
    assert post(page, path).status_code == 400 and "r4" in shop.keys
    gone = post(page, path, seen="0")
    assert (gone.status_code, gone.location) == (303, f"/projects/{shop.id}/records")
    assert "r4" not in shop.keys and page.get(path).status_code == 409


def test_the_page_takes_an_import_back(page: FlaskClient, shop: Shop) -> None:
    """What was decided is listed; one more decision since the look stops it."""
    shop.decide("s1", "negative")
    path = f"/projects/{shop.id}/imports/{shop.second}/remove"
    assert "s1 · 긍정·부정" in page.get(path).text
    assert post(page, path, seen="0").status_code == 409
    assert post(page, path, seen="1").status_code == 303 and "s1" not in shop.keys
    assert path not in page.get(f"/projects/{shop.id}/imports/{shop.second}").text


def test_the_page_archives_renames_and_removes_a_project(page: FlaskClient, shop: Shop) -> None:
    """An archived project takes no change; removal wants the name typed."""
    here = f"/projects/{shop.id}"
    assert post(page, f"{here}/rename", name="가게").status_code == 303
    assert post(page, f"{here}/archive", archived="1").status_code == 303
    assert post(page, f"{here}/runs", task="sentiment").status_code == 409
    opened = page.post(f"{here}/label/sentiment/api/next", json={}, headers={"X-CSRFToken": token_of(page, "/account")})
    assert opened.status_code == 409
    assert "가게" in page.get("/").text and post(page, f"{here}/archive").status_code == 303
    assert post(page, f"{here}/remove", name="shop", seen="0").status_code == 400
    assert post(page, f"{here}/remove", name="가게", seen="0").status_code == 303
    assert page.get(here).status_code == 404
    acts = page.get("/people/acts").text
    assert all(f"프로젝트 {act}" in acts for act in ("이름 변경", "보관", "보관 해제", "삭제"))
    assert ">project " not in acts


def test_the_page_finds_and_erases_a_person(page: FlaskClient, shop: Shop) -> None:
    """Found first, erased then; the words stand in no address."""
    found = post(page, "/person", words="kim@example.com")
    assert found.status_code == 200 and "shop" in found.text
    assert post(page, "/person", words="k").status_code == 400
    assert post(page, "/person", words="kim@example.com", seen="0").status_code == 200
    assert not shop.keys & {"r1", "r2"}
