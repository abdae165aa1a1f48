"""The schema, as numbered migrations. Append; never edit one that shipped, never reuse a number."""

from __future__ import annotations

import os
import struct
import time
from itertools import count
from pathlib import Path

from sqlite_utils import Database as SqliteUtils
from sqlite_utils.migrations import Migrations

from labeler.errors import StoreDamaged, StoreNewer, StoreReadOnly
from labeler.store.database import Database, check_local, mapped_errors, patiently

migrations = Migrations("labeler")
# What an instance has beside its database once it was used.
_BESIDE = ("secret_key", "index", "uploads", "exports")

_INITIAL = """
CREATE TABLE projects (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, language TEXT NOT NULL, settings TEXT NOT NULL,
    created_at REAL NOT NULL);
CREATE TABLE reviewers (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, password TEXT, role TEXT NOT NULL, language TEXT,
    epoch INTEGER NOT NULL DEFAULT 0, disabled INTEGER NOT NULL DEFAULT 0, created_at REAL NOT NULL);
CREATE TABLE members (
    project_id INTEGER NOT NULL REFERENCES projects(id), reviewer_id INTEGER NOT NULL REFERENCES reviewers(id),
    role TEXT NOT NULL, PRIMARY KEY (project_id, reviewer_id)) WITHOUT ROWID;
CREATE TABLE tokens (
    id INTEGER PRIMARY KEY, reviewer_id INTEGER NOT NULL REFERENCES reviewers(id), kind TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE, expires_at REAL, used_at REAL, created_at REAL NOT NULL);
CREATE TABLE attempts (id INTEGER PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX attempts_at ON attempts (at);
CREATE TABLE task_settings (
    project_id INTEGER NOT NULL REFERENCES projects(id), task TEXT NOT NULL, version INTEGER NOT NULL,
    settings TEXT NOT NULL, reviewer_id INTEGER REFERENCES reviewers(id), created_at REAL NOT NULL,
    PRIMARY KEY (project_id, task, version)) WITHOUT ROWID;
CREATE TABLE imports (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), file TEXT NOT NULL,
    settings TEXT NOT NULL, state TEXT NOT NULL, size INTEGER NOT NULL DEFAULT 0, position INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL DEFAULT 0, known INTEGER NOT NULL DEFAULT 0, duplicates INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0, labels INTEGER NOT NULL DEFAULT 0, report TEXT NOT NULL DEFAULT '[]',
    message TEXT, reviewer_id INTEGER REFERENCES reviewers(id), created_at REAL NOT NULL, alive_at REAL,
    ended_at REAL);
CREATE TABLE records (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), key TEXT NOT NULL, text TEXT NOT NULL,
    language TEXT NOT NULL, grp TEXT, metadata TEXT NOT NULL, content_hash TEXT NOT NULL, kind TEXT NOT NULL,
    duplicate_of INTEGER REFERENCES records(id), cluster INTEGER, import_id INTEGER REFERENCES imports(id),
    created_at REAL NOT NULL, UNIQUE (project_id, key));
CREATE INDEX records_hash ON records (project_id, content_hash);
CREATE INDEX records_group ON records (project_id, grp) WHERE grp IS NOT NULL;
CREATE TABLE near_duplicates (
    project_id INTEGER NOT NULL, band INTEGER NOT NULL, record_id INTEGER NOT NULL,
    PRIMARY KEY (project_id, band)) WITHOUT ROWID;
CREATE TABLE embeddings (
    embedder TEXT NOT NULL, record_id INTEGER NOT NULL REFERENCES records(id), vector BLOB NOT NULL,
    PRIMARY KEY (embedder, record_id)) WITHOUT ROWID;
CREATE TABLE work (
    record_id INTEGER NOT NULL REFERENCES records(id), task TEXT NOT NULL, project_id INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending', version INTEGER NOT NULL DEFAULT 0, shuffle INTEGER NOT NULL,
    suggestion_id INTEGER, score REAL, disagreement REAL, annotation_id INTEGER,
    PRIMARY KEY (record_id, task)) WITHOUT ROWID;
CREATE INDEX work_oldest ON work (project_id, task, state, record_id);
CREATE INDEX work_random ON work (project_id, task, shuffle) WHERE state = 'pending';
CREATE INDEX work_score ON work (project_id, task, score, record_id) WHERE state = 'pending' AND score IS NOT NULL;
CREATE INDEX work_disagreement ON work (project_id, task, disagreement DESC, record_id)
    WHERE state = 'pending' AND disagreement IS NOT NULL;
CREATE TABLE claims (
    record_id INTEGER NOT NULL, task TEXT NOT NULL, project_id INTEGER NOT NULL, reviewer_id INTEGER NOT NULL,
    token TEXT NOT NULL, until REAL NOT NULL, touched INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (record_id, task)) WITHOUT ROWID;
CREATE INDEX claims_reviewer ON claims (reviewer_id);
CREATE TABLE skips (
    record_id INTEGER NOT NULL, task TEXT NOT NULL, reviewer_id INTEGER NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (record_id, task, reviewer_id)) WITHOUT ROWID;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), task TEXT NOT NULL,
    state TEXT NOT NULL, settings TEXT NOT NULL, message TEXT, total INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0, parse_failures INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
    calls INTEGER NOT NULL DEFAULT 0, repeats INTEGER NOT NULL DEFAULT 0, reused INTEGER NOT NULL DEFAULT 0,
    tokens_in INTEGER NOT NULL DEFAULT 0, tokens_out INTEGER NOT NULL DEFAULT 0,
    tokens_cached INTEGER NOT NULL DEFAULT 0, spent REAL NOT NULL DEFAULT 0,
    unpriced INTEGER NOT NULL DEFAULT 0, budget REAL, reviewer_id INTEGER REFERENCES reviewers(id),
    created_at REAL NOT NULL, started_at REAL, ended_at REAL);
CREATE INDEX runs_project ON runs (project_id, id);
CREATE INDEX runs_open ON runs (state) WHERE state IN ('queued', 'running');
CREATE TABLE run_items (
    run_id INTEGER NOT NULL REFERENCES runs(id), record_id INTEGER NOT NULL REFERENCES records(id),
    state TEXT NOT NULL DEFAULT 'waiting', tries INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0,
    token TEXT, lease_until REAL, error_kind TEXT, error TEXT, PRIMARY KEY (run_id, record_id)) WITHOUT ROWID;
CREATE INDEX run_items_waiting ON run_items (run_id, state, not_before);
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, project_id INTEGER NOT NULL, run_id INTEGER,
    record_id INTEGER NOT NULL, task TEXT NOT NULL, backend TEXT NOT NULL, model_id TEXT, state TEXT NOT NULL,
    sends INTEGER NOT NULL DEFAULT 1, token TEXT, lease_until REAL, answer TEXT, finish TEXT, score REAL,
    tokens_in INTEGER, tokens_out INTEGER, tokens_cached INTEGER, cost REAL, error_kind TEXT, error TEXT,
    created_at REAL NOT NULL, answered_at REAL);
CREATE INDEX calls_run ON calls (run_id);
CREATE TABLE suggestions (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL, record_id INTEGER NOT NULL REFERENCES records(id),
    task TEXT NOT NULL, task_version TEXT NOT NULL, run_id INTEGER, call_id INTEGER REFERENCES calls(id),
    backend TEXT NOT NULL, model_id TEXT, value TEXT, failure TEXT, score REAL, note TEXT, second TEXT,
    flags TEXT NOT NULL, evidence TEXT NOT NULL, created_at REAL NOT NULL);
CREATE INDEX suggestions_record ON suggestions (record_id, task);
CREATE TABLE annotations (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL, record_id INTEGER NOT NULL REFERENCES records(id),
    task TEXT NOT NULL, task_version TEXT NOT NULL, state TEXT NOT NULL, value TEXT, how TEXT NOT NULL,
    blind INTEGER NOT NULL DEFAULT 0, reviewer_id INTEGER REFERENCES reviewers(id), seconds REAL,
    suggestion_id INTEGER REFERENCES suggestions(id), agreement REAL, supersedes INTEGER REFERENCES annotations(id),
    superseded_by INTEGER REFERENCES annotations(id), origin TEXT, request_key TEXT UNIQUE, created_at REAL NOT NULL);
CREATE INDEX annotations_seq ON annotations (project_id, task, id);
CREATE INDEX annotations_record ON annotations (record_id, task);
CREATE INDEX annotations_reviewer ON annotations (reviewer_id, id);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, project_id INTEGER, reviewer_id INTEGER,
    task TEXT, record_id INTEGER, annotation_id INTEGER, detail TEXT NOT NULL);
CREATE INDEX events_project ON events (project_id, id);
CREATE TABLE exports (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), task TEXT NOT NULL,
    format TEXT NOT NULL, manifest TEXT NOT NULL, folder TEXT NOT NULL, reviewer_id INTEGER, created_at REAL NOT NULL);
CREATE TABLE export_annotations (
    export_id INTEGER NOT NULL REFERENCES exports(id), annotation_id INTEGER NOT NULL REFERENCES annotations(id),
    split TEXT NOT NULL, PRIMARY KEY (export_id, annotation_id)) WITHOUT ROWID;
CREATE VIRTUAL TABLE record_search USING fts5(tokens, content='', tokenize="unicode61 remove_diacritics 0");
"""


