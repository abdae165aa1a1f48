"""The tables of a task's numbers, each a file as well, and the plots that stand above them.

A cell knows the query of the records that it counts: the page makes a link of it, and files leave it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from flask_babel import format_decimal, get_locale

from labeler.annotation.query import quoted
from labeler.evaluation.learning import Learning
from labeler.evaluation.measures import BINS, Measure
from labeler.evaluation.numbers import Numbers, Week, labels_in_order
from labeler.evaluation.progress import PEOPLE, Progress, Side
from labeler.evaluation.scored import Curve, Scored
from labeler.export.formats import csv_line
from labeler.labels import NO_LABEL
from labeler.sentence import N_
from labeler.store.annotations import BULK, IMPORTED
from labeler.task import Task
from labeler.web import plots
from labeler.web.plots import Drawing
from labeler.web.words import _, word

_BY_PEOPLE = f"how:{','.join(PEOPLE)}"
_APPROVED_BY_PEOPLE = f"state:approved {_BY_PEOPLE}"
_MOST_CHANGED, _MOST_WEEKS, _MOST_MODELS = 20, 52, 3


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: what stands in a file, and the query of the records that it counts.

    ``more`` says that they were counted no further, and ``share`` that it is one of all.
    """

    raw: str | int | float | None
    query: str | None = None
    more: bool = False
    share: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of the page, which is a file as well: its first column names a row."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def csv(self) -> str:
        """Return it for spreadsheets, with their byte order mark; cells cannot become formulas."""
        lines = [[str(_(TITLES.get(name, name))) for name in self.columns]]
        lines += [["" if cell.raw is None else str(cell.raw) for cell in row] for row in self.rows]
        return "\ufeff" + "".join(csv_line(line, True) for line in lines)


def sheets_of(task: Task, numbers: Numbers) -> dict[str, Sheet]:
    """Return the tables of a task by name."""
    return {name: make(task, numbers) for name, make in SHEETS.items()}


def drawings_of(numbers: Numbers) -> dict[str, Drawing]:
    """Return the plots of a task by name; one that would show nothing is left out."""
    found = {"days": days_drawing(numbers.progress), "weeks": _weeks_drawing(numbers)}
    curves = [one for one in numbers.scored if one.assisted or one.blind][:_MOST_MODELS]
    found |= {f"scores-{n}": _scores_drawing(one) for n, one in enumerate(curves, 1)}
    found["learning"] = None if numbers.learning is None else _learning_drawing(numbers.learning)
    return {name: one for name, one in found.items() if one is not None}


# Tables


def days_sheet(progress: Progress) -> Sheet:
    """Return the decisions a day."""
    rows = []
    for one in progress.days:
        day = one.day.isoformat()
        cells = [(one.people, _BY_PEOPLE), (one.bulk, f"how:{BULK}"), (one.imported, f"how:{IMPORTED}")]
        rows.append([Cell(day), *(Cell(n, f"{how} date:{day}") for n, how in cells)])
    return Sheet("days", ["day", "people", "bulk", "imported"], rows)


def _days(_task: Task, numbers: Numbers) -> Sheet:
    return days_sheet(numbers.progress)


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
    return [*_measure(None if side is None else side.agreement), Cell(0 if side is None else side.n)]


def _measure(one: Measure | None) -> list[Cell]:
    if one is None:
        return [Cell(None)] * 3
    return [Cell(round(share, 6), share=True) for share in (one.value, one.low, one.high)]


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


def _scores(_task: Task, numbers: Numbers) -> Sheet:
    rows = []
    for one in numbers.scored:
        for blind, curve in ((False, one.assisted), (True, one.blind)):
            rows += [] if curve is None else _tenths(one, blind, curve)
    columns = ["model", "side", "scores", "decisions", "score", "accepted", "accepted_low", "accepted_high"]
    return Sheet("scores", columns, rows)


def _tenths(model: Scored, blind: bool, curve: Curve) -> list[list[Cell]]:
    side, found = str(_("Blind")) if blind else str(_("Assisted")), []
    for one in curve.tenths:
        low, high = one.tenth / BINS, (one.tenth + 1) / BINS
        above = f" score<{high:g}" if one.tenth < BINS - 1 else ""
        query = f"state:approved {'' if blind else '-'}is:blind agreement>=0 {_model(model.name)} score>={low:g}{above}"
        mean = Cell(round(one.score, 6))
        rates = _measure(one.accepted)
        found.append(
            [Cell(str(word(model.name))), Cell(side), Cell(f"{low:g} – {high:g}"), Cell(one.n, query), mean, *rates]
        )
    return found


