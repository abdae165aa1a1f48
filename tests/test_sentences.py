"""Every sentence that the model side says is one that the pages know, so that a Korean page stays Korean."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest
from flask import Flask
from flask_babel import force_locale

import labeler
from labeler.labels import Choice, Choices, Fields, Keywords, Label, LabelSchema, Rating, Spans, Text
from labeler.records import ParseFailure, Record
from labeler.task import Task
from labeler.web import sentences

PACKAGE = Path(labeler.__file__).parent
ROOMS = (
    "backends/local", "backends/openai", "backends/endings.py", "backends/nearest.py", "backends/ensemble", "prelabel",
    "store/ledger_runs.py", "store/ledger_items.py", "store/ledger_calls.py", "store/limits.py", "store/batches.py",
    "store/calibrations.py", "labels", "task.py", "strictjson.py", "suggesters.py", "ingest",
    "evaluation",
)  # fmt: skip

# What no page shows, by what it begins with, and why.
NOT_SHOWN = {
    "the log, by way of an error": ("this tokenizer does not",),
    "the model": (
        "Answer with the word ok.", "Answer with the JSON object", "- 날짜:", "- a date:", '- "": ', "at least …",
        "at most …", "… 이상", "… 이하", "… 간격", "in steps of", "단위 …", "in … (answer", "a number",
    ),
    "the command line; the page has words of its own": ("… answered in … ms.",),
    "programmers": (
        "Calls of a billed backend", "… results for a batch", "Prompt … has no tokens", "Candidate … of prompt",
        "Prompt … and its longest answer", "structured is …",
    ),
    "authors of tasks, before the page is there": (
        "The task name …", "The task … has the unit", "No guidelines …", "At most … labels and at least",
        "A … schema has no labels", "A label must be made by Label", "The task … needs a",
        "The … of the task … must map", "A Fields schema needs", "A part of Fields", "A scale from …",
        "A ranking needs", "Two texts are compared", "There are no numbers from", "The step of a number is",
    ),
    "the command line": ("Or leave the column out: ",),
    "tests, as a reason": ("text: ", "id: ", "group: ", "by its name", "has the longest texts"),
    "``labeler doctor``": ("The product …: …", "The product … is to be renewed"),
    "the words that columns are known by": ("text 텍스트", "id reviewid", "group groupid", "rating score"),
    "annotations of types": ("list[Record | str]", "str | None"),
    "errors of other libraries, to be recognised": ("not a valid model identifier",),
}  # fmt: skip
# What is spliced into a sentence, or has a splice in the middle: the sentences that come of it stand below.
PARTS = {
    "no NVIDIA or AMD GPU", "no Apple GPU", "device is …, but torch finds … on this machine; set device to auto or cpu",
    "set gguf_file to …", "give the folder that holds config.json and the weights",
    "The folder … has no config.json, so it holds no model; …",
    "quantization is …, but … is a GGUF file, which brings its own; set quantization to …, or load the model from its "
    "safetensors",
    "clear it in the settings of the task.", "The model … refuses the setting …; …",
    "must be an http or https address", "must not contain # or ?, other than ?api-version= of Azure",
    "must not contain a user or password; put the key into openai_api_key", "contains a space or a control character",
    "is an address of this machine's cloud, which is no model server",
    "is not an address", ", … of … answered", "overlaps another keyword", "is not in the text word for word",
    "The keyword … …", "openai_base_url …; example: http://127.0.0.1:8000/v1",
    "Every prompt is read as a whole before its answer is written, which is slower",
    "Labels are scored one by one, which is slower",
    "row has … cell…, … has …", "the equal record …", "id or group", "of the line", "of the record", " after unpacking",
    "… is larger than ……; split it into smaller files", "The text is …, not a text: …",
    "…. Which part is the review? There are: …",
    "a document type in a workbook", "an unusual compression", "no local header", "shared texts and cells in one part",
    "XML that is not well-formed",
}  # fmt: skip
SPLICED = (
    "device is cuda, but torch finds no NVIDIA or AMD GPU on this machine; set device to auto or cpu",
    "device is mps, but torch finds no Apple GPU on this machine; set device to auto or cpu",
    "The folder /m has no config.json, so it holds no model; set gguf_file to m.gguf",
    "The folder /m has no config.json, so it holds no model; give the folder that holds config.json and the weights",
    "quantization is nf4, but m.gguf is a GGUF file, which brings its own; set quantization to auto, or load the model "
    "from its safetensors",
    "The model m refuses the setting seed; clear it in the settings of the task.",
    "openai_base_url must be an http or https address; example: http://127.0.0.1:8000/v1",
    "openai_base_url must not contain # or ?, other than ?api-version= of Azure; example: http://127.0.0.1:8000/v1",
    "openai_base_url must not contain a user or password; put the key into openai_api_key; example: "
    "http://127.0.0.1:8000/v1",
    "openai_base_url contains a space or a control character; example: http://127.0.0.1:8000/v1",
    "openai_base_url is not an address; example: http://127.0.0.1:8000/v1",
    "openai_base_url is an address of this machine's cloud, which is no model server; example: "
    "http://127.0.0.1:8000/v1",
    "in_progress, 3 of 10 answered",
    "Every prompt is read as a whole before its answer is written, which is slower: in a trial the quicker way changed "
    "the answer.",
    "Labels are scored one by one, which is slower: this model does not allow it (its forward takes no cache).",
    "The keyword 'a' overlaps another keyword",
    "The keyword 'a' is not in the text word for word",
    "The server's answer is not JSON; try again, and check that base_url ends where its API begins (/v1).",
    "The server's answer has no choices (busy); try again, and check that base_url ends where its API begins (/v1).",
    "The provider refused the batch: no reason was given",
    "row has 3 cells, header has 2",
    "row has 1 cell, the first row has 2",
    "a NUL character at byte 3 of the record",
    "a.csv is larger than 2 GiB after unpacking; split it into smaller files",
    "The text is an object, not a text: {}",
    "The column 'a' holds objects, not texts. Which part is the review? There are: 'a.b'",
    "a.csv is damaged: its packed data cannot be read; copy the file again",
    "byte 3 of the line (0xff) is not utf-8 (line 4)",
)
HOLE = "…"
# It fits whatever has a colon, so it would make every sentence a known one.
ANYTHING = "%(name)s: %(why)s"
SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|AND|WHERE|NULL|IN|COALESCE)\b|:\w+\b.*=|= :")


def modules() -> list[Path]:
    found = [
        path
        for room in ROOMS
        for path in ([PACKAGE / room], sorted((PACKAGE / room).rglob("*.py")))[room[-3:] != ".py"]
    ]
    assert all(path.is_file() for path in found)
    return found


def texts(path: Path) -> Iterator[str]:
    """Yield the texts of a module, without docstrings and what the log says; what is filled in stands as a hole."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    skipped = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    skipped |= {id(argument) for node in nodes if is_logging(node) for argument in node.args}
    skipped |= {
        id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part is not node
    }
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_logging(node: ast.AST) -> TypeGuard[ast.Call]:
    function = node.func if isinstance(node, ast.Call) else None
    return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "log"


