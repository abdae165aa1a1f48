"""Messages as the token ids that a model was trained on: its own chat template, tokenised exactly once.

A template writes control tokens (``<|eot_id|>``, ``<|im_end|>``) as text, and a tokenizer reads that text wherever it
stands. A review that holds it would end its own message and speak as somebody else. So the texts of the messages are
put into the template only after it is rendered, and wherever one of them spells a control token, the text is cut
inside it and tokenised in two parts: no part spells it any more. Without such a spelling the ids are those of
``apply_chat_template``.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from labeler.errors import BackendError, InputError
from labeler.records import Message

DATE = "26 Jul 2024"
"""What the templates of Llama 3.1 say when nobody names a date; those of 3.2 would put in today's."""

# A tokenizer knows single words as added tokens, too; these are made to be told apart from words.
_TAG = re.compile(r"<.*>|\[.*\]|\{.*\}|\|.*\|", re.DOTALL)
# Of models whose template names no end of a turn.
_KNOWN_ENDS = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|end_of_text|>", "<|endoftext|>")

# For models that were never taught to chat: headings that a model which only goes on with a text goes on with.
_HEADINGS = {"system": "### Instructions", "user": "### Input", "assistant": "### Output"}
_PLAIN_END = "\n\n###"


class PromptRefused(InputError):
    """Messages that the model's template cannot take."""


class Chat:
    """The chat of one tokenizer. Not safe to share between threads: the backend calls it under its lock.

    ``stop`` are texts that end an answer, for models without a chat template, which know no end of a turn.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        self.stop: tuple[str, ...] = () if self.has_template else (_PLAIN_END,)
        self._word = f"zq{secrets.token_hex(6)}x"
        self._holes = re.compile(self._word + r"(\d+)q")
        self._controls = _Controls(control_tokens(tokenizer).values())

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of the whole prompt, up to where the answer begins.

        Raises :class:`PromptRefused` if the template takes no such messages.
        """
        parts = self._rendered(messages)
        text = "".join(part.text for part in parts)
        cuts = self._cuts(text, parts)
        ids = [id_ for piece in _split(text, cuts) for id_ in self._ids(piece)]
        return ids if self.has_template else self._begin + ids

    def answer_ids(self, text: str) -> list[int]:
        """Return the ids of an answer that follows the prompt: no special tokens, none spelled either."""
        pieces = _split(text, [cut for _, _, cut in self._controls.find(text)])
        return [id_ for piece in pieces for id_ in self._ids(piece)]

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end a turn: the one that the template puts after an answer, and those known by name."""
        found = dict.fromkeys(self._template_end())
        vocabulary = self.tokenizer.get_vocab()
        template = str(getattr(self.tokenizer, "chat_template", "") or "")
        found |= dict.fromkeys(vocabulary[name] for name in _KNOWN_ENDS if name in vocabulary and name in template)
        return tuple(found)

    def _template_end(self) -> list[int]:
        if not self.has_template:
            return []
        try:
            parts = self._fill([("user", "a"), ("assistant", "b")], prompt=False)
        except PromptRefused:
            return []
        tail = parts[-1].text if not parts[-1].own else ""
        controls = set(control_tokens(self.tokenizer))
        return next(([id_] for id_ in self._ids(tail) if id_ in controls), [])

    def _rendered(self, messages: Sequence[Message]) -> list[_Part]:
        turns = [(message["role"], _storable(message["content"])) for message in messages]
        if not self.has_template:
            return _plain(turns)
        refusal: PromptRefused | None = None
        # A template without a system role raises, or leaves the text out; it belongs to the first question then.
        for tried in dict.fromkeys((tuple(turns), tuple(_merged(turns)))):
            try:
                return self._fill(tried)
            except PromptRefused as error:
                refusal = refusal or error
        assert refusal is not None
        raise refusal

    def _fill(self, turns: Iterable[tuple[str, str]], prompt: bool = True) -> list[_Part]:
        """Render the template with a word in place of each text, and divide it at these words.

        White space around a text is left in its place, so that a template that strips it does so.
        """
        texts, hollow = [], []
        for n, (role, content) in enumerate(turns):
            core = content.strip()
            head, _, tail = content.partition(core) if core else (content, "", "")
            texts.append(core)
            hollow.append({"role": role, "content": f"{head}{self._word}{n}q{tail}" if core else content})
        try:
            rendered = self.tokenizer.apply_chat_template(
                hollow, tokenize=False, add_generation_prompt=prompt, date_string=DATE, enable_thinking=False
            )
        except Exception as error:  # jinja's own, and whatever a template runs into
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
            raise PromptRefused("The model's chat template refuses the messages: %(reason)s", reason=reason) from error
        pieces = self._holes.split(rendered)
        if not {str(n) for n, text in enumerate(texts) if text} <= set(pieces[1::2]):
            raise PromptRefused("The model's chat template leaves out a message; choose another model")
        return [_Part(texts[int(piece)], True) if n % 2 else _Part(piece, False) for n, piece in enumerate(pieces)]

    def _cuts(self, text: str, parts: Sequence[_Part]) -> list[int]:
        """Return where to cut ``text``: inside each control token that it spells by a text of ours."""
        own: list[tuple[int, int]] = []
        start = 0
        for part in parts:
            if part.own:
                own.append((start, start + len(part.text)))
            start += len(part.text)
        if not any(self._controls.opens(text[start:end]) for start, end in own):
            return []
        found = self._controls.find(text)
        return [cut for start, end, cut in found if any(start < last and first < end for first, last in own)]

    def _ids(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    @cached_property
    def _begin(self) -> list[int]:
        """The begin-of-text of models that are used to one; only without a template, which writes its own."""
        begin = self.tokenizer.bos_token_id
        return [begin] if begin is not None and self.tokenizer.encode("a")[:1] == [begin] else []


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of the prompt; ``own`` if it is the text of a message."""

    text: str
    own: bool


