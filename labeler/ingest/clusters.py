"""Near-duplicates of reviews that have come in are looked for beside them: many at once, which is what makes it cheap.

What is to be done stands in the store, so that any process can do it, at any time and as often as it likes: while a
file comes in and at its end, before an export, and in the background. A cluster is what near-duplicates link, directly
or through others, and exact copies with them; the smallest id names it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler.errors import Conflict
from labeler.ingest.duplicates import BANDS, near_duplicate, signatures
from labeler.store import Block, Store

if TYPE_CHECKING:
    import numpy.typing as npt

_FEWEST, _MOST = 10_000, 50_000
"""Reviews that are looked at together; more where there are many, since all signatures are read for them."""
_SLICE, _GAP = 1000, 0.005
"""Reviews of one transaction, and the seconds between two: others wait meanwhile."""
_UNSIGNED = 20_000
"""So many reviews of a file come in, or an eighth of it, before their near-duplicates are looked for."""
_READ = 50_000
"""Signatures that are compared at once."""


def never() -> bool:
    return False


def sign_reviews(store: Store, project_id: int, stop: Callable[[], bool] = never) -> int:
    """Look for the near-duplicates of reviews that nobody has looked at yet; return how many there were."""
    done = 0
    while not stop():
        at_once = min(max(_FEWEST, store.clusters.size(project_id) // 8), _MOST)
        rows = store.clusters.unsigned(project_id, at_once)
        if not rows:
            break
        done += _Search(store, project_id, rows).write(stop)
    return done


def near_duplicates(store: Store, project_id: int, texts: Sequence[str]) -> list[bool]:
    """Return whether each text is a near-duplicate of a review of a project, or of a text before it.

    The texts are no records, and nothing is written of them; all reviews are signed first.
    """
    sign_reviews(store, project_id)
    rows = [{"id": -n, "text": text, "cluster": -n} for n, text in enumerate(texts, 1)]
    found = _Search(store, project_id, rows) if rows else None
    return [bool(found and found.pairs.get(place)) for place in range(len(texts))]


class Signing:
    """Looks for the near-duplicates of what an import stores, in a thread beside it; ``added`` reviews are there."""

    def __init__(self, store: Store, project_id: int, stop: Callable[[], bool], added: int) -> None:
        self._sign = partial(sign_reviews, store, project_id, stop)
        self._threads = ThreadPoolExecutor(1, "labeler-signing")
        self._signed = added
        self._going: Future[int] | None = None

    def came_in(self, added: int) -> None:
        """Say how many reviews there are. Where it cannot keep up, the import waits."""
        if added - self._signed >= max(_UNSIGNED, added // 8):
            self.wait()
            self._going, self._signed = self._threads.submit(self._sign), added

    def wait(self) -> None:
        """Wait until what was begun is done. Raises what was raised there."""
        if self._going is not None:
            self._going.result()

    def __enter__(self) -> Signing:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()


class _Search:
    """The near-duplicates of some reviews among each other, and among all that have a signature."""

    def __init__(self, store: Store, project_id: int, rows: Sequence[Any]) -> None:
        self.store, self.project_id = store, project_id
        self.ids = [int(row["id"]) for row in rows]
        self.texts = {int(row["id"]): str(row["text"]) for row in rows}
        self.signed = signatures([row["text"] for row in rows])
        self.pairs: dict[int, list[tuple[int, int]]] = defaultdict(list)
        """Near-duplicates, by the place of the one that is signed later."""
        self.roots = _Roots((int(row["id"]), int(row["cluster"])) for row in rows)
        self.compared: set[tuple[int, int]] = set()
        # What has the shape of an earlier text has its near-duplicates too: one of them is compared for all.
        self.first = np.zeros(len(rows), dtype=bool)
        long = np.flatnonzero(self.signed.shapes)
        _, firsts, which = np.unique(self.signed.shapes[long], return_index=True, return_inverse=True)
        self.first[long[firsts]] = True
        for place, first in zip(long.tolist(), long[firsts][which].tolist(), strict=True):
            if place != first:
                self._pair(place, self.ids[first])
        self.orders = [np.argsort(column, kind="stable") for column in self.signed.bands.T]
        self.sorted = [column[order] for column, order in zip(self.signed.bands.T, self.orders, strict=True)]
        self.by_shape = np.argsort(self.signed.shapes, kind="stable")
        self.seen = store.clusters.newest(project_id)
        self._look()

    def write(self, stop: Callable[[], bool]) -> int:
        """Write down what was found, some reviews in each transaction; return how many.

        It ends early where another process has signed or removed reviews meanwhile: then it is to be done anew.
        """
        done = 0
        while done < len(self.ids) and not stop():
            last = min(done + _SLICE, len(self.ids))
            ids, first = self.ids[done:last], self.first[done:last]
            pairs = [pair for place in range(done, last) for pair in self.pairs.get(place, ())]
            block = Block(
                _bytes([id_ for id_, own in zip(ids, first.tolist(), strict=True) if own]),
                self.signed.shapes[done:last][first].tobytes(),
                self.signed.bands[done:last][first].tobytes(),
            )
            try:
                self.seen = self.store.write(
                    lambda tx, part=(ids, block, pairs, self.seen): self.store.clusters.sign(tx, self.project_id, *part)  # type: ignore[misc]
                )
            except Conflict:
                break
            done = last
            if done < len(self.ids):
                # SQLite's lock has no queue: another process that waits for it must find it free between two slices.
                time.sleep(_GAP)
        return done

    def _look(self) -> None:
        """Compare with all that have a signature, and with each other."""
        shapes, buckets = self._hits()
        known = self.store.clusters.found(sorted({*shapes, *(id_ for ids in buckets.values() for id_ in ids)}))
        for id_, (text, cluster) in known.items():
            self.texts.setdefault(id_, text)
            self.roots.join(id_, cluster)
        for id_, places in shapes.items():
            for place in places if id_ in known else ():
                # Its own copy of before, or a text of its shape.
                self.first[place] = False
                self._pair(place, id_)
        for column in range(BANDS):
            for key in _several(self.sorted[column]):
                buckets.setdefault((column, key), [])
        for (column, key), ids in buckets.items():
            self._compare(self._places(column, key), [id_ for id_ in ids if id_ in known])

    def _hits(self) -> tuple[dict[int, list[int]], dict[tuple[int, int], list[int]]]:
        """Return the places that have the shape of a signed review, by its id, and the ids in each band we are in."""
        shapes: dict[int, list[int]] = {}
        buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
        ordered = self.signed.shapes[self.by_shape]
        for block in _joined(self.store.clusters.blocks(self.project_id, self.seen)):
            ids = np.frombuffer(block.ids, dtype=np.int64)
            theirs = np.frombuffer(block.shapes, dtype=np.int64)
            for n in np.flatnonzero(_among(theirs, ordered)).tolist():
                left, right = np.searchsorted(ordered, theirs[n], "left"), np.searchsorted(ordered, theirs[n], "right")
                shapes[int(ids[n])] = [place for place in self.by_shape[left:right].tolist() if self.first[place]]
            bands = np.frombuffer(block.bands, dtype=np.int32).reshape(-1, BANDS)
            for column in range(BANDS):
                keys = bands[:, column]
                hits = np.flatnonzero(_among(keys, self.sorted[column]))
                for key, id_ in zip(keys[hits].tolist(), ids[hits].tolist(), strict=True):
                    buckets[column, key].append(id_)
        return shapes, buckets

    def _places(self, column: int, key: int) -> list[int]:
        """Return the places of ours that are in a band and are compared, in order."""
        left = np.searchsorted(self.sorted[column], key, "left")
        right = np.searchsorted(self.sorted[column], key, "right")
        places: list[int] = self.orders[column][left:right].tolist()
        return [place for place in places if self.first[place]]

    def _compare(self, places: Sequence[int], others: Sequence[int]) -> None:
        """Compare texts that share a band with each other and with ``others``. One of a cluster is enough."""
        members: dict[int, list[int]] = defaultdict(list)
        for id_ in others:
            members[self.roots.of(id_)].append(id_)
        for place in places:
            own = self.ids[place]
            for root, ids in members.items():
                if self.roots.of(root) != self.roots.of(own):
                    found = next((id_ for id_ in ids if self._similar(own, id_)), None)
                    if found is not None:
                        self._pair(place, found)
            members[self.roots.of(own)].append(own)

    def _similar(self, a: int, b: int) -> bool:
        if (pair := (min(a, b), max(a, b))) in self.compared:
            return False
        self.compared.add(pair)
        return near_duplicate(self.texts[a], self.texts[b])

    def _pair(self, place: int, other: int) -> None:
        self.roots.join(self.ids[place], other)
        self.pairs[place].append((self.ids[place], other))


class _Roots:
    """Which records belong together: a forest (union-find) over their numbers."""

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self.above: dict[int, int] = {}
        for a, b in pairs:
            self.join(a, b)

    def of(self, id_: int) -> int:
        above = self.above
        root = above.setdefault(id_, id_)
        while above[root] != root:
            above[root] = root = above[above[root]]
        return root

    def join(self, a: int, b: int) -> None:
        first, second = sorted((self.of(a), self.of(b)))
        self.above[second] = first


def _joined(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield larger blocks: what is compared at once costs less."""
    some: list[Block] = []
    for block in blocks:
        some.append(block)
        if sum(map(len, some)) >= _READ:
            yield Block.of(some)
            some = []
    if some:
        yield Block.of(some)


