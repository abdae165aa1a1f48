"""The flow of calls that makes one suggestion: one function for each way of prompting, without any input or output.

A flow is a generator. It yields the calls it wants made next, as a list of :class:`Ask`, is sent their completions
in the same order, and returns an :class:`Outcome`. Whoever drives it (threads, a batch of local weights, the batch
service of a provider) takes every call through the ledger, so a flow that is started again after a crash is given
at once what was answered before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

from labeler import prompts, strictjson
from labeler.backends import endings
from labeler.backends.base import AUTO, GENERATED
from labeler.backends.thoughts import begins_with_thoughts, split_thoughts
from labeler.catalogues import in_language
from labeler.labels import safe_agreement
from labeler.prompts import PromptStyle, correction, styles
from labeler.records import Completion, Example, Generation, Message, ParseFailure, Record, Step, Value
from labeler.sentence import Sentence
from labeler.task import Task, read_json

FREE_AGREED, FIXED_AGREED = "cascade: free", "cascade: fixed"
"""Steps of a cascade that no retrieved example took part in."""
PARSER_FAILED = "parser"
# Asked once more these would end the same way.
FINAL = (*endings.FINAL, PARSER_FAILED)
# What the answers of a model are sampled with where nobody chose a temperature (Wang et al. 2022 use 0.5 to 0.7).
SAMPLING_TEMPERATURE = 0.7
REASONING, PLAN, CHECK, POINTS = "reasoning", "plan", "check", "points"
THOUGHTS = (REASONING, PLAN, CHECK, POINTS)
"""The keys that stand beside an answer; a task of such a name has its thoughts under the name with "_" behind it."""


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
    """What a flow came to: a value or a ParseFailure, the completion it was read from, and the steps before it.

    The completion of a value holds the plain answer, without reasoning; that of a ParseFailure is as it came.
    ``examples`` are those that the prompt of this answer showed; None where no prompt made the answer. ``flags`` say
    how the prompts that were asked had to be made shorter.
    """

    value: Value | ParseFailure
    completion: Completion
    steps: tuple[Step, ...] = ()
    examples: Sequence[Example] | None = None
    flags: tuple[str, ...] = ()


Flow = Generator[list[Ask], list[Completion], Outcome]
Parse = Callable[[Record, Completion], Value | ParseFailure]


@dataclass(frozen=True, slots=True)
class Case:
    """One record with all that its flow works with. ``parse`` reads a completion that holds a plain answer.

    ``flags`` say how the prompt had to be made shorter; an outcome has those of the prompts that were asked for it.
    ``longest`` is how many tokens a plain answer can need, None where only ``max_tokens`` bounds it.
    ``unread`` is filled by the flow: the completions that it could not read, as they came.
    """

    task: Task
    record: Record
    examples: Sequence[Example]
    style: PromptStyle
    generation: Generation
    answering: str
    parse: Parse
    flags: tuple[str, ...] = ()
    longest: int | None = None
    unread: list[Completion] = field(default_factory=list, compare=False)


def flow_for(case: Case) -> Flow:
    """Return the flow of the case's style, with as many examples as the style shows."""
    case = replace(case, examples=prompts.shown(case.examples, case.style))
    outcome = yield from _FLOWS[case.style.name](case)
    return replace(outcome, examples=case.examples, flags=case.flags)


def direct(case: Case) -> Flow:
    """Ask once; after an answer that cannot be read, once more with the error named. Then a person decides."""
    return (yield from _until_read(case, _ask(case)))


def chain_of_thought(case: Case) -> Flow:
    """Ask for the reasoning first and the answer after it, in one JSON object (Wei et al. 2022, Kojima et al. 2022).

    An answer without reasoning is read all the same; one that cannot be read is asked for once more.
    """
    return (yield from _until_read(case, _thinking(case), (REASONING,)))


def plan_and_solve(case: Case) -> Flow:
    """Ask for a plan, for carrying it out and for the answer, in one JSON object (Wang et al. 2023)."""
    ask = _with_thoughts(case, _ask(case), (PLAN, REASONING))
    return (yield from _until_read(case, _asking(case, ask, "plan-and-solve.v2"), (PLAN, REASONING)))


