"""The backend ``openai``: chat completions of OpenAI, or of any server that speaks the same protocol.

One call of ``complete`` is one request on the wire: the SDK's own repeats are off, because the ledger of calls
decides what is asked (and paid) again. Servers differ in what they take, so a refused parameter (HTTP 400 or 422,
which costs nothing) is renamed or left out, remembered, and the call is sent again in the form the server takes.

The SDK is used for its client, its authentication and its errors, but through ``client.post`` with a body of our
own: ``chat.completions.create`` walks every message through its type hints and builds a pydantic model of the
answer, which costs 5 ms of CPU for a prompt with eight examples where ``post`` costs 1 ms.
"""

from __future__ import annotations

import email.utils
import functools
import json
import logging
import math
import os
import re
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from labeler import strictjson
from labeler.backends.base import BackendRequest
from labeler.errors import SettingError
from labeler.records import BackendFailure, Completion, Generation, Message

if TYPE_CHECKING:
    import ssl

    import httpx2
    from openai import OpenAI

OPENAI_URL = "https://api.openai.com/v1"
MAX_ANSWER = 10 * 1024 * 1024
MAX_RETRY_AFTER = 86_400.0
# More than the 64 threads that may call at once, so that no call ever waits for a free connection.
MAX_CONNECTIONS = 128
LOCAL_KEY = "no-key"
"""Sent to a server that was set up without a key: the SDK refuses to send none."""

FORMATS = ("json_schema", "json_object", "none")
_TOKEN_NAMES = ("max_tokens", "max_completion_tokens")
_OPTIONAL = ("response_format", *_TOKEN_NAMES, "temperature", "top_p", "seed", "stop")
_UNSUPPORTED = re.compile(
    r"unsupported|not support|n't support|unrecognized|unknown|unexpected|extra_forbidden|extra (input|field)"
    r"|not permitted|not allowed|not available|only the default",
    re.IGNORECASE,
)
_FORMAT = re.compile(
    r"response_format|json_schema|json_object|structured.output|guided_|xgrammar|invalid grammar", re.IGNORECASE
)
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"}
_MODEL_CODES = {"model_not_found", "invalid_model", "model_not_available"}
_SECRETS = r"(?i:bearer)\s+\S+|\bsk-[\w*-]{6,}"
_NOT_STORABLE = re.compile("[\ud800-\udfff\0]")

# What the schemas of strict mode may hold. The rest (minLength, uniqueItems, maxItems ...) is refused by some
# servers and checked by the parser of the task in any case.
_STRICT_KEYWORDS = {"type", "enum", "const", "description", "title", "$ref", "required", "additionalProperties"}

log = logging.getLogger(__name__)


class OpenAISettings(NamedTuple):
    """Where to send and with which key; the key is left out of ``repr``."""

    api_key: str | None
    base_url: str | None

    def __repr__(self) -> str:
        return f"OpenAISettings(api_key={'set' if self.api_key else None}, base_url={self.base_url!r})"


def openai_settings(instance: Mapping[str, Any]) -> OpenAISettings:
    """Return (api_key, base_url): OPENAI_API_KEY and OPENAI_BASE_URL win over the instance's settings.

    ``instance`` holds them as ``openai_api_key`` and ``openai_base_url``. Empty counts as not set. Raises
    :class:`SettingError` for a base_url that is no http or https address.
    """
    api_key = os.environ.get("OPENAI_API_KEY", "").strip() or _text_setting(instance, "openai_api_key")
    base_url = os.environ.get("OPENAI_BASE_URL", "").strip() or _text_setting(instance, "openai_base_url")
    return OpenAISettings(api_key, None if base_url is None else _checked_url(base_url))


def is_configured(instance: Mapping[str, Any]) -> bool:
    """Say whether there is a key, or a server of one's own that may need none."""
    return any(openai_settings(instance))


