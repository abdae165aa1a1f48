"""The example index: always equal to the approved labels (I4), whatever becomes of its file or of other processes."""

from __future__ import annotations

import os
import random
import threading

import numpy as np
import pytest
from helpers import Points, World, numbered, python, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labeler import Choice, Label, Task
from labeler.labels import Choices
from labeler.retrieval.index import Query
from labeler.store import Store

LABELS = ("positive", "neutral", "negative")


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


def approve_all(world, seed=1):
    chance = random.Random(seed)
    for id_ in world.records:
        world.approve(id_, chance.choice(LABELS))


def top(index, world, record_id, k=8):
    """What a search finds, as comparable values."""
    return [(hit.entry.annotation_id, round(hit.similarity, 5)) for hit in index.search(world.query(record_id), k)]


def held(index):
    """What the index says is approved: {record id: (annotation id, strata)}."""
    return {entry.record_id: (entry.annotation_id, entry.strata) for _, entry in index.entries()}


def wanted(world):
    return {id_: (annotation, (value,)) for id_, (annotation, value) in world.approved().items()}


def check_equal(index, world):
    """I4, seen through every way into the index."""
    assert held(index) == wanted(world)
    assert len(index) == len(world.approved())
    counts: dict[str, int] = {}
    for _, value in world.approved().values():
        counts[value] = counts.get(value, 0) + 1
    assert index.counts() == counts
    everything = Query(np.ones(index.embeddings.embedder.dim, dtype=np.float32))
    assert {hit.entry.record_id for hit in index.search(everything, 1000)} == set(world.approved())
    for name, count in counts.items():
        found = {hit.entry.record_id for hit in index.search(everything, 1000, stratum=name)}
        assert len(found) == count
        assert all(world.approved()[id_][1] == name for id_ in found)


# I4: equal to the approved labels


STEP = st.tuples(
    st.sampled_from(["approve", "reject", "undo", "save", "reopen"]), st.integers(0, 11), st.integers(0, 2)
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEP, min_size=1, max_size=25))
def test_index_equals_the_approved_labels_after_any_history(tmp_path_factory, steps):
    """Whatever people decide, correct, reject and undo, and whenever caches are saved and read: the index is right."""
    folder = tmp_path_factory.mktemp("history")
    world = World(folder)
    live, cached = world.index(), world.index(folder / "index")
    for step, n, label in steps:
        record = world.records[n % len(world.records)]
        if step == "approve":
            world.approve(record, LABELS[label], who=world.people[label % 2])
        elif step == "reject":
            world.reject(record, who=world.people[label % 2])
        elif step == "undo" and world.decisions.strip(world.people[label % 2]):
            world.decisions.undo(world.people[label % 2])
        elif step == "save":
            cached.refresh()
            cached.save()
        elif step == "reopen":
            cached = world.index(folder / "index")
        assert held(live) == wanted(world)
    check_equal(live, world)
    check_equal(cached, world)
    check_equal(world.index(folder / "index"), world)
    world.store.close()


def test_long_random_history_in_slices(tmp_path):
    """The same over hundreds of decisions that come in larger portions, with vectors that repeat."""
    world = World(tmp_path, [f"({n % 7} {n % 5})" + "x" * n for n in range(60)], embedder=Points())
    index, chance = world.index(), random.Random(7)
    for n in range(400):
        record = chance.choice(world.records)
        if chance.random() < 0.65:
            world.approve(record, chance.choice(LABELS))
        elif chance.random() < 0.5:
            world.reject(record)
        elif world.decisions.strip(world.kim):
            world.decisions.undo(world.kim)
        if n % 37 == 0:
            check_equal(index, world)
    check_equal(index, world)
    check_equal(world.index(), world)
    world.store.close()


def test_only_approved_annotations_are_retrieved(world):
    """A pending, rejected or withdrawn record is never an example."""
    a, b, c, d = world.records[:4]
    world.approve(a)
    world.reject(b)
    world.approve(c)
    world.decisions.undo(world.kim)
    index = world.index()
    assert {hit.entry.record_id for hit in index.search(world.query(d), 10)} == {a}


def test_correction_changes_the_label_of_the_example_at_once(world):
    """After a correction the example carries the new value, the new reviewer and the new annotation."""
    id_, asked = world.records[0], world.records[5]
    index = world.index()
    world.approve(id_, "positive")
    assert [example.value for example in index.examples(index.search(world.query(asked), 1))] == ["positive"]
    decided = world.approve(id_, "negative", who=world.people[1])
    (example,) = index.examples(index.search(world.query(asked), 1))
    assert (example.value, example.reviewer, example.annotation_id) == ("negative", "lee", decided.annotation_id)
    assert index.search(world.query(asked), 5, stratum="positive") == []


