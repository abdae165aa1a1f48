"""Full-text search in SQLite: the one place that speaks FTS5.

FTS5's trigram tokenizer finds nothing below three characters, and two-character words (사과, 배송) are the common
case in Korean. So the index holds overlapping *bigrams* of every word, and its last character alone: 사과가 is
stored as "사과 과가 가". A phrase of bigrams then is exactly a substring of a word, at any length from one
character on (one: a prefix query). What stands between words is checked on the text itself.
"""

from __future__ import annotations

import re
import unicodedata

from labeler.store.database import Database, Row, Tx

_WORD = re.compile(r"\w+")
# At each character of a word: it and the next one, the last one alone.
_TOKEN = re.compile(r"(?=(\w\w?))")
# So many texts at a time are looked through for single letters, and so often.
_AT_ONCE, _FRONT = 100, 5


def folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def search_tokens(text: str) -> str:
    """Return what the index holds for ``text``."""
    # An underscore is a word character for us but a separator for unicode61.
    return " ".join(_TOKEN.findall(folded(text).replace("_", "")))


def search_query(words: str) -> str | None:
    """Return the FTS5 query for typed words (all of them must occur), or None if they hold no letter or digit."""
    parts = []
    for word in _WORD.findall(folded(words)):
        word = word.replace("_", "")
        if len(word) == 1:
            parts.append(f'"{word}"*')
        elif word:
            parts.append('"' + " ".join(word[i : i + 2] for i in range(len(word) - 1)) + '"')
    return " AND ".join(parts) or None


def index_texts(tx: Tx, rows: list[tuple[int, str]]) -> None:
    """Add (record id, text) pairs to the index."""
    tx.many(
        "INSERT INTO record_search (rowid, tokens) VALUES (?, ?)", [(id_, search_tokens(text)) for id_, text in rows]
    )


def unsearchable(db: Database, limit: int = 100) -> list[Row]:
    """Return ``id`` and ``text`` of records that the index does not know."""
    sql = """SELECT r.id, r.text FROM records r
             WHERE NOT EXISTS (SELECT 1 FROM record_search_docsize d WHERE d.id = r.id) ORDER BY r.id LIMIT :limit"""
    return db.all(sql, {"limit": limit})


def replace_text(tx: Tx, record_id: int, old: str, new: str) -> None:
    """Index a changed text; a contentless table must be told what it held."""
    forget_texts(tx, [(record_id, old)])
    index_texts(tx, [(record_id, new)])


def forget_texts(tx: Tx, rows: list[tuple[int, str]]) -> None:
    """Take (record id, text) pairs out of the index."""
    sql = "INSERT INTO record_search (record_search, rowid, tokens) VALUES ('delete', ?, ?)"
    tx.many(sql, [(id_, search_tokens(text)) for id_, text in rows])


def tidy(tx: Tx) -> None:
    """Merge the index into one piece: until then, words of texts that are gone stand in its older pieces."""
    tx.run("INSERT INTO record_search (record_search) VALUES ('optimize')")


def listed(
    db: Database, project_id: int, limit: int = 50, before: int | None = None, after: int | None = None
) -> list[Row]:
    """Return records of a project, newest first: the newest, or those just ``before`` or just ``after`` one."""
    rows = _next(db, project_id, limit, *_edge(before, after))
    return rows if after is None else rows[::-1]


def search(
    db: Database, project_id: int, words: str, limit: int = 50, before: int | None = None, after: int | None = None
) -> list[Row]:
    """Return the records of a project whose text contains every word of ``words`` as a substring, newest first.

    At most ``limit``: the newest, those just ``before`` a record, or those just ``after`` it.
    """
    query = search_query(words)
    if query is None:
        return []
    wanted = [word for typed in _WORD.findall(folded(words)) if (word := typed.replace("_", ""))]
    longer = search_query(" ".join(word for word in wanted if len(word) > 1))
    (edge, down), found, ended = _edge(before, after), list[Row](), False
    # FTS5 puts all words with a letter together before it gives the first one. A letter that is in many of them is in
    # the next few texts as well; of one that is in few there is little to put together.
    rounds = _FRONT if any(len(word) == 1 for word in wanted) else 0
    while not ended and len(found) < limit:
        rows = _next(db, project_id, _AT_ONCE, edge, down, longer if rounds > 0 else query)
        # A phrase may also match across two words ("가사 과" for 사과 never, but "ab c" for "ab bc" can): look at the
        # text. A page that this thins out is filled up, so that a short one always means the end.
        found += [row for row in rows if all(word in folded(row["text"]).replace("_", "") for word in wanted)]
        ended = len(rows) < _AT_ONCE
        edge = rows[-1]["id"] if rows else edge
        rounds -= 1
    return found[:limit] if down else found[:limit][::-1]


def _edge(before: int | None, after: int | None) -> tuple[int, bool]:
    """Return the number from which to go on, and whether downwards."""
    return (2**62 if before is None else before, True) if after is None else (after, False)


def _next(db: Database, project_id: int, limit: int, edge: int, down: bool, query: str | None = None) -> list[Row]:
    """Return the next records of a project after a number, of those that a query of the index finds or of all."""
    tables, where, id_ = "records r", "", "r.id"
    if query is not None:
        tables, where, id_ = "record_search s JOIN records r ON r.id = s.rowid", "s.tokens MATCH :query AND", "s.rowid"
    sql = f"""SELECT r.* FROM {tables} WHERE {where} r.project_id = :p AND {id_} {"<" if down else ">"} :edge
              ORDER BY {id_} {"DESC" if down else "ASC"} LIMIT :limit"""
    return db.all(sql, {"query": query, "p": project_id, "edge": edge, "limit": limit})