class OpenAIBackend:
    """Completions over HTTP. Threads share one instance: one client, and one memory of what the server takes.

    ``timeout`` is in seconds and covers a whole answer, however slowly it trickles in. ``structured`` is ``auto``
    (a JSON schema, then any JSON object, then plain text, whatever the server takes) or one of ``FORMATS``.
    """

    name = "openai"
    billed = True

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        model_id: str,
        timeout: float = 60.0,
        structured: str = "auto",
    ) -> None:
        if structured not in ("auto", *FORMATS):
            raise SettingError(f"structured is {structured!r}; use one of: auto, {', '.join(FORMATS)}")
        if not (math.isfinite(timeout) and timeout > 0):
            raise SettingError(f"timeout is {timeout}; use a number of seconds above 0")
        if not model_id.strip():
            raise SettingError("No model id; enter the name of a model, as the server knows it")
        self.model_id: str | None = model_id.strip()
        self.base_url = None if base_url is None else _checked_url(base_url)
        self.timeout = timeout
        self.structured = structured
        self._key = _checked_key(api_key)
        self._key_bytes = (self._key or "").encode()
        self._secrets = _secret_pattern(self._key)
        self._lock = threading.Lock()
        self._client: OpenAI | None = None
        self._response_type: type[httpx2.Response] | None = None
        # What this server has refused so far. All three only ever grow, so threads may learn in any order.
        self._token_name = 0
        self._dropped: frozenset[str] = frozenset()
        # By task: one server may refuse the schema of one task and take that of another.
        self._formats: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"OpenAIBackend(base_url={self.base_url!r}, model_id={self.model_id!r})"

    def complete(self, requests: Sequence[BackendRequest]) -> Iterator[Completion | BackendFailure]:
        """Yield what came of each request, in order; a call that fails is a BackendFailure, never an exception."""
        for request in requests:
            yield self._ask(request.messages, request.generation, request.json_schema, request.task)

    def check(self) -> dict[str, Any]:
        """Make one tiny call, for a "test" button: ``{"ok", "model", "ms", "message"}``."""
        start = time.perf_counter()
        messages: list[Message] = [{"role": "user", "content": "Answer with the word ok."}]
        result = self._ask(messages, Generation(max_tokens=16, temperature=None), {}, "check")
        ms = round((time.perf_counter() - start) * 1000)
        if isinstance(result, BackendFailure):
            return {"ok": False, "model": self.model_id, "ms": ms, "message": result.message}
        model = result.model_id or self.model_id
        return {"ok": True, "model": model, "ms": ms, "message": f"{model} answered in {ms} ms."}

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ask(
        self, messages: Sequence[Message], generation: Generation, schema: Mapping[str, Any], task: str
    ) -> Completion | BackendFailure:
        try:
            return self._ask_until_taken(messages, generation, schema, task)
        except ImportError:
            message = "The package openai is not installed; install it with: pip install openai"
            return BackendFailure("setup", message, fatal=True)
        except Exception as error:
            # The contract of a backend: one call that fails must not take the run with it.
            log.error("Unexpected error of the backend openai: %s", self._clean(repr(error)))
            return BackendFailure("request", f"The call failed with an unexpected {type(error).__name__}; see the log.")

    def _ask_until_taken(
        self, messages: Sequence[Message], generation: Generation, schema: Mapping[str, Any], task: str
    ) -> Completion | BackendFailure:
        if self._key is None and self.base_url is None:
            message = "No OpenAI key: set OPENAI_API_KEY, or openai_base_url to a server of your own."
            return BackendFailure("setup", message, fatal=True)
        while True:
            body = self._body(messages, generation, schema, task)
            try:
                data = strictjson.dumps(body).encode()
            except (ValueError, TypeError):
                message = (
                    "The prompt holds what JSON cannot carry (a lone surrogate, NaN); clean the text of the record."
                )
                return BackendFailure("request", message)
            result = self._send(data)
            if not isinstance(result, _Refusal):
                return result
            # Each round leaves out at least one thing that this body held, so the loop ends.
            if not self._learn(body, task, result):
                return self._failure(result)

    def _body(
        self, messages: Sequence[Message], generation: Generation, schema: Mapping[str, Any], task: str
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model_id, "messages": messages}
        form = self._response_format(schema, task)
        if form is not None:
            body["response_format"] = form
        if generation.max_tokens is not None and self._token_name < len(_TOKEN_NAMES):
            body[_TOKEN_NAMES[self._token_name]] = generation.max_tokens
        options = {
            "temperature": generation.temperature,
            "top_p": generation.top_p,
            "seed": generation.seed,
            "stop": list(generation.stop) or None,
        }
        dropped = self._dropped
        body.update((name, value) for name, value in options.items() if value is not None and name not in dropped)
        return body

    def _response_format(self, schema: Mapping[str, Any], task: str) -> dict[str, Any] | None:
        first = 0 if self.structured == "auto" else FORMATS.index(self.structured)
        form = FORMATS[self._formats.get(task, first)]
        if not schema or form == "none":
            return None
        if form == "json_object":
            return {"type": form}
        name = re.sub(r"[^a-zA-Z0-9_-]", "_", task)[:64] or "answer"
        return {"type": form, "json_schema": {"name": name, "strict": True, "schema": strict_schema(schema)}}

    def _learn(self, body: Mapping[str, Any], task: str, refusal: _Refusal) -> bool:
        """Remember what ``refusal`` says about a parameter in ``body``; return whether another try makes sense."""
        name = _refused_parameter(body, refusal)
        if name is None or (name == "response_format" and self.structured != "auto"):
            return False
        with self._lock:
            if name in _TOKEN_NAMES:
                self._token_name = max(self._token_name, _TOKEN_NAMES.index(name) + 1)
            elif name == "response_format":
                refused = FORMATS.index(body[name]["type"])
                self._formats[task] = max(self._formats.get(task, 0), refused + 1)
            else:
                self._dropped |= {name}
        return True

    def _send(self, data: bytes) -> Completion | BackendFailure | _Refusal:
        import openai

        client, response_type = self._connected()
        try:
            response = client.post("/chat/completions", content=data, cast_to=response_type)
        except (openai.APITimeoutError, _TooSlow):
            message = f"No complete answer within {self.timeout:g} s; try again, or raise the time-out."
            return BackendFailure("timeout", message, retryable=True)
        except _TooLong:
            message = f"The answer is longer than {MAX_ANSWER // 2**20} MB; lower max_tokens or check the server."
            return BackendFailure("request", message)
        except openai.APIConnectionError as error:
            return self._no_connection(error.__cause__ or error)
        except openai.APIStatusError as error:
            return self._refused(error.status_code, error.response.headers, error.body)
        return self._read(response)

    def _connected(self) -> tuple[OpenAI, type[httpx2.Response]]:
        client, response_type = self._client, self._response_type
        if client is None or response_type is None:
            with self._lock:
                if self._client is None:
                    self._client, self._response_type = _make_client(
                        self.base_url or OPENAI_URL, self._key or LOCAL_KEY, self.timeout
                    )
                    weakref.finalize(self, self._client.close)
                client, response_type = self._client, self._response_type
                assert response_type is not None
        return client, response_type

    def _no_connection(self, cause: BaseException) -> BackendFailure:
        reason = self._clean(str(cause)) or type(cause).__name__
        where = self.base_url or OPENAI_URL
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            message = f"The certificate of {where} is not trusted ({reason}); install its authority on this machine."
            return BackendFailure("setup", message, fatal=True)
        message = f"No connection to {where} ({reason}); check the address, the network and that the server runs."
        return BackendFailure("connection", message, retryable=True)

    def _read(self, response: httpx2.Response) -> Completion | BackendFailure | _Refusal:
        data = response.content
        if self._key_bytes and self._key_bytes in data:
            # Some servers echo what they were sent; the answer is stored and shown, so the key leaves it here.
            data = data.replace(self._key_bytes, b"[key]")
        try:
            # Not strictjson: the answer is paid for, and one odd escape in it is no reason to ask again.
            body = json.loads(data)
        except (ValueError, RecursionError):
            return self._unreadable("is not JSON")
        if not isinstance(body, dict):
            return self._unreadable("is not a JSON object")
        choices = body.get("choices")
        if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            return self._refused_in_200(response, body)
        return _completion(body, choices[0])

    def _refused_in_200(self, response: httpx2.Response, body: dict[str, Any]) -> BackendFailure | _Refusal:
        # Gateways report the error of the server behind them with status 200.
        error = body.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        if isinstance(code, int) and 400 <= code < 600:
            return self._refused(code, response.headers, error)
        return self._unreadable("has no choices" + (f" ({self._clean(_said(error))})" if error else ""))

    def _unreadable(self, what: str) -> BackendFailure:
        message = f"The server's answer {what}; try again, and check that base_url ends where its API begins (/v1)."
        return BackendFailure("server", message, retryable=True)

    def _refused(self, status: int, headers: Mapping[str, str], body: Any) -> _Refusal:
        known = body if isinstance(body, dict) else {}
        codes = frozenset(str(known[name]) for name in ("code", "type") if known.get(name))
        return _Refusal(status, _said(body), codes, str(known.get("param") or ""), _retry_after(headers))

    def _failure(self, refusal: _Refusal) -> BackendFailure:
        kind, remedy = _diagnose(refusal, self.model_id, self.base_url)
        if kind == "request" and self.structured != "auto" and _FORMAT.search(f"{refusal.param} {refusal.said}"):
            kind = "setup"
            remedy = "The server does not take this kind of structured output; set structured to auto."
        said = self._clean(refusal.said)
        status = f"HTTP {refusal.status}: {said}" if said else f"HTTP {refusal.status}"
        return BackendFailure(
            kind,
            # Hidden once more in the whole: a key pasted into the field of the model id would be shown here.
            self._secrets.sub("[key]", f"{remedy[:-1]} ({status})."),
            retry_after=refusal.retry_after,
            fatal=kind in ("auth", "quota", "model", "setup"),
            retryable=kind in ("rate_limit", "server"),
        )

    def _clean(self, text: str) -> str:
        """Return ``text`` on one line, without the key or anything that looks like one, at most 300 characters."""
        text = self._secrets.sub("[key]", text)
        text = "".join(char if char.isprintable() else " " for char in text)
        text = " ".join(text.split()).rstrip(".")
        return text if len(text) <= 300 else text[:299] + "…"


