"""The Flask app: the page on top of an open instance. Only the command line and tests make one."""

from __future__ import annotations

import hashlib
import importlib
from datetime import timedelta
from typing import Any

from flask import Flask, g, request, session
from flask_babel import Babel
from flask_wtf.csrf import CSRFProtect

from labeler.catalogues import FOLDER
from labeler.errors import InputError
from labeler.instance import Instance
from labeler.web import access, delivery, errors, keys, screens, show, widgets, words
from labeler.web.address import Edge, PublicUrl

LANGUAGES = ("ko", "en")


def create_app(instance: Instance, config: dict[str, Any] | None = None) -> Flask:
    """Return the app of an open instance.

    ``config`` may set any Flask setting, and LABELER_PUBLIC_URL: the address that people open, LABELER_HOSTS: the names
    that the server answers to besides those of its own machine, LABELER_PROXIES: the networks of trusted proxies.
    """
    static, widgets_ = _package_folder("labeler_static"), instance.plugins.widgets
    app = Flask(
        "labeler",
        instance_path=str(instance.folder),
        template_folder=_package_folder("labeler_templates"),
        static_folder=static,
        static_url_path=delivery.static_address(static, [folder / f"{name}.js" for name, folder in widgets_.items()]),
    )
    app.config.from_mapping(
        SECRET_KEY=instance.secret_key,
        LABELER_PUBLIC_URL=None,
        LABELER_HOSTS=(),
        LABELER_PROXIES=(),
        LABELER_MAX_UPLOAD=2 * 1024**3,
        MAX_CONTENT_LENGTH=2 * 1024 * 1024,
        MAX_FORM_MEMORY_SIZE=2 * 1024 * 1024,
        MAX_FORM_PARTS=2000,
        SESSION_COOKIE_NAME=_cookie_name(instance.secret_key),
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=timedelta(days=14),
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=False,
        BABEL_DEFAULT_LOCALE="ko",
    )
    app.config.from_mapping(config or {})
    url: PublicUrl | None = app.config["LABELER_PUBLIC_URL"]
    if url is not None:
        app.config.from_mapping(SESSION_COOKIE_SECURE=url.scheme == "https", APPLICATION_ROOT=url.prefix or "/")
    app.extensions["labeler"] = instance
    # The checks of access come first: CSRF is checked for people who may be here at all.
    access.guard(app)
    delivery.install(app)
    CSRFProtect(app)
    # Where two have a text, the last one's translation counts.
    catalogues = {**instance.plugins.translations, "messages": FOLDER}
    Babel(
        app,
        locale_selector=language,
        default_domain=";".join(catalogues),
        default_translation_directories=";".join(map(str, catalogues.values())),
    )
    app.jinja_env.globals["_"] = words._
    errors.install(app)
    show.install(app)
    widgets.install(app, widgets_)
    keys.install(app)
    app.context_processor(_page_context)
    for blueprint in screens.blueprints():
        app.register_blueprint(blueprint)
    for blueprint in instance.plugins.blueprints(taken=app.blueprints):
        app.register_blueprint(blueprint)
    edge = Edge(app.wsgi_app, _checked(url, app), app.config["LABELER_PROXIES"])
    app.extensions["labeler.edge"] = app.wsgi_app = edge  # type: ignore[method-assign]
    return app


def _cookie_name(secret_key: str) -> str:
    """Return a name of the instance's own: cookies know no port, and two instances may share a host."""
    return f"labeler_{hashlib.sha256(f'cookie {secret_key}'.encode()).hexdigest()[:8]}"


def _checked(url: PublicUrl | None, app: Flask) -> PublicUrl | None:
    """Refuse a prefix that an address of ours begins with: whether a proxy took it away could not be told."""
    first = url.prefix.split("/")[1] if url is not None and url.prefix else ""
    if first and any(str(rule).split("/")[1] == first for rule in app.url_map.iter_rules()):
        raise InputError(f"--public-url has the path /{first}, and pages of Labeler begin so; choose another path")
    return url


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
        "may": access.may,
        "language": language(),
    }


def _package_folder(name: str) -> str:
    module = importlib.import_module(name)
    return str(next(iter(module.__path__)))
