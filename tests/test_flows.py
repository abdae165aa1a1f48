"""Flows: every way of prompting with every ending, driven by completions that a script sends; nothing else runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from labeler import (
    Choice,
    Choices,
    Completion,
    Example,
    Fields,
    Generation,
    Keywords,
    Label,
    ParseFailure,
    PromptStyle,
    Rating,
    Record,
    Spans,
    Task,
    Text,
    prompts,
)
from labeler.backends.base import AUTO, GENERATED
from labeler.catalogues import in_language
from labeler.prelabel.flows import Ask, Case, Outcome, cascade, flow_for, joint
from labeler.prompts.styles import STYLES
from labeler.records import Step

REVIEW = "달고 아삭해요. 비싸요."
MOOD = Task("mood", Choice(Label("good"), Label("bad")), {"en": "Mood"}, {"en": "Choose one.", "ko": "하나만."})
STARS = Task("stars", Rating(1, 5))
SUMMARY = Task("summary", Text(maximum=100))
GOOD, BAD = '{"mood": "good"}', '{"mood": "bad"}'
GARBAGE = "I cannot decide."
POINTS = '{"points": ["달다", "비싸다"]}'
SCHEMAS: dict[str, tuple[Any, Any]] = {
    "choice": (Choice(Label("good"), Label("bad")), "good"),
    "choices": (Choices(Label("taste"), Label("price")), ["taste", "price"]),
    "rating": (Rating(1, 5), 4),
    "keywords": (Keywords(), ["달고"]),
    "spans": (Spans(Label("plus"), Label("minus")), [{"label": "minus", "text": "비싸요"}]),
    "text": (Text(), "달고 아삭하지만 비싸다."),
    "fields": (Fields((Label("plus"), Text()), (Label("minus"), Text())), {"plus": "달다.", "minus": "비싸다."}),
}


def parse(task: Task) -> Callable[[Record, Completion], Any]:
    """Read a completion as a suggestion does: one that was cut off or refused is never read as a label."""

    def read(record: Record, completion: Completion) -> Any:
        if completion.finish == "length":
            return ParseFailure("truncated", "The answer was cut off", completion.text)
        if completion.finish == "refusal":
            return ParseFailure("refusal", "The model refused", completion.text)
        return task.parse_completion(completion.text, record)

    return read


def case_of(style: str = "few-shot", task: Task = MOOD, examples: Sequence[Example] = (), **more: Any) -> Case:
    own = {name: more.pop(name) for name in ("persona", "wording", "samples", "fence") if name in more}
    settings = {"generation": Generation(max_tokens=300), "answering": AUTO} | more
    return Case(
        task,
        Record(1, 1, "r1", REVIEW),
        examples,
        PromptStyle(style, "en", **own),
        parse=parse(task),
        **settings,
    )


def example(n: int, text: str, value: Any = "good") -> Example:
    return Example(n, n, text, value, 0.5)


def drive(flow: Any, *rounds: str | Completion | Sequence[str | Completion]) -> tuple[Any, list[list[Ask]]]:
    """Send each round of completions to a flow; return its outcome and the calls that it asked for, by round.

    Fails if the flow asks for more or fewer calls than the script has.
    """
    asked: list[list[Ask]] = []
    script = [[found] if isinstance(found, str | Completion) else list(found) for found in rounds]
    try:
        asks = next(flow)
        while True:
            asked.append(asks)
            assert len(asked) <= len(script), f"One call too many: {asks[-1].messages[-1]}"
            answers = script[len(asked) - 1]
            assert len(asks) == len(answers)
            asks = flow.send([found if isinstance(found, Completion) else Completion(found) for found in answers])
    except StopIteration as end:
        assert len(asked) == len(script), f"{len(script) - len(asked)} completion(s) were not asked for"
        return end.value, asked


def run(style: str, *rounds: Any, **more: Any) -> Outcome:
    return drive(flow_for(case_of(style, **more)), *rounds)[0]


def refusal(text: str = "No.") -> Completion:
    return Completion(text, finish="refusal")


def cut(text: str) -> Completion:
    return Completion(text, finish="length")


# Every style


def good_rounds(style: str, task: Task, answer: Any) -> list[Any]:
    """What an obedient model answers, round by round, for a task and the answer in its form."""
    name = task.name
    thought = json.dumps({"reasoning": "왜냐하면", name: answer})
    return {
        "chain-of-thought": [thought],
        "self-consistency": [[thought] * 3],
        "plan-and-solve": [json.dumps({"plan": "1. 읽기", "reasoning": "왜냐하면", name: answer})],
        "least-to-most": [POINTS, json.dumps({name: answer})],
        "verify-and-edit": [json.dumps({name: answer}), json.dumps({"check": "맞다", name: answer})],
    }.get(style, [json.dumps({name: answer})])


@pytest.mark.parametrize("kind", SCHEMAS)
@pytest.mark.parametrize("style", STYLES)
def test_every_style_works_for_every_schema(style, kind):
    """An obedient answer comes to its value; no reasoning stands in the value or in the completion it was read from."""
    schema, answer = SCHEMAS[kind]
    task = Task("answer", schema)
    outcome, asked = drive(flow_for(case_of(style, task, samples=3)), *good_rounds(style, task, answer))
    assert outcome.value == schema.parse(answer, REVIEW)
    assert json.loads(outcome.completion.text) == {"answer": answer}
    assert sum(map(len, asked)) == (STYLES[style].calls or 3)


@pytest.mark.parametrize("name", ["reasoning", "plan", "points", "check"])
@pytest.mark.parametrize("style", STYLES)
def test_task_may_be_called_like_a_thought(style, name):
    """A task of the name of a thought keeps its own key; the thought stands beside it under another one."""
    task = Task(name, Choice(Label("good"), Label("bad")))
    flow = flow_for(case_of(style, task, samples=2))
    asks, outcome = next(flow), None
    while outcome is None:
        keys = [ask.json_schema["properties"] for ask in asks]
        answers = [
            {key: "good" if key == name else ["달다"] if own[key]["type"] == "array" else "because" for key in own}
            for own in keys
        ]
        try:
            asks = flow.send([Completion(json.dumps(answer)) for answer in answers])
        except StopIteration as end:
            outcome = end.value
    assert outcome.value == "good"
    assert json.loads(outcome.completion.text) == {name: "good"}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_shares_one_cached_beginning(style):
    """All calls of a record begin with the same head and the same examples, whatever is asked after the review."""
    found = [example(1, "첫째"), example(2, "둘째"), example(3, "셋째")]
    case = case_of(style, examples=found, samples=3)
    _, asked = drive(flow_for(case), *good_rounds(style, MOOD, "good"))
    plain = MOOD.build_prompt(case.record, found, case.style)
    for ask in (ask for asks in asked for ask in asks):
        assert list(ask.messages[: len(plain) - 1]) == plain[:-1]
        assert ask.messages[len(plain) - 1]["content"].startswith(plain[-1]["content"])
        roles = [message["role"] for message in ask.messages]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2 - 1), "user"]


@pytest.mark.parametrize("style", STYLES)
def test_calls_of_a_style_have_one_fingerprint_each(style):
    """Fence and secret do not matter to what was asked; the calls of one record differ in messages or part."""
    prints = []
    for secret, fence in ((b"", "00000000"), (b"one", "11111111"), (b"two", "22222222")):
        found = [example(1, "첫째"), example(2, "둘째")]
        case = case_of(style, examples=found, samples=3)
        case = replace(case, style=replace(case.style, secret=secret, fence=fence))
        _, asked = drive(flow_for(case), *good_rounds(style, MOOD, "good"))
        asks = [ask for asks in asked for ask in asks]
        prints.append([(prompts.unmarked(ask.messages, case.style, found), ask.part) for ask in asks])
    assert prints[0] == prints[1] == prints[2]
    assert len(set(prints[0])) == len(prints[0])


@pytest.mark.parametrize("style", STYLES)
def test_refusal_is_not_asked_again(style):
    """A refusal ends every flow at once; the reviewer sees it as what it is."""
    rounds = [[refusal()] * 2] if style == "self-consistency" else [refusal()]
    outcome = run(style, *rounds, samples=2)
    assert outcome.value == ParseFailure("refusal", "The model refused", "No.")
    assert outcome.completion.text == "No."


@pytest.mark.parametrize("style", [name for name in STYLES if name not in ("self-consistency", "least-to-most")])
def test_answer_that_was_cut_off_is_not_asked_for_again(style):
    """With the same limit the next one would be cut off as well; a person sees it."""
    outcome = run(style, cut('{"mood": "go'))
    assert isinstance(outcome.value, ParseFailure) and outcome.value.kind == "truncated"


THOUGHTS = {
    "in tags": "<think>It is short. {no}</think>\n\n{answer}",
    "without their opening": "It is short.\n</think>{answer}",
    "of Magistral": "[THINK]It is short.[/THINK]{answer}",
    "of gpt-oss": "<|channel|>analysis<|message|>It is short.<|end|><|start|>assistant<|channel|>final<|message|>"
    "{answer}<|return|>",
    "behind the answer": "{answer}\n<think>It is short.</think>",
    "with the end of a turn": "<thinking>It is short.</thinking>{answer}<|im_end|>",
}


@pytest.mark.parametrize("form", THOUGHTS)
def test_thoughts_around_an_answer_are_kept_as_a_step(form):
    """Whatever marks a model thinks between, they are no part of its answer, and nothing is asked twice for them."""
    text = THOUGHTS[form].replace("{answer}", '{"mood": "good"}').replace("{no}", '{"mood": "bad"}')
    outcome = run("few-shot", text)
    assert outcome.value == "good"
    assert [step.name for step in outcome.steps] == ["reasoning"]
    assert outcome.steps[0].text.startswith("It is short.")


@pytest.mark.parametrize(
    "text", ['{"mood": "good"}<|im_end|>', '{"mood": "good"}</s>', '<think></think>{"mood": "good"}']
)
def test_marks_around_an_answer_are_no_part_of_it(text):
    """The end of a turn that a server left behind, and thoughts that are empty, leave no step."""
    outcome = run("few-shot", text)
    assert (outcome.value, outcome.steps) == ("good", ())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('<think>It may be {"mood": "good"}', "thinks aloud"),
        ('It is {"mood": "good"}', "words around its JSON"),
        ('Sure!\n```json\n{"mood": "good"}\n```', "words around its JSON"),
    ],
)
def test_words_around_an_answer_are_named_and_nothing_is_taken_out_of_them(text, why):
    """Where an answer begins among words nobody can know: a person reads what is the matter."""
    outcome = run("few-shot", text, text)
    assert isinstance(outcome.value, ParseFailure) and why in outcome.value.message
    assert outcome.value.raw == text


@pytest.mark.parametrize("style", [name for name in STYLES if name != "self-consistency"])
@pytest.mark.parametrize("bad", [Completion(GARBAGE), Completion('{"mood": "go'), Completion("")])
def test_answer_that_cannot_be_read_is_asked_for_once_more(style, bad):
    """The second call names the error; what came first is kept as a step, and the second answer counts."""
    before = good_rounds(style, MOOD, "good")
    if style == "verify-and-edit":
        before = [bad]
    else:
        before[-1] = bad
    last = '{"check": "고침", "mood": "bad"}' if style == "verify-and-edit" else BAD
    outcome, asked = drive(flow_for(case_of(style)), *before, last)
    assert outcome.value == "bad"
    assert Step("unreadable", bad.text) in outcome.steps
    again = asked[-1][0].messages
    assert again[-2] == {"role": "assistant", "content": bad.text}
    failure = parse(MOOD)(Record(1, 1, "r1", REVIEW), bad)
    assert in_language(failure.message, "en") in again[-1]["content"]


@pytest.mark.parametrize("style", STYLES)
def test_nothing_readable_is_a_parse_failure_with_its_raw_text(style):
    """No label is guessed from answers that cannot be read, and none is lost."""
    thought = '{"reasoning": "달다", "mood": "great"}'
    count = {"self-consistency": 1, "least-to-most": 3}.get(style, 2)
    rounds = [[thought] * 2] if style == "self-consistency" else [thought] * count
    outcome = run(style, *rounds, samples=2)
    assert isinstance(outcome.value, ParseFailure)
    assert outcome.value.raw == outcome.completion.text == thought
    assert [step.text for step in outcome.steps].count(thought) == (2 if style == "self-consistency" else count - 1)


@pytest.mark.parametrize("style", STYLES)
def test_generation_of_the_case_is_used(style):
    """The length of an answer and the other settings are as they were set, in every call."""
    settings = Generation(max_tokens=77, temperature=0.4, top_p=0.9, stop=("END",))
    case = case_of(style, generation=settings, samples=3)
    _, asked = drive(flow_for(case), *good_rounds(style, MOOD, "good"))
    assert {ask.generation for asks in asked for ask in asks} == {settings}


# Direct


@pytest.mark.parametrize(("style", "count"), [("zero-shot", 0), ("one-shot", 1), ("few-shot", 3)])
def test_outcome_names_the_examples_that_were_shown(style, count):
    """The evidence of a suggestion is what its prompt showed."""
    found = [example(1, "첫째"), example(2, "둘째"), example(3, "셋째")]
    outcome, asked = drive(flow_for(case_of(style, examples=found)), GOOD)
    assert outcome.examples == found[:count]
    assert [m["content"] for m in asked[0][0].messages].count(GOOD) == count


@pytest.mark.parametrize("style", STYLES)
def test_only_plain_answers_may_be_scored(style):
    """Labels may be scored where the label alone is asked for at once; an answer with thoughts is generated."""
    _, asked = drive(flow_for(case_of(style, samples=3)), *good_rounds(style, MOOD, "good"))
    found = {ask.answering for asks in asked for ask in asks}
    drafted = style == "verify-and-edit"
    assert found == ({AUTO, GENERATED} if drafted else {GENERATED} if STYLES[style].reasons else {AUTO})


# Chain of thought, plan and solve


def test_reasoning_comes_first_and_is_kept_as_a_step():
    """The schema asks for the reasoning before the label; the outcome has the label alone and the reasoning beside."""
    outcome, ((ask,),) = drive(
        flow_for(case_of("chain-of-thought")), Completion('{"reasoning": "달다고 한다.", "mood": "good"}', tokens_out=9)
    )
    assert list(ask.json_schema["properties"]) == ask.json_schema["required"] == ["reasoning", "mood"]
    assert outcome.steps == (Step("reasoning", "달다고 한다."),)
    assert outcome.completion == Completion(GOOD, tokens_out=9)


def test_plan_comes_before_reasoning_and_label():
    """Plan-and-solve keeps both thoughts, in the order they were asked for."""
    answer = '{"mood": "good", "reasoning": "둘째", "plan": "첫째"}'
    outcome, ((ask,),) = drive(flow_for(case_of("plan-and-solve")), answer)
    assert ask.json_schema["required"] == ["plan", "reasoning", "mood"]
    assert outcome.steps == (Step("plan", "첫째"), Step("reasoning", "둘째"))


@pytest.mark.parametrize("answer", [GOOD, f"```json\n{GOOD}\n```", '{"reasoning": " ", "mood": "good"}'])
def test_label_without_reasoning_is_accepted(answer):
    """A model that follows the examples and answers at once has answered."""
    outcome = run("chain-of-thought", answer)
    assert (outcome.value, outcome.steps) == ("good", ())


def test_reasoning_of_another_shape_is_kept_as_it_is():
    """A list of thoughts instead of a text loses nothing."""
    assert run("chain-of-thought", '{"reasoning": ["달다"], "mood": "good"}').steps == (Step("reasoning", '["달다"]'),)


def test_strange_key_beside_the_label_is_a_parse_failure():
    """Only what was asked for is taken out of an answer: anything else makes it unreadable, as in a direct one."""
    outcome = run("chain-of-thought", '{"reasoning": "", "mood": "good", "stars": 5}', GARBAGE)
    assert outcome.steps[0] == Step("unreadable", '{"reasoning": "", "mood": "good", "stars": 5}')
    assert isinstance(outcome.value, ParseFailure)


def test_reasoning_that_speaks_of_labels_decides_nothing():
    """The label is read from its key alone, whatever the thoughts say."""
    assert run("chain-of-thought", '{"reasoning": "{\\"mood\\": \\"bad\\"}", "mood": "good"}').value == "good"


# Self-consistency


def samples(*answers: str) -> list[str]:
    return [json.dumps({"reasoning": "생각", "mood": answer}) for answer in answers]


def test_majority_wins_and_its_share_is_the_score():
    """Three of five votes are a score of 0.6; every sample is kept as a step."""
    outcome = run("self-consistency", samples("good", "bad", "good", "bad", "good"))
    assert (outcome.value, outcome.completion.score, outcome.completion.made) == ("good", 0.6, ("self-consistency",))
    assert [step.name for step in outcome.steps] == [f"sample {n}" for n in range(1, 6)]
    assert outcome.steps[1].text == samples("bad")[0]


def test_unreadable_samples_count_against_the_score():
    """A sample that cannot be read, was cut off or refused is a vote that the winner did not get; none is repeated."""
    outcome = run("self-consistency", [*samples("good", "good"), GARBAGE, cut(samples("bad")[0]), refusal()])
    assert (outcome.value, outcome.completion.score) == ("good", 0.4)


def test_unreadable_samples_are_the_failure_of_the_last():
    """Without any vote a person decides."""
    outcome = run("self-consistency", [GARBAGE, "", cut("{")], samples=3)
    assert outcome.value == ParseFailure("truncated", "The answer was cut off", "{")
    assert [step.text for step in outcome.steps] == [GARBAGE, "", "{"]


@pytest.mark.parametrize(("set_", "used"), [(0.0, 0.7), (None, 0.7), (0.3, 0.3)])
def test_samples_are_sampled(set_, used):
    """All are asked for in one round, told apart by their part, at a temperature above 0, each with its own seed."""
    case = case_of("self-consistency", samples=3, generation=Generation(300, set_, seed=11))
    asks = next(flow_for(case))
    assert [ask.part for ask in asks] == ["sample 1", "sample 2", "sample 3"]
    assert [ask.generation.seed for ask in asks] == [11, 12, 13]
    assert {ask.generation.temperature for ask in asks} == {used}
    assert len({json.dumps(list(ask.messages)) for ask in asks}) == 1
    unseeded = next(flow_for(case_of("self-consistency", samples=2)))
    assert [ask.generation.seed for ask in unseeded] == [None, None]


def test_tokens_are_those_of_the_winning_sample():
    """What the other samples cost stands in the ledger, not in the outcome."""
    rounds = [replace(Completion(text), tokens_out=n) for n, text in enumerate(samples("bad", "good", "good"))]
    outcome = run("self-consistency", rounds, samples=3)
    assert (outcome.completion.tokens_out, outcome.completion.text) == (1, GOOD)


def test_vote_of_a_rating_is_its_median():
    """The score tells near misses from wide ones: it is the mean agreement with the winner."""
    answers = [json.dumps({"stars": n}) for n in (5, 4, 1)]
    outcome = run("self-consistency", answers, task=STARS, samples=3)
    assert outcome.value == 4
    assert outcome.completion.score == pytest.approx((1 + (1 - 1 / 16) + (1 - 9 / 16)) / 3)


def test_voted_set_that_no_sample_gave_is_written_as_an_answer():
    """Labels are voted on one by one, so the winning set may be new; its completion says that set."""
    task = Task("tags", Choices(Label("a"), Label("b"), Label("c")))
    answers = [json.dumps({"tags": tags}) for tags in (["a"], ["a", "b", "c"], ["b"])]
    outcome = run("self-consistency", answers, task=task, samples=3)
    assert outcome.value == ["a", "b"]
    assert json.loads(outcome.completion.text) == {"tags": ["a", "b"]}


def test_texts_choose_the_sample_that_the_others_are_most_like():
    """Texts cannot vote: the medoid wins, and the step says which it was."""
    texts = ["배송이 늦었다.", "달고 아삭하다.", "달고 아삭하지만 비싸다."]
    answers = [json.dumps({"reasoning": "생각", "summary": text}) for text in texts]
    outcome = run("self-consistency", answers, task=SUMMARY, samples=3)
    agreement = SUMMARY.schema.agreement
    best = max(texts, key=lambda text: sum(agreement(text, other) for other in texts if other != text))
    assert outcome.value == best
    assert outcome.steps[-1] == Step("medoid", f"sample {texts.index(best) + 1}")
    assert outcome.completion.score == pytest.approx(sum(agreement(best, text) for text in texts) / 3)


def test_one_readable_text_wins_alone():
    """With one readable sample of three there is nothing to agree with: a third is its score."""
    answer = '{"summary": "달다."}'
    outcome = run("self-consistency", [GARBAGE, answer, GARBAGE], task=SUMMARY, samples=3)
    assert outcome.value == "달다."
    assert outcome.completion.score == pytest.approx(1 / 3)
    assert outcome.steps[-1] == Step("medoid", "sample 2")


# Least to most


def test_points_are_given_to_the_second_call():
    """The first call asks for points alone; the second has them before it and asks for the answer."""
    outcome, ((first,), (second,)) = drive(flow_for(case_of("least-to-most")), POINTS, GOOD)
    assert list(first.json_schema["properties"]) == ["points"]
    assert "Do not give the answer yet" in first.messages[-1]["content"]
    assert second.messages[-2] == {"role": "assistant", "content": POINTS}
    assert second.json_schema == MOOD.json_schema()
    assert (outcome.value, outcome.steps) == ("good", (Step("points", "달다\n비싸다"),))


@pytest.mark.parametrize(
    "bad",
    [
        Completion(GARBAGE),
        Completion(GOOD),
        Completion('{"points": "달다"}'),
        Completion('{"points": [1]}'),
        Completion('{"points": ["달다"], "mood": "good"}'),
        cut(POINTS),
    ],
)
def test_points_that_cannot_be_read_are_shown_and_left_out(bad):
    """The answer is asked for directly, and the step says what happened."""
    outcome, (_, (second,)) = drive(flow_for(case_of("least-to-most")), bad, GOOD)
    assert [message["role"] for message in second.messages] == ["system", "user"]
    assert "points" not in second.messages[-1]["content"]
    assert (outcome.value, outcome.steps) == ("good", (Step("unreadable", bad.text),))


def test_review_without_points_is_answered():
    """An empty list of points is a list of points."""
    assert run("least-to-most", '{"points": []}', GOOD).steps == (Step("points", ""),)


# Verify and edit


def test_check_sees_the_draft_and_its_answer_counts():
    """Draft and check are kept; the corrected label is the value."""
    outcome, ((draft,), (check,)) = drive(
        flow_for(case_of("verify-and-edit")), GOOD, '{"check": "비싸다고도 한다.", "mood": "bad"}'
    )
    assert draft.answering == AUTO
    assert check.answering == GENERATED
    assert check.json_schema["required"] == ["check", "mood"]
    assert list(check.messages[:-2]) == list(draft.messages)
    assert check.messages[-2]["content"] == GOOD
    assert (outcome.value, outcome.completion.text) == ("bad", BAD)
    assert outcome.steps == (Step("draft", GOOD), Step("check", "비싸다고도 한다."))


def test_unreadable_draft_is_shown_cut():
    """A model that repeated itself up to its last token does not fill the prompt of the check."""
    _, (_, (check,)) = drive(flow_for(case_of("verify-and-edit")), "x" * 5000, GOOD)
    assert check.messages[-2]["content"] == "x" * prompts.QUOTED


@pytest.mark.parametrize("bad", [Completion(GARBAGE), cut('{"check": "'), refusal()])
def test_check_that_cannot_be_read_leaves_the_draft(bad):
    """The draft was readable and stands; the reviewer sees that its check came to nothing."""
    outcome = run("verify-and-edit", Completion(GOOD, score=0.9), bad)
    assert (outcome.value, outcome.completion.text, outcome.completion.score) == ("good", GOOD, 0.9)
    assert outcome.steps == (Step("draft", GOOD), Step("unreadable", bad.text))


# Cascade


def cascaded(free: Any, enough: float | None, *rounds: str, style: str = "few-shot") -> tuple[Outcome, list[list[Ask]]]:
    case = case_of(style, examples=[example(1, "가까운 예")])
    return drive(cascade(case, [example(2, "고정된 예")], lambda: free, enough), *rounds)


def texts_of(ask: Ask) -> str:
    return "\n".join(message["content"] for message in ask.messages)


def test_cascade_ends_without_a_call_where_the_free_answer_is_enough():
    """From the score on that was set, the flow returns before its first yield."""
    outcome, asked = cascaded(("good", 0.9), 0.9)
    assert asked == []
    assert outcome == Outcome("good", Completion(GOOD, score=0.9, made=("cascade: free",)))


@pytest.mark.parametrize(("free", "enough"), [(("good", 0.8), 0.9), (("good", None), 0.9), (("good", 1.0), None)])
def test_cascade_ends_where_the_fixed_examples_confirm_the_free_answer(free, enough):
    """One call with the cached beginning; the retrieved examples are not shown."""
    outcome, ((ask,),) = cascaded(free, enough, GOOD)
    assert "고정된 예" in texts_of(ask)
    assert "가까운 예" not in texts_of(ask)
    assert (outcome.value, outcome.completion.made) == ("good", ("cascade: fixed",))
    assert outcome.steps == (Step("free", GOOD),)
    assert [found.text for found in outcome.examples or ()] == ["고정된 예"]


def test_cascade_lets_the_retrieved_examples_decide_where_the_others_differ():
    """The last step names what the earlier ones said."""
    outcome, (_, (ask,)) = cascaded(("good", 0.5), 0.9, BAD, GOOD)
    assert "가까운 예" in texts_of(ask)
    assert (outcome.value, outcome.completion.made) == ("good", ("cascade: retrieved",))
    assert outcome.steps == (Step("free", GOOD), Step("fixed", BAD))
    assert [found.text for found in outcome.examples or ()] == ["가까운 예"]


def test_cascade_goes_on_after_an_unreadable_answer():
    """What cannot be read confirms nothing; it is kept, and the retrieved examples decide."""
    outcome, _ = cascaded(("good", 0.5), 0.9, GARBAGE, GARBAGE, BAD)
    assert outcome.value == "bad"
    assert [step.name for step in outcome.steps] == ["free", "unreadable", "fixed"]


def test_cascade_without_a_free_answer_asks_with_retrieved_examples_at_once():
    """With nothing to compare it with, the call with fixed examples would decide nothing."""
    outcome, ((ask,),) = cascaded(None, 0.5, GOOD)
    assert "가까운 예" in texts_of(ask)
    assert (outcome.completion.made, outcome.steps) == (("cascade: retrieved",), ())


def test_cascade_does_not_ask_again_after_a_refusal():
    """A refusal is final here too."""
    outcome, _ = drive(cascade(case_of(), [], lambda: ("good", None), None), refusal())
    assert isinstance(outcome.value, ParseFailure)
    assert outcome.completion.made == ("cascade: fixed",)


def test_cascade_keeps_the_style():
    """Its prompts are those of the style, with the thoughts as steps."""
    outcome, _ = cascaded(("good", None), None, '{"reasoning": "달다", "mood": "good"}', style="chain-of-thought")
    assert outcome.steps == (Step("free", GOOD), Step("reasoning", "달다"))


# Joint


def cases(**styles: str) -> dict[str, Case]:
    """Cases of two tasks of one record, each with its own fence, as they come from two suggesters."""
    return {
        "mood": case_of(
            styles.get("mood", "few-shot"), examples=[example(1, "하나"), example(2, "둘", "bad")], fence="a" * 8
        ),
        "stars": case_of(
            styles.get("stars", "few-shot"), STARS, [example(3, "둘", 2), example(4, "셋", 3)], fence="b" * 8
        ),
    }


def test_joint_asks_once_for_all_tasks():
    """One call with every task's guidelines; each task gets its own part as a plain answer."""
    outcomes, ((ask,),) = drive(joint(cases()), Completion('{"stars": 4, "mood": "good"}', tokens_in=50))
    assert {name: outcome.value for name, outcome in outcomes.items()} == {"mood": "good", "stars": 4}
    assert outcomes["stars"].completion == Completion('{"stars": 4}', tokens_in=50, made=("joint",))
    assert outcomes["mood"].completion.text == GOOD
    assert list(ask.json_schema["properties"]) == ask.json_schema["required"] == ["mood", "stars"]
    assert ask.generation.max_tokens == 600
    assert ask.answering == GENERATED
    assert "Choose one." in ask.messages[0]["content"]


