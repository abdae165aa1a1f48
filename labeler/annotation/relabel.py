"""Changing the labels of a task that people have decided by: looked at first, then one version, and undone as a whole.

What is said of a label that goes (renamed, merged, retired, its records put back to pending) is stored with the
version, as :class:`labeler.labels.moves.Moves`: values are read through it, none is rewritten. Only records that are
put back to pending, or come back from there, have to follow: in the same transaction where they are few, else in
slices that any process goes on with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from labeler import strictjson
from labeler.errors import Conflict, LabelError, SettingError, Unanswered
from labeler.labels import NO_LABEL, Answers, LabelSchema, Moves
from labeler.records import Value
from labeler.sentence import Sentence
from labeler.settings import changed_settings, merged_settings, refuse_joint_cascade
from labeler.store import Row, Store, Tx
from labeler.store.ledger import OPEN as OPEN_RUNS
from labeler.store.ledger import PAUSED
from labeler.task import Task

KEPT, NEW, RENAMED, MERGED, RETIRED, REOPENED, GONE, OPEN = (
    "kept", "new", "renamed", "merged", "retired", "reopened", "gone", "open"
)  # fmt: skip
"""What becomes of a label: the last two are removed without and with approvals; the latter has to be answered for."""
_PAUSED = Sentence("The labels of the task were changed; resume the run to ask by the new ones")
_SLICE = 1000
_NAMED = 20
_MOST_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a label, ``to`` which one it goes, and how many records it concerns.

    ``approved`` counts the approvals that have it now, ``blind`` those of them that were decided without a suggestion,
    ``suggested`` the pending records that it is suggested for, and ``then`` the approvals that will have it.
    """

    name: str
    what: str
    to: str = ""
    approved: int = 0
    blind: int = 0
    suggested: int = 0
    then: int = 0


