"""What the pages say of models: what is known of those that the settings name, and which are about to be shut down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from labeler.backends.openai import openai_settings
from labeler.backends.prices import ModelInfo, ModelWarning, find_model, known_context, shutdown_warning
from labeler.errors import SettingError
from labeler.instance import Instance
from labeler.store import Row

OPENAI, LOCAL = "openai", "transformers"
MODELS_OF = {OPENAI: "openai_model", LOCAL: "transformers_model"}
"""The setting of the instance that names the model of a backend, for tasks that name none."""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model that a setting names. ``places`` are the tasks that name it; empty for one of the instance itself.

    ``info`` None: nothing is known of it; ``can`` None: it was never tested. ``context`` is in tokens.
    """

    backend: str
    model_id: str
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
    given = settings.get("model_id") or ""
    name = backend or settings.get("backend") or (OPENAI if given or is_configured(instance) else "")
    if name not in MODELS_OF:
        return given or None
    return given or instance.settings.get(MODELS_OF[name]) or None


def is_configured(instance: Instance) -> bool:
    """Whether there is a server and a model to ask there."""
    settings = instance.settings
    return any(openai_settings(settings)) and bool(settings.get("openai_model"))


def model_rows(instance: Instance) -> list[ModelRow]:
    """Return the models that the instance and its tasks name, those of the instance first."""
    found: dict[tuple[str, str], ModelRow] = {}
    prices, settings = instance.prices, instance.settings
    for backend, name in MODELS_OF.items():
        if settings.get(name):
            found[(backend, settings[name])] = _row(instance, prices, backend, settings[name])
    for project in instance.store.projects.all():
        for task in instance.tasks_of(project):
            own = instance.task_settings_raw(project, task)
            backend, model_id = own.get("backend") or OPENAI, own.get("model_id")
            if model_id and backend in MODELS_OF:
                row = found.setdefault((backend, model_id), _row(instance, prices, backend, model_id))
                row.places.append(f"{project['name']} · {task}")
    return list(found.values())


def address_of(instance: Instance) -> str | None:
    """Return the address of the server; None for OpenAI's own, or where the stored one is none."""
    try:
        return openai_settings(instance.settings).base_url
    except SettingError:
        return None


def _row(instance: Instance, prices: Mapping[str, ModelInfo], backend: str, model_id: str) -> ModelRow:
    base_url = address_of(instance) if backend == OPENAI else None
    limits = None
    if backend == OPENAI:
        # The buckets are named by labeler.prelabel.calls: for the server, and for one model that told its own limits.
        server = base_url or OPENAI
        limits = instance.store.limits.known(f"{server} {model_id}") or instance.store.limits.known(server)
    info = find_model(prices, model_id) if backend == OPENAI else None
    can = instance.store.models.capabilities(backend, base_url or "", model_id)
    return ModelRow(
        backend, model_id, info, ending(prices, model_id) if backend == OPENAI else None, can, limits,
        known_context(info, (can or {}).get("context")),
    )  # fmt: skip
