"""The script behind docs/measured.md, on a few reviews of the demonstration, and the document that it writes into."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_openai import FakeOpenAI

from labeler import demo
from labeler.instance import Instance

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def agreement() -> ModuleType:
    """The script, which is no package: it is loaded from its file, with its neighbours in reach."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("agreement", ROOT / "benchmarks" / "agreement.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["agreement"] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def rows(count: int, task: str = "sentiment") -> list[dict[str, Any]]:
    name = "label" if task == "sentiment" else "labels"
    return [{"id": row["id"], "text": row["text"], name: row["labels"][task]} for row in demo.reviews()[:count]]


@pytest.fixture
def small(agreement: ModuleType) -> Any:
    return agreement.Sizes(test=12, asked=6, generated=4, approved=(0, 20, 40), prompted=40, calibrate=35, k=2)


def measured(agreement: ModuleType, instance: Instance, folder: Path, small: Any, models: list[Any]) -> list[Any]:
    data = agreement.DataSet("demo", "sentiment", "ko")
    results = agreement.Results(folder / "results.jsonl")
    agreement.measure(agreement.Study(instance, data, rows(80), small), models, results)
    return results.all


def test_free_backends_are_measured_at_each_size_of_the_pool(
    agreement: ModuleType, instance: Instance, tmp_path: Path, small: Any
) -> None:
    """Nothing approved: no answer. From then on every test record has one, and none of them was approved."""
    found = measured(agreement, instance, tmp_path, small, [])
    assert [(one.who, one.approved) for one in found] == [
        ("majority", 40), ("nearest", 0), ("nearest", 20), ("probe", 20), ("nearest", 40), ("probe", 40),
    ]  # fmt: skip
    nothing, *answered = found[1:]
    assert nothing.unread == {"unanswered": 12}
    assert all(sum(one.said.values()) == 12 and not one.unread for one in answered)
    assert all(one.agreement == one.equal for one in found)
    approved = instance.store.db.all("SELECT r.key FROM annotations a JOIN records r ON r.id = a.record_id")
    assert len(approved) == 40
    assert not {row["key"] for row in approved} & set(answered[0].agreement)


def test_a_model_is_asked_in_every_way_and_a_second_time_for_nothing(
    agreement: ModuleType, instance: Instance, tmp_path: Path, small: Any
) -> None:
    """Three ways of prompting, written, scored and calibrated; measurements that are kept are not made again."""
    with FakeOpenAI(mode="vote") as server:
        instance.change_settings({"openai_base_url": server.base_url})
        model = agreement.Model("fake", {"backend": "openai", "model_id": "gpt-4o-mini"})
        found = measured(agreement, instance, tmp_path, small, [model])
        asked = {one.how: one for one in found if one.who == "fake"}
        sent = len(server.requests)
        with Instance(tmp_path / "another") as fresh:
            fresh.change_settings({"openai_base_url": server.base_url})
            assert measured(agreement, fresh, tmp_path, small, [model]) == found
        # The "test" button is pressed again; no record is asked about.
        assert not [again for again in server.requests[sent:] if "review-" in json.dumps(again.json)]
    ways = ("zero-shot", "fixed", "balanced")
    assert set(asked) == {f"{way}, {how}" for way in ways for how in ("generated", "scored", "scored, calibrated")}
    assert len(asked["balanced, generated"].agreement) == 4
    assert len(asked["balanced, scored"].agreement) == 6
    assert asked["zero-shot, scored"].approved == 0
    assert asked["balanced, scored"].tokens_in > asked["zero-shot, scored"].tokens_in > 0
    assert all(one.seconds > 0 and not one.unread for one in asked.values())
    assert asked["fixed, scored, calibrated"].fitted["trained_on"] == 35


def test_answers_that_cannot_be_read_agree_by_nothing_and_are_counted(
    agreement: ModuleType, instance: Instance, tmp_path: Path, small: Any
) -> None:
    """A model whose answers are cut off: the table says how many were not read, and why."""
    with FakeOpenAI(mode="length") as server:
        instance.change_settings({"openai_base_url": server.base_url})
        study = agreement.Study(instance, agreement.DataSet("demo", "sentiment", "ko"), rows(80), small)
        model = agreement.Model("fake", {"backend": "openai", "model_id": "gpt-4o-mini"})
        found = study.generated(model, agreement.WAYS[0])
    assert found.unread == {"truncated": 4}
    assert set(found.agreement.values()) == {0.0}