def test_example_of_a_label_that_is_gone_is_left_out(world):
    """A value that the label schema no longer has is not shown in a prompt."""
    world.approve(world.records[0], "neutral")
    world.approve(world.records[1], "positive")
    index = world.index()
    index.task = Task("sentiment", Choice(Label("positive"), Label("negative")))
    hits = index.search(world.query(world.records[5]), 5)
    assert {example.value for example in index.examples(hits)} == {"positive"}


def test_search_is_exact(tmp_path):
    """The hits are those of comparing with every vector, most similar first, for any k."""
    chance = random.Random(3)
    texts = [
        f"({chance.uniform(-1, 1):.4f} {chance.uniform(-1, 1):.4f} {chance.uniform(-1, 1):.4f})" for _ in range(80)
    ]
    world = World(tmp_path, texts, embedder=Points(3))
    for id_ in world.records[5:]:
        world.approve(id_)
    index = world.index()
    vectors = world.embedder.embed(texts)
    for n in range(5):
        order = sorted(range(5, 80), key=lambda m: -float(vectors[m] @ vectors[n]))
        for k in (1, 8, 75, 200):
            hits = index.search(world.query(world.records[n]), k)
            assert [hit.similarity for hit in hits] == pytest.approx(
                [float(vectors[m] @ vectors[n]) for m in order[:k]], abs=1e-5
            )
    assert index.search(world.query(world.records[0]), 0) == []
    world.store.close()


def test_empty_index_finds_nothing(world):
    """Before the first approval every search is empty, of every label."""
    index = world.index()
    assert (index.search(world.query(1), 8), index.counts(), len(index)) == ([], {}, 0)
    assert index.search(world.query(1), 8, stratum="positive") == []
    assert index.vectors([]).shape == (0, world.embedder.dim)


def test_record_with_several_labels_counts_for_each(tmp_path):
    """A set of labels is found under each of its labels, an empty set under its own sign."""
    task = Task("topics", Choices(Label("taste"), Label("price")))
    world = World(tmp_path, task=task)
    world.approve(world.records[0], ["taste", "price"])
    world.approve(world.records[1], ["price"])
    world.approve(world.records[2], [])
    index = world.index()
    assert index.counts() == {"taste": 1, "price": 2, "∅": 1}
    world.approve(world.records[0], ["taste"])
    assert index.counts() == {"taste": 1, "price": 1, "∅": 1}
    world.store.close()


# FAULTS 28: a record is never its own example


def test_record_itself_is_never_its_example(world):
    """Asking again for an approved record does not show its own label to the backend."""
    approve_all(world)
    for id_ in world.records:
        assert id_ not in {hit.entry.record_id for hit in world.index().search(world.query(id_), 20)}


def test_exact_duplicate_is_never_an_example(world):
    """The label of a text that differs only in case or space would give the answer away."""
    approve_all(world)
    (copy,) = world.add(["  the APPLES were fresh   and sweet "])
    assert world.records[5] not in {hit.entry.record_id for hit in world.index().search(world.query(copy), 20)}


def test_near_duplicate_is_never_an_example(tmp_path):
    """Records of one near-duplicate cluster do not teach each other, in either direction."""
    world = World(tmp_path, [])
    a, b = world.add(["아주 맛있어요 또 살게요", "아주 맛있어요 또 살게요!!"], together=True)
    (other,) = world.add(["배송이 늦었어요"])
    for id_ in (a, b, other):
        world.approve(id_)
    index = world.index()
    assert [hit.entry.record_id for hit in index.search(world.query(a), 8)] == [other]
    assert [hit.entry.record_id for hit in index.search(world.query(b), 8)] == [other]
    world.store.close()


def test_excluding_many_still_fills_up(tmp_path):
    """However many of the nearest are excluded, k others are found."""
    world = World(tmp_path, [], embedder=Points())
    ids = world.add([f"(1 0.00{n})" for n in range(40)], together=True)
    ids += world.add([f"(0.1 {n + 1})" for n in range(8)])
    for id_ in ids:
        world.approve(id_)
    hits = world.index().search(world.query(ids[0]), 8)
    assert {hit.entry.record_id for hit in hits} == set(ids[40:])
    world.store.close()


