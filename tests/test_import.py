"""Imports: real files into a real store, with what is refused, found again, linked, and survived."""

from __future__ import annotations

import csv
import gc
import gzip
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from helpers import until

from labeler import Rating, Record, strictjson
from labeler.accounts import add_reviewer
from labeler.annotation.decisions import Decision
from labeler.demo import reviews
from labeler.errors import Conflict, FileRefused, InputError, LabelError, NotFound, PluginError, TooLarge
from labeler.ingest import service
from labeler.ingest.cells import read_label
from labeler.ingest.options import ImportOptions
from labeler.ingest.readers import Limits
from labeler.ingest.reading import preview, resolve
from labeler.ingest.report import Report
from labeler.ingest.service import FEWEST_ROWS, MOST_ROWS, queue_import
from labeler.ingest.upkeep import refresh_groups
from labeler.instance import Instance
from labeler.sentence import recalled
from labeler.worker import Worker

WORDS = re.findall("[가-힣]+", " ".join(review["text"] for review in reviews()))


def texts(count: int, seed: int = 1) -> list[str]:
    """Return reviews that are no near-duplicates of each other."""
    rng = random.Random(seed)
    return [f"{' '.join(rng.choices(WORDS, k=rng.randint(8, 20)))} {rng.randrange(10**9)}" for _ in range(count)]


@dataclass
class Shop:
    """An instance with one project, and the verbs a test needs."""

    instance: Instance
    folder: Path
    project: dict[str, Any]

    @property
    def id(self) -> int:
        return int(self.project["id"])

    def file(self, content: str | bytes, name: str = "reviews.csv") -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def run(self, content: str | bytes | Path, name: str = "reviews.csv", **options: Any) -> Report:
        path = content if isinstance(content, Path) else self.file(content, name)
        return self.instance.importer(self.project).run(path, ImportOptions(**options))

    def count(self) -> int:
        return self.instance.store.records.counts(self.id)["records"]

    def record(self, key: str) -> Record:
        found = self.instance.store.records.by_key(self.id, key)
        assert found is not None, key
        return found

    def approved(self, task: str = "sentiment") -> dict[str, Any]:
        pages = self.instance.store.annotations.approved_pages(self.id, task)
        return {row["key"]: strictjson.loads(row["value"]) for page in pages for row in page}

    def pending(self, task: str = "sentiment") -> int:
        return self.instance.store.work.counts(self.id, task)["pending"]

    def last_import(self) -> dict[str, Any]:
        return dict(self.instance.store.records.imports(self.id)[0])


def open_shop(folder: Path, tasks: Sequence[str]) -> Shop:
    instance = Instance(folder / "instance")
    project_id = instance.create_project("shop", "ko", {"tasks": list(tasks)})
    return Shop(instance, folder, instance.store.projects.get(project_id))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = open_shop(tmp_path, ["sentiment", "emotion", "keywords", "usage"])
    yield shop
    shop.instance.close()


def write_csv(path: Path, count: int, seed: int = 1) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "product", "text"])
        writer.writerows((f"r{n}", f"상품 {n % 50}", text) for n, text in enumerate(texts(count, seed)))
    return path


# What goes in


def test_rows_become_records(shop: Shop) -> None:
    """Text, id, group and the rest of a row stand in the record, and it waits in the queue of every task."""
    report = shop.run("번호,상품명,리뷰,별점\n7,꿀사과,달고 아삭해요,5\n8,꿀사과,푸석해요,2\n")
    record = shop.record("7")
    assert (report.added, report.refused, report.known) == (2, 0, 0)
    assert (record.text, record.group, dict(record.metadata)) == ("달고 아삭해요", "꿀사과", {"별점": "5"})
    assert [shop.pending(task) for task in ("sentiment", "emotion", "keywords", "usage")] == [2, 2, 2, 2]


def test_named_columns_win_over_guesses(shop: Shop) -> None:
    """What a person says about the columns is used, whatever their names suggest."""
    report = shop.run("text,memo,no\n제목,이것이 리뷰예요,1\n", text="memo", id="no", group="text")
    assert report.added == 1
    assert (shop.record("1").text, shop.record("1").group) == ("이것이 리뷰예요", "제목")


def test_cp949_file_of_korean_excel_is_read(shop: Shop) -> None:
    """A file as Korean Excel writes it comes in without a question."""
    content = "id,리뷰\r\n" + "".join(f"{n},{text}\r\n" for n, text in enumerate(texts(30)))
    seen = preview(shop.file(content.encode("cp949")), ImportOptions())
    report = shop.run(content.encode("cp949"))
    assert (report.added, report.refused) == (30, 0)
    assert shop.record("0").text == texts(30)[0]
    assert seen.encoding == "cp949"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "id\ttext\n1\t맛있어요\n"),
        ("a.jsonl", '{"id": 1, "text": "맛있어요"}\n'),
        ("a.json", '[{"id": 1, "text": "맛있어요"}]'),
        ("a.csv.gz", gzip.compress("id,text\n1,맛있어요\n".encode(), mtime=0)),
        ("a.csv", "\ufeffid,text\n1,맛있어요\n"),
        ("a16.csv", "id,text\n1,맛있어요\n".encode("utf-16")),
    ],
)
def test_formats_give_the_same_record(shop: Shop, name: str, content: str | bytes) -> None:
    """CSV, TSV, JSONL, JSON, gzip of these, BOM and UTF-16 all give one record of the same text."""
    assert shop.run(content, name).added == 1
    assert shop.record("1").text == "맛있어요"


def test_text_is_normalised_at_the_door(shop: Shop) -> None:
    """Decomposed Hangul, as Mac files have it, is composed."""
    shop.run("id,text\n1,맛있어요\n")
    assert shop.record("1").text == "맛있어요"


