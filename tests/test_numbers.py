"""The numbers of a task: each is what a query finds, and what is forecast says how sure it is."""

from __future__ import annotations

import csv
import html
import io
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from flask.testing import FlaskClient
from helpers import World, migrations_before

from labeler import accounts
from labeler.annotation.acts import Asked
from labeler.annotation.decisions import Decision
from labeler.annotation.query import parse
from labeler.annotation.table import RecordTable
from labeler.evaluation import progress
from labeler.evaluation.measures import Measure
from labeler.evaluation.numbers import numbers_of
from labeler.evaluation.progress import Side, progress_of
from labeler.instance import Instance
from labeler.prelabel.stack import wilson
from labeler.records import Record, Suggestion
from labeler.store import NewRecord, Store
from labeler.store import migrations as schema

TODAY = date(2026, 11, 30)
LABELS = ("positive", "neutral", "negative")


@pytest.fixture
def shop(instance: Instance, people: dict[str, int]) -> int:
    """Forty records: decided with the suggestion in sight and blind, many at once, imported, rejected, pending."""
    store = instance.store
    id_ = instance.create_project("shop", "en", {"tasks": ["sentiment", "emotion"]}, people["admin"])
    news = [NewRecord(f"r{n}", f"apples number {n}") for n in range(40)]
    store.write(lambda tx: store.records.add(tx, id_, news, ["sentiment", "emotion"]))
    project = store.projects.get(id_)
    for name in ("sentiment", "emotion"):
        task = instance.project_task(project, name)
        room = instance.decisions(project, task)
        for record in range(1, 36):
            value = LABELS[record % 3] if name == "sentiment" else [("짜증", "존경", "기대감")[record % 3]]
            made = Suggestion(record, name, task.version, "fake", "m", value, None, 0.5)
            store.write(lambda tx, made=made: _suggested(store, tx, id_, made))
        for record in range(1, 21):
            row = store.work.get(record, name)
            value = store.suggestions.get(row["suggestion_id"]).value
            if record % 4 == 0:
                value = "negative" if name == "sentiment" else [*value, "서러움"]
            action = "reject" if record == 19 else "approve"
            shown, blind = row["suggestion_id"], record % 5 == 0
            given = Decision(
                record, action, f"{name}-{record:06}", row["version"], value, suggestion_id=shown, blind=blind
            )
            room.decide(people["admin"], given)
    task = instance.project_task(project, "sentiment")
    store.write(
        lambda tx: instance.decisions(project, task).import_label(
            tx, Record(36, id_, "r35", "apples number 35"), "neutral", "shop", people["admin"]
        )
    )
    acts = instance.acts(project, task)
    acts.go_on(acts.begin(Asked("approve", "state:pending suggested:positive"), people["admin"]))
    return id_


def _suggested(store: Store, tx: object, project_id: int, made: Suggestion) -> None:
    store.work.suggested(tx, made.record_id, made.task, store.suggestions.add(tx, project_id, made), made.score, None)


@pytest.mark.parametrize("task", ["sentiment", "emotion"])
def test_each_number_leads_to_as_many_records(instance: Instance, client: FlaskClient, shop: int, task: str) -> None:
    """Every count on the page links to a query, and the query finds so many records."""
    text = client.get(f"/projects/{shop}/numbers/{task}").text
    found = re.findall(r'<a href="(/projects/\d+/records\?[^"]*q=[^"]*)">([\d,]+)</a>', text)
    assert len(found) > 10
    for address, n in found:
        asked = parse_qs(urlparse(html.unescape(address)).query)
        of = instance.project_task(instance.store.projects.get(shop), asked["task"][0])
        table = RecordTable(instance.store, shop, of, parse(asked["q"][0]))
        assert (asked["q"][0], table.count().total) == (asked["q"][0], int(n.replace(",", "")))
    queries = " ".join(html.unescape(address) for address, _ in found)
    assert ("how:bulk" in queries.replace("%3A", ":")) is (task == "sentiment")


