"""Notes on records, drafts on the server, and what a person is told after a blind decision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SENTIMENT, World
from test_desk import Shop, open_shop, shop  # noqa: F401

from labeler import accounts
from labeler.annotation.notes import Notes
from labeler.annotation.query import parse
from labeler.annotation.table import RecordTable
from labeler.errors import Conflict, InputError, NotFound
from labeler.labels import Moves
from labeler.store.audit import audit


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Kim, Lee and Park are members of the project; an admin of the instance is not."""
    made = World(tmp_path, people=("kim", "lee", "park"))
    made.store.write(lambda tx: made.store.people.create(tx, "admin", None, "admin"))
    for person in made.people:
        made.store.write(lambda tx, who=person: made.store.projects.add_member(tx, made.project_id, who, "reviewer"))
    yield made
    made.store.close()


def room(world: World) -> Notes:
    return Notes(world.store, world.project_id, SENTIMENT)


def write(world: World, text: str = "비꼬는 말인가요?", record: int = 0, who: int = 0, **more: Any) -> int:
    """Let somebody write a note on the record of this place; who by their place among the people."""
    key = more.pop("key", f"request {text} {record} {who}")
    return room(world).write(world.people[who], world.records[record], text, key, **more)


def waits_for(world: World, who: int | None) -> list[str]:
    """The newest notes of the threads that wait for a person, or for whoever adjudicates."""
    to = None if who is None else world.people[who]
    found = [row["text"] for row in world.store.notes.of_person(world.project_id, to, 10)]
    assert world.store.notes.waiting(world.project_id, to) == len(found)
    return found


# Threads


def test_a_flag_waits_for_whoever_adjudicates_and_a_question_for_one_person(world: World) -> None:
    write(world, "무슨 말인지 모르겠어요")
    write(world, "이거 긍정 맞죠?", to=world.people[1])
    assert waits_for(world, None) == ["무슨 말인지 모르겠어요"]
    assert waits_for(world, 1) == ["이거 긍정 맞죠?"] and waits_for(world, 0) == waits_for(world, 2) == []


def test_an_answer_waits_for_whoever_asked_and_what_they_add_for_the_other_side(world: World) -> None:
    thread = write(world, "이거 긍정 맞죠?", to=world.people[1])
    write(world, "네, 긍정이에요", who=1, thread=thread)
    assert waits_for(world, 0) == ["네, 긍정이에요"] and waits_for(world, 1) == []
    write(world, "그래도 값은 비싸대요", thread=thread)
    assert waits_for(world, 1) == ["그래도 값은 비싸대요"] and waits_for(world, 0) == []
    said = [row["text"] for row in world.store.notes.of_records("sentiment", [world.records[0]])]
    assert said == ["이거 긍정 맞죠?", "네, 긍정이에요", "그래도 값은 비싸대요"]
    assert audit(world.store) == []


def test_a_closed_thread_waits_for_nobody_and_takes_no_answer(world: World) -> None:
    """To close it twice is to close it once, and one event says so."""
    thread = write(world)
    for _ in range(2):
        room(world).close(world.kim, world.records[0], thread)
    assert waits_for(world, None) == [] and world.store.notes.of_records("sentiment", world.records) == []
    with pytest.raises(Conflict, match="closed meanwhile"):
        write(world, "아직 모르겠어요", thread=thread)
    assert [event["kind"] for event in world.store.events.of_record(world.records[0])] == ["noted", "note closed"]


def test_whoever_has_no_part_in_a_thread_cannot_close_it_unless_they_adjudicate(world: World) -> None:
    thread, record = write(world, to=world.people[1]), world.records[0]
    with pytest.raises(InputError, match="closed by who wrote it"):
        room(world).close(world.people[2], record, thread)
    room(world).close(world.people[2], record, thread, adjudicates=True)
    assert waits_for(world, 1) == []


def test_a_note_that_is_sent_twice_is_kept_once(world: World) -> None:
    """The key of a note is good for nothing else."""
    assert write(world, key="request one") == write(world, key="request one")
    assert len(waits_for(world, None)) == 1
    with pytest.raises(InputError, match="used for another note"):
        write(world, record=1, key="request one")


