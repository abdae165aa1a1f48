"""A fit of the ensemble as it is stored: every process answers by the newest, whichever made it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler import strictjson
from labeler.backends.ensemble.learn import NGRAMS, WORDS, Learned, Member

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

_FORMAT = 1
_PLAIN = ("rule", "ratio", "compared", "agreement", "constant", "error")
# Weights of thousands of n-grams are small numbers, of which three digits do.
_SHORT = (NGRAMS, WORDS)


@dataclass(frozen=True, slots=True)
class Fit:
    """What was learned, of how many examples, up to which decision, under which labels and version.

    ``columns`` are those of the metadata that were there to learn from, ``numbers`` what they tell: see
    :mod:`labeler.backends.columns`. ``seeded`` names the features that the descriptions of the labels are compared by.
    """

    id: str
    labels: tuple[str, ...]
    learned: Learned
    examples: int
    seq: int
    task_version: str
    columns: tuple[str, ...] = ()
    numbers: tuple[Mapping[str, Any], ...] = ()
    seeded: str = ""

    @property
    def members(self) -> dict[str, Member]:
        return {member.name: member for member in self.learned.members}


def packed(fit: Fit) -> tuple[str, dict[str, Any], bytes]:
    """Return id, head and numbers to store. The same examples and waiting records give the same id in each process."""
    learned = fit.learned
    head = {
        "format": _FORMAT, "labels": list(fit.labels), "examples": fit.examples, "task_version": fit.task_version,
        "columns": list(fit.columns), "numbers": list(fit.numbers), "seeded": fit.seeded,
        "members": [[m.name, m.weights.shape[1], m.share] for m in learned.members],
        "buckets": len(learned.vocabulary), "sizes": len(learned.size_odds),
        **{name: getattr(learned, name) for name in _PLAIN},
    }  # fmt: skip
    parts = [learned.vocabulary.astype("<u2"), learned.idf.astype("<f4"), learned.size_odds.astype("<f4")]
    for member in learned.members:
        parts += [member.offset.astype("<f4"), member.weights.astype("<f2" if member.name in _SHORT else "<f4")]
    numbers = b"".join(part.tobytes() for part in parts)
    told = [fit.labels, fit.columns, fit.numbers, head["members"], learned.rule, learned.ratio]
    return hashlib.sha256(strictjson.dumps(told).encode() + numbers).hexdigest()[:16], head, numbers


def unpacked(stored: Mapping[str, Any]) -> Fit | None:
    """Read a stored fit; None for one of another program, which is made again."""
    head = stored["head"]
    if head.get("format") != _FORMAT:
        return None
    labels, place = tuple(head["labels"]), 0

    def take(kind: str, *shape: int) -> Array:
        nonlocal place
        found = np.frombuffer(stored["numbers"], kind, math.prod(shape), place)
        place += found.nbytes
        return found.reshape(shape)

    vocabulary, idf = take("<u2", head["buckets"]).astype(np.int64), take("<f4", head["buckets"])
    sizes, members = take("<f4", head["sizes"]), []
    for name, width, share in head["members"]:
        offset, weights = take("<f4", len(labels)), take("<f2" if name in _SHORT else "<f4", len(labels), width)
        members.append(Member(name, weights.astype(np.float32), offset, share))
    learned = Learned(members, vocabulary, idf, sizes, **{name: head[name] for name in _PLAIN})
    return Fit(
        stored["id"], labels, learned, head["examples"], stored["seq"], head["task_version"], tuple(head["columns"]),
        tuple(head["numbers"]), head["seeded"],
    )  # fmt: skip
