"""A strict import is rehearsed: what would be said of each row and label is found before anything is stored."""

from __future__ import annotations

import hashlib

from labeler.ingest.labelled import Labels, other_unit
from labeler.ingest.report import Report
from labeler.ingest.slices import Incoming
from labeler.records import Value
from labeler.sentence import Sentence
from labeler.store.annotations import APPROVED
from labeler.store.records import kind_of
from labeler.task import GROUP


class Rehearsal:
    """Counts in its ``report`` what an import of rows would say; it holds a hash of every text and key."""

    def __init__(self, labels: Labels) -> None:
        self.labels, self.report = labels, Report()
        self._texts: dict[str, str] = {}
        self._first: dict[tuple[int | str, str], Value] = {}

    def row(self, row: Incoming) -> None:
        """Look what would become of a row and its labels."""
        new, report = row.record, self.report
        records, project_id = self.labels.store.records, self.labels.project_id
        known = records.standing(project_id, new.key)
        kind = known["kind"] if known is not None else new.kind
        exact = hashlib.blake2b(new.text.encode(), digest_size=8).hexdigest()
        other = self._texts.setdefault(new.key, exact) != exact
        if other or (known is not None and known["text"] != new.text):
            report.refuse(row.number, None, taken_key(new.key, kind))
        original = records.original(project_id, new.key, new.digest)
        for task, (column, value) in row.labels.items():
            stands = self.labels.decisions[task].standing(original) if original is not None else None
            if kind_of(self.labels.tasks[task].unit) != kind:
                report.say("left_out", row.number, column, other_unit(self.labels.tasks[task]))
            elif stands is not None:
                self.labels.compare(task, value, stands, None, row.number, column, report)
            else:
                first = self._first.setdefault((original or new.digest, task), value)
                self.labels.compare(task, value, (APPROVED, first), None, row.number, column, report)


def taken_key(key: str, kind: str) -> str:
    if kind == GROUP:
        return Sentence(
            "the id %(id)r is that of a product, whose text is made from its reviews; import those instead", id=key
        )
    return Sentence("the id %(id)r is taken by another text; change one of them", id=key)
