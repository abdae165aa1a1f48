"""Generates answers with local weights: prompts of like length together, and only what the JSON schema allows.

Which tokens may follow is looked up in an automaton that is made once for each schema (Willard and Louf 2023,
arXiv:2307.09702; :mod:`labeler.backends.local.grammar`). Sampling adds Gumbel noise to the logits and takes the
largest, which draws from the same distribution; the noise of a prompt depends on the seed and the prompt alone, not on
what stands beside it. What prompts share is read once (:mod:`labeler.backends.local.prefix`).
"""

from __future__ import annotations

import hashlib
import importlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labeler.backends.local.grammar import Grammar, grammar_of
from labeler.backends.local.loading import LoadedModel
from labeler.backends.local.memory import BatchSize, in_batches
from labeler.backends.local.prefix import Prefix, PrefixCache, shared_prefix
from labeler.records import Generation

if TYPE_CHECKING:
    import torch

STOP, LENGTH, CONTEXT = "stop", "length", "context"
UNCONSTRAINED = "unconstrained"
"""How an answer was made that should have been held to a schema, and was not."""

_DEFAULT_TOKENS = 1024
# So many tokens of an answer have their place in memory from the start.
_ROOM = 128


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer. ``finish``: "stop"; "length" at ``max_tokens``; "context" if the prompt left no room for it.

    ``tokens_out`` counts the token that ended the turn, as it had to be computed too.
    """

    text: str
    tokens_in: int
    tokens_out: int
    finish: str
    made: tuple[str, ...] = ()


def generate(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    generation: Generation,
    json_schema: Mapping[str, Any] | None,
    max_batch: int | BatchSize,
    cache: PrefixCache | None = None,
) -> list[Generated]:
    """Return an answer for each prompt, in their order; greedy, unless the temperature is above 0.

    With a schema that can be compiled, every answer that ended by itself ("stop") is JSON that fits it; bounds above
    64 characters are left to the parser. Raises :class:`OutOfMemory` if a single prompt is too much.
    """
    from labeler.backends.local.rows import goes_on

    room = loaded.context - (generation.max_tokens or 1)
    results = [Generated("", len(prompt), 0, CONTEXT) for prompt in prompts]
    fitting = [n for n, prompt in enumerate(prompts) if 0 < len(prompt) <= room]
    if not fitting:
        return results
    grammar = grammar_of(loaded, json_schema) if json_schema else None
    made = (UNCONSTRAINED,) if json_schema and grammar is None else ()
    # Prompts of like length need little padding; the longest come first, as a lack of memory shows there.
    fitting.sort(key=lambda n: -len(prompts[n]))
    asked = [prompts[n] for n in fitting]
    prefix = shared_prefix(loaded, asked, cache) if goes_on(loaded, asked[0]) else None

    def work(batch: Sequence[int]) -> list[Generated]:
        return _generate(loaded, [prompts[n] for n in batch], generation, grammar, prefix, made)

    for n, found in zip(fitting, in_batches(fitting, max_batch, work), strict=True):
        results[n] = found
    return results


def _generate(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], generation: Generation, grammar: Grammar | None,
    prefix: Prefix | None, made: tuple[str, ...],
) -> list[Generated]:  # fmt: skip
    import torch

    transformers: Any = importlib.import_module("transformers")
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), loaded.pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    most = generation.max_tokens or min(_DEFAULT_TOKENS, loaded.context - width)
    ends = _Ends(loaded, len(prompts), width, generation.stop, grammar)
    config = transformers.GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        eos_token_id=list(loaded.eos_ids),
        pad_token_id=loaded.pad_id,
    )
    with torch.inference_mode():
        found = loaded.model.generate(
            input_ids=ids.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            generation_config=config,
            logits_processor=transformers.LogitsProcessorList(_processors(loaded, prompts, generation, ends)),
            stopping_criteria=transformers.StoppingCriteriaList([ends]),
            **({} if prefix is None else _from_cache(loaded, prefix, prompts, most)),
        )
    answers = found[:, width:].tolist()
    return [
        _read(loaded, len(prompt), answer[: ended or None], ended is not None, generation.stop, made)
        for prompt, answer, ended in zip(prompts, answers, ends.ended, strict=True)
    ]


def _from_cache(loaded: LoadedModel, prefix: Prefix, prompts: Sequence[Sequence[int]], most: int) -> dict[str, Any]:
    from labeler.backends.local import attention
    from labeler.backends.local.rows import padded_cache

    return attention.given(loaded.model, padded_cache(loaded, prefix, prompts, min(most, _ROOM)))


def _read(
    loaded: LoadedModel, tokens_in: int, ids: Sequence[int], ended: bool, stops: Sequence[str], made: tuple[str, ...]
) -> Generated:
    told = ids[:-1] if ids and ids[-1] in loaded.eos_ids else ids
    text = _text(loaded, told)
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    if found:
        text = text[: min(found)]
    return Generated(text, tokens_in, len(ids), STOP if ended else LENGTH, made)


def _text(loaded: LoadedModel, ids: Sequence[int]) -> str:
    text: str = loaded.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _processors(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], generation: Generation, ends: _Ends
) -> list[Any]:
    """Return what changes the logits (rows, vocabulary) of a step, in this order: schema, temperature, top k and p."""
    transformers: Any = importlib.import_module("transformers")
    found: list[Any] = [ends.mask] if ends.grammar is not None else []
    if not generation.temperature:
        return found
    if generation.temperature != 1.0:
        found.append(transformers.TemperatureLogitsWarper(float(generation.temperature)))
    if generation.top_k is not None:
        found.append(transformers.TopKLogitsWarper(generation.top_k))
    if generation.top_p is not None and generation.top_p < 1.0:
        found.append(transformers.TopPLogitsWarper(generation.top_p))
    return [*found, _Noise(loaded, prompts, generation.seed)]


class _Noise:
    """Gumbel noise on the logits: the largest sum is a draw from their softmax (Gumbel 1954; Maddison et al. 2014)."""

    def __init__(self, loaded: LoadedModel, prompts: Sequence[Sequence[int]], seed: int | None) -> None:
        import torch

        self._generators = []
        for prompt in prompts:
            text = f"{secrets.token_hex(16) if seed is None else seed}:{','.join(map(str, prompt))}"
            number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
            self._generators.append(torch.Generator(loaded.device).manual_seed(number))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        noise = torch.empty(scores.shape, dtype=torch.float32, device=scores.device)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        # An exponential draw may be 0, whose logarithm would outweigh what the schema forbids (-inf).
        return scores.float() - noise.clamp_(min=torch.finfo(noise.dtype).tiny).log_()


class _Ends:
    """Follows each row of a batch: what its schema allows next, and whether it has ended.

    ``ended`` is how many tokens a row had when it did, the token that ends a turn included; None while it goes on.
    """

    def __init__(
        self, loaded: LoadedModel, rows: int, width: int, stops: Sequence[str], grammar: Grammar | None
    ) -> None:
        self.grammar = grammar
        self.ended: list[int | None] = [None] * rows
        self._loaded, self._width, self._stops = loaded, width, tuple(stops)
        # A token is at least one byte, but some decode to nothing.
        self._tail = max((len(stop.encode()) for stop in stops), default=0) + 8
        self._guides = [] if grammar is None else [grammar.guide() for _ in range(rows)]

    def mask(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Set the logits of what the schema does not allow next to minus infinity."""
        import torch

        assert self.grammar is not None
        size = scores.shape[1]
        rows = [
            self.grammar.all(size) if ended is not None else self.grammar.allowed(guide, size)
            for guide, ended in zip(self._guides, self.ended, strict=True)
        ]
        return scores.masked_fill(~torch.stack(rows).to(scores.device), -torch.inf)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Take in the last token of each row; return which rows have ended, bool (rows,)."""
        import torch

        count = input_ids.shape[1] - self._width
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self.ended[row] is None and self._ends(row, token, input_ids):
                self.ended[row] = count
        return torch.tensor([ended is not None for ended in self.ended], device=input_ids.device)

    def _ends(self, row: int, token: int, input_ids: torch.Tensor) -> bool:
        if token in self._loaded.eos_ids:
            return True
        if self.grammar is not None and self.grammar.advance(self._guides[row], token):
            return True
        if not self._stops:
            return False
        told = _text(self._loaded, input_ids[row, self._width :][-self._tail :].tolist())
        return any(stop in told for stop in self._stops)