_MODELS = """
ALTER TABLE suggestions ADD COLUMN scores TEXT;
ALTER TABLE suggestions ADD COLUMN steps TEXT;
ALTER TABLE calls ADD COLUMN scores TEXT;
ALTER TABLE calls ADD COLUMN note TEXT;
ALTER TABLE calls ADD COLUMN answered_by TEXT;
CREATE INDEX calls_model ON calls (task, backend, model_id, id) WHERE state = 'answered';
CREATE TABLE spending (
    project_id INTEGER NOT NULL REFERENCES projects(id), day TEXT NOT NULL, spent REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (project_id, day)) WITHOUT ROWID;
INSERT INTO spending (project_id, day, spent)
    SELECT project_id, date(created_at, 'unixepoch'), SUM(spent) FROM runs WHERE spent > 0 GROUP BY 1, 2;
CREATE TABLE rate_limits (
    server TEXT PRIMARY KEY, requests REAL, tokens REAL, free_requests REAL, free_tokens REAL, at REAL NOT NULL,
    held_until REAL NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE models (
    backend TEXT NOT NULL, base_url TEXT NOT NULL, model_id TEXT NOT NULL, capabilities TEXT NOT NULL,
    checked_at REAL NOT NULL, PRIMARY KEY (backend, base_url, model_id)) WITHOUT ROWID;
CREATE TABLE calibrations (
    project_id INTEGER NOT NULL REFERENCES projects(id), task TEXT NOT NULL, backend TEXT NOT NULL,
    model_id TEXT NOT NULL, fitted TEXT NOT NULL, made_at REAL NOT NULL,
    PRIMARY KEY (project_id, task, backend, model_id)) WITHOUT ROWID;
CREATE TABLE batches (
    id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES runs(id), state TEXT NOT NULL, server TEXT NOT NULL,
    tag TEXT NOT NULL UNIQUE, remote_id TEXT, calls INTEGER NOT NULL DEFAULT 0, message TEXT, created_at REAL NOT NULL,
    polled_at REAL, ended_at REAL);
CREATE INDEX batches_open ON batches (state, run_id) WHERE state <> 'ended';
CREATE INDEX batches_run ON batches (run_id, state);
CREATE TABLE batch_calls (
    batch_id INTEGER NOT NULL REFERENCES batches(id), call_id INTEGER NOT NULL REFERENCES calls(id),
    PRIMARY KEY (batch_id, call_id)) WITHOUT ROWID;
CREATE INDEX batch_calls_call ON batch_calls (call_id);
"""

# A calibration that does not say under which way of prompting it was learned is of no use: it is learned anew.
_WAYS = """
ALTER TABLE suggestions ADD COLUMN way TEXT;
DROP TABLE calibrations;
CREATE TABLE calibrations (
    project_id INTEGER NOT NULL REFERENCES projects(id), task TEXT NOT NULL, backend TEXT NOT NULL,
    model_id TEXT NOT NULL, way TEXT NOT NULL, fitted TEXT NOT NULL, made_at REAL NOT NULL,
    PRIMARY KEY (project_id, task, backend, model_id, way)) WITHOUT ROWID;
"""

# Texts of products may be wrong (they left out what another product has too), so each is made again from its reviews;
# and the near-duplicates of all reviews are looked for anew: links between clusters were lost.
_PRODUCTS = """
ALTER TABLE records ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE work ADD COLUMN text_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE imports ADD COLUMN token TEXT;
ALTER TABLE imports ADD COLUMN rows_read INTEGER NOT NULL DEFAULT 0;
UPDATE records SET duplicate_of = NULL, cluster = id WHERE kind = 'group';
DELETE FROM embeddings WHERE record_id IN (SELECT id FROM records WHERE kind = 'group');
CREATE UNIQUE INDEX records_product ON records (project_id, grp) WHERE kind = 'group';
CREATE INDEX records_cluster ON records (cluster) WHERE cluster <> id;
CREATE INDEX embeddings_record ON embeddings (record_id);
CREATE TABLE stale_products (
    project_id INTEGER NOT NULL REFERENCES projects(id), grp TEXT NOT NULL,
    PRIMARY KEY (project_id, grp)) WITHOUT ROWID;
INSERT INTO stale_products (project_id, grp)
    SELECT DISTINCT project_id, grp FROM records WHERE grp IS NOT NULL AND kind = 'review';
CREATE TABLE dropped_vectors (
    embedder TEXT NOT NULL, record_id INTEGER NOT NULL REFERENCES records(id),
    PRIMARY KEY (embedder, record_id)) WITHOUT ROWID;
CREATE TABLE united_clusters (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), old INTEGER NOT NULL,
    new INTEGER NOT NULL);
CREATE INDEX united_clusters_project ON united_clusters (project_id, id);
DROP TABLE near_duplicates;
CREATE TABLE near_duplicates (
    project_id INTEGER NOT NULL, band INTEGER NOT NULL, record_id INTEGER NOT NULL,
    PRIMARY KEY (project_id, band, record_id)) WITHOUT ROWID;
CREATE TABLE unsigned_reviews (
    project_id INTEGER NOT NULL REFERENCES projects(id), record_id INTEGER NOT NULL REFERENCES records(id),
    PRIMARY KEY (project_id, record_id)) WITHOUT ROWID;
INSERT INTO unsigned_reviews (project_id, record_id)
    SELECT project_id, id FROM records WHERE kind = 'review' AND duplicate_of IS NULL;
"""


_LEDGER = """
ALTER TABLE runs ADD COLUMN again INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN decided INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN moving_since REAL;
ALTER TABLE runs ADD COLUMN filling_until REAL;
ALTER TABLE run_items ADD COLUMN answers INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run_items ADD COLUMN shown TEXT;
ALTER TABLE batches ADD COLUMN alive_at REAL;
ALTER TABLE batch_calls ADD COLUMN taken INTEGER NOT NULL DEFAULT 0;
CREATE INDEX run_items_answers ON run_items (answers, run_id, record_id, state, not_before, lease_until)
    WHERE answers > 0;
CREATE INDEX run_items_leased ON run_items (run_id, lease_until) WHERE state = 'leased';
CREATE INDEX calls_record ON calls (record_id, task);
UPDATE batches SET alive_at = created_at;
UPDATE batch_calls SET taken = 1 WHERE call_id IN (SELECT id FROM calls WHERE state = 'answered');
UPDATE runs SET seconds = ended_at - started_at WHERE ended_at > started_at;
UPDATE runs SET moving_since = started_at WHERE state = 'running';
UPDATE run_items SET answers = 1 WHERE state IN ('waiting', 'leased', 'batched') AND EXISTS (
    SELECT 1 FROM calls c WHERE c.run_id = run_items.run_id AND c.record_id = run_items.record_id
    AND c.state = 'answered');
"""


