"""Comparing: people put several answers to one record in order, without seeing whose they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeler.annotation.decisions import MAX_SECONDS
from labeler.annotation.queue import is_blind
from labeler.backends.thoughts import split_thoughts
from labeler.errors import InputError, LabelError, NotFound
from labeler.records import ParseFailure, Record, Suggestion, Value
from labeler.store import Store, Tx
from labeler.store.rankings import Tiers
from labeler.strictjson import dumps
from labeler.task import Task, read_json

MOST = 9
"""So many answers are compared at once: each has a digit as its key."""
_AT_ONCE = 100
_SAMPLE = "sample "


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a record. ``name`` is the number of its suggestion; a sample of that has its own ("12.3")."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class Comparison:
    """A record with the answers that a person is to put in order, in an order that says nothing."""

    record: Record
    answers: Sequence[Answer]


class Comparing:
    """Serves records whose answers differ, and keeps how people rank them. ``settings`` are the project's."""

    def __init__(self, store: Store, project_id: int, task: Task, settings: Mapping[str, Any]) -> None:
        self.store, self.project_id, self.task = store, project_id, task
        self.blind_share = float(settings["blind_share"])

    def next(self, reviewer_id: int, after: int = 0) -> Comparison | None:
        """Return the next record after a number that the person has not ranked; None where there is none.

        Behind the last one it begins again: what was skipped comes once more.
        """
        for start in dict.fromkeys((after, 0)):
            found = next(self._from(start, reviewer_id), None)
            if found is not None:
                return found
        return None

    def _from(self, after: int, reviewer_id: int) -> Iterator[Comparison]:
        rankings, unit = self.store.rankings, self.task.unit
        while rows := rankings.unranked(self.project_id, self.task.name, unit, reviewer_id, after, _AT_ONCE):
            records = self.store.records.many([row["record_id"] for row in rows])
            for row in rows:
                if row["record_id"] in records and not self._is_blind(row):
                    found = self._comparison(records[row["record_id"]], reviewer_id)
                    if len(found.answers) > 1:
                        yield found
            after = rows[-1]["record_id"]

    def open(self, reviewer_id: int, record_id: int) -> Comparison | None:
        """Return one record, ranked or not; None if it has nothing to compare, or is decided without suggestions."""
        row = self.store.work.get(record_id, self.task.name)
        if row is None or row["project_id"] != self.project_id or row["state"] == "rejected" or self._is_blind(row):
            return None
        found = self._comparison(self.store.records.get(record_id), reviewer_id)
        return found if len(found.answers) > 1 else None

    def _is_blind(self, row: Any) -> bool:
        # Whoever saw its suggestions here could not decide on it without them any more.
        pending, id_ = row["state"] == "pending", row["record_id"]
        chosen = pending and is_blind(self.project_id, self.task.name, id_, self.blind_share)
        return chosen and not self.store.written.is_written(id_)

    def _comparison(self, record: Record, reviewer_id: int) -> Comparison:
        suggestions = self.store.suggestions.of_record(record.id, self.task.name)
        answers = answers_of(self.task, record, suggestions)
        return Comparison(record, sorted(answers, key=lambda one: _shuffled(reviewer_id, record.id, one.name)))

    def rank(
        self,
        reviewer_id: int,
        record_id: int,
        tiers: Tiers,
        request_key: str,
        *,
        none_good: bool = False,
        seconds: float | None = None,
    ) -> int:
        """Keep a ranking and return its number; safe to send twice with one ``request_key``.

        ``tiers`` name at least two answers, the best first. With ``none_good`` they stand in one tier, and none of them
        is right. Raises :class:`InputError` for answers that the record does not have, and :class:`NotFound`.
        """
        record = self.store.records.get(record_id)
        if record.project_id != self.project_id:
            raise NotFound("There is no record number %(number)s in this project", number=record_id)
        if not 8 <= len(request_key) <= 100:
            raise InputError("A ranking needs a request_key of 8 to 100 characters, new for each ranking")
        names = [name for tier in tiers for name in tier]
        known = read_answers(self.task, record, names, self._suggestions(names))
        if not 2 <= len(names) <= MOST or len(set(names)) < len(names) or known.keys() != set(names) or not all(tiers):
            raise InputError("A ranking names two to %(most)s answers of the record, each once", most=MOST)
        row = {
            "project_id": self.project_id, "record_id": record_id, "task": self.task.name,
            "task_version": self.task.version, "reviewer_id": reviewer_id, "ranked": tiers,
            "none_good": int(none_good), "request_key": request_key,
            "seconds": None if seconds is None else min(max(seconds, 0.0), MAX_SECONDS),
        }  # fmt: skip

        def work(tx: Tx) -> int:
            before = self.store.rankings.by_request(tx, request_key)
            if before is not None:
                return int(before["id"])
            id_ = self.store.rankings.add(tx, row)
            self._event(tx, "ranked", reviewer_id, record_id, {"ranking": id_})
            return id_

        return self.store.write(work)

    def _suggestions(self, names: Iterable[str]) -> dict[int, Suggestion]:
        return self.store.suggestions.many([number for name in names if (number := suggestion_of(name))])

    def undo(self, reviewer_id: int, ranking_id: int) -> int | None:
        """Take back the person's last ranking, if it is still this one; return its record. Safe to send twice."""

        def work(tx: Tx) -> int | None:
            last = self.store.rankings.last_of(self.project_id, self.task.name, reviewer_id, tx)
            if last is None or last["id"] != ranking_id:
                return None
            self.store.rankings.withdraw(tx, ranking_id)
            self._event(tx, "ranking undone", reviewer_id, last["record_id"], {"ranking": ranking_id})
            return int(last["record_id"])

        return self.store.write(work)

    def last(self, reviewer_id: int) -> int | None:
        """Return the number of the person's last ranking, which an undo takes back."""
        row = self.store.rankings.last_of(self.project_id, self.task.name, reviewer_id)
        return None if row is None else int(row["id"])

    def _event(self, tx: Tx, kind: str, reviewer_id: int, record_id: int, detail: dict[str, Any]) -> None:
        where = {"project_id": self.project_id, "task": self.task.name, "record_id": record_id}
        self.store.events.add(tx, kind, reviewer_id=reviewer_id, detail=detail, **where)


