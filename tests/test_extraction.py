"""Texts and keywords that are cut out of a review: its pieces, what is learned of them, and when none is suggested."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import open_instance
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler import BackendRequest, Choice, Fields, Keywords, Label, Record, Text
from labeler.backends.ensemble.extract import Model, cut_out, extracted, judged, learn
from labeler.backends.ensemble.extracting import BLANK, FEWEST, PREPARING, ExtractingBackend
from labeler.backends.ensemble.pieces import clauses, clauses_of, runs, words_of
from labeler.records import BackendFailure, Suggestion
from labeler.retrieval.lexical import LexicalEmbedder
from labeler.store import NewRecord
from labeler.text import edit_distance

EMBED = LexicalEmbedder().embed
POLARITY = Fields((Label("good"), Text(maximum=60)), (Label("bad"), Text(maximum=60)))
PHRASES = Keywords(maximum=5)
TEXT = st.text(alphabet="가나다 요고네사과배송abc.!?,\n👍é(ㅋ", max_size=80)
GOOD = ("맛있어요", "달고 아삭해요", "정말 좋아요", "향이 좋네요", "부드러워요")
BAD = ("배송이 늦었어요", "상자가 찌그러졌어요", "너무 비싸요", "냄새가 나요", "물러 터졌어요")


def mixed(n: int) -> tuple[str, dict[str, str]]:
    """A review with something good and something bad in it, each time in another order, and what is approved of it."""
    good, bad, filler = GOOD[n % 5], BAD[n % 4], f"어제 마트에서 {n}개 샀어요"
    parts = [f"{good}!", f"{bad}!", f"{filler}!"]
    return " ".join(parts[n % 3 :] + parts[: n % 3]), {"good": good, "bad": bad}


APPROVED = [mixed(n) for n in range(40)]


def phrase(text, *phrases):
    return PHRASES.parse(list(phrases), text)


# Pieces


def test_a_clause_ends_at_connectives_and_sentences():
    """Where Korean connects two statements, each can be cut out alone; so it can in English."""
    text = "달고 아삭한데 좀 비싸요 포장은 좋네요"
    assert [text[a:b] for a, b in clauses_of(text)] == ["달고 아삭한데", "좀 비싸요", "포장은 좋네요"]
    text = "It is sweet but the skin is tough. Fine."
    assert [text[a:b] for a, b in clauses_of(text)] == ["It is sweet", "but the skin is tough.", "Fine."]


def test_words_stand_without_marks_and_laughter():
    """What is around a word is not part of a keyword."""
    text = '"최고"예요!! 배송ㅋㅋ (빨라요) 100% 👍'
    assert [text[a:b] for a, b in words_of(text)] == ['최고"예요', "배송", "빨라요)", "100%"]


@settings(max_examples=80, deadline=None)
@given(text=TEXT)
def test_pieces_stand_in_the_text(text):
    """For any text: pieces have no outer white space, and one row of finite numbers each."""
    for found in (clauses(text, EMBED), runs(text, EMBED)):
        assert len(found.features) == len(found.spans) and np.isfinite(found.features).all()
        assert all(0 <= a < b <= len(text) and text[a:b] == text[a:b].strip() for a, b in found.spans)


# Corrections


@given(a=st.text("가나다", max_size=12), b=st.text("가나다", max_size=12))
def test_edit_distance_is_that_of_the_table(a, b):
    """Typed, deleted or replaced characters, the fewest that do (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y)))
    assert edit_distance(a, b) == edit_distance(b, a) == row[-1]


def test_a_wrong_piece_costs_more_than_a_blank_form():
    """Agreement is the task's own; characters are those to be typed, deleted or replaced in all parts."""
    parts = dict(POLARITY.parts)
    value = {"good": "달다", "bad": ""}
    assert judged(parts, {"good": "달다"}, value) == (1.0, 0)
    assert judged(parts, {}, value) == (0.0, 2)
    assert judged(parts, {"good": "달다", "bad": "늦다"}, value) == (0.5, 2)
    assert judged({"": Text()}, {}, {"": ""}) == (1.0, 0)
    assert judged({"": Text(minimum=1)}, {}, {"": "달다"}) == (0.0, 2)


