"""The example index: one flat FAISS index per project and task, always equal to the approved annotations.

The annotations are a log; the index remembers the last one it took in (``seq``) and takes in the rest before each
search, so that an approval counts at the next search in every process. A record has one vector as long as its text
stays: when its annotation is corrected only the entry beside the vector changes, and when it is rejected or withdrawn,
or its value is one that the label schema of today refuses, the entry is dead. Only records of the task's unit are
examples: a product never speaks for a review, nor a review for a product. Clusters that are united since are a log too.

The file is a cache: missing, torn, older, or of another embedder, it is built again from the store; a vector of another
text is made again. The index of a task on products has none: it is small, and the texts of products change.

Flat on purpose: exact, and fast enough by far. HNSW with a selector was seen to fall to recall 0.5 silently.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from labeler import strictjson
from labeler.errors import LabelerError, LabelError
from labeler.memory import give_back
from labeler.records import Example, Record, Value
from labeler.retrieval.embedding import Embeddings
from labeler.store import Row, Store
from labeler.store.records import as_parts, kind_of
from labeler.task import GROUP, Task

log = logging.getLogger("labeler.retrieval")
_MAGIC = b"labeler-index-2\n"
_SAVE_EVERY = 1000
_MOST_READ = 20_000
# So many decisions are taken in while a page waits; more of them meanwhile.
_AT_ONCE = 500
# So many examples say where those of a label lie.
_ENOUGH = 2000
# Bytes of a text's hash that stand beside its vector: a chance of 2**-64 is none. In an entry they are hexadecimal.
_HASH = 8
# A file that is being saved is never so old; one of a killed process is.
_LEFT_BEHIND = 3600.0


@dataclass(slots=True)
class Entry:
    """What the index knows of an approved annotation beside its vector; of the hash of its text the beginning."""

    annotation_id: int
    record_id: int
    strata: tuple[str, ...]
    reviewer_id: int | None
    content_hash: str
    cluster: int | None
    group: str | None
    alive: bool = True


@dataclass(slots=True)
class _Stratum:
    """Which positions of the index are examples of one label: a bit for each, as FAISS reads them, and how many."""

    bits: bytearray = field(default_factory=bytearray)
    size: int = 0

    def put(self, position: int, member: bool) -> None:
        byte, bit = position >> 3, 1 << (position & 7)
        if byte >= len(self.bits):
            self.bits.extend(bytes(byte + 1 - len(self.bits)))
        if bool(self.bits[byte] & bit) is not member:
            self.bits[byte] ^= bit
            self.size += 1 if member else -1

    def selector(self) -> Any:
        """Return what limits a search to these positions. While it is in use, nothing may be put."""
        import faiss

        members = faiss.IDSelectorBitmap(np.frombuffer(self.bits, dtype=np.uint8))  # type: ignore[call-arg,arg-type]
        return faiss.SearchParameters(sel=members)  # type: ignore[call-arg]


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry with its place in the index and its cosine to the query, in [-1, 1]."""

    position: int
    entry: Entry
    similarity: float


@dataclass(frozen=True, slots=True)
class Query:
    """A record to find examples for. ``vector`` is float32 (d,), L2-normalised. Its own kind is never returned.

    ``seen`` keeps the longest plain result of each index, so that a retriever and the neighbours' vote search once. An
    index that knows of the decision ``seq`` does not look for newer ones: one look does for the records of one page.
    """

    vector: np.ndarray
    record_id: int = 0
    content_hash: str = ""
    cluster: int | None = None
    seq: int | None = None
    seen: dict[int, tuple[tuple[int, int], int, list[Hit]]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, record: Record, vector: np.ndarray, seq: int | None = None) -> Query:
        return cls(vector, record.id, record.content_hash, record.cluster, seq)

    def excludes(self, entry: Entry) -> bool:
        """The record itself, its exact and its near duplicates never stand in its own prompt."""
        return (
            entry.record_id == self.record_id
            or (bool(self.content_hash) and entry.content_hash == self.content_hash[: 2 * _HASH])
            or (self.cluster is not None and entry.cluster == self.cluster)
        )


