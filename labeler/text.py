"""The one door for text: normalise, refuse what no store can hold, make the invisible visible."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice

from labeler.errors import InputError, TextError
from labeler.sentence import N_

_SURROGATE = re.compile("[\ud800-\udfff]")
# The lookbehinds keep it linear: a run of marks is tried from its beginning only.
_SENTENCE_END = re.compile(
    r"(?:(?<![.!?…~])[.!?…~]++|(?<![ㅋㅎㅠㅜ])[ㅋㅎㅠㅜ]{2,}+|\^\^|[♡♥])['\")\]’”]*+(?=\s|$)|\n+"
)
# How Korean sentences end that have no mark; nouns that end alike are told by their last two syllables.
_KOREAN_END = re.compile(
    r"(?:[가-힣](?:요|죠|네|니당|슴다|[네어아세해]여|[음함됨임짐힘옴냄])|[니었았였했됐졌렸겼왔갔있없겠싶같좋한된]다)(?=\s)"
)
_NO_END = frozenset(
    ("필요", "중요", "주요", "수요", "동네", "다음", "처음", "마음", "웃음", "얼음", "모임", "게임", "책임", "포함")
)
# The apostrophes before the sign are counted too: then one can be taken off again without a guess.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_BEGINNINGS = frozenset("'=+-@\t\r")
_EMOTICON_LETTERS = frozenset("ㅋㅎㅠㅜ")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")

# Tokens a character, between what the tokenizers of OpenAI, DeepSeek and Llama 3 make of it; small models take more.
_ASCII = re.compile("[\x00-\x7f]+")
_PER_TOKEN = 4
_WEIGHTS = (
    ("\uac00", "\ud7a3", 1.0), ("\u4e00", "\u9fff", 1.0), ("\u3040", "\u30ff", 0.9), ("\u0080", "\u024f", 0.6),
    ("\u0370", "\u04ff", 0.5), ("\u0590", "\u06ff", 0.7), ("\u2010", "\u2027", 0.7), ("\U00010000", "\U0010ffff", 2.5),
)  # fmt: skip

# Bidirectional overrides, zero-width characters, Hangul fillers, tags and controls change a text without being seen.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u2069\u2800\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U000e0000-\U000e007f]+"
)
# What nobody sees, also where it belongs into a text: what Unicode calls ignorable, fillers, the empty Braille cell.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
# Alphabets whose letters look like each other's.
_ALIKE = ("LATIN", "CYRILLIC", "GREEK")
# A page shows so many marks of one text; a review that has more is made of them.
_MOST_MARKS = 1000


def clean_text(text: str, what: str = "text") -> str:
    """Return ``text`` in NFC with line ends as ``\\n`` and outer white space removed.

    Control and bidirectional characters stay: they are part of what the customer wrote, and pages show them
    through :func:`visible`. Raises :class:`TextError` for NUL and for lone surrogates, which no database
    stores alike.
    """
    if "\x00" in text:
        raise TextError(
            "The %(what)s contains a NUL character (position %(place)s); remove it",
            what=what,
            place=text.index(chr(0)) + 1,
        )
    lone = _SURROGATE.search(text)
    if lone:
        raise TextError(
            "The %(what)s contains a lone surrogate U+%(code)s (position %(place)s); save the file again as UTF-8",
            what=what,
            code=f"{ord(lone.group()):04X}",
            place=lone.start() + 1,
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text).strip()


def clean_texts(texts: Sequence[str]) -> list[str] | None:
    """Return what :func:`clean_text` makes of each, all at once; None if it refuses one of them."""
    # Nothing is composed across a NUL, and what is joined is looked through much faster than each.
    joined = "\x00".join(texts)
    if joined.count("\x00") != max(len(texts) - 1, 0) or _SURROGATE.search(joined):
        return None
    joined = unicodedata.normalize("NFC", joined.replace("\r\n", "\n").replace("\r", "\n"))
    return [text.strip() for text in joined.split("\x00")] if texts else []


def is_blank(text: str) -> bool:
    """Tell whether nothing of a text can be seen."""
    seen_at_once = text[:1].strip() and not _INVISIBLE.match(text)
    return not (seen_at_once or _INVISIBLE.sub("", text).strip())


def content_hash(text: str) -> str:
    """Return 32 hex digits that are equal for texts that differ only in case, white space or width.

    Two records with one hash are exact duplicates of each other.
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(folded.encode("utf-8")).hexdigest()[:32]


def as_read(text: str) -> str:
    """Return ``text`` as a reader takes it: every letter in its plain form, without what nobody sees."""
    return unicodedata.normalize("NFKC", _UNSEEN.sub("", text))


def same_name(name: str) -> str:
    """Return what is equal for names that a person takes for one: other case, width, spaces, or letters unseen."""
    return " ".join(as_read(name).casefold().split())


def taken_name(name: str, others: Iterable[str]) -> str | None:
    """Return the one of ``others`` that a person takes for ``name``; None if there is none."""
    wanted = same_name(name)
    return next((other for other in others if same_name(other) == wanted), None)


NAMELESS_PROJECT = N_("A project needs a name of 1 to %(most)s printable characters")


