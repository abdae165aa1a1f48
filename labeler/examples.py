"""What an instance learned from approvals: vectors, indexes of examples, and the ensembles that were fitted.

One object per process; what it holds is shared by all threads.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labeler import extras
from labeler.backends.ensemble import learner_for
from labeler.extras import AUTO, extra_of_embedder
from labeler.plugins import find
from labeler.projects import Projects
from labeler.retrieval.embedding import Embeddings
from labeler.retrieval.index import ExampleIndex
from labeler.task import Task

if TYPE_CHECKING:
    from labeler.backends.ensemble.learner import Learner

# So few missing vectors of a slow embedder are made while a page waits; more are left to the background.
_FEW = 16
_RECHECK = 30.0
E5 = "e5"


class Examples(Projects):
    """The projects of an instance with what was learned in them."""

    def __init__(self, folder: Path, *, read_only: bool = False, make: bool = True) -> None:
        super().__init__(folder, read_only=read_only, make=make)
        self._lock = threading.RLock()
        self._embeddings: dict[str, Embeddings] = {}
        self._indexes: dict[tuple[int, str, str], ExampleIndex] = {}
        self._ensembles: dict[tuple[int, str, str, str], Learner[Any]] = {}
        self._complete: dict[tuple[int, str, int], tuple[bool, float]] = {}

    def close(self) -> None:
        """Save the index caches and close the store."""
        for index in self._indexes.values():
            index.save()
        self.store.close()

    @functools.cached_property
    def _best_embedder(self) -> str:
        # Looked up once: what is installed is searched for on the disk, and every request asks several times.
        return extras.best_embedder()

    def embeddings(self, project: Mapping[str, Any]) -> Embeddings:
        """Return the vectors that retrieval uses now.

        Those of the project's embedder, unless it is a slow one whose vectors are still being made in the
        background: until nearly all are there, retrieval goes on with the lexical ones and no page waits.
        """
        chosen = self.chosen_embeddings(project)
        if chosen.embedder.fast or self._nearly_complete(chosen, int(project["id"])):
            return chosen
        return self.lexical_embeddings(project)

    def lexical_embeddings(self, project: Mapping[str, Any]) -> Embeddings:
        return self._embeddings_of(project, "lexical")

    def _embeddings_of(self, project: Mapping[str, Any], embedder: str) -> Embeddings:
        return self.chosen_embeddings({**project, "settings": {**project["settings"], "embedder": embedder}})

    def best_embeddings(self, project: Mapping[str, Any]) -> Embeddings:
        """Return the vectors that a typed text is compared by: those of meaning where all are there, else of letters.

        A project that goes by letters now may have those of e5 from before.
        """
        now = self.embeddings(project)
        if not now.embedder.fast or E5 not in self.plugins.embedders or extra_of_embedder(E5) is not None:
            return now
        better = self._embeddings_of(project, E5)
        return better if self._nearly_complete(better, int(project["id"]), 1) else now

    def _nearly_complete(self, embeddings: Embeddings, project_id: int, few: int = _FEW) -> bool:
        """Whether fewer than ``few`` vectors of a project are missing."""
        key = (project_id, embeddings.embedder.id, few)
        known, at = self._complete.get(key, (False, 0.0))
        now = time.monotonic()
        if now - at > (_RECHECK if known else 1.0):
            known = embeddings.missing(project_id, few) < few
            self._complete[key] = (known, now)
        return known

    def chosen_embeddings(self, project: Mapping[str, Any]) -> Embeddings:
        """Return the vectors of the embedder that the project's settings name, or of the best that is installed."""
        settings = self.project_settings(project)
        name = self._best_embedder if settings["embedder"] == AUTO else settings["embedder"]
        key = f"{name}/{settings['embedding_model']}"
        with self._lock:
            if key not in self._embeddings:
                factory = find(self.plugins.embedders, name, "embedder")
                self._embeddings[key] = Embeddings(self.store, factory(settings), name)
            return self._embeddings[key]

    def rest(self) -> None:
        """Have embedders let go of what nobody has used for a while."""
        with self._lock:
            resting = [getattr(one.embedder, "rest", None) for one in self._embeddings.values()]
        for rest in resting:
            if rest is not None:
                rest()

    def index(self, project: Mapping[str, Any], task: Task) -> ExampleIndex:
        """Return the example index of a task; its cache file lives in the folder index/."""
        embeddings = self.embeddings(project)
        key = (int(project["id"]), task.name, embeddings.embedder.id)
        with self._lock:
            index = self._indexes.get(key)
            if index is None:
                folder = None if self.read_only else self.folder / "index"
                index = self._indexes[key] = ExampleIndex(self.store, key[0], task, embeddings, folder)
            index.use(task)
            return index

    def ensemble(self, project: Mapping[str, Any], task: Task) -> Learner[Any]:
        """Return what learns from the approvals of a task; it is made again where another kind of value is learned."""
        index = self.index(project, task)
        key = (int(project["id"]), task.name, index.embeddings.embedder.id, task.schema.kind)
        with self._lock:
            if key not in self._ensembles:
                self._ensembles[key] = learner_for(index, self.lexical_embeddings(project), project["language"])
            self._ensembles[key].columns = self.sent_columns(project, task)
            return self._ensembles[key]
