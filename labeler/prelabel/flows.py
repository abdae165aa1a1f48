"""The flow of calls that makes one suggestion: one function for each way of prompting, without any input or output.

A flow is a generator. It yields the calls it wants made next, as a list of :class:`Ask`, is sent their completions
in the same order, and returns an :class:`Outcome`. Whoever drives it (threads, a batch of local weights, the batch
service of a provider) takes every call through the ledger, so a flow that is started again after a crash is given
at once what was answered before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from labeler.backends.base import AUTO
from labeler.prompts import PromptStyle, correction
from labeler.records import Completion, Example, Generation, Message, ParseFailure, Record, Step, Value
from labeler.task import Task

PARSER_FAILED = "parser"
# Asked once more these would end the same way.
FINAL = ("refusal", PARSER_FAILED)


@dataclass(frozen=True, slots=True)
class Ask:
    """One call that a flow wants made. ``part`` tells calls with the same messages apart ("sample 2")."""

    name: str
    messages: Sequence[Message]
    json_schema: Mapping[str, Any] = field(default_factory=dict)
    generation: Generation = Generation()
    answering: str = AUTO
    part: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a flow came to: a value or a ParseFailure, the completion it was read from, and the steps before it."""

    value: Value | ParseFailure
    completion: Completion
    steps: tuple[Step, ...] = ()


Flow = Generator[list[Ask], list[Completion], Outcome]
Parse = Callable[[Record, Completion], Value | ParseFailure]


@dataclass(frozen=True, slots=True)
class Case:
    """One record with all that its flow works with. ``parse`` reads a completion that holds a plain answer."""

    task: Task
    record: Record
    examples: Sequence[Example]
    style: PromptStyle
    generation: Generation
    answering: str
    parse: Parse


def direct(case: Case) -> Flow:
    """Ask once; after an answer that cannot be read, once more with the error named. Then a person decides."""
    ask = Ask(
        "answer",
        case.task.build_prompt(case.record, case.examples, case.style),
        case.task.json_schema(),
        case.generation,
        case.answering,
    )
    (completion,) = yield [ask]
    value = case.parse(case.record, completion)
    if not isinstance(value, ParseFailure) or value.kind in FINAL:
        return Outcome(value, completion)
    messages = correction(ask.messages, value.raw, value.message, case.style.language)
    (second,) = yield [replace(ask, name="again", messages=messages)]
    return Outcome(case.parse(case.record, second), second, (Step("unreadable", completion.text),))