def _model(name: str) -> str:
    return f"model:{quoted(name)}"


def _learning(_task: Task, numbers: Numbers) -> Sheet:
    found = [] if numbers.learning is None else numbers.learning.stretches
    rows = [
        [
            Cell(str(round(one.known))), Cell(one.n),
            *(Cell(round(n, 3)) for n in (one.corrections.value, one.corrections.low, one.corrections.high)),
        ]
        for one in found
    ]  # fmt: skip
    return Sheet("learning", ["examples", "n", "corrections", "corrections_low", "corrections_high"], rows)


def _conflicts(_task: Task, numbers: Numbers) -> Sheet:
    rows = [[Cell(_(_CONFLICTS[one.kind])), Cell(one.n, one.query, not one.whole)] for one in numbers.conflicts]
    alike = [Cell(_(_CONFLICTS["alike"])), Cell(numbers.alike_total)]
    return Sheet("conflicts", ["conflict", "n"], [*rows, alike])


def _people(_task: Task, numbers: Numbers) -> Sheet:
    rows = []
    for one in numbers.people:
        by, share = f"by:{quoted(one.name)}", one.corrections
        rows.append(
            [
                Cell(one.name),
                Cell(one.decisions, f"{by} {_BY_PEOPLE}"),
                Cell(one.corrected, f"{by} how:corrected"),
                Cell(None if share is None else round(share, 6), share=True),
                Cell(one.rejected, f"{by} state:rejected {_BY_PEOPLE}"),
                Cell(None if one.seconds is None else round(one.seconds, 1)),
                *_side(one.blind),
            ]
        )
    blind = ["agreement_blind", "agreement_blind_low", "agreement_blind_high", "agreement_blind_n"]
    columns = ["person", "decisions", "corrected", "corrected_share", "rejected", "seconds", *blind]
    return Sheet("people", columns, rows)


SHEETS: Mapping[str, Callable[[Task, Numbers], Sheet]] = {
    "days": _days, "labels": _labels, "weeks": _weeks, "confusion": _confusion, "changes": _changes, "scores": _scores,
    "learning": _learning, "conflicts": _conflicts, "people": _people,
}  # fmt: skip


def tasks_sheet(found: Iterable[tuple[str, Progress]]) -> Sheet:
    """Return how far the tasks of a project came, by their titles."""
    rows = []
    for title, one in found:
        ends = one.forecast
        days = [None] * 3 if ends is None else [ends.day, ends.first, ends.last]
        rows.append(
            [
                Cell(title), *(Cell(one.states[state]) for state in ("approved", "rejected", "pending")),
                Cell(None if one.pace is None else round(one.pace, 2)),
                *(Cell(None if day is None else day.isoformat()) for day in days),
                *_side(one.assisted), *_side(one.blind), Cell(round(one.cost, 6)), Cell(one.unpriced),
            ]
        )  # fmt: skip
    sides = [f"agreement_{side}{end}" for side in ("assisted", "blind") for end in ("", "_low", "_high", "_n")]
    columns = ["task", "approved", "rejected", "pending", "pace", "done_on", "done_first", "done_last", *sides]
    return Sheet("tasks", [*columns, "cost", "unpriced"], rows)


