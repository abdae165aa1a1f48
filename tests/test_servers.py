"""Runs against servers as they are: what they say in words of their own, what they leave out, and that they go away.

Each of these was met on a real server or reported of one. A run goes on, fails one record, or pauses with a sentence,
and never pays for what could be known.
"""

from __future__ import annotations

import json
import math
import unicodedata

import pytest
from fake_openai import Answer, BatchPlan, FakeOpenAI, completion, error, good
from helpers import numbered, open_instance, until
from test_batches import Lab as BatchLab
from test_cli import Shell
from test_runs import Lab

from labeler.errors import SettingError
from labeler.labels import Choice, Choices, Keywords, Label, Rating, Text
from labeler.prelabel.fitting import longest_answer
from labeler.prelabel.throttle import FIRST, Throttle
from labeler.prelabel.tokens import Tokens
from labeler.sentence import recalled
from labeler.store.audit import audit
from labeler.task import Task, read_json
from labeler.worker import Worker


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path / "instance", 40)
    yield made
    made.close()


def uncounted(request, n):
    """A good answer of a server that does not say how many tokens it took."""
    answer = good(request, n)
    del answer.body["usage"]
    return answer


def said(status, message, code=None):
    return lambda request, n: error(status, message, code)


# Budgets


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": "many"}])
def test_budget_holds_where_a_server_sends_no_usage(lab, usage):
    """What is not counted is estimated: else a budget would never be reached."""

    def behave(request, n):
        answer = good(request, n)
        answer.body["usage"] = usage
        return answer

    lab.server.behave(behave)
    run_id = lab.start(budget=0.0003, concurrency=1)
    assert lab.move(run_id) == "paused"
    run = lab.ledger.run(run_id)
    assert "The budget of $0.0003 is reached" in recalled(run["message"])
    assert run["estimated"] == run["calls"] == lab.asked < 12
    assert run["unpriced"] == 0 and run["spent"] >= 0.0003


def test_command_says_what_of_the_cost_is_estimated(tmp_path, monkeypatch):
    """A sum that nobody counted does not look like one that was."""
    with FakeOpenAI() as server:
        server.behave(uncounted)
        open_instance(tmp_path / "instance", server.base_url, numbered(3)).close()
        result = Shell(tmp_path)("prelabel", "--project", "reviews", "--task", "sentiment", "--backend", "openai")
    assert "3 calls by estimate, since the server counts no tokens" in result.stdout


def test_connection_test_says_whether_the_server_counts(lab):
    """The test of a backend tells it before a run is paid for."""
    lab.server.behave(uncounted)
    backend = suggester(lab).backend
    assert backend.check()["capabilities"]["usage"] is False


def suggester(lab, **settings):
    task = lab.instance.project_task(lab.project, "sentiment")
    return lab.instance.suggester(lab.project, task, {"backend": "openai"} | settings)


# Batches


@pytest.mark.parametrize("code", ["model_not_found", "insufficient_quota"])
@pytest.mark.parametrize("in_response", [True, False])
def test_batch_whose_lines_all_fail_for_good_pauses_the_run(tmp_path, monkeypatch, code, in_response):
    """What would fail for every record is not sent again and again, however the provider says it."""
    monkeypatch.setattr("labeler.prelabel.batch_executor.BatchExecutor.poll_seconds", 0.0)
    lab = BatchLab(tmp_path / "instance")
    refusal = error(404, "No such model, or no credit.", code)

    def end(batch, plan):
        lines = []
        for line in lab.server.files[batch["input_file_id"]].splitlines():
            response = {"status_code": 404, "body": refusal.body} if in_response else None
            failed = None if in_response else refusal.body["error"]
            lines.append({"custom_id": json.loads(line)["custom_id"], "response": response, "error": failed})
        batch["error_file_id"] = lab.server._file("\n".join(json.dumps(line) for line in lines).encode())["id"]
        batch["status"] = plan.status

    lab.server.batch_plan = BatchPlan()
    lab.server._end = end
    run_id = lab.start()
    assert lab.through(run_id) == "paused"
    assert len(lab.server.batches) == 1
    assert recalled(lab.ledger.run(run_id)["message"]).startswith(("No model", "The account has no credit"))
    assert lab.ledger.item_counts(run_id) == {"waiting": 12}
    lab.close()


