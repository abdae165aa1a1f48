"""A real HTTP server on 127.0.0.1 that speaks the chat completions of OpenAI, and misbehaves on demand.

In a test::

    with FakeOpenAI() as server:
        server.behave(MODES["rate_limit"])              # or any fn(request_json, n) -> Answer | None
        OpenAIBackend(server.base_url, "sk-test", "gpt-4o-mini")
        assert len(server.requests) == 1

As a process, for benchmarks and for tests that kill the client; the port is the first line it prints::

    python -m tests.fake_openai --port 0 --latency 0.2 --mode rate_limit --every 10 --log requests.jsonl

Files and batches are kept in memory for the life of the server: a batch is answered ``BatchPlan.delay`` seconds after
it was made, line by line as single calls are. Answers carry log probabilities where a request asks for them.

One event loop answers all connections (HTTP/1.1, keep-alive), so a hanging answer costs no thread. ``n`` counts
chat completions from 1; an answer of None means "as a good server would".
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import email.utils
import hashlib
import json
import math
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

MAX_BODY = 64 * 1024 * 1024
MAX_TOKENS = 4096
"""As many tokens of an answer are listed; no label needs more."""
CHOSEN = 0.7
"""The probability of the answer that is given; the other labels of the schema share the rest."""


@dataclass
class Answer:
    """What goes back: ``body`` as JSON, or as it is when str or bytes. ``delay`` in seconds, before the first byte.

    ``drop`` closes the connection without an answer; ``trickle`` sends one byte every so many seconds.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False
    trickle: float = 0.0


@dataclass
class Received:
    """One request as it came: ``headers`` with names in lower case, ``json`` the parsed body or None."""

    method: str
    path: str
    headers: dict[str, str]
    json: Any


Behaviour = Callable[[dict[str, Any], int], "Answer | None"]