def test_record_without_an_id_column_has_a_key_of_its_content(shop: Shop) -> None:
    """Without ids the content is the key: a changed product is another record, the same row is not."""
    shop.run("product,text\n사과,맛있어요\n배,맛있어요\n", group="product")
    again = shop.run("product,text\n사과,맛있어요\n감,맛있어요\n", group="product")
    assert (again.added, again.known) == (1, 1)


# Again


def test_same_file_twice_adds_nothing(shop: Shop) -> None:
    """FAULTS 51: imported again, every row is known; with an id column and without one."""
    with_ids = write_csv(shop.folder / "ids.csv", 700)
    without = shop.file("text\n" + "\n".join(texts(600, seed=2)), "plain.csv")
    for path, rows in ((with_ids, 700), (without, 600)):
        assert shop.run(path).added == rows
        again = shop.run(path)
        assert (again.added, again.known, again.refused) == (0, rows, 0)
    assert shop.count() == shop.pending() == 1300


def test_other_text_under_a_known_id_is_refused(shop: Shop) -> None:
    """An id never changes its text: the row is refused with the id named, and the record stays."""
    shop.run("id,text\na,맛있어요\n")
    report = shop.run("id,text\na,맛없어요\nb,짜요\n")
    assert (report.added, report.refused) == (1, 1)
    assert report.lines[0][0] == 2
    assert "the id 'a' is taken by another text" in report.lines[0][2]
    assert shop.record("a").text == "맛있어요"


KILLED = """
import sys
from pathlib import Path
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance

with Instance(Path(sys.argv[1])) as instance:
    project = instance.store.projects.named("shop")
    run = instance.importer(project).run
    run(Path(sys.argv[2]), ImportOptions(), on_progress=lambda _, __, report: print(report.added, flush=True))
"""


@pytest.mark.parametrize(
    ("labels", "brief", "long", "most"),
    [
        (True, 1e-9, 60.0, FEWEST_ROWS), (True, 60.0, 1e-9, MOST_ROWS),
        (False, 1e-9, 60.0, MOST_ROWS), (False, 60.0, 1e-9, FEWEST_ROWS),
    ],
)  # fmt: skip
def test_slice_is_brief_while_somebody_labels(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, labels: bool, brief: float, long: float, most: int
) -> None:
    """FAULTS 17: a decision waits for one slice, which holds few rows where a record lies open on a desk."""
    monkeypatch.setattr(service, "BRIEF", brief)
    monkeypatch.setattr(service, "LONG", long)
    run = shop.instance.importer(shop.project).run
    run(write_csv(shop.folder / "first.csv", 1), ImportOptions())
    task = shop.instance.project_task(shop.project, "sentiment")
    kim = add_reviewer(shop.instance.store, "labels", None)
    queue = shop.instance.queue(shop.project, task)
    assert queue.next(kim)
    if not labels:
        queue.leave(kim)
    added = [1]
    path = write_csv(shop.folder / "many.csv", 6000)
    run(path, ImportOptions(), on_progress=lambda position, size, report: added.append(report.added))
    assert max(after - before for before, after in itertools.pairwise(added[1:])) == most