def test_azure_batches_are_refused_under_an_address_of_deployments(tmp_path):
    """They do not stand there: the sentence names the address where they do."""
    url = "https://shop.openai.azure.com/openai/deployments/gpt?api-version=2024-10-21"
    with open_instance(tmp_path, url) as instance:
        project = instance.store.projects.all()[0]
        task = instance.project_task(project, "sentiment")
        with pytest.raises(SettingError, match=r"set openai_base_url to https://NAME\.openai\.azure\.com/openai/v1"):
            instance.suggester(project, task, {"backend": "openai", "executor": "openai-batch"})


# What concerns one record, and what concerns all


ONE_RECORD = {
    "moderation": said(403, "This request requires moderation. Your input was flagged for harassment."),
    "content filter": said(
        400, "The response was filtered due to Azure's content management policy.", "content_filter"
    ),
    "request too large": said(
        429, "Request too large for m on tokens per min (TPM): Limit 30000, Requested 41234.", "rate_limit_exceeded"
    ),
    "entity too large": said(413, "Request Entity Too Large"),
}


@pytest.mark.parametrize("name", ONE_RECORD)
def test_what_concerns_one_record_fails_that_record_only(lab, name):
    """Nobody waits for it, nothing is asked again, and the run goes on."""
    lab.server.behave(lambda request, n: ONE_RECORD[name](request, n) if n == 1 else good(request, n))
    run_id = lab.start(lab.ids[:6], concurrency=1)
    assert lab.move(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert (run["done"], run["failed"], lab.asked) == (5, 1, 6)


ALL_RECORDS = {
    "answers too long": (said(400, "max_tokens is too large: 1024. It supports at most 512 tokens."), "to 512"),
    "budget of a gateway": (
        said(400, "Budget has been exceeded! Current cost: 1, Max budget: 0.5", "400"),
        "no credit",
    ),
    "unknown model": (said(400, "/chat/completions: Invalid model name passed in model=nosuch."), "No model"),
    "no database of keys": (said(400, "No connected db."), "does not accept the key"),
    "no key": (said(400, "API key not valid. Please pass a valid API key."), "does not accept the key"),
    "model that is gone": (said(422, "Model Not Exist"), "No model"),
}


@pytest.mark.parametrize("name", ALL_RECORDS)
def test_what_concerns_all_records_pauses_the_run(lab, name):
    """Gateways answer 400 to nearly everything: their words tell what is the matter."""
    behaviour, sentence = ALL_RECORDS[name]
    lab.server.behave(behaviour)
    run_id = lab.start(concurrency=1)
    assert lab.move(run_id) == "paused"
    assert sentence in recalled(lab.ledger.run(run_id)["message"])
    assert lab.asked == 1


# Answers that are none


def choice(finish, **message):
    ending = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": None, **message}}
    return lambda request, n: Answer(200, completion(None, request, finish) | {"choices": [ending]})


NO_ANSWER = {
    "content filter": (choice("content_filter"), "refusal", "content filter"),
    "safety": (choice("SAFETY"), "refusal", "content filter"),
    "reasoning content": (choice("stop", reasoning_content='{"sentiment": "positive"}'), "elsewhere", "reasoning"),
    "reasoning": (choice("stop", reasoning='{"sentiment": "positive"}'), "elsewhere", "reasoning_content"),
    "tool call": (
        choice("tool_calls", tool_calls=[{"function": {"name": "f", "arguments": '{"sentiment": "positive"}'}}]),
        "elsewhere", "called a tool",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_ANSWER)
def test_answer_that_is_none_is_named_and_not_asked_for_again(lab, name):
    """A person reads what came instead, and no label is taken from where no answer stands."""
    behaviour, kind, words = NO_ANSWER[name]
    lab.server.behave(behaviour)
    run_id = lab.start(lab.ids[:1])
    lab.move(run_id)
    (suggestion,) = lab.suggestions(lab.ids[0])
    assert (suggestion.value, suggestion.failure.kind, lab.asked) == (None, kind, 1)
    assert words in suggestion.failure.message
    found = suggester(lab).backend.check()
    assert not found["ok"] and "answered" not in found["message"]


def test_thoughts_that_use_up_an_answer_name_the_limit(lab):
    """The sentence says which setting to raise, and to more than what."""
    lab.server.behave(choice("length", reasoning_content="Let me think"))
    lab.move(lab.start(lab.ids[:1], max_tokens=300))
    (suggestion,) = lab.suggestions(lab.ids[0])
    assert suggestion.failure.message == "The answer was cut off at the limit of 300 tokens (max_tokens)"
    assert lab.asked == 1


def test_error_in_place_of_an_end_is_tried_again(lab):
    """OpenRouter says so where the server behind it fails while it writes."""
    lab.server.behave(lambda request, n: choice("error")(request, n) if n == 1 else good(request, n))
    run_id = lab.start(lab.ids[:1])
    assert lab.move(run_id) == "finished"
    assert (lab.suggestions(lab.ids[0])[0].value, lab.asked) == ("positive", 2)


def test_labels_in_decomposed_hangul_are_read():
    """Some models take Hangul apart; what they mean is the same text, in keys and in escapes, too."""
    apart = unicodedata.normalize("NFD", "기쁨")
    assert read_json(json.dumps({apart: [apart]}, ensure_ascii=False)) == {"기쁨": ["기쁨"]}
    task = Task("mood", Choice(Label("기쁨"), Label("슬픔")))
    assert task.parse_completion(json.dumps({"mood": apart}), None or type("R", (), {"text": ""})()) == "기쁨"


# The brake


GARBAGE = {
    "unreadable": lambda request, n: Answer(200, completion("I cannot say.", request)),
    "refused": said(400, "Invalid 'messages'."),
    "no choices": lambda request, n: Answer(200, {"choices": []}),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_run_whose_first_records_end_alike_pauses(lab, name):
    """Twenty records without one label tell enough: the others would only cost."""
    lab.server.behave(GARBAGE[name])
    run_id = lab.start(concurrency=2, max_tries=1)
    assert lab.move(run_id, max_tries=1) == "paused"
    run = lab.ledger.run(run_id)
    assert recalled(run["message"]).startswith("The first 20 records all ended the same way, without a label;")
    assert 20 <= run["done"] + run["failed"] <= 22


def test_one_label_lets_a_run_go_on(lab):
    """Records that fail are no reason to stop where others do not."""
    lab.server.behave(lambda request, n: good(request, n) if n == 10 else error(400, "Invalid 'messages'."))
    run_id = lab.start(concurrency=1)
    assert lab.move(run_id) == "finished"
    assert lab.ledger.run(run_id)["failed"] == 39


def test_command_that_brought_no_label_fails(tmp_path):
    """A script that goes on with suggestions must see that there are none."""
    with FakeOpenAI() as server:
        server.behave(GARBAGE["unreadable"])
        open_instance(tmp_path / "instance", server.base_url, numbered(3)).close()
        result = Shell(tmp_path)("prelabel", "--project", "reviews", "--task", "sentiment", "--backend", "openai")
    assert result.exit_code == 1
    assert "No label was suggested" in result.stderr


# A server that is away


def test_server_that_is_away_pauses_the_run_and_costs_no_try(lab):
    """Refused connections are no calls; when the server answers, the run goes on by itself."""
    port, behave = lab.server.port, lab.server._behaviour
    lab.server.__exit__()
    run_id = lab.start(lab.ids[:8])
    worker = Worker(lab.instance)
    assert worker.move_run(run_id) == "paused"
    run = lab.ledger.run(run_id)
    assert (run["calls"], run["repeats"], run["failed"], lab.ledger.item_counts(run_id)) == (0, 0, 0, {"waiting": 8})
    assert recalled(run["message"]).endswith("The run continues by itself when the server answers.")
    assert [lab.ledger.tries(run_id, id_) for id_ in lab.ids[:8]] == [0] * 8
    assert audit(lab.store) == []
    worker._asked.clear()
    worker._runs(False)
    assert lab.ledger.run(run_id)["state"] == "paused"
    lab.server = FakeOpenAI(port)
    lab.server.behave(behave)
    lab.server.__enter__()
    until(lambda: worker._runs(False) is not None and lab.ledger.run(run_id)["state"] == "finished", 60)
    run = lab.ledger.run(run_id)
    assert (run["done"], run["calls"], run["repeats"], run["failed"]) == (8, 8, 0, 0)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "litellm.InternalServerError: InternalServerError: OpenAIException - Connection error."),
        (503, "Loading model"),
        (502, "connect ECONNREFUSED: connection refused"),
    ],
)
def test_gateway_whose_server_is_away_is_one_that_is_away(lab, status, message):
    """The gateway answers, but no model was asked: no record fails for it."""
    lab.server.behave(lambda request, n: error(status, message) if n <= 3 else good(request, n))
    run_id = lab.start(lab.ids[:4], concurrency=1)
    worker = Worker(lab.instance)
    assert worker.move_run(run_id) == "paused"
    assert lab.ledger.run(run_id)["calls"] == 0
    until(lambda: worker._runs(False) is not None and lab.ledger.run(run_id)["state"] == "finished", 60)
    assert lab.ledger.run(run_id)["done"] == 4


