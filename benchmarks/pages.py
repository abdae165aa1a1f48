"""What each page costs the server: ``python benchmarks/pages.py [--sizes 1000 20000 200000] [--million]``.

``labeler serve --no-worker`` with a project of all tasks in each size: a fifth of the records is decided, a third has
suggestions of one run. Every address that can be asked for with GET is asked for, one request after the other, as an
admin. Printed are CPU (of the process and all it started; another process cannot disturb it much) and median wall
milliseconds of a request, answer compressed, and the ratio to a bare Flask page in the same run that finds the person
by the cookie, reads 50 records by their key and renders them. Then the memory (PSS) of the server after all pages, and
of ``labeler worker`` after it has worked for a while. ``--keep FOLDER`` keeps the databases for another run.
"""

from __future__ import annotations

import argparse
import http.client
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from common import LABELS, approve, cpu, memory, signed_in, slices, started, texts
from flask import Flask, session

from labeler import accounts
from labeler.app import create_app
from labeler.files import DATABASE
from labeler.instance import Instance
from labeler.records import Evidence, Suggestion
from labeler.store import NewRecord, Store
from labeler.store.ledger import FINISHED
from labeler.task import RECORD

TASK, COMMON_WORD, COMMON_LETTER, RARE_WORD = "sentiment", "배송", "요", "99999"
MILLION = 1_000_000
SKIPPED = {"static", "exports.download", "imports.report", "imports.preview", "signin.link", "signin.form"}


