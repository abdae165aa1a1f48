"""Replay: what other settings would have suggested for records that are approved by now.

Each record is suggested again as it stood right before the first decision on it: itself, its near-duplicates and every
later decision are hidden, from the examples and from what is learned of them. Records that had a near-duplicate decided
on before them are left out, so that none is hidden from an ensemble that had learned of it.

An evaluation is a replay of a test set: there the examples, and what is learned, are those of the train split.

A replay is walked through once, in the order of the decisions: what costs nothing is suggested on the way, and for
models the examples are chosen that their prompts would have shown. These are asked in runs, through the ledger: what
was answered before is not paid again, budgets hold, and a run can be watched, paused and resumed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby, islice, product
from typing import Any

from labeler import strictjson
from labeler.errors import Conflict, InputError, LabelError
from labeler.evaluation import heldout
from labeler.evaluation.past import Past
from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.prelabel.rounds import shown_text
from labeler.prelabel.runs import Estimate
from labeler.prelabel.suggest import Suggester
from labeler.records import BackendFailure, Record, Suggestion
from labeler.sentence import Sentence
from labeler.settings import BATCH_EXECUTOR, DIRECT, DRAFT, REPLAY, REPLAY_GRID, overrides
from labeler.store import Row, Tx
from labeler.store.replays import Said
from labeler.task import Task

MOST_ARMS = 24
PARSE = "parse: "
"""So begins why nothing is said where an answer came, and could not be parsed."""
_SLICE, _PAGE = 25, 200
# Each record on its own: no cheaper step before it, no other task beside it.
ALONE: Mapping[str, Any] = {"mode": DIRECT, "joint": []}


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to suggest: the settings it has other than its task, and what makes its suggestions now."""

    settings: Mapping[str, Any]
    suggester: Suggester


def arms_of(instance: Instance, project: Mapping[str, Any], task: Task, grid: Mapping[str, Sequence[Any]]) -> list[Arm]:
    """Return the arms of a replay: the task as it is set, then every combination of ``grid``, each kind once.

    With an empty grid the free backends stand beside the task as it is set. Raises :class:`InputError` for too many.
    """
    names = [name for name in REPLAY_GRID if grid.get(name)]
    rest: Sequence[Mapping[str, Any]] = [
        dict(zip(names, values, strict=True)) for values in product(*(grid[n] for n in names))
    ]
    if not names:
        free = ["ensemble"] if instance.ensemble(project, task).supports(task.schema) else []
        rest = [{"backend": name} for name in (*free, "nearest")]
    return each_kind(instance, project, task, ({}, *rest))


def each_kind(
    instance: Instance, project: Mapping[str, Any], task: Task, wanted: Sequence[Mapping[str, Any]]
) -> list[Arm]:
    """Return an arm for each of some settings, each kind once. Raises :class:`InputError` for too many."""
    if len(wanted) > MOST_ARMS:
        raise InputError("These are %(n)s combinations; a replay has at most %(most)s", n=len(wanted), most=MOST_ARMS)
    found: dict[str, Arm] = {}
    for settings in wanted:
        arm = arm_of(instance, project, task, settings)
        found.setdefault(arm.suggester.kind, arm)
    return list(found.values())


def arm_of(instance: Instance, project: Mapping[str, Any], task: Task, settings: Mapping[str, Any]) -> Arm:
    """Return the arm of some settings. All that arms may differ in is written down: the task may be changed since."""
    raw = instance.task_settings_raw(project, task.name)
    own = {**{name: raw[name] for name in REPLAY_GRID if name in raw}, **settings}
    suggester = instance.suggester(project, task, {**ALONE, **own}, keep=False)
    return Arm({**own, "backend": suggester.backend.name, "model_id": suggester.backend.model_id or ""}, suggester)


def estimates(
    instance: Instance, project: Mapping[str, Any], task: Task, arms: Sequence[Arm], sample: int | None,
    held_out: str | None = None,
) -> list[Estimate]:  # fmt: skip
    """Return what each arm would take, before anyone pays."""
    ids = [record_id for record_id, _, _ in _items(instance, project, task, sample, held_out)]
    return [estimated(instance, project, arm.suggester, ids) for arm in arms]


def estimated(instance: Instance, project: Mapping[str, Any], suggester: Suggester, ids: Sequence[int]) -> Estimate:
    """Return what asking about some records would take as the task is sent now."""
    set_ = instance.task_settings(project, suggester.task.name)
    batch = set_["executor"] == BATCH_EXECUTOR
    return runs.estimate(suggester, ids, instance.price_of(suggester.backend), instance.policy(set_), batch)


