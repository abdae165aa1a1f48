"""The Korean of the pages and documents: one word for each thing, and no particle that would have to be guessed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from flask import Flask
from flask_babel import force_locale

from labeler.backends.endings import FINAL, THINKING
from labeler.export.plan import _SHARE_EMPTY
from labeler.sentence import Sentence
from labeler.web import words
from labeler.web.words import SETTINGS, WORDS

ROOT = Path(__file__).parents[1]
# One word per thing: what is said, and the pattern of the words that once stood for it. Worker processes keep 작업,
# the chain-of-thought style keeps 단계별 추론, 정답 and 응답 are other words than 답.
WORDS_OF_THINGS = {
    "제외": "반려",
    "긍정·부정": "감성",
    "참고한 예시": "근거",
    "비교 제안": "두 번째 의견",
    "태스크": "작업(?! 프로세스)",
    "가이드라인": "지침",
    "본문; 텍스트 for the type of data": "(?<!한)글(?!자)",
    "답변": "(?<![응정])답(?!변)",
    "선택하다": "(?<![가-힣])(고[르른를]|골[라랐])",
    "거부": "거절",
    "항목": "(?<!대)부분",
    "제안대로 승인, 수정 후 승인, 직접 라벨링, 가져온 라벨": "제안대로(?! 승인)|수정함|가져옴|^제안 없이$",
    "실행 방식": "실행기|실행을 보내는",
    "예시 선택 방식": "예시 검색",
    "순차 시도": "단계별(?! 추론)",
    "내 결정, 다른 검수자의 결정": "(?<![가-힣])나의|내 라벨$|상대(?!적)",
    "사용 방식": "사용 방법|쓰임",
    "전체 설정, Labeler 폴더": "인스턴스",
    "엑셀": "Excel",
    "해요": "니다",
}
HOLE = r"(?:%\(\w+\)[rs]|\{\w+\})"
# What has one form whatever the hole ends in: counters, and particles without a pair.
STANDS_AFTER_A_HOLE = "개|건|번|행|열|자|초|분|시간|회|일|배|님|단계|에|의|보다|까지|부터"


def catalogue() -> dict[str, str]:
    with (ROOT / "labeler/translations/ko/LC_MESSAGES/messages.po").open("rb") as file:
        return {str(one.id): str(one.string) for one in read_po(file, locale="ko") if one.id}


def documents() -> dict[str, str]:
    """Return the Korean documents without commands, names and file names, which stand in code."""
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.ko.md"))}
    return {name: re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL) for name, text in found.items()}


@pytest.mark.parametrize(("word", "others"), WORDS_OF_THINGS.items())
def test_one_thing_has_one_word(word: str, others: str) -> None:
    """A page or a document in Korean never says one of the words that were given up for ``word``."""
    texts = [*catalogue().values(), *documents().values()]
    assert [text[:200] for text in texts if re.search(others, text)] == []


def test_no_particle_hangs_on_what_is_filled_in() -> None:
    """을 or 를, 이 or 가: which one is right shows only when the hole is filled, so none follows a hole."""
    particle = re.compile(HOLE + rf"[’”]?(?!{STANDS_AFTER_A_HOLE})[가-힣]")
    assert [text for text in catalogue().values() if particle.search(text)] == []


def test_no_particle_is_given_in_both_forms() -> None:
    """Nobody reads 을(를): a sentence is built so that it needs no such thing."""
    both = re.compile(r"[을를이가은는과와]\([을를이가은는과와]\)|\((?:으|이)\)")
    assert [text for text in catalogue().values() if both.search(text)] == []


def test_full_stops_end_the_sentences_of_a_paragraph_and_no_sentence_alone() -> None:
    """Seen side by side, helps and errors look alike. What a colon leads to ends as it is."""
    wrong = []
    for text in catalogue().values():
        said = re.split(r"(?<=[.?!]) ", text)
        ended = said[-1].endswith((".", "?", "!"))
        if ended if len(said) == 1 and not text.endswith("?") else len(said) > 1 and not ended and ":" not in said[-1]:
            wrong.append(text)
    assert wrong == []


def test_no_space_stands_before_a_bracket() -> None:
    """Korean sets brackets close to the word that they explain."""
    assert [text for text in catalogue().values() if re.search(r"\S \(", text)] == []


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            Sentence(
                "%(setting)s is %(value)s; it must lie between %(low)s and %(high)s",
                setting="k",
                value=500,
                low=0,
                high=64,
            ),
            "프롬프트당 예시 수(k)에는 0~64 사이의 값을",
        ),
        (
            Sentence(
                "The backend %(backend)s has no batches; choose the executor local, or the backend openai",
                backend="nearest",
            ),
            "가까운 예시의 다수결(무료) 백엔드는 배치를 지원하지 않아요. 실행 방식(executor)을 ‘건별 호출’로",
        ),
        (
            Sentence(
                "The backend %(backend)s with %(model)s has no setting %(setting)s; clear it, or choose another",
                backend="openai",
                model="m",
                setting="seed, top_k",
            ),
            "시드(seed), Top-k(top_k)",
        ),
        (
            Sentence("A cascade asks for one task at a time; clear the setting joint, or set mode to direct"),
            "‘한 호출에 함께 묻기’(joint)를 비우거나 모드(mode)를 ‘바로’로",
        ),
        (Sentence(_SHARE_EMPTY, split="train"), "학습에 들어간 행이 없어"),
    ],
)
def test_errors_call_things_what_the_page_calls_them(app: Flask, raised: Sentence, said: str) -> None:
    """A setting by its title, with the option's name in brackets; a backend and a split by their word."""
    with app.test_request_context(), force_locale("ko"):
        assert said in words.translated(raised)


def test_settings_in_errors_carry_the_title_of_the_page() -> None:
    """Where a sentence names a setting in brackets, the title that the form shows stands before it."""
    known, wrong = catalogue(), []
    for text in known.values():
        for before, name in re.findall(r"([^().]*)\((\w+)\)", re.sub(HOLE, "…", text)):
            title = (
                known[SETTINGS[name].title].removesuffix("(초)").removeprefix("프롬프트당 ") if name in SETTINGS else ""
            )
            if not before.rstrip("’").endswith(title):
                wrong.append(text)
    assert wrong == []


def test_no_setting_goes_by_its_name_of_the_code_alone() -> None:
    """The name that the command line knows stands in brackets only: the form of the page shows the title."""
    bare = re.compile(rf"(?<![\w(./-])({'|'.join(SETTINGS)})(?![\w).])")
    assert [text for text in catalogue().values() if bare.search(re.sub(HOLE, "…", text))] == []


def test_every_reason_why_an_answer_is_no_label_has_words() -> None:
    """The desk and the page of a run name the kind of a failure in words: those of all label kinds have some."""
    source = (ROOT / "labeler/task.py").read_text(encoding="utf-8")
    source += "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "labeler/labels").glob("*.py")))
    kinds = set(re.findall(r'(?:LabelError|ParseFailure)\((?:.*, )?"([a-z_]+)"', source)) | {THINKING, *FINAL}
    assert len(kinds) > 15
    assert sorted(kind for kind in kinds if f"parse.{kind}" not in WORDS) == []
