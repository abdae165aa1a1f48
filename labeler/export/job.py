"""What is exported: the rows that pass the filters, and how they are asked and written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labeler.errors import (
    SettingError,
)
from labeler.export.filters import Filters, Sieve
from labeler.export.formats import Context, Format
from labeler.export.selection import Selection
from labeler.export.splits import Shares
from labeler.prompts import PromptStyle
from labeler.prompts.forms import FULL, JSON, PLAIN, STORED
from labeler.prompts.styles import CHAIN_OF_THOUGHT, FEW_SHOT, ZERO_SHOT
from labeler.retrieval.embedding import Embeddings
from labeler.retrieval.retrievers import Nothing, Retriever
from labeler.store import Row, Store
from labeler.task import Task


@dataclass(frozen=True, slots=True)
class Options:
    """How an export is asked and written.

    ``language`` is that of the prompts and of rendered labels (None: the project's), ``longest`` the most characters of
    text and answer together. ``examples`` is how many approved examples each prompt shows; they come from the train
    split alone, with ``earlier`` from what was approved before the row. ``guidelines``, ``answers`` and ``names`` are
    those of :class:`labeler.prompts.PromptStyle`; None leaves them as the task's calls have them. ``reasoning`` puts
    what the model wrote on the way into the answers, for rows that have it. ``joint`` names other tasks whose labels
    stand in the same answer. ``keep_contradicting`` exports copies and near-duplicates with different labels too.
    ``formula_safe`` and ``bom`` concern CSV only. ``new_splits`` forgets in which splits records left before.
    ``template`` names the chat template of the format ``text``, and ``tokens`` the way in which ``conll`` cuts texts.
    Of preference sets, ``keep_same_form`` keeps pairs that differ in form alone, and ``failures`` takes answers that
    could not be read for worse ones.
    """

    language: str | None = None
    longest: int = 32_000
    examples: int = 0
    earlier: bool = False
    guidelines: str | None = None
    answers: str | None = None
    names: str | None = None
    joint: tuple[str, ...] = ()
    keep_contradicting: bool = False
    formula_safe: bool = True
    bom: bool = False
    reasoning: bool = False
    new_splits: bool = False
    template: str = ""
    tokens: str = ""
    keep_same_form: bool = False
    failures: bool = False

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise SettingError("The longest row is %(longest)s characters; it must be at least 1", longest=self.longest)
        if not 0 <= self.examples <= _MOST_EXAMPLES:
            raise SettingError(
                "%(n)s examples in each prompt; it must be between 0 and %(most)s", n=self.examples, most=_MOST_EXAMPLES
            )
        if self.joint and self.reasoning:
            raise SettingError("An answer to several tasks has no reasoning; leave out one of the two")


_MOST_EXAMPLES = 64


@dataclass(frozen=True, slots=True)
class Calls:
    """How the calls of a task are put: the words of their prompts, and where their examples come from.

    ``persona`` and ``wording`` map languages to texts, ``columns`` are those of the metadata that the model sees, and
    ``others`` are the tasks of the project by name. ``retriever`` chooses examples among ``embeddings`` and is called
    ``retriever_name``.
    """

    persona: Mapping[str, str] = field(default_factory=dict)
    wording: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    guidelines: str = FULL
    answers: str = JSON
    names: str = STORED
    retriever: Retriever = field(default_factory=lambda: Nothing({}))
    retriever_name: str = "none"
    embeddings: Embeddings | None = None
    others: Mapping[str, Task] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One export. ``task`` reads values with retired labels too, ``offered`` is the task as it is asked.

    ``again`` is the number of an earlier export whose rows leave once more, whatever was decided since.
    """

    store: Store
    project: Mapping[str, Any]
    task: Task
    folder: Path
    shares: Shares
    filters: Filters
    options: Options
    offered: Task
    selection: Selection = Selection()
    calls: Calls = field(default_factory=Calls)
    name: str = ""
    again: int | None = None

    @property
    def style(self) -> PromptStyle:
        """How the prompts are put. Raises :class:`SettingError` for forms that do not go together."""
        options, calls = self.options, self.calls
        language = options.language or self.project["language"]
        style = PromptStyle(
            CHAIN_OF_THOUGHT if options.reasoning else FEW_SHOT if options.examples else ZERO_SHOT,
            language,
            persona=calls.persona.get(language, ""),
            wording=calls.wording.get(language, ""),
            columns=calls.columns,
            guidelines=options.guidelines or calls.guidelines,
            answers=options.answers or calls.answers,
            names=options.names or calls.names,
        )
        if style.answers == PLAIN and (options.reasoning or options.joint):
            raise SettingError("Reasoning, and the answers to several tasks, need JSON; leave answers as json")
        if style.names != STORED and options.joint:
            raise SettingError("The answers to several tasks call labels by their names; leave names as stored")
        return style

    def context(self) -> Context:
        """Return what a format is told of this export."""
        given = self.options
        return Context(
            self.task,
            self.style,
            given.formula_safe,
            given.bom,
            weighted=bool(self.selection.weights),
            template=given.template,
            tokens=given.tokens,
        )

    def owner(self, chosen: Format) -> dict[str, str]:
        return {"project": self.project["name"], "task": self.task.name, "format": chosen.name}

    def approved_pages(self, sieve: Sieve | None = None, brief: bool = False) -> Iterator[list[Row]]:
        """Yield what is approved and passes the filters, in pages, by annotation id; ``sieve`` counts the others.

        ``brief`` leaves out how a label came to be, where no filter asks for it.
        """
        annotations = self.store.annotations
        if self.again is not None:
            yield from annotations.exported_pages(self.again, self.task.name)
            return
        pages = annotations.approved_pages if not brief or self.filters.names else annotations.brief_pages
        yield from self.matching(pages(self.project["id"], self.task.name, unit=self.task.unit), sieve)

    def matching(self, pages: Iterable[list[Row]], sieve: Sieve | None = None) -> Iterator[list[Row]]:
        """Yield what passes the filters."""
        if not self.filters.names:
            yield from pages
            return
        sieve = sieve or Sieve(self.filters)
        for rows in pages:
            yield [row for row in rows if sieve.passes(row)]

    def given(self, task: str, record_ids: Sequence[int]) -> dict[int, Row]:
        """Return what is approved of another task on some records, by record id."""
        annotations = self.store.annotations
        if self.again is not None:
            return annotations.exported_among(self.again, task, record_ids)
        return annotations.approved_among(self.project["id"], task, record_ids)