def answers_of(task: Task, record: Record, suggestions: Iterable[Suggestion]) -> list[Answer]:
    """Return the answers to a record that differ, at most nine: of ``suggestions``, newest first, the newest of each
    kind and its samples.
    """
    found: dict[str, Answer] = {}
    kinds: set[str] = set()
    for one in suggestions:
        kind = one.kind or dumps([one.backend, one.model_id, one.prompt_digest])
        if one.failure is not None or kind in kinds or one.text_hash not in ("", record.content_hash):
            continue
        kinds.add(kind)
        for name, value in _values(task, record, one):
            found.setdefault(task.answer(value), Answer(name, value))
    return list(found.values())[:MOST]


def read_answers(
    task: Task, record: Record, names: Iterable[str], suggestions: Mapping[int, Suggestion]
) -> dict[str, Value]:
    """Return the values of answers by name, in the labels of today; one that these cannot hold is left out."""
    wanted = set(names)
    made = (suggestions.get(number) for number in dict.fromkeys(map(suggestion_of, wanted)))
    mine = [one for one in made if one is not None and (one.record_id, one.task) == (record.id, task.name)]
    return {name: value for one in mine for name, value in _values(task, record, one) if name in wanted}


def suggestion_of(name: str) -> int:
    """Return the number of the suggestion that an answer is of, 0 for a name of none."""
    number = name.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0


def _values(task: Task, record: Record, made: Suggestion) -> Iterator[tuple[str, Value]]:
    given = [(str(made.id), made.value)]
    given += [
        (f"{made.id}.{step.name.removeprefix(_SAMPLE)}", _sampled(task, record, step.text))
        for step in made.steps
        if step.name.startswith(_SAMPLE)
    ]
    for name, value in given:
        if value is None or isinstance(value, ParseFailure):
            continue
        try:
            yield name, task.read(value, made.task_version, record.text)
        except LabelError:
            continue


def _sampled(task: Task, record: Record, completion: str) -> Value | ParseFailure:
    """Return what a sample says, without what was thought beside it."""
    text, _ = split_thoughts(completion)
    answer = read_json(text)
    if isinstance(answer, dict) and task.name in answer:
        text = dumps({task.name: answer[task.name]})
    return task.parse_completion(text, record)


def _shuffled(reviewer_id: int, record_id: int, name: str) -> bytes:
    return hashlib.blake2b(f"{reviewer_id}/{record_id}/{name}".encode(), digest_size=8).digest()
