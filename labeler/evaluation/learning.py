"""The learning curve of a task: how many suggestions people have to correct, by how many examples there were.

It is read from the newest replay that has ended: its first arm, which is the task as it was set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labeler import strictjson
from labeler.evaluation.measures import Measure
from labeler.evaluation.replay import truth
from labeler.evaluation.results import stretches
from labeler.prelabel.stack import wilson
from labeler.store import Store
from labeler.task import Task

MOST = 2000
"""So many of the newest records of a replay are looked at."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Records that followed each other: ``n``, with ``known`` examples on average, and the corrections of 1,000."""

    known: float
    n: int
    corrections: Measure


@dataclass(frozen=True, slots=True)
class Learning:
    """The curve of a replay that was started at ``at``, over ``n`` records, with the ``settings`` of its first arm."""

    replay_id: int
    at: float
    settings: Mapping[str, Any]
    n: int
    stretches: Sequence[Stretch]


def learning_of(store: Store, project_id: int, task: Task, most: int = MOST) -> Learning | None:
    """Return the learning curve of a task; None where no replay has ended, or none of its records counts."""
    row = store.replays.last_curve(project_id, task.name)
    if row is None:
        return None
    every = store.replays.newest_items(row["id"], most)
    items = [(item, value) for item in every if (value := truth(task, item)) is not None]
    wrong = [item["said"] is None or strictjson.loads(item["said"]) != value for item, value in items]
    known = [item["known"] or 0 for item, _ in items]
    found = [_stretch(np.array(known)[part], np.array(wrong)[part]) for part in stretches(len(items))]
    settings = strictjson.loads(row["settings"])
    return Learning(row["id"], row["created_at"], settings, len(items), found) if items else None


def _stretch(known: np.ndarray, wrong: np.ndarray) -> Stretch:
    share, n = float(wrong.mean()), len(wrong)
    return Stretch(float(known.mean()), n, Measure(1000 * share, *(1000 * end for end in wilson(share, n))))
