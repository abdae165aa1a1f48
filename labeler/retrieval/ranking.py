"""The pending records of a task by their similarity to a typed text or to a label, for the queue order "similar"."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from labeler.retrieval.base import Embedder
from labeler.store import Store

Query = Callable[[], "np.ndarray"]
# Each ranking takes some 40 bytes a record; a person goes on with one text for a while.
_KEPT = 8
# Every vector is read again after so many seconds: texts of products change, and undone records are pending again.
_FRESH = 600.0
_AT_ONCE = 200


@dataclass
class _Ranking:
    """The records that were pending when it was made, most similar first, and their similarities (cosine)."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    made: float = float("-inf")
    ids: list[int] = field(default_factory=list)
    similarities: np.ndarray | None = None
    through: int = 0


class Rankings:
    """Rankings for the last few typed texts, kept in this process; any other process makes the same ones.

    One pass over the vectors makes a ranking. After that only vectors of new records are read, and what was decided at
    its head is cut off, so that the next record costs the same with 100,000 records as with 100.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, str, str, str], _Ranking] = OrderedDict()

    def pending(
        self, project_id: int, task: str, embedder: Embedder, text: str, query: Query | None = None
    ) -> Sequence[int]:
        """Return the ids of records to look at for ``text``, most similar first; the first of them is pending.

        ``query`` returns what is compared in place of the vector of the text, which is its name then.
        """
        key = (project_id, task, embedder.id, text)
        with self._lock:
            ranking = self._kept.setdefault(key, _Ranking())
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        with ranking.lock:
            self._bring_up_to_date(ranking, project_id, task, embedder, query or (lambda: embedder.embed([text])[0]))
            self._cut(ranking, project_id, task)
            return ranking.ids

    def _bring_up_to_date(
        self, ranking: _Ranking, project_id: int, task: str, embedder: Embedder, query: Query
    ) -> None:
        if time.monotonic() - ranking.made > _FRESH:
            ranking.ids, ranking.similarities, ranking.through = [], None, 0
            ranking.made = time.monotonic()
        wanted: set[int] | None = None
        vector = None
        found_ids: list[int] = []
        found: list[np.ndarray] = []
        for page in self.store.vectors.pages(embedder.id, project_id, after=ranking.through):
            if wanted is None or vector is None:
                wanted = set(self.store.work.all_pending(project_id, task, ranking.through))
                vector = query()
            rows = [row for row in page if row["id"] in wanted]
            matrix = np.frombuffer(b"".join(row["vector"] for row in rows), dtype="<f4").reshape(len(rows), vector.size)
            found.append(matrix @ vector)
            found_ids += [row["id"] for row in rows]
            ranking.through = page[-1]["id"]
        if found_ids:
            # Most similar first, the older of two that are alike: every process comes to the same.
            old = [] if ranking.similarities is None else [ranking.similarities]
            ids, similarities = np.array([*ranking.ids, *found_ids]), np.concatenate([*old, *found])
            order = np.lexsort((ids, -similarities))
            ranking.ids, ranking.similarities = ids[order].tolist(), similarities[order]

    def _cut(self, ranking: _Ranking, project_id: int, task: str) -> None:
        """Take what is no longer pending off the head of a ranking."""
        start = 0
        while start < len(ranking.ids):
            slice_ = ranking.ids[start : start + _AT_ONCE]
            pending = self.store.work.pending_among(project_id, task, slice_)
            first = next((n for n, id_ in enumerate(slice_) if id_ in pending), None)
            start += len(slice_) if first is None else first
            if first is not None:
                break
        if start and ranking.similarities is not None:
            ranking.ids, ranking.similarities = ranking.ids[start:], ranking.similarities[start:]
