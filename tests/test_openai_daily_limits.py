"""Limits of requests that count a day are told from those that count a minute, from the headers of one answer."""

from __future__ import annotations

import pytest

from labeler.backends.openai.limits import rate_limits
from labeler.records import RateLimits

GROQ = {
    "x-groq-region": "fra",
    "x-ratelimit-limit-requests": "14400", "x-ratelimit-remaining-requests": "14370",
    "x-ratelimit-reset-requests": "2m59.56s",
    "x-ratelimit-limit-tokens": "18000", "x-ratelimit-remaining-tokens": "17997", "x-ratelimit-reset-tokens": "7.66s",
}  # fmt: skip
TOKENS = RateLimits(tokens=18000, remaining_tokens=17997, reset_tokens=7.66)


def read(headers):
    return rate_limits([(name.encode(), value.encode()) for name, value in headers.items()])


def requests(limit, left, reset):
    """The headers of a server that says no more than this."""
    names = ("limit", "remaining", "reset")
    return {f"x-ratelimit-{name}-requests": str(value) for name, value in zip(names, (limit, left, reset), strict=True)}


def test_groq_counts_requests_by_the_day_and_tokens_by_the_minute():
    """The headers that its documentation shows: the tokens set the pace, the day's requests do not."""
    assert read(GROQ) == TOKENS


def test_groq_is_known_where_its_numbers_say_nothing():
    """A full day's count looks like a minute's; the region that it names gives it away, wherever it stands."""
    full = GROQ | requests(14400, 14400, "0s")
    assert read(full) == TOKENS
    assert read(dict(reversed(full.items()))) == TOKENS


@pytest.mark.parametrize(
    ("limit", "left", "reset"),
    [
        (200, 199, "7m12s"),  # a free account of OpenAI
        (10_000, 9_999, "8.64s"),
        (14_400, 14_399, "6s"),
        (1_000, 0, "5h12m0s"),
        (50, 49, "91s"),
    ],
)
def test_requests_of_a_day_are_known_by_their_reset(limit, left, reset):
    """Too long for a minute's count, or the very share of a day that was used."""
    assert read(requests(limit, left, reset)) is None


@pytest.mark.parametrize(
    ("limit", "left", "reset", "seconds"),
    [
        (60, 59, "1s", 1.0),
        (5_000, 4_999, "12ms", 0.012),
        (500, 0, "1m0s", 60.0),
        (10_000, 5_000, "30s", 30.0),
        (100, 99, "59s", 59.0),  # a window that starts anew each minute
        (100, 100, "0s", 0.0),
    ],
)
def test_requests_of_a_minute_stay_what_they_are(limit, left, reset, seconds):
    """Buckets and windows of a minute set the pace as before."""
    expected = RateLimits(requests=limit, remaining_requests=left, reset_requests=seconds)
    assert read(requests(limit, left, reset)) == expected


def test_count_without_a_reset_is_taken_by_the_minute():
    """Nothing tells it apart, and a limit that is held too well costs time only."""
    assert read({"x-ratelimit-limit-requests": "60"}) == RateLimits(requests=60)
