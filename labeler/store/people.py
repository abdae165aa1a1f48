"""Reviewers (the people who sign in), their tokens, and failed sign-ins."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from labeler.errors import InputError, NotFound
from labeler.store.database import Database, Row, Tx
from labeler.text import clean_text, taken_name

_ENDED = "SELECT 1 FROM tokens WHERE hash = :hash AND kind = 'ended session'"


class People:
    def __init__(self, db: Database) -> None:
        self.db = db
        self.unwritten: deque[tuple[float, str, str]] = deque(maxlen=100_000)
        """Failed sign-ins of a store that is open read-only: when, under which name, from which address."""

    def all(self) -> list[Row]:
        sql = """SELECT id, name, role, language, disabled, created_at, email, password IS NOT NULL AS has_password,
                 subject IS NOT NULL AS linked FROM reviewers ORDER BY name"""
        return self.db.all(sql)

    def count(self) -> int:
        return int(self.db.value("SELECT COUNT(*) FROM reviewers"))

    def without_password(self) -> int | None:
        """Return the first admin while nobody has a password yet; None once somebody has, or nobody is there."""
        sql = """SELECT MIN(id) FROM reviewers WHERE role = 'admin' AND disabled = 0
                 AND NOT EXISTS (SELECT 1 FROM reviewers WHERE password IS NOT NULL AND disabled = 0)"""
        found: int | None = self.db.value(sql)
        return found

    def get(self, reviewer_id: int, tx: Tx | None = None) -> Row | None:
        return (tx or self.db).one("SELECT * FROM reviewers WHERE id = :id", {"id": reviewer_id})

    def of_session(self, reviewer_id: int, digest: str) -> Row | None:
        """Return an account, None if the session was signed out."""
        sql = f"SELECT * FROM reviewers WHERE id = :id AND NOT EXISTS ({_ENDED})"
        return self.db.one(sql, {"id": reviewer_id, "hash": digest})

    def admins(self, tx: Tx) -> int:
        """Return how many admins of the instance can sign in."""
        return int(tx.value("SELECT COUNT(*) FROM reviewers WHERE role = 'admin' AND disabled = 0"))

    def named(self, name: str) -> Row | None:
        return self.db.one("SELECT * FROM reviewers WHERE name = :name", {"name": clean_text(name, "name")})

    def create(self, tx: Tx, name: str, password: str | None, role: str, language: str | None = None) -> int:
        """Add a reviewer; ``password`` is already hashed, or None for one who signs in by link only.

        Raises :class:`InputError` for a name that is taken.
        """
        taken = taken_name(name, (row["name"] for row in tx.all("SELECT name FROM reviewers")))
        if taken is not None:
            raise InputError("There is already a reviewer called %(name)r", name=taken)
        sql = """INSERT INTO reviewers (name, password, role, language, created_at)
                 VALUES (:name, :password, :role, :language, :now) RETURNING id"""
        params = {"name": name, "password": password, "role": role, "language": language, "now": time.time()}
        return int(tx.value(sql, params))

    def change(self, tx: Tx, reviewer_id: int, **columns: Any) -> None:
        """Change some of password, role, language, disabled, desk. What lets people in ends open sessions, voids links.

        Raises :class:`InputError` for another column, :class:`NotFound` for nobody.
        """
        comforts = {"language", "desk"}
        allowed = {"password", "role", "disabled"} | comforts
        if not columns or set(columns) - allowed:
            raise InputError(f"Only these can be changed: {', '.join(sorted(allowed))}")
        assignments = ", ".join(f"{name} = :{name}" for name in sorted(columns))
        if set(columns) - comforts:
            assignments += ", epoch = epoch + 1"
        if not tx.run(f"UPDATE reviewers SET {assignments} WHERE id = :id", {**columns, "id": reviewer_id}):
            raise NotFound("There is no reviewer number %(number)s", number=reviewer_id)
        if set(columns) - comforts:
            self.void_tokens(tx, reviewer_id)

    def linked(self, tx: Tx | Database, issuer: str, subject: str) -> Row | None:
        """Return the account that an identity of a provider is linked to."""
        sql = "SELECT * FROM reviewers WHERE issuer = :issuer AND subject = :subject"
        return tx.one(sql, {"issuer": issuer, "subject": subject})

    def with_email(self, tx: Tx, email: str) -> Row | None:
        return tx.one("SELECT * FROM reviewers WHERE email = :email", {"email": email})

    def link(self, tx: Tx, reviewer_id: int, issuer: str, subject: str) -> None:
        sql = "UPDATE reviewers SET issuer = :issuer, subject = :subject WHERE id = :id"
        tx.run(sql, {"id": reviewer_id, "issuer": issuer, "subject": subject})

    def set_email(self, tx: Tx, reviewer_id: int, email: str | None) -> None:
        """Say by which e-mail an account is found. Whom it was linked to is forgotten, and is signed out.

        Raises :class:`InputError` for the e-mail of another account.
        """
        other = self.with_email(tx, email) if email else None
        if other is not None and other["id"] != reviewer_id:
            raise InputError("The e-mail %(email)s belongs to the account of %(name)s", email=email, name=other["name"])
        sql = """UPDATE reviewers SET email = :email, issuer = NULL, subject = NULL,
                 epoch = epoch + CASE WHEN subject IS NULL THEN 0 ELSE 1 END WHERE id = :id"""
        tx.run(sql, {"id": reviewer_id, "email": email})

    def add_token(self, tx: Tx, reviewer_id: int, kind: str, digest: str, expires_at: float | None) -> None:
        sql = """INSERT INTO tokens (reviewer_id, kind, hash, expires_at, created_at)
                 VALUES (:r, :kind, :hash, :expires, :now)"""
        params = {"r": reviewer_id, "kind": kind, "hash": digest, "expires": expires_at, "now": time.time()}
        tx.run(sql, params)

    def use_token(self, tx: Tx, kind: str, digest: str) -> int | None:
        """Mark a one-time token as used and return its reviewer; None if it is unknown, used or expired."""
        sql = """UPDATE tokens SET used_at = :now WHERE kind = :kind AND hash = :hash AND used_at IS NULL
                 AND (expires_at IS NULL OR expires_at > :now) RETURNING reviewer_id"""
        found: int | None = tx.value(sql, {"kind": kind, "hash": digest, "now": time.time()})
        return found

    def void_tokens(self, tx: Tx, reviewer_id: int) -> None:
        """Let no link of an account sign in any more."""
        sql = "UPDATE tokens SET used_at = :now WHERE reviewer_id = :r AND used_at IS NULL"
        tx.run(sql, {"r": reviewer_id, "now": time.time()})

    def end_session(self, tx: Tx, reviewer_id: int, digest: str, until: float) -> None:
        """Remember until when a session that was signed out may still be shown; those that may not are forgotten."""
        tx.run("DELETE FROM tokens WHERE kind = 'ended session' AND expires_at < :now", {"now": time.time()})
        sql = """INSERT INTO tokens (reviewer_id, kind, hash, expires_at, created_at, used_at)
                 VALUES (:r, 'ended session', :hash, :until, :now, :now) ON CONFLICT (hash) DO NOTHING"""
        tx.run(sql, {"r": reviewer_id, "hash": digest, "until": until, "now": time.time()})

    def add_attempt(self, tx: Tx, name: str, address: str) -> None:
        now = time.time()
        # Those of tomorrow come from a clock that ran ahead.
        tx.run("DELETE FROM attempts WHERE at NOT BETWEEN :old AND :soon", {"old": now - 86400, "soon": now + 60})
        sql = "INSERT INTO attempts (name, address, at) VALUES (:name, :address, :now)"
        tx.run(sql, {"name": name[:80], "address": address, "now": now})

    def attempts(self, tx: Tx, name: str, address: str, seconds: float) -> tuple[int, int, int]:
        """Return how many sign-ins failed in the last ``seconds``: (for both, for this name, from this address)."""
        sql = """SELECT SUM(name = :name AND address = :address), SUM(name = :name), SUM(address = :address)
                 FROM attempts WHERE at BETWEEN :since AND :now"""
        now = time.time()
        row = tx.one(sql, {"name": name[:80], "address": address, "since": now - seconds, "now": now})
        both, by_name, by_address = row or (0, 0, 0)
        return (both or 0, by_name or 0, by_address or 0)

    def clear_attempts(self, tx: Tx, name: str, address: str) -> None:
        sql = "DELETE FROM attempts WHERE name = :name AND address = :address"
        tx.run(sql, {"name": name[:80], "address": address})
