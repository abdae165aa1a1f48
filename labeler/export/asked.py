"""The prompts and answers of a training set: a model is trained to be asked as it will be asked.

A prompt is the first call that the flow of its style makes, the very one that a run would send, but for two things: the
word of the marks around the review is a hash of its text, so that equal rows make equal files, and control tokens of
chat templates inside texts are broken up, because a trainer would take them for real ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

from labeler import strictjson
from labeler.asked import asked
from labeler.backends.base import AUTO
from labeler.errors import LabelError, NotFound, PluginError, SettingError
from labeler.export.formats import ExportRow
from labeler.export.job import Job
from labeler.prelabel import flows
from labeler.prompts import FRAME_VERSION, review_message, system_hash
from labeler.prompts.styles import FEW_SHOT, ZERO_SHOT
from labeler.records import Completion, Example, Generation, Message, ParseFailure, Record, Value
from labeler.retrieval.index import ExampleIndex, Query
from labeler.store import Row, Store
from labeler.store.past import ChosenAnnotations
from labeler.task import Task

_ROLES = ("system", "user", "assistant")
# As models spell what steers them: <|eot_id|>, and DeepSeek's with full-width bars; <|turn> and <turn|> of Gemma 4;
# [|endofturn|] of EXAONE; <end_of_turn> of Gemma 3; those of Mistral and Llama 2; what stands in answers of models that
# think or use tools; what most vocabularies begin with.
_CONTROL = re.compile(
    r"<[|｜][^\s<>]{1,40}?[|｜]>|<\|\w{1,20}>|<\w{1,20}\|>|\[\|[^\s\[\]]{1,20}?\|\]|</?(?:start|end)_of_\w{1,20}>"
    r"|\[/?(?:INST|THINK|ARGS|CALL_ID|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_(?:CALLS|RESULTS|CONTENT))\]|<</?SYS>>"
    r"|</?(?:[su]|think|tool_call|tool_response)>|<(?:bos|eos|pad|unk|mask)>|<(?:unused|extra_id_)\d{1,4}>"
    r"|\[(?:BOS|EOS|PAD|UNK|CLS|SEP|MASK)\]"
)
# WORD JOINER: it is not seen, and no tokenizer reads a control token with it inside.
_BREAK = "\u2060"


def has_controls(text: str) -> bool:
    """Whether a text spells a control token of a chat template."""
    return ("<" in text or "[" in text) and _CONTROL.search(text) is not None


def broken(text: str) -> str:
    """Return a text with each control token broken up behind its first character."""
    return _CONTROL.sub(lambda found: found[0][0] + _BREAK + found[0][1:], text) if has_controls(text) else text


@dataclass(frozen=True, slots=True)
class Beside:
    """What an answer has beside the label of its task, or why the row cannot leave (a kind of finding).

    ``others`` are (annotation id, value) of other tasks by name.
    """

    reasoning: str = ""
    others: Mapping[str, tuple[int, Value]] = field(default_factory=dict)
    why: str = ""


NOTHING = Beside()


def joint_tasks(job: Job) -> dict[str, Task]:
    """Return the other tasks whose labels stand in the same answer.

    Raises :class:`NotFound` for one that is not there, and :class:`SettingError` for one that cannot be.
    """
    known, names = job.calls.others, [name for name in job.options.joint if name != job.task.name]
    if strange := [name for name in names if name not in known]:
        raise NotFound("No task %(name)r; loaded: %(names)s", name=strange[0], names=", ".join(sorted(known)))
    found = {name: known[name] for name in names}
    for other in (job.task, *found.values()) if found else ():
        if other.unit != job.task.unit or not other.usual:
            raise SettingError(
                "The task %(task)s cannot be answered together with %(other)s: it labels something else, or it has "
                "prompts of its own",
                task=other.name,
                other=job.task.name,
            )
    return {name: replace(task, schema=task.schema.past) for name, task in found.items()}


def beside(job: Job, rows: Sequence[Row], others: Mapping[str, Task]) -> dict[int, Beside]:
    """Return what the answers of rows have beside their labels, by annotation id; nothing if none is asked for."""
    if job.options.reasoning:
        steps = job.store.suggestions.steps([row["id"] for row in rows])
        return {row["id"]: _reasoned(steps.get(row["id"], ())) for row in rows}
    found: dict[int, dict[str, tuple[int, Value]]] = {row["id"]: {} for row in rows} if others else {}
    for name, task in others.items():
        given = job.given(name, [row["record_id"] for row in rows])
        for row in rows:
            if (other := given.get(row["record_id"])) is not None:
                try:
                    value = task.read(strictjson.loads(other["value"]), other["task_version"], row["text"])
                except LabelError:
                    continue
                found[row["id"]][name] = other["id"], value
    return {
        id_: Beside(others=given) if len(given) == len(others) else Beside(why="not_all_tasks")
        for id_, given in found.items()
    }


def _reasoned(steps: Sequence[tuple[str, str]]) -> Beside:
    found = [text for name, text in steps if name == flows.REASONING]
    return Beside(reasoning=found[0]) if len(steps) == len(found) == 1 else Beside(why="no_reasoning")


class Asked:
    """Gives rows their prompts and answers, as the calls of their task have them. To be closed.

    ``chosen`` are the annotations whose records may be examples: those of the train split, of each task.
    """

    def __init__(self, job: Job, chosen: Collection[int] = ()) -> None:
        self.job, self.style = job, job.style
        self.tasks = {job.task.name: job.task, **joint_tasks(job)}
        self.asked = {name: asked(task, self.style) for name, task in self.tasks.items()}
        self._direct = len(self.tasks) == 1 and self.style.name in (ZERO_SHOT, FEW_SHOT)
        self._chosen, self._open = chosen, ExitStack()
        self._indexes: dict[str, ExampleIndex] = {}
        self._answers: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self.job.options.examples and self.job.calls.embeddings is not None:
            store = Store(self.job.store.path, read_only=True)
            self._open.callback(store.close)
            store.annotations = self._log = ChosenAnnotations(
                store.db, self._chosen, 0 if self.job.options.earlier else store.annotations.newest()
            )
            for name in self.tasks:
                offered = self.job.offered if name == self.job.task.name else self.job.calls.others[name]
                index = ExampleIndex(store, int(self.job.project["id"]), offered, self.job.calls.embeddings)
                self._indexes[name] = index
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def rows(
        self, rows: Iterable[ExportRow], found: Mapping[int, Beside] = MappingProxyType({})
    ) -> Iterator[ExportRow]:
        """Yield the rows, each with its prompt and answer.

        Raises :class:`PluginError` for a prompt that no trainer can read.
        """
        for row, vector in self._with_vectors(rows):
            examples = self._examples(row, vector) if self._indexes else {}
            more = found.get(row.annotation_id, NOTHING)
            row.prompt, row.answer = self._prompt(row, examples), broken(self._answer(row, more))
            row.others = more.others
            yield row

    def _with_vectors(self, rows: Iterable[ExportRow]) -> Iterator[tuple[ExportRow, Any]]:
        if not self._indexes or self.job.calls.embeddings is None:
            yield from ((row, None) for row in rows)
            return
        together = list(rows)
        vectors = self.job.calls.embeddings.vectors([(row.record.id, row.record.text) for row in together])
        yield from zip(together, vectors, strict=True)

    def _prompt(self, row: ExportRow, examples: Mapping[str, Sequence[Example]]) -> Sequence[Message]:
        if self._system is None or row.record.parts:
            return self._checked(self._messages(row, examples))
        # As the usual task builds it without examples: all but the review is the same for every row.
        text = broken(self.style.sent(row.record.text, row.record.metadata))
        return [self._system, review_message(text, self.style.mark(text))]

    @cached_property
    def _system(self) -> Message | None:
        """The system message, if there is nothing between it and the review."""
        if not self._direct or self._indexes or not self.job.task.usual:
            return None
        return self._checked(self._messages(self._no_row(), {}))[0]

    def _messages(self, row: ExportRow, examples: Mapping[str, Sequence[Example]]) -> Sequence[Message]:
        record = row.record
        text = broken(self.style.sent(record.text, record.metadata, record.parts))
        record = record if text == record.text else replace(record, text=text)
        style, name = self.style.behind(self.style.mark(text)), self.job.task.name
        if self._direct:
            # What the flow of such a style asks first, without the flow around it.
            return self.asked[name].build_prompt(record, examples.get(name, ()), style)
        cases = {
            name: flows.Case(task, record, examples.get(name, ()), style, Generation(), AUTO, _never_read)
            for name, task in self.asked.items()
        }
        return flows.first_ask(cases).messages

    def _examples(self, row: ExportRow, vector: Any) -> dict[str, list[Example]]:
        if self.job.options.earlier:
            self._log.until = row.annotation_id - 1
        query, calls = Query.of(row.record, vector), self.job.calls
        found = {}
        for name, index in self._indexes.items():
            hits = calls.retriever.retrieve(index, replace(query, seen={}), self.job.options.examples)
            found[name] = [replace(one, text=broken(self._sent(one))) for one in index.examples(hits)]
        return found

    def _sent(self, one: Example) -> str:
        leaves = self.job.selection
        return self.style.sent(leaves.text(one.text), leaves.metadata(one.metadata), one.parts)

    def _answer(self, row: ExportRow, more: Beside) -> str:
        if more.others:
            values = {self.job.task.name: row.value} | {name: value for name, (_, value) in more.others.items()}
            return flows.joint_answer({name: self.tasks[name].schema.answer(value) for name, value in values.items()})
        answer = self._said(row.value)
        return flows.with_reasoning(self.job.task.name, more.reasoning, answer) if more.reasoning else answer

    def _said(self, value: Value) -> str:
        """Return the answer to one task; labels of closed lists are the same few again and again."""
        task = self.asked[self.job.task.name]
        if not task.schema.one_of_labels:
            return task.answer(value)
        if value not in self._answers:
            self._answers[value] = task.answer(value)
        return self._answers[value]

    def _checked(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages with role and content alone, both of which are sound."""
        for place, message in enumerate(messages):
            role, content = message["role"], message["content"]
            last = place == len(messages) - 1
            sound = role in _ROLES and (role != "system" or place == 0) and (role != "assistant" or not last)
            if not sound or not isinstance(content, str) or not content.strip():
                raise PluginError(
                    "The task %(name)r builds a prompt that no trainer can read: its message %(place)s of %(n)s"
                    " (role %(role)r) is empty or at the wrong place. Correct its build_prompt",
                    name=self.job.task.name,
                    place=place + 1,
                    n=len(messages),
                    role=role,
                )
        if not messages or messages[-1]["role"] != "user":
            raise PluginError(
                "The task %(name)r builds a prompt that does not end with a user's message", name=self.job.task.name
            )
        return [{"role": m["role"], "content": m["content"]} for m in messages]

    def described(self) -> dict[str, Any]:
        """Return how a model that is trained on the rows must be asked: settings of its task, and what they made.

        ``system_sha256`` is the hash of the system message: it changes with guidelines, labels and templates.
        """
        style, options, calls = self.style, self.job.options, self.job.calls
        retrieved: dict[str, Any] = {}
        if self._indexes and calls.embeddings is not None:
            retrieved = {"retriever": calls.retriever_name, "embedder": calls.embeddings.embedder.id}
        return {
            "style": style.name,
            "language": style.language,
            "k": options.examples,
            **retrieved,
            "persona": {style.language: style.persona} if style.persona else {},
            "answer_wording": {style.language: style.wording} if style.wording else {},
            "columns": list(style.columns),
            "prompt_guidelines": style.guidelines,
            "answer_form": style.answers,
            "label_names": style.names,
            "joint": [name for name in self.tasks if name != self.job.task.name],
            "frame": FRAME_VERSION,
            "system_sha256": self._system_hash(),
        }

    def _system_hash(self) -> str:
        return system_hash(self._messages(self._no_row(), {}))

    def _no_row(self) -> ExportRow:
        record = Record(0, int(self.job.project["id"]), "", "-", language=self.style.language)
        return ExportRow(0, record, None, None, "")


def _never_read(record: Record, completion: Completion) -> Value | ParseFailure:
    raise AssertionError("A training set asks no model")
