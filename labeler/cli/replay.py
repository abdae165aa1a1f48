"""Replay: measure settings on what is approved, choose by what they cost, and set the task to them."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import Command, clean, cli, task_options, with_instance
from labeler.cli.run_options import METAVARS, SETTINGS, option_of
from labeler.cli.runs import show_estimate, watch_run
from labeler.errors import InputError, NotFound
from labeler.sentence import recalled
from labeler.settings import DRAFT, REPLAY_GRID, REPLAY_SAMPLE, REPLAY_WITHIN

if TYPE_CHECKING:
    from labeler.evaluation.measures import Measure
    from labeler.evaluation.readiness import Readiness
    from labeler.evaluation.replay import Arm
    from labeler.evaluation.results import ArmResult, Report, Results
    from labeler.instance import Instance
    from labeler.task import Task

_MISTAKES = 4
_LOOK = 0.3


def _grid_options(command: Command) -> Command:
    for name in reversed(REPLAY_GRID):
        setting = SETTINGS[name]
        metavar = "|".join(setting.choices) or METAVARS.get(name) or ("N" if setting.kind == "int" else "TEXT")
        several = f"{setting.help}; can be given several times"
        command = click.option(option_of(setting), name, multiple=True, metavar=metavar, help=several)(command)
    return command


@cli.command(name="replay")
@task_options
@_grid_options
@click.option(
    "--sample", type=click.IntRange(1), default=REPLAY_SAMPLE, show_default=True, help="The newest N approvals"
)
@click.option("--all", "whole", is_flag=True, help="All approvals, in place of --sample")
@click.option("--budget", metavar="X", help="Stop each model at so many US dollars")
@click.option(
    "--within", type=click.FloatRange(0, 1), default=REPLAY_WITHIN, show_default=True,
    help="How much worse than the best a cheaper one may be",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what it would take; call nothing")
@click.option("--show", type=click.IntRange(1), metavar="N", help="Show an earlier replay again")
@click.option("--use", type=click.IntRange(1), metavar="ARM", help="Set the task to an arm of the replay of --show")
@with_instance
def replay_(
    instance: Instance, project: str, task_name: str, sample: int, whole: bool, budget: str | None, within: float,
    dry_run: bool, show: int | None, use: int | None, **given: tuple[str, ...],
) -> None:  # fmt: skip
    """Suggest labels for approved records again, as if it were before their approval, by several settings.

    The first arm is the task as it is set; the others are all combinations of the options that are given. Nothing of it
    reaches a queue. With no such option the free backends are compared.
    """
    from labeler.evaluation import replay

    found = instance.store.projects.in_use(project)
    task = instance.project_task(found, task_name)
    if use is not None and show is None:
        raise InputError("--use ARM belongs to --show N")
    if show is None:
        arms = replay.arms_of(instance, found, task, _read(given))
        if dry_run:
            show_estimates(instance, found, task, arms, None if whole else sample)
            return
        read = None if budget is None else SETTINGS["budget"].read(budget)
        show = replay.start(instance, found, task, arms, None if whole else sample, read)
        watch(instance, show)
    results = results_of(instance, found, task, show, within)
    if use is not None:
        replay.use(instance, show, use - 1)
        click.echo(f"{task_name} is set to arm {use} of replay {show}: {named(results.arms[use - 1]['settings'])}.")
        return
    for line in told(results):
        click.echo(line)
    check_measured(results)


def _read(given: Mapping[str, Sequence[str]]) -> dict[str, list[Any]]:
    """Return what arms may have, each value checked by its setting. Raises :class:`SettingError`."""
    return {name: [SETTINGS[name].read(clean(name, raw)) for raw in values] for name, values in given.items() if values}


def results_of(instance: Instance, project: Mapping[str, Any], task: Task, number: int, within: float) -> Results:
    from labeler.evaluation.results import Results

    found = Results(instance, number, within)
    if (found.replay["project_id"], found.replay["task"]) != (project["id"], task.name):
        raise NotFound("There is no replay number %(number)s", number=number)
    return found


def watch(instance: Instance, number: int) -> None:
    """Walk through a replay and see its runs through; Ctrl-C leaves the rest to a worker."""
    from labeler.evaluation import replay

    try:
        with click.progressbar(length=1, label=f"Replay {number}", file=sys.stderr) as bar:

            def progress(done: int, total: int) -> None:
                bar.length = total
                bar.update(done - bar.pos)

            # The worker of a server may have been faster: then it is waited for.
            while not replay.walk(instance, number, progress=progress) and _is_walked_through(instance, number):
                time.sleep(_LOOK)
    except KeyboardInterrupt:
        click.echo(f"\nStopped; replay {number} goes on with 'labeler worker' or 'labeler serve'.", err=True)
        sys.exit(130)
    for arm in instance.store.replays.arms(number):
        if arm["run_id"]:
            click.echo(f"Arm {arm['arm'] + 1}: {named(arm['settings'])}", err=True)
            try:
                watch_run(instance, arm["run_id"])
            except InputError as error:
                # What stops one arm is none of the others' business; the table says how far each came.
                click.echo(str(error), err=True)


def check_measured(results: Results) -> None:
    """Raise :class:`InputError` that says how to go on, where a run of a replay was stopped."""
    runs = [results.drafting, *results.runs]
    stopped = [run["id"] for run in runs if run is not None and run["state"] != "finished"]
    if stopped:
        raise InputError(
            f"Not all were measured; resume with 'labeler runs --resume {stopped[0]}', then look with "
            f"--show {results.replay['id']}"
        )


def _is_walked_through(instance: Instance, number: int) -> bool:
    """Whether another process walks through a replay now."""
    from labeler.store.replays import WAITING

    row = instance.store.replays.get(number)
    return row["state"] == WAITING and row["message"] is None


def show_estimates(
    instance: Instance, project: Mapping[str, Any], task: Task, arms: Sequence[Arm], sample: int | None,
    held_out: str | None = None,
) -> None:  # fmt: skip
    """Say what each arm of a replay would take."""
    from labeler.evaluation import replay

    executor = instance.task_settings(project, task.name)["executor"]
    found = replay.estimates(instance, project, task, arms, sample, held_out)
    for n, (arm, estimate) in enumerate(zip(arms, found, strict=True), 1):
        click.echo(f"Arm {n}: {named(arm.settings)}")
        show_estimate(estimate, executor)


@cli.command()
@task_options
@with_instance
def ready(instance: Instance, project: str, task_name: str) -> None:
    """Say whether the approvals of a task are enough to fine-tune on, and what to label first."""
    from labeler.evaluation.readiness import readiness

    found = instance.store.projects.in_use(project)
    task = instance.project_task(found, task_name)
    for line in stands(readiness(instance, found, task)):
        click.echo(line)


def stands(found: Readiness) -> list[str]:
    """Return what there is to train on, line by line; the last one says what to do."""
    lines = [f"{found.approved:,} approved records, {found.distinct:,} without near-duplicates."]
    for label in found.labels:
        lacks = f", {label.missing:,} missing" if label.missing else "" if label.approved else ", never approved"
        lines.append(f"  {label.name}: {label.distinct:,}{lacks}")
    if found.agreement is not None:
        lines.append(f"The free suggestion agrees {found.agreement:.2f} in cross-validation (n {found.compared:,}).")
    if found.growth is not None:
        lines.append(f"Twice as many approvals add {signed(found.growth)} to that, by replay {found.replay_id}.")
    return [*lines, _advice(found)]


def _advice(found: Readiness) -> str:
    from labeler.evaluation.readiness import LEAST

    if found.ready:
        return "Ready to fine-tune."
    if found.first:
        more = ", ".join(f"{label.missing:,} more of {label.name}" for label in found.first)
        return f"Label these first: {more}."
    if found.distinct < LEAST:
        return f"Label {LEAST - found.distinct:,} more records first."
    return "There is enough of every label, but suggestions still get better with every approval: label more."


# How a replay is told


def told(results: Results) -> list[str]:
    """Return what a replay came to, line by line."""
    report, id_ = results.report(), results.replay["id"]
    lines = [f"Replay {id_}: {results.task.name}, {report.n:,} of {report.total:,} records count so far."]
    if report.ended:
        lines = [f"Replay {id_}: {results.task.name}, {report.n:,} records, 95 % intervals in brackets."]
    if not report.n:
        return [*lines, recalled(results.replay["message"]) or "Nothing is measured yet."]
    for arm in report.arms:
        lines += ["", f"Arm {arm.number + 1}: {named(arm.settings)}{' (as set now)' if arm.number == 0 else ''}"]
        lines += [f"  {line}" for line in (*_told(arm), *_mistaken(results, arm.number))]
    return [*lines, "", verdict(report, results.within)]


def _told(arm: ArmResult) -> list[str]:
    numbers = ", ".join(f"{_TITLES[name]} {_number(name, one)}" for name, one in arm.numbers.items())
    said = [numbers + "."]
    if arm.against is not None:
        said.append(f"Agreement to arm 1: {signed(arm.against)}; other labels on {arm.changed:.0%} of the records.")
    if arm.blind and arm.assisted and arm.anchored:
        gap = signed(arm.anchored)
        said.append(f"Decided blind {interval(arm.blind)}, with a suggestion in sight {interval(arm.assisted)}: {gap}.")
    if len(arm.curve) > 1:
        said.append(
            "By examples known: " + ", ".join(f"{p.known:.0f}: {p.agreement.value:.2f}" for p in arm.curve) + "."
        )
    if arm.silent:
        said.append(f"Without a suggestion: {arm.silent:,} records.")
    if arm.run is not None:
        took = "answered before"
        if arm.tokens is not None and arm.seconds is not None:
            took = f"{arm.tokens:,.0f} tokens and {arm.seconds:.1f} s a record"
        cost = "unknown" if arm.cost is None else f"${arm.cost:.4f}"
        said.append(f"Run {arm.run['id']}, {arm.run['state']}: {took}; cost of 1,000 records {cost}.")
    return said


def _mistaken(results: Results, arm: int) -> list[str]:
    wrong = [(pair, n) for pair, n in results.confusion(arm).most_common() if pair[0] != pair[1]][:_MISTAKES]
    said = ", ".join(f"{true} taken for {label or 'nothing'} {n:,}" for (true, label), n in wrong)
    return [f"Most often wrong: {said}."] if said else []


_TITLES = {
    "agreement": "agreement", "corrections": "corrections per 1,000", "macro_f1": "macro F1", "kappa": "kappa",
    "rouge_l": "ROUGE-L", "distance": "mean error", "ece": "ECE",
}  # fmt: skip


def verdict(report: Report, within: float) -> str:
    """Return which arm is best, and which to choose for what it costs."""
    best, cheapest = report.arms[report.best], report.arms[report.cheapest]
    said = f"Arm {best.number + 1} agrees best ({best.numbers['agreement'].value:.2f})."
    if best.cost == min(arm.cost if arm.cost is not None else float("inf") for arm in report.arms):
        return f"{said} None costs less."
    if best.number == cheapest.number:
        return f"{said} No cheaper one is shown to be at most {within:g} worse."
    return f"{said} Arm {cheapest.number + 1} is the cheapest that is shown to be at most {within:g} worse."


def named(settings: Mapping[str, Any]) -> str:
    """Return the settings of an arm in one line."""
    plain = [str(settings[name]) for name in ("backend", "model_id") if settings.get(name)]
    more = [
        f"{name} {settings[name]}"
        for name in ("retriever", "k", "style", DRAFT)
        if settings.get(name) not in (None, "")
    ]
    return ", ".join([" ".join(plain), *more])


def interval(one: Measure) -> str:
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def signed(one: Measure) -> str:
    return f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


def _number(name: str, one: Measure) -> str:
    return f"{one.value:.0f} [{one.low:.0f}, {one.high:.0f}]" if name == "corrections" else interval(one)
