"""A model that judges answers, and how often people on this project would have said the same.

Two answers to one record are shown, in both orders, because models lean to the one that stands first (Zheng et al.
2023, arXiv:2306.05685): where the orders disagree, it is a tie. First it judges pairs that people have decided on:
rankings of the compare screen, and suggestions that were corrected. Only if it agrees with them often enough does it
judge the arms of an evaluation, each answer beside the approved one. All of it goes through the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from labeler import prompts, strictjson
from labeler.annotation.comparing import read_answers, suggestion_of
from labeler.backends.base import GENERATED
from labeler.errors import Conflict, InputError
from labeler.evaluation.drafts import corrections
from labeler.evaluation.measures import Measure, measured, weights
from labeler.evaluation.replay import ALONE, check_version, place_of
from labeler.evaluation.results import Results
from labeler.instance import Instance
from labeler.labels import Choice, Label
from labeler.prelabel import flows
from labeler.prelabel.suggest import JointFlow, Prepared, Started, Suggester
from labeler.prompts import PromptStyle
from labeler.prompts.styles import FEW_SHOT
from labeler.records import Example, Message, ParseFailure, Record, Suggestion, Value
from labeler.settings import DIRECT, JUDGE, LOCAL_EXECUTOR, REPLAY
from labeler.store import Tx
from labeler.store.judgements import PEOPLE
from labeler.task import Task

LEAST, BOUND = 30, 0.6
"""A judge counts if it agrees with people on at least so many pairs, and the interval of its agreement, where chance is
0.5, lies above this. Two people agree on 0.81 of such pairs in Zheng et al. 2023."""
MOST = 200
"""On so many of the newest decisions of people a judge is tried at most."""
NAME, A, B, TIE = "verdict", "A", "B", "tie"
_VERDICTS = {A: 1.0, B: 0.0, TIE: 0.5}
_TURNED = {A: B, B: A, TIE: TIE}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to a record; people found the ``first`` one better. Near-duplicates alone share a ``place``."""

    record_id: int
    first: Value
    second: Value
    place: int | str = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What a judge is worth: ``agreement`` with people on ``n`` pairs, of which it could not be read on ``unread``."""

    n: int
    unread: int
    agreement: Measure | None

    @property
    def counts(self) -> bool:
        return self.n >= LEAST and self.agreement is not None and self.agreement.low > BOUND


@dataclass(frozen=True, slots=True)
class Judged:
    """How an arm does beside what is approved: 0.5 is as good as people. ``unread`` verdicts count as ties."""

    share: Measure
    unread: int


# What people have decided


def pairs_of_people(instance: Instance, project: Mapping[str, Any], task: Task) -> list[Pair]:
    """Return the newest pairs that people decided on: of rankings, then of corrected suggestions.

    There is one of each record, and of near-duplicates, which say the same. Of a ranking it is the best answer and the
    worst, where people did not find them equal.
    """
    found: dict[int | str, Pair] = {}
    for pair in (*_ranked(instance, project["id"], task), *_corrected(instance, project["id"], task)):
        if pair.first != pair.second:
            found.setdefault(pair.place, pair)
    return list(found.values())[:MOST]


def _ranked(instance: Instance, project_id: int, task: Task) -> Iterator[Pair]:
    store = instance.store
    for page in store.rankings.pages(project_id, task.name, unit=task.unit):
        records = store.records.many([row["record_id"] for row in page])
        for row in page:
            tiers = strictjson.loads(row["ranked"])
            names = [tiers[0][0], tiers[-1][0]] if len(tiers) > 1 else []
            made = store.suggestions.many([number for name in names if (number := suggestion_of(name))])
            said = read_answers(task, records[row["record_id"]], names, made)
            if names and len(said) == len(names):
                yield Pair(row["record_id"], said[names[0]], said[names[1]], place_of(row))


def _corrected(instance: Instance, project_id: int, task: Task) -> Iterator[Pair]:
    for one in corrections(task, instance.store.replays.corrections(project_id, task.name, task.unit, MOST)):
        yield Pair(one.record_id, one.decided, one.suggested, one.place)


# How a model is asked


@dataclass(frozen=True, kw_only=True)
class Judge(Task):
    """The task of a model that judges two answers to a record of ``own``; ``turned`` shows the second one first."""

    own: Task
    pairs: Mapping[int, tuple[Value, Value]]
    turned: bool = False

    @classmethod
    def of(cls, own: Task, pairs: Mapping[int, tuple[Value, Value]]) -> Judge:
        return cls(
            name=NAME, schema=Choice(Label(A), Label(B), Label(TIE)), title=own.title, guidelines=own.guidelines,
            version=own.version, unit=own.unit, own=own, pairs=pairs,
        )  # fmt: skip

    def build_prompt(self, record: Record, examples: Sequence[Example], style: PromptStyle) -> list[Message]:
        """Return the messages that ask for a verdict on the pair of a record; there are no examples."""
        system = prompts.filled(
            "judge.v1", style.language, title=self.own.titled(style.language),
            guidelines=self.own.guided(style.language).strip() or "-",
            labels=self.own.schema.describe(style.language).strip() or "-",
            answer=strictjson.dumps({NAME: self.schema.json_schema()}),
        )  # fmt: skip
        shown = [prompts.review_message(record.text, style.fence)["content"]]
        pair = self.pairs[record.id]
        for name, value in zip("ab", reversed(pair) if self.turned else pair, strict=True):
            text = self.own.schema.render(value, style.language).strip() or "-"
            shown.append(f"<answer-{name}-{style.fence}>\n{text}\n</answer-{name}-{style.fence}>")
        return [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(shown)}]


def both_orders(case: flows.Case, turned: flows.Case) -> flows.Flow:
    """Ask in both orders; a verdict that changes with the order is a tie, one that cannot be read is none."""
    first = yield from flows.direct(case)
    if isinstance(first.value, ParseFailure):
        return first
    second = yield from flows.direct(turned)
    if isinstance(second.value, ParseFailure):
        return second
    return first if first.value == _TURNED[str(second.value)] else replace(first, value=TIE)


class Judging(Suggester):
    """Asks a model about pairs; what it says goes to the replay whose answers it judges."""

    task: Judge
    place: tuple[int, int] = (0, PEOPLE)

    @classmethod
    def of(cls, suggester: Suggester, pairs: Mapping[int, tuple[Value, Value]]) -> Judging:
        """Return what asks with the backend of ``suggester``, whatever its way of prompting."""
        style = replace(PromptStyle(FEW_SHOT, suggester.style.language), secret=suggester.style.secret)
        generation = replace(suggester.generation, temperature=0.0, stop=())
        own = {one.name: getattr(suggester, one.name) for one in fields(Suggester)} | {
            "task": Judge.of(suggester.task, pairs), "k": 0, "second": (), "joint": {}, "mode": DIRECT,
            "answering": GENERATED, "fixed": None, "calibration_of": None, "stacks": False, "style": style,
            "generation": generation,
        }  # fmt: skip
        return cls(**own)

    @classmethod
    def of_run(cls, suggester: Suggester, run_settings: Mapping[str, Any]) -> Judging:
        """Return what moves a run of a judge. Raises :class:`Conflict` where the task was changed since."""
        replay_id, arm = int(run_settings[REPLAY]), int(run_settings["arm"])
        check_version(suggester.task, suggester.store.replays.get(replay_id))
        rows = suggester.store.judgements.of(replay_id, arm)
        read = strictjson.loads
        made = cls.of(suggester, {row["record_id"]: (read(row["first"]), read(row["second"])) for row in rows})
        made.place = replay_id, arm
        return made

    def prepare(self, records: Sequence[Record]) -> list[Prepared]:
        vectors = self.index.embeddings.vectors([(record.id, record.text) for record in records])
        return [Prepared(record, vector, (), ()) for record, vector in zip(records, vectors, strict=True)]

    def flow(self, prepared: Prepared) -> Started:
        case = self.case(prepared)
        turned = replace(case, task=replace(self.task, turned=True))

        def flow() -> JointFlow:
            outcome = yield from both_orders(case, turned)
            return {NAME: outcome}

        return Started(self, flow(), case)

    def save(self, tx: Tx, suggestion: Suggestion) -> int:
        failure = suggestion.failure
        verdict = None if failure is not None else _VERDICTS[str(suggestion.value)]
        self.store.judgements.say(
            tx, *self.place, suggestion.record_id, verdict, None if failure is None else failure.kind
        )
        return 0


# An evaluation that is judged


def check_texts(task: Task) -> None:
    """Raise :class:`InputError` for a task without texts: labels are right or wrong, and need no such comparison."""
    if not any(part.free_text for part in task.schema.split().values()):
        raise InputError(
            "This is for texts, and the values of %(task)s are of the kind %(kind)s", task=task.name,
            kind=task.schema.kind,
        )  # fmt: skip


def suggester_of(instance: Instance, project: Mapping[str, Any], task: Task, judge: Mapping[str, Any]) -> Suggester:
    """Return what asks a judge. Raises :class:`InputError` for a task without texts, and a backend that reads none."""
    check_texts(task)
    named = {name: judge[name] for name in ("backend", "model_id") if judge.get(name)}
    made = instance.suggester(project, task, {**ALONE, **named}, keep=False)
    if not (made.backend.billed and made.backend.prompted):
        raise InputError("The backend %(name)s reads no prompt, so it judges nothing", name=made.backend.name)
    return made


def begin(
    instance: Instance, results: Results, project: Mapping[str, Any], judge: Mapping[str, Any], arm: int,
    pairs: Sequence[Pair], budget: float | None = None,
) -> int | None:  # fmt: skip
    """Queue the run that judges pairs, and return its number; None where there is nothing to ask, or too little.

    With too few decisions of people nobody would know what a judge is worth, so it is not asked. Where an arm is
    judged already, its run is returned. Raises :class:`Conflict` where another model judges, and :class:`InputError`
    as :func:`suggester_of`.
    """
    store, replay_id, task = instance.store, int(results.replay["id"]), results.task
    suggester = suggester_of(instance, project, task, judge)
    told = {"backend": suggester.backend.name, "model_id": suggester.backend.model_id or ""}
    known = store.judgements.judge(replay_id)
    if known is not None and any(known[name] != value for name, value in told.items()):
        raise Conflict(
            "Replay %(number)s is judged by %(judge)s; evaluate again to ask another one", number=replay_id,
            judge=known["model_id"] or known["backend"],
        )  # fmt: skip
    if known is not None and str(arm) in known["runs"]:
        return int(known["runs"][str(arm)])
    if arm == PEOPLE and len(pairs) < LEAST:
        store.write(lambda tx: store.judgements.name(tx, replay_id, told))
        return None
    if not pairs:
        return None
    rows = [(one.record_id, strictjson.dumps(one.first), strictjson.dumps(one.second)) for one in pairs]

    def work(tx: Tx) -> int:
        settings = {**ALONE, **told, "executor": LOCAL_EXECUTOR, "purpose": JUDGE, REPLAY: replay_id, "arm": arm}
        run_id = store.ledger.create_run(tx, project["id"], task.name, settings, budget, None)
        store.ledger.add_items(tx, run_id, [one.record_id for one in pairs])
        store.judgements.ask(tx, replay_id, told, arm, run_id, rows)
        return run_id

    return store.write(work)


def pairs_of_arm(results: Results, arm: int) -> list[Pair]:
    """Return what an arm said beside what is approved, where it said something else."""
    said = results.said_by(arm)
    return [
        Pair(row["record_id"], said[row["record_id"]], value)
        for row, value in results.items
        if said[row["record_id"]] not in (None, value)
    ]


def standing(results: Results) -> Standing | None:
    """Return what the judge of an evaluation is worth; None where there is none. An unreadable verdict is wrong."""
    judgements, replay_id = results.instance.store.judgements, int(results.replay["id"])
    if judgements.judge(replay_id) is None:
        return None
    rows = [row for row in judgements.of(replay_id, PEOPLE) if row["verdict"] is not None or row["failure"]]
    right = np.array([row["verdict"] or 0.0 for row in rows])
    found = measured(weights(len(rows)) @ right / len(rows)) if rows else None
    return Standing(len(rows), sum(row["verdict"] is None for row in rows), found)


def judged(results: Results, arm: int) -> Judged | None:
    """Return how an arm does by a judge that counts; None where it was not asked about every answer.

    An answer that is the approved one is as good as that, and no answer is worse.
    """
    judgements, replay_id = results.instance.store.judgements, int(results.replay["id"])
    rows = {row["record_id"]: row for row in judgements.of(replay_id, arm)}
    said, asked = results.said_by(arm), {pair.record_id for pair in pairs_of_arm(results, arm)}
    unread = {id_ for id_, row in rows.items() if row["verdict"] is None and row["failure"]}
    if any(id_ not in rows or (rows[id_]["verdict"] is None and id_ not in unread) for id_ in asked):
        return None
    worth = [
        0.0 if said[row["record_id"]] is None
        else rows[row["record_id"]]["verdict"] if row["record_id"] in asked - unread
        else 0.5
        for row, _ in results.items
    ]  # fmt: skip
    share = measured(weights(len(worth)) @ np.array(worth) / len(worth)) if worth else None
    return None if share is None else Judged(share, len(unread & asked))
