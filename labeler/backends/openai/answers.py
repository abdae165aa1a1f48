"""What came back: completions, refusals, and the failures that a person reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from labeler.backends.openai import context
from labeler.backends.openai.limits import Headers, rate_limits, retry_after
from labeler.backends.openai.settings import OPENAI_URL
from labeler.records import Completion, RateLimits

_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"}
_MODEL_CODES = {"model_not_found", "invalid_model", "model_not_available"}
_LENGTH_CODES = {"context_length_exceeded", "exceed_context_size_error"}
_NOT_STORABLE = re.compile("[\ud800-\udfff\0]")


class Refusal(NamedTuple):
    """An answer with an error status, taken apart. ``said`` may hold secrets: clean it before it is shown.

    ``context`` is how many tokens the model reads, where the prompt was refused for being longer.
    """

    status: int
    said: str
    codes: frozenset[str]
    param: str
    retry_after: float | None = None
    limits: RateLimits | None = None
    context: int | None = None


class Unreadable(NamedTuple):
    """An answer that is no completion and no error that one could act on."""

    why: str


def refusal(status: int, headers: Headers, body: Any) -> Refusal:
    """Take an error body apart: OpenAI's form ({"error": {...}}), what stands in it, or any other."""
    error = body.get("error", body) if isinstance(body, dict) else body
    known = error if isinstance(error, dict) else {}
    codes = frozenset(str(known[name]) for name in ("code", "type") if known.get(name))
    param = str(known.get("param") or "")
    said = _said(error)
    tokens = context.refused_for(said, known) if status in (400, 413, 422) else None
    return Refusal(status, said, codes, param, retry_after(headers), rate_limits(headers), tokens)


def refused(status: int, headers: Headers, content: bytes) -> Refusal:
    """As :func:`refusal`, from the bytes of the body: JSON or a page of a gateway."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = content.decode("utf-8", "replace")
    return refusal(status, headers, body)


def answered(body: Any, headers: Headers) -> Completion | Refusal | Unreadable:
    """Read the body of a chat completion that came with status 200."""
    if not isinstance(body, dict):
        return Unreadable("is not a JSON object")
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return _completion(body, choices[0], rate_limits(headers))
    # Gateways report the error of the server behind them with status 200.
    error = body.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 600:
        return refusal(code, headers, error)
    return Unreadable("has no choices" + (f" ({_said(error)})" if error else ""))


def _completion(body: Mapping[str, Any], choice: Mapping[str, Any], limits: RateLimits | None) -> Completion:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"content": choice.get("text")}
    text, refused_with = _text(message.get("content")), _text(message.get("refusal"))
    finish = choice.get("finish_reason")
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    model = body.get("model")
    return Completion(
        text=_storable(text or refused_with),
        tokens_in=_count(usage.get("prompt_tokens")),
        tokens_out=_count(usage.get("completion_tokens")),
        tokens_cached=_cached(usage),
        finish="refusal" if refused_with else _storable(finish)[:40] if isinstance(finish, str) else None,
        model_id=_storable(model)[:200] if isinstance(model, str) and model else None,
        limits=limits,
    )


def _cached(usage: Mapping[str, Any]) -> int | None:
    """Return the cached tokens of the prompt: as OpenAI and vLLM count them, as DeepSeek, as Moonshot."""
    details = usage.get("prompt_tokens_details")
    found = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    for name in ("prompt_cache_hit_tokens", "cached_tokens"):
        found = _count(usage.get(name)) if found is None else found
    return found


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


def _said(error: Any) -> str:
    """Return what an error says, as text: the message of OpenAI's form, else all of it, without markup."""
    if isinstance(error, dict):
        message = error.get("message")
        if isinstance(message, str) and message:
            return message
    if isinstance(error, str):
        return " ".join(re.sub(r"<[^>]*>", " ", error[:4000]).split())
    return "" if error is None else json.dumps(error, ensure_ascii=False)[:4000]


def diagnose(refusal: Refusal, model_id: str, base_url: str | None) -> tuple[str, str]:
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
    if refusal.context is not None or codes & _LENGTH_CODES or "context length" in said or "context size" in said:
        return "request", "The prompt is longer than the model can read; show fewer examples or use another model."
    return "request", "The server refuses this prompt; see what it says, and label this record by hand."
