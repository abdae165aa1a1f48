"""Records: what was imported, their exact and near duplicates, and imports. Products have a room of their own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from labeler import strictjson
from labeler.errors import Conflict, NotFound
from labeler.records import Part, Record
from labeler.store.counts import GOING, RECORDS, WORK, Counts, count
from labeler.store.database import Database, Row, Tx
from labeler.store.search import index_tokens, search_tokens
from labeler.text import content_hash, guess_language

REVIEW, GROUP = "review", "group"
ADDED, KNOWN, OTHER_TEXT = "added", "known", "other_text"
# Of a record "r" and a task's row "q" of the table queued.
OTHER_UNIT = "(q.unit = 'group') <> (r.kind = 'group')"
REAL = "NOT EXISTS (SELECT 1 FROM written v WHERE v.record_id = r.id)"
"""Of a record "r": a customer wrote it, and no model. What is measured or learned here is of such records alone."""
DEAD = 120.0
"""Seconds after which an import that nobody has touched belongs to nobody."""
# As much of a hash as the index of copies holds; nearly all records differ in it.
_HEAD = "substr(content_hash, 1, 8)"
_ORIGINAL = f"""SELECT id, duplicate_of FROM records WHERE project_id = :p AND {_HEAD} = substr(:hash, 1, 8)
                AND +content_hash = :hash AND kind = 'review'
                AND id NOT IN (SELECT record_id FROM written WHERE record_id IS NOT NULL) ORDER BY +id LIMIT 1"""
_CLAIMABLE = "FROM imports WHERE state = 'queued' OR (state = 'running' AND alive_at < :dead)"
_MOST_VARIABLES = 500
_MOST_EXAMPLES = 3


def unused(table: str) -> str:
    """Return SQL for the next number of a table: none is given twice, also when the newest rows were removed."""
    return f"""1 + MAX(COALESCE((SELECT MAX(id) FROM {table}), 0),
                       COALESCE((SELECT highest FROM used_numbers WHERE name = '{table}'), 0))"""


def kind_of(unit: str) -> str:
    """Return the kind of record that a task of this unit labels."""
    return GROUP if unit == "group" else REVIEW


class NewRecord(NamedTuple):
    """A record on its way in. What JSON does not know in the metadata, such as a date, is stored as text."""

    key: str
    text: str
    group: str | None = None
    metadata: dict[str, Any] | None = None
    kind: str = REVIEW
    parts: Sequence[Part] = ()


class Ready(NamedTuple):
    """A new record as it is stored, with what is computed from it, so that no transaction waits for that."""

    key: str
    text: str
    language: str
    group: str | None
    metadata: str
    digest: str
    kind: str
    parts: str | None
    tokens: str


def ready(rows: Sequence[NewRecord]) -> list[Ready]:
    """Return records with their content hashes, the words that a search finds them by, and their metadata as JSON."""
    return [
        Ready(
            new.key, new.text, guess_language(new.text), new.group,
            strictjson.dumps(new.metadata, default=str) if new.metadata else "{}",
            content_hash(new.text), new.kind, strictjson.dumps(new.parts) if new.parts else None, tokens,
        )
        for new, tokens in zip(rows, search_tokens([new.text for new in rows]), strict=True)
    ]  # fmt: skip


class Stored(NamedTuple):
    """What became of a new record: ``outcome`` is "added", "known" (nothing new) or "other_text" (refused).

    ``kind`` is that of the record that stands under its key.
    """

    id: int
    outcome: str
    duplicate_of: int | None = None
    kind: str = REVIEW


class Records:
    def __init__(self, db: Database) -> None:
        self.db = db

    def get(self, record_id: int, tx: Tx | None = None) -> Record:
        """Return a record. Raises :class:`NotFound`, or :class:`Conflict` for one that was removed."""
        row = (tx or self.db).one("SELECT * FROM records WHERE id = :id", {"id": record_id})
        if row is None:
            highest = self.db.value("SELECT highest FROM used_numbers WHERE name = 'records'")
            if 0 < record_id <= (highest or 0):
                # For the page as if its text had changed: nothing can be decided on it, whatever is forced.
                raise Conflict("This record was removed meanwhile", {"text_changed": True, "removed": True})
            raise NotFound("There is no record number %(number)s", number=record_id)
        return as_record(row)

    def many(self, record_ids: Sequence[int], tx: Tx | None = None) -> dict[int, Record]:
        """Return the records by id; unknown ids are left out."""
        found: dict[int, Record] = {}
        for start in range(0, len(record_ids), 500):
            slice_ = record_ids[start : start + 500]
            marks = ",".join("?" * len(slice_))
            for row in (tx or self.db).all(f"SELECT * FROM records WHERE id IN ({marks})", list(slice_)):
                found[row["id"]] = as_record(row)
        return found

    def metadata(self, record_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return the metadata of records by id, without their texts."""
        return {id_: strictjson.loads(found) for id_, found in self._of("metadata", record_ids)}

    def texts(self, record_ids: Sequence[int]) -> dict[int, str]:
        """Return the texts of records by id, without their metadata."""
        return dict(self._of("text", record_ids))

    def _of(self, column: str, record_ids: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for start in range(0, len(record_ids), _MOST_VARIABLES):
            part = record_ids[start : start + _MOST_VARIABLES]
            marks = ",".join("?" * len(part))
            for row in self.db.all(f"SELECT id, {column} FROM records WHERE id IN ({marks})", list(part)):
                yield row["id"], row[column]

    def columns(self, project_id: int) -> dict[str, list[str]]:
        """Return the columns of a project's metadata with some of their values, as far as a part of its reviews tells.

        Looked at are the first reviews of the newest imports, as one file has the same columns as a rule, and some that
        a hash spreads over the whole project: as many whether there are thousands or millions.
        """
        newest = "SELECT id FROM imports WHERE project_id = :p ORDER BY id DESC LIMIT 20"
        of_import = "SELECT metadata FROM records WHERE import_id = :i ORDER BY id LIMIT 20"
        spread = f"""SELECT metadata FROM records WHERE project_id = :p AND kind = 'review'
                     ORDER BY {_HEAD} LIMIT 300"""
        imports = self.db.all(newest, {"p": project_id})
        rows = [row for one in imports for row in self.db.all(of_import, {"i": one["id"]})]
        rows += self.db.all(spread, {"p": project_id})
        found: dict[str, dict[str, None]] = {}
        for row in rows:
            for name, value in strictjson.loads(row["metadata"]).items():
                values = found.setdefault(name, {})
                if len(values) < _MOST_EXAMPLES and value not in (None, "", [], {}):
                    values[value if isinstance(value, str) else strictjson.dumps(value)] = None
        return {name: list(values) for name, values in sorted(found.items())}

    def by_key(self, project_id: int, key: str) -> Record | None:
        row = self.db.one("SELECT * FROM records WHERE project_id = :p AND key = :k", {"p": project_id, "k": key})
        return as_record(row) if row else None

    def counts(self, project_id: int) -> dict[str, int]:
        """Return how many reviews there are, how many of them are exact copies, and of how many products they are."""
        n = Counts(self.db).of(RECORDS, project_id)
        names = {"records": REVIEW, "duplicates": "duplicate", "groups": "product"}
        return {name: n.get(kept, 0) for name, kept in names.items()}

    def near_duplicates(self, project_id: int) -> int:
        """Return how many records resemble an earlier one without being its exact copy."""
        return Counts(self.db).of(RECORDS, project_id).get("near", 0)

    def pages(self, project_id: int, kind: str = REVIEW, size: int = 1000) -> Iterator[list[Record]]:
        """Yield the records that can be labelled (exact duplicates are not), oldest first, in pages."""
        # The plus keeps SQLite from an index of the project, which it would have to sort for each page.
        sql = """SELECT * FROM records WHERE +project_id = :p AND kind = :kind AND duplicate_of IS NULL
                 AND id > :after ORDER BY id LIMIT :size"""
        for rows in self.db.pages(sql, {"p": project_id, "kind": kind}, size):
            yield [as_record(row) for row in rows]

    def add(
        self, tx: Tx, project_id: int, rows: Sequence[NewRecord], tasks: Sequence[str], import_id: int | None = None
    ) -> list[Stored]:
        """Store a slice of records and queue them for ``tasks``: see :meth:`add_ready`."""
        return self.add_ready(tx, project_id, ready(rows), tasks, import_id)

    def add_ready(
        self, tx: Tx, project_id: int, rows: Sequence[Ready], tasks: Sequence[str], import_id: int | None = None
    ) -> list[Stored]:
        """Store a slice of records and queue them for ``tasks``; return what became of each, in order.

        An exact duplicate (equal content hash) is stored, linked, and not queued: its label is its original's. The
        others are marked: their near-duplicates are to be looked for, and the texts of their products made again.
        """
        known = {
            row["key"]: (row["id"], row["text"], row["duplicate_of"], row["kind"])
            for row in _found(tx, "id, key, text, duplicate_of, kind", "key", project_id, [row.key for row in rows])
        }
        # Also of those that come in here.
        first = _originals(tx, project_id, [row.digest for row in rows])
        stored, added, next_id = list[Stored](), list[Placed](), next_number(tx)
        for row in rows:
            if row.key in known:
                id_, text, duplicate_of, kind = known[row.key]
                stored.append(Stored(id_, KNOWN if text == row.text else OTHER_TEXT, duplicate_of, kind))
                continue
            original, cluster = first.get(row.digest, (None, next_id)) if row.kind == REVIEW else (None, next_id)
            added.append(Placed(next_id, row, original, cluster))
            stored.append(Stored(next_id, ADDED, original, row.kind))
            known[row.key] = next_id, row.text, original, row.kind
            if row.kind == REVIEW:
                first.setdefault(row.digest, (next_id, cluster))
            next_id += 1
        insert(tx, project_id, added, import_id)
        alone = [one for one in added if one.original is None]
        _enqueue_new(tx, project_id, alone, tasks)
        unsigned = [(project_id, one.id) for one in alone if one.row.kind == REVIEW]
        tx.insert("unsigned_reviews", "project_id, record_id", unsigned)
        groups = {one.row.group for one in added if one.row.group is not None and one.row.kind == REVIEW}
        mark_products(tx, project_id, sorted(groups))
        return stored

    def standing(self, project_id: int, key: str, tx: Tx | None = None) -> Row | None:
        """Return id, kind, text and duplicate_of of the record that has a key, or None."""
        sql = "SELECT id, kind, text, duplicate_of FROM records WHERE project_id = :p AND key = :k"
        return (tx or self.db).one(sql, {"p": project_id, "k": key})

    def original(self, project_id: int, key: str, digest: str) -> int | None:
        """Return the record that a row labels: the one with its key, or the first review of its content hash."""
        known = self.standing(project_id, key) or self.db.one(_ORIGINAL, {"p": project_id, "hash": digest})
        return None if known is None else int(known["duplicate_of"] or known["id"])

    # Imports

    def start_import(
        self, tx: Tx, project_id: int, file: str, settings: dict[str, Any], reviewer_id: int | None, size: int,
        state: str = "running",
    ) -> int:  # fmt: skip
        """Write down an import and return its number; ``queued`` waits for a worker, ``running`` is the caller's."""
        sql = """INSERT INTO imports (project_id, file, settings, state, size, reviewer_id, created_at, alive_at)
                 VALUES (:p, :file, :settings, :state, :size, :r, :now, :now) RETURNING id"""
        params = {"p": project_id, "file": file, "settings": strictjson.dumps(settings), "size": size, "state": state}
        return int(tx.value(sql, params | {"r": reviewer_id, "now": time.time()}))

    def progress_import(self, tx: Tx, import_id: int, columns: dict[str, Any], token: str | None = None) -> None:
        """Write how far an import is: any of state, position, added, known, duplicates, refused, labels, report...

        With ``token``, the one of its claim, only while the import is still the caller's. Raises :class:`Conflict` if
        another worker has taken it over.
        """
        columns = {**columns, "alive_at": time.time()}
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        mine = "" if token is None else " AND state = 'running' AND token = :mine"
        params = {**columns, "id": import_id} | ({} if token is None else {"mine": token})
        if not tx.run(f"UPDATE imports SET {assignments} WHERE id = :id{mine}", params) and token is not None:
            raise Conflict(
                "Another worker has taken over import %(number)s; this one writes nothing more", number=import_id
            )

    def waits_import(self) -> bool:
        """Whether there is an import to be claimed."""
        return self.db.value(f"SELECT 1 {_CLAIMABLE} LIMIT 1", {"dead": time.time() - DEAD}) is not None

    def claim_import(self, tx: Tx) -> dict[str, Any] | None:
        """Take the oldest import that waits, or that a dead worker left (no sign of life for two minutes).

        ``token`` in what is returned proves the claim; whoever had the import before can write nothing more of it.
        """
        now = time.time()
        sql = f"""UPDATE imports SET state = 'running', alive_at = :now, token = :token WHERE id = (
                   SELECT id {_CLAIMABLE} ORDER BY id LIMIT 1) RETURNING *"""
        row = tx.one(sql, {"now": now, "dead": now - DEAD, "token": secrets.token_hex(8)})
        if row is None:
            return None
        return {**dict(row), **strictjson.loads(row["settings"])}

    def is_importing(self, project_id: int) -> bool:
        """Whether a file comes in just now."""
        sql = "SELECT 1 FROM imports WHERE project_id = :p AND state = 'running' AND alive_at >= :dead"
        return self.db.value(sql, {"p": project_id, "dead": time.time() - DEAD}) is not None

    def get_import(self, project_id: int, import_id: int, tx: Tx | None = None) -> Row:
        """Return an import. Raises :class:`NotFound`."""
        sql = "SELECT * FROM imports WHERE project_id = :p AND id = :id"
        row = (tx or self.db).one(sql, {"p": project_id, "id": import_id})
        if row is None:
            raise NotFound("There is no import number %(number)s in this project", number=import_id)
        return row

    def imports(self, project_id: int, limit: int = 20) -> list[Row]:
        sql = "SELECT * FROM imports WHERE project_id = :p ORDER BY id DESC LIMIT :limit"
        return self.db.all(sql, {"p": project_id, "limit": limit})


def as_record(row: Row) -> Record:
    return Record(
        id=row["id"],
        project_id=row["project_id"],
        key=row["key"],
        text=row["text"],
        language=row["language"],
        group=row["grp"],
        metadata=strictjson.loads(row["metadata"]),
        content_hash=row["content_hash"],
        cluster=row["cluster"],
        parts=as_parts(row["parts"]),
    )


def as_parts(stored: str | None) -> tuple[Part, ...]:
    """Return the named parts of a text as they are stored with it."""
    return tuple((title, start, end) for title, start, end in strictjson.loads(stored)) if stored else ()


class Placed(NamedTuple):
    """A record that is to be stored under a number."""

    id: int
    row: Ready
    original: int | None
    cluster: int


def next_number(tx: Tx) -> int:
    """Return the number of the next record."""
    return int(tx.value(f"SELECT {unused('records')}"))


def insert(tx: Tx, project_id: int, rows: Sequence[Placed], import_id: int | None = None) -> None:
    """Store records, so that a search finds them."""
    columns = """id, project_id, key, text, language, grp, metadata, content_hash, kind, parts, duplicate_of, \
cluster, import_id, created_at"""
    now = time.time()
    _count(tx, project_id, rows, import_id)
    # The tokens of a row, its last part, go into the search.
    tx.insert("records", columns, [
        (id_, project_id, *row[:-1], original, cluster, import_id, now) for id_, row, original, cluster in rows
    ])  # fmt: skip
    index_tokens(tx, [(one.id, one.row.tokens) for one in rows])


def _count(tx: Tx, project_id: int, rows: Sequence[Placed], import_id: int | None) -> None:
    """Count records that are about to be stored."""
    reviews = [one for one in rows if one.row.kind == REVIEW]
    copies = sum(one.original is not None for one in reviews)
    near = sum(one.original is None and one.cluster != one.id for one in reviews)
    groups = {one.row.group for one in reviews} - {None}
    known = """SELECT COUNT(*) FROM json_each(:groups) g WHERE EXISTS (SELECT 1 FROM records r
               WHERE r.project_id = :p AND r.grp = g.value AND r.kind = 'review')"""
    products = len(groups) - int(tx.value(known, {"groups": strictjson.dumps(list(groups)), "p": project_id}))
    counts = {REVIEW: len(reviews), GROUP: len(rows) - len(reviews), "duplicate": copies, "near": near}
    for name, n in {**counts, "product": products}.items():
        count(tx, RECORDS, project_id, name, n)
    for kind in (REVIEW, GROUP):
        count(tx, GOING, project_id, "record", counts[kind], kind if import_id is None else str(import_id))
    count(tx, GOING, project_id, "copy", copies, REVIEW if import_id is None else str(import_id))


def mark_products(tx: Tx, project_id: int, groups: Sequence[str]) -> None:
    """Note that the texts of products are to be made again from their reviews."""
    rows = [(project_id, group) for group in groups]
    tx.insert("stale_products", "project_id, grp", rows, "ON CONFLICT DO NOTHING")


def enqueue(tx: Tx, project_id: int, record_ids: Sequence[int], tasks: Sequence[str]) -> None:
    """Queue records for tasks; those already there stay as they are.

    A record that comes back begins with a version that nobody has seen, if its text has changed meanwhile. A task that
    labels the other unit by now gets none: whoever queues may have read its settings a long import ago.
    """
    sql = f"""INSERT INTO work (record_id, task, project_id, shuffle, version, text_version)
              SELECT r.id, :t, :p, json_extract(j.value, '$[1]'), r.version, r.version
              FROM json_each(:rows) j JOIN records r ON r.id = json_extract(j.value, '$[0]')
              WHERE NOT EXISTS (SELECT 1 FROM queued q WHERE q.project_id = r.project_id AND q.task = :t
                                AND {OTHER_UNIT}) ON CONFLICT DO NOTHING"""
    rows = strictjson.dumps([(id_, shuffle(id_)) for id_ in record_ids])
    for task in tasks:
        queued = tx.run(sql, {"t": task, "p": project_id, "rows": rows})
        count(tx, WORK, project_id, "pending", queued, task)


def _enqueue_new(tx: Tx, project_id: int, rows: Sequence[Placed], tasks: Sequence[str]) -> None:
    """Queue records that were just stored for tasks, as :func:`enqueue` would: nobody knows another version of them."""
    other = f"""SELECT 1 FROM queued q, (SELECT :kind AS kind) r
                WHERE q.project_id = :p AND q.task = :t AND {OTHER_UNIT}"""
    for kind, task in product(dict.fromkeys(one.row.kind for one in rows), tasks):
        if tx.one(other, {"kind": kind, "p": project_id, "t": task}) is None:
            new = [(one.id, task, project_id, shuffle(one.id), 0, 0) for one in rows if one.row.kind == kind]
            queued = tx.insert("work", "record_id, task, project_id, shuffle, version, text_version", new)
            count(tx, WORK, project_id, "pending", queued, task)


def shuffle(record_id: int) -> int:
    """Return a fixed pseudo-random place of a record in the random queue order (a 31-bit mix of its id)."""
    mixed = (record_id * 0x9E3779B1) & 0xFFFFFFFF
    mixed ^= mixed >> 15
    return (mixed * 0x85EBCA77 & 0xFFFFFFFF) >> 1


def _found(tx: Tx, columns: str, where: str, project_id: int, values: Sequence[str]) -> Iterator[Row]:
    """Yield the records of a project in which the column ``where``, or what is made of it, is one of the values."""
    sql = f"SELECT {columns} FROM records WHERE project_id = ? AND {where} IN (SELECT value FROM json_each(?))"
    yield from tx.all(sql, (project_id, strictjson.dumps(list(values))))


def _originals(tx: Tx, project_id: int, hashes: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return number and cluster of the first review of each content hash that is there."""
    first: dict[str, tuple[int, int]] = {}
    columns = "id, content_hash, cluster, kind, EXISTS (SELECT 1 FROM written v WHERE v.record_id = records.id) AS made"
    for row in _found(tx, columns, _HEAD, project_id, [hash_[:8] for hash_ in hashes]):
        known = first.get(row["content_hash"])
        # A review is no copy of what a model wrote before: its label is its own.
        if row["kind"] == REVIEW and not row["made"] and (known is None or row["id"] < known[0]):
            first[row["content_hash"]] = row["id"], row["cluster"]
    return first
