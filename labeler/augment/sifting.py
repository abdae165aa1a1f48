"""What becomes of written texts: most like another text, or of another label, are dropped; the rest waits at the desk.

In this order, and each text is counted by the first that drops it: it has contact data; a plugin refuses it; it is a
review that is there, or nearly; it is too like the approved texts of its label, or those written before, by ROUGE-L as
in Self-Instruct; or the free suggestion takes it for another label. Where that suggestion was never measured by
cross-validation, or does not know the label, a text is kept without that comparison, and counted so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from labeler.backends.ensemble.backend import EnsembleBackend
from labeler.errors import TextError
from labeler.evaluation.rouge import rouge_l, tokens
from labeler.export.contacts import kinds_in
from labeler.ingest.clusters import near_duplicates
from labeler.instance import Instance
from labeler.records import ParseFailure, Record
from labeler.sentence import N_
from labeler.store import NewRecord, Row, Store, Tx
from labeler.store.records import Ready, ready
from labeler.store.written import ALIKE, CONTACT, COPY, KEPT, OTHER_LABEL, REFUSED, UNCHECKED
from labeler.task import Task
from labeler.text import clean_text

TOO_ALIKE = 0.7
"""From this ROUGE-L on a text says what another has said (Wang et al. 2022)."""
_COMPARED = 1_000
DROPPED = {
    COPY: N_("nearly a review that is there"),
    ALIKE: N_("too like a text of the label"),
    OTHER_LABEL: N_("taken for another label by the free suggestion"),
    CONTACT: N_("with contact data"),
    REFUSED: N_("refused by a plugin"),
}
"""Why texts are dropped, in words."""


def sift(instance: Instance, run_id: int) -> Counter[str]:
    """Decide on the texts of a run that wait, make records of those that are kept, and return the outcomes.

    Called again it goes on where it was: each text is decided on once, in the transaction that makes its record.
    """
    store, outcomes = instance.store, Counter[str]()
    run = store.ledger.run(run_id)
    project = store.projects.get(run["project_id"])
    rows = store.written.unsifted(run_id)
    task = instance.tasks_of(project).get(run["task"])
    if not rows or task is None:
        return outcomes
    found = _prepared(instance, project, rows)
    sieve = _Sieve(instance, project, task, rows, found)
    for row in rows:
        outcome = sieve.outcome(row)
        new = ready([NewRecord(f"written-{run_id}-{row['id']}", found.get(row["id"], ""))])
        outcomes[store.write(partial(_store, store, project["id"], task.name, row["id"], outcome, new))] += 1
    return outcomes


def _store(
    store: Store, project_id: int, task: str, text_id: int, outcome: str, new: Sequence[Ready], tx: Tx
) -> str:  # fmt: skip
    """Say what became of a text, and make a record of one that is kept."""
    kept = outcome in (KEPT, UNCHECKED)
    if kept and store.records.original(project_id, new[0].key, new[0].digest) is not None:
        # One too short for near-duplicates, or one that came in with a file this very moment.
        outcome, kept = COPY, False
    if store.written.sift(tx, text_id, outcome) and kept:
        (stored,) = store.records.add_ready(tx, project_id, new, [task])
        store.written.became(tx, text_id, stored.id)
    return outcome


def _prepared(instance: Instance, project: Mapping[str, Any], rows: Sequence[Row]) -> dict[int, str]:
    """Return the texts as they come in through the door that reviews come through; those that plugins refuse not."""
    found = {row["id"]: str(row["text"]) for row in rows}
    if not instance.plugins.prepare_records:
        return found
    records = [Record(0, int(project["id"]), "", text) for text in found.values()]
    after = instance.plugins.prepare(project["name"], records)
    cleaned = {id_: _cleaned(one) for id_, one in zip(found, after, strict=True)}
    return {id_: text for id_, text in cleaned.items() if text is not None}


def _cleaned(record: Record | str) -> str | None:
    try:
        return None if isinstance(record, str) else clean_text(record.text)
    except TextError:
        return None


class _Sieve:
    """Decides on texts, one after the other: a text that is kept is one that later ones must differ from."""

    def __init__(
        self, instance: Instance, project: Mapping[str, Any], task: Task, rows: Sequence[Row], texts: Mapping[int, str]
    ) -> None:
        self.instance, self.project, self.task = instance, project, task
        self.store, self.project_id, self.texts = instance.store, int(project["id"]), texts
        near = near_duplicates(self.store, self.project_id, list(texts.values()))
        self.near = dict(zip(texts, near, strict=True))
        self.said = self._said()
        self.like = {row["label"]: self._standing(row["label"]) for row in rows}

    def outcome(self, row: Row) -> str:
        """Return what becomes of a text."""
        id_, label = row["id"], row["label"]
        text = self.texts.get(id_)
        if kinds_in(row["text"]):
            return CONTACT
        if text is None:
            return REFUSED
        if self.near[id_]:
            return COPY
        words = tokens(text)
        if any(rouge_l(words, other) >= TOO_ALIKE for other in self.like[label]):
            return ALIKE
        said = self.said.get(id_, ()) if label in self.knows else None
        if said is not None and label not in said:
            return OTHER_LABEL
        self.like[label].append(words)
        return UNCHECKED if said is None else KEPT

    def _standing(self, label: str) -> list[tuple[str, ...]]:
        """Return the words of the newest texts that were approved or written for a label."""
        index = self.instance.index(self.project, self.task)
        ids = [entry.record_id for _, entry in index.entries() if label in entry.strata][-_COMPARED:]
        approved = [record.text for record in self.store.records.many(ids).values()]
        return [tokens(text) for text in (*approved, *self.store.written.texts(self.project_id, self.task.name, label))]

    def _said(self) -> dict[int, tuple[str, ...]]:
        """Return the labels that the free suggestion gives each text; ``knows`` are those that it was measured on."""
        learner = self.instance.ensemble(self.project, self.task)
        if isinstance(learner, EnsembleBackend) and learner.stale():
            learner.fit()
        measured = isinstance(learner, EnsembleBackend) and learner.measured is not None
        fitted = learner.fitted if measured else None
        self.knows: frozenset[str] = frozenset(fitted.labels) if fitted is not None else frozenset()
        if not self.knows or not self.texts:
            return {}
        suggester = self.instance.suggester(self.project, self.task, {"backend": learner.name})
        values = suggester.of_texts(list(self.texts.values()))
        return {id_: self._strata(value) for id_, value in zip(self.texts, values, strict=True)}

    def _strata(self, value: Any) -> tuple[str, ...]:
        return () if value is None or isinstance(value, ParseFailure) else self.task.schema.strata(value)