def test_a_flag_decides_nothing_and_leaves_the_record_in_the_queue(world: World) -> None:
    write(world, record=0)
    assert world.state(world.records[0]) == "pending"
    opened = world.queue().next(world.people[1])
    assert opened is not None and opened.record.id == world.records[0]


@pytest.mark.parametrize("text", ["", "  \n ", "\u200b\u3164", "가" * 1001])
def test_a_note_that_says_nothing_or_too_much_is_refused(world: World, text: str) -> None:
    with pytest.raises(InputError, match="1 to 1000 characters"):
        write(world, text, key="request one")


def test_only_another_member_who_can_sign_in_is_asked(world: World) -> None:
    stranger = world.store.write(lambda tx: world.store.people.create(tx, "stranger", None, "reviewer"))
    accounts.change_account(world.store, world.people[2], None, disabled=True)
    for to in (stranger, world.kim, world.people[2], 999):
        with pytest.raises(InputError, match="Only another member"):
            write(world, to=to)


def test_a_record_that_is_not_in_the_queue_takes_no_note(world: World) -> None:
    (copy,) = world.add([world.store.records.get(world.records[0]).text])
    with pytest.raises(NotFound, match="not in the queue"):
        room(world).write(world.kim, copy, "같은 글이에요", "request one")
    with pytest.raises(NotFound, match="no note number 5"):
        write(world, thread=5)


@pytest.mark.parametrize("how", ["closed", "removed"])
def test_what_waits_for_somebody_who_leaves_waits_for_whoever_adjudicates(world: World, how: str) -> None:
    """Also an answer that comes for them later."""
    write(world, "이거 긍정 맞죠?", to=world.people[1])
    mine = write(world, "저는 부정 같아요", record=1, who=1)
    if how == "closed":
        accounts.change_account(world.store, world.people[1], None, disabled=True)
    else:
        accounts.set_member(world.store, world.project_id, world.people[1], None, None)
    assert waits_for(world, 1) == [] and "이거 긍정 맞죠?" in waits_for(world, None)
    write(world, "맞아요", record=1, thread=mine)
    assert "맞아요" in waits_for(world, None)


def test_the_doctor_finds_a_thread_that_is_open_twice(world: World) -> None:
    thread = write(world)
    write(world, "보태자면", thread=thread)
    world.store.write(lambda tx: tx.run("UPDATE notes SET open = 1"))
    assert audit(world.store) == ["Note 1 is open, and a newer one of its thread stands after it"]


def test_what_waits_is_found_by_an_index(world: World) -> None:
    """However many notes there were: SQLite looks nothing up by reading all of them."""
    plans = [
        "SELECT 1 FROM notes n WHERE n.open = 1 AND n.to_id IS NULL AND n.project_id = 1",
        "SELECT 1 FROM notes n WHERE n.open = 1 AND n.to_id = 2 AND n.project_id = 1",
        "SELECT 1 FROM notes n WHERE n.open = 1 AND n.to_id IS NULL AND n.project_id = 1 AND n.task = 'x'",
        "SELECT 1 FROM notes n WHERE n.open = 1 AND n.project_id = 1 ORDER BY n.id",
        "SELECT 1 FROM notes n WHERE n.record_id = 3 AND n.task = 'x' AND n.open = 1",
    ]
    for sql in plans:
        (step,) = world.store.db.all(f"EXPLAIN QUERY PLAN {sql}")
        assert "SEARCH" in step["detail"] and "notes_" in step["detail"], sql


# The table of records


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("flagged:yes", [2, 0]),
        ("검토요청:예", [2, 0]),
        ("flagged:no state:pending", [11, 10, 9, 8, 7, 6, 5, 4, 3, 1]),
        ("-flagged:yes asked:lee", [1]),
        ("asked:lee", [2, 1]),
        ("질문:lee,kim", [3, 2, 1]),
        ("-asked:lee flagged:yes", [0]),
        ("asked:nobody", []),
    ],
)
def test_records_are_found_by_whom_their_open_notes_wait_for(world: World, query: str, places: list[int]) -> None:
    lee = world.people[1]
    write(world, "하나", record=0)
    write(world, "둘", record=1, to=lee)
    write(world, "셋", record=2)
    write(world, "넷", record=2, to=lee)
    write(world, "다섯", record=3, who=1, to=world.kim)
    over = write(world, "여섯", record=4)
    room(world).close(world.kim, world.records[4], over)
    table = RecordTable(world.store, world.project_id, SENTIMENT, parse(query))
    assert [world.records.index(row["id"]) for row in table.page(50).rows] == places
    assert table.count().of.get("flagged", {}).get("yes", 0) == len({0, 2} & set(places))
    assert table.count().of.get("asked", {}).get("lee", 0) == len({1, 2} & set(places))


