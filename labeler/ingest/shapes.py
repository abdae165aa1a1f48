"""Files that other labeling tools write, and our own tables: known by their shape, and read as plain rows.

What a person decided there becomes a column for each question, to be taken in as labels like any other. What a model
proposed there is left out: it is no truth here, and would stand before the eyes of the next person.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from labeler.ingest.rows import Row, RowError, RowSource
from labeler.sentence import Sentence
from labeler.text import raw_cell

Values = dict[str, Any]
_PEEK = 100
_OWN_TABLE = ("key", "text", "value", "rendered")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Several(list[Any]):
    """What people answered to one question, where they did not agree."""


def recognise(source: RowSource) -> RowSource:
    """Return ``source`` with plain rows if it has the shape of a known export, and a note that says so."""
    source.columns = [unicodedata.normalize("NFC", name) for name in source.columns]
    begun = list(islice(source.rows, _PEEK))
    source.rows = chain(begun, source.rows)
    rows = [row.values for row in begun if isinstance(row, Row)]
    found = next((shape for shape in _SHAPES if rows and all(shape[1](row) for row in rows)), None)
    if found is None:
        return source
    name, _, plain = found
    if plain is _own_row and any(str(cell).startswith(_FORMULA) for row in rows for cell in row.values()):
        # Exported with --raw: an apostrophe is part of the text.
        plain = _own_raw_row
    source.shape = name
    source.rows = _plain_rows(source.rows, plain)
    source.columns = list(dict.fromkeys(column for row in rows for column in plain(row)))
    source.notes.append(Sentence("The file was read as an export of %(name)s", name=name))
    return source


def _plain_rows(rows: Iterable[Row | RowError], plain: Callable[[Values], Values]) -> Iterator[Row | RowError]:
    for row in rows:
        yield Row(row.number, plain(row.values)) if isinstance(row, Row) else row


# Labeler's own


def _is_own_table(row: Values) -> bool:
    return tuple(row)[:4] == _OWN_TABLE and "split" in row


def _own_row(row: Values) -> Values:
    return _own_raw_row({name: raw_cell(cell) if isinstance(cell, str) else cell for name, cell in row.items()})


def _own_raw_row(row: Values) -> Values:
    plain = {name: cell for name, cell in row.items() if name not in ("rendered", "split")}
    inner = {name: plain.pop(name) for name in list(plain) if name.startswith("metadata.")}
    return plain | ({"metadata": {name[9:]: cell for name, cell in inner.items() if cell}} if inner else {})


def _is_own_record(row: Values) -> bool:
    return {"id", "text", "label", "metadata", "split"} <= set(row) and isinstance(row["metadata"], dict | None)


def _own_record(row: Values) -> Values:
    parts = {"parts": row["parts"]} if isinstance(row.get("parts"), dict) else {}
    return {name: row.get(name) for name in ("id", "text", "label", "group", "metadata")} | parts


# Label Studio


def _is_label_studio(row: Values) -> bool:
    return isinstance(row.get("data"), dict) and isinstance(row.get("annotations", row.get("completions")), list)


def _label_studio(row: Values) -> Values:
    annotations = row.get("annotations", row.get("completions"))
    answers: dict[str, list[Any]] = {}
    for annotation in annotations or ():
        if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
            for name, value in _results(annotation.get("result") or ()).items():
                answers.setdefault(name, []).append(value)
    rest = {
        name: row[name] for name in row if name not in ("data", "annotations", "completions", "predictions", "drafts")
    }
    return _with_answers(rest | row["data"], answers)


def _results(results: Iterable[Any]) -> Values:
    """Return what one person answered, by the name of the question."""
    found: Values = {}
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict) or "from_name" not in result:
            continue
        name, answer = result["from_name"], plain_answer(value)
        if isinstance(answer, list):
            answer = [*found.get(name, ()), *answer]
        found[name] = answer
    return found


def plain_answer(value: Any) -> Any:
    """Return an answer as Label Studio writes it as the plain value of a label; another value as it is."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "labels" in item for item in value):
        return [span for item in value for span in plain_answer(item)]
    if not isinstance(value, dict):
        return value
    for name in ("labels", "hypertextlabels"):
        if isinstance(value.get(name), list) and "start" in value:
            span = {key: value.get(key) for key in ("text", "start", "end")}
            return [{"label": label, **span} for label in value[name]]
    if isinstance(value.get("taxonomy"), list):
        return [path[-1] for path in value["taxonomy"] if path]
    for name in ("choices", "rating", "number", "text"):
        if set(value) == {name}:
            answer = value[name]
            return answer[0] if name == "text" and isinstance(answer, list) and len(answer) == 1 else answer
    return value


