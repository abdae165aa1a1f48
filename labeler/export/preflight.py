"""Preflight: what a trainer would make of an export, told before anything is written.

The rows are made as they would be written, and none is remembered. Lengths are counted by the model's own tokenizer
where one is given, else they are an estimate that says so.
"""

from __future__ import annotations

import hashlib
import importlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from labeler.backends.local.loading import read_by
from labeler.backends.prices import ModelInfo, find_model
from labeler.errors import InputError, MissingExtra
from labeler.export.asked import Asked
from labeler.export.formats import ExportRow, TrainingFormat
from labeler.export.job import Job
from labeler.export.plan import plan_of
from labeler.export.preference import Preference, PreferenceFormat, Preferences
from labeler.export.rows import planned_rows, trained_on
from labeler.export.seen import Placed
from labeler.export.splits import TRAIN
from labeler.records import Message
from labeler.sentence import Sentence, recalled
from labeler.text import content_hash, token_weights

REFUSED, WARNED, NOTED = "refused", "warned", "noted"
"""What a finding means: a trainer refuses the file or drops rows of it, a person should look, or it is good to know."""
SAMPLES = 3
_MOST_KEYS = 1000
_PER_MESSAGE = 4
# With a real tokenizer so many rows are counted, and as many of the longest ones.
_COUNTED = 2_000
_FEW = (10, 50, 100)


@dataclass(frozen=True, slots=True)
class Trainer:
    """Who reads a format, and what it does by default with rows of more than ``limit`` tokens.

    ``rows`` is how many it wants in the train split at least, and ``most`` how many tokens it takes in one row at all.
    ``here`` says that ``labeler train`` reads the format, too: it refuses a row that is too long for its model.
    """

    name: str
    setting: str = ""
    limit: int | None = None
    rows: int = 1
    most: int | None = None
    here: bool = False


_OPENAI = Trainer("OpenAI", rows=10, most=65_536)
_TRL = Trainer("TRL", "max_length", 1_024)
_TRL_AND_HERE = replace(_TRL, here=True)
_LLAMA_FACTORY = Trainer("LLaMA-Factory", "cutoff_len", 2_048)
_AXOLOTL = Trainer("axolotl", "sequence_len", 512)
TRAINERS: Mapping[str, tuple[Trainer, ...]] = {
    "openai": (_OPENAI, _TRL_AND_HERE),
    "openai-dpo": (_OPENAI,),
    **dict.fromkeys(("messages", "trl", "dpo", "dpo-implicit", "kto", "reward"), (_TRL_AND_HERE,)),
    **dict.fromkeys(("text", "dataset"), (_TRL,)),
    **dict.fromkeys(("alpaca", "sharegpt", "llamafactory"), (_LLAMA_FACTORY,)),
    "axolotl": (_AXOLOTL,),
}
"""Who reads which format, after the documents of each (OpenAI 2026; TRL 1.16; LLaMA-Factory 0.9.5; axolotl 0.19)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: how much it matters, what it is, and on how many records, the first of them by key."""

    level: str
    kind: str
    message: str
    count: int = 0
    keys: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        said = self.message.parts() if isinstance(self.message, Sentence) else None
        return {
            "level": self.level, "kind": self.kind, "message": str(self.message), "said": said, "count": self.count,
            "keys": list(self.keys),
        }  # fmt: skip


@dataclass
class Lengths:
    """The tokens of rows, shortest first. ``real`` says that a tokenizer counted them."""

    tokens: array[int] = field(default_factory=lambda: array("q"))
    real: bool = False

    @property
    def longest(self) -> int:
        return self.tokens[-1] if self.tokens else 0

    def at(self, share: float) -> int:
        """Return the length that a share of the rows does not exceed."""
        return self.tokens[min(len(self.tokens) - 1, int(share * len(self.tokens)))] if self.tokens else 0

    def over(self, limit: int) -> int:
        """Return how many rows are longer than ``limit`` tokens."""
        return sum(1 for n in self.tokens if n > limit)

    def to_json(self) -> dict[str, Any]:
        steps = (0.0, 0.5, 0.9, 0.99)
        return {"real": self.real, **{f"p{share * 100:g}": self.at(share) for share in steps}, "longest": self.longest}


