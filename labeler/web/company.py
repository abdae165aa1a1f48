"""Signing in with the account of a company: away to its provider, and back.

Both addresses are opened by GET: browsers hold form-action of our policy against the redirect after a form, and
providers send people back by a link.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, current_app, redirect, request, session, url_for

from labeler import accounts
from labeler.errors import LabelerError
from labeler.oidc import Begun, Provider, Registration, code_of
from labeler.web.access import instance, public
from labeler.web.forms import go_on, same_site
from labeler.web.signin import enter, refused

blueprint = Blueprint("company", __name__)
_KEPT = "company"
# Browsers drop a cookie of more than 4 KB; the session is one.
_LONGEST = 1000


@blueprint.get("/sign-in/company")
@public
def begin() -> Any:
    registered = Registration.of(instance().settings)
    if registered is None:
        return go_on("signin.form")
    target = same_site(request.args.get("next"))
    try:
        address, begun = _provider(registered).begin(_back())
    except LabelerError as error:
        return refused(error, target)
    session[_KEPT] = [list(begun), target if target and len(target) < _LONGEST else None]
    return redirect(address, 303)


@blueprint.get("/sign-in/company/back")
@public
def back() -> Any:
    registered = Registration.of(instance().settings)
    # What was begun is good for one answer, whatever that is.
    kept, target = session.pop(_KEPT, None) or (None, None)
    if registered is None:
        return go_on("signin.form")
    begun = Begun(*kept) if kept else None
    try:
        person = _person(registered, begun)
    except LabelerError as error:
        return refused(error, target)
    enter(person)
    return redirect(same_site(target) or url_for("projects.index"), 303)


def _person(registered: Registration, begun: Begun | None) -> Any:
    code, settings = code_of(begun, request.args, registered.issuer), instance().settings
    assert begun is not None
    provider = _provider(registered)
    return accounts.sign_in_by(
        instance().store,
        lambda: provider.identity(code, begun, _back()),
        settings.get("oidc_allowed") or [],
        bool(settings.get("oidc_new_accounts")),
        begun.state,
        request.remote_addr or "unknown",
    )


def _back() -> str:
    """The address that the provider sends people back to, and that it is told beforehand: see --public-url."""
    return url_for("company.back", _external=True)


def _provider(registered: Registration) -> Provider:
    """Return the provider that the settings name now; one that was known before is forgotten."""
    kept: Provider | None = current_app.extensions.get("labeler.provider")
    if kept is None or kept.registered != registered:
        kept = current_app.extensions["labeler.provider"] = Provider(registered)
    return kept
