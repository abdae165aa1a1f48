"""Full-text search in SQLite: the one place that speaks FTS5.

FTS5's trigram tokenizer finds nothing below three characters, and two-character words (사과, 배송) are the common
case in Korean. So the index holds overlapping *bigrams* of every word, and its last character alone: 사과가 is
stored as "사과 과가 가". A phrase of bigrams then is exactly a substring of a word, at any length from one
character on (one: a prefix query). Emoji and other pictures follow the words, each as its code point ("u1f44d").
What stands between words, and which pictures make one (a family, a skin tone), is checked on the text itself.
"""

from __future__ import annotations

import re
import unicodedata

from labeler.store.database import Database, Row, Tx

_WORD = re.compile(r"\w+")
# At each character of a word: it and the next one, the last one alone.
_TOKEN = re.compile(r"(?=(\w\w?))")
_PICTURES = "\u00a9\u00ae\u20e3\u2190-\u2bff\u3030\u303d\U0001f000-\U0001faff"
_PICTURE = re.compile(rf"(?!\w)[{_PICTURES}]")
# Pictures with what joins them to one, and the letters of a flag's region.
_SEQUENCE = re.compile(rf"(?:(?!\w)[{_PICTURES}\u200d\U000e0020-\U000e007f])+")
# They choose between a coloured and a plain picture; keyboards set them as they like.
_SELECTORS = re.compile("[\ufe0e\ufe0f]")


def folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def search_tokens(text: str) -> str:
    """Return what the index holds for ``text``."""
    return " ".join([*_word_tokens(text), *_picture_tokens(folded(text))])


def _word_tokens(text: str) -> list[str]:
    # An underscore is a word character for us but a separator for unicode61.
    return _TOKEN.findall(folded(text).replace("_", ""))


def _picture_tokens(text: str) -> list[str]:
    return [f"u{ord(picture):x}" for picture in dict.fromkeys(_PICTURE.findall(text))]


def _sequences(words: str) -> list[str]:
    """Return the pictures of typed words, those that are joined to one together."""
    return [found for found in _SEQUENCE.findall(_SELECTORS.sub("", folded(words))) if _PICTURE.search(found)]


def search_query(words: str) -> str | None:
    """Return the FTS5 query for typed words and pictures (all must occur), or None if there are none in them."""
    parts = [f'"{token}"' for token in _picture_tokens("".join(_sequences(words)))]
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
    through, newest = _without_pictures(tx)
    tx.many(
        sql,
        [(id_, " ".join(_word_tokens(text)) if through < id_ <= newest else search_tokens(text)) for id_, text in rows],
    )


def _without_pictures(tx: Tx) -> tuple[int, int]:
    """Return between which records the index has words alone: they were stored before it knew pictures."""
    row = tx.one("SELECT through, newest FROM unsearched_pictures")
    return (row["through"], row["newest"]) if row else (0, 0)


def lacks_pictures(db: Database) -> bool:
    """Whether there are records left for :func:`index_pictures`."""
    return db.value("SELECT 1 FROM unsearched_pictures") is not None


def index_pictures(tx: Tx, size: int = 2000) -> bool:
    """Index the pictures of the next records that lack them; return whether there may be more.

    How far it came stands in the transaction that indexes, so that whatever ends in between, each is indexed once.
    """
    through, newest = _without_pictures(tx)
    rows = tx.all(
        """SELECT r.id, r.text FROM records r JOIN record_search_docsize d ON d.id = r.id
           WHERE r.id > :through AND r.id <= :newest ORDER BY r.id LIMIT :size""",
        {"through": through, "newest": newest, "size": size},
    )
    lacking = [(row["id"], row["text"]) for row in rows if _PICTURE.search(folded(row["text"]))]
    forget_texts(tx, lacking)
    if len(rows) < size:
        tx.run("DELETE FROM unsearched_pictures")
    else:
        tx.run("UPDATE unsearched_pictures SET through = :id", {"id": rows[-1]["id"]})
    index_texts(tx, lacking)
    return len(rows) == size


def tidy(tx: Tx) -> None:
    """Merge the index into one piece: until then, words of texts that are gone stand in its older pieces."""
    tx.run("INSERT INTO record_search (record_search) VALUES ('optimize')")


def search(db: Database, project_id: int, words: str, limit: int = 50, before: int | None = None) -> list[Row]:
    """Return the newest records of a project whose text contains every word of ``words`` as a substring.

    Before them, on the first page, stands the record that has ``words`` as its key.
    """
    key = unicodedata.normalize("NFC", words.strip())
    named = db.all("SELECT * FROM records WHERE project_id = :p AND key = :key", {"p": project_id, "key": key})
    found = named if before is None else []
    query = search_query(words)
    if query is None:
        return found
    sql = """SELECT r.* FROM record_search s JOIN records r ON r.id = s.rowid
             WHERE s.tokens MATCH :query AND r.project_id = :p AND s.rowid < :before
             ORDER BY s.rowid DESC LIMIT :limit"""
    # A phrase may also match across two words ("가사 과" for 사과 never, but "ab c" for "ab bc" can): check the text.
    wanted = [*(word.replace("_", "") for word in _WORD.findall(folded(words))), *_sequences(words)]
    top = before if before is not None else 2**62
    first = {row["id"] for row in named}
    while len(found) < limit:
        rows = db.all(sql, {"query": query, "p": project_id, "before": top, "limit": limit})
        found += [row for row in rows if row["id"] not in first and _holds(row["text"], wanted)]
        if len(rows) < limit:
            break
        # A page that the check thinned out is filled up, so that a short one always means the end.
        top = rows[-1]["id"]
    return found[:limit]


def _holds(text: str, wanted: list[str]) -> bool:
    whole = _SELECTORS.sub("", folded(text)).replace("_", "")
    return all(word in whole for word in wanted)
