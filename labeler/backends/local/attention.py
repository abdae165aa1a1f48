"""The inner ways of transformers that the backend leans on: the cache a forward fills, and the mask of its attention.

None of them is promised to stay: the layers of a cache are filled by hand, the keyword by which a forward takes it has
changed its name, and how a mask must look depends on which attention was chosen. So all of that stands here, and is
tried before a model is trusted with it (:mod:`labeler.backends.local.trials`): where it is gone, the model answers by
what transformers documents, slower. Import this module only where a trial would notice that it cannot be imported.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from labeler.backends.local.trials import Unsuited
from labeler.sentence import Sentence

Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""For each layer its keys and values, of shape (rows, heads, tokens, dim)."""

_KINDS = {"full_attention", "sliding_attention"}


class RoomyLayer(DynamicLayer):
    """Keys and values with room for tokens to come: to append by copying would move all of them for every token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, tokens: int) -> None:
        """Take over tensors of shape (rows, heads, tokens and room, dim) whose first ``tokens`` are filled."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._whole = [keys, values]
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._see(tokens)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values (rows, heads, new, dim); return all there are."""
        start, stop = self._tokens, self._tokens + key_states.shape[-2]
        if stop > self._whole[0].shape[-2]:
            more = stop + stop // 4 - self._whole[0].shape[-2]
            self._whole = [torch.nn.functional.pad(part, (0, 0, 0, more)) for part in self._whole]
        for part, states in zip(self._whole, (key_states, value_states), strict=True):
            part[:, :, start:stop] = states
        return self._see(stop)

    def _see(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        self._tokens = tokens
        keys, values = (part[:, :, :tokens] for part in self._whole)
        self.keys, self.values = keys, values
        return keys, values


def cache_of(layers: Layers) -> Any:
    """Return a cache to continue from. It reads the tensors and never changes them: what follows is appended to a copy.

    Every layer keeps all its tokens, also one with a sliding window: masks say what it sees, and a prefix can be cut.
    Filling the layers by hand saves a copy of the prefix for each forward.
    """
    cache = DynamicCache()
    for keys, values in layers:
        layer: Any = DynamicLayer()  # type: ignore[no-untyped-call]
        layer.keys, layer.values = keys, values
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        cache.layers.append(layer)
    return cache


def roomy_cache_of(layers: Layers, tokens: int) -> Any:
    """Return a cache that takes over the tensors, whose first ``tokens`` are filled, and writes into the rest."""
    cache = DynamicCache()
    cache.layers.extend(RoomyLayer(keys, values, tokens) for keys, values in layers)
    return cache


def layers_of(cache: Any) -> Layers:
    """Return what a forward has left in a cache."""
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def given(model: Any, cache: Any) -> dict[str, Any]:
    """Return the argument by which the model's forward, and ``generate``, take a cache. Raises :class:`Unsuited`.

    transformers 5.24 renamed it, and warns of the old name.
    """
    # Of its class: whoever wraps the forward of one model, as accelerate does, seldom repeats what it takes.
    takes = inspect.signature(type(model).forward).parameters
    for name in ("cache", "past_key_values"):
        if name in takes:
            return {name: cache}
    raise Unsuited(Sentence("its forward takes no cache"))


def check_plain(model: Any) -> None:
    """Raise :class:`Unsuited` for a model that has layers which do not look back on all tokens, or a window of them."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    if not _KINDS.issuperset(kinds):
        raise Unsuited(Sentence("it has layers of the kind %(names)s", names=", ".join(sorted(set(kinds) - _KINDS))))


def masks(model: Any, seen: np.ndarray, positions: np.ndarray, prefix: int) -> Any:
    """Return the mask that the model's attention takes; one for each kind of its layers, if it has several.

    ``seen``, bool (own, prefix + own), says which of all tokens each own token sees; ``positions`` (own,) where they
    stand. A layer with a sliding window sees only the tokens whose position is less than a window away.
    """
    config = model.config.get_text_config()
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if window is None or (kinds and "sliding_attention" not in kinds):
        return _mask(model, seen)
    distance = positions[:, None] - np.concatenate([np.arange(prefix), positions])[None]
    near = _mask(model, seen & (distance < window))
    return {"full_attention": _mask(model, seen), "sliding_attention": near} if kinds else near


def _mask(model: Any, seen: np.ndarray) -> torch.Tensor:
    chosen = model.config._attn_implementation
    if chosen not in ("sdpa", "eager"):
        raise Unsuited(Sentence("its attention %(name)s takes no mask of ours", name=chosen))
    mask = torch.from_numpy(seen)[None, None].to(model.device)
    if chosen == "sdpa":
        return mask
    # Attention written out adds the mask to the scores.
    added = torch.zeros(mask.shape, dtype=model.dtype, device=model.device)
    return added.masked_fill_(~mask, torch.finfo(added.dtype).min)
