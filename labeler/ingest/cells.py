"""What a cell means: a text, an id, a label; and a value inside an object, by its path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from labeler import strictjson
from labeler.errors import InputError, JsonError, LabelError, TextError
from labeler.ingest.columns import lost_digits
from labeler.ingest.rows import composed
from labeler.ingest.shapes import Several, plain_answer
from labeler.labels import LabelSchema
from labeler.records import Part, Value
from labeler.sentence import Sentence
from labeler.text import clean_text, clean_texts, is_blank, one_line

MAX_TEXT = 100_000
_DEEPEST = 4
_BETWEEN = "\n\n"
_TOTAL = re.compile(r"합\s?계|총\s?계|소\s?계|총\s?합계|누\s?계|(?:grand |sub)?total|sum", re.IGNORECASE)
_MEAN = re.compile(r"평균|average|mean", re.IGNORECASE)
_COUNT = re.compile(r"(?:총\s*)?[-+]?[\d.,]+\s*(?:건|개|명|점|원|%|rows?|reviews?)?", re.IGNORECASE)

_NO_PROSE = re.compile(f"(?:{_TOTAL.pattern}|{_COUNT.pattern})?", re.IGNORECASE)
T = TypeVar("T")


def value_at(values: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column; a name such as ``review.text`` reaches into an object. None if there is none."""
    if name in values:
        return values[name]
    for place, sign in enumerate(name):
        if sign == "." and isinstance(inner := values.get(name[:place]), dict):
            found = value_at(inner, name[place + 1 :])
            if found is not None:
                return found
    return None