@pytest.mark.slow
def test_killed_import_is_completed_by_running_it_again(tmp_path: Path) -> None:
    """FAULTS 51: kill -9 amid 20,000 rows keeps whole slices; the second run adds the rest, nothing twice."""
    shop = open_shop(tmp_path, ["sentiment"])
    path = write_csv(tmp_path / "many.csv", 20_000)
    command = [sys.executable, "-c", KILLED, str(shop.instance.folder), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 9000:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
    kept = shop.count()
    assert 9000 <= kept < 20_000
    assert shop.instance.store.db.value("SELECT added FROM imports") == kept
    report = shop.run(path)
    assert (report.known, report.added, report.refused) == (kept, 20_000 - kept, 0)
    assert shop.count() == shop.pending() == 20_000
    assert shop.instance.store.check() == []
    shop.instance.close()


# What is refused


def test_bad_rows_are_reported_and_good_rows_go_in(shop: Shop) -> None:
    """FAULTS 49: ragged, empty and unclean rows are named by line, column and reason; the others go in."""
    report = shop.run(
        "id,product,text\n"
        "1,사과,달아요\n"
        "2,사과\n"
        "3,사과,달아요,셋,넷\n"
        "4,사과,\n"
        '5,사과,"두 줄\n리뷰"\n'
        "6,사과,널\x00문자\n"
        ",배,번호 없음\n"
        '8,배,"=SUM(A1)"\n'
        "9,배,끝\n",
        id="id",
    )
    refused = {number: (column, reason) for number, column, reason in report.lines}
    assert list(refused) == [3, 4, 5, 8, 9]
    assert refused[5] == ("text", "The text is empty")
    assert refused[8] == (None, "a NUL character at byte 13 of the line")
    assert refused[9] == (None, "The id in column 'id' is empty")
    assert report.refused == 5
    assert report.added == 4
    assert shop.record("5").text == "두 줄\n리뷰"
    assert shop.record("8").text == "=SUM(A1)"


def test_unreadable_bytes_refuse_their_row_only(shop: Shop) -> None:
    """FAULTS 47, 49: a byte that is not UTF-8 is named with its row."""
    report = shop.run(b"id,text\n1,ok\n2,b\xffd\n3,fine\n", encoding="utf-8")
    assert report.added == 2
    assert report.lines[0][0] == 3


def test_an_id_or_product_that_cannot_be_stored_is_named_by_its_column(shop: Shop) -> None:
    """It is no fault of the text."""
    report = shop.run(
        '{"no": "a\\u0000b", "text": "좋아요", "item": "배"}\n{"no": "2", "text": "싫어요", "item": "감\\u0000"}\n'
        '{"no": "3", "text": "끝", "item": "귤"}\n',
        "reviews.jsonl", id="no", group="item",
    )  # fmt: skip
    assert report.added == 1
    assert report.lines == [
        (1, None, "The no contains a NUL character (position 2); remove it"),
        (2, None, "The item contains a NUL character (position 2); remove it"),
    ]


def test_jsonl_lines_that_are_not_json_are_reported(shop: Shop) -> None:
    """FAULTS 47: NaN, duplicate keys, lists and torn lines are refused by line."""
    lines = [
        '{"id": 1, "text": "a 가"}',
        '{"id": 2, "text": NaN}',
        '{"id": 3, "text": "x", "text": "y"}',
        "[1]",
        '{"id',
    ]
    report = shop.run("\n".join([*lines, '{"id": 6, "text": "끝"}']), "reviews.jsonl")
    assert (report.added, [number for number, _, _ in report.lines]) == (2, [2, 3, 4, 5])


def test_strict_takes_all_or_nothing(shop: Shop) -> None:
    """FAULTS 49: with strict one bad row keeps the whole file out, and the message names it; a good file goes in."""
    with pytest.raises(InputError, match=r"Nothing was imported: 1 row\(s\) would be refused\. The first is row 3"):
        shop.run("id,text\n1,가나다\n2,\n", strict=True)
    assert shop.count() == 0
    assert shop.run("id,text\n1,가나다\n2,라마바\n", strict=True).added == 2


def test_strict_sees_ids_taken_in_the_file_and_in_the_project(shop: Shop) -> None:
    """One id with two texts is refused by strict, whether the other text is in the file or in the project."""
    shop.run("id,text\n1,가나다\n")
    for content in ("id,text\n2,가\n2,나\n", "id,text\n1,다른 글\n"):
        with pytest.raises(InputError, match="is taken by another text"):
            shop.run(content, id="id", strict=True)
    assert shop.count() == 1


def test_strict_refuses_a_bad_label_too(shop: Shop) -> None:
    """All or nothing includes the labels."""
    with pytest.raises(InputError, match="the label was left out"):
        shop.run("id,text,label\n1,가나다,엉터리\n", labels={"sentiment": "label"}, strict=True)
    assert shop.count() == 0


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("id,text\n1,가\n", {"text": "review"}, "There is no column 'review'; there are: 'id', 'text'"),
        ("id,text\n1,가\n", {"labels": {"sentiment": "mood"}}, "There is no column 'mood'"),
        ("id,text\n1,가\n", {"labels": {"mood": "text"}}, "No task 'mood' in this project; there are: sentiment"),
        ("a,b\n1,2\n", {}, "Which column holds the review"),
        ("", {}, "The file is empty"),
    ],
)
def test_unusable_file_or_column_is_one_clear_error(
    shop: Shop, content: str, options: dict[str, Any], said: str
) -> None:
    """What cannot be imported at all is refused before anything is stored."""
    with pytest.raises(InputError, match=said):
        shop.run(content, **options)
    assert shop.count() == 0
    assert shop.instance.store.records.imports(shop.id) == []


def test_missing_file_is_named(shop: Shop) -> None:
    """A path without a file is answered with the path."""
    with pytest.raises(FileRefused, match=r"nowhere\.csv"):
        shop.run(shop.folder / "nowhere.csv")


def test_very_long_text_is_refused_by_row(shop: Shop) -> None:
    """FAULTS 49, 52: a cell beyond the limit is named with its length; the others go in."""
    report = shop.run("id,text\n1," + "가" * 100_001 + "\n2,짧아요\n")
    assert report.added == 1
    assert "100,001 characters" in report.lines[0][2]


def test_bomb_ends_the_import_and_keeps_what_went_in(shop: Shop) -> None:
    """FAULTS 50: a file that unpacks to more than the limit ends as failed with its reason, and is not tried again."""
    rows = "".join(f"{n},{text * 8}\n" for n, text in enumerate(texts(3000)))
    path = shop.file(gzip.compress(("id,text\n" + rows).encode()), "bomb.csv.gz")
    importer = shop.instance.importer(shop.project)
    importer.limits = Limits(max_bytes=2_000_000)
    with pytest.raises(TooLarge):
        importer.run(path, ImportOptions())
    ended = shop.last_import()
    assert ended["state"] == "failed"
    assert ended["added"] == shop.count() > 0


def test_plugin_that_hangs_fails_the_import(shop: Shop) -> None:
    """FAULTS 57: an import whose door does not answer ends as failed with the plugin's name."""

    def door(record: Record) -> Record | str:
        raise PluginError("The plugin slow hangs in prepare_record")

    importer = shop.instance.importer(shop.project)
    importer.prepare = door
    with pytest.raises(PluginError):
        importer.run(shop.file("id,text\n1,가나다\n"), ImportOptions())
    assert recalled(shop.last_import()["message"]) == "The plugin slow hangs in prepare_record"


def test_report_is_bounded_and_counts_all(shop: Shop) -> None:
    """A file of nothing but bad rows keeps 5,000 of them and the true number."""
    report = shop.run("id,text\n" + "".join(f"{n},\n" for n in range(6000)), text="text")
    assert (report.refused, len(report.lines), report.added) == (6000, 5000, 0)


