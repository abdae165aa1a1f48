"""The one door for text: normalised, storable, and nothing hidden."""

from __future__ import annotations

import time
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.errors import TextError
from labeler.text import clean_text, clean_texts, content_hash, guess_language, one_line, split_sentences, visible

settings.register_profile("labeler", deadline=None)
settings.load_profile("labeler")

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("맛있어요", "맛있어요"),
        (unicodedata.normalize("NFD", "맛있어요"), "맛있어요"),
        ("cafe\u0301", "café"),
        ("줄\r\n바꿈\r또\n", "줄\n바꿈\n또"),
        ("  앞뒤\t\u3000", "앞뒤"),
        ("가운데  빈칸", "가운데  빈칸"),
        ("👨‍👩‍👧 가족", "👨‍👩‍👧 가족"),
        ("bidi \u202e override", "bidi \u202e override"),
        ("zero\u200bwidth", "zero\u200bwidth"),
        ("", ""),
    ],
)
def test_clean_text(raw, clean):
    """NFC, line feeds, no outer white space; everything else is what the customer wrote."""
    assert clean_text(raw) == clean


@given(st.lists(st.text("가a\u1100\u1161\u0301 \r\n\x00\ud800", max_size=6), max_size=6))
def test_many_texts_are_cleaned_as_each_alone(texts):
    """Cleaned at once they are what each alone is; if one of them cannot be stored, none is."""
    try:
        alone = [clean_text(text) for text in texts]
    except TextError:
        alone = None
    assert clean_texts(texts) == alone


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("ab\x00c", r"The review contains a NUL character \(position 3\)"),
        ("a\ud800", r"The review contains a lone surrogate U\+D800 \(position 2\)"),
        ("\udfffb", r"lone surrogate U\+DFFF \(position 1\)"),
    ],
)
def test_text_that_no_database_stores_alike_is_refused(raw, message):
    """NUL and lone surrogates are refused, with the place and what to do."""
    with pytest.raises(TextError, match=message):
        clean_text(raw, "review")


@given(TEXTS)
def test_cleaning_twice_changes_nothing(text):
    """A stored text is stable: a second pass through the door leaves it as it is."""
    assert clean_text(clean_text(text)) == clean_text(text)


def test_a_million_combining_marks_are_normalised_quickly():
    """A text of nothing but marks is slow to look at, not to clean."""
    started = time.perf_counter()
    clean_text("a" + "\u0301" * 1_000_000)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Very GOOD", "very good"),
        ("a  b\n c", "a b c"),
        ("ＡＢＣ１", "abc1"),
        ("맛있어요", unicodedata.normalize("NFD", "맛있어요")),
        ("  좋아요 ", "좋아요"),
    ],
)
def test_hash_ignores_case_space_and_width(a, b):
    """Texts that differ only in case, white space, width or normal form are duplicates."""
    assert content_hash(a) == content_hash(b)


@pytest.mark.parametrize(("a", "b"), [("좋아요", "좋아요!"), ("ab", "a b"), ("달아요", "달지 않아요"), ("", "a")])
def test_hash_tells_texts_apart(a, b):
    """Any other difference makes another hash."""
    assert content_hash(a) != content_hash(b)


def test_hash_is_32_hex_digits():
    """The form of the hash is fixed: the store holds it."""
    assert content_hash("좋아요") == content_hash("좋아요")
    assert len(content_hash("좋아요")) == 32
    assert set(content_hash("좋아요")) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("plain 글 😀 é", []),
        ("a\u200bb", ["U+200B"]),
        ("\u202eab\u202c", ["U+202E", "U+202C"]),
        ("tab\tand\nline", []),
        ("\x1b[31mred", ["U+001B"]),
        ("\u3164\uffa0", ["U+3164 U+FFA0"]),
        ("a\U000e0041b", ["U+E0041"]),
        ("\x85\ufeff", ["U+0085 U+FEFF"]),
    ],
)
def test_invisible_characters_are_named(text, marks):
    """Controls, bidi overrides, zero-width characters, fillers and tags get a visible mark."""
    assert [mark for _, mark in visible(text) if mark] == marks


@given(st.text(st.sampled_from("a가 \n\u200b\u202e\x1b\u3164😀\U000e0041")))
def test_visible_pieces_are_the_text_again(text):
    """Offsets stay true: the pieces joined are the text, and a mark covers a whole run."""
    pieces = visible(text)
    assert "".join(piece for piece, _ in pieces) == text
    assert all(not (one[1] and other[1]) for one, other in pairwise(pieces))


