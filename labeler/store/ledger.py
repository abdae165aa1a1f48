"""The ledger: runs, their items, and every call that costs something.

A run has one *item* per record: a row of work with a lease, tries and a time before which it is not tried again.
A *call* is one question to a billed backend, unique by its fingerprint: before it is sent its row says so (and
that is committed), and its answer is committed as soon as it is there. A worker that dies in between leaves a row
that says "sent": after its lease another worker sends it again, counted as a repeat. An answered fingerprint is
never sent again, unless a run was told to ask again and the answer could not be read: then the row of that answer
steps aside, with what it cost, and a new one takes its fingerprint. Every lease carries a token (a fence): whoever
lost the lease can no longer write its result.

What is paid is always finished: an item says in ``answers`` whether the ledger may have an answer for it that no flow
has looked at yet, and such an item may be claimed whatever the budget says and whatever state its run is in.
What a run spent is the sum of the costs of the calls with its number.
"""

from __future__ import annotations

from labeler.store.ledger_calls import ERASED, LOST, Calls
from labeler.store.ledger_items import DECIDED, UNDER_WAY
from labeler.store.ledger_runs import (
    CANCELLED,
    FILL_LEASE,
    FILLING,
    FINISHED,
    OPEN,
    PAUSED,
    QUEUED,
    RUNNING,
    Budgets,
)

__all__ = [
    "CANCELLED",
    "DECIDED",
    "ERASED",
    "FILLING",
    "FILL_LEASE",
    "FINISHED",
    "LOST",
    "OPEN",
    "PAUSED",
    "QUEUED",
    "RUNNING",
    "UNDER_WAY",
    "Budgets",
    "Ledger",
]


class Ledger(Calls):
    """Everything about runs, their items and their calls, in one room: what one transaction writes belongs together."""