# At the desk


def test_the_open_notes_of_a_record_come_with_it(shop: Shop) -> None:  # noqa: F811
    """Escaped, with who wrote them to whom; who has no part in a thread has no button to close it."""
    kim, lee = shop.seat(), shop.seat(who=1)
    record_id, asked = kim.next()["record_id"], shop.people[1]
    answer = kim.post("note", record_id=record_id, text="<b>맞죠?</b>", to=asked, request_key="request one").json
    assert "&lt;b&gt;맞죠?&lt;/b&gt;" in answer["html"] and "→ lee" in answer["html"]
    assert answer["waiting"] == {"questions": 0, "flags": 0}
    opened = lee.open(record_id)
    assert "맞죠?" in opened["html"] and 'data-note="close"' in opened["html"]
    assert lee.client.get(lee.path("counts")).json["questions"] == 1
    page = lee.client.get(f"/projects/{shop.project}/notes").get_data(as_text=True)
    assert "&lt;b&gt;맞죠?&lt;/b&gt;" in page and f"record={record_id}" in page
    answer = lee.post("close-note", record_id=record_id, thread=1).json
    assert "맞죠?" not in answer["html"] and answer["waiting"]["questions"] == 0
    flag = kim.post("note", record_id=record_id, text="모르겠어요", request_key="request two").json["html"]
    assert 'data-note="close"' in flag and 'data-note="close"' not in lee.open(record_id)["html"]


def test_only_an_admin_sees_all_notes_of_a_project(shop: Shop) -> None:  # noqa: F811
    seat = shop.seat(who=1)
    assert seat.client.get(f"/projects/{shop.project}/notes?of=project").status_code == 403
    record_id = seat.next()["record_id"]
    seat.post("note", record_id=record_id, text="모르겠어요", request_key="request one")
    accounts.change_account(shop.instance.store, shop.people[0], None, role="admin")
    admin = shop.seat()
    assert admin.client.get(admin.path("counts")).json["flags"] == 1
    assert "모르겠어요" in admin.client.get(f"/projects/{shop.project}/notes?of=project").get_data(as_text=True)
    overview = admin.client.get(f"/projects/{shop.project}").get_data(as_text=True)
    assert "1 open notes wait for you" in overview


@pytest.mark.parametrize("wrong", [{"to": "lee"}, {"to": 999}, {"thread": -1}, {"record_id": None}, {"text": 3}])
def test_a_note_with_anything_strange_in_it_is_refused(shop: Shop, wrong: dict[str, Any]) -> None:  # noqa: F811
    seat = shop.seat()
    body = {"record_id": seat.next()["record_id"], "text": "맞죠?", "request_key": "request one"} | wrong
    assert seat.post("note", **body).status_code == 400


# Drafts


def test_a_draft_comes_back_to_its_person_until_somebody_decides(shop: Shop) -> None:  # noqa: F811
    """Another browser of the person goes on with it; another person does not see it, and a skip does not lose it."""
    kim, lee = shop.seat(), shop.seat(who=1)
    opened = kim.next(page="first page")
    place = {"record_id": opened["record_id"], "token": opened["token"], "version": 0}
    for value in ("negative", None, "neutral"):
        assert kim.post("touch", **place, draft={"value": value}).json["touched"]
        again = shop.seat().post("open", record_id=opened["record_id"], page="second page").json
        assert again["kept"] == {"value": value}
    assert lee.open(opened["record_id"])["kept"] is None
    kim.post("skip", record_id=opened["record_id"])
    assert kim.open(opened["record_id"])["kept"] == {"value": "neutral"}
    kim.decide(again, "negative")
    assert shop.instance.store.db.all("SELECT * FROM drafts") == []
    assert kim.open(opened["record_id"])["kept"] is None