def test_command_without_a_server_pauses_at_once(tmp_path):
    """A server that never answered has another address, as a rule: the command says so and does not wait."""
    with FakeOpenAI() as server:
        url = server.base_url
    open_instance(tmp_path / "instance", url, numbered(3)).close()
    result = Shell(tmp_path)("prelabel", "--project", "reviews", "--task", "sentiment", "--backend", "openai")
    assert result.exit_code == 1
    assert "The run is paused: No connection to" in result.stderr
    assert "0 calls" in result.stdout


# How long prompts are


def tokens_of(request, korean):
    """How many tokens a prompt has for a model that takes so many for a character that is not ASCII."""
    text = "".join(str(turn["content"]) for turn in request["messages"])
    wide = sum(not char.isascii() for char in text)
    return math.ceil((len(text) - wide) / 4 + wide * korean) + 8


def reader(context, korean, words, names_count=True):
    """A server that counts as its tokenizer does, and holds prompt and answer to its context."""

    def behave(request, n):
        tokens = tokens_of(request, korean)
        if tokens + request.get("max_tokens", 0) > context:
            return error(400, words.format(context=context, tokens=tokens))
        answer = good(request, n)
        answer.body["usage"] |= {"prompt_tokens": tokens}
        return answer

    return behave


KOREAN = "정말 맛있게 잘 먹었고 배송도 빨랐지만 포장이 조금 아쉬웠습니다. "
VLLM = "This model's maximum context length is {context} tokens. However, your request has {tokens} input tokens."


