"""Export formats: each turns one row into text, and keeps nothing between rows.

A format for training sees an :class:`ExportRow`, which is made from an approved annotation in force; one for
preferences (:mod:`labeler.export.preference`) also sees which answers people found worse. Its JSON holds what trainers
read and nothing else, because some of them refuse a column they do not know; who labeled what, and in which split,
stands in ``records.jsonl`` beside it. ``suggestions`` is the one format for what no person approved.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from labeler import strictjson
from labeler.prompts import PromptStyle
from labeler.records import Message, Record, Suggestion, Value, made_column
from labeler.store import Row
from labeler.store.annotations import APPROVED
from labeler.task import Task
from labeler.text import safe_cell

_NEEDS_QUOTES = re.compile(r'[",\r\n]')
_FIXED = ("key", "text", "value", "rendered", "group", "split")
BOM = "\ufeff"
DATASET_INFO = "dataset_info.json"


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One approved annotation on its way out.

    ``value`` is canonical; ``label`` is what re-imports to it: ``schema.answer(value)``, or ``value`` itself where the
    answer says less (a keyword that is not at its first place in the text). ``prompt`` are the messages that a model
    is asked with, the last one a user's, and ``answer`` is the text that it should learn to answer.
    """

    annotation_id: int
    record: Record
    value: Value
    label: Any
    split: str
    prompt: Sequence[Message] = ()
    answer: str = ""

    @property
    def messages(self) -> list[Message]:
        """The prompt and the answer to it: one whole conversation."""
        return [*self.prompt, {"role": "assistant", "content": self.answer}]

    def provenance(self) -> dict[str, Any]:
        """Return what ``records.jsonl`` says of where this row comes from."""
        return {}


@dataclass(frozen=True, slots=True)
class Context:
    """What holds for all rows of an export. ``columns`` are the names of the records' metadata, sorted."""

    task: Task
    style: PromptStyle
    formula_safe: bool = True
    bom: bool = False
    columns: Sequence[str] = ()


class Format(ABC):
    """What every format has: a name to ask for it, the suffix of its files, and a line for people."""

    name: str
    suffix: str
    description: str


class TrainingFormat(Format):
    """A format for approved labels: subclass it, and give ``row`` and, if the files have one, ``head``."""

    complete: ClassVar[bool] = False
    """Whether a row holds the whole record, so that no ``records.jsonl`` needs to stand beside."""
    asks: ClassVar[bool] = True
    """Whether rows need ``prompt`` and ``answer``; a format for tables does without, and is quicker."""

    def head(self, context: Context) -> str:
        """Return what every file begins with."""
        return ""

    @abstractmethod
    def row(self, row: ExportRow, context: Context) -> str:
        """Return one row as it stands in the file, with its line end."""

    def lines(self, row: ExportRow) -> int:
        """Return how many lines of the file a row is."""
        return 1

    def about(self, files: Mapping[str, str], context: Context) -> tuple[str, str] | None:
        """Return name and content of a file that tells a trainer of the others, by split; None for none."""
        return None


class OpenAI(TrainingFormat):
    """{"messages": [system, user, assistant]}: chat fine-tuning, and TRL's conversational language modeling."""

    name = "openai"
    suffix = ".jsonl"
    description = "Chat messages, for OpenAI fine-tuning and everything that reads its files"

    def row(self, row: ExportRow, context: Context) -> str:
        return json_line({"messages": row.messages})


class TRL(TrainingFormat):
    """{"prompt": [...], "completion": [...]}: TRL's conversational prompt-completion, which trains the answer only."""

    name = "trl"
    suffix = ".jsonl"
    description = "Prompt and completion as messages, for the SFTTrainer of TRL"

    def row(self, row: ExportRow, context: Context) -> str:
        return json_line({"prompt": list(row.prompt), "completion": row.messages[-1:]})


class Alpaca(TrainingFormat):
    """{"system", "instruction", "input", "output"}: the system message, nothing, the marked review, the answer.

    The instruction is empty, because trainers put it and the input into one user's message: that one must be what is
    served. ``dataset_info.json`` beside the rows tells LLaMA-Factory which column is what.
    """

    name = "alpaca"
    suffix = ".jsonl"
    description = "System, instruction, input and output, for trainers that read the Alpaca form"

    def row(self, row: ExportRow, context: Context) -> str:
        system = "\n\n".join(m["content"] for m in row.prompt if m["role"] == "system")
        asked = "\n\n".join(m["content"] for m in row.prompt if m["role"] != "system")
        return json_line({"system": system, "instruction": "", "input": asked, "output": row.answer})

    def about(self, files: Mapping[str, str], context: Context) -> tuple[str, str] | None:
        columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
        sets = {
            f"{context.task.name}_{split}": {"file_name": name, "columns": columns} for split, name in files.items()
        }
        return DATASET_INFO, strictjson.dumps(sets, indent=1, separators=(",", ": ")) + "\n"


