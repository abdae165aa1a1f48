"""The compare screen: which answers are put beside each other, what a ranking keeps, and what it never shows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import enter
from flask import Flask
from flask.testing import FlaskClient
from helpers import REVIEWS, World, migrations_before

from labeler import Rating, Task
from labeler.annotation.comparing import Comparing, Comparison, answers_of
from labeler.annotation.queue import is_blind
from labeler.errors import InputError, LabelerError, NotFound
from labeler.instance import Instance
from labeler.records import ParseFailure, Record, Step, Suggestion
from labeler.store import Store
from labeler.store import migrations as schema


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with_world = World(tmp_path, REVIEWS[:4])
    yield with_world
    with_world.store.close()


def room(world: World, blind_share: float = 0.0) -> Comparing:
    return Comparing(world.store, world.project_id, world.task, {"blind_share": blind_share})


def answer(world: World, record: int, value: Any, kind: str, **more: Any) -> str:
    """Let a model answer; return the name of its answer."""
    failure = more.pop("failure", None)
    made = Suggestion(record, world.task.name, "1", "openai", kind, value, failure, kind=kind, **more)
    return str(world.store.write(lambda tx: world.store.suggestions.add(tx, world.project_id, made)))


def differing(world: World, record: int) -> list[str]:
    return [answer(world, record, value, kind) for value, kind in (("positive", "a"), ("negative", "b"))]


def names(found: Comparison | None) -> set[str]:
    assert found is not None
    return {one.name for one in found.answers}


# What is compared


def test_the_newest_answer_of_each_kind_is_compared_if_it_differs(world: World) -> None:
    """Older ones of a kind, equal ones and unreadable ones are left out."""
    record = world.records[0]
    answer(world, record, "neutral", "a")
    newest = answer(world, record, "positive", "a")
    other = answer(world, record, "negative", "b")
    answer(world, record, None, "d", failure=ParseFailure("not_json", "Not JSON", "well"))
    found = room(world).next(world.kim)
    assert names(found) == {newest, other}
    same = answer(world, record, "negative", "c")
    assert names(room(world).next(world.kim)) == {newest, same}


def test_samples_of_one_model_are_answers_too(world: World) -> None:
    """Those that can be read, each with a name of its own; what was thought beside them is no part of them."""
    texts = [
        '{"reasoning": "sweet", "sentiment": "positive"}',
        '{"sentiment": "neutral"}',
        "well",
        '{"sentiment": "positive"}',
    ]
    steps = [Step(f"sample {n}", text) for n, text in enumerate(texts, 1)]
    name = answer(world, world.records[0], "positive", "a", steps=steps)
    assert names(room(world).next(world.kim)) == {name, f"{name}.2"}


def test_a_record_with_one_answer_is_not_served(world: World) -> None:
    for kind in ("a", "b"):
        answer(world, world.records[0], "positive", kind)
    answer(world, world.records[1], "negative", "a")
    assert room(world).next(world.kim) is None


def test_rejected_records_and_those_to_be_decided_blind_are_not_served(world: World) -> None:
    """Whoever saw the suggestions of a blind record could not decide on it blind any more."""
    for record in world.records[:2]:
        differing(world, record)
    world.reject(world.records[0])
    assert names(room(world).next(world.kim))
    assert is_blind(world.project_id, "sentiment", world.records[1], 1.0)
    assert room(world, 1.0).next(world.kim) is None
    assert room(world, 1.0).open(world.kim, world.records[1]) is None
    world.approve(world.records[1], "positive")
    assert names(room(world, 1.0).next(world.kim))


def test_the_nine_newest_answers_have_a_key_each() -> None:
    task, record = Task("stars", Rating(1, 11)), Record(1, 1, "r1", "괜찮아요")
    made = [Suggestion(1, "stars", "1", "openai", "m", n, None, kind=f"model {n}", id=n) for n in range(11, 0, -1)]
    assert [one.value for one in answers_of(task, record, made)] == [11, 10, 9, 8, 7, 6, 5, 4, 3]


def test_the_order_of_the_answers_stays_and_says_nothing(world: World) -> None:
    """The same at each look of a person; over many records each model comes first about as often."""
    ids = world.add([f"글 {n} 입니다" for n in range(60)])
    first = 0
    for record in ids:
        older, _ = differing(world, record)
        seen = room(world).open(world.kim, record)
        assert seen is not None and seen == room(world).open(world.kim, record)
        first += seen.answers[0].name == older
    assert 15 < first < 45


def test_what_is_skipped_comes_again_after_the_others(world: World) -> None:
    for record in world.records[:3]:
        differing(world, record)
    served = []
    after = 0
    for _ in range(4):
        found = room(world).next(world.kim, after)
        assert found is not None
        served.append(found.record.id)
        after = found.record.id
    assert served == [*world.records[:3], world.records[0]]


# What is kept


def test_a_ranking_is_kept_once_and_ends_its_record_for_this_person_alone(world: World) -> None:
    """Sent twice with one key it is stored once."""
    record = world.records[0]
    one, two = differing(world, record)
    kept = room(world).rank(world.kim, record, [[two], [one]], "request-1", seconds=4.5)
    assert room(world).rank(world.kim, record, [[two], [one]], "request-1") == kept
    (row,) = world.store.db.all("SELECT * FROM rankings")
    assert (row["ranked"], row["seconds"], row["none_good"]) == (f'[["{two}"],["{one}"]]', 4.5, 0)
    assert room(world).next(world.kim) is None
    assert names(room(world).next(world.people[1])) == {one, two}
    assert world.store.rankings.count(world.project_id, "sentiment", world.kim) == 1


def test_an_undo_takes_back_the_last_ranking_and_nothing_before_it(world: World) -> None:
    """A second press of the same undo does nothing more."""
    rankings = []
    for n, record in enumerate(world.records[:2]):
        one, two = differing(world, record)
        rankings.append(room(world).rank(world.kim, record, [[one], [two]], f"request-{n}"))
    assert room(world).undo(world.people[1], rankings[1]) is None
    assert room(world).undo(world.kim, rankings[1]) == world.records[1]
    assert room(world).undo(world.kim, rankings[1]) is None
    assert room(world).last(world.kim) == rankings[0]
    found = room(world).next(world.kim)
    assert found is not None and found.record.id == world.records[1]


@pytest.mark.parametrize(
    ("tiers", "error"),
    [
        ([["{one}"]], InputError),
        ([["{one}"], ["{one}"]], InputError),
        ([["{one}"], ["{other}"]], InputError),
        ([["{one}"], ["nonsense"]], InputError),
        ([["{one}"], ["{two}"], []], InputError),
        ([["{one}"], ["{two}.9"]], InputError),
    ],
)
def test_a_ranking_of_anything_else_is_refused(world: World, tiers: list[list[str]], error: type[LabelerError]) -> None:
    """It names two to nine answers of this record, each once."""
    one, two = differing(world, world.records[0])
    other, _ = differing(world, world.records[1])
    given = [[name.format(one=one, two=two, other=other) for name in tier] for tier in tiers]
    with pytest.raises(error, match="two to 9 answers"):
        room(world).rank(world.kim, world.records[0], given, "request-1")
    assert world.store.db.all("SELECT * FROM rankings") == []


def test_a_record_of_another_project_is_not_there(world: World) -> None:
    one, two = differing(world, world.records[0])
    elsewhere = Comparing(world.store, world.project_id + 1, world.task, {"blind_share": 0.0})
    with pytest.raises(NotFound, match="There is no record"):
        elsewhere.rank(world.kim, world.records[0], [[one], [two]], "request-1")


def test_suggestions_of_an_older_database_can_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records whose answers differed before there was a compare screen are found when the database is opened."""
    known = schema.migrations
    monkeypatch.setattr(schema, "migrations", migrations_before(known, "m030"))
    Store(tmp_path / "labeler.db").close()
    before = sqlite3.connect(tmp_path / "labeler.db")
    columns = "project_id, record_id, task, task_version, backend, value, steps, flags, evidence, created_at"
    rows = [
        (1, "nearest", "1", None), (1, "openai", "2", None), (2, "nearest", "1", None), (2, "nearest", "2", None),
        (3, "openai", "1", '[["sample 1", "1"], ["sample 2", "2"]]'),
    ]  # fmt: skip
    before.executemany(f"INSERT INTO suggestions ({columns}) VALUES (1, ?, 'stars', '1', ?, ?, ?, '[]', '[]', 0)", rows)
    before.commit()
    before.close()
    monkeypatch.setattr(schema, "migrations", known)
    with Store(tmp_path / "labeler.db") as store:
        assert [row["record_id"] for row in store.db.all("SELECT * FROM comparable")] == [1, 3]


