"""A small encoder learns the approved labels of a task: BERT, ELECTRA and their like, by hub id or folder.

The rows are those of an export, so that its splits hold: what validates or tests was never learned from, and neither
was a near-duplicate of it. The best epoch is the one with the least log loss on the validation rows. On the same rows a
temperature is fitted (Guo et al. 2017), and, for sets, how many labels to choose. The test rows only measure.

The model is saved at the end, its card last. Until then there are checkpoints, one after each epoch, and one where
somebody stops it; what goes on from one of them learns the same rows in the same order.
"""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from labeler import strictjson
from labeler.backends.classifier import METHOD, Card, read
from labeler.backends.ensemble import pool
from labeler.backends.ensemble.backend import decided
from labeler.backends.local.cards import CLASSIFY
from labeler.backends.local.loading import encoder_reads, load_encoder
from labeler.backends.local.memory import in_batches
from labeler.errors import JsonError, LabelError, SettingError
from labeler.evaluation.measures import Answers, weights
from labeler.export.files import RECORDS
from labeler.export.splits import SPLITS, TEST, TRAIN, VALIDATION
from labeler.instance import Instance
from labeler.labels import LabelSchema
from labeler.records import Value
from labeler.task import Task
from labeler.text import raw_cell
from labeler.training.cards import Outcome, write_card
from labeler.training.folders import CHECKPOINTS, SAMPLES, WHOLE, Reports, Training
from labeler.training.methods import CLASSIFIER, Numbers, numbers_for
from labeler.training.plans import task_of
from labeler.training.sets import TrainingSet, read_planned

Array = np.ndarray[Any, Any]

LONGEST = 256
"""How many tokens of a text are read, unless a plan says it."""
# Labels that are this many times as frequent as others may be worth a training with weights.
_UNEVEN = 3
_READ_AT_ONCE = 64
# What an epoch has to gain on the validation rows, in nats for each: less is not worth another one, after so many.
_GAIN, _PATIENCE = 0.001, 2
_REPORTS, _SAMPLED = 200, 3
_STATE = "state.pt"


def train(training: Training, tell: Callable[[str], None]) -> bool:
    """Train a classifier as planned, or go on with it; False where somebody asked it to stop.

    Raises :class:`SettingError` for a task without labels to choose, a model that cannot be loaded, and a training
    that came to nothing, and :class:`InputError` for an export that cannot be learned from.
    """
    import torch

    plan = training.plan
    with Instance(training.folder.parent.parent, read_only=True, make=False) as instance:
        task = task_of(instance, plan)
    data = read_planned(plan)
    rows = read_rows(data, task)
    with torch.random.fork_rng(devices=[]):
        return _Fit(training, tell, data, task.schema, rows).run()


@dataclass(frozen=True)
class Rows:
    """Texts with their values by split."""

    splits: Mapping[str, Sequence[tuple[str, Value]]]

    def texts(self, split: str) -> list[str]:
        return [text for text, _ in self.splits[split]]

    def values(self, split: str) -> list[Value]:
        return [value for _, value in self.splits[split]]


def read_rows(data: TrainingSet, task: Task) -> Rows:
    """Read the rows of an export. Raises :class:`SettingError` for one of another task, or with other labels."""
    if data.manifest.get("task") != task.name:
        raise SettingError(
            "The export in %(folder)s is of the task %(other)s, not of %(task)s",
            folder=data.folder,
            other=data.manifest.get("task"),
            task=task.name,
        )
    found: dict[str, list[tuple[str, Value]]] = {split: [] for split in SPLITS}
    for file in data.labelled:
        read_file = _of_jsonl if file.name == RECORDS else _of_csv
        for key, text, label, split in read_file(file, data.manifest):
            found[split].append((text, _value(task, key, text, label)))
    return Rows(found)


def _of_jsonl(file: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, str]]:
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            row = strictjson.loads(line)
            yield row["id"], row["text"], row["label"], row["split"]


def _of_csv(file: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, str]]:
    raw = raw_cell if manifest["options"]["formula_safe"] else str
    with file.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream):
            value = raw(row["value"])
            yield raw(row["key"]), raw(row["text"]), _listed(value) if value.startswith("[") else value, row["split"]


def _listed(cell: str) -> Any:
    try:
        return strictjson.loads(cell)
    except JsonError:
        # A label may begin with a bracket.
        return cell


def _value(task: Task, key: str, text: str, label: Any) -> Value:
    try:
        return task.schema.parse(label, text)
    except LabelError as error:
        raise SettingError(
            "The row %(key)s of the export has a label that the task does not have: %(why)s; export again",
            key=key,
            why=error,
        ) from error


