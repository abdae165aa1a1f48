"""The tutorial is true in both languages: its commands run in order, and what comes out is what the page says.

Its installation is left to test_wheel.py; the person at the desk asks the server as the page's script does.
"""

from __future__ import annotations

import contextlib
import html
import itertools
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from babel.messages.pofile import read_po
from helpers import ROOT, Server, serving
from test_readme import Terminal, steps

from labeler.store import Store

PAGES = ("tutorial.ko.md", "tutorial.md")
AHEAD = 2  # Records that lie ready beside the one that is shown.
_keys = (f"tutorial-{n:06d}" for n in itertools.count())


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def parts(text: str) -> list[tuple[str, str]]:
    """Return each command with what the page says comes out, and ("approve", how many) where a person labels."""
    found = []
    for block, count in re.findall(r"```console\n(.*?)```|<!-- approve (\d+) -->", text, re.DOTALL):
        found += [("approve", count)] if count else steps(block)
    return found


def transcript(steps: list[tuple[str, str]]) -> str:
    return "".join(f"$ {command}\n{said}" for command, said in steps)


class Desk:
    """A person at the desk: signs in by the one-time link, reads the stars of a review and approves by them."""

    def __init__(self, server: Server, folder: Path) -> None:
        link = server.ready.split()[-1]
        self.browser = httpx2.Client(
            base_url=server.address, trust_env=False, follow_redirects=True, headers={"Origin": server.address}
        )
        self.token, self.database, self.held = "", folder / "instance" / "labeler.db", list[Any]()
        self._read(self.browser.get(link))
        secret = link.partition("token=")[2].partition("&")[0]
        signed = self.browser.post("/welcome", data={"csrf_token": self.token, "token": secret})
        assert signed.url.path == "/account", signed.text
        self._read(signed)

    def close(self) -> None:
        self.browser.close()

    def approve(self, count: int) -> None:
        for _ in range(count):
            self._fill()
            record = self.held.pop(0)
            body = {name: record[name] for name in ("record_id", "version", "suggestion_id", "blind")}
            self._post("decide", **body, action="approve", value=self._label(record), request_key=next(_keys))
        self._fill()

    def _fill(self) -> None:
        while len(self.held) <= AHEAD:
            self.held.append(self._post("next", have=[one["record_id"] for one in self.held], page="tutorial"))

    def _label(self, record: Any) -> str:
        with Store(self.database, read_only=True) as store:
            stars = next(int(v) for v in store.records.get(record["record_id"]).metadata.values() if str(v) in "12345")
        return "negative" if stars < 3 else "neutral" if stars == 3 else "positive"

    def _post(self, name: str, **body: Any) -> Any:
        path = f"/projects/1/label/sentiment/api/{name}"
        answer = self.browser.post(path, json=body, headers={"X-CSRFToken": self.token})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _read(self, answer: httpx2.Response) -> None:
        found = re.search(r'name="csrf-token" content="([^"]+)"', answer.text)
        assert found, answer.text
        self.token = html.unescape(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_the_tutorial_say_what_it_says(tmp_path: Path, name: str) -> None:
    """From the sample to the export, letter by letter but for the secret of the link, the port and bars of progress."""
    terminal, wanted, told, desk = Terminal(tmp_path), parts(page(name)), [], None
    with contextlib.ExitStack() as open_till_the_end:
        for command, said in wanted:
            if command == "approve":
                assert desk is not None
                desk.approve(int(said))
            elif command == "labeler serve":
                server = open_till_the_end.enter_context(serving(terminal.folder, "serve"))
                desk = open_till_the_end.enter_context(contextlib.closing(Desk(server, terminal.folder)))
                said = terminal.as_written(server.ready)
            else:
                said = terminal.run(command, interrupted=False)
            told.append((command, said))
    assert transcript(told) == transcript(wanted)


@pytest.mark.parametrize("name", PAGES)
def test_what_the_tutorial_says_to_press_stands_on_the_page(name: str) -> None:
    """Words in bold are those of buttons and links, in the language of the page."""
    with (ROOT / "labeler/translations/ko/LC_MESSAGES/messages.po").open("rb") as file:
        catalogue = read_po(file)
    known = {one.string if ".ko." in name else one.id for one in catalogue}
    pressed = {" ".join(words.split()) for words in re.findall(r"\*\*(.+?)\*\*", page(name), re.DOTALL)}
    assert len(pressed) > 4 and pressed <= known
