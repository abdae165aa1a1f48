"""What a server takes: recorded from earlier, learned from its refusals, or found out with one call."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from labeler.backends.openai.answers import Refusal
from labeler.errors import SettingError

FORMATS = ("json_schema", "json_object", "none")
TOKEN_NAMES = ("max_tokens", "max_completion_tokens")
SETTINGS = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop")
TOP_LOGPROBS = (20, 5)
"""How many alternatives to a token are asked for: the most that OpenAI takes, then the most that others do."""

_LOGPROBS = ("logprobs", "top_logprobs")
_OPTIONAL = ("response_format", *TOKEN_NAMES, "temperature", "top_p", "top_k", "seed", "stop", *_LOGPROBS)
_UNSUPPORTED = re.compile(
    r"unsupported|not support|n't support|unrecognized|unknown|unexpected|extra_forbidden|extra (input|field)"
    r"|not permitted|not allowed|not available|not enabled|only the default",
    re.IGNORECASE,
)
_FORMAT = re.compile(
    r"response_format|json_schema|json_object|structured.output|guided_|xgrammar|invalid grammar", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one model of one server takes: True, False, or None where nobody knows yet.

    A setting is taken when the server does not refuse it; some ignore what they do not know, and nothing tells.
    ``json_schema``, ``json_object`` and ``logprobs`` are True only where the answer showed it. ``top_logprobs`` is
    how many alternatives may be asked for; ``max_tokens_name`` is the server's name of that setting, empty where it
    takes neither. ``context`` is how many tokens a prompt and its answer may have together, as the server said, and
    ``slots`` how many calls it answers at once. ``usage`` says whether it counts the tokens of an answer, ``thinks``
    whether the model thinks before it answers, which takes tokens of the answer.
    """

    json_schema: bool | None = None
    json_object: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    temperature: bool | None = None
    top_p: bool | None = None
    top_k: bool | None = None
    seed: bool | None = None
    stop: bool | None = None
    max_tokens_name: str | None = None
    context: int | None = None
    slots: int | None = None
    usage: bool | None = None
    thinks: bool | None = None

    def takes(self, setting: str) -> bool | None:
        """Say whether a setting of :class:`~labeler.records.Generation` is taken, by its name there."""
        if setting == "max_tokens":
            return None if self.max_tokens_name is None else bool(self.max_tokens_name)
        found: bool | None = getattr(self, setting)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return what is known; what is not, is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, raw: Any) -> Capabilities:
        """Read what :meth:`to_json` wrote. Raises :class:`SettingError` naming the field."""
        if not isinstance(raw, dict):
            raise SettingError("The capabilities of a server must be an object, not %(value)r", value=str(raw)[:60])
        for name, value in raw.items():
            if not _is_valid(name, value):
                raise SettingError(
                    "The capability %(name)r cannot be %(value)r; test the connection again",
                    name=str(name)[:40],
                    value=str(value)[:40],
                )
        return cls(**raw)


def _is_valid(name: str, value: Any) -> bool:
    if name == "max_tokens_name":
        return value is None or value in ("", *TOKEN_NAMES)
    if name == "top_logprobs":
        return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 20)
    if name in ("context", "slots"):
        return value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0)
    return name in {field.name for field in fields(Capabilities)} and isinstance(value, bool | None)


