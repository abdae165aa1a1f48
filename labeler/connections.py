"""What strangers may cost the HTTP server: how many connections, for how long, and how many bytes of each request.

waitress knows one limit for all bodies, none for the time that a request takes to arrive, and stops listening where
its connections are all taken. Here a request's head decides how long its body may be, what arrives too slowly is
given up, and a new connection takes the place of the one that has waited longest. All of it leans on insides that
waitress does not promise; :func:`known` says whether they are as they were.
"""

from __future__ import annotations

import copy
import socket
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.utilities import BadRequest, Error, RequestEntityTooLarge

# A request may take so many seconds, and one more for each so many bytes of it that have come.
PATIENCE, RATE = 20.0, 4096
# In seconds: what is still sent after a refusal is read so long, so that the refusal arrives.
_LINGER = 5.0
_LEANED_ON = {
    HTTPChannel: ("received", "service", "handle_close", "readable", "request", "will_close", "parser_class"),
    HTTPRequestParser: ("parse_header", "received", "chunked", "body_rcv", "completed", "error", "expect_continue"),
    TcpWSGIServer: ("maintenance", "handle_accept", "add_task", "channel_class"),
}


def known() -> bool:
    """Whether waitress has all that this module leans on."""
    return all(hasattr(owner, name) for owner, names in _LEANED_ON.items() for name in names)


class RequestTimeout(BadRequest):  # type: ignore[misc]
    code = 408
    reason = "Request Timeout"


class NoRoom(Error):  # type: ignore[misc]
    code = 507
    reason = "Insufficient Storage"


class Request(HTTPRequestParser):  # type: ignore[misc]
    """A request as it arrives. One whose body is too long goes to the app without it, for the app to answer."""

    refused = False
    adj: Any
    error: Any

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            # An address such as http://[ is no reason for a trace in the log.
            raise ParsingError("Bad URI") from error
        if self.chunked or self.content_length >= self.adj.max_request_body_size:
            self.adj = copy.copy(self.adj)
            self.adj.max_request_body_size = self.adj.body_limit(self._environ()) + 1

    def received(self, data: bytes) -> int:
        try:
            consumed: int = super().received(data)
        except OSError as error:
            # The disk of the temporary files is full.
            self.error, self.completed, self.expect_continue = NoRoom(error.strerror), True, False
            return len(data)
        if isinstance(self.error, RequestEntityTooLarge):
            self._refuse()
        return consumed

    def _refuse(self) -> None:
        self.error, self.refused, self.expect_continue = None, True, False
        self.close()
        self.body_rcv = None
        self.headers["CONTENT_LENGTH"] = str(max(self.content_length, self.adj.max_request_body_size))
        self.headers["CONNECTION"] = "close"

    def _environ(self) -> dict[str, Any]:
        """Return what a WSGI app may know of the request before its body came."""
        named = {f"HTTP_{name}": value for name, value in self.headers.items()}
        named["CONTENT_TYPE"] = named.pop("HTTP_CONTENT_TYPE", "")
        named.pop("HTTP_CONTENT_LENGTH", None)
        return named | {
            "REQUEST_METHOD": self.command.upper(), "SCRIPT_NAME": "", "PATH_INFO": "/" + self.path.lstrip("/"),
            "QUERY_STRING": self.query, "SERVER_PROTOCOL": f"HTTP/{self.version}", "SERVER_NAME": "waitress.invalid",
            "SERVER_PORT": "80", "REMOTE_ADDR": "", "wsgi.url_scheme": "http", "wsgi.input": BytesIO(),
        }  # fmt: skip


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection. ``since`` is when the request that is arriving began, else when the last one was answered."""

    parser_class = Request
    unread = draining = False
    will_close: bool

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.since = time.monotonic()
        super().__init__(*arguments, **named)

    def received(self, data: bytes) -> bool:
        if self.draining:
            return False
        if self.request is None:
            self.since = time.monotonic()
        return bool(super().received(data))

    def service(self) -> None:
        self.unread = getattr(self.requests[0], "refused", False)
        super().service()
        self.since = time.monotonic()

    def handle_close(self) -> None:
        # A socket that is closed with unread bytes in it takes back what was sent: the refusal would be lost.
        if self.unread and self.will_close and not self.draining:
            try:
                self.socket.shutdown(socket.SHUT_WR)
                self.draining, self.will_close, self.since = True, False, time.monotonic()
                return
            except OSError:
                pass
        super().handle_close()

    def check_patience(self) -> None:
        """Give up a request that arrives too slowly, and a connection that is only read empty."""
        waited, request = time.monotonic() - self.since, self.request
        if self.draining and waited > _LINGER:
            self.handle_close()
        elif request is not None and not self.requests:
            came = request.header_bytes_received + request.body_bytes_received
            if waited > PATIENCE + came / RATE:
                self._give_up(request)

    def _give_up(self, request: Request) -> None:
        request.error, request.completed = RequestTimeout("The request took too long to arrive"), True
        with self.requests_lock:
            self.request = None
            self.requests.append(request)
            self.server.add_task(self)


class Server(TcpWSGIServer):  # type: ignore[misc]
    """``room`` is how many connections are kept; ``body_limit`` says how long the body of a request may be."""

    channel_class = Channel

    def __init__(
        self, app: Any, sockets: dict[int, Any], bound: socket.socket, dispatcher: Any, adj: Any, room: int,
        body_limit: Callable[[dict[str, Any]], int],
    ) -> None:  # fmt: skip
        self.room, adj.body_limit = room, body_limit
        info = (bound.family, bound.type, bound.proto, bound.getsockname())
        super().__init__(app, sockets, True, bound, dispatcher, adj, info, bind_socket=False)

    def handle_accept(self) -> None:
        super().handle_accept()
        if len(self.active_channels) > self.room:
            self._make_room()

    def _make_room(self) -> None:
        """Close a connection that has no request under way: of who has most of them, the one that waited longest."""
        waiting = [channel for channel in self.active_channels.values() if not channel.requests]
        held = Counter(channel.addr[0] for channel in waiting)
        waiting.sort(key=lambda channel: (channel.total_outbufs_len > 0, -held[channel.addr[0]], channel.since))
        for channel in waiting[:1]:
            channel.unread = False
            channel.handle_close()

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            channel.check_patience()
