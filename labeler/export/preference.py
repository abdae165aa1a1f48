"""Preference sets: better and worse answers to one prompt, from what people changed and how they ranked.

Where a person corrected a suggestion, their answer is better than the model's. Where they accepted it, it is right; the
suggestion for a rejected record is not. A blind decision is compared with the suggestion that stood for its record and
was not shown. A ranking makes each answer better than those below it.

All of it goes through the plan of every export: the same filters, checks, clusters and splits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

from labeler import strictjson
from labeler.annotation.comparing import read_answers, suggestion_of
from labeler.errors import InputError, LabelError
from labeler.export.asked import Asked
from labeler.export.files import AXOLOTL, DATASET_INFO, ExportFile
from labeler.export.filters import Sieve
from labeler.export.findings import Findings
from labeler.export.formats import Context, ExportRow, Format, TrainingFormat
from labeler.export.formats.base import json_file, json_line, yaml
from labeler.export.job import Job
from labeler.labels import safe_agreement
from labeler.records import Message, Record, Suggestion, Value
from labeler.sentence import N_
from labeler.store import Row
from labeler.store.annotations import REJECTED
from labeler.store.rankings import Tiers
from labeler.task import Task

BLIND, RANKING = "blind", "ranking"
_FIELDS = {"field_chosen": "chosen", "field_rejected": "rejected"}


class Said(NamedTuple):
    """An answer: its value, or the text of one that could not be read."""

    value: Value | None
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of the ``answers`` to one record, by their places: pairs of a better and a worse one, and whether
    single ones are right. ``why`` says why there are no pairs, or nothing at all.
    """

    source: str
    answers: Sequence[Said] = ()
    pairs: Sequence[tuple[int, int]] = ()
    judged: Sequence[tuple[int, bool]] = ()
    why: str = ""


@dataclass(slots=True)
class Preference(ExportRow):
    """One decision or ranking on its way out: ``pairs`` of a better and a worse answer, or answers ``judged`` as right.

    ``source`` is how the decision was made (``blind`` where no suggestion was shown), or ``rejected`` or ``ranking``.
    """

    source: str = ""
    pairs: Sequence[tuple[str, str]] = ()
    judged: Sequence[tuple[str, bool]] = ()


class PreferenceFormat(TrainingFormat):
    """A format for preferences: subclass it, and give ``one``. Each decision or ranking is as many lines as it says."""

    suffix = ".jsonl"
    judges: ClassVar[bool] = False
    """Whether it takes single answers, each right or not, in place of pairs."""

    @abstractmethod
    def one(self, prompt: list[Message], better: str, other: Any) -> dict[str, Any]:
        """Return one line: ``other`` is the worse answer, or whether the first one is right where it ``judges``."""

    def row(self, row: ExportRow, context: Context) -> str:
        assert isinstance(row, Preference)
        return "".join(json_line(self.one(list(row.prompt), *part)) for part in self.parts(row))

    def lines(self, row: ExportRow) -> int:
        assert isinstance(row, Preference)
        return len(self.parts(row))

    def parts(self, row: Preference) -> Sequence[tuple[str, Any]]:
        return row.judged if self.judges else row.pairs


class DPO(PreferenceFormat):
    """{"prompt": [...], "chosen": [assistant], "rejected": [assistant]}: the explicit form of TRL."""

    name = "dpo"
    description = N_("Better and worse answers to a prompt, for the DPOTrainer of TRL and for axolotl")
    axolotl: ClassVar[Mapping[str, str]] = {"type": "chat_template.default", "field_messages": "prompt"}

    def one(self, prompt: list[Message], better: str, other: Any) -> dict[str, Any]:
        return {"prompt": prompt, "chosen": [_answer(better)], "rejected": [_answer(other)]}

    def about(self, files: Mapping[str, ExportFile], context: Context) -> Mapping[str, str]:
        listed = {
            key: [{"path": files[split].name, "ds_type": "json", "split": "train", **self.axolotl, **_FIELDS}]
            for key, split in (("datasets", "train"), ("test_datasets", "validation"))
            if split in files
        }
        return {AXOLOTL: yaml({"rl": "dpo", **listed})}


