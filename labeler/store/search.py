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
from collections.abc import Callable, Sequence

import numpy as np

from labeler.codepoints import of_words, points_of, texts_of
from labeler.store.database import Database, Row, Tx

_WORD = re.compile(r"\w+")
_PICTURES = "\u00a9\u00ae\u20e3\u2190-\u2bff\u3030\u303d\U0001f000-\U0001faff"
_PICTURE = re.compile(rf"(?!\w)[{_PICTURES}]")
_MAY_HAVE_PICTURES = re.compile(rf"[{_PICTURES}]")
# Pictures with what joins them to one, and the letters of a flag's region.
_SEQUENCE = re.compile(rf"(?:(?!\w)[{_PICTURES}\u200d\U000e0020-\U000e007f])+")
# They choose between a coloured and a plain picture; keyboards set them as they like.
_SELECTORS = re.compile("[\ufe0e\ufe0f]")


def folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def search_tokens(texts: Sequence[str]) -> list[str]:
    """Return what the index holds for each of the texts."""
    wide = [folded(text) for text in texts]
    return [
        " ".join(filter(None, [words, *_picture_tokens(text)])) if _MAY_HAVE_PICTURES.search(text) else words
        for words, text in zip(_word_tokens(wide), wide, strict=True)
    ]


def _word_tokens(wide: Sequence[str]) -> list[str]:
    """Return the bigrams of folded texts: each character of a word with the next one, the last one alone."""
    # An underscore is a word character for us but a separator for unicode61.
    points, ends = points_of([text.replace("_", "") for text in wide])
    first = of_words()[points]
    second = np.zeros_like(first)
    second[:-1] = first[1:]
    second[ends[ends > 0] - 1] = False
    second &= first
    tokens = np.full((len(points), 3), ord(" "), dtype="<u4")
    tokens[:, 0], tokens[:-1, 1] = points, points[1:]
    sizes = np.cumsum(first * (2 + second))
    kept = tokens[np.stack([first, second, first], axis=1)]
    return [text[:-1] for text in texts_of(kept, np.append(0, sizes)[ends])]


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


def search_queries(words: str) -> tuple[str | None, str | None]:
    """Return what to ask the index for words at first, and once some texts were looked through; None asks for all.

    FTS5 puts all words with a letter together before it gives the first one. A letter that is in many of them is in
    the next few texts as well; of one that is in few there is little to put together.
    """
    query, typed = search_query(words), _typed(words)
    if all(len(word) > 1 for word in typed):
        return query, query
    return search_query(" ".join([*(word for word in typed if len(word) > 1), *_PICTURE.findall(words)])), query


def index_texts(tx: Tx, rows: list[tuple[int, str]]) -> None:
    """Add (record id, text) pairs to the index."""
    index_tokens(tx, list(zip([id_ for id_, _ in rows], search_tokens([text for _, text in rows]), strict=True)))


def index_tokens(tx: Tx, rows: Sequence[tuple[int, str]]) -> None:
    """Add records to the index: their ids, and the :func:`search_tokens` of their texts."""
    tx.insert("record_search", "rowid, tokens", rows)


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
    held = zip(rows, search_tokens([text for _, text in rows]), strict=True)
    tx.many(
        sql,
        [(id_, _word_tokens([folded(text)])[0] if through < id_ <= newest else tokens) for (id_, text), tokens in held],
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


def finder(words: str) -> Callable[[str], bool] | None:
    """Return what tells whether a search for ``words`` finds a text; None if there are none in them."""
    wanted = [*_typed(words), *_sequences(words)]
    return (lambda text: _holds(text, wanted)) if wanted else None


def _typed(words: str) -> list[str]:
    return [word for found in _WORD.findall(folded(words)) if (word := found.replace("_", ""))]


def _holds(text: str, wanted: list[str]) -> bool:
    whole = _SELECTORS.sub("", folded(text)).replace("_", "")
    return all(word in whole for word in wanted)
