"""The label table of a task's settings as rows of a form, and what a person says of labels that go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from labeler.annotation.relabel import KEPT, NEW, Preview
from labeler.errors import SettingError
from labeler.labels import Answers, Label, LabelSchema
from labeler.prompts import LANGUAGES
from labeler.web.forms import texts

_COLUMNS = ("name", "title_ko", "title_en", "definition_ko", "definition_en", "color", "parent", "was", "state")
# What a row has without anybody typing it.
_FILLED = ("color", "was", "state")
RETIRE, REOPEN, MERGE = "retire", "reopen", "merge:"


def rows_of(schema: LabelSchema, renamed: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Return the rows of a schema. ``was`` is what tells a new name from a new label: what it is called now.

    ``renamed`` are labels of now that have another name in ``schema``.
    """
    were = {new: old for old, new in (renamed or {}).items()}
    return [
        {
            "name": label.name,
            "title_ko": label.title.get("ko", ""),
            "title_en": label.title.get("en", ""),
            "definition_ko": label.definition.get("ko", ""),
            "definition_en": label.definition.get("en", ""),
            "color": label.color,
            "parent": label.parent or "",
            "was": were.get(label.name, label.name),
            "state": "retired" if label.retired else "",
        }
        for label in (*schema.labels, *schema.retired)
    ]


def typed_rows() -> list[dict[str, str]]:
    """Return the rows of the label table that have anything in them; a heading's new name goes to what is below it."""
    columns = [texts(f"label.{column}") for column in _COLUMNS]
    rows = [dict(zip(_COLUMNS, row, strict=True)) for row in zip_longest(*columns, fillvalue="")]
    rows = [row for row in rows if any(row[column] for column in _COLUMNS if column not in _FILLED)]
    renamed = _renamed(rows)
    names = {row["name"] for row in rows}
    return [
        row | {"parent": renamed.get(row["parent"], row["parent"]) if row["parent"] not in names else row["parent"]}
        for row in rows
    ]


def _renamed(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {row["was"]: row["name"] for row in rows if row["was"] and row["name"] and row["was"] != row["name"]}


def typed_answers(rows: Sequence[Mapping[str, str]]) -> Answers:
    """Return what the form says of labels: names that were changed in their row, and what becomes of those that go."""
    said = dict(zip(texts("gone.name"), texts("gone.answer"), strict=False))
    return Answers(
        renamed=_renamed(rows),
        merged={name: answer.removeprefix(MERGE) for name, answer in said.items() if answer.startswith(MERGE)},
        retired=tuple(name for name, answer in said.items() if answer == RETIRE),
        reopened=tuple(name for name, answer in said.items() if answer == REOPEN),
    )


def was_looked_at(preview: Preview) -> bool:
    """Whether the form was sent from a page that showed what becomes of each label that does not just stay."""
    looked = set(texts("looked"))
    return not preview.matters or (
        bool(looked) and {f.name for f in preview.fates if f.what not in (KEPT, NEW)} <= looked
    )


def labels_of(rows: Sequence[Mapping[str, str]]) -> list[Label]:
    return [_label(row) for row in rows]


def _label(row: Mapping[str, str]) -> Label:
    raw: dict[str, Any] = {
        name: {language: row[f"{name}_{language}"] for language in LANGUAGES if row[f"{name}_{language}"]}
        for name in ("title", "definition")
    }
    retired = row["state"] == "retired"
    return Label.from_json(
        raw | {"name": row["name"], "color": _color(row["color"]), "parent": row["parent"], "retired": retired}
    )


def _color(raw: str) -> str:
    if raw and not (len(raw) == 7 and raw[0] == "#" and all(c in "0123456789abcdefABCDEF" for c in raw[1:])):
        raise SettingError("%(color)r is not a color; write it like #2e7d32", color=raw[:20])
    return raw.lower()