def self_consistency(case: Case) -> Flow:
    """Ask for several chains of thought at once and let their answers vote, with equal weight (Wang et al. 2022).

    Where the label schema cannot vote (texts, keywords, spans) the *medoid* wins: the sample with the highest mean
    agreement with the other samples, which is minimum Bayes risk decoding (Bertsch et al. 2023, arXiv:2310.01387);
    the step "medoid" names it. The score is the mean agreement of all samples asked for with the winner, where one
    that cannot be read counts 0: for a choice of one label that is the share of the votes. No sample is asked twice.
    """
    ask = _thinking(case)
    settings = ask.generation
    temperature = settings.temperature or SAMPLING_TEMPERATURE
    asks = [
        replace(
            ask,
            generation=replace(
                settings, temperature=temperature, seed=None if settings.seed is None else settings.seed + n
            ),
            part=f"sample {n + 1}",
        )
        for n in range(case.style.samples)
    ]
    completions = yield asks
    read = [_read(case, completion, (REASONING,)) for completion in completions]
    steps = tuple(Step(ask.part, completion.text) for ask, completion in zip(asks, completions, strict=True))
    readable = [(n, sample) for n, sample in enumerate(read) if not isinstance(sample.value, ParseFailure)]
    if not readable:
        return replace(read[-1], steps=steps)
    voted = case.task.schema.vote([(sample.value, 1.0) for _, sample in readable])
    if voted is None:
        winner, n = _medoid(case, readable)
        steps = (*steps, Step("medoid", asks[n].part))
    else:
        winner = voted[0]
    score = sum(_agreement(case, winner, sample.value) for _, sample in readable) / len(asks)
    nearest = max((sample for _, sample in readable), key=lambda sample: _agreement(case, winner, sample.value))
    text = nearest.completion.text if nearest.value == winner else case.task.answer(winner)
    return Outcome(winner, replace(nearest.completion, text=text, score=score, made=(case.style.name,)), steps)


def least_to_most(case: Case) -> Flow:
    """Ask for the single points of the review, simplest first, then for the answer from them (Zhou et al. 2022).

    Points that cannot be read are kept as a step, and the answer is asked for directly. A refusal ends the flow.
    """
    plain = _ask(case, answering=GENERATED)
    key = _key(POINTS, case)
    first = replace(
        _asking(case, plain, "least-to-most-points.v2"),
        name=POINTS,
        json_schema=_object({key: {"type": "array", "items": {"type": "string"}}}),
    )
    (completion,) = yield [first]
    failure = endings.no_answer(completion, None)
    if failure is not None and failure.kind == endings.REFUSAL:
        return _read(case, completion)
    points = _points(completion, key)
    if points is None:
        case.unread.append(completion)
        outcome = yield from _until_read(case, plain)
        return replace(outcome, steps=(Step("unreadable", completion.text), *outcome.steps))
    said = _plain({key: points})
    text = prompts.filled("least-to-most.v2", case.style.language, name=case.task.name)
    outcome = yield from _until_read(case, replace(plain, messages=prompts.following(first.messages, said, text)))
    return replace(outcome, steps=(Step(POINTS, "\n".join(points)), *outcome.steps))


def verify_and_edit(case: Case) -> Flow:
    """Ask for a draft, then for checking it against review and guidelines and correcting it (Zhao et al. 2023).

    The paper checks against knowledge that it looks up; what a label must agree with is in the prompt already. A
    draft that cannot be read is given to the check with its error, as the thing to mend. A check that cannot be read
    leaves the draft as the answer, if that could be read; both stand in the steps for a person to see. A draft that
    is refused ends the flow.
    """
    ask = _ask(case)
    (completion,) = yield [ask]
    draft = _read(case, completion)
    unread = draft.value if isinstance(draft.value, ParseFailure) else None
    if unread is not None and unread.kind in FINAL:
        return draft
    if unread is None:
        said, text = (
            split_thoughts(completion.text)[0],
            prompts.filled("verify-and-edit.v2", case.style.language, **_names(case)),
        )
    else:
        words = {"reason": in_language(unread.message, case.style.language), **_names(case)}
        said, text = (
            unread.raw[: prompts.QUOTED],
            prompts.filled("verify-and-edit-mend.v2", case.style.language, **words),
        )
    second = replace(ask, name=CHECK, messages=prompts.following(ask.messages, said, text))
    (completion,) = yield [_with_thoughts(case, second, (CHECK,))]
    checked = _read(case, completion, (CHECK,))
    step = Step("draft" if unread is None else "unreadable", draft.completion.text)
    if isinstance(checked.value, ParseFailure) and unread is None:
        return replace(draft, steps=(step, Step("unreadable", completion.text)))
    return replace(checked, steps=(step, *checked.steps))


