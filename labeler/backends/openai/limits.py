"""What the headers of an answer say of rate limits, and how long to wait."""

from __future__ import annotations

import email.utils
import functools
import math
import re
import time
from collections.abc import Iterable, Mapping
from datetime import datetime

from labeler.records import RateLimits

MAX_RETRY_AFTER = 86_400.0

# By header, what it tells. OpenAI's names (vLLM's gateways, Azure, Groq and Mistral use them too), Anthropic's, and
# those of the IETF draft. The draft's limit counts per a window that the header does not name, so it is not taken.
_FIELDS = {
    b"x-ratelimit-limit-requests": "requests",
    b"x-ratelimit-limit-tokens": "tokens",
    b"x-ratelimit-remaining-requests": "remaining_requests",
    b"x-ratelimit-remaining-tokens": "remaining_tokens",
    b"x-ratelimit-reset-requests": "reset_requests",
    b"x-ratelimit-reset-tokens": "reset_tokens",
    b"anthropic-ratelimit-requests-limit": "requests",
    b"anthropic-ratelimit-tokens-limit": "tokens",
    b"anthropic-ratelimit-requests-remaining": "remaining_requests",
    b"anthropic-ratelimit-tokens-remaining": "remaining_tokens",
    b"anthropic-ratelimit-requests-reset": "reset_requests",
    b"anthropic-ratelimit-tokens-reset": "reset_tokens",
    b"ratelimit-remaining": "remaining_requests",
    b"ratelimit-reset": "reset_requests",
    b"x-ratelimit-remaining": "remaining_requests",
    b"x-ratelimit-reset": "reset_requests",
}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
# Groq counts requests by the day, which no header says, and tokens by the minute (console.groq.com/docs/rate-limits).
_GROQ = b"x-groq-region"
_DAY = 86_400.0
# What counts by the minute is full again within one; with some seconds for clocks that differ.
_MINUTE = 90.0
_CLOSE = 0.02
# A number of seconds as large as this is a date (2001 and later), in seconds or milliseconds.
_EPOCH = 1e9

Headers = Iterable[tuple[bytes, bytes]]


def rate_limits(headers: Headers) -> RateLimits | None:
    """Return what the server said of its limits, None if it said nothing that can be read.

    Requests that are counted by the day say nothing of the pace, and are left out: a server that has none left refuses
    the call, which costs nothing, and says how long to wait.
    """
    found: dict[str, float] = {}
    groq = False
    for name, value in headers:
        name = name.lower()
        groq = groq or name == _GROQ
        if field := _FIELDS.get(name):
            number = _seconds(value) if field.startswith("reset") else _whole(value)
            if number is not None:
                found.setdefault(field, number)
    if groq or _by_the_day(found):
        found = {name: number for name, number in found.items() if not name.endswith("requests")}
    return RateLimits(**found) if found else None  # type: ignore[arg-type]


def _by_the_day(found: Mapping[str, float]) -> bool:
    """Whether requests are counted over more than a minute, as far as one answer shows.

    They need longer than a minute to be full again; or, in a bucket that fills all the time, what was taken takes the
    same share of a day to come back (30 of 14,400 are 3 minutes, 1 is 6 seconds).
    """
    limit, left, reset = (found.get(name) for name in ("requests", "remaining_requests", "reset_requests"))
    if not limit or reset is None:
        return False
    used = 0.0 if left is None else limit - left
    return reset > _MINUTE or (used > 0 and abs(reset * limit / used / _DAY - 1) < _CLOSE)


def retry_after(headers: Headers) -> float | None:
    """Return the seconds that the server asks to wait, from retry-after-ms or Retry-After (seconds or a date)."""
    found = {name.lower(): value.decode("latin-1") for name, value in headers}
    for name, unit in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        try:
            seconds = float(found.get(name, "")) * unit
        except ValueError:
            continue
        return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER)
    try:
        date = email.utils.parsedate_to_datetime(found.get(b"retry-after", ""))
        return min(max(date.timestamp() - time.time(), 0.0), MAX_RETRY_AFTER)
    except (ValueError, OverflowError):
        return None


def _whole(value: bytes) -> int | None:
    return int(value) if value.isdigit() and len(value) < 16 else None


def _seconds(value: bytes) -> float | None:
    """Return the seconds until a reset: "6m0s", "20ms", "1.5", a date of RFC 3339, or seconds since 1970."""
    duration = _duration(value)
    if duration is None:
        return None
    seconds, is_date = duration
    return max(seconds - time.time(), 0.0) if is_date else seconds


@functools.lru_cache(maxsize=1024)
def _duration(value: bytes) -> tuple[float, bool] | None:
    """Return (seconds, whether they count from 1970); servers repeat themselves, so it is read once for each text."""
    text = value.decode("latin-1").strip()
    if _DURATION.fullmatch(text):
        return math.fsum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)), False
    try:
        number = float(text)
    except ValueError:
        try:
            date = datetime.fromisoformat(text)
        except ValueError:
            return None
        return (date.timestamp(), True) if date.tzinfo else None
    if not 0 <= number < math.inf:
        return None
    if number >= _EPOCH:
        return (number / 1000 if number >= 1000 * _EPOCH else number), True
    return number, False
