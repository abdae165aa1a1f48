"""The card of a finished training: ``labeler.json`` for the backend, ``README.md`` for people."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import labeler
from labeler.backends.local.cards import CARD
from labeler.export.filters import iso
from labeler.export.splits import TEST, VALIDATION
from labeler.files import write_private
from labeler.training.folders import Training
from labeler.training.methods import ALL_WEIGHTS, CLASSIFIER, METHODS
from labeler.training.sets import TrainingSet

_LIBRARIES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is only known at the end: how many parameters were trained, and on which device."""

    trained: int
    device: str


def write_card(training: Training, data: TrainingSet, outcome: Outcome, more: Mapping[str, Any] | None = None) -> None:
    """Write both cards, the one that says that the training is whole last; ``more`` is what only its method has."""
    plan, lines = training.plan, training.log()
    card = {
        "labeler": labeler.__version__,
        "name": training.name,
        **{name: plan[name] for name in ("base", "method", "objective")},
        # A classifier reads the text alone.
        "asked": {} if plan["method"] == CLASSIFIER else dict(data.asked),
        "export": {
            **plan["export"],
            **{name: data.manifest.get(name) for name in ("project", "task", "format", "task_version")},
            "rows": data.counts,
        },
        "numbers": plan["numbers"],
        **{name: plan[name] for name in ("max_length", "left_out", "validation")},
        "parameters": {"all": plan["parameters"], "trained": outcome.trained},
        "losses": {
            "train": _last(lines, "loss"),
            "validation": _last(lines, "eval_loss"),
            "best_validation": min((line["eval_loss"] for line in lines if "eval_loss" in line), default=None),
        },
        "seconds": lines[-1]["seconds"] if lines else None,
        "device": outcome.device,
        "versions": _versions(),
        "finished": iso(datetime.now(UTC)),
        **(more or {}),
    }
    write_private(training.folder / "README.md", _readme(card))
    write_private(training.folder / CARD, json.dumps(card, ensure_ascii=False, indent=1) + "\n")


def _last(lines: list[dict[str, Any]], name: str) -> float | None:
    return next((float(line[name]) for line in reversed(lines) if name in line), None)


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _readme(card: dict[str, Any]) -> str:
    """Return a card as model hubs read them: a head in YAML, then what a person wants to know."""
    base, export, numbers = card["base"], card["export"], card["numbers"]
    # A path of this machine says nothing to others.
    shown = Path(base).name if os.sep in base and Path(base).exists() else base
    head = [
        "---",
        *([] if card["method"] in ALL_WEIGHTS else ["library_name: peft"]),
        *([f"base_model: {base}"] if shown == base else []),
        f"tags: [labeler, {card['objective']}]",
        "---",
    ]
    rows = ", ".join(f"{split} {n:,}" for split, n in export["rows"].items())
    losses = ", ".join(f"{name} {value:.4f}" for name, value in card["losses"].items() if value is not None)
    used = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
    facts = {
        "base model": shown,
        "method": f"{card['method']} ({METHODS[card['method']].source})",
        "objective": card["objective"],
        "data": f"{export['project']}, task {export['task']}, format {export['format']}; rows: {rows}",
        "manifest (sha256)": export["sha256"],
        **_read_of(card),
        "numbers": used,
        "parameters": f"{card['parameters']['trained']:,} trained of {card['parameters']['all']:,}",
        "last losses": losses,
        "loss in validation on": f"{card['validation']['rows']:,} of {card['validation']['of']:,} rows",
        "time": f"{card['seconds'] or 0:,.0f} s on {card['device']}",
        "libraries": ", ".join(f"{name} {version}" for name, version in card["versions"].items()),
    }
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())]
    title, said = f"# {card['name']}", "Trained by Labeler on labels that people approved."
    return "\n".join([*head, "", title, "", said, "", *table, "", *_how_to_ask(card)])


def _how_to_ask(card: dict[str, Any]) -> list[str]:
    if card["method"] == CLASSIFIER:
        return []
    asked = json.dumps(card["asked"], ensure_ascii=False, indent=1)
    return ["It must be asked as it was trained:", "", "```json", asked, "```", ""]


def _read_of(card: dict[str, Any]) -> dict[str, Any]:
    """Return how much of its rows a model reads, and of a classifier what came of it on rows that it never saw."""
    if card["method"] != CLASSIFIER:
        left = sum(map(len, card["left_out"].values()))
        return {"longest row": f"{card['max_length']:,} tokens", "rows left out": left}
    measured = card[CLASSIFIER]["measured"]
    splits = {
        split: ", ".join(f"{name} {value:g}" for name, value in measured[split].items())
        for split in (VALIDATION, TEST)
        if split in measured
    }
    return {"read of a text": f"{card['max_length']:,} tokens", **splits}
