"""Which words of a text moved its suggestion: that they did, and that the desk shows no others."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import numpy as np
import pytest
from helpers import Points, World
from hypothesis import given
from hypothesis import strategies as st
from test_desk import EVIL, Seat, Shop, open_shop, shop  # noqa: F401

from labeler import Choices, Label, Task
from labeler.backends.base import BackendRequest
from labeler.backends.ensemble import words as moving
from labeler.backends.ensemble.backend import ProbeBackend
from labeler.backends.ensemble.pool import MOST
from labeler.backends.ensemble.words import without
from labeler.records import Record
from labeler.store import NewRecord
from labeler.worker import Worker

FRUIT = ("사과", "배", "귤", "포도", "감", "자두")
GOOD = tuple(f"{FRUIT[n % 6]} 상자 {n} 받았는데 꿀맛 이네요" for n in range(12))
BAD = tuple(f"{FRUIT[n % 6]} 상자 {n} 받았는데 곰팡이 이네요" for n in range(12))
BOTH = "감 상자 받았는데 꿀맛 이지만 곰팡이 하나"
KINDS = ("positive", "negative")


# Leaving words out


@given(st.lists(st.sampled_from(["맛", "맛!", "MAT", "mat", "아주", "...", "^^"]), max_size=12))
def test_each_word_is_left_out_wherever_it_stands(words: list[str]) -> None:
    """Whatever its case and the punctuation around it; all that is left keeps its order."""
    text = " ".join(words)
    alike = {word: moving.bare(word).casefold() for word in words}
    for word, rest in without(text):
        assert rest.split() == [other for other in words if alike[other] != moving.bare(word).casefold()]
    assert len(without(text)) == len(set(alike.values()))


def test_a_long_text_loses_runs_of_words() -> None:
    """So that no text takes longer than another; each word is in exactly one run."""
    words = [f"낱말{n}" for n in range(2000)]
    found = without(" ".join(words))
    assert sum(len(rest) for _, rest in found) <= moving._READ
    assert [word for run, _ in found for word in run.split()] == words


@pytest.mark.parametrize(
    ("word", "bare"), [("(맛있어요!!)", "맛있어요"), ("ㅠㅠ", "ㅠㅠ"), ("...", "..."), ("'don't'", "don't")]
)
def test_a_word_is_named_without_the_punctuation_around_it(word: str, bare: str) -> None:
    assert moving.bare(word) == bare


# What words do


def learned(folder, task=None, embedder=None, label=lambda word: word, wrong=0):  # type: ignore[no-untyped-def]
    """An ensemble that knows twelve texts with one planted word, and twelve with another; ``wrong`` of each amiss."""
    world = World(folder, [*GOOD, *BAD, BOTH], **({"task": task} if task else {}), embedder=embedder)
    for n, id_ in enumerate(world.records[:24]):
        world.approve(id_, label(KINDS[(n // 12) ^ (n % 12 < wrong)]))
    ensemble = world.ensemble()
    assert ensemble.fit()
    return world, ensemble


def asked(world: World, index, text: str) -> BackendRequest:  # type: ignore[no-untyped-def]
    """A request for a text, always with the neighbours of the text that holds both words."""
    examples = index.examples(index.search(world.query(world.records[-1]), 8))
    record = Record(10_000, world.project_id, "x", text)
    vector = world.embedder.embed([text])[0]
    return BackendRequest(record, world.task.name, world.task.schema, examples=examples, vector=vector)


@pytest.mark.parametrize("alone", [False, True])
def test_a_planted_word_is_named(tmp_path, alone: bool) -> None:  # type: ignore[no-untyped-def]
    """It speaks for the label that it always came with, and the word of the other label against it."""
    world, ensemble = learned(tmp_path)
    backend = ProbeBackend(ensemble) if alone else ensemble
    for value, first, last in (("positive", "꿀맛", "곰팡이"), ("negative", "곰팡이", "꿀맛")):
        words = backend.moved_by(asked(world, ensemble.index, BOTH), value)[value]
        assert (words[0][0], words[-1][0]) == (first, last) and words[0][1] > 0 > words[-1][1]
    world.store.close()


def test_what_a_word_did_is_what_the_odds_lose_without_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Of every word exactly, against the runner-up; and all words for a label together lose more than any of them."""
    world, ensemble = learned(tmp_path, wrong=4)

    def margin(text: str) -> float:
        scores = next(ensemble.complete([asked(world, ensemble.index, text)])).scores
        # No score is above 0.99: beyond that it would not tell the odds.
        assert max(scores.values()) < MOST
        return float(np.log(scores["positive"] / scores["negative"]))

    whole = margin(BOTH)
    words = ensemble.moved_by(asked(world, ensemble.index, BOTH), "positive")["positive"]
    rest = dict(without(BOTH))
    assert {word for word, _ in words} == set(rest)
    for word, effect in words:
        assert whole - margin(rest[word]) == pytest.approx(effect, abs=1e-5)
    assert [effect for _, effect in words] == sorted((effect for _, effect in words), reverse=True)
    speak_for = {word for word, effect in words if effect > 0}
    without_all = " ".join(word for word in BOTH.split() if word not in speak_for)
    assert whole - margin(without_all) > words[0][1]
    world.store.close()