# Suggestions say what made them, so that it can be told whether they are current. Those made before say it in part:
# a free one is made again when its record is opened, a paid one keeps its backend, model and way of prompting.
_CURRENT = """
ALTER TABLE claims ADD COLUMN served TEXT NOT NULL DEFAULT '';
ALTER TABLE annotations ADD COLUMN served TEXT NOT NULL DEFAULT '';
ALTER TABLE suggestions ADD COLUMN kind TEXT;
ALTER TABLE suggestions ADD COLUMN fit TEXT;
ALTER TABLE suggestions ADD COLUMN seq INTEGER;
ALTER TABLE suggestions ADD COLUMN text_hash TEXT;
ALTER TABLE suggestions ADD COLUMN billed INTEGER NOT NULL DEFAULT 0;
UPDATE suggestions SET billed = 1 WHERE call_id IS NOT NULL OR note LIKE 'cascade%';
CREATE TABLE fits (
    project_id INTEGER NOT NULL REFERENCES projects(id), task TEXT NOT NULL, embedder TEXT NOT NULL, id TEXT NOT NULL,
    seq INTEGER NOT NULL, head TEXT NOT NULL, numbers BLOB NOT NULL, made_at REAL NOT NULL,
    PRIMARY KEY (project_id, task, embedder)) WITHOUT ROWID;
CREATE TABLE upkeep (
    project_id INTEGER NOT NULL REFERENCES projects(id), place TEXT NOT NULL, newest INTEGER NOT NULL DEFAULT 0,
    followed INTEGER NOT NULL DEFAULT 0, token TEXT, until REAL NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0,
    trouble TEXT, PRIMARY KEY (project_id, place)) WITHOUT ROWID;
INSERT INTO upkeep (project_id, place, newest) SELECT project_id, task, MAX(id) FROM annotations GROUP BY 1, 2;
"""


_QUEUE = """
ALTER TABLE annotations ADD COLUMN original_id INTEGER REFERENCES annotations(id);
DROP INDEX annotations_reviewer;
CREATE INDEX annotations_standing ON annotations (reviewer_id, project_id, task, COALESCE(original_id, id))
    WHERE superseded_by IS NULL AND state <> 'withdrawn' AND how <> 'imported';
ALTER TABLE claims ADD COLUMN lease REAL NOT NULL DEFAULT 600;
UPDATE claims SET lease = COALESCE((SELECT json_extract(p.settings, '$.claim_minutes') FROM projects p
    WHERE p.id = claims.project_id), 10) * 60;
ALTER TABLE work ADD COLUMN scored_by TEXT;
UPDATE work SET scored_by = (SELECT s.backend FROM suggestions s WHERE s.id = work.suggestion_id)
    WHERE score IS NOT NULL;
DROP INDEX work_score;
CREATE INDEX work_score ON work (project_id, task, scored_by, score, record_id)
    WHERE state = 'pending' AND score IS NOT NULL;
CREATE TABLE queued (
    project_id INTEGER NOT NULL REFERENCES projects(id), task TEXT NOT NULL, unit TEXT NOT NULL,
    through INTEGER NOT NULL, PRIMARY KEY (project_id, task)) WITHOUT ROWID;
"""

# Records that exports before put into different splits belong to the one that was held out most.
_SPLITS = """
CREATE TABLE splits (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
    record_id INTEGER NOT NULL UNIQUE REFERENCES records(id), split TEXT NOT NULL);
CREATE INDEX splits_project ON splits (project_id, id);
INSERT INTO splits (project_id, record_id, split)
    SELECT a.project_id, a.record_id, CASE MIN(CASE e.split WHEN 'test' THEN 1 WHEN 'validation' THEN 2 ELSE 3 END)
      WHEN 1 THEN 'test' WHEN 2 THEN 'validation' ELSE 'train' END
    FROM export_annotations e JOIN annotations a ON a.id = e.annotation_id GROUP BY a.project_id, a.record_id;
"""

# The indexes are what a removal looks for: without them each row that goes would be looked for in whole tables.
_REMOVAL = """
ALTER TABLE projects ADD COLUMN archived_at REAL;
ALTER TABLE projects ADD COLUMN removals INTEGER NOT NULL DEFAULT 0;
CREATE TABLE used_numbers (name TEXT PRIMARY KEY, highest INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX records_copies ON records (duplicate_of) WHERE duplicate_of IS NOT NULL;
CREATE INDEX records_import ON records (import_id) WHERE import_id IS NOT NULL;
CREATE INDEX run_items_record ON run_items (record_id);
CREATE INDEX near_duplicates_record ON near_duplicates (record_id);
CREATE INDEX annotations_superseded ON annotations (supersedes) WHERE supersedes IS NOT NULL;
CREATE INDEX annotations_superseding ON annotations (superseded_by) WHERE superseded_by IS NOT NULL;
CREATE INDEX annotations_original ON annotations (original_id) WHERE original_id IS NOT NULL;
CREATE INDEX annotations_suggestion ON annotations (suggestion_id) WHERE suggestion_id IS NOT NULL;
CREATE INDEX suggestions_call ON suggestions (call_id) WHERE call_id IS NOT NULL;
CREATE INDEX export_annotations_annotation ON export_annotations (annotation_id);
"""


_SIGNATURES = """
DROP TABLE near_duplicates;
CREATE TABLE signatures (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, project_id INTEGER NOT NULL REFERENCES projects(id), ids BLOB NOT NULL,
    shapes BLOB NOT NULL, bands BLOB NOT NULL);
CREATE INDEX signatures_project ON signatures (project_id, seq);
INSERT INTO unsigned_reviews (project_id, record_id)
    SELECT project_id, id FROM records WHERE kind = 'review' AND duplicate_of IS NULL ON CONFLICT DO NOTHING;
"""

_COLUMNS = """
ALTER TABLE suggestions ADD COLUMN columns TEXT;
CREATE TABLE unsearched_pictures (through INTEGER NOT NULL, newest INTEGER NOT NULL);
INSERT INTO unsearched_pictures (through, newest)
    SELECT 0, newest FROM (SELECT MAX(id) AS newest FROM records) AS stored WHERE newest IS NOT NULL;
"""

_UNLISTED = """
ALTER TABLE runs ADD COLUMN unlisted REAL NOT NULL DEFAULT 0;
UPDATE runs SET unlisted = MAX(0, spent - (SELECT COALESCE(SUM(c.cost), 0) FROM calls c WHERE c.run_id = runs.id));
"""


_SERVERS = """
ALTER TABLE runs ADD COLUMN estimated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN away_since REAL;
ALTER TABLE calls ADD COLUMN tokens_thought INTEGER;
ALTER TABLE calls ADD COLUMN refused TEXT;
CREATE TABLE token_counts (
    server TEXT NOT NULL, model_id TEXT NOT NULL, answers INTEGER NOT NULL, n REAL NOT NULL, w REAL NOT NULL,
    nn REAL NOT NULL, nw REAL NOT NULL, ww REAL NOT NULL, PRIMARY KEY (server, model_id)) WITHOUT ROWID;
"""


@migrations()
def m001_initial(db: SqliteUtils) -> None:
    _execute(db, _INITIAL)


