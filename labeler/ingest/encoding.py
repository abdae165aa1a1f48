"""From bytes to text: which encoding a file has, and what to do with the bytes that do not fit it.

Bytes that cannot be decoded become *marks*, the characters U+DC00 to U+DCFF, which no valid text contains.
So the lines and cells around them keep their places, and :func:`fault` can say where the bad byte stands.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from labeler.errors import FileRefused

_ERRORS = "labeler.mark"
_BAD = re.compile("[\x00\ud800-\udfff]")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_GUESSED = ["cp1252", "cp1251", "cp932", "gb18030", "big5"]
_ASCII_OR_HANGUL = re.compile("[\t\n\r -~\u3131-\u318e\uac00-\ud7a3]")
# These remember a state from one line to the next or hide line ends, so one bad byte would spoil the rest.
_STATEFUL = re.compile(r"utf-7|hz|iso2022|punycode|idna|unicode.escape|utf-32|undefined|mbcs|oem|charmap")


@dataclass(frozen=True, slots=True)
class Encoding:
    """The name of a codec, how many bytes of byte order mark stand before the text, and a note if it was guessed."""

    name: str
    bom: int = 0
    note: str | None = None


def named_encoding(name: str, head: bytes) -> Encoding:
    """Return the encoding that a person asked for. Raises :class:`FileRefused` for one that cannot be used."""
    try:
        known = codecs.lookup(name).name
        "".encode(known)  # Refused for codecs from bytes to bytes, such as base64.
    except (LookupError, ValueError, UnicodeError):
        raise FileRefused(
            f"The encoding {name!r} is unknown; use one of utf-8, cp949, euc-kr, utf-16, cp1252, shift_jis"
        ) from None
    if _STATEFUL.search(known):
        raise FileRefused(f"Files in the encoding {known} are not read; save the file as UTF-8")
    if known == "utf-8-sig":
        known = "utf-8"
    if known == "euc_kr":
        # What calls itself EUC-KR is written by Windows as CP949, which holds all of EUC-KR and 8,822 syllables more.
        known = "cp949"
    if known.startswith("utf-16"):
        known = _utf16_name(known, head)
    elif "\n".encode(known) != b"\n":
        raise FileRefused(f"Files in the encoding {known} are not read; save the file as UTF-8")
    return Encoding(known, _bom_length(known, head))


def detect_encoding(head: bytes, complete: bool) -> Encoding:
    """Return the encoding of a file that begins with ``head`` (``complete``: and holds nothing more).

    In this order: byte order mark; UTF-16 by its NUL bytes; UTF-8; CP949, as Korean Excel writes; at last the
    best guess of charset-normalizer, with a note. A few undecodable bytes do not change the answer.
    """
    for bom, bom_name in _BOMS:
        if head.startswith(bom):
            if head.startswith(codecs.BOM_UTF32_LE) and len(head) % 4 == 0:
                raise FileRefused("The file is in UTF-32; save it as UTF-8")
            return Encoding(bom_name, len(bom))
    if b"\x00" in head and (name := _utf16_without_bom(head)):
        return Encoding(name)
    if _decodes(head, "utf-8", complete) or _share_of_lines(head, "utf-8") >= 0.5:
        return Encoding("utf-8")
    if (_decodes(head, "cp949", complete) or _share_of_lines(head, "cp949") >= 0.9) and _looks_korean(head):
        return Encoding("cp949")
    return _best_guess(head)


def decode_chunks(chunks: Iterable[bytes], encoding: Encoding) -> Iterator[tuple[str, bool]]:
    """Yield (text, suspicious) for each chunk; only a suspicious text may contain marks or NUL."""
    decoder = codecs.getincrementaldecoder(encoding.name)("strict")
    skip = encoding.bom
    for chunk in _and_the_end(chunks):
        final = chunk is None
        data = (chunk or b"")[skip:]
        skip = max(0, skip - len(chunk or b""))
        state = decoder.getstate()
        suspicious = b"\x00" in data
        try:
            text = decoder.decode(data, final)
        except UnicodeDecodeError:
            decoder.setstate(state)
            decoder.errors = _ERRORS
            text = decoder.decode(data, final)
            decoder.errors = "strict"
            suspicious = True
        if text:
            yield text, suspicious


def fault(line: str, encoding: str) -> str | None:
    """Say what is wrong with the first mark or NUL of a line, with the place of the byte, or return None."""
    bad = _BAD.search(line)
    if bad is None:
        return None
    byte = len(line[: bad.start()].encode(encoding, "replace")) + 1
    if bad.group() == "\x00":
        return f"a NUL character at byte {byte} of the line"
    return f"byte {byte} of the line (0x{ord(bad.group()) & 0xFF:02x}) is not {encoding}"


def utf8_size(text: str) -> int:
    """Return how many bytes ``text`` takes as UTF-8, marks included."""
    return len(text.encode("utf-8", "surrogatepass"))


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_ERRORS, _mark)


def _and_the_end(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from chunks
    yield None


def _bom_length(name: str, head: bytes) -> int:
    return next((len(bom) for bom, bom_name in _BOMS if bom_name == name and head.startswith(bom)), 0)


def _utf16_name(name: str, head: bytes) -> str:
    if name != "utf-16":
        return name
    return "utf-16-be" if head.startswith(codecs.BOM_UTF16_BE) else _utf16_without_bom(head) or "utf-16-le"


def _utf16_without_bom(head: bytes) -> str | None:
    even, odd = head[0::2].count(0), head[1::2].count(0)
    name = "utf-16-le" if odd > even else "utf-16-be"
    text = head[: len(head) // 2 * 2].decode(name, "replace")
    # ASCII read as UTF-16 gives Chinese characters, so mostly ASCII and Hangul means that it really is UTF-16.
    return name if 2 * len(_ASCII_OR_HANGUL.findall(text)) > len(text) else None


def _decodes(head: bytes, name: str, complete: bool) -> bool:
    try:
        codecs.getincrementaldecoder(name)().decode(head, complete)
    except UnicodeDecodeError:
        return False
    return True


def _share_of_lines(head: bytes, name: str) -> float:
    """Return which share of the lines beyond ASCII decodes; the last one may be cut, so it counts only if alone."""
    lines = re.split(rb"[\r\n]+", head)
    lines = [line for line in lines[: max(1, len(lines) - 1)] if not line.isascii()]
    return sum(_decodes(line, name, True) for line in lines) / len(lines) if lines else 0.0


def _looks_korean(head: bytes) -> bool:
    """Tell CP949 from Western text, whose quotes and accents also make CP949 syllables, but rare ones."""
    beyond = "".join(c for c in head[: 64 * 1024].decode("cp949", "ignore") if not c.isascii()).encode("cp949")
    # Two bytes a character; both are high in the 2,350 syllables of everyday use.
    common = sum(1 for first, second in zip(beyond[0::2], beyond[1::2], strict=True) if min(first, second) >= 0xA1)
    return common >= 0.4 * len(beyond)


def _best_guess(head: bytes) -> Encoding:
    from charset_normalizer import from_bytes

    # A free guess among a hundred code pages finds Czech in one French accent.
    best = from_bytes(head[: 64 * 1024], cp_isolation=_GUESSED).best()
    name = codecs.lookup(best.encoding).name if best else None
    if name is None or b"\x00" in head or _STATEFUL.search(name) or "\n".encode(name) != b"\n":
        raise FileRefused("The file is not text in any encoding that is known here; save it as UTF-8")
    return Encoding(name, 0, f"The encoding was guessed as {name}; if letters look wrong, give the right one")
