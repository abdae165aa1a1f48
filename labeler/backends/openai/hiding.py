"""Keys stay out of messages and logs, also where a server echoes them. Answers are data: nothing is hidden in them.

Servers of one's own want any key at all, so a key may be "x", "1" or a label. A short one is no secret that a message
could give away, and hiding it everywhere would take the words apart that a run learns from.
"""

from __future__ import annotations

import re

_SECRETS = r"(?i:bearer)\s+\S+|\bsk-[\w*-]{6,}"
_LONGEST = 300
# From so many characters on a key is hidden wherever it stands, and where a server shortens it; or as a whole word.
_SECRET, _WORD = 16, 8


class Hider:
    """Hides one key, what starts or ends like it (servers echo it shortened), and whatever else looks like a key."""

    def __init__(self, key: str | None) -> None:
        self._secrets = _pattern(key)

    def hide(self, text: str) -> str:
        return self._secrets.sub("[key]", text)

    def clean(self, text: str) -> str:
        """Return ``text`` on one line, without the key or anything that looks like one, at most 300 characters."""
        text = "".join(char if char.isprintable() else " " for char in self.hide(text))
        text = " ".join(text.split()).rstrip(".")
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _pattern(key: str | None) -> re.Pattern[str]:
    parts = [_SECRETS]
    if key is not None and len(key) >= _SECRET:
        parts[:0] = [re.escape(key), re.escape(key[:6]) + r"[^\s\"'`<>,;]*", r"[^\s\"'`<>,;]*" + re.escape(key[-8:])]
    elif key is not None and len(key) >= _WORD:
        parts.insert(0, rf"(?<!\w){re.escape(key)}(?!\w)")
    return re.compile("|".join(parts))
