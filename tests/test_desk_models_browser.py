"""The desk in a real browser, with what models bring along: scores beside the choices, and steps to look at."""

from __future__ import annotations

from typing import Any

import pytest
from test_desk_browser import Desk, browser, desk, pytestmark  # noqa: F401

from labeler.records import Step

SCORES = {"good": 0.8312, "bad": 0.12, "mixed": 0.0488}


def boxes(desk: Desk) -> Any:  # noqa: F811
    """Where the choices, the buttons and the text stand."""
    return desk.page.evaluate(
        """[...document.querySelectorAll('.pick, .work > .actions button, .record-text')]
           .map((element) => { const b = element.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })"""
    )


@pytest.mark.parametrize("width", [1280, 375])
def test_scores_come_and_go_without_moving_anything(desk: Desk, width: int) -> None:  # noqa: F811
    """Numbers stand in a place that is always there, are named for who only listens, and leave with their record."""
    desk.page.set_viewport_size({"width": width, "height": 800})
    desk.suggest("r0", "good", "tone", score=0.83, made=("scored",), scores=SCORES)
    desk.suggest("r1", "bad", "tone", score=0.6)
    desk.go("tone")
    shown = desk.page.locator(".pick .chance").all_inner_texts()
    assert [text.split()[-1] for text in shown] == ["0.83", "0.12", "0.05"]
    assert desk.page.get_by_role("radio", name="raw score 0.83").count() == 1
    assert "raw label scores" in desk.page.inner_text("[data-slot=status]")
    before = boxes(desk)
    assert desk.decide("Enter") and desk.chosen() == ["bad"]
    assert desk.page.locator(".pick .chance").all_inner_texts() == ["", "", ""]
    assert boxes(desk) == before


def test_steps_open_by_a_click_and_leave_the_keys_alone(desk: Desk) -> None:  # noqa: F811
    """They are folded with every record; opened, one key still approves, and what they say cannot become markup."""
    steps = [Step("reasoning", "<img src=x> sweet"), *(Step(f"sample {n}", "word " * 700) for n in range(40))]
    for key in ("r0", "r1"):
        desk.suggest(key, "good", "tone", score=0.83, made=("self-consistency",), steps=steps)
    desk.go("tone")
    details = desk.page.locator("details.steps")
    assert details.get_attribute("open") is None
    before = boxes(desk)
    details.locator("summary").click()
    assert "<img src=x> sweet" in details.inner_text()
    assert desk.page.locator("details.steps img").count() == 0
    assert boxes(desk) == before
    first = desk.decide("Enter")
    assert desk.value(first) == "good"
    assert desk.page.locator("details.steps").get_attribute("open") is None
