"""Reading files of reviews: every format, every encoding, and every way in which a file can be wrong."""

import csv
import datetime
import gzip
import io
import json
import random
import sys
import tracemalloc
import unicodedata
import zipfile

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labeler.errors import Doubt, FileRefused, MissingExtra, TooLarge
from labeler.ingest import tables, workbook_guard
from labeler.ingest.lines import split_lines
from labeler.ingest.readers import Limits, Row, RowError, open_rows
from labeler.ingest.rows import composed

KOREAN = "번호,리뷰\r\n1,배송이 빠르고 맛있어요\r\n2,별로예요 똠얌 맛이 안 나요\r\n"
KOREAN_ROWS = ["배송이 빠르고 맛있어요", "별로예요 똠얌 맛이 안 나요"]


@pytest.fixture
def put(tmp_path):
    """Write a file and return its path; text is written as UTF-8."""

    def write(name, data):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


def read(path, **options):
    """Return (good rows as {number: values}, bad rows as {number: reason})."""
    good, bad = {}, {}
    with open_rows(path, **options) as source:
        for row in source:
            if isinstance(row, Row):
                assert list(row.values) == list(source.columns) or source.format in ("json", "jsonl")
                good[row.number] = row.values
            else:
                bad[row.number] = row.reason
    return good, bad


def column(path, name, **options):
    good, bad = read(path, **options)
    assert not bad
    return [values[name] for values in good.values()]


def refusal(path, kind=FileRefused, **options):
    with pytest.raises(kind) as caught:
        read(path, **options)
    return str(caught.value)


# CSV and TSV


def test_csv_row_has_the_line_it_starts_on(put):
    """The header is line 1; a row after a cell of two lines counts both."""
    good, bad = read(put("a.csv", 'id,text\n1,"first\nsecond"\n\n2,b\n'))
    assert good == {2: {"id": "1", "text": "first\nsecond"}, 5: {"id": "2", "text": "b"}}
    assert not bad


def test_source_describes_the_file(put):
    """Format, encoding, delimiter, columns and size are known before the first row."""
    path = put("a.csv", "id;text\n1;좋아요\n")
    with open_rows(path) as source:
        assert (source.format, source.encoding, source.delimiter) == ("csv", "utf-8", ";")
        assert (source.columns, source.size, source.notes) == (["id", "text"], path.stat().st_size, [])


def test_cells_stay_as_they_are_written(put):
    """Numbers, formulas, leading zeros and white space of a CSV file are text."""
    assert column(put("a.csv", 'a,b\n007,"=1+1"\n1e5,@x\n" x ",-1\n'), "a") == ["007", "1e5", " x "]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found(put, delimiter):
    """The delimiter is what gives every line as many cells as the header."""
    lines = [["id", "text", "rating"], ["1", "좋아요 맛있어요", "5"], ["2", "가격: 싸요", "3"]]
    path = put("a.csv", "".join(delimiter.join(line) + "\n" for line in lines))
    with open_rows(path) as source:
        assert source.delimiter == delimiter
        assert source.format == ("tsv" if delimiter == "\t" else "csv")
        assert [list(row.values.values()) for row in source] == lines[1:]


def test_commas_in_the_text_do_not_hide_a_semicolon(put):
    """Decimal commas and prose do not win against the delimiter of the header."""
    assert column(put("a.csv", "id;text;x\n1;a, b, c;4,5\n2;d, e;1,5\n"), "text") == ["a, b, c", "d, e"]


def test_quoted_text_does_not_decide_the_delimiter(put):
    """Semicolons inside quotes are text."""
    assert column(put("a.csv", 'id,text\n1,"a;b;c"\n2,"d;e;f"\n'), "text") == ["a;b;c", "d;e;f"]


def test_delimiter_that_is_not_clear_is_asked_about(put):
    """Two that divide every row into as many cells: each is a choice, and reads the file its way."""
    path = put("a.csv", "id;text,rating\n1;좋아요,5\n2;별로,1\n")
    with pytest.raises(Doubt, match="not clear: ',' and ';' both divide the rows into 2 cells") as caught:
        read(path)
    assert [read(path, **choice)[0][2] for choice in caught.value.choices] == [
        {"id;text": "1;좋아요", "rating": "5"}, {"id": "1", "text,rating": "좋아요,5"},
    ]  # fmt: skip
    assert "--delimiter , or --delimiter ';'" in (caught.value.remedy or "")
    named = put("b.tsv", "id\ttext,rating\n1\t좋아요,5\n")
    assert read(named)[0] == {2: {"id": "1", "text,rating": "좋아요,5"}}


def test_marks_in_prose_are_no_question_about_the_delimiter(put):
    """A comma and a semicolon in one line divide no other: that is no choice between two tables."""
    with open_rows(put("a.csv", "좋아요, 굿; 최고\n별로\n그냥\n")) as source:
        assert source.delimiter == ","


def test_given_delimiter_is_used(put):
    """A person knows better; ``tab`` and ``none`` are words for what is hard to type."""
    path = put("a.csv", "a,b|c\n1,2|3\n")
    assert read(path, delimiter="|")[0] == {2: {"a,b": "1,2", "c": "3"}}
    assert read(path, delimiter="none")[0] == {2: {"a,b|c": "1,2|3"}}
    assert column(put("b.csv", "a\tb\n1\t2\n"), "b", delimiter="tab") == ["2"]


@pytest.mark.parametrize("delimiter", ['"', "\n", "ab", " "])
def test_impossible_delimiter_is_refused(put, delimiter):
    """A quote, a line end or two characters cannot separate cells."""
    assert "delimiter" in refusal(put("a.csv", "a,b\n"), delimiter=delimiter)


def test_excel_hint_names_the_delimiter(put):
    """The line ``sep=;`` is for Excel, also in quotes; the header is line 2 then."""
    for hint in ("sep=;", '"sep=;"', "SEP=;"):
        path = put("a.csv", f"{hint}\r\na;b\r\n1;2,3\r\n")
        assert read(path)[0] == read(path, delimiter=";")[0] == {3: {"a": "1", "b": "2,3"}}


def test_one_column_needs_no_delimiter(put):
    """A file of texts, one a line, may have commas in them; a first line of no known name is pointed out."""
    rows = "\n좋아요, 맛있어요, 굿\n별로\n가격이, 흠\n"
    path = put("a.txt", "리뷰" + rows)
    with open_rows(path) as source:
        assert (source.delimiter, source.columns, source.notes) == (None, ["리뷰"], [])
    with open_rows(put("b.txt", "데이터" + rows)) as source:
        assert source.notes == ["The first line was taken as the name of the only column: '데이터'"]
    assert column(path, "리뷰") == ["좋아요, 맛있어요, 굿", "별로", "가격이, 흠"]


def test_file_without_header(put):
    """With ``header=False`` the columns are numbered and line 1 is a row."""
    good, _ = read(put("a.csv", "1,좋아요\n2,별로\n"), header=False)
    assert good == {1: {"column 1": "1", "column 2": "좋아요"}, 2: {"column 1": "2", "column 2": "별로"}}


def test_bad_first_line_without_header_is_a_row_error(put):
    """The first good row says how many columns there are."""
    good, bad = read(put("a.csv", b"\xff,a\n2,b\n"), header=False, encoding="utf-8")
    assert (list(good), list(bad)) == ([2], [1])