def test_the_numbers_are_those_of_the_rows(instance: Instance, shop: int) -> None:
    """States, days, agreement and the table of labels, counted from the rows by hand."""
    store = instance.store
    task = instance.project_task(store.projects.get(shop), "sentiment")
    found = numbers_of(store, shop, task)
    rows = store.db.all("SELECT a.*, s.value AS suggested FROM annotations a "
                        "LEFT JOIN suggestions s ON s.id = a.suggestion_id WHERE a.task = 'sentiment'")  # fmt: skip
    first = [row for row in rows if row["agreement"] is not None and row["how"] not in ("bulk", "imported")]
    assert found.compared == len(first) == 19
    assert sum(day.people for day in found.progress.days) == 20
    assert sum(day.bulk for day in found.progress.days) == sum(row["how"] == "bulk" for row in rows) > 0
    assert sum(day.imported for day in found.progress.days) == 1
    pairs = Counter((row["suggested"].strip('"'), row["value"].strip('"')) for row in first)
    assert found.confusion == pairs
    for side, blind in ((found.progress.assisted, 0), (found.progress.blind, 1)):
        own = [row["agreement"] for row in first if row["blind"] == blind]
        assert side is not None
        assert (side.n, side.agreement.value) == (len(own), pytest.approx(sum(own) / len(own)))
    kept = {row["blind"]: row["n"] for row in store.annotations.agreement(shop, "sentiment", task.version)}
    assert kept == {0: found.progress.assisted.n, 1: found.progress.blind.n}
    assert sum(one.removed for one in found.changes) == sum(n for (a, b), n in pairs.items() if a != b)
    assert store.counts.faults() == []


def test_a_correction_of_a_decision_says_nothing_of_the_suggestion(tmp_path: Path) -> None:
    """The first decision counts, as long as it is not undone."""
    world = World(tmp_path)
    record, other = world.records[:2]
    for one in (record, other):
        world.suggest(one, "positive")
    shown = {one: world.store.work.get(one, "sentiment")["suggestion_id"] for one in (record, other)}
    world.approve(record, "negative", suggestion_id=shown[record])
    world.approve(record, "neutral")
    world.approve(other, "positive", suggestion_id=shown[other])
    world.decisions.undo(world.kim, "undo-it-again", "page")
    found = numbers_of(world.store, world.project_id, world.task)
    assert found.confusion == {("positive", "negative"): 1}
    assert [(one.name, one.removed, one.added) for one in found.changes] == [("negative", 0, 1), ("positive", 1, 0)]
    assert found.progress.days[-1].people == 1
    assert world.store.counts.faults() == []
    world.store.close()


# How far, and when


def made_at(world: World, id_: int, at: datetime) -> None:
    sql = "UPDATE annotations SET created_at = :at WHERE id = :id"
    world.store.write(lambda tx: tx.run(sql, {"at": at.timestamp(), "id": id_}))


def worked(world: World, days: dict[int, int]) -> None:
    """Let people have decided so many records so many days ago."""
    records = iter(world.records)
    for ago, n in days.items():
        at = datetime(2026, 11, 30, 12, tzinfo=UTC) - timedelta(days=ago)
        for _ in range(n):
            id_ = world.approve(next(records)).annotation_id
            made_at(world, id_, at)


@pytest.fixture
def pile(tmp_path: Path) -> World:
    return World(tmp_path, [f"review {n}" for n in range(100)])


def test_a_day_is_forecast_from_three_days_of_work(pile: World) -> None:
    """Two days say too little; from three on there is a day, and days before and after it."""
    worked(pile, {3: 10, 1: 20})
    found = progress_of(pile.store, pile.project_id, pile.task.name, TODAY)
    assert found.pace == 10
    assert found.forecast is None
    pile.store.close()


def test_an_even_pace_leaves_nothing_open(pile: World) -> None:
    """Ten a day on each of four days, and sixty left: six days, whichever days are drawn. Today is not over."""
    worked(pile, {4: 10, 3: 10, 2: 10, 1: 10})
    found = progress_of(pile.store, pile.project_id, pile.task.name, TODAY)
    assert found.pace == 10
    day = TODAY + timedelta(6)
    assert found.forecast == progress.Forecast(day, day, day)
    pile.store.close()


def test_an_uneven_pace_gives_an_interval(pile: World) -> None:
    """The more the days differ, the further apart the first and the last day are."""
    worked(pile, {6: 30, 4: 2, 3: 1, 1: 7, 0: 5})
    found = progress_of(pile.store, pile.project_id, pile.task.name, TODAY)
    assert found.pace == pytest.approx(40 / 6)
    assert found.days[-1].people == 5
    assert found.forecast is not None and found.forecast.last is not None
    assert found.forecast.day == TODAY + timedelta(9)
    assert TODAY < found.forecast.first < found.forecast.day < found.forecast.last
    pile.store.close()


def test_nothing_is_forecast_where_nothing_is_left_or_nobody_worked(pile: World) -> None:
    """Nobody worked: no pace. Nothing is left: no day."""
    assert progress_of(pile.store, pile.project_id, pile.task.name, TODAY).pace is None
    worked(pile, {4: 40, 3: 40, 2: 20})
    assert progress_of(pile.store, pile.project_id, pile.task.name, TODAY).forecast is None
    pile.store.close()


