"""Prompts that fit: fewer examples, then a shorter text, until a model with a small context can read them.

The least useful examples go first, one after the other in the order of the retriever. Only where none is left is the
record's own text cut, at the end of a sentence where one is near, and visibly marked. Nothing here is random, so a
record that is asked about again has the same prompt and the same fingerprint.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from labeler import strictjson
from labeler.backends.base import GENERATED
from labeler.prelabel import flows
from labeler.prelabel.flows import Case
from labeler.prompts import shown
from labeler.prompts.styles import STYLES
from labeler.records import Completion, Message, Record, Value
from labeler.text import split_sentences

Count = Callable[[Sequence[Message]], int]
"""Says how many tokens a prompt has."""

CUT, FEWER = "cut", "fewer examples"
"""Flags of a suggestion whose prompt had to be made shorter."""
MARK = " […]"
"""What stands in a prompt where the text of the record was cut."""

_FENCE = "0" * 8
# The random word of a fence has 8 characters and stands in a prompt twice; some words are more tokens than others.
_FENCES = 16
# A shorter beginning of a review says too little to be labelled.
_LEAST = 32
# No writing has more characters to a token; runs of white space may, and of them nothing is missed.
_WIDEST = 16
# What stands around texts: the words of chat templates, roughly.
_PER_MESSAGE, _PER_PROMPT = 32, 256
# A sentence (or a word) is not cut where that keeps this share of what fits.
_KEPT = 0.75
_LONGEST_GRAPHEME = 64
_UNKNOWN_ANSWER = 256
# The characters of the longest number that a program writes, and of more than a date.
_LONGEST_NUMBER = 24
# Of an answer: tokens a character where the model is not known (small ones spell Hangul in bytes), what is kept more
# than it needs, and for the fence, the white space and the words around it.
_A_CHARACTER, _SPARE, _AROUND = 3.0, 1.5, 32
# The sentences that ask once more, or for a check, in the tokens of a model that spells Korean in bytes.
_WORDING = 400
_JOINER = "\u200d"


def room(context: int, cases: Sequence[Case], scores: bool) -> int:
    """Return how many tokens the first prompt of one flow may have where the model reads ``context`` in all.

    Set aside are the answer, as long as its schema can need and at most ``max_tokens`` (of all tasks that are asked in
    one call), and a part for the calls that follow, which quote it: a second question after an answer that cannot be
    read, or a check.
    ``scores`` says that the backend scores closed lists of labels itself: then only the longest label is set aside.
    """
    if scores and len(cases) == 1 and _is_scored(cases[0]):
        return context - _longest_label(cases[0])
    answer = sum(_answer_of(case) for case in cases)
    return context - answer - min(answer + _WORDING, context // 6)


def _answer_of(case: Case) -> int:
    most = case.generation.max_tokens or _UNKNOWN_ANSWER
    return most if case.longest is None or STYLES[case.style.name].reasons else min(most, case.longest)


def longest_answer(schema: Mapping[str, Any], a_character: float | None) -> int | None:
    """Return how many tokens an answer to a JSON schema can need, generously; None where nothing bounds it.

    ``a_character`` is how many tokens one of the model's characters takes at most, None where that is not known.
    """
    characters = _longest_json(schema)
    if characters is None:
        return None
    fixed, free = characters
    each = _A_CHARACTER if a_character is None else max(1.0, _SPARE * a_character)
    return round(_SPARE * fixed + each * free) + _AROUND


def _longest_json(schema: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return how many bytes of what the schema itself says, and how many other characters, an answer can have."""
    choices = schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else None
    kind = schema.get("type")
    if kind == "array" and "items" in schema:
        return _longest_list(schema)
    if choices is not None:
        return max((_bytes(choice) for choice in choices), default=2), 0
    if "anyOf" in schema:
        ways = [_longest_json(part) for part in schema["anyOf"]]
        known = [way for way in ways if way is not None]
        return max(known, key=sum) if len(known) == len(ways) else None
    if kind == "number" or schema.get("format") == "date":
        return _LONGEST_NUMBER, 0
    if kind == "string" and "maxLength" in schema:
        return 2, int(schema["maxLength"])
    if kind in ("integer", "boolean") and (kind == "boolean" or "maximum" in schema):
        return max(5, _bytes(schema.get("minimum", 0)), _bytes(schema.get("maximum", 0))), 0
    if kind == "object" and schema.get("additionalProperties") is False:
        parts = {name: _longest_json(part) for name, part in schema.get("properties", {}).items()}
        known = [part for part in parts.values() if part is not None]
        if len(known) < len(parts):
            return None
        return 2 + sum(_bytes(name) + 4 + part[0] for name, part in parts.items() if part), sum(p[1] for p in known)
    return None


