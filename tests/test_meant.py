"""When an empty answer is one that its model clearly meant, and no suggestion otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import World

from labeler import Choices, Fields, Keywords, Label, Spans, Task, Text
from labeler.backends.nearest import NearestBackend
from labeler.prelabel.meant import clearly_meant, left_over
from labeler.prelabel.suggest import Suggester
from labeler.records import Evidence, Step, Suggestion
from labeler.retrieval.retrievers import Similar

TOPICS = Task("topics", Choices(Label("taste"), Label("price")))
KEYWORDS, SUMMARY = Keywords(), Fields((Label("good"), Text()), (Label("bad"), Text()))


class Other(NearestBackend):
    """A free backend of another name."""

    name = "other"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path, task=TOPICS)
    yield found
    found.store.close()


def made(value: Any, backend: str = "openai", **more: Any) -> Suggestion:
    return Suggestion(1, "topics", "1", backend, None, value, None, **more)


@pytest.mark.parametrize(
    ("schema", "value"), [(TOPICS.schema, []), (KEYWORDS, []), (Text(), ""), (SUMMARY, {}), (TOPICS.schema, ["taste"])]
)
def test_what_a_model_wrote_out_is_meant(world: World, schema: Any, value: Any) -> None:
    """An explicit empty list or text is an answer like any other."""
    assert clearly_meant(world.store, schema, made(value))


def test_an_empty_answer_after_one_that_could_not_be_read_is_not_meant(world: World) -> None:
    """Something went wrong on the way; a label that was found all the same was meant."""
    steps = [Step("unreadable", "{")]
    assert not clearly_meant(world.store, KEYWORDS, made([], steps=steps))
    assert clearly_meant(world.store, TOPICS.schema, made(["taste"], steps=steps))


def test_who_read_half_of_a_text_cannot_mean_that_nothing_is_in_it(world: World) -> None:
    assert not clearly_meant(world.store, KEYWORDS, made([], flags=["cut"]))


@pytest.mark.parametrize(("score", "meant"), [(0.4, False), (0.5, False), (0.6, True)])
def test_most_samples_must_be_empty(world: World, score: float, meant: bool) -> None:
    """The vote of samples that share no label is empty too."""
    steps = [Step(f"sample {n}", "{}") for n in range(1, 6)]
    assert clearly_meant(world.store, TOPICS.schema, made([], steps=steps, score=score)) is meant


@pytest.mark.parametrize("more", [{"scores": {"taste": 0.3, "price": 0.2}}, {"backend": "nearest"}])
@pytest.mark.parametrize(("values", "meant"), [([["taste"], []], False), ([[], [], ["taste"]], True), ([], False)])
def test_nothing_above_the_threshold_is_meant_where_most_examples_are_empty(
    world: World, values: list[list[str]], meant: bool, more: dict[str, Any]
) -> None:
    """Scores and votes have a threshold; people's own empty answers have none."""
    decided = [world.approve(id_, value) for id_, value in zip(world.records, values, strict=False)]
    evidence = [Evidence(one.annotation_id, one.record_id, 0.5) for one in decided]
    assert clearly_meant(world.store, TOPICS.schema, made([], evidence=evidence, **more)) is meant


@pytest.mark.parametrize(
    ("schema", "filled", "empty"),
    [
        (Spans(Label("food")), [{"label": "food", "text": "배", "start": 0, "end": 1}], []),
        (SUMMARY, {"good": "달다"}, {}),
        (Text(), "달다", ""),
    ],
)
def test_what_is_left_over_of_every_kind(schema: Any, filled: Any, empty: Any) -> None:
    """More than half of the weight must be empty; near examples weigh more."""
    assert left_over(schema, empty, [(filled, 0.9), (empty, 0.9)])
    assert not left_over(schema, empty, [(filled, 0.5), (empty, 0.9)])
    assert not left_over(schema, filled, [(filled, 0.9)])


def test_what_is_left_over_is_no_second_opinion(world: World) -> None:
    """Five neighbours with five labels leave none of them; a free backend then has no opinion."""
    task = Task("topics", Choices(*(Label(name) for name in "abcdefgh")))
    world.task = world.decisions.task = task
    for id_, name in zip(world.add([f"사과 {n}" for n in range(8)]), "abcdefgh", strict=True):
        world.approve(id_, [name])
    (record_id,) = world.add(["사과"])
    index = world.index()
    backend = NearestBackend()
    suggester = Suggester(world.store, world.project_id, task, index, backend, Similar({}), 8)
    record = world.store.records.get(record_id)
    (suggestion,) = suggester.now([record])
    assert isinstance(suggestion, Suggestion) and suggestion.value == []
    assert not clearly_meant(world.store, task.schema, suggestion)
    other = Other()
    suggester = Suggester(world.store, world.project_id, task, index, other, Similar({}), 8, second=[backend])
    (suggestion,) = suggester.now([record])
    assert isinstance(suggestion, Suggestion) and suggestion.second is None