@pytest.mark.parametrize(
    ("text", "language"), [("맛있어요", "ko"), ("good ㅋㅋ", "ko"), ("Very good", "en"), ("123 !!", "en"), ("", "en")]
)
def test_guess_language(text, language):
    """Any Hangul makes a text Korean; all else is treated as English."""
    assert guess_language(text) == language


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("달고 아삭해요. 또 살게요!", ["달고 아삭해요.", "또 살게요!"]),
        ("맛있어요 ㅋㅋㅋ 또 시킬게요", ["맛있어요 ㅋㅋㅋ", "또 시킬게요"]),
        ("좋아요! ㅎㅎ 다음에도요", ["좋아요! ㅎㅎ", "다음에도요"]),
        ("늦게 왔어요ㅠㅠ 다 녹음", ["늦게 왔어요ㅠㅠ", "다 녹음"]),
        ("추천해요^^ 굿", ["추천해요^^", "굿"]),
        ("감사합니다♡ 번창하세요~", ["감사합니다♡", "번창하세요~"]),
        ("좋네요.. ^^ 다음에도", ["좋네요.. ^^", "다음에도"]),
        ("글쎄요… 그냥 그래요", ["글쎄요…", "그냥 그래요"]),
        ("3.5kg인데 1.2kg 같아요", ["3.5kg인데 1.2kg 같아요"]),
        ("첫 줄\n둘째 줄\n\n셋째", ["첫 줄", "둘째 줄", "셋째"]),
        ('"최고!" 라고 했어요', ['"최고!"', "라고 했어요"]),
        ("배송 빨라요 맛도 좋네요 또 살게요", ["배송 빨라요", "맛도 좋네요", "또 살게요"]),
        ("포장 터짐 국물 다 샜음 환불함", ["포장 터짐", "국물 다 샜음", "환불함"]),
        ("잘 먹었습니다 다음에 또 주문했다 ㅎㅎ 굿", ["잘 먹었습니다", "다음에 또 주문했다 ㅎㅎ", "굿"]),
        ("우리 동네 마트보다 처음 받은 게 필요 이상", ["우리 동네 마트보다 처음 받은 게 필요 이상"]),
        ("좋아요, 배송도", ["좋아요, 배송도"]),
        ("Really good. Would buy again!", ["Really good.", "Would buy again!"]),
        ("What?! Half of it was gone...", ["What?!", "Half of it was gone..."]),
        ("ㅋㅋㅋ", ["ㅋㅋㅋ"]),
        ("마침표 없는 글", ["마침표 없는 글"]),
        ("   ", []),
        ("", []),
    ],
)
def test_split_sentences(text, sentences):
    """Short reviews end sentences with points, marks, laughter, tears, line breaks and, in Korean, with endings."""
    assert [text[start:end] for start, end in split_sentences(text)] == sentences


@given(st.text(st.sampled_from("가나ab1 .!?~…ㅋㅎㅠㅜ^♡요음네'\")\n😀")))
def test_sentences_cover_the_text_in_order(text):
    """Spans are in order, do not overlap, have no outer white space, and lose nothing but white space."""
    spans = split_sentences(text)
    assert spans == sorted(spans)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    assert "".join("".join(text[s:e] for s, e in spans).split()) == "".join(text.split())


@pytest.mark.parametrize("text", ["." * 100_000 + "a", "ㅋ" * 100_000 + "a", "~!" * 50_000 + "a", "." + "'" * 100_000])
def test_splitting_takes_linear_time(text):
    """A long run of marks is not tried again from each of its characters."""
    started = time.perf_counter()
    assert split_sentences(text) == [(0, len(text))]
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain 글", "plain 글"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u2028b\u202e", "a\\u2028b\\u202e"),
    ],
)
def test_one_line_is_printable(text, line):
    """FAULTS 46: A text in a log is one line, and no terminal obeys it."""
    assert one_line(text) == line


def test_one_line_is_short():
    """A long text is cut, and the cut shows."""
    assert one_line("가" * 500, limit=10) == "가" * 10 + "…"
    assert one_line("가" * 10, limit=10) == "가" * 10


@pytest.mark.parametrize("text", ["\u202e" * 50_000, "\u202a\u202c" * 25_000, "a\u202e" * 25_000, "\u200b" * 3 + "a"])
def test_review_made_of_invisible_characters_stays_a_small_page(text):
    """FAULTS 48: a run of them is one mark that says how many, and a text has a thousand marks at most."""
    pieces = visible(text)
    assert "".join(piece for piece, _ in pieces) == text
    assert len(pieces) <= 2001
    assert len(pieces) > 2 or f"×{len(text.rstrip('a')):,}" in pieces[0][1]