@pytest.mark.parametrize("korean", [0.8, 1.25, 2.6])
@pytest.mark.parametrize("known", [True, False])
def test_long_korean_prompts_are_made_to_fit(tmp_path, korean, known):
    """A refusal tells how long the prompt was: the next one is shorter by that, also where the context was known."""
    lab = Lab(tmp_path / "instance", 1)
    try:
        ids = add(lab, [f"{n} {KOREAN * 60}" for n in range(12)])
        if known:
            place = ("openai", lab.server.base_url, "m")
            lab.store.write(lambda tx: lab.store.models.record(tx, *place, {"context": 1800}))
        lab.server.behave(reader(1800, korean, VLLM))
        run_id = lab.start(ids, model_id="m", concurrency=3)
        assert lab.move(run_id) == "finished"
        run = lab.ledger.run(run_id)
        assert (run["done"], run["failed"], run["parse_failures"]) == (12, 0, 0)
        counted = [tokens_of(request.json, korean) for request in lab.server.requests[-6:]]
        assert min(counted) > 0.55 * 1800, "no more was cut than had to be"
    finally:
        lab.close()


def add(lab, texts):
    from labeler.store import NewRecord

    news = [NewRecord(f"long-{n}", text) for n, text in enumerate(texts)]
    stored = lab.store.write(lambda tx: lab.store.records.add(tx, lab.project["id"], news, ["sentiment"]))
    return [one.id for one in stored]


