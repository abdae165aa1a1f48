"""The exception of what is not a chat completion: files, batches, the probe."""

from __future__ import annotations

from labeler.errors import BackendError
from labeler.records import BackendFailure


class CallFailed(BackendError):
    """A call that failed; ``failure`` says how, as for a chat completion. The message has no key in it."""

    def __init__(self, failure: BackendFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure
