"""What a JSON schema allows, token by token: an automaton of the package outlines-core for one tokenizer.

All that is leaned on of that package stands here, and every automaton is tried before it is used: where the package
is missing or has changed, answers are not held to their schema, and their note says so.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler.backends.local.chat import added_tokens, control_tokens
from labeler.backends.local.loading import LoadedModel

if TYPE_CHECKING:
    import torch

_GRAMMARS, _MASKS = 16, 64
# An automaton counts characters by having a state for each, times the vocabulary: 200 characters cost seconds and
# hundreds of megabytes. Longer texts are left open; the parser of the task says which one is too long.
_COUNTED = 64
_LISTED = 1000
# The same holds for how many labels a set has, times the labels: 44 of 44 take 25 seconds.
_COUNTED_LABELS = 16

log = logging.getLogger(__name__)


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


def can_constrain(loaded: LoadedModel) -> bool:
    """Whether answers of this model can be held to a schema: by trying the shortest there is."""
    return grammar_of(loaded, {"type": "boolean"}) is not None


def grammar_of(loaded: LoadedModel, json_schema: Mapping[str, Any]) -> Grammar | None:
    """Return the grammar of the schema, from the cache if it was made before; None if there can be none."""
    if importlib.util.find_spec("outlines_core") is None:
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
        made = Grammar(outlines_core.Index(build_regex(text), loaded.cache["vocabulary"]), loaded.eos_ids)
        guide = made.guide()
        made.advance(guide, int(made.allowed(guide, len(loaded.tokenizer)).nonzero()[0]))
    except (
        Exception
    ) as error:  # a schema or a tokenizer that the compiler does not know, or a compiler that has changed
        log.warning("Answers are not held to their JSON schema, which could not be compiled: %s", error)
        return None
    return made


def token_bytes(loaded: LoadedModel) -> dict[bytes, list[int]]:
    """Return what each token writes, in bytes, with its ids; control tokens are left out.

    In bytes, because a letter of Hangul may be written by three tokens, none of which is a text. Raises ``ValueError``
    for a tokenizer that joins tokens in another way than by writing one behind the other.
    """
    tokenizer = loaded.tokenizer
    left_out = {*control_tokens(tokenizer), *added_tokens(tokenizer), *loaded.eos_ids}
    vocabulary = {token: id_ for token, id_ in tokenizer.get_vocab().items() if id_ not in left_out}
    sample = '{"a": "한글, b"}'
    ids = tokenizer.encode(sample, add_special_tokens=False)
    # A tokenizer does not say by which letters it writes bytes; a text that it has cut shows it.
    for letters in (_byte_letters(), None):
        by_id = {id_: _written(token, letters) for token, id_ in vocabulary.items()}
        if b"".join(by_id.get(id_, b"") for id_ in ids).strip() == sample.encode():
            break
    else:
        raise ValueError("this tokenizer does not write its tokens one behind the other")
    found: dict[bytes, list[int]] = {}
    for id_, written in by_id.items():
        if written:
            found.setdefault(written, []).append(id_)
    return found


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
