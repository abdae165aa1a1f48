"""The catalogues of Labeler's own sentences, for whoever says one outside of a page: a prompt, in its language."""

from __future__ import annotations

import gettext
from collections.abc import Callable
from functools import cache
from pathlib import Path

from labeler.sentence import Sentence

FOLDER = Path(__file__).parent / "translations"


def in_language(sentence: str, language: str) -> str:
    """Return a sentence as the catalogue has it in ``language``, without a full stop; English where it has none."""
    return Sentence(sentence).say(_catalogue(language)).rstrip(".")


@cache
def _catalogue(language: str) -> Callable[[str], str]:
    return gettext.translation("messages", FOLDER, [language], fallback=True).gettext