def test_joint_examples_show_what_is_approved_there():
    """Each text stands once, with the answers of the tasks whose example it is, the most useful one last."""
    (ask,) = next(joint(cases()))
    found = [message["content"] for message in ask.messages[1:-1]]
    assert [text.split("\n")[1] for text in found[::2]] == ["셋", "둘", "하나"]
    assert found[1::2] == ['{"stars": 3}', '{"mood": "bad", "stars": 2}', '{"mood": "good"}']


def test_joint_shows_as_many_examples_as_each_style_does():
    """A task that is asked zero-shot brings no examples into the common prompt."""
    (ask,) = next(joint(cases(mood="one-shot", stars="zero-shot")))
    assert [message["content"] for message in ask.messages[2:-1]] == [GOOD]


def test_joint_head_and_fingerprint_know_neither_record_nor_fence():
    """The head is the same for every record; fence and secret leave no trace in what is hashed."""
    heads, prints = set(), set()
    for secret, fence, text in ((b"", "c" * 8, REVIEW), (b"one", "d" * 8, REVIEW), (b"two", "e" * 8, "다른 글")):
        both = {
            name: replace(
                case, record=Record(1, 1, "r", text), style=replace(case.style, secret=secret, fence=fence + name[:1])
            )
            for name, case in cases().items()
        }
        flow = joint(both)
        asks = [*next(flow), *flow.send([Completion(GARBAGE)])]
        heads.add(asks[0].messages[0]["content"])
        shown = [found for case in both.values() for found in case.examples]
        prints.add(tuple(prompts.unmarked(ask.messages, both["mood"].style, shown) for ask in asks))
    assert len(heads) == 1
    assert len(prints) == 2