@pytest.mark.parametrize("first", ["1,좋아요", "2024-01-02,x", "a,4.5", "2024-01-02 10:00:00,x"])
def test_header_that_looks_like_data_is_asked_about(put, first):
    """A number or a date is no column name; a person says whether it is one, or the first row."""
    path = put("a.csv", f"{first}\n2,별로\n")
    with pytest.raises(Doubt, match="looks like data") as caught:
        read(path)
    assert caught.value.choices == [{"header": False}, {"header_row": "1"}]
    assert [len(read(path, **choice)[0]) for choice in caught.value.choices] == [2, 1]


def test_question_as_column_name_is_no_data(put):
    """Survey forms have whole questions for headers."""
    path = put("a.csv", "타임스탬프,이 제품의 좋았던 점은 무엇인가요?\n2024-01-02,맛있어요\n")
    assert column(path, "이 제품의 좋았던 점은 무엇인가요?") == ["맛있어요"]


def test_duplicate_column_name_is_refused_by_name(put):
    """Two columns of one name cannot be told apart."""
    message = refusal(put("a.csv", "id,text,text \n1,a,b\n"))
    assert "'text'" in message
    assert "columns 2 and 3" in message


def test_missing_column_name_becomes_a_number(put):
    """The nameless first column that pandas writes is kept."""
    assert read(put("a.csv", ",text\n0,a\n"))[0] == {2: {"column 1": "0", "text": "a"}}


TITLES = ["리뷰 목록", "리뷰 목록,,", "리뷰", "리뷰 목록\n판매자: 가게\n기간: 1월\n", "판매자,가게\n기간,1월\n,,"]


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_titles_above_the_header_are_passed_over(put, title, rows):
    """However short the table is, its names are found below titles, and a note says which row they are."""
    body = "".join(f"{n},배송이 빨라요,5\n" for n in range(rows))
    with open_rows(put("a.csv", f"{title}\n번호,내용,평점\n{body}")) as source:
        assert source.columns == ["번호", "내용", "평점"]
        number = title.count("\n") + 2
        assert (source.header, source.notes) == (
            str(number),
            [f"Everything above the column names (row {number}) was skipped"],
        )
        assert len([row for row in source if isinstance(row, Row)]) == rows


def test_row_below_a_title_that_has_no_known_name_is_asked_about(put):
    """It may hold the names, or the first review."""
    path = put("a.csv", "리뷰 목록\n가나,다라,마바\n" + "사아,자차,카타\n" * 6)
    with pytest.raises(Doubt, match="Row 2 may hold the column names: '가나', '다라', '마바'") as caught:
        read(path)
    assert caught.value.choices == [{"header_row": "2"}, {"header": False}]
    assert len(read(path, header_row="2")[0]) == 6


def test_first_row_that_looks_like_a_review_is_asked_about(put):
    """A file without names would lose its first review to the header."""
    texts = ["배송이 빠르고 좋아요", "생각보다 양이 적어요", "다음에 또 살게요 굿"]
    for rows in (texts, [f"{text},{label}" for text, label in zip(texts * 2, "긍부긍부긍부", strict=True)]):
        with pytest.raises(Doubt, match="already a review") as caught:
            read(put("a.csv", "\n".join(rows)))
        assert caught.value.remedy == "Say which: --header-row 1 or --no-header"


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ("번호,리뷰,\n,내용,평점\n", ["번호", "내용", "평점"]),
        ("리뷰,,등록일\n번호,내용,\n", ["번호", "내용", "등록일"]),
        ("상품,,리뷰,\n번호,이름,번호,내용\n", ["상품 번호", "이름", "리뷰 번호", "내용"]),
    ],
)
def test_names_in_two_rows_are_joined(put, rows, names):
    """Cells merged over two rows leave gaps in one of them; where two names would be the same the upper one tells."""
    body = "".join(f"{n}," + ",".join(["좋아요"] * (len(names) - 1)) + "\n" for n in range(3))
    with open_rows(put("a.csv", rows + body)) as source:
        assert (source.columns, source.header) == (names, "1-2")
        assert source.notes == ["The column names of the rows 1 and 2 were joined"]
        assert len(list(source)) == 3


def test_header_row_is_what_a_person_says(put):
    """One row, or two that are joined; a row that cannot be it is refused."""
    path = put("a.csv", "x,y\nid,\n,text\n1,좋아요\n")
    assert read(path, header_row="2-3")[0] == {4: {"id": "1", "text": "좋아요"}}
    assert list(read(path, header_row="2")[0]) == [3, 4]
    assert "is not a row of column names" in refusal(path, header_row="zwei")
    assert "cannot hold the column names" in refusal(path, header_row="90")


def test_column_names_that_stand_again_are_passed_over(put):
    """Two files joined into one have them in the middle, perhaps behind a byte order mark."""
    with open_rows(put("a.csv", "id,text\n1,a\n\ufeffid,text\n2,b\nid,text\n3,c\n")) as source:
        assert [row.values["text"] for row in source] == ["a", "b", "c"]
        assert source.notes == ["The column names are repeated in the middle, 2 time(s); these rows were skipped"]


def test_empty_cells_beyond_the_last_column_do_no_harm(put):
    """A comma at the end of each row is no cell."""
    assert read(put("a.csv", "id,text\n1,좋아요,\n2,별로,,\n"))[1] == {}


def test_rows_without_their_empty_last_cells_are_read(put):
    """Some programs leave them out; what is missing is empty."""
    good, bad = read(put("a.csv", "id,text,rating,memo\n1,좋아요,5\n2,별로,1\n3,보통,3,확인\n"))
    assert (good[2], bad) == ({"id": "1", "text": "좋아요", "rating": "5", "memo": None}, {})


def test_rows_that_a_line_break_cut_in_two_are_refused(put):
    """A short row may be half a review: where one half does not fit, none of the short rows is taken."""
    good, bad = read(put("a.csv", "id,text,rating,memo\n1,좋아요\n정말 최고,5,굿\n3,보통,3,확인\n"))
    assert (list(good), list(bad)) == ([4], [2, 3])


def test_quotes_behind_a_backslash_are_text(put):
    """Databases write them so; a backslash elsewhere stays."""
    content = r"id,text" + "\n" + r'1,"그는 \"좋아요\", 라고 했다"' + "\n" + r'2,"C:\새 폴더, 굿"' + "\n"
    assert column(put("a.csv", content), "text") == ['그는 "좋아요", 라고 했다', r"C:\새 폴더, 굿"]


def test_header_names_are_trimmed_and_composed(put):
    """A name from a Mac in NFD is the same name."""
    with open_rows(put("a.csv", " id , \u1105\u1175\u1107\u1172\n1,a\n")) as source:
        assert source.columns == ["id", "리뷰"]


def test_ragged_row_is_reported_and_the_others_read(put):
    """Too many or too few cells: a row error with both numbers."""
    good, bad = read(put("a.csv", "a,b\n1,2\n1,2,3\n1\n3,4\n"))
    assert list(good) == [2, 5]
    assert bad == {3: "row has 3 cells, header has 2", 4: "row has 1 cell, header has 2"}


def test_wrong_delimiter_is_no_silent_loss(put):
    """Rows that do not fit the delimiter are all reported."""
    good, bad = read(put("a.csv", "a,b\n1;2\n3;4\n"))
    assert (good, len(bad)) == ({}, 2)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system(put, end):
    """Unix, Windows and old Macintosh."""
    assert list(read(put("a.csv", end.join(["a,b", "1,2", '"x', 'y",3', "4,5"])))[0]) == [2, 3, 5]


