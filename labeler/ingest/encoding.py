"""From bytes to text: which encoding a file has, and what to do with the bytes that do not fit it.

Bytes that cannot be decoded become *marks*, the characters U+DC00 to U+DCFF, which no valid text contains.
So the lines and cells around them keep their places, and :func:`fault` can say where the bad byte stands.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from labeler.errors import Doubt, FileRefused
from labeler.sentence import N_, Sentence

_ERRORS = "labeler.mark"
_BAD = re.compile("[\x00\ud800-\udfff]")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
# The letters that every text of a language is full of: a wrong encoding gives letters too, but others. Where nearly all
# of a text is read as rare ones, it is read wrongly, however well the bytes decode.
_COMMON = {
    "cp949": frozenset(
        "이다는고요하가지아도어에니서기나한은로화보게리만라사데영을해네그들의시인있무면거정좋대자주안스으없마구재수상말진음제전를미너내부장일오잘감같"
        "여야것했생습까우었배연저더드되려점건비적용세신입작모분개않품소러간매할짜성과실치때동각중런와래조랑히았문국유르원못겠물던바합많람운봤송느금편"
        "쓰당터심남반공본버먹알선최평번예트함불걸두단별좀디행듯명애난싶루처위워밌냥임받님레포살빠추렇발왜봐질직타격른관경속든민년ㅋㅎㅠㅜ"
    ),
    "gb18030": frozenset(
        "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子得着下自之年过发后作里用道行所然家种事成方多经么去法学如都"
        "同现当没动面起看定天分还进好小部其些主样理心本前开但因只从想实日者意无力它与长把机十民第公此已工使情明性知全三又关点正外将两高间由问很"
        "最重并物手应向头文体相见被什二等产或新己身果加西月话合回特内信化老给位次门常先教原东提比员解水名真论处走各入几口认条平系气题活别打女变四"
        "神何电数安少才结受目太再感做接必件计管期市直价格便宜喜欢值推荐非非评颜色商品尺码穿衣服错谢卖买质量包装货快递满差"
    ),
    "big5": frozenset(
        "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子得著下自之年過發後作裡用道行所然家種事成方多經麼去法學如都"
        "同現當沒動面起看定天分還進好小部其些主樣理心本前開但因只從想實日者意無力它與長把機十民第公此已工使情明性知全三又關點正外將兩高間由問很"
        "最重並物手應向頭文體相見被什二等產或新己身果加西月話合回特內信化老給位次門常先教原東提比員解水名真論處走各入價格便宜喜歡值推薦評顏色商"
        "品尺碼穿衣服錯謝賣買質量包裝貨快遞滿差"
    ),
    **dict.fromkeys(("cp932", "euc_jp"), frozenset(map(chr, range(0x3041, 0x30FA)))),
}
_ENOUGH = 0.2
"""Share of common letters from which a text is in a language: wrong encodings stay far below."""
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
            "The encoding %(name)r is unknown; use one of utf-8, cp949, euc-kr, utf-16, cp1252, shift_jis", name=name
        ) from None
    if _STATEFUL.search(known):
        raise FileRefused("Files in the encoding %(name)s are not read; save the file as UTF-8", name=known)
    if known == "utf-8-sig":
        known = "utf-8"
    if known == "euc_kr":
        # What calls itself EUC-KR is written by Windows as CP949, which holds all of EUC-KR and 8,822 syllables more.
        known = "cp949"
    if known.startswith("utf-16"):
        known = _utf16_name(known, head)
    elif "\n".encode(known) != b"\n":
        raise FileRefused("Files in the encoding %(name)s are not read; save the file as UTF-8", name=known)
    return Encoding(known, _bom_length(known, head))


def detect_encoding(head: bytes, complete: bool) -> Encoding:
    """Return the encoding of a file that begins with ``head`` (``complete``: and holds nothing more).

    In this order: byte order mark; UTF-16 by its NUL bytes; UTF-8; the encoding of East Asia under which the most
    letters are common ones (CP949, as Korean Excel writes, without a word, the others with a note); at last the best
    guess of charset-normalizer, with a note. A few undecodable bytes do not change the answer. Raises :class:`Doubt`
    where two of them are as likely, and :class:`FileRefused` for UTF-32.
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
    fits = [name for name in _COMMON if _decodes(head, name, complete) or _share_of_lines(head, name) >= 0.9]
    likely = sorted(((_evidence(head, name), name) for name in fits), reverse=True)
    (best, name), (second, other) = [*likely, (0.0, ""), (0.0, "")][:2]
    if best < _ENOUGH:
        guess = _best_guess(head)
        if "cp949" in fits and guess.name != "cp949" and _looks_korean(head):
            raise _which(head, "cp949", guess.name)
        return guess
    if second > best / 2:
        raise _which(head, name, other)
    return Encoding(name, 0, None if name == "cp949" else _note(name))


def _evidence(head: bytes, name: str) -> float:
    """Return which share of the characters beyond ASCII are common letters, read in this encoding."""
    beyond = [c for c in head[: 64 * 1024].decode(name, "ignore") if not c.isascii()]
    return sum(c in _COMMON[name] for c in beyond) / max(1, len(beyond))


def _which(head: bytes, name: str, other: str) -> Doubt:
    """Return the question which of two encodings is right, with the first words beyond ASCII in each."""
    shown = []
    for each in (name, other):
        words = [word for word in head[:4096].decode(each, "ignore").split() if not word.isascii()]
        shown.append(" ".join(words[:3])[:40])
    return Doubt(
        "The encoding is not clear: as %(a)s the file reads %(x)r, as %(b)s %(y)r",
        [{"encoding": name}, {"encoding": other}],
        a=name,
        x=shown[0],
        b=other,
        y=shown[1],
    )


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


IN_LINE = (
    N_("a NUL character at byte %(n)s of the line"),
    N_("byte %(n)s of the line (0x%(byte)s) is not %(encoding)s"),
)
IN_RECORD = (
    N_("a NUL character at byte %(n)s of the record"),
    N_("byte %(n)s of the record (0x%(byte)s) is not %(encoding)s"),
)


def fault(line: str, encoding: str, words: tuple[str, str] = IN_LINE) -> Sentence | None:
    """Say what is wrong with the first mark or NUL of a line, with the place of the byte, or return None."""
    bad = _BAD.search(line)
    if bad is None:
        return None
    byte = len(line[: bad.start()].encode(encoding, "replace")) + 1
    if bad.group() == "\x00":
        return Sentence(words[0], n=byte)
    return Sentence(
        words[1],
        n=byte,
        byte=f"{ord(bad.group()) & 0xFF:02x}",
        encoding=encoding,
    )


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
    """Tell CP949 of rare words from Western text, whose quotes and accents make syllables out of everyday use."""
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
    return Encoding(name, 0, _note(name))


def _note(name: str) -> str:
    return Sentence("The encoding was guessed as %(name)s; if letters look wrong, give the right one", name=name)
