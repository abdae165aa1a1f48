"""Moves: what each version of a task's settings says of the labels that were given before it.

Annotations are never rewritten. A value stays as it was decided, and is read through the moves of every version since:
a label that was renamed reads as its new name, one that was merged as the label it went into. So a change of labels
costs the same for one annotation and for a million, who decided what stays true, and going back is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labeler.errors import SettingError


@dataclass(frozen=True, slots=True)
class Moves:
    """Where the labels of one version went: ``renamed`` and ``merged`` by their old name; ``reopened`` went nowhere.

    ``back_to`` is the version whose labels this one brought back: values from up to then read as they did then.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    merged: Mapping[str, str] = field(default_factory=dict)
    reopened: tuple[str, ...] = ()
    back_to: int | None = None

    def __bool__(self) -> bool:
        return bool(self.renamed or self.merged or self.reopened or self.back_to is not None)

    def now(self, name: str) -> str | None:
        """Return what a label is called after this version; None if its records were put back to pending."""
        if name in self.reopened:
            return None
        return self.merged.get(name) or self.renamed.get(name) or name

    def to_json(self) -> dict[str, Any]:
        found = {"renamed": dict(self.renamed), "merged": dict(self.merged), "reopened": list(self.reopened)}
        kept: dict[str, Any] = {name: value for name, value in found.items() if value}
        return kept if self.back_to is None else kept | {"back_to": self.back_to}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Moves:
        return cls(
            raw.get("renamed", {}), raw.get("merged", {}), tuple(raw.get("reopened", ())), raw.get("back_to")
        )  # fmt: skip


class Lineage:
    """The moves of a task's versions, oldest first. ``own`` is the version of the plugin itself."""

    def __init__(self, moves: Mapping[int, Moves] | None = None, own: str = "") -> None:
        self._moves = sorted((moves or {}).items())
        self._own = own
        self._paths: dict[str, list[Moves]] = {}

    def __bool__(self) -> bool:
        return bool(self._moves)

    def path(self, version: str) -> list[Moves]:
        """Return the moves that a value made under ``version`` (as a row names it: "1", "1.3") has to take."""
        if version not in self._paths:
            self._paths[version] = self._path(number_of(version, self._own))
        return self._paths[version]

    def _path(self, made: int) -> list[Moves]:
        found: list[Moves] = []
        reached = self._moves[-1][0] if self._moves else 0
        for number, moves in reversed(self._moves):
            if number > reached:
                # It was taken back as a whole.
                continue
            if number <= made:
                break
            if moves.back_to is not None and made <= moves.back_to:
                reached = moves.back_to
                continue
            found.append(moves)
        return found[::-1]

    def now(self, name: str, version: str) -> str | None:
        """Return what a label that was given under ``version`` is called now; None if its records were put back."""
        return carried(name, self.path(version))

    def renamed(self, name: str, made: int = 0) -> str:
        """Return the name that a label of version ``made`` has now, as far as it was renamed and no more."""
        for moves in self._path(made):
            name = moves.renamed.get(name, name)
        return name

    def earlier(self, name: str) -> set[str]:
        """Return every name that a label which is called ``name`` now may have been stored under, this one too."""
        found = {name}
        for _, moves in reversed(self._moves):
            found |= {old for went in (moves.renamed, moves.merged) for old, new in went.items() if new in found}
        return found

    def newest(self) -> int:
        """Return the version that moved labels last; 0 if none did."""
        return self._moves[-1][0] if self._moves else 0


def carried(name: str | None, path: Iterable[Moves]) -> str | None:
    for moves in path:
        if name is None:
            return None
        name = moves.now(name)
    return name


def number_of(version: str, own: str) -> int:
    """Return the number of a project's settings in the version that a row names; 0 for the plugin's ``own``."""
    head, _, tail = version.rpartition(".")
    return int(tail) if version != own and head and tail.isascii() and tail.isdigit() else 0


@dataclass(frozen=True, slots=True)
class Answers:
    """What a person says of labels that are not offered any more.

    ``renamed`` and ``merged`` name the new label by the old one. ``retired`` labels stay on the records that have
    them; the records of ``reopened`` ones are put back to pending.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    merged: Mapping[str, str] = field(default_factory=dict)
    retired: tuple[str, ...] = ()
    reopened: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = [*self.renamed, *self.merged, *self.retired, *self.reopened]
        twice = next((name for n, name in enumerate(named) if name in named[:n]), None)
        if twice is not None:
            raise SettingError("The label %(name)r is answered for twice; say one thing of it", name=twice)

    @property
    def names(self) -> set[str]:
        return {*self.renamed, *self.merged, *self.retired, *self.reopened}
