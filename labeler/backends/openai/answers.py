"""What came back: completions, refusals, and the failures that a person reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from labeler.backends.endings import CUT, IN_CALL, IN_THOUGHTS, MODERATED, REFUSED
from labeler.backends.openai import context
from labeler.backends.openai.limits import Headers, rate_limits, retry_after
from labeler.backends.openai.settings import OPENAI_URL
from labeler.records import AWAY, Completion, RateLimits
from labeler.sentence import Sentence

_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"}
_MODEL_CODES = {"model_not_found", "invalid_model", "model_not_available", "model_not_supported"}
# Words of errors, where their status says too little: gateways answer 400 or 500 to nearly everything.
_QUOTA = re.compile(
    r"insufficient[_ ](?:user[_ ])?(?:quota|balance|credits?|funds)|budget.{0,40}exceeded|exceeded.{0,20}budget"
    r"|credit balance is too low|out of credits|billing|payment required",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"(?:invalid|unknown|unsupported|no such) model\b|model[^.]{0,120}(?:not found|n[o']t exist|not supported)"
    r"|not a valid model",
    re.IGNORECASE,
)
_AUTH = re.compile(
    r"no connected db|api[_ ]?key (?:is )?(?:not valid|invalid|missing|required)|(?:invalid|incorrect|no) api[_ ]?key"
    r"|authentication ?error|not authenticated",
    re.IGNORECASE,
)
_MODERATED = re.compile(
    r"moderation|flagged|content[_ ]?(?:filter|policy|management)|responsible ai|inappropriate|data_inspection"
    r"|usage polic|safety (?:system|filter|setting|polic)|prohibited",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(r"request too large|too large for|request entity too large|payload too large", re.IGNORECASE)
_ASKED_FOR = re.compile(r"limit:? ([\d,]+).{0,40}?requested:? ([\d,]+)", re.IGNORECASE)
_ANSWER_LENGTH = re.compile(r"max_?(?:completion_|output_|new_)?tokens|maximum tokens you requested", re.IGNORECASE)
_ANSWER_TOO_LONG = re.compile(
    r"too (?:large|high|big|long)|at most|less than|no more than|exceed|<=|>|maximum|range|larger|between|must be",
    re.IGNORECASE,
)
_MOST = re.compile(
    r"(?:at most|no more than|<=|less than(?: or equal to)?|limit of|maximum(?: value)?(?: is| of|:)?|> ?"
    r"|between \d+ and|\[\d+,) ?`?(\d[\d,]*)",
    re.IGNORECASE,
)
# A gateway whose server is gone, and a server whose model is not ready: nothing was asked of a model.
_AWAY = re.compile(
    r"connection (?:error|refused|failed)|cannot connect|failed to (?:connect|establish)|connect call failed"
    r"|loading model|model is (?:still )?(?:loading|being loaded|starting)|upstream connect|no healthy upstream",
    re.IGNORECASE,
)
# What servers call the ends that Labeler knows.
_ENDS = {
    **dict.fromkeys(("safety", "prohibited_content", "blocklist", "spii", "recitation", "sensitive"), MODERATED),
    **dict.fromkeys(("max_tokens", "model_length", "max_length"), CUT),
}
_LONGEST_CALL = 20_000
_NOT_STORABLE = re.compile("[\ud800-\udfff\0]")


class Refusal(NamedTuple):
    """An answer with an error status, taken apart. ``said`` may hold secrets: clean it before it is shown.

    ``too_long`` is what it tells of the length of the prompt, where that is what it is about.
    """

    status: int
    said: str
    codes: frozenset[str]
    param: str
    retry_after: float | None = None
    limits: RateLimits | None = None
    too_long: context.TooLongPrompt | None = None


class Unreadable(NamedTuple):
    """An answer that is no completion and no error that one could act on."""

    why: Sentence


def refusal(status: int, headers: Headers, body: Any) -> Refusal:
    """Take an error body apart: OpenAI's form ({"error": {...}}), what stands in it, or any other."""
    error = body.get("error", body) if isinstance(body, dict) else body
    known = error if isinstance(error, dict) else {}
    codes = frozenset(str(known[name]) for name in ("code", "type") if known.get(name))
    param = str(known.get("param") or "")
    said = _said(error)
    too_long = context.refused_for(said, known, codes) if status in (400, 413, 422, 500) else None
    return Refusal(status, said, codes, param, retry_after(headers), rate_limits(headers), too_long)


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
        return Unreadable(Sentence("is not a JSON object"))
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    error = body.get("error")
    if choice is not None and choice.get("finish_reason") == "error":
        # OpenRouter: the server behind it failed while it wrote.
        return refusal(_status(choice.get("error")) or 500, headers, choice.get("error") or error)
    if choice is not None:
        return _completion(body, choice, rate_limits(headers))
    # Gateways report the error of the server behind them with status 200.
    if status := _status(error):
        return refusal(status, headers, error)
    return Unreadable(
        Sentence("has no choices (%(reason)s)", reason=_said(error)) if error else Sentence("has no choices")
    )


def _status(error: Any) -> int | None:
    """Return the HTTP status that an error names as its code, as a number or as text."""
    code = error.get("code") if isinstance(error, dict) else None
    status = int(code) if isinstance(code, str) and re.fullmatch("[45]\\d\\d", code) else code
    return status if type(status) is int and 400 <= status < 600 else None