@dataclass(frozen=True, slots=True)
class Preview:
    """What a change of labels does. ``reopening`` records go back to pending; ``returning`` ones come back from there.

    ``clashing`` of those that go back have labels that cannot stand together any more. ``decided`` names records that
    were put back to pending, and decided since: they stay as they are.
    """

    fates: tuple[Fate, ...] = ()
    reopening: int = 0
    clashing: int = 0
    returning: int = 0
    decided: tuple[str, ...] = ()

    @property
    def open(self) -> tuple[Fate, ...]:
        """Labels that somebody has to say something of before anything is stored."""
        return tuple(fate for fate in self.fates if fate.what == OPEN)

    @property
    def matters(self) -> bool:
        """Whether a person should look at it: it changes what somebody was given, or is suggested."""
        changed = [fate for fate in self.fates if fate.what not in (KEPT, NEW) or fate.approved != fate.then]
        moved = self.reopening or self.returning or self.decided
        return bool(moved) or any(fate.approved or fate.suggested or fate.then for fate in changed)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A change of labels: the task as it is and as it will be, what is stored of it, and which records follow."""

    before: Task
    after: Task
    labels: list[dict[str, Any]] | None
    moves: Moves
    preview: Preview
    seq: int
    follow: _Followers


class TaskSettings:
    """Changes the settings of one task of a project. ``own`` is the plugin's task."""

    def __init__(self, store: Store, project_id: int, own: Task) -> None:
        self.store, self.project_id, self.own = store, project_id, own

    def preview(
        self, settings: Mapping[str, Any], answers: Answers | None = None, back_to: int | None = None
    ) -> Preview:
        """Return what storing ``settings`` would do to labels that were given; nothing is stored."""
        plan = self._plan(changed_settings("task", settings), answers or Answers(), back_to)
        return Preview() if plan is None else plan.preview

    def save(
        self,
        settings: Mapping[str, Any],
        reviewer_id: int | None = None,
        seen: Mapping[str, Any] | None = None,
        answers: Answers | None = None,
        back_to: int | None = None,
    ) -> int:
        """Store settings as a new version and return it; see :meth:`labeler.instance.Instance.change_task`.

        ``answers`` says what becomes of labels that go. Raises :class:`Unanswered` where approvals have one of which
        nothing is said. ``back_to`` is the version whose labels these are, to undo what was done since.
        """
        projects, place = self.store.projects, (self.project_id, self.own.name)
        now = projects.task_settings(*place)[1]
        plan = self._plan(self._merged(now, settings, seen), answers or Answers(), back_to)
        if plan is not None and plan.preview.open:
            raise Unanswered(plan.preview)

        def work(tx: Tx) -> int:
            stands = projects.task_settings(*place, tx)[1]
            merged = self._merged(stands, settings, seen)
            if plan is not None:
                if stands.get("labels") != now.get("labels"):
                    raise Conflict("Somebody else changed the labels of this task meanwhile; look at them again")
                merged = changed_settings("task", {**merged, "labels": plan.labels})
            # Two changes that go each for itself may not go together.
            refuse_joint_cascade(merged)
            self.own.overridden(1, merged)
            version = projects.set_task_settings(tx, *place, merged, reviewer_id, plan.moves if plan else None)
            detail: dict[str, Any] = {"version": version, "changed": _differing(stands, merged)}
            if plan is not None:
                detail |= self._move(tx, plan, version, reviewer_id)
            kind = "labels changed" if plan is not None else "task settings changed"
            self.store.events.add(
                tx, kind, project_id=self.project_id, task=self.own.name, reviewer_id=reviewer_id, detail=detail
            )
            return version

        return self.store.write(work)

    def restored(self, version: int) -> tuple[dict[str, Any], dict[str, str]]:
        """Return guidelines and labels of an earlier version, and what labels of now were called in it.

        Version 0 is the plugin's own. Saved with ``back_to`` they undo all that was done to labels since.
        """
        place = (self.project_id, self.own.name)
        now, settings = self.store.projects.task_settings(*place)
        earlier = self.store.projects.task_settings_at(*place, version)
        moves = self.store.projects.label_moves(*place)
        task = self.own.overridden(now, settings, moves)
        there = {label.name for label in task.schema.labels}
        then = self.own.overridden(version, earlier, {n: one for n, one in moves.items() if n <= version}).schema
        names = {task.lineage.renamed(label.name, version): label.name for label in then.labels}
        renamed = {new: old for new, old in names.items() if new != old and new in there and old not in there}
        return {"guidelines": earlier.get("guidelines"), "labels": earlier.get("labels")}, renamed

    def _merged(
        self, now: Mapping[str, Any], settings: Mapping[str, Any], seen: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        return changed_settings("task", settings) if seen is None else merged_settings("task", now, settings, seen)

    def _move(self, tx: Tx, plan: _Plan, version: int, reviewer_id: int | None) -> dict[str, Any]:
        """Do in the transaction of a new version what its labels ask for; return what its event says."""
        store, place = self.store, (self.project_id, self.own.name)
        if set(plan.before.schema.names) - set(plan.after.schema.names):
            # An import and a run go on with the labels that they began with.
            store.removal.check_imports(tx, self.project_id)
            for run_id in store.ledger.open_of(self.project_id, tx, self.own.name):
                store.ledger.set_run(tx, run_id, PAUSED, _PAUSED, OPEN_RUNS)
        store.upkeep.ask(tx, *place)
        if plan.moves and plan.follow.count <= _SLICE and store.annotations.latest_seq(*place, tx) == plan.seq:
            plan.follow.apply(store, tx, plan.after, self.project_id, version, reviewer_id)
            store.projects.finished(tx, *place, version)
        preview = plan.preview
        counts = {"reopened_records": preview.reopening, "returned_records": preview.returning}
        retired = [fate.name for fate in preview.fates if fate.what == RETIRED]
        return plan.moves.to_json() | {name: n for name, n in counts.items() if n} | {"retired": retired}

    def _plan(self, settings: Mapping[str, Any], answers: Answers, back_to: int | None) -> _Plan | None:
        """Return what the labels of ``settings`` do to what was decided; None where labels stay as they are."""
        place = (self.project_id, self.own.name)
        version, now = self.store.projects.task_settings(*place)
        same = settings.get("labels") == now.get("labels") and not answers.names
        if same and (back_to is None or not self.own.schema.names):
            return None
        moves = self.store.projects.label_moves(*place)
        before = self.own.overridden(version, now, moves) if version else self.own
        given = _answered(before.schema, settings.get("labels") or _plain(self.own.schema), answers)
        labels = None if given == _plain(self.own.schema) else given
        said = Moves(answers.renamed, answers.merged, answers.reopened, back_to)
        # First by what was said alone; what nobody has is known after counting.
        after = self._after(version, {**settings, "labels": labels}, moves, said)
        _check_targets(after.schema, answers)
        seq = self.store.annotations.latest_seq(*place)
        count = _Count(before, after, answers)
        for row in self.store.annotations.given(*place):
            count.approved(row)
        for row in self.store.suggestions.waiting(*place):
            count.suggested(row)
        gone = tuple(fate.name for fate in count.fates() if fate.what == GONE)
        said = replace(said, reopened=(*said.reopened, *gone))
        after = self._after(version, {**settings, "labels": labels}, moves, said)
        back = [] if back_to is None else _put_back(self.store, self.project_id, self.own.name, back_to, version)
        moving = (count.reopening or back) and not count.open
        follow = _followers(self.store, self.project_id, after, back) if moving else _Followers()
        for row in follow.back:
            count.returned(row)
        preview = Preview(
            fates=count.fates(),
            reopening=count.reopening,
            clashing=count.clashing,
            returning=len(follow.back),
            decided=tuple(row["key"] for row in back if row["state"] != "pending")[:_NAMED],
        )
        return _Plan(before, after, labels, said, preview, seq, follow)

    def _after(self, version: int, settings: Mapping[str, Any], moves: Mapping[int, Moves], said: Moves) -> Task:
        return self.own.overridden(version + 1, settings, {**moves, version + 1: said} if said else moves)


def finish(store: Store, project_id: int, task: Task) -> None:
    """Let the records of a task follow its labels, as far as they have not: after a kill, or because they are many."""
    while (row := store.projects.unfinished(project_id, task.name)) is not None:
        if task.lineage.newest() < row["version"]:
            # It was changed since the caller read it; whoever reads it anew goes on.
            return
        _finish(store, project_id, task, row["version"], row["reviewer_id"])


def _finish(store: Store, project_id: int, task: Task, version: int, reviewer_id: int | None) -> None:
    moves = store.projects.label_moves(project_id, task.name)[version]
    back = [] if moves.back_to is None else _put_back(store, project_id, task.name, moves.back_to, version - 1)
    for part in _followers(store, project_id, task, back).slices():
        store.write(partial(_apply, part, store, task, project_id, version, reviewer_id))
    store.write(lambda tx: store.projects.finished(tx, project_id, task.name, version))


def _apply(
    part: _Followers, store: Store, task: Task, project_id: int, version: int, reviewer_id: int | None, tx: Tx
) -> None:
    part.apply(store, tx, task, project_id, version, reviewer_id)


def unknown(store: Store, project_id: int, task: Task) -> dict[str, int]:
    """Return the labels of approvals that a task does not know, and how many have each: a plugin dropped them."""
    count = _Count(task, task, Answers())
    for row in store.annotations.given(project_id, task.name):
        count.approved(row)
    return dict(count.open)


# Labels as they are given, and as they are meant


def _plain(schema: LabelSchema) -> list[dict[str, Any]]:
    return [label.to_json() for label in (*schema.labels, *schema.retired)]


def _answered(before: LabelSchema, labels: Sequence[Mapping[str, Any]], answers: Answers) -> list[dict[str, Any]]:
    """Return labels with what was said of them done: renamed, marked as retired, or taken out."""
    if not answers.names:
        return [dict(raw) for raw in labels]
    taken = set(answers.renamed.values())
    found = []
    for raw in labels:
        label, name = dict(raw), str(raw.get("name", "")).strip()
        mine = name not in taken
        if mine and name in answers.renamed:
            label["name"] = answers.renamed[name]
        elif mine and (name in answers.merged or name in answers.reopened):
            continue
        elif name in answers.retired:
            label["retired"] = True
        if label.get("parent") in answers.renamed and label["parent"] not in taken:
            label["parent"] = answers.renamed[label["parent"]]
        found.append(label)
    there = {label["name"] for label in found}
    for gone in (before.label(name) for name in answers.retired if name not in there):
        parent = gone.parent if gone.parent in there else None
        found.append(replace(gone, retired=True, parent=parent).to_json())
    return found


def _check_targets(schema: LabelSchema, answers: Answers) -> None:
    """Raise :class:`SettingError` for a label that is to go into one that nobody can choose."""
    headings = {label.name for label in schema.labels}
    for old, new in (*answers.renamed.items(), *answers.merged.items()):
        if new not in schema.names and not (old in answers.renamed and new in headings):
            raise SettingError(
                "%(old)r cannot become %(new)r; there are: %(labels)s", old=old, new=new, labels=", ".join(schema.names)
            )


class _Count:
    """Adds up, label by label, what a change does to approvals and suggestions."""

    def __init__(self, before: Task, after: Task, answers: Answers) -> None:
        self.before, self.after, self.answers = before, after, answers
        self.reopening = self.clashing = 0
        self.open: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._blind: Counter[str] = Counter()
        self._then: Counter[str] = Counter()
        self._suggested: Counter[str] = Counter()
        self._known = {label.name for label in (*after.schema.labels, *after.schema.retired)}

    def approved(self, row: Row) -> None:
        value, version, n = strictjson.loads(row["value"]), row["task_version"], row["n"]
        for name in _names(self.before.schema, self.before.carried(value, version)):
            self._now[name] += n
            self._blind[name] += row["blind"]
        then = self.after.carried(value, version)
        if then is None:
            self.reopening += n
            return
        names = _names(self.after.schema, then)
        strange = [name for name in names if name not in self._known]
        for name in strange:
            self.open[name] += n
        if strange:
            return
        if _readable(self.after, value, version):
            self._then.update(dict.fromkeys(names, n))
        else:
            self.reopening += n
            self.clashing += n

    def returned(self, row: Row) -> None:
        names = _names(self.after.schema, self.after.carried(strictjson.loads(row["value"]), row["task_version"]))
        self._then.update(dict.fromkeys(names, 1))

    def suggested(self, row: Row) -> None:
        value = self.before.carried(strictjson.loads(row["value"]), row["task_version"])
        self._suggested.update(dict.fromkeys(_names(self.before.schema, value), row["n"]))

    def fates(self) -> tuple[Fate, ...]:
        old, new = self.before.schema, self.after.schema
        known = [*old.names, *(label.name for label in old.retired)]
        names = dict.fromkeys([*known, *self._now, *self.open, *new.names])
        # A new name stands with the old one.
        names = {name: None for name in names if name in known or name not in self.answers.renamed.values()}
        for name in self.answers.names - names.keys() - {label.name for label in old.labels}:
            raise SettingError("There is no label %(name)r; there are: %(labels)s", name=name, labels=", ".join(known))
        return tuple(self._fate(name) for name in names)

    def _fate(self, name: str) -> Fate:
        what, to = self._what(name)
        then = self._then[to if what == RENAMED else name]
        approved = self._now[name] or self.open[name]
        return Fate(name, what, to, approved, self._blind[name], self._suggested[name], then)

    def _what(self, name: str) -> tuple[str, str]:
        given, old, new = self.answers, self.before.schema, self.after.schema
        if name in given.renamed:
            return RENAMED, given.renamed[name]
        if name in given.merged:
            return MERGED, given.merged[name]
        if name in given.reopened:
            return REOPENED, ""
        if name in self.open:
            return OPEN, ""
        if any(label.name == name for label in new.retired):
            return RETIRED, ""
        if name not in new.names:
            return GONE, ""
        return (KEPT if name in old.names or name in self._now else NEW), ""


def _names(schema: LabelSchema, value: Value | None) -> tuple[str, ...]:
    """Return the labels that a value holds, whether there are such labels or not."""
    try:
        return () if value is None else tuple(name for name in schema.strata(value) if name != NO_LABEL)
    except (TypeError, KeyError, AttributeError):
        return ()


def _readable(task: Task, value: Value, version: str) -> bool:
    try:
        task.read(value, version)
    except LabelError:
        return False
    return True


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


# Records that follow


def _origin(version: int) -> str:
    return f"labels {version}"


def _put_back(store: Store, project_id: int, task: str, after: int, through: int) -> list[Row]:
    """Return the records that the versions after ``after`` put back to pending."""
    origins = [_origin(number) for number in range(after + 1, through + 1)]
    return store.annotations.put_back(project_id, task, origins)


def _followers(store: Store, project_id: int, task: Task, back: Iterable[Row]) -> _Followers:
    """Return the approvals that the labels of ``task`` cannot hold any more, and the withdrawals that are undone."""
    known: dict[tuple[str, str], bool] = {}

    def stays(row: Row) -> bool:
        key = (row["value"], row["task_version"])
        if key not in known:
            if len(known) > _MOST_KNOWN:
                known.clear()
            known[key] = _readable(task, strictjson.loads(row["value"]), row["task_version"])
        return known[key]

    pages = store.annotations.given_pages(project_id, task.name)
    out = [row for page in pages for row in page if not stays(row)]
    return _Followers(out, [row for row in back if row["state"] == "pending" and stays(row)])


@dataclass(frozen=True, slots=True)
class _Followers:
    """Records that a change of labels moves: ``out``, approvals that go back to pending; ``back``, withdrawals."""

    out: Sequence[Row] = ()
    back: Sequence[Row] = ()

    @property
    def count(self) -> int:
        return len(self.out) + len(self.back)

    def slices(self) -> Iterator[_Followers]:
        for start in range(0, len(self.out), _SLICE):
            yield _Followers(out=self.out[start : start + _SLICE])
        for start in range(0, len(self.back), _SLICE):
            yield _Followers(back=self.back[start : start + _SLICE])

    def apply(self, store: Store, tx: Tx, task: Task, project_id: int, version: int, reviewer_id: int | None) -> None:
        """Put records back to pending, or bring their approvals back; what was decided meanwhile stays."""
        place, annotations = (project_id, task.name), store.annotations
        annotations.withdraw(tx, *place, [row["id"] for row in self.out], task.version, _origin(version), reviewer_id)
        annotations.bring_back(tx, *place, [row["id"] for row in self.back], _origin(version))
