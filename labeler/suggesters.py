"""How a suggester is made: a backend, and the settings of a task with those of one run on top.

It is made from the examples of an open instance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from labeler import strictjson
from labeler.backends.base import Backend, BackendFactory, made_by
from labeler.backends.batches import BatchingBackend
from labeler.backends.local.cards import settings_of
from labeler.errors import SettingError
from labeler.examples import Examples
from labeler.export.job import Calls
from labeler.plugins import find
from labeler.prelabel import calibration
from labeler.prelabel.calls import CallPolicy
from labeler.prelabel.meant import FREE
from labeler.prelabel.suggest import Suggester
from labeler.prompts import PromptStyle
from labeler.prompts.styles import ZERO_SHOT
from labeler.records import Generation
from labeler.retrieval.retrievers import Retriever
from labeler.sentence import N_
from labeler.settings import BATCH_EXECUTOR, CASCADE, DIRECT, GENERATION, lease, read_settings, refuse_joint_cascade
from labeler.store import Store
from labeler.store.limits import SetLimits
from labeler.task import Task

if TYPE_CHECKING:
    from labeler.prelabel.calibration import Calibration

# So many backends are kept, those used last: forms name models that nobody asks again.
_KEPT = 16
# So many seconds weights wait for a batch of other weights to end before they are loaded beside them.
_PATIENCE = 60.0


class Suggesters:
    """Makes the suggesters of an open instance, and keeps the backends that were made for them."""

    def __init__(self, opened: Examples) -> None:
        self.opened = opened
        self._lock = threading.RLock()
        # The one used last stands last.
        self._backends: dict[str, Backend] = {}
        # By project, task and free backend, with all that each was made from.
        self._suggesters: dict[tuple[int, str, str], tuple[list[Any], Suggester]] = {}

    # Backends

    def default_backend(self, project: Mapping[str, Any], task: Task, model_id: str = "") -> str:
        """Return the backend that is set up, such as "openai" by a key; else one that can learn, or "nearest".

        ``model_id`` is one that was named for this run alone.
        """
        settings = self.opened.settings
        named = model_id or settings.get("openai_model") or self.opened.task_settings(project, task.name)["model_id"]
        configured = (name for name, one in self.opened.plugins.backends.items() if one.configured(settings))
        if named and (first := next(configured, None)):
            return first
        return "ensemble" if self.opened.ensemble(project, task).supports(task.schema) else "nearest"

    def backend(
        self, project: Mapping[str, Any], task: Task, name: str, options: Mapping[str, Any] | None = None,
        keep: bool = True,
    ) -> Backend:  # fmt: skip
        """Return a backend by name, made once for each set of settings; ``options`` are settings of the task.

        One that is only looked at, for an estimate, is not kept: so it takes nobody's place.
        """
        factory = find(self.opened.plugins.backends, name, "backend")
        settings = self._backend_settings(name, factory, options or {})
        # A server or local weights are the same for every task; what reads examples is made for one.
        place: list[Any] = []
        extra: dict[str, Any] = {}
        if not factory.shared:
            embeddings = self.opened.embeddings(project)
            # Sentences are compared while a page waits: a slow embedder leaves that to the lexical one.
            fast = embeddings if embeddings.embedder.fast else self.opened.lexical_embeddings(project)
            place = [project["id"], task.name, embeddings.embedder.id]
            extra = {"embed": fast.embedder.embed, "index": self.opened.index(project, task)}
            extra["ensemble"] = self.opened.ensemble(project, task)
        key = strictjson.dumps([name, place, settings], sort_keys=True)
        with self._lock:
            found = self._backends.get(key)
            made = found or self._new(factory, settings | extra)
            if keep or found:
                self._keep(key, made)
            return made

    def _keep(self, key: str, made: Backend) -> None:
        """Keep a backend as the one used last; the oldest goes, of weights only to make room for weights."""
        self._backends.pop(key, None)
        self._backends[key] = made
        alike = [one for one, other in self._backends.items() if other.local == made.local]
        if len(alike) > _KEPT:
            self._forget([self._backends.pop(alike[0])])

    def spends(self, project: Mapping[str, Any], task: Task, overrides: Mapping[str, Any] | None = None) -> bool:
        """Whether a run with these settings would be of a billed backend. Makes none to find out.

        A factory that says nothing is taken for one of a server or of weights where it is ``shared``.
        """
        chosen = read_settings("task", {**self.opened.task_settings_raw(project, task.name), **(overrides or {})})
        name = chosen["backend"] or self.default_backend(project, task, chosen["model_id"])
        factory = find(self.opened.plugins.backends, name, "backend")
        return factory.spends

    def _new(self, factory: BackendFactory, settings: Mapping[str, Any]) -> Backend:
        made = made_by(factory, settings)
        if made.local:
            made.before_loading = lambda: self._free_others(made)
        return made

    def _backend_settings(self, name: str, factory: BackendFactory, options: Mapping[str, Any]) -> dict[str, Any]:
        instance = self.opened.in_force
        settings = {
            **instance,
            **factory.own(instance),
            **{option: options.get(option) or None for option in factory.options},
        }  # fmt: skip
        if factory.shared and not factory.local:
            model_id = settings.get("model_id") or settings.get(factory.model_setting) or ""
            settings["capabilities"] = self._known_of(name, factory.address(settings), model_id)
        return settings

    def _known_of(self, backend: str, base_url: str, model_id: str) -> dict[str, Any]:
        """Return what a test of a server's model recorded, with the context that the instance's own file names."""
        known = self.opened.store.models.capabilities(backend, base_url, model_id) or {}
        info = self.opened.model_info(model_id)
        return known | ({"context": info.context} if info is not None and info.own and info.context else {})

    def _free_others(self, mine: Backend) -> None:
        """Free the weights of other local models: two of them seldom fit; one that is used again loads again.

        A batch that is being read is waited for, but not for ever: two that load at once would wait for each other.
        """
        with self._lock:
            others = [one for one in self._backends.values() if one is not mine and one.local]
        if others:
            _close_beside(others).join(_PATIENCE)

    def forget_backends(self) -> None:
        """Let every backend be made again, since the settings of the instance have changed.

        Weights are freed as soon as no batch is being read, without keeping the caller. Connections are not cut: a
        call on its way is paid for; they end with the last run that uses them.
        """
        with self._lock:
            forgotten = list(self._backends.values())
            self._backends.clear()
            self._suggesters.clear()
        self._forget(forgotten)

    def _forget(self, forgotten: Iterable[Backend]) -> None:
        local = [backend for backend in forgotten if (lambda b: b.local)(backend)]
        if local:
            _close_beside(local)

    def close(self) -> None:
        """Close what the backends hold open."""
        _close(self._backends.values())

    # Suggesters

    def suggester(
        self, project: Mapping[str, Any], task: Task, overrides: Mapping[str, Any] | None = None, keep: bool = True
    ) -> Suggester:
        """Return what makes suggestions for a task, with the task's settings and ``overrides`` (of one run) on top.

        ``keep``: see :meth:`backend`.
        """
        given = {name: value for name, value in (overrides or {}).items() if value not in (None, "")}
        raw = self.opened.task_settings_raw(project, task.name)
        settings = read_settings("task", {**raw, **given} if given else raw)
        name = settings["backend"] or self.default_backend(project, task, settings["model_id"])
        if name not in FREE or settings["pinned"]:
            return self._made(project, task, name, settings, raw, given, keep)
        place = int(project["id"]), task.name, name
        # All that it is made from; where nothing of it has changed, what was made before is as good as new.
        ensemble = self.opened.ensemble(project, task)
        grounds = [
            task, raw, given, project["settings"], project["language"], self.opened.settings, ensemble,
            ensemble.trusted, self.opened.index(project, task),
        ]  # fmt: skip
        with self._lock:
            known = self._suggesters.get(place)
        if known is not None and known[0] == grounds:
            return known[1]
        made = self._made(project, task, name, settings, raw, given, keep)
        with self._lock:
            self._suggesters[place] = grounds, made
        return made

    def _made(
        self, project: Mapping[str, Any], task: Task, name: str, settings: Mapping[str, Any], raw: Mapping[str, Any],
        given: Mapping[str, Any], keep: bool,
    ) -> Suggester:  # fmt: skip
        chosen = {**raw, **given}
        backend = self.backend(project, task, name, settings, keep)
        settings = self._as_trained(backend, settings, given, project["language"])
        self._check_executor(name, backend, settings["executor"], given)
        store, project_id = self.opened.store, int(project["id"])
        return Suggester(
            store=store,
            project_id=project_id,
            task=task,
            index=self.opened.index(project, task),
            backend=backend,
            retriever=self._retriever(project, settings, "balanced" if backend.billed else "similar"),
            k=_k(settings, task, backend),
            style=self._style(
                settings,
                backend.asked.get("language", project["language"]),
                tuple(backend.asked.get("columns", self.opened.sent_columns(project, task))),
            )
            if backend.prompted
            else PromptStyle(ZERO_SHOT, project["language"]),
            generation=_generation(task, settings, chosen, backend, given),
            second=self._second_opinions(project, task),
            identity=_identity(backend, settings, find(self.opened.plugins.backends, name, "backend")),
            answering=settings["answering"],
            mode=settings["mode"],
            cascade_score=settings["cascade_score"],
            fixed=self._retriever(project, {**settings, "retriever": "fixed"}, "") if settings["mode"] == CASCADE
            else None,
            calibration_of=_calibrations(store, project_id, task, backend)
            if settings["calibrate"] and name not in FREE and not backend.learns
            else None,
            joint=self._joint(project, task, name, settings, given, keep)
            if backend.prompted and (backend.billed or "joint" in given)
            else {},
            context=info.context if backend.billed and (info := self.opened.price_of(backend)) else None,
            stacks=settings["trial"],
        )  # fmt: skip

    def calls(self, project: Mapping[str, Any], task: Task, asked: Mapping[str, Any] | None = None) -> Calls:
        """Return how the calls of a task are put, for training sets that ask in the same way.

        ``asked`` is what a manifest says of it; it stands over the settings of now.
        """
        asked = asked or {}
        settings = {**self.opened.task_settings(project, task.name), **asked}
        name = settings["retriever"] or "balanced"
        return Calls(
            persona=settings["persona"] or {},
            wording=settings["answer_wording"] or {},
            columns=tuple(asked.get("columns", self.opened.sent_columns(project, task))),
            guidelines=settings["prompt_guidelines"],
            answers=settings["answer_form"],
            names=settings["label_names"],
            retriever=self._retriever(project, settings, name),
            retriever_name=name,
            embeddings=self.opened.embeddings(project),
            others=self.opened.tasks_of(project),
        )

    def _as_trained(
        self, backend: Backend, settings: Mapping[str, Any], given: Mapping[str, Any], language: str
    ) -> Mapping[str, Any]:
        """Return the settings with those that the model was trained with; what was said for this very run stays."""
        if not backend.asked:
            return settings
        asked = {name: value for name, value in settings_of(backend.asked, language).items() if name not in given}
        read = read_settings("task", asked)
        return {**settings, **{name: read[name] for name in asked}}

    def _check_executor(self, name: str, backend: Backend, executor: str, given: Mapping[str, Any]) -> None:
        """Raise :class:`SettingError` for an executor that nobody registered, or that the backend cannot use."""
        find(self.opened.plugins.executors, executor, "executor")
        # As with generation: the settings of a task are also there for the free backends beside its own.
        sent = executor if backend.billed else given.get("executor")
        if sent != BATCH_EXECUTOR:
            return
        if not isinstance(backend, BatchingBackend):
            raise SettingError(
                "The backend %(backend)s has no batches; choose the executor local, or the backend openai", backend=name
            )
        backend.check_batches()

    def _retriever(self, project: Mapping[str, Any], settings: Mapping[str, Any], default: str) -> Retriever:
        factory = find(self.opened.plugins.retrievers, settings["retriever"] or default, "retriever")
        pinned = [self.opened.store.records.by_key(project["id"], key) for key in settings["pinned"]]
        ids = [record.id for record in pinned if record]
        found: Retriever = factory({**self.opened.project_settings(project), **settings, "pinned_ids": ids})
        return found

    def _style(self, settings: Mapping[str, Any], language: str, columns: tuple[str, ...]) -> PromptStyle:
        return PromptStyle(
            settings["style"],
            language,
            persona=(settings["persona"] or {}).get(language, ""),
            wording=(settings["answer_wording"] or {}).get(language, ""),
            samples=settings["samples"],
            secret=b"" if self.opened.read_only else self.opened.secret_key.encode()[:64],
            columns=columns,
            guidelines=settings["prompt_guidelines"],
            answers=settings["answer_form"],
            names=settings["label_names"],
        )

    def _second_opinions(self, project: Mapping[str, Any], task: Task) -> Sequence[Backend]:
        nearest = self.backend(project, task, "nearest")
        ensemble = self.opened.ensemble(project, task)
        return [ensemble, nearest] if ensemble.trusted else [nearest]

    def _joint(
        self, project: Mapping[str, Any], task: Task, backend: str, settings: Mapping[str, Any],
        given: Mapping[str, Any], keep: bool,
    ) -> dict[str, Suggester]:  # fmt: skip
        """Return the suggesters of the tasks that are asked in the same call, with the same backend and model."""
        found: dict[str, Suggester] = {}
        refuse_joint_cascade(settings)
        for name in dict.fromkeys(settings["joint"]):
            other = self.opened.project_task(project, name)
            if name == task.name:
                continue
            if other.unit != task.unit:
                raise SettingError(
                    "The tasks %(a)s and %(b)s cannot be asked together: one labels reviews, the other products",
                    a=task.name,
                    b=name,
                )
            same = {**given, "joint": [], "mode": DIRECT, "backend": backend, "model_id": settings["model_id"]}
            found[name] = self.suggester(project, other, same, keep)
        return found


def _close_beside(backends: Sequence[Backend]) -> threading.Thread:
    """Close backends without keeping the caller; return the thread that does it."""
    thread = threading.Thread(target=_close, args=(backends,), name="labeler-free-weights", daemon=True)
    thread.start()
    return thread


def _close(backends: Iterable[Backend]) -> None:
    for backend in backends:
        backend.close()


def policy(instance: Mapping[str, Any], settings: Mapping[str, Any]) -> CallPolicy:
    """Return the call policy of a run, from the settings of the instance and those of its task."""
    return CallPolicy(
        concurrency=settings["concurrency"],
        max_tries=settings["max_tries"],
        lease=lease(instance),
        limits=SetLimits(instance.get("requests_per_minute"), instance.get("tokens_per_minute")),
    )


def _calibrations(
    store: Store, project_id: int, task: Task, backend: Backend
) -> Callable[[str | None, str], Calibration | None]:
    @cache
    def of(model_id: str | None, prompt_digest: str) -> Calibration | None:
        return calibration.load(store, project_id, task.name, backend.name, model_id, prompt_digest)

    return of


def _identity(backend: Backend, settings: Mapping[str, Any], factory: BackendFactory) -> dict[str, Any]:
    """Return what, beside the messages and the generation, decides an answer."""
    # Where and how fast local weights run changes nothing that is meant.
    options = set(factory.options) - {"model_id", "device", "batch_size"}
    # The backend's own address: OPENAI_BASE_URL may have won over the settings.
    found = {"backend": backend.name, "model": backend.model_id, "base_url": backend.base_url}
    # Other weights may lie under the same name since.
    return (
        found
        | ({"weights": backend.weights} if backend.weights else {})
        | {name: settings.get(name) for name in sorted(options)}
    )


def _k(settings: Mapping[str, Any], task: Task, backend: Backend) -> int:
    """Return how many examples a prompt shows."""
    if not backend.prompted:
        return 0
    return int(settings["k"] if settings["k"] is not None else task.k)


def _generation(
    task: Task, settings: Mapping[str, Any], chosen: Mapping[str, Any], backend: Backend, given: Mapping[str, Any]
) -> Generation:
    """Return the generation settings, and raise :class:`SettingError` for one that the backend does not have.

    A free backend generates nothing: it is told so only where the setting was given for this very run, since the
    settings of a task are also there for its other backends.
    """
    explicit = frozenset(name for name in GENERATION if chosen.get(name) not in (None, "", []))
    known = backend.generation_settings
    if known is None and not backend.billed:
        known = frozenset()
    asked = explicit if backend.billed and backend.prompted else explicit & given.keys()
    strange = sorted(asked - known) if known is not None else []
    if strange:
        named = ", ".join(strange)
        raise SettingError(
            N_("The backend %(backend)s with %(model)s has no setting %(setting)s; clear it, or choose another")
            if backend.model_id
            else N_("The backend %(backend)s has no setting %(setting)s; clear it, or choose another"),
            backend=backend.name,
            model=backend.model_id,
            setting=named,
        )
    return replace(
        task.generation,
        **{name: settings[name] for name in GENERATION if name != "stop"},
        stop=tuple(settings["stop"] or task.generation.stop),
        explicit=explicit,
    )
