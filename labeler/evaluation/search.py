"""Prompt search: drafts of guidelines from corrections, judged by a replay of approvals that no draft was made from.

What a person labelled is laid on two sides by a hash, near-duplicates together: corrections of the one are shown to the
model that drafts, approvals of the other are replayed under the guidelines as they are and under each draft. A draft
that is shown to gain can be adopted, by a person, as the next version of the guidelines.

The search has one round. A second one that sees the scores of the first, as OPRO has it, would be made from the very
approvals that judge it, and no interval of theirs would hold any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from labeler.errors import Conflict, InputError
from labeler.evaluation import replay
from labeler.evaluation.drafts import Correction, Drafting, corrections, drafts_of, grouped
from labeler.evaluation.replay import ALONE, place_of
from labeler.evaluation.results import Results
from labeler.export.splits import TEST, Shares, split_of
from labeler.instance import Instance
from labeler.prelabel.runs import Estimate
from labeler.prelabel.suggest import Suggester
from labeler.settings import DRAFT, LOCAL_EXECUTOR, REPLAY, REPLAY_SAMPLE, SEARCH_DRAFTS
from labeler.store import Tx
from labeler.store.replays import Draft
from labeler.task import Task

LEAST = 20
"""On so many held-out approvals a draft is judged at least."""
_NEWEST = 1_000
# A few corrections make a draft, and the more approvals judge it, the smaller a gain they can show.
_SHARES = Shares(1 / 3, 0.0, 2 / 3)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search will ask for: ``drafts``, made from ``corrections`` by annotation, and judged on ``items``."""

    suggester: Suggester
    drafts: Sequence[Draft]
    corrections: Mapping[int, Correction]
    items: Sequence[tuple[int, int, int]]

    @property
    def drafting(self) -> Drafting:
        shown = {draft.record_id: [self.corrections[id_] for id_ in draft.shown] for draft in self.drafts}
        return Drafting.of(self.suggester, shown)


def is_held_out(place: int | str) -> bool:
    """Whether what was labelled there judges drafts, and none is made from it: the same in every search."""
    return split_of(str(place), _SHARES) == TEST


def plan(
    instance: Instance, project: Mapping[str, Any], task: Task, count: int = SEARCH_DRAFTS, sample: int = REPLAY_SAMPLE
) -> Plan:
    """Return what a search of ``count`` drafts is made from, judged on the newest ``sample`` held-out approvals.

    Raises :class:`InputError` where no model suggests, or too little was corrected or approved.
    """
    suggester = replay.arm_of(instance, project, task, {}).suggester
    if not suggester.backend.billed:
        raise InputError("Guidelines are drafted and judged by a model; choose a backend that asks one for the task")
    rows = instance.store.replays.corrections(project["id"], task.name, task.unit, _NEWEST)
    found = [one for one in corrections(task, rows) if not is_held_out(one.place)]
    if not found:
        raise InputError(
            "Drafts are made from suggestions of a model that people corrected, and there are too few; label more of "
            "what a model suggested"
        )
    items = replay.chosen(instance, project, task, sample, lambda row: is_held_out(place_of(row)))
    if len(items) < LEAST:
        raise InputError(
            "%(n)s approvals can judge a draft, and %(least)s are needed; label more first", n=len(items), least=LEAST
        )
    vectors = suggester.index.embeddings.vectors([(one.record_id, one.text) for one in found])
    groups = grouped(found, vectors, task.schema)
    return Plan(suggester, drafts_of(groups, count), {one.annotation_id: one for one in found}, items)


def estimates(instance: Instance, project: Mapping[str, Any], made: Plan) -> tuple[Estimate, Estimate]:
    """Return what drafting would take, and what judging: the guidelines as they are and each draft, equally long."""
    drafting = replay.estimated(instance, project, made.drafting, [draft.record_id for draft in made.drafts])
    one = replay.estimated(instance, project, made.suggester, [record_id for record_id, _, _ in made.items])
    times = 1 + len(made.drafts)
    judging = replace(
        one, items=times * one.items, calls=times * one.calls, tokens_in=times * one.tokens_in,
        tokens_out=times * one.tokens_out, cost=None if one.cost is None else times * one.cost,
        seconds=None if one.seconds is None else times * one.seconds,
    )  # fmt: skip
    return drafting, judging


def start(
    instance: Instance, project: Mapping[str, Any], task: Task, made: Plan, budget: float | None = None,
    reviewer_id: int | None = None,
) -> int:  # fmt: skip
    """Store a search and return the number of its replay; its drafts are asked for first.

    ``budget`` holds for the run of the drafts, and for the run of each that is judged.
    """
    first, store = replay.arm_of(instance, project, task, {}).settings, instance.store
    replays, place = store.replays, (project["id"], task.name)
    named = {name: first[name] for name in ("backend", "model_id")}

    def work(tx: Tx) -> int:
        id_ = replays.create(tx, *place, task.version, [first], made.items, budget, reviewer_id)
        # Few calls are not worth a day's wait for a batch.
        settings = {**ALONE, **named, "executor": LOCAL_EXECUTOR, "purpose": DRAFT, REPLAY: id_}
        run_id = store.ledger.create_run(tx, *place, settings, budget, reviewer_id)
        store.ledger.add_items(tx, run_id, [draft.record_id for draft in made.drafts])
        replays.ask_drafts(tx, id_, run_id, made.drafting.task.standing, made.drafts)
        return id_

    return store.write(work)


def adopt(instance: Instance, replay_id: int, number: int, reviewer_id: int | None = None) -> int:
    """Make a draft the guidelines of its task, note who did, and return the task's new version.

    Raises :class:`InputError` for a draft that is not there, and :class:`Conflict` for one that is not shown to gain
    and where the task was changed since.
    """
    results = Results(instance, replay_id)
    judged = next((one for one in results.judged(results.report()) if one.draft.number == number), None)
    if judged is None:
        raise InputError("Replay %(replay)s has no draft with the number %(number)s", replay=replay_id, number=number)
    if judged.arm is None or not judged.kept:
        raise Conflict("Draft %(number)s is not shown to gain, so it is not adopted", number=number)
    replay.check_version(results.task, results.replay)
    place = results.replay["project_id"], results.replay["task"]
    project = instance.store.projects.get(place[0])
    now = instance.task_settings_raw(project, place[1])
    language = results.task.guided_in(project["language"])
    guidelines, arm = {**(now.get("guidelines") or {}), language: judged.draft.guidelines}, judged.arm.number
    version = instance.change_task(*place, {**now, "guidelines": guidelines}, reviewer_id, seen=now)
    instance.store.write(lambda tx: instance.store.replays.use(tx, replay_id, arm, reviewer_id))
    return version