def checked_name(raw: str, refusal: str, most: int) -> str:
    """Return the name of a person or a project in NFC.

    Raises :class:`InputError` with the template ``refusal`` for one that nobody could read.
    """
    name = clean_text(raw, "name")
    if not (same_name(name) and len(name) <= most and name.isprintable()) or _INVISIBLE.search(name):
        raise InputError(refusal, most=most)
    if any(len(_alphabets(word)) > 1 for word in name.split()):
        raise InputError(
            "The name %(name)r mixes letters of alphabets that look alike; write each word in one", name=name
        )
    return name


def _alphabets(word: str) -> set[str]:
    return {unicodedata.name(letter, "").split(" ")[0] for letter in as_read(word) if letter.isalpha()} & set(_ALIKE)


def visible(text: str) -> list[tuple[str, str | None]]:
    """Split ``text`` into (piece, mark) pairs; ``mark`` names a run of invisible characters, or is None for plain text.

    The pieces joined together are the text again, so offsets into it stay true. What comes after a thousand marks is
    plain.
    """
    pieces: list[tuple[str, str | None]] = []
    last = 0
    for match in islice(_INVISIBLE.finditer(text), _MOST_MARKS):
        if match.start() > last:
            pieces.append((text[last : match.start()], None))
        pieces.append((match.group(), _mark(match.group())))
        last = match.end()
    if last < len(text):
        pieces.append((text[last:], None))
    return pieces


def _mark(run: str) -> str:
    """Return the name of a run of invisible characters: the first three kinds of them, and how many there are."""
    kinds = list(dict.fromkeys(run))
    names = " ".join(f"U+{ord(kind):04X}" for kind in kinds[:3]) + (" …" if len(kinds) > 3 else "")
    return names if len(run) == len(kinds) <= 3 else f"{names} ×{len(run):,}"


def guess_language(text: str) -> str:
    """Return ``"ko"`` for a text with any Hangul, else ``"en"``: the two languages of the product."""
    return "ko" if _HANGUL.search(text) else "en"


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return the sentences of ``text`` as (start, end) code-point offsets, without outer white space.

    A sentence ends at ``. ! ? … ~`` or a run of emoticon letters (ㅋㅎㅠㅜ) or marks (^^ ♡ ♥) before white space,
    at a line break, or at a Korean ending (-요, -네, -습니다, -했다, -음): how short Korean and English reviews are
    written, many of them without a mark.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    ends = [_mark_end(match) for match in _SENTENCE_END.finditer(text)]
    ends += [match.end() for match in _KOREAN_END.finditer(text) if text[match.end() - 2 : match.end()] not in _NO_END]
    for end in sorted(ends):
        _add_span(spans, text, start, end)
        start = end
    _add_span(spans, text, start, len(text))
    return spans


def _mark_end(match: re.Match[str]) -> int:
    return match.end() if match.group()[0] != "\n" else match.start()


def _add_span(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    # A piece without a word ("^^", "!!!", "ㅋㅋ") belongs to the sentence before it.
    if start < end and (any(c.isalnum() and c not in _EMOTICON_LETTERS for c in text[start:end]) or not spans):
        spans.append((start, end))
    elif start < end:
        spans[-1] = (spans[-1][0], end)


def edit_distance(a: str, b: str) -> int:
    """Return how many characters have to be typed, deleted or replaced to make ``b`` of ``a`` (Levenshtein 1966).

    One row of the table is one number, by its bits (Myers 1999, in the form of Hyyrö 2003).
    """
    if not a or not b:
        return len(a) + len(b)
    places: dict[str, int] = {}
    for n, character in enumerate(a):
        places[character] = places.get(character, 0) | 1 << n
    last, every = 1 << (len(a) - 1), (1 << len(a)) - 1
    more, less, distance = every, 0, len(a)
    for character in b:
        same = places.get(character, 0)
        across = (((same & more) + more) ^ more) | same | less
        up, down = less | ~(across | more) & every, more & across
        distance += bool(up & last) - bool(down & last)
        up = up << 1 | 1
        more = (down << 1 | ~(across | up)) & every
        less = up & across & every
    return distance


def count_tokens(text: str) -> int:
    """Return a guess of the tokens of ``text``, without a tokenizer, by its scripts."""
    return round(sum(token_weights(text))) + 1


def token_weights(text: str) -> tuple[float, float]:
    """Return about how many tokens the ASCII characters of a text make, and how many the others."""
    wide = _ASCII.sub("", text)
    return (len(text) - len(wide)) / _PER_TOKEN, sum(n * _weight(char) for char, n in Counter(wide).items())


@lru_cache(maxsize=16_384)
def _weight(char: str) -> float:
    return next((weight for first, last, weight in _WEIGHTS if first <= char <= last), 1.0)


def safe_cell(cell: str) -> str:
    """Return ``cell`` with an apostrophe before it if a spreadsheet would calculate it; :func:`raw_cell` undoes it."""
    # Nearly every cell is told by its first character.
    return "'" + cell if cell[:1] in _BEGINNINGS and _FORMULA.match(cell) else cell


def raw_cell(cell: str) -> str:
    """Return what :func:`safe_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def one_line(text: str, limit: int = 200) -> str:
    """Return ``text`` as one printable line for logs and reports: no newline, no terminal escape."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: limit + 1])
    return line if len(text) <= limit else line[:limit] + "…"
