"""Projects, their members, and the versioned settings of their tasks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from labeler import strictjson
from labeler.errors import Conflict, InputError, NotFound
from labeler.labels import Moves
from labeler.store.database import Database, Row, Tx
from labeler.store.records import unused
from labeler.stored import stored_settings
from labeler.text import taken_name


class Projects:
    def __init__(self, db: Database) -> None:
        self.db = db

    def all(self) -> list[dict[str, Any]]:
        return [_project(row) for row in self.db.all("SELECT * FROM projects ORDER BY name")]

    def of_member(self, reviewer_id: int) -> list[dict[str, Any]]:
        sql = "SELECT p.* FROM projects p JOIN members m ON m.project_id = p.id WHERE m.reviewer_id = :r ORDER BY name"
        return [_project(row) for row in self.db.all(sql, {"r": reviewer_id})]

    def get(self, project_id: int, tx: Tx | None = None) -> dict[str, Any]:
        """Return a project with its settings. Raises :class:`NotFound`."""
        row = (tx or self.db).one("SELECT * FROM projects WHERE id = :id", {"id": project_id})
        if row is None:
            raise NotFound("There is no project number %(number)s", number=project_id)
        return _project(row)

    def of_person(self, project_id: int, reviewer_id: int) -> tuple[str | None, dict[str, Any] | None]:
        """Return the role of a person in a project, None for no member, and the project, None if there is none."""
        sql = """SELECT p.*, m.role AS own_role FROM projects p
                 LEFT JOIN members m ON m.project_id = p.id AND m.reviewer_id = :r WHERE p.id = :p"""
        row = self.db.one(sql, {"p": project_id, "r": reviewer_id})
        found = None if row is None else _project(row)
        return (None, None) if found is None else (found.pop("own_role"), found)

    def named(self, name: str) -> dict[str, Any]:
        """Return the project called ``name``. Raises :class:`NotFound` that lists those there are."""
        row = self.db.one("SELECT * FROM projects WHERE name = :name", {"name": name})
        if row is None:
            names = ", ".join(project["name"] for project in self.all()[:20]) or "none yet"
            raise NotFound("No project %(name)r; there are: %(names)s", name=name, names=names)
        return _project(row)

    def create(self, tx: Tx, name: str, language: str, settings: dict[str, Any]) -> int:
        self._check_free(tx, name)
        sql = f"""INSERT INTO projects (id, name, language, settings, created_at)
                 VALUES ({unused("projects")}, :name, :language, :settings, :now) RETURNING id"""
        params = {"name": name, "language": language, "settings": strictjson.dumps(settings), "now": time.time()}
        return int(tx.value(sql, params))

    def _check_free(self, tx: Tx, name: str, own: int | None = None) -> None:
        others = (row["name"] for row in tx.all("SELECT id, name FROM projects") if row["id"] != own)
        taken = taken_name(name, others)
        if taken is not None:
            raise InputError("There is already a project called %(name)r; choose another name", name=taken)

    def rename(self, tx: Tx, project_id: int, name: str) -> None:
        self._check_free(tx, name, project_id)
        tx.run("UPDATE projects SET name = :name WHERE id = :id", {"name": name, "id": project_id})

    def archive(self, tx: Tx, project_id: int, archived: bool) -> None:
        """Put a project aside, with its open runs paused, or bring it back."""
        params = {"at": time.time() if archived else None, "id": project_id}
        tx.run("UPDATE projects SET archived_at = :at WHERE id = :id", params)

    def in_use(self, name: str) -> dict[str, Any]:
        """Return the project called ``name`` if work on it may go on. Raises :class:`Conflict` for an archived one."""
        found = self.named(name)
        check_in_use(found)
        return found

    def set_settings(self, tx: Tx, project_id: int, settings: dict[str, Any]) -> None:
        sql = "UPDATE projects SET settings = :settings WHERE id = :id"
        tx.run(sql, {"settings": strictjson.dumps(settings), "id": project_id})

    def add_member(self, tx: Tx, project_id: int, reviewer_id: int, role: str) -> None:
        sql = """INSERT INTO members (project_id, reviewer_id, role) VALUES (:p, :r, :role)
                 ON CONFLICT (project_id, reviewer_id) DO UPDATE SET role = excluded.role"""
        tx.run(sql, {"p": project_id, "r": reviewer_id, "role": role})

    def remove_member(self, tx: Tx, project_id: int, reviewer_id: int) -> None:
        tx.run("DELETE FROM members WHERE project_id = :p AND reviewer_id = :r", {"p": project_id, "r": reviewer_id})

    def member_role(self, project_id: int, reviewer_id: int, tx: Tx | None = None) -> str | None:
        sql = "SELECT role FROM members WHERE project_id = :p AND reviewer_id = :r"
        role: str | None = (tx or self.db).value(sql, {"p": project_id, "r": reviewer_id})
        return role

    def admins(self, project_id: int, tx: Tx) -> int:
        """Return how many members of a project are its admins and can sign in."""
        sql = """SELECT COUNT(*) FROM members m JOIN reviewers r ON r.id = m.reviewer_id
                 WHERE m.project_id = :p AND m.role = 'admin' AND r.disabled = 0"""
        return int(tx.value(sql, {"p": project_id}))

    def members(self, project_id: int) -> list[Row]:
        sql = """SELECT r.id, r.name, m.role FROM members m JOIN reviewers r ON r.id = m.reviewer_id
                 WHERE m.project_id = :p ORDER BY r.name"""
        return self.db.all(sql, {"p": project_id})

    def task_settings(self, project_id: int, task: str, tx: Tx | None = None) -> tuple[int, dict[str, Any]]:
        """Return the newest (version, settings) of a task; (0, {}) while nobody changed the plugin's own."""
        sql = """SELECT version, settings FROM task_settings WHERE project_id = :p AND task = :t
                 ORDER BY version DESC LIMIT 1"""
        row = (tx or self.db).one(sql, {"p": project_id, "t": task})
        return (row["version"], stored_settings(row["settings"])) if row else (0, stored_settings("{}"))

    def task_versions(self, project_id: int, task: str) -> list[Row]:
        sql = """SELECT s.version, s.settings, s.created_at, r.name AS reviewer FROM task_settings s
                 LEFT JOIN reviewers r ON r.id = s.reviewer_id
                 WHERE s.project_id = :p AND s.task = :t ORDER BY s.version DESC"""
        return self.db.all(sql, {"p": project_id, "t": task})

    def task_settings_at(self, project_id: int, task: str, version: int) -> dict[str, Any]:
        """Return the settings of one version; 0 is the plugin's own. Raises :class:`NotFound`."""
        sql = "SELECT settings FROM task_settings WHERE project_id = :p AND task = :t AND version = :v"
        raw = self.db.value(sql, {"p": project_id, "t": task, "v": version})
        if raw is None and version:
            raise NotFound("There is no version %(number)s of the settings of %(task)s", number=version, task=task)
        return strictjson.loads(raw) if raw else {}

    def label_moves(self, project_id: int, task: str, tx: Tx | None = None) -> dict[int, Moves]:
        """Return the moves of those versions of a task that changed labels which had been given."""
        sql = """SELECT version, moves FROM task_settings
                 WHERE project_id = :p AND task = :t AND moves IS NOT NULL ORDER BY version"""
        rows = (tx or self.db).all(sql, {"p": project_id, "t": task})
        return {row["version"]: Moves.from_json(strictjson.loads(row["moves"])) for row in rows}

    def moved_last(self, tx: Tx, project_id: int, task: str) -> int:
        """Return the version that moved labels last; 0 if none did."""
        sql = "SELECT MAX(version) FROM task_settings WHERE project_id = :p AND task = :t AND moves IS NOT NULL"
        return int(tx.value(sql, {"p": project_id, "t": task}) or 0)

    def set_task_settings(
        self, tx: Tx, project_id: int, task: str, settings: dict[str, Any], reviewer_id: int | None,
        moves: Moves | None = None,
    ) -> int:  # fmt: skip
        """Store the settings as a new version and return its number. With ``moves`` its records are still to follow."""
        sql = """INSERT INTO task_settings (project_id, task, version, settings, reviewer_id, created_at, moves,
                 unfinished)
                 SELECT :p, :t, COALESCE(MAX(version), 0) + 1, :settings, :r, :now, :moves, :unfinished
                 FROM task_settings WHERE project_id = :p AND task = :t RETURNING version"""
        params = {"p": project_id, "t": task, "settings": strictjson.dumps(settings), "r": reviewer_id}
        said = strictjson.dumps(moves.to_json()) if moves else None
        return int(tx.value(sql, params | {"now": time.time(), "moves": said, "unfinished": int(said is not None)}))

    def unfinished(self, project_id: int, task: str, tx: Tx | None = None) -> Row | None:
        """Return ``version`` and ``reviewer_id`` of the oldest version whose records are still to follow, or None."""
        sql = """SELECT version, reviewer_id FROM task_settings
                 WHERE project_id = :p AND task = :t AND unfinished = 1 ORDER BY version LIMIT 1"""
        return (tx or self.db).one(sql, {"p": project_id, "t": task})

    def finished(self, tx: Tx, project_id: int, task: str, version: int) -> None:
        sql = "UPDATE task_settings SET unfinished = 0 WHERE project_id = :p AND task = :t AND version = :v"
        tx.run(sql, {"p": project_id, "t": task, "v": version})


def check_in_use(project: Mapping[str, Any]) -> None:
    """Raise :class:`Conflict` if a project is archived: what changes it waits until an admin brings it back."""
    if project["archived_at"] is not None:
        raise Conflict("The project %(name)r is archived; bring it back first", name=project["name"])


def _project(row: Row) -> dict[str, Any]:
    return dict(row) | {"settings": stored_settings(row["settings"])}