class _Refusal(NamedTuple):
    """An answer with an error status, taken apart. ``said`` may hold secrets: clean it before it is shown."""

    status: int
    said: str
    codes: frozenset[str]
    param: str
    retry_after: float | None


class _TooLong(Exception):
    pass


class _TooSlow(Exception):
    pass


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``schema`` as the strict mode of structured outputs takes it.

    Every property is required and no other is allowed, keywords that servers refuse are left out, ``oneOf`` becomes
    ``anyOf``. A property that was optional is required too, but not made nullable: the answer then still fits the
    schema that was given. An object without properties (a map) stays open; strict servers refuse it by name.
    """
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions"):
            found[key] = {name: strict_schema(part) for name, part in value.items()}
        elif key in ("anyOf", "oneOf"):
            found["anyOf"] = [strict_schema(part) for part in value]
        elif key == "items" and isinstance(value, Mapping):
            found[key] = strict_schema(value)
        elif key in _STRICT_KEYWORDS:
            found[key] = value
    if "properties" in found:
        found["required"] = list(found["properties"])
        found["additionalProperties"] = False
    return found


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    # Reading the certificates takes 40 ms; all backends of a process share them.
    import httpx2

    return httpx2.create_ssl_context()


def _make_client(base_url: str, api_key: str, timeout: float) -> tuple[OpenAI, type[httpx2.Response]]:
    # Both cost 0.8 s to import: no page and no command should wait for them before the first call.
    import httpx2
    import openai

    class Bounded(httpx2.SyncByteStream):
        """A body that ends with an error when it grows too long, or takes too long as a whole.

        The read time-out of the client starts again with every byte, so a slow trickle would never meet it.
        """

        def __init__(self, stream: httpx2.SyncByteStream, deadline: float) -> None:
            self._stream = stream
            self._deadline = deadline

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for chunk in self._stream:
                size += len(chunk)
                if size > MAX_ANSWER:
                    raise _TooLong
                if time.monotonic() > self._deadline:
                    raise _TooSlow
                yield chunk

        def close(self) -> None:
            self._stream.close()

    def start_clock(request: httpx2.Request) -> None:
        request.extensions["labeler_deadline"] = time.monotonic() + timeout

    def bound(response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = Bounded(response.stream, response.request.extensions["labeler_deadline"])

    http_client = openai.DefaultHttpxClient(
        verify=_ssl_context(),
        timeout=httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
        limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
        # The prompt and the key go to the address that was set up, and nowhere else.
        follow_redirects=False,
        event_hooks={"request": [start_clock], "response": [bound]},
    )
    client = openai.OpenAI(
        base_url=base_url,
        api_key=api_key,
        max_retries=0,
        timeout=httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
        http_client=http_client,
        # A compressed body could grow without limit after it was counted.
        default_headers={"Accept-Encoding": "identity"},
    )
    return client, httpx2.Response


def _completion(body: Mapping[str, Any], choice: Mapping[str, Any]) -> Completion:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"content": choice.get("text")}
    text, refusal = _text(message.get("content")), _text(message.get("refusal"))
    finish = choice.get("finish_reason")
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    model = body.get("model")
    return Completion(
        text=_storable(text or refusal),
        tokens_in=_count(usage.get("prompt_tokens")),
        tokens_out=_count(usage.get("completion_tokens")),
        tokens_cached=_count(details.get("cached_tokens")) if isinstance(details, dict) else None,
        finish="refusal" if refusal else _storable(finish)[:40] if isinstance(finish, str) else None,
        model_id=_storable(model)[:200] if isinstance(model, str) and model else None,
    )


def _text(content: Any) -> str:
    """Return the text of a message's content: a string, or a list of parts as some servers send it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _storable(text: str) -> str:
    # Half an emoji (cut at max_tokens) and NUL can be sent as JSON, but no database takes them.
    return _NOT_STORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _said(body: Any) -> str:
    """Return what an error body says, as text: the message of OpenAI's form, else all of it, without markup."""
    if isinstance(body, dict):
        message = body.get("message")
        if isinstance(message, str) and message:
            return message
    if isinstance(body, str):
        return " ".join(re.sub(r"<[^>]*>", " ", body[:4000]).split())
    return "" if body is None else json.dumps(body, ensure_ascii=False)[:4000]


