"""What was done, and by whom: sign-ins, accounts, settings, runs, exports, and labels if asked. For admins."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, render_template, request, stream_with_context, url_for

from labeler import strictjson
from labeler.annotation.query import period
from labeler.errors import InputError, NotFound
from labeler.export.formats.tables import csv_line
from labeler.sentence import N_
from labeler.store import Row
from labeler.store.journal import Wanted
from labeler.web.access import admin_only, instance
from labeler.web.words import ACTS, EVENTS, LABELING, _, setting_title, word

PAGE = 50
_AT_ONCE = 1000
_MAX_ID = 2**62
_FIELDS = ("person", "project", "kind", "since", "until", "labels")
_COLUMNS = ("when", "person", "what", "project", "task", "record", "details")
_TITLES = {
    "when": N_("When"), "person": N_("Person"), "what": N_("What"), "project": N_("Project"), "task": N_("Task"),
    "record": N_("Record"), "details": N_("Details"),
}  # fmt: skip
blueprint = Blueprint("audit", __name__)


@blueprint.get("/people/acts")
@admin_only
def page() -> Any:
    """What was done, newest first; ``before`` is the number after which the next page goes on.

    :raise 400: a day cannot be read
    """
    given: dict[str, Any] = {name: request.args[name] for name in _FIELDS if request.args.get(name)}
    message = ""
    try:
        wanted = _wanted()
    except InputError as error:
        wanted, message = Wanted(), str(error)
    store = instance().store
    rows = store.events.acts(_number("before"), PAGE, wanted)
    more = url_for("audit.page", **given, before=rows[-1]["id"]) if len(rows) == PAGE else None
    shown = render_template(
        "acts.html",
        acts=[dict(row) | {"said": _said_of(row)} for row in rows],
        more=more,
        given=given,
        message=message,
        people=store.people.all(),
        projects=store.projects.all(),
        kinds={**EVENTS, **LABELING} if wanted.labels else EVENTS,
        sheet=url_for("audit.download", **given),
    )
    return shown, 400 if message else 200


@blueprint.get("/people/acts.csv")
@admin_only
def download() -> Any:
    """Hand out what the page finds, all of it, for spreadsheets; cells cannot become formulas. Times are UTC.

    :raise 400: a day cannot be read
    """
    response = Response(stream_with_context(_lines(_wanted())), mimetype="text/csv")
    response.headers["Content-Disposition"] = 'attachment; filename="what-was-done.csv"'
    return response


def _lines(wanted: Wanted) -> Iterator[str]:
    store, before = instance().store, None
    yield "\ufeff" + csv_line([str(_(_TITLES[name])) for name in _COLUMNS], True)
    while rows := store.events.acts(before, _AT_ONCE, wanted):
        before = rows[-1]["id"]
        for row in rows:
            at = f"{datetime.fromtimestamp(row['at'], UTC):%Y-%m-%dT%H:%M:%SZ}"
            said = " · ".join(part for part in _said_of(row) if part not in (row["project"], row["task"]))
            cells = (at, row["who"], word(row["kind"]), row["project"], row["task"], row["key"], said)
            yield csv_line([cell or "" for cell in cells], True)


def _wanted() -> Wanted:
    """Read what the address asks for. Raises :class:`InputError` for a day that is none."""
    since, until = request.args.get("since"), request.args.get("until")
    return Wanted(
        person=_number("person"),
        project=_number("project"),
        kind=request.args.get("kind") or None,
        since=period("since", since)[0] if since else None,
        until=period("until", until)[1] if until else None,
        labels=request.args.get("labels") == "1",
    )


def _number(name: str) -> int | None:
    """Return a number in the address of a page; None without one."""
    raw = request.args.get(name) or None
    if raw is not None and not (raw.isdecimal() and len(raw) < 20 and 0 < int(raw) < _MAX_ID):
        raise NotFound("There is no such page")
    return None if raw is None else int(raw)


def _said_of(act: Row) -> list[str]:
    """Return what an event says beside who and what: whom and what it was done to."""
    detail = strictjson.loads(act["detail"])
    found = [act["account"], act["project"], act["task"], detail.get("format"), detail.get("address")]
    found += [_(ACTS[detail["act"]]) if detail["act"] in ACTS else None, detail["query"]] if "act" in detail else []
    if "email" in detail:
        found.append(detail["email"] or _("No e-mail"))
    if "run" in detail:
        found.append(_("Run %(number)s", number=detail["run"]))
    if "role" in detail:
        found.append(word(detail["role"]) if detail["role"] else _("Removed from the project"))
    if "disabled" in detail:
        found.append(_("Close account") if detail["disabled"] else _("Open again"))
    found += [setting_title(name) for name in detail.get("changed", [])]
    found += [f"{old} → {new}" for how in ("renamed", "merged") for old, new in detail.get(how, {}).items()]
    ways = {"retired": _("Retired"), "reopened": _("Put back to pending")}
    found += [f"{words}: {name}" for how, words in ways.items() for name in detail.get(how, [])]
    if "openai_base_url" in detail.get("changed", []):
        found.append(detail["openai_base_url"])
    return [str(part) for part in found if part]