TITLES = {
    "day": N_("Day"), "people": N_("By people"), "bulk": N_("Many at once"), "imported": N_("Imported"),
    "label": N_("Label name"), "approved": N_("Approved"), "suggested": N_("Suggested"), "week": N_("Week from"),
    "suggested_label": N_("Suggested label"), "removed": N_("Taken out"), "added": N_("Put in"),
    "agreement_assisted": N_("Agreement, assisted"), "agreement_assisted_low": N_("Assisted, at least"),
    "agreement_assisted_high": N_("Assisted, at most"), "agreement_assisted_n": N_("Assisted decisions"),
    "agreement_blind": N_("Agreement, blind"), "agreement_blind_low": N_("Blind, at least"),
    "agreement_blind_high": N_("Blind, at most"), "agreement_blind_n": N_("Blind decisions"),
    "model": N_("Model"), "side": N_("Shown or blind"), "scores": N_("Scores"), "decisions": N_("Decisions"),
    "score": N_("Mean score"), "accepted": N_("Accepted as suggested"), "accepted_low": N_("At least"),
    "accepted_high": N_("At most"), "examples": N_("Examples"), "n": N_("Records"),
    "corrections": N_("Corrections per 1,000"), "corrections_low": N_("At least"), "corrections_high": N_("At most"),
    "conflict": N_("Conflict"), "person": N_("Name"), "corrected": N_("Corrected"),
    "corrected_share": N_("Share corrected"), "rejected": N_("Rejected"), "seconds": N_("Seconds, median"),
    "task": N_("Task"), "pending": N_("Pending"), "pace": N_("A day"), "done_on": N_("Done on"),
    "done_first": N_("At the earliest"), "done_last": N_("At the latest"), "cost": N_("Cost"),
    "unpriced": N_("Calls of unknown price"),
}  # fmt: skip
_CONFLICTS = {
    "doubted": N_("Pending, and a second opinion differs from the suggestion"),
    "accepted": N_("Approved as suggested, though a second opinion differs"),
    "blind": N_("Decided blind, and not as suggested"),
    "alike": N_("Groups of near-duplicates with different labels"),
}


def _term(field: str, name: str) -> str:
    return f"{field}:{quoted('empty' if name == NO_LABEL else name)}"


def _title(task: Task, name: str) -> str:
    locale = get_locale()
    language = locale.language if locale else "ko"
    return str(_("empty")) if name == NO_LABEL else task.schema.past.label(name).titled(language)


# Plots


def days_drawing(progress: Progress) -> Drawing:
    """Return the decisions a day."""
    days = progress.days
    series = [[getattr(one, kind) for one in days] for kind in ("people", "bulk", "imported")]
    return Drawing(
        "columns", plots.columns(series, [f"{one.day:%m-%d}" for one in days]), _("Decisions a day"),
        _("Decisions in force of today and the 14 days before, by people, made for many records at once, and imported; "
          "days are in UTC"),
        [_("By people"), _("Many at once"), _("Imported")],
    )  # fmt: skip


def _weeks_drawing(numbers: Numbers) -> Drawing | None:
    """Return the last weeks in scale: one in which nobody decided has its place too."""
    if not numbers.weeks:
        return None
    last = numbers.weeks[-1].day
    first = max(numbers.weeks[0].day, last - timedelta(weeks=_MOST_WEEKS - 1))
    weeks = [week for week in numbers.weeks if week.day >= first]
    span = max((last - first).days, 1)

    def points(side: Callable[[Week], Side | None]) -> list[plots.Point]:
        return [((week.day - first).days / span, one.agreement) for week in weeks if (one := side(week)) is not None]

    series = [points(lambda week: week.assisted), points(lambda week: week.blind)]
    return Drawing(
        "lines", plots.lines(series, f"{first:%m-%d}", f"{last:%m-%d}"), _("Agreement with suggestions by week"),
        _("How far first decisions agree with the suggestion: with it in sight, and blind; the bars show where each "
          "lies with 95 %"),
        [_("Agreement, assisted"), _("Agreement, blind")],
    )  # fmt: skip


def _scores_drawing(one: Scored) -> Drawing:
    series = [
        [] if curve is None else [(each.score, each.accepted) for each in curve.tenths]
        for curve in (one.assisted, one.blind)
    ]
    return Drawing(
        "lines", plots.lines(series, "0", "1", even=True), _("Scores of %(name)s", name=word(one.name)),
        _("How often suggestions were accepted as they were, by tenths of their score: with them in sight, and blind; "
          "the bars show where each lies with 95 %, and scores that can be relied on lie on the dotted line"),
        [_("Assisted"), _("Blind")],
    )  # fmt: skip


def _learning_drawing(learning: Learning) -> Drawing:
    found = learning.stretches
    first, last = found[0].known, found[-1].known
    # Hundreds up to which all intervals fit.
    top = max(100, 100 * math.ceil(max(one.corrections.high for one in found) / 100))
    points = [((one.known - first) / max(last - first, 1e-9), one.corrections) for one in found]
    known = [str(format_decimal(round(one))) for one in (first, last)]
    return Drawing(
        "lines", plots.lines([points], known[0], known[1], str(format_decimal(top)), top),
        _("Corrections per 1,000 by examples"),
        _("How many suggestions of 1,000 a person has to correct, by how many examples were approved before; the bars "
          "show where each lies with 95 %"),
        [_("Corrections per 1,000")],
    )  # fmt: skip
