"""Vectors of records: taken from the store, made where they are missing, filled up in the background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from labeler.retrieval.base import Embedder
from labeler.store import Store

if TYPE_CHECKING:
    import numpy as np

_SLICE = 64


class Embeddings:
    """The vectors of one embedder, one per record, made once and stored."""

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self.store = store
        self.embedder = embedder

    def vectors(self, records: Sequence[tuple[int, str]]) -> np.ndarray:
        """Return float32 (len(records), dim) for (record id, text) pairs; missing vectors are made and stored."""
        import numpy as np

        stored = self.store.vectors.get(self.embedder.id, [id_ for id_, _ in records])
        missing = [(id_, text) for id_, text in records if id_ not in stored]
        for start in range(0, len(missing), _SLICE):
            stored.update(self._make(missing[start : start + _SLICE]))
        if not records:
            return np.zeros((0, self.embedder.dim), dtype=np.float32)
        flat = np.frombuffer(b"".join(stored[id_] for id_, _ in records), dtype="<f4")
        return flat.reshape(len(records), -1).astype(np.float32, copy=False)

    def _make(self, records: Sequence[tuple[int, str]]) -> dict[int, bytes]:
        vectors = self.embedder.embed([text for _, text in records])
        made = {id_: vector.astype("<f4").tobytes() for (id_, _), vector in zip(records, vectors, strict=True)}
        if not self.store.db.read_only:
            self.store.write(lambda tx: self.store.vectors.add(tx, self.embedder.id, list(made.items())))
        return made

    def fill(self, project_id: int, stop: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """Make all missing vectors of a project, yielding how many were made so far; ends early when ``stop()``."""
        after = made = 0
        while not stop():
            rows = self.store.vectors.missing(self.embedder.id, project_id, after, _SLICE)
            if not rows:
                return
            self._make([(row["id"], row["text"]) for row in rows])
            after = rows[-1]["id"]
            made += len(rows)
            yield made
