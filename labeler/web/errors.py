"""The one place that turns errors into pages, or into JSON for programs. The log gets the trace, the browser never."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, g, jsonify, make_response, redirect, render_template, request, url_for
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from labeler.accounts import ADMIN
from labeler.errors import FULL, Conflict, JsonError, LabelerError, LabelError, NotSignedIn, StoreFull, Throttled
from labeler.sentence import Sentence
from labeler.text import one_line
from labeler.web.access import instance
from labeler.web.words import translated

log = logging.getLogger("labeler.web")


def wants_json() -> bool:
    """Whether the caller is a program: our JSON API, or a request that carries or accepts JSON only."""
    if "/api/" in request.path or request.mimetype == "application/json":
        return True
    best = request.accept_mimetypes.best_match(["text/html", "application/json"])
    return best == "application/json"


def install(app: Flask) -> None:
    @app.errorhandler(LabelerError)
    def labeler_error(error: LabelerError) -> Any:
        if error.status >= 500:
            log.error("%s %s: %s", request.method, one_line(request.path), one_line(str(error)))
        if isinstance(error, NotSignedIn) and request.method == "GET" and not wants_json():
            return redirect(url_for("signin.form", next=request.script_root + request.full_path.rstrip("?")))
        return answer(error.status, str(error), error)

    @app.errorhandler(CSRFError)
    def csrf_error(error: CSRFError) -> Any:
        return answer(403, Sentence("This page is too old or was not opened here; load it again and repeat"))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Any:
        code = error.code or 500
        if code < 400:
            return error
        messages = {
            404: Sentence("There is no such page"),
            405: Sentence("This address does not allow that method"),
            413: Sentence("This is too large to be sent here"),
        }
        return answer(code, messages.get(code, error.name))

    @app.errorhandler(OSError)
    def system_error(error: OSError) -> Any:
        if error.errno in FULL:
            return labeler_error(StoreFull("The disk is full; free some space and try again. Nothing was lost"))
        return unexpected(error)

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Any:
        log.exception("%s %s failed", request.method, one_line(request.path))
        sentence = plugin_failure(error)
        if sentence:
            return answer(500, sentence)
        return answer(500, Sentence("Something went wrong inside Labeler; the log says what"))


def plugin_failure(error: BaseException) -> str | None:
    """Return which plugin raised ``error``, and where; what it says, which may hold a key, is told to admins only."""
    blamed = instance().plugins.blamed(error)
    if blamed is None:
        return None
    person = g.get("person")
    admin = person is not None and person["role"] == ADMIN
    return Sentence("The plugin %(name)s failed: %(why)s", name=blamed.name, why=blamed.said if admin else blamed.where)


def answer(status: int, message: str, error: LabelerError | None = None) -> Any:
    """Return the error as JSON or as a page, with the status and the headers that belong to it.

    In JSON, ``error`` is English, for programs, and ``said`` is what the desk shows. Of a value that is refused,
    ``item`` names the part, the label or the keyword that is wrong.
    """
    if wants_json():
        body: dict[str, Any] = {"error": message, "said": translated(message)}
        if isinstance(error, Conflict):
            body["current"] = error.current
        if isinstance(error, LabelError):
            body["item"] = error.item
        if isinstance(error, JsonError):
            body |= {"line": error.line, "column": error.column}
        response = make_response(jsonify(body), status)
    elif request.headers.get("HX-Request"):
        response = make_response(render_template("_error.html", message=message), status)
    else:
        response = make_response(render_template("error.html", status=status, message=message), status)
    if isinstance(error, Throttled):
        response.headers["Retry-After"] = str(int(error.retry_after))
    return response
