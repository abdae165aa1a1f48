"""Trains a small encoder on the approved labels of a task: BERT, ELECTRA and their like, by hub id or folder.

The rows are those of an export, so that its splits hold: what validates or tests was never learned from, and neither
was a near-duplicate of it. The best epoch is the one with the least log loss on the validation rows. On the same rows a
temperature is fitted (Guo et al. 2017), and, for sets, how many labels to choose. The test rows only measure.

Nothing is written before the training has ended. The model is saved under a hidden name, its card last, and then takes
its own name: whatever is killed on the way, a name stands for a whole model.
"""

from __future__ import annotations

import csv
import hashlib
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import labeler
from labeler import strictjson
from labeler.backends.classifier import CARD, MODELS, Card, read
from labeler.backends.ensemble import pool
from labeler.backends.ensemble.backend import decided
from labeler.backends.local.loading import load_encoder
from labeler.backends.local.memory import in_batches
from labeler.errors import Conflict, JsonError, LabelError, SettingError, not_written
from labeler.evaluation.measures import Answers, weights
from labeler.export import Options, Shares, export_task
from labeler.export.files import MANIFEST, RECORDS
from labeler.export.splits import SPLITS, TEST, TRAIN, VALIDATION
from labeler.files import write_private
from labeler.instance import Instance
from labeler.labels import LabelSchema
from labeler.records import Value
from labeler.task import Task
from labeler.text import raw_cell

Array = np.ndarray[Any, Any]

_NAME = re.compile(r"\w[\w.-]{0,79}")
# Labels that are this many times as frequent as others may be worth a training with weights.
_UNEVEN = 3
_READ_AT_ONCE = 64
# What an epoch has to gain on the validation rows, in nats for each: less is not worth another one.
_GAIN = 0.001


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train. ``rate`` is the highest learning rate, reached after a tenth of the steps and falling to 0.

    It ends after ``epochs``, or once ``patience`` epochs brought no less loss on the validation rows. ``longest`` is
    how many tokens of a text are read. ``device`` is "auto", "cuda", "mps" or "cpu".
    """

    epochs: int = 10
    batch: int = 16
    rate: float = 5e-5
    patience: int = 2
    longest: int = 256
    seed: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "rate", "longest"):
            if getattr(self, name) <= 0:
                raise SettingError("%(setting)s must be more than 0", setting=name)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is: step of all steps, the loss of the last one, and that of the validation at an epoch's end.

    ``weighted`` is the second training, in which rare labels weigh more.
    """

    step: int
    steps: int
    loss: float
    validation: float | None = None
    weighted: bool = False


@dataclass(frozen=True)
class Rows:
    """Texts with their values by split, and the export that they came from."""

    splits: Mapping[str, Sequence[tuple[str, Value]]]
    export: Mapping[str, Any]

    def texts(self, split: str) -> list[str]:
        return [text for text, _ in self.splits[split]]

    def values(self, split: str) -> list[Value]:
        return [value for _, value in self.splits[split]]


@dataclass(frozen=True)
class _Fitted:
    """A trained model as it was in its best epoch, and what its validation rows say of it."""

    card: Card
    state: Mapping[str, Any]
    measured: Mapping[str, float]
    epochs: int


def train_classifier(
    instance: Instance, project: Mapping[str, Any], task: Task, model: str, name: str, *,
    export: Path | None = None, settings: Settings | None = None,
    progress: Callable[[Progress], None] = lambda at: None,
) -> Path:  # fmt: skip
    """Train ``model`` on the approved labels of a task, or on an ``export`` of it; return the folder of what came.

    Without ``export`` one is made, with the splits that the project remembers. Raises :class:`SettingError` for a task
    without labels to choose, a model that cannot be loaded, or rows that cannot be learned from,
    :class:`Conflict` where there is a model of that name, and :class:`InputError` where nothing is approved.
    """
    settings, folder = settings or Settings(), _checked(instance, task, name)
    rows = read_rows(_exported(instance, project, task) if export is None else export, task)
    card = Card(
        name, model, project["name"], task.name, task.version, task.schema.kind, tuple(task.schema.names),
        settings.longest,
    )  # fmt: skip
    began = time.perf_counter()
    training = _Training(task.schema, rows, card, settings, progress)
    best = training.best()
    trained = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - began, 1),
        "settings": asdict(settings),
        "export": rows.export,
        "epochs": best.epochs,
        "versions": {"labeler": labeler.__version__}
        | {package: metadata.version(package) for package in ("torch", "transformers")},
    }
    _save(folder, training, best, replace(best.card, trained={**best.card.trained, **trained}))
    return folder


def _checked(instance: Instance, task: Task, name: str) -> Path:
    schema = task.schema
    if not (schema.one_of_labels or schema.set_of_labels) or schema.sides:
        raise SettingError(
            "A classifier chooses among labels, and the task %(task)s has values of the kind %(kind)s; choose another "
            "way to train",
            task=task.name,
            kind=schema.kind,
        )
    if not _NAME.fullmatch(name):
        raise SettingError(
            "A model cannot be called %(name)r; take letters, digits, _, - and dots, at most 80", name=name[:80]
        )
    folder = instance.folder / MODELS / name
    if folder.exists():
        raise Conflict(
            "There is a model %(name)s already; take another name, or remove %(folder)s", None, name=name, folder=folder
        )
    return folder


