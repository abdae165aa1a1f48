"""Which examples a prompt shows: every retriever on vectors whose places are written in the texts."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from helpers import Points, World
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler import Choices, Label, Task
from labeler.retrieval.index import Query
from labeler.retrieval.retrievers import BUILT_IN
from labeler.store import NewRecord

LABELS = ("positive", "neutral", "negative")


def at(degrees: float, tail: str = "") -> str:
    return f"({math.cos(math.radians(degrees)):.6f} {math.sin(math.radians(degrees)):.6f}) {tail}"


def query(degrees: float = 0.0, record_id: int = 0) -> Query:
    vector = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))], dtype=np.float32)
    return Query(vector, record_id)


def built(folder, examples, task=None):
    """A world whose examples are (degrees, label) or (degrees, label, group, who)."""
    world = World(folder, [], embedder=Points(), **({"task": task} if task else {}))
    for n, (degrees, label, *more) in enumerate(examples):
        group = more[0] if more else None
        (id_,) = world.add([NewRecord(f"e{n}", at(degrees, str(n)), group)])
        world.records.append(id_)
        world.approve(id_, label, who=world.people[more[1]] if len(more) > 1 else 0)
    return world


def retrieve(name, world, k, asked=None, **settings):
    hits = BUILT_IN[name](settings).retrieve(world.index(), asked or query(), k)
    values = {id_: value for id_, (_, value) in world.approved().items()}
    return hits, [values[hit.entry.record_id] for hit in hits]


@pytest.fixture
def make(tmp_path):
    worlds = []

    def one(examples, task=None):
        worlds.append(built(tmp_path / str(len(worlds)), examples, task))
        return worlds[-1]

    yield one
    for world in worlds:
        world.store.close()


def spread(world, hits):
    """Mean cosine among the hits: how much they repeat each other."""
    index = world.index()
    index.refresh()
    vectors = index.vectors([hit.position for hit in hits])
    products = vectors @ vectors.T
    n = len(hits)
    return float((products.sum() - n) / (n * (n - 1)))


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_retriever_keeps_the_common_rules(make, name):
    """At most k, no example twice, never the record itself, honest similarities, nothing from an empty index."""
    world = make([(5 * n, LABELS[n % 3]) for n in range(30)])
    own = world.records[3]
    asked = query(15, own)
    index = world.index()
    index.refresh()
    for k in (0, 1, 3, 8, 100):
        hits, _ = retrieve(name, world, k, asked, pinned_ids=world.records)
        ids = [hit.entry.record_id for hit in hits]
        assert len(ids) <= k and len(set(ids)) == len(ids) and own not in ids
        vectors = index.vectors([hit.position for hit in hits])
        assert [hit.similarity for hit in hits] == pytest.approx((vectors @ asked.vector).tolist(), abs=1e-5)
    assert retrieve(name, make([]), 8, asked, pinned_ids=[1])[0] == []


def test_similar_takes_the_nearest(make):
    """The k nearest, most similar first."""
    world = make([(90 - 10 * n, LABELS[n % 3]) for n in range(10)])
    hits, _ = retrieve("similar", world, 3)
    assert [hit.entry.record_id for hit in hits] == world.records[:-4:-1]


# Balanced


def test_balanced_has_each_label_in_turn_even_a_rare_and_far_one(make):
    """Where all near examples carry one label, the others still get their share."""
    near = [(n * 0.1, "positive") for n in range(200)]
    world = make([*near, (170, "negative"), (175, "negative"), (120, "neutral"), (178, "neutral"), (179, "neutral")])
    hits, values = retrieve("balanced", world, 6)
    assert Counter(values) == {"positive": 2, "negative": 2, "neutral": 2}
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
    assert {hit.entry.record_id for hit in hits if hit.entry.strata == ("positive",)} == set(world.records[:2])


def test_balanced_gives_the_seats_a_rare_label_cannot_fill_to_the_others(make):
    """A label with one example has one; the rest is shared, and k is reached."""
    world = make([*[(n, "positive") for n in range(20)], *[(30 + n, "neutral") for n in range(20)], (90, "negative")])
    _, values = retrieve("balanced", world, 8)
    assert values.count("negative") == 1
    assert sorted((values.count("positive"), values.count("neutral"))) in ([3, 4],)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12)),
    k=st.integers(1, 12),
)
def test_balanced_quota_holds_for_any_sizes(tmp_path_factory, counts, k):
    """Each label gets its fair share of k or all it has, whatever the sizes; nothing is left over in vain."""
    examples = [(20 * n + 50 * label, LABELS[label]) for label, count in enumerate(counts) for n in range(count)]
    world = built(tmp_path_factory.mktemp("quota"), examples)
    _, values = retrieve("balanced", world, k)
    present = [n for n in counts if n]
    assert len(values) == min(k, sum(counts))
    share = k // len(present) if present else 0
    found = Counter(values)
    for label, count in zip(LABELS, counts, strict=True):
        assert found[label] >= min(count, share)
    world.store.close()


def test_balanced_with_more_labels_than_seats_takes_near_ones(make):
    """With many labels each near one is shown once before any is shown twice."""
    task = Task("topics", Choices(*(Label(f"l{n}") for n in range(30))))
    world = make([(n, [f"l{n % 30}"]) for n in range(60)], task)
    _, values = retrieve("balanced", world, 8)
    assert len({value[0] for value in values}) == 8


# Caps


@pytest.mark.parametrize("name", ["balanced", "similar", "mmr", "random", "diverse"])
@pytest.mark.parametrize("share, most", [(0.5, 4), (0.25, 2), (0.0, 1), (0.01, 1)])
def test_share_of_one_reviewer_is_capped(make, name, share, most):
    """No reviewer fills a prompt alone, however near their examples are; one is always allowed."""
    world = make(
        [*[(n / 10, LABELS[n % 3], None, 0) for n in range(40)], *[(60 + n, "neutral", None, 1) for n in range(9)]]
    )
    hits, _ = retrieve(name, world, 8, max_share_reviewer=share)
    by = Counter(hit.entry.reviewer_id for hit in hits)
    assert hits and max(by.values()) <= most


@pytest.mark.parametrize("name", ["balanced", "similar", "mmr", "random"])
def test_share_of_one_product_is_capped(make, name):
    """The reviews of one product do not fill a prompt; those without a product are not counted together."""
    many = [(n / 10, LABELS[n % 3], "apple") for n in range(40)]
    world = make([*many, *[(40 + n, LABELS[n % 3]) for n in range(20)]])
    hits, _ = retrieve(name, world, 8, max_share_group=0.25)
    assert sum(hit.entry.group == "apple" for hit in hits) <= 2
    assert len(hits) == 8


def test_no_cap_by_default(make):
    """Without a setting one reviewer and one product may fill the prompt."""
    world = make([(n, "positive", "apple", 0) for n in range(10)])
    assert len(retrieve("similar", world, 8)[0]) == 8


# The others


def test_mmr_repeats_itself_less_than_similar(tmp_path):
    """Among many copies of one thing, mmr shows other things too, the nearest first."""
    copies = [f"(1 0.5 {n / 1000}) copy" for n in range(10)]
    others = [f"(1 {0.6 * math.cos(n):.4f} {0.6 * math.sin(n):.4f}) other" for n in range(1, 6)]
    world = World(tmp_path, [*copies, *others], embedder=Points(3))
    for id_ in world.records:
        world.approve(id_)
    asked = Query(np.array([1, 0, 0], dtype=np.float32))
    similar, _ = retrieve("similar", world, 6, asked)
    mmr, _ = retrieve("mmr", world, 6, asked)
    assert spread(world, mmr) < spread(world, similar) - 0.05
    assert mmr[0].entry.record_id == similar[0].entry.record_id
    world.store.close()


def test_diverse_shows_one_of_each_heap(make):
    """Of examples in five heaps, five clusters have one representative each, wherever the record lies."""
    heaps = [0, 60, 120, 200, 290]
    world = make([(heap + n / 5, LABELS[n % 3]) for heap in heaps for n in range(12)])
    hits, _ = retrieve("diverse", world, 5)
    assert {(hit.position) // 12 for hit in hits} == {0, 1, 2, 3, 4}


def test_diverse_follows_new_and_withdrawn_examples(make):
    """The clusters are not made for every record, but what is withdrawn is never shown."""
    world = make([(12 * n, LABELS[n % 3]) for n in range(30)])
    index, retriever = world.index(), BUILT_IN["diverse"]({})
    first = [hit.entry.record_id for hit in retriever.retrieve(index, query(), 6)]
    world.reject(first[0])
    assert first[0] not in [hit.entry.record_id for hit in retriever.retrieve(index, query(), 6)]


def test_fixed_shows_the_pinned_in_their_order(make):
    """Pinned examples keep the order in which they were pinned; what is not approved is left out."""
    world = make([(10 * n, LABELS[n % 3]) for n in range(8)])
    pinned = [world.records[n] for n in (5, 1, 7, 3)]
    world.reject(pinned[2])
    hits, _ = retrieve("fixed", world, 8, pinned_ids=pinned)
    assert [hit.entry.record_id for hit in hits] == [pinned[0], pinned[1], pinned[3]]
    assert len(retrieve("fixed", world, 2, pinned_ids=pinned)[0]) == 2


def test_fixed_without_pins_shows_the_same_representatives_in_the_same_order(make):
    """Where nothing is pinned, every record sees the same examples in one order, so that a prompt's head is cached."""
    world = make([(10 * n, LABELS[n % 3]) for n in range(9)])
    index, retriever = world.index(), BUILT_IN["fixed"]({})
    seen = [[hit.entry.record_id for hit in retriever.retrieve(index, query(angle), 3)] for angle in (1, 44, 88)]
    assert len(seen[0]) == 3 and seen[0] == seen[1] == seen[2]


def test_random_is_the_same_for_the_same_record(make):
    """Drawn at random, but not at random again each time: the baseline can be repeated."""
    world = make([(n, LABELS[n % 3]) for n in range(40)])

    def ids(n):
        return [hit.entry.record_id for hit in retrieve("random", world, 5, query(0, n))[0]]

    assert ids(1001) == ids(1001)
    assert len({tuple(ids(n)) for n in range(1000, 1010)}) > 5


def test_none_shows_nothing(make):
    """The retriever "none" is zero-shot."""
    assert retrieve("none", make([(0, "positive")]), 8)[0] == []