def test_prompt_that_cannot_be_made_shorter_fails_alone(lab):
    """A refusal of the same prompt once more would teach nothing: it is not asked for."""
    lab.server.behave(reader(100, 1.0, VLLM))
    run_id = lab.start(lab.ids[:2], concurrency=1)
    lab.move(run_id)
    assert lab.ledger.item_counts(run_id) == {"failed": 2}
    assert lab.asked <= 4
    assert "longer than the model can read" in recalled(lab.ledger.failures(run_id)[0]["message"])


@pytest.mark.parametrize("korean", [0.7, 1.25, 3.0])
def test_estimates_are_those_of_the_server_after_the_first_answers(lab, korean):
    """What a server counts is learned for its model, in every process, for Korean and for English."""
    texts = [KOREAN * 8, "The apples were fresh, and they came in time. " * 8, KOREAN * 3 + "It is fine. " * 9]
    messages = [[{"role": "user", "content": text}] for text in texts]
    real = [tokens_of({"messages": prompt}, korean) for prompt in messages]
    counter = Tokens(lab.store, "http://x/v1", "m")
    for prompt, tokens in zip(messages, real, strict=True):
        lab.store.write(lambda tx, p=prompt, n=tokens: counter.learn(tx, counter.size(p), n))
    other = Tokens(lab.store, "http://x/v1", "m")
    for prompt, tokens in zip(messages, real, strict=True):
        assert other.prompt(prompt) == pytest.approx(tokens, rel=0.15)
    assert Tokens(lab.store, "http://x/v1", "other").answers == 0


def test_first_guess_goes_by_script():
    """Korean is not counted as if it were English: what nothing is known of costs no more than was said."""
    from labeler.text import count_tokens

    assert 0.8 <= count_tokens("가" * 1000) / 1000 <= 1.2
    assert 0.2 <= count_tokens("word " * 200) / 1000 <= 0.3
    assert count_tokens("") == 1


# Room for answers


@pytest.mark.parametrize(
    ("schema", "most"),
    [
        (Choice(Label("positive"), Label("negative")), 100),
        (Rating(1, 5), 100),
        (Choices(*[Label(f"label-{n}") for n in range(10)]), 300),
        (Text(maximum=100), 500),
        (Keywords(), None),
    ],
)
def test_room_is_what_the_schema_can_need(schema, most):
    """One label needs no thousand tokens; what has no bound keeps max_tokens."""
    found = longest_answer(Task("t", schema).json_schema(), None)
    assert (found is None) == (most is None)
    if most is not None:
        longest = max((json.dumps({"t": schema.answer(v)}) for v in schema.candidates().values()), key=len, default="")
        assert len(longest.encode()) / 2 < found < most


def test_answers_may_be_as_long_as_a_label_can_be(lab):
    """What grows longer has run away: it is cut there, and not asked for again."""
    lab.server.behave(lambda request, n: Answer(200, completion("{" + " " * 90, request, "length")))
    lab.move(lab.start(lab.ids[:1]))
    assert lab.server.requests[0].json["max_tokens"] < 120
    (suggestion,) = lab.suggestions(lab.ids[0])
    assert (suggestion.failure.kind, lab.asked) == ("truncated", 1)
    assert "longer than any label of this task" in suggestion.failure.message


