"""Filters: which of the approved annotations leave. What each keeps out is counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from labeler import strictjson
from labeler.errors import InputError, SettingError
from labeler.export.formats import plain
from labeler.prompts import LANGUAGES
from labeler.sentence import N_
from labeler.store import Row
from labeler.store.annotations import ACCEPTED, BULK, CORRECTED, IMPORTED, SCRATCH
from labeler.store.search import finder

HOWS = (ACCEPTED, CORRECTED, SCRATCH, IMPORTED, BULK)
Fields = Mapping[str, Any] | Row
"""A row of the store, or what a dictionary says in its place."""
Test = Callable[[Fields], bool]
_RUN = re.compile(r"(.)\1{3,}", re.DOTALL)
# What can be said of a suggestion that nobody has decided on.
_OF_SUGGESTIONS = {"language", "since", "until", "versions", "query", "min_score", "shortest", "longest", "repeated"}
_UNKNOWN = {
    "reviewers": N_("No approved label of this task is by %(name)r; there are: %(names)s"),
    "versions": N_("No label was approved under version %(name)r of this task; there are: %(names)s"),
    "metadata": N_("No record of this task has %(name)r in its metadata; there are: %(names)s"),
    "labels": N_("No approved label of this task counts as %(name)r; there are: %(names)s"),
}


@dataclass(frozen=True, slots=True)
class Filters:
    """Which approved annotations leave; empty or None means all. One that a row has nothing for keeps the row out.

    Of the label: ``how`` it was made, by which ``reviewers``, ``blind`` (without a suggestion in sight), ``since`` and
    before ``until`` (seconds since 1970), under which ``versions`` of the task, as which of ``labels`` it counts.
    ``min_agreement`` is how far the decision agrees with the suggestion for its record, shown or hidden, in [0, 1];
    ``min_score`` is the score of the suggestion that was accepted as it was; ``min_people_agreement`` is the share of
    several people who gave the label that was approved, in [0, 1].

    Of the record: its ``language``, the words of ``query`` in its text as a search finds them, ``metadata`` as pairs of
    column and value (of several values for one column, one is enough), the ``shortest`` and ``longest`` text in
    characters, and the largest share of it that is ``repeated``: in runs of four or more equal characters.
    ``without_written`` leaves out what a model wrote.
    """

    how: tuple[str, ...] = ()
    language: str | None = None
    since: float | None = None
    until: float | None = None
    reviewers: tuple[str, ...] = ()
    blind: bool = False
    versions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    min_agreement: float | None = None
    min_score: float | None = None
    min_people_agreement: float | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    query: str = ""
    shortest: int | None = None
    longest: int | None = None
    repeated: float | None = None
    without_written: bool = False

    def __post_init__(self) -> None:
        strange = [name for name in self.how if name not in HOWS]
        if strange:
            raise SettingError(
                "No way of labeling %(name)r; there are: %(names)s", name=strange[0], names=", ".join(HOWS)
            )
        if self.language is not None and self.language not in LANGUAGES:
            raise SettingError(
                "No records in %(language)r; there are: %(names)s", language=self.language, names=", ".join(LANGUAGES)
            )
        for name in ("min_agreement", "min_score", "min_people_agreement", "repeated"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise SettingError("The filter %(name)s is %(share)s; it is from 0 to 1", name=name, share=share)
        if self.query and finder(self.query) is None:
            raise SettingError("The search %(query)r has no word to look for", query=self.query)

    @classmethod
    def read(
        cls,
        *,
        since: str | None = None,
        until: str | None = None,
        metadata: Sequence[str] = (),
        query: str | None = None,
        **more: Any,
    ) -> Filters:
        """Return filters as people type them: dates, and COLUMN=VALUE. Raises :class:`SettingError`."""
        pairs = [pair.partition("=") for pair in metadata]
        strange = ["".join(pair) for pair in pairs if not pair[0] or not pair[1]]
        if strange:
            raise SettingError("Metadata is given as COLUMN=VALUE, not %(value)r", value=strange[0])
        more = {name: tuple(value) if isinstance(value, list) else value for name, value in more.items()}
        return cls(
            since=moment(since) if since else None,
            until=moment(until, through=True) if until else None,
            metadata=tuple((column, value) for column, _, value in pairs),
            query=query or "",
            **more,
        )

    @property
    def names(self) -> list[str]:
        """The filters that are set."""
        # A share of 0.0 is one that is set, and equals False.
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return [
            name for name, value in values.items() if value is not None and value is not False and value not in ((), "")
        ]

    def check_for_suggestions(self) -> None:
        """Raise :class:`SettingError` for a filter that asks what a reviewer did: nobody has decided yet."""
        strange = [name for name in self.names if name not in _OF_SUGGESTIONS]
        if strange:
            raise SettingError("Suggestions cannot be filtered by %(name)s: nobody has approved them", name=strange[0])

    def tests(self) -> dict[str, Test]:
        """Return what a row must pass, by the name of each filter that is set; ``labels`` have to wait for a value."""
        wanted: dict[str, set[str]] = {}
        for column, value in self.metadata:
            wanted.setdefault(column, set()).add(value)
        found = finder(self.query)
        tests: dict[str, Test] = {
            "how": lambda row: row["how"] in self.how,
            "language": lambda row: row["language"] == self.language,
            "since": lambda row: row["created_at"] >= (self.since or 0.0),
            "until": lambda row: row["created_at"] < (self.until or 0.0),
            "reviewers": lambda row: not set(self.reviewers).isdisjoint(people_of(row["reviewer"], row["people"])),
            "blind": lambda row: bool(row["blind"]),
            "versions": lambda row: row["task_version"] in self.versions,
            "min_agreement": lambda row: _reaches(row["agreement"], self.min_agreement),
            "min_people_agreement": lambda row: _reaches(row["people_agreement"], self.min_people_agreement),
            "min_score": lambda row: _reaches(row["score"], self.min_score),
            "metadata": lambda row: _has(strictjson.loads(row["metadata"]), wanted),
            "query": lambda row: found is not None and found(row["text"]),
            "shortest": lambda row: len(row["text"]) >= (self.shortest or 0),
            "longest": lambda row: len(row["text"]) <= (self.longest or 0),
            "without_written": lambda row: not row["written"],
            "repeated": lambda row: repeated(row["text"]) <= (self.repeated or 0.0),
        }
        return {name: tests[name] for name in self.names if name in tests}

    def to_json(self) -> dict[str, Any]:
        found = {name: _listed(value) for name, value in asdict(self).items()}
        return found | {name: _iso(getattr(self, name)) for name in ("since", "until")}


class Sieve:
    """Filters at work. ``kept_out`` counts the rows of each filter by name: a row counts for the first it fails."""

    def __init__(self, filters: Filters) -> None:
        self.kept_out: Counter[str] = Counter()
        self._filters, self._tests = filters, filters.tests()
        self._met: dict[str, set[str]] = {name: set() for name in _UNKNOWN if getattr(filters, name)}

    def passes(self, row: Fields) -> bool:
        if self._met:
            self._meet("reviewers", people_of(row["reviewer"], row["people"]))
            self._meet("versions", [row["task_version"]])
            if "metadata" in self._met:
                self._meet("metadata", strictjson.loads(row["metadata"]))
        return self._counted(next((name for name, test in self._tests.items() if not test(row)), None))

    def passes_as(self, strata: Collection[str]) -> bool:
        """Tell whether a row passes the filter by label, once it is known what its value counts as."""
        if not self._filters.labels:
            return True
        self._meet("labels", strata)
        return self._counted(None if set(self._filters.labels) & set(strata) else "labels")

    def check(self, labels: Iterable[str] = ()) -> None:
        """Raise :class:`InputError` for a name that no row has; ``labels`` are those of the schema."""
        self._meet("labels", labels)
        for name, met in self._met.items():
            asked = (
                [column for column, _ in self._filters.metadata] if name == "metadata" else getattr(self._filters, name)
            )
            strange = [one for one in asked if one not in met]
            if strange and met:
                raise InputError(_UNKNOWN[name], name=strange[0], names=", ".join(sorted(met)[:20]))

    def _meet(self, name: str, values: Iterable[str | None]) -> None:
        if name in self._met:
            self._met[name].update(value for value in values if value is not None)

    def _counted(self, failed: str | None) -> bool:
        if failed is not None:
            self.kept_out[failed] += 1
        return failed is None


def people_of(reviewer: str | None, people: str) -> list[str]:
    """Return who decided on a record: several people, whose names are JSON, and whoever settled what they said."""
    several = [] if people == "[]" else [str(name) for name in strictjson.loads(people)]
    return [*several, *([reviewer] if reviewer and reviewer not in several else [])]


def moment(text: str, through: bool = False) -> float:
    """Return a date, or a date and time, in seconds since 1970; without a zone it is in UTC.

    With ``through`` a date alone means its end. Raises :class:`SettingError`.
    """
    try:
        found = datetime.combine(date.fromisoformat(text), time()) + timedelta(days=through)
    except ValueError:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise SettingError("%(value)r is no date; write it as in 2026-11-30", value=text[:40]) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def repeated(text: str) -> float:
    """Return the share of a text that stands in runs of four or more equal characters, in [0, 1]."""
    return sum(len(run[0]) for run in _RUN.finditer(text)) / max(len(text), 1)


def _reaches(value: float | None, least: float | None) -> bool:
    return value is not None and value >= (least or 0.0)


def _has(metadata: Mapping[str, Any], wanted: Mapping[str, set[str]]) -> bool:
    return all(column in metadata and plain(metadata[column]) in values for column, values in wanted.items())


def _listed(value: Any) -> Any:
    """Return tuples as the lists that JSON makes of them."""
    return [_listed(one) for one in value] if isinstance(value, tuple) else value


def _iso(moment: float | None) -> str | None:
    return None if moment is None else iso(datetime.fromtimestamp(moment, UTC))


def iso(moment: datetime) -> str:
    """Return a moment as manifests have it."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