@dataclass
class Preflight:
    """What was found. ``counts`` are rows by split, ``labels`` labels by split, ``samples`` whole rows as text.

    ``reads`` is how many tokens the model takes in a row, None where no model was named or that is not known.
    """

    counts: dict[str, int]
    labels: dict[str, dict[str, int]]
    lengths: Lengths
    findings: list[Finding]
    samples: list[str]
    reads: int | None = None

    @property
    def passes(self) -> bool:
        return all(finding.level != REFUSED for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "passes": self.passes, "counts": self.counts, "labels": self.labels, "tokens": self.lengths.to_json(),
            "reads": self.reads,
            "findings": [finding.to_json() for finding in self.findings], "samples": self.samples,
        }  # fmt: skip


class Ruler:
    """Counts the tokens of conversations and renders them: by the chat template of a model, or by an estimate.

    ``model`` is a folder, a hub id, or the name of a model among ``prices`` that OpenAI tunes: ``tuned`` there, and no
    tokenizer is known. ``most`` is how many tokens it takes in one row, None where that is not known.
    """

    def __init__(self, model: Path | str | None = None, prices: Mapping[str, ModelInfo] = MappingProxyType({})) -> None:
        listed = find_model(prices, str(model)) if model and not Path(model).exists() else None
        self.tuned, self.tokenizer, self.most = listed is not None, None, None
        if listed is not None:
            self.most = _longest_row(listed, prices)
        elif model:
            self.tokenizer = _tokenizer(model)
            self.most = read_by(_config(model), self.tokenizer)

    @property
    def real(self) -> bool:
        return self.tokenizer is not None

    def tokens(self, messages: Sequence[Message]) -> int:
        if self.tokenizer is None:
            return sum(_weight(message["content"]) + _PER_MESSAGE for message in messages)
        return len(self.tokenizer(self.rendered(messages), add_special_tokens=False)["input_ids"])

    def rendered(self, messages: Sequence[Message]) -> str:
        """Return a conversation as one text. Raises :class:`InputError` where the template refuses it."""
        if self.tokenizer is None:
            return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)
        try:
            return str(self.tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False))
        except Exception as error:
            raise InputError("The chat template of the model refuses a row: %(reason)s", reason=error) from error


@lru_cache(maxsize=256)
def _weight(text: str) -> int:
    return round(sum(token_weights(text)))


def _longest_row(listed: ModelInfo, prices: Mapping[str, ModelInfo]) -> int:
    if listed.row is None:
        raise InputError(
            "How long a row %(model)s is tuned on is not known; known are %(names)s. Write it into prices.json of the "
            "instance folder, as row",
            model=listed.model_id,
            names=", ".join(sorted(name for name, one in prices.items() if one.row)),
        )
    return listed.row


def _config(model: Path | str) -> Any:
    """Return the config of a model; None where there is none that can be read, as in the folder of a tokenizer."""
    try:
        return importlib.import_module("transformers").AutoConfig.from_pretrained(
            str(model), local_files_only=Path(model).exists()
        )
    except (OSError, ValueError):
        return None


def _tokenizer(model: Path | str) -> Any:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra("transformers", "local") from error
    try:
        found = transformers.AutoTokenizer.from_pretrained(str(model), local_files_only=Path(model).exists())
    except Exception as error:
        raise InputError("No tokenizer can be read from %(model)s: %(reason)s", model=model, reason=error) from error
    if not getattr(found, "chat_template", None):
        raise InputError(
            "The tokenizer of %(model)s has no chat template; name a model that was taught to chat", model=model
        )
    return found


