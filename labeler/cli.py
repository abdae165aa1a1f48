"""The command ``labeler``. Slow things load inside the commands, so that ``labeler --help`` answers at once."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from functools import wraps
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from labeler.errors import InputError, LabelerError

if TYPE_CHECKING:
    from labeler.instance import Instance

Command = TypeVar("Command", bound=Callable[..., Any])
PORT = 8765


class Cli(click.Group):
    """Turns every error of ours into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LabelerError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except OSError as error:
            if error.errno == errno.EPIPE:
                # Whoever read our output has gone; click knows how to end then.
                raise
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="labeler")
def cli() -> None:
    """Label customer reviews with retrieval: every approved label makes the next suggestion better."""


def main() -> None:
    """Entry point. Commands of plugins are added only when they may be needed, to keep --help fast."""
    known = set(cli.commands)
    named = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    if named is not None and named not in known:
        _add_plugin_commands(sys.argv[1:])
    cli()


def _add_plugin_commands(words: list[str]) -> None:
    from labeler import built_in
    from labeler.instance import instance_folder
    from labeler.plugins import load_plugins

    # click has not read the options yet, and the plugins of the instance are wanted.
    after = (following for word, following in pairwise(words) if word == "--instance")
    joined = (word.partition("=")[2] for word in words if word.startswith("--instance="))
    plugins = load_plugins(built_in, instance_folder(next(chain(after, joined), None)) / "plugins")
    plugins.commands(cli)
    for disabled in plugins.disabled:
        click.echo(f"Plugin {disabled.name} is disabled: {disabled.reason}", err=True)


def instance_option(command: Command) -> Command:
    option = click.option(
        "--instance", "folder", metavar="FOLDER", envvar="LABELER_INSTANCE", help="The instance folder [./instance]"
    )
    return option(command)


def with_instance(command: Command) -> Command:
    """Open the instance for a command and close it afterwards, whatever happens."""

    @wraps(command)
    def run(folder: str | None, **options: Any) -> Any:
        from labeler.instance import Instance, instance_folder

        with Instance(instance_folder(folder)) as instance:
            return command(instance=instance, **options)

    return instance_option(run)  # type: ignore[return-value]


def pairs(values: tuple[str, ...], what: str) -> dict[str, str]:
    """Read options of the form NAME=VALUE."""
    found = {}
    for value in values:
        name, mark, rest = value.partition("=")
        if not mark or not name or not rest:
            raise InputError(f"{what} is given as NAME=VALUE, not {value!r}")
        found[name] = rest
    return found


# Serving


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535))
@click.option("--allow-host", multiple=True, help="A host name to answer to, besides --host and localhost")
@click.option("--tls", is_flag=True, help="A reverse proxy ends TLS: cookies are sent over https only")
@click.option("--threads", default=8, show_default=True, type=click.IntRange(1, 256))
@click.option("--no-worker", is_flag=True, help="Do no background work in this process (see: labeler worker)")
@click.option("--read-only", is_flag=True, help="Change nothing: look and export only")
@instance_option
def serve(folder: str | None, read_only: bool, **options: Any) -> None:
    """Serve the page and the background worker."""
    from labeler.instance import Instance, instance_folder
    from labeler.serving import run_server

    with Instance(instance_folder(folder), read_only=read_only) as instance:
        run_server(instance, **options)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535))
@instance_option
def demo(folder: str | None, host: str, port: int) -> None:
    """Serve a demonstration project: 260 reviews, 60 of them approved, no key needed."""
    from labeler import demo as demonstration
    from labeler.instance import Instance, instance_folder
    from labeler.serving import first_account, run_server

    path = instance_folder(folder) if folder else instance_folder() / "demo"
    with Instance(path) as instance:
        person = first_account(instance.store, "demo")
        project = demonstration.create(instance, person)
        run_server(instance, host=host, port=port, person=person, path=f"/projects/{project['id']}", next_free=True)


@cli.command()
@click.option("--once", is_flag=True, help="Do what there is to do, then end")
@with_instance
def worker(instance: Instance, once: bool) -> None:
    """Do the background work of an instance in a process of its own."""
    from labeler.serving import end_signal, wait_for
    from labeler.worker import Worker

    background = Worker(instance)
    if once:
        background.run_until_idle()
        return
    ended = end_signal()
    background.start()
    click.echo("Working in the background; Ctrl-C ends it cleanly.")
    wait_for(ended)
    background.stop()


# Data in