def test_mixed_line_ends(put):
    """A file put together from several systems has lines of each kind."""
    good, bad = read(put("a.csv", 'a,b\r\n1,2\r3,"x\ny"\n5,6\r\n\r\n7,8'))
    assert list(good) == [2, 3, 5, 7]
    assert good[3]["b"] == "x\ny"
    assert not bad


def test_unicode_line_separators_end_no_line(put):
    """U+2028, U+0085, vertical tab and form feed are characters of a text."""
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    assert column(put("a.csv", f"id,text\n1,{text}\n"), "text") == [text]


def test_unclosed_quote_is_reported_where_it_opens(put):
    """A lost quote costs its own row, not the file."""
    good, bad = read(put("a.csv", 'id,text\n1,a\n2,"lost\n3,c\n4,d\n'))
    assert list(good) == [2, 4, 5]
    assert bad == {3: "a quote is opened in this row and never closed"}


def test_unclosed_quote_before_a_quoted_cell(put):
    """The next quote betrays it, and rows between the two are read."""
    good, bad = read(put("a.csv", 'id,text\n1,"lost\n2,b\n3,"c"\n4,d\n'))
    assert list(good) == [3, 4, 5]
    assert "next quote, on line 4" in bad[2]


def test_quote_that_is_not_doubled(put):
    """A quote inside a quoted cell is an error of that row alone."""
    good, bad = read(put("a.csv", 'id,text\n1,"he said "hi" there"\n2,b\n'))
    assert list(good) == [3]
    assert "not doubled" in bad[2]


def test_quote_inside_an_unquoted_cell_is_text(put):
    """Inches and the like need no quoting."""
    assert column(put("a.csv", 'id,text\n1,5" phone\n'), "text") == ['5" phone']


def test_space_before_a_quote(put):
    """Files written by hand have a space behind the comma."""
    assert column(put("a.csv", 'id, text\n1, "a, b"\n2, "c"\n'), "text") == ["a, b", "c"]


def test_tsv_with_loose_quotes(put):
    """In a corpus that does not quote its cells a quote is a character, and no row swallows the next."""
    path = put("a.tsv", 'id\tdocument\tlabel\n1\t"참 좋다\t1\n2\t그냥\t0\n3\t최고라고 함"\t1\n4\t"a"b\t1\n')
    assert column(path, "document") == ['"참 좋다', "그냥", '최고라고 함"', '"a"b']


def test_tsv_with_quoted_cells(put):
    """Quotes around cells with tabs, quotes and line ends are quotes."""
    assert column(put("a.tsv", 'id\ttext\n1\t"a\nb"\n2\t"c\td ""e"""\n'), "text") == ["a\nb", 'c\td "e"']


def test_rows_of_empty_cells_are_passed_over(put):
    """Blank lines and the lines of commas that Excel leaves are no rows and no errors."""
    good, bad = read(put("a.csv", "a,b\n\n  \n,\n1,2\n\n"))
    assert (list(good), bad) == ([5], {})


def test_header_alone_has_no_rows(put):
    """A table may be empty."""
    assert read(put("a.csv", "id,text\n")) == ({}, {})


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.xlsx", "a.parquet", "a.txt", "a"])
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b" \n\n"])
def test_empty_file_is_refused(put, name, content):
    """Nothing, a byte order mark or blank lines are no file of reviews."""
    message = refusal(put(name, content))
    assert message == "The file is empty" or name in ("a.xlsx", "a.parquet")


def test_cell_beyond_the_limit_is_a_row_error(put):
    """A cell of eleven megabytes is not read, and the next row is."""
    path = put("a.csv", "id,text\n1," + "가" * 4_000_000 + "\n2,b\n")
    good, bad = read(path)
    assert (list(good), bad) == ([3], {2: "the line is longer than 10 MiB"})


def test_quoted_row_beyond_the_limit_is_a_row_error(put):
    """The limit counts for the lines of a row together."""
    good, bad = read(put("a.csv", 'id,text\n1,"' + "aaa\n" * 50 + '"\n2,b\n'), limits=Limits(max_row_bytes=100))
    assert "longer than 100 bytes" in bad[2]
    assert list(good) == [53]


def test_cell_as_long_as_the_limit_is_read(put):
    """The csv module's own limit of 131,072 characters is raised."""
    text = "a" * 200_000
    assert column(put("a.csv", f"id,text\n1,{text}\n"), "text") == [text]


def test_file_with_broken_quotes_everywhere_is_given_up(put, monkeypatch):
    """A file made to be read again at every line is refused, not read for hours."""
    monkeypatch.setattr(tables, "_READ_AGAIN", 1_000_000)
    assert "quotes" in refusal(put("a.csv", "a,b,c\n" + '",a","\n' * 60_000))


def test_nul_is_a_row_error(put):
    """NUL cannot be stored; the message says where it stands."""
    good, bad = read(put("a.csv", "id,text\n1,좋\0아요\n2,b\n"))
    assert (list(good), bad) == ([3], {2: "a NUL character at byte 6 of the line"})


# Encodings


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("cp949", "cp949"),
        ("utf-16", "utf-16-le"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
    ],
)
def test_encoding_is_found(put, encoding, found):
    """What Korean Excel and editors write is known without asking."""
    path = put("a.csv", KOREAN.encode(encoding))
    with open_rows(path) as source:
        assert (source.encoding, source.guessed, source.columns) == (found, False, ["번호", "리뷰"])
    assert column(path, "리뷰") == KOREAN_ROWS


def test_big_endian_byte_order_mark(put):
    """UTF-16 in the order of old Macintoshes."""
    assert column(put("a.csv", b"\xfe\xff" + KOREAN.encode("utf-16-be")), "리뷰") == KOREAN_ROWS


def test_euc_kr_is_found(put):
    """EUC-KR is read as CP949, which contains it."""
    text = "번호,리뷰\n1,배송이 빠르고 맛있어요\n"
    path = put("a.csv", text.encode("euc_kr"))
    assert column(path, "리뷰") == ["배송이 빠르고 맛있어요"]
    with open_rows(path, encoding="EUC-KR") as source:
        assert source.encoding == "cp949"


@pytest.mark.parametrize(
    "text",
    [
        "번호,리뷰\n1,햏자님 뷁\n2,됬네요 펲시 쎄요\n",
        "번호,후기\n1,大韓民國 最高 좋아요\n",
        "번호,후기\n1,좋아요 ♥♡★\n",
    ],
)
def test_rare_syllables_do_not_hide_korean(put, text):
    """Slang, Hanja and hearts are beyond the everyday syllables, and the rest tells the language."""
    with open_rows(put("a.csv", text.encode("cp949"))) as source:
        assert (source.encoding, source.guessed) == ("cp949", False)


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        ("id,text\n0,这个产品质量很好我很喜欢\n", "gbk", "gb18030"),
        ("id,text\n0,包装破损了，不推荐\n", "gbk", "gb18030"),
        ("id,text\n0,這個產品品質很好我很喜歡\n", "big5", "big5"),
        ("id,text\n0,とても良い商品でした\n", "cp932", "cp932"),
        ("id,text\n0,とても良い商品でした\n", "euc_jp", "euc_jp"),
    ],
)
def test_chinese_and_japanese_are_no_korean_nonsense(put, text, encoding, found):
    """The bytes decode as Korean too; the letters that come out are not those of Korean, and a note says so."""
    path = put("a.csv", text.encode(encoding))
    with open_rows(path) as source:
        assert (source.encoding, source.guessed) == (found, True)
        assert next(iter(source)).values["text"] == text.split(",", 2)[2].strip().replace("0,", "")


