"""The edge of the server: many connections, slow and large requests, foreign names, clients behind a proxy."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSWORD, enter
from flask import Flask, request
from helpers import process, serving
from werkzeug.test import create_environ, run_wsgi_app

from labeler import accounts, connections, waitress_loop
from labeler.app import create_app
from labeler.errors import InputError
from labeler.instance import Instance
from labeler.store import Store
from labeler.waitress_loop import Ended, HttpServer
from labeler.web.access import body_limit
from labeler.web.address import PublicUrl, is_own_address, networks

HEAD = "GET /sign-in HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Running:
    """A server of an app in a thread of this process, on a port of its own."""

    def __init__(self, app: Flask, threads: int = 4) -> None:
        import threading

        self.bound = socket.socket()
        self.bound.bind(("127.0.0.1", 0))
        self.port = self.bound.getsockname()[1]
        self.ended = Ended()
        server = HttpServer(app, self.bound, threads, app.config["MAX_CONTENT_LENGTH"], partial(body_limit, app))
        self.thread = threading.Thread(target=server.serve_until, args=(self.ended,))
        self.thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def send(self, request: str | bytes, body: bytes = b"") -> tuple[int, str]:
        """Send bytes as they are and return the status and all of the answer."""
        with self.connect() as connection:
            connection.sendall(request if isinstance(request, bytes) else request.encode())
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(body)
            answer = connection.makefile("rb").read().decode()
        return int(answer.split()[1]), answer


@pytest.fixture
def running(app: Flask) -> Iterator[Running]:
    server = Running(app)
    yield server
    server.ended.set()
    server.thread.join(30)
    assert not server.thread.is_alive()


# Connections


def test_page_answers_beside_eleven_hundred_idle_connections(tmp_path: Path) -> None:
    """FAULTS 44: with 1,100 connections that send nothing, pages are served, and the server ends cleanly."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this system allows too few open files for the test itself")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    idle: list[socket.socket] = []
    try:
        with serving(tmp_path) as server:
            port = int(server.address.rsplit(":", 1)[1])
            for _ in range(1100):
                idle.append(socket.create_connection(("127.0.0.1", port), timeout=30))
            assert server.get("/sign-in")[0] == 200
            handles = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
            assert handles < waitress_loop.MOST_CONNECTIONS + 150
            assert server.end()[0] == 0
            log = server.log.read_text()
            assert "Traceback" not in log and "Too many open files" not in log
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_new_connection_takes_the_place_of_the_one_that_waited_longest(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all places are taken by those that send nothing, the oldest of them is closed, not the newest refused."""
    monkeypatch.setattr(waitress_loop, "MOST_CONNECTIONS", 12)
    server = Running(app)
    try:
        idle = [server.connect() for _ in range(12)]
        half = server.connect()
        half.sendall(b"GET /sign-in HT")
        assert server.send(HEAD)[0] == 200
        half.sendall(HEAD.removeprefix("GET /sign-in HT").encode())
        assert half.recv(20).startswith(b"HTTP/1.1 200")
        assert idle[0].recv(10) == b""
        for connection in [*idle, half]:
            connection.close()
    finally:
        server.ended.set()
        server.thread.join(30)


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(b"GET /sign-in HTTP/1.1\r\nX-A: ", id="head"),
        pytest.param(b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\nx", id="body"),
        pytest.param(
            b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nx", id="chunks"
        ),
    ],
)
def test_request_that_trickles_is_given_up(running: Running, monkeypatch: pytest.MonkeyPatch, slow: bytes) -> None:
    """FAULTS 44: a head or a body that comes a byte at a time gets 408; the count is from its beginning."""
    monkeypatch.setattr(connections, "PATIENCE", 1.0)
    with running.connect() as connection:
        connection.sendall(slow)
        connection.settimeout(0.2)
        answer, deadline = b"", time.monotonic() + 30
        while not answer and time.monotonic() < deadline:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(100)
        assert answer.startswith((b"HTTP/1.0 408", b"HTTP/1.1 408"))


def test_slow_upload_that_goes_on_is_not_given_up(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come buys time for the rest: a large body over a slow line arrives."""
    monkeypatch.setattr(connections, "PATIENCE", 0.5)
    with running.connect() as connection:
        head = "POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 160000\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(16):
            connection.sendall(b"x" * 10_000)
            time.sleep(0.3)
        assert connection.recv(100).startswith(b"HTTP/1.1 403")


def test_too_few_open_files_are_refused_at_the_start(tmp_path: Path) -> None:
    """Where the system allows hardly any handles the start says how many are needed, and how to allow them."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150)); {_MAIN}"
    out = subprocess.run(
        [sys.executable, "-c", code, "serve", "--port", "0", "--instance", str(tmp_path / "i")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert out.returncode == 1
    assert "The limit on open files is 150" in out.stderr and "ulimit -n" in out.stderr


_MAIN = "from labeler.cli import main; main()"


# Sizes


def in_temporary_files() -> int:
    """How many bytes this process holds in temporary files that have no name any more."""
    found = 0
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            name = str(handle.readlink())
            if name.startswith(tempfile.gettempdir()) and "(deleted)" in name:
                found += handle.stat().st_size
    return found


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/nothing", "/projects/1/import", "/sign-in", "/projects/new"])
def test_large_body_of_a_stranger_is_not_stored(running: Running, project: int, path: str, chunked: bool) -> None:
    """FAULTS 44: whoever is not signed in sends 2 MiB at most, wherever it goes; the rest is not written to disk."""
    size = 30_000_000
    with running.connect() as connection:
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n"
        connection.sendall(head.encode() + (f"{size:x}\r\n".encode() if chunked else b""))
        most = 0
        for _ in range(size // 1_000_000):
            try:
                connection.sendall(b"x" * 1_000_000)
            except OSError:
                break
            most = max(most, in_temporary_files())
        assert most < 4 * 1024 * 1024
        answer = connection.recv(100)
        assert answer.split()[1] in (b"401", b"404", b"413"), answer


def cookie_of(app: Flask, reviewer: int) -> str:
    client = app.test_client()
    enter(client, app, reviewer)
    cookie = client.get_cookie(app.config["SESSION_COOKIE_NAME"])
    assert cookie is not None
    return f"{cookie.key}={cookie.value}"


def test_large_body_is_taken_from_whom_may_upload_only(
    app: Flask, instance: Instance, project: int, people: dict[str, int]
) -> None:
    """An admin's file of 3 MB goes in; a reviewer's, or an admin's to any other address, is refused by its head."""
    app.config["WTF_CSRF_ENABLED"] = False
    server = Running(app)
    try:
        file = b"text\n" + b"a good review\n" * 220_000
        form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n' + file + b"\r\n--b--\r\n"

        def send(path: str, who: str) -> int:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie_of(app, people[who])}\r\n"
                f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(form)}\r\n"
                "Connection: close\r\n\r\n"
            )
            return server.send(head, form)[0]

        assert send(f"/projects/{project}/import", "admin") == 303
        assert send(f"/projects/{project}/import", "reviewer") == 403
        assert send(f"/projects/{project}/import", "stranger") == 404
        assert send("/language", "admin") == 413
        assert len(list((instance.folder / "uploads").rglob("*.csv"))) == 1
    finally:
        server.ended.set()
        server.thread.join(30)


