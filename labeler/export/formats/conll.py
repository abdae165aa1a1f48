"""The format for models that tag words: labels that mark stretches of a text, as BIO tags of its tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

from labeler.errors import MissingExtra, SettingError
from labeler.export.formats.base import Context, ExportRow, TrainingFormat
from labeler.sentence import N_

KEYWORD = "keyword"
"""What a keyword is tagged as: it has no label of its own."""
_SPACE = re.compile(r"\s+")
Cut = Callable[[str], Sequence[tuple[int, int]]]


class Stretch(NamedTuple):
    """A labelled stretch of a text, in code points; ``end`` is exclusive."""

    start: int
    end: int
    label: str


class Conll(TrainingFormat):
    """A token a line, an empty line after each record: token, start, end, start16, end16, tag, with tabs between.

    Offsets count code points of the record's text, then UTF-16 units. The tag is B-, I- or O. A token has the tag of
    the first label that it overlaps; what is lost by that is named (:meth:`warnings`).
    """

    name = "conll"
    suffix = ".conll"
    description = N_("A token and its BIO tag a line, for labels that mark stretches of the text")
    asks = False

    def prepared(self, context: Context) -> Context:
        if not context.task.schema.marks:
            raise SettingError(
                "The format conll is for labels that mark stretches of the text, and %(task)r has none",
                task=context.task.name,
            )
        return replace(context, ready=cutting(context.tokens))

    def row(self, row: ExportRow, context: Context) -> str:
        text = row.record.text
        tokens = context.ready(text)
        units = [0, *accumulate(1 + (ord(character) > 0xFFFF) for character in text)]
        lines = []
        for (start, end), tag in zip(tokens, _tags(tokens, _stretches(row)), strict=True):
            lines.append(f"{text[start:end]}\t{start}\t{end}\t{units[start]}\t{units[end]}\t{tag}\n")
        return "".join(lines) + "\n"

    def warnings(self, row: ExportRow, context: Context) -> Sequence[str]:
        stretches = _stretches(row)
        if not stretches:
            return ()
        tokens = context.ready(row.record.text)
        starts, ends = {start for start, _ in tokens}, {end for _, end in tokens}
        between = any(s.start not in starts or s.end not in ends for s in stretches)
        shared = any(sum(s.start < end and start < s.end for s in stretches) > 1 for start, end in tokens)
        return [kind for kind, is_so in (("between_tokens", between), ("shared_tokens", shared)) if is_so]


def _stretches(row: ExportRow) -> list[Stretch]:
    return [Stretch(s["start"], s["end"], _SPACE.sub("_", s.get("label", KEYWORD))) for s in row.value]


def _tags(tokens: Sequence[tuple[int, int]], stretches: Sequence[Stretch]) -> list[str]:
    """Return the tag of each token. ``stretches`` are sorted by where they start."""
    tags, last = [], None
    for start, end in tokens:
        found = next((s for s in stretches if s.start < end and start < s.end), None)
        tags.append("O" if found is None else f"{'I' if found is last else 'B'}-{found.label}")
        last = found
    return tags


def cutting(tokens: str) -> Cut:
    """Return what cuts a text into the places of its tokens. Raises :class:`SettingError` for a name there is not."""
    name = tokens or next(iter(TOKENS))
    if name not in TOKENS:
        raise SettingError("No tokens %(name)r; there are: %(names)s", name=name, names=", ".join(TOKENS))
    return TOKENS[name]()


def _words() -> Cut:
    return lambda text: [found.span() for found in re.finditer(r"\S+", text)]


def _characters() -> Cut:
    return lambda text: [(n, n + 1) for n, character in enumerate(text) if not character.isspace()]


def _kiwi() -> Cut:
    try:
        from kiwipiepy import Kiwi
    except ImportError:
        raise MissingExtra("kiwipiepy", "kiwi") from None
    kiwi = Kiwi()

    def cut(text: str) -> list[tuple[int, int]]:
        places: list[tuple[int, int]] = []
        for token in kiwi.tokenize(text):
            if places and token.start < places[-1][1]:
                # Morphemes that share a syllable (하 and 었 of 했) are one token: a letter has one tag.
                places[-1] = (places[-1][0], max(places[-1][1], token.end))
            elif token.end > token.start:
                places.append((token.start, token.end))
        return places

    return cut


TOKENS: dict[str, Callable[[], Cut]] = {"whitespace": _words, "characters": _characters, "kiwi": _kiwi}
"""The ways to cut a text: at white space, into code points, or into the morphemes that kiwipiepy finds in Korean."""
