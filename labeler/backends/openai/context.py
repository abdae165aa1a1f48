"""How many tokens a model of a server reads: from the server's list of models, or from a refusal that names it.

The protocol has no field for it, so every server has its own. Taken is only what is the context that requests are held
to: ``n_ctx_train`` of llama.cpp is what the model was trained with, and its server is often started with less.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

# vLLM and SGLang; Groq; OpenRouter, Together and many others; Mistral. OpenAI and Ollama list nothing.
_FIELDS = ("max_model_len", "context_window", "context_length", "max_context_length")
# Numbers beyond are mistakes, and short ones hold no prompt.
_LEAST, _MOST = 64, 100_000_000
_MOST_SLOTS, _AT_LEAST = 1024, 1.25
_CODES = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
# Where a prompt was refused for its length; every server has words of its own.
_TOO_LONG = re.compile(
    r"context[ _]?(?:length|size|window|limit)|contextwindowexceeded|max(?:imum)?[ _](?:model|seq|sequence)[ _]?len"
    r"|max(?:imum)? (?:input|prompt|sequence) length|model(?:'s)? (?:maximum |token )+(?:limit|length)"
    r"|(?:prompt|input|text|request)s? (?:is|are|was|were) too long|exceed(?:s|ed)? (?:the )?(?:max length|max input)"
    r"|too many (?:input |prompt )?tokens|total tokens limit|token count.{0,40}exceed|exceed model token limit"
    r"|tokens allowed|input tokens exceed|`inputs` (?:tokens|must have)|range of input length"
    r"|reduce the (?:length|number) of (?:the )?(?:input|prompt|messages)|prompt length \(\d+\) exceeds"
    r"|prompt tokens? exceed|tokens > \d[\d,]* maximum",
    re.IGNORECASE,
)
# Groq compares the longest answer with the context.
_OF_ANSWER = re.compile(r"max_?(?:completion_|new_)?tokens\W{0,3} ?(?:must|should|is too)", re.IGNORECASE)
_N = r"(\d[\d,]{0,12})"
# What the model reads in all.
_LIMITS = [
    re.compile(pattern.replace("N", _N), re.IGNORECASE)
    for pattern in (
        r"maximum context length(?: is|:| of|\s*=)+ N",  # OpenAI, vLLM, DeepSeek, OpenRouter; SGLang; Fireworks
        r"maximum prompt length (?:is )?N",  # xAI
        # vLLM, TensorRT-LLM, TabbyAPI
        r"max(?:imum)?[ _](?:model|input|sequence|seq)[ _]?len(?:gth)?(?: is| of|:)? \(?N",
        r"context (?:length|size|window)(?: of)?(?: only)? \(?N",  # SGLang, llama.cpp, LM Studio
        r"context (?:length|size|window)(?: is|:) N",
        r"(?:with )?N maximum context length",  # Mistral
        r"n_ctx: N",  # LM Studio
        r"must be <=\s?N",  # text-generation-inference
        r"must have (?:less|fewer) than N tokens",
        r"tokens allowed \(?(?:is )?N",  # Gemini
        r"> N maximum",  # Anthropic
        r"exceed context limit: [\d,]+ \+ [\d,]+ > N",
        r"configured limit (?:of )?N tokens",  # OpenAI, of the input
        # Cohere and others
        r"(?:limit for this model is|cannot exceed|token limit:|while limit is|total tokens limit) N",
        r"input length should be \[\d+, N\]",  # Alibaba
    )
]
# How many tokens the prompt has, by the server's own count.
_COUNTS = [
    re.compile(pattern.replace("N", _N), re.IGNORECASE)
    for pattern in (
        r"N (?:tokens )?(?:in|from|of) (?:the |your )?(?:input |text )?(?:messages|prompt|input)\b",
        r"(?:messages|prompt|input|inputs) (?:resulted in|contains?|has|have)(?: at least| over)? N",
        r"request (?:has|contains) N",
        r"input token count \(?(?:of |is )?N",
        r"given: N",
        r"(?:received|requested:|current length is|prompt length|decoder prompt \(length|n_keep: ?|too long:) \(?N",
        r"(?:input|request|prompt) \(N tokens",
        r"N tokens > ",
        r"exceed context limit:\s?N",
        r"keep the first (?:N) tokens",
        r"context length (?:N) is greater",
        r"you requested (?:about )?N tokens",
    )
]


def listed(body: Any, *model_ids: str | None) -> int | None:
    """Return the context of a model in what ``GET /models`` answered; None where that is not said.

    ``model_ids`` are the names it may have there: as asked for, and as it answered. A server with one model answers to
    any name (llama.cpp does): then that one counts.
    """
    found = body.get("data") if isinstance(body, dict) else None
    models = [model for model in found if isinstance(model, dict)] if isinstance(found, list) else []
    named = [model for id_ in model_ids for model in models if id_ and model.get("id") == id_]
    chosen = (named or (models if len(models) == 1 else []))[:1]
    return _of(chosen[0]) if chosen else None


def is_llama_cpp(body: Any) -> bool:
    """Say whether ``GET /models`` was answered by a server of llama.cpp."""
    found = body.get("data") if isinstance(body, dict) else None
    return isinstance(found, list) and any(isinstance(m, dict) and m.get("owned_by") == "llamacpp" for m in found)


def of_props(body: Any) -> tuple[int | None, int | None]:
    """Return what ``GET /props`` of llama.cpp answered: the context of one slot, and how many slots answer at once.

    Parallel slots share the whole context. Newer builds say it in their list of models too, as ``meta.n_ctx``.
    """
    found = body if isinstance(body, dict) else {}
    settings, slots = found.get("default_generation_settings"), found.get("total_slots")
    context = _tokens(settings.get("n_ctx")) if isinstance(settings, dict) else None
    return context, slots if type(slots) is int and 1 <= slots <= _MOST_SLOTS else None


class TooLongPrompt(NamedTuple):
    """What a refusal for the length of a prompt tells, in tokens: what the model reads, and what the prompt has."""

    context: int | None
    prompt: int | None


def refused_for(said: str, error: Mapping[str, Any], codes: Collection[str] = ()) -> TooLongPrompt | None:
    """Return what an error tells of the length of a prompt; None for one that speaks of something else."""
    context = _tokens(error.get("n_ctx")) or _first(_LIMITS, said)
    if not (_tokens(error.get("n_ctx")) or _CODES & set(codes) or _TOO_LONG.search(said)):
        return None
    prompt = _tokens(error.get("n_prompt_tokens")) or _first(_COUNTS, said)
    if context is None and prompt is None and _OF_ANSWER.search(said):
        return None
    if prompt and re.search(rf"at least\s{prompt}\b", said):
        # vLLM stops counting where the context ends: how much longer the prompt is, nobody knows.
        prompt = round(prompt * _AT_LEAST)
    return TooLongPrompt(context, prompt)


def _first(patterns: Sequence[re.Pattern[str]], said: str) -> int | None:
    found = next((match[1] for pattern in patterns if (match := pattern.search(said))), None)
    return None if found is None else _tokens(int(found.replace(",", "")))


def _of(model: Mapping[str, Any]) -> int | None:
    meta, provider = model.get("meta"), model.get("top_provider")
    said = [model.get(name) for name in _FIELDS]
    said += [meta.get("n_ctx")] if isinstance(meta, dict) else []
    # OpenRouter: the server that will answer may read less than the model can.
    said += [provider.get("context_length")] if isinstance(provider, dict) else []
    return min((tokens for value in said if (tokens := _tokens(value))), default=None)


def _tokens(value: Any) -> int | None:
    return value if type(value) is int and _LEAST <= value <= _MOST else None
