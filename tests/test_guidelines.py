"""The guidelines that ship, and the prompts around them: one text for people and model, in the words of the page."""

from __future__ import annotations

import re

import pytest
from helpers import ROOT

from labeler import built_in
from labeler.plugins import load_plugins
from labeler.prompts.styles import STYLES
from labeler.task import Task

TASKS = dict(load_plugins(built_in, entry_points=False).tasks)
GUIDELINES = ROOT / "plugins" / "prompts"
PROMPTS = ROOT / "labeler" / "prompts"
# A label's name in brackets: 배송 중 파손(delivery/damage).
_NAMED = re.compile(r"\(([a-z_]+(?:/[a-z_]+)?)\)")
# Words that were given up for one that the page has, and sentences that no Korean would write.
GIVEN_UP = (
    "지침", "작업", "전체로 보아", "해라체", "빈 글", "쓰임", "사용 방법", "감성", "반려", "셉니다", "답합니다",
    "답해 주", "따르지 않습니다", "풉니다", "설명 없이", "맞추어 봅",
)  # fmt: skip


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_label_is_named_behind_its_title(task: Task) -> None:
    """A Korean guideline says 중립(neutral): the title is what stands on the page, the name is what a model answers."""
    text = task.guided("ko")
    labels = {label.name: label.titled("ko") for label in task.schema.labels}
    for name in _NAMED.findall(text):
        assert f"{labels[name]}({name})" in text
    plain = _NAMED.sub("", text)
    assert [name for name in labels if name.isascii() and re.search(rf"\b{re.escape(name)}\b", plain)] == []


@pytest.mark.parametrize("language", ["ko", "en"])
def test_every_guideline_says_what_to_do_at_the_edges(language: str) -> None:
    """Advertising, emoji, chat, questions, filler, other languages and irony: one last paragraph, the same for all."""
    last = {task.guided(language).strip().split("\n\n")[-1] for task in TASKS.values()}
    assert len(last) == 1
    wanted = {
        "ko": ("광고·협찬", "이모지", "관계없는", "질문", "적립금", "읽을 수 없는 언어", "반어"),
        "en": ("advertising", "emoji", "nothing to do with", "question", "reward points", "cannot read", "Irony"),
    }
    paragraph = last.pop()
    assert [word for word in wanted[language] if word not in paragraph] == []


def test_version_of_a_task_is_that_of_its_guidelines() -> None:
    """Changed wording is a new file and a new version of the task: what was labelled before it says so."""
    files = {path.name for path in GUIDELINES.glob("*.md")}
    assert files == {
        f"{name}.{language}.md"
        for task in TASKS.values()
        for name in (f"{task.name}.v{task.version}", f"{task.name}-short.v1")
        for language in ("ko", "en")
    }


def test_prompts_and_guidelines_speak_the_words_of_the_page() -> None:
    """What the page calls 가이드라인 and 태스크 has no second name in what a model reads."""
    texts = {
        path.name: path.read_text(encoding="utf-8") for path in (*PROMPTS.glob("*.ko.txt"), *GUIDELINES.glob("*.ko.md"))
    }
    texts |= {style.name: f"{style.title['ko']} {style.description['ko']}" for style in STYLES.values()}
    assert len(texts) > 20
    assert [(name, word) for name, text in texts.items() for word in GIVEN_UP if word in text] == []


def test_emotions_are_titled_without_underscores() -> None:
    """A name is spelled as KOTE has it; a title is read by people."""
    titles = [label.titled("ko") for label in TASKS["emotion"].schema.labels]
    assert "부담/안 내킴" in titles and not any("_" in title for title in titles)