def preflight(job: Job, chosen: TrainingFormat, ruler: Ruler) -> Preflight:
    """Make the rows of an export as they would be written, and say what would become of them.

    Raises :class:`InputError` if no row is left, as the export itself, and for a model of OpenAI with a format that
    is not read there.
    """
    trainers = _trainers(chosen, ruler)
    chosen.prepared(job.context())
    prefer = Preferences(job, chosen) if isinstance(chosen, PreferenceFormat) else None
    plan = plan_of(job, chosen, prefer)
    measured = _Measured(ruler, len(plan.splits), isinstance(chosen, PreferenceFormat) and chosen.judges)
    with Asked(job, trained_on(job, plan)) as asked:
        members = Placed()
        for row in planned_rows(job, plan, asked if chosen.asks else None, prefer):
            members.add(row.annotation_id, row.split)
            if row.value is not None:
                plan.counted[row.split, job.task.schema.strata(row.value)] += 1
            measured.take(row)
    report = plan.report(job.shares, members)
    lengths = measured.lengths()
    findings = [
        *_of_model(trainers, measured, lengths),
        *_of_lengths(trainers, measured, lengths),
        *_of_counts(trainers, report),
        *measured.overlaps(),
        *measured.one_sided(),
        *_of_labels(report["labels"].get(TRAIN, {})),
        *(_of_plan(one, NOTED) for one in (*report["written"], *report["left_out"])),
        *(_of_plan(one, WARNED) for one in report["warnings"]),
    ]
    findings.sort(key=lambda one: (REFUSED, WARNED, NOTED).index(one.level))
    counts = {name: count for name, count in report["counts"].items() if name != "all"}
    return Preflight(counts, report["labels"], lengths, findings, measured.samples, ruler.most)


def _trainers(chosen: TrainingFormat, ruler: Ruler) -> Sequence[Trainer]:
    found = TRAINERS.get(chosen.name, ()) if chosen.asks else ()
    if not ruler.tuned:
        return found
    if _OPENAI not in found:
        raise InputError("OpenAI does not read the format %(name)r; choose openai or openai-dpo", name=chosen.name)
    return [replace(_OPENAI, most=ruler.most)]


