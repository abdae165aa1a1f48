"""Near-duplicate signatures: the same in every process, shared by edited copies, not by other reviews."""

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.ingest import duplicates
from labeler.ingest.duplicates import THRESHOLD, _fold, _folded, signatures, similarity

REVIEW = (
    "배송이 정말 빠르고 포장도 꼼꼼해서 좋았어요. 맛도 기대보다 훨씬 담백하고 아이들이 잘 먹네요 다음에 또 주문할게요"
)
OTHER = (
    "생각보다 양이 적고 가격이 비싸서 실망했습니다. 고객센터에 문의했지만 답변이 없어서 재구매는 하지 않을 생각입니다"
)


def shared(a, b):
    """Return how many bands two texts share."""
    first, second = signatures([a, b]).bands
    return int((first == second).sum())


def shape(text):
    return int(signatures([text]).shapes[0])


def test_signature_is_24_different_32_bit_integers():
    """A signature has one key a band, and each takes four bytes in a database."""
    (keys,) = signatures([REVIEW]).bands
    assert keys.dtype == np.int32
    assert len(set(keys.tolist())) == 24


def test_signature_of_a_text_does_not_depend_on_the_others():
    """Alone, among others, beside empty and very long ones: the same text has the same signature."""
    texts = [REVIEW, "", OTHER, "굿", "좋은 상품 정말 " * 3000, *(f"{n}번째 {REVIEW}" for n in range(80)), OTHER]
    together = signatures(texts)
    for n, text in enumerate(texts):
        alone = signatures([text])
        assert alone.shapes[0] == together.shapes[n]
        assert alone.bands[0].tolist() == together.bands[n].tolist()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("가나다ㅋㅠaaabB1_ .\n\u0301ﬁ①ß👍", max_size=30), max_size=8))
def test_texts_are_folded_together_as_each_alone(texts):
    """What is signed at once is what is compared two by two, whatever the texts hold."""
    points, owner = _folded(texts)
    together = ["".join(map(chr, points[owner == n])) for n in range(len(texts))]
    assert together == [_fold(text) for text in texts]


def test_texts_of_the_same_shingles_have_one_shape():
    """What differs in spaces and marks only has the same shape, anything else another; what is too short has none."""
    assert shape(REVIEW) == shape(REVIEW.replace(" ", "") + "!!") != shape(REVIEW + "굿")
    assert shape("좋아요좋아요좋아요") == shape("좋아요좋아요좋아요좋아요")
    assert shape("좋아요") == 0


def test_pair_at_the_threshold_is_found():
    """Of pairs of similarity 0.8 as good as none shares no band; as many bands are shared as the arithmetic says."""
    chance, counts = random.Random(1), []
    letters = [chr(code) for code in range(0xAC00, 0xD7A4)]
    while len(counts) < 3000:
        # One letter in 26 is changed, and three shingles with it: 23 of 29 are shared.
        length = chance.choice((26, 52, 104))
        a = chance.choices(letters, k=length + 2)
        b = list(a)
        for place in range(5, length, 26):
            b[place] = chance.choice(letters)
        assert similarity("".join(a), "".join(b)) == pytest.approx(23 / 29, abs=0.02)
        counts.append(shared("".join(a), "".join(b)))
    assert counts.count(0) <= 2
    assert sum(counts) / len(counts) == pytest.approx(24 * (23 / 29) ** 5, rel=0.05)


def test_signature_is_the_same_in_another_process():
    """Keys written by one process are found by another, whatever its hash seed."""
    code = f"from labeler.ingest.duplicates import signatures; print(signatures([{REVIEW!r}]).bands.tolist())"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"},
    )
    assert out.stdout.strip() == str(signatures([REVIEW]).bands.tolist())


def test_signature_has_not_changed_since_it_was_first_stored():
    """If this fails, the version of the keys must be another, and a migration must have all reviews signed again."""
    signed = signatures(["abcdefghij"])
    assert (int(signed.shapes[0]), signed.bands[0, :2].tolist()) == (8129494532778532625, [518070882, 736742226])


@pytest.mark.parametrize(
    "copy",
    [
        REVIEW.replace(" ", ""),
        REVIEW + " ㅋㅋㅋㅋㅋ",
        REVIEW + " ^^ ♡♡ 👍🏻",
        REVIEW.replace("정말", "정멀"),
        REVIEW.replace(".", "!!!"),
        "\n" + REVIEW + "  ",
    ],
)
def test_edited_copy_is_a_candidate_and_similar(copy):
    """A copy with other spaces, emoticons, marks or one typo is a near-duplicate."""
    assert shared(REVIEW, copy)
    assert similarity(REVIEW, copy) >= THRESHOLD


def test_other_review_is_no_near_duplicate():
    """Two reviews that say different things share no key and hardly a shingle."""
    assert not shared(REVIEW, OTHER)
    assert similarity(REVIEW, OTHER) < 0.1


def test_case_and_width_do_not_count():
    """Upper case and full-width letters are folded before they are compared."""
    assert shared("GOOD Product 2024", "ｇｏｏｄ　product ２０２４") == 24


def test_drawn_out_syllables_do_not_count():
    """Syllables said three times or five times are the same."""
    assert similarity("너무너무 좋아요오오오 최고", "너무너무 좋아요오오오오오 최고") == 1.0


@pytest.mark.parametrize("text", ["", "굿", "좋아요", "좋아요 ㅋㅋㅋㅋㅋㅋ", "👍👍👍👍👍👍👍", "!!!!!!!! ^^", "    \n"])
def test_short_text_has_no_signature(text):
    """A text of fewer than five letters is never called a near-duplicate, not even of itself."""
    assert shape(text) == 0
    assert similarity(text, text) == 0.0


def test_similarity_is_the_jaccard_index_of_the_shingles():
    """abcde and bcdef share two of four shingles."""
    assert similarity("abcde", "bcdef") == 0.5


def test_very_long_text_has_a_signature():
    """A text of a million letters is no special case, nor is one of many different shingles."""
    assert shape("좋은 상품 " * 200_000) == shape("좋은 상품 " * 3)
    long = "".join(chr(0xAC00 + n * 7919 % 11172) for n in range(20_000))
    assert shared(long, long + "끝") >= 20


def test_long_texts_are_hashed_together(monkeypatch):
    """Forty texts of 3,000 letters take one pass over their pieces, not one each: that took ten times as long."""
    passes, one = [], duplicates._smallest_of
    monkeypatch.setattr(duplicates, "_smallest_of", lambda *parts: passes.append(parts) or one(*parts))
    signatures(["".join(chr(0xAC00 + (n * 7919 + k) % 11172) for n in range(3000)) for k in range(40)])
    assert len(passes) == 1
