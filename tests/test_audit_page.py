"""What was done, for admins: found by person, project, kind and day, with labels if asked, and as a sheet."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from test_web_access import approve_one

from labeler import accounts
from labeler.instance import Instance
from labeler.store import Store


@pytest.fixture
def done(instance: Instance, store: Store, project: int, people: dict[str, int]) -> dict[str, int]:
    """A project changed by its admin, another made, and a record approved by a reviewer."""
    instance.change_project(project, {"order": "random"}, people["admin"])
    other = instance.create_project("=다른 프로젝트", "ko", None, people["admin"])
    accounts.set_member(store, other, people["stranger"], "observer", people["admin"])
    approve_one(instance, project, people["reviewer"])
    return people | {"other": other, "project": project}


def sheet(client: Any, **asked: Any) -> list[dict[str, str]]:
    answer = client.get("/people/acts.csv", query_string=asked)
    assert answer.status_code == 200
    return list(csv.DictReader(answer.get_data(as_text=True).lstrip("\ufeff").splitlines()))


def whats(rows: list[dict[str, str]]) -> list[str]:
    return [row["내용"] for row in rows]


def test_what_was_done_is_found_by_person_project_kind_and_day(
    as_person: Callable[[str], Any], done: dict[str, int]
) -> None:
    client, today = as_person("admin"), f"{datetime.now(UTC):%Y-%m-%d}"
    assert whats(sheet(client, project=done["other"])) == ["프로젝트 구성원 변경", "프로젝트 생성"]
    assert whats(sheet(client, kind="settings changed")) == ["프로젝트 설정 변경"]
    assert sheet(client, person=done["reviewer"]) == []
    assert len(sheet(client, since=today)) == len(sheet(client)) > 3
    assert sheet(client, until="2020-01-01") == []


def test_labels_are_listed_if_asked(as_person: Callable[[str], Any], done: dict[str, int]) -> None:
    rows = sheet(as_person("admin"), person=done["reviewer"], labels=1)
    assert [(row["내용"], row["사람"], bool(row["레코드"])) for row in rows] == [("승인", "reviewer", True)]


def test_a_name_in_the_sheet_becomes_no_formula(as_person: Callable[[str], Any], done: dict[str, int]) -> None:
    assert sheet(as_person("admin"), project=done["other"])[0]["프로젝트"] == "'=다른 프로젝트"


def test_the_page_keeps_what_was_asked_for(as_person: Callable[[str], Any], done: dict[str, int]) -> None:
    page = as_person("admin").get("/people/acts", query_string={"person": done["reviewer"], "labels": 1}).text
    assert f'<option value="{done["reviewer"]}" selected>' in page
    assert f"/people/acts.csv?person={done['reviewer']}&amp;labels=1" in page


def test_a_day_that_is_none_is_said(as_person: Callable[[str], Any], done: dict[str, int]) -> None:
    client = as_person("admin")
    for path in ("/people/acts", "/people/acts.csv"):
        answer = client.get(path, query_string={"since": "yesterday"})
        assert answer.status_code == 400
        assert "yesterday" in answer.text
    assert client.get("/people/acts", query_string={"person": "x"}).status_code == 404