# Learning


def test_clauses_go_to_the_part_that_reviewers_write_them_under():
    """What is praised stands under good, what is criticised under bad, what is neither under none."""
    (model,) = learn(POLARITY, APPROVED, EMBED)
    assert model.used and model.agreement > 0.7 > model.blank and model.typed < model.typed_blank
    found = cut_out(POLARITY, [model], "어제 마트에서 샀어요! 너무 비싸요! 향이 좋네요!", EMBED)
    assert found == {"good": "향이 좋네요!", "bad": "너무 비싸요!"}


@settings(max_examples=40, deadline=None)
@given(text=TEXT, seed=st.integers(0, 99))
def test_no_clause_stands_under_two_parts(text, seed):
    """Whatever the scores: each part is a piece of the text within its bounds, and no two are the same one."""
    weights = np.random.default_rng(seed).normal(0, 1, (2, clauses("a", EMBED).features.shape[1])).astype("f4")
    model = Model("text", ("good", "bad"), weights, np.ones(2, dtype="f4"), 0, used=True)
    found = cut_out(POLARITY, [model], text, EMBED)
    spans = [(a, b) for a, b in clauses_of(text)]
    assert all(words in [text[a:b] for a, b in spans] and len(words) <= 60 for words in found.values())
    assert len(found) <= len(spans)


@settings(max_examples=40, deadline=None)
@given(text=TEXT, seed=st.integers(0, 99))
def test_keywords_are_words_of_the_text_apart_from_each_other(text, seed):
    """Whatever the scores: the value is canonical, and has no more keywords than approved ones."""
    weights = np.random.default_rng(seed).normal(0, 1, (1, runs("a", EMBED).features.shape[1])).astype("f4")
    found = cut_out(PHRASES, [Model("keywords", ("",), weights, np.ones(1, dtype="f4"), 3, used=True)], text, EMBED)
    value = found.get("", [])
    assert PHRASES.parse(value, text) == value and len(value) <= 3


def test_keywords_are_judged_phrases():
    """Where reviewers mark what is judged with its judgement, the same is cut out; not the rest of the sentence."""
    words = [(text, phrase(text, value["good"], value["bad"])) for text, value in APPROVED]
    (model,) = learn(PHRASES, words, EMBED)
    assert model.used and model.most == 2
    text = "어제 마트에서 샀어요! 너무 비싸요! 향이 좋네요!"
    assert cut_out(PHRASES, [model], text, EMBED)[""] == phrase(text, "너무 비싸요", "향이 좋네요")


def test_what_helps_no_better_than_a_blank_form_is_not_suggested():
    """Where the approved texts have nothing of the reviews in them, cross-validation says so."""
    other = [(text, {"good": "xyz" * (n % 5), "bad": "qqq"}) for n, (text, _) in enumerate(APPROVED)]
    (model,) = learn(POLARITY, other, EMBED)
    assert not model.used
    assert cut_out(POLARITY, [model], APPROVED[0][0], EMBED) == {}


def test_only_texts_and_keywords_are_cut_out():
    """A part that is a choice is the neighbours' to vote on, with all that stands beside it."""
    assert extracted(POLARITY) and extracted(PHRASES) and extracted(Text())
    assert not extracted(Choice(Label("a"), Label("b")))
    assert not extracted(Fields((Label("mood"), Choice(Label("a"), Label("b"))), (Label("why"), Text())))


# The backend


