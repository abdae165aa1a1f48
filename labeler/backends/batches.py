"""The contract of a backend whose calls can travel in files, at a discount: what the executor of batches needs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from labeler.backends.base import Backend, BackendRequest
from labeler.errors import BackendError
from labeler.records import BackendFailure, Completion

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
"""The states of a batch after which nothing more comes; all but "failed" may have answers."""


class CallFailed(BackendError):
    """A call that failed; ``failure`` says how, as for a chat completion. The message has no key in it."""

    def __init__(self, failure: BackendFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Batches(Protocol):
    """The files and batches of a server. Every method raises :class:`CallFailed`.

    A batch is the server's object as it is: ``id``, ``status`` (validating, in_progress, finalizing, cancelling and
    those of ENDED), ``output_file_id``, ``error_file_id``, ``request_counts``, ``errors``, ``metadata``.
    """

    def upload(self, jsonl: bytes) -> str:
        """Store a file of calls and return its id; a line is {"custom_id", "method", "url", "body"} as JSON."""

    def create_batch(self, file_id: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Start a batch of the calls in a file; ``metadata`` is to find it again."""

    def batch(self, batch_id: str) -> dict[str, Any]:
        """Return how a batch stands."""

    def since(self, moment: float) -> Iterable[dict[str, Any]]:
        """Return the batches made since ``moment`` (seconds since the epoch), newest first."""

    def cancel_batch(self, batch_id: str) -> dict[str, Any]:
        """Ask to stop a batch; what is answered already stays, and is paid."""

    def file(self, file_id: str) -> bytes:
        """Return a file's content."""


class BatchingBackend(Backend):
    """A backend that can also send many calls as one batch."""

    @property
    @abstractmethod
    def batches(self) -> Batches:
        """The files and batches of its server."""

    def check_batches(self) -> None:
        """Raise :class:`SettingError` where the server, as it is set up, is known to take no batches."""

    @abstractmethod
    def body(self, request: BackendRequest) -> dict[str, Any]:
        """Return the JSON body of one call. Raises :class:`SettingError` for one that would be refused."""

    @abstractmethod
    def read(self, body: Any, request: BackendRequest, status: int = 200) -> Completion | BackendFailure:
        """Read one answer of a batch, or an error object with its status."""
