"""What was found out about models: the capabilities that a test call recorded, by backend, server and model id."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from labeler import strictjson
from labeler.store.database import Database, Row, Tx

# Of fifty answers the first counts a third as much as the last.
_KEPT = 0.98


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

    def learn(self, tx: Tx, backend: str, base_url: str, model_id: str, found: Mapping[str, Any]) -> None:
        """Keep what a run found of a model that was tested: the server may have been started anew since."""
        known = self.capabilities(backend, base_url, model_id)
        if known is not None and {**known, **found} != known:
            tx.run(
                """UPDATE models SET capabilities = :capabilities
                   WHERE backend = :backend AND base_url = :base_url AND model_id = :model_id""",
                {
                    "backend": backend, "base_url": base_url, "model_id": model_id,
                    "capabilities": strictjson.dumps({**known, **found}),
                },
            )  # fmt: skip

    def count_tokens(self, tx: Tx, server: str, model_id: str, narrow: float, wide: float) -> Row:
        """Add what one answer told of a model's tokenizer, and return the sums.

        ``narrow`` and ``wide`` are the guesses for ASCII and for the rest, as shares of the tokens that were counted.
        Older answers count less and less.
        """
        sums = {"n": narrow, "w": wide, "nn": narrow * narrow, "nw": narrow * wide, "ww": wide * wide}
        names = ", ".join(sums)
        row = tx.one(
            f"""INSERT INTO token_counts (server, model_id, answers, {names})
                VALUES (:server, :model_id, 1, {", ".join(f":{name}" for name in sums)})
                ON CONFLICT (server, model_id) DO UPDATE SET answers = token_counts.answers + 1,
                {", ".join(f"{name} = token_counts.{name} * {_KEPT} + excluded.{name}" for name in sums)}
                RETURNING answers, {names}""",
            {"server": server, "model_id": model_id, **sums},
        )
        assert row is not None
        return row

    def tokens_counted(self, server: str, model_id: str) -> Row | None:
        """Return the sums of :meth:`count_tokens`; None before the first answer."""
        sql = "SELECT * FROM token_counts WHERE server = :server AND model_id = :model_id"
        return self.db.one(sql, {"server": server, "model_id": model_id})

    def all(self) -> list[dict[str, Any]]:
        rows = self.db.all("SELECT * FROM models ORDER BY backend, base_url, model_id")
        return [dict(row) | {"capabilities": strictjson.loads(row["capabilities"])} for row in rows]
