"""Drafts of guidelines: a model is shown corrections, and asked for the guidelines by which they were not needed.

After the idea of Promptbreeder (Fernando et al. 2023, arXiv:2309.16797) and OPRO (Yang et al. 2023, arXiv:2309.03409)
that a model words instructions better where it sees what came of the last ones. Here it sees where suggestions were
corrected, in groups of one confusion and of texts near each other. A draft is asked for as any answer is: as a text on
one record, in a run of the ledger, so that budgets hold and nothing is paid twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from typing import Any

import numpy as np

from labeler import prompts, strictjson
from labeler.backends.base import GENERATED
from labeler.evaluation.replay import check_version, place_of, truth
from labeler.labels import LabelSchema, Text
from labeler.prelabel.flows import SAMPLING_TEMPERATURE
from labeler.prelabel.suggest import Prepared, Suggester
from labeler.prompts import PromptStyle
from labeler.prompts.styles import FEW_SHOT
from labeler.records import Example, Generation, Message, ParseFailure, Record, Suggestion, Value
from labeler.sentence import Sentence
from labeler.settings import DIRECT, REPLAY
from labeler.store import Row, Tx
from labeler.store.replays import Draft
from labeler.task import Task

NAME = "edited_guidelines"
# So many kinds of confusion, groups of each, and corrections in one prompt.
_KINDS, _GROUPS, _SHOWN = 4, 3, 12
# A draft may be twice as long as the guidelines, or so many characters; a copy of so many is a quotation.
_LONGEST, _QUOTED = 2_000, 30
_MOST_TOKENS_A_CHARACTER = 2


@dataclass(frozen=True, slots=True)
class Correction:
    """An approval that is not what a model had suggested. ``place`` is shared by near-duplicates alone."""

    annotation_id: int
    record_id: int
    place: int | str
    key: str
    text: str
    suggested: Value
    decided: Value


def corrections(task: Task, rows: Iterable[Row]) -> Iterator[Correction]:
    """Yield the corrections of rows whose two values the labels of today can hold, and differ in them."""
    for row in rows:
        decided = truth(task, row)
        then = {"value": row["suggested"], "task_version": row["suggested_version"], "text": row["text"]}
        suggested = truth(task, then)
        if decided is not None and suggested is not None and suggested != decided:
            place = place_of(row)
            yield Correction(row["id"], row["record_id"], place, row["key"], row["text"], suggested, decided)


# Groups of corrections, and what each draft is shown of them


def grouped(found: Sequence[Correction], vectors: np.ndarray, schema: LabelSchema) -> list[list[Correction]]:
    """Return corrections in groups of one confusion that are near each other, the largest first; at most 12 groups.

    ``vectors`` are those of their texts, float32 (n, dim). In each group the one in its middle comes first.
    """
    kinds: dict[Any, list[int]] = {}
    for n, one in enumerate(found):
        kinds.setdefault((schema.strata(one.suggested), schema.strata(one.decided)), []).append(n)
    frequent = sorted(kinds.values(), key=len, reverse=True)[:_KINDS]
    groups = [[found[rows[n]] for n in near] for rows in frequent for near in _near(vectors[rows])]
    return sorted(groups, key=len, reverse=True)


def _near(vectors: np.ndarray) -> list[list[int]]:
    """Return rows in groups around some that are far from each other (Gonzalez 1985), each from its middle outwards."""
    leaders = [int((vectors @ vectors.mean(axis=0)).argmax())]
    while len(leaders) < min(_GROUPS, len(vectors)):
        leaders.append(int((vectors @ vectors[leaders].T).max(axis=1).argmin()))
    likeness = vectors @ vectors[leaders].T
    own = likeness.argmax(axis=1)
    groups = [np.flatnonzero(own == n) for n in range(len(leaders))]
    return [rows[np.argsort(-likeness[rows, n], kind="stable")].tolist() for n, rows in enumerate(groups) if len(rows)]


def drafts_of(groups: Sequence[Sequence[Correction]], count: int) -> list[Draft]:
    """Return what to ask for: up to ``count`` drafts, each shown others of every group, as far as there are more.

    Each belongs to one record among those it shows, so there are no more drafts than corrections.
    """
    found: list[Draft] = []
    everyone = [one.record_id for row in zip_longest(*groups) for one in row if one]
    for n in range(min(count, len(everyone))):
        shown = _shown(groups, n)
        taken = {draft.record_id for draft in found}
        record_id = next(id_ for id_ in (*(one.record_id for one in shown), *everyone) if id_ not in taken)
        found.append(Draft(n + 1, record_id, [one.annotation_id for one in shown]))
    return found


def _shown(groups: Sequence[Sequence[Correction]], n: int) -> list[Correction]:
    """Return what the draft ``n`` is shown: one of each group in turn, so that what is left out is missed least."""
    each = _SHOWN // len(groups)
    starts = [(n * each if len(group) > each else n) % len(group) for group in groups]
    turned = [[*group[start:], *group[:start]] for group, start in zip(groups, starts, strict=True)]
    return [one for row in zip_longest(*turned) for one in row if one][:_SHOWN]


# How a model is asked


@dataclass(frozen=True, kw_only=True)
class Guidelines(Task):
    """The task of a model that edits the guidelines of ``own``; ``suggested`` says what was corrected, by annotation.

    An example is a correction, with what a person decided as its value. ``texts`` must not be quoted.
    """

    schema: Text
    own: Task
    language: str
    suggested: Mapping[int, Value]
    texts: Sequence[str]

    @classmethod
    def of(cls, own: Task, language: str, shown: Iterable[Correction]) -> Guidelines:
        text, all_ = own.guided(language), list(shown)
        schema = Text(1, max(_LONGEST, 2 * len(text)))
        suggested, texts = {one.annotation_id: one.suggested for one in all_}, [one.text for one in all_]
        return cls(
            name=NAME, schema=schema, title=own.title, guidelines=own.guidelines, version=own.version, unit=own.unit,
            own=own, language=language, suggested=suggested, texts=texts,
        )  # fmt: skip

    @property
    def standing(self) -> str:
        return self.guided(self.language).strip()

    def build_prompt(self, record: Record, examples: Sequence[Example], style: PromptStyle) -> list[Message]:
        """Return the messages that ask for a draft. The record is only whose answer it is: corrections are shown."""
        system = prompts.filled(
            "draft.v1", style.language, title=self.own.titled(style.language), guidelines=self.standing or "-",
            labels=self.own.schema.describe(style.language).strip() or "-", longest=str(self.schema.maximum),
            answer=strictjson.dumps({NAME: self.schema.json_schema()}),
        )  # fmt: skip
        shown = "\n\n".join(self._correction(example, style) for example in examples)
        return [{"role": "system", "content": system}, {"role": "user", "content": shown}]

    def _correction(self, example: Example, style: PromptStyle) -> str:
        review = prompts.review_message(example.text, style.mark(example.text))["content"]
        suggested, decided = self.own.answer(self.suggested[example.annotation_id]), self.own.answer(example.value)
        return prompts.filled(
            "draft-correction.v1", style.language, review=review, suggested=suggested, decided=decided
        )

    def answer(self, value: Value) -> str:
        """Return what is as long as an answer will be, whatever the example: guidelines like those that stand."""
        return prompts.answer_text(NAME, self.schema, self.standing)

    def parse_completion(self, completion: str, record: Record) -> Value | ParseFailure:
        """Return the text of a draft; one that changes nothing, or quotes a review, is none."""
        draft = super().parse_completion(completion, record)
        if isinstance(draft, ParseFailure):
            return draft
        if draft == self.standing:
            return ParseFailure("unchanged", Sentence("The draft is the text that stands"), completion)
        quoted = _quoted(draft, self.standing, self.texts)
        if quoted:
            # Guidelines go into every prompt and export, and stay where a review is removed.
            message = Sentence("The draft quotes a review (%(text)r); a rule has to hold for others", text=quoted)
            return ParseFailure("quoted", message, completion)
        return draft


def _quoted(draft: str, standing: str, texts: Iterable[str]) -> str:
    """Return a passage that a draft has from one of some texts; empty if there is none."""
    passages = (text[n : n + _QUOTED] for text in texts for n in range(len(text) - _QUOTED + 1))
    return next((passage for passage in passages if passage in draft and passage not in standing), "")


class Drafting(Suggester):
    """Asks for drafts, shown corrections by the record that each belongs to; they go to the replay that judges them."""

    task: Guidelines
    material: Mapping[int, Sequence[Example]]
    replay_id: int = 0

    @classmethod
    def of(cls, suggester: Suggester, material: Mapping[int, Sequence[Correction]], replay_id: int = 0) -> Drafting:
        """Return what asks with the backend of ``suggester``, whatever its way of prompting."""
        shown = {one.annotation_id: one for part in material.values() for one in part}
        task = Guidelines.of(suggester.task, suggester.style.language, shown.values())
        own = {one.name: getattr(suggester, one.name) for one in fields(Suggester)} | {
            "task": task, "k": 0, "second": (), "joint": {}, "mode": DIRECT, "answering": GENERATED, "fixed": None,
            "calibration_of": None, "stacks": False, "style": replace(suggester.style, name=FEW_SHOT, columns=()),
            "generation": _generation(suggester.generation, task),
        }  # fmt: skip
        made = cls(**own)
        made.material = {record_id: [_example(one) for one in part] for record_id, part in material.items()}
        made.replay_id = replay_id
        return made

    @classmethod
    def of_run(cls, suggester: Suggester, run_settings: Mapping[str, Any]) -> Drafting:
        """Return what moves the run of a replay's drafts. Raises :class:`Conflict` where the task was changed since."""
        replays, replay_id = suggester.store.replays, int(run_settings[REPLAY])
        check_version(suggester.task, replays.get(replay_id))
        drafts = replays.drafts(replay_id)
        rows = replays.corrected([id_ for draft in drafts for id_ in draft.shown])
        known = {one.annotation_id: one for one in corrections(suggester.task, rows.values())}
        material = {draft.record_id: [known[id_] for id_ in draft.shown if id_ in known] for draft in drafts}
        return cls.of(suggester, material, replay_id)

    def prepare(self, records: Sequence[Record]) -> list[Prepared]:
        """Return what each draft is shown: it was chosen when the replay was made."""
        vectors = self.index.embeddings.vectors([(record.id, record.text) for record in records])
        pairs = zip(records, vectors, strict=True)
        return [Prepared(record, vector, self.material[record.id], ()) for record, vector in pairs]

    def save(self, tx: Tx, suggestion: Suggestion) -> int:
        said = suggestion.failure or str(suggestion.value)
        self.store.replays.drafted(tx, self.replay_id, suggestion.record_id, said)
        return 0


def _example(one: Correction) -> Example:
    return Example(one.annotation_id, one.record_id, one.text, one.decided, 0.0)


def _generation(own: Generation, task: Guidelines) -> Generation:
    """Return how a draft is generated: with room for a text, and not always the likeliest one."""
    longest = _MOST_TOKENS_A_CHARACTER * task.schema.maximum
    most = None if own.max_tokens is None else max(own.max_tokens, longest)
    chosen = own.explicit - {"max_tokens", "stop"}
    return replace(own, max_tokens=most, stop=(), temperature=own.temperature or SAMPLING_TEMPERATURE, explicit=chosen)
