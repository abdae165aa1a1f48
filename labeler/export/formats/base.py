"""What every export format is: it turns one row into text, and keeps nothing between rows.

A format for training sees an :class:`ExportRow`, which can only be made from an approved annotation in force. Its JSON
holds what trainers read and nothing else, because some of them refuse a column they do not know; who labeled what, and
in which split, stands in ``records.jsonl`` beside it. ``suggestions`` is the one format for what no person approved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

from labeler import strictjson
from labeler.export.files import ExportFile
from labeler.prompts import PromptStyle
from labeler.records import Message, Record, Value
from labeler.task import Task


# Not frozen: that would make each row take three times as long.
@dataclass(slots=True)
class ExportRow:
    """One approved annotation on its way out.

    ``value`` is canonical; ``label`` is what re-imports to it: ``schema.answer(value)``, or ``value`` itself where the
    answer says less (a keyword that is not at its first place in the text). ``prompt`` are the messages that a model
    is asked with, the last one a user's, and ``answer`` is the text that it should learn to answer. ``others`` are the
    labels of other tasks that stand in the same answer, as (annotation id, value), and ``provenance`` says how the
    label came to be. ``weight`` is what the row counts in training, where labels were given weights.
    """

    annotation_id: int
    record: Record
    value: Value
    label: Any
    split: str
    prompt: Sequence[Message] = ()
    answer: str = ""
    others: Mapping[str, tuple[int, Value]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    weight: float | None = None

    @property
    def messages(self) -> list[Message]:
        """The prompt and the answer to it: one whole conversation."""
        return [*self.prompt, {"role": "assistant", "content": self.answer}]


@dataclass(frozen=True, slots=True)
class Context:
    """What holds for all rows of an export.

    ``columns`` are the names of the records' metadata, sorted; ``weighted`` tells whether rows have a weight.
    ``written`` is how many of the texts a model wrote.
    ``template`` names a chat template and ``tokens`` a way to cut texts, for formats that need one. ``ready`` is what
    :meth:`TrainingFormat.prepared` made of them.
    """

    task: Task
    style: PromptStyle
    formula_safe: bool = True
    bom: bool = False
    columns: Sequence[str] = ()
    weighted: bool = False
    written: int = 0
    template: str = ""
    tokens: str = ""
    ready: Any = None


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
    file: ClassVar[type[ExportFile]] = ExportFile
    """What takes head and rows: text as it is, or something that packs it."""

    def prepared(self, context: Context) -> Context:
        """Return the context with what all rows need, made once.

        Raises :class:`SettingError` for a task or an option that this format cannot be written with, and
        :class:`MissingExtra` for a package that is not installed.
        """
        return context

    def head(self, context: Context) -> str:
        """Return what every file begins with."""
        return ""

    @abstractmethod
    def row(self, row: ExportRow, context: Context) -> str:
        """Return one row as it stands in the file, with its line end."""

    def lines(self, row: ExportRow) -> int:
        """Return how many lines of the file a row is."""
        return 1

    def warnings(self, row: ExportRow, context: Context) -> Sequence[str]:
        """Return the kinds of what people should know of a row, such as a label that the format cannot hold."""
        return ()

    def about(self, files: Mapping[str, ExportFile], context: Context) -> Mapping[str, str]:
        """Return files that tell a trainer of the others, which are given by split: content by name."""
        return {}


def record_line(row: ExportRow) -> str:
    """Return the whole record with its label, as the import reads it again."""
    record = row.record
    line: dict[str, Any] = {"id": record.key, "text": record.text}
    if record.parts:
        line["parts"] = {title: record.text[start:end] for title, start, end in record.parts}
    line |= {"label": row.label, "group": record.group, "metadata": record.metadata, "split": row.split}
    if row.weight is not None:
        line["weight"] = row.weight
    if row.others:
        line["labels"] = {name: value for name, (_, value) in row.others.items()}
    line["provenance"] = row.provenance
    return json_line(line)


def messages_json(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return messages as JSON; what stands at the beginning of every prompt is put into it once."""
    return f"[{','.join([_message_json(message) for message in messages])}]"


def _message_json(message: Mapping[str, Any]) -> str:
    if len(message) > 2:
        return strictjson.dumps(message)
    role, content = message["role"], message["content"]
    literal = _literal(content) if role == "system" else strictjson.dumps(content)
    return f'{{"role":"{role}","content":{literal}}}'


@lru_cache(maxsize=64)
def _literal(text: str) -> str:
    return strictjson.dumps(text)


def json_line(value: Any) -> str:
    return strictjson.dumps(value) + "\n"


def json_file(value: Any) -> str:
    """Return JSON for people to read."""
    return strictjson.dumps(value, indent=1, separators=(",", ": ")) + "\n"


def plain(value: Any) -> str:
    """Return a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else strictjson.dumps(value)


def yaml(value: Any, indent: str = "") -> str:
    """Return lists and mappings as blocks of YAML. Scalars are JSON, which is YAML too, and leave nothing to guess."""
    if isinstance(value, Mapping) and value:
        return "".join(f"{indent}{_key(key)}:{_nested(item, indent + '  ')}" for key, item in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{indent}- {yaml(item, indent + '  ').lstrip()}" for item in value)
    return f"{indent}{strictjson.dumps(value)}\n"


def _key(key: str) -> str:
    return key if key.isidentifier() else strictjson.dumps(key)


def _nested(value: Any, indent: str) -> str:
    return "\n" + yaml(value, indent) if isinstance(value, (Mapping, list)) and value else " " + yaml(value)