def chosen(
    instance: Instance, project: Mapping[str, Any], task: Task, sample: int | None,
    among: Callable[[Row], bool] = lambda row: True,
) -> list[tuple[int, int, int]]:  # fmt: skip
    """Return the newest ``sample`` approvals that can be replayed, oldest first; None takes all.

    Each as (record, its approval, the last decision before the first one on it). ``among`` says of the rows of
    :meth:`labeler.store.replays.Replays.log` which may be taken.
    """
    firsts: dict[Any, int] = {}
    found: dict[int, tuple[int, int, int]] = {}
    for row in instance.store.replays.log(project["id"], task.name, task.unit):
        if firsts.setdefault(place_of(row), row["record_id"]) == row["record_id"] and among(row):
            first = found.get(row["record_id"], (0, 0, row["id"] - 1))[2]
            found[row["record_id"]] = (row["record_id"], row["id"] if row["approved"] else 0, first)
    newest = sorted((one for one in found.values() if one[1]), key=lambda one: -one[2])
    return list(islice(_with_truth(instance, task, newest), sample))[::-1]


def tested(instance: Instance, project: Mapping[str, Any], task: Task, name: str) -> list[tuple[int, int, int]]:
    """Return the approvals of a test set as :func:`chosen` does: all are judged by what is decided now.

    Near-duplicates count once, by the first of them: they say the same, and would make intervals too narrow.
    """
    members, now = heldout.records(instance.store, project["id"], name), instance.store.annotations.newest()
    firsts: dict[Any, tuple[int, int, int]] = {}
    for row in instance.store.replays.log(project["id"], task.name, task.unit):
        if row["approved"] and row["record_id"] in members:
            firsts.setdefault(place_of(row), (row["record_id"], row["id"], now))
    return list(_with_truth(instance, task, list(firsts.values())))


def _items(
    instance: Instance, project: Mapping[str, Any], task: Task, sample: int | None, held_out: str | None
) -> list[tuple[int, int, int]]:
    """Return what a replay goes over: the newest approvals, or a test set. Raises :class:`InputError` for none."""
    if held_out is None:
        return chosen(instance, project, task, sample)
    items = tested(instance, project, task, held_out)
    if not items:
        raise InputError(
            "No approved label of %(task)s is in the test split; export the task with a share of test, which keeps it",
            task=task.name,
        )
    return items


def place_of(row: Row) -> int | str:
    """Return what a record has in common with its near-duplicates and copies alone."""
    return row["cluster"] or row["content_hash"]  # type: ignore[no-any-return]


def _with_truth(
    instance: Instance, task: Task, items: Sequence[tuple[int, int, int]]
) -> Iterator[tuple[int, int, int]]:
    """Yield those whose approved value a backend could give today, reading no more of them than are wanted."""
    for start in range(0, len(items), _PAGE):
        page = items[start : start + _PAGE]
        rows = instance.store.annotations.examples([annotation_id for _, annotation_id, _ in page])
        yield from (one for one in page if one[1] in rows and truth(task, rows[one[1]]) is not None)


def truth(task: Task, row: Row | Mapping[str, Any]) -> Any:
    """Return an approved value in the labels of today; None for one that no backend could give any more."""
    try:
        return task.schema.parse(
            task.read(strictjson.loads(row["value"]), row["task_version"], row["text"]), row["text"]
        )
    except LabelError:
        return None


def start(
    instance: Instance, project: Mapping[str, Any], task: Task, arms: Sequence[Arm], sample: int | None,
    budget: float | None = None, reviewer_id: int | None = None, held_out: str | None = None,
) -> int:  # fmt: skip
    """Store a replay and return its number; a worker walks through it. ``budget`` holds for each arm that costs.

    ``held_out`` names the test set that it goes over, whole, in place of the newest approvals. Raises
    :class:`InputError` where no label of the task is approved yet, or none of the test set.
    """
    items = _items(instance, project, task, sample, held_out)
    if not items:
        raise InputError("No label of %(task)s is approved yet, so there is nothing to replay", task=task.name)
    settings = [arm.settings for arm in arms]
    replays = instance.store.replays
    place = project["id"], task.name, task.version
    return instance.store.write(lambda tx: replays.create(tx, *place, settings, items, budget, reviewer_id, held_out))


