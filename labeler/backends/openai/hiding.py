"""Keys stay out of messages, logs and stored answers, also where a server echoes them."""

from __future__ import annotations

import re

_SECRETS = r"(?i:bearer)\s+\S+|\bsk-[\w*-]{6,}"
_LONGEST = 300


class Hider:
    """Hides one key, what starts or ends like it (servers echo it shortened), and whatever else looks like a key."""

    def __init__(self, key: str | None) -> None:
        self._key = (key or "").encode()
        self._secrets = _pattern(key)

    def hide(self, text: str) -> str:
        return self._secrets.sub("[key]", text)

    def hide_in(self, data: bytes) -> bytes:
        """Return what a server answered without the key: the answer is stored and shown."""
        return data.replace(self._key, b"[key]") if self._key and self._key in data else data

    def hide_key(self, text: str) -> str:
        """Return a stored text without the key; what only looks like one is the text's own."""
        return text.replace(self._key.decode(), "[key]") if self._key else text

    def clean(self, text: str) -> str:
        """Return ``text`` on one line, without the key or anything that looks like one, at most 300 characters."""
        text = "".join(char if char.isprintable() else " " for char in self.hide(text))
        text = " ".join(text.split()).rstrip(".")
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _pattern(key: str | None) -> re.Pattern[str]:
    parts = [_SECRETS]
    if key is not None:
        parts.insert(0, re.escape(key))
        if len(key) >= 8:
            parts.insert(1, re.escape(key[:6]) + r"[^\s\"'`<>,;]*")
        if len(key) >= 16:
            parts.insert(2, r"[^\s\"'`<>,;]*" + re.escape(key[-8:]))
    return re.compile("|".join(parts))
