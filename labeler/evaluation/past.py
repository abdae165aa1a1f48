"""An instance as it stood before a decision: the examples and the ensemble of then, and nothing that came later."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

from labeler.backends.ensemble import learner_for
from labeler.examples import Examples
from labeler.instance import Instance
from labeler.prelabel.suggest import Suggester
from labeler.retrieval.index import ExampleIndex
from labeler.store import Store
from labeler.store.fits import Fits
from labeler.store.past import ChosenAnnotations, PastAnnotations
from labeler.suggesters import Suggesters
from labeler.task import Task

if TYPE_CHECKING:
    from labeler.backends.ensemble.learner import Learner


class _NoFits(Fits):
    """What was fitted on all approvals knows too much: here every fit is made anew, and kept in memory alone."""

    def current(self, project_id: int, task: str, embedder: str) -> str | None:
        return None


class Past:
    """Makes suggesters that know what was decided up to one moment, which moves on by :meth:`go_to`, never back.

    Where annotations are ``chosen``, nothing is known of others. Everything else (records, vectors, settings) is as it
    is now. Used by one thread; to be closed.
    """

    def __init__(self, instance: Instance, chosen: Collection[int] | None = None) -> None:
        self._instance = instance
        self.store = Store(instance.store.path, read_only=True)
        self._log = PastAnnotations(self.store.db) if chosen is None else ChosenAnnotations(self.store.db, chosen, 0)
        self.store.annotations = self._log
        self.store.fits = _NoFits(self.store.db)
        self.read_only = True
        self._indexes: dict[tuple[int, str, str], ExampleIndex] = {}
        self._ensembles: dict[tuple[int, str, str], Learner[Any]] = {}
        self._suggesters = Suggesters(cast(Examples, self))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)

    def go_to(self, seq: int) -> None:
        """Let the decisions up to the number ``seq`` be known."""
        self._log.until = max(seq, self._log.until)

    def index(self, project: Mapping[str, Any], task: Task) -> ExampleIndex:
        embeddings = self._instance.embeddings(project)
        key = (int(project["id"]), task.name, embeddings.embedder.id)
        if key not in self._indexes:
            self._indexes[key] = ExampleIndex(self.store, key[0], task, embeddings)
        return self._indexes[key]

    def ensemble(self, project: Mapping[str, Any], task: Task) -> Learner[Any]:
        index = self.index(project, task)
        key = (int(project["id"]), task.name, index.embeddings.embedder.id)
        if key not in self._ensembles:
            self._ensembles[key] = learner_for(index, self._instance.lexical_embeddings(project), project["language"])
        self._ensembles[key].columns = self._instance.sent_columns(project, task)
        return self._ensembles[key]

    def learn(self, project: Mapping[str, Any], task: Task) -> None:
        """Fit the ensemble again where a worker would have."""
        ensemble = self.ensemble(project, task)
        if ensemble.supports(task.schema) and ensemble.stale():
            ensemble.fit()

    def suggester(self, project: Mapping[str, Any], task: Task, settings: Mapping[str, Any]) -> Suggester:
        return self._suggesters.suggester(project, task, settings)

    def close(self) -> None:
        self._suggesters.close()
        self.store.close()

    def __enter__(self) -> Past:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
