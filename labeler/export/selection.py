"""Selection: how many of the rows that pass the filters leave, with which weight, and how they are split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from labeler.errors import LabelError, SettingError
from labeler.export.contacts import masked, masked_in
from labeler.export.filters import moment
from labeler.labels import Date
from labeler.sentence import N_
from labeler.text import checked_name

KEEP, MASK, DROP = "keep", "mask", "drop"
BY_NAME, BY_DATE, BY_LABEL = "product", "date", "label"
CONTACTS, SPLIT_BY = (KEEP, MASK, DROP), (BY_NAME, BY_DATE, BY_LABEL)
_MOST_WEIGHT = 1_000_000
_NAMELESS = N_("A frozen test set needs a name of 1 to %(most)s printable characters")
T = TypeVar("T")
N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows leave, of those that pass the filters.

    ``caps`` is the most rows of a label in train (the label "" stands for each that is not named), ``weights`` what a
    row of a label weighs, ``near_duplicates`` the most rows of one cluster (None: all). ``contacts`` says what becomes
    of contact data: ``keep``, ``mask``, or ``drop`` the row. Records that have no split yet get theirs by ``split_by``:
    ``product``, ``date`` (of the approval, or in ``date_column`` of the metadata) or ``label``. ``freeze`` keeps the
    test rows of this export out of every other split, for good, under that name.
    """

    caps: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    near_duplicates: int | None = None
    contacts: str = KEEP
    split_by: str = BY_NAME
    date_column: str = ""
    freeze: str = ""

    def __post_init__(self) -> None:
        for value, names in ((self.contacts, CONTACTS), (self.split_by, SPLIT_BY)):
            if value not in names:
                raise SettingError("%(value)r is none of %(names)s", value=value, names=", ".join(names))
        if self.near_duplicates is not None and self.near_duplicates < 1:
            raise SettingError(
                "At least one row of a cluster of near-duplicates leaves, not %(n)s", n=self.near_duplicates
            )
        for label, cap in self.caps.items():
            if cap < 1:
                raise SettingError("The cap of %(label)r is %(n)s; it is at least 1", label=label, n=cap)
        for label, weight in self.weights.items():
            if not label:
                raise SettingError("A weight is of a label: write LABEL=%(n)s", n=weight)
            if not 0 < weight <= _MOST_WEIGHT:
                raise SettingError(
                    "The weight of %(label)r is %(n)s; it is above 0 and at most %(most)s",
                    label=label,
                    n=weight,
                    most=f"{_MOST_WEIGHT:,}",
                )
        if self.date_column and self.split_by != BY_DATE:
            raise SettingError("A column of dates goes with a split by date alone")
        if self.freeze:
            checked_name(self.freeze, _NAMELESS, 80)

    @classmethod
    def read(
        cls,
        *,
        caps: Sequence[str] = (),
        weights: Sequence[str] = (),
        near_duplicates: str | None = None,
        contacts: str | None = None,
        split_by: str | None = None,
        freeze: str | None = None,
    ) -> Selection:
        """Return a selection as people type it: ``LABEL=N``, keep, one or N, ``date:COLUMN``.

        Raises :class:`SettingError`.
        """
        by, _, column = (split_by or BY_NAME).partition(":")
        return cls(
            caps=dict(_labelled(text, int) for text in caps),
            weights=dict(_labelled(text, float) for text in weights),
            near_duplicates=_most(near_duplicates or KEEP),
            contacts=contacts or KEEP,
            split_by=by,
            date_column=column,
            freeze=freeze or "",
        )

    @property
    def labels(self) -> set[str]:
        """The labels that are named."""
        return {*self.caps, *self.weights} - {""}

    def room(self, label: str) -> float:
        """Return the most rows of a label in train."""
        return self.caps.get(label, self.caps.get("", float("inf")))

    def weight(self, strata: Collection[str]) -> float | None:
        """Return what a row weighs: the most that one of its labels does, 1 for one without; None without weights."""
        return max((self.weights.get(label, 1.0) for label in strata), default=1.0) if self.weights else None

    def text(self, text: str) -> str:
        """Return a text as it leaves, with as many code points."""
        return masked(text) if self.contacts == MASK else text

    def metadata(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return metadata as it leaves."""
        found: Mapping[str, Any] = masked_in(metadata) if self.contacts == MASK else metadata
        return found

    def dated(self, key: str, created_at: float, metadata: Mapping[str, Any]) -> float:
        """Return the day by which a record is split, in seconds since 1970. Raises :class:`SettingError`."""
        if not self.date_column:
            return created_at
        value = metadata.get(self.date_column)
        try:
            return moment(str(value))
        except SettingError:
            pass
        try:
            return moment(Date().parse(Date().read_cell(value)))
        except LabelError as error:
            raise SettingError(
                "The record %(key)r has no date in %(column)r that can be read: %(value)s",
                key=key,
                column=self.date_column,
                value=repr(value)[:40],
            ) from error

    def to_json(self) -> dict[str, Any]:
        return {
            "caps": dict(self.caps), "weights": dict(self.weights), "near_duplicates": self.near_duplicates,
            "contacts": self.contacts, "split_by": self.split_by, "date_column": self.date_column,
            "freeze": self.freeze,
        }  # fmt: skip


def _labelled(text: str, number: Callable[[str], N]) -> tuple[str, N]:
    label, _, n = text.rpartition("=")
    try:
        return label.strip(), number(n)
    except ValueError:
        raise SettingError("%(value)r is not read; write LABEL=NUMBER", value=text[:80]) from None


def _most(text: str) -> int | None:
    if text == KEEP:
        return None
    try:
        return 1 if text == "one" else int(text)
    except ValueError:
        raise SettingError(
            "Near-duplicates: keep, one or a number for each cluster, not %(value)r", value=text
        ) from None


def crowded_out(
    rows: Iterable[T], groups: Callable[[T], Iterable[Hashable]], room: Callable[[Any], float]
) -> Iterable[T]:
    """Yield the rows that no room is left for: each takes a place in all of its groups, or in none."""
    taken: Counter[Hashable] = Counter()
    for row in rows:
        mine = set(groups(row))
        if any(taken[group] >= room(group) for group in mine):
            yield row
        else:
            taken.update(mine)


def fixed_place(key: str) -> bytes:
    """Return the place of a key in an order that looks random, and that is the same in every export."""
    return hashlib.sha256(b"labeler order 1\n" + key.encode("utf-8")).digest()[:8]
