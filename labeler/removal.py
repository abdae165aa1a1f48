"""Taking back: records, imports, projects and a person's data are looked at first, then removed in one transaction.

Whoever removes something says how many decisions of people they saw going with it. If there are more by now, nothing
is removed: no work of others is lost unseen. What cannot be reached is named: files of exports, backups, and calls that
were sent.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from labeler import strictjson
from labeler.errors import Conflict, InputError
from labeler.ingest.clusters import sign_reviews
from labeler.instance import Instance
from labeler.sentence import Sentence
from labeler.store import Row, Store, Tx
from labeler.store.ledger import OPEN, PAUSED
from labeler.store.removal import Going
from labeler.text import NAMELESS_PROJECT, checked_name, clean_text

RECORD, IMPORT, PROJECT, PERSON = "record", "import", "project", "person"
_SHORTEST, _LONGEST = 2, 200
_ARCHIVED = Sentence("The project was archived")
# Records of an import up to which each is looked at before it is removed; of more, it is said what goes at most.
_FEW = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be removed: a record or import by its number, a project, or all records that hold ``words``."""

    kind: str
    project_id: int = 0
    number: int = 0
    words: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What goes, or of a large import what goes at most: one :class:`Going` per project.

    ``given`` are labels that an import gave to records of others. ``elsewhere`` says where else a person's words stand,
    and how often.
    """

    parts: dict[int, Going]
    given: int = 0
    elsewhere: list[tuple[str, int]] = field(default_factory=list)

    @property
    def records(self) -> int:
        return sum(part.records for part in self.parts.values())

    @property
    def decisions(self) -> int:
        return sum(part.decisions for part in self.parts.values())


def person(words: str) -> Target:
    """Return all records that hold a person's data. Raises :class:`InputError` for words that would find too much."""
    words = clean_text(words, "words")
    if not _SHORTEST <= len(words) <= _LONGEST:
        raise InputError(
            "Give %(least)s to %(most)s characters, such as an e-mail address or a customer's id",
            least=_SHORTEST,
            most=_LONGEST,
        )
    return Target(PERSON, words=words)


def preview(store: Store, target: Target) -> Preview:
    """Return what goes with a target. Raises :class:`NotFound` if it does not exist."""
    found = _going(store, target)
    return replace(found, elsewhere=store.removal.elsewhere(target.words)) if target.kind == PERSON else found


def remove(instance: Instance, target: Target, seen: int, reviewer_id: int | None = None) -> Preview:
    """Remove a target and return what went. ``seen`` is how many decisions of people the preview showed.

    Raises :class:`Conflict`, and removes nothing, if there are more by now, or while a run or import is at work on it.
    """
    store = instance.store

    def work(tx: Tx) -> Preview:
        going = _going(store, target, tx)
        if going.decisions > seen:
            raise Conflict(
                "%(n)s more records were decided meanwhile; check again what would be removed", n=going.decisions - seen
            )
        if target.kind == PROJECT:
            _remove_project(store, tx, target, going, reviewer_id)
            return going
        return _remove_records(store, tx, target, reviewer_id)

    gone = store.write(work)
    _tidy(instance, target, list(gone.parts))
    return gone


def rename(store: Store, project_id: int, name: str, reviewer_id: int | None = None) -> None:
    """Give a project another name."""
    name = checked_name(name, NAMELESS_PROJECT, 80)

    def work(tx: Tx) -> None:
        before = store.projects.get(project_id, tx)["name"]
        if name == before:
            return
        store.projects.rename(tx, project_id, name)
        detail = {"from": before, "to": name}
        store.events.add(tx, "project renamed", project_id=project_id, reviewer_id=reviewer_id, detail=detail)

    store.write(work)


def archive(store: Store, project_id: int, archived: bool, reviewer_id: int | None = None) -> None:
    """Put a project aside, or bring it back. Its open runs are paused; nothing in it is changed while it is archived.

    Raises :class:`Conflict` while an import goes on.
    """

    def work(tx: Tx) -> None:
        if archived:
            store.removal.check_imports(tx, project_id, queued=True)
            for run_id in store.ledger.open_of(project_id, tx):
                store.ledger.set_run(tx, run_id, PAUSED, _ARCHIVED, OPEN)
        store.projects.archive(tx, project_id, archived)
        kind = "project archived" if archived else "project brought back"
        store.events.add(tx, kind, project_id=project_id, reviewer_id=reviewer_id)

    store.write(work)


