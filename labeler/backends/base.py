"""The contract of a backend: what turns requests into completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from labeler.labels import LabelSchema
from labeler.records import BackendFailure, Completion, Example, Generation, Message, Record

if TYPE_CHECKING:
    import numpy as np

AUTO, SCORED, GENERATED = "auto", "scored", "generated"
ANSWERING = (AUTO, SCORED, GENERATED)
LEARNING = ("ensemble", "probe")
"""Free backends that answer by what was fitted on the approvals of a task."""


@dataclass(frozen=True, slots=True)
class BackendRequest:
    """All that any backend may use to label one record.

    LLM backends read ``messages`` and ``json_schema``; ``nearest``, ``probe`` and ``ensemble`` read ``examples``,
    ``vector`` (float32, shape (d,), L2-normalised) and ``schema``. ``answering`` is "auto" (scores of the labels
    where the schema has a closed list and the backend can give them), "scored" (refuse if it cannot) or
    "generated" (free text or JSON only; prompts that ask for reasoning need it). ``size`` is how many labels the
    values of a set have on average, as far as the examples tell. ``longest`` is how many tokens the schema can need,
    None where it sets no bound or a person has set one: an answer that is longer has run away. ``columns`` are those of
    the metadata of the record and of the examples that an answer may go by; the messages hold them already.
    """

    record: Record
    task: str
    schema: LabelSchema
    messages: Sequence[Message] = ()
    json_schema: Mapping[str, Any] = field(default_factory=dict)
    generation: Generation = Generation()
    examples: Sequence[Example] = ()
    vector: np.ndarray | None = None
    answering: str = AUTO
    size: float | None = None
    longest: int | None = None
    columns: Sequence[str] = ()


@runtime_checkable
class Backend(Protocol):
    """Turns requests into completions, one answer for each request, in order.

    ``complete`` raises nothing for a call that fails: it yields a :class:`BackendFailure` in its place. It is
    called from several threads at once. ``billed`` backends go through the ledger of calls; the others are
    free, deterministic and fast enough to answer while a page waits.

    Optional attributes: ``batch`` (default 1) is how many requests ``complete`` wants at once: with 1 the calls are
    spread over threads, with more they come together from one thread. ``generation_settings`` names the fields of
    :class:`Generation` that the backend has; one that a person chose and it has not is refused before a run.
    ``local`` is True where a call costs no fee and the weights are in this process; ``close()`` frees them, and
    ``before_loading()``, which it is given, is to be called before they are loaded: it frees those of others.
    ``base_url`` is the server's address: answers of another one are others. ``check()`` makes one tiny call for a
    "test" button and returns ``{"ok", "model", "ms", "message", "capabilities"}``, and ``"notes"`` where people should
    know more: a list of sentences. ``context`` is how many tokens a prompt and its answer may have together, None where
    that is not known (yet); ``count_tokens(messages)`` counts those of a prompt. ``weights`` tells the weights that lie
    under the model id now from others that did before. ``learned`` names what a free backend has learned from approvals
    so far, as the ``fit`` of its completions does: a suggestion of another fit is made again. ``ready()`` is called
    before a run's first call, and raises :class:`LabelerError` where there is no use in calling. ``answers()`` says
    whether the server can be reached now, ``thinks`` whether the model thinks before it answers, and ``slots`` how many
    calls the server answers at once, None where that is not known.
    """

    name: str
    model_id: str | None
    billed: bool

    def complete(self, requests: Sequence[BackendRequest]) -> Iterator[Completion | BackendFailure]: ...


class BackendFactory(Protocol):
    """What a plugin registers: makes a backend from the settings of a task and an instance.

    Optional attributes: ``options`` names the settings of a task that it reads (default: ``model_id``); ``shared``
    True says that it reads neither ``embed`` nor ``index``, so that one backend serves all tasks. ``billed`` says what
    its backends will be (default: as ``shared``): only admins start runs of billed ones.
    """

    name: str

    def create(self, settings: Mapping[str, Any]) -> Backend: ...
