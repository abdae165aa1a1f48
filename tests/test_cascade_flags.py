"""What a suggestion of a cascade says of prompts that had to be made shorter: of those that were asked, no others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_flows import BAD, GOOD, case_of, drive, example, refusal

from labeler.prelabel.fitting import CUT, FEWER
from labeler.prelabel.flows import cascade


def flags_after(free, *answers, enough=0.9, retrieved=(CUT, FEWER), fixed=(FEWER,)):
    """The flags of a cascade whose two prompts were made shorter in different ways."""
    case = replace(case_of(examples=[example(1, "가까운 예")]), flags=retrieved)
    outcome, _ = drive(cascade(case, [example(2, "고정된 예")], lambda: free, enough, fixed), *answers)
    return outcome.flags


def test_free_answer_needed_no_prompt():
    """Nothing was asked, so nothing was left out."""
    assert flags_after(("good", 1.0)) == ()


@pytest.mark.parametrize("answer", [GOOD, refusal()])
def test_prompt_with_fixed_examples_decided_alone(answer):
    """What the prompt with retrieved examples would have left out was never missing."""
    assert flags_after(("good", 0.5), answer) == (FEWER,)
    assert flags_after(("good", 0.5), answer, fixed=()) == ()


def test_both_prompts_were_asked():
    """The second prompt decides, and the first was not confirmed perhaps for what it had to leave out."""
    assert flags_after(("good", 0.5), BAD, GOOD) == (CUT, FEWER)
    assert flags_after(("good", 0.5), BAD, GOOD, retrieved=()) == (FEWER,)
    assert flags_after(("good", 0.5), BAD, GOOD, fixed=()) == (CUT, FEWER)


def test_prompt_with_fixed_examples_was_left_out():
    """Without a free answer there is one prompt, and its flags."""
    assert flags_after(None, GOOD, retrieved=(CUT,)) == (CUT,)