# FAULTS 9: the file is a cache


def damage_nothing(path, world):
    pass


def damage_missing(path, world):
    path.unlink()


def damage_truncated(path, world):
    path.write_bytes(path.read_bytes()[:-1000])


def damage_empty(path, world):
    path.write_bytes(b"")


def damage_head_only(path, world):
    path.write_bytes(path.read_bytes()[:40])


def damage_random(path, world):
    path.write_bytes(os.urandom(5000))


def damage_flipped(path, world):
    data = bytearray(path.read_bytes())
    data[-500] ^= 0xFF
    path.write_bytes(bytes(data))


def damage_older(path, world):
    """Six more decisions that the file does not know."""
    for id_ in world.records[:3]:
        world.approve(id_, "neutral")
    world.reject(world.records[3])
    world.decisions.undo(world.kim)
    world.approve(world.records[4], "negative")


def damage_head_of_another_dimension(path, world):
    path.write_bytes(path.read_bytes().replace(b'"dim": 256', b'"dim": 128', 1))


def damage_of_another_embedder(path, world):
    path.write_bytes(path.read_bytes().replace(b'"lexical-1"', b'"lexical-0"', 1))


def damage_of_the_future(path, world):
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"seq": ', b'"seq": 9', 1))


DAMAGES = [function for name, function in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda function: function.__name__.removeprefix("damage_"))
def test_damaged_file_is_built_again_with_the_same_hits(tmp_path, damage):
    """FAULTS 9: missing, torn, foreign or older, the file never changes what a search finds."""
    world = World(tmp_path, numbered(40))
    approve_all(world)
    index = world.index(tmp_path / "index")
    index.refresh()
    index.save()
    (path,) = (tmp_path / "index").iterdir()
    damage(path, world)
    reopened, fresh = world.index(tmp_path / "index"), world.index()
    check_equal(reopened, world)
    for id_ in world.records:
        assert sorted(top(reopened, world, id_)) == sorted(top(fresh, world, id_))
        assert [hit[1] for hit in top(reopened, world, id_)] == [hit[1] for hit in top(fresh, world, id_)]
    reopened.save()
    assert top(world.index(tmp_path / "index"), world, 1) == top(reopened, world, 1)
    world.store.close()


def test_good_file_saves_embedding_and_searching_the_store(tmp_path):
    """A whole file of the same embedder is used: nothing is embedded again, whatever the store still holds."""
    embedder = Points()
    world = World(tmp_path, [f"({n} 1)" for n in range(20)], embedder=embedder)
    approve_all(world)
    index = world.index(tmp_path / "index")
    index.refresh()
    index.save()
    world.store.write(lambda tx: tx.run("DELETE FROM embeddings"))
    made = embedder.made
    assert len(world.index(tmp_path / "index").search(Query(embedder.embed(["(1 1)"])[0]), 8)) == 8
    assert embedder.made == made + 1
    world.store.close()


def test_full_disk_while_saving_harms_nothing(tmp_path, monkeypatch):
    """A cache that cannot be written is left out; what stood there before still does."""
    world = World(tmp_path)
    approve_all(world)
    index = world.index(tmp_path / "index")
    index.refresh()
    index.save()
    (path,) = (tmp_path / "index").iterdir()
    before = path.read_bytes()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    index.save()
    assert path.read_bytes() == before
    assert list((tmp_path / "index").iterdir()) == [path]
    world.store.close()


def test_changed_embedder_embeds_the_approved_again(tmp_path):
    """Vectors of two embedders are never mixed: another id means another file and other vectors."""
    world = World(tmp_path, [f"({n} 1)" for n in range(10)], embedder=Points(2, "points-1"))
    approve_all(world)
    old = world.index(tmp_path / "index")
    old.refresh()
    old.save()
    world.embedder = Points(3, "points-2")
    new = world.index(tmp_path / "index")
    check_equal(new, world)
    assert world.embedder.made >= 10
    assert new.vectors([0]).shape == (1, 3)
    new.save()
    assert len(list((tmp_path / "index").iterdir())) == 2
    assert world.store.vectors.progress("points-1", world.project_id) == (10, 10)
    assert world.store.vectors.progress("points-2", world.project_id) == (10, 10)
    check_equal(old, world)
    world.store.close()


