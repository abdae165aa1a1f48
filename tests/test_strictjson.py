"""The one door for JSON: strict in, strict out."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler import strictjson
from labeler.errors import JsonError

settings.register_profile("labeler", deadline=None)
settings.load_profile("labeler")

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1"),
        ("{", "line 1, column 2"),
        ('{"a": 1,\n"b" 2}', "line 2, column 5"),
        ("NaN", "NaN is not a JSON number"),
        ("[Infinity]", "Infinity is not"),
        ('{"a": -Infinity}', "-Infinity is not"),
        ("1e999", "too large"),
        ("-1e999", "too large"),
        ("9" * 5000, "5000 digits"),
        ("-" + "9" * 5000, "too long"),
        ('{"a": 1, "a": 1}', "'a' appears twice"),
        ('[{"b": {"a": 1, "a": 2}}]', "'a' appears twice"),
        ('{"a": 1, "\\u0061": 2}', "'a' appears twice"),
        ('"\\ud800"', "lone surrogate"),
        ('"\\uDC00"', "lone surrogate"),
        ('"\\ude00\\ud83d"', "lone surrogate"),
        ('{"\\ud83d": 1}', "lone surrogate"),
        ('[{"a": ["\\ud83d"]}]', "lone surrogate"),
        ('"\ud800"', "lone surrogate"),
        ('"a\nb"', "line 1, column 3"),
        ('"\x00"', "line 1, column 2"),
        ("{'a': 1}", "line 1, column 2"),
        ("[1,]", "line 1"),
        ("{} {}", "line 1, column 4"),
        ("// no\n1", "line 1, column 1"),
        ("01", "line 1, column 2"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_its_reason(text, message):
    """Each kind of loose JSON raises JsonError, and the message says what is wrong."""
    with pytest.raises(JsonError, match=message):
        strictjson.loads(text)


def test_error_carries_line_and_column():
    """The place of a syntax error can be read from the error itself."""
    with pytest.raises(JsonError) as caught:
        strictjson.loads('{\n "a": 1,\n "b": oops}')
    assert (caught.value.line, caught.value.column) == (3, 7)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_deep_nesting_is_refused_without_recursion(opening):
    """100,000 levels are refused by count, whether or not they are closed."""
    with pytest.raises(JsonError, match="deeper than 100 levels"):
        strictjson.loads(opening * 100_000)


def test_nesting_error_names_the_line():
    """The line on which the nesting becomes too deep is named."""
    with pytest.raises(JsonError, match="at line 3") as caught:
        strictjson.loads("[\n" * 2 + "[" * 200 + "]" * 202)
    assert caught.value.line == 3


def test_nesting_up_to_the_limit_is_read():
    """Exactly max_depth levels are fine, one more is not."""
    assert strictjson.loads("[" * 5 + "]" * 5, max_depth=5) == [[[[[]]]]]
    with pytest.raises(JsonError):
        strictjson.loads("[" * 6 + "]" * 6, max_depth=5)


@pytest.mark.parametrize("text", ["[" * 500, "]" * 500, '\\"[{' * 200, '\\\\"'])
def test_brackets_inside_strings_do_not_count_as_nesting(text):
    """Only structure counts: a review full of brackets or quotes is not deep."""
    assert strictjson.loads(json.dumps([text])) == [text]


@pytest.mark.parametrize("text", ['"' + '\\"' * 100_000 + "[" * 101, '"\\' * 100_000 + "[" * 101])
def test_unclosed_string_is_refused_in_linear_time(text):
    """A string that never ends is not read again from each of its quotes."""
    started = time.perf_counter()
    with pytest.raises(JsonError):
        strictjson.loads(text)
    assert time.perf_counter() - started < 2


def test_integer_up_to_the_limit_is_exact():
    """A long integer within the limit keeps every digit."""
    assert strictjson.loads("9" * strictjson.MAX_DIGITS) == 10**strictjson.MAX_DIGITS - 1


def test_long_string_is_read():
    """The door has no opinion on the length of a text: that is the limit of the upload."""
    assert len(strictjson.loads('"' + "가" * 5_000_000 + '"')) == 5_000_000


@pytest.mark.parametrize(
    ("data", "line", "byte"),
    [
        ('{"a": 1}'.encode("utf-16"), 1, 1),
        ("맛있다".encode("cp949"), 1, 1),
        ('"caf\xe9"'.encode("latin-1"), 1, 5),
        (b'{"a":\n"b\xff"}', 2, 9),
        (b'"\xed\xa0\x80"', 1, 2),
        (b'"\xc0\x80"', 1, 2),
        ('"가'.encode()[:-1], 1, 2),
    ],
)
def test_bytes_that_are_not_utf8_are_refused_with_line_and_byte(data, line, byte):
    """UTF-16, Latin-1, CP949, an encoded surrogate and a cut character are named by line and byte."""
    with pytest.raises(JsonError, match=f"Not UTF-8 at line {line}, byte {byte} ") as caught:
        strictjson.loads(data)
    assert caught.value.line == line


def test_utf16_without_a_mark_is_refused():
    """UTF-16 of plain letters is valid UTF-8 with NULs, and still not JSON."""
    with pytest.raises(JsonError):
        strictjson.loads('{"a": 1}'.encode("utf-16-le"))


@pytest.mark.parametrize("data", ['\ufeff{"a": "가"}', '\ufeff{"a": "가"}'.encode(), '{"a": "가"}'.encode()])
def test_byte_order_mark_is_dropped(data):
    """A file saved with a BOM reads like one without."""
    assert strictjson.loads(data) == {"a": "가"}


@pytest.mark.parametrize("text", ['"\\ud83d\\ude00"', '"\\uD83D\\uDE00"', '"😀"'])
def test_surrogate_pair_is_one_character(text):
    """An escaped pair is an ordinary character."""
    assert strictjson.loads(text) == "😀"


@given(VALUES)
def test_what_is_written_is_read_back_the_same(value):
    """loads(dumps(x)) == x, and plain json reads it alike."""
    text = strictjson.dumps(value)
    assert strictjson.loads(text) == value
    assert strictjson.loads(text.encode()) == value
    assert json.loads(text) == value


@given(VALUES)
def test_what_is_written_is_one_line_for_everyone(value):
    """No character that str.splitlines takes for a line end stands in the output."""
    assert len(strictjson.dumps(value).splitlines()) == 1


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\n", "\r", "\x0b", "\x0c", "\x1c"])
def test_line_ends_are_escaped_in_values_and_keys(mark):
    """U+2028 and its relatives are written as escapes and come back as they were."""
    text = strictjson.dumps({f"a{mark}b": f"c{mark}d"})
    assert mark not in text
    assert strictjson.loads(text) == {f"a{mark}b": f"c{mark}d"}


def test_korean_is_written_as_it_is():
    """Exports stay readable: no \\uXXXX for Hangul or emoji."""
    assert strictjson.dumps({"글": "맛있다 😀"}) == '{"글":"맛있다 😀"}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_nan_is_never_written(value):
    """A number that is no JSON number does not slip into a file."""
    with pytest.raises(ValueError, match="JSON compliant"):
        strictjson.dumps(value)
