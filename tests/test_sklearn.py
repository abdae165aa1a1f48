"""The classifier of scikit-learn: its checks, its tools around it, and what a project would have said."""

from __future__ import annotations

import doctest
import gc
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import SENTIMENT, python
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from labeler import Choice, Choices, Label, Task
from labeler.errors import BackendError, InputError, NotFound
from labeler.ingest.options import ImportOptions
from labeler.sklearn import LabelerClassifier


class OfNumbers(LabelerClassifier):
    """Reads rows of numbers as texts: the checks of scikit-learn have nothing but numbers, and skip what takes texts.

    A number is a word for where it lies, and one for where it lies roughly.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False
        return tags

    def fit(self, X: Any, y: Any) -> OfNumbers:
        super().fit(_as_texts(validate_data(self, X)), y)
        return self

    def predict(self, X: Any) -> Any:
        return super().predict(self._read(X))

    def predict_proba(self, X: Any) -> Any:
        return super().predict_proba(self._read(X))

    def _read(self, X: Any) -> list[str]:
        check_is_fitted(self)
        return _as_texts(validate_data(self, X, reset=False))


def _as_texts(rows: Any) -> list[str]:
    return [" ".join(_words(column, float(number)) for column, number in enumerate(row)) for row in rows]


def _words(column: int, number: float) -> str:
    name = "abcdefghijklmnopqrstuvwxyz"[column % 26] * 3
    return f"{name}{round(3 * number)} {name}about{round(number)}"


@parametrize_with_checks([OfNumbers()])
def test_the_checks_of_scikit_learn_hold(estimator: Any, check: Callable[[Any], None]) -> None:
    """All of them, where numbers are written as texts."""
    check(estimator)


# As a classifier of texts

GOOD = (
    "사과가 아삭하고 달아요",
    "배가 시원하고 맛있어요",
    "포장이 꼼꼼하고 좋아요",
    "귤이 달고 싱싱해요",
    "아주 맛있게 먹었어요",
)
BAD = (
    "배송이 늦고 상자가 찢어졌어요",
    "냄새가 나서 버렸어요",
    "너무 시고 맛없어요",
    "반이 썩어서 왔어요",
    "다시는 안 사요",
)
ENDS = ("우리 아이가", "어머니께서", "직장 동료들", "지난주에", "명절 선물로", "두 번째", "친구 집에")
TEXTS = [f"{text} {end} {n}호" for n, end in enumerate(ENDS) for pair in zip(GOOD, BAD, strict=True) for text in pair]
LABELS = ["positive", "negative"] * (len(TEXTS) // 2)
TOPICS = Task("topics", Choices(Label("taste", {"ko": "맛"}), Label("delivery", {"ko": "배송"}), Label("price")))


@pytest.fixture(scope="module")
def fitted() -> LabelerClassifier:
    return LabelerClassifier("sentiment").fit(TEXTS, LABELS)


def test_a_task_that_is_loaded_is_named(fitted: LabelerClassifier) -> None:
    """Its labels have titles and definitions; those that no text had are no answers."""
    assert fitted.classes_.tolist() == ["negative", "positive"]
    assert fitted.predict(["배가 달아요", "상자가 찢어져 왔어요"]).tolist() == ["positive", "negative"]
    chances = fitted.predict_proba(TEXTS[:4])
    assert chances.shape == (4, 2)
    assert np.allclose(chances.sum(axis=1), 1)


def test_it_says_what_a_project_would_have_suggested(instance: Any, fitted: LabelerClassifier) -> None:
    """The same texts, imported and approved, give a text that comes later the same label and score."""
    project_id = instance.create_project("reviews", "ko", {"tasks": ["sentiment"], "embedder": "lexical"})
    project = instance.store.projects.get(project_id)
    path = instance.folder / "reviews.csv"
    rows = [f"{n},{text},{label}\n" for n, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True), 1)]
    path.write_text("id,text,label\n" + "".join(rows) + "new,상자가 다 젖어서 왔어요,\n", encoding="utf-8")
    instance.importer(project).run(path, ImportOptions("text", "id", "", {"sentiment": "label"}))
    task = replace(SENTIMENT, schema=Choice(*(label for label in SENTIMENT.schema.labels if label.name != "neutral")))
    mine = LabelerClassifier(task, embedder="lexical").fit(TEXTS, LABELS)
    instance.plugins.tasks["sentiment"] = task
    project_task = instance.project_task(project, "sentiment")
    instance.ensemble(project, project_task).fit()
    new = instance.store.records.by_key(project_id, "new")
    (said,) = instance.suggester(project, project_task, {"backend": "ensemble"}).now([new], save=False)
    assert mine.predict([new.text]).tolist() == [said.value] == ["negative"]
    assert mine.predict_proba([new.text])[0].tolist() == pytest.approx(
        [said.scores["negative"], said.scores["positive"]]
    )


def test_it_is_cross_validated() -> None:
    """Each fold learns in a store of its own."""
    assert cross_val_score(LabelerClassifier(), TEXTS, LABELS, cv=3).mean() > 0.9


def test_k_and_retriever_are_searched_behind_other_steps() -> None:
    """They choose which examples vote, so that each pair has a score of its own."""
    pipeline = Pipeline([("strip", FunctionTransformer(_stripped)), ("label", LabelerClassifier(backend="nearest"))])
    grid = {"label__k": [1, 9], "label__retriever": ["similar", "random"]}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(TEXTS, LABELS)
    scores = dict(zip(map(str, search.cv_results_["params"]), search.cv_results_["mean_test_score"], strict=True))
    assert search.best_params_["label__retriever"] == "similar"
    assert len(set(scores.values())) > 1
    assert search.predict(["  배가 달아요  "]).tolist() == ["positive"]


def _stripped(texts: list[str]) -> list[str]:
    return [text.strip() for text in texts]


def test_a_pickle_answers_as_before(fitted: LabelerClassifier) -> None:
    """It has the database itself, in another process too, and a clone has learned nothing."""
    read = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(fitted))))
    assert np.array_equal(read.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    with pytest.raises(NotFittedError):
        clone(fitted).predict(TEXTS)


def test_what_was_learned_leaves_no_folder() -> None:
    """The temporary folder goes with the classifier, and with what it learned before."""
    model = LabelerClassifier().fit(TEXTS[:10], LABELS[:10])
    first = Path(model._learned.folder.name)
    model.fit(TEXTS[:12], LABELS[:12])
    second = Path(model._learned.folder.name)
    assert (first.exists(), second.exists()) == (False, True)
    del model
    gc.collect()
    assert not second.exists()


def test_sets_of_labels_are_an_indicator() -> None:
    """Its columns are the labels of the task; their chances are each its own."""
    y = np.array([[1, 0, 0], [0, 1, 0]] * (len(TEXTS) // 2))
    y[::10, 2] = 1
    model = LabelerClassifier(TOPICS).fit(TEXTS, y)
    assert model.classes_.tolist() == ["taste", "delivery", "price"]
    assert model.predict(TEXTS[:2])[:, :2].tolist() == [[1, 0], [0, 1]]
    assert ((model.predict_proba(TEXTS) >= 0) & (model.predict_proba(TEXTS) <= 1)).all()


def test_nearest_gives_shares_of_votes() -> None:
    """Two of three neighbours of about the same distance are two thirds."""
    model = LabelerClassifier(backend="nearest", k=3).fit(["aaaa bbbb c", "aaaa bbbb d", "aaaa bbbb e"], [1, 1, 0])
    assert model.predict_proba(["aaaa bbbb"])[0].tolist() == pytest.approx([1 / 3, 2 / 3], abs=0.05)
    assert model.predict(["aaaa bbbb"]).tolist() == [1]


@pytest.mark.parametrize(
    ("settings", "X", "y", "said"),
    [
        (
            {"task": SENTIMENT},
            TEXTS,
            ["meh", "bad"] * 35,
            "'bad' is no label of the task sentiment; there are: positive",
        ),
        ({"task": SENTIMENT}, TEXTS, np.eye(70, 3), "y has sets of labels, and the task sentiment takes other values"),
        ({"task": TOPICS}, TEXTS, LABELS, "y has one label each, and the task topics takes other values"),
        ({"task": TOPICS}, TEXTS, np.eye(70, 2), "The indicator has 2 columns, and the task topics has 3 labels"),
        ({"task": "keywords"}, TEXTS, LABELS, "The task keywords has no labels to choose from; name one that has"),
        ({}, [["a"], ["b"]], [0, 1], "X must be a list of texts, and has a list; of a table give one column"),
        ({}, "a text", [0], "X is one text; give a list of texts"),
        ({}, ["a", " "], [0, 1], "Text 2 cannot be learned from: "),
        ({}, ["a", "b"], [["x"], ["y", "z"]], "legacy multi-label data representation"),
    ],
)
def test_what_cannot_be_learned_from_is_said(settings: dict[str, Any], X: Any, y: Any, said: str) -> None:
    """As a ValueError, with one sentence."""
    with pytest.raises(ValueError, match=re.escape(said)):
        LabelerClassifier(**settings).fit(X, y)


def test_a_backend_that_costs_something_is_refused() -> None:
    """Cross-validation would ask for each fold again; a name that is not there is said like everywhere."""
    with pytest.raises(InputError, match="openai costs something or loads weights"):
        LabelerClassifier(backend="openai").fit(TEXTS, LABELS)
    with pytest.raises(NotFound, match="No backend 'guess'"):
        LabelerClassifier(backend="guess").fit(TEXTS, LABELS)


def test_a_backend_without_an_answer_says_why() -> None:
    """Nothing is guessed in its place."""
    with pytest.raises(BackendError, match="Text 1 has no answer: The probe needs at least 8 approved examples"):
        LabelerClassifier(backend="probe").fit(TEXTS[:4], LABELS[:4]).predict(TEXTS)


def test_without_scikit_learn_the_command_that_installs_it_is_said() -> None:
    """The rest of Labeler does without."""
    code = """if True:
        import sys
        sys.modules["sklearn"] = sys.modules["sklearn.base"] = None
        import labeler.instance
        from labeler.errors import MissingExtra
        try:
            import labeler.sklearn
        except MissingExtra as error:
            print(error)
        """
    said, _ = python(code).communicate(timeout=60)
    assert said == "The package scikit-learn is not installed; install it with: pip install 'labeler-rag[sklearn]'\n"


def test_the_example_of_its_docstring_runs() -> None:
    """As somebody would type it."""
    found = doctest.DocTestFinder(recurse=False).find(LabelerClassifier, "LabelerClassifier")
    assert [doctest.DocTestRunner().run(one) for one in found] == [(0, 5)]