class DPOImplicit(DPO):
    """{"chosen": [...], "rejected": [...]}: whole conversations, which differ in their last message."""

    name = "dpo-implicit"
    description = N_("The same as whole conversations, for trainers that find the prompt themselves")
    axolotl: ClassVar[Mapping[str, str]] = {"type": "chat_template.argilla_chat"}

    def one(self, prompt: list[Message], better: str, other: Any) -> dict[str, Any]:
        return {"chosen": [*prompt, _answer(better)], "rejected": [*prompt, _answer(other)]}


class Reward(DPOImplicit):
    """The implicit form, which the RewardTrainer of TRL reads."""

    name = "reward"
    description = N_("Better and worse conversations, for the RewardTrainer of TRL")

    def about(self, files: Mapping[str, ExportFile], context: Context) -> Mapping[str, str]:
        return {}


class KTO(PreferenceFormat):
    """{"prompt": [...], "completion": [assistant], "label": true}: single answers, each right or not."""

    name = "kto"
    description = N_("Single answers, each right or wrong, for the KTOTrainer of TRL")
    judges = True

    def one(self, prompt: list[Message], better: str, other: Any) -> dict[str, Any]:
        return {"prompt": prompt, "completion": [_answer(better)], "label": other}


class OpenAIPreference(PreferenceFormat):
    """{"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}."""

    name = "openai-dpo"
    description = N_("Preferred and other outputs, for preference fine-tuning at OpenAI")

    def one(self, prompt: list[Message], better: str, other: Any) -> dict[str, Any]:
        outputs = {"preferred_output": [_answer(better)], "non_preferred_output": [_answer(other)]}
        return {"input": {"messages": prompt}, **outputs}


class _LlamaFactory(PreferenceFormat):
    """What LLaMA-Factory reads as its form ``sharegpt``; ``dataset_info.json`` names columns and tags."""

    columns: ClassVar[Mapping[str, str]]

    def about(self, files: Mapping[str, ExportFile], context: Context) -> Mapping[str, str]:
        tags = {"role_tag": "role", "content_tag": "content"}
        tags |= {f"{role}_tag": role for role in ("user", "assistant", "system")}
        ranking = {} if self.judges else {"ranking": True}
        how = {"formatting": "sharegpt", **ranking, "columns": {"messages": "messages", **self.columns}, "tags": tags}
        sets = {f"{context.task.name}_{split}": {"file_name": file.name, **how} for split, file in files.items()}
        return {DATASET_INFO: json_file(sets)}


class LlamaFactoryDPO(_LlamaFactory):
    """{"messages": [...], "chosen": {...}, "rejected": {...}}, a ranking set of LLaMA-Factory."""

    name = "llamafactory-dpo"
    description = N_("Better and worse answers, with the dataset_info.json of LLaMA-Factory")
    columns: ClassVar[Mapping[str, str]] = {"chosen": "chosen", "rejected": "rejected"}

    def one(self, prompt: list[Message], better: str, other: Any) -> dict[str, Any]:
        return {"messages": prompt, "chosen": _answer(better), "rejected": _answer(other)}


class LlamaFactoryKTO(_LlamaFactory):
    """{"messages": [...], "label": true}: conversations whose last message is right or not."""

    name = "llamafactory-kto"
    description = N_("Answers that are right or wrong, with the dataset_info.json of LLaMA-Factory")
    judges = True
    columns: ClassVar[Mapping[str, str]] = {"kto_tag": "label"}

    def one(self, prompt: list[Message], better: str, other: Any) -> dict[str, Any]:
        return {"messages": [*prompt, _answer(better)], "label": other}


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def built_in() -> dict[str, Format]:
    """Return the formats for preferences by name."""
    made = (DPO(), DPOImplicit(), KTO(), OpenAIPreference(), Reward(), LlamaFactoryDPO(), LlamaFactoryKTO())
    return {one.name: one for one in made}