@cli.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--project", required=True, metavar="NAME", help="Made if there is none of that name")
@click.option("--text", metavar="COL", help="The column of the review [guessed]")
@click.option("--id", "id_", metavar="COL", help="The column of a stable id [guessed]")
@click.option("--group", metavar="COL", help="The column of the product [guessed]")
@click.option("--label", multiple=True, metavar="TASK=COL", help="A column of labels, taken in as approved")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="The tasks of a new project [all]")
@click.option("--language", type=click.Choice(["ko", "en"]), default="ko", show_default=True, help="Of a new project")
@click.option("--encoding", help="Instead of the detected one: utf-8, cp949, utf-16 ...")
@click.option("--delimiter", help="Instead of the detected one; 'tab' for a tab")
@click.option("--sheet", help="The sheet of a workbook")
@click.option("--no-header", is_flag=True, help="The first row is data; columns are named 'column 1', ...")
@click.option("--strict", is_flag=True, help="All rows or none")
@click.option("--report", "report_file", type=click.Path(path_type=Path), help="Write the refused rows to a CSV file")
@with_instance
def import_(
    instance: Instance, file: Path, project: str, tasks: tuple[str, ...], language: str, label: tuple[str, ...],
    report_file: Path | None, no_header: bool, id_: str | None, **options: Any,
) -> None:  # fmt: skip
    """Import FILE (CSV, TSV, JSONL, JSON, xlsx, Parquet; also .gz) into a project."""
    from labeler.ingest.options import ImportOptions
    from labeler.ingest.service import preview, resolve
    from labeler.plugins import find

    labels = pairs(label, "--label")
    readers = instance.plugins.importers
    chosen = resolve(file, ImportOptions(id=id_, labels=labels, header=not no_header, **options), readers)
    seen = preview(file, chosen, readers)
    known = {p["name"]: p for p in instance.store.projects.all()}
    has = instance.tasks_of(known[project]) if project in known else dict.fromkeys(tasks or instance.plugins.tasks)
    for name in labels:
        find(has, name, "task")
    if report_file is not None and not report_file.parent.is_dir():
        raise InputError(f"There is no folder {report_file.parent} for the report")
    if project not in known:
        settings = {"tasks": list(tasks)} if tasks else None
        instance.create_project(project, language, settings)
        click.echo(f"Made the project {project!r}.")
    encoding = f", {seen.encoding}" if seen.encoding else ""
    click.echo(f"{file.name}: {seen.format}{encoding}; text={chosen.text!r} id={chosen.id!r} group={chosen.group!r}")
    found = instance.store.projects.named(project)
    with click.progressbar(length=file.stat().st_size, label="Importing", file=sys.stderr) as bar:
        done = 0

        def on_progress(position: int, size: int, report: Any) -> None:
            nonlocal done
            bar.update(position - done)
            done = position

        report = instance.importer(found).run(file, chosen, on_progress=on_progress)
        bar.update(max(0, file.stat().st_size - done))
    click.echo(
        f"{report.added} added ({report.duplicates} exact duplicates), {report.known} already there, "
        f"{report.labels} labels approved, {report.refused_count} refused."
    )
    for note in report.notes:
        click.echo(f"Note: {note}")
    _show_refused(report, report_file)


def _show_refused(report: Any, report_file: Path | None) -> None:
    for number, column, reason in report.refused[:20]:
        click.echo(f"  row {number}{f', {column}' if column else ''}: {reason}", err=True)
    if report.refused_count > 20 and report_file is None:
        click.echo(f"  ... and {report.refused_count - 20} more; --report FILE writes all of them", err=True)
    if report_file is not None:
        import csv

        with report_file.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["row", "column", "reason"])
            writer.writerows(report.refused)
        click.echo(f"Wrote {report_file}.")


# Suggestions