def _refused_parameter(body: Mapping[str, Any], refusal: _Refusal) -> str | None:
    """Return the name of the parameter of ``body`` that a 400 or 422 calls unsupported, or None.

    A refused *value* (max_tokens too large) is not unsupported: leaving it out would hide a mistake.
    """
    if refusal.status not in (400, 422):
        return None
    sent = [name for name in _OPTIONAL if name in body]
    named = re.split(r"[.\[]", refusal.param)[0]
    unsupported = bool(_UNSUPPORTED.search(refusal.said)) or any("unsupported" in code for code in refusal.codes)
    if named in sent and (unsupported or named == "response_format"):
        return named
    if "response_format" in sent and _FORMAT.search(refusal.said):
        return "response_format"
    if named or not unsupported:
        return None
    # Where two are named, the first is the culprit: "'max_tokens' is not supported. Use 'max_completion_tokens'".
    found = [(match.start(), name) for name in sent if (match := _mention(name).search(refusal.said))]
    return min(found)[1] if found else None


def _mention(name: str) -> re.Pattern[str]:
    # "stop" and "seed" are words of every day: only quoted, or after a colon, they are names.
    before = r"(?:['\"`]|: ?)" if name in ("stop", "seed") else r"\b"
    return re.compile(rf"{before}{name}\b")


