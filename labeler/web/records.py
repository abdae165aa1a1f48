"""The records of a project as a list or, for one task, as a table: what a query finds, counted, sorted and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

from flask import Blueprint, flash, g, render_template, request, url_for
from flask_babel import get_locale

from labeler import strictjson
from labeler.annotation.acts import LABEL, LONGEST_TAG, TAG, TAGGING, Acts
from labeler.annotation.acts import Asked as Act
from labeler.annotation.query import FIELDS, LONGEST, META, Query, parse, quoted
from labeler.annotation.table import PATIENCE, Page, RecordTable, read
from labeler.errors import InputError, NotFound
from labeler.labels import NO_LABEL
from labeler.sentence import N_
from labeler.store import Row
from labeler.store.acts import ONGOING
from labeler.store.table import NEWEST, OF_TASK, ORDERS, STATES, Place, Table, Term, columns_of
from labeler.task import Task
from labeler.web.access import admin_only, instance, project_task
from labeler.web.forms import go_on, text, texts
from labeler.web.words import ACTS, _, word

PAGE = 50
COLUMNS = ("suggested", "score", "label", "state", "by", "date")
"""Of the table, beside the text; :data:`MORE` can be chosen too, and each column of the metadata."""
MORE = (
    "tags", "notes", "how", "agreement", "disagreement", "seconds", "model", "product", "key", "version", "added"
)  # fmt: skip
COUNTED = 2000
_MAX_ID = 2**62
_FACETS = ("state", "flagged", "asked", "label", "suggested", "how", "by")
_SHOWN = 12
blueprint = Blueprint("records", __name__, url_prefix="/projects/<int:project_id>/records")
TITLES = {
    "state": N_("State"), "label": N_("Decided label"), "suggested": N_("Suggested label"), "score": N_("Score"),
    "how": N_("Kind of decision"), "by": N_("Reviewer"), "date": N_("Decided"), "agreement": N_("Agreement"),
    "disagreement": N_("Disagreement"), "seconds": N_("Seconds"), "model": N_("Model"), "product": N_("Product"),
    "key": N_("Key"), "tags": N_("Tags"), "version": N_("Version"), "added": N_("Added"), "notes": N_("Open notes"),
    "flagged": N_("Flags"), "asked": N_("Asked"),
}  # fmt: skip
LEFT_OUT = {
    "same": N_("They have it already"), "blind": N_("To be decided without a suggestion in sight"),
    "unsuggested": N_("Nothing is suggested"), "unfit": N_("The label does not fit the record"),
    "decided": N_("Somebody has decided on them"), "held": N_("On somebody's desk, or decided meanwhile"),
    "pending": N_("They are pending already"), "written": N_("A model wrote them: a person has to read each"),
    "shared": N_("Several people decide on them"),
}  # fmt: skip
_ACT_FIELDS = ("q", "task", "scope", "record", "kind", "label", "tag")
_AT_ONCE = 1.5
ORDER_TITLES = {
    "newest": N_("Newest first"), "oldest": N_("Oldest first"), "lowest": N_("Lowest score first"),
    "highest": N_("Highest score first"), "decided": N_("Decided last first"),
}  # fmt: skip


class Asked(NamedTuple):
    """What the address of a page asks for. ``message`` says what is wrong with it."""

    typed: str
    query: Query
    task: Task | None
    order: str
    message: str | None = None


@blueprint.get("")
def page(project_id: int) -> Any:
    """List the records that a query finds. Without a task all of the project; with one, as a table.

    ``q`` is the query, ``sort`` the order; ``after`` and ``before`` are places in it, as :func:`_address` writes them.
    A page is found by the place next to it, so that each costs the same, and none skips a record or shows one twice
    while others come in.

    :raise 400: the query cannot be read, or does not fit the task
    :raise 404: the place, the order or a column is none
    """
    asked = _asked()
    edge, back = _place("after"), False
    if edge is None and (edge := _place("before")) is not None:
        back = True
    columns = _columns()
    if asked.message is not None:
        return _shown(asked, Page([], None, None, False, False), None, columns), 400
    table = _table(project_id, asked)
    found = table.page(PAGE, asked.order, edge, back)
    if back and not found.more:
        # Back at the top: a whole page of it, with what has come in meanwhile.
        edge, back, found = None, False, table.page(PAGE, asked.order)
    return _shown(asked, found, edge, columns, back)


@blueprint.get("/counts")
def counts(project_id: int) -> Any:
    """What the page asks for once it is shown: how many records the query finds, and how many have each value."""
    asked = _asked()
    if asked.message is not None:
        raise InputError(asked.message)
    found = _table(project_id, asked).count(COUNTED, PATIENCE)
    return render_template(
        "_record_counts.html",
        found=found,
        facets={name: _facet(asked, name, found.of[name]) for name in _FACETS if found.of.get(name)},
        titles=TITLES,
    )


@blueprint.post("/views")
def keep(project_id: int) -> Any:
    """Keep the query, order and columns of a page under a name, for everybody in the project."""
    store, name, address, who = instance().store, text("name", 60), text("address", 2000), int(g.person["id"])
    if not name:
        raise InputError("A view needs a name")
    store.write(lambda tx: store.views.keep(tx, project_id, name, address, who))
    flash(_("Saved"))
    return go_on("records.page", project_id=project_id, **_arguments(address))


@blueprint.post("/views/<int:view_id>/remove")
def forget(project_id: int, view_id: int) -> Any:
    """Remove a view: whoever made it may, and an admin."""
    store = instance().store
    view = next((view for view in store.views.of(project_id) if view["id"] == view_id), None)
    if view is None or (view["reviewer_id"] != g.person["id"] and g.role != "admin"):
        raise NotFound("There is no such view")
    store.write(lambda tx: store.views.remove(tx, view_id))
    return go_on("records.page", project_id=project_id)


@blueprint.post("/acts/preview")
@admin_only
def look(project_id: int) -> Any:
    """Say what an act on many records would do, before anything is done."""
    task, act = _act_asked()
    seen = _acts(task).preview(act)
    return render_template(
        "act_preview.html",
        act=act,
        seen=seen,
        task=task,
        titles=_act_titles(task, act),
        before=_named_counts(task, seen.before),
        after=_named_counts(task, seen.after),
        form=[(name, value) for name in _ACT_FIELDS for value in request.form.getlist(name)],
        left_out=[(LEFT_OUT[name], n) for name, n in seen.left_out.most_common()],
    )


@blueprint.post("/acts")
@admin_only
def act(project_id: int) -> Any:
    """Begin an act, do what can be done at once, and leave the rest to the background."""
    task, asked = _act_asked()
    acts = _acts(task)
    id_ = acts.begin(asked, int(g.person["id"]))
    acts.go_on(id_, _AT_ONCE)
    instance().wake()
    return go_on("records.show_act", project_id=project_id, act_id=id_)


@blueprint.get("/acts/<int:act_id>")
def show_act(project_id: int, act_id: int) -> Any:
    """Show an act: how far it came, what it left out, and a sample of what it changed, for a person to look at."""
    return render_template("act.html", **_act_shown(act_id))


@blueprint.get("/acts/<int:act_id>/progress")
def act_progress(project_id: int, act_id: int) -> Any:
    """The part of the page that is asked for again every second while the act goes on."""
    return render_template("_act.html", **_act_shown(act_id))


@blueprint.post("/acts/<int:act_id>/undo")
@admin_only
def undo_act(project_id: int, act_id: int) -> Any:
    _acts(_act_shown(act_id)["task"]).undo(act_id, int(g.person["id"]))
    _acts(_act_shown(act_id)["task"]).go_on(act_id, _AT_ONCE)
    instance().wake()
    return go_on("records.show_act", project_id=project_id, act_id=act_id)


def _acts(task: Task) -> Acts:
    return instance().acts(g.project, task)


def _act_asked() -> tuple[Task, Act]:
    """Read what is to be done with which records of which task."""
    query = parse(text("q", LONGEST))
    task = project_task(query.task or text("task", 100))
    ids = tuple(sorted({int(one) for one in texts("record") if one.isdecimal()})) if text("scope") == "chosen" else None
    kind, name = text("kind", 20), text("label", 200)
    value = task.schema.candidates().get(name) if kind == LABEL else text("tag", 100) if kind in TAGGING else None
    return task, Act(kind, query.text, value, ids)


def _act_shown(act_id: int) -> dict[str, Any]:
    store = instance().store
    row = store.acts.get(act_id)
    if row is None or row["project_id"] != g.project["id"]:
        raise NotFound("There is no act number %(number)s", number=act_id)
    task = project_task(row["task"])
    value = None if row["value"] is None else strictjson.loads(row["value"])
    sample = _acts(task).sample(act_id)
    return {
        "act": row,
        "task": task,
        "titles": _act_titles(task, Act(row["kind"], row["query"], value)),
        "going": row["state"] in ONGOING,
        "tag": value if row["kind"] == TAG else None,
        "left_out": [(LEFT_OUT[name], n) for name, n in strictjson.loads(row["left_out"]).items()],
        "sample": [
            {
                "id": one["record_id"], "text": one["text"],
                "given": read(task, one["value"], one["task_version"]),
                "now": read(task, one["value_now"], one["version_now"]),
                "state": one["state_now"] or "pending", "reviewer": one["reviewer_now"],
                "looked_at": one["id_now"] != one["id"],
            }
            for one in sample
        ],
        "found": url_for(
            "records.page",
            project_id=g.project["id"],
            task=task.name,
            q=f"tag:{quoted(str(value))}" if row["kind"] in TAGGING else f"act:{act_id}",
        ),
    }  # fmt: skip


def _act_titles(task: Task, act: Act) -> str:
    said = str(_(ACTS[act.kind])) if act.kind in ACTS else act.kind
    if act.value is None:
        return said
    return f"{said}: {act.value if act.kind in TAGGING else task.schema.past.render(act.value, _language())}"


def _named_counts(task: Task, counts: Mapping[str, int]) -> list[tuple[str, int]]:
    schema = task.schema.past
    named = {f"({state})": str(word(state)) for state in STATES} | {NO_LABEL: str(_("empty"))}
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    return [(named.get(name) or schema.label(name).titled(_language()), n) for name, n in ordered]


def _asked() -> Asked:
    """Read the query, task and order of an address. What is wrong with the query is said on the page."""
    store, typed = instance().store, request.args.get("q", "").strip()[:2000]
    tasks = instance().tasks_of(g.project)
    order = request.args.get("sort") or NEWEST
    if order not in ORDERS:
        raise NotFound("There is no such page")
    try:
        query = parse(typed)
    except InputError as error:
        # A key may look like a field: "p:17".
        if Table(store.db, g.project["id"], None).named(typed) is None:
            return Asked(typed, Query(typed), None, NEWEST, str(error))
        query = Query(typed, None, (Term("key", (typed,)),))
    name = query.task or request.args.get("task")
    if name and name not in tasks:
        return Asked(typed, query, None, NEWEST, str(_("This project has no task %(name)s", name=name)))
    task = tasks[name] if name else None
    if task is None and order in OF_TASK:
        order = NEWEST
    try:
        query.of(task, list(tasks))
    except InputError as error:
        return Asked(typed, query, task, order, str(error))
    return Asked(typed, query, task, order)


def _table(project_id: int, asked: Asked) -> RecordTable:
    return RecordTable(instance().store, project_id, asked.task, asked.query, list(instance().tasks_of(g.project)))


def _shown(asked: Asked, found: Page, edge: Place | None, columns: Sequence[str], back: bool = False) -> str:
    project_id, store, tasks = g.project["id"], instance().store, instance().tasks_of(g.project)
    here, tags = _here(asked, columns), store.tags.names(project_id)
    ids = [row["id"] for row in found.rows]
    newer = found.first is not None and (edge is not None or back)
    older = found.last is not None and (found.more or back)
    return render_template(
        "records.html",
        asked=asked,
        words=asked.query.words,
        rows=found.rows,
        states=store.work.states(project_id, ids) if asked.task is None else {},
        tasks=tasks,
        values=_values(asked.task, found.rows) if asked.task else {},
        columns=columns,
        kinds=ACTS,
        labels=_givable(asked.task),
        tags=tags,
        longest_tag=LONGEST_TAG,
        tagged=store.tags.of(ids) if "tags" in columns else {},
        acts=store.acts.of(project_id, 5) if asked.task is not None and g.role == "admin" else [],
        choices=[*COLUMNS, *MORE, *(f"{META}{name}" for name in columns_of(store.db, project_id))],
        titles=TITLES,
        orders=[name for name in ORDERS if asked.task is not None or name not in OF_TASK],
        order_titles=ORDER_TITLES,
        typing=_typing(asked.task, tasks, tags),
        views=[dict(view) | {"url": _of_view(view)} for view in store.views.of(project_id)],
        address=urlencode(here, doseq=True),
        metadata=_metadata(columns, found.rows),
        beyond=edge is not None,
        unfinished=found.more and not found.full,
        counted=url_for("records.counts", project_id=project_id, **here),
        older=url_for("records.page", project_id=project_id, **here, after=_address(found.last)) if older else None,
        newer=url_for("records.page", project_id=project_id, **here, before=_address(found.first)) if newer else None,
    )


def _givable(task: Task | None) -> list[tuple[str, str]]:
    """Return the labels that can be given to many records at once, with their titles."""
    if task is None:
        return []
    return [(name, task.schema.render(value, _language())) for name, value in task.schema.candidates().items()]


def _here(asked: Asked, columns: Sequence[str]) -> dict[str, Any]:
    """Return the address of a page without its place: what it shows."""
    found: dict[str, Any] = {}
    if asked.typed:
        found["q"] = asked.typed
    if asked.task is not None and asked.query.task is None:
        found["task"] = asked.task.name
    if asked.order != NEWEST:
        found["sort"] = asked.order
    return found | ({"column": list(columns)} if tuple(columns) != COLUMNS else {})


def _values(task: Task, rows: Sequence[Row]) -> dict[int, dict[str, Any]]:
    """Return what was decided and suggested of records, in the labels of today, and who is asked about them."""
    return {
        row["id"]: {
            "label": read(task, row["value"], row["task_version"]),
            "suggested": read(task, row["suggested"], row["suggested_version"]),
            "asked": strictjson.loads(row["asked"]),
        }
        for row in rows
    }


def _metadata(columns: Sequence[str], rows: Sequence[Row]) -> dict[int, dict[str, Any]]:
    """Return the metadata of records, where a column of the table needs it."""
    if not any(name.startswith(META) for name in columns):
        return {}
    return {row["id"]: strictjson.loads(row["metadata"] or "{}") for row in rows}


def _columns() -> list[str]:
    """Return the columns of the table that an address names, else the usual ones."""
    chosen = list(dict.fromkeys(request.args.getlist("column")))
    if not chosen:
        return list(COLUMNS)
    if not all(name in (*COLUMNS, *MORE) or name.startswith(META) for name in chosen) or len(chosen) > 40:
        raise NotFound("There is no such page")
    return chosen


def _facet(asked: Asked, name: str, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the values of a facet with their numbers, and where each leads: to the query with it, or without it."""
    found = []
    for value, n in list(counts.items())[:_SHOWN]:
        term = f"{name}:{quoted('empty' if value == NO_LABEL else value)}"
        there = f" {asked.typed} "
        inside = f" {term} " in there
        typed = (there.replace(f" {term} ", " ") if inside else f"{there}{term}").strip()
        arguments = _here(asked, request.args.getlist("column") or COLUMNS) | {"q": typed}
        url = url_for("records.page", project_id=g.project["id"], **arguments)
        found.append({"title": _titled(asked, name, value), "n": n, "url": url, "inside": inside})
    return found


