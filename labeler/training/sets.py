"""A training set as an export wrote it: checked against its manifest, and read as rows of one kind.

A row is what TRL calls conversational: ``{"prompt", "completion"}``, with ``label`` for KTO, or ``{"prompt", "chosen",
"rejected"}``; each of them is a list of messages, and the prompt ends with a user's. The columns say which it is, so
that every format with such columns can be trained from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from labeler import strictjson
from labeler.backends.local.cards import CLASSIFY, REWARD, UNKNOWN
from labeler.errors import InputError, JsonError
from labeler.export.files import MANIFEST, RECORDS
from labeler.export.splits import SPLITS, TRAIN, VALIDATION
from labeler.training.methods import DPO, KTO, ORPO, SFT

Row = dict[str, Any]
READ = ("trl", "openai", "dpo", "kto", "reward")
"""The formats that are named where another cannot be read."""
READ_BY_CLASSIFIERS = (*READ, "csv")
_TURNS = ("system", "user", "assistant")


@dataclass(frozen=True)
class TrainingSet:
    """An export that can be trained from. ``objective`` is what its rows are for, ``sha256`` that of its manifest."""

    folder: Path
    manifest: Mapping[str, Any]
    sha256: str
    objective: str

    @cached_property
    def asked(self) -> Mapping[str, Any]:
        """How a model that learned from it must be asked."""
        return dict(self.manifest.get("asked") or UNKNOWN)

    @property
    def files(self) -> dict[str, Path]:
        """The files with rows, by split."""
        return {split: self.folder / name for name in self.manifest["files"] if (split := _split(name))}

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each split has."""
        if self.objective == CLASSIFY:
            return {split: n for split, n in self.manifest.get("counts", {}).items() if split in SPLITS}
        return {_split(name): file["rows"] for name, file in self.manifest["files"].items() if _split(name)}

    def rows(self, split: str) -> list[Row]:
        """Return the rows of a split, none for one that is not there. Raises :class:`InputError` for a bad row."""
        path = self.files.get(split)
        return [] if path is None else [_read(raw, path, n) for n, raw in _lines(path)]

    @property
    def labelled(self) -> tuple[Path, ...]:
        """The files that hold texts with their labels."""
        return tuple(self.folder / name for name in self.manifest["files"] if name == RECORDS or name.endswith(".csv"))

    def objectives(self) -> tuple[str, ...]:
        """Return what these rows can be used for."""
        return (DPO, ORPO, REWARD) if self.objective == DPO else (self.objective,)


def read_set(folder: Path, check: bool = True, objective: str | None = None) -> TrainingSet:
    """Return the export in a folder once every file is what its manifest says; without ``check`` no file is read whole.

    For the ``objective`` classify texts and labels are read of it, else rows of messages. Raises :class:`InputError`
    for a folder without an export, a file that was changed, rows that nothing can be trained from, and a set without
    rows to train on.
    """
    folder = folder.expanduser()
    try:
        raw = (folder / MANIFEST).read_bytes()
        manifest = strictjson.loads(raw)
        files: Mapping[str, Any] = manifest["files"]
    except (OSError, JsonError, KeyError, TypeError) as error:
        raise InputError(
            "The folder %(folder)s holds no export: its %(file)s cannot be read (%(reason)s)",
            folder=folder,
            file=MANIFEST,
            reason=error,
        ) from error
    for name, entry in files.items() if check else ():
        _check(folder / name, entry["sha256"])
    found = TrainingSet(folder, manifest, hashlib.sha256(raw).hexdigest(), CLASSIFY if objective == CLASSIFY else SFT)
    if objective == CLASSIFY:
        kind = CLASSIFY if found.labelled else None
    else:
        first = next(iter(found.files.values()), None)
        kind = None if first is None else _kind(first)
    if kind is None:
        raise InputError(
            "The export %(folder)s is in the format %(format)s, which cannot be trained from; export it as one of:"
            " %(names)s",
            folder=folder,
            format=manifest.get("format"),
            names=", ".join(READ_BY_CLASSIFIERS if objective == CLASSIFY else READ),
        )
    if not found.counts.get(TRAIN):
        raise InputError(
            "The export %(folder)s has no rows to train on; export it with a share for train above 0", folder=folder
        )
    if objective == CLASSIFY and not found.counts.get(VALIDATION):
        # They say when to end, and how sure its answers are.
        raise InputError(
            "The export %(folder)s has no rows in validation, and a classifier needs some; approve more records, or"
            " export with other shares",
            folder=folder,
        )
    made_for = REWARD if kind != CLASSIFY and manifest.get("format") == REWARD else kind
    return TrainingSet(folder, manifest, found.sha256, made_for)


