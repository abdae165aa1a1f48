"""Settings as one version of them is stored: what the store reads and :mod:`labeler.settings` checks, once for all."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from labeler import strictjson


class StoredSettings(dict[str, Any]):
    """The settings of one version, shared by all who read it: nobody may change them.

    Each request reads those of its project a dozen times; ``checked`` keeps what :func:`labeler.settings.read_settings`
    made of them, by table.
    """

    def __init__(self, text: str) -> None:
        super().__init__(strictjson.loads(text))
        self.checked: dict[str, dict[str, Any]] = {}


stored_settings = lru_cache(maxsize=512)(StoredSettings)
