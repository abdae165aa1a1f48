"""How one suggestion is made: retrieve examples, build the prompt, ask the backend, parse, add a second opinion."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from labeler import strictjson
from labeler.backends.base import Backend, BackendRequest
from labeler.errors import LabelerError, PluginError
from labeler.labels import Fields, Keywords, LabelSchema, Spans, Text, safe_agreement
from labeler.prompts import PromptStyle, suspicious
from labeler.records import (
    BackendFailure,
    Completion,
    Evidence,
    Example,
    Generation,
    Message,
    ParseFailure,
    Record,
    SecondOpinion,
    Suggestion,
)
from labeler.retrieval.index import ExampleIndex, Hit, Query
from labeler.retrieval.retrievers import Retriever, Similar
from labeler.store import Store, Tx
from labeler.task import Task

if TYPE_CHECKING:
    import numpy as np

NEIGHBOURS = 8
EXTRACTION_NEIGHBOURS = 24
_EVIDENCE = 16
PARSER_FAILED = "parser"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A record with everything a backend needs for it."""

    record: Record
    vector: np.ndarray
    examples: Sequence[Example]
    neighbours: Sequence[Example]
    messages: Sequence[Message] = ()
    fingerprint: str = ""


@dataclass
class Suggester:
    """Makes suggestions for one task of a project, with one backend and one way of retrieving.

    ``second`` are free backends whose answer stands beside the suggestion, the first that has one. ``identity``
    is what, beside the messages, decides an answer of a billed backend: it goes into the fingerprint.
    """

    store: Store
    project_id: int
    task: Task
    index: ExampleIndex
    backend: Backend
    retriever: Retriever
    k: int
    style: PromptStyle = PromptStyle()
    generation: Generation = Generation()
    second: Sequence[Backend] = ()
    identity: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, records: Sequence[Record]) -> list[Prepared]:
        """Retrieve and prompt for several records; their vectors are read (or made) together."""
        vectors = self.index.embeddings.vectors([(record.id, record.text) for record in records])
        return [self._prepare(record, vector) for record, vector in zip(records, vectors, strict=True)]

    def _prepare(self, record: Record, vector: np.ndarray) -> Prepared:
        query = Query.of(record, vector)
        near = self._neighbours(query)
        if not self.backend.billed:
            neighbours = self.index.examples(near)
            return Prepared(record, vector, neighbours, neighbours)
        chosen = self.retriever.retrieve(self.index, query, self.k)
        # Mostly the same examples: their texts are read once.
        hits = {hit.entry.annotation_id: hit for hit in (*near, *chosen)}
        found = {example.annotation_id: example for example in self.index.examples(list(hits.values()))}
        neighbours, examples = (
            [found[hit.entry.annotation_id] for hit in part if hit.entry.annotation_id in found]
            for part in (near, chosen)
        )
        style = self.style.fenced([record.text, *(example.text for example in examples)])
        try:
            messages = self.task.build_prompt(record, examples, style)
            fingerprint = self.fingerprint(record, examples)
        except Exception as error:
            raise PluginError(f"The task {self.task.name} cannot build a prompt: {_shown(error)}") from error
        return Prepared(record, vector, examples, neighbours, messages, fingerprint)

    def _neighbours(self, query: Query) -> list[Hit]:
        if isinstance(self.retriever, Similar) and self.backend.name == "nearest":
            return self.retriever.retrieve(self.index, query, neighbour_count(self.task.schema))
        return self.index.search(query, neighbour_count(self.task.schema))

    def same_neighbours(self, record: Record, suggestion: Suggestion) -> bool:
        """Whether the nearest examples are still those that a free backend's suggestion was made from."""
        vector = self.index.embeddings.vectors([(record.id, record.text)])[0]
        now = [hit.entry.annotation_id for hit in self._neighbours(Query.of(record, vector))[:_EVIDENCE]]
        return now == [evidence.annotation_id for evidence in suggestion.evidence]

    def fingerprint(self, record: Record, examples: Sequence[Example]) -> str:
        """Return the hash of all that decides a completion. The random fence is not part of it."""
        messages = self.task.build_prompt(record, examples, self.style)
        return fingerprint_of({**self.identity, "messages": messages, "schema": self.task.json_schema()})

    def request(self, prepared: Prepared, messages: Sequence[Message] | None = None) -> BackendRequest:
        return BackendRequest(
            record=prepared.record,
            task=self.task.name,
            schema=self.task.schema,
            messages=prepared.messages if messages is None else messages,
            json_schema=self.task.json_schema(),
            generation=self.generation,
            examples=prepared.examples,
            vector=prepared.vector,
        )

    def finish(self, prepared: Prepared, completion: Completion) -> Suggestion:
        """Turn a completion into a suggestion, with evidence and second opinion; an unreadable one says why."""
        value = self.parse(prepared.record, completion)
        failure = value if isinstance(value, ParseFailure) else None
        return Suggestion(
            record_id=prepared.record.id,
            task=self.task.name,
            task_version=self.task.version,
            backend=self.backend.name,
            model_id=completion.model_id or self.backend.model_id,
            value=None if failure else value,
            failure=failure,
            score=completion.score,
            note=completion.note,
            evidence=[Evidence(e.annotation_id, e.record_id, e.similarity) for e in prepared.examples[:_EVIDENCE]],
            second=self._second_opinion(prepared),
            flags=["instruction"] if suspicious(prepared.record.text) else [],
        )

    def parse(self, record: Record, completion: Completion) -> Any:
        """Return the value or a ParseFailure; an answer that was cut off or refused is never read as a label.

        A parser that fails is a ParseFailure too: the answer is paid for, and a person can read it.
        """
        if completion.finish == "length":
            return ParseFailure("truncated", "The answer was cut off at the token limit", completion.text)
        if completion.finish == "refusal":
            return ParseFailure("refusal", "The model refused to answer", completion.text)
        try:
            return self.task.parse_completion(completion.text, record)
        except Exception as error:
            message = f"The parser of the task {self.task.name} failed: {_shown(error)}"
            return ParseFailure(PARSER_FAILED, message, completion.text)

    def _second_opinion(self, prepared: Prepared) -> SecondOpinion | None:
        for backend in self.second:
            if backend.name == self.backend.name:
                continue
            request = replace(self.request(prepared, ()), examples=prepared.neighbours)
            answer = next(iter(backend.complete([request])))
            if isinstance(answer, Completion):
                value = self.task.parse_completion(answer.text, prepared.record)
                if not isinstance(value, ParseFailure):
                    return SecondOpinion(backend.name, value, answer.score)
        return None

    def save(self, tx: Tx, suggestion: Suggestion) -> int:
        """Store a suggestion and point the queue at it; a decided record or a touched draft keeps what it has."""
        id_ = self.store.suggestions.add(tx, self.project_id, suggestion)
        disagreement = None
        if suggestion.second is not None and suggestion.failure is None:
            agreement = safe_agreement(self.task.schema, suggestion.value, suggestion.second.value)
            disagreement = None if agreement is None else 1.0 - agreement
        self.store.work.suggested(tx, suggestion.record_id, self.task.name, id_, suggestion.score, disagreement)
        return id_

    def now(self, records: Sequence[Record], save: bool = True) -> list[Suggestion | BackendFailure]:
        """Suggest at once with a free backend; one result for each record, in order."""
        if self.backend.billed:
            raise ValueError("Calls of a billed backend go through the ledger; start a run")
        prepared = self.prepare(records)
        answers = self.backend.complete([self.request(p) for p in prepared])
        results = [
            answer if isinstance(answer, BackendFailure) else self.finish(p, answer)
            for p, answer in zip(prepared, answers, strict=True)
        ]
        if save:
            made = [(n, result) for n, result in enumerate(results) if isinstance(result, Suggestion)]
            if made:
                ids = self.store.write(lambda tx: [self.save(tx, suggestion) for _, suggestion in made])
                for (n, suggestion), id_ in zip(made, ids, strict=True):
                    results[n] = replace(suggestion, id=id_)
        return results


def neighbour_count(schema: LabelSchema) -> int:
    """How many neighbours the free backends see: more where phrases are extracted rather than voted on."""
    parts = list(schema.parts.values()) if isinstance(schema, Fields) else [schema]
    extracts = any(isinstance(part, (Keywords, Spans, Text)) for part in parts)
    return EXTRACTION_NEIGHBOURS if extracts else NEIGHBOURS


def _shown(error: Exception) -> str:
    return str(error) if isinstance(error, LabelerError) else f"{type(error).__name__}: {error}"


def fingerprint_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(strictjson.dumps(content, sort_keys=True).encode()).hexdigest()
