"""What people are told says itself in their language: a template that the catalogue has, and what fills it."""

from __future__ import annotations

import ast
import pickle
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalogue import PACKAGE, calls, catalogue, marks, modules
from flask import Flask
from flask_babel import force_locale

from labeler.catalogues import in_language
from labeler.errors import Conflict, InputError, LabelError, NotFound, SettingError
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance
from labeler.labels import Choice, Choices, Fields, Keywords, Label, LabelSchema, Rating, Spans, Text
from labeler.prelabel import runs
from labeler.records import ParseFailure, Record
from labeler.sentence import Sentence, recalled, stored
from labeler.task import Task
from labeler.web import words
from labeler.worker import Worker

OUTER = Sentence("the label was left out: %(why)s", why=Sentence("%(name)r is missing", name="맛"))
# What carries a sentence without being one, and which of its arguments that is.
CARRIERS = {"ParseFailure": 1, "BackendFailure": 1, "RowError": 2}
# What no page shows, by what it begins with, and why. The rest of it is built where it is raised.
BUILT = {
    "the command line": (
        "There is no instance at", "--public-url", "--trusted-proxy", "Cannot listen on", "Refusing to listen",
        "The limit on open files", "The instance folder", "… would be overwritten", "… exists already",
        "There is no folder", "There is no database at", "… is gone, but", "… is empty (0 bytes)",
        "… is not a database any more", "… is cut off", "… was written by a newer version", "… needs the migration",
    ),
    "authors of tasks, before the page is there": (
        "The task name", "The task …", "The … of the task", "No guidelines …", "At most … labels and at least",
        "A label must be made by Label", "A scale from", "There are no numbers from", "The step of a number is",
    ),
    "programmers": (
        "No decision …", "'have' must be", "'count' must be", "… must be a whole number", "… must be a text of at most",
        "No language …", "Only these can be changed", "The secret of the marks",
    ),
}  # fmt: skip


# A sentence


def test_a_sentence_is_its_english_text() -> None:
    """Whoever knows nothing of templates prints it, compares it, and looks it up as any text."""
    assert OUTER == "the label was left out: '맛' is missing"
    assert f"{OUTER}!" == "the label was left out: '맛' is missing!"
    assert {str(OUTER): 1}[OUTER] == 1


def test_a_template_without_values_is_taken_as_it_is() -> None:
    """A per cent sign in it is no hole."""
    assert Sentence("100 % of %(n)s") == "100 % of %(n)s"


def test_a_sentence_says_what_is_in_it_in_the_same_language() -> None:
    """The sentence within, and the names of the code that the page calls otherwise."""
    korean = {"the label was left out: %(why)s": "빠짐 · %(why)s", "%(name)r is missing": "없음: %(name)r"}
    assert OUTER.say(lambda text: korean[text]) == "빠짐 · 없음: '맛'"
    assert Sentence("%(setting)s is 3", setting="k").say(str, {"setting": lambda name: f"<{name}>"}) == "<k> is 3"


def test_several_sentences_as_one_are_said_each() -> None:
    joined = Sentence.joined([Sentence("a"), Sentence("b %(n)s", n=2)])
    assert joined == "a; b 2"
    assert joined.say(lambda text: text.replace("a", "가").replace("b", "나")) == "가; 나 2"


def test_a_translation_whose_holes_do_not_fit_leaves_the_english() -> None:
    """The mistake of a catalogue's author costs the translation, not the page."""
    assert Sentence("%(n)s rows", n=2).say(lambda text: "%(rows)s행") == "2 rows"


def test_what_is_hidden_is_hidden_in_the_sentence_within_too() -> None:
    inner = Sentence("no model %(model)s", model="sk-secret")
    hidden = Sentence("failed: %(why)s", why=inner).mapped(lambda text: text.replace("sk-secret", "[key]"))
    assert hidden == "failed: no model [key]"
    assert isinstance(hidden.values["why"], Sentence)


def test_a_sentence_outlives_a_pickle() -> None:
    """A process that works for another hands its errors over so."""
    back = pickle.loads(pickle.dumps(OUTER))
    assert (back, back.template) == (OUTER, OUTER.template)


# Errors


def test_an_error_is_a_template_and_its_values() -> None:
    error = NotFound("There is no run number %(number)s", number=7)
    assert str(error) == "There is no run number 7"
    assert (error.sentence.template, error.sentence.values) == ("There is no run number %(number)s", {"number": 7})


def test_an_error_may_be_made_of_what_is_no_text() -> None:
    """As any exception of Python may, in a plugin say."""
    assert (str(InputError(KeyError("taste"))), InputError(3).sentence.template) == ("'taste'", "3")  # type: ignore[arg-type]


def test_the_text_of_an_error_is_still_its_sentence() -> None:
    """So what catches an error and keeps its text keeps what it takes to translate it."""
    text = str(LabelError("%(name)r is missing", "missing_part", name="맛"))
    assert isinstance(text, Sentence)
    assert text.values == {"name": "맛"}


