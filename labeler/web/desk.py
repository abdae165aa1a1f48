"""The desk: the page where reviewers approve and correct, and the JSON API it talks to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import NoneType
from typing import Any

from flask import Blueprint, g, jsonify, render_template, request, url_for
from flask_babel import get_locale

from labeler.accounts import desk_of
from labeler.annotation.acts import LONGEST_TAG
from labeler.annotation.decisions import Decided, Decision, Decisions
from labeler.annotation.queue import Queue
from labeler.errors import Forbidden, InputError, LabelerError, NotFound
from labeler.store.annotations import APPROVED
from labeler.store.work import DISPUTED, ORDERS, PENDING, SIMILAR
from labeler.task import Task
from labeler.web.access import adjudicates, instance, json_body, project_task
from labeler.web.access import text_in as _text
from labeler.web.access import whole_of as _whole
from labeler.web.desk_view import DeskView
from labeler.web.notes import askable, waiting
from labeler.web.words import _, translated

log = logging.getLogger("labeler.web.desk")
blueprint = Blueprint("desk", __name__, url_prefix="/projects/<int:project_id>/label/<task>")
_MAX_ID = 2**63 - 1
_MAX_HAVE = 200
_MOST = 5


@blueprint.get("")
def page(project_id: int, task: str) -> Any:
    """Show the desk, empty: its script asks for the first record. ``record`` opens one, ``order`` sets the order,
    ``similar`` the text of the order "similar", and with ``tag`` only records that have it come.

    :raise 404: the project does not have the task, or the order does not exist
    """
    view = _view(task)
    order = request.args.get("order") or instance().project_settings(g.project)["order"]
    orders = _orders(project_id, task)
    if order not in orders:
        raise NotFound("No queue order %(name)r; there are: %(names)s", name=order[:40], names=", ".join(orders))
    similar = request.args.get("similar", "")[:500] if order == SIMILAR else ""
    tag = request.args.get("tag", "")[:LONGEST_TAG]
    config = {
        "api": url_for("desk.page", project_id=project_id, task=task) + "/api/",
        "signIn": url_for("signin.form"),
        "reviewer": g.person["id"],
        "project": project_id,
        "task": task,
        "taskVersion": view.task.version,
        "language": view.language,
        "lease": view.lease,
        "order": order,
        "similar": similar,
        "tag": tag,
        "record": request.args.get("record", type=int),
        "advance": desk_of(g.person)["advance"],
    }
    return render_template(
        "desk.html",
        task=view.task,
        tasks=instance().tasks_of(g.project),
        schema=view.task.schema,
        used=view.used(),
        config=config,
        orders=orders,
        order=order,
        similar=similar,
        tag=tag,
        similar_by=_similar_by(),
        guide=view.guide(),
        adjudicates=adjudicates(),
        counts=_counts(project_id, view.task),
        strip=view.strip(_decisions(view.task).strip(g.person["id"])),
        askable=askable(project_id),
    )


@blueprint.post("/api/next")
def next_record(project_id: int, task: str) -> Any:
    """Claim and return the next record; 204 when nothing is left. ``have`` are the ids already on the desk.

    ``page`` is what the page that asks calls itself: it holds its records under that name. With ``count`` up to 5
    records are claimed, and those after the first one stand in ``more``. ``lacks`` says what the order has too little
    of to go by, null where it has enough. In the order "similar", ``similar_by`` names the embedder that texts are
    compared by.
    """
    view, body = _view(task), json_body()
    have = body.get("have", [])
    if not isinstance(have, list) or len(have) > _MAX_HAVE:
        raise InputError(f"'have' must be a list of at most {_MAX_HAVE} record ids")
    ids = [_whole(id_, "have") for id_ in have]
    count = _whole(body.get("count", 1), "count")
    if not 1 <= count <= _MOST:
        raise InputError(f"'count' must be a whole number from 1 to {_MOST}")
    asked = _text(body, "order"), ids, _text(body, "similar_to"), _text(body, "page")
    if asked[0] == DISPUTED and not adjudicates():
        raise Forbidden("Only an adjudicator or an admin settles what people disagree on")
    queue = _queue(view.task)
    found = view.payloads(queue.next_few(count, g.person["id"], *asked, _text(body, "tag")))
    if not found:
        return "", 204
    lacks = translated(queue.lacks(_text(body, "order"), _text(body, "similar_to"))) or None
    similar = {"similar_by": _similar_by()} if body.get("order") == SIMILAR else {}
    return jsonify(found[0] | {"more": found[1:], "lacks": lacks} | similar)


@blueprint.post("/api/open")
def open_record(project_id: int, task: str) -> Any:
    """Open one record by its number, to decide it or to correct a decision."""
    view, body = _view(task), json_body()
    opened = _queue(view.task).open(g.person["id"], _id(body, "record_id"), _text(body, "page"))
    return jsonify(view.payload(opened))


@blueprint.post("/api/renew")
def renew(project_id: int, task: str) -> Any:
    """Return a record that lies ready on a page as it is now, with a fresh suggestion; 204 if the page lost it.

    ``suggestion_id`` is the suggestion that the page has; if it is still the one, the answer is ``same``, without more.
    """
    found = _renewed(_view(task), *_ready(json_body()))
    return jsonify(found) if found else ("", 204)


@blueprint.post("/api/decide")
def decide(project_id: int, task: str) -> Any:
    """Store a decision; safe to send twice with one ``request_key``.

    ``then`` is the record that lies ready on the page, as :func:`renew` is asked for it; ``then`` of the answer is that
    record as it is after this decision, None if the page lost it, and missing if it could not be renewed.

    :raise 400: the label schema does not allow the value
    :raise 409: somebody else decided or holds the record; ``current`` says what stands
    """
    view, body = _view(task), json_body()
    decision, then = _decision(body), body.get("then")
    if not isinstance(then, (dict, NoneType)):
        raise InputError("'then' must be an object with record_id, page and suggestion_id")
    ready = None if then is None else _ready(then)
    guideline = body.get("guideline") is True and bool(decision.reason)
    if guideline and not adjudicates():
        raise Forbidden("Only an adjudicator or an admin adds a line to the guidelines")
    decided = _decisions(view.task).decide(g.person["id"], decision)
    note = _moved(view, decision, decided)
    if guideline and not decided.repeated:
        note = _add_guideline(view, decision.reason) or note
    return jsonify(
        annotation_id=decided.annotation_id,
        record_id=decided.record_id,
        state=decided.state,
        how=decided.how,
        version=decided.version,
        repeated=decided.repeated,
        came_to=decided.came_to,
        note=note,
        strip=view.strip(_decisions(view.task).strip(g.person["id"])),
        **({} if ready is None else _then(view, ready)),
    )


@blueprint.post("/api/skip")
def skip(project_id: int, task: str) -> Any:
    """Put a record back; it comes to this reviewer again after all others."""
    body = json_body()
    _queue(project_task(task)).skip(g.person["id"], _id(body, "record_id"))
    return jsonify(skipped=body["record_id"])


@blueprint.post("/api/undo")
def undo(project_id: int, task: str) -> Any:
    """Take back the reviewer's last decision and open its record again; ``undone`` is what had been decided.

    Safe to send twice with one ``request_key``, which it needs: sent twice without, it would take back two decisions.
    """
    view, body = _view(task), json_body()
    decisions, page, key = _decisions(view.task), _text(body, "page"), _text(body, "request_key")
    if not 8 <= len(key) <= 100:
        raise InputError("An undo needs a request_key of 8 to 100 characters, new for each undo")
    taken = decisions.undo(g.person["id"], key, page)
    payload = view.payload(_queue(view.task).open(g.person["id"], taken.record_id, page))
    strip = view.strip(decisions.strip(g.person["id"]))
    undone = None if taken.took_back is None else view.undone(taken.took_back)
    return jsonify(payload | {"undone": undone, "strip": strip})


@blueprint.post("/api/touch")
def touch(project_id: int, task: str) -> Any:
    """Say that a person works on the draft: the claim starts anew, for ``lease`` seconds.

    With ``draft``, an object with its ``value``, it is kept for the person, who may go on with it elsewhere.

    :raise 400: the draft is too long
    :raise 409: somebody else holds the record now, or decided on it since it was opened with ``version``
    """
    body = json_body()
    version, draft = None if body.get("version") is None else _id(body, "version"), body.get("draft")
    if not (draft is None or (isinstance(draft, dict) and "value" in draft)):
        raise InputError("'draft' must be an object with a value")
    queue = _queue(project_task(task))
    lease = queue.touch(g.person["id"], _id(body, "record_id"), _text(body, "token"), version, draft)
    return jsonify(touched=True, lease=lease)


@blueprint.post("/api/leave")
def leave(project_id: int, task: str) -> Any:
    """Put back the records of one closed page (``records``: their ids and tokens), or everything held here."""
    body = json_body()
    chosen = project_task(task)
    if "records" not in body:
        _queue(chosen).leave(g.person["id"])
        return jsonify(left=True)
    records = body["records"]
    if not isinstance(records, list) or not all(isinstance(item, dict) for item in records[:_MAX_HAVE]):
        raise InputError("'records' must be a list of objects with record_id and token")
    held = {_id(item, "record_id"): _text(item, "token") for item in records[:_MAX_HAVE]}
    _queue(chosen).leave(g.person["id"], held)
    return jsonify(left=True)


@blueprint.get("/api/strip")
def strip(project_id: int, task: str) -> Any:
    """Return the reviewer's last decisions, newest first."""
    view = _view(task)
    return jsonify(strip=view.strip(_decisions(view.task).strip(g.person["id"])))


