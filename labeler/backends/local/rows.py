"""Prompts that are read a few at a time and answered side by side.

Reading is bound by arithmetic and gains nothing from a large batch, which outgrows the processor's caches and pays
for padding; writing is bound by memory, as every token reads all weights, and gains from every row. So the keys and
values of a batch are computed in small groups and then put into one cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from labeler.backends.local import attention
from labeler.backends.local.prefix import Prefix, Weights, continued
from labeler.backends.local.trials import HEADS

if TYPE_CHECKING:
    from labeler.backends.local.attention import Layers

CPU_TOKENS, DEVICE_TOKENS = 512, 8192
"""How many tokens one forward reads, padding included, beside a longer prompt that is read alone."""


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
    return attention.roomy_cache_of(tuple(rows), width)


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


def _read(loaded: Weights, prefix: Prefix, prompts: Sequence[Sequence[int]]) -> Layers:
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
    shifts = pads.tolist()
    past = attention.cache_of(
        tuple((_shifted(keys, shifts), _shifted(values, shifts)) for keys, values in prefix.layers)
    )
    if width > len(prefix):
        with torch.inference_mode():
            loaded.model(
                input_ids=ids[:, len(prefix) :].to(loaded.device),
                position_ids=places[:, len(prefix) :].clamp(min=0).to(loaded.device),
                attention_mask=(places >= 0).long().to(loaded.device) if len(prompts) > 1 else None,
                use_cache=True,
                logits_to_keep=1,
                **attention.given(loaded.model, past),
            )
    return attention.layers_of(past)


def _shifted(part: torch.Tensor, pads: Sequence[int]) -> torch.Tensor:
    tokens = part.shape[2]
    rows = part.new_zeros((len(pads), *part.shape[1:]))
    for row, pad in zip(rows, pads, strict=True):
        row[:, pad:] = part[0, :, : max(tokens - pad, 0)]
    return rows


def goes_on(loaded: Weights, ids: Sequence[int]) -> bool:
    """Whether the model writes the same from a padded cache as from the whole; tried once for each, on a few tokens."""
    return HEADS.works(loaded.model, lambda: _tried(loaded, ([*ids] * 16)[:16]))


def _tried(loaded: Weights, ids: Sequence[int]) -> bool:
    """Write one token behind two prompts of unlike length, as answers are written, and compare the logits."""
    attention.check_plain(loaded.model)
    prompts = [ids, ids[:11]]
    mask = torch.tensor([[0] * (len(ids) - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    padded = torch.tensor([[loaded.pad_id] * (len(ids) - len(prompt)) + [*prompt] for prompt in prompts])
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=1, do_sample=False, pad_token_id=loaded.pad_id, output_logits=True, return_dict_in_generate=True
    )
    cache = padded_cache(loaded, continued(loaded, Prefix(), tuple(ids[:8])), prompts, 1)
    with torch.inference_mode():
        found = loaded.model.generate(
            input_ids=padded.to(loaded.device), attention_mask=mask.to(loaded.device), generation_config=config,
            **attention.given(loaded.model, cache),
        ).logits[0]  # fmt: skip
        whole = [
            loaded.model(input_ids=torch.tensor([[*prompt]], device=loaded.device), use_cache=False).logits[0, -1]
            for prompt in prompts
        ]
    return all(_alike(a, b) for a, b in zip(found, whole, strict=True))


def _alike(found: torch.Tensor, whole: torch.Tensor) -> bool:
    """Whether two logits (vocabulary) give the likeliest tokens the same probabilities, up to rounding."""
    allowed = 1e-3 if whole.dtype in (torch.float32, torch.float64) else 0.15
    likely = whole.topk(8).indices
    apart = found.float().log_softmax(-1)[likely] - whole.float().log_softmax(-1)[likely]
    return bool(apart.abs().max() <= allowed)
