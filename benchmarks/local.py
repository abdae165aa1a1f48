"""How fast local weights label: ``python benchmarks/local.py [--model FOLDER_OR_ID] [--records 24]``.

The task *sentiment* on Korean reviews, with English and with Korean guidelines, by the same weights in the same run:

- **loop**: what tutorials do, one ``model.generate`` a record, greedy, the whole prompt each time;
- **scored**: the log-likelihoods of all labels (``labeler.backends.local.scoring``), in calls of ``--batch`` prompts,
  once where each record has examples of its own, so that only the system message is shared, and once where all
  records have the same ones;
- **generated**: batches that are constrained to the JSON schema (``labeler.backends.local.generating``).

On a CPU the **limit** is printed too: how soon a bare matrix product of the model's shape, measured in the same run,
would have passed through all weights for the tokens that prompts do not share. Who reads these can be no sooner.

CPU seconds are those of this process, all threads: they say more than wall time where other work is going on. The
first call of each way is not measured, but the prefix cache starts empty. Reviews come from ``naver_shopping.jsonl.gz``
in ``$LABELER_DATA`` or ../shared/data; where that is not there, from the demonstration. Without ``--model`` the weights
are SmolLM2-135M as the tests fetch it; ``--random-llama`` takes the shape of Llama-3.1-8B with random weights, which
are as fast as real ones, for the rates alone. On a GPU the share of its limit is printed: 2 FLOPs a weight and token
that passes through the model, beside ``--flops-limit`` (dense bf16, in TFLOPS: 989 for an H100, 312 for an A100).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from labeler_plugins import sentiment  # noqa: E402

from labeler.backends.local.prefix import PrefixCache, common_length  # noqa: E402
from labeler.backends.local.scoring import probabilities, score  # noqa: E402
from labeler.demo import reviews  # noqa: E402
from labeler.prompts import PromptStyle  # noqa: E402
from labeler.records import Example, Generation, Record  # noqa: E402

TASK = sentiment.register_tasks()[0]
LLAMA_8B = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rope_theta": 500000.0,
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One pass over the records: wall and CPU seconds an item, and the label of each record (None: unreadable)."""

    seconds: float
    cpu: float
    labels: Sequence[Any]


def rows() -> list[dict[str, Any]]:
    """Return reviews with a text and a label, shuffled with a fixed seed."""
    path = Path(os.environ.get("LABELER_DATA") or ROOT.parent / "shared" / "data") / "naver_shopping.jsonl.gz"
    if path.exists():
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            found = [json.loads(line) for line in lines]
    else:
        print(f"no {path.name} in {path.parent} (set LABELER_DATA): reviews of the demonstration instead")
        found = [row | {"label": row["labels"]["sentiment"]} for row in reviews() if row["lang"] == "ko"]
    return random.Random(1).sample(found, len(found))


def prompts(chat: Any, language: str, records: int, k: int, fixed: bool) -> list[list[int]]:
    """Return the token ids of the prompts, with k examples that are the same for all records or each one's own."""
    found = rows()
    asked, rest = found[:records], found[records:]
    made = []
    for n, row in enumerate(asked):
        shown = rest[:k] if fixed else random.Random(n).sample(rest, k)
        examples = [Example(i, i, row["text"], row["label"], 0.5) for i, row in enumerate(shown)]
        record = Record(n, 1, row["id"], row["text"])
        style = PromptStyle(language=language).fenced([row["text"]])
        made.append(chat.prompt_ids(TASK.build_prompt(record, examples, style)))
    return made


def read(text: str) -> Any:
    """Return the label that an answer names, or None."""
    value = TASK.parse_completion(text, Record(0, 1, "", ""))
    return value if isinstance(value, str) else None


def measured(work: Callable[[], Sequence[Any]], count: int) -> Measured:
    started, cpu = time.perf_counter(), time.process_time()
    labels = work()
    return Measured((time.perf_counter() - started) / count, (time.process_time() - cpu) / count, labels)


def loop(loaded: Any, asked: Sequence[Sequence[int]], most: int) -> list[Any]:
    """Label as tutorials do: one ``generate`` a record."""
    import torch

    labels = []
    for prompt in asked:
        ids = torch.tensor([list(prompt)], device=loaded.device)
        found = loaded.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False
        )
        labels.append(read(loaded.tokenizer.decode(found[0, len(prompt) :], skip_special_tokens=True)))
    return labels


def scored(loaded: Any, asked: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], batch: int) -> list[Any]:
    cache, labels = PrefixCache(), list(TASK.schema.candidates())
    best = []
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        found = score(loaded, part, [answers] * len(part), batch, cache)
        best += [labels[int(probabilities(one).argmax())] for one in found]
    return best


def generated(loaded: Any, asked: Sequence[Sequence[int]], most: int, batch: int) -> list[Any]:
    from labeler.backends.local.generating import generate

    cache, found = PrefixCache(), []
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        found += generate(loaded, part, Generation(max_tokens=most), TASK.json_schema(), batch, cache)
    return [read(answer.text) for answer in found]


def own_tokens(asked: Sequence[Sequence[int]]) -> float:
    """Return how many tokens a record costs if what all prompts begin with is read once."""
    shared = common_length(asked)
    return shared / len(asked) + statistics.mean(len(prompt) - shared for prompt in asked)