def test_a_ranking_goes_with_its_record(world: World) -> None:
    one, two = differing(world, world.records[0])
    room(world).rank(world.kim, world.records[0], [[one], [two]], "request-1")
    world.store.write(lambda tx: world.store.removal.remove(tx, world.project_id, [world.records[0]]))
    assert world.store.db.all("SELECT * FROM rankings") == []


# The page


@pytest.fixture
def two_answers(store: Store, project: int) -> list[str]:
    made = [
        Suggestion(1, "sentiment", "1", backend, f"secret-{backend}", value, None, kind=backend)
        for backend, value in (("openai", "positive"), ("transformers", "negative"))
    ]
    return [str(store.write(lambda tx, one=one: store.suggestions.add(tx, project, one))) for one in made]  # type: ignore[misc]


def test_the_page_does_not_say_whose_answers_they_are(
    as_person: Callable[[str], FlaskClient], project: int, two_answers: list[str]
) -> None:
    page = as_person("reviewer").get(f"/projects/{project}/compare?task=sentiment").text
    assert re.findall(r'data-answer="([^"]+)"', page) in (two_answers, two_answers[::-1])
    for word in ("secret", "openai", "transformers"):
        assert word not in page.lower()


def test_a_ranking_by_the_page_leads_on_and_an_undo_back(
    instance: Instance, people: dict[str, int], project: int, two_answers: list[str], app: Flask
) -> None:
    app.config["WTF_CSRF_ENABLED"] = False
    client = app.test_client()
    enter(client, app, people["reviewer"])
    address = f"/projects/{project}/compare"
    ranked = f'[["{two_answers[1]}"],["{two_answers[0]}"]]'
    form = {"task": "sentiment", "record_id": "1", "request_key": "request-1", "ranked": ranked, "seconds": "3.2"}
    answer = client.post(f"{address}/rank", data=form)
    assert (answer.status_code, answer.location) == (303, f"{address}?task=sentiment&after=1")
    after = client.get(answer.location).text
    assert "data-answer" not in after and "data-undo" in after
    number = re.search(r'name="ranking" value="(\d+)"', after)
    assert number
    back = client.post(f"{address}/undo", data={"task": "sentiment", "ranking": number[1]})
    assert back.location == f"{address}?task=sentiment&record=1"
    assert "data-answer" in client.get(back.location).text
    for wrong in ("{}", "[1]", '[["a", 2]]', "nonsense"):
        assert (
            client.post(f"{address}/rank", data=form | {"ranked": wrong, "request_key": "other-key"}).status_code == 400
        )
