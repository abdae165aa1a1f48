"""The demonstration project: what it holds, what is approved, and that suggestions stand on approved examples."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from labeler import demo, strictjson
from labeler.accounts import add_reviewer
from labeler.cli import cli
from labeler.instance import Instance
from labeler.text import clean_text
from labeler.web.desk_view import Shown
from labeler.worker import Worker

pytestmark = pytest.mark.slow
TASKS = ["sentiment", "emotion", "keywords", "categories", "summary_polarity", "summary_category", "usage"]
LABELLED = ["sentiment", "emotion", "categories"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Instance, dict[str, Any]]]:
    """The demonstration project as ``labeler demo`` makes it, after its worker has done everything there is to do."""
    folder: Path = tmp_path_factory.mktemp("demo")
    with Instance(folder) as instance:
        project = demo.create(instance, add_reviewer(instance.store, "demo", None, "admin"))
        Worker(instance).run_until_idle()
        yield instance, project


def labeler(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


@pytest.fixture
def instance(shop: tuple[Instance, dict[str, Any]]) -> Instance:
    return shop[0]


@pytest.fixture
def project(shop: tuple[Instance, dict[str, Any]]) -> dict[str, Any]:
    return shop[1]


def test_there_are_reviews_in_two_languages() -> None:
    """More than 200 Korean and 60 English reviews, several a product, each with an id and a text of its own."""
    rows = demo.reviews()
    languages = Counter(row["lang"] for row in rows)
    assert languages["ko"] > 200 and languages["en"] > 60 and languages.total() == len(rows)
    assert len({row["id"] for row in rows}) == len({row["text"] for row in rows}) == len(rows)
    assert max(Counter(row["product"] for row in rows).values()) >= 3
    assert all(clean_text(row["text"]) == row["text"] for row in rows)


def test_gold_labels_of_all_reviews_parse(instance: Instance, project: dict[str, Any]) -> None:
    """Every review has a gold label for each of the seven tasks, and it is canonical after one parse."""
    gold = demo.gold(instance, project)
    tasks = instance.tasks_of(project)
    texts = {row["id"]: row["text"] for row in demo.reviews()}
    assert list(tasks) == TASKS
    assert len(gold) == len(demo.reviews())
    for id_, labels in gold.items():
        for name, value in labels.items():
            assert tasks[name].schema.parse(value, texts[id_]) == value, (id_, name)


def test_every_label_of_the_short_schemas_occurs_in_gold(instance: Instance, project: dict[str, Any]) -> None:
    """The gold set uses every sentiment and every heading of the categories."""
    gold = demo.gold(instance, project)
    assert {labels["sentiment"] for labels in gold.values()} == {"positive", "neutral", "negative"}
    headings = {leaf.split("/")[0] for labels in gold.values() for leaf in labels["categories"]}
    known = {label.name for label in instance.task_of(project, "categories").schema.labels if not label.parent}
    assert headings == known


def test_about_sixty_are_approved_for_all_tasks(instance: Instance, project: dict[str, Any]) -> None:
    """The marked reviews are approved for all seven tasks, with their gold labels and the origin named."""
    marked = {row["id"] for row in demo.reviews() if row["approved"]}
    gold = demo.gold(instance, project)
    assert 50 <= len(marked) <= 70
    for task in TASKS:
        pages = instance.store.annotations.approved_pages(project["id"], task)
        rows = {row["key"]: row for page in pages for row in page}
        assert set(rows) == marked
        for key, row in rows.items():
            assert strictjson.loads(row["value"]) == gold[key][task]
            assert (row["origin"], row["how"]) == (demo.ORIGIN, "imported")


def test_nothing_of_the_held_out_gold_is_in_the_store(instance: Instance, project: dict[str, Any]) -> None:
    """The labels of the other reviews are never loaded: those records are pending and have no annotation."""
    held_out = [row["id"] for row in demo.reviews() if not row["approved"]]
    assert len(held_out) >= 190
    for key in held_out:
        record = instance.store.records.by_key(project["id"], key)
        assert record is not None
        assert all(instance.store.annotations.history(record.id, task) == [] for task in TASKS)
        assert "labels" not in record.metadata
    for task in TASKS:
        assert instance.store.work.counts(project["id"], task)["pending"] == len(held_out)


def test_sample_is_imported_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files of the sample come in whole by the commands that are named, with the labels that they hold."""
    monkeypatch.setenv("LABELER_INSTANCE", str(tmp_path / "instance"))
    said = labeler("demo", "--sample", str(tmp_path / "a shop")).output
    commands = [shlex.split(line.partition("labeler ")[2]) for line in said.splitlines() if "labeler " in line]
    korean, english = (labeler(*words).output for words in commands)
    assert "text='리뷰내용' id='번호' group='상품명'" in korean
    assert "text='review' id='id' group='product'" in english
    for output, language in ((korean, "ko"), (english, "en")):
        of = [row for row in demo.reviews() if row["lang"] == language]
        approved = sum(row["approved"] for row in of)
        said = f"{len(of)} added (0 exact duplicates), 0 already there, {approved} labels approved, 0 refused"
        assert said in output
    text = (tmp_path / "a shop" / "reviews-ko.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbf"), "Excel reads Korean in a CSV by its byte order mark"


