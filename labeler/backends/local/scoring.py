"""Scores of a closed list of labels: the log-likelihood of every answer, instead of a generated one.

Nothing is generated, so an answer cannot leave the label schema, and every label has a score. One forward reads the
own part of several prompts and all their candidate answers:

- What all prompts of a call begin with is computed once (:mod:`labeler.backends.local.prefix`).
- The candidates of a prompt form a tree of tokens: ``{"sentiment": "`` stands in it once. A mask lets every token see
  its prompt and the tokens above it in the tree, so that all branches are read together (tree attention: Miao et al.
  2023, SpecInfer, arXiv:2305.09781).
- Prompts of one forward stand one behind the other and do not see each other, so there is no padding (packing:
  Krell et al. 2021, arXiv:2107.02027). Positions are counted as if each stood alone.
- Logits, with a vocabulary of up to 262,144 the largest part of a small model, are computed only where an answer's
  token is predicted.

The numbers are those of one plain forward a candidate, up to rounding. A model whose attention takes no such mask, or
that has no keys and values (state spaces), is found out by a small trial and read candidate by candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from labeler.backends.local.memory import BatchSize, in_batches
from labeler.backends.local.prefix import Prefix, PrefixCache, Weights, continued, shared_prefix
from labeler.backends.local.tree import Scored, Tree, tree_of
from labeler.backends.local.trials import TREES

CPU_TOKENS, DEVICE_TOKENS = 512, 4096
"""How many tokens of their own the prompts of one forward have, beside a longer one that stands alone: enough to keep
the processor busy, and few enough, as attention is paid for also among prompts that do not see each other. On a CPU
256 to 1,600 are as fast."""
LOGIT_BYTES = 512 * 2**20


def probabilities(scored: Scored) -> np.ndarray:
    """Return the probabilities (m,) of the candidates, given that the answer is one of them; they sum to 1.

    The softmax of sums, not of means. To divide by the length (Brown et al. 2020, arXiv:2005.14165, for endings that
    the prompt does not name) is wrong here: the prompt lists the labels, so that after the first tokens of a label the
    others are all but certain, and a mean would prefer the label with more of them. SmolLM2-135M without examples chose
    the right one of two labels of 2 and of 10 tokens for 62 of 100 reviews by these sums and for 44 by means (the
    other way round 66 and 56), and a right one of eight categories for 62 and 15 of 100 sentences; with six examples
    it was 60 and 90 (90 and 66). Labels of one length come in the same order by both.

    The tokens that all answers begin with cancel out. Those that all end with are left out: how likely a model is to
    go on ``"}`` rather than with a new line is surface form, which competes for probability and says nothing of the
    label (Holtzman et al. 2021, arXiv:2104.08315); after a set of one label it even says whether there is a second.
    Where one label begins with another (1 and 10) they do count, as the closing mark then tells them apart.
    """
    telling = scored.log_likelihoods - scored.tails
    weights = np.exp(telling - telling.max(initial=-np.inf))
    shares: np.ndarray = weights / weights.sum()
    return shares


@dataclass(frozen=True)
class _Item:
    prompt: Sequence[int]
    candidates: tuple[tuple[int, ...], ...]

    @cached_property
    def tree(self) -> Tree:
        return tree_of(self.candidates)


def score(
    loaded: Weights,
    prompts: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[Sequence[int]]],
    max_batch: int | BatchSize,
    cache: PrefixCache | None = None,
) -> list[Scored]:
    """Return the scores of ``candidates[i]``, token ids of whole answers, after ``prompts[i]``; in order.

    ``max_batch`` bounds how many prompts are read at once. Raises ``ValueError`` for a prompt or a candidate without
    tokens, and where a prompt with its longest candidate does not fit into the context.
    """
    items = [_Item(prompt, tuple(map(tuple, answers))) for prompt, answers in zip(prompts, candidates, strict=True)]
    for n, item in enumerate(items):
        _check(n, item, loaded.context)
    scored = [n for n, item in enumerate(items) if item.candidates]
    results = [Scored(np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0)) for _ in items]
    # Prompts of like length are read together, the longest first: if memory is short, that shows at once.
    scored.sort(key=lambda n: -len(items[n].prompt))
    for n, found in zip(scored, _scores(loaded, [items[n] for n in scored], max_batch, cache), strict=True):
        results[n] = found
    return results


def _check(n: int, item: _Item, context: int) -> None:
    if not item.prompt:
        raise ValueError(f"Prompt {n} has no tokens: nothing stands before its answer")
    if not all(item.candidates):
        raise ValueError(f"Candidate {item.candidates.index(())} of prompt {n} has no tokens")
    needed = len(item.prompt) + max(map(len, item.candidates), default=0)
    if needed > context:
        raise ValueError(f"Prompt {n} and its longest answer have {needed} tokens; the model reads {context}")


def _scores(
    loaded: Weights, items: Sequence[_Item], max_batch: int | BatchSize, cache: PrefixCache | None
) -> list[Scored]:
    if not items:
        return []
    if not _reads_trees(loaded, items[0]):
        return in_batches(items, max_batch, lambda part: [_one_by_one(loaded, item) for item in part])
    prefix = shared_prefix(loaded, [item.prompt for item in items], cache)
    return in_batches(
        items, max_batch, lambda part: [found for pack in _packs(loaded, prefix, part) for found in
                                        _together(loaded, prefix, pack)]
    )  # fmt: skip


def _packs(loaded: Weights, prefix: Prefix, items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """Divide the items into those of one forward each, by tokens and by logits."""
    most_tokens = CPU_TOKENS if loaded.device.type == "cpu" else DEVICE_TOKENS
    most_rows = LOGIT_BYTES // (4 * loaded.model.config.get_text_config().vocab_size)
    pack: list[_Item] = []
    tokens = rows = 0
    for item in items:
        own = len(item.prompt) - len(prefix) + item.tree.inner
        if pack and (tokens + own > most_tokens or rows + item.tree.inner + 1 > most_rows):
            yield pack
            pack, tokens, rows = [], 0, 0
        pack.append(item)
        tokens, rows = tokens + own, rows + item.tree.inner + 1
    if pack:
        yield pack


def _together(loaded: Weights, prefix: Prefix, items: Sequence[_Item]) -> list[Scored]:
    """Read the own parts of several prompts with their trees in one forward."""
    import torch

    from labeler.backends.local import attention

    ids: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    ends: list[int] = []  # where the prompt of an item ends
    start = 0
    for item in items:
        tree, length = item.tree, len(item.prompt)
        ids += [np.asarray(item.prompt[len(prefix) :], dtype=np.int64), tree.tokens[: tree.inner]]
        positions += [np.arange(len(prefix), length), length + tree.depths[: tree.inner]]
        ends.append(start + length - len(prefix))
        start = ends[-1] + tree.inner
    where = np.concatenate(positions)
    kept = np.concatenate([np.arange(end - 1, end + item.tree.inner) for end, item in zip(ends, items, strict=True)])
    with torch.inference_mode():
        logits = loaded.model(
            input_ids=torch.from_numpy(np.concatenate(ids)[None]).to(loaded.device),
            position_ids=torch.from_numpy(where[None]).to(loaded.device),
            attention_mask=attention.masks(loaded.model, _visible(prefix, items, ends), where, len(prefix)),
            use_cache=True,
            logits_to_keep=torch.from_numpy(kept).to(loaded.device),
            **attention.given(loaded.model, attention.cache_of(prefix.layers)),
        ).logits[0]
        rows, tokens, first = [], [], 0
        for item in items:
            rows.append(first + item.tree.rows)
            tokens.append(item.tree.tokens)
            first += item.tree.inner + 1
        found = _log_likelihoods(logits, np.concatenate(rows), np.concatenate(tokens))
    parts = np.split(found, np.cumsum([len(part) for part in tokens])[:-1])
    return [item.tree.scored(part) for item, part in zip(items, parts, strict=True)]


def _visible(prefix: Prefix, items: Sequence[_Item], ends: Sequence[int]) -> np.ndarray:
    """Return which of all tokens each own token sees, bool (own, prefix + own)."""
    own = ends[-1] + items[-1].tree.inner
    seen = np.zeros((own, len(prefix) + own), dtype=bool)
    seen[:, : len(prefix)] = True
    among = seen[:, len(prefix) :]
    start = 0
    for item, end in zip(items, ends, strict=True):
        stop = end + item.tree.inner
        among[start:end, start:end] = np.tri(end - start, dtype=bool)
        among[end:stop, start:end] = True
        among[end:stop, end:stop] = item.tree.above
        start = stop
    return seen


def _log_likelihoods(logits: Any, rows: np.ndarray, tokens: np.ndarray, step: int = 128) -> np.ndarray:
    """Return the log-likelihoods (n,) float64 of ``tokens`` at ``rows`` of the logits (rows, vocabulary)."""
    import torch

    # In steps: a copy in float32 of all logits would be the largest tensor of all.
    totals = torch.cat([torch.logsumexp(part.float(), dim=-1) for part in logits.split(step)])
    at, of = torch.from_numpy(rows).to(logits.device), torch.from_numpy(tokens).to(logits.device)
    found: np.ndarray = (logits[at, of].float() - totals[at]).double().cpu().numpy()
    return found


def _one_by_one(loaded: Weights, item: _Item, rows: int = 8) -> Scored:
    """Read prompt and candidate together, ``rows`` of them at once, as any causal model can."""
    import torch

    sums, tails = [], []
    for start in range(0, len(item.candidates), rows):
        part = item.candidates[start : start + rows]
        longest = max(map(len, part))
        ids = torch.tensor([[*item.prompt, *c, *[loaded.pad_id] * (longest - len(c))] for c in part])
        real = torch.tensor([[1] * (len(item.prompt) + len(c)) + [0] * (longest - len(c)) for c in part])
        with torch.inference_mode():
            logits = loaded.model(
                input_ids=ids.to(loaded.device), attention_mask=real.to(loaded.device), use_cache=False,
                logits_to_keep=longest + 1,
            ).logits  # fmt: skip
            for candidate, row in zip(part, logits, strict=True):
                found = _log_likelihoods(row, np.arange(len(candidate)), np.array(candidate))
                sums.append(found.sum())
                tails.append(found[len(found) - item.tree.tail :].sum())
    return Scored(np.array(sums), np.array(list(map(len, item.candidates))), np.array(tails))


def _reads_trees(loaded: Weights, item: _Item) -> bool:
    """Whether the model gives the same scores both ways; tried once for each model, on a few tokens."""
    return TREES.works(loaded.model, lambda: _tried(loaded, item))


def _tried(loaded: Weights, item: _Item) -> bool:
    import torch

    from labeler.backends.local import attention

    attention.check_plain(loaded.model)
    ids = [*item.prompt] * 16
    few = tuple(candidate[:6] for candidate in item.candidates[:3])
    items = [_Item(ids[:16], few), _Item(ids[:12], few)]
    trees = _together(loaded, continued(loaded, Prefix(), tuple(ids[:8])), items)
    allowed = 1e-3 if loaded.model.dtype in (torch.float32, torch.float64) else 0.15
    return all(
        (abs(tree.log_likelihoods - _one_by_one(loaded, item).log_likelihoods) <= allowed * tree.lengths).all()
        for tree, item in zip(trees, items, strict=True)
    )
