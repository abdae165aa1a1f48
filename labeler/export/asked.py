"""The prompts and answers of a training set: what a model learns to be asked is what it will be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from labeler.errors import PluginError
from labeler.export.formats import ExportRow
from labeler.export.job import Job
from labeler.records import Message

_ROLES = ("system", "user", "assistant")


class Asked:
    """Gives rows their prompts and answers, as the calls of their task have them."""

    def __init__(self, job: Job) -> None:
        self.task, self.style = job.task, job.style

    def rows(self, rows: Sequence[ExportRow]) -> list[ExportRow]:
        """Return the rows with prompt and answer. Raises :class:`PluginError` for a prompt that no trainer can read."""
        return [replace(row, prompt=self._prompt(row), answer=self.task.answer(row.value)) for row in rows]

    def _prompt(self, row: ExportRow) -> list[Message]:
        # As served, but for equal files from equal rows: the word of the marks is a hash of the text.
        record = replace(row.record, text=self.style.sent(row.record.text, row.record.metadata, row.record.parts))
        style = replace(self.style, fence=self.style.mark(record.text))
        return self._checked(self.task.build_prompt(record, [], style))

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
                    name=self.task.name,
                    place=place + 1,
                    n=len(messages),
                    role=role,
                )
        if not messages or messages[-1]["role"] != "user":
            raise PluginError(
                "The task %(name)r builds a prompt that does not end with a user's message", name=self.task.name
            )
        return [{"role": m["role"], "content": m["content"]} for m in messages]
