"""Data in and out: records from files, training sets from approved annotations."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import (
    clean,
    cli,
    pairs,
    task_options,
    with_instance,
    with_new_instance,
    with_readable_instance,
)  # fmt: skip
from labeler.cli.export_options import row_options
from labeler.errors import InputError, NotFound
from labeler.ingest.options import ImportOptions
from labeler.prompts import NAMES
from labeler.prompts.styles import ANSWERS, GUIDELINES

if TYPE_CHECKING:
    from labeler.export import Filters, Selection
    from labeler.ingest.report import Report
    from labeler.ingest.service import Importer
    from labeler.instance import Instance
    from labeler.store import Store, Tx


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


@cli.command()
@task_options
@click.option("--format", "format_name", required=True, metavar="NAME", help="One of docs/export.md, such as openai")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--name", default="", metavar="NAME", help="What the export is called, to compare it or to train on it")
@click.option("--split", default="0.8,0.1,0.1", show_default=True, help="Shares of train, validation and test")
@row_options
@click.option("--keep-contradicting", is_flag=True, help="Also copies and near-duplicates with different labels")
@click.option("--examples", type=int, default=0, metavar="K", help="So many approved examples in each prompt [none]")
@click.option("--earlier", is_flag=True, help="Only examples that were approved before the row")
@click.option("--guidelines", type=click.Choice(GUIDELINES), help="How much of them the prompts have [as the task]")
@click.option("--answers", type=click.Choice(ANSWERS), help="One JSON object, or the bare label [as the task]")
@click.option("--names", type=click.Choice(NAMES), help="What labels are called in prompts and answers [as the task]")
@click.option("--joint", multiple=True, metavar="TASK", help="Another task whose label stands in the same answer")
@click.option("--new-splits", is_flag=True, help="Forget the splits of earlier exports, and split all records again")
@click.option("--raw", is_flag=True, help="csv: do not guard cells that look like formulas")
@click.option("--bom", is_flag=True, help="csv: begin with a byte order mark, for Excel")
@click.option("--reasoning", is_flag=True, help="Also what the model wrote on the way: in answers, or in suggestions")
@click.option("--template", default="", metavar="NAME", help="text: chatml, llama3, gemma3, or the folder of a model")
@click.option("--tokens", default="", metavar="NAME", help="conll: whitespace (if not given), characters, kiwi")
@click.option("--push", metavar="REPO", help="dataset: put it on the Hugging Face hub too, with the token of HF_TOKEN")
@click.option("--public", is_flag=True, help="dataset: everybody may read what --push puts on the hub")
@click.option("--keep-same-form", is_flag=True, help="Preferences: also pairs that differ in form alone")
@click.option("--failures", is_flag=True, help="Preferences: unreadable answers are the worse ones of pairs")
@with_readable_instance
def export(
    instance: Instance, project: str, task_name: str, format_name: str, out: Path, split: str, filters: Filters,
    selection: Selection, joint: tuple[str, ...], raw: bool, name: str, push: str | None, public: bool, **options: Any,
) -> None:  # fmt: skip
    """Export approved annotations as a training set (or suggestions, for analysis)."""
    from labeler.export import Options, Shares, export_task, hub

    if push:
        hub.check(format_name, push)
    elif public:
        raise InputError("--public is about --push REPO; give both")
    found = instance.store.projects.named(project)
    task = instance.project_task(found, task_name)
    try:
        shares = Shares(*(float(part) for part in split.split(",")))
    except (TypeError, ValueError):
        raise InputError(f"--split takes three shares such as 0.8,0.1,0.1, not {split!r}") from None
    result = export_task(
        instance.store,
        found,
        task,
        format_name,
        out,
        formats=instance.plugins.exporters,
        shares=shares,
        filters=filters,
        selection=selection,
        options=Options(formula_safe=not raw, joint=joint, **options),
        calls=instance.calls(found, task),
        name=clean("name", name),
    )
    for path in result.files:
        click.echo(str(path))
    _show_findings(result.manifest)
    if result.unrecorded:
        click.echo(f"Note: the export stands, but is not listed in the project: {result.unrecorded}", err=True)
    if push:
        click.echo(f"On the hub, {'for everybody' if public else 'private'}: {hub.push(result, push, public)}")


def _show_findings(manifest: Mapping[str, Any]) -> None:
    filtered = ", ".join(f"{n} by {name}" for name, n in manifest.get("filtered", {}).items())
    if filtered:
        click.echo(f"Filtered: {filtered}", err=True)
    for what, said in (("left_out", "Left out"), ("moved", "Moved"), ("warnings", "Note")):
        for finding in manifest.get(what, []):
            # What is said of a split has no rows of its own.
            shown = f"{finding['count']} x {finding['message']}" if finding["keys"] else finding["message"]
            click.echo(f"{said}: {shown}", err=True)
    if frozen := manifest.get("selection", {}).get("freeze"):
        click.echo(f"Froze the test set as {frozen!r}", err=True)


@cli.command()
@click.option("--project", required=True, metavar="NAME")
@click.option("--thaw", metavar="NAME", help="Let the records of this frozen test set train again")
@with_instance
def frozen(instance: Instance, project: str, thaw: str | None) -> None:
    """List the frozen test sets of a project: `labeler export --freeze` makes one."""
    store, found = instance.store, instance.store.projects.named(project)
    if thaw is not None:
        store.write(lambda tx: _thaw(store, tx, found["id"], thaw))
    for row in store.splits.frozen(found["id"]):
        click.echo(
            f"{row['name']}: {row['records']} records, since {time.strftime('%Y-%m-%d', time.gmtime(row['at']))}"
        )


def _thaw(store: Store, tx: Tx, project_id: int, name: str) -> None:
    store.splits.thaw(tx, project_id, name)
    store.events.add(tx, "test set thawed", project_id=project_id, detail={"name": name})