class ExampleIndex:
    """Approved annotations of one project and task, searchable by vector. Safe for several threads."""

    def __init__(
        self, store: Store, project_id: int, task: Task, embeddings: Embeddings, folder: Path | None = None
    ) -> None:
        self.store, self.project_id, self.task, self.embeddings = store, project_id, task, embeddings
        digest = hashlib.sha256(embeddings.embedder.id.encode()).hexdigest()[:12]
        self.path = folder / f"{project_id}-{task.name}-{digest}.index" if folder else None
        self._lock = threading.RLock()
        self._catching_up: threading.Thread | None = None
        self._read_under = ""
        self._read: dict[int, Example | None] = {}
        self._united: dict[int, int] = {}
        self._united_seq = 0
        self._removals = 0
        self._clear()

    def _clear(self) -> None:
        self._unit = self.task.unit
        self.seq = 0
        self._faiss: Any = None
        self._entries: list[Entry] = []
        # Who approved an example since the log was read from its beginning.
        self.people: set[int] = set()
        self._position: dict[int, int] = {}
        self._members: dict[str, _Stratum] = defaultdict(_Stratum)
        # Many entries say the same: one object stands for all of them.
        self._same: dict[Any, Any] = {}
        self._alive = 0
        self._unsaved = 0

    def __len__(self) -> int:
        """How many approved examples there are."""
        return self._alive

    def use(self, task: Task) -> None:
        """Go on with the task as it is now: under another version other values may be examples. Vectors stay."""
        with self._lock:
            if task.version != self.task.version:
                self.seq = self._alive = 0
                self.people = set()
                self._members = defaultdict(_Stratum)
                self._entries = [_without_annotation(entry.record_id, entry.content_hash) for entry in self._entries]
            self.task = task

    def ready(self) -> bool:
        """Whether a search would answer at once; if not, what was decided is taken in meanwhile, in a thread.

        Right after a start, the vectors of all examples have to be read, or even made: no page may wait for that.
        """
        annotations, place = self.store.annotations, (self.project_id, self.task.name)
        latest, removals, _ = annotations.news(*place, self._united_seq)
        since = self.seq if removals == self._removals else 0
        if latest - since < _AT_ONCE or annotations.count_since(*place, since, _AT_ONCE) < _AT_ONCE:
            return True
        if self._catching_up is None or not self._catching_up.is_alive():
            # Two that start one at the same time do no harm: the second finds nothing left to do.
            self._catching_up = threading.Thread(target=self._catch_up, name="labeler-examples", daemon=True)
            self._catching_up.start()
        return False

    def _catch_up(self) -> None:
        try:
            self.refresh()
        except LabelerError as error:
            log.warning("The examples of task %s in project %d: %s", self.task.name, self.project_id, error)

    def refresh(self) -> int:
        """Take in every decision since the last time; return the sequence number reached."""
        # One small read when nothing is new, which is the common case.
        latest, removals, news = self.store.annotations.news(self.project_id, self.task.name, self._united_seq)
        united = self.store.clusters.united_since(self.project_id, self._united_seq) if news else []
        self._follow_removals(removals)
        if not united and self._faiss is not None and self._unit == self.task.unit and latest == self.seq:
            return self.seq
        with self._lock:
            if self._unit != self.task.unit:
                self._clear()
            before = len(self._entries)
            if self._faiss is None:
                self._open()
            while rows := self.store.annotations.since(self.project_id, self.task.name, self.seq):
                self._take_in(rows)
            self._unite(united)
            if self._unsaved >= _SAVE_EVERY:
                self.save()
            if len(self._entries) - before >= _SAVE_EVERY:
                give_back()
        return self.seq

    def _follow_removals(self, removals: int) -> None:
        """Forget all there is where records were removed since: the log does not say which."""
        if removals != self._removals:
            with self._lock:
                self._removals, self._read = removals, {}
                self._clear()

    def _unite(self, united: Sequence[Row]) -> None:
        """Rename the clusters that are now a part of another one."""
        for row in united:
            # A cluster whose first record was removed may have a name again that it lost once.
            self._united.pop(row["new"], None)
            self._united[row["old"]] = row["new"]
            self._united_seq = max(self._united_seq, row["id"])
        if united:
            for entry in self._entries:
                entry.cluster = self._cluster(entry.cluster)

    def _cluster(self, cluster: int | None) -> int | None:
        """Return what a cluster is called now."""
        while cluster in self._united:
            cluster = self._united[cluster]
        return cluster

    def counts(self) -> dict[str, int]:
        """Return how many examples each stratum has."""
        self.refresh()
        with self._lock:
            return {name: stratum.size for name, stratum in self._members.items() if stratum.size}

    def search(
        self, query: Query, k: int, stratum: str | None = None, accept: Callable[[Entry], bool] | None = None
    ) -> list[Hit]:
        """Return at most ``k`` hits, most similar first, of all examples or of one stratum."""
        plain = stratum is None and accept is None
        known = query.seq is not None and self._faiss is not None and self.seq >= query.seq
        at = (self.seq if known else self.refresh(), self._united_seq)
        if plain and id(self) in query.seen:
            before, longest, hits = query.seen[id(self)]
            if before == at and k <= longest:
                return hits[:k]
        found = self._search(self.current(query), k, stratum, accept)
        if plain:
            query.seen[id(self)] = (at, k, found)
        return found

    def current(self, query: Query) -> Query:
        """Return a query with the cluster that its record is in now; it may have been united since it was read."""
        cluster = self._cluster(query.cluster)
        return query if cluster == query.cluster else replace(query, cluster=cluster)

    def _search(self, query: Query, k: int, stratum: str | None, accept: Callable[[Entry], bool] | None) -> list[Hit]:
        with self._lock:
            members = self._members.get(stratum, _Stratum()) if stratum is not None else None
            available = self._alive if members is None else members.size
            if k <= 0 or available == 0:
                return []
            params = members.selector() if members is not None else None
            vector = np.ascontiguousarray(query.vector, dtype=np.float32).reshape(1, -1)
            # Excluded and dead entries are few: ask for a little more, and for much more only if that was not enough.
            wanted = k + 8
            while True:
                wanted = min(wanted, self._faiss.ntotal)
                scores, ids = self._faiss.search(vector, wanted, params=params)
                hits: list[Hit] = []
                for similarity, position in zip(scores[0].tolist(), ids[0].tolist(), strict=True):
                    # FAISS pads a short result with id -1.
                    if position < 0 or len(hits) == k:
                        break
                    entry = self._entries[position]
                    if entry.alive and not query.excludes(entry) and (accept is None or accept(entry)):
                        hits.append(Hit(position, entry, similarity))
                if len(hits) == k or wanted >= self._faiss.ntotal:
                    return hits
                wanted *= 8

    def excludes(self, record: Record, record_ids: Sequence[int]) -> bool:
        """Whether one of these records may not be an example of ``record`` by now: clusters unite as reviews come."""
        self.refresh()
        query = Query.of(record, self.vectors(()))
        with self._lock:
            places = [self._position[id_] for id_ in record_ids if id_ in self._position]
            return any(query.excludes(self._entries[place]) for place in places)

    def entries(self) -> list[tuple[int, Entry]]:
        """Return (position, entry) of all living entries, in the order they were first approved."""
        self.refresh()
        with self._lock:
            return [(position, entry) for position, entry in enumerate(self._entries) if entry.alive]

    def towards(self, stratum: str) -> np.ndarray | None:
        """Return where the examples of a label lie, seen from all others: float32 (d,), of length 1; None without any.

        The newest of either side are enough (after Rocchio 1971, relevance feedback).
        """
        sides: dict[bool, list[int]] = {True: [], False: []}
        for position, entry in reversed(self.entries()):
            sides[stratum in entry.strata].append(position)
        if not sides[True]:
            return None
        near, far = (self.vectors(sides[side][:_ENOUGH]) for side in (True, False))
        found = near.mean(axis=0) - (far.mean(axis=0) if len(far) else 0.0)
        return np.asarray(found / max(float(np.linalg.norm(found)), 1e-9), dtype=np.float32)

    def vectors(self, positions: Sequence[int]) -> np.ndarray:
        """Return float32 (len(positions), d) of entries by position."""
        with self._lock:
            if not len(positions):
                return np.zeros((0, self.embeddings.embedder.dim), dtype=np.float32)
            return np.asarray(self._faiss.reconstruct_batch(np.asarray(positions, dtype=np.int64)))

    def examples(self, hits: Sequence[Hit]) -> list[Example]:
        """Return the hits as examples.

        An annotation never changes, so its text and value are read once and kept, as long as the task stays the same;
        whether it still holds is what the index knows since its last search.
        """
        with self._lock:
            if self._read_under != self.task.version:
                self._read_under, self._read = self.task.version, {}
            if len(self._read) > _MOST_READ:
                self._read = {}
            known = self._read
        unread = [hit.entry.annotation_id for hit in hits if hit.entry.annotation_id not in known]
        if unread:
            found = {row["id"]: self._example(row) for row in self.store.annotations.examples(unread).values()}
            known.update((id_, found.get(id_)) for id_ in unread)
        examples = ((hit, known[hit.entry.annotation_id]) for hit in hits)
        return [_at(example, hit.similarity) for hit, example in examples if example is not None]

    def _example(self, row: Row) -> Example | None:
        try:
            value = _offered(self.task, row, row["text"])
        except LabelError:
            return None
        return Example(
            annotation_id=row["id"],
            record_id=row["record_id"],
            text=row["text"],
            value=value,
            similarity=0.0,
            reviewer=row["reviewer"] or "",
            approved_at=row["created_at"],
            metadata=strictjson.loads(row["metadata"]),
            parts=as_parts(row["parts"]),
        )

    def rebuild(self) -> None:
        """Forget all there is, the file too, and make it again from the store."""
        with self._lock:
            self._clear()
            if self.path is not None:
                self.path.unlink(missing_ok=True)
            self.refresh()
            self.save()

    def save(self) -> None:
        """Write the cache file: to a temporary name, then renamed, so that a reader sees the old or the new one."""
        if self.path is None or self._faiss is None or self._unit == GROUP:
            return
        import faiss

        with self._lock:
            if self._removals != self.store.annotations.removals(self.project_id):
                return
            # No copies: with many examples each would be hundreds of megabytes.
            vectors = faiss.serialize_index(self._faiss).data
            records = np.asarray([entry.record_id for entry in self._entries], dtype="<i8").tobytes()
            records += b"".join(bytes.fromhex(entry.content_hash) for entry in self._entries)
            self._unsaved = 0
            seq = self.seq
        checksum = hashlib.sha256(records)
        checksum.update(vectors)
        head = {
            "embedder": self.embeddings.embedder.id, "dim": self.embeddings.embedder.dim, "seq": seq,
            "removals": self._removals,
            "records": len(records), "vectors": len(vectors),
            "sha256": checksum.hexdigest(),
        }  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            with partial.open("wb") as stream:
                stream.writelines([_MAGIC, json.dumps(head).encode(), b"\n", records, vectors])
            partial.replace(self.path)
            self._clear_up(self.path)
        except OSError:
            # Only a cache: a full disk must not stop an approval.
            partial.unlink(missing_ok=True)

    @staticmethod
    def _clear_up(path: Path) -> None:
        """Remove what killed processes left half written beside the file."""
        for left in path.parent.glob(f"{path.stem}.*.tmp"):
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND:
                left.unlink(missing_ok=True)

    # Below: callers hold the lock.

    def _open(self) -> None:
        import faiss

        loaded = self._read_file()
        if loaded is not None:
            self._faiss, known, until = loaded
            for position, (record_id, text_hash) in enumerate(known):
                self._position[record_id] = position
                self._entries.append(_without_annotation(record_id, text_hash))
            # The file holds vectors only; what was decided is read from the log, which is small without vectors.
            while self.seq < until:
                rows = self.store.annotations.since(self.project_id, self.task.name, self.seq)
                if not rows:
                    break
                self._take_in(rows)
            self._unsaved = 0
        else:
            self._faiss = faiss.IndexFlatIP(self.embeddings.embedder.dim)

    def ahead(self) -> int:
        """Return by how many rows of the log the file is ahead of the database: they were lost with its newest rows."""
        try:
            head = json.loads(self.path.read_bytes()[len(_MAGIC) :].split(b"\n", 1)[0]) if self.path else {}
            return max(0, int(head["seq"]) - self.store.annotations.latest_seq(self.project_id, self.task.name))
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _read_file(self) -> tuple[Any, list[tuple[int, str]], int] | None:
        """Return the vectors, of which record and of which text (its hash) each is, and how far the log was read."""
        import faiss

        if self.path is None or self._unit == GROUP:
            return None
        try:
            data = self.path.read_bytes()
            if not data.startswith(_MAGIC):
                return None
            end = data.index(b"\n", len(_MAGIC))
            head = json.loads(data[len(_MAGIC) : end])
            body = memoryview(data)[end + 1 :]
            whole = len(body) == head["records"] + head["vectors"]
            same = head["embedder"] == self.embeddings.embedder.id and head["dim"] == self.embeddings.embedder.dim
            known = head["seq"] <= self.store.annotations.latest_seq(self.project_id, self.task.name)
            known = known and head.get("removals", 0) == self._removals
            if not (whole and same and known) or hashlib.sha256(body).hexdigest() != head["sha256"]:
                return None
            index = faiss.deserialize_index(np.frombuffer(body[head["records"] :], dtype=np.uint8))
            count = head["records"] // (8 + _HASH)
            record_ids = np.frombuffer(body[: 8 * count], dtype="<i8").tolist()
            hashes = body[8 * count : head["records"]].hex()
            if index.ntotal != count or index.d != head["dim"]:
                return None
            width = 2 * _HASH
            known = [(id_, hashes[n * width : (n + 1) * width]) for n, id_ in enumerate(record_ids)]
            return index, known, head["seq"]
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            return None

    def _take_in(self, rows: Sequence[Row]) -> None:
        fresh = [row for row in rows if self._counts(row) and not self._has_vector(row)]
        new_ids = list(dict.fromkeys(row["record_id"] for row in fresh))
        if new_ids:
            records = self.store.records.many(new_ids)
            ids = [id_ for id_ in new_ids if id_ in records]
            vectors = self.embeddings.vectors([(id_, records[id_].text) for id_ in ids])
            self._faiss.add(vectors)
            for id_ in ids:
                self._bury(self._position.get(id_))
                self._position[id_] = len(self._entries)
                self._entries.append(_without_annotation(id_, records[id_].content_hash))
        for row in rows:
            self._apply(row)
            self.seq = row["id"]
        self._unsaved += len(rows)

    def _has_vector(self, row: Row) -> bool:
        """Whether there is a vector of this record, and of its text as it is now.

        After a restored backup another record may have got the number; a product's text may have changed.
        """
        position = self._position.get(row["record_id"])
        return position is not None and self._entries[position].content_hash == row["content_hash"][: 2 * _HASH]

    def _bury(self, position: int | None) -> None:
        """Let the entry at a position be no example any more."""
        if position is None or not self._entries[position].alive:
            return
        entry = self._entries[position]
        entry.alive = False
        self._alive -= 1
        for name in entry.strata:
            self._members[name].put(position, False)

    def _counts(self, row: Row) -> bool:
        """Whether a decision makes an example: approved, on a record of the unit that the task labels now.

        What a model wrote is none: the free suggestions would learn how often labels are from what was asked for.
        """
        return bool(row["state"] == "approved" and row["kind"] == kind_of(self._unit) and not row["written"])

    def _apply(self, row: Row) -> None:
        position = self._position.get(row["record_id"])
        if position is None:
            return
        self._bury(position)
        strata = self._strata(row)
        if strata is None:
            return
        self._alive += 1
        if row["reviewer_id"] is not None:
            self.people.add(row["reviewer_id"])
        for name in strata:
            self._members[name].put(position, True)
        same, before, cluster = self._same, self._entries[position], self._cluster(row["cluster"])
        self._entries[position] = Entry(
            row["id"], before.record_id, same.setdefault(strata, strata), row["reviewer_id"], before.content_hash,
            before.record_id if cluster == before.record_id else cluster, same.setdefault(row["grp"], row["grp"]),
        )  # fmt: skip

    def _strata(self, row: Row) -> tuple[str, ...] | None:
        """Return what an approval counts as; None for one that is no example: rejected, or of an older label."""
        if not self._counts(row):
            return None
        try:
            return self.task.schema.strata(_offered(self.task, row))
        except LabelError:
            return None


def _offered(task: Task, row: Row, text: str | None = None) -> Value:
    """Return a value in the labels of today, if a model may give it too: none that is retired."""
    return task.schema.parse(task.read(strictjson.loads(row["value"]), row["task_version"], text), text)


def _without_annotation(record_id: int, content_hash: str) -> Entry:
    return Entry(0, record_id, (), None, content_hash[: 2 * _HASH], None, None, alive=False)


def _at(e: Example, similarity: float) -> Example:
    # dataclasses.replace takes ten times as long, and this is done for every example of every prompt.
    return Example(
        e.annotation_id, e.record_id, e.text, e.value, similarity, e.reviewer, e.approved_at, e.metadata, e.parts
    )  # fmt: skip
