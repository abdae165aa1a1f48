"""The format for trainers that know of no chat: each conversation as one text, by a chat template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from labeler.errors import MissingExtra, SettingError
from labeler.export.formats.base import Context, ExportRow, TrainingFormat, json_line
from labeler.records import Message
from labeler.sentence import N_

Render = Callable[[Sequence[Message]], str]


class PlainText(TrainingFormat):
    """{"text"}: prompt and answer as a chat template writes them.

    What the template begins with is left off where the tokenizer puts it there itself: a trainer tokenises the text as
    any other, and there would be two. So is the line end behind the last turn: a trainer that finds no end token at the
    very end adds a second one.
    """

    name = "text"
    suffix = ".jsonl"
    description = N_("Each conversation as one text, by the chat template that you name")

    def prepared(self, context: Context) -> Context:
        return replace(context, ready=rendering(context.template))

    def row(self, row: ExportRow, context: Context) -> str:
        return json_line({"text": context.ready(row.messages).removesuffix("\n")})


def rendering(template: str) -> Render:
    """Return what writes a conversation as one text: by a template of :data:`TEMPLATES`, or that of a model.

    ``template`` is one of those names, or the folder of a model or tokenizer. Raises :class:`SettingError` for anything
    else, and :class:`MissingExtra` where a tokenizer cannot be loaded.
    """
    if template in TEMPLATES:
        return TEMPLATES[template]
    if not template or not Path(template).is_dir():
        raise SettingError(
            "The format text needs a chat template: the folder of a model, or one of %(names)s",
            names=", ".join(TEMPLATES),
        )
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise MissingExtra("transformers", "local") from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(template, local_files_only=True)
    except Exception as error:  # disk, configuration and tokenizer each raise their own
        raise SettingError(
            "%(folder)s holds no tokenizer that can be loaded (%(reason)s)", folder=template, reason=str(error)[:200]
        ) from error
    if not tokenizer.chat_template:
        raise SettingError(
            "The tokenizer in %(folder)s has no chat template; name that of the model made to chat", folder=template
        )
    return _Tokenizer(tokenizer, template)


class _Tokenizer:
    """The chat template of a loaded tokenizer."""

    def __init__(self, tokenizer: Any, folder: str) -> None:
        self._tokenizer, self._folder = tokenizer, folder
        begins = tokenizer.bos_token or ""
        adds = bool(begins) and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        self._begins = begins if adds else ""

    def __call__(self, messages: Sequence[Message]) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(list(messages), tokenize=False)
        except Exception as error:  # a template raises what it likes
            raise SettingError(
                "The chat template in %(folder)s refuses the messages (%(reason)s)",
                folder=self._folder,
                reason=str(error)[:200],
            ) from error
        return text.removeprefix(self._begins)


def _chatml(messages: Sequence[Message]) -> str:
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)


def _llama3(messages: Sequence[Message]) -> str:
    heading = "<|start_header_id|>{}<|end_header_id|>\n\n"
    return "".join(f"{heading.format(m['role'])}{m['content'].strip()}<|eot_id|>" for m in messages)


def _gemma3(messages: Sequence[Message]) -> str:
    first = f"{messages[0]['content']}\n\n" if messages[0]["role"] == "system" else ""
    text = ""
    for n, m in enumerate(messages[bool(first) :]):
        if m["role"] != ("user", "assistant")[n % 2]:
            raise SettingError("The chat template %(name)r takes a user and an assistant in turn", name="gemma3")
        role = "model" if m["role"] == "assistant" else m["role"]
        text += f"<start_of_turn>{role}\n{first if n == 0 else ''}{m['content'].strip()}<end_of_turn>\n"
    return text


TEMPLATES: dict[str, Render] = {"chatml": _chatml, "llama3": _llama3, "gemma3": _gemma3}
"""Templates that are short and leave nothing open. The token that tokenizers of Llama 3 and Gemma 3 add is left off."""
