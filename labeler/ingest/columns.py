"""Which column holds the text, which an id, which the product: a first guess that a person sees and may change."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


def _names(text: str) -> list[str]:
    return text.split()


# In the order of preference, case-folded, without spaces, "_", "-" and ".".
_TEXT = _names(
    "text 텍스트 review 리뷰 reviewtext reviewbody 리뷰내용 리뷰본문 후기 후기내용 이용후기 구매후기 상품후기 사용후기 "
    "상품평 구매평 제품평 한줄평 본문 내용 content contents body comment comments 댓글 코멘트 document 의견 feedback "
    "reviewcontent reviewcontents reviews message sentence 문장 utterance 글"
)
_ID = _names(
    "id reviewid 리뷰id 리뷰번호 후기번호 recordid documentid docid commentid textid key 고유번호 일련번호 번호 글번호 "
    "연번 순번 no 넘버 uid uuid idx index rowid 식별자 reviewno reviewseq seq"
)
_GROUP = _names(
    "group groupid 그룹 productid 상품id 상품번호 상품코드 제품id 제품번호 제품코드 asin parentasin itemid sku product "
    "productname producttitle productno 상품 상품명 제품 제품명 item itemname 품목 품목명 goods goodsname goodsno "
    "movieid movie 영화 영화명 영화제목 storeid store storename 매장 매장명 가게 가게명 업체 업체명 restaurant hotel "
    "숙소 숙소명 brand 브랜드 브랜드명"
)
# A name of two words, such as "고객 리뷰" or "customer_review": the part that says text, and words that say otherwise.
_TEXT_PART = re.compile("review|text|comment|content|body|feedback|리뷰|후기|상품평|구매평|내용|본문|댓글|의견")
_NOT_TEXT = re.compile(
    "id$|no$|count|num|date|time|score|rating|star|url|link|image|photo|type|length|title|author|name|lang|"
    "번호|수$|갯수|개수|날짜|일$|일자|일시|시간|점$|점수|평점|별점|제목|작성자|이름|유형|여부|사진|링크|길이|코드"
)
_SPACE = re.compile(r"[\s_.\-]+")
_NUMBER = re.compile(r"[-+]?[\d.,:/ -]*\d[\d.,:/ -]*%?")
# Shorter than this on average, a column of unknown name may as well be a title or a person's name.
_PROSE = 12


@dataclass(frozen=True, slots=True)
class ColumnGuess:
    """The names of the columns, None where no guess is good enough; ``reason`` is one line for the person."""

    text: str | None
    id: str | None
    group: str | None
    reason: str


def guess_columns(columns: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> ColumnGuess:
    """Guess from the names, Korean or English, and from the first rows.

    The text is a column named like one that holds words, else the one with the longest texts if they are prose.
    An id must be there and different in every row of the sample.
    """
    values = {name: [row.get(name) for row in sample] for name in columns}
    text, why_text = _guess_text(columns, values)
    rest = [name for name in columns if name != text]
    id_, why_id = _guess_id(rest, values)
    group = _first_known([name for name in rest if name != id_], _GROUP, lambda name: _groups(values[name]))
    why_group = f"group: {group!r} by its name" if group else "group: none"
    return ColumnGuess(text, id_, group, f"{why_text}; {why_id}; {why_group}")


def _guess_text(columns: Sequence[str], values: Mapping[str, list[Any]]) -> tuple[str | None, str]:
    def holds_words(name: str) -> bool:
        return not values[name] or _share_of_words(values[name]) >= 0.5

    if found := _first_known(columns, _TEXT, holds_words):
        return found, f"text: {found!r} by its name"
    parts = [name for name in columns if _TEXT_PART.search(_key(name)) and not _NOT_TEXT.search(_key(name))]
    if parts := [name for name in parts if holds_words(name)]:
        found = max(parts, key=lambda name: _average(values[name]))
        return found, f"text: {found!r} by its name"
    if len(columns) == 1 and holds_words(columns[0]):
        return columns[0], f"text: {columns[0]!r} is the only column"
    prose = [name for name in columns if _is_prose(values[name])]
    if prose:
        found = max(prose, key=lambda name: _average(values[name]))
        return found, f"text: {found!r} has the longest texts"
    return None, "text: no column looks like it; choose one"


def _guess_id(columns: Sequence[str], values: Mapping[str, list[Any]]) -> tuple[str | None, str]:
    if found := _first_known(columns, _ID, lambda name: _is_unique(values[name])):
        return found, f"id: {found!r} by its name"
    if named := _first_known(columns, _ID, lambda name: True):
        return None, f"id: none, because {named!r} is empty or the same in several rows"
    return None, "id: none"


def _first_known(columns: Sequence[str], known: Sequence[str], good: Any) -> str | None:
    by_key: dict[str, str] = {}
    for name in columns:
        by_key.setdefault(_key(name), name)
    return next((by_key[key] for key in known if key in by_key and good(by_key[key])), None)


def _key(name: str) -> str:
    return _SPACE.sub("", unicodedata.normalize("NFKC", name).casefold())


def _share_of_words(values: list[Any]) -> float:
    filled = [value for value in values if value is not None and value != ""]
    words = [value for value in filled if isinstance(value, str) and not _NUMBER.fullmatch(value.strip())]
    return len(words) / len(filled) if filled else 0.0


def _average(values: list[Any]) -> float:
    return sum(len(value) for value in values if isinstance(value, str)) / max(1, len(values))


def _is_prose(values: list[Any]) -> bool:
    texts = [value for value in values if isinstance(value, str) and value]
    spaced = sum(1 for text in texts if " " in text.strip() and "://" not in text)
    return (
        _share_of_words(values) >= 0.5
        and _average(values) >= _PROSE
        and spaced >= 0.5 * len(texts)
        and len(set(texts)) > 0.5 * len(texts)
    )


def _is_unique(values: list[Any]) -> bool:
    if any(value is None or value == "" or isinstance(value, dict | list) for value in values):
        return False
    return len({str(value) for value in values}) == len(values)


def _groups(values: list[Any]) -> bool:
    return not any(isinstance(value, dict | list) for value in values) and _average(values) < 200
