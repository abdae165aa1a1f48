"""How the people of a task agree: with each other, with what their records were settled as, and with what is known.

Read from the newest answers that people gave where several of them decide on a record, and from what they said of known
records (those with the tag gold).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from labeler.annotation.ballots import said
from labeler.annotation.table import read
from labeler.evaluation.consensus import likely, why_not
from labeler.evaluation.measures import Measure
from labeler.evaluation.reviewers import Agreement, agreement_of, by_part
from labeler.prelabel.stack import wilson
from labeler.records import Value
from labeler.sentence import Sentence
from labeler.store import Row, Store
from labeler.task import Task

MOST = 4000
"""So many answers are looked at; the newest."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many of ``n`` were ``right``, and where the share of these lies."""

    right: int
    n: int

    @property
    def measure(self) -> Measure | None:
        return None if not self.n else Measure(self.right / self.n, *wilson(self.right / self.n, self.n))


@dataclass(frozen=True, slots=True)
class Person:
    """What one person said: ``settled`` as their records were settled, ``known`` as it is known.

    ``likely`` is how often they give the right label, by Dawid and Skene; None where answers are too few for that.
    """

    id: int
    name: str
    answers: int
    settled: Share
    known: Share
    likely: float | None = None


@dataclass(frozen=True, slots=True)
class Team:
    """The people of a task. ``parts`` is how far they agree, by part of the label (:data:`labeler.labels.WHOLE` for
    one without parts).

    ``unlikely`` says why habits of people are not told.
    """

    answers: int
    waiting: int
    disputed: int
    parts: Mapping[str, Agreement]
    people: list[Person] = field(default_factory=list)
    unlikely: Sentence | None = None

    def name(self, person: object) -> str:
        return next((one.name for one in self.people if one.id == person), "?")


def team_of(store: Store, project_id: int, task: Task, most: int = MOST) -> Team:
    """Return how the people of a task agree, by their newest answers."""
    rows = store.ballots.newest(project_id, task.name, most)
    answers: dict[int, dict[int, Value]] = {}
    for row in rows:
        value = said(task, row)
        if value is not None:
            # The newest comes first.
            answers.setdefault(row["record_id"], {}).setdefault(row["reviewer_id"], value)
    kinds = task.schema.split()
    unlikely = why_not(task.schema, answers)
    habits = likely(answers) if unlikely is None else None
    names = {row["id"]: row["name"] for row in store.people.all()}
    people = []
    for id_ in sorted({row["reviewer_id"] for row in rows}, key=lambda id_: names.get(id_, "?")):
        own = [row for row in rows if row["reviewer_id"] == id_]
        accuracy = habits.accuracy(id_) if habits is not None and id_ in habits.errors else None
        people.append(_person(task, id_, names.get(id_, "?"), own, accuracy))
    return Team(
        answers=len(rows),
        waiting=store.ballots.count_waiting(project_id, task.name),
        disputed=store.work.counts(project_id, task.name)["disputed"],
        parts={name: agreement_of(kinds[name], given) for name, given in by_part(task.schema, answers).items()},
        people=people,
        unlikely=unlikely,
    )


def _person(task: Task, id_: int, name: str, rows: list[Row], accuracy: float | None) -> Person:
    shared, known = ([row for row in rows if bool(row["gold"]) is gold] for gold in (False, True))
    return Person(id_, name, len(rows), _right(task, shared), _right(task, known), accuracy)


def _right(task: Task, rows: Iterable[Row]) -> Share:
    """Return how many answers are what their records are now; those of records that are not approved tell nothing."""
    told = [row for row in rows if row["now"] is not None and row["value"] is not None]
    right = sum(said(task, row) == read(task, row["now"], row["now_version"]) for row in told)
    return Share(right, len(told))
