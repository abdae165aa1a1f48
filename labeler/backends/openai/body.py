"""What is sent: the JSON body of one chat completion, in the form that the server takes as far as is known.

All calls of a run share everything but their messages, so that part is made and encoded once for each task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from labeler import strictjson
from labeler.backends.base import GENERATED, BackendRequest
from labeler.backends.openai.capabilities import FORMATS, TOKEN_NAMES, TOP_LOGPROBS, Capabilities
from labeler.backends.openai.scores import can_score
from labeler.labels import LabelSchema
from labeler.records import Generation

# What the schemas of strict mode may hold. The rest (minLength, uniqueItems, maxItems ...) is refused by some
# servers and checked by the parser of the task in any case.
_STRICT_KEYWORDS = {"type", "enum", "const", "description", "title", "$ref", "required", "additionalProperties"}


@dataclass(frozen=True, slots=True)
class Form:
    """What all calls of a task have in common: ``options`` for the body, and their JSON in UTF-8.

    ``scored`` says whether scores are asked for, ``bounded`` whether the answer may be as long as its schema needs and
    no longer; the other fields are what the form was made from.
    """

    options: Mapping[str, Any]
    encoded: bytes
    scored: bool
    bounded: bool
    known: Capabilities
    format: str
    json_schema: Mapping[str, Any]
    schema: LabelSchema

    def body(self, request: BackendRequest) -> dict[str, Any]:
        return {**self.options, "messages": list(request.messages)}

    def encode(self, request: BackendRequest) -> bytes:
        """Return :meth:`body` as JSON. Raises ValueError or TypeError for messages that JSON cannot carry."""
        return b'%b,"messages":%b}' % (self.encoded[:-1], strictjson.dumps(request.messages).encode())

    def fits(self, request: BackendRequest, known: Capabilities, format_: str) -> bool:
        """Say whether this form, made for a request with the same settings, is still right for ``request``."""
        same = self.known is known and self.format == format_ and self.schema is request.schema
        return same and (self.json_schema is request.json_schema or self.json_schema == request.json_schema)


class Forms:
    """The forms in use, by task and settings."""

    _MOST = 64

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id
        self._forms: dict[tuple[Any, ...], Form] = {}

    def of(self, request: BackendRequest, known: Capabilities, format_: str) -> Form:
        """Return the form for a request. Raises ValueError for settings that JSON cannot carry (NaN)."""
        key = (request.task, request.answering, request.generation, request.longest)
        form = self._forms.get(key)
        if form is None or not form.fits(request, known, format_):
            form = make_form(self._model_id, request, known, format_)
            if len(self._forms) >= self._MOST:
                self._forms = {}
            self._forms[key] = form
        return form


def make_form(model_id: str, request: BackendRequest, known: Capabilities, format_: str) -> Form:
    """Return the form for a request. ``format_`` is one of FORMATS. Raises ValueError for settings that are NaN."""
    scored = request.answering != GENERATED and known.logprobs is not False and can_score(request.schema)
    options: dict[str, Any] = {"model": model_id}
    if request.json_schema and (answer := _response_format(request.json_schema, request.task, format_)):
        options["response_format"] = answer
    generation = bounded(request, known)
    options |= _generation(generation, known)
    if scored:
        most = TOP_LOGPROBS[0] if known.top_logprobs is None else known.top_logprobs
        options |= {"logprobs": True, "top_logprobs": most}
    encoded = strictjson.dumps(options).encode()
    shorter = generation is not request.generation
    return Form(options, encoded, scored, shorter, known, format_, request.json_schema, request.schema)


def bounded(request: BackendRequest, known: Capabilities) -> Generation:
    """Return the settings with the longest answer that the schema can need, where that is less than ``max_tokens``.

    A model that thinks first needs more than its answer, and those that have another name for the limit do.
    """
    most, longest = request.generation.max_tokens, request.longest
    thinks = known.thinks or known.max_tokens_name == TOKEN_NAMES[1]
    if longest is None or thinks or most is None or longest >= most:
        return request.generation
    return replace(request.generation, max_tokens=longest)


def settings_of(generation: Generation) -> dict[str, Any]:
    """Return the settings that would be sent to a server that takes them all, by their names in the protocol."""
    settings = {
        "max_tokens": generation.max_tokens,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k,
        "seed": generation.seed,
        "stop": list(generation.stop) or None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _generation(generation: Generation, known: Capabilities) -> dict[str, Any]:
    found = {name: value for name, value in settings_of(generation).items() if known.takes(name) is not False}
    if "max_tokens" in found:
        found[known.max_tokens_name or TOKEN_NAMES[0]] = found.pop("max_tokens")
    return found


def _response_format(schema: Mapping[str, Any], task: str, format_: str) -> dict[str, Any] | None:
    if format_ == FORMATS[-1]:
        return None
    if format_ == "json_object":
        return {"type": format_}
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", task)[:64] or "answer"
    return {"type": format_, "json_schema": {"name": name, "strict": True, "schema": strict_schema(schema)}}


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``schema`` as the strict mode of structured outputs takes it.

    Every property is required and no other is allowed, keywords that servers refuse are left out, ``oneOf`` becomes
    ``anyOf``. A property that was optional is required too, but not made nullable: the answer then still fits the
    schema that was given. An object without properties (a map) stays open; strict servers refuse it by name.
    """
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions"):
            found[key] = {name: strict_schema(part) for name, part in value.items()}
        elif key in ("anyOf", "oneOf"):
            found["anyOf"] = [strict_schema(part) for part in value]
        elif key == "items" and isinstance(value, Mapping):
            found[key] = strict_schema(value)
        elif key in _STRICT_KEYWORDS:
            found[key] = value
    if "properties" in found:
        found["required"] = list(found["properties"])
        found["additionalProperties"] = False
    return found