def test_objects_are_no_texts(shop: Shop) -> None:
    """A path reaches the text inside; without it the parts are named, and nothing is stored."""
    content = '[{"id": 1, "review": {"text": "배송이 빨라요", "stars": 5}, "product": {"id": "P1", "name": "양말"}}]'
    with pytest.raises(FileRefused, match=r"holds objects, not texts.*'review.text', 'review.stars'"):
        shop.run(content, "a.json", text="review")
    assert shop.count() == 0
    assert shop.run(content, "a.json", text="review.text").added == 1
    record = shop.record("1")
    assert (record.text, record.group) == ("배송이 빨라요", "P1")
    assert dict(record.metadata) == {"review": {"stars": 5}, "product": {"name": "양말"}}


def test_metadata_stands_beside_the_other_columns(shop: Shop) -> None:
    """An object called metadata takes no other column away; of two values of one name both stay."""
    shop.run('{"id": 1, "text": "좋아요", "rating": 5, "metadata": {"vine": false, "rating": 4}}', "a.jsonl")
    assert dict(shop.record("1").metadata) == {"rating": 5, "vine": False, "metadata.rating": 4}


def test_totals_and_invisible_texts_are_refused(shop: Shop) -> None:
    """A row of totals is no review, nor is a text of which nothing can be seen; both are reported."""
    rows = ["1,좋아요,5", "2,\u200b,1", "3,\u2800,1", "4,👍,5", "합계,2건,6", "total,,6"]
    report = shop.run("id,text,rating\n" + "\n".join(rows) + "\n", id="id")
    assert (report.added, [line[0] for line in report.lines]) == (2, [3, 4, 6, 7])
    assert {line[2] for line in report.lines} == {
        "The text holds nothing but invisible characters", "The row holds totals, not a review",
    }  # fmt: skip


def test_ids_that_a_spreadsheet_rounded_are_refused(shop: Shop) -> None:
    """Different ids are the same then; without the column the reviews go in, with a note."""
    content = "리뷰번호,리뷰\n8.80123E+18,아주 좋아요\n8.80123E+18,별로예요\n"
    with pytest.raises(FileRefused, match="more digits than a spreadsheet keeps"):
        shop.run(content, id="리뷰번호")
    assert "has rounded them" in preview(shop.file(content), ImportOptions()).notes[0]
    assert shop.run(content).added == 2


def test_our_own_csv_comes_back_as_it_was(shop: Shop) -> None:
    """The apostrophes that guard formulas go, and rows are known; where a file has none they are text."""
    shop.run("id,text,p\n1,=좋아요,사과\n2,-별로예요,배\n3,@사장님 감사,감\n", group="p")
    rows = "1,'=좋아요,positive,긍정,사과,train\n2,'-별로예요,negative,부정,배,test\n3,'@사장님 감사,,,감,train\n"
    report = shop.run("key,text,value,rendered,group,split\n" + rows, labels={"sentiment": "value"})
    assert (report.known, report.labels, report.refused) == (3, 2, 0)
    assert shop.run("id,text\n7,'=따옴표\n").added == 1
    assert shop.record("7").text == "'=따옴표"


# Labels that come with the data


def test_labels_come_in_approved_with_their_origin(shop: Shop) -> None:
    """A column of labels is approved at once, and says from which import it came."""
    report = shop.run("id,text,감성\n1,맛있어요,positive\n2,짜요,negative\n3,음,\n", labels={"sentiment": "감성"})
    assert report.labels == 2
    assert shop.approved() == {"1": "positive", "2": "negative"}
    row = shop.instance.store.annotations.current(shop.record("1").id, "sentiment")
    assert row is not None
    assert (row["how"], row["origin"], row["reviewer_id"]) == ("imported", "import 1: reviews.csv", None)
    assert shop.pending() == 1
    assert "감성" not in shop.record("1").metadata


def test_titles_are_accepted_as_labels(shop: Shop) -> None:
    """A label may be given by its exact title in any language of the schema."""
    shop.run("id,text,s\n1,가나,긍정\n2,다라,Negative\n3,마바,neutral\n", labels={"sentiment": "s"})
    assert shop.approved() == {"1": "positive", "2": "negative", "3": "neutral"}


def test_bad_label_is_reported_and_its_record_goes_in(shop: Shop) -> None:
    """Nothing is guessed: an unknown label is named with row and column, the review waits for a person."""
    report = shop.run("id,text,s\n1,가나,아주 좋음\n2,다라,POSITIVE\n3,마바,긍정\n", labels={"sentiment": "s"})
    assert (report.added, report.labels, report.refused, report.left_out) == (3, 1, 0, 2)
    assert [(number, column) for number, column, _ in report.lines] == [(2, "s"), (3, "s")]
    assert "the label was left out: " in report.lines[0][2]
    assert shop.pending() == 2


def test_sets_and_phrases_come_in_with_separators_or_as_json(shop: Shop) -> None:
    """Several labels stand in one cell with ; or | between them, or as a JSON list."""
    shop.run(
        'id,text,e,k\n1,사과가 달아요,기쁨;행복,사과|달아요\n2,배가 물러요,"[""짜증"", ""슬픔""]","[""배""]"\n',
        labels={"emotion": "e", "keywords": "k"},
    )
    assert set(shop.approved("emotion")["1"]) == {"기쁨", "행복"}
    assert set(shop.approved("emotion")["2"]) == {"짜증", "슬픔"}
    assert [found["text"] for found in shop.approved("keywords")["1"]] == ["사과", "달아요"]
    assert [found["text"] for found in shop.approved("keywords")["2"]] == ["배"]


def test_keyword_that_is_not_in_the_text_is_reported(shop: Shop) -> None:
    """Keywords are verbatim: a label that the text does not hold is left out."""
    report = shop.run("id,text,k\n1,사과가 달아요,바나나\n", labels={"keywords": "k"})
    assert (report.added, report.labels, report.left_out) == (1, 0, 1)


