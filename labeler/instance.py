"""An open instance: its folder, projects and examples, with what suggests and what the desk works on.

This is the wiring of everything below the page; :mod:`labeler.app` adds the page, and :mod:`labeler.suggesters` says
how a suggester is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labeler import suggesters
from labeler.annotation.acts import Acts
from labeler.annotation.ballots import Overlap
from labeler.annotation.queue import LIKE_LABEL, Queue
from labeler.backends.base import Backend
from labeler.errors import LabelerError
from labeler.examples import Examples
from labeler.export.job import Calls
from labeler.prelabel.calls import CallPolicy
from labeler.prelabel.suggest import Suggester
from labeler.retrieval.index import ExampleIndex
from labeler.retrieval.ranking import Rankings
from labeler.suggesters import Suggesters
from labeler.task import Task

if TYPE_CHECKING:
    import numpy as np


class Instance(Examples):
    """Open an instance folder: see :class:`labeler.files.Files`."""

    def __init__(self, folder: Path, *, read_only: bool = False, make: bool = True) -> None:
        super().__init__(folder, read_only=read_only, make=make)
        self._suggesters = Suggesters(self)
        self._rankings = Rankings(self.store)

    def change_settings(self, changes: Mapping[str, Any], by: int | None = None) -> None:
        super().change_settings(changes, by)
        self._suggesters.forget_backends()

    # Suggestions

    def default_backend(self, project: Mapping[str, Any], task: Task, model_id: str = "") -> str:
        """Return the name of the backend of a task that names none: see :meth:`Suggesters.default_backend`."""
        return self._suggesters.default_backend(project, task, model_id)

    def backend(
        self, project: Mapping[str, Any], task: Task, name: str, options: Mapping[str, Any] | None = None
    ) -> Backend:
        """Return a backend by name: see :meth:`Suggesters.backend`."""
        return self._suggesters.backend(project, task, name, options)

    def spends(self, project: Mapping[str, Any], task: Task, overrides: Mapping[str, Any] | None = None) -> bool:
        """Whether a run would be of a billed backend: see :meth:`Suggesters.spends`."""
        return self._suggesters.spends(project, task, overrides)

    def suggester(
        self, project: Mapping[str, Any], task: Task, overrides: Mapping[str, Any] | None = None, keep: bool = True
    ) -> Suggester:
        """Return what makes suggestions for a task, with ``overrides`` of one run: see :meth:`Suggesters.suggester`."""
        return self._suggesters.suggester(project, task, overrides, keep)

    def suggester_now(self, project: Mapping[str, Any], task: Task) -> Suggester:
        """Return what can suggest while a page waits: a free backend, and none that would first have to be fitted."""
        return self.free_suggester(project, task, self.suggester(project, task))

    def free_suggester(self, project: Mapping[str, Any], task: Task, own: Suggester | None) -> Suggester:
        """Return what stands in while a page waits for ``own``, the task's own suggester; ``own`` if it can itself."""
        stands_in = self.ensemble(project, task).stands_in
        if own is not None and not own.backend.billed:
            if own.backend.answers_now():
                return own
            # The background worker fits, and the neighbours answer meanwhile if they can.
            if not self.read_only and not self.store.upkeep.is_due(int(project["id"]), task.name):
                self.store.write(lambda tx: self.store.upkeep.ask(tx, int(project["id"]), task.name))
            self.wake()
        return self.suggester(project, task, {"backend": stands_in})

    def calls(self, project: Mapping[str, Any], task: Task, asked: Mapping[str, Any] | None = None) -> Calls:
        """Return how the calls of a task are put: see :meth:`Suggesters.calls`."""
        return self._suggesters.calls(project, task, asked)

    def policy(self, settings: Mapping[str, Any]) -> CallPolicy:
        """Return the call policy of a run with these settings of its task."""
        return suggesters.policy(self.settings, settings)

    # The desk

    def queue(self, project: Mapping[str, Any], task: Task) -> Queue:
        def nearest(text: str) -> Sequence[int]:
            place, name = (int(project["id"]), task.name), text.removeprefix(LIKE_LABEL)
            if text != name and name in task.schema.names:
                query = partial(self._towards, index := self.index(project, task), name, project["language"])
                return self._rankings.pending(*place, index.embeddings.embedder, text, query)
            return self._rankings.pending(*place, self.best_embeddings(project).embedder, text)

        settings = self.project_settings(project)
        return Queue(self.store, int(project["id"]), task, settings, nearest, lambda: self._answering(project, task))

    def acts(self, project: Mapping[str, Any], task: Task) -> Acts:
        settings = self.project_settings(project)
        share = float(settings["blind_share"])
        return Acts(self.store, int(project["id"]), task, share, Overlap.of(settings, task.name))

    def _towards(self, index: ExampleIndex, name: str, language: str) -> np.ndarray:
        """Return where records of a label lie: by its examples, or by its description where there are none."""
        found, label = index.towards(name), index.task.schema.label(name)
        described = f"{label.titled(language)}. {label.defined(language)}"
        return index.embeddings.embedder.embed([described])[0] if found is None else found

    def _answering(self, project: Mapping[str, Any], task: Task) -> str:
        """Return the name of the backend that suggests now; one that is not set up still has its older scores."""
        try:
            own = self.suggester(project, task)
            return (own if own.backend.billed else self.free_suggester(project, task, own)).backend.name
        except LabelerError:
            return str(self.task_settings(project, task.name)["backend"])

    def close(self) -> None:
        self._suggesters.close()
        super().close()

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
