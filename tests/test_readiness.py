"""Whether approvals are enough to fine-tune on, and the queue of what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import enter
from test_replay import BAD, GOOD, Lab
from test_web_pages import Page

from labeler import accounts
from labeler.annotation.queue import LIKE_LABEL
from labeler.app import create_app
from labeler.cli.replay import stands
from labeler.evaluation import readiness
from labeler.evaluation.readiness import LEAST
from labeler.retrieval.index import ExampleIndex


@pytest.fixture
def lab(tmp_path: Any) -> Iterator[Lab]:
    made = Lab(tmp_path / "instance")
    made.instance.change_task(made.id, "sentiment", {"backend": "ensemble"})
    yield made
    made.close()


def standing(lab: Lab) -> Any:
    return readiness.readiness(lab.instance, lab.project, lab.task)


def approve(lab: Lab, texts: list[str], value: str) -> None:
    for id_ in lab.add(*texts):
        lab.approve(id_, value)


def different(kind: tuple[str, ...], count: int, start: int = 0) -> list[str]:
    return [
        f"{n * 7919}호 {kind[n % 6]} {n * 31}번째 주문 {chr(0xAC00 + 61 * n % 11172)}"
        for n in range(start, start + count)
    ]


def test_a_label_that_is_rare_is_to_be_labelled_first(lab: Lab) -> None:
    """It names how many are missing; one that nobody ever gave holds nothing up."""
    approve(lab, different(GOOD, LEAST), "positive")
    approve(lab, different(BAD, 12, 100), "negative")
    found = standing(lab)
    assert [(label.name, label.missing) for label in found.first] == [("negative", LEAST - 12)]
    assert found.never == ["neutral"] and not found.ready
    assert stands(found)[-1] == f"Label these first: {LEAST - 12} more of negative."
    approve(lab, different(BAD, LEAST - 12, 200), "negative")
    assert standing(lab).ready and stands(standing(lab))[-1] == "Ready to fine-tune."


def test_near_duplicates_count_once(lab: Lab) -> None:
    """A hundred copies of one review teach what one teaches."""
    text = "사과가 정말 달고 아삭해서 온 가족이 맛있게 먹었어요 다음에도 꼭 다시 살게요"
    approve(lab, [text + "!" * n for n in range(6)], "positive")
    approve(lab, different(BAD, 5), "negative")
    found = standing(lab)
    assert found.distinct == 6 and found.approved > found.distinct
    assert next(label for label in found.labels if label.name == "positive").missing == LEAST - 1


def test_where_every_approval_still_helps_more_are_wanted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slope of agreement over how many examples there were, from the rows of the newest replay."""
    monkeypatch.setattr(readiness, "LEAST", 10)
    ids = lab.stream(40)
    assert standing(lab).growth is None and standing(lab).ready
    id_ = lab.replayed(backend=["ensemble"])
    # As if the later half alone had been right.
    lab.store.write(
        lambda tx: tx.run(
            "UPDATE replayed SET value = CASE WHEN record_id < :half THEN '\"neutral\"' ELSE (SELECT value FROM "
            "annotations a WHERE a.record_id = replayed.record_id) END",
            {"half": ids[20]},
        )
    )
    found = standing(lab)
    assert found.replay_id == id_ and found.growth.low > 0
    assert found.rises and not found.ready and "label more" in stands(found)[-1]


def test_the_queue_of_a_label_brings_what_is_like_its_approved_records(lab: Lab) -> None:
    """Seen from the others: pending records of the other label come last."""
    approve(lab, list(GOOD), "positive")
    approve(lab, list(BAD), "negative")
    good = lab.add("달고 신선해서 또 살게요", "꼼꼼한 포장에 배송이 빨라요")
    bad = lab.add("시고 상해서 다시는 안 사요", "엉망인 포장에 배송이 늦었어요")
    ranked = list(lab.instance.queue(lab.project, lab.task).nearest(LIKE_LABEL + "negative"))
    assert set(ranked[:2]) == set(bad) and set(ranked[2:]) == set(good)
    # Nobody gave this one yet: its description says what to look for.
    assert set(lab.instance.queue(lab.project, lab.task).nearest(LIKE_LABEL + "neutral")) == {*good, *bad}


def test_where_a_label_lies_is_found_out_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each record that is asked for: a key press must not read thousands of vectors."""
    approve(lab, list(GOOD), "positive")
    approve(lab, list(BAD), "negative")
    lab.add("달고 신선해서 또 살게요", "시고 상해서 다시는 안 사요")
    towards, calls = ExampleIndex.towards, list[str]()
    monkeypatch.setattr(ExampleIndex, "towards", lambda self, name: [calls.append(name), towards(self, name)][1])
    for _ in range(3):
        assert list(lab.instance.queue(lab.project, lab.task).nearest(LIKE_LABEL + "negative"))
    assert calls == ["negative"]


def test_the_button_of_a_label_opens_its_queue(lab: Lab) -> None:
    """The page says what the command says, and the desk begins with the first record like the label."""
    approve(lab, different(GOOD, 12), "positive")
    approve(lab, different(BAD, 8, 100), "negative")
    waiting = lab.add(different(GOOD, 1, 300)[0], different(BAD, 1, 400)[0])
    admin = accounts.add_reviewer(lab.store, "admin", "a few plain words", accounts.ADMIN)
    app = create_app(lab.instance, {"TESTING": True, "WTF_CSRF_ENABLED": False})
    client = app.test_client()
    client.environ_base["HTTP_ACCEPT_LANGUAGE"] = "en"
    enter(client, app, admin)
    shown = client.get(f"/projects/{lab.id}/replays?task=sentiment").text
    assert "Label 42 more of Negative first." in Page(shown).said
    desk = f"/projects/{lab.id}/label/sentiment?order=similar&amp;similar=label:negative"
    assert f'href="{desk}"' in shown
    assert 'value="label:negative"' in client.get(desk.replace("&amp;", "&")).text
    body = {"order": "similar", "similar_to": "label:negative", "have": [], "page": "p1"}
    assert client.post(f"/projects/{lab.id}/label/sentiment/api/next", json=body).get_json()["record_id"] == waiting[1]
