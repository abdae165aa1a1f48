"""Records as a table: walked through in an order, a slice at a time, and looked through for what a query asks.

A slice costs the same in a project of a thousand records and of a million: each order reads an index from a place on,
and only the slice's own rows are joined with their decisions and suggestions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from labeler import strictjson
from labeler.store.ballots import NAMES, SAID
from labeler.store.database import Database, Row

NEWEST, OLDEST, LOWEST, HIGHEST, DECIDED = "newest", "oldest", "lowest", "highest", "decided"
ORDERS = (NEWEST, OLDEST, LOWEST, HIGHEST, DECIDED)
"""By the number of the record, by the score of the suggestion, and by the decision in force, newest first."""
OF_TASK = (LOWEST, HIGHEST, DECIDED)
STATES = ("pending", "disputed", "approved", "rejected")

IS = {
    "blind": "a.blind = 1",
    "copy": "r.duplicate_of IS NOT NULL",
    "product": "r.kind = 'group'",
    "suggested": "s.value IS NOT NULL",
    "unread": "s.failure IS NOT NULL",
    "doubted": "w.disagreement > 0",
    "written": "EXISTS (SELECT 1 FROM written x WHERE x.record_id = r.id)",
}
"""What a record can be, as a condition."""
# Open notes of a record that wait for whoever adjudicates, and the names of those that others wait for.
_NOTES = "FROM notes n {} WHERE n.record_id = r.id AND n.task = :t AND n.open = 1"
_FLAGGED = f"CASE WHEN EXISTS (SELECT 1 {_NOTES.format('')} AND n.to_id IS NULL) THEN 'yes' ELSE 'no' END"
_ASKED = f"SELECT q.name {_NOTES.format('JOIN reviewers q ON q.id = n.to_id')}"
_NOTED = f"{_FLAGGED} AS flagged, (SELECT json_group_array(name) FROM ({_ASKED} ORDER BY n.id)) AS asked"
_COLUMNS = {
    "flagged": _FLAGGED,
    "state": "w.state", "score": "w.score", "disagreement": "w.disagreement", "agreement": "a.agreement",
    "seconds": "a.seconds", "how": "a.how", "version": "a.task_version", "date": "a.created_at",
    "added": "r.created_at", "key": "r.key", "product": "r.grp", "import": "r.import_id", "language": "r.language",
    "model": "COALESCE(s.model_id, s.backend)",
    "act": "CASE WHEN a.origin LIKE 'act:%' THEN CAST(SUBSTR(a.origin, 5) AS INTEGER) END", "flag": "s.flags",
}  # fmt: skip
OF_DECISIONS = frozenset({"act", "agreement", "seconds", "by", "how", "version", "date", "label"})
"""Fields that a pending record has nothing for."""
_VOTERS = """EXISTS (SELECT 1 FROM ballots b JOIN reviewers z ON z.id = b.reviewer_id
    WHERE {said} AND z.name {among})"""
_IS_OF_RECORDS = frozenset({"copy", "product", "written"})
_OF_RECORDS = frozenset({"added", "key", "product", "import", "language", "meta", "tag"})
_BY_NOTES = ("flagged", "asked")
_NAMED = ("key", "product", "import", *_BY_NOTES)
_OPERATORS = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}
_SIGNS = {NEWEST: "<", OLDEST: ">", LOWEST: ">", HIGHEST: "<", DECIDED: "<"}


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: ``values`` are alternatives. ``op`` is ``:`` (is one of), a comparison, or ``..`` (from, before).

    ``name`` is a field of the query language, "word" or "meta"; ``column`` is the one of a "meta". ``hints`` are what
    the stored value of a label holds at least one of: too many rows may, and none that has the label does not.
    """

    name: str
    values: tuple[Any, ...] = ()
    op: str = ":"
    negated: bool = False
    column: str = ""
    hints: tuple[str, ...] = field(default=(), compare=False)


class Place(NamedTuple):
    """Where a record stands in an order: what the order goes by, and its number."""

    by: float
    record_id: int


def of_task(term: Term) -> bool:
    """Whether a term asks for something that a record has in one task."""
    if term.name == "is":
        return not _IS_OF_RECORDS.issuperset(term.values)
    return term.name != "word" and term.name not in _OF_RECORDS


def finds_few(term: Term) -> bool:
    """Whether a term finds its records by an index of its own: few of many, as a rule."""
    without = term.name == "flagged" and "no" in term.values
    return term.name in _NAMED and term.op == ":" and not term.negated and not without