def _going(store: Store, target: Target, tx: Tx | None = None) -> Preview:
    """Return what goes with a target, as it is shown: as quickly for a project or import of millions of records."""
    id_, removal, given = target.project_id, store.removal, 0
    if target.kind == PROJECT:
        return Preview({id_: removal.going_counted(id_, tx=tx)})
    if target.kind == IMPORT:
        part = removal.part(id_, target.number, tx)
        given = part.get("given", 0)
        # Which records were written after those of an import is not counted beforehand.
        if part.get("record", 0) > _FEW and not store.written.any(id_, tx):
            _check_import(store, target, tx)
            return Preview({id_: removal.going_counted(id_, target.number, tx)}, given)
    parts = _parts(store, target, tx)
    return Preview({project_id: _part(store, project_id, ids, tx) for project_id, ids in parts.items()}, given)


def _with_written(store: Store, project_id: int, ids: Sequence[int], tx: Tx | None) -> list[int]:
    """Return records with those that a model wrote after them: these hold what they say, in other words."""
    return sorted({*ids, *store.written.after(project_id, ids, tx)})


def _part(store: Store, project_id: int, ids: Sequence[int], tx: Tx | None) -> Going:
    whole = _with_written(store, project_id, ids, tx)
    return replace(store.removal.going(project_id, whole, tx), written=len(whole) - len(set(ids)))


def _check_import(store: Store, target: Target, tx: Tx | None) -> None:
    if store.records.get_import(target.project_id, target.number, tx)["state"] == "removed":
        raise InputError("Import %(number)s was removed before", number=target.number)


def _parts(store: Store, target: Target, tx: Tx | None = None) -> dict[int, list[int]]:
    """Return the reviews that are meant, by project."""
    if target.kind == PERSON:
        return store.removal.holding(target.words, tx)
    if target.kind == IMPORT:
        _check_import(store, target, tx)
        return {target.project_id: store.removal.of_import(target.project_id, target.number, tx)}
    store.removal.check_review(target.project_id, target.number, tx)
    return {target.project_id: [target.number]}


def _remove_records(store: Store, tx: Tx, target: Target, reviewer_id: int | None) -> Preview:
    """Remove records, note it in the events of their projects, and return what went."""
    parts, gone, given = _parts(store, target, tx), dict[int, Going](), list[Row]()
    if target.kind == IMPORT:
        store.removal.check_imports(tx, target.project_id, target.number)
        given = store.removal.labels_given(target.project_id, target.number, parts[target.project_id], tx)
        store.removal.take_back_import(tx, target.project_id, target.number, given)
    if target.kind == PERSON:
        store.removal.erase_answers(tx, target.words)
    for project_id, ids in parts.items():
        going = gone[project_id] = _part(store, project_id, ids, tx)
        store.removal.remove(tx, project_id, _with_written(store, project_id, ids, tx))
        number = {"number": target.number} if target.number else {}
        # Neither key nor text: an event is kept for good.
        detail = number | {"records": going.records, "decisions": going.decisions, "labels": going.labels}
        kind = {RECORD: "record removed", IMPORT: "import removed", PERSON: "a person's data erased"}[target.kind]
        store.events.add(tx, kind, project_id=project_id, reviewer_id=reviewer_id, detail=detail)
    return Preview(gone, len(given))


def _remove_project(store: Store, tx: Tx, target: Target, gone: Preview, reviewer_id: int | None) -> None:
    project_id = target.project_id
    detail = {"name": store.projects.get(project_id, tx)["name"], "records": gone.records, "decisions": gone.decisions}
    detail |= {"spent": round(store.ledger.spent(project_id)[0], 6)}
    store.removal.remove_project(tx, project_id)
    store.events.add(tx, "project removed", project_id=project_id, reviewer_id=reviewer_id, detail=detail)


def _tidy(instance: Instance, target: Target, project_ids: Sequence[int]) -> None:
    """Clear up outside the database: caches of indexes, uploads, free pages. The worker does what is left undone."""
    for project_id in project_ids:
        for path in (instance.folder / "index").glob(f"{project_id}-*"):
            path.unlink(missing_ok=True)
        if target.kind == PROJECT:
            shutil.rmtree(instance.folder / "uploads" / str(project_id), ignore_errors=True)
        else:
            sign_reviews(instance.store, project_id)
    if target.kind == IMPORT:
        row = instance.store.records.get_import(target.project_id, target.number)
        path = Path(strictjson.loads(row["settings"]).get("path") or "")
        if instance.folder / "uploads" in path.parents:
            path.unlink(missing_ok=True)
    instance.store.wipe(deep=target.kind == PERSON)
    instance.wake()
