"""How far reviewers agree with each other: the figures of the papers that introduced them, and what is no figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from labeler.evaluation import reviewers
from labeler.evaluation.reviewers import ALIKE, FEW, FEW_OF_BOTH, Agreement, Figure, agreement_of, by_part
from labeler.labels import Choice, Choices, Date, Fields, Label, LabelSchema, Number, Rating, Text
from labeler.records import Value

POINTS = Choice(*(Label(str(n)) for n in range(1, 6)))
LETTERS = Choice(Label("a"), Label("b"), Label("c"))
TOPICS = Choices(Label("taste"), Label("price"), Label("size"))

OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
"""Krippendorff 2011, section D: twelve units, as four observers saw them."""
DIAGNOSES = """444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 144444 124444 222333 144444 224445
    333335 111455 111112 224444 133555 555555 244444 224555 114444 144445 222224 111155 224444 133333 555555"""
"""Fleiss 1971, table 1: thirty patients, each diagnosed by six psychiatrists."""
COHEN = {"aa": 88, "ab": 14, "ac": 18, "ba": 10, "bb": 40, "bc": 10, "ca": 2, "cb": 6, "cc": 12}
"""Cohen 1960, table 2: what two judges said of 200 patients."""

Given = dict[int, dict[int, Any]]


def rows(records: Iterable[Iterable[Value]]) -> Given:
    """Return answers by record and reviewer, given record by record; a full stop is none."""
    return {n: {who: one for who, one in enumerate(record) if one != "."} for n, record in enumerate(records)}


def number(figure: Figure) -> float:
    assert figure.measure is not None, figure.why
    return figure.measure.value


UNITS = rows(zip(*OBSERVERS, strict=True))
STARS = {unit: {who: int(one) for who, one in given.items()} for unit, given in UNITS.items()}


# What was published


class Ranked(Rating):
    """Ordinal, as Krippendorff has it: points are as far apart as values lie between them, half of each counted."""

    def disagreement(self, a: Value, b: Value) -> float:
        values = [one for given in STARS.values() if len(given) > 1 for one in given.values()]
        below = {point: sum(one < point for one in values) + values.count(point) / 2 for point in (a, b)}
        return float(below[a] - below[b]) ** 2


@pytest.mark.parametrize(
    ("schema", "answers", "alpha"),
    [
        pytest.param(POINTS, UNITS, 0.743, id="nominal"),
        pytest.param(Ranked(), STARS, 0.815, id="ordinal"),
        pytest.param(Rating(), STARS, 0.849, id="interval"),
        pytest.param(Number(), STARS, 0.849, id="numbers"),
    ],
)
def test_alpha_is_that_of_krippendorff(schema: LabelSchema, answers: Given, alpha: float) -> None:
    """With what is missing, and by the distance that the kind of label brings; a kind of one's own brings its own."""
    found = agreement_of(schema, answers)
    assert number(found.alpha) == pytest.approx(alpha, abs=0.0005)
    assert found.n == 11, "the unit that one observer saw says nothing"


def test_kappa_of_several_is_that_of_fleiss() -> None:
    assert number(agreement_of(POINTS, rows(DIAGNOSES.split())).fleiss) == pytest.approx(0.430, abs=0.0005)


def test_kappa_of_two_is_that_of_cohen() -> None:
    """What two agree on, and what they would by chance: 0.70 and 0.41."""
    (pair,) = agreement_of(LETTERS, rows(said for said, n in COHEN.items() for _ in range(n))).pairs
    assert (pair.first, pair.second, pair.n) == (0, 1, 200)
    assert number(pair.agreement) == pytest.approx(0.70)
    assert number(pair.kappa) == pytest.approx(0.492, abs=0.0005)


def test_kappa_of_ratings_is_weighted_by_the_square_of_their_distance() -> None:
    """Quadratic weights (Cohen 1968), each pair on the records that both rated."""
    metrics = pytest.importorskip("sklearn.metrics")
    pairs = agreement_of(Rating(), STARS).pairs
    assert len(pairs) == 6
    for pair in pairs:
        both = [(one[pair.first], one[pair.second]) for one in STARS.values() if {pair.first, pair.second} <= set(one)]
        expected = metrics.cohen_kappa_score(*zip(*both, strict=True), weights="quadratic")
        assert (pair.n, number(pair.kappa)) == (len(both), pytest.approx(expected))


