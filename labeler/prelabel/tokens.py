"""How many tokens a prompt has, as far as can be told without the model's tokenizer.

A first guess goes by script (:func:`labeler.text.token_weights`). Each answer then says in its ``usage`` how many
there were, and so does a refusal of a long prompt: from these a ratio is learned, one for ASCII and one for the rest,
for each model of each server. It is stored, so that every process counts alike from the first answers on.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from labeler.records import Message
from labeler.store import Row, Store, Tx
from labeler.text import token_weights

# What chat templates put around a message.
_PER_MESSAGE = 4
# How strongly the first guess holds, against squares of shares: one answer moves it nearly the whole way.
_STIFFNESS = 0.005
_LEAST, _MOST = 0.2, 12.0
# Steps of the ratios: a prompt that was made shorter stays what it was while they are nearly what they were.
_STEP = math.log(1.05)
_FIRST, _THEN = 32, 1 / 16
_FRESH = 10.0


class Size(NamedTuple):
    """The length of a text in guessed tokens: of its ASCII characters, and of the others."""

    narrow: float
    wide: float


class Refused(NamedTuple):
    """A prompt that was refused for its length: its size in guessed tokens, and how many the server counted."""

    narrow: float
    wide: float
    tokens: int


class Tokens:
    """Counts tokens for one model of one server. Threads share it."""

    def __init__(self, store: Store, server: str, model_id: str) -> None:
        self._store, self._place = store, (server, model_id)
        self.answers = 0
        self._ratios = (1.0, 1.0)
        self._read_at = -math.inf

    def size(self, messages: Sequence[Message]) -> Size:
        parts = [token_weights(message["content"]) for message in messages]
        around = _PER_MESSAGE * len(messages)
        return Size(sum(narrow for narrow, _ in parts) + around, sum(wide for _, wide in parts))

    def of(self, size: Size) -> int:
        """Return the tokens of a prompt of this size."""
        narrow, wide = self._current()
        return round(narrow * size.narrow + wide * size.wide) + 1

    def prompt(self, messages: Sequence[Message], refused: Refused | None = None) -> int:
        """Return the tokens of a prompt, as much longer than they seem as those of a refused one were."""
        found = self.of(self.size(messages))
        if refused is None:
            return found
        seemed = self.of(Size(refused.narrow, refused.wide))
        return math.ceil(found * max(1.0, refused.tokens / seemed))

    def text(self, text: str) -> int:
        return self.of(Size(*token_weights(text)))

    @property
    def a_character(self) -> float | None:
        """How many tokens a character of any script takes; None before enough answers said so."""
        wide = self._current()[1]
        return wide if self.answers >= _SURE else None

    @property
    def margin(self) -> float:
        """Which share of a model's context a prompt may fill by this count."""
        self._current()
        return _MARGINS[min(self.answers, _SURE)]

    def learn(self, tx: Tx, size: Size, counted: int) -> None:
        """Take in how many tokens a prompt of this size has, by the server's own count."""
        if counted <= 0 or (self.answers > _FIRST and random.random() > _THEN):
            return
        narrow, wide = size.narrow / counted, size.wide / counted
        self._take(self._store.models.count_tokens(tx, *self._place, narrow, wide))

    def _current(self) -> tuple[float, float]:
        now = time.monotonic()
        if now - self._read_at > _FRESH:
            self._read_at = now
            self._take(self._store.models.tokens_counted(*self._place))
        return self._ratios

    def _take(self, sums: Row | None) -> None:
        if sums is not None:
            self.answers, self._ratios = int(sums["answers"]), _fitted(sums)


# With no answer, with one, with two, and from three on.
_MARGINS = (0.8, 0.87, 0.9, 0.93)
_SURE = len(_MARGINS) - 1


def _fitted(sums: Row) -> tuple[float, float]:
    """Return the ratios that make up for the smallest squares of relative errors (ridge regression around 1, 1)."""
    nn, ww = sums["nn"] + _STIFFNESS, sums["ww"] + _STIFFNESS
    nw, n, w = sums["nw"], sums["n"] + _STIFFNESS, sums["w"] + _STIFFNESS
    det = nn * ww - nw * nw
    return _stepped((n * ww - w * nw) / det), _stepped((w * nn - n * nw) / det)


def _stepped(ratio: float) -> float:
    return math.exp(round(math.log(min(max(ratio, _LEAST), _MOST)) / _STEP) * _STEP)
