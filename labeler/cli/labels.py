"""What the command line says of labels that go: the options of ``labeler settings``, and a preview in lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from labeler.errors import SettingError
from labeler.labels import Answers

if TYPE_CHECKING:
    from labeler.annotation.relabel import Preview, TaskSettings

Command = TypeVar("Command", bound=Callable[..., Any])
_WORDS = {
    "kept": "stays", "new": "is new", "retired": "is retired: not offered any more, its records keep it",
    "reopened": "its records go back to pending", "gone": "is removed; no approval has it", "open": "?",
}  # fmt: skip
_OPTIONS = (
    click.option("--rename", "renamed", multiple=True, metavar="OLD=NEW", help="A label has another name now"),
    click.option("--merge", "merged", multiple=True, metavar="OLD=INTO", help="A label becomes another one"),
    click.option("--retire", "retired", multiple=True, metavar="LABEL", help="Offered no more; its records keep it"),
    click.option("--reopen", "reopened", multiple=True, metavar="LABEL", help="Its records go back to pending"),
    click.option("--restore", type=click.IntRange(0), metavar="VERSION",
                 help="Bring back guidelines and labels of a version, and undo what was done to labels since; "
                      "0 is the plugin's own"),
    click.option("--dry-run", is_flag=True, help="Only show what a change of labels would do"),
)  # fmt: skip


def ways(command: Command) -> Command:
    """Add the options that say what becomes of labels."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Said:
    """What was said of labels; ``restore`` is the version to go back to."""

    answers: Answers
    restore: int | None = None
    dry_run: bool = False

    def __bool__(self) -> bool:
        return bool(self.answers.names) or self.restore is not None

    @classmethod
    def read(
        cls, renamed: Sequence[str], merged: Sequence[str], retired: Sequence[str], reopened: Sequence[str],
        restore: int | None, dry_run: bool,
    ) -> Said:  # fmt: skip
        answers = Answers(_pairs("--rename", renamed), _pairs("--merge", merged), tuple(retired), tuple(reopened))
        return cls(answers, restore, dry_run)

    def of(self, task: TaskSettings) -> tuple[dict[str, Any], Answers]:
        """Return the settings to restore, and the answers with the names that labels get back."""
        if self.restore is None:
            return {}, self.answers
        settings, renamed = task.restored(self.restore)
        given = self.answers
        more = {old: new for old, new in renamed.items() if old not in given.names}
        return settings, Answers({**more, **given.renamed}, given.merged, given.retired, given.reopened)


def _pairs(option: str, words: Sequence[str]) -> dict[str, str]:
    found = {}
    for word in words:
        old, mark, new = word.partition("=")
        if not mark or not old.strip() or not new.strip():
            raise SettingError(f"{option} is {word!r}; write OLD=NEW, the names of two labels")
        found[old.strip()] = new.strip()
    return found


def lines(preview: Preview) -> Iterator[str]:
    """Yield what a change of labels does, a line for each label and one for records that move."""
    for fate in preview.fates:
        what = f"becomes {fate.to}" if fate.to else _WORDS[fate.what]
        blind = f" ({fate.blind} blind)" if fate.blind else ""
        counts = f"{fate.approved} approved{blind}, {fate.suggested} suggested; then {fate.then} approved"
        yield f"{fate.name}: {what}. {counts}"
    if preview.reopening:
        yield f"{preview.reopening} records go back to pending."
    if preview.clashing:
        yield f"{preview.clashing} of them have labels that cannot stand together any more."
    if preview.returning:
        yield f"{preview.returning} records that were put back to pending get their label back."
    if preview.decided:
        yield f"Decided since, and left as they are: {', '.join(preview.decided)}"