def test_encoding_that_is_not_clear_is_asked_about(put):
    """Korean beside Chinese in one file: both readings are shown."""
    korean, chinese = "좋아요 맛있어요".encode("cp949"), "很好我很喜欢".encode("gbk")
    with pytest.raises(Doubt, match="The encoding is not clear") as caught:
        read(put("a.csv", b"id,text\n1," + korean + b"\n2," + chinese + b"\n"))
    assert {choice["encoding"] for choice in caught.value.choices} == {"cp949", "gb18030"}


def test_western_text_is_a_guess(put):
    """Smart quotes and accents are no Korean; the guess is pointed out."""
    path = put(
        "a.csv", "id,text\n1,It’s a café, naïve and “good”\n2,Señor déjà vu\n".replace("é,", "é").encode("cp1252")
    )
    with open_rows(path) as source:
        assert (source.encoding, source.guessed) == ("cp1252", True)
        assert "guessed" in source.notes[0]
        assert next(iter(source)).values["text"] == "It’s a café naïve and “good”"


def test_given_encoding_is_used(put):
    """A person knows better than the first megabyte."""
    path = put("a.csv", "id,text\n1,日本語テスト\n".encode("shift_jis"))
    assert column(path, "text", encoding="shift_jis") == ["日本語テスト"]


def test_given_utf16_without_mark(put):
    """``utf-16`` finds the byte order by itself."""
    assert column(put("a.csv", KOREAN.encode("utf-16-be")), "리뷰", encoding="utf-16") == KOREAN_ROWS


@pytest.mark.parametrize(
    "encoding", ["nonsense", "base64", "rot13", "utf-7", "iso2022_kr", "cp037", "undefined", "a\0b", ""]
)
def test_unusable_encoding_is_refused(put, encoding):
    """An unknown name, a codec that is no encoding, and encodings that lose their place in a line."""
    assert "encoding" in refusal(put("a.csv", "id,text\n1,a\n"), encoding=encoding)


def test_bytes_that_do_not_decode_are_a_row_error(put):
    """One damaged line does not change the encoding of the file or stop it."""
    good, bad = read(put("a.csv", KOREAN.encode() + b"3,abc\xffdef\n" + "4,좋아요\n".encode()))
    assert list(good) == [2, 3, 5]
    assert bad == {4: "byte 6 of the line (0xff) is not utf-8"}


def test_bad_bytes_inside_a_quoted_cell_name_their_line(put):
    """The row keeps its other lines, so the rows after it are read right."""
    good, bad = read(put("a.csv", b'id,text\n1,"a\nb\xff,"\n2,c\n'), encoding="utf-8")
    assert (list(good), bad) == ([4], {2: "byte 2 of the line (0xff) is not utf-8 (line 3)"})


def test_bad_bytes_in_cp949(put):
    """The last line is cut in the middle of a syllable."""
    good, bad = read(put("a.csv", (KOREAN + "3,맛있어요\r\n4,끝").encode("cp949")[:-1]))
    assert len(good) == 3
    assert "is not cp949" in bad[5]


def test_lone_surrogate_in_utf16(put):
    """Half a character is a row error, whole emoji are not."""
    data = "id,text\n1,굿👍\n2,".encode("utf-16-le") + b"\x3d\xd8" + "\n3,c\n".encode("utf-16-le")
    good, bad = read(put("a.csv", b"\xff\xfe" + data))
    assert good[2]["text"] == "굿👍"
    assert list(bad) == [3]


def test_utf16_cut_in_a_character(put):
    """A file with an odd number of bytes lost its end."""
    good, bad = read(put("a.csv", KOREAN.encode("utf-16") + "3,a".encode("utf-16-le")[:-1]))
    assert (len(good), len(bad)) == (2, 1)


def test_bad_bytes_beyond_the_head(put):
    """Bytes are checked to the end, not only where the encoding was found."""
    lines = [b"id,text"] + [b"%d," % n + b"a" * 100 for n in range(20_000)]
    lines[15_000] = b"x,\xb0\xa1\xff"
    good, bad = read(put("a.csv", b"\n".join(lines)))
    assert (len(good), list(bad)) == (19_999, [15_001])


def test_binary_file_is_refused(put):
    """Bytes that are no text in any encoding are no CSV."""
    assert "not text" in refusal(put("a.csv", random.Random(1).randbytes(5000)))


def test_utf32_is_refused(put):
    """UTF-32 begins like UTF-16 and must not be taken for it."""
    assert "UTF-32" in refusal(put("a.csv", "a,b\n".encode("utf-32")))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([None, "cp949", "utf-16"]),
    st.lists(
        st.lists(
            st.text(
                st.sampled_from('가힣똠맛a1 ,;|\t"\n\r=ㅋ.') | st.characters(codec="utf-8", exclude_characters="\0")
            ),
            min_size=3,
            max_size=3,
        ).filter(any),
        max_size=8,
    ),
)
def test_what_csv_writer_writes_is_read_back(tmp_path, encoding, rows):
    """Any table, in UTF-8, CP949 or UTF-16, comes back cell by cell."""
    if encoding == "cp949":
        rows = [[cell.encode("cp949", "ignore").decode("cp949") for cell in row] for row in rows]
        rows = [row for row in rows if any(row)]
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding=encoding or "utf-8") as file:
        csv.writer(file).writerows([["id", "text", "n"], *rows])
    good, bad = read(path, encoding="cp949" if encoding == "cp949" else None)
    assert not bad
    assert [list(values.values()) for values in good.values()] == composed(rows)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(st.sampled_from("ab\r\n\u2028"), min_size=1)), st.booleans())
def test_lines_do_not_depend_on_chunks(chunks, universal):
    r"""Wherever a chunk ends, also between \r and \n, the lines are those of the whole text."""
    text = "".join(chunks)
    whole = list(io.StringIO(text, newline="" if universal else "\n"))
    lines = split_lines(((chunk, False) for chunk in chunks), "utf-8", 1000, universal=universal)
    assert [line for line, _ in lines] == whole


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300), st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt", "a.xlsx", "a.parquet"])
)
def test_any_bytes_are_read_or_refused(tmp_path, data, name):
    """No content of a file raises anything but a refusal."""
    path = tmp_path / name
    path.write_bytes(data)
    try:
        read(path)
    except (FileRefused, TooLarge) as error:
        assert str(error)


# JSON Lines and JSON


def test_columns_of_pandas_are_rows(put):
    """What pandas writes unless told otherwise is one object with a column under each name."""
    path = put("a.json", '{"id": {"0": 1, "1": 2}, "text": {"0": "좋아요", "1": "별로"}}')
    assert read(path)[0] == {1: {"id": 1, "text": "좋아요"}, 2: {"id": 2, "text": "별로"}}


def test_names_and_texts_of_a_mac_are_composed(put):
    """Decomposed Hangul in names, texts and lists, also behind escapes, is the same as composed."""
    text = unicodedata.normalize("NFD", "리뷰")
    for content in (f'{{"{text}": ["{text}"]}}', json.dumps({text: [text]})):
        assert read(put("a.jsonl", content))[0] == {1: {"리뷰": ["리뷰"]}}


