"""What models wrote: the calls that asked for texts, what became of each text, and which records it became.

A record of this table is no review of a customer. Nothing that learns from approvals or measures by them reads it: see
:data:`labeler.store.records.REAL`. It leaves in the train split alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from labeler import strictjson
from labeler.records import ParseFailure
from labeler.store.database import Database, Row, Tx
from labeler.store.suggestions import failure_column, failure_in

KEPT, UNCHECKED = "kept", "unchecked"
"""What became of a text that is a record now; the second one was not compared with the free suggestion."""
COPY, ALIKE, CONTACT, OTHER_LABEL, REFUSED = "copy", "alike", "contact", "other_label", "refused"
"""Why a text was dropped."""
_SAME = "g.run_id = w.run_id AND g.record_id = w.after_id"


@dataclass(frozen=True, slots=True)
class Writing:
    """One call that asks for texts of a label. Its item in the run is the record ``record_id``.

    ``shown`` are the records in its prompt. ``sources`` are those and what they were written after themselves.
    ``round`` counts the calls of this label before it on the same record. ``failure`` says why its answer cannot be
    read.
    """

    record_id: int
    label: str
    shown: Sequence[int]
    sources: Sequence[int]
    round: int = 0
    failure: ParseFailure | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a written record comes from: its run, model and label, and the keys of the records it was written after."""

    run_id: int
    backend: str
    model_id: str
    label: str
    after: Sequence[str]
    sources: Sequence[int] = field(repr=False, default=())

    def to_json(self) -> dict[str, Any]:
        """Return what stands beside a row that leaves."""
        return {
            "run": self.run_id, "backend": self.backend, "model": self.model_id, "label": self.label,
            "after": list(self.after),
        }  # fmt: skip


