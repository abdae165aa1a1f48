"""Files and batches: calls that travel in a file, at a discount, and are answered within a day."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from labeler.backends.batches import CallFailed
from labeler.backends.openai.wire import NotConnected, Reply, TooLong, TooSlow, Wire
from labeler.errors import MissingExtra
from labeler.records import BackendFailure
from labeler.sentence import Sentence

MAX_FILE = 1024 * 1024 * 1024
"""OpenAI takes 200 MB a file; what comes back, with log probabilities, is several times as long."""
_FILE_TIMEOUT = 900.0
_TIMEOUT = 60.0
_ID = re.compile(r"[\w.:-]{1,200}", re.ASCII)


class BatchClient:
    """The server's files and batches, see :class:`~labeler.backends.batches.Batches`."""

    def __init__(
        self, wire: Wire, failure_of: Callable[[Exception | Reply], BackendFailure], hide: Callable[[str], str]
    ) -> None:
        self._wire = wire
        self._failure_of = failure_of
        self._hide = hide

    def upload(self, jsonl: bytes, name: str = "calls.jsonl") -> str:
        """Store a file of calls and return its id; a line is {"custom_id", "method", "url", "body"} as JSON."""
        fields = {"purpose": "batch"}
        return self._id(self._call(lambda: self._wire.upload("/files", name, jsonl, fields, _FILE_TIMEOUT)))

    def create_batch(
        self, file_id: str, metadata: Mapping[str, str] | None = None, endpoint: str = "/v1/chat/completions"
    ) -> dict[str, Any]:
        """Start a batch of the calls in a file. ``metadata`` maps at most 16 names to texts, to find it again."""
        asked: dict[str, Any] = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
        if metadata:
            asked["metadata"] = dict(metadata)
        return self._call(lambda: self._wire.post("/batches", json.dumps(asked).encode()))

    def batch(self, batch_id: str) -> dict[str, Any]:
        """Return how a batch stands."""
        path = f"/batches/{_checked(batch_id)}"
        return self._call(lambda: self._wire.get(path, _TIMEOUT, MAX_FILE))

    def batches(self, limit: int = 100, after: str | None = None) -> list[dict[str, Any]]:
        """Return a page of batches, newest first, at most 100; ``after`` is the last id of the page before."""
        path = f"/batches?limit={limit:d}" + (f"&after={_checked(after)}" if after else "")
        found = self._call(lambda: self._wire.get(path, _TIMEOUT, MAX_FILE)).get("data")
        return [batch for batch in found if isinstance(batch, dict)] if isinstance(found, list) else []

    def since(self, moment: float) -> Iterator[dict[str, Any]]:
        """Yield the batches made since ``moment`` (seconds since the epoch), newest first, page by page.

        That is how one whose id was never written down is found, however many others were made meanwhile.
        """
        seen: set[str] = set()
        after = None
        while True:
            page = self.batches(after=after)
            # A server that does not know ``after`` would begin anew for ever.
            new = [batch for batch in page if str(batch.get("id")) not in seen]
            yield from new
            made = new[-1].get("created_at") if new else None
            if not new or (isinstance(made, int | float) and made < moment):
                return
            seen.update(str(batch.get("id")) for batch in new)
            after = str(new[-1].get("id"))

    def cancel_batch(self, batch_id: str) -> dict[str, Any]:
        """Ask to stop a batch; what is answered already stays, and is paid."""
        path = f"/batches/{_checked(batch_id)}/cancel"
        return self._call(lambda: self._wire.post(path, b"{}"))

    def file(self, file_id: str, limit: int = MAX_FILE) -> bytes:
        """Return a file's content, at most ``limit`` bytes."""
        path = f"/files/{_checked(file_id)}/content"
        return self._reply(lambda: self._wire.get(path, _FILE_TIMEOUT, limit)).content

    def _id(self, found: Mapping[str, Any]) -> str:
        id_ = found.get("id")
        if not isinstance(id_, str) or not _ID.fullmatch(id_):
            raise CallFailed(_odd(Sentence("names no id")))
        return id_

    def _call(self, send: Callable[[], Reply]) -> dict[str, Any]:
        reply = self._reply(send)
        try:
            found = json.loads(reply.content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise CallFailed(_odd(Sentence("is not a JSON object")))
        return {name: _each_text(value, self._hide) for name, value in found.items()}

    def _reply(self, send: Callable[[], Reply]) -> Reply:
        try:
            reply = send()
        except TooLong as error:
            message = Sentence("The file is longer than Labeler reads at once; start batches of fewer calls.")
            raise CallFailed(BackendFailure("request", message)) from error
        except TooSlow as error:
            message = Sentence("The file or batch did not arrive in time; try again later.")
            raise CallFailed(BackendFailure("timeout", message, retryable=True)) from error
        except NotConnected as error:
            raise CallFailed(self._failure_of(error)) from error
        except ImportError as error:
            message = MissingExtra("openai", "openai").sentence
            raise CallFailed(BackendFailure("setup", message, fatal=True)) from error
        if reply.status in (404, 405, 501):
            message = Sentence(
                "The server does not have this file or batch, or has none at all (HTTP %(status)s).",
                status=reply.status,
            )
            raise CallFailed(BackendFailure("setup", message, fatal=True))
        if not 200 <= reply.status < 300:
            raise CallFailed(self._failure_of(reply))
        return reply


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {name: _each_text(part, change) for name, part in value.items()}
    if isinstance(value, list):
        return [_each_text(part, change) for part in value]
    return change(value) if isinstance(value, str) else value


def _odd(what: str) -> BackendFailure:
    message = Sentence(
        "The server's answer %(why)s; check that the server at base_url has files and batches.", why=what
    )
    return BackendFailure("server", message, retryable=True)


def _checked(id_: str) -> str:
    """Return an id as it may stand in a path."""
    if not _ID.fullmatch(id_) or ".." in id_:
        raise CallFailed(
            BackendFailure("request", Sentence("The id of a file or batch holds a character that no id has."))
        )
    return id_