@pytest.fixture
def shop(tmp_path):
    """A project with the task summary_polarity and 40 reviews."""
    with open_instance(tmp_path) as instance:
        id_ = instance.create_project("shop", "ko", {"tasks": ["summary_polarity"]})
        project = instance.store.projects.get(id_)
        task = instance.project_task(project, "summary_polarity")
        news = [NewRecord(f"r{n}", text) for n, (text, _) in enumerate(APPROVED)]
        stored = instance.store.write(lambda tx: instance.store.records.add(tx, id_, news, [task.name]))
        yield instance, project, task, [one.id for one in stored]


def approve(shop, count, value=lambda n: APPROVED[n][1]):
    instance, project, task, ids = shop
    known = [(ids[n], value(n)) for n in range(count)]
    decisions = instance.decisions(project, task)
    instance.store.write(lambda tx: decisions.import_labels(tx, known, "test", None))
    for _ in instance.chosen_embeddings(project).fill(project["id"]):
        pass


def suggest(shop, n):
    instance, project, task, ids = shop
    (made,) = instance.suggester_now(project, task).now([instance.store.records.get(ids[n])])
    return made


def test_too_few_approvals_give_no_suggestion(shop):
    """Before twenty approvals nobody can tell whether one would help."""
    approve(shop, FEWEST - 1)
    made = suggest(shop, 30)
    assert isinstance(made, BackendFailure) and made.kind == "no_examples"


def test_first_fit_is_made_by_the_worker(shop):
    """A page does not wait for it: the form is blank meanwhile, and the worker is asked."""
    instance, project, task, _ = shop
    approve(shop, 30)
    made = suggest(shop, 35)
    assert isinstance(made, BackendFailure) and made.kind == PREPARING
    assert instance.store.upkeep.is_due(project["id"], task.name)
    assert instance.ensemble(project, task).fit()
    made = suggest(shop, 35)
    assert isinstance(made, Suggestion) and (made.backend, made.made) == ("ensemble", ("extraction",))
    assert made.value == {"good": APPROVED[35][1]["good"] + "!", "bad": APPROVED[35][1]["bad"] + "!"}
    assert made.fit == instance.ensemble(project, task).learned


def test_blank_form_says_that_a_model_would_help(shop):
    """Where the approved texts are not in the reviews, nothing is suggested, and a run would pause and say why."""
    instance, project, task, _ = shop
    approve(shop, 30, lambda n: {"good": "xyz" * (1 + n % 5), "bad": ""})
    assert instance.ensemble(project, task).fit()
    made = suggest(shop, 35)
    assert isinstance(made, BackendFailure) and made.kind == BLANK and made.fatal and "language model" in made.message


def test_near_duplicates_alone_leave_the_form_blank(shop):
    """Of copies of one review nothing can be compared, and nobody waits for a fit that never comes."""
    instance, project, task, ids = shop
    approve(shop, 30)
    instance.store.write(lambda tx: instance.store.clusters.unite(tx, project["id"], ids[:30]))
    assert instance.ensemble(project, task).fit()
    made = suggest(shop, 35)
    assert isinstance(made, BackendFailure) and made.kind == BLANK


def test_other_processes_answer_by_the_same_fit(shop):
    """A fit is read back as it was stored, and one of another program is none."""
    instance, project, task, ids = shop
    approve(shop, 30)
    mine = instance.ensemble(project, task)
    assert mine.fit()
    other = ExtractingBackend(mine.index, mine.lexical)
    record = instance.store.records.get(ids[35])
    request = BackendRequest(record, task.name, task.schema)
    assert other.learned == mine.learned and list(other.complete([request])) == list(mine.complete([request]))
    assert other._unpacked({"head": {"format": 1}, "id": "", "seq": 0, "numbers": b""}) is None


def test_a_text_has_no_probe(shop):
    """The ensemble's model of the vectors alone is for labels."""
    instance, project, task, _ = shop
    request = BackendRequest(Record(1, 1, "r", "x"), task.name, task.schema)
    (answer,) = instance.backend(project, task, "probe").complete([request])
    assert answer.kind == "setup" and answer.fatal