def reads_like_a_sentence(text: str) -> bool:
    """Three words or more, and neither SQL nor a regular expression."""
    spoken = len(re.findall(r"[A-Za-z]{2,}", text)) >= 2 and text.count(" ") >= 2
    return spoken and not SQL.search(text) and not re.search(r"\\[a-z(]|\|\w+ \w+|\(\?", text)


@cache
def patterns() -> list[re.Pattern[str]]:
    return [pattern for sentence, pattern in sentences._PATTERNS if sentence != ANYTHING]


def is_known(text: str) -> bool:
    # Remedies of servers end with what the server said, in brackets.
    return any(pattern.fullmatch(form) for pattern in patterns() for form in (text, f"{text[:-1]} (HTTP 400)."))


def is_left_out(text: str) -> bool:
    beginnings = tuple(beginning for group in NOT_SHOWN.values() for beginning in group)
    return text in PARTS or text.startswith(beginnings)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pages_know_every_sentence_of_a_module(path: Path) -> None:
    """One that is new here belongs into ``SENTENCES`` with its translation, or into the lists above with its reason."""
    strange = [
        text for text in texts(path) if reads_like_a_sentence(text) and not (is_known(text) or is_left_out(text))
    ]
    assert strange == []


def test_lists_hold_nothing_that_is_said_no_more() -> None:
    """What left the code leaves the lists above too."""
    said = [text for path in modules() for text in texts(path)]
    beginnings = [beginning for group in NOT_SHOWN.values() for beginning in group]
    assert [beginning for beginning in beginnings if not any(text.startswith(beginning) for text in said)] == []
    assert sorted(PARTS - set(said)) == []


@pytest.mark.parametrize("sentence", SPLICED)
def test_spliced_sentences_are_known_as_a_whole(app: Flask, sentence: str) -> None:
    """A person reads them whole, so they are translated whole, with all their parts."""
    assert is_known(sentence)
    assert translated(app, sentence) != sentence


def translated(app: Flask, sentence: str) -> str:
    with app.test_request_context(), force_locale("ko"):
        return sentences.said(sentence)


def test_every_sentence_is_translated(app: Flask) -> None:
    """None of the sentences that the pages know is left in English, and each keeps all that is filled in."""
    holes = re.compile(r"%\((\w+)\)s")
    with app.test_request_context(), force_locale("ko"):
        for sentence in sentences.SENTENCES:
            filled = {name: f"<{name}>" for name in holes.findall(sentence)}
            korean = str(sentences._(sentence, **filled))
            assert sentence == ANYTHING or re.search("[가-힣]", korean), sentence
            assert all(value in korean for value in filled.values()), korean


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
    assert [reason for reason in reasons if translated(app, reason) == reason] == []
