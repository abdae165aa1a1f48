"""The backend ``transformers``: labels are scored, everything else is generated, by one model in this process."""

from __future__ import annotations

import copy
import importlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from labeler import strictjson
from labeler.backends.base import GENERATED, SCORED, Backend, BackendRequest
from labeler.backends.local.cards import Card, asked_sentence
from labeler.backends.local.chat import Chat, PromptRefused
from labeler.backends.local.generating import CONTEXT, STOP, Generated, generate
from labeler.backends.local.grammar import can_constrain
from labeler.backends.local.loading import LoadedModel, LoadOptions, load, virtual_tokens, weights_on_disk
from labeler.backends.local.memory import BatchSize, OutOfMemory, free_memory
from labeler.backends.local.prefix import PrefixCache
from labeler.backends.local.scoring import probabilities, score
from labeler.backends.local.trials import slower
from labeler.errors import BackendError, JsonError, LabelerError
from labeler.prompts import answer_text
from labeler.records import BackendFailure, Completion, Generation, Message, Value
from labeler.sentence import Sentence

BY_SCORE, REPAIRED = "scored", "repaired"
"""Notes of completions: the labels were scored, nothing was generated; or the syntax of the JSON was mended."""

_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?```\s*", re.DOTALL)

log = logging.getLogger(__name__)

Result = Completion | BackendFailure


@dataclass(frozen=True, slots=True)
class _Job:
    """A request with its prompt, and with its closed list of labels if it is to be scored."""

    place: int
    request: BackendRequest
    prompt: list[int]
    candidates: dict[str, Value]


class TransformersBackend(Backend):
    """Answers with local weights. They are loaded at the first request, and by one thread: one forward at a time.

    ``batch`` is how many prompts are read at once; it halves for good when memory runs out.
    """

    name = "transformers"
    billed = True
    local = True
    generation_settings = frozenset(field.name for field in fields(Generation)) - {"explicit"}

    def __init__(self, options: LoadOptions, batch_size: int = 16, card: Card | None = None) -> None:
        self.options = options
        # Of a training it is the name that people know, and that suggestions are stored with.
        self.model_id: str | None = options.model_id if card is None else card.folder.name
        self.asked = {} if card is None else card.asked
        self.batch = batch_size
        self._size = BatchSize(batch_size)
        self._lock = threading.Lock()
        self._loaded: LoadedModel | None = None
        self._read = ""
        self._chat: Chat | None = None
        # Prompts are counted while others are answered, and a tokenizer is one thread's own.
        self._counting = threading.Lock()
        self._counter: Chat | None = None
        self._prefixes: PrefixCache | None = None
        self._answers: dict[tuple[str, ...], list[list[int]]] = {}

    def __repr__(self) -> str:
        return f"TransformersBackend({self.options!r}, batch_size={self.batch})"

    def complete(self, requests: Sequence[BackendRequest]) -> Iterator[Result]:
        """Yield what came of each request, in order; a call that fails is a BackendFailure, never an exception."""
        with self._lock:
            results = self._complete(requests)
        yield from results

    @property
    def weights(self) -> str:  # type: ignore[override]
        """What tells the weights on this disk from others under the same name; empty for those of the hub."""
        return weights_on_disk(self.options)

    @property
    def context(self) -> int | None:  # type: ignore[override]
        """How many tokens a prompt and its answer may have together; None until the weights are loaded."""
        loaded = self._loaded
        return None if loaded is None else loaded.context

    def ready(self) -> None:
        """Load the weights if they are not. Raises :class:`LabelerError` with the reason and the remedy."""
        with self._lock:
            try:
                self._ready()
            except LabelerError:
                raise
            except Exception as error:
                log.exception("The local weights could not be loaded")
                raise BackendError(unexpected(error).message) from error

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return how many tokens a prompt has. Raises :class:`PromptRefused` if the template takes no such messages."""
        with self._counting:
            counter = self._counter
            if counter is None:
                with self._lock:
                    counter = self._counter = Chat(copy.deepcopy(self._ready()[0].tokenizer))
            return len(counter.prompt_ids(messages))

    def check(self) -> dict[str, Any]:
        """Load the weights and answer once, for a "test" button.

        Returns ``{"ok", "model", "ms", "message", "notes", "capabilities"}``; capabilities are empty if it failed.
        Notes are sentences that say why this model answers slower than it might, and how it is asked if it was trained.
        """
        start = time.perf_counter()
        messages: list[Message] = [{"role": "user", "content": "Answer with the word ok."}]
        with self._lock:
            message, notes, capabilities = self._check(messages)
        ms = round((time.perf_counter() - start) * 1000)
        ok = bool(capabilities)
        said = f"{message} answered in {ms} ms." if ok else message
        if ok and self.asked:
            notes = [*notes, asked_sentence(self.asked)]
        return {
            "ok": ok, "model": self.model_id, "ms": ms, "message": said, "notes": notes, "capabilities": capabilities
        }  # fmt: skip

    def close(self) -> None:
        """Free the weights; the next request loads them again."""
        with self._lock:
            self._loaded = self._chat = self._prefixes = self._counter = None
            self._answers.clear()
            free_memory()

    def _check(self, messages: Sequence[Message]) -> tuple[str, list[str], dict[str, Any]]:
        try:
            loaded, chat = self._ready()
            prompt = chat.prompt_ids(messages)
            generate(loaded, [prompt], Generation(max_tokens=8, stop=chat.stop), None, 1)
            score(loaded, [prompt], [[chat.answer_ids(text) for text in ("ok", "not ok")]], 1)
        except LabelerError as error:
            return str(error), [], {}
        except Exception as error:
            return unexpected(error).message, [], {}
        notes = slower(loaded.model)
        capabilities = {
            "scored": True,
            "cache": not notes,
            "constrained": can_constrain(loaded),
            "chat_template": chat.has_template,
            "context": loaded.context,
            "device": loaded.device.type,
            "dtype": str(loaded.dtype).removeprefix("torch."),
        }
        return loaded.description, notes, capabilities

    def _ready(self) -> tuple[LoadedModel, Chat]:
        weights = self.weights
        if self._loaded is None or self._chat is None or weights != self._read:
            self.before_loading()
            # Other weights may have been put into the same folder: what answers is what the ledger says answered.
            self._loaded = self._chat = self._prefixes = self._counter = None
            self._loaded, self._read = load(self.options), weights
            self._chat = Chat(self._loaded.tokenizer)
            self._prefixes = PrefixCache()
            self._answers.clear()
            # Virtual tokens stand before the padding, which would move a prompt away from them.
            self._size.value = 1 if virtual_tokens(self._loaded.model) else self.batch
        return self._loaded, self._chat

    def _complete(self, requests: Sequence[BackendRequest]) -> list[Result]:
        try:
            loaded, chat = self._ready()
        except LabelerError as error:
            return [BackendFailure("setup", str(error), fatal=True) for _ in requests]
        except Exception as error:
            log.exception("The local weights could not be loaded")
            return [replace(unexpected(error), kind="setup", fatal=True) for _ in requests]
        results: dict[int, Result] = {}
        jobs: list[_Job] = []
        for place, request in enumerate(requests):
            made = self._job(chat, place, request)
            if isinstance(made, BackendFailure):
                results[place] = made
            else:
                jobs.append(made)
        for part, work in self._parts(loaded, chat, jobs):
            for job, result in zip(part, self._guarded(part, work), strict=True):
                results[job.place] = result
        return [results[place] for place in range(len(requests))]

    def _job(self, chat: Chat, place: int, request: BackendRequest) -> _Job | BackendFailure:
        candidates = {} if request.answering == GENERATED else request.schema.candidates()
        if request.answering == SCORED and not candidates:
            message = Sentence(
                "The task %(task)s has no closed list of labels to score; set answering to auto or generated.",
                task=request.task,
            )
            return BackendFailure("setup", message, fatal=True)
        try:
            prompt = chat.prompt_ids(request.messages)
        except PromptRefused as error:
            return BackendFailure("request", Sentence("%(why)s.", why=error))
        except Exception as error:
            return unexpected(error)
        return _Job(place, request, prompt, dict(candidates))

    def _parts(
        self, loaded: LoadedModel, chat: Chat, jobs: Sequence[_Job]
    ) -> Iterator[tuple[list[_Job], Callable[[Sequence[_Job]], list[Result]]]]:
        """Divide the jobs into those that can run together: all that are scored, and what is generated alike."""
        scored = [job for job in jobs if job.candidates]
        if scored:
            yield scored, lambda part: self._score(loaded, chat, part)
        alike: dict[tuple[Generation, str], list[_Job]] = {}
        for job in jobs:
            if not job.candidates:
                key = (job.request.generation, json.dumps(job.request.json_schema, sort_keys=True))
                alike.setdefault(key, []).append(job)
        for part in alike.values():
            yield part, lambda some: self._generate(loaded, chat, some)

    def _guarded(self, jobs: Sequence[_Job], work: Callable[[Sequence[_Job]], list[Result]]) -> list[Result]:
        """Do the work; where memory does not suffice for one job, only that one fails."""
        size = self._size.value
        try:
            return work(jobs)
        except OutOfMemory as error:
            message = str(error)
        except Exception as error:
            log.exception("Unexpected error of the backend transformers")
            return [unexpected(error)] * len(jobs)
        if len(jobs) == 1:
            return [BackendFailure("memory", Sentence("%(why)s.", why=message))]
        # The one that failed says nothing about how many of the others fit.
        self._size.value = size
        half = len(jobs) // 2
        return [*self._guarded(jobs[:half], work), *self._guarded(jobs[half:], work)]

    def _score(self, loaded: LoadedModel, chat: Chat, jobs: Sequence[_Job]) -> list[Result]:
        results: dict[int, Result] = {}
        fitting: list[tuple[_Job, list[list[int]]]] = []
        for job in jobs:
            answers = self._answer_ids(chat, job)
            needed = len(job.prompt) + max(map(len, answers))
            if needed > loaded.context:
                results[job.place] = _too_long(len(job.prompt), needed - len(job.prompt), loaded)
            else:
                fitting.append((job, answers))
        prompts, candidates = [job.prompt for job, _ in fitting], [answers for _, answers in fitting]
        found = score(loaded, prompts, candidates, self._size, cache=self._prefixes)
        for (job, _), scored in zip(fitting, found, strict=True):
            results[job.place] = self._scored(job, probabilities(scored).tolist())
        return [results[job.place] for job in jobs]

    def _answer_ids(self, chat: Chat, job: _Job) -> list[list[int]]:
        request = job.request
        texts = tuple(answer_text(request.task, request.schema, value) for value in job.candidates.values())
        if texts not in self._answers:
            if len(self._answers) >= 64:
                self._answers.clear()
            self._answers[texts] = [chat.answer_ids(text) for text in texts]
        return self._answers[texts]

    def _scored(self, job: _Job, shares: Sequence[float]) -> Result:
        request = job.request
        scores = dict(zip(job.candidates, shares, strict=True))
        value = request.schema.decide(scores, size=1.0 if request.size is None else request.size)
        if value is None:
            return BackendFailure(
                "request", Sentence("The scores of the task %(task)s do not single out a label.", task=request.task)
            )
        chosen = [scores[name] for name, candidate in job.candidates.items() if _holds(value, candidate)]
        return Completion(
            text=answer_text(request.task, request.schema, value),
            tokens_in=len(job.prompt),
            tokens_out=0,
            finish=STOP,
            score=sum(chosen) / len(chosen) if chosen else None,
            scores=scores,
            made=(BY_SCORE,),
            model_id=self.model_id,
        )

    def _generate(self, loaded: LoadedModel, chat: Chat, jobs: Sequence[_Job]) -> list[Result]:
        request = jobs[0].request
        generation = replace(request.generation, stop=(*request.generation.stop, *chat.stop))
        prompts, json_schema = [job.prompt for job in jobs], request.json_schema or None
        found = generate(loaded, prompts, generation, json_schema, self._size, cache=self._prefixes)
        return [self._generated(loaded, request, answer) for answer in found]

    def _generated(self, loaded: LoadedModel, request: BackendRequest, answer: Generated) -> Result:
        if answer.finish == CONTEXT:
            return _too_long(answer.tokens_in, request.generation.max_tokens or 1, loaded)
        text, made = answer.text, answer.made
        if request.json_schema and answer.finish == STOP:
            mended = repaired(text)
            if mended is not None:
                text, made = mended, (REPAIRED,)
        return Completion(
            text, answer.tokens_in, answer.tokens_out, finish=answer.finish, made=made, model_id=self.model_id
        )


def repaired(text: str) -> str | None:
    """Return JSON of the same words where only the syntax of ``text`` was wrong; None if it is right or past mending.

    The last resort before a parse failure. Nothing is invented, left out or chosen: the words and numbers of the
    mended answer are those of the original, in the same order, or it is not mended.
    """
    fenced = _FENCED.fullmatch(text)
    inside = fenced[1] if fenced else text.strip()
    if not inside.startswith("{") or _is_json(inside):
        return None
    try:
        json_repair: Any = importlib.import_module("json_repair")
    except ImportError:
        return None
    try:
        value = json_repair.loads(inside, skip_json_loads=True)
        mended = strictjson.dumps(value)
    except (ValueError, TypeError, RecursionError, AttributeError):
        return None
    same = _words(mended) == _words(inside)
    return mended if same and isinstance(value, dict) and _is_json(mended) else None


def _is_json(text: str) -> bool:
    try:
        strictjson.loads(text)
    except JsonError:
        return False
    return True


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _holds(value: Value, candidate: Value) -> bool:
    """Whether a candidate is the value, or, where the value is a set of labels, belongs to it."""
    if isinstance(value, list) and isinstance(candidate, list):
        return all(label in value for label in candidate)
    return bool(value == candidate)


def _too_long(tokens: int, answer: int, loaded: LoadedModel) -> BackendFailure:
    message = Sentence(
        "The prompt has %(n)s tokens and its answer up to %(most)s, but the model reads %(context)s"
        " in all; show fewer examples, lower max_tokens, or take a model with a longer context.",
        n=tokens,
        most=answer,
        context=loaded.context,
    )
    return BackendFailure("request", message)


def unexpected(error: Exception) -> BackendFailure:
    """Return what to say of an error that nobody foresaw."""
    message = Sentence("The local model failed with an unexpected %(error)s; see the log.", error=type(error).__name__)
    if "CUDA error" in str(error) or "CUBLAS" in str(error):
        # After such an error no call of this process reaches the card any more.
        message = Sentence("The GPU stopped with an error; restart Labeler, and see the log for details.")
        return BackendFailure("setup", message, fatal=True)
    return BackendFailure("request", message)