def _is_label_studio_short(row: Values) -> bool:
    return {"annotation_id", "annotator", "lead_time"} <= set(row)


def _label_studio_short(row: Values) -> Values:
    return {name: plain_answer(value) for name, value in row.items()}


# doccano


_DOCCANO = ("label", "labels", "entities")


def _is_doccano(row: Values) -> bool:
    return isinstance(row.get("text"), str) and any(
        _is_spans(row.get(name)) for name in ("label", "labels", "entities")
    )


def _is_spans(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return value == []
    return all(
        (isinstance(item, list) and list(map(type, item)) == [int, int, str])
        or (isinstance(item, dict) and {"label", "start_offset", "end_offset"} <= set(item))
        for item in value
    )


def _doccano(row: Values) -> Values:
    return row | {
        name: [_span(row["text"], item) for item in row[name]] for name in _DOCCANO if _is_spans(row.get(name))
    }


def _span(text: str, item: Any) -> Values:
    start, end, label = (item["start_offset"], item["end_offset"], item["label"]) if isinstance(item, dict) else item
    return {"label": label, "text": text[start:end], "start": _clean_place(text, start), "end": _clean_place(text, end)}


def _clean_place(text: str, place: int) -> int:
    """Return where a place of ``text`` lies once the text is clean (see :func:`labeler.text.clean_text`)."""
    before = text[:place].lstrip().replace("\r\n", "\n")
    return len(unicodedata.normalize("NFC", before))


# Argilla


def _is_argilla(row: Values) -> bool:
    return isinstance(row.get("fields"), dict) and isinstance(row.get("responses", {}), dict | list | None)


def _argilla(row: Values) -> Values:
    answers: dict[str, list[Any]] = {}
    for name, value in _argilla_answers(row.get("responses") or {}):
        answers.setdefault(name, []).append(value)
    left_out = ("fields", "responses", "suggestions", "vectors")
    return _with_answers({name: row[name] for name in row if name not in left_out} | row["fields"], answers)


def _argilla_answers(responses: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(responses, dict):
        for name, given in responses.items():
            for answer in given if isinstance(given, list) else ():
                if isinstance(answer, dict) and answer.get("status", "submitted") == "submitted":
                    yield name, answer.get("value")
        return
    for response in responses:
        if isinstance(response, dict) and response.get("status", "submitted") == "submitted":
            for name, answer in (response.get("values") or {}).items():
                yield name, answer.get("value") if isinstance(answer, dict) else answer


def _is_argilla_table(row: Values) -> bool:
    return any(name.endswith(".responses") and f"{name}.status" in row for name in row)


def _argilla_table(row: Values) -> Values:
    answers: dict[str, list[Any]] = {}
    for name in row:
        if name.endswith(".responses"):
            states = row.get(f"{name}.status") or ()
            given = zip(row[name] or (), states, strict=False)
            answers[name.removesuffix(".responses")] = [value for value, state in given if state == "submitted"]
    rest = {name: row[name] for name in row if not any(part in f"{name}." for part in (".responses.", ".suggestion."))}
    return _with_answers(rest, answers)


def _is_argilla_old(row: Values) -> bool:
    return {"annotation", "annotation_agent", "prediction", "status"} <= set(row)


def _argilla_old(row: Values) -> Values:
    inputs = row["inputs"] if isinstance(row.get("inputs"), dict) else {}
    left_out = ("prediction", "prediction_agent", "vectors", "explanation", "inputs")
    plain = {name: row[name] for name in row if name not in left_out and row[name] is not None}
    if row["status"] != "Validated":
        plain.pop("annotation", None)
    return inputs | plain


def _with_answers(values: Mapping[str, Any], answers: Mapping[str, list[Any]]) -> Values:
    found = dict(values)
    for name, given in answers.items():
        if given:
            agreed = all(each == given[0] for each in given)
            found[f"{name} (answer)" if name in found else name] = given[0] if agreed else Several(given)
    return found


_SHAPES: tuple[tuple[str, Callable[[Values], bool], Callable[[Values], Values]], ...] = (
    ("Labeler", _is_own_table, _own_row),
    ("Labeler", _is_own_record, _own_record),
    ("Label Studio", _is_label_studio, _label_studio),
    ("Label Studio", _is_label_studio_short, _label_studio_short),
    ("doccano", _is_doccano, _doccano),
    ("Argilla", _is_argilla, _argilla),
    ("Argilla", _is_argilla_table, _argilla_table),
    ("Argilla", _is_argilla_old, _argilla_old),
)
