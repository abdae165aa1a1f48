"""The HTTP client: one request, one reply, within a time and a size. Nothing is repeated, no redirect is followed.

The SDK makes the client, its headers, its proxies and its limits; the requests go to the client directly. What the
SDK does between (options, hooks, casting to models) costs more CPU than the rest of a call: 1.2 ms beside 0.75 ms.
"""

from __future__ import annotations

import functools
import importlib.metadata
import threading
import time
import weakref
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from labeler.backends.openai.limits import Headers
from labeler.backends.openai.settings import LOCAL_KEY, OPENAI_URL, refuse_metadata, wants_api_key_header
from labeler.errors import BackendError, SettingError

if TYPE_CHECKING:
    import ssl

    import httpx2

MAX_ANSWER = 10 * 1024 * 1024
# More than the 64 threads that may call at once, so that no call ever waits for a free connection.
MAX_CONNECTIONS = 128
_CONNECT = 10.0


class Reply(NamedTuple):
    """What a server sent: ``headers`` as (name, value), ``content`` as it was before any compression."""

    status: int
    headers: Headers
    content: bytes


class TooLong(Exception):
    """The body is longer than was allowed; the rest was not read."""


class TooSlow(Exception):
    """There was no whole answer in time."""


class NotConnected(Exception):
    """The connection broke while a request was on its way; ``str`` says why."""


class NotReached(NotConnected):
    """There was no connection, so nothing was sent."""


def _refuse_metadata(base_url: str) -> None:
    """Look at what the name stands for now: it may have meant another address when it was entered."""
    try:
        refuse_metadata(base_url)
    except SettingError as error:
        raise NotConnected(str(error)) from error


class Wire:
    """Threads share one: one pool of connections, opened at the first request.

    ``timeout`` is in seconds and covers a whole answer, however slowly it trickles in.
    """

    def __init__(self, base_url: str | None, api_key: str | None, timeout: float) -> None:
        self._base_url = base_url or OPENAI_URL
        self._key = api_key or LOCAL_KEY
        self._timeout = timeout
        self._lock = threading.Lock()
        self._line: _Line | None = None

    def post(self, path: str, data: bytes) -> Reply:
        """Send JSON to ``path`` below the base URL. Raises :class:`TooLong`, :class:`TooSlow` or
        :class:`NotConnected`."""
        line = self._connected()
        request = line.request("POST", path, data)
        return self._answer(line, request, self._timeout, MAX_ANSWER)

    def get(self, path: str, timeout: float, limit: int) -> Reply:
        """Fetch ``path``, at most ``limit`` bytes in ``timeout`` seconds; raises as :meth:`post`."""
        line = self._connected()
        return self._answer(line, line.request("GET", path, None), timeout, limit)

    def upload(self, path: str, name: str, data: bytes, fields: Mapping[str, str], timeout: float) -> Reply:
        """Post one file as a form with ``fields``; raises as :meth:`post`."""
        line = self._connected()
        return self._answer(line, line.form(path, name, data, fields), timeout, MAX_ANSWER)

    def answers(self, timeout: float) -> bool:
        """Whether a server is there at all, whatever it answers: asked for its models, which costs nothing."""
        try:
            self.get("/models", timeout, MAX_ANSWER)
        except NotReached:
            return False
        except (TooLong, TooSlow, NotConnected):
            return True
        return True

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.client.close()

    def _connected(self) -> _Line:
        line = self._line
        if line is None:
            with self._lock:
                if self._line is None:
                    _refuse_metadata(self._base_url)
                    self._line = _connect(self._base_url, self._key, self._timeout)
                    weakref.finalize(self, self._line.client.close)
                line = self._line
        return line

    def _answer(self, line: _Line, request: httpx2.Request, timeout: float, limit: int) -> Reply:
        import httpx2

        deadline = time.monotonic() + timeout
        times = {"connect": min(timeout, _CONNECT), "read": timeout, "write": timeout, "pool": timeout}
        request.extensions = {"timeout": times}
        try:
            response = line.client.send(request, stream=True)
            with closing(response):
                # The read time-out starts again with every byte: what is left of the time is for the whole body.
                times["read"] = max(deadline - time.monotonic(), 0.001)
                content = b"".join(_bounded(response, deadline, limit))
            return Reply(response.status_code, response.headers.raw, _unpacked(response, content, limit))
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise NotReached(str(error) or type(error).__name__) from error
        except httpx2.TimeoutException as error:
            raise TooSlow from error
        except (httpx2.HTTPError, httpx2.StreamError, OSError, RuntimeError) as error:
            # RuntimeError: another thread has closed the client meanwhile.
            raise NotConnected(str(error) or type(error).__name__) from error