def _longest_list(schema: Mapping[str, Any]) -> tuple[int, int] | None:
    item = schema["items"]
    if schema.get("uniqueItems") and "enum" in item:
        # Each once: what is longest is all of them.
        return 2 + sum(_bytes(choice) + 2 for choice in item["enum"]), 0
    one = _longest_json(item)
    most = schema.get("maxItems")
    return None if one is None or most is None else (2 + most * (one[0] + 2), most * one[1])


def _bytes(value: Any) -> int:
    return len(strictjson.dumps(value).encode("utf-8", "surrogatepass"))


def fit_case(case: Case, count: Count, limit: int) -> Case:
    """Return the case with as many examples, and as much of the record's text, as fit into ``limit`` tokens.

    Examples go from the least useful on, then the text is cut. A case that fits is returned as it is, and so is one
    that cannot be made to fit: the backend says then how long it is. ``count`` is called some dozen times at most, and
    not at all for a prompt that is short by its bytes. Raises what the task's ``build_prompt`` and ``count`` raise.
    """
    return fit_joint({case.task.name: case}, count, limit)[case.task.name]


def fit_joint(cases: Mapping[str, Case], count: Count, limit: int) -> dict[str, Case]:
    """Return the cases of one record, asked for in one call, as :func:`fit_case` does; all lose examples alike."""
    if limit <= 0 or all(_surely(prompt, limit) for prompt in _first_prompts(cases)):
        return dict(cases)
    whole = {name: replace(case, examples=shown(case.examples, case.style)) for name, case in cases.items()}

    def fits(examples: int, text: str | None = None) -> bool:
        return _fits(_shortened(whole, examples, text), count, limit)

    most = max(len(case.examples) for case in whole.values())
    if fits(most):
        return dict(cases)
    if most and fits(0):
        return _shortened(whole, _last(0, most, fits), None)
    first = next(iter(whole.values()))
    # Columns stand on a line of their own before the text: that stays whole.
    before = first.record.text.index("\n") + 1 if first.style.columns else 0
    text = _beginning(first.record.text, lambda text: fits(0, text), limit, before + _LEAST)
    return dict(cases) if text is None else _shortened(whole, 0, text)


def flags_of(whole: Case, fitted: Case) -> tuple[str, ...]:
    """Return the flags of a suggestion that was made from ``fitted`` instead of ``whole``."""
    fewer = len(fitted.examples) < len(shown(whole.examples, whole.style))
    cut = fitted.record.text != whole.record.text
    return (*([CUT] if cut else []), *([FEWER] if fewer else []))


# Prompts


def _fits(cases: Mapping[str, Case], count: Count, limit: int) -> bool:
    """Whether every call that the flow of these cases begins with has at most ``limit`` tokens."""
    # One word for all fences: a random one would let the same record fit today and not tomorrow.
    cases = {name: replace(case, style=replace(case.style, fence=_FENCE)) for name, case in cases.items()}
    return all(
        _surely(prompt, limit) or (_perhaps(prompt, limit) and count(prompt) + _FENCES <= limit)
        for prompt in _first_prompts(cases)
    )


def _first_prompts(cases: Mapping[str, Case]) -> list[Sequence[Message]]:
    """Return the prompts that the flow of these cases begins with, each once: samples ask the same several times."""
    asks = next(flows.flow_for(next(iter(cases.values())))) if len(cases) == 1 else next(flows.joint(cases))
    prompts = [ask.messages for ask in asks]
    return [prompt for n, prompt in enumerate(prompts) if prompt not in prompts[:n]]


