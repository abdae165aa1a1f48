"""Tiny models of random weights, one for each kind of attention that local weights may have."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip

MODELS = {
    "llama": ("llama", {}),
    "attention written out": ("llama", {"attention": "eager"}),
    "learned positions": ("gpt2", {"n_positions": 256, "n_embd": 32, "n_layer": 3, "n_head": 4}),
    "a window in every layer": ("mistral", {"sliding_window": 16}),
    "a window in most layers": ("gemma3_text", {"sliding_window": 16, "sliding_window_pattern": 2}),
    "a window, chosen by layer": ("qwen2", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 2}),
    "a mixture of experts": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
}


def small(kind: str, **changes: Any) -> Any:
    """Return a tiny model of random weights as a loaded one is seen."""
    import torch
    import transformers

    torch.manual_seed(5)
    config = transformers.AutoConfig.for_model(kind, **SMALL | changes)
    attention = {"attn_implementation": changes["attention"]} if "attention" in changes else {}
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, **attention).eval()
    # Weights as they are initialised would make every token about as likely.
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(3.0)
    return SimpleNamespace(model=model, device=torch.device("cpu"), pad_id=0, context=256)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Test files run side by side, and threads that wait for each other's core take many times as long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(template: str | None = CHATML, begins: str = "") -> Any:
    """Return a tokenizer of 256 bytes and a few control tokens; ``begins`` is put before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|im_start|>", "<|im_end|>", *([begins] if begins else [])]
    inner.add_special_tokens(special)
    if begins:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{begins} $A", special_tokens=[(begins, inner.token_to_id(begins))]
        )
    named = {"pad_token": "<pad>", "eos_token": "<|im_end|>", **({"bos_token": begins} if begins else {})}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **named)
    made.chat_template = template
    return made
