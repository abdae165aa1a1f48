"""How a file is to be read: chosen on the command line or on the page, stored with the import."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from labeler.errors import InputError
from labeler.ingest.rows import composed

_TITLE = re.compile(r"\w(?:[\w ]{0,38}\w)?")


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """``text``, ``id`` and ``group`` name columns (None: guessed, "": there is none); ``labels`` maps a task to one.

    ``parts`` maps titles to the columns that make up the text together, in order; ``text`` is the first of them then.
    Raises :class:`InputError` for a title that cannot stand over a part.

    ``encoding``, ``delimiter`` and ``sheet`` override what is detected; ``header_row`` is the row of the column names
    ("5", or "1-2" for names in two rows). ``strict`` takes all rows or none. Names are compared in NFC.
    """

    text: str | None = None
    id: str | None = None
    group: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    header: bool = True
    header_row: str | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("text", "id", "group", "labels", "parts", "sheet"):
            object.__setattr__(self, name, composed(getattr(self, name)))
        for title in self.parts:
            if not _TITLE.fullmatch(title):
                raise InputError(
                    "A part cannot be called %(title)r; take a name of letters, digits, _ and spaces, at most 40",
                    title=title[:40],
                )
        if self.parts:
            object.__setattr__(self, "text", next(iter(self.parts.values())))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"labels": dict(self.labels), "parts": dict(self.parts)}
