"""An open instance folder: its settings, store and plugins, put together for the command line and the page.

This is the wiring of everything below the page; :mod:`labeler.app` adds the page, and :mod:`labeler.suggesters` says
how a suggester is made from it. One object per process; the example indexes and the fitted ensembles it holds are
shared by all threads.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labeler import extras, strictjson, suggesters
from labeler.annotation import relabel
from labeler.annotation.decisions import Decisions
from labeler.annotation.queue import LIKE_LABEL, Queue
from labeler.annotation.relabel import TaskSettings
from labeler.backends.base import Backend
from labeler.backends.prices import ModelInfo, find_model, load_prices
from labeler.errors import JsonError, LabelerError, NotFound, SettingError, StoreReadOnly, not_written
from labeler.extras import AUTO, check_embedder, extra_of_embedder
from labeler.ingest.service import Importer
from labeler.ingest.upkeep import refresh_groups
from labeler.kept import KeptFile
from labeler.labels import Answers
from labeler.plugins import Plugins, find, load_plugins
from labeler.prelabel.calls import Pace
from labeler.prelabel.suggest import Suggester
from labeler.retrieval.embedding import Embeddings
from labeler.retrieval.index import ExampleIndex
from labeler.retrieval.ranking import Rankings
from labeler.settings import INSTANCE, Setting, changed_settings, check_columns, read_settings
from labeler.store import Store, Tx, check_new
from labeler.store.projects import check_in_use
from labeler.store.work import Work
from labeler.suggesters import Suggesters, refuse_joint_cascade
from labeler.task import GROUP, Task
from labeler.text import NAMELESS_PROJECT, checked_name

if TYPE_CHECKING:
    import numpy as np

    from labeler.backends.ensemble.learner import Learner

DATABASE = "labeler.db"
# So few missing vectors of a slow embedder are made while a page waits; more are left to the background.
_FEW = 16
_RECHECK = 30.0
E5 = "e5"
_NEW_KEY = "delete it, and the next start makes a new one (everybody signs in again)"


def require_instance(folder: Path) -> None:
    """Raise :class:`NotFound` if there is no instance in a folder, :class:`StoreDamaged` if its database is gone."""
    database = folder / DATABASE
    if not database.exists():
        check_new(database)
        raise NotFound(
            f"There is no instance at {folder}; go to the folder where it lies, or name it with --instance FOLDER "
            "(labeler serve, demo, import and user add make one)"
        )


class Instance:
    """Open an instance folder. Raises :class:`LabelerError` with a remedy if it cannot be.

    One that is missing is made, unless ``make`` is False; nobody but its owner looks into it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, make: bool = True) -> None:
        self.folder = folder
        self.read_only = read_only
        if not make:
            require_instance(folder)
        if not read_only:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StoreReadOnly(f"The instance folder {folder} cannot be made: {error.strerror}") from error
            if not os.access(folder, os.W_OK):
                raise StoreReadOnly(
                    f"The instance folder {folder} is not writable; change its permissions, or serve with --read-only"
                )
        self.store = Store(folder / DATABASE, read_only=read_only)
        self._lock = threading.RLock()
        self._embeddings: dict[str, Embeddings] = {}
        self._indexes: dict[tuple[int, str, str], ExampleIndex] = {}
        self._ensembles: dict[tuple[int, str, str, str], Learner[Any]] = {}
        self._settings = KeptFile(folder / "settings.json", _read_settings)
        self._prices = KeptFile(folder / "prices.json", _read_prices)
        self._suggesters = Suggesters(self)
        self._complete: dict[tuple[int, str, int], tuple[bool, float]] = {}
        self._overridden: dict[tuple[int, str], tuple[int, Task]] = {}
        self._work = threading.Event()
        self._rankings = Rankings(self.store)

    def located(self, stored: str) -> Path:
        """Return where a path that the database keeps is now.

        Earlier versions kept whole paths: what lay in the folders of an instance that was moved since lies there still.
        """
        path = Path(stored)
        if path.parts[-3:-2] in (("uploads",), ("exports",)):
            here = self.folder.joinpath(*path.parts[-3:])
            if here.exists():
                return here
        return self.folder / path

    @cached_property
    def plugins(self) -> Plugins:
        from labeler import built_in

        return load_plugins(built_in, self.folder / "plugins", settings=lambda: self.in_force)

    # Instance settings and secrets

    @property
    def settings(self) -> dict[str, Any]:
        """The instance's own settings, from settings.json. Raises :class:`SettingError` that names the file."""
        return dict(self._settings.now())

    @property
    def in_force(self) -> dict[str, Any]:
        """The settings with what holds where those of plugins are not set."""
        return {name: setting.default for name, setting in self.plugins.settings.items()} | self.settings

    @property
    def table(self) -> Mapping[str, Setting]:
        """The settings that the instance has, by name, with those of its plugins."""
        return {setting.name: setting for setting in INSTANCE} | self.plugins.settings

    def change_settings(self, changes: Mapping[str, Any], by: int | None = None) -> None:
        """Change some instance settings; None or an empty text removes one. The file is readable by its owner only.

        ``by`` is the admin who does it, None a command. A key goes to the server it was given for and to no other:
        raises :class:`SettingError` for another server without its key.
        """
        from labeler.backends.openai import openai_settings, refuse_metadata, same_server

        checked = changed_settings(self.table, changes)
        if checked.get("openai_base_url"):
            refuse_metadata(checked["openai_base_url"])
        # A bad address would be met again by everything that is done with this instance.
        openai_settings(checked)
        path = self.folder / "settings.json"

        def work(tx: Tx) -> None:
            # The one lock that all processes of an instance share: two that change it at once both count.
            stored = _read_settings(path if path.exists() else None)
            merged = {name: value for name, value in stored.items() if name not in changes} | checked
            named = sorted(name for name in changes if stored.get(name) != merged.get(name))
            addresses = stored.get("openai_base_url"), merged.get("openai_base_url")
            if stored.get("openai_api_key") and "openai_api_key" not in changes and not same_server(*addresses):
                raise SettingError(
                    "openai_base_url is another server, and the key that is stored is not its own; "
                    "give openai_api_key with it, or remove the key first"
                )
            if named:
                detail = {"changed": named, "openai_base_url": merged.get("openai_base_url")}
                self.store.events.add(tx, "instance settings changed", reviewer_id=by, detail=detail)
            write_private(path, json.dumps(merged, ensure_ascii=False, indent=2) + "\n")

        self.store.write(work)
        with self._lock:
            self._suggesters.forget_backends()

    @cached_property
    def secret_key(self) -> str:
        """The key that signs sessions, made at first use and stored with mode 0600."""
        if not self.key_file.exists():
            if self.read_only:
                # Sessions end with this process.
                return secrets.token_hex(32)
            write_private(self.key_file, secrets.token_hex(32))
        return read_secret_key(self.key_file)

    @property
    def key_file(self) -> Path:
        return self.folder / "secret_key"

    @property
    def prices(self) -> Mapping[str, ModelInfo]:
        """What is known of each model; prices.json of the instance adds to it and wins."""
        return self._prices.now()

    def price_of(self, backend: Backend) -> ModelInfo | None:
        """Return what a backend's calls cost, None where that is unknown; local weights cost no fee."""
        if backend.local:
            return ModelInfo(backend.model_id or backend.name, input=0.0, output=0.0)
        return self.model_info(backend.model_id)

    def model_info(self, model_id: str | None) -> ModelInfo | None:
        """Return what the registry knows of a model id: context, prices, the date it is shut down."""
        return find_model(self.prices, model_id)

    # Projects and their tasks

    def project_settings(self, project: Mapping[str, Any]) -> dict[str, Any]:
        return read_settings("project", project["settings"])

    def create_project(
        self, name: str, language: str = "ko", settings: Mapping[str, Any] | None = None, reviewer_id: int | None = None
    ) -> int:
        """Make a project with the given settings; by default it has every record task that is loaded."""
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

    def task_settings_raw(self, project: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return only the settings that the project changed."""
        return self.store.projects.task_settings(project["id"], name)[1]

    def task_settings(self, project: Mapping[str, Any], name: str) -> dict[str, Any]:
        return read_settings("task", self.task_settings_raw(project, name))

    def prompt_words(self, project: Mapping[str, Any], task: Task) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return persona and answer wording of a task by language, as its prompts have them: what exports train on."""
        settings = self.task_settings(project, task.name)
        return settings["persona"] or {}, settings["answer_wording"] or {}

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
        for name in set(changes.get("tasks") or []).difference(stands.get("tasks", [])):
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

    def task_changes(self, project_id: int, name: str) -> TaskSettings:
        """Return what changes the settings of a task, and what shows beforehand what that does to its labels."""
        return TaskSettings(self.store, project_id, self.plugins.task(name), refuse_joint_cascade)

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

    # Background work

    def wake(self) -> None:
        """Tell the background worker of this process, if there is one, that there is work."""
        self._work.set()

    def wait_for_work(self, seconds: float) -> None:
        """Wait until :meth:`wake` is called, at most ``seconds``."""
        if self._work.wait(seconds):
            self._work.clear()

    # Retrieval

    def embeddings(self, project: Mapping[str, Any]) -> Embeddings:
        """Return the vectors that retrieval uses now.

        Those of the project's embedder, unless it is a slow one whose vectors are still being made in the
        background: until nearly all are there, retrieval goes on with the lexical ones and no page waits.
        """
        chosen = self.chosen_embeddings(project)
        if chosen.embedder.fast or self._nearly_complete(chosen, int(project["id"])):
            return chosen
        return self.lexical_embeddings(project)

    def lexical_embeddings(self, project: Mapping[str, Any]) -> Embeddings:
        return self._embeddings_of(project, "lexical")

    def _embeddings_of(self, project: Mapping[str, Any], embedder: str) -> Embeddings:
        return self.chosen_embeddings({**project, "settings": {**project["settings"], "embedder": embedder}})

    def best_embeddings(self, project: Mapping[str, Any]) -> Embeddings:
        """Return the vectors that a typed text is compared by: those of meaning where all are there, else of letters.

        A project that goes by letters now may have those of e5 from before.
        """
        now = self.embeddings(project)
        if not now.embedder.fast or E5 not in self.plugins.embedders or extra_of_embedder(E5) is not None:
            return now
        better = self._embeddings_of(project, E5)
        return better if self._nearly_complete(better, int(project["id"]), 1) else now

    def _nearly_complete(self, embeddings: Embeddings, project_id: int, few: int = _FEW) -> bool:
        """Whether fewer than ``few`` vectors of a project are missing."""
        key = (project_id, embeddings.embedder.id, few)
        known, at = self._complete.get(key, (False, 0.0))
        now = time.monotonic()
        if now - at > (_RECHECK if known else 1.0):
            known = embeddings.missing(project_id, few) < few
            self._complete[key] = (known, now)
        return known

    def chosen_embeddings(self, project: Mapping[str, Any]) -> Embeddings:
        """Return the vectors of the embedder that the project's settings name, or of the best that is installed."""
        settings = self.project_settings(project)
        name = extras.best_embedder() if settings["embedder"] == AUTO else settings["embedder"]
        key = f"{name}/{settings['embedding_model']}"
        with self._lock:
            if key not in self._embeddings:
                factory = find(self.plugins.embedders, name, "embedder")
                self._embeddings[key] = Embeddings(self.store, factory(settings), name)
            return self._embeddings[key]

    def rest(self) -> None:
        """Have embedders let go of what nobody has used for a while."""
        with self._lock:
            resting = [getattr(one.embedder, "rest", None) for one in self._embeddings.values()]
        for rest in resting:
            if rest is not None:
                rest()

    def index(self, project: Mapping[str, Any], task: Task) -> ExampleIndex:
        """Return the example index of a task; its cache file lives in the folder index/."""
        embeddings = self.embeddings(project)
        key = (int(project["id"]), task.name, embeddings.embedder.id)
        with self._lock:
            index = self._indexes.get(key)
            if index is None:
                folder = None if self.read_only else self.folder / "index"
                index = self._indexes[key] = ExampleIndex(self.store, key[0], task, embeddings, folder)
            index.use(task)
            return index

    def ensemble(self, project: Mapping[str, Any], task: Task) -> Learner[Any]:
        """Return what learns from the approvals of a task; it is made again where another kind of value is learned."""
        from labeler.backends.ensemble import learner_for

        index = self.index(project, task)
        key = (int(project["id"]), task.name, index.embeddings.embedder.id, task.schema.kind)
        with self._lock:
            if key not in self._ensembles:
                self._ensembles[key] = learner_for(index, self.lexical_embeddings(project), project["language"])
            self._ensembles[key].columns = self.sent_columns(project, task)
            return self._ensembles[key]

    # Suggestions

    def default_backend(self, project: Mapping[str, Any], task: Task, model_id: str = "") -> str:
        """Return the name of the backend of a task that names none: see :meth:`Suggesters.default_backend`."""
        return self._suggesters.default_backend(project, task, model_id)

    def backend(
        self, project: Mapping[str, Any], task: Task, name: str, options: Mapping[str, Any] | None = None
    ) -> Backend:
        """Return a backend by name: see :meth:`Suggesters.backend`."""
        return self._suggesters.backend(project, task, name, options)

    def spends(self, project: Mapping[str, Any], task: Task, overrides: Mapping[str, Any] | None = None) -> bool:
        """Whether a run would be of a billed backend: see :meth:`Suggesters.spends`."""
        return self._suggesters.spends(project, task, overrides)

    def suggester(
        self, project: Mapping[str, Any], task: Task, overrides: Mapping[str, Any] | None = None, keep: bool = True
    ) -> Suggester:
        """Return what makes suggestions for a task, with ``overrides`` of one run: see :meth:`Suggesters.suggester`."""
        return self._suggesters.suggester(project, task, overrides, keep)

    def suggester_now(self, project: Mapping[str, Any], task: Task) -> Suggester:
        """Return what can suggest while a page waits: a free backend, and none that would first have to be fitted."""
        return self.free_suggester(project, task, self.suggester(project, task))

    def free_suggester(self, project: Mapping[str, Any], task: Task, own: Suggester | None) -> Suggester:
        """Return what stands in while a page waits for ``own``, the task's own suggester; ``own`` if it can itself."""
        stands_in = self.ensemble(project, task).stands_in
        if own is not None and not own.backend.billed:
            if own.backend.answers_now():
                return own
            # The background worker fits, and the neighbours answer meanwhile if they can.
            if not self.read_only and not self.store.upkeep.is_due(int(project["id"]), task.name):
                self.store.write(lambda tx: self.store.upkeep.ask(tx, int(project["id"]), task.name))
            self.wake()
        return self.suggester(project, task, {"backend": stands_in})

    def pace(self, settings: Mapping[str, Any]) -> Pace:
        """Return the pace of a run with these settings of its task."""
        return suggesters.pace(self.settings, settings)

    # The desk

    def queue(self, project: Mapping[str, Any], task: Task) -> Queue:
        def nearest(text: str) -> Sequence[int]:
            place, name = (int(project["id"]), task.name), text.removeprefix(LIKE_LABEL)
            if text != name and name in task.schema.names:
                query = partial(self._towards, index := self.index(project, task), name, project["language"])
                return self._rankings.pending(*place, index.embeddings.embedder, text, query)
            return self._rankings.pending(*place, self.best_embeddings(project).embedder, text)

        settings = self.project_settings(project)
        return Queue(self.store, int(project["id"]), task, settings, nearest, lambda: self._answering(project, task))

    def _towards(self, index: ExampleIndex, name: str, language: str) -> np.ndarray:
        """Return where records of a label lie: by its examples, or by its description where there are none."""
        found, label = index.towards(name), index.task.schema.label(name)
        described = f"{label.titled(language)}. {label.defined(language)}"
        return index.embeddings.embedder.embed([described])[0] if found is None else found

    def _answering(self, project: Mapping[str, Any], task: Task) -> str:
        """Return the name of the backend that suggests now; one that is not set up still has its older scores."""
        try:
            own = self.suggester(project, task)
            return (own if own.backend.billed else self.free_suggester(project, task, own)).backend.name
        except LabelerError:
            return str(self.task_settings(project, task.name)["backend"])

    def decisions(self, project: Mapping[str, Any], task: Task) -> Decisions:
        lease = self.project_settings(project)["claim_minutes"] * 60
        return Decisions(self.store, int(project["id"]), task, lease)

    def close(self) -> None:
        """Save the index caches and close the store."""
        for index in self._indexes.values():
            index.save()
        self._suggesters.close()
        self.store.close()

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _queue_through(work: Work, place: tuple[int, str, str], ids: list[int], through: int, tx: Tx) -> bool:
    return work.queue_through(tx, *place, ids, through)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise not_written(path, error) from error


def _read_prices(path: Path | None) -> Mapping[str, ModelInfo]:
    try:
        return load_prices(path)
    except SettingError as error:
        # As with the settings: a fault of the server.
        raise LabelerError(str(error)) from error


def read_secret_key(path: Path) -> str:
    """Return the key in a file. Raises :class:`LabelerError` for one that is damaged or that somebody could guess."""
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelerError(
            "%(path)s cannot be read as a key (%(reason)s); %(what)s", path=path, reason=error, what=_NEW_KEY
        ) from error
    if len(key) < 32:
        raise LabelerError(
            "%(path)s holds %(n)s characters, and a key has at least 32; %(what)s",
            path=path,
            n=len(key),
            what=_NEW_KEY,
        )
    return key


def _read_settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = strictjson.loads(path.read_bytes())
    except (JsonError, OSError) as error:
        # Nobody who asks for a page has given this: it is a fault of the server.
        raise LabelerError("%(name)s cannot be read: %(reason)s", name=path, reason=error) from error
    if not isinstance(found, dict):
        raise LabelerError("%(file)s must hold one JSON object", file=path)
    return found
