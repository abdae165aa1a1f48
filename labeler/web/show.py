"""How values look on a page: numbers, money, times, and texts with their invisible characters made visible."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from babel.dates import format_timedelta
from flask import Flask
from flask_babel import format_decimal, get_locale
from jinja2 import pass_context
from markupsafe import Markup

from labeler.annotation.query import quoted
from labeler.ingest.dialect import delimiter_name
from labeler.text import visible
from labeler.web import words
from labeler.web.words import _

Piece = tuple[str, str | None, bool]


def install(app: Flask) -> None:
    """Add the filters of this module to the templates of an app."""
    filters = (number, percent, money, when, ago, size, duration, pieces, delimiter, quoted)
    in_words = (words.word, words.translated, words.setting_title, words.setting_help, words.setting_of)
    for function in (*filters, *in_words, words.made_words, words.step_title, words.failure_kind):
        app.add_template_filter(_at_each_request(function), function.__name__)


def _at_each_request(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that Jinja calls for every page: one of a constant alone it would call once, in one language."""

    @pass_context
    def called(_context: Any, *arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return called


def number(value: float | None) -> str:
    return "–" if value is None else str(format_decimal(value))


def percent(share: float | None) -> str:
    """Return a share in [0, 1] as a percentage; "–" if there is none. Less than all is never shown as all."""
    if share is None:
        return "–"
    shown = f"{share * 100:.1f}".removesuffix(".0")
    return ("99.9" if shown == "100" and share < 1 else shown) + "%"


def money(dollars: float | None) -> str:
    """Return US dollars, with as many digits as it takes to see them; None is an unknown price, never 0."""
    if dollars is None:
        return str(_("unknown"))
    if dollars == 0:
        return "$0"
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.4f}" if dollars >= 0.0001 else "< $0.0001"


def when(at: float | None) -> str:
    """Return seconds since 1970 as a date and time, written alike in every language.

    The server does not know where the reader is: it writes UTC and says so, and the page's script the reader's zone.
    """
    if at is None:
        return "–"
    moment = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{:%Y-%m-%dT%H:%M:%SZ}">{:%Y-%m-%d %H:%M} UTC</time>').format(moment, moment)


def ago(at: float) -> str:
    """Return how long ago something was, as people say it: "3 days ago"; at least a minute."""
    return _ago(max(1, round((time.time() - at) / 60)), str(get_locale() or "ko"))


@lru_cache(maxsize=10_000)
def _ago(minutes: int, locale: str) -> str:
    return str(format_timedelta(timedelta(minutes=-minutes), granularity="minute", add_direction=True, locale=locale))


def size(bytes_: int) -> str:
    amount = float(bytes_)
    for unit in ("B", "KB", "MB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GB"


def duration(seconds: float) -> str:
    """Return a stretch of time as people say it: in seconds, minutes, or hours and minutes."""
    if seconds < 90:
        return str(_("%(n)s s", n=round(seconds)))
    if seconds < 5400:
        return str(_("%(n)s min", n=round(seconds / 60)))
    return str(_("%(h)s h %(m)s min", h=int(seconds // 3600), m=round(seconds % 3600 / 60)))


def delimiter(mark: str) -> str:
    """Return what a file is split at, in the page's word."""
    return words.setting_of("delimiter", delimiter_name(mark))


def pieces(text: str, searched: str = "") -> list[Piece]:
    """Split a text into (piece, mark, found): ``mark`` names an invisible character, ``found`` is a searched word.

    The pieces joined together are the text again.
    """
    sought = [re.escape(part) for part in searched.split()]
    parts = re.split(f"({'|'.join(sought)})", text, flags=re.IGNORECASE) if sought else [text]
    # re.split with one group gives what stands between, what matched, what stands between, ...
    return [(piece, mark, n % 2 == 1) for n, part in enumerate(parts) for piece, mark in visible(part)]
