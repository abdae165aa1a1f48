"""Notes on records: what the desk shows and sends of them, and the page that lists those that wait for somebody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from flask import Blueprint, g, jsonify, render_template, request

from labeler.errors import Forbidden
from labeler.store import Row, Store
from labeler.web.access import adjudicates, instance, json_body, project_task, text_in, whole_of

MOST = 100
"""So many notes stand on a page; those that wait longest."""
blueprint = Blueprint("notes", __name__, url_prefix="/projects/<int:project_id>")


@dataclass(frozen=True, slots=True)
class Thread:
    """An open thread: its notes, oldest first. ``number`` is that of the first, ``closable`` is for who looks at it."""

    notes: Sequence[Row]
    closable: bool

    @property
    def number(self) -> int:
        return int(self.notes[0]["thread"])


@blueprint.get("/notes")
def page(project_id: int) -> Any:
    """List the open notes that wait for this person or, with ``of=project``, all of them for who adjudicates.

    :raise 403: all of them are asked for by somebody else
    """
    notes, everybody = instance().store.notes, request.args.get("of") == "project"
    if everybody and not adjudicates():
        raise Forbidden("Only an admin may do this")
    if everybody:
        found = notes.of_project(project_id, MOST + 1)
    else:
        found = notes.of_person(project_id, g.person["id"], MOST + 1)
        found += notes.of_person(project_id, None, MOST + 1) if adjudicates() else []
    rows = sorted(found, key=lambda row: row["id"])
    tasks = instance().tasks_of(g.project)
    return render_template("notes.html", rows=rows[:MOST], more=len(rows) > MOST, tasks=tasks, everybody=everybody)


@blueprint.post("/label/<task>/api/note")
def write(project_id: int, task: str) -> Any:
    """Keep a note on a record; safe to send twice with one ``request_key``.

    ``to`` is the number of the member who is asked, null for whoever adjudicates; ``thread`` that of the note which it
    answers. ``html`` of the answer are the record's open notes.

    :raise 400: the note is empty or too long, or nobody can be asked by that number
    :raise 409: the note that it answers was closed meanwhile
    """
    body, chosen = json_body(), project_task(task)
    record_id, to, thread = whole_of(body.get("record_id"), "record_id"), body.get("to"), body.get("thread")
    instance().notes(g.project, chosen).write(
        int(g.person["id"]), record_id, text_in(body, "text"), text_in(body, "request_key"),
        None if to is None else whole_of(to, "to"), None if thread is None else whole_of(thread, "thread"),
    )  # fmt: skip
    return _answer(project_id, chosen.name, record_id)


@blueprint.post("/label/<task>/api/close-note")
def close(project_id: int, task: str) -> Any:
    """Close a thread of notes; the answer is that of :func:`write`.

    :raise 400: somebody else wrote it, and asked somebody else
    """
    body, chosen = json_body(), project_task(task)
    record_id, thread = (whole_of(body.get(name), name) for name in ("record_id", "thread"))
    instance().notes(g.project, chosen).close(int(g.person["id"]), record_id, thread, adjudicates())
    return _answer(project_id, chosen.name, record_id)


def _answer(project_id: int, task: str, record_id: int) -> Any:
    found = threads_of(instance().store, task, [record_id], int(g.person["id"]), adjudicates())
    html = render_template("desk_notes.html", threads=found.get(record_id, []))
    return jsonify(record_id=record_id, html=html, waiting=waiting(project_id))


def threads_of(
    store: Store, task: str, record_ids: Sequence[int], reviewer_id: int, adjudicating: bool
) -> dict[int, list[Thread]]:
    """Return the open threads of records, by record, as a person may see them."""
    found: dict[int, list[Thread]] = {}
    for _, rows in groupby(store.notes.of_records(task, record_ids), key=lambda row: row["thread"]):
        notes = list(rows)
        mine = reviewer_id in (notes[0]["reviewer_id"], notes[0]["to_id"])
        found.setdefault(notes[0]["record_id"], []).append(Thread(notes, mine or adjudicating))
    return found


def waiting(project_id: int) -> dict[str, int]:
    """Return how many questions wait for the person who asks, and how many flags; at most a thousand of each."""
    notes = instance().store.notes
    flags = notes.waiting(project_id, None) if adjudicates() else 0
    return {"questions": notes.waiting(project_id, int(g.person["id"])), "flags": flags}


def askable(project_id: int) -> dict[int, str]:
    """Return whom the person who asks can ask: names by number."""
    found = instance().store.notes.askable(project_id)
    return {id_: name for id_, name in found.items() if id_ != g.person["id"]}
