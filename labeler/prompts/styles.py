"""The styles of prompts, by name, each with its published source. Every task can use every one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FEW_SHOT, ZERO_SHOT, ONE_SHOT = "few-shot", "zero-shot", "one-shot"
CHAIN_OF_THOUGHT, SELF_CONSISTENCY = "chain-of-thought", "self-consistency"
PLAN_AND_SOLVE, LEAST_TO_MOST, VERIFY_AND_EDIT = "plan-and-solve", "least-to-most", "verify-and-edit"


@dataclass(frozen=True, slots=True)
class Style:
    """How a prompt is put for one record. ``examples`` bounds how many are shown (None: as many as k says).

    ``reasons`` is True where the model writes down its thoughts before the answer; ``calls`` is how many calls one
    record takes as long as every answer can be read, with ``samples`` for self-consistency counted as 0 here.
    ``title`` and ``description`` map a language to what the settings page says.
    """

    name: str
    source: str
    examples: int | None = None
    reasons: bool = False
    calls: int = 1
    title: Mapping[str, str] = field(default_factory=dict)
    description: Mapping[str, str] = field(default_factory=dict)


STYLES = {
    style.name: style
    for style in (
        Style(
            FEW_SHOT,
            "Brown et al. 2020, Language Models are Few-Shot Learners, arXiv:2005.14165",
            title={"ko": "예시 여러 개", "en": "Few-shot"},
            description={
                "ko": "승인된 예시 k개를 보여 주고 바로 답하게 해요.",
                "en": "Shows k approved examples and asks for the answer at once.",
            },
        ),
        Style(
            ZERO_SHOT,
            "Brown et al. 2020, Language Models are Few-Shot Learners, arXiv:2005.14165",
            examples=0,
            title={"ko": "예시 없음", "en": "Zero-shot"},
            description={
                "ko": "예시 없이 가이드라인과 라벨만 보여 주고 바로 답하게 해요.",
                "en": "Shows the guidelines and labels alone, without examples, and asks for the answer at once.",
            },
        ),
        Style(
            ONE_SHOT,
            "Brown et al. 2020, Language Models are Few-Shot Learners, arXiv:2005.14165",
            examples=1,
            title={"ko": "예시 하나", "en": "One-shot"},
            description={
                "ko": "가장 도움이 되는 예시 하나만 보여 주고 바로 답하게 해요.",
                "en": "Shows the single most useful example and asks for the answer at once.",
            },
        ),
        Style(
            CHAIN_OF_THOUGHT,
            "Wei et al. 2022, Chain-of-Thought Prompting Elicits Reasoning in Large Language Models, arXiv:2201.11903; "
            "Kojima et al. 2022, Large Language Models are Zero-Shot Reasoners, arXiv:2205.11916",
            reasons=True,
            title={"ko": "단계별 추론", "en": "Chain of thought"},
            description={
                "ko": "답하기 전에 생각을 먼저 쓰게 해요.",
                "en": "Asks for the thoughts first and then for the answer, in one call.",
            },
        ),
        Style(
            SELF_CONSISTENCY,
            "Wang et al. 2022, Self-Consistency Improves Chain of Thought Reasoning in Language Models, "
            "arXiv:2203.11171",
            reasons=True,
            calls=0,
            title={"ko": "자기 일관성", "en": "Self-consistency"},
            description={
                "ko": "생각과 답변을 여러 번 받아 다수결로 정하고, 일치하는 정도를 점수로 써요.",
                "en": "Samples several chains of thought, takes the majority, and makes their agreement the score.",
            },
        ),
        Style(
            PLAN_AND_SOLVE,
            "Wang et al. 2023, Plan-and-Solve Prompting: Improving Zero-Shot Chain-of-Thought Reasoning by Large "
            "Language Models, arXiv:2305.04091",
            reasons=True,
            title={"ko": "계획 후 풀이", "en": "Plan and solve"},
            description={
                "ko": "먼저 계획을 세우고 그 계획대로 답하게 해요.",
                "en": "Asks for a plan, for carrying it out, and then for the answer, in one call.",
            },
        ),
        Style(
            LEAST_TO_MOST,
            "Zhou et al. 2022, Least-to-Most Prompting Enables Complex Reasoning in Large Language Models, "
            "arXiv:2205.10625",
            reasons=True,
            calls=2,
            title={"ko": "쉬운 것부터", "en": "Least to most"},
            description={
                "ko": "리뷰의 요점을 단순한 것부터 적은 뒤, 그 요점으로 답하게 해요. 요약에 알맞아요.",
                "en": "First lists the points of the review, simplest first, then answers from them; suits summaries.",
            },
        ),
        Style(
            VERIFY_AND_EDIT,
            "after Zhao et al. 2023, Verify-and-Edit: A Knowledge-Enhanced Chain-of-Thought Framework, "
            "arXiv:2305.03268",
            calls=2,
            title={"ko": "확인 후 수정", "en": "Verify and edit"},
            description={
                "ko": "먼저 답한 뒤, 그 답변을 리뷰 원문과 가이드라인에 대조해 고치게 해요.",
                "en": "Answers first, then checks the answer against the review and the guidelines and corrects it.",
            },
        ),
    )
}
