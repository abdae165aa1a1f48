"""How answers travel: static files under names of their content, kept for good; texts compressed."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from test_web_access import token_of
from werkzeug.test import TestResponse

from labeler.app import create_app
from labeler.instance import Instance
from labeler.store import NewRecord, Store
from labeler.web.address import PublicUrl
from labeler.web.delivery import static_address

PACKED = {"Accept-Encoding": "gzip, deflate, br"}


def unpacked(answer: TestResponse) -> str:
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    return gzip.decompress(answer.data).decode()


def test_static_files_are_kept_for_good_and_belong_to_nobody(app: Flask, client: FlaskClient) -> None:
    """Every file that a page links has the hash in its address, is immutable, and sets no cookie."""
    linked = re.findall(r'(?:src|href)="(/static/[^"]+)"', client.get("/").text)
    assert len(linked) >= 5
    for path in linked:
        assert path.startswith(f"{app.static_url_path}/")
        with client.get(path) as answer:
            assert answer.status_code == 200
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert "Set-Cookie" not in answer.headers and "Cookie" not in answer.headers.get("Vary", "")
            mark = answer.headers["ETag"]
        with client.get(path, headers={"If-None-Match": mark}) as again:
            assert (again.status_code, again.headers["Cache-Control"]) == (304, "public, max-age=31536000, immutable")


def test_a_changed_file_changes_the_address_of_all(app: Flask, tmp_path: Path) -> None:
    """Scripts that import each other are of one version; an address of another version is not found, nor kept."""
    shutil.copytree(app.static_folder or "", tmp_path / "static", ignore=shutil.ignore_patterns("__pycache__"))
    assert static_address(str(tmp_path / "static")) == app.static_url_path
    with (tmp_path / "static" / "desk" / "words.js").open("a") as script:
        script.write("\n")
    changed = static_address(str(tmp_path / "static"))
    assert changed != app.static_url_path
    missed = app.test_client().get(f"{changed}/desk/main.js")
    assert (missed.status_code, missed.headers["Cache-Control"]) == (404, "no-store")


def test_scripts_import_each_other_by_names_that_follow_the_address(app: Flask) -> None:
    """No script names an absolute address, so that the hash and the path of --public-url hold for all of them."""
    for script in Path(app.static_folder or "").rglob("*.js"):
        imported = re.findall(r'^\s*(?:import|export)\b[^"\n]*"([^"]+)"', script.read_text(), re.MULTILINE)
        assert all(name.startswith(("./", "../")) for name in imported), (script, imported)


def test_static_files_stand_under_the_public_path(instance: Instance) -> None:
    """With a public address under a path, static files have that path, the hash, and the same rules."""
    app = create_app(instance, {"LABELER_PUBLIC_URL": PublicUrl.read("https://example.com/tools/labeler")})
    page = app.test_client().get("/tools/labeler/sign-in").text
    assert f'src="/tools/labeler{app.static_url_path}/page.js"' in page
    with app.test_client().get(f"/tools/labeler{app.static_url_path}/page.js") as answer:
        assert "immutable" in answer.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/", "/projects/1/records", "/projects/1/label/sentiment", "{static}/labeler.css"])
def test_texts_are_compressed_for_those_who_take_them_so(
    app: Flask, client: FlaskClient, project: int, path: str
) -> None:
    """Pages, scripts and styles arrive as they were, in half the bytes; plain where that is asked for."""
    path = path.format(static=app.static_url_path)
    with client.get(path, headers=PACKED) as packed, client.get(path) as plain:
        assert "Content-Encoding" not in plain.headers and "Accept-Encoding" in plain.headers["Vary"]
        token = re.compile(r'(csrf[-_]token" (?:content|value)=")[^"]*')
        assert token.sub(r"\1", unpacked(packed)) == token.sub(r"\1", plain.text)
        assert len(packed.data) < 0.6 * len(plain.data)
    with client.get(path, headers={"Accept-Encoding": "gzip;q=0, br"}) as refused:
        assert "Content-Encoding" not in refused.headers


def test_answers_of_the_desk_are_compressed(client: FlaskClient, store: Store, project: int) -> None:
    """A long record for the desk is compressed; a short answer is not worth it."""
    rows = [NewRecord("long", "배송이 늦어요 " * 200)]
    (long,) = store.write(lambda tx: store.records.add(tx, project, rows, ["sentiment"]))
    path, token = f"/projects/{project}/label/sentiment/api/open", {"X-CSRFToken": token_of(client, "/account")}
    answer = client.post(path, json={"record_id": long.id, "page": "page"}, headers=PACKED | token)
    assert f'"record_id":{long.id}' in unpacked(answer)
    counts = client.get(f"/projects/{project}/label/sentiment/api/counts", headers=PACKED)
    assert "Content-Encoding" not in counts.headers and counts.json["total"] == 6


def test_a_compressed_static_file_is_not_sent_again(app: Flask, client: FlaskClient) -> None:
    """A browser that has the compressed form asks with its mark, and is told that nothing has changed."""
    path = f"{app.static_url_path}/desk/main.js"
    with client.get(path, headers=PACKED) as first:
        assert first.headers["ETag"].startswith("W/")
    with client.get(path, headers=PACKED | {"If-None-Match": first.headers["ETag"]}) as again:
        assert (again.status_code, again.data) == (304, b"")


def test_the_length_of_a_page_says_little_about_what_is_in_it(client: FlaskClient, store: Store, project: int) -> None:
    """The same page comes in many lengths, so that none can be compared with another to the byte."""
    store.write(lambda tx: store.records.add(tx, project, [NewRecord("long", "배송이 늦어요 " * 40)], []))
    lengths = {len(client.get(f"/projects/{project}/records?q=배송", headers=PACKED).data) for _ in range(20)}
    assert len(lengths) > 5


def test_files_of_exports_are_sent_as_they_lie(
    instance: Instance, client: FlaskClient, project: int, store: Store
) -> None:
    """A training set may be large: it is read from the disk piece by piece, and is not compressed on the way."""
    from labeler.export import export_task

    found = store.projects.get(project)
    task = instance.project_task(found, "sentiment")
    decisions = instance.decisions(found, task)
    for record in store.records.many([1, 2, 3, 4, 5]).values():
        store.write(lambda tx, record=record: decisions.import_label(tx, record, "positive", "test", None))
    folder = instance.folder / "exports" / str(project) / "e"
    export_task(store, found, task, "trl", folder, formats=instance.plugins.exporters)
    name = "manifest.json"
    with client.get(f"/projects/{project}/exports/1/{name}", headers=PACKED) as answer:
        assert "Content-Encoding" not in answer.headers
        assert answer.data == (folder / name).read_bytes()