def test_an_error_within_an_error_says_itself() -> None:
    inner = LabelError("%(name)r is missing", name="맛")
    assert InputError("the label was left out: %(why)s", why=inner).sentence == OUTER


def test_an_error_says_which_setting_it_is_about() -> None:
    """So that a form marks the field; one about none says none."""
    assert SettingError("%(setting)s is %(value)s", setting="k", value=500).setting == "k"
    assert NotFound("There is no run number %(number)s", number=7).setting == ""


def test_values_may_be_called_as_the_errors_own_are() -> None:
    """``current`` and ``kind`` of an error are given by place, so a hole may have that name."""
    error = Conflict("it is %(current)s now", {"version": 3}, current="rejected")
    assert (str(error), error.current) == ("it is rejected now", {"version": 3})


# What the store keeps


def test_the_store_keeps_a_sentence_with_its_template() -> None:
    """Written as a value like any other; read back, it can be said in another language."""
    with sqlite3.connect(":memory:") as db:
        (kept,) = db.execute("SELECT ?", (OUTER,)).fetchone()
    back = recalled(kept)
    assert back == OUTER
    assert isinstance(back.values["why"], Sentence)
    assert kept == stored(OUTER)


@pytest.mark.parametrize("text", ["Something failed", '["one", "two"]', '["a %(n)s", {"m": 1}]', '["x", 3}]', "", "[]"])
def test_what_an_older_program_kept_stays_as_it_is(text: str) -> None:
    """English without values, whatever it looks like."""
    assert recalled(text) == text


@pytest.mark.parametrize(
    "text",
    [
        '["x", {"a": ["b", "c"]}]', '["x", {"a": [1, 2]}]', '["%(a)c", {"a": 99999999999}]',
        '["%(a)9999999999s", {"a": 1}]', '["%(a).9999999999s", {"a": 1}]', '["x", ' + "[" * 100_000 + "{}]",
    ],
    ids=["list", "numbers", "letter", "width", "places", "depth"],
)  # fmt: skip
def test_what_a_server_said_is_taken_for_no_sentence(text: str) -> None:
    """What it sent may be kept as it is, and may look like a sentence: it breaks no page and takes no memory."""
    assert recalled(text) == text


def test_a_sentence_without_values_is_kept_as_plain_text() -> None:
    assert stored(Sentence("Something failed")) == "Something failed"


