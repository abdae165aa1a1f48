"""The settings as fields of forms: in groups that a person can read, shown and read back by their kind.

The tables of :mod:`labeler.settings` decide which fields there are. A setting that stands in no group here is shown in
a last one, so that a new setting appears by itself, under the name that the command line gives it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import g, request

from labeler import accounts, strictjson
from labeler import settings as tables
from labeler.errors import Forbidden, InputError
from labeler.prompts import LANGUAGES
from labeler.sentence import N_, Sentence
from labeler.settings import TABLES, Setting
from labeler.web.forms import text, texts
from labeler.web.words import known_settings, setting_of

_LONGEST, _LONGEST_TEXT = 500, 50_000
# Kept in the form and not stripped: what ends an answer may be a line break.
_ESCAPED = "stop"

Option = tuple[str, str]
"""A value and its words for people."""


@dataclass(frozen=True, slots=True)
class Group:
    """Some settings under one heading. A folded one opens by a click: few need it."""

    title: str
    names: tuple[str, ...]
    about: str = ""
    folded: bool = False


def _of(name: str) -> tuple[str, ...]:
    return tuple(setting.name for table in TABLES.values() for setting in table if setting.group == name)


GROUPS: Mapping[str, tuple[Group, ...]] = {
    "project": (
        Group(N_("Tasks"), _of("tasks"), N_("A task that you remove keeps its labels; it is only hidden")),
        Group(N_("Finding examples"), _of("examples")),
        Group(
            N_("Columns of the records"),
            _of("columns"),
            N_(
                "As long as nothing is chosen here, people see every column, but none on a blind record, and the model "
                "sees none."
            ),
        ),
        Group(N_("Queue"), _of("queue")),
        Group(
            N_("Team"),
            _of("team"),
            N_(
                "Where several people decide on a record, what more than half of them say counts; what they disagree "
                "on goes to an adjudicator. What is decided already stays as it is."
            ),
        ),
        Group(
            N_("Budgets"), _of("budgets"), N_("No new call starts once one of them is reached. Empty means no limit.")
        ),
    ),
    "task": (
        Group(N_("What is asked"), _of("asked")),
        Group(N_("Examples"), _of("shown")),
        Group(N_("Model"), _of("model")),
        Group(N_("Way of prompting"), _of("prompting")),
        Group(
            N_("Generation"),
            _of("generation"),
            N_("A backend refuses settings that it does not support before a run starts"),
            True,
        ),
        Group(
            N_("Local weights"),
            _of("weights"),
            N_("For the backend transformers: models that run on this computer."),
            True,
        ),
        Group(N_("Pace and budget"), _of("pace")),
    ),
    "instance": (
        Group(
            N_("OpenAI-compatible server"),
            _of("server"),
            N_("OpenAI, or your own server (vLLM, llama.cpp, Ollama ...). Without one, the free backends still work."),
        ),
        Group(
            N_("Model on this computer"),
            _of("local"),
            N_("Local weights cost no fee; they use the processor and memory of this computer."),
        ),
        Group(
            N_("Limits and resending"),
            _of("limits"),
            N_("All processes share one pace per server. Leave a field empty to learn it from the server's answers."),
            True,
        ),
        Group(
            N_("Signing in with the account of a company"),
            _of("sign_in"),
            N_("Keycloak, Google, Entra ID, Okta and others, by OpenID Connect. Passwords and links work as before."),
            True,
        ),
    ),
}
_REST = Group(N_("More settings"), (), folded=True)

# A run has settings of its own on top of its task's. What a task asks is not one of them, and the budget of a run
# stands beside its number of records.
_NOT_OF_A_RUN = (
    "guidelines",
    "labels",
    "unit",
    "pinned",
    "persona",
    "answer_wording",
    "short_guidelines",
    "budget",
    "backend",
)
RUN_GROUPS = (
    Group(
        N_("Model and prompt"), ("model_id", "style", "k", "retriever", "answering", "calibrate", "trial", "executor")
    ),
    Group(N_("Several calls for one record"), ("mode", "cascade_score", "samples", "joint")),
    *GROUPS["task"][4:6],
    Group(N_("Pace"), ("concurrency", "max_tries")),
)
RUN = tuple(setting for setting in tables.TASK if setting.name not in _NOT_OF_A_RUN)


@dataclass(frozen=True, slots=True)
class Form:
    """What the template needs to show fields.

    ``options`` are the choices of settings that the table does not list, ``empty`` the words for "not set" of those
    that may be left so, ``hints`` what stands in an empty box. ``wrong`` is the setting that could not be saved.
    ``inherits`` is True where an empty field means what the task's settings say. ``seen`` goes into a hidden field.
    """

    values: Mapping[str, Any]
    options: Mapping[str, Sequence[Option]] = field(default_factory=dict)
    empty: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, Any] = field(default_factory=dict)
    wrong: str = ""
    inherits: bool = False
    seen: str = ""

    def shown(self, setting: Setting) -> Any:
        """Return the value as the field holds it: text, or a list of texts where there are boxes to tick."""
        value = self.values.get(setting.name)
        if setting.kind == "list":
            lines = [str(line) for line in value or ()]
            if setting.name in self.options:
                return lines
            return "\n".join(line.replace("\n", "\\n") if setting.name == _ESCAPED else line for line in lines)
        if setting.kind == "map":
            return value or {}
        if setting.kind == "bool":
            return value if value in (None, "") else str(value).lower() in ("1", "true", "on", "yes")
        return _short(value)

    def locked(self, setting: Setting) -> bool:
        """Whether the person sees the value and may not change it."""
        return not may_change(setting)

    def hint(self, setting: Setting) -> Any:
        """Return what stands in the empty field; by language for a setting that has one field for each."""
        found = self.hints.get(setting.name)
        if setting.kind == "map":
            return found or {}
        return "\n".join(found or ()) if setting.kind == "list" else _short(found)

    def choices(self, setting: Setting) -> Sequence[Option] | None:
        """Return what may be chosen, in words; None where anything may be entered."""
        if setting.name in self.options:
            return self.options[setting.name]
        return options_of(setting) if setting.choices else None

    def changed(self, group: Group) -> bool:
        """Whether a setting of the group is not as it would be if nobody had touched it, or is wrong."""
        touched = {n for n in group.names if self.values.get(n) not in (None, "", [], {}, default_of(n, self.inherits))}
        return bool(touched) or self.wrong in group.names


def _short(value: Any) -> str:
    return "" if value is None else str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def default_of(name: str, inherits: bool = False) -> Any:
    """Return a setting's default; with ``inherits`` that of a run, which is to have no value of its own."""
    return None if inherits else next((s.default for table in TABLES.values() for s in table if s.name == name), None)