def least_seconds(loaded: Any, tokens: float) -> float:
    """Return how long ``tokens`` take if reading were nothing but the products with the weights, at their best rate."""
    import torch

    config = loaded.model.config.get_text_config()
    rows, size, inner = 512, config.hidden_size, config.intermediate_size
    a, b = torch.randn(rows, size), torch.randn(size, inner)
    times = []
    for _ in range(30):
        started = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - started)
    flops = 2 * rows * size * inner / min(times)
    embedded = loaded.model.get_input_embeddings().weight.numel()
    return 2 * (loaded.model.num_parameters() - embedded) * tokens / flops


def weights(arguments: argparse.Namespace) -> Any:
    """Load what the arguments name, as the backend loads it."""
    from labeler.backends.local.loading import LoadOptions, load

    if not arguments.random_llama:
        if arguments.model is None:
            from local_models import smollm2_folder

            arguments.model = str(smollm2_folder())
        return load(LoadOptions(arguments.model, quantization=arguments.quantization, device=arguments.device))
    import tempfile

    import torch
    from local_models import smollm2_folder
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    # The tokenizer of SmolLM2: its ids are all below 128,256. Saved and loaded again, so that nf4 works as ever.
    with tempfile.TemporaryDirectory() as folder:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            config = AutoConfig.for_model("llama", **LLAMA_8B | json.loads(arguments.shape or "{}"))
            AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        AutoTokenizer.from_pretrained(smollm2_folder()).save_pretrained(folder)
        return load(LoadOptions(folder, quantization=arguments.quantization, device=arguments.device))


def compare(loaded: Any, language: str, fixed: bool, arguments: argparse.Namespace) -> None:
    """Measure all ways on one set of prompts and print a line for each."""
    from labeler.backends.local.chat import Chat

    chat = Chat(loaded.tokenizer)
    answers = [chat.answer_ids(TASK.answer(value)) for value in TASK.schema.candidates().values()]
    most = max(map(len, answers)) + 8
    asked = prompts(chat, language, arguments.records, arguments.k, fixed)
    ways: dict[str, Callable[[Sequence[Sequence[int]]], list[Any]]] = {
        "loop": lambda some: loop(loaded, some, most),
        "scored": lambda some: scored(loaded, some, answers, arguments.batch),
        "generated": lambda some: generated(loaded, some, most, arguments.batch),
    }
    if arguments.without:
        ways = {name: way for name, way in ways.items() if name not in arguments.without}
    runs: dict[str, list[Measured]] = {name: [] for name in ways}
    for way in ways.values():
        way(asked[:2])
    for _ in range(arguments.repeat):
        for name, way in ways.items():
            runs[name].append(measured(lambda way=way: way(asked), len(asked)))
    tokens = statistics.mean(map(len, asked))
    print(f"prompts in {language}, {arguments.k} {'fixed' if fixed else 'own'} examples, {tokens:.0f} tokens:")
    told = runs[next(iter(ways))][0].labels
    first = {}
    for name, found in runs.items():
        wall, cpu = (statistics.median(getattr(run, part) for run in found) for part in ("seconds", "cpu"))
        first.setdefault("wall", wall)
        first.setdefault("cpu", cpu)
        readable = [pair for pair in zip(found[0].labels, told, strict=True) if None not in pair]
        line = (
            f"  {name:9} {1 / wall:7.2f} items/s, {wall:.3f} s and {cpu:.3f} CPU s an item; "
            f"ratio {first['wall'] / wall:.1f} (CPU {first['cpu'] / cpu:.1f}); "
            f"{sum(label is not None for label in found[0].labels)} readable; "
            f"as the first way {sum(a == b for a, b in readable)} of {len(readable)}"
        )
        print(line + rate(loaded, tokens / wall, arguments), flush=True)
    if loaded.device.type == "cpu":
        own = own_tokens(asked)
        least = least_seconds(loaded, own)
        print(f"  limit     {own:.0f} tokens a record are its own: {least:.3f} s; ratio {first['wall'] / least:.1f}")


def rate(loaded: Any, tokens: float, arguments: argparse.Namespace) -> str:
    """Say the rate of prompt tokens, counted as if nothing were shared, and its share of the card's limit."""
    said = f"; {tokens:.0f} prompt tokens/s"
    if loaded.device.type == "cuda" and arguments.flops_limit:
        # Quantised weights count as the numbers that they stand for.
        share = 2 * loaded.model.num_parameters() * tokens / (arguments.flops_limit * 1e12)
        said += f", {share:.2f} of {arguments.flops_limit:g} TFLOPS"
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description="Rates of local weights beside a loop of model.generate.")
    parser.add_argument("--model", help="a hub id, a folder or a GGUF file; default: SmolLM2-135M")
    parser.add_argument("--random-llama", action="store_true", help="random weights in the shape of Llama-3.1-8B")
    parser.add_argument("--shape", help="JSON that changes that shape, to try the script with less")
    parser.add_argument("--quantization", default="auto", choices=("auto", "nf4", "int8", "none"))
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    parser.add_argument("--flops-limit", type=float, help="dense bf16 limit of the card, TFLOPS")
    parser.add_argument("--records", type=int, default=24)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--language", nargs="*", default=["en", "ko"])
    parser.add_argument("--without", nargs="*", default=[], help="ways to leave out: loop, scored, generated")
    arguments = parser.parse_args()
    loaded = weights(arguments)
    print(f"{loaded.description}; {arguments.records} records in calls of {arguments.batch}, "
          f"median of {arguments.repeat}")  # fmt: skip
    for language in arguments.language:
        for fixed in (False, True):
            compare(loaded, language, fixed, arguments)


if __name__ == "__main__":
    main()