def _surely(messages: Sequence[Message], limit: int) -> bool:
    """Whether a prompt fits by its bytes alone: every token is at least one of them."""
    left = limit - _PER_PROMPT - _PER_MESSAGE * len(messages)
    # A character has four bytes at most: where that suffices, nothing is encoded.
    if 4 * sum([len(message["content"]) for message in messages]) <= left:
        return True
    return sum([len(message["content"].encode("utf-8", "surrogatepass")) for message in messages]) <= left


def _perhaps(messages: Sequence[Message], limit: int) -> bool:
    """Whether a prompt is short enough to be worth counting."""
    return sum(len(message["content"]) for message in messages) <= limit * _WIDEST


def _shortened(cases: Mapping[str, Case], examples: int, text: str | None) -> dict[str, Case]:
    shorter = {name: replace(case, examples=case.examples[:examples]) for name, case in cases.items()}
    return shorter if text is None else {name: _with_text(case, text) for name, case in shorter.items()}


def _with_text(case: Case, text: str) -> Case:
    """Return the case with a beginning of its record's text; answers are still read against the whole record.

    Places in the beginning are places in the whole, and no label can stand on the mark.
    """
    whole = case.record

    def parse(record: Record, completion: Completion) -> Value:
        return case.parse(whole, completion)

    return replace(case, record=replace(whole, text=text), parse=parse)


def _is_scored(case: Case) -> bool:
    style = STYLES[case.style.name]
    plain = not style.reasons and style.calls == 1 and case.answering != GENERATED
    return plain and bool(case.task.schema.candidates())


def _longest_label(case: Case) -> int:
    values = case.task.schema.candidates().values()
    return max(len(case.task.answer(value).encode("utf-8", "surrogatepass")) for value in values)


# Texts


def _beginning(text: str, fits: Callable[[str], bool], limit: int, shortest: int) -> str | None:
    """Return the longest beginning of ``text`` that fits, marked as cut; None if even the shortest one does not."""

    def marked(end: int) -> str:
        return text[:end].rstrip() + MARK

    least, end = min(shortest, len(text) - 1), min(len(text), limit * _WIDEST)
    if end <= least or not fits(marked(boundary(text, least))):
        return None
    if end < len(text) and fits(marked(boundary(text, end))):
        found = end
    else:
        found = _last(least, end, lambda n: fits(marked(boundary(text, n))), coarse=True)
    found = boundary(text, found)
    nice = [place for place in (_sentence_end(text, found), _word_end(text, found)) if place >= _KEPT * found]
    # A shorter beginning has fewer tokens, nearly always.
    return next((marked(place) for place in nice if fits(marked(place))), marked(found))


def boundary(text: str, end: int) -> int:
    """Return the last place up to ``end`` where ``text`` can be cut without taking a character apart.

    What a reader sees as one character may be several code points: a letter with marks, jamo of one syllable, an emoji
    of many parts. One of more than 64 code points is cut all the same.
    """
    for place in range(end, max(end - _LONGEST_GRAPHEME, 0), -1):
        if place >= len(text) or not _belong_together(text[place - 1], text[place]):
            return place
    return end


def _belong_together(before: str, after: str) -> bool:
    return (
        _JOINER in (before, after)
        or unicodedata.category(after).startswith("M")
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= after <= "\U000e007f"  # tags of flags
        or "\u1160" <= after <= "\u11ff"  # vowels and final consonants of Hangul
        or ("\U0001f1e6" <= before <= "\U0001f1ff" and "\U0001f1e6" <= after <= "\U0001f1ff")  # letters of flags
    )


def _sentence_end(text: str, end: int) -> int:
    """Return the end of the last whole sentence in the first ``end`` code points; 0 if there is none."""
    # Some more of the text, so that a sentence that goes on is not taken for one that ends here.
    return max((last for _, last in split_sentences(text[: end + _LONGEST_GRAPHEME]) if last <= end), default=0)


def _word_end(text: str, end: int) -> int:
    if end < len(text) and text[end].isspace():
        return end
    return next((place for place in range(end - 1, 0, -1) if text[place].isspace()), 0)


def _last(low: int, high: int, fits: Callable[[int], bool], coarse: bool = False) -> int:
    """Return the last number that fits, where ``low`` does and ``high`` does not; ``coarse``: some hundredths less."""
    while high - low > (max(1, low // 64) if coarse else 1):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
