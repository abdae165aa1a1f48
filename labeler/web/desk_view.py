"""What the desk shows of a record: plain values and the HTML that the page puts in place without looking at it."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask import render_template

from labeler import strictjson
from labeler.annotation.ballots import Shown as Ballot
from labeler.annotation.queue import Opened
from labeler.backends.base import LEARNING
from labeler.backends.ensemble.extracting import BLANK, PREPARING
from labeler.backends.ensemble.learn import SEEDS
from labeler.errors import InputError, LabelerError, LabelError, NotFound
from labeler.instance import Instance
from labeler.prelabel import calibration
from labeler.prelabel.current import CURRENT, OTHER
from labeler.prelabel.current import OLDER as OLDER_EXAMPLES
from labeler.prelabel.meant import FREE, clearly_meant
from labeler.prelabel.refresh import AtOpening, at_opening
from labeler.prelabel.suggest import CALIBRATED, Suggester
from labeler.prompts import suspicious
from labeler.records import BackendFailure, Evidence, Record, SecondOpinion, Step, Suggestion, Value
from labeler.store import Row
from labeler.store.annotations import APPROVED
from labeler.task import GROUP, Task
from labeler.text import split_sentences, visible
from labeler.web.notes import Thread, threads_of
from labeler.web.words import _, word

log = logging.getLogger("labeler.web.desk")
NO_EXAMPLES, NO_ANSWER, UNCLEAR, OLDER, FAILED = "no_examples", "no_answer", "unclear", "older", "failed"
RAW = "raw"
_EVEN = 0.5
_CLIP = 160
_STRIP_CLIP = 60
_WORD_CLIP = 30
_TOLD_CLIP = 60
_SAME_SCORE = 1e-4
# So many words are named for and against a label, and of a set so many labels; in nats, what is worth a word: a tenth
# more or less likely.
_FOR, _AGAINST, _LABELS = 3, 2, 4
_WORTH = 0.1
# What of the way to a suggestion travels with every record: a reader needs no more, and the next key must not wait.
_STEP_CLIP, _STEPS_CLIP = 4000, 20_000
_JOINER = "\u200d"

Block = tuple[str, list[str]]
"""A piece of the guidelines: "heading", "list" or "text", with its lines."""
Piece = tuple[str, str | None]
"""A piece of a text, and the name of what it is where nobody sees it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Words of a text, in pieces, that speak for one label of its suggestion and against it, the strongest first."""

    label: str
    speak_for: Sequence[Sequence[Piece]] = ()
    against: Sequence[Sequence[Piece]] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """A suggestion as the page may show it. ``value`` is None if it cannot be used; ``hint`` says why.

    ``standing`` and ``since`` say of a paid one that it is not current: see :class:`AtOpening`.
    ``scores`` stand beside the choices of the form; ``scale`` says whether they are calibrated or the backend's own.
    ``moved`` has the labels that words can be asked for; finding them takes longer than a suggestion.
    """

    suggestion: Suggestion | None = None
    value: Value | None = None
    hint: str | None = None
    second: SecondOpinion | None = None
    second_agrees: bool = False
    evidence: Sequence[Mapping[str, Any]] = ()
    steps: Sequence[Step] = ()
    scores: Mapping[str, float] | None = None
    scale: str = RAW
    standing: str = CURRENT
    since: int = 0
    moved: Sequence[Moved] = ()

    @property
    def doubtful(self) -> bool:
        """Whether a suggestion is more likely wrong than right by its own score, or goes by descriptions alone."""
        made = self.suggestion
        return made is not None and (SEEDS in made.made or (made.score is not None and made.score < _EVEN))


@dataclass(frozen=True, slots=True)
class _OfPeople:
    """What people left on records, by record: open threads of notes, and the drafts of whoever opens them."""

    threads: Mapping[int, Sequence[Thread]]
    drafts: Mapping[int, Row]


class DeskView:
    """Builds what the page gets, in one language, for one task of a project and one person."""

    def __init__(
        self, instance: Instance, project: Mapping[str, Any], task: Task, language: str, adjudicates: bool = False,
        reviewer_id: int = 0,
    ) -> None:  # fmt: skip
        self.instance, self.project, self.task, self.language = instance, project, task, language
        self.adjudicates, self.reviewer_id = adjudicates, reviewer_id
        self.store = instance.store

    @property
    def lease(self) -> float:
        return float(self.instance.project_settings(self.project)["claim_minutes"]) * 60

    def used(self) -> Mapping[str, int]:
        """Return how often each label was approved; nothing while what was decided is still being read."""
        index = self.instance.index(self.project, self.task)
        return index.counts() if index.ready() else {}

    def guide(self) -> list[Block]:
        return guide_blocks(self.task.guided(self.language))

    def payload(self, opened: Opened) -> dict[str, Any]:
        return self.payloads([opened])[0]

    def payloads(self, opened: Sequence[Opened]) -> list[dict[str, Any]]:
        """Return opened records for the page. A blind one carries no suggestion, evidence or second opinion."""
        found = self._found(opened)
        examples, people = self._examples(found), self._of_people([one.record.id for one in opened])
        return [self._payload(one, its, examples, people) for one, its in zip(opened, found, strict=True)]

    def renewed(self, opened: Opened, shown_id: int | None) -> dict[str, Any]:
        """Return a pending record that lies ready on the page with the suggestion ``shown_id``.

        If that is still the one, the page has all there is to show: the answer says so in its place.
        """
        (found,) = self._found([opened])
        made = found.suggestion
        if made is not None and made.id == shown_id and found.standing == CURRENT:
            return {"record_id": opened.record.id, "same": True, "lease": opened.lease}
        return self._payload(opened, found, self._examples([found]), self._of_people([opened.record.id]))

    def _of_people(self, record_ids: Sequence[int]) -> _OfPeople:
        """Return the open notes on records and the person's drafts, read at once."""
        threads = threads_of(self.store, self.task.name, record_ids, self.reviewer_id, self.adjudicates)
        return _OfPeople(threads, self.store.drafts.of(self.reviewer_id, self.task.name, record_ids))

    def _examples(self, found: Sequence[AtOpening]) -> Mapping[int, Row]:
        """Return the examples that suggestions have as evidence, by annotation: those of several are read at once."""
        ids = {item.annotation_id: None for one in found if one.suggestion for item in one.suggestion.evidence}
        return self.store.annotations.examples(list(ids))

    def _payload(
        self, opened: Opened, found: AtOpening, examples: Mapping[int, Row], people: _OfPeople
    ) -> dict[str, Any]:
        record, annotation, blind = opened.record, opened.annotation, _is_blind(opened)
        suggestion_id, shown = self._suggestion(opened, found, blind, examples)
        decided = self._usable(annotation, record) if annotation is not None else None
        standing = annotation is not None and opened.state != "pending"
        origin = self.store.written.origins([record.id]).get(record.id)
        ballots = self._ballots(opened, annotation if standing else None)
        html = render_template(
            "desk_record.html",
            record=record,
            pieces=text_pieces(record.text),
            sentences=split_sentences(record.text),
            metadata=self._metadata(record, blind),
            suspicious=suspicious(record.text),
            opened=opened,
            origin=origin,
            asked_for=None if origin is None else self._titled(origin.label),
            annotation=annotation if standing else None,
            ballots=ballots,
            adjudicates=self.adjudicates,
            decided=decided,
            retired=decided is not None and self._fitting(decided, record) is None,
            threads=people.threads.get(record.id, []),
            blind=blind,
            shown=shown,
            task=self.task,
            schema=self.task.schema,
        )
        return {
            "record_id": record.id,
            "token": opened.token,
            "version": opened.version,
            "lease": opened.lease,
            "blind": blind,
            "state": opened.state,
            "held_by": opened.held_by,
            "task_version": self.task.version,
            "suggestion_id": suggestion_id,
            "suggested": shown.value,
            # A retired label is shown as it stands, and cannot be chosen again.
            "decided": self._fitting(decided, record) if standing else None,
            "second": None if shown.second is None else shown.second.value,
            "scores": shown.scores,
            "scale": shown.scale,
            "preparing": shown.hint == PREPARING,
            "ballots": [self._fitting(ballot.value, record) for ballot in ballots] if opened.disputed else [],
            "kept": self._draft(people.drafts.get(record.id), opened.version),
            "html": html,
        }

    def _ballots(self, opened: Opened, annotation: Row | None) -> list[Ballot]:
        """Return what several people said of a record, for whoever may see it: once it is settled, or to settle it."""
        if opened.disputed:
            return self.instance.ballots(self.project, self.task).on(opened.record.id) if self.adjudicates else []
        if annotation is None or "settled_id" in set(annotation.keys()):
            return []
        return self.instance.ballots(self.project, self.task).of(annotation)

    def _draft(self, row: Row | None, version: int) -> dict[str, Any] | None:
        """Return the ``value`` of a person's draft in the labels of today; None where it cannot be gone on with."""
        if row is None or row["version"] != version:
            return None
        value = strictjson.loads(row["value"])
        carried = self.task.carried(value, row["task_version"])
        return None if carried is None and value is not None else {"value": carried}

    def _titled(self, label: str) -> str:
        """Return the title of a label; the name of one that is gone."""
        known = label in self.task.schema.names
        return self.task.schema.label(label).titled(self.language) if known else label

    def undone(self, taken: Row) -> dict[str, Any]:
        """Return value and state of a decision that was taken back."""
        return {"value": self._fitting(self._usable(taken)), "state": taken["state"]}

    def strip(self, decisions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the last decisions for the strip: clipped text, the value in words, the colour of its label.

        Of a decision that was made blind, ``told`` is what was suggested meanwhile, in words.
        """
        blind = [row["suggestion_id"] for row in decisions if row["blind"] and row["suggestion_id"]]
        unseen = self.store.suggestions.many(blind) if blind else {}
        return [
            {
                "record_id": row["record_id"],
                "text": clip(row["text"], _STRIP_CLIP),
                "state": row["state"],
                "how": row["how"],
                "label": "" if row["value"] is None else clip(self._rendered(row["value"]), _STRIP_CLIP),
                "color": self._color(row["value"]),
                "told": self._told(unseen.get(row["suggestion_id"])),
            }
            for row in decisions
        ]

    def _told(self, made: Suggestion | None) -> str:
        """Return in words what would have been suggested; empty where that says nothing today."""
        value = None if made is None else self.task.carried(made.value, made.task_version)
        if made is None or value is None:
            return ""
        score = "" if made.score is None else f" {made.score:.2f}"
        return str(_("Suggestion: %(label)s", label=clip(self._rendered(value), _TOLD_CLIP) + score))

    def example(self, annotation_id: int) -> str:
        """Return the HTML of one example. Raises :class:`NotFound` for one of another project or task."""
        row = self.store.annotations.get(annotation_id) if annotation_id < 2**63 else None
        if row is None or row["project_id"] != self.project["id"] or row["task"] != self.task.name:
            raise NotFound("There is no example number %(number)s in this task", number=annotation_id)
        record = self.store.records.get(row["record_id"])
        history = [
            {"row": past, "value": self._usable(past, record)}
            for past in self.store.annotations.history(record.id, self.task.name)
        ]
        return render_template(
            "desk_example.html",
            record=record,
            parts=text_parts(record),
            metadata=self._metadata(record),
            value=self._usable(row, record),
            history=history,
            exports=self.store.exports.of_record(record.id, self.task.name),
            ballots=self.instance.ballots(self.project, self.task).of(row),
            schema=self.task.schema,
        )

    def moved(self, opened: Opened, suggestion_id: int) -> str:
        """Return the HTML of the words that moved a suggestion, by what is known now; empty for one that is not shown.

        A blind record has none, as little as the suggestion itself.
        """
        made, record = self.store.suggestions.get(suggestion_id), opened.record
        if made is None or (made.record_id, made.task) != (record.id, self.task.name):
            return ""
        value = self._offered(made.value, made, record)
        if _is_blind(opened) or opened.state != "pending" or value is None:
            return ""
        free = self.instance.free_suggester(self.project, self.task, self._own_suggester())
        found = free.moved_by(record, value) if free.backend.name == made.backend else {}
        rows = [_moved(label, found.get(label, ())) for label in self._labels(made, value)]
        return render_template("desk_moved.html", moved=rows, asked=True, schema=self.task.schema)

    def _labels(self, made: Suggestion, value: Value | None) -> list[str]:
        """Return the labels of a suggestion that words are named for."""
        if made.backend not in LEARNING or value is None:
            return []
        return list(self.task.schema.chosen(value)[:_LABELS])

    def _metadata(self, record: Record, blind: bool = False) -> list[tuple[str, str]]:
        """Return the columns that people may see: a blind record shows those alone that the project chose for it.

        What is known of a product is ours to say, and no hint at a label.
        """
        if self.task.unit == GROUP:
            return metadata_pairs(record.metadata)
        settings = self.instance.project_settings(self.project)
        return metadata_pairs(
            {
                name: value
                for name, value in record.metadata.items()
                if (name in settings["blind_columns"] if blind else name not in settings["hidden_columns"])
            }
        )

    def _found(self, opened: Sequence[Opened]) -> list[AtOpening]:
        """Return the suggestions of opened records: of pending ones as they are after the newest approvals."""
        stored = [self.store.suggestions.get(one.suggestion_id) if one.suggestion_id else None for one in opened]
        pending = [(one.record, kept) for one, kept in zip(opened, stored, strict=True) if one.state == "pending"]
        current = iter(self._at_opening(pending))
        return [
            next(current) if one.state == "pending" else AtOpening(kept)
            for one, kept in zip(opened, stored, strict=True)
        ]

    def _suggestion(
        self, opened: Opened, found: AtOpening, blind: bool, examples: Mapping[int, Row]
    ) -> tuple[int | None, Shown]:
        suggestion, hint = found.suggestion, None
        # What was not clearly meant is no suggestion: nothing is compared with it later.
        meant = suggestion is not None and clearly_meant(self.store, self.task.schema, suggestion)
        number = suggestion.id if suggestion is not None and meant else None
        if blind:
            # Made and renewed as any other, so that both shares are compared with suggestions of one age.
            return number, Shown()
        if suggestion is None:
            return None, Shown(hint=_why(found.failure))
        value = self._offered(suggestion.value, suggestion, opened.record) if meant else None
        if not meant:
            hint = NO_ANSWER if suggestion.backend in FREE else UNCLEAR
        elif value is None and suggestion.failure is None:
            hint = OLDER
        second = suggestion.second
        if second is not None:
            offered = self._offered(second.value, suggestion, opened.record)
            second = None if offered is None else replace(second, value=offered)
        agrees = second is not None and second.value == value
        scores, scale = (None, RAW) if value is None else self._scores(suggestion)
        evidence, steps = self._evidence(suggestion.evidence, value, examples), clipped_steps(suggestion.steps)
        moved = [Moved(label) for label in self._labels(suggestion, value)] if opened.state == "pending" else []
        return number, Shown(
            suggestion, value, hint, second, agrees, evidence, steps, scores, scale, found.standing, found.since, moved
        )

    def _scores(self, suggestion: Suggestion) -> tuple[dict[str, float] | None, str]:
        """Return the scores for the choices of the form, and whether they are calibrated.

        Stored are the backend's own. The calibration that decided may have been fitted anew since: its scores are
        shown only where today's still gives the score that was stored.
        """
        own = self.task.schema.beside(suggestion.scores or {})
        if not suggestion.scores or not own:
            return None, RAW
        if suggestion.backend in LEARNING:
            return own, RAW if SEEDS in suggestion.made else CALIBRATED
        if suggestion.score is None or CALIBRATED not in suggestion.made:
            return own, RAW
        place = (
            int(self.project["id"]),
            self.task.name,
            suggestion.backend,
            suggestion.model_id,
            suggestion.prompt_digest,
        )
        try:
            found = calibration.load(self.store, *place)
        except InputError:
            # One that cannot be read corrects nothing, and must not keep anybody from labelling.
            found = None
        adjusted = found.apply(suggestion.scores) if found is not None and found.used else {}
        if abs(adjusted.get(str(suggestion.value), 2.0) - suggestion.score) > _SAME_SCORE:
            return own, RAW
        return {name: adjusted[name] for name in own}, CALIBRATED

    def _at_opening(self, pending: Sequence[tuple[Record, Suggestion | None]]) -> list[AtOpening]:
        """Return the suggestions as they are after the newest approvals, or why there are none."""
        if not pending:
            return []
        try:
            if not self.instance.index(self.project, self.task).ready():
                failure = BackendFailure(PREPARING, "")
                return [AtOpening(_paid(stored), failure, standing=OLDER_EXAMPLES) for _, stored in pending]
            own = self._own_suggester()
            free = self.instance.free_suggester(self.project, self.task, own)
            return at_opening(own, free, pending)
        except Exception:
            # A suggestion is a convenience, and backends come from plugins: whatever fails, the record can be labelled,
            # and what fails for one record spoils none beside it.
            if len(pending) > 1:
                return [found for one in pending for found in self._at_opening([one])]
            ((record, stored),) = pending
            log.exception("No suggestion for record %d of task %s", record.id, self.task.name)
            return [AtOpening(_paid(stored), BackendFailure(FAILED, ""), standing=OTHER)]

    def _own_suggester(self) -> Suggester | None:
        """Return what the suggestions of the task are made with; None where it cannot be set up as it is."""
        try:
            return self.instance.suggester(self.project, self.task)
        except LabelerError as error:
            log.info("Task %s of project %d: %s", self.task.name, self.project["id"], error)
            return None

    def _evidence(
        self, evidence: Sequence[Evidence], value: Value | None, rows: Mapping[int, Row]
    ) -> list[dict[str, Any]]:
        return [
            {
                "id": row["id"],
                "against": self._is_against(value, self._usable(row)),
                "text": clip(row["text"], _CLIP),
                "similarity": item.similarity,
                "share": round(min(max(item.similarity, 0.0), 1.0), 3),
                "value": self._usable(row),
                "reviewer": row["reviewer"],
                "at": row["created_at"],
                "standing": row["state"] == APPROVED and row["superseded_by"] is None,
                "task_version": row["task_version"],
            }
            for item in evidence
            if (row := rows.get(item.annotation_id)) is not None
        ]

    def _is_against(self, value: Value | None, other: Value | None) -> bool:
        """Whether an example shares no label with a suggestion."""
        schema = self.task.schema
        if value is None or other is None or not schema.candidates():
            return False
        return set(schema.strata(value)).isdisjoint(schema.strata(other))

    def _usable(self, row: Row, record: Record | None = None) -> Value | None:
        """Return the value of an annotation in the labels of today, retired ones too; None if they cannot hold it."""
        if row["value"] is None:
            return None
        try:
            return self.task.read(strictjson.loads(row["value"]), row["task_version"], record.text if record else None)
        except LabelError:
            return None

    def _offered(self, value: Value | None, made: Suggestion, record: Record) -> Value | None:
        return self._fitting(self.task.carried(value, made.task_version), record)

    def _fitting(self, value: Value | None, record: Record | None = None) -> Value | None:
        """Return the value if the label schema of today offers it, else None: labels may have been changed since."""
        if value is None:
            return None
        try:
            return self.task.schema.parse(value, record.text if record else None)
        except LabelError:
            return None

    def _rendered(self, value: Value) -> str:
        try:
            return self.task.schema.render(value, self.language)
        except (LabelError, KeyError, TypeError, AttributeError):
            return strictjson.dumps(value)

    def _color(self, value: Value | None) -> str:
        return "" if value is None else self.task.schema.color(value)


def text_parts(record: Record) -> list[tuple[str, list[Piece]]]:
    """Return the pieces of a record's text by the titles of its parts; of one without parts, under no title."""
    parts = record.parts or [("", 0, len(record.text))]
    return [(title, text_pieces(record.text[start:end])) for title, start, end in parts]


def _is_blind(opened: Opened) -> bool:
    # A decision that was made blind is corrected blind, or it would drop out of the blind share.
    return opened.blind or (opened.annotation is not None and bool(opened.annotation["blind"]))


def _moved(label: str, words: Sequence[tuple[str, float]]) -> Moved:
    speak_for = [word for word, effect in words if effect >= _WORTH][:_FOR]
    against = [word for word, effect in reversed(words) if effect <= -_WORTH][:_AGAINST]
    return Moved(label, *([text_pieces(clip(word, _WORD_CLIP)) for word in part] for part in (speak_for, against)))


def _paid(stored: Suggestion | None) -> Suggestion | None:
    return stored if stored is not None and stored.billed else None


def _why(failure: BackendFailure | None) -> str | None:
    """Return the hint for a record without a suggestion."""
    if failure is None:
        return None
    return failure.kind if failure.kind in (NO_EXAMPLES, NO_ANSWER, PREPARING, BLANK) else FAILED


def clipped_steps(steps: Sequence[Step]) -> list[Step]:
    """Return the steps with their texts clipped, as many as a person would read."""
    found: list[Step] = []
    left = _STEPS_CLIP
    for step in steps:
        if left <= 0:
            break
        text = step.text[: min(_STEP_CLIP, left)]
        left -= len(text)
        found.append(Step(step.name, text if len(text) == len(step.text) else text.rstrip() + "…"))
    return found


def text_pieces(text: str) -> list[Piece]:
    """Return the pieces of a text with marks at its invisible characters, but not inside an emoji.

    A joiner between two pictures makes one picture of them: marking it would show a family as strangers.
    """
    pieces: list[Piece] = []
    split = visible(text)
    for n, (piece, mark) in enumerate(split):
        before, after = split[n - 1][0][-1:] if n else "", split[n + 1][0][:1] if n + 1 < len(split) else ""
        joined = piece == _JOINER and _pictures(before) and _pictures(after)
        if pieces and pieces[-1][1] is None and (joined or mark is None):
            pieces[-1] = (pieces[-1][0] + piece, None)
        else:
            pieces.append((piece, None if joined else mark))
    return pieces


def _pictures(character: str) -> bool:
    return bool(character) and (character == "\ufe0f" or unicodedata.category(character) in ("So", "Sk"))


def clip(text: str, limit: int) -> str:
    """Return the text as one line of at most ``limit`` characters and an ellipsis."""
    line = " ".join(text[: limit * 2].split())
    return line if len(line) <= limit else line[:limit].rstrip() + "…"


def metadata_pairs(metadata: Mapping[str, Any], limit: int = 12) -> list[tuple[str, str]]:
    """Return the metadata as short texts, in order; what is empty or long has no place on the desk."""
    # Those of a product are our own words; the others are the file's.
    ours = metadata.keys() == {"reviews", "shown"}
    pairs = [
        (word(f"product.{name}") if ours else str(name), value if isinstance(value, str) else strictjson.dumps(value))
        for name, value in metadata.items()
        if value not in (None, "", [], {})
    ]
    return [(clip(name, 40), clip(value, 80)) for name, value in pairs[:limit]]


def guide_blocks(text: str) -> list[Block]:
    """Split guidelines into headings ("# "), lists ("- ", "* ") and paragraphs; all other marks are text."""
    blocks: list[Block] = []
    fresh = True
    for line in (raw.strip() for raw in text.splitlines()):
        if not line:
            fresh = True
            continue
        kind, words = "text", line
        if line.startswith("#") and line.lstrip("#").startswith(" "):
            kind, words = "heading", line.lstrip("#").strip()
        elif line[:2] in ("- ", "* "):
            kind, words = "list", line[2:].strip()
        if blocks and blocks[-1][0] == kind and kind != "heading" and (kind == "list" or not fresh):
            blocks[-1][1].append(words)
        else:
            blocks.append((kind, [words]))
        fresh = False
    return blocks
