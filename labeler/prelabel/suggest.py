"""How one suggestion is made: retrieve examples, build the prompt, ask the backend, parse, add a second opinion."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from labeler import strictjson
from labeler.asked import asked
from labeler.backends import endings
from labeler.backends.base import AUTO, GENERATED, Backend, BackendRequest
from labeler.errors import InputError, LabelerError, PluginError
from labeler.labels import safe_agreement
from labeler.prelabel import flows
from labeler.prelabel.calibration import Calibration
from labeler.prelabel.fitting import fit_joint, flags_of, longest_answer, room
from labeler.prelabel.flows import Ask, Case, Flow, Outcome
from labeler.prelabel.meant import left_over
from labeler.prelabel.stack import FREE, MODEL, TOGETHER, Stack
from labeler.prelabel.tokens import Refused, Tokens
from labeler.prompts import FRAME_VERSION, PromptStyle, shown, suspicious, unmarked
from labeler.prompts.forms import FULL, JSON, STORED
from labeler.records import (
    BackendFailure,
    Completion,
    Evidence,
    Example,
    Generation,
    ParseFailure,
    Record,
    SecondOpinion,
    Step,
    Suggestion,
    Value,
)
from labeler.retrieval.index import ExampleIndex, Hit, Query
from labeler.retrieval.retrievers import Retriever, Similar
from labeler.sentence import Sentence
from labeler.settings import CASCADE, DIRECT
from labeler.store import Store, Tx
from labeler.task import Task

if TYPE_CHECKING:
    import numpy as np

JointFlow = Generator[list[Ask], list[Completion], dict[str, Outcome]]
EVIDENCE, AGAINST = 16, 2
_FREE = 2
"""A cascade goes by what two free backends say alike."""
CALIBRATED = "calibrated"
STACKED = {TOGETHER: "stacked", FREE: "free instead"}
"""How a suggestion is made that is not the model's alone."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A record with everything a backend needs for it. ``joint`` are other tasks of it, to be asked in one call.

    ``seq`` is the last decision that the examples surely know of. ``refused`` is a prompt of this
    record that was refused for its length; None where there was none.
    """

    record: Record
    vector: np.ndarray
    examples: Sequence[Example]
    neighbours: Sequence[Example]
    seq: int = 0
    joint: Mapping[str, Prepared] = field(default_factory=dict)
    fixed: Sequence[Example] = ()
    refused: Refused | None = None


@dataclass
class Suggester:
    """Makes suggestions for one task of a project, with one backend, one retriever and one style of prompts.

    ``second`` are free backends whose answer stands beside the suggestion, the first that has one. ``identity``
    is what, beside the messages, decides an answer of a billed backend: it goes into the fingerprint. ``fixed``
    retrieves the examples of a cascade's second step, the same ones for nearly all records. ``joint`` are the
    suggesters of other tasks that are asked in the same call, by task. ``calibration_of`` returns the calibration of
    a model id and a digest of the prompt. ``context`` is how many tokens the model reads, where that is known and the
    backend does not say it. ``stacks`` says that answers are pooled with the free suggestion as a trial bore it out.
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
    answering: str = AUTO
    mode: str = DIRECT
    cascade_score: float | None = None
    fixed: Retriever | None = None
    calibration_of: Callable[[str | None, str], Calibration | None] | None = None
    joint: Mapping[str, Suggester] = field(default_factory=dict)
    context: int | None = None
    stacks: bool = False
    chosen: ClassVar[bool] = False
    """Whether :meth:`prepare` gives what was chosen when the run was made, whatever was approved since."""

    def prepare(self, records: Sequence[Record]) -> list[Prepared]:
        """Retrieve for several records; their vectors are read (or made) together."""
        vectors = self.index.embeddings.vectors([(record.id, record.text) for record in records])
        seq = self.index.refresh()
        prepared = [self._prepare(record, vector, seq) for record, vector in zip(records, vectors, strict=True)]
        if self.backend.billed:
            ids = [record.id for record in records]
            found = self.store.ledger.refused(self.backend.name, self.backend.model_id, ids)
            refused = {id_: Refused(*numbers) for id_, numbers in found.items()}
            prepared = [replace(p, refused=refused.get(p.record.id)) for p in prepared] if refused else prepared
        return self._joined(prepared) if self.joint else prepared

    def _prepare(self, record: Record, vector: np.ndarray, seq: int) -> Prepared:
        query = Query.of(record, vector, seq)
        if not self.backend.billed:
            neighbours = self.index.examples(self._neighbours(query))
            return Prepared(record, vector, neighbours, neighbours, seq)
        # The wider search first: the neighbours are the head of what it found.
        chosen = self.retriever.retrieve(self.index, query, self.k)
        near = self._neighbours(query)
        # Mostly the same examples: their texts are read once.
        hits = {hit.entry.annotation_id: hit for hit in (*near, *chosen)}
        found = {example.annotation_id: example for example in self.index.examples(list(hits.values()))}
        neighbours, examples = (
            [found[hit.entry.annotation_id] for hit in part if hit.entry.annotation_id in found]
            for part in (near, chosen)
        )
        examples = self._sent(examples)
        fixed = self._fixed_examples(query) if self.mode == CASCADE else ()
        return Prepared(record, vector, examples, neighbours, seq, fixed=fixed)

    def _joined(self, prepared: Sequence[Prepared]) -> list[Prepared]:
        """Add the other tasks to be asked in the same call: for each record those that are pending there."""
        ids = [p.record.id for p in prepared]
        others: dict[int, dict[str, Prepared]] = {id_: {} for id_ in ids}
        for name, suggester in self.joint.items():
            pending = self.store.work.pending_among(self.project_id, name, ids)
            records = [p.record for p in prepared if p.record.id in pending]
            for other in suggester.prepare(records):
                others[other.record.id][name] = other
        return [replace(p, joint=others[p.record.id]) for p in prepared]

    def _neighbours(self, query: Query) -> list[Hit]:
        if isinstance(self.retriever, Similar) and self.backend.name == "nearest":
            return self.retriever.retrieve(self.index, query, self.task.schema.neighbours)
        return self.index.search(query, self.task.schema.neighbours)

    def shown_now(self, record: Record, value: Value | None) -> list[int]:
        """Return the annotations that a suggestion of ``value`` for a record would have as evidence now, in order.

        Those of a prompt are the ones that are left after it was made to fit into what the model reads.
        """
        (prepared,) = self.prepare([record])
        examples = prepared.examples
        if self.backend.billed:
            examples = shown(self.flow(prepared).case.examples, self.style)
        return [evidence.annotation_id for evidence in self._evidence(prepared, examples, value)]

    def moved_by(self, record: Record, value: Value) -> Mapping[str, Sequence[tuple[str, float]]]:
        """Return what each word of a record does for each label of ``value``, where the backend learns from approvals.

        In nats, most first: see :meth:`labeler.backends.ensemble.backend.EnsembleBackend.moved_by`.
        """
        if not self.backend.learns:
            return {}
        (prepared,) = self.prepare([record])
        return self.backend.moved_by(self.request(prepared), value)

    def _evidence(self, prepared: Prepared, examples: Sequence[Example], value: Value | None) -> list[Evidence]:
        """Return the examples that a suggestion was made from, and the nearest that speak against a free one.

        Neighbours that all say the same show nothing of what else the text could be taken for.
        """
        found = [Evidence(e.annotation_id, e.record_id, e.similarity) for e in examples[:EVIDENCE]]
        schema = self.task.schema
        if self.backend.billed or not schema.candidates() or value is None or schema.says_nothing(value):
            return found
        labels = set(schema.strata(value))
        if not examples or any(labels.isdisjoint(schema.strata(example.value)) for example in examples):
            return found
        if labels >= self.index.counts().keys():
            return found
        against = self.index.search(
            Query.of(prepared.record, prepared.vector), AGAINST, accept=lambda entry: labels.isdisjoint(entry.strata)
        )
        return found + [Evidence(h.entry.annotation_id, h.entry.record_id, h.similarity) for h in against]

    # The calls of a suggestion

    def case(self, prepared: Prepared) -> Case:
        """Return what the flow of a record works with; the record's fence is a fresh random one."""
        whole = prepared.record
        record = whole
        if self.columns or whole.parts:
            record = replace(whole, text=self.style.sent(whole.text, whole.metadata, whole.parts))
        texts = [record.text, *(example.text for example in prepared.examples)]
        task, answering = self.asked, self.answering
        longest = None if self.backend.thinks else self._longest(task.json_schema())

        def parse(_: Record, completion: Completion) -> Any:
            # What is quoted from a text stands in the text itself, whatever is sent before it.
            return self.parse(whole, completion, task)

        if task is not self.task:
            # Scores are of the labels as they are stored.
            answering = GENERATED
        return Case(
            task, record, prepared.examples, self.style.fenced(texts), self.generation, answering, parse,
            longest=longest,
        )  # fmt: skip

    @cached_property
    def asked(self) -> Task:
        """The task as the model is asked for it."""
        return asked(self.task, self.style)

    def flow(self, prepared: Prepared) -> Started:
        """Return the flow of calls for a record, ready to be driven; it returns one outcome for each task.

        What its prompts show is made to fit into what the model reads; the outcomes are flagged then.
        """
        whole = {self.task.name: self.case(prepared)}
        whole |= {name: self.joint[name].case(other) for name, other in prepared.joint.items()}
        cases = self._fitted(whole, prepared.refused)
        case = cases[self.task.name]
        if prepared.joint:
            others = [example for name, other in cases.items() if name != self.task.name for example in other.examples]
            return Started(self, flows.joint(cases), case, others)
        if self.mode == CASCADE:
            first = replace(whole[self.task.name], examples=prepared.fixed)
            fixed = self._fitted({self.task.name: first}, prepared.refused)[self.task.name]
            free = partial(self._free_answer, prepared)
            one = flows.cascade(case, fixed.examples, free, self.cascade_score, fixed.flags)
            return Started(self, _single(self.task.name, one), case, fixed.examples)
        return Started(self, _single(self.task.name, flows.flow_for(case)), case)

    def _fitted(self, cases: Mapping[str, Case], refused: Refused | None) -> Mapping[str, Case]:
        """Return the cases of one flow, shortened and flagged where the model is known to read less than they show."""
        fitted = self._shortened(cases, refused)
        return {name: replace(case, flags=flags_of(cases[name], case)) for name, case in fitted.items()}

    def _shortened(self, cases: Mapping[str, Case], refused: Refused | None) -> Mapping[str, Case]:
        context = self.reads
        if context is None:
            return cases
        limit = room(context, list(cases.values()), self.backend.local)
        count = self.backend.count_tokens
        if count is None:
            count, limit = partial(self.tokens.prompt, refused=refused), int(limit * self.tokens.margin)
        try:
            with _building(self.task.name):
                return fit_joint(cases, count, limit)
        except InputError:
            # Messages that the model's template refuses have no length; the backend says so, of this record alone.
            return cases

    @property
    def reads(self) -> int | None:
        """How many tokens a prompt and its answer may have together; None where that is not known (yet)."""
        context = self.backend.context
        return context or self.context

    @cached_property
    def tokens(self) -> Tokens:
        """What counts the tokens of prompts as the model's server does."""
        server = self.backend.base_url or self.backend.name
        return Tokens(self.store, server, self.backend.model_id or "")

    def _longest(self, json_schema: Mapping[str, Any]) -> int | None:
        """Return how many tokens an answer can need; None where nothing bounds it but ``max_tokens``."""
        return (
            None if "max_tokens" in self.generation.explicit else longest_answer(json_schema, self.tokens.a_character)
        )

    def _fixed_examples(self, query: Query) -> list[Example]:
        return self._sent(self.index.examples(self.fixed.retrieve(self.index, query, self.k))) if self.fixed else []

    def _sent(self, examples: Sequence[Example]) -> list[Example]:
        """Return examples for a prompt, with the columns that the model sees and the titles of their parts."""
        return [
            replace(e, text=self.style.sent(e.text, e.metadata, e.parts)) if self.columns or e.parts else e
            for e in examples
        ]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the metadata that answers are made from, beside the texts."""
        return self.style.columns

    def _free_answer(self, prepared: Prepared) -> tuple[Value, float | None] | None:
        """Return what the free backends say, with the lower score if they say the same, else without one."""
        answers = self._free_answers(prepared, _FREE)
        if not answers:
            return None
        first, *others = answers
        scores = [answer.score for answer in answers if answer.score is not None]
        agree = len(others) == _FREE - 1 and all(answer.value == first.value for answer in others)
        return first.value, min(scores) if agree and len(scores) == len(answers) else None

    def fingerprint(self, case: Case, ask: Ask, examples: Sequence[Example]) -> str:
        """Return the hash of all that decides a completion; the random fences are not part of it."""
        settings = [self._fixed_identity, ask.json_schema, _settings_of(ask.generation), ask.answering, ask.part]
        # The messages as they are: as JSON they would take as long as all the rest.
        digest = hashlib.sha256(strictjson.dumps(settings, sort_keys=True).encode() + b"\0")
        digest.update(unmarked(ask.messages, case.style, examples).encode())
        return digest.hexdigest()

    @cached_property
    def _fixed_identity(self) -> str:
        return strictjson.dumps(self.identity, sort_keys=True)

    def request(self, prepared: Prepared, ask: Ask | None = None) -> BackendRequest:
        """Return the request of one call; without ``ask`` that of a free backend, which reads no messages."""
        sizes = [len(example.value) for example in prepared.examples if isinstance(example.value, list)]
        return BackendRequest(
            record=prepared.record,
            task=self.task.name,
            schema=self.task.schema,
            messages=ask.messages if ask else (),
            json_schema=ask.json_schema if ask else {},
            generation=ask.generation if ask else self.generation,
            examples=prepared.examples,
            vector=prepared.vector,
            columns=self.columns,
            answering=ask.answering if ask else AUTO,
            size=sum(sizes) / len(sizes) if sizes else None,
            longest=self._longest(ask.json_schema) if ask else None,
        )

    @cached_property
    def prompt_digest(self) -> str:
        """A digest of how prompts are put: what moves all scores of a model up or down."""
        style = self.style
        retriever = f"{type(self.retriever).__module__}.{type(self.retriever).__qualname__}"
        parts: list[Any] = [FRAME_VERSION, style.name, style.language, style.persona, style.wording]
        parts += [retriever, self.k, self.task.version]
        parts += [list(self.columns)] if self.columns else []
        form = [style.guidelines, style.answers, style.names]
        parts += [form] if form != [FULL, JSON, STORED] else []
        return hashlib.sha256(strictjson.dumps(parts).encode()).hexdigest()[:12]

    @cached_property
    def kind(self) -> str:
        """A digest of all that answers, but what it has learned: the kind of the suggestions that are made here."""
        parts: list[Any] = [self.backend.name, self.backend.model_id]
        if self.backend.billed:
            parts += [
                self.prompt_digest,
                self._fixed_identity,
                _settings_of(self.generation),
                self.answering,
                self.mode,
            ]
            # Not the tasks that are asked in the same call: who set two to ask for each other would pay for both twice.
            parts += [self.cascade_score]
        else:
            parts += [self.index.embeddings.embedder.id, self.task.version]
            parts += [list(self.columns)] if self.columns else []
        return hashlib.sha256(strictjson.dumps(parts).encode()).hexdigest()[:16]

    def learned(self, model_id: str | None, scores: Mapping[str, float] | None) -> str:
        """Name what was learned from approvals and takes part in an answer now: a fit, or a calibration of scores."""
        if not self.backend.billed:
            return self.backend.learned
        if (stack := self.stack) is not None:
            return " ".join([stack.digest, *(free.learned for free in self.second[:1])])
        calibration = self._calibration(model_id) if scores else None
        return "" if calibration is None else calibration.digest

    def finish(self, prepared: Prepared, outcome: Outcome, alone: bool = False) -> Suggestion:
        """Turn an outcome into a suggestion, with evidence and second opinion; an unreadable one says why.

        ``alone`` leaves the answer of the model as it is: what it is worth is about to be found out.
        """
        second = next(self._free_said(prepared), None)
        stack = None if alone else self.stack
        outcome = self._calibrated(outcome) if stack is None else self._stacked(prepared, outcome, stack, second)
        completion = outcome.completion
        examples = prepared.examples if outcome.examples is None else outcome.examples
        failure = outcome.value if isinstance(outcome.value, ParseFailure) else None
        record = prepared.record
        speaks = suspicious(self.style.sent(record.text, record.metadata))
        return Suggestion(
            record_id=record.id,
            task=self.task.name,
            task_version=self.task.version,
            backend=self.backend.name,
            model_id=completion.model_id or self.backend.model_id,
            value=None if failure else outcome.value,
            failure=failure,
            score=completion.score,
            made=completion.made,
            evidence=self._evidence(prepared, examples, None if failure else outcome.value),
            second=None if second is None else second[0],
            flags=[*(["instruction"] if speaks else []), *outcome.flags],
            scores=completion.scores,
            steps=outcome.steps,
            prompt_digest=self.prompt_digest,
            kind=self.kind,
            fit=completion.fit or (self.learned(completion.model_id, completion.scores) if self.backend.billed else ""),
            seq=prepared.seq,
            text_hash=record.content_hash,
            billed=self.backend.billed,
            columns=self.columns,
        )

    def finish_all(self, prepared: Prepared, outcomes: Mapping[str, Outcome], alone: bool = False) -> list[Suggestion]:
        """Turn the outcomes of a flow into suggestions, that of the run's own task first."""
        made = [self.finish(prepared, outcomes[self.task.name], alone)]
        others = ((name, other) for name, other in prepared.joint.items() if name in outcomes)
        return [*made, *(self.joint[name].finish(other, outcomes[name]) for name, other in others)]

    def _calibrated(self, outcome: Outcome) -> Outcome:
        """Let the calibration decide where there is one that won; the completion keeps the backend's own scores."""
        completion = outcome.completion
        if not completion.scores or isinstance(outcome.value, ParseFailure):
            return outcome
        calibration = self._calibration(completion.model_id)
        if calibration is None:
            return outcome
        adjusted = calibration.apply(completion.scores)
        value = self.task.schema.decide(adjusted)
        if value is None:
            return outcome
        certain = [adjusted[name] for name in self.task.schema.chosen(value)] or [
            1 - max(adjusted.values(), default=0.0)
        ]
        completion = replace(completion, score=sum(certain) / len(certain), made=(*completion.made, CALIBRATED))
        return replace(outcome, value=value, completion=completion)

    @property
    def stack(self) -> Stack | None:
        """How answers are pooled with the free suggestion; None where they stay as the model gave them."""
        if not (self.stacks and self.backend.billed):
            return None
        told = self.store.ledger.last_trial(self.project_id, self.task.name, self.kind)
        found = Stack.from_json(told) if told else None
        return found if found is not None and found.use != MODEL else None

    def _stacked(
        self, prepared: Prepared, outcome: Outcome, stack: Stack, second: tuple[SecondOpinion, Completion] | None
    ) -> Outcome:
        """Let the model and the free suggestion decide together, or the free one alone where the model adds nothing.

        The completion keeps the model's own scores; its own answer is a step where it is another one.
        """
        if second is None or isinstance(outcome.value, ParseFailure):
            return outcome
        free, said = second
        found: tuple[Value, float | None] | None = (free.value, free.score)
        if stack.use == TOGETHER:
            own = outcome.completion.scores
            found = stack.pooled(self.task.schema, outcome.value, own, said.scores) if said.scores else None
        near = [(example.value, example.similarity) for example in prepared.neighbours]
        if found is None or left_over(self.task.schema, found[0], near):
            return outcome
        value, score = found
        made = (*outcome.completion.made, STACKED[stack.use])
        step = [Step("model", self.task.answer(outcome.value))] if outcome.value != value else []
        completion = replace(outcome.completion, score=score, made=made)
        return replace(outcome, value=value, completion=completion, steps=(*outcome.steps, *step))

    def _calibration(self, model_id: str | None) -> Calibration | None:
        """Return the calibration that corrects the scores of a model; None if there is none that won."""
        found = (
            self.calibration_of(model_id or self.backend.model_id, self.prompt_digest) if self.calibration_of else None
        )
        return found if found is not None and found.used else None

    def parse(self, record: Record, completion: Completion, task: Task | None = None) -> Any:
        """Return the value or a ParseFailure; an answer that was cut off or refused is never read as a label.

        A parser that fails is a ParseFailure too: the answer is paid for, and a person can read it.
        """
        if failure := endings.no_answer(completion, self.generation.max_tokens):
            return failure
        try:
            return (task or self.task).parse_completion(completion.text, record)
        except Exception as error:
            message = Sentence(
                "The parser of the task %(task)s failed: %(reason)s", task=self.task.name, reason=_shown(error)
            )
            return ParseFailure(flows.PARSER_FAILED, message, completion.text)

    def _free_answers(self, prepared: Prepared, limit: int) -> list[SecondOpinion]:
        """Return what the first ``limit`` free backends that have an answer say of a record."""
        return [opinion for opinion, _ in islice(self._free_said(prepared), limit)]

    def _free_said(self, prepared: Prepared) -> Iterator[tuple[SecondOpinion, Completion]]:
        """Yield what the free backends that have an answer say of a record."""
        request = None
        near = [(example.value, example.similarity) for example in prepared.neighbours]
        for backend in self.second:
            if backend.name == self.backend.name:
                continue
            request = request or replace(self.request(prepared), examples=prepared.neighbours)
            answer = next(iter(backend.complete([request])))
            if isinstance(answer, Completion):
                value = self.task.parse_completion(answer.text, prepared.record)
                if not isinstance(value, ParseFailure) and not left_over(self.task.schema, value, near):
                    yield SecondOpinion(backend.name, value, answer.score), answer

    def save(self, tx: Tx, suggestion: Suggestion) -> int:
        """Store a suggestion and point the queue at it; a decided record or a touched draft keeps what it has."""
        if suggestion.task in self.joint:
            return self.joint[suggestion.task].save(tx, suggestion)
        id_ = self.store.suggestions.add(tx, self.project_id, suggestion)
        disagreement = None
        if suggestion.second is not None and suggestion.failure is None:
            agreement = safe_agreement(self.task.schema, suggestion.value, suggestion.second.value)
            disagreement = None if agreement is None else 1.0 - agreement
        self.store.work.suggested(
            tx, suggestion.record_id, self.task.name, id_, suggestion.score, disagreement, suggestion.text_hash
        )
        return id_

    def of_texts(self, texts: Sequence[str]) -> list[Value | ParseFailure | None]:
        """Return what a free backend says of texts that are no records; None where it says nothing."""
        records = [Record(0, self.project_id, "", text) for text in texts]
        vectors, seq = self.index.embeddings.embedder.embed(list(texts)), self.index.refresh()
        prepared = [self._prepare(record, vector, seq) for record, vector in zip(records, vectors, strict=True)]
        answers = self.backend.complete([self.request(one) for one in prepared])
        return [
            None if isinstance(answer, BackendFailure) else self.parse(one.record, answer)
            for one, answer in zip(prepared, answers, strict=True)
        ]

    def now(self, records: Sequence[Record], save: bool = True) -> list[Suggestion | BackendFailure]:
        """Suggest at once with a free backend; one result for each record, in order."""
        if self.backend.billed:
            raise ValueError("Calls of a billed backend go through the ledger; start a run")
        if not records:
            return []
        prepared = self.prepare(records)
        answers = self.backend.complete([self.request(p) for p in prepared])
        results = [
            answer
            if isinstance(answer, BackendFailure)
            else self.finish(p, Outcome(self.parse(p.record, answer), answer))
            for p, answer in zip(prepared, answers, strict=True)
        ]
        if save:
            made = [(n, result) for n, result in enumerate(results) if isinstance(result, Suggestion)]
            if made:
                ids = self.store.write(lambda tx: [self.save(tx, suggestion) for _, suggestion in made])
                for (n, suggestion), id_ in zip(made, ids, strict=True):
                    results[n] = replace(suggestion, id=id_)
        return results