@blueprint.get("/api/counts")
def counts(project_id: int, task: str) -> Any:
    return jsonify(_counts(project_id, project_task(task)))


@blueprint.get("/api/example/<int:annotation_id>")
def example(project_id: int, task: str, annotation_id: int) -> Any:
    """Return an example of the evidence: its full text, label, who approved it and when, and its history."""
    return jsonify(html=_view(task).example(annotation_id))


@blueprint.get("/api/moved/<int:record_id>/<int:suggestion_id>")
def moved(project_id: int, task: str, record_id: int, suggestion_id: int) -> Any:
    """Return which words of a record moved its suggestion; nothing for a blind record."""
    view = _view(task)
    if max(record_id, suggestion_id) > _MAX_ID:
        raise NotFound("There is no such page")
    return jsonify(html=view.moved(_queue(view.task).look(g.person["id"], record_id), suggestion_id))


def _view(task: str) -> DeskView:
    locale = get_locale()
    language = locale.language if locale else "ko"
    return DeskView(instance(), g.project, project_task(task), language, adjudicates(), int(g.person["id"]))


def _queue(task: Task) -> Queue:
    return instance().queue(g.project, task)


def _decisions(task: Task) -> Decisions:
    return instance().decisions(g.project, task, adjudicates())


def _orders(project_id: int, task: str) -> Sequence[str]:
    """Return the orders of the queue for the person; an adjudicator may also take what people disagree on."""
    disputed = adjudicates() and instance().store.work.counts(project_id, task)[DISPUTED]
    return (*ORDERS, DISPUTED) if disputed or (request.args.get("order") == DISPUTED and adjudicates()) else ORDERS