@migrations()
def m002_models(db: SqliteUtils) -> None:
    """Scores and steps of suggestions, and what is known of models: limits, capabilities, calibrations, batches."""
    _execute(db, _MODELS)


_REPORTS = """
ALTER TABLE imports ADD COLUMN given INTEGER NOT NULL DEFAULT 0;
ALTER TABLE imports ADD COLUMN agreed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE imports ADD COLUMN contradicting INTEGER NOT NULL DEFAULT 0;
ALTER TABLE imports ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0;
ALTER TABLE imports ADD COLUMN notes TEXT NOT NULL DEFAULT '[]';
"""


@migrations()
def m003_ways(db: SqliteUtils) -> None:
    # Databases of one early version have them from m002.
    if not any(column.name == "way" for column in db["suggestions"].columns):
        _execute(db, _WAYS)


@migrations()
def m004_products(db: SqliteUtils) -> None:
    """Products by name, with versioned texts; clusters that unite; imports that one worker at a time moves."""
    _execute(db, _PRODUCTS)


@migrations()
def m005_ledger(db: SqliteUtils) -> None:
    """What is paid is finished: items say that the ledger has an answer, and answers that wait for one are marked."""
    _execute(db, _LEDGER)


@migrations()
def m006_queue(db: SqliteUtils) -> None:
    """What undo, claims and the order by score go by: the original decision, the lease, the backend that scored."""
    _execute(db, _QUEUE)
    _find_originals(db)


def _find_originals(db: SqliteUtils) -> None:
    """Give each row that an undo brought back the number and the time of the decision that it stands for."""
    originals: dict[int, int] = {}
    undone = db.execute(
        """SELECT u.id, u.state, s.id AS taken FROM annotations u JOIN annotations s ON s.id = u.supersedes
           WHERE u.origin = 'undo' ORDER BY u.id"""
    ).fetchall()
    for id_, state, taken in undone:
        row = db.execute("SELECT supersedes FROM annotations WHERE id = ?", [originals.get(taken, taken)]).fetchone()
        if state != "withdrawn" and row[0] is not None:
            originals[id_] = originals.get(row[0], row[0])
    for id_, original in originals.items():
        db.execute(
            """UPDATE annotations SET original_id = :o,
               created_at = (SELECT o.created_at FROM annotations o WHERE o.id = :o) WHERE id = :id""",
            {"o": original, "id": id_},
        )


@migrations()
def m007_current_suggestions(db: SqliteUtils) -> None:
    """What a suggestion was made by and from, fits of free backends, and how far decisions were followed."""
    _execute(db, _CURRENT)


@migrations()
def m008_unlisted_costs(db: SqliteUtils) -> None:
    """Runs say what they paid for answers that have no row: version 0.1.0 kept only the last answer of a call."""
    _execute(db, _UNLISTED)


@migrations()
def m009_servers(db: SqliteUtils) -> None:
    """What servers count as tokens, costs that are estimated, and runs that wait for their server."""
    _execute(db, _SERVERS)


@migrations()
def m010_import_reports(db: SqliteUtils) -> None:
    """What an import says about labels (each counts once) and about the file."""
    _execute(db, _REPORTS)


@migrations()
def m011_splits(db: SqliteUtils) -> None:
    """In which split each record left, so that it never leaves in another."""
    _execute(db, _SPLITS)


@migrations()
def m012_removal(db: SqliteUtils) -> None:
    """What taking back needs: numbers that are never given again, archived projects, and how often records went."""
    _execute(db, _REMOVAL)


@migrations()
def m013_people(db: SqliteUtils) -> None:
    """No role without rights of its own; what was done beside labeling can be listed."""
    db.execute("UPDATE members SET role = 'reviewer' WHERE role = 'adjudicator'")
    db.execute("CREATE INDEX events_acts ON events (id) WHERE record_id IS NULL")


@migrations()
def m014_signatures(db: SqliteUtils) -> None:
    """Signatures of near-duplicates in blocks: as rows of an index they made an import slower with each record."""
    _execute(db, _SIGNATURES)


_LABELS = """
ALTER TABLE task_settings ADD COLUMN moves TEXT;
ALTER TABLE task_settings ADD COLUMN unfinished INTEGER NOT NULL DEFAULT 0;
"""


@migrations()
def m015_label_moves(db: SqliteUtils) -> None:
    """What a version of a task's settings says of the labels given before it, and whether that is done."""
    _execute(db, _LABELS)


@migrations()
def m016_columns(db: SqliteUtils) -> None:
    """Which columns a suggestion was made from, and up to which record emoji are still to be put into the search."""
    _execute(db, _COLUMNS)


# What the pages count, as the rows say it: ``total`` is the sum of the agreements of people with suggestions.
_COUNTED = """
CREATE INDEX records_project ON records (project_id);
CREATE INDEX imports_project ON imports (project_id);
CREATE INDEX exports_project ON exports (project_id);
CREATE INDEX run_items_reason ON run_items (run_id, error_kind)
    WHERE error_kind IS NOT NULL AND state IN ('failed', 'done');
CREATE TABLE counts (
    what TEXT NOT NULL, id INTEGER NOT NULL, task TEXT NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL,
    total REAL NOT NULL DEFAULT 0, PRIMARY KEY (what, id, task, name)) WITHOUT ROWID;
CREATE VIEW first_decisions AS
    SELECT a.project_id, a.task, json_array(a.task_version, s.backend, s.model_id, a.blind) AS name, a.agreement
    FROM annotations a JOIN suggestions s ON s.id = a.suggestion_id LEFT JOIN annotations u ON u.id = a.superseded_by
    WHERE a.state = 'approved' AND a.agreement IS NOT NULL AND s.task_version = a.task_version
    AND a.supersedes IS NULL AND a.origin IS NULL AND COALESCE(u.origin, '') <> 'undo'
    AND a.served NOT IN ('score', 'disagreement', 'similar');
CREATE VIEW counted (what, id, task, name, n, total) AS
    SELECT 'records', project_id, '', kind, COUNT(*), 0 FROM records GROUP BY 2, 4
    UNION ALL SELECT 'records', project_id, '', 'duplicate', COUNT(*), 0 FROM records
        WHERE kind = 'review' AND duplicate_of IS NOT NULL GROUP BY 2
    UNION ALL SELECT 'records', project_id, '', 'near', COUNT(*), 0 FROM records
        WHERE kind = 'review' AND duplicate_of IS NULL AND cluster <> id GROUP BY 2
    UNION ALL SELECT 'records', project_id, '', 'product', COUNT(DISTINCT grp), 0 FROM records
        WHERE kind = 'review' AND grp IS NOT NULL GROUP BY 2
    UNION ALL SELECT 'work', project_id, task, state, COUNT(*), 0 FROM work GROUP BY 2, 3, 4
    UNION ALL SELECT 'how', project_id, task, how, COUNT(*), 0 FROM annotations
        WHERE superseded_by IS NULL AND state <> 'withdrawn' GROUP BY 2, 3, 4
    UNION ALL SELECT 'agreement', project_id, task, name, COUNT(*), SUM(agreement) FROM first_decisions GROUP BY 2, 3, 4
    UNION ALL SELECT 'exact', project_id, task, name, COUNT(*), 0 FROM first_decisions
        WHERE agreement >= 0.999999 GROUP BY 2, 3, 4
    UNION ALL SELECT 'vectors', r.project_id, '', e.embedder, COUNT(*), 0 FROM embeddings e
        JOIN records r ON r.id = e.record_id GROUP BY 2, 4
    UNION ALL SELECT 'items', run_id, '', state, COUNT(*), 0 FROM run_items GROUP BY 2, 4
    UNION ALL SELECT 'reasons', run_id, '', error_kind, COUNT(*), 0 FROM run_items
        WHERE error_kind <> 'decided' AND state IN ('failed', 'done') GROUP BY 2, 4
    UNION ALL SELECT 'notes', run_id, task, COALESCE(note, ''), COUNT(*), 0 FROM suggestions
        WHERE run_id IS NOT NULL GROUP BY 2, 3, 4
    UNION ALL SELECT 'scored', run_id, task, json_array(backend, model_id, COALESCE(way, '')), COUNT(*), 0
        FROM suggestions WHERE run_id IS NOT NULL AND scores IS NOT NULL GROUP BY 2, 3, 4;
INSERT INTO counts SELECT * FROM counted;
"""