def test_jsonl_rows(put):
    """Each line is an object with any values; blank lines are passed over."""
    path = put("a.jsonl", '{"id":1,"text":"a"}\n\n{"id":2,"text":"b","more":{"x":[1]}}\r\n')
    with open_rows(path) as source:
        assert (source.format, source.columns) == ("jsonl", ["id", "text", "more"])
        assert list(source) == [
            Row(1, {"id": 1, "text": "a"}),
            Row(3, {"id": 2, "text": "b", "more": {"x": [1]}}),
        ]


def test_jsonl_line_separators_inside_a_text(put):
    """U+2028 does not end a line of JSON."""
    assert column(put("a.jsonl", '{"text":"a\u2028b\u2029c"}\n{"text":"d"}\n'), "text") == ["a\u2028b\u2029c", "d"]


@pytest.mark.parametrize(
    "line",
    [
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":1,"a":2}',
        '{"a":' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a":"\\ud800"}',
        '{"a":"x\0y"}',
        '{"a":1',
        "{'a':1}",
        '{"a":1}{"b":2}',
        "[1,2]",
        '"text"',
        "5",
        "null",
        "true",
        "hello",
    ],
)
def test_bad_json_line_is_a_row_error(put, line):
    """What is not a strict JSON object is reported with its line; the others are read."""
    good, bad = read(put("a.jsonl", f'{{"a":"first"}}\n{line}\n{{"a":"last"}}\n'))
    assert list(good) == [1, 3]
    assert len(bad[2]) < 200


def test_json_error_names_the_column_and_no_wrong_line(put):
    """Each line is parsed alone, so only the column of the message is true."""
    _, bad = read(put("a.jsonl", '{"a":1}\n{"a":x}\n'))
    assert bad[2] == "Not JSON at column 6: Expecting value"
    assert bad[2].template == "Not JSON at column %(column)s: %(why)s"


def test_undecodable_json_line_is_a_row_error(put):
    """Bad bytes in one line leave the others readable."""
    good, bad = read(put("a.jsonl", '{"a":"좋아요"}\n'.encode() + b'{"a":"\xff"}\n{"a":1}\n'))
    assert (list(good), bad) == ([1, 3], {2: "byte 7 of the line (0xff) is not utf-8"})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp949"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_in_other_encodings(put, encoding, name):
    """JSON should be UTF-8; what Windows writes is read as well."""
    objects = [json.dumps({"text": text}, ensure_ascii=False) for text in KOREAN_ROWS]
    text = "\n".join(objects) if name == "a.jsonl" else "[" + ",\n".join(objects) + "]"
    assert column(put(name, text.encode(encoding)), "text") == KOREAN_ROWS


def test_json_line_beyond_the_limit_is_a_row_error(put):
    """A line of fifty megabytes is dropped while it is read."""
    path = put("a.jsonl", '{"a":1}\n{"a":"' + "x" * 50_000_000 + '"}\n{"a":2}\n')
    good, bad = read(path)
    assert (list(good), bad) == ([1, 3], {2: "the line is longer than 10 MiB"})


def test_json_array_is_read_one_by_one(put):
    """The number of a row is its place in the list, from 1."""
    path = put("a.json", ' [ {"id": 1, "t": "]},{[\\"\\\\"},\n{"id": 2, "m": {"x": [1, {"y": 2}]}} ] ')
    with open_rows(path) as source:
        assert (source.format, source.columns) == ("json", ["id", "t", "m"])
        assert list(source) == [Row(1, {"id": 1, "t": ']},{["\\'}), Row(2, {"id": 2, "m": {"x": [1, {"y": 2}]}})]


@pytest.mark.parametrize("indent", [None, 2])
def test_json_array_larger_than_a_chunk(put, indent):
    """Records that lie across the chunks in which a file is read come back whole."""
    rows = [{"id": n, "text": '가나다 \\ " \n 👍' * (n % 50), "more": [n, {"x": [str(n)]}]} for n in range(3000)]
    good, bad = read(put("a.json", json.dumps(rows, indent=indent)))
    assert (list(good.values()), bad) == (rows, {})


def test_bad_elements_of_a_json_array(put):
    """Elements that are no objects or no JSON are reported; those after them are read."""
    good, bad = read(put("a.json", '[{"a":1}, 5, {"a":}, {"a":NaN}, [1], "x", {"a":2}, , {"a":1 "b":2}, {"a":3}]'))
    assert list(good) == [1, 7, 10]
    assert list(bad) == [2, 3, 4, 5, 6, 8, 9]


@pytest.mark.parametrize("content", ['[{"a":1}', '[{"a":1},{"a":', '[{"a":1},{"a":"x', '[{"a":1},'])
def test_json_array_without_an_end(put, content):
    """A file that was cut off gives its rows and an error."""
    good, bad = read(put("a.json", content))
    assert list(bad.values()) == ["the list is not closed: the file is cut off, or a bracket or quote is missing here"]
    assert list(good) == ([1] if "}," in content else [])


def test_text_behind_a_json_array(put):
    """Nothing is dropped silently."""
    good, bad = read(put("a.json", '[{"a":1}]\n[{"a":2}]'))
    assert list(good) == [1]
    assert "behind the end of the list" in bad[2]


def test_empty_json_array_has_no_rows(put):
    """An empty list is a file of no reviews."""
    assert read(put("a.json", "[ ]")) == ({}, {})


def test_element_beyond_the_limit_is_a_row_error(put):
    """A huge element is dropped while it is read, strings and brackets in it followed to its end."""
    huge = json.dumps({"a": ['\\"]}' * 500_000]})
    good, bad = read(put("a.json", f'[{{"a":1}},{huge},{{"a":2}}]'), limits=Limits(max_row_bytes=1_000_000))
    assert (list(good), bad) == ([1, 3], {2: "the record is longer than 976.6 KiB"})


@pytest.mark.parametrize("content", ["[" * 100_000, '[{"a":' * 50_000])
def test_nested_json_file(put, content):
    """A hundred thousand brackets are an error, not a crash."""
    good, bad = read(put("a.json", content))
    assert (good, len(bad)) == ({}, 1)


@pytest.mark.parametrize(
    "content",
    [
        '{"data": [{"a": 1}]}',
        '{"ok": true, "result": {"items": [{"a": 1}]}}',
        '{\n  "data": [\n    {"a": 1}\n  ]\n}',
        "{",
    ],
)
def test_json_object_around_the_records_is_refused(put, content):
    """The message says to write the list itself."""
    assert "list of records itself" in refusal(put("a.json", content))


def test_json_file_of_lines(put):
    """Objects one a line are read whatever the suffix says."""
    assert column(put("a.json", '{"a":1}\n{"a":2}\n'), "a") == [1, 2]


def test_json_file_of_something_else_is_refused(put):
    """A CSV file called .json is not a thousand errors but one."""
    assert "not JSON" in refusal(put("a.json", "id,text\n1,a\n"))


# Excel and Parquet


@pytest.fixture
def xlsx(tmp_path):
    """Write sheets, given as name=[rows], and return the path."""

    def write(name="a.xlsx", **sheets):
        book = openpyxl.Workbook()
        book.remove(book.active)
        for title, rows in sheets.items():
            sheet = book.create_sheet(title)
            for row in rows:
                sheet.append(row)
        book.save(tmp_path / name)
        book.close()
        return tmp_path / name

    return write