_FLOWS: Mapping[str, Callable[[Case], Flow]] = {
    styles.FEW_SHOT: direct,
    styles.ZERO_SHOT: direct,
    styles.ONE_SHOT: direct,
    styles.CHAIN_OF_THOUGHT: chain_of_thought,
    styles.SELF_CONSISTENCY: self_consistency,
    styles.PLAN_AND_SOLVE: plan_and_solve,
    styles.LEAST_TO_MOST: least_to_most,
    styles.VERIFY_AND_EDIT: verify_and_edit,
}


# Modes: what stands around a style


def cascade(
    case: Case,
    fixed: Sequence[Example],
    free: Callable[[], tuple[Value, float | None] | None],
    enough: float | None,
    fixed_flags: tuple[str, ...] = (),
) -> Flow:
    """Take the cheapest step that will do: the free answer, a prompt with fixed examples, one with retrieved ones.

    ``free`` returns what the free backends say and the score if they agree. From ``enough`` on that is the outcome, and
    no call is made: the flow ends before its first yield. Else the prompt with the ``fixed`` examples, whose beginning
    is the same for every record, has to come to the same value; else the prompt with the case's own examples decides.
    Without a free answer nothing could confirm the fixed examples, and their call is left out. A refusal is not asked
    again. ``fixed_flags`` are those of the prompt with the fixed examples. The idea of a cascade is that of Chen et al.
    2023 (FrugalGPT, arXiv:2305.05176).
    """
    steps: tuple[Step, ...] = ()
    flags: tuple[str, ...] = ()
    own = free()
    if own is not None:
        value, score = own
        text = case.task.answer(value)
        if enough is not None and score is not None and score >= enough:
            return Outcome(value, Completion(text, score=score, made=(FREE_AGREED,)))
        outcome = yield from flow_for(replace(case, examples=fixed, flags=fixed_flags))
        steps = (Step("free", text), *outcome.steps)
        failure = outcome.value if isinstance(outcome.value, ParseFailure) else None
        final = failure is not None and failure.kind in FINAL
        if final or (failure is None and _agreement(case, value, outcome.value) == 1.0):
            return replace(outcome, completion=replace(outcome.completion, made=(FIXED_AGREED,)), steps=steps)
        steps, flags = (*steps, Step("fixed", outcome.completion.text)), outcome.flags
    outcome = yield from flow_for(case)
    completion = replace(outcome.completion, made=("cascade: retrieved",))
    # That the first prompt was not confirmed may be for what it had to leave out.
    flags = tuple(dict.fromkeys((*outcome.flags, *flags)))
    return replace(outcome, completion=completion, steps=(*steps, *outcome.steps), flags=flags)


Flows = Generator[list[Ask], list[Completion], dict[str, Outcome]]


def joint(cases: Mapping[str, Case]) -> Flows:
    """Ask for several tasks of one record in one call, by name; return an outcome for each.

    The prompt is direct, whatever the styles of the cases are; persona, wording, language and fence are those of the
    first, and the answer may be as long as those of all tasks together. A task whose part is missing or cannot be
    read is asked alone, with its own style, and so is one that builds its prompts or answers in its own way. Every
    answer is generated, never scored: the call that is made knows only one list of labels.
    """
    first = next(iter(cases.values()))
    # One fence for all: whoever drives the flow knows that of the first case, and it stands in no text of the record.
    cases = {
        name: replace(
            case,
            examples=prompts.shown(case.examples, case.style),
            style=replace(case.style, fence=first.style.fence),
            answering=GENERATED,
            unread=first.unread,
        )
        for name, case in cases.items()
    }
    together = {name: case for name, case in cases.items() if case.task.usual}
    done: dict[str, Outcome] = {}
    unread: dict[str, str] = {}
    if len(together) > 1:
        (completion,) = yield [_joint_ask(list(together.values()))]
        parts = _parts(together, completion)
        for name, case in together.items():
            part = parts.get(name)
            value = None if part is None else case.parse(case.record, part)
            if part is None or isinstance(value, ParseFailure):
                unread[name] = completion.text
                first.unread.append(completion)
            else:
                done[name] = Outcome(value, part, examples=case.examples, flags=case.flags)
    alone = yield from _side_by_side({name: flow_for(case) for name, case in cases.items() if name not in done})
    for name, outcome in alone.items():
        steps = (Step("unreadable", unread[name]),) if name in unread else ()
        done[name] = replace(outcome, steps=(*steps, *outcome.steps))
    return {name: done[name] for name in cases}


