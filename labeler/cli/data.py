"""Data in and out: records from files, training sets from approved annotations."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import (
    clean,
    cli,
    pairs,
    with_new_instance,
)  # fmt: skip
from labeler.errors import InputError, NotFound
from labeler.ingest.options import ImportOptions

if TYPE_CHECKING:
    from labeler.ingest.report import Report
    from labeler.ingest.service import Importer
    from labeler.instance import Instance


@cli.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--project", required=True, metavar="NAME", help="The first import of an instance creates it")
@click.option("--new", is_flag=True, help="Create the project")
@click.option("--text", metavar="COL", help="The column of the review [guessed]")
@click.option("--part", multiple=True, metavar="TITLE=COL", help="A column of a text in parts, in place of --text")
@click.option("--id", "id_", metavar="COL", help="The column of a stable id [guessed]")
@click.option("--group", metavar="COL", help="The column of the product [guessed]")
@click.option("--label", multiple=True, metavar="TASK=COL", help="A column of labels, imported as approved")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="The tasks of a new project [all]")
@click.option("--language", type=click.Choice(["ko", "en"]), default="ko", show_default=True, help="For a new project")
@click.option("--encoding", help="Instead of the detected one: utf-8, cp949, utf-16 ...")
@click.option("--delimiter", help="Instead of the detected one; 'tab' for a tab")
@click.option("--sheet", help="The sheet of a workbook")
@click.option("--header-row", metavar="N", help="The row of the column names; 1-2 for names in two rows [found]")
@click.option("--no-header", is_flag=True, help="The first row is data; columns are named 'column 1', ...")
@click.option("--strict", is_flag=True, help="All rows or none")
@click.option(
    "--report", "report_file", type=click.Path(path_type=Path), help="Write every problem and its row to a new CSV file"
)
@with_new_instance
def import_(
    instance: Instance, file: Path, project: str, tasks: tuple[str, ...], language: str, label: tuple[str, ...],
    part: tuple[str, ...], report_file: Path | None, new: bool, no_header: bool, id_: str | None, **options: Any,
) -> None:  # fmt: skip
    """Import FILE (CSV, TSV, JSONL, JSON, xlsx, Parquet; also .gz) into a project.

    If FILE can be read in several ways, it stores nothing and names the options that choose one. The exit status is 2
    if nothing was imported.
    """
    from labeler.ingest.reading import preview
    from labeler.plugins import find

    labels, known = pairs(label, "--label"), instance.store.projects.all()
    found = next((one for one in known if one["name"] == clean("project", project)), None)
    if found is None and known and not new:
        names = ", ".join(one["name"] for one in known[:20])
        raise NotFound(f"No project {project!r}; there are: {names}. To make it, say --new")
    if found is not None and new:
        raise InputError(f"There is already a project called {project!r}; leave out --new to import into it")
    readers = instance.plugins.importers
    if part and options["text"]:
        raise InputError("Give --text or --part, not both: the parts are the text")
    asked = ImportOptions(id=id_, labels=labels, parts=pairs(part, "--part"), header=not no_header, **options)
    seen = preview(file, asked, readers)
    chosen = seen.resolve(asked)
    every = instance.plugins.tasks
    has = {name: every[name] for name in tasks or every if name in every} if found is None else instance.tasks_of(found)
    for name in labels:
        find(has, name, "task")
    if report_file is not None and not report_file.parent.is_dir():
        raise InputError(f"There is no folder {report_file.parent} for the report")
    if report_file is not None and report_file.exists():
        raise InputError(f"There is already a file {report_file}; name another one for the report")
    if found is None:
        made = instance.create_project(project, language, {"tasks": list(tasks)} if tasks else None)
        found = instance.store.projects.get(made)
        click.echo(f"Made the project {project!r}.")
    how = [seen.format, seen.encoding, seen.header and f"names in row {seen.header}"]
    columns = f"text={chosen.text!r} id={chosen.id!r} group={chosen.group!r}"
    click.echo(f"{file.name}: {', '.join(part for part in how if part)}; {columns}")
    report = _import_with_a_bar(instance.importer(found), file, chosen)
    likely = seen.labels(has.values()).items()
    left = [_not_taken(name, columns, chosen) for name, columns in likely if name not in labels]
    report.notes = list(dict.fromkeys([*seen.notes, *report.notes, *left]))
    _show_report(report, report_file)
    if not report.added and not report.known:
        click.echo("Nothing went in.", err=True)
        click.get_current_context().exit(2)


def _not_taken(task: str, columns: Sequence[str], chosen: ImportOptions) -> str:
    """Say that a column which seems to hold labels of a task was kept as metadata, and how to take them in."""
    again = "import the file again with" if chosen.id else "take this import back and import the file with"
    options = " or ".join(f"--label {shlex.quote(f'{task}={column}')}" for column in columns)
    return (
        f"{', '.join(map(repr, columns))} seems to hold labels of the task {task}; it was kept as metadata. To have "
        f"them approved, {again} {options}"
    )


def _import_with_a_bar(importer: Importer, file: Path, chosen: ImportOptions) -> Report:
    size = file.stat().st_size
    with click.progressbar(length=size, label="Importing", file=sys.stderr) as bar:
        report = importer.run(file, chosen, on_progress=lambda position, *_: bar.update(position - bar.pos))
        bar.update(max(0, size - bar.pos))
    return report


def _show_report(report: Report, report_file: Path | None) -> None:
    click.echo(
        f"{report.added} added ({report.duplicates} exact duplicates), {report.known} already there, "
        f"{report.labels} labels approved, {report.refused} refused."
    )
    counts = {
        "given to an equal record": report.given,
        "the same as before": report.agreed,
        "contradicting": report.contradicting,
        "left out": report.left_out,
    }
    if any(counts.values()):
        click.echo(f"Labels: {', '.join(f'{count} {what}' for what, count in counts.items() if count)}.")
    for note in report.notes:
        click.echo(f"Note: {note}")
    for number, column, reason in report.lines[:20]:
        click.echo(f"  row {number}{f', {column}' if column else ''}: {reason}", err=True)
    if report.said > 20 and report_file is None:
        click.echo(f"  ... and {report.said - 20} more; --report FILE writes all of them", err=True)
    if report_file is not None:
        _write_report(report, report_file)


def _write_report(report: Report, path: Path) -> None:
    """Write the lines as a table; cells cannot become formulas, and a file that is there stays."""
    from labeler.export.formats import BOM, csv_line

    rows = [(str(number), column or "", reason) for number, column, reason in report.lines]
    with path.open("x", encoding="utf-8", newline="") as stream:
        stream.write(BOM)
        stream.writelines(csv_line(row, True) for row in [("row", "column", "reason"), *rows])
    click.echo(f"Wrote {path}.")
