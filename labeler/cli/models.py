"""Models: which backends there are and what they need, one tiny test call, and what is known of every model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from labeler.backends.base import made_by
from labeler.backends.prices import ModelInfo, known_context
from labeler.cli.base import cli, with_instance
from labeler.cli.words import can, day, described, ending, learned
from labeler.errors import BackendError, InputError

if TYPE_CHECKING:
    from labeler.backends.base import Backend, BackendFactory
    from labeler.instance import Instance


@cli.command()
@click.option("--test", "tested", metavar="NAME", help="Make one tiny call with this backend, and keep the result")
@click.option("--model", "model_id", metavar="ID", help="With --test: the model id [as set]")
@click.option("--project", metavar="NAME", help="With --test and --task: as set for a task of this project")
@click.option("--task", "task_name", metavar="TASK", help="With --test and --project: as set for this task")
@with_instance
def backends(
    instance: Instance, tested: str | None, model_id: str | None, project: str | None, task_name: str | None
) -> None:
    """List the backends and what they need, or test one."""
    if tested is None:
        if model_id or project or task_name:
            raise InputError("--model, --project and --task say what --test NAME is to test")
        for name, factory in instance.plugins.backends.items():
            click.echo(f"{name}: {_state(instance, factory)}")
        return
    if bool(project) != bool(task_name):
        raise InputError("--project and --task are given together")
    backend = _made(instance, tested, model_id, project, task_name)
    try:
        _test(instance, tested, backend)
    finally:
        backend.close()
    _show_known(instance, tested, backend)


def _state(instance: Instance, factory: BackendFactory) -> str:
    """Return whether a backend can be used, and what it needs."""
    missing = factory.missing(instance.settings)
    if missing or factory.model_setting:
        return missing or _with_model(instance, factory.model_setting)
    if factory.about:
        return f"ready{'' if factory.spends else ', and free'}; it {factory.about}"
    return f"registered by {instance.plugins.owners[('backends', factory.name)]}"


def _with_model(instance: Instance, setting: str) -> str:
    model_id = instance.settings.get(setting)
    return f"ready; {setting} is {model_id}" if model_id else f"ready; name a model: {setting}, model_id or --model"


# The test


def _made(instance: Instance, name: str, model_id: str | None, project: str | None, task_name: str | None) -> Backend:
    """Return a backend as a run of a task would have it, or, without a task, as the instance's settings have it."""
    from labeler.plugins import find

    factory = find(instance.plugins.backends, name, "backend")
    if not (factory.shared or factory.spends):
        raise InputError(f"The backend {name} needs no test: it asks no server and loads no weights")
    given = {"model_id": model_id} if model_id else {}
    if project and task_name:
        found = instance.store.projects.named(project)
        task = instance.project_task(found, task_name)
        return instance.backend(found, task, name, instance.task_settings(found, task_name) | given)
    if not factory.shared:
        raise InputError(f"The backend {name} is made for one task; name that with --project and --task")
    return made_by(factory, {**instance.in_force, **given})


def _test(instance: Instance, name: str, backend: Backend) -> None:
    """Make the call, say how it went and keep what was found. Raises :class:`BackendError` if it brought nothing."""
    found = backend.check()
    if found is None:
        raise InputError(f"The backend {name} has no test; start a run with --limit 1")
    if not found["ok"]:
        raise BackendError(found["message"])
    click.echo("\n".join([found["message"], *found.get("notes", ())]))
    capabilities = found.get("capabilities") or {}
    if capabilities:
        store, place = instance.store, (name, backend.base_url or "", backend.model_id or "")
        store.write(lambda tx: store.models.record(tx, *place, capabilities))
        click.echo(f"It can: {can(capabilities)}")


def _show_known(instance: Instance, name: str, backend: Backend) -> None:
    info = instance.price_of(backend)
    local = backend.local
    click.echo(f"Known: {'local weights cost no fee' if local else described(_with_context(info, backend))}")
    limits = "" if local else _limits(instance, backend.base_url or name, backend.model_id or "")
    if limits:
        click.echo(f"Limits: {limits}")
    said = ending(info)
    if said:
        click.echo(f"Note: {said}", err=True)


def _with_context(info: ModelInfo | None, backend: Backend) -> ModelInfo | None:
    """Return what is known of a model together with what its server said of it."""
    context = known_context(info, backend.context)
    return info if context is None else replace(info or ModelInfo(backend.model_id or ""), context=context)


def _limits(instance: Instance, server: str, model_id: str) -> str:
    """Return the rate limits that hold for a server: those that were set, else those that it told."""
    told = instance.store.limits.known(f"{server} {model_id}") or instance.store.limits.known(server)
    found = []
    for what in ("requests", "tokens"):
        set_ = instance.settings.get(f"{what}_per_minute")
        limit = set_ or (told[what] if told is not None else None)
        if limit:
            found.append(f"{limit:,.0f} {what} a minute ({'as set' if set_ else 'as the server said'})")
    return ", ".join(found)


# What is known


@cli.command(name="models")
@with_instance
def models_(instance: Instance) -> None:
    """List every model that is known: prices and limits, what test calls found, and calibrations."""
    for model_id, info in instance.prices.items():
        click.echo(f"{model_id}: {described(info)}")
        said = ending(info)
        if said:
            click.echo(f"  Note: {said}")
    for row in instance.store.models.all():
        where = f" at {row['base_url']}" if row["base_url"] else ""
        click.echo(f"{row['backend']} {row['model_id']}{where}, tested {day(row['checked_at'])}:")
        click.echo(f"  {can(row['capabilities'])}")
    _show_calibrations(instance)


def _show_calibrations(instance: Instance) -> None:
    from labeler.prelabel.calibration import Calibration
    from labeler.store.calibrations import Calibrations

    stored = Calibrations(instance.store.db)
    for project in instance.store.projects.all():
        for name in instance.tasks_of(project):
            for row in stored.of_task(int(project["id"]), name):
                model = f"{row['backend']} {row['model_id']}".rstrip()
                click.echo(f"{model}, calibrated for {name} in {project['name']} on {day(row['made_at'])}:")
                click.echo(f"  {learned(Calibration.from_json(row['fitted']))}")