def test_lists_of_jsonl_are_labels_too(shop: Shop) -> None:
    """In JSON a set of labels is a list."""
    lines = '{"id": "1", "text": "달아요", "labels": ["기쁨", "행복"]}\n'
    assert shop.run(lines, "a.jsonl", labels={"emotion": "labels"}).labels == 1


@pytest.mark.parametrize("raw", ["4", " 4 ", 4, "4.0", 4.0, "4점", "４", "4/5", "★★★★☆", [4]])
def test_ratings_are_read_from_text(raw: Any) -> None:
    """A table has only text, and a rating is a number."""
    assert read_label(Rating(1, 5), raw, "") == 4


@pytest.mark.parametrize("raw", ["4.5", "4/10", "★★★★", "about 4", "", True, [4, 5]])
def test_what_is_no_rating_is_not_guessed(raw: Any) -> None:
    """Halves, other scales and words are left to a person."""
    with pytest.raises(LabelError):
        read_label(Rating(1, 5), raw, "")


def test_list_of_one_is_one_label(shop: Shop) -> None:
    """Other tools write a single choice as a list; two are not one."""
    lines = ['{"id": 1, "text": "가나", "label": ["긍정"]}', '{"id": 2, "text": "다라", "label": ["긍정", "부정"]}']
    report = shop.run("\n".join(lines), "a.jsonl", labels={"sentiment": "label"})
    assert (report.labels, report.left_out) == (1, 1)


def test_labels_in_the_letters_of_a_mac_are_the_same(shop: Shop) -> None:
    """Names of labels, keywords and columns are compared in NFC."""
    content = unicodedata.normalize("NFD", "번호,리뷰,감성,낱말\n1,배송이 빨라요,긍정,배송\n")
    report = shop.run(content, labels={"sentiment": "감성", "keywords": unicodedata.normalize("NFD", "낱말")})
    assert (report.labels, report.left_out) == (2, 0)


def test_imported_label_never_overwrites_a_decision(shop: Shop) -> None:
    """A file imported again with labels leaves alone what a person decided, and labels what is pending."""
    shop.run("id,text\n1,맛있어요\n2,짜요\n")
    decide(shop, "1", "negative")
    report = shop.run("id,text,s\n1,맛있어요,긍정\n2,짜요,부정\n", labels={"sentiment": "s"})
    assert (report.known, report.labels) == (2, 1)
    assert shop.approved() == {"1": "negative", "2": "negative"}


def test_imported_label_goes_to_no_record_that_several_people_are_deciding_on(shop: Shop) -> None:
    """What they said so far waits for the others, not for a file."""
    shop.instance.change_project(shop.id, {"people_per_record": 2})
    shop.project = shop.instance.store.projects.get(shop.id)
    shop.run("id,text\n1,맛있어요\n2,짜요\n")
    decide(shop, "1", "negative")
    report = shop.run("id,text,s\n1,맛있어요,긍정\n2,짜요,부정\n", labels={"sentiment": "s"})
    assert (report.labels, report.left_out) == (1, 1)
    assert "several people are deciding on this record" in str(report.lines)
    assert shop.approved() == {"2": "negative"}


def decide(shop: Shop, key: str, value: str) -> None:
    store = shop.instance.store
    person = store.people.named("kim")
    reviewer = int(person["id"]) if person else add_reviewer(store, "kim", None)
    room = shop.instance.decisions(shop.project, shop.instance.task_of(shop.project, "sentiment"))
    room.decide(reviewer, Decision(shop.record(key).id, "approve", f"request-{key}", 0, value))


# Duplicates


def test_exact_duplicates_are_linked_and_not_queued(shop: Shop) -> None:
    """The same text under another id is stored, linked to the first, and labelled only once."""
    report = shop.run("id,text\n1,배송이 빨라요\n2,배송이 빨라요\n3,배송이 느려요\n")
    assert (report.added, report.duplicates) == (3, 1)
    assert shop.pending() == 2
    assert shop.record("2").content_hash == shop.record("1").content_hash
    assert shop.record("2").cluster == shop.record("1").cluster
    assert shop.instance.store.records.counts(shop.id) == {"records": 3, "duplicates": 1, "groups": 0}


def test_exact_duplicates_are_found_across_imports_and_slices(shop: Shop) -> None:
    """The original may be thousands of rows or an import away."""
    shop.run(write_csv(shop.folder / "many.csv", 1200))
    report = shop.run("id,text\nx," + texts(1200)[3] + "\n")
    assert (report.added, report.duplicates) == (1, 1)
    assert shop.record("x").cluster == shop.record("r3").cluster


def test_near_duplicates_share_a_cluster_and_are_queued(shop: Shop) -> None:
    """Copies with another space, emoticon or letter get one cluster id; each is still labelled."""
    base = "이 사과 정말 달고 아삭해서 아이들이 너무 좋아해요 다음에 또 주문할게요"
    shop.run(f"id,text\n1,{base}\n2,{base}!!! ^^\n3,{base.replace(' ', '')}\n4,포장이 터져서 국물이 다 샜습니다 실망\n")
    clusters = [shop.record(key).cluster for key in "1234"]
    assert clusters[0] == clusters[1] == clusters[2] != clusters[3]
    assert shop.pending() == 4
    assert shop.instance.store.records.near_duplicates(shop.id) == 2


