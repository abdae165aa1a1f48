"""Rate limits of servers, shared by all processes: one token bucket for requests and one for tokens per server.

The limits are set by a person or learned from the headers of answers; a server of which nothing is known is not held
back. A bucket holds a sixth of a minute's worth, so that a run neither starts with a burst that the server refuses nor
waits between calls that it would have taken. Times are seconds since the epoch, from the clock of the machine; a hold
never reaches further than an hour ahead, so that a clock set back cannot hold a run for a day.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from labeler.records import RateLimits
from labeler.store.database import Database, Row, Tx

_BURST = 1 / 6
_LONGEST_HOLD = 3600.0
# Above this share nothing is written: most answers only say that there is plenty left.
_SCARCE = 0.2


@dataclass(frozen=True, slots=True)
class SetLimits:
    """What a person set, per minute; None leaves it to what the server says."""

    requests: int | None = None
    tokens: int | None = None


class Limits:
    def __init__(self, db: Database) -> None:
        self.db = db

    def reserve(self, tx: Tx, server: str, tokens: int, given: SetLimits, requests: int = 1) -> float:
        """Take ``requests`` and ``tokens`` out of the buckets of ``server``; return 0.0, or the seconds to wait first.

        A call that has to wait took nothing. A call larger than the whole bucket goes when the bucket is full.
        """
        row = tx.one("SELECT * FROM rate_limits WHERE server = :server", {"server": server})
        if row is None and given == SetLimits():
            return 0.0
        now = time.time()
        held = 0.0 if row is None else float(row["held_until"]) - now
        if 0 < held <= _LONGEST_HOLD:
            return held
        free_requests, request_wait = _take(row, "requests", given.requests, requests, now)
        free_tokens, token_wait = _take(row, "tokens", given.tokens, tokens, now)
        wait = max(request_wait, token_wait)
        if wait > 0:
            return wait
        self._store(tx, server, now, free_requests, free_tokens)
        return 0.0

    def held_until(self, server: str) -> float:
        """Return until when nobody may send to ``server``, in seconds since the epoch; 0.0 where nothing was said."""
        held = self.db.value("SELECT held_until FROM rate_limits WHERE server = :server", {"server": server})
        return float(held) if held and held <= time.time() + _LONGEST_HOLD else 0.0

    def correct(self, tx: Tx, server: str, tokens: int) -> None:
        """Take ``tokens`` more (or give back, if negative) than were reserved, once the real count is known."""
        tx.run(
            "UPDATE rate_limits SET free_tokens = free_tokens - :tokens WHERE server = :server AND free_tokens NOTNULL",
            {"tokens": tokens, "server": server},
        )

    def learn(self, tx: Tx, server: str, said: RateLimits) -> None:
        """Keep what a server said of its limits, and trust its count of what is left where that is less than ours."""
        now = time.time()
        tx.run(
            "INSERT INTO rate_limits (server, at) VALUES (:server, :now) ON CONFLICT DO NOTHING",
            {"server": server, "now": now},
        )
        held = max(
            said.reset_requests or 0.0 if said.remaining_requests == 0 else 0.0,
            said.reset_tokens or 0.0 if said.remaining_tokens == 0 else 0.0,
        )
        tx.run(
            """UPDATE rate_limits SET requests = COALESCE(:requests, requests), tokens = COALESCE(:tokens, tokens),
               free_requests = CASE WHEN :left_requests IS NULL THEN free_requests
                 WHEN free_requests IS NULL OR free_requests > :left_requests THEN :left_requests
                 ELSE free_requests END,
               free_tokens = CASE WHEN :left_tokens IS NULL THEN free_tokens
                 WHEN free_tokens IS NULL OR free_tokens > :left_tokens THEN :left_tokens ELSE free_tokens END,
               held_until = CASE WHEN held_until < :held THEN :held ELSE held_until END WHERE server = :server""",
            {
                "requests": said.requests, "tokens": said.tokens, "left_requests": said.remaining_requests,
                "left_tokens": said.remaining_tokens, "held": now + min(held, _LONGEST_HOLD) if held else 0.0,
                "server": server,
            },
        )  # fmt: skip

    def hold(self, tx: Tx, server: str, seconds: float) -> None:
        """Let nobody send to ``server`` for ``seconds``: it said that a limit was met."""
        now = time.time()
        tx.run(
            """INSERT INTO rate_limits (server, at, held_until) VALUES (:server, :now, :until)
               ON CONFLICT (server) DO UPDATE SET held_until =
                 CASE WHEN rate_limits.held_until < excluded.held_until THEN excluded.held_until
                 ELSE rate_limits.held_until END""",
            {"server": server, "now": now, "until": now + min(seconds, _LONGEST_HOLD)},
        )

    def known(self, server: str) -> Row | None:
        return self.db.one("SELECT * FROM rate_limits WHERE server = :server", {"server": server})

    def _store(self, tx: Tx, server: str, now: float, requests: float | None, tokens: float | None) -> None:
        tx.run(
            """INSERT INTO rate_limits (server, free_requests, free_tokens, at) VALUES (:server, :requests, :tokens,
               :now) ON CONFLICT (server) DO UPDATE SET free_requests = excluded.free_requests,
               free_tokens = excluded.free_tokens, at = excluded.at""",
            {"server": server, "requests": requests, "tokens": tokens, "now": now},
        )


def worth_learning(said: RateLimits, before: RateLimits | None) -> bool:
    """Whether an answer's headers say more than is known: another limit, or that little is left."""
    if before is None or (said.requests, said.tokens) != (before.requests, before.tokens):
        return True
    return _scarce(said.remaining_requests, said.requests) or _scarce(said.remaining_tokens, said.tokens)


def _scarce(left: int | None, limit: int | None) -> bool:
    return left is not None and limit is not None and left < _SCARCE * limit


def _take(row: Row | None, name: str, given: int | None, wanted: int, now: float) -> tuple[float | None, float]:
    """Return what is left in a bucket after taking ``wanted``, and how long to wait if that is not there yet."""
    limit = given if given is not None else (row[name] if row is not None else None)
    if not limit:
        return None, 0.0
    rate = float(limit) / 60
    size = max(float(limit) * _BURST, 1.0)
    before = row[f"free_{name}"] if row is not None else None
    # A clock set back refills nothing; one set forward fills the bucket at most.
    passed = max(now - row["at"], 0.0) if row is not None else 0.0
    free = min(size, size if before is None else before + passed * rate)
    needed = min(float(wanted), size)
    # A hair of tolerance: a wait of exactly the missing time must not end a rounding error short.
    return free - wanted, 0.0 if free >= needed - 1e-6 else (needed - free) / rate
