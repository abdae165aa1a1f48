"""Products: one record for all reviews of a product (kind ``group``), whose text is made from these reviews.

Reviews that come in mark their product, in their own transaction; :meth:`Products.renew` makes the text and takes the
mark away in one transaction as well, so that whatever is killed in between, nothing is forgotten. A product that
somebody has labelled keeps the text that was labelled; a decision that is taken back marks it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

from labeler import strictjson
from labeler.store.ballots import OPEN
from labeler.store.database import Database, Row, Tx
from labeler.store.journal import Events
from labeler.store.records import GROUP, NewRecord, Placed, enqueue, insert, mark_products, next_number, ready
from labeler.store.search import replace_text
from labeler.text import content_hash, guess_language

LONGEST = 100_000
"""The most characters of a product's text. Only a single review may make it a little longer."""
_LONGEST_NAME = 180
_LABELLED = f"""(EXISTS (SELECT 1 FROM annotations a WHERE a.record_id = r.id AND a.superseded_by IS NULL
                 AND a.state <> 'withdrawn')
               OR EXISTS (SELECT 1 FROM ballots b WHERE b.record_id = r.id AND {OPEN}))"""


class Derived(NamedTuple):
    """What a product's record should hold: its reviews, one a line, and how many there are and are shown."""

    text: str
    metadata: dict[str, Any]