def test_label_of_an_equal_row_goes_to_the_record_that_has_none(shop: Shop) -> None:
    """An exact copy is not in the queue: its label is given to its original, in one file, later, and again."""
    report = shop.run("id,text,s\n1,배송 빨라요,\n2,배송  빨라요,긍정\n", labels={"sentiment": "s"})
    assert (report.added, report.labels, report.given) == (2, 1, 1)
    assert report.lines == [(3, "s", "the label went to the equal record '1', which had none")]
    shop.run("id,text\n5,양이 적어요\n")
    later = shop.run("text,s\n양이 적어요,부정\n", labels={"sentiment": "s"})
    assert (later.labels, later.given) == (1, 1)
    again = shop.run("text,s\n양이 적어요,부정\n", labels={"sentiment": "s"})
    assert (again.known, again.labels, again.agreed, again.lines) == (1, 0, 1, [])
    assert shop.approved() == {"1": "positive", "5": "negative"}


@pytest.mark.parametrize("strict", [False, True])
def test_label_that_contradicts_an_equal_record_is_reported(shop: Shop, strict: bool) -> None:
    """Neither label is changed and none is lost without a word; with strict nothing goes in."""
    content = "id,text,s\n1,배송 빨라요,긍정\n2,배송 빨라요,부정\n3,배송 빨라요,긍정\n"
    if strict:
        with pytest.raises(FileRefused, match='row 3: the label was left out: the record has another, "positive"'):
            shop.run(content, labels={"sentiment": "s"}, strict=True)
        assert shop.count() == 0
        return
    report = shop.run(content, labels={"sentiment": "s"})
    assert (report.labels, report.contradicting, report.agreed) == (1, 1, 1)
    assert report.lines == [(3, "s", "the label was left out: the equal record '1' has another, \"positive\"")]
    assert shop.approved() == {"1": "positive"}
    row = shop.last_import()
    assert (row["labels"], row["contradicting"], row["agreed"], row["left_out"]) == (1, 1, 1, 0)


def test_keyword_of_an_equal_row_is_placed_in_the_text_of_its_record(shop: Shop) -> None:
    """The copy differs in white space, so the same words stand elsewhere."""
    shop.run("id,text,k\n1,배송  빨라요,\n2,배송 빨라요,빨라요\n", labels={"keywords": "k"})
    assert shop.approved("keywords") == {"1": [{"text": "빨라요", "start": 4, "end": 7}]}


# Groups


def with_groups(shop: Shop) -> None:
    shop.instance.change_task(shop.id, "usage", {"unit": "group"})
    shop.project = shop.instance.store.projects.get(shop.id)


def test_task_on_groups_gets_one_record_a_product(shop: Shop) -> None:
    """All reviews of a product become one record for a task of the unit group; other tasks see the reviews."""
    with_groups(shop)
    shop.run("id,product,text\n1,사과,달아요\n2,배,시원해요\n3,사과,아삭해요\n4,,주인 없음\n")
    assert shop.record("group:사과").text == "- 달아요\n- 아삭해요"
    assert shop.pending("usage") == 2
    assert shop.pending("sentiment") == 4


def test_group_grows_until_somebody_labels_it(shop: Shop) -> None:
    """A product's record takes in later reviews, but what was labelled stays what was labelled."""
    with_groups(shop)
    shop.run("id,product,text\n1,사과,달아요\n2,배,시원해요\n")
    reviewer = add_reviewer(shop.instance.store, "kim", None)
    room = shop.instance.decisions(shop.project, shop.instance.task_of(shop.project, "usage"))
    room.decide(reviewer, Decision(shop.record("group:배").id, "approve", "request-배-1", 0, "식혀서 먹어요"))
    shop.run("id,product,text\n3,사과,아삭해요\n4,배,달아요\n")
    assert shop.record("group:사과").text == "- 달아요\n- 아삭해요"
    assert shop.record("group:배").text == "- 시원해요"
    assert refresh_groups(shop.instance.store, shop.id, shop.instance.tasks_of(shop.project).values()) == 0


# While it runs


@pytest.mark.slow
def test_people_decide_while_an_import_runs(shop: Shop) -> None:
    """FAULTS 17: an import goes slice by slice through the writer, so that a decision waits for one slice at most."""
    first = texts(60, seed=9)
    shop.run("id,text\n" + "".join(f"a{n},{text}\n" for n, text in enumerate(first)))
    path = write_csv(shop.folder / "many.csv", 8000)
    importing = threading.Thread(target=shop.run, args=(path,))
    importing.start()
    waits = []
    for n in range(60):
        started = time.perf_counter()
        decide(shop, f"a{n}", "positive")
        waits.append(time.perf_counter() - started)
        if not importing.is_alive():
            break
    alive = importing.is_alive()
    importing.join()
    assert len(waits) >= 8
    assert max(waits) < 2.0
    assert alive or len(waits) < 60
    assert shop.count() == 8060