class Written:
    def __init__(self, db: Database) -> None:
        self.db = db

    # What is asked for, and what comes back

    def ask(self, tx: Tx, project_id: int, task: str, run_id: int, writings: Sequence[Writing]) -> None:
        """Store the calls of a run."""
        rows = [
            (run_id, one.record_id, project_id, task, one.label, *_listed(one.shown, one.sources), one.round)
            for one in writings
        ]
        tx.insert("writings", "run_id, record_id, project_id, task, label, shown, sources, round", rows)

    def of_run(self, run_id: int) -> list[Writing]:
        """Return the calls of a run that asks for texts; none of another."""
        rows = self.db.all("SELECT * FROM writings WHERE run_id = :id ORDER BY label, record_id", {"id": run_id})
        return [
            Writing(
                row["record_id"], row["label"], strictjson.loads(row["shown"]),
                strictjson.loads(row["sources"]), row["round"], failure_in(row["failure"]),
            )
            for row in rows
        ]  # fmt: skip

    def wrote(self, tx: Tx, run_id: int, after_id: int, model_id: str, said: Sequence[str] | ParseFailure) -> None:
        """Store what came of a call: its texts, which wait to be sifted, or why they cannot be read."""
        if isinstance(said, ParseFailure):
            sql = "UPDATE writings SET failure = :failure WHERE run_id = :run AND record_id = :id"
            tx.run(sql, {"failure": failure_column(said), "run": run_id, "id": after_id})
            return
        sql = """INSERT INTO written (run_id, after_id, model_id, text) SELECT ?, ?, ?, ?
                 WHERE EXISTS (SELECT 1 FROM writings WHERE run_id = ? AND record_id = ?)"""
        tx.many(sql, [(run_id, after_id, model_id, text, run_id, after_id) for text in said])

    def waiting(self) -> list[tuple[int, int]]:
        """Return (project, run) of texts that wait to be sifted."""
        sql = """SELECT project_id, id FROM runs
                 WHERE id IN (SELECT run_id FROM written WHERE outcome IS NULL) ORDER BY id"""
        return [(row["project_id"], row["id"]) for row in self.db.all(sql)]

    def unsifted(self, run_id: int) -> list[Row]:
        """Return ``id``, ``text``, ``task``, ``label`` and ``after_id`` of the texts of a run that wait, in order."""
        sql = f"""SELECT w.id, w.text, w.after_id, g.task, g.label FROM written w JOIN writings g ON {_SAME}
                  WHERE w.run_id = :run AND w.outcome IS NULL ORDER BY w.id"""
        return self.db.all(sql, {"run": run_id})

    def sift(self, tx: Tx, text_id: int, outcome: str) -> bool:
        """Say what became of a text; False, and nothing done, where that is known already."""
        sql = "UPDATE written SET outcome = :outcome WHERE id = :id AND outcome IS NULL"
        return bool(tx.run(sql, {"outcome": outcome, "id": text_id}))

    def became(self, tx: Tx, text_id: int, record_id: int) -> None:
        """Say which record a text is now; that holds the text from here on."""
        sql = "UPDATE written SET record_id = :record, text = NULL WHERE id = :id"
        tx.run(sql, {"record": record_id, "id": text_id})

    # What is known of it

    def outcomes(self, run_id: int) -> dict[str, Counter[str]]:
        """Return how often which outcome came, by label; of texts that wait, the outcome is empty."""
        sql = f"""SELECT g.label, COALESCE(w.outcome, '') AS outcome, COUNT(*) AS n FROM written w
                  JOIN writings g ON {_SAME} WHERE w.run_id = :run GROUP BY 1, 2 ORDER BY 1, 2"""
        found: dict[str, Counter[str]] = {}
        for row in self.db.all(sql, {"run": run_id}):
            found.setdefault(row["label"], Counter())[row["outcome"]] = row["n"]
        return found

    def texts(self, project_id: int, task: str, label: str) -> list[str]:
        """Return the texts of the records that were written for a label, the newest thousand."""
        sql = f"""SELECT r.text FROM written w JOIN writings g ON {_SAME} JOIN records r ON r.id = w.record_id
                  WHERE g.project_id = :p AND g.task = :t AND g.label = :label ORDER BY w.id DESC LIMIT 1000"""
        return [row["text"] for row in self.db.all(sql, {"p": project_id, "t": task, "label": label})]

    def records(self, project_id: int, task: str) -> list[int]:
        """Return the records that were written for a task."""
        sql = f"""SELECT w.record_id FROM written w JOIN writings g ON {_SAME}
                  WHERE g.project_id = :p AND g.task = :t AND w.record_id IS NOT NULL ORDER BY w.record_id"""
        return [row["record_id"] for row in self.db.all(sql, {"p": project_id, "t": task})]

    def rounds(self, project_id: int, task: str) -> Counter[tuple[str, int]]:
        """Return how many calls there were for a label on a record, by (label, record)."""
        sql = """SELECT label, record_id, COUNT(*) AS n FROM writings WHERE project_id = :p AND task = :t
                 GROUP BY label, record_id"""
        rows = self.db.all(sql, {"p": project_id, "t": task})
        return Counter({(row["label"], row["record_id"]): row["n"] for row in rows})

    def origins(self, record_ids: Sequence[int], tx: Tx | None = None) -> dict[int, Origin]:
        """Return where those records come from that a model wrote."""
        sql = f"""SELECT w.record_id, w.run_id, w.model_id, json_extract(n.settings, '$.backend') AS backend, g.label,
                  g.sources, (SELECT json_group_array(r.key) FROM (SELECT key FROM records
                    WHERE id IN (SELECT value FROM json_each(g.sources)) ORDER BY id) r) AS keys
                  FROM written w JOIN writings g ON {_SAME} JOIN runs n ON n.id = w.run_id
                  WHERE w.record_id IN (SELECT value FROM json_each(:ids))"""
        rows = (tx or self.db).all(sql, {"ids": strictjson.dumps(list(record_ids))})
        return {
            row["record_id"]: Origin(
                row["run_id"], row["backend"], row["model_id"], row["label"], strictjson.loads(row["keys"]),
                strictjson.loads(row["sources"]),
            )
            for row in rows
        }  # fmt: skip

    def is_written(self, record_id: int, tx: Tx | None = None) -> bool:
        """Whether a model wrote a record."""
        sql = "SELECT 1 FROM written WHERE record_id = :id"
        return (tx or self.db).value(sql, {"id": record_id}) is not None

    def any(self, project_id: int, tx: Tx | None = None) -> bool:
        """Whether a project has any call for texts."""
        return (tx or self.db).value(
            "SELECT 1 FROM writings WHERE project_id = :p LIMIT 1", {"p": project_id}
        ) is not None

    def after(self, project_id: int, record_ids: Sequence[int], tx: Tx | None = None) -> list[int]:
        """Return the records that were written after some records, in order."""
        sql = f"""SELECT DISTINCT w.record_id FROM written w JOIN writings g ON {_SAME}
                  JOIN json_each(g.sources) s JOIN json_each(:ids) i ON i.value = s.value
                  WHERE g.project_id = :p AND w.record_id IS NOT NULL ORDER BY w.record_id"""
        rows = (tx or self.db).all(sql, {"p": project_id, "ids": strictjson.dumps(list(record_ids))})
        return [row["record_id"] for row in rows]


def _listed(*lists: Sequence[int]) -> list[str]:
    return [strictjson.dumps(list(one)) for one in lists]
