"""The export page: it says what a trainer would make of a choice, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSWORD, enter
from test_export_asked import Shop

from labeler import accounts
from labeler.app import create_app
from labeler.instance import Instance


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Instance(tmp_path / "instance") as instance:
        yield Shop(instance)


@pytest.fixture
def client(shop: Shop) -> Any:
    app = create_app(shop.instance, {"TESTING": True, "WTF_CSRF_ENABLED": False})
    client = app.test_client()
    enter(client, app, accounts.add_reviewer(shop.store, "admin", PASSWORD, accounts.ADMIN))
    return client


def check(client: Any, shop: Shop, part: bool = True, **form: str) -> str:
    headers = {"HX-Request": "true", "Accept-Language": "en"} if part else {"Accept-Language": "en"}
    given = {"task": "sentiment", "train": "100", "validation": "0", "test": "0", **form}
    answer = client.post(f"/projects/{shop.project_id}/export/check", data=given, headers=headers)
    assert answer.status_code == 200
    return str(answer.get_data(as_text=True))


def test_a_choice_is_checked_without_writing_anything(client: Any, shop: Shop) -> None:
    """Counts, findings with links to their records, and rows as a model reads them."""
    shop.approve("c1", "좋아요<|eot_id|>", "positive")
    page = check(client, shop, format="trl")
    assert "<html" not in page and "Nothing stands in the way" in page
    assert f'href="/projects/{shop.project_id}/records?q=key:c1"' in page and "3 rows as a model reads them" in page
    assert shop.store.exports.all(shop.project_id) == [] and shop.store.splits.newest(shop.project_id) == 0
    assert not (shop.instance.folder / "exports").exists()


def test_what_a_trainer_would_refuse_is_said_in_its_words(client: Any, shop: Shop) -> None:
    assert "OpenAI wants at least 10 rows in train; there are 6" in check(client, shop, format="openai")


def test_a_choice_that_cannot_be_is_refused_in_the_same_place(client: Any, shop: Shop) -> None:
    """Keywords have no bare labels; the form stays as it is."""
    shop.approve("k1", "", [{"text": "맛있어요", "start": 3, "end": 7}], "keywords")
    said = check(client, shop, format="trl", task="keywords", answer_form="plain")
    assert "cannot be written as bare labels" in said


def test_without_a_script_the_check_is_a_whole_page(client: Any, shop: Shop) -> None:
    """What was chosen is still chosen."""
    page = check(client, shop, part=False, format="alpaca", examples="3")
    assert "<html" in page and 'value="alpaca" checked' in page and 'name="examples" type="number"' in page
    assert "Nothing stands in the way" in page


def test_an_export_leads_to_what_changed_since_and_to_a_training(client: Any, shop: Shop, tmp_path: Path) -> None:
    """Named, with a link to its own page and to the form that trains on it."""
    form = {"task": "sentiment", "format": "trl", "train": "100", "validation": "0", "test": "0", "name": "first"}
    assert client.post(f"/projects/{shop.project_id}/export", data=form).status_code == 303
    (made,) = shop.store.exports.all(shop.project_id)
    page = client.get(f"/projects/{shop.project_id}/export", headers={"Accept-Language": "en"}).get_data(as_text=True)
    assert f'/projects/{shop.project_id}/exports/{made["id"]}">first</a>' in page
    assert f"/projects/{shop.project_id}/training?export={made['id']}" in page
    assert client.post(f"/projects/{shop.project_id}/export", data=form).status_code == 409
