"""Where the page is reached: its public address, and who asks when a reverse proxy stands in between.

With a public address everything that a page says of its own address follows from it, whatever the proxy passes on:
links, redirects, cookies, the origin of forms, static files. A proxy may leave the prefix of the address in the path
or take it away. Who asks is read from ``X-Forwarded-For`` where a proxy that is trusted says so, and nowhere else.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from labeler.errors import InputError

Environ: TypeAlias = dict[str, Any]
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Ip: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128")
NAMED = "labeler.named"
"""The key of an environ for the host that the request itself names, as it came."""
_PORTS = {"http": 80, "https": 443}
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
log = logging.getLogger("labeler.web")


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """An address as people open it: ``netloc`` has a port that is not the scheme's own, ``prefix`` is the path."""

    scheme: str
    host: str
    netloc: str
    prefix: str = ""

    @classmethod
    def read(cls, url: str) -> PublicUrl:
        """Read ``https://label.example.com/tools/labeler``. Raises :class:`InputError`."""
        wrong = InputError(
            f"--public-url is {url!r}; write the address as people open it, such as https://label.example.com or "
            "https://example.com:8443/tools/labeler"
        )
        try:
            parts = urlsplit(url.strip())
            host, port = _ascii(parts.hostname or ""), parts.port
        except ValueError:
            raise wrong from None
        prefix = parts.path.rstrip("/")
        extra = parts.query or parts.fragment or "@" in parts.netloc
        if parts.scheme not in _PORTS or not host or port == 0 or extra or not _PREFIX.fullmatch(prefix):
            raise wrong
        shown = f"[{host}]" if ":" in host else host
        plain = port is None or port == _PORTS[parts.scheme]
        return cls(parts.scheme, host, shown if plain else f"{shown}:{port}", prefix)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.prefix}"


def _ascii(host: str) -> str:
    """Return a host name as browsers send it: a Korean one in its form of ASCII letters. Raises :class:`ValueError`."""
    name = host if ":" in host else host.encode("idna").decode("ascii")
    if name and not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", name):
        raise ValueError(host)
    return name


def networks(proxies: Iterable[str]) -> list[Network]:
    """Read the addresses and networks of proxies. Raises :class:`InputError` for what is neither."""
    try:
        return [ipaddress.ip_network(proxy.strip(), strict=False) for proxy in proxies]
    except ValueError as error:
        raise InputError(
            f"--trusted-proxy: {error}; give the address of the proxy, or a network such as 10.0.0.0/8"
        ) from None


class Edge:
    """WSGI middleware that gives a request the public address, and the client's address where a proxy says it."""

    def __init__(self, app: Callable[..., Any], url: PublicUrl | None, proxies: Sequence[Network]) -> None:
        self.app, self.url, self.proxies = app, url, proxies
        self._warned = False

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        self.settle(environ)
        return self.app(environ, start_response)

    def settle(self, environ: Environ) -> None:
        """Put the addresses of a request right, in place."""
        environ[NAMED] = environ.get("HTTP_HOST") or environ["SERVER_NAME"]
        self._find_client(environ)
        if self.url is None:
            if not host_of(environ[NAMED]):
                # It is refused; the page that says so needs a host of its own to be made.
                environ["HTTP_HOST"] = "localhost"
            return
        environ["wsgi.url_scheme"] = self.url.scheme
        environ["HTTP_HOST"] = self.url.netloc
        environ["SCRIPT_NAME"] = self.url.prefix
        path = environ["PATH_INFO"]
        if path == self.url.prefix or path.startswith(f"{self.url.prefix}/"):
            environ["PATH_INFO"] = path[len(self.url.prefix) :] or "/"

    def _find_client(self, environ: Environ) -> None:
        if not self._trusts(_ip(environ.get("REMOTE_ADDR", ""))):
            return
        # Each proxy adds whom it was asked by at the end; the first one from there that is no proxy of ours is it.
        for hop in reversed(environ.get("HTTP_X_FORWARDED_FOR", "").split(",")):
            address = _ip(hop)
            if address is None:
                break
            environ["REMOTE_ADDR"] = str(address)
            if not self._trusts(address):
                return
        if environ["REQUEST_METHOD"] == "POST" and self.url and not environ.get("HTTP_X_FORWARDED_FOR"):
            self._warn(environ["REMOTE_ADDR"])

    def _trusts(self, address: _Ip | None) -> bool:
        return address is not None and any(address in network for network in self.proxies)

    def _warn(self, peer: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "The proxy at %s does not say who asks, so failed sign-ins of all people count as those of one; "
                "let it send X-Forwarded-For (nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for)",
                peer,
            )


def _ip(text: str) -> _Ip | None:
    """Return the address of one hop, which may have a port or quotes; None if it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def host_of(netloc: str) -> str:
    """Return the host of ``host:port`` in lower case; empty if it cannot be one."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "") if netloc.isascii() and len(netloc) < 300 else ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on ``host``."""
    address = _ip(f"[{host}]")
    return host.lower() in LOOPBACK or (address is not None and address.is_loopback)


@lru_cache(maxsize=256)
def is_own_address(host: str) -> bool:
    """Whether ``host`` is an IP address of this machine. No name can be made to look like one (DNS rebinding)."""
    address = _ip(f"[{host}]")
    if address is None or address.is_unspecified or address.is_multicast:
        return False
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family) as tried:
        try:
            tried.bind((str(address), 0))
        except OSError:
            return False
    return True