@dataclass
class _Round:
    """One training on its way, from the encoder as it came; in the second one rare labels weigh more.

    ``start`` is the step it begins after, ``order`` holds the rows that are left of an epoch, and ``epochs`` were
    whole. ``kept`` are the weights of the ``best`` epoch, whose loss in validation was the ``least``.
    """

    start: int
    rare: list[float] | None = None
    step: int = 0
    epochs: int = 0
    order: list[int] = field(default_factory=list)
    least: float = math.inf
    best: int = 0
    kept: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Fitted:
    """A trained model as it was in its best epoch, with what its validation rows say of it."""

    card: Card
    kept: Mapping[str, Any]

    @property
    def measured(self) -> Mapping[str, float]:
        return self.card.measured[VALIDATION]  # type: ignore[no-any-return]


class _Fit:
    def __init__(
        self, training: Training, tell: Callable[[str], None], data: TrainingSet, schema: LabelSchema, rows: Rows
    ) -> None:
        self.training, self.data, self.schema, self.rows = training, data, schema, rows
        self.plan, self.one = training.plan, schema.one_of_labels
        self.texts = {split: rows.texts(split) for split in SPLITS}
        self.member = {split: _member(schema, rows.values(split)) for split in SPLITS}
        self.model, self.tokenizer = self._encoder()
        wanted = self.plan.get("most") or LONGEST
        most = min(wanted, encoder_reads(self.model, self.tokenizer) or wanted)
        self.card = Card(training.name, schema.kind, tuple(schema.names), most)
        self._resolve()
        self.numbers = Numbers(**self.plan["numbers"])
        self.reports = Reports(training, tell)

    def _resolve(self) -> None:
        """Complete the plan; what was resolved once stays."""
        if "numbers" not in self.plan:
            gpu, parameters = self.model.device.type != "cpu", self.model.num_parameters()
            given = self.plan.get("given") or {}
            numbers = numbers_for(CLASSIFIER, CLASSIFY, parameters, self.card.longest, gpu, given)
            there = len(self.rows.splits[VALIDATION])
            self.plan |= {"numbers": numbers.to_json(), "max_length": self.card.longest, "left_out": {}}
            self.plan |= {"validation": {"rows": there, "of": there}, "parameters": parameters}
            self.plan["total"] = self._steps(numbers)
        self.training.change(self.plan)

    def _steps(self, numbers: Numbers) -> int:
        """Return how many steps a round has at most."""
        return numbers.steps or math.ceil(numbers.epochs * math.ceil(len(self.texts[TRAIN]) / numbers.batch))

    def _encoder(self) -> tuple[Any, Any]:
        """Return the encoder as it came, under what is new, and its tokenizer; the same each time."""
        import torch

        names, device = self.schema.names, self.plan.get("device") or "auto"
        torch.manual_seed((self.plan.get("given") or {}).get("seed", 42))
        found: tuple[Any, Any] = load_encoder(
            self.plan["base"], device, num_labels=len(names), id2label=dict(enumerate(names)),
            label2id={name: n for n, name in enumerate(names)},
            problem_type="single_label_classification" if self.one else "multi_label_classification",
            ignore_mismatched_sizes=True,
        )  # fmt: skip
        return found

    def run(self) -> bool:
        """Return whether it came to its end.

        Rare labels weigh more only if the validation rows say that it helps: with more macro F1 and no less agreement.
        """
        rounds, state = self._begun()
        if state is not None and not self._ended(rounds, state):
            return False
        rare = self._rare()
        for own in [None, *([] if rare is None else [rare])][len(rounds) :]:
            done = rounds[-1].step if rounds else 0
            rounds.append(_Round(done, own, done))
            if not self._ended(rounds, None):
                return False
        fits = [self._fitted(one) for one in rounds]
        found = fits[-1] if _helps(fits[-1].measured, fits[0].measured) else fits[0]
        self.model.load_state_dict(found.kept)
        tested = {TEST: self._measured(found.card, TEST)} if self.rows.splits[TEST] else {}
        self._leave(replace(found.card, measured={**found.card.measured, **tested}))
        return True

    # On its way

    def _begun(self) -> tuple[list[_Round], Mapping[str, Any] | None]:
        """Return the rounds so far, and the state that the last of them goes on from; what came later is forgotten."""
        import torch

        found = self.training.checkpoint()
        self.training.rewind(found[1] if found else -1)
        if found is None:
            return [], None
        state = torch.load(found[0] / _STATE, map_location="cpu", weights_only=True)
        return [_Round(**one) for one in state["rounds"]], state

    def _ended(self, rounds: list[_Round], state: Mapping[str, Any] | None) -> bool:
        """Train a round until it helps no more; False where somebody stops it."""
        import torch

        at = rounds[-1]
        if at.start:
            self.model, self.tokenizer = self._encoder()
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.numbers.rate, weight_decay=0.01)
        if state is None and not at.start:
            self._sample(0)
        if state is not None:
            self.model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            _set_chance(state["chance"])
        self._expect(at.start + self._steps(self.numbers))
        while at.step < self.plan["total"] and at.epochs - at.best < _PATIENCE:
            if not self._epoch(at, optimizer):
                self._checkpoint(rounds, optimizer)
                return False
            self._judge(at)
            self._checkpoint(rounds, optimizer)
        if not at.best:
            raise SettingError(
                "The training of %(name)s came to nothing: its loss is no number; lower the rate", name=self.card.name
            )
        self._expect(at.step)
        return True

    def _expect(self, total: int) -> None:
        self.plan["total"] = total
        self.training.change(self.plan)

    def _epoch(self, at: _Round, optimizer: Any) -> bool:
        """Learn from the rows that are left of an epoch; False where somebody stops it."""
        import torch

        steps = self._steps(self.numbers)
        loss_of, every = self._loss(at.rare), max(1, steps // _REPORTS)
        at.order = at.order or torch.randperm(len(self.texts[TRAIN])).tolist()
        while at.order and at.step < at.start + steps:
            if self.training.stopping:
                return False
            for group in optimizer.param_groups:
                group["lr"] = self.numbers.rate * _pace(at.step - at.start, steps, self.numbers.warmup)
            part, at.order = at.order[: self.numbers.batch], at.order[self.numbers.batch :]
            loss = self._learn(part, loss_of, optimizer)
            at.step += 1
            if at.step % every == 0 or at.step == at.start + 1:
                self.reports.say(at.step, self.plan["total"], {"loss": round(loss, 6)})
        at.order, at.epochs = [], at.epochs + 1
        return True

    def _learn(self, rows: Sequence[int], loss_of: Callable[[Any, Any], Any], optimizer: Any) -> float:
        """Learn once from some rows of train, and return their loss."""
        import torch

        texts, member, total = self.texts[TRAIN], self.member[TRAIN], 0.0
        self.model.train()
        for start in range(0, len(rows), self.numbers.rows_at_once):
            part = list(rows[start : start + self.numbers.rows_at_once])
            fed = self.tokenizer(
                [texts[place] for place in part], truncation=True, max_length=self.card.longest, padding=True,
                return_tensors="pt",
            )  # fmt: skip
            wanted = torch.tensor(member[part], device=self.model.device)
            loss = loss_of(self.model(**fed.to(self.model.device)).logits, wanted) * len(part) / len(rows)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return total

    def _judge(self, at: _Round) -> None:
        """Measure the loss in validation after an epoch, and keep the weights if it is the best so far."""
        wanted = self.member[VALIDATION]
        held = pool.loss(self._outputs(VALIDATION), wanted, self.one) / len(wanted)
        if math.isfinite(held):
            self.reports.say(at.step, self.plan["total"], {"eval_loss": round(held, 6)})
        self._sample(at.step)
        if held < at.least - _GAIN:
            at.least, at.best = held, at.epochs
            at.kept = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def _sample(self, step: int) -> None:
        """Report what it answers to a few rows of validation."""
        rows = list(self.rows.splits[VALIDATION][:_SAMPLED])
        outputs = self._read([text for text, _ in rows])
        for (text, value), chances in zip(rows, self.card.chances(outputs, self.one), strict=True):
            likely = np.argsort(-chances)[: 1 if self.one else int((chances > 0.5).sum())]
            answered = ", ".join(f"{self.card.labels[n]} {chances[n]:.2f}" for n in likely) or "–"
            line = {"step": step, "asked": text, "expected": ", ".join(self.schema.strata(value)), "answered": answered}
            self.training.report(SAMPLES, line)

    def _checkpoint(self, rounds: Sequence[_Round], optimizer: Any) -> None:
        """Write all that it needs to go on; the checkpoint before this one goes once it is whole."""
        import torch

        place = self.training.folder / CHECKPOINTS
        folder = place / f"checkpoint-{rounds[-1].step}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # Not asdict: it would copy the weights.
        plain = [{name: getattr(one, name) for name in _Round.__dataclass_fields__} for one in rounds]
        state = {"rounds": plain, "model": self.model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state | {"chance": _chance()}, folder / _STATE)
        (folder / WHOLE).touch()
        for other in place.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)

    def _rare(self) -> list[float] | None:
        """Return what each label weighs if rare ones weigh more; None where none is rare, or labels come in sets."""
        if not self.one:
            return None
        held = self.member[TRAIN].sum(axis=0)
        known = held[held > 0]
        if known.max() < _UNEVEN * known.min():
            return None
        rarity = [(float(known.mean()) / max(float(count), 1.0)) ** 0.5 for count in held]
        return [round(one, 4) for one in rarity]

    # What came of it

    def _fitted(self, at: _Round) -> _Fitted:
        self.model.load_state_dict(at.kept)
        card = replace(self._calibrated(), weights=at.rare, epochs=at.best)
        rows = {split: len(self.rows.splits[split]) for split in SPLITS}
        labels = dict(zip(card.labels, self.member[TRAIN].sum(axis=0).tolist(), strict=True))
        measured = {"rows": rows, "labels": labels, VALIDATION: self._measured(card, VALIDATION)}
        return _Fitted(replace(card, measured=measured), at.kept)

    def _loss(self, rare: Sequence[float] | None) -> Callable[[Any, Any], Any]:
        import torch

        if not self.one:
            return lambda outputs, wanted: torch.nn.functional.binary_cross_entropy_with_logits(outputs, wanted.float())
        weight = None if rare is None else torch.tensor(rare, device=self.model.device)
        return lambda outputs, wanted: torch.nn.functional.cross_entropy(outputs, wanted.int().argmax(dim=1), weight)

    def _outputs(self, split: str) -> Array:
        """Return the outputs for the texts of a split, float (rows, labels)."""
        return self._read(self.texts[split])

    def _read(self, texts: Sequence[str]) -> Array:
        self.model.eval()
        found = in_batches(texts, _READ_AT_ONCE, lambda part: read(self.model, self.tokenizer, part, self.card))
        return np.stack([outputs for outputs, _ in found])

    def _calibrated(self) -> Card:
        """Return the card with what the validation rows say of temperature and, for sets, of how many to choose."""
        outputs, member = self._outputs(VALIDATION), self.member[VALIDATION]
        card = replace(self.card, temperature=temperature(outputs, member, self.one))
        if self.one:
            return card
        odds = pool.size_odds(card.chances(outputs, False), member.sum(axis=1))
        cards = [replace(card, size_odds=tuple(odds.tolist()), rule=rule) for rule in pool.RULES]
        return max(cards, key=lambda one: float(self._answers(one, VALIDATION, outputs).agreement.mean()))

    def _answers(self, card: Card, split: str, outputs: Array) -> Answers:
        odds, schema = np.array(card.size_odds), self.schema
        said = [decided(schema, card.labels, row, odds, card.rule) for row in card.chances(outputs, self.one)]
        return Answers(schema, self.rows.values(split), [value for value, _ in said], [score for _, score in said])

    def _measured(self, card: Card, split: str) -> dict[str, float]:
        """Return the numbers of a split; ``log_loss`` is with the temperature, ``log_loss_plain`` without."""
        outputs, member = self._outputs(split), self.member[split]
        found = {name: one.value for name, one in self._answers(card, split, outputs).all(weights(len(member))).items()}
        for name, by in (("log_loss", card.temperature), ("log_loss_plain", 1.0)):
            found[name] = pool.loss(outputs / by, member, self.one) / len(member)
        return {name: round(value, 4) for name, value in found.items()}

    def _leave(self, card: Card) -> None:
        """Write the model, then its card: where that stands, all of it does."""
        folder = self.training.folder
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        trains = sum(one.numel() for one in self.model.parameters() if one.requires_grad)
        write_card(self.training, self.data, Outcome(trains, self.model.device.type), {METHOD: card.to_json()})
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _member(schema: LabelSchema, values: Sequence[Value]) -> Array:
    """Return which value has which label, bool (values, labels)."""
    rows = [schema.strata(value) for value in values]
    return np.array([[name in row for name in schema.names] for row in rows], dtype=bool)


def _chance() -> list[Any]:
    """Return where all sources of chance are: of the processor, then of each card."""
    import torch

    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def _set_chance(states: Sequence[Any]) -> None:
    import torch

    torch.set_rng_state(states[0])
    if len(states) - 1 == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states[1:])


def _pace(step: int, steps: int, warmup: float) -> float:
    """Return the share of the highest learning rate: rising for a part of the steps, then falling to 0."""
    rising = max(1, int(steps * warmup))
    return min((step + 1) / rising, max(0.0, (steps - step) / max(1, steps - rising)))


def temperature(outputs: Array, member: Array, one: bool) -> float:
    """Return by what outputs (rows, labels) are divided for the least log loss of the labels that rows have."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda log: pool.loss(outputs / 10**log, member, one), bounds=(-1, 1), method="bounded")
    return round(float(10**found.x), 4)


def _helps(other: Mapping[str, float], plain: Mapping[str, float]) -> bool:
    return other["macro_f1"] > plain["macro_f1"] and other["agreement"] >= plain["agreement"]