def sample(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """Return the smallest value that satisfies a JSON schema: first enum value, empty text, empty list."""
    root = schema if root is None else root
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return sample(target, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return sample(schema[union][0], root)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        return {name: sample(part, root) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema.get("items", {}), root) for _ in range(schema.get("minItems", 0))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"boolean": False, "null": None}.get(str(kind), "x" * schema.get("minLength", 0))


def completion(text: str | None, request: dict[str, Any], finish: str = "stop", **message: Any) -> dict[str, Any]:
    """Return the body of a chat completion, with the usage numbers of a tokenizer that counts words."""
    words_in = sum(len(str(turn.get("content", "")).split()) for turn in request.get("messages", ()))
    words_out = len((text or "").split())
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    if request.get("logprobs"):
        choice["logprobs"] = {"content": logprobs(text or "", request), "refusal": None}
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.get("model", ""),
        "choices": [choice],
        "usage": {
            "prompt_tokens": words_in,
            "completion_tokens": words_out,
            "total_tokens": words_in + words_out,
            "prompt_tokens_details": {"cached_tokens": words_in // 2},
        },
    }


def tokenized(text: str) -> list[bytes]:
    """Split a text as byte-level tokenizers do: short words, and pieces that end in the middle of a syllable."""
    pieces = []
    for word in re.findall(r"[\x00-\x7f]+|[^\x00-\x7f]+", text):
        if word.isascii():
            pieces += [piece.encode() for piece in re.findall(r'":"|[A-Za-z]{1,4}|\d|\s*[^\sA-Za-z\d]+|\s+', word)]
        else:
            data = word.encode()
            pieces += [data[i : i + 4] for i in range(0, len(data), 4)]
    return pieces


def logprobs(text: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tokens of an answer with what else might have stood there: the other labels of the schema."""
    others = other_answers(text, request)
    weights = [CHOSEN, *[(1 - CHOSEN) / len(others)] * len(others)] if others else [1.0]
    answers = [tokenized(answer) for answer in (text, *others)]
    most = request.get("top_logprobs", 0)
    found = []
    alike = list(range(len(answers)))
    for place, token in enumerate(answers[0][:MAX_TOKENS]):
        alike = [n for n in alike if len(answers[n]) > place]
        mass: dict[bytes, float] = {}
        for n in alike:
            mass[answers[n][place]] = mass.get(answers[n][place], 0.0) + weights[n]
        total = sum(mass.values())
        ranked = sorted(mass, key=lambda piece: -mass[piece])[:most]
        top = [_token(piece, mass[piece] / total) for piece in ranked]
        found.append({**_token(token, mass[token] / total), "top_logprobs": top})
        alike = [n for n in alike if answers[n][place] == token]
    return found


def _token(data: bytes, probability: float) -> dict[str, Any]:
    return {"token": data.decode("utf-8", "replace"), "logprob": math.log(probability), "bytes": list(data)}


def other_answers(text: str, request: dict[str, Any]) -> list[str]:
    """Return the answers with the other values that the schema allows for its only property."""
    properties = (schema_of(request) or {}).get("properties", {})
    if len(properties) != 1:
        return []
    ((name, part),) = properties.items()
    values = part.get("enum") or list(range(part.get("minimum", 1), part.get("maximum", 0) + 1))
    # In the spelling of the answer itself, with or without spaces.
    space = " " if '": ' in text else ""
    spelled = [f'{{"{name}":{space}{json.dumps(value, ensure_ascii=False)}}}' for value in values]
    return [answer for answer in spelled if answer != text] if text in spelled else []


def error(status: int, message: str, code: str | None = None, param: str | None = None, **headers: str) -> Answer:
    """Return an error as OpenAI words it; ``retry_after="7"`` becomes the header Retry-After."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def last_user(request: dict[str, Any]) -> str:
    turns = [turn for turn in request.get("messages", ()) if turn.get("role") == "user"]
    return str(turns[-1].get("content", "")) if turns else ""


def schema_of(request: dict[str, Any]) -> dict[str, Any] | None:
    form = request.get("response_format") or {}
    schema = form.get("json_schema", {}).get("schema") if form.get("type") == "json_schema" else None
    return schema if isinstance(schema, dict) else None


def good_text(request: dict[str, Any]) -> str:
    schema = schema_of(request)
    value = {"echo": last_user(request)} if schema is None else sample(schema)
    return json.dumps(value, ensure_ascii=False)


def good(request: dict[str, Any], n: int) -> Answer:
    return Answer(200, completion(good_text(request), request))


def vote(request: dict[str, Any], n: int) -> Answer:
    """Answer what most of the assistant's example turns say, in the shape of the last one; a tie goes to the later."""
    turns = [str(turn.get("content")) for turn in request.get("messages", ()) if turn.get("role") == "assistant"]
    if not turns:
        return good(request, n)
    try:
        values = [json.loads(turn) for turn in turns]
    except ValueError:
        return Answer(200, completion(_most_frequent(turns), request))
    shape = values[-1]
    if isinstance(shape, dict):
        answer = {
            key: _most_frequent([value[key] for value in values if isinstance(value, dict) and key in value])
            for key in shape
        }
    else:
        answer = _most_frequent(values)
    return Answer(200, completion(json.dumps(answer, ensure_ascii=False), request))


def _most_frequent(values: list[Any]) -> Any:
    counts = Counter(json.dumps(value, sort_keys=True) for value in values)
    # Counter keeps the order of first sight, and max() takes the first of equals: so count from the end.
    return json.loads(max(reversed(counts), key=lambda text: counts[text]))


def no_schema(request: dict[str, Any], n: int) -> Answer | None:
    kind = (request.get("response_format") or {}).get("type")
    if kind != "json_schema":
        return None
    message = "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
    return error(400, message, param="response_format")


def no_format(request: dict[str, Any], n: int) -> Answer | None:
    return error(400, "Unknown field: response_format") if "response_format" in request else None


def reasoning(request: dict[str, Any], n: int) -> Answer | None:
    """Refuse what reasoning models refuse, one parameter at a time."""
    if "max_tokens" in request:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return error(400, message, "unsupported_parameter", "max_tokens")
    if request.get("temperature", 1) != 1:
        message = "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value."
        return error(400, message, "unsupported_value", "temperature")
    return None


def no_logprobs(request: dict[str, Any], n: int) -> Answer | None:
    if "logprobs" not in request:
        return None
    return error(400, "'logprobs' is not supported with this model.", "unsupported_parameter", "logprobs")


def few_logprobs(request: dict[str, Any], n: int) -> Answer | None:
    if request.get("top_logprobs", 0) <= 5:
        return None
    return error(400, "Requested sample logprobs of 20, which is greater than max allowed: 5")


def forbidden_logprobs(request: dict[str, Any], n: int) -> Answer | None:
    return error(403, "You are not allowed to request logprobs from this model") if "logprobs" in request else None


def silent_logprobs(request: dict[str, Any], n: int) -> Answer:
    asked = {name: value for name, value in request.items() if "logprobs" not in name}
    return Answer(200, completion(good_text(request), asked))


def refusing(name: str) -> Behaviour:
    """Return the behaviour of a server that does not know one parameter."""

    def behave(request: dict[str, Any], n: int) -> Answer | None:
        return error(400, f"Unrecognized request argument supplied: {name}") if name in request else None

    return behave


def reading(tokens: int, answer: int = 0) -> Behaviour:
    """Return the behaviour of a model that reads so many tokens, prompt and answer, at three characters to a token."""

    def behave(request: dict[str, Any], n: int) -> Answer | None:
        asked = sum(len(str(turn.get("content"))) for turn in request.get("messages", ())) // 3 + answer
        message = f"This model's maximum context length is {tokens} tokens. However, you requested {asked} tokens."
        return error(400, message, "context_length_exceeded", "messages") if asked > tokens else None

    return behave


def _cut(request: dict[str, Any]) -> str:
    text = good_text(request)
    return text[: len(text) // 2]


MODES: dict[str, Behaviour] = {
    "good": good,
    "vote": vote,
    "rate_limit": lambda request, n: error(429, "Rate limit reached.", "rate_limit_exceeded", retry_after="7"),
    "rate_limit_date": lambda request, n: error(
        429, "Rate limit reached.", retry_after=email.utils.formatdate(time.time() + 30, usegmt=True)
    ),
    "server_error": lambda request, n: error(500, "The server had an error while processing your request."),
    "bad_gateway": lambda request, n: Answer(502, "<html><h1>502 Bad Gateway</h1></html>"),
    "reset": lambda request, n: Answer(drop=True),
    "trickle": lambda request, n: Answer(200, completion(good_text(request), request), trickle=0.05),
    "hang": lambda request, n: Answer(delay=3600),
    "malformed": lambda request, n: Answer(200, '{"choices": [{"message": {"content": "cut'),
    "no_choices": lambda request, n: Answer(200, {"id": "x", "choices": []}),
    "empty": lambda request, n: Answer(200, completion("", request)),
    "fences": lambda request, n: Answer(200, completion(f"Sure!\n```json\n{good_text(request)}\n```", request)),
    "refusal": lambda request, n: Answer(200, completion(None, request, refusal="I can't help with that.")),
    "length": lambda request, n: Answer(200, completion(_cut(request), request, "length")),
    "no_schema": no_schema,
    "no_format": no_format,
    "reasoning": reasoning,
    "no_logprobs": no_logprobs,
    "few_logprobs": few_logprobs,
    "forbidden_logprobs": forbidden_logprobs,
    "silent_logprobs": silent_logprobs,
    "no_temperature": refusing("temperature"),
    "no_top_k": refusing("top_k"),
    "no_seed": refusing("seed"),
    "quota": lambda request, n: error(
        429, "You exceeded your current quota, please check your plan and billing details.", "insufficient_quota"
    ),
    "unauthorized": lambda request, n: error(401, "Incorrect API key provided.", "invalid_api_key"),
    "no_model": lambda request, n: error(
        404, f"The model `{request.get('model')}` does not exist or you do not have access to it.", "model_not_found"
    ),
}


@dataclass
class BatchPlan:
    """How batches go: seconds until one ends, and how it ends.

    Every ``fail_every``-th line fails with status 500 (0: none), the first ``lost`` lines are answered and billed and
    never come back, and with ``twice`` every line that comes back stands twice in its file. With ``status`` "expired"
    or "cancelled" only the first ``done`` lines are answered; with "failed" none is.
    """

    delay: float = 0.0
    fail_every: int = 0
    status: str = "completed"
    done: int = 0
    lost: int = 0
    twice: bool = False


class Limiter:
    """A number of requests and of tokens a minute, refilled as time goes by; headers as OpenAI sends them."""

    def __init__(self, requests: int, tokens: int = 1_000_000) -> None:
        self.most = {"requests": requests, "tokens": tokens}
        self.left = {name: float(most) for name, most in self.most.items()}
        self._filled = time.monotonic()

    def take(self, tokens: int) -> float:
        """Take one request of so many tokens; return 0, or the seconds until there is room for it."""
        now = time.monotonic()
        passed, self._filled = now - self._filled, now
        for name, most in self.most.items():
            self.left[name] = min(most, self.left[name] + most * passed / 60)
        wanted = {"requests": 1, "tokens": min(tokens, self.most["tokens"])}
        wait = max(60 * (wanted[name] - self.left[name]) / most for name, most in self.most.items())
        if wait <= 0:
            self.left = {name: left - wanted[name] for name, left in self.left.items()}
        return max(wait, 0.0)

    def headers(self) -> dict[str, str]:
        found = {}
        for name, most in self.most.items():
            found[f"x-ratelimit-limit-{name}"] = str(most)
            found[f"x-ratelimit-remaining-{name}"] = str(int(self.left[name]))
            found[f"x-ratelimit-reset-{name}"] = spelled_seconds(60 * (most - self.left[name]) / most)
        return found


def spelled_seconds(seconds: float) -> str:
    """Spell a time as OpenAI's headers do: 20ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"


class FakeOpenAI:
    """The server. ``requests`` holds every chat completion asked for, in order of arrival, those of batches too.

    ``batch_plan`` may be changed at any time; it counts for the batches that are made from then on. ``limiter`` (none
    by default) refuses with 429 what is over the limit, and adds the headers of rate limits to every completion.
    ``models`` is what ``GET /v1/models`` lists, ``props`` what ``GET /props`` answers (None: 404).
    """

    def __init__(
        self,
        port: int = 0,
        latency: float = 0.0,
        mode: str = "good",
        every: int = 1,
        log: Path | None = None,
        batch_plan: BatchPlan | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        self.batch_plan = batch_plan or BatchPlan()
        self.limiter = limiter
        self.models: list[dict[str, Any]] = [{"id": "fake", "object": "model"}]
        self.props: dict[str, Any] | None = None
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self._plans: dict[str, BatchPlan] = {}
        self.port = port
        self.latency = latency
        self.every = every
        self.requests: list[Received] = []
        self._behaviour = MODES[mode]
        self._log_path = log
        self._log: IO[str] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-openai", daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def behave(self, behaviour: Behaviour) -> None:
        """Answer from now on with ``behaviour(request_json, n)``; None from it means a good answer."""
        self._behaviour = behaviour

    def __enter__(self) -> FakeOpenAI:
        if self._log_path is not None:
            self._log = self._log_path.open("a", encoding="utf-8")
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._log is not None:
            self._log.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # One turn more for the transports that the cancelled tasks have just closed.
        await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A plain callback: a task of our own can be cancelled and awaited when the server stops.
        task = self._loop.create_task(self._talk(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while await self._one(reader, writer):
                    pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read one request and answer it; return whether the connection stays open."""
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = start.split(" ", 2)
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        raw = await reader.readexactly(min(int(headers.get("content-length", "0")), MAX_BODY))
        answer = self._answer(Received(method, path, headers, _parsed(raw)), raw)
        if answer.delay or self.latency:
            await asyncio.sleep(answer.delay or self.latency)
        if answer.drop:
            # Abort, so that the client meets a reset and not a polite end.
            writer.transport.abort()
            return False
        head, body = _encode(answer)
        if answer.trickle:
            writer.write(head)
            for byte in body:
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(answer.trickle)
        else:
            writer.write(head + body)
            await writer.drain()
        return headers.get("connection", "").lower() != "close"

    def _answer(self, received: Received, raw: bytes) -> Answer:
        # A proxy is asked for whole addresses; Azure has the version of its API in the query.
        path = urlsplit(received.path).path
        if path.endswith("/models"):
            return Answer(200, {"object": "list", "data": self.models})
        if path == "/props" and self.props is not None:
            return Answer(200, self.props)
        if path.endswith("/chat/completions") and isinstance(received.json, dict):
            return self._limited(received)
        if "/files" in path or "/batches" in path:
            return self._stored(received.method, path.split("/v1/")[-1].split("/"), received, raw)
        return error(404, f"Unknown request: {received.method} {received.path}")

    def _limited(self, received: Received) -> Answer:
        if self.limiter is None:
            return self._complete(received)
        wait = self.limiter.take(sum(len(str(turn.get("content"))) for turn in received.json.get("messages", ())) // 3)
        if wait:
            answer = error(429, "Rate limit reached.", "rate_limit_exceeded", retry_after=f"{wait:.3f}")
        else:
            answer = self._complete(received)
        answer.headers |= self.limiter.headers()
        return answer

    def _complete(self, received: Received) -> Answer:
        self.requests.append(received)
        n = len(self.requests)
        self._write_log(received.json, n)
        answer = self._behaviour(received.json, n) if n % self.every == 0 else None
        return good(received.json, n) if answer is None else answer

    # Files and batches

    def _stored(self, method: str, parts: list[str], received: Received, raw: bytes) -> Answer:
        match method, parts:
            case "POST", ["files"]:
                return Answer(200, self._file(_form_file(raw, received.headers.get("content-type", ""))))
            case "GET", ["files", id_, "content"] if id_ in self.files:
                return Answer(200, self.files[id_])
            case "POST", ["batches"] if received.json and received.json.get("input_file_id") in self.files:
                return Answer(200, self._new_batch(received.json))
            case "GET", ["batches"]:
                return Answer(200, self._page(parse_qs(urlsplit(received.path).query)))
            case "GET", ["batches", id_] if id_ in self.batches:
                return Answer(200, self._moved(id_))
            case "POST", ["batches", id_, "cancel"] if id_ in self.batches:
                batch = self._moved(id_)
                if batch["status"] in ("completed", "failed", "expired", "cancelled"):
                    return error(409, f"Cannot cancel a batch with status '{batch['status']}'.")
                if batch["status"] == "in_progress":
                    batch["status"] = "cancelling"
                    plan = self._plans[id_]
                    self._plans[id_] = replace(plan, delay=0.0, status="cancelled")
                return Answer(200, dict(batch))
        return error(404, f"No such file or batch: {'/'.join(parts)}")

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """Return batches, newest first: as many as asked for and at most 100, those behind ``after`` if given."""
        ids = list(reversed(self.batches))
        start = ids.index(query["after"][0]) + 1 if "after" in query else 0
        end = start + min(int(query.get("limit", ["20"])[0]), 100)
        found = [self._moved(id_) for id_ in ids[start:end]]
        return {"object": "list", "data": found, "has_more": end < len(ids)}

    def _file(self, content: bytes) -> dict[str, Any]:
        id_ = f"file-{len(self.files) + 1}"
        self.files[id_] = content
        return {"id": id_, "object": "file", "bytes": len(content), "purpose": "batch", "filename": "calls.jsonl"}

    def _new_batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        id_ = f"batch_{len(self.batches) + 1}"
        self._plans[id_] = self.batch_plan
        self.batches[id_] = {
            "id": id_,
            "object": "batch",
            "endpoint": asked.get("endpoint"),
            "input_file_id": asked["input_file_id"],
            "completion_window": asked.get("completion_window"),
            "status": "validating",
            "errors": None,
            "output_file_id": None,
            "error_file_id": None,
            "created_at": time.time(),
            "metadata": asked.get("metadata"),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        return dict(self.batches[id_])

    def _moved(self, id_: str) -> dict[str, Any]:
        """Return a batch as it stands now: checked, then in progress until its time is over, then ended."""
        batch, plan = self.batches[id_], self._plans[id_]
        if batch["status"] == "validating":
            batch["errors"] = _faults(self.files[batch["input_file_id"]])
            batch["status"] = "failed" if batch["errors"] or plan.status == "failed" else "in_progress"
            batch["request_counts"]["total"] = len(self.files[batch["input_file_id"]].splitlines())
        if batch["status"] in ("in_progress", "cancelling") and time.time() >= batch["created_at"] + plan.delay:
            self._end(batch, plan)
        return batch

    def _end(self, batch: dict[str, Any], plan: BatchPlan) -> None:
        good_lines, bad_lines = [], []
        for place, line in enumerate(self.files[batch["input_file_id"]].splitlines()):
            call = json.loads(line)
            found: dict[str, Any] = {"id": f"batch_req_{place}", "custom_id": call["custom_id"], "error": None}
            if plan.status != "completed" and place >= plan.done:
                code = f"batch_{plan.status}"
                bad_lines.append(found | {"response": None, "error": {"code": code, "message": "Not executed."}})
                continue
            answer = self._complete(Received(call["method"], call["url"], {}, call["body"]))
            if plan.fail_every and (place + 1) % plan.fail_every == 0:
                answer = error(500, "The server had an error while processing your request.")
            response = {"status_code": answer.status, "request_id": f"req_{place}", "body": answer.body}
            if place >= plan.lost:
                lines = good_lines if answer.status == 200 else bad_lines
                lines += [found | {"response": response}] * (2 if plan.twice else 1)
        # Nothing promises the order of the input, so the answers come backwards.
        for name, lines in (("output_file_id", good_lines), ("error_file_id", bad_lines)):
            if lines:
                text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in reversed(lines))
                batch[name] = self._file(text.encode())["id"]
        batch["request_counts"] |= {"completed": len(good_lines), "failed": len(bad_lines)}
        batch["status"] = plan.status

    def _write_log(self, request: dict[str, Any], n: int) -> None:
        if self._log is None:
            return
        prompt = json.dumps(request.get("messages"), sort_keys=True).encode()
        line = {
            "n": n,
            "time": time.time(),
            "model": request.get("model"),
            "prompt": hashlib.sha256(prompt).hexdigest(),
            "user": last_user(request),
        }
        self._log.write(json.dumps(line) + "\n")
        # Written out before the answer: a killed client finds here what it was billed for.
        self._log.flush()


def _form_file(raw: bytes, kind: str) -> bytes:
    """Return the content of the field ``file`` of a form."""
    boundary = kind.partition("boundary=")[2].strip('"').encode()
    for part in raw.split(b"--" + boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n")
    return b""


def _faults(content: bytes) -> dict[str, Any] | None:
    """Return what is wrong with a file of calls, as the errors of a batch; None if nothing is."""
    seen: set[str] = set()
    for number, line in enumerate(content.splitlines() or [b""], 1):
        call = _parsed(line)
        if not isinstance(call, dict) or not {"custom_id", "method", "url", "body"} <= set(call):
            fault = {"code": "invalid_json_line", "line": number, "message": "This line is not a call."}
        elif call["custom_id"] in seen:
            fault = {"code": "duplicate_custom_id", "line": number, "message": "This custom_id stands twice."}
        else:
            seen.add(call["custom_id"])
            continue
        return {"object": "list", "data": [fault]}
    return None


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _encode(answer: Answer) -> tuple[bytes, bytes]:
    body = answer.body
    kind = "application/json"
    if isinstance(body, str):
        body, kind = body.encode(), "text/html" if body.startswith("<") else kind
    elif not isinstance(body, bytes):
        body = json.dumps(body, ensure_ascii=False).encode()
    headers = {"Content-Type": kind, "Content-Length": str(len(body)), **answer.headers}
    phrase = HTTPStatus(answer.status).phrase if answer.status in HTTPStatus._value2member_map_ else "Status"
    lines = [f"HTTP/1.1 {answer.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake OpenAI server on 127.0.0.1; prints its port.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--mode", choices=sorted(MODES), default="good")
    parser.add_argument("--every", type=int, default=1, help="only every N-th request is answered in that mode")
    parser.add_argument("--log", type=Path, help="append one JSON line for each request received")
    parser.add_argument("--batch-delay", type=float, default=0.0, help="seconds until a batch ends")
    parser.add_argument("--batch-fail-every", type=int, default=0, help="every N-th line of a batch fails")
    parser.add_argument("--batch-status", choices=("completed", "expired", "cancelled", "failed"), default="completed")
    parser.add_argument("--batch-done", type=int, default=0, help="lines answered before a batch expired")
    parser.add_argument("--requests-per-minute", type=int, help="refuse more than these, and say so in headers")
    parser.add_argument("--tokens-per-minute", type=int, default=1_000_000)
    parser.add_argument("--with-parent", action="store_true", help="end when stdin ends, so with the parent process")
    options = parser.parse_args()
    plan = BatchPlan(options.batch_delay, options.batch_fail_every, options.batch_status, options.batch_done)
    limiter = Limiter(options.requests_per_minute, options.tokens_per_minute) if options.requests_per_minute else None
    with FakeOpenAI(options.port, options.latency, options.mode, options.every, options.log, plan, limiter) as server:
        print(server.port, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            if options.with_parent:
                # A pipe reaches its end when the process that holds the other end is gone, even by kill -9.
                sys.stdin.read()
            else:
                threading.Event().wait()


if __name__ == "__main__":
    main()