def test_of_a_set_each_label_has_its_own_words(tmp_path) -> None:  # type: ignore[no-untyped-def]
    task = Task("topics", Choices(Label("positive"), Label("negative")))
    world, ensemble = learned(tmp_path, task, label=lambda name: [name])
    found = ensemble.moved_by(asked(world, ensemble.index, BOTH), ["positive", "negative"])
    assert (found["positive"][0][0], found["negative"][0][0]) == ("꿀맛", "곰팡이")
    assert ensemble.moved_by(asked(world, ensemble.index, BOTH), []) == {}
    world.store.close()


def test_a_slow_embedder_is_asked_for_no_word(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Then the words are those of the members that read letters."""
    slow = Points()
    slow.fast = False
    world, ensemble = learned(tmp_path, embedder=slow)
    request = asked(world, ensemble.index, BOTH)
    made = slow.made
    assert ensemble.moved_by(request, "positive")["positive"][0][0] == "꿀맛"
    assert slow.made == made
    world.store.close()


# At the desk


def moved(seat: Seat, record_id: int, suggestion_id: int) -> str:
    answer = seat.client.get(seat.path(f"moved/{record_id}/{suggestion_id}"))
    assert answer.status_code == 200, answer.json
    return str(answer.json["html"])


def taught(shop: Shop) -> None:  # noqa: F811
    """Approve texts with planted words, and let the worker fit."""
    seat = shop.seat()
    ids = shop.add(*(NewRecord(f"t{n}", text) for n, text in enumerate((*GOOD, *BAD))))
    for n, id_ in enumerate(ids):
        seat.decide(seat.open(id_), KINDS[n // 12])
    Worker(shop.instance).run_until_idle()


def words_in(found: str) -> list[str]:
    return [html.unescape(re.sub("<[^>]+>", "", word)) for word in re.findall("<bdi>(.*?)</bdi>", found)]


def test_the_desk_names_words_of_this_text_alone(shop: Shop) -> None:  # noqa: F811
    """Their lines have their place when the record comes; the words are asked for, and no other text shows in them."""
    taught(shop)
    seat = shop.seat()
    (id_,) = shop.add(NewRecord("both", BOTH))
    opened = seat.open(id_)
    assert opened["suggested"] in KINDS
    lines = re.search(r"<dl data-moved>(.*?)</dl>", opened["html"], re.DOTALL)
    assert lines and lines[1].count("<dd></dd>") == 2
    found = moved(seat, id_, opened["suggestion_id"])
    assert found.count("<dd>") == 2 and {"꿀맛", "곰팡이"} <= set(words_in(found))
    assert set(words_in(found)) <= set(BOTH.split())


def test_a_blind_record_has_no_words(open_shop: Callable[..., Shop]) -> None:  # noqa: F811
    """They would tell the suggestion; nor are they told of a decided record, or of the suggestion for another."""
    shop = open_shop(blind_share=1.0)  # noqa: F811
    taught(shop)
    seat = shop.seat()
    (id_,) = shop.add(NewRecord("both", BOTH))
    opened = seat.open(id_)
    assert opened["blind"] and opened["suggestion_id"] and "data-moved" not in opened["html"]
    assert moved(seat, id_, opened["suggestion_id"]) == ""


def test_words_are_told_of_the_pending_record_that_was_suggested(shop: Shop) -> None:  # noqa: F811
    taught(shop)
    seat = shop.seat()
    first, second = shop.add(NewRecord("both", BOTH), NewRecord("other", "곰팡이 핀 귤"))
    made = seat.open(first)["suggestion_id"]
    assert moved(seat, second, made) == "" and moved(seat, first, 10**6) == ""
    assert seat.client.get(seat.path(f"moved/{10**6}/{made}")).status_code == 404
    assert seat.client.get(seat.path(f"moved/{2**63}/{made}")).status_code == 404
    seat.decide(seat.open(first), "negative")
    assert moved(seat, first, made) == "" and "data-moved" not in seat.open(first)["html"]


def test_words_are_text_and_no_markup(shop: Shop) -> None:  # noqa: F811
    taught(shop)
    seat = shop.seat()
    (id_,) = shop.add(NewRecord("evil", f"꿀맛 {EVIL} 곰팡이<b>"))
    opened = seat.open(id_)
    found = moved(seat, id_, opened["suggestion_id"])
    assert "<script" not in found and "<img" not in found and "<b>" not in found


def test_a_paid_suggestion_has_no_words(shop: Shop) -> None:  # noqa: F811
    """A model read more than words, and nothing is known of what it made of them."""
    taught(shop)
    seat = shop.seat()
    (id_,) = shop.add(NewRecord("both", BOTH))
    made = shop.suggest(id_, "positive")
    assert "data-moved" not in seat.open(id_)["html"]
    assert words_in(moved(seat, id_, made)) == []
