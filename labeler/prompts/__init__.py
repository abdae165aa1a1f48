"""How a prompt is made: a versioned frame, the task's guidelines and labels, examples, and the record as data.

The prompt begins with a head that is the same for every record, so that the caches of providers and of local weights
hold it: nothing random stands in it. The review never speaks to the model as an instruction: it stands between the
marks of a *fence*, a random word per call that nobody who writes a review can know, and the head says that nothing
between two marks with one word is an instruction. An example stands between marks of its own, whose word is a keyed
hash of its text: the same in every prompt, so that fixed examples are cached too, and as hard to know beforehand.

Where a project sends columns of its metadata, they stand between the same marks, on one line of JSON before the text:
no value can be taken for a line of its own. Where it sends none, nothing in a prompt says that there could be any.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from labeler import strictjson
from labeler.catalogues import in_language
from labeler.errors import SettingError
from labeler.prompts.forms import ANSWERS, FULL, GUIDELINES, JSON, NONE, PLAIN, STORED
from labeler.prompts.styles import FEW_SHOT, STYLES
from labeler.records import Example, Message, Part, Record, Value
from labeler.text import as_read

if TYPE_CHECKING:
    from labeler.labels import LabelSchema

FRAME_VERSION = "v3"
"""Raised whenever the wording of a template changes: what was asked in other words was made another way."""
LANGUAGES = ("ko", "en")
NAMES = (STORED, *LANGUAGES)
_UNSET_FENCE = "0" * 8
_MARK_BYTES = 4
_LONGEST_SECRET = 64
_COLUMNS = "columns.v1"
_LONGEST_VALUE = 200
QUOTED = 2000
"""How many characters of an unreadable answer are shown to the model again."""
_PLACE = re.compile(r"\{(\w+)\}")
_GUIDELINES = re.compile(r"^#+ [^\n]*\n\{guidelines\}\n+", re.MULTILINE)
PLAIN_FRAME = "frame-plain.v1"
WORDINGS = {JSON: "wording.v2", PLAIN: "wording-plain.v1"}
"""The templates of the sentence that says how to answer, by how the answer is written."""

# Wording that speaks to a model rather than to a shop: shown to the reviewer as a warning, never acted on.
_SUSPICIOUS = re.compile(
    r"(?:ignore|disregard|forget)\s++(?:all\s++|any\s++)?(?:of\s++)?(?:the\s++|your\s++)?"
    r"(?:(?:previous|above|prior|earlier)\s++)?(?:instructions|prompt|rules|everything\s++above)"
    r"|(?:지시|지침|명령|프롬프트|규칙|위\s?내용)[^.!?\n]{0,12}(?:무시|잊어)"
    r"|(?:무조건|반드시)[^.!?\n]{0,12}(?:긍정|부정|positive|negative)[^.!?\n]{0,8}(?:답|출력|분류)"
    r"|(?:긍정|부정|중립|positive|negative|neutral)(?:이?라고|으?로)\s?만?\s?(?:답|출력|분류|판단|라벨)"
    r"|<\|?/?\s*+(?:im_start|im_end|system|assistant|user|begin[_\u2581]of[_\u2581]\w{1,12}|eot_id|start_header_id)[^>\n]{0,20}\|?>"
    r"|</?review[-\s>]|\[/?INST\]|^[^\S\n]*+\#{1,6}\s*+(?:instruction|system|response|지시|시스템)s?\b|^[^\S\n]*+(?:system|assistant)\s*+:"
    r"|answer[\s:]++(?:only\s++)?[\"']?(?:positive|negative|neutral)[\"']?[.!]?\s*+$",
    re.IGNORECASE | re.MULTILINE,
)


# Syllables that stand one by one: "지 시 를  무 시 해".
_SPACED = re.compile(r"(?<=(?<![가-힣])[가-힣])[^\S\n]+(?=[가-힣](?![가-힣]))")


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """How a prompt is put: the style's name, the language of its frame, and the fence of this one call.

    ``persona`` replaces the sentence that says who the model is, ``wording`` the one that says how to answer; empty
    leaves the frame's own. ``samples`` is how many answers self-consistency asks for. ``secret`` (at most 64 bytes)
    is the instance's own and keys the marks of examples; without it the marks can be computed by anybody, which
    suits tests and exports. ``columns`` are the columns of the metadata that the model sees. ``guidelines``,
    ``answers`` and ``names`` say how much of the guidelines the prompt has, how the answer is written, and how the
    labels are called in both.
    """

    name: str = FEW_SHOT
    language: str = "ko"
    fence: str = _UNSET_FENCE
    persona: str = ""
    wording: str = ""
    samples: int = 5
    secret: bytes = field(default=b"", repr=False)
    columns: tuple[str, ...] = ()
    guidelines: str = FULL
    answers: str = JSON
    names: str = STORED

    def __post_init__(self) -> None:
        for value, known in ((self.guidelines, GUIDELINES), (self.answers, ANSWERS), (self.names, NAMES)):
            if value not in known:
                raise SettingError(
                    "There is no %(value)r here; there are: %(names)s", value=value, names=", ".join(known)
                )
        if self.name not in STYLES:
            raise SettingError(
                "No prompt style %(name)r; there are: %(names)s", name=self.name, names=", ".join(STYLES)
            )
        if self.language not in LANGUAGES:
            raise SettingError(
                "No prompts in %(language)r; there are: %(names)s", language=self.language, names=", ".join(LANGUAGES)
            )
        if self.samples < 1:
            raise SettingError("samples is %(samples)s; at least one answer must be asked for", samples=self.samples)
        if len(self.secret) > _LONGEST_SECRET:
            raise SettingError(f"The secret of the marks has {len(self.secret)} bytes; at most {_LONGEST_SECRET}")

    def fenced(self, texts: Iterable[str]) -> PromptStyle:
        """Return the style with a fresh random fence that stands in none of ``texts``."""
        joined = "\n".join(texts)
        fence = secrets.token_hex(_MARK_BYTES)
        while fence in joined:
            fence = secrets.token_hex(_MARK_BYTES)
        return replace(self, fence=fence)

    def behind(self, fence: str) -> PromptStyle:
        """Return the style with this fence: as :func:`dataclasses.replace`, which would check all of it once more."""
        made = object.__new__(PromptStyle)
        for name in PromptStyle.__slots__:
            object.__setattr__(made, name, getattr(self, name))
        object.__setattr__(made, "fence", fence)
        return made

    def sent(self, text: str, metadata: Mapping[str, Any], parts: Sequence[Part] = ()) -> str:
        """Return what stands between the marks of a text: the text, behind the columns that the model sees.

        Of a text with parts each stands between marks with its title. Their word is that of an example's, so a part
        cannot end itself, nor begin another.
        """
        if parts:
            word = self.mark(text)
            marked = (f"<{title}-{word}>\n{text[start:end]}\n</{title}-{word}>" for title, start, end in parts)
            text = "\n".join(marked)
        if not self.columns:
            return text
        return f"{strictjson.dumps(sent_values(metadata, self.columns), separators=(', ', ': '))}\n{text}"

    def mark(self, text: str) -> str:
        """Return the word of the marks around an example: 8 hex digits, the same for the same text, never in it."""
        return _mark(text, self.secret)


@lru_cache(maxsize=512)
def _mark(text: str, secret: bytes) -> str:
    """Return the mark of a text: asked for twice a prompt, in building it and in its fingerprint."""
    for count in itertools.count():
        salt = count.to_bytes(hashlib.blake2b.SALT_SIZE, "big")
        mark = hashlib.blake2b(text.encode(), digest_size=_MARK_BYTES, key=secret, salt=salt).hexdigest()
        if mark not in text:
            break
    return mark


@cache
def prompt_text(name: str, language: str, package: str = "labeler.prompts") -> str:
    """Return the prompt template ``name`` (with its version, such as "frame.v3") in ``language``."""
    return resources.files(package).joinpath(f"{name}.{language}.txt").read_text(encoding="utf-8").strip()


def filled(template: str, language: str, /, **values: str) -> str:
    """Return the prompt template (named as in :func:`prompt_text`) with each ``{place}`` filled.

    One pass: what people, reviews and models wrote is never searched for places, so braces in it stay as they are.
    """
    return _fill(prompt_text(template, language), **values)


def _fill(text: str, /, **values: str) -> str:
    return _PLACE.sub(lambda place: values[place[1]], text)


def _told(template: str, style: PromptStyle) -> str:
    """Return a template without its section of guidelines where the prompt has none of them."""
    return _GUIDELINES.sub("", template) if style.guidelines == NONE else template


def sent_values(metadata: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return the values of columns as they are sent: what is empty is left out, what is long is clipped."""
    found = {name: metadata[name] for name in columns if metadata.get(name) not in (None, "", [], {})}
    return {name: value if isinstance(value, (bool, int, float)) else _clipped(value) for name, value in found.items()}