def test_refusal_of_a_large_body_reaches_who_goes_on_sending(running: Running) -> None:
    """The answer is not lost with the bytes that were sent after it, and a program gets it as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    headers = {"Content-Type": "application/json", "Host": "localhost"}
    connection.request("POST", "/language", b" " * 20_000_000, headers)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Content-Type")) == (413, "application/json")
    assert json.loads(answer.read())["error"] == "This is too large to be sent here"
    connection.close()


def test_client_that_asks_first_is_told_before_it_sends(running: Running) -> None:
    """``Expect: 100-continue`` with a body that is too large gets 413, not 100."""
    head = "POST /language HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
    status, answer = running.send(head)
    assert status == 413
    assert "100 Continue" not in answer


# Names, origins, odd requests


@pytest.mark.parametrize("host", ["evil.example", "[", "[::1", "라벨.example", "localhost@x.example", "a" * 3000])
def test_only_own_names_are_answered_to_on_every_interface(
    instance: Instance, people: dict[str, int], host: str
) -> None:
    """FAULTS 43: listening on all interfaces is no reason to answer to every name."""
    app = create_app(instance, {"LABELER_HOSTS": ("0.0.0.0",), "TESTING": True})
    # Not by the test client: it reads the host itself, for its cookies, and an older one fails at that.
    _, status, _ = run_wsgi_app(app, create_environ("/sign-in") | {"HTTP_HOST": host})
    assert status.startswith("400")


def test_ip_addresses_of_this_machine_are_answered_to(app: Flask) -> None:
    """An address in numbers is answered to where it is this machine's: no name can be made to look like it."""
    client = app.test_client()
    assert client.get("/sign-in", headers={"Host": "127.0.0.2:8765"}).status_code == 200
    assert client.get("/sign-in", headers={"Host": "8.8.8.8"}).status_code == 400
    assert not is_own_address("224.0.0.1") and not is_own_address("0.0.0.0") and not is_own_address("999.1.1.1")