def test_sets_of_labels_agree_in_part(agreement: ModuleType, instance: Instance, tmp_path: Path, small: Any) -> None:
    """For a set of labels the table has both: MASI, and the share of answers that are equal."""
    data = agreement.DataSet("emotions", "emotion", "ko")
    results = agreement.Results(tmp_path / "results.jsonl")
    agreement.measure(agreement.Study(instance, data, rows(80, "emotion"), small), [], results)
    last = results.all[-1]
    assert sum(last.equal.values()) < sum(last.agreement.values()) < 12
    head = agreement.table(data, results.all, small).splitlines()[0]
    assert "| agreement | equal |" in head


def test_the_interval_of_a_mean_is_never_nothing(agreement: ModuleType) -> None:
    """Ten right answers of ten are no certainty, and more answers are a narrower interval."""
    assert 0.1 < agreement.half_width([1.0] * 10) < 0.4
    assert agreement.half_width([0.0, 1.0] * 50) == pytest.approx(0.098, abs=0.001)
    assert agreement.half_width([0.0, 1.0] * 500) < 0.04


def test_a_row_is_held_against_the_neighbours_on_the_same_records(agreement: ModuleType) -> None:
    """The column "vs nearest" is the mean of paired differences over the records that both were asked about."""

    def row(**agreed: float) -> Any:
        return agreement.Measurement("d", "w", "vote", 1, agreed, agreed)

    assert agreement.beside(row(a=1.0, b=1.0), row(a=0.0, b=1.0, c=1.0)).startswith("+0.50 ± ")
    base = row(a=1.0)
    assert agreement.beside(base, base) == ""


@pytest.mark.parametrize(
    ("text", "negates"),
    [("맛이 안 나요", True), ("달지 않아요", True), ("못 먹겠어요", True), ("안녕하세요 맛있어요", False),
     ],
)  # fmt: skip
def test_negation_is_found_by_its_words(agreement: ModuleType, text: str, negates: bool) -> None:
    """A rough mark of negation, for the second table alone."""
    assert bool(agreement.NEGATION.search(text)) is negates


def test_what_stands_around_the_tables_stays(agreement: ModuleType) -> None:
    """New tables go between the marks; without marks nothing is written."""
    document = f"before\n{agreement.BEGIN}\nold\n{agreement.END}\nafter\n"
    assert agreement.written(document, "new") == f"before\n{agreement.BEGIN}\n\nnew\n\n{agreement.END}\nafter\n"
    with pytest.raises(SystemExit, match="marks"):
        agreement.written("no marks", "new")


def test_an_interrupted_measurement_is_read_again(agreement: ModuleType, tmp_path: Path) -> None:
    """What was measured is there for the next start."""
    path = tmp_path / "results.jsonl"
    one = agreement.Measurement("d", "nearest", "vote", 50, {"a": 1.0}, {"a": 1.0}, note="n")
    agreement.Results(path).add(one)
    again = agreement.Results(path)
    assert again.all == [one]
    assert again.has("d", "nearest", "vote", 50) and not again.has("d", "nearest", "vote", 200)
    assert json.loads(path.read_text(encoding="utf-8"))["who"] == "nearest"


def test_the_document_names_the_command_and_has_every_column(agreement: ModuleType) -> None:
    """docs/measured.md says how it was made, and its tables are those that the script writes now."""
    text = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    assert agreement.COMMAND in text
    tables = text.partition(agreement.BEGIN)[2].partition(agreement.END)[0]
    for data in agreement.DATA_SETS:
        part = tables.partition(f"### {data.task}: {data.name}\n")[2].partition("###")[0]
        head = next(line for line in part.splitlines() if line.startswith("|"))
        assert [name for name in head.strip("| ").split(" | ") if name != "equal"] == list(agreement.COLUMNS)
        assert all(f"| {who} |" in part for who in ("majority", "nearest", "probe"))
        assert "| SmolLM2" in part or "| Gemma" in part
