"""Exports of other labeling tools, known by their shape and read as plain rows with a column for each question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labeler import Choice, Label
from labeler.errors import LabelError
from labeler.ingest.cells import read_label
from labeler.ingest.options import ImportOptions
from labeler.ingest.reading import open_file
from labeler.ingest.rows import Row
from labeler.ingest.shapes import Several


def read(folder: Path, *rows: dict[str, Any]) -> tuple[str | None, list[dict[str, Any]]]:
    path = folder / "export.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    with open_file(path, ImportOptions()) as source:
        return source.shape, [row.values for row in source if isinstance(row, Row)]


def annotated(*answers: str, cancelled: bool = False) -> list[dict[str, Any]]:
    return [
        {
            "was_cancelled": cancelled,
            "result": [{"from_name": "mood", "type": "choices", "value": {"choices": [answer]}}],
        }
        for answer in answers
    ]


def test_label_studio(tmp_path: Path) -> None:
    """What people chose is a column; cancelled annotations and predictions are none."""
    rows = [
        {"id": 7, "data": {"text": "좋아요"}, "annotations": annotated("긍정"), "predictions": [{"result": []}]},
        {"id": 8, "data": {"text": "음"}, "annotations": annotated("부정", cancelled=True)},
    ]
    assert read(tmp_path, *rows) == (
        "Label Studio",
        [{"id": 7, "text": "좋아요", "mood": ["긍정"]}, {"id": 8, "text": "음"}],
    )


def test_label_studio_spans_ratings_and_texts(tmp_path: Path) -> None:
    """Every kind of answer becomes what a label of that kind is."""
    values = [
        ("part", {"start": 0, "end": 2, "text": "배송", "labels": ["delivery"]}),
        ("part", {"start": 4, "end": 5, "text": "맛", "labels": ["taste"]}),
        ("stars", {"rating": 4}),
        ("why", {"text": ["빨라서"]}),
        ("tree", {"taxonomy": [["맛", "단맛"]]}),
    ]
    result = [{"from_name": name, "value": value} for name, value in values]
    _, [row] = read(tmp_path, {"id": 1, "data": {"text": "배송과 맛"}, "annotations": [{"result": result}]})
    assert row["part"] == [
        {"label": "delivery", "text": "배송", "start": 0, "end": 2},
        {"label": "taste", "text": "맛", "start": 4, "end": 5},
    ]
    assert (row["stars"], row["why"], row["tree"]) == (4, "빨라서", ["단맛"])


def test_people_who_disagree_are_no_label(tmp_path: Path) -> None:
    """Which of them is right is not guessed: the label is left out, with what they said."""
    rows = [{"id": 1, "data": {"text": "음"}, "annotations": annotated("긍정", "부정")}]
    _, [row] = read(tmp_path, *rows)
    assert isinstance(row["mood"], Several)
    with pytest.raises(LabelError, match="People disagree about it in the file"):
        read_label(Choice(Label("긍정"), Label("부정")), row["mood"], "음")


def test_doccano_spans_follow_the_clean_text(tmp_path: Path) -> None:
    """Offsets count in the text of the file; outer white space and line ends of Windows are gone with us."""
    shape, [first, second] = read(
        tmp_path,
        {"id": 1, "text": "  배송\r\n빨라요", "label": [[2, 4, "LOC"], [6, 9, "X"]]},
        {"id": 2, "text": "굿", "label": []},
    )
    assert shape == "doccano"
    assert first["label"] == [
        {"label": "LOC", "text": "배송", "start": 0, "end": 2},
        {"label": "X", "text": "빨라요", "start": 3, "end": 6},
    ]
    assert second["label"] == []


@pytest.mark.parametrize(
    "row",
    [
        {
            "id": "a", "status": "completed", "fields": {"text": "굿"}, "metadata": {}, "vectors": {},
            "suggestions": {"mood": {"value": "bad"}}, "responses": {"mood": [{"value": "good", "user_id": "u"}]},
        },
        {
            "id": "a", "fields": {"text": "굿"}, "suggestions": [],
            "responses": [
                {"status": "submitted", "values": {"mood": {"value": "good"}}},
                {"status": "discarded", "values": {"mood": {"value": "bad"}}},
            ],
        },
        {
            "id": "a", "text": "굿", "mood.responses": ["good", "bad"],
            "mood.responses.status": ["submitted", "draft"], "mood.suggestion": "bad", "mood.suggestion.score": 0.5,
        },
    ],
)  # fmt: skip
def test_argilla(tmp_path: Path, row: dict[str, Any]) -> None:
    """Submitted answers are a column, in each form that its versions write; drafts and suggestions are none."""
    shape, [found] = read(tmp_path, row)
    assert (shape, found["text"], found["mood"]) == ("Argilla", "굿", "good")
    assert "bad" not in json.dumps(found)


def test_argilla_of_before(tmp_path: Path) -> None:
    """An annotation counts once it is validated; a prediction never does."""
    base = {"inputs": {"text": "굿"}, "prediction": [["bad", 0.9]], "annotation": "good", "annotation_agent": "kim"}
    shape, found = read(tmp_path, {"id": 1, "status": "Validated", **base}, {"id": 2, "status": "Default", **base})
    assert (shape, [row.get("annotation") for row in found]) == ("Argilla", ["good", None])


def test_plain_rows_are_left_alone(tmp_path: Path) -> None:
    """A file that only resembles an export is read as it is."""
    row = {"id": 1, "text": "굿", "data": "2024-01-01", "label": ["good"], "fields": "x"}
    assert read(tmp_path, row) == (None, [row])
