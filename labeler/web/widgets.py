"""What the page shows of a label kind: the templates and the script of its widget, Labeler's own or a plugin's.

The templates are ``labels/<widget>.html`` (the form), ``labels/<widget>.value.html`` (a value, as a macro) and
``labels/<widget>.keys.html`` (the keys, for the help). The script is ``desk/widgets/<widget>.js`` of the static files,
so that scripts of plugins import ours by relative names, and have the hash of all of them in their address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from flask import Flask, Response, current_app, json, send_from_directory, url_for
from jinja2 import ChoiceLoader, DictLoader
from markupsafe import Markup

from labeler.labels import EMPTY, Label, LabelSchema
from labeler.records import Value
from labeler.web.words import _

_SCRIPTS = "desk/widgets"
_PARTS = {"": "", ".value": "text", ".keys": "text"}
"""The templates of a widget, and whose stands for one that a plugin does without."""
_DIGITS = 10
# Up to so many colours say which labels belong together; more only tell them apart.
_MOST_GROUPS = 4


def install(app: Flask, widgets: Mapping[str, Path]) -> None:
    """Add templates and scripts of the plugins' ``widgets``, folders by name, and what templates show kinds with."""
    assert app.jinja_loader is not None and app.template_folder is not None
    ours = Path(app.template_folder) / "labels"
    templates = {}
    for name, folder in widgets.items():
        for part, default in _PARTS.items():
            file = folder / f"{name}{part}.html"
            source = file if file.is_file() else ours / f"{default}{part}.html"
            templates[f"labels/{name}{part}.html"] = source.read_text(encoding="utf-8")

    def static(filename: str) -> Response:
        name = Path(filename).stem
        if filename == f"{_SCRIPTS}/{name}.js" and name in widgets:
            return send_from_directory(widgets[name], f"{name}.js", max_age=app.get_send_file_max_age(filename))
        return app.send_static_file(filename)

    app.jinja_loader = ChoiceLoader([app.jinja_loader, DictLoader(templates)])
    app.view_functions["static"] = static
    app.jinja_env.globals["value_of"] = value_of
    for function in (in_reach, mounted, widget_script):
        app.add_template_filter(function, function.__name__)


def value_of(schema: LabelSchema, value: Value | None, language: str) -> Markup:
    """Return a value as people see it. Raises what the widget's macro ``value`` raises for one of another kind."""
    if value is None or value == EMPTY:
        return Markup('<span class="muted">{}</span>').format("—" if value is None else _("empty"))
    template = current_app.jinja_env.get_template(f"labels/{schema.widget}.value.html")
    return Markup(template.module.value(schema, value, language))  # type: ignore[attr-defined]


def in_reach(labels: Sequence[Label], used: Mapping[str, int]) -> list[list[tuple[Label, int]]]:
    """Return labels as they stand on a form, in groups of one colour, each with the place of its key, from 0.

    ``used`` says how often each was approved. The most used have the first keys, and stand first in their group, where
    there are more labels than digits. Each doubling counts as one, so that an order that a hand has learned stays.
    """
    ranked = list(labels)
    if len(labels) > _DIGITS:
        ranked.sort(key=lambda label: -used.get(label.name, 0).bit_length())
    places = {label.name: place for place, label in enumerate(ranked)}
    colors = list(dict.fromkeys(label.color for label in labels))
    if not 1 < len(colors) <= _MOST_GROUPS or len(labels) <= _DIGITS:
        return [[(label, places[label.name]) for label in ranked]]
    return [[(label, places[label.name]) for label in ranked if label.color == color] for color in colors]


def mounted(schema: LabelSchema) -> Markup:
    """Return the attributes of the element that a widget's script is mounted on."""
    return Markup('data-widget="{}" data-module="{}" data-schema="{}"').format(
        schema.widget, widget_script(schema.widget), json.dumps(schema.to_json())
    )


def widget_script(widget: str) -> str:
    return url_for("static", filename=f"{_SCRIPTS}/{widget}.js")