@cli.command()
@click.option("--project", required=True, metavar="NAME")
@click.option("--task", "task_name", required=True, metavar="TASK")
@click.option("--backend", metavar="NAME", help="openai, nearest, probe ... [as set for the task]")
@click.option("--model", "model_id", metavar="ID", help="The model id, as the backend knows it")
@click.option("--k", type=click.IntRange(0, 64), help="How many examples a prompt shows")
@click.option("--retriever", metavar="NAME", help="balanced, similar, mmr, diverse, fixed, random, none")
@click.option("--style", metavar="NAME", help="few-shot, zero-shot")
@click.option("--limit", type=click.IntRange(1), help="At most this many records")
@click.option("--budget", type=click.FloatRange(0), help="The most it may cost, in US dollars")
@click.option("--concurrency", type=click.IntRange(1, 256), help="Calls in flight at once")
@click.option("--again", is_flag=True, help="Also pending records that have a suggestion")
@click.option("--dry-run", is_flag=True, help="Show items, tokens and cost; call nothing")
@with_instance
def prelabel(
    instance: Instance, project: str, task_name: str, limit: int | None, budget: float | None, again: bool,
    dry_run: bool, **overrides: Any,
) -> None:  # fmt: skip
    """Suggest labels for the pending records of a task."""
    from labeler.prelabel import runs

    found = instance.store.projects.named(project)
    settings = {name: value for name, value in overrides.items() if value is not None}
    suggester = instance.suggester(found, instance.project_task(found, task_name), settings)
    settings |= {"backend": suggester.backend.name, "model_id": suggester.backend.model_id or ""}
    chosen = runs.select(instance.store, found["id"], task_name, limit, again)
    if dry_run:
        seen = runs.estimate(suggester, chosen, instance.price_of(suggester.backend.model_id))
        cost = "unknown" if seen.cost is None else f"${seen.cost:.4f}"
        click.echo(f"{seen.items} records with {seen.backend} {seen.model_id or ''}".rstrip())
        click.echo(f"About {seen.tokens_in:,} tokens in, {seen.tokens_out:,} out; cost {cost}. Nothing was called.")
        return
    if budget is None:
        budget = instance.task_settings(found, task_name)["budget"]
    run_id = runs.start(instance.store, found["id"], task_name, chosen, settings, budget)
    _watch_run(instance, run_id)


def _watch_run(instance: Instance, run_id: int) -> None:
    """Move a run in the foreground with a progress bar; Ctrl-C leaves it queued, and nothing paid is lost."""
    import threading

    from labeler.worker import Worker

    background = Worker(instance)
    mover = threading.Thread(target=background.move_run, args=(run_id,), daemon=True)
    mover.start()
    run = instance.store.ledger.run(run_id)
    try:
        with click.progressbar(length=run["total"], label=f"Run {run_id}", file=sys.stderr) as bar:
            shown = 0
            while True:
                mover.join(0.2)
                run = instance.store.ledger.run(run_id)
                ended = run["done"] + run["failed"]
                bar.update(ended - shown)
                shown = ended
                if not mover.is_alive():
                    break
    except KeyboardInterrupt:
        background.stopping.set()
        mover.join()
        click.echo(f"\nStopped; run {run_id} goes on with 'labeler worker' or 'labeler serve'.", err=True)
        sys.exit(130)
    run = instance.store.ledger.run(run_id)
    cost = "unknown" if run["unpriced"] else f"${run['spent']:.4f}"
    click.echo(
        f"Run {run_id} {run['state']}: {run['done']} suggestions ({run['parse_failures']} unreadable), "
        f"{run['failed']} failed; {run['calls']} calls ({run['repeats']} repeats, {run['reused']} from the ledger), "
        f"{run['tokens_in']:,} tokens in, {run['tokens_out']:,} out, cost {cost}."
    )
    for failure in instance.store.ledger.failures(run_id):
        click.echo(f"  {failure['n']} x {failure['kind']}: {failure['message']}", err=True)
    if run["state"] != "finished":
        raise InputError(f"The run is {run['state']}: {run['message']}")


# Data out


@cli.command()
@click.option("--project", required=True, metavar="NAME")
@click.option("--task", "task_name", required=True, metavar="TASK")
@click.option("--format", "format_name", required=True, metavar="NAME", help="openai, trl, alpaca, csv, suggestions")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--split", default="0.8,0.1,0.1", show_default=True, help="Shares of train, validation and test")
@click.option("--how", multiple=True, metavar="HOW", help="Only: accepted, corrected, scratch, imported")
@click.option("--language", type=click.Choice(["ko", "en"]), help="Only records in this language")
@click.option("--raw", is_flag=True, help="csv: do not guard cells that look like formulas")
@click.option("--bom", is_flag=True, help="csv: begin with a byte order mark, for Excel")
@with_instance
def export(
    instance: Instance, project: str, task_name: str, format_name: str, out: Path, split: str, how: tuple[str, ...],
    language: str | None, raw: bool, bom: bool,
) -> None:  # fmt: skip
    """Export approved annotations as a training set (or suggestions, for analysis)."""
    from labeler.export import Filters, Options, Shares, export_task

    found = instance.store.projects.named(project)
    try:
        shares = Shares(*(float(part) for part in split.split(",")))
    except (TypeError, ValueError):
        raise InputError(f"--split takes three shares such as 0.8,0.1,0.1, not {split!r}") from None
    result = export_task(
        instance.store,
        found,
        instance.project_task(found, task_name),
        format_name,
        out,
        formats=instance.plugins.exporters,
        shares=shares,
        filters=Filters(how=how, language=language),
        options=Options(formula_safe=not raw, bom=bom),
    )
    for path in result.files:
        click.echo(str(path))
    for what in ("left_out", "warnings"):
        for finding in result.manifest.get(what, []):
            shown = finding if isinstance(finding, str) else f"{finding['count']} x {finding['message']}"
            click.echo(f"{'Left out' if what == 'left_out' else 'Note'}: {shown}", err=True)
    if result.unrecorded:
        click.echo(f"Note: the export stands, but is not listed in the project: {result.unrecorded}", err=True)


