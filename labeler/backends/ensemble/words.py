"""Which words of a text moved a suggestion: those without which it would have been another, or less sure of itself."""

from __future__ import annotations

import math
import unicodedata

# So many characters are read for one text, whatever its length: a long one loses several words at once.
_READ = 40_000


def without(text: str) -> list[tuple[str, str]]:
    """Return each word of a text, in order, with the text as it is without it.

    A word that comes again is left out everywhere, whatever its case and the punctuation around it. Of a long text, a
    run of words is left out at once: then the run stands for the word.
    """
    words = text.split()
    alike: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        alike.setdefault(bare(word).casefold(), []).append(place)
    most = max(1, _READ // max(1, len(text)))
    groups = list(alike.values())
    if len(groups) > most:
        size = math.ceil(len(words) / most)
        groups = [list(range(start, min(start + size, len(words)))) for start in range(0, len(words), size)]
    return [_left_out(words, group, len(groups) == len(alike)) for group in groups]


def _left_out(words: list[str], group: list[int], alone: bool) -> tuple[str, str]:
    gone = set(group)
    named = bare(words[group[0]]) if alone else " ".join(words[place] for place in group)
    return named, " ".join(word for place, word in enumerate(words) if place not in gone)


def bare(word: str) -> str:
    """Return a word without the punctuation around it; one that is nothing else stays as it is."""
    kept = [place for place, character in enumerate(word) if not unicodedata.category(character).startswith("P")]
    return word[kept[0] : kept[-1] + 1] if kept else word
