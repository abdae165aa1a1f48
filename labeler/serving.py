"""Running the server: the socket, the worker beside it, the sign-in line, and a clean end."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from labeler import accounts
from labeler.errors import InputError
from labeler.instance import Instance
from labeler.store import Store
from labeler.waitress_loop import HttpServer

if TYPE_CHECKING:
    from flask import Flask

    from labeler.worker import Worker

LOOPBACK = ("127.0.0.1", "localhost", "::1")
WILDCARDS = ("0.0.0.0", "::", "")


def first_account(store: Store, name: str) -> int:
    """Return the account of that name, made as an admin without a password if it is not there."""
    person = store.people.named(name)
    return int(person["id"]) if person is not None else accounts.add_reviewer(store, name, None, accounts.ADMIN)


def end_signal() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set. To be called before saying that anything is ready."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    return ended


def wait_for(ended: threading.Event) -> None:
    """Wait for an event in steps, so that Python runs its signal handlers meanwhile."""
    while not ended.wait(0.5):
        pass


def bind(host: str, port: int, next_free: bool) -> socket.socket:
    """Return a bound socket; with ``next_free`` the next free port. Raises :class:`InputError` if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, port + (20 if next_free and port else 1)):
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, candidate))
            return bound
        except OSError as error:
            bound.close()
            reason = error
    raise InputError(f"Cannot listen on {host}:{port} ({reason.strerror}); choose another with --port")


@dataclass(frozen=True, slots=True)
class Serving:
    """How to serve. ``person`` is whom the first line signs in, to see ``path``; see :func:`bind` for ``next_free``.

    ``allow_host`` are names to answer to besides ``host``; with ``tls``, cookies are sent over https only.
    """

    host: str
    port: int
    threads: int = 8
    allow_host: tuple[str, ...] = ()
    no_worker: bool = False
    tls: bool = False
    person: int | None = None
    path: str = "/"
    next_free: bool = False


def run_server(instance: Instance, how: Serving) -> None:
    """Serve until SIGINT or SIGTERM. Prints one line with the address, and a one-time sign-in where one is due.

    Raises :class:`InputError` for an address beyond this machine while nobody has an account.
    """
    _set_up_logging()
    person = _to_sign_in(instance, how)
    app = _app(instance, how)
    bound = bind(how.host, how.port, how.next_free)
    server = HttpServer(app, bound, how.threads, app.config.get("LABELER_MAX_UPLOAD", 2 * 1024**3))
    ended = end_signal()
    worker = None if how.no_worker or instance.read_only else _worker(instance)
    for disabled in instance.plugins.disabled:
        click.echo(f"Plugin {disabled.name} is disabled: {disabled.reason}", err=True)
    click.echo(_ready(instance, f"http://{_shown(how.host)}:{bound.getsockname()[1]}", person, how.path))
    server.serve_until(ended)
    if worker is not None:
        worker.stop()
    click.echo("Labeler has ended.")


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("waitress", "faiss", "openai", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _to_sign_in(instance: Instance, how: Serving) -> int | None:
    """Return whom the first line signs in: the person given, or the first admin as long as nobody has a password.

    Raises :class:`InputError` for an address beyond this machine while nobody has an account.
    """
    new = instance.store.people.count() == 0
    if new and how.host not in LOOPBACK:
        raise InputError(
            f"Refusing to listen on {how.host} while nobody has an account; run 'labeler user add NAME --admin' first"
        )
    if instance.read_only:
        return how.person
    if new:
        return first_account(instance.store, "admin")
    # The first link may never have been used: as long as nobody has a password, each start gives a new one.
    return instance.store.people.without_password() if how.person is None else how.person


def _app(instance: Instance, how: Serving) -> Flask:
    from labeler.app import create_app

    any_host = how.host in WILDCARDS and not how.allow_host
    hosts = () if any_host else (*LOOPBACK, how.host, *how.allow_host)
    return create_app(instance, {"LABELER_HOSTS": hosts, "SESSION_COOKIE_SECURE": how.tls})


def _worker(instance: Instance) -> Worker:
    from labeler.worker import Worker

    worker = Worker(instance)
    worker.start()
    return worker


def _shown(host: str) -> str:
    """Return the host as an address names it."""
    if ":" in host:
        return f"[{host}]"
    return "127.0.0.1" if host in WILDCARDS else host


def _ready(instance: Instance, address: str, person: int | None, path: str) -> str:
    """Return the line that says where the page is; it signs ``person`` in once."""
    if person is None:
        return f"Labeler is ready at {address}"
    token = accounts.one_time_link(instance.store, person)
    return f"Labeler is ready. Sign in once with: {address}/welcome?token={token}&next={path}"
