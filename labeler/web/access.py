"""Who may do what: one place, default deny.

Every view needs a signed-in reviewer unless it is marked :func:`public`, an admin where it is marked
:func:`admin_only`, and an admin or a person whom the project allows it where it is marked :func:`allowed`. Observers
see what reviewers see, and change nothing. A view with ``project_id`` in its address finds the project in
``g.project``: for people who are not its members (and no admins) it does not exist. A test walks every route.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, Response, current_app, g, request, session
from flask.sessions import SecureCookieSessionInterface, SessionMixin

from labeler import accounts, strictjson
from labeler.errors import Forbidden, InputError, NotFound, NotSignedIn
from labeler.instance import Instance
from labeler.settings import NUMBERS, RIGHTS
from labeler.store.projects import check_in_use
from labeler.task import Task
from labeler.web.address import LOOPBACK, NAMED, Environ, PublicUrl, host_of, is_own_address

View = TypeVar("View", bound=Callable[..., Any])
PUBLIC, SIGNED_IN, ADMIN = "public", "signed in", "admin"
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# What may be done with an archived project: export it, bring it back, remove it.
_OF_ARCHIVED = ("exports", "removal")
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def public(view: View) -> View:
    """Mark a view that people may see before they sign in."""
    view.access = PUBLIC  # type: ignore[attr-defined]
    return view


def admin_only(view: View) -> View:
    """Mark a view for admins (of the instance, or of the project in its address)."""
    view.access = ADMIN  # type: ignore[attr-defined]
    return view


def allowed(right: str) -> Callable[[View], View]:
    """Mark a view for admins of the project, and for those who have a right: see :func:`may`."""

    def mark(view: View) -> View:
        view.access = right  # type: ignore[attr-defined]
        return view

    return mark


def may(right: str) -> bool:
    """Return whether the person has a right in the project of the address: one of :data:`labeler.settings.RIGHTS`.

    Admins have all of them. Reviewers and adjudicators have those that the project gives them; whoever settles what
    people disagree on, or only looks on, sees the numbers.
    """
    if g.role == accounts.ADMIN:
        return True
    if right == NUMBERS and g.role in (accounts.ADJUDICATOR, accounts.OBSERVER):
        return True
    return g.role != accounts.OBSERVER and right in instance().project_settings(g.project)["reviewers_may"]


def adjudicates() -> bool:
    """Return whether the person settles what several people disagree on."""
    return g.role in (accounts.ADJUDICATOR, accounts.ADMIN)


def takes_upload(view: View) -> View:
    """Mark a view whose request may be as long as an upload may be; all others take small bodies only."""
    view.takes_upload = True  # type: ignore[attr-defined]
    return view


def access_of(app: Flask, endpoint: str) -> str:
    """Return what an endpoint needs; static files are public, everything unmarked needs a signed-in reviewer."""
    if endpoint == "static":
        return PUBLIC
    return getattr(app.view_functions[endpoint], "access", SIGNED_IN)


def instance() -> Instance:
    """The open instance of this app."""
    found: Instance = current_app.extensions["labeler"]
    return found


def project_task(name: str) -> Task:
    """Return a task of the project in the address. Raises :class:`NotFound` if the project does not have it."""
    return instance().project_task(g.project, name)


def json_body() -> dict[str, Any]:
    """Return the strict JSON object of the request. Raises :class:`InputError` for any other type or content."""
    if request.mimetype != "application/json":
        raise InputError("Send JSON with the content type application/json")
    body = strictjson.loads(request.get_data())
    if not isinstance(body, dict):
        raise InputError("Send one JSON object")
    return body


def whole_of(raw: Any, name: str) -> int:
    """Return a number of a JSON object as one that a row can have. Raises :class:`InputError` for anything else."""
    # SQLite's integers end at 2**63 - 1; a larger one would be an error 500.
    if type(raw) is not int or not 0 <= raw < 2**63:
        raise InputError(f"{name!r} must be a whole number")
    return raw


def text_in(body: dict[str, Any], name: str) -> str:
    """Return a text of a JSON object, empty where there is none. Raises :class:`InputError` for anything else."""
    raw = body.get(name, "")
    if not isinstance(raw, str) or len(raw) > 2000:
        raise InputError(f"{name!r} must be a text of at most 2000 characters")
    return raw


def start_session(person: Any) -> None:
    """Let the cookie of this answer sign a person in."""
    session.clear()
    session.permanent = True
    session["reviewer"] = person["id"]
    session["epoch"] = person["epoch"]
    session["secret"] = secrets.token_urlsafe(16)


def end_session() -> None:
    """Sign out, whoever else has a copy of this cookie too."""
    lifetime = current_app.permanent_session_lifetime.total_seconds()
    if not instance().read_only:
        accounts.sign_out(instance().store, g.person["id"], _secret(), lifetime)
    session.clear()


class _Sessions(SecureCookieSessionInterface):
    """Renews the cookie with every answer but static files, which are kept by browsers and proxies."""

    def __init__(self) -> None:
        self._signer: Any = None

    def get_signing_serializer(self, app: Flask) -> Any:
        """Return what signs cookies, made once: every request needs it twice."""
        self._signer = self._signer or super().get_signing_serializer(app)
        return self._signer

    def should_set_cookie(self, app: Flask, session: SessionMixin) -> bool:
        return request.endpoint != "static" and super().should_set_cookie(app, session)


def guard(app: Flask) -> None:
    """Install the checks before, and the headers after, every request."""

    app.session_interface = _Sessions()
    app.before_request(check)
    url: PublicUrl | None = app.config["LABELER_PUBLIC_URL"]
    headers = dict(_HEADERS)
    if url is not None and url.scheme == "https":
        headers["Strict-Transport-Security"] = "max-age=31536000"

    @app.after_request
    def harden(response: Response) -> Response:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def check() -> None:
    """Decide by its head whether a request goes on. Raises what is wrong with it."""
    # Static files are the same for everybody: whoever keeps them keeps nothing of a person.
    g.person = None if request.endpoint == "static" else _signed_in()
    g.project = None
    g.role = None
    _check_host()
    if _changes():
        _check_origin()
    if request.endpoint is None:
        return
    needed = access_of(current_app, request.endpoint)
    if needed == PUBLIC:
        return
    if g.person is None:
        raise NotSignedIn("Please sign in")
    g.role = g.person["role"]
    project_id = (request.view_args or {}).get("project_id")
    if project_id is not None:
        _load_project(project_id)
    if (needed == ADMIN and g.role != accounts.ADMIN) or (needed in RIGHTS and not may(needed)):
        raise Forbidden("Only an admin may do this")
    if g.role == accounts.OBSERVER and _changes():
        raise Forbidden("An observer of a project can look at everything and change nothing")
    if getattr(current_app.view_functions[request.endpoint], "takes_upload", False):
        request.max_content_length = current_app.config["LABELER_MAX_UPLOAD"]


def body_limit(app: Flask, environ: Environ) -> int:
    """Return how many bytes the body of a request may have, by its head: many for an upload by who may make it."""
    app.extensions["labeler.edge"].settle(environ)
    small: int = app.config["MAX_CONTENT_LENGTH"]
    with app.request_context(environ):
        try:
            check()
        except Exception:
            # Whatever it is, the request itself meets it again, and is answered with it.
            return small
        return request.max_content_length or small


def _signed_in() -> Any:
    id_ = session.get("reviewer")
    person = accounts.of_session(instance().store, id_, _secret()) if isinstance(id_, int) else None
    # A new password or role raises the epoch: cookies from before it are worth nothing.
    if person is None or person["disabled"] or session.get("epoch") != person["epoch"]:
        return None
    return person


def _secret() -> str:
    """Return what a session is known by; those from before sessions could be ended share one by account."""
    return str(session.get("secret") or f"{session['reviewer']}/{session.get('epoch')}")


def _load_project(given: Any) -> None:
    # The address of a plugin's view may say <project_id> without int.
    if not str(given).isdecimal():
        raise NotFound("There is no such project")
    project_id = int(given)
    role, project = instance().store.projects.of_person(project_id, g.person["id"])
    if project is None or (role is None and g.person["role"] != accounts.ADMIN):
        raise NotFound("There is no such project")
    g.project = project
    g.role = accounts.ADMIN if g.person["role"] == accounts.ADMIN else role
    if _changes() and (request.endpoint or "").split(".")[0] not in _OF_ARCHIVED:
        check_in_use(g.project)


def _changes() -> bool:
    return request.method not in ("GET", "HEAD", "OPTIONS")


def _check_host() -> None:
    """Against DNS rebinding: the server answers to its own names, and to the IP addresses of its machine."""
    url: PublicUrl | None = current_app.config["LABELER_PUBLIC_URL"]
    names = {*LOOPBACK, *current_app.config["LABELER_HOSTS"], *([url.host] if url else [])}
    host = host_of(request.environ.get(NAMED, request.host))
    if host not in names and not is_own_address(host):
        raise InputError(
            "This server does not answer to that host name; start it with --public-url and the address as people open "
            "it, and behind a proxy pass the name on (nginx: proxy_set_header Host $http_host)"
        )


def _check_origin() -> None:
    origin = request.headers.get("Origin")
    url: PublicUrl | None = current_app.config["LABELER_PUBLIC_URL"]
    if origin is None or origin == f"{request.scheme}://{request.host}":
        return
    if url is not None:
        raise Forbidden("The request comes from another site; open Labeler at %(url)s", url=url)
    raise Forbidden("The request comes from another site; behind a proxy, start Labeler with --public-url")
