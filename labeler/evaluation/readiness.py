"""Whether the approvals of a task are enough to fine-tune on, and what to label first where they are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labeler.backends.ensemble.backend import EnsembleBackend
from labeler.evaluation.measures import Measure, measured, weights
from labeler.evaluation.results import Results
from labeler.instance import Instance
from labeler.task import Task

LEAST = 50
"""So many different records a label should have: fine-tuning guides name 50 to 100 (OpenAI 2024)."""
# A slope needs some range of examples, and the newest replays tell the most.
_ENOUGH_RANGE, _LOOKED_AT = 1.5, 3


@dataclass(frozen=True, slots=True)
class Standing:
    """How often a label was approved: on ``distinct`` records that are no near-duplicates of each other."""

    name: str
    approved: int
    distinct: int

    @property
    def missing(self) -> int:
        """How many more it should have; 0 for a label that was never approved: nothing is known of its records."""
        return max(0, LEAST - self.distinct) if self.approved else 0


@dataclass(frozen=True, slots=True)
class Readiness:
    """What there is to train on. ``growth`` is the agreement that twice as many approvals add, by the replay
    ``replay_id``; None where none was made, or over too few. ``agreement`` is that of the free suggestion in
    cross-validation, over ``compared`` records.
    """

    labels: Sequence[Standing]
    approved: int
    distinct: int
    agreement: float | None = None
    compared: int = 0
    growth: Measure | None = None
    replay_id: int | None = None

    @property
    def first(self) -> Sequence[Standing]:
        """The labels to get more of, those first that lack most."""
        return sorted((label for label in self.labels if label.missing), key=lambda label: -label.missing)

    @property
    def never(self) -> Sequence[str]:
        return [label.name for label in self.labels if not label.approved]

    @property
    def rises(self) -> bool:
        """Whether more approvals are shown to make suggestions better."""
        return self.growth is not None and self.growth.low > 0

    @property
    def ready(self) -> bool:
        return self.distinct >= LEAST and not self.first and not self.rises


def readiness(instance: Instance, project: Mapping[str, Any], task: Task) -> Readiness:
    """Count the examples of a task, near-duplicates once, and read what was measured of it."""
    entries = [entry for _, entry in instance.index(project, task).entries()]
    approved = Counter(name for entry in entries for name in entry.strata)
    different = {(entry.cluster or entry.content_hash): entry for entry in entries}
    distinct = Counter(name for entry in different.values() for name in entry.strata)
    offered = list(task.schema.candidates()) or list(task.schema.names)
    ensemble = instance.ensemble(project, task)
    learned = ensemble.measured if isinstance(ensemble, EnsembleBackend) else None
    growth, replay_id = _growth(instance, project, task)
    return Readiness(
        [Standing(name, approved[name], distinct[name]) for name in offered], len(entries), len(different),
        None if learned is None else learned.agreement, 0 if learned is None else learned.compared, growth, replay_id,
    )  # fmt: skip


def _growth(instance: Instance, project: Mapping[str, Any], task: Task) -> tuple[Measure | None, int | None]:
    """Return the slope of agreement over the logarithm of how many examples there were, by the newest replay."""
    for row in instance.store.replays.of_task(project["id"], task.name, _LOOKED_AT, every=False):
        results = Results(instance, row["id"])
        free = next((n for n, run in enumerate(results.runs) if run is None), None)
        known = np.array([item["known"] or 0 for item, _ in results.items])
        if free is None or not len(known) or known.max() < _ENOUGH_RANGE * max(int(known.min()), 1):
            continue
        return measured(_slopes(np.log2(np.maximum(known, 1)), results.answers(free).agreement)), row["id"]
    return None, None


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the slope of a line through the points, as they are and as they are drawn: float (1 + draws,)."""
    drawn = weights(len(x))
    n = drawn.sum(axis=1)
    mean_x, mean_y = drawn @ x / n, drawn @ y / n
    spread = drawn @ x**2 / n - mean_x**2
    return np.asarray((drawn @ (x * y) / n - mean_x * mean_y) / np.maximum(spread, 1e-9))
