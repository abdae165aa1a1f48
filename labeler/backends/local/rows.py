"""Prompts that are read a few at a time and answered side by side.

Reading is bound by arithmetic and gains nothing from a large batch, which outgrows the processor's caches and pays
for padding; writing is bound by memory, as every token reads all weights, and gains from every row. So the keys and
values of a batch are computed in small groups and then put into one cache.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache, DynamicLayer

from labeler.backends.local.memory import is_out_of_memory
from labeler.backends.local.prefix import Prefix, Weights, continued, has_plain_attention

CPU_TOKENS, DEVICE_TOKENS = 512, 8192
"""How many tokens one forward reads, padding included, beside a longer prompt that is read alone."""
_works: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()

log = logging.getLogger(__name__)


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


def padded_cache(loaded: Weights, prefix: Prefix, prompts: Sequence[Sequence[int]], room: int) -> Any:
    """Return a transformers cache of all but the last token of each prompt, padded on the left to one width.

    All prompts begin with ``prefix`` and are longer. ``room`` is how many tokens of answers it takes without growing.
    """
    width = max(map(len, prompts)) - 1
    rows: list[tuple[torch.Tensor, torch.Tensor]] = []
    for start, group in _groups(loaded, prefix, prompts):
        for layer, (keys, values) in enumerate(_read(loaded, prefix, group)):
            if layer == len(rows):
                shape = (len(prompts), keys.shape[1], width + room, keys.shape[3])
                rows.append((keys.new_zeros(shape), values.new_zeros(shape)))
            for whole, part in zip(rows[layer], (keys, values), strict=True):
                whole[start : start + len(group), :, width - part.shape[2] : width] = part
    cache = DynamicCache()
    cache.layers.extend(RoomyLayer(keys, values, width) for keys, values in rows)
    return cache


def _groups(
    loaded: Weights, prefix: Prefix, prompts: Sequence[Sequence[int]]
) -> Iterator[tuple[int, Sequence[Sequence[int]]]]:
    """Yield neighbouring prompts that are read in one forward, with the place of the first."""
    most = CPU_TOKENS if loaded.device.type == "cpu" else DEVICE_TOKENS
    start = 0
    while start < len(prompts):
        stop, longest = start + 1, len(prompts[start])
        while stop < len(prompts):
            longest = max(longest, len(prompts[stop]))
            if (longest - len(prefix)) * (stop + 1 - start) > most:
                break
            stop += 1
        yield start, prompts[start:stop]
        start = stop


def _read(
    loaded: Weights, prefix: Prefix, prompts: Sequence[Sequence[int]]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Return each layer's keys and values (rows, heads, width, dim) of all but the last token, padded on the left.

    The prefix stands further right in shorter rows, and its end, which no longer fits, is read again there: as many
    tokens as there would be padding. So distances between tokens are right, which a sliding window counts on.
    """
    width = max(map(len, prompts)) - 1
    pads = torch.tensor([width + 1 - len(prompt) for prompt in prompts])
    ids = torch.full((len(prompts), width), loaded.pad_id)
    for row, prompt in enumerate(prompts):
        ids[row, width + 1 - len(prompt) :] = torch.tensor(prompt[:-1])
    places = torch.arange(width)[None] - pads[:, None]
    past: Any = DynamicCache()
    for keys, values in prefix.layers:
        layer: Any = DynamicLayer()  # type: ignore[no-untyped-call]
        layer.update(_shifted(keys, pads.tolist()), _shifted(values, pads.tolist()))
        past.layers.append(layer)
    if width > len(prefix):
        with torch.inference_mode():
            loaded.model(
                input_ids=ids[:, len(prefix) :].to(loaded.device),
                position_ids=places[:, len(prefix) :].clamp(min=0).to(loaded.device),
                attention_mask=(places >= 0).long().to(loaded.device) if len(prompts) > 1 else None,
                past_key_values=past,
                use_cache=True,
                logits_to_keep=1,
            )
    return ((layer.keys, layer.values) for layer in past.layers)


def _shifted(part: torch.Tensor, pads: Sequence[int]) -> torch.Tensor:
    tokens = part.shape[2]
    rows = part.new_zeros((len(pads), *part.shape[1:]))
    for row, pad in zip(rows, pads, strict=True):
        row[:, pad:] = part[0, :, : max(tokens - pad, 0)]
    return rows


def goes_on(loaded: Weights, ids: Sequence[int]) -> bool:
    """Whether the model writes the same from a padded cache as from the whole; tried once for each, on a few tokens."""
    if loaded.model not in _works:
        _works[loaded.model] = has_plain_attention(loaded.model) and _tried(loaded, ([*ids] * 16)[:16])
        if not _works[loaded.model]:
            log.info("%s does not go on from a padded cache", type(loaded.model).__name__)
    return _works[loaded.model]


def _tried(loaded: Weights, ids: Sequence[int]) -> bool:
    """Write one token behind two prompts of unlike length, as answers are written, and compare the logits."""
    prompts = [ids, ids[:11]]
    mask = torch.tensor([[0] * (len(ids) - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    padded = torch.tensor([[loaded.pad_id] * (len(ids) - len(prompt)) + [*prompt] for prompt in prompts])
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=1, do_sample=False, pad_token_id=loaded.pad_id, output_logits=True, return_dict_in_generate=True
    )
    try:
        cache = padded_cache(loaded, continued(loaded, Prefix(), tuple(ids[:8])), prompts, 1)
        with torch.inference_mode():
            found = loaded.model.generate(
                input_ids=padded.to(loaded.device), attention_mask=mask.to(loaded.device), past_key_values=cache,
                generation_config=config,
            ).logits[0]  # fmt: skip
            whole = [
                loaded.model(input_ids=torch.tensor([[*prompt]], device=loaded.device), use_cache=False).logits[0, -1]
                for prompt in prompts
            ]
    except Exception as error:
        if is_out_of_memory(error):
            raise
        log.info("The trial of a padded cache failed: %s", error)
        return False
    return all(_alike(a, b) for a, b in zip(found, whole, strict=True))


def _alike(found: torch.Tensor, whole: torch.Tensor) -> bool:
    """Whether two logits (vocabulary) give the likeliest tokens the same probabilities, up to rounding."""
    allowed = 1e-3 if whole.dtype in (torch.float32, torch.float64) else 0.15
    likely = whole.topk(8).indices
    apart = found.float().log_softmax(-1)[likely] - whole.float().log_softmax(-1)[likely]
    return bool(apart.abs().max() <= allowed)
