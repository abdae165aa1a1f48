"""How the people of a task agree, and how each of them does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers import SENTIMENT
from test_desk import Shop, open_shop
from test_overlap import Team

from labeler.evaluation.team import team_of

__all__ = ["open_shop"]


@pytest.fixture
def team(tmp_path):
    """Kim and lee have answered on ten records, and differ on the first two; choi has settled these as kim said."""
    made = Team(tmp_path)
    for n, record in enumerate(made.records[:10]):
        value = ("positive", "negative")[n % 2]
        made.approve(record, value, made.kim)
        made.approve(record, "neutral" if n < 2 else value, made.lee)
        if n < 2:
            made.adjudicate(record, value)
    return made


def test_people_are_laid_beside_each_other_and_beside_what_was_settled(team):
    """Alpha of ten records on which two differ lies between chance and one."""
    found = team_of(team.store, team.project_id, SENTIMENT)
    assert (found.answers, found.waiting, found.disputed) == (20, 0, 0)
    (agreement,) = found.parts.values()
    assert agreement.n == 10
    assert agreement.agreement.measure.value == pytest.approx(0.8)
    assert 0.5 < agreement.alpha.measure.value < 0.8
    assert [(pair.first, pair.second, pair.n) for pair in agreement.pairs] in (
        [(team.kim, team.lee, 10)], [(team.lee, team.kim, 10)]
    )  # fmt: skip
    assert [(one.name, one.settled.right, one.settled.n) for one in found.people] == [("kim", 10, 10), ("lee", 8, 10)]
    assert [one.known.n for one in found.people] == [0, 0]


def test_what_waits_for_others_and_what_is_rejected_is_compared_with_nothing(team):
    waits, bad = team.records[10:12]
    team.approve(waits, "positive", team.kim)
    for who in (team.kim, team.lee):
        team.reject(bad, who)
    found = team_of(team.store, team.project_id, SENTIMENT)
    assert (found.waiting, found.answers) == (1, 23)
    assert [one.settled.n for one in found.people] == [10, 10]


def test_answers_on_known_records_are_compared_with_what_is_known(team):
    def known(tx, who, value, record):
        settled = team.store.annotations.current(record, "sentiment", tx)["id"]
        row = {
            "project_id": team.project_id, "record_id": record, "task": "sentiment", "task_version": "1",
            "state": "approved", "value": value, "how": "scratch", "blind": 0, "reviewer_id": who, "seconds": 1.0,
            "suggestion_id": None, "agreement": None, "request_key": f"known {record} {who}", "served": "gold",
            "gold": 1, "settled_id": settled,
        }  # fmt: skip
        team.store.ballots.add(tx, row)

    for record, value in zip(team.records[:2], ("positive", "positive"), strict=True):
        team.store.write(lambda tx, record=record, value=value: known(tx, team.park, value, record))
    found = {one.name: one for one in team_of(team.store, team.project_id, SENTIMENT).people}
    assert (found["park"].known.right, found["park"].known.n) == (1, 2)
    assert found["park"].settled.n == 0


def test_the_page_names_people_to_admins_alone(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop(people_per_record=2, reviewers_may=["numbers"])
    path = f"/projects/{shop.project}/team/sentiment"
    assert "Nobody has answered together" in shop.seat().client.get(path).text
    for who in (0, 1):
        seat = shop.seat(who=who)
        for _ in range(3):
            seat.decide(seat.next(), "positive")
    for who, named in ((0, True), (1, False)):
        text = shop.seat(who=who).client.get(path).text
        assert "Agreement of two people" in text
        assert ("By pair" in text, "As settled" in text) == (named, named)
