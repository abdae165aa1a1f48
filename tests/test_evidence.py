"""What stands beside free suggestions: examples for and against them, and what cross-validation says of all."""

from __future__ import annotations

import pytest
from helpers import REVIEWS
from test_desk import Seat, Shop, open_shop, shop  # noqa: F401

from labeler.backends.ensemble.backend import EnsembleBackend
from labeler.prelabel import runs
from labeler.prelabel.current import CURRENT, standing
from labeler.store import NewRecord
from labeler.worker import Worker

GOOD = tuple(NewRecord(f"g{n}", f"사과가 아삭하고 달아요 {n}") for n in range(12))
BAD = tuple(NewRecord(f"b{n}", f"상자가 찢어져 왔어요 {n}") for n in range(3))


def decide_all(seat: Seat, ids: list[int], value: str) -> None:
    for id_ in ids:
        seat.decide(seat.open(id_), value)


def test_the_nearest_example_of_another_label_is_shown_where_all_neighbours_agree(shop: Shop) -> None:  # noqa: F811
    """Eight neighbours that say the same come first, then two that say otherwise, marked, and all of it is current."""
    seat = shop.seat()
    good, bad = shop.add(*GOOD), shop.add(*BAD)
    decide_all(seat, good[:9], "positive")
    decide_all(seat, bad, "negative")
    opened = seat.open(good[10])
    made = shop.instance.store.suggestions.get(opened["suggestion_id"])
    assert made.value == "positive"
    assert [item.record_id in good for item in made.evidence] == [True] * 8 + [False] * 2
    assert opened["html"].count("<b>against</b>") == 2
    project = shop.instance.store.projects.get(shop.project)
    task = shop.instance.project_task(project, "sentiment")
    record = shop.instance.store.records.get(good[10])
    assert standing(shop.instance.suggester_now(project, task), record, made) == CURRENT


def test_nothing_is_added_where_only_one_label_was_approved(shop: Shop) -> None:  # noqa: F811
    """What nobody said cannot be shown."""
    seat = shop.seat()
    good = shop.add(*GOOD)
    decide_all(seat, good[:9], "positive")
    made = shop.instance.store.suggestions.get(seat.open(good[10])["suggestion_id"])
    assert len(made.evidence) == 8


def test_the_overview_says_how_far_the_free_suggestion_agrees(shop: Shop) -> None:  # noqa: F811
    """Nothing before there is enough to compare; then the numbers of the newest fit, of records it has not seen."""
    seat = shop.seat()
    ids = shop.add(*(NewRecord(f"n{n}", text) for n, text in enumerate(REVIEWS)))
    assert "Cross-validation" not in seat.client.get(f"/projects/{shop.project}").get_data(as_text=True)
    decide_all(seat, ids[::2], "positive")
    decide_all(seat, ids[1::2], "negative")
    Worker(shop.instance).run_until_idle()
    project = shop.instance.store.projects.get(shop.project)
    fitted = shop.instance.ensemble(project, shop.instance.project_task(project, "sentiment")).fitted
    page = seat.client.get(f"/projects/{shop.project}").get_data(as_text=True)
    row = page[page.index("Cross-validation") :]
    assert f"<b>{fitted.learned.agreement:.0%}</b>".replace("%", " %") in row.replace("\u00a0", " ").replace("%", " %")
    assert f"n = {fitted.learned.compared}" in row and f"Calibration error: {fitted.learned.error:.2f}" in page


def test_a_run_goes_on_where_the_second_opinion_cannot_be_fitted(
    shop: Shop,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What stands beside a suggestion is worth no run: the failure is logged, and the run ends as it would."""
    seat, store = shop.seat(), shop.instance.store
    good = shop.add(*GOOD)
    decide_all(seat, good[:3], "positive")

    def fails(self: EnsembleBackend) -> bool:
        raise RuntimeError("no fit today")

    monkeypatch.setattr(EnsembleBackend, "fit", fails)
    monkeypatch.setattr(EnsembleBackend, "stale", lambda self: True)
    run_id = runs.start(store, shop.project, "sentiment", [good[5]], {"backend": "nearest"})
    assert Worker(shop.instance).move_run(run_id) == "finished"
    assert "no fit today" in caplog.text
