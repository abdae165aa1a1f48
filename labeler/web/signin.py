"""Signing in: by name and password, or by a one-time link; one's own password and language.

:mod:`labeler.web.company` is the third way.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, flash, g, make_response, redirect, render_template, request, session, url_for

from labeler import accounts
from labeler.errors import InputError, LabelerError, NotSignedIn, Throttled
from labeler.oidc import Registration
from labeler.web.access import end_session, instance, public, start_session
from labeler.web.forms import go_on, same_site, text
from labeler.web.words import _

LANGUAGES = ("ko", "en")
blueprint = Blueprint("signin", __name__)


@blueprint.get("/sign-in")
@public
def form() -> Any:
    if g.person:
        return go_on("projects.index")
    return _page(next=same_site(request.args.get("next")), first=_nobody_yet())


@blueprint.post("/sign-in")
@public
def sign_in() -> Any:
    name, target = text("name", 200), same_site(request.form.get("next"))
    try:
        person = accounts.sign_in(
            instance().store, name, request.form.get("password", ""), request.remote_addr or "unknown"
        )
    except (NotSignedIn, Throttled) as error:
        return refused(error, target, name)
    enter(person)
    return redirect(target or url_for("projects.index"), 303)


@blueprint.get("/welcome")
@public
def link() -> Any:
    """Show a one-time link's button. Looking at a link (as mail scanners do) does not use it up; the button does."""
    return render_template(
        "welcome.html", token=request.args.get("token", ""), next=same_site(request.args.get("next"))
    )


@blueprint.post("/welcome")
@public
def enter_by_link() -> Any:
    try:
        person = accounts.use_link(instance().store, request.form.get("token", ""), request.remote_addr or "unknown")
    except NotSignedIn as error:
        return render_template("welcome.html", token="", message=str(error)), error.status
    enter(person)
    # Who had to ask for a link has no password or has forgotten it.
    session["by_link"] = True
    target = same_site(request.form.get("next"))
    # The demonstration leads straight to its project; everybody else is first asked for a password.
    if target and target != url_for("projects.index"):
        return redirect(target, 303)
    return go_on("signin.account")


@blueprint.post("/sign-out")
def sign_out() -> Any:
    end_session()
    return go_on("signin.form")


@blueprint.get("/account")
def account() -> Any:
    return _account_page()


@blueprint.post("/account")
def change_password() -> Any:
    new = request.form.get("new", "")
    try:
        if new != request.form.get("repeat", ""):
            raise InputError(_("The two new passwords differ; type the same one twice"))
        if session.get("by_link"):
            accounts.set_password(instance().store, g.person["id"], new, g.person["id"])
        else:
            accounts.change_password(instance().store, g.person["id"], new, request.form.get("old", ""))
    except InputError as error:
        return _account_page(str(error)), error.status
    # All sessions of the account have ended, this one too; it goes on under the new password.
    enter(instance().store.people.get(g.person["id"]))
    flash(_("Your password is set. Other devices have been signed out."))
    return go_on("projects.index")


def _account_page(message: str = "") -> str:
    needs_old = bool(g.person["password"]) and not session.get("by_link")
    return render_template("account.html", needs_old=needs_old, message=message)


@blueprint.post("/language")
@public
def language() -> Any:
    chosen = request.form.get("language", "")
    if chosen not in LANGUAGES:
        raise InputError(f"No language {chosen[:20]!r}; there are: {', '.join(LANGUAGES)}")
    session["language"] = chosen
    if g.person and not instance().read_only:
        store, id_ = instance().store, g.person["id"]
        store.write(lambda tx: store.people.change(tx, id_, language=chosen))
    return redirect(same_site(request.form.get("next")) or url_for("projects.index"), 303)


def refused(error: LabelerError, target: str | None = None, name: str = "") -> Any:
    """Return the page to sign in at, with what went wrong."""
    # With the status, the page does not carry its own address on: there is a code of the provider in it.
    page = _page(next=target, name=name, message=str(error), first=False, status=error.status)
    response = make_response(page, error.status)
    if isinstance(error, Throttled):
        response.headers["Retry-After"] = str(int(error.retry_after))
    return response


def _page(**shown: Any) -> str:
    settings = instance().settings
    return render_template(
        "sign_in.html", company=Registration.of(settings) and (settings.get("oidc_title") or ""), **shown
    )


def enter(person: Any) -> None:
    """Start the session of a person, who keeps the language of the page."""
    chosen = session.get("language")
    start_session(person)
    if chosen:
        session["language"] = chosen


def _nobody_yet() -> bool:
    return instance().store.people.count() == 0