def test_xlsx_values(xlsx):
    """Numbers, booleans and texts keep their type, dates become ISO strings, empty cells None."""
    day = datetime.datetime(2024, 5, 6, 7, 8, 9)
    path = xlsx(리뷰=[["id", "text", "x"], [1, "좋아요", 4.5], [2, None, True], [None] * 3, ["a", "줄\n바꿈", day]])
    with open_rows(path) as source:
        assert (source.format, source.encoding, source.delimiter) == ("xlsx", None, None)
        rows = list(source)
        assert source.position() == source.size
    assert rows == [
        Row(2, {"id": 1, "text": "좋아요", "x": 4.5}),
        Row(3, {"id": 2, "text": None, "x": True}),
        Row(5, {"id": "a", "text": "줄\n바꿈", "x": "2024-05-06T07:08:09"}),
    ]
    assert isinstance(rows[0].values["id"], int)


def test_xlsx_table_that_begins_further_down(xlsx):
    """The header is the first row with a value; numbers are those that Excel shows."""
    assert list(read(xlsx(a=[[], [], [None, "id", "text"], [None, 1, "a"]]))[0]) == [4]


def test_xlsx_sheet_by_name(xlsx):
    """The first of two tables is read and the others are mentioned; a wrong name lists them."""
    path = xlsx(하나=[["a"], ["x"]], 둘=[["b"], ["y"]])
    assert column(path, "b", sheet="둘") == ["y"]
    with open_rows(path) as source:
        assert "둘" in source.notes[0]
    assert "하나, 둘" in refusal(path, sheet="셋")


def test_xlsx_without_header(xlsx):
    """The first row is a row."""
    assert read(xlsx(a=[[1, "x"], [2, "y"]]), header=False)[0][1] == {"column 1": 1, "column 2": "x"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "empty"),
        ([[1, "좋아요"], [2, "b"]], "looks like data"),
        ([["id", "id"], [1, 2]], "appears twice"),
    ],
)
def test_xlsx_with_a_bad_header_is_refused(xlsx, rows, words):
    """A sheet is refused for the same reasons as a text table."""
    assert words in refusal(xlsx(a=rows))


@pytest.fixture
def merged(xlsx):
    """Write one sheet, merge ranges of it, and return the path."""

    def write(rows, *ranges):
        path = xlsx(a=rows)
        book = openpyxl.load_workbook(path)
        for each in ranges:
            book["a"].merge_cells(each)
        book.save(path)
        book.close()
        return path

    return write


def test_xlsx_cells_merged_downwards_all_have_the_value(merged):
    """Else only the first review of a product would have it."""
    rows = [["상품명", "번호", "리뷰"], ["양말", 1, "a"], [None, 2, "b"], ["모자", 3, "c"], [None, 4, "d"], [None] * 3]
    path = merged(rows, "A2:A3", "A4:A6")
    assert [row["상품명"] for row in read(path)[0].values()] == ["양말", "양말", "모자", "모자"]


def test_xlsx_names_in_two_rows_with_merged_cells(merged):
    """A title above, a name over two columns, and names over two rows."""
    rows = [["리뷰 현황"], ["리뷰 정보", None, "작성일"], ["번호", "내용", None], [1, "좋아요", "2024-03-01"]]
    path = merged(rows, "A1:C1", "A2:B2", "C2:C3")
    assert read(path)[0] == {4: {"번호": 1, "내용": "좋아요", "작성일": "2024-03-01"}}


def test_xlsx_sheet_with_the_reviews_is_taken(xlsx):
    """Neither a notice, nor an empty sheet, nor a table of something else is read, wherever the reviews stand."""
    notice = [["이 파일은 내려받은 리뷰입니다."], ["문의는 고객센터로 해 주세요."]]
    reviews = [["번호", "내용"], [1, "배송이 빨라서 좋아요"], [2, "색이 화면과 달라요"]]
    path = xlsx(안내=notice, 빈=[], 상품=[["번호", "가격"], [1, 900]], 목록=reviews)
    assert column(path, "내용") == ["배송이 빨라서 좋아요", "색이 화면과 달라요"]
    with open_rows(path) as source:
        assert source.sheet == "목록"


@pytest.mark.parametrize("names", [["번호", "내용"], ["내용"]])
def test_xlsx_with_several_sheets_of_reviews_is_asked_about(xlsx, names):
    """One sheet a month: whichever were taken, the others would be lost without a word."""
    reviews = [names, [1, "배송이 빨라서 좋아요"][-len(names) :]]
    path = xlsx(**{"1월": reviews, "2월": reviews})
    with pytest.raises(Doubt, match="Several sheets of the workbook look like reviews: '1월', '2월'") as caught:
        read(path)
    assert caught.value.choices == [{"sheet": "1월"}, {"sheet": "2월"}]
    assert column(path, "내용", sheet=unicodedata.normalize("NFD", "2월")) == ["배송이 빨라서 좋아요"]


def test_xlsx_cell_beside_the_table_is_a_row_error(xlsx):
    """A remark without a column name is reported, not dropped."""
    good, bad = read(xlsx(a=[["id", "text"], [1, "a", None, "remark"], [2, "b"]]))
    assert (list(good), bad) == ([3], {2: "row has 4 cells, header has 2"})


def test_xlsx_cell_beyond_the_limit_is_a_row_error(xlsx):
    """The error names the column."""
    with open_rows(xlsx(a=[["id", "text"], [1, "a" * 2000]]), limits=Limits(max_row_bytes=1000)) as source:
        assert list(source) == [RowError(2, "text", "the cell is longer than 1000 bytes")]


