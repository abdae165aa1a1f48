"""Improve: let a model draft other guidelines, measure each on approvals, and adopt one that is shown to gain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import cli, task_options, with_instance
from labeler.cli.replay import check_measured, interval, results_of, signed, watch
from labeler.cli.run_options import SETTINGS
from labeler.cli.runs import show_estimate, watch_run
from labeler.errors import InputError
from labeler.sentence import recalled
from labeler.settings import (
    LOCAL_EXECUTOR,
    MOST_DRAFTS,
    MOST_JUDGED,
    REPLAY_SAMPLE,
    REPLAY_WITHIN,
    SEARCH_DRAFTS,
)

if TYPE_CHECKING:
    from labeler.evaluation.results import Judged, Results
    from labeler.evaluation.search import Plan
    from labeler.instance import Instance
    from labeler.task import Task


@cli.command()
@task_options
@click.option(
    "--drafts", type=click.IntRange(1, MOST_DRAFTS), default=SEARCH_DRAFTS, show_default=True, help="How many drafts"
)
@click.option(
    "--sample", type=click.IntRange(1, MOST_JUDGED), default=REPLAY_SAMPLE, show_default=True,
    help="Judge them on the newest N held-out approvals",
)  # fmt: skip
@click.option("--budget", metavar="X", help="Stop the drafting, and each draft that is judged, at so many US dollars")
@click.option("--dry-run", is_flag=True, help="Show what it would take; call nothing")
@click.option("--show", type=click.IntRange(1), metavar="N", help="Show an earlier search again, by its replay")
@click.option("--adopt", type=click.IntRange(1), metavar="DRAFT", help="Make a draft of --show the guidelines")
@with_instance
def improve(
    instance: Instance, project: str, task_name: str, drafts: int, sample: int, budget: str | None, dry_run: bool,
    show: int | None, adopt: int | None,
) -> None:  # fmt: skip
    """Let the model of a task draft other guidelines from what people corrected, and judge them on other approvals.

    Only a draft that is shown to gain can be adopted.
    """
    from labeler.evaluation import search

    found = instance.store.projects.in_use(project)
    task = instance.project_task(found, task_name)
    if adopt is not None and show is None:
        raise InputError("--adopt DRAFT belongs to --show N")
    if show is None:
        plan = search.plan(instance, found, task, drafts, sample)
        if dry_run:
            _show_estimates(instance, found, task, plan)
            return
        read = None if budget is None else SETTINGS["budget"].read(budget)
        show = search.start(instance, found, task, plan, read)
        _draft(instance, show)
    if not results_of(instance, found, task, show, REPLAY_WITHIN).drafts:
        raise InputError(f"Replay {show} compares settings; look at it with 'labeler replay --show {show}'")
    _judge(instance, show)
    results = results_of(instance, found, task, show, REPLAY_WITHIN)
    if adopt is not None:
        version = search.adopt(instance, show, adopt)
        click.echo(f"Draft {adopt} of replay {show} is the guidelines of {task_name} now, as version {version}.")
        return
    for line in _told(results):
        click.echo(line)
    check_measured(results)
    if results.replay["message"]:
        raise InputError(recalled(results.replay["message"]))


def _show_estimates(instance: Instance, project: Mapping[str, Any], task: Task, plan: Plan) -> None:
    from labeler.evaluation import search

    executor = instance.task_settings(project, task.name)["executor"]
    drafting, judging = search.estimates(instance, project, plan)
    click.echo(f"Drafts, from {len(plan.corrections)} corrections:")
    show_estimate(drafting, LOCAL_EXECUTOR)
    click.echo(f"Judging them and the guidelines as is, on {len(plan.items)} held-out approvals:")
    show_estimate(judging, executor)


def _draft(instance: Instance, number: int) -> None:
    """Ask for the drafts of a search; what stops that is told, and the rest waits until the run is resumed."""
    try:
        watch_run(instance, instance.store.replays.get(number)["drafts_run"])
    except InputError as error:
        click.echo(str(error), err=True)


def _judge(instance: Instance, number: int) -> None:
    """Judge the drafts of a search that are there, and that nobody has judged yet."""
    if number in instance.store.replays.waiting():
        watch(instance, number)


def _told(results: Results) -> list[str]:
    """Return what a search came to, line by line; the last one says what to do."""
    report, id_ = results.report(), results.replay["id"]
    judged = results.judged(report)
    lines = [f"Replay {id_}: {len(judged)} drafts of the guidelines of {results.task.name}."]
    if report.n:
        first = interval(report.arms[0].numbers["agreement"])
        lines += [f"Guidelines as is: agreement {first} on {report.n:,} held-out approvals."]
    for one in judged:
        lines += ["", f"Draft {one.draft.number}: {verdict(one)}", *_changes(results, one)]
    kept = [str(one.draft.number) for one in judged if one.kept]
    if kept:
        return [*lines, "", f"Adopt one with --show {id_} --adopt {kept[0]}."]
    return [*lines, "", "None can be adopted; the guidelines stay as is."]


def verdict(one: Judged) -> str:
    """Return what came of a draft, as a sentence."""
    if one.draft.failure is not None:
        return f"cannot be used: {one.draft.failure.message}."
    if one.same_as is not None:
        return f"the same as draft {one.same_as}."
    if one.gain is None:
        return "not measured yet." if one.draft.guidelines else "no answer yet."
    shown = "shown to gain" if one.kept else "shown to be worse" if one.gain.high < 0 else "not shown to gain"
    return f"agreement {signed(one.gain)}, {shown}."


def _changes(results: Results, one: Judged) -> Iterator[str]:
    if one.draft.guidelines is None or one.same_as is not None:
        return
    before = (results.replay["guidelines"] or "").splitlines()
    lines = unified_diff(before, one.draft.guidelines.splitlines(), n=1, lineterm="")
    yield from (f"  {line}" for line in lines if not line.startswith(("---", "+++", "@@")))