def grouped(settings: Sequence[Setting], groups: Sequence[Group]) -> list[tuple[Group, list[Setting]]]:
    """Return the groups with their settings; what stands in none comes last, in a group of its own."""
    known = {setting.name: setting for setting in settings}
    found = [(group, [known.pop(name) for name in group.names if name in known]) for group in groups]
    if known:
        found.append((Group(_REST.title, tuple(known), folded=True), list(known.values())))
    return [(group, members) for group, members in found if members]


def typed(settings: Sequence[Setting]) -> dict[str, Any]:
    """Return what the form of the request says of the settings that it has fields for, as it was typed.

    A field that is not in the form says nothing. Raises :class:`InputError` that names a text no setting can hold, and
    :class:`Forbidden` for a setting that the person may not change.
    """
    given = [setting for setting in settings if _is_there(setting)]
    for setting in given:
        if not may_change(setting):
            raise Forbidden("Only an admin of the instance may change %(setting)s", setting=setting.name)
    return {setting.name: _typed(setting) for setting in given}


def may_change(setting: Setting) -> bool:
    """Whether the person may change a setting on a page whose other settings they may change."""
    return not setting.reserved or g.person["role"] == accounts.ADMIN


def seen(shown: Mapping[str, Any]) -> str:
    """Return what the hidden field ``seen`` of a form carries: the settings that the form was shown with, as JSON.

    A form that comes back with an error keeps those that it began with.
    """
    return request.form.get("seen") or strictjson.dumps(dict(shown))


def were_seen() -> dict[str, Any] | None:
    """Return the settings that the form of the request was shown with, None if it does not say."""
    raw = request.form.get("seen")
    found = strictjson.loads(raw) if raw else None
    if found is not None and not isinstance(found, dict):
        raise InputError("This form cannot be read; load the page again")
    return found


def changed(table: tables.Table, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a person changed in the form: what they left as they saw it must not undo another's change."""
    before = were_seen()
    names = given if before is None else tables.differing(table, given, before)
    return {name: given[name] for name in names}


def _is_there(setting: Setting) -> bool:
    if setting.kind == "map":
        return any(f"{setting.name}.{language}" in request.form for language in LANGUAGES)
    return setting.kind != "labels" and setting.name in request.form


def _typed(setting: Setting) -> Any:
    name = setting.name
    if setting.kind == "bool":
        # Before each box stands a hidden 0, because a box that is not ticked is not sent.
        return texts(name)[-1]
    if name in tables.COLUMNS:
        # The names are the file's own; a browser sends every line break as two characters.
        return [value.replace("\r\n", "\n") for value in request.form.getlist(name) if value]
    if setting.kind == "list":
        lines = [line.strip() for value in texts(name) for line in value.split("\n")]
        return [line.replace("\\n", "\n") if name == _ESCAPED else line for line in lines if line]
    if setting.kind == "map":
        found = {language: text(f"{name}.{language}", _LONGEST_TEXT) for language in LANGUAGES}
        return {language: words for language, words in found.items() if words} or None
    return text(name, _LONGEST) or None


def named_in(message: str) -> str:
    """Return the setting that an error is about, which its sentence names or begins with; or an empty text."""
    found = str(Sentence(message).values.get("setting") or "") or message
    name = re.split(r"\W", found, maxsplit=1)[0]
    return name if name in known_settings() else ""


def options_of(setting: Setting) -> list[Option]:
    """Return the choices of a setting from its table, in words."""
    return [(choice, setting_of(setting.name, choice)) for choice in setting.choices]