def read_planned(plan: Mapping[str, Any]) -> TrainingSet:
    """Return the set of a plan. Raises :class:`InputError` as :func:`read_set`, and for one that was written again."""
    found = read_set(Path(plan["export"]["folder"]), objective=plan["objective"])
    if found.sha256 != plan["export"]["sha256"]:
        raise InputError(
            "The export in %(folder)s was written again since this training was planned; begin another one",
            folder=found.folder,
        )
    return found


def _check(path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError("%(file)s of the export cannot be read: %(reason)s", file=path, reason=error) from error
    if found != sha256:
        raise InputError("%(file)s is not what the export wrote: its sha256 is another; export it again", file=path)


def _split(name: str) -> str:
    """Return the split whose rows a file of an export holds; empty for a file beside them, and for a table."""
    stem, _, suffix = name.partition(".")
    return stem if suffix == "jsonl" and stem in ("train", "validation", "test") else ""


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as stream:
        for n, line in enumerate(stream, 1):
            try:
                yield n, strictjson.loads(line)
            except JsonError as error:
                raise _bad(path, n, error) from error


def _bad(path: Path, n: int, reason: object) -> InputError:
    return InputError("Line %(n)s of %(file)s is no row to train on: %(reason)s", n=n, file=path, reason=reason)


def _kind(path: Path) -> str | None:
    """Return what rows are for, by the columns of the first."""
    row = next(_lines(path), (0, None))[1]
    names = set(row) if isinstance(row, dict) else set()
    kinds: tuple[tuple[set[str], str], ...] = (
        ({"prompt", "completion", "label"}, KTO),
        ({"prompt", "completion"}, SFT),
        ({"chosen", "rejected"}, DPO),
        ({"messages"}, SFT),
    )
    return next((kind for needed, kind in kinds if needed <= names), None)


def _read(raw: Any, path: Path, n: int) -> Row:
    """Return one row in the form of this module. Raises :class:`InputError` that names the line."""
    try:
        if "chosen" in raw:
            prompt = raw.get("prompt")
            sides = {side: _messages(raw[side]) for side in ("chosen", "rejected")}
            if prompt is None:
                # Two whole conversations: they differ in their answers alone.
                prompt = sides["chosen"][:-1]
                if prompt != sides["rejected"][:-1]:
                    raise _bad(path, n, "chosen and rejected answer different prompts")
                sides = {side: messages[-1:] for side, messages in sides.items()}
            return {"prompt": _messages(prompt), **sides}
        if "messages" in raw:
            whole = _messages(raw["messages"])
            if len(whole) < 2 or whole[-1]["role"] != "assistant":
                raise _bad(path, n, "it does not end with an answer")
            return {"prompt": whole[:-1], "completion": whole[-1:]}
        row = {"prompt": _messages(raw["prompt"]), "completion": _messages(raw["completion"])}
        return row | ({"label": bool(raw["label"])} if "label" in raw else {})
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise _bad(path, n, f"{type(error).__name__} {error}") from error


def _messages(found: Any) -> list[dict[str, str]]:
    messages = [{"role": str(one["role"]), "content": str(one["content"])} for one in found]
    strange = [one["role"] for one in messages if one["role"] not in _TURNS]
    if strange or not messages:
        raise KeyError(strange[0] if strange else "no messages")
    return messages


def answered(row: Row) -> str:
    """Return the answer that a row teaches."""
    return str((row.get("completion") or row["chosen"])[-1]["content"])