class _Line(NamedTuple):
    """A client with all that stays the same from request to request."""

    client: httpx2.Client
    headers: httpx2.Headers
    url: httpx2.URL
    urls: dict[str, httpx2.URL]

    def request(self, method: str, path: str, data: bytes | None) -> httpx2.Request:
        import httpx2

        return httpx2.Request(method, self._at(path), headers=self.headers, content=data)

    def form(self, path: str, name: str, data: bytes, fields: Mapping[str, str]) -> httpx2.Request:
        import httpx2

        headers = self.headers.copy()
        # The form names its own boundary.
        del headers["Content-Type"]
        files = {"file": (name, data, "application/jsonl")}
        return httpx2.Request("POST", self._at(path), headers=headers, data=fields, files=files)

    def _at(self, path: str) -> httpx2.URL:
        url = self.urls.get(path)
        if url is None:
            before, mark, query = self.url.raw_path.partition(b"?")
            url = self.url.copy_with(raw_path=before.rstrip(b"/") + path.encode() + mark + query)
            if len(self.urls) < 8:
                self.urls[path] = url
        return url


def _connect(base_url: str, api_key: str, timeout: float) -> _Line:
    """Return a line to the address. Raises :class:`BackendError` where the SDK is no longer made as this module thinks:
    that its client is one of httpx2, and that it shows the headers it would send."""
    try:
        return _made(base_url, api_key, timeout)
    except (AttributeError, TypeError) as error:
        version = importlib.metadata.version("openai")
        raise BackendError(
            "The package openai %(version)s does not work as Labeler needs it (%(reason)s); install the"
            " versions of constraints.txt",
            version=version,
            reason=error,
        ) from error


def _made(base_url: str, api_key: str, timeout: float) -> _Line:
    # Both cost 0.8 s to import: no page and no command should wait for them before the first call.
    import httpx2
    import openai

    client = openai.DefaultHttpxClient(
        verify=_ssl_context(),
        timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT)),
        limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
        # The prompt and the key go to the address that was set up, and nowhere else.
        follow_redirects=False,
    )
    sdk = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0, http_client=client)
    # With the organisation and the project of the environment, as the SDK reads them.
    named: dict[str, Any] = {**sdk.default_headers, **sdk.auth_headers}
    # A compressed body could grow without limit after it was counted.
    named["Accept-Encoding"] = "identity"
    if wants_api_key_header(base_url):
        named.pop("Authorization", None)
        named["api-key"] = api_key
    # What the SDK says of this machine in its headers is nobody's business, and costs time on both sides.
    told = {name: value for name, value in named.items() if isinstance(value, str) and "Stainless" not in name}
    headers = httpx2.Headers(told)
    url = httpx2.URL(base_url)
    headers["Host"] = url.netloc.decode("ascii")
    return _Line(client, headers, url, {})


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    # Reading the certificates takes 40 ms; all backends of a process share them.
    import httpx2

    return httpx2.create_ssl_context()


def _bounded(response: httpx2.Response, deadline: float, limit: int) -> Iterator[bytes]:
    size = 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > limit:
            raise TooLong
        if time.monotonic() > deadline:
            raise TooSlow
        yield chunk


def _unpacked(response: httpx2.Response, content: bytes, limit: int) -> bytes:
    """Return the body of a server that compresses although it was asked not to; never more than ``limit``."""
    packed = next((value for name, value in response.headers.raw if name.lower() == b"content-encoding"), b"")
    if packed.lower() not in (b"gzip", b"x-gzip", b"deflate"):
        return content
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        unpacked = stream.decompress(content, limit)
    except zlib.error:
        return content
    if stream.unconsumed_tail:
        raise TooLong
    return unpacked