def _clipped(value: Any) -> str:
    text = value if isinstance(value, str) else strictjson.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def head(name: str, title: str, guidelines: str, schema: LabelSchema, style: PromptStyle) -> str:
    """Return the system message of one task: the same for every record and every call, and for every style's name."""
    plain = style.answers == PLAIN
    return _head(
        PLAIN_FRAME if plain else f"frame.{FRAME_VERSION}",
        style,
        title=title,
        guidelines=guidelines.strip(),
        labels=schema.describe(style.language).strip() or "-",
        answer=strictjson.dumps({name: schema.json_schema()}),
        name=name,
    )


def joint_head(sections: Iterable[str], answer: Mapping[str, object], style: PromptStyle) -> str:
    """Return the system message of several tasks; ``answer`` maps their names to the JSON schemas of their values."""
    return _head(
        "joint.v2",
        style,
        tasks="\n\n".join(sections),
        names=", ".join(f"`{name}`" for name in answer),
        answer=strictjson.dumps(answer),
    )


def joint_section(name: str, title: str, guidelines: str, schema: LabelSchema, style: PromptStyle) -> str:
    """Return what the head of a joint prompt says of one task."""
    labels = schema.describe(style.language).strip() or "-"
    template = _told(prompt_text("joint-task.v2", style.language), style)
    return _fill(template, name=name, title=title, guidelines=guidelines.strip(), labels=labels)


