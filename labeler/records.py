"""The nouns of Labeler, as frozen dataclasses: what the rooms hand to each other.

A *record* is one item to label, an *example* a text with its approved label, a *suggestion* what a backend
proposes for a record. All values of labels are plain JSON values in the canonical form of their label schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

Value = Any
"""A label value in canonical form: str, int, list or dict as its schema says; always JSON-able."""

Part = tuple[str, int, int]
"""A named part of a text: its title, and where it begins and ends, in code points."""


class Message(TypedDict):
    """One message of a prompt, as chat backends take it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Record:
    """One item to label. ``cluster`` is the id of the first record of its near-duplicate cluster.

    ``parts`` are the named parts of the text, where it has some (a question and its answers).

    >>> from labeler import Record
    >>> review = Record(1, 1, "r1", "Crisp and sweet", metadata={"stars": 5})
    >>> review.text, review.metadata["stars"]
    ('Crisp and sweet', 5)
    """

    id: int
    project_id: int
    key: str
    text: str
    language: str = "ko"
    group: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    content_hash: str = ""
    cluster: int | None = None
    parts: Sequence[Part] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """An approved annotation with its text, as shown in a prompt and as evidence.

    ``similarity`` is the cosine to the record it was retrieved for, in [-1, 1]. ``metadata`` and ``parts`` are its
    record's.
    """

    annotation_id: int
    record_id: int
    text: str
    value: Value
    similarity: float
    reviewer: str = ""
    approved_at: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    parts: Sequence[Part] = ()


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """A completion with no label of the schema. ``kind`` is one word; ``raw`` is the completion as it came."""

    kind: str
    message: str
    raw: str


@dataclass(frozen=True, slots=True)
class Generation:
    """How a backend generates. None leaves a setting to the backend; temperature 0 is greedy, above 0 it samples.

    ``explicit`` names the settings that a person chose: a backend that has no such setting refuses them with a
    clear sentence, where it may quietly leave out one that nobody asked for.
    """

    max_tokens: int | None = 1024
    temperature: float | None = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    explicit: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a server said of its limits in the headers of an answer; None where it said nothing.

    ``requests`` and ``tokens`` are per minute; ``reset_*`` are seconds until the remaining ones are full again.
    """

    requests: int | None = None
    tokens: int | None = None
    remaining_requests: int | None = None
    remaining_tokens: int | None = None
    reset_requests: float | None = None
    reset_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a backend answered. Token counts are None when unknown, never 0 instead.

    ``scores`` maps label names to numbers in [0, 1] when the backend has real ones (uncalibrated), and ``score``
    is that of the answer; they are never compared across backends. ``made`` says in single words how the value came
    about beside the plain answer of a model ("extraction", "vote", "scored"); later steps add theirs ("calibrated").
    ``fit`` names what the backend had learned from approvals by
    itself when it answered; empty for one that learns nothing.
    """

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    finish: str | None = None
    score: float | None = None
    scores: Mapping[str, float] | None = None
    made: tuple[str, ...] = ()
    model_id: str | None = None
    limits: RateLimits | None = None
    fit: str = ""


def made_column(made: Sequence[str]) -> str | None:
    """Return how a value was made as a column holds it."""
    return ", ".join(made) or None


def made_in(column: str | None) -> tuple[str, ...]:
    """Return how a value was made from what a column holds."""
    return tuple(column.split(", ")) if column else ()


AWAY, TOO_LONG = "away", "too_long"


@dataclass(frozen=True, slots=True)
class BackendFailure:
    """A call that brought no completion.

    ``kind``: ``timeout``, ``rate_limit``, ``server``, ``connection`` (all worth another try, after ``retry_after``
    seconds if the server said so), ``away`` (no server was reached, so nothing was asked), ``too_long`` (worth a
    shorter prompt; ``tokens`` is what this one has by the server's count, where it said so), ``auth``, ``quota``,
    ``model``, ``setup`` (``fatal``: every further call would fail alike, so the run pauses), ``request`` (this one
    prompt was refused), ``memory`` (it did not fit into memory).
    """

    kind: str
    message: str
    retry_after: float | None = None
    fatal: bool = False
    retryable: bool = False
    limits: RateLimits | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was asked or thought on the way to a suggestion: its name ("plan", "draft") and what came."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """One example of a suggestion, by id: what is stored of it."""

    annotation_id: int
    record_id: int
    similarity: float


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """What ``nearest`` or ``probe`` says beside another backend's suggestion; not a confidence."""

    backend: str
    value: Value
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Labels that a backend proposes for a record, with all that made them; exactly one of value and failure is set.

    ``scores`` are the backend's own, before any calibration. ``steps`` are what came before the answer: reasoning,
    plans, drafts, samples; they are shown, and exported only when asked for. ``prompt_digest`` is of how the prompt
    was put (style, retriever, k, wording, version of the task): scores of each are off in directions of their own.

    What it was made by and from tells whether it is current (:mod:`labeler.prelabel.current`). ``kind`` is a digest of
    all that answered: backend, model, settings, prompt; ``fit`` names what the backend, or a calibration of its scores,
    had learned by then. ``seq`` is the last decision that its examples may know of, ``text_hash`` a digest of the
    record's text. Those of older programs have none of these. ``billed`` says that it came through the ledger.
    ``columns`` are the columns of metadata that were sent beside the texts.
    """

    record_id: int
    task: str
    task_version: str
    backend: str
    model_id: str | None
    value: Value | None
    failure: ParseFailure | None
    score: float | None = None
    made: tuple[str, ...] = ()
    evidence: Sequence[Evidence] = ()
    second: SecondOpinion | None = None
    flags: Sequence[str] = ()
    scores: Mapping[str, float] | None = None
    steps: Sequence[Step] = ()
    prompt_digest: str = ""
    kind: str = ""
    fit: str = ""
    seq: int | None = None
    text_hash: str = ""
    billed: bool = False
    columns: Sequence[str] = ()
    id: int = 0
    run_id: int | None = None
    call_id: int | None = None
    created_at: float = 0.0
