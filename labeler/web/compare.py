"""Compare: answers of several models to one record, side by side without their names, put in order by a person."""

from __future__ import annotations

import secrets
from typing import Any

from flask import Blueprint, g, render_template, request
from flask_babel import get_locale

from labeler import strictjson
from labeler.annotation.comparing import Comparing
from labeler.errors import InputError, NotFound
from labeler.store.rankings import Tiers
from labeler.task import Task
from labeler.web.access import instance, project_task
from labeler.web.desk_view import text_parts
from labeler.web.forms import decimal, go_on, text, whole

blueprint = Blueprint("compare", __name__, url_prefix="/projects/<int:project_id>/compare")
_MAX_ID = 2**63 - 1


@blueprint.get("")
def page(project_id: int) -> Any:
    """Show the next record of a task whose answers differ. ``record`` opens one, ``after`` goes on behind another."""
    tasks = instance().tasks_of(g.project)
    name = request.args.get("task") or next(iter(tasks), None)
    if name is None:
        raise NotFound("This project has no tasks")
    task = project_task(name)
    room, who = _room(task), g.person["id"]
    record_id, after = (min(max(request.args.get(key, 0, int), 0), _MAX_ID) for key in ("record", "after"))
    found = (room.open(who, record_id) if record_id else None) or room.next(who, after)
    locale = get_locale()
    return render_template(
        "compare.html",
        task=task,
        tasks=tasks,
        schema=task.schema,
        found=found,
        parts=text_parts(found.record) if found else [],
        origin=instance().store.written.origins([found.record.id]).get(found.record.id) if found else None,
        language=locale.language if locale else "ko",
        ranked=instance().store.rankings.count(project_id, task.name, who),
        last=room.last(who),
        request_key=secrets.token_hex(8),
    )


@blueprint.post("/rank")
def rank(project_id: int) -> Any:
    """Keep a ranking: ``ranked`` is JSON, a list of lists of the names of answers, the best first."""
    task, record_id = project_task(text("task", 80)), whole("record_id", 1, _MAX_ID) or 0
    _room(task).rank(
        g.person["id"],
        record_id,
        _tiers(text("ranked", 2000)),
        text("request_key", 100),
        none_good=bool(text("none", 1)),
        seconds=decimal("seconds", 0, 1e9),
    )
    return go_on("compare.page", project_id=project_id, task=task.name, after=record_id)


@blueprint.post("/undo")
def undo(project_id: int) -> Any:
    """Take back the person's last ranking, and open its record again."""
    task = project_task(text("task", 80))
    record_id = _room(task).undo(g.person["id"], whole("ranking", 1, _MAX_ID) or 0)
    opened = {"record": record_id} if record_id else {}
    return go_on("compare.page", project_id=project_id, task=task.name, **opened)


def _room(task: Task) -> Comparing:
    return instance().comparing(g.project, task)


def _tiers(given: str) -> Tiers:
    found = strictjson.loads(given)
    if not isinstance(found, list) or not all(
        isinstance(tier, list) and all(isinstance(name, str) for name in tier) for tier in found
    ):
        raise InputError("'ranked' must be a list of lists of the names of answers")
    return found
