"""Runs: ask for suggestions, see first what that would take, watch, cancel and resume."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import cli, task_options, with_instance
from labeler.cli.run_options import read_options, run_options
from labeler.cli.words import duration, ending
from labeler.errors import Conflict, InputError
from labeler.sentence import recalled
from labeler.settings import AGAIN, BATCH_EXECUTOR, overrides

if TYPE_CHECKING:
    from labeler.instance import Instance
    from labeler.prelabel.runs import Estimate
    from labeler.prelabel.suggest import Suggester


@cli.command()
@task_options
@run_options()
@click.option("--limit", type=click.IntRange(1), help="At most this many records")
@click.option(
    "--again",
    is_flag=True,
    help="Also pending records that have a suggestion; unreadable answers are requested again",
)
@click.option("--dry-run", is_flag=True, help="Show items, calls, tokens, cost and time; call nothing")
@with_instance
def prelabel(
    instance: Instance, project: str, task_name: str, limit: int | None, again: bool, dry_run: bool, **given: Any
) -> None:
    """Suggest labels for the pending records of a task. Options that you leave out are as set for the task."""
    from labeler.prelabel import runs, trial
    from labeler.prelabel.current import kind_of

    found = instance.store.projects.in_use(project)
    settings = read_options(given, found["language"])
    budget = settings.pop("budget", None)
    task = instance.project_task(found, task_name)
    suggester = checked_suggester(instance, found, task_name, settings)
    # What would be decided anew each time is written down, so that a resumed run stays what it was.
    settings |= {"backend": suggester.backend.name, "model_id": suggester.backend.model_id or ""}
    set_ = instance.task_settings(found, task.name) | settings
    kind = kind_of(suggester)
    chosen = runs.select(instance.store, found["id"], task_name, limit, again, kind)
    tried = trial.chosen(suggester, instance.ensemble(found, task))
    _warn(instance, suggester)
    if not again and (known := runs.left_out(instance.store, found["id"], task_name, kind)):
        click.echo(f"Left out: {known:,} pending records that have such a suggestion; --again takes them too", err=True)
    if dry_run:
        info, batch = instance.price_of(suggester.backend), set_["executor"] == BATCH_EXECUTOR
        seen = runs.estimate(suggester, chosen, info, instance.policy(set_), batch, trial=tried)
        show_estimate(seen, set_["executor"])
        return
    budget = set_["budget"] if budget is None else budget
    settings |= {AGAIN: again}
    run_id = runs.start(instance.store, found["id"], task_name, chosen, settings, budget, trial=tried)
    _say_how(set_["executor"])
    watch_run(instance, run_id)


def _say_how(executor: str) -> None:
    if executor == BATCH_EXECUTOR:
        click.echo("Sent in batches: answers come within a day. Ctrl-C leaves them on their way.", err=True)


@cli.command(name="runs")
@click.option("--project", metavar="NAME", help="Only those of this project")
@click.option("--resume", "resumed", type=click.IntRange(1), metavar="N", help="Resume a paused or cancelled run")
@click.option("--cancel", "cancelled", type=click.IntRange(1), metavar="N", help="Stop a run; its answers are kept")
@run_options("budget")
@with_instance
def runs_(
    instance: Instance, project: str | None, resumed: int | None, cancelled: int | None, budget: str | None
) -> None:
    """List the newest runs, resume one (with --budget: with another budget) or cancel one."""
    from labeler.prelabel import runs

    if (resumed is not None) + (cancelled is not None) + (project is not None) > 1:
        raise InputError("Give one of --resume, --cancel and --project")
    if budget is not None and resumed is None:
        raise InputError("--budget belongs to --resume N")
    if resumed is not None:
        _resume(instance, resumed, read_options({"budget": budget}, "").get("budget"))
    elif cancelled is not None:
        instance.store.ledger.run(cancelled)  # Raises for a number that no run has.
        runs.cancel(instance.store, cancelled)
        click.echo(f"Run {cancelled} is cancelled. What was answered is kept.")
    else:
        projects = instance.store.projects
        for found in [projects.named(project)] if project is not None else projects.all():
            for run in instance.store.ledger.runs(found["id"]):
                click.echo(_listed(found["name"], run))


def _resume(instance: Instance, run_id: int, budget: float | None) -> None:
    """Go on with a run in the foreground. What it could not be made with any more is said before it moves."""
    from labeler.prelabel import runs

    run = instance.store.ledger.run(run_id)
    if run["done"] + run["failed"] >= run["total"]:
        raise Conflict("Run %(number)s has already ended", number=run_id)
    project = instance.store.projects.get(run["project_id"])
    settings = overrides(run["settings"])
    _warn(instance, checked_suggester(instance, project, run["task"], settings))
    runs.resume(instance.store, run_id, budget)
    _say_how((instance.task_settings(project, run["task"]) | settings)["executor"])
    watch_run(instance, run_id)


def _listed(project: str, run: Mapping[str, Any]) -> str:
    """Return one line about a run: where it belongs, how it stands and why."""
    why = f" ({recalled(run['message'])})" if run["message"] not in (None, run["state"]) else ""
    ended = run["done"] + run["failed"]
    where = f"{run['task']} in {project}"
    return f"Run {run['id']}, {where}: {run['state']}, {ended:,} of {run['total']:,} records, cost {_cost(run)}{why}"


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


def show_estimate(seen: Estimate, executor: str) -> None:
    cost = "unknown" if seen.cost is None else f"${seen.cost:.4f}"
    time = "unknown until a call was made" if seen.seconds is None else f"about {duration(seen.seconds)}"
    if executor == BATCH_EXECUTOR:
        time = "within a day"
    first = f", {seen.trial} of them approved ones that say what the model is worth" if seen.trial else ""
    click.echo(f"{seen.items} records with {seen.backend} {seen.model_id or ''}".rstrip() + first)
    click.echo(
        f"About {seen.calls:,} calls, {seen.tokens_in:,} tokens in, {seen.tokens_out:,} out; cost {cost}; time {time}."
        " Nothing was called."
    )
    if seen.asked:
        from labeler.backends.local.cards import asked_sentence

        click.echo(asked_sentence(seen.asked, seen.changed))
    if seen.measured:
        click.echo(f"The length and time of answers are those of the last {seen.measured} calls of this model.")


def watch_run(instance: Instance, run_id: int) -> None:
    """Move a run in the foreground with a progress bar; Ctrl-C leaves it queued, and nothing paid is lost."""
    import threading

    from labeler.prelabel import trial
    from labeler.worker import Worker

    background = Worker(instance)
    mover = threading.Thread(target=background.see_through, args=(run_id,), daemon=True)
    mover.start()
    run = instance.store.ledger.run(run_id)
    try:
        with click.progressbar(length=run["total"], label=f"Run {run_id}", file=sys.stderr) as bar:
            shown, said = 0, None
            told = trial.of_run(run) is not None
            while True:
                mover.join(0.2)
                run = instance.store.ledger.run(run_id)
                if not told and (found := trial.of_run(run)) is not None:
                    click.echo(f"\n{trial.sentence(found)}.", err=True)
                    told = True
                waits = run["state"] == "running" or run["away_since"] is not None
                if run["message"] != said and run["message"] and waits and mover.is_alive():
                    click.echo(f"\n{recalled(run['message'])}", err=True)
                said = run["message"]
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


def _left_out(run: Mapping[str, Any]) -> str:
    return f", {run['decided']} left out because people decided them first" if run["decided"] else ""


def _show_run(instance: Instance, run_id: int) -> None:
    run = instance.store.ledger.run(run_id)
    tried = instance.store.ledger.trials(run_id)
    made = run["done"] - run["decided"] - tried
    asked_first = f"; {tried} approved records were asked first" if tried else ""
    click.echo(
        f"Run {run_id} {run['state']}: {made} suggestions ({run['parse_failures']} unreadable), {run['failed']} failed"
        f"{_left_out(run)}{asked_first}; {run['calls']} calls ({run['repeats']} repeats, {run['reused']} from the "
        f"ledger), {run['tokens_in']:,} tokens in, {run['tokens_out']:,} out, cost {_cost(run)}."
    )
    for failure in instance.store.ledger.failures(run_id):
        click.echo(f"  {failure['n']} x {failure['kind']}: {recalled(failure['message'])}", err=True)
    if run["state"] != "finished":
        raise InputError(f"The run is {run['state']}: {recalled(run['message'])}")
    if made == run["parse_failures"] and run["total"] > run["decided"] + tried:
        raise InputError("No label was suggested; what stands above says why")


def _cost(run: Mapping[str, Any]) -> str:
    """Return what a run cost: how much of it is estimated, or that it is not known."""
    if run["unpriced"]:
        return "unknown"
    estimated = f", {run['estimated']} calls by estimate, since the server counts no tokens" if run["estimated"] else ""
    return f"${run['spent']:.4f}{estimated}"
