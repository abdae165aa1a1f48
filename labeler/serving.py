"""Running the server: the socket, the worker beside it, the sign-in line, and a clean end."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from labeler import accounts
from labeler.errors import InputError
from labeler.instance import Instance
from labeler.store import Store
from labeler.waitress_loop import Ended, HttpServer
from labeler.web.address import LOOPBACK_NETWORKS, PublicUrl, is_loopback, networks
from labeler.worker import Worker

if TYPE_CHECKING:
    from flask import Flask


# In seconds: how often the folder of plugins is looked at.
_LOOK_EVERY = 0.5
WILDCARDS = ("0.0.0.0", "::", "")


def first_account(store: Store, name: str) -> int:
    """Return the account of that name, made as an admin without a password if it is not there."""
    person = store.people.named(name)
    return int(person["id"]) if person is not None else accounts.add_reviewer(store, name, None, accounts.ADMIN)


def end_signal() -> Ended:
    """Return what SIGINT and SIGTERM set. To be called before saying that anything is ready."""
    ended = Ended()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    return ended


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

    ``public_url`` is the address that people open, if it is another; ``trusted_proxy`` are the addresses or networks of
    proxies that say who asks. With a public address that is a proxy on this machine, unless another is named.
    ``reload_plugins`` ends the server when a file in the folder of plugins changes, to be started again.
    """

    host: str
    port: int
    threads: int = 8
    public_url: str | None = None
    trusted_proxy: tuple[str, ...] = ()
    no_worker: bool = False
    person: int | None = None
    path: str = "/"
    next_free: bool = False
    reload_plugins: bool = False


def run_server(instance: Instance, how: Serving) -> bool:
    """Serve until SIGINT or SIGTERM; return whether it ended because plugins changed.

    Prints one line with the address, and a one-time sign-in where one is due.
    Raises :class:`InputError` for an address beyond this machine while nobody has an account.
    """
    from labeler.web.access import body_limit

    _set_up_logging()
    folder = instance.folder / "plugins"
    # Before they are loaded: what changes from then on is not what runs.
    before = _files(folder)
    refuse_strangers(how.host, instance.store.people.count() > 0)
    app = _app(instance, how)
    person = _to_sign_in(instance, how)
    bound = bind(how.host, how.port, how.next_free)
    small = app.config["MAX_CONTENT_LENGTH"]
    server = HttpServer(app, bound, how.threads, small, partial(body_limit, app))
    ended = end_signal()
    worker = None if how.no_worker or instance.read_only else _worker(instance)
    for disabled in instance.plugins.disabled:
        click.echo(f"Plugin {disabled.name} is disabled: {disabled.said}", err=True)
    here = f"http://{_shown(how.host)}:{bound.getsockname()[1]}"
    click.echo(_ready(instance, str(app.config["LABELER_PUBLIC_URL"] or here), person, how.path))
    changed = threading.Event()
    if how.reload_plugins:
        threading.Thread(target=_watch, args=(folder, before, ended, changed), daemon=True).start()
    server.serve_until(ended)
    if worker is not None:
        worker.stop()
    click.echo("Plugins have changed; starting again." if changed.is_set() else "Labeler has ended.")
    return changed.is_set()


def _watch(folder: Path, before: dict[str, int], ended: Ended, changed: threading.Event) -> None:
    """End the server once a file in ``folder`` is changed, new or gone."""
    while _files(folder) == before:
        time.sleep(_LOOK_EVERY)
    changed.set()
    ended.set()


def _files(folder: Path) -> dict[str, int]:
    """Return when each file of plugins was changed, guidelines and widgets too, in nanoseconds."""
    found = {}
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.suffix in (".py", ".md", ".html", ".js"):
            # A file may be gone between the two looks at it.
            with contextlib.suppress(OSError):
                found[str(path)] = path.stat().st_mtime_ns
    return found


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("waitress", "faiss", "openai", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def refuse_strangers(host: str, people: bool) -> None:
    """Raise :class:`InputError` for an address beyond this machine while there are no ``people`` with an account."""
    if not people and not is_loopback(host):
        raise InputError(
            f"Refusing to listen on {host} while nobody has an account; run 'labeler user add NAME --admin' first"
        )


def _to_sign_in(instance: Instance, how: Serving) -> int | None:
    """Return whom the first line signs in: the person given, or the first admin as long as nobody has a password."""
    if instance.read_only:
        return None
    if instance.store.people.count() == 0:
        return first_account(instance.store, "admin")
    # The first link may never have been used: as long as nobody has a password, each start gives a new one.
    return instance.store.people.without_password() if how.person is None else how.person


def _app(instance: Instance, how: Serving) -> Flask:
    from labeler.app import create_app

    url = PublicUrl.read(how.public_url) if how.public_url else None
    proxies = networks(how.trusted_proxy or (LOOPBACK_NETWORKS if url else ()))
    return create_app(
        instance, {"LABELER_PUBLIC_URL": url, "LABELER_HOSTS": (how.host.lower(),), "LABELER_PROXIES": proxies}
    )


def _worker(instance: Instance) -> Worker:
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
    return f"Labeler is ready. Sign in once with: {address}/welcome?token={token}&next={urlsplit(address).path}{path}"
