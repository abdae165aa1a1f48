"""The background worker: imports, runs, vectors, probes and refreshes; inside ``labeler serve``, or its own process.

It takes what the store says is to be done, so that several workers on one instance share the work, and whatever
dies is taken up again after its lease.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from labeler import telling
from labeler.augment.asking import Asking
from labeler.augment.sifting import sift
from labeler.backends.base import LEARNING
from labeler.errors import Conflict, LabelerError
from labeler.evaluation import replay
from labeler.evaluation.drafts import Drafting
from labeler.evaluation.judging import Judging
from labeler.evaluation.replay import Replaying
from labeler.ingest.clusters import sign_reviews
from labeler.ingest.options import ImportOptions
from labeler.ingest.service import HOPELESS
from labeler.ingest.upkeep import refresh_groups
from labeler.instance import Instance
from labeler.plugins import find
from labeler.prelabel import calibration, trial
from labeler.prelabel.meant import FREE
from labeler.prelabel.refresh import REFRESH, refresh_front
from labeler.prelabel.suggest import Suggester
from labeler.sentence import Sentence
from labeler.settings import (
    BATCH_EXECUTOR,
    DRAFT,
    JUDGE,
    LOCAL_EXECUTOR,
    REPLAY,
    WRITE,
    overrides,
    read_settings,
)  # fmt: skip
from labeler.store.acts import ONGOING
from labeler.store.database import HELD_BACK, held_back
from labeler.store.ledger import OPEN
from labeler.store.upkeep import DERIVED, VECTORS, WRITTEN
from labeler.store.work import DISAGREEMENT, SCORE
from labeler.task import GROUP, Task

log = logging.getLogger("labeler.worker")
_IDLE = 1.0
_GROWN = 1.1
# In seconds: a calibration is not fitted again sooner; what else waits is let in; queues are looked through.
_SOON, _SLICE, _FILL_EVERY = 60.0, 2.0, 60.0
# A -wal is looked at so often, in seconds.
_CHECKPOINT_EVERY = 60.0
# How long a command waits for a server that was there, and how seldom it is asked for at last.
_PATIENCE, _SELDOM = 120.0, 30.0


class Worker:
    """Does the background work of an instance until :meth:`stop`. ``start`` runs it in threads of this process."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._logged: dict[tuple[int, str], str] = {}
        self._counted: dict[tuple[Any, ...], float] = {}
        self._filled: dict[int, float] = {}
        self._checkpoint_at = time.monotonic()
        self._held_back = 0
        # Of runs whose server is away: how many records had ended, when to ask for it again, and how long that was.
        self._asked: dict[int, tuple[int, float, float]] = {}
        telling.begin(instance)

    def start(self) -> None:
        """Start the threads: imports, runs, upkeep, and what must not wait for them (refreshes, replays, plugins)."""
        loops = {
            "imports": self._imports,
            "runs": lambda: self._runs(False),
            "refreshes": lambda: self._runs(True),
            "replays": lambda: self._replays() | self.sift(),
            "upkeep": self._upkeep,
            "plugins": self._tell,
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
        while not self.stopping.is_set() and (
            self._imports()
            | self._replays()
            | self._runs(False)
            | self._runs(True)
            | self.sift()
            | self._upkeep()
            | self._tell()
        ):
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
        # Nobody is kept from writing for a look.
        claimed = store.write(store.records.claim_import) if store.records.waits_import() else None
        if claimed is None:
            return False
        if not claimed["path"]:
            # The command line read its own file, and was killed: only the person has the file.
            self._set_import(claimed, "failed", Sentence("It was stopped halfway; import the file again to continue"))
            return True
        project = store.projects.get(claimed["project_id"])
        path = self.instance.located(claimed["path"])
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
        columns, records = {"state": state, "message": message}, self.instance.store.records
        self.instance.store.write(lambda tx: records.progress_import(tx, claimed["id"], columns, claimed["token"]))

    # Runs

    def _runs(self, refreshes: bool) -> bool:
        busy = False
        ledger = self.instance.store.ledger
        for run_id in [] if refreshes else ledger.waiting_for_server():
            if not self.stopping.is_set():
                self._go_on(run_id)
        for run_id in ledger.open_runs():
            if self.stopping.is_set():
                break
            if (ledger.run(run_id)["settings"].get("purpose") == REFRESH) is not refreshes:
                continue
            busy = self.move_run(run_id) != "running" or busy
        paid = {*self.instance.store.batches.open_runs(), *ledger.to_finish()}
        for run_id in [] if refreshes else sorted(paid):
            # Cancelled or paused, but a batch is on its way, or an answer came: what was paid for is finished.
            if not self.stopping.is_set() and ledger.run(run_id)["state"] not in OPEN:
                self.move_run(run_id)
        return busy

    def see_through(self, run_id: int) -> str:
        """Move one run until it ends, pauses or this worker is stopped; return its state."""
        while True:
            state = self.move_run(run_id)
            if state == "paused" and self._server_returns(run_id):
                continue
            if state != "running" or self.stopping.wait(_IDLE):
                return state

    def _server_returns(self, run_id: int) -> bool:
        """Wait for a server that has answered this run before and is away now; whether it came back in time."""
        ledger, deadline = self.instance.store.ledger, time.monotonic() + _PATIENCE
        # A server that never answered is one with another address, as a rule: nobody waits for that.
        if not ledger.run(run_id)["calls"]:
            return False
        while run_id in ledger.waiting_for_server() and time.monotonic() < deadline:
            if self._go_on(run_id):
                return True
            if self.stopping.wait(_IDLE):
                return False
        return ledger.run(run_id)["state"] in OPEN

    def _go_on(self, run_id: int) -> bool:
        """Queue a run again whose server was away, if that answers now; asked more and more seldom, and in no hurry."""
        instance, ledger = self.instance, self.instance.store.ledger
        run, now = ledger.run(run_id), time.monotonic()
        ended = run["done"] + run["failed"]
        before, at, wait = self._asked.get(run_id, (ended, -math.inf, _IDLE / 2))
        if now < at:
            return False
        wait = min(2 * wait, _SELDOM) if ended == before else _IDLE
        self._asked[run_id] = (ended, now + wait, wait)
        try:
            project = instance.store.projects.get(run["project_id"])
            suggester = instance.suggester(project, instance.task_of(project, run["task"]), overrides(run["settings"]))
            there = suggester.backend.answers()
        except LabelerError:
            return False
        return bool(there) and instance.store.write(lambda tx: ledger.go_on(tx, run_id))

    def move_run(self, run_id: int) -> str:
        """Move one run as far as it goes; return its state. A run that cannot be set up is paused with the reason."""
        instance, store = self.instance, self.instance.store
        run = store.ledger.run(run_id)
        project = store.projects.get(run["project_id"])
        try:
            task = instance.task_of(project, run["task"])
            own = overrides(run["settings"])
            suggester = self._suggester_of(run, project, task, own)
            settings = read_settings("task", {**instance.task_settings_raw(project, task.name), **own})
        except LabelerError as error:
            message = str(error)
            store.write(lambda tx: store.ledger.set_run(tx, run_id, "paused", message, ("queued", "running")))
            return "paused"
        policy = instance.policy(settings)
        info = instance.price_of(suggester.backend)
        try:
            while True:
                if self._trial_over(run_id):
                    trial.judge(suggester, instance.ensemble(project, task), run_id)
                make = find(instance.plugins.executors, self._executor(run_id, settings["executor"]), "executor")
                state: str = make(store, run_id, suggester, policy, info, self.stopping).run()
                if not self._trial_over(run_id):
                    break
        except LabelerError as error:
            message = str(error)
            store.write(lambda tx: store.ledger.set_run(tx, run_id, "paused", message, ("queued", "running")))
            return "paused"
        except Exception as error:
            # A task or backend of a plugin may raise anything; asking again every second would not mend it.
            log.exception("run %s stopped", run_id)
            said = str(error)[:500]
            reason = Sentence("%(error)s in the task or backend: %(reason)s", error=type(error).__name__, reason=said)
            store.write(lambda tx: store.ledger.set_run(tx, run_id, "paused", reason, ("queued", "running")))
            state = "paused"
        if state == "finished":
            self._calibrate(run_id)
        return state

    def _suggester_of(
        self, run: Mapping[str, Any], project: dict[str, Any], task: Task, own: Mapping[str, Any]
    ) -> Suggester:
        instance = self.instance
        if run["settings"].get("purpose") == DRAFT:
            return Drafting.of_run(instance.suggester(project, task, own), run["settings"])
        if run["settings"].get("purpose") == WRITE:
            return Asking.of_run(instance.suggester(project, task, own), run["id"])
        if run["settings"].get("purpose") == JUDGE:
            return Judging.of_run(instance.suggester(project, task, own), run["settings"])
        if run["settings"].get("purpose") == REPLAY:
            return Replaying.of(instance.suggester(project, task, own), run["settings"])
        try:
            # Beside every suggestion of the run stands what the approvals say by now; without it the run goes on.
            self._learn(project, task)
        except Exception:
            log.exception("run %s: no fit of the task %s", run["id"], task.name)
        suggester = instance.suggester(project, task, own)
        if suggester.backend.learns and (ensemble := instance.ensemble(project, task)).behind():
            ensemble.fit()
        return suggester

    def _trial_over(self, run_id: int) -> bool:
        ledger = self.instance.store.ledger
        return ledger.run(run_id)["state"] in OPEN and ledger.trial_over(run_id)

    def _executor(self, run_id: int, chosen: str) -> str:
        """Return what moves a run now, as far as it is not the one that was ``chosen``."""
        store = self.instance.store
        # Whatever moves the task's runs by now: what is in a batch comes back through the executor that sent it.
        if store.batches.open(run_id):
            return BATCH_EXECUTOR
        # Half the price of a few dozen calls is not worth a day's wait for what the model is worth.
        return LOCAL_EXECUTOR if chosen == BATCH_EXECUTOR and store.ledger.in_trial(store.db, run_id) else chosen

    def _calibrate(self, run_id: int) -> None:
        """Learn from the scores that a run gave to records whose labels are approved, if there are enough."""
        instance = self.instance
        run = instance.store.ledger.run(run_id)
        project = instance.store.projects.get(run["project_id"])
        tasks = instance.tasks_of(project)
        for row in instance.store.calibrations.scored_in(run_id):
            # These backends learn from the approved labels themselves: these cannot tell how they are off.
            if row["task"] in tasks and row["backend"] not in (*FREE, *LEARNING):
                task = tasks[row["task"]]
                calibration.refit(
                    instance.store, project["id"], task.name, task.schema, row["backend"], row["model_id"],
                    row["prompt_digest"], task.unit, task.carried,
                )  # fmt: skip

    # Replays

    def _replays(self) -> bool:
        """Walk through a replay that waits; what is wrong with one is kept for its page."""
        waiting = self.instance.store.replays.waiting()
        if not waiting or self.stopping.is_set():
            return False
        return replay.walk(self.instance, waiting[0], self.stopping.is_set)

    # Written texts

    def sift(self) -> bool:
        """Sift the texts that models wrote, of whatever run; return whether any were."""
        written = self.instance.store.written
        waiting = written.waiting()
        for project_id in dict.fromkeys(project_id for project_id, _ in waiting):
            self._tend(project_id, WRITTEN, self._sift)
        return bool(waiting) and written.waiting() != waiting

    def _sift(self, project_id: int, place: str) -> None:
        for of, run_id in self.instance.store.written.waiting():
            if of == project_id and not self.stopping.is_set():
                sift(self.instance, run_id)

    def _tell(self) -> bool:
        return telling.tell(self.instance, self.stopping.is_set)

    # Upkeep: vectors, and what decisions call for

    def _upkeep(self) -> bool:
        store = self.instance.store
        self._checkpoint()
        self.instance.rest()
        busy = store.index_pictures()
        for project in store.projects.all():
            busy = self._derive(project) or busy
            busy = self._fill_vectors(project) or busy
        busy = self._act() or busy
        for project_id, task_name in store.upkeep.due():
            busy = self._tend(project_id, task_name, self._after_decisions) or busy
        return busy

    def _act(self) -> bool:
        """Go on with acts on many records, for at most some seconds each; return whether any is left."""
        store, open_ = self.instance.store, False
        for act in store.acts.open():
            if self.stopping.is_set():
                break
            try:
                project = store.projects.get(act["project_id"])
                acts = self.instance.acts(project, self.instance.task_of(project, act["task"]))
                open_ = acts.go_on(act["id"], _SLICE) in ONGOING or open_
            except Exception as error:
                # Its task may come from a plugin that is gone: it waits for that, and nothing else waits for it.
                self._log_trouble(act["project_id"], f":act {act['id']}", error)
        return open_

    def _checkpoint(self) -> None:
        """Keep the -wal small, and say when somebody who reads an old state for long does not let it be."""
        if time.monotonic() < self._checkpoint_at:
            return
        self._checkpoint_at = time.monotonic() + _CHECKPOINT_EVERY
        store = self.instance.store
        held = store.checkpoint()
        if held > max(HELD_BACK, 2 * self._held_back):
            log.warning("%s", held_back(store.path, held))
            self._held_back = held
        elif held < HELD_BACK:
            self._held_back = 0

    def _tend(self, project_id: int, place: str, work: Callable[[int, str], None]) -> bool:
        """Do some upkeep that no other worker does at the same time; return whether anything was done.

        What fails is kept for the project's page and waits; nothing else is held up by it.
        """
        upkeep, token = self.instance.store.upkeep, secrets.token_hex(8)
        if self.stopping.is_set():
            return False
        newest = self.instance.store.write(lambda tx: upkeep.take(tx, project_id, place, token))
        if newest is None:
            return False
        try:
            work(project_id, place)
        except Exception as error:
            self._log_trouble(project_id, place, error)
            message = str(error) if isinstance(error, LabelerError) else f"{type(error).__name__}: {error}"
            self.instance.store.write(lambda tx: upkeep.failed(tx, project_id, place, token, message))
            return False
        self.instance.store.write(lambda tx: upkeep.done(tx, project_id, place, token, newest))
        return True

    def _log_trouble(self, project_id: int, place: str, error: Exception) -> None:
        """Log a failure once, not each time it comes again."""
        if self._logged.get((project_id, place)) == repr(error):
            return
        self._logged[project_id, place] = repr(error)
        expected = isinstance(error, LabelerError)
        log.warning("project %s, %s: %s", project_id, place.lstrip(":"), error, exc_info=None if expected else error)

    def _derive(self, project: dict[str, Any]) -> bool:
        """Finish what an import or a change of settings left undone: products, clusters, rows of the queues."""
        store, id_ = self.instance.store, int(project["id"])
        free, troubled = store.upkeep.standing(id_, DERIVED)
        # That rows of a queue are missing is seldom, and more to find out: a process died between two transactions.
        late = time.monotonic() - self._filled.get(id_, -math.inf) > _FILL_EVERY
        # An import looks for near-duplicates itself, of many reviews at once: each time, all signatures are read.
        importing = store.records.is_importing(id_)
        unsigned = not importing and store.clusters.unsigned(id_, 1)
        if not free or not (troubled or late or unsigned or self._has_stale_products(project)):
            return False

        def work(project_id: int, place: str) -> None:
            deadline = time.monotonic() + _SLICE
            tasks = self.instance.tasks_of(project).values()
            refresh_groups(store, project_id, tasks, lambda: self._over(deadline))
            if not importing:
                sign_reviews(store, project_id, lambda: self._over(deadline))
            self.instance.fill_queues(project_id)
            self._filled[project_id] = time.monotonic()

        return self._tend(id_, DERIVED, work) and not late

    def _fill_vectors(self, project: dict[str, Any]) -> bool:
        """Make the vectors that are missing, for at most a few seconds at a time."""
        free, troubled = self.instance.store.upkeep.standing(project["id"], VECTORS)
        if not free or not (troubled or self._lacks_vectors(project)):
            return False

        def work(project_id: int, place: str) -> None:
            deadline = time.monotonic() + _SLICE
            for _ in self.instance.chosen_embeddings(project).fill(project_id, lambda: self._over(deadline)):
                pass

        return self._tend(project["id"], VECTORS, work)

    def _has_stale_products(self, project: dict[str, Any]) -> bool:
        if not self.instance.store.products.any_stale(project["id"]):
            return False
        # Without a task that labels products none is made.
        return any(task.unit == GROUP for task in self.instance.tasks_of(project).values())

    def _over(self, deadline: float) -> bool:
        return self.stopping.is_set() or time.monotonic() > deadline

    def _lacks_vectors(self, project: dict[str, Any]) -> bool:
        try:
            return self.instance.chosen_embeddings(project).missing(project["id"], 1) > 0
        except Exception:
            # Whoever tries to make them meets it again, and says so.
            return True

    def _learn(self, project: dict[str, Any], task: Task) -> None:
        ensemble = self.instance.ensemble(project, task)
        if ensemble.supports(task.schema) and ensemble.stale():
            ensemble.fit()

    def _after_decisions(self, project_id: int, task_name: str) -> None:
        """Follow the newest decisions of a task: fit ensemble and calibration, refresh the front of the queue."""
        instance = self.instance
        project = instance.store.projects.get(project_id)
        task = instance.tasks_of(project).get(task_name)
        if task is None:
            return
        self._learn(project, task)
        suggester = instance.suggester(project, task)
        self._recalibrate(suggester)
        settings = instance.project_settings(project)
        # A free suggestion is made again when its record is opened: before that it matters only where the order of the
        # queue goes by what suggestions say.
        wanted = suggester.backend.billed or settings["order"] in (SCORE, DISAGREEMENT)
        if settings["refresh"] and settings["refresh_ahead"] and wanted:
            budget = instance.task_settings(project, task_name)["budget"]
            refresh_front(suggester, settings["order"], settings["refresh_ahead"], budget)

    def _recalibrate(self, suggester: Suggester) -> None:
        """Fit the calibrations that answer now again, once a tenth more records are scored and approved."""
        approved = len(suggester.index)
        for row in suggester.store.calibrations.of_task(suggester.project_id, suggester.task.name):
            if (row["backend"], row["prompt_digest"]) != (suggester.backend.name, suggester.prompt_digest):
                continue
            place = (suggester.project_id, suggester.task.name, row["backend"], row["model_id"], row["prompt_digest"])
            # No pair without an approval: to count the pairs at each decision would read all of them.
            counted_at, enough = self._counted.get(place, -math.inf), _GROWN * row["fitted"].get("pairs", 0)
            if approved - counted_at < enough - row["fitted"].get("pairs", 0) or time.time() - row["made_at"] < _SOON:
                continue
            self._counted[place] = approved
            if suggester.store.calibrations.count_pairs(*place, suggester.task.unit) >= enough:
                calibration.refit(
                    suggester.store, *place[:2], suggester.task.schema, *place[2:], unit=suggester.task.unit,
                    carried=suggester.task.carried,
                )  # fmt: skip
