"""What is exported: the rows that pass the filters, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from labeler.errors import (
    SettingError,
)
from labeler.export.filters import Filters, Sieve
from labeler.export.formats import Format
from labeler.export.selection import Selection
from labeler.export.splits import Shares
from labeler.prompts import PromptStyle
from labeler.prompts.styles import ZERO_SHOT
from labeler.store import Row, Store
from labeler.task import Task


@dataclass(frozen=True, slots=True)
class Options:
    """How an export is written.

    ``language`` is that of the prompts and of rendered labels (None: the project's), ``longest`` the most characters of
    text and answer together. ``persona`` and ``wording`` are those of the task's settings, by language, as served, and
    ``columns`` those of the metadata that the model sees.
    ``keep_contradicting`` exports copies and near-duplicates with different labels too. ``formula_safe`` and ``bom``
    concern CSV only. ``reasoning`` adds the steps of each suggestion to the format ``suggestions``; no other format
    ever holds them. ``new_splits`` forgets in which splits records left before.
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
    selection: Selection = Selection()

    @property
    def style(self) -> PromptStyle:
        language = self.options.language or self.project["language"]
        persona, wording = (words.get(language, "") for words in (self.options.persona, self.options.wording))
        return PromptStyle(ZERO_SHOT, language, persona=persona, wording=wording, columns=self.options.columns)

    def owner(self, chosen: Format) -> dict[str, str]:
        return {"project": self.project["name"], "task": self.task.name, "format": chosen.name}

    def approved_pages(self, sieve: Sieve | None = None) -> Iterator[list[Row]]:
        """Yield what is approved and passes the filters, in pages, by annotation id; ``sieve`` counts the others."""
        sieve = sieve or Sieve(self.filters)
        for rows in self.store.annotations.approved_pages(self.project["id"], self.task.name, unit=self.task.unit):
            yield [row for row in rows if sieve.passes(row)]

    def approved(self, sieve: Sieve | None = None) -> Iterator[Row]:
        return chain.from_iterable(self.approved_pages(sieve))
