"""The HTTP server: waitress, with a stop that finishes the requests in flight and sends their answers.

waitress knows no such stop, so its loop is turned here, one round at a time. What that and :mod:`labeler.connections`
lean on, waitress does not promise; where it has changed, the server runs as waitress documents: a stop cuts off what is
being answered, and no body may be longer than that of a form.
"""

from __future__ import annotations

import inspect
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from labeler.errors import InputError

log = logging.getLogger(__name__)
MOST_CONNECTIONS = 500
# A connection may hold three handles: its socket, a long body, a long answer. What else is open, besides a few for
# each thread: the database and its -wal and -shm for every thread, files that are read, calls of the worker.
_EACH, _ELSE, _PER_THREAD = 3, 150, 4


class Ended:
    """Whether the server or the worker is to end. A signal handler may set it at any moment, whatever is waited for.

    It is no :class:`threading.Event`: a handler that runs while its own thread is inside the event's lock would wait
    for that lock for ever.
    """

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self) -> None:
        """Wait until it is set. In steps: where a sleep is not interrupted by a signal it still ends soon."""
        while not self._set:
            time.sleep(0.2)


def room_for(threads: int) -> int:
    """Return how many connections there is room for, after asking the system for as many handles as that takes.

    Raises :class:`InputError` where the limit on open files leaves room for none.
    """
    reserve = _ELSE + _PER_THREAD * threads
    try:
        import resource
    except ImportError:  # no such limit on Windows
        return MOST_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = reserve + _EACH * MOST_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, (soft - reserve) // _EACH)
    if room < 10:
        raise InputError(
            f"The limit on open files is {soft}, too few to serve with {threads} threads; allow at least "
            f"{reserve + 10 * _EACH} (ulimit -n, or LimitNOFILE of a systemd unit), or use fewer --threads"
        )
    return room


class HttpServer:
    """Serves a WSGI app on a bound socket.

    A request's body may have ``small`` bytes; a longer one is taken where ``body_limit``, asked with the WSGI environ
    of the request's head, says so.
    """

    def __init__(
        self, app: Any, bound: socket.socket, threads: int, small: int, body_limit: Callable[[dict[str, Any]], int]
    ) -> None:
        self._sockets: dict[int, Any] = {}
        room = room_for(threads)
        settings: dict[str, Any] = {
            "sockets": [bound], "threads": threads, "channel_timeout": 30, "cleanup_interval": 2, "ident": None,
            "asyncore_use_poll": True, "connection_limit": room + 50, "max_request_header_size": 64 * 1024,
            "max_request_body_size": small + 1, "clear_untrusted_proxy_headers": False,
        }  # fmt: skip
        self._server: Any
        self._turn: Callable[[int, float], None] | None = None
        try:
            self._server, self._turn, self._finish = _inside(app, bound, settings, self._sockets, room, body_limit)
        except (ImportError, AttributeError, TypeError) as error:
            from waitress.server import create_server

            log.warning(
                "This version of waitress is not one that Labeler knows (%s): requests that are being answered when "
                "Labeler ends are cut off, and no file above %s bytes can be uploaded; install the versions of "
                "constraints.txt",
                error,
                f"{small:,}",
            )
            self._server = create_server(app, map=self._sockets, **settings)

    def serve_until(self, ended: Ended) -> None:
        """Serve in this thread until it is to end; then finish the requests in flight and send their answers."""
        if self._turn is None:
            threading.Thread(target=self._server.run, name="labeler-http", daemon=True).start()
            ended.wait()
            return
        while not ended.is_set():
            self._turn(1, 0.25)
        self._finish()
        # What the last requests wrote may still wait for the loop.
        self._turn(10, 0.02)
        self._server.close()
        for channel in list(self._sockets.values()):
            channel.close()


def _inside(
    app: Any, bound: socket.socket, settings: dict[str, Any], sockets: dict[int, Any], room: int,
    body_limit: Callable[[dict[str, Any]], int],
) -> tuple[Any, Callable[[int, float], None], Callable[[], object]]:  # fmt: skip
    """Return the server, what turns its loop (rounds, seconds each) and what ends its threads.

    Raises what Python raises where waitress has changed.
    """
    from waitress.adjustments import Adjustments
    from waitress.task import ThreadedTaskDispatcher
    from waitress.wasyncore import loop

    from labeler import connections

    dispatcher = ThreadedTaskDispatcher()
    inspect.signature(loop).bind(timeout=0.0, map=sockets, count=1, use_poll=True)
    inspect.signature(dispatcher.shutdown).bind(cancel_pending=True, timeout=10)
    if not connections.known():
        raise AttributeError("a request or a connection has lost a part")
    dispatcher.set_thread_count(settings["threads"])
    server = connections.Server(app, sockets, bound, dispatcher, Adjustments(**settings), room, body_limit)

    def turn(rounds: int, seconds: float) -> None:
        loop(timeout=seconds, map=sockets, count=rounds, use_poll=True)

    return server, turn, lambda: dispatcher.shutdown(cancel_pending=True, timeout=10)