# Looking


@cli.command()
@with_instance
def projects(instance: Instance) -> None:
    """List the projects, with progress by task."""
    for project in instance.store.projects.all():
        counts = instance.store.records.counts(project["id"])
        click.echo(f"{project['name']}: {counts['records']} records")
        for name in instance.tasks_of(project):
            work = instance.store.work.counts(project["id"], name)
            click.echo(f"  {name}: {work['approved']} approved, {work['rejected']} rejected, {work['pending']} pending")


@cli.command()
@with_instance
def tasks(instance: Instance) -> None:
    """List the tasks that plugins registered."""
    for name, task in instance.plugins.tasks.items():
        owner = instance.plugins.owners[("tasks", name)]
        click.echo(f"{name} {task.version} ({task.schema.kind}): {task.titled('en')} / {task.titled('ko')}  [{owner}]")


@cli.command()
@with_instance
def backends(instance: Instance) -> None:
    """List the backends, and which are set up."""
    from labeler.backends.openai import is_configured

    for name in instance.plugins.backends:
        state = "ready"
        if name == "openai":
            state = "ready" if is_configured(instance.settings) else "set OPENAI_API_KEY or OPENAI_BASE_URL"
        click.echo(f"{name}: {state}")


@cli.command()
@with_instance
def plugins(instance: Instance) -> None:
    """List the plugins, and those that were disabled, with the reason."""
    for name in instance.plugins.loaded:
        click.echo(name)
    for disabled in instance.plugins.disabled:
        click.echo(f"{disabled.name}: disabled: {disabled.reason}", err=True)


@cli.command()
@click.argument("name", required=False)
@click.argument("value", required=False)
@with_instance
def settings(instance: Instance, name: str | None, value: str | None) -> None:
    """Show the instance's settings or one of them, or set one (an empty VALUE removes it). A key is never shown."""
    from labeler.settings import read_settings

    if name is not None:
        read_settings("instance", {name: value})
    if name is not None and value is not None:
        instance.change_settings({name: value})
    for key, stored in instance.settings.items():
        if name is not None and value is None and key != name:
            continue
        click.echo(f"{key} = {'(set)' if key.endswith('_key') else json.dumps(stored)}")


@cli.group()
def user() -> None:
    """Accounts."""


@user.command(name="add")
@click.argument("name")
@click.option("--admin", is_flag=True, help="May change settings, import and export")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input")
@click.option("--project", "project_names", multiple=True, metavar="NAME", help="A project the reviewer works on")
@with_instance
def user_add(instance: Instance, name: str, admin: bool, password_stdin: bool, project_names: tuple[str, ...]) -> None:
    """Add an account and print a one-time sign-in link path (or set its password from standard input)."""
    from labeler import accounts

    password = sys.stdin.readline().rstrip("\n") if password_stdin else None
    members = [instance.store.projects.named(project)["id"] for project in project_names]
    id_ = accounts.add_reviewer(instance.store, name, password, accounts.ADMIN if admin else accounts.REVIEWER)
    for project_id in members:
        instance.store.write(
            lambda tx, project_id=project_id: instance.store.projects.add_member(  # type: ignore[misc]
                tx, project_id, id_, accounts.REVIEWER
            )
        )
    if password is None:
        click.echo(f"One-time sign-in, valid for a day: /welcome?token={accounts.one_time_link(instance.store, id_)}")
    else:
        click.echo(f"Added {name}.")


# Care


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@with_instance
def backup(instance: Instance, file: Path) -> None:
    """Write a consistent copy of the database to FILE while others go on working."""
    instance.store.backup(file)
    click.echo(f"Wrote {file} ({file.stat().st_size:,} bytes).")


@cli.command()
@instance_option
def doctor(folder: str | None) -> None:
    """Check the instance and say what is wrong and what to do."""
    from labeler.doctor import examine
    from labeler.instance import instance_folder

    findings = examine(instance_folder(folder))
    for finding in findings:
        click.echo(f"{'ok  ' if finding.good else 'BAD '} {finding.text}")
    if not all(finding.good for finding in findings):
        raise InputError("Something needs attention; see the lines marked BAD")
