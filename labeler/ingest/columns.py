"""Which column holds the text, which an id, which the product: a first guess that a person sees and may change."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeler.sentence import Sentence


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
    "id$|no$|count|num|date|time|score|rating|star|url|link|image|photo|type|length|title|author|name|lang|headline|"
    "subject|description|option|address|번호|수$|갯수|개수|날짜|일$|일자|일시|시간|점$|점수|평점|별점|제목|작성자|이름|유형|여부|"
    "사진|링크|길이|코드|설명|상품상세|옵션|주소"
)
# What the shop wrote back is no review, though it is often the longer text.
_REPLY = re.compile(
    "답글|답변|대댓글|회신|사장님|판매자|판매처|셀러|관리자|운영자|담당자|고객센터|reply|replies|respon|answer|seller|owner|vendor|"
    "merchant|admin"
)
_OTHERS = _names(
    "rating score star stars date time timestamp title author label labels sentiment category metadata "
    "별점 평점 점수 날짜 일자 작성일 작성일자 작성일시 등록일 등록일시 타임스탬프 제목 작성자 닉네임 라벨 레이블 "
    "감성 감정 분류 카테고리"
)
_ID_PART = re.compile(
    "(?:리뷰(?!어)|후기|상품평|구매평|review(?!er))(?!.*(?:작성자|회원|상품번호|주문|user|author|product|order)).*(?:id|no|번호|seq|key)"
)
_SPACE = re.compile(r"[\s_.\-]+")
_NUMBER = re.compile(r"[-+]?[\d.,:/ -]*\d[\d.,:/ -]*%?")
# Shorter than this on average, a column of unknown name may as well be a title or a person's name.
_PROSE = 12
_LONGEST = "has the longest texts"


# How a spreadsheet shows a number of more digits than it keeps: 8.80123E+15.
_ROUNDED = re.compile(r"[-+]?\d(?:[.,]\d+)?E\+\d\d", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ColumnGuess:
    """The names of the columns, None where no guess is good enough; ``reason`` is one line for the person.

    ``rivals`` are the columns that could as well be the text; ``notes`` say what is odd about ids and products.
    """

    text: str | None
    id: str | None
    group: str | None
    reason: str
    rivals: Sequence[str] = ()
    notes: Sequence[str] = ()


def is_known(name: str) -> bool:
    """Tell whether columns are called so."""
    return _key(name) in _KNOWN or _ID_PART.fullmatch(_key(name)) is not None


def is_named(name: str, titles: Iterable[str]) -> bool:
    """Tell whether a column has one of the names."""
    return _key(name) in {_key(title) for title in titles}


def could_name(name: str) -> bool:
    """Tell whether a column could be called so: a short name with a part that is known."""
    key = _key(name)
    return is_known(name) or (_TEXT_PART.search(key) is not None and len(key) <= _PROSE)


def lost_digits(value: Any) -> bool:
    """Tell whether a number is so long that a spreadsheet has rounded it: as an id it may be that of another."""
    return (isinstance(value, float) and abs(value) >= 2**53) or (
        isinstance(value, str) and _ROUNDED.fullmatch(value.strip()) is not None
    )


def guess_columns(columns: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> ColumnGuess:
    """Guess from the names, Korean or English, and from the first rows.

    The text is a column named like one that holds words, else the one with the longest texts if they are prose.
    An id must be there and different in every row of the sample.
    """
    values = {name: [row.get(name) for row in sample] for name in columns}
    text, why_text, rivals = _guess_text(columns, values)
    rest = [name for name in columns if name != text]
    id_, why_id, notes = _guess_id(rest, values)
    group = _first_known([name for name in rest if name != id_], _GROUP, lambda name: _groups(values[name]))
    why_group = f"group: {group!r} by its name" if group else "group: none"
    if group and (gaps := sum(value in (None, "") for value in values[group])) > 0.5 * len(values[group]):
        notes.append(
            Sentence(
                "The column %(column)r is empty in %(n)s of the first %(all)s rows; if its cells were "
                "merged, fill them down and import the file then",
                column=group,
                n=gaps,
                all=len(values[group]),
            )
        )
    return ColumnGuess(text, id_, group, f"{why_text}; {why_id}; {why_group}", rivals, notes)


def _guess_text(columns: Sequence[str], values: Mapping[str, list[Any]]) -> tuple[str | None, str, list[str]]:
    """Return the text, why, and its rivals: columns that stand as high as it and whose texts are not much shorter."""

    def holds_words(name: str) -> bool:
        return not values[name] or _share_of_words(values[name]) >= 0.5

    def average(name: str) -> float:
        return _average(values[name])

    own = [name for name in columns if not _REPLY.search(_key(name)) and holds_words(name)]
    known = [name for key in _TEXT for name in own if _key(name) == key]
    parts = [name for name in own if _TEXT_PART.search(_key(name)) and not _NOT_TEXT.search(_key(name))]
    prose = [name for name in own if _is_prose(values[name])]
    replies = [name for name in columns if name not in own and _is_prose(values[name])]
    if known:
        rivals = [name for name in known[1:] if name in prose and average(name) >= 0.5 * average(known[0])]
        return known[0], f"text: {known[0]!r} by its name", rivals
    if len(columns) == 1 and holds_words(columns[0]):
        return columns[0], f"text: {columns[0]!r} is the only column", []
    # Where no name says which it is, even a much shorter text may be the one.
    for tier, why, close in ((parts, "by its name", 0.5), (prose, _LONGEST, 0.3), (replies, _LONGEST, 0.3)):
        if tier:
            found = max(tier, key=average)
            rivals = [name for name in tier if name != found and average(name) >= close * average(found)]
            return found, f"text: {found!r} {why}", rivals
    return None, "text: no column looks like it; choose one", []


def _guess_id(columns: Sequence[str], values: Mapping[str, list[Any]]) -> tuple[str | None, str, list[str]]:
    notes: list[str] = [
        Sentence(
            "The numbers in the column %(column)r have more digits than a spreadsheet keeps, so it has "
            "rounded them; store the column as text there",
            column=name,
        )
        for name in columns
        if any(map(lost_digits, values[name]))
    ]
    if found := _first_known(columns, _ID, lambda name: _is_unique(values[name])):
        return found, f"id: {found!r} by its name", notes
    if found := next((name for name in columns if _ID_PART.fullmatch(_key(name)) and _is_unique(values[name])), None):
        return found, f"id: {found!r} by its name", notes
    if named := _first_known(columns, _ID, lambda name: True):
        if not any(map(lost_digits, values[named])):
            notes.append(
                Sentence(
                    "The column %(column)r is not used as the id: it is empty or the same in several rows", column=named
                )
            )
        return None, f"id: none, because {named!r} is empty or the same in several rows", notes
    return None, "id: none", notes


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
    if any(value is None or value == "" or isinstance(value, dict | list) or lost_digits(value) for value in values):
        return False
    return len({str(value) for value in values}) == len(values)


def _groups(values: list[Any]) -> bool:
    return not any(isinstance(value, dict | list) or lost_digits(value) for value in values) and _average(values) < 200


_KNOWN = frozenset((*_TEXT, *_ID, *_GROUP, *_OTHERS))
