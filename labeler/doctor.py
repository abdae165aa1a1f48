"""``labeler doctor``: looks at an instance and says what is wrong and what to do. It changes nothing."""

from __future__ import annotations

import sqlite3
import stat
from dataclasses import dataclass
from pathlib import Path

from labeler.errors import LabelerError
from labeler.instance import Instance


@dataclass(frozen=True, slots=True)
class Finding:
    good: bool
    text: str


def examine(folder: Path) -> list[Finding]:
    """Return what was found, good and bad, in the order in which it should be mended."""
    findings = [Finding(sqlite3.sqlite_version_info >= (3, 38), f"SQLite {sqlite3.sqlite_version} (3.38 is needed)")]
    database = folder / "labeler.db"
    if not database.exists():
        return [*findings, Finding(True, f"{database} does not exist yet; it is made at the first start")]
    wal = database.with_name(database.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        text = f"{wal.name} holds {wal.stat().st_size:,} bytes: copy the database with 'labeler backup', never with cp"
        findings.append(Finding(True, text))
    try:
        with Instance(folder) as instance:
            findings += _store(instance) + _plugins(instance) + _files(folder) + _indexes(instance)
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
    if instance.store.people.count() == 0:
        found.append(Finding(True, "Nobody has an account; the first start prints a one-time sign-in"))
    return found


def _plugins(instance: Instance) -> list[Finding]:
    found = [Finding(False, f"Plugin {d.name} is disabled: {d.reason}") for d in instance.plugins.disabled]
    return found or [Finding(True, f"{len(instance.plugins.loaded)} plugins, none disabled")]


def _files(folder: Path) -> list[Finding]:
    found = []
    for name in ("secret_key", "settings.json"):
        path = folder / name
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            found.append(Finding(False, f"{path} can be read by others; run: chmod 600 {path}"))
    return found


def _indexes(instance: Instance) -> list[Finding]:
    """Compare every example index with the approved annotations it was made from."""
    found = []
    for project in instance.store.projects.all():
        for name, task in instance.tasks_of(project).items():
            try:
                index = instance.index(project, task)
                held = {entry.annotation_id for _, entry in index.entries()}
            except LabelerError as error:
                found.append(Finding(False, f"{project['name']}, {name}: {error}"))
                continue
            pages = instance.store.annotations.approved_pages(project["id"], name, unit=task.unit)
            approved = {row["id"] for page in pages for row in page}
            if held != approved:
                found.append(
                    Finding(False, f"The index of {project['name']}, {name} differs; delete the folder index/")
                )
    return found or [Finding(True, "Every example index equals the approved annotations")]
