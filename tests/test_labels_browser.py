"""Changing labels on the page of a task in a real browser: what is asked and shown first, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
from test_desk_browser import Desk, browser, desk, pytestmark  # noqa: F401

from labeler.annotation.decisions import Decision

APPROVED = ("good", "good", "bad")


@pytest.fixture
def settings(desk: Desk) -> Any:  # noqa: F811
    """The page of a task with three approved records."""
    store, project = desk.instance.store, desk.instance.store.projects.get(desk.project)
    decisions = desk.instance.decisions(project, desk.instance.task_of(project, "tone"))
    for n, label in enumerate(APPROVED):
        record = store.records.by_key(desk.project, f"r{n}")
        assert record is not None
        decisions.decide(desk.people[0], Decision(record.id, "approve", f"request {n}", 0, label))
    desk.page.goto(f"{desk.address}/projects/{desk.project}/settings/tone")
    return desk.page


def approved(desk: Desk) -> dict[str, int]:  # noqa: F811
    """How many approvals each label has."""
    project = desk.instance.store.projects.get(desk.project)
    return desk.instance.index(project, desk.instance.project_task(project, "tone")).counts()


def names(page: Any) -> list[str]:
    """The labels in the table."""
    return [field.input_value() for field in page.locator("[data-rows] tbody [name='label.name']").all()]


def shown(page: Any) -> dict[str, list[str]]:
    """The numbers of the preview by label: approved now, blind, suggested, approved then."""
    rows = page.locator("article.preview tbody tr").all()
    return {row.locator("th").inner_text(): row.locator("td.num").all_inner_texts() for row in rows}


def save(page: Any) -> None:
    with page.expect_navigation():
        page.locator("button", has_text="Save").first.click()


def go_back(page: Any) -> None:
    """Restore the labels as the plugin has them, through the preview."""
    page.get_by_role("link", name="Restore", exact=True).last.click()
    page.wait_for_selector("[name=back_to]", state="attached")
    save(page)


def test_removed_labels_are_asked_about_merged_and_brought_back(desk: Desk, settings: Any) -> None:  # noqa: F811
    """Each label that goes has a choice that has to be made; merging moves its approvals, restoring undoes it all."""
    for label in ("good", "bad"):
        settings.locator(f"tr:has([name='label.name'][value={label}]) [data-row-remove]").click()
    assert names(settings) == ["mixed"]
    save(settings)
    assert "choose what becomes of each" in settings.inner_text("article.preview")
    assert shown(settings) == {"good": list("2000"), "bad": list("1000"), "mixed": list("0000")}
    questions = settings.locator("[name='gone.answer']")
    assert questions.count() == 2
    settings.locator("article.preview button").click()
    # The browser itself holds the form back.
    assert settings.evaluate("document.activeElement.name") == "gone.answer"
    assert approved(desk) == {"good": 2, "bad": 1}
    for question in questions.all():
        question.select_option(label="Merge it into mixed")
    save(settings)
    assert approved(desk) == {"mixed": 3} and names(settings) == ["mixed"]
    go_back(settings)
    assert approved(desk) == {"good": 2, "bad": 1} and names(settings) == ["good", "bad", "mixed"]


def test_a_renamed_label_is_shown_first_and_named_back(desk: Desk, settings: Any) -> None:  # noqa: F811
    """Nothing is asked; its approvals have the new name, and the old one after a restore."""
    settings.locator("[name='label.name'][value=good]").fill("lovely")
    save(settings)
    assert "Look at what changes" in settings.inner_text("article.preview")
    assert settings.locator("[name='gone.answer']").count() == 0 and shown(settings)["good"] == list("2002")
    assert approved(desk) == {"good": 2, "bad": 1}
    save(settings)
    assert approved(desk) == {"lovely": 2, "bad": 1}
    go_back(settings)
    assert approved(desk) == {"good": 2, "bad": 1}