def test_vectors_are_made_once(world):
    """A text is embedded once for good, however many indexes are opened."""
    embedder = Points(2, "counted")
    for id_ in world.records:
        world.approve(id_)
    for _ in range(3):
        world.index(embedder=embedder).refresh()
    assert embedder.made == len(world.records)


def test_missing_vectors_are_filled_up_in_the_background(world):
    """Filling makes every missing vector, in portions, and can be stopped and taken up again."""
    embeddings = world.index(embedder=Points(2, "slow")).embeddings
    world.add(numbered(200))
    portions = embeddings.fill(world.project_id)
    first = next(portions)
    assert 0 < first < 212
    assert list(embeddings.fill(world.project_id))[-1] == 212 - first
    assert world.store.vectors.progress("slow", world.project_id) == (212, 212)
    assert list(embeddings.fill(world.project_id)) == []
    assert list(embeddings.fill(world.project_id, stop=lambda: True)) == []


def test_filling_that_was_ended_goes_on_behind_what_was_made(world, monkeypatch):
    """No portion looks again at the records of those before it, or filling a million would take their square."""
    embeddings = world.index(embedder=Points(2, "slow")).embeddings
    world.add(numbered(300))
    looked_from = []
    missing = world.store.vectors.missing
    monkeypatch.setattr(world.store.vectors, "missing", lambda *where: looked_from.append(where[2]) or missing(*where))
    while any(True for _ in zip(range(1), embeddings.fill(world.project_id), strict=False)):
        pass
    assert looked_from == sorted(looked_from) and len(set(looked_from)) >= 5
    assert world.store.vectors.progress("slow", world.project_id) == (312, 312)


def test_examples_that_would_keep_a_page_waiting_are_read_meanwhile(world, monkeypatch):
    """An index that is far behind the decisions says that it is not ready, and catches up by itself."""
    monkeypatch.setattr("labeler.retrieval.index._AT_ONCE", 5)
    approve_all(world)
    index = world.index()
    assert not index.ready()
    until(index.ready)
    assert held(index) == wanted(world)
    world.reject(world.records[0])
    assert index.ready()


# FAULTS 19: other threads, other processes


PROCESS = """
import sys
from helpers import SENTIMENT
from labeler.annotation.decisions import Decision, Decisions
from labeler.store import Store
store = Store(sys.argv[1])
decisions = Decisions(store, 1, SENTIMENT)
print("ready", flush=True)
for n, line in enumerate(sys.stdin):
    action, record, version = line.split()
    if action == "undo":
        decisions.undo(1)
    else:
        decisions.decide(1, Decision(int(record), "approve", f"process-{n:08d}", int(version), action))
    print("done", flush=True)
store.close()
"""


def test_approval_in_one_process_counts_at_the_next_search_in_another(world):
    """FAULTS 19: what process A approves, process B retrieves at its next search; what A takes back is gone."""
    index, asked = world.index(), world.records[5]
    assert index.search(world.query(asked), 8) == []
    process = python(PROCESS, str(world.store.path), stdin=-1)

    def tell(line):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    assert process.stdout.readline() == "ready\n"
    record = world.records[0]
    tell(f"positive {record} 0")
    assert [example.value for example in index.examples(index.search(world.query(asked), 8))] == ["positive"]
    tell(f"negative {record} 1")
    assert [example.value for example in index.examples(index.search(world.query(asked), 8))] == ["negative"]
    tell(f"undo {record} 2")
    tell(f"undo {record} 3")
    assert index.search(world.query(asked), 8) == []
    assert world.approved() == {}
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()


def test_two_stores_on_one_file_stay_equal(world):
    """Two open stores, each with its index, see each other's decisions in any order."""
    with Store(world.store.path, synchronous="OFF") as other_store:
        here = world.index()
        there = world.index()
        there.store = other_store
        chance = random.Random(5)
        for _ in range(60):
            world.approve(chance.choice(world.records), chance.choice(LABELS))
            assert held(here) == held(there) == wanted(world)


def test_searching_while_others_approve_never_fails(world):
    """Threads that search while others decide find only approved examples, and end up with all of them."""
    index, stop, errors = world.index(), threading.Event(), []

    def search():
        try:
            while not stop.is_set():
                hits = index.search(world.query(world.records[11]), 8)
                assert world.records[11] not in {hit.entry.record_id for hit in hits}
                index.examples(hits)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    chance = random.Random(9)
    for _ in range(150):
        world.approve(chance.choice(world.records), chance.choice(LABELS))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    check_equal(index, world)
