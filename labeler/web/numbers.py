"""The numbers of a task as a page of plots and tables, each table as a file too. Nobody is named in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, render_template, url_for
from flask_babel import get_locale

from labeler.annotation.query import quoted
from labeler.errors import NotFound
from labeler.evaluation.numbers import MOST, PEOPLE, Numbers, Side, Week, labels_in_order, numbers_of
from labeler.export.formats import csv_line
from labeler.labels import NO_LABEL
from labeler.sentence import N_
from labeler.settings import NUMBERS
from labeler.store.annotations import BULK, IMPORTED
from labeler.task import Task
from labeler.web import plots
from labeler.web.access import allowed, instance, project_task
from labeler.web.words import _

blueprint = Blueprint("numbers", __name__, url_prefix="/projects/<int:project_id>/numbers/<task>")
_BY_PEOPLE = f"how:{','.join(PEOPLE)}"
_APPROVED_BY_PEOPLE = f"state:approved {_BY_PEOPLE}"
_MOST_CHANGED, _MOST_WEEKS = 20, 52


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: what stands in a file, and the query of the records that it counts."""

    raw: str | int | float | None
    query: str | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of the page, which is a file as well: its first column names a row."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@blueprint.get("")
@allowed(NUMBERS)
def page(project_id: int, task: str) -> Any:
    """Show the numbers of a task."""
    found = project_task(task)
    numbers = numbers_of(instance().store, project_id, found, most=MOST)
    sheets = {name: make(found, numbers) for name, make in _SHEETS.items()}
    return render_template(
        "numbers.html",
        task=found,
        numbers=numbers,
        sheets=sheets,
        titles=_TITLES,
        days=_days_plot(numbers),
        weeks=_weeks_plot(numbers),
        label_most=max([1, *numbers.approved.values(), *numbers.suggested.values()]),
        confusion_most=max([1, *numbers.confusion.values()]),
        most=MOST,
        records=lambda query: url_for("records.page", project_id=project_id, task=found.name, q=query),
        unused=[name.raw for name, *counts in sheets["labels"].rows if not any(cell.raw for cell in counts)],
    )


