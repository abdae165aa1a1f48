"""How a file is to be read: chosen on the command line or on the page, stored with the import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """``text``, ``id`` and ``group`` name columns (None: guessed, "": there is none); ``labels`` maps a task to one.

    ``encoding``, ``delimiter`` and ``sheet`` override what is detected. ``strict`` takes all rows or none.
    """

    text: str | None = None
    id: str | None = None
    group: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    header: bool = True
    strict: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"labels": dict(self.labels)}
