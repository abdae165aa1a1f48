"""How many tokens a model of a server reads: from the server's list of models, or from a refusal that names it.

The protocol has no field for it, so every server has its own. Taken is only what is the context that requests are held
to: ``n_ctx_train`` of llama.cpp is what the model was trained with, and its server is often started with less.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# vLLM and SGLang; Groq; OpenRouter, Together and many others; Mistral. OpenAI and Ollama list nothing.
_FIELDS = ("max_model_len", "context_window", "context_length", "max_context_length")
# Numbers beyond are mistakes, and short ones hold no prompt.
_LEAST, _MOST = 64, 100_000_000
_REFUSALS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"maximum context length (?:is|of) (\d+)",  # OpenAI, vLLM, DeepSeek, OpenRouter; SGLang
        r"context length \((\d+) tokens?\)",  # SGLang
        r"available context size \((\d+) tokens?\)",  # llama.cpp
        r"with (\d+) maximum context length",  # Mistral
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


def of_props(body: Any) -> int | None:
    """Return the context of one slot in what ``GET /props`` of llama.cpp answered: its parallel slots share the whole.

    Newer builds say it in their list of models too, as ``meta.n_ctx``.
    """
    settings = body.get("default_generation_settings") if isinstance(body, dict) else None
    return _tokens(settings.get("n_ctx")) if isinstance(settings, dict) else None


def refused_for(said: str, error: Mapping[str, Any]) -> int | None:
    """Return the context that an error names where a prompt was longer; None where it names none."""
    named = _tokens(error.get("n_ctx"))
    found = next((match for pattern in _REFUSALS if (match := pattern.search(said))), None)
    return _tokens(int(found[1])) if found and len(found[1]) < 12 else named


def _of(model: Mapping[str, Any]) -> int | None:
    meta, provider = model.get("meta"), model.get("top_provider")
    said = [model.get(name) for name in _FIELDS]
    said += [meta.get("n_ctx")] if isinstance(meta, dict) else []
    # OpenRouter: the server that will answer may read less than the model can.
    said += [provider.get("context_length")] if isinstance(provider, dict) else []
    return min((tokens for value in said if (tokens := _tokens(value))), default=None)


def _tokens(value: Any) -> int | None:
    return value if type(value) is int and _LEAST <= value <= _MOST else None
