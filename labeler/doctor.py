"""``labeler doctor``: looks at an instance and says what is wrong and what to do.

With ``deep`` it reads everything and holds it against what must always be true: the books of runs, the queue, claims,
suggestions, products, clusters, the example indexes and exports. With ``repair`` it makes again what is derived from
something else, and nothing more: what people decided and what was paid is never touched.
"""

from __future__ import annotations

import hashlib
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from labeler import strictjson
from labeler.annotation import relabel
from labeler.errors import LabelerError, LabelError
from labeler.extras import EXTRAS
from labeler.files import DATABASE, read_secret_key, require_instance
from labeler.ingest import clusters
from labeler.ingest import upkeep as derived
from labeler.instance import Instance
from labeler.retrieval.index import ExampleIndex
from labeler.store import Row, lost_rows
from labeler.store.audit import audit, mend_counts
from labeler.store.database import HELD_BACK, held_back
from labeler.task import Task

_NAMED = 10
"""So many rows of one kind are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    good: bool
    text: str


def examine(folder: Path, deep: bool = False, repair: bool = False) -> list[Finding]:
    """Return what was found, good and bad, in the order in which it should be mended.

    What ``repair`` mended is good again, and says that it was mended.
    """
    findings = [Finding(sqlite3.sqlite_version_info >= (3, 39), f"SQLite {sqlite3.sqlite_version} (3.39 is needed)")]
    database = folder / DATABASE
    try:
        require_instance(folder)
    except LabelerError as error:
        return [*findings, Finding(False, str(error))]
    lost = lost_rows(database)
    if lost:
        findings.append(Finding(False, f"{lost}; restore a backup, or go on with what is left"))
    wal = database.with_name(database.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        text = f"{wal.name} holds {wal.stat().st_size:,} bytes: copy the database with 'labeler backup', never with cp"
        findings.append(Finding(True, text))
    try:
        with Instance(folder) as instance:
            stored = _store(instance)
            findings += stored + _plugins(instance) + _files(folder) + _readable(instance) + _extras()
            # Only in a damaged database is there nothing to be told by; the deep look is for bad days.
            if all(finding.good for finding in stored) and (deep or repair):
                findings += _deep(instance, repair)
            findings += _indexes(instance, repair)
    except LabelerError as error:
        findings.append(Finding(False, str(error)))
    return findings


def _store(instance: Instance) -> list[Finding]:
    damage = instance.store.check()
    if damage:
        text = f"The database is damaged: {damage[0]}; stop the server and restore the newest backup"
        return [Finding(False, text)]
    count = len(instance.store.projects.all())
    found = [Finding(True, f"{instance.store.path} is sound; {count} project(s)")]
    held = instance.store.checkpoint()
    if held > HELD_BACK:
        found.append(Finding(False, held_back(instance.store.path, held)))
    if instance.store.people.count() == 0:
        found.append(Finding(True, "Nobody has an account; the first start prints a one-time sign-in"))
    return found


def _plugins(instance: Instance) -> list[Finding]:
    found = [Finding(False, f"Plugin {d.name} is disabled: {d.said}") for d in instance.plugins.disabled]
    return found or [Finding(True, f"{len(instance.plugins.loaded)} plugins, none disabled")]


def _files(folder: Path) -> list[Finding]:
    """Say what others can read: the folder as a whole, and what holds a key, wherever it is moved to."""
    found = []
    for path, mode in ((folder, 700), (folder / "secret_key", 600), (folder / "settings.json", 600)):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            found.append(Finding(False, f"{path} can be read by others; run: chmod {mode} {path}"))
    return found


def _readable(instance: Instance) -> list[Finding]:
    """Say which of the small files cannot be used; pages that need one fail until it is mended."""
    found = []
    reads: list[Callable[[], Any]] = [lambda: instance.settings, lambda: instance.prices]
    if instance.key_file.exists():
        reads.append(lambda: read_secret_key(instance.key_file))
    for read in reads:
        try:
            read()
        except LabelerError as error:
            found.append(Finding(False, str(error)))
    return found


def _extras() -> list[Finding]:
    """Name what is not installed, and what it would give; nothing of it is needed."""
    return [Finding(True, lacking) for extra in EXTRAS.values() if (lacking := extra.lacking())]


# What must always be true


@dataclass(frozen=True, slots=True)
class _Check:
    """One thing that must be true. ``mend`` makes it true where it can be derived, and returns how much it mended."""

    holds: str
    faults: Callable[[], Sequence[str]]
    mend: Callable[[], Any] | None = None


def _deep(instance: Instance, repair: bool) -> list[Finding]:
    return [finding for check in _checks(instance) for finding in _judged(check, repair)]


def _judged(check: _Check, repair: bool) -> list[Finding]:
    """Return what is wrong with one check, a sentence for each row; that all is well, or well again."""
    faults, left = check.faults(), None
    if faults and repair and check.mend is not None:
        check.mend()
        left = check.faults()
    mended = [] if left is None else [fault for fault in faults if fault not in left]
    found = [Finding(True, f"Mended: {fault}") for fault in _named(mended)]
    found += [Finding(False, fault) for fault in _named(faults if left is None else left)]
    return found or [Finding(True, check.holds)]


def _named(faults: Sequence[str]) -> list[str]:
    more = len(faults) - _NAMED
    return [*faults[:_NAMED], *([f"... and {more:,} more of this kind"] if more > 0 else [])]


def _checks(instance: Instance) -> Iterator[_Check]:
    store = instance.store
    yield _Check("What was spent is the sum of the calls that were sent, and every answer became something",
                 lambda: audit(store), lambda: store.write(mend_counts))  # fmt: skip
    yield _Check("The queue is what the annotations say, and nobody holds what nobody may", store.work.faults,
                 lambda: store.write(store.work.repair))  # fmt: skip
    yield _Check("What the pages count is what is there", store.counts.faults,
                 lambda: store.write(store.counts.repair))  # fmt: skip
    yield _Check("Every suggestion in the queue was made for its record, task and text",
                 lambda: [f"Record {row['record_id']}, {row['task']}: the queue shows a suggestion that is not its own"
                          for row in store.suggestions.misplaced()],
                 lambda: store.write(store.suggestions.put_right))  # fmt: skip
    yield _Check("Every record can be found by its words",
                 lambda: [f"{store.unsearchable()} or more records cannot be found by their words"]
                 if store.unsearchable() else [], store.make_searchable)  # fmt: skip
    for project in store.projects.all():
        yield from _checks_of(instance, project)


def _checks_of(instance: Instance, project: dict[str, Any]) -> Iterator[_Check]:
    store, id_, name = instance.store, int(project["id"]), project["name"]
    yield _Check(f"{name}: every product is what its reviews say", lambda: derived.check_products(store, id_),
                 lambda: derived.repair_products(store, id_, instance.tasks_of(project).values()))  # fmt: skip
    for task in instance.tasks_of(project).values():
        yield _Check(
            f"{name}, {task.name}: every approval has labels that the task knows",
            partial(_strange_labels, instance, project, task),
            partial(relabel.finish, store, id_, task),
        )
    yield _Check(f"{name}: near-duplicates are in one cluster",
                 lambda: [f"{name}: record {record} is not in the cluster of its near-duplicates"
                          for record in clusters.check_clusters(store, id_)],
                 lambda: clusters.repair_clusters(store, id_))  # fmt: skip
    yield _Check(f"{name}: the files of every export are those that were written",
                 lambda: [fault for row in store.exports.all(id_, 1000)
                          for fault in _export_faults(row, instance.located(row["folder"]))])  # fmt: skip


def _strange_labels(instance: Instance, project: dict[str, Any], task: Task) -> list[str]:
    """Return what says that approvals have labels which the task does not know, or that records are still to follow."""
    where = f"{project['name']}, {task.name}"
    if instance.store.projects.unfinished(project["id"], task.name) is not None:
        return [f"{where}: records still follow a change of labels; the next start goes on with it"]
    how = f"labeler settings --project NAME --task {task.name}"
    return [
        f"{where}: {n} approvals have the label {label!r}, which the task does not know; say what it is now: "
        f"{how} --merge {label}=LABEL (or --retire, --reopen)"
        for label, n in relabel.unknown(instance.store, project["id"], task).items()
    ]


def _export_faults(export: dict[str, Any], folder: Path) -> list[str]:
    """Return which files of an export are no longer what was written; a folder that is gone was taken away."""
    manifest = folder / "manifest.json"
    if not manifest.exists() or strictjson.loads(manifest.read_bytes()) != export["manifest"]:
        # Another export stands there now.
        return []
    return [
        f"The file {folder / file} is not the one that export {export['id']} wrote; export again"
        for file, said in export["manifest"]["files"].items()
        if not (folder / file).exists() or _digest(folder / file) != said["sha256"]
    ]


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _indexes(instance: Instance, repair: bool) -> list[Finding]:
    """Compare every example index with the approved annotations it was made from."""
    found = []
    for project in instance.store.projects.all():
        for name, task in instance.tasks_of(project).items():
            try:
                index = instance.index(project, task)
                if index.ahead():
                    text = f"The database lacks the newest {index.ahead():,} decisions of {project['name']}, {name}"
                    found.append(Finding(False, f"{text}, which its index knows; restore the newest backup"))
                equal = _equal(index)
                if not equal and repair:
                    index.rebuild()
                    equal = _equal(index)
                    if equal:
                        found.append(Finding(True, f"Mended: the index of {project['name']}, {name} was made again"))
            except LabelerError as error:
                found.append(Finding(False, f"{project['name']}, {name}: {error}"))
                continue
            if not equal:
                text = f"The index of {project['name']}, {name} differs; 'labeler doctor --repair' makes it again"
                found.append(Finding(False, text))
    return found or [Finding(True, "Every example index equals the approved annotations")]


def _equal(index: ExampleIndex) -> bool:
    """Whether the examples are the approved annotations whose value the label schema of today allows."""
    held = {entry.annotation_id for _, entry in index.entries()}
    pages = index.store.annotations.approved_pages(index.project_id, index.task.name, unit=index.task.unit)
    return held == {row["id"] for page in pages for row in page if not row["written"] and _allowed(index, row)}


def _allowed(index: ExampleIndex, row: Row) -> bool:
    try:
        index.task.schema.parse(index.task.read(strictjson.loads(row["value"]), row["task_version"]))
    except LabelError:
        return False
    return True
