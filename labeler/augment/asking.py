"""What a model is asked to write: which labels are rare, after which records, and how the calls are put.

A call is made as any: on one record, in a run of the ledger, so that budgets hold and nothing is paid twice. The record
is the first of those that the prompt shows. Records that are held out, or will be by their name, are never shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from labeler import prompts, strictjson
from labeler.backends.base import GENERATED
from labeler.errors import InputError, LabelError
from labeler.evaluation import replay
from labeler.evaluation.readiness import readiness
from labeler.export.contacts import masked
from labeler.export.placing import trained_places
from labeler.export.selection import fixed_place
from labeler.instance import Instance
from labeler.labels import Text
from labeler.prelabel.flows import SAMPLING_TEMPERATURE, Ask, Case
from labeler.prelabel.runs import Estimate
from labeler.prelabel.suggest import Prepared, Suggester
from labeler.prompts import PromptStyle
from labeler.prompts.styles import FEW_SHOT
from labeler.records import Example, Generation, Message, ParseFailure, Record, Suggestion, Value
from labeler.sentence import Sentence
from labeler.settings import DIRECT, LOCAL_EXECUTOR, WRITE
from labeler.store import Tx
from labeler.store.written import Writing
from labeler.task import RECORD, Task, read_json

NAME = "reviews"
EACH = 5
"""How many texts one call asks for."""
# So many texts of people stand in a prompt, and so many that were written and approved (Wang et al. 2022: 6 and 2).
_PEOPLES, _WRITTEN = 6, 2
_LONGEST = 400
_TOKENS_A_CHARACTER = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model will be asked to write, with what.

    ``short`` are labels of which fewer texts can be asked for than were wanted: each call wants another record.
    ``alone`` are labels without a record that may be shown.
    """

    suggester: Suggester
    writings: Sequence[Writing]
    short: Sequence[str] = ()
    alone: Sequence[str] = ()

    @property
    def asking(self) -> Asking:
        return Asking.of(self.suggester, self.writings)


def supports(task: Task) -> bool:
    """Whether texts can be written for a task: it labels single reviews with labels of a list."""
    schema = task.schema
    return task.unit == RECORD and not schema.sides and (schema.one_of_labels or schema.set_of_labels)


def plan(
    instance: Instance, project: Mapping[str, Any], task: Task, labels: Sequence[str] = (), count: int = 2 * EACH,
    settings: Mapping[str, Any] | None = None,
) -> Plan:  # fmt: skip
    """Return what is to be written: ``count`` texts of each label, rounded up to whole calls.

    Without ``labels`` it is those that :func:`readiness` wants more records of.
    ``settings`` are those of the run. Raises :class:`InputError` for a task without labels to choose from, a label that
    is not there or a backend that writes nothing, and where no label lacks anything or no record may be shown.
    """
    schema = task.schema
    if not supports(task):
        raise InputError("Texts are written for tasks that label single reviews with labels of a list")
    if strange := [name for name in labels if name not in schema.candidates()]:
        raise InputError(
            "No label %(name)r in %(task)s; there are: %(names)s", name=strange[0], task=task.name,
            names=", ".join(schema.candidates()),
        )  # fmt: skip
    suggester = replay.arm_of(instance, project, task, settings or {}).suggester
    backend = suggester.backend
    if not backend.billed or backend.learns or not backend.prompted:
        raise InputError("Texts are written by a model that takes prompts; name a backend that asks one")
    wanted = list(labels) or [label.name for label in readiness(instance, project, task).first]
    if not wanted:
        raise InputError("No label lacks records; name one to have texts written for it all the same")
    return _planned(suggester, _Sources(instance, project, task), list(dict.fromkeys(wanted)), count)


