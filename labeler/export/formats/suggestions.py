"""The one format for what no person approved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labeler import strictjson
from labeler.export.formats.base import Format, json_line
from labeler.records import Suggestion, made_column
from labeler.sentence import N_
from labeler.store import Row
from labeler.store.annotations import APPROVED
from labeler.store.written import Origin


class Suggestions(Format):
    """What backends proposed and nobody approved: for analysis, in a file whose name says so."""

    name = "suggestions"
    suffix = ".jsonl"
    description = N_("Suggestions with their evidence, for analysis; never for training")

    def suggestion(
        self,
        suggestion: Suggestion,
        key: str,
        text: str,
        examples: Mapping[int, Row],
        reasoning: bool = False,
        origin: Origin | None = None,
    ) -> str:
        """Return one suggestion; ``examples`` are the annotations of its evidence as stored, by id.

        ``origin`` is where a text comes from that a model wrote.

        The value of an example is what was approved, in the labels of its version of the task: a later decision on its
        record is another annotation, and ``in_force`` says whether this one still counts. Nothing is known of a removed
        record. What the model thought on the way (its steps) goes out with ``reasoning`` alone.
        """
        s = suggestion
        failure, second = s.failure, s.second
        written = {} if origin is None else {"written": origin.to_json()}
        steps = {"steps": [{"name": step.name, "text": step.text} for step in s.steps]} if reasoning else {}
        return json_line(
            {
                "key": key,
                "text": text,
                **written,
                "value": s.value,
                "parse_failure": failure and {"kind": failure.kind, "message": failure.message, "raw": failure.raw},
                "score": s.score,
                "note": made_column(s.made),
                "backend": s.backend,
                "model_id": s.model_id,
                "task_version": s.task_version,
                "second_opinion": second and {"backend": second.backend, "value": second.value, "score": second.score},
                "flags": list(s.flags),
                "columns": list(s.columns),
                "evidence": [
                    {
                        "annotation_id": e.annotation_id,
                        "record_id": e.record_id,
                        "similarity": e.similarity,
                        **_example(examples.get(e.annotation_id)),
                    }
                    for e in s.evidence
                ],
            }
            | steps
        )


def _example(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {"key": None, "value": None, "task_version": None, "in_force": False}
    return {
        "key": row["key"],
        "value": None if row["value"] is None else strictjson.loads(row["value"]),
        "task_version": row["task_version"],
        "in_force": row["state"] == APPROVED and row["superseded_by"] is None,
    }