def _titled(asked: Asked, name: str, value: str) -> str:
    if name in ("state", "how"):
        return str(word(value))
    if name == "flagged":
        return str(_("Flagged"))
    if name in ("by", "asked") or asked.task is None:
        return value
    return str(_("empty")) if value == NO_LABEL else asked.task.schema.past.label(value).titled(_language())


def _typing(task: Task | None, tasks: Mapping[str, Task], tags: Sequence[str]) -> dict[str, Any]:
    """Return what the search field completes: fields by their names, and the values of those that have a few."""
    language, store = _language(), instance().store
    labels = [] if task is None else [(one.name, one.titled(language)) for one in task.schema.past.labels]
    members = [(row["name"], "") for row in store.projects.members(g.project["id"])]
    listed = {"task": [(name, one.titled(language)) for name, one in tasks.items()], "label": labels}
    listed |= {"suggested": labels, "by": members, "asked": members, "tag": [(name, "") for name in tags]}
    fields = [
        {
            "name": field.korean if language == "ko" else name,
            "other": name,
            "help": _(field.help),
            "compared": field.kind in ("number", "date"),
            "values": [
                {"value": quoted(value), "title": title}
                for value, title in listed.get(name, [(one, field.values[one]) for one in field.values])
            ],
        }
        for name, field in FIELDS.items()
    ]
    fields += [
        {"name": f"{META}{name}", "other": "", "help": _("A column of the file"), "compared": True, "values": []}
        for name in columns_of(store.db, g.project["id"])[:30]
    ]
    return {"fields": fields}


def _of_view(view: Row) -> str:
    return url_for("records.page", project_id=g.project["id"], **_arguments(view["address"]))


def _arguments(address: str) -> dict[str, Any]:
    """Return what the query string of a view asks for, of what a page knows."""
    found = parse_qs(address)
    return {name: found[name] for name in ("q", "task", "sort", "column") if name in found}


def _place(name: str) -> Place | None:
    """Read a place of an order, as :func:`_address` writes it."""
    raw = request.args.get(name)
    if raw is None:
        return None
    by, _mark, number = raw.partition("~")
    number = number or by
    try:
        place = Place(float(by), int(number))
    except ValueError:
        raise NotFound("There is no such page") from None
    if not 0 < place.record_id < _MAX_ID or place.by != place.by or len(raw) > 60:
        raise NotFound("There is no such page")
    return place


def _address(place: Place | None) -> str | None:
    if place is None:
        return None
    return str(place.record_id) if place.by == place.record_id else f"{place.by!r}~{place.record_id}"


def _language() -> str:
    locale = get_locale()
    return locale.language if locale else "ko"
