"""What was found out about models: the capabilities that a test call recorded, by backend, server and model id."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from labeler import strictjson
from labeler.store.database import Database, Tx


class Models:
    def __init__(self, db: Database) -> None:
        self.db = db

    def record(self, tx: Tx, backend: str, base_url: str, model_id: str, capabilities: Mapping[str, Any]) -> None:
        """Keep what a test call found; the newest finding counts."""
        tx.run(
            """INSERT INTO models (backend, base_url, model_id, capabilities, checked_at)
               VALUES (:backend, :base_url, :model_id, :capabilities, :now)
               ON CONFLICT (backend, base_url, model_id) DO UPDATE SET
                 capabilities = excluded.capabilities, checked_at = excluded.checked_at""",
            {
                "backend": backend, "base_url": base_url, "model_id": model_id,
                "capabilities": strictjson.dumps(dict(capabilities)), "now": time.time(),
            },
        )  # fmt: skip

    def capabilities(self, backend: str, base_url: str, model_id: str) -> dict[str, Any] | None:
        """Return what the last test call found, or None if there was none."""
        sql = """SELECT capabilities FROM models
                 WHERE backend = :backend AND base_url = :base_url AND model_id = :model_id"""
        found = self.db.value(sql, {"backend": backend, "base_url": base_url, "model_id": model_id})
        return None if found is None else dict(strictjson.loads(found))

    def all(self) -> list[dict[str, Any]]:
        rows = self.db.all("SELECT * FROM models ORDER BY backend, base_url, model_id")
        return [dict(row) | {"capabilities": strictjson.loads(row["capabilities"])} for row in rows]
