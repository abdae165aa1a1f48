"""Calibration: let a model score records whose labels are approved, and learn from that how its scores are off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import cli, task_options, with_instance
from labeler.cli.run_options import read_options, run_options
from labeler.cli.runs import checked_suggester, watch_run
from labeler.cli.words import learned
from labeler.errors import InputError
from labeler.settings import CALIBRATE, overrides

if TYPE_CHECKING:
    from labeler.instance import Instance
    from labeler.prelabel.suggest import Suggester
    from labeler.records import Suggestion
    from labeler.store import Store


@cli.command()
@task_options
@run_options("backend", "model_id", "budget")
@click.option("--limit", type=click.IntRange(1), help="Score at most this many more records")
@with_instance
def calibrate(instance: Instance, project: str, task_name: str, limit: int | None, **given: Any) -> None:
    """Learn from approved labels how a model's scores are off, and correct them if that helps.

    It first scores approved records that the model has not scored yet. The queue does not change.
    """
    from labeler.prelabel import calibration, runs

    found = instance.store.projects.in_use(project)
    task = instance.project_task(found, task_name)
    # Each record scored on its own, by this model: no cheaper step before it, no other task beside it.
    settings = {"purpose": CALIBRATE, "mode": "direct", "joint": [], **read_options(given, found["language"])}
    budget = settings.pop("budget", None)
    set_ = instance.task_settings(found, task_name)
    suggester = checked_suggester(instance, found, task_name, overrides(settings))
    _check(suggester)
    settings |= {"backend": suggester.backend.name, "model_id": suggester.backend.model_id or ""}
    scored = Scored(instance.store, suggester)
    approved = list(runs.select_approved(instance.store, found["id"], task_name, None, task.unit))
    chosen = list(islice(scored.missing(approved), limit))
    if not approved:
        raise InputError(f"No label of {task_name} is approved yet, so there is nothing to learn from")
    if chosen:
        budget = set_["budget"] if budget is None else budget
        watch_run(instance, runs.start(instance.store, found["id"], task_name, chosen, settings, budget))
        list(scored.missing(chosen))
    if not scored.model_ids:
        raise InputError(
            f"{_named(suggester)} gave no scores of the labels of {task_name}; "
            "see the task's settings answering and style, and 'labeler backends --test'"
        )
    name = suggester.backend.name
    for model_id in sorted(scored.model_ids, key=str):
        fitted = calibration.refit(
            instance.store, found["id"], task_name, task.schema, name, model_id, suggester.prompt_digest, task.unit,
            task.carried,
        )  # fmt: skip
        click.echo(f"{task_name} with {name} {model_id or ''}".rstrip() + f": {learned(fitted)}")
    if not set_["calibrate"]:
        click.echo(f"Note: the setting calibrate of {task_name} is off, so no calibration is used there.", err=True)


def _check(suggester: Suggester) -> None:
    """Raise :class:`InputError` where scores cannot be calibrated, or must not be."""
    if not suggester.task.schema.candidates():
        raise InputError(f"{suggester.task.name} has no closed list of labels, so there are no scores to calibrate")
    if not suggester.backend.billed or suggester.backend.learns:
        raise InputError(
            f"The backend {suggester.backend.name} learns from the approved labels themselves, so they cannot tell "
            "how its scores are off; name another with --backend"
        )


def _named(suggester: Suggester) -> str:
    return f"{suggester.backend.name} {suggester.backend.model_id or ''}".rstrip()


@dataclass
class Scored:
    """Which records a model has given scores to, prompted as it is now. ``model_ids`` are the names it answered under.

    A server may answer under a longer name than it was asked by ("gpt-4o-mini-2024-07-18"): a suggestion is the
    model's where it has its name, or where its run asked for it.
    """

    store: Store
    suggester: Suggester
    model_ids: set[str | None] = field(default_factory=set)
    _runs: dict[int, str | None] = field(default_factory=dict)

    def missing(self, record_ids: Iterable[int]) -> Iterable[int]:
        """Yield those of the records that have no suggestion with scores of this model."""
        for id_ in record_ids:
            made = self.store.suggestions.of_record(id_, self.suggester.task.name)
            scored = next((s for s in made if s.scores and self._is_ours(s)), None)
            if scored is None:
                yield id_
            else:
                self.model_ids.add(scored.model_id)

    def _is_ours(self, suggestion: Suggestion) -> bool:
        if (
            suggestion.backend != self.suggester.backend.name
            or suggestion.prompt_digest != self.suggester.prompt_digest
        ):
            return False
        wanted = self.suggester.backend.model_id or ""
        return wanted in (suggestion.model_id or "", self._asked(suggestion.run_id))

    def _asked(self, run_id: int | None) -> str | None:
        """Return the model id that a run asked for."""
        if run_id is None:
            return None
        if run_id not in self._runs:
            self._runs[run_id] = self.store.ledger.run(run_id)["settings"].get("model_id")
        return self._runs[run_id]
