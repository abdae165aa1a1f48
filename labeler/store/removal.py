"""Taking back: what goes with records, and how they go, in the caller's transaction.

With a record go its decisions, ballots, rankings, notes, drafts, tags, suggestions, vectors, places in queues, claims
and runs, its search text and its memory of splits; whoever removes it removes the records that a model wrote after it
as well. An exact copy takes its place. Products that showed it are made again from the reviews that are left, and lose
what was decided, noted and suggested on the old text. Of calls the text goes and the cost stays, so that the books are
right. Events stay: they hold numbers, never texts. Numbers of what is gone are never given again, so that no page,
index or evidence takes one thing for another.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from labeler import strictjson
from labeler.errors import Conflict, InputError, NotFound
from labeler.sentence import N_
from labeler.store.annotations import WITHDRAWN, Annotations
from labeler.store.ballots import OPEN
from labeler.store.clusters import drop
from labeler.store.counts import GOING, ITEMS, RECORDS, Counts
from labeler.store.database import Database, Row, Tx
from labeler.store.products import Products
from labeler.store.records import DEAD, GROUP, REVIEW, enqueue, mark_products
from labeler.store.search import forget_texts
from labeler.store.work import Work

_MOST_NAMED, _MOST_LOOKED_AT = 20, 100
_IN = "IN (SELECT value FROM json_each(:ids))"
_AFTER = "EXISTS (SELECT 1 FROM json_each(g.sources) s JOIN json_each(:ids) i ON i.value = s.value)"
_ERASE = """UPDATE calls SET state = 'erased', fingerprint = 'erased/' || id, answer = NULL, note = NULL, scores = NULL,
            error = NULL, token = NULL"""
# Everything of a record but the record, in an order in which nothing is pointed at when it goes.
_OF_RECORDS = (
    f"""DELETE FROM export_annotations
        WHERE annotation_id IN (SELECT id FROM annotations WHERE record_id {_IN})""",
    f"""DELETE FROM export_rankings WHERE ranking_id IN (SELECT id FROM rankings WHERE record_id {_IN})""",
    f"DELETE FROM annotations WHERE record_id {_IN}",
    f"DELETE FROM ballots WHERE record_id {_IN}",
    f"DELETE FROM suggestions WHERE record_id {_IN}",
    *(
        f"DELETE FROM {table} WHERE record_id {_IN}"
        for table in (
            "claims",
            "skips",
            "embeddings",
            "dropped_vectors",
            "trial_items",
            "run_items",
            "replay_items",
            "replayed",
            "judgements",
            "rankings",
            "comparable",
            "tags",
            "notes",
            "drafts",
        )
    ),
    f"{_ERASE} WHERE record_id {_IN}",
    # What a model wrote after one of them repeats it in part, in the answer and in what was dropped of it.
    f"""{_ERASE} WHERE (run_id, record_id) IN (SELECT run_id, record_id FROM writings g WHERE {_AFTER})""",
    f"DELETE FROM written WHERE record_id {_IN}",
    f"""DELETE FROM written WHERE record_id IS NULL
        AND (run_id, after_id) IN (SELECT run_id, record_id FROM writings g WHERE {_AFTER})""",
    f"""DELETE FROM writings AS g WHERE {_AFTER} AND NOT EXISTS (
        SELECT 1 FROM written w WHERE w.run_id = g.run_id AND w.after_id = g.record_id)""",
)
_OF_PROJECTS = (
    # Equal prompts of two projects share one call: it stays with the project whose run paid for it.
    """UPDATE calls SET project_id = (SELECT r.project_id FROM runs r WHERE r.id = calls.run_id) WHERE project_id = :p
       AND run_id IN (SELECT id FROM runs WHERE project_id <> :p)""",
    "UPDATE suggestions SET call_id = NULL WHERE call_id IN (SELECT id FROM calls WHERE project_id = :p)",
    "DELETE FROM batch_calls WHERE call_id IN (SELECT id FROM calls WHERE project_id = :p)",
    *(
        f"DELETE FROM {table} WHERE replay_id IN (SELECT id FROM replays WHERE project_id = :p)"
        for table in ("replayed", "judgements", "replay_items", "replay_arms", "replay_drafts")
    ),
    *(
        f"DELETE FROM {table} WHERE export_id IN (SELECT id FROM exports WHERE project_id = :p)"
        for table in ("export_annotations", "export_rankings")
    ),
    "DELETE FROM batch_calls WHERE batch_id IN (SELECT b.id FROM batches b JOIN runs r ON r.id = b.run_id"
    " WHERE r.project_id = :p)",
    "DELETE FROM batches WHERE run_id IN (SELECT id FROM runs WHERE project_id = :p)",
    "DELETE FROM trial_items WHERE run_id IN (SELECT id FROM runs WHERE project_id = :p)",
    "DELETE FROM run_items WHERE run_id IN (SELECT id FROM runs WHERE project_id = :p)",
    "DELETE FROM written WHERE run_id IN (SELECT id FROM runs WHERE project_id = :p)",
    *(
        f"DELETE FROM {table} WHERE project_id = :p"
        for table in (
            "exports", "calls", "replays", "runs", "imports", "spending", "fits", "calibrations", "upkeep", "queued",
            "stale_products", "united_clusters", "signatures", "unsigned_reviews", "frozen", "splits", "task_settings",
            "members", "vectors_through", "views", "acts", "writings",
        )
    ),
    "DELETE FROM projects WHERE id = :p",
)  # fmt: skip
# Where a text of a person may stand beside records: (table, columns, what it is called).
_ELSEWHERE = (
    ("task_settings", ("settings", "moves"), N_("guidelines and settings of tasks")),
    ("projects", ("name", "settings"), N_("names and settings of projects")),
    ("annotations", ("value", "reason"), N_("labels of other records")),
    ("ballots", ("value",), N_("answers of people on other records")),
    ("suggestions", ("value", "failure", "note", "steps"), N_("suggestions for other records")),
    ("calls", ("answer", "note", "error"), N_("answers of models on other records")),
    ("replayed", ("value", "failure"), N_("replays of other records")),
    ("judgements", ("first", "second"), N_("answers that were judged of other records")),
    ("notes", ("text",), N_("notes on other records")),
    ("drafts", ("value",), N_("drafts of decisions on other records")),
    ("replays", ("guidelines",), N_("guidelines that were to be edited")),
    ("replay_drafts", ("guidelines", "failure"), N_("drafts of guidelines")),
    ("written", ("text",), N_("texts that a model wrote, and that were dropped")),
    ("writings", ("failure",), N_("answers of models on other records")),
    ("run_items", ("error", "shown"), N_("runs")),
    ("imports", ("file", "report", "notes", "message"), N_("reports of imports")),
    ("exports", ("manifest", "folder"), N_("manifests of exports")),
    ("views", ("name", "address"), N_("kept views of the records")),
    ("acts", ("query", "value"), N_("acts on many records")),
    ("tags", ("name",), N_("tags of other records")),
    ("events", ("detail",), N_("events")),
)


@dataclass(frozen=True, slots=True)
class Going:
    """What goes with some records: counts, and by name what people should know of.

    ``decided`` are (key, task, state) of the first decisions; ``decisions`` are those of people, ``labels`` those that
    came with the data. ``products`` are made again, ``copies`` take the place of a removed record. ``exports`` are
    those that hold one of the records: their files are out of reach. ``written`` are the records among all that a model
    wrote after the others. With ``at_most`` no number can be larger, but
    products, copies and exports may be fewer, and with products what was decided and suggested on them.
    """

    records: int = 0
    decisions: int = 0
    labels: int = 0
    suggestions: int = 0
    calls: int = 0
    products: int = 0
    copies: int = 0
    decided: list[tuple[str, str, str]] = field(default_factory=list)
    held_by: list[str] = field(default_factory=list)
    exports: list[tuple[int, str, str]] = field(default_factory=list)
    at_most: bool = False
    written: int = 0


class Removal:
    def __init__(self, db: Database) -> None:
        self.db = db

    # What is meant

    def of_import(self, project_id: int, import_id: int, tx: Tx | None = None) -> list[int]:
        """Return the records that an import added and that still stand."""
        sql = "SELECT id FROM records WHERE import_id = :i AND project_id = :p"
        return [row["id"] for row in (tx or self.db).all(sql, {"i": import_id, "p": project_id})]

    def of_project(self, project_id: int, tx: Tx | None = None) -> list[int]:
        """Return all records of a project, those of its products too."""
        rows = (tx or self.db).all("SELECT id FROM records WHERE project_id = :p", {"p": project_id})
        return [row["id"] for row in rows]

    def check_review(self, project_id: int, record_id: int, tx: Tx | None = None) -> None:
        """Raise :class:`NotFound` if a project has no such record, :class:`InputError` if it is that of a product."""
        sql = "SELECT kind, grp FROM records WHERE id = :r AND project_id = :p"
        row = (tx or self.db).one(sql, {"r": record_id, "p": project_id})
        if row is None:
            raise NotFound("There is no record number %(number)s", number=record_id)
        if row["kind"] == GROUP:
            raise InputError("The product %(name)r is made of its reviews; remove these to remove it", name=row["grp"])

    def holding(self, words: str, tx: Tx | None = None) -> dict[int, list[int]]:
        """Return the reviews whose key, text, product or metadata hold ``words`` literally, by project.

        Latin letters count whatever their case. Names of metadata count as well as values.
        """
        sql = f"""SELECT id, project_id FROM records WHERE kind = 'review' AND (
                  {" OR ".join(f"instr(lower({c}), lower(:w))" for c in ("text", "key", "COALESCE(grp, '')"))}
                  OR instr(lower(metadata), lower(:json))) ORDER BY id"""
        found: dict[int, list[int]] = {}
        for row in (tx or self.db).all(sql, _spelled(words)):
            found.setdefault(row["project_id"], []).append(row["id"])
        return found

    def elsewhere(self, words: str) -> list[tuple[str, int]]:
        """Return where else ``words`` stand: what it is called, and in how many places."""
        found, spelled = [], _spelled(words)
        # A sentence that is kept within JSON is JSON itself.
        spelled["twice"] = _spelled(spelled["json"])["json"]
        for table, columns, name in _ELSEWHERE:
            where = " OR ".join(f"instr(lower(COALESCE({c}, '')), lower(:{w}))" for c in columns for w in spelled)
            n = int(self.db.value(f"SELECT COUNT(*) FROM {table} WHERE {where}", spelled))
            found += [(name, n)] if n else []
        return found

    # What goes with it

    def going(self, project_id: int, ids: Sequence[int], tx: Tx | None = None) -> Going:
        db = tx or self.db
        emptied, shown = self._products(db, project_id, ids)
        named = {"ids": strictjson.dumps([*ids, *emptied, *shown]), "p": project_id, "most": _MOST_NAMED}
        standing = f"""FROM annotations a JOIN records r ON r.id = a.record_id WHERE a.record_id {_IN}
                       AND a.superseded_by IS NULL AND a.state <> 'withdrawn'"""
        counted = db.one(f"SELECT COUNT(*) AS n, COALESCE(SUM(a.how = 'imported'), 0) AS labels {standing}", named)
        assert counted is not None
        decided = f"SELECT r.key, a.task, a.state {standing} AND a.how <> 'imported' ORDER BY a.id LIMIT :most"
        held = f"""SELECT DISTINCT p.name FROM claims c JOIN reviewers p ON p.id = c.reviewer_id
                   WHERE c.record_id {_IN} AND c.until > :now ORDER BY p.name"""
        exports = f"""SELECT id, task, folder FROM exports WHERE id IN (
                        SELECT x.export_id FROM export_annotations x JOIN annotations a ON a.id = x.annotation_id
                        WHERE a.record_id {_IN}
                        UNION SELECT x.export_id FROM export_rankings x JOIN rankings k ON k.id = x.ranking_id
                        WHERE k.record_id {_IN}) ORDER BY id"""
        copies = f"SELECT COUNT(DISTINCT duplicate_of) FROM records WHERE duplicate_of {_IN} AND NOT id {_IN}"

        def count(table: str, where: str = "") -> int:
            return int(db.value(f"SELECT COUNT(*) FROM {table} WHERE record_id {_IN} {where}", named))

        return Going(
            records=len(ids),
            decisions=counted["n"] - counted["labels"] + count("ballots", f"AND {OPEN}"),
            labels=counted["labels"],
            suggestions=count("suggestions"),
            calls=count("calls", "AND state <> 'erased'"),
            products=len(emptied) + len(shown),
            copies=int(db.value(copies, named)),
            decided=[(row["key"], row["task"], row["state"]) for row in db.all(decided, named)],
            held_by=[row["name"] for row in db.all(held, named | {"now": time.time()})],
            exports=[(row["id"], row["task"], row["folder"]) for row in db.all(exports, named)],
        )

    def part(self, project_id: int, import_id: int, tx: Tx | None = None) -> dict[str, int]:
        """Return what is counted as going with an import, by name: see :data:`labeler.store.counts.GOING`."""
        return Counts(self.db).of(GOING, project_id, str(import_id), tx)

    def going_counted(self, project_id: int, import_id: int | None = None, tx: Tx | None = None) -> Going:
        """Return what goes with a project, or at most with an import, from what is kept: as quick for millions.

        Named are some of the decisions, and of an import all exports since.
        """
        db = tx or self.db
        parts = Counts(self.db).by_task(GOING, project_id, tx)
        products = Counts(self.db).of(RECORDS, project_id, tx=tx).get(GROUP, 0)
        mine = set(parts) if import_id is None else {str(import_id)}
        records = sum(parts[part].get("record", 0) for part in mine & parts.keys())
        copies = sum(counts.get("copy", 0) for part, counts in parts.items() if part not in mine)
        n = sum((Counter(parts.get(part, {})) for part in mine | ({GROUP} if products else set())), Counter())
        named = {"p": project_id, "i": import_id, "now": time.time(), "look": _MOST_LOOKED_AT, "most": _MOST_NAMED}
        # By the reviewers, in this order: their decisions in force are in an index.
        decided = """SELECT r.key, d.task, d.state FROM (
                       SELECT a.record_id, a.task, a.state FROM reviewers p CROSS JOIN annotations a
                       WHERE a.reviewer_id = p.id AND a.project_id = :p AND a.superseded_by IS NULL
                       AND a.state <> 'withdrawn' AND a.how <> 'imported' LIMIT :look) AS d
                     JOIN records r ON r.id = d.record_id WHERE :i IS NULL OR r.import_id = :i LIMIT :most"""
        held = """SELECT DISTINCT p.name FROM claims c JOIN reviewers p ON p.id = c.reviewer_id
                  JOIN records r ON r.id = c.record_id WHERE c.project_id = :p AND c.until > :now
                  AND (:i IS NULL OR r.import_id = :i) ORDER BY p.name"""
        exports = """SELECT id, task, folder FROM exports e WHERE project_id = :p
                     AND (EXISTS (SELECT 1 FROM export_annotations x WHERE x.export_id = e.id)
                          OR EXISTS (SELECT 1 FROM export_rankings x WHERE x.export_id = e.id))
                     AND (:i IS NULL OR created_at >= (SELECT created_at FROM imports WHERE id = :i)) ORDER BY id"""
        answers = f"""SELECT COUNT(*) FROM ballots b JOIN records r ON r.id = b.record_id
                      WHERE b.project_id = :p AND {OPEN} AND (:i IS NULL OR r.import_id = :i)"""
        found = [(row["id"], row["task"], row["folder"]) for row in db.all(exports, named)]
        fewer = 0 if import_id is None else min(records, copies)
        return Going(
            records=records,
            decisions=n["decision"] + int(db.value(answers, named)),
            labels=n["label"],
            suggestions=n["suggestion"],
            calls=n["call"],
            products=products if import_id is None else min(records, products),
            copies=fewer,
            decided=[(row["key"], row["task"], row["state"]) for row in db.all(decided, named)],
            held_by=[row["name"] for row in db.all(held, named)],
            exports=found,
            at_most=import_id is not None and bool(products or fewer or found),
        )

    def labels_given(self, project_id: int, import_id: int, ids: Sequence[int], tx: Tx | None = None) -> list[Row]:
        """Return the labels in force that an import gave to records of others."""
        sql = f"""SELECT a.* FROM annotations a WHERE a.project_id = :p AND a.how = 'imported'
                  AND a.superseded_by IS NULL AND a.state = 'approved' AND a.origin >= :from AND a.origin < :to
                  AND NOT a.record_id {_IN}"""
        # The origin reads "import 3: file.csv"; ";" comes after ":".
        params = {"p": project_id, "from": f"import {import_id}:", "to": f"import {import_id};"}
        return (tx or self.db).all(sql, params | {"ids": strictjson.dumps(list(ids))})

    def _products(self, db: Tx | Database, project_id: int, ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the records of products that have no review left, and of those whose text shows a removed one."""
        named = {"ids": strictjson.dumps(list(ids)), "p": project_id}
        sql = f"""SELECT g.id, g.grp, g.text, EXISTS (SELECT 1 FROM records r WHERE r.project_id = :p AND r.grp = g.grp
                    AND r.kind = 'review' AND NOT r.id {_IN}) AS others
                  FROM records g WHERE g.project_id = :p AND g.kind = 'group'
                  AND g.grp IN (SELECT DISTINCT grp FROM records WHERE id {_IN} AND grp IS NOT NULL)"""
        emptied, shown = [], []
        for row in db.all(sql, named):
            if not row["others"]:
                emptied.append(row["id"])
            elif self._shows(db, row, named):
                shown.append(row["id"])
        return emptied, shown

    def _shows(self, db: Tx | Database, product: Row, named: dict[str, Any]) -> bool:
        sql = f"""SELECT 1 FROM records r WHERE r.id {_IN} AND r.grp = :g AND instr(:text, '- ' || r.text) LIMIT 1"""
        return db.value(sql, named | {"g": product["grp"], "text": product["text"]}) is not None

    # To remove it

    def remove(self, tx: Tx, project_id: int, ids: Sequence[int]) -> None:
        """Remove reviews, and make good what was derived from them. Raises :class:`Conflict` while a run has one.

        The near-duplicates of what is gone are marked to be looked for anew.
        """
        emptied, shown = self._products(tx, project_id, ids)
        leaving, touched = [*ids, *emptied], [*ids, *emptied, *shown]
        self._check_runs(tx, touched)
        groups = self._groups(tx, ids)
        self._forget(tx, touched)
        named = {"ids": strictjson.dumps(shown)}
        tx.run(
            f"""UPDATE work SET state = 'pending', annotation_id = NULL, version = version + 1, suggestion_id = NULL,
                score = NULL, scored_by = NULL, disagreement = NULL WHERE record_id {_IN}""",
            named,
        )
        self._close_gaps(tx, project_id, leaving)
        self._delete_records(tx, leaving)
        self._renew_products(tx, project_id, groups)
        # Indexes of every process are made again; what free backends learned is learned anew.
        tx.run("UPDATE projects SET removals = removals + 1 WHERE id = :p", {"p": project_id})
        tx.run("DELETE FROM fits WHERE project_id = :p", {"p": project_id})
        tx.run("UPDATE upkeep SET followed = newest - 1 WHERE project_id = :p AND newest > 0", {"p": project_id})

    def take_back_import(self, tx: Tx, project_id: int, import_id: int, given: Iterable[Row]) -> None:
        """Withdraw the labels that an import gave to records of others, and note that it was removed."""
        for row in given:
            add = {name: row[name] for name in ("project_id", "record_id", "task", "task_version")}
            Annotations(self.db).add(tx, {**add, "state": WITHDRAWN, "value": None, "supersedes": row["id"]})
            Work(self.db).decided(tx, row["record_id"], row["task"], "pending", None)
        sql = """UPDATE imports SET state = 'removed', message = NULL, report = '[]', notes = '[]'
                 WHERE id = :i AND project_id = :p"""
        tx.run(sql, {"i": import_id, "p": project_id})

    def erase_answers(self, tx: Tx, words: str) -> None:
        """Erase the answers of models that hold ``words``, whatever they were asked about; their costs stay."""
        where = " OR ".join(
            f"instr(lower(COALESCE({c}, '')), lower(:{w}))" for c in ("answer", "note", "error") for w in ("w", "json")
        )
        tx.run(f"{_ERASE} WHERE state IN ('answered', 'failed') AND ({where})", _spelled(words))

    def remove_project(self, tx: Tx, project_id: int) -> None:
        """Remove a project with all there is in it. Raises :class:`Conflict` while a run or import is at work."""
        ids = self.of_project(project_id, tx)
        self.check_imports(tx, project_id)
        self._check_runs(tx, ids)
        self._forget(tx, ids)
        self._delete_records(tx, ids)
        _keep_number(tx, "projects")
        for sql in _OF_PROJECTS:
            tx.run(sql, {"p": project_id})
        tx.run("DELETE FROM counts WHERE n = 0")

    def check_imports(self, tx: Tx, project_id: int, import_id: int | None = None, queued: bool = False) -> None:
        """Raise :class:`Conflict` while an import of a project, or this one, goes on (or, with ``queued``, will).

        One that a dead process left is nobody's.
        """
        sql = """SELECT id FROM imports WHERE project_id = :p AND (:i IS NULL OR id = :i)
                 AND ((state = 'running' AND alive_at > :dead) OR (:queued AND state = 'queued'))"""
        params = {"p": project_id, "i": import_id, "dead": time.time() - DEAD, "queued": queued}
        running = tx.value(sql, params)
        if running is not None:
            raise Conflict("Import %(number)s is still going on; wait until it has ended", number=running)

    def _check_runs(self, tx: Tx, ids: Sequence[int]) -> None:
        sql = f"""SELECT run_id FROM run_items WHERE record_id {_IN} AND (state = 'batched'
                  OR (state = 'leased' AND lease_until > :now)) LIMIT 1"""
        run = tx.value(sql, {"ids": strictjson.dumps(list(ids)), "now": time.time()})
        if run is not None:
            raise Conflict(
                "Run %(number)s is asking about these records now; pause or cancel it, and remove them then", number=run
            )

    def _groups(self, tx: Tx, ids: Sequence[int]) -> list[str]:
        sql = f"SELECT DISTINCT grp FROM records WHERE id {_IN} AND grp IS NOT NULL ORDER BY grp"
        return [row["grp"] for row in tx.all(sql, {"ids": strictjson.dumps(list(ids))})]

    def _forget(self, tx: Tx, ids: Sequence[int]) -> None:
        """Remove everything that hangs on records, and count their runs again."""
        named = {"ids": strictjson.dumps(list(ids))}
        _keep_number(tx, "annotations")
        _keep_number(tx, "ballots")
        _keep_number(tx, "notes")
        runs = [row["run_id"] for row in tx.all(f"SELECT DISTINCT run_id FROM run_items WHERE record_id {_IN}", named)]
        for sql in _OF_RECORDS:
            tx.run(sql, named)
        for run_id in runs:
            items = Counts(self.db).of(ITEMS, run_id, tx=tx)
            tx.run(
                "UPDATE runs SET total = :total, done = :done, failed = :failed WHERE id = :id",
                {"total": sum(items.values()), "done": items.get("done", 0), "failed": items.get("failed", 0),
                 "id": run_id},
            )  # fmt: skip

    def _close_gaps(self, tx: Tx, project_id: int, leaving: Sequence[int]) -> None:
        """Let exact copies take the places of what leaves, and the rest of each cluster be looked at anew."""
        named = {"ids": strictjson.dumps(list(leaving)), "p": project_id}
        left = tx.all(
            f"""SELECT id, cluster FROM records WHERE project_id = :p AND kind = 'review' AND NOT id {_IN}
                AND cluster IN (SELECT cluster FROM records WHERE id {_IN} AND kind = 'review') ORDER BY id""",
            named,
        )
        heirs = tx.all(
            f"""SELECT duplicate_of AS old, MIN(id) AS new FROM records WHERE duplicate_of {_IN} AND NOT id {_IN}
                GROUP BY duplicate_of""",
            named,
        )
        for row in heirs:
            tx.run(
                f"UPDATE records SET duplicate_of = :new WHERE duplicate_of = :old AND NOT id {_IN}",
                named | dict(row),
            )
            tx.run("UPDATE records SET duplicate_of = NULL WHERE id = :new", dict(row))
        sql = "SELECT task FROM queued WHERE project_id = :p UNION SELECT task FROM work WHERE project_id = :p"
        tasks = tx.all(sql, {"p": project_id})
        enqueue(tx, project_id, [row["new"] for row in heirs], [row["task"] for row in tasks])
        gone = set(leaving)
        names: dict[int, int] = {}
        for row in left:
            if row["cluster"] in gone:
                # Indexes know members by the old name until they are made again.
                names.setdefault(row["cluster"], row["id"])
        tx.many(
            "INSERT INTO united_clusters (project_id, old, new) VALUES (?, ?, ?)",
            [(project_id, old, new) for old, new in names.items()],
        )
        rest = {"ids": strictjson.dumps([row["id"] for row in left]), "p": project_id}
        drop(tx, project_id, gone | {row["id"] for row in left})
        tx.run(f"UPDATE records SET cluster = COALESCE(duplicate_of, id) WHERE id {_IN}", rest)
        tx.run(
            f"""INSERT INTO unsigned_reviews (project_id, record_id) SELECT :p, id FROM records
                WHERE id {_IN} AND duplicate_of IS NULL ON CONFLICT DO NOTHING""",
            rest,
        )

    def _delete_records(self, tx: Tx, ids: Sequence[int]) -> None:
        named = {"ids": strictjson.dumps(list(ids))}
        _keep_number(tx, "records")
        for start in range(0, len(ids), 500):
            part = {"ids": strictjson.dumps(list(ids[start : start + 500]))}
            rows = tx.all(f"SELECT id, text FROM records WHERE id {_IN}", part)
            forget_texts(tx, [(row["id"], row["text"]) for row in rows])
        for table in ("work", "frozen", "splits", "unsigned_reviews"):
            tx.run(f"DELETE FROM {table} WHERE record_id {_IN}", named)
        tx.run(f"DELETE FROM records WHERE id {_IN}", named)

    def _renew_products(self, tx: Tx, project_id: int, groups: Sequence[str]) -> None:
        """Make the texts of products again from the reviews that are left."""
        products = Products(self.db)
        sql = "SELECT task FROM queued WHERE project_id = :p AND unit = 'group'"
        tasks = [row["task"] for row in tx.all(sql, {"p": project_id})]
        there = "SELECT 1 FROM records WHERE project_id = :p AND grp = :g AND kind = :kind LIMIT 1"
        for group in groups:
            here = {"p": project_id, "g": group}
            if tx.value(there, here | {"kind": REVIEW}) is None:
                products.unmark(tx, project_id, [group])
                continue
            mark_products(tx, project_id, [group])
            if tx.value(there, here | {"kind": GROUP}) is not None:
                products.renew(tx, project_id, group, tasks)


def _spelled(words: str) -> dict[str, str]:
    """Return words as they stand in texts, and as they stand in JSON."""
    return {"w": words, "json": strictjson.dumps(words)[1:-1]}


def _keep_number(tx: Tx, table: str) -> None:
    """Remember the highest number that a table has given, before some of its rows go."""
    sql = f"""INSERT INTO used_numbers (name, highest) SELECT :name, COALESCE(MAX(id), 0) FROM {table} WHERE true
              ON CONFLICT (name) DO UPDATE SET highest = MAX(highest, excluded.highest)"""
    tx.run(sql, {"name": table})
