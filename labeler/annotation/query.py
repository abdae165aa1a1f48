"""The query language: which records are meant, in one line that people type, keep as a link and hand to a command.

``task:sentiment label:negative score<0.6 by:kim -flag 배송`` are the records of the task that Kim decided as negative,
whose suggestion has a score under 0.6 and no flag, and whose text contains 배송. Terms are joined by *and*, the
values of one term (``label:negative,neutral``) by *or*, and a minus turns a term around. Quotes keep blanks together,
and make a word of what would be a field. Fields and their values can be typed in Korean as well, labels by their title.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from labeler import strictjson
from labeler.errors import InputError
from labeler.labels import NO_LABEL
from labeler.sentence import N_
from labeler.store.annotations import ACCEPTED, BULK, CORRECTED, IMPORTED, SCRATCH
from labeler.store.search import search_query
from labeler.store.table import IS, STATES, Term, of_task
from labeler.task import Task

LONGEST = 500
_TEXT, _NUMBER, _DATE, _CLOSED, _LABEL = "text", "number", "date", "closed", "label"


class Field(NamedTuple):
    """A field of the language. ``korean`` is its other name; ``values`` are those of a closed list, by theirs."""

    kind: str
    korean: str
    help: str
    values: Mapping[str, str] = {}


FIELDS = {
    "task": Field(_TEXT, "태스크", N_("The task that the other fields are about")),
    "state": Field(
        _CLOSED, "상태", N_("Pending, disputed, approved or rejected"),
        dict(zip(STATES, ("대기", "조정", "승인", "제외"), strict=True)),
    ),
    "label": Field(_LABEL, "라벨", N_("The label that was decided")),
    "suggested": Field(_LABEL, "제안", N_("The label that is suggested")),
    "score": Field(_NUMBER, "점수", N_("The score of the suggestion, from 0 to 1")),
    "disagreement": Field(_NUMBER, "이견", N_("How far the second opinion is from the suggestion, from 0 to 1")),
    "agreement": Field(_NUMBER, "일치율", N_("How far the decision agrees with the suggestion, from 0 to 1")),
    "by": Field(_TEXT, "담당", N_("Who decided")),
    "how": Field(
        _CLOSED, "방법", N_("How the decision came about"),
        {ACCEPTED: "제안대로", CORRECTED: "수정", SCRATCH: "직접", IMPORTED: "가져옴", BULK: "일괄"},
    ),
    "date": Field(_DATE, "날짜", N_("The day of the decision, as in 2026-11-30 or 2026-11")),
    "seconds": Field(_NUMBER, "초", N_("How many seconds the decision took")),
    "version": Field(_TEXT, "버전", N_("The version of the task that it was decided under")),
    "model": Field(_TEXT, "모델", N_("The model or backend that suggested")),
    "is": Field(
        _CLOSED, "종류", N_("What the record is"),
        dict(zip(IS, ("블라인드", "중복", "상품", "제안있음", "읽지못함", "이견있음", "모델작성"), strict=True)),
    ),
    "flagged": Field(
        _CLOSED, "검토요청", N_("Whether a note on it waits for whoever adjudicates"), {"yes": "예", "no": "아니오"}
    ),
    "asked": Field(_TEXT, "질문", N_("Who is asked in a note on it")),
    "flag": Field(_TEXT, "표시", N_("What the suggestion is marked with, such as a cut text")),
    "act": Field(_NUMBER, "일괄", N_("The number of the act on many records that decided")),
    "tag": Field(_TEXT, "태그", N_("The tag of the record, such as gold, or @kim for records that are given to kim")),
    "key": Field(_TEXT, "키", N_("The key of the record")),
    "product": Field(_TEXT, "상품", N_("The product of the record")),
    "import": Field(_NUMBER, "가져오기", N_("The number of the import that brought the record")),
    "language": Field(_CLOSED, "언어", N_("The language of the text"), {"ko": "한국어", "en": "영어"}),
    "added": Field(_DATE, "추가", N_("The day on which the record was added")),
}  # fmt: skip
META = "meta."
_EMPTY = ("empty", "비어있음")
"""What stands for a decision without any label, where no label is called so."""
_KOREAN = {field.korean: name for name, field in FIELDS.items()}
_COMPARED = (_NUMBER, _DATE)
_BEGINNING = re.compile(r"(?P<name>[^\s\":<>=]+)(?P<op><=|>=|<|>|:|=)")
_WORD = re.compile(r"\"(?P<quoted>[^\"]*)\"|(?P<plain>[^\s\"]+)")
_VALUE = re.compile(r"\"(?P<quoted>[^\"]*)\"|(?P<plain>[^\s\",]+)")
_DATES = re.compile(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?")
_COLUMN = re.compile(r"[^\"\\\x00]{1,100}")


@dataclass(frozen=True, slots=True)
class Query:
    """A query as it was typed, the task it names, and its terms."""

    text: str = ""
    task: str | None = None
    terms: tuple[Term, ...] = ()

    @property
    def words(self) -> str:
        """The words that a text must contain."""
        return " ".join(
            value for term in self.terms if term.name == "word" and not term.negated for value in term.values
        )

    def of(self, task: Task | None, tasks: Sequence[str] = ()) -> Query:
        """Return the query for one task: labels by their names. Raises :class:`InputError` where it needs a task and
        there is none, or names a label that the task does not have."""
        if task is not None:
            return replace(self, terms=tuple(_labelled(term, task) for term in self.terms))
        asking = next((term for term in self.terms if of_task(term)), None)
        if asking is not None:
            raise InputError(
                "The field %(field)s is about one task; say which: %(names)s", field=asking.name,
                names=", ".join(f"task:{name}" for name in tasks),
            )  # fmt: skip
        return self


def parse(text: str) -> Query:
    """Return what a person typed as a query. Raises :class:`InputError` with what is wrong in it."""
    if len(text) > LONGEST:
        raise InputError("The query is longer than %(n)s characters", n=LONGEST)
    terms: list[Term] = []
    task, place = None, 0
    while (place := _skipped(text, place)) < len(text):
        negated = text[place] == "-" and place + 1 < len(text) and not text[place + 1].isspace()
        place += negated
        beginning = _BEGINNING.match(text, place)
        name = _field(beginning["name"], beginning["op"]) if beginning else None
        if beginning is None or name is None:
            term, place = _word(text, place)
        else:
            values, place = _values(text, beginning.end(), beginning[0])
            term = _term(name, beginning["op"], values)
        if term.name == "task":
            if task is not None or negated or len(term.values) > 1:
                raise InputError("A query is about one task at most")
            task = term.values[0]
        else:
            terms.append(replace(term, negated=negated))
    return Query(text.strip(), task, tuple(terms))


def _skipped(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _field(typed: str, op: str) -> str | None:
    """Return the field that a term begins with; None for a word that happens to hold a colon."""
    name = _KOREAN.get(typed, typed if typed.startswith(META) else typed.lower())
    if name in FIELDS or (name.startswith(META) and len(name) > len(META)):
        return name
    if not (typed.isascii() and typed.isalpha()):
        return None
    near = difflib.get_close_matches(name, FIELDS, 1)
    raise InputError(
        "There is no field %(name)s%(near)s; put it in quotes to look for these characters, or use one of: %(names)s",
        name=typed, near=f" ({near[0]}?)" if near else "", names=", ".join([*FIELDS, f"{META}COLUMN"]),
    )  # fmt: skip


def _word(text: str, place: int) -> tuple[Term, int]:
    found = _WORD.match(text, place)
    if found is None:
        raise InputError("A quote is opened and not closed: %(rest)s", rest=text[place : place + 40])
    word = found["quoted"] if found["plain"] is None else found["plain"]
    if found["plain"] in ("flag", FIELDS["flag"].korean):
        return Term("flag"), found.end()
    if search_query(word) is None:
        raise InputError("%(word)r has no letter, digit or picture to look for", word=word)
    return Term("word", (word,)), found.end()


def _values(text: str, place: int, before: str) -> tuple[list[str], int]:
    values: list[str] = []
    while True:
        found = _VALUE.match(text, place)
        if found is None:
            if text[place : place + 1] == '"':
                raise InputError("A quote is opened and not closed: %(rest)s", rest=text[place : place + 40])
            raise InputError("A value is missing after %(term)s", term=before)
        values.append(found["quoted"] if found["plain"] is None else found["plain"])
        place = found.end()
        if text[place : place + 1] != ",":
            return values, place
        place += 1


def _term(name: str, op: str, values: Sequence[str]) -> Term:
    op = ":" if op == "=" else op
    if name.startswith(META):
        return _of_metadata(name.removeprefix(META), op, values)
    field = FIELDS[name]
    if op != ":" and (field.kind not in _COMPARED or len(values) > 1):
        raise InputError(
            "The field %(field)s cannot be compared; write %(field)s:%(value)s", field=name, value=values[0]
        )
    if field.kind == _NUMBER:
        return _ranged(name, op, values, _number)
    if field.kind == _DATE:
        return _dated(name, op, values)
    if field.kind == _CLOSED:
        return Term(name, tuple(_of_list(name, field, value) for value in values))
    return Term(name, tuple(values))


def _of_list(name: str, field: Field, value: str) -> str:
    known = {korean: english for english, korean in field.values.items()} | {one: one for one in field.values}
    found = known.get(value.lower())
    if found is None:
        raise InputError(
            "The field %(field)s is one of %(names)s, not %(value)r", field=name, value=value,
            names=", ".join(field.values),
        )  # fmt: skip
    return found


def _ranged(name: str, op: str, values: Sequence[str], read: Any, column: str = "") -> Term:
    """Return a comparison, a range (``0.3..0.6``, both ends in it) or a list of numbers."""
    low, dots, high = values[0].partition("..")
    if op == ":" and dots:
        # The upper end is part of it.
        return Term(name, (read(name, low or "-inf"), _above(read(name, high or "inf"))), "..", column=column)
    return Term(name, tuple(read(name, value) for value in values), op, column=column)


def _above(number: float) -> float:
    return number + max(abs(number), 1.0) * 1e-12


def _number(name: str, value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = float("nan")
    if found != found or "_" in value:
        raise InputError("The field %(field)s is a number, not %(value)r", field=name, value=value)
    return found


def _dated(name: str, op: str, values: Sequence[str]) -> Term:
    if len(values) > 1:
        raise InputError("Write days as %(field)s:2026-11-01..2026-11-30", field=name)
    first, dots, last = values[0].partition("..")
    begins, ends = period(name, first) if first else (0.0, 0.0)
    if dots:
        ends = period(name, last)[1] if last else float("inf")
    if op == ":":
        return Term(name, (begins, ends), "..")
    # After a day is after its end, and up to a day is with all of it.
    return Term(name, (ends if op in (">", "<=") else begins,), {">": ">=", "<=": "<"}.get(op, op))


def period(name: str, value: str) -> tuple[float, float]:
    """Return the beginning and the end of a year, month or day in UTC, in seconds since 1970. Raises
    :class:`InputError`."""
    found = _DATES.fullmatch(value)
    try:
        if found is None:
            raise ValueError
        year, month, day = (int(part) if part else None for part in found.groups())
        first = date(year or 0, month or 1, day or 1)
        if day:
            after = date.fromordinal(first.toordinal() + 1)
        else:
            after = date(first.year + (month in (None, 12)), 1 if month in (None, 12) else (month or 0) + 1, 1)
    except (ValueError, OverflowError):
        raise InputError(
            "The field %(field)s is a day as in 2026-11-30 or a month as in 2026-11, not %(value)r", field=name,
            value=value,
        ) from None  # fmt: skip
    begins, ends = (datetime(one.year, one.month, one.day, tzinfo=UTC).timestamp() for one in (first, after))
    return begins, ends


def _of_metadata(column: str, op: str, values: Sequence[str]) -> Term:
    if not _COLUMN.fullmatch(column):
        raise InputError("There is no metadata column %(name)r", name=column)
    if op == ":" and ".." not in values[0]:
        return Term("meta", tuple(values), column=column)
    return _ranged("meta", op, values, _number, column)


def _labelled(term: Term, task: Task) -> Term:
    """Return a term about labels with the names of the task's labels, and with what their stored values hold."""
    if term.name not in ("label", "suggested"):
        return term
    names = tuple(_label(value, task) for value in term.values)
    if not all(name in task.schema.past.names for name in names):
        return replace(term, values=names, hints=())
    earlier = {one for name in names for one in task.lineage.earlier(name)}
    return replace(term, values=names, hints=tuple(sorted(strictjson.dumps(one) for one in earlier)))


def _label(value: str, task: Task) -> str:
    schema = task.schema.past
    labels = schema.labels
    if not labels or value == NO_LABEL or any(label.name == value for label in labels):
        return value
    same = [label.name for label in labels if value.casefold() in {title.casefold() for title in label.title.values()}]
    if len(same) == 1:
        return same[0]
    if value in _EMPTY:
        return NO_LABEL
    raise InputError(
        "The task %(task)s has no label %(name)r; there are: %(names)s", task=task.name, name=value,
        names=", ".join(label.name for label in labels[:50]),
    )  # fmt: skip


def quoted(value: str) -> str:
    """Return a value as it is typed into a query."""
    return value if re.fullmatch(r"[^\s\",]+", value) else '"' + value.replace('"', "") + '"'
