"""The HTTP server: waitress, with a stop that finishes the requests in flight and sends their answers.

waitress knows no such stop, so its loop is turned here, one round at a time. What that leans on, and waitress does not
promise, is the loop and the dispatcher of its threads; where they have changed, the server runs as waitress documents,
and a stop cuts off what is being answered.
"""

from __future__ import annotations

import inspect
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class HttpServer:
    """Serves a WSGI app on a bound socket; ``most`` is the largest request, in bytes."""

    def __init__(self, app: Any, bound: socket.socket, threads: int, most: int) -> None:
        from waitress.server import create_server

        self._sockets: dict[int, Any] = {}
        self._server = create_server(
            app, map=self._sockets, sockets=[bound], threads=threads, channel_timeout=30, connection_limit=1000,
            ident=None, max_request_body_size=most,
        )  # fmt: skip
        self._turn, self._finish = _inside(self._server, self._sockets)

    def serve_until(self, ended: threading.Event) -> None:
        """Serve in this thread until the event; then finish the requests in flight and send their answers."""
        if self._turn is None or self._finish is None:
            threading.Thread(target=self._server.run, name="labeler-http", daemon=True).start()
            # In steps, so that Python runs its signal handlers meanwhile.
            while not ended.wait(0.5):
                pass
            return
        while not ended.is_set():
            self._turn(1, 0.25)
        self._finish()
        # What the last requests wrote may still wait for the loop.
        self._turn(10, 0.02)
        self._server.close()


def _inside(
    server: Any, sockets: dict[int, Any]
) -> tuple[Callable[[int, float], None] | None, Callable[[], object] | None]:
    """Return what turns the loop (rounds, seconds each) and what ends the threads; None for both if they are gone."""
    try:
        from waitress.wasyncore import loop

        shutdown = server.task_dispatcher.shutdown
        inspect.signature(loop).bind(timeout=0.0, map=sockets, count=1)
        inspect.signature(shutdown).bind(cancel_pending=True, timeout=10)
    except (ImportError, AttributeError, TypeError) as error:
        log.warning(
            "This version of waitress cannot be stopped gently (%s): requests that are being answered when Labeler "
            "ends are cut off; install the versions of constraints.txt",
            error,
        )
        return None, None

    def turn(rounds: int, seconds: float) -> None:
        loop(timeout=seconds, map=sockets, count=rounds)

    return turn, lambda: shutdown(cancel_pending=True, timeout=10)