@pytest.mark.slow
def test_memory_is_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 52: after the first slices an import of many rows needs no more memory than before."""
    # How many rows a slice holds follows the machine's speed, and its memory with it: here all hold as many.
    monkeypatch.setattr("labeler.ingest.service.FEWEST_ROWS", 400)
    monkeypatch.setattr("labeler.ingest.service.MOST_ROWS", 400)
    shop = open_shop(tmp_path, ["sentiment"])
    path = write_csv(tmp_path / "many.csv", 8000)
    held: list[tuple[int, int]] = []

    def on_progress(position: int, size: int, report: Report) -> None:
        # What waits to be collected is none that is needed.
        gc.collect()
        held.append((report.added, tracemalloc.get_traced_memory()[0]))

    tracemalloc.start()
    try:
        shop.instance.importer(shop.project).run(path, ImportOptions(), on_progress=on_progress)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        shop.instance.close()
    early, late = ([memory for added, memory in held if low < added <= low + 2000] for low in (2000, 6000))
    assert max(late) - max(early) < 300_000
    assert peak < 30_000_000


def test_progress_is_reported_after_each_slice(shop: Shop) -> None:
    """A progress bar gets the bytes read, the size of the file and the numbers so far; the page reads the same row."""
    path = write_csv(shop.folder / "many.csv", 1600)
    seen: list[tuple[int, int, int]] = []

    def on_progress(position: int, size: int, report: Report) -> None:
        seen.append((position, size, report.added))

    shop.instance.importer(shop.project).run(path, ImportOptions(), on_progress=on_progress)
    steps = [after - before for before, after in itertools.pairwise([0, *(added for _, _, added in seen)])]
    assert sum(steps) == 1600
    assert max(steps) <= MOST_ROWS
    assert seen[-1][:2] == (path.stat().st_size, path.stat().st_size)
    ended = shop.last_import()
    assert (ended["state"], ended["added"], ended["position"]) == ("finished", 1600, path.stat().st_size)


# Uploads: the queue of the background worker


def queue(shop: Shop, path: Path, **options: Any) -> int:
    return queue_import(shop.instance.store, shop.id, path, "upload.csv", ImportOptions(**options), None)


def test_queued_import_is_done_by_the_worker(shop: Shop) -> None:
    """An upload waits as a row; the worker imports it, keeps its report and removes the file."""
    path = shop.file("id,text,s\n1,맛있어요,긍정\n2,\n", "abc123.csv")
    id_ = queue(shop, path, labels={"sentiment": "s"})
    assert shop.last_import()["state"] == "queued"
    assert Worker(shop.instance)._imports() is True
    done = shop.instance.store.records.get_import(shop.id, id_)
    assert (done["state"], done["added"], done["labels"], done["refused"]) == ("finished", 1, 1, 1)
    assert strictjson.loads(done["report"])[0][0] == 3
    assert shop.approved() == {"1": "positive"}
    row = shop.instance.store.annotations.current(shop.record("1").id, "sentiment")
    assert row is not None
    assert row["origin"] == "import 1: upload.csv"
    assert not path.exists()
    assert Worker(shop.instance)._imports() is False


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("a,b\n1,2\n", {}, "Which column holds the review"),
        ("id,text\n1,가\n2,\n", {"strict": True}, "Nothing was imported"),
        ("id,text\n1,가\n", {"labels": {"mood": "text"}}, "No task 'mood' in this project"),
    ],
)
def test_queued_import_that_cannot_be_done_says_why(
    shop: Shop, content: str, options: dict[str, Any], said: str
) -> None:
    """A bad upload ends as failed with the reason in its row, and is not tried for ever."""
    queue(shop, shop.file(content, "abc123.csv"), **options)
    worker = Worker(shop.instance)
    assert worker._imports() is True
    ended = shop.last_import()
    assert ended["state"] == "failed"
    assert said in recalled(ended["message"])
    assert worker._imports() is False
    assert not (shop.folder / "abc123.csv").exists()


def test_import_that_a_stopping_worker_left_goes_on_at_once(shop: Shop) -> None:
    """A worker that is told to stop puts the import back; the next one goes on behind it, and counts what both did."""
    path = write_csv(shop.folder / "upload.csv", 1200)
    id_ = queue(shop, path)
    stopping = Worker(shop.instance)
    stopping.stopping.set()
    stopping._imports()
    assert shop.last_import()["state"] == "queued"
    assert path.exists()
    assert shop.count() == FEWEST_ROWS
    assert Worker(shop.instance)._imports() is True
    done = shop.instance.store.records.get_import(shop.id, id_)
    assert (done["state"], done["known"], done["added"]) == ("finished", 0, 1200)
    assert shop.count() == 1200


def test_import_of_a_dead_worker_is_taken_up_again(shop: Shop) -> None:
    """An import without progress for two minutes belongs to nobody, and the next worker takes it."""
    store = shop.instance.store
    id_ = queue(shop, shop.file("id,text\n1,맛있어요\n", "abc123.csv"))
    assert store.write(store.records.claim_import) is not None
    assert Worker(shop.instance)._imports() is False
    store.write(lambda tx: tx.run("UPDATE imports SET alive_at = alive_at - 121"))
    assert Worker(shop.instance)._imports() is True
    assert store.records.get_import(shop.id, id_)["state"] == "finished"


class Crash(Exception):
    """The process is gone."""


def test_import_goes_on_behind_what_a_killed_worker_did(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done is counted with the rows themselves: two workers together report what the file holds."""
    monkeypatch.setattr(service, "MOST_ROWS", 300)
    lines = [f"{n},{text},긍정\n" for n, text in enumerate(texts(1400))]
    lines[3] = "3,,긍정\n"
    lines[700] = "700,같은 글,긍정\n"
    lines[701] = "701,같은 글,긍정\n"
    lines[1399] = lines[0]
    path = shop.file("id,text,s\n" + "".join(lines), "upload.csv")
    id_ = queue(shop, path, labels={"sentiment": "s"})
    store = shop.instance.store
    claimed = store.write(store.records.claim_import)
    assert claimed is not None

    def die(position: int, size: int, report: Report) -> None:
        if report.added > 600:
            raise Crash

    with pytest.raises(Crash):
        shop.instance.importer(shop.project).run(
            path, ImportOptions(**claimed["options"]), import_id=id_, token=claimed["token"], on_progress=die
        )
    done = store.records.get_import(shop.id, id_)
    assert shop.count() == done["added"] == done["rows_read"] - 1 < 1398
    store.write(lambda tx: tx.run("UPDATE imports SET alive_at = 0"))
    assert Worker(shop.instance)._imports() is True
    done = store.records.get_import(shop.id, id_)
    numbers = {name: done[name] for name in ("state", "added", "known", "duplicates", "refused", "labels")}
    assert numbers == {
        "state": "finished", "added": 1398, "known": 1, "duplicates": 1, "refused": 1, "labels": 1397,
    }  # fmt: skip
    assert [number for number, _, _ in strictjson.loads(done["report"])] == [5]


