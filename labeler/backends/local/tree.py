"""Candidate answers as a tree of tokens, so that what they share is read once, and the scores of its branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from labeler.backends.local.prefix import common_length


@dataclass(frozen=True)
class Scored:
    """The candidates of one prompt, m of them, in their order.

    ``log_likelihoods`` (m,) float64: sums over all tokens of an answer, natural logarithm; ``lengths`` (m,): how many
    tokens that is. ``tails`` (m,): the part of ``log_likelihoods`` that belongs to the tokens with which all answers
    end and which tell no label from another.
    """

    log_likelihoods: np.ndarray
    lengths: np.ndarray
    tails: np.ndarray


@dataclass(frozen=True)
class Tree:
    """Candidate answers as a tree of n tokens. Nodes that have nodes below them are *inner* and come first.

    ``tokens``, ``depths`` (n,): 0 is the first token of an answer. ``rows`` (n,): where a token is predicted, 0 at the
    end of the prompt, 1 + i at inner node i. ``above`` (inner, inner) bool: which inner nodes lead to one, itself
    included. ``paths``: the nodes of each candidate; ``tail``: how many of its last ones tell it from no other.
    """

    tokens: np.ndarray
    depths: np.ndarray
    rows: np.ndarray
    above: np.ndarray
    paths: tuple[np.ndarray, ...]
    tail: int

    @property
    def inner(self) -> int:
        return len(self.above)

    def scored(self, log_likelihoods: np.ndarray) -> Scored:
        """Sum the log-likelihoods (n,) of the nodes by candidate."""
        sums = np.array([log_likelihoods[path].sum() for path in self.paths])
        tails = np.array([log_likelihoods[path[len(path) - self.tail :]].sum() for path in self.paths])
        return Scored(sums, np.array([len(path) for path in self.paths]), tails)


@lru_cache(maxsize=32)
def tree_of(candidates: tuple[tuple[int, ...], ...]) -> Tree:
    """Build the tree; the candidates of a task are the same for every record."""
    index: dict[tuple[int, int], int] = {}
    paths = []
    for candidate in candidates:
        path = [-1]
        for token in candidate:
            path.append(index.setdefault((path[-1], token), len(index)))
        paths.append(np.array(path[1:], dtype=np.int64))
    parents = np.array([parent for parent, _ in index], dtype=np.int64)
    tokens = np.array([token for _, token in index], dtype=np.int64)
    # A node is numbered after its parent, and sorting keeps that.
    inner = np.unique(parents[parents >= 0])
    order = np.concatenate([inner, np.setdiff1d(np.arange(len(parents)), inner)]).astype(np.int64)
    place = np.empty(len(parents) + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(len(parents)), -1
    tokens, parents, paths = tokens[order], place[parents[order]], [place[path] for path in paths]
    depths = np.zeros(len(parents), dtype=np.int64)
    above = np.eye(len(inner), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            depths[node] = depths[parent] + 1
            if node < len(inner):
                above[node] |= above[parent]
    return Tree(tokens, depths, parents + 1, above, tuple(paths), _tail(candidates))


def _tail(candidates: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all candidates end with that tell none from another; 0 if one label begins another."""
    head = common_length(candidates)
    labels = [tuple(candidate[head:]) for candidate in candidates]
    tail = common_length([label[::-1] for label in labels])
    # In order, a label stands right before one that begins with it.
    bare = sorted(label[: len(label) - tail] for label in labels)
    nested = any(b[: len(a)] == a for a, b in pairwise(bare))
    return 0 if nested or len(candidates) == 1 else tail
