"""What a plugin hands over, checked at the door, so that a mistake is said to its author and not to a reviewer.

First its functions (:func:`check_marks`), then what its ``register_*`` hooks return (:func:`named`).
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from labeler import hookspecs
from labeler.backends.base import BackendFactory
from labeler.errors import DuplicateName, PluginError, SettingError
from labeler.export import TrainingFormat
from labeler.export.files import FILE_NAME
from labeler.export.formats import Format
from labeler.labels.base import maps_texts
from labeler.settings import TABLES, Setting
from labeler.task import Task

HOOKS: Mapping[str, Callable[..., Any]] = {
    name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, "labeler_spec")
}
_MARK = "labeler_impl"
_NAME = re.compile(r"\w[\w.-]*")
_SETTING = re.compile(r"[a-z][a-z0-9_]{0,59}")
# Fields of the form that settings are in.
_FIELDS = ("csrf_token", "forget", "seen")
_SETTING_KINDS = ("int", "float", "bool", "text", "choice")
_SUFFIX = re.compile(r"(\.[\w-]+)+")


def check_marks(plugin: Any) -> None:
    """Raise :class:`PluginError` for a function of a plugin that would never be called, or not as its author thinks."""
    marked = 0
    for name, function in _functions(plugin):
        mark = getattr(function, _MARK, None)
        if mark is not None:
            marked += 1
            _check_mark(name, function, mark)
        elif name in HOOKS:
            raise _at(function, f"{name} has no @hookimpl above it, so it would never be called")
    if not marked:
        raise PluginError("it has no hook; write @hookimpl above a function such as register_tasks")


def _functions(plugin: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a plugin itself defines and can be called, by name; what it imported is not its own."""
    own = getattr(plugin, "__name__", None)
    for name in dir(plugin):
        function = inspect.getattr_static(plugin, name)
        # Not asked of anything else: what is imported may be a proxy that answers inside of a request only.
        if inspect.isroutine(function) and (hasattr(function, _MARK) or getattr(function, "__module__", own) == own):
            yield name, function


def _check_mark(name: str, function: Any, mark: Mapping[str, Any]) -> None:
    hook = mark["specname"] or name
    if mark["wrapper"] or mark["hookwrapper"]:
        raise _at(function, f"{name} is a wrapper; Labeler calls the hooks one by one, so write a plain function")
    if hook not in HOOKS:
        near = difflib.get_close_matches(hook, HOOKS, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(HOOKS))}"
        raise _at(function, f"unknown hook {hook!r}; {hint}")
    takes = list(inspect.signature(HOOKS[hook]).parameters)
    # A plugin that is an object has methods.
    strange = [given for given in inspect.signature(function).parameters if given not in (*takes, "self")]
    if strange:
        raise _at(function, f"{name} takes {strange[0]!r}; {hook} is called with {', '.join(takes) or 'no arguments'}")


def named(hook: str, returned: Any) -> dict[str, Any]:
    """Return what a ``register_*`` hook returned, by name. Raises :class:`PluginError` that says what is wrong."""
    kind = hook.removeprefix("register_")
    if not isinstance(returned, (list, tuple)):
        raise PluginError(f"{hook} must return a list, not {_shown(returned)}")
    found: dict[str, Any] = {}
    for item in returned:
        key, value = _CHECKS[kind](hook, item)
        if key in found:
            raise DuplicateName(f"it registers the {kind[:-1]} {key!r} twice")
        found[key] = value
    return found


def _task(hook: str, item: Any) -> tuple[str, Any]:
    if not isinstance(item, Task):
        raise PluginError(f"{hook} must return Task objects, not {_shown(item)}")
    return item.name, item


def _factory(hook: str, item: Any) -> tuple[str, Any]:
    name = _name(hook, getattr(item, "name", None), item)
    if isinstance(item, type):
        raise PluginError(f"{hook} must return objects, and {item.__name__} is a class; write {item.__name__}()")
    if not isinstance(item, BackendFactory):
        raise PluginError(f"the backend {name!r} must be made by an object that derives from BackendFactory")
    if isinstance(item.options, str) or not all(isinstance(option, str) for option in item.options):
        raise PluginError(f"options of the backend {name!r} must be a tuple of names, like ('model_id',)")
    return name, item


def _pair(hook: str, item: Any) -> tuple[str, Any]:
    name, made = item if isinstance(item, tuple) and len(item) == 2 else (None, None)
    if not isinstance(name, str) or not callable(made):
        raise PluginError(f"{hook} must return pairs of a name and a function, not {str(item)[:60]}")
    return _name(hook, name, item), made


def _reader(hook: str, item: Any) -> tuple[str, Any]:
    suffix, reader = item if isinstance(item, tuple) and len(item) == 2 else (None, None)
    if not isinstance(suffix, str) or not callable(reader):
        raise PluginError(f"{hook} must return pairs of a suffix and a function, not {str(item)[:60]}")
    if not _SUFFIX.fullmatch(suffix):
        raise PluginError(f"the suffix {suffix!r} must begin with a dot, like '.sav'")
    return suffix.lower(), reader