def test_import_that_was_taken_over_writes_nothing_more(shop: Shop) -> None:
    """Two processes never import one file beside each other: whoever lost the claim stops at the next slice."""
    store = shop.instance.store
    path = write_csv(shop.folder / "upload.csv", 1200)
    id_ = queue(shop, path)
    first = store.write(store.records.claim_import)
    assert first is not None
    counted: list[int] = []

    def overtaken(position: int, size: int, report: Report) -> None:
        counted.append(shop.count())
        store.write(lambda tx: tx.run("UPDATE imports SET alive_at = 0"))
        assert Worker(shop.instance)._imports() is True

    with pytest.raises(Conflict, match=f"Another worker has taken over import {id_}"):
        shop.instance.importer(shop.project).run(
            path, ImportOptions(), import_id=id_, token=first["token"], on_progress=overtaken
        )
    done = store.records.get_import(shop.id, id_)
    assert counted == [FEWEST_ROWS]
    assert (done["state"], done["added"], done["known"], shop.count()) == ("finished", 1200, 0, 1200)


def test_worker_that_lost_an_import_leaves_the_file_to_the_other(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The import stays the other's: it is neither put back nor is its file removed."""
    store = shop.instance.store
    path = write_csv(shop.folder / "upload.csv", 600)
    queue(shop, path)

    def overtaken(*_: Any, **__: Any) -> Report:
        store.write(lambda tx: tx.run("UPDATE imports SET alive_at = 0"))
        assert store.write(store.records.claim_import) is not None
        raise Conflict("Another worker has taken over")

    monkeypatch.setattr("labeler.ingest.service.Importer.run", overtaken)
    assert Worker(shop.instance)._imports() is True
    assert shop.last_import()["state"] == "running"
    assert path.exists()


def test_import_that_reads_for_long_stays_its_own(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a strict import reads the whole file first it says that it lives, and nobody takes it over."""
    monkeypatch.setattr("labeler.ingest.service._BEAT", 0.01)
    store = shop.instance.store
    reading, go = threading.Event(), threading.Event()

    def slowly(record: Record) -> Record:
        reading.set()
        assert go.wait(20)
        return record

    importer = shop.instance.importer(shop.project)
    importer.prepare = slowly
    id_ = queue(shop, write_csv(shop.folder / "upload.csv", 10), strict=True)
    claimed = store.write(store.records.claim_import)
    assert claimed is not None
    path, options = shop.folder / "upload.csv", ImportOptions(**claimed["options"])
    run = threading.Thread(
        target=importer.run, args=(path, options), kwargs={"import_id": id_, "token": claimed["token"]}
    )
    run.start()
    assert reading.wait(20)
    store.write(lambda tx: tx.run("UPDATE imports SET alive_at = 0"))
    until(lambda: shop.last_import()["alive_at"] > 0)
    assert store.write(store.records.claim_import) is None
    go.set()
    run.join()
    assert (shop.last_import()["state"], shop.last_import()["added"]) == ("finished", 10)


def test_killed_command_leaves_nothing_for_the_worker_to_stumble_over(shop: Shop) -> None:
    """The file of a killed ``labeler import`` is the person's: its row ends as failed and says what to do."""
    store = shop.instance.store
    settings = {"path": "", "options": ImportOptions().to_json()}
    store.write(lambda tx: store.records.start_import(tx, shop.id, "r.csv", settings, None, 9))
    store.write(lambda tx: tx.run("UPDATE imports SET alive_at = 0"))
    assert Worker(shop.instance)._imports() is True
    assert (shop.last_import()["state"], "import the file again" in recalled(shop.last_import()["message"])) == (
        "failed",
        True,
    )


def test_import_of_another_project_is_not_found(shop: Shop) -> None:
    """FAULTS 41: an import's number says nothing in another project."""
    id_ = queue(shop, shop.file("id,text\n1,맛있어요\n", "abc123.csv"))
    other = shop.instance.create_project("other")
    with pytest.raises(NotFound):
        shop.instance.store.records.get_import(other, id_)


def test_guesses_are_made_once_and_stay(shop: Shop) -> None:
    """resolve() returns options with every guess made, and made again they are the same."""
    path = shop.file("번호,상품명,리뷰내용\n1,사과,아주 달고 맛있어요\n2,배,시원하고 달아요\n")
    options = resolve(path, ImportOptions())
    assert (options.id, options.group, options.text) == ("번호", "상품명", "리뷰내용")
    assert resolve(path, options) == options == replace(options)


def test_changing_the_unit_of_a_task_changes_its_pending_queue(shop: Shop) -> None:
    """A task switched to products queues one record a product and lets the pending reviews go; decided ones stay."""
    shop.run("id,product,text\na,사과,달아요\nb,사과,셔요\n")
    with_groups(shop)
    queued = shop.instance.store.work.front(shop.id, "usage", "oldest", 10)
    records = shop.instance.store.records.many(queued)
    assert [record.key for record in records.values()] == ["group:사과"]
    shop.instance.change_task(shop.id, "usage", {})
    queued = shop.instance.store.work.front(shop.id, "usage", "oldest", 10)
    assert sorted(record.key for record in shop.instance.store.records.many(queued).values()) == ["a", "b"]
