"""Keys and values of the heads that prompts share, kept across calls.

The system message, the guidelines and fixed examples are the same for every record. A causal model computes the same
keys and values for them whatever follows, so they are computed once and read again (prompt caching: Gim et al. 2023,
arXiv:2311.04934). What two prompts share is found by their token ids: no one has to say where the shared head ends.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from labeler.backends.local.memory import in_batches

if TYPE_CHECKING:
    from labeler.backends.local.attention import Layers

MAX_BYTES = 512 * 2**20
MAX_ENTRIES = 4
_STEP = 2048
_WORTHWHILE = 32


class Weights(Protocol):
    """What is needed of a loaded model."""

    model: Any
    device: Any
    pad_id: int
    context: int


@dataclass(frozen=True, slots=True)
class Prefix:
    """Token ids and, for each layer, their keys and values of shape (1, heads, tokens, dim)."""

    ids: tuple[int, ...] = ()
    layers: Layers = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Bytes of all keys and values."""
        return sum(part.numel() * part.element_size() for layer in self.layers for part in layer)

    def head(self, length: int) -> Prefix:
        """Return the first ``length`` tokens, as views: what comes later never changes what stands before."""
        if length >= len(self):
            return self
        if length == 0:
            return Prefix()
        layers = tuple((keys[:, :, :length], values[:, :, :length]) for keys, values in self.layers)
        return Prefix(self.ids[:length], layers)


class PrefixCache:
    """The prefixes used last, of one model. At most ``entries`` of together ``max_bytes``; the oldest goes first.

    Not safe for several threads at once: whoever holds the model holds it too.
    """

    def __init__(self, entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self.entries, self.max_bytes = entries, max_bytes
        self._kept: list[Prefix] = []
        self._model: weakref.ref[Any] | None = None

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(prefix.size for prefix in self._kept)

    def longest(self, model: object, ids: Sequence[int]) -> Prefix:
        """Return the longest head of ``ids`` that is known for this model; it may be empty."""
        self._of(model)
        shared = [common_length([prefix.ids, ids]) for prefix in self._kept]
        best = max(range(len(shared)), key=shared.__getitem__, default=None)
        if best is None or shared[best] == 0:
            return Prefix()
        self._kept.append(self._kept.pop(best))
        return self._kept[-1].head(shared[best])

    def add(self, model: object, prefix: Prefix) -> None:
        """Keep a prefix, in place of those that it continues. One that is too large for the bounds is not kept."""
        self._of(model)
        if prefix.size > self.max_bytes or not prefix.ids:
            return
        self._kept = [kept for kept in self._kept if kept.ids != prefix.ids[: len(kept)]]
        self._kept.append(prefix)
        while len(self._kept) > self.entries or self.size > self.max_bytes:
            del self._kept[0]

    def clear(self) -> None:
        """Forget everything, for example to give memory back."""
        self._kept.clear()

    def _of(self, model: object) -> None:
        """Forget what another model computed. Weak: the cache does not keep the weights alive."""
        if self._model is None or self._model() is not model:
            self.clear()
            self._model = weakref.ref(model)


def common_length(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all sequences begin with. All of them share what the first and the last in order do."""
    if not sequences:
        return 0
    low, high = min(sequences, key=tuple), max(sequences, key=tuple)
    return next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


def shared_prefix(loaded: Weights, prompts: Sequence[Sequence[int]], cache: PrefixCache | None) -> Prefix:
    """Return keys and values of what all prompts begin with, from the cache as far as it has them.

    The last token of a prompt is left to it: it predicts the first token of the answer. The head of a single prompt is
    all of it; it is computed apart only for the cache's sake, when the cache knows nothing like it.
    """
    common = min(common_length(prompts), min(map(len, prompts)) - 1)
    head = tuple(prompts[0][:common])
    known = cache.longest(loaded.model, head) if cache is not None else Prefix()
    alone = len(prompts) == 1 and (cache is None or len(known) >= _WORTHWHILE)
    if common - len(known) < _WORTHWHILE or alone:
        return known
    [prefix] = in_batches([head], 1, lambda heads: [continued(loaded, known, heads[0])])
    if cache is not None:
        cache.add(loaded.model, prefix)
    return prefix


def continued(loaded: Weights, known: Prefix, head: tuple[int, ...]) -> Prefix:
    """Return the prefix of ``head``, which begins with what is known."""
    import torch

    from labeler.backends.local import attention

    past = attention.cache_of(known.layers)
    takes_past = attention.given(loaded.model, past)
    with torch.inference_mode():
        for start in range(len(known), len(head), _STEP):
            part = torch.tensor([head[start : start + _STEP]], device=loaded.device)
            loaded.model(input_ids=part, **takes_past, use_cache=True, logits_to_keep=1)
    return Prefix(head, attention.layers_of(past))