@pytest.mark.parametrize("part", ['"stars": 9', '"stars": "four"', None])
def test_joint_part_that_cannot_be_read_is_asked_for_alone(part):
    """The other task keeps its answer; the failed one is asked in its own style and says what came first."""
    answer = "{" + ", ".join(filter(None, ['"mood": "good"', part])) + "}"
    outcomes, (_, (alone,)) = drive(joint(cases(stars="chain-of-thought")), answer, '{"reasoning": "넷", "stars": 4}')
    assert outcomes["mood"].completion.made == ("joint",)
    assert outcomes["stars"].value == 4
    assert outcomes["stars"].steps == (Step("unreadable", answer), Step("reasoning", "넷"))
    assert list(alone.json_schema["properties"]) == ["reasoning", "stars"]


@pytest.mark.parametrize(
    "bad", [Completion(GARBAGE), refusal(), cut('{"mood": "good", "stars": 4}'), Completion('{"mood": "good", "x": 1}')]
)
def test_joint_answer_that_cannot_be_read_is_asked_for_task_by_task(bad):
    """Nothing is taken from an answer that was refused, cut off, or has another form; the tasks go on side by side."""
    outcomes, (_, alone, again) = drive(joint(cases()), bad, [GOOD, GARBAGE], '{"stars": 2}')
    assert [(ask.name, ask.answering) for ask in (*alone, *again)] == [
        ("answer", GENERATED), ("answer", GENERATED), ("again", GENERATED),
    ]  # fmt: skip
    assert {name: outcome.value for name, outcome in outcomes.items()} == {"mood": "good", "stars": 2}
    assert outcomes["mood"].steps == (Step("unreadable", bad.text),)
    assert outcomes["stars"].steps == (Step("unreadable", bad.text), Step("unreadable", GARBAGE))


