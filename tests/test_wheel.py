"""What is given away: the wheel, installed without the checkout, and the source distribution, which is the checkout."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import labeler
from labeler import demo, strictjson

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(([^)#\s]+)")
# The name of the package belongs to another project on the package index.
STRANGER = re.compile(r"\blabeler\[|pip3? install [^\n\x00`]*(?<![\w/.-])labeler(?![\w/.-])")
LOOK = """
import sys
from importlib import resources
from pathlib import Path

import labeler
from labeler import demo, strictjson
from labeler.app import create_app
from labeler.backends.prices import load_prices
from labeler.instance import Instance
from labeler.retrieval.lexical import LexicalEmbedder

assert Path(labeler.__file__).is_relative_to(sys.argv[1]), labeler.__file__
with Instance(Path(sys.argv[2])) as instance:
    app = create_app(instance, {"TESTING": True})
    client = app.test_client()
    pages = {language: client.get("/sign-in", headers={"Accept-Language": language}) for language in ("ko", "en")}
    static = sorted(Path(app.static_folder).rglob("*"))
    found = {
        "status": [page.status_code for page in pages.values()],
        "korean": any("가" <= c <= "힣" for c in pages["ko"].text),
        "languages_differ": pages["ko"].text != pages["en"].text,
        "static": [client.get(f"{app.static_url_path}/" + path.relative_to(app.static_folder).as_posix()).status_code
                   for path in static if path.is_file() and path.suffix in (".js", ".css", ".svg", ".txt", ".md")],
        "static_files": [path.relative_to(app.static_folder).as_posix() for path in static if path.is_file()],
        "templates": sorted(app.jinja_env.list_templates(extensions=["html"])),
        "guidelines": {name: sorted(task.guidelines) for name, task in instance.plugins.tasks.items()},
        "disabled": [disabled.name for disabled in instance.plugins.disabled],
        "vector": LexicalEmbedder().embed(["맛있어요"]).shape,
        "prices": len(load_prices()),
        "reviews": len(demo.reviews()),
        "typed": resources.files("labeler").joinpath("py.typed").is_file(),
    }
print(strictjson.dumps(found))
"""


def packages() -> dict[str, Path]:
    """Return what setup.cfg says: the packages and their folders."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    folders = dict(line.split(" = ") for line in config["options"]["package_dir"].split("\n") if line)
    names = [line for line in config["options"]["packages"].split("\n") if line]
    return {name: ROOT / folders[name.split(".")[0]] / Path(*name.split(".")[1:]) for name in names}


def test_every_package_is_listed() -> None:
    """Every folder of labeler/ with Python in it stands in setup.cfg, and nothing that is not there."""
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "labeler").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    listed = packages()
    assert {name for name in listed if name.split(".")[0] == "labeler"} == found
    assert all((folder / "__init__.py").is_file() for folder in listed.values())


