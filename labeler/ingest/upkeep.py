"""What is made from reviews and kept up to date beside them: the texts of products, and clusters of near-duplicates.

What is to be done stands in the store, so that any process can do it, at any time and as often as it likes: at the end
of an import, when settings change, and in the background. Where there is nothing to do it costs one small read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from labeler.ingest.duplicates import near_duplicate, signed
from labeler.store import NewRecord, Store
from labeler.task import GROUP, Task

if TYPE_CHECKING:
    import numpy as np

_PRODUCTS = 20
_REVIEWS = 200


def never() -> bool:
    return False


def refresh_groups(store: Store, project_id: int, tasks: Iterable[Task], stop: Callable[[], bool] = never) -> int:
    """Make or renew the records of the products whose reviews have changed, for the tasks that label products.

    Returns how many records were made. Without such a task nothing is made, and nothing forgotten.
    """
    names = [task.name for task in tasks if task.unit == GROUP]
    stale = store.products.stale(project_id) if names else []
    made = 0
    while stale and not stop():
        part, stale = stale[:_PRODUCTS], stale[_PRODUCTS:]
        made += sum(store.write(lambda tx, part=part: [store.products.renew(tx, project_id, g, names) for g in part]))  # type: ignore[misc]
    return made


def sign_reviews(store: Store, project_id: int, stop: Callable[[], bool] = never) -> int:
    """Look for the near-duplicates of reviews that nobody has looked at yet; return how many there were.

    Reviews are looked at as they come in; left are those of a database of before, and those of a repair.
    """
    done = 0
    while not stop() and (rows := store.records.unsigned(project_id, _REVIEWS)):
        part = [(row["id"], signed(NewRecord("", row["text"]))) for row in rows]
        store.write(lambda tx, part=part: store.records.sign(tx, project_id, part, near_duplicate))  # type: ignore[misc]
        done += len(rows)
    return done


def check_products(store: Store, project_id: int) -> list[str]:
    """Return one sentence for each product whose record is not what its reviews say, and for each mark without any."""
    wrong = [f"The product {group!r}: {what}" for group, what in store.products.wrong(project_id)]
    orphaned = store.products.orphaned_marks(project_id)
    return wrong + [f"The product {group!r} is to be renewed and has no reviews" for group in orphaned]


def repair_products(store: Store, project_id: int, tasks: Iterable[Task]) -> int:
    """Make wrong products again from their reviews, and drop marks without reviews; return how many were mended."""
    wrong = [group for group, _ in store.products.wrong(project_id)]
    orphaned = store.products.orphaned_marks(project_id)
    store.write(lambda tx: store.products.mark(tx, project_id, wrong))
    store.write(lambda tx: store.products.unmark(tx, project_id, orphaned))
    refresh_groups(store, project_id, tasks)
    return len(wrong) + len(orphaned)


def check_clusters(store: Store, project_id: int) -> list[int]:
    """Return the reviews that are not in the cluster where their near-duplicates are, found anew from all texts.

    A cluster is what near-duplicates link, directly or through others, and exact copies with them; the smallest id
    names it. All reviews are read twice, and all pairs compared that share a band, as an import does.
    """
    clusters = {row["id"]: row["cluster"] for page in store.records.clusters(project_id) for row in page}
    return [id_ for id_, right in _clusters(store, project_id).items() if clusters.get(id_, right) != right]


def repair_clusters(store: Store, project_id: int) -> int:
    """Make the clusters of a project again from its texts; return how many reviews stood in a wrong one.

    Processes that run meanwhile learn of clusters that are united, not of one that falls apart: restart them.
    """
    wrong = len(check_clusters(store, project_id))
    if wrong:
        store.write(lambda tx: store.records.forget_clusters(tx, project_id))
        sign_reviews(store, project_id)
    return wrong


def _clusters(store: Store, project_id: int) -> dict[int, int]:
    """Return the right cluster of each review of a project."""
    import numpy as np

    roots: dict[int, int] = {}
    shapes: dict[int, int] = {}
    bands = []
    for page in store.records.clusters(project_id):
        for row in page:
            roots[row["id"]] = row["duplicate_of"] or row["id"]
            if row["duplicate_of"] is not None:
                continue
            found = signed(NewRecord("", row["text"]))
            if found.shape is None:
                continue
            if shapes.setdefault(found.shape, row["id"]) != row["id"]:
                roots[row["id"]] = shapes[found.shape]
            else:
                bands.append(np.array(found.bands, dtype=np.int32))
    ids = np.array(list(shapes.values()), dtype=np.int64)
    for band in np.array(bands, dtype=np.int32).T:
        for together in _equal(ids, band):
            _join_similar(store, roots, together)
    return {id_: _root(roots, id_) for id_ in roots}


def _equal(ids: np.ndarray, keys: np.ndarray) -> Iterator[list[int]]:
    """Yield the ids, int64 (n,), that have equal ``keys``, int32 (n,), where there are several."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    for part in np.split(ids[order], np.flatnonzero(np.diff(keys[order])) + 1):
        if len(part) > 1:
            yield part.tolist()


def _join_similar(store: Store, roots: dict[int, int], ids: Sequence[int]) -> None:
    if len({_root(roots, id_) for id_ in ids}) == 1:
        return
    texts = store.records.many(ids)
    for a, b in combinations(ids, 2):
        first, second = sorted((_root(roots, a), _root(roots, b)))
        if first != second and near_duplicate(texts[a].text, texts[b].text):
            roots[second] = first


def _root(roots: dict[int, int], id_: int) -> int:
    while roots[id_] != id_:
        roots[id_] = id_ = roots[roots[id_]]
    return id_