def walk(
    instance: Instance, replay_id: int, stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> bool:  # fmt: skip
    """Walk through a replay and queue the runs of its models; False if another does it, or it was ``stopped``."""
    replays, token = instance.store.replays, secrets.token_hex(8)
    if not instance.store.write(lambda tx: replays.claim(tx, replay_id, token)):
        return False
    try:
        done = _Walk(instance, replay_id, token).run(stopped, progress)
    except BaseException as error:
        reason = None if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        instance.store.write(lambda tx: replays.let_go(tx, replay_id, token, reason))
        raise
    if not done:
        instance.store.write(lambda tx: replays.let_go(tx, replay_id, token))
    return done


@dataclass(frozen=True, slots=True)
class _Step:
    """What the free arms said of a record, by arm, when ``known`` examples were approved."""

    record_id: int
    known: int
    said: Mapping[int, Said]


class _Walk:
    def __init__(self, instance: Instance, replay_id: int, token: str) -> None:
        self.instance, self.id, self.token, self.replays = instance, replay_id, token, instance.store.replays
        self.replay = self.replays.get(replay_id)
        self.project = instance.store.projects.get(self.replay["project_id"])
        self.task = instance.project_task(self.project, self.replay["task"])
        check_version(self.task, self.replay)
        self.arms = self.replays.arms(replay_id)
        self.items = self.replays.items(replay_id)
        # What the prompts of each model show, by arm.
        self.shown: dict[int, list[tuple[int, str]]] = {}
        self.seconds: dict[int, float] = {}

    def _give_drafts_arms(self) -> bool:
        """Let each draft that can be used have an arm, behind that of the guidelines as is; equal ones share it.

        Return whether there is any; else say so.
        """
        asked: dict[str, int] = {}
        for draft in self.replays.drafts(self.id):
            if draft.guidelines is not None:
                asked.setdefault(draft.guidelines, draft.number)
        arms = [{**self.arms[0]["settings"], DRAFT: number} for number in asked.values()]
        reason = None if arms else Sentence("No draft of the guidelines can be used; the reasons stand with each")

        def work(tx: Tx) -> None:
            self.replays.add_arms(tx, self.id, arms)
            if reason is not None:
                self.replays.let_go(tx, self.id, self.token, reason)

        self.instance.store.write(work)
        self.arms = self.replays.arms(self.id)
        return bool(arms)

    def _made(self, past: Past, settings: Mapping[str, Any]) -> Suggester:
        made = past.suggester(self.project, self.task, {**ALONE, **overrides(settings)})
        return replace(made, second=(), task=drafted(made, self.id, settings))

    def run(self, stopped: Callable[[], bool], progress: Callable[[int, int], None]) -> bool:
        if self.replay["drafts_run"] and not self._give_drafts_arms():
            return True
        with Past(self.instance, self._may_be_seen()) as past:
            made = {arm["arm"]: self._made(past, arm["settings"]) for arm in self.arms}
            places, done = iter(self.items), 0
            while rows := list(islice(places, _SLICE)):
                records = self.instance.store.records.many([row["record_id"] for row in rows])
                pairs = [(int(row["seq"]), records[row["record_id"]]) for row in rows if row["record_id"] in records]
                steps = [
                    step
                    for seq, part in groupby(pairs, key=lambda pair: pair[0])
                    for step in self._steps(past, made, seq, [record for _, record in part])
                ]
                if stopped() or not self._keep(steps):
                    return False
                done += len(rows)
                progress(done, len(self.items))
        return self._end(made)

    def _may_be_seen(self) -> set[int] | None:
        """Return the annotations that examples and what learns may know of; None for all that came before."""
        if self.replay["held_out"] is None:
            return None
        return heldout.learnable(self.instance.store, self.project["id"], self.task.name)

    def _steps(self, past: Past, made: Mapping[int, Suggester], seq: int, records: Sequence[Record]) -> list[_Step]:
        """Suggest for records as it stood after the decision ``seq``."""
        past.go_to(seq)
        past.learn(self.project, self.task)
        said: list[dict[int, Said]] = [{} for _ in records]
        for arm, suggester in made.items():
            if suggester.backend.billed:
                prepared = suggester.prepare(records)
                shown = [(one.record.id, shown_text(suggester, one)) for one in prepared]
                self.shown.setdefault(arm, []).extend(shown)
                continue
            began = time.perf_counter()
            answers = suggester.now(records, save=False)
            self.seconds[arm] = self.seconds.get(arm, 0.0) + time.perf_counter() - began
            for one, record, answer in zip(said, records, answers, strict=True):
                one[arm] = said_by(record.id, answer)
        known = len(past.index(self.project, self.task))
        return [_Step(record.id, known, one) for record, one in zip(records, said, strict=True)]

    def _keep(self, steps: Sequence[_Step]) -> bool:
        def work(tx: Tx) -> bool:
            if not self.replays.keep(tx, self.id, self.token):
                return False
            self.replays.known(tx, self.id, [(step.record_id, step.known) for step in steps])
            for arm in range(len(self.arms)):
                self.replays.say(tx, self.id, arm, [step.said[arm] for step in steps if arm in step.said])
            return True

        return self.instance.store.write(work)

    def _end(self, made: Mapping[int, Suggester]) -> bool:
        """Queue a run for each arm whose backend has to be asked, and say that this is done, at once."""
        billed = [arm for arm in self.arms if made[arm["arm"]].backend.billed and self.shown.get(arm["arm"])]

        def work(tx: Tx) -> bool:
            found = {arm["arm"]: self._queue(tx, arm) for arm in billed}
            return self.replays.walked(tx, self.id, self.token, found, self.seconds)

        done = self.instance.store.write(work)
        self.instance.wake()
        return done

    def _queue(self, tx: Tx, arm: Mapping[str, Any]) -> int:
        ledger, shown = self.instance.store.ledger, self.shown[arm["arm"]]
        settings = {**ALONE, **arm["settings"], "purpose": REPLAY, REPLAY: self.id, "arm": arm["arm"]}
        place = self.project["id"], self.task.name
        run_id = ledger.create_run(tx, *place, settings, self.replay["budget"], self.replay["reviewer_id"])
        ledger.add_items(tx, run_id, [record_id for record_id, _ in shown])
        ledger.show(tx, run_id, shown)
        return run_id


def drafted(suggester: Suggester, replay_id: int, settings: Mapping[str, Any]) -> Task:
    """Return the task of an arm by its settings: with the guidelines of a draft, where it judges one."""
    if DRAFT not in settings:
        return suggester.task
    texts = {draft.number: draft.guidelines for draft in suggester.store.replays.drafts(replay_id)}
    return suggester.task.edited(texts[settings[DRAFT]] or "", suggester.style.language)


def check_version(task: Task, replay: Mapping[str, Any]) -> None:
    """Raise :class:`Conflict` where a replay asks another question than its task does by now."""
    if task.version != replay["task_version"]:
        raise Conflict("The task %(task)s was changed since; start the replay again", task=task.name)


def use(instance: Instance, replay_id: int, arm: int, reviewer_id: int | None = None) -> int:
    """Set the task to what an arm of a replay has, note that, and return the task's new version.

    All in which arms may differ is set, also to what it is by default; what else was changed of the task stays.
    Raises :class:`InputError` for an arm that is not there, and :class:`Conflict` for a replay that judges drafts.
    """
    replays = instance.store.replays
    replay, arms = replays.get(replay_id), replays.arms(replay_id)
    if arm >= len(arms):
        raise InputError(
            "Replay %(number)s has %(n)s arms, and none with the number %(arm)s",
            number=replay_id,
            n=len(arms),
            arm=arm + 1,
        )
    if replay["drafts_run"]:
        raise Conflict("Replay %(number)s judges drafts of guidelines; adopt one that gains", number=replay_id)
    now = instance.task_settings_raw(instance.store.projects.get(replay["project_id"]), replay["task"])
    place = replay["project_id"], replay["task"]
    own = {name: arms[arm]["settings"].get(name) for name in REPLAY_GRID}
    version = instance.change_task(*place, {**now, **own}, reviewer_id, seen=now)
    instance.store.write(lambda tx: replays.use(tx, replay_id, arm, reviewer_id))
    return version


def said_by(record_id: int, suggestion: Suggestion | BackendFailure) -> Said:
    """Return what a suggestion says of a record, for the table of a replay."""
    if isinstance(suggestion, BackendFailure):
        return Said(record_id, failure=suggestion.kind)
    failure = None if suggestion.failure is None else f"{PARSE}{suggestion.failure.kind}"
    return Said(record_id, suggestion.value, failure, suggestion.score)


class Replaying(Suggester):
    """Makes the suggestions of one arm; they go to its replay, and no queue, desk or statistic sees them."""

    place: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, suggester: Suggester, run_settings: Mapping[str, Any]) -> Replaying:
        """Return what moves a run of a replay. Raises :class:`Conflict` where the task was changed since."""
        check_version(suggester.task, suggester.store.replays.get(int(run_settings[REPLAY])))
        own = {one.name: getattr(suggester, one.name) for one in fields(Suggester)}
        task = drafted(suggester, int(run_settings[REPLAY]), run_settings)
        made = cls(**{**own, "task": task, "second": (), "calibration_of": None, "stacks": False})
        made.place = int(run_settings[REPLAY]), int(run_settings["arm"])
        return made

    def save(self, tx: Tx, suggestion: Suggestion) -> int:
        self.store.replays.say(tx, *self.place, [said_by(suggestion.record_id, suggestion)])
        return 0
