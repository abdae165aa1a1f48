"""The reading of a file: what it is taken for before anything of it is stored.

It says how the bytes became rows and what the columns are. Where something else is as likely there is a question and
not a guess: see :class:`~labeler.errors.Doubt`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from labeler.errors import Doubt, FileRefused, LabelerError
from labeler.ingest.cells import holds_labels, paths, value_at
from labeler.ingest.columns import guess_columns, is_named, lost_digits
from labeler.ingest.options import ImportOptions
from labeler.ingest.readers import Limits, Row, RowError, RowSource, open_rows
from labeler.ingest.shapes import recognise
from labeler.sentence import N_, Sentence
from labeler.task import GROUP, Task

Readers = Mapping[str, Callable[[Path, ImportOptions], RowSource]]
"""Readers of other file formats, by suffix (".sav"): what plugins register."""
log = logging.getLogger("labeler.ingest")
_HEAD = 200
_MOST_COLUMNS = 500


@dataclass(frozen=True, slots=True)
class Reading:
    """``rivals`` are the columns that could be the text as well as ``text``. ``notes`` are sentences about the file,
    ``problems`` (row number and sentence) are about its first rows.

    ``header`` is the row of the column names where it is not the first, ``sheet`` the one that was chosen of several.
    """

    format: str
    encoding: str | None
    encoding_sure: bool
    delimiter: str | None
    sheet: str | None
    header: str | None
    columns: Sequence[str]
    text: str | None
    id: str | None
    group: str | None
    rivals: Sequence[str]
    head: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    problems: Sequence[tuple[int, str]]

    def resolve(self, options: ImportOptions) -> ImportOptions:
        """Return the options with every guess made. Raises :class:`Doubt` or :class:`FileRefused`."""
        if self.text is None:
            raise _question(
                Sentence("Which column holds the review? There are: %(columns)s", columns=_listed(self.columns)),
                self.columns,
            )
        if self.rivals:
            both = [self.text, *self.rivals]
            raise _question(Sentence("Several columns could hold the review: %(columns)s", columns=_listed(both)), both)
        chosen = replace(options, text=self.text, id=self.id, group=self.group)
        for column in (chosen.text, chosen.id, chosen.group, *options.labels.values(), *options.parts.values()):
            if column is not None and column not in self.columns:
                raise FileRefused(
                    "There is no column %(name)r; there are: %(columns)s", name=column, columns=_listed(self.columns)
                )
        self._check_text(self.text)
        for column in (chosen.id, chosen.group):
            if column is not None and any(lost_digits(row[column]) for row in self.head):
                raise FileRefused(
                    "The numbers in the column %(column)r have more digits than a spreadsheet keeps, so it "
                    "rounded them, and different ones are the same now; take the file from where it comes, with"
                    " that column as text",
                    "Or leave the column out: --id '' or --group ''",
                    column=column,
                )
        return chosen

    def labels(self, tasks: Iterable[Task]) -> dict[str, list[str]]:
        """Return the columns that seem to hold labels of a task already, for each task that has such columns."""
        others = [name for name in self.columns if name not in (self.text, self.id, self.group)]
        cells = {name: [(row[name], str(row.get(self.text or "") or "")) for row in self.head] for name in others}
        found = {}
        for task in tasks:
            if task.unit != GROUP:
                titles = [task.name, *task.title.values()]
                found[task.name] = [
                    name for name in others if holds_labels(task.schema, cells[name], is_named(name, titles))
                ]
        return {name: columns for name, columns in found.items() if columns}

    def _check_text(self, column: str) -> None:
        filled = [row[column] for row in self.head if row[column] not in (None, "")]
        if filled and all(isinstance(value, dict) for value in filled):
            inside = [name for name in self.columns if name.startswith(f"{column}.")]
            if not inside:
                raise FileRefused("The column %(column)r holds objects, not texts", column=column)
            which = N_(
                "The column %(column)r holds objects, not texts. Which part is the review? There are: %(columns)s"
            )
            raise _question(Sentence(which, column=column, columns=_listed(inside)), inside)


def preview(path: Path, options: ImportOptions, readers: Readers | None = None, name: str | None = None) -> Reading:
    """Look at the head of a file without importing anything; messages call it ``name``.

    Raises :class:`FileRefused`, and :class:`Doubt` where it can be read in several ways.
    """
    with open_file(path, options, readers, name=name) as source:
        head = list(islice(source, _HEAD))
        good = [item.values for item in head if isinstance(item, Row)]
        columns = list(dict.fromkeys([*source.columns, *(path for values in good for path in paths(values))]))
        columns = columns[: max(_MOST_COLUMNS, len(source.columns))]
        flat = [{column: value_at(values, column) for column in columns} for values in good]
        guess = guess_columns(columns, flat)
        wrong = ((error.number, error.reason) for error in head if isinstance(error, RowError))
        return Reading(
            source.format, source.encoding, not source.guessed, source.delimiter, source.sheet, source.header, columns,
            options.text or guess.text,
            guess.id if options.id is None else options.id or None,
            guess.group if options.group is None else options.group or None,
            () if options.text else guess.rivals,
            flat, [*source.notes, *(guess.notes if options.id is None else ())], list(wrong)[:20],
        )  # fmt: skip


def resolve(
    path: Path, options: ImportOptions, readers: Readers | None = None, name: str | None = None
) -> ImportOptions:
    """Return the options with every guess made; see :meth:`Reading.resolve`."""
    return preview(path, options, readers, name).resolve(options)


def _question(message: str, columns: Sequence[str]) -> Doubt:
    return Doubt(message, [{"text": column} for column in columns])


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(repr, columns))


def reader_of(name: str, readers: Readers) -> Any:
    """Return a plugin's reader for a file of this name: that of the longest suffix; None without one."""
    fitting = [suffix for suffix in readers if name.lower().endswith(suffix)]
    return readers[max(fitting, key=len)] if fitting else None


def _of_plugin(reader: Any, path: Path, options: ImportOptions, name: str) -> RowSource:
    try:
        source = reader(path, options)
    except LabelerError:
        raise
    except Exception as error:
        log.exception("the reader of a plugin failed on %s", name)
        raise FileRefused(
            "%(name)s cannot be read: %(reason)s", name=name, reason=f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(source, RowSource):
        raise FileRefused(
            "%(name)s cannot be read: its plugin returned %(kind)s, not a RowSource",
            name=name,
            kind=type(source).__name__,
        )
    return source


def open_file(
    path: Path,
    options: ImportOptions,
    readers: Readers | None = None,
    limits: Limits | None = None,
    name: str | None = None,
) -> RowSource:
    """Open a file with the reader of a plugin or our own. Raises :class:`FileRefused`."""
    if not path.is_file():
        raise FileRefused("There is no file %(name)s", name=name or path)
    reader = reader_of(path.name, readers or {})
    if reader is not None:
        return recognise(_of_plugin(reader, path, options, name or path.name))
    source = open_rows(
        path,
        encoding=options.encoding,
        delimiter=options.delimiter,
        sheet=options.sheet,
        header=options.header,
        header_row=options.header_row,
        name=name,
        limits=limits or Limits(),
    )
    try:
        return recognise(source)
    except BaseException:
        source.close()
        raise
