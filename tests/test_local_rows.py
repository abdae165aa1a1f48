"""Prompts are read in small groups and answered side by side: the same tokens as one by one, only sooner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from local_models import gemma3_270m_folder, smollm2_folder
from tiny_models import MODELS, small
from tiny_models import one_thread as one_thread

from labeler.backends.local.prefix import Prefix, PrefixCache, continued, shared_prefix
from labeler.demo import reviews
from labeler.labels import Keywords
from labeler.prompts import PromptStyle
from labeler.records import Generation, Record
from labeler.task import Task

torch = pytest.importorskip("torch", reason="torch is not installed (labeler-rag[local])")
pytest.importorskip("transformers", reason="transformers is not installed (labeler-rag[local])")

from labeler.backends.local import attention, rows  # noqa: E402
from labeler.backends.local.chat import Chat  # noqa: E402
from labeler.backends.local.generating import generate  # noqa: E402
from labeler.backends.local.loading import LoadOptions, load  # noqa: E402

HEAD = tuple(range(10, 50))
ANSWER = [70, 71, 72, 73, 74]
BATCHES = {
    "unlike lengths": [[*HEAD, *range(60, 90)], [*HEAD, 61, 62], [*HEAD, 63], [*HEAD, *range(70, 79)]],
    "one much longer than the head": [[*HEAD, *range(10, 95)], [*HEAD, 61]],
    "all the same": [[*HEAD, 61]] * 3,
    "nothing in common": [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14]],
    "a single one": [[*HEAD, 61, 62, 63]],
}


def plain(loaded: Any, prompt: Sequence[int]) -> Any:
    """Return the logits (1 + answer, vocabulary) after the prompt and after each token of ANSWER, by one forward."""
    with torch.inference_mode():
        return loaded.model(input_ids=torch.tensor([[*prompt, *ANSWER]])).logits[0, len(prompt) - 1 :]


def stepwise(loaded: Any, prefix: Prefix, prompts: Sequence[Sequence[int]], room: int) -> Any:
    """Return the same, (rows, 1 + answer, vocabulary), written token by token from the padded cache."""
    cache = rows.padded_cache(loaded, prefix, prompts, room)
    width = max(map(len, prompts))
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    found = []
    for step, tokens in enumerate([[prompt[-1] for prompt in prompts], *([token] * len(prompts) for token in ANSWER)]):
        seen = torch.cat([mask, mask.new_ones(len(prompts), step)], dim=1)
        with torch.inference_mode():
            found.append(
                loaded.model(
                    input_ids=torch.tensor(tokens)[:, None],
                    attention_mask=seen,
                    position_ids=seen.sum(dim=1, keepdim=True) - 1,
                    **attention.given(loaded.model, cache),
                ).logits[:, -1]
            )
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", MODELS)
def test_rows_predict_what_each_prompt_predicts_alone(name: str, batch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the attention, with a cached head and without, in groups of any size, also when the room runs out."""
    kind, changes = MODELS[name]
    loaded, prompts = small(kind, **changes), BATCHES[batch]
    alone = [plain(loaded, prompt) for prompt in prompts]
    for prefix in (Prefix(), shared_prefix(loaded, prompts, PrefixCache())):
        for tokens in (1, 40, 10_000):
            monkeypatch.setattr(rows, "CPU_TOKENS", tokens)
            found = stepwise(loaded, prefix, prompts, 2)
            for row, expected in zip(found, alone, strict=True):
                assert torch.allclose(row.log_softmax(-1), expected.log_softmax(-1), atol=1e-3)
    assert rows.goes_on(loaded, prompts[0])


def test_a_cached_head_is_not_changed_by_what_follows() -> None:
    """Rows take a copy: the next batch finds the head as it was."""
    loaded = small("llama")
    head = continued(loaded, Prefix(), HEAD)
    before = [part.clone() for layer in head.layers for part in layer]
    stepwise(loaded, head, BATCHES["unlike lengths"], 2)
    assert all(torch.equal(a, b) for a, b in zip(before, (p for layer in head.layers for p in layer), strict=True))


def test_groups_hold_as_many_tokens_as_one_forward_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short prompts are read together; a longer one stands alone; padding counts."""
    loaded = small("llama")
    monkeypatch.setattr(rows, "CPU_TOKENS", 12)
    prompts = [[1] * 30, [1] * 6, [1] * 6, [1] * 6, [1] * 2]
    assert [(start, len(group)) for start, group in rows._groups(loaded, Prefix(), prompts)] == [(0, 1), (1, 2), (3, 2)]


def test_a_model_without_keys_and_values_has_no_cached_head() -> None:
    """A state space model is found out, and generates by itself."""
    assert not rows.goes_on(small("mamba", state_size=4), HEAD)


def test_a_model_that_hides_which_positions_it_takes_has_no_cached_head() -> None:
    """A wrapped forward is not told the positions of padded rows, and would answer wrongly without a word."""
    loaded = small("llama")
    forward = loaded.model.forward
    loaded.model.forward = lambda *args, **kwargs: forward(*args, **kwargs)
    assert not rows.goes_on(loaded, HEAD)


def written(loaded: Any, prompt: Sequence[int], most: int) -> str:
    """Return what one plain ``model.generate`` writes, greedily."""
    ids = torch.tensor([list(prompt)])
    found = loaded.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False
    )
    return str(loaded.tokenizer.decode(found[0, len(prompt) :], skip_special_tokens=True))


def prompts_of(loaded: Any, count: int) -> list[list[int]]:
    task, chat = Task("keywords", Keywords(), {"en": "Keywords"}, {"en": "Copy what matters."}), Chat(loaded.tokenizer)
    records = [Record(n, 1, row["id"], row["text"]) for n, row in enumerate(reviews()[:count], 1)]
    return [chat.prompt_ids(task.build_prompt(record, (), PromptStyle(language="en"))) for record in records]


def test_real_reviews_are_answered_as_by_a_plain_generate() -> None:
    """Guidelines are read once for both calls, and every answer is what the tutorial's loop writes."""
    loaded = load(LoadOptions(str(smollm2_folder()), device="cpu"))
    prompts, cache = prompts_of(loaded, 3), PrefixCache()
    found = [
        answer.text
        for part in (prompts[:2], prompts[2:])
        for answer in generate(loaded, part, Generation(max_tokens=16), None, 8, cache)
    ]
    assert found == [written(loaded, prompt, 16) for prompt in prompts]
    assert len(cache) == 1
    assert len(set(found)) > 1


def test_answers_beyond_the_window_of_a_real_model_are_those_of_a_plain_generate() -> None:
    """Gemma 3 sees 512 tokens in five of six layers: what a row sees is counted from its own tokens, not from pads."""
    loaded = load(LoadOptions(str(gemma3_270m_folder()), device="cpu"))
    head, *own = (Chat(loaded.tokenizer).answer_ids(row["text"]) for row in reviews()[:3])
    prompts = [(head * 20)[:540] + ids for ids in (own[0], own[1] * 3)]
    found = generate(loaded, prompts, Generation(max_tokens=6), None, 2, PrefixCache())
    assert [answer.text for answer in found] == [written(loaded, prompt, 6) for prompt in prompts]