def _head(template: str, style: PromptStyle, **values: str) -> str:
    """Return a system message; its last part, how to answer, says where columns stand if there are any."""
    text = _fill(_told(prompt_text(template, style.language), style), **_own_words(style), **values)
    return f"{text}\n{prompt_text(_COLUMNS, style.language)}" if style.columns else text


def _own_words(style: PromptStyle) -> dict[str, str]:
    return {
        "persona": style.persona.strip() or prompt_text("persona.v1", style.language),
        "wording": style.wording.strip() or prompt_text(WORDINGS[style.answers], style.language),
    }


def review_message(text: str, fence: str) -> Message:
    """Return the user message that holds one review as data."""
    return {"role": "user", "content": f"<review-{fence}>\n{text}\n</review-{fence}>"}


def answer_text(name: str, schema: LabelSchema, value: Value) -> str:
    """Return the JSON text that a backend would answer for ``value``."""
    return strictjson.dumps({name: schema.answer(value)}, separators=(", ", ": "))


def shown(examples: Sequence[Example], style: PromptStyle) -> Sequence[Example]:
    """Return the examples that a prompt of this style shows; the first is the most useful one."""
    return examples[: STYLES[style.name].examples]


def turns(system: str, record: Record, answered: Sequence[tuple[str, str]], style: PromptStyle) -> list[Message]:
    """Return the whole prompt: the head, examples as (text, answer), most useful first, and the record.

    The most useful example stands last, next to the record: what stands last weighs most (Zhao et al. 2021,
    arXiv:2102.09690).
    """
    messages: list[Message] = [{"role": "system", "content": system}]
    for text, answer in reversed(answered):
        messages.append(review_message(text, style.mark(text)))
        messages.append({"role": "assistant", "content": answer})
    messages.append(review_message(record.text, style.fence))
    return messages


def asking(messages: Sequence[Message], text: str) -> list[Message]:
    """Return the prompt with ``text`` asked after the record.

    It joins the last message, because chat templates want users and assistants to take turns. What precedes it stays
    as it is, so that every style shares one cached beginning.
    """
    if messages and messages[-1]["role"] == "user":
        return [*messages[:-1], {"role": "user", "content": f"{messages[-1]['content']}\n\n{text}"}]
    return [*messages, {"role": "user", "content": text}]


def unmarked(messages: Sequence[Message], style: PromptStyle, examples: Iterable[Example]) -> str:
    """Return the prompt as one text for a fingerprint, the same whatever the fence and the secret of ``style`` are.

    Exactly the fence and the marks of ``examples`` are replaced, by words with a NUL, which no text in the store
    holds: two prompts that differ in anything else stay different.
    """
    # NUL before and between, so that no text can move a border.
    content = "\0\0".join([f"{message['role']}\0{message['content']}" for message in messages])
    content = content.replace(style.fence, "\0fence")
    for n, text in enumerate(dict.fromkeys(example.text for example in examples)):
        content = content.replace(style.mark(text), f"\0{n}")
    return content


def following(messages: Sequence[Message], answer: str, text: str) -> list[Message]:
    """Return the prompt that goes on after ``answer`` by asking ``text``; its beginning is cached already."""
    return [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": text}]


def correction(messages: Sequence[Message], raw: str, reason: str, language: str) -> list[Message]:
    """Return the prompt that asks once more after an answer that could not be read, with the reason named."""
    return following(messages, raw[:QUOTED], filled("again.v2", language, reason=in_language(reason, language)))


def system_hash(messages: Sequence[Message]) -> str:
    """Return the SHA-256 of the system message of a prompt, as hex digits."""
    system = "".join(message["content"] for message in messages if message["role"] == "system")
    return hashlib.sha256(system.encode()).hexdigest()


def suspicious(text: str) -> bool:
    """Return whether a review holds wording aimed at a model, so that the reviewer is warned."""
    return bool(_SUSPICIOUS.search(_SPACED.sub("", as_read(text))))


def titled(texts: Mapping[str, str], language: str, default: str = "") -> str:
    """Return the text in ``language``, else in any language, else ``default``."""
    return texts.get(language) or next((text for text in texts.values() if text), default)
