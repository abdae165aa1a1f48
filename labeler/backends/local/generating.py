"""Generates answers with local weights: prompts of like length together, and only what the JSON schema allows.

Which tokens may follow is looked up in an automaton that is made once for each schema (Willard and Louf 2023,
arXiv:2307.09702; the package outlines). Sampling adds Gumbel noise to the logits and takes the largest, which draws
from the same distribution; the noise of a prompt depends on the seed and the prompt alone, not on what stands beside
it. What prompts share is read once (:mod:`labeler.backends.local.prefix`).
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labeler.backends.local.chat import control_tokens
from labeler.backends.local.loading import LoadedModel
from labeler.backends.local.memory import BatchSize, in_batches
from labeler.backends.local.prefix import Prefix, PrefixCache, shared_prefix
from labeler.records import Generation

if TYPE_CHECKING:
    import torch

STOP, LENGTH, CONTEXT = "stop", "length", "context"
UNCONSTRAINED = "unconstrained"
"""The note of an answer that should have been held to a schema, and was not."""

_DEFAULT_TOKENS = 1024
# So many tokens of an answer have their place in memory from the start.
_ROOM = 128
_GRAMMARS, _MASKS = 16, 64
# An automaton counts characters by having a state for each, times the vocabulary: 200 characters cost seconds and
# hundreds of megabytes. Longer texts are left open; the parser of the task says which one is too long.
_COUNTED = 64
_LISTED = 1000
# The same holds for how many labels a set has, times the labels: 44 of 44 take 25 seconds.
_COUNTED_LABELS = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer. ``finish``: "stop"; "length" at ``max_tokens``; "context" if the prompt left no room for it.

    ``tokens_out`` counts the token that ended the turn, as it had to be computed too.
    """

    text: str
    tokens_in: int
    tokens_out: int
    finish: str
    note: str | None = None


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
    note = UNCONSTRAINED if json_schema and grammar is None else None
    # Prompts of like length need little padding; the longest come first, as a lack of memory shows there.
    fitting.sort(key=lambda n: -len(prompts[n]))
    asked = [prompts[n] for n in fitting]
    prefix = shared_prefix(loaded, asked, cache) if goes_on(loaded, asked[0]) else None

    def work(batch: Sequence[int]) -> list[Generated]:
        return _generate(loaded, [prompts[n] for n in batch], generation, grammar, prefix, note)

    for n, found in zip(fitting, in_batches(fitting, max_batch, work), strict=True):
        results[n] = found
    return results


def _generate(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], generation: Generation, grammar: Grammar | None,
    prefix: Prefix | None, note: str | None,
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
            past_key_values=None if prefix is None else _cache_of(loaded, prefix, prompts, most),
            generation_config=config,
            logits_processor=transformers.LogitsProcessorList(_processors(loaded, prompts, generation, ends)),
            stopping_criteria=transformers.StoppingCriteriaList([ends]),
        )
    answers = found[:, width:].tolist()
    return [
        _read(loaded, len(prompt), answer[: ended or None], ended is not None, generation.stop, note)
        for prompt, answer, ended in zip(prompts, answers, ends.ended, strict=True)
    ]


def _cache_of(loaded: LoadedModel, prefix: Prefix, prompts: Sequence[Sequence[int]], most: int) -> Any:
    from labeler.backends.local.rows import padded_cache

    return padded_cache(loaded, prefix, prompts, min(most, _ROOM))


def _read(
    loaded: LoadedModel, tokens_in: int, ids: Sequence[int], ended: bool, stops: Sequence[str], note: str | None
) -> Generated:
    told = ids[:-1] if ids and ids[-1] in loaded.eos_ids else ids
    text = _text(loaded, told)
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    if found:
        text = text[: min(found)]
    return Generated(text, tokens_in, len(ids), STOP if ended else LENGTH, note)


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


