"""The background worker: imports, runs, vectors, probes and refreshes; inside ``labeler serve``, or its own process.

It takes what the store says is to be done, so that several workers on one instance share the work, and whatever
dies is taken up again after its lease.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

from labeler.errors import Conflict, LabelerError
from labeler.ingest.options import ImportOptions
from labeler.ingest.service import HOPELESS
from labeler.instance import Instance
from labeler.plugins import find
from labeler.prelabel.refresh import REFRESH, refresh_front
from labeler.settings import read_settings
from labeler.store.ledger import OPEN
from labeler.task import Task

log = logging.getLogger("labeler.worker")
_IDLE = 1.0
_GROWN = 1.1
_FREE = ("nearest", "probe")


class Worker:
    """Does the background work of an instance until :meth:`stop`. ``start`` runs it in threads of this process."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads: for imports, runs, refreshes (which must not wait behind a long run), and upkeep."""
        loops = {
            "imports": self._imports,
            "runs": lambda: self._runs(False),
            "refreshes": lambda: self._runs(True),
            "upkeep": self._upkeep,
        }
        for name, loop in loops.items():
            thread = threading.Thread(target=self._loop, args=(loop,), name=f"labeler-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, patience: float = 90.0) -> None:
        """Stop taking work, let what is in flight finish for at most ``patience`` seconds."""
        self.stopping.set()
        self.instance.wake()
        deadline = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def run_until_idle(self) -> None:
        """Do everything there is to do in this thread, then return."""
        while not self.stopping.is_set() and (self._imports() | self._runs(False) | self._runs(True) | self._upkeep()):
            pass

    def _loop(self, work: Any) -> None:
        while not self.stopping.is_set():
            try:
                busy = work()
            except LabelerError as error:
                log.error("%s", error)
                busy = False
            except Exception:
                log.exception("background work failed; it is tried again")
                busy = False
            if not busy:
                self.instance.wait_for_work(_IDLE)

    # Imports

    def _imports(self) -> bool:
        store = self.instance.store
        claimed = store.write(store.records.claim_import)
        if claimed is None:
            return False
        if not claimed["path"]:
            # The command line read its own file, and was killed: only the person has the file.
            self._set_import(claimed, "failed", "It was stopped half way; import the file again, and it goes on")
            return True
        project = store.projects.get(claimed["project_id"])
        path = Path(claimed["path"])
        try:
            self.instance.importer(project).run(
                path,
                ImportOptions(**claimed["options"]),
                file_name=claimed["file"],
                reviewer_id=claimed["reviewer_id"],
                import_id=claimed["id"],
                token=claimed["token"],
                stop=self.stopping.is_set,
            )
        except HOPELESS as error:
            log.warning("import %s: %s", claimed["id"], error)
        except Conflict as error:
            # The file is now the other worker's.
            log.warning("%s", error)
            return True
        if store.records.get_import(project["id"], claimed["id"])["state"] == "running":
            # Stopped half way: the next worker need not wait until this one counts as dead.
            self._set_import(claimed, "queued", None)
        else:
            path.unlink(missing_ok=True)
        return True

    def _set_import(self, claimed: dict[str, Any], state: str, message: str | None) -> None:
        columns, room = {"state": state, "message": message}, self.instance.store.records
        self.instance.store.write(lambda tx: room.progress_import(tx, claimed["id"], columns, claimed["token"]))

    # Runs

    def _runs(self, refreshes: bool) -> bool:
        busy = False
        ledger = self.instance.store.ledger
        for run_id in ledger.open_runs():
            if self.stopping.is_set():
                break
            if (ledger.run(run_id)["settings"].get("purpose") == REFRESH) is not refreshes:
                continue
            busy = self.move_run(run_id) != "running" or busy
        for run_id in [] if refreshes else self.instance.store.batches.open_runs():
            # Cancelled or paused, but a batch is on its way: what it brings was paid for.
            if not self.stopping.is_set() and ledger.run(run_id)["state"] not in OPEN:
                self.move_run(run_id)
        return busy

    def see_through(self, run_id: int) -> str:
        """Move one run until it ends, pauses or this worker is stopped; return its state."""
        while True:
            state = self.move_run(run_id)
            if state != "running" or self.stopping.wait(_IDLE):
                return state

    def move_run(self, run_id: int) -> str:
        """Move one run as far as it goes; return its state. A run that cannot be set up is paused with the reason."""
        instance, store = self.instance, self.instance.store
        run = store.ledger.run(run_id)
        project = store.projects.get(run["project_id"])
        try:
            task = instance.task_of(project, run["task"])
            overrides = {name: value for name, value in run["settings"].items() if name != "purpose"}
            suggester = instance.suggester(project, task, overrides)
            if suggester.backend.name == "probe":
                instance.probe(project, task).fit()
            settings = read_settings("task", {**instance.task_settings_raw(project, task.name), **overrides})
        except LabelerError as error:
            message = str(error)
            store.write(lambda tx: store.ledger.set_run(tx, run_id, "paused", message, ("queued", "running")))
            return "paused"
        pace = instance.pace(settings)
        info = instance.price_of(suggester.backend)
        try:
            make = find(instance.plugins.executors, settings["executor"], "executor")
            state: str = make(store, run_id, suggester, pace, info, self.stopping).run()
        except LabelerError as error:
            message = str(error)
            store.write(lambda tx: store.ledger.set_run(tx, run_id, "paused", message, ("queued", "running")))
            return "paused"
        except Exception as error:
            # A task or backend of a plugin may raise anything; asking again every second would not mend it.
            log.exception("run %s stopped", run_id)
            reason = f"{type(error).__name__} in the task or backend: {error}"[:500]
            store.write(lambda tx: store.ledger.set_run(tx, run_id, "paused", reason, ("queued", "running")))
            state = "paused"
        if state == "finished":
            self._calibrate(run_id)
        return state

    def _calibrate(self, run_id: int) -> None:
        """Learn from the scores that a run gave to records whose labels are approved, if there are enough."""
        from labeler.prelabel import calibration

        instance = self.instance
        run = instance.store.ledger.run(run_id)
        project = instance.store.projects.get(run["project_id"])
        tasks = instance.tasks_of(project)
        for row in instance.store.calibrations.scored_in(run_id):
            # The free backends learn from the approved labels themselves: these cannot tell how they are off.
            if row["task"] in tasks and row["backend"] not in _FREE:
                task = tasks[row["task"]]
                calibration.refit(
                    instance.store, project["id"], task.name, task.schema, row["backend"], row["model_id"], row["way"],
                    task.unit,
                )  # fmt: skip

    def _recalibrate(self, project: dict[str, Any], task: Task) -> None:
        """Fit the calibrations of a task again once a tenth more records are approved than they were fitted on."""
        from labeler.prelabel import calibration

        store, approved = self.instance.store, len(self.instance.index(project, task))
        for row in store.calibrations.of_task(project["id"], task.name):
            if approved >= _GROWN * row["fitted"]["trained_on"]:
                calibration.refit(
                    store, project["id"], task.name, task.schema, row["backend"], row["model_id"], row["way"],
                    task.unit,
                )  # fmt: skip

    # Upkeep: vectors, probes, refreshes

    def _upkeep(self) -> bool:
        busy = False
        for project in self.instance.store.projects.all():
            if self.stopping.is_set():
                break
            busy = self._fill_vectors(project) or busy
        for project_id, task_name in self.instance.take_decided():
            if self.stopping.is_set():
                break
            self._after_decisions(project_id, task_name)
            busy = True
        return busy

    def _fill_vectors(self, project: dict[str, Any]) -> bool:
        """Make the vectors that are missing, for at most a few seconds at a time."""
        deadline = time.monotonic() + 2.0
        busy = False
        try:
            embeddings = self.instance.chosen_embeddings(project)
        except LabelerError as error:
            log.warning("project %s: %s", project["id"], error)
            return False
        for _ in embeddings.fill(project["id"], lambda: self.stopping.is_set() or time.monotonic() > deadline):
            busy = True
        return busy

    def _after_decisions(self, project_id: int, task_name: str) -> None:
        instance = self.instance
        project = instance.store.projects.get(project_id)
        settings = instance.project_settings(project)
        task = instance.task_of(project, task_name)
        probe = instance.probe(project, task)
        if probe.supports(task.schema) and probe.stale():
            probe.fit()
        self._recalibrate(project, task)
        if settings["refresh"] and settings["refresh_ahead"]:
            budget = instance.task_settings(project, task_name)["budget"]
            refresh_front(instance.suggester(project, task), settings["order"], settings["refresh_ahead"], budget)