ODD = [
    "http://[",
    "http://[::1",
    "null",
    "",
    "\xff\xfe",
    "a" * 9000,
    "javascript:x",
    "//x",
    "[",
    "%00",
    "http://x:99999999",
]


HEADERS = ("Origin", "Referer", "Host", "Cookie", "Accept", "Accept-Language", "X-Forwarded-For", "X-Forwarded-Host",
           "Content-Type", "HX-Request", "Range", "If-Modified-Since")  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_odd_header_is_never_an_error_of_ours(running: Running, header: str) -> None:
    """Whatever a header holds, the answer is below 500 and no trace is logged, before anybody signed in."""
    for value in ODD:
        lines = {"Host": "localhost"} | {header: value}
        head = "".join(f"{name}: {one}\r\n" for name, one in lines.items())
        for method in ("GET", "POST"):
            asked = f"{method} /sign-in HTTP/1.1\r\n{head}Content-Length: 0\r\nConnection: close\r\n\r\n"
            assert running.send(asked.encode("latin-1"))[0] < 500, (header, value)


@pytest.mark.parametrize(
    "target", ["http://[", "//[", "http://[::1/", "/%00", "/" + "a" * 3000, "/\xff", "*", "/sign-in?next=http://["]
)
def test_odd_address_is_never_an_error_of_ours(running: Running, caplog: pytest.LogCaptureFixture, target: str) -> None:
    """Whatever stands in the request line, the answer is below 500 and no trace is logged."""
    asked = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert running.send(asked.encode("latin-1"))[0] < 500
    assert "Traceback" not in caplog.text


def test_view_of_a_plugin_with_a_project_that_is_no_number_is_not_found(app: Flask, people: dict[str, int]) -> None:
    """A plugin may write <project_id> without int; a word there is no project."""
    app.add_url_rule("/x/<project_id>", "x", lambda project_id: "found")
    client = app.test_client()
    enter(client, app, people["admin"])
    for word in ("abc", "-1", "1.5", "٣٤", "9" * 30):
        assert client.get(f"/x/{word}").status_code == 404, word


def test_demo_refuses_to_listen_beyond_this_machine(tmp_path: Path) -> None:
    """FAULTS 40: the demonstration's own account has no password, at the first start and at the second."""
    for _ in range(2):
        with process(tmp_path, "demo", "--host", "0.0.0.0", "--port", "0") as started:
            out, _ = started.communicate(timeout=60)
            assert (started.returncode, out) == (1, "")
        assert "Refusing to listen on 0.0.0.0" in (tmp_path / "server.log").read_text()
        with Store(tmp_path / "instance" / "labeler.db") as store:
            if store.people.named("demo") is None:
                accounts.add_reviewer(store, "demo", None, accounts.ADMIN)


