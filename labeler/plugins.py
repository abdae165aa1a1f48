"""One plugin manager per app: finds plugins, checks them at the door, and holds what they registered.

Plugins come from the package ``labeler_plugins`` (the folder plugins/), from installed entry points of the group
``labeler``, and from ``instance/plugins/*.py``; the built-in backends, embedders, retrievers and formats enter by
the same door. A plugin that raises, hangs, exits, registers a wrong type or a name that is taken is disabled and
named with its reason; the rest goes on. Hooks that are called later are given the same time and forgiven the same
faults.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from labeler import hookspecs
from labeler.backends.base import BackendFactory
from labeler.door import REGISTERS, check_marks, line_of, named
from labeler.errors import DuplicateName, LabelerError, NotFound, PluginError
from labeler.labels import KINDS
from labeler.records import Record
from labeler.retrieval.retrievers import RetrieverFactory
from labeler.sentence import N_, Sentence
from labeler.settings import Setting
from labeler.task import Task

if TYPE_CHECKING:
    import click
    from flask import Blueprint

T = TypeVar("T")
_PATIENCE = 10.0
_INSTANCE = "instance/plugins/"
_OWN = ("labeler.", "labeler_plugins.")
_WIDGET = re.compile("[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Disabled:
    """A plugin that was left out: its name, one sentence why, and for its author the place in its file and the trace.

    ``where`` is like "spam.py, line 7", empty where nothing of the plugin's own was met.
    """

    name: str
    reason: str
    trace: str = ""
    where: str = ""

    @property
    def said(self) -> str:
        return f"{self.reason} ({self.where})" if self.where else self.reason


@dataclass
class Plugins:
    """What all plugins of one app registered, by name."""

    widgets: dict[str, Path] = field(default_factory=dict)
    translations: dict[str, Path] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    backends: dict[str, BackendFactory] = field(default_factory=dict)
    embedders: dict[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    retrievers: dict[str, RetrieverFactory] = field(default_factory=dict)
    importers: dict[str, Any] = field(default_factory=dict)
    exporters: dict[str, Any] = field(default_factory=dict)
    executors: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Setting] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    disabled: list[Disabled] = field(default_factory=list)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager("labeler"))
    patience: float = _PATIENCE
    given: Callable[[], Mapping[str, Any]] = dict

    def task(self, name: str) -> Task:
        return find(self.tasks, name, "task")

    @property
    def prepare_records(self) -> bool:
        return bool(self.manager.hook.prepare_record.get_hookimpls())

    def prepare(self, project: str, records: Sequence[Record]) -> list[Record | str]:
        """Run every ``prepare_record`` hook in turn on some records; a text says why one is refused.

        A hook that raises or returns anything else refuses the record too: what it was to clean must not slip in.
        Raises :class:`PluginError` for one that hangs.
        """
        prepared: list[Record | str] = list(records)
        for implementation in _in_turn(self.manager.hook.prepare_record):
            prepared = self._prepared(implementation, project, prepared)
        return prepared

    def _prepared(
        self, implementation: pluggy.HookImpl, project: str, records: Sequence[Record | str]
    ) -> list[Record | str]:
        """Run one hook on all records in one thread, as long as each takes less than the patience."""
        name, found = implementation.plugin_name, list[Record | str]()
        known = {"project": project, "settings": self.given()}

        def run() -> None:
            for record in records:
                if isinstance(record, str):
                    found.append(record)
                    continue
                try:
                    given = {**known, "record": record}
                    result = implementation.function(*(given[argument] for argument in implementation.argnames))
                except BaseException as error:
                    said = _shown(error) if isinstance(error, Exception) else f"it raised {_shown(error)}"
                    result = Sentence("the plugin %(name)s failed on it: %(why)s", name=name, why=said)
                if result is None:
                    result = record
                elif not isinstance(result, (str, Record)):
                    kind = type(result).__name__
                    result = Sentence("the plugin %(name)s made it a %(kind)s, not a Record", name=name, kind=kind)
                found.append(result)

        thread = threading.Thread(target=run, name="labeler-plugin", daemon=True)
        thread.start()
        while thread.is_alive():
            before = len(found)
            thread.join(self.patience)
            if thread.is_alive() and len(found) == before:
                late = f"it did not come back within {self.patience:g} seconds"
                raise PluginError(f"The plugin {name} hangs in prepare_record: {late}; mend or remove it")
        return found

    def listeners(self) -> list[pluggy.HookImpl]:
        """Return the ``label_approved`` hooks, in the order in which they are told."""
        return _in_turn(self.manager.hook.label_approved)

    def told(self, listener: pluggy.HookImpl, said: Mapping[str, Any], patience: float) -> str | None:
        """Tell one ``label_approved`` hook, within ``patience`` seconds; return why that failed, None if it did not."""
        try:
            self._call(listener, said, patience)
        except Exception as error:
            return _disabled(listener.plugin_name, error, listener.plugin).said
        return None

    def blamed(self, error: BaseException) -> Disabled | None:
        """Return what a plugin did wrong if ``error`` was raised in its code, for its author; else None."""
        for name, plugin in self.manager.list_name_plugin():
            if plugin is not None and name in self.loaded and not name.startswith(_OWN):
                found = _disabled(name, error, plugin)
                if found.where:
                    return found
        return None

    def blueprints(self, taken: Collection[str] = ()) -> list[Blueprint]:
        """Return the blueprints of plugins whose names are not ``taken``; a plugin that fails is refused."""
        from flask import Blueprint

        found: list[Blueprint] = []
        for implementation in _in_turn(self.manager.hook.register_blueprints):
            try:
                made = self._call(implementation, {})
                if not isinstance(made, (list, tuple)) or not all(isinstance(item, Blueprint) for item in made):
                    raise PluginError("register_blueprints must return a list of Blueprint objects")
                for blueprint in made:
                    if blueprint.name in taken or blueprint.name in [other.name for other in found]:
                        raise DuplicateName(f"there is already a blueprint {blueprint.name!r}")
                found += made
            except Exception as error:
                self._disable(implementation, error)
        return found

    def commands(self, cli: click.Group) -> None:
        """Let plugins add their commands; a plugin that fails is disabled."""
        for implementation in _in_turn(self.manager.hook.register_commands):
            try:
                self._call(implementation, {"cli": cli})
            except Exception as error:
                self._disable(implementation, error)

    def _call(
        self, implementation: pluggy.HookImpl, arguments: Mapping[str, Any], patience: float | None = None
    ) -> Any:
        known = {**arguments, "settings": self.given()}
        given = [known[name] for name in implementation.argnames]
        return _within(patience or self.patience, lambda: implementation.function(*given))

    def _disable(self, implementation: pluggy.HookImpl, error: Exception) -> None:
        self.manager.unregister(implementation.plugin)
        self.disabled.append(_disabled(implementation.plugin_name, error, implementation.plugin))


def _in_turn(hook: pluggy.HookCaller) -> list[pluggy.HookImpl]:
    """Return who is called for a hook: those that asked to be first, then in the order of loading, then the last."""
    return sorted(hook.get_hookimpls(), key=lambda implementation: implementation.trylast - implementation.tryfirst)


class PluginHangs(PluginError):
    pass


_NONE_SUCH = {
    "task": N_("No task %(name)r; loaded: %(names)s"),
    "backend": N_("No backend %(name)r; loaded: %(names)s"),
    "executor": N_("No executor %(name)r; loaded: %(names)s"),
    "retriever": N_("No retriever %(name)r; loaded: %(names)s"),
    "embedder": N_("No embedder %(name)r; loaded: %(names)s"),
}


def find(registry: Mapping[str, T], name: str, what: str) -> T:
    """Return ``registry[name]``. Raises :class:`NotFound` that lists what there is."""
    if name not in registry:
        raise NotFound(_NONE_SUCH[what], name=name, names=", ".join(sorted(registry)) or "none")
    return registry[name]


def load_plugins(
    built_in: ModuleType,
    drop_in: Path | None = None,
    *,
    files: Sequence[Path] = (),
    entry_points: bool = True,
    patience: float = _PATIENCE,
    settings: Callable[[], Mapping[str, Any]] = dict,
) -> Plugins:
    """Load everything and return it: what is built in and installed, all of the folder ``drop_in``, and ``files``.

    ``patience`` is how many seconds a plugin may take to load, and for each hook. ``settings`` returns those of the
    instance, for hooks that take them.
    """
    plugins = Plugins(patience=patience, given=settings)
    plugins.manager.add_hookspecs(hookspecs)
    plugins.owners.update({("widgets", kind.widget): "labeler" for kind in KINDS})
    sources: list[tuple[str, Callable[[], Any]]] = [("labeler.built_in", lambda: built_in)]
    sources += [(name, lambda name=name: importlib.import_module(name)) for name in _shipped()]  # type: ignore[misc]
    if entry_points:
        sources += [(entry.name, entry.load) for entry in metadata.entry_points(group="labeler")]
    for path in sorted(drop_in.glob("[!_]*.py")) if drop_in is not None and drop_in.is_dir() else []:
        sources.append((f"{_INSTANCE}{path.name}", lambda path=path: _load_own(path)))  # type: ignore[misc]
    sources += [(str(path), lambda path=path: _load_file(path)) for path in files]  # type: ignore[misc]
    for name, load in sources:
        _add(plugins, name, load)
    return plugins


def _shipped() -> Iterator[str]:
    import labeler_plugins  # type: ignore[import-not-found,unused-ignore]

    order = {name: place for place, name in enumerate(labeler_plugins.ORDER)}
    names = [module.name for module in pkgutil.iter_modules(labeler_plugins.__path__)]
    for name in sorted(names, key=lambda name: (order.get(name, len(order)), name)):
        yield f"labeler_plugins.{name}"


def _load_own(path: Path) -> ModuleType:
    """Load a plugin of the instance. Raises :class:`PluginError` for one that somebody else could have written."""
    _check_owners([path, path.parent, path.parent.parent])
    return _load_file(path)


def _check_owners(places: Iterable[Path]) -> None:
    for place in places if hasattr(os, "geteuid") else ():
        found = place.stat()
        if found.st_uid not in (0, os.geteuid()):
            raise PluginError(f"{place} belongs to another user; run: chown {os.geteuid()} {place}")
        if found.st_mode & 0o022:
            raise PluginError(f"others can write {place}; run: chmod go-w {place}")


def _load_file(path: Path) -> ModuleType:
    name, within = path.stem, None
    if path.name == "__init__.py":
        name, within = path.parent.name, [str(path.parent)]
    spec = importlib.util.spec_from_file_location(f"labeler_instance_{name}", path, submodule_search_locations=within)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _add(plugins: Plugins, name: str, load: Callable[[], Any]) -> None:
    """Load one plugin and take what it registers, all or nothing."""
    plugin = loaded = None
    try:
        loaded = _within(plugins.patience, load)
        version = getattr(loaded, "LABELER_API", hookspecs.API_VERSION)
        if version != hookspecs.API_VERSION:
            raise PluginError(f"it was made for plugin API {version}; this Labeler has {hookspecs.API_VERSION}")
        check_marks(loaded)
        plugins.manager.register(loaded, name=name)
        plugin = loaded
        # Another call than the load: what comes back after it was given up on must not register anything.
        found = _within(plugins.patience, lambda: _registered(plugins.manager, loaded))
        for kind, entries in found.items():
            for key in entries:
                owner = plugins.owners.get((kind, key))
                if owner is not None:
                    raise DuplicateName(f"the {kind[:-1]} {key!r} is already registered by {owner}")
        _check_widgets(plugins, name, found)
        for kind, entries in found.items():
            getattr(plugins, kind).update(entries)
            plugins.owners.update({(kind, key): name for key in entries})
        plugins.loaded.append(name)
    except Exception as error:
        if plugin is not None:
            plugins.manager.unregister(plugin)
        plugins.disabled.append(_disabled(name, error, loaded))


def _check_widgets(plugins: Plugins, plugin: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise :class:`PluginError` for a widget without its files, or a task whose widget nobody registered."""
    for widget, folder in found.get("widgets", {}).items():
        if not _WIDGET.fullmatch(widget) or not isinstance(folder, Path):
            raise PluginError(f"the widget {widget!r} must be named in lower-case letters, digits and _, with a Path")
        for file in (f"{widget}.html", f"{widget}.js"):
            if not (folder / file).is_file():
                raise PluginError(f"the widget {widget!r} has no {file} in {folder}")
        if plugin.startswith(_INSTANCE):
            # Templates are programs, as plugins are.
            _check_owners([folder, *folder.glob(f"{widget}.*")])
    known = {*found.get("widgets", ()), *(name for kind, name in plugins.owners if kind == "widgets")}
    for name, task in found.get("tasks", {}).items():
        unknown = next((widget for widget in task.schema.widgets if widget not in known), None)
        if unknown is not None:
            raise PluginError(f"the task {name!r} has the widget {unknown!r}, which no plugin before it registers")