def of_the_checkout() -> list[str]:
    """Return what git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from a copy of the checkout so that nothing stale gets in, and unpacked."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("sdist")
    for name in of_the_checkout():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    with tarfile.open(next(out.glob("labeler_rag-*.tar.gz"))) as archive:
        archive.extractall(out, filter="data")
    return next(path for path in out.glob("labeler_rag-*") if path.is_dir())


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source distribution, as pip builds one."""
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(sdist))
    return next(out.glob("labeler_rag-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-compile", "--target", str(target), str(wheel))
    return target


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def run(installed: Path, folder: Path, *words: str) -> str:
    """Run Python away from the checkout, with the installed folder before everything else."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LABELER_", "OPENAI_"))}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_nothing_asks_pip_for_another_project() -> None:
    """No message, page or document installs what is called `labeler` on the package index."""
    texts = {name: (ROOT / name).read_bytes().decode(errors="replace") for name in of_the_checkout()}
    assert {name: found[0] for name, text in texts.items() if (found := STRANGER.search(text))} == {}


@pytest.mark.slow
def test_source_distribution_holds_the_checkout(sdist: Path) -> None:
    """What is in the checkout is in the source distribution: documents, tests, benchmarks, and what make needs."""
    kept = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    assert [name for name in of_the_checkout() if name not in kept] == []
    readme = (sdist / "README.md").read_text(encoding="utf-8")
    linked = [link for link in LINK.findall(readme) if not link.startswith("http")]
    assert "docs/desk.png" in linked
    assert [link for link in linked if not (sdist / link).is_file()] == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("goal", ["demo", "test"])
def test_make_finds_all_it_needs_in_the_source_distribution(sdist: Path, goal: str) -> None:
    """`make demo` and `make test` begin in it: no rule misses a file."""
    done = subprocess.run(["make", "-n", goal], cwd=sdist, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "constraints.txt" in done.stdout


@pytest.mark.slow
def test_installing_as_the_readme_says_gives_the_command(sdist: Path) -> None:
    """The lines of the README make an environment and install Labeler in it; what it needs comes from this one."""
    readme = (sdist / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ (python3 -m venv .*|\. .*/activate|pip install -c .*)$", readme, re.MULTILINE)
    assert len(lines) == 4
    here = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))}
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_QUIET": "1"}
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = "\n".join(["set -e", *lines, "command -v labeler", "labeler --version"])
    done = subprocess.run(
        ["bash", "-c", script], cwd=sdist, env=os.environ | here | offline | path,
        capture_output=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    where, version = done.stdout.splitlines()[-2:]
    assert Path(where).is_relative_to(sdist)
    assert version == f"labeler, version {labeler.__version__}"


@pytest.mark.slow
def test_page_of_the_package_index_has_no_dead_link(wheel: Path) -> None:
    """The index shows one text away from the checkout: each link of it is a whole address."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        head, _, page = archive.read(name).decode().partition("\n\n")
    assert "Name: labeler-rag\n" in head
    assert "# Labeler" in page
    assert [link for link in LINK.findall(page) if not link.startswith("https://")] == []


@pytest.mark.slow
def test_wheel_holds_what_git_holds(wheel: Path) -> None:
    """Every file of the packaged folders that is in the checkout is in the wheel, and no test or benchmark is."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    folders = {"labeler": "labeler", "plugins": "labeler_plugins", "static": "labeler_static",
               "templates": "labeler_templates"}  # fmt: skip
    for name in of_the_checkout():
        top, _, rest = name.partition("/")
        if top in folders and not name.endswith((".po", ".pot")):
            assert f"{folders[top]}/{rest}" in names, name
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_installed_wheel_serves_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    """Templates, static files, translations, guidelines, the embedder, prices and the demonstration are all there."""
    found = strictjson.loads(run(installed, tmp_path, "-c", LOOK, str(installed), str(tmp_path / "instance")))
    assert found["status"] == [200, 200]
    assert found["korean"]
    assert found["languages_differ"]
    assert len(found["static"]) >= 4
    assert set(found["static"]) == {200}
    checkout = {p.relative_to(ROOT / "static").as_posix() for p in (ROOT / "static").rglob("*") if p.is_file()}
    assert set(found["static_files"]) >= {name for name in checkout if "__pycache__" not in name}
    templates = ROOT / "templates"
    assert found["templates"] == sorted(path.relative_to(templates).as_posix() for path in templates.rglob("*.html"))
    assert set(found["guidelines"]) >= {"sentiment", "usage"}
    assert all({"en", "ko"} <= set(languages) for languages in found["guidelines"].values())
    assert found["disabled"] == []
    assert found["vector"] == [1, 256]
    assert found["prices"] > 0
    assert found["reviews"] == len(demo.reviews())
    assert found["typed"]


@pytest.mark.slow
def test_installed_command_works_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    """The console script of the wheel lists the seven tasks and no disabled plugin."""
    script = str(installed / "bin" / "labeler")
    run(installed, tmp_path, script, "user", "add", "kim")
    assert len(run(installed, tmp_path, script, "tasks").splitlines()) == 7
    shown = run(installed, tmp_path, script, "plugins").splitlines()
    assert shown[0] == "labeler.built_in"
    assert len(shown) == 8