def without(values: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """Return the filled values that no column of ``used`` names, also inside of objects."""
    rest = {name: value for name, value in values.items() if name not in used and value not in (None, "")}
    if dict not in map(type, rest.values()):
        return rest
    for name, value in rest.items():
        inner = {path[len(name) + 1 :] for path in used if path.startswith(f"{name}.")}
        if inner and isinstance(value, dict):
            rest[name] = without(value, inner)
    return {name: value for name, value in rest.items() if value != {} or values[name] == {}}


def paths(values: Mapping[str, Any], depth: int = 1) -> Iterator[str]:
    """Yield the names of the values, and the paths of those that lie inside of objects."""
    for name, value in values.items():
        yield name
        if isinstance(value, dict) and depth < _DEEPEST:
            yield from (f"{name}.{inner}" for inner in paths(value, depth + 1))


def texts_of(raws: Sequence[Any]) -> list[str | InputError]:
    """Return the cells of a column as texts of reviews, or what is wrong with each; all at once if they are texts."""
    clean = clean_texts(raws) if set(map(type, raws)) <= {str} else None
    if clean is None:
        return [or_error(text_of, raw) for raw in raws]
    return [
        text if text and len(text) <= MAX_TEXT and not is_blank(text) else or_error(text_of, raw)
        for raw, text in zip(raws, clean, strict=True)
    ]


def names_of(raws: Sequence[Any], column: str) -> list[str | InputError | None]:
    """Return the ids or products in the cells of a column, or what is wrong with each; all at once if they can be."""
    texts = raws if set(map(type, raws)) <= {str} and not any("+" in raw for raw in raws) else None
    clean = None if texts is None else clean_texts(texts)
    if clean is None:
        return [or_error(name_of, raw, column) for raw in raws]
    return [name or None for name in clean]


def or_error(read: Callable[..., T], *arguments: Any) -> T | InputError:
    """Return what ``read`` returns, or the :class:`InputError` that it raises."""
    try:
        return read(*arguments)
    except InputError as error:
        return error


def text_of(raw: Any) -> str:
    """Return a cell as the text of a review. Raises :class:`TextError`."""
    if isinstance(raw, dict | list):
        kind = Sentence("an object") if isinstance(raw, dict) else Sentence("a list")
        raise TextError(
            "The text is %(got)s, not a text: %(value)s", got=kind, value=one_line(strictjson.dumps(raw), 40)
        )
    text = clean_text("" if raw is None else str(raw))
    if not text:
        raise TextError("The text is empty")
    if is_blank(text):
        raise TextError("The text holds nothing but invisible characters")
    if len(text) > MAX_TEXT:
        raise TextError(
            "The text has %(n)s characters; at most %(most)s are taken", n=f"{len(text):,}", most=f"{MAX_TEXT:,}"
        )
    return text


def text_of_parts(cells: Mapping[str, Any]) -> tuple[str, list[Part]]:
    """Return the cells of the parts of a text as one text, and where each is in it; an empty part is in none.

    Raises :class:`TextError` for one that is no text, or if all are empty or too long together.
    """
    parts, pieces, place = list[Part](), list[str](), 0
    for title, raw in cells.items():
        piece = "" if raw is None or not str(raw).strip() else text_of(raw)
        if piece:
            parts.append((title, place, place + len(piece)))
            pieces.append(piece)
            place += len(piece) + len(_BETWEEN)
    return text_of(_BETWEEN.join(pieces)), parts


def name_of(raw: Any, column: str) -> str | None:
    """Return the id or the product in a cell; None if it is empty. Raises :class:`InputError`."""
    if isinstance(raw, dict | list):
        raise InputError(
            "The column %(column)r holds an object or a list here, which cannot be an id or a product", column=column
        )
    if lost_digits(raw):
        raise InputError(
            "The number %(value)s in column %(column)r was rounded by a spreadsheet; store it as text there",
            value=raw,
            column=column,
        )
    try:
        return None if raw is None else clean_text(str(raw), column) or None
    except TextError as error:
        # A report takes that kind of error for one of the text.
        raise InputError(error.sentence) from error


def is_totals(values: Mapping[str, Any], text: str) -> bool:
    """Tell whether a row holds the totals of the rows above it: such a word, and else nothing but numbers."""
    cell = values.get(text)
    if isinstance(cell, str) and not _NO_PROSE.fullmatch(cell.strip()):
        return False
    total = False
    for name, value in values.items():
        cell = "" if value is None else str(value).strip()
        if _TOTAL.fullmatch(cell) or (name != text and _MEAN.fullmatch(cell)):
            total = True
        elif cell and not _COUNT.fullmatch(cell):
            return False
    return total


def read_label(schema: LabelSchema, raw: object, text: str) -> Value:
    """Return the canonical value of a label that came in a column. Raises :class:`LabelError`.

    A cell may hold the value as JSON, the name of a label or its exact title in a language of the schema, and for
    sets and keywords several of them with ``;`` or ``|`` between them. A list of one is that one.
    """
    if isinstance(raw, Several):
        raise LabelError(
            "People disagree about it in the file: %(values)s", values="; ".join(str(each)[:40] for each in raw[:5])
        )
    raw = composed(raw)
    if isinstance(raw, str):
        raw = _decoded(schema, raw.strip())
    return schema.parse(schema.read_cell(plain_answer(raw)), text)


def holds_labels(schema: LabelSchema, cells: Sequence[tuple[object, str]], named: bool) -> bool:
    """Tell whether the filled ones of the cells, each with the text of its row, all read as labels.

    A column that is not ``named`` after them must hold words of a closed list: numbers and texts may mean anything.
    """
    filled = [(cell, text) for cell, text in cells if cell not in (None, "")]
    closed = schema.one_of_labels or schema.set_of_labels
    if not named and (not closed or any(_is_number(cell) for cell, _ in filled)):
        return False
    try:
        for cell, text in filled:
            read_label(schema, cell, text)
    except LabelError:
        return False
    return bool(filled)


def _is_number(cell: object) -> bool:
    return not isinstance(cell, str | list) or (isinstance(cell, str) and _COUNT.fullmatch(cell.strip()) is not None)


def _decoded(schema: LabelSchema, cell: str) -> Any:
    """Return what a cell says that is JSON; a name or a text may begin with a bracket too."""
    if cell[:1] not in ("[", "{") or schema.free_text:
        return cell
    try:
        return strictjson.loads(cell)
    except JsonError as error:
        if schema.one_of_labels:
            return cell
        raise LabelError("%(value)r is not JSON: %(why)s", "not_json", value=cell[:40], why=error) from error