class Grammar:
    """What a JSON schema allows, token by token, for one tokenizer."""

    def __init__(self, index: Any, eos_ids: Sequence[int]) -> None:
        self._index, self._eos_ids = index, list(eos_ids)
        self._masks: dict[tuple[int, int], torch.Tensor] = {}

    def guide(self) -> Any:
        """Return a place in the automaton, at its beginning."""
        return importlib.import_module("outlines_core").Guide(self._index)

    def advance(self, guide: Any, token: int) -> bool:
        """Go on by one token; return whether nothing can follow but the end."""
        allowed = guide.advance(token, return_tokens=guide.is_finished())
        return bool(guide.is_finished()) and set(allowed or guide.get_tokens()) <= set(self._eos_ids)

    def allowed(self, guide: Any, size: int) -> torch.Tensor:
        """Return which of ``size`` tokens may follow, bool (size,)."""
        import numpy as np
        import torch

        key = (guide.get_state(), size)
        found = self._masks.get(key)
        if found is None:
            bits = np.zeros((size + 31) // 32, dtype=np.uint32)
            guide.write_mask_into(bits.ctypes.data, bits.size, bits.itemsize)
            mask = np.unpackbits(bits.view(np.uint8), bitorder="little")[:size].astype(bool)
            # The automaton knows one end of a text; the model may have several.
            mask[self._eos_ids] = mask[self._eos_ids].any()
            if len(self._masks) >= _MASKS:
                self._masks.pop(next(iter(self._masks)))
            found = self._masks[key] = torch.from_numpy(mask)
        return found

    def all(self, size: int) -> torch.Tensor:
        import torch

        return torch.ones(size, dtype=torch.bool)


@functools.cache
def can_constrain() -> bool:
    """Whether the package that holds answers to a schema is installed."""
    return importlib.util.find_spec("outlines_core") is not None


def grammar_of(loaded: LoadedModel, json_schema: Mapping[str, Any]) -> Grammar | None:
    """Return the grammar of the schema, from the cache if it was made before; None if there can be none."""
    if not can_constrain():
        return None
    text = json.dumps(writable(json_schema), ensure_ascii=False)
    grammars: dict[str, Grammar | None] = loaded.cache.setdefault("grammars", {})
    if text not in grammars:
        if len(grammars) >= _GRAMMARS:
            grammars.pop(next(iter(grammars)))
        grammars[text] = _compiled(loaded, text)
    return grammars[text]


def _compiled(loaded: LoadedModel, text: str) -> Grammar | None:
    try:
        outlines_core: Any = importlib.import_module("outlines_core")
        build_regex = importlib.import_module("outlines_core.json_schema").build_regex_from_schema
        if "vocabulary" not in loaded.cache:
            loaded.cache["vocabulary"] = outlines_core.Vocabulary(loaded.eos_ids[0], token_bytes(loaded))
        index = outlines_core.Index(build_regex(text), loaded.cache["vocabulary"])
    except Exception as error:  # a schema, or a tokenizer, that the compiler does not know
        log.warning("Answers are not held to their JSON schema, which could not be compiled: %s", error)
        return None
    return Grammar(index, loaded.eos_ids)


def token_bytes(loaded: LoadedModel) -> dict[bytes, list[int]]:
    """Return what each token writes, in bytes, with its ids; control tokens are left out.

    In bytes, because a letter of Hangul may be written by three tokens, none of which is a text. Raises ``ValueError``
    for a tokenizer that joins tokens in another way than by writing one behind the other.
    """
    tokenizer = loaded.tokenizer
    left_out = {*control_tokens(tokenizer), *tokenizer.added_tokens_decoder, *loaded.eos_ids}
    letters = _byte_letters() if "ByteLevel" in _decoder(tokenizer) else None
    found: dict[bytes, list[int]] = {}
    by_id: dict[int, bytes] = {}
    for token, id_ in tokenizer.get_vocab().items():
        written = b"" if id_ in left_out else _written(token, letters)
        if written:
            found.setdefault(written, []).append(id_)
            by_id[id_] = written
    sample = '{"a": "한글, b"}'
    ids = tokenizer.encode(sample, add_special_tokens=False)
    if b"".join(by_id.get(id_, b"") for id_ in ids).strip() != sample.encode():
        raise ValueError("this tokenizer does not write its tokens one behind the other")
    return found


def _decoder(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return ""
    state: bytes = backend.decoder.__getstate__()
    return state.decode()


def _written(token: str, letters: Mapping[str, int] | None) -> bytes:
    if letters is not None:
        # A letter that no byte has: a token that was added by hand.
        return bytes(letters[letter] for letter in token) if all(letter in letters for letter in token) else b""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


@functools.cache
def _byte_letters() -> dict[str, int]:
    """Return the letters by which byte-level tokenizers write bytes (GPT-2: Radford et al. 2019)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


def writable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema as the compiler of automata takes it.

    It knows no bounds of whole numbers, so a short scale becomes a list; labels of a set come at most once each, so
    there are at most as many, if there are few; and it would count the characters of a long text.
    """
    found: dict[str, Any] = dict(schema)
    low, high = found.get("minimum"), found.get("maximum")
    if found.get("type") == "integer" and isinstance(low, int) and isinstance(high, int) and high - low < _LISTED:
        return {"enum": list(range(low, high + 1))}
    if found.get("maxLength", 0) > _COUNTED:
        del found["maxLength"]
    if found.get("minLength", 0) > _COUNTED:
        found["minLength"] = 1
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if name in found:
            found[name] = [writable(part) for part in found[name]]
    if isinstance(found.get("properties"), Mapping):
        found["properties"] = {name: writable(part) for name, part in found["properties"].items()}
    if isinstance(found.get("items"), Mapping):
        found["items"] = writable(found["items"])
        labels = found["items"].get("enum")
        if found.pop("uniqueItems", False) and labels and len(labels) <= _COUNTED_LABELS:
            found["maxItems"] = min(found.get("maxItems", len(labels)), len(labels))
    return found
