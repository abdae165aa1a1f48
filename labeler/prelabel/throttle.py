"""How many calls of a run go out at once: fewer where a server is slow to answer, more where it keeps up.

A server of one's own often answers one call at a time. Sixteen at once then wait behind one another until their time is
over, and what the server has done for them is lost. So a run starts with few, adds one for each round that was answered
and halves after a time-out or a rate limit (additive increase, multiplicative decrease, as TCP does).
"""

from __future__ import annotations

import threading
import time

FIRST = 4
"""With so many a run starts on a server that does not say how many calls it answers at once."""


class Throttle:
    """Says how many calls may be under way; at most ``most``. Threads share it."""

    def __init__(self, most: int, slots: int | None = None) -> None:
        self._most = most
        self.limit = min(most, slots or FIRST)
        self._answered = 0
        self._lowered_at = 0.0
        self._lock = threading.Lock()

    def answered(self) -> None:
        """Note an answer; after as many as may be under way, one call more may."""
        with self._lock:
            self._answered += 1
            if self._answered >= self.limit and self.limit < self._most:
                self.limit, self._answered = self.limit + 1, 0

    def overloaded(self, began: float) -> None:
        """Note that a call which began at ``began`` (of ``time.monotonic``) was not answered in time, or was too much.

        Those that were sent before the last halving say nothing new.
        """
        with self._lock:
            if began >= self._lowered_at:
                self.limit, self._answered = max(1, self.limit // 2), 0
                self._lowered_at = time.monotonic()
