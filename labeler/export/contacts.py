"""Contact data in texts: phone numbers, e-mail addresses, resident registration numbers and payment cards.

Found by how they are written, and by their checksums where they have one. A mark takes as many code points as what it
hides, so that offsets into the text stay true.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeler.codepoints import matching, points_of

if TYPE_CHECKING:
    from labeler.codepoints import Numbers

PHONE, EMAIL, RESIDENT, CARD = "phone", "email", "resident", "card"
KINDS = (PHONE, EMAIL, RESIDENT, CARD)
MARK = "*"

# Nearly every text ends here: it has neither an @ nor seven digits close to each other.
_DIGITS = 7
_MAY = re.compile(rf"[@＠]|\d(?:[^\w@＠]{{0,3}}\d){{{_DIGITS - 1}}}")
# Full-width characters, as Korean and Japanese keyboards write them, in their plain form: one for one.
_NARROW = {code + 0xFEE0: chr(code) for code in range(0x21, 0x7F)}
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_DASH = "[-‐-―]"
_RESIDENT = re.compile(rf"(?<![\d-])(\d{{6}})( ?{_DASH} ?|)([0-9]\d{{6}})(?![\d-])")
_CARD = re.compile(rf"(?<!\d)\d(?:(?:{_DASH}|[ .])?\d){{12,18}}(?!\d)")
# Mobile numbers of Korea; others of Korea with a mark between the parts; those with a country code; North American.
_GAP = rf"(?:{_DASH}|[ .])"
_PHONE = re.compile(
    rf"(?<!\d)(?:01[016789]{_GAP}?\d{{3,4}}{_GAP}?\d{{4}}"
    rf"|\(?0(?:2|[3-6]\d|70|80|50\d)(?:\) ?|{_GAP})\d{{3,4}}{_GAP}\d{{4}}"
    rf"|\+\d{{1,3}}(?:{_GAP}?\(?\d{{1,4}}\)?){{2,5}}"
    rf"|(?:\([2-9]\d\d\) ?|[2-9]\d\d{_GAP})[2-9]\d\d{_GAP}\d{{4}})(?!\d)"
)
# How the numbers of cards begin, and how many digits they have: the networks, and the domestic cards of Korea (9).
_NETWORKS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7]|35|62|65|9\d)\d{14}|6011\d{12}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}"
)
_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
_NO_CHECKSUM = date(2020, 10, 1)


class Contact(NamedTuple):
    """Where contact data stands in a text, in code points."""

    kind: str
    start: int
    end: int


def may_have(text: str) -> bool:
    """Tell, quickly, whether a text may have contact data."""
    return _MAY.search(text) is not None


def which_may_have(texts: Sequence[str]) -> list[int]:
    """Return the places of the texts that may have contact data: of many texts far quicker than one after the other."""
    points, ends = points_of(texts)
    weights = np.concatenate([[0], np.cumsum(_weights()[points])])
    enough = np.diff(weights[np.concatenate([[0], ends])]) >= _DIGITS
    return [place for place in np.flatnonzero(enough).tolist() if may_have(texts[place])]


@cache
def _weights() -> Numbers:
    """Return what a code point counts in the sum from which on contact data is possible."""
    return matching(r"\d") + _DIGITS * matching("[@＠]").astype(np.int64)


def contacts(text: str) -> list[Contact]:
    """Return the contact data of a text, in order; no two overlap.

    A phone number or an address has no checksum: it is found by its form. A card passes the check of Luhn and begins as
    those of its network do. A resident registration number is a day of birth and has a right check digit. Those given
    since October 2020 have none: of people born since, one counts if a dash parts its halves, and one that was given to
    an older person is not found.
    """
    if not may_have(text):
        return []
    found: list[Contact] = []
    for contact in _candidates(text.translate(_NARROW)):
        if not any(contact.start < other.end and other.start < contact.end for other in found):
            found.append(contact)
    return sorted(found, key=lambda contact: contact.start)


def masked(text: str) -> str:
    """Return a text of the same length with a mark for each code point of contact data."""
    for _, start, end in contacts(text):
        text = text[:start] + MARK * (end - start) + text[end:]
    return text


def masked_in(value: Any) -> Any:
    """Return a JSON value with its texts masked; names of fields stay."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list):
        return [masked_in(item) for item in value]
    return {key: masked_in(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def kinds_in(value: Any) -> set[str]:
    """Return which contact data the texts of a JSON value have."""
    if isinstance(value, str):
        return {contact.kind for contact in contacts(value)}
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return {kind for item in items for kind in kinds_in(item)}


def _candidates(text: str) -> Iterator[Contact]:
    """Yield what looks like contact data, the surest first."""
    for kind, pattern in ((EMAIL, _EMAIL), (RESIDENT, _RESIDENT), (CARD, _CARD), (PHONE, _PHONE)):
        place = 0
        while found := pattern.search(text, place):
            fits = _CHECKS.get(kind, bool)(found)
            if fits:
                yield Contact(kind, *found.span())
            # What fails its check may hold what passes: +0 010-1234-5678 0000 is no number, but has one.
            place = found.end() if fits else found.start() + 1


def _digits(text: str) -> list[int]:
    return [int(character) for character in text if character.isdecimal()]


def _is_resident(found: re.Match[str]) -> bool:
    digits = _digits(found[1] + found[3])
    century = (18, 19, 19, 20, 20, 19, 19, 20, 20, 18)[digits[6]] * 100
    try:
        born = date(century + 10 * digits[0] + digits[1], 10 * digits[2] + digits[3], 10 * digits[4] + digits[5])
    except ValueError:
        return False
    if born >= _NO_CHECKSUM:
        return bool(found[2])
    # Of people from abroad (5 to 8) the check digit is two more.
    rest = sum(weight * digit for weight, digit in zip(_WEIGHTS, digits, strict=False)) % 11
    return digits[12] == ((13 if 5 <= digits[6] <= 8 else 11) - rest) % 10


def _is_card(found: re.Match[str]) -> bool:
    digits = _digits(found[0])
    if not _NETWORKS.fullmatch("".join(map(str, digits))):
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_phone(found: re.Match[str]) -> bool:
    # With a country code, a number has at most 15 digits (E.164), and a sum such as +100 is none.
    return found[0][0] != "+" or 9 <= len(_digits(found[0])) <= 15


_CHECKS = {RESIDENT: _is_resident, CARD: _is_card, PHONE: _is_phone}