def _format(hook: str, item: Any) -> tuple[str, Any]:
    name = _name(hook, getattr(item, "name", None), item)
    if isinstance(item, type):
        raise PluginError(f"{hook} must return objects, and {item.__name__} is a class; write {item.__name__}()")
    if not isinstance(item, Format):
        raise PluginError(f"the export format {name!r} must derive from {TrainingFormat.__name__}")
    suffix = getattr(item, "suffix", None)
    if not isinstance(suffix, str) or not FILE_NAME.fullmatch(f"train{suffix}"):
        raise PluginError(f"the export format {name!r} needs a suffix that begins with a dot, like '.jsonl'")
    if not isinstance(getattr(item, "description", None), str):
        raise PluginError(f"the export format {name!r} needs a description: one line for people")
    return name, item


def _setting(hook: str, item: Any) -> tuple[str, Any]:
    if not isinstance(item, Setting):
        raise PluginError(f"{hook} must return Setting objects, not {_shown(item)}")
    if not isinstance(item.name, str) or not _SETTING.fullmatch(item.name):
        raise PluginError(f"the name of the setting {str(item.name)[:40]!r} must be lower-case letters, digits and _")
    if item.name in _FIELDS or any(item.name == known.name for table in TABLES.values() for known in table):
        raise DuplicateName(f"Labeler has a setting {item.name!r} of its own; begin the name with that of the plugin")
    if item.kind not in _SETTING_KINDS:
        kinds = ", ".join(_SETTING_KINDS)
        raise PluginError(f"the setting {item.name!r} has the kind {item.kind!r}; there are: {kinds}")
    for what in ("title", "help"):
        if not isinstance(getattr(item, what), str) and not maps_texts(getattr(item, what)):
            raise PluginError(f"the {what} of the setting {item.name!r} must be a text, or map languages to texts")
    _check_values(item)
    return item.name, item


def _check_values(item: Setting) -> None:
    """Raise :class:`PluginError` for bounds, choices or a default that no value could be checked by."""
    if not all(bound is None or isinstance(bound, (int, float)) for bound in (item.low, item.high)):
        raise PluginError(f"the bounds of the setting {item.name!r} must be numbers")
    texts = isinstance(item.choices, (tuple, list)) and all(isinstance(choice, str) for choice in item.choices)
    if not texts or bool(item.choices) != (item.kind == "choice"):
        raise PluginError(
            f"the choices of the setting {item.name!r} must be texts, and only the kind 'choice' has some"
        )
    try:
        read = item.read(item.default)
    except SettingError as error:
        raise PluginError(f"the default of the setting {item.name!r} does not fit: {error}") from error
    if read != item.default:
        raise PluginError(f"the default of the setting {item.name!r} is {item.default!r}; write {read!r}")


def _widget(hook: str, item: Any) -> tuple[str, Any]:
    name, folder = item if isinstance(item, tuple) and len(item) == 2 else (None, None)
    if not isinstance(name, str):
        raise PluginError(f"{hook} must return pairs of a name and a folder, not {str(item)[:60]}")
    return name, folder


def _catalogue(hook: str, item: Any) -> tuple[str, Any]:
    name, folder = item if isinstance(item, tuple) and len(item) == 2 else (None, None)
    if not isinstance(name, str) or not isinstance(folder, Path):
        raise PluginError(f"{hook} must return pairs of a name and a folder, not {str(item)[:60]}")
    if name == "messages":
        raise DuplicateName("Labeler has a catalogue 'messages' of its own; call yours as the plugin is called")
    if ";" in str(folder):
        raise PluginError(f"the folder {folder} has a semicolon in its path, and catalogues are not found there")
    if not any(folder.glob(f"*/LC_MESSAGES/{name}.mo")):
        raise PluginError(f"the folder {folder.name} has no ko/LC_MESSAGES/{name}.mo; make it with pybabel compile")
    return _name(hook, name, item), folder


_CHECKS: Mapping[str, Callable[[str, Any], tuple[str, Any]]] = {
    "widgets": _widget, "translations": _catalogue, "tasks": _task, "backends": _factory, "embedders": _pair,
    "retrievers": _pair, "importers": _reader, "exporters": _format, "executors": _pair, "settings": _setting,
}  # fmt: skip
REGISTERS = tuple(_CHECKS)
"""What plugins register, in the order in which it is asked for."""


def _name(hook: str, name: Any, item: Any) -> str:
    if not isinstance(name, str) or not name:
        raise PluginError(f"{hook} returned something without a name: {str(item)[:80]}")
    if not _NAME.fullmatch(name):
        raise PluginError(f"the name {name[:40]!r} must be letters, digits, _, - and dots")
    return name


def _shown(item: Any) -> str:
    """Return what a thing is, in a word or two: a class by its name, anything else by its type."""
    return f"the class {item.__name__}" if isinstance(item, type) else type(item).__name__


def _at(function: Any, message: str) -> PluginError:
    error = PluginError(message)
    error.line = line_of(function)
    return error


def line_of(function: Any) -> int | None:
    """Return the line where a function begins, None for what has none."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else int(code.co_firstlineno)