def test_records_of_more_or_fewer_reviewers_count_the_same_for_fleiss() -> None:
    """Gwet 2014: a record's own agreement, and its own shares of the labels, are averaged over the records."""
    answers = rows(["aaaa", "ab..", "bb..", "ccc.", "abc."])
    seen = np.mean([1, 0, 1, 1, 0])
    shares = np.mean([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 1], [1 / 3] * 3], axis=0)
    chance = (shares**2).sum()
    assert number(agreement_of(LETTERS, answers).fleiss) == pytest.approx((seen - chance) / (1 - chance))


# What labels are compared by


def test_sets_that_overlap_agree_in_part() -> None:
    """By MASI (Passonneau 2006): alpha is one minus what was seen over what all labels would show, each with each."""
    answers = rows([[["taste"], ["taste", "price"]], [["size"], ["size"]], [[], ["price"]]])
    every = [one for given in answers.values() for one in given.values()]
    apart = [[1 - TOPICS.agreement(a, b) for b in every] for a in every]
    seen = (apart[0][1] + apart[2][3] + apart[4][5]) / 3
    assert number(agreement_of(TOPICS, answers).alpha) == pytest.approx(1 - seen / (np.sum(apart) / 30))
    assert number(agreement_of(TOPICS, answers).agreement) == pytest.approx(1 - seen)


def test_days_that_are_near_agree_more_than_days_that_are_far() -> None:
    """As numbers do; where a day may be left out, days are equal or not."""
    near, far = (rows([["2026-05-01", other], ["2026-08-01", "2026-08-01"]]) for other in ("2026-05-02", "2026-07-01"))
    assert number(agreement_of(Date(), near).alpha) > 0.99 > number(agreement_of(Date(), far).alpha)
    left_out = Date(optional=True)
    assert agreement_of(left_out, near).alpha == agreement_of(left_out, far).alpha


def test_each_label_is_measured_against_all_others() -> None:
    """Of three labels one is clear, and two are mixed up; the most frequent comes first."""
    found = agreement_of(LETTERS, rows(["aa"] * 20 + ["bc", "cb", "bb", "cc"] * 3)).labels
    assert [(name, one.n) for name, one in found.items()] == [("a", 40), ("b", 12), ("c", 12)]
    assert number(found["a"].alpha) == 1.0
    assert number(found["b"].alpha) == number(found["c"].alpha) < 0.5


def test_a_label_of_a_set_is_there_or_not() -> None:
    """Its alpha is that of a choice between yes and no."""
    sets = [[["taste"], ["taste", "price"]], [["size"], ["taste"]], [[], ["price"]], [["price"], ["price"]]]
    yes_no = rows([["a" if "price" in one else "b" for one in record] for record in sets])
    assert number(agreement_of(TOPICS, rows(sets)).labels["price"].alpha) == pytest.approx(
        number(agreement_of(LETTERS, yes_no).alpha)
    )


def test_parts_are_taken_apart() -> None:
    """Each part has the answers that were given to it, an empty one among them."""
    schema = Fields((Label("stars"), Rating()), (Label("note"), Text()))
    answers = {7: {"kim": {"stars": 4, "note": "crisp"}, "lee": {"stars": 5}}}
    assert by_part(schema, answers) == {
        "stars": {7: {"kim": 4, "lee": 5}}, "note": {7: {"kim": "crisp", "lee": ""}},
    }  # fmt: skip
    assert by_part(LETTERS, {7: {"kim": "a"}}) == {"": {7: {"kim": "a"}}}


# Texts


def of_texts(n: int) -> Given:
    """Texts of two reviewers who use mostly the same letters for a record."""
    source = np.random.default_rng(7)
    texts = ["".join(source.choice(list("abcdefghij"), 8)) for _ in range(n)]
    return rows([text, text[:-2] + "xy"] for text in texts)


