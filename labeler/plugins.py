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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from labeler import hookspecs
from labeler.backends.base import BackendFactory
from labeler.errors import DuplicateName, LabelerError, NotFound, PluginError
from labeler.labels import KINDS
from labeler.records import Record, Value
from labeler.retrieval.retrievers import RetrieverFactory
from labeler.task import Task

if TYPE_CHECKING:
    import click
    from flask import Blueprint

T = TypeVar("T")
_PATIENCE = 10.0
_OWN = "instance/plugins/"
_WIDGET = re.compile("[a-z][a-z0-9_]{0,39}")
_REGISTERS = ("widgets", "tasks", "backends", "embedders", "retrievers", "importers", "exporters", "executors")


@dataclass(frozen=True, slots=True)
class Disabled:
    """A plugin that was left out: its name, one sentence why, and the trace for the log."""

    name: str
    reason: str
    trace: str = ""


@dataclass
class Plugins:
    """What all plugins of one app registered, by name."""

    widgets: dict[str, Path] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    backends: dict[str, BackendFactory] = field(default_factory=dict)
    embedders: dict[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    retrievers: dict[str, RetrieverFactory] = field(default_factory=dict)
    importers: dict[str, Any] = field(default_factory=dict)
    exporters: dict[str, Any] = field(default_factory=dict)
    executors: dict[str, Any] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    disabled: list[Disabled] = field(default_factory=list)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager("labeler"))
    patience: float = _PATIENCE

    def task(self, name: str) -> Task:
        return find(self.tasks, name, "task")

    @property
    def prepare_records(self) -> bool:
        return bool(self.manager.hook.prepare_record.get_hookimpls())

    def prepare(self, record: Record) -> Record | str:
        """Run every ``prepare_record`` hook in turn; a text says why the record is refused.

        A hook that raises or returns anything else refuses the record too: what it was to clean must not slip in.
        Raises :class:`PluginError` for one that hangs.
        """
        for implementation in self.manager.hook.prepare_record.get_hookimpls():
            name = implementation.plugin_name
            try:
                result = self._call(implementation, {"record": record})
            except PluginHangs as error:
                raise PluginError(f"The plugin {name} hangs in prepare_record: {error}; mend or remove it") from error
            except Exception as error:
                return f"the plugin {name} failed on it: {_shown(error)}"
            if isinstance(result, str):
                return result
            if result is not None and not isinstance(result, Record):
                return f"the plugin {name} made it a {type(result).__name__}, not a Record"
            record = record if result is None else result
        return record

    @property
    def hear_approvals(self) -> bool:
        return bool(self.manager.hook.label_approved.get_hookimpls())

    def approved(self, project: str, task: str, record: Record, value: Value) -> list[Disabled]:
        """Tell every ``label_approved`` hook; return those that failed, for the log. One that hangs is disabled."""
        arguments = {"project": project, "task": task, "record": record, "value": value}
        failed = []
        for implementation in self.manager.hook.label_approved.get_hookimpls():
            try:
                self._call(implementation, arguments)
            except Exception as error:
                failed.append(Disabled(implementation.plugin_name, _shown(error), traceback.format_exc()))
                if isinstance(error, PluginHangs):
                    self._disable(implementation, error)
        return failed

    def blueprints(self, taken: Collection[str] = ()) -> list[Blueprint]:
        """Return the blueprints of plugins whose names are not ``taken``; a plugin that fails is disabled."""
        from flask import Blueprint

        found: list[Blueprint] = []
        for implementation in self.manager.hook.register_blueprints.get_hookimpls():
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
        for implementation in self.manager.hook.register_commands.get_hookimpls():
            try:
                self._call(implementation, {"cli": cli})
            except Exception as error:
                self._disable(implementation, error)

    def _call(self, implementation: pluggy.HookImpl, arguments: Mapping[str, Any]) -> Any:
        given = [arguments[name] for name in implementation.argnames]
        return _within(self.patience, lambda: implementation.function(*given))

    def _disable(self, implementation: pluggy.HookImpl, error: Exception) -> None:
        self.manager.unregister(implementation.plugin)
        self.disabled.append(_disabled(implementation.plugin_name, error))


class PluginHangs(PluginError):
    pass


def find(registry: Mapping[str, T], name: str, what: str) -> T:
    """Return ``registry[name]``. Raises :class:`NotFound` that lists what there is."""
    if name not in registry:
        raise NotFound(f"No {what} {name!r}; loaded: {', '.join(sorted(registry)) or 'none'}")
    return registry[name]


