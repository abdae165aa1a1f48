"""Reading forms: texts through the one door, numbers with a name in their error, and safe places to go next."""

from __future__ import annotations

from typing import Any

from flask import redirect, request, url_for

from labeler.errors import InputError
from labeler.text import clean_text


def text(name: str, limit: int = 10_000) -> str:
    """Return a field of the form as clean text; empty if it is missing."""
    found = clean_text(request.form.get(name, ""), name)
    if len(found) > limit:
        raise InputError(
            "%(name)s has %(n)s characters; at most %(limit)s are taken",
            name=name,
            n=f"{len(found):,}",
            limit=f"{limit:,}",
        )
    return found


def texts(name: str) -> list[str]:
    return [clean_text(value, name) for value in request.form.getlist(name)]


def whole(name: str, low: int, high: int) -> int | None:
    """Return a whole number, or None if the field is empty. Raises :class:`InputError` naming the field."""
    raw = text(name, 40)
    if not raw:
        return None
    if not raw.isascii() or not raw.isdigit() or not low <= int(raw) <= high:
        raise InputError(
            "%(setting)s is %(value)r; it must be a whole number from %(low)s to %(high)s",
            setting=name,
            value=raw,
            low=low,
            high=high,
        )
    return int(raw)


def decimal(name: str, low: float, high: float) -> float | None:
    raw = text(name, 40)
    if not raw:
        return None
    try:
        value = float(raw)
    except ValueError:
        raise InputError("%(setting)s is %(value)r; a number is needed", setting=name, value=raw) from None
    if not low <= value <= high:
        raise InputError(
            "%(setting)s is %(value)s; it must lie between %(low)s and %(high)s",
            setting=name,
            value=repr(raw),
            low=f"{low:g}",
            high=f"{high:g}",
        )
    return value


def same_site(target: str | None) -> str | None:
    """Return a path of this site to go on to, or None: an address of another site is never followed."""
    if not target or not target.startswith(f"{request.script_root}/") or target[1:2] in ("/", "\\"):
        return None
    return target if target.isprintable() and "\\" not in target else None


def go_on(endpoint: str, **values: Any) -> Any:
    """Redirect to an endpoint after a change, so that a reload does not send it twice."""
    return redirect(url_for(endpoint, **values), 303)
