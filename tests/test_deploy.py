"""docs/deploy.md does what it says: its blocks are run as they stand, with other paths, names and ports."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PASSWORD
from helpers import ROOT, serving
from test_nginx import NGINX, Browser, free_port, instance_with_people, nginx

from labeler.store import Store

GUIDE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def command_of_the_unit() -> list[str]:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block("ini"))
    return shlex.split(unit["Service"]["ExecStart"])


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_unit_and_nginx_block_serve_people_and_take_an_upload(tmp_path: Path) -> None:
    """The unit's command behind the guide's server block: sign in over TLS, send a file of 5 MB, end on SIGTERM."""
    instance_with_people(tmp_path)
    port, to = free_port(), free_port()
    program, serve, *options = command_of_the_unit()
    assert (program, serve) == ("/opt/labeler/bin/labeler", "serve")
    words = [
        word.replace("/var/lib/labeler", str(tmp_path / "instance")).replace("label.example.com", f"localhost:{port}")
        for word in options
    ]
    location = re.search(r"    location / \{\n.*?\n    \}", block("nginx"), re.DOTALL)
    assert location
    inner = location[0].replace("127.0.0.1:8765", f"127.0.0.1:{to}")
    home = f"https://localhost:{port}"
    with serving(tmp_path, "serve", *words, "--port", str(to)) as server, nginx(tmp_path, port, inner):
        assert home in server.ready
        browser = Browser(home, tmp_path / "cert.pem")
        assert browser.open(f"{home}/sign-in") == 200
        assert browser.submit("/sign-in", name="admin", password=PASSWORD) == 200
        assert browser.open(f"{home}/projects/1/import") == 200
        token = re.search(r'name="csrf-token" content="([^"]+)"', browser.page)
        assert token
        rows = b"text\n" + b"a review that is good\n" * 230_000
        form = b"".join([
            b'--b\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n', token[1].encode(),
            b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n', rows, b"\r\n--b--\r\n",
        ])  # fmt: skip
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        assert browser.open(f"{home}/projects/1/import", form, **kind) == 200
        assert browser.at.endswith("/preview")
        stranger = Browser(home, tmp_path / "cert.pem")
        stranger.at = home
        assert stranger.open(f"{home}/projects/1/import", form, **kind) in (0, 401, 413)
        assert server.end()[0] == 0


def test_line_of_cron_writes_a_backup_and_deletes_old_ones(tmp_path: Path) -> None:
    """The guide's line, run as cron runs it, leaves a whole database under the day's name and takes a stale copy."""
    instance_with_people(tmp_path)
    copies = tmp_path / "copies"
    copies.mkdir()
    stale = copies / "2020-01-01.db"
    stale.write_text("old")
    os.utime(stale, (0, 0))
    *_, user, command = block("text").strip().split(None, 6)
    assert user == "labeler"
    program = tmp_path / "labeler"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from labeler.cli import main; main()" "$@"\n')
    program.chmod(0o755)
    for there, here in (
        ("/opt/labeler/bin/labeler", program), ("/var/lib/labeler", tmp_path / "instance"),
        ("/var/backups/labeler", copies),
    ):  # fmt: skip
        command = command.replace(there, str(here))
    # cron gives the shell what stands before a bare %, and takes the backslash away from the others.
    subprocess.run(["/bin/sh", "-c", command.replace("\\%", "%")], check=True, timeout=120, cwd=ROOT)
    (copy,) = copies.iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.db", copy.name)
    with Store(copy, read_only=True) as store:
        assert store.people.named("admin") is not None
