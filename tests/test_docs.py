"""The documents as a site: a link that leads nowhere fails, what is printed in Python runs, and Korean can be found."""

from __future__ import annotations

import doctest
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import click
import pytest
from browsers import CHROMIUM, opened_browser
from helpers import ROOT

import labeler
import labeler.testing
from labeler.cli import cli
from labeler.labels import KINDS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PUBLIC = {name: getattr(module, name) for module in (labeler, labeler.testing) for name in module.__all__}


def built(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout as ``make docs`` does."""
    options = ["--fail-on-warning", "--quiet", "-c", str(source / "docs"), "-d", str(site / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, "-b", "html", str(source), str(site)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=600)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of this checkout: no link, heading or image is missing, and the index leads to every page."""
    made = tmp_path_factory.mktemp("site")
    done = built(ROOT, made)
    assert (done.returncode, done.stderr) == (0, "")
    return made


@pytest.mark.slow
def test_every_public_name_is_on_the_page_of_the_api(site: Path) -> None:
    """What ``labeler`` and ``labeler.testing`` export, but for the version."""
    page = (site / "docs" / "api.html").read_text(encoding="utf-8")
    listed = set(re.findall(r'id="labeler\.(?:testing\.)?(\w+)"', page))
    assert listed == PUBLIC.keys() - {"__version__"}


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_korean_word_is_found_with_its_endings_and_without_the_network(site: Path) -> None:
    """Two syllables find every page that has them in a word, by files of the site alone."""
    with opened_browser() as browser:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{site}/search.html?q=설치")
        page.locator("#search-results a", has_text="튜토리얼").first.click()
        assert page.locator("html").get_attribute("lang") == "ko"
        assert asked
        assert [url for url in asked if not url.startswith("file://")] == []


@pytest.mark.slow
def test_what_leads_nowhere_fails(tmp_path: Path) -> None:
    """A page, a heading or an image that is not there, and a page that the index does not name: each is said."""
    (tmp_path / "docs").mkdir()
    shutil.copytree(ROOT / "docs" / "static", tmp_path / "docs" / "static")
    shutil.copy(ROOT / "docs" / "conf.py", tmp_path / "docs")
    (tmp_path / "docs" / "README.md").write_text("# All\n", encoding="utf-8")
    (tmp_path / "docs" / "lost.md").write_text("# Lost\n", encoding="utf-8")
    broken = "[a](docs/page.md) [b](docs/README.md#heading) ![c](docs/image.png)"
    (tmp_path / "README.md").write_text(f"# Labeler\n\n{broken}\n", encoding="utf-8")
    done = built(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    for said in ("'docs/page.md'", "'heading'", "docs/image.png", "lost.md: WARNING: document isn't included"):
        assert said in done.stderr


# What is printed runs


def commands(page: Path) -> list[str]:
    """Return the `labeler` lines of a page: those that a terminal shows, and those in its sentences."""
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^[$#] (?:sudo -u labeler )?(?:\S*/)?(labeler .+)$", text, re.MULTILINE) + re.findall(
        r"`(labeler [^`]+)`", prose
    )


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_commands_of_a_page_have_their_options(page: Path) -> None:
    """Each option stands behind a command that takes it; the reference is made from the code itself."""
    for words in (line.split()[1:] for line in commands(page)):
        command: click.Command = cli
        taken, named = {"--help", "--version"}, [word for word in words if word.startswith("--")]
        while isinstance(command, click.Group) and words and words[0] in command.commands:
            command, words = command.commands[words[0]], words[1:]
            taken |= {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        assert command is not cli or named, words
        assert [name for name in named if name.partition("=")[0] not in taken] == [], words


PRINTED = re.compile(r"^```(?:python|pycon)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PRINTING = [page for page in PAGES if PRINTED.search(page.read_text(encoding="utf-8"))]


def run_examples(text: str, name: str) -> None:
    """Run the examples of a text, and compare what they show with what is printed."""
    examples = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert examples.examples
    assert doctest.DocTestRunner().run(examples).failed == 0


@pytest.mark.parametrize("page", PRINTING, ids=lambda page: page.stem)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block, as somebody would who reads on; what returns is a part of a function."""
    shutil.copy(ROOT / "examples" / "plugins" / "delivery.py", tmp_path / "freshness.py")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {**PUBLIC, "__file__": str(tmp_path / "plugin.py")}
    for block in PRINTED.findall(page.read_text(encoding="utf-8")):
        if ">>>" in block:
            run_examples(block, page.name)
        elif re.search("^return ", block, re.MULTILINE):
            exec(f"def part(title):\n{textwrap.indent(block, '    ')}", names)
            assert names["part"]({"en": "Title"})
        else:
            exec(block, names)


@pytest.mark.parametrize("name", sorted(name for name, it in PUBLIC.items() if ">>>" in (it.__doc__ or "")))
def test_examples_of_a_docstring_show_what_they_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each begins with its own imports, as somebody would type it in the folder of the sources."""
    monkeypatch.chdir(ROOT)
    run_examples(PUBLIC[name].__doc__, name)


def test_every_kind_of_label_has_an_example() -> None:
    """Its docstring shows a value that it takes."""
    assert [kind.__name__ for kind in KINDS if ">>> " not in (kind.__doc__ or "")] == []
