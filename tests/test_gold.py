"""The gold labels of the demonstration keep the guidelines, as far as a program can tell."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any

import pytest
from click.testing import CliRunner
from helpers import ROOT

from labeler import built_in, demo
from labeler.cli import cli
from labeler.plugins import load_plugins
from labeler.task import Task

ROWS = demo.reviews()
BY_STARS = {1: "negative", 2: "negative", 3: "neutral", 4: "positive", 5: "positive"}
# Letters of Korean that stand alone: laughter and tears behind a word, no part of it.
_JAMO = re.compile("[\u3131-\u318e]")
# What the guidelines say of a text that judges nothing.
NOTHING = {
    "sentiment": "neutral", "emotion": ["없음"], "keywords": [], "categories": [],
    "summary_polarity": {"good": "", "bad": ""}, "summary_category": {}, "usage": "",
}  # fmt: skip


@cache
def tasks() -> dict[str, Task]:
    return dict(load_plugins(built_in, entry_points=False).tasks)


def within_a_word(text: str, place: int) -> bool:
    """Return whether a text, cut before ``place``, is cut inside a word."""

    def letter(at: int) -> bool:
        if text[at : at + 1] == "'":
            return text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum()
        return text[at : at + 1].isalnum() and not _JAMO.match(text[at])

    return place > 0 and letter(place - 1) and letter(place)


def places(row: dict[str, Any]) -> list[tuple[int, int]]:
    """Return where the keywords of a review stand, each behind the one before it."""
    found, end = [], 0
    for keyword in row["labels"]["keywords"]:
        start = row["text"].index(keyword, end)
        end = start + len(keyword)
        found.append((start, end))
    return found


def test_every_label_is_one_of_its_task() -> None:
    """Each review has a gold label for every task, in the canonical form that the label schema gives it."""
    for row in ROWS:
        assert set(row["labels"]) == set(tasks()), row["id"]
        for name, value in row["labels"].items():
            schema = tasks()[name].schema
            parsed = schema.parse(value, row["text"])
            assert schema.parse(parsed, row["text"]) == parsed, (row["id"], name)


def test_keywords_stand_in_the_text_in_its_order() -> None:
    """Every keyword is copied letter for letter, and none overlaps the one before it."""
    for row in ROWS:
        assert len(places(row)) == len(row["labels"]["keywords"]), row["id"]


def test_no_keyword_is_cut_inside_a_word() -> None:
    """Particles and endings stay: what a keyword begins and ends with are whole words."""
    cut = [
        (row["id"], row["text"][start:end])
        for row in ROWS
        for start, end in places(row)
        if within_a_word(row["text"], start) or within_a_word(row["text"], end)
    ]
    assert cut == []


@pytest.mark.parametrize(
    ("text", "place", "inside"),
    [
        ("탱글탱글해서", 4, True),
        ("순삭했어요ㅋㅋ", 5, False),
        ("좋아요. 또", 3, False),
        ("don't", 3, True),
        ("ab", 0, False),
    ],
)
def test_what_is_inside_a_word(text: str, place: int, inside: bool) -> None:
    """Between two letters is inside a word; before laughter, a full stop or a space is not."""
    assert within_a_word(text, place) is inside


def test_keywords_have_at_most_four_words() -> None:
    """The guidelines allow one to four."""
    assert [k for row in ROWS for k in row["labels"]["keywords"] if not 1 <= len(k.split()) <= 4] == []


def test_greetings_and_mere_feelings_are_no_keywords() -> None:
    """Thanks, and words that only name a feeling, say nothing about what was judged."""
    mere = re.compile(r"(감사합니다|고맙습니다|만족(합니다|해요)?|짜증나서|실망입니다|thank you)", re.IGNORECASE)
    assert [k for row in ROWS for k in row["labels"]["keywords"] if mere.fullmatch(k)] == []


def test_categories_and_their_summary_speak_of_the_same_headings() -> None:
    """A heading has a summary if one of its subcategories is chosen, and only then."""
    for row in ROWS:
        chosen = {name.partition("/")[0] for name in row["labels"]["categories"]}
        assert chosen == set(row["labels"]["summary_category"]), row["id"]


def test_sentiment_and_its_summary_agree() -> None:
    """What is praised on the whole has a good point, and what is faulted has a bad one."""
    for row in ROWS:
        said = row["labels"]["summary_polarity"]
        side = {"positive": said["good"], "negative": said["bad"]}.get(row["labels"]["sentiment"], "-")
        assert side, row["id"]


def test_sentiment_is_not_the_stars() -> None:
    """Some reviews say something else than their stars, both ways: the guidelines judge by the text."""
    parted = [row for row in ROWS if row["labels"]["sentiment"] != BY_STARS[row["rating"]]]
    assert {row["labels"]["sentiment"] for row in parted} == {"positive", "neutral", "negative"}
    assert {row["rating"] for row in parted} >= {2, 3, 4, 5}
    assert any(row["rating"] == 3 and row["labels"]["sentiment"] == "positive" for row in parted), "a glad three"
    assert any(row["rating"] >= 4 and row["labels"]["sentiment"] == "negative" for row in parted), "an angry four"


def test_every_edge_that_the_guidelines_name_is_there() -> None:
    """Fifteen reviews show what the last paragraph of every guideline speaks of, in both languages."""
    edges = [row for row in ROWS if "edge" in row]
    assert len(edges) == 15 and {row["lang"] for row in edges} == {"ko", "en"}
    assert {row["edge"] for row in edges} == {
        "advertisement", "sponsored", "emoji only", "laughter only", "off topic", "question only", "filler",
        "other language mixed", "sarcasm", "delivery against product", "stars against text", "mixed",
    }  # fmt: skip


def test_what_judges_nothing_has_empty_labels() -> None:
    """Where an advertisement, emoji, laughter, chat, a question or filler is all there is, nothing is judged."""
    silent = ("advertisement", "emoji only", "laughter only", "off topic", "question only", "filler")
    for row in ROWS:
        if row.get("edge") in silent:
            assert row["labels"] == NOTHING, row["id"]


def test_what_is_said_of_the_demonstration_is_so() -> None:
    """README and docs name as many reviews, and as many approved ones, as there are."""
    ko, en = (Counter(row["approved"] for row in ROWS if row["lang"] == lang) for lang in ("ko", "en"))
    approved = ko[True] + en[True]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"a shop with {len(ROWS)} reviews, {approved} of them approved" in readme
    assert f"learn from those {approved} alone. Of the other {len(ROWS) - approved} reviews" in readme
    assert f"{ko.total()} invented reviews in the format of a shop's export, {ko[True]} of them labelled" in readme
    said = CliRunner().invoke(cli, ["demo", "--help"]).output
    assert not re.search(r"\d+ (reviews|of them)", said), "numbers that no test would keep"
