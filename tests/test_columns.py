"""The first guess at the columns of a file, by their names and by what the first rows hold."""

import unicodedata

import pytest

from labeler.ingest.columns import guess_columns

TEXTS = ["배송이 빠르고 맛있어요", "생각보다 양이 적어서 아쉬워요", "재구매 의사 있습니다 추천해요"]


def table(**columns):
    names = list(columns)
    return names, [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize(
    "name",
    [
        *["text", "Text", "REVIEW", "리뷰", "내용", "후기", "본문", "상품평", "comment", "Content", "body", "document"],
        *["review_text", "reviewBody", "리뷰내용", "리뷰 내용", "Review Text", "고객 리뷰", "구매 후기 (100자)"],
    ],
)
def test_text_column_is_known_by_its_name(name):
    """Korean and English names are known, in any case, with or without spaces."""
    assert guess_columns(*table(**{"a": [1, 2, 3], name: TEXTS})).text == name


@pytest.mark.parametrize("name", ["id", "ID", "번호", "리뷰번호", "review_id", "Review ID", "no", "순번"])
def test_id_column_is_known_by_its_name(name):
    """A column named like an id is the id if its values differ."""
    assert guess_columns(*table(**{name: [1, 2, 3], "text": TEXTS})).id == name


@pytest.mark.parametrize("name", ["product", "상품", "상품명", "제품", "product_id", "Item", "group", "ASIN", "영화명"])
def test_group_column_is_known_by_its_name(name):
    """What the reviews are about is their group."""
    assert guess_columns(*table(**{name: ["a", "a", "b"], "text": TEXTS})).group == name


def test_decomposed_name_is_known():
    """A file from a Mac writes its names in NFD; the name is given back as it is in the file."""
    name = unicodedata.normalize("NFD", "리뷰")
    assert guess_columns(*table(**{name: TEXTS})).text == name


@pytest.mark.parametrize("values", [[1, 1, 2], [1, None, 2], ["", "a", "b"]])
def test_id_must_be_unique_and_filled(values):
    """A column called id with gaps or doubles is no id, and the reason says so."""
    guess = guess_columns(*table(id=values, text=TEXTS))
    assert guess.id is None
    assert "'id' is empty or the same" in guess.reason


def test_next_id_column_is_taken_if_the_first_is_not_unique():
    """An id that repeats does not hide another one that does not."""
    assert guess_columns(*table(id=[1, 1, 1], 번호=[1, 2, 3], text=TEXTS)).id == "번호"


def test_longest_prose_is_the_text_if_no_name_is_known():
    """Without a known name the column with the longest texts is taken."""
    guess = guess_columns(*table(a=["x", "y", "z"], b=TEXTS, c=["김 철수", "이 영희", "박 민수"]))
    assert guess.text == "b"
    assert "longest" in guess.reason


def test_column_of_numbers_is_not_the_text_whatever_its_name():
    """A count of reviews called "review" is passed over for the column that holds words."""
    assert guess_columns(*table(review=["12", "3", "7"], memo=TEXTS)).text == "memo"


@pytest.mark.parametrize("name", ["review_date", "리뷰번호", "review_title", "comment_count", "리뷰 작성자"])
def test_column_about_a_text_is_not_the_text(name):
    """Date, number, title, count and author of a review are not the review."""
    assert guess_columns(*table(**{name: ["가", "나", "다"], "메모": TEXTS})).text == "메모"


def test_no_text_is_guessed_from_short_values():
    """Where nothing looks like a text a person has to choose."""
    guess = guess_columns(*table(a=["x", "y", "z"], b=["1", "2", "3"]))
    assert guess.text is None
    assert "choose" in guess.reason


def test_links_are_not_prose():
    """Long addresses are no texts."""
    assert guess_columns(*table(a=["https://example.com/a b c d"] * 3, b=["1", "2", "3"])).text is None


def test_only_column_is_the_text():
    """A file of one column needs no known name."""
    assert guess_columns(*table(**{"column 1": ["좋아요", "별로", "굿"]})).text == "column 1"


def test_names_alone_decide_without_rows():
    """A file with a header and no rows is guessed by its names."""
    guess = guess_columns(["id", "review", "product"], [])
    assert (guess.text, guess.id, guess.group) == ("review", "id", "product")


def test_nested_values_are_neither_id_nor_group():
    """Lists and objects of a JSON file are metadata."""
    guess = guess_columns(["id", "product", "text"], [{"id": [1], "product": {"a": 1}, "text": "좋아요"}])
    assert (guess.id, guess.group) == (None, None)


def test_columns_may_be_missing_from_rows():
    """JSON rows need not have all keys."""
    assert guess_columns(["text", "id"], [{"text": "좋아요"}, {"id": 1}]).id is None


def test_no_columns_give_no_guess():
    """An empty file is no error here."""
    guess = guess_columns([], [])
    assert (guess.text, guess.id, guess.group) == (None, None, None)
