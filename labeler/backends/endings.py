"""How an answer ended that is no label: a backend says it as ``finish``, and a person reads why."""

from __future__ import annotations

from labeler.records import Completion, ParseFailure
from labeler.sentence import Sentence

CUT, RAN_AWAY, THINKING = "length", "ran_away", "thinking"
REFUSED, MODERATED = "refusal", "content_filter"
IN_THOUGHTS, IN_CALL = "in_thoughts", "in_call"

TRUNCATED, REFUSAL, ELSEWHERE = "truncated", "refusal", "elsewhere"
FINAL = (TRUNCATED, REFUSAL, ELSEWHERE)
"""Kinds of parse failures that the same question would meet again."""

_SAID = {
    RAN_AWAY: (TRUNCATED, Sentence("The answer was cut off, because it is longer than any label of this task")),
    # No label was cut off here: with the room that a model wants which thinks, the next answer may hold one.
    THINKING: ("thinking", Sentence("The model was still thinking where its answer should have ended")),
    REFUSED: (REFUSAL, Sentence("The model refused to answer")),
    MODERATED: (REFUSAL, Sentence("The server's content filter blocked the answer")),
    IN_THOUGHTS: (
        ELSEWHERE,
        Sentence(
            "The answer is empty: the model's text came as reasoning_content; start the server without "
            "its reasoning parser, or turn thinking off"
        ),
    ),
    IN_CALL: (ELSEWHERE, Sentence("The answer is empty: the model called a tool instead of answering")),
}


def no_answer(completion: Completion, max_tokens: int | None) -> ParseFailure | None:
    """Return why an answer may not be read as a label, whatever it holds; None where it may."""
    if completion.finish == CUT:
        if max_tokens is None:
            return ParseFailure(TRUNCATED, Sentence("The answer was cut off at the token limit"), completion.text)
        message = Sentence("The answer was cut off at the limit of %(n)s tokens (max_tokens)", n=max_tokens)
        return ParseFailure(TRUNCATED, message, completion.text)
    if completion.finish not in _SAID:
        return None
    return ParseFailure(*_SAID[completion.finish], completion.text)
