"""Behind a real nginx with TLS: on another port, under a path, with the Host header that nginx sends by default."""

from __future__ import annotations

import contextlib
import html
import http.cookiejar
import re
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PASSWORD
from helpers import serving, until

from labeler import accounts
from labeler.instance import Instance

NGINX = shutil.which("nginx") or next((path for path in ("/usr/sbin/nginx",) if Path(path).exists()), None)
pytestmark = pytest.mark.skipif(
    NGINX is None or not shutil.which("openssl"), reason="nginx or openssl is not installed"
)

CONF = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl;
    server_name localhost;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
{block}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextlib.contextmanager
def nginx(folder: Path, port: int, block: str) -> Iterator[None]:
    (folder / "nginx.conf").write_text(CONF.format(folder=folder, port=port, block=block))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    started = subprocess.Popen([str(NGINX), "-c", str(folder / "nginx.conf"), "-p", str(folder)], stderr=-1)
    try:
        until(lambda: answers(port) or started.poll() is not None)
        assert started.poll() is None, started.stderr and started.stderr.read().decode()
        yield
    finally:
        started.terminate()
        started.communicate(timeout=30)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


class Browser:
    """Keeps cookies as browsers do, follows redirects, sends Origin, and trusts one certificate."""

    def __init__(self, home: str, certificate: Path) -> None:
        self.home, self.cookies = home, http.cookiejar.CookieJar()
        trusted = ssl.create_default_context(cafile=str(certificate))
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted),
            urllib.request.HTTPCookieProcessor(self.cookies),
        )  # fmt: skip
        self.at, self.page, self.status, self.headers = "", "", 0, None

    def open(self, address: str, data: bytes | None = None, **headers: str) -> int:
        address = urllib.parse.urljoin(self.at or self.home, address)
        asked = urllib.request.Request(address, data, headers)
        if data is not None:
            parts = urllib.parse.urlsplit(self.at)
            asked.add_header("Origin", f"{parts.scheme}://{parts.netloc}")
        try:
            with self.opener.open(asked, timeout=60) as answer:
                self.at, self.page = answer.url, answer.read().decode()
                self.status, self.headers = answer.status, answer.headers
        except urllib.error.HTTPError as error:
            with error:
                self.page, self.status = error.read().decode(), error.code
        return self.status

    def submit(self, action: str, **fields: str) -> int:
        """Send a form of the page, to an address that must stand in it."""
        assert f'action="{html.escape(action)}"' in self.page, self.page
        token = re.search(r'name="csrf-token" content="([^"]+)"', self.page)
        assert token
        return self.open(action, urllib.parse.urlencode({"csrf_token": html.unescape(token[1]), **fields}).encode())

    def everything_linked(self) -> list[str]:
        """The addresses of styles, scripts, forms and links of the page, as a browser would ask for them."""
        found = re.findall(r'(?:href|src|action)="([^"#]+)"', self.page)
        return [urllib.parse.urljoin(self.at, html.unescape(one)) for one in found if not one.startswith("data:")]


def instance_with_people(folder: Path) -> None:
    with Instance(folder / "instance") as instance:
        admin = accounts.add_reviewer(instance.store, "admin", PASSWORD, accounts.ADMIN)
        instance.create_project("reviews", "en", {"tasks": ["sentiment"]}, admin)


TO = "proxy_pass http://127.0.0.1:{to}"
BLOCKS = {
    "at the root": ("", f"location / {{{{ {TO}; }}}}"),
    "under a path that is kept": ("/tools/labeler", f"location /tools/labeler/ {{{{ {TO}; }}}}"),
    "under a path that is taken away": ("/tools/labeler", f"location /tools/labeler/ {{{{ {TO}/; }}}}"),
    "with the host without its port": ("/l", f"location /l/ {{{{ {TO}; proxy_set_header Host $host; }}}}"),
    "with the host": ("/l", f"location /l/ {{{{ {TO}; proxy_set_header Host $http_host; }}}}"),
}


@pytest.mark.parametrize("how", BLOCKS)
def test_people_work_behind_nginx_with_tls(tmp_path: Path, how: str) -> None:
    """Signing in, links, forms, cookies and static files follow --public-url, however nginx passes requests on."""
    instance_with_people(tmp_path)
    prefix, block = BLOCKS[how]
    port, to = free_port(), free_port()
    home = f"https://localhost:{port}{prefix}"
    with serving(tmp_path, "serve", "--no-worker", "--public-url", home, "--port", str(to)) as server:
        assert server.ready == f"Labeler is ready at {home}\n"
        with nginx(tmp_path, port, block.format(to=to)):
            browser = Browser(home, tmp_path / "cert.pem")
            assert browser.open(f"{home}/people") == 200
            assert browser.at.startswith(f"{home}/sign-in?next=")
            assert browser.submit(f"{prefix}/sign-in", name="admin", password=PASSWORD, next=f"{prefix}/people") == 200
            assert browser.at == f"{home}/people"
            (cookie,) = browser.cookies
            assert (cookie.secure, cookie.path) == (True, prefix or "/")
            assert browser.headers is not None and browser.headers["Strict-Transport-Security"] == "max-age=31536000"
            assert browser.submit(f"{prefix}/people/accounts", name="kim", role="reviewer") == 200
            assert re.search(rf"{re.escape(home)}/welcome\?token=[\w-]+", browser.page)
            assert browser.submit(f"{prefix}/language", language="en", next=f"{prefix}/projects/1") == 200
            assert browser.at == f"{home}/projects/1"
            linked = browser.everything_linked()
            assert len(linked) > 10 and all(one.startswith(f"{home}/") for one in linked), linked
            assert all(browser.open(one) == 200 for one in linked if "/static/" in one)
        assert server.end()[0] == 0