def test_joint_failure_of_one_task_is_its_own():
    """A task that cannot be read alone either is a parse failure beside the other's value."""
    outcomes, _ = drive(joint(cases()), '{"mood": "good"}', GARBAGE, GARBAGE)
    assert outcomes["mood"].value == "good"
    assert isinstance(outcomes["stars"].value, ParseFailure)


def test_task_with_prompts_of_its_own_is_not_joined():
    """What a plugin made of its prompt is never left out for the sake of one call less."""

    class Own(Task):
        def build_prompt(self, record: Any, examples: Any, style: Any) -> Any:
            return [{"role": "user", "content": "My own words"}]

    own = case_of(task=Own("own", MOOD.schema))
    outcomes, ((together,), (alone,)) = drive(
        joint(cases() | {"own": own}), '{"mood": "good", "stars": 4}', '{"own": "bad"}'
    )
    assert list(together.json_schema["properties"]) == ["mood", "stars"]
    assert texts_of(alone) == "My own words"
    assert {name: found.value for name, found in outcomes.items()} == {"mood": "good", "stars": 4, "own": "bad"}


def test_one_task_is_not_joint():
    """With nothing to share a call with, a task is asked in its own style."""
    outcomes, ((ask,),) = drive(joint({"mood": case_of("chain-of-thought")}), GOOD)
    assert list(ask.json_schema["properties"]) == ["reasoning", "mood"]
    assert outcomes["mood"].completion.made == ()


# Tasks with prompts of their own


@pytest.mark.parametrize("style", STYLES)
def test_style_works_with_a_prompt_that_knows_nothing_of_it(style):
    """A plugin that builds its own prompt is asked in every style all the same."""

    class Own(Task):
        def build_prompt(self, record: Any, examples: Any, style: Any) -> Any:
            return [{"role": "user", "content": f"What mood? {record.text}"}]

    task = Own("mood", MOOD.schema)
    outcome, asked = drive(flow_for(case_of(style, task, samples=3)), *good_rounds(style, task, "good"))
    assert outcome.value == "good"
    assert asked[0][0].messages[0]["content"].startswith(f"What mood? {REVIEW}")
    if STYLES[style].calls != 1 or STYLES[style].reasons:
        # Its answers are put in its own words; the key beside the thoughts is named in ours.
        assert "`mood`" in asked[-1][0].messages[-1]["content"]