def test_a_draft_of_somebody_who_was_overtaken_is_not_kept(shop: Shop) -> None:  # noqa: F811
    kim, lee = shop.seat(), shop.seat(who=1)
    opened = kim.next()
    shop.instance.store.write(lambda tx: tx.run("DELETE FROM claims"))
    lee.decide(lee.open(opened["record_id"]), "positive")
    draft = {"record_id": opened["record_id"], "token": opened["token"], "version": 0, "draft": {"value": "neutral"}}
    assert kim.post("touch", **draft).status_code == 409
    assert shop.instance.store.db.all("SELECT * FROM drafts") == []


def test_a_draft_is_given_back_in_the_labels_of_today(shop: Shop) -> None:  # noqa: F811
    """Renamed it has the new name; a label that is gone leaves nothing to go on with."""
    seat = shop.seat()
    opened = seat.next()
    place = {"record_id": opened["record_id"], "token": opened["token"], "version": 0}
    seat.post("touch", **place, draft={"value": "negative"})
    project = shop.instance.store.projects.get(shop.project)
    schema = shop.instance.task_of(project, "sentiment").schema
    labels = [label.to_json() for label in schema.labels if label.name != "negative"]
    for name, moves in (("bad", Moves({"negative": "bad"})), ("poor", Moves(reopened=("bad",)))):
        given = {"labels": [*labels, {"name": name}]}
        shop.instance.store.write(
            lambda tx, given=given, moves=moves: shop.instance.store.projects.set_task_settings(  # type: ignore[misc]
                tx, shop.project, "sentiment", given, None, moves
            )
        )
        kept = seat.open(opened["record_id"])["kept"]
        assert kept == ({"value": "bad"} if name == "bad" else None)


@pytest.mark.parametrize("draft", ["negative", {}, {"value": "x" * 100_001}])
def test_a_draft_of_the_wrong_shape_or_size_is_refused(shop: Shop, draft: Any) -> None:  # noqa: F811
    seat = shop.seat()
    opened = seat.next()
    place = {"record_id": opened["record_id"], "token": opened["token"], "version": 0}
    assert seat.post("touch", **place, draft=draft).status_code == 400


# Blind


def test_after_a_blind_decision_the_strip_says_what_was_suggested(open_shop: Any) -> None:  # noqa: F811
    """Who changes the decision then has seen it: that one is not blind, and only the first is measured."""
    made = open_shop(blind_share=1.0)
    seat = made.seat()
    record_id = seat.next()["record_id"]
    made.suggest(record_id, "negative", score=0.8312)
    answer = seat.decide(seat.open(record_id), "positive").json
    assert answer["strip"][0]["told"] == "Suggestion: Negative 0.83"
    seat.decide(seat.open(record_id), "negative")
    newest, first = made.history(record_id)
    assert (newest["blind"], newest["agreement"], newest["how"]) == (0, None, "scratch")
    assert (first["blind"], first["agreement"]) == (1, 0.0)
    (measured,) = made.instance.store.annotations.agreement(made.project, "sentiment", "2")
    assert (measured["blind"], measured["n"], measured["agreement"]) == (1, 1, 0.0)


def test_a_blind_decision_that_is_undone_cannot_be_made_blind_again(open_shop: Any) -> None:  # noqa: F811
    made = open_shop(blind_share=1.0)
    seat = made.seat()
    record_id = seat.next()["record_id"]
    made.suggest(record_id, "negative", score=0.8)
    seat.decide(seat.open(record_id), "positive")
    seat.post("undo")
    seat.decide(seat.open(record_id), "negative")
    assert made.history(record_id)[0]["blind"] == 0
    assert made.instance.store.annotations.agreement(made.project, "sentiment", "2") == []


def test_a_colleague_who_was_not_told_still_decides_blind(open_shop: Any) -> None:  # noqa: F811
    made = open_shop(blind_share=1.0)
    kim, lee = made.seat(), made.seat(who=1)
    record_id = kim.next()["record_id"]
    made.suggest(record_id, "negative", score=0.8)
    kim.decide(kim.open(record_id), "positive")
    lee.decide(lee.open(record_id), "negative")
    assert made.history(record_id)[0]["blind"] == 1


def test_who_saw_the_suggestion_is_told_nothing(shop: Shop) -> None:  # noqa: F811
    seat = shop.seat()
    record_id = seat.next()["record_id"]
    shop.suggest(record_id, "negative", score=0.8)
    assert seat.decide(seat.open(record_id), "positive").json["strip"][0]["told"] == ""
