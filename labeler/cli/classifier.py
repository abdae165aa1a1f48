"""Training a classifier from approved labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labeler.cli.base import cli, task_options, with_instance

if TYPE_CHECKING:
    from labeler.instance import Instance
    from labeler.training.classifier import Progress


@cli.command("train-classifier")
@task_options
@click.option("--model", required=True, metavar="ID", help="The encoder to begin with: a hub id, or a folder")
@click.option("--name", required=True, help="What the trained model is called")
@click.option(
    "--export", type=click.Path(path_type=Path), metavar="FOLDER", help="Train on this export, not on a new one"
)
@click.option("--epochs", type=int, default=10, show_default=True, help="At most; it ends when it helps no more")
@click.option("--batch", type=int, default=16, show_default=True, help="How many texts are learned from at once")
@click.option("--rate", type=float, default=5e-5, show_default=True, help="The highest learning rate")
@click.option("--longest", type=int, default=256, show_default=True, help="How many tokens of a text are read")
@click.option("--device", default="auto", show_default=True, help="cuda, mps, cpu, or auto: the best there is")
@with_instance
def train_classifier_(
    instance: Instance, project: str, task_name: str, model: str, name: str, export: Path | None, epochs: int,
    batch: int, rate: float, longest: int, device: str,
) -> None:  # fmt: skip
    """Fine-tune a small encoder on the approved labels of a task; the backend classifier answers with it."""
    from labeler.backends.classifier import read_card
    from labeler.training.classifier import Settings, train_classifier

    found = instance.store.projects.named(project)
    task = instance.project_task(found, task_name)
    settings = Settings(epochs=epochs, batch=batch, rate=rate, longest=longest, device=device)
    folder = train_classifier(instance, found, task, model, name, export=export, settings=settings, progress=_show)
    card = read_card(folder)
    for split in ("validation", "test"):
        if (found_there := card.measured.get(split)) is not None:
            named = {"agreement": "agreement", "macro_f1": "macro F1", "log_loss": "log loss"}
            numbers = ", ".join(f"{title} {found_there[key]:.3f}" for key, title in named.items())
            click.echo(f"{split}: {numbers} on {card.measured['rows'][split]} rows")
    place = f"--project {project} --task {task_name}"
    click.echo(f"Saved as {name}. Use it: labeler prelabel {place} --backend classifier --model {name}")


def _show(at: Progress) -> None:
    if at.validation is not None:
        weighted = ", rare labels weigh more" if at.weighted else ""
        click.echo(
            f"step {at.step} of {at.steps}: loss {at.loss:.3f}, on validation {at.validation:.3f}{weighted}", err=True
        )