@dataclass
class Started:
    """A flow that is on its way: ``step`` moves it on and returns the calls it wants, or None when it came to an end.

    Raises :class:`PluginError` where the task fails to build a prompt.
    """

    suggester: Suggester
    flow: JointFlow
    case: Case
    more_examples: Sequence[Example] = ()
    outcomes: Mapping[str, Outcome] | None = None

    def step(self, completions: list[Completion] | None = None) -> list[Ask] | None:
        with _building(self.case.task.name):
            try:
                return next(self.flow) if completions is None else self.flow.send(completions)
            except StopIteration as end:
                self.outcomes = end.value
                return None

    def fingerprint(self, ask: Ask) -> str:
        return self.suggester.fingerprint(self.case, ask, [*self.case.examples, *self.more_examples])


@contextmanager
def _building(task: str) -> Iterator[None]:
    """Raise what goes wrong in a task's own prompts as a :class:`PluginError` that names the task."""
    try:
        yield
    except LabelerError:
        raise
    except Exception as error:
        raise PluginError(
            "The task %(task)s cannot build a prompt: %(reason)s", task=task, reason=_shown(error)
        ) from error


def _single(task: str, flow: Flow) -> JointFlow:
    outcome = yield from flow
    return {task: outcome}


def _settings_of(generation: Generation) -> list[Any]:
    """What of the settings decides an answer; who chose them does not."""
    g = generation
    return [g.max_tokens, g.temperature, g.top_k, g.top_p, g.seed, list(g.stop)]


def _shown(error: Exception) -> str:
    return str(error) if isinstance(error, LabelerError) else f"{type(error).__name__}: {error}"
