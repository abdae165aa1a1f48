"""What is held out, and what may be learned from in its place: the two sides of an evaluation."""

from __future__ import annotations

from labeler.export.splits import TEST, TRAIN
from labeler.store import Row, Store

_LINKS = ("cluster", "grp", "content_hash")


def records(store: Store, project_id: int, name: str = TEST) -> set[int]:
    """Return the records that exports remember as test, or those of the frozen test set ``name``.

    Raises :class:`NotFound` for one that nobody froze.
    """
    if name != TEST:
        return store.splits.frozen_records(project_id, name)
    return {row["id"] for row in store.splits.remembered(project_id) if row["split"] == TEST}


def learnable(store: Store, project_id: int, task: str) -> set[int]:
    """Return the approvals in force, by id, of train records that share nothing with a held-out one.

    By what splits are closed under: a near-duplicate or a product that came later may tie a train record to a test
    record, and such a train record stays out of exports too.
    """
    rows = store.splits.remembered(project_id)
    held = {link for row in rows if row["split"] != TRAIN for link in _links(row)}
    ids = [row["id"] for row in rows if row["split"] == TRAIN and held.isdisjoint(_links(row))]
    return {row["id"] for row in store.annotations.approved_among(project_id, task, ids).values()}


def _links(row: Row) -> set[tuple[str, object]]:
    return {(name, row[name]) for name in _LINKS if row[name] is not None}