@blueprint.get("/<sheet>.csv")
@allowed(NUMBERS)
def download(project_id: int, task: str, sheet: str) -> Any:
    """Hand out a table of the page for spreadsheets; cells cannot become formulas."""
    found = project_task(task)
    if sheet not in _SHEETS:
        raise NotFound("There is no such page")
    made = _SHEETS[sheet](found, numbers_of(instance().store, project_id, found, most=MOST))
    lines = [csv_line([str(_(_TITLES.get(name, name))) for name in made.columns], True)]
    lines += [csv_line(["" if cell.raw is None else str(cell.raw) for cell in row], True) for row in made.rows]
    response = Response("\ufeff" + "".join(lines), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="numbers-{project_id}-{sheet}.csv"'
    return response


def _days(_task: Task, numbers: Numbers) -> Sheet:
    rows = []
    for one in numbers.days:
        day = one.day.isoformat()
        cells = [(one.people, _BY_PEOPLE), (one.bulk, f"how:{BULK}"), (one.imported, f"how:{IMPORTED}")]
        rows.append([Cell(day), *(Cell(n, f"{how} date:{day}") for n, how in cells)])
    return Sheet("days", ["day", "people", "bulk", "imported"], rows)


def _labels(task: Task, numbers: Numbers) -> Sheet:
    names = labels_in_order(task, numbers.approved, numbers.suggested)
    names.sort(key=lambda name: (-numbers.approved.get(name, 0), -numbers.suggested.get(name, 0)))
    rows = [
        [
            Cell(_title(task, name)),
            Cell(numbers.approved.get(name, 0), f"state:approved {_term('label', name)}"),
            Cell(numbers.suggested.get(name, 0), f"state:pending {_term('suggested', name)}"),
        ]
        for name in names
    ]
    return Sheet("labels", ["label", "approved", "suggested"], rows)


def _weeks(_task: Task, numbers: Numbers) -> Sheet:
    rows = [[Cell(week.day.isoformat()), *_side(week.assisted), *_side(week.blind)] for week in numbers.weeks]
    assisted, blind = (
        [name, f"{name}_low", f"{name}_high", f"{name}_n"] for name in ("agreement_assisted", "agreement_blind")
    )
    return Sheet("weeks", ["week", *assisted, *blind], rows)


def _side(side: Side | None) -> list[Cell]:
    if side is None:
        return [Cell(None), Cell(None), Cell(None), Cell(0)]
    one = side.agreement
    return [*(Cell(round(share, 6)) for share in (one.value, one.low, one.high)), Cell(side.n)]


def _confusion(task: Task, numbers: Numbers) -> Sheet:
    """Return suggested labels down, decided ones across."""
    seen = {name: 1 for pair in numbers.confusion for name in pair}
    names = [name for name in labels_in_order(task, seen) if name in seen]
    rows = [
        [
            Cell(_title(task, suggested)),
            *(
                Cell(
                    numbers.confusion.get((suggested, decided), 0),
                    f"{_term('suggested', suggested)} {_term('label', decided)} {_APPROVED_BY_PEOPLE}",
                )
                for decided in names
            ),
        ]
        for suggested in names
    ]
    return Sheet("confusion", ["suggested_label", *(_title(task, name) for name in names)], rows)


def _changes(task: Task, numbers: Numbers) -> Sheet:
    rows = []
    for one in numbers.changes[:_MOST_CHANGED]:
        label, suggested = _term("label", one.name), _term("suggested", one.name)
        rows.append(
            [
                Cell(_title(task, one.name)),
                Cell(one.suggested, f"{suggested} {_APPROVED_BY_PEOPLE}"),
                Cell(one.removed, f"{suggested} -{label} {_APPROVED_BY_PEOPLE}"),
                Cell(one.added, f"{label} -{suggested} {_APPROVED_BY_PEOPLE}"),
            ]
        )
    return Sheet("changes", ["label", "suggested", "removed", "added"], rows)


_SHEETS: dict[str, Callable[[Task, Numbers], Sheet]] = {
    "days": _days, "labels": _labels, "weeks": _weeks, "confusion": _confusion, "changes": _changes,
}  # fmt: skip
_TITLES = {
    "day": N_("Day"), "people": N_("By people"), "bulk": N_("Many at once"), "imported": N_("Imported"),
    "label": N_("Label name"), "approved": N_("Approved"), "suggested": N_("Suggested"), "week": N_("Week from"),
    "suggested_label": N_("Suggested label"), "removed": N_("Taken out"), "added": N_("Put in"),
    "agreement_assisted": N_("Agreement, assisted"), "agreement_assisted_low": N_("Assisted, at least"),
    "agreement_assisted_high": N_("Assisted, at most"), "agreement_assisted_n": N_("Assisted decisions"),
    "agreement_blind": N_("Agreement, blind"), "agreement_blind_low": N_("Blind, at least"),
    "agreement_blind_high": N_("Blind, at most"), "agreement_blind_n": N_("Blind decisions"),
}  # fmt: skip


def _term(field: str, name: str) -> str:
    return f"{field}:{quoted('empty' if name == NO_LABEL else name)}"


def _title(task: Task, name: str) -> str:
    locale = get_locale()
    language = locale.language if locale else "ko"
    return str(_("empty")) if name == NO_LABEL else task.schema.past.label(name).titled(language)


def _days_plot(numbers: Numbers) -> dict[str, Any]:
    days = numbers.days
    series = [[getattr(one, kind) for one in days] for kind in ("people", "bulk", "imported")]
    return plots.columns(series, [f"{one.day:%m-%d}" for one in days])


def _weeks_plot(numbers: Numbers) -> dict[str, Any] | None:
    """Return the last weeks in scale: one in which nobody decided has its place too."""
    if not numbers.weeks:
        return None
    of, last = {week.day: week for week in numbers.weeks}, numbers.weeks[-1].day
    first = max(numbers.weeks[0].day, last - timedelta(weeks=_MOST_WEEKS - 1))
    days = [first + timedelta(weeks=n) for n in range((last - first).days // 7 + 1)]
    weeks = [of.get(day, Week(day)) for day in days]
    sides = [[week.assisted for week in weeks], [week.blind for week in weeks]]
    series = [[None if one is None else one.agreement for one in side] for side in sides]
    return plots.lines(series, [f"{day:%m-%d}" for day in days])
