"""Near-duplicates of reviews that have come in are looked for beside them: many at once, which is what makes it cheap.

What is to be done stands in the store, so that any process can do it, at any time and as often as it likes: while a
file comes in and at its end, before an export, and in the background. A cluster is what near-duplicates link, directly
or through others, and exact copies with them; the smallest id names it.

Reviews that share a band are compared with each other as long as they are few. Where many share one, as reviews of one
template do without being near-duplicates, those are compared that share another band too, each with its nearest
neighbours in the order of the bands that follow (after the sorted neighbourhoods of Hernández and Stolfo 1995 and the
LSH forest of Bawa, Condie and Ganesan 2005). So the comparisons grow with the reviews, and not with their square.
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

    Ids = npt.NDArray[np.int64]
    Bands = npt.NDArray[np.int32]

_FEWEST, _MOST = 10_000, 50_000
"""Reviews that are looked at together; more where there are many, since all signatures are read for them."""
_SLICE, _GAP = 1000, 0.005
"""Reviews of one transaction, and the seconds between two: others wait meanwhile."""
_UNSIGNED = 20_000
"""So many reviews of a file come in, or an eighth of it, before their near-duplicates are looked for."""
_READ = 50_000
"""Signatures that are compared at once."""
_CROWD, _NEIGHBOURS = 4, 16
"""More reviews than this in one band must share another one to be compared, each with so many on either side."""


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
        self.unlike: set[tuple[int, int]] = set()
        """Pairs that were compared and are no near-duplicates."""
        # What has the shape of an earlier text has its near-duplicates too: one of them is compared for all.
        self.first = np.zeros(len(rows), dtype=bool)
        long = np.flatnonzero(self.signed.shapes)
        _, firsts, which = np.unique(self.signed.shapes[long], return_index=True, return_inverse=True)
        self.first[long[firsts]] = True
        for place, first in zip(long.tolist(), long[firsts][which].tolist(), strict=True):
            if place != first:
                self._pair(place, self.ids[first])
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
        shapes, ids, bands = self._hits()
        self._read(list(shapes))
        for id_, places in shapes.items():
            for place in places if id_ in self.texts else ():
                # Its own copy of before, or a text of its shape.
                self.first[place] = False
                self._pair(place, id_)
        own = np.flatnonzero(self.first)
        ids = np.concatenate([np.array(self.ids, dtype=np.int64)[own], ids])
        bands = np.concatenate([self.signed.bands[own], bands])
        for column in range(BANDS):
            pairs = candidates(bands, column)
            self._compare(own, ids, pairs[:, pairs[0] < len(own)])

    def _hits(self) -> tuple[dict[int, list[int]], Ids, Bands]:
        """Return the places that have the shape of a signed review, by its id; then those that share a band with us.

        These are ids, int64 (n,), and their bands, int32 (n, 24).
        """
        shapes: dict[int, list[int]] = {}
        near = [np.zeros(0, dtype=np.int64)], [np.zeros((0, BANDS), dtype=np.int32)]
        ordered, sorted_bands = self.signed.shapes[self.by_shape], np.sort(self.signed.bands, axis=0)
        for block in _joined(self.store.clusters.blocks(self.project_id, self.seen)):
            ids = np.frombuffer(block.ids, dtype=np.int64)
            theirs = np.frombuffer(block.shapes, dtype=np.int64)
            for n in np.flatnonzero(_among(theirs, ordered)).tolist():
                left, right = np.searchsorted(ordered, theirs[n], "left"), np.searchsorted(ordered, theirs[n], "right")
                shapes[int(ids[n])] = [place for place in self.by_shape[left:right].tolist() if self.first[place]]
            bands = np.frombuffer(block.bands, dtype=np.int32).reshape(-1, BANDS)
            hits = np.zeros(len(ids), dtype=bool)
            for column in range(BANDS):
                hits |= _among(bands[:, column], sorted_bands[:, column])
            near[0].append(ids[hits])
            near[1].append(bands[hits])
        return shapes, np.concatenate(near[0]), np.concatenate(near[1])

    def _compare(self, own: Ids, ids: Ids, pairs: Ids) -> None:
        """Compare pairs of ``ids``, by their places there: ``own`` are our places, and come first. One is ours."""
        self._read(np.unique(ids[pairs[pairs >= len(own)]]).tolist())
        for first, second in pairs.T.tolist():
            one, other = int(ids[first]), int(ids[second])
            if other in self.texts and self.roots.of(one) != self.roots.of(other) and self._similar(one, other):
                if second < len(own):
                    self._pair(int(own[second]), one)
                else:
                    self._pair(int(own[first]), other)

    def _read(self, ids: Sequence[int]) -> None:
        """Read the texts of signed reviews, as far as they are still there."""
        for id_, (text, cluster) in self.store.clusters.found([one for one in ids if one not in self.texts]).items():
            self.texts[id_] = text
            self.roots.join(id_, cluster)

    def _similar(self, a: int, b: int) -> bool:
        if (a, b) in self.unlike or near_duplicate(self.texts[a], self.texts[b]):
            return (a, b) not in self.unlike
        self.unlike.add((a, b))
        return False

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


def candidates(bands: Bands, column: int) -> Ids:
    """Return which signatures are to be compared since they share a band: pairs of rows, int64 (2, n), smaller first.

    ``bands`` are int32 (rows, 24). Those that stand next to each other come first: of a cluster, one joins the next.
    """
    order = np.argsort(bands[:, column], kind="stable")
    keys = bands[order, column]
    again = np.zeros(len(keys) + 1, dtype=bool)
    again[1:-1] = keys[1:] == keys[:-1]
    together = again[1:] | again[:-1]
    order, keys = order[together], keys[together]
    after, last = (bands[order, (column + n) % BANDS] for n in (1, 2))
    narrow = np.lexsort((last, after, keys))
    order, keys = order[narrow], keys[narrow]
    _, which, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    crowded = sizes[which] > _CROWD
    found = [np.zeros((2, 0), dtype=np.int64)]
    for step in range(1, _NEIGHBOURS + 1):
        same = keys[step:] == keys[:-step]
        if not same.any():
            break
        pairs = np.stack([order[:-step][same], order[step:][same]])
        chance = crowded[step:][same]
        chance[chance] = (bands[pairs[0, chance]] == bands[pairs[1, chance]]).sum(axis=1) == 1
        found.append(np.sort(pairs[:, ~chance], axis=0))
    return np.concatenate(found, axis=1)


def _bytes(ids: Sequence[int]) -> bytes:
    return np.array(ids, dtype=np.int64).tobytes()


# Looked at from outside


def check_clusters(store: Store, project_id: int) -> list[int]:
    """Return the reviews that are not in the cluster where their near-duplicates are, found anew from all texts.

    All reviews are read twice, and compared as new ones are. What a crowd hid since is compared within its cluster.
    """
    clusters = {row["id"]: row["cluster"] for page in store.clusters.all(project_id) for row in page}
    roots, together = _clusters(store, project_id), defaultdict[int, list[int]](list)
    for id_, cluster in clusters.items():
        together[cluster].append(id_)
    for ids in together.values():
        if len({roots.of(id_) for id_ in ids}) > 1:
            _join_similar(store, roots, list(combinations(ids, 2)))
    return [id_ for id_, cluster in clusters.items() if cluster != roots.of(id_)]


def repair_clusters(store: Store, project_id: int) -> int:
    """Make the clusters of a project again from its texts; return how many reviews stood in a wrong one.

    Processes that run meanwhile learn of clusters that are united, not of one that falls apart: restart them.
    """
    wrong = len(check_clusters(store, project_id))
    if wrong:
        store.write(lambda tx: store.clusters.forget(tx, project_id))
        sign_reviews(store, project_id)
    return wrong


def _clusters(store: Store, project_id: int) -> _Roots:
    """Return which reviews of a project belong together."""
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
    all_bands = np.concatenate([np.zeros((0, BANDS), dtype=np.int32), *bands])
    for column in range(BANDS):
        _join_similar(store, roots, ids[candidates(all_bands, column)].T.tolist())
    return roots


def _join_similar(store: Store, roots: _Roots, pairs: Sequence[Sequence[int]]) -> None:
    """Join the reviews of each pair that are near-duplicates."""
    apart = [(a, b) for a, b in pairs if roots.of(a) != roots.of(b)]
    texts = store.clusters.found(sorted({id_ for pair in apart for id_ in pair}))
    for a, b in apart:
        if roots.of(a) != roots.of(b) and a in texts and b in texts and near_duplicate(texts[a][0], texts[b][0]):
            roots.join(a, b)