def _similar_by() -> str:
    """Return what the order "similar" compares texts by now."""
    return instance().best_embeddings(g.project).name


def _counts(project_id: int, task: Task) -> dict[str, int]:
    """Return the records by state, and how many are ``done`` for the person: decided, disputed, or waiting for others
    after their own word."""
    found = instance().store.work.counts(project_id, task.name)
    total = sum(found.values())
    own = instance().store.ballots.count_own(project_id, task.name, g.person["id"])
    return found | {"total": total, "done": total - found[PENDING] + own} | waiting(project_id)


def _ready(body: dict[str, Any]) -> tuple[int, str, int | None]:
    """Read which record lies ready on which page, with which suggestion."""
    shown = body.get("suggestion_id")
    return _id(body, "record_id"), _text(body, "page"), None if shown is None else _whole(shown, "suggestion_id")


def _renewed(view: DeskView, record_id: int, page: str, shown_id: int | None) -> dict[str, Any] | None:
    opened = _queue(view.task).renew(g.person["id"], record_id, page)
    return view.renewed(opened, shown_id) if opened else None


def _then(view: DeskView, ready: tuple[int, str, int | None]) -> dict[str, Any]:
    try:
        return {"then": _renewed(view, *ready)}
    except LabelerError as error:
        # The decision is stored, and that is what the answer says; the record is shown as it came.
        log.info("Record %d could not be renewed: %s", ready[0], error)
        return {}


def _moved(view: DeskView, decision: Decision, decided: Decided) -> str | None:
    """Say of a decision of an older page what it was stored as, if labels have other names since."""
    asked, version = decision.value, decision.task_version
    if decided.state != APPROVED or not version or view.task.carried(asked, version) == asked:
        return None
    shown = view.task.schema.render(decided.value, view.language)
    return str(_("The labels of this task were changed meanwhile; your decision was saved as: %(label)s", label=shown))


def _add_guideline(view: DeskView, line: str) -> str | None:
    """Add a reason to the guidelines. The decision is stored already: what goes wrong is said, and refuses nothing."""
    try:
        instance().add_guideline(g.project, view.task.name, line, view.language, g.person["id"])
    except LabelerError as error:
        log.info("A line was not added to the guidelines of %s: %s", view.task.name, error)
        return str(
            _("Your decision is saved, but the guidelines were not changed: %(why)s", why=translated(str(error)))
        )
    return None


def _decision(body: dict[str, Any]) -> Decision:
    seconds = body.get("seconds")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float))):
        raise InputError("'seconds' must be a number")
    suggestion_id = body.get("suggestion_id")
    return Decision(
        record_id=_id(body, "record_id"),
        action=_text(body, "action"),
        request_key=_text(body, "request_key"),
        version=_id(body, "version"),
        value=body.get("value"),
        suggestion_id=None if suggestion_id is None else _whole(suggestion_id, "suggestion_id"),
        blind=body.get("blind") is True,
        seconds=None if seconds is None else float(seconds),
        force=body.get("force") is True,
        task_version=_text(body, "task_version"),
        reason=_text(body, "reason"),
    )


def _id(body: dict[str, Any], name: str) -> int:
    return _whole(body.get(name), name)
