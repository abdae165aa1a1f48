"""One sentence that says what the table of an evaluation says."""

from __future__ import annotations

from collections.abc import Sequence

from labeler.evaluation.apart import shown, shown_p
from labeler.evaluation.results import Report
from labeler.sentence import Sentence


def verdict(report: Report, names: Sequence[str]) -> Sentence:
    """Return what the table of an evaluation says: which arm agrees most, and which can be told apart from it."""
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
    return Sentence.joined(said, ". ")