def _joint_ask(cases: Sequence[Case]) -> Ask:
    first, language = cases[0], cases[0].style.language
    tasks = [case.task for case in cases]
    sections = [
        prompts.joint_section(task.name, task.titled(language), task.told(first.style), task.schema, first.style)
        for task in tasks
    ]
    answer = {task.name: task.schema.json_schema() for task in tasks}
    system = prompts.joint_head(sections, answer, first.style)
    limits = [case.generation.max_tokens for case in cases]
    longest = None if None in limits else sum(limit for limit in limits if limit is not None)
    return Ask(
        "joint",
        prompts.turns(system, first.record, _merged(cases), first.style),
        _object(answer),
        replace(first.generation, max_tokens=longest),
        GENERATED,
    )


def _merged(cases: Sequence[Case]) -> list[tuple[str, str]]:
    """Return the examples of all tasks as (text, answer), each text once, most useful first.

    A text comes in at its best place among the tasks; its answer holds the tasks whose examples it is among.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in zip_longest(*(case.examples for case in cases)):
        for case, example in zip(cases, row, strict=True):
            if example is not None:
                found.setdefault(example.text, {}).setdefault(case.task.name, case.task.schema.answer(example.value))
    names = [case.task.name for case in cases]
    return [
        (text, _plain({name: answers[name] for name in names if name in answers})) for text, answers in found.items()
    ]


def _parts(cases: Mapping[str, Case], completion: Completion) -> dict[str, Completion]:
    """Return the part of each task as a plain answer; none where the whole is not an object of the tasks' keys."""
    answer = read_json(split_thoughts(completion.text)[0])
    known = {case.task.name for case in cases.values()}
    if not isinstance(answer, dict) or not set(answer) <= known:
        return {}
    return {
        name: replace(completion, text=_plain({case.task.name: answer[case.task.name]}), made=("joint",))
        for name, case in cases.items()
        if case.task.name in answer
    }


def _side_by_side(flows: Mapping[str, Flow]) -> Flows:
    """Move several flows together: what they ask for in one round is asked for in one list."""
    asked: dict[str, list[Ask]] = {}
    done: dict[str, Outcome] = {}

    def move(name: str, completions: list[Completion] | None) -> None:
        try:
            asked[name] = next(flows[name]) if completions is None else flows[name].send(completions)
        except StopIteration as end:
            asked.pop(name, None)
            done[name] = end.value

    for name in flows:
        move(name, None)
    while asked:
        round_ = dict(asked)
        completions = yield [ask for asks in round_.values() for ask in asks]
        start = 0
        for name, asks in round_.items():
            move(name, completions[start : start + len(asks)])
            start += len(asks)
    return done


# The calls as training sets have them


def first_ask(cases: Mapping[str, Case]) -> Ask:
    """Return the first call that is made for a record: of one task by its style, of several together."""
    if len(cases) == 1:
        return next(flow_for(*cases.values()))[0]
    return next(joint(cases))[0]


def joint_answer(answers: Mapping[str, Any]) -> str:
    """Return the completion that a joint call is answered with, by what each task's schema answers."""
    return _plain(answers)


def with_reasoning(task: str, reasoning: str, answer: str) -> str:
    """Return a plain completion with what was thought before it, as :func:`chain_of_thought` asks for it."""
    key = f"{REASONING}_" if task == REASONING else REASONING
    return _plain({key: reasoning, **read_json(answer)})


# What the flows are made of


def _ask(case: Case, answering: str = "") -> Ask:
    messages = case.task.build_prompt(case.record, case.examples, case.style)
    return Ask("answer", messages, case.task.json_schema(), case.generation, answering or case.answering)


def _thinking(case: Case) -> Ask:
    return _asking(case, _with_thoughts(case, _ask(case), (REASONING,)), "chain-of-thought.v2")


