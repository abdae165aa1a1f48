"""Rows as token ids: the prompt exactly as the backend ``transformers`` reads it when it serves.

The trainers of TRL render messages themselves, and not as we serve them: Llama 3.2 would learn today's date, Qwen 3 to
think, and a review that spells a control token to end its own turn. So they are handed a tokenizer that renders by our
:class:`~labeler.backends.local.chat.Chat`. An answer is followed by the token that ends a turn, which a model has to
learn to write.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from labeler.backends.local.chat import Chat
from labeler.errors import InputError
from labeler.sentence import N_
from labeler.training.sets import Row

_SIDES = ("completion", "chosen", "rejected")


class Served:
    """Turns messages into ids as they are served. ``end`` are the ids after an answer."""

    def __init__(self, tokenizer: Any) -> None:
        # The tokenizer that is handed out renders by this one.
        self.chat = Chat(copy.deepcopy(tokenizer))
        ends = self.chat.end_ids[:1] or tuple(id_ for id_ in (tokenizer.eos_token_id,) if id_ is not None)
        self.end = [*(() if self.chat.has_template else self.chat.answer_ids(self.chat.stop[0])), *ends]

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return self.chat.prompt_ids(messages)  # type: ignore[arg-type]

    def answer(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return [*self.chat.answer_ids(messages[-1]["content"]), *self.end]

    def apply(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = False, **_: Any) -> Any:
        """Stand in for ``apply_chat_template`` where a trainer asks for ids."""
        if add_generation_prompt:
            return {"input_ids": self.prompt(messages)}
        return {"input_ids": [*self.prompt(messages[:-1]), *self.answer(messages)]}

    def length(self, row: Row) -> int:
        """Return how many tokens the longest side of a row has, with its prompt."""
        prompt = len(self.prompt(row["prompt"]))
        return prompt + max(len(self.answer(row[side])) for side in _SIDES if side in row)

    def pair(self, row: Row) -> dict[str, Any]:
        """Return a pair as TRL's ORPO trainer has it once it has read one."""
        prompt = self.prompt(row["prompt"])
        found: dict[str, Any] = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side in ("chosen", "rejected"):
            answer = self.answer(row[side])
            found[f"{side}_input_ids"] = [*prompt, *answer]
            found[f"{side}_attention_mask"] = [1] * (len(prompt) + len(answer))
            found[f"{side}_labels"] = [*[-100] * len(prompt), *answer]
        return found


def fitting(
    served: Served, rows: Sequence[Row], most: int | None, context: int, split: str
) -> tuple[list[Row], list[int], int]:
    """Return the rows that are trained on, the lines of those left out, and the longest row in tokens.

    Nothing is left out unless somebody said how long a row may be (``most``), and no row is ever cut. Raises
    :class:`InputError` for a row that the model cannot read, and where no row is left.
    """
    kept: list[Row] = []
    left: list[int] = []
    longest = 0
    for n, row in enumerate(rows, 1):
        length = served.length(row)
        if most is not None and length > most:
            left.append(n)
        elif length > context:
            raise InputError(
                "Row %(n)s of %(split)s has %(length)s tokens, and the model reads %(context)s; take another model,"
                " show fewer examples, or leave longer rows out (max_length)",
                n=n,
                split=split,
                length=length,
                context=context,
            )
        else:
            kept.append(row)
            longest = max(longest, length)
    if rows and not kept:
        raise InputError(
            N_("No row of %(split)s has at most %(most)s tokens; raise max_length"), split=split, most=most
        )
    return kept, left, longest
