"""The options of an export that say which rows leave, and into which split."""

from __future__ import annotations

from functools import wraps
from typing import Any

import click

from labeler.cli.base import Command, clean

_MORE = "; can be given several times"
_OPTIONS = {
    "how": ("--how", "HOW", "Only labels that were accepted, corrected, made from scratch, or imported" + _MORE),
    "reviewers": ("--reviewer", "NAME", "Only labels by this reviewer" + _MORE),
    "since": ("--since", "DATE", "Only labels approved on this day (in UTC) or later; a time may follow"),
    "until": ("--until", "DATE", "Only labels approved on this day or earlier"),
    "versions": ("--task-version", "V", "Only labels approved under this version of the task" + _MORE),
    "labels": ("--label", "LABEL", "Only rows with this label" + _MORE),
    "min_agreement": ("--min-agreement", "X", "Only labels that agree with the suggestion at least so far, 0 to 1"),
    "min_people_agreement": (
        "--min-people-agreement", "X", "Only labels that at least this share of several people gave, 0 to 1"
    ),
    "min_score": ("--min-score", "X", "Only labels accepted from a suggestion with at least this score, 0 to 1"),
    "metadata": ("--metadata", "COL=VALUE", "Only records with this value in their metadata" + _MORE),
    "query": ("--query", "WORDS", "Only records that a search for these words finds"),
    "shortest": ("--min-length", "N", "Only texts of at least N characters"),
    "longest": ("--max-length", "N", "Only texts of at most N characters"),
    "repeated": ("--max-repeated", "X", "Only texts with at most this share in runs of 4 or more equal characters"),
    "near_duplicates": ("--near-duplicates", "keep|one|N", "The most rows of a cluster of near-duplicates [keep]"),
    "caps": ("--cap", "[LABEL=]N", "At most N rows of a label in train; without LABEL, of each" + _MORE),
    "weights": ("--weight", "LABEL=X", "A row with this label weighs X, others weigh 1" + _MORE),
    "contacts": ("--contacts", "keep|mask|drop", "What becomes of phone numbers, e-mail addresses and the like [keep]"),
    "split_by": ("--split-by", "product|date|date:COL|label", "How new records get their split [product]"),
    "freeze": ("--freeze", "NAME", "Keep the test rows of this export out of training for good, under this name"),
}  # fmt: skip
_SEVERAL = frozenset(("how", "reviewers", "versions", "labels", "metadata", "caps", "weights"))
_NUMBERS = {
    "min_agreement": float,
    "min_people_agreement": float,
    "min_score": float,
    "repeated": float,
    "shortest": int,
    "longest": int,
}
_OF_SELECTION = ("near_duplicates", "caps", "weights", "contacts", "split_by", "freeze")


def row_options(command: Command) -> Command:
    """Give a command the options of rows; it gets them read, as ``filters`` and ``selection``."""

    @wraps(command)
    def run(**given: Any) -> Any:
        from labeler.export import Filters, Selection

        mine = {name: clean(name, given.pop(name)) for name in (*_OPTIONS, "blind", "language", "without_written")}
        selection = Selection.read(**{name: mine.pop(name) for name in _OF_SELECTION})
        return command(filters=Filters.read(**mine), selection=selection, **given)

    decorated: Any = run
    decorated = click.option("--language", type=click.Choice(["ko", "en"]), help="Only records in this language")(
        decorated
    )
    decorated = click.option("--without-written", is_flag=True, help="Leave out texts that a model wrote")(decorated)
    decorated = click.option("--blind", is_flag=True, help="Only labels made without a suggestion in sight")(decorated)
    for name, (option, metavar, meaning) in reversed(_OPTIONS.items()):
        decorated = click.option(
            option, name, metavar=metavar, multiple=name in _SEVERAL, type=_NUMBERS.get(name), help=meaning
        )(decorated)
    return decorated  # type: ignore[no-any-return]
