"""Vectors of records: taken from the store, made where they are missing, filled up in the background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from labeler.errors import PluginError
from labeler.retrieval.base import Embedder
from labeler.store import Store

_SLICE = 64
# So many records, of any project, are looked through again rather than write down that nothing of them is missing.
_MARKED = 1000


class Embeddings:
    """The vectors of one embedder, one per record, made once and stored.

    ``name`` is what the settings call it.
    """

    def __init__(self, store: Store, embedder: Embedder, name: str = "") -> None:
        self.store = store
        self.embedder = embedder
        self.name = name

    def vectors(self, records: Sequence[tuple[int, str]]) -> np.ndarray:
        """Return float32 (len(records), dim) for (record id, text) pairs; missing vectors are made and stored."""
        stored = self.store.vectors.get(self.embedder.id, [id_ for id_, _ in records])
        missing = [(id_, text) for id_, text in records if id_ not in stored]
        for start in range(0, len(missing), _SLICE):
            made = self._made(missing[start : start + _SLICE])
            self._keep(made)
            stored.update((id_, vector) for id_, _, vector in made)
        if not records:
            return np.zeros((0, self.embedder.dim), dtype=np.float32)
        flat = np.frombuffer(b"".join(stored[id_] for id_, _ in records), dtype="<f4")
        return flat.reshape(len(records), -1).astype(np.float32, copy=False)

    def _made(self, records: Sequence[tuple[int, str]]) -> list[tuple[int, str, bytes]]:
        vectors, wanted = (
            np.asarray(self.embedder.embed([text for _, text in records])),
            (len(records), self.embedder.dim),
        )
        # One that does not fit would be stored, and met again by everything that compares it with others.
        if vectors.shape != wanted or not np.isfinite(vectors).all():
            raise PluginError(
                "The embedder %(name)s must return finite numbers of shape %(wanted)s, and returned shape %(got)s",
                name=self.name or self.embedder.id,
                wanted=wanted,
                got=vectors.shape,
            )
        return [
            (id_, text, vector.astype("<f4").tobytes()) for (id_, text), vector in zip(records, vectors, strict=True)
        ]

    def _keep(self, made: Sequence[tuple[int, str, bytes]]) -> bool:
        """Store vectors; return whether none was of a text that has changed meanwhile."""
        if self.store.db.read_only:
            return False
        return self.store.write(lambda tx: self.store.vectors.add(tx, self.embedder.id, made))

    def missing(self, project_id: int, limit: int) -> int:
        """Return how many records of a project have no vector, at most ``limit``.

        A few small reads, however many records there are: what was once seen to be there is not looked at again.
        """
        vectors, id_ = self.store.vectors, self.embedder.id
        through, newest = vectors.through(id_, project_id), vectors.newest_record()
        found = vectors.missing(id_, project_id, through, limit)
        if not found and newest - through > _MARKED:
            self._mark(project_id, newest)
        # What was dropped before the first look is among them; counted twice it is still missing.
        return min(limit, len(found) + len(vectors.dropped(id_, project_id, limit)))

    def fill(self, project_id: int, stop: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """Make all missing vectors of a project, yielding how many were made so far; ends early when ``stop()``.

        It goes on behind the record up to which everything is there, also where it was ended early or by another
        process, and the store tells which vectors were dropped since.
        """
        vectors, made = self.store.vectors, 0
        after, newest, whole = vectors.through(self.embedder.id, project_id), vectors.newest_record(), True
        marked = after
        while not stop():
            rows = vectors.missing(self.embedder.id, project_id, after, _SLICE)
            if rows:
                after = rows[-1]["id"]
            else:
                rows = vectors.dropped(self.embedder.id, project_id, _SLICE)
                after = max(after, newest)
            if rows:
                whole = self._keep(self._made([(row["id"], row["text"]) for row in rows])) and whole
            if whole and after > marked:
                self._mark(project_id, after)
                marked = after
            if not rows:
                return
            made += len(rows)
            yield made

    def _mark(self, project_id: int, record_id: int) -> None:
        """Note that everything up to a record is there."""
        if not self.store.db.read_only:
            self.store.write(lambda tx: self.store.vectors.mark_through(tx, self.embedder.id, project_id, record_id))
