"""The projects of an instance: their settings and tasks, what changes these, and the queues that follow."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from labeler.annotation import relabel
from labeler.annotation.ballots import Ballots, Overlap
from labeler.annotation.comparing import Comparing
from labeler.annotation.decisions import Decisions
from labeler.annotation.notes import Notes
from labeler.annotation.relabel import TaskSettings
from labeler.errors import InputError, SettingError
from labeler.extras import AUTO, check_embedder
from labeler.files import Files
from labeler.ingest.service import Importer
from labeler.ingest.upkeep import refresh_groups
from labeler.labels import Answers
from labeler.labels.moves import number_of
from labeler.plugins import find
from labeler.settings import changed_settings, check_columns, read_settings
from labeler.store import Tx
from labeler.store.projects import check_in_use
from labeler.store.work import Work
from labeler.task import GROUP, Task
from labeler.text import NAMELESS_PROJECT, checked_name


class Projects(Files):
    """An instance folder with what is done to its projects."""

    def __init__(self, folder: Path, *, read_only: bool = False, make: bool = True) -> None:
        super().__init__(folder, read_only=read_only, make=make)
        self._overridden: dict[tuple[int, str], tuple[int, Task]] = {}
        self._work = threading.Event()

    def project_settings(self, project: Mapping[str, Any]) -> dict[str, Any]:
        return read_settings("project", project["settings"])

    def create_project(
        self, name: str, language: str = "ko", settings: Mapping[str, Any] | None = None, reviewer_id: int | None = None
    ) -> int:
        """Make a project with the given settings; by default it has every record task that is loaded.

        Raises :class:`SettingError` for a language without prompts.
        """
        name = checked_name(name, NAMELESS_PROJECT, 80)
        if language not in ("ko", "en"):
            raise SettingError("A project's language is ko or en, not %(language)r", language=language)
        chosen = dict(settings or {})
        chosen.setdefault("tasks", list(self.plugins.tasks))
        for task in chosen["tasks"]:
            self.plugins.task(task)
        checked = changed_settings("project", chosen)
        check_columns(checked)

        def work(tx: Tx) -> int:
            id_ = self.store.projects.create(tx, name, language, checked)
            if reviewer_id is not None:
                self.store.projects.add_member(tx, id_, reviewer_id, "admin")
            self.store.events.add(tx, "project created", project_id=id_, reviewer_id=reviewer_id)
            return id_

        return self.store.write(work)

    def tasks_of(self, project: Mapping[str, Any]) -> dict[str, Task]:
        """Return the project's tasks as its settings have them; a task whose plugin is gone is left out."""
        names = self.project_settings(project)["tasks"]
        return {name: self.task_of(project, name) for name in names if name in self.plugins.tasks}

    def project_task(self, project: Mapping[str, Any], name: str) -> Task:
        """Return a task that the project has. Raises :class:`NotFound` that lists those it has."""
        return find(self.tasks_of(project), name, "task")

    def task_of(self, project: Mapping[str, Any], name: str) -> Task:
        task = self.plugins.task(name)
        version, settings = self.store.projects.task_settings(project["id"], name)
        if not version:
            return task
        place = (int(project["id"]), name)
        known = self._overridden.get(place)
        if known is None or known[0] != version:
            # The numbers of projects and versions are given once: what was made of them stays.
            moves = self.store.projects.label_moves(*place)
            known = self._overridden[place] = (version, task.overridden(version, settings, moves))
        return known[1]

    def task_at(self, project: Mapping[str, Any], name: str, version: str) -> Task:
        """Return a task as a version of its settings had it. Raises :class:`InputError` where the plugin is another."""
        task, number = self.plugins.task(name), number_of(version, self.plugins.task(name).version)
        if version not in (task.version, f"{task.version}.{number}"):
            raise InputError(
                "The labels are of version %(version)s of %(task)s; its plugin has version %(now)s by now",
                version=version,
                task=name,
                now=task.version,
            )
        moves = self.store.projects.label_moves(project["id"], name)
        settings = self.store.projects.task_settings_at(project["id"], name, number)
        return task.overridden(number, settings, {at: move for at, move in moves.items() if at <= number})

    def task_settings_raw(self, project: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return only the settings that the project changed."""
        return self.store.projects.task_settings(project["id"], name)[1]

    def task_settings(self, project: Mapping[str, Any], name: str) -> dict[str, Any]:
        return read_settings("task", self.task_settings_raw(project, name))

    def sent_columns(self, project: Mapping[str, Any], task: Task) -> tuple[str, ...]:
        """Return the columns of the metadata that the model sees: none of a task on products, which have none."""
        return () if task.unit == GROUP else tuple(self.project_settings(project)["sent_columns"])

    def change_project(self, project_id: int, changes: Mapping[str, Any], reviewer_id: int | None = None) -> None:
        """Change some settings of a project; tasks that were added get their queue.

        Safe against another who changes other settings at the same time: the changes are put together with what
        stands in the transaction that stores them.
        """
        stands = self.store.projects.get(project_id)["settings"]
        # What a plugin that is gone brought along may stay: its labels wait for it.
        for name in {*(changes.get("tasks") or []), *(changes.get("shared_tasks") or [])} - {*stands.get("tasks", [])}:
            self.plugins.task(name)
        if changes.get("embedder") not in (None, "", AUTO, stands.get("embedder")):
            find(self.plugins.embedders, changes["embedder"], "embedder")
            check_embedder(changes["embedder"])

        def work(tx: Tx) -> None:
            now = self.store.projects.get(project_id, tx)["settings"]
            merged = changed_settings("project", {**now, **changes})
            # Two changes that go each for itself may not go together.
            check_columns(merged)
            self.store.projects.set_settings(tx, project_id, merged)
            detail = {"changed": sorted(changes)}
            self.store.events.add(tx, "settings changed", project_id=project_id, reviewer_id=reviewer_id, detail=detail)

        self.store.write(work)
        self.fill_queues(project_id)
        self.wake()

    def change_task(
        self,
        project_id: int,
        name: str,
        settings: Mapping[str, Any],
        reviewer_id: int | None = None,
        seen: Mapping[str, Any] | None = None,
        answers: Answers | None = None,
        back_to: int | None = None,
    ) -> int:
        """Store the settings of a task as a new version, checked in full; return the version.

        ``seen`` are the settings that somebody changed into ``settings``: only what differs is changed then, in the
        transaction that stores it, and what another changed meanwhile stands. Without it nothing else stays.
        ``answers`` and ``back_to``: see :meth:`labeler.annotation.relabel.TaskSettings.save`.
        """
        self._check_names(project_id, changed_settings("task", settings))
        version = self.task_changes(project_id, name).save(settings, reviewer_id, seen, answers, back_to)
        self.fill_queues(project_id)
        self.wake()
        return version

    def add_guideline(
        self, project: Mapping[str, Any], name: str, line: str, language: str, reviewer_id: int | None
    ) -> int:
        """Add a line to the guidelines of a task, in a language, as a new version; return the version."""
        settings = self.task_settings_raw(project, name)
        own = self.task_of(project, name).guided(language).rstrip()
        guidelines = dict(settings.get("guidelines") or {}) | {language: f"{own}\n- {' '.join(line.split())}"}
        return self.change_task(int(project["id"]), name, settings | {"guidelines": guidelines}, reviewer_id, settings)

    def task_changes(self, project_id: int, name: str) -> TaskSettings:
        """Return what changes the settings of a task, and what shows beforehand what that does to its labels."""
        return TaskSettings(self.store, project_id, self.plugins.task(name))

    def _check_names(self, project_id: int, checked: Mapping[str, Any]) -> None:
        """Refuse now what every run would refuse: names that nothing is registered under, a cascade of many tasks."""
        registries: dict[str, Mapping[str, Any]] = {
            "backend": self.plugins.backends, "retriever": self.plugins.retrievers, "executor": self.plugins.executors
        }  # fmt: skip
        for name, registry in registries.items():
            if checked.get(name):
                find(registry, checked[name], name)
        project = self.store.projects.get(project_id)
        for other in checked.get("joint", []):
            self.project_task(project, other)

    def fill_queues(self, project_id: int) -> None:
        """Queue what is missing in the queues of the project's tasks: all of a new task, nothing where nothing is new.

        How far each task is queued, and for which unit, is stored with each slice. So whatever a killed process left
        undone after a change of settings is done by the next call, in any process; it asks one row a task where
        nothing is missing.
        """
        tasks = self.tasks_of(self.store.projects.get(project_id))
        for task in tasks.values():
            self._fill_queue(project_id, task, tasks.values())

    def _fill_queue(self, project_id: int, task: Task, tasks: Iterable[Task]) -> None:
        relabel.finish(self.store, project_id, task)
        self.ballots(self.store.projects.get(project_id), task).tidy()
        work, place = self.store.work, (project_id, task.name, task.unit)
        unit, through = work.queued_through(project_id, task.name) or ("", 0)
        if unit != task.unit:
            self.store.write(lambda tx: work.requeue(tx, *place))
            through = 0
        if through == 0 and task.unit == GROUP:
            refresh_groups(self.store, project_id, tasks)
        newest = work.newest_record()
        while through < newest:
            ids, through = work.queue_slice(*place, through, newest)
            # Somebody changed the unit: what they do about it counts.
            if not self.store.write(partial(_queue_through, work, place, ids, through)):
                break

    def importer(self, project: Mapping[str, Any]) -> Importer:
        check_in_use(project)
        tasks = self.tasks_of(project)
        decisions = {name: self.decisions(project, task) for name, task in tasks.items()}
        prepare = partial(self.plugins.prepare, project["name"]) if self.plugins.prepare_records else None
        return Importer(self.store, int(project["id"]), tasks, decisions, prepare, self.plugins.importers)

    def decisions(self, project: Mapping[str, Any], task: Task, adjudicates: bool = False) -> Decisions:
        settings = self.project_settings(project)
        overlap = Overlap.of(settings, task.name)
        return Decisions(self.store, int(project["id"]), task, settings["claim_minutes"] * 60, overlap, adjudicates)

    def ballots(self, project: Mapping[str, Any], task: Task) -> Ballots:
        return Ballots(self.store, int(project["id"]), task, Overlap.of(self.project_settings(project), task.name))

    def notes(self, project: Mapping[str, Any], task: Task) -> Notes:
        return Notes(self.store, int(project["id"]), task)

    def comparing(self, project: Mapping[str, Any], task: Task) -> Comparing:
        return Comparing(self.store, int(project["id"]), task, self.project_settings(project))

    # Background work

    def wake(self) -> None:
        """Tell the background worker of this process, if there is one, that there is work."""
        self._work.set()

    def wait_for_work(self, seconds: float) -> None:
        """Wait until :meth:`wake` is called, at most ``seconds``."""
        if self._work.wait(seconds):
            self._work.clear()


def _queue_through(work: Work, place: tuple[int, str, str], ids: list[int], through: int, tx: Tx) -> bool:
    return work.queue_through(tx, *place, ids, through)