def load_plugins(
    built_in: ModuleType, drop_in: Path | None = None, *, entry_points: bool = True, patience: float = _PATIENCE
) -> Plugins:
    """Load everything and return it. ``patience`` is how many seconds a plugin may take to load, and for each hook."""
    plugins = Plugins(patience=patience)
    plugins.manager.add_hookspecs(hookspecs)
    plugins.owners.update({("widgets", kind.widget): "labeler" for kind in KINDS})
    sources: list[tuple[str, Callable[[], Any]]] = [("labeler.built_in", lambda: built_in)]
    sources += [(name, lambda name=name: importlib.import_module(name)) for name in _shipped()]  # type: ignore[misc]
    if entry_points:
        sources += [(entry.name, entry.load) for entry in metadata.entry_points(group="labeler")]
    for path in sorted(drop_in.glob("*.py")) if drop_in is not None and drop_in.is_dir() else []:
        sources.append((f"{_OWN}{path.name}", lambda path=path: _load_own(path)))  # type: ignore[misc]
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
    spec = importlib.util.spec_from_file_location(f"labeler_instance_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _add(plugins: Plugins, name: str, load: Callable[[], Any]) -> None:
    """Load one plugin and take what it registers, all or nothing."""
    plugin = None
    try:
        loaded = _within(plugins.patience, load)
        version = getattr(loaded, "LABELER_API", hookspecs.API_VERSION)
        if version != hookspecs.API_VERSION:
            raise PluginError(f"it was made for plugin API {version}; this Labeler has {hookspecs.API_VERSION}")
        plugins.manager.register(loaded, name=name)
        plugin = loaded
        # pluggy ignores a misspelled hook until somebody asks.
        plugins.manager.check_pending()
        # Another call than the load: what comes back after it was given up on must not register anything.
        found = _within(plugins.patience, lambda: _registered(loaded))
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
        plugins.disabled.append(_disabled(name, error))


def _check_widgets(plugins: Plugins, plugin: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise :class:`PluginError` for a widget without its files, or a task whose widget nobody registered."""
    for widget, folder in found.get("widgets", {}).items():
        if not _WIDGET.fullmatch(widget) or not isinstance(folder, Path):
            raise PluginError(f"the widget {widget!r} must be named in lower-case letters, digits and _, with a Path")
        for file in (f"{widget}.html", f"{widget}.js"):
            if not (folder / file).is_file():
                raise PluginError(f"the widget {widget!r} has no {file} in {folder}")
        if plugin.startswith(_OWN):
            # Templates are programs, as plugins are.
            _check_owners([folder, *folder.glob(f"{widget}.*")])
    known = {*found.get("widgets", ()), *(name for kind, name in plugins.owners if kind == "widgets")}
    for name, task in found.get("tasks", {}).items():
        unknown = next((widget for widget in task.schema.widgets if widget not in known), None)
        if unknown is not None:
            raise PluginError(f"the task {name!r} has the widget {unknown!r}, which no plugin before it registers")


def _disabled(name: str, error: Exception) -> Disabled:
    """Say why a plugin is disabled. Called where ``error`` is being handled."""
    return Disabled(name, " ".join(_shown(error).split()), traceback.format_exc())


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


def _registered(plugin: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind in _REGISTERS:
        function = getattr(plugin, f"register_{kind}", None)
        if function is not None and getattr(function, "labeler_impl", None) is not None:
            if inspect.signature(function).parameters:
                raise PluginError(f"register_{kind} takes no arguments")
            found[kind] = _named(kind, function())
    return found


def _named(kind: str, returned: Any) -> dict[str, Any]:
    if not isinstance(returned, (list, tuple)):
        raise PluginError(f"register_{kind} must return a list, not {type(returned).__name__}")
    named: dict[str, Any] = {}
    for item in returned:
        if kind == "tasks" and not isinstance(item, Task):
            raise PluginError(f"register_tasks must return Task objects, not {type(item).__name__}")
        key, value = item if isinstance(item, tuple) else (getattr(item, "name", None), item)
        if not isinstance(key, str) or not key:
            raise PluginError(f"register_{kind} returned something without a name: {str(item)[:80]}")
        if key in named:
            raise DuplicateName(f"it registers the {kind[:-1]} {key!r} twice")
        named[key] = value
    return named
