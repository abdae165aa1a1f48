"""Scores of labels from the log probabilities of an answer: pure functions.

The answer is JSON with the value under the name of the task. Where the tokens of that value stand, the server also
said what it would have written instead, and how likely: each such alternative that can only become one label counts
for that label.

- Probabilities are multiplied along the tokens that were written. At each token the alternatives that fit exactly one
  label are counted for it; those that fit none (another word, other white space in the middle) are left out, and so
  are those that fit several: where they would have led was not asked. The written token, while it fits several, leads
  on to the next one.
- The scores are the model's own probabilities and are not scaled to sum to 1: what is missing is what it gave to other
  texts, to what cannot be told apart, and to tokens that were not listed. A label that no listed token stands for is
  left out: its probability is small, but not known.
- Bytes, not characters: a token may end in the middle of a Korean syllable.

A set of labels has no such scores: the probabilities at the place of its first label say which label is named first,
and nothing of the others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from labeler.labels import LabelSchema
from labeler.records import Value

_PIECE = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)
_SPACE = b" \t\r\n"
_AFTER_NUMBER = b" \t\r\n,}]"


class Token(NamedTuple):
    """One token of an answer or an alternative to it."""

    data: bytes
    probability: float


class Place(NamedTuple):
    """A token that was written, and what might have stood there instead (it may be among them), as it was sent."""

    token: Token
    others: Any

    def alternatives(self) -> Iterator[Token]:
        """Yield the other tokens that can be read. Few places are asked: twenty others at each would take a while."""
        for raw in self.others if isinstance(self.others, list) else ():
            other = _token(raw)
            if other is not None and other.data != self.token.data:
                yield other


def can_score(schema: LabelSchema | None) -> bool:
    """Say whether an answer holds one label of a closed list: sets and free text have no scores."""
    candidates = {} if schema is None else schema.candidates()
    return bool(candidates) and all(isinstance(value, str | int) for value in candidates.values())


def label_scores(
    content: Any, text: str, task: str, candidates: Mapping[str, Value]
) -> tuple[dict[str, float], str] | None:
    """Return the scores by label, each in [0, 1], and the name of the label that was chosen.

    ``content`` is ``choices[0].logprobs.content`` of a chat completion, ``text`` its message. None where the answer
    does not hold one of the candidates under ``task``, or the tokens cannot be read: nothing is invented.
    """
    places = read_places(content)
    if not places:
        return None
    written = b"".join(place.token.data for place in places)
    # What a server lists before the message (reasoning) or after it (a mark of the end) is no answer.
    begin = written.rfind(text.encode("utf-8", "replace"))
    found = None if begin < 0 else find_value(written, task, begin)
    if found is None:
        return None
    start, value = found
    # By type, too: JSON's true is no 1.
    chosen = [name for name, known in candidates.items() if type(known) is type(value) and known == value]
    if len(chosen) != 1:
        return None
    scores = _walk(places, start, {name: _spellings(known) for name, known in candidates.items()})
    return (scores, chosen[0]) if chosen[0] in scores else None


def read_places(content: Any) -> list[Place]:
    """Return the tokens of an answer; empty if anything in them is not as it should be."""
    places = []
    for raw in content if isinstance(content, list) else ():
        token = _token(raw)
        if token is None:
            return []
        places.append(Place(token, raw.get("top_logprobs")))
    return places


def _token(raw: Any) -> Token | None:
    if not isinstance(raw, dict):
        return None
    text, data, logprob = raw.get("token"), raw.get("bytes"), raw.get("logprob")
    if not isinstance(logprob, int | float) or isinstance(logprob, bool) or math.isnan(logprob):
        return None
    try:
        # The text of a token that holds half a character is a replacement character; its bytes are right.
        found = bytes(data) if isinstance(data, list) else text.encode() if isinstance(text, str) else None
    except (ValueError, TypeError):
        return None
    # Rounding may leave a logarithm a little above 0.
    return None if found is None else Token(found, math.exp(min(logprob, 0.0)))


def find_value(written: bytes, task: str, begin: int = 0) -> tuple[int, Any] | None:
    """Return where the value of the key ``task`` begins (after the colon), and the value.

    The first JSON object from byte ``begin`` on counts, with or without a fence around it; the key must stand in it
    once.
    """
    start = written.find(b"{", begin)
    if start < 0:
        return None
    try:
        answer, _ = json.JSONDecoder().raw_decode(written[start:].decode())
    except (ValueError, RecursionError):
        return None
    places = [place for key, place in _keys(written, start) if key == task]
    return (places[0], answer[task]) if len(places) == 1 and task in answer else None


def _keys(written: bytes, start: int) -> Iterator[tuple[str, int]]:
    """Yield the keys of the object that begins at ``start``, each with the place after its colon."""
    depth, last = 0, b""
    for match in _PIECE.finditer(written, start):
        piece = match.group()
        if piece in (b"{", b"["):
            depth += 1
        elif piece in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return
        elif piece == b":" and depth == 1:
            yield json.loads(last), match.end()
        last = piece


def _spellings(value: Value) -> tuple[bytes, ...]:
    """Return how JSON may spell a value: with its characters as they are, or escaped."""
    return tuple({json.dumps(value, ensure_ascii=False).encode(), json.dumps(value).encode()})


def _walk(places: Sequence[Place], start: int, spellings: Mapping[str, Sequence[bytes]]) -> dict[str, float]:
    """Follow the tokens from byte ``start`` on until what was written fits one label only."""
    scores: dict[str, float] = {}
    path, before, offset = 1.0, b"", 0
    for place in places:
        token = place.token
        end = offset + len(token.data)
        if end > start:
            # Of the first token, what stands before the value: the colon, perhaps the end of the key.
            head = token.data[: max(start - offset, 0)]
            for other in place.alternatives():
                if other.data.startswith(head):
                    fitting = _fitting(before + other.data[len(head) :], spellings)
                    if len(fitting) == 1:
                        scores[fitting[0]] = scores.get(fitting[0], 0.0) + path * other.probability
            before += token.data[len(head) :]
            path *= token.probability
            fitting = _fitting(before, spellings)
            if len(fitting) <= 1:
                for name in fitting:
                    scores[name] = scores.get(name, 0.0) + path
                break
        offset = end
    return {name: min(score, 1.0) for name, score in scores.items()}


def _fitting(begun: bytes, spellings: Mapping[str, Sequence[bytes]]) -> list[str]:
    """Return the labels that a value which begins like ``begun`` may still become, or is."""
    begun = begun.lstrip(_SPACE)
    return [name for name, known in spellings.items() if any(_fits(begun, spelling) for spelling in known)]


def _fits(begun: bytes, spelling: bytes) -> bool:
    if len(begun) <= len(spelling):
        return spelling.startswith(begun)
    # A text ends with its quotation mark, a number only with what follows: 1 is not the beginning of 10.
    return begun.startswith(spelling) and (spelling.endswith(b'"') or begun[len(spelling)] in _AFTER_NUMBER)