# Behind a proxy


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("https://label.example.com", ("https", "label.example.com", "")),
        ("https://Label.Example.com:443/", ("https", "label.example.com", "")),
        ("http://box:8080/tools/labeler/", ("http", "box:8080", "/tools/labeler")),
        ("https://라벨.example.com", ("https", "xn--oi2b31h.example.com", "")),
        ("http://[::1]:81/a", ("http", "[::1]:81", "/a")),
    ],
)
def test_public_address_is_read_as_people_write_it(url: str, read: tuple[str, str, str]) -> None:
    """Scheme, host with its port, and prefix, in the form that browsers send."""
    found = PublicUrl.read(url)
    assert (found.scheme, found.netloc, found.prefix) == read


@pytest.mark.parametrize(
    "url", ["label.example.com", "ftp://x", "https://", "https://a@b", "https://x?y", "https://x/../y", "https://x:0",
            "https://x:99999", "https://[", "https://x/a b", "https://x//y"],
)  # fmt: skip
def test_what_is_no_public_address_is_refused(url: str) -> None:
    """One sentence with an example, before anything is served."""
    with pytest.raises(InputError, match=r"--public-url is .*https://label.example.com"):
        PublicUrl.read(url)


def test_prefix_that_pages_begin_with_is_refused(instance: Instance) -> None:
    """Whether a proxy took away /projects could not be told from an address of ours."""
    with pytest.raises(InputError, match="/projects"):
        create_app(instance, {"LABELER_PUBLIC_URL": PublicUrl.read("https://x/projects")})


def behind(instance: Instance, *proxies: str, url: str = "https://label.example.com") -> Any:
    settings = {"LABELER_PUBLIC_URL": PublicUrl.read(url), "LABELER_PROXIES": networks(proxies), "TESTING": True}
    app = create_app(instance, settings)
    app.add_url_rule("/who", "who", lambda: request.remote_addr)
    app.view_functions["who"].access = "public"  # type: ignore[attr-defined]
    return app.test_client()


@pytest.mark.parametrize(
    ("peer", "said", "who"),
    [
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("127.0.0.1", "203.0.113.7:5123", "203.0.113.7"),
        ("127.0.0.1", '"[2001:db8::1]:5123"', "2001:db8::1"),
        ("::ffff:127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("198.51.100.1", "203.0.113.7", "198.51.100.1"),
    ],
)
def test_client_is_who_a_trusted_proxy_says(
    instance: Instance, people: dict[str, int], peer: str, said: str, who: str
) -> None:
    """The last address that is no proxy of ours counts; what a client writes itself does not."""
    client = behind(instance, "127.0.0.1", "10.0.0.0/8")
    answer = client.get("/who", headers={"X-Forwarded-For": said}, environ_base={"REMOTE_ADDR": peer})
    assert answer.text == who


def test_two_clients_behind_one_proxy_are_throttled_apart(instance: Instance, people: dict[str, int]) -> None:
    """Failed sign-ins of one client do not keep another out, though both come through the proxy."""
    import re

    client = behind(instance, "127.0.0.1")

    def sign_in(who: str, name: str, password: str) -> int:
        page = client.get("/sign-in").text
        token = re.search(r'name="csrf-token" content="([^"]+)"', page)
        assert token
        form = {"csrf_token": token[1], "name": name, "password": password}
        headers = {"X-Forwarded-For": who, "Referer": "https://label.example.com/sign-in"}
        return int(client.post("/sign-in", data=form, headers=headers, base_url="https://localhost").status_code)

    statuses = [sign_in("203.0.113.66", f"nobody {n}", "wrong") for n in range(22)]
    assert (statuses[0], statuses[-1]) == (401, 429)
    assert sign_in("203.0.113.5", "admin", PASSWORD) == 303


def test_silent_proxy_is_named_in_the_log(
    instance: Instance, people: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy that does not say who asks makes all people one: the log says so once, with what to set."""
    client = behind(instance, "127.0.0.1")
    for _ in range(3):
        client.post("/language")
    assert caplog.text.count("proxy_set_header X-Forwarded-For") == 1


def test_two_instances_on_one_host_do_not_sign_each_other_out(tmp_path: Path) -> None:
    """Cookies know no port: each instance has a name of its own for its cookie, the same at each start."""
    names = []
    for folder in ("a", "b", "a"):
        with Instance(tmp_path / folder) as instance:
            names.append(create_app(instance).config["SESSION_COOKIE_NAME"])
    assert names[0] == names[2] != names[1]
