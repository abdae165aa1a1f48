"""The one door for JSON: what other parsers refuse is refused here too, with line and column.

Plain :mod:`json` accepts NaN, duplicate keys and lone surrogates, and answers ``[`` x 100,000 with a
RecursionError. Everything read through :func:`loads` is strict RFC 8259, and everything written through
:func:`dumps` is read back the same by any strict parser.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import cache
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from typing import Any

from labeler.errors import JsonError
from labeler.sentence import N_, Sentence

MAX_DEPTH = 100
MAX_DIGITS = 400
# Possessive, and the closing quote may be missing: an unclosed string is read once, not again from each of its quotes.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


def loads(text: str | bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Parse one JSON value. Raises :class:`JsonError` (message, line, column) for everything that is not strict."""
    if isinstance(text, bytes):
        text = decode_utf8(text)
    # Most of what the database holds of a row: a bare label, and no metadata.
    if text == "{}":
        return {}
    if text[:1] == '"' == text[-1:] and text.count('"') == 2 and "\\" not in text and text.isprintable():
        return text[1:-1]
    text = text.removeprefix("\ufeff")
    _check_depth(text, max_depth)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(
            "Not JSON at line %(line)s, column %(column)s: %(why)s",
            error.lineno,
            error.colno,
            line=error.lineno,
            column=error.colno,
            why=Sentence(error.msg),
        ) from None
    except RecursionError:
        raise JsonError("JSON nested deeper than %(n)s levels", n=max_depth) from None
    # A surrogate can only come from a \ud800-style escape: a decoded str from UTF-8 has none.
    if "\\ud" in text or "\\uD" in text or not text.isascii():
        _no_surrogates(value)
    return value


def decode_utf8(data: bytes) -> str:
    """Decode UTF-8 or raise :class:`JsonError` that names the line and byte of the first bad one."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise JsonError(
            "Not UTF-8 at line %(line)s, byte %(byte)s (%(value)s)",
            line,
            line=line,
            byte=error.start + 1,
            value=f"0x{data[error.start]:02x}",
        ) from None


def dumps(value: Any, **options: Any) -> str:
    """Write JSON as exports and the database hold it: characters as they are, no NaN.

    U+0085, U+2028 and U+2029 are escaped, because ``str.splitlines`` or JavaScript take them for line ends.
    """
    text = encode_basestring(value) if isinstance(value, str) else _encoder(**options)(value)
    return text.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _encoder(**options: Any) -> Callable[[Any], str]:
    """Return what encodes with these options, made once: :func:`json.dumps` would make it for every call."""
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, **{"separators": (",", ":")} | options)
    if c_make_encoder is None or encoder.indent is not None:
        return encoder.encode
    # As JSONEncoder.iterencode does for each value, without a look for circles: no value of JSON has one.
    marks = encoder.key_separator, encoder.item_separator, encoder.sort_keys, encoder.skipkeys, encoder.allow_nan
    made = c_make_encoder(None, encoder.default, encode_basestring, None, *marks)
    return lambda value: "".join(made(value, 0))


def _check_depth(text: str, limit: int) -> None:
    if text.count("[") + text.count("{") <= limit:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        mark = match.group()
        if mark in "[{":
            depth += 1
            if depth > limit:
                line = text.count("\n", 0, match.start()) + 1
                raise JsonError("JSON nested deeper than %(n)s levels at line %(line)s", line, n=limit, line=line)
        elif mark in "]}":
            depth -= 1


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonError("The key %(name)r appears twice in one object", name=key[:80])
            seen.add(key)
    return found


def _no_constant(name: str) -> Any:
    raise JsonError("%(name)s is not a JSON number", name=name)


def _short_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise JsonError("A number of %(n)s digits is too long (at most %(most)s)", n=len(digits), most=MAX_DIGITS)
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise JsonError("The number %(value)s is too large", value=digits[:40])
    return value


def _no_surrogates(value: Any) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if _SURROGATE.search(item):
                raise JsonError("A lone surrogate (\\ud800 to \\udfff without its pair) is not text")
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())


# What json says of a fault, for the catalogue.
OF_JSON = (
    N_("Expecting value"),
    N_("Extra data"),
    N_("Expecting ',' delimiter"),
    N_("Expecting ':' delimiter"),
    N_("Expecting property name enclosed in double quotes"),
    N_("Unterminated string starting at"),
    N_("Invalid control character at"),
    N_("Invalid \\escape"),
)
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_int=_short_int, parse_float=_finite_float
)