class Table:
    """The records of one project, in the queue of one task or, without one, all of them."""

    def __init__(self, db: Database, project_id: int, task: str | None) -> None:
        self.db, self.project_id, self.task = db, project_id, task

    def walk(
        self,
        order: str,
        states: Sequence[str],
        edge: Place | None,
        size: int,
        back: bool = False,
        found: str | None = None,
        named: Term | None = None,
    ) -> list[Place]:
        """Return the next places of an order after ``edge``, or with ``back`` those before it, nearest first.

        By number, only what a query of the full-text index (``found``) finds is walked through, or the records that a
        term finds by an index of its own (``named``, one that :func:`finds_few`).
        """
        sign = _SIGNS[order]
        if back:
            sign = "<" if sign == ">" else ">"
        sql = self._walking(order, states, sign, found, named)
        if edge is None:
            edge = Place(float("-inf"), 0) if sign == ">" else Place(float("inf"), 2**62)
        params = {"p": self.project_id, "t": self.task, "by": edge.by, "id": edge.record_id, "found": found}
        params |= {f"n{n}": value for n, value in enumerate(() if named is None else named.values)}
        direction = "ASC" if sign == ">" else "DESC"
        # As the indexes have it: nothing is sorted.
        by = {DECIDED: ("place",), LOWEST: ("place", "record_id"), HIGHEST: ("place", "record_id")}.get(
            order, ("record_id",)
        )
        ordered = ", ".join(f"{column} {direction}" for column in by)
        rows = self.db.all(f"{sql} ORDER BY {ordered} LIMIT :size", params | {"size": size})
        return [Place(row["place"], row["record_id"]) for row in rows]

    def _walking(self, order: str, states: Sequence[str], sign: str, found: str | None, named: Term | None) -> str:
        if found is not None:
            return f"""SELECT s.rowid AS record_id, s.rowid AS place
                       FROM record_search s JOIN records r ON r.id = s.rowid
                       WHERE s.tokens MATCH :found AND r.project_id = :p AND s.rowid {sign} :id"""
        if named is not None:
            marks = ", ".join(f":n{n}" for n in range(len(named.values)))
            if named.name in _BY_NOTES:
                asked = f"n.to_id IN (SELECT id FROM reviewers WHERE name IN ({marks}))"
                return f"""SELECT DISTINCT n.record_id, n.record_id AS place FROM notes n
                           WHERE {"n.to_id IS NULL" if named.name == "flagged" else asked}
                           AND n.open = 1 AND n.project_id = :p AND n.task = :t AND n.record_id {sign} :id"""
            return f"""SELECT r.id AS record_id, r.id AS place FROM records r WHERE r.project_id = :p
                       AND {_COLUMNS[named.name]} IN ({marks}) AND r.id {sign} :id"""
        if self.task is None:
            return f"SELECT id AS record_id, id AS place FROM records WHERE +project_id = :p AND id {sign} :id"
        if order in (LOWEST, HIGHEST):
            return f"""SELECT record_id, score AS place FROM work WHERE project_id = :p AND task = :t
                       AND score IS NOT NULL AND (score, record_id) {sign} (:by, :id)"""
        if order == DECIDED:
            return f"""SELECT record_id, id AS place FROM annotations WHERE project_id = :p AND task = :t
                       AND id {sign} :by AND superseded_by IS NULL AND state <> 'withdrawn'"""
        # Each state has the records of its index in order, and SQLite merges them.
        return " UNION ALL ".join(
            f"""SELECT record_id, record_id AS place FROM work WHERE project_id = :p AND task = :t
                AND state = '{state}' AND record_id {sign} :id"""
            for state in states
        )

    def matching(self, ids: Sequence[int], terms: Sequence[Term], counting: bool = False) -> list[Row]:
        """Return those of the records that fit the terms, as far as the store can tell: in no order.

        They have ``id``, and where a term asks for words or labels ``text``, or ``value`` and ``suggested`` with the
        versions they were made under: whoever asks has to look at these. ``counting`` adds what is counted in a task.
        """
        columns, names = ["r.id"], {term.name for term in terms}
        counted = counting and self.task is not None
        if "word" in names:
            columns.append("r.text")
        if counted:
            columns += ["w.state", "a.how", "v.name AS by", _NOTED]
        if "label" in names or counted:
            columns += ["a.value", "a.task_version"]
        if "suggested" in names or counted:
            columns += ["s.value AS suggested", "s.task_version AS suggested_version"]
        params: dict[str, Any] = {"p": self.project_id, "t": self.task, "ids": strictjson.dumps(list(ids))}
        wheres = [where for n, term in enumerate(terms) if (where := _where(term, n, params)) is not None]
        conditions = "".join(f" AND {where}" for where in wheres)
        sql = f"""SELECT {", ".join(columns)} FROM {self._joined()}
                  WHERE r.id IN (SELECT value FROM json_each(:ids)) AND r.project_id = :p{conditions}"""
        return self.db.all(sql, params)

    def _joined(self) -> str:
        if self.task is None:
            return "records r"
        return """records r JOIN work w ON w.record_id = r.id AND w.task = :t
                  LEFT JOIN annotations a ON a.id = w.annotation_id LEFT JOIN suggestions s ON s.id = w.suggestion_id
                  LEFT JOIN reviewers v ON v.id = a.reviewer_id"""

    def rows(self, ids: Sequence[int]) -> list[Row]:
        """Return what a table shows of records, in the order of ``ids``; those that were removed are left out."""
        own = "r.id, r.key, r.text, r.grp, r.metadata, r.kind, r.duplicate_of, r.language, r.import_id, r.created_at"
        if self.task is not None:
            own += f""", {_NOTED},
                      w.state, w.score, w.disagreement, w.annotation_id, a.value, a.task_version, a.how, a.blind,
                      a.agreement, a.seconds, a.created_at AS decided_at, COALESCE(v.name, {NAMES}) AS reviewer,
                      s.value AS suggested,
                      s.task_version AS suggested_version, s.failure, s.backend, s.model_id, s.flags, s.id AS shown,
                      EXISTS (SELECT 1 FROM written x WHERE x.record_id = r.id) AS written"""
        sql = f"SELECT {own} FROM {self._joined()} WHERE r.id IN (SELECT value FROM json_each(:ids))"
        found = {row["id"]: row for row in self.db.all(sql, {"ids": strictjson.dumps(list(ids)), "t": self.task})}
        return [found[id_] for id_ in ids if id_ in found]

    def named(self, key: str) -> int | None:
        """Return the record that has a key."""
        sql = "SELECT id FROM records WHERE project_id = :p AND key = :key"
        found: int | None = self.db.value(sql, {"p": self.project_id, "key": key})
        return found


