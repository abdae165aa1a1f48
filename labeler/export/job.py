"""What is exported: the rows that pass the filters, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from labeler.errors import (
    SettingError,
)
from labeler.export.formats import Format
from labeler.export.splits import Shares
from labeler.prompts import LANGUAGES, PromptStyle
from labeler.prompts.styles import ZERO_SHOT
from labeler.store import Row, Store
from labeler.store.annotations import ACCEPTED, CORRECTED, IMPORTED, SCRATCH
from labeler.task import Task

HOWS = (ACCEPTED, CORRECTED, SCRATCH, IMPORTED)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which approved annotations leave: those made as ``how`` says, in a language, since a time (seconds since 1970).

    Empty or None means all.
    """

    how: tuple[str, ...] = ()
    language: str | None = None
    since: float | None = None

    def __post_init__(self) -> None:
        strange = [name for name in self.how if name not in HOWS]
        if strange:
            raise SettingError(
                "No way of labeling %(name)r; there are: %(names)s", name=strange[0], names=", ".join(HOWS)
            )
        if self.language is not None and self.language not in LANGUAGES:
            raise SettingError(
                "No records in %(language)r; there are: %(names)s", language=self.language, names=", ".join(LANGUAGES)
            )

    def match(self, how: str | None, language: str, created_at: float) -> bool:
        return (
            (not self.how or how in self.how)
            and (self.language is None or language == self.language)
            and (self.since is None or created_at >= self.since)
        )

    def to_json(self) -> dict[str, Any]:
        since = None if self.since is None else iso(datetime.fromtimestamp(self.since, UTC))
        return {"how": list(self.how), "language": self.language, "since": since}


@dataclass(frozen=True, slots=True)
class Options:
    """How an export is written.

    ``language`` is that of the prompts and of rendered labels (None: the project's), ``longest`` the most characters of
    text and answer together. ``persona`` and ``wording`` are those of the task's settings, by language, as served, and
    ``columns`` those of the metadata that the model sees.
    ``keep_contradicting`` exports exact copies with different labels too. ``formula_safe`` and ``bom`` concern CSV
    only. ``reasoning`` adds the steps of each suggestion to the format ``suggestions``; no other format ever holds
    them. ``new_splits`` forgets in which splits records left before. Of preference
    sets, ``keep_same_form`` keeps pairs that differ in form alone, and ``failures`` takes answers that could not be
    read for worse ones.
    """

    language: str | None = None
    longest: int = 32_000
    persona: Mapping[str, str] = field(default_factory=dict)
    wording: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    keep_contradicting: bool = False
    formula_safe: bool = True
    bom: bool = False
    reasoning: bool = False
    new_splits: bool = False
    keep_same_form: bool = False
    failures: bool = False

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise SettingError("The longest row is %(longest)s characters; it must be at least 1", longest=self.longest)


@dataclass(frozen=True, slots=True)
class Job:
    store: Store
    project: Mapping[str, Any]
    task: Task
    folder: Path
    shares: Shares
    filters: Filters
    options: Options
    offered: Task

    @property
    def style(self) -> PromptStyle:
        language = self.options.language or self.project["language"]
        persona, wording = (words.get(language, "") for words in (self.options.persona, self.options.wording))
        return PromptStyle(ZERO_SHOT, language, persona=persona, wording=wording, columns=self.options.columns)

    def owner(self, chosen: Format) -> dict[str, str]:
        return {"project": self.project["name"], "task": self.task.name, "format": chosen.name}

    def approved_pages(self) -> Iterator[list[Row]]:
        """Yield what is approved and passes the filters, in pages, by annotation id."""
        place = (self.project["id"], self.task.name)
        yield from self.matching(self.store.annotations.approved_pages(*place, unit=self.task.unit))

    def matching(self, pages: Iterable[list[Row]]) -> Iterator[list[Row]]:
        """Yield what passes the filters."""
        for rows in pages:
            yield [row for row in rows if self.filters.match(row["how"], row["language"], row["created_at"])]

    def approved(self) -> Iterator[Row]:
        return chain.from_iterable(self.approved_pages())


def iso(moment: datetime) -> str:
    """Return a moment as manifests have it."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