# Rows


def _exported(instance: Instance, project: Mapping[str, Any], task: Task) -> Path:
    """Export what is approved of a task as any export, so that it is known what was trained on; return its folder."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{task.name}-{secrets.token_hex(4)}"
    made = export_task(
        instance.store, project, task, "csv", instance.folder / "exports" / str(project["id"]) / name,
        formats=instance.plugins.exporters, shares=Shares(), options=Options(formula_safe=False),
    )  # fmt: skip
    return made.folder


def read_rows(folder: Path, task: Task) -> Rows:
    """Read the rows of an export. Raises :class:`SettingError` for one that is none, is torn, or of another task."""
    try:
        manifest = strictjson.loads((folder / MANIFEST).read_bytes())
    except (OSError, JsonError) as error:
        raise SettingError("There is no export in %(folder)s: %(reason)s", folder=folder, reason=error) from error
    if manifest.get("task") != task.name:
        raise SettingError(
            "The export in %(folder)s is of the task %(other)s, not of %(task)s",
            folder=folder,
            other=manifest.get("task"),
            task=task.name,
        )
    names = [name for name in manifest["files"] if name == RECORDS or name.endswith(".csv")]
    for name in names:
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != manifest["files"][name]["sha256"]:
            raise SettingError("%(file)s is not the file that its manifest describes; export again", file=folder / name)
    found: dict[str, list[tuple[str, Value]]] = {split: [] for split in SPLITS}
    for name in names:
        read_file = _of_jsonl if name == RECORDS else _of_csv
        for key, text, label, split in read_file(folder / name, manifest):
            found[split].append((text, _value(task, key, text, label)))
    _check_rows(found, folder)
    about = {name: manifest[name] for name in ("format", "generated_at", "task_version", "labeler")}
    return Rows(found, about | {"folder": folder.name, "files": {name: manifest["files"][name] for name in names}})


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


def _check_rows(found: Mapping[str, Sequence[Any]], folder: Path) -> None:
    for split in (TRAIN, VALIDATION):
        if not found[split]:
            raise SettingError(
                "The export in %(folder)s has no rows in %(split)s; approve more records, or export with other shares",
                folder=folder,
                split=split,
            )


# Training


@dataclass
class _Training:
    """Trains on the rows of one task. ``card`` says what is known before: names, labels, how much of a text is read."""

    schema: LabelSchema
    rows: Rows
    card: Card
    settings: Settings
    progress: Callable[[Progress], None]
    model: Any = field(init=False)
    tokenizer: Any = field(init=False)

    @property
    def one(self) -> bool:
        return self.schema.one_of_labels

    def best(self) -> _Fitted:
        """Return what was trained, with the test rows measured.

        Rare labels weigh more only if the validation rows say that it helps: with more macro F1 and no less agreement.
        """
        found = self._fitted(None)
        if (rare := self._rare()) is not None:
            other = self._fitted(rare)
            if _helps(other.measured, found.measured):
                found = replace(other, card=replace(other.card, trained={"weights": rare}))
        self.model.load_state_dict(found.state)
        tested = {TEST: self._measured(found.card, TEST)} if self.rows.splits[TEST] else {}
        return replace(found, card=replace(found.card, measured={**found.card.measured, **tested}))

    def _rare(self) -> list[float] | None:
        """Return what each label weighs if rare ones weigh more; None where none is rare, or labels come in sets."""
        if not self.one:
            return None
        held = self._member(TRAIN).sum(axis=0)
        known = held[held > 0]
        if known.max() < _UNEVEN * known.min():
            return None
        rarity = [(float(known.mean()) / max(float(count), 1.0)) ** 0.5 for count in held]
        return [round(one, 4) for one in rarity]

    def _fitted(self, rare: Sequence[float] | None) -> _Fitted:
        import torch

        settings, names = self.settings, self.card.labels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model, self.tokenizer = load_encoder(
                self.card.base, settings.device, num_labels=len(names), id2label=dict(enumerate(names)),
                label2id={name: n for n, name in enumerate(names)},
                problem_type="single_label_classification" if self.one else "multi_label_classification",
                ignore_mismatched_sizes=True,
            )  # fmt: skip
            self.card = replace(self.card, longest=_longest(self.model, self.tokenizer, settings.longest))
            state, epochs = self._epochs(rare)
        self.model.load_state_dict(state)
        card = self._calibrated()
        measured = self._measured(card, VALIDATION)
        rows = {split: len(self.rows.splits[split]) for split in SPLITS}
        labels = dict(zip(names, self._member(TRAIN).sum(axis=0).tolist(), strict=True))
        card = replace(card, measured={"rows": rows, "labels": labels, VALIDATION: measured})
        return _Fitted(card, state, measured, epochs)

    def _epochs(self, rare: Sequence[float] | None) -> tuple[Mapping[str, Any], int]:
        """Train until it helps no more; return the weights of the best epoch and its number."""
        import torch

        settings, wanted = self.settings, self._member(VALIDATION)
        each = -(-len(self.rows.splits[TRAIN]) // settings.batch)
        steps = each * settings.epochs
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=settings.rate, weight_decay=0.01)
        pace = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: _pace(at, steps))
        least, best, state = float("inf"), 0, dict[str, Any]()
        for epoch in range(1, settings.epochs + 1):
            last = 0.0
            for n, loss in enumerate(self._epoch(optimizer, rare), 1):
                pace.step()
                last = loss
                self.progress(Progress((epoch - 1) * each + n, steps, loss, weighted=rare is not None))
            held = pool.loss(self._outputs(VALIDATION), wanted, self.one) / len(wanted)
            self.progress(Progress(epoch * each, steps, last, held, rare is not None))
            if held < least - _GAIN:
                least, best = held, epoch
                state = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
            elif epoch - best >= settings.patience:
                break
        if not best:
            raise SettingError(
                "The training of %(name)s came to nothing: its loss is no number; lower the rate", name=self.card.name
            )
        return state, best

    def _epoch(self, optimizer: Any, rare: Sequence[float] | None) -> Iterator[float]:
        """Learn once from each row of train, in batches; yield the loss of each batch."""
        import torch

        texts, member, batch = self.rows.texts(TRAIN), self._member(TRAIN), self.settings.batch
        loss_of, order = self._loss(rare), torch.randperm(len(texts)).tolist()
        self.model.train()
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            fed = self.tokenizer(
                [texts[place] for place in part], truncation=True, max_length=self.card.longest, padding=True,
                return_tensors="pt",
            )  # fmt: skip
            wanted = torch.tensor(member[part], device=self.model.device)
            loss = loss_of(self.model(**fed.to(self.model.device)).logits, wanted)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            yield loss.item()

    def _loss(self, rare: Sequence[float] | None) -> Callable[[Any, Any], Any]:
        import torch

        if not self.one:
            return lambda outputs, wanted: torch.nn.functional.binary_cross_entropy_with_logits(outputs, wanted.float())
        weight = None if rare is None else torch.tensor(rare, device=self.model.device)
        return lambda outputs, wanted: torch.nn.functional.cross_entropy(outputs, wanted.int().argmax(dim=1), weight)

    def _outputs(self, split: str) -> Array:
        """Return the outputs for the texts of a split, float (rows, labels)."""
        self.model.eval()
        texts = self.rows.texts(split)
        found = in_batches(texts, _READ_AT_ONCE, lambda part: read(self.model, self.tokenizer, part, self.card))
        return np.stack([outputs for outputs, _ in found])

    def _member(self, split: str) -> Array:
        """Return which row has which label, bool (rows, labels)."""
        rows = [self.schema.strata(value) for value in self.rows.values(split)]
        return np.array([[name in row for name in self.card.labels] for row in rows], dtype=bool)

    def _calibrated(self) -> Card:
        """Return the card with what the validation rows say of temperature and, for sets, of how many to choose."""
        outputs, member = self._outputs(VALIDATION), self._member(VALIDATION)
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
        outputs, member = self._outputs(split), self._member(split)
        found = {name: one.value for name, one in self._answers(card, split, outputs).all(weights(len(member))).items()}
        for name, by in (("log_loss", card.temperature), ("log_loss_plain", 1.0)):
            found[name] = pool.loss(outputs / by, member, self.one) / len(member)
        return {name: round(value, 4) for name, value in found.items()}


def _pace(step: int, steps: int) -> float:
    """Return the share of the highest learning rate: rising for a tenth of the steps, then falling to 0."""
    rising = max(1, steps // 10)
    return min((step + 1) / rising, max(0.0, (steps - step) / max(1, steps - rising)))


def temperature(outputs: Array, member: Array, one: bool) -> float:
    """Return by what outputs (rows, labels) are divided for the least log loss of the labels that rows have."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda log: pool.loss(outputs / 10**log, member, one), bounds=(-1, 1), method="bounded")
    return round(float(10**found.x), 4)


def _helps(other: Mapping[str, float], plain: Mapping[str, float]) -> bool:
    return other["macro_f1"] > plain["macro_f1"] and other["agreement"] >= plain["agreement"]


def _longest(model: Any, tokenizer: Any, wanted: int) -> int:
    """Return how many tokens are read: no more than the model has places for."""
    known = (getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length)
    return min([wanted, *(int(n) for n in known if n)])


# What is kept


def _save(folder: Path, training: _Training, best: _Fitted, card: Card) -> None:
    """Write the model with its card last, under a hidden name, and give it its own name at once."""
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        # What a killed training left while it wrote.
        for left in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            training.model.save_pretrained(hidden)
            training.tokenizer.save_pretrained(hidden)
            write_private(hidden / CARD, strictjson.dumps(card.to_json(), indent=1, separators=(",", ": ")) + "\n")
            hidden.rename(folder)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
    except OSError as error:
        raise not_written(folder, error) from error