_ALONE = """x.kind = 'review' AND x.grp IS NOT NULL AND NOT EXISTS (SELECT 1 FROM records o
    WHERE o.project_id = x.project_id AND o.grp = x.grp AND o.kind = 'review')"""
_FIRST = """x.state = 'approved' AND x.agreement IS NOT NULL AND x.supersedes IS NULL AND x.origin IS NULL
    AND x.served NOT IN ('score', 'disagreement', 'similar')
    AND EXISTS (SELECT 1 FROM suggestions s WHERE s.id = x.suggestion_id AND s.task_version = x.task_version)
    AND NOT EXISTS (SELECT 1 FROM annotations u WHERE u.id = x.superseded_by AND u.origin = 'undo')"""
_MODEL = """(SELECT json_array(x.task_version, s.backend, s.model_id, x.blind) FROM suggestions s
    WHERE s.id = x.suggestion_id)"""
_PROJECT = "(SELECT r.project_id FROM records r WHERE r.id = x.record_id)"
# The same for one row "x" of a table: which rows may count (quickly told), whether the database counts those that come
# in (records come in by the thousand, and whoever adds them counts them), which columns change a count, and the counts:
# what, id, task, name, where (or from what), total.
_Counting = tuple[str, str, bool, str, tuple[tuple[str, ...], ...]]
_COUNTING: tuple[_Counting, ...] = (
    ("records", "true", False, "", (
        ("records", "x.project_id", "''", "x.kind", "true", "0"),
        ("records", "x.project_id", "''", "'product'", _ALONE, "0"),
    )),
    ("records", "x.kind = 'review'", False, "duplicate_of, cluster", (
        ("records", "x.project_id", "''", "'duplicate'", "x.kind = 'review' AND x.duplicate_of IS NOT NULL", "0"),
        ("records", "x.project_id", "''", "'near'",
         "x.kind = 'review' AND x.duplicate_of IS NULL AND x.cluster <> x.id", "0"),
    )),
    ("work", "true", False, "state", (("work", "x.project_id", "x.task", "x.state", "true", "0"),)),
    ("annotations", "x.state <> 'withdrawn'", True, "superseded_by, state, how", (
        ("how", "x.project_id", "x.task", "x.how", "x.superseded_by IS NULL AND x.state <> 'withdrawn'", "0"),
    )),
    ("annotations", "x.agreement IS NOT NULL", True, "superseded_by, state, agreement", (
        ("agreement", "x.project_id", "x.task", _MODEL, _FIRST, "x.agreement"),
        ("exact", "x.project_id", "x.task", _MODEL, f"x.agreement >= 0.999999 AND {_FIRST}", "0"),
    )),
    ("embeddings", "true", True, "", (("vectors", _PROJECT, "''", "x.embedder", "true", "0"),)),
    ("run_items", "true", True, "state, error_kind", (
        ("items", "x.run_id", "''", "x.state", "true", "0"),
        ("reasons", "x.run_id", "''", "x.error_kind", "x.error_kind <> 'decided' AND x.state IN ('failed', 'done')",
         "0"),
    )),
    ("suggestions", "x.run_id IS NOT NULL", True, "", (
        ("notes", "x.run_id", "x.task", "COALESCE(x.note, '')", "true", "0"),
        ("scored", "x.run_id", "x.task", "json_array(x.backend, x.model_id, COALESCE(x.way, ''))",
         "x.scores IS NOT NULL", "0"),
    )),
)  # fmt: skip


@migrations()
def m017_counts(db: SqliteUtils) -> None:
    """What the pages count is kept in the transaction that changes it, whoever changes it."""
    _execute(db, _COUNTED)
    _keep_counts(db, _COUNTING)


def _keep_counts(db: SqliteUtils, counting: tuple[_Counting, ...], first: int = 0) -> None:
    """Make the triggers of counts, numbered from ``first``."""
    for n, (table, when, coming, columns, counts) in enumerate(counting, first):
        added, taken = ("".join(_counting(count, *how) for count in counts) for how in (("NEW", "+"), ("OLD", "-")))
        new, old = (when.replace("x.", f"{row}.") for row in ("NEW", "OLD"))
        if coming:
            db.execute(f"CREATE TRIGGER counts_{n}_come AFTER INSERT ON {table} WHEN {new} BEGIN {added} END")
        db.execute(f"CREATE TRIGGER counts_{n}_go AFTER DELETE ON {table} WHEN {old} BEGIN {taken} END")
        if columns:
            changed = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in columns.split(", "))
            db.execute(
                f"""CREATE TRIGGER counts_{n}_change AFTER UPDATE OF {columns} ON {table}
                    WHEN ({new} OR {old}) AND ({changed}) BEGIN {taken} {added} END"""
            )


def _counting(count: tuple[str, ...], row: str, sign: str) -> str:
    """Return the statement that adds one row of a table to a count, or takes it away."""
    what, *parts = count
    id_, task, name, where, total = (part.replace("x.", f"{row}.") for part in parts)
    source = where if where.startswith("FROM") else f"WHERE {where}"
    return f"""INSERT INTO counts (what, id, task, name, n, total)
        SELECT '{what}', {id_}, {task}, {name}, {sign}1, {sign}({total}) {source}
        ON CONFLICT (what, id, task, name) DO UPDATE SET n = n + excluded.n, total = total + excluded.total;"""


@migrations()
def m018_vectors_through(db: SqliteUtils) -> None:
    """How far the vectors of a project are there: to find out, all its records were looked through."""
    _execute(
        db,
        """CREATE TABLE vectors_through (
            project_id INTEGER NOT NULL, embedder TEXT NOT NULL, record_id INTEGER NOT NULL,
            PRIMARY KEY (project_id, embedder)) WITHOUT ROWID;""",
    )


# What goes with the records "r" of a part of a project: those that one import brought, else those of one kind.
_PART = "COALESCE(r.import_id || '', r.kind)"
_KIND = "CASE x.how WHEN 'imported' THEN 'label' ELSE 'decision' END"
# Labels that an import gave to records of others; their origin reads "import 3: file.csv".
_GIVER = "substr(x.origin, 8, instr(x.origin, ':') - 8)"
_GIVEN = """x.how = 'imported' AND x.state = 'approved' AND x.superseded_by IS NULL
    AND x.origin GLOB 'import [0-9]*:*' AND r.import_id IS NOT CAST(substr(x.origin, 8) AS INTEGER)"""
# Table, which rows may count, which columns change a count; and of each count the part, the name, and where.
_GOING = (
    ("annotations", "x.state <> 'withdrawn'", "superseded_by, state, how", (
        (_PART, _KIND, "x.superseded_by IS NULL AND x.state <> 'withdrawn'"), (_GIVER, "'given'", _GIVEN),
    )),
    ("suggestions", "true", "", ((_PART, "'suggestion'", "true"),)),
    ("calls", "x.state <> 'erased'", "state, record_id", ((_PART, "'call'", "x.state <> 'erased'"),)),
)  # fmt: skip


