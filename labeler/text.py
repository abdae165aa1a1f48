"""The one door for text: normalise, refuse what no store can hold, make the invisible visible."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from labeler.errors import TextError

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"\s+")
# The lookbehinds keep it linear: a run of marks is tried from its beginning only.
_SENTENCE_END = re.compile(
    r"(?:(?<![.!?…~])[.!?…~]++|(?<![ㅋㅎㅠㅜ])[ㅋㅎㅠㅜ]{2,}+|\^\^|[♡♥])['\")\]’”]*+(?=\s|$)|\n+"
)
# The apostrophes before the sign are counted too: then one can be taken off again without a guess.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_EMOTICON_LETTERS = frozenset("ㅋㅎㅠㅜ")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")

# Bidirectional overrides, zero-width characters, Hangul fillers, tags and controls change a text without being seen.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u2069\u2800\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def clean_text(text: str, what: str = "text") -> str:
    """Return ``text`` in NFC with line ends as ``\\n`` and outer white space removed.

    Control and bidirectional characters stay: they are part of what the customer wrote, and pages show them
    through :func:`visible`. Raises :class:`TextError` for NUL and for lone surrogates, which no database
    stores alike.
    """
    if "\x00" in text:
        raise TextError(f"The {what} contains a NUL character (position {text.index(chr(0)) + 1}); remove it")
    lone = _SURROGATE.search(text)
    if lone:
        raise TextError(
            f"The {what} contains a lone surrogate U+{ord(lone.group()):04X} (position {lone.start() + 1}); "
            "save the file again as UTF-8"
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text).strip()


def is_blank(text: str) -> bool:
    """Tell whether nothing of a text can be seen."""
    return not _INVISIBLE.sub("", text).strip()


def content_hash(text: str) -> str:
    """Return 32 hex digits that are equal for texts that differ only in case, white space or width.

    Two records with one hash are exact duplicates of each other.
    """
    folded = _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return hashlib.sha256(folded.encode("utf-8")).hexdigest()[:32]


def visible(text: str) -> list[tuple[str, str | None]]:
    """Split ``text`` into (piece, mark) pairs; ``mark`` names an invisible character, or is None for plain text.

    The pieces joined together are the text again, so offsets into it stay true.
    """
    pieces: list[tuple[str, str | None]] = []
    last = 0
    for match in _INVISIBLE.finditer(text):
        if match.start() > last:
            pieces.append((text[last : match.start()], None))
        pieces.append((match.group(), f"U+{ord(match.group()):04X}"))
        last = match.end()
    if last < len(text):
        pieces.append((text[last:], None))
    return pieces


def guess_language(text: str) -> str:
    """Return ``"ko"`` for a text with any Hangul, else ``"en"``: the two languages of the product."""
    return "ko" if _HANGUL.search(text) else "en"


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return the sentences of ``text`` as (start, end) code-point offsets, without outer white space.

    A sentence ends at ``. ! ? … ~`` or a run of emoticon letters (ㅋㅎㅠㅜ) or marks (^^ ♡ ♥) before white space,
    or at a line break: how short Korean and English reviews are written.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        end = match.end() if match.group()[0] != "\n" else match.start()
        _add_span(spans, text, start, end)
        start = match.end()
    _add_span(spans, text, start, len(text))
    return spans


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


def count_tokens(text: str) -> int:
    """Return an estimate of the tokens of ``text``, without a tokenizer: 1.6 characters each for Korean, else 4."""
    # A Korean character has three bytes, a Latin one one: the difference counts them without a loop.
    wide = (len(text.encode("utf-8", "surrogatepass")) - len(text)) / 2
    return round(wide / 1.6 + max(len(text) - wide, 0) / 4) + 1


def safe_cell(cell: str) -> str:
    """Return ``cell`` with an apostrophe before it if a spreadsheet would calculate it; :func:`raw_cell` undoes it."""
    return "'" + cell if _FORMULA.match(cell) else cell


def raw_cell(cell: str) -> str:
    """Return what :func:`safe_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def one_line(text: str, limit: int = 200) -> str:
    """Return ``text`` as one printable line for logs and reports: no newline, no terminal escape."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: limit + 1])
    return line if len(text) <= limit else line[:limit] + "…"
