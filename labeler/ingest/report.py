"""What an import did, as the person reads it and as the store keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from labeler import strictjson
from labeler.sentence import Sentence, recalled, stored

MAX_REPORT = 5000
Line = tuple[int, "str | None", str]
"""What became of a row, or of the label in a column of it: row number, column, and one sentence."""


@dataclass
class Report:
    """What an import did, in numbers that are stored with it, and in lines.

    Each row counts once, as ``added``, ``known`` or ``refused``; of those added, ``duplicates`` are exact copies. Each
    label counts once, as one of ``labels`` (approved; ``given`` of them to the equal record that had none), ``agreed``
    (the same stands already), ``contradicting``, or ``left_out``. What was not simply taken has a line; at most 5,000
    are kept.
    """

    added: int = 0
    known: int = 0
    duplicates: int = 0
    refused: int = 0
    labels: int = 0
    given: int = 0
    agreed: int = 0
    contradicting: int = 0
    left_out: int = 0
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def said(self) -> int:
        """How many lines there are, kept or not."""
        return self.refused + self.given + self.contradicting + self.left_out

    def say(self, what: str, number: int, column: str | None, reason: str) -> None:
        """Count a row or a label under ``what`` and write a line."""
        setattr(self, what, getattr(self, what) + 1)
        if len(self.lines) < MAX_REPORT:
            self.lines.append((number, column, reason))

    def refuse(self, number: int, column: str | None, reason: str) -> None:
        self.say("refused", number, column, reason)

    def take(self, other: Report) -> None:
        """Add what another report counts."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lines += other.lines[: MAX_REPORT - len(self.lines)]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Report:
        """Return the report of an import as the store keeps it: what was done before it is taken up again."""
        lines: list[Line] = [
            (number, column, recalled(reason)) for number, column, reason in strictjson.loads(row["report"])
        ]
        notes: list[str] = [recalled(note) for note in strictjson.loads(row["notes"])]
        return cls(**{name: row[name] for name in _COUNTS}, lines=lines, notes=notes)

    def columns(self, before: Report) -> dict[str, Any]:
        """Return the numbers as the store keeps them, and the lines if there are more than ``before``."""
        numbers = {name: getattr(self, name) for name in _COUNTS}
        if len(self.lines) == len(before.lines):
            return numbers
        lines = [(number, column, stored(reason)) for number, column, reason in sorted(self.lines, key=itemgetter(0))]
        return numbers | {"report": strictjson.dumps(lines)}


_COUNTS = ("added", "known", "duplicates", "refused", "labels", "given", "agreed", "contradicting", "left_out")


def left_out(why: object) -> Sentence:
    """Say that a label did not go in, and why."""
    return Sentence("the label was left out: %(why)s", why=why)