@migrations()
def m019_going(db: SqliteUtils) -> None:
    """What goes with an import or a project is kept as well: the page of its removal counted all there is."""
    own = (("'record'", "true", ""), ("'copy'", "x.duplicate_of IS NOT NULL", "duplicate_of"))
    part = _PART.replace("r.", "x.")
    counting: list[_Counting] = [
        ("records", where, False, columns, (("going", "x.project_id", part, name, where, "0"),))
        for name, where, columns in own
    ]
    view = [
        f"SELECT 'going', project_id, {part}, {name}, COUNT(*), 0 FROM records x WHERE {where} GROUP BY 2, 3"
        for name, where, _ in own
    ]
    for table, when, columns, counts in _GOING:
        of_record = "FROM records r WHERE r.id = x.record_id AND"
        parts = (("going", "r.project_id", part, name, f"{of_record} {where}", "0") for part, name, where in counts)
        counting.append((table, when, True, columns, tuple(parts)))
        view += [
            f"""SELECT 'going', r.project_id, {part}, {name}, COUNT(*), 0 FROM {table} x
                JOIN records r ON r.id = x.record_id WHERE {where} GROUP BY 2, 3, 4"""
            for part, name, where in counts
        ]
    counted = db.execute("SELECT sql FROM sqlite_master WHERE name = 'counted'").fetchone()[0]
    db.execute("DROP VIEW counted")
    db.execute(" UNION ALL ".join([counted, *view]))
    db.execute("INSERT INTO counts SELECT * FROM counted WHERE what = 'going'")
    _keep_counts(db, tuple(counting), len(_COUNTING))


# The trial of a run: see labeler/store/ledger_items.py.
_TRIALS = """
ALTER TABLE runs ADD COLUMN trial TEXT;
ALTER TABLE runs ADD COLUMN trial_kind TEXT;
CREATE TABLE trial_items (
    run_id INTEGER NOT NULL REFERENCES runs(id), record_id INTEGER NOT NULL REFERENCES records(id), said TEXT,
    PRIMARY KEY (run_id, record_id)) WITHOUT ROWID;
CREATE INDEX trial_items_record ON trial_items (record_id);
CREATE INDEX runs_trial ON runs (project_id, task, trial_kind, id) WHERE trial_kind IS NOT NULL;
"""


@migrations()
def m022_trials(db: SqliteUtils) -> None:
    """What a model is worth beside the free suggestion is found out on approved records, before the rest is asked."""
    _execute(db, _TRIALS)


@migrations()
def m023_replays(db: SqliteUtils) -> None:
    """Replays: which approvals are predicted again, by which settings, and what these said."""
    _execute(
        db,
        """CREATE TABLE replays (
            id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL, task TEXT NOT NULL, task_version TEXT NOT NULL,
            state TEXT NOT NULL, message TEXT, budget REAL, token TEXT, until REAL NOT NULL DEFAULT 0,
            reviewer_id INTEGER, created_at REAL NOT NULL, used_arm INTEGER, used_at REAL, used_by INTEGER);
        CREATE INDEX replays_task ON replays (project_id, task, id);
        CREATE TABLE replay_arms (
            replay_id INTEGER NOT NULL, arm INTEGER NOT NULL, settings TEXT NOT NULL, run_id INTEGER,
            PRIMARY KEY (replay_id, arm)) WITHOUT ROWID;
        CREATE TABLE replay_items (
            replay_id INTEGER NOT NULL, record_id INTEGER NOT NULL, annotation_id INTEGER NOT NULL,
            seq INTEGER NOT NULL, known INTEGER, PRIMARY KEY (replay_id, record_id)) WITHOUT ROWID;
        CREATE INDEX replay_items_record ON replay_items (record_id);
        CREATE TABLE replayed (
            replay_id INTEGER NOT NULL, arm INTEGER NOT NULL, record_id INTEGER NOT NULL, value TEXT, failure TEXT,
            score REAL, PRIMARY KEY (replay_id, arm, record_id)) WITHOUT ROWID;
        CREATE INDEX replayed_record ON replayed (record_id);""",
    )


@migrations()
def m024_drafts(db: SqliteUtils) -> None:
    """Drafts of guidelines that a model wrote for a replay to judge, and the run that asks for them."""
    _execute(
        db,
        """ALTER TABLE replays ADD COLUMN drafts_run INTEGER;
        ALTER TABLE replays ADD COLUMN guidelines TEXT;
        CREATE TABLE replay_drafts (
            replay_id INTEGER NOT NULL, draft INTEGER NOT NULL, record_id INTEGER NOT NULL, shown TEXT NOT NULL,
            guidelines TEXT, failure TEXT, PRIMARY KEY (replay_id, draft)) WITHOUT ROWID;""",
    )


@migrations()
def m025_short_hashes(db: SqliteUtils) -> None:
    """Copies are found by the head of a hash: with a million records an import writes to all pages of that index."""
    _execute(
        db,
        """DROP INDEX records_hash;
        CREATE INDEX records_hash ON records (project_id, substr(content_hash, 1, 8));""",
    )


def _execute(db: SqliteUtils, script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)


@migrations()
def m027_parts(db: SqliteUtils) -> None:
    """A text may have named parts: a list of [title, begin, end], in code points; NULL where it has none."""
    _execute(db, "ALTER TABLE records ADD COLUMN parts TEXT")


@migrations()
def m028_frozen(db: SqliteUtils) -> None:
    """Test records that a person froze under a name: they are in no other split, also when all is split again."""
    _execute(
        db,
        """CREATE TABLE frozen (
            project_id INTEGER NOT NULL REFERENCES projects(id), name TEXT NOT NULL,
            record_id INTEGER NOT NULL REFERENCES records(id), at REAL NOT NULL,
            PRIMARY KEY (project_id, name, record_id)) WITHOUT ROWID;
        CREATE INDEX frozen_record ON frozen (record_id);""",
    )


@migrations()
def m030_rankings(db: SqliteUtils) -> None:
    """People put answers of several models to one record in order: a list of tiers, best first."""
    _execute(
        db,
        """CREATE TABLE rankings (
            id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL, record_id INTEGER NOT NULL, task TEXT NOT NULL,
            task_version TEXT NOT NULL, reviewer_id INTEGER, ranked TEXT NOT NULL, none_good INTEGER NOT NULL DEFAULT 0,
            seconds REAL, request_key TEXT UNIQUE, withdrawn_at REAL, created_at REAL NOT NULL);
        CREATE INDEX rankings_record ON rankings (record_id, task);
        CREATE INDEX rankings_task ON rankings (project_id, task, id);
        CREATE INDEX rankings_reviewer ON rankings (reviewer_id, project_id, task, id);
        CREATE TABLE comparable (
            project_id INTEGER NOT NULL, task TEXT NOT NULL, record_id INTEGER NOT NULL,
            PRIMARY KEY (project_id, task, record_id)) WITHOUT ROWID;
        CREATE INDEX comparable_record ON comparable (record_id);
        CREATE TABLE export_rankings (
            export_id INTEGER NOT NULL REFERENCES exports(id), ranking_id INTEGER NOT NULL REFERENCES rankings(id),
            split TEXT NOT NULL, PRIMARY KEY (export_id, ranking_id)) WITHOUT ROWID;
        CREATE INDEX export_rankings_ranking ON export_rankings (ranking_id);
        INSERT INTO comparable (project_id, task, record_id)
            SELECT MIN(project_id), task, record_id FROM suggestions GROUP BY record_id, task
            HAVING COUNT(DISTINCT value) > 1 AND COUNT(DISTINCT COALESCE(kind, backend)) > 1
            OR MAX(steps LIKE '%"sample 2"%') = 1""",
    )


@migrations()
def m031_evaluations(db: SqliteUtils) -> None:
    """Replays of held-out records say which, and arms that ask no model how long they took."""
    _execute(
        db,
        """ALTER TABLE replays ADD COLUMN held_out TEXT;
        ALTER TABLE replay_arms ADD COLUMN seconds REAL;""",
    )