def make(folder: Path, size: int) -> None:
    """Fill an instance: records of products, an import, a run with suggestions, decisions, an export."""
    with Instance(folder) as instance:
        store = instance.store
        store.db._synchronous = "OFF"
        admin = accounts.add_reviewer(store, "admin", "a few plain words", accounts.ADMIN)
        project_id = instance.create_project("reviews", "ko", None, admin)
        all_tasks = instance.tasks_of(store.projects.get(project_id)).values()
        tasks = [task.name for task in all_tasks if task.unit == RECORD]
        begin, keep = store.records.start_import, store.exports.add
        import_id = store.write(lambda tx: begin(tx, project_id, "reviews.csv", {}, admin, 0, "done"))
        ids: list[int] = []
        rows = [NewRecord(f"r{n}", text, f"g{n // 50}") for n, text in enumerate(texts(size))]
        for part in slices(rows, 5000):
            stored = store.write(lambda tx, part=part: store.records.add(tx, project_id, part, tasks, import_id))
            ids += [one.id for one in stored]
        approve(store, project_id, ids[: size // 5], lambda id_: LABELS[id_ % 3])
        suggest(store, project_id, ids[size // 5 : size // 2], admin)
        approved = [page_row["id"] for page in store.annotations.approved_pages(project_id, TASK) for page_row in page]
        manifest = {"counts": {"all": len(approved)}, "files": {}}
        members = [(id_, "train") for id_ in approved]
        store.write(lambda tx: keep(tx, project_id, TASK, "openai", manifest, "exports/1/x", admin, members))


def suggest(store: Store, project_id: int, ids: list[int], admin: int) -> None:
    """Make suggestions of a run, and decide on every tenth of them."""
    run_id = store.write(lambda tx: store.ledger.create_run(tx, project_id, TASK, {"backend": "probe"}, None, admin))

    def work(tx: Any, part: list[int]) -> None:
        store.ledger.add_items(tx, run_id, part)
        tx.run(f"UPDATE run_items SET state = 'done' WHERE record_id IN ({','.join(map(str, part))})")
        for id_ in part:
            evidence = [Evidence(1, 1, 0.5)]
            made = Suggestion(id_, TASK, "1", "probe", None, LABELS[id_ % 3], None, score=0.8, made=("probe",),
                              evidence=evidence, run_id=run_id, scores=dict.fromkeys(LABELS, 0.3))  # fmt: skip
            suggestion_id = store.suggestions.add(tx, project_id, made)
            store.work.suggested(tx, id_, TASK, suggestion_id, 0.8, None)
            if id_ % 10 == 0:
                row = {"project_id": project_id, "record_id": id_, "task": TASK, "task_version": "1", "how": "accepted",
                       "state": "approved", "value": LABELS[id_ % 3], "reviewer_id": admin, "agreement": 1.0,
                       "suggestion_id": suggestion_id}  # fmt: skip
                annotation_id = store.annotations.add(tx, row)
                store.work.decided(tx, id_, TASK, "approved", annotation_id)
                store.events.add(tx, "approved", project_id=project_id, reviewer_id=admin, task=TASK, record_id=id_,
                                 annotation_id=annotation_id)  # fmt: skip

    for part in slices(ids):
        store.write(lambda tx, part=part: work(tx, list(part)))
    store.write(lambda tx: store.ledger.set_run(tx, run_id, FINISHED))
    store.write(lambda tx: tx.run("UPDATE runs SET done = total WHERE id = ?", [run_id]))


def pages(instance: Instance) -> dict[str, str]:
    """Return the path of every page by name."""
    newest = instance.store.vectors.newest_record()
    annotation = instance.store.db.value("SELECT MAX(id) FROM annotations")
    values = {
        "project_id": 1,
        "task": TASK,
        "record_id": 7,
        "import_id": 1,
        "run_id": 1,
        "annotation_id": annotation,
        "suggestion_id": 7,
        "sheet": "days",
        "plot": "days",
    }
    app, found = create_app(instance), {}
    with app.test_request_context():
        for rule in app.url_map.iter_rules():
            # The project has no replay, no training and no act on many records.
            if "GET" in (rule.methods or ()) and rule.endpoint not in SKIPPED and rule.arguments <= values.keys():
                found[rule.endpoint] = app.url_for(rule.endpoint, **{name: values[name] for name in rule.arguments})
        address = app.url_for("records.page", project_id=1)
    found["records.page, middle"] = f"{address}?before={newest // 2}"
    found["records.page, newer"] = f"{address}?after={newest // 2}"
    searches = {"common word": COMMON_WORD, "common letter": COMMON_LETTER, "rare word": RARE_WORD,
                "two common words": f"{COMMON_WORD} {COMMON_LETTER}", "no such word": "없는낱말"}  # fmt: skip
    for name, words in searches.items():
        found[f"search, {name}"] = f"{address}?q={quote(words)}"
    found["search, common word, middle"] = f"{address}?q={quote(COMMON_WORD)}&before={newest // 2}"
    return found


BARE = """<!doctype html><title>{{ name }}</title>
<ol>{% for row in rows %}<li><p>{{ row[1] }}</p><p>{{ row[0] }}</p></li>{% endfor %}</ol>"""


def serve_bare(folder: Path) -> None:
    """Serve the floor: one page that does the least of the same work."""
    from waitress.server import create_server

    with Instance(folder) as instance:
        key = instance.secret_key
    app = Flask("bare")
    app.secret_key = key
    # The cookie of Labeler is read here too.
    app.config["SESSION_COOKIE_NAME"] = "bare"
    template = app.jinja_env.from_string(BARE)

    @app.get("/")
    def page() -> str:
        connection = sqlite3.connect(folder / DATABASE)
        person = connection.execute("SELECT name FROM reviewers WHERE id = ?", [session["reviewer"]]).fetchone()
        rows = connection.execute("SELECT key, text FROM records ORDER BY id DESC LIMIT 50").fetchall()
        connection.close()
        return template.render(name=person[0], rows=rows)

    server = create_server(app, host="127.0.0.1", port=0, threads=8)
    print(f"http://127.0.0.1:{server.effective_port}", flush=True)
    server.run()


def asked(port: int, path: str, headers: Mapping[str, str], count: int, pid: int) -> tuple[float, float, int]:
    """Return CPU and median wall milliseconds of a request, and how many bytes came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    wall, length, before = [], 0, 0.0
    for n in range(count + 2):
        if n == 2:
            before = cpu(pid)
        began = time.perf_counter()
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        length = len(answer.read())
        wall.append(1000 * (time.perf_counter() - began))
        assert answer.status in (200, 204), (path, answer.status)
    spent = (cpu(pid) - before) / count
    connection.close()
    return spent, statistics.median(wall[2:]), length


def headers_of(instance: Instance) -> dict[str, str]:
    """Return what a browser of the admin sends, to Labeler and to the floor."""
    found = signed_in(instance, 1)
    cookie = found["Cookie"].partition("=")[2]
    return {"Cookie": f"{found['Cookie']}; bare={cookie}", "Accept-Encoding": "gzip", "Accept-Language": "ko",
            "Accept": "text/html"}  # fmt: skip


def measure(folder: Path, size: int, count: int, only: str, say: Callable[[str], None] = print) -> None:
    with Instance(folder) as instance:
        paths, headers = pages(instance), headers_of(instance)
        assert instance.store.counts.of("records", 1)["review"] == size
    with started(__file__, "--serve-bare", str(folder)) as (pid, port):
        bare, bare_wall, _ = asked(int(port), "/", headers, 2 * count, pid)
    say(f"\n{size:,} records; the bare page takes {bare:.2f} ms CPU ({bare_wall:.2f} ms wall)\n")
    say("| page | CPU ms | wall ms | ratio | KB |\n|---|--:|--:|--:|--:|")
    with started("-m", "labeler", "serve", "--no-worker", "--port", "0", "--instance", str(folder)) as (pid, port):
        began = memory(pid)
        for name, path in paths.items():
            if only in name:
                spent, wall, length = asked(int(port), path, headers, count, pid)
                say(f"| {name} | {spent:.2f} | {wall:.2f} | {spent / bare:.1f} | {length / 1024:.1f} |")
        say(f"\nMemory of the server: {began:.0f} MiB after the start, {memory(pid):.0f} MiB after all pages")
    ready = "Working"
    with started("-u", "-m", "labeler", "worker", "--instance", str(folder), ready=f"({ready})") as (pid, _):
        time.sleep(20)
        say(f"Memory of the worker: {memory(pid):.0f} MiB after 20 s of work")


def main() -> None:
    parser = argparse.ArgumentParser(description="What each page costs, by the size of the project.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 20_000, 200_000])
    parser.add_argument("--million", action="store_true", help="also with a million records")
    parser.add_argument("--count", type=int, default=20, help="requests of each page")
    parser.add_argument("--only", default="", help="only the pages whose name has this in it")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the databases there, and use those there are")
    parser.add_argument("--serve-bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_bare:
        serve_bare(arguments.serve_bare)
        return
    with tempfile.TemporaryDirectory() as name:
        home = arguments.keep or Path(name)
        for size in [*arguments.sizes, *([MILLION] if arguments.million else [])]:
            folder = home / str(size)
            if not (folder / DATABASE).exists():
                home.mkdir(parents=True, exist_ok=True)
                make(folder, size)
            measure(folder, size, arguments.count, arguments.only)


if __name__ == "__main__":
    main()
