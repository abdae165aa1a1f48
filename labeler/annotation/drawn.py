"""Records that are drawn by a share: always the same ones, spread evenly, whoever asks and whenever."""

from __future__ import annotations

import hashlib


def drawn(name: str, share: float) -> bool:
    """Return whether what ``name`` names is among the ``share`` (0 to 1) that is drawn. A larger share keeps these."""
    digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
    return int.from_bytes(digest) / 2**32 < share