def with_sheet_xml(path, old, new, **parts):
    """Return the bytes of a workbook with a piece of its first sheet replaced, and with more parts in xl/."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data.replace(old, new) if name.endswith("sheet1.xml") else data)
        for name, data in parts.items():
            target.writestr(f"xl/{name}.xml", data)
    return out.getvalue()


@pytest.mark.parametrize(
    "cell",
    [
        b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>',
        b"<row r='1048576'><c r='XFD1048576'><v>1</v></c></row>",
        b'<row r="1048576"><c r="xfd1048576" t="inlineStr"><is><t>a</t></is></c></row>',
    ],
)
def test_xlsx_that_spans_the_whole_sheet_is_too_large(put, xlsx, cell):
    """Two cells in opposite corners would take half a terabyte in the library, which then ends the process."""
    data = with_sheet_xml(xlsx(a=[["id"], ["x"]]), b"</sheetData>", cell + b"</sheetData>")
    assert "spans 1,048,576 rows" in refusal(put("b.xlsx", data), TooLarge)


def test_xlsx_styled_cells_far_away_do_not_count(put, xlsx):
    """Only cells with a value make a sheet large."""
    far = b'<row r="1048576"><c r="XFD1048576" s="0"/></row></sheetData>'
    assert column(put("b.xlsx", with_sheet_xml(xlsx(a=[["id"], ["x"]]), b"</sheetData>", far)), "id") == ["x"]


@pytest.mark.parametrize(
    "piece", [b"<!DOCTYPE a [<!ENTITY b 'c'>]><sheetData>", b"<sheetData></broken>", b"<sheetData>\x00"]
)
def test_xlsx_with_bad_xml_is_refused(put, xlsx, piece):
    """What the library might read differently is not given to it."""
    assert "damaged" in refusal(put("b.xlsx", with_sheet_xml(xlsx(a=[["id"], ["x"]]), b"<sheetData>", piece)))


def test_xlsx_that_unpacks_to_gigabytes_is_too_large(put, xlsx):
    """A zip bomb is noticed while it is unpacked, whatever size it admits to."""
    data = with_sheet_xml(xlsx(a=[["id"], ["x"]]), b"<sheetData>", b"<sheetData>" + b" " * 40_000_000)
    assert "unpacks to more" in refusal(put("b.xlsx", data), TooLarge)
    size = data.index(b"PK\x01\x02")
    while (size := data.find(b"PK\x01\x02", size)) >= 0:
        data = data[: size + 24] + (100).to_bytes(4, "little") + data[size + 28 :]
        size += 4
    assert "unpacks to more" in refusal(put("c.xlsx", data), TooLarge)


def test_xlsx_text_shown_a_million_times_is_too_large(put, xlsx, monkeypatch):
    """A shared text counts once for each cell that shows it."""
    cells = b"".join(b'<row r="%d"><c r="A%d" t="s"><v>0</v></c></row>' % (n, n) for n in range(2, 62))
    shared = b"<sst><si><t>" + "가".encode() * 1000 + b"</t></si></sst>"
    data = with_sheet_xml(xlsx(a=[["id"]]), b"</sheetData>", cells + b"</sheetData>", sharedStrings=shared)
    path = put("c.xlsx", data)
    assert column(path, "id") == ["가" * 1000] * 60
    monkeypatch.setattr(workbook_guard, "MAX_TEXT", 59_000)
    assert "of text" in refusal(path, TooLarge)


def test_xlsx_value_beyond_its_range_is_a_row_error(put, xlsx):
    """A duration of millions of years stops its row, not the file."""
    path = xlsx(a=[["id", "time"], [1, datetime.timedelta(hours=3)], [2, "x"]])
    good, bad = read(put("b.xlsx", with_sheet_xml(path, b"<v>0.125</v>", b"<v>1e300</v>")))
    assert (list(good), list(bad)) == ([3], [2])


def test_xlsx_with_a_wrong_shared_text_is_refused(put, xlsx):
    """What the library cannot load is a clear message."""
    cell = b'<row r="2"><c r="A2" t="s"><v>7</v></c></row></sheetData>'
    assert "damaged" in refusal(put("b.xlsx", with_sheet_xml(xlsx(a=[["id"]]), b"</sheetData>", cell)))


def test_damaged_xlsx_is_refused(put, xlsx):
    """Half a file is no workbook."""
    data = xlsx(a=[["id"], ["x"]]).read_bytes()
    assert "damaged" in refusal(put("b.xlsx", data[:-100]))
    middle = data[:200] + bytes(50) + data[250:]
    assert "damaged" in refusal(put("c.xlsx", middle))


@pytest.fixture
def parquet(tmp_path):
    """Write a table, given as column=[values], and return the path."""

    def write(columns, name="a.parquet", **options):
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), tmp_path / name, **options)
        return tmp_path / name

    return write


def test_parquet_values(parquet):
    """Values are plain JSON, NaN and null are None, dates are ISO strings."""
    path = parquet(
        {
            "id": [1, 2],
            "text": ["좋아요", None],
            "score": [1.5, float("nan")],
            "day": [datetime.date(2024, 1, 2), None],
            "at": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
            "raw": [b"abc", None],
            "more": [{"x": [1.0, float("inf")]}, None],
        }
    )
    with open_rows(path) as source:
        assert (source.format, source.columns[:2]) == ("parquet", ["id", "text"])
        first, second = source
        assert source.position() == source.size
    assert first == Row(
        1,
        {
            "id": 1,
            "text": "좋아요",
            "score": 1.5,
            "day": "2024-01-02",
            "at": "2023-11-14T22:13:20.123456",
            "raw": "abc",
            "more": {"x": [1.0, None]},
        },
    )
    assert second == Row(2, {"id": 2} | dict.fromkeys(["text", "score", "day", "at", "raw", "more"]))


def test_parquet_of_several_row_groups(parquet):
    """Rows are numbered through the row groups."""
    good, bad = read(parquet({"text": [f"리뷰 {n}" for n in range(5000)]}, row_group_size=700))
    assert [good[n]["text"] for n in range(1, 5001)] == [f"리뷰 {n}" for n in range(5000)]
    assert not bad


def test_parquet_text_that_is_not_utf8_is_a_row_error(parquet):
    """Binary cells are texts if they decode."""
    with open_rows(parquet({"a": [b"ok", b"\xff"]})) as source:
        assert list(source)[1] == RowError(2, "a", "the text is not UTF-8")


def test_parquet_with_a_huge_dictionary_is_too_large(parquet):
    """A text that a hundred thousand rows share is in memory once, and its copies are counted."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 100_000]))
    path = parquet({"text": text})
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    try:
        assert "unpacks to more" in refusal(path, TooLarge, limits=Limits(max_bytes=1_000_000_000))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_parquet_that_admits_its_size_is_refused_at_once(parquet):
    """The sizes in the footer are added up before the first row."""
    path = parquet({"text": [str(n) for n in range(10_000)]}, compression="zstd")
    assert "unpacks to more" in refusal(path, TooLarge, limits=Limits(max_bytes=60_000))


def test_parquet_row_beyond_the_limit_is_a_row_error(parquet):
    """One long row does not stop the others."""
    good, bad = read(parquet({"text": ["a", "b" * 2000, "c"]}), limits=Limits(max_row_bytes=1000))
    assert (list(good), list(bad)) == ([1, 3], [2])


def test_parquet_with_a_duplicate_name_is_refused(parquet):
    """Parquet allows two columns of one name; rows do not."""
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    assert "appears twice" in refusal(parquet(table))


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + b"x" * 100, b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_damaged_parquet_is_refused(put, content):
    """The magic bytes alone are no file."""
    assert "damaged" in refusal(put("a.parquet", content))


def test_parquet_without_pyarrow_names_the_extra(parquet, monkeypatch):
    """The message says what to install."""
    path = parquet({"a": [1]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "labeler-rag[parquet]" in refusal(path, MissingExtra)


# Formats, packed files, bombs


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_xlsx_under_another_name_is_refused(xlsx, name):
    """The message says what the file is and what to call it."""
    path = xlsx(a=[["id"], ["x"]])
    message = refusal(path.rename(path.parent / name))
    assert "an Excel workbook" in message
    assert ".xlsx" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "old Excel workbook"),
        ("a.xls", b"<html><body><table>", "web page"),
        ("a.csv", b"\xef\xbb\xbf<!DOCTYPE html>", "web page"),
        ("a.xlsx", b"id,text\n1,a\n", "not an Excel workbook"),
        ("a.parquet", b"id,text\n1,a\n", "not a Parquet file"),
        ("a.csv", b"PAR1" + bytes(50), "a Parquet file"),
        ("a.csv", b'{"id":1,"text":"a"}\n', "but JSON"),
        ("a.csv", b'[\n {"id":1,"text":"a"}]', "but JSON"),
        ("a.csv", b"%PDF-1.7", "a PDF"),
        ("a.jsonl", b"\x89PNG\r\n", "a picture"),
        ("a.csv", gzip.compress(b"a,b\n1,2\n", mtime=0), "ends in .gz"),
        ("a.csv.gz", gzip.compress(gzip.compress(b"a,b\n", mtime=0), mtime=0), "packed twice"),
        ("a.csv.gz", b"a,b\n1,2\n", "remove .gz"),
        ("a.csv", b"PK\x03\x04 nothing", "damaged zip"),
    ],
)
def test_file_that_is_something_else_is_refused_by_its_right_name(put, name, content, words):
    """A wrong suffix is a clear message, not a thousand row errors."""
    assert words in refusal(put(name, content))


