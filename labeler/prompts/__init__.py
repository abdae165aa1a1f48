"""How a prompt is made: a versioned frame, the task's guidelines and labels, examples, and the record as data.

The review never speaks to the model as an instruction: it stands between the marks of a *fence*, a random word
per call that nobody who writes a review can know (FENCE below), and the frame says that nothing between the
marks is an instruction. Retrieved examples are fenced the same way.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from labeler import strictjson
from labeler.errors import SettingError
from labeler.prompts.styles import FEW_SHOT, STYLES, ZERO_SHOT
from labeler.records import Example, Message, Record, Value

if TYPE_CHECKING:
    from labeler.labels import LabelSchema

FRAME_VERSION = "v1"
LANGUAGES = ("ko", "en")
_UNSET_FENCE = "0" * 8

# Wording that speaks to a model rather than to a shop: shown to the reviewer as a warning, never acted on.
_SUSPICIOUS = re.compile(
    r"(?:ignore|disregard|forget)\s++(?:all\s++|any\s++)?(?:of\s++)?(?:the\s++|your\s++)?"
    r"(?:(?:previous|above|prior|earlier)\s++)?(?:instructions|prompt|rules|everything\s++above)"
    r"|(?:지시|지침|명령|프롬프트|규칙|위\s?내용)[^.!?\n]{0,12}(?:무시|잊어)"
    r"|(?:무조건|반드시)[^.!?\n]{0,12}(?:긍정|부정|positive|negative)[^.!?\n]{0,8}(?:답|출력|분류)"
    r"|(?:긍정|부정|중립|positive|negative|neutral)(?:이?라고|으?로)\s?만?\s?(?:답|출력|분류|판단|라벨)"
    r"|<\|?/?\s*+(?:im_start|im_end|system|assistant|user|begin_of_text|eot_id|start_header_id)[^>\n]{0,20}\|?>"
    r"|</?review[-\s>]|\[/?INST\]|^[^\S\n]*+(?:system|assistant)\s*+:"
    r"|answer[\s:]++(?:only\s++)?[\"']?(?:positive|negative|neutral)[\"']?[.!]?\s*+$",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """How a prompt is put: the style's name, the language of its frame, and the fence of this one call.

    ``persona`` and ``wording`` replace the frame's own words on who the model is and how it is to answer; empty
    leaves them. ``samples`` is how many answers self-consistency asks for.
    """

    name: str = FEW_SHOT
    language: str = "ko"
    fence: str = _UNSET_FENCE
    persona: str = ""
    wording: str = ""
    samples: int = 5

    def __post_init__(self) -> None:
        if self.name not in STYLES:
            raise SettingError(f"No prompt style {self.name!r}; there are: {', '.join(STYLES)}")
        if self.language not in LANGUAGES:
            raise SettingError(f"No prompts in {self.language!r}; there are: {', '.join(LANGUAGES)}")

    def fenced(self, texts: Iterable[str]) -> PromptStyle:
        """Return the style with a fresh random fence that stands in none of ``texts``."""
        joined = "\n".join(texts)
        fence = secrets.token_hex(4)
        while fence in joined:
            fence = secrets.token_hex(4)
        return replace(self, fence=fence)


@cache
def prompt_text(name: str, language: str, package: str = "labeler.prompts") -> str:
    """Return the prompt template ``name`` (with its version, such as "frame.v1") in ``language``."""
    return resources.files(package).joinpath(f"{name}.{language}.txt").read_text(encoding="utf-8")


def system_message(name: str, title: str, guidelines: str, schema: LabelSchema, style: PromptStyle) -> Message:
    """Return the fixed head of the prompt: it is the same for every record, so that servers can cache it."""
    content = prompt_text(f"frame.{FRAME_VERSION}", style.language).format(
        title=title,
        guidelines=guidelines.strip(),
        labels=schema.describe(style.language).strip() or "-",
        answer=strictjson.dumps({name: schema.json_schema()}),
        name=name,
        fence=style.fence,
    )
    return {"role": "system", "content": content.strip()}


def review_message(text: str, fence: str) -> Message:
    """Return the user message that holds one review as data."""
    return {"role": "user", "content": f"<review-{fence}>\n{text}\n</review-{fence}>"}


def answer_message(name: str, schema: LabelSchema, value: Value) -> Message:
    """Return the assistant message that shows what an answer looks like."""
    return {"role": "assistant", "content": answer_text(name, schema, value)}


def answer_text(name: str, schema: LabelSchema, value: Value) -> str:
    """Return the JSON text that a backend would answer for ``value``."""
    return strictjson.dumps({name: schema.answer(value)}, separators=(", ", ": "))


def few_shot(
    system: Message, name: str, schema: LabelSchema, record: Record, examples: Sequence[Example], style: PromptStyle
) -> list[Message]:
    """Return the whole prompt. The most useful example stands last, next to the record (Lu et al. 2022)."""
    messages = [system]
    if style.name != ZERO_SHOT:
        for example in reversed(examples):
            messages.append(review_message(example.text, style.fence))
            messages.append(answer_message(name, schema, example.value))
    messages.append(review_message(record.text, style.fence))
    return messages


def correction(messages: Sequence[Message], raw: str, reason: str, language: str) -> list[Message]:
    """Return the prompt that asks once more after an answer that could not be read, with the reason named."""
    asked = prompt_text("again.v1", language).format(reason=reason).strip()
    return [*messages, {"role": "assistant", "content": raw[:2000]}, {"role": "user", "content": asked}]


def suspicious(text: str) -> bool:
    """Return whether a review holds wording aimed at a model, so that the reviewer is warned."""
    return bool(_SUSPICIOUS.search(text))


def titled(texts: Mapping[str, str], language: str, default: str = "") -> str:
    """Return the text in ``language``, else in any language, else ``default``."""
    return texts.get(language) or next((text for text in texts.values() if text), default)
