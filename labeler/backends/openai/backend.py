"""The backend itself: one request in, one completion or failure out."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from labeler.backends import endings
from labeler.backends.base import GENERATED, SCORED, BackendRequest
from labeler.backends.batches import BatchingBackend, CallFailed
from labeler.backends.openai import answers, context
from labeler.backends.openai.answers import Refusal, Unreadable
from labeler.backends.openai.batches import BatchClient
from labeler.backends.openai.body import Form, Forms, settings_of
from labeler.backends.openai.capabilities import (
    FORMATS,
    SETTINGS,
    TOKEN_NAMES,
    Capabilities,
    Knowledge,
    speaks_of_format,
)
from labeler.backends.openai.hiding import Hider
from labeler.backends.openai.limits import Headers
from labeler.backends.openai.scores import can_score, label_scores
from labeler.backends.openai.settings import OPENAI_URL, checked_key, checked_url
from labeler.backends.openai.wire import MAX_ANSWER, NotConnected, NotReached, Reply, TooLong, TooSlow, Wire
from labeler.backends.thoughts import begins_with_thoughts, split_thoughts
from labeler.errors import BackendError, MissingExtra, SettingError
from labeler.labels import Choice, Label
from labeler.records import AWAY, TOO_LONG, BackendFailure, Completion, Generation, Record
from labeler.sentence import Sentence

_PROBE, _ROOM = "answer", 256
# In seconds and bytes: a list of models, some of which have hundreds, is no reason to let a test wait for long.
_LIST_TIMEOUT, _LIST_SIZE = 10.0, 10 * 1024 * 1024
_NOTHING_KNOWN = Capabilities()

log = logging.getLogger(__name__)


class OpenAIBackend(BatchingBackend):
    """Completions over HTTP. Threads share one instance: one client, and one memory of what the server takes.

    ``timeout`` is in seconds and covers a whole answer, however slowly it trickles in. ``structured`` is ``auto``
    (a JSON schema, then any JSON object, then plain text, whatever the server takes) or one of ``FORMATS``.
    ``capabilities`` is what was recorded of this model at this server.
    """

    name = "openai"
    billed = True

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        model_id: str,
        timeout: float = 60.0,
        structured: str = "auto",
        capabilities: Capabilities | None = None,
    ) -> None:
        if structured not in ("auto", *FORMATS):
            raise SettingError(
                "%(setting)s is %(value)r; allowed are: %(names)s",
                setting="structured",
                value=structured,
                names=", ".join(["auto", *FORMATS]),
            )
        if not (math.isfinite(timeout) and timeout > 0):
            raise SettingError("timeout is %(value)s; use a number of seconds above 0", value=timeout)
        if not model_id.strip():
            raise SettingError("No model id; enter the name of the model on the server")
        self.model_id: str | None = model_id.strip()
        self.base_url = None if base_url is None else checked_url(base_url)
        self.timeout = timeout
        self.structured = structured
        key = checked_key(api_key)
        self._can_send = key is not None or self.base_url is not None
        self._key = key
        self._hider = Hider(key)
        self._wire = Wire(self.base_url, key, timeout)
        self._knowledge = Knowledge(capabilities or Capabilities(), structured)
        self._forms = Forms(self.model_id)

    def __repr__(self) -> str:
        return f"OpenAIBackend(base_url={self.base_url!r}, model_id={self.model_id!r})"

    @property
    def capabilities(self) -> Capabilities:
        """What is known of the server now."""
        return self._knowledge.now

    @property
    def generation_settings(self) -> frozenset[str]:  # type: ignore[override]
        """The fields of :class:`Generation` that the server is not known to refuse."""
        return frozenset(name for name in SETTINGS if self.capabilities.takes(name) is not False)

    @property
    def thinks(self) -> bool:  # type: ignore[override]
        """Whether the model is known to think before it answers, which takes tokens of its answer."""
        return bool(self.capabilities.thinks) or self.capabilities.max_tokens_name == TOKEN_NAMES[1]

    @property
    def slots(self) -> int | None:  # type: ignore[override]
        """How many calls the server answers at once, where it said so."""
        return self.capabilities.slots

    @property
    def context(self) -> int | None:  # type: ignore[override]
        """How many tokens a prompt and its answer may have together, as the server said; None where it did not."""
        return self.capabilities.context

    @cached_property
    def batches(self) -> BatchClient:
        """Files and batches of the same server, with the same key."""
        return BatchClient(self._wire, self._failure_of, self._hider.hide)

    def complete(self, requests: Sequence[BackendRequest]) -> Iterator[Completion | BackendFailure]:
        """Yield what came of each request, in order; a call that fails is a BackendFailure, never an exception."""
        for request in requests:
            yield self._ask(request, self._knowledge, self._forms)

    def check(self) -> dict[str, Any]:
        """Make one tiny call, for a "test" button: ``{"ok", "model", "ms", "message", "capabilities"}``."""
        start = time.perf_counter()
        result = self.probe()
        ms = round((time.perf_counter() - start) * 1000)
        found = {"ok": False, "model": self.model_id, "ms": ms, "capabilities": self.capabilities.to_json()}
        if isinstance(result, BackendFailure):
            return found | {"message": result.message}
        model = result.model_id or self.model_id
        if unusable := _unusable(result):
            return found | {
                "model": model,
                "message": Sentence("%(model)s gives no answer that can be used. %(why)s.", model=model, why=unusable),
            }
        return found | {"ok": True, "model": model, "message": f"{model} answered in {ms} ms."}

    def answers(self) -> bool:
        """Whether the server can be reached now; nothing is asked of its model."""
        return self._wire.answers(min(self.timeout, _LIST_TIMEOUT))

    def probe(self) -> Completion | BackendFailure:
        """Find out what the server takes: one tiny call that asks for everything; see :func:`probe`.

        How much its model reads is looked up in its list of models, which costs nothing. What was known before counts
        for nothing here: the server behind an address may have changed.
        """
        knowledge = Knowledge(Capabilities(), self.structured)
        request = _probe_request()
        result = self._ask(request, knowledge, Forms(self.model_id or ""))
        if isinstance(result, BackendFailure) and result.kind == "request":
            # Refused as a whole, for what together it holds perhaps: then it stays unknown what would be taken.
            plain = replace(request, generation=Generation(64, None), answering=GENERATED, json_schema={})
            return self._ask(plain, knowledge, Forms(self.model_id or ""))
        if isinstance(result, Completion):
            if self.structured == "auto":
                _judge_formats(knowledge, result)
            knowledge.accept_listed(*self._listed(result.model_id))
            self._knowledge = knowledge
        return result

    def _listed(self, answered_as: str | None) -> tuple[int | None, int | None]:
        """Return the context of the model and the slots of the server, where it says so."""
        models = self._fetched(self._wire, "/models")
        found = context.listed(models, self.model_id, answered_as)
        if not context.is_llama_cpp(models) or self.base_url is None:
            return found, None
        above = Wire(self.base_url.removesuffix("/v1"), self._key, _LIST_TIMEOUT)
        try:
            of_slot, slots = context.of_props(self._fetched(above, "/props"))
            return found or of_slot, slots
        finally:
            above.close()

    def _fetched(self, wire: Wire, path: str) -> Any:
        """Return the JSON at ``path``; None for whatever stands in the way: a test does not fail for it."""
        try:
            reply = wire.get(path, min(self.timeout, _LIST_TIMEOUT), _LIST_SIZE)
            return json.loads(reply.content) if reply.status == 200 else None
        except (TooSlow, TooLong, NotConnected, ValueError, RecursionError):
            return None

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._wire.close()

    # For calls that travel in a file

    def check_batches(self) -> None:
        """Raise :class:`SettingError` for an address of Azure under which there are none."""
        if "/deployments/" in (self.base_url or ""):
            raise SettingError(
                "Azure takes no batches under an address with /deployments/; set openai_base_url to "
                "https://NAME.openai.azure.com/openai/v1 and the model id to the deployment, or choose the executor "
                "local"
            )

    def body(self, request: BackendRequest) -> dict[str, Any]:
        """Return the JSON body of one call, in the form that the server takes as far as is known now.

        Raises :class:`SettingError` for a request that would be refused before it is sent (an explicit setting that
        the server refuses, scores that it cannot give).
        """
        form = self._forms.of(request, self._knowledge.now, self._knowledge.format(request.task))
        if failure := self._unanswerable(request, form):
            raise SettingError(failure.message)
        return form.body(request)

    def read(
        self, body: Any, request: BackendRequest, status: int = 200, headers: Headers = ()
    ) -> Completion | BackendFailure:
        """Read one answer that came by another way: a chat completion, or an error object with its status.

        A refusal of a parameter is remembered as in ``complete``, and the failure is then worth another try.
        """
        # The form that asks for everything: what it was sent with is not known, and only what was sent is refused.
        form = self._forms.of(request, _NOTHING_KNOWN, self._knowledge.format(request.task))
        if 200 <= status < 300:
            result = self._interpret(body, headers, request, form, self._knowledge)
        else:
            result = answers.refusal(status, headers, body)
        if isinstance(result, Completion | BackendFailure):
            return result
        learned = self._knowledge.learn(form.body(request), request.task, result)
        if not learned:
            return self._refused(result, request, self._knowledge)
        now = self._forms.of(request, self._knowledge.now, self._knowledge.format(request.task))
        return self._unanswerable(request, now) or replace(self._failure(result), retryable=True)

    # One call

    def _ask(self, request: BackendRequest, knowledge: Knowledge, forms: Forms) -> Completion | BackendFailure:
        try:
            return self._ask_until_taken(request, knowledge, forms)
        except ImportError as error:
            if error.name in ("openai", "httpx2"):
                message = MissingExtra("openai", "openai").sentence
            else:
                message = Sentence("A package is missing (%(reason)s).", reason=self._hider.clean(str(error)))
            return BackendFailure("setup", message, fatal=True)
        except BackendError as error:
            return BackendFailure("setup", str(error), fatal=True)
        except Exception as error:
            # The contract of a backend: one call that fails must not take the run with it.
            log.error("Unexpected error of the backend openai: %s", self._hider.clean(repr(error)))
            return BackendFailure(
                "request",
                Sentence("The call failed with an unexpected %(error)s; see the log.", error=type(error).__name__),
            )

    def _ask_until_taken(
        self, request: BackendRequest, knowledge: Knowledge, forms: Forms
    ) -> Completion | BackendFailure:
        if not self._can_send:
            message = Sentence("No OpenAI key: set OPENAI_API_KEY, or openai_base_url to a server of your own.")
            return BackendFailure("setup", message, fatal=True)
        while True:
            try:
                form = forms.of(request, knowledge.now, knowledge.format(request.task))
                if failure := self._unanswerable(request, form):
                    return failure
                data = form.encode(request)
            except (ValueError, TypeError):
                message = Sentence(
                    "The prompt holds what JSON cannot carry (a lone surrogate, NaN); clean the text of the record."
                )
                return BackendFailure("request", message)
            result = self._send(data, request, form, knowledge)
            if not isinstance(result, Refusal):
                return result
            # Each round leaves out at least one thing that this body held, so the loop ends.
            if not knowledge.learn(form.options, request.task, result):
                return self._refused(result, request, knowledge)

    def _unanswerable(self, request: BackendRequest, form: Form) -> BackendFailure | None:
        """Return why there is no use in asking: the server is known to refuse what a person asked for."""
        if request.generation.explicit:
            for name in settings_of(request.generation):
                if name in request.generation.explicit and form.known.takes(name) is False:
                    message = Sentence(
                        "The model %(model)s refuses the setting %(setting)s; clear it in the settings of the task.",
                        model=self.model_id,
                        setting=name,
                    )
                    return BackendFailure("setup", message.mapped(self._hider.hide), fatal=True)
        if request.answering != SCORED or form.scored:
            return None
        if can_score(request.schema):
            return self._no_scores()
        message = Sentence(
            "Only one label out of a closed list has scores; set the answers of this task to auto or generated."
        )
        return BackendFailure("setup", message, fatal=True)

    def _no_scores(self) -> BackendFailure:
        message = Sentence(
            "The model %(model)s gives no log probabilities, so its labels have no scores; set the "
            "answers of this task to auto or generated, or use another model.",
            model=self.model_id,
        )
        return BackendFailure("setup", message.mapped(self._hider.hide), fatal=True)

    def _send(
        self, data: bytes, request: BackendRequest, form: Form, knowledge: Knowledge
    ) -> Completion | BackendFailure | Refusal:
        try:
            reply = self._wire.post("/chat/completions", data)
        except (TooSlow, TooLong, NotConnected) as error:
            return self._failure_of(error)
        if not 200 <= reply.status < 300:
            return answers.refused(reply.status, reply.headers, reply.content)
        try:
            # Not strictjson: the answer is paid for, and one odd escape in it is no reason to ask again.
            body = json.loads(reply.content)
        except (ValueError, RecursionError):
            return self._unreadable(Sentence("is not JSON"))
        return self._interpret(body, reply.headers, request, form, knowledge)

    def _interpret(
        self, body: Any, headers: Headers, request: BackendRequest, form: Form, knowledge: Knowledge
    ) -> Completion | BackendFailure | Refusal:
        result = answers.answered(body, headers)
        if isinstance(result, Unreadable):
            return self._unreadable(result.why.mapped(self._hider.clean))
        if isinstance(result, Refusal):
            return result
        if result.model_id:
            result = replace(result, model_id=self._hider.hide(result.model_id))
        knowledge.accept(form.options)
        thoughts = answers.shows_thoughts(body) or begins_with_thoughts(result.text)
        knowledge.accept_answer(result.tokens_in is not None, thoughts)
        if form.bounded and result.finish == endings.CUT:
            # Cut where its label should have ended. One that thinks has the room that it wants from now on.
            result = replace(result, finish=endings.THINKING if thoughts else endings.RAN_AWAY)
        if not form.scored:
            return result
        content = _logprobs(body["choices"][0])
        if result.text:
            knowledge.accept_logprobs(bool(content), form.options)
            if not content and request.answering == SCORED:
                return self._no_scores()
        found = label_scores(content, result.text, request.task, request.schema.candidates())
        if found is None:
            return result
        scores, chosen = found
        return replace(result, scores=scores, score=scores[chosen])

    # Failures

    def _refused(self, refusal: Refusal, request: BackendRequest, knowledge: Knowledge) -> BackendFailure:
        """Return the failure of a refused call, and remember how much the model reads where it says so."""
        knowledge.learn_context(refusal)
        return self._failure(refusal)

    def _unreadable(self, what: Sentence) -> BackendFailure:
        message = Sentence(
            "The server's answer %(why)s; try again, and check that base_url ends where its API begins (/v1).", why=what
        )
        return BackendFailure("server", message, retryable=True)

    def _failure_of(self, problem: Exception | Reply) -> BackendFailure:
        """Return the failure for a request that brought no usable reply, whatever was asked for."""
        if isinstance(problem, Reply):
            return self._failure(answers.refused(problem.status, problem.headers, problem.content))
        if isinstance(problem, TooSlow):
            message = Sentence(
                "No complete answer within %(n)s s; raise timeout_seconds, or lower concurrency where the "
                "server answers few calls at once.",
                n=f"{self.timeout:g}",
            )
            return BackendFailure("timeout", message, retryable=True)
        if isinstance(problem, TooLong):
            message = Sentence(
                "The answer is longer than %(n)s MB; lower max_tokens or check the server.", n=MAX_ANSWER // 2**20
            )
            return BackendFailure("request", message)
        return self._not_connected(self._hider.clean(str(problem)), isinstance(problem, NotReached))

    def _not_connected(self, reason: str, away: bool) -> BackendFailure:
        where = self.base_url or OPENAI_URL
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            message = Sentence(
                "The certificate of %(address)s is not trusted (%(reason)s); install its authority on this machine.",
                address=where,
                reason=reason,
            )
            return BackendFailure("setup", message, fatal=True)
        message = Sentence(
            "No connection to %(address)s (%(reason)s); check the address, the network and that the server runs.",
            address=where,
            reason=reason,
        )
        return BackendFailure(AWAY if away else "connection", message, retryable=True)

    def _failure(self, refusal: Refusal) -> BackendFailure:
        kind, remedy = answers.diagnose(refusal, self.model_id or "", self.base_url)
        if kind == "request" and self.structured != "auto" and speaks_of_format(refusal):
            kind = "setup"
            remedy = Sentence("The server does not take this kind of structured output; set structured to auto")
        said = self._hider.clean(refusal.said)
        status = f"HTTP {refusal.status}: {said}" if said else f"HTTP {refusal.status}"
        return BackendFailure(
            kind,
            # Hidden once more in the whole: a key pasted into the field of the model id would be shown here.
            Sentence("%(what)s (%(status)s).", what=remedy, status=status).mapped(self._hider.hide),
            retry_after=refusal.retry_after,
            fatal=kind in ("auth", "quota", "model", "setup"),
            retryable=kind in ("rate_limit", "server", AWAY, TOO_LONG),
            limits=refusal.limits,
            tokens=refusal.too_long.prompt if refusal.too_long is not None else None,
        )


def _logprobs(choice: Mapping[str, Any]) -> Any:
    found = choice.get("logprobs")
    return found.get("content") if isinstance(found, dict) else None


def _probe_request() -> BackendRequest:
    """Return a request that asks for everything at once, for an answer of a few tokens."""
    schema = Choice(Label("yes"), Label("no"))
    properties = {_PROBE: schema.json_schema()}
    # Neutral values: the answer is the same whether the server heeds them or not. Room for a model that thinks.
    generation = Generation(max_tokens=_ROOM, temperature=0.0, top_k=20, top_p=1.0, seed=1, stop=("###",))
    text = f'Answer with the JSON object {{"{_PROBE}": "yes"}} and nothing else.'
    return BackendRequest(
        record=Record(id=0, project_id=0, key="probe", text=text),
        task=_PROBE,
        schema=schema,
        messages=[{"role": "user", "content": text}],
        json_schema={"type": "object", "properties": properties, "required": [_PROBE]},
        generation=generation,
    )


def _unusable(result: Completion) -> str | None:
    """Return why the answer to the test is of no use to a run; None for one that is."""
    failure = None if result.finish == endings.CUT and result.text else endings.no_answer(result, _ROOM)
    empty = None if result.text.strip() else Sentence("The answer is empty")
    return failure.message if failure is not None else empty


def _judge_formats(knowledge: Knowledge, result: Completion) -> None:
    text, _ = split_thoughts(result.text)
    if endings.no_answer(result, None) is not None or not text:
        # Cut off before it could show anything, or not where an answer stands.
        return
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    is_json = isinstance(answer, dict)
    knowledge.accept_formats(_PROBE, is_json, is_json and answer.get(_PROBE) in ("yes", "no") and len(answer) == 1)


def probe(backend: OpenAIBackend) -> Capabilities:
    """Find out what the server takes, and remember it in ``backend``: one tiny call that asks for everything.

    What is refused is left out and the call sent again; refusals cost nothing. Raises :class:`CallFailed`.
    """
    result = backend.probe()
    if isinstance(result, BackendFailure):
        raise CallFailed(result)
    return backend.capabilities