@migrations()
def m032_named_exports(db: SqliteUtils) -> None:
    """An export may have a name, by which it is asked for and trained on."""
    _execute(
        db,
        """ALTER TABLE exports ADD COLUMN name TEXT;
        CREATE UNIQUE INDEX exports_name ON exports (project_id, name) WHERE name IS NOT NULL;""",
    )


@migrations()
def m033_written(db: SqliteUtils) -> None:
    """Texts that models wrote for rare labels: what was asked for, what became of each, and which record it is."""
    _execute(
        db,
        """CREATE TABLE writings (
            run_id INTEGER NOT NULL, record_id INTEGER NOT NULL, project_id INTEGER NOT NULL, task TEXT NOT NULL,
            label TEXT NOT NULL, shown TEXT NOT NULL, sources TEXT NOT NULL,
            round INTEGER NOT NULL, failure TEXT, PRIMARY KEY (run_id, record_id)) WITHOUT ROWID;
        CREATE INDEX writings_task ON writings (project_id, task, label);
        CREATE TABLE written (
            id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL, after_id INTEGER NOT NULL, model_id TEXT NOT NULL,
            text TEXT, outcome TEXT, record_id INTEGER);
        CREATE INDEX written_run ON written (run_id, after_id);
        CREATE UNIQUE INDEX written_record ON written (record_id) WHERE record_id IS NOT NULL;
        CREATE INDEX written_waiting ON written (id) WHERE outcome IS NULL;""",
    )


@migrations()
def m035_judgements(db: SqliteUtils) -> None:
    """A model may judge the answers of an evaluation, once it has judged pairs that people decided on."""
    _execute(
        db,
        """ALTER TABLE replays ADD COLUMN judge TEXT;
        CREATE TABLE judgements (
            replay_id INTEGER NOT NULL, arm INTEGER NOT NULL, record_id INTEGER NOT NULL, first TEXT NOT NULL,
            second TEXT NOT NULL, verdict REAL, failure TEXT, PRIMARY KEY (replay_id, arm, record_id)) WITHOUT ROWID;
        CREATE INDEX judgements_record ON judgements (record_id);""",
    )


@migrations()
def m036_table(db: SqliteUtils) -> None:
    """The table of records: an order by score that holds decided records too, and views that people keep."""
    _execute(
        db,
        """CREATE INDEX work_scores ON work (project_id, task, score, record_id) WHERE score IS NOT NULL;
        CREATE TABLE views (
            id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), name TEXT NOT NULL,
            address TEXT NOT NULL, reviewer_id INTEGER REFERENCES reviewers(id), created_at REAL NOT NULL,
            UNIQUE (project_id, name));
        """,
    )


@migrations()
def m037_acts(db: SqliteUtils) -> None:
    """Acts on many records at once: what was asked for, how far it came, and which decisions it made."""
    _execute(
        db,
        """CREATE TABLE acts (
            id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), task TEXT NOT NULL,
            kind TEXT NOT NULL, value TEXT, query TEXT NOT NULL, ids TEXT, moved INTEGER NOT NULL,
            reviewer_id INTEGER REFERENCES reviewers(id), state TEXT NOT NULL, edge INTEGER NOT NULL,
            looked INTEGER NOT NULL DEFAULT 0, changed INTEGER NOT NULL DEFAULT 0, left_out TEXT NOT NULL DEFAULT '{}',
            made TEXT NOT NULL DEFAULT '[]', created_at REAL NOT NULL, ended_at REAL);
        CREATE INDEX acts_open ON acts (state) WHERE state IN ('doing', 'undoing');
        CREATE INDEX acts_project ON acts (project_id, id);
        """,
    )


@migrations()
def m039_numbers(db: SqliteUtils) -> None:
    """What a task's numbers are made from: decisions in force by day, and a way to the newest that tell of models."""
    where = "x.superseded_by IS NULL AND x.state <> 'withdrawn'"
    name = "date(x.created_at, 'unixepoch') || ' ' || x.how"
    days: _Counting = (
        "annotations", "x.state <> 'withdrawn'", True, "superseded_by, state, how, created_at",
        (("days", "x.project_id", "x.task", name, where, "0"),),
    )  # fmt: skip
    counted = db.execute("SELECT sql FROM sqlite_master WHERE name = 'counted'").fetchone()[0]
    db.execute("DROP VIEW counted")
    db.execute(
        f"""{counted} UNION ALL SELECT 'days', project_id, task, {name}, COUNT(*), 0 FROM annotations x
            WHERE {where} GROUP BY 2, 3, 4"""
    )
    db.execute("INSERT INTO counts SELECT * FROM counted WHERE what = 'days'")
    _keep_counts(db, (days,), len(_COUNTING) + len(_GOING) + 2)
    db.execute(
        """CREATE INDEX annotations_first ON annotations (project_id, task, id)
           WHERE agreement IS NOT NULL AND supersedes IS NULL AND origin IS NULL"""
    )


@migrations()
def m040_ballots(db: SqliteUtils) -> None:
    """Several people say of a record what it is, and a consensus or an adjudicator settles it; tags on records."""
    _execute(
        db,
        """CREATE TABLE ballots (
            id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL, record_id INTEGER NOT NULL REFERENCES records(id),
            task TEXT NOT NULL, task_version TEXT NOT NULL, state TEXT NOT NULL, value TEXT, how TEXT NOT NULL,
            blind INTEGER NOT NULL DEFAULT 0, reviewer_id INTEGER NOT NULL REFERENCES reviewers(id), seconds REAL,
            suggestion_id INTEGER REFERENCES suggestions(id), agreement REAL, request_key TEXT UNIQUE,
            served TEXT NOT NULL DEFAULT '', created_at REAL NOT NULL, ended_at REAL, ended_by TEXT UNIQUE,
            settled_id INTEGER, after_id INTEGER NOT NULL, gold INTEGER NOT NULL DEFAULT 0);
        CREATE UNIQUE INDEX ballots_open ON ballots (record_id, task, reviewer_id)
            WHERE ended_at IS NULL AND settled_id IS NULL;
        CREATE INDEX ballots_record ON ballots (record_id);
        CREATE INDEX ballots_task ON ballots (project_id, task, id) WHERE ended_at IS NULL;
        CREATE INDEX ballots_reviewer ON ballots (reviewer_id, project_id, task, id) WHERE ended_at IS NULL;
        CREATE INDEX ballots_settled ON ballots (settled_id) WHERE settled_id IS NOT NULL;
        CREATE INDEX ballots_suggestion ON ballots (suggestion_id) WHERE suggestion_id IS NOT NULL;
        CREATE UNIQUE INDEX ballots_gold ON ballots (record_id, task, reviewer_id) WHERE ended_at IS NULL AND gold = 1;
        ALTER TABLE annotations ADD COLUMN reason TEXT;
        CREATE TABLE tags (
            project_id INTEGER NOT NULL REFERENCES projects(id), name TEXT NOT NULL,
            record_id INTEGER NOT NULL REFERENCES records(id), act_id INTEGER NOT NULL, off_by INTEGER,
            PRIMARY KEY (project_id, name, record_id)) WITHOUT ROWID;
        CREATE INDEX tags_record ON tags (record_id, name) WHERE off_by IS NULL;
        CREATE INDEX tags_given ON tags (project_id) WHERE name >= '@' AND name < 'A' AND off_by IS NULL;""",
    )


@migrations()
def m041_desk(db: SqliteUtils) -> None:
    """How a person has set up the desk: keys of their own, and whether a whole answer is approved by itself."""
    _execute(db, "ALTER TABLE reviewers ADD COLUMN desk TEXT")