def _completion(body: Mapping[str, Any], choice: Mapping[str, Any], limits: RateLimits | None) -> Completion:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"content": choice.get("text")}
    text, refused_with = _text(message.get("content")), _text(message.get("refusal"))
    finish = _finish(choice, refused_with)
    if not text and not refused_with:
        text, instead = _beside(message)
        # Shown to a person as it came; what stands in another place than the answer is never read as one.
        finish = instead if instead and finish not in (CUT, MODERATED) else finish
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    model = body.get("model")
    return Completion(
        text=_storable(text or refused_with),
        # No prompt has 0 tokens: some servers fill in what they do not count.
        tokens_in=_count(usage.get("prompt_tokens")) or None,
        tokens_out=_count(usage.get("completion_tokens")) or (None if text or refused_with else 0),
        tokens_cached=_cached(usage),
        finish=finish,
        model_id=_storable(model)[:200] if isinstance(model, str) and model else None,
        limits=limits,
    )


def _finish(choice: Mapping[str, Any], refused_with: str) -> str | None:
    said = choice.get("finish_reason")
    if refused_with:
        return REFUSED
    return _ENDS.get(said.lower(), _storable(said)[:40]) if isinstance(said, str) else None


def _beside(message: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return what an empty answer holds in its other fields, and the name of such an end; thoughts, or a tool call."""
    calls = message.get("tool_calls")
    calls = calls if isinstance(calls, list) else []
    called = [call["function"] for call in (*calls, {"function": message.get("function_call")}) if _calls(call)]
    if called:
        return json.dumps(called, ensure_ascii=False)[:_LONGEST_CALL], IN_CALL
    thoughts = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    return thoughts, IN_THOUGHTS if thoughts.strip() else None


def _calls(call: Any) -> bool:
    return isinstance(call, dict) and isinstance(call.get("function"), dict)


def shows_thoughts(body: Any) -> bool:
    """Whether an answer came with thoughts in a field of their own, or says that tokens were spent on them."""
    try:
        message, details = body["choices"][0]["message"], (body.get("usage") or {}).get("completion_tokens_details")
        spent = details.get("reasoning_tokens") if isinstance(details, dict) else 0
        return bool(message.get("reasoning_content") or message.get("reasoning") or spent)
    except (LookupError, TypeError, AttributeError):
        return False


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


def diagnose(refusal: Refusal, model_id: str, base_url: str | None) -> tuple[str, Sentence]:
    """Return the kind of failure, and what to do."""
    status, said, codes = refusal.status, refusal.said, refusal.codes
    if status == 402 or codes & _QUOTA_CODES or "insufficient_quota" in said or _speaks(_QUOTA, refusal, 429):
        return "quota", Sentence("The account has no credit left; add credit or raise its limit, then resume the run")
    if refusal.too_long is not None:
        return "too_long", Sentence(
            "The prompt is longer than the model can read; show fewer examples or use another model"
        )
    if is_too_large(refusal):
        return (
            "request",
            Sentence("This one call is more than the server's limit takes; show fewer examples, or raise the limit"),
        )
    if status == 429:
        return "rate_limit", Sentence(
            "The server limits the rate; the call is worth another try later, with fewer at once"
        )
    if status == 451 or (400 <= status < 500 and _MODERATED.search(" ".join((said, *codes)))):
        return "request", Sentence("The server's moderation refuses this prompt; label this record by hand")
    if status in (401, 403) or (status == 400 and _AUTH.search(said)):
        return "auth", Sentence("The server does not accept the key; check OPENAI_API_KEY or openai_api_key")
    if status == 404 or codes & _MODEL_CODES or (status in (400, 422) and _MODEL.search(said)):
        where = base_url or OPENAI_URL
        return "model", Sentence(
            "No model %(model)r at %(address)s; check the model id, and that base_url is right",
            model=model_id,
            address=where,
        )
    if 300 <= status < 400 or status == 405:
        return "setup", Sentence(
            "The address does not take chat completions; set base_url to where the API begins (/v1)"
        )
    if status >= 500 or status in (408, 409, 425):
        return _of_server(refusal, base_url)
    about_length = _ANSWER_LENGTH.search(said) or _ANSWER_LENGTH.search(refusal.param)
    if status in (400, 422) and about_length and _ANSWER_TOO_LONG.search(said):
        most = _MOST.search(said)
        if most is None:
            return "setup", Sentence(
                "The server does not write answers that long; lower max_tokens, then resume the run"
            )
        lower = int(most[1].replace(",", ""))
        return (
            "setup",
            Sentence(
                "The server does not write answers that long; lower max_tokens to %(n)s, then resume the run", n=lower
            ),
        )
    return "request", Sentence("The server refuses this prompt; see what it says, and label this record by hand")


def _speaks(words: re.Pattern[str], refusal: Refusal, but: int) -> bool:
    """Whether an error of a client, other than ``but``, has such words in its message or its codes."""
    text = " ".join((refusal.said, *refusal.codes))
    # A budget that is used up is one with every status; the other words stand in limits of a minute, too.
    found = words.search(text) if 400 <= refusal.status < 500 else None
    return found is not None and (refusal.status != but or "budget" in found[0].lower())


def is_too_large(refusal: Refusal) -> bool:
    """Whether one call alone is more than a limit takes, so that no wait will do."""
    if refusal.status not in (413, 429):
        return False
    numbers = _ASKED_FOR.search(refusal.said)
    if numbers:
        limit, asked = (int(number.replace(",", "")) for number in numbers.groups())
        return asked > limit
    return refusal.status == 413 or bool(_TOO_LARGE.search(refusal.said))


def _of_server(refusal: Refusal, base_url: str | None) -> tuple[str, Sentence]:
    if _AWAY.search(refusal.said):
        where = base_url or OPENAI_URL
        return AWAY, Sentence(
            "The server behind %(address)s does not answer, or its model is not ready; see that it runs", address=where
        )
    return "server", Sentence("The server failed; the call is worth another try")
