"""Training on an export, here or, by a printed command, elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import clean, cli, instance_folder, instance_option, opened
from labeler.errors import InputError
from labeler.extras import require
from labeler.training.methods import CLASSIFIER, METHODS, OBJECTIVES

if TYPE_CHECKING:
    from labeler.training.folders import Training

_MEASURED = ("validation", "test")
_NUMBERS_OF = {"agreement": "agreement", "macro_f1": "macro F1", "log_loss": "log loss"}
_NUMBERS = ("rate", "epochs", "steps", "batch", "rows_at_once", "rank", "seed")


@cli.command()
@click.option("--project", metavar="NAME", help="Its newest export that can be trained from")
@click.option("--task", metavar="TASK", help="With --project: of this task")
@click.option("--export", metavar="FOLDER|NUMBER", help="This export; a number is one of the project's")
@click.option("--model", "base", metavar="ID", help="A hub id, or a folder with its safetensors")
@click.option("--method", type=click.Choice(list(METHODS)), help="[lora]")
@click.option("--objective", type=click.Choice(OBJECTIVES), help="What rows teach [as the export says]")
@click.option("--name", metavar="NAME", help="Of the training; a task names it as its model [TASK-METHOD]")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="How many steps, in place of epochs")
@click.option(
    "--epochs",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="How often a row is read [3, 1; a classifier: at most 10]",
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="X", help="Learning rate [by the method]")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Rows that make one step [16 on a GPU, 8 without]")
@click.option("--rows-at-once", type=click.IntRange(1), metavar="N", help="Rows in memory together [by the size]")
@click.option("--rank", type=click.IntRange(1), metavar="N", help="Rank of a LoRA [16]")
@click.option("--seed", type=click.IntRange(0, 2**31), metavar="N", help="[42]")
@click.option(
    "--max-length",
    "most",
    type=click.IntRange(1),
    metavar="N",
    help="Leave longer rows out, in tokens [no row is]; a classifier reads so much of a text [256]",
)
@click.option("--device", type=click.Choice(["auto", "cuda", "mps", "cpu"]), help="Where it is trained [auto]")
@click.option("--resume", metavar="NAME", help="Go on with a training from its last checkpoint")
@click.option("--print", "trainer", metavar="TRAINER", help="Print the command of trl, llamafactory or axolotl instead")
@instance_option
def train(folder: str | None, resume: str | None, trainer: str | None, **options: Any) -> None:
    """Train a model on an export, and keep it as a model that tasks can name.

    It goes on after a kill (--resume NAME); the page Training shows how far it is.
    """
    from labeler.training import folders

    given = {name: clean(name, value) for name, value in options.items() if value is not None}
    if resume is not None:
        if given or trainer:
            raise InputError("--resume goes on with a training as it was planned; give no other option with it")
        training = folders.named(instance_folder(folder), resume)
        if training.card:
            raise InputError(f"The training {resume} is finished; begin another one")
    elif not given.get("base"):
        raise InputError("Name the model to train: --model ID, a hub id or a folder")
    else:
        method = given.get("method", "lora")
        if trainer is not None:
            from labeler.training.elsewhere import check

            check(trainer, method)
        require(METHODS[method].extra)
        plan = _plan(folder, given)
        if trainer is not None:
            _print(folder, trainer, plan)
            return
        training = folders.begin(instance_folder(folder), plan.pop("name"), plan)
        click.echo(f"Training {training.name} in {training.folder}.")
    require(METHODS[training.plan["method"]].extra)
    _train(training)


def _plan(folder: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return the plan, with the name that its training gets."""
    from labeler.training import plans
    from labeler.training.folders import free_name

    export, project, method = given.get("export"), given.get("project"), given.get("method", "lora")
    with opened(folder, make=False) as instance:
        store, found = instance.store, None
        if project:
            found = store.projects.named(project)
        if export is None or export.isdecimal():
            if found is None:
                raise InputError("Say what to train on: --project NAME (and --export NUMBER), or --export FOLDER")
            row = (
                plans.newest_export(store, found["id"], given.get("task"), method)
                if export is None
                else store.exports.get(found["id"], int(export))
            )
            place, number = instance.located(row["folder"]), int(row["id"])
        else:
            place, number = Path(export), None
        plan, data = plans.plan_of(
            place, given["base"], method, given.get("objective"), most=given.get("most"),
            device=given.get("device", "auto"), given={name: given[name] for name in _NUMBERS if name in given},
            export_id=number, project_id=None if found is None else int(found["id"]),
        )  # fmt: skip
        if found is None:
            known = (one["id"] for one in store.projects.all() if one["name"] == data.manifest.get("project"))
            plan["project_id"] = next(known, None)
        if method == CLASSIFIER:
            plans.task_of(instance, plan)
        name = given.get("name") or free_name(instance.folder, f"{plan['task'] or 'export'}-{plan['method']}")
    return {**plan, "name": name}


def _print(folder: str | None, trainer: str, plan: dict[str, Any]) -> None:
    from labeler.training.elsewhere import printed
    from labeler.training.fit import prepared
    from labeler.training.sets import read_set

    whole = prepared(plan, instance_folder(folder))
    click.echo(printed(trainer, whole, read_set(Path(plan["export"]["folder"])), plan["name"]), nl=False)


def _train(training: Training) -> None:
    from labeler.training.work import fit

    try:
        whole = fit(training, click.echo)
    except KeyboardInterrupt:
        whole = False
    if not whole:
        click.echo(f"Stopped; 'labeler train --resume {training.name}' goes on from the last checkpoint.", err=True)
        sys.exit(130)
    card = training.card
    for split, measured in card.get(CLASSIFIER, {}).get("measured", {}).items():
        if split in _MEASURED:
            numbers = ", ".join(f"{title} {measured[name]:.3f}" for name, title in _NUMBERS_OF.items())
            click.echo(f"{split}: {numbers} on {card[CLASSIFIER]['measured']['rows'][split]} rows")
    backend = CLASSIFIER if training.plan["method"] == CLASSIFIER else "transformers"
    click.echo(f"Finished. Name it as the model of a task: backend {backend}, model {training.name}.")
