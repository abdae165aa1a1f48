"""The Flask app: the page on top of an open instance. Only the command line and tests make one."""

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import Any

from flask import Flask, g, request, session
from flask_babel import Babel
from flask_babel import gettext as _
from flask_wtf.csrf import CSRFProtect

from labeler.instance import Instance
from labeler.web import access, errors, screens, show

LANGUAGES = ("ko", "en")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def create_app(instance: Instance, config: dict[str, Any] | None = None) -> Flask:
    """Return the app of an open instance.

    ``config`` may set any Flask setting, and LABELER_HOSTS: the host names the server answers to (empty: any).
    """
    app = Flask(
        "labeler",
        instance_path=str(instance.folder),
        template_folder=_package_folder("labeler_templates"),
        static_folder=_package_folder("labeler_static"),
        # Without it the address would be the folder's name, which in a wheel is another one.
        static_url_path="/static",
    )
    app.config.from_mapping(
        SECRET_KEY=instance.secret_key,
        LABELER_HOSTS=LOOPBACK,
        MAX_CONTENT_LENGTH=2 * 1024 * 1024,
        MAX_FORM_MEMORY_SIZE=2 * 1024 * 1024,
        MAX_FORM_PARTS=2000,
        SESSION_COOKIE_NAME="labeler",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=timedelta(days=14),
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=False,
        BABEL_DEFAULT_LOCALE="ko",
    )
    app.config.from_mapping(config or {})
    app.extensions["labeler"] = instance
    # The checks of access come first: CSRF is checked for people who may be here at all.
    access.guard(app)
    CSRFProtect(app)
    Babel(app, locale_selector=language, default_translation_directories=_package_folder("labeler") + "/translations")
    errors.install(app)
    show.install(app)
    app.context_processor(_page_context)
    for blueprint in screens.blueprints():
        app.register_blueprint(blueprint)
    for blueprint in instance.plugins.blueprints(taken=app.blueprints):
        app.register_blueprint(blueprint)
    return app


def language() -> str:
    """The language of the page: what the person chose, else the browser's, else Korean."""
    chosen = session.get("language") or (g.person["language"] if g.get("person") else None)
    if chosen in LANGUAGES:
        return str(chosen)
    return request.accept_languages.best_match(LANGUAGES) or "ko"


def _page_context() -> dict[str, Any]:
    return {
        "person": g.get("person"),
        "project": g.get("project"),
        "role": g.get("role"),
        "language": language(),
        "_": _,
    }


def _package_folder(name: str) -> str:
    module = importlib.import_module(name)
    return str(next(iter(module.__path__)))