@migrations()
def m042_notes(db: SqliteUtils) -> None:
    """Notes of people on records, of which the newest of each open thread is ``open``, and drafts of decisions."""
    _execute(
        db,
        """CREATE TABLE notes (
            id INTEGER PRIMARY KEY, thread INTEGER NOT NULL, project_id INTEGER NOT NULL, record_id INTEGER NOT NULL,
            task TEXT NOT NULL, reviewer_id INTEGER, to_id INTEGER, text TEXT NOT NULL, open INTEGER NOT NULL,
            request_key TEXT UNIQUE, created_at REAL NOT NULL);
        CREATE INDEX notes_record ON notes (record_id, task);
        CREATE INDEX notes_thread ON notes (thread);
        CREATE INDEX notes_project ON notes (project_id, id) WHERE open = 1;
        CREATE INDEX notes_waiting ON notes (to_id, project_id, task, record_id) WHERE open = 1;
        CREATE TABLE drafts (
            record_id INTEGER NOT NULL, task TEXT NOT NULL, reviewer_id INTEGER NOT NULL, version INTEGER NOT NULL,
            task_version TEXT NOT NULL, value TEXT NOT NULL, at REAL NOT NULL,
            PRIMARY KEY (record_id, task, reviewer_id)) WITHOUT ROWID;
        CREATE TRIGGER drafts_over AFTER UPDATE OF version ON work BEGIN
            DELETE FROM drafts WHERE record_id = new.record_id AND task = new.task AND version <> new.version; END""",
    )


@migrations()
def m043_by_hand(db: SqliteUtils) -> None:
    """A person's own decisions without what they made at once for many records, and a project's near-duplicates."""
    _execute(
        db,
        """DROP INDEX annotations_standing;
        CREATE INDEX annotations_standing ON annotations (reviewer_id, project_id, task, COALESCE(original_id, id))
            WHERE superseded_by IS NULL AND state <> 'withdrawn' AND how <> 'imported' AND how <> 'bulk';
        CREATE INDEX records_near ON records (project_id, cluster) WHERE cluster <> id;""",
    )


@migrations()
def m045_identities(db: SqliteUtils) -> None:
    """Who an account is at the company's provider: the e-mail that an admin entered, and whom it was linked to."""
    _execute(
        db,
        """ALTER TABLE reviewers ADD COLUMN email TEXT;
        ALTER TABLE reviewers ADD COLUMN issuer TEXT;
        ALTER TABLE reviewers ADD COLUMN subject TEXT;
        CREATE UNIQUE INDEX reviewers_email ON reviewers (email) WHERE email IS NOT NULL;
        CREATE UNIQUE INDEX reviewers_identity ON reviewers (issuer, subject) WHERE subject IS NOT NULL;""",
    )


def migrate(database: Database) -> list[str]:
    """Bring the schema up to date and return the names of the migrations that ran.

    An existing file is copied aside with VACUUM INTO first. Raises :class:`StoreNewer` for a schema of a newer
    program, :class:`StoreDamaged` for a file that is no database, :class:`StoreReadOnly` where nothing can be written.
    """
    path = database.path
    if not database.read_only:
        check_local(path)
    fresh = not path.exists()
    if fresh and database.read_only:
        raise StoreReadOnly(f"There is no database at {path} to open read-only")
    if fresh:
        check_new(path)
    elif not database.shared:
        _check_header(path)
    connection = database.connect()
    try:
        with mapped_errors(path):
            if not database.read_only:
                patiently(connection, "PRAGMA journal_mode = WAL")
            # sqlite-utils wants the driver's default transaction handling on the connections it is given.
            connection.isolation_level = "DEFERRED"
            db = SqliteUtils(connection, execute_plugins=False)
            known = {migration.name for migration in migrations.pending(SqliteUtils(memory=True))}
            newer = [done.name for done in migrations.applied(db) if done.name not in known]
            if newer:
                raise StoreNewer(
                    f"{path} was written by a newer version of Labeler (its schema has {newer[-1]}, this program "
                    f"knows up to {max(known)}); upgrade Labeler, or restore the backup made before"
                )
            pending = [migration.name for migration in migrations.pending(db)]
            if pending and database.read_only:
                raise StoreReadOnly(f"{path} needs the migration {pending[0]} and is open read-only")
            if pending:
                if not fresh and migrations.applied(db):
                    database.backup(_free_name(path, pending[0]))
                # One transaction for all of them. Its lock is taken before it is read again what is pending: a
                # server and a worker that start together must not both make the tables.
                patiently(connection, "BEGIN IMMEDIATE")
                pending = [migration.name for migration in migrations.pending(db)]
                migrations.apply(db)
                connection.execute("COMMIT")
            return pending
    finally:
        connection.close()


def _free_name(path: Path, migration: str) -> Path:
    """Return a name for the copy. With the process number: two processes may upgrade in the same second."""
    stem = f"{path.stem}.before-{migration}-{int(time.time())}-{os.getpid()}"
    names = (path.with_name(f"{stem}{f'-{n}' if n else ''}.db") for n in count())
    return next(name for name in names if not name.exists())


def check_new(path: Path) -> None:
    """Raise :class:`StoreDamaged` where a database is to be made and one has been: beside what belongs to it."""
    wal = path.with_name(path.name + "-wal")
    left = [path.with_name(name) for name in _BESIDE if path.with_name(name).exists()]
    left += [wal] if wal.exists() and wal.stat().st_size else []
    left += sorted(path.parent.glob(f"{path.stem}.before-*.db"))
    if left:
        names = ", ".join(one.name for one in left[:5])
        raise StoreDamaged(
            f"{path} is gone, but what belongs to it stands ({names}); restore a backup, or move these away to start "
            "again"
        )


def lost_rows(path: Path) -> str:
    """Return what says that the newest rows of a closed database are gone; empty if nothing does.

    The -shm tells how much of the -wal was written; both stay behind when a process is killed. To be asked before the
    database is opened, which makes them anew.
    """
    wal, shm = path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
    if not shm.exists():
        return ""
    if not wal.exists():
        return f"{shm.name} stands without {wal.name}: the newest rows were in that, and somebody removed it"
    with shm.open("rb") as stream:
        head = stream.read(20)
    if len(head) < 20:
        return ""
    # WalIndexHdr of sqlite3/wal.c: the page size (1 stands for 65536) and the last frame, in the order of this machine.
    page, frames = struct.unpack("=14xHI", head)
    wanted = 32 + frames * (24 + (65536 if page == 1 else page)) if frames else 0
    if wal.stat().st_size >= wanted:
        return ""
    return f"{wal.name} is cut off ({wal.stat().st_size:,} bytes of {wanted:,}): the newest rows were in the rest"


def _check_header(path: Path) -> None:
    head = _head(path)
    for _ in range(20):
        if head:
            break
        # Another process may be making it this very moment.
        time.sleep(0.05)
        head = _head(path)
    if not head:
        raise StoreDamaged(
            f"{path} is empty (0 bytes): its data is gone; restore a backup, or delete the file to start again"
        )
    if head[:16] != b"SQLite format 3\x00":
        raise StoreDamaged(
            f"{path} is not a database any more (its header is damaged); run 'labeler doctor' and restore a backup"
        )
    _check_size(path, head)


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(100)


def _check_size(path: Path, head: bytes) -> None:
    """A file that was cut off in its last page opens without a word; its header says how long it was."""
    wal = path.with_name(path.name + "-wal")
    counted = head[24:28] == head[92:96]
    # With a -wal a file may be shorter than it says: the rest stands in the -wal.
    if len(head) == 100 and counted and not (wal.exists() and wal.stat().st_size):
        page = int.from_bytes(head[16:18])
        wanted = int.from_bytes(head[28:32]) * (65536 if page == 1 else page)
        if path.stat().st_size < wanted:
            raise StoreDamaged(
                f"{path} is cut off: {path.stat().st_size:,} bytes of {wanted:,} are left; restore the newest backup"
            )
