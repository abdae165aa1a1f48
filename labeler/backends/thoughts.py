"""What models write around their answer: thoughts before or behind it, and marks of the end of a turn.

Servers cut both off where they are started for the model at hand; many are not. Neither is a part of the answer, so
nothing is guessed where they are put aside. Words without marks around them are left: where an answer begins among
them nobody can know.
"""

from __future__ import annotations

import re

_NAMES = "think|thinking|thoughts?|reasoning|reason|reflection|analysis|scratchpad|rationale|seed:think|cot"
# Opening and closing marks. Qwen, DeepSeek and most others; Magistral; Kimi; Cohere and others; MedGemma; Gemma.
_MARKS = (
    (rf"<(?:{_NAMES})\b[^>]{{0,80}}>", rf"</(?:{_NAMES})>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    (
        r"<\|(?:(?:begin|start)_(?:of_)?)?(?:thinking|thought|think|reasoning)\|>",
        r"<\|(?:end_(?:of_)?|/)(?:thinking|thought|think|reasoning)\|>",
    ),
    (r"<unused94>", r"<unused95>"),
    (r"<\|channel>thought", r"<channel\|>"),
    # gpt-oss: what it says to itself, and then the head of what it says to others.
    (
        r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)[^<]{0,60}<\|message\|>",
        r"<\|end\|>(?:<\|start\|>assistant)?(?=<\|channel\|>)",
    ),
)
_FINAL = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>final[^<]{0,60}<\|message\|>")
_LEADING = [re.compile(rf"\s*(?:{opens})(.*?){closes}", re.DOTALL | re.IGNORECASE) for opens, closes in _MARKS]
# Chat templates write the opening mark themselves, so that the answer begins with the thoughts.
_HEADLESS = [re.compile(rf"(.*?){closes}", re.DOTALL | re.IGNORECASE) for _, closes in _MARKS]
_TRAILING = [
    re.compile(rf"{opens}((?:(?!{opens}).)*?){closes}\Z", re.DOTALL | re.IGNORECASE) for opens, closes in _MARKS
]
_OPENS = re.compile(rf"\s*(?:{'|'.join(opens for opens, _ in _MARKS)})", re.IGNORECASE)
_END = re.compile(
    r"(?:<[|\uff5c][^<>|\uff5c\s]{1,40}[|\uff5c]>|</s>|<eos>|<end_of_turn>|<turn\|>|\[/INST\]|\[EOS\])\Z", re.IGNORECASE
)
_LONGEST_END = 60


def split_thoughts(text: str) -> tuple[str, str]:
    """Return an answer without what stands around it, and the thoughts that stood there; empty where there were none.

    A text without such marks is returned as it is, and so is one whose thoughts do not end: it holds no answer.
    """
    thoughts: list[str] = []
    rest = _without_leading(text, thoughts)
    rest = _without_ends(rest)
    if rest.lstrip()[:1] in ("{", "[", "`"):
        for pattern in _TRAILING:
            if found := pattern.search(rest.rstrip()):
                thoughts.append(found[1])
                rest = rest[: found.start()]
    return rest, "\n\n".join(thought.strip() for thought in thoughts if thought.strip())


def begins_with_thoughts(text: str) -> bool:
    """Whether a text begins with thoughts, or with the mark of such, also where they do not end."""
    return bool(_OPENS.match(text)) or _without_leading(text, []) != text


def _without_leading(text: str, thoughts: list[str]) -> str:
    rest = text
    while True:
        # What begins as an answer is one, whatever stands in it.
        patterns = _LEADING if thoughts or rest.lstrip()[:1] in ("{", "[", "`") else (*_LEADING, *_HEADLESS)
        found = next((match for pattern in patterns if (match := pattern.match(rest))), None)
        if found is None:
            break
        thoughts.append(found[1])
        rest = rest[found.end() :]
    return _FINAL.sub("", rest, count=1) if _FINAL.match(rest) else rest


def _without_ends(text: str) -> str:
    rest = text.rstrip()
    while found := _END.search(rest, max(len(rest) - _LONGEST_END, 0)):
        rest = rest[: found.start()].rstrip()
    return rest if len(rest) < len(text.rstrip()) else text