def _among(keys: npt.NDArray[Any], ordered: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which of ``keys`` stand in ``ordered``, both of one dimension."""
    found: npt.NDArray[np.bool_] = ordered.take(ordered.searchsorted(keys), mode="clip") == keys
    return found


def _several(ordered: npt.NDArray[Any]) -> list[int]:
    """Return the keys that stand more than once."""
    same = ordered[1:] == ordered[:-1]
    return sorted(set(ordered[1:][same].tolist()))


def _bytes(ids: Sequence[int]) -> bytes:
    return np.array(ids, dtype=np.int64).tobytes()


# Looked at from outside


def check_clusters(store: Store, project_id: int) -> list[int]:
    """Return the reviews that are not in the cluster where their near-duplicates are, found anew from all texts.

    All reviews are read twice, and all pairs compared that share a band.
    """
    clusters = {row["id"]: row["cluster"] for page in store.clusters.all(project_id) for row in page}
    return [id_ for id_, right in _clusters(store, project_id).items() if clusters.get(id_, right) != right]


def repair_clusters(store: Store, project_id: int) -> int:
    """Make the clusters of a project again from its texts; return how many reviews stood in a wrong one.

    Processes that run meanwhile learn of clusters that are united, not of one that falls apart: restart them.
    """
    wrong = len(check_clusters(store, project_id))
    if wrong:
        store.write(lambda tx: store.clusters.forget(tx, project_id))
        sign_reviews(store, project_id)
    return wrong


def _clusters(store: Store, project_id: int) -> dict[int, int]:
    """Return the right cluster of each review of a project."""
    roots, shapes = _Roots(), dict[int, int]()
    bands: list[npt.NDArray[np.int32]] = []
    for page in store.clusters.all(project_id):
        signed = signatures([row["text"] for row in page])
        keep = []
        for place, (row, shape) in enumerate(zip(page, signed.shapes.tolist(), strict=True)):
            roots.join(row["id"], row["duplicate_of"] or row["id"])
            if row["duplicate_of"] is None and shape:
                if shapes.setdefault(shape, row["id"]) != row["id"]:
                    roots.join(row["id"], shapes[shape])
                else:
                    keep.append(place)
        bands.append(signed.bands[keep])
    ids = np.array(list(shapes.values()), dtype=np.int64)
    for band in np.concatenate([np.zeros((0, BANDS), dtype=np.int32), *bands]).T:
        for together in _equal(ids, band):
            _join_similar(store, roots, together)
    return {id_: roots.of(id_) for id_ in list(roots.above)}


def _equal(ids: npt.NDArray[np.int64], keys: npt.NDArray[np.int32]) -> Iterator[list[int]]:
    """Yield the ids, int64 (n,), that have equal ``keys``, int32 (n,), where there are several."""
    order = np.argsort(keys, kind="stable")
    for part in np.split(ids[order], np.flatnonzero(np.diff(keys[order])) + 1):
        if len(part) > 1:
            yield part.tolist()


def _join_similar(store: Store, roots: _Roots, ids: Sequence[int]) -> None:
    if len({roots.of(id_) for id_ in ids}) == 1:
        return
    texts = store.records.many(ids)
    for a, b in combinations(ids, 2):
        if roots.of(a) != roots.of(b) and near_duplicate(texts[a].text, texts[b].text):
            roots.join(a, b)
