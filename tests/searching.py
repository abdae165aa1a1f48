"""What tests look for in a store: words, as the search field of the page takes them."""

from __future__ import annotations

from labeler.annotation.query import Query
from labeler.annotation.table import RecordTable
from labeler.store.search import search_query
from labeler.store.table import Place, Term


def search(store, project_id, words, limit=50, before=None, after=None):
    """Return the records that hold all of the words, newest first: just before or after a number, if one is given."""
    words = words.strip()
    terms = tuple(Term("word", (word,)) for word in words.split() if search_query(word)) or (Term("key", (words,)),)
    table = RecordTable(store, project_id, None, Query(words, None, terms))
    edge = after if before is None else before
    return table.page(limit, edge=None if edge is None else Place(edge, edge), back=after is not None, patience=60).rows