class Products:
    def __init__(self, db: Database) -> None:
        self.db = db

    def stale(self, project_id: int) -> list[str]:
        """Return the products whose text is to be made again, by age."""
        sql = """SELECT s.grp FROM stale_products s WHERE s.project_id = :p ORDER BY (
                   SELECT MIN(r.id) FROM records r WHERE r.project_id = s.project_id AND r.grp = s.grp)"""
        return [row["grp"] for row in self.db.all(sql, {"p": project_id})]

    def any_stale(self, project_id: int) -> bool:
        sql = "SELECT 1 FROM stale_products WHERE project_id = :p LIMIT 1"
        return self.db.value(sql, {"p": project_id}) is not None

    def renew(self, tx: Tx, project_id: int, group: str, tasks: Sequence[str]) -> bool:
        """Make or renew the record of a marked product and queue it for ``tasks``; return whether one was made.

        Does nothing for a product that is not marked (any more). Whoever has a product open while its text changes is
        refused at the decision, since the version of its rows rises; suggestions and vectors of the old text go.
        """
        if not tx.run("DELETE FROM stale_products WHERE project_id = :p AND grp = :g", {"p": project_id, "g": group}):
            return False
        derived = self.derived(project_id, group, tx)
        if derived is None:
            return False
        sql = f"SELECT r.*, {_LABELLED} AS labelled FROM records r WHERE {_PRODUCT}"
        known = tx.one(sql, {"p": project_id, "g": group})
        if known is None:
            new = NewRecord(_free_key(tx, project_id, group), derived.text, group, derived.metadata, kind=GROUP)
            id_ = next_number(tx)
            insert(tx, project_id, [Placed(id_, ready([new])[0], None, id_)])
        else:
            id_ = known["id"]
            if not known["labelled"]:
                self._rewrite(tx, known, derived)
        enqueue(tx, project_id, [id_], tasks)
        return known is None

    def _rewrite(self, tx: Tx, known: Row, derived: Derived) -> None:
        metadata = strictjson.dumps(derived.metadata)
        params = {"r": known["id"], "text": derived.text, "meta": metadata}
        if known["metadata"] != metadata:
            tx.run("UPDATE records SET metadata = :meta WHERE id = :r AND kind = 'group'", params)
        if known["text"] == derived.text:
            return
        # A number that no row of it ever had: whoever has seen an older one has seen another text.
        seen = tx.value("SELECT MAX(version) FROM work WHERE record_id = :r", params)
        version = 1 + max(known["version"], seen or 0)
        params |= {"v": version, "hash": content_hash(derived.text), "language": guess_language(derived.text)}
        tx.run(
            """UPDATE records SET text = :text, content_hash = :hash, language = :language, version = :v
               WHERE id = :r AND kind = 'group'""",
            params,
        )
        # Nobody has labelled it, so every row is pending.
        tx.run(
            """UPDATE work SET version = :v, text_version = :v, suggestion_id = NULL, score = NULL, disagreement = NULL
               WHERE record_id = :r""",
            params,
        )
        tx.run(
            """INSERT INTO dropped_vectors (embedder, record_id) SELECT embedder, record_id FROM embeddings
               WHERE record_id = :r ON CONFLICT DO NOTHING""",
            params,
        )
        tx.run("DELETE FROM embeddings WHERE record_id = :r", params)
        replace_text(tx, known["id"], known["text"], derived.text)
        detail = {"version": version, **derived.metadata}
        Events(self.db).add(tx, "text renewed", project_id=known["project_id"], record_id=known["id"], detail=detail)

    def derived(self, project_id: int, group: str, tx: Tx | None = None) -> Derived | None:
        """Return what a product's record should hold now; None if it has no reviews.

        Exact copies among its own reviews count once; those of other products do not matter. Where the reviews are too
        long together the newest are shown, as many as fit, and each of them whole.
        """
        db = tx or self.db
        # The plus has SQLite read the product alone, not the whole project by its index of hashes.
        sql = """SELECT MIN(id) AS id FROM records WHERE project_id = :p AND grp = :g AND kind = 'review'
                 GROUP BY +content_hash ORDER BY 1 DESC"""
        ids = [row["id"] for row in db.all(sql, {"p": project_id, "g": group})]
        lines: list[str] = []
        length = -1
        for text in self._texts(db, ids):
            length += len(text) + 3
            if lines and length > LONGEST:
                break
            lines.append(f"- {text}")
        if not lines:
            return None
        return Derived("\n".join(reversed(lines)), {"reviews": len(ids), "shown": len(lines)})

    def _texts(self, db: Tx | Database, ids: Sequence[int]) -> Iterator[str]:
        for start in range(0, len(ids), 200):
            slice_ = ids[start : start + 200]
            marks = ",".join("?" * len(slice_))
            rows = db.all(f"SELECT text FROM records WHERE id IN ({marks}) ORDER BY id DESC", slice_)
            yield from (row["text"] for row in rows)

    # For the doctor

    def wrong(self, project_id: int) -> list[tuple[str, str]]:
        """Return (product, what is wrong) where a record is not what it should be, and no mark says so."""
        sql = """SELECT DISTINCT r.grp FROM records r WHERE r.project_id = :p AND r.kind = 'review'
                 AND r.grp IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM stale_products s WHERE s.project_id = :p AND s.grp = r.grp)"""
        found: list[tuple[str, str]] = []
        for row in self.db.all(sql, {"p": project_id}):
            group = row["grp"]
            known = self.db.one(
                f"SELECT r.text, {_LABELLED} AS labelled FROM records r WHERE {_PRODUCT}", {"p": project_id, "g": group}
            )
            derived = self.derived(project_id, group)
            if known is None:
                found.append((group, "it has reviews and no record"))
            elif not known["labelled"] and derived is not None and known["text"] != derived.text:
                found.append((group, "its text is not that of its reviews"))
        return found

    def mark(self, tx: Tx, project_id: int, groups: Sequence[str]) -> None:
        """Have the texts of products made again by the next :meth:`renew`."""
        mark_products(tx, project_id, groups)

    def orphaned_marks(self, project_id: int) -> list[str]:
        """Return the marked products that have no reviews."""
        sql = """SELECT s.grp FROM stale_products s WHERE s.project_id = :p AND NOT EXISTS (
                   SELECT 1 FROM records r WHERE r.project_id = s.project_id AND r.grp = s.grp AND r.kind = 'review')"""
        return [row["grp"] for row in self.db.all(sql, {"p": project_id})]

    def unmark(self, tx: Tx, project_id: int, groups: Sequence[str]) -> None:
        tx.many(
            "DELETE FROM stale_products WHERE project_id = ? AND grp = ?", [(project_id, group) for group in groups]
        )


_PRODUCT = "r.project_id = :p AND r.grp = :g AND r.kind = 'group'"


def product_key(group: str) -> str:
    """Return the key that a product's record has if nothing else took it. A long name is cut, and told by a digest."""
    if len(group) > _LONGEST_NAME:
        group = f"{group[: _LONGEST_NAME - 17]}-{hashlib.sha256(group.encode()).hexdigest()[:16]}"
    return f"group:{group}"


def _free_key(tx: Tx, project_id: int, group: str) -> str:
    key = product_key(group)
    names = (key if n == 1 else f"{key} ({n})" for n in count(1))
    taken = "SELECT 1 FROM records WHERE project_id = :p AND key = :k"
    return next(name for name in names if tx.value(taken, {"p": project_id, "k": name}) is None)