@dataclass
class Preferences:
    """Where the rows of a preference set come from: what people decided on, rejected and ranked."""

    job: Job
    chosen: PreferenceFormat
    sources: Counter[str] = field(default_factory=Counter)

    # The first pass: what leaves

    def approved(self, sieve: Sieve, left_out: Findings) -> Iterator[Row]:
        """Yield the approvals that say something of a suggestion; name the others."""
        for page in self.job.approved_pages(sieve):
            for row, verdict in self._verdicts(page):
                # One that cannot be read, the check of every export names.
                if self._parts(verdict) or not verdict.why:
                    yield row
                else:
                    left_out.add(verdict.why, row["key"])

    def unapproved(self, left_out: Findings) -> Iterator[Row]:
        """Yield rejected and ranked records; the ``id`` of a ranking is its number with a minus sign."""
        for page in self._unapproved_pages():
            for row, verdict in self._verdicts(page):
                why = self._unfit(row) or ("" if self._parts(verdict) else verdict.why)
                if why:
                    left_out.add(why, row["key"])
                else:
                    yield row

    def _unfit(self, row: Row) -> str:
        if row["id"] < 0 and row["state"] == REJECTED:
            return "ranked_rejected"
        if not row["text"].strip():
            return "empty_text"
        return "too_long" if len(row["text"]) > self.job.options.longest else ""

    def _parts(self, verdict: Verdict) -> Sequence[Any]:
        return verdict.judged if self.chosen.judges else verdict.pairs

    # The second pass: what is written

    def pages(self) -> Iterator[list[Row]]:
        """Yield everything that may leave, as :meth:`Job.approved_pages` does."""
        yield from self.job.approved_pages()
        yield from self._unapproved_pages()

    def rows(self, stored: Sequence[Row], rows: Sequence[ExportRow], asked: Asked) -> Iterator[Preference]:
        """Yield rows with their prompts and answers; ``stored`` are what they were made of."""
        units = list(zip(rows, (verdict for _, verdict in self._verdicts(stored)), strict=True))
        asking = [replace(row, value=said.value) for row, unit in units for said in unit.answers if not said.raw]
        answered = iter(asked.rows(asking))
        for row, verdict in units:
            self.sources[verdict.source] += 1
            made = [None if said.raw else next(answered) for said in verdict.answers]
            texts = [said.raw if one is None else one.answer for said, one in zip(verdict.answers, made, strict=True)]
            given = {name: getattr(row, name) for name in ExportRow.__dataclass_fields__}
            # One of the answers was read, or there would be no verdict.
            given["prompt"] = next(one.prompt for one in made if one is not None)
            # What a trainer has to read at most.
            given["answer"] = max(texts, key=len)
            given["provenance"] = {**row.provenance, "source": verdict.source}
            yield Preference(
                **given,
                source=verdict.source,
                pairs=[(texts[better], texts[worse]) for better, worse in verdict.pairs],
                judged=[(texts[n], right) for n, right in verdict.judged],
            )

    def report(self, files: Mapping[str, Mapping[str, Any]], splits: Sequence[str]) -> dict[str, Any]:
        """Return the part of the manifest that counts lines, and what they were made of."""
        counts = {split: files.get(f"{split}{self.chosen.suffix}", {}).get("rows", 0) for split in splits}
        return {"counts": counts | {"all": sum(counts.values())}, "sources": dict(self.sources.most_common())}

    # What is known of the answers to a record

    def _unapproved_pages(self) -> Iterator[list[Row]]:
        if self.job.again is not None:
            # What was left out then is none of its members, so nothing has to be sifted.
            yield from self.job.store.annotations.exported_pages(self.job.again, self.job.task.name, REJECTED)
            yield from self.job.store.rankings.exported_pages(self.job.again)
            return
        place, unit = (self.job.project["id"], self.job.task.name), self.job.task.unit
        if self.chosen.judges:
            yield from self.job.matching(self.job.store.annotations.rejected_pages(*place, unit=unit))
        yield from self.job.matching(self.job.store.rankings.pages(*place, unit=unit))

    def _verdicts(self, page: Sequence[Row]) -> Iterator[tuple[Row, Verdict]]:
        store = self.job.store.suggestions
        decided = store.decided_on([row["id"] for row in page if row["id"] > 0])
        ranked = {row["id"]: strictjson.loads(row["ranked"]) for row in page if row["id"] < 0}
        made = store.many([suggestion_of(name) for tiers in ranked.values() for tier in tiers for name in tier])
        for row in page:
            if row["id"] < 0:
                yield row, self._ranked(row, ranked[row["id"]], made)
            elif row["state"] == REJECTED:
                yield row, self._rejected(row, decided.get(row["id"]))
            else:
                yield row, self._decided(row, decided.get(row["id"]))

    def _decided(self, row: Row, suggestion: Suggestion | None) -> Verdict:
        task, source = self.job.task, BLIND if row["blind"] else row["how"]
        try:
            right = Said(task.read(strictjson.loads(row["value"]), row["task_version"], row["text"]))
        except (LabelError, InputError, TypeError):
            return Verdict(source)
        other, why = self._suggested(row, suggestion)
        if other is None:
            return Verdict(source, why=why)
        both = [(0, True), (1, False)]
        if not other.raw and _equal(task, right.value, other.value):
            return Verdict(source, [right], judged=both[:1], why="as_suggested")
        if not other.raw and not self.job.options.keep_same_form and _same_form(task, right.value, other.value):
            return Verdict(source, [right], judged=both[:1], why="same_form")
        return Verdict(source, [right, other], [(0, 1)], both)

    def _rejected(self, row: Row, suggestion: Suggestion | None) -> Verdict:
        wrong, why = self._suggested(row, suggestion)
        if wrong is None or wrong.raw:
            return Verdict(REJECTED, why=why or "unread_suggestion")
        return Verdict(REJECTED, [wrong], judged=[(0, False)])

    def _suggested(self, row: Row, suggestion: Suggestion | None) -> tuple[Said | None, str]:
        """Return what was suggested for a record, or None and why that says nothing."""
        schema = self.job.task.schema
        if suggestion is None:
            return None, "no_suggestion"
        if suggestion.failure is not None:
            raw = suggestion.failure.raw.strip()
            return (Said(None, raw), "") if raw and self.job.options.failures else (None, "unread_suggestion")
        if row["blind"] and row["suggestion_id"] is None and schema.says_nothing(suggestion.value):
            # The desk left it out of what it compares: nobody can say whether that was meant.
            return None, "no_suggestion"
        try:
            return Said(self.job.task.read(suggestion.value, suggestion.task_version, row["text"])), ""
        except LabelError:
            return None, "suggestion_not_in_schema"

    def _ranked(self, row: Row, tiers: Tiers, made: Mapping[int, Suggestion]) -> Verdict:
        task = self.job.task
        record = Record(row["record_id"], self.job.project["id"], row["key"], row["text"])
        values = read_answers(task, record, [name for tier in tiers for name in tier], made)
        placed = [(n, values[name]) for n, tier in enumerate(tiers) for name in tier if name in values]
        pairs = [
            (one, two)
            for (one, (above, better)), (two, (below, worse)) in combinations(enumerate(placed), 2)
            if above < below and not _equal(task, better, worse)
            and (self.job.options.keep_same_form or not _same_form(task, better, worse))
        ]  # fmt: skip
        judged = [(n, False) for n in range(len(placed))] if row["none_good"] else []
        return Verdict(RANKING, [Said(value) for _, value in placed], pairs, judged, why="no_order")


def _equal(task: Task, one: Value, other: Value) -> bool:
    return bool(one == other) or task.answer(one) == task.answer(other)


def _same_form(task: Task, one: Value, other: Value) -> bool:
    """Whether two answers differ in white space, case or order alone, or not at all by the measure of their schema."""
    agreement = safe_agreement(task.schema, other, one)
    return agreement == 1.0 or (agreement != 0.0 and _plain(one) == _plain(other))


def _plain(value: Value) -> Value:
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return {name: _plain(part) for name, part in value.items()} if isinstance(value, dict) else value