class _Measured:
    """What is kept of the rows: lengths, hashes of texts by split, and the first ones whole."""

    def __init__(self, ruler: Ruler, rows: int, judges: bool = False) -> None:
        self.ruler, self.samples, self.judges = ruler, list[str](), judges
        self._every = max(1, rows // _COUNTED) if ruler.real else 1
        self._seen = 0
        self._lengths: list[tuple[int, str]] = []
        self._texts: dict[bytes, str] = {}
        self._clusters: dict[int, str] = {}
        self._across: dict[str, list[str]] = {"same": [], "near": []}
        self._judged: Counter[bool] = Counter()
        # The longest by characters, so that the longest row is counted whatever is left out.
        self._long: list[tuple[int, ExportRow]] = []

    def take(self, row: ExportRow) -> None:
        if len(self.samples) < SAMPLES and row.prompt:
            self.samples.append(self.ruler.rendered(row.messages))
        if row.prompt:
            self._measure(row)
        self._seen += 1
        self._across_splits(row)
        if self.judges and isinstance(row, Preference) and row.split == TRAIN:
            self._judged.update(right for _, right in row.judged)

    def _measure(self, row: ExportRow) -> None:
        if self._seen % self._every == 0:
            self._lengths.append((self.ruler.tokens(row.messages), row.record.key))
        elif self.ruler.real:
            size = sum(len(message["content"]) for message in row.messages)
            self._long.append((size, row))
            if len(self._long) > 2 * _COUNTED:
                self._long = sorted(self._long, key=lambda one: one[0])[-_COUNTED:]

    def lengths(self) -> Lengths:
        if self.ruler.real:
            longest = sorted(self._long, key=lambda one: one[0])[-_COUNTED:]
            self._lengths += [(self.ruler.tokens(row.messages), row.record.key) for _, row in longest]
        return Lengths(array("q", sorted(n for n, _ in self._lengths)), self.ruler.real)

    def over(self, limit: int) -> list[str]:
        """Return the keys of counted rows with more than ``limit`` tokens."""
        return [key for n, key in self._lengths if n > limit][:_MOST_KEYS]

    def _across_splits(self, row: ExportRow) -> None:
        digest = hashlib.sha256(content_hash(row.record.text).encode()).digest()[:8]
        if self._texts.setdefault(digest, row.split) != row.split:
            self._across["same"].append(row.record.key)
        cluster = row.record.cluster
        if cluster is not None and self._clusters.setdefault(cluster, row.split) != row.split:
            self._across["near"].append(row.record.key)

    def one_sided(self) -> list[Finding]:
        """Return that a set of single answers has right ones alone, or wrong ones: KTO learns from both."""
        if not self.judges or (self._judged[True] and self._judged[False]):
            return []
        message = Sentence(
            "KTO wants right and wrong answers in train; there are %(right)s and %(wrong)s",
            right=self._judged[True],
            wrong=self._judged[False],
        )
        return [Finding(REFUSED, "one_sided", message)]

    def overlaps(self) -> list[Finding]:
        """Return what stands in two splits: nothing, as long as the splits keep their promise."""
        said = {
            "same": Sentence("The same text stands in two splits; a test on it proves nothing"),
            "near": Sentence("Near-duplicates stand in two splits; a test on them proves nothing"),
        }
        return [
            Finding(REFUSED, f"overlap_{kind}", said[kind], len(keys), keys[:_MOST_KEYS])
            for kind, keys in self._across.items()
            if keys
        ]


def _of_model(trainers: Sequence[Trainer], measured: _Measured, lengths: Lengths) -> Iterator[Finding]:
    """Yield that rows are longer than what the model reads, whatever a trainer is told."""
    local, most = [trainer for trainer in trainers if trainer.setting], measured.ruler.most
    if not local or most is None or lengths.longest <= most:
        return
    if any(trainer.here for trainer in local):
        level, message = REFUSED, Sentence(
            "The model reads at most %(n)s tokens, and labeler train refuses longer rows: take another model, or make "
            "prompts shorter",
            n=f"{most:,}",
        )  # fmt: skip
    else:
        level, message = WARNED, Sentence(
            "The model reads at most %(n)s tokens: %(who)s cuts or drops longer rows, whatever %(setting)s is",
            n=f"{most:,}",
            who=local[0].name,
            setting=local[0].setting,
        )  # fmt: skip
    yield Finding(level, "beyond_model", message, lengths.over(most), measured.over(most))


def _of_lengths(trainers: Sequence[Trainer], measured: _Measured, lengths: Lengths) -> list[Finding]:
    found, room = [], min(rounded(lengths.longest), measured.ruler.most or rounded(lengths.longest))
    for trainer in trainers:
        if trainer.most is not None and lengths.longest > trainer.most:
            keys = measured.over(trainer.most)
            message = Sentence("%(who)s takes at most %(n)s tokens in a row", who=trainer.name, n=f"{trainer.most:,}")
            found.append(Finding(REFUSED, "too_many_tokens", message, len(keys), keys))
        # Where the model reads no more than the default, that is all there is to say.
        if trainer.limit is None or lengths.longest <= trainer.limit or room <= trainer.limit:
            continue
        over, all_ = lengths.over(trainer.limit), len(lengths.tokens)
        message = Sentence(
            "Set %(setting)s of %(who)s to %(n)s or more: by default it is %(limit)s, which cuts or drops %(over)s of "
            "%(all)s rows",
            setting=trainer.setting,
            who=trainer.name,
            n=f"{room:,}",
            limit=f"{trainer.limit:,}",
            over=f"{over:,}",
            all=f"{all_:,}",
        )
        found.append(Finding(WARNED, "over_limit", message, over, measured.over(trainer.limit)))
    return found


def rounded(tokens: int) -> int:
    """Return a length to set for rows of so many tokens: the next multiple of 256, with the answer's end in it."""
    return -(-(tokens + 8) // 256) * 256


def _of_counts(trainers: Sequence[Trainer], report: Mapping[str, Any]) -> list[Finding]:
    train = report["counts"].get(TRAIN, 0)
    found = []
    for trainer in trainers:
        if train < trainer.rows:
            message = Sentence(
                "%(who)s wants at least %(n)s rows in train; there are %(have)s",
                who=trainer.name,
                n=trainer.rows,
                have=train,
            )
            found.append(Finding(REFUSED, "too_few_rows", message, train))
    return found


def _of_labels(labels: Mapping[str, int]) -> list[Finding]:
    """Return which labels have few rows in train: under 10, under 50, under 100."""
    found, below = [], 0
    for few in _FEW:
        names = [name for name, n in labels.items() if below <= n < few]
        below = few
        if names:
            message = Sentence("Labels with fewer than %(n)s rows in train: %(names)s", n=few, names=", ".join(names))
            found.append(Finding(WARNED if few == _FEW[0] else NOTED, f"under_{few}", message, len(names)))
    return found


def _of_plan(one: Mapping[str, Any], level: str) -> Finding:
    said = recalled(one["said"]) if one.get("said") else one["message"]
    return Finding(level, one["kind"], said, one["count"], one["keys"])
