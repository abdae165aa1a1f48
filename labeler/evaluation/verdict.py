"""One sentence that says what the table of an evaluation says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from labeler.evaluation.apart import shown, shown_p
from labeler.evaluation.results import Report
from labeler.sentence import Sentence

if TYPE_CHECKING:
    from labeler.evaluation.judging import Judged


def verdict(report: Report, names: Sequence[str], judged: Mapping[int, Judged] | None = None) -> Sentence:
    """Return what the table of an evaluation says: which arm agrees most, and which can be told apart from it.

    ``judged`` is what a judge that counts says of the arms, by number.
    """
    best = report.arms[report.best]
    said = [
        Sentence(
            "Agrees most on %(n)s records: %(name)s, %(agreement)s",
            n=f"{report.n:,}", name=names[best.number], agreement=shown(best.numbers["agreement"]),
        )
    ]  # fmt: skip
    said += [
        Sentence("Worse: %(name)s, by %(difference)s (p %(p)s)",
                 name=names[arm.number], difference=shown(arm.behind), p=shown_p(arm.p))
        for arm in report.arms
        if arm.told_apart and arm.behind is not None
    ]  # fmt: skip
    alike = [names[arm.number] for arm in report.arms if arm.number != best.number and not arm.told_apart]
    if alike:
        said.append(Sentence("Cannot be told apart from it on so many records: %(names)s", names="; ".join(alike)))
    if judged:
        number, one = max(judged.items(), key=lambda pair: pair[1].share.value)
        said.append(Sentence("The judge finds the best to be: %(name)s, %(share)s", name=names[number],
                             share=shown(one.share)))  # fmt: skip
    return Sentence.joined(said, ". ")
