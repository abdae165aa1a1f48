"""What the pages say of models: what is known of those that the settings name, and which are about to be shut down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from labeler.backends.base import BackendFactory
from labeler.backends.prices import ModelInfo, ModelWarning, find_model, known_context, shutdown_warning
from labeler.errors import SettingError
from labeler.instance import Instance
from labeler.store import Row


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model that a setting names. ``places`` are the tasks that name it; empty for one of the instance itself.

    ``info`` None: nothing is known of it; ``can`` None: it was never tested. ``context`` is in tokens. One that is
    ``local`` costs no fee.
    """

    backend: str
    model_id: str
    local: bool
    info: ModelInfo | None
    ending: ModelWarning | None
    can: Mapping[str, Any] | None
    limits: Row | None
    context: int | None = None
    places: list[str] = field(default_factory=list)


def ending(prices: Mapping[str, ModelInfo], model_id: str | None) -> ModelWarning | None:
    """Return that a model will be, or has been, shut down; None if that is far off or not known."""
    # The day of the clock that the store goes by, in UTC as the day of a budget.
    return shutdown_warning(find_model(prices, model_id), datetime.fromtimestamp(time.time(), UTC).date())


def chosen_model(instance: Instance, settings: Mapping[str, Any], backend: str = "") -> str | None:
    """Return the model id that a task's settings lead to with ``backend``; None for one that has no model."""
    if settings.get("model_id"):
        return str(settings["model_id"])
    backends = instance.plugins.backends
    configured = (name for name, one in backends.items() if one.configured(instance.settings))
    factory = backends.get(backend or settings.get("backend") or next(configured, ""))
    return (instance.settings.get(factory.model_setting) if factory else None) or None


def has_fees(instance: Instance, backend: str) -> bool:
    """Whether calls of a backend cost what ``prices.json`` says of its models."""
    factory = instance.plugins.backends.get(backend)
    return factory is not None and factory.spends and not factory.local


def with_model(instance: Instance) -> dict[str, BackendFactory]:
    """Return the backends whose model a setting of the instance names; the first is that of a page that names none."""
    return {name: one for name, one in instance.plugins.backends.items() if one.model_setting}


def model_rows(instance: Instance) -> list[ModelRow]:
    """Return the models that the instance and its tasks name, those of the instance first."""
    found: dict[tuple[str, str], ModelRow] = {}
    prices, settings, backends = instance.prices, instance.settings, with_model(instance)
    for backend, factory in backends.items():
        if model_id := settings.get(factory.model_setting):
            found[(backend, model_id)] = _row(instance, prices, factory, model_id)
    for project in instance.store.projects.all():
        for task in instance.tasks_of(project):
            own = instance.task_settings_raw(project, task)
            backend, model_id = own.get("backend") or next(iter(backends)), own.get("model_id")
            if model_id and backend in backends:
                row = found.setdefault((backend, model_id), _row(instance, prices, backends[backend], model_id))
                row.places.append(f"{project['name']} · {task}")
    return list(found.values())


def address_of(instance: Instance, factory: BackendFactory) -> str:
    """Return the address of the server; empty for the backend's own, or where the stored one is none."""
    try:
        return factory.address(instance.settings)
    except SettingError:
        return ""


def _row(instance: Instance, prices: Mapping[str, ModelInfo], factory: BackendFactory, model_id: str) -> ModelRow:
    address, info, limits = address_of(instance, factory), None, None
    if not factory.local:
        info = find_model(prices, model_id)
        # The buckets are named by labeler.prelabel.calls: for the server, and for one model that told its own limits.
        server = address or factory.name
        limits = instance.store.limits.known(f"{server} {model_id}") or instance.store.limits.known(server)
    can = instance.store.models.capabilities(factory.name, address, model_id)
    return ModelRow(
        factory.name, model_id, factory.local, info, None if factory.local else ending(prices, model_id), can, limits,
        known_context(info, (can or {}).get("context")),
    )  # fmt: skip
