"""The log of decisions with a part of it hidden: what an index of examples reads to know no more than that."""

from __future__ import annotations

from collections.abc import Collection

from labeler.store.annotations import Annotations
from labeler.store.database import Database, Row, Tx


class PastAnnotations(Annotations):
    """The log of decisions as it stood after the decision ``until``: what an index reads to know no more than that."""

    until = 0

    def latest_seq(self, project_id: int, task: str, tx: Tx | None = None) -> int:
        sql = "SELECT MAX(id) FROM annotations WHERE project_id = :p AND task = :t AND id <= :until"
        return int((tx or self.db).value(sql, {"p": project_id, "t": task, "until": self.until}) or 0)

    def news(self, project_id: int, task: str, united_seq: int) -> tuple[int, int, bool]:
        _, removals, united = super().news(project_id, task, united_seq)
        return self.latest_seq(project_id, task), removals, united

    def count_since(self, project_id: int, task: str, seq: int, limit: int) -> int:
        return len(self.since(project_id, task, seq, limit))

    def since(self, project_id: int, task: str, seq: int, limit: int = 5000) -> list[Row]:
        return [row for row in super().since(project_id, task, seq, limit) if row["id"] <= self.until]


class ChosenAnnotations(PastAnnotations):
    """The log with the annotations ``chosen`` alone, up to the decision ``until``."""

    def __init__(self, db: Database, chosen: Collection[int], until: int) -> None:
        super().__init__(db)
        self.chosen, self.until = chosen, until

    def since(self, project_id: int, task: str, seq: int, limit: int = 5000) -> list[Row]:
        """Return the next that were chosen; an empty list says that none is left."""
        while rows := super().since(project_id, task, seq, limit):
            if found := [row for row in rows if row["id"] in self.chosen]:
                return found
            seq = rows[-1]["id"]
        return []