def test_why_a_run_stopped_is_kept_as_a_sentence(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin may say as much as it likes: what it said is cut, and the sentence around it stays one."""

    def fail(*_: object) -> None:
        raise RuntimeError("x" * 1000)

    monkeypatch.setitem(instance.plugins.executors, "local", fail)
    path = instance.folder / "reviews.csv"
    path.write_text("text\nCrisp and sweet\n", encoding="utf-8")
    project = instance.store.projects.get(instance.create_project("shop", "en", {"tasks": ["sentiment"]}))
    instance.importer(project).run(path, ImportOptions(text="text"))
    run_id = runs.start(instance.store, project["id"], "sentiment", [1], {"backend": "nearest"})
    assert Worker(instance).move_run(run_id) == "paused"
    kept = recalled(instance.store.ledger.run(run_id)["message"])
    assert kept.template == "%(error)s in the task or backend: %(reason)s"
    assert kept.values == {"error": "RuntimeError", "reason": "x" * 500}


@pytest.mark.parametrize("text", ["x" * 1000, Sentence("it failed: %(why)s", why="x" * 1000)])
def test_what_upkeep_failed_with_is_kept_short(instance: Instance, text: str) -> None:
    """It stands on the page of a project; a sentence stays one."""
    upkeep, place = instance.store.upkeep, (instance.create_project("shop"), ":vectors")
    instance.store.write(lambda tx: upkeep.take(tx, *place, "token"))
    instance.store.write(lambda tx: upkeep.failed(tx, *place, "token", text))
    (row,) = upkeep.troubles(place[0])
    kept = recalled(row["trouble"])
    assert kept == text[: text.index("x") + 500]
    assert (kept.values == {}) is not isinstance(text, Sentence)


# Languages


def test_a_page_says_a_sentence_in_its_language(app: Flask) -> None:
    """Fresh, or as the store has it; one that nobody translated stays as it is."""
    missing = LabelError("%(name)r is not one of the labels: %(labels)s", name="x", labels="a, b")
    nested = Sentence("the label was left out: %(why)s", why=missing)
    with app.test_request_context(), force_locale("ko"):
        assert words.translated(nested) == "라벨이 빠졌어요 · 없는 라벨이에요: 'x'. 라벨 목록: a, b"
        assert words.translated(stored(nested)) == words.translated(nested.parts()) == words.translated(nested)
        assert words.translated("nothing that anybody translated") == "nothing that anybody translated"


def test_nothing_is_said_of_nothing(app: Flask) -> None:
    """To a catalogue the empty text is the key of its own header."""
    with app.test_request_context(), force_locale("ko"):
        assert words.translated("") == words.translated(None) == in_language("", "ko") == ""


def test_a_prompt_says_a_sentence_in_its_language() -> None:
    """A model that is asked in Korean is told in Korean why its answer cannot be read."""
    reason = Sentence("At most %(n)s label(s) may be chosen, got %(got)s", n=1, got=2)
    assert re.search("[가-힣]", in_language(reason, "ko"))
    assert in_language(reason, "en") == reason


SCHEMAS: dict[str, LabelSchema] = {
    "choice": Choice(Label("a"), Label("b")),
    "choices": Choices(Label("a"), Label("b"), maximum=1),
    "rating": Rating(1, 5),
    "keywords": Keywords(maximum=2),
    "spans": Spans(Label("a")),
    "text": Text(minimum=3, maximum=5),
    "fields": Fields((Label("good"), Text(maximum=5)), (Label("bad"), Text())),
}
ANSWERS = (
    "", "7", "긍정", '{"t": "a"', '{"t": NaN}', '{"t": "a", "t": "b"}', '{"other": 1}', '{"t": 5}', '{"t": "c"}',
    '{"t": "A"}', '{"t": ["a", "b"]}', '{"t": 9}', '{"t": "x"}', '{"t": ["없는 말"]}', '{"t": [5]}', '{"t": [""]}',
    '{"t": ["달고", "맛", "요"]}', '{"t": [{"label": "a"}]}', '{"t": [{"label": "a", "text": "없다"}]}',
    '{"t": "너무 긴 글이에요"}', '{"t": {"good": "좋다"}}', '{"t": {"good": "너무 길어요 정말", "bad": ""}}',
    '{"t": {"ugly": ""}}',
)  # fmt: skip


@pytest.mark.parametrize("kind", SCHEMAS)
def test_reasons_of_unreadable_answers_are_korean(app: Flask, kind: str) -> None:
    """What the parsers really say of bad answers, in the words of the page."""
    task, record = Task("t", SCHEMAS[kind]), Record(1, 1, "r1", "달고 맛있어요")
    found = [task.parse_completion(answer, record) for answer in ANSWERS]
    reasons = [failure.message for failure in found if isinstance(failure, ParseFailure)]
    assert len(reasons) > 5
    with app.test_request_context(), force_locale("ko"):
        assert [reason for reason in reasons if words.translated(reason) == reason] == []


# The code


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_hole_is_filled_where_a_sentence_is_made(path: Path) -> None:
    """A hole without a value would raise KeyError in place of the error; a value without a hole says nothing."""
    wrong = []
    for call, template in calls(path, marks() - {"_", "N_"}):
        given = {keyword.arg for keyword in call.keywords}
        if isinstance(template, ast.Constant) and isinstance(template.value, str) and None not in given:
            holes = set(re.findall(r"%\((\w+)\)", template.value))
            wrong += [(call.lineno, template.value)] if holes != given else []
    assert wrong == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_sentence_is_put_together_where_it_is_raised(path: Path) -> None:
    """Text with values spliced in cannot be translated; what no page shows is listed above with its reason."""
    beginnings = tuple(beginning for group in BUILT.values() for beginning in group)
    if path == PACKAGE / "plugins.py":
        pytest.skip("it speaks to authors of plugins, of what they wrote")
    assert [text for text in spliced(path) if not text.startswith(beginnings)] == []


def test_the_list_holds_nothing_that_is_said_no_more() -> None:
    said = [text for path in modules() for text in spliced(path)]
    beginnings = [beginning for group in BUILT.values() for beginning in group]
    assert [beginning for beginning in beginnings if not any(text.startswith(beginning) for text in said)] == []


def spliced(path: Path) -> Iterator[str]:
    """Yield what a module builds for people with f-strings or ``+``, and plain texts where a sentence belongs."""
    for _, template in calls(path, marks() - {"_"}):
        yield from (text for text in [built(template)] if text)
    for call, _ in calls(path, set(CARRIERS)):
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        message = call.args[CARRIERS[name]] if len(call.args) > CARRIERS.get(name, 9) else None
        if isinstance(message, ast.JoinedStr | ast.BinOp) or (isinstance(message, ast.Constant) and message.value):
            yield built(message) or ast.unparse(message)


def built(node: ast.expr) -> str:
    """Return a text with … for what is spliced in; an empty one for what is not built."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ast.unparse(node) if isinstance(node, ast.BinOp) else ""


def test_each_korean_sentence_is_korean() -> None:
    """None is left in English, but for those that are made of values alone."""
    holes = re.compile(r"%\(\w+\)[rs]|\([^)]*\)")
    english = [str(one.id) for one in catalogue() if one.id and not re.search("[가-힣]", str(one.string))]
    assert [text for text in english if len(re.findall(r"[A-Za-z]{2,}", holes.sub("", text))) > 4] == []