def _disabled(name: str, error: BaseException, plugin: Any) -> Disabled:
    """Say why a plugin is disabled. ``plugin`` is None if it did not load."""
    trace = "".join(traceback.format_exception(error))
    return Disabled(name, " ".join(_shown(error).split()), trace, _where(name, error, plugin))


def _where(name: str, error: BaseException, plugin: Any) -> str:
    """Return the line of a plugin's own file where ``error`` was met last, as "spam.py, line 7"."""
    file = getattr(plugin, "__file__", None) or getattr(inspect.getmodule(type(plugin)), "__file__", None)
    # What did not load is known by the name of its file.
    file = file or Path(name).name
    # A package has more files than the one it is imported by.
    place = str(Path(file).parent) if Path(file).name == "__init__.py" else file
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if place in frame.filename]
    if isinstance(error, SyntaxError) and error.filename and (own or plugin is None):
        return f"{Path(error.filename).name}, line {error.lineno}"
    if own:
        return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"
    line = getattr(error, "line", None)
    return "" if line is None else f"{Path(file).name}, line {line}"


def _shown(error: BaseException) -> str:
    if isinstance(error, (LabelerError, pluggy.PluginValidationError)):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _within(seconds: float, work: Callable[[], T]) -> T:
    """Run ``work`` in a thread of its own and give up on it after ``seconds``; an exit becomes a PluginError."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="labeler-plugin", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise PluginHangs(f"it did not come back within {seconds:g} seconds")
    if failure:
        if not isinstance(failure[0], Exception):
            raise PluginError(f"it raised {_shown(failure[0])}") from failure[0]
        raise failure[0]
    return result[0]


def _registered(manager: pluggy.PluginManager, plugin: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind in REGISTERS:
        hook = getattr(manager.hook, f"register_{kind}")
        for implementation in hook.get_hookimpls():
            if implementation.plugin is plugin:
                found[kind] = _checked(hook.name, implementation)
    return found


def _checked(hook: str, implementation: pluggy.HookImpl) -> dict[str, Any]:
    returned = implementation.function()
    try:
        return named(hook, returned)
    except PluginError as error:
        error.line = line_of(implementation.function)
        raise
