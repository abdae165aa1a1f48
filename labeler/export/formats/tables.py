"""The format for spreadsheets and statistics."""

from __future__ import annotations

import re
from collections.abc import Sequence

from labeler.export.formats.base import Context, ExportRow, TrainingFormat, plain
from labeler.sentence import N_
from labeler.text import safe_cell

BOM = "\ufeff"
_NEEDS_QUOTES = re.compile(r'[",\r\n]')
_FIXED = ("key", "text", "value", "rendered", "group", "split")


class Csv(TrainingFormat):
    """key, text, value, rendered, group, split, weight if asked, then one column for each name of the metadata.

    Where a model wrote some of the texts, ``written_by`` names it in their rows.
    ``value`` is the plain text where the label is one (Choice, Text), else JSON. By default a spreadsheet cannot take
    a cell for a formula (:func:`safe_cell`).
    """

    name = "csv"
    suffix = ".csv"
    description = N_("A table for spreadsheets and statistics; it can be imported again")
    complete = True
    asks = False

    def head(self, context: Context) -> str:
        names = [*_FIXED, *(["weight"] if context.weighted else []), *(["written_by"] if context.written else [])]
        taken = set(names)
        for column in context.columns:
            while column in taken:
                column = f"metadata.{column}"
            taken.add(column)
            names.append(column)
        return (BOM if context.bom else "") + csv_line(names, context.formula_safe)

    def row(self, row: ExportRow, context: Context) -> str:
        record = row.record
        rendered = context.task.schema.render(row.value, context.style.language)
        cells = [record.key, record.text, plain(row.label), rendered, record.group or "", row.split]
        cells += [plain(row.weight)] if context.weighted else []
        cells += [row.provenance.get("written", {}).get("model", "")] if context.written else []
        cells += [plain(record.metadata[name]) if name in record.metadata else "" for name in context.columns]
        return csv_line(cells, context.formula_safe)


def csv_line(cells: Sequence[str], formula_safe: bool) -> str:
    r"""Return one line of CSV (RFC 4180, but with ``\n``), with quotes only where they are needed.

    The csv module of Python 3.11 leaves a lone ``\r`` without quotes, and readers take it for a line end.
    """
    if formula_safe:
        cells = [safe_cell(cell) for cell in cells]
    line = ",".join(cells)
    if line.count(",") >= len(cells) or '"' in line or "\n" in line or "\r" in line:
        line = ",".join(['"' + cell.replace('"', '""') + '"' if _NEEDS_QUOTES.search(cell) else cell for cell in cells])
    return line + "\n"
