"""Data out: training sets from approved annotations, checked before, compared and made again after."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import clean, cli, task_options, with_instance, with_readable_instance
from labeler.cli.export_options import row_options
from labeler.errors import InputError
from labeler.prompts import NAMES
from labeler.prompts.forms import ANSWERS, GUIDELINES
from labeler.text import one_line

if TYPE_CHECKING:
    from labeler.export import Filters, Preflight, Selection
    from labeler.instance import Instance
    from labeler.store import Store, Tx

_SHOWN = 20


@cli.command()
@task_options
@click.option("--format", "format_name", required=True, metavar="NAME", help="One of docs/export.md, such as openai")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Where to write; needed unless --check")
@click.option(
    "--check", is_flag=True, help="Write nothing; say what a trainer would make of it, status 1 if it refuses"
)
@click.option("--model", metavar="MODEL", help="--check: folder, hub id or OpenAI's name of what rows must fit [none]")
@click.option("--name", default="", metavar="NAME", help="What the export is called, to compare it or to train on it")
@click.option("--split", default="0.8,0.1,0.1", show_default=True, help="Shares of train, validation and test")
@row_options
@click.option("--keep-contradicting", is_flag=True, help="Also copies and near-duplicates with different labels")
@click.option("--examples", type=int, default=0, metavar="K", help="So many approved examples in each prompt [none]")
@click.option("--earlier", is_flag=True, help="Only examples that were approved before the row")
@click.option("--guidelines", type=click.Choice(GUIDELINES), help="How much of them the prompts have [as the task]")
@click.option("--answers", type=click.Choice(ANSWERS), help="One JSON object, or the bare label [as the task]")
@click.option("--names", type=click.Choice(NAMES), help="What labels are called in prompts and answers [as the task]")
@click.option("--joint", multiple=True, metavar="TASK", help="Another task whose label is in the same answer")
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
    instance: Instance, project: str, task_name: str, format_name: str, out: Path | None, split: str,
    filters: Filters, selection: Selection, joint: tuple[str, ...], raw: bool, name: str, push: str | None,
    public: bool, check: bool, model: str | None, **options: Any,
) -> None:  # fmt: skip
    """Export approved annotations as a training set (or suggestions, for analysis).

    With --check the exit status is 1 if a trainer would refuse the set.
    """
    from labeler.export import Options, Shares, check_task, export_task, hub

    if out is None and not check:
        raise InputError("Say where to write: --out FOLDER; or --check to write nothing")
    if push:
        hub.check(format_name, push)
    elif public:
        raise InputError("--public is about --push REPO; give both")
    found = instance.store.projects.named(project)
    task = instance.project_task(found, task_name)
    try:
        train, validation, test = (float(part) for part in split.split(","))
    except ValueError:
        raise InputError(f"--split takes three shares such as 0.8,0.1,0.1, not {split!r}") from None
    wanted: dict[str, Any] = {
        "formats": instance.plugins.exporters,
        "shares": Shares(train, validation, test),
        "filters": filters,
        "selection": selection,
        "options": Options(formula_safe=not raw, joint=joint, **options),
        "calls": instance.calls(found, task),
    }
    if check or out is None:
        prices = instance.prices
        _show_preflight(check_task(instance.store, found, task, format_name, model=model, prices=prices, **wanted))
        return
    result = export_task(instance.store, found, task, format_name, out, name=clean("name", name), **wanted)
    for path in result.files:
        click.echo(str(path))
    _show_findings(result.manifest)
    if result.unrecorded:
        click.echo(f"Note: the export stands, but is not listed in the project: {result.unrecorded}", err=True)
    if push:
        click.echo(f"On the hub, {'for everybody' if public else 'private'}: {hub.push(result, push, public)}")


def _show_preflight(found: Preflight) -> None:
    """Print what was found, and end with 1 if a trainer would refuse the set."""
    rows = ", ".join(f"{n:,} {split}" for split, n in found.counts.items())
    lengths = found.lengths
    counted = "counted" if lengths.real else "estimated"
    tokens = (
        f"; tokens a row, {counted}: {lengths.at(0.5):,} half, {lengths.at(0.99):,} of 99 %, {lengths.longest:,} most"
    )
    reads = f"; the model reads {found.reads:,}" if found.reads else ""
    click.echo(f"Rows: {rows}{tokens if lengths.tokens else ''}{reads}")
    for split, labels in found.labels.items():
        click.echo(f"Labels in {split}: {', '.join(f'{label} {n:,}' for label, n in labels.items()) or 'none'}")
    for finding in found.findings:
        keys = f" ({', '.join(one_line(key) for key in finding.keys[:5])}{' ...' if len(finding.keys) > 5 else ''})"
        click.echo(f"{_LEVELS[finding.level]}: {finding.message}{keys if finding.keys else ''}")
    for sample in found.samples:
        click.echo(f"---\n{sample}")
    click.get_current_context().exit(0 if found.passes else 1)


_LEVELS = {"refused": "REFUSED", "warned": "Warning", "noted": "Note"}


def _show_findings(manifest: Mapping[str, Any]) -> None:
    filtered = ", ".join(f"{n} by {name}" for name, n in manifest.get("filtered", {}).items())
    if filtered:
        click.echo(f"Filtered: {filtered}", err=True)
    for what, said in (("left_out", "Left out"), ("moved", "Moved"), ("written", "Written"), ("warnings", "Note")):
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


@cli.group()
def exports() -> None:
    """List the exports of a project, compare two, or make one again."""


_project = click.option("--project", required=True, metavar="NAME")


@exports.command(name="list")
@_project
@with_readable_instance
def list_(instance: Instance, project: str) -> None:
    """List the exports of a project, newest first."""
    found = instance.store.projects.named(project)
    for made in instance.store.exports.all(found["id"], 1000):
        manifest = made["manifest"]
        counts = ", ".join(f"{n} {split}" for split, n in manifest["counts"].items() if split != "all")
        name = f" {made['name']}" if made["name"] else ""
        click.echo(
            f"{made['id']}{name}: {made['task']}, {made['format']}, {manifest['generated_at']}: {counts} "
            f"[{one_line(made['folder'])}]"
        )


@exports.command()
@click.argument("before")
@click.argument("after")
@_project
@with_readable_instance
def compare(instance: Instance, before: str, after: str, project: str) -> None:
    """Say what changed from the export BEFORE to AFTER, by name or number: added, dropped, changed, moved.

    The exit status is 1 if they differ.
    """
    from labeler.store.exports import ADDED, DROPPED, KINDS

    found = instance.store.projects.named(project)
    old, new = (instance.store.exports.named(found["id"], name)["id"] for name in (before, after))
    differ = 0
    for kind in KINDS:
        count, rows = instance.store.exports.differences(old, new, kind, _SHOWN)
        differ += count
        click.echo(f"{kind}: {count}")
        for row in rows:
            was, now = (f"{row[f'{side}_value']} ({row[f'{side}_split']})" for side in ("old", "new"))
            said = now if kind == ADDED else was if kind == DROPPED else f"{was} -> {now}"
            click.echo(f"  {one_line(row['key'])}: {one_line(said)}")
        if count > len(rows):
            click.echo(f"  ... and {count - len(rows)} more")
    click.get_current_context().exit(1 if differ else 0)


@exports.command()
@click.argument("name")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER")
@_project
@with_readable_instance
def again(instance: Instance, name: str, out: Path, project: str) -> None:
    """Make the export NAME (or its number) again, byte for byte, whatever was decided since.

    The exit status is 1 if a file differs: its records were removed, or a plugin has changed.
    """
    from labeler.export import export_again

    found = instance.store.projects.named(project)
    made = instance.store.exports.named(found["id"], name)
    task = instance.task_at(found, made["task"], made["manifest"]["task_version"])
    calls = instance.calls(found, task, made["manifest"].get("asked"))
    formats = instance.plugins.exporters
    result, differ = export_again(instance.store, found, task, made, out, formats=formats, calls=calls)
    for path in result.files:
        click.echo(str(path))
    if differ:
        click.echo(f"Not as they were: {', '.join(differ)}", err=True)
    else:
        click.echo("Every file is the same, byte for byte.")
    click.get_current_context().exit(1 if differ else 0)
