"""Augment: let a model write reviews of rare labels, and see what is left of them for people to decide on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import cli, task_options, with_instance
from labeler.cli.run_options import read_options, run_options
from labeler.cli.runs import show_estimate, watch_run
from labeler.errors import InputError, NotFound
from labeler.sentence import recalled
from labeler.settings import LOCAL_EXECUTOR

if TYPE_CHECKING:
    from labeler.augment.asking import Plan
    from labeler.instance import Instance

_LOOK = 0.3


@cli.command()
@task_options
@click.option(
    "--label", "labels", multiple=True, metavar="LABEL", help="Only for this label; can be given several times"
)
@click.option(
    "--count", type=click.IntRange(1, 200), default=10, show_default=True, help="Texts of each label, in calls for 5"
)
@run_options("backend", "model_id", "temperature", "budget")
@click.option("--dry-run", is_flag=True, help="Show what it would take; call nothing")
@click.option("--show", type=click.IntRange(1), metavar="RUN", help="Show again what an earlier run wrote")
@with_instance
def augment(
    instance: Instance, project: str, task_name: str, labels: tuple[str, ...], count: int, dry_run: bool,
    show: int | None, **given: Any,
) -> None:  # fmt: skip
    """Let a model write reviews of the labels that lack records, after approved ones.

    What is left after sifting waits at the desk, marked, and leaves in the train split alone.
    """
    from labeler.augment import asking

    found = instance.store.projects.in_use(project)
    task = instance.project_task(found, task_name)
    stopped: InputError | None = None
    if show is None:
        settings = read_options(given, found["language"])
        budget = settings.pop("budget", None)
        plan = asking.plan(instance, found, task, labels, count, settings)
        for line in _planned(plan):
            click.echo(line, err=True)
        if dry_run:
            show_estimate(asking.estimate(instance, found, plan), LOCAL_EXECUTOR)
            return
        show = asking.start(instance, found, task, plan, budget, settings=settings)
        stopped = _see_through(instance, show)
    run = instance.store.ledger.run(show)
    if (run["project_id"], run["task"]) != (found["id"], task.name) or not instance.store.written.of_run(show):
        raise NotFound("Run %(number)s wrote nothing for this task", number=show)
    for line in _told(instance, run):
        click.echo(line)
    if stopped is not None:
        raise stopped


def _planned(plan: Plan) -> Iterator[str]:
    """Yield what is asked for, label by label, and what cannot be."""
    from labeler.augment.asking import EACH

    for label, calls in Counter(one.label for one in plan.writings).items():
        few = f"; for more there must be more approved records: {EACH} after each" if label in plan.short else ""
        yield f"{label}: {calls * EACH} texts are asked for{few}"
    for label in plan.alone:
        yield f"{label}: no approved record may be shown, so nothing can be written"


def _see_through(instance: Instance, run_id: int) -> InputError | None:
    """Move a run and sift what it brought; return what stopped it. What was answered is sifted all the same."""
    from labeler.worker import Worker

    stopped = None
    try:
        watch_run(instance, run_id)
    except InputError as error:
        stopped = error
    worker = Worker(instance)
    # The worker of a server may be at it: then it is waited for.
    while _waits(instance, run_id) and (worker.sift() or not _trouble(instance, run_id)):
        time.sleep(_LOOK if _waits(instance, run_id) else 0)
    return stopped


def _waits(instance: Instance, run_id: int) -> bool:
    return any(run_id == other for _, other in instance.store.written.waiting())


def _trouble(instance: Instance, run_id: int) -> bool:
    from labeler.store.upkeep import WRITTEN

    return instance.store.upkeep.standing(instance.store.ledger.run(run_id)["project_id"], WRITTEN)[1]


def _told(instance: Instance, run: Mapping[str, Any]) -> Iterator[str]:
    """Yield what became of the texts of a run, label by label, and the answers that cannot be read."""
    from labeler.augment.sifting import DROPPED
    from labeler.store.written import KEPT, UNCHECKED

    written = instance.store.written
    outcomes = written.outcomes(run["id"])
    for label, n in outcomes.items():
        kept = n[KEPT] + n[UNCHECKED]
        unchecked = (
            f" ({n[UNCHECKED]} not compared with the free suggestion, which is not ready)" if n[UNCHECKED] else ""
        )
        yield f"{label}: {n.total()} written, {kept} kept{unchecked}"
        yield from (f"  dropped: {n[why]} {said}" for why, said in DROPPED.items() if n[why])
        if n[""]:
            yield f"  not sifted yet: {n['']}; 'labeler worker' or 'labeler serve' does it"
    for one in written.of_run(run["id"]):
        if one.failure is not None:
            yield f"{one.label}: an answer cannot be read ({recalled(one.failure.message)}): {one.failure.raw[:200]!r}"
    kept = sum(n[KEPT] + n[UNCHECKED] for n in outcomes.values())
    if kept:
        yield f"{kept} texts wait at the desk, marked; nothing is approved before a person has read it."
    else:
        yield "No text was kept."