def _diagnose(refusal: _Refusal, model_id: str | None, base_url: str | None) -> tuple[str, str]:
    """Return the kind of failure, and a sentence that says what to do."""
    status, said, codes = refusal.status, refusal.said, refusal.codes
    if status == 402 or codes & _QUOTA_CODES or "insufficient_quota" in said:
        return "quota", "The account has no credit left; add credit or raise its limit, then resume the run."
    if status == 429:
        return "rate_limit", "The server limits the rate; the call is worth another try later, with fewer at once."
    if status in (401, 403):
        return "auth", "The server does not accept the key; check OPENAI_API_KEY or openai_api_key."
    if status == 404 or codes & _MODEL_CODES:
        where = base_url or OPENAI_URL
        return "model", f"No model {model_id!r} at {where}; check the model id, and that base_url is right."
    if 300 <= status < 400 or status == 405:
        return "setup", "The address does not take chat completions; set base_url to where the API begins (/v1)."
    if status >= 500 or status in (408, 409, 425):
        return "server", "The server failed; the call is worth another try."
    if "context_length_exceeded" in codes or "context length" in said:
        return "request", "The prompt is longer than the model can read; show fewer examples or use another model."
    return "request", "The server refuses this prompt; see what it says, and label this record by hand."


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the server asks to wait, from retry-after-ms or Retry-After (seconds or a date)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER)
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return min(max(date.timestamp() - time.time(), 0.0), MAX_RETRY_AFTER)
    except (ValueError, OverflowError):
        return None


def _text_setting(instance: Mapping[str, Any], name: str) -> str | None:
    value = instance.get(name)
    if value is not None and not isinstance(value, str):
        raise SettingError(f"{name} must be text, not {type(value).__name__}")
    return (value or "").strip() or None


def _checked_url(url: str) -> str:
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        _refuse_url("is not an address")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        _refuse_url("must be an http or https address")
    if parts.username is not None or parts.password is not None:
        _refuse_url("must not contain a user or password; put the key into openai_api_key")
    if parts.query or parts.fragment:
        _refuse_url("must not contain ? or #")
    if not url.isprintable() or " " in url:
        _refuse_url("contains a space or a control character")
    return url


def _refuse_url(why: str) -> NoReturn:
    # The address itself stays out of the message: it may carry a password.
    raise SettingError(f"openai_base_url {why}; example: http://127.0.0.1:8000/v1")


def _checked_key(key: str | None) -> str | None:
    key = (key or "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise SettingError("The OpenAI key contains a space, a line end or a character that no key has; copy it again")
    return key


def _secret_pattern(key: str | None) -> re.Pattern[str]:
    """Return a pattern for the key, for what starts or ends like it (servers echo it shortened), and for any other."""
    parts = [_SECRETS]
    if key is not None:
        parts.insert(0, re.escape(key))
        if len(key) >= 8:
            parts.insert(1, re.escape(key[:6]) + r"[^\s\"'`<>,;]*")
        if len(key) >= 16:
            parts.insert(2, r"[^\s\"'`<>,;]*" + re.escape(key[-8:]))
    return re.compile("|".join(parts))
