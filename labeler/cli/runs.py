"""Runs: ask for suggestions, see first what that would take, and watch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import cli, task_options, with_instance
from labeler.cli.run_options import read_options, run_options
from labeler.cli.words import duration, ending
from labeler.errors import InputError
from labeler.settings import BATCH_EXECUTOR

if TYPE_CHECKING:
    from labeler.instance import Instance
    from labeler.prelabel.runs import Estimate
    from labeler.prelabel.suggest import Suggester


@cli.command()
@task_options
@run_options()
@click.option("--limit", type=click.IntRange(1), help="At most this many records")
@click.option("--again", is_flag=True, help="Also pending records that have a suggestion")
@click.option("--dry-run", is_flag=True, help="Show items, calls, tokens, cost and time; call nothing")
@with_instance
def prelabel(
    instance: Instance, project: str, task_name: str, limit: int | None, again: bool, dry_run: bool, **given: Any
) -> None:
    """Suggest labels for the pending records of a task. What is not given is as set for the task."""
    from labeler.prelabel import runs

    found = instance.store.projects.named(project)
    settings = read_options(given, found["language"])
    budget = settings.pop("budget", None)
    task = instance.project_task(found, task_name)
    suggester = checked_suggester(instance, found, task_name, settings)
    # What would be decided anew each time is written down, so that a resumed run stays what it was.
    settings |= {"backend": suggester.backend.name, "model_id": suggester.backend.model_id or ""}
    set_ = instance.task_settings(found, task.name) | settings
    chosen = runs.select(instance.store, found["id"], task_name, limit, again)
    _warn(instance, suggester)
    if dry_run:
        info, batch = instance.price_of(suggester.backend), set_["executor"] == BATCH_EXECUTOR
        seen = runs.estimate(suggester, chosen, info, instance.pace(set_), batch)
        _show_estimate(seen, set_["executor"])
        return
    budget = set_["budget"] if budget is None else budget
    run_id = runs.start(instance.store, found["id"], task_name, chosen, settings, budget)
    if set_["executor"] == BATCH_EXECUTOR:
        click.echo("Sent in batches: answers come within a day. Ctrl-C leaves them on their way.", err=True)
    watch_run(instance, run_id)


def checked_suggester(
    instance: Instance, project: Mapping[str, Any], task_name: str, settings: Mapping[str, Any]
) -> Suggester:
    """Return what makes the suggestions of a run. Raises :class:`LabelerError` for what no run could be made with."""
    from labeler.plugins import find

    if settings.get("executor"):
        find(instance.plugins.executors, settings["executor"], "executor")
    return instance.suggester(project, instance.project_task(project, task_name), settings)


def _warn(instance: Instance, suggester: Suggester) -> None:
    said = ending(instance.price_of(suggester.backend))
    if said:
        click.echo(f"Note: {said}", err=True)


def _show_estimate(seen: Estimate, executor: str) -> None:
    cost = "unknown" if seen.cost is None else f"${seen.cost:.4f}"
    time = "unknown until a call was made" if seen.seconds is None else f"about {duration(seen.seconds)}"
    if executor == BATCH_EXECUTOR:
        time = "within a day"
    click.echo(f"{seen.items} records with {seen.backend} {seen.model_id or ''}".rstrip())
    click.echo(
        f"About {seen.calls:,} calls, {seen.tokens_in:,} tokens in, {seen.tokens_out:,} out; cost {cost}; time {time}."
        " Nothing was called."
    )
    if seen.measured:
        click.echo(f"The length and time of answers are those of the last {seen.measured} calls of this model.")


def watch_run(instance: Instance, run_id: int) -> None:
    """Move a run in the foreground with a progress bar; Ctrl-C leaves it queued, and nothing paid is lost."""
    import threading

    from labeler.worker import Worker

    background = Worker(instance)
    mover = threading.Thread(target=background.see_through, args=(run_id,), daemon=True)
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
    _show_run(instance, run_id)


def _show_run(instance: Instance, run_id: int) -> None:
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