def test_other_archives_are_refused_by_name(put):
    """A Word document and a plain zip are told apart from a workbook."""
    for member, words in [("word/document.xml", "Word"), ("xl/workbook.bin", "xlsb"), ("a.csv", "unpack it first")]:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(member, "x")
        assert words in refusal(put("a.xlsx", out.getvalue()))


@pytest.mark.parametrize("name", ["a.txt", "a.dat", "a"])
def test_unknown_suffix_is_decided_by_content(put, xlsx, parquet, name):
    """JSON, JSON Lines, tables, workbooks and Parquet are known by how they begin."""
    for content, found in [
        ('{"a":1}\n', "jsonl"),
        ('[{"a":1}]', "json"),
        ("a,b\n1,2\n", "csv"),
        ("a\tb\n1\t2\n", "tsv"),
        (xlsx(s=[["a"], ["x"]]).read_bytes(), "xlsx"),
        (parquet({"a": [1]}).read_bytes(), "parquet"),
    ]:
        with open_rows(put(name, content)) as source:
            assert source.format == found


def test_suffix_in_capitals(put):
    """Windows writes .CSV."""
    assert column(put("A.CSV.GZ", gzip.compress(b"a\tb\n1\t2\n")), "b") == ["2"]


def test_every_format_may_be_packed(put, xlsx, parquet):
    """.gz behind the suffix is unpacked on the way, for workbooks and Parquet into a temporary file."""
    for name, content in [
        ("a.csv", b"a,b\nx,2\n"),
        ("a.jsonl", b'{"a":"x"}\n'),
        ("a.json", b'[{"a":"x"}]'),
        ("a.xlsx", xlsx(s=[["a"], ["x"]]).read_bytes()),
        ("a.parquet", parquet({"a": ["x"]}).read_bytes()),
    ]:
        assert column(put(name + ".gz", gzip.compress(content)), "a") == ["x"]


def test_gzip_of_several_members(put):
    """Files appended to each other unpack to one."""
    assert column(put("a.csv.gz", gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,4\n")), "a") == ["1", "3"]


@pytest.mark.parametrize("keep", [-8, -1, 30])
def test_gzip_that_is_cut_off_is_refused(put, keep):
    """Half a download is noticed at its end."""
    assert "cut off" in refusal(put("a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 1000)[:keep]))


def test_gzip_with_a_wrong_checksum_is_refused(put):
    """Damaged data are not taken for reviews."""
    data = bytearray(gzip.compress(b"a,b\n1,2\n"))
    data[-5] ^= 1
    assert "damaged" in refusal(put("a.csv.gz", bytes(data)))


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.csv.gz", b"a,b\n"),
        ("a.csv.gz", b'a,b\n1,"'),
        ("a.txt.gz", b""),
        ("a.jsonl.gz", b""),
        ("a.jsonl.gz", b'{"a":1}\n{"a":"'),
        ("a.json.gz", b'[{"a":"'),
    ],
)
@pytest.mark.parametrize("fill", [b"\0", b"x"])
def test_gzip_bomb_is_noticed_while_it_unpacks(put, name, start, fill):
    """Sixty megabytes of one byte in sixty kilobytes are not read to the end, and take no memory."""
    path = put(name, gzip.compress(start + fill * 60_000_000, 9))
    tracemalloc.start()
    try:
        assert "times its size" in refusal(path, TooLarge, limits=Limits(max_ratio=100))
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


def test_unpacked_size_is_limited(put):
    """Also what packs badly may not be larger than the limit; rows before it were given out."""
    text = "".join(random.Random(2).choices("abcdefghij", k=1_500_000))
    path = put("a.csv.gz", gzip.compress(("a,b\n" + text).encode()))
    assert "1 MiB after unpacking" in refusal(path, TooLarge, limits=Limits(max_bytes=1024**2))


def test_file_larger_than_the_limit_is_refused_at_once(put):
    """What is too large on disk is not opened."""
    assert "split it" in refusal(put("a.csv", "a,b\n" + "1,2\n" * 100), TooLarge, limits=Limits(max_bytes=100))


def test_missing_file_and_folder_are_refused(tmp_path):
    """A path that is no file is a clear message."""
    assert "no file" in refusal(tmp_path / "none.csv")
    assert "not a file" in refusal(tmp_path)


# One row after another


def test_position_grows_to_the_size(put):
    """A progress bar can be drawn from position and size."""
    path = put("a.csv", "a,b\n" + "1,좋아요\n" * 100_000)
    with open_rows(path) as source:
        positions = [source.position() for _ in source]
        assert positions == sorted(positions)
        assert positions[0] < source.size / 2
        assert source.position() == source.size


def test_source_closes_when_it_is_left_early(put):
    """Whoever stops after ten rows leaves no file open."""
    with open_rows(put("a.csv", "a,b\n" + "1,2\n" * 100)) as source:
        next(iter(source))
    source.close()
    assert source.position() == source.size


def test_reading_twice_gives_the_same_rows(put):
    """An import that was killed can be run again: the same file gives the same rows and numbers."""
    path = put("a.csv", 'a,b\n1,2\n"x\n3\n4,"y\nz"\n')
    assert read(path) == read(path)


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_none_one_and_two_rows(put, name, rows):
    """The smallest files are no special case."""
    objects = [json.dumps({"a": str(n), "b": "x"}) for n in range(rows)]
    content = {
        "a.csv": "a,b\n" + "".join(f"{n},x\n" for n in range(rows)),
        "a.jsonl": "\n".join(objects) or "\n",
        "a.json": "[" + ",".join(objects) + "]",
    }[name]
    if name == "a.jsonl" and not rows:
        assert refusal(put(name, content)) == "The file is empty"
    else:
        assert column(put(name, content), "a") == [str(n) for n in range(rows)]


@pytest.mark.parametrize(
    ("name", "rows", "limit"),
    [("a.csv.gz", 200_000, 30_000_000), ("a.jsonl.gz", 30_000, 8_000_000), ("a.json.gz", 30_000, 8_000_000)],
)
def test_memory_stays_flat(tmp_path, name, rows, limit):
    """Any number of rows is read in the memory of a few chunks."""
    path = tmp_path / name
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        file.write({"a.csv.gz": "id,text\n", "a.jsonl.gz": "", "a.json.gz": "["}[name])
        for n in range(rows):
            text = f"{n}번째 리뷰입니다 배송이 {n * 7919 % 10007}일 걸렸어요"
            if name == "a.csv.gz":
                file.write(f"{n},{text}\n")
            else:
                file.write(("," if n and name == "a.json.gz" else "") + f'{{"id":{n},"text":"{text}"}}\n')
        file.write("]" if name == "a.json.gz" else "")
    tracemalloc.start()
    try:
        with open_rows(path) as source:
            count = sum(1 for row in source if isinstance(row, Row))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == rows
    assert peak < limit