class Knowledge:
    """What is known of a server by now. Threads share it; what was refused stays refused, in any order."""

    def __init__(self, known: Capabilities, structured: str = "auto") -> None:
        self.now = known
        self.structured = structured
        self._lock = threading.Lock()
        # By task: one server may refuse the schema of one task and take that of another.
        self._formats: dict[str, int] = {}

    def format(self, task: str) -> str:
        """Return the one of FORMATS to ask for."""
        if self.structured != "auto":
            return self.structured
        found = self._formats.get(task, 0)
        if found == 0 and self.now.json_schema is False:
            found = 1
        if found == 1 and self.now.json_object is False:
            found = 2
        return FORMATS[found]

    def learn(self, body: Mapping[str, Any], task: str, refusal: Refusal) -> bool:
        """Remember what ``refusal`` says about a parameter in ``body``; return whether another try makes sense."""
        name = refused_parameter(body, refusal)
        if name is None or (name == "response_format" and self.structured != "auto"):
            return False
        with self._lock:
            if name == "response_format":
                refused = FORMATS.index(body[name]["type"])
                self._formats[task] = max(self._formats.get(task, 0), refused + 1)
            elif name in _LOGPROBS:
                self._learn_logprobs(body, name, refusal)
            elif name in TOKEN_NAMES:
                self.now = replace(self.now, max_tokens_name=(*TOKEN_NAMES[1:], "")[TOKEN_NAMES.index(name)])
            else:
                refused_setting: dict[str, Any] = {name: False}
                self.now = replace(self.now, **refused_setting)
        return True

    def _learn_logprobs(self, body: Mapping[str, Any], name: str, refusal: Refusal) -> None:
        few = TOP_LOGPROBS[-1]
        too_many = name == "top_logprobs" or not _UNSUPPORTED.search(refusal.said)
        if body["top_logprobs"] > few and too_many:
            self.now = replace(self.now, top_logprobs=few)
        else:
            self.now = replace(self.now, logprobs=False, top_logprobs=None)

    def accept(self, options: Mapping[str, Any]) -> None:
        """Remember that the server took ``options``, those of an answered call."""
        if _accepted(self.now, options) is not self.now:
            with self._lock:
                self.now = _accepted(self.now, options)

    def accept_logprobs(self, came: bool, options: Mapping[str, Any]) -> None:
        """Remember whether log probabilities came where they were asked for."""
        if self.now.logprobs is None:
            with self._lock:
                most = (self.now.top_logprobs or options["top_logprobs"]) if came else None
                self.now = replace(self.now, logprobs=came, top_logprobs=most)

    def accept_listed(self, context: int | None, slots: int | None) -> None:
        """Remember the context and the slots that the server lists for the model; None where it lists none."""
        with self._lock:
            self.now = replace(self.now, context=context, slots=slots)

    def accept_answer(self, counted: bool, thoughts: bool) -> None:
        """Remember whether an answer came with its count of tokens, and whether the model thought before it."""
        # A model that thought once may do so again.
        thinks = thoughts or bool(self.now.thinks)
        if (self.now.usage, self.now.thinks) != (counted, thinks):
            with self._lock:
                self.now = replace(self.now, usage=counted, thinks=thinks)

    def learn_context(self, refusal: Refusal) -> None:
        """Remember the context that the refusal of a long prompt names; what was known before may be of another start.

        None where the refusal names none.
        """
        tokens = None if refusal.too_long is None else refusal.too_long.context
        if tokens is not None and tokens != self.now.context:
            with self._lock:
                self.now = replace(self.now, context=tokens)

    def accept_formats(self, task: str, is_json: bool, fits: bool) -> None:
        """Remember what the answer to a tiny schema shows; :func:`probe` alone can tell."""
        asked = FORMATS.index(self.format(task))
        with self._lock:
            self.now = replace(
                self.now,
                json_schema=fits if asked == 0 else False,
                json_object=None if asked == 0 else is_json if asked == 1 else False,
            )
            self._formats.pop(task, None)


def _accepted(known: Capabilities, options: Mapping[str, Any]) -> Capabilities:
    new: dict[str, Any] = {name: True for name in SETTINGS[1:] if name in options and getattr(known, name) is None}
    if known.max_tokens_name is None:
        new |= next(({"max_tokens_name": name} for name in TOKEN_NAMES if name in options), {})
    return replace(known, **new) if new else known


def refused_parameter(body: Mapping[str, Any], refusal: Refusal) -> str | None:
    """Return the name of the parameter of ``body`` that a refusal calls unsupported, or None.

    A refused *value* (max_tokens too large) is not unsupported: leaving it out would hide a mistake. Nobody chose
    how many log probabilities to ask for, so those are left out for whatever reason.
    """
    sent = [name for name in _OPTIONAL if name in body]
    if refusal.status == 403:
        # OpenAI forbids log probabilities to whole families of models that way.
        return "logprobs" if "logprobs" in sent and "logprobs" in refusal.said.lower() else None
    if refusal.status not in (400, 422):
        return None
    named = re.split(r"[.\[]", refusal.param)[0]
    unsupported = bool(_UNSUPPORTED.search(refusal.said)) or any("unsupported" in code for code in refusal.codes)
    if named in sent and (unsupported or named in ("response_format", *_LOGPROBS)):
        return named
    about_format = _FORMAT.search(refusal.said) if "response_format" in sent else None
    mentioned = [(match.start(), name) for name in sent if (match := _mention(name).search(refusal.said))]
    about_logprobs = [(place, name) for place, name in mentioned if name in _LOGPROBS]
    if about_format and not (about_logprobs and min(about_logprobs)[0] < about_format.start()):
        return "response_format"
    if named and named not in _OPTIONAL and not about_logprobs:
        return None
    if unsupported and not named and mentioned:
        # Where two are named, the first is the culprit: "'max_tokens' is not supported. Use 'max_completion_tokens'".
        return min(mentioned)[1]
    return min(about_logprobs)[1] if about_logprobs and not named else None


def speaks_of_format(refusal: Refusal) -> bool:
    return bool(_FORMAT.search(f"{refusal.param} {refusal.said}"))


def _mention(name: str) -> re.Pattern[str]:
    # "stop" and "seed" are words of every day: only quoted, or after a colon, they are names.
    before = r"(?:['\"`]|: ?)" if name in ("stop", "seed") else r"\b"
    return re.compile(rf"{before}{name}\b", re.IGNORECASE if name in _LOGPROBS else 0)
