"""What several reviewers of a record say together: the majority, and what their habits make likely."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from labeler.evaluation.consensus import NOT_ONE, TOO_FEW, agreed, dawid_skene, likely, why_not
from labeler.labels import Choice, Choices, Label, Rating

LABELS = Choice(Label("a"), Label("b"), Label("c"))

PATIENTS = """111,1,1,1,1 333,4,3,3,4 112,2,1,2,2 222,3,1,2,1 222,3,2,2,2 222,3,3,2,2 122,2,1,1,1 333,3,4,3,3
    222,2,2,2,3 232,2,2,2,3 444,4,4,4,4 222,3,3,4,3 111,1,1,1,1 222,3,2,1,2 121,1,1,1,1 111,2,1,1,1 111,1,1,1,1
    111,1,1,1,1 222,2,2,2,1 222,1,3,2,2 222,2,2,2,2 222,2,2,2,1 222,3,2,2,2 221,2,2,2,2 111,1,1,1,1 111,1,1,1,1
    232,2,2,2,2 111,1,1,1,1 111,1,1,1,1 112,1,1,2,1 111,1,1,1,1 333,3,2,3,3 111,1,1,1,1 222,2,2,2,2 222,3,2,3,2
    433,4,3,4,3 221,2,2,3,2 232,3,2,3,3 333,3,4,3,2 111,1,1,1,1 111,1,1,1,1 121,2,1,1,1 232,2,2,2,2 121,1,1,1,1
    222,2,2,2,2"""
"""Dawid and Skene 1979, table 1: five anaesthetists on 45 patients, the first of them three times."""


def simulated(right: list[float], n: int, of_each: int, seed: int = 1) -> tuple[list[str], dict[int, dict[str, str]]]:
    """Return the true labels of ``n`` records, and what some of the reviewers say, each right so often."""
    source = np.random.default_rng(seed)
    true = ["abc"[one] for one in source.integers(3, size=n)]
    answers = {
        n: {
            f"reviewer {who}": one if source.random() < right[who] else str(source.choice(list({*"abc"} - {one})))
            for who in source.choice(len(right), of_each, replace=False)
        }
        for n, one in enumerate(true)
    }
    return true, answers


def share_right(found: dict[int, str | None], true: list[str]) -> float:
    return sum(found[n] == one for n, one in enumerate(true)) / len(true)


def test_what_most_gave_is_agreed_record_by_record() -> None:
    """A tie is nothing agreed on."""
    answers = {1: {"kim": "a", "lee": "a", "park": "b"}, 2: {"kim": "a", "lee": "b"}, 3: {}}
    assert agreed(LABELS, answers) == {1: "a", 2: None, 3: None}


# Dawid and Skene


def test_habits_are_those_of_the_paper() -> None:
    """Shares of the four classes, and what the first and the fourth anaesthetist take each class for."""
    given = [(n, who * 4 + int(one) - 1) for n, row in enumerate(PATIENTS.split())
             for who, said in enumerate(row.split(",")) for one in said]  # fmt: skip
    rows, columns = zip(*given, strict=True)
    chances, errors, shares, _ = dawid_skene(csr_matrix((np.ones(len(given)), (rows, columns)), (45, 20)), 4, 0.0)
    assert shares == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005)
    first = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    fourth = [[0.94, 0.06, 0, 0], [0.05, 0.84, 0.10, 0], [0, 0, 0.80, 0.20], [0, 0, 0.33, 0.67]]
    assert errors[0] == pytest.approx(np.array(first), abs=0.006)
    assert errors[3] == pytest.approx(np.array(fourth), abs=0.006)
    assert [n + 1 for n, one in enumerate(chances) if one.max() < 0.99] == [7, 35, 38]


def test_who_guesses_is_found_and_counts_for_little() -> None:
    """Three of eight guess: the likely label is right more often than that of the majority."""
    right = [0.85] * 5 + [1 / 3] * 3
    true, answers = simulated(right, 600, 3)
    found = likely(answers)
    assert [found.accuracy(f"reviewer {n}") for n in range(8)] == pytest.approx(right, abs=0.12)
    labels = {n: found.label(n) for n in answers}
    assert share_right(labels, true) > share_right(agreed(LABELS, answers), true) + 0.1
    sure = {n for n in answers if found.label(n, 0.95)}
    assert 100 < len(sure) < 600
    assert sum(found.label(n) == true[n] for n in sure) / len(sure) > 0.93


def test_good_reviewers_need_no_more_than_the_majority() -> None:
    """Where most agree, the likely label is theirs; the rest it settles, too."""
    _, answers = simulated([0.95] * 3, 300, 3)
    found, most = likely(answers), agreed(LABELS, answers)
    told = [n for n in answers if most[n] is not None]
    assert len(told) > 290
    assert sum(found.label(n) == most[n] for n in told) / len(told) > 0.99


def test_chances_add_up_and_do_not_change_from_one_time_to_the_next() -> None:
    """A label that few gave, and a reviewer with one answer, are no trouble."""
    _, answers = simulated([0.9, 0.8, 0.7], 60, 3)
    answers[60] = {"reviewer 0": "d", "new": "a"}
    found, again = likely(answers), likely(answers)
    assert sorted(found.labels) == ["a", "b", "c", "d"]
    for n in answers:
        assert found.chances[n].sum() == pytest.approx(1.0)
        assert found.chances[n].tolist() == again.chances[n].tolist()
    assert found.shares.sum() == pytest.approx(1.0)
    assert found.errors["new"].sum(axis=1) == pytest.approx(np.ones(4))
    assert found.rounds == again.rounds < 1000


def test_a_tie_of_equals_has_no_likely_label() -> None:
    """Nothing tells which of two is right."""
    found = likely({1: {"kim": "a", "lee": "b"}})
    assert found.chances[1].tolist() == [0.5, 0.5]
    assert found.label(1) is None


def test_habits_need_one_label_and_enough_records_of_three() -> None:
    """20 labels for each reviewer and label: records of two do not count."""
    _, enough = simulated([0.9] * 3, 60, 3)
    assert why_not(LABELS, enough) is None
    _, few = simulated([0.9] * 3, 59, 3)
    why = why_not(LABELS, few)
    assert why is not None and (why.template, why.values) == (TOO_FEW, {"least": 180, "n": 177})
    _, of_two = simulated([0.9] * 3, 600, 2)
    assert why_not(LABELS, of_two) == TOO_FEW % {"least": 120, "n": 0}
    assert why_not(Choices(Label("a")), {}) == why_not(Rating(), {}) == NOT_ONE
