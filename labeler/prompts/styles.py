"""The ways of prompting, by name, each with its published source. Every task can use every one of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Way:
    """One way of prompting. ``examples`` bounds how many are shown (None: as many as k says).

    ``reasons`` is True where the model writes down its thoughts before the answer; ``calls`` is how many calls one
    record takes, with ``samples`` for self-consistency counted as 0 here.
    """

    name: str
    source: str
    examples: int | None = None
    reasons: bool = False
    calls: int = 1


WAYS = {
    way.name: way
    for way in (
        Way("few-shot", "Brown et al. 2020, Language Models are Few-Shot Learners, arXiv:2005.14165"),
        Way("zero-shot", "Brown et al. 2020, arXiv:2005.14165", examples=0),
        Way("one-shot", "Brown et al. 2020, arXiv:2005.14165", examples=1),
        Way("chain-of-thought", "Wei et al. 2022, arXiv:2201.11903; Kojima et al. 2022, arXiv:2205.11916", None, True),
        Way("self-consistency", "Wang et al. 2022, arXiv:2203.11171", reasons=True, calls=0),
        Way("plan-and-solve", "Wang et al. 2023, arXiv:2305.04091", reasons=True),
        Way("least-to-most", "Zhou et al. 2022, arXiv:2205.10625", reasons=True, calls=2),
        Way("verify-and-edit", "Zhao et al. 2023, arXiv:2305.03268", calls=2),
    )
}
STYLES = tuple(WAYS)
FEW_SHOT, ZERO_SHOT, ONE_SHOT, CHAIN_OF_THOUGHT, SELF_CONSISTENCY, PLAN_AND_SOLVE, LEAST_TO_MOST, VERIFY_AND_EDIT = (
    "few-shot", "zero-shot", "one-shot", "chain-of-thought", "self-consistency", "plan-and-solve", "least-to-most",
    "verify-and-edit",
)  # fmt: skip