def test_days_of_an_older_database_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions that were there before days were counted are counted once, when it is opened."""
    known = schema.migrations
    monkeypatch.setattr(schema, "migrations", migrations_before(known, "m039"))
    Store(tmp_path / "labeler.db").close()
    before = sqlite3.connect(tmp_path / "labeler.db")
    before.executescript(
        """INSERT INTO projects (id, name, language, settings, created_at) VALUES (1, 'shop', 'ko', '{}', 0);
        INSERT INTO records (id, project_id, key, text, language, metadata, content_hash, kind, created_at)
            VALUES (1, 1, 'a', '달아요', 'ko', '{}', 'h', 'review', 0);
        INSERT INTO annotations (id, project_id, record_id, task, task_version, state, value, how, superseded_by,
            created_at) VALUES (1, 1, 1, 'usage', '1', 'approved', '"a"', 'imported', 2, 86000),
                               (2, 1, 1, 'usage', '1', 'approved', '"b"', 'scratch', NULL, 86500);"""
    )
    before.close()
    monkeypatch.setattr(schema, "migrations", known)
    with Store(tmp_path / "labeler.db") as store:
        assert store.numbers.days(1, "usage", "1970-01-01") == [("1970-01-02", "scratch", 1)]
        assert not any("days" in fault for fault in store.counts.faults())


# Intervals


def test_intervals_are_those_of_newcombe() -> None:
    """The first example of Newcombe 1998: 56 of 70 and 48 of 80 differ by 0.2, from 0.0524 to 0.3339."""
    a, b = (Side(n, Measure(k / n, *wilson(k / n, n))) for k, n in ((56, 70), (48, 80)))
    gap = progress._gap(a, b)
    assert gap is not None
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_weeks_begin_on_a_monday(pile: World) -> None:
    """Agreement is told for each week, with the suggestion in sight and blind."""
    for n, (record, value, blind) in enumerate(
        zip(pile.records, ["positive", "negative"] * 4, [0, 0, 1, 1] * 2, strict=False)
    ):
        shown = pile.suggest(record, "positive")
        id_ = pile.approve(record, value, suggestion_id=shown, blind=bool(blind)).annotation_id
        # 2026-11-29 is a Sunday, 2026-11-30 a Monday.
        made_at(pile, id_, datetime(2026, 11, 29 + n // 4, 12, tzinfo=UTC))
    weeks = numbers_of(pile.store, pile.project_id, pile.task, TODAY).weeks
    assert [week.day.isoformat() for week in weeks] == ["2026-11-23", "2026-11-30"]
    assert [(week.assisted.n, week.assisted.agreement.value, week.blind.n) for week in weeks] == [(2, 0.5, 2)] * 2
    pile.store.close()


# The page


def test_the_newest_are_read_and_the_page_says_so(
    client: FlaskClient, shop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are read of so many records, decisions of so many: never of all."""
    monkeypatch.setattr("labeler.web.numbers.MOST", 5)
    text = client.get(f"/projects/{shop}/numbers/sentiment").text
    assert (
        "Of the newest 5 approved and the newest 5 pending records" in text
        or "가장 최근에 추가된 승인 레코드 5건" in text
    )
    rows = list(csv.reader(io.StringIO(client.get(f"/projects/{shop}/numbers/sentiment/labels.csv").text)))
    assert sum(int(row[1]) for row in rows[1:]) == 5


def test_tables_leave_as_files_with_the_numbers_of_the_page(instance: Instance, client: FlaskClient, shop: int) -> None:
    """A file has the numbers of its table, and no cell of it is a formula."""
    labels = [{"name": name, "title": {"ko": f"={name}", "en": f"={name}"}} for name in LABELS]
    instance.change_task(shop, "sentiment", {"labels": labels})
    answer = client.get(f"/projects/{shop}/numbers/sentiment/labels.csv")
    assert answer.mimetype == "text/csv"
    rows = list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    task = instance.project_task(instance.store.projects.get(shop), "sentiment")
    found = numbers_of(instance.store, shop, task)
    assert sorted((int(row[1]), int(row[2])) for row in rows[1:]) == sorted(
        (found.approved[name], found.suggested[name]) for name in LABELS
    )
    assert "'=positive" in [row[0] for row in rows]
    assert client.get(f"/projects/{shop}/numbers/sentiment/nothing.csv").status_code == 404


def test_the_page_names_nobody(
    instance: Instance, as_person: Callable[[str], FlaskClient], people: dict[str, int], shop: int
) -> None:
    """A member sees the numbers of all, and who decided nowhere in them."""
    accounts.set_member(instance.store, shop, people["reviewer"], "reviewer", people["admin"])
    text = as_person("reviewer").get(f"/projects/{shop}/numbers/sentiment").text
    assert "<svg" in text
    assert "admin" not in text.split("<main")[1]
