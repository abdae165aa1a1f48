"""English sentences with values in them, found by their pattern and said in another language of the catalogue.

Errors are raised in English. A page says them in the language of its reader (:mod:`labeler.web.sentences`), and a
prompt that tells a model why its answer cannot be read says it in the language of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from typing import TypeVar

T = TypeVar("T")
_LONGEST = 1000
# Holes that hold a sentence themselves, or a part of one.
_NESTED = ("why", "got", "what")
_HOLE = re.compile(r"%\\\((\w+)\\\)s")


def pattern_of(sentence: str) -> re.Pattern[str]:
    """Return the pattern of a sentence in which ``%(name)s`` stands for what varies."""
    return re.compile(_HOLE.sub(lambda hole: f"(?P<{hole[1]}>.+)", re.escape(sentence)))


def said(sentence: str, known: Iterable[tuple[T, re.Pattern[str]]], say: Callable[[T, Mapping[str, str]], str]) -> str:
    """Return what ``say`` makes of the first pattern that fits and of its values; else the sentence as it is."""
    known = tuple(known)
    for meant, pattern in known if len(sentence) <= _LONGEST else ():
        match = pattern.fullmatch(sentence)
        if match:
            found = match.groupdict()
            found |= {hole: said(found[hole], known, say) for hole in _NESTED if hole in found}
            return say(meant, found)
    return sentence


def in_language(sentence: str, language: str) -> str:
    """Return a sentence as the catalogue has it in ``language``, without a full stop; English where it has none."""
    return said(sentence, _catalogue(language), lambda text, found: text % found if found else text).rstrip(".")


@cache
def _catalogue(language: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return the texts of a language with the patterns of their English, those with the most words of their own first.

    The catalogue holds the texts of the pages too, and some are little more than a value.
    """
    from babel.messages.mofile import read_mo

    file = resources.files("labeler") / "translations" / language / "LC_MESSAGES" / "messages.mo"
    if not file.is_file():
        return ()
    with file.open("rb") as stream:
        texts = [(each.id, each.string) for each in read_mo(stream) if isinstance(each.id, str) and each.id]
    texts.sort(key=lambda text: -len(re.sub(r"%\(\w+\)s", "", text[0])))
    return tuple((str(text), pattern_of(english)) for english, text in texts)