def _where(term: Term, n: int, params: dict[str, Any]) -> str | None:
    """Return a term as a condition, and put its values into ``params``; None where only its values can tell."""
    names = [f"v{n}_{m}" for m in range(len(term.values))]
    marks = [f":{name}" for name in names]
    if term.name == "word":
        return None
    if term.name == "is":
        return _negated(term, " OR ".join(IS[value] for value in term.values))
    if term.name in ("label", "suggested"):
        if term.negated or not term.hints:
            return None
        column = "a.value" if term.name == "label" else "s.value"
        params.update({f"h{n}_{m}": hint for m, hint in enumerate(term.hints)})
        return f"({' OR '.join(f'INSTR({column}, :h{n}_{m})' for m in range(len(term.hints)))})"
    params.update(zip(names, term.values, strict=True))
    column = _COLUMNS.get(term.name, "")
    if term.name == "meta":
        params[f"c{n}"] = f'$."{term.column}"'
        # A number that stands as a text in the file counts as a number where one is compared with.
        column = f"json_extract(r.metadata, :c{n})"
        column = f"CAST({column} AS TEXT)" if term.op == ":" else f"CAST({column} AS REAL)"
    if term.name == "flag":
        found = " OR ".join(f"INSTR(s.flags, {mark})" for mark in marks) or "COALESCE(s.flags, '[]') <> '[]'"
        return _negated(term, found)
    if term.name == "tag":
        tagged = "SELECT 1 FROM tags g WHERE g.record_id = r.id AND g.off_by IS NULL"
        return _negated(term, f"EXISTS ({tagged} AND g.name IN ({', '.join(marks)}))")
    if term.name == "by":
        # Who said what a record was settled by decided it, too.
        among = f"IN ({', '.join(marks)})" if marks else "IS NOT NULL"
        return _negated(term, f"v.name {among} OR {_VOTERS.format(said=SAID, among=among)}")
    if term.name == "asked":
        return _negated(term, f"EXISTS ({_ASKED} AND q.name IN ({', '.join(marks)}))")
    if term.op == "..":
        return _negated(term, f"{column} >= {marks[0]} AND {column} < {marks[1]}")
    if term.op == ":":
        return _negated(term, f"{column} IN ({', '.join(marks)})" if marks else f"{column} IS NOT NULL")
    return _negated(term, f"{column} IS NOT NULL AND {column} {_OPERATORS[term.op]} {marks[0]}")


def _negated(term: Term, where: str) -> str:
    """Return a condition, or that it does not hold: what a record has nothing for does not hold."""
    return f"NOT COALESCE(({where}), 0)" if term.negated else f"({where})"


def states_of(terms: Sequence[Term]) -> tuple[str, ...]:
    """Return the states that records can be in which fit the terms: the others need not be walked through."""
    states: tuple[str, ...] = STATES
    if any(term.name in OF_DECISIONS and not term.negated for term in terms):
        states = STATES[2:]
    for term in terms:
        if term.name == "state":
            states = tuple(state for state in states if (state in term.values) is not term.negated)
    return states


def columns_of(db: Database, project_id: int, among: int = 200) -> list[str]:
    """Return the metadata columns of the newest records of a project, commonest first."""
    sql = """SELECT j.key AS name, COUNT(*) AS n FROM (SELECT metadata FROM records WHERE +project_id = :p
             AND kind = 'review' ORDER BY id DESC LIMIT :n) AS newest, json_each(newest.metadata) AS j
             GROUP BY j.key ORDER BY n DESC, j.key"""
    return [row["name"] for row in db.all(sql, {"p": project_id, "n": among})]
