"""The keys of a person: the page that changes them, and what templates and scripts show of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Flask, g, jsonify, render_template, request
from markupsafe import Markup

from labeler import accounts, keys
from labeler.errors import InputError
from labeler.web.access import instance, json_body
from labeler.web.forms import go_on, same_site

blueprint = Blueprint("keys", __name__, url_prefix="/account/keys")


def install(app: Flask) -> None:
    """Let templates name the keys of whoever looks at them."""
    app.jinja_env.globals |= {one.__name__: one for one in (key_of, key_name, key_help, key_words, own_places)}


def key_of(*names: str) -> Markup:
    """Return the key of a command as it stands on a button: of the first that has one, empty if none has."""
    found = next(filter(None, map(_keys().get, names)), "")
    return Markup("<kbd>{}</kbd>").format(keys.shown(found)) if found else Markup("")


def key_name(name: str) -> str:
    """Return what the key of a command is called; empty if it has none."""
    return keys.shown(_keys()[name])


def key_help() -> list[keys.Command]:
    """Return what ``?`` tells of in every task."""
    return [command for command in keys.COMMANDS if command.help and _keys()[command.name]]


def own_places() -> list[str]:
    """Return the places of a form that a person has given keys of their own, which stand beside the digits."""
    return [name for name in accounts.desk_of(g.person)["keys"] if name.startswith("place")]


def key_words() -> dict[str, Any]:
    """Return what scripts know of keys: the command of each press, the press of each place, and their names."""
    found, places = _keys(), keys.slots(_keys())
    return {
        "commands": keys.presses(found),
        "slots": places,
        "slotNames": [keys.shown(key) for key in places],
        "names": _names(found),
    }


@blueprint.get("")
def page() -> Any:
    """Show the keys, to change them. ``next`` is where the person came from."""
    desk = accounts.desk_of(g.person)
    return render_template(
        "keys.html",
        groups={group: [one for one in keys.COMMANDS if one.group == group] for group in _groups()},
        presets=keys.PRESETS,
        preset=keys.preset_of(desk["keys"]),
        advance=desk["advance"],
        next=same_site(request.args.get("next")),
    )


@blueprint.post("")
def change() -> Any:
    """Give ``command`` the key ``key``; an empty one takes its key away. Return what all keys are called now.

    :raise 400: the command or the key cannot be, or the key is another command's
    """
    body = json_body()
    name, key = body.get("command"), body.get("key")
    if not isinstance(name, str) or not isinstance(key, str):
        raise InputError("Send 'command' and 'key', both texts")
    found = keys.keys_of(_set_up(lambda desk: desk | {"keys": keys.changed(desk["keys"], name, key)})["keys"])
    return jsonify(names=_names(found))


@blueprint.post("/preset")
def preset() -> Any:
    """Put the keys of a preset in place of all that a person has.

    :raise 400: there is no such preset
    """
    name = request.form.get("preset", "")
    if name not in keys.PRESETS:
        raise InputError("No preset %(name)r; there are: %(names)s", name=name[:40], names=", ".join(keys.PRESETS))
    _set_up(lambda desk: desk | {"keys": keys.PRESETS[name]})
    return _back()


@blueprint.post("/advance")
def advance() -> Any:
    """Turn on or off that an answer which a person has made whole is approved by itself."""
    on = request.form.get("advance") == "1"
    _set_up(lambda desk: desk | {"advance": on})
    return _back()


def _back() -> Any:
    target = same_site(request.form.get("next"))
    return go_on("keys.page", next=target) if target else go_on("keys.page")


def _set_up(change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    return accounts.set_up_desk(instance().store, g.person["id"], change)


def _groups() -> list[str]:
    return list(dict.fromkeys(command.group for command in keys.COMMANDS))


def _names(found: dict[str, str]) -> dict[str, str]:
    return {name: keys.shown(key) for name, key in found.items()}


def _keys() -> dict[str, str]:
    """Return the keys of who is signed in, read once for a request."""
    if "keys" not in g:
        g.keys = keys.keys_of(accounts.desk_of(g.person)["keys"] if g.person else {})
    found: dict[str, str] = g.keys
    return found
