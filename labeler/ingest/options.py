"""How a file is to be read: chosen on the command line or on the page, stored with the import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from labeler.ingest.rows import composed


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """``text``, ``id`` and ``group`` name columns (None: guessed, "": there is none); ``labels`` maps a task to one.

    ``encoding``, ``delimiter`` and ``sheet`` override what is detected; ``header_row`` is the row of the column names
    ("5", or "1-2" for names in two rows). ``strict`` takes all rows or none. Names are compared in NFC.
    """

    text: str | None = None
    id: str | None = None
    group: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    header: bool = True
    header_row: str | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("text", "id", "group", "labels", "sheet"):
            object.__setattr__(self, name, composed(getattr(self, name)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"labels": dict(self.labels)}