def test_sample_overwrites_nothing(tmp_path: Path) -> None:
    """Where one of its files is, none is written, and it is named."""
    (tmp_path / "reviews-en.csv").write_text("mine")
    result = labeler("demo", "--sample", str(tmp_path))
    assert result.exit_code == 1
    assert f"{tmp_path / 'reviews-en.csv'} would be overwritten" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["reviews-en.csv"]
    assert (tmp_path / "reviews-en.csv").read_text() == "mine"


@pytest.mark.parametrize("task", LABELLED)
def test_suggestions_stand_on_approved_examples(instance: Instance, project: dict[str, Any], task: str) -> None:
    """With no key every pending record gets a suggestion, and its evidence is approved and never the record itself."""
    store = instance.store
    pages = store.annotations.approved_pages(project["id"], task)
    approved = {row["id"]: row["record_id"] for page in pages for row in page}
    pending = [id_ for page in store.work.pending_pages(project["id"], task, False) for id_ in page]
    suggested = 0
    for record_id in pending:
        row = store.work.get(record_id, task)
        assert row is not None
        suggestion = store.suggestions.get(row["suggestion_id"]) if row["suggestion_id"] else None
        if suggestion is None:
            continue
        suggested += 1
        assert suggestion.failure is None
        assert suggestion.backend == "ensemble"
        assert suggestion.evidence
        for evidence in suggestion.evidence:
            assert approved[evidence.annotation_id] == evidence.record_id != record_id
            assert -1.0001 <= evidence.similarity <= 1.0001
    assert suggested == len(pending)


@pytest.mark.parametrize("task", LABELLED)
def test_first_ten_are_suggested_well_or_visibly_doubtful(
    instance: Instance, project: dict[str, Any], task: str
) -> None:
    """What a newcomer meets first is right in the main, or the desk marks it as doubtful."""
    schema, gold = instance.task_of(project, task).schema, demo.gold(instance, project)
    first = instance.store.work.front(project["id"], task, "oldest", 10)
    assert len(first) == 10
    for record in instance.store.records.many(first).values():
        row = instance.store.work.get(record.id, task)
        made = instance.store.suggestions.get(row["suggestion_id"]) if row else None
        assert made is not None and made.failure is None
        least = 1.0 if task == "sentiment" else 0.3
        assert Shown(made).doubtful or schema.agreement(made.value, gold[record.key][task]) >= least, (
            record.key,
            made.value,
        )


def test_a_plugins_task_is_left_out(tmp_path: Path) -> None:
    """The reviews of the demonstration have no labels of it."""
    (tmp_path / "plugins").mkdir()
    source = "from labeler import Number, Task, hookimpl\n@hookimpl\ndef register_tasks():\n"
    source += "    return [Task('grams', Number())]\n"
    (tmp_path / "plugins" / "grams.py").write_text(source)
    with Instance(tmp_path) as instance:
        project = demo.create(instance, add_reviewer(instance.store, "demo", None, "admin"))
        assert "grams" in instance.plugins.tasks and "grams" not in project["settings"]["tasks"]


def test_a_project_of_an_earlier_version_is_found(tmp_path: Path) -> None:
    """The demonstration was called otherwise: who has one goes on with it and gets no second one."""
    with Instance(tmp_path) as instance:
        before = instance.create_project("장보기 리뷰 (demo)")
        assert demo.create(instance, add_reviewer(instance.store, "demo", None, "admin"))["id"] == before
        assert len(instance.store.projects.all()) == 1


def test_runs_of_the_demonstration_finish_and_cost_nothing(instance: Instance, project: dict[str, Any]) -> None:
    """One for each task with labels, all finished, without a call; texts are suggested as records are opened."""
    runs = instance.store.ledger.runs(project["id"])
    assert sorted(run["task"] for run in runs) == sorted(LABELLED)
    assert {(run["state"], run["calls"], run["failed"]) for run in runs} == {("finished", 0, 0)}


def test_second_start_finds_the_project(instance: Instance, project: dict[str, Any]) -> None:
    """Made once: another start opens the same project and adds nothing."""
    again = demo.create(instance, 1)
    assert again["id"] == project["id"]
    assert instance.store.records.counts(project["id"])["records"] == len(demo.reviews())
    assert len(instance.store.ledger.runs(project["id"])) == len(LABELLED)


def test_reviews_of_one_product_are_no_copies(instance: Instance, project: dict[str, Any]) -> None:
    """The reviews were written one by one: none is an exact or near duplicate of another."""
    assert instance.store.records.counts(project["id"])["duplicates"] == 0
    assert instance.store.records.near_duplicates(project["id"]) == 0