def _planned(suggester: Suggester, sources: _Sources, labels: Sequence[str], count: int) -> Plan:
    writings: list[Writing] = []
    short, alone, calls = list[str](), list[str](), -(-count // EACH)
    for label in labels:
        mine = sources.calls(label, calls, {one.record_id for one in writings})
        writings += mine
        if not mine:
            alone.append(label)
        elif len(mine) < calls:
            short.append(label)
    if not writings:
        raise InputError(
            "No approved record may be shown for %(names)s: there is none, or validation and test have them all",
            names=", ".join(alone),
        )
    return Plan(suggester, writings, short, alone)


class _Sources:
    """The records that texts may be written after, by label: reviews of people, and texts that were approved since."""

    def __init__(self, instance: Instance, project: Mapping[str, Any], task: Task) -> None:
        store, project_id = instance.store, int(project["id"])
        self.rounds = store.written.rounds(project_id, task.name)
        entries = [entry for _, entry in instance.index(project, task).entries()]
        free = trained_places(store, project_id, [entry.record_id for entry in entries])
        self.people: dict[str, list[int]] = {}
        for entry in entries:
            for name in entry.strata if entry.record_id in free else ():
                self.people.setdefault(name, []).append(entry.record_id)
        made = store.written.records(project_id, task.name)
        self.origins = store.written.origins(made)
        self.written: dict[str, list[int]] = {}
        for id_, row in store.annotations.approved_among(project_id, task.name, made).items():
            for name in _strata(task, row):
                self.written.setdefault(name, []).append(id_)

    def calls(self, label: str, count: int, taken: set[int]) -> list[Writing]:
        """Return the calls for texts of a label, each on a record that is not ``taken``; the least used come first."""
        mine = self.people.get(label, [])
        first = sorted((id_ for id_ in mine if id_ not in taken), key=lambda id_: self._place(label, id_, 0))
        return [self._call(label, id_) for id_ in first[:count]]

    def _call(self, label: str, record_id: int) -> Writing:
        others = [id_ for id_ in self.people[label] if id_ != record_id]
        shown = [record_id, *self._some(label, others, record_id, _PEOPLES - 1)]
        shown += self._some(label, self.written.get(label, []), record_id, _WRITTEN)
        roots = [source for id_ in shown if id_ in self.origins for source in self.origins[id_].sources]
        sources = sorted({*shown, *roots})
        return Writing(record_id, label, shown, sources, self.rounds[label, record_id])

    def _some(self, label: str, ids: Iterable[int], salt: int, most: int) -> list[int]:
        return sorted(ids, key=lambda id_: self._place(label, id_, salt))[:most]

    def _place(self, label: str, record_id: int, salt: int) -> tuple[int, bytes]:
        """Return a place in an order that looks random: another one for each call and round."""
        used = self.rounds[label, record_id]
        return used, fixed_place(f"{label} {record_id} {salt} {self.rounds[label, salt]}")


def _strata(task: Task, row: Any) -> tuple[str, ...]:
    try:
        return task.schema.strata(task.read(strictjson.loads(row["value"]), row["task_version"]))
    except LabelError:
        return ()


def estimate(instance: Instance, project: Mapping[str, Any], made: Plan) -> Estimate:
    """Return what a plan would take, before anyone pays."""
    return replay.estimated(instance, project, made.asking, [one.record_id for one in made.writings])


def start(
    instance: Instance, project: Mapping[str, Any], task: Task, made: Plan, budget: float | None = None,
    reviewer_id: int | None = None, settings: Mapping[str, Any] | None = None,
) -> int:  # fmt: skip
    """Store the run of a plan and return its number; a worker sees it through."""
    store, backend, place = instance.store, made.suggester.backend, (int(project["id"]), task.name)
    # Few calls are not worth a day's wait for a batch.
    run = {**replay.ALONE, **(settings or {}), "backend": backend.name, "model_id": backend.model_id or ""}
    run |= {"executor": LOCAL_EXECUTOR, "purpose": WRITE}

    def work(tx: Tx) -> int:
        run_id = store.ledger.create_run(tx, *place, run, budget, reviewer_id)
        store.written.ask(tx, *place, run_id, made.writings)
        store.ledger.add_items(tx, run_id, [one.record_id for one in made.writings])
        return run_id

    return store.write(work)


# How a model is asked


@dataclass(frozen=True, kw_only=True)
class Reviews(Task):
    """The task of a model that writes reviews as ``own`` labels them; ``wanted`` are the calls by their records."""

    schema: Text
    own: Task
    wanted: Mapping[int, Writing]

    @classmethod
    def of(cls, own: Task, writings: Iterable[Writing]) -> Reviews:
        return cls(
            name=NAME, schema=Text(1, _LONGEST), title=own.title, guidelines=own.guidelines, version=own.version,
            unit=own.unit, own=own, wanted={one.record_id: one for one in writings},
        )  # fmt: skip

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of an answer: an object with a list of texts."""
        texts = {"type": "array", "items": self.schema.json_schema(), "minItems": 1, "maxItems": EACH}
        return {
            "type": "object", "properties": {NAME: texts}, "required": [NAME], "additionalProperties": False
        }  # fmt: skip

    def build_prompt(self, record: Record, examples: Sequence[Example], style: PromptStyle) -> list[Message]:
        """Return the messages that ask for texts. The record is only whose call it is: ``examples`` are shown."""
        system = prompts.filled(
            "write.v1", style.language, title=self.own.titled(style.language),
            guidelines=self.guided(style.language).strip() or "-",
            labels=self.own.schema.describe(style.language).strip() or "-", longest=str(self.schema.maximum),
            answer=strictjson.dumps({NAME: self.json_schema()["properties"][NAME]}),
        )  # fmt: skip
        shown = [prompts.review_message(one.text, style.mark(one.text))["content"] for one in examples]
        one = self.wanted[record.id]
        title = self.own.schema.label(one.label).titled(style.language)
        label = one.label if title == one.label else f"{one.label} ({title})"
        words = {"reviews": "\n\n".join(shown), "label": label, "count": str(EACH)}
        asked = prompts.filled("write-ask.v1", style.language, **words)
        return [{"role": "system", "content": system}, {"role": "user", "content": asked}]

    def answer(self, value: Value) -> str:
        """Return what is as long as an answer will be: texts like the example."""
        return strictjson.dumps({NAME: [value] * EACH}, separators=(", ", ": "))

    def parse_completion(self, completion: str, record: Record) -> Value | ParseFailure:
        """Return the texts of an answer, at most as many as were asked for; all of it is read, or nothing."""
        answer = read_json(completion)
        if isinstance(answer, ParseFailure):
            return answer
        texts = answer.get(NAME) if isinstance(answer, dict) and set(answer) == {NAME} else None
        if not isinstance(texts, list):
            message = Sentence("Expected one object with the only key %(name)r, and a list of texts in it", name=NAME)
            return ParseFailure("shape", message, completion)
        if not 1 <= len(texts) <= EACH:
            message = Sentence("The answer has %(n)s texts; 1 to %(most)s were asked for", n=len(texts), most=EACH)
            return ParseFailure("count", message, completion)
        try:
            return [self.schema.parse(text) for text in texts]
        except LabelError as error:
            return ParseFailure(error.kind, str(error), completion)


class Asking(Suggester):
    """Asks for texts; what comes back waits to be sifted, and is no suggestion for the record that it was asked on."""

    task: Reviews
    chosen = True
    run_id: int = 0

    @classmethod
    def of(cls, suggester: Suggester, writings: Iterable[Writing], run_id: int = 0) -> Asking:
        """Return what asks with the backend of ``suggester``, whatever its way of prompting."""
        task = Reviews.of(suggester.task, writings)
        own = {one.name: getattr(suggester, one.name) for one in fields(Suggester)} | {
            "task": task, "k": 0, "second": (), "joint": {}, "mode": DIRECT, "answering": GENERATED, "fixed": None,
            "calibration_of": None, "stacks": False, "style": replace(suggester.style, name=FEW_SHOT, columns=()),
            "generation": _generation(suggester.generation),
        }  # fmt: skip
        made = cls(**own)
        made.run_id = run_id
        return made

    @classmethod
    def of_run(cls, suggester: Suggester, run_id: int) -> Asking:
        """Return what moves a run that asks for texts."""
        return cls.of(suggester, suggester.store.written.of_run(run_id), run_id)

    def prepare(self, records: Sequence[Record]) -> list[Prepared]:
        """Return what each call shows: it was chosen when the run was made. Contact data is masked."""
        vectors = self.index.embeddings.vectors([(record.id, record.text) for record in records])
        ids = {id_ for record in records for id_ in self.task.wanted[record.id].shown}
        texts = {id_: masked(record.text) for id_, record in self.store.records.many(sorted(ids)).items()}
        return [
            Prepared(record, vector, [_example(id_, texts) for id_ in self._shown(record) if id_ in texts], ())
            for record, vector in zip(records, vectors, strict=True)
        ]

    def _shown(self, record: Record) -> Sequence[int]:
        return self.task.wanted[record.id].shown

    def fingerprint(self, case: Case, ask: Ask, examples: Sequence[Example]) -> str:
        """Return the hash of a call. Asked again in a later run, it is another one: other texts are wanted."""
        nth = self.task.wanted[case.record.id].round
        return super().fingerprint(case, replace(ask, part=f"{ask.part} {nth}") if nth else ask, examples)

    def save(self, tx: Tx, suggestion: Suggestion) -> int:
        said: Any = suggestion.failure or suggestion.value
        self.store.written.wrote(tx, self.run_id, suggestion.record_id, suggestion.model_id or "", said)
        return 0


def _example(record_id: int, texts: Mapping[int, str]) -> Example:
    return Example(0, record_id, texts[record_id], texts[record_id], 0.0)


def _generation(own: Generation) -> Generation:
    """Return how texts are generated: with room for all of them, and not always the likeliest one."""
    most = None if own.max_tokens is None else max(own.max_tokens, _TOKENS_A_CHARACTER * _LONGEST * EACH // 2)
    chosen = own.explicit - {"max_tokens", "stop"}
    return replace(own, max_tokens=most, stop=(), temperature=own.temperature or SAMPLING_TEMPERATURE, explicit=chosen)