class _Controls:
    """Finds spelled control tokens; a tokenizer may have thousands of them (Gemma 3: 6,384)."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(text for text in texts if len(text) > 1)
        self._lengths = sorted({len(text) for text in self._texts}, reverse=True)
        first = "".join(sorted({re.escape(text[0]) for text in self._texts}))
        self._first = re.compile(f"[{first}]") if first else re.compile(r"(?!)")

    def opens(self, text: str) -> bool:
        return bool(self._first.search(text))

    def find(self, text: str) -> list[tuple[int, int, int]]:
        """Return (start, end, cut) of every one, overlapping ones too; ``cut`` lies inside it."""
        found = []
        for match in self._first.finditer(text):
            start = match.start()
            for length in self._lengths:
                if text[start : start + length] in self._texts:
                    found.append((start, start + length, start + 1))
        return found


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """Return the tokens that steer a model, by id: special ones, and added ones that look like a tag."""
    added = added_tokens(tokenizer).items()
    found = {id_: str(token) for id_, token in added if token.special or _TAG.fullmatch(str(token))}
    ids, texts = tokenizer.all_special_ids, tokenizer.all_special_tokens
    return found | dict(zip(ids, map(str, texts), strict=True))


def added_tokens(tokenizer: Any) -> Mapping[int, Any]:
    """Return the tokens that were added to a vocabulary, by id. Raises :class:`BackendError` if they cannot be known:
    a review that spells one would then speak as somebody else, so nothing is asked."""
    try:
        found: Mapping[int, Any] = tokenizer.added_tokens_decoder
    except AttributeError as error:
        version = importlib.metadata.version("transformers")
        raise BackendError(
            "transformers %(version)s does not list the control tokens of a model; install the versions"
            " of constraints.txt",
            version=version,
        ) from error
    return found


def _merged(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    system = [content for role, content in turns if role == "system"]
    rest = [(role, content) for role, content in turns if role != "system"]
    if not system or not rest or rest[0][0] != "user":
        return list(turns)
    return [("user", "\n\n".join([*system, rest[0][1]])), *rest[1:]]


def _plain(turns: Sequence[tuple[str, str]]) -> list[_Part]:
    parts: list[_Part] = []
    for role, content in turns:
        parts += [_Part(f"{_HEADINGS.get(role, _HEADINGS['user'])}\n", False), _Part(content.strip(), True)]
        parts.append(_Part("\n\n", False))
    return [*parts, _Part(f"{_HEADINGS['assistant']}\n", False)]


def _storable(text: str) -> str:
    # Tokenizers take no lone surrogates.
    return text.encode("utf-8", "replace").decode("utf-8")


def _split(text: str, cuts: Sequence[int]) -> list[str]:
    ends = sorted({0, len(text), *cuts})
    return [text[start:end] for start, end in itertools.pairwise(ends)]