def test_of_many_texts_some_say_what_chance_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with each would take too long: a sample comes near, and stays the same."""
    answers = of_texts(150)
    exact = agreement_of(Text(), answers)
    monkeypatch.setattr(reviewers, "MOST", 60)
    found = agreement_of(Text(), answers)
    assert number(found.alpha) != number(exact.alpha)
    assert number(found.alpha) == pytest.approx(number(exact.alpha), abs=0.01)
    assert number(found.pairs[0].kappa) == pytest.approx(number(exact.pairs[0].kappa), abs=0.01)
    assert found.alpha == agreement_of(Text(), answers).alpha


# Intervals


def imagined(n: int, seed: int) -> Given:
    """Return labels of three of five reviewers who are right four times of five."""
    source = np.random.default_rng(seed)
    return {
        record: {int(who): "abc"[right if source.random() < 0.8 else source.integers(3)]
                 for who in source.choice(5, 3, replace=False)}
        for record, right in enumerate(source.choice(3, size=n, p=[0.6, 0.3, 0.1]))
    }  # fmt: skip


def test_an_interval_holds_what_it_is_about() -> None:
    """Of samples of 100 records, about 95 % have the alpha of very many records within their interval."""
    true = number(agreement_of(LETTERS, imagined(8_000, 1)).alpha)
    found = [agreement_of(LETTERS, imagined(100, seed)).alpha.measure for seed in range(2, 102)]
    assert 0.88 <= np.mean([one is not None and one.low <= true <= one.high for one in found]) <= 0.99


def test_few_records_without_any_disagreement_prove_little() -> None:
    """Drawing them again never shows a disagreement: the interval is that of a share of which none was seen."""
    few, many = (agreement_of(LETTERS, rows(["aa", "bb"] * n)).alpha.measure for n in (2, 200))
    assert few is not None and many is not None and few.value == many.value == 1.0
    assert few.low < 0.2 and 0.98 < many.low < 1.0


def test_the_same_labels_have_the_same_figures() -> None:
    """Also where records and reviewers come in another order, but for the draws of the intervals."""
    again = {n: dict(reversed(given.items())) for n, given in reversed(UNITS.items())}
    found, other = agreement_of(POINTS, UNITS), agreement_of(POINTS, again)
    assert found == agreement_of(POINTS, UNITS)
    assert number(found.alpha) == pytest.approx(number(other.alpha))
    assert number(found.fleiss) == pytest.approx(number(other.fleiss))


# What is no figure


@pytest.mark.parametrize(
    "records",
    [[], ["aaa"], ["a..", "b..", "c.."], ["a..", ".b.", "ab."]],
    ids=["none", "one record", "one reviewer", "one in common"],
)
def test_two_records_of_two_reviewers_are_the_least(records: list[str]) -> None:
    found = agreement_of(LETTERS, rows(records))
    assert found == Agreement(found.n, *[Figure(why=found.alpha.why)] * 3)
    assert found.alpha.why == FEW and found.n < 2


def test_labels_that_are_all_the_same_tell_nothing_of_chance() -> None:
    """They agree in all of them, and no coefficient is 1 by luck."""
    found = agreement_of(LETTERS, rows(["aa", "aa", "aa"]))
    assert number(found.agreement) == 1.0
    figures: Mapping[str, Figure] = {
        "alpha": found.alpha, "fleiss": found.fleiss, "kappa": found.pairs[0].kappa, "label": found.labels["a"].alpha,
    }  # fmt: skip
    assert {name: (one.measure, one.why) for name, one in figures.items()} == dict.fromkeys(figures, (None, ALIKE))


def test_a_pair_needs_two_records_of_its_own() -> None:
    """Two who never met are no pair; two who met once have no figure."""
    found = agreement_of(LETTERS, rows(["aa.", "bb.", "ab.", ".cc"]))
    assert [(one.first, one.second, one.n) for one in found.pairs] == [(0, 1, 3), (1, 2, 1)]
    assert found.pairs[1].kappa == found.pairs[1].agreement == Figure(why=found.pairs[1].kappa.why)
    assert found.pairs[1].kappa.why == FEW_OF_BOTH
