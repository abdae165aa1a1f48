"""The query language: what can be asked of records, what each term finds, and what is said of a wrong one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from helpers import SENTIMENT, World

from labeler import Choice, Label, Task
from labeler.annotation import table as tables
from labeler.annotation.query import parse, period, quoted
from labeler.annotation.relabel import TaskSettings
from labeler.annotation.table import RecordTable
from labeler.errors import InputError
from labeler.labels import Answers
from labeler.store import NewRecord

TEXTS = [
    "배송이 빨라요",
    "배송이 늦어요",
    "맛있어요 사과",
    "그냥 그래요",
    "Fresh apples",
    "품질 별로",
    "보통이에요",
    "추천",
]


@pytest.fixture
def world(tmp_path):
    """Eight records: three approved by two people, one rejected, and suggestions with scores for the others."""
    news = [NewRecord(f"r{n}", text, f"p{n % 2}", {"stars": n, "place": "서울 강남" if n else "x"})
            for n, text in enumerate(TEXTS)]  # fmt: skip
    made = World(tmp_path, news)
    ids = made.records
    suggestion = made.suggest(ids[0], "positive", score=0.4)
    made.approve(ids[0], "positive", suggestion_id=suggestion)
    suggestion = made.suggest(ids[1], "positive", score=0.9)
    made.approve(ids[1], "negative", who=made.people[1], suggestion_id=suggestion)
    made.approve(ids[2], "positive")
    made.reject(ids[3])
    for n, score in ((4, 0.2), (5, 0.7), (6, 0.55)):
        made.suggest(ids[n], "negative" if n == 5 else "neutral", score=score, disagreement=0.5 if n == 6 else 0.0)
    yield made
    made.store.close()


def numbers(world, query, order="newest", task=SENTIMENT):
    """Return which records a query finds, by their place among the texts."""
    found = RecordTable(world.store, world.project_id, task, parse(query), [SENTIMENT.name]).page(50, order)
    return [world.records.index(row["id"]) for row in found.rows]


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("", [7, 6, 5, 4, 3, 2, 1, 0]),
        ("배송", [1, 0]),
        ("배송 -늦어", [0]),
        ('"배송이 늦"', [1]),
        ('"늦 배송"', []),
        ("state:pending", [7, 6, 5, 4]),
        ("상태:대기", [7, 6, 5, 4]),
        ("-state:pending", [3, 2, 1, 0]),
        ("state:approved,rejected", [3, 2, 1, 0]),
        ("label:positive", [2, 0]),
        ("라벨:긍정", [2, 0]),
        ("label:positive,negative", [2, 1, 0]),
        ("-label:positive state:approved", [1]),
        ("suggested:neutral", [6, 4]),
        ("suggested:부정", [5]),
        ("score<0.5", [4, 0]),
        ("score>=0.55 state:pending", [6, 5]),
        ("score:0.4..0.7", [6, 5, 0]),
        ("-score<0.5", [7, 6, 5, 3, 2, 1]),
        ("disagreement>0", [6]),
        ("is:doubted", [6]),
        ("by:lee", [1]),
        ("-by:lee label:positive", [2, 0]),
        ("how:corrected", [1]),
        ("방법:수정", [1]),
        ("how:accepted,scratch", [3, 2, 0]),
        ("agreement<1", [1]),
        ("is:suggested", [6, 5, 4, 1, 0]),
        ("key:r3", [3]),
        ("product:p1", [7, 5, 3, 1]),
        ("상품:p1 state:pending", [7, 5]),
        ("meta.stars>5", [7, 6]),
        ("meta.stars:3", [3]),
        ("meta.stars:2..4", [4, 3, 2]),
        ('meta.place:"서울 강남" by:lee', [1]),
        ("language:en", [4]),
        ("언어:영어", [4]),
        ("task:sentiment label:positive score<0.6 by:kim -flag 배송", [0]),
    ],
)
def test_each_term_finds_what_it_says(world, query, places):
    assert numbers(world, query) == places


@pytest.mark.parametrize(
    ("order", "places"),
    [
        ("newest", [7, 6, 5, 4, 3, 2, 1, 0]),
        ("oldest", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("lowest", [4, 0, 6, 5, 1]),
        ("highest", [1, 5, 6, 0, 4]),
        ("decided", [3, 2, 1, 0]),
    ],
)
def test_orders_go_by_number_score_and_decision(world, order, places):
    """Records without a score are in no order by score, and those that nobody decided in none by decision."""
    assert numbers(world, "", order) == places


def test_dates_are_days_months_and_ranges(world):
    """A decision of today is found by its day, its month, a range with it, and not by what lies before."""
    row = world.store.annotations.current(world.records[0], "sentiment")
    today = f"{datetime.fromtimestamp(row['created_at'], UTC):%Y-%m-%d}"
    for query in (f"date:{today}", f"date:{today[:7]}", f"date:{today}..{today}", f"date>={today}", f"date<={today}"):
        assert numbers(world, query) == [3, 2, 1, 0], query
    for query in (f"date<{today}", f"date>{today}", "date:2001", "날짜:2001-01..2002-12"):
        assert numbers(world, query) == [], query
    assert numbers(world, f"added:{today} label:negative") == [1]


def test_a_month_ends_where_the_next_begins():
    assert period("date", "2026-12")[1] == period("date", "2027-01")[0]
    assert period("date", "2026")[0] == period("date", "2026-01-01")[0]
    assert period("date", "2028-02-29")[1] == period("date", "2028-03")[0]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("lable:x", "There is no field lable (label?)"),
        ("http://x.kr", "There is no field http"),
        ("score<high", "The field score is a number, not 'high'"),
        ("score<nan", "The field score is a number"),
        ("state:done", "The field state is one of pending, disputed, approved, rejected, not 'done'"),
        ("date:yesterday", "The field date is a day as in 2026-11-30"),
        ("date:2026-13", "The field date is a day"),
        ("label:", "A value is missing after label:"),
        ('label:"긍정', 'A quote is opened and not closed: "긍정'),
        ('배송 "늦', 'A quote is opened and not closed: "늦'),
        ("label<3", "The field label cannot be compared; write label:3"),
        ("task:sentiment task:emotion", "A query is about one task at most"),
        ("-task:sentiment", "A query is about one task at most"),
        ("...", "'...' has no letter, digit or picture"),
        ("label:기쁨", "The task sentiment has no label '기쁨'; there are: positive, neutral, negative"),
        ("x" * 501, "longer than 500 characters"),
    ],
)
def test_what_is_wrong_with_a_query_is_said_in_one_sentence(world, query, sentence):
    with pytest.raises(InputError) as caught:
        numbers(world, query)
    assert sentence in str(caught.value)


def test_words_with_a_colon_in_quotes_or_of_other_letters_are_words(world):
    """Only what looks like a field in Latin letters is taken for a mistyped one."""
    for query in ('"label:x"', "가격:품질", "5:3"):
        assert numbers(world, query) == []


def test_without_a_task_only_fields_of_records_can_be_asked_for(world):
    assert numbers(world, "배송 product:p1 meta.stars:1", task=None) == [1]
    with pytest.raises(InputError, match="The field score is about one task; say which: task:sentiment"):
        numbers(world, "score<0.5", task=None)
    with pytest.raises(InputError, match="The order decided is about one task"):
        numbers(world, "", "decided", task=None)


def test_labels_are_found_by_what_they_are_called_now(world):
    """A label that was renamed or merged is found by its new name, and by no other."""
    labels = [{"name": "good", "title": {"ko": "좋음"}}, {"name": "bad"}]
    own = SENTIMENT
    TaskSettings(world.store, world.project_id, own).save(
        {"labels": labels}, answers=Answers(renamed={"positive": "good"}, merged={"neutral": "good", "negative": "bad"})
    )
    version, settings = world.store.projects.task_settings(world.project_id, own.name)
    task = own.overridden(version, settings, world.store.projects.label_moves(world.project_id, own.name))
    assert numbers(world, "label:good", task=task) == [2, 0]
    assert numbers(world, "라벨:좋음", task=task) == [2, 0]
    assert numbers(world, "suggested:bad", task=task) == [5]
    with pytest.raises(InputError, match="has no label 'positive'"):
        numbers(world, "label:positive", task=task)


def test_sets_are_found_by_each_of_their_labels(tmp_path):
    """A set of labels is found by one of them, an empty one by the word for it."""
    from labeler import Choices

    task = Task("topics", Choices(Label("taste", {"ko": "맛"}), Label("price"), Label("none-of-it")))
    world = World(tmp_path, ["하나", "둘", "셋"], task)
    world.approve(world.records[0], ["taste", "price"])
    world.approve(world.records[1], ["price"])
    world.approve(world.records[2], [])
    found = {
        query: numbers(world, query, task=task) for query in ("label:맛", "label:price", "label:empty", "-label:맛")
    }
    assert found == {"label:맛": [0], "label:price": [1, 0], "label:empty": [2], "-label:맛": [2, 1]}
    world.store.close()


def test_pages_hold_every_record_once_both_ways(tmp_path, monkeypatch):
    """In each order, with few or many that fit: the pages are what one long page is, and back again."""
    world = World(tmp_path, [f"{'배' if n % 3 else '귤'} {n}번" for n in range(90)])
    for n, id_ in enumerate(world.records):
        suggestion = world.suggest(id_, "positive", score=(n * 7 % 10) / 10)
        if n % 2:
            world.approve(id_, ("positive", "negative")[n % 5 == 0], suggestion_id=suggestion)
    monkeypatch.setattr(tables, "_LARGEST", 16)
    for query in ("", "label:negative", "score<0.35", "귤", "-귤 state:pending"):
        for order in ("newest", "oldest", "lowest", "highest", "decided"):
            table = RecordTable(world.store, world.project_id, SENTIMENT, parse(query))
            whole = [row["id"] for row in table.page(500, order, patience=60).rows]
            edge, pages = None, []
            while True:
                page = table.page(7, order, edge, patience=60)
                pages.append([row["id"] for row in page.rows])
                if not page.more:
                    break
                edge = page.last
            assert [id_ for page in pages for id_ in page] == whole, (query, order)
            assert [id_ for ids in table.ids(order) for id_ in ids] == whole
            back, first = [pages[-1]], page.first
            while first is not None:
                page = table.page(7, order, first, back=True, patience=60)
                back.append([row["id"] for row in page.rows])
                first = page.first
            assert [id_ for page in reversed(back) for id_ in page] == whole, (query, order)
    world.store.close()


def test_a_search_that_takes_too_long_says_so_and_goes_on(tmp_path, monkeypatch):
    """What was found in time is shown, with the place from where to search on; in the end nothing is missing."""
    world = World(tmp_path, [f"귤 {n}번" for n in range(200)])
    for n in (3, 150):
        world.approve(world.records[n], "negative")
    monkeypatch.setattr(tables, "_LARGEST", 20)
    table = RecordTable(world.store, world.project_id, SENTIMENT, parse("-state:pending,rejected"))
    table._states = ("pending", "approved")
    edge, found, pages = None, [], 0
    while True:
        page = table.page(10, "newest", edge, patience=0)
        found, pages = found + [row["id"] for row in page.rows], pages + 1
        if not page.more:
            break
        assert not page.full
        edge = page.last
    assert found == [world.records[150], world.records[3]] and pages > 5
    world.store.close()


def test_counts_are_those_of_the_rows(world):
    table = RecordTable(world.store, world.project_id, SENTIMENT, parse("-state:rejected"))
    counted = table.count()
    assert (counted.total, counted.whole) == (7, True)
    assert counted.of["state"] == {"pending": 4, "approved": 3}
    assert counted.of["label"] == {"positive": 2, "negative": 1}
    assert counted.of["suggested"] == {"positive": 2, "neutral": 2, "negative": 1}
    assert counted.of["by"] == {"kim": 2, "lee": 1}
    assert counted.of["how"] == {"accepted": 1, "corrected": 1, "scratch": 1}
    few = table.count(most=2)
    assert (few.total, few.whole) == (2, False)


def test_values_are_quoted_where_they_have_to_be():
    for value, typed in (("positive", "positive"), ("서울 강남", '"서울 강남"'), ("a,b", '"a,b"'), ('a"b', '"ab"')):
        assert quoted(value) == typed
    assert parse(f"by:{quoted('서울, 강남')}").terms[0].values == ("서울, 강남",)


def test_a_choice_whose_label_is_called_as_an_empty_one_is_meant_by_it(tmp_path):
    task = Task("mood", Choice(Label("empty"), Label("full")))
    world = World(tmp_path, ["하나", "둘"], task)
    world.approve(world.records[0], "empty")
    assert numbers(world, "label:empty", task=task) == [0]
    world.store.close()
