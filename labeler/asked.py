"""A task as a model is asked for it, where that is not the usual way: with bare labels, or with their titles as names.

Values stay canonical on this side of the prompt. What the model reads and writes is put in other words on the way out,
and read back on the way in, as strictly as any answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from labeler import prompts
from labeler.errors import LabelError, SettingError
from labeler.labels import LabelSchema
from labeler.prompts import PromptStyle
from labeler.prompts.forms import JSON, PLAIN, STORED
from labeler.records import Example, Message, ParseFailure, Record, Value
from labeler.sentence import Sentence
from labeler.task import Task

_LONGEST_PLAIN = 20_000


@dataclass(frozen=True)
class AskedTask(Task):
    """A task whose answers are written as ``answers`` says, with labels called as ``names`` says: see :func:`asked`."""

    answers: str = JSON
    names: str = STORED

    @cached_property
    def outer(self) -> LabelSchema:
        """The labels as the model knows them. Raises :class:`SettingError` where two titles are the same."""
        if self.names == STORED or not self.schema.names:
            return self.schema
        titles = self._titles
        renamed = [
            replace(label, name=titles[label.name], parent=label.parent and titles[label.parent])
            for label in (*self.schema.labels, *self.schema.retired)
        ]
        try:
            return self.schema.relabelled(renamed, lambda name: titles[name])
        except (SettingError, LabelError) as error:
            raise SettingError(
                "The labels of %(task)s cannot be called by their titles in %(language)s: %(reason)s",
                task=self.name,
                language=self.names,
                reason=error,
            ) from error

    @cached_property
    def _titles(self) -> dict[str, str]:
        return {label.name: label.titled(self.names) for label in (*self.schema.labels, *self.schema.retired)}

    @cached_property
    def _stored(self) -> dict[str, str]:
        return {title: name for name, title in self._titles.items()}

    def _made_head(self, style: PromptStyle) -> str:
        style = replace(style, answers=self.answers)
        return prompts.head(self.name, self.titled(style.language), self.told(style), self.outer, style)

    def build_prompt(self, record: Record, examples: Sequence[Example], style: PromptStyle) -> list[Message]:
        """Return the messages for one record; an example whose answer has no plain form is not among them."""
        if self.answers == PLAIN:
            examples = [one for one in examples if self.outer.plain(self._out(one.value)) is not None]
        return super().build_prompt(record, examples, style)

    def answer(self, value: Value) -> str:
        """Return the completion that says ``value``. Raises :class:`LabelError` for one that has no plain form."""
        said = self._out(value)
        if self.answers == JSON:
            return prompts.answer_text(self.name, self.outer, said)
        found = self.outer.plain(said)
        if found is None:
            raise LabelError("The answer cannot be written as a bare label; write answers as JSON")
        return found

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of a whole answer; an empty one where the answer is no JSON."""
        if self.answers == PLAIN:
            return {}
        return super().json_schema() | {"properties": {self.name: self.outer.json_schema()}}

    def parse_completion(self, completion: str, record: Record) -> Value | ParseFailure:
        """Return the canonical value, or a ParseFailure with the completion as it came. Never guesses."""
        if self.answers == JSON:
            found = self._inside.parse_completion(completion, record)
        else:
            found = self._plain(completion, record)
        return found if isinstance(found, ParseFailure) else self._in(found)

    @cached_property
    def _inside(self) -> Task:
        """The task in the words of the model, which reads its answers."""
        own: Mapping[str, Any] = {one.name: getattr(self, one.name) for one in fields(Task)}
        return Task(**{**own, "schema": self.outer})

    def _plain(self, completion: str, record: Record) -> Value | ParseFailure:
        text = completion.strip()
        if not text or len(text) > _LONGEST_PLAIN:
            message = (
                Sentence("The answer is empty")
                if not text
                else Sentence("The answer has %(n)s characters", n=f"{len(text):,}")
            )
            return ParseFailure("too_long" if text else "empty", message, completion)
        try:
            return self.outer.parse(self.outer.read_cell(text), record.text)
        except LabelError as error:
            return ParseFailure(error.kind, str(error), completion)

    def _out(self, value: Value) -> Value:
        return (
            value if self.outer is self.schema else self.schema.moved(value, lambda name: self._titles.get(name, name))
        )

    def _in(self, value: Value) -> Value:
        return (
            value if self.outer is self.schema else self.schema.moved(value, lambda name: self._stored.get(name, name))
        )


def asked(task: Task, style: PromptStyle) -> Task:
    """Return the task as a prompt of this style asks for it; the task itself where that is the usual way.

    Raises :class:`SettingError` for a task with prompts or answers of its own, and for one whose answers have no
    plain form.
    """
    if style.answers == JSON and style.names == STORED:
        return task
    if not task.usual:
        raise SettingError(
            "The task %(task)s has prompts or answers of its own; leave answers as JSON and labels by their names",
            task=task.name,
        )
    if style.answers == PLAIN and not task.schema.bare:
        raise SettingError(
            "The answers of %(task)s cannot be written as bare labels; write them as JSON", task=task.name
        )
    own: Mapping[str, Any] = {one.name: getattr(task, one.name) for one in fields(Task)}
    return AskedTask(**own, answers=style.answers, names=style.names)