class Csv(TrainingFormat):
    """key, text, value, rendered, group, split, then one column for each name of the metadata.

    ``value`` is the plain text where the label is one (Choice, Text), else JSON. By default a spreadsheet cannot take
    a cell for a formula (:func:`safe_cell`).
    """

    name = "csv"
    suffix = ".csv"
    description = "A table for spreadsheets and statistics; it can be imported again"
    complete = True
    asks = False

    def head(self, context: Context) -> str:
        taken = set(_FIXED)
        names = list(_FIXED)
        for column in context.columns:
            while column in taken:
                column = f"metadata.{column}"
            taken.add(column)
            names.append(column)
        return (BOM if context.bom else "") + csv_line(names, context.formula_safe)

    def row(self, row: ExportRow, context: Context) -> str:
        record = row.record
        rendered = context.task.schema.render(row.value, context.style.language)
        cells = [record.key, record.text, plain(row.label), rendered, record.group or "", row.split]
        cells += [plain(record.metadata[name]) if name in record.metadata else "" for name in context.columns]
        return csv_line(cells, context.formula_safe)


class Suggestions(Format):
    """What backends proposed and nobody approved: for analysis, in a file whose name says so."""

    name = "suggestions"
    suffix = ".jsonl"
    description = "Suggestions with their evidence, for analysis; never for training"

    def suggestion(
        self, suggestion: Suggestion, key: str, text: str, examples: Mapping[int, Row], reasoning: bool = False
    ) -> str:
        """Return one suggestion; ``examples`` are the annotations of its evidence as stored, by id.

        The value of an example is what was approved, in the labels of its version of the task: a later decision on its
        record is another annotation, and ``in_force`` says whether this one still counts. Nothing is known of a removed
        record. What the model thought on the way (its steps) goes out with ``reasoning`` alone.
        """
        s = suggestion
        failure, second = s.failure, s.second
        steps = {"steps": [{"name": step.name, "text": step.text} for step in s.steps]} if reasoning else {}
        return json_line(
            {
                "key": key,
                "text": text,
                "value": s.value,
                "parse_failure": failure and {"kind": failure.kind, "message": failure.message, "raw": failure.raw},
                "score": s.score,
                "note": made_column(s.made),
                "backend": s.backend,
                "model_id": s.model_id,
                "task_version": s.task_version,
                "second_opinion": second and {"backend": second.backend, "value": second.value, "score": second.score},
                "flags": list(s.flags),
                "columns": list(s.columns),
                "evidence": [
                    {
                        "annotation_id": e.annotation_id,
                        "record_id": e.record_id,
                        "similarity": e.similarity,
                        **_example(examples.get(e.annotation_id)),
                    }
                    for e in s.evidence
                ],
            }
            | steps
        )


def _example(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {"key": None, "value": None, "task_version": None, "in_force": False}
    return {
        "key": row["key"],
        "value": None if row["value"] is None else strictjson.loads(row["value"]),
        "task_version": row["task_version"],
        "in_force": row["state"] == APPROVED and row["superseded_by"] is None,
    }


def built_in() -> dict[str, Format]:
    """Return the formats of Labeler itself, by name."""
    return {format_.name: format_ for format_ in (OpenAI(), TRL(), Alpaca(), Csv(), Suggestions())}


def record_line(row: ExportRow) -> str:
    """Return the whole record with its label, as the import reads it again."""
    record = row.record
    parts = {title: record.text[start:end] for title, start, end in record.parts}
    return json_line(
        {
            "id": record.key,
            "text": record.text,
            **({"parts": parts} if parts else {}),
            "label": row.label,
            "group": record.group,
            "metadata": dict(record.metadata),
            "split": row.split,
            **row.provenance(),
        }
    )


def json_line(value: Any) -> str:
    return strictjson.dumps(value) + "\n"


def plain(value: Any) -> str:
    """Return a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else strictjson.dumps(value)


def csv_line(cells: Sequence[str], formula_safe: bool) -> str:
    r"""Return one line of CSV (RFC 4180, but with ``\n``), with quotes only where they are needed.

    The csv module of Python 3.11 leaves a lone ``\r`` without quotes, and readers take it for a line end.
    """
    if formula_safe:
        cells = [safe_cell(cell) for cell in cells]
    quoted = ['"' + cell.replace('"', '""') + '"' if _NEEDS_QUOTES.search(cell) else cell for cell in cells]
    return ",".join(quoted) + "\n"