def _asking(case: Case, ask: Ask, template: str) -> Ask:
    text = prompts.filled(template, case.style.language, **_names(case))
    return replace(ask, messages=prompts.asking(ask.messages, text))


def _with_thoughts(case: Case, ask: Ask, thoughts: Sequence[str]) -> Ask:
    """Return the call that answers with the thoughts before the label: what a model writes first it goes by."""
    schema, keys = ask.json_schema, [_key(thought, case) for thought in thoughts]
    changed = {
        "properties": {key: {"type": "string"} for key in keys} | schema.get("properties", {}),
        "required": [*keys, *schema.get("required", ())],
    }
    return replace(ask, json_schema={**schema, **changed}, answering=GENERATED)


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _names(case: Case) -> dict[str, str]:
    """Return the words for the places of the templates: the task's name and the keys of the thoughts."""
    return {"name": case.task.name} | {thought: _key(thought, case) for thought in THOUGHTS}


def _key(thought: str, case: Case) -> str:
    return f"{thought}_" if thought == case.task.name else thought


def _until_read(case: Case, ask: Ask, thoughts: Sequence[str] = ()) -> Flow:
    (completion,) = yield [ask]
    outcome = _read(case, completion, thoughts)
    failure = outcome.value
    if not isinstance(failure, ParseFailure) or failure.kind in FINAL:
        return outcome
    messages = correction(ask.messages, failure.raw, failure.message, case.style.language)
    (second,) = yield [replace(ask, name="again", messages=messages)]
    outcome = _read(case, second, thoughts)
    return replace(outcome, steps=(Step("unreadable", completion.text), *outcome.steps))


def _read(case: Case, completion: Completion, thoughts: Sequence[str] = ()) -> Outcome:
    """Read one completion. What was thought beside the answer becomes steps, never a part of the value."""
    text, aloud = split_thoughts(completion.text)
    plain = completion if text == completion.text else replace(completion, text=text)
    steps = [Step(REASONING, aloud)]
    answer = read_json(text) if thoughts else None
    if isinstance(answer, dict):
        keys = {_key(thought, case): thought for thought in thoughts}
        steps += [Step(thought, _shown(answer[key])) for key, thought in keys.items() if key in answer]
        plain = replace(completion, text=_plain({key: value for key, value in answer.items() if key not in keys}))
    value = case.parse(case.record, plain)
    if isinstance(value, ParseFailure):
        case.unread.append(completion)
        # A person is shown the answer as it came, and so is the model that is asked again.
        return Outcome(_explained(value, completion), completion)
    return Outcome(value, plain, tuple(step for step in steps if step.text.strip()))


def _explained(failure: ParseFailure, completion: Completion) -> ParseFailure:
    """Return a failure with the answer as it came; where words around an answer are the cause, it says so."""
    message = failure.message
    if failure.kind == "not_json" and begins_with_thoughts(completion.text):
        message = Sentence(
            "The model thinks aloud, and where its answer begins cannot be told; use a reasoning parser on the server"
        )
    elif failure.kind == "not_json" and "{" in completion.text and not completion.text.lstrip().startswith("{"):
        message = Sentence("The answer has words around its JSON, and the task wants the JSON alone")
    return replace(failure, message=message, raw=completion.text)


def _points(completion: Completion, key: str) -> list[str] | None:
    answer = None if endings.no_answer(completion, None) else read_json(split_thoughts(completion.text)[0])
    points = answer.get(key) if isinstance(answer, dict) and set(answer) == {key} else None
    return points if isinstance(points, list) and all(isinstance(point, str) for point in points) else None


def _medoid(case: Case, samples: Sequence[tuple[int, Outcome]]) -> tuple[Value, int]:
    """Return the value that agrees most with all samples, and its place; the first of equals."""
    n, best = max(samples, key=lambda own: sum(_agreement(case, own[1].value, other.value) for _, other in samples))
    return best.value, n


def _agreement(case: Case, a: Value, b: Value) -> float:
    return safe_agreement(case.task.schema, a, b) or 0.0


def _plain(answer: Mapping[str, Any]) -> str:
    return strictjson.dumps(answer, separators=(", ", ": "))


def _shown(thought: Any) -> str:
    return thought if isinstance(thought, str) else strictjson.dumps(thought)