def test_limit_that_a_person_set_is_sent_as_it_is(lab):
    """Whoever sets max_tokens knows the model."""
    lab.move(lab.start(lab.ids[:1], max_tokens=700))
    assert lab.server.requests[0].json["max_tokens"] == 700


def test_model_that_thinks_gets_its_room(lab):
    """Cut off in its thoughts, it is asked once more with the whole limit, and no other record pays for that."""

    def behave(request, n):
        if request["max_tokens"] < 1000:
            return Answer(200, completion("<think>Well, the review", request, "length"))
        return Answer(200, completion('<think>Well.</think>{"sentiment": "negative"}', request))

    lab.server.behave(behave)
    run_id = lab.start(lab.ids[:5], concurrency=1)
    assert lab.move(run_id) == "finished"
    assert [lab.suggestions(id_)[0].value for id_ in lab.ids[:5]] == ["negative"] * 5
    assert lab.asked == 6


# CallPolicy


def test_throttle_adds_one_a_round_and_halves_once_for_each_overload():
    """Additive increase, multiplicative decrease; what was on its way already says nothing new."""
    throttle = Throttle(16)
    assert throttle.limit == FIRST == 4
    for _ in range(4 + 5):
        throttle.answered()
    assert throttle.limit == 6
    throttle.overloaded(1e12)
    assert throttle.limit == 3
    throttle.overloaded(0.0)
    assert throttle.limit == 3
    assert (Throttle(2).limit, Throttle(16, 1).limit, Throttle(16, 8).limit) == (2, 1, 8)
    for _ in range(9):
        throttle.overloaded(1e12)
    assert throttle.limit == 1


def test_run_starts_with_few_calls_at_once(lab):
    """A server of which nothing is known is not met with sixteen calls."""
    flying, most = [0], [0]
    complete = type(suggester(lab).backend)._send

    def send(self, *arguments):
        flying[0] += 1
        most[0] = max(most[0], flying[0])
        try:
            return complete(self, *arguments)
        finally:
            flying[0] -= 1

    lab.server.latency = 0.05
    backend = type(suggester(lab).backend)
    try:
        backend._send = send
        assert lab.move(lab.start(lab.ids[:8], concurrency=16)) == "finished"
    finally:
        backend._send = complete
    assert 2 <= most[0] <= 5


def test_time_out_names_the_settings_that_help(tmp_path):
    """Not only that it took too long: what to change."""
    with FakeOpenAI(mode="hang") as server, open_instance(tmp_path, server.base_url, timeout_seconds=0.2) as instance:
        project = instance.store.projects.all()[0]
        backend = instance.suggester(
            project, instance.project_task(project, "sentiment"), {"backend": "openai"}
        ).backend
        message = backend.check()["message"]
    assert "timeout_seconds" in message and "concurrency" in message


def test_held_run_says_until_when(lab):
    """On the run itself, so that the command, the list of runs and the page say it."""
    lab.server.behave(lambda request, n: error(429, "Slow down.", "rate_limit_exceeded", retry_after="900"))
    run_id = lab.start(lab.ids[:2], concurrency=1)
    assert lab.move(run_id) == "running"
    assert recalled(lab.ledger.run(run_id)["message"]).startswith("Held by the server's rate limit until ")
    lab.server.behave(good)
    lab.store.write(lambda tx: tx.run("UPDATE rate_limits SET held_until = 0"))
    lab.store.write(lambda tx: tx.run("UPDATE run_items SET not_before = 0"))
    assert lab.move(run_id) == "finished"
    assert recalled(lab.ledger.run(run_id)["message"]) is None


def test_context_that_a_run_learned_is_kept(lab):
    """The server was started anew with less since it was tested: the list of models says what it reads now."""
    place = ("openai", lab.server.base_url, "m")
    lab.store.write(lambda tx: lab.store.models.record(tx, *place, {"context": 4096}))
    lab.server.behave(reader(1024, 1.0, VLLM))
    lab.move(lab.start(add(lab, [KOREAN * 100]), model_id="m"))
    assert lab.store.models.capabilities(*place)["context"] == 1024
