"""What is to be trained: an export, a model, a method. Put together and checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labeler.backends.local.cards import CLASSIFY
from labeler.errors import InputError, SettingError
from labeler.instance import Instance
from labeler.store import Store
from labeler.task import Task
from labeler.training.methods import CLASSIFIER, checked
from labeler.training.sets import READ, READ_BY_CLASSIFIERS, TrainingSet, read_set


def newest_export(store: Store, project_id: int, task: str | None = None, method: str = "lora") -> dict[str, Any]:
    """Return the newest export of a project (of a task) that can be trained from. Raises :class:`InputError`."""
    formats = READ_BY_CLASSIFIERS if method == CLASSIFIER else READ
    for export in store.exports.all(project_id, 200):
        if export["format"] in formats and task in (None, export["task"]):
            return export
    raise InputError(
        "There is no export to train from; make one in one of the formats %(names)s first", names=", ".join(formats)
    )


def plan_of(
    folder: Path, base: str, method: str, objective: str | None, *, most: int | None = None, device: str = "auto",
    given: Mapping[str, Any] | None = None, export_id: int | None = None, project_id: int | None = None,
) -> tuple[dict[str, Any], TrainingSet]:  # fmt: skip
    """Return the plan of a training, and the set that it learns from.

    ``base`` is a hub id, a folder, or the name of a training of all weights; ``most`` tokens a row may have, None for
    as many as it has; ``given`` are numbers by the fields of :class:`~labeler.training.methods.Numbers`. Raises
    :class:`InputError` for an export that cannot be trained from, and :class:`SettingError` for what cannot be chosen.
    """
    data = read_set(folder, objective=CLASSIFY if method == CLASSIFIER else None)
    chosen = objective or data.objective
    checked(method, chosen)
    if chosen not in data.objectives():
        raise SettingError(
            "The rows of this export are for %(names)s, and cannot be trained with %(objective)s",
            names=", ".join(data.objectives()),
            objective=chosen,
        )
    if not base.strip():
        raise SettingError("A training needs a model: a hub id, or a folder with its safetensors")
    plan = {
        "base": base.strip(),
        "method": method,
        "objective": chosen,
        "device": device,
        "most": most,
        "given": {name: value for name, value in (given or {}).items() if value is not None},
        "project_id": project_id,
        "project": data.manifest.get("project"),
        "task": data.manifest.get("task"),
        "export": {"id": export_id, "folder": str(data.folder.absolute()), "sha256": data.sha256},
    }
    return plan, data


def task_of(instance: Instance, plan: Mapping[str, Any]) -> Task:
    """Return the task of a classifier. Raises :class:`SettingError` where it is not here, or has no labels to choose.

    Raises :class:`NotFound` for a project that was removed.
    """
    if plan["project_id"] is None:
        raise SettingError(
            "The export is of the project %(project)s, which is not here; a classifier needs the labels of its task",
            project=plan["project"],
        )
    task = instance.project_task(instance.store.projects.get(plan["project_id"]), plan["task"])
    schema = task.schema
    if not (schema.one_of_labels or schema.set_of_labels) or schema.sides:
        raise SettingError(
            "A classifier chooses among labels, and the task %(task)s has values of the kind %(kind)s; choose another "
            "way to train",
            task=task.name,
            kind=schema.kind,
        )
    return task
